"""Environments that speak dm_env (dm_control, bsuite, one's own): "dm_env:module:Class", "dm_control:cartpole-swingup".

The class or function is called with the parameters, and with the row's seed as its `seed`, `random_state` or `random`,
whichever it takes first. Where it takes none, its own randomness decides, and a repeated training is not the same.

An end with discount 0 is terminated, any other end truncated. A discount between is ignored: credit is the estimator's.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from ridgeline.registration import did_you_mean
from ridgeline.sources import InvalidEnvironment

_SEEDS = ("seed", "random_state", "random")  # arguments that take a seed


def specification(module: str, attribute: str, name: str) -> EnvSpec:
    """Of what a module has: a class, or a function that makes the environment."""
    return EnvSpec(name, entry_point=partial(DmEnv, module, attribute))


def control_specification(place: str, name: str) -> EnvSpec:
    """Of a task of dm_control's suite, "domain-task"; raises InvalidEnvironment where there is no such task."""
    from dm_control import suite  # type: ignore[import-not-found]

    tasks = {f"{domain}-{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    if place not in tasks:
        raise InvalidEnvironment(f"{name}: no such task{did_you_mean(place, list(tasks)) or '; see suite.ALL_TASKS'}")
    return EnvSpec(name, entry_point=partial(DmEnv, __name__, "load_control", tasks[place]))


def load_control(task: tuple[str, str], seed: int = 0, **keywords: Any):
    """A task of dm_control's suite."""
    from dm_control import suite  # type: ignore[import-not-found]

    return suite.load(*task, task_kwargs={**keywords, "random": seed})


class DmEnv(gymnasium.Env):
    """A dm_env environment as a Gymnasium one."""

    def __init__(self, module: str, attribute: str, *arguments: Any, **parameters: Any):
        self._make: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        self._arguments, self._parameters = arguments, parameters
        known = inspect.signature(self._make).parameters
        self._seed = next((key for key in _SEEDS if key in known and key not in parameters), None)
        self.author = self._env = self._make(*arguments, **parameters)
        self.observation_space = _space(self._env.observation_spec(), "observation")
        self.action_space = _space(self._env.action_spec(), "action")

    def reset(self, *, seed: int | None = None, options=None):
        super().reset(seed=seed)
        if seed is not None and self._seed:
            self._env = self._make(*self._arguments, **{**self._parameters, self._seed: seed})
        return self._observation(self._env.reset()), {}

    def step(self, action):
        step = self._env.step(action)
        ended, discount = bool(step.last()), 1.0 if step.discount is None else float(step.discount)
        return self._observation(step), float(step.reward), ended and discount == 0.0, ended and discount != 0.0, {}

    def _observation(self, step) -> Any:
        observation = step.observation
        if isinstance(observation, Mapping):
            return {key: _array(value, self.observation_space[key]) for key, value in observation.items()}  # type: ignore[index]
        return _array(observation, self.observation_space)

    def close(self):
        self._env.close()


def _array(value: Any, space: spaces.Space) -> Any:
    """A number as dm_env gives it becomes a vector of one."""
    return np.asarray(value, space.dtype).reshape(space.shape or ())


def _space(spec: Any, what: str) -> spaces.Space:
    """The space of a specification: an array, bounded or not, a discrete one, or a dict of them."""
    if isinstance(spec, Mapping):
        return spaces.Dict([(key, _space(part, f"{what} {key!r}")) for key, part in spec.items()])
    if hasattr(spec, "num_values"):
        return spaces.Discrete(int(spec.num_values))
    if not hasattr(spec, "shape"):
        raise InvalidEnvironment(f"the {what} is {type(spec).__name__}; supported are arrays and a flat dict of them")
    kind = np.dtype(spec.dtype)
    if kind == np.bool_:
        kind = np.dtype(np.uint8)
    low, high = (-np.inf, np.inf) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    shape = spec.shape or (1,)
    low = np.broadcast_to(getattr(spec, "minimum", low), shape)
    high = np.broadcast_to(getattr(spec, "maximum", high), shape)
    return spaces.Box(low.astype(kind), high.astype(kind), shape, kind.type)
