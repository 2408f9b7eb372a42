"""Pong: return the ball past an opponent; the first to 21 points wins.

The court is 160 wide and 96 high, x to the right, y upwards; the player is on the right. Positions are those of the
ball's and the paddles' centres.

Observation
    index  meaning                                              range
    0      player's paddle, -1 at the bottom, 1 at the top      -1 .. 1
    1      opponent's paddle, scaled likewise                   -1 .. 1
    2      ball x, -1 at the left edge, 1 at the right          -1 .. 1
    3      ball y, -1 at the bottom, 1 at the top               -1 .. 1
    4      ball's velocity to the right (4 units per frame)     -1 .. 1
    5      ball's velocity upwards (4 units per frame)          -1 .. 1
    6      player's points / 21                                 0 .. 1
    7      opponent's points / 21                               0 .. 1
Action: 0 stays, 1 moves up, 2 moves down, by 2 units per frame.
Reward: 1 for a point won, -1 for a point lost.
    Mean score of random play: -19.5 (4 frames per action or 1); of a scripted player that aims: 21.
Start: both paddles in the middle; the ball in the middle column at a random height, flying to a random side.
    After each point the ball is served in the same way at once; the paddles stay where they are.
End: terminated when one side has 21 points; truncated at 10,000 steps.
Physics: a paddle returns the ball at a slope (vertical by horizontal speed) of 1.2 times the place that it hit
    (-1 lower end, 1 upper end). The horizontal speed is 2 units per frame at the serve, and each return adds 0.125 up
    to 3. The upper and lower edge reflect the ball.
Opponent: moves by at most `opponent_speed` units per frame, towards the middle of its side while the ball flies away;
    while it comes, to the height from which its paddle's end would send it away from the player's half. So it loses
    to steep balls, and turning it round late beats it too.
Parameters: frames_per_action, frames that each action lasts (the rewards add up; an ending cuts it short), 4 because
    single frames of random movement cancel out and hardly move a paddle; opponent_speed.
Source: Pong (Atari 1972).
Differs: an opponent in a few lines; the serve is automatic.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.court import (
    MIDDLE,
    ONE,
    PADDLE_SPEED,
    ZERO,
    draw_court,
    fly,
    moved,
    serve,
)
from ridgeline.kernel import compiled, state_dtype

POINTS = 21
AIM = np.float32(4)  # how far from its paddle's centre the opponent tries to hit

State = state_dtype(
    paddle=np.float32,
    opponent=np.float32,
    x=np.float32,
    y=np.float32,
    velocity_x=np.float32,
    velocity_y=np.float32,
    points=np.float32,
    opponent_points=np.float32,
)
statistics = ("points", "opponent_points")

observation_space = spaces.Box(np.array([-1] * 6 + [0] * 2, np.float32), np.ones(8, np.float32), dtype=np.float32)
action_space = spaces.Discrete(3)
max_episode_steps = 10_000


class Parameters(NamedTuple):
    frames_per_action: int = 4
    opponent_speed: float = 1.25


def reset(state, p):
    state.paddle = MIDDLE
    state.opponent = MIDDLE
    state.points = ZERO
    state.opponent_points = ZERO
    serve(state)


def step(state, action, p):
    move = PADDLE_SPEED if action == 1 else (-PADDLE_SPEED if action == 2 else ZERO)
    reward = 0.0
    for _ in range(p.frames_per_action):
        point = advance(state, move, np.float32(p.opponent_speed))
        if point != 0.0:
            reward += point
            if state.points == POINTS or state.opponent_points == POINTS:
                return reward, True
    return reward, False


def observe(state, observation, p):
    observation[0] = (state.paddle - np.float32(48)) * np.float32(1 / 42)
    observation[1] = (state.opponent - np.float32(48)) * np.float32(1 / 42)
    observation[2] = state.x * np.float32(1 / 80) - ONE
    observation[3] = state.y * np.float32(1 / 48) - ONE
    observation[4] = state.velocity_x * np.float32(0.25)
    observation[5] = state.velocity_y * np.float32(0.25)
    observation[6] = state.points * np.float32(1 / POINTS)
    observation[7] = state.opponent_points * np.float32(1 / POINTS)


@compiled
def advance(state, move, opponent_speed):
    """One frame; returns 1 for a point won, -1 for a point lost, else 0."""
    state.paddle = moved(state.paddle, move)
    aim = AIM if state.paddle > MIDDLE else -AIM
    way = (state.y + aim if state.velocity_x < ZERO else MIDDLE) - state.opponent
    state.opponent = moved(state.opponent, min(max(way, -opponent_speed), opponent_speed))
    point = fly(state, state.opponent, state.paddle)
    if point > 0.0:
        state.points += ONE
    elif point < 0.0:
        state.opponent_points += ONE
    return point


frames_per_second = 60


def draw(state, canvas):
    draw_court(state, canvas, state.opponent, state.paddle, state.opponent_points, state.points)
