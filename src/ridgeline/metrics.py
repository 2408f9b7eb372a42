"""The metrics of a training on disk: metrics.jsonl, one JSON object per iteration, arrays over runs as lists."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import suppress
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
        """Open, cutting off the lines behind `iteration` (that of the checkpoint resumed from), and half a line."""
        self.path = path
        self._failing = False
        if path.exists():
            kept = [end for line, end in _lines(path) if line["iteration"] <= iteration]
            os.truncate(path, max(kept, default=0))

    def append(self, metrics: dict[str, Any]) -> str | None:
        """Write one line; returns a message the first time that this fails."""
        line = json.dumps({name: plain(value) for name, value in metrics.items()}) + "\n"
        try:
            with open(self.path, "ab") as file:
                file.write(("\n" + line if self._failing else line).encode())  # half a line may stand there
        except OSError as error:
            first, self._failing = not self._failing, True
            return f"{self.path}: {error.strerror}; training goes on, its metrics are lost" if first else None
        self._failing = False
        return None

    def flush(self) -> None:
        """Make the lines survive a power cut, as the checkpoint that follows will."""
        with suppress(OSError), open(self.path, "ab") as file:
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The metrics of every whole line of a file; a line cut by a crash is left out. Empty where there is no file."""
    return [line for line, _ in _lines(path)] if path.exists() else []


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each whole line, and where it ends in the file."""
    end = 0
    with open(path, "rb") as file:
        for text in file:
            end += len(text)
            with suppress(ValueError):  # what a crash or a full disk left
                line = json.loads(text) if text.endswith(b"\n") else None
                if isinstance(line, dict) and isinstance(line.get("iteration"), int):
                    yield line, end
