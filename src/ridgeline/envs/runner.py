"""Runner: run and jump to the flag at the end of a course that is generated from a level seed.

Lengths are eighths of a tile, x to the right, y upwards, whole numbers all. The runner's box is 6 wide and 7 high.

Observation
    index      meaning                                                           range
    0..87      solid, in 8 x 11 tiles around the runner's own, row by row from   0 or 1
               the lowest: 3 below to 4 above, 2 behind to 8 ahead
    88..175    deadly (spikes, lava), likewise                                   0 or 1
    176        x and 177 y of the box's lower left corner within its tile        0 .. 7
    178        3 + velocity to the right                                         0 .. 6
    179        6 + velocity upwards                                              0 .. 12
    180        1 on the ground                                                   0 or 1
    181..188   of the two nearest walkers within 64 to the left and right, the   0 .. 128
               one further left first: 64 + its distance to the right, 64 +
               upwards, 1 + its velocity's sign, 1; all four 0 where there is
               none
    uint8. With `pixels` = 1 a picture instead, 64 x 64 x 3 uint8: 16 x 16 tiles, the runner's in the fifth column.
Action: 0 stops, 1 runs right, 2 runs left, 3 jumps, 4 jumps right, 5 jumps left; a jump needs ground. Speed changes by
    1 a step, up to 3; a jump begins with 6 upwards, and gravity takes 1 a step, down to -6.
Reward: for each column reached for the first time its share of the course: 1 in all at the flag. Best mean return: 1;
    random play: 0.13 (easy) and 0.083 (hard).
Start: a course of 32 to 40 columns (easy) or 48 to 60 (hard): flats, steps, gaps, spikes, platforms over lava, walkers
    that turn round at the ends of their plateau. It is a pure function of the level's seed.
End: terminated at the flag, or by spikes, lava, a fall or a walker; truncated at 500 steps.
Parameters: num_levels, levels to draw from (0: unlimited); start_level, the first one; difficulty, 0 easy or 1 hard
    (wider gaps, higher steps, broader spikes, faster walkers); pixels, whether the observation is a picture (1 or 0).
Source: after CoinRun (Cobbe et al. 2019, "Quantifying generalization in reinforcement learning").
Differs: reward for the way; whole-number physics; a symbolic observation.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype
from ridgeline.levels import (
    LEVEL,
    OPEN,
    PICTURE,
    PIXELS,
    begin_level,
    canvas_of,
    level_integer,
    paint,
    paint_sprite,
    sprites,
    tiles,
)

UNIT = 8  # to a tile
WIDTH, HEIGHT = 6, 7
SOLID, DEADLY = 1, 2
BELOW, ABOVE, BEHIND, AHEAD = 3, 4, 2, 8  # the view
ROWS, COLUMNS = BELOW + ABOVE + 1, BEHIND + AHEAD + 1
MARGIN = 12  # columns and rows around the course, so that no view leaves the array
MAX_LENGTH = 76
WORLD_ROWS = 16
WALKERS = 12
SPEED, JUMP = 3, 6
START_COLUMN = 2

State = state_dtype(
    **LEVEL,
    x=np.int64,
    y=np.int64,
    velocity_x=np.int64,
    velocity_y=np.int64,
    grounded=np.bool_,
    furthest=np.int64,  # column
    goal=np.int64,  # column of the flag
    goal_row=np.int64,
    num_walkers=np.int64,
    walker_x=(np.int64, (WALKERS,)),
    walker_y=(np.int64, (WALKERS,)),
    walker_low=(np.int64, (WALKERS,)),  # between which it walks
    walker_high=(np.int64, (WALKERS,)),
    walker_velocity=(np.int64, (WALKERS,)),
    solved=np.bool_,
    grid=(np.uint8, (WORLD_ROWS + 2 * MARGIN, MAX_LENGTH + 2 * MARGIN)),
)
statistics = ("solved",)

TILES = ROWS * COLUMNS
SYMBOLS = spaces.Box(
    np.zeros(2 * TILES + 13, np.uint8),
    np.array([1] * 2 * TILES + [7, 7, 2 * SPEED, 2 * JUMP, 1] + [128, 128, 2, 1] * 2, np.uint8),
    dtype=np.uint8,
)
action_space = spaces.Discrete(6)
max_episode_steps = 500


class Parameters(NamedTuple):
    num_levels: int = 0
    start_level: int = 0
    difficulty: int = 0


class Structure(NamedTuple):
    pixels: int = 0


def observation_space(structure):
    return PICTURE if structure.pixels else SYMBOLS


def reset(state, p):
    begin_level(state, p)
    build(state, p.difficulty != 0)
    state.x = START_COLUMN * UNIT
    state.velocity_x = 0
    state.velocity_y = 0
    state.grounded = True
    state.furthest = START_COLUMN
    state.solved = False


def step(state, action, p):
    direction = action % 3
    wanted = SPEED if direction == 1 else (-SPEED if direction == 2 else 0)
    state.velocity_x += min(max(wanted - state.velocity_x, -1), 1)
    if state.grounded:
        state.velocity_y = JUMP if action >= 3 else 0
    else:
        state.velocity_y = max(state.velocity_y - 1, -JUMP)
    move(state)
    terminated = hurt(state)
    if walk(state):
        terminated = True
    before = state.furthest
    state.furthest = min(max(before, (state.x + WIDTH // 2) // UNIT), state.goal)
    if state.furthest == state.goal and not terminated:
        state.solved = True
        terminated = True
    return (state.furthest - before) / (state.goal - START_COLUMN), terminated


def observe(state, observation, p):
    if p.pixels != 0:
        paint_level(state, observation)
        return
    symbols = observation.reshape(observation.size)
    grid = state.grid
    column, row = state.x // UNIT, max(state.y // UNIT, -BELOW)
    left, bottom = MARGIN + column - BEHIND, MARGIN + row - BELOW
    for y in range(ROWS):
        for x in range(COLUMNS):
            symbols[y * COLUMNS + x] = grid[bottom + y, left + x] & SOLID
            symbols[(ROWS + y) * COLUMNS + x] = grid[bottom + y, left + x] >> 1
    symbols[2 * TILES] = state.x % UNIT
    symbols[2 * TILES + 1] = state.y % UNIT
    symbols[2 * TILES + 2] = SPEED + state.velocity_x
    symbols[2 * TILES + 3] = JUMP + state.velocity_y
    symbols[2 * TILES + 4] = state.grounded
    observe_walkers(state, symbols)


@compiled
def observe_walkers(state, observation):
    """The nearest two: walkers stand from left to right, so they are neighbours."""
    count = 0
    first = 0
    for i in range(state.num_walkers):
        distance = state.walker_x[i] - state.x
        if abs(distance) <= 64:
            if count == 2 and abs(distance) < abs(state.walker_x[first] - state.x):
                first += 1
            elif count < 2:
                first = i - count
                count += 1
    for place in range(2):
        index = 2 * TILES + 5 + 4 * place
        for i in range(4):
            observation[index + i] = 0
        if place < count:
            observation[index] = 64 + state.walker_x[first + place] - state.x
            observation[index + 1] = min(max(64 + state.walker_y[first + place] - state.y, 0), 128)
            observation[index + 2] = 1 if state.walker_velocity[first + place] < 0 else 2
            observation[index + 3] = 1


@compiled
def tile(state, column, row):
    return state.grid[MARGIN + row, MARGIN + column]


@compiled
def move(state):
    """One step of the box, first sideways, then up or down; solid tiles stop it."""
    x, y = state.x + state.velocity_x, state.y
    front = (x + WIDTH - 1) // UNIT if state.velocity_x > 0 else x // UNIT
    if tile(state, front, y // UNIT) == SOLID or tile(state, front, (y + HEIGHT - 1) // UNIT) == SOLID:
        x = front * UNIT - WIDTH if state.velocity_x > 0 else (front + 1) * UNIT
        state.velocity_x = 0
    left, right = x // UNIT, (x + WIDTH - 1) // UNIT
    y += state.velocity_y
    front = (y + HEIGHT - 1) // UNIT if state.velocity_y > 0 else y // UNIT
    if tile(state, left, front) == SOLID or tile(state, right, front) == SOLID:
        y = front * UNIT - HEIGHT if state.velocity_y > 0 else (front + 1) * UNIT
        state.velocity_y = 0
    state.x, state.y = x, y
    under = (y - 1) // UNIT
    state.grounded = state.velocity_y <= 0 and (tile(state, left, under) == SOLID or tile(state, right, under) == SOLID)


@compiled
def hurt(state):
    """Whether the runner fell out of the world, or its feet are in the lower half of something deadly."""
    if state.y < 0:
        return True
    row = state.y // UNIT
    return state.y % UNIT <= UNIT // 2 and (
        tile(state, (state.x + 1) // UNIT, row) == DEADLY or tile(state, (state.x + WIDTH - 2) // UNIT, row) == DEADLY
    )


@compiled
def walk(state):
    """One step of the walkers; whether one of them touches the runner."""
    touched = False
    for i in range(state.num_walkers):
        state.walker_x[i] += state.walker_velocity[i]
        if not state.walker_low[i] <= state.walker_x[i] <= state.walker_high[i]:
            state.walker_velocity[i] = -state.walker_velocity[i]
            state.walker_x[i] += 2 * state.walker_velocity[i]
        if abs(state.walker_x[i] - state.x) < WIDTH and -HEIGHT < state.walker_y[i] - state.y < WIDTH:
            touched = True
    return touched


# ---------------------------------------------------------------------------------------------------------- the course

FLAT, STEPS, GAP, SPIKES, PLATFORMS, PLATEAU = 0, 1, 2, 3, 4, 5


@compiled
def build(state, hard):
    """Sections in a random order, each with a landing behind it."""
    grid = state.grid
    grid[:] = OPEN
    for row in range(len(grid)):
        for column in range(MARGIN):
            grid[row, column] = SOLID
    state.num_walkers = 0
    length = 48 + level_integer(state, 13) if hard else 32 + level_integer(state, 9)
    ground = 2 + level_integer(state, 3)
    state.y = ground * UNIT
    column = raise_ground(state, 0, 4, ground)
    while column < length:
        kind = level_integer(state, 6)
        size = 1 + level_integer(state, 2)
        if kind == STEPS:
            rise = size if hard else 1
            if level_integer(state, 2) == 0:
                rise = -rise
            ground = min(max(ground + rise, 1), 8)
        elif kind == GAP:
            column = pour_lava(state, column, size + hard)
        elif kind == SPIKES:
            for _ in range(size if hard else 1):
                column = raise_ground(state, column, 1, ground)
                grid[MARGIN + ground, MARGIN + column - 1] = DEADLY
        elif kind == PLATFORMS:
            for _ in range(size):
                column = pour_lava(state, column, 2)
                height = min(max(ground + level_integer(state, 3) - 1, 1), 8)
                for x in range(column, column + 2):
                    grid[MARGIN + height - 1, MARGIN + x] = SOLID
                pour_lava(state, column, 2)
                column += 2
                ground = height
            column = pour_lava(state, column, 2)
        elif kind == PLATEAU:
            column = station_walker(state, column, ground, hard)
        column = raise_ground(state, column, 3, ground)
    state.goal = column
    state.goal_row = ground
    raise_ground(state, column, MARGIN, ground)


@compiled
def raise_ground(state, column, count, ground):
    """Solid columns up to the height `ground`; returns the column behind them."""
    for x in range(column, column + count):
        for row in range(ground):
            state.grid[MARGIN + row, MARGIN + x] = SOLID
    return column + count


@compiled
def pour_lava(state, column, count):
    """Columns with nothing but lava at the bottom; returns the column behind them."""
    for x in range(column, column + count):
        if state.grid[MARGIN, MARGIN + x] == OPEN:
            state.grid[MARGIN, MARGIN + x] = DEADLY
    return column + count


@compiled
def station_walker(state, column, ground, hard):
    """A plateau of seven columns between whose ends a walker goes to and fro; returns the column behind it."""
    i = state.num_walkers
    state.walker_low[i] = column * UNIT
    state.walker_high[i] = (column + 7) * UNIT - WIDTH
    state.walker_x[i] = column * UNIT + level_integer(state, 7 * UNIT - WIDTH)
    state.walker_y[i] = ground * UNIT
    state.walker_velocity[i] = 2 if hard else 1
    if level_integer(state, 2) == 0:
        state.walker_velocity[i] = -state.walker_velocity[i]
    state.num_walkers += 1
    return raise_ground(state, column, 7, ground)


PALETTE = {"-": (126, 192, 238), "d": (122, 84, 58), "g": (92, 172, 76), "l": (232, 84, 40), "y": (250, 160, 60),
           "s": (205, 210, 218), "f": (222, 60, 70), "w": (240, 240, 240), "r": (214, 64, 69), "k": (244, 208, 170),
           "n": (40, 46, 80), "v": (142, 68, 173)}  # fmt: skip
SKY_TILE, SOIL_TILE, GRASS_TILE, LAVA_TILE, SPIKE_TILE, FLAG_TILE = 0, 1, 2, 3, 4, 5
PICTURES = tiles(4, PALETTE, "---- ---- ---- ----", "dddd dddd dddd dddd", "gggg dddd dddd dddd", "lyll llll llyl llll",
                 "---- -s-s -s-s ssss", "wfff wfff w--- w---")  # fmt: skip
SPRITES = sprites(PALETTE, "rrr. kkk. rrr. n.n.", ".... vvv. wvw. vvv.")
CAMERA = 4  # columns of the picture to the left of the runner's


@compiled
def paint_level(state, observation):
    """16 x 16 tiles of 4 pixels, so two units a pixel."""
    canvas = canvas_of(observation, PICTURES)
    left = state.x // UNIT - CAMERA
    for row in range(WORLD_ROWS):
        for column in range(WORLD_ROWS):
            here = tile(state, left + column, WORLD_ROWS - 1 - row)
            chosen = SKY_TILE
            if here == SOLID:
                chosen = SOIL_TILE if tile(state, left + column, WORLD_ROWS - row) == SOLID else GRASS_TILE
            elif here == DEADLY:
                chosen = LAVA_TILE if row == WORLD_ROWS - 1 else SPIKE_TILE
            paint(canvas, PICTURES, chosen, column, row)
    if 0 <= state.goal - left < WORLD_ROWS:
        paint(canvas, PICTURES, FLAG_TILE, state.goal - left, WORLD_ROWS - 1 - state.goal_row)
    for i in range(state.num_walkers):
        paint_sprite(observation, SPRITES, 1, state.walker_x[i] // 2 - 4 * left, PIXELS - 4 - state.walker_y[i] // 2)
    paint_sprite(observation, SPRITES, 0, state.x // 2 - 4 * left, PIXELS - 4 - state.y // 2)


canvas_size = (480, 320)
frames_per_second = 25

SKY, SOIL, GRASS, LAVA = (126, 192, 238), (122, 84, 58), (92, 172, 76), (232, 84, 40)


def draw(state, canvas):
    left = max(state.x / UNIT - 7.0, -1.0)
    canvas.world(left, left + 24, -0.5, 15.5)
    canvas.fill(SKY)
    for i in range(-1, 5):  # hills, at a third of the speed
        middle = 9 * i + 0.66 * left - (0.66 * left) % 9 + 0.34 * ((0.66 * left) % 9)
        canvas.circle(middle + 4, -2.0, 6.5, (150, 206, 222))
    for column in range(int(left) - 1, int(left) + 26):
        for row in range(-1, WORLD_ROWS):
            cell = state.grid[MARGIN + row, MARGIN + column] if row >= 0 else state.grid[MARGIN, MARGIN + column]
            above = state.grid[MARGIN + row + 1, MARGIN + column]
            if cell == SOLID:
                canvas.rectangle(column, row, column + 1.02, row + 1.02, SOIL)
                if above != SOLID and row >= 0:
                    canvas.rectangle(column, row + 0.7, column + 1.02, row + 1.0, GRASS)
            elif cell == DEADLY and row < 1:
                canvas.rectangle(column, row, column + 1.02, row + (0.6 if row == 0 else 1.02), LAVA)
            elif cell == DEADLY:
                for x in (column, column + 0.5):
                    canvas.polygon([(x, row), (x + 0.25, row + 0.65), (x + 0.5, row)], (205, 210, 218))
    x, y = int(state.goal) + 0.5, int(state.goal_row)
    canvas.line(x, y, x, y + 3.2, (240, 240, 240), 0.12)
    canvas.polygon([(x, y + 3.2), (x + 1.4, y + 2.7), (x, y + 2.2)], (222, 60, 70))
    for i in range(state.num_walkers):
        x, y = state.walker_x[i] / UNIT + 0.375, state.walker_y[i] / UNIT + 0.375
        canvas.circle(x, y, 0.4, (142, 68, 173))
        side = 0.12 if state.walker_velocity[i] > 0 else -0.12
        for eye in (-0.13, 0.13):
            canvas.circle(x + eye + side, y + 0.12, 0.09, (255, 255, 255))
    x, y = state.x / UNIT, state.y / UNIT
    stride = 0.14 * ((int(state.x) // 4) % 2) if state.grounded else 0.18
    canvas.line(x + 0.25, y + 0.3, x + 0.15 - stride, y + 0.06, (40, 46, 80), 0.16)
    canvas.line(x + 0.5, y + 0.3, x + 0.6 + stride, y + 0.06, (40, 46, 80), 0.16)
    canvas.rectangle(x + 0.1, y + 0.25, x + 0.65, y + 0.62, (214, 64, 69))
    canvas.circle(x + 0.4, y + 0.78, 0.26, (244, 208, 170))
    canvas.rectangle(x + 0.12, y + 0.86, x + 0.7, y + 1.02, (214, 64, 69))
