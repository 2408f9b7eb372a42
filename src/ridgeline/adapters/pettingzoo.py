"""PettingZoo's parallel environments: "pettingzoo:mpe2.simple_spread_v3", or "pettingzoo:module:Class".

A module is asked for its `parallel_env`. Rows are worlds by `possible_agents`, in that order. The agents share one
policy, so their spaces must be equal. A row is a transition where its agent was among `agents` before the step; it ends
when the agent does, and begins again when the agent comes back or the world is reset. A world without agents is over,
and is reset in the same step.
"""

import importlib
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, create_empty_array, iterate

from ridgeline.sources import InvalidEnvironment


def specification(module: str, attribute: str, name: str) -> EnvSpec:
    """Of what a module has: a class, or a function that makes a parallel environment."""
    make = partial(Worlds, module=module, attribute=attribute)
    return EnvSpec(name, vector_entry_point=make, kwargs={"renders": True})


class Worlds(gymnasium.vector.VectorEnv):
    """Worlds of one parallel environment: a vector environment whose rows are the agents of all of them.

    `info["valid"]` tells which rows made a transition, and metadata how many agents a world has.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, module: str, attribute: str, **parameters: Any):
        make = getattr(importlib.import_module(module), attribute)
        self._worlds = [make(**parameters) for _ in range(num_envs)]
        first = self.author = self._worlds[0]
        self._agents = list(first.possible_agents)
        self.metadata = {
            **self.metadata, "num_agents": len(self._agents),
            "render_fps": first.metadata.get("render_fps", 30), "render_modes": first.metadata.get("render_modes", []),
        }  # fmt: skip
        self.num_envs = num_envs * len(self._agents)
        self.single_observation_space = _shared(first.observation_space, self._agents, "observation")
        self.single_action_space = _shared(first.action_space, self._agents, "action")
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._last: list[Any] = []  # each row's newest observation

    def reset(self, *, seed=None, options=None):
        nothing = create_empty_array(self.single_observation_space, self.num_envs)
        self._last = list(iterate(self.observation_space, nothing))
        seeds = np.random.SeedSequence(seed).generate_state(len(self._worlds)) >> 1  # seeds below 2**31 suit C too
        for number, (world, own) in enumerate(zip(self._worlds, seeds, strict=True)):
            self._take(number, world.reset(seed=int(own))[0], world.agents)
        return self._observations(), {}

    def step(self, actions):
        actions = list(iterate(self.action_space, actions))
        reward, valid = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        final = np.full(self.num_envs, None, dtype=object)
        for number, world in enumerate(self._worlds):
            first = number * len(self._agents)
            acting = {agent: first + self._agents.index(agent) for agent in world.agents}
            own = {agent: actions[row] for agent, row in acting.items()}
            seen, rewards, terminations, truncations, _ = world.step(own)
            for agent, row in acting.items():
                valid[row], reward[row] = True, rewards.get(agent, 0.0)
                gone = agent not in world.agents
                truncated[row] = truncations.get(agent, False)
                terminated[row] = terminations.get(agent, False) or (gone and not truncated[row])
                final[row] = seen.get(agent, self._last[row])
            self._take(number, seen, world.agents)
            if not world.agents:
                self._take(number, world.reset()[0], world.agents)
        return self._observations(), reward, terminated, truncated, {
            "valid": valid, "final_obs": final, "_final_obs": valid & (terminated | truncated)
        }  # fmt: skip

    def _take(self, number: int, seen: dict, agents: list) -> None:
        for agent in agents:
            self._last[number * len(self._agents) + self._agents.index(agent)] = seen[agent]

    def _observations(self):
        if isinstance(self.single_observation_space, gymnasium.spaces.Dict):
            return {key: np.stack([one[key] for one in self._last]) for key in self.single_observation_space}
        return np.stack([np.asarray(one) for one in self._last])

    def render(self):
        return tuple(world.render() for world in self._worlds for _ in self._agents)

    def close_extras(self, **keywords):
        for world in self._worlds:
            world.close()


def _shared(space_of, agents: list, what: str):
    """The space of all agents."""
    spaces = [space_of(agent) for agent in agents]
    for agent, space in zip(agents, spaces, strict=True):
        if space != spaces[0]:
            raise InvalidEnvironment(
                f"the {what} spaces of {agents[0]} and {agent} differ, {spaces[0]} and {space}; agents share one "
                "policy: supersuit's pad_observations_v0 and pad_action_space_v0 make them equal"
            )
    return spaces[0]
