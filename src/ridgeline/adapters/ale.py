"""Atari games through the Arcade Learning Environment's own vector environment: "ale:Breakout".

Standard preprocessing (Mnih et al. 2015; Machado et al. 2018): 4 frames per action with the maximum of the last two,
84 x 84 grey, the last 4 frames as channels (4, 84, 84); up to 30 no-ops at the start, FIRE where the game needs it;
no sticky actions; episodes of at most 108,000 frames.

Rewards are the game's, and an episode is a whole game. The protocol of many published tables is asked for by name:
`reward_clipping=True` (the sign of the reward) and `episodic_life=True` (a lost life terminates), beside every other
argument of `ale_py.vector_env.AtariVectorEnv`.
"""

import re
from functools import partial
from typing import Any

from gymnasium.envs.registration import EnvSpec

from ridgeline.registration import did_you_mean
from ridgeline.sources import InvalidEnvironment


def specification(game: str, name: str) -> EnvSpec:
    """Of a game, "Breakout", "MsPacman" or "ms_pacman"; raises InvalidEnvironment where there is no such game."""
    from ale_py import roms  # type: ignore[import-not-found]

    rom = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"-v\d+$", "", game)).lower()
    games = sorted(roms.get_all_rom_ids())
    if rom not in games:
        raise InvalidEnvironment(f"{name}: no such game{did_you_mean(rom, games) or '; it has ' + ', '.join(games)}")
    return EnvSpec(name, vector_entry_point=partial(_make, game=rom))


def _make(num_envs: int, **parameters: Any):
    from ale_py.vector_env import AtariVectorEnv  # type: ignore[import-not-found]

    # One thread: a population's runs are on threads of their own.
    defaults = {"reward_clipping": False, "num_threads": 1, "autoreset_mode": "SameStep"}
    return AtariVectorEnv(num_envs=num_envs, **{**defaults, **parameters})
