"""When processes are faster for Gymnasium environments: `python benchmarks/gymnasium_processes.py`.

For each environment and number of rows, environment steps per second in one process, in one process per core, and in
Gymnasium's AsyncVectorEnv (one process per row), measured in turn; and what GymnasiumEnv chooses by itself.
Other work on the machine falsifies it: the fraction of the cores that was idle before each row is printed.
"""

import os
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv

from ridgeline.adapters.gymnasium import GymnasiumEnv

CASES = (("CartPole-v1", 64), ("CartPole-v1", 256), ("Pendulum-v1", 128), ("Acrobot-v1", 32),
         ("Hopper-v5", 8), ("Hopper-v5", 64), ("HumanoidStandup-v5", 8), ("HumanoidStandup-v5", 32))  # fmt: skip
ROUNDS, SECONDS = 4, 0.3


def steps_per_second(env, action):
    """Of one round."""
    for _ in range(3):
        env.step(action)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        env.step(action)
        count += 1
    return count * len(action) / (time.perf_counter() - start)


def idle():
    """The fraction of the cores that is idle now; NaN where the system does not tell."""
    if not Path("/proc/stat").exists():
        return float("nan")

    def read():
        times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return times[3] + times[4], sum(times)

    (idle_before, all_before), _, (idle_after, all_after) = read(), time.sleep(0.2), read()
    return (idle_after - idle_before) / max(1, all_after - all_before)


def measure(name, rows):
    """One line of the table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    envs = {
        "one process": GymnasiumEnv(name, rows, processes=1),
        f"{cores} processes": GymnasiumEnv(name, rows, processes=cores),
        "AsyncVectorEnv": AsyncVectorEnv(
            [lambda: gymnasium.make(name, disable_env_checker=True)] * rows, autoreset_mode="SameStep"
        ),
    }
    envs["AsyncVectorEnv"].reset(seed=0)
    space = envs["one process"].action_space
    space.seed(0)
    action = np.stack([space.sample() for _ in range(rows)])
    free = idle()
    speeds = {key: [] for key in envs}
    for _ in range(ROUNDS):
        for key, env in envs.items():
            speeds[key].append(steps_per_second(env, action))
    chosen = GymnasiumEnv(name, rows)
    base = float(np.median(speeds["one process"]))
    figures = "  ".join(f"{key} {np.median(v):8.0f}/s ({np.median(v) / base:.2f}x)" for key, v in speeds.items())
    print(f"{name:20s} {rows:4d} rows  {figures}  chosen: {len(chosen._slices)}  idle: {free:.0%}", flush=True)
    for env in (chosen, *envs.values()):
        env.close()


if __name__ == "__main__":
    for case in CASES:
        measure(*case)
