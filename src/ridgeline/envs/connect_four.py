"""Connect four: two players drop discs into seven columns in turn; four in a row, in any direction, win.

Observation
    index        meaning                                                                    range
    observation  42 cells from the lowest row upwards, each row from the left:
                 1 where the player has a disc, -1 where the other one has, else 0           -1 .. 1
    action_mask  7 columns: 1 where there is room                                            0 or 1
Action: the column. (A full one is never allowed; were it chosen, the first one with room would be taken.)
Reward: 1 for a win, -1 for a loss, 0 for a draw. Random play against random play: 0 in the mean; the one who starts
    wins 55.6%, loses 44.1% (measured). With perfect play whoever starts wins, by the middle column (Allen 1988, Allis
    1988): 0 is the best mean of both.
Start: an empty board; who starts is drawn anew in every game. A player acts when it is its turn.
End: terminated with a win or a full board, after 7 to 42 discs.
Source: Connect Four (Wexler & Strongin 1974); Allis 1988, "A knowledge-based approach of Connect-Four".
Differs: -
Version: 1
"""

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype

COLUMNS, ROWS = 7, 6
HIGH = ROWS + 1  # bits of a column: its top one is always empty, so that no line wraps round
DIRECTIONS = (1, HIGH, HIGH - 1, HIGH + 1)  # up, right, down right, up right

State = state_dtype(
    discs=(np.int64, (2,)),  # of each player: bit column * HIGH + row
    height=(np.int64, (COLUMNS,)),
    turn=np.int64,
    moves=np.int64,
    last=np.int64,  # the bit of the last disc, -1 before the first: for the picture
)

num_agents = 2
observation_space = spaces.Box(-1.0, 1.0, (COLUMNS * ROWS,), np.float32)
action_space = spaces.Discrete(COLUMNS)


def reset(state, p):
    state.discs[:] = 0
    state.height[:] = 0
    state.turn = random_integer(state, 2)
    state.moves = 0
    state.last = -1


def alive(state, agent):
    return state.turn == agent


def step(state, action, reward, terminated, p):
    agent = state.turn
    column = action[agent]
    if state.height[column] == ROWS:
        column = 0
        while state.height[column] == ROWS:
            column += 1
    state.last = column * HIGH + state.height[column]
    state.discs[agent] |= 1 << state.last
    state.height[column] += 1
    state.moves += 1
    state.turn = 1 - agent
    if has_four(state.discs[agent]):
        reward[agent] = 1.0
        reward[1 - agent] = -1.0
        return True
    return state.moves == COLUMNS * ROWS


@compiled
def has_four(discs):
    """Whether four bits lie at equal distances in one of the four directions."""
    for shift in DIRECTIONS:
        pairs = discs & (discs >> shift)
        if pairs & (pairs >> (2 * shift)):
            return True
    return False


def observe(state, agent, observation, p):
    own, other = state.discs[agent], state.discs[1 - agent]
    for column in range(COLUMNS):
        for row in range(ROWS):
            bit = column * HIGH + row
            observation[row * COLUMNS + column] = ((own >> bit) & 1) - ((other >> bit) & 1)


def action_mask(state, agent, mask, p):
    for column in range(COLUMNS):
        mask[column] = state.height[column] < ROWS


canvas_size = (420, 380)
frames_per_second = 2


def draw(state, canvas):
    canvas.world(-0.1, 7.1, -0.1, 6.5)
    canvas.fill((236, 240, 241))
    canvas.rectangle(0.0, 0.0, 7.0, 6.0, (41, 98, 180))
    for column in range(COLUMNS):
        for row in range(ROWS):
            bit = column * HIGH + row
            one, two = (int(state.discs[agent]) >> bit & 1 for agent in range(2))
            colour = (241, 196, 15) if one else (214, 64, 50) if two else (236, 240, 241)
            canvas.circle(column + 0.5, row + 0.5, 0.42, colour)
            if bit == state.last:
                canvas.circle(column + 0.5, row + 0.5, 0.12, (40, 40, 40))
    canvas.circle(0.3, 6.25, 0.18, (241, 196, 15) if state.turn == 0 else (214, 64, 50))
