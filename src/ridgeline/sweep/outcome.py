"""What a sweep has found: the front of score against cost, the best at each cost, and the one that is recommended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ridgeline.sweep.records import Run, Trial
from ridgeline.sweep.sampler import Cost, values


@dataclass(frozen=True)
class Outcome:
    """A finished trial: what it scored on the seeds that it was tuned on, what it cost, and what it scored on fresh
    ones, where it was run again."""

    trial: int
    configuration: dict[str, Any]
    score: float  # mean over the tuning seeds
    steps: float  # environment steps of a run
    seconds: float  # processor seconds of a run, its share of its population's
    fresh_score: float | None = None  # mean over the evaluation seeds
    fresh_error: float | None = None  # standard error of that mean
    num_fresh: int = 0

    def cost(self, cost: Cost) -> float:
        return self.steps if cost == "steps" else self.seconds


def outcomes(trials: Sequence[Trial]) -> list[Outcome]:
    """Those of all finished trials."""
    return [_outcome(trial) for trial in trials if trial.state == "finished" and values(trial, "steps")]


def _outcome(trial: Trial) -> Outcome:
    known = values(trial, "steps"), values(trial, "seconds")
    assert known[0] is not None and known[1] is not None
    fresh = [run.score for run in trial.of("evaluation") if run.state == "finished" and run.score is not None]
    mean = sum(fresh) / len(fresh) if fresh else None
    error = None
    if mean is not None and len(fresh) > 1:
        variance = sum((score - mean) ** 2 for score in fresh) / (len(fresh) - 1)
        error = (variance / len(fresh)) ** 0.5
    return Outcome(trial.trial, trial.configuration, known[0][0], known[0][1], known[1][1], mean, error, len(fresh))


def front(found: Sequence[Outcome], cost: Cost) -> list[Outcome]:
    """Those that nothing cheaper equals or beats, from the cheapest to the best.

    A trial run again on fresh seeds counts with what it scored there: the score by which it was chosen flatters it.
    """
    best: list[Outcome] = []
    for one in sorted(found, key=lambda one: (one.cost(cost), -_told(one))):
        if not best or _told(one) > _told(best[-1]):
            best.append(one)
    return best


def _told(one: Outcome) -> float:
    return one.score if one.fresh_score is None else one.fresh_score


def candidates(found: Sequence[Outcome], count: int, cost: Cost) -> list[Outcome]:
    """The `count` best on their tuning seeds; of equally good ones the cheaper."""
    return sorted(found, key=lambda one: (-one.score, one.cost(cost), one.trial))[:count]


def recommended(found: Sequence[Outcome], cost: Cost) -> Outcome | None:
    """The cheapest whose score on fresh seeds is within one standard error of the best's; None before any was run."""
    fresh = [one for one in found if one.fresh_score is not None]
    if not fresh:
        return None
    best = max(fresh, key=lambda one: (_told(one), -one.cost(cost)))
    enough = _told(best) - (best.fresh_error or 0.0)
    return min((one for one in fresh if _told(one) >= enough), key=lambda one: (one.cost(cost), -_told(one)))


def document(trials: Sequence[Trial], cost: Cost) -> dict[str, Any]:
    """The result as JSON knows it."""
    found = outcomes(trials)
    runs = [run for trial in trials for run in trial.runs]
    best = recommended(found, cost)
    return {
        "num_trials": {state: sum(trial.state == state for trial in trials) for state in _states(trials)},
        "num_runs": {state: sum(run.state == state for run in runs) for state in _states(runs)},
        "steps": {kind: sum(run.steps for run in runs if run.kind == kind) for kind in ("tuning", "evaluation")},
        "seconds": {kind: sum(run.seconds for run in runs if run.kind == kind) for kind in ("tuning", "evaluation")},
        "cost": cost,
        "front": [asdict(one) for one in front(found, cost)],
        "candidates": [asdict(one) for one in found if one.fresh_score is not None],
        "recommended": None if best is None else asdict(best),
    }


def _states(items: Sequence[Trial] | Sequence[Run]) -> list[str]:
    present = {item.state for item in items}
    return [state for state in ("waiting", "running", "finished", "pruned", "failed") if state in present]
