"""Other people's environments by name: PettingZoo, ALE, EnvPool, Procgen, dm_env, each with the real package where it
is installed; and our own as PettingZoo's."""

import functools
import importlib.util
import sys

import numpy as np
import outside_samples
import pytest
from gymnasium import spaces

import ridgeline
import ridgeline.gymnasium
from ridgeline.algorithms.ppo import PPO
from ridgeline.canvas import Canvas
from ridgeline.environments import make, resolve
from ridgeline.kernel import InvalidEnvironment, define
from ridgeline.observations import unpack
from ridgeline.registration import gymnasium_ids
from ridgeline.vector import EVALUATION, TRAINING

OLD = "ignore:The old environment creation API:DeprecationWarning"  # what PettingZoo's own modules import


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


def message(name, **keywords):
    with pytest.raises(InvalidEnvironment) as caught:
        make(name, 1, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def play(env, steps, seed=0, actions=None):
    """What each of `steps` random steps gave, copied, and the actions; or of the last rows of these actions."""
    env.action_space.seed(seed)
    seen = []
    for t in range(steps):
        random = [env.action_space.sample() for _ in range(env.num_rows)]
        action = np.stack(random) if actions is None else actions[t][-env.num_rows :]
        seen.append([None if field is None else field.copy() for field in env.step(action)] + [action])
    return seen


def check_repeats(name, steps, **parameters):
    """Seeds decide; a run does not depend on the others; evaluation plays other episodes. What the steps gave, and the
    starts of evaluation and of training."""

    def start(seed, purpose=TRAINING):
        env = make(name, 2, seed, purpose, parameters)
        return env, env.observation.copy()

    (env, first), (alone, own), (evaluation, other) = start([3, 4]), start(4), start(4, EVALUATION)
    np.testing.assert_array_equal(own, first[alone.num_rows :])
    seen = play(env, steps)
    half = [slice(alone.num_rows, None)] * 4
    for ours, theirs in zip(play(alone, steps, actions=[step[-1] for step in seen]), seen, strict=True):
        for one, both, rows in zip(ours, theirs, half, strict=False):
            np.testing.assert_array_equal(one, both[rows])
    for one in (env, alone, evaluation):
        one.close()
    return seen, other, own


# ----------------------------------------------------------------------------------------------------------- PettingZoo


def test_agents_that_die_and_come_back():
    """Lives, worked out by hand: rows are a, b, c of each of two worlds."""
    env = make("pettingzoo:outside_samples", 2, 0)
    assert (env.num_agents, env.num_rows, env.rows_per_run, env.frames_per_second) == (3, 6, 6, 7.0)
    assert env.action_space == spaces.Discrete(3)
    action = np.array([1, 2, 0, 0, 1, 2])
    reward = action + np.array([0, 0.25, 0.5] * 2)
    seen = []
    for t in range(1, 10):
        before = list("abc") if t == 9 else list(outside_samples.ALIVE[t - 1])
        step = env.step(action)
        valid = np.tile([agent in before for agent in "abc"], 2)
        np.testing.assert_array_equal(step.valid, valid)
        np.testing.assert_array_equal(step.reward, np.where(valid, reward, 0.0))
        seen.append([np.flatnonzero(step.terminated[:3]).tolist(), np.flatnonzero(step.truncated[:3]).tolist(),
                     step.final_observation[:, 1].tolist(), step.episode.tolist()])  # fmt: skip
        np.testing.assert_array_equal(step.terminated[:3], step.terminated[3:])
        here = "abc" if t >= 8 else outside_samples.ALIVE[t]
        for row, agent in enumerate("abc"):
            if agent in here:  # the others keep what they saw last
                assert env.observation[row].tolist() == [row, t % 8, 1 + (t >= 8)]
    assert seen[1] == [[1], [], [], [[4.5, 2], [2.5, 2]]]  # b: two steps of reward 2.25, and of 1.25
    assert seen[4] == [[], [0], [5, 5], [[5.0, 5], [0.0, 5]]]
    assert seen[7] == [[], [1, 2], [8, 8, 8, 8], [[9.0, 4], [4.0, 8], [5.0, 4], [20.0, 8]]]  # b's second life: 4 steps
    assert [one for t, one in enumerate(seen, 1) if t not in (2, 5, 8)] == [[[], [], [], []]] * 6
    rendered = make("pettingzoo:outside_samples", 1, 0, render=True)
    canvas = Canvas(2, 2)
    rendered.step(np.zeros(3, np.int64))
    assert rendered.draw(2, canvas)
    assert canvas.pixels().tolist() == np.full((2, 2, 3), 1).tolist()


def test_agents_that_die_are_trained():
    """Rows without a transition reach no mean: the whole of training, in a population."""
    small = PPO(num_envs=4, rollout_length=32)
    result = ridgeline.train("pettingzoo:outside_samples:Lives", small, total_steps=512, num_runs=2, num_threads=1)
    assert not result.failures and all(np.isfinite(result.episode_return))


def test_what_is_wrong_with_a_parallel_environment():
    assert message("pettingzoo:outside_samples", parameters={"differ": True}).startswith(
        "pettingzoo:outside_samples: the observation spaces of a and c differ, Box(-inf, inf, (3,), float32) and "
    )
    assert message("pettingzoo:outside_samples:Live") == (
        "pettingzoo:outside_samples:Live: outside_samples has no 'Live'; did you mean Lives?"
    )
    assert message("pettingzoo:nowhere") == (
        "pettingzoo:nowhere: no module 'nowhere', installed or in this folder: pip install nowhere"
    )


@needs("mpe2")
def test_simple_spread():
    first, evaluation, training = check_repeats("pettingzoo:mpe2.simple_spread_v3", 30, N=2, max_cycles=10)
    assert not np.isin(evaluation, training).all()
    truncated = np.stack([step[3] for step in first])
    assert truncated.shape == (30, 2 * 2 * 2)
    assert np.flatnonzero(truncated.all(1)).tolist() == [9, 19, 29] and truncated.sum() == 3 * 8


@needs("pettingzoo")
@needs("pygame")
@pytest.mark.filterwarnings(OLD, "ignore:.*render method without specifying any render mode")
@pytest.mark.parametrize("name", ["knights_archers_zombies_v11", "cooperative_pong_v6"])
def test_butterfly(name):
    pytest.importorskip("pettingzoo.butterfly." + name)
    env = make(f"pettingzoo:pettingzoo.butterfly.{name}", 1, 0, parameters={"max_cycles": 30})
    seen = play(env, 40)
    assert any(step[3].any() for step in seen)
    env.close()


# ----------------------------------------------------------------------------------------------------------------- ALE


@needs("ale_py")
@pytest.mark.parametrize("game, actions", [("Breakout", 4), ("Pong", 6)])
def test_atari(game, actions):
    env, canvas = make(f"ale:{game}", 1, 0), Canvas(84, 84)
    assert env.action_space == spaces.Discrete(actions)
    assert env.draw(0, canvas)
    np.testing.assert_array_equal(canvas.pixels()[..., 0], env.observation[0, 3])


@needs("ale_py")
def test_ataris_seeds():
    first, evaluation, training = check_repeats("ale:Breakout", 8)
    assert first[0][0].shape == (4, 4, 84, 84) and first[0][0].dtype == np.uint8
    assert first[0][8] is None  # every row of every step is a transition
    assert not np.array_equal(evaluation, training)


@needs("ale_py")
def test_ataris_rewards_are_the_games_and_episodes_are_whole():
    """A whole game of Breakout has five lives; bricks of the upper rows are worth 4 and 7."""
    from ale_py.vector_env import AtariVectorEnv

    env = make("ale:Breakout", 1, 0)
    twin = AtariVectorEnv("breakout", 1, reward_clipping=False, autoreset_mode="SameStep")
    np.testing.assert_array_equal(env.observation, twin.reset(seed=env._row_seeds(0)[0])[0])
    rng, lives = np.random.default_rng(0), []
    for _ in range(400):
        action = rng.integers(0, 4, 1)
        step, (observation, reward, terminated, _, info) = env.step(action), twin.step(action)
        np.testing.assert_array_equal(step.observation, observation)
        assert (step.reward[0], step.terminated[0]) == (reward[0], terminated[0])
        lives.append(int(info["lives"][0]))
        if terminated[0]:
            break
    assert (len(step.episode) == 1 and lives[-1] == 0) or lives[-1] == 5
    assert set(range(1, 6)) <= set(lives)


@needs("ale_py")
def test_names_of_games():
    assert resolve("ale:MsPacman").vector_entry_point.keywords == {"game": "ms_pacman"}
    assert resolve("ale:Breakout-v5").vector_entry_point.keywords == {"game": "breakout"}
    assert message("ale:Breakuot") == "ale:Breakuot: no such game; did you mean breakout?"


# ---------------------------------------------------------------------------------------------------- EnvPool, Procgen


@needs("envpool")
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
def test_envpool():
    first, _, _ = check_repeats("envpool:CartPole-v1", 40)
    ended, valid = np.stack([step[2] for step in first]), np.stack([step[8] for step in first])
    assert ended.any() and (valid[1:] == ~ended[:-1]).all()  # the step after an end only resets
    assert message("envpool:CartPol-v1").startswith("envpool:CartPol-v1: no such task; did you mean CartPole-v1")


@needs("procgen")
def test_procgen():
    first, _, _ = check_repeats("procgen:coinrun", 20, num_levels=3, distribution_mode="easy")
    assert first[0][0].shape == (4, 64, 64, 3) and first[0][0].dtype == np.uint8
    env = make("procgen:bigfish", 64, 0)
    assert any(step[2].any() for step in play(env, 200))


def test_procgens_names_and_how_to_install_it(monkeypatch):
    assert message("procgen:coinrum") == "procgen:coinrum: no such game; did you mean coinrun?"
    monkeypatch.setitem(sys.modules, "procgen", None)
    assert "pip install --no-deps procgen2 gym3" in message("procgen:coinrun") or "procgen" in message(
        "procgen:coinrun"
    )


@pytest.mark.parametrize("name, package, line", [
    ("ale:Pong", "ale_py", "pip install ale-py"),
    ("envpool:Pong-v5", "envpool", "pip install envpool"),
    ("dm_control:cartpole-swingup", "dm_control", "pip install dm_control 'mujoco<4'"),
])  # fmt: skip
def test_a_missing_package_gives_the_line_that_mends_it(name, package, line, monkeypatch):
    class Missing:
        def find_spec(self, asked, path=None, target=None):
            if asked.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {asked!r}", name=asked)

    for loaded in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    assert message(name) == f"{name}: the module {package!r} is missing: {line}"


# --------------------------------------------------------------------------------------------------------------- dm_env


@pytest.mark.parametrize("cut", [False, True])
def test_a_dm_env_environment(cut):
    env = make("dm_env:outside_samples:Countdown", 2, 0, parameters={"cut": cut}, processes=1)
    assert env.action_space == spaces.Discrete(4)
    assert list(env.observation_space) == ["left", "pair"]
    start = [3 + seed % 2 for seed in env._row_seeds(0)]
    parts = unpack(env.observation_space, env.observation)
    assert parts["left"].ravel().tolist() == start and parts["pair"][:, 0].tolist() == start
    for t in range(1, 5):
        step = env.step(np.array([t, 1]) % 4)
        ended = [first == t for first in start]
        assert (step.truncated if cut else step.terminated).tolist() == ended
        assert (step.terminated if cut else step.truncated).tolist() == [False, False]
        assert step.reward.tolist() == [t % 4, 1]
        if cut:
            assert unpack(env.observation_space, step.final_observation)["left"].tolist() == [[0]] * sum(ended)
        if all(first > t for first in start):
            assert unpack(env.observation_space, step.observation)["left"].ravel().tolist() == [s - t for s in start]


def test_a_dm_env_environment_in_processes():
    env = make("dm_env:outside_samples:Countdown", 2, 0, processes=2)
    twin = make("dm_env:outside_samples:Countdown", 2, 0, processes=1)
    for ours, theirs in zip(play(env, 9), play(twin, 9), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    env.close()
    assert message("dm_env:outside_samples:Countdwn").endswith("has no 'Countdwn'; did you mean Countdown?")


@needs("bsuite")
def test_bsuites_catch():
    env = make("dm_env:bsuite.environments.catch:Catch", 2, 0, processes=1)
    assert env.observation.shape == (2, 10, 5)
    assert sum(len(step[6]) for step in play(env, 20)) == 4  # nine steps each


@needs("dm_control")
def test_dm_control():
    env = make("dm_control:cartpole-swingup", 2, 0, processes=1)
    assert set(env.observation_space) == {"position", "velocity"} and env.action_space.shape == (1,)
    seen = play(env, 3)
    assert all(np.isfinite(step[1]).all() for step in seen)


# -------------------------------------------------------------------------------------------------- ours, PettingZoo's

SEVERAL = """
from typing import NamedTuple
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import random_integer, state_dtype

num_agents = 3
max_episode_steps = 20
class Parameters(NamedTuple):
    dies: int = 5
State = state_dtype(count=np.int64, away=(np.int64, 3))
observation_space = spaces.Box(0.0, 99.0, (2,), np.float32)
action_space = spaces.Discrete(2)

def reset(state, p):
    state.count = 0
    state.away[:] = 0

def step(state, action, reward, terminated, p):
    state.count += 1
    for agent in range(3):
        if state.away[agent] > 0:
            state.away[agent] -= 1
        else:
            reward[agent] = action[agent] + agent
            if random_integer(state, p.dies) == 0:
                terminated[agent] = True
                state.away[agent] = 2
    return state.count >= 15 and random_integer(state, 4) == 0

def observe(state, agent, observation, p):
    observation[0] = state.count
    observation[1] = state.away[agent]

def alive(state, agent):
    return state.away[agent] == 0

def draw(state, canvas):
    canvas.world(0, 3, 0, 3)
    canvas.circle(1, 1, 0.5, (255, 255, 255))
"""


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "several_agents.py"
    path.write_text(SEVERAL, encoding="utf-8")
    return path


@needs("pettingzoo")
@pytest.mark.filterwarnings("ignore:Agent was given", "ignore:Live agent", "ignore:No agents", OLD)
def test_pettingzoos_own_tests(several):
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    from ridgeline.pettingzoo import parallel_env

    parallel_api_test(parallel_env(several), num_cycles=60)
    parallel_seed_test(functools.partial(parallel_env, several), num_cycles=20)


@needs("pettingzoo")
@pytest.mark.filterwarnings("ignore:Agent was given", "ignore:Live agent", "ignore:No agents", OLD)
@pytest.mark.parametrize("name", sorted(set(ridgeline.names()) - set(gymnasium_ids().values())))
def test_every_built_in_world_passes_them(name, monkeypatch):
    """In plain Python: nothing is to be compiled."""
    from pettingzoo.test import parallel_api_test

    from ridgeline.pettingzoo import parallel_env

    small = {"economy": {"num_agents": 6, "size": 16}, "snake": {"num_snakes": 3}}
    monkeypatch.setattr(ridgeline.gymnasium, "define", lambda path, parameters: define(path, False, parameters))
    with np.errstate(over="ignore"):
        parallel_api_test(parallel_env(name, **small.get(name, {})), num_cycles=10)


@needs("pettingzoo")
@pytest.mark.parametrize("revive", [False, True])
def test_a_world_is_that_of_ridgeline_make(several, revive):
    """Rewards, ends and observations of the rows, as long as the world lasts."""
    from ridgeline.pettingzoo import parallel_env

    env, twin = parallel_env(several, revive=revive), make(several, 1, seed=5)
    seen, _ = env.reset(seed=5)
    np.testing.assert_array_equal(np.stack(list(seen.values())), twin.observation)
    assert env.possible_agents == ["agent_0", "agent_1", "agent_2"]
    came_back = 0
    while env.agents:
        acting = env.agents
        row = [env.possible_agents.index(agent) for agent in acting]
        seen, reward, terminated, truncated, _ = env.step(dict.fromkeys(acting, 1))
        step = twin.step(np.array([int(agent in acting) for agent in env.possible_agents]))
        assert list(reward.values()) == step.reward[row].tolist()
        if env.agents:
            assert list(terminated.values()) == step.terminated[row].tolist() and not any(truncated.values())
            for agent in env.agents:
                np.testing.assert_array_equal(seen[agent], step.observation[env.possible_agents.index(agent)])
        came_back += len(set(env.agents) - set(acting))
    assert (came_back > 0) == revive
    assert env.render() is None if env.render_mode else True
    with pytest.raises(RuntimeError, match=r"the world is over; call reset\(\)"):
        env.step({})


def test_several_agents_are_no_gymnasium_environment(several):
    from ridgeline.gymnasium import SingleEnv

    with pytest.raises(InvalidEnvironment, match="several_agents has 3 agents; Gymnasium's are of one"):
        SingleEnv(several)
