"""Delayed reward: the first action is paid for a known number of steps later, with distractions between.

Observation
    index  meaning                                                                   range
    0      1 at the first step                                                       0 or 1
    1      the cue                                                                   -1 or 1
    2      steps since the first / delay                                             0 .. 1
    3      1 if the payment will come, -1 if not, 0 at the first step; 0 always      -1, 0, 1
           where `visible` = 0
    With `visible` = 1 it is the whole state: a critic can carry the credit from step to step, and the needed horizon is
    the number `delay`. With `visible` = 0 it is not: nothing between the first action and its payment tells the two
    apart, so only a return that reaches `delay` steps in one piece can.
Action: 0 or 1, the answer to a cue of -1 or 1.
Reward: every step shows a cue, drawn by a fair coin. At the first step the answer that does not match it brings
    `payment`, exactly `delay` steps later, and nothing at once. At each of the `delay` steps after it the answer that
    matches brings `distraction` at once; uniform noise of standard deviation `noise` is added. What the distractions
    teach is thus wrong at the first step. Best mean return: payment + delay * distraction; random play: half of it; a
    policy that always matches: delay * distraction.
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

observation_space = spaces.Box(np.array([0, -1, 0, -1], np.float32), np.ones(4, np.float32), dtype=np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 1_025


class Parameters(NamedTuple):
    delay: int = 64
    payment: float = 5.0
    distraction: float = 0.1
    noise: float = 0.1
    visible: int = 1


def reset(state, p):
    state.elapsed = 0
    state.promised = 0
    show_cue(state)


def step(state, action, p):
    reward = 0.0
    matches = (action == 1) == (state.cue == 1)
    if state.elapsed == 0:
        state.promised = 0 if matches else 1
    else:
        reward = p.noise * symmetric(state)
        if matches:
            reward += p.distraction
        if state.elapsed >= p.delay:
            return reward + p.payment * state.promised, True
    state.elapsed += 1
    show_cue(state)
    return reward, False


def observe(state, observation, p):
    observation[0] = state.elapsed == 0
    observation[1] = state.cue
    observation[2] = state.elapsed / p.delay
    observation[3] = 0 if state.elapsed == 0 or p.visible == 0 else 2 * state.promised - 1


@compiled
def show_cue(state):
    state.cue = 1 if uniform(state) < 0.5 else -1


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
    x, side = 11.0, 1.2 * state.cue
    arrow = (52, 152, 219) if state.elapsed else (192, 57, 43)
    canvas.polygon([(x - side, 1.0), (x - side, -1.0), (x + side, 0.0)], arrow)
