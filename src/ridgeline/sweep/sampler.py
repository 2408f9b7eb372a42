"""What to try next: Optuna's two-objective TPE, or chance. A sampler only suggests; what it knows is the ledger.

Source: Ozaki et al. 2022, "Multiobjective tree-structured Parzen estimator", as Optuna 5 has it. Its study is built
anew in memory for every batch, from the trials of the ledger, so there is nothing of it to save or to lose.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ridgeline.sweep.ranges import Choice, Range
from ridgeline.sweep.records import Trial
from ridgeline.sweep.space import GROUP, TRIES, Configuration, Space, SpaceError

SAMPLERS = ("tpe", "random")
STARTUP = 10  # trials that must be over before TPE is asked, which too would leave them to chance
Cost = Literal["steps", "seconds"]


def values(trial: Trial, cost: Cost) -> tuple[float, float] | None:
    """Score and cost of a trial that is over, means over its tuning runs; None where it failed or says nothing."""
    if trial.state not in ("finished", "pruned"):
        return None
    known = [run for run in trial.of("tuning") if run.score is not None]
    if not known:
        return None
    score = sum(run.score for run in known if run.score is not None) / len(known)
    return score, sum(getattr(run, cost) for run in known) / len(known)


def suggest(
    space: Space, trials: Sequence[Trial], count: int, sampler: str, seed: int, cost: Cost
) -> list[Configuration]:
    """`count` configurations to try after `trials`: first each group's own settings, then the sampler's.

    The same for the same trials, seed and space. A stopped trial counts with what it had reached, at what that had
    cost; one that failed counts for nothing.
    """
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, len(trials)])))
    first = [space.default(group) for group in list(space.groups)[len(trials) : len(trials) + count]]
    count -= len(first)
    ended = [found for trial in trials if (found := values(trial, cost))]
    if sampler == "random" or len(ended) < STARTUP:
        return first + [space.random(generator) for _ in range(count)]
    return first + _tpe(space, trials, count, int(generator.integers(2**31)), cost)


def _tpe(space: Space, trials: Sequence[Trial], count: int, seed: int, cost: Cost) -> list[Configuration]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    study.add_trials([_known(space, trial, cost) for trial in trials])
    found: list[Configuration] = []
    error: Exception | None = None
    for _ in range(count * TRIES):
        if len(found) == count:
            break
        asked = study.ask()
        drawn = space.draw(
            lambda name, item, asked=asked: item.value(asked.suggest_float(name, *item.coordinates)),
            lambda name, item, asked=asked: item.values[asked.suggest_categorical(name, _places(item))],
        )
        try:
            space.build(drawn)
            found.append(drawn)
        except ValueError as refused:
            error = refused
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
    if len(found) < count:
        raise SpaceError(f"{count * TRIES} suggestions were refused; the last: {error}")
    return found


def _known(space: Space, trial: Trial, cost: Cost) -> Any:
    """A trial of the ledger, as Optuna knows it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    parameters, distributions = {}, {}
    items: dict[str, Range | Choice] = dict(space.ranges)
    if len(space.groups) > 1:
        items[GROUP] = Choice(tuple(space.groups))
    for name, value in trial.configuration.items():
        item = items[name]
        if isinstance(item, Choice):
            values_ = [list(one) if isinstance(one, tuple) else one for one in item.values]
            parameters[name] = values_.index(list(value) if isinstance(value, tuple) else value)
            distributions[name] = CategoricalDistribution(_places(item))
        else:
            low, high = item.coordinates
            parameters[name] = min(max(item.coordinate(value), low), high)
            distributions[name] = FloatDistribution(low, high)
    result = values(trial, cost)
    if result is None:
        over = trial.state == "failed"
        state = TrialState.FAIL if over else TrialState.RUNNING
        return create_trial(state=state, params=parameters, distributions=distributions)
    return create_trial(
        params=parameters, distributions=distributions, values=[result[0], math.log(max(result[1], 1e-9))]
    )


def _places(item: Choice) -> list[int]:
    """Optuna gets a value's place: lists are no values to it."""
    return list(range(len(item.values)))
