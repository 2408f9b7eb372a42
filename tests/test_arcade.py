"""Arcade games of our own: every rule by hand, a scripted player that reaches the stated maximum, random play."""

import numpy as np
import pytest
from games import FOLDER

from ridgeline.kernel import define
from ridgeline.observations import unpack
from ridgeline.vector import CompiledEnv


def make(name, num_envs, seed=0, parameters=None):
    return CompiledEnv(define(FOLDER / f"{name}.py"), num_envs, seed, parameters=parameters)


def make_plain(name, num_envs, **parameters):
    """In plain Python: another structure need not be compiled."""
    return CompiledEnv(define(FOLDER / f"{name}.py", compile=False, parameters=parameters), num_envs, 0)


# ---------------------------------------------------------------------------------------------------------------- snake

RIGHT, UP, LEFT, DOWN = range(4)


def snake(body, food=None, **structure):
    """One snake whose cells (x, y) are given from the head; empty elsewhere but for food at (x, y)."""
    env = make_plain("snake", 1, **structure)
    p, side = env.parameters, env.parameters.size + 2 * env.parameters.vision
    cells = env.state.cell.reshape(side, side)
    inner = cells[p.vision : p.vision + p.size, p.vision : p.vision + p.size]
    inner[:] = 0
    for i, (x, y) in enumerate(body):
        env.state.body[0, 0, len(body) - 1 - i] = (p.vision + y) * side + p.vision + x
        inner[y, x] = -1
    env.state.head[0, 0], env.state.length[0, 0] = len(body) - 1, len(body)
    if food is not None:
        inner[food[1], food[0]] = 1
    return env, inner


def go(env, action):
    step = env.step(np.array([action]))
    return step.reward[0], bool(step.terminated[0])


def test_snake_moves_eats_and_dies():
    env, cells = snake([(2, 2), (1, 2), (0, 2)], food=(2, 3))
    assert go(env, RIGHT) == (0, False) and cells[2].tolist() == [0, -1, -1, -1, 0, 0, 0, 0]
    assert go(env, UP) == (0, False) and cells[3, 3] == -1 and cells[2, 1] == 0
    assert go(env, LEFT) == (1, False) and env.state.length[0, 0] == 4 and (cells == -1).sum() == 4
    assert (cells == 1).sum() == 1  # new food
    env, cells = snake([(0, 0), (1, 0), (1, 1), (0, 1)])
    assert go(env, UP) == (0, False)  # after its own tail
    assert go(env, RIGHT) == (0, False)
    env, cells = snake([(0, 0), (1, 0), (1, 1), (0, 1), (0, 2)])
    assert go(env, UP) == (-1, True)  # into itself
    for action, place in ((LEFT, (0, 3)), (RIGHT, (7, 3)), (UP, (3, 7)), (DOWN, (3, 0))):
        env, _ = snake([place])
        assert go(env, action) == (-1, True)
        assert env.state.length[0, 0] == 1  # a new snake


def test_snake_sees_the_cells_around_its_head():
    env, _ = snake([(1, 0), (0, 0), (0, 1)], food=(2, 2), vision=2)
    env.step(np.array([RIGHT]))
    view = env.observation[0, :25].reshape(5, 5)  # around (2, 0)
    assert view.tolist() == [[-1] * 5, [-1] * 5, [-1, -1, -1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert env.observation[0, 25] == pytest.approx(2 / 63)


def closed_path(size):
    """The action of each cell along a path through all cells of an even square, and back."""
    action = np.zeros((size, size), np.int64)
    for y in range(size):
        for x in range(1, size):
            action[y, x] = (RIGHT if x < size - 1 else UP) if y % 2 == 0 else (LEFT if x > 1 else UP)
        action[y, 0] = DOWN
    action[size - 1, 1:], action[0, 0] = LEFT, RIGHT
    return action


@pytest.mark.slow
def test_snake_optimum_fills_the_world():
    env, path = make("snake", 8, 0), closed_path(8)
    total, length = np.full(8, np.nan), np.zeros(8)
    side, vision = 18, 5
    for _ in range(4000):
        cell = env.state.body[np.arange(8), 0, env.state.head[:, 0]]
        step = env.step(path[cell // side - vision, cell % side - vision])
        for row, episode in zip(step.episode_row, step.episode, strict=True):
            if np.isnan(total[row]):
                total[row], length[row] = episode
    assert (total == 63).all() and length.max() < 4000


def test_snake_random_play():
    env, generator = make("snake", 1000, 0), np.random.default_rng(0)
    returns = np.concatenate([env.step(generator.integers(0, 4, 1000)).episode[:, 0] for _ in range(200)])
    assert returns.mean() == pytest.approx(-0.875, abs=0.02)


def test_many_snakes_in_one_world():
    """Bodies are apart and are what the cells say, food stays as much, the dead begin anew; two meet by hand."""
    env = make_plain("snake", 2, num_snakes=12, size=12, num_food=9, vision=2)
    generator, died = np.random.default_rng(0), 0
    for _ in range(150):
        length = env.state.length.copy()
        step = env.step(generator.integers(0, 4, 24))
        ended = step.terminated.reshape(2, 12)
        died += ended.sum()
        assert (step.reward.reshape(2, 12)[ended] == -1).all()
        state = env.state
        assert (state.length - length)[~ended].tolist() == step.reward.reshape(2, 12)[~ended].tolist()
        for world in state:
            rings = [
                world.body[agent, (world.head[agent] - np.arange(world.length[agent])) % 64] for agent in range(12)
            ]
            cells = np.concatenate(rings)
            assert len(np.unique(cells)) == len(cells) and (world.cell[cells] == -1).all()
            assert (world.cell == 1).sum() == 9
            inner = world.cell.reshape(16, 16)[2:14, 2:14]
            assert (inner == -1).sum() == len(cells)
    assert died > 200
    env = make_plain("snake", 1, num_snakes=2, num_food=0, vision=1)
    env.state.cell.reshape(10, 10)[1:9, 1:9] = 0
    env.state.body[0, :, 0] = [33, 35]  # two cells apart in one row, and both want the one between
    env.state.cell[0, [33, 35]] = -1
    step = env.step(np.array([RIGHT, LEFT]))
    assert step.reward.tolist() == [0, -1] and step.terminated.tolist() == [False, True]
    assert env.state.body[0, 0, env.state.head[0, 0]] == 34 and env.state.cell[0, 33] == 0


# --------------------------------------------------------------------------------------------------------------- spaces


def test_spaces_answers_by_its_parts():
    env, generator = make("spaces", 2000, 0), np.random.default_rng(0)
    for half in (False, True):
        parts = unpack(env.observation_space, env.observation)
        answer = np.stack([parts["image"].sum((1, 2)) > 0, parts["bits"].sum(1) > 2], 1).astype(np.int64)
        if half:  # only the image is looked at
            answer[:, 1] = generator.integers(0, 2, 2000)
        reward = env.step(answer).reward
        assert (reward == 1).all() if not half else abs(reward.mean() - 0.75) < 4 * 0.25 / np.sqrt(2000)
    assert abs(env.step(generator.integers(0, 2, (2000, 2))).reward.mean() - 0.5) < 4 * np.sqrt(0.125 / 2000)


# -------------------------------------------------------------------------------------------------------------- freeway


def best_plan(x, velocity, length, throw=8):
    """(the most crossings in `length` steps, the action of each step and height): dynamic programming, backwards.

    A throw costs `throw` steps and as many quarters, which nothing but the floor shortens: one jump in time.
    """
    x, at = x.copy(), np.zeros((length, 10))
    for t in range(length):
        x += velocity
        x = np.where(x >= 16, x - 16, np.where(x < 0, x + 16, x))
        at[t] = x
    danger = np.zeros((length, 45), bool)
    for lane in range(1, 11):
        for quarter in (4 * lane - 1, 4 * lane, 4 * lane + 1):
            danger[:, quarter] = abs(at[:, lane - 1] - 8) < 1.1
    value = np.zeros((length + throw + 2, 44))
    plan = np.zeros((length, 44), np.int64)
    height = np.arange(44)
    for t in range(length - 1, -1, -1):
        options = []
        for after in (height, height + 1, np.maximum(height - 1, 0)):
            there = np.minimum(after, 43)
            thrown = value[min(t + 1 + throw, length), np.maximum(there - throw, 0)]
            goes_on = np.where(danger[t, np.minimum(after, 44)], thrown, value[t + 1, there])
            options.append(np.where(after == 44, 1 + value[t + 1, 0], goes_on))
        plan[t], value[t] = np.argmax(options, 0), np.max(options, 0)
    return value[0, 0], plan


@pytest.mark.slow
def test_freeway_optimum_is_reached():
    """The plan that dynamic programming finds from the cars alone earns in the game exactly what it foretells."""
    env = make("freeway", 4, 0)
    found = [best_plan(env.state.x[i], env.state.velocity[i], 1000) for i in range(4)]
    total = np.zeros(4)
    for t in range(1000):
        height = env.state.height
        total += env.step(np.array([plan[t, height[i]] for i, (_, plan) in enumerate(found)])).reward
    assert total.tolist() == [value for value, _ in found]
    assert 14 <= total.min() <= total.mean() <= 20  # 17.66 (0.05) of 300 starts


def test_freeway_hits_throw_back():
    env = make("freeway", 1, 0)
    state = env.state
    state.velocity[0, :], state.x[0, :] = 0.1, 0.0
    state.x[0, 2] = 8.0
    state.height[0] = 10  # between lanes 2 and 3: safe
    env.step(np.array([0]))
    assert state.thrown[0] == 0 and state.height[0] == 10
    env.step(np.array([1]))
    assert (state.thrown[0], state.height[0], state.hits[0]) == (8, 11, 1)
    for _ in range(8):
        env.step(np.array([1]))
    assert (state.thrown[0], state.height[0]) == (0, 3)
    state.x[0, 0] = 6.75  # moves to 6.85, 1.15 away
    env.step(np.array([1]))
    assert state.thrown[0] == 0
    env.step(np.array([0]))
    assert state.thrown[0] == 8
    state.thrown[0], state.height[0] = 0, 43
    step = env.step(np.array([1]))
    assert step.reward[0] == 1 and state.height[0] == 0


def test_freeway_random_play_crosses_nothing():
    env, generator = make("freeway", 200, 0), np.random.default_rng(0)
    assert sum(env.step(generator.integers(0, 3, 200)).reward.sum() for _ in range(1000)) <= 2


# ------------------------------------------------------------------------------------------------------ space invaders


class Gunner:
    """Shoots where copies of the game say that the shot will hit, goes to the nearest such place, evades theirs."""

    def __init__(self, env):
        self.env = env
        self.places = np.arange(4, 94, 2)
        self.copies = make("space_invaders", len(self.places), 0, {"fire": 0.0})

    def __call__(self):
        return np.array([self.choose(state) for state in self.env.state])

    def choose(self, state):
        falling = [(x, y) for x, y in zip(state.fall_x, state.fall_y, strict=True) if y > 0]
        x = state.x
        target = self.target(state) if state.shot_y == 0 else x
        wanted = 0 if abs(target - x) < 2 else (1 if target < x else 2)
        moves = [(self.danger(x + way, falling), action != wanted, action) for action, way in ((0, 0), (1, -2), (2, 2))]
        action = min(moves)[2]
        return 3 if action == 0 and state.shot_y == 0 and target == x else action

    @staticmethod
    def danger(x, falling):
        """How soon a shot will be here, if it can no longer be left in time."""
        if not 3 <= x <= 93:
            return 100.0
        worst = 0.0
        for a, b in falling:
            steps = max(b - 5, 0)  # until it is as low as the player
            overlap = 4 - abs(a - x)
            if overlap > 0 and 2 * steps < 2 * overlap + 8:
                worst = max(worst, 10.0 - steps + overlap)
        return worst

    def target(self, state):
        copies = self.copies
        copies.state[:] = state
        copies.state.x[:], copies.state.fall_y[:] = self.places + state.x % 2, 0
        reward = copies.step(np.full(len(self.places), 3)).reward.copy()
        for _ in range(20):
            reward += copies.step(np.zeros(len(self.places), np.int64)).reward
        hits = (self.places + state.x % 2)[reward > 0]
        return hits[abs(hits - state.x).argmin()] if len(hits) else 48 + state.x % 2


@pytest.mark.slow
def test_space_invaders_optimum():
    env = make("space_invaders", 6, 0)
    player, returns = Gunner(env), np.full(6, np.nan)
    for _ in range(3000):
        step = env.step(player())
        for row, episode in zip(step.episode_row, step.episode, strict=True):
            if np.isnan(returns[row]):
                returns[row] = episode[0]
        if not np.isnan(returns).any():
            break
    assert returns.tolist() == [40] * 6
