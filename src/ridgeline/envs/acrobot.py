"""Acrobot: swing the free end of a two-link chain above a line with a motor at the middle joint only.

Observation
    index  meaning                                        range
    0, 1   cosine and sine of the first link's angle      -1 .. 1
    2, 3   cosine and sine of the second link's angle     -1 .. 1
    4      angular velocity of the first link (rad/s)     -4 pi .. 4 pi
    5      angular velocity of the second link (rad/s)    -9 pi .. 9 pi
    Both links hang straight down at angle 0; the second angle is relative to the first link.
Action: 0, 1, 2 apply a torque of -1, 0, 1 N m to the joint between the links.
Reward: -1 for every step, 0 for the one that reaches the line.
Start: angles and velocities uniform in -0.1 .. 0.1.
End: terminated when -cos(angle_1) - cos(angle_1 + angle_2) > 1; truncated at 500 steps.
Source: Sutton 1996; Sutton & Barto 2018, equations of the book; Gymnasium 1.4 Acrobot-v1 (Runge-Kutta 4, 0.2 s).
Differs: random numbers come from the kernel; the starting state is not rounded to float32; the accelerations solve the
    same two equations in one go, which changes last bits.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, sine_cosine, state_dtype, uniform_between

State = state_dtype(
    theta_1=np.float64, theta_2=np.float64, theta_1_dot=np.float64, theta_2_dot=np.float64,
    sine_1=np.float64, cosine_1=np.float64, sine_2=np.float64, cosine_2=np.float64,  # of both angles, for `observe`
)  # fmt: skip

MAX_DOT_1 = 4 * math.pi
MAX_DOT_2 = 9 * math.pi
_high = np.array([1.0, 1.0, 1.0, 1.0, MAX_DOT_1, MAX_DOT_2], np.float32)

observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Discrete(3)
max_episode_steps = 500
simd = True


class Parameters(NamedTuple):
    gravity: float = 9.8
    length_1: float = 1.0
    mass_1: float = 1.0
    mass_2: float = 1.0
    centre_1: float = 0.5
    centre_2: float = 0.5
    inertia: float = 1.0
    torque: float = 1.0
    time_step: float = 0.2


def reset(state, p):
    state.theta_1 = uniform_between(state, -0.1, 0.1)
    state.theta_2 = uniform_between(state, -0.1, 0.1)
    state.theta_1_dot = uniform_between(state, -0.1, 0.1)
    state.theta_2_dot = uniform_between(state, -0.1, 0.1)
    look(state)


@compiled
def look(state):
    """Both angles' sines and cosines."""
    state.sine_1, state.cosine_1 = sine_cosine(state.theta_1)
    state.sine_2, state.cosine_2 = sine_cosine(state.theta_2)


@compiled
def accelerations(theta_1, theta_2, theta_1_dot, theta_2_dot, torque, p):
    """Both angular accelerations f and g: d1 f + d2 g = -phi_1 and d2 f + d3 g = right."""
    sine_1, cosine_1 = sine_cosine(theta_1)
    sine, cosine = sine_cosine(theta_2)
    m1, m2, l1, c1, c2 = p.mass_1, p.mass_2, p.length_1, p.centre_1, p.centre_2
    k = m2 * l1 * c2
    d3 = m2 * (c2 * c2) + p.inertia
    d2 = d3 + k * cosine
    d1 = m1 * (c1 * c1) + m2 * (l1 * l1) + p.inertia + k * cosine + d2
    phi_2 = m2 * c2 * p.gravity * (sine_1 * cosine + cosine_1 * sine)  # of the sum of both angles
    phi_1 = (
        (m1 * c1 + m2 * l1) * p.gravity * sine_1
        + phi_2
        - k * sine * theta_2_dot * (theta_2_dot + 2.0 * theta_1_dot)
    )  # fmt: skip
    right = torque - phi_2 - k * sine * (theta_1_dot * theta_1_dot)
    scale = 1.0 / (d1 * d3 - d2 * d2)
    return -scale * (d3 * phi_1 + d2 * right), scale * (d1 * right + d2 * phi_1)


@compiled
def wrap(angle):
    """`angle` plus whole turns, in -pi .. pi."""
    return angle - 2 * math.pi * np.rint(angle / (2 * math.pi))


def step(state, action, p):
    torque = (action - 1) * p.torque
    h, half = p.time_step, p.time_step / 2.0
    # Runge-Kutta: a, b are the angles, v, w their velocities, f, g their accelerations at the four points.
    a, b, v1, w1 = state.theta_1, state.theta_2, state.theta_1_dot, state.theta_2_dot
    f1, g1 = accelerations(a, b, v1, w1, torque, p)
    v2, w2 = v1 + half * f1, w1 + half * g1
    f2, g2 = accelerations(a + half * v1, b + half * w1, v2, w2, torque, p)
    v3, w3 = v1 + half * f2, w1 + half * g2
    f3, g3 = accelerations(a + half * v2, b + half * w2, v3, w3, torque, p)
    v4, w4 = v1 + h * f3, w1 + h * g3
    f4, g4 = accelerations(a + h * v3, b + h * w3, v4, w4, torque, p)
    theta_1_dot = v1 + h / 6.0 * (f1 + 2 * f2 + 2 * f3 + f4)
    theta_2_dot = w1 + h / 6.0 * (g1 + 2 * g2 + 2 * g3 + g4)
    state.theta_1 = wrap(a + h / 6.0 * (v1 + 2 * v2 + 2 * v3 + v4))
    state.theta_2 = wrap(b + h / 6.0 * (w1 + 2 * w2 + 2 * w3 + w4))
    state.theta_1_dot = min(max(theta_1_dot, -MAX_DOT_1), MAX_DOT_1)
    state.theta_2_dot = min(max(theta_2_dot, -MAX_DOT_2), MAX_DOT_2)
    look(state)
    terminated = state.sine_1 * state.sine_2 - state.cosine_1 * state.cosine_2 - state.cosine_1 > 1.0
    return 0.0 if terminated else -1.0, terminated


def observe(state, observation, p):
    observation[0] = state.cosine_1
    observation[1] = state.sine_1
    observation[2] = state.cosine_2
    observation[3] = state.sine_2
    observation[4] = state.theta_1_dot
    observation[5] = state.theta_2_dot


canvas_size = (420, 420)
frames_per_second = 15


def draw(state, canvas):
    canvas.world(-2.3, 2.3, -2.3, 2.3)
    canvas.fill((250, 250, 247))
    canvas.line(-2.3, 1.0, 2.3, 1.0, (192, 57, 43), 0.02)
    elbow_x, elbow_y = math.sin(state.theta_1), -math.cos(state.theta_1)
    angle = state.theta_1 + state.theta_2
    tip_x, tip_y = elbow_x + math.sin(angle), elbow_y - math.cos(angle)
    canvas.line(0.0, 0.0, elbow_x, elbow_y, (52, 73, 94), 0.16)
    canvas.line(elbow_x, elbow_y, tip_x, tip_y, (41, 128, 185), 0.16)
    for x, y in ((0.0, 0.0), (elbow_x, elbow_y)):
        canvas.circle(x, y, 0.1, (241, 196, 15))
    canvas.circle(tip_x, tip_y, 0.06, (192, 57, 43))
