"""Mountain car with a continuous force: reach the flag on the right hill while spending little effort.

Observation
    index  meaning        range
    0      position (m)   -1.2 .. 0.6
    1      velocity       -0.07 .. 0.07 (m per step)
Action: the force, clipped to -1 .. 1.
Reward: -0.1 action^2 (of the unclipped action) for every step, and 100 for the one that reaches the goal.
Start: position uniform in -0.6 .. -0.4, at rest.
End: terminated when position >= 0.45 and velocity >= goal_velocity; truncated at 999 steps.
Source: Moore 1990; Gymnasium 1.4 MountainCarContinuous-v0.
Differs: random numbers come from the kernel. As in Gymnasium the state is rounded to float32 after every step and an
    unclipped force acts in the action's own precision; the rest is float64, where Gymnasium's is float32 from the
    second step of an episode on.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import sine_cosine, state_dtype, uniform_between

State = state_dtype(position=np.float64, velocity=np.float64)

MIN_POSITION, MAX_POSITION, GOAL_POSITION = -1.2, 0.6, 0.45
MAX_SPEED = 0.07

observation_space = spaces.Box(
    np.array([MIN_POSITION, -MAX_SPEED], np.float32), np.array([MAX_POSITION, MAX_SPEED], np.float32), dtype=np.float32
)
action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
max_episode_steps = 999
simd = True


class Parameters(NamedTuple):
    power: float = 0.0015
    gravity: float = 0.0025
    goal_velocity: float = 0.0


def reset(state, p):
    state.position = uniform_between(state, -0.6, -0.4)
    state.velocity = 0.0


def step(state, action, p):
    number = action.dtype.type
    _, cosine = sine_cosine(3 * state.position)
    pull = p.gravity * cosine
    if abs(action[0]) <= 1.0:
        acceleration = np.float64(action[0] * number(p.power) - number(pull))
    else:
        acceleration = math.copysign(1.0, action[0]) * p.power - pull
    velocity = min(max(state.velocity + acceleration, -MAX_SPEED), MAX_SPEED)
    position = min(max(state.position + velocity, MIN_POSITION), MAX_POSITION)
    if position == MIN_POSITION and velocity < 0.0:
        velocity = 0.0
    terminated = position >= GOAL_POSITION and velocity >= p.goal_velocity
    state.position = np.float32(position)
    state.velocity = np.float32(velocity)
    effort = np.float64(action[0])
    return (100.0 if terminated else 0.0) - effort * effort * 0.1, terminated


def observe(state, observation, p):
    observation[0] = state.position
    observation[1] = state.velocity


canvas_size = (480, 320)
frames_per_second = 30


def draw(state, canvas):
    canvas.world(-1.2, 0.6, 0.0, 1.2)
    canvas.fill((253, 235, 208))
    hill = [(x, 0.55 + 0.45 * math.sin(3 * x)) for x in np.linspace(-1.2, 0.6, 91)]
    canvas.polygon([(-1.2, 0.0), *hill, (0.6, 0.0)], (165, 140, 105))
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
                   (146, 43, 33))  # fmt: skip
    for x in (-0.036, 0.036):
        canvas.circle(*place(x, 0.026), 0.024, (30, 30, 30))
        canvas.circle(*place(x, 0.026), 0.01, (190, 190, 190))
