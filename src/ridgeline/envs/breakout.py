"""Breakout: knock down a wall of bricks with a ball and a paddle.

The field is 144 wide and 104 high, x to the right, y upwards, as it looks on a television. Positions are those of the
ball's centre, and bricks are 8 x 4 cells that it bounces off: a cell stands for a brick and a rim of half the ball's
size around it, so that a centre which meets a cell is a ball which meets a brick, corners included.

Observation
    index   meaning                                                  range
    0       paddle's centre, -1 at the left wall, 1 at the right     -1 .. 1
    1       ball x, scaled likewise                                  -1 .. 1
    2       ball y, -1 at the bottom, 1 at the ceiling               -1 .. 1
    3       ball's velocity to the right (2.5 units per frame)       -1 .. 1
    4       ball's velocity upwards (2.5 units per frame)            -1 .. 1
    5       lives left / 5                                           0 .. 1
    6       score / 432                                              0 .. 1
    7       paddle hits with this ball / 12, never above 1           0 .. 1
    8..115  bricks, 1 where one stands: 6 rows of 18 from the        0 or 1
            bottom row's left end to the top row's right end
    Index 7 and the speed tell whether this ball has touched a brick worth 7, so the observation is the whole state.
Action: 0 stays, 1 moves left, 2 moves right, by 2 units per frame.
Reward: the worth of each brick broken: 1, 1, 4, 4, 7, 7 by row from bottom to top; a wall is worth 432, the maximum.
    Mean score of random play: 0.8 (4 frames per action) and 1.0 (1 frame); of a scripted player that aims: 432.
Start: the paddle in the middle; the ball below the wall at a random place, falling at a random angle up to 30 degrees.
    After a lost ball the next one comes at once in the same way, so a game cannot be stalled.
End: terminated when the wall is cleared or the fifth ball is lost; truncated at 10,000 steps.
Physics: the sine of the angle at which the ball leaves the paddle, measured from the vertical, is 0.85 times the place
    that it hit (-1 left end, 1 right end); the vertical speed is never below half, so no ball bounces sideways for
    ever. Speed is 1.25 units per frame, and 0.25 more from the 4th and the 12th paddle hit with the same ball and
    from its first touch of a brick worth 7. Other bounces conserve it.
Parameters: frames_per_action, frames that each action lasts (the rewards add up; an ending cuts it short).
Source: Atari Breakout (1976, 2600: 1978), whose rules are followed.
Differs: the ball's serve is automatic; one wall; the paddle does not shrink.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype, uniform_between

COLUMNS, ROWS = 18, 6
LIVES = 5

# Every length that meets a float32 is one, so that compiled and plain Python agree bit for bit. The cells' sizes are
# powers of two, so that the cell of a position and the lines between cells are exact.
ZERO, ONE = np.float32(0), np.float32(1)
WIDTH, HEIGHT = np.float32(144), np.float32(104)
COLUMN_WIDTH, ROW_HEIGHT = np.float32(8), np.float32(4)
WALL_BOTTOM = np.float32(64)
CEILING_ROW = 10
PADDLE_Y = np.float32(6)
PADDLE_HALF = np.float32(8)
BALL_HALF = 0.75
REACH = np.float32(8.75)  # half the paddle and half the ball
PADDLE_SPEED = np.float32(2)
SERVE_Y = np.float32(56)
SERVE_SINE = 0.5
MAX_SINE = np.float32(0.85)
SPEED, GAIN = np.float32(1.25), np.float32(0.25)

State = state_dtype(
    paddle=np.float32,
    x=np.float32,
    y=np.float32,
    velocity_x=np.float32,
    velocity_y=np.float32,
    lives=np.float32,
    score=np.float32,
    hits=np.float32,  # of the paddle with this ball, counted to 12
    bricks=(np.float32, (ROWS * COLUMNS,)),  # as observed, so that observing is a straight copy
    bricks_left=np.int32,
    hurried=np.bool_,  # this ball has touched a brick worth 7
)
statistics = ("score", "bricks_left", "lives")

observation_space = spaces.Box(np.array([-1] * 5 + [0] * 111, np.float32), np.ones(116, np.float32), dtype=np.float32)
action_space = spaces.Discrete(3)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    frames_per_action: int = 4


def reset(state, p):
    state.paddle = WIDTH / np.float32(2)
    state.lives = LIVES
    state.score = ZERO
    state.bricks_left = ROWS * COLUMNS
    for i in range(ROWS * COLUMNS):
        state.bricks[i] = ONE
    serve(state)


def step(state, action, p):
    move = PADDLE_SPEED if action == 2 else (-PADDLE_SPEED if action == 1 else ZERO)
    score = state.score
    terminated = False
    for _ in range(p.frames_per_action):
        terminated = advance(state, move)
        if terminated:
            break
    return state.score - score, terminated


def observe(state, observation, p):
    observation[0] = state.paddle * np.float32(1 / 64) - np.float32(1.125)
    observation[1] = state.x * np.float32(1 / 72) - ONE
    observation[2] = state.y * np.float32(1 / 52) - ONE
    observation[3] = state.velocity_x * np.float32(0.4)
    observation[4] = state.velocity_y * np.float32(0.4)
    observation[5] = state.lives * np.float32(1 / 5)
    observation[6] = state.score * np.float32(1 / 432)
    observation[7] = state.hits * np.float32(1 / 12)
    bricks = state.bricks
    for i in range(ROWS * COLUMNS):
        observation[8 + i] = bricks[i]


@compiled
def advance(state, move):
    """One frame; returns whether the game is over."""
    state.paddle = min(max(state.paddle + move, PADDLE_HALF), WIDTH - PADDLE_HALF)
    x = state.x + state.velocity_x
    y = state.y + state.velocity_y
    if y >= WALL_BOTTOM or state.y >= WALL_BOTTOM:
        fly_among_bricks(state)
        return state.bricks_left == 0
    if y < PADDLE_Y:
        if y < ZERO:
            state.lives -= ONE
            serve(state)
            return state.lives == ZERO
        if state.y >= PADDLE_Y:
            x, y = meet_paddle(state, x, y)
    if x < ZERO:
        x = -x
        state.velocity_x = -state.velocity_x
    elif x > WIDTH:
        x = WIDTH + WIDTH - x
        state.velocity_x = -state.velocity_x
    state.x = x
    state.y = y
    return False


@compiled
def serve(state):
    """A new ball below the wall, falling."""
    state.hits = ZERO
    state.hurried = False
    state.x = np.float32(uniform_between(state, 24.0, 120.0))
    state.y = SERVE_Y
    launch(state, np.float32(uniform_between(state, -SERVE_SINE, SERVE_SINE)))
    state.velocity_y = -state.velocity_y


@compiled
def launch(state, sine):
    """Send the ball upwards; `sine` is that of its angle from the vertical."""
    speed = ball_speed(state)
    state.velocity_x = speed * sine
    state.velocity_y = speed * np.sqrt(ONE - sine * sine)


@compiled
def ball_speed(state):
    """Units per frame."""
    speed = SPEED
    if state.hits >= 4:
        speed += GAIN
    if state.hits >= 12:
        speed += GAIN
    if state.hurried:
        speed += GAIN
    return speed


@compiled
def meet_paddle(state, x, y):
    """The ball came down through the paddle's level to (x, y): where it is now, bounced or falling on."""
    since = (y - PADDLE_Y) / state.velocity_y  # the part of this frame after it met the level
    at = x - since * state.velocity_x
    if at < ZERO:
        at = -at
    elif at > WIDTH:
        at = WIDTH + WIDTH - at
    place = (at - state.paddle) / REACH
    if abs(place) > ONE:
        return x, y
    state.hits = min(state.hits + ONE, np.float32(12))
    launch(state, MAX_SINE * place)
    return at + since * state.velocity_x, PADDLE_Y + since * state.velocity_y


@compiled
def column_of(x):
    return math.floor(x / COLUMN_WIDTH)


@compiled
def row_of(y):
    return math.floor((y - WALL_BOTTOM) / ROW_HEIGHT)


@compiled
def fly_among_bricks(state):
    """One frame from cell to cell in the order in which the ball meets their borders; walls and bricks reflect it."""
    remaining = ONE
    column = min(column_of(state.x), COLUMNS - 1)  # on the right wall's line it is still inside
    row = row_of(state.y)
    while True:
        # Whether a border lies ahead is decided by the cell of the very position that would be stored: a crossing
        # can neither be missed nor seen twice by rounding.
        x = state.x + remaining * state.velocity_x
        y = state.y + remaining * state.velocity_y
        side = sign_of_crossing(state.velocity_x, column_of(x) - column)
        rise = sign_of_crossing(state.velocity_y, row_of(y) - row)
        if side == 0 and rise == 0:
            state.x = x
            state.y = y
            return
        border_x = COLUMN_WIDTH * np.float32(column + (side > 0))
        border_y = WALL_BOTTOM + ROW_HEIGHT * np.float32(row + (rise > 0))
        time_x = (border_x - state.x) / state.velocity_x if side != 0 else np.float32(2)
        time_y = (border_y - state.y) / state.velocity_y if rise != 0 else np.float32(2)
        time = min(max(min(time_x, time_y), ZERO), remaining)
        remaining -= time
        if time_x <= time_y:
            state.x = border_x
            state.y += time * state.velocity_y
            if solid(state, column + side, row):
                state.velocity_x = -state.velocity_x
                break_brick(state, column + side, row)
            else:
                column += side
        else:
            state.x += time * state.velocity_x
            state.y = border_y
            if solid(state, column, row + rise):
                state.velocity_y = -state.velocity_y
                break_brick(state, column, row + rise)
            else:
                row += rise


@compiled
def sign_of_crossing(velocity, cells):
    """1 or -1 where the ball moves into cells ahead; 0 where it stays, or only touches the border behind it."""
    if velocity > ZERO and cells > 0:
        return 1
    if velocity < ZERO and cells < 0:
        return -1
    return 0


@compiled
def solid(state, column, row):
    """Whether a cell is wall, ceiling or a standing brick."""
    if column < 0 or column >= COLUMNS or row == CEILING_ROW:
        return True
    return 0 <= row < ROWS and state.bricks[row * COLUMNS + column] != ZERO


@compiled
def break_brick(state, column, row):
    """The ball has met a solid cell: where it is a brick, it goes."""
    if 0 <= column < COLUMNS and row < ROWS:
        state.bricks[row * COLUMNS + column] = ZERO
        state.bricks_left -= 1
        state.score += np.float32(1 + 3 * (row // 2))
        if row >= 4 and not state.hurried:
            gain = ball_speed(state)
            state.hurried = True
            gain = ball_speed(state) / gain
            state.velocity_x *= gain
            state.velocity_y *= gain


BACKGROUND, EDGE = (0, 0, 0), (142, 142, 142)
ROW_COLOURS = ((66, 72, 200), (72, 160, 72), (162, 162, 42), (180, 122, 48), (198, 108, 58), (200, 72, 72))
frames_per_second = 60


def draw(state, canvas):
    canvas.world(-8, 152, -4, 116)
    canvas.fill(BACKGROUND)
    edge = BALL_HALF  # the ball's side touches where its centre turns
    for x0, y0, x1, y1 in ((-6, 0, -edge, 110), (144 + edge, 0, 150, 110), (-6, 104 + edge, 150, 110)):
        canvas.rectangle(x0, y0, x1, y1, EDGE)
    for i in range(ROWS * COLUMNS):
        if state.bricks[i]:
            x, y = 8 * (i % COLUMNS), 64 + 4 * (i // COLUMNS)
            canvas.rectangle(x + 0.4, y + 0.4, x + 7.6, y + 3.6, ROW_COLOURS[i // COLUMNS])
    canvas.rectangle(state.paddle - 8, 3.25, state.paddle + 8, 6 - edge, ROW_COLOURS[-1])
    canvas.rectangle(state.x - 1, state.y - 1, state.x + 1, state.y + 1, (230, 230, 230))
    canvas.text(-6, 111.5, f"{int(state.score):03d}", EDGE, 3.5)
    for life in range(int(state.lives)):
        canvas.rectangle(142 - 9 * life, 112.2, 150 - 9 * life, 113.8, ROW_COLOURS[-1])
