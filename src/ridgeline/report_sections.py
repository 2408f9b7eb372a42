"""What a page shows of a run, a comparison or a sweep, as sections of numbers: page/*.js draws them, nothing is drawn here.

A document is {title, subtitle, verdict, winner, notes, tiles, sections, footer}; a section has a kind (curves, forest,
bars, front, parallel, table, commands), a title, a text and the data of its kind. Numbers that are not finite are null.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import statistics
from ridgeline.comparison import read_result
from ridgeline.metrics import read_lines
from ridgeline.run_directory import read_config, train_command
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.records import Study, Trial

POINTS = 200  # of a curve
SINGLE_RUNS = 16  # as many are drawn one by one
BAND_SAMPLES = 300
AGGREGATES = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}
COLOUR_AGAIN = 8


def _rounded(values: Any) -> Any:
    """Five significant digits, and None for what is not finite: a page need not be exact."""
    if isinstance(values, list | tuple | np.ndarray):
        return [_rounded(value) for value in values]
    if values is None or isinstance(values, bool | str | int):
        return values
    return float(f"{values:.5g}") if math.isfinite(values) else None


def _text(interval: Sequence[float | None]) -> str:
    """`0.81 [0.7, 0.9]`."""
    first, low, high = ("?" if end is None or not math.isfinite(end) else f"{end:.4g}" for end in interval)
    return f"{first} [{low}, {high}]"


def _band(values: np.ndarray) -> dict[str, Any]:
    """Curves (points, runs) as IQM with its 95% interval, and the runs themselves; a point that is NaN in any is null."""
    present = np.isfinite(values).all(1)
    found = {name: np.full(len(values), np.nan) for name in ("mean", "low", "high")}
    if present.any():
        band = statistics.interval(statistics.iqm, values[present][:, :, None], samples=BAND_SAMPLES)
        for name, part in zip(found, band[:3], strict=True):
            found[name][present] = part
    series: dict[str, Any] = {name: _rounded(part) for name, part in found.items() if name == "mean" or values.shape[1] > 1}
    return series | {"runs": _rounded(values.T[:SINGLE_RUNS])}


# ------------------------------------------------------------------------------------------------------------------ run


def run(directory: Path) -> dict[str, Any]:
    """The page of a run directory. Raises RunError."""
    config, lines = read_config(directory), read_lines(directory / "metrics.jsonl")
    num_runs, total = len(config["seeds"]), config["total_steps"]
    last = lines[-1] if lines else {}
    share = min(last.get("steps", 0) / total, 1.0)
    returns = np.array(last.get("episode_return") or [math.nan], float)
    names = f"{config['algorithm']['name']}, {config['estimator']['name']}"
    seconds = last.get("wall_seconds", 0.0)
    best = float(statistics.iqm(returns[:, None])) if np.isfinite(returns).all() else math.nan
    tiles = [
        ["return, IQM of the runs", "–" if math.isnan(best) else f"{best:.5g}"],
        ["runs", str(num_runs)],
        ["steps of each run", f"{last.get('steps', 0):,}"],
        ["done", f"{100 * share:.0f}%"],
        ["seconds", f"{seconds:,.0f}"],
        ["steps per second, all runs", f"{last.get('steps', 0) * num_runs / seconds:,.0f}" if seconds else "–"],
    ]
    panels = metric_panels(lines, num_runs)
    sections: list[dict[str, Any]] = []
    if panels:
        text = "Mean of the last 100 episodes of each run; IQM over runs, with its 95% interval where there are several."
        sections.append({"kind": "curves", "title": "Learning curve", "text": text, "wide": True, "panels": panels[:1]})
    if panels[1:]:
        text = "Everything that is logged, once per iteration; docs/metrics.md says what is healthy."
        sections.append({"kind": "curves", "title": "Metrics", "text": text, "choose": "metric", "panels": panels[1:]})
    rows = [[r, seed, _rounded(float(returns[r])) if r < len(returns) else None] for r, seed in enumerate(config["seeds"])]
    sections.append({"kind": "table", "title": "Runs", "columns": ["run", "seed", "return"], "rows": rows})
    sections.append({"kind": "commands", "title": "Commands", "items": [
        ["train the same again", train_command(config)],
        ["play with the policies", f"ridgeline evaluate {directory}"],
        ["go on, where it was stopped", f"ridgeline train --resume {directory}"],
    ]})  # fmt: skip
    subtitle = f"{config['environment']}: {names}, {num_runs} run{'s' * (num_runs > 1)} of {total:,} steps"
    return {"title": directory.name, "subtitle": subtitle, "tiles": tiles, "sections": sections}


def metric_panels(lines: list[dict[str, Any]], num_runs: int) -> list[dict[str, Any]]:
    """A panel for every logged number, the return first; what differs between runs as a band."""
    if not lines:
        return []
    picked = [lines[place] for place in np.unique(np.linspace(0, len(lines) - 1, min(POINTS, len(lines))).astype(int))]
    steps = [line["steps"] for line in picked]
    names = [name for name in picked[-1] if name not in ("iteration", "steps")]
    panels = []
    for name in sorted(names, key=lambda name: (name != "episode_return", name != "episode_length")):
        values = [line.get(name) for line in picked]
        if isinstance(values[-1], list):
            array = np.array([value or [None] * num_runs for value in values], float)
        else:
            array = np.array(values, float)[:, None]
        panels.append({"title": name, "x": "steps", "y": name, "series": [{"name": name, "x": steps, **_band(array)}]})
    return panels


def folder(directory: Path, found: Sequence[Path]) -> dict[str, Any]:
    """The page of a folder of run directories: one panel per environment, a series for each."""
    panels: dict[str, Any] = {}
    rows = []
    for place, path in enumerate(found):
        config, lines = read_config(path), read_lines(path / "metrics.jsonl")
        name = str(path.relative_to(directory))
        panel = panels.setdefault(config["environment"], {"title": config["environment"], "x": "steps", "y": "return", "series": []})
        own = metric_panels([{key: line[key] for key in ("steps", "episode_return")} for line in lines], len(config["seeds"]))
        if own:
            panel["series"].append(own[0]["series"][0] | {"name": name, "colour": place % COLOUR_AGAIN})
        returns = np.array((lines[-1]["episode_return"] if lines else None) or [math.nan], float)
        rows.append([
            name, config["environment"], config["algorithm"]["name"], config["estimator"]["name"], len(config["seeds"]),
            lines[-1]["steps"] if lines else 0, _rounded(float(returns.mean())), train_command(config),
        ])  # fmt: skip
    text = "IQM over the runs of each directory, with its 95% interval."
    columns = ["run", "environment", "algorithm", "estimator", "runs", "steps", "mean return"]
    sections = [
        {"kind": "curves", "title": "Learning curves", "text": text, "panels": [p for p in panels.values() if p["series"]]},
        {"kind": "table", "title": "Runs", "columns": columns, "rows": [row[:-1] for row in rows]},
        {"kind": "commands", "title": "Commands", "items": [[row[0], row[-1]] for row in rows]},
    ]
    return {"title": directory.resolve().name, "subtitle": f"{len(found)} run directories", "tiles": [], "sections": sections}


# ----------------------------------------------------------------------------------------------------------- comparison


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
        ["tuning runs", f"{tuning:,}"],
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
                *([f"{name}, {task}", entry["command"]] for name in names for task, entry in arms[name]["environments"].items()),
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
    rows = [{"name": name, "values": [_rounded(arm[key]) for key in AGGREGATES]} for name, arm in result["arms"].items()]
    text = "Over all runs and environments, with 95% intervals of the stratified bootstrap. Lower is better only for the optimality gap."
    return {"kind": "forest", "title": "Aggregate scores", "text": text, "columns": list(AGGREGATES.values()), "rows": rows}


def _series(result: dict[str, Any], x: list[float], pick: Any) -> list[dict[str, Any]]:
    found = []
    for name, arm in result["arms"].items():
        mean, low, high = (_rounded(part) for part in pick(arm))
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
        "series": _series(result, _rounded(result["thresholds"]), lambda arm: arm["profile"]),
    }  # fmt: skip
    text = "The share of runs that end above a score, the mean over environments. A curve that is higher throughout is better whatever one values."
    return {"kind": "curves", "title": "Performance profiles", "text": text, "wide": True, "smooth": False, "panels": [panel]}


def _score_table(result: dict[str, Any]) -> dict[str, Any]:
    rows = [[name, *(_text(arm[key]) for key in AGGREGATES)] for name, arm in result["arms"].items()]
    return {"kind": "table", "title": "Scores", "columns": ["arm", *AGGREGATES.values()], "rows": rows}


def _environment_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["arm", *result["environments"]]
    rows = [[name, *(_text(arm["environments"][task]["return"]) for task in columns[1:])] for name, arm in result["arms"].items()]
    ends = [["random play", *(f"{entry['random']:.4g}" for entry in result["environments"].values())]]
    ends += [["best known", *(f"{entry['best']:.4g}" for entry in result["environments"].values())]]
    text = "Mean return over the evaluation seeds, with its 95% interval, in the environment's own units."
    return {"kind": "table", "title": "Returns", "text": text, "columns": columns, "rows": rows + ends}


def _pair_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["first", "second", "difference of IQM", "probability of improvement", "p", "better", "seeds to see 10%"]
    rows = [
        [
            pair["first"], pair["second"], _text(pair["iqm"]), _text(pair["probability"]), _rounded(pair["p_value"]),
            "the same runs" if pair["same"] else pair["better"] or "undecided", pair["runs_needed"],
        ]
        for pair in result["pairs"]
    ]  # fmt: skip
    text = "An arm is better where both intervals exclude no difference; otherwise the last column says how many seeds would be needed."
    return {"kind": "table", "title": "Pairs", "text": text, "columns": columns, "rows": rows}


def _cost_table(result: dict[str, Any]) -> dict[str, Any]:
    columns = ["arm", "seconds per run", "tuning runs", "tuning steps", "tuning seconds", "sensitivity"]
    rows = [
        [
            name, _rounded(arm["seconds"]), arm["tuning"]["runs"], arm["tuning"]["steps"], _rounded(arm["tuning"]["seconds"]),
            _rounded(arm["tuning"].get("sensitivity")),
        ]
        for name, arm in result["arms"].items()
    ]  # fmt: skip
    text = "Populations share their time evenly among runs. Sensitivity: what the best setting of each environment gains over the best single one, on the tuning seeds."
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


# ---------------------------------------------------------------------------------------------------------------- trials


def trial_sections(
    columns: list[tuple[str, list[Any]]], score: list[float], what: str, num_settings: int, names: list[str] | None = None
) -> list[dict[str, Any]]:
    """Parallel coordinates of trials, and the importance of those columns that are settings (the first ones)."""
    names = names or [f"setting {place}" for place in range(len(score))]
    dimensions, values = [], []
    for name, own in [*columns, ("score", score)]:
        dimension, numbers = axis(name, own)
        dimensions.append(dimension)
        values.append(numbers)
    rows = [[[name, _shown(own[place])] for name, own in [*columns, ("score", score)]] for place in range(len(score))]
    trials = [
        {"name": names[place], "values": _rounded([own[place] for own in values]), "score": _rounded(score[place]), "rows": rows[place]}
        for place in range(len(score))
    ]
    text = f"Every trial of {what}; warmer is better. Drag along an axis to keep only what passes there, click it to let go."
    sections = [{"kind": "parallel", "title": f"Parallel coordinates: {what}", "text": text, "dimensions": dimensions, "trials": trials}]
    weights = [(name, statistics.importance(own, score)) for (name, _), own in zip(columns[:num_settings], values, strict=False)]
    weights = [{"name": name, "value": _rounded(value), "text": f"{100 * value:.0f}%"} for name, value in weights if math.isfinite(value)]
    if weights:
        weights.sort(key=lambda row: -row["value"])
        text = "The share of the score's variance between the quarters of each setting's values, less what chance would give. What settings do together is not in it."
        sections.append({"kind": "bars", "title": f"Importance of each setting: {what}", "text": text, "rows": weights})
    return sections


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float | np.floating) else str(value)


def axis(name: str, values: list[Any]) -> tuple[dict[str, Any], list[float]]:
    """An axis of parallel coordinates and the places of its values: logarithmic where they span more than a factor of
    30, in the order of their text where they are no numbers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) or value is None for value in values):
        numbers = [math.nan if value is None else float(value) for value in values]
        finite = [value for value in numbers if math.isfinite(value)]
        return {"name": name, "log": bool(finite) and min(finite) > 0 and max(finite) > 30 * min(finite)}, numbers
    words = sorted({str(value) for value in values})
    return {"name": name, "log": False, "categories": words}, [float(words.index(str(value))) for value in values]
