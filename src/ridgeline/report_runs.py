"""The page of a run directory, and that of a folder of them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline import statistics
from ridgeline.metrics import read_lines
from ridgeline.report_sections import band, rounded
from ridgeline.run_directory import read_config, train_commands

POINTS = 200  # of a curve
COLOURS = 8


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
        text = (
            "Mean of the last 100 episodes of each run; IQM over runs, with its 95% interval where there are several."
        )
        sections.append({"kind": "curves", "title": "Learning curve", "text": text, "wide": True, "panels": panels[:1]})
    if panels[1:]:
        text = "Everything that is logged, once per iteration; docs/metrics.md says what is healthy."
        sections.append({"kind": "curves", "title": "Metrics", "text": text, "choose": "metric", "panels": panels[1:]})
    rows = [
        [r, seed, rounded(float(returns[r])) if r < len(returns) else None] for r, seed in enumerate(config["seeds"])
    ]
    sections.append({"kind": "table", "title": "Runs", "columns": ["run", "seed", "return"], "rows": rows})
    sections.append({"kind": "commands", "title": "Commands", "items": [
        *(["train the same again", command] for command in train_commands(config)),
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
        panels.append({"title": name, "x": "steps", "y": name, "series": [{"name": name, "x": steps, **band(array)}]})
    return panels


def folder(directory: Path, found: Sequence[Path]) -> dict[str, Any]:
    """The page of a folder of run directories: one panel per environment, a series for each."""
    panels: dict[str, Any] = {}
    rows, commands = [], []
    for place, path in enumerate(found):
        config, lines = read_config(path), read_lines(path / "metrics.jsonl")
        name = str(path.relative_to(directory))
        panel = panels.setdefault(
            config["environment"], {"title": config["environment"], "x": "steps", "y": "return", "series": []}
        )
        own = metric_panels(
            [{key: line[key] for key in ("steps", "episode_return")} for line in lines], len(config["seeds"])
        )
        if own:
            panel["series"].append(own[0]["series"][0] | {"name": name, "colour": place % COLOURS})
        returns = np.array((lines[-1]["episode_return"] if lines else None) or [math.nan], float)
        commands += [[name, command] for command in train_commands(config)]
        rows.append([
            name, config["environment"], config["algorithm"]["name"], config["estimator"]["name"], len(config["seeds"]),
            lines[-1]["steps"] if lines else 0, rounded(float(returns.mean())),
        ])  # fmt: skip
    text = "IQM over the runs of each directory, with its 95% interval."
    columns = ["run", "environment", "algorithm", "estimator", "runs", "steps", "mean return"]
    sections = [
        {
            "kind": "curves",
            "title": "Learning curves",
            "text": text,
            "panels": [p for p in panels.values() if p["series"]],
        },
        {"kind": "table", "title": "Runs", "columns": columns, "rows": rows},
        {"kind": "commands", "title": "Commands", "items": commands},
    ]
    return {
        "title": directory.resolve().name,
        "subtitle": f"{len(found)} run directories",
        "tiles": [],
        "sections": sections,
    }
