"""Compiled environments seen from Gymnasium: its checker, its SyncVectorEnv as the truth, Ridgeline's episodes."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ridgeline
import ridgeline.gymnasium
from ridgeline.environments import resolve
from ridgeline.gymnasium import InstancesEnv, SingleEnv
from ridgeline.kernel import InvalidEnvironment, define
from ridgeline.registration import FOLDER, gymnasium_ids
from ridgeline.sources import load_source

IDS = {name: id for id, name in gymnasium_ids().items()}
# What the checker calls too low, too high or not normalised is what the environment is.
OF_THE_SPACE = "ignore:.*(A Box .* space (minimum|maximum) value|we recommend using a symmetric)"


def run_python(code):
    folders = os.pathsep.join([str(FOLDER.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, capture_output=True, text=True,
        timeout=300, check=True,
    )  # fmt: skip
    return done.stdout.strip()


# --------------------------------------------------------------------------------------------------------------- ids


def test_every_built_in_environment_has_an_id():
    several = {name for name in ridgeline.names() if hasattr(load_source(FOLDER / f"{name}.py"), "num_agents")}
    assert set(IDS) == set(ridgeline.names()) - several and "connect_four" in several
    with pytest.raises(InvalidEnvironment, match="connect_four has 2 agents; Gymnasium's are of one"):
        SingleEnv("connect_four")
    assert IDS["breakout"] == "ridgeline/Breakout-v0" and IDS["cartpole_swingup"] == "ridgeline/CartpoleSwingup-v0"
    assert set(IDS.values()) <= set(gymnasium.registry)
    assert resolve("ridgeline/Breakout-v0") == resolve("breakout")


@pytest.mark.parametrize("imports", ["gymnasium, ridgeline", "ridgeline, gymnasium"])
def test_the_order_of_imports_does_not_matter(imports):
    code = f"import sys, {imports}; print('ridgeline/Pong-v0' in gymnasium.registry, 'numba' in sys.modules)"
    assert run_python(code) == "True False"


def test_an_id_that_names_the_module_needs_no_import():
    code = "import gymnasium as g; e = g.make('ridgeline:ridgeline/Cartpole-v0'); print(e.reset(seed=1)[0].shape)"
    assert run_python(code) == "(4,)"


# ----------------------------------------------------------------------------------------------------------- checkers


@pytest.mark.filterwarnings(OF_THE_SPACE)
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker(name, monkeypatch):
    """In plain Python, which behaves as the compiled code does (test_envs.py): nothing is to be compiled."""
    monkeypatch.setattr(ridgeline.gymnasium, "define", lambda path, parameters: define(path, False, parameters))
    with np.errstate(over="ignore"):
        check_env(gymnasium.make(IDS[name], render_mode="rgb_array").unwrapped)


@pytest.mark.filterwarnings(OF_THE_SPACE)
def test_gymnasiums_checker_of_compiled_code():
    check_env(gymnasium.make("ridgeline/Cartpole-v0").unwrapped)


# ----------------------------------------------------------------------------------------------- against SyncVectorEnv


def test_observations_of_several_parts():
    truth, envs = SyncVectorEnv([lambda: SingleEnv("spaces")] * 3), InstancesEnv("spaces", 3)
    results = [(truth.reset(seed=[1, 2, 3])[0], envs.reset(seed=[1, 2, 3])[0])]
    results += [(truth.step(one)[0], envs.step(one)[0]) for one in np.zeros((4, 3, 2), np.int64)]
    for ours, theirs in results:
        assert list(ours) == ["bits", "image"]
        assert all((ours[key] == theirs[key]).all() for key in ours)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_instances_equal_gymnasiums_own_vector_of_single_ones(name, mode):
    """CartPole falls, the pendulum is cut off at 7 steps: both ends, in every autoreset mode, all that is returned."""
    limit, seeds = 12 if name == "cartpole" else 7, [3, 1, 4, 1, 5]
    singles = [lambda: SingleEnv(name, max_episode_steps=limit)] * 5
    truth = SyncVectorEnv(singles, autoreset_mode=mode)
    envs = InstancesEnv(name, 5, max_episode_steps=limit, autoreset_mode=mode)
    assert envs.metadata["autoreset_mode"] is mode
    assert (envs.action_space, envs.observation_space) == (truth.action_space, truth.observation_space)
    np.testing.assert_array_equal(envs.reset(seed=seeds)[0], truth.reset(seed=seeds)[0])
    envs.action_space.seed(0)
    num_ended = 0
    for _ in range(60):
        action = envs.action_space.sample()
        (*arrays, infos), (*expected, expected_infos) = envs.step(action), truth.step(action)
        for ours, theirs in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert set(infos) == set(expected_infos)
        for row in np.flatnonzero(expected_infos.get("_final_obs", [])):
            np.testing.assert_array_equal(infos["final_obs"][row], expected_infos["final_obs"][row])
            assert infos["_final_obs"].tolist() == expected_infos["_final_obs"].tolist()
        ended = arrays[2] | arrays[3]
        num_ended += ended.sum()
        if mode is AutoresetMode.DISABLED and ended.any():
            again = [env.reset(options={"reset_mask": ended.copy()})[0] for env in (envs, truth)]
            np.testing.assert_array_equal(*again)
    assert num_ended > 15


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
def test_the_episodes_are_those_of_ridgeline_make(name):
    envs = gymnasium.make_vec(IDS[name], num_envs=3, autoreset_mode="SameStep", max_episode_steps=20)
    single = gymnasium.make(IDS[name], max_episode_steps=20)
    twin = ridgeline.make(name, 3, seed=7)
    twin._limit = 20
    np.testing.assert_array_equal(envs.reset(seed=7)[0], twin.observation)
    np.testing.assert_array_equal(single.reset(seed=7)[0], twin.observation[0])
    envs.action_space.seed(0)
    for _ in range(50):
        action = envs.action_space.sample()
        observation, reward, terminated, truncated, _ = envs.step(action)
        expected = twin.step(action)
        for ours, theirs in zip((observation, reward, terminated, truncated), expected[:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        own, *rest, _ = single.step(action[0])
        assert rest == [reward[0], terminated[0], truncated[0]]
        if terminated[0] or truncated[0]:
            own, _ = single.reset()
        np.testing.assert_array_equal(own, observation[0])


def test_a_reset_without_a_seed_goes_on_and_seeds_decide():
    env = SingleEnv("cartpole")
    first, second = env.reset(seed=1)[0], env.reset()[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal([env.reset(seed=1)[0], env.reset()[0]], [first, second])
    starts = [SingleEnv("cartpole").reset()[0][0] for _ in range(3)]  # never seeded: by chance
    assert len(set(starts)) == 3
    np.testing.assert_array_equal(InstancesEnv("cartpole", 2).reset(seed=[9, 1])[0][1], first)


def test_a_mask_resets_some_and_leaves_the_others():
    envs = InstancesEnv("cartpole", 4, autoreset_mode=AutoresetMode.DISABLED)
    before, _ = envs.reset(seed=0)
    mask = np.array([False, True, False, True])
    after, _ = envs.reset(seed=5, options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    np.testing.assert_array_equal(after[mask], InstancesEnv("cartpole", 4).reset(seed=5)[0][mask])
    with pytest.raises(ValueError, match=r"reset_mask.* give a bool array of shape \(4,\)"):
        envs.reset(options={"reset_mask": [True] * 4})


def test_parameters_and_the_arrays_belong_to_the_caller():
    env = gymnasium.make("ridgeline/Cartpole-v0", gravity=0.0)
    assert env.unwrapped._instances.env.parameters.gravity == 0.0
    envs = InstancesEnv("cartpole", 2)
    kept = [envs.reset(seed=0)[0]]
    kept += [array for _ in range(5) for array in envs.step(np.zeros(2, np.int64))[:4]]
    assert not any(np.shares_memory(kept[i], kept[j]) for i in range(len(kept)) for j in range(i))


# ------------------------------------------------------------------------------------------------------------- pictures


def test_pictures():
    env = gymnasium.make("ridgeline/Breakout-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for _ in range(20):
        env.step(1)
    assert first.dtype == np.uint8 and first.shape[2] == 3 and (env.render() != first).any()
    text = gymnasium.make("ridgeline/Breakout-v0", render_mode="ansi")
    text.reset()
    assert "\x1b[38;2;" in text.render() and len(text.render().splitlines()) <= 24
    frames = InstancesEnv("breakout", 2, render_mode="rgb_array")
    frames.reset(seed=0)
    assert [frame.shape for frame in frames.render()] == [first.shape] * 2
    with pytest.warns(UserWarning, match="render\\(\\) needs render_mode"):
        assert SingleEnv("breakout").render() is None


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_file_of_ones_own(tmp_path):
    source = (FOLDER / "cartpole.py").read_text(encoding="utf-8").replace("def draw", "def paint")
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    env = SingleEnv(tmp_path / "mine.py", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(InvalidEnvironment, match=r"mine has no picture: add draw\(state, canvas\) to its file"):
        env.render()


def test_steps_without_a_reset_are_refused():
    with pytest.raises(ResetNeeded, match=r"cartpole: the episode has ended; call reset\(\)"):
        SingleEnv("cartpole").step(0)
    envs = InstancesEnv("cartpole", 2)
    with pytest.raises(ResetNeeded, match="cartpole: instance 0 must be reset first"):
        envs.step(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="3 seeds for 2 instances; give one for each, or one for all"):
        envs.reset(seed=[1, 2, 3])
    envs = InstancesEnv("cartpole", 2, max_episode_steps=1, autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    envs.step(np.zeros(2, np.int64))
    with pytest.raises(ResetNeeded, match="cartpole: instance 0 must be reset first"):
        envs.step(np.zeros(2, np.int64))


@pytest.mark.parametrize("name, action, told", [
    ("cartpole", 2, r"cartpole: an action is not in Discrete\(2\)"),
    ("cartpole", 0.5, r"cartpole: an action is not in Discrete\(2\)"),
    ("cartpole", [0, 1], r"cartpole: actions of shape \(1, 2\); give \(1,\)"),
    ("pendulum", [np.nan], "pendulum: an action is not finite"),
])  # fmt: skip
def test_actions_are_checked_before_compiled_code_sees_them(name, action, told):
    env = SingleEnv(name)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=told):
        env.step(action)


def test_actions_beyond_the_bounds_are_clipped():
    far, bound = SingleEnv("pendulum"), SingleEnv("pendulum")
    assert far.reset(seed=2)[0].tolist() == bound.reset(seed=2)[0].tolist()
    assert far.step([1e9])[0].tolist() == bound.step(bound.action_space.high)[0].tolist()


def test_what_cannot_be_made_is_told():
    with pytest.raises(InvalidEnvironment, match="Acrobot-v1 is no compiled environment"):
        SingleEnv("Acrobot-v1")
    with pytest.raises(InvalidEnvironment, match="render_mode = 'human'; use None, rgb_array or ansi"):
        SingleEnv("cartpole", render_mode="human")
    with pytest.raises(InvalidEnvironment, match="cartpole has no parameter 'gravitas'"):
        SingleEnv("cartpole", gravitas=1.0)
    assert Path(resolve("cartpole")).is_file()
