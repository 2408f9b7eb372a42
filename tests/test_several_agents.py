"""Several agents in a world, structure, observations of several parts, action masks: by hand, and when written wrongly.

That compiled, plain Python and a double loop agree is in test_envs.py, for tests/worlds/arena.py among others.
"""

from pathlib import Path

import numpy as np
import pytest

from ridgeline import environments, kernel
from ridgeline.kernel import InvalidEnvironment, define, settings
from ridgeline.observations import unpack
from ridgeline.vector import CompiledEnv

ARENA = Path(__file__).with_name("worlds") / "arena.py"
STAY, EAT = [0, 0], [0, 1]


def arena(num_envs: int = 1, **fields) -> CompiledEnv:
    """Worlds of the arena with the given state."""
    env = CompiledEnv(define(ARENA), num_envs, 0, parameters={"life": 9})
    for name, value in fields.items():
        env.state[name][:] = value
    return env


def make(path: Path, num_envs: int, seed=0, parameters=None) -> CompiledEnv:
    env = environments.make(path, num_envs, seed, parameters=parameters)
    assert isinstance(env, CompiledEnv)
    return env


def flags(step) -> list[list[float]]:
    """Of each row: reward, terminated, truncated, valid."""
    return np.stack([step.reward, step.terminated, step.truncated, step.valid], 1).tolist()


def test_death_absence_and_return_by_hand():
    """Player 0 starves at the first step, is away for two, and comes back; the others live on in the same world."""
    env = arena(cell=[0, 1, 2], health=[1, 5, 5], food=6)
    action = np.array([STAY] * 3)
    step = env.step(action)  # the death costs everyone 1
    assert flags(step) == [[-1, 1, 0, 1], [-1, 0, 0, 1], [-1, 0, 0, 1]]
    assert step.episode_row.tolist() == [0] and step.episode.tolist() == [[-1, 1, 0, 0]]
    env.state.health[0, 1] = 1
    step = env.step(action)  # player 1 dies too: nothing of it reaches player 0, who is away
    assert flags(step) == [[0, 0, 0, 0], [-1, 1, 0, 1], [-1, 0, 0, 1]]
    assert step.episode_row.tolist() == [1] and step.episode.tolist() == [[-2, 2, 0, 0]]
    step = env.step(action)
    assert flags(step) == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]] and len(step.final_row) == 0
    assert env.state.health[0, 0] == 9  # back, to act from now on
    env.state.cell[0, 0], env.state.food[0] = 3, 3
    step = env.step(np.array([EAT, STAY, STAY]))
    assert flags(step) == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert env.state.episode_return.tolist() == [[1, 0, -2]] and env.state.episode_length.tolist() == [[1, 0, 4]]
    assert env.state.playing.tolist() == [[1, 0, 1]]  # player 1 is back, and has not acted yet


def test_the_end_of_the_world_ends_every_episode():
    env = arena(2, cell=[0, 1, 2], health=5, food=0, meals=[7, 3])
    env.state.absent[:, 1] = 2  # was dead before its first decision: has no episode that could end
    step = env.step(np.array([EAT, STAY, STAY] * 2))
    assert flags(step)[:3] == [[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]
    assert flags(step)[3:] == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert step.episode_row.tolist() == [0, 2] and step.episode.tolist() == [[1, 1, 8, 1], [0, 1, 8, 0]]
    assert env.state.meals.tolist() == [0, 4] and env.state.world_length.tolist() == [0, 1]


def test_the_time_limit_truncates_every_episode_in_flight():
    env = CompiledEnv(define(ARENA)._replace(max_episode_steps=2), 1, 0, parameters={"life": 9})
    env.state.health[0] = [9, 2, 1]
    action = np.array([STAY] * 3)
    env.step(action)
    env.state.cell[:] = [4, 5, 6]
    step = env.step(action)  # at the limit: 0 goes on, 1 starves in this very step, 2 is away
    assert flags(step) == [[-1, 0, 1, 1], [-1, 1, 1, 1], [0, 0, 0, 0]]
    assert step.final_row.tolist() == [0] and step.episode_row.tolist() == [0, 1]
    final = unpack(env.observation_space, step.final_observation)
    assert final["image"][0].argmax() == 4 and final["health"].tolist() == [7]  # before the reset
    assert step.episode.tolist() == [[-2, 2, 0, 0], [-2, 2, 0, 0]]


def test_rows_are_agents_of_instances_of_runs():
    env = make(ARENA, 2, [5, 6])
    assert (env.num_envs, env.num_agents, env.rows_per_run, env.num_rows) == (2, 3, 6, 12)
    alone = make(ARENA, 2, 6)
    np.testing.assert_array_equal(env.observation[6:], alone.observation)
    cells = unpack(env.observation_space, env.observation)["image"].argmax(1).reshape(4, 3)
    assert cells.tolist() == env.state.cell.tolist()


def test_parts_and_masks_of_the_observation():
    env = arena(cell=[0, 5, 6], health=[9, 4, 2], food=4)
    env.step(np.array([STAY] * 3))
    parts = unpack(env.observation_space, env.observation)
    assert list(parts) == ["action_mask", "health", "image", "scent"]
    assert parts["action_mask"].tolist() == [[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 0]]
    assert parts["health"].tolist() == [8, 3, 1]
    assert parts["image"][1].tolist() == [0, 0, 0, 0, 128, 255, 0]
    assert parts["scent"][1] == pytest.approx([-1 / 7, 0.3])


def test_structure_changes_shapes():
    def plain(num_envs: int, **parameters) -> CompiledEnv:
        return CompiledEnv(define(ARENA, compile=False, parameters=parameters), num_envs, 0)

    env = plain(2, num_players=5, life=4)
    assert env.num_agents == 5 and env.num_rows == 10 and env.state.cell.shape == (2, 5)
    assert (env.state.health == 4).all()
    env.step(np.zeros((10, 2), np.int64))
    small = plain(1, size=2)
    assert small.observation_space["image"].shape == (2,)
    assert make(ARENA, 1, 0).num_agents == 3
    assert settings(ARENA)._fields == ("life", "away", "meals", "num_players", "size")
    for changes, message in (
        ({"num_players": 2.5}, "arena: num_players = 2.5; use a whole number"),
        ({"players": 2}, "arena has no parameter 'players'; it has: life, away, meals, num_players, size"),
        ({"num_players": 0}, f"{ARENA}: num_agents = 0 must be a positive whole number"),
        ({"size": -1}, f"{ARENA}:48: ValueError: negative dimensions are not allowed (num_players = 3, size = -1)\n"),
    ):
        with pytest.raises(InvalidEnvironment) as caught:
            make(ARENA, 1, 0, parameters=changes)
        assert str(caught.value).startswith(message), caught.value


STEP = "    return state.meals >= p.meals\n"
BAD = {  # what is replaced in the arena, by what; the line that is named and what the message says
    "step of one": ("step(state, action, reward, terminated, p)", "step(state, action, p)",
                    "step must take (state, action, reward, terminated, p); with num_agents"),
    "observe of one": ("observe(state, agent, observation", "observe(state, observation",
                       "observe must take (state, agent, observation, p)"),
    "mask of one": ("action_mask(state, agent, mask", "action_mask(state, mask", "must take (state, agent, mask, p)"),
    "alive with p": ("alive(state, agent):", "alive(state, agent, p):", "alive must take (state, agent)"),
    "alive number": ("return state.absent[agent] == 0", "return state.absent[agent]", "alive returned np.int64(0);"),
    "pair": (STEP, "    return 1.0, False\n", "step returned (1.0, False); of several agents return whether the world"),
    "nothing": (STEP, "", "step returned None; of several agents return whether the world is over, True or False"),
    "NaN": ("reward[agent] += 1.0", "reward[agent] += np.nan", "step wrote reward[2] = nan; use a finite number"),
    "mask unwritten": ("    mask[3] = 1\n", "", "action_mask left mask[3] unwritten, or wrote neither 0 nor 1"),
    "mask of nothing": ("    mask[3] = 1\n    mask[4] = abs(state.cell[agent] - state.food) <= 1\n",
                        "    mask[3] = 0\n    mask[4] = 0\n", "action_mask allows no action in part 1"),
    "unwritten part": ("    observation.scent[1] = state.health[agent] / 10\n", "",
                       "observe left NaN or infinity in observation.scent[1]; it must write all (2,) numbers of it"),
    "unknown part": ("observation.health = state", "observation.heath = state",
                     "observation the parts action_mask (5,), health (), image (7,), scent (2,)"),
    "agent index": ("state.meals += 1", "state.eaten[agent + 3] += 1", "is out of bounds for axis 0 with size 3"),
    "agents": ("return structure.num_players", "return 2.0", "num_agents = 2.0 must be a positive whole number"),
    "statistic": ('("meals", "eaten")', '("random_stream", "wide")', "statistics names 'wide', a field of shape (4,)"),
    "mask twice": ('        "health": spaces', '        "action_mask": spaces', "action_mask is a function of the"),
    "nested": ("spaces.Discrete(10)", "spaces.Dict({})", "observation part 'health' is Dict()"),
    "part name": ('"health": spaces', '"own health": spaces', "'own health' is no name; `observe` writes observation"),
    "booleans": ("absent=players", "absent=(np.bool_, (3,))", "absent is an array of booleans; Numba needs np.int8"),
    "method": ("absent=players", "round=players", "State: 'round' is a method of NumPy's records; use another name"),
    "method part": ('"health": spaces', '"flat": spaces', "observation_space: 'flat' is a method of NumPy's records"),
    "header": ("food=np.int64", "world_length=np.int64", "'world_length' occurs more than once"),
    "both": ("life: int = 6", "size: int = 6", "Parameters and Structure both have size; rename one"),
    "simd": ('statistics = (', 'simd = True\nstatistics = (', "simd is for environments of one agent; leave it out"),
    "no default": ("num_players: int = 3", "num_players: int", "the default of Structure.num_players is missing;"),
    "no structure": ("class Structure(NamedTuple)", "class Shape(NamedTuple)",
                     "State is a function; it may be one of class Structure(NamedTuple): def State(structure): return"),
    "missing": ("def observe", "def look", "step(state, action, reward, terminated, p) and observe(state, agent, obs"),
}  # fmt: skip
PLACE = {"alive number": "def alive", "pair": "def step", "nothing": "def step", "NaN": "def step",
         "mask unwritten": "def action_mask", "mask of nothing": "def action_mask", "unwritten part": "def observe",
         "no structure": "def State"}  # fmt: skip
NO_LINE = {"agents", "statistic", "mask twice", "nested", "part name", "booleans", "method", "method part", "header",
           "both", "simd", "no default", "missing"}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_world_is_refused_with_the_place_and_the_rule(tmp_path, monkeypatch, case):
    monkeypatch.setattr(kernel, "cache_directory", lambda: tmp_path)
    old, new, expected = BAD[case]
    source = ARENA.read_text(encoding="utf-8").replace("eaten=players, ", "eaten=players, wide=(np.int64, (4,)), ")
    assert source.count(old) == 1
    path = tmp_path / "arena.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    with pytest.raises(InvalidEnvironment) as caught:
        define(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and expected in message, message
    if case not in NO_LINE:
        line = int(message.removeprefix(f"{path}:").split(":")[0])
        assert PLACE.get(case, new) in path.read_text().splitlines()[line - 1], message
    assert len(message.splitlines()) <= 3
