"""Rows of a Gymnasium environment as plain arrays, in same-step autoreset mode: here, or in a worker process.

This file travels to worker processes by value and uses nothing else of Ridgeline, so that a worker starts without
loading PyTorch and Numba.
"""

import sys
import traceback
from functools import partial
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv


class RowFailed(Exception):
    """An exception inside an environment: `row 3: Type: message (file:line)`; the cause is the exception itself."""


def one_line(error: BaseException) -> str:
    """The exception's message without its line breaks; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def describe(error: BaseException) -> str:
    """`Type: message (file:line)`, of the innermost line that is not of this file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {one_line(error)}{place}"


def as_float32(values: np.ndarray) -> np.ndarray:
    """`values` in float32, the same array where it is that already; what is too large becomes infinite."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


class Row(gymnasium.Wrapper):
    """One instance: float32 observations, float rewards, no infos, and failures that name the row."""

    def __init__(self, spec: EnvSpec, parameters: dict[str, Any], row: int):
        self._row = row
        try:
            super().__init__(gymnasium.make(spec, disable_env_checker=True, **parameters))
        except Exception as error:
            raise self._failed(error) from error
        space = self.env.observation_space
        self._shape = space.shape
        if isinstance(space, spaces.Box):
            self.observation_space = spaces.Box(-np.inf, np.inf, space.shape, np.float32)

    def reset(self, *, seed=None, options=None):
        try:
            observation, _ = self.env.reset(seed=seed, options=options)
            return self._checked(observation), {}
        except Exception as error:
            raise self._failed(error) from error

    def step(self, action):
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
            observation = self._checked(observation)
            if terminated or truncated:
                observation = observation.copy()  # the reset that follows may write into the same array
            if not isinstance(reward, float):
                reward = np.asarray(reward, np.float64).item()
            return observation, reward, terminated, truncated, {}
        except Exception as error:
            raise self._failed(error) from error

    def _checked(self, observation) -> np.ndarray:
        observation = np.asarray(observation)
        if observation.shape != self._shape:
            raise ValueError(f"an observation of shape {observation.shape}; observation_space has {self._shape}")
        return as_float32(observation)

    def _failed(self, error: Exception) -> RowFailed:
        return RowFailed(f"row {self._row}: {describe(error)}")


class Rows:
    """A Gymnasium vector environment that resets in the same step, as arrays; `own_seeds`: each row has a seed."""

    def __init__(self, env: VectorEnv, own_seeds: bool):
        self.env, self.own_seeds = env, own_seeds
        self._shape = (env.num_envs, *(env.single_observation_space.shape or ()))

    def reset(self, seeds: list[int]) -> np.ndarray:
        """The first observations (n, O)."""
        observation, _ = self.env.reset(seed=seeds if self.own_seeds else seeds[0])  # type: ignore[arg-type]
        return self._checked(observation)

    def restart(self, seeds: list[int | None]) -> np.ndarray:
        """Reset the rows that are given a seed, while the others go on; observations (n, O), to be read there only."""
        mask = np.array([seed is not None for seed in seeds])
        if not mask.any():
            return np.zeros(self._shape, np.float32)
        if not self.own_seeds:
            return self.reset([seed for seed in seeds if seed is not None])
        observation, _ = self.env.reset(seed=seeds, options={"reset_mask": mask})  # type: ignore[arg-type]
        return self._checked(observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Observation, reward, terminated, truncated, rows truncated and not terminated, their last observations."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        terminated, truncated = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
        row = np.flatnonzero(truncated & ~terminated)
        final = np.zeros((0, *self._shape[1:]), np.float32)
        if len(row):
            mask = info.get("_final_obs")
            if "final_obs" not in info or (mask is not None and not np.asarray(mask)[row].all()):
                raise RuntimeError('an episode was truncated and info["final_obs"] does not hold its last observation')
            final = np.stack([as_float32(np.asarray(info["final_obs"][i])) for i in row])
        return self._checked(observation), np.asarray(reward, np.float64), terminated, truncated, row, final

    def render(self, index: int):
        """The picture of one row, uint8 (H, W, 3); None where there is none."""
        frames = self.env.render()
        return None if frames is None else frames[index]

    def close(self) -> None:
        self.env.close()

    def _checked(self, observation) -> np.ndarray:
        observation = np.asarray(observation)
        if observation.shape != self._shape:
            raise ValueError(f"observations of shape {observation.shape}; {self._shape} were declared")
        return as_float32(observation)


def make_rows(spec: EnvSpec, parameters: dict[str, Any], start: int, stop: int) -> Rows:
    """Rows `start` to `stop` - 1, in Gymnasium's SyncVectorEnv."""
    instances = [partial(Row, spec, parameters, row) for row in range(start, stop)]
    return Rows(SyncVectorEnv(instances, copy=False, autoreset_mode=AutoresetMode.SAME_STEP), own_seeds=True)


def pickled_rows(spec: EnvSpec, parameters: dict[str, Any], start: int, stop: int) -> bytes:
    """The call `make_rows(...)` for a worker process; classes of a script or a notebook travel by value too."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(partial(make_rows, spec, parameters, start, stop))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
