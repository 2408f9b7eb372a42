"""Noisy bandit: a context shows which of four arms is right, and each pull says so through much noise.

Observation
    index  meaning                           range
    0..3   the context, one number per arm   -1 .. 1
Action: 0 .. 3, the arm to pull.
Reward: 1 for the arm with the largest number of the context, 0 for another, with normal noise of standard deviation
    `noise`. The noise of a whole episode, sqrt(200) * noise, hides what one pull did: the needed horizon is 1 step, and
    every step further adds noise alone. Best mean return: 200; random play: 50.
Start: a context, uniform in -1 .. 1; a new one in every step, whatever is pulled.
End: truncated at 200 steps.
Source: Sutton & Barto 2018, section 2.9, associative search.
Differs: the context is continuous; 200 pulls make an episode, so that an estimator can look too far ahead.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, standard_normal, state_dtype, uniform_between

ARMS = 4

State = state_dtype(context=(np.float64, (ARMS,)))

observation_space = spaces.Box(-1.0, 1.0, (ARMS,), np.float32)
action_space = spaces.Discrete(ARMS)
max_episode_steps = 200


class Parameters(NamedTuple):
    noise: float = 2.0


def reset(state, p):
    draw_context(state)


def step(state, action, p):
    right = 0
    for arm in range(1, ARMS):
        if state.context[arm] > state.context[right]:
            right = arm
    reward = p.noise * standard_normal(state)
    if action == right:
        reward += 1.0
    draw_context(state)
    return reward, False


def observe(state, observation, p):
    for arm in range(ARMS):
        observation[arm] = state.context[arm]


@compiled
def draw_context(state):
    for arm in range(ARMS):
        state.context[arm] = uniform_between(state, -1.0, 1.0)


canvas_size = (420, 230)
frames_per_second = 4


def draw(state, canvas):
    canvas.world(-0.6, ARMS - 0.4, -1.15, 1.15)
    canvas.fill((250, 250, 247))
    canvas.line(-0.6, 0.0, ARMS - 0.4, 0.0, (170, 170, 170), 0.02)
    largest = max(state.context)
    for arm in range(ARMS):
        height = state.context[arm]
        colour = (46, 134, 193) if height == largest else (200, 205, 210)
        canvas.rectangle(arm - 0.35, 0.0, arm + 0.35, height, colour)
