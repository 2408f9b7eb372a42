"""Many instances of one environment, stepped together.

A `VectorEnv` has R x N rows: `num_envs` instances for each of R seeds, run-major (row r * N + n: instance n of run r).
Stepping resets a row in the same step in which its episode ends (same-step autoreset), so every row of every step is a
true transition. The last observation of a truncated episode comes beside, for those rows only.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import NO_LIMIT, Definition, InvalidEnvironment, compile_error, is_compile_error, seed_rows

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


class VectorEnv:
    """The contract of every environment, compiled or adapted.

    name, seeds (one per run), num_envs (instances per run), num_rows (R x N), observation_space and action_space (of
    one instance), statistics (names of the columns after return and length), max_episode_steps (None: unlimited),
    observation (B, *O): the current one. `digest` identifies the source, for exact resume.
    """

    name: str
    digest: str
    seeds: tuple[int, ...]
    num_envs: int
    observation_space: spaces.Box
    action_space: spaces.Space
    max_episode_steps: int | None
    statistics: tuple[str, ...]
    observation: np.ndarray
    resumes_exactly = True
    frames_per_second: float = 30.0  # at which the pictures of successive steps look right

    @property
    def num_rows(self) -> int:
        return len(self.seeds) * self.num_envs

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
        """Draw one row on a `canvas.Canvas`; False where the environment has no picture."""
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
        self.definition = definition
        self.name, self.digest = definition.name, definition.digest
        self.seeds, self.num_envs = as_seeds(seed), num_envs
        self.observation_space, self.action_space = definition.observation_space, definition.action_space
        self.max_episode_steps, self.statistics = definition.max_episode_steps, definition.statistics
        self.frames_per_second = getattr(definition.module, "frames_per_second", self.frames_per_second)
        self.parameters = _replace_parameters(definition, parameters or {})

        rows = self.num_rows
        shape = (rows, *self.observation_space.shape)
        self.state = np.zeros(rows, definition.state_dtype).view(np.recarray)
        for run, one_seed in enumerate(self.seeds):
            seed_rows(self.state[run * num_envs : (run + 1) * num_envs], one_seed, purpose)
        self.observation = np.zeros(shape, self.observation_space.dtype)
        self._own_observation = self.observation
        self._reward = np.zeros(rows)
        self._terminated = np.zeros(rows, np.bool_)
        self._truncated = np.zeros(rows, np.bool_)
        self._final_row = np.zeros(rows, np.int64)
        self._final_observation = np.zeros(shape, self.observation_space.dtype)
        self._episode_row = np.zeros(rows, np.int64)
        self._episode = np.zeros((rows, 2 + len(self.statistics)))
        self._limit = self.max_episode_steps or NO_LIMIT
        self._action_shape = (rows, *(self.action_space.shape or ()))
        self._call(definition.reset_rows, self.state, self.parameters, self.observation, 0, rows)

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
        num_final, num_episodes = self._call(
            self.definition.step_rows, self.state, action, self.parameters, self._limit, observation, self._reward,
            self._terminated, self._truncated, self._final_row, self._final_observation, self._episode_row,
            self._episode, 0, self.num_rows,
        )  # fmt: skip
        self.observation = observation
        return Step(
            observation, self._reward, self._terminated, self._truncated,
            self._final_row[:num_final], self._final_observation[:num_final],
            self._episode_row[:num_episodes], self._episode[:num_episodes],
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
        self.definition.module.draw(self.state[row], canvas)
        return True


def _replace_parameters(definition: Definition, changes: dict[str, float]):
    """The environment's parameters with `changes`, each in the type of its default."""
    defaults = definition.parameters._asdict()
    converted = {}
    for name, value in changes.items():
        if name not in defaults:
            raise InvalidEnvironment(
                f"{definition.name} has no parameter {name!r}; it has: {', '.join(defaults) or 'none'}"
            )
        kind = type(defaults[name])
        if not isinstance(value, int | float | np.number) or not math.isfinite(value) or kind(value) != value:
            rule = {int: "a whole number", bool: "True or False"}.get(kind, "a finite number")
            raise InvalidEnvironment(f"{definition.name}: {name} = {value!r}; use {rule}")
        converted[name] = kind(value)
    return definition.parameters._replace(**converted)
