"""How often intervals cover the truth, and how often equal arms are told apart: run this file.

For each kind of score (normal, beta, bimodal, log-normal, and the measured final returns of estimator_study.jsonl,
smoothed a little) five worlds are drawn, each with its own distribution per environment; in each, `--studies` studies
of R runs are made. The truth is the statistic of a very large study. One table per statistic, in percent, the lowest
and highest over the five kinds; then the null test of `ridgeline compare`'s rule for a winner.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ridgeline import statistics

KINDS = ("normal", "beta", "bimodal", "log-normal", "measured")
WORLDS = 5
RANGES = {"cartpole": (9, 500), "delayed_64": (0, 11.4), "noisy_bandit": (80, 200), "corridor": (-400, -40),
          "key_to_door": (0, 11.4), "acrobot": (-500, -70), "pendulum": (-1500, -150)}  # fmt: skip


def measured() -> list[np.ndarray]:
    """The final normalised returns of 16 runs each, of every cell of the estimator study."""
    lines = (Path(__file__).parent / "estimator_study.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [cell for cell in map(json.loads, lines) if cell["task"] in RANGES and cell["num_runs"] == 16]
    pools = []
    for cell in cells:
        low, high = RANGES[cell["task"]]
        pools.append((np.array([np.mean(run[-6:]) for run in cell["returns"]]) - low) / (high - low))
    return pools


def world(kind: str, num_environments: int, seed: int, pools: list[np.ndarray]):
    """A function (generator, runs) -> scores (runs, environments) of one world."""
    own = np.random.default_rng([seed, num_environments])
    size = num_environments
    if kind == "measured":
        chosen = [pools[own.integers(len(pools))] for _ in range(size)]
        return lambda g, runs: np.stack(
            [g.choice(pool, runs) + g.normal(0, 0.3 * pool.std() + 1e-6, runs) for pool in chosen], 1
        )
    if kind == "normal":
        centre, spread = own.uniform(0.2, 1, size), own.uniform(0.03, 0.25, size)
        return lambda g, runs: g.normal(centre, spread, (runs, size))
    if kind == "beta":
        first, second = own.uniform(0.7, 6, size), own.uniform(0.5, 3, size)
        return lambda g, runs: g.beta(first, second, (runs, size))
    if kind == "bimodal":
        share = own.uniform(0.5, 0.9, size)
        return lambda g, runs: np.where(
            g.random((runs, size)) < share, g.normal(0.95, 0.04, (runs, size)), g.normal(0.2, 0.1, (runs, size))
        )
    centre, spread = own.uniform(-1, 0, size), own.uniform(0.3, 0.8, size)
    return lambda g, runs: g.lognormal(centre, spread, (runs, size))


def coverage(name: str, num_runs: int, num_environments: int, kind: str, studies: int, pools) -> tuple[float, float]:
    """Shares of studies whose plain percentile interval, and whose `statistics.interval`, cover the truth."""
    pair = name in ("probability", "difference")
    statistic = {
        "probability": statistics.probability_of_improvement,
        "difference": lambda a, b: statistics.iqm(a) - statistics.iqm(b),
    }.get(name) or statistics.AGGREGATES[name]
    hits = np.zeros(2)
    for number in range(WORLDS):
        draws = [world(kind, num_environments, number + 100 * arm, pools) for arm in range(1 + pair)]
        large = np.random.default_rng(number)
        size = 1000 if name == "probability" else 200_000 // num_environments
        truth = statistic(*(draw(large, size) for draw in draws))
        generator = np.random.default_rng([number, num_runs])
        for study in range(studies // WORLDS):
            arms = [draw(generator, num_runs) for draw in draws]
            values = statistics.bootstrap(statistic, *arms, samples=400, seed=study)
            low, high = np.quantile(values, [0.025, 0.975])
            ours = statistics.interval(statistic, *arms, samples=400, seed=study)
            hits += low <= truth <= high, ours.low <= truth <= ours.high
    return tuple(hits / (studies // WORLDS * WORLDS))


def null_test(num_runs: int, num_environments: int, kind: str, studies: int, pools) -> float:
    """The share of studies of two arms of one distribution in which the rule of `compare` calls a winner."""
    called = 0
    for study in range(studies):
        draw = world(kind, num_environments, study % WORLDS, pools)
        generator = np.random.default_rng([study, num_runs, 7])
        arms = [draw(generator, num_runs) for _ in range(2)]
        called += statistics.difference(*arms, samples=400, seed=study).better != 0
    return called / studies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--statistics", nargs="+", default=["iqm", "mean", "median", "difference", "probability"])
    asked = parser.parse_args()
    pools = measured()
    for name in asked.statistics:
        print(f"{name}: percent of {asked.studies} intervals that cover, lowest to highest of {', '.join(KINDS)}")
        print("  runs  environments  percentile  interval")
        for num_environments in (1, 6, 10):
            for num_runs in (3, 5, 10, 20):
                found = [coverage(name, num_runs, num_environments, kind, asked.studies, pools) for kind in KINDS]
                shown = [f"{100 * min(column):.0f} to {100 * max(column):.0f}" for column in zip(*found, strict=True)]
                print(f"  {num_runs:4}  {num_environments:12}  {shown[0]:>10}  {shown[1]:>8}", flush=True)
    print(f"null test: percent of {asked.studies} comparisons of two equal arms that call a winner")
    for num_environments in (1, 6, 10):
        for num_runs in (3, 5, 10, 20):
            found = [null_test(num_runs, num_environments, kind, asked.studies, pools) for kind in KINDS]
            print(
                f"  {num_runs:4}  {num_environments:12}  {', '.join(f'{100 * one:.1f}' for one in found)}", flush=True
            )


if __name__ == "__main__":
    main()
