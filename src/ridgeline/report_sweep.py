"""The page of a sweep: the front of score against cost, every trial, what mattered, the best ones judged again."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.report_sections import rounded, trial_sections
from ridgeline.sweep import outcome
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.outcome import Outcome
from ridgeline.sweep.records import Run, Study, Trial


def sweep(storage: Path | str, name: str) -> dict[str, Any]:
    """The page of a sweep in a ledger. Raises LedgerError."""
    ledger = Ledger(storage)
    try:
        return _page(ledger, ledger.study(name))
    finally:
        ledger.close()


def _mean(runs: list[Run], name: str) -> float:
    values = [getattr(run, name) for run in runs if run.state == "finished" and getattr(run, name) is not None]
    return float(np.mean(values)) if values else math.nan


def _page(ledger: Ledger, study: Study) -> dict[str, Any]:
    trials = ledger.trials(study.study)
    spared: Any = study.specification.get("cost", "seconds")
    found = {one.trial: one for one in outcome.outcomes(trials)}
    edge = {one.trial for one in outcome.front(list(found.values()), spared)}
    told = [found[trial.trial] if trial.trial in found else None for trial in trials]
    score = np.array([math.nan if one is None else one.score for one in told])
    cost = np.array([math.nan if one is None else one.cost(spared) for one in told])
    states = [trial.state for trial in trials]
    runs = [run for trial in trials for run in trial.runs]
    tiles = [
        ["trials", f"{len(trials):,}"],
        ["finished", f"{states.count('finished'):,}"],
        ["stopped early", f"{states.count('pruned'):,}"],
        ["failed", f"{states.count('failed'):,}"],
        ["steps", f"{sum(run.steps for run in runs):,}"],
        ["seconds", f"{sum(run.seconds for run in runs):,.0f}"],
    ]
    sections: list[dict[str, Any]] = [_front(trials, found, edge, spared)]
    scored = [place for place in range(len(trials)) if math.isfinite(score[place])]
    names = [name for name in _varying(trials)]
    if scored and names:
        columns = [(name, [trials[place].configuration.get(name) for place in scored]) for name in names]
        columns.append((f"{spared} of a run", rounded(cost[scored])))
        labels = [f"trial {trials[place].trial}" for place in scored]
        sections += trial_sections(columns, score[scored].tolist(), "the sweep", len(names), labels)
    sections += _judged(trials) + _curves(ledger, study, trials, score) + [_table(trials, score, cost, names)]
    return {
        "title": study.name, "subtitle": f"Sweep, {study.state}: {_said(study.specification)}", "tiles": tiles,
        "sections": [section for section in sections if section],
    }  # fmt: skip


def _said(specification: dict[str, Any]) -> str:
    plain = {name: value for name, value in specification.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _varying(trials: list[Trial]) -> list[str]:
    """The settings that differ between trials, in their own order."""
    names = dict.fromkeys(name for trial in trials for name in trial.configuration)
    return [name for name in names if len({str(trial.configuration.get(name)) for trial in trials}) > 1]


def _front(trials: list[Trial], found: dict[int, Outcome], edge: set[int], spared: Any) -> dict[str, Any]:
    names, points = _varying(trials), []
    for trial in trials:
        one = found.get(trial.trial)
        rows: list[list[Any]] = [["state", trial.state]]
        x = y = None
        if one is not None:
            x, y = one.cost(spared), one.score if one.fresh_score is None else one.fresh_score
            fresh = ["on fresh seeds", rounded(one.fresh_score)]
            rows = [["score", rounded(one.score)], fresh, [spared, rounded(x)], *rows]
        rows += [[name, _cell(trial.configuration.get(name))] for name in names]
        points.append(
            {
                "name": f"trial {trial.trial}", "x": rounded(x), "y": rounded(y), "front": trial.trial in edge,
                "faint": trial.state != "finished",
                "rows": [[name, str(value)] for name, value in rows if value is not None],
            }
        )  # fmt: skip
    text = (
        "Each dot a trial, the mean of its tuning seeds, or of fresh ones where it was run again; the line joins those "
        "that nothing cheaper equals."
    )
    costs = [one.cost(spared) for one in found.values()]
    log = bool(costs) and min(costs) > 0 and max(costs) > 10 * min(costs)
    return {
        "kind": "front", "title": "Score against cost", "text": text, "x": f"{spared} of a run", "y": "score",
        "log": log, "trials": points,
    }  # fmt: skip


def _judged(trials: list[Trial]) -> list[dict[str, Any]]:
    """The trials that were run again on fresh seeds: both figures."""
    again = [trial for trial in trials if any(run.state == "finished" for run in trial.of("evaluation"))]
    if not again:
        return []
    again.sort(key=lambda trial: -_mean(trial.of("evaluation"), "score"))
    rows = [
        [f"trial {t.trial}", rounded(_mean(t.of("tuning"), "score")), rounded(_mean(t.of("evaluation"), "score")),
         len(t.of("evaluation")), _settings(t, _varying(trials))]
        for t in again
    ]  # fmt: skip
    columns = ["trial", "on tuning seeds", "on fresh seeds", "fresh seeds", "settings"]
    text = "The best ones, run again on seeds that chose nothing. Only the second figure says how good they are."
    return [{"kind": "table", "title": "The best, judged again", "text": text, "columns": columns, "rows": rows}]


def _curves(ledger: Ledger, study: Study, trials: list[Trial], score: np.ndarray) -> list[dict[str, Any]]:
    points = ledger.points(study.study)
    best = [place for place in np.argsort(-np.nan_to_num(score, nan=-math.inf)) if math.isfinite(score[place])][:8]
    series = []
    for place in best:
        own = [points.get((trials[place].trial, run.seed), []) for run in trials[place].of("tuning")]
        own = [curve for curve in own if curve]
        if own:
            steps = np.array([step for step, _, _ in min(own, key=len)])
            runs = np.array([np.interp(steps, [p[0] for p in curve], [p[1] for p in curve]) for curve in own])
            series.append(
                {
                    "name": f"trial {trials[place].trial}",
                    "x": steps.tolist(),
                    "mean": rounded(runs.mean(0)),
                    "runs": rounded(runs),
                }
            )
    if not series:
        return []
    text = "The eight best trials, mean of their tuning seeds."
    panel = {"title": "curves", "x": "steps", "y": "score", "series": series}
    return [{"kind": "curves", "title": "Learning curves", "text": text, "wide": True, "panels": [panel]}]


def _table(trials: list[Trial], score: np.ndarray, cost: np.ndarray, names: list[str]) -> dict[str, Any]:
    rows = [
        [
            t.trial,
            t.state,
            rounded(score[place]),
            rounded(cost[place]),
            len(t.runs),
            *(_cell(t.configuration.get(name)) for name in names),
            t.note,
        ]
        for place, t in enumerate(trials)
    ]
    columns = ["trial", "state", "score", "cost of a run", "runs", *names, "note"]
    return {"kind": "table", "title": "Trials", "columns": columns, "rows": rows}


def _cell(value: Any) -> Any:
    return rounded(value) if isinstance(value, int | float | None) and not isinstance(value, bool) else str(value)


def _settings(trial: Trial, names: list[str]) -> str:
    return ", ".join(f"{name} {_cell(trial.configuration.get(name))}" for name in names)
