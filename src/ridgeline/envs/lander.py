"""Lander: bring a rocket with one main and two side engines down on its legs, in the middle, with little fuel.

Observation
    index  meaning                                                     range
    0      x / 10                                                      -1 .. 1 (a little beyond at the end)
    1      y / (20/3): height over the place where it rests            about -0.1 .. unbounded
    2      horizontal velocity / 5                                     unbounded
    3      vertical velocity / 7.5                                     unbounded
    4      angle (rad), positive to the left (counter-clockwise)       unbounded
    5      angular velocity / 2.5                                      unbounded
    6, 7   1 where the left, the right leg touches the ground          0 or 1
Action: 0 nothing, 1 the left engine (pushes to the right and turns counter-clockwise), 2 the main engine, 3 the right
    engine. One engine at a time, fully on or off.
Reward: the change of
    shaping = -100 sqrt(o0^2 + o1^2) - 100 sqrt(o2^2 + o3^2) - 100 |o4| + 10 o6 + 10 o7
    with the observation o, minus 0.3 for each step of the main engine and 0.03 for a side engine, as in LunarLander;
    the last step has -100 for a crash and 100 for a rest in its place. Random play: -79 (measured). The scripted
    pilot of tests/test_control.py: 287 (the best known; it always lands). 200 counts as solved, as in LunarLander.
Start: 10 m over the pad's middle, upright, velocities uniform in -4 .. 4 m/s (vertical: -4 .. 0), angular velocity in
    -0.5 .. 0.5 rad/s.
End: terminated when the hull touches the ground or |x| > 10 (crash), or when both legs touched for 0.5 s with less than
    0.1 m/s and 0.1 rad/s (rest); truncated at 1,000 steps (20 s).
Parameters: gravity, main and side (accelerations, m/s^2), turn (angular acceleration, rad/s^2), time_step.
Source: task, observation and shaping: Gymnasium 1.4 LunarLander-v3 (Klimov 2016). Dynamics: own (ridgeline/rocket.py).
Differs: no Box2D; flat ground everywhere; engines without noise. Continuous engines: `lander_continuous`. Weights,
    engines and legs are own, so scores cannot be compared with LunarLander's step for step.
Version: 1
"""

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
    "observation_space", "observe", "reset", "simd", "statistics", "step",
]  # fmt: skip

action_space = spaces.Discrete(4)
simd = True


def step(state, action, p):
    main = 1.0 if action == 2 else 0.0
    side = 1.0 if action == 1 else (-1.0 if action == 3 else 0.0)
    return fly(state, main, side, p)
