"""Names: what `make` takes, in which order, and what it answers to a name that it does not know."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium
import gymnasium_samples
import numpy as np
import pytest

import ridgeline.envs
from ridgeline.adapters.gymnasium import GymnasiumEnv
from ridgeline.environments import make, names, resolve
from ridgeline.envs import cartpole
from ridgeline.kernel import InvalidEnvironment
from ridgeline.vector import EVALUATION, CompiledEnv

FOLDER = Path(ridgeline.envs.__file__).parent


@pytest.fixture
def registered():
    """Registers Gymnasium ids for one test."""
    before = dict(gymnasium.registry)
    yield gymnasium.register
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def message(environment, **keywords):
    """The one line that `make` answers."""
    with pytest.raises(ValueError) as caught:
        make(environment, 1, **keywords)
    assert isinstance(caught.value, InvalidEnvironment)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_names_are_the_files():
    found = names()
    assert {"acrobot", "cartpole", "mountain_car", "pendulum"} <= set(found)
    assert found == sorted(found)
    assert all((FOLDER / f"{name}.py").is_file() for name in found)
    assert not any(name.startswith("_") for name in found)


def test_names_imports_and_compiles_nothing():
    code = (
        "import sys; from ridgeline.environments import names; before = set(sys.modules); assert names();"
        "assert set(sys.modules) == before, set(sys.modules) - before"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


def test_a_name_a_path_and_a_module_are_the_same_environment(tmp_path, monkeypatch):
    file = shutil.copy(FOLDER / "cartpole.py", tmp_path / "mine.py")
    monkeypatch.chdir(tmp_path)
    actions = np.random.default_rng(0).integers(0, 2, (30, 4))
    seen = []
    for environment in ("cartpole", "mine.py", Path(file), str(file), cartpole):
        env = make(environment, 2, [3, 4])
        assert isinstance(env, CompiledEnv)
        assert env.name == ("cartpole" if environment in ("cartpole", cartpole) else "mine")
        seen.append(np.stack([env.step(action).observation.copy() for action in actions]))
    for other in seen[1:]:
        np.testing.assert_array_equal(other, seen[0])


@pytest.mark.parametrize("environment, keywords", [("cartpole", {}), ("CartPole-v1", {"processes": 1})])
def test_rows_are_runs_by_instances_run_major(environment, keywords):
    env = make(environment, 3, [8, 9], **keywords)
    assert (env.num_rows, env.num_envs, env.seeds) == (6, 3, (8, 9))
    second = make(environment, 3, 9, **keywords)
    np.testing.assert_array_equal(env.observation[3:], second.observation)
    evaluation = make(environment, 3, 9, EVALUATION, **keywords)
    assert not np.isin(evaluation.observation, second.observation).any()


def test_a_gymnasium_id_with_parameters():
    env = make("Pendulum-v1", 1, 5, parameters={"g": 0.0, "max_episode_steps": 7}, processes=1)
    assert isinstance(env, GymnasiumEnv)
    assert (env.name, env.max_episode_steps) == ("Pendulum-v1", 7)
    cosine, sine, speed = env.observation[0].astype(np.float64)
    step = env.step(np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(step.observation[0, 2], speed, rtol=1e-6)  # no gravity, no torque: the speed stays
    assert abs(sine) > 0.1 and cosine**2 + sine**2 == pytest.approx(1)


def test_a_compiled_environment_with_parameters():
    heavy, light = (make("cartpole", 1, 5, parameters={"gravity": gravity}) for gravity in (9.8, 0.0))
    actions = np.ones(1, np.int64)
    assert not np.array_equal(heavy.step(actions).observation, light.step(actions).observation)
    assert message("cartpole", parameters={"gravitas": 1}).startswith("cartpole has no parameter 'gravitas'; it has: ")


# ----------------------------------------------------------------------------------------------------- module:something


def test_a_class_in_a_module():
    env = make("gymnasium_samples:Ends", 2, 0, processes=1)
    assert env.name == "gymnasium_samples:Ends"
    assert env.observation.shape == (2, 3)


def test_an_id_that_a_module_registers(tmp_path, monkeypatch, registered):
    (tmp_path / "registers_one.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Registered/Ends-v3', entry_point='gymnasium_samples:Ends', max_episode_steps=2)\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)  # found beside the command, as `python -m` would
    env = make("registers_one:Registered/Ends-v3", 1, 0, processes=1)
    assert env.max_episode_steps == 2
    assert resolve("Registered/Ends-v3").max_episode_steps == 2


def test_a_vector_class_in_a_module():
    env = make("gymnasium_samples:Counters", 2, 0, parameters={"autoreset_mode": "SameStep"})
    assert env.step(np.zeros(2, np.int64)).observation[:, 0].tolist() == [1, 2]
    assert "autoreset mode None" in message("gymnasium_samples:Counters")


def test_what_is_wrong_with_a_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "needs_more.py").write_text("import wind_tunnel.blades\n")
    assert message("nowhere:Thing") == "nowhere:Thing: no module 'nowhere', installed or in this folder"
    assert message("gymnasium_samples:End") == (
        "gymnasium_samples:End: gymnasium_samples registers no Gymnasium id 'End' and has no such class; "
        "did you mean Ends?"
    )
    assert message("textwrap:Thing").endswith("has no such class; it has no environment")
    assert message("needs_more:X") == "needs_more:X: the module 'wind_tunnel' is missing: pip install wind_tunnel"
    text = message("broken_module:Thing")
    assert text.startswith("broken_module:Thing: importing broken_module failed: ZeroDivisionError: division by zero (")
    assert text.endswith("broken_module.py:2)")
    assert message("gymnasium_samples:missing_mujoco") == (
        "gymnasium_samples:missing_mujoco: MuJoCo is missing: pip install 'ridgeline[mujoco]'"
    )


# -------------------------------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize("name, answer", [
    ("cartpol", "; did you mean cartpole, CartPole-v1?"),
    ("CartPole", "; did you mean cartpole, CartPole-v1?"),
    ("CartPole-v7", "; did you mean cartpole, CartPole-v1?"),
    ("mountaincar", "; did you mean mountain_car, MountainCar-v0?"),
    ("HumanoidStandup-v1", "; did you mean HumanoidStandup-v5?"),
])  # fmt: skip
def test_an_unknown_name_gets_the_nearest(name, answer):
    assert message(name) == f"unknown environment {name!r}{answer}"


def test_a_name_like_no_other_gets_the_list():
    assert message("zzz") == (
        f"unknown environment 'zzz'; built in are {', '.join(names())}; "
        "or give a Gymnasium id, a module:Class or a file.py"
    )


def test_a_built_in_name_comes_first(registered):
    registered("cartpole", entry_point=gymnasium_samples.Ends)
    assert resolve("cartpole") == FOLDER / "cartpole.py"


def test_a_missing_file(tmp_path):
    (tmp_path / "my_robot.py").write_text("")
    path = tmp_path / "my_robots.py"
    assert message(path) == f"{path}: no such file; did you mean my_robot.py?"
    assert message(str(path)) == message(path)
    assert message(tmp_path / "q" / "w.py").endswith("w.py: no such file")


def test_a_module_without_a_file():
    assert message(sys) == "the module 'sys' has no file; save it as a file.py"
