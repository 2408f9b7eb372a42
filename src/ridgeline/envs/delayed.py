"""Delayed reward: the first action is paid for a known number of steps later, with distractions between.

Observation
    index  meaning                                                                       range
    0      1 at the first step                                                           0 or 1
    1      the cue, 0 at the first step                                                  -1, 0, 1
    2      steps since the first / delay                                                 0 .. 1
    3..10  the promise: 1 if the payment will come, -1 if not, in the place of the       -1, 0, 1
           current eighth of the way; 0 elsewhere, at the first step, and where
           `visible` = 0
    With `visible` = 1 it is the whole state: a critic can carry the credit from step to step, and the needed horizon is
    the number `delay`. The promise moves from place to place, because a critic that met it in one place would take what
    it learned near the end for true at the beginning, and a discount would not show. With `visible` = 0 it is not the
    whole state: nothing between the first action and its payment tells the two apart, so only a return that reaches
    `delay` steps in one piece can.
Action: 0 or 1.
Reward: the first action 1 brings `payment`, exactly `delay` steps later. Each of the steps after the first shows a cue,
    -1 or 1 by a fair coin, and the action that matches it (1 for 1) brings `distraction` at once; uniform noise of
    standard deviation `noise` is added. The first step itself brings 0. Best mean return: payment + delay *
    distraction; random play: half of it; where the first action is left to chance: payment / 2 + delay * distraction.
Start: the first step.
End: terminated `delay` steps after the first one, so an episode has delay + 1 steps; truncated at 1,025 steps, so
    delay is 1 .. 1,024.
Parameters: delay, payment, distraction, noise, visible (1 or 0).
Source: after Osband et al. 2020, "Behaviour suite for reinforcement learning", discounting chain.
Differs: one delay at a time, not five side by side; the distractions; what was chosen may be hidden.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype, uniform

State = state_dtype(
    elapsed=np.int64,  # steps since the first
    cue=np.int64,
    promised=np.int64,  # 1 if the payment will come
)
statistics = ("promised",)

EIGHTHS = 8

observation_space = spaces.Box(
    np.array([0, -1, 0] + [-1] * EIGHTHS, np.float32), np.ones(3 + EIGHTHS, np.float32), dtype=np.float32
)
action_space = spaces.Discrete(2)
max_episode_steps = 1_025


class Parameters(NamedTuple):
    delay: int = 64
    payment: float = 5.0
    distraction: float = 0.1
    noise: float = 0.3
    visible: int = 1


def reset(state, p):
    state.elapsed = 0
    state.cue = 0
    state.promised = 0


def step(state, action, p):
    reward = 0.0
    if state.elapsed == 0:
        state.promised = action
    else:
        reward = p.noise * symmetric(state)
        if (action == 1) == (state.cue == 1):
            reward += p.distraction
        if state.elapsed >= p.delay:
            return reward + p.payment * state.promised, True
    state.elapsed += 1
    state.cue = 1 if uniform(state) < 0.5 else -1
    return reward, False


def observe(state, observation, p):
    observation[0] = state.elapsed == 0
    observation[1] = state.cue
    observation[2] = state.elapsed / p.delay
    for i in range(EIGHTHS):
        observation[3 + i] = 0.0
    if state.elapsed > 0 and p.visible != 0:
        observation[3 + EIGHTHS * (state.elapsed - 1) // p.delay] = 2 * state.promised - 1


@compiled
def symmetric(state):
    """Uniform with mean 0 and standard deviation 1."""
    return 1.7320508075688772 * (2.0 * uniform(state) - 1.0)


canvas_size = (560, 140)
frames_per_second = 10


def draw(state, canvas):
    canvas.world(-0.5, 15.5, -2.0, 2.0)
    canvas.fill((250, 250, 247))
    colour = (241, 196, 15) if state.promised else (200, 205, 210)
    canvas.circle(0.7, 0.0, 0.9, (52, 73, 94))
    canvas.circle(0.7, 0.0, 0.75, colour if state.elapsed else (250, 250, 247))
    canvas.text(2.2, -0.4, str(state.elapsed), (90, 90, 90), 0.8)
    if state.cue:
        x, side = 11.0, 1.2 * state.cue
        canvas.polygon([(x - side, 1.0), (x - side, -1.0), (x + side, 0.0)], (52, 152, 219))
