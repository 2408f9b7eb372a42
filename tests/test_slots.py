"""A run that begins in the place of another is, to the last bit, what it is alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ridgeline import components
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import GAE
from ridgeline.policies import MLP
from ridgeline.recurrent_policies import GRU, LSTM
from ridgeline.training import Training

SMALL = PPO(num_envs=4, rollout_length=8, num_minibatches=2, num_epochs=2)
STEPS = 6 * 32  # six iterations


def make(
    seeds, algorithm=SMALL, estimator="gae", environment="cartpole", total_steps=STEPS, num_threads=1, policy="mlp"
):
    return Training(
        environment, algorithm, estimator, policy, total_steps=total_steps, seed=list(seeds), num_threads=num_threads,
        vmap=True if len(seeds) == 1 else None,
    )  # fmt: skip


def state(training: Training, run: int) -> dict[str, torch.Tensor]:
    """All that a checkpoint would keep of one run, and what it reports."""
    tensors, _ = training.state_dict()
    own = {}
    for name, tensor in tensors.items():
        count = len(tensor) // training.num_runs
        own[name] = torch.as_tensor(tensor[run * count : (run + 1) * count]).clone()
    progress = torch.cat([shard.population.progress for shard in training.shards])
    return own | {"progress": progress[run]}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    def equal(a, b):
        return np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())

    assert one.keys() == two.keys()
    assert [name for name in one if not equal(one[name], two[name])] == []


def iterate(training: Training, count: int) -> list[dict]:
    return [training.iterate() for _ in range(count)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_run_in_a_freed_place_is_what_it_is_alone(num_threads):
    """Seed, schedule, coefficients, length, environments, normalisers, episodes, metrics; the others do not notice."""
    changed = dataclasses.replace(SMALL, learning_rate=1e-2, entropy_coef=0.1, max_grad_norm=0.1)
    training, left_alone = make(range(4), num_threads=num_threads), make(range(4), num_threads=num_threads)
    iterate(training, 3)
    training.replace(2, 17, changed, GAE(0.9, 0.5), STEPS // 2)
    together = iterate(training, 3)
    iterate(left_alone, 6)
    alone = make([17], changed, GAE(0.9, 0.5), total_steps=STEPS // 2)
    expected = iterate(alone, 3)
    assert_same(state(training, 2), state(alone, 0))
    for run in (0, 1, 3):
        assert_same(state(training, run), state(left_alone, run))
    for mine, one in zip(together, expected, strict=True):
        for name in one.keys() - {"iteration", "steps"}:
            if not name.startswith("seconds_"):
                np.testing.assert_allclose(mine[name][2], one[name][0], 1e-5, err_msg=name)  # sums over all runs
    assert alone.finished and training.finished and training.seeds == (0, 1, 17, 3)
    training.close()
    left_alone.close()


def test_a_frozen_run_gives_its_place_to_another():
    training = make(range(3))
    training.shards[0].population.flat[1] = torch.nan
    iterate(training, 2)
    assert list(training.failures) == [1]
    training.replace(1, 8)
    iterate(training, 2)
    alone = make([8])
    iterate(alone, 2)
    assert training.failures == {}
    assert_same(state(training, 1), state(alone, 0))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("average_reward", {}),
        ("average_reward", {"variant": "apo"}),
        ("adaptive_mixture", {}),
        ("block", {"puf": 0.5}),
        ("monte_carlo", {"baseline": "moving_average"}),
        ("dae", {}),
    ],
)
def test_what_estimators_remember_begins_anew(name, settings):
    estimator = components.find("estimator", name)(**settings)
    training = make(range(3), estimator=estimator)
    iterate(training, 3)
    training.replace(1, 9)
    first = training.iterate()
    iterate(training, 2)
    alone = make([9], estimator=estimator)
    expected = alone.iterate()
    iterate(alone, 2)
    assert name == "dae" or training.shards[0].population.memory
    assert_same(state(training, 1), state(alone, 0))
    assert {k for k in expected if np.ndim(expected[k])} == {k for k in first if np.ndim(first[k])}


@pytest.mark.parametrize("kind", ["muon", "shared trunk", "gru", "lstm", "a module of the user's"])
def test_other_optimizers_and_policies(kind):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.register = nn.Linear(4, 3), None
            self.register_buffer("scale", torch.rand(1))

        def forward(self, observation):
            from ridgeline.distributions import Categorical

            output = self.body(observation) * self.scale
            return Categorical(output[:, :2]), output[:, 2:]

    algorithm = dataclasses.replace(SMALL, optimizer="muon") if kind == "muon" else SMALL
    policies = {"gru": GRU((6,)), "lstm": LSTM((6,)), "a module of the user's": Own}
    policy = policies.get(kind, MLP(hidden_sizes=(9,), shared_trunk=True))
    training = make(range(3), algorithm, policy=policy)
    iterate(training, 2)
    training.replace(0, 9)
    iterate(training, 2)
    alone = make([9], algorithm, policy=policy)
    iterate(alone, 2)
    assert_same(state(training, 0), state(alone, 0))


@pytest.mark.parametrize("policy", ["mlp", "gru"])
def test_a_pool_of_past_selves_begins_anew(policy):
    """Snapshots, seats, ratings and what recurrent opponents remember; the other run does not notice."""
    settings = {"total_steps": STEPS, "self_play": 0.5, "num_threads": 1}
    component = {"mlp": MLP(hidden_sizes=(9,)), "gru": GRU((6,))}[policy]
    training, left_alone = (Training("pong_duel", SMALL, "gae", component, seed=[3, 4], **settings) for _ in range(2))
    alone = Training("pong_duel", SMALL, "gae", component, seed=[9], vmap=True, **settings)
    iterate(training, 3)
    training.replace(0, 9)
    iterate(training, 3)
    iterate(alone, 3)
    iterate(left_alone, 6)
    assert_same(state(training, 0), state(alone, 0))
    assert_same(state(training, 1), state(left_alone, 1))


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_of_gymnasium_begin_anew(processes):
    from ridgeline.adapters.gymnasium import GymnasiumEnv

    env, alone = (GymnasiumEnv("CartPole-v1", 2, seeds, processes=processes) for seeds in ([3, 4, 5], [9]))
    other = GymnasiumEnv("CartPole-v1", 2, [3, 4, 5], processes=1)
    action = np.random.default_rng(0).integers(0, 2, (60, 6))
    for t in range(30):
        env.step(action[t])
        other.step(action[t])
    env.restart(1, 9)
    assert env.seeds == (3, 9, 5)
    np.testing.assert_array_equal(env.observation[2:4], alone.observation)
    for t in range(30, 60):
        step, expected, undisturbed = env.step(action[t]), alone.step(action[t, 2:4]), other.step(action[t])
        np.testing.assert_array_equal(step.observation[2:4], expected.observation)
        np.testing.assert_array_equal(step.observation[[0, 1, 4, 5]], undisturbed.observation[[0, 1, 4, 5]])
        mine = [list(one) for row, one in zip(step.episode_row, step.episode, strict=True) if row in (2, 3)]
        assert mine == [list(one) for one in expected.episode]
    for one in (env, alone, other):
        one.close()


def test_runs_of_different_lengths():
    """Each has the schedule of its own length, and the training is over when the longest is."""
    training = make([1, 2], total_steps=[STEPS, STEPS // 2])
    metrics = iterate(training, 3)
    assert not training.finished and metrics[-1]["learning_rate"].tolist()[0] > metrics[-1]["learning_rate"].tolist()[1]
    half = make([2], total_steps=STEPS // 2)
    iterate(half, 3)
    assert_same(state(training, 1), state(half, 0))
    iterate(training, 3)
    assert training.finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, dataclasses.replace(SMALL, num_epochs=3)), "num_epochs differs between the runs of one population"),
        ((5, 1), "run = 5; there are 2, from 0"),
        ((0, -1), "seed = -1; use a whole number"),
    ],
)
def test_what_cannot_take_a_place(arguments, message):
    training = make([0, 1])
    with pytest.raises(ValueError, match=message):
        training.replace(*arguments)
    iterate(training, 1)


def test_one_module_cannot_begin_anew():
    module = MLP().build(*(lambda env: (env.observation_space, env.action_space))(make([0]).shards[0].env))
    training = Training("cartpole", SMALL, policy=module, total_steps=STEPS)
    with pytest.raises(ValueError, match=r"one nn\.Module cannot begin anew"):
        training.replace(0, 1)
