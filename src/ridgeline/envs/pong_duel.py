"""Pong for two: each side is an agent; the first to 21 points wins.

The court, the ball and the paddles are those of `pong`. Both agents see the court as if they played on the right.

Observation
    index  meaning                                                range
    0      own paddle, -1 at the bottom, 1 at the top             -1 .. 1
    1      the other one's paddle, scaled likewise                -1 .. 1
    2      ball x, -1 at the other one's edge, 1 at the own       -1 .. 1
    3      ball y, -1 at the bottom, 1 at the top                 -1 .. 1
    4      ball's velocity towards the own side (4 units per frame)  -1 .. 1
    5      ball's velocity upwards (4 units per frame)            -1 .. 1
    6      own points / 21                                        0 .. 1
    7      the other one's points / 21                            0 .. 1
Action: 0 stays, 1 moves up, 2 moves down, by 2 units per frame; both at once.
Reward: 1 for a point won, -1 for a point lost. Random play against random play: 0 in the mean, as of any two equal
    players; a scripted player that aims wins 21 to 0 against random play (tests/test_two_players.py).
Start: both paddles in the middle; the ball in the middle column at a random height, flying to a random side. After each
    point the ball is served in the same way at once.
End: terminated when one side has 21 points; truncated at 10,000 steps.
Parameters: frames_per_action, frames that each action lasts. Statistics: points.
Source: Pong (Atari 1972).
Differs: the serve is automatic.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.court import MIDDLE, ONE, PADDLE_SPEED, ZERO, draw_court, fly, moved, serve
from ridgeline.kernel import state_dtype

POINTS = 21

State = state_dtype(
    paddle=(np.float32, (2,)),  # of agent 0 on the right and agent 1 on the left
    points=(np.float32, (2,)),
    x=np.float32, y=np.float32, velocity_x=np.float32, velocity_y=np.float32,
)  # fmt: skip

num_agents = 2
observation_space = spaces.Box(np.array([-1] * 6 + [0] * 2, np.float32), np.ones(8, np.float32), dtype=np.float32)
action_space = spaces.Discrete(3)
max_episode_steps = 10_000
statistics = ("points",)


class Parameters(NamedTuple):
    frames_per_action: int = 4


def reset(state, p):
    state.paddle[:] = MIDDLE
    state.points[:] = ZERO
    serve(state)


def step(state, action, reward, terminated, p):
    for _ in range(p.frames_per_action):
        for agent in range(2):
            way = PADDLE_SPEED if action[agent] == 1 else (-PADDLE_SPEED if action[agent] == 2 else ZERO)
            state.paddle[agent] = moved(state.paddle[agent], way)
        point = fly(state, state.paddle[1], state.paddle[0])
        if point != 0.0:
            reward[0] += point
            reward[1] -= point
            winner = 0 if point > 0.0 else 1
            state.points[winner] += ONE
            if state.points[winner] == POINTS:
                return True
    return False


def observe(state, agent, observation, p):
    side = ONE if agent == 0 else -ONE
    observation[0] = (state.paddle[agent] - MIDDLE) * np.float32(1 / 42)
    observation[1] = (state.paddle[1 - agent] - MIDDLE) * np.float32(1 / 42)
    observation[2] = side * (state.x * np.float32(1 / 80) - ONE)
    observation[3] = state.y * np.float32(1 / 48) - ONE
    observation[4] = side * state.velocity_x * np.float32(0.25)
    observation[5] = state.velocity_y * np.float32(0.25)
    observation[6] = state.points[agent] * np.float32(1 / POINTS)
    observation[7] = state.points[1 - agent] * np.float32(1 / POINTS)


frames_per_second = 60


def draw(state, canvas):
    draw_court(state, canvas, state.paddle[1], state.paddle[0], state.points[1], state.points[0])
