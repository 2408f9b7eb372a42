"""Pendulum: swing a rod up with a torque too weak to lift it at once, and hold it there.

Observation
    index  meaning                    range
    0      cosine of the angle        -1 .. 1 (1: upright)
    1      sine of the angle          -1 .. 1
    2      angular velocity (rad/s)   -8 .. 8
Action: the torque (N m), clipped to -2 .. 2; positive is counter-clockwise.
Reward: -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) before the step, with the angle in -pi .. pi and 0 upright.
Start: angle uniform in -pi .. pi, angular velocity uniform in -1 .. 1.
End: never terminated; truncated at 200 steps.
Source: Gymnasium 1.4 Pendulum-v1.
Differs: random numbers come from the kernel. As in Gymnasium, terms of the action alone have the action's precision;
    there NumPy's float32 power is off in the last bit for 1 action in 1,000 (1e-10 of reward).
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import sine_cosine, state_dtype, uniform_between

State = state_dtype(theta=np.float64, theta_dot=np.float64, sine=np.float64, cosine=np.float64)

MAX_SPEED = 8.0
MAX_TORQUE = 2.0
_high = np.array([1.0, 1.0, MAX_SPEED], np.float32)

observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)
max_episode_steps = 200
simd = True


class Parameters(NamedTuple):
    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    time_step: float = 0.05


def reset(state, p):
    state.theta = uniform_between(state, -math.pi, math.pi)
    state.theta_dot = uniform_between(state, -1.0, 1.0)
    state.sine, state.cosine = sine_cosine(state.theta)


def step(state, action, p):
    number = action.dtype.type
    torque = number(min(max(action[0], -MAX_TORQUE), MAX_TORQUE))
    angle = (state.theta + math.pi) % (2 * math.pi) - math.pi
    effort = np.float64(number(0.001) * (torque * torque))
    cost = angle * angle + 0.1 * (state.theta_dot * state.theta_dot) + effort
    push = np.float64(number(3.0 / (p.mass * (p.length * p.length))) * torque)
    theta_dot = state.theta_dot + (3 * p.gravity / (2 * p.length) * state.sine + push) * p.time_step
    state.theta_dot = min(max(theta_dot, -MAX_SPEED), MAX_SPEED)
    state.theta += state.theta_dot * p.time_step
    state.sine, state.cosine = sine_cosine(state.theta)
    return -cost, False


def observe(state, observation, p):
    observation[0] = state.cosine
    observation[1] = state.sine
    observation[2] = state.theta_dot


canvas_size = (360, 360)
frames_per_second = 20


def draw(state, canvas):
    canvas.world(-1.4, 1.4, -1.4, 1.4)
    canvas.fill((250, 250, 247))
    canvas.line(0.0, 1.25, 0.0, 1.36, (39, 174, 96), 0.03)
    tip_x, tip_y = -math.sin(state.theta), math.cos(state.theta)
    canvas.line(0.0, 0.0, tip_x, tip_y, (192, 87, 70), 0.18)
    canvas.circle(0.0, 0.0, 0.05, (40, 40, 40))
