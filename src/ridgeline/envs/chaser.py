"""Chaser: eat every orb of a maze that is generated from a level seed, and let no ghost catch you.

Observation
    index      meaning                                                           range
    0..120     wall, in the 11 x 11 tiles around the player, row by row from     0 or 1
               the upper left corner
    121..241   orb, likewise                                                     0 or 1
    242..362   star, likewise                                                    0 or 1
    363..368   of each ghost: 16 + columns from the player to it, 16 + rows,     0 .. 31
               downwards; both 0 where there is no third ghost
    369        steps for which the ghosts can still be eaten                     0 .. 40
    370        whether the ghosts move in the coming step                        0 or 1
    uint8. With `pixels` = 1 a picture instead, 64 x 64 x 3 uint8: the whole maze.
Action: 0 moves right, 1 up, 2 left, 3 down by one tile; into a wall it stays.
Reward: 1 / (number of orbs and stars) for each of them: 1 in all, when the maze is empty. Best mean return: 1; random
    play: 0.17 (easy) and 0.077 (hard).
Start: a maze without dead ends of 5 x 5 cells, 2 ghosts and 4 stars (easy) or 7 x 7 cells, 3 ghosts and 4 stars (hard);
    an orb on every other free tile; the ghosts far away. All of it, and how the ghosts decide, is a pure function of
    the level's seed and of the actions.
End: terminated when the maze is empty, or a ghost and the player meet; truncated at 500 steps.
Physics: the player moves first. Ghosts move in every second step (easy) or in two of three (hard), while they can be
    eaten in every third. They never turn back. At a crossing they come as near to the player as they can in half (easy)
    or three quarters (hard) of the cases and choose at random else; while they can be eaten, they keep away instead. A
    star makes them so for 40 steps (easy) or 25 (hard); who is eaten begins again at its first place.
Parameters: num_levels, levels to draw from (0: unlimited); start_level, the first one; difficulty, 0 easy or 1 hard;
    pixels, whether the observation is a picture (1 or 0).
Source: after Procgen's chaser (Cobbe et al. 2020, "Leveraging procedural generation to benchmark reinforcement
    learning") and Pac-Man.
Differs: no eggs; one tile per step; all orbs together are worth 1, ghosts nothing; a symbolic observation.
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
    STEP_X,
    STEP_Y,
    WALL,
    begin_level,
    canvas_of,
    carve_maze,
    level_chance,
    level_integer,
    open_dead_ends,
    paint,
    tiles,
)

MAX_SIZE = 15
RADIUS = 5  # of the view; the grid has a margin of as many walls
VIEW = 2 * RADIUS + 1
ORB, STAR = 2, 4
GHOSTS, STARS = 3, 4
SHIFT = 16

State = state_dtype(
    **LEVEL,
    side=np.int64,  # tiles per side of the maze
    x=np.int64,
    y=np.int64,
    num_ghosts=np.int64,
    ghost_x=(np.int64, (GHOSTS,)),
    ghost_y=(np.int64, (GHOSTS,)),
    ghost_direction=(np.int64, (GHOSTS,)),
    home_x=(np.int64, (GHOSTS,)),
    home_y=(np.int64, (GHOSTS,)),
    edible=np.int64,  # steps left
    elapsed=np.int64,
    num_orbs=np.int64,  # at the beginning, stars included
    orbs_left=np.int64,
    solved=np.bool_,
    grid=(np.uint8, (MAX_SIZE + 2 * RADIUS, MAX_SIZE + 2 * RADIUS)),
)
statistics = ("solved", "orbs_left")

TILES = VIEW * VIEW
SYMBOLS = spaces.Box(
    np.zeros(3 * TILES + 8, np.uint8), np.array([1] * 3 * TILES + [31] * 6 + [40, 1], np.uint8), dtype=np.uint8
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
    hard = p.difficulty != 0
    state.side = 15 if hard else 11
    state.num_ghosts = 3 if hard else 2
    carve_maze(state, state.grid, RADIUS, state.side)
    open_dead_ends(state, state.grid, RADIUS, state.side)
    state.num_orbs = scatter_orbs(state)
    state.orbs_left = state.num_orbs
    for i in range(GHOSTS):
        place_ghost(state, i)
    state.edible = 0
    state.elapsed = 0
    state.solved = False


def step(state, action, p):
    hard = p.difficulty != 0
    x, y = state.x + STEP_X[action], state.y + STEP_Y[action]
    reward = 0.0
    state.edible = max(state.edible - 1, 0)
    if state.grid[y, x] != WALL:
        state.x = x
        state.y = y
        if state.grid[y, x] != OPEN:
            if state.grid[y, x] == STAR:
                state.edible = 25 if hard else 40
            state.grid[y, x] = OPEN
            state.orbs_left -= 1
            reward = 1.0 / state.num_orbs
    terminated = meet(state)
    if ghosts_move(state, p):
        for i in range(state.num_ghosts):
            haunt(state, i, 75 if hard else 50)
        terminated = meet(state) or terminated
    state.elapsed += 1
    state.solved = state.orbs_left == 0
    return reward, bool(terminated or state.solved)


def observe(state, observation, p):
    if p.pixels != 0:
        paint_level(state, observation)
        return
    symbols = observation.reshape(observation.size)
    grid, left, top = state.grid, state.x - RADIUS, state.y - RADIUS
    for row in range(VIEW):
        for column in range(VIEW):
            here = grid[top + row, left + column]
            symbols[row * VIEW + column] = here & WALL
            symbols[(VIEW + row) * VIEW + column] = (here >> 1) & 1
            symbols[(2 * VIEW + row) * VIEW + column] = here >> 2
    for i in range(GHOSTS):
        seen = i < state.num_ghosts
        symbols[3 * TILES + 2 * i] = SHIFT + state.ghost_x[i] - state.x if seen else 0
        symbols[3 * TILES + 2 * i + 1] = SHIFT + state.ghost_y[i] - state.y if seen else 0
    symbols[3 * TILES + 6] = state.edible
    symbols[3 * TILES + 7] = ghosts_move(state, p)


@compiled
def ghosts_move(state, p):
    """Whether the ghosts move in the coming step."""
    if state.edible > 1:
        return state.elapsed % 3 == 0
    return state.elapsed % 3 != 0 if p.difficulty != 0 else state.elapsed % 2 == 1


@compiled
def haunt(state, i, percent):
    """Move ghost i by one tile."""
    x, y, back = state.ghost_x[i], state.ghost_y[i], (state.ghost_direction[i] + 2) % 4
    aims = level_chance(state, percent)
    chosen, best = -1, 0
    for direction in range(4):
        new_x, new_y = x + STEP_X[direction], y + STEP_Y[direction]
        if direction == back or state.grid[new_y, new_x] == WALL:
            continue
        # Random numbers in the lowest digits break ties; alone they are a random choice.
        worth = level_integer(state, 1000)
        if aims:
            distance = abs(new_x - state.x) + abs(new_y - state.y)
            worth += 1000 * (distance if state.edible > 0 else 100 - distance)
        if chosen < 0 or worth > best:
            chosen, best = direction, worth
    if chosen < 0:
        chosen = back
    state.ghost_direction[i] = chosen
    state.ghost_x[i] = x + STEP_X[chosen]
    state.ghost_y[i] = y + STEP_Y[chosen]


@compiled
def meet(state):
    """Whether a ghost catches the player; ghosts that can be eaten go home instead."""
    caught = False
    for i in range(state.num_ghosts):
        if state.ghost_x[i] == state.x and state.ghost_y[i] == state.y:
            if state.edible > 0:
                state.ghost_x[i] = state.home_x[i]
                state.ghost_y[i] = state.home_y[i]
            else:
                caught = True
    return caught


@compiled
def random_cell(state):
    """(x, y) of a cell of the maze."""
    cells = state.side // 2
    return RADIUS + 1 + 2 * level_integer(state, cells), RADIUS + 1 + 2 * level_integer(state, cells)


@compiled
def scatter_orbs(state):
    """Orbs, the player and stars; returns the number of orbs and stars."""
    count = 0
    for y in range(RADIUS, RADIUS + state.side):
        for x in range(RADIUS, RADIUS + state.side):
            if state.grid[y, x] == OPEN:
                state.grid[y, x] = ORB
                count += 1
    state.x, state.y = random_cell(state)
    state.grid[state.y, state.x] = OPEN
    stars = 0
    while stars < STARS:
        x, y = random_cell(state)
        if state.grid[y, x] == ORB:
            state.grid[y, x] = STAR
            stars += 1
    return count - 1


@compiled
def place_ghost(state, i):
    """The farthest of six cells, in steps along the axes."""
    farthest = -1
    for _ in range(6):
        x, y = random_cell(state)
        distance = abs(x - state.x) + abs(y - state.y)
        if distance > farthest:
            farthest = distance
            state.home_x[i] = x
            state.home_y[i] = y
    state.ghost_x[i] = state.home_x[i]
    state.ghost_y[i] = state.home_y[i]
    state.ghost_direction[i] = level_integer(state, 4)


PALETTE = {".": (14, 14, 26), "w": (44, 52, 120), "v": (58, 68, 148), "o": (246, 226, 180), "s": (255, 214, 64),
           "p": (250, 210, 50), "r": (226, 74, 74), "k": (238, 140, 196), "c": (84, 200, 220), "f": (66, 84, 206),
           "W": (255, 255, 255)}  # fmt: skip
GHOST_SHAPE = ".gg. WgWg gggg g.g."
PLAYER_TILE, GHOST_TILE, FRIGHTENED_TILE = 5, 6, 9
PICTURES = tiles(
    4, PALETTE, ".... .... .... ....", "wwww wvvw wvvw wwww", ".... .oo. .oo. ....", ".... .... .... ....",
    ".ss. ssss ssss .ss.", ".pp. ppp. ppp. .pp.",
    *(GHOST_SHAPE.replace("g", colour) for colour in "rkcf"),
)  # fmt: skip


@compiled
def paint_level(state, observation):
    """The whole maze in the middle of the picture, in tiles of 4 pixels: the tile of a code has its number."""
    canvas = canvas_of(observation, PICTURES)
    before = RADIUS - (16 - state.side) // 2
    for row in range(16):
        for column in range(16):
            paint(canvas, PICTURES, np.int64(state.grid[before + row, before + column]), column, row)
    paint(canvas, PICTURES, PLAYER_TILE, state.x - before, state.y - before)
    for i in range(state.num_ghosts):
        tile = FRIGHTENED_TILE if state.edible > 0 else GHOST_TILE + i
        paint(canvas, PICTURES, tile, state.ghost_x[i] - before, state.ghost_y[i] - before)


canvas_size = (400, 400)
frames_per_second = 8

GHOST_COLOURS = ((226, 74, 74), (238, 140, 196), (84, 200, 220))
FRIGHTENED = (66, 84, 206)


def draw(state, canvas):
    side = int(state.side)
    canvas.world(0, side, 0, side)
    canvas.fill((14, 14, 26))
    for row in range(side):
        for column in range(side):
            cell = state.grid[RADIUS + row, RADIUS + column]
            x, y = column + 0.5, side - 0.5 - row
            if cell == WALL:
                canvas.rectangle(x - 0.5, y - 0.5, x + 0.52, y + 0.52, (44, 52, 120))
                canvas.rectangle(x - 0.36, y - 0.36, x + 0.36, y + 0.36, (58, 68, 148))
            elif cell == ORB:
                canvas.circle(x, y, 0.1, (246, 226, 180))
            elif cell == STAR:
                points = [(0.36 if i % 2 == 0 else 0.15, 2.5 * 3.14159 + i * 3.14159 / 5) for i in range(10)]
                canvas.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for r, a in points], (255, 214, 64))
    x, y = state.x - RADIUS + 0.5, side - 0.5 - (state.y - RADIUS)
    canvas.circle(x, y, 0.4, (250, 210, 50))
    canvas.polygon([(x, y), (x + 0.45, y + 0.22), (x + 0.45, y - 0.22)], (14, 14, 26))
    for i in range(int(state.num_ghosts)):
        x, y = state.ghost_x[i] - RADIUS + 0.5, side - 0.5 - (state.ghost_y[i] - RADIUS)
        colour = FRIGHTENED if state.edible > 0 else GHOST_COLOURS[i]
        canvas.circle(x, y + 0.06, 0.36, colour)
        canvas.rectangle(x - 0.36, y - 0.36, x + 0.36, y + 0.06, colour)
        for eye in (-0.14, 0.14):
            canvas.circle(x + eye, y + 0.1, 0.1, (255, 255, 255))
            canvas.circle(x + eye, y + 0.1, 0.05, (20, 20, 60))
