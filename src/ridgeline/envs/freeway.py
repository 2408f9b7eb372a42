"""Freeway: cross ten lanes of traffic, again and again, and wait for gaps.

The road is 16 wide; the player crosses at its middle. Lane i, from 1 to 10, has its middle at height i.

Observation
    index     meaning                                                      range
    0         the player's height / 11                                     0 .. 1
    1         steps of a throw that are left / throw                       0 .. 1
    2 ... 11  of each lane, its car's distance from the player / 8         -1 .. 1
    12 ... 21 of each lane, its car's velocity / 0.5, positive to the right  -1 .. 1
Action: 0 stays, 1 goes up by 1/4, 2 goes down by 1/4.
Reward: 1 for each crossing: reaching height 11. The player begins again at height 0. The optimum depends on the cars:
    17.7 in the mean, 14 to 20, exactly known for each start (dynamic programming, in tests/test_arcade.py). Going up
    always: 11.8 (measured). Random play: 0.
Start: at height 0. The velocity of each lane's car is drawn, uniform in `slowest` .. `fastest` per step, to the right
    in lanes 1 to 5, to the left in lanes 6 to 10, and so is its place.
End: never terminated; truncated at 1,000 steps.
Physics: a car that leaves the road on one side comes back on the other. It hits the player where their middles are less
    than 1.1 apart along the lane and less than 1/2 across it (heights between two lanes are safe). Then the player is
    thrown back, 1/4 per step for `throw` steps, without control and out of the cars' way.
Parameters: slowest, fastest, throw. Statistics: hits.
Source: Freeway (Activision 1981).
Differs: one car in each lane, velocities that differ between episodes and are seen.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype, uniform, uniform_between

LANES = 10
WIDTH, MIDDLE, NEAR = 16.0, 8.0, 1.1
QUARTERS = 4 * (LANES + 1)

State = state_dtype(
    x=(np.float64, (LANES,)), velocity=(np.float64, (LANES,)),
    height=np.int64,  # in quarters
    thrown=np.int64,  # steps of a throw that are left
    hits=np.int64, crossings=np.int64,
)  # fmt: skip

observation_space = spaces.Box(
    np.array([0, 0] + [-1] * (2 * LANES), np.float32), np.ones(2 + 2 * LANES, np.float32), dtype=np.float32
)
action_space = spaces.Discrete(3)
max_episode_steps = 1_000
statistics = ("hits",)


class Parameters(NamedTuple):
    slowest: float = 0.1
    fastest: float = 0.4
    throw: int = 8


def reset(state, p):
    state.height = 0
    state.thrown = 0
    state.hits = 0
    state.crossings = 0
    for lane in range(LANES):
        state.x[lane] = WIDTH * uniform(state)
        speed = uniform_between(state, p.slowest, p.fastest)
        state.velocity[lane] = speed if 2 * lane < LANES else -speed


def step(state, action, p):
    for lane in range(LANES):
        x = state.x[lane] + state.velocity[lane]
        if x >= WIDTH:
            x -= WIDTH
        elif x < 0.0:
            x += WIDTH
        state.x[lane] = x
    if state.thrown > 0:
        state.thrown -= 1
        state.height = max(state.height - 1, 0)
        return 0.0, False
    if action == 1:
        state.height += 1
    elif action == 2:
        state.height = max(state.height - 1, 0)
    if state.height == QUARTERS:
        state.height = 0
        state.crossings += 1
        return 1.0, False
    lane = (state.height + 2) // 4  # the nearest; two quarters below its middle is between two lanes
    if lane > 0 and lane <= LANES and state.height % 4 != 2 and abs(state.x[lane - 1] - MIDDLE) < NEAR:
        state.thrown = p.throw
        state.hits += 1
    return 0.0, False


def observe(state, observation, p):
    observation[0] = state.height / QUARTERS
    observation[1] = state.thrown / max(p.throw, 1)
    for lane in range(LANES):
        observation[2 + lane] = state.x[lane] / 8.0 - 1.0
        observation[2 + LANES + lane] = state.velocity[lane] * 2.0


canvas_size = (480, 360)
frames_per_second = 30
COLOURS = ((214, 64, 50), (41, 128, 185), (241, 196, 15), (155, 89, 182), (39, 174, 96))


def draw(state, canvas):
    canvas.world(0.0, 16.0, -0.6, 12.2)
    canvas.fill((105, 150, 90))
    canvas.rectangle(0.0, 0.5, 16.0, 10.5, (70, 72, 76))
    for lane in range(1, LANES):
        for x in range(0, 16, 2):
            canvas.rectangle(x + 0.4, lane + 0.47, x + 1.6, lane + 0.53, (220, 220, 210))
    for lane in range(LANES):
        x, y = float(state.x[lane]), lane + 1
        canvas.rectangle(x - 0.8, y - 0.3, x + 0.8, y + 0.3, COLOURS[lane % 5])
        front = 0.35 if state.velocity[lane] > 0 else -0.35
        canvas.rectangle(x + front - 0.15, y - 0.22, x + front + 0.15, y + 0.22, (200, 225, 240))
    y = state.height / 4.0
    canvas.circle(MIDDLE, y, 0.28, (250, 250, 240) if state.thrown == 0 else (250, 160, 150))
    canvas.circle(MIDDLE, y + 0.2, 0.14, (214, 64, 50))
    canvas.text(0.3, 11.3, f"{state.crossings} crossings", (250, 250, 240), 0.5)
