"""Procgen's games: "procgen:coinrun".

One vector of games for each run; observations are uint8 images (64, 64, 3). Arguments are Procgen's own, by name:
`num_levels`, `start_level`, `distribution_mode` ("easy", "hard" by default) and so on. It resets in the same step and
does not tell a time-out (1000 steps) apart: every end is reported as terminated.

Its wheels ask for NumPy 1, and work with NumPy 2: docs/adapters.md has the line that installs them.
Source: Cobbe et al. 2020, "Leveraging Procedural Generation to Benchmark Reinforcement Learning".
"""

import warnings
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ridgeline.registration import did_you_mean
from ridgeline.sources import InvalidEnvironment

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot", "heist", "jumper",
    "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip


def specification(game: str, name: str) -> EnvSpec:
    """Of one of the sixteen games; raises InvalidEnvironment where there is no such game."""
    if game not in GAMES:
        raise InvalidEnvironment(f"{name}: no such game{did_you_mean(game, GAMES) or '; it has ' + ', '.join(GAMES)}")
    return EnvSpec(name, vector_entry_point=partial(Games, game=game))


class Games(gymnasium.vector.VectorEnv):
    """Games that are made anew by each `reset(seed=...)`: Procgen takes its seed when they are made."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_fps": 15}  # noqa: RUF012
    single_observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    single_action_space = spaces.Discrete(15)

    def __init__(self, num_envs: int, game: str, **parameters: Any):
        self.num_envs = num_envs
        self._settings = {"num": num_envs, "env_name": game, **parameters}
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._make(0)

    def _make(self, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the Gym that it imports
            from procgen import ProcgenGym3Env  # type: ignore[import-not-found]
        self._games = ProcgenGym3Env(**self._settings, rand_seed=seed)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self._make(seed)
        return self._games.observe()[1]["rgb"], {}

    def step(self, actions):
        self._games.act(np.asarray(actions, np.int32))
        reward, observation, first = self._games.observe()
        return observation["rgb"], reward, first, np.zeros(self.num_envs, np.bool_), {}
