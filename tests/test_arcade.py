"""Arcade games of our own: every rule by hand, a scripted player that reaches the stated maximum, random play."""

import numpy as np
import pytest

from ridgeline.environments import make

# ---------------------------------------------------------------------------------------------------------------- snake

RIGHT, UP, LEFT, DOWN = range(4)


def snake(body, food=None, **structure):
    """One snake whose cells (x, y) are given from the head; empty elsewhere but for food at (x, y)."""
    env = make("snake", 1, 0, parameters=structure)
    p, side = env.parameters, env.parameters.size + 2 * env.parameters.vision  # type: ignore[attr-defined]
    cells = env.state.cell.reshape(side, side)  # type: ignore[attr-defined]
    inner = cells[p.vision : p.vision + p.size, p.vision : p.vision + p.size]
    inner[:] = 0
    for i, (x, y) in enumerate(body):
        env.state.body[0, 0, len(body) - 1 - i] = (p.vision + y) * side + p.vision + x  # type: ignore[attr-defined]
        inner[y, x] = -1
    env.state.head[0, 0], env.state.length[0, 0] = len(body) - 1, len(body)  # type: ignore[attr-defined]
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


def test_snake_optimum_fills_the_world():
    env, path = make("snake", 8, 0), closed_path(8)
    total, length = np.full(8, np.nan), np.zeros(8)
    side, vision = 18, 5
    for _ in range(4000):
        cell = env.state.body[np.arange(8), 0, env.state.head[:, 0]]  # type: ignore[attr-defined]
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
    env = make("snake", 2, 0, parameters={"num_snakes": 12, "size": 12, "num_food": 9, "vision": 2})
    generator, died = np.random.default_rng(0), 0
    for _ in range(400):
        length = env.state.length.copy()  # type: ignore[attr-defined]
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
    assert died > 500
    env = make("snake", 1, 0, parameters={"num_snakes": 2, "num_food": 0, "vision": 1})
    env.state.cell.reshape(10, 10)[1:9, 1:9] = 0
    env.state.body[0, :, 0] = [33, 35]  # two cells apart in one row, and both want the one between
    env.state.cell[0, [33, 35]] = -1
    step = env.step(np.array([RIGHT, LEFT]))
    assert step.reward.tolist() == [0, -1] and step.terminated.tolist() == [False, True]
    assert env.state.body[0, 0, env.state.head[0, 0]] == 34 and env.state.cell[0, 33] == 0


# --------------------------------------------------------------------------------------------------------------- spaces


def test_spaces_answers_by_its_parts():
    from ridgeline.observations import unpack

    env, generator = make("spaces", 2000, 0), np.random.default_rng(0)
    for half in (False, True):
        parts = unpack(env.observation_space, env.observation)
        answer = np.stack([parts["image"].sum((1, 2)) > 0, parts["bits"].sum(1) > 2], 1).astype(np.int64)
        if half:  # only the image is looked at
            answer[:, 1] = generator.integers(0, 2, 2000)
        reward = env.step(answer).reward
        assert (reward == 1).all() if not half else abs(reward.mean() - 0.75) < 4 * 0.25 / np.sqrt(2000)
    assert abs(env.step(generator.integers(0, 2, (2000, 2))).reward.mean() - 0.5) < 4 * np.sqrt(0.125 / 2000)
