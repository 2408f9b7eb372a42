"""MinAtar's Asterix: gather treasure and keep out of the enemies' way on a 10 x 10 grid.

Observation
    index      meaning                                                          range
    [y, x, 0]  the player                                                       0 or 1
    [y, x, 1]  an enemy                                                         0 or 1
    [y, x, 2]  behind an enemy or a treasure: where it comes from               0 or 1
    [y, x, 3]  a treasure                                                       0 or 1
    y is the row from the top, x the column; uint8.
    Hidden: the last action (it may be repeated), the timers and the level.
Action: 0 stays, 1 moves left, 2 up, 3 right, 4 down by one cell, within rows 1 to 8; 5 stays too. With probability
    `sticky_action_prob` the action before is done again in place of the one given.
Reward: 1 for each treasure. Mean score of random play: 0.48. Without a known bound; PPO of
    gymnax's authors: 15.
Start: the player in the middle of an empty grid.
End: terminated when the player and an enemy meet; truncated at 10,000 steps.
Physics: every 10 steps an enemy, or with probability 1/3 a treasure, enters a free one of rows 1 to 8 from the left or
    the right. All of them move by one cell every 5 steps. Every 102 steps the level rises: the first interval becomes
    shorter by 1, the second at every other level, down to 1.
Parameters: sticky_action_prob; difficulty_ramping, whether the level rises (1 or 0).
Source: Young & Tian 2019, arXiv:1903.03176; step for step the package MinAtar 1.0.15, given the same random numbers.
Differs: a time limit, as in all five games; the action before the first one of an episode is 0, where the package keeps
    the last one of the episode before; uint8, not bool.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype, uniform

SIZE = 10
LEFT, UP, RIGHT, DOWN = 1, 2, 3, 4
LANES = 8  # rows 1 to 8
NOBODY, ENEMY, TREASURE = 0, 1, 2
SPAWN_INTERVAL, MOVE_INTERVAL, LEVEL_INTERVAL = 10, 5, 100

State = state_dtype(
    x=np.int32,
    y=np.int32,
    kind=(np.int32, (LANES,)),  # who is in the lane
    lane_x=(np.int32, (LANES,)),
    lane_right=(np.int32, (LANES,)),  # 1 or -1
    spawn_interval=np.int32,
    spawn_timer=np.int32,
    move_interval=np.int32,
    move_timer=np.int32,
    level_timer=np.int32,
    level=np.int32,
    last_action=np.int32,
)
statistics = ("level",)

observation_space = spaces.Box(0, 1, (SIZE, SIZE, 4), np.uint8)
action_space = spaces.Discrete(6)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    sticky_action_prob: float = 0.1
    difficulty_ramping: int = 1


def reset(state, p):
    state.x = 5
    state.y = 5
    for lane in range(LANES):
        state.kind[lane] = NOBODY
        state.lane_x[lane] = 0
        state.lane_right[lane] = 1
    state.spawn_interval = SPAWN_INTERVAL
    state.spawn_timer = SPAWN_INTERVAL
    state.move_interval = MOVE_INTERVAL
    state.move_timer = MOVE_INTERVAL
    state.level_timer = LEVEL_INTERVAL
    state.level = 0
    state.last_action = 0


def step(state, action, p):
    if uniform(state) >= p.sticky_action_prob:
        state.last_action = action
    if state.spawn_timer == 0:
        spawn(state)
        state.spawn_timer = state.spawn_interval
    move_player(state)
    reward, terminated = meet(state)
    if state.move_timer == 0:
        state.move_timer = state.move_interval
        for lane in range(LANES):
            if state.kind[lane] != NOBODY:
                state.lane_x[lane] += state.lane_right[lane]
                if state.lane_x[lane] < 0 or state.lane_x[lane] >= SIZE:
                    state.kind[lane] = NOBODY
        more, caught = meet(state)
        reward += more
        terminated = terminated or caught
    state.spawn_timer -= 1
    state.move_timer -= 1
    if p.difficulty_ramping != 0 and (state.spawn_interval > 1 or state.move_interval > 1):
        ramp(state)
    return reward, terminated


def observe(state, observation, p):
    observation[:] = 0
    observation[state.y, state.x, 0] = 1
    for lane in range(LANES):
        if state.kind[lane] != NOBODY:
            x = state.lane_x[lane]
            behind = x - state.lane_right[lane]
            observation[lane + 1, x, 1 if state.kind[lane] == ENEMY else 3] = 1
            if 0 <= behind < SIZE:
                observation[lane + 1, behind, 2] = 1


@compiled
def move_player(state):
    action = state.last_action
    if action == LEFT:
        state.x = max(state.x - 1, 0)
    elif action == RIGHT:
        state.x = min(state.x + 1, SIZE - 1)
    elif action == UP:
        state.y = max(state.y - 1, 1)
    elif action == DOWN:
        state.y = min(state.y + 1, LANES)


@compiled
def meet(state):
    """Reward and end where the player stands on somebody; only its own lane can hold one."""
    lane = state.y - 1
    if state.kind[lane] == NOBODY or state.lane_x[lane] != state.x:
        return 0.0, False
    if state.kind[lane] == ENEMY:
        return 0.0, True
    state.kind[lane] = NOBODY
    return 1.0, False


@compiled
def spawn(state):
    """Somebody new in a free lane, if there is one; the order of the draws is the package's."""
    from_left = uniform(state) < 0.5
    kind = TREASURE if uniform(state) < 1 / 3 else ENEMY
    num_free = 0
    for lane in range(LANES):
        num_free += state.kind[lane] == NOBODY
    if num_free == 0:
        return
    skip = random_integer(state, num_free)
    for lane in range(LANES):
        if state.kind[lane] == NOBODY:
            if skip == 0:
                state.kind[lane] = kind
                state.lane_x[lane] = 0 if from_left else SIZE - 1
                state.lane_right[lane] = 1 if from_left else -1
                return
            skip -= 1


@compiled
def ramp(state):
    if state.level_timer >= 0:
        state.level_timer -= 1
        return
    if state.move_interval > 1 and state.level % 2 == 1:
        state.move_interval -= 1
    if state.spawn_interval > 1:
        state.spawn_interval -= 1
    state.level += 1
    state.level_timer = LEVEL_INTERVAL


canvas_size = (360, 360)
frames_per_second = 15


def draw(state, canvas):
    canvas.world(0, SIZE, 0, SIZE)
    canvas.fill((0, 0, 0))
    for y in range(1, LANES + 1):
        canvas.rectangle(0, SIZE - y - 0.98, SIZE, SIZE - y - 0.02, (28, 28, 44))
    for lane in range(LANES):
        if state.kind[lane] != NOBODY:
            x, y = state.lane_x[lane] + 0.5, SIZE - lane - 1.5
            colour = (200, 72, 72) if state.kind[lane] == ENEMY else (230, 190, 60)
            side = 0.4 * state.lane_right[lane]
            canvas.polygon([(x + side, y), (x - side, y + 0.4), (x - side, y - 0.4)], colour)
    canvas.circle(state.x + 0.5, SIZE - state.y - 0.5, 0.4, (92, 186, 92))
    canvas.text(0.1, 0.1, f"level {state.level}", (142, 142, 142), 0.6)
