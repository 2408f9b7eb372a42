"""MinAtar's Seaquest: shoot fish and submarines, gather divers, and surface before the oxygen is gone; a 10 x 10 grid.

Observation
    index      meaning                                                         range
    [y, x, 0]  the player's submarine                                          0 or 1
    [y, x, 1]  its back                                                        0 or 1
    [y, x, 2]  a bullet of the player's                                        0 or 1
    [y, x, 3]  behind a fish, a submarine or a diver: where it comes from      0 or 1
    [y, x, 4]  a bullet of a submarine's                                       0 or 1
    [y, x, 5]  a fish                                                          0 or 1
    [y, x, 6]  an enemy submarine                                              0 or 1
    [y, x, 7]  oxygen: a bar in row 9 from the left, a cell for each 20        0 or 1
    [y, x, 8]  divers on board: a bar in row 9 that ends at column 8           0 or 1
    [y, x, 9]  a diver                                                         0 or 1
    y is the row from the top, x the column; uint8.
    Hidden: the last action (it may be repeated), the timers and the level.
Action: 0 waits, 1 moves left, 2 up, 3 right, 4 down by one cell, within rows 0 to 8; 5 shoots if the last shot is 5
    steps ago or more. With probability `sticky_action_prob` the action before is done again in place of the one given.
Reward: 1 for each fish or submarine shot; for surfacing with six divers, a twentieth of the oxygen left, rounded down,
    at most 9. Mean score of random play: 0.11. Without a known bound.
Start: at the surface (row 0), the water empty, 200 of oxygen.
End: terminated when the player meets a fish, a submarine or its bullet, at the end of the oxygen (1 per step under
    water), or on surfacing without a diver on board; truncated at 10,000 steps.
Physics: an enemy appears every 20 steps, a submarine with probability 1/3, else a fish, in one of rows 1 to 8 at the
    left or right; not where it would swim towards another. It moves every 6 steps; submarines shoot every 11. A diver
    appears every 30 steps and moves every 6. Surfacing refills the oxygen and takes a diver (seven where there are
    six), and the level rises: enemies appear sooner by 1 step, and move sooner by 1 at every other level, down to 3.
Parameters: sticky_action_prob; difficulty_ramping, whether the level rises (1 or 0).
Source: Young & Tian 2019, arXiv:1903.03176; step for step the package MinAtar 1.0.15, given the same random numbers. So
    it has the package's peculiarity that after six divers -1 are on board, with which surfacing is free.
Differs: a time limit, as in all five games; the action before the first one of an episode is 0, where the package keeps
    the last one of the episode before; uint8, not bool.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, random_integer, state_dtype, uniform

SIZE = 10
LEFT, UP, RIGHT, DOWN, SHOOT = 1, 2, 3, 4, 5
BOTTOM = 8  # the lowest row of the water
OXYGEN, CREW = 200, 6
ENEMY_INTERVAL, DIVER_INTERVAL, MOVE_INTERVAL, SHOT_INTERVAL, ENEMY_SHOT_INTERVAL = 20, 30, 5, 5, 10
SHORTEST_MOVE = 2

# What swims or flies is a list of rows of these numbers, in the order of appearance as in the package: whom a bullet
# meets first depends on it.
X, Y, AHEAD, TIMER, SHOT_TIMER = 0, 1, 2, 3, 4
# An enemy crosses the grid in at most 59 steps, and at most one appears in a step; no more bullets than submarines that
# were there 10 steps ago or since can fly; a diver every 30 steps, of 59; a bullet every 5 steps, of 9.
MOST, MOST_DIVERS, MOST_BULLETS = 60, 2, 2

State = state_dtype(
    x=np.int32,
    y=np.int32,
    ahead=np.int32,  # 1 to the right, -1 to the left
    oxygen=np.int32,
    crew=np.int32,  # divers on board
    at_surface=np.bool_,
    shot_timer=np.int32,
    enemy_interval=np.int32,
    enemy_timer=np.int32,
    diver_timer=np.int32,
    move_interval=np.int32,
    num_bullets=np.int32,
    bullets=(np.int8, (MOST_BULLETS, 3)),
    num_enemy_bullets=np.int32,
    enemy_bullets=(np.int8, (MOST, 3)),
    num_fish=np.int32,
    fish=(np.int8, (MOST, 4)),
    num_submarines=np.int32,
    submarines=(np.int8, (MOST, 5)),
    num_divers=np.int32,
    divers=(np.int8, (MOST_DIVERS, 4)),
    level=np.int32,
    rescues=np.int32,  # of six divers
    last_action=np.int32,
)
statistics = ("level", "rescues")

observation_space = spaces.Box(0, 1, (SIZE, SIZE, 10), np.uint8)
action_space = spaces.Discrete(6)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    sticky_action_prob: float = 0.1
    difficulty_ramping: int = 1


def reset(state, p):
    state.x = 5
    state.y = 0
    state.ahead = -1
    state.oxygen = OXYGEN
    state.crew = 0
    state.at_surface = True
    state.shot_timer = 0
    state.enemy_interval = ENEMY_INTERVAL
    state.enemy_timer = ENEMY_INTERVAL
    state.diver_timer = DIVER_INTERVAL
    state.move_interval = MOVE_INTERVAL
    state.num_bullets = 0
    state.bullets[:] = 0
    state.num_enemy_bullets = 0
    state.enemy_bullets[:] = 0
    state.num_fish = 0
    state.fish[:] = 0
    state.num_submarines = 0
    state.submarines[:] = 0
    state.num_divers = 0
    state.divers[:] = 0
    state.level = 0
    state.rescues = 0
    state.last_action = 0


def step(state, action, p):
    if uniform(state) >= p.sticky_action_prob:
        state.last_action = action
    if state.enemy_timer == 0:
        spawn_enemy(state)
        state.enemy_timer = state.enemy_interval
    if state.diver_timer == 0:
        spawn_diver(state)
        state.diver_timer = DIVER_INTERVAL
    move_player(state)
    reward = fly_bullets(state)
    swim_divers(state)
    shot, rammed = swim_submarines(state)
    hit = fly_enemy_bullets(state)
    caught, bitten = swim_fish(state)
    reward += shot + caught
    terminated = rammed or hit or bitten or state.oxygen <= 0
    state.enemy_timer = max(state.enemy_timer - 1, 0)
    state.diver_timer = max(state.diver_timer - 1, 0)
    state.shot_timer = max(state.shot_timer - 1, 0)
    if state.y > 0:
        state.oxygen -= 1
        state.at_surface = False
    elif not state.at_surface:
        if state.crew == 0:
            terminated = True
        else:
            reward += surface(state, p.difficulty_ramping != 0)
    return reward, terminated


def observe(state, observation, p):
    observation[:] = 0
    observation[state.y, state.x, 0] = 1
    observation[state.y, state.x - state.ahead, 1] = 1
    for x in range(max(state.oxygen, 0) * SIZE // OXYGEN):
        observation[9, x, 7] = 1
    for x in range(9 - max(state.crew, 0), 9):
        observation[9, x, 8] = 1
    for i in range(state.num_bullets):
        observation[state.bullets[i, Y], state.bullets[i, X], 2] = 1
    for i in range(state.num_enemy_bullets):
        observation[state.enemy_bullets[i, Y], state.enemy_bullets[i, X], 4] = 1
    for i in range(state.num_fish):
        show(state.fish[i], observation, 5)
    for i in range(state.num_submarines):
        show(state.submarines[i], observation, 6)
    for i in range(state.num_divers):
        show(state.divers[i], observation, 9)


@compiled
def show(swimmer, observation, channel):
    x = swimmer[X]
    behind = x - swimmer[AHEAD]
    observation[swimmer[Y], x, channel] = 1
    if 0 <= behind < SIZE:
        observation[swimmer[Y], behind, 3] = 1


@compiled
def outside(swimmer):
    return swimmer[X] < 0 or swimmer[X] >= SIZE


@compiled
def meets(swimmer, x, y):
    return swimmer[X] == x and swimmer[Y] == y


@compiled
def remove(swimmers, count, index):
    """Close the gap; returns the new count."""
    for i in range(index, count - 1):
        for j in range(swimmers.shape[1]):
            swimmers[i, j] = swimmers[i + 1, j]
    return count - 1


@compiled
def first_at(swimmers, count, x, y):
    """The first that is at (x, y); `count` if none."""
    for i in range(count):
        if meets(swimmers[i], x, y):
            return i
    return count


@compiled
def opposed(swimmers, count, y, ahead):
    """Whether somebody in row y swims the other way."""
    for i in range(count):
        if swimmers[i, Y] == y and swimmers[i, AHEAD] != ahead:
            return True
    return False


@compiled
def enter(swimmers, index, y, ahead, timer):
    swimmers[index, X] = 0 if ahead > 0 else SIZE - 1
    swimmers[index, Y] = y
    swimmers[index, AHEAD] = ahead
    swimmers[index, TIMER] = timer


@compiled
def spawn_enemy(state):
    ahead = 1 if uniform(state) < 0.5 else -1
    is_submarine = uniform(state) < 1 / 3
    y = 1 + random_integer(state, BOTTOM)
    if opposed(state.submarines, state.num_submarines, y, ahead) or opposed(state.fish, state.num_fish, y, ahead):
        return
    if is_submarine:
        enter(state.submarines, state.num_submarines, y, ahead, state.move_interval)
        state.submarines[state.num_submarines, SHOT_TIMER] = ENEMY_SHOT_INTERVAL
        state.num_submarines += 1
    else:
        enter(state.fish, state.num_fish, y, ahead, state.move_interval)
        state.num_fish += 1


@compiled
def spawn_diver(state):
    ahead = 1 if uniform(state) < 0.5 else -1
    enter(state.divers, state.num_divers, 1 + random_integer(state, BOTTOM), ahead, MOVE_INTERVAL)
    state.num_divers += 1


@compiled
def move_player(state):
    action = state.last_action
    if action == SHOOT and state.shot_timer == 0:
        state.bullets[state.num_bullets, X] = state.x
        state.bullets[state.num_bullets, Y] = state.y
        state.bullets[state.num_bullets, AHEAD] = state.ahead
        state.num_bullets += 1
        state.shot_timer = SHOT_INTERVAL
    elif action == LEFT:
        state.x = max(state.x - 1, 0)
        state.ahead = -1
    elif action == RIGHT:
        state.x = min(state.x + 1, SIZE - 1)
        state.ahead = 1
    elif action == UP:
        state.y = max(state.y - 1, 0)
    elif action == DOWN:
        state.y = min(state.y + 1, BOTTOM)


@compiled
def fly_bullets(state):
    """The player's bullets move; returns the reward. All lists are gone through from the end, where one may go."""
    reward = 0.0
    for i in range(state.num_bullets - 1, -1, -1):
        bullet = state.bullets[i]
        bullet[X] += bullet[AHEAD]
        if outside(bullet):
            state.num_bullets = remove(state.bullets, state.num_bullets, i)
            continue
        fish = first_at(state.fish, state.num_fish, bullet[X], bullet[Y])
        submarine = first_at(state.submarines, state.num_submarines, bullet[X], bullet[Y])
        if fish < state.num_fish:
            state.num_fish = remove(state.fish, state.num_fish, fish)
        elif submarine < state.num_submarines:
            state.num_submarines = remove(state.submarines, state.num_submarines, submarine)
        else:
            continue
        state.num_bullets = remove(state.bullets, state.num_bullets, i)
        reward += 1.0
    return reward


@compiled
def swim_divers(state):
    for i in range(state.num_divers - 1, -1, -1):
        diver = state.divers[i]
        boards = state.crew < CREW and meets(diver, state.x, state.y)
        leaves = False
        if not boards:
            if diver[TIMER] == 0:
                diver[TIMER] = MOVE_INTERVAL
                diver[X] += diver[AHEAD]
                leaves = outside(diver)
                boards = state.crew < CREW and meets(diver, state.x, state.y)
            else:
                diver[TIMER] -= 1
        if boards:
            state.crew += 1
        if boards or leaves:
            state.num_divers = remove(state.divers, state.num_divers, i)


@compiled
def swim(state, swimmers, count, i):
    """Enemy i moves; returns whether it has met the player, whether it goes, and the reward."""
    enemy = swimmers[i]
    met = meets(enemy, state.x, state.y)
    if enemy[TIMER] > 0:
        enemy[TIMER] -= 1
        return met, False, 0.0
    enemy[TIMER] = state.move_interval
    enemy[X] += enemy[AHEAD]
    if outside(enemy):
        return met, True, 0.0
    if meets(enemy, state.x, state.y):
        return True, False, 0.0
    bullet = first_at(state.bullets, state.num_bullets, enemy[X], enemy[Y])
    if bullet == state.num_bullets:
        return met, False, 0.0
    state.num_bullets = remove(state.bullets, state.num_bullets, bullet)
    return met, True, 1.0


@compiled
def swim_submarines(state):
    """Returns the reward and whether the player is hit. One that is shot down still shoots if it is about to."""
    reward, terminated = 0.0, False
    for i in range(state.num_submarines - 1, -1, -1):
        met, goes, one = swim(state, state.submarines, state.num_submarines, i)
        reward += one
        terminated = terminated or met
        submarine = state.submarines[i]
        if submarine[SHOT_TIMER] > 0:
            submarine[SHOT_TIMER] -= 1
        else:
            submarine[SHOT_TIMER] = ENEMY_SHOT_INTERVAL
            if not outside(submarine):
                for j in range(3):
                    state.enemy_bullets[state.num_enemy_bullets, j] = submarine[j]
                state.num_enemy_bullets += 1
        if goes:
            state.num_submarines = remove(state.submarines, state.num_submarines, i)
    return reward, terminated


@compiled
def fly_enemy_bullets(state):
    """Returns whether the player is hit."""
    terminated = False
    for i in range(state.num_enemy_bullets - 1, -1, -1):
        bullet = state.enemy_bullets[i]
        terminated = terminated or meets(bullet, state.x, state.y)
        bullet[X] += bullet[AHEAD]
        terminated = terminated or meets(bullet, state.x, state.y)
        if outside(bullet):
            state.num_enemy_bullets = remove(state.enemy_bullets, state.num_enemy_bullets, i)
    return terminated


@compiled
def swim_fish(state):
    """Returns the reward and whether the player is bitten."""
    reward, terminated = 0.0, False
    for i in range(state.num_fish - 1, -1, -1):
        met, goes, one = swim(state, state.fish, state.num_fish, i)
        reward += one
        terminated = terminated or met
        if goes:
            state.num_fish = remove(state.fish, state.num_fish, i)
    return reward, terminated


@compiled
def surface(state, ramping):
    """New oxygen, one diver fewer, the next level; returns the reward."""
    reward = 0.0
    state.at_surface = True
    if state.crew == CREW:
        state.crew = 0
        state.rescues += 1
        reward += state.oxygen * SIZE // OXYGEN
    state.oxygen = OXYGEN
    state.crew -= 1
    if ramping and (state.enemy_interval > 1 or state.move_interval > SHORTEST_MOVE):
        if state.move_interval > SHORTEST_MOVE and state.level % 2 == 1:
            state.move_interval -= 1
        if state.enemy_interval > 1:
            state.enemy_interval -= 1
        state.level += 1
    return reward


canvas_size = (360, 360)
frames_per_second = 15


def draw(state, canvas):
    canvas.world(0, SIZE, 0, SIZE)
    canvas.fill((16, 40, 90))
    canvas.rectangle(0, 9, SIZE, SIZE, (90, 150, 200))
    canvas.rectangle(0, 0, SIZE, 1, (40, 40, 40))
    canvas.rectangle(0.2, 0.55, 0.2 + 6 * max(state.oxygen, 0) / OXYGEN, 0.8, (230, 230, 230))
    for diver in range(state.crew):
        canvas.circle(0.4 + 0.5 * diver, 0.28, 0.18, (92, 186, 92))
    for count, swimmers, colour in (
        (state.num_fish, state.fish, (220, 130, 60)),
        (state.num_submarines, state.submarines, (200, 72, 72)),
        (state.num_divers, state.divers, (92, 186, 92)),
    ):
        for one in swimmers[:count]:
            x, y, side = int(one[X]) + 0.5, SIZE - int(one[Y]) - 0.5, 0.42 * int(one[AHEAD])
            canvas.polygon([(x + side, y), (x - side, y + 0.3), (x - side, y - 0.3)], colour)
    for count, bullets, colour in (
        (state.num_bullets, state.bullets, (240, 240, 200)),
        (state.num_enemy_bullets, state.enemy_bullets, (250, 150, 130)),
    ):
        for one in bullets[:count]:
            canvas.circle(int(one[X]) + 0.5, SIZE - int(one[Y]) - 0.5, 0.12, colour)
    x, y = state.x + 0.5, SIZE - state.y - 0.5
    canvas.circle(x, y, 0.42, (240, 220, 90))
    canvas.rectangle(min(x, x - state.ahead), y - 0.2, max(x, x - state.ahead), y + 0.2, (200, 180, 60))
