"""Squared: from the middle of a square, reach the targets on its rim, each by the shortest way.

Observation
    index  meaning                                                  range
    0..48  the square of 7 x 7 cells, row by row: 1 the player,     -1, 0, 1
           -1 a target, 0 nothing
    49     share of the steps that are over                         0 .. 1
Action: 0 .. 7, a step to one of the eight neighbours: 0, 1, 2 the row below from left to right, 3 and 4 left and right,
    5, 6, 7 the row above. A step beyond the rim goes along it.
Reward: the steps by which the nearest target came nearer, divided by 3 * targets; a step away costs as much. (Distance:
    the larger of the two coordinates' differences, which is the number of steps.) Best return: 1 in every episode, and
    only by no detour at all. Random play: 0.1443 with the default of 4 targets, -0.125 with one
    (both exact).
Start: the player in the middle, `targets` targets on different cells of the rim, all 3 steps away.
End: a target that is reached disappears and the player is back in the middle. Terminated when none is left or after
    3 * targets steps; truncated at 72 steps, the most that 24 targets take.
Parameters: targets (1 .. 24).
Source: the idea of PufferLib's squared (Suarez 2024).
Differs: own rules: the reward is the progress, not the nearness; the time is shown.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype

RADIUS = 3
SIDE = 2 * RADIUS + 1
RIM = 8 * RADIUS

State = state_dtype(
    x=np.int64,  # -3 .. 3
    y=np.int64,
    near=np.int64,  # steps to the nearest target
    left=np.int64,  # targets that are left: the first of the two arrays
    elapsed=np.int64,
    target_x=(np.int64, (RIM,)),
    target_y=(np.int64, (RIM,)),
)

observation_space = spaces.Box(
    np.array([-1] * SIDE * SIDE + [0], np.float32), np.ones(SIDE * SIDE + 1, np.float32), dtype=np.float32
)
action_space = spaces.Discrete(8)
max_episode_steps = RADIUS * RIM


class Parameters(NamedTuple):
    targets: int = 4


def reset(state, p):
    state.x = 0
    state.y = 0
    state.near = RADIUS
    state.elapsed = 0
    state.left = 0
    while state.left < p.targets:
        place(state, random_integer(state, RIM))


@compiled
def place(state, cell):
    """A target on cell 0 .. 23 of the rim, counted around it, unless one is there."""
    side, along = cell // (2 * RADIUS), cell % (2 * RADIUS) - RADIUS
    x, y = along, -RADIUS
    if side == 1:
        x, y = RADIUS, along
    elif side == 2:
        x, y = -along, RADIUS
    elif side == 3:
        x, y = -RADIUS, -along
    for i in range(state.left):
        if state.target_x[i] == x and state.target_y[i] == y:
            return
    state.target_x[state.left] = x
    state.target_y[state.left] = y
    state.left += 1


def step(state, action, p):
    cell = action if action < 4 else action + 1
    state.x = min(max(state.x + cell % 3 - 1, -RADIUS), RADIUS)
    state.y = min(max(state.y + cell // 3 - 1, -RADIUS), RADIUS)
    near, nearest = SIDE, 0
    for i in range(state.left):
        distance = max(abs(state.target_x[i] - state.x), abs(state.target_y[i] - state.y))
        if distance < near:
            near, nearest = distance, i
    reward = (state.near - near) / (RADIUS * p.targets)
    state.near = near
    if near == 0:
        state.left -= 1
        state.target_x[nearest] = state.target_x[state.left]
        state.target_y[nearest] = state.target_y[state.left]
        state.x = 0
        state.y = 0
        state.near = RADIUS
    state.elapsed += 1
    return reward, state.left == 0 or state.elapsed >= RADIUS * p.targets


def observe(state, observation, p):
    for i in range(SIDE * SIDE):
        observation[i] = 0.0
    for i in range(state.left):
        observation[SIDE * (state.target_y[i] + RADIUS) + state.target_x[i] + RADIUS] = -1.0
    observation[SIDE * (state.y + RADIUS) + state.x + RADIUS] = 1.0
    observation[SIDE * SIDE] = state.elapsed / (RADIUS * p.targets)


canvas_size = (360, 360)
frames_per_second = 6


def draw(state, canvas):
    canvas.world(-3.6, 3.6, -3.6, 3.6)
    canvas.fill((250, 250, 247))
    for x in range(-RADIUS, RADIUS + 1):
        for y in range(-RADIUS, RADIUS + 1):
            rim = max(abs(x), abs(y)) == RADIUS
            canvas.rectangle(x - 0.46, y - 0.46, x + 0.46, y + 0.46, (220, 224, 228) if rim else (238, 240, 242))
    for i in range(state.left):
        canvas.rectangle(
            state.target_x[i] - 0.3, state.target_y[i] - 0.3, state.target_x[i] + 0.3, state.target_y[i] + 0.3,
            (192, 57, 43),
        )  # fmt: skip
    canvas.circle(state.x, state.y, 0.33, (52, 73, 94))
