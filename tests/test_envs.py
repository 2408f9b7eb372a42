"""What every environment file must hold to; a file added to envs/ is covered the moment it exists.

The truth is `by_hand`: two nested Python loops over the file's functions, uncompiled, with their own bookkeeping.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ridgeline.kernel
from ridgeline.canvas import Canvas
from ridgeline.kernel import (
    NO_LIMIT,
    Definition,
    InvalidEnvironment,
    define,
    plain,
    sample_action,
    seed_rows,
    without_autoreset,
)
from ridgeline.vector import EVALUATION, TRAINING, CompiledEnv

FILES = {
    file.stem: file
    for file in sorted(Path(ridgeline.kernel.__file__).with_name("envs").glob("*.py"))
    if not file.stem.startswith("_")
}
HEADINGS = ["Observation", "Action", "Reward", "Start", "End", "Source", "Differs", "Version"]

pytestmark = pytest.mark.parametrize("name", FILES)


@cache
def definition_of(name: str, compile: bool = True) -> Definition:
    return define(FILES[name], compile=compile)


def random_action(name: str, length: int, num_rows: int, seed: int = 0) -> list[np.ndarray]:
    """Actions of `length` steps; row i's do not depend on the number of rows."""
    space = definition_of(name).action_space
    rows = [sample_action(space, np.random.default_rng([seed, row]), length) for row in range(num_rows)]
    return list(np.stack(rows, axis=1))


def record(env: CompiledEnv, action: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Everything that each step gives, and the state after it, copied."""
    return [[field.copy() for field in env.step(one)] + [env.state.copy()] for one in action]


def by_hand(definition: Definition, num_rows: int, seed: int, action: list[np.ndarray]) -> list[list[np.ndarray]]:
    """What `record` must give: written for reading, one row and one step at a time."""
    reset, step, observe = (plain(getattr(definition.module, name)) for name in ("reset", "step", "observe"))
    p, limit = definition.parameters, definition.max_episode_steps
    space = definition.observation_space
    state = np.zeros(num_rows, definition.state_dtype).view(np.recarray)
    seed_rows(state, seed, TRAINING)
    rewards_so_far: list[list[float]] = [[] for _ in range(num_rows)]
    for row in range(num_rows):
        reset(state[row], p)
    steps = []
    for one_action in action:
        observation = np.zeros((num_rows, *space.shape), space.dtype)
        reward, terminated, truncated = np.zeros(num_rows), np.zeros(num_rows, bool), np.zeros(num_rows, bool)
        final_row, final, episode_row, episode = [], [], [], []
        for row in range(num_rows):
            reward[row], terminated[row] = step(state[row], one_action[row], p)
            rewards_so_far[row].append(reward[row])
            truncated[row] = limit is not None and len(rewards_so_far[row]) == limit
            if truncated[row] and not terminated[row]:
                followed = np.zeros_like(observation[row])
                observe(state[row], followed, p)
                final_row.append(row)
                final.append(followed)
            if terminated[row] or truncated[row]:
                total = 0.0
                for value in rewards_so_far[row]:
                    total += value
                own = [float(state[row][field]) for field in definition.statistics]
                episode_row.append(row)
                episode.append([total, len(rewards_so_far[row]), *own])
                rewards_so_far[row] = []
                reset(state[row], p)
            observe(state[row], observation[row], p)
            state[row].episode_return = sum(rewards_so_far[row], start=0.0)
            state[row].episode_length = len(rewards_so_far[row])
        steps.append([
            observation, reward, terminated, truncated,
            np.array(final_row, np.int64), np.array(final, space.dtype).reshape(-1, *space.shape),
            np.array(episode_row, np.int64), np.array(episode).reshape(-1, 2 + len(definition.statistics)),
            state.copy(),
        ])  # fmt: skip
    return steps


def assert_same(left: list[list[np.ndarray]], right: list[list[np.ndarray]]) -> None:
    """Equal bits in every array of every step."""
    assert len(left) == len(right)
    for step, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert one.dtype == other.dtype and one.shape == other.shape, (step, index)
            if one.dtype.names:
                for field in one.dtype.names:  # not the padding between them
                    np.testing.assert_array_equal(one[field], other[field], err_msg=f"step {step}, state.{field}")
            else:
                np.testing.assert_array_equal(one, other, err_msg=f"step {step}, column {index}")


@pytest.mark.parametrize("limit", ["own", 10])
def test_compiled_is_plain_python_is_a_double_loop(name, limit):
    """Over whole episodes, with the file's own time limit and with one of 10 steps."""
    compiled, uncompiled = definition_of(name), definition_of(name, compile=False)
    if limit != "own":
        compiled, uncompiled = compiled._replace(max_episode_steps=limit), uncompiled._replace(max_episode_steps=limit)
    num_rows, length = (1, min(compiled.max_episode_steps or 500, 1000) + 5) if limit == "own" else (4, 60)
    action = random_action(name, length, num_rows)
    with np.errstate(over="ignore"):  # the generator's arithmetic wraps around
        expected = by_hand(compiled, num_rows, 5, action)
    assert_same(record(CompiledEnv(compiled, num_rows, 5), action), expected)
    assert_same(record(CompiledEnv(uncompiled, num_rows, 5), action), expected)
    num_terminated, num_final = (sum(step[column].sum() for step in expected) for column in (2, 3))
    if limit == 10:
        assert num_terminated == num_rows * length or num_final > 0, "no time limit was seen"
    elif (compiled.max_episode_steps or NO_LIMIT) < length:
        assert num_terminated + num_final > 0, "no end was seen"


def test_final_observation_only_where_truncated_and_not_terminated(name):
    """And it is what `observe` says of the state before the reset."""
    definition = definition_of(name)._replace(max_episode_steps=3)
    unlimited = definition._replace(max_episode_steps=None)
    env, twin = CompiledEnv(definition, 12, 1), CompiledEnv(unlimited, 12, 1)
    observe = plain(definition.module.observe)
    for action in random_action(name, 9, 12):
        twin.state[:] = env.state
        step, continued = env.step(action), twin.step(action)
        np.testing.assert_array_equal(step.final_row, np.flatnonzero(step.truncated & ~step.terminated))
        for row, final in zip(step.final_row, step.final_observation, strict=True):
            expected = np.zeros_like(final)
            observe(twin.state[row], expected, definition.parameters)
            np.testing.assert_array_equal(final, expected)
            np.testing.assert_array_equal(final, continued.observation[row])


def test_without_autoreset_the_last_observation_stays(name):
    """In plain Python for each file, compiled for one: the loops are the same."""
    definition = definition_of(name, compile=name == "cartpole")._replace(max_episode_steps=6)
    env, twin = CompiledEnv(without_autoreset(definition), 3, 1), CompiledEnv(definition, 3, 1)
    with np.errstate(over="ignore"):
        for action in random_action(name, 14, 3):
            env.state[:] = twin.state
            step, expected = env.step(action), twin.step(action)
            for ours, theirs in zip(step[1:], expected[1:], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            going = np.setdiff1d(np.arange(3), expected.episode_row)
            np.testing.assert_array_equal(step.observation[going], expected.observation[going])
            np.testing.assert_array_equal(step.observation[expected.final_row], expected.final_observation)
            ended = expected.episode_row
            definition.reset_rows(
                left := env.state[ended], env.parameters, again := step.observation[ended], 0, len(ended)
            )
            np.testing.assert_array_equal(again, expected.observation[ended])
            assert_same([[left]], [[twin.state[ended]]])


def test_row_does_not_depend_on_the_others(name):
    """Row i of 3 is row i of 7; rows of seeds 8 and 9 side by side are those of each alone."""
    definition, action = definition_of(name)._replace(max_episode_steps=20), random_action(name, 60, 7)
    seven = record(CompiledEnv(definition, 7, 8), action)
    three = record(CompiledEnv(definition, 3, 8), [one[:3] for one in action])
    both = record(CompiledEnv(definition, 3, [8, 9]), [np.concatenate([one[:3], one[3:6]]) for one in action])
    nine = record(CompiledEnv(definition, 3, 9), [one[3:6] for one in action])
    for a, b, c, d in zip(seven, three, both, nine, strict=True):
        for column in (0, 1, 2, 3, 8):
            assert (a[column][:3] == b[column]).all()
            assert (c[column][:3] == b[column]).all()
            assert (c[column][3:] == d[column]).all()
        np.testing.assert_array_equal(a[4][a[4] < 3], b[4])
        np.testing.assert_array_equal(a[5][a[4] < 3], b[5])
        np.testing.assert_array_equal(a[7][a[6] < 3], b[7])
        np.testing.assert_array_equal(c[6], np.concatenate([b[6], d[6] + 3]))


def test_two_threads_equal_one(name):
    """The compiled loop over two ranges of rows at once, against all rows in one call."""
    definition, action = definition_of(name)._replace(max_episode_steps=20), random_action(name, 40, 64)
    one, two = CompiledEnv(definition, 64, 3), CompiledEnv(definition, 64, 3)
    with ThreadPoolExecutor(2) as pool:
        for one_action in action:
            expected = one.step(one_action)

            def half(start, stop, action=one_action):
                return definition.step_rows(
                    two.state, action, two.parameters, 20, two.observation, two._reward, two._terminated,
                    two._truncated, two._final_row, two._final_observation, two._episode_row, two._episode, start, stop,
                )  # fmt: skip

            counts = list(pool.map(half, (0, 20), (20, 64)))
            np.testing.assert_array_equal(two.observation, expected.observation)
            np.testing.assert_array_equal(two._reward, expected.reward)
            final_row = np.concatenate([two._final_row[: counts[0][0]], two._final_row[20 : 20 + counts[1][0]]])
            np.testing.assert_array_equal(final_row, expected.final_row)
            episode = np.concatenate([two._episode[: counts[0][1]], two._episode[20 : 20 + counts[1][1]]])
            np.testing.assert_array_equal(episode, expected.episode)
            assert (two.state == one.state).all()


def test_observation_lies_in_the_space(name):
    definition = definition_of(name)
    space = definition.observation_space
    env = CompiledEnv(definition._replace(max_episode_steps=min(definition.max_episode_steps or 300, 300)), 16, 0)
    assert env.observation.dtype == space.dtype and env.observation.shape == (16, *space.shape)
    seen = [env.observation.copy()]
    for action in random_action(name, 600, 16):
        step = env.step(action)
        seen += [step.observation.copy(), step.final_observation.copy()]
    for observation in np.concatenate(seen):
        assert space.contains(observation), observation
        assert np.isfinite(observation).all()


def test_seed_decides_the_trajectory(name):
    definition, action = definition_of(name)._replace(max_episode_steps=50), random_action(name, 120, 4)
    first = record(CompiledEnv(definition, 4, 7), action)
    assert_same(record(CompiledEnv(definition, 4, 7), action), first)
    start = CompiledEnv(definition, 4, 7).state.random_state
    draws = (first[-1][8].random_state != start).any()  # the short corridor has no randomness of its own
    for other in (CompiledEnv(definition, 4, 8), CompiledEnv(definition, 4, 7, EVALUATION)):
        assert not np.intersect1d(other.state.random_state, start).size
        same = [
            all(np.array_equal(x, y) for x, y in zip(one[:4], two[:4], strict=True))
            for one, two in zip(first, record(other, action), strict=True)
        ]
        assert all(same) != draws


def test_first_observation_after_autoreset_is_distributed_like_the_first(name):
    """A field that `reset` forgets shows here: starts of later episodes against starts of new instances."""
    definition = definition_of(name)
    env = CompiledEnv(definition._replace(max_episode_steps=150), 1000, 0)
    first = CompiledEnv(definition, 4000, 1).observation.reshape(4000, -1)
    later = []
    for action in random_action(name, 300, 1000):
        step = env.step(action)
        later.append(step.observation[step.episode_row].copy())
    later = np.concatenate(later)[-4000:].reshape(-1, first.shape[1])
    assert len(later) >= 2000
    for index in range(first.shape[1]):
        one, other = np.sort(first[:, index]), np.sort(later[:, index])
        where = np.union1d(one, other)
        gap = np.abs(
            np.searchsorted(one, where, side="right") / len(one)
            - np.searchsorted(other, where, side="right") / len(other)
        ).max()
        assert gap < 1.95 * np.sqrt(1 / len(one) + 1 / len(other)), f"observation {index}"  # Kolmogorov, Smirnov: 0.1%


def test_starts_of_neighbouring_rows_are_unrelated(name):
    env = CompiledEnv(definition_of(name), 4000, 2)
    assert len(np.unique(env.state.random_state)) == len(np.unique(env.state.random_stream)) == 4000
    observation = env.observation.reshape(4000, -1).astype(np.float64)
    varied = (observation != np.median(observation, 0)).mean(0) > 0.05  # coincidences of rare events are not normal
    for index in np.flatnonzero(varied):
        column = observation[:, index]
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.07, f"observation {index}"  # 4.4 standard errors


def test_state_dict_continues_exactly(name):
    definition, action = definition_of(name)._replace(max_episode_steps=30), random_action(name, 120, 6)
    env = CompiledEnv(definition, 3, [1, 2])
    for one in action[:47]:
        env.step(one)
    saved, observation = env.state_dict(), env.observation.copy()
    expected = record(env, action[47:])
    other = CompiledEnv(definition, 3, [3, 4])
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.observation, observation)
    assert_same(record(other, action[47:]), expected)
    with pytest.raises(InvalidEnvironment, match="num_envs"):
        CompiledEnv(definition, 4, [3, 4]).load_state_dict(saved)


def test_step_writes_where_told(name):
    definition, action = definition_of(name), random_action(name, 3, 4)
    env, twin = CompiledEnv(definition, 4, 0), CompiledEnv(definition, 4, 0)
    storage = np.zeros((3, *env.observation.shape), env.observation.dtype)
    for t, one in enumerate(action):
        step, expected = env.step(one, out=storage[t]), twin.step(one)
        assert step.observation is env.observation and np.shares_memory(env.observation, storage[t])
        np.testing.assert_array_equal(storage[t], expected.observation)
    stored = storage.copy()
    env.load_state_dict(CompiledEnv(definition, 4, 1).state_dict())
    np.testing.assert_array_equal(storage, stored)


def test_draw_shows_the_state(name):
    definition = definition_of(name)
    env = CompiledEnv(definition, 1, 0)
    frames = []
    for action in random_action(name, 40, 1):
        canvas = Canvas(*getattr(definition.module, "canvas_size", (480, 360)))
        assert env.draw(0, canvas)
        frames.append(canvas.pixels())
        env.step(action)
    assert len(np.unique(frames[-1].reshape(-1, 3), axis=0)) >= 3, "a picture has more than a ground and one colour"
    assert any((frame != frames[0]).any() for frame in frames[1:])


def test_docstring_has_the_headings(name):
    text = definition_of(name).module.__doc__
    found = [heading for heading in re.findall(r"^([A-Z]\w+)\b", text, re.MULTILINE) if heading in HEADINGS]
    assert found == HEADINGS
    assert re.search(r"index +meaning +range", text), "the table of observations: index, meaning, range"
    assert re.search(r"^Version: \d+$", text, re.MULTILINE)
