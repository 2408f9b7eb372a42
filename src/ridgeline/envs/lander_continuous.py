"""Lander with continuous engines: bring a rocket down on its legs, in the middle, with little fuel.

Observation
    index  meaning                                                     range
    0      x / 10                                                      -1 .. 1 (a little beyond at the end)
    1      y / (20/3): height over the place where it rests            about -0.1 .. unbounded
    2      horizontal velocity / 5                                     unbounded
    3      vertical velocity / 7.5                                     unbounded
    4      angle (rad), positive to the left (counter-clockwise)       unbounded
    5      angular velocity / 2.5                                      unbounded
    6, 7   1 where the left, the right leg touches the ground          0 or 1
Action: two numbers, clipped to -1 .. 1. The first: the main engine, off up to 0, at half power just above and at full
    power at 1. The second: the side engines, off within -0.5 .. 0.5; beyond, with its size as power, the left one
    (which pushes to the right and turns counter-clockwise) where it is positive, else the right one.
Reward: the change of
    shaping = -100 sqrt(o0^2 + o1^2) - 100 sqrt(o2^2 + o3^2) - 100 |o4| + 10 o6 + 10 o7
    with the observation o, minus 0.3 for each step of the main engine at full power and 0.03 for a side engine, less at
    less power, as in LunarLander; the last step has -100 for a crash and 100 for a rest in its place. Random play: -168
    (measured). The scripted pilot of tests/test_control.py: 287 (the best known). 200 counts as solved.
Start: 10 m over the pad's middle, upright, velocities uniform in -4 .. 4 m/s (vertical: -4 .. 0), angular velocity in
    -0.5 .. 0.5 rad/s.
End: terminated when the hull touches the ground or |x| > 10 (crash), or when both legs touched for 0.5 s with less than
    0.1 m/s and 0.1 rad/s (rest); truncated at 1,000 steps (20 s).
Parameters: gravity, main and side (accelerations, m/s^2), turn (angular acceleration, rad/s^2), time_step.
Source: task, observation and shaping: Gymnasium 1.4 LunarLander-v3 (Klimov 2016). Dynamics: own (ridgeline/rocket.py).
Differs: no Box2D; flat ground everywhere; engines without noise. Discrete engines: `lander`. Weights,
    engines and legs are own, so scores cannot be compared with LunarLander's step for step.
Version: 1
"""

import numpy as np
from gymnasium import spaces

from ridgeline.rocket import (
    Parameters,
    State,
    canvas_size,
    draw,
    fly,
    frames_per_second,
    max_episode_steps,
    observation_space,
    observe,
    reset,
    statistics,
)

__all__ = [
    "Parameters", "State", "action_space", "canvas_size", "draw", "frames_per_second", "max_episode_steps",
    "observation_space", "observe", "reset", "statistics", "step",
]  # fmt: skip

action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)


def step(state, action, p):
    main = min(max(np.float64(action[0]), -1.0), 1.0)
    side = min(max(np.float64(action[1]), -1.0), 1.0)
    return fly(state, 0.5 + 0.5 * main if main > 0.0 else 0.0, side if abs(side) > 0.5 else 0.0, p)
