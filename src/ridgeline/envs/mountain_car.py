"""Mountain car: an underpowered car in a valley must rock back and forth to reach the flag on the right hill.

Observation
    index  meaning        range
    0      position (m)   -1.2 .. 0.6
    1      velocity       -0.07 .. 0.07 (m per step)
Action: 0 accelerates to the left, 1 not at all, 2 to the right.
Reward: -1 for every step, the last included.
Start: position uniform in -0.6 .. -0.4, at rest.
End: terminated when position >= 0.5 and velocity >= goal_velocity; truncated at 200 steps.
Source: Moore 1990; Gymnasium 1.4 MountainCar-v0.
Differs: random numbers come from the kernel.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import sine_cosine, state_dtype, uniform_between

State = state_dtype(position=np.float64, velocity=np.float64)

MIN_POSITION, MAX_POSITION, GOAL_POSITION = -1.2, 0.6, 0.5
MAX_SPEED = 0.07

observation_space = spaces.Box(
    np.array([MIN_POSITION, -MAX_SPEED], np.float32), np.array([MAX_POSITION, MAX_SPEED], np.float32), dtype=np.float32
)
action_space = spaces.Discrete(3)
max_episode_steps = 200
simd = True


class Parameters(NamedTuple):
    force: float = 0.001
    gravity: float = 0.0025
    goal_velocity: float = 0.0


def reset(state, p):
    state.position = uniform_between(state, -0.6, -0.4)
    state.velocity = 0.0


def step(state, action, p):
    _, cosine = sine_cosine(3 * state.position)
    velocity = state.velocity + ((action - 1) * p.force + cosine * (-p.gravity))
    velocity = min(max(velocity, -MAX_SPEED), MAX_SPEED)
    position = min(max(state.position + velocity, MIN_POSITION), MAX_POSITION)
    if position == MIN_POSITION and velocity < 0.0:
        velocity = 0.0
    state.position = position
    state.velocity = velocity
    return -1.0, position >= GOAL_POSITION and velocity >= p.goal_velocity


def observe(state, observation, p):
    observation[0] = state.position
    observation[1] = state.velocity


canvas_size = (480, 320)
frames_per_second = 30


def draw(state, canvas):
    canvas.world(-1.2, 0.6, 0.0, 1.2)
    canvas.fill((214, 234, 248))
    hill = [(x, 0.55 + 0.45 * math.sin(3 * x)) for x in np.linspace(-1.2, 0.6, 91)]
    canvas.polygon([(-1.2, 0.0), *hill, (0.6, 0.0)], (130, 155, 110))
    top = 0.55 + 0.45 * math.sin(3 * GOAL_POSITION)
    canvas.line(GOAL_POSITION, top, GOAL_POSITION, top + 0.17, (60, 60, 60), 0.008)
    canvas.polygon([(GOAL_POSITION, top + 0.17), (GOAL_POSITION, top + 0.1), (GOAL_POSITION - 0.09, top + 0.135)],
                   (231, 76, 60))  # fmt: skip
    height, slope = 0.55 + 0.45 * math.sin(3 * state.position), math.atan(1.35 * math.cos(3 * state.position))
    along, up = (math.cos(slope), math.sin(slope)), (-math.sin(slope), math.cos(slope))

    def place(x, y):
        return state.position + x * along[0] + y * up[0], height + x * along[1] + y * up[1]

    canvas.polygon([place(-0.065, 0.03), place(-0.065, 0.062), place(-0.035, 0.062), place(-0.02, 0.092),
                    place(0.025, 0.092), place(0.04, 0.062), place(0.065, 0.055), place(0.065, 0.03)],
                   (52, 73, 94))  # fmt: skip
    for x in (-0.036, 0.036):
        canvas.circle(*place(x, 0.026), 0.024, (30, 30, 30))
        canvas.circle(*place(x, 0.026), 0.01, (190, 190, 190))
