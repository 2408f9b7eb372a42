"""Acting: T steps of every environment, and what estimators make of them.

Storage (storage.py) is time-major, (T, B, ...) with B = R x N x agents rows, and is allocated once.
"""

import numba
import numpy as np
import torch
from gymnasium import spaces

from ridgeline.kernel import InvalidEnvironment
from ridgeline.observations import ACTION_MASK, as_dict, is_packed, unpack
from ridgeline.policies import clip_action
from ridgeline.population import Population
from ridgeline.storage import Estimate, FinalObservations, Rollout
from ridgeline.valid_rows import compact
from ridgeline.vector import Step, VectorEnv

__all__ = [
    "RATIO_TOLERANCE", "Estimate", "Rollout", "check_minibatches", "collect", "explained_variance", "reevaluate",
    "reverse_scan", "squared_error", "summary",
]  # fmt: skip


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
    """K ((V − R̂)/σ)² of every row and of each of K heads, (M, K), times its weight where the estimator gives weights.

    The mean of it is the sum over heads of their means over rows: a head learns as fast beside others as alone.
    """
    square = value.shape[-1] * ((value - minibatch["target"]) / scale).square()
    return square * minibatch["target_weight"] if "target_weight" in minibatch else square


def _storage(env: VectorEnv, population: Population, rollout_length: int) -> Rollout:
    """The rollout of the last call for this environment, or a new one."""
    kept = getattr(env, "_rollout", None)
    if kept is not None and kept.length == rollout_length and kept.num_runs == population.num_runs:
        return kept
    rows, state = env.num_rows, population.state
    observation = torch.from_numpy(np.zeros((rollout_length + 1, *env.observation.shape), env.observation.dtype))
    observation[rollout_length] = torch.from_numpy(env.observation)
    first = observation[-1].unflatten(0, (population.num_runs, -1))
    action, log_prob, _ = population.act(first, population.noise(1, env.rows_per_run)[0])
    value = population.value(first, population.state)
    population.state = state

    def storage(like):
        return torch.zeros(rollout_length, rows, *like.shape[2:], dtype=like.dtype)

    rollout = Rollout(
        population.num_runs, observation, storage(action), storage(log_prob), storage(value), storage(value),
        storage(log_prob), torch.zeros(rollout_length, rows, dtype=torch.bool),
        torch.zeros(rollout_length, rows, dtype=torch.bool), num_agents=env.num_agents,
    )  # fmt: skip
    env._rollout = rollout  # type: ignore[attr-defined]
    return rollout


def collect(env: VectorEnv, population: Population, rollout_length: int) -> Rollout:
    """Act for `rollout_length` steps. The returned storage is overwritten by the next call for this environment."""
    rollout = _storage(env, population, rollout_length)
    rollout.observation[0] = rollout.observation[rollout_length]
    runs = population.num_runs
    noise = population.noise(rollout_length, env.rows_per_run)
    observation, reward = rollout.observation.numpy(), rollout.reward.numpy()
    terminated, truncated = rollout.terminated.numpy(), rollout.truncated.numpy()
    final: list[tuple[np.ndarray, ...]] = []
    rollout.population, rollout._distribution, rollout._last_layer = population, None, None
    rollout.log_ratio.zero_()
    memory = _Memory(rollout, population) if population.recurrent else None
    episode_row, episode = [], []
    for t in range(rollout_length):
        action, log_prob, value = population.act(rollout.observation[t].unflatten(0, (runs, -1)), noise[t])
        rollout.action[t], rollout.log_prob[t] = action.flatten(0, 1), log_prob.flatten(0, 1)
        if value is not None:
            rollout.value[t] = value.flatten(0, 1)
        with population.clock("environment"):
            step = env.step(clip_action(env.action_space, rollout.action[t].numpy()), observation[t + 1])
        reward[t], terminated[t], truncated[t] = step.reward, step.terminated, step.truncated
        if step.valid is not None:
            if rollout.valid is None:
                rollout.valid = torch.ones(rollout_length, env.num_rows, dtype=torch.bool)
            rollout.valid[t] = torch.from_numpy(step.valid)
        states = [] if memory is None else [memory(step)]
        if len(step.final_row):
            rows = step.final_row.copy()
            final.append((np.full(len(rows), t), rows, step.final_observation.copy(), *states))
        if len(step.episode_row):
            episode_row.append(step.episode_row.copy())
            episode.append(step.episode.copy())
    place = None
    if rollout.valid is not None:
        place = compact(
            rollout.valid, rollout.reward, rollout.terminated, rollout.truncated, rollout.observation[:-1],
            rollout.action, rollout.log_prob, rollout.value,
        )  # fmt: skip
    rollout.final = _final_observations(final, rollout, place)
    if population.separate:
        _fill_value(rollout, population)
    _fill_next_value(rollout, population)
    columns = 2 + len(env.statistics)
    rollout.episode_row = np.concatenate(episode_row) if episode_row else np.empty(0, np.int64)
    rollout.episode = np.concatenate(episode) if episode else np.empty((0, columns))
    check_action_masks(env, rollout)
    _freeze_non_finite(rollout, population)
    return rollout


class _Memory:
    """What a recurrent policy remembers while it acts, from step to step and for learning."""

    def __init__(self, rollout: Rollout, population: Population):
        self.rollout, self.population = rollout, population
        self.before = population.remembered(rollout.rows_per_run)
        rollout.state = self.before.flatten(0, 1).clone()
        self.seen = torch.zeros(len(rollout.state), dtype=torch.bool)

    def __call__(self, step: Step) -> np.ndarray:
        """After a step: rows that were not asked remember what they did, and whose episode ended nothing. Returns the
        states of the rows truncated, before that."""
        population, rollout = self.population, self.rollout
        after = population.remembered(rollout.rows_per_run)
        if step.valid is not None:
            valid, before = torch.from_numpy(step.valid), self.before.flatten(0, 1)
            after = torch.where(valid.view(*after.shape[:2], 1), after, self.before)
            first = valid & ~self.seen
            assert rollout.state is not None
            rollout.state[first] = before[first]
            self.seen |= valid
        truncated = after.flatten(0, 1)[torch.from_numpy(step.final_row)].numpy()
        ends = torch.from_numpy(step.terminated | step.truncated).view(*after.shape[:2])
        population.state = self.before = population.begun(after, ends)
        rollout.cut_state = self.before.flatten(0, 1)
        return truncated


@torch.no_grad()
def reevaluate(rollout: Rollout, population: Population) -> None:
    """Value, next value and log ratio of every row under the parameters as they are now, in place."""
    _fill_value(rollout, population)
    if population.recurrent:
        after = rollout.evaluate(population.states)
        ends = rollout.by_run(rollout.terminated | rollout.truncated)[-1]
        rollout.cut_state = population.begun(rollout.by_run(after)[-1], ends).flatten(0, 1)
        if rollout.final is not None:
            assert rollout.final.state is not None
            rollout.final.state[rollout.final.run, rollout.final.place] = after[rollout.final.step, rollout.final.row]
    _fill_next_value(rollout, population)
    log_prob = rollout.evaluate(population.distribution).log_prob(rollout.action)
    torch.sub(log_prob, rollout.log_prob, out=rollout.log_ratio)
    if rollout.valid is not None:
        rollout.log_ratio[~rollout.valid] = 0


def _fill_value(rollout: Rollout, population: Population) -> None:
    rollout.value.copy_(rollout.evaluate(population.value))
    if rollout.valid is not None:
        rollout.value[~rollout.valid] = 0


def _fill_next_value(rollout: Rollout, population: Population) -> None:
    """The next row's value; the last observation's at the cut; the final observation's where truncated."""
    rollout.next_value[:-1] = rollout.value[1:]
    last, state = (
        None if rows is None else rows.unflatten(0, (rollout.num_runs, -1))
        for rows in (rollout.observation[-1], rollout.cut_state)
    )
    rollout.next_value[-1] = population.value(last, state).flatten(0, 1)
    if rollout.final is not None:
        step, row, run, place, observation, state = rollout.final
        # as many rows at once in every population: a convolution's last bits depend on how many there are
        parts = observation.split(rollout.rows_per_run, 1)
        states = [None] * len(parts) if state is None else state.split(rollout.rows_per_run, 1)
        values = torch.cat([population.value(*part) for part in zip(parts, states, strict=True)], 1)
        rollout.next_value[step, row] = values[run, place]
    if rollout.valid is not None:
        rollout.next_value[~rollout.valid] = 0


def _final_observations(final: list, rollout: Rollout, place: np.ndarray | None) -> FinalObservations | None:
    """Those of all runs, padded to a multiple of `rows_per_run` that holds those of any run. `place` (T, B): where what
    ended in a cell is now, -1 where it is dropped."""
    if not final:
        return None
    step, row, observation, *state = (np.concatenate(parts) for parts in zip(*final, strict=True))
    if place is not None:
        step = place[step, row]
        kept = np.flatnonzero((step >= 0) & rollout.truncated.numpy()[step, row])
        step, row, observation, state = step[kept], row[kept], observation[kept], [one[kept] for one in state]
        if not len(step):
            return None
    num_runs, per_run = rollout.num_runs, rollout.rows_per_run
    run = row // per_run
    order = np.argsort(run, kind="stable")
    counts = np.bincount(run, minlength=num_runs)
    places = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    step, row, run = step[order], row[order], run[order]
    most = -(-int(counts.max()) // per_run) * per_run

    def padded(array: np.ndarray) -> torch.Tensor:
        full = np.zeros((num_runs, most, *array.shape[1:]), array.dtype)
        full[run, places] = array[order]
        return torch.from_numpy(full)

    return FinalObservations(step, row, run, places, padded(observation), *(padded(one) for one in state))


def check_action_masks(env: VectorEnv, rollout: Rollout) -> None:
    """Raises InvalidEnvironment where an action mask allows nothing, naming the step and the environment row."""
    if not is_packed(env.observation_space) or ACTION_MASK not in as_dict(env.observation_space):
        return
    mask = unpack(env.observation_space, rollout.observation[:-1])[ACTION_MASK]
    space = env.action_space
    sizes = space.nvec.tolist() if isinstance(space, spaces.MultiDiscrete) else [mask.shape[-1]]
    for part in mask.split(sizes, -1):
        nothing = ~(part != 0).any(-1)
        if rollout.valid is not None:
            nothing &= rollout.valid
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
        if name == "observation" and rollout.valid is not None:
            tensor = tensor[:-1]  # at the cut a row may not be asked
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
    if rollout.valid is None:
        value, advantage = rollout.by_run(rollout.value), rollout.by_run(estimate.advantage)
        metrics["advantage_std"] = advantage.std(dim=(0, 2), correction=0)
        metrics["value"] = value.mean(dim=(0, 2, 3))
    else:
        own = rollout.of_each_run(estimate.advantage)
        metrics["advantage_std"] = torch.stack([one.std(correction=0) for one in own])
        metrics["value"] = torch.stack([one.mean() for one in rollout.of_each_run(rollout.value)])
    if estimate.target is not None:
        metrics["explained_variance"] = explained_variance(rollout, estimate.target, rollout.value).mean(-1)
    metrics["learning_rate"] = population.learning_rate()
    return metrics | dict(estimate.metrics or {})


def explained_variance(rollout: Rollout, target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """1 − Var(R̂ − V) / Var(R̂) of each run, (R, ...): target and value (T, B, ...). A target that hardly varies has no
    variance to explain: at least 1% of its root mean square counts."""
    if rollout.valid is None:
        return _explained(rollout.by_run(target), rollout.by_run(value))
    own = zip(rollout.of_each_run(target), rollout.of_each_run(value), strict=True)
    return torch.cat([_explained(one[:, None, None], two[:, None, None]) for one, two in own])


def _explained(target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Of (T, R, N, ...)."""
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
