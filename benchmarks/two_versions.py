"""Environments of two versions of the sources, in turn on one core: `python benchmarks/two_versions.py OLD [NAME ...]`.

OLD is the `src` folder of another checkout (`git worktree add ../old COMMIT`); the new version is what this Python
imports. Nanoseconds per step of 4096 instances (of several agents, each one's step), random actions, observations
written, autoreset: the least CPU time of 16 steps in a row, over 6 parts of a quarter of a second each. CPU time,
because it hardly notices what else runs on the machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import ridgeline

ONE = """
import json, sys, time
import numpy as np
from ridgeline.environments import make
from ridgeline.kernel import sample_action
parameters = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
for name in sys.stdin:
    env = make(name.strip(), 8, 0, parameters=parameters)
    env = make(name.strip(), max(1, 4096 // env.num_agents), 0, parameters=parameters)
    actions = [sample_action(env.action_space, np.random.default_rng(i), env.num_rows) for i in range(16)]
    for part in range(7):  # the first one compiles
        best, end = np.inf, time.perf_counter() + 0.25
        while time.perf_counter() < end:
            start = time.thread_time()
            for action in actions:
                env.step(action)
            best = min(best, time.thread_time() - start)
        print(best / 16 / env.num_rows * 1e9, flush=True)
        sys.stdin.readline()  # the other one's turn
"""


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    versions = [
        subprocess.Popen(
            [sys.executable, "-c", ONE], env=os.environ | {"PYTHONPATH": str(folder)}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for folder in (sys.argv[1], Path(ridgeline.__file__).parents[1])
    ]  # fmt: skip
    print("| environment | before, ns | now, ns | M steps/s | ratio |\n|---|---|---|---|---|")
    for name in sys.argv[2:] or ridgeline.names():
        best = [float("inf")] * 2
        for part in range(7):
            for i, version in enumerate(versions):
                assert version.stdin and version.stdout
                version.stdin.write(f"{name}\n" if part == 0 else "\n")
                version.stdin.flush()
                nanoseconds = float(version.stdout.readline())
                best[i] = min(best[i], nanoseconds) if part else best[i]
        for version in versions:
            assert version.stdin
            version.stdin.write("\n")
            version.stdin.flush()
        old, new = best
        print(f"| {name} | {old:.1f} | {new:.1f} | {1e3 / new:.1f} | {old / new:.2f} |", flush=True)
    for version in versions:
        version.communicate()


if __name__ == "__main__":
    main()
