"""MinAtar's Space Invaders: shoot down waves of aliens before one of their bullets meets the cannon, on a 10 x 10 grid.

Observation
    index      meaning                                         range
    [y, x, 0]  the cannon                                      0 or 1
    [y, x, 1]  an alien                                        0 or 1
    [y, x, 2]  an alien, while they move to the left           0 or 1
    [y, x, 3]  an alien, while they move to the right          0 or 1
    [y, x, 4]  a bullet of the player's                        0 or 1
    [y, x, 5]  a bullet of the aliens'                         0 or 1
    y is the row from the top, x the column; uint8.
    Hidden: the last action (it may be repeated), the timers and the wave.
Action: 1 moves left, 3 moves right by one cell, 5 shoots if the last shot is 5 steps ago or more; 0, 2 and 4 wait. With
    probability `sticky_action_prob` the action before is done again in place of the one given.
Reward: 1 for each alien. Mean score of random play: 2.9. Without a known bound; PPO of
    gymnax's authors: 131.
Start: 4 x 6 aliens in rows 0 to 3, moving to the left; the cannon at column 5.
End: terminated when a bullet or an alien meets the cannon, or the aliens would leave the last row; truncated at 10,000
    steps.
Physics: bullets move by one cell per step. The aliens move by one cell every `interval` + 1 steps, at first 12 + 1, and
    sooner when fewer than 12 are left; where the next cell would be outside, all move down and turn. Every 11 steps the
    lowest alien of the column that is nearest to the cannon shoots. When a wave is cleared the next one comes at once,
    its interval shorter by 1, down to 6. Nothing but the sticky actions is random.
Parameters: sticky_action_prob; difficulty_ramping, whether later waves are faster (1 or 0).
Source: Young & Tian 2019, arXiv:1903.03176; step for step the package MinAtar 1.0.15, given the same random numbers.
Differs: a time limit, as in all five games; the action before the first one of an episode is 0, where the package keeps
    the last one of the episode before; uint8, not bool.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, state_dtype, uniform

SIZE = 10
LEFT, RIGHT, SHOOT = 1, 3, 5
FULL_ROW = 2**SIZE - 1
WAVE_ROWS, WAVE = 4, 0b0011111100
SHOT_INTERVAL, MOVE_INTERVAL, SHORTEST, ALIEN_SHOT_INTERVAL = 5, 12, 6, 10

State = state_dtype(
    x=np.int32,
    aliens=(np.int32, (SIZE,)),  # bit x of each row, here and in the next two
    bullets=(np.int32, (SIZE,)),
    alien_bullets=(np.int32, (SIZE,)),
    num_aliens=np.int32,
    aliens_right=np.int32,  # 1 or -1
    move_interval=np.int32,
    move_timer=np.int32,
    alien_shot_timer=np.int32,
    shot_timer=np.int32,
    waves=np.int32,  # cleared
    last_action=np.int32,
)
statistics = ("waves",)

observation_space = spaces.Box(0, 1, (SIZE, SIZE, 6), np.uint8)
action_space = spaces.Discrete(6)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    sticky_action_prob: float = 0.1
    difficulty_ramping: int = 1


def reset(state, p):
    state.x = 5
    for row in range(SIZE):
        state.aliens[row] = 0
        state.bullets[row] = 0
        state.alien_bullets[row] = 0
    begin_wave(state)
    state.aliens_right = -1
    state.move_interval = MOVE_INTERVAL
    state.move_timer = MOVE_INTERVAL
    state.alien_shot_timer = ALIEN_SHOT_INTERVAL
    state.shot_timer = 0
    state.waves = 0
    state.last_action = 0


def step(state, action, p):
    if uniform(state) >= p.sticky_action_prob:
        state.last_action = action
    last_row = SIZE - 1
    if state.last_action == SHOOT and state.shot_timer == 0:
        state.bullets[last_row] |= 1 << state.x
        state.shot_timer = SHOT_INTERVAL
    elif state.last_action == LEFT:
        state.x = max(state.x - 1, 0)
    elif state.last_action == RIGHT:
        state.x = min(state.x + 1, last_row)
    for row in range(last_row):
        state.bullets[row] = state.bullets[row + 1]
        state.alien_bullets[last_row - row] = state.alien_bullets[last_row - row - 1]
    state.bullets[last_row] = 0
    state.alien_bullets[0] = 0
    here = 1 << state.x
    terminated = (state.alien_bullets[last_row] | state.aliens[last_row]) & here != 0
    if state.move_timer == 0:
        state.move_timer = min(state.num_aliens, state.move_interval)
        landed = move_aliens(state)
        terminated = terminated or landed or state.aliens[last_row] & here != 0
    if state.alien_shot_timer == 0:
        state.alien_shot_timer = ALIEN_SHOT_INTERVAL
        alien_shoots(state)
    killed = strike(state)
    if state.shot_timer > 0:
        state.shot_timer -= 1
    state.move_timer -= 1
    state.alien_shot_timer -= 1
    if state.num_aliens == 0:
        if state.move_interval > SHORTEST and p.difficulty_ramping != 0:
            state.move_interval -= 1
        state.waves += 1
        begin_wave(state)
    return float(killed), terminated


def observe(state, observation, p):
    observation[:] = 0
    observation[SIZE - 1, state.x, 0] = 1
    direction = 2 if state.aliens_right < 0 else 3
    for y in range(SIZE):
        if state.aliens[y] | state.bullets[y] | state.alien_bullets[y] == 0:
            continue
        for x in range(SIZE):
            alien = (state.aliens[y] >> x) & 1
            observation[y, x, 1] = alien
            observation[y, x, direction] = alien
            observation[y, x, 4] = (state.bullets[y] >> x) & 1
            observation[y, x, 5] = (state.alien_bullets[y] >> x) & 1


@compiled
def begin_wave(state):
    for row in range(WAVE_ROWS):
        state.aliens[row] = WAVE
    state.num_aliens = 24


@compiled
def move_aliens(state):
    """One cell sideways, or down where they would leave the grid; returns whether one stood in the last row then."""
    edge = 1 if state.aliens_right < 0 else 1 << (SIZE - 1)
    if occupied(state) & edge == 0:
        for row in range(SIZE):
            state.aliens[row] = state.aliens[row] << 1 if state.aliens_right > 0 else state.aliens[row] >> 1
        return False
    state.aliens_right = -state.aliens_right
    last = state.aliens[SIZE - 1]
    for row in range(SIZE - 1, 0, -1):
        state.aliens[row] = state.aliens[row - 1]
    state.aliens[0] = last
    return last != 0


@compiled
def alien_shoots(state):
    """The lowest alien of the column nearest to the cannon, of two the left one; some alien is always there."""
    columns = occupied(state)
    for distance in range(SIZE):
        for side in range(-1, 2, 2):
            x = state.x + side * distance
            if 0 <= x < SIZE and (columns >> x) & 1 != 0:
                for row in range(SIZE - 1, -1, -1):
                    if (state.aliens[row] >> x) & 1 != 0:
                        state.alien_bullets[row] |= 1 << x
                        return


@compiled
def occupied(state):
    """Bit x: whether an alien is in column x."""
    columns = 0
    for row in range(SIZE):
        columns |= state.aliens[row]
    return columns


@compiled
def strike(state):
    """Aliens and the player's bullets that meet vanish; returns how many aliens did."""
    before = state.num_aliens
    for row in range(SIZE):
        both = state.aliens[row] & state.bullets[row]
        state.aliens[row] ^= both
        state.bullets[row] ^= both
        while both != 0:
            both &= both - 1
            state.num_aliens -= 1
    return before - state.num_aliens


canvas_size = (360, 360)
frames_per_second = 15


def draw(state, canvas):
    canvas.world(0, SIZE, 0, SIZE)
    canvas.fill((0, 0, 0))
    for y in range(SIZE):
        bottom = SIZE - y - 1
        for x in range(SIZE):
            if (state.aliens[y] >> x) & 1:
                canvas.rectangle(x + 0.1, bottom + 0.25, x + 0.9, bottom + 0.85, (120, 200, 120))
                for eye in (0.28, 0.58):
                    canvas.rectangle(x + eye, bottom + 0.5, x + eye + 0.14, bottom + 0.68, (0, 0, 0))
            if (state.bullets[y] >> x) & 1:
                canvas.rectangle(x + 0.42, bottom + 0.1, x + 0.58, bottom + 0.9, (230, 230, 230))
            if (state.alien_bullets[y] >> x) & 1:
                canvas.rectangle(x + 0.42, bottom + 0.1, x + 0.58, bottom + 0.9, (220, 90, 60))
    x = state.x
    canvas.polygon([(x + 0.05, 0.1), (x + 0.95, 0.1), (x + 0.95, 0.4), (x + 0.5, 0.9), (x + 0.05, 0.4)], (90, 140, 230))
