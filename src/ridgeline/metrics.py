"""The metrics of a training on disk: metrics.jsonl, one JSON object per iteration, arrays over runs as lists."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """A number, array or text as strict JSON knows it: arrays as lists, six significant digits, NaN as null."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


class MetricsFile:
    """Appends to metrics.jsonl. A disk that is full loses lines, never the training: `append` says so once."""

    def __init__(self, path: Path, iteration: int = 0):
        """Open, keeping only the lines of iterations up to `iteration` (those of the checkpoint resumed from)."""
        self.path = path
        self.problem: str | None = None
        kept = [line for line in read_lines(path) if line.get("iteration", 0) <= iteration] if iteration else []
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def append(self, metrics: dict[str, Any]) -> str | None:
        """Write one line; returns a message the first time that this fails."""
        line = json.dumps({name: plain(value) for name, value in metrics.items()}) + "\n"
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            first, self.problem = self.problem is None, str(error)
            return f"{self.path}: {error.strerror}; training goes on, its metrics are lost" if first else None
        self.problem = None
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The metrics of every whole line of a file; a line cut by a crash is left out. Empty where there is no file."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines
