"""The other way: compiled environments of several agents as PettingZoo's parallel environments.

    from ridgeline.pettingzoo import parallel_env
    env = parallel_env("matching_pennies")

World s is world 0 of the `VectorEnv` that `ridgeline.make(..., seed=s)` gives: the same episodes.

An agent leaves `agents` when it dies. PettingZoo lets nobody come back within an episode; so where an environment
brings its dead back to life, they stand idle (their action is 0) unless `revive=True`, which puts them among `agents`
again, as Ridgeline's own rows do. An agent that waits for its turn stays among `agents`, and its action is ignored.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import spaces

from ridgeline.gymnasium import RENDER_MODES, Instances


def parallel_env(
    environment: str | Path | ModuleType,
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
    revive: bool = False,
    **parameters: float,
) -> Any:
    """One world as a pettingzoo.ParallelEnv, with the agents "agent_0", "agent_1", ...

    Args:
        environment: a built-in name, a file or a module; of one agent too.
        render_mode: None, "rgb_array" or "ansi" (text with colours).
        max_episode_steps: instead of the environment's own limit.
        revive: put agents that come back to life among `agents` again.
        parameters: changes of the environment's Parameters and Structure, by name.

    Raises InvalidEnvironment; ModuleNotFoundError without PettingZoo.
    """
    return _parallel()(environment, render_mode, max_episode_steps, revive, parameters)


class _Parts(spaces.MultiDiscrete):
    """Whose samples take an action mask as observations hold it, the parts side by side."""

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        if isinstance(mask, np.ndarray):
            mask = tuple(np.split(mask.astype(np.int8), np.cumsum(self.nvec)[:-1]))
        return super().sample(mask, probability)


@cache
def _parallel() -> type:
    """The class; PettingZoo is imported where it is needed."""
    from pettingzoo import ParallelEnv  # type: ignore[import-not-found]

    return type("Parallel", (_Parallel, ParallelEnv), {})


class _Parallel:
    """What `parallel_env` describes."""

    def __init__(self, environment, render_mode, max_episode_steps, revive, parameters):
        self._instances = Instances(environment, 1, max_episode_steps, render_mode, parameters)
        env = self._instances.env
        self._revive = revive
        self.possible_agents = [f"agent_{number}" for number in range(env.num_agents)]
        self.agents: list[str] = []
        self.render_mode = render_mode
        self.metadata = {
            "name": env.name, "render_modes": RENDER_MODES, "render_fps": env.frames_per_second,
            "is_parallelizable": True,
        }  # fmt: skip
        self.observation_spaces: dict[str, Any] = dict.fromkeys(self.possible_agents, env.observation_space)
        own = env.action_space
        if isinstance(own, spaces.MultiDiscrete):
            own = _Parts(own.nvec)
        self.action_spaces: dict[str, spaces.Space] = {
            agent: deepcopy(own) for agent in self.possible_agents
        }  # each samples from its own

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, dict]]:
        """The first observations, and an empty dict for each agent."""
        seed = self._instances.first_seed(seed)
        if seed is not None:
            self._instances.seed(0, 1, seed)
        observation = self._instances.reset(np.arange(1))
        self.agents, self._steps = list(self.possible_agents), 0
        return self._seen(observation, self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Observation, reward, terminated, truncated and an empty dict of each agent that was there before."""
        if not self.agents:
            raise RuntimeError(f"{self._instances.env.name}: the world is over; call reset()")
        env, acting = self._instances.env, self.agents
        kind = np.float32 if isinstance(env.action_space, spaces.Box) else np.int64
        neutral = np.zeros(env.action_space.shape or (), kind)
        step = self._instances.step(np.stack([
            np.asarray(actions[agent]) if agent in acting else neutral for agent in self.possible_agents
        ]))  # fmt: skip
        self._steps += 1
        several = env.definition.form.several
        over = env.state[0]["world_length"] == 0 if several else bool(step.terminated[0] or step.truncated[0])
        cut = env.max_episode_steps is not None and self._steps >= env.max_episode_steps
        row = {agent: number for number, agent in enumerate(self.possible_agents)}
        terminated = {agent: bool(step.terminated[row[agent]]) or bool(over and not cut) for agent in acting}
        truncated = {agent: cut for agent in acting}
        back = [agent for agent in self.possible_agents if self._revive and self._is_back(agent, row[agent])]
        self.agents = [
            agent for agent in self.possible_agents
            if not over and ((agent in acting and not terminated[agent]) or agent in back)
        ]  # fmt: skip
        observation = self._seen(step.observation, [*acting, *(agent for agent in self.agents if agent not in acting)])
        reward = {agent: float(step.reward[row[agent]]) for agent in acting}
        return observation, reward, terminated, truncated, {agent: {} for agent in acting}

    def _is_back(self, agent: str, number: int) -> bool:
        """Whether an agent that is not among `agents` is alive."""
        definition = self._instances.definition
        alive = getattr(definition.module, "alive", None)
        return agent not in self.agents and (alive is None or bool(alive(self._instances.env.state[0], number)))

    def _seen(self, observation: np.ndarray, agents: list[str]) -> dict[str, Any]:
        return {agent: self._instances.shown(observation[self.possible_agents.index(agent)].copy()) for agent in agents}

    def render(self) -> Any:
        return self._instances.picture(0)

    def close(self) -> None:
        self._instances.env.close()
