"""Space invaders: shoot forty aliens, which march, come lower and shoot back, before they land or hit.

The field is 96 wide and 80 high, x to the right, y upwards, all in whole units.

Observation
    index      meaning                                                              range
    0          the player's x / 96                                                  0 .. 1
    1, 2, 3    its shot: 1 where there is one, x / 96, y / 80 (0 where none)        0 .. 1
    4, 5       the block of aliens: x / 96 of its first column, y / 80 of its lowest row   about -1 .. 1
    6          1 where it marches to the right, -1 to the left                      -1 or 1
    7          steps until it moves / 6                                             0 .. 1
    8 ... 47   1 where an alien lives; rows from the lowest, each from the left     0 or 1
    48 ... 56  of three alien shots: 1 where there is one, x / 96, y / 80 (0 where none)  0 .. 1
Action: 0 stays, 1 moves left, 2 moves right (by 2), 3 shoots, where no shot of the player is in the air.
Reward: 1 for each alien. The optimum is 40, which a scripted player that aims and dodges reaches
    (tests/test_arcade.py). Random play: 11.7 (measured).
Start: the player in the middle; forty aliens in five rows of eight, at a random place; nothing in the air.
End: terminated when an alien shot hits the player, when a living alien comes down to the player's height, or when all
    are dead; truncated at 3,000 steps.
Physics: aliens are 6 wide and 4 high, 10 apart across and 7 apart upwards. The block moves by 1 every
    1 + living // 8 steps; where a living alien would leave the field, it turns and comes down by 3 instead. The player,
    7 wide and 4 high at the bottom, has one shot at a time, 4 up per step. Aliens have three, 1 down per step: while
    one is free, with probability `fire` in each step, the lowest alien of a random living column shoots.
Parameters: fire. Statistics: killed.
Source: Space Invaders (Taito 1978).
Differs: no shields, one life, one wave.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, copy_row, random_integer, state_dtype, uniform

ROWS, COLUMNS, SHOTS = 5, 8, 3
WIDTH, HEIGHT = 96, 80
ACROSS, UPWARDS, HALF_WIDTH, HALF_HEIGHT = 10, 7, 3, 2
PLAYER_HALF, PLAYER_TOP = 3, 4
PER_WIDTH, PER_HEIGHT = 1 / WIDTH, 1 / HEIGHT  # products: a division takes four times as long

State = state_dtype(
    x=np.int64,
    shot_x=np.int64, shot_y=np.int64,  # y is 0 where there is none
    block_x=np.int64, block_y=np.int64, direction=np.int64, wait=np.int64,
    alive=(np.int8, (ROWS * COLUMNS,)), killed=np.int64,
    fall_x=(np.int64, (SHOTS,)), fall_y=(np.int64, (SHOTS,)),  # y is 0 where there is none
)  # fmt: skip

_low = np.array([0] * 4 + [-1, -1, -1] + [0] * 50, np.float32)
observation_space = spaces.Box(_low, np.ones(57, np.float32), dtype=np.float32)
action_space = spaces.Discrete(4)
max_episode_steps = 3_000
statistics = ("killed",)


class Parameters(NamedTuple):
    fire: float = 0.04


def reset(state, p):
    state.x = WIDTH // 2
    state.shot_y = 0
    state.shot_x = 0
    state.block_x = HALF_WIDTH + random_integer(state, WIDTH - 2 * HALF_WIDTH - (COLUMNS - 1) * ACROSS + 1)
    state.block_y = 46
    state.direction = 1 if uniform(state) < 0.5 else -1
    state.alive[:] = 1
    state.killed = 0
    state.wait = period(state)
    state.fall_x[:] = 0
    state.fall_y[:] = 0


@compiled
def period(state):
    return 1 + (ROWS * COLUMNS - state.killed) // 8


def step(state, action, p):
    if action == 1:
        state.x = max(state.x - 2, PLAYER_HALF)
    elif action == 2:
        state.x = min(state.x + 2, WIDTH - PLAYER_HALF)
    elif action == 3 and state.shot_y == 0:
        state.shot_x = state.x
        state.shot_y = PLAYER_TOP
    state.wait -= 1
    if state.wait == 0:
        march(state)
        state.wait = period(state)
    reward = fly(state)
    if state.killed == ROWS * COLUMNS:
        return reward, True
    if fall(state):
        return reward, True
    shoot(state, p)
    return reward, lowest(state) <= PLAYER_TOP + HALF_HEIGHT


@compiled
def march(state):
    """Move the block by 1, or turn and come down."""
    first, last = 0, COLUMNS - 1
    while first < last and not lives(state, first):
        first += 1
    while first < last and not lives(state, last):
        last -= 1
    left = state.block_x + first * ACROSS - HALF_WIDTH + state.direction
    right = state.block_x + last * ACROSS + HALF_WIDTH + state.direction
    if left < 0 or right > WIDTH:
        state.direction = -state.direction
        state.block_y -= 3
    else:
        state.block_x += state.direction


@compiled
def lives(state, column):
    """Whether an alien of the column does."""
    for row in range(ROWS):
        if state.alive[row * COLUMNS + column]:
            return True
    return False


@compiled
def fly(state):
    """The player's shot, unit by unit; 1.0 where it kills an alien."""
    if state.shot_y == 0:
        return 0.0
    for _ in range(4):
        state.shot_y += 1
        if state.shot_y > HEIGHT:
            state.shot_y = 0
            return 0.0
        across = state.shot_x - state.block_x + HALF_WIDTH
        upwards = state.shot_y - state.block_y + HALF_HEIGHT
        if across < 0 or upwards < 0:
            continue
        column, row = across // ACROSS, upwards // UPWARDS
        if column >= COLUMNS or row >= ROWS or across % ACROSS > 2 * HALF_WIDTH or upwards % UPWARDS > 2 * HALF_HEIGHT:
            continue
        if state.alive[row * COLUMNS + column]:
            state.alive[row * COLUMNS + column] = 0
            state.killed += 1
            state.shot_y = 0
            return 1.0
    return 0.0


@compiled
def fall(state):
    """The aliens' shots; whether one hits the player."""
    for i in range(SHOTS):
        if state.fall_y[i] > 0:
            state.fall_y[i] -= 1
            if state.fall_y[i] > 0 and state.fall_y[i] <= PLAYER_TOP and abs(state.fall_x[i] - state.x) <= PLAYER_HALF:
                return True
    return False


@compiled
def shoot(state, p):
    """Perhaps the lowest alien of a random living column shoots."""
    if uniform(state) >= p.fire:
        return
    free = -1
    for i in range(SHOTS):
        if state.fall_y[i] == 0:
            free = i
    start = random_integer(state, COLUMNS)
    for i in range(COLUMNS):
        column = (start + i) % COLUMNS
        for row in range(ROWS):
            if free >= 0 and state.alive[row * COLUMNS + column]:
                state.fall_x[free] = state.block_x + column * ACROSS
                state.fall_y[free] = max(state.block_y + row * UPWARDS - HALF_HEIGHT, 0)
                return


@compiled
def lowest(state):
    """The height of the lowest living alien."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            if state.alive[row * COLUMNS + column]:
                return state.block_y + row * UPWARDS
    return HEIGHT


def observe(state, observation, p):
    there = state.shot_y > 0
    observation[0] = state.x * PER_WIDTH
    observation[1] = there
    observation[2] = state.shot_x * PER_WIDTH if there else 0.0
    observation[3] = state.shot_y * PER_HEIGHT
    observation[4] = state.block_x * PER_WIDTH
    observation[5] = state.block_y * PER_HEIGHT
    observation[6] = state.direction
    observation[7] = state.wait * (1 / 6)
    copy_row(observation, 8, state.alive, 0, ROWS * COLUMNS)
    for i in range(SHOTS):
        there = state.fall_y[i] > 0
        observation[48 + 3 * i] = there
        observation[49 + 3 * i] = state.fall_x[i] * PER_WIDTH if there else 0.0
        observation[50 + 3 * i] = state.fall_y[i] * PER_HEIGHT


canvas_size = (480, 400)
frames_per_second = 30
COLOURS = ((120, 220, 120), (120, 220, 120), (240, 220, 100), (240, 220, 100), (230, 120, 180))


def draw(state, canvas):
    canvas.world(0, WIDTH, 0, HEIGHT)
    canvas.fill((12, 12, 24))
    for row in range(ROWS):
        for column in range(COLUMNS):
            if state.alive[row * COLUMNS + column]:
                x, y = int(state.block_x) + column * ACROSS, int(state.block_y) + row * UPWARDS
                canvas.rectangle(x - 3, y - 1, x + 3, y + 2, COLOURS[row])
                for leg in (-2.5, 1.5):
                    canvas.rectangle(x + leg, y - 2, x + leg + 1, y - 1, COLOURS[row])
                for eye in (-1.5, 0.7):
                    canvas.rectangle(x + eye, y + 0.2, x + eye + 0.8, y + 1, (12, 12, 24))
    x = int(state.x)
    canvas.rectangle(x - 3.5, 0, x + 3.5, 2.5, (90, 170, 240))
    canvas.rectangle(x - 0.7, 2.5, x + 0.7, 4, (90, 170, 240))
    if state.shot_y > 0:
        canvas.rectangle(state.shot_x - 0.3, state.shot_y, state.shot_x + 0.3, state.shot_y + 2.5, (250, 250, 250))
    for i in range(SHOTS):
        if state.fall_y[i] > 0:
            canvas.rectangle(state.fall_x[i] - 0.3, state.fall_y[i], state.fall_x[i] + 0.3, state.fall_y[i] + 2.5,
                             (250, 110, 90))  # fmt: skip
