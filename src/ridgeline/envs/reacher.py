"""Reacher: bring the tip of a two-link arm to a target and hold it there.

Observation
    index  meaning                                               range
    0, 1   cosine and sine of the shoulder's angle               -1 .. 1
    2, 3   cosine and sine of the elbow's angle, relative        -1 .. 1
    4, 5   angular velocities of shoulder and elbow (rad/s)      unbounded
    6, 7   the target's x and y (m)                              -0.9 .. 0.9
    8, 9   the tip's x and y minus the target's (m)              -1.9 .. 1.9
Action: the torques of shoulder and elbow, clipped to -1 .. 1, in units of `torque`; positive is counter-clockwise.
Reward: -distance - 0.01 (action[0] ** 2 + action[1] ** 2), with the tip's distance from the target (m) after the step.
    Random play: -87 on average (measured). Best known: -15.3, by the scripted controller of tests/test_control.py.
Start: both angles uniform in -pi .. pi, at rest; the target uniform in a disc of radius 0.9 m (the arm is 1 m long).
End: never terminated; truncated at 100 steps (5 s).
Parameters: mass and length of each link, torque, damping, time_step.
Source: equations of motion of the planar two-link arm: Murray, Li & Sastry 1994, "A mathematical introduction to
    robotic manipulation", section 4.2.3, here with uniform rods, damped joints and no gravity (it lies flat):
        (a + 2 b cos e) s'' + (d + b cos e) e'' = torque_s - damping s' + b sin e (2 s' + e') e'
        (d + b cos e) s''           +     d e'' = torque_e - damping e' - b sin e s' s'
    with s, e the angles, a = 5/3 m l^2, b = m l^2 / 2, d = m l^2 / 3. Task: after Gymnasium's Reacher-v5.
Differs: own masses and lengths; no limits of the joints and no contact; two semi-implicit Euler steps of 0.025 s in
    each step; Reacher-v5 has other scales, starts near one posture, and 50 steps.
Version: 1
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import compiled, sine_cosine, state_dtype, uniform, uniform_between

State = state_dtype(
    shoulder=np.float64, elbow=np.float64, shoulder_dot=np.float64, elbow_dot=np.float64,
    cosines=(np.float64, (2,)), sines=(np.float64, (2,)),  # of shoulder and elbow: `step` and `observe` need them
    target_x=np.float64, target_y=np.float64, error_x=np.float64, error_y=np.float64,
)  # fmt: skip

REACH = 0.9
SUBSTEPS = 2
_high = np.array([1, 1, 1, 1, np.inf, np.inf, REACH, REACH, np.inf, np.inf], np.float32)

observation_space = spaces.Box(-_high, _high, dtype=np.float32)
action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
max_episode_steps = 100


class Parameters(NamedTuple):
    mass: float = 1.0
    length: float = 0.5
    torque: float = 1.0
    damping: float = 0.2
    time_step: float = 0.05


def reset(state, p):
    state.shoulder = uniform_between(state, -math.pi, math.pi)
    state.elbow = uniform_between(state, -math.pi, math.pi)
    state.shoulder_dot = 0.0
    state.elbow_dot = 0.0
    radius, angle = REACH * math.sqrt(uniform(state)), uniform_between(state, -math.pi, math.pi)
    sine, cosine = sine_cosine(angle)
    state.target_x = radius * cosine
    state.target_y = radius * sine
    state.sines[0], state.cosines[0] = sine_cosine(state.shoulder)
    state.sines[1], state.cosines[1] = sine_cosine(state.elbow)
    look(state, p)


@compiled
def look(state, p):
    """The tip's distance from the target in x and y, from sines and cosines."""
    cosine = state.cosines[0] * state.cosines[1] - state.sines[0] * state.sines[1]
    sine = state.sines[0] * state.cosines[1] + state.cosines[0] * state.sines[1]
    state.error_x = p.length * (state.cosines[0] + cosine) - state.target_x
    state.error_y = p.length * (state.sines[0] + sine) - state.target_y


@compiled
def turned(sine, cosine, angle):
    """Sine and cosine of an angle plus `angle`; rounding adds up to 1e-13 in an episode at most."""
    small_sine, small_cosine = sine_cosine(angle)
    return sine * small_cosine + cosine * small_sine, cosine * small_cosine - sine * small_sine


def step(state, action, p):
    push_1 = min(max(np.float64(action[0]), -1.0), 1.0)
    push_2 = min(max(np.float64(action[1]), -1.0), 1.0)
    half = p.mass * (p.length * p.length) / 2.0
    a, d = half * (10.0 / 3.0), half * (2.0 / 3.0)
    h = p.time_step / SUBSTEPS
    v, w, sine, cosine = state.shoulder_dot, state.elbow_dot, state.sines[1], state.cosines[1]
    shoulder_turn = 0.0
    for _ in range(SUBSTEPS):
        corner, both = a + 2.0 * half * cosine, d + half * cosine
        first = p.torque * push_1 - p.damping * v + half * sine * (2.0 * v + w) * w
        second = p.torque * push_2 - p.damping * w - half * sine * (v * v)
        scale = h / (corner * d - both * both)
        v, w = v + scale * (d * first - both * second), w + scale * (corner * second - both * first)
        shoulder_turn += h * v
        state.elbow += h * w
        sine, cosine = turned(sine, cosine, h * w)
    state.shoulder += shoulder_turn
    state.shoulder_dot, state.elbow_dot, state.sines[1], state.cosines[1] = v, w, sine, cosine
    state.sines[0], state.cosines[0] = turned(state.sines[0], state.cosines[0], shoulder_turn)
    look(state, p)
    distance = math.sqrt(state.error_x * state.error_x + state.error_y * state.error_y)
    return -distance - 0.01 * (push_1 * push_1 + push_2 * push_2), False


def observe(state, observation, p):
    observation[0] = state.cosines[0]
    observation[1] = state.sines[0]
    observation[2] = state.cosines[1]
    observation[3] = state.sines[1]
    observation[4] = state.shoulder_dot
    observation[5] = state.elbow_dot
    observation[6] = state.target_x
    observation[7] = state.target_y
    observation[8] = state.error_x
    observation[9] = state.error_y


canvas_size = (360, 360)
frames_per_second = 20


def draw(state, canvas):
    canvas.world(-1.1, 1.1, -1.1, 1.1)
    canvas.fill((250, 250, 247))
    canvas.circle(0.0, 0.0, REACH, (238, 240, 242))
    canvas.circle(state.target_x, state.target_y, 0.07, (192, 57, 43))
    canvas.circle(state.target_x, state.target_y, 0.035, (250, 250, 247))
    elbow_x, elbow_y = 0.5 * state.cosines[0], 0.5 * state.sines[0]
    tip_x, tip_y = state.target_x + state.error_x, state.target_y + state.error_y
    canvas.line(0.0, 0.0, elbow_x, elbow_y, (52, 73, 94), 0.07)
    canvas.line(elbow_x, elbow_y, tip_x, tip_y, (41, 128, 185), 0.06)
    for x, y in ((0.0, 0.0), (elbow_x, elbow_y)):
        canvas.circle(x, y, 0.045, (241, 196, 15))
    canvas.circle(tip_x, tip_y, 0.03, (40, 40, 40))
