"""CartPole swing-up: swing a hanging pole up by driving its cart, and balance it in the middle of the track.

Observation
    index  meaning                      range
    0      cart position (m)            -3.6 .. 3.6
    1      cart velocity (m/s)          unbounded
    2      cosine of the pole's angle   -1 .. 1 (1: upright)
    3      sine of it                   -1 .. 1
    4      pole angular velocity        unbounded
Action: the force on the cart, clipped to -1 .. 1, in units of `force`; positive is to the right.
Reward: upright * centred * slow * gentle, between 0 and 1, of the state after the step:
    upright = (1 + cos(angle)) / 2                centred = (1 + 0.1 ** ((position / 2) ** 2)) / 2
    gentle = (5 - action ** 2) / 5                slow = (1 + 0.1 ** ((angular velocity / 5) ** 2)) / 2
    Random play: 5.2 (measured). Best known: 426.5 on average, by the scripted controller of tests/test_control.py
    (energy, then linear feedback); no episode can reach 500, for the pole hangs at first.
Start: position and both velocities uniform in -0.05 .. 0.05, the angle likewise around pi (hanging).
End: terminated when |position| > 2.4; truncated at 500 steps (10 s).
Parameters: gravity, cart_mass, pole_mass, half_length, force, time_step.
Source: equations of motion: Barto, Sutton & Anderson 1983 without friction, as in Gymnasium's CartPole-v1 (a uniform
    rod). Reward: the swing-up of the DeepMind control suite (Tassa et al. 2018), cartpole.swingup.
Differs: the end of the track ends the episode instead of stopping the cart; masses and lengths are CartPole's; the
    velocities are integrated first, then the positions with the new ones (semi-implicit Euler, 0.02 s): Euler's own
    method would pump energy into the swinging pole.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import sine_cosine, state_dtype, uniform_between

State = state_dtype(
    x=np.float64, x_dot=np.float64, theta=np.float64, theta_dot=np.float64,
    sine=np.float64, cosine=np.float64,  # of theta: both `step` and `observe` need them
)  # fmt: skip

MAX_X = 2.4
LOG_TENTH = math.log(0.1)
_high = np.array([MAX_X * 1.5, np.inf, 1.0, 1.0, np.inf], np.float32)

observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
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
    state.theta = math.pi + uniform_between(state, -0.05, 0.05)
    state.theta_dot = uniform_between(state, -0.05, 0.05)
    state.sine, state.cosine = sine_cosine(state.theta)


def step(state, action, p):
    push = min(max(np.float64(action[0]), -1.0), 1.0)
    inverse_mass = 1.0 / (p.cart_mass + p.pole_mass)
    mass_length = p.pole_mass * p.half_length
    pressure = (p.force * push + mass_length * (state.theta_dot * state.theta_dot) * state.sine) * inverse_mass
    theta_acceleration = (p.gravity * state.sine - state.cosine * pressure) / (
        p.half_length * (4.0 / 3.0 - p.pole_mass * (state.cosine * state.cosine) * inverse_mass)
    )
    acceleration = pressure - mass_length * theta_acceleration * state.cosine * inverse_mass
    state.x_dot += p.time_step * acceleration
    state.theta_dot += p.time_step * theta_acceleration
    state.x += p.time_step * state.x_dot
    turn = p.time_step * state.theta_dot
    state.theta += turn
    # Of a small angle sine and cosine are cheap; rounding adds up to 1e-13 at most.
    small_sine, small_cosine = sine_cosine(turn)
    state.sine, state.cosine = (
        state.sine * small_cosine + state.cosine * small_sine,
        state.cosine * small_cosine - state.sine * small_sine,
    )
    centred = 1.0 + math.exp(LOG_TENTH / 4.0 * (state.x * state.x))
    slow = 1.0 + math.exp(LOG_TENTH / 25.0 * (state.theta_dot * state.theta_dot))
    reward = (1.0 + state.cosine) * centred * slow * (5.0 - push * push) / 40.0
    return reward, abs(state.x) > MAX_X


def observe(state, observation, p):
    observation[0] = state.x
    observation[1] = state.x_dot
    observation[2] = state.cosine
    observation[3] = state.sine
    observation[4] = state.theta_dot


canvas_size = (520, 240)
frames_per_second = 50


def draw(state, canvas):
    canvas.world(-2.6, 2.6, -1.2, 1.2)
    canvas.fill((250, 250, 247))
    canvas.line(-2.4, 0.0, 2.4, 0.0, (90, 90, 90), 0.012)
    for end in (-2.4, 2.4):
        canvas.line(end, -0.1, end, 0.1, (192, 57, 43), 0.03)
    canvas.rectangle(state.x - 0.22, -0.1, state.x + 0.22, 0.1, (52, 73, 94))
    tip_x, tip_y = state.x + math.sin(state.theta), math.cos(state.theta)
    canvas.line(state.x, 0.0, tip_x, tip_y, (202, 152, 101), 0.06)
    canvas.circle(state.x, 0.0, 0.045, (127, 127, 204))
