"""Snake: eat, grow, and hit neither the wall nor a snake; one snake alone, or many in one world.

Observation
    index  meaning                                                                           range
    0 ...  (2 vision + 1)^2 cells around the head, from the lowest row upwards, each from
           the left: 1 food, -1 what kills (walls, every snake, the own head in the middle)   -1, 0 or 1
    last   (length - 1) / (max_length - 1)                                                    0 .. 1
Action: 0 right, 1 up, 2 left, 3 down.
Reward: 1 for food, -1 for a death.
    One snake on the default 8 x 8 cells: the optimum is 63, a snake that fills the world (a scripted one that follows a
    closed path through all cells reaches it). Random play: -0.87 (measured).
Start: each snake one cell long, on a random empty cell; the food on others.
End: a snake's: terminated by its death; in a world of several it begins anew at once, elsewhere, and the world goes on.
    The world's: terminated when a snake is alone and dies or has filled it; truncated at 4,000 steps.
Physics: snakes move one after the other in the order of their numbers. A snake that does not eat first leaves the last
    of its cells, so that it may follow its own tail; one of `max_length` cells eats and does not grow. A dead snake's
    cells are empty. What is eaten grows again on a random empty cell, where there is one.
Structure: num_snakes, size (the world has size x size cells), num_food, vision, max_length.
Source: Blockade (Gremlin 1976). Many snakes in one world with local views: PufferLib's snake (Suarez 2024).
Differs: PufferLib's dead snakes leave food, and its observation tells the snakes apart.
Version: 1
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, copy_row, random_integer, state_dtype

EMPTY, FOOD, DEADLY = np.int8(0), np.int8(1), np.int8(-1)
MOVE_X, MOVE_Y = (1, 0, -1, 0), (0, 1, 0, -1)
TRIES = 8  # random cells that are tried before the empty ones are counted


class Structure(NamedTuple):
    num_snakes: int = 1
    size: int = 8
    num_food: int = 1
    vision: int = 5
    max_length: int = 64


def State(structure):
    snakes, side = (np.int32, (structure.num_snakes,)), structure.size + 2 * structure.vision
    return state_dtype(
        cell=(np.int8, (side * side,)),  # row by row, with a margin of walls as wide as the view
        body=(np.int32, (structure.num_snakes, structure.max_length)),  # rings of cells: `head` is the head's place
        head=snakes, length=snakes,
    )  # fmt: skip


def num_agents(structure):
    return structure.num_snakes


def observation_space(structure):
    return spaces.Box(-1.0, 1.0, ((2 * structure.vision + 1) ** 2 + 1,), np.float32)


action_space = spaces.Discrete(4)
max_episode_steps = 4_000


def reset(state, p):
    state.cell[:] = DEADLY
    for row in range(p.size):
        first = inside(row * p.size, p)
        for cell in range(first, first + p.size):
            state.cell[cell] = EMPTY
    for agent in range(p.num_snakes):
        begin(state, agent, p)
    for _ in range(p.num_food):
        cell = empty_cell(state, p)
        if cell >= 0:
            state.cell[cell] = FOOD


@compiled
def inside(place, p):
    """The cell of one of the size x size places within the walls."""
    return (p.vision + place // p.size) * (p.size + 2 * p.vision) + p.vision + place % p.size


@compiled
def begin(state, agent, p):
    """A snake of one cell; where none is empty, one without a cell, which dies with its next move."""
    cell = empty_cell(state, p)
    state.head[agent] = 0
    state.length[agent] = 1 if cell >= 0 else 0
    state.body[agent, 0] = cell if cell >= 0 else inside(0, p)
    if cell >= 0:
        state.cell[cell] = DEADLY


@compiled
def empty_cell(state, p):
    """An empty cell, all alike; -1 where there is none."""
    for _ in range(TRIES):
        cell = inside(random_integer(state, p.size * p.size), p)
        if state.cell[cell] == EMPTY:
            return cell
    count = 0
    for place in range(p.size * p.size):
        count += state.cell[inside(place, p)] == EMPTY
    left = random_integer(state, count) if count > 0 else -1
    for place in range(p.size * p.size):
        cell = inside(place, p)
        if state.cell[cell] == EMPTY:
            if left == 0:
                return cell
            left -= 1
    return -1


def step(state, action, reward, terminated, p):
    side = p.size + 2 * p.vision
    for agent in range(p.num_snakes):
        head, length = state.head[agent], state.length[agent]
        cell = state.body[agent, head] + MOVE_X[action[agent]] + MOVE_Y[action[agent]] * side
        eats = state.cell[cell] == FOOD
        if length > 0 and (not eats or length == p.max_length):
            tail = head - length + 1
            state.cell[state.body[agent, tail if tail >= 0 else tail + p.max_length]] = EMPTY
            length -= 1
        if state.length[agent] == 0 or state.cell[cell] == DEADLY:
            for i in range(length):
                state.cell[state.body[agent, (head - i) % p.max_length]] = EMPTY
            reward[agent] = -1.0
            terminated[agent] = True
            if p.num_snakes == 1:
                return True
            continue
        head = head + 1 if head + 1 < p.max_length else 0
        state.head[agent] = head
        state.length[agent] = length + 1
        state.body[agent, head] = cell
        state.cell[cell] = DEADLY
        if eats:
            reward[agent] = 1.0
            food = empty_cell(state, p)
            if food >= 0:
                state.cell[food] = FOOD
            elif p.num_snakes == 1:
                return True
    if p.num_snakes > 1:
        for agent in range(p.num_snakes):
            if terminated[agent]:
                begin(state, agent, p)
    return False


def observe(state, agent, observation, p):
    wide, side = 2 * p.vision + 1, p.size + 2 * p.vision
    first = state.body[agent, state.head[agent]] - p.vision * (side + 1)
    for i in range(wide):
        copy_row(observation, i * wide, state.cell, first + i * side, wide)
    observation[wide * wide] = (state.length[agent] - 1) / max(p.max_length - 1, 1)


canvas_size = (360, 360)
frames_per_second = 10
COLOURS = ((46, 134, 87), (41, 98, 180), (155, 89, 182), (214, 120, 30), (22, 160, 133), (127, 140, 141))


def draw(state, canvas):
    side, (snakes, max_length) = round(len(state.cell) ** 0.5), state.body.shape
    cell = state.cell.reshape(side, side)
    margin = next(i for i in range(side) if (cell[i] != DEADLY).any() or i == side // 2)
    canvas.world(margin - 0.5, side - margin - 0.5, margin - 0.5, side - margin - 0.5)
    canvas.fill((245, 245, 240))
    for y, x in np.argwhere(cell == FOOD):
        canvas.circle(x, y, 0.3, (214, 64, 50))
    for agent in range(snakes):
        head, length = int(state.head[agent]), int(state.length[agent])
        body = [int(state.body[agent, (head - i) % max_length]) for i in range(length)]
        places = [(part % side, part // side) for part in body]
        for (x0, y0), (x1, y1) in pairwise(places):
            canvas.line(x0, y0, x1, y1, COLOURS[agent % len(COLOURS)], 0.7)
        for x, y in places[:1]:
            canvas.circle(x, y, 0.45, COLOURS[agent % len(COLOURS)])
            canvas.circle(x, y, 0.15, (250, 250, 247))
