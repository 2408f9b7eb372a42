"""MinAtar's Freeway: cross eight lanes of traffic as often as the time allows, on a 10 x 10 grid.

Observation
    index      meaning                                                                  range
    [y, x, 0]  the player                                                               0 or 1
    [y, x, 1]  a car                                                                    0 or 1
    [y, x, k]  behind a car that moves every k steps, k = 2 .. 6: where it comes from   0 or 1
    y is the row from the top, x the column; uint8.
    Hidden: the last action (it may be repeated), the timers and the time.
Action: 2 moves up, 4 moves down by one cell, if the last move is 3 steps ago or more; the others stay. With probability
    `sticky_action_prob` the action before is done again in place of the one given.
Reward: 1 for reaching row 0, whence the player returns to row 9 and all cars get new speeds and directions.
    Mean score of random play: 0.13. Maximum 92: nine moves, one in three steps, in 2,501 steps.
    PPO of gymnax's authors: 58.
Start: the player in row 9, all cars in column 0 at random speeds.
End: terminated at step 2,501, as in the package: the game is over when its clock has run down. No time limit besides.
Physics: a car moves by one cell every k = 2 .. 6 steps, k and its direction drawn at random; it leaves the grid at one
    side and enters at the other. A player hit by a car, which is in column 4 as the player is, returns to row 9.
Parameters: sticky_action_prob.
Source: Young & Tian 2019, arXiv:1903.03176; step for step the package MinAtar 1.0.15, given the same random numbers.
Differs: the action before the first one of an episode is 0, where the package keeps the last one of the episode before;
    uint8, not bool.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype, uniform

SIZE = 10
UP, DOWN = 2, 4
CARS, COLUMN, SPEEDS = 8, 4, 5
MOVE_INTERVAL, CLOCK = 3, 2500

State = state_dtype(
    y=np.int32,
    car_x=(np.int32, (CARS,)),
    car_timer=(np.int32, (CARS,)),
    car_interval=(np.int32, (CARS,)),
    car_right=(np.int32, (CARS,)),  # 1 or -1
    move_timer=np.int32,
    clock=np.int32,
    hits=np.int32,
    last_action=np.int32,
)
statistics = ("hits",)

observation_space = spaces.Box(0, 1, (SIZE, SIZE, 2 + SPEEDS), np.uint8)
action_space = spaces.Discrete(6)


class Parameters(NamedTuple):
    sticky_action_prob: float = 0.1


def reset(state, p):
    randomize_cars(state)
    for car in range(CARS):
        state.car_x[car] = 0
    state.y = SIZE - 1
    state.move_timer = MOVE_INTERVAL
    state.clock = CLOCK
    state.hits = 0
    state.last_action = 0


def step(state, action, p):
    if uniform(state) >= p.sticky_action_prob:
        state.last_action = action
    if state.move_timer == 0 and (state.last_action == UP or state.last_action == DOWN):
        state.move_timer = MOVE_INTERVAL
        state.y = max(state.y - 1, 0) if state.last_action == UP else min(state.y + 1, SIZE - 1)
    reward = 0.0
    if state.y == 0:
        reward = 1.0
        randomize_cars(state)
        state.y = SIZE - 1
    move_cars(state)
    if state.move_timer > 0:
        state.move_timer -= 1
    state.clock -= 1
    return reward, state.clock < 0


def observe(state, observation, p):
    observation[:] = 0
    observation[state.y, COLUMN, 0] = 1
    for car in range(CARS):
        x = state.car_x[car]
        observation[car + 1, x, 1] = 1
        observation[car + 1, wrapped(x - state.car_right[car]), 1 + state.car_interval[car]] = 1


@compiled
def move_cars(state):
    for car in range(CARS):
        hit = state.y == car + 1 and state.car_x[car] == COLUMN
        if state.car_timer[car] == 0:
            state.car_timer[car] = state.car_interval[car]
            state.car_x[car] = wrapped(state.car_x[car] + state.car_right[car])
            hit = hit or (state.y == car + 1 and state.car_x[car] == COLUMN)
        else:
            state.car_timer[car] -= 1
        if hit:
            state.y = SIZE - 1
            state.hits += 1


@compiled
def wrapped(x):
    """Column x of a grid whose sides are joined, x from -1 to 10."""
    if x < 0:
        return SIZE - 1
    return 0 if x >= SIZE else x


@compiled
def randomize_cars(state):
    """New speeds and directions, in the package's order of draws."""
    for car in range(CARS):
        state.car_interval[car] = 1 + random_integer(state, SPEEDS)
        state.car_timer[car] = state.car_interval[car]
    for car in range(CARS):
        state.car_right[car] = 1 if uniform(state) > 0.5 else -1


canvas_size = (360, 360)
frames_per_second = 15
SPEED_COLOURS = ((200, 72, 72), (198, 108, 58), (180, 150, 48), (72, 160, 72), (66, 100, 200))


def draw(state, canvas):
    canvas.world(0, SIZE, 0, SIZE)
    canvas.fill((70, 70, 70))
    for row in (0, SIZE - 1):
        canvas.rectangle(0, SIZE - row - 1, SIZE, SIZE - row, (90, 130, 80))
    for lane in range(1, CARS):
        for x in range(SIZE):
            canvas.rectangle(x + 0.3, SIZE - lane - 1.03, x + 0.7, SIZE - lane - 0.97, (150, 150, 150))
    for car in range(CARS):
        x, y, colour = state.car_x[car], SIZE - car - 2, SPEED_COLOURS[state.car_interval[car] - 1]
        canvas.rectangle(x + 0.08, y + 0.2, x + 0.92, y + 0.8, colour)
        front = x + (0.72 if state.car_right[car] > 0 else 0.13)
        canvas.rectangle(front, y + 0.28, front + 0.15, y + 0.72, (210, 230, 240))
    canvas.circle(COLUMN + 0.5, SIZE - state.y - 0.5, 0.35, (240, 240, 200))
    canvas.text(0.1, 0.15, f"{max(state.clock, 0)}", (230, 230, 230), 0.6)
