"""The places of runs in a training: what each is made of, and how a new run begins in the place of an old one.

A run does not depend on the others of its population, so a place that is free may be given to another run at any time:
it then has the parameters, optimizer, normalisers, schedules and random streams with which it would begin alone.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from ridgeline import components
from ridgeline.population import Population
from ridgeline.rollout import Estimate, Rollout
from ridgeline.vector import VectorEnv


def configurations(kind: str, item: Any) -> list[Any]:
    """Configurations from a name, a path, an object or a list of them."""
    items = list(item) if isinstance(item, list | tuple) else [item]
    items = [components.find(kind, str(one))() if isinstance(one, str | Path) else one for one in items]
    method = components.METHODS[kind]
    for one in items:
        if isinstance(one, type) or not hasattr(one, method):
            what = f"the class {one.__name__}; give an object of it" if isinstance(one, type) else repr(one)
            raise ValueError(f"the {kind} is {what}: it needs a method {method}")
        if type(one) is not type(items[0]):
            raise ValueError(f"the runs of one training share their {kind}; these are of {len(items)} kinds")
    return items


def one_per_run(kind: str, items: list[Any], num_runs: int) -> list[Any]:
    """A list with one for each run, from as many or from one; configurations that cannot share a population are
    refused."""
    if len(items) not in (1, num_runs):
        raise ValueError(f"{len(items)} {kind} configurations for {num_runs} runs; give one, or one per run")
    if dataclasses.is_dataclass(items[0]):
        components.stack(items)
    return items if len(items) == num_runs else items * num_runs


def stack_estimators(estimators: list[Any], rows_per_run: int) -> Any:
    """One estimator for the runs of a shard; a coefficient that differs between them becomes a (B,) tensor."""
    coefficients = components.stack(estimators)
    differing = {name: values for name, values in coefficients.items() if len(set(values)) > 1}
    if not differing:
        return estimators[0]
    stacked = copy.copy(estimators[0])
    for name, values in differing.items():
        # in float64, as a run of its own holds it: a product of two coefficients is then the same bits
        column = torch.tensor(values, dtype=torch.float64).repeat_interleave(rows_per_run)
        object.__setattr__(stacked, name, column)  # frozen, and validated one by one already
    return stacked


def builder(policy: Any, env: VectorEnv, num_values: int) -> Callable[[], torch.nn.Module]:
    """What makes the module of one run, from a configuration, a module or a function () -> nn.Module."""

    def build() -> torch.nn.Module:
        if hasattr(policy, "build"):
            return policy.build(env.observation_space, env.action_space, num_values)
        return policy if isinstance(policy, torch.nn.Module) else policy()

    return build


def check_columns(population: Population, env: VectorEnv, algorithm: Any) -> None:
    """Raises ValueError where the rows of a recurrent policy, whole ones each, cannot be dealt out to minibatches."""
    count = getattr(algorithm, "num_minibatches", 1)
    if population.recurrent and env.rows_per_run % count:
        raise ValueError(
            f"a recurrent policy's minibatches are whole rows: num_envs x agents = {env.rows_per_run} is not divisible "
            f"by num_minibatches = {count}; change one of them"
        )


def num_values(estimator: Any, action_space: spaces.Space) -> int:
    """Predictions per state that the estimator wants of the critic: its `num_values`, a number or a function of the
    action space."""
    count: int | Callable[[spaces.Space], int] = estimator.num_values
    return count(action_space) if callable(count) else count


# ----------------------------------------------------------------------------------------------------------- beginning


@torch.no_grad()
def replace(
    population: Population,
    build: Callable[[], torch.nn.Module],
    run: int,
    seed: int,
    coefficients: dict[str, list[float]],
) -> None:
    """Begin run `run` of the population anew, as a run of this seed with these coefficients begins.

    Its state is that of a population of its own; what the estimator remembers is left to `beginning`.
    """
    optimizer = "muon" if population.muon_matrices.any() else "adam"
    observation, action = population.observation_space, population.action_space
    alone = Population(build, observation, action, [seed], coefficients, True, optimizer)
    population.seeds = (*population.seeds[:run], seed, *population.seeds[run + 1 :])
    own = population.state_dict()
    for name, tensor in alone.state_dict().items():
        own[name][run] = tensor[0]
    for name, tensor in alone.coefficients.items():
        population.coefficients[name][run] = tensor[0]
    if population.state is not None:
        population.state[run] = population.module.initial_state(population.state.shape[1])  # type: ignore[operator]
    population.failure.pop(run, None)


def beginning(estimator: Any, begins: torch.Tensor) -> Any:
    """The estimator, such that the runs which `begins` (R,) names have nothing to remember."""
    return _Beginning(estimator, begins) if begins.any() else estimator


class _Beginning:
    """Asks the estimator twice, with the memory and without, and gives each run what is its own."""

    def __init__(self, estimator: Any, begins: torch.Tensor):
        self.estimator, self.begins = estimator, begins

    def __getattr__(self, name: str) -> Any:
        return getattr(self.estimator, name)

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        old, old_memory = self.estimator(rollout, memory)
        new, new_memory = self.estimator(rollout, {})
        rows = self.begins.repeat_interleave(rollout.reward.shape[1] // len(self.begins)).unsqueeze(0)
        new_metrics, old_metrics = dict(new.metrics or {}), dict(old.metrics or {})
        estimate = Estimate(
            _choose(rows, new.advantage, old.advantage),
            None if old.target is None or new.target is None else _choose(rows, new.target, old.target),
            self._weight(rows, new.target_weight, old.target_weight),
            {name: _choose(self.begins, new_metrics[name], old_metrics[name]) for name in old_metrics},
        )
        return estimate, {name: _choose(self.begins, new_memory[name], old_memory[name]) for name in old_memory}

    @staticmethod
    def _weight(rows: torch.Tensor, new: torch.Tensor | None, old: torch.Tensor | None) -> torch.Tensor | None:
        """None means 1 everywhere."""
        if new is None and old is None:
            return None
        ones = torch.ones_like(new if old is None else old)  # type: ignore[arg-type]
        new, old = (ones if one is None else one for one in (new, old))
        return _choose(rows, new, old)


def _choose(begins: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """`new` where a run or row begins, else `old`; (R,) or (1, B) against tensors with more dimensions behind."""
    return torch.where(begins.view(*begins.shape, *[1] * (new.dim() - begins.dim())), new, old)
