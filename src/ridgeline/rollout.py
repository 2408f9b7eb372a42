"""Acting: T steps of every environment, and what estimators make of them.

Storage is time-major, (T, B, ...) with B = R x N rows, and is allocated once.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numba
import numpy as np
import torch

from ridgeline.policies import clip_action
from ridgeline.population import Population
from ridgeline.vector import VectorEnv


class Estimate(NamedTuple):
    """What an estimator gives."""

    advantage: torch.Tensor  # (T, B)
    target: torch.Tensor | None  # (T, B, K) what the critic should have predicted; None: no critic is trained


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

    @property
    def length(self) -> int:
        return self.reward.shape[0]

    def by_run(self, tensor: torch.Tensor) -> torch.Tensor:
        """(T, B, ...) viewed as (T, R, N, ...)."""
        return tensor.unflatten(1, (self.num_runs, -1))

    def rows(self, index: torch.Tensor, estimate: Estimate) -> dict[str, torch.Tensor]:
        """The minibatch of rows `index` (R, M), each 0 .. T * N - 1 within its run, as name -> (R, M, ...)."""
        num_rows = self.reward.shape[1]
        num_envs = num_rows // self.num_runs
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
        return minibatch

    def everything(self, estimate: Estimate) -> dict[str, torch.Tensor]:
        """All rows as one minibatch, name -> (R, T * N, ...)."""
        count = self.length * self.reward.shape[1] // self.num_runs
        return self.rows(torch.arange(count).expand(self.num_runs, count), estimate)


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
    if population.separate:
        for start in range(0, rollout_length, VALUE_STEPS):
            steps = slice(start, start + VALUE_STEPS)
            rollout.value[steps] = _values(rollout.observation[:-1][steps], population)
    rollout.next_value[:-1] = rollout.value[1:]
    rollout.next_value[-1:] = _values(rollout.observation[rollout_length:], population)
    _final_values(rollout, population, final, env.num_envs)
    columns = 2 + len(env.statistics)
    rollout.episode_row = np.concatenate(episode_row) if episode_row else np.empty(0, np.int64)
    rollout.episode = np.concatenate(episode) if episode else np.empty((0, columns))
    _freeze_non_finite(rollout, population)
    return rollout


def _values(observation: torch.Tensor, population: Population) -> torch.Tensor:
    """The critic's predictions for several steps at once: observation (S, B, *O) -> (S, B, K)."""
    by_run = observation.unflatten(1, (population.num_runs, -1)).transpose(0, 1)  # (R, S, N, *O)
    value = population.value(by_run.flatten(1, 2))
    return value.unflatten(1, by_run.shape[1:3]).transpose(0, 1).flatten(1, 2)


def _final_values(rollout: Rollout, population: Population, final: list, num_envs: int) -> None:
    """next_value of truncated rows: one prediction for the final observations of all runs, padded to the longest."""
    if not final:
        return
    step = np.concatenate([np.full(len(rows), t) for t, rows, _ in final])
    row = np.concatenate([rows for _, rows, _ in final])
    observation = np.concatenate([observations for _, _, observations in final])
    run = row // num_envs
    order = np.argsort(run, kind="stable")
    counts = np.bincount(run, minlength=rollout.num_runs)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    padded = np.zeros((rollout.num_runs, counts.max(), *observation.shape[1:]), observation.dtype)
    padded[run[order], place] = observation[order]
    value = population.value(torch.from_numpy(padded))
    rollout.next_value[step[order], row[order]] = value[run[order], place]


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
        target = rollout.by_run(estimate.target)
        error = (target - value).var(dim=(0, 2), correction=0)
        metrics["explained_variance"] = (1 - error / target.var(dim=(0, 2), correction=0).clamp_min(1e-12)).mean(-1)
    metrics["learning_rate"] = population.learning_rate()
    return metrics


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
