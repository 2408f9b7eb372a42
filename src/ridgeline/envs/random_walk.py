"""Random walk: nineteen states in a row, a coin decides each step, and only the two ends pay.

Observation
    index    meaning                              range
    0 .. 18  1 for the state that one is in       0 or 1
Action: 0 left, 1 right; it counts with probability `control`, otherwise a fair coin moves left or right.
Reward: -1 for leaving at the left end, 1 for leaving at the right end, 0 otherwise.
Start: the state in the middle, index 9.
End: terminated on leaving at either end; truncated at 10,000 steps (the textbook's walk lasts 100 on average and has
    no limit; with `control` = 1 a policy could pace to and fro for ever).
Source: Sutton & Barto 2018, example 7.1 and figure 7.2: a Markov reward process, which is `control` = 0. The value of
    the state with index i is then (i - 9) / 10 without discounting, whatever the policy does.
Differs: the actions, of which the textbook has none.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype, uniform

NUM_STATES = 19

State = state_dtype(position=np.int64)

observation_space = spaces.Box(0.0, 1.0, (NUM_STATES,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 10_000
simd = True


class Parameters(NamedTuple):
    control: float = 0.0


def reset(state, p):
    state.position = NUM_STATES // 2


def step(state, action, p):
    right = action == 1 if uniform(state) < p.control else uniform(state) < 0.5
    state.position += 1 if right else -1
    if state.position < 0:
        return -1.0, True
    if state.position >= NUM_STATES:
        return 1.0, True
    return 0.0, False


def observe(state, observation, p):
    for i in range(NUM_STATES):
        observation[i] = 0.0
    if 0 <= state.position < NUM_STATES:
        observation[state.position] = 1.0


canvas_size = (672, 96)
frames_per_second = 4


def draw(state, canvas):
    canvas.world(-1.9, 19.9, -1.5, 1.5)
    canvas.fill((250, 250, 247))
    canvas.line(-1.0, 0.0, 19.0, 0.0, (150, 150, 150), 0.06)
    for position in range(NUM_STATES):
        here = position == state.position
        canvas.circle(position, 0.0, 0.4, (52, 73, 94))
        canvas.circle(position, 0.0, 0.33, (231, 76, 60) if here else (250, 250, 247))
    for x, label, colour in ((-1.0, "-1", (146, 43, 33)), (19.0, "+1", (30, 132, 73))):
        canvas.rectangle(x - 0.4, -0.4, x + 0.4, 0.4, colour)
        canvas.text(x - 0.45, 0.7, label, colour, 0.5)
