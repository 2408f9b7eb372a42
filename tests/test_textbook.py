"""The textbook three against what is known exactly about them (Sutton & Barto 2018)."""

import math
from pathlib import Path

import numpy as np
import pytest

import ridgeline.kernel
from ridgeline.kernel import define, plain
from ridgeline.vector import CompiledEnv

ENVIRONMENTS = Path(ridgeline.kernel.__file__).with_name("envs")


def make(name: str, num_envs: int, parameters: dict[str, float] | None = None) -> CompiledEnv:
    return CompiledEnv(define(ENVIRONMENTS / f"{name}.py"), num_envs, seed=0, parameters=parameters)


def mean_return(env: CompiledEnv, num_steps: int, choose) -> tuple[float, float]:
    """Mean and standard error of the return over the first 4 episodes of every row: no bias towards short ones."""
    count, found = np.zeros(env.num_rows, int), []
    for _ in range(num_steps):
        step = env.step(choose(env))
        early = count[step.episode_row] < 4
        found.append(step.episode[early, 0].copy())
        count[step.episode_row] += 1
    assert (count >= 4).all(), "episodes are missing"
    found = np.concatenate(found)
    return found.mean(), found.std() / math.sqrt(len(found))


def test_short_corridor_transitions():
    definition = define(ENVIRONMENTS / "short_corridor.py")
    step, state = plain(definition.module.step), np.zeros(1, definition.state_dtype).view(np.recarray)
    right, left = 0, 1
    table = {(0, right): 1, (0, left): 0, (1, right): 0, (1, left): 2, (2, right): 3, (2, left): 1}
    for (position, action), following in table.items():
        state[0].position = position
        assert step(state[0], action, definition.parameters) == (-1.0, following == 3)
        assert state[0].position == following


@pytest.mark.parametrize("q", [0.05, 0.5, 2 - math.sqrt(2), 0.95])
def test_short_corridor_value_of_the_start(q):
    """-(4 - 2 q) / (q (1 - q)): -82.1, -12, -11.6569, -44.2."""
    generator = np.random.default_rng(1)
    mean, error = mean_return(
        make("short_corridor", 2000), 1600, lambda env: (generator.random(env.num_rows) >= q).astype(np.int64)
    )
    expected = -(4 - 2 * q) / (q * (1 - q))
    assert error < 0.015 * abs(expected)
    assert abs(mean - expected) < 4 * error


@pytest.mark.parametrize("action", [0, 1])
def test_random_walk_values_do_not_depend_on_the_action(action):
    """v(i) = (i - 9) / 10 from every state, and 100 steps on average from the middle."""
    env = make("random_walk", 19 * 400)
    start = np.tile(np.arange(19), 400)
    env.state.position = start
    returned, length, running = np.zeros(env.num_rows), np.zeros(env.num_rows), np.ones(env.num_rows, bool)
    while running.any():
        step = env.step(np.full(env.num_rows, action))
        returned += step.reward * running
        length += running
        running &= ~step.terminated
    for position in range(19):
        value = (position - 9) / 10
        error = math.sqrt((1 - value * value) / 400)
        assert abs(returned[start == position].mean() - value) < 4 * error
    assert set(returned.tolist()) == {-1.0, 1.0}
    assert abs(length[start == 9].mean() - 100) < 4 * length[start == 9].std() / 20


def test_random_walk_under_control():
    env = make("random_walk", 3, {"control": 1.0})
    for length in range(1, 11):
        step = env.step(np.ones(3, np.int64))
        assert step.terminated.all() == (length == 10)
    np.testing.assert_array_equal(step.episode, [[1.0, 10.0]] * 3)


def test_bandit_pays_its_values_with_unit_noise():
    env, generator = make("bandit", 20_000), np.random.default_rng(0)
    values = np.array(env.definition.module.VALUES)
    action = generator.integers(0, 10, env.num_rows)
    step = env.step(action)
    assert step.terminated.all() and not step.truncated.any()
    assert abs((step.reward - values[action]).mean()) < 4 / math.sqrt(env.num_rows)
    assert abs((step.reward - values[action]).std() - 1) < 4 / math.sqrt(2 * env.num_rows)
    for arm in range(10):
        reward = step.reward[action == arm]
        assert abs(reward.mean() - values[arm]) < 4 / math.sqrt(len(reward))


def test_bandit_parameters():
    env = make("bandit", 10, {"shift": 4.0, "noise": 0.0})
    step = env.step(np.arange(10))
    np.testing.assert_allclose(step.reward, np.array(env.definition.module.VALUES) + 4.0, rtol=1e-15)
