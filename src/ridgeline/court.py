"""Pong's court, which both pongs share: the paddles' ends, the ball's flight, the serve, the picture.

The court is 160 wide and 96 high, x to the right, y upwards; positions are those of the middle of the ball and of the
paddles. State fields: `x`, `y`, `velocity_x`, `velocity_y`, all float32.
"""

import numpy as np

from ridgeline.kernel import compiled, uniform, uniform_between

# Every length that meets a float32 is one, so that compiled and plain Python agree bit for bit.
ZERO, ONE = np.float32(0), np.float32(1)
WIDTH, HEIGHT, MIDDLE = np.float32(160), np.float32(96), np.float32(48)
LEFT_LINE, RIGHT_LINE = np.float32(8), np.float32(152)  # where the ball's centre meets the paddles
PADDLE_HALF = np.float32(6)
BALL_HALF = 1.0
REACH = np.float32(7)  # half the paddle and half the ball
PADDLE_SPEED = np.float32(2)
SPEED, GAIN, MAX_SPEED = np.float32(2), np.float32(0.125), np.float32(3)
SLOPE = np.float32(1.2)


@compiled
def moved(paddle, way):
    """A paddle's place after a move, within the court."""
    return min(max(paddle + way, PADDLE_HALF), HEIGHT - PADDLE_HALF)


@compiled
def fly(state, left, right):
    """One frame of the ball between two paddles; 1 where the right one wins a point, -1 where the left one does."""
    x = state.x + state.velocity_x
    y = state.y + state.velocity_y
    if x > RIGHT_LINE or x < LEFT_LINE:
        if x > WIDTH:
            serve(state)
            return -1.0
        if x < ZERO:
            serve(state)
            return 1.0
        if state.x <= RIGHT_LINE and x > RIGHT_LINE:
            x, y = meet_paddle(state, right, RIGHT_LINE, x, y)
        elif state.x >= LEFT_LINE and x < LEFT_LINE:
            x, y = meet_paddle(state, left, LEFT_LINE, x, y)
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


def draw_court(state, canvas, left, right, left_points, right_points):
    canvas.world(0, 160, -8, 112)
    canvas.fill(BACKGROUND)
    edge = BALL_HALF  # the ball's side touches where its centre turns
    canvas.rectangle(0, -8, 160, -edge, EDGE)
    canvas.rectangle(0, 96 + edge, 160, 101, EDGE)
    for y in range(1, 96, 6):
        canvas.rectangle(79.6, y, 80.4, y + 3, (176, 112, 60))
    canvas.rectangle(4, left - 6, 8 - edge, left + 6, OPPONENT)
    canvas.rectangle(152 + edge, right - 6, 156, right + 6, PLAYER)
    canvas.rectangle(state.x - edge, state.y - edge, state.x + edge, state.y + edge, EDGE)
    canvas.text(36, 103.5, f"{int(left_points)}", OPPONENT, 6)
    canvas.text(116, 103.5, f"{int(right_points)}", PLAYER, 6)
