"""Sections of a page, as numbers: page/*.js draws them, nothing is drawn here.

A document is {title, subtitle, verdict, winner, notes, tiles, sections, footer}; a section has a kind (curves, forest,
bars, front, parallel, table, commands), a title, a text and the data of its kind. Numbers that are not finite are null.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ridgeline import statistics

SINGLE_RUNS = 16  # as many are drawn one by one
BAND_SAMPLES = 300


def rounded(values: Any) -> Any:
    """Five significant digits, and None for what is not finite: a page need not be exact."""
    if isinstance(values, list | tuple | np.ndarray):
        return [rounded(value) for value in values]
    if values is None or isinstance(values, bool | str | int):
        return values
    return float(f"{values:.5g}") if math.isfinite(values) else None


def interval_text(interval: Sequence[float | None]) -> str:
    """`0.81 [0.7, 0.9]`."""
    first, low, high = ("?" if end is None or not math.isfinite(end) else f"{end:.4g}" for end in interval)
    return f"{first} [{low}, {high}]"


def band(values: np.ndarray) -> dict[str, Any]:
    """Curves (points, runs) as IQM with its 95% interval, and the runs; a point that is NaN in any of them is null."""
    present = np.isfinite(values).all(1)
    found = {name: np.full(len(values), np.nan) for name in ("mean", "low", "high")}
    if present.any():
        found_band = statistics.interval(statistics.iqm, values[present][:, :, None], samples=BAND_SAMPLES)
        for name, part in zip(found, found_band[:3], strict=True):
            found[name][present] = part
    series: dict[str, Any] = {
        name: rounded(part) for name, part in found.items() if name == "mean" or values.shape[1] > 1
    }
    return series | {"runs": rounded(values.T[:SINGLE_RUNS])}


def trial_sections(
    columns: list[tuple[str, list[Any]]],
    score: list[float],
    what: str,
    num_settings: int,
    names: list[str] | None = None,
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
        {
            "name": names[place],
            "values": rounded([own[place] for own in values]),
            "score": rounded(score[place]),
            "rows": rows[place],
        }
        for place in range(len(score))
    ]
    text = (
        f"Every trial of {what}; warmer is better. Drag along an axis to keep only what passes there, click it to "
        "let go."
    )
    sections = [
        {
            "kind": "parallel",
            "title": f"Parallel coordinates: {what}",
            "text": text,
            "dimensions": dimensions,
            "trials": trials,
        }
    ]
    weights = [
        (name, statistics.importance(np.array(own), np.array(score)))
        for (name, _), own in zip(columns[:num_settings], values, strict=False)
    ]
    weights = [
        {"name": name, "value": rounded(value), "text": f"{100 * value:.0f}%"}
        for name, value in weights
        if math.isfinite(value)
    ]
    if weights:
        weights.sort(key=lambda row: -row["value"])
        text = (
            "The share of the score's variance between the quarters of each setting's values, less what chance "
            "would give. What settings do together is not in it."
        )
        sections.append({"kind": "bars", "title": f"Importance of each setting: {what}", "text": text, "rows": weights})
    return sections


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float | np.floating) else str(value)


def axis(name: str, values: list[Any]) -> tuple[dict[str, Any], list[float]]:
    """An axis of parallel coordinates and the places of its values: logarithmic where they span more than a factor of
    30, in the order of their text where they are no numbers."""
    if all((isinstance(value, int | float) and not isinstance(value, bool)) or value is None for value in values):
        numbers = [math.nan if value is None else float(value) for value in values]
        finite = [value for value in numbers if math.isfinite(value)]
        return {"name": name, "log": bool(finite) and min(finite) > 0 and max(finite) > 30 * min(finite)}, numbers
    words = sorted({str(value) for value in values})
    return {"name": name, "log": False, "categories": words}, [float(words.index(str(value))) for value in values]
