"""Collector: gather the gems of nine rooms that are generated from a level seed; keys open locked doors, lava burns.

Observation
    index      meaning                                                           range
    0..80      closed (wall, or a door whose key is not held), in the 9 x 9      0 or 1
               tiles around the player, row by row from the upper left corner
    81..161    lava, likewise                                                    0 or 1
    162..242   gem, likewise                                                     0 or 1
    243..323   key, likewise                                                     0 or 1
    324..404   locked door whose key is held, likewise                           0 or 1
    405..413   1 at the room that the player is in or came from, row by row      0 or 1
    414..422   gems in each room                                                 0 .. 8
    423..431   keys in each room                                                 0 .. 3
    432..443   between two neighbouring rooms: 0 wall, 1 a door whose key is     0 .. 2
               missing, 2 a way; six side by side, then six one above the other
    uint8; the map of indices 405 and up makes it the whole state, but for the tiles that are out of sight. With
    `pixels` = 1 a picture instead, 64 x 64 x 3 uint8: all rooms.
Action: 0 moves right, 1 up, 2 left, 3 down by one tile; into a wall or a locked door it stays. A door whose key is held
    opens as the player walks into it, and stays open; keys stay too.
Reward: 1 / (number of gems) for each gem: 1 in all. Best mean return: 1; random play: 0.12 (easy) and 0.030 (hard).
Start: nine rooms of 4 x 4 tiles, joined as a tree; 5 gems and 1 locked door (easy) or 8 gems and 3 locked doors (hard),
    behind each of which there is a gem; at most one tile of lava (easy) or two (hard) and a pillar in a room. Rooms,
    things and places are a pure function of the level's seed.
End: terminated when all gems are gathered, or in lava; truncated at 500 steps.
Parameters: num_levels, levels to draw from (0: unlimited); start_level, the first one; difficulty, 0 easy or 1 hard;
    pixels, whether the observation is a picture (1 or 0).
Source: after Procgen's heist and miner (Cobbe et al. 2020, "Leveraging procedural generation to benchmark reinforcement
    learning").
Differs: rooms; many gems; lava; keys of all colours open their doors in any order; a symbolic observation.
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
    level_chance,
    level_integer,
    paint,
    tiles,
)

ROOMS = 9
PITCH = 5  # tiles from one room to the next; the last of them is wall
SIDE = 3 * PITCH + 1
RADIUS = 4  # of the view; the grid has a margin of as many walls
VIEW = 2 * RADIUS + 1
TILES = VIEW * VIEW
LAVA, GEM, KEY, DOOR = 2, 3, 4, 7  # keys 4, 5, 6 and doors 7, 8, 9 of three colours
COLOURS = 3
WAYS = 12

State = state_dtype(
    **LEVEL,
    x=np.int64,
    y=np.int64,
    num_gems=np.int64,
    gems_left=np.int64,
    key=(np.uint8, (COLOURS,)),  # 1 where it is held
    room=np.int64,  # that the player is in or came from
    gems_in=(np.uint8, (ROOMS,)),
    keys_in=(np.uint8, (ROOMS,)),
    way=(np.uint8, (WAYS,)),  # 0 wall, 1 open, 2 + colour locked
    solved=np.bool_,
    grid=(np.uint8, (SIDE + 2 * RADIUS, SIDE + 2 * RADIUS)),
)
statistics = ("solved", "gems_left")

SYMBOLS = spaces.Box(
    np.zeros(5 * TILES + 3 * ROOMS + WAYS, np.uint8),
    np.array([1] * (5 * TILES + ROOMS) + [8] * ROOMS + [3] * ROOMS + [2] * WAYS, np.uint8),
    dtype=np.uint8,
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
    build(state, p.difficulty != 0)
    state.gems_left = state.num_gems
    for colour in range(COLOURS):
        state.key[colour] = 0
    state.solved = False


def step(state, action, p):
    x, y = state.x + STEP_X[action], state.y + STEP_Y[action]
    here = state.grid[y, x]
    if here == WALL or (here >= DOOR and state.key[here - DOOR] == 0):
        return 0.0, False
    state.x = x
    state.y = y
    if here == LAVA:
        return 0.0, True
    room = room_at(x, y)
    if room >= 0:
        state.room = room
    reward = 0.0
    state.grid[y, x] = OPEN
    if here == GEM:
        state.gems_left -= 1
        state.gems_in[room] -= 1
        state.solved = state.gems_left == 0
        reward = 1.0 / state.num_gems
    elif KEY <= here < DOOR:
        state.key[here - KEY] = 1
        state.keys_in[room] -= 1
    return reward, bool(state.solved)


def observe(state, observation, p):
    if p.pixels != 0:
        paint_level(state, observation)
        return
    symbols = observation.reshape(observation.size)
    grid, left, top = state.grid, state.x - RADIUS, state.y - RADIUS
    for row in range(VIEW):
        for column in range(VIEW):
            here = grid[top + row, left + column]
            place = row * VIEW + column
            held = here >= DOOR and state.key[here - DOOR] == 1
            symbols[place] = here == WALL or (here >= DOOR and not held)
            symbols[TILES + place] = here == LAVA
            symbols[2 * TILES + place] = here == GEM
            symbols[3 * TILES + place] = KEY <= here < DOOR
            symbols[4 * TILES + place] = held
    place = 5 * TILES
    for room in range(ROOMS):
        symbols[place + room] = room == state.room
        symbols[place + ROOMS + room] = state.gems_in[room]
        symbols[place + 2 * ROOMS + room] = state.keys_in[room]
    for i in range(WAYS):
        way = state.way[i]
        is_open = way == 1 or (way > 1 and state.key[way - 2] == 1)
        symbols[place + 3 * ROOMS + i] = 2 if is_open else way > 1


@compiled
def room_at(x, y):
    """The room of a tile of the grid; -1 in the wall between two rooms."""
    column, row = x - RADIUS - 1, y - RADIUS - 1
    if column % PITCH == PITCH - 1 or row % PITCH == PITCH - 1:
        return -1
    return 3 * (row // PITCH) + column // PITCH


# ------------------------------------------------------------------------------------------------------------ the level


@compiled
def build(state, hard):
    """Rooms in the order in which they were joined to the tree: what a door locks in comes after its key's room."""
    grid = state.grid
    grid[:] = WALL
    for room in range(ROOMS):
        state.gems_in[room] = 0
        state.keys_in[room] = 0
        for i in range(16):
            grid[corner(room // 3) + i // 4, corner(room % 3) + i % 4] = OPEN
    for i in range(WAYS):
        state.way[i] = 0
    num_locks = 3 if hard else 1
    state.num_gems = 8 if hard else 5
    order = join_rooms(state, num_locks)
    for room in range(ROOMS):
        if hard:
            obstruct(state, room, LAVA)
        if level_chance(state, 50):
            obstruct(state, room, LAVA)
        if level_chance(state, 60):
            obstruct(state, room, WALL)
    start = order & 15
    state.x = 0
    put(state, start, OPEN)
    state.room = start
    for colour in range(num_locks):
        locked = lock_place(colour, num_locks)
        put(state, (order >> (4 * level_integer(state, locked))) & 15, KEY + colour)
        put(state, (order >> (4 * locked)) & 15, GEM)
    for _ in range(state.num_gems - num_locks):
        put(state, level_integer(state, ROOMS), GEM)


@compiled
def corner(index):
    """The first tile of a room, along either axis."""
    return RADIUS + 1 + PITCH * index


@compiled
def lock_place(colour, num_locks):
    """The number, in the order of rooms, of the one behind the door of this colour."""
    return 5 if num_locks == 1 else 3 + 2 * colour


@compiled
def join_rooms(state, num_locks):
    """Grow a random tree of rooms, with doors; returns the rooms in its order, 4 bits each from the lowest."""
    order = level_integer(state, ROOMS)
    joined = 1 << order
    for count in range(1, ROOMS):
        while True:
            room, direction = level_integer(state, ROOMS), level_integer(state, 4)
            column, row = room % 3 + STEP_X[direction], room // 3 + STEP_Y[direction]
            other = 3 * row + column
            if joined >> room & 1 and 0 <= column < 3 and 0 <= row < 3 and not joined >> other & 1:
                break
        joined |= 1 << other
        order |= other << (4 * count)
        lock = 0
        for colour in range(num_locks):
            if lock_place(colour, num_locks) == count:
                lock = 1 + colour
        first, along = min(room, other), level_integer(state, 4)
        y, x = corner(first // 3), corner(first % 3)
        if direction % 2 == 0:
            y, x = y + along, x + PITCH - 1
            state.way[2 * (first // 3) + first % 3] = 1 + lock
        else:
            y, x = y + PITCH - 1, x + along
            state.way[6 + first] = 1 + lock
        state.grid[y, x] = OPEN if lock == 0 else DOOR + lock - 1
    return order


@compiled
def obstruct(state, room, kind):
    """Put lava or a pillar on a tile that is before no door and touches no other one, corners included: no way is cut.

    Where no tile is found in a few attempts, there is none.
    """
    for _ in range(4):
        x = corner(room % 3) + level_integer(state, 4)
        y = corner(room // 3) + level_integer(state, 4)
        free = True
        for direction in range(4):
            near_x, near_y = x + STEP_X[direction], y + STEP_Y[direction]
            if room_at(near_x, near_y) < 0 and state.grid[near_y, near_x] != WALL:
                free = False
        for near_y in range(y - 1, y + 2):
            for near_x in range(x - 1, x + 2):
                if room_at(near_x, near_y) == room and state.grid[near_y, near_x] != OPEN:
                    free = False
        if free:
            state.grid[y, x] = kind
            return


@compiled
def put(state, room, thing):
    """Put a thing, or for OPEN the player, on a free tile of the room."""
    while True:
        x = corner(room % 3) + level_integer(state, 4)
        y = corner(room // 3) + level_integer(state, 4)
        if state.grid[y, x] == OPEN and not (x == state.x and y == state.y):
            break
    state.grid[y, x] = thing
    if thing == OPEN:
        state.x = x
        state.y = y
    elif thing == GEM:
        state.gems_in[room] += 1
    else:
        state.keys_in[room] += 1


PALETTE = {".": (226, 216, 196), "w": (84, 78, 92), "v": (104, 97, 112), "l": (226, 78, 40), "y": (250, 170, 60),
           "g": (224, 92, 172), "d": (170, 40, 120), "0": (46, 134, 222), "1": (56, 173, 96), "2": (222, 120, 36),
           "b": (30, 30, 40), "p": (40, 60, 110), "s": (244, 208, 170)}  # fmt: skip
PLAYER = 10
PICTURES = tiles(
    4, PALETTE, ".... .... .... ....", "wwww wvvw wvvw wwww", "llll lyll llyl llll", ".gg. gggg dddd .dd.",
    *(".c.. cccc .c.c ....".replace("c", colour) for colour in "012"),
    *("cccc cbbc ccbc cccc".replace("c", colour) for colour in "012"),
    ".pp. pssp psbp .pp.",
)  # fmt: skip


@compiled
def paint_level(state, observation):
    """All rooms, in tiles of 4 pixels: the tile of a code has its number; the keys held in the upper left corner."""
    canvas = canvas_of(observation, PICTURES)
    for row in range(SIDE):
        for column in range(SIDE):
            paint(canvas, PICTURES, np.int64(state.grid[RADIUS + row, RADIUS + column]), column, row)
    for colour in range(COLOURS):
        if state.key[colour] == 1:
            paint(canvas, PICTURES, KEY + colour, colour, 0)
    paint(canvas, PICTURES, PLAYER, state.x - RADIUS, state.y - RADIUS)


canvas_size = (400, 400)
frames_per_second = 12

FLOOR, STONE, EDGE = (226, 216, 196), (84, 78, 92), (104, 97, 112)
KEY_COLOURS = ((46, 134, 222), (56, 173, 96), (222, 120, 36))


def draw(state, canvas):
    canvas.world(0, SIDE, 0, SIDE)
    canvas.fill(STONE)
    for row in range(SIDE):
        for column in range(SIDE):
            cell = int(state.grid[RADIUS + row, RADIUS + column])
            x, y = column + 0.5, SIDE - 0.5 - row
            if cell == WALL:
                canvas.rectangle(x - 0.42, y - 0.42, x + 0.42, y + 0.42, EDGE)
                continue
            canvas.rectangle(x - 0.5, y - 0.5, x + 0.52, y + 0.52, FLOOR)
            if cell == LAVA:
                canvas.rectangle(x - 0.46, y - 0.46, x + 0.46, y + 0.46, (226, 78, 40))
                canvas.circle(x - 0.15, y + 0.1, 0.14, (250, 170, 60))
                canvas.circle(x + 0.2, y - 0.18, 0.1, (250, 170, 60))
            elif cell == GEM:
                canvas.polygon([(x - 0.32, y + 0.1), (x, y - 0.36), (x + 0.32, y + 0.1)], (170, 40, 120))
                canvas.polygon([(x - 0.32, y + 0.1), (x - 0.16, y + 0.32), (x + 0.16, y + 0.32), (x + 0.32, y + 0.1)],
                               (224, 92, 172))  # fmt: skip
            elif cell >= DOOR:
                canvas.rectangle(x - 0.46, y - 0.46, x + 0.46, y + 0.46, KEY_COLOURS[cell - DOOR])
                canvas.circle(x, y + 0.08, 0.12, (30, 30, 40))
                canvas.rectangle(x - 0.05, y - 0.25, x + 0.05, y + 0.05, (30, 30, 40))
            elif cell >= KEY:
                draw_key(canvas, x, y, KEY_COLOURS[cell - KEY])
    for colour in range(COLOURS):
        if state.key[colour]:
            draw_key(canvas, 0.5 + colour, SIDE - 0.5, KEY_COLOURS[colour])
    x, y = state.x - RADIUS + 0.5, SIDE - 0.5 - (state.y - RADIUS)
    canvas.circle(x, y, 0.38, (40, 60, 110))
    canvas.circle(x, y + 0.05, 0.27, (244, 208, 170))
    for eye in (-0.1, 0.1):
        canvas.circle(x + eye, y + 0.08, 0.045, (20, 20, 30))


def draw_key(canvas, x, y, colour):
    canvas.circle(x - 0.18, y, 0.18, colour)
    canvas.circle(x - 0.18, y, 0.07, FLOOR)
    canvas.line(x, y, x + 0.34, y, colour, 0.1)
    canvas.line(x + 0.3, y, x + 0.3, y - 0.18, colour, 0.1)
