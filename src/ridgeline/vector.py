"""Many instances of one environment, stepped together.

A `VectorEnv` has R x N x G rows: of `num_envs` instances for each of R seeds, `num_agents` agents; run-major, then by
instance, then by agent (row (r * N + n) * G + g). Stepping resets a row in the same step in which its episode ends
(same-step autoreset). The last observation of a truncated episode comes beside, for those rows only. Where an agent may
be dead, or it is another one's turn, `Step.valid` says which rows were true transitions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.compile_errors import compile_error, is_compile_error
from ridgeline.kernel import (
    NO_LIMIT,
    Definition,
    InvalidEnvironment,
    seed_rows,
    with_parameters,
)
from ridgeline.observations import is_packed, record_dtype, storage_shape_dtype

TRAINING, EVALUATION = 1, 2  # purposes of random streams: evaluation never sees training's episodes


class Step(NamedTuple):
    """What one step of all B rows gives; arrays are overwritten by the next step."""

    observation: np.ndarray  # (B, *O): after autoreset, where an episode ended
    reward: np.ndarray  # (B,) float64
    terminated: np.ndarray  # (B,) bool: over in the MDP
    truncated: np.ndarray  # (B,) bool: cut from outside; where both are true, terminated wins
    final_row: np.ndarray  # (F,) int64: rows truncated and not terminated, ascending
    final_observation: np.ndarray  # (F, *O): what followed, before the reset
    episode_row: np.ndarray  # (E,) int64: rows whose episode ended, ascending
    episode: np.ndarray  # (E, 2 + S) float64: return, length, the environment's own statistics
    valid: np.ndarray | None = None  # (B,) bool: this was a transition of the row; None: of every row


class VectorEnv:
    """The contract of every environment, compiled or adapted.

    name, seeds (one per run), num_envs (instances per run), num_agents (of each instance), rows_per_run (N x G),
    num_rows (R x N x G), observation_space and action_space (of one row), statistics (names of the columns after return
    and length), max_episode_steps (None: unlimited), observation (B, *O): the current one, packed where the space is a
    Dict (`observations`). `digest` identifies the source, for exact resume.
    """

    name: str
    digest: str
    seeds: tuple[int, ...]
    num_envs: int
    num_agents = 1
    observation_space: Any  # a Box, or a flat Dict of Box, Discrete, MultiDiscrete and MultiBinary
    action_space: spaces.Space
    max_episode_steps: int | None
    statistics: tuple[str, ...]
    observation: np.ndarray
    resumes_exactly = True
    frames_per_second: float = 30.0  # at which the pictures of successive steps look right

    @property
    def num_rows(self) -> int:
        return len(self.seeds) * self.rows_per_run

    @property
    def rows_per_run(self) -> int:
        return self.num_envs * self.num_agents

    def step(self, action: np.ndarray, out: np.ndarray | None = None) -> Step:
        """Advance every row by its action; the next observation is written into `out` where given."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything needed to go on exactly, episodes in flight included: arrays whose rows are dealt out by run."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def restart(self, run: int, seed: int) -> None:
        """Begin the rows of run `run` anew, as those of a run of `seed` begin; the others go on."""
        raise NotImplementedError

    def draw(self, row: int, canvas: Any) -> bool:
        """Draw the world of one row on a `canvas.Canvas`; False where the environment has no picture."""
        return False

    def close(self) -> None:
        """Release what the environment holds (processes, windows)."""


def as_seeds(seed: int | Sequence[int]) -> tuple[int, ...]:
    """One seed per run, checked: whole numbers from 0 to 2**63 - 1."""
    seeds = (seed,) if isinstance(seed, int | np.integer) else tuple(seed)
    for value in seeds:
        if not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
            raise ValueError(f"seed = {value!r}; use a whole number from 0 to 2**63 - 1")
    if not seeds:
        raise ValueError("seed is an empty list; give one seed per run")
    return tuple(int(value) for value in seeds)


class CompiledEnv(VectorEnv):
    """The instances of an environment file (`kernel.Definition`)."""

    def __init__(
        self,
        definition: Definition,
        num_envs: int,
        seed: int | Sequence[int] = 0,
        purpose: int = TRAINING,
        parameters: dict[str, float] | None = None,
    ):
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"num_envs = {num_envs!r}; use a whole number from 1")
        self._alone = lambda seed: CompiledEnv(definition, num_envs, seed, purpose, parameters)
        self.definition = definition = with_parameters(definition, parameters or {})
        self.name, self.digest = definition.name, definition.digest
        self.seeds, self.num_envs, self.num_agents = as_seeds(seed), num_envs, definition.num_agents
        self.observation_space, self.action_space = definition.observation_space, definition.action_space
        self.max_episode_steps, self.statistics = definition.max_episode_steps, tuple(definition.statistics)
        self.frames_per_second = getattr(definition.module, "frames_per_second", self.frames_per_second)
        self.parameters = definition.parameters

        rows, instances = self.num_rows, len(self.seeds) * num_envs
        shape, dtype = storage_shape_dtype(self.observation_space)
        self.state = np.zeros(instances, definition.state_dtype).view(np.recarray)
        for run, one_seed in enumerate(self.seeds):
            seed_rows(self.state[run * num_envs : (run + 1) * num_envs], one_seed, purpose)
        self.observation = np.zeros((rows, *shape), dtype)
        self._own_observation = self.observation
        self._record = record_dtype(self.observation_space) if is_packed(self.observation_space) else None
        self._final_observation = np.zeros((rows, *shape), dtype)
        self._reward = np.zeros(rows)
        self._terminated, self._truncated = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        self._valid = np.zeros(rows, np.bool_)
        self._final_row, self._episode_row = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        self._episode = np.zeros((rows, 2 + len(self.statistics)))
        self._limit = self.max_episode_steps or NO_LIMIT
        own_shape = self.action_space.shape or ()
        self._action_shape = (rows, *own_shape)
        self._world_action_shape = (instances, self.num_agents, *own_shape) if definition.form.several else None
        self._tells_valid = definition.form.alive
        self._outcome = (
            self._reward, self._terminated, self._truncated, *([self._valid] if definition.form.several else []),
            self._final_row, self._as_written(self._final_observation), self._episode_row, self._episode,
        )  # fmt: skip
        self.begin(self.state, self.observation)

    def begin(self, state: np.ndarray, observation: np.ndarray) -> np.ndarray:
        """Reset the instances of `state`, and write their first observations into their rows, which it returns."""
        view = self._as_written(observation)
        self._call(self.definition.reset_rows, state, self.parameters, view, 0, len(state))
        return observation

    def _as_written(self, observation: np.ndarray) -> np.ndarray:
        """What `observe` writes to: the rows themselves, or records of their parts."""
        if self._record is None:
            return observation
        return observation.view(self._record)[:, 0].view(np.recarray)

    def _call(self, function, *arguments):
        if hasattr(function, "py_func"):
            try:
                return function(*arguments)
            except Exception as error:
                if is_compile_error(error):
                    raise compile_error(error, self.definition.path) from None
                raise
        with np.errstate(over="ignore"):  # the generator's arithmetic wraps around
            return function(*arguments)

    def step(self, action: np.ndarray, out: np.ndarray | None = None) -> Step:
        observation = self._own_observation if out is None else out
        # Compiled code does not check its indices: a shape that is too small would read or write foreign memory.
        if action.shape != self._action_shape:
            raise ValueError(f"action has shape {action.shape}; give {self._action_shape}")
        if observation.shape != self._own_observation.shape or observation.dtype != self._own_observation.dtype:
            raise ValueError(
                f"out is {observation.dtype} {observation.shape}; give {self._own_observation.dtype} "
                f"{self._own_observation.shape}"
            )
        num_final, num_episodes = self.step_range(action, observation, 0, len(self.state))
        self.observation = observation
        return Step(
            observation, self._reward, self._terminated, self._truncated,
            self._final_row[:num_final], self._final_observation[:num_final],
            self._episode_row[:num_episodes], self._episode[:num_episodes],
            self._valid if self._tells_valid else None,
        )  # fmt: skip

    def step_range(self, action: np.ndarray, observation: np.ndarray, start: int, stop: int) -> tuple[int, int]:
        """Step instances `start` to `stop` alone; returns how many rows have a final observation, and an episode."""
        if self._record is not None:
            observation = self._as_written(observation)
        if self._world_action_shape is not None:
            action = action.reshape(self._world_action_shape)
        return self._call(
            self.definition.step_rows, self.state, action, self.parameters, self._limit, observation, *self._outcome,
            start, stop,
        )  # fmt: skip

    def state_dict(self) -> dict[str, np.ndarray]:
        # the observation too: `observe` may draw random numbers
        return {"state": np.frombuffer(self.state.tobytes(), np.uint8), "observation": self.observation.copy()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        if state["state"].nbytes != self.state.nbytes:
            raise InvalidEnvironment(
                f"{self.name}: the saved state has {state['state'].nbytes} bytes and this environment "
                f"{self.state.nbytes}; num_envs, the number of runs, or State has changed"
            )
        self.state[:] = np.frombuffer(state["state"].tobytes(), self.state.dtype)
        self.observation = self._own_observation
        self.observation[:] = state["observation"]

    def restart(self, run: int, seed: int) -> None:
        alone = self._alone(seed)
        for own, new in ((self.state, alone.state), (self.observation, alone.observation)):
            own[run * len(new) : (run + 1) * len(new)] = new
        self.seeds = (*self.seeds[:run], *alone.seeds, *self.seeds[run + 1 :])

    def draw(self, row: int, canvas: Any) -> bool:
        if not hasattr(self.definition.module, "draw"):
            return False
        self.definition.module.draw(self.state[row // self.num_agents], canvas)
        return True
