"""Figures of sweeps: `python benchmarks/sweep.py [TRAININGS]`, 1000 if not given. Run it on an idle machine.

trainings      a sweep of so many complete CartPole trainings of 100,000 steps, none stopped, on all cores
bookkeeping    what is not training in it, of the workers and of the process that conducts
Stable-Baselines3   one CartPole training of 100,000 steps with its defaults, in the same run, and the ratio
                    (pip install stable-baselines3; left out where it is missing)
suggestion     a batch of 64 trials, with 1,000 trials in the ledger
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ridgeline import components
from ridgeline.sweep import space
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.ranges import whole
from ridgeline.sweep.records import Run, Trial
from ridgeline.sweep.sampler import suggest
from ridgeline.training import available_cores

STEPS, SEEDS = 100_000, 3
STABLE_BASELINES = f"""
import time, torch
from stable_baselines3 import PPO
begin = time.perf_counter()
PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0).learn({STEPS})
print(time.perf_counter() - begin)
"""


def trainings(count: int, folder: Path) -> float:
    """Seconds of a whole sweep, start-up included."""
    trials = -(-count // SEEDS)
    command = [
        sys.executable, "-m", "ridgeline", "sweep", "cartpole", "--trials", trials, "--steps", STEPS, "--seeds", SEEDS,
        "--full-length", "--complete", "--candidates", 1, "--fresh-seeds", 1, "--out", folder / "sweep", "--json",
    ]  # fmt: skip
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    document = json.loads(found.stdout.strip().splitlines()[-1])
    result = json.loads((folder / "sweep" / "result.json").read_text(encoding="utf-8"))
    assert document["num_trials"] == {"finished": trials}, document["num_trials"]
    done = document["num_runs"]["finished"] - 1
    training = sum(worker["training"] for worker in result["workers"])
    booking = sum(worker["bookkeeping"] for worker in result["workers"])
    print(
        f"{done} trainings of {STEPS:,} steps in {seconds:.1f} s on {available_cores()} cores: "
        f"{done * STEPS / seconds / 1e3:.0f} k steps/s; 1,000 would take {seconds / done * 1000 / 60:.2f} minutes"
    )
    share = 1 - sum(worker["processor"] for worker in result["workers"]) / processor
    print(
        f"bookkeeping of the workers: {booking / (training + booking):.1%} of their time ({booking:.1f} s); "
        f"processor seconds of everything but training, start-up and suggestions included: {share:.1%}",
        flush=True,
    )
    return seconds / done


def stable_baselines(seconds_each: float) -> None:
    if importlib.util.find_spec("stable_baselines3") is None:
        print("Stable-Baselines3: not installed, left out")
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", STABLE_BASELINES], capture_output=True, text=True, env=environment)
    seconds = float(found.stdout.split()[-1])
    print(
        f"Stable-Baselines3: one training of {STEPS:,} steps in {seconds:.1f} s, so 1,000 one after another "
        f"{seconds * 1000 / 3600:.1f} hours: {seconds / seconds_each:.0f} times as long",
        flush=True,
    )


def suggestion(folder: Path) -> None:
    """The usual space, a ledger of 1,000 finished trials of 3 seeds."""
    made = {kind: components.find(kind, name)() for kind, name in
            (("algorithm", "ppo"), ("estimator", "gae"), ("policy", "mlp"))}  # fmt: skip
    searched = space.make(made, set(), whole(STEPS // 10, STEPS, "log"))
    ledger = Ledger(folder / "ledger.sqlite")
    study, generator = ledger.create_study("full", "sweep", {}), np.random.default_rng(0)
    drawn = [searched.random(generator) for _ in range(1000)]
    ledger.add_trials(study, [Trial(-1, one, one["steps"]) for one in drawn], range(SEEDS))
    while claims := ledger.claim(study, "one", 300, 600):
        ledger.finish(study, "one", [
            Run(c.trial, c.seed, "tuning", "finished", c.configuration["gamma"] + generator.normal(), c.budget, 1.0)
            for c in claims
        ])  # fmt: skip
    import optuna  # noqa: F401  (its import is not the suggestion)

    begin, processor = time.perf_counter(), time.process_time()
    trials = ledger.trials(study)
    suggest(searched, trials, 64, "tpe", 0, "steps")
    seconds, processor = time.perf_counter() - begin, time.process_time() - processor
    print(f"suggestion of 64 trials with 1,000 in the ledger: {seconds:.1f} s ({processor:.1f} processor seconds)")
    ledger.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        suggestion(Path(folder))
        stable_baselines(trainings(count, Path(folder)))


if __name__ == "__main__":
    main()
