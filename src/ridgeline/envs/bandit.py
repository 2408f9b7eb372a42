"""Ten-armed bandit: one pull of one arm, and the noisy reward that it gives.

Observation
    index  meaning     range
    0      always 1    1
Action: 0 .. 9, the arm to pull.
Reward: the arm's value plus `shift`, with normal noise of standard deviation `noise`.
Start: nothing to start.
End: terminated after one step.
Source: Sutton & Barto 2018, sections 2.3 and 2.8: the values are read off the example problem of figure 2.1, the noise
    has unit variance. `shift` = 4 is the setting of figure 2.5, where a baseline matters.
Differs: the ten values are the same in every instance. The book draws them anew from N(0, 1) for each of its 2,000
    problems and learns each apart; here many rows share one policy, which could not tell their problems apart.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import standard_normal, state_dtype

State = state_dtype(
    arm=np.int64,  # 1 + the arm pulled last, 0 before the first pull: for the picture only, kept over resets
    reward=np.float64,
)

VALUES = (0.2, -0.8, 1.55, 0.4, 1.2, -1.5, -0.15, -1.0, 0.85, -0.5)

observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(10)


class Parameters(NamedTuple):
    shift: float = 0.0
    noise: float = 1.0


def reset(state, p):
    pass


def step(state, action, p):
    state.arm = action + 1
    state.reward = VALUES[action] + p.shift + p.noise * standard_normal(state)
    return state.reward, True


def observe(state, observation, p):
    observation[0] = 1.0


canvas_size = (560, 300)
frames_per_second = 2


def draw(state, canvas):
    canvas.world(-0.7, 9.7, -5.0, 5.0)
    canvas.fill((250, 250, 247))
    canvas.line(-0.7, 0.0, 9.7, 0.0, (170, 170, 170), 0.02)
    heights = np.linspace(-3.0, 3.0, 41)
    widths = 0.38 * np.exp(-0.5 * heights * heights)
    for arm, value in enumerate(VALUES):
        right = [(arm + w, value + h) for h, w in zip(heights, widths, strict=True)]
        left = [(arm - w, value + h) for h, w in zip(heights, widths, strict=True)]
        canvas.polygon(right + left[::-1], (52, 152, 219) if state.arm == arm + 1 else (200, 205, 210))
        canvas.line(arm - 0.38, value, arm + 0.38, value, (90, 90, 90), 0.04)
        canvas.text(arm - 0.1, -4.85, str(arm), (90, 90, 90), 0.4)
    if state.arm > 0:
        canvas.circle(state.arm - 1, state.reward, 0.12, (192, 57, 43))
