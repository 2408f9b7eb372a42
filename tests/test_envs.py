"""What every environment file must hold to; a file added to envs/ is covered the moment it exists.

The truth is `by_hand`: two nested Python loops over the file's functions, uncompiled, with their own bookkeeping.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

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
from ridgeline.loops import BLOCK
from ridgeline.observations import random_allowed, record_dtype, storage_shape_dtype, unpack
from ridgeline.vector import EVALUATION, TRAINING, CompiledEnv

FILES = {
    file.stem: file
    for file in sorted(Path(ridgeline.kernel.__file__).with_name("envs").glob("*.py"))
    if not file.stem.startswith("_")
}
FILES |= {file.stem: file for file in sorted(Path(__file__).with_name("worlds").glob("*.py"))}  # what no other has
# worlds in which plain Python would take minutes
SMALL = {"economy": {"num_agents": 8, "size": 16, "num_steps": 200}}
HEADINGS = ["Observation", "Action", "Reward", "Start", "End", "Source", "Differs", "Version"]

pytestmark = pytest.mark.parametrize("name", FILES)


@cache
def definition_of(name: str, compile: bool = True) -> Definition:
    return define(FILES[name], compile=compile, parameters=SMALL.get(name))


def random_action(name: str, length: int, num_envs: int, seed: int = 0) -> list[np.ndarray]:
    """Actions of `length` steps; instance i's do not depend on the number of instances."""
    definition = definition_of(name)
    shape = (length, definition.num_agents)
    rows = [
        sample_action(definition.action_space, np.random.default_rng([seed, row]), length * definition.num_agents)
        for row in range(num_envs)
    ]
    rows = [row.reshape(*shape, *row.shape[1:]) for row in rows]
    return list(np.concatenate(rows, axis=1))


def record(env: CompiledEnv, action: list[np.ndarray]) -> list[list[np.ndarray]]:
    """Everything that each step gives, the state after it, and the valid rows, copied."""
    steps = []
    for one in action:
        *fields, valid = env.step(one)
        valid = np.ones(env.num_rows, bool) if valid is None else valid.copy()
        steps.append([*(field.copy() for field in fields), env.state.copy(), valid])
    return steps


def numbers(definition: Definition, observation: np.ndarray) -> np.ndarray:
    """Observations as float64 (rows, numbers), whatever their space."""
    parts = unpack(definition.observation_space, observation)
    parts = parts.values() if isinstance(parts, dict) else [parts]
    return np.concatenate([part.reshape(len(observation), -1).astype(np.float64) for part in parts], 1)


class ByHand:
    """One instance, written for reading: the file's functions in plain Python, and lists of what each agent was given.

    An agent's episode is the list of its rewards: None before its first decision, and after its end.
    """

    def __init__(self, definition: Definition, state):
        self.definition, self.state, self.p = definition, state, definition.parameters
        module, form = definition.module, definition.form
        self.functions = {name: plain(getattr(module, name)) for name in form.functions()}
        self.agents = range(definition.num_agents)
        self.begin()

    def begin(self):
        self.functions["reset"](self.state, self.p)
        self.rewards, self.decisions, self.age = [None for _ in self.agents], [0 for _ in self.agents], 0

    def see(self, agent: int) -> np.ndarray:
        """The stored observation of one agent."""
        space, form = self.definition.observation_space, self.definition.form
        who = (agent,) if form.several else ()
        if isinstance(space, spaces.Box):
            observation = np.zeros(space.shape, space.dtype)
            self.functions["observe"](self.state, *who, observation, self.p)
            return observation
        row = np.zeros(1, record_dtype(space)).view(np.recarray)
        self.functions["observe"](self.state, *who, row[0].observation if form.part else row[0], self.p)
        if form.masked:
            self.functions["action_mask"](self.state, *who, row[0].action_mask, self.p)
        return np.frombuffer(row.tobytes(), np.uint8)

    def step(self, action: np.ndarray) -> list[tuple]:
        """Of each agent: reward, terminated, truncated, final observation or None, episode or None, valid."""
        definition, limit = self.definition, self.definition.max_episode_steps
        several = definition.form.several
        valid = [not definition.form.alive or bool(self.functions["alive"](self.state, agent)) for agent in self.agents]
        reward, ended = np.zeros(len(self.agents)), np.zeros(len(self.agents), bool)
        if several:
            over = self.functions["step"](self.state, action, reward, ended, self.p)
        else:
            reward[0], over = self.functions["step"](self.state, action[0], self.p)
        self.age += 1
        cut = limit is not None and self.age == limit
        results: list[tuple] = []
        for agent in self.agents:
            if valid[agent] and self.rewards[agent] is None:
                self.rewards[agent] = []
            if self.rewards[agent] is None:
                results.append((0.0, False, False, None, None, valid[agent]))
                continue
            self.rewards[agent].append(reward[agent])
            self.decisions[agent] += valid[agent]
            terminated = bool(ended[agent] or over)
            final = self.see(agent) if cut and not terminated else None
            episode = None
            if terminated or cut:
                total = 0.0
                for value in self.rewards[agent]:
                    total += value
                fields = [(self.state[field], each) for field, each in definition.statistics.items()]
                own = [float(value[agent] if each else value) for value, each in fields]
                episode = [total, self.decisions[agent], *own]
                self.rewards[agent], self.decisions[agent] = None, 0
            results.append((reward[agent], terminated, cut, final, episode, valid[agent]))
        if over or cut:
            self.begin()
        return results

    def write_header(self):
        """What the kernel keeps of the episodes in flight."""
        totals = [sum(rewards or [], start=0.0) for rewards in self.rewards]
        if self.definition.form.several:
            self.state.episode_return[:], self.state.episode_length[:] = totals, self.decisions
            self.state.playing[:] = [int(rewards is not None) for rewards in self.rewards]
            self.state.world_length = self.age
        else:
            self.state.episode_return, self.state.episode_length = totals[0], self.age


def by_hand(definition: Definition, num_envs: int, seed: int, action: list[np.ndarray]) -> list[list[np.ndarray]]:
    """What `record` must give: one instance, one agent and one step at a time."""
    shape, dtype = storage_shape_dtype(definition.observation_space)
    state = np.zeros(num_envs, definition.state_dtype).view(np.recarray)
    seed_rows(state, seed, TRAINING)
    worlds = [ByHand(definition, state[i]) for i in range(num_envs)]
    steps = []
    for one_action in action:
        by_world = one_action.reshape(num_envs, definition.num_agents, *one_action.shape[1:])
        rows = [row for world, own in zip(worlds, by_world, strict=True) for row in world.step(own)]
        observation = np.stack([world.see(agent) for world in worlds for agent in world.agents])
        for world in worlds:
            world.write_header()
        reward, terminated, truncated, final, episode, valid = zip(*rows, strict=True)
        final_row = np.array([row for row, one in enumerate(final) if one is not None], np.int64)
        episode_row = np.array([row for row, one in enumerate(episode) if one is not None], np.int64)
        steps.append([
            observation, np.array(reward), np.array(terminated), np.array(truncated),
            final_row, np.array([final[row] for row in final_row], dtype).reshape(-1, *shape),
            episode_row, np.array([episode[row] for row in episode_row]).reshape(-1, 2 + len(definition.statistics)),
            state.copy(), np.array(valid),
        ])  # fmt: skip
    return steps


def assert_same(left: list[list[np.ndarray]], right: list[list[np.ndarray]]) -> None:
    """Equal bits in every array of every step."""
    assert len(left) == len(right)
    for step, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert one.dtype == other.dtype and one.shape == other.shape, (step, index)
            if one.tobytes() == other.tobytes():
                continue
            if one.dtype.names:
                for field in one.dtype.names:  # not the padding between them
                    np.testing.assert_array_equal(one[field], other[field], err_msg=f"step {step}, state.{field}")
            else:
                np.testing.assert_array_equal(one, other, err_msg=f"step {step}, column {index}")


@pytest.mark.parametrize("limit", ["own", 10])
def test_compiled_is_plain_python_is_a_double_loop(name, limit):
    """Over whole episodes, with the file's own time limit, and with one of 10 steps the loop in plain Python too."""
    compiled, uncompiled = definition_of(name), definition_of(name, compile=False)
    if limit != "own":
        compiled, uncompiled = compiled._replace(max_episode_steps=limit), uncompiled._replace(max_episode_steps=limit)
    own = compiled.max_episode_steps or NO_LIMIT
    num_envs, length = (1, own + 5 if own <= 300 else 205) if limit == "own" else (4, 60)
    length = min(length, 500 // (num_envs * compiled.num_agents))
    action = random_action(name, length, num_envs)
    with np.errstate(over="ignore"):  # the generator's arithmetic wraps around
        expected = by_hand(compiled, num_envs, 5, action)
    assert_same(record(CompiledEnv(compiled, num_envs, 5), action), expected)
    if limit == 10:
        assert_same(record(CompiledEnv(uncompiled, num_envs, 5), action), expected)
    num_terminated, num_final = (sum(step[column].sum() for step in expected) for column in (2, 3))
    if limit == 10:
        assert num_terminated == num_envs * length or num_final > 0, "no time limit was seen"
    elif own < length:
        assert num_terminated + num_final > 0, "no end was seen"


def test_final_observation_only_where_truncated_and_not_terminated(name):
    """And it is what `observe` says of the state before the reset."""
    definition = definition_of(name)._replace(max_episode_steps=3)
    unlimited = definition._replace(max_episode_steps=None)
    env, twin = CompiledEnv(definition, 12, 1), CompiledEnv(unlimited, 12, 1)
    for action in random_action(name, 9, 12):
        twin.state[:] = env.state
        step, continued = env.step(action), twin.step(action)
        np.testing.assert_array_equal(step.final_row, np.flatnonzero(step.truncated & ~step.terminated))
        for row, final in zip(step.final_row, step.final_observation, strict=True):
            np.testing.assert_array_equal(final, continued.observation[row])


def test_without_autoreset_the_last_observation_stays(name):
    """In plain Python for each file, compiled for one: the loops are the same."""
    definition = definition_of(name, compile=name == "cartpole")._replace(max_episode_steps=6)
    env, twin = CompiledEnv(without_autoreset(definition), 3, 1), CompiledEnv(definition, 3, 1)
    agents = definition.num_agents
    with np.errstate(over="ignore"):
        for action in random_action(name, 14, 3):
            env.state[:] = twin.state
            step, expected = env.step(action), twin.step(action)
            for ours, theirs in zip(step[1:], expected[1:], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            several = definition.form.several  # whose world ended, not only one agent's episode
            ended = np.flatnonzero(twin.state.world_length == 0) if several else expected.episode_row
            rows = (ended[:, None] * agents + np.arange(agents)).ravel()
            going = np.setdiff1d(np.arange(3 * agents), rows)
            np.testing.assert_array_equal(step.observation[going], expected.observation[going])
            np.testing.assert_array_equal(step.observation[expected.final_row], expected.final_observation)
            left = env.state[ended]
            np.testing.assert_array_equal(env.begin(left, step.observation[rows]), expected.observation[rows])
            assert_same([[left]], [[twin.state[ended]]])


def test_block_is_its_rows(name):
    """75 instances stepped together, `simd` ones in registers of several and a rest, and each in a call of its own."""
    definition = definition_of(name)._replace(max_episode_steps=9)
    together, alone = CompiledEnv(definition, BLOCK + 11, 3), CompiledEnv(definition, BLOCK + 11, 3)
    for action in random_action(name, 20, BLOCK + 11):
        expected = together.step(action)
        for i in range(BLOCK + 11):
            alone.step_range(action, alone.observation, i, i + 1)
        ours = (alone.observation, alone._reward, alone._terminated, alone._truncated)
        assert_same([[*ours, alone.state]], [[*expected[:4], together.state]])


def test_row_does_not_depend_on_the_others(name):
    """Instance i of 3 is instance i of 7; those of seeds 8 and 9 side by side are those of each alone."""
    definition, action = definition_of(name)._replace(max_episode_steps=20), random_action(name, 60, 7)
    three, six = 3 * definition.num_agents, 6 * definition.num_agents
    seven = record(CompiledEnv(definition, 7, 8), action)
    eight = record(CompiledEnv(definition, 3, 8), [one[:three] for one in action])
    both = record(CompiledEnv(definition, 3, [8, 9]), [one[:six] for one in action])
    nine = record(CompiledEnv(definition, 3, 9), [one[three:six] for one in action])
    for a, b, c, d in zip(seven, eight, both, nine, strict=True):
        for column in (0, 1, 2, 3, 8, 9):
            count = 3 if column == 8 else three
            assert (a[column][:count] == b[column]).all()
            assert (c[column][:count] == b[column]).all()
            assert (c[column][count:] == d[column]).all()
        np.testing.assert_array_equal(a[4][a[4] < three], b[4])
        np.testing.assert_array_equal(a[5][a[4] < three], b[5])
        np.testing.assert_array_equal(a[7][a[6] < three], b[7])
        np.testing.assert_array_equal(c[6], np.concatenate([b[6], d[6] + three]))


def test_two_threads_equal_one(name):
    """The compiled loop over two ranges of instances at once, against all in one call."""
    definition, action = definition_of(name)._replace(max_episode_steps=20), random_action(name, 40, 64)
    one, two = CompiledEnv(definition, 64, 3), CompiledEnv(definition, 64, 3)
    second = 20 * definition.num_agents  # the first row of the second range
    with ThreadPoolExecutor(2) as pool:
        for one_action in action:
            expected = one.step(one_action)

            def half(start, stop, action=one_action):
                return two.step_range(action, two.observation, start, stop)

            counts = list(pool.map(half, (0, 20), (20, 64)))
            np.testing.assert_array_equal(two.observation, expected.observation)
            np.testing.assert_array_equal(two._reward, expected.reward)
            rows = [two._final_row[: counts[0][0]], two._final_row[second : second + counts[1][0]]]
            np.testing.assert_array_equal(np.concatenate(rows), expected.final_row)
            episode = [two._episode[: counts[0][1]], two._episode[second : second + counts[1][1]]]
            np.testing.assert_array_equal(np.concatenate(episode), expected.episode)
            assert (two.state == one.state).all()


def test_observation_lies_in_the_space(name):
    definition = definition_of(name)
    space = definition.observation_space
    env = CompiledEnv(definition._replace(max_episode_steps=min(definition.max_episode_steps or 300, 300)), 16, 0)
    shape, dtype = storage_shape_dtype(space)
    assert env.observation.dtype == dtype and env.observation.shape == (env.num_rows, *shape)
    seen, kept = [env.observation.copy()], max(1, definition.num_agents // 4)  # of many agents one in some
    for action in random_action(name, 600, 16):
        step = env.step(action)
        seen += [step.observation[::kept].copy(), step.final_observation[::kept].copy()]
    if isinstance(space, spaces.Box):
        assert (np.concatenate(seen) >= space.low).all() and (np.concatenate(seen) <= space.high).all()
    for observation in np.concatenate(seen)[:: 8 if isinstance(space, spaces.Box) else 1]:
        row = unpack(space, observation)
        assert space.contains(row), row
    assert np.isfinite(numbers(definition, np.concatenate(seen))).all()


def test_the_mask_always_allows_an_action(name):
    """Of every row that has something to decide; played by what is allowed."""
    definition = definition_of(name)
    if not definition.form.masked:
        return
    env, generator = CompiledEnv(definition, 16, 0), np.random.default_rng(0)
    alive = plain(definition.module.alive) if definition.form.alive else lambda state, agent: True
    nvec = definition.action_space.nvec if isinstance(definition.action_space, spaces.MultiDiscrete) else []
    for _ in range(max(30, 1000 // definition.num_agents)):
        mask = unpack(definition.observation_space, env.observation)["action_mask"]
        assert np.isin(mask, (0, 1)).all()
        decides = np.array([alive(state, agent) for state in env.state for agent in range(env.num_agents)])
        for part in np.split(mask, np.cumsum(nvec)[:-1].astype(int), axis=1):
            assert part[decides].any(1).all()
        step = env.step(random_allowed(definition.action_space, mask, generator))
        assert step.valid is None or (step.valid == decides).all()


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
    """A field that `reset` forgets shows here: starts of later episodes against starts of new instances.

    Of several agents, the first one's, when its world begins anew; of many, fewer worlds.
    """
    definition = definition_of(name)
    count, agents = max(10, 1000 // definition.num_agents), definition.num_agents
    env = CompiledEnv(definition._replace(max_episode_steps=150), count, 0)
    first = numbers(definition, CompiledEnv(definition, 4 * count, 1).observation[::agents])
    later = []
    for action in random_action(name, 300, count):
        step = env.step(action)
        begins = agents * np.flatnonzero(env.state.world_length == 0) if definition.form.several else step.episode_row
        later.append(step.observation[begins].copy())
    later = numbers(definition, np.concatenate(later)[-4 * count :])
    assert len(later) >= 2 * count
    for index in range(first.shape[1]):
        one, other = np.sort(first[:, index]), np.sort(later[:, index])
        where = np.union1d(one, other)
        gap = np.abs(
            np.searchsorted(one, where, side="right") / len(one)
            - np.searchsorted(other, where, side="right") / len(other)
        ).max()
        assert gap < 1.95 * np.sqrt(1 / len(one) + 1 / len(other)), f"observation {index}"  # Kolmogorov, Smirnov: 0.1%


def test_starts_of_neighbouring_rows_are_unrelated(name):
    definition = definition_of(name)
    count = max(400, 4000 // definition.num_agents)
    env = CompiledEnv(definition, count, 2)
    assert len(np.unique(env.state.random_state)) == len(np.unique(env.state.random_stream)) == count
    observation = numbers(definition, env.observation[:: definition.num_agents])
    varied = (observation != np.median(observation, 0)).mean(0) > 0.05  # coincidences of rare events are not normal
    for index in np.flatnonzero(varied):
        column = observation[:, index]
        related = abs(np.corrcoef(column[:-1], column[1:])[0, 1])
        assert related < 4.4 / np.sqrt(count), f"observation {index}"  # standard errors


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
    for number, action in enumerate(random_action(name, 10, 1)):
        if number % 3 == 0:
            canvas = Canvas(*getattr(definition.module, "canvas_size", (480, 360)))
            assert env.draw(0, canvas)
            frames.append(canvas.pixels())
        env.step(action)
    assert len(np.unique(frames[-1] @ np.array([1, 256, 65536]))) >= 3, (
        "a picture has more than a ground and one colour"
    )
    assert any((frame != frames[0]).any() for frame in frames[1:])


def test_docstring_has_the_headings(name):
    text = definition_of(name).module.__doc__
    found = [heading for heading in re.findall(r"^([A-Z]\w+)\b", text, re.MULTILINE) if heading in HEADINGS]
    assert found == HEADINGS
    assert re.search(r"index +meaning +range", text), "the table of observations: index, meaning, range"
    assert re.search(r"^Version: \d+$", text, re.MULTILINE)
