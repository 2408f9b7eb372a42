"""What a sweep does next, read from its ledger alone: whoever holds the lease `plan` may do it, at any time. A lease is
for one step. Who takes longer than it lasts (to suggest trials on a busy machine) finds that it is gone, and writes
nothing down: another has planned meanwhile.

trials      suggested in batches, so that something always waits for the workers
hopeless    a trial is stopped once SHARE of its budget is behind it and its best seed is below the median of what
            others had reached by then
widened     when half of the trials are over, ranges at whose edge the best trial lies are widened, once
candidates  when all trials are over, the best are run again on fresh seeds
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ridgeline.sweep import outcome, ranges
from ridgeline.sweep.ledger import Holder, LeaseLost, Ledger
from ridgeline.sweep.ranges import Range
from ridgeline.sweep.records import OVER, Trial
from ridgeline.sweep.sampler import Cost, suggest
from ridgeline.sweep.space import STEPS, Components, Space, from_document

SHARE = 0.3  # of its budget that a trial may always use
REFERENCES = 8  # trials that must have been as far, before one is called hopeless
FRESH = 1_000_000  # the first evaluation seed is the first tuning seed and this
LEASE = "plan"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The specification of a sweep, as the ledger keeps it."""

    environment: str
    parameters: dict[str, Any]  # of the environment
    algorithm: dict[str, Any]  # {"name", "fields"}, as in a run directory
    estimator: dict[str, Any]
    policy: dict[str, Any]
    space: dict[str, Any]
    trials: int = 100
    budget: int | None = None  # steps that all trials together may take; None: no limit
    steps: int = 100_000  # of the longest run
    seeds: int = 3  # of each trial
    seed: int = 0  # the first of them
    candidates: int = 8
    fresh_seeds: int = 10  # of each candidate
    sampler: str = "tpe"
    cost: Cost = "steps"
    metric: str = "episode_return"
    prune: bool = True
    places: int = 16  # of a worker's population
    fresh_places: int = 16  # the same, where candidates are run again

    @property
    def tuning_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    @property
    def evaluation_seeds(self) -> range:
        return range(self.seed + FRESH, self.seed + FRESH + self.fresh_seeds)


class Planner:
    """Does what the plan of a study says next. `step` is to be called again and again, until it returns True.

    Args: made: the components of the plan; num_workers: how many are expected, for the first batch.
    """

    def __init__(self, ledger: Ledger, study: int, plan: Plan, made: Components, num_workers: int = 1):
        self.ledger, self.study, self.plan = ledger, study, plan
        self.capacity = plan.places * num_workers  # runs that the workers train at once, as far as is known
        self.base = from_document(plan.space, made)
        self._curves: dict[int, Sequence[tuple[np.ndarray, np.ndarray]]] = {}  # of trials that are over

    @property
    def space(self) -> Space:
        """The space as it is by now."""
        events = self.ledger.events(self.study, "widened")
        return self.base.widen(widened(self.base, events))

    def step(self, worker: str, lease_seconds: float) -> bool:
        """Do what is to be done now, unless another does it; True when the sweep is over."""
        state = next(study.state for study in self.ledger.studies() if study.study == self.study)
        if state == "finished":
            return True
        if not self.ledger.take(self.study, LEASE, worker, lease_seconds):
            return False
        try:
            return self._step(self.ledger.trials(self.study), (LEASE, worker))
        except LeaseLost:
            return False
        finally:
            self.ledger.leave(self.study, LEASE, worker)

    def _step(self, trials: Sequence[Trial], holder: Holder) -> bool:
        if self.plan.prune:
            self._stop_hopeless(trials)
        self._widen(trials, holder)
        if self._suggest(trials, holder):
            return False
        if any(trial.state not in OVER for trial in trials):
            return False
        return self._evaluate(trials, holder)

    # ----------------------------------------------------------------------------------------------------- suggesting

    def _suggest(self, trials: Sequence[Trial], holder: Holder) -> bool:
        """Ask for more trials where too few wait; whether more are to come."""
        plan = self.plan
        left = plan.trials - len(trials)
        if plan.budget is not None:
            spent = sum(
                run.steps if run.state in OVER else trial.budget for trial in trials for run in trial.of("tuning")
            )
            left = min(left, -(-(plan.budget - spent) // (plan.steps * plan.seeds)))
        if left <= 0:
            return False
        self.capacity = max(self.capacity, sum(self.ledger.workers(self.study).values()))
        missing = self.capacity - sum(self.ledger.waiting(self.study).values())
        count = min(left, -(-missing // plan.seeds))
        if count > 0 and (2 * missing > self.capacity or count == left):
            space = self.space
            found = suggest(space, trials, count, plan.sampler, plan.seed, plan.cost)
            asked = [Trial(-1, one, int(one.get(STEPS, plan.steps)), space.shape(one), plan.sampler) for one in found]
            self.ledger.add_trials(self.study, asked, plan.tuning_seeds, holder=holder)
        return True

    def _widen(self, trials: Sequence[Trial], holder: Holder) -> None:
        """Widen, once, the ranges at whose edge the best trial lies."""
        over = [trial for trial in trials if trial.state in OVER]
        if 2 * len(over) < self.plan.trials or self.ledger.events(self.study, "widened"):
            return
        best = outcome.candidates(outcome.outcomes(trials), 1, self.plan.cost)
        changes: dict[str, Any] = {}
        for name, edge in edges(self.base, best[0].configuration).items() if best else ():
            item = self.base.ranges[name]
            assert isinstance(item, Range)
            if (wider := item.wider(edge)) != item:
                changes[name] = {"edge": edge, "value": best[0].configuration[name]} | ranges.document(wider)
        detail = {"trial": best[0].trial if best else None, "ranges": changes}
        self.ledger.add_event(self.study, "widened", detail, holder)

    # ------------------------------------------------------------------------------------------------------- stopping

    def _stop_hopeless(self, trials: Sequence[Trial]) -> None:
        running = [trial for trial in trials if trial.state == "running"]
        over = [trial.trial for trial in trials if trial.state in OVER and trial.trial not in self._curves]
        curves: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {number: [] for number in over}
        for (number, seed), points in self.ledger.points(self.study, [*over, *(t.trial for t in running)]).items():
            if seed in self.plan.tuning_seeds:
                steps, scores, _ = zip(*points, strict=True)
                curves.setdefault(number, []).append((np.array(steps), np.array(scores)))
        self._curves |= {number: curves[number] for number in over}
        for trial in running:
            own = curves.get(trial.trial, [])
            others = [one for number, one in {**self._curves, **curves}.items() if number != trial.trial]
            if len(own) == self.plan.seeds and (note := hopeless(own, others, trial.budget)):
                self.ledger.prune(self.study, trial.trial, note)

    # ----------------------------------------------------------------------------------------------------- evaluating

    def _evaluate(self, trials: Sequence[Trial], holder: Holder) -> bool:
        """Run the best again on fresh seeds; whether that is over too."""
        plan = self.plan
        if not self.ledger.events(self.study, "candidates"):
            best = outcome.candidates(outcome.outcomes(trials), plan.candidates, plan.cost)
            for one in best:  # all trials are over: whoever plans chooses the same
                self.ledger.add_runs(self.study, one.trial, plan.evaluation_seeds, "evaluation")
            self.ledger.add_event(self.study, "candidates", {"trials": [one.trial for one in best]}, holder)
            return False
        if any(run.state not in OVER for trial in trials for run in trial.of("evaluation")):
            return False
        self.ledger.end_study(self.study)
        return True


def widened(space: Space, events: Sequence[Mapping[str, Any]]) -> dict[str, Range]:
    """The ranges that were widened, by the events of that kind."""
    found = {}
    for event in events:
        for name, document in event["ranges"].items():
            item = space.ranges[name]
            assert isinstance(item, Range)
            found[name] = dataclasses.replace(item, low=document["low"], high=document["high"])
    return found


def edges(space: Space, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars of a configuration that lie at the edge of their range, and which; the length of runs left out."""
    return {
        name: edge
        for name, item in space.ranges.items()
        if name != STEPS and name in configuration and isinstance(item, Range) and space.is_scalar(name)
        if (edge := item.edge(configuration[name]))
    }


def hopeless(
    own: Sequence[tuple[np.ndarray, np.ndarray]],
    others: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]],
    budget: int,
) -> str:
    """Why a trial is to be stopped, or "": its best seed is below the median of what others had reached by then.

    Args: own: the curves (steps, scores) of its seeds; others: those of other trials; budget: its steps.
    """
    now = min(int(steps[-1]) for steps, _ in own)
    if now < SHARE * budget:
        return ""
    reached = [
        statistics.fmean(_at(curve, now) for curve in curves)
        for curves in others
        if curves and all(steps[-1] >= now for steps, _ in curves)
    ]
    if len(reached) < REFERENCES:
        return ""
    best, median = max(_at(curve, now) for curve in own), statistics.median(reached)
    if best >= median:
        return ""
    return f"after {now:,} steps its best seed has {best:.4g}, below {median:.4g}, the median of {len(reached)} trials"


def _at(curve: tuple[np.ndarray, np.ndarray], steps: int) -> float:
    """The score of a curve after so many steps."""
    return float(np.interp(steps, *curve))
