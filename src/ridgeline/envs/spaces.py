"""Spaces: an observation and an action of two parts; each part of the action answers one of the observation.

Observation
    index  meaning                                          range
    image  5 x 5 numbers, uniform                           -1 .. 1
    bits   5 bits, each 1 with probability 1/2              0 or 1
Action: two numbers. The first should be 1 where the sum of the image is positive, else 0; the second 1 where more than
    two of the bits are set, else 0.
Reward: 0.5 for each right part. Optimum 1; random play 0.5; an agent that sees only one of the parts: 0.75.
Start: a new observation.
End: terminated after one step.
Source: PufferLib's `spaces` (Suarez 2024), a test of dict observations and multi-discrete actions.
Differs: uniform numbers where PufferLib has normal ones; bits where it has -1, 0, 1; half a point for each part.
Version: 1
"""

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import next_random, state_dtype, uniform_between

SIDE, NUM_BITS = 5, 5

State = state_dtype(
    image=(np.float64, (SIDE, SIDE)), bits=(np.int8, (NUM_BITS,)),
    answer=(np.int64, (2,)), given=(np.int64, (2,)),  # the last action, -1 before the first: for the picture
)  # fmt: skip

observation_space = spaces.Dict({
    "image": spaces.Box(-1.0, 1.0, (SIDE, SIDE), np.float32),
    "bits": spaces.MultiBinary(NUM_BITS),
})  # fmt: skip
action_space = spaces.MultiDiscrete([2, 2])


def reset(state, p):
    total = 0.0
    for i in range(SIDE):
        for j in range(SIDE):
            state.image[i, j] = uniform_between(state, -1.0, 1.0)
            total += state.image[i, j]
    count, random = 0, next_random(state)
    for i in range(NUM_BITS):
        state.bits[i] = np.int64((random >> np.uint64(i)) & np.uint64(1))
        count += state.bits[i]
    state.answer[0] = 1 if total > 0.0 else 0
    state.answer[1] = 1 if 2 * count > NUM_BITS else 0


def step(state, action, p):
    reward = 0.0
    for part in range(2):
        state.given[part] = action[part]
        if action[part] == state.answer[part]:
            reward += 0.5
    return reward, True


def observe(state, observation, p):
    for i in range(SIDE):
        for j in range(SIDE):
            observation.image[i, j] = state.image[i, j]
    for i in range(NUM_BITS):
        observation.bits[i] = state.bits[i]


canvas_size = (480, 320)
frames_per_second = 3


def draw(state, canvas):
    canvas.world(-0.5, 10.0, -0.5, 6.5)
    canvas.fill((250, 250, 247))
    for i in range(SIDE):
        for j in range(SIDE):
            value = float(state.image[i, j])
            shade = int(255 - 180 * abs(value))
            colour = (shade, shade, 255) if value > 0 else (255, shade, shade)
            canvas.rectangle(j, 5.5 - i, j + 0.95, 4.55 - i, colour)
    for i in range(NUM_BITS):
        canvas.circle(7.5, 5.0 - i, 0.35, (60, 60, 60) if state.bits[i] else (210, 210, 210))
    for part, x in enumerate((5.4, 8.4)):
        canvas.text(x, -0.2, f"{state.answer[part]}", (39, 130, 80), 0.5)
