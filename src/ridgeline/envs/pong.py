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

from ridgeline.kernel import compiled, state_dtype, uniform, uniform_between

POINTS = 21

# Every length that meets a float32 is one, so that compiled and plain Python agree bit for bit.
ZERO, ONE = np.float32(0), np.float32(1)
WIDTH, HEIGHT, MIDDLE = np.float32(160), np.float32(96), np.float32(48)
LEFT_LINE, RIGHT_LINE = np.float32(8), np.float32(152)  # where the ball's centre meets the paddles
PADDLE_HALF = np.float32(6)
BALL_HALF = 1.0
REACH = np.float32(7)  # half the paddle and half the ball
PADDLE_SPEED = np.float32(2)
AIM = np.float32(4)  # how far from its paddle's centre the opponent tries to hit
SPEED, GAIN, MAX_SPEED = np.float32(2), np.float32(0.125), np.float32(3)
SLOPE = np.float32(1.2)

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
    state.paddle = min(max(state.paddle + move, PADDLE_HALF), HEIGHT - PADDLE_HALF)
    aim = AIM if state.paddle > MIDDLE else -AIM
    way = (state.y + aim if state.velocity_x < ZERO else MIDDLE) - state.opponent
    way = min(max(way, -opponent_speed), opponent_speed)
    state.opponent = min(max(state.opponent + way, PADDLE_HALF), HEIGHT - PADDLE_HALF)

    x = state.x + state.velocity_x
    y = state.y + state.velocity_y
    if x > RIGHT_LINE or x < LEFT_LINE:
        if x > WIDTH:
            state.opponent_points += ONE
            serve(state)
            return -1.0
        if x < ZERO:
            state.points += ONE
            serve(state)
            return 1.0
        if state.x <= RIGHT_LINE and x > RIGHT_LINE:
            x, y = meet_paddle(state, state.paddle, RIGHT_LINE, x, y)
        elif state.x >= LEFT_LINE and x < LEFT_LINE:
            x, y = meet_paddle(state, state.opponent, LEFT_LINE, x, y)
    if y < ZERO:
        y = -y
        state.velocity_y = -state.velocity_y
    elif y > HEIGHT:
        y = HEIGHT + HEIGHT - y
        state.velocity_y = -state.velocity_y
    state.x = x
    state.y = y
    return 0.0


@compiled
def serve(state):
    """A new ball in the middle column, to either side alike."""
    state.x = WIDTH / np.float32(2)
    state.y = np.float32(uniform_between(state, 24.0, 72.0))
    state.velocity_x = SPEED if uniform(state) < 0.5 else -SPEED
    state.velocity_y = np.float32(uniform_between(state, -0.75, 0.75))


@compiled
def meet_paddle(state, paddle, line, x, y):
    """The ball crossed a paddle's line to (x, y): where it is now, returned or flying on."""
    since = (x - line) / state.velocity_x  # the part of this frame after it met the line
    at = y - since * state.velocity_y
    if at < ZERO:
        at = -at
    elif at > HEIGHT:
        at = HEIGHT + HEIGHT - at
    place = (at - paddle) / REACH
    if abs(place) > ONE:
        return x, y
    speed = min(abs(state.velocity_x) + GAIN, MAX_SPEED)
    state.velocity_x = -speed if state.velocity_x > ZERO else speed
    state.velocity_y = SLOPE * place * speed
    return line + since * state.velocity_x, at + since * state.velocity_y


BACKGROUND, EDGE = (144, 72, 17), (236, 236, 236)
PLAYER, OPPONENT = (92, 186, 92), (213, 130, 74)
frames_per_second = 60


def draw(state, canvas):
    canvas.world(0, 160, -8, 112)
    canvas.fill(BACKGROUND)
    edge = BALL_HALF  # the ball's side touches where its centre turns
    canvas.rectangle(0, -8, 160, -edge, EDGE)
    canvas.rectangle(0, 96 + edge, 160, 101, EDGE)
    for y in range(1, 96, 6):
        canvas.rectangle(79.6, y, 80.4, y + 3, (176, 112, 60))
    canvas.rectangle(4, state.opponent - 6, 8 - edge, state.opponent + 6, OPPONENT)
    canvas.rectangle(152 + edge, state.paddle - 6, 156, state.paddle + 6, PLAYER)
    canvas.rectangle(state.x - edge, state.y - edge, state.x + edge, state.y + edge, EDGE)
    canvas.text(36, 103.5, f"{int(state.opponent_points)}", OPPONENT, 6)
    canvas.text(116, 103.5, f"{int(state.points)}", PLAYER, 6)
