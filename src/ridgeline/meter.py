"""How a training goes: its speed, where its time went, means and extremes over runs, and the course of each number."""

import itertools
import math
import time
from collections import deque
from typing import Any

import numpy as np

WINDOW = 32  # marks over which speeds and shares are taken
PHASES = ("act", "environment", "estimate", "learn", "other")
LABELS = {  # the metrics that are shown, in this order
    "episode_return": "episode return",
    "episode_length": "episode length",
    "entropy": "entropy",
    "approximate_kl": "KL",
    "clip_fraction": "clip fraction",
    "explained_variance": "explained variance",
    "gradient_norm": "gradient norm",
    "learning_rate": "learning rate",
}


class Curve:
    """The course of a number since the start, in at most 128 points: when full, neighbours become their mean."""

    def __init__(self):
        self.points: list[float] = []
        self._pending: list[float] = []
        self._stride = 1

    def add(self, value: float) -> None:
        if not math.isfinite(value):
            return
        self._pending.append(value)
        if len(self._pending) < self._stride:
            return
        self.points.append(sum(self._pending) / len(self._pending))
        self._pending.clear()
        if len(self.points) == 128:
            self.points = [(a + b) / 2 for a, b in zip(self.points[::2], self.points[1::2], strict=True)]
            self._stride *= 2

    def draw(self, width: int, levels: str) -> str:
        """The points as one character each, `levels` from low to high; the latest at the right."""
        points = self.points
        if len(points) > width:
            edges = [len(points) * i // width for i in range(width + 1)]
            points = [sum(points[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
        if not points:
            return ""
        low, high = min(points), max(points)
        if high - low <= 1e-9 * max(abs(low), abs(high)):
            return levels[0] * len(points)
        top = len(levels) - 1
        return "".join(levels[round(top * (point - low) / (high - low))] for point in points)


class Meter:
    """What both views show of a training, from its metrics: progress, speed, shares of the time, means over runs."""

    def __init__(self, training: Any, minutes: float | None = None, window: int = WINDOW):
        self.training, self.minutes = training, minutes
        self.num_runs, self.total_steps = training.num_runs, training.total_steps
        self.steps: int = training.steps
        self.elapsed, self.begin = 0.0, time.perf_counter()
        self.metrics: dict[str, Any] = {}
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.curves = {name: Curve() for name in LABELS}
        self.spread: dict[str, tuple[float, float, float]] = {}  # (mean, min, max) over the runs that are not frozen
        self._marks: deque[tuple[float, int, dict[str, float]]] = deque(maxlen=window)
        self._first = (self.begin, self.steps, dict(self.seconds))

    def take(self, metrics: dict[str, Any]) -> None:
        """One iteration's metrics; called thousands of times a second at the most, so it only adds up."""
        self.metrics = metrics
        self.steps = metrics["steps"]
        for phase in PHASES[:-1]:
            self.seconds[phase] += metrics.get(f"seconds_{phase}", 0.0)

    def mark(self) -> None:
        """A drawing follows: speeds are taken from the mark `window` drawings ago."""
        self._first = self._marks[0] if self._marks else self._first
        now = time.perf_counter()
        self._marks.append((now, self.steps, dict(self.seconds)))
        self.elapsed = self.metrics.get("wall_seconds", now - self.begin)
        alive = ~np.array(self.training.frozen)
        for name, curve in self.curves.items():
            if name in self.metrics:
                self.spread[name] = _spread(self.metrics[name], alive)
                curve.add(self.spread[name][0])

    @property
    def progress(self) -> float:
        """Share of the training that is over, 0..1, by steps or by minutes."""
        share = self.steps / self.total_steps
        if self.minutes:
            share = max(share, (time.perf_counter() - self.begin) / (60 * self.minutes))
        return min(share, 1.0)

    @property
    def steps_per_second(self) -> float:
        """Of all runs together, lately."""
        seconds = self._marks[-1][0] - self._first[0] if self._marks else 0.0
        steps = (self.steps - self._first[1]) * self.num_runs
        return steps / seconds if steps > 0 and seconds > 0 else math.nan

    @property
    def seconds_left(self) -> float:
        speed = self.steps_per_second / self.num_runs
        left = max(self.total_steps - self.steps, 0) / speed if speed > 0 else math.nan
        if self.minutes:
            deadline = max(60 * self.minutes - (time.perf_counter() - self.begin), 0.0)
            left = deadline if math.isnan(left) else min(left, deadline)
        return left

    @property
    def shares(self) -> dict[str, float]:
        """Where each second went lately, phase -> share; they add up to 1."""
        if not self.metrics:
            return dict.fromkeys(PHASES, 0.0)
        now, _, seconds = self._marks[-1]
        then, _, before = self._first
        total = max(now - then, sum(seconds.values()) - sum(before.values()), 1e-9)
        shares = {phase: (seconds[phase] - before[phase]) / total for phase in PHASES[:-1]}
        return {**shares, "other": max(1.0 - sum(shares.values()), 0.0)}


def _spread(numbers: Any, alive: np.ndarray) -> tuple[float, float, float]:
    """(mean, min, max) of a metric (R,) over the runs `alive` (R,) that have a number; NaN where none has."""
    numbers = np.asarray(numbers, np.float64)
    numbers = numbers[alive & np.isfinite(numbers)]
    if numbers.size == 0:
        return math.nan, math.nan, math.nan
    return float(numbers.mean()), float(numbers.min()), float(numbers.max())
