"""Seconds-long: every algorithm with every estimator, on a discrete and on a continuous environment."""

import dataclasses
import math
from itertools import product

import numpy as np
import pytest
import torch

from ridgeline import components
from ridgeline.metrics import MetricsFile
from ridgeline.policies import MLP
from ridgeline.training import Training, iterate

TINY = {"num_envs": 4, "rollout_length": 8}
REFUSED = {("dae", "pendulum"): "needs a Discrete action space"}  # at start, with this reason
# rewards of 1 over their mean of 1 are 0, and these algorithms have no entropy bonus
NOTHING_TO_LEARN = {("reinforce", "average_reward", "cartpole"), ("trpo", "average_reward", "cartpole")}


def tiny(name: str):
    return components.find("algorithm", name)(**TINY)


def check(training: Training, iterations=2, learns=True) -> None:
    """All numbers are finite, all runs learn where they should, and two iterations log the same things."""
    before = [[p.clone() for p in policy.parameters()] for policy in training.policies()]
    names = []
    for _ in range(iterations):
        metrics = training.iterate()
        names.append(sorted(metrics))
        for name, value in metrics.items():
            if isinstance(value, np.ndarray):
                assert value.shape == (training.num_runs,), name
                assert np.isfinite(value).all() or name.startswith("episode_"), name
    assert names[0] == names[-1] and {"policy_loss", "entropy", "gradient_norm", "learning_rate"} <= set(names[0])
    assert not any(training.frozen) and not training.warnings
    assert training.steps == iterations * 32 and math.isfinite(metrics["seconds_learn"])
    for old, policy in zip(before, training.policies(), strict=True):
        assert all(p.isfinite().all() for p in policy.parameters())
        assert learns == any(not torch.equal(a, b) for a, b in zip(old, policy.parameters(), strict=True))
    training.close()


def combinations() -> list:
    """All on cartpole; on pendulum each algorithm with gae and each estimator with ppo, and the rest is slow."""
    found = []
    for algorithm, estimator in product(components.names("algorithm"), components.names("estimator")):
        found.append((algorithm, estimator, "cartpole"))
        marks = [] if algorithm == "ppo" or estimator == "gae" else [pytest.mark.slow]
        found.append(pytest.param(algorithm, estimator, "pendulum", marks=marks))
    return found


@pytest.mark.parametrize(("algorithm", "estimator", "environment"), combinations())
def test_every_combination(algorithm, estimator, environment):
    def start():
        return Training(environment, tiny(algorithm), estimator, total_steps=64, num_runs=2, num_threads=1)

    if (estimator, environment) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[estimator, environment]):
            start()
    else:
        check(start(), learns=(algorithm, estimator, environment) not in NOTHING_TO_LEARN)


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_without_a_learned_baseline(algorithm, environment):
    estimator = components.find("estimator", "monte_carlo")(baseline="none")
    check(Training(environment, tiny(algorithm), estimator, total_steps=64, num_runs=2, num_threads=1))


@pytest.mark.parametrize(
    "policy",
    [
        MLP(hidden_sizes=(8, 8, 8), activation="relu"),
        MLP(hidden_sizes=(16,), shared_trunk=True),
        MLP(hidden_sizes=()),
        MLP(normalize_observation=False, normalize_value=False, log_std=-1.0),
    ],
)
@pytest.mark.parametrize(("runs", "vmap"), [(1, False), (1, True), (3, None)])
def test_every_kind_of_policy(policy, runs, vmap):
    for environment in ("cartpole", "pendulum"):
        check(
            Training(environment, tiny("ppo"), policy=policy, total_steps=64, num_runs=runs, num_threads=1, vmap=vmap),
        )


def test_several_threads():
    check(Training("cartpole", tiny("ppo"), total_steps=64, num_runs=5, num_threads=2))


def test_the_loop_belongs_to_the_caller(tmp_path):
    """`iterate` yields as many metrics as there are iterations, and they can be written as JSON lines."""
    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    count = 0
    for metrics in iterate("cartpole", algorithm=tiny("ppo"), total_steps=100, num_runs=2, num_threads=1):
        training = metrics.pop("training")
        count += 1
        assert file.append(metrics) is None and metrics["iteration"] == count == training.iteration
    assert count == 4 and training.steps == 128  # rounded up to whole iterations
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_every_field_explains_itself(algorithm):
    """Fields are flags: each number is checked when it is given, at construction."""
    cls = components.find("algorithm", algorithm)
    assert dataclasses.is_dataclass(cls) and cls.__doc__
    for name in ("num_envs", "rollout_length"):
        with pytest.raises(ValueError, match=name):
            cls(**{name: 0})
