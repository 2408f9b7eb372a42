"""Rows of a Gymnasium environment as plain arrays, in same-step autoreset mode: here, or in a worker process.

This file travels to worker processes by value, with `translation` and `observations`, and uses nothing else of
Ridgeline, so that a worker starts without loading PyTorch and Numba.
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

from ridgeline import observations, translation
from ridgeline.translation import Observations

MODES = {name: mode for mode in AutoresetMode for name in (mode, mode.value)}  # as metadata give them


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


class Row(gymnasium.Wrapper):
    """One instance: observations as policies see them, float rewards, no infos, and failures that name the row."""

    def __init__(self, spec: EnvSpec, parameters: dict[str, Any], row: int):
        self._row = row
        try:
            super().__init__(gymnasium.make(spec, disable_env_checker=True, **parameters))
            self.translate = Observations(self.env.observation_space)
        except Exception as error:
            raise self._failed(error) from error
        low, high = (0, 255) if self.translate.dtype == np.uint8 else (-np.inf, np.inf)
        self.observation_space = spaces.Box(low, high, self.translate.shape, self.translate.dtype.type)

    def reset(self, *, seed=None, options=None):
        try:
            observation, _ = self.env.reset(seed=seed, options=options)
            return self.translate(observation), {}
        except Exception as error:
            raise self._failed(error) from error

    def step(self, action):
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
            observation = self.translate(observation)
            if terminated or truncated:
                observation = observation.copy()  # the reset that follows may write into the same array
            if not isinstance(reward, float):
                reward = np.asarray(reward, np.float64).item()
            return observation, reward, terminated, truncated, {}
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> RowFailed:
        return RowFailed(f"row {self._row}: {describe(error)}")


class Rows:
    """A Gymnasium vector environment as arrays that reset in the same step, whichever its own autoreset mode is.

    `translate`: of the author's observations, where they are not translated already; then one seed is for all rows.
    """

    def __init__(self, env: VectorEnv, mode: AutoresetMode, translate: Observations | None = None):
        self.env, self.mode, self._translate = env, mode, translate
        self._waiting = np.zeros(env.num_envs, np.bool_)  # rows whose next step only resets

    def reset(self, seeds: list[int]) -> np.ndarray:
        """The first observations (n, *O)."""
        self._waiting[:] = False
        return self._observed(self.env.reset(seed=seeds[0] if self._translate else seeds)[0])  # type: ignore[arg-type]

    def restart(self, seeds: list[int | None]) -> np.ndarray:
        """Reset the rows that are given a seed, while the others go on; observations (n, O), to be read there only."""
        mask = np.array([seed is not None for seed in seeds])
        if not mask.any():
            return self._last
        if self._translate is not None:
            return self.reset([seed for seed in seeds if seed is not None])
        return self._observed(self.env.reset(seed=seeds, options={"reset_mask": mask})[0])  # type: ignore[arg-type]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Observation, reward, terminated, truncated, rows truncated and not terminated, their last observations, and
        which rows made a transition."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, reward = self._observed(observation), np.asarray(reward, np.float64)
        valid = ~self._waiting & info.get("valid", True)
        terminated, truncated = np.asarray(terminated, np.bool_) & valid, np.asarray(truncated, np.bool_) & valid
        ended, row = terminated | truncated, np.flatnonzero(truncated & ~terminated)
        if self.mode == AutoresetMode.SAME_STEP:
            final = self._final(info, row, observation)
        else:
            final = observation[row]
            if self.mode == AutoresetMode.NEXT_STEP:
                reward, self._waiting = np.where(valid, reward, 0.0), ended
            elif ended.any():
                first = self._observed(self.env.reset(options={"reset_mask": ended.copy()})[0])
                observation = np.where(ended.reshape(-1, *[1] * (first.ndim - 1)), first, observation)
        return observation, reward, terminated, truncated, row, final, valid

    def _final(self, info: dict[str, Any], row: np.ndarray, observation: np.ndarray) -> np.ndarray:
        if not len(row):
            return observation[row]
        mask = info.get("_final_obs")
        if "final_obs" not in info or (mask is not None and not np.asarray(mask)[row].all()):
            raise RuntimeError('an episode was truncated and info["final_obs"] does not hold its last observation')
        translate = self._translate or np.asarray
        return np.stack([translate(info["final_obs"][i]) for i in row])

    def _observed(self, observation) -> np.ndarray:
        self._last = observation if self._translate is None else self._translate(observation, (self.env.num_envs,))
        return self._last

    def render(self, index: int):
        """The picture of one row, uint8 (H, W, 3); None where there is none."""
        frames = self.env.render()
        return None if frames is None else frames[index]

    def close(self) -> None:
        self.env.close()


def make_rows(spec: EnvSpec, parameters: dict[str, Any], start: int, stop: int) -> Rows:
    """Rows `start` to `stop` - 1, in Gymnasium's SyncVectorEnv."""
    instances = [partial(Row, spec, parameters, row) for row in range(start, stop)]
    mode = AutoresetMode.SAME_STEP
    return Rows(SyncVectorEnv(instances, copy=False, autoreset_mode=mode), mode)


def pickled_rows(spec: EnvSpec, parameters: dict[str, Any], start: int, stop: int) -> bytes:
    """The call `make_rows(...)` for a worker process; classes of a script or a notebook travel by value too."""
    modules = (sys.modules[__name__], translation, observations)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(partial(make_rows, spec, parameters, start, stop))
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
