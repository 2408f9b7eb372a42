"""Corridor: walk to the goal at the far end; every step costs, and nothing else says that the goal is near.

Observation
    index  meaning                                range
    0      place, -1 at the start, 1 at the goal  -1 .. 1
Action: 0 left, 1 right.
Reward: -1 for every step, the last included. Best return: -length; random play: -286.2 for a length of 20, where 39% of
    the episodes meet the limit.
Start: the left end, which is a wall.
End: terminated at the goal, `length` places to the right; truncated at 400 steps. A policy that rarely arrives meets
    the limit, and sees rewards that are all alike.
Parameters: length.
Source: the cost of 1 per step until a goal of Sutton & Barto 2018, section 3.4, in a row of places.
Differs: the time limit.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype

State = state_dtype(place=np.int64)

observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 400


class Parameters(NamedTuple):
    length: int = 20


def reset(state, p):
    state.place = 0


def step(state, action, p):
    state.place = max(state.place + 2 * action - 1, 0)
    return -1.0, state.place >= p.length


def observe(state, observation, p):
    observation[0] = 2.0 * state.place / p.length - 1.0


canvas_size = (560, 70)
frames_per_second = 10


def draw(state, canvas):
    canvas.world(-1.0, 21.0, -1.375, 1.375)
    canvas.fill((250, 250, 247))
    canvas.rectangle(-0.5, -0.5, 20.5, 0.5, (230, 232, 235))
    canvas.rectangle(19.5, -0.5, 20.5, 0.5, (169, 223, 191))
    canvas.circle(state.place, 0.0, 0.4, (52, 73, 94))
