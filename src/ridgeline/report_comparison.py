"""The page of a comparison: aggregates, curves, profiles, tables, grids, cost, commands."""

from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.comparison import read_result
from ridgeline.report_sections import interval_text, rounded, trial_sections

AGGREGATES = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}


def comparison(directory: Path) -> dict[str, Any]:
    """The page of a comparison's directory. Raises SpecError."""
    result = read_result(directory)
    arms, names = result["arms"], list(result["arms"])
    tuning = sum(arm["tuning"]["runs"] for arm in arms.values())
    failures = [f"{name}: {failure}" for name, arm in arms.items() for failure in arm["failures"]]
    tiles = [
        ["arms", str(len(arms))],
        ["environments", str(len(result["environments"]))],
        ["seeds per arm and environment", str(len(result["seeds"]["evaluation"]))],
        ["tuning runs, each arm's added up", f"{tuning:,}"],
        ["failed runs", str(len(failures))],
    ]
    sections = [
        _forest(result),
        _comparison_curves(result),
        _profiles(result),
        _environment_curves(result),
        _score_table(result),
        _environment_table(result),
        _pair_table(result),
        *_grids(result),
        _cost_table(result),
        {
            "kind": "commands", "title": "Commands",
            "text": "Each makes the same runs again, with everything that `ridgeline train` shows.",
            "items": [
                ["this comparison", f"ridgeline compare {directory / 'spec.toml'} --out {directory}"],
                *(
                    [f"{name}, {task}", entry["command"]]
                    for name in names
                    for task, entry in arms[name]["environments"].items()
                ),
            ],
        },
    ]  # fmt: skip
    seeds = result["seeds"]
    subtitle = f"Score 0 is random play, 1 the best known return; {_range(seeds['evaluation'], 'evaluation')}" + (
        f", {_range(seeds['tuning'], 'tuning')}" if seeds["tuning"] else ""
    )
    return {
        "title": result["name"], "subtitle": subtitle, "verdict": result["verdict"], "winner": result["winner"],
        "notes": [*failures, *result["notes"]], "tiles": tiles, "sections": sections,
    }  # fmt: skip


def _range(seeds: list[int], kind: str) -> str:
    return f"{kind} seeds {seeds[0]} to {seeds[-1]}"


def _forest(result: dict[str, Any]) -> dict[str, Any]:
    rows = [{"name": name, "values": [rounded(arm[key]) for key in AGGREGATES]} for name, arm in result["arms"].items()]
    text = (
        "Over all runs and environments, with 95% intervals of the stratified bootstrap. Lower is better only for"
        " the optimality gap."
    )
    return {
        "kind": "forest",
        "title": "Aggregate scores",
        "text": text,
        "columns": list(AGGREGATES.values()),
        "rows": rows,
    }


def _series(result: dict[str, Any], x: list[float], pick: Any) -> list[dict[str, Any]]:
    found = []
    for name, arm in result["arms"].items():
        mean, low, high = (rounded(part) for part in pick(arm))
        found.append({"name": name, "x": x, "mean": mean, "low": low, "high": high})
    return found


def _comparison_curves(result: dict[str, Any]) -> dict[str, Any]:
    panel = {
        "title": "all", "x": "share of the steps", "y": "score",
        "series": _series(result, result["points"], lambda arm: arm["curve"]),
    }  # fmt: skip
    text = "IQM of the normalised return over all runs and environments on the way, with 95% bands at each point."
    return {"kind": "curves", "title": "Sample efficiency", "text": text, "wide": True, "panels": [panel]}


def _environment_curves(result: dict[str, Any]) -> dict[str, Any]:
    panels = [
        {
            "title": task, "x": "steps", "y": "score",
            "series": _series(
                result, [round(point * entry["steps"]) for point in result["points"]],
                lambda arm, task=task: arm["environments"][task]["curve"],
            ),
        }
        for task, entry in result["environments"].items()
    ]  # fmt: skip
    return {"kind": "curves", "title": "Learning curves", "text": "The same for each environment.", "panels": panels}


def _profiles(result: dict[str, Any]) -> dict[str, Any]:
    panel = {
        "title": "profile", "x": "score", "y": "share of runs above",
        "series": _series(result, rounded(result["thresholds"]), lambda arm: arm["profile"]),
    }  # fmt: skip
    text = (
        "The share of runs that end above a score, the mean over environments. A curve that is higher throughout "
        "is better whatever one values."
    )
    return {
        "kind": "curves",
        "title": "Performance profiles",
        "text": text,
        "wide": True,
        "smooth": False,
        "panels": [panel],
    }


def _score_table(result: dict[str, Any]) -> dict[str, Any]:
    rows = [[name, *(interval_text(arm[key]) for key in AGGREGATES)] for name, arm in result["arms"].items()]
    return {"kind": "table", "title": "Scores", "columns": ["arm", *AGGREGATES.values()], "rows": rows}


def _environment_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["arm", *result["environments"]]
    rows = [
        [name, *(interval_text(arm["environments"][task]["return"]) for task in columns[1:])]
        for name, arm in result["arms"].items()
    ]
    ends = [["random play", *(f"{entry['random']:.4g}" for entry in result["environments"].values())]]
    ends += [["best known", *(f"{entry['best']:.4g}" for entry in result["environments"].values())]]
    text = "Mean return over the evaluation seeds, with its 95% interval, in the environment's own units."
    return {"kind": "table", "title": "Returns", "text": text, "columns": columns, "rows": rows + ends}


def _pair_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["first", "second", "difference of IQM", "probability of improvement", "p", "better", "seeds to see 10%"]
    rows = [
        [
            pair["first"], pair["second"], interval_text(pair["iqm"]), interval_text(pair["probability"]),
            rounded(pair["p_value"]),
            "the same runs" if pair["same"] else pair["better"] or "undecided", pair["runs_needed"],
        ]
        for pair in result["pairs"]
    ]  # fmt: skip
    text = (
        "An arm is better where both intervals exclude no difference; otherwise the last column says how many "
        "seeds would be needed."
    )
    return {"kind": "table", "title": "Pairs", "text": text, "columns": columns, "rows": rows}


def _cost_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["arm", "seconds per run", "tuning runs", "tuning steps", "tuning seconds", "sensitivity"]
    rows = [
        [
            name, rounded(arm["seconds"]), arm["tuning"]["runs"], arm["tuning"]["steps"],
            rounded(arm["tuning"]["seconds"]), rounded(arm["tuning"].get("sensitivity")),
        ]
        for name, arm in result["arms"].items()
    ]  # fmt: skip
    text = (
        "Populations share their time evenly among runs. Sensitivity: what the best setting of each environment "
        "gains over the best single one, on the tuning seeds."
    )
    return {"kind": "table", "title": "Cost", "text": text, "columns": columns, "rows": rows}


def _grids(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each different grid once: its settings as parallel coordinates, and what mattered."""
    found, seen = [], []
    for name, arm in result["arms"].items():
        settings = arm["tuning"].get("settings")
        if not settings or settings in seen:
            continue
        seen.append(settings)
        scores = np.array(arm["tuning"]["scores"], float)
        columns = [(key, [setting[key] for setting in settings]) for key in settings[0]]
        columns += [(task, scores[:, place].tolist()) for place, task in enumerate(result["environments"])]
        found += trial_sections(columns, scores.mean(1).tolist(), f"the grid of {name}", len(settings[0]))
    return found
