"""Short corridor with switched actions: three states that look alike, and in the second one the actions are reversed.

Observation
    index  meaning     range
    0      always 1    1
Action: 0 right, 1 left (the order of the book's features, so that a linear policy's logits are its theta).
Reward: -1 for every step, the last included.
Start: state 0.
End: terminated in state 3; truncated at 5,000 steps (the book has no limit, but a policy that never goes right would
    never end; with a probability of right between 0.05 and 0.95 fewer than 1 episode in 10^20 is cut).
    From state 0 right leads to 1 and left stays; from 1 right leads to 0 and left to 2; from 2 right leads to 3 and
    left to 1.
Source: Sutton & Barto 2018, example 13.1 and figures 13.1, 13.2. With probability q of right, the value of state 0 is
    -(4 - 2 q) / (q (1 - q)), at best -11.6569 at q = 2 - sqrt(2).
Differs: the time limit.
Version: 1
"""

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype

State = state_dtype(position=np.int64)

GOAL = 3

observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 5_000
simd = True


def reset(state, p):
    state.position = 0


def step(state, action, p):
    right = action == 0
    if state.position == 1:
        right = not right
    state.position = max(state.position + (1 if right else -1), 0)
    return -1.0, state.position == GOAL


def observe(state, observation, p):
    observation[0] = 1.0


canvas_size = (480, 150)
frames_per_second = 4


def draw(state, canvas):
    canvas.world(-0.1, 4.1, -0.3, 1.0125)
    canvas.fill((250, 250, 247))
    for position in range(GOAL + 1):
        colour = (169, 223, 191) if position == GOAL else (253, 235, 208) if position == 1 else (235, 237, 239)
        canvas.rectangle(position + 0.02, 0.0, position + 0.98, 0.9, colour)
        if position < GOAL:
            reverse = -1 if position == 1 else 1
            for side, ink in ((0.3, (30, 132, 73)), (-0.3, (146, 43, 33))):  # right is green, left is red
                tip = position + 0.5 + side * reverse * 1.25
                base = position + 0.5 + side * reverse * 0.8
                canvas.line(position + 0.5 + 0.4 * side * reverse, 0.16, base, 0.16, ink, 0.03)
                canvas.polygon([(base, 0.24), (base, 0.08), (tip, 0.16)], ink)
    canvas.text(3.38, 0.36, "G", (30, 132, 73), 0.26)
    canvas.circle(state.position + 0.5, 0.52, 0.2, (52, 73, 94))
    canvas.text(0.02, -0.22, "green: what right does, red: what left does", (110, 110, 110), 0.12)
