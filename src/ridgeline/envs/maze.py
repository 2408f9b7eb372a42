"""Maze: find the cheese in a maze that is generated from a level seed.

Observation
    index     meaning                                                            range
    0..80     wall, in the 9 x 9 tiles around the mouse, row by row from the     0 or 1
              upper left corner
    81..161   trail: the mouse has been there, likewise                          0 or 1
    162       25 + columns from the mouse to the cheese                          1 .. 49
    163       25 + rows from the mouse to the cheese, downwards                  1 .. 49
    uint8. With `pixels` = 1 a picture instead, 64 x 64 x 3 uint8: the whole maze, its trail, the mouse and the cheese.
Action: 0 moves right, 1 up, 2 left, 3 down by one tile; into a wall it stays.
Reward: 1 at the cheese. Best mean return: 1; random play: 0.49 (easy) and 0.31 (hard).
Start: a perfect maze (one way between any two cells) of 3 x 3 to 7 x 7 cells (easy) or 3 x 3 to 12 x 12 (hard); mouse
    and cheese in two different cells. Maze and places are a pure function of the level's seed.
End: terminated at the cheese; truncated at 500 steps.
Parameters: num_levels, levels to draw from (0: unlimited); start_level, the first one; difficulty, 0 easy or 1 hard;
    pixels, whether the observation is a picture (1 or 0).
Source: after Procgen's maze (Cobbe et al. 2020, "Leveraging procedural generation to benchmark reinforcement
    learning").
Differs: depth-first mazes; four actions; the trail; a symbolic observation.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype
from ridgeline.levels import (
    LEVEL,
    PICTURE,
    STEP_X,
    STEP_Y,
    WALL,
    begin_level,
    canvas_of,
    carve_maze,
    level_integer,
    paint,
    tiles,
)

MAX_SIZE = 25
RADIUS = 4  # of the view; the grid has a margin of as many walls
VIEW = 2 * RADIUS + 1
TRAIL = 2  # a bit beside WALL

State = state_dtype(
    **LEVEL,
    side=np.int64,  # tiles per side, odd
    x=np.int64,
    y=np.int64,
    goal_x=np.int64,
    goal_y=np.int64,
    solved=np.bool_,
    grid=(np.uint8, (MAX_SIZE + 2 * RADIUS, MAX_SIZE + 2 * RADIUS)),
)
statistics = ("solved",)

SYMBOLS = spaces.Box(
    np.zeros(2 * VIEW * VIEW + 2, np.uint8), np.array([1] * (2 * VIEW * VIEW) + [49] * 2, np.uint8), dtype=np.uint8
)
action_space = spaces.Discrete(4)
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
    state.side = 7 + 2 * level_integer(state, 5 if p.difficulty == 0 else 10)
    carve_maze(state, state.grid, RADIUS, state.side)
    cells = state.side // 2
    start = level_integer(state, cells * cells)
    goal = level_integer(state, cells * cells - 1)
    if goal >= start:
        goal += 1
    state.x, state.y = RADIUS + 1 + 2 * (start % cells), RADIUS + 1 + 2 * (start // cells)
    state.goal_x, state.goal_y = RADIUS + 1 + 2 * (goal % cells), RADIUS + 1 + 2 * (goal // cells)
    state.grid[state.y, state.x] = TRAIL
    state.solved = False


def step(state, action, p):
    x, y = state.x + STEP_X[action], state.y + STEP_Y[action]
    if state.grid[y, x] != WALL:
        state.x = x
        state.y = y
        state.grid[y, x] = TRAIL
    state.solved = state.x == state.goal_x and state.y == state.goal_y
    return (1.0 if state.solved else 0.0), bool(state.solved)


def observe(state, observation, p):
    if p.pixels != 0:
        paint_level(state, observation)
        return
    symbols = observation.reshape(observation.size)
    grid, left, top = state.grid, state.x - RADIUS, state.y - RADIUS
    for row in range(VIEW):
        for column in range(VIEW):
            symbols[row * VIEW + column] = grid[top + row, left + column] & WALL
            symbols[(VIEW + row) * VIEW + column] = grid[top + row, left + column] >> 1
    symbols[2 * VIEW * VIEW] = MAX_SIZE + state.goal_x - state.x
    symbols[2 * VIEW * VIEW + 1] = MAX_SIZE + state.goal_y - state.y


PALETTE = {"w": (38, 50, 72), "v": (52, 66, 92), "f": (236, 232, 218), "t": (190, 182, 156), "y": (245, 190, 50),
           "o": (205, 145, 25), "m": (118, 110, 126), "e": (150, 128, 140), "b": (20, 20, 30),
           "k": (235, 140, 150)}  # fmt: skip
CHEESE, MOUSE = 3, 4
TILES = tiles(4, PALETTE, "ffff ffff ffff ffff", "wwww wvvw wvvw wwww", "ffff fttf fttf ffff", "fffy fyyy yyoy yyyy",
              "emme mmmm bmmb mkkm")  # fmt: skip
SMALL_TILES = tiles(2, PALETTE, "ff ff", "ww ww", "tt tt", "yy yo", "mm bm")


@compiled
def paint_level(state, observation):
    """The whole maze in the middle of the picture, in tiles of 4 pixels or, where it is too large, of 2."""
    if state.side <= 16:
        paint_large(state, canvas_of(observation, TILES))
    else:
        paint_small(state, canvas_of(observation, SMALL_TILES))


@compiled
def paint_large(state, canvas):
    before = RADIUS - (16 - state.side) // 2
    for row in range(16):
        for column in range(16):
            paint(canvas, TILES, np.int64(state.grid[before + row, before + column]), column, row)
    paint(canvas, TILES, CHEESE, state.goal_x - before, state.goal_y - before)
    paint(canvas, TILES, MOUSE, state.x - before, state.y - before)


@compiled
def paint_small(state, canvas):
    before = RADIUS - (32 - state.side) // 2
    last = len(state.grid) - 1
    for row in range(32):
        y = min(max(before + row, 0), last)  # beyond the grid there is wall, as at its rim
        for column in range(32):
            paint(canvas, SMALL_TILES, np.int64(state.grid[y, min(max(before + column, 0), last)]), column, row)
    paint(canvas, SMALL_TILES, CHEESE, state.goal_x - before, state.goal_y - before)
    paint(canvas, SMALL_TILES, MOUSE, state.x - before, state.y - before)


canvas_size = (400, 400)
frames_per_second = 12


def draw(state, canvas):
    size = int(state.side)
    canvas.world(-0.5, size + 0.5, -0.5, size + 0.5)
    canvas.fill((38, 50, 72))
    for row in range(size):
        for column in range(size):
            cell = state.grid[RADIUS + row, RADIUS + column]
            x, y = column, size - 1 - row
            if cell != WALL:
                canvas.rectangle(x - 0.02, y - 0.02, x + 1.02, y + 1.02, (236, 232, 218))
            if cell == TRAIL:
                canvas.circle(x + 0.5, y + 0.5, 0.14, (190, 182, 156))
    x, y = state.goal_x - RADIUS + 0.5, size - 0.5 - (state.goal_y - RADIUS)
    canvas.polygon([(x - 0.4, y - 0.3), (x + 0.4, y - 0.3), (x + 0.4, y + 0.05), (x - 0.4, y + 0.35)], (245, 190, 50))
    canvas.circle(x + 0.15, y - 0.1, 0.09, (205, 145, 25))
    canvas.circle(x - 0.18, y - 0.02, 0.07, (205, 145, 25))
    x, y = state.x - RADIUS + 0.5, size - 0.5 - (state.y - RADIUS)
    for side in (-0.22, 0.22):
        canvas.circle(x + side, y + 0.2, 0.15, (150, 128, 140))
    canvas.circle(x, y - 0.05, 0.3, (118, 110, 126))
    canvas.circle(x - 0.1, y, 0.05, (20, 20, 30))
    canvas.circle(x + 0.1, y, 0.05, (20, 20, 30))
    canvas.circle(x, y - 0.14, 0.06, (235, 140, 150))
