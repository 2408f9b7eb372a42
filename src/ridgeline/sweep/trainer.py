"""Runs of one shape that train side by side: a place that is free is given to the next run.

Where fewer runs are left than places, or more wait than there are places, the population is made anew with those that
are in it; each goes on as it would have gone on. A run is to the last bit what it is alone.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ridgeline.sweep.records import Claim, Point, Run
from ridgeline.sweep.space import Components
from ridgeline.training import Training, TrainingError

NUM_POINTS = 40  # of the curve of the longest run


@dataclass
class Place:
    """A run on its way."""

    claim: Claim
    seconds: float = 0.0
    points: list[Point] = field(default_factory=list)  # that are not yet written down
    told: int = 0  # how many points there were


class Trainer:
    """A population of one shape.

    Args:
        environment, parameters: what `Training` takes.
        build: the components of a configuration.
        metric: the metric that is the score.
        steps: of the longest run of the sweep, which has NUM_POINTS points.
    """

    def __init__(
        self,
        environment: str | Path | ModuleType,
        parameters: dict[str, Any],
        build: Callable[[dict[str, Any]], Components],
        metric: str,
        steps: int,
    ):
        self.environment, self.parameters, self.build, self.metric = environment, parameters, build, metric
        self.interval = max(1, steps // NUM_POINTS)
        self.training: Training | None = None
        self.places: list[Place | None] = []

    @property
    def active(self) -> list[Place]:
        return [place for place in self.places if place is not None]

    @property
    def free(self) -> list[int]:
        return [run for run, place in enumerate(self.places) if place is None]

    def add(self, claims: Sequence[Claim]) -> list[Run]:
        """Take in runs of the trainer's shape; returns those that failed at once."""
        failed = []
        for number, claim in enumerate(claims):
            try:
                made = self.build(claim.configuration)
                if self.training is None or not self.free:
                    self._regroup(claims[number:])
                    return failed
                run = self.free[0]
                self.training.replace(run, claim.seed, made["algorithm"], made["estimator"], claim.budget)
                self.places[run] = Place(claim)
            except TrainingError as error:
                failed.append(_over(Place(claim), "failed", None, 0, str(error)))
        return failed

    def drop(self, held: set[tuple[int, int]]) -> None:
        """Let go of the runs that are not among `held` (trial, seed)."""
        for run, place in enumerate(self.places):
            if place is not None and (place.claim.trial, place.claim.seed) not in held:
                self._leave(run)

    def shrink(self) -> None:
        """Do without the free places, where they are many and nothing waits for them."""
        if self.training is None:
            return
        if not self.active:
            self.close()
        elif len(self.free) > len(self.places) // 3 and self._exact:
            self._regroup([])

    @property
    def can_grow(self) -> bool:
        """Whether a population may be made anew: not where its environments begin anew with it."""
        return self.training is None or self._exact

    @property
    def _exact(self) -> bool:
        return self.training is None or self.training.shards[0].env.resumes_exactly

    def iterate(self) -> list[Run]:
        """One iteration of all runs; returns those that are over."""
        assert self.training is not None
        start = time.perf_counter()
        try:
            metrics = self.training.iterate()
        except TrainingError as error:
            over = [_over(place, "failed", None, 0, str(error)) for place in self.active]
            self.close()
            return over
        share = (time.perf_counter() - start) / len(self.active)
        population = self.training.shards[0].population
        steps = (population.iteration * self.training.steps_per_iteration).tolist()
        ended = (population.iteration >= self.training.shards[0].num_iterations).tolist()
        failures, over = self.training.failures, []
        for run, place in enumerate(self.places):
            if place is None:
                continue
            place.seconds += share
            score = self._score(metrics, run)
            if run in failures:
                over.append(_over(place, "failed", None, steps[run], failures[run]))
            elif ended[run]:
                missing = (
                    "" if score is not None else f"{self.metric} is unknown after {steps[run]} steps: no episode ended"
                )
                over.append(_over(place, "failed" if missing else "finished", score, steps[run], missing))
            if score is not None and (ended[run] or steps[run] // self.interval > place.told):
                place.told = steps[run] // self.interval
                place.points.append((place.claim.trial, place.claim.seed, steps[run], score, place.seconds))
        return over

    def leave(self, over: Sequence[Run]) -> None:
        """Free the places of runs that are over."""
        self.drop({(place.claim.trial, place.claim.seed) for place in self.active} - {(r.trial, r.seed) for r in over})

    def take_points(self) -> list[Point]:
        """The points since the last call."""
        points = [point for place in self.active for point in place.points]
        for place in self.active:
            place.points = []
        return points

    def close(self) -> None:
        if self.training is not None:
            self.training.close()
        self.training, self.places = None, []

    def _leave(self, run: int) -> None:
        self.places[run] = None
        assert self.training is not None
        self.training.freeze(run, "its place is free")

    def _score(self, metrics: dict[str, Any], run: int) -> float | None:
        if self.metric not in metrics:
            known = ", ".join(sorted(name for name, one in metrics.items() if np.ndim(one) == 1))
            raise ValueError(f"metric = {self.metric!r}; this training has {known}")
        value = float(metrics[self.metric][run])
        return value if math.isfinite(value) else None

    def _regroup(self, claims: Sequence[Claim]) -> None:
        """A population of the runs that are in this one, which go on, and of `claims`, which begin."""
        old, kept = self.training, [run for run, place in enumerate(self.places) if place is not None]
        made = [self.build(claim.configuration) for claim in claims]
        algorithms, estimators, seeds, lengths = [], [], [], []
        if old is not None:
            algorithms, estimators = [old.algorithms[run] for run in kept], [old.estimators[run] for run in kept]
            seeds, lengths = [old.seeds[run] for run in kept], [old.lengths[run] for run in kept]
        policy = made[0]["policy"] if old is None else old.policy
        new = Training(
            self.environment,
            algorithms + [one["algorithm"] for one in made],
            estimators + [one["estimator"] for one in made],
            policy,
            total_steps=lengths + [claim.budget for claim in claims],
            seed=seeds + [claim.seed for claim in claims],
            parameters=self.parameters,
            num_threads=1,
            vmap=True,
        )
        if old is not None and kept:
            _continue(old, kept, new)
            old.close()
        self.training = new
        self.places = [self.places[run] for run in kept] + [Place(claim) for claim in claims]


def _continue(old: Training, kept: Sequence[int], new: Training) -> None:
    """Give the first runs of `new` the state of the runs `kept` of `old`."""
    before, _ = old.state_dict()
    after, _ = new.state_dict()
    for name, tensor in before.items():
        tensor = torch.as_tensor(tensor)
        own = tensor.unflatten(0, (old.num_runs, -1))[list(kept)].flatten(0, 1)
        if name in after:
            begun = torch.as_tensor(after[name])[len(own) :]
        else:  # what the estimator remembers: nothing yet, and it will not be asked for
            rows = len(tensor) // old.num_runs * (new.num_runs - len(kept))
            begun = torch.zeros(rows, *tensor.shape[1:], dtype=tensor.dtype)
        after[name] = torch.cat([own, begun])
    new.load_state_dict(after, {"iteration": 0, "steps": 0, "failures": {}})  # type: ignore[arg-type]


def _over(place: Place, state: str, score: float | None, steps: int, note: str) -> Run:
    claim = place.claim
    return Run(claim.trial, claim.seed, claim.kind, state, score, steps, place.seconds, note)
