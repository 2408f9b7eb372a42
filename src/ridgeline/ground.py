"""A map for an environment's agents: a torus of tiles that hold goods and grow them back; one agent on a tile.

Kinds of ground: grass, forest, rock, water. The first three hold the goods 0, 1, 2; nobody enters water. Tiles are
numbered row by row: tile y * size + x, y downwards. A State has a map when it holds the fields of `map_of`.
"""

import numpy as np

from ridgeline.kernel import compiled, random_integer, uniform

GRASS, FOREST, ROCK, WATER = range(4)
NORTH, EAST, SOUTH, WEST = range(1, 5)
NOBODY = -1
CAPACITY = 3  # units on a tile
SITES = (6, 5, 3, 2)  # of each kind
NUM_SITES = 16
GROWTH_SHARE = 16  # each step one tile in so many is drawn to grow


def map_of(num_agents: int, size: int) -> dict:
    """The fields of a State with a map, for `state_dtype(**map_of(...), ...)`."""
    tiles = size * size
    return dict(
        kind=(np.int8, (tiles,)),
        amount=(np.int8, (tiles,)),  # units on each tile
        occupant=(np.int16, (tiles,)),  # the agent there, or NOBODY
        nearest=(np.int8, (tiles, 3)),  # the nearest site of grass, forest, rock
        site=(np.int16, (NUM_SITES, 2)),  # x, y
        x=(np.int16, (num_agents,)),
        y=(np.int16, (num_agents,)),
    )


@compiled
def draw_map(state, size):
    """Each tile takes the kind of the nearest of the random sites, and a random amount; there is nobody yet."""
    for i in range(NUM_SITES):
        state.site[i, 0] = random_integer(state, size)
        state.site[i, 1] = random_integer(state, size)
    for tile in range(size * size):
        best = 1 << 30
        begin = 0
        for kind in range(4):
            own = 1 << 30
            for i in range(begin, begin + SITES[kind]):
                across = shortest(state.site[i, 0] - tile % size, size)
                down = shortest(state.site[i, 1] - tile // size, size)
                distance = across * across + down * down
                if distance < own:
                    own = distance
                    if kind != WATER:
                        state.nearest[tile, kind] = i
            if own < best:
                best = own
                state.kind[tile] = kind
            begin += SITES[kind]
        state.amount[tile] = 0 if state.kind[tile] == WATER else random_integer(state, CAPACITY + 1)
        state.occupant[tile] = NOBODY


@compiled
def grow(state, size, food, wood, ore):
    """A share of the tiles is drawn at random; each grows one unit with the probability of its good."""
    for _ in range(size * size // GROWTH_SHARE):
        tile = random_integer(state, size * size)
        kind = state.kind[tile]
        if state.amount[tile] < CAPACITY and kind != WATER:
            if uniform(state) < (food if kind == GRASS else wood if kind == FOREST else ore):
                state.amount[tile] += 1


@compiled
def shortest(difference, size):
    """The difference of two coordinates the shorter way around, from -size/2 to size/2."""
    if 2 * difference > size:
        return difference - size
    if 2 * difference < -size:
        return difference + size
    return difference


@compiled
def neighbour(tile, direction, size):
    """The tile to the north, east, south or west."""
    x, y = tile % size, tile // size
    if direction == NORTH:
        y = y - 1 if y > 0 else size - 1
    elif direction == EAST:
        x = x + 1 if x < size - 1 else 0
    elif direction == SOUTH:
        y = y + 1 if y < size - 1 else 0
    else:
        x = x - 1 if x > 0 else size - 1
    return y * size + x


@compiled
def is_free(state, tile):
    return state.kind[tile] != WATER and state.occupant[tile] == NOBODY


@compiled
def tile_of(state, agent, size):
    return np.int64(state.y[agent]) * size + state.x[agent]


@compiled
def enter(state, agent, tile, size):
    state.x[agent] = tile % size
    state.y[agent] = tile // size
    state.occupant[tile] = agent


@compiled
def leave(state, agent, size):
    state.occupant[tile_of(state, agent, size)] = NOBODY
