"""CartPole: balance a pole on a cart by pushing the cart left or right.

Observation
    index  meaning                      range
    0      cart position (m)            -4.8 .. 4.8
    1      cart velocity (m/s)          unbounded
    2      pole angle (rad)             -0.418 .. 0.418
    3      pole angular velocity        unbounded
Action: 0 pushes left, 1 pushes right, with 10 N.
Reward: 1 for every step, the last included.
Start: all four uniform in -0.05 .. 0.05.
End: terminated when |position| > 2.4 or |angle| > 12 degrees; truncated at 500 steps.
Source: Barto, Sutton & Anderson 1983; Gymnasium 1.4 CartPole-v1 (Euler integration, 0.02 s).
Differs: random numbers come from the kernel; the total mass is divided by once, not three times (rounding).
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import sine_cosine, state_dtype, uniform_between

State = state_dtype(x=np.float64, x_dot=np.float64, theta=np.float64, theta_dot=np.float64)

MAX_X = 2.4
MAX_THETA = 12 * 2 * math.pi / 360
_high = np.array([MAX_X * 2, np.inf, MAX_THETA * 2, np.inf], np.float32)

observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 500
simd = True


class Parameters(NamedTuple):
    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    force: float = 10.0
    time_step: float = 0.02


def reset(state, p):
    state.x = uniform_between(state, -0.05, 0.05)
    state.x_dot = uniform_between(state, -0.05, 0.05)
    state.theta = uniform_between(state, -0.05, 0.05)
    state.theta_dot = uniform_between(state, -0.05, 0.05)


def step(state, action, p):
    force = p.force if action == 1 else -p.force
    sine, cosine = sine_cosine(state.theta)
    inverse_mass = 1.0 / (p.cart_mass + p.pole_mass)
    mass_length = p.pole_mass * p.half_length
    pressure = (force + mass_length * (state.theta_dot * state.theta_dot) * sine) * inverse_mass
    theta_acceleration = (p.gravity * sine - cosine * pressure) / (
        p.half_length * (4.0 / 3.0 - p.pole_mass * (cosine * cosine) * inverse_mass)
    )
    acceleration = pressure - mass_length * theta_acceleration * cosine * inverse_mass
    state.x += p.time_step * state.x_dot
    state.x_dot += p.time_step * acceleration
    state.theta += p.time_step * state.theta_dot
    state.theta_dot += p.time_step * theta_acceleration
    terminated = abs(state.x) > MAX_X or abs(state.theta) > MAX_THETA
    return 1.0, terminated


def observe(state, observation, p):
    observation[0] = state.x
    observation[1] = state.x_dot
    observation[2] = state.theta
    observation[3] = state.theta_dot


frames_per_second = 50


def draw(state, canvas):
    canvas.world(-2.6, 2.6, -0.6, 1.7)
    canvas.fill((250, 250, 247))
    canvas.line(-2.6, 0.0, 2.6, 0.0, (90, 90, 90), 0.012)
    canvas.rectangle(state.x - 0.28, -0.12, state.x + 0.28, 0.12, (52, 73, 94))
    tip_x = state.x + math.sin(state.theta)
    tip_y = 0.12 + math.cos(state.theta)
    canvas.line(state.x, 0.12, tip_x, tip_y, (202, 152, 101), 0.07)
    canvas.circle(state.x, 0.12, 0.05, (127, 127, 204))
