"""Gymnasium environments against a hand-written loop over single instances, and what happens when things go wrong."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import gymnasium
import gymnasium_samples
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

import ridgeline.adapters.gymnasium as adapter
import ridgeline.workers
from ridgeline.adapters.gymnasium import GymnasiumEnv
from ridgeline.canvas import Canvas
from ridgeline.environments import make
from ridgeline.kernel import InvalidEnvironment
from ridgeline.observations import unpack
from ridgeline.vector import EVALUATION, TRAINING

POSIX = os.name == "posix"


def sample(name, **changes):
    return EnvSpec(name, entry_point=f"gymnasium_samples:{name}", **changes)


def actions_of(env, steps):
    env.action_space.seed(7)
    return [np.stack([env.action_space.sample() for _ in range(env.num_rows)]) for _ in range(steps)]


def by_hand(make, seed, actions):
    """What a loop over one instance sees: a list of (observation, reward, flags, final observation, episode)."""
    env, seen, episode = make(), [], [0.0, 0]
    observation, _ = env.reset(seed=seed)
    seen.append((np.array(observation, np.float32), 0.0, False, False, None, None))
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        episode = [episode[0] + reward, episode[1] + 1]
        final = ended = None
        if terminated or truncated:
            final = np.array(observation, np.float32) if not terminated else None
            ended, episode = episode, [0.0, 0]
            observation, _ = env.reset()
        seen.append((np.array(observation, np.float32), reward, terminated, truncated, final, ended))
    env.close()
    return seen


def check_against_hand(env, make, steps, translate=lambda action: action):
    actions = actions_of(env, steps)
    seeds = [seed for run_seed in env.seeds for seed in env._row_seeds(run_seed)]
    rows = [by_hand(make, seed, [translate(a[row]) for a in actions]) for row, seed in enumerate(seeds)]
    assert env.observation.dtype == np.float32
    np.testing.assert_array_equal(env.observation, np.stack([seen[0][0] for seen in rows]))
    num_final = num_ended = 0
    for t, action in enumerate(actions, 1):
        step = env.step(action)
        np.testing.assert_array_equal(step.observation, np.stack([seen[t][0] for seen in rows]))
        np.testing.assert_array_equal(step.reward, [seen[t][1] for seen in rows])
        np.testing.assert_array_equal(step.terminated, [seen[t][2] for seen in rows])
        np.testing.assert_array_equal(step.truncated, [seen[t][3] for seen in rows])
        final = [(row, seen[t][4]) for row, seen in enumerate(rows) if seen[t][4] is not None]
        assert step.final_row.tolist() == [row for row, _ in final]
        assert step.final_observation.shape == (len(final), *env.observation_space.shape)
        for i, (_, observation) in enumerate(final):
            np.testing.assert_array_equal(step.final_observation[i], observation)
        ended = [(row, seen[t][5]) for row, seen in enumerate(rows) if seen[t][5] is not None]
        assert step.episode_row.tolist() == [row for row, _ in ended]
        np.testing.assert_array_equal(step.episode, np.reshape([episode for _, episode in ended], (-1, 2)))
        num_final, num_ended = num_final + len(final), num_ended + len(ended)
    env.close()
    return num_final, num_ended


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name, limit", [("CartPole-v1", 15), ("Pendulum-v1", 6)])
def test_gymnasiums_own_environments_equal_a_loop_by_hand(name, limit, processes):
    env = GymnasiumEnv(name, 3, [4, 5], parameters={"max_episode_steps": limit}, processes=processes)
    assert env.max_episode_steps == limit
    num_final, num_ended = check_against_hand(env, lambda: gymnasium.make(name, max_episode_steps=limit), 40)
    assert num_final > 5
    assert num_ended > num_final or name == "Pendulum-v1"  # CartPole also falls


@pytest.mark.parametrize("processes", [1, 2])
def test_every_kind_of_episode_end(processes):
    env = GymnasiumEnv(sample("Ends"), 2, [0, 1], processes=processes)
    assert check_against_hand(env, gymnasium_samples.Ends, 21) == (4 * 2, 4 * 6)


def test_every_kind_of_episode_end_by_numbers():
    env = GymnasiumEnv(sample("Ends"), 1, 0, processes=1)
    told = []
    for _ in range(10):
        step = env.step(np.zeros(1, np.int64))
        told.append((bool(step.terminated[0]), bool(step.truncated[0]), step.observation[0, :2].tolist(),
                     step.final_observation[:, :2].tolist()))  # fmt: skip
    # The first episode of an instance is its own number 0: the probe that the adapter makes is another instance.
    no, end = (False, False), []
    assert told == [
        (*no, [0, 1], end), (*no, [0, 2], end), (False, True, [1, 0], [[0, 3]]),
        (*no, [1, 1], end), (*no, [1, 2], end), (*no, [1, 3], end), (*no, [1, 4], end), (True, False, [2, 0], end),
        (*no, [2, 1], end), (True, True, [3, 0], end),
    ]  # fmt: skip
    np.testing.assert_array_equal(step.episode, [[0.1 + 0.2, 2]])


@pytest.mark.parametrize("kind, space, translate", [
    ("discrete", spaces.Discrete(3), lambda a: a + 5),
    ("multi_discrete", spaces.MultiDiscrete([2, 3, 4]), lambda a: a),
    ("multi_discrete_start", spaces.MultiDiscrete([2, 3]), lambda a: a + np.array([10, -1])),
    ("multi_binary", spaces.MultiDiscrete([2, 2, 2]), lambda a: a.astype(np.int8)),
    ("matrix", spaces.Box(-1, 1, (4,), np.float32), lambda a: a.reshape(2, 2)),
])  # fmt: skip
def test_every_kind_of_action(kind, space, translate):
    env = GymnasiumEnv(sample("Echo"), 2, [0, 1], parameters={"kind": kind}, processes=1)
    assert env.action_space == space
    _, num_ended = check_against_hand(env, lambda: gymnasium_samples.Echo(kind), 9, translate)
    assert num_ended == 8


def test_multi_discrete_in_processes():
    env = GymnasiumEnv(sample("Echo"), 3, 0, parameters={"kind": "multi_discrete"}, processes=3)
    check_against_hand(env, lambda: gymnasium_samples.Echo("multi_discrete"), 9)


def test_box_actions_at_the_bounds_lie_in_a_float64_space():
    env = GymnasiumEnv(sample("Echo"), 2, 0, parameters={"kind": "box"}, processes=1)
    assert np.float64(np.float32(0.3)) > 0.3  # the trap: rounded to the nearest, the bound would be refused
    action = np.stack([env.action_space.low, env.action_space.high])
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, [[0.1, -0.7], [0.3, 0.7]], rtol=1e-6)
    np.testing.assert_array_equal(env.step(action).observation, action)


def test_a_nan_action_of_one_run_does_not_stop_the_others():
    env = GymnasiumEnv(sample("Echo"), 1, [0, 1], parameters={"kind": "box"}, processes=1)
    step = env.step(np.array([[np.nan, 0.5], [0.2, 0.5]], np.float32))
    np.testing.assert_array_equal(step.observation, np.array([[0.1, 0.5], [0.2, 0.5]], np.float32))


def test_humanoid_standup_equals_a_loop_by_hand():
    pytest.importorskip("mujoco")
    name = "HumanoidStandup-v5"
    env = GymnasiumEnv(name, 2, 3, parameters={"max_episode_steps": 4}, processes=2)
    assert env.observation.shape == (2, 348)
    assert check_against_hand(env, lambda: gymnasium.make(name, max_episode_steps=4), 9) == (4, 4)


def test_out_receives_the_observation():
    env = GymnasiumEnv("CartPole-v1", 2, 0, processes=1)
    first = env.observation.copy()
    out = np.zeros((2, 4), np.float32)
    step = env.step(np.zeros(2, np.int64), out)
    assert step.observation is out and env.observation is out
    assert np.abs(out).sum() > 0
    assert not np.array_equal(first, out)


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_a_rows_seed_depends_on_run_seed_purpose_and_index_only():
    small = GymnasiumEnv("CartPole-v1", 2, 5, processes=1)
    large = GymnasiumEnv("CartPole-v1", 7, [9, 5, 5], processes=1)
    np.testing.assert_array_equal(large.observation[7:9], small.observation)
    np.testing.assert_array_equal(large.observation[7:14], large.observation[14:21])
    assert len(np.unique(large.observation[:14, 0])) == 14
    other = GymnasiumEnv("CartPole-v1", 2, 5, purpose=EVALUATION, processes=1)
    assert not np.isin(other.observation, small.observation).any()


def test_seeds_never_change():
    """Published results name seeds: these numbers are for ever."""
    env = GymnasiumEnv("CartPole-v1", 3, [0, 2**40], purpose=TRAINING, processes=1)
    assert env._row_seeds(0) == GOLDEN_0
    assert env._row_seeds(2**40) == GOLDEN_LARGE


GOLDEN_0 = [1976665982, 1343407475, 1134802995]
GOLDEN_LARGE = [1870427755, 251205272, 1160179300]


def test_a_resumed_environment_starts_new_episodes_that_are_determined():
    def resumed(state):
        env = GymnasiumEnv("CartPole-v1", 2, 5, processes=1)
        env.step(np.zeros(2, np.int64))
        env.load_state_dict(state)
        return env

    fresh = GymnasiumEnv("CartPole-v1", 2, 5, processes=1)
    start = fresh.observation.copy()
    assert not fresh.resumes_exactly
    once, again = resumed(fresh.state_dict()), resumed(fresh.state_dict())
    np.testing.assert_array_equal(once.observation, again.observation)
    assert not np.isin(once.observation, start).any()
    twice = resumed(once.state_dict())
    assert not np.isin(twice.observation, [start, once.observation]).any()
    while not len((step := once.step(np.zeros(2, np.int64))).episode_row):
        pass
    assert step.episode[0, 1] < 12  # the counters began anew


# ------------------------------------------------------------------------------------------------------- autoreset mode


def vector_only(creator, **changes):
    return EnvSpec(f"Vector{creator}", vector_entry_point=f"gymnasium_samples:{creator}", **changes)


def test_an_unknown_autoreset_mode_is_refused():
    refusal = r"^VectorCounters runs in autoreset mode None; its metadata\['autoreset_mode'\] must be one of"
    with pytest.raises(InvalidEnvironment, match=refusal):
        GymnasiumEnv(vector_only("Counters"), 2, 0)


def test_an_autoreset_wrapper_changes_nothing():
    """The adapter resets in the step that ends an episode, before the wrapper would."""
    env = GymnasiumEnv(sample("resetting_wrapper"), 2, 0, processes=1)
    assert check_against_hand(env, gymnasium_samples.Ends, 21) == (2 * 2, 2 * 6)


def transitions(env, steps):
    """By row, its transitions (observation before, reward, flags, final observation, episode), and its actions."""
    rows, actions = [[] for _ in range(env.num_rows)], [[] for _ in range(env.num_rows)]
    num_waiting = 0
    for action in actions_of(env, steps):
        before = env.observation.copy()
        step = env.step(action)
        for row in range(env.num_rows):
            if step.valid is not None and not step.valid[row]:
                assert (step.reward[row], step.terminated[row], step.truncated[row]) == (0, False, False)
                num_waiting += 1
                continue
            final = step.final_observation[step.final_row == row]
            ended = step.episode[step.episode_row == row].tolist()
            rows[row].append([before[row], step.reward[row], bool(step.terminated[row]), bool(step.truncated[row]),
                              final.tolist(), ended])  # fmt: skip
            actions[row].append(action[row])
    return rows, actions, num_waiting


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_every_autoreset_mode_gives_the_transitions_of_a_loop_by_hand(mode):
    """Rows that only reset are no transitions; without them the three modes are the same."""
    env = GymnasiumEnv(vector_only("several"), 2, [0, 3], parameters={"mode": mode})
    first = [seed + row for run_seed in env.seeds for seed in env._row_seeds(run_seed)[:1] for row in range(2)]
    rows, actions, num_waiting = transitions(env, 21)
    for seed, seen, own in zip(first, rows, actions, strict=True):
        hand = by_hand(gymnasium_samples.Ends, seed, own)
        for t, (before, reward, terminated, truncated, final, ended) in enumerate(seen):
            np.testing.assert_array_equal(before, hand[t][0])
            assert [reward, terminated, truncated] == list(hand[t + 1][1:4])
            assert final == ([] if hand[t + 1][4] is None else [hand[t + 1][4].tolist()])
            assert ended == ([] if hand[t + 1][5] is None else [hand[t + 1][5]])
    # episodes of 3, 5, 2, 3 and 5 steps with a step between them: four resets in 21 steps
    assert num_waiting == (4 * 4 if mode == "NextStep" else 0)
    assert (env.step(actions_of(env, 1)[0]).valid is not None) == (mode == "NextStep")


def test_gymnasiums_own_vector_cartpole():
    """It resets in the next step, as its metadata say."""
    env = make("gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv", 3, 0)
    rows, _, num_waiting = transitions(env, 100)
    ended = [sum(len(one[5]) for one in row) for row in rows]
    assert min(ended) > 1 and 0 <= sum(ended) - num_waiting <= 3
    for row in rows:
        lengths, count = [], 0
        for one in row:
            count += 1
            if one[5]:
                lengths.append(count)
                assert one[5] == [[count, count]]
                count = 0


def test_a_vector_environment_that_resets_in_the_same_step_is_used_once_per_run():
    env = GymnasiumEnv(vector_only("same_step", max_episode_steps=4), 2, [0, 1])
    alone = GymnasiumEnv(vector_only("same_step", max_episode_steps=4), 2, 1)
    np.testing.assert_array_equal(env.observation[2:], alone.observation)
    assert env.max_episode_steps == 4
    number = env.observation[[0, 2], 1]
    assert number[0] != number[1]
    for _ in range(3):
        step = env.step(np.array([0, 1, 1, 0]))
    assert step.truncated.tolist() == [False, True, False, True]
    assert step.observation[:, 0].tolist() == [3, 0, 3, 0]
    assert step.final_row.tolist() == [1, 3]
    np.testing.assert_array_equal(step.final_observation, [[4, number[0]], [4, number[1]]])
    np.testing.assert_array_equal(step.episode, [[3, 3], [0, 3]])


def test_a_truncation_without_a_final_observation_is_refused():
    env = GymnasiumEnv(vector_only("same_step"), 2, 0, parameters={"final": False})
    env.step(np.zeros(2, np.int64))
    with pytest.raises(InvalidEnvironment, match="does not hold its last observation"):
        env.step(np.zeros(2, np.int64))


def test_a_single_environment_is_preferred_to_a_vector_one():
    assert gymnasium.registry["CartPole-v1"].vector_entry_point  # in next-step mode
    GymnasiumEnv("CartPole-v1", 1, 0).close()


# --------------------------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize("processes, form", [(1, {}), (2, {}), (1, {"tuple": True}), (1, {"image": True})])
def test_images_and_parts(processes, form):
    """Every part as the author's, numbers from 0, in one record; an image alone stays an image."""
    env = GymnasiumEnv(sample("Parts"), 2, 3, parameters=form, processes=processes)
    check_parts(env, [by_hand_parts(seed, form, 12) for seed in env._row_seeds(3)], form, 12)


@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
@pytest.mark.parametrize("form", [{"tuple": False}, {"tuple": True}, {"image": True}])
def test_images_and_parts_of_vector_environments(form, mode):
    env = GymnasiumEnv(vector_only("several"), 2, 3, parameters={"mode": mode, **form})
    seed = env._row_seeds(3)[0]
    check_parts(env, [by_hand_parts(seed + row, form, 12) for row in range(2)], form, 12)


def by_hand_parts(seed, form, steps):
    """The observation after each step, and what followed where it was truncated."""
    env = gymnasium_samples.Parts(**form)
    seen = [(env.reset(seed=seed)[0], None)]
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(0)
        final = observation if truncated and not terminated else None
        seen.append((env.reset()[0] if terminated or truncated else observation, final))
    return seen


def check_parts(env, rows, form, steps):
    names = list(gymnasium_samples.Parts().parts if form.get("tuple") else gymnasium_samples.Parts().observation_space)
    start = {"discrete": -2, "multi_discrete": [1, 0]}

    def assert_same(ours, theirs):
        if form.get("image"):
            assert ours.dtype == np.uint8
            np.testing.assert_array_equal(ours, theirs)
            return
        parts = unpack(env.observation_space, ours)
        theirs = dict(zip(names, theirs, strict=True)) if form.get("tuple") else theirs
        for name, (key, part) in zip(names, parts.items(), strict=True):
            assert key == (str(names.index(name)) if form.get("tuple") else name)
            expected = np.asarray(theirs[name]) - start.get(name, 0)
            np.testing.assert_array_equal(part, expected.astype(part.dtype))
            assert env.observation_space[key].contains(part if part.shape else part[()])
        assert parts.get("vector", parts.get("1")).dtype == np.float32

    num_final, step = 0, None
    for t in range(steps + 1):
        for row, seen in enumerate(rows):
            assert_same(env.observation[row], seen[t][0])
            if t and seen[t][1] is not None:
                assert_same(step.final_observation[step.final_row.tolist().index(row)], seen[t][1])
                num_final += 1
        step = env.step(np.zeros(2, np.int64))
    assert num_final >= 2
    env.close()


def test_a_number_alone_is_a_record_of_one_part():
    env = make("FrozenLake-v1", 2, 0, processes=1)
    assert env.observation_space == spaces.Dict({"0": spaces.Discrete(16)})
    assert unpack(env.observation_space, env.observation)["0"].tolist() == [0, 0]
    step = env.step(np.array([1, 2]))  # down or sideways: it is slippery
    assert set(unpack(env.observation_space, step.observation)["0"].tolist()) <= {0, 1, 4}


@pytest.mark.parametrize("space, told", [
    (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), r"Dict\('a': Dict\('b': Discrete\(2\)\)\)"),
    (spaces.Text(4), r"Text\(1, 4, .*\)"),
    (spaces.Box(0, 1, (), np.float32), r"Box\(0.0, 1.0, \(\), float32\)"),
])  # fmt: skip
def test_other_observations_are_refused(space, told):
    message = rf"^Space: observations are {told}; supported are a Box, and a flat Dict or Tuple of Box, Discrete, "
    with pytest.raises(InvalidEnvironment, match=message):
        GymnasiumEnv(sample("Space"), 1, 0, parameters={"observation": space})


@pytest.mark.parametrize("space", [spaces.Box(0, 9, (2,), np.int64), spaces.Tuple([spaces.Discrete(2)])])
def test_other_actions_are_refused(space):
    with pytest.raises(InvalidEnvironment, match=r"^Space: actions are .*; supported are Discrete, MultiDiscrete, Mul"):
        GymnasiumEnv(sample("Space"), 1, 0, parameters={"action": space})


def test_integer_vectors_are_observations():
    space = spaces.Box(0, 255, (128,), np.uint8)
    env = GymnasiumEnv(sample("Space"), 1, 0, parameters={"observation": space})
    assert env.observation.dtype == np.float32
    assert env.observation_space == spaces.Box(0, 255, (128,), np.float32)
    assert env.observation.max() > 1


# -------------------------------------------------------------------------------------------------------------- trouble


def trouble(what, num_envs=4, seed=0, **keywords):
    """An environment that fails in the row whose first random number is the largest, and that row."""
    rows = GymnasiumEnv("CartPole-v1", num_envs, seed, processes=1)._row_seeds(seed)
    first = [np.random.Generator(np.random.PCG64(np.random.SeedSequence(s))).random() for s in rows]
    parameters = {"what": what, "above": max(first)}
    return GymnasiumEnv(sample("Trouble"), num_envs, seed, parameters=parameters, **keywords), int(np.argmax(first))


def steps(env, count=3):
    for _ in range(count):
        step = env.step(np.zeros(env.num_rows, np.int64))
    return step


@pytest.mark.parametrize("processes", [1, 2])
def test_a_nan_reward_passes_through(processes):
    env, row = trouble("nan", processes=processes)
    expected = np.ones(4)
    expected[row] = np.nan
    np.testing.assert_array_equal(steps(env).reward, expected)
    env.close()


def test_a_reward_in_an_array_is_a_number():
    env, row = trouble("array", processes=1)
    assert steps(env).reward[row] == 2.0


def test_an_observation_too_large_for_float32_is_infinite():
    env, row = trouble("huge", processes=1)
    assert steps(env).observation[row, 0] == np.inf


@pytest.mark.parametrize("processes", [1, 2])
def test_an_exception_in_an_environment_names_it_and_the_row(processes):
    env, row = trouble("divide", processes=processes)
    with pytest.raises(InvalidEnvironment) as caught:
        steps(env)
    source = Path(gymnasium_samples.__file__).read_text().splitlines()
    line = [number for number, text in enumerate(source, 1) if "1 // 0" in text]
    message = f"Trouble, row {row}: ZeroDivisionError: integer division or modulo by zero ("
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(f"gymnasium_samples.py:{line[0]})")
    if processes == 2:
        assert "ZeroDivisionError" in caught.value.__notes__[0]  # the trace, for whoever debugs
    with pytest.raises(InvalidEnvironment, match="Trouble is closed"):
        steps(env)


def test_an_exception_in_reset_is_one_line():
    with pytest.raises(InvalidEnvironment, match=r"^Trouble, row 0: OSError: no licence left \(.*\)$"):
        GymnasiumEnv(sample("Trouble"), 2, 0, parameters={"what": "reset"}, processes=1)


def test_a_wrong_shape_is_told():
    env, row = trouble("shape", processes=1)
    with pytest.raises(InvalidEnvironment, match=rf"row {row}: ValueError: an observation of shape \(2,\)"):
        steps(env)


def test_a_worker_that_dies_is_told():
    env, row = trouble("exit", processes=2)
    rows = "rows 0 to 1" if row < 2 else "rows 2 to 3"
    with pytest.raises(InvalidEnvironment, match=f"^Trouble, {rows}: the worker process ended with exit code 3$"):
        steps(env)


def test_what_a_worker_prints_is_no_reply(capfd):
    env, _ = trouble("print", processes=2)
    assert steps(env).reward.tolist() == [1, 1, 1, 1]
    env.close()
    told = capfd.readouterr()
    assert "printed by the environment" in told.err and not told.out


def test_workers_do_not_load_ridgeline_or_torch():
    env, row = trouble("modules", processes=2)
    assert steps(env).reward[row] == 0.0
    env.close()


@pytest.mark.parametrize("wrong", [{"num_envs": 0}, {"num_envs": 1.5}, {"num_envs": 1, "processes": 0}])
def test_counts_are_checked(wrong):
    with pytest.raises(ValueError, match="use a whole number from 1"):
        GymnasiumEnv("CartPole-v1", **wrong)


def test_an_unknown_parameter_is_one_line():
    with pytest.raises(InvalidEnvironment, match=r"^CartPole-v1, row 0: TypeError: .*unexpected keyword .*'foo'"):
        GymnasiumEnv("CartPole-v1", 1, parameters={"foo": 1})


@pytest.mark.parametrize("creator, told", [
    ("missing_mujoco", "missing_mujoco: MuJoCo is missing: pip install 'ridgeline[mujoco]'"),
    ("missing_module", "missing_module: the module 'wind_tunnel.blades' is missing: pip install wind_tunnel"),
])  # fmt: skip
def test_a_missing_package_gives_the_line_that_mends_it(creator, told):
    with pytest.raises(InvalidEnvironment) as caught:
        GymnasiumEnv(sample(creator), 1)
    assert str(caught.value) == told


# ------------------------------------------------------------------------------------------------------------ processes


def test_close_ends_the_processes_and_may_be_repeated():
    env = GymnasiumEnv("CartPole-v1", 2, 0, processes=2)
    processes = list(env._workers._processes)
    assert [process.poll() for process in processes] == [None, None]
    env.close()
    assert [process.poll() for process in processes] == [0, 0]
    env.close()


def test_a_forgotten_environment_ends_its_processes():
    env = GymnasiumEnv("CartPole-v1", 2, 0, processes=2)
    processes = list(env._workers._processes)
    del env
    gc.collect()
    assert [process.poll() for process in processes] == [0, 0]


def test_an_interrupt_while_waiting_ends_the_processes(monkeypatch):
    env = GymnasiumEnv("CartPole-v1", 2, 0, processes=2)
    processes = list(env._workers._processes)

    def interrupted(process):
        raise KeyboardInterrupt

    monkeypatch.setattr(ridgeline.workers, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        env.step(np.zeros(2, np.int64))
    assert [process.poll() for process in processes] == [0, 0]


def test_processes_where_a_step_is_slow(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    clock = iter(np.arange(10**6) * 1e-3)
    monkeypatch.setattr(adapter.time, "perf_counter", lambda: next(clock))  # a step lasts 1 ms
    probe = gymnasium.make("CartPole-v1")
    assert adapter._faster_processes(probe, 1) == 1
    assert adapter._faster_processes(probe, 2) == 2
    assert adapter._faster_processes(probe, 64) == 4
    clock = iter(np.arange(10**6) * 1e-5)
    assert adapter._faster_processes(probe, 64) == 1
    assert adapter._faster_processes(probe, 200) == 3


@pytest.mark.parametrize("parameter", ["no pickle", "no module"])
def test_an_environment_that_cannot_travel_stays_here(monkeypatch, parameter):
    monkeypatch.setattr(adapter, "_faster_processes", lambda probe, rows: 2)
    module = types.ModuleType("only_in_this_process")
    exec("class Thing:\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    parameters = {"thing": threading.Lock() if parameter == "no pickle" else module.Thing}
    spec = EnvSpec("Handle", entry_point=lambda thing: gymnasium_samples.Ends())
    env = GymnasiumEnv(spec, 2, 0, parameters=parameters)
    assert env._workers is None and len(env._parts) == 1
    with pytest.raises(InvalidEnvironment, match=r"^Handle cannot be made in a worker process: .*; use processes = 1$"):
        GymnasiumEnv(spec, 2, 0, parameters=parameters, processes=2)


SCRIPT = """
import os, signal, sys
import gymnasium, numpy as np
from gymnasium_samples import Ends
from ridgeline.adapters.gymnasium import GymnasiumEnv

class Mine(Ends):  # of __main__, which has no guard: a notebook's situation
    pass

gymnasium.register("Mine-v0", entry_point=Mine)
env = GymnasiumEnv("Mine-v0", 2, 0, processes=2)
if {signal!r} == "ignored":
    signal.signal(signal.SIGINT, lambda *_: None)
env.step(np.zeros(2, np.int64))
print("ready", *[p.pid for p in env._workers._processes], flush=True)
for line in sys.stdin:
    env.step(np.zeros(2, np.int64))
    print("stepped", flush=True)
while {signal!r} == "loop":
    env.step(np.zeros(2, np.int64))
"""


def start_script(tmp_path, kind):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(signal=kind)))
    folders = [str(Path(ridgeline.workers.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    return subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, text=True, start_new_session=POSIX,
    )  # fmt: skip


def all_ended(script):
    """Standard error of the script, complete when it and its workers, which share it, are gone; and that in time."""
    return script.communicate(timeout=20)[1]


@pytest.mark.skipif(not POSIX, reason="sends signals")
@pytest.mark.parametrize("kind", ["loop", "killed", "ignored"])
def test_workers_end_with_their_parent_and_not_by_ctrl_c(tmp_path, kind):
    script = start_script(tmp_path, kind)
    try:
        ready, *workers = script.stdout.readline().split()
        assert ready == "ready" and len(workers) == 2
        if kind == "ignored":  # a trainer finishes its iteration first
            os.killpg(script.pid, signal.SIGINT)  # as a terminal does
            for worker in workers:
                os.kill(int(worker), signal.SIGTERM)  # as a batch system does
            script.stdin.write("\n")
            script.stdin.flush()
            assert script.stdout.readline() == "stepped\n"
            assert all_ended(script) == ""
            assert script.returncode == 0
        elif kind == "loop":
            script.stdin.close()
            script.stdin = None
            os.killpg(script.pid, signal.SIGINT)
            told = all_ended(script)
            assert told.count("Traceback") == 1 and told.rstrip().endswith("KeyboardInterrupt")
        else:
            script.kill()
            assert all_ended(script) == ""
    finally:
        script.kill()


# -------------------------------------------------------------------------------------------------------------- picture


def test_draw_pastes_the_environments_own_picture():
    env = GymnasiumEnv(sample("Trouble"), 2, 0, render=True)
    canvas = Canvas(6, 4)
    steps(env, 2)
    assert env.draw(1, canvas)
    np.testing.assert_array_equal(canvas.pixels(), np.full((4, 6, 3), 20))


def test_draw_is_false_without_a_picture():
    assert not GymnasiumEnv(sample("Trouble"), 1, 0, processes=1).draw(0, Canvas())  # not asked for
    assert not GymnasiumEnv(sample("Ends"), 1, 0, render=True).draw(0, Canvas())  # it has none
    assert not GymnasiumEnv(vector_only("same_step"), 1, 0, render=True).draw(0, Canvas())


def test_digest_changes_with_the_authors_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "digested_environment.py"
    text = "from gymnasium_samples import Ends\nclass Mine(Ends):\n    pass\n"
    file.write_text(text)
    spec = EnvSpec("Mine", entry_point="digested_environment:Mine")
    first = GymnasiumEnv(spec, 1, processes=1).digest
    assert GymnasiumEnv(spec, 4, 1, processes=1).digest == first
    file.write_text(text + "# edited\n")
    assert GymnasiumEnv(spec, 1, processes=1).digest != first
