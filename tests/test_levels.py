"""Environments with generated levels: a level is its seed's alone, levels differ, every one can be solved."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ridgeline.kernel
from ridgeline.kernel import Definition, define
from ridgeline.levels import STEP_X, STEP_Y
from ridgeline.vector import EVALUATION, CompiledEnv

FOLDER = Path(ridgeline.kernel.__file__).with_name("envs")
NAMES = ("maze", "runner", "chaser", "collector")
OWN = {"random_state", "random_stream", "episode_return", "episode_length"}  # of the instance, not of the level

KEYS = ("seen", "unseen", "gap")

each_game = pytest.mark.parametrize("name", NAMES)
each_difficulty = pytest.mark.parametrize("difficulty", [0, 1], ids=["easy", "hard"])


@cache
def definition_of(name: str, compile: bool) -> Definition:
    return define(FOLDER / f"{name}.py", compile=compile)


def make(name: str, rows: int, seed: int = 0, compile: bool = True, **parameters) -> CompiledEnv:
    return CompiledEnv(definition_of(name, compile), rows, seed, EVALUATION, parameters)


def levels_of(name: str, levels: range, **parameters) -> CompiledEnv:
    """One row for each of the levels."""
    env = make(name, len(levels), **parameters)
    for row, level in enumerate(levels):
        p = env.parameters._replace(num_levels=1, start_level=level)
        env.definition.reset_rows(env.state, p, env.observation, row, row + 1)
    return env


def same_level(one: np.ndarray, other: np.ndarray) -> bool:
    return all(np.array_equal(one[field], other[field]) for field in one.dtype.names or () if field not in OWN)


def random_steps(env: CompiledEnv, count: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield env.step(generator.integers(0, env.action_space.n, env.num_rows))  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------- level and seed


@each_game
@each_difficulty
def test_a_level_is_a_pure_function_of_its_seed(name, difficulty):
    """For any instance, any number of rows, compiled or not, at the start or after other episodes."""
    chosen = {"num_levels": 1, "start_level": 12, "difficulty": difficulty}
    level = make(name, 1, **chosen).state[0].copy()
    with np.errstate(over="ignore"):
        plain = make(name, 2, seed=4, compile=False, **chosen)
    for env in (make(name, 5, seed=3, **chosen), plain):
        assert all(same_level(state, level) for state in env.state)
    env = make(name, 40, seed=5, **chosen)
    resets = 0
    for step in random_steps(env, 520):
        assert all(same_level(env.state[row], level) for row in step.episode_row)
        resets += len(step.episode_row)
    assert resets >= 40
    # also where other levels were played in between
    env, resets = make(name, 40, num_levels=3, start_level=11, difficulty=difficulty), 0
    for step in random_steps(env, 520):
        again = [row for row in step.episode_row if env.state.level[row] == 12]
        assert all(same_level(env.state[row], level) for row in again)
        resets += len(again)
    assert resets >= 5


@each_game
def test_actions_and_level_decide_all_that_follows(name):
    """The instance's own generator chooses the level, and nothing else."""
    chosen = {"num_levels": 1, "start_level": 3, "difficulty": 1}
    one, other = make(name, 16, seed=0, **chosen), make(name, 16, seed=1, **chosen)
    assert not np.intersect1d(one.state.random_state, other.state.random_state).size
    for a, b in zip(random_steps(one, 200), random_steps(other, 200), strict=True):
        np.testing.assert_array_equal(a.observation, b.observation)
        np.testing.assert_array_equal(a.reward, b.reward)


@each_game
@each_difficulty
def test_levels_differ(name, difficulty):
    """Neighbouring seeds give unrelated levels: no two of 300 are the same."""
    env = levels_of(name, range(300), difficulty=difficulty)
    fields = [field for field in env.state.dtype.names if field not in OWN | {"level", "level_random"}]
    seen = {b"".join(np.asarray(state[field]).tobytes() for field in fields) for state in env.state}
    assert len(seen) >= 299


@each_game
def test_num_levels_and_start_level(name):
    env = make(name, 300, num_levels=7, start_level=40)
    assert set(env.state.level) == set(range(40, 47))
    unlimited = make(name, 300, num_levels=0, start_level=200).state.level
    assert len(np.unique(unlimited)) == 300 and unlimited.min() >= 200 and unlimited.max() > 2**29
    counts = np.bincount(make(name, 3000, num_levels=3).state.level)
    assert len(counts) == 3 and abs(counts / 3000 - 1 / 3).max() < 0.04  # 4.6 standard errors


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.slow
@each_game
@each_difficulty
def test_pictures_are_the_same_in_plain_python_and_show_the_same_game(name, difficulty):
    """And the structure changes nothing but what is seen."""
    chosen = {"difficulty": difficulty, "pixels": 1}
    seen, told = make(name, 2, seed=2, **chosen), make(name, 2, seed=2, difficulty=difficulty)
    plain = make(name, 2, seed=2, compile=False, **chosen)
    assert seen.observation_space.shape == (64, 64, 3) and seen.observation.dtype == np.uint8
    with np.errstate(over="ignore"):
        for one, other, symbols in zip(*(random_steps(env, 12) for env in (seen, plain, told)), strict=True):
            np.testing.assert_array_equal(one.observation, other.observation)
            np.testing.assert_array_equal(one.reward, symbols.reward)
            assert len(np.unique(one.observation[0].reshape(-1, 3), axis=0)) >= 4
    assert all(same_level(one, other) for one, other in zip(seen.state, told.state, strict=True))


@each_difficulty
def test_the_picture_of_a_maze(difficulty):
    """Every tile where it belongs, counted by the colour of its pixels."""
    with np.errstate(over="ignore"):
        env = levels_of("maze", range(8), difficulty=difficulty, pixels=1, compile=False)
    for state, picture in zip(env.state, env.observation, strict=True):
        size = 4 if state.side <= 16 else 2
        before = (64 // size - state.side) // 2
        tiles = picture.reshape(64 // size, size, 64 // size, size, 3)
        is_open = (tiles == (236, 232, 218)).all((1, 3, 4))[before : before + state.side, before : before + state.side]
        expected = state.grid[4 : 4 + state.side, 4 : 4 + state.side] == 0
        expected[state.goal_y - 4, state.goal_x - 4] = False
        np.testing.assert_array_equal(is_open, expected)
        y, x = ((before + place - 4) * size for place in (state.y, state.x))
        assert (picture[y : y + size, x : x + size] == (118, 110, 126)).all(-1).any()  # the mouse


def test_pictures_are_learned_from_by_the_policy_for_images():
    from ridgeline.arguments import names_of

    assert names_of(["maze", "--environment.pixels", "1"])["policy"] == "cnn"
    assert names_of(["--environment.pixels=1", "maze"])["policy"] == "cnn"
    assert names_of(["maze", "--environment.pixels", "0"])["policy"] == "mlp" == names_of(["maze"])["policy"]


# --------------------------------------------------------------------------------------------------------- random play


@each_difficulty
@pytest.mark.parametrize(
    ("name", "mean"),
    [("maze", (0.49, 0.31)), ("runner", (0.13, 0.083)), ("chaser", (0.17, 0.077)), ("collector", (0.12, 0.030))],
)
def test_random_play(name, mean, difficulty):
    """The means of the docstrings, each rounded, within 4 standard errors of 500 first episodes."""
    env = make(name, 500, difficulty=difficulty)
    total, running = np.zeros(500), np.ones(500, bool)
    for step in random_steps(env, 500):
        total += step.reward * running
        running &= ~(step.terminated | step.truncated)
    assert not running.any()
    assert abs(total.mean() - mean[difficulty]) < 4 * total.std() / np.sqrt(500) + 0.005
    assert total.max() <= 1 + 1e-12


# ------------------------------------------------------------------------------------------------- solvers: on the grid


def nearest(state: np.void, wanted, closed) -> list[int] | None:
    """The actions of a shortest way to a tile for which `wanted(x, y, code)`, none of them `closed(code)`."""
    grid = state["grid"].tolist()
    start = int(state["x"]), int(state["y"])
    ways: dict[tuple[int, int], list[int]] = {start: []}
    pending = [start]
    for x, y in pending:  # grows
        if (x, y) != start and wanted(x, y, grid[y][x]):
            return ways[x, y]
        for action in range(4):
            place = x + STEP_X[action], y + STEP_Y[action]
            if place not in ways and not closed(grid[place[1]][place[0]]):
                ways[place] = [*ways[x, y], action]
                pending.append(place)
    return None


def follow(env: CompiledEnv, plan) -> np.ndarray:
    """Return of each row's first episode; `plan(state)` gives the actions up to the next plan."""
    plans: list[list[int]] = [[] for _ in range(env.num_rows)]
    total, running = np.zeros(env.num_rows), np.ones(env.num_rows, bool)
    while running.any():
        for row in np.flatnonzero(running):
            if not plans[row]:
                plans[row] = plan(env.state[row])
                assert plans[row], f"level {env.state.level[row]} cannot be solved"
        step = env.step(np.array([plan.pop(0) if plan else 0 for plan in plans]))
        total += step.reward * running
        running &= ~(step.terminated | step.truncated)
    return total


@each_difficulty
def test_every_maze_has_a_way(difficulty):
    env = levels_of("maze", range(500), difficulty=difficulty)
    assert set(env.state.side) == set(range(7, 16 if difficulty == 0 else 26, 2))

    def plan(state):
        return nearest(state, lambda x, y, code: (x, y) == (state["goal_x"], state["goal_y"]), lambda code: code == 1)

    np.testing.assert_array_equal(follow(env, plan), 1.0)


@each_difficulty
def test_a_maze_is_a_tree(difficulty):
    """One way between any two cells: as many open tiles as cells and walls between them that a tree needs."""
    env = levels_of("maze", range(200), difficulty=difficulty)
    cells = (env.state.side // 2) ** 2
    np.testing.assert_array_equal((env.state.grid != 1).sum((1, 2)), 2 * cells - 1)


@each_difficulty
def test_every_gem_can_be_gathered(difficulty):
    env = levels_of("collector", range(500), difficulty=difficulty)
    assert set(env.state.num_gems) == {5 if difficulty == 0 else 8}

    def plan(state):
        key = state["key"].tolist()

        def closed(code):
            return code in (1, 2) or (code >= 7 and not key[code - 7])

        return nearest(state, lambda x, y, code: 3 <= code < 7, closed)

    np.testing.assert_allclose(follow(env, plan), 1.0, atol=1e-12)


@pytest.mark.parametrize("colours", [1, 3])
def test_locked_doors_are_needed(colours):
    """Without its key no locked door's gem can be had."""
    env = levels_of("collector", range(100), difficulty=int(colours == 3))
    for state in env.state:
        doors = [code for code in range(7, 10) if (state.grid == code).any()]
        assert doors == [7, 8, 9][:colours] and (state.grid == 3).sum() == state.num_gems
        for door in doors:
            blocked = state.copy()
            blocked.grid[blocked.grid == door] = 1
            blocked.grid[(blocked.grid >= 4) & (blocked.grid <= 9)] = 0
            gems = 0
            while (way := nearest(blocked, lambda x, y, code: code == 3, lambda code: code in (1, 2))) is not None:
                for action in way:
                    blocked.x += STEP_X[action]
                    blocked.y += STEP_Y[action]
                blocked.grid[blocked.y, blocked.x] = 0
                gems += 1
            assert gems < state.num_gems


# ------------------------------------------------------------------------------------------- solvers: search in copies


def search(env: CompiledEnv, width: int, actions: tuple[int, ...], worth) -> np.ndarray:
    """Whether a beam search solved each row's level: of all children of `width` states, the best distinct ones stay.

    `worth(states, level_row)` is an array of numbers and one of keys; of equal keys one stays.
    """
    num_actions, levels = len(actions), env.num_rows
    states, owner = env.state.copy(), np.arange(levels)
    solved, column = np.zeros(levels, bool), 2 + env.statistics.index("solved")
    generator = np.random.default_rng(0)
    copies = CompiledEnv(env.definition, width * levels * num_actions)
    for _ in range(500):
        count = len(states) * num_actions
        copies.state[:count] = np.repeat(states, num_actions)
        step = copies.step(np.resize(actions, copies.num_rows))
        ended = step.episode_row < count  # what lies behind is left over
        rows, won = step.episode_row[ended], step.episode[ended, column] == 1
        whose = np.repeat(owner, num_actions)
        solved[whose[rows[won]]] = True
        keep = np.ones(count, bool)
        keep[rows] = False
        keep &= ~solved[whose]
        states, owner = copies.state[:count][keep], whose[keep]
        if not len(states):
            break
        number, key = worth(states, owner)
        number = number + generator.uniform(0, 1e-3, len(number))
        order = np.lexsort((-number, key, owner))
        first = np.ones(len(order), bool)
        first[1:] = (key[order][1:] != key[order][:-1]) | (owner[order][1:] != owner[order][:-1])
        states, owner, number = states[order[first]], owner[order[first]], number[order[first]]
        order = np.lexsort((-number, owner))
        rank = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
        states, owner = states[order[rank < width]], owner[order[rank < width]]
    return solved


def runner_worth(states: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The farther the better; states of one place and velocity are one."""
    key = ((states["x"] * 512 + states["y"]) * 16 + states["velocity_y"] + 8) * 8 + states["velocity_x"] + 4
    return states["x"].astype(float), key


class ChaserWorth:
    """Few orbs left, then the way to the nearest one; distances between all tiles by flooding from each at once."""

    def __init__(self, env: CompiledEnv):
        self.open = env.state.grid != 1
        levels, side = self.open.shape[:2]
        self.distance = np.full((levels, side * side, side * side), 99, np.uint8)
        for level in range(levels):
            tiles = np.flatnonzero(self.open[level])
            reached = np.zeros((len(tiles), side, side), bool)
            reached.reshape(len(tiles), -1)[np.arange(len(tiles)), tiles] = True
            for step in range(99):
                new = reached.reshape(len(tiles), -1) & (self.distance[level, tiles] == 99)
                if not new.any():
                    break
                self.distance[level, tiles] = np.where(new, step, self.distance[level, tiles])
                grown = reached.copy()
                for dx, dy in zip(STEP_X, STEP_Y, strict=True):
                    grown |= np.roll(reached, (dy, dx), (1, 2))
                reached = grown & self.open[level]

    def __call__(self, states: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = states["y"] * self.open.shape[1] + states["x"]
        orbs = (states["grid"] > 1).reshape(len(states), -1)
        near = np.where(orbs, self.distance[level, place], 99).min(1)
        key = (place * 128 + states["orbs_left"]) * 2**20 + (states["ghost_x"] * 31 + states["ghost_y"]).sum(1)
        return -states["orbs_left"] - near / 100, key


def unsolved(name: str, difficulty: int, levels: range) -> list[int]:
    env = levels_of(name, levels, difficulty=difficulty)
    left = np.arange(len(levels))
    for width in (8, 32, 128):
        if not len(left):
            break
        some = make(name, len(left), difficulty=difficulty)
        some.state[:] = env.state[left]
        actions, worth = ((0, 1, 2, 4), runner_worth) if name == "runner" else ((0, 1, 2, 3), ChaserWorth(some))
        left = left[~search(some, width, actions, worth)]
    return left.tolist()


@each_difficulty
@pytest.mark.parametrize("name", ["runner", "chaser"])
def test_levels_can_be_solved(name, difficulty):
    assert not unsolved(name, difficulty, range(12))


@pytest.mark.slow
@each_difficulty
@pytest.mark.parametrize("name", ["runner", "chaser"])
def test_500_levels_can_be_solved(name, difficulty):
    for first in range(0, 500, 50):
        assert not unsolved(name, difficulty, range(first, first + 50))


# ------------------------------------------------------------------------------------------------------ generalisation


def test_the_page_quotes_the_stored_figures():
    root = Path(__file__).parents[1]
    entries = json.loads((root / "benchmarks" / "generalisation.json").read_text(encoding="utf-8"))["entries"]
    page = (root / "docs" / "procedural.md").read_text(encoding="utf-8")
    assert entries
    for entry in entries:
        told = [f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in (entry[key] for key in KEYS)]
        row = [f"`{entry['game']}`", str(entry["runs"]), f"{entry['steps']:,}", *told]
        assert f"| {' | '.join(row)} |" in page
        assert abs(entry["seen"][0] - entry["unseen"][0] - entry["gap"][0]) < 2e-4
