"""Arena: players on a line eat or starve; for the tests, with everything that a world of several agents may have.

Observation
    index   meaning                                        range
    image   255 at the own cell, 128 at the food           0 .. 255
    health  steps left to live without food                0 .. 9
    scent   the food's cell minus the own, / size; health / 10   -1 .. 1
Action: (0 stays, 1 goes left, 2 goes right; 1 eats). Eating needs food in the own cell, going a cell to go to.
Reward: 1 for a meal; -1 for the death of a player.
Start: everyone in full health on random cells; food on a random cell.
End: a player's: with its death, after which it comes back in `away` steps. The world's: with `meals` meals; truncated
    at 40 steps.
Source: own.
Differs: -
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype


class Structure(NamedTuple):
    num_players: int = 3
    size: int = 7


class Parameters(NamedTuple):
    life: int = 6
    away: int = 2
    meals: int = 8


def State(structure):
    players = (np.int64, (structure.num_players,))
    return state_dtype(cell=players, health=players, absent=players, eaten=players, food=np.int64, meals=np.int64)


def num_agents(structure):
    return structure.num_players


def observation_space(structure):
    return spaces.Dict({
        "image": spaces.Box(0, 255, (structure.size,), np.uint8),
        "health": spaces.Discrete(10),
        "scent": spaces.Box(-1, 1, (2,), np.float32),
    })  # fmt: skip


action_space = spaces.MultiDiscrete([3, 2])
max_episode_steps = 40
statistics = ("meals", "eaten")


def reset(state, p):
    state.meals = 0
    for agent in range(p.num_players):
        begin(state, agent, p)
    state.food = random_integer(state, p.size)


@compiled
def begin(state, agent, p):
    state.cell[agent] = random_integer(state, p.size)
    state.health[agent] = p.life
    state.absent[agent] = 0
    state.eaten[agent] = 0


def alive(state, agent):
    return state.absent[agent] == 0


def step(state, action, reward, terminated, p):
    for agent in range(p.num_players):
        if state.absent[agent] > 0:
            state.absent[agent] -= 1
            if state.absent[agent] == 0:
                begin(state, agent, p)
            continue
        move = action[agent, 0]
        if move == 1:
            state.cell[agent] = max(state.cell[agent] - 1, 0)
        elif move == 2:
            state.cell[agent] = min(state.cell[agent] + 1, p.size - 1)
        state.health[agent] -= 1
        if action[agent, 1] == 1 and state.cell[agent] == state.food:
            state.health[agent] = p.life
            state.eaten[agent] += 1
            state.meals += 1
            reward[agent] += 1.0
            state.food = random_integer(state, p.size)
        if state.health[agent] == 0:
            state.absent[agent] = p.away
            terminated[agent] = True
            for other in range(p.num_players):  # the absent as well: the kernel drops it
                reward[other] -= 1.0
    return state.meals >= p.meals


def observe(state, agent, observation, p):
    for cell in range(p.size):
        observation.image[cell] = 255 if cell == state.cell[agent] else (128 if cell == state.food else 0)
    observation.health = state.health[agent]
    observation.scent[0] = (state.food - state.cell[agent]) / p.size
    observation.scent[1] = state.health[agent] / 10


def action_mask(state, agent, mask, p):
    mask[0] = 1
    mask[1] = state.cell[agent] > 0
    mask[2] = state.cell[agent] < p.size - 1
    mask[3] = 1
    mask[4] = abs(state.cell[agent] - state.food) <= 1


def draw(state, canvas):
    size = len(state.cell)
    canvas.world(0, 10, 0, size)
    canvas.rectangle(state.food, 0, state.food + 1, size, (40, 200, 40))
    for agent in range(size):
        canvas.circle(state.cell[agent] + 0.5, agent + 0.5, 0.4, (230, 40 * int(state.health[agent]), 40))
