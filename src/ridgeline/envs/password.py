"""Password: a fixed sequence of zeros and ones, paid for only when all of it was entered.

Observation
    index  meaning                                             range
    0..31  what was entered at each place: -1 for 0, 1 for 1   -1, 0, 1
           (0 where nothing was entered yet)
Action: 0 or 1, the next character.
Reward: 1 after the last character if all are right, else 0; on the way, nothing tells right from wrong. Best mean
    return: 1. Random play: 2 ** -length, 1 in 4,096 for the default: the question is whether the right sequence is
    found, and then kept.
Start: nothing entered.
End: terminated after `length` characters; truncated at 32 steps, so length is 1 .. 32.
Parameters: length.
Source: PufferLib's password (Suarez 2024, "PufferLib: making reinforcement learning libraries and environments play
    nice").
Differs: the password has any length up to 32; it is the binary fraction of pi (0010 0100 0011 1111 ...), the same in
    every instance.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype

LONGEST = 32
SECRET = 0x243F6A88  # read from the highest of 32 bits

State = state_dtype(
    elapsed=np.int64,  # characters entered
    right=np.int64,  # 1 while all of them are right
    entered=(np.int8, (LONGEST,)),
)

observation_space = spaces.Box(-1.0, 1.0, (LONGEST,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = LONGEST


class Parameters(NamedTuple):
    length: int = 12


def reset(state, p):
    state.elapsed = 0
    state.right = 1
    for i in range(LONGEST):
        state.entered[i] = 0


def step(state, action, p):
    if action != (SECRET >> (LONGEST - 1 - state.elapsed)) & 1:
        state.right = 0
    state.entered[state.elapsed] = 2 * action - 1
    state.elapsed += 1
    if state.elapsed >= p.length:
        return float(state.right), True
    return 0.0, False


def observe(state, observation, p):
    for i in range(LONGEST):
        observation[i] = state.entered[i]


canvas_size = (640, 120)
frames_per_second = 6


def draw(state, canvas):
    canvas.world(-1.0, 33.0, -3.2, 3.2)
    canvas.fill((250, 250, 247))
    for i in range(LONGEST):
        colour = (225, 228, 232)
        if i < state.elapsed:
            bit = SECRET >> (LONGEST - 1 - i) & 1
            colour = (39, 174, 96) if (state.entered[i] > 0) == (bit == 1) else (192, 57, 43)
        canvas.rectangle(i + 0.05, -0.9, i + 0.95, 0.9, colour)
        if i < state.elapsed:
            canvas.text(i + 0.3, -0.4, "1" if state.entered[i] > 0 else "0", (255, 255, 255), 0.9)
