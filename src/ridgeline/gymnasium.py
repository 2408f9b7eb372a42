"""The other way: compiled environments for whoever speaks Gymnasium, one by one or many at once.

    import gymnasium
    import ridgeline
    env = gymnasium.make("ridgeline/Breakout-v0")
    envs = gymnasium.make_vec("ridgeline/Breakout-v0", num_envs=64)

`SingleEnv` and `InstancesEnv` take files of yours too. Both step the compiled loops without autoreset, so that an
episode's last observation is seen, and reset by Gymnasium's rules. Instance i of seed s is row i of the `VectorEnv`
that `ridgeline.make(..., seed=s)` gives: the same episodes.

Actions are checked, since compiled code does not check its indices: a Discrete or MultiDiscrete one outside the space
and a NaN are refused, others are clipped to the space's bounds.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ridgeline.canvas import Canvas
from ridgeline.environments import resolve
from ridgeline.film import terminal_frame
from ridgeline.kernel import InvalidEnvironment, define, seed_rows, without_autoreset
from ridgeline.observations import is_packed, unpack
from ridgeline.vector import TRAINING, CompiledEnv, Step

RENDER_MODES = ["rgb_array", "ansi"]
_TEXT_SIZE = (80, 24)  # characters of an "ansi" picture


class Instances:
    """Instances of a compiled environment that are reset one by one."""

    def __init__(self, environment, num_envs: int, max_episode_steps: int | None, render_mode, parameters):
        path = resolve(environment)
        if not isinstance(path, Path):
            raise InvalidEnvironment(f"{environment} is no compiled environment; make it with gymnasium.make")
        if render_mode not in (None, *RENDER_MODES):
            raise InvalidEnvironment(f"render_mode = {render_mode!r}; use None, {' or '.join(RENDER_MODES)}")
        self.definition = define(path, parameters=parameters)
        if max_episode_steps is not None:
            self.definition = self.definition._replace(max_episode_steps=max_episode_steps)
        self.env = CompiledEnv(without_autoreset(self.definition), num_envs, 0, TRAINING)
        self.ended = np.ones(num_envs, np.bool_)  # each must be reset before it is stepped
        self.began, self.render_mode = False, render_mode

    def first_seed(self, seed: int | None) -> int | None:
        """`seed`, or one drawn by chance where nothing has ever been reset; else None: random streams go on."""
        return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None and not self.began else seed

    def seed(self, row: int, count: int, seed: int) -> None:
        """Give `count` instances from `row` on the random streams that those of `seed` have in `ridgeline.make`."""
        seed_rows(self.env.state[row : row + count], seed, TRAINING)

    def reset(self, rows: np.ndarray) -> np.ndarray:
        """Begin an episode in `rows` (of several agents: in these worlds); its first observations (n, *O)."""
        state, shape = self.env.state[rows], self.env.observation.shape[1:]
        worlds = self.env.observation.reshape(-1, self.env.num_agents, *shape)
        observation = self.env.begin(state, worlds[rows].reshape(-1, *shape))
        self.env.state[rows] = state
        self.ended[rows], self.began = False, True
        return observation

    def step(self, action) -> Step:
        """Advance all instances; the observation is a new array."""
        step = self.env.step(self._checked(action), np.empty_like(self.env.observation))
        self.ended = step.terminated | step.truncated
        return step

    def _checked(self, action) -> np.ndarray:
        space, shape = self.env.action_space, (self.env.num_rows, *(self.env.action_space.shape or ()))
        action = np.asarray(action)
        if action.shape != shape:
            raise ValueError(f"{self.env.name}: actions of shape {action.shape}; give {shape}")
        if isinstance(space, spaces.Box):
            if not np.isfinite(action).all():
                raise ValueError(f"{self.env.name}: an action is not finite")
            return np.clip(action, space.low, space.high).astype(space.dtype)
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec  # type: ignore[attr-defined]
        if action.dtype.kind not in "iu" or ((action < 0) | (action >= count)).any():
            raise ValueError(f"{self.env.name}: an action is not in {space}")
        return action.astype(np.int64)

    def shown(self, observation: np.ndarray, one: bool = True) -> Any:
        """Stored observations as Gymnasium's: of a Dict its parts by name, numbers of `one` row as NumPy scalars."""
        if not is_packed(self.env.observation_space):
            return observation
        parts = unpack(self.env.observation_space, observation)
        return {key: part[()] if one else part for key, part in parts.items()}

    def picture(self, row: int) -> Any:
        """The frame of one instance: an array (H, W, 3), or text with colours; None without a render_mode."""
        if self.render_mode is None:
            gymnasium.logger.warn(f"{self.env.name}: render() needs render_mode='rgb_array' or 'ansi' when it is made")
            return None
        canvas = Canvas(*getattr(self.definition.module, "canvas_size", (480, 360)))
        if not self.env.draw(row, canvas):
            raise InvalidEnvironment(f"{self.env.name} has no picture: add draw(state, canvas) to its file")
        return canvas.pixels() if self.render_mode == "rgb_array" else terminal_frame(canvas.pixels(), *_TEXT_SIZE)


def single_agent(*arguments) -> Instances:
    """Instances of one agent each; InvalidEnvironment where they have more."""
    instances = Instances(*arguments)
    if instances.env.num_agents > 1:
        name = instances.env.name
        raise InvalidEnvironment(
            f"{name} has {instances.env.num_agents} agents; Gymnasium's are of one: use "
            f"ridgeline.pettingzoo.parallel_env({name!r})"
        )
    return instances


class SingleEnv(gymnasium.Env):
    """One instance of a compiled environment.

    Args:
        environment: a built-in name, a file or a module.
        render_mode: None, "rgb_array" or "ansi" (text with colours).
        max_episode_steps: instead of the environment's own limit.
        parameters: changes of the environment's Parameters, by name.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 30}  # noqa: RUF012

    def __init__(
        self,
        environment: str | Path | ModuleType,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **parameters: float,
    ):
        self._instances = single_agent(environment, 1, max_episode_steps, render_mode, parameters)
        env = self._instances.env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": env.frames_per_second}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        seed = self._instances.first_seed(seed)
        super().reset(seed=seed)
        if seed is not None:
            self._instances.seed(0, 1, seed)
        return self._instances.shown(self._instances.reset(np.arange(1))[0]), {}

    def step(self, action):
        if self._instances.ended[0]:
            raise ResetNeeded(f"{self._instances.env.name}: the episode has ended; call reset()")
        step = self._instances.step(np.asarray(action)[np.newaxis])
        observation = self._instances.shown(step.observation[0])
        return observation, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), {}

    def render(self):
        return self._instances.picture(0)


class InstancesEnv(gymnasium.vector.VectorEnv):
    """Many instances of a compiled environment.

    `reset(seed=[...])` gives each instance a seed of its own; `options={"reset_mask": ...}` resets some of them.

    Args:
        environment, render_mode, max_episode_steps, parameters: as in `SingleEnv`.
        num_envs: instances.
        autoreset_mode: NEXT_STEP, as most of Gymnasium's; SAME_STEP, where every step is a transition; or DISABLED.
    """

    metadata = {"render_modes": RENDER_MODES, "render_fps": 30, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        environment: str | Path | ModuleType,
        num_envs: int = 1,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **parameters: float,
    ):
        self._instances = single_agent(environment, num_envs, max_episode_steps, render_mode, parameters)
        env = self._instances.env
        self.num_envs, self.render_mode = num_envs, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self.metadata = {
            **self.metadata, "render_fps": env.frames_per_second, "autoreset_mode": self.autoreset_mode,
        }  # fmt: skip

    def reset(self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None):  # type: ignore[override]
        instances = self._instances
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"options['reset_mask'] = {mask!r}; give a bool array of shape ({self.num_envs},)")
        if isinstance(seed, list | tuple):
            if len(seed) != self.num_envs:
                raise ValueError(f"{len(seed)} seeds for {self.num_envs} instances; give one for each, or one for all")
            for row in np.flatnonzero(mask):
                if (own := seed[row]) is not None:
                    instances.seed(int(row), 1, own)
        else:
            seed = self._instances.first_seed(seed)
            super().reset(seed=seed)
            if seed is not None:
                kept = instances.env.state[~mask]
                instances.seed(0, self.num_envs, seed)
                instances.env.state[~mask] = kept
        observation = instances.env.observation.copy()  # the one before is the caller's
        observation[mask] = instances.reset(np.flatnonzero(mask))
        instances.env.observation = observation
        return instances.shown(observation, one=False), {}

    def step(self, actions):
        instances = self._instances
        waiting = np.flatnonzero(instances.ended)
        if len(waiting) and (self.autoreset_mode != AutoresetMode.NEXT_STEP or not instances.began):
            raise ResetNeeded(f"{instances.env.name}: instance {waiting[0]} must be reset first")
        # An instance that is only reset in this step is stepped with the others and put back: its index stays lawful.
        observation, state = instances.reset(waiting), instances.env.state[waiting]
        step = instances.step(actions)
        reward, terminated, truncated = step.reward.copy(), step.terminated.copy(), step.truncated.copy()
        instances.env.state[waiting], step.observation[waiting] = state, observation
        reward[waiting], terminated[waiting], truncated[waiting], instances.ended[waiting] = 0, False, False, False
        infos: dict[str, Any] = {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and instances.ended.any():
            ended = instances.ended.copy()
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = instances.shown(step.observation[row].copy())
            infos = {"final_obs": final, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}
            step.observation[ended] = instances.reset(np.flatnonzero(ended))
        return instances.shown(step.observation, one=False), reward, terminated, truncated, infos

    def render(self):
        frames = [self._instances.picture(row) for row in range(self.num_envs)]
        return None if self.render_mode is None else tuple(frames)
