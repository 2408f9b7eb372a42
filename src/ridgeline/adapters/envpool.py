"""EnvPool's environments: "envpool:Pong-v5".

One pool for each run, which steps its instances in C++ threads of its own (`num_threads`, by default one). EnvPool
resets in the step after an episode's end: that step is no transition. Rewards and ends are the environment's; wrappers
are EnvPool's own arguments, by name (`reward_clip`, `episodic_life`).
"""

from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ridgeline.registration import did_you_mean
from ridgeline.sources import InvalidEnvironment


def specification(task: str, name: str) -> EnvSpec:
    """Of one of EnvPool's tasks; raises InvalidEnvironment where there is no such task."""
    import envpool  # type: ignore[import-not-found]

    tasks = envpool.list_all_envs()
    if task not in tasks:
        raise InvalidEnvironment(f"{name}: no such task{did_you_mean(task, tasks) or '; see envpool.list_all_envs()'}")
    return EnvSpec(name, vector_entry_point=partial(Pool, task=task))


class Pool(gymnasium.vector.VectorEnv):
    """A pool that is made anew by each `reset(seed=...)`: EnvPool takes its seed when it is made."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, task: str, **parameters: Any):
        self.num_envs = num_envs
        self._settings = {"task_id": task, "num_envs": num_envs, "num_threads": 1, **parameters}
        self._make(0)
        self.single_observation_space, self.single_action_space = self._pool.observation_space, self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _make(self, seed: int) -> None:
        import envpool  # type: ignore[import-not-found]

        self._pool = envpool.make_gymnasium(**self._settings, seed=seed)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._make(seed)
        observation, info = self._pool.reset()
        return observation, info

    def step(self, actions):
        return self._pool.step(actions)

    def close_extras(self, **keywords):
        self._pool.close()
