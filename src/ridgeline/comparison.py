"""A comparison from its specification to its result: tuning, evaluation on fresh seeds, statistics.

    1. every arm that chooses runs its grid on the tuning seeds;
    2. it chooses: one setting for all environments, by the mean of each run's place among all runs of the environment
       (Patterson et al. 2024), or the best setting for each environment;
    3. every arm runs on the evaluation seeds, which no choice has seen;
    4. scores = (return - random) / (best - random), and everything in `statistics`.

A run that failed (numbers not finite, no episode ended) counts as random play, and is listed.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import checkpoint, components, statistics
from ridgeline.comparison_runs import POINTS, Cell, Records, Runner, digests, random_play
from ridgeline.comparison_spec import Arm, Spec, SpecError, Task
from ridgeline.comparison_sweep import tune
from ridgeline.run_directory import fields_of, train_commands

FORMAT = 1
BAND_SAMPLES = 500  # of the bands of curves and profiles, which are many
NOTICEABLE = 0.1  # the difference that a comparison should be able to see, as a share of the better arm's IQM
SURPRISING = 1.05  # a score above this says that `best` is not the best known


class Comparison:
    """Everything about the runs of a specification in a directory: which there are, and what they gave."""

    def __init__(self, spec: Spec, directory: Path):
        self.spec, self.directory = spec, directory
        self.digests = digests(spec)
        self.random = random_play(spec, directory, self.digests)
        self.records = Records(directory, {"file": spec.text})
        self.chosen: dict[str, dict[str, dict[str, Any]]] = {}  # arm -> task -> the settings it chose
        self.sweeps: dict[str, dict[str, dict[str, Any]]] = {}  # arm -> task -> what its sweep found and cost

    def cells(self, arm: Arm, task: Task, chosen: dict[str, Any], kind: str) -> list[Cell]:
        seeds = self.spec.tuning_seeds if kind == "tuning" else self.spec.seeds
        made = arm.build(task, chosen)
        return [Cell(task, self.digests[task.name], made, seed, kind) for seed in seeds]

    def tuning(self) -> list[Cell]:
        """The runs from which the arms choose."""
        return [
            cell
            for arm, task in itertools.product(self.spec.arms, self.spec.tasks)
            for chosen in arm.candidates()[: None if arm.grid else 0]
            for cell in self.cells(arm, task, chosen, "tuning")
        ]

    def evaluation(self) -> list[Cell]:
        """The runs that are compared; of an arm that has not chosen yet, as many of its first candidates."""
        return [
            cell
            for arm, task in itertools.product(self.spec.arms, self.spec.tasks)
            for cell in self.cells(arm, task, self.settings(arm, task), "evaluation")
        ]

    def settings(self, arm: Arm, task: Task) -> dict[str, Any]:
        return self.chosen.get(arm.name, {}).get(task.name, arm.candidates()[0])

    def value(self, cell: Cell) -> float:
        """The return of a run that is compared, in units of reward; that of random play where it failed."""
        run = self.records.runs[cell.key]
        return self.random[cell.task.name] if self.why(run) else run[self.spec.score]

    def why(self, run: dict[str, Any]) -> str:
        """Why a run counts as random play; "" where it does not."""
        value = run[self.spec.score]
        return run["failure"] or ("no episode ended" if value is None or not math.isfinite(value) else "")

    def normalised(self, task: Task, value: np.ndarray) -> np.ndarray:
        return (value - self.random[task.name]) / (task.best - self.random[task.name])

    def tuning_returns(self, arm: Arm) -> np.ndarray:
        """Returns of the arm's grid on the tuning seeds, (settings, seeds, environments)."""
        return np.array(
            [
                [[self.value(cell) for cell in self.cells(arm, task, chosen, "tuning")] for task in self.spec.tasks]
                for chosen in arm.candidates()
            ]
        ).swapaxes(1, 2)

    def choose(self) -> None:
        """Let every arm with a grid choose. Source of the rule for one setting: Patterson et al. 2024, section 3."""
        self.chosen = {
            arm: {task: one["settings"] for task, one in found.items()} for arm, found in self.sweeps.items()
        }
        for arm in self.spec.arms:
            if not arm.grid:
                continue
            returns, candidates = self.tuning_returns(arm), arm.candidates()
            if arm.choose == "one":
                picks = [statistics.best_setting(statistics.empirical_scores(returns))] * len(self.spec.tasks)
            else:
                picks = statistics.best_settings(returns).tolist()
            self.chosen[arm.name] = {
                task.name: candidates[pick] for task, pick in zip(self.spec.tasks, picks, strict=True)
            }

    def scores(self, arm: Arm) -> np.ndarray:
        """Normalised scores of the evaluation runs, (seeds, environments)."""
        return np.array([self.normalised(task, self.returns(arm, task)) for task in self.spec.tasks]).T

    def returns(self, arm: Arm, task: Task) -> np.ndarray:
        """Returns of the evaluation runs, (seeds,)."""
        return np.array([self.value(c) for c in self.cells(arm, task, self.settings(arm, task), "evaluation")])

    def curves(self, arm: Arm) -> np.ndarray:
        """Normalised learning curves of the evaluation runs, (points, seeds, environments); 0 where a run has none."""
        found = []
        for task in self.spec.tasks:
            cells = self.cells(arm, task, self.settings(arm, task), "evaluation")
            curves = np.array([self.records.runs[cell.key]["curve"] for cell in cells], float)
            found.append(np.nan_to_num(self.normalised(task, curves), nan=0.0))
        return np.array(found).transpose(2, 1, 0)


def run(comparison: Comparison, runner: Runner) -> dict[str, Any]:
    """Run what is missing, in two phases, and write the result. Raises Interrupted."""
    runner.run(comparison.tuning())
    for arm, task in itertools.product(comparison.spec.arms, comparison.spec.tasks):
        if arm.sweep:
            found = tune(
                comparison.spec, comparison.directory, arm, task, runner.stop, runner.quiet, runner.num_threads
            )  # fmt: skip
            comparison.sweeps.setdefault(arm.name, {})[task.name] = found
    comparison.choose()
    runner.run(comparison.evaluation())
    document = analyse(comparison)
    write(comparison, document)
    return document


def write(comparison: Comparison, document: dict[str, Any]) -> None:
    """runs.jsonl, one line per run that counted, and result.json: written beside and renamed."""
    cells = {cell.key: cell for cell in (*comparison.tuning(), *comparison.evaluation())}
    runs = [comparison.records.runs[key] for key in cells]
    checkpoint.write_lines(comparison.directory / "runs.jsonl", runs)
    checkpoint.write_json(comparison.directory / "result.json", document)
    (comparison.directory / "spec.toml").write_text(comparison.spec.text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------ analysing


def analyse(comparison: Comparison) -> dict[str, Any]:
    """The result of a complete comparison, as JSON knows it; an interval is [estimate, low, high]."""
    spec = comparison.spec
    scores = {arm.name: comparison.scores(arm) for arm in spec.arms}
    top = max(float(one.max()) for one in scores.values())
    thresholds = np.linspace(0, max(1.0, min(top, 2.0)), 41)
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "score": spec.score,
        "steps": {task.name: task.steps for task in spec.tasks},
        "environments": {
            task.name: {
                "environment": task.environment, "random": comparison.random[task.name], "best": task.best,
                "steps": task.steps, "parameters": task.parameters,
            }
            for task in spec.tasks
        },
        "seeds": _seeds(comparison),
        "arms": {arm.name: _arm(comparison, arm, scores[arm.name], thresholds) for arm in spec.arms},
        "thresholds": thresholds.tolist(),
        "points": [(point + 1) / POINTS for point in range(POINTS)],
        "pairs": [
            _pair(first.name, second.name, scores, _keys(comparison, first) == _keys(comparison, second))
            for first, second in itertools.combinations(spec.arms, 2)
        ],
        "notes": _notes(comparison, scores),
    }  # fmt: skip
    return document | verdict(document)


def _interval(found: statistics.Interval) -> Any:
    """[estimate, low, high], or three lists of a curve."""
    return [np.asarray(part).tolist() for part in found[:3]]


def _arm(comparison: Comparison, arm: Arm, scores: np.ndarray, thresholds: np.ndarray) -> dict[str, Any]:
    spec = comparison.spec
    curves = comparison.curves(arm)
    runs = [comparison.records.runs[cell.key] for task in spec.tasks for cell in _cells(comparison, arm, task)]

    def profile(one: np.ndarray) -> np.ndarray:
        return statistics.performance_profile(one, thresholds)

    per_environment = {}
    for place, task in enumerate(spec.tasks):
        own, curve = (
            [comparison.records.runs[cell.key] for cell in _cells(comparison, arm, task)],
            curves[:, :, [place]],
        )
        per_environment[task.name] = {
            "returns": comparison.returns(arm, task).tolist(),
            "return": _interval(statistics.interval(statistics.mean, comparison.returns(arm, task)[:, None])),
            "score": _interval(statistics.interval(statistics.mean, scores[:, [place]])),
            "curve": _interval(statistics.interval(statistics.iqm, curve, samples=BAND_SAMPLES)),
            "settings": comparison.settings(arm, task),
            "seconds": sum(run["seconds"] for run in own) / len(own),
            "command": command(task, arm.build(task, comparison.settings(arm, task)), spec.seeds),
        }
    found = {name: _interval(statistics.interval(one, scores)) for name, one in statistics.AGGREGATES.items()}
    return {
        "components": arm.components,
        "choose": arm.choose,
        "tuning": _tuning(comparison, arm),
        **found,
        "environments": per_environment,
        "profile": _interval(statistics.interval(profile, scores, samples=BAND_SAMPLES, bounds=(0.0, 1.0))),
        "curve": _interval(statistics.interval(statistics.iqm, curves, samples=BAND_SAMPLES)),
        "seconds": sum(run["seconds"] for run in runs) / len(runs),
        "failures": [f"{run['environment']} seed {run['seed']}: {why}" for run in runs if (why := comparison.why(run))],
    }


def _cells(comparison: Comparison, arm: Arm, task: Task) -> list[Cell]:
    return comparison.cells(arm, task, comparison.settings(arm, task), "evaluation")


def _tuning(comparison: Comparison, arm: Arm) -> dict[str, Any]:
    """What the arm's choice cost, and how sensitive it is to the setting (ALGORITHMS: Adkins et al. 2024)."""
    if not arm.grid:
        own = list(comparison.sweeps.get(arm.name, {}).values())
        return {name: sum(one[name] for one in own) for name in ("runs", "steps", "seconds")}
    spec, returns = comparison.spec, comparison.tuning_returns(arm)
    cells = [
        cell
        for task in spec.tasks
        for chosen in arm.candidates()
        for cell in comparison.cells(arm, task, chosen, "tuning")
    ]
    normalised = np.stack([comparison.normalised(task, returns[..., e]) for e, task in enumerate(spec.tasks)], -1)
    return {
        "runs": len(cells),
        "steps": sum(cell.task.steps for cell in cells),
        "seconds": sum(comparison.records.runs[cell.key]["seconds"] for cell in cells),
        "settings": arm.candidates(),
        "scores": normalised.mean(1).tolist(),  # (settings, environments)
        "sensitivity": statistics.sensitivity(normalised),
    }


def _seeds(comparison: Comparison) -> dict[str, Any]:
    """The seeds of the runs that chose and of those that are compared, as the ledger has them. Raises SpecError where a
    record says otherwise."""
    known = comparison.records.seeds()
    cells = {"tuning": comparison.tuning(), "evaluation": comparison.evaluation()}
    found = {kind: sorted({comparison.records.runs[cell.key]["seed"] for cell in own}) for kind, own in cells.items()}
    for kind, seeds in found.items():
        wrong = sorted(set(seeds) - set(known[kind]))
        if wrong:
            raise SpecError(f"the ledger does not have seeds {wrong} as {kind} seeds; use another --out")
    swept = {seed for own in comparison.sweeps.values() for one in own.values() for seed in one["seeds"]}
    shared = sorted(swept & set(found["evaluation"]))
    if shared:
        raise SpecError(f"seeds {shared} have tuned an arm in its sweep; use other evaluation seeds")
    found["tuning"] = sorted(swept.union(found["tuning"]))
    return found


def _keys(comparison: Comparison, arm: Arm) -> list[str]:
    return [cell.key for task in comparison.spec.tasks for cell in _cells(comparison, arm, task)]


def _pair(first: str, second: str, scores: dict[str, np.ndarray], same: bool = False) -> dict[str, Any]:
    one, other = scores[first], scores[second]
    found: dict[str, Any] = {"first": first, "second": second, "same": same}
    difference = statistics.difference(one, other)
    noticeable = NOTICEABLE * max(abs(float(statistics.iqm(one))), abs(float(statistics.iqm(other))))
    error = float(difference.iqm.standard_error)
    known = math.isfinite(error) and noticeable > 0
    return found | {
        "iqm": _interval(difference.iqm),
        "probability": _interval(difference.probability),
        "p_value": difference.p_value,
        "better": {1: first, -1: second, 0: None}[difference.better],
        "runs_needed": statistics.runs_needed(error, len(one), noticeable) if known else None,
    }


def verdict(document: dict[str, Any]) -> dict[str, Any]:
    """Which arm is better than every other, if one is: {"winner", "verdict"}.

    Each comparison may err in 5% of studies; an arm that must win all of its own, no more often than that.
    """
    arms, pairs = document["arms"], document["pairs"]
    if len(arms) < 2:
        return {"winner": None, "verdict": "one arm: there is nothing to compare"}
    for name in arms:
        own = [pair for pair in pairs if name in (pair["first"], pair["second"])]
        if all(pair["better"] == name for pair in own):
            return {"winner": name, "verdict": f"{name} is better than every other arm"}
    first, second = sorted(arms, key=lambda name: arms[name]["iqm"][0], reverse=True)[:2]
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {first, second})
    sign = 1 if pair["first"] == first else -1
    estimate, low, high = (None if end is None or not math.isfinite(end) else sign * end for end in pair["iqm"])
    if low is None or high is None:
        return {"winner": None, "verdict": "no winner: one seed tells nothing about chance; use 10 seeds"}
    low, high = sorted((low, high))
    text = f"no winner: {first} leads {second} by {estimate:.3f} [{low:.3f}, {high:.3f}] in IQM"
    if pair["same"]:
        text = f"no winner: {first} and {second} are the same runs"
    elif pair["runs_needed"] is not None:
        text += f"; to see a difference of {100 * NOTICEABLE:.0f}%, use {pair['runs_needed']} seeds"
    return {"winner": None, "verdict": text}


def _notes(comparison: Comparison, scores: dict[str, np.ndarray]) -> list[str]:
    notes = []
    for place, task in enumerate(comparison.spec.tasks):
        top = max(float(one[:, place].max()) for one in scores.values())
        if top > SURPRISING:
            notes.append(
                f"{task.name}: a run reached {top:.2f} of best = {task.best:g}; the best known return is higher, "
                "and the optimality gap too small"
            )
    return notes


def command(task: Task, made: dict[str, Any], seeds: tuple[int, ...]) -> str:
    """The `ridgeline train` that makes the same runs."""
    config = {"environment": task.environment, "parameters": task.parameters, "seeds": seeds, "total_steps": task.steps}
    kinds = {kind: {"name": components.name_of(one), "fields": fields_of(one)} for kind, one in made.items()}
    return train_commands(config | kinds)[0]


def read_result(directory: Path) -> dict[str, Any]:
    """result.json of a comparison. Raises SpecError where there is none."""
    path = directory / "result.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read: {error}; run ridgeline compare to the end first") from error
    if document.get("format") != FORMAT:
        raise SpecError(f"{path} has format {document.get('format')!r}; this version reads {FORMAT}")
    return document
