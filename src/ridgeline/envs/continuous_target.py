"""Continuous target: one number must hit the number that is shown.

Observation
    index  meaning       range
    0      the target    -1 .. 1
Action: a number, clipped to -1 .. 1.
Reward: 1 - |action - target| / width, and 0 beyond `width`. Best mean return: 1. Uniformly random play:
    width / 2 - width ** 2 / 12, which is 11/48 = 0.2292 for the default. The best constant action, 0, with a width up
    to 1: width / 2. A Gaussian policy of standard deviation s that aims well gets 1 - 0.798 s / width for small s.
Start: the target uniform in -1 .. 1.
End: terminated after one step.
Parameters: width (above 0, at most 2).
Source: the one-step continuous question of PufferLib's tests ("continuous"), in its simplest form.
Differs: own rules.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype, uniform_between

State = state_dtype(
    target=np.float64,
    aim=np.float64,  # the last action and the target that it was for: for the picture only, kept over resets
    past=np.float64,
)

observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Parameters(NamedTuple):
    width: float = 0.5


def reset(state, p):
    state.target = uniform_between(state, -1.0, 1.0)


def step(state, action, p):
    state.aim = min(max(np.float64(action[0]), -1.0), 1.0)
    state.past = state.target
    return max(1.0 - abs(state.aim - state.target) / p.width, 0.0), True


def observe(state, observation, p):
    observation[0] = state.target


canvas_size = (560, 160)
frames_per_second = 2


def draw(state, canvas):
    canvas.world(-1.12, 1.12, -0.32, 0.32)
    canvas.fill((250, 250, 247))
    for y, target, colour in ((0.14, state.past, (200, 205, 210)), (-0.14, state.target, (52, 152, 219))):
        canvas.line(-1.0, y, 1.0, y, (120, 120, 120), 0.008)
        canvas.circle(target, y, 0.06, colour)
        canvas.circle(target, y, 0.03, (250, 250, 247))
    canvas.line(state.aim, 0.06, state.aim, 0.22, (192, 57, 43), 0.015)
