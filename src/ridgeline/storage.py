"""What acting stores: T steps of B rows, time-major, (T, B, ...) with B = R x rows_per_run; and minibatches of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from ridgeline.population import Population
from ridgeline.recurrent import Sequence

VALUE_STEPS = 8  # steps predicted at once: enough to pay, and the activations stay in the cache


class Estimate(NamedTuple):
    """What an estimator gives."""

    advantage: torch.Tensor  # (T, B)
    target: torch.Tensor | None  # (T, B, K) what the critic should have predicted; None: no critic is trained
    target_weight: torch.Tensor | None = None  # (T, B, K) of each squared error of the critic; None: 1 everywhere
    metrics: Mapping[str, torch.Tensor] | None = None  # name -> (R,), logged beside the algorithm's


class LastLayer(NamedTuple):
    """The policy's last layer when it acted. The gradient of log pi(a|s) with respect to its weights is
    score outer [feature, 1]; a Gaussian's scores are whitened, which scales that gradient, with gSDE row by row."""

    feature: torch.Tensor  # (T, B, F) its input
    score: torch.Tensor  # (T, B, S) of its outputs
    score_free: torch.Tensor  # (T, B, S0) of parameters that depend on no feature
    log_prob: torch.Tensor  # (T, B) computed again: what the stored one must be


class FinalObservations(NamedTuple):
    """The last observations of the episodes that were truncated in a rollout, ordered by run."""

    step: np.ndarray  # (E,)
    row: np.ndarray  # (E,)
    run: np.ndarray  # (E,)
    place: np.ndarray  # (E,) of the observation among its run's
    observation: torch.Tensor  # (R, most of a run, *O), padded
    state: torch.Tensor | None = None  # (R, most of a run, S) of a recurrent policy, before the reset


@dataclass
class Rollout:
    """T steps of B rows.

    `next_value` is the prediction at the state that truly followed: the final observation's where an episode was
    truncated, the next row's otherwise, the last observation's at the rollout's cut. Behind a termination it means
    nothing and must be selected away with `torch.where`, never multiplied by zero.

    Where some cells are no transitions, `valid` says which are. In each column these stand at the end, in their order;
    what is left free before them is zeros, terminated (valid_rows.py).
    """

    num_runs: int
    observation: torch.Tensor  # (T + 1, B, *O); the last one is the state at the cut
    action: torch.Tensor  # (T, B, ...), unclipped
    log_prob: torch.Tensor  # (T, B)
    value: torch.Tensor  # (T, B, K), in units of reward
    next_value: torch.Tensor  # (T, B, K)
    reward: torch.Tensor  # (T, B)
    terminated: torch.Tensor  # (T, B) bool: over in the MDP; wins where both are true
    truncated: torch.Tensor  # (T, B) bool: cut from outside
    episode_row: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))  # (E,)
    episode: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # (E, 2 + S): return, length, statistics
    log_ratio: torch.Tensor = None  # type: ignore[assignment]  # (T, B) log pi / pi_old; 0 until `reevaluate`
    final: "FinalObservations | None" = None
    population: Population | None = None  # that acted
    valid: torch.Tensor | None = None  # (T, B) bool; None: all
    num_agents: int = 1  # of each environment instance
    state: torch.Tensor | None = None  # (B, S) of a recurrent policy before the first valid cell
    cut_state: torch.Tensor | None = None  # (B, S) of it at the cut
    _distribution: Any = field(default=None, init=False, repr=False)
    _last_layer: "LastLayer | None" = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if self.log_ratio is None:
            self.log_ratio = torch.zeros_like(self.log_prob)

    @property
    def length(self) -> int:
        return self.reward.shape[0]

    @property
    def rows_per_run(self) -> int:
        """Rows of each run: instances times agents."""
        return self.reward.shape[1] // self.num_runs

    @property
    def num_envs(self) -> int:
        """Environment instances of each run."""
        return self.rows_per_run // self.num_agents

    @property
    def num_samples(self) -> int:
        """What each run's minibatches are drawn from: its cells, or the whole columns of a recurrent policy."""
        return self.rows_per_run if self.state is not None else self.length * self.rows_per_run

    def by_run(self, tensor: torch.Tensor) -> torch.Tensor:
        """(T, B, ...) viewed as (T, R, rows_per_run, ...)."""
        return tensor.unflatten(1, (self.num_runs, -1))

    @property
    def valid_by_run(self) -> torch.Tensor | None:
        return None if self.valid is None else self.by_run(self.valid)

    def of_each_run(self, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        """The valid cells of each run, one run at a time, so that a sum is rounded as it is where the run is alone:
        (T, rows_per_run, ...), or (cells, ...) where some are not valid."""
        for run, own in enumerate(self.by_run(tensor).unbind(1)):
            yield own.contiguous() if self.valid is None else own[self.by_run(self.valid)[:, run]]

    def rows(self, index: torch.Tensor, estimate: Estimate) -> dict[str, Any]:
        """The minibatch of samples `index` (R, M), each below `num_samples`, as name -> (R, M, ...). A recurrent
        policy's samples are columns: its observations are a `Sequence`, and all else is flattened step by step."""
        cells = self._cells(index)

        def pick(tensor):
            return tensor.flatten(0, 1).index_select(0, cells.ravel()).unflatten(0, (self.num_runs, -1))

        minibatch: dict[str, Any] = {
            "observation": pick(self.observation[:-1]),
            "action": pick(self.action),
            "log_prob": pick(self.log_prob),
            "advantage": pick(estimate.advantage),
        }
        if estimate.target is not None:
            minibatch["value"] = pick(self.value)
            minibatch["target"] = pick(estimate.target)
        if estimate.target_weight is not None:
            minibatch["target_weight"] = pick(estimate.target_weight)
        if self.valid is not None:
            minibatch["valid"] = valid = pick(self.valid)
            for name in ("advantage", "target", "target_weight"):  # an estimator may leave anything in free cells
                if name in minibatch:
                    behind = minibatch[name].dim() - valid.dim()
                    minibatch[name] = torch.where(valid.view(*valid.shape, *[1] * behind), minibatch[name], 0.0)
        if self.state is not None:
            minibatch["observation"] = self._sequence(index, minibatch["observation"])
        return minibatch

    def everything(self, estimate: Estimate) -> dict[str, Any]:
        """All rows as one minibatch, name -> (R, T * rows_per_run, ...)."""
        return self.rows(torch.arange(self.num_samples).expand(self.num_runs, -1), estimate)

    def _cells(self, index: torch.Tensor) -> torch.Tensor:
        """Where samples `index` (R, M) lie in storage, (R, cells): T * B cells step by step."""
        num_rows, per_run = self.reward.shape[1], self.rows_per_run
        run = torch.arange(self.num_runs).unsqueeze(1)
        if self.state is None:
            return index // per_run * num_rows + run * per_run + index % per_run
        column = run * per_run + index
        return (self._steps()[:, column] * num_rows + column).transpose(0, 1).flatten(1)

    def _steps(self) -> torch.Tensor:
        """The steps of each column (T, B) in a recurrent policy's order: its valid cells first."""
        steps = torch.arange(self.length).unsqueeze(1).expand_as(self.reward)
        return steps if self.valid is None else (steps + (~self.valid).sum(0)) % self.length

    def _sequence(self, index: torch.Tensor, observation: torch.Tensor) -> Sequence:
        """Columns `index` (R, M) and their observations (R, T * M, *O) as sequences."""
        assert self.state is not None
        column = torch.arange(self.num_runs).unsqueeze(1) * self.rows_per_run + index
        ends = (self.terminated | self.truncated).gather(0, self._steps())
        start = torch.cat([torch.zeros_like(ends[:1]), ends[:-1]])[:, column].transpose(0, 1)
        return Sequence(observation.unflatten(1, (self.length, -1)), self.state[column], start)

    def evaluate(self, call: Callable, *tensors: torch.Tensor, rows: int | None = None) -> Any:
        """`call(observation, *tensors)` of all runs, (R, M, ...), at every step: the results, time-major (T, B, ...).

        `rows`: only the first so many of each run.
        """
        if self.state is None:
            parts = [call(*part) for part in zip(*(self._parts(x, rows) for x in (self.observation[:-1], *tensors)),
                                                 strict=True)]  # fmt: skip
            return tree_map(lambda *leaves: _time_major(leaves, rows or self.rows_per_run), *parts)
        index = torch.arange(self.rows_per_run).expand(self.num_runs, -1)
        cells = self._cells(index).ravel()
        picked = [x.flatten(0, 1).index_select(0, cells).unflatten(0, (self.num_runs, -1)) for x in
                  (self.observation[:-1], *tensors)]  # fmt: skip
        back = torch.empty_like(self._steps()).scatter_(0, self._steps(), torch.arange(self.length).unsqueeze(1).expand(
            self.reward.shape))  # fmt: skip

        def ordered(leaf):
            leaf = leaf.unflatten(1, (self.length, -1)).transpose(0, 1).flatten(1, 2)
            leaf = leaf.gather(0, back.view(*back.shape, *[1] * (leaf.dim() - 2)).expand_as(leaf))
            return leaf if rows is None else self.by_run(leaf)[:, :, :rows].flatten(1, 2)

        return tree_map(ordered, call(self._sequence(index, picked[0]), *picked[1:]))

    def _parts(self, tensor: torch.Tensor, rows: int | None = None) -> Iterator[torch.Tensor]:
        """The rows of `tensor` of VALUE_STEPS steps at a time, by run: (R, S * rows, ...)."""
        for start in range(0, self.length, VALUE_STEPS):
            part = self.by_run(tensor[start : start + VALUE_STEPS])[:, :, :rows]
            yield part.transpose(0, 1).flatten(1, 2)

    def distribution(self) -> Any:
        """The distributions from which the actions were drawn, over (T, B). To be asked for before learning."""
        if self._distribution is None:
            assert self.population is not None
            self._distribution = self.evaluate(self.population.distribution)
        return self._distribution

    def last_layer(self, num_envs: int) -> LastLayer:
        """What the policy's last layer saw, and how log pi(a|s) depends on its outputs, at the first `num_envs`
        instances of each run. To be asked for before learning."""
        rows = num_envs * self.num_agents
        if self._last_layer is None or self._last_layer.feature.shape[1] != self.num_runs * rows:
            assert self.population is not None
            self._last_layer = LastLayer(*self.evaluate(self.population.last_layer, self.action, rows=rows))
        return self._last_layer


def _time_major(leaves: tuple[torch.Tensor, ...], rows: int) -> torch.Tensor:
    """Parts (R, S * rows, ...) of several steps each -> (T, R * rows, ...)."""
    return torch.cat([leaf.unflatten(1, (-1, rows)).transpose(0, 1).flatten(1, 2) for leaf in leaves])
