"""The rocket that both landers fly: a rigid body on two legs, its engines, the reward, the picture.

Source: dynamics of our own, one rigid body of unit mass with moment of inertia 0.4 m^2. A leg is a spring and damper
without mass that pushes up at its foot while that is under the ground, N = max(0, 60 depth - 5 foot's vertical
velocity), with Coulomb friction of at most 0.6 N, softened to -5 foot's horizontal velocity near rest. Semi-implicit
Euler, 0.02 s.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, sine_cosine, state_dtype, uniform_between

State = state_dtype(
    x=np.float64, y=np.float64, x_dot=np.float64, y_dot=np.float64, angle=np.float64, angle_dot=np.float64,
    shaping=np.float64,  # of this state: rewards are its changes
    left=np.int64, right=np.int64,  # 1 where a leg touches
    calm=np.int64,  # steps at rest on both legs
    landed=np.int64,
    main=np.float64, side=np.float64,  # what the engines gave in the last step, for the picture
)  # fmt: skip

FOOT_X, FOOT_Y = 0.8, -0.8  # the right foot, from the centre of mass
HULL = ((-0.55, -0.3), (0.55, -0.3), (0.45, 0.55), (-0.45, 0.55))
INERTIA = 0.4
SPRING, DAMPER, FRICTION = 60.0, 5.0, 0.6
WIDTH, HEIGHT = 10.0, 20.0 / 3.0
CALM_STEPS = 25
_low = np.array([-1.5, -0.5, -np.inf, -np.inf, -np.inf, -np.inf, 0, 0], np.float32)
_high = np.array([1.5, np.inf, np.inf, np.inf, np.inf, np.inf, 1, 1], np.float32)

observation_space = spaces.Box(_low, _high, dtype=np.float32)
max_episode_steps = 1_000
statistics = ("landed",)


class Parameters(NamedTuple):
    gravity: float = 10.0
    main: float = 20.0
    side: float = 1.0
    turn: float = 4.0
    time_step: float = 0.02


def reset(state, p):
    state.x = 0.0
    state.y = 10.0
    state.x_dot = uniform_between(state, -4.0, 4.0)
    state.y_dot = uniform_between(state, -4.0, 0.0)
    state.angle = 0.0
    state.angle_dot = uniform_between(state, -0.5, 0.5)
    state.left = 0
    state.right = 0
    state.calm = 0
    state.landed = 0
    state.main = 0.0
    state.side = 0.0
    state.shaping = shaping(state)


@compiled
def shaping(state):
    x, y, u, v = state.x / WIDTH, state.y / HEIGHT, state.x_dot / 5.0, state.y_dot / 7.5
    return (
        -100.0 * (math.sqrt(x * x + y * y) + math.sqrt(u * u + v * v) + abs(state.angle))
        + 10.0 * (state.left + state.right)
    )  # fmt: skip


@compiled
def foot(state, x, sine, cosine):
    """Forces (x, y) and the torque of the foot at `x` from the axis; all 0 in the air."""
    arm_x, arm_y = x * cosine - FOOT_Y * sine, x * sine + FOOT_Y * cosine
    depth = FOOT_Y - state.y - arm_y
    if depth <= 0.0:
        return 0.0, 0.0, 0.0
    normal = max(SPRING * depth - DAMPER * (state.y_dot + state.angle_dot * arm_x), 0.0)
    friction = -DAMPER * (state.x_dot - state.angle_dot * arm_y)
    friction = min(max(friction, -FRICTION * normal), FRICTION * normal)
    return friction, normal, arm_x * normal - arm_y * friction


@compiled
def lowest(sine, cosine):
    """How far the hull's lowest corner lies over the centre of mass (negative: under it)."""
    low = 0.0
    for i in range(4):
        low = min(low, HULL[i][0] * sine + HULL[i][1] * cosine)
    return low


@compiled
def fly(state, main, side, p):
    """One step with the main engine at `main`, 0 .. 1, and the side engines at `side`: up to 1 the left one, which
    pushes to the right, down to -1 the right one; returns (reward, terminated)."""
    sine, cosine = sine_cosine(state.angle)
    force_x = side * p.side * cosine - main * p.main * sine
    force_y = main * p.main * cosine + side * p.side * sine - p.gravity
    torque = side * p.turn * INERTIA
    state.main = main
    state.side = side
    left_x, left_y, left_torque = foot(state, -FOOT_X, sine, cosine)
    right_x, right_y, right_torque = foot(state, FOOT_X, sine, cosine)
    state.x_dot += p.time_step * (force_x + left_x + right_x)
    state.y_dot += p.time_step * (force_y + left_y + right_y)
    state.angle_dot += p.time_step * (torque + left_torque + right_torque) / INERTIA
    state.x += p.time_step * state.x_dot
    state.y += p.time_step * state.y_dot
    state.angle += p.time_step * state.angle_dot
    sine, cosine = sine_cosine(state.angle)
    state.left = touches(state, -FOOT_X, sine, cosine)
    state.right = touches(state, FOOT_X, sine, cosine)
    still = max(abs(state.x_dot), abs(state.y_dot), abs(state.angle_dot)) < 0.1
    state.calm = state.calm + 1 if still and state.left + state.right == 2 else 0
    before = state.shaping
    state.shaping = shaping(state)
    reward = state.shaping - before - 0.3 * main - 0.03 * abs(side)
    if abs(state.x) > WIDTH or state.y - FOOT_Y + lowest(sine, cosine) < 0.0:
        return reward - 100.0, True
    if state.calm >= CALM_STEPS:
        state.landed = 1
        return reward + 100.0, True
    return reward, False


def observe(state, observation, p):
    observation[0] = state.x / WIDTH
    observation[1] = state.y / HEIGHT
    observation[2] = state.x_dot / 5.0
    observation[3] = state.y_dot / 7.5
    observation[4] = state.angle
    observation[5] = state.angle_dot / 2.5
    observation[6] = state.left
    observation[7] = state.right


@compiled
def touches(state, x, sine, cosine):
    return 1 if state.y - FOOT_Y + x * sine + FOOT_Y * cosine < 0.0 else 0


canvas_size = (480, 336)
frames_per_second = 50


def draw(state, canvas):
    canvas.world(-10.0, 10.0, -1.5, 12.5)
    canvas.fill((22, 26, 40))
    canvas.rectangle(-10.0, -1.5, 10.0, 0.0, (120, 124, 130))
    for x in (-2.0, 2.0):
        canvas.line(x, 0.0, x, 1.0, (230, 230, 230), 0.05)
        canvas.polygon([(x, 1.0), (x, 0.6), (x + 0.6, 0.8)], (241, 196, 15))
    sine, cosine = math.sin(state.angle), math.cos(state.angle)

    def point(x, y):
        return state.x + x * cosine - y * sine, state.y - FOOT_Y + x * sine + y * cosine

    if state.main > 0.0:
        canvas.polygon([point(-0.25, -0.3), point(0.25, -0.3), point(0.0, -0.3 - state.main)], (243, 156, 18))
    if state.side != 0.0:
        side, flame = (-1.0 if state.side > 0.0 else 1.0), 0.6 * abs(state.side)
        canvas.polygon([point(0.5 * side, -0.2), point(0.5 * side, 0.1), point((0.5 + flame) * side, -0.05)],
                       (243, 156, 18))  # fmt: skip
    for side, touching in ((-1, state.left), (1, state.right)):
        colour = (46, 204, 113) if touching else (189, 195, 199)
        canvas.line(*point(0.4 * side, -0.2), *point(FOOT_X * side, FOOT_Y), colour, 0.12)
    canvas.polygon([point(x, y) for x, y in HULL], (155, 140, 220))
