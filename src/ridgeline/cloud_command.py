"""`ridgeline cloud`: the policy to look at, the work in sight, and the table, picture and numbers that come of it."""

import json
import re
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ridgeline import components
from ridgeline.gradient_cloud import CloudError, Clouds, Progress, Settings, measure
from ridgeline.gradient_comparison import draw, table
from ridgeline.rollout import Estimate, Rollout
from ridgeline.run_directory import component, read_config
from ridgeline.session import load
from ridgeline.training import Training, TrainingError

LINE_SECONDS = 10.0
VAGUE = 0.5  # relative standard error of the true gradient from which the table means little


@dataclass(frozen=True)
class Standardized:
    """Another estimator, its advantage standardised within each batch of a run, as most algorithms do."""

    estimator: Any

    @property
    def num_values(self) -> int:
        return self.estimator.num_values

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        estimate, memory = self.estimator(rollout, memory)
        advantage = rollout.by_run(estimate.advantage)
        advantage = advantage - advantage.mean((0, 2), keepdim=True)
        advantage = advantage / (advantage.std((0, 2), correction=0, keepdim=True) + 1e-8)
        return estimate._replace(advantage=advantage.flatten(1, 2)), memory


def default_estimators() -> dict[str, Any]:
    """Label -> estimator, in the order of the textbook: each mends something of one before it."""

    def made(name: str, **fields: Any) -> Any:
        return components.find("estimator", name)(**fields)

    reward_to_go = made("monte_carlo", gamma=1.0, baseline="none")
    found = {
        "whole return": made("monte_carlo", gamma=1.0, baseline="none", reward_to_go=False),
        "reward-to-go": reward_to_go,
        "reward-to-go, standardised": Standardized(reward_to_go),
        "learned baseline": made("monte_carlo", gamma=1.0),
    }
    found |= {f"n = {n}": made("n_step", gamma=0.99, num_steps=n) for n in (1, 4, 16, 64)}
    pairs = ((0.99, 0.8), (0.99, 0.95), (0.999, 0.95))
    found |= {f"GAE {g:g}, {decay:g}": made("gae", gamma=g, gae_lambda=decay) for g, decay in pairs}
    for name in ("static_mixture", "adaptive_mixture"):
        if name in components.names("estimator"):
            found[name.replace("_", " ")] = made(name)
    return found


class Said:
    """Says on standard error how far the work is: a bar in a terminal, else a line now and then."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self.bar = (
            Bar(console=console, transient=True) if console.is_terminal and not console.is_dumb_terminal else None
        )
        self.what, self.at = "", 0.0

    def __enter__(self) -> "Said":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, what: str, number: int, total: int) -> None:
        begins, self.what = what != self.what, what
        if self.bar is not None:
            if begins:
                for task in self.bar.task_ids:
                    self.bar.remove_task(task)
                self.bar.add_task(what, total=total)
            self.bar.update(self.bar.task_ids[-1], completed=number)
        elif begins or time.perf_counter() - self.at > LINE_SECONDS:
            print(f"{what}: {number} of {total}", file=sys.stderr, flush=True)
            self.at = time.perf_counter()


def command(parsed: Any) -> dict[str, Any]:
    """`ridgeline cloud` with its parsed arguments: says the table, writes picture and numbers, returns the document.

    Raises: CloudError, TrainingError, RunError, ValueError.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CloudError('the picture needs Matplotlib: pip install "ridgeline[plot]"') from None
    asked = parsed.options
    settings = Settings(
        parsed.algorithm.num_envs, parsed.algorithm.rollout_length, num_batches=asked.batches,
        fit_steps=asked.fit_steps, true_steps=asked.true_steps, seed=asked.seed,
    )  # fmt: skip
    estimators, named = default_estimators(), {one.name for one in fields(parsed.estimator)} | {"estimator"}
    if named & parsed.given:
        estimators[f"{components.name_of(parsed.estimator)}, as asked"] = parsed.estimator
    with Said() as progress:
        if asked.run is None:
            policy, configuration, parameters, origin = trained(parsed, progress)
        else:
            policy, configuration, parameters, origin, shape = loaded(parsed)
            settings = replace(settings, **shape)
        stem = "cloud-" + re.sub(r"[^A-Za-z0-9_.]+", "-", Path(asked.environment).stem)
        files = {kind: str(Path(asked.out, f"{stem}.{kind}")) for kind in ("png", "json")}
        try:
            Path(asked.out).mkdir(parents=True, exist_ok=True)  # before the long work
            clouds = measure(
                asked.environment, policy, configuration, estimators, settings, parameters=parameters,
                num_threads=asked.threads, progress=progress,
            )  # fmt: skip
            document = clouds.document() | {"policy": origin, "parameters": parameters} | files
            picture = Figure(figsize=(13.0, 5.8), dpi=120, layout="constrained")
            draw(picture, clouds.clouds, clouds.parts, f"{clouds.environment}: {origin}")
            picture.savefig(files["png"])
            known = json.loads(json.dumps(document), parse_constant=lambda name: None)  # NaN is no JSON
            Path(files["json"]).write_text(json.dumps(known) + "\n", encoding="utf-8")
        except OSError as error:
            raise CloudError(f"{asked.out}: cannot be written: {error.strerror}; choose another --out") from None
    say(clouds, origin, files)
    return document


def say(clouds: Clouds, origin: str, files: dict[str, str]) -> None:
    """The table and what belongs to it, on standard output."""
    from rich.console import Console

    truth, settings = clouds.truth, clouds.settings
    print(f"{clouds.environment}: {origin}")
    print(
        f"batches of {settings.num_envs} x {settings.rollout_length} steps; {settings.num_runs} critics of each "
        f"estimator, fitted for {settings.fit_steps:,} steps; {settings.num_batches:,} batches"
    )
    error = truth["relative_standard_error"]
    known = f"its standard error is {100 * error:.1f}% of it" if error < 10 else "it cannot be told from none"
    print(
        f"true gradient from {truth['num_episodes']:,} episodes (mean return {truth['episode_return']:.5g}, length "
        f"{truth['episode_length']:.5g}): {known}, the cosine between its halves is {truth['cosine_of_halves']:.3f}"
    )
    if error > VAGUE:
        print("that is too little to judge estimators by: give more --true-steps, or another policy by fewer --steps")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table(clouds.clouds))
    for label, reason in clouds.refused.items():
        print(f"without {label}: {reason}")
    print(f"The picture is {files['png']}, its numbers are {files['json']}")


def trained(parsed: Any, progress: Progress) -> tuple[torch.nn.Module, Any, dict[str, Any], str]:
    """A policy that the algorithm trains for some steps, 0 as it begins: (module, configuration, parameters, words)."""
    asked = parsed.options
    if asked.steps < 0:
        raise ValueError(f"steps = {asked.steps}; use a whole number from 0")
    training = Training(
        asked.environment, parsed.algorithm, parsed.estimator, parsed.policy, total_steps=max(asked.steps, 1),
        seed=asked.seed, parameters=parsed.parameters, num_threads=asked.threads,
    )  # fmt: skip
    try:
        while asked.steps and not training.finished:
            progress("training the policy", training.iteration, training.num_iterations)
            training.iterate()
            if any(training.frozen):
                raise TrainingError(f"the policy cannot be trained: {training.failures[0]}")
        name = components.name_of(parsed.algorithm)
        words = f"a policy after {training.steps:,} steps of {name}" if asked.steps else "an untrained policy"
        return training.policies()[0], parsed.policy, parsed.parameters, words
    finally:
        training.close()


def loaded(parsed: Any) -> tuple[torch.nn.Module, Any, dict[str, Any], str, dict[str, int]]:
    """The first policy of a run directory, as `trained`, and the size of its batches, where not asked otherwise."""
    asked, config = parsed.options, read_config(Path(parsed.options.run))
    known = {
        "run",
        "batches",
        "fit_steps",
        "true_steps",
        "seed",
        "threads",
        "out",
        "json",
        "num_envs",
        "rollout_length",
    }
    known |= {"policy", "estimator"} | {one.name for one in fields(parsed.estimator)}
    wrong = [f"--{name.replace('_', '-')}" for name in sorted(parsed.given - known)]
    if wrong:
        raise ValueError(f"the policy of {asked.run} is as it was trained: leave {', '.join(wrong)} away")
    own_policy = parsed.policy if "policy" in parsed.given else None
    run = load(asked.run, asked.environment, own_policy)
    for note in run.notes:
        print(f"ridgeline: {note}", file=sys.stderr)
    described = config["algorithm"]["fields"]
    described = described[0] if isinstance(described, list) else described
    shape = {
        name: int(described[name])
        for name in ("num_envs", "rollout_length")
        if name not in parsed.given and name in described
    }
    return (
        run.policies[0], component("policy", config, own_policy), run.parameters,
        f"the first policy of {asked.run}, after {run.steps:,} steps", shape,
    )  # fmt: skip
