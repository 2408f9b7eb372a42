"""What a run directory promises: exact resume, nothing imported from it, freezing, stopping, full disks."""

import errno
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import ridgeline
from ridgeline import checkpoint, metrics, run_directory, session
from ridgeline.algorithms.ppo import PPO
from ridgeline.environments import make
from ridgeline.estimators.gae import GAE
from ridgeline.metrics import MetricsFile, read_lines
from ridgeline.policies import MLP
from ridgeline.session import RunError, train
from ridgeline.training import Training, TrainingError

SMALL = PPO(num_envs=4, rollout_length=8, num_epochs=1, num_minibatches=2)
STEPS = 32  # of one iteration
TINY = MLP(hidden_sizes=(8,))

# Two steps of reward 1, or NaN in the third step of an unlucky instance; observations hold noise.
NOISY = """
from typing import NamedTuple
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype, uniform
from noisy_helper import LENGTH

State = state_dtype(clock=np.int64, age=np.int64, luck=np.float64)
observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
action_space = spaces.Discrete(2)


class Parameters(NamedTuple):
    unlucky: float = 0.0
    breaks_at: int = 3


def reset(state, p):
    state.clock = 0
    if state.age == 0:
        state.luck = uniform(state)


def step(state, action, p):
    state.clock += 1
    state.age += 1
    broken = state.age >= p.breaks_at and state.luck < p.unlucky
    return (np.nan if broken else 1.0), state.clock >= LENGTH


def observe(state, observation, p):
    observation[0] = state.clock
    observation[1] = uniform(state)
"""


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    path = tmp_path_factory.mktemp("environment") / "noisy.py"
    path.write_text(NOISY)
    path.with_name("noisy_helper.py").write_text("LENGTH = 2\n")
    return path


class Listener(session.View):
    """Keeps what a view hears; `each` is called after every iteration."""

    def __init__(self, each=None):
        self.messages, self.metrics, self.each = [], [], each

    def start(self, training, directory):
        self.training, self.first = training, training.shards[0].population.flat.clone()

    def update(self, metrics):
        self.metrics.append(metrics)
        if self.each is not None:
            self.each(self.training)

    def message(self, text):
        self.messages.append(text)

    def finish(self, result):
        self.result = result


def after(iterations, reason="interrupt"):
    """A `stop` that asks for the end after so many iterations."""
    left = [iterations]

    def stop():
        left[0] -= 1
        return reason if left[0] == 0 else None

    return stop


def same(a, b):
    """Whether two runs' newest checkpoints hold the same bits: weights, optimizer, normalisers, environments, all."""
    one, two = (checkpoint.load_newest(Path(directory) / "checkpoints") for directory in (a, b))
    assert one is not None and two is not None and one.tensors.keys() == two.tensors.keys()
    different = [
        name
        for name, tensor in one.tensors.items()
        if tensor.numpy().tobytes() != two.tensors[name].numpy().tobytes() or tensor.shape != two.tensors[name].shape
    ]
    assert not different
    assert one.document["iteration"] == two.document["iteration"] and one.step == two.step
    assert timeless(a) == timeless(b)
    return True


def timeless(directory):
    """metrics.jsonl without what depends on the clock."""
    return [
        {name: value for name, value in line.items() if "seconds" not in name}
        for line in read_lines(Path(directory) / "metrics.jsonl")
    ]


def iterations(directory):
    return [line["iteration"] for line in read_lines(Path(directory) / "metrics.jsonl")]


# --------------------------------------------------------------------------------------------------------- exact resume


@pytest.mark.parametrize("num_runs", [1, 4])
@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path, environment, num_runs):
    common = {"policy": TINY, "num_runs": num_runs, "num_threads": 2, "total_steps": 8 * STEPS}
    whole = train(environment, SMALL, out=tmp_path / "whole", **common)
    parts = tmp_path / "parts"
    first = train(environment, SMALL, out=parts, stop=after(2), **common)
    assert (first.stopped, first.total_steps, iterations(parts)) == ("interrupt", 2 * STEPS, [1, 2])
    second = train(resume=parts, stop=after(3, "terminate"))
    assert (second.stopped, second.total_steps) == ("terminate", 5 * STEPS)
    listener = Listener()
    last = train(resume=parts, view=listener)
    assert same(tmp_path / "whole", parts) and listener.messages == []
    assert last.episode_return == whole.episode_return and last.wall_seconds > second.wall_seconds > first.wall_seconds
    for one, two in zip(whole.policies, last.policies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_observations_that_hold_noise_resume_exactly(tmp_path, noisy):
    train(noisy, SMALL, policy=TINY, total_steps=6 * STEPS, num_runs=2, out=tmp_path / "whole")
    train(noisy, SMALL, policy=TINY, total_steps=6 * STEPS, num_runs=2, out=tmp_path / "parts", stop=after(2))
    train(noisy, resume=tmp_path / "parts")
    assert same(tmp_path / "whole", tmp_path / "parts")


SCRIPT = """
import sys
from pathlib import Path

from ridgeline import session
from ridgeline.algorithms.ppo import PPO
from ridgeline.policies import MLP

session.CHECKPOINT_SECONDS = 0.0
ppo = PPO(num_envs=4, rollout_length=8, num_epochs=1, num_minibatches=2)


class Ticker(session.View):
    def update(self, metrics):
        print(metrics["iteration"], flush=True)


def run(directory, iterations, view=None):
    for environment, num_runs in (("cartpole", 4), ("pendulum", 1)):
        out = Path(directory) / environment
        if (out / "config.json").exists():
            session.train(resume=out, view=view)
        else:
            session.train(
                environment, ppo, policy=MLP(hidden_sizes=(8,)), num_runs=num_runs, num_threads=2,
                total_steps=32 * iterations, out=out, view=view,
            )


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), Ticker())
"""


@pytest.mark.parametrize(("kills", "iterations"), [(1, 10), pytest.param(15, 40, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, kills, iterations):
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", session.CHECKPOINT_SECONDS)  # the script sets it
    (tmp_path / "script.py").write_text(SCRIPT)
    package = str(Path(ridgeline.__file__).parents[1])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    generator = random.Random(kills)

    def start():
        return subprocess.Popen(
            [sys.executable, tmp_path / "script.py", tmp_path / "killed", str(iterations)],
            stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip

    killed = 0
    for _ in range(kills):
        with start() as process:
            for _ in range(generator.randrange(1, 1 + 15 * iterations // (8 * kills))):
                process.stdout.readline()
            try:
                process.wait(generator.random() * 0.03)
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.stdout.read()
    assert killed == kills
    namespace = {"__name__": "script"}
    exec(SCRIPT, namespace)
    for directory in ("killed", "whole"):  # the rest of it, and all of it
        namespace["run"](tmp_path / directory, iterations)
    for environment in ("cartpole", "pendulum"):
        assert same(tmp_path / "whole" / environment, tmp_path / "killed" / environment)


def test_metrics_are_cut_back_to_the_checkpoint_and_damaged_checkpoints_are_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    train("cartpole", SMALL, policy=TINY, total_steps=8 * STEPS, out=tmp_path / "whole")
    parts = tmp_path / "parts"
    train("cartpole", SMALL, policy=TINY, total_steps=8 * STEPS, out=parts, stop=after(5))
    fifth, fourth, _ = sorted((parts / "checkpoints").iterdir(), reverse=True)
    fifth.write_bytes(fifth.read_bytes()[:-100])
    content = bytearray(fourth.read_bytes())
    content[-7] ^= 1
    fourth.write_bytes(content)
    with open(parts / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 6, "steps"')
    listener = Listener(lambda training: seen.append(iterations(parts)))
    seen = []
    train(resume=parts, view=listener)
    assert seen[0] == [1, 2, 3, 4]
    assert len(listener.messages) == 2
    for path, message in zip((fifth, fourth), listener.messages, strict=True):
        assert message.startswith(f"skipped {path}: ") and "cut or altered" in message
    assert same(tmp_path / "whole", parts)

    for path in (parts / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match="no checkpoint can be used"):
        train(resume=parts)
    with pytest.raises(RunError, match="no checkpoint can be used"):
        session.load(parts)


def test_killed_before_the_first_checkpoint_starts_again(tmp_path):
    train("cartpole", SMALL, policy=TINY, total_steps=3 * STEPS, out=tmp_path / "whole")
    train("cartpole", SMALL, policy=TINY, total_steps=3 * STEPS, out=tmp_path / "parts", stop=after(2))
    next((tmp_path / "parts" / "checkpoints").iterdir()).unlink()
    listener = Listener()
    train(resume=tmp_path / "parts", view=listener)
    assert "no checkpoint yet; it starts from the beginning" in listener.messages[0]
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_another_number_of_threads_or_version_is_said(tmp_path, monkeypatch):
    out = tmp_path / "run"
    train("cartpole", SMALL, policy=TINY, num_runs=2, num_threads=2, total_steps=2 * STEPS, out=out, stop=after(1))
    listener = Listener()
    train(resume=out, num_threads=1, view=listener)
    assert listener.messages == ["continues, not bit-identical: num_threads was 2 and is 1"]
    monkeypatch.setattr(run_directory.platform, "python_version", lambda: "9.9")
    listener = Listener()
    train(resume=out, view=listener)
    assert [text for text in listener.messages if "python was" in text and text.endswith("and is 9.9")]


def test_one_run_uses_no_more_of_torch_than_asked_for(tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Watched(PPO):
        def iterate(self, env, population, estimator):
            seen.append(torch.get_num_threads())
            return super().iterate(env, population, estimator)

    torch.set_num_threads(2)
    try:
        small = Watched(num_envs=4, rollout_length=8)
        train("cartpole", small, policy=TINY, total_steps=STEPS, num_threads=2)  # too little work for two
        large = Watched(num_envs=64, rollout_length=4, num_epochs=1, num_minibatches=1)
        for num_threads in (1, 2, 16):
            train("cartpole", large, policy=MLP((512, 512)), total_steps=256, num_threads=num_threads)
        assert torch.get_num_threads() == 2
        train("cartpole", small, policy=TINY, total_steps=STEPS, num_runs=2, num_threads=2)
    finally:
        torch.set_num_threads(1)
    assert seen == [1, 1, 2, 2, 1, 1]


def test_configurations_of_each_run_survive(tmp_path):
    algorithms = [replace(SMALL, learning_rate=rate, max_grad_norm=float("inf")) for rate in (1e-3, 1e-2, 0.1)]
    estimators = [GAE(gamma=gamma, gae_lambda=0.9) for gamma in (0.5, 0.99, 1.0)]
    for out, stop in ((tmp_path / "whole", None), (tmp_path / "parts", after(2))):
        train(
            "cartpole", algorithms, estimators, TINY, num_threads=2, seed=[3, 1, 8], total_steps=128, out=out, stop=stop
        )
    result = train(resume=tmp_path / "parts")
    assert same(tmp_path / "whole", tmp_path / "parts")
    config = run_directory.read_config(tmp_path / "parts")
    assert config["seeds"] == [3, 1, 8] and result.num_runs == 3
    assert run_directory.component("algorithm", config, None) == algorithms
    assert run_directory.component("estimator", config, None) == estimators
    assert run_directory.component("policy", config, None) == TINY
    assert json.loads((tmp_path / "parts" / "config.json").read_text()) == config  # strict JSON


def test_outside_environments_start_new_episodes_and_say_so(tmp_path):
    out = tmp_path / "run"
    small = replace(SMALL, num_envs=2)
    train("CartPole-v1", small, policy=TINY, num_runs=2, num_threads=1, total_steps=64, out=out, stop=after(2))
    listener = Listener()
    result = train(resume=out, view=listener)
    assert result.total_steps == 64
    assert listener.messages == [
        "continues, not bit-identical: CartPole-v1 is an outside environment and starts new episodes"
    ]


# ---------------------------------------------------------------------------------------- what may change, what may not


def test_a_changed_environment_is_refused(tmp_path, noisy):
    own, helper = tmp_path / "own.py", tmp_path / "noisy_helper.py"
    own.write_text(NOISY)
    helper.write_text("LENGTH = 2\n")
    train(own, SMALL, policy=TINY, total_steps=2 * STEPS, out=tmp_path / "run", stop=after(1))
    helper.write_text("LENGTH = 3\n")
    with pytest.raises(RunError, match=r"own\.py has changed since this run was started; restore its source, or start"):
        train(own, resume=tmp_path / "run")
    loaded = session.load(tmp_path / "run", own)
    assert len(loaded.notes) == 1 and "is not what this run was trained on" in loaded.notes[0]
    helper.write_text("LENGTH = 2\n")
    assert train(own, resume=tmp_path / "run").total_steps == 2 * STEPS
    assert session.load(tmp_path / "run", own).notes == []


def test_total_steps_may_grow_where_no_schedule_depends_on_them(tmp_path):
    flat = replace(SMALL, anneal_learning_rate=False)
    train("cartpole", flat, policy=TINY, total_steps=9 * STEPS, out=tmp_path / "whole")
    out = tmp_path / "run"
    train("cartpole", flat, policy=TINY, total_steps=4 * STEPS, out=out)
    listener = Listener()
    assert train(resume=out, view=listener).total_steps == 4 * STEPS
    assert "has already done its 128 steps" in listener.messages[0]
    with pytest.raises(RunError, match="total_steps = 96 and the run has done 128; ask for more"):
        train(resume=out, total_steps=3 * STEPS)
    train(resume=out, total_steps=9 * STEPS, stop=after(2))
    assert train(resume=out).total_steps == 9 * STEPS  # it remembers
    assert same(tmp_path / "whole", out)


def test_total_steps_are_refused_under_an_annealed_schedule(tmp_path):
    out = tmp_path / "run"
    train("cartpole", SMALL, policy=TINY, total_steps=4 * STEPS, out=out, stop=after(1))
    with pytest.raises(RunError, match=r"total_steps = 256 would change the schedule of anneal_learning_rate.*--init"):
        train(resume=out, total_steps=8 * STEPS)
    assert train(resume=out, total_steps=4 * STEPS).stopped == "finished"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "leave seed away"),
        ({"num_runs": 2, "out": "elsewhere"}, "leave num_runs and out away"),
        ({"init": "elsewhere"}, "leave init away"),
        ({"algorithm": PPO(learning_rate=1.0)}, "this run's algorithm is PPO.*leave --algorithm away"),
        ({"estimator": "own.py"}, "this run's estimator is GAE"),
    ],
)
def test_nothing_else_may_change(tmp_path, change, message):
    train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out=tmp_path / "run")
    with pytest.raises(RunError, match=message):
        train(resume=tmp_path / "run", **change)
    assert train("cartpole", SMALL, "gae", TINY, resume=tmp_path / "run").stopped == "finished"


def test_a_run_is_never_overwritten(tmp_path):
    train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out=tmp_path / "run")
    content = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="already holds a run"):
        train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out=tmp_path / "run")
    assert content == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="cannot be made"):
        train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out=tmp_path / "run" / "config.json" / "inside")


def test_init_starts_anew_from_the_weights(tmp_path):
    train("cartpole", SMALL, policy=TINY, num_runs=2, num_threads=1, total_steps=3 * STEPS, out=tmp_path / "old")
    saved = checkpoint.load_newest(tmp_path / "old" / "checkpoints").tensors
    listener = Listener()
    new = tmp_path / "new"
    common = {"policy": TINY, "num_threads": 1, "total_steps": 2 * STEPS}
    train("cartpole", SMALL, num_runs=3, seed=7, out=new, init=tmp_path / "old", view=listener, **common)
    assert torch.equal(listener.first, saved["population.flat"][[0, 1, 0]])
    assert iterations(new) == [1, 2] and run_directory.read_config(new)["seeds"] == [7, 8, 9]
    fresh = checkpoint.load_newest(new / "checkpoints").tensors
    assert fresh["population.update_count"].tolist() == [4, 4, 4]
    assert fresh["population.observation_moments.count"].tolist() == [5 * STEPS] * 3

    with pytest.raises(RunError, match=r"does not fit: the saved policy has \(1, 107\) for flat, this one needs"):
        train("cartpole", SMALL, policy=MLP(hidden_sizes=(9,)), out=tmp_path / "other", init=tmp_path / "old")
    with pytest.raises(RunError, match=r"does not fit: the saved policy differs from this one in buffer\.observ"):
        bare = replace(TINY, normalize_observation=False)
        train("cartpole", SMALL, policy=bare, out=tmp_path / "other", init=tmp_path / "old")
    with pytest.raises(RunError, match="has no checkpoint to start from"):
        train("cartpole", SMALL, policy=TINY, out=tmp_path / "other", init=tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------------------------------------- a run directory is data


@pytest.mark.parametrize("opened", ["resumed", "loaded"])
@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("environment", "os:system"),
        ("environment", "evil:Class"),
        ("environment", "{folder}/evil.py"),
        ("policy", "evil:Class"),
        ("policy", "{folder}/evil.py"),
        ("policy", "evil"),
        ("algorithm", "evil:Class"),
        ("algorithm", "{folder}/evil.py"),
        ("algorithm", "ridgeline.session"),
        ("estimator", "../../evil"),
    ],
)
def test_nothing_named_in_it_is_imported(tmp_path, monkeypatch, entry, name, opened):
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Class: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out="run")
    config = json.loads(Path("run/config.json").read_text())
    name = name.format(folder=tmp_path)
    if entry == "environment":
        config["environment"] = name
    else:
        config[entry]["name"] = name
    Path("run/config.json").write_text(json.dumps(config))
    if opened == "resumed":
        with pytest.raises(RunError, match=r"the user's own, .*; name it") as caught:
            train(resume="run")
        assert name in str(caught.value)
        if entry != "environment":
            with pytest.raises(RunError, match="the user's own"):
                train(resume="run", **{entry: name})
    elif entry in ("environment", "policy"):
        with pytest.raises(RunError, match="the user's own"):
            session.load("run")
    else:
        session.load("run")
    assert not marker.exists() and "evil" not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99"),
        ({"seeds": "0"}, "was altered: seeds"),
        ({"versions": None, "policy": {"name": "mlp"}}, "was altered: versions, policy"),
        (
            {"algorithm": {"name": "ppo", "fields": {"unknown": 1}}},
            "this run's algorithm cannot be made by this version",
        ),
        ({"algorithm": {"name": "ppo", "fields": {"learning_rate": "text"}}}, "algorithm cannot be made"),
        ({"seeds": [0, 1]}, "is no checkpoint of this run"),
    ],
)
def test_an_altered_configuration_is_refused_in_one_line(tmp_path, change, message):
    out = tmp_path / "run"
    train("cartpole", SMALL, policy=TINY, total_steps=STEPS, out=out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RunError, match=message) as caught:
        train(resume=out)
    assert "\n" not in str(caught.value)


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"holds no run: there is no config\.json"):
        train(resume=tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"format": 1')
    with pytest.raises(RunError, match="cannot be read"):
        train(resume=tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(RunError, match="has format None"):
        session.load(tmp_path)


OWN = """
from dataclasses import dataclass
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import GAE


@dataclass(frozen=True)
class Own(PPO):
    bonus: float = 1.0
"""


def test_a_users_own_algorithm_is_named_again_with_its_file(tmp_path):
    file, out = tmp_path / "own.py", tmp_path / "run"
    file.write_text(OWN)
    settings = {"policy": TINY, "total_steps": 4 * STEPS}
    own = ridgeline.components.find("algorithm", str(file))
    small = own(num_envs=4, rollout_length=8, num_epochs=1, num_minibatches=2, bonus=3.0)
    train("cartpole", small, out=tmp_path / "whole", **settings)
    train("cartpole", small, out=out, stop=after(2), **settings)
    with pytest.raises(RunError, match=r"algorithm is the user's own, .*own:Own; name its file again with --algorithm"):
        train(resume=out)
    with pytest.raises(RunError, match="name its file again"):
        train(resume=out, algorithm="ppo")
    with pytest.raises(RunError, match="and stays so"):
        train(resume=out, algorithm=replace(small, bonus=4.0))
    listener = Listener()
    train(resume=out, algorithm=str(file), view=listener)
    assert listener.training.algorithm.bonus == 3.0 and same(tmp_path / "whole", out)


def test_a_module_of_the_user_is_named_again(tmp_path):
    out = tmp_path / "run"

    def build():
        env = make("cartpole", 1)
        return TINY.build(env.observation_space, env.action_space)

    train("cartpole", SMALL, policy=build, num_runs=2, total_steps=2 * STEPS, out=out, stop=after(1))
    with pytest.raises(RunError, match="policy is the user's own"):
        train(resume=out)
    result = train(resume=out, policy=build)
    loaded = session.load(out, policy=build)
    for one, two in zip(result.policies, loaded.policies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


# ------------------------------------------------------------------------------------------------- when things go wrong


def test_a_poisoned_run_is_frozen_and_named_and_the_others_do_not_notice(tmp_path, noisy):
    seeds = [
        seed for seed in range(40) if (make(noisy, 4, seed).state["luck"] < 0.05).any()
    ][:1] + [seed for seed in range(40) if not (make(noisy, 4, seed).state["luck"] < 0.05).any()][:2]  # fmt: skip
    row = int(np.flatnonzero(make(noisy, 4, seeds[0]).state["luck"] < 0.05)[0])
    common = {"policy": TINY, "seed": seeds, "num_threads": 1, "total_steps": 4 * STEPS}
    clean = train(noisy, SMALL, out=tmp_path / "clean", **common)
    listener = Listener()
    poison = {"unlucky": 0.05, "breaks_at": 12}
    result = train(noisy, SMALL, out=tmp_path / "run", parameters=poison, view=listener, **common)
    reason = f"reward is not finite at step 3 of the rollout, environment row {row}"
    assert result.failures == {0: reason} and result.stopped == "finished"
    assert listener.messages == [f"run 0 (seed {seeds[0]}) is frozen: {reason}"]
    assert result.document()["failures"] == {"0": reason}
    assert result.episode_return == [2.0, 2.0, 2.0]  # those of the frozen run ended before
    one, two = (checkpoint.load_newest(tmp_path / name / "checkpoints").tensors for name in ("clean", "run"))
    for name in one:
        if name.startswith("population."):
            assert torch.equal(one[name][1:], two[name][1:]), name
    assert two["population.iteration"].tolist() == [4, 4, 4]
    assert torch.equal(two["population.update_count"], torch.tensor([2, 8, 8]))
    assert clean.failures == {}

    again = Listener()
    train(noisy, resume=tmp_path / "run", view=again)
    assert again.training.failures == {0: reason} and again.training.frozen == [True, False, False]
    assert session.load(tmp_path / "run", noisy).notes == [f"run 0 was frozen: {reason}"]


def test_training_stops_when_no_run_is_left_and_names_the_last_good_checkpoint(tmp_path, noisy, monkeypatch):
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    out, poison = tmp_path / "run", {"unlucky": 1.0, "breaks_at": 20}
    common = {"policy": TINY, "num_runs": 2, "total_steps": 9 * STEPS, "parameters": poison}
    listener = Listener()
    with pytest.raises(TrainingError) as caught:
        train(noisy, SMALL, out=out, view=listener, **common)
    good = out / "checkpoints" / "step_000000000064.safetensors"
    assert str(caught.value) == (
        "no run is left: run 0 was frozen because reward is not finite at step 3 of the rollout, environment row 0; "
        f"the last good checkpoint is {good}"
    )
    assert len(listener.messages) == 2 and listener.result.stopped == "frozen"
    assert json.loads((out / "summary.json").read_text())["stopped"] == "frozen"
    newest = checkpoint.load_newest(out / "checkpoints")
    assert newest.path == good and torch.isfinite(newest.tensors["population.flat"]).all()
    with pytest.raises(TrainingError, match=r"no run is left.*no checkpoint had been written"):
        train(noisy, SMALL, **common)


def test_a_full_disk_is_said_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "CHECKPOINT_SECONDS", 0.0)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    out = tmp_path / "run"
    real = os.replace

    def change(training):
        if training.iteration == 2:
            monkeypatch.setattr(os, "replace", refuse)
            monkeypatch.setattr(metrics, "open", refuse, raising=False)
        if training.iteration == 4:
            monkeypatch.setattr(os, "replace", real)
            monkeypatch.delattr(metrics, "open")

    def refuse(*arguments, **keywords):
        raise full

    listener = Listener(change)
    result = train("cartpole", SMALL, policy=TINY, total_steps=6 * STEPS, out=out, view=listener)
    assert result.stopped == "finished" and result.total_steps == 6 * STEPS
    saving = [text for text in listener.messages if "step_" in text]
    assert [int(text.partition("step_")[2][:12]) // STEPS for text in saving] == [2, 3]
    assert all("No space left on device" in text and "the last good checkpoint stays" in text for text in saving)
    others = [text for text in listener.messages if text not in saving]
    assert others == [f"{out / 'metrics.jsonl'}: No space left on device; training goes on, its metrics are lost"]
    assert iterations(out) == [1, 2, 5, 6]
    assert len(list((out / "checkpoints").iterdir())) == 3  # 4, 5, 6; nothing half-written


def test_half_a_line_on_a_full_disk_spoils_no_other(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.append({"iteration": 1, "number": np.float64(1 / 3), "array": np.array([1.5, np.nan, np.inf])})
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 2, "nu')
    file._failing = True
    assert file.append({"iteration": 3}) is None
    assert read_lines(tmp_path / "metrics.jsonl") == [
        {"iteration": 1, "number": 0.333333, "array": [1.5, None, None]},
        {"iteration": 3},
    ]
    MetricsFile(tmp_path / "metrics.jsonl", 1)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    assert read_lines(tmp_path / "nothing") == []


# ------------------------------------------------------------------------------------------------------------- stopping


def test_until_waits_for_a_hundred_episodes_of_every_run(noisy):
    listener = Listener()
    common = {"policy": TINY, "num_runs": 2, "total_steps": 100 * STEPS}
    result = train(noisy, SMALL, until=2.0, view=listener, **common)  # 16 episodes in every iteration
    assert result.stopped == "until" and result.total_steps == 7 * STEPS
    assert listener.metrics[-1]["num_episodes"].tolist() == [112, 112]
    assert train(noisy, SMALL, until=2.1, **{**common, "total_steps": 8 * STEPS}).stopped == "finished"


def test_minutes_end_a_training(tmp_path):
    result = train("cartpole", SMALL, policy=TINY, minutes=1e-9, out=tmp_path / "run")
    assert result.stopped == "minutes" and result.total_steps == STEPS
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == result.document()
    assert result.document()["run_dir"] == str(tmp_path / "run") and "policies" not in result.document()


def test_a_library_call_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ridgeline.train("cartpole", SMALL, policy=TINY, total_steps=STEPS)
    assert result.run_dir is None and list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="name an environment"):
        train()


def test_episode_means_are_those_of_the_last_hundred_episodes():
    """Against a list of all episodes; breakout's own statistics too."""
    ended = [[], [], []]

    def collect(training):
        for shard, runs in zip(training.shards, ([0, 1], [2]), strict=True):
            rollout = shard.env._rollout
            for row, episode in zip(rollout.episode_row, rollout.episode, strict=True):
                ended[runs[row // shard.env.num_envs]].append(episode)

    listener = Listener(collect)
    common = {"policy": TINY, "num_runs": 3, "num_threads": 2, "total_steps": 14 * 256}
    train("cartpole", replace(SMALL, rollout_length=64), view=listener, **common)
    assert min(len(own) for own in ended) > 100
    for run, own in enumerate(ended):
        last = np.stack(own)[-100:]
        assert listener.metrics[-1]["episode_return"][run] == pytest.approx(last[:, 0].mean())
        assert listener.metrics[-1]["episode_length"][run] == pytest.approx(last[:, 1].mean())
        assert listener.metrics[-1]["num_episodes"][run] == len(own)
    training = Training("breakout", SMALL, policy=TINY)
    assert {"episode_score", "episode_bricks_left"} < training.iterate().keys()
    training.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": PPO}, "the algorithm is the class PPO; give an object"),
        ({"estimator": 3}, "the estimator is 3: it needs a method __call__"),
        ({"algorithm": [SMALL] * 2, "num_runs": 3}, "2 algorithm configurations for 3 runs"),
        ({"total_steps": 1e6}, "total_steps = 1000000.0; use a whole number"),
        ({"num_runs": 0}, "num_runs = 0"),
        ({"seed": [1, 2], "num_runs": 3}, "2 seeds for 3 runs"),
        ({"policy": torch.nn.Linear(4, 2), "num_runs": 2}, "one nn.Module is the policy of one run"),
        ({"algorithm": [SMALL, replace(SMALL, num_epochs=3)]}, "num_epochs differs between the runs"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        train("cartpole", **{"algorithm": SMALL, **arguments})
