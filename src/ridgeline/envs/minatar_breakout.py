"""MinAtar's Breakout: keep a ball in play with a paddle of one cell and break bricks on a 10 x 10 grid.

Observation
    index      meaning                                         range
    [y, x, 0]  the paddle                                      0 or 1
    [y, x, 1]  the ball                                        0 or 1
    [y, x, 2]  where the ball was one step ago                 0 or 1
    [y, x, 3]  a brick                                         0 or 1
    y is the row from the top, x the column; uint8.
    Hidden: the last action (it may be repeated), and whether the ball broke a brick in the step before.
Action: 0 stays, 1 moves left, 3 moves right by one cell; 2, 4 and 5 stay too. With probability `sticky_action_prob`
    the action before is done again in place of the one given.
Reward: 1 for each brick. Mean score of random play: 0.5, as MinAtar's README has it. Bounded by the time limit alone: a
    player that stays under the ball loses none while sticky_action_prob is 0. PPO of gymnax's authors: 28.
Start: rows 1 to 3 full of bricks; the ball in row 3 at the left or right edge, falling inwards; the paddle at column 4.
End: terminated when the ball passes the paddle; truncated at 10,000 steps.
Physics: the ball moves by one cell diagonally. It bounces off the sides, the top and bricks, but flies through a brick
    in the step after it broke one. A paddle under its column sends it up in the direction that it had, a paddle under
    the cell it is about to enter sends it back. A wall that is gone stands again when the ball next reaches the bottom.
Parameters: sticky_action_prob.
Source: Young & Tian 2019, arXiv:1903.03176; step for step the package MinAtar 1.0.15, given the same random numbers.
Differs: a time limit, lest a perfect player's episode never end; the action before the first one of an episode is 0,
    where the package keeps the last one of the episode before; uint8, not bool.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype, uniform

SIZE = 10
LEFT, RIGHT = 1, 3
FIRST_ROW, ROWS = 1, 3
FULL_ROW = 2**SIZE - 1

State = state_dtype(
    paddle=np.int32,
    x=np.int32,
    y=np.int32,
    last_x=np.int32,
    last_y=np.int32,
    right=np.int32,  # 1 or -1
    down=np.int32,  # 1 or -1
    bricks=(np.int32, (ROWS,)),  # bit x of each row
    struck=np.bool_,  # met a brick in the step before
    walls=np.int32,  # cleared
    last_action=np.int32,
)
statistics = ("walls",)

observation_space = spaces.Box(0, 1, (SIZE, SIZE, 4), np.uint8)
action_space = spaces.Discrete(6)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    sticky_action_prob: float = 0.1


def reset(state, p):
    side = random_integer(state, 2)
    state.x = 9 * side
    state.y = 3
    state.last_x = state.x
    state.last_y = state.y
    state.right = 1 - 2 * side
    state.down = 1
    state.paddle = 4
    state.struck = False
    state.walls = 0
    state.last_action = 0
    build_wall(state)


def step(state, action, p):
    if uniform(state) >= p.sticky_action_prob:
        state.last_action = action
    if state.last_action == LEFT:
        state.paddle = max(state.paddle - 1, 0)
    elif state.last_action == RIGHT:
        state.paddle = min(state.paddle + 1, SIZE - 1)
    state.last_x = state.x
    state.last_y = state.y
    x = state.x + state.right
    y = state.y + state.down
    reward = 0.0
    terminated = False
    if x < 0 or x >= SIZE:
        x = state.x
        state.right = -state.right
    meets = y >= 0 and brick_at(state, x, y)
    if y < 0:
        y = state.y
        state.down = -state.down
    elif meets:
        if not state.struck:
            reward = 1.0
            state.bricks[y - FIRST_ROW] ^= 1 << x
            y = state.y
            state.down = -state.down
    elif y == SIZE - 1:
        if state.bricks[0] == 0 and state.bricks[1] == 0 and state.bricks[2] == 0:
            state.walls += 1
            build_wall(state)
        terminated = state.paddle != state.x and state.paddle != x
        if not terminated:
            if state.paddle != state.x:
                state.right = -state.right
            state.down = -state.down
            y = state.y
    state.struck = meets
    state.x = x
    state.y = y
    return reward, terminated


def observe(state, observation, p):
    observation[:] = 0
    observation[SIZE - 1, state.paddle, 0] = 1
    observation[state.y, state.x, 1] = 1
    observation[state.last_y, state.last_x, 2] = 1
    for row in range(ROWS):
        bricks = state.bricks[row]
        for x in range(SIZE):
            observation[FIRST_ROW + row, x, 3] = (bricks >> x) & 1


@compiled
def build_wall(state):
    for row in range(ROWS):
        state.bricks[row] = FULL_ROW


@compiled
def brick_at(state, x, y):
    row = y - FIRST_ROW
    return 0 <= row < ROWS and (state.bricks[row] >> x) & 1 == 1


canvas_size = (360, 360)
frames_per_second = 15
ROW_COLOURS = ((200, 72, 72), (198, 108, 58), (180, 122, 48))


def draw(state, canvas):
    canvas.world(0, SIZE, 0, SIZE)
    canvas.fill((0, 0, 0))
    for row in range(ROWS):
        for x in range(SIZE):
            if brick_at(state, x, FIRST_ROW + row):
                draw_cell(canvas, x, FIRST_ROW + row, ROW_COLOURS[row])
    draw_cell(canvas, state.last_x, state.last_y, (60, 60, 60))
    draw_cell(canvas, state.x, state.y, (230, 230, 230))
    draw_cell(canvas, state.paddle, SIZE - 1, (92, 186, 92))


def draw_cell(canvas, x, y, colour):
    canvas.rectangle(x + 0.05, SIZE - y - 0.95, x + 0.95, SIZE - y - 0.05, colour)
