"""The loop around `iterate`: runs on threads, schedules, episodes, stopping.

A `Training` is R runs. They are dealt out to as many shards as there are threads, each a population with environments
of its own, which iterates on one core; runs do not interact, so a shard is all that a thread needs. With one run there
is one shard, and PyTorch may use the threads.
"""

import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ridgeline import components, slots
from ridgeline.environments import make
from ridgeline.population import PHASES, Population
from ridgeline.rollout import RATIO_TOLERANCE
from ridgeline.self_play import SNAPSHOTS, SelfPlay
from ridgeline.vector import VectorEnv, as_seeds

EPISODES = 100  # an episode_return is the mean of a run's last so many episodes
SMALL_UPDATE = 3e7  # rows times parameters: below, one thread is as fast as two
BROKEN_RATIO = 1e-2
POLICY_TENSORS = ("flat", "buffer.", "observation_moments.", "target_moments.")  # of a population's state


def keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back at once: fresh pages cost a fifth of the training time."""
    if sys.platform == "linux":
        try:
            library = ctypes.CDLL(None)
            for option, value in ((-3, 1 << 30), (-1, 1 << 30), (-2, 1 << 26)):  # mmap and trim thresholds, top pad
                library.mallopt(option, value)
        except (OSError, AttributeError):
            pass  # another C library


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclasses.dataclass
class Shard:
    """Runs that iterate on one thread."""

    env: VectorEnv
    population: Population
    estimator: Any
    build: Callable[[], torch.nn.Module]  # a policy that has learned nothing
    num_iterations: torch.Tensor  # (R,) that each run is to do


class Training:
    """R runs of an algorithm on an environment. `iterate()` advances all of them by one iteration.

    Args:
        environment: what `environments.make` takes.
        algorithm, estimator: one configuration, or one per run where their coefficients differ.
        policy: a name, a configuration with `build`, an nn.Module (one run), or a function () -> nn.Module; "auto" is
            cnn where the observation has a picture, else mlp.
        total_steps: environment steps of each run, or one number per run; rounded up to whole iterations.
        seed: of the first run; run r has seed + r. Or one seed per run.
        parameters: changes of the environment's parameters.
        num_threads: cores to use; default all. One run uses them through PyTorch, but never more than PyTorch would.
        vmap: see Population; default: populations of more than one run are mapped.
        self_play: share of the instances in which a past self plays one of the two agents; see self_play.py.
    """

    def __init__(
        self,
        environment: str | Path | ModuleType,
        algorithm: Any = "ppo",
        estimator: Any = "gae",
        policy: Any = "auto",
        *,
        total_steps: int | Sequence[int] = 1_000_000,
        num_runs: int | None = None,
        seed: int | Sequence[int] = 0,
        parameters: dict[str, Any] | None = None,
        num_threads: int | None = None,
        vmap: bool | None = None,
        self_play: float | None = None,
    ):
        keep_memory()
        lengths = list(total_steps) if isinstance(total_steps, Sequence) else [total_steps]
        if not lengths or not all(isinstance(one, int) and one > 0 for one in lengths):
            raise ValueError(f"total_steps = {total_steps!r}; use a whole number from 1")
        if num_runs is not None and num_runs < 1:
            raise ValueError(f"num_runs = {num_runs}; use a whole number from 1")
        algorithms, estimators = (
            slots.configurations("algorithm", algorithm),
            slots.configurations("estimator", estimator),
        )
        count = num_runs or max(len(algorithms), len(estimators), 1 if isinstance(seed, int) else len(seed))
        self.seeds = as_seeds(range(seed, seed + count) if isinstance(seed, int) else seed)
        if len(self.seeds) != count:
            raise ValueError(f"{len(self.seeds)} seeds for {count} runs; give one seed per run, or the first one")
        self.algorithms = slots.one_per_run("algorithm", algorithms, count)
        self.estimators = slots.one_per_run("estimator", estimators, count)
        self.environment, self.parameters, self.self_play = environment, dict(parameters or {}), self_play
        self.algorithm, self.estimator = self.algorithms[0], self.estimators[0]
        self.policy = components.find("policy", policy)() if isinstance(policy, str) and policy != "auto" else policy
        self.total_steps, self.iteration, self.steps = max(lengths), 0, 0
        self.steps_per_iteration = self.algorithm.num_envs * self.algorithm.rollout_length
        self.lengths = slots.one_per_run("total_steps", lengths, count)
        self.num_iterations = self._iterations(self.total_steps)
        self.num_threads = num_threads or available_cores()
        self.warnings: list[str] = []
        self._pool = None
        self.shards = [
            self._make_shard(runs, vmap) for runs in np.array_split(np.arange(count), min(count, self.num_threads))
        ]
        if len(self.shards) > 1:
            self._pool = ThreadPoolExecutor(len(self.shards), "ridgeline", lambda: torch.set_num_threads(1))
        self.torch_threads = self._num_torch_threads()
        self.columns = ("return", "length", *self.shards[0].env.statistics)
        self.episodes = np.full((count, EPISODES, len(self.columns)), np.nan)  # each run's last ones, a ring
        self.num_episodes = np.zeros(count, np.int64)

    @property
    def num_runs(self) -> int:
        return len(self.seeds)

    def _num_torch_threads(self) -> int:
        """One for each shard; for a single shard all, if an update is worth it: threads that wait for one another
        stall a small network whenever something else wants a core."""
        rows = self.steps_per_iteration // getattr(self.algorithm, "num_minibatches", 1)
        work = rows * self.shards[0].population.flat.numel()
        return min(torch.get_num_threads(), self.num_threads) if len(self.shards) == 1 and work > SMALL_UPDATE else 1

    def _make_shard(self, runs: np.ndarray, vmap: bool | None) -> Shard:
        seeds = [self.seeds[run] for run in runs]
        algorithms = [self.algorithms[run] for run in runs]
        estimators = [self.estimators[run] for run in runs]
        num_envs = self.algorithm.num_envs
        env = make(self.environment, num_envs, seeds, parameters=self.parameters)
        self.num_values = slots.num_values(self.estimator, env.action_space)
        if isinstance(self.policy, str):
            self.policy = components.find("policy", components.default_policy(env.observation_space))()

        build = slots.builder(self.policy, env, self.num_values)
        if isinstance(self.policy, torch.nn.Module) and self.num_runs > 1:
            raise ValueError("one nn.Module is the policy of one run; for more runs pass a function that makes one")
        coefficients, optimizer = components.stack(algorithms), getattr(self.algorithm, "optimizer", "adam")
        population = Population(build, env.observation_space, env.action_space, seeds, coefficients, vmap, optimizer)
        for algorithm, estimator in zip(algorithms, estimators, strict=True):
            self._check_estimator(env, population, algorithm, estimator)
        slots.check_columns(population, env, self.algorithm)
        iterations = torch.tensor([self._iterations(self.lengths[run]) for run in runs], dtype=torch.float64)
        if self.self_play is not None:
            env = SelfPlay(env, population, self.self_play, self.num_iterations // SNAPSHOTS)
        return Shard(env, population, slots.stack_estimators(estimators, env.rows_per_run), build, iterations)

    def _check_estimator(self, env: VectorEnv, population: Population, algorithm: Any, estimator: Any) -> None:
        warning = estimator.check(env, population, algorithm) if hasattr(estimator, "check") else None
        if warning and warning not in self.warnings:
            self.warnings.append(warning)

    def _iterations(self, total_steps: int) -> int:
        return -(-total_steps // self.steps_per_iteration)

    # ----------------------------------------------------------------------------------------------------- iterating

    @property
    def finished(self) -> bool:
        return all(bool((s.population.iteration >= s.num_iterations).all()) for s in self.shards)

    @property
    def frozen(self) -> list[bool]:
        return [bool(flag) for shard in self.shards for flag in shard.population.frozen]

    @property
    def failures(self) -> dict[int, str]:
        """Run -> why it was frozen."""
        failures, start = {}, 0
        for shard in self.shards:
            failures |= {start + run: reason for run, reason in sorted(shard.population.failure.items())}
            start += shard.population.num_runs
        return failures

    def iterate(self) -> dict[str, Any]:
        """One iteration of all runs; returns its metrics: numbers, and arrays (R,) of what differs between runs."""
        if self._pool is None:
            with with_torch_threads(self.torch_threads):
                results = [self._iterate_shard(self.shards[0])]
        else:
            results = list(self._pool.map(self._iterate_shard, self.shards))
        self.iteration += 1
        self.steps += self.steps_per_iteration
        metrics: dict[str, Any] = {"iteration": self.iteration, "steps": self.steps}
        self._take_episodes()
        metrics |= self.episode_means()
        metrics["num_episodes"] = self.num_episodes.copy()
        for name in results[0]:
            metrics[name] = torch.cat([result[name] for result in results]).double().numpy()
        self._check(metrics["first_log_ratio"] if "first_log_ratio" in metrics else None)
        for phase in PHASES:
            metrics[f"seconds_{phase}"] = sum(s.population.seconds[phase] for s in self.shards) / len(self.shards)
        return metrics

    def _iterate_shard(self, shard: Shard) -> dict[str, torch.Tensor]:
        shard.population.seconds = dict.fromkeys(PHASES, 0.0)
        population, iteration = shard.population, shard.population.iteration
        population.progress.copy_((iteration / shard.num_iterations).clamp_max(1))
        estimator = slots.beginning(shard.estimator, iteration == 0) if population.memory else shard.estimator
        metrics = self.algorithm.iterate(shard.env, population, estimator)
        iteration += 1
        return metrics | (shard.env.after(iteration) if isinstance(shard.env, SelfPlay) else {})

    def _take_episodes(self) -> None:
        """Keep the newest episodes of every run that is not frozen, in the order in which they ended."""
        start = 0
        for shard in self.shards:
            rollout = shard.env._rollout  # type: ignore[attr-defined]
            run_of = rollout.episode_row // shard.env.rows_per_run
            for run in torch.nonzero(~shard.population.frozen).ravel().tolist():
                own = rollout.episode[run_of == run]
                places = (self.num_episodes[start + run] + np.arange(len(own))) % EPISODES
                self.episodes[start + run, places[-EPISODES:]] = own[-EPISODES:]
                self.num_episodes[start + run] += len(own)
            start += shard.population.num_runs

    def episode_means(self) -> dict[str, np.ndarray]:
        """`episode_return`, `episode_length` and the environment's own statistics, each the mean of a run's last 100
        episodes, (R,); NaN before the first has ended."""
        count = np.minimum(self.num_episodes, EPISODES)[:, None]
        ended = np.arange(EPISODES) < count
        total = np.where(ended[..., None], self.episodes, 0.0).sum(1)
        means = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return {f"episode_{name}": means[:, column] for column, name in enumerate(self.columns)}

    def _check(self, first_log_ratio: np.ndarray | None) -> None:
        """The policy that learns must be the policy that acted; a run where it is not is frozen."""
        if first_log_ratio is None:
            return
        alive = ~np.array(self.frozen)
        ratio = np.where(alive, np.nan_to_num(first_log_ratio, nan=0.0), 0.0)
        broken = ratio > BROKEN_RATIO
        everywhere = bool(broken.any()) and bool((broken == alive).all())
        worst = float(ratio.max() if everywhere else np.where(broken, 0.0, ratio).max())
        text = (
            f"max |log ratio| of the first minibatch is {worst:.1e} (must be below {RATIO_TOLERANCE:.0e}): the policy "
            "that learns is not the one that acted; look for dropout, a normaliser updated in between, or randomness "
            "inside forward"
        )
        if everywhere:
            raise TrainingError(text)
        for run in np.flatnonzero(broken):
            self.freeze(int(run), f"max |log ratio| of the first minibatch is {ratio[run]:.1e}: numbers too large")
        if worst > RATIO_TOLERANCE and not any(warning.startswith("max |log ratio|") for warning in self.warnings):
            self.warnings.append(text)

    def freeze(self, run: int, reason: str) -> None:
        """Stop run `run` for good, or until its place is given to another."""
        shard, place = self._place(run)
        shard.population.freeze(place, reason)

    def _place(self, run: int) -> tuple[Shard, int]:
        """The shard of a run, and its place there."""
        for shard in self.shards:
            if run < shard.population.num_runs:
                return shard, run
            run -= shard.population.num_runs
        raise ValueError(f"run = {run + self.num_runs}; there are {self.num_runs}, from 0")

    def replace(
        self, run: int, seed: int, algorithm: Any = None, estimator: Any = None, total_steps: int | None = None
    ) -> None:
        """Begin a new run in the place of run `run`, as it would begin alone, while the others go on; what is None
        stays. Its iterations are those of its own: schedules, random streams and episodes start anew."""
        shard, place = self._place(run)
        if isinstance(self.policy, torch.nn.Module):
            raise ValueError("one nn.Module cannot begin anew; pass a function that makes one")
        for items, one in ((self.algorithms, algorithm), (self.estimators, estimator)):
            if one is not None:
                slots.one_per_run("new", [items[0], one], 2)
                items[run] = one
        self._check_estimator(shard.env, shard.population, self.algorithms[run], self.estimators[run])
        self.lengths[run] = total_steps or self.lengths[run]
        self.seeds = (*self.seeds[:run], *as_seeds(seed), *self.seeds[run + 1 :])
        slots.replace(shard.population, shard.build, place, seed, components.stack([self.algorithms[run]]))
        shard.num_iterations[place] = self._iterations(self.lengths[run])
        first = run - place
        estimators = self.estimators[first : first + shard.population.num_runs]
        shard.estimator = slots.stack_estimators(estimators, shard.env.rows_per_run)
        shard.env.restart(place, seed)
        if getattr(shard.env, "_rollout", None) is not None:  # where acting goes on
            shard.env._rollout.observation[-1] = torch.from_numpy(shard.env.observation)  # type: ignore[attr-defined]
        self.episodes[run], self.num_episodes[run] = np.nan, 0

    def policies(self) -> list[torch.nn.Module]:
        """An independent copy of each run's policy."""
        return [s.population.policy(run) for s in self.shards for run in range(s.population.num_runs)]

    def close(self) -> None:
        """End threads and environments."""
        if self._pool is not None:
            self._pool.shutdown()
        for shard in self.shards:
            shard.env.close()

    # --------------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> tuple[dict[str, torch.Tensor | np.ndarray], dict[str, Any]]:
        """(tensors, document): all that is needed to go on exactly, whatever the number of threads."""
        tensors: dict[str, Any] = {
            "training.episodes": self.episodes,
            "training.num_episodes": self.num_episodes,
        }
        populations = [shard.population.state_dict() for shard in self.shards]
        tensors |= {f"population.{n}": torch.cat([p[n] for p in populations]) for n in populations[0]}
        environments = [shard.env.state_dict() for shard in self.shards]
        tensors |= {f"environment.{n}": np.concatenate([e[n] for e in environments]) for n in environments[0]}
        return tensors, {"iteration": self.iteration, "steps": self.steps, "failures": self.failures}

    def load_state_dict(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError where it is of another shape."""
        self.iteration, self.steps = int(document["iteration"]), int(document["steps"])
        self.episodes = tensors["training.episodes"].numpy().copy()
        self.num_episodes = tensors["training.num_episodes"].numpy().copy()
        start = 0
        for shard in self.shards:
            stop = start + shard.population.num_runs
            share = {n[11:]: t[start:stop] for n, t in tensors.items() if n.startswith("population.")}
            shard.population.load_state_dict(share)
            shard.population.failure = {
                int(run) - start: why for run, why in document["failures"].items() if start <= int(run) < stop
            }
            parts = {n[12:]: t.numpy() for n, t in tensors.items() if n.startswith("environment.")}
            per_run = {n: len(array) // self.num_runs for n, array in parts.items()}
            shard.env.load_state_dict({n: a[start * per_run[n] : stop * per_run[n]] for n, a in parts.items()})
            shard.env._rollout = None  # type: ignore[attr-defined]
            start = stop

    def load_policies(self, tensors: dict[str, torch.Tensor]) -> None:
        """Start from the weights and normalisers of a checkpoint, with everything else new: run r from the saved run r,
        beginning again with the first where fewer were saved. Raises ValueError where the policies differ."""
        saved = {
            name[11:]: tensor
            for name, tensor in tensors.items()
            if name.startswith(tuple(f"population.{part}" for part in POLICY_TENSORS))
        }
        start = 0
        for shard in self.shards:
            stop = start + shard.population.num_runs
            state = shard.population.state_dict()
            own = {name for name in state if name.startswith(POLICY_TENSORS)}
            if own != set(saved):
                raise ValueError(f"the saved policy differs from this one in {', '.join(sorted(own ^ set(saved)))}")
            pick = np.arange(start, stop) % len(saved["flat"])
            shard.population.load_state_dict(state | {name: saved[name][pick] for name in own})
            start = stop


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def with_torch_threads(count: int):
    """PyTorch with `count` threads inside, and as before behind."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def iterate(environment: str | Path | ModuleType, **settings: Any) -> Iterator[dict[str, Any]]:
    """The training loop for whoever wants to own it: yields the metrics of each iteration.

    Takes what `Training` takes. Each metrics dict also holds the `training` itself, for its policies and shards.
    """
    training = Training(environment, **settings)
    try:
        while not training.finished and not all(training.frozen):
            yield {**training.iterate(), "training": training}
    finally:
        training.close()


def reached(metrics: dict[str, Any], frozen: list[bool], until: float) -> bool:
    """Whether every living run's mean over its last 100 episodes is at least `until`."""
    alive = ~np.array(frozen)
    enough = metrics["num_episodes"] >= EPISODES
    return bool(alive.any() and np.all((metrics["episode_return"] >= until)[alive] & enough[alive]))
