"""Gymnasium environments: `GymnasiumEnv`, the VectorEnv of anything that has a Gymnasium specification.

Rows are stepped by Gymnasium's own SyncVectorEnv in same-step autoreset mode: in this process, or in one worker process
per core, each with a SyncVectorEnv of its share of the rows, where that is faster. The data are the same, bit for bit.
An environment that is registered with a `vector_entry_point` only is used as it is, one for each run, in whichever
autoreset mode its metadata names: in NEXT_STEP the steps that only reset are rows without a transition (`Step.valid`),
in DISABLED the adapter resets what has ended.

Spaces are shown as `translation` says: float32 vectors, uint8 images, records of several parts; actions flat, from 0.

Differs: Gymnasium's AsyncVectorEnv has one process per row, and a population has R x N rows. With 32 rows of
HumanoidStandup-v5 on two cores it is 1.1 to 1.2 times as fast as SyncVectorEnv, one process per core 1.7 times
(benchmarks/gymnasium_processes.py).
"""

import hashlib
import inspect
import itertools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode

from ridgeline.gymnasium_rows import MODES, Row, RowFailed, Rows, describe, make_rows, one_line, pickled_rows
from ridgeline.kernel import InvalidEnvironment
from ridgeline.translation import Observations, UnsupportedSpace, actions
from ridgeline.vector import TRAINING, Step, VectorEnv, as_seeds
from ridgeline.workers import WorkerError, Workers

_PACKAGES = {  # what to install for a module, where it is not of the same name
    "ale_py": "ale-py",
    "dm_control": "dm_control 'mujoco<4'",
    "dm_env": "dm-env",
    "procgen": "imageio cffi && pip install --no-deps procgen2 gym3 'gym<0.27' gym-notices",
}
WORTH = 0.6e-3  # seconds of work in a step of all rows that pay for one process (measured on two cores)


class GymnasiumEnv(VectorEnv):
    """`num_envs` instances of a Gymnasium environment for each seed, a `VectorEnv`.

    Row n of a run is seeded from (run seed, purpose, n), whatever the number of runs, rows or processes. Episodes in
    flight cannot be saved: `load_state_dict` starts new ones, with seeds of their own.

    Args:
        environment: a Gymnasium id, or a specification.
        num_envs, seed, purpose: as in `vector.CompiledEnv`.
        parameters: keyword arguments of `gymnasium.make`.
        processes: worker processes; None: one per core where a short timing says that this is faster, else none (1).
        render: make the instances with render_mode="rgb_array", in this process, so that `draw` has a picture.
        name: what messages call it; the specification's id by default.

    Raises: InvalidEnvironment, in one line, with the row where one has failed; from `step` too, which then closes.
    """

    resumes_exactly = False

    def __init__(
        self,
        environment: str | EnvSpec,
        num_envs: int,
        seed: int | Sequence[int] = 0,
        purpose: int = TRAINING,
        parameters: dict[str, Any] | None = None,
        processes: int | None = None,
        render: bool = False,
        name: str | None = None,
    ):
        for key, value in (("num_envs", num_envs), ("processes", 1 if processes is None else processes)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{key} = {value!r}; use a whole number from 1")
        spec = gymnasium.registry.get(environment) if isinstance(environment, str) else environment
        if spec is None:
            raise InvalidEnvironment(f"unknown Gymnasium id {environment!r}")
        self.name = name or spec.id
        self.seeds, self.num_envs, self.purpose, self.statistics = as_seeds(seed), num_envs, purpose, ()
        self._generation = 0  # how often this training was resumed
        self._render = render
        self._parts: list[Rows] = []  # the rows in this process, or else
        self._workers: Workers | None = None
        self._may_wait = False  # whether there are rows without a transition
        self._slices: list[tuple[int, int]] = []  # first row, and last + 1, of each part or worker
        if spec.entry_point is None:
            self._make_custom(spec, dict(parameters or {}))
        else:
            self._make_instances(spec, dict(parameters or {}), processes)
        rows = self.num_rows
        shape, dtype = self._stored
        self._own_observation = np.zeros((rows, *shape), dtype)
        self._reward = np.zeros(rows)
        self._terminated, self._truncated = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        self._return, self._length = np.zeros(rows), np.zeros(rows)
        self._valid = np.ones(rows, np.bool_)
        self._reset()

    def _make_instances(self, spec: EnvSpec, parameters: dict[str, Any], processes: int | None) -> None:
        probe = self._try(Row, spec, parameters, 0)
        try:
            self._declare(probe.translate, probe.env.action_space, probe.unwrapped)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parameters that cannot be copied
                limited = probe.spec
            self.max_episode_steps = (limited or spec).max_episode_steps
            self.frames_per_second = float(probe.metadata.get("render_fps") or self.frames_per_second)
            self._render = self._render and "rgb_array" in (probe.metadata.get("render_modes") or ())
            if self._render:
                parameters["render_mode"] = "rgb_array"
                count = 1
            else:
                count = processes or self._try(_faster_processes, probe, self.num_rows)
        finally:
            _close(probe)
        if count > 1:
            shares = np.linspace(0, self.num_rows, min(count, self.num_rows) + 1).astype(int).tolist()
            self._slices = list(itertools.pairwise(shares))
            try:
                self._workers = Workers([pickled_rows(spec, parameters, *share) for share in self._slices])
                return
            except Exception as error:  # it cannot be pickled, or not be made there
                if processes is not None:
                    raise InvalidEnvironment(
                        f"{self.name} cannot be made in a worker process: {one_line(error)}; use processes = 1"
                    ) from error
        self._slices = [(0, self.num_rows)]
        self._parts = [self._try(make_rows, spec, parameters, 0, self.num_rows)]

    def _make_custom(self, spec: EnvSpec, parameters: dict[str, Any]) -> None:
        """One vector environment of the author's for each run, so that a run does not depend on the others."""
        own = dict(spec.kwargs)
        renders = own.pop("renders", False)  # whether it takes render_mode
        parameters = {**own, **parameters, "num_envs": self.num_envs}
        if spec.max_episode_steps is not None:
            parameters.setdefault("max_episode_steps", spec.max_episode_steps)
        self.max_episode_steps = parameters.get("max_episode_steps")
        self._render = self._render and renders
        if self._render:
            parameters["render_mode"] = "rgb_array"
        author: Any = spec.vector_entry_point
        creator = self._try(load_env_creator, author) if isinstance(author, str) else author
        for run in range(len(self.seeds)):
            env = self._try(creator, **parameters)
            mode = env.metadata.get("autoreset_mode")
            if mode not in MODES:
                raise InvalidEnvironment(
                    f"{self.name} runs in autoreset mode {mode}; its metadata['autoreset_mode'] must be one of "
                    "gymnasium.vector.AutoresetMode"
                )
            translate = self._try(Observations, env.single_observation_space)
            self._parts.append(Rows(env, MODES[mode], translate))
            self.num_agents = env.metadata.get("num_agents", 1)
            self._may_wait = self.num_agents > 1 or MODES[mode] == AutoresetMode.NEXT_STEP
            self._slices.append((run * self.rows_per_run, (run + 1) * self.rows_per_run))
            self.frames_per_second = float(env.metadata.get("render_fps") or self.frames_per_second)
            self._declare(translate, env.single_action_space, env)

    def _declare(self, translate: Observations, action_space, author: Any) -> None:
        self.observation_space, self._stored = translate.space, (translate.shape, translate.dtype)
        self.action_space, self._send = self._try(actions, action_space)
        author = getattr(author, "author", author)  # of an adapter, what it adapts
        source = f"gymnasium {self.name} {type(author).__module__}.{type(author).__qualname__}".encode()
        try:
            source += Path(inspect.getfile(type(author))).read_bytes()
        except (OSError, TypeError):
            pass  # a class that was typed into a notebook
        self.digest = hashlib.sha256(source).hexdigest()[:20]

    def _reset(self) -> None:
        seeds = [seed for run_seed in self.seeds for seed in self._row_seeds(run_seed)]
        results = self._call("reset", [(seeds[start:stop],) for start, stop in self._slices])
        self.observation = self._own_observation
        for (start, stop), observation in zip(self._slices, results, strict=True):
            self.observation[start:stop] = observation
        self._return[:] = 0
        self._length[:] = 0

    def _row_seeds(self, run_seed: int) -> list[int]:
        """One seed per row, below 2**31: environments written in C take these too."""
        sequence = np.random.SeedSequence(run_seed, spawn_key=(self.purpose, self._generation))
        return (sequence.generate_state(self.rows_per_run, np.uint32) >> 1).tolist()

    def step(self, action: np.ndarray, out: np.ndarray | None = None) -> Step:
        observation = self._own_observation if out is None else out
        sent = self._send(np.asarray(action))
        results = self._call("step", [(sent[start:stop],) for start, stop in self._slices])
        final_row, final_observation = [], []
        for (start, stop), result in zip(self._slices, results, strict=True):
            observation[start:stop], self._reward[start:stop] = result[0], result[1]
            self._terminated[start:stop], self._truncated[start:stop] = result[2], result[3]
            self._valid[start:stop] = result[6]
            final_row.append(result[4] + start)
            final_observation.append(result[5])
        self.observation = observation
        self._return += self._reward
        self._length += self._valid
        ended = np.flatnonzero(self._terminated | self._truncated)
        episode = np.stack([self._return[ended], self._length[ended]], axis=1)
        self._return[ended] = 0
        self._length[ended] = 0
        return Step(
            observation, self._reward, self._terminated, self._truncated,
            np.concatenate(final_row), np.concatenate(final_observation), ended, episode,
            self._valid if self._may_wait else None,
        )  # fmt: skip

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"generation": np.full(len(self.seeds), self._generation, np.int64)}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        self._generation = int(state["generation"][0]) + 1
        self._reset()

    def restart(self, run: int, seed: int) -> None:
        first, stop = run * self.rows_per_run, (run + 1) * self.rows_per_run
        seeds: list[int | None] = [None] * self.num_rows
        seeds[first:stop] = self._row_seeds(seed)
        results = self._call("restart", [(seeds[start:end],) for start, end in self._slices])
        observation = np.concatenate(results)
        self.observation[first:stop] = observation[first:stop]
        self._return[first:stop] = self._length[first:stop] = 0
        self.seeds = (*self.seeds[:run], *as_seeds(seed), *self.seeds[run + 1 :])

    def draw(self, row: int, canvas: Any) -> bool:
        frame = _seen(self.observation[row])
        if self._render:
            part, (start, _) = next(pair for pair in zip(self._parts, self._slices, strict=True) if row < pair[1][1])
            frame = self._try(part.render, row - start)
        if frame is None:
            return False
        canvas.image(np.asarray(frame))
        return True

    def close(self) -> None:
        for part in [self._workers, *self._parts]:
            if part is not None:
                _close(part)
        self._workers, self._parts, self._slices = None, [], []

    def _call(self, method: str, arguments: list[tuple]) -> list[Any]:
        """`Rows.method` of every part, here or in the workers."""
        if not self._slices:
            raise InvalidEnvironment(f"{self.name} is closed; make it again")
        if self._workers is None:
            return [self._try(getattr(part, method), *one) for part, one in zip(self._parts, arguments, strict=True)]
        try:
            return self._workers.call(method, arguments)
        except WorkerError as error:
            start, stop = self._slices[error.worker]
            where = "" if error.kind == "RowFailed" else f"rows {start} to {stop - 1}: "
            failure = InvalidEnvironment(f"{self.name}, {where}{one_line(error)}")
            failure.add_note(error.trace)
        self.close()
        raise failure

    def _try(self, function: Callable, /, *arguments, **keywords):
        """The function's result; what an environment raises becomes one line, and everything is closed."""
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            self.close()
            cause = error.__cause__ if isinstance(error, RowFailed) and error.__cause__ else error
            if isinstance(cause, ImportError | DependencyNotInstalled):
                raise InvalidEnvironment(f"{self.name}: {install_hint(cause)}") from cause
            if isinstance(cause, UnsupportedSpace | InvalidEnvironment):
                raise InvalidEnvironment(f"{self.name}: {cause}") from cause
            place = f", {error}" if cause is not error else f": {describe(error)}"
            raise InvalidEnvironment(self.name + place) from cause


def _seen(observation: np.ndarray) -> np.ndarray | None:
    """An image observation as a picture: its newest frame where the channels are frames; None of anything else."""
    if observation.dtype != np.uint8 or observation.ndim != 3:
        return None
    if observation.shape[0] < observation.shape[2]:  # channels first
        observation = observation.transpose(1, 2, 0)
    return observation if observation.shape[2] == 3 else np.repeat(observation[:, :, -1:], 3, axis=2)


def install_hint(error: BaseException) -> str:
    """What to type for a missing package: Gymnasium's own advice, Ridgeline's extra, or the module's name."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"the module {error.name!r} is missing: pip install {_PACKAGES.get(package, package)}"
    text = one_line(error)
    if "gymnasium[mujoco]" in text:
        return "MuJoCo is missing: pip install 'ridgeline[mujoco]'"
    commands = re.findall(r"`(pip install [^`]+)`", text)
    return f"{text.partition(' is not installed')[0]} is missing: {' && '.join(commands)}" if commands else text


def _close(part: Any) -> None:
    try:
        part.close()
    except Exception:
        pass  # the data are in; a window that does not close is no reason to lose them


def _faster_processes(probe: gymnasium.Env, rows: int) -> int:
    """The number of processes that steps `rows` rows fastest: one per core, fewer where `probe` steps quickly.

    A process saves its share of the work and costs about 0.2 ms in every step of all rows.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if min(cores, rows) == 1 or not sys.executable:
        return 1
    probe.reset(seed=0)
    probe.action_space.seed(0)
    times: list[float] = []
    while len(times) < 30 and sum(times) < 0.2:
        action = probe.action_space.sample()
        before = time.perf_counter()
        _, _, terminated, truncated, _ = probe.step(action)
        times.append(time.perf_counter() - before)
        if terminated or truncated:
            probe.reset()
    work = rows * float(np.quantile(times, 0.25))  # the quarter: other processes delay the others
    return max(1, min(cores, rows, int(work / WORTH)))
