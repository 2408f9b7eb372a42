"""What environments with generated levels share: the level's own random numbers, mazes, pictures made of tiles.

A level is a pure function of its seed: `begin_level` chooses the seed by the instance's generator and starts the
level's generator from it, and everything that makes or moves the level draws from the latter alone. Such an environment
has the parameters `num_levels` (0: unlimited) and `start_level`, and the State fields of `LEVEL`.
"""

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer

LEVEL = {"level": np.int64, "level_random": np.uint64}  # the seed, and the state of the level's generator
OPEN, WALL = 0, 1
UNLIMITED = 2**31  # levels from start_level on, where num_levels is 0

# Right, up, left, down; y grows downwards.
STEP_X = (1, 0, -1, 0)
STEP_Y = (0, -1, 0, 1)


@compiled
def begin_level(state, p):
    """Draw one of the levels start_level .. start_level + num_levels - 1, and start its generator."""
    state.level = p.start_level + random_integer(state, p.num_levels if p.num_levels > 0 else UNLIMITED)
    # SplitMix64 from a start that is itself mixed: generators of neighbouring levels are not shifts of each other.
    state.level_random = mix(np.uint64(state.level) + np.uint64(0x632BE59BD9B4E019))


@compiled
def mix(bits):
    """Scramble 64 bits (SplitMix64's finaliser; Steele et al. 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@compiled
def level_integer(state, count):
    """An int64 in 0 .. count - 1 from the level's generator (count far below 2**32)."""
    state.level_random += np.uint64(0x9E3779B97F4A7C15)
    return np.int64(((mix(state.level_random) >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32))


@compiled
def level_chance(state, percent):
    """Whether an event of this probability, in whole percent, happens."""
    return level_integer(state, 100) < percent


# --------------------------------------------------------------------------------------------------------------- mazes


@compiled
def carve_maze(state, grid, margin, size):
    """Fill `grid` with walls and carve a perfect maze, depth first: one way between any two cells.

    The maze takes size x size tiles (odd) from grid[margin, margin]; its cells are those at odd offsets.
    """
    grid[:] = WALL
    cells = size // 2
    x = margin + 1 + 2 * level_integer(state, cells)
    y = margin + 1 + 2 * level_integer(state, cells)
    grid[y, x] = 6  # a cell remembers the direction that it was entered by, plus 2, until the maze is ready
    left = cells * cells - 1
    while left > 0:
        count = 0
        for direction in range(4):
            count += uncarved(grid, margin, size, x + 2 * STEP_X[direction], y + 2 * STEP_Y[direction])
        if count == 0:
            direction = np.int64(grid[y, x]) - 2
            x -= 2 * STEP_X[direction]
            y -= 2 * STEP_Y[direction]
            continue
        skip = level_integer(state, count)
        for direction in range(4):
            if uncarved(grid, margin, size, x + 2 * STEP_X[direction], y + 2 * STEP_Y[direction]):
                if skip == 0:
                    grid[y + STEP_Y[direction], x + STEP_X[direction]] = OPEN
                    x += 2 * STEP_X[direction]
                    y += 2 * STEP_Y[direction]
                    grid[y, x] = 2 + direction
                    break
                skip -= 1
        left -= 1
    for y in range(margin + 1, margin + size, 2):
        for x in range(margin + 1, margin + size, 2):
            grid[y, x] = OPEN


@compiled
def uncarved(grid, margin, size, x, y):
    """Whether (x, y) is a cell of the maze that is still wall."""
    return margin < x < margin + size and margin < y < margin + size and grid[y, x] == WALL


@compiled
def open_dead_ends(state, grid, margin, size):
    """Carve a second way out of every cell that has only one, where that stays inside the maze: loops."""
    for y in range(margin + 1, margin + size, 2):
        for x in range(margin + 1, margin + size, 2):
            count = 0
            for direction in range(4):
                count += grid[y + STEP_Y[direction], x + STEP_X[direction]] == OPEN
            first = level_integer(state, 4)
            for turn in range(4):
                direction = (first + turn) % 4
                wall_x, wall_y = x + STEP_X[direction], y + STEP_Y[direction]
                inside = margin < wall_x < margin + size - 1 and margin < wall_y < margin + size - 1
                if count == 1 and inside and grid[wall_y, wall_x] == WALL:
                    grid[wall_y, wall_x] = OPEN
                    count = 2


# ------------------------------------------------------------------------------------------------------------- pictures

PIXELS = 64  # the picture's height and width
PICTURE = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)  # the observation where the structure's `pixels` is 1


def tiles(size: int, palette: dict[str, tuple[int, int, int]], *drawings: str) -> np.ndarray:
    """Tiles to `paint`: each drawing has `size` words of `size` letters, and each letter is a colour of `palette`.

    Returns an array (tiles, size, 3) of words as wide as `size` bytes: one line of a tile is `size` pixels of 3 bytes,
    so three words, and is copied in three moves.
    """
    lines = [[palette[letter] for word in drawing.split() for letter in word] for drawing in drawings]
    pixels = np.array(lines, np.uint8).reshape(len(drawings), size, 3 * size)
    return np.ascontiguousarray(pixels).view({2: np.uint16, 4: np.uint32, 8: np.uint64}[size])


@compiled
def canvas_of(observation, atlas):
    """The picture as one line of words, for `paint`."""
    return observation.reshape(observation.size).view(atlas.dtype)


@compiled
def paint(canvas, atlas, tile, column, row):
    """Copy a tile of `atlas` to (column, row), counted in tiles from the picture's upper left corner."""
    size = atlas.shape[1]
    line = 3 * (PIXELS // size)
    place = row * size * line + 3 * column
    for y in range(size):
        canvas[place] = atlas[tile, y, 0]
        canvas[place + 1] = atlas[tile, y, 1]
        canvas[place + 2] = atlas[tile, y, 2]
        place += line


@compiled
def paint_sprite(observation, sprites, sprite, left, top):
    """Draw a sprite, (sprites, height, width, 3) with black as transparent, at a pixel; what is outside is cut."""
    canvas = observation.reshape(observation.size)
    for y in range(max(0, -top), min(sprites.shape[1], PIXELS - top)):
        for x in range(max(0, -left), min(sprites.shape[2], PIXELS - left)):
            if sprites[sprite, y, x, 0] | sprites[sprite, y, x, 1] | sprites[sprite, y, x, 2]:
                place = 3 * (PIXELS * (top + y) + left + x)
                for colour in range(3):
                    canvas[place + colour] = sprites[sprite, y, x, colour]


def sprites(palette: dict[str, tuple[int, int, int]], *drawings: str) -> np.ndarray:
    """Sprites to `paint_sprite`, all of one size: each drawing is lines of letters; `.` is transparent."""
    colours = {".": (0, 0, 0), **palette}
    return np.array([[[colours[one] for one in word] for word in drawing.split()] for drawing in drawings], np.uint8)
