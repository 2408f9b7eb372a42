"""Acting: T steps of every environment, and what estimators make of them.

Storage is time-major, (T, B, ...) with B = R x N rows, and is allocated once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_map

from ridgeline.kernel import InvalidEnvironment
from ridgeline.observations import ACTION_MASK, as_dict, is_packed, unpack
from ridgeline.policies import clip_action
from ridgeline.population import Population
from ridgeline.vector import VectorEnv


class Estimate(NamedTuple):
    """What an estimator gives."""

    advantage: torch.Tensor  # (T, B)
    target: torch.Tensor | None  # (T, B, K) what the critic should have predicted; None: no critic is trained
    target_weight: torch.Tensor | None = None  # (T, B, K) of each squared error of the critic; None: 1 everywhere
    metrics: Mapping[str, torch.Tensor] | None = None  # name -> (R,), logged beside the algorithm's


@dataclass
class Rollout:
    """T steps of B rows.

    `next_value` is the prediction at the state that truly followed: the final observation's where an episode was
    truncated, the next row's otherwise, the last observation's at the rollout's cut. Behind a termination it means
    nothing and must be selected away with `torch.where`, never multiplied by zero.
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
    _distribution: Any = field(default=None, init=False, repr=False)
    _last_layer: "LastLayer | None" = field(default=None, init=False, repr=False)

    def __post_init__(self):
        if self.log_ratio is None:
            self.log_ratio = torch.zeros_like(self.log_prob)

    @property
    def length(self) -> int:
        return self.reward.shape[0]

    @property
    def num_envs(self) -> int:
        """Environment instances of each run."""
        return self.reward.shape[1] // self.num_runs

    def by_run(self, tensor: torch.Tensor) -> torch.Tensor:
        """(T, B, ...) viewed as (T, R, N, ...)."""
        return tensor.unflatten(1, (self.num_runs, -1))

    def rows(self, index: torch.Tensor, estimate: Estimate) -> dict[str, torch.Tensor]:
        """The minibatch of rows `index` (R, M), each 0 .. T * N - 1 within its run, as name -> (R, M, ...)."""
        num_rows, num_envs = self.reward.shape[1], self.num_envs
        run = torch.arange(self.num_runs).unsqueeze(1)
        flat = (index // num_envs * num_rows + run * num_envs + index % num_envs).ravel()

        def pick(tensor):
            return tensor.flatten(0, 1).index_select(0, flat).unflatten(0, (self.num_runs, -1))

        minibatch = {
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
        return minibatch

    def everything(self, estimate: Estimate) -> dict[str, torch.Tensor]:
        """All rows as one minibatch, name -> (R, T * N, ...)."""
        count = self.length * self.num_envs
        return self.rows(torch.arange(count).expand(self.num_runs, count), estimate)

    def distribution(self) -> Any:
        """The distributions from which the actions were drawn, over (T, B). To be asked for before learning."""
        if self._distribution is None:
            assert self.population is not None
            self._distribution = self._distribution_now(self.population)
        return self._distribution

    def _distribution_now(self, population: Population) -> Any:
        parts = [population.distribution(part) for part in self._parts()]
        return tree_map(lambda *leaves: _time_major(leaves, self.num_envs), *parts)

    def last_layer(self, num_envs: int) -> "LastLayer":
        """What the policy's last layer saw, and how log pi(a|s) depends on its outputs, at the first `num_envs`
        instances of each run. To be asked for before learning."""
        if self._last_layer is None or self._last_layer.feature.shape[1] != self.num_runs * num_envs:
            assert self.population is not None
            parts = []
            actions = self._parts(self.action, num_envs)
            for observation, action in zip(self._parts(num_envs=num_envs), actions, strict=True):
                parts.append(self.population.last_layer(observation, action))
            self._last_layer = LastLayer(*(_time_major(leaves, num_envs) for leaves in zip(*parts, strict=True)))
        return self._last_layer

    def _parts(self, tensor: torch.Tensor | None = None, num_envs: int | None = None):
        """The observations, or the rows of `tensor`, of VALUE_STEPS steps at a time, by run: (R, S * N, ...)."""
        tensor = self.observation[:-1] if tensor is None else tensor
        for start in range(0, self.length, VALUE_STEPS):
            part = self.by_run(tensor[start : start + VALUE_STEPS])[:, :, :num_envs]
            yield part.transpose(0, 1).flatten(1, 2)


class LastLayer(NamedTuple):
    """The policy's last layer when it acted. The gradient of log pi(a|s) with respect to its weights is
    score outer [feature, 1]; a Gaussian's scores are whitened, which scales that gradient."""

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


def _time_major(leaves: tuple[torch.Tensor, ...], num_envs: int) -> torch.Tensor:
    """Parts (R, S * N, ...) of several steps each -> (T, R * N, ...)."""
    return torch.cat([leaf.unflatten(1, (-1, num_envs)).transpose(0, 1).flatten(1, 2) for leaf in leaves])


def check_minibatches(num_envs: int, rollout_length: int, num_minibatches: int) -> None:
    """Raises ValueError where a rollout cannot be divided into so many equal parts."""
    rows = num_envs * rollout_length
    if num_minibatches < 1 or rows % num_minibatches:
        choices = ", ".join(str(n) for n in range(1, min(rows, 64) + 1) if rows % n == 0)
        raise ValueError(
            f"rollout_length x num_envs = {rows} is not divisible by num_minibatches = {num_minibatches}; "
            f"use one of {choices}"
        )


def squared_error(value: torch.Tensor, minibatch: dict[str, torch.Tensor], scale: torch.Tensor) -> torch.Tensor:
    """((V − R̂)/σ)² of every row and head, (M, K), times its weight where the estimator gives weights."""
    square = ((value - minibatch["target"]) / scale).square()
    return square * minibatch["target_weight"] if "target_weight" in minibatch else square


VALUE_STEPS = 8  # steps predicted at once: enough to pay, and the activations stay in the cache


def _allocate(env: VectorEnv, population: Population, rollout_length: int) -> Rollout:
    rows = env.num_rows
    observation = torch.from_numpy(np.zeros((rollout_length + 1, *env.observation.shape), env.observation.dtype))
    observation[rollout_length] = torch.from_numpy(env.observation)
    noise = population.noise(1, env.num_envs)
    first = observation[-1].unflatten(0, (population.num_runs, -1))
    action, log_prob, _ = population.act(first, noise[0])
    value = population.value(first)

    def storage(like):
        return torch.zeros(rollout_length, rows, *like.shape[2:], dtype=like.dtype)

    return Rollout(
        population.num_runs, observation, storage(action), storage(log_prob), storage(value), storage(value),
        storage(log_prob), torch.zeros(rollout_length, rows, dtype=torch.bool),
        torch.zeros(rollout_length, rows, dtype=torch.bool),
    )  # fmt: skip


def collect(env: VectorEnv, population: Population, rollout_length: int) -> Rollout:
    """Act for `rollout_length` steps. The returned storage is overwritten by the next call for this environment."""
    rollout = getattr(env, "_rollout", None)
    if rollout is None or rollout.length != rollout_length or rollout.num_runs != population.num_runs:
        rollout = _allocate(env, population, rollout_length)
        env._rollout = rollout  # type: ignore[attr-defined]
    rollout.observation[0] = rollout.observation[rollout_length]
    runs = population.num_runs
    noise = population.noise(rollout_length, env.num_envs)
    observation, reward = rollout.observation.numpy(), rollout.reward.numpy()
    terminated, truncated = rollout.terminated.numpy(), rollout.truncated.numpy()
    final: list[tuple[int, np.ndarray, np.ndarray]] = []
    rollout.population, rollout._distribution, rollout._last_layer = population, None, None
    rollout.log_ratio.zero_()
    episode_row, episode = [], []
    for t in range(rollout_length):
        action, log_prob, value = population.act(rollout.observation[t].unflatten(0, (runs, -1)), noise[t])
        rollout.action[t], rollout.log_prob[t] = action.flatten(0, 1), log_prob.flatten(0, 1)
        if value is not None:
            rollout.value[t] = value.flatten(0, 1)
        with population.clock("environment"):
            step = env.step(clip_action(env.action_space, rollout.action[t].numpy()), observation[t + 1])
        reward[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
        if len(step.final_row):
            final.append((t, step.final_row.copy(), step.final_observation.copy()))
        if len(step.episode_row):
            episode_row.append(step.episode_row.copy())
            episode.append(step.episode.copy())
    rollout.final = _final_observations(final, runs, env.num_envs)
    if population.separate:
        _fill_value(rollout, population)
    _fill_next_value(rollout, population)
    columns = 2 + len(env.statistics)
    rollout.episode_row = np.concatenate(episode_row) if episode_row else np.empty(0, np.int64)
    rollout.episode = np.concatenate(episode) if episode else np.empty((0, columns))
    check_action_masks(env, rollout)
    _freeze_non_finite(rollout, population)
    return rollout


@torch.no_grad()
def reevaluate(rollout: Rollout, population: Population) -> None:
    """Value, next value and log ratio of every row under the parameters as they are now, in place."""
    _fill_value(rollout, population)
    _fill_next_value(rollout, population)
    log_prob = rollout._distribution_now(population).log_prob(rollout.action)
    torch.sub(log_prob, rollout.log_prob, out=rollout.log_ratio)


def _fill_value(rollout: Rollout, population: Population) -> None:
    parts = tuple(population.value(part) for part in rollout._parts())
    rollout.value.copy_(_time_major(parts, rollout.num_envs))


def _fill_next_value(rollout: Rollout, population: Population) -> None:
    """The next row's value; the last observation's at the cut; the final observation's where truncated."""
    rollout.next_value[:-1] = rollout.value[1:]
    last = rollout.observation[-1].unflatten(0, (rollout.num_runs, -1))
    rollout.next_value[-1] = population.value(last).flatten(0, 1)
    if rollout.final is not None:
        step, row, run, place, observation = rollout.final
        # as many rows at once in every population: a convolution's last bits depend on how many there are
        values = torch.cat([population.value(part) for part in observation.split(rollout.num_envs, 1)], 1)
        rollout.next_value[step, row] = values[run, place]


def _final_observations(final: list, num_runs: int, num_envs: int) -> FinalObservations | None:
    """Those of all runs, padded to a multiple of `num_envs` that holds those of any run."""
    if not final:
        return None
    step = np.concatenate([np.full(len(rows), t) for t, rows, _ in final])
    row = np.concatenate([rows for _, rows, _ in final])
    observation = np.concatenate([observations for _, _, observations in final])
    run = row // num_envs
    order = np.argsort(run, kind="stable")
    counts = np.bincount(run, minlength=num_runs)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    step, row, run = step[order], row[order], run[order]
    most = -(-int(counts.max()) // num_envs) * num_envs
    padded = np.zeros((num_runs, most, *observation.shape[1:]), observation.dtype)
    padded[run, place] = observation[order]
    return FinalObservations(step, row, run, place, torch.from_numpy(padded))


def check_action_masks(env: VectorEnv, rollout: Rollout) -> None:
    """Raises InvalidEnvironment where an action mask allows nothing, naming the step and the environment row."""
    if not is_packed(env.observation_space) or ACTION_MASK not in as_dict(env.observation_space):
        return
    mask = unpack(env.observation_space, rollout.observation[:-1])[ACTION_MASK]
    space = env.action_space
    sizes = space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else [mask.shape[-1]]
    for part in mask.split(sizes, -1):
        nothing = ~(part != 0).any(-1)
        if bool(nothing.any()):
            t, row = nothing.nonzero()[0].tolist()
            raise InvalidEnvironment(
                f"{env.name}: the action mask allows nothing at step {t} of the rollout, environment row {row}; allow "
                "at least one action of each part"
            )


def _freeze_non_finite(rollout: Rollout, population: Population) -> None:
    """Freeze the runs that met a NaN or infinity, naming the step and the environment row."""
    for name in ("observation", "reward", "log_prob", "value", "next_value"):
        tensor = getattr(rollout, name)
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum())):
            continue
        tensor = rollout.by_run(tensor)
        for run in range(population.num_runs):
            own = tensor[:, run]
            bad = ~torch.isfinite(own.flatten(2)).all(-1) if own.dim() > 2 else ~torch.isfinite(own)
            if bad.any():
                t, n = (int(i) for i in bad.nonzero()[0])
                population.freeze(run, f"{name} is not finite at step {t} of the rollout, environment row {n}")


RATIO_TOLERANCE = 1e-5  # float32 rounding of a log-probability


def summary(
    population: Population, rollout: Rollout, estimate: Estimate, log: list[dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """The metrics of one iteration, (R,) each: means over its updates, and what the rollout shows.

    `first_log_ratio` is the largest |log ratio| of the first minibatch. Nothing has been learned by then, so it must be
    below 1e-5: the policy that learns is the policy that acted. docs/metrics.md explains each name.
    """
    metrics = {name: torch.stack([entry[name] for entry in log]).mean(0) for name in log[0] if name != "max_log_ratio"}
    if "max_log_ratio" in log[0]:
        metrics["first_log_ratio"] = log[0]["max_log_ratio"]
    value, advantage = rollout.by_run(rollout.value), rollout.by_run(estimate.advantage)
    metrics["advantage_std"] = advantage.std(dim=(0, 2), correction=0)
    metrics["value"] = value.mean(dim=(0, 2, 3))
    if estimate.target is not None:
        metrics["explained_variance"] = explained_variance(rollout.by_run(estimate.target), value).mean(-1)
    metrics["learning_rate"] = population.learning_rate()
    return metrics | dict(estimate.metrics or {})


def explained_variance(target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """1 − Var(R̂ − V) / Var(R̂) of each run, (R, ...): target and value (T, R, N, ...). A target that hardly varies has
    no variance to explain: at least 1% of its root mean square counts."""
    error = (target - value).var(dim=(0, 2), correction=0)
    least = 1e-4 * target.square().mean((0, 2)) + 1e-12
    return 1 - error / target.var(dim=(0, 2), correction=0).maximum(least)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _reverse_scan(delta, decay, out):
    steps, rows = delta.shape
    for row in range(rows):
        out[steps - 1, row] = delta[steps - 1, row]
    for t in range(steps - 2, -1, -1):
        for row in range(rows):
            factor = decay[t, row]
            # selected, not multiplied: what lies behind an end of the trace may be anything
            out[t, row] = delta[t, row] + factor * out[t + 1, row] if factor != 0 else delta[t, row]


def reverse_scan(delta: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """y_t = delta_t + decay_t y_{t+1}, y_T = 0, along the first dimension; every recursion over time goes through here.

    Args: delta (T, B), decay (T, B), float32 or float64 on the CPU. Where decay is 0, y_{t+1} is not read, so a NaN
    behind it stays there.
    """
    out = torch.empty_like(delta)
    _reverse_scan(delta.contiguous().numpy(), decay.contiguous().to(delta.dtype).numpy(), out.numpy())
    return out
