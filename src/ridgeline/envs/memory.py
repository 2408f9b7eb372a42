"""Memory: a cue is shown once, and asked for a known number of steps later.

Observation
    index  meaning                          range
    0      the cue, at the first step       -1, 0, 1
    1      1 when the answer is asked for   0 or 1
    2      steps since the first / delay    0 .. 1
Action: 0 or 1. Only the last one counts: it answers 0 for a cue of -1, 1 for a cue of 1. Between, actions do nothing.
Reward: 1 for the right answer, -1 for the wrong one, 0 before. Best mean return: 1, for a policy with memory. Random
    play: 0. So is every policy without memory: what it sees when it is asked does not depend on the cue, which a fair
    coin drew, so the best that it can do is chance.
Start: the cue, by a fair coin.
End: terminated by the answer, `delay` steps after the cue, so an episode has delay + 1 steps; truncated at 1,025 steps,
    so delay is 1 .. 1,024.
Parameters: delay.
Source: after Osband et al. 2020, "Behaviour suite for reinforcement learning", memory length.
Differs: one cue and no context of other bits; the number of steps is given, not drawn from a list.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype, uniform

State = state_dtype(elapsed=np.int64, cue=np.int64)  # steps since the first; -1 or 1

observation_space = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32), dtype=np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 1_025


class Parameters(NamedTuple):
    delay: int = 64


def reset(state, p):
    state.elapsed = 0
    state.cue = 1 if uniform(state) < 0.5 else -1


def step(state, action, p):
    if state.elapsed >= p.delay:
        return (1.0 if 2 * action - 1 == state.cue else -1.0), True
    state.elapsed += 1
    return 0.0, False


def observe(state, observation, p):
    observation[0] = state.cue if state.elapsed == 0 else 0
    observation[1] = state.elapsed >= p.delay
    observation[2] = state.elapsed / p.delay


canvas_size = (560, 140)
frames_per_second = 10


def draw(state, canvas):
    canvas.world(0.0, 16.0, -2.0, 2.0)
    canvas.fill((250, 250, 247))
    canvas.circle(8.0, 0.0, 1.5, (52, 73, 94))
    colour = (52, 152, 219) if state.elapsed == 0 else (200, 205, 210)  # pale: the player no longer sees it
    x, side = 8.0, 0.9 * state.cue
    canvas.polygon([(x - side, 0.8), (x - side, -0.8), (x + side, 0.0)], colour)
    canvas.text(12.0, -0.4, str(state.elapsed), (90, 90, 90), 0.8)
