"""The runs of a comparison: which there must be, which are missing, and running those side by side in populations.

    DIR/populations/NAME/          a run directory, with record.json once it is complete
    DIR/ledger.sqlite              every run that is over, in the schema of sweeps; it knows what each seed is for
    DIR/random_play.json           the return of random actions in each environment

A run is known by its content: environment, components with all their settings, steps and seed. What is on disk is never
run again, whichever arm asked for it first; a population that was interrupted goes on from its checkpoint.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import checkpoint, components
from ridgeline.comparison_spec import Spec, SpecError, Task
from ridgeline.environments import make
from ridgeline.evaluation import evaluate
from ridgeline.metrics import read_lines
from ridgeline.random_play import first_episodes
from ridgeline.run_directory import fields_of
from ridgeline.session import View, train
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.records import OVER, Run, Trial
from ridgeline.training import TrainingError
from ridgeline.vector import EVALUATION

MAX_RUNS = 64  # of one population
POINTS = 100  # of a learning curve, evenly spaced in steps
RANDOM_EPISODES, RANDOM_STEPS = 100, 200_000
RANDOM_TOLERANCE = 0.1  # of the range from random to best: how far a given random may be from the measured one
FORMAT = 1


class Interrupted(Exception):
    """The comparison was stopped; what is done is on disk."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: a configuration on an environment with a seed."""

    task: Task
    digest: str  # of the environment's source
    made: dict[str, Any] = dataclasses.field(hash=False)  # kind -> configuration
    seed: int
    kind: str  # "tuning" or "evaluation"

    @property
    def identity(self) -> list[Any]:
        """All that the result depends on, as JSON."""
        parts = [[kind, components.name_of(one), fields_of(one)] for kind, one in self.made.items()]
        return [self.task.environment, self.digest, self.task.parameters, parts, self.task.steps]

    @property
    def trial(self) -> str:
        return _hash(self.identity)

    @property
    def key(self) -> str:
        return _hash([self.identity, self.seed])

    @property
    def mates(self) -> str:
        """Equal for runs that one population can hold: they differ in seeds and floating-point settings only."""
        shapes = [
            (
                components.name_of(one),
                {name: value for name, value in fields_of(one).items() if not _is_float(one, name)},
            )
            for kind, one in self.made.items()
            if kind != "policy"
        ]
        return _hash([self.identity[:3], shapes, repr(self.made["policy"]), self.task.steps])


def _is_float(configuration: Any, name: str) -> bool:
    return {field.name: field.type for field in dataclasses.fields(configuration)}[name] in (float, "float")


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------------------- records


class Records:
    """The finished runs of a comparison's directory, key -> run; each stands in its ledger too.

    The ledger refuses a seed that has served the other purpose: LedgerError.
    """

    STUDY, WORKER, SECONDS = "compare", "compare", 600.0

    def __init__(self, directory: Path, specification: dict[str, Any] | None = None):
        self.directory = directory
        self.runs: dict[str, dict[str, Any]] = {}
        self.ledger = Ledger(directory / "ledger.sqlite")
        studies = {study.name: study.study for study in self.ledger.studies()}
        new = self.STUDY not in studies
        self.study = (
            self.ledger.create_study(self.STUDY, "compare", specification or {}) if new else studies[self.STUDY]
        )
        for path in sorted((directory / "populations").glob("*/record.json")):
            document = _read_json(path)
            for run in document["runs"] if document and document.get("format") == FORMAT else []:
                self.runs[run["key"]] = run
        self._enter(list(self.runs.values()))  # a kill may have come between a record and the ledger

    def add(self, directory: Path, document: dict[str, Any]) -> None:
        """Keep the record of a complete population, whole or not at all."""
        checkpoint.write_json(directory / "record.json", document)
        self.runs |= {run["key"]: run for run in document["runs"]}
        self._enter(document["runs"])

    def seeds(self) -> dict[str, list[int]]:
        """What the ledger says that each seed is for."""
        found: dict[str, list[int]] = {"tuning": [], "evaluation": []}
        for seed, kind in self.ledger.seeds().items():
            found[kind].append(seed)
        return found

    def close(self) -> None:
        self.ledger.close()

    def _enter(self, runs: list[dict[str, Any]]) -> None:
        """Write into the ledger those of the runs that it does not have as over; twice is as once."""
        trials = {trial.configuration["trial"]: trial for trial in self.ledger.trials(self.study)}
        over = {(name, run.seed) for name, trial in trials.items() for run in trial.runs if run.state in OVER}
        absent = [run for run in runs if (run["trial"], run["seed"]) not in over]
        numbers = {name: trial.trial for name, trial in trials.items()}
        for run in absent:
            if run["trial"] not in numbers:
                trial = Trial(-1, _configuration(run), run["steps"], run["trial"], run["environment"])
                (numbers[run["trial"]],) = self.ledger.add_trials(self.study, [trial], [], run["kind"])
            self.ledger.add_runs(self.study, numbers[run["trial"]], [run["seed"]], run["kind"])
        self.ledger.release(self.study, self.WORKER)
        for name in dict.fromkeys(run["trial"] for run in absent):
            own = [run for run in absent if run["trial"] == name]
            self.ledger.claim(self.study, self.WORKER, len(own), self.SECONDS, shape=name)
            rows = [
                Run(
                    numbers[name], run["seed"], run["kind"], "failed" if run["failure"] else "finished",
                    _finite(run["final"]), run["steps"], run["seconds"], run["failure"] or "",
                )
                for run in own
            ]  # fmt: skip
            self.ledger.finish(self.study, self.WORKER, rows, [point for run in own for point in _points(numbers, run)])


def _configuration(run: dict[str, Any]) -> dict[str, Any]:
    """What stands in the ledger of a run's configuration."""
    settings = {name: value for fields in run["settings"].values() for name, value in fields.items()}
    return {"trial": run["trial"], "environment": run["environment"], **run["components"], **settings}


def _points(numbers: dict[str, int], run: dict[str, Any]) -> list[tuple[int, int, int, float, float]]:
    """The run's curve, as the ledger has points; the seconds are shares of all."""
    found = []
    for place, value in enumerate(run["curve"], 1):
        if _finite(value) is not None:
            share = place / POINTS
            point = (numbers[run["trial"]], run["seed"], round(run["steps"] * share), value, run["seconds"] * share)
            found.append(point)
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------------------- populations


@dataclasses.dataclass(frozen=True)
class Population:
    """Runs that train side by side."""

    cells: list[Cell]

    @property
    def name(self) -> str:
        first = self.cells[0]
        kinds = [components.name_of(first.made[kind]).rpartition(":")[2] for kind in ("algorithm", "estimator")]
        return "-".join([first.task.name, *kinds, _hash([cell.key for cell in self.cells])[:8]]).replace("/", "_")

    @property
    def steps(self) -> int:
        return len(self.cells) * self.cells[0].task.steps


def populations(cells: Iterable[Cell]) -> list[Population]:
    """The runs in populations of at most MAX_RUNS, in order; a run that is asked for twice is run once."""
    groups: dict[str, list[Cell]] = {}
    for cell in {cell.key: cell for cell in cells}.values():
        groups.setdefault(cell.mates, []).append(cell)
    found = []
    for group in groups.values():
        parts = np.array_split(np.arange(len(group)), -(-len(group) // MAX_RUNS))
        found += [Population([group[place] for place in part]) for part in parts]
    return found


@dataclasses.dataclass
class Runner:
    """Runs what is missing."""

    spec: Spec
    directory: Path
    records: Records
    view: View
    num_threads: int | None = None
    stop: Callable[[], str | None] | None = None
    until: float | None = None  # `time.monotonic()` at which to stop
    quiet: bool = True  # about sweeps, which have a view of their own

    def missing(self, cells: Iterable[Cell]) -> list[Population]:
        """The populations that have runs which are not on disk, each with those only."""
        found = []
        for population in populations(cells):
            absent = [cell for cell in population.cells if cell.key not in self.records.runs]
            found += [Population(absent)] if absent else []
        return found

    def run(self, cells: Iterable[Cell]) -> None:
        """Run every population that is missing. Raises Interrupted, and whatever a training raises."""
        for population in self.missing(cells):
            directory = self.directory / "populations" / population.name
            document = self._train(population, directory)
            self.records.add(directory, document)

    def _train(self, population: Population, directory: Path) -> dict[str, Any]:
        first, cells = population.cells[0], population.cells
        begins = not (directory / "config.json").exists()
        settings: dict[str, Any] = {"num_threads": self.num_threads, "stop": self.stop, "view": self.view}
        if self.until is not None:
            settings["minutes"] = max(self.until - time.monotonic(), 0) / 60
        made = {kind: [cell.made[kind] for cell in cells] for kind in ("algorithm", "estimator")}
        made["policy"] = first.made["policy"]
        if begins:
            start = {"total_steps": first.task.steps, "seed": [cell.seed for cell in cells], "out": directory}
            settings |= {**made, **start, "parameters": first.task.parameters}
        else:
            own = {kind: first.made[kind] for kind in made if ":" in components.name_of(first.made[kind])}
            alike = all(cell.made[kind] == one for kind, one in own.items() for cell in cells)
            settings |= {**(own if alike else {kind: made[kind] for kind in own}), "resume": directory}
        try:
            result = train(first.task.environment, **settings)
        except TrainingError as error:  # no run is left, or none can learn: that too is a result
            return _record(population, directory, None, str(error), self.spec.episodes)
        if result.stopped != "finished":
            raise Interrupted(result.stopped)
        return _record(population, directory, result, "", self.spec.episodes)


def _record(population: Population, directory: Path, result: Any, failure: str, episodes: int) -> dict[str, Any]:
    """What is kept of each run of a population: scores in units of reward, its curve, its cost."""
    cells = population.cells
    lines = read_lines(directory / "metrics.jsonl")
    steps = np.array([line["steps"] for line in lines], float)
    returns = np.array([line["episode_return"] for line in lines], float).reshape(len(lines), len(cells))
    seconds = lines[-1]["wall_seconds"] if lines else 0.0
    failures = dict.fromkeys(range(len(cells)), failure) if result is None else result.failures
    played = None
    if result is not None and episodes:
        played = evaluate(result, episodes, seed=[cell.seed for cell in cells]).episode_return
    runs = []
    for place, cell in enumerate(cells):
        curve = resample(steps, returns[:, place], cell.task.steps)
        runs.append(
            {
                "key": cell.key,
                "trial": cell.trial,
                "environment": cell.task.name,
                "seed": cell.seed,
                "kind": cell.kind,
                "settings": {kind: fields_of(one) for kind, one in cell.made.items()},
                "components": {kind: components.name_of(one) for kind, one in cell.made.items()},
                "steps": cell.task.steps,
                "failure": failures.get(place),
                "seconds": seconds / len(cells),
                "final": float(returns[-1, place]) if len(lines) else math.nan,
                "area": float(np.mean(curve)),
                "evaluation": None if played is None else played[place],
                "curve": curve.tolist(),
                "population": directory.name,
            }
        )
    return {"format": FORMAT, "seconds": seconds, "runs": runs}


def resample(steps: np.ndarray, values: np.ndarray, total_steps: int) -> np.ndarray:
    """A curve at POINTS evenly spaced steps up to `total_steps`: at each the newest value of then; before the first
    one, the first to come. NaN throughout where there is none."""
    present = np.isfinite(values)
    if not present.any():
        return np.full(POINTS, np.nan)
    steps, values = steps[present], values[present]
    wanted = total_steps * np.arange(1, POINTS + 1) / POINTS
    return values[np.maximum(np.searchsorted(steps, wanted, "right") - 1, 0)]


# ---------------------------------------------------------------------------------------------------------- random play


def random_play(spec: Spec, directory: Path, digests: dict[str, str]) -> dict[str, float]:
    """Task name -> return of random actions: measured, or as given, where that agrees with what was measured.

    Raises: SpecError where it does not, or where `best` is not above it.
    """
    path = directory / "random_play.json"
    known: dict[str, Any] = _read_json(path) or {}
    found = {}
    for task in spec.tasks:
        key = _hash([task.environment, task.parameters, digests[task.name]])
        if key not in known:
            known[key] = {"environment": task.name, "episode_return": measure_random(task)}
            checkpoint.write_json(path, known)
        found[task.name] = _checked(task, known[key]["episode_return"])
    return found


def _checked(task: Task, measured: float | None) -> float:
    where = f"environments.{task.name}"
    if measured is None and task.random is None:
        raise SpecError(f"{where}: no episode of random play ended within {RANDOM_STEPS:,} steps; give its random")
    if measured is None or task.random is None:
        value = task.random if measured is None else measured
        assert value is not None
        if task.best <= value:
            raise SpecError(
                f"{where}: best = {task.best:g} is not above random play, {value:.6g}; scores would mean nothing"
            )
        return value
    if abs(task.random - measured) > RANDOM_TOLERANCE * (task.best - task.random):
        raise SpecError(
            f"{where}: random = {task.random:g}, but random play gives {measured:.6g} here; leave random away, "
            "and it is measured"
        )
    return task.random


def measure_random(task: Task, seed: int = 0) -> float | None:
    """The mean return of the first episode of each agent of 100 instances under uniformly random allowed actions; None
    where one did not end."""
    env = make(task.environment, RANDOM_EPISODES, seed, EVALUATION, task.parameters)
    try:
        returns = first_episodes(env, RANDOM_STEPS // 20, np.random.default_rng(seed))[:, 0]
    finally:
        env.close()
    return None if np.isnan(returns).any() else float(returns.mean())


def digests(spec: Spec) -> dict[str, str]:
    """Task name -> what identifies its environment's source. Raises InvalidEnvironment."""
    found = {}
    for task in spec.tasks:
        env = make(task.environment, 1, 0, EVALUATION, task.parameters)
        found[task.name] = env.digest
        with suppress(Exception):
            env.close()
    return found
