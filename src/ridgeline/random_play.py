"""Uniformly random play among the allowed actions: what scores are measured against."""

import numpy as np

from ridgeline.kernel import sample_action
from ridgeline.observations import ACTION_MASK, as_dict, is_packed, random_allowed, unpack
from ridgeline.vector import VectorEnv


def random_action(env: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    """An action of each row, uniform over those that its mask allows; int64 (B,) or (B, A), or float32 (B, A)."""
    space = env.observation_space
    if not is_packed(space) or ACTION_MASK not in as_dict(space):
        return sample_action(env.action_space, generator, env.num_rows)
    return random_allowed(env.action_space, unpack(space, env.observation)[ACTION_MASK], generator)


def first_episodes(env: VectorEnv, max_steps: int, generator: np.random.Generator) -> np.ndarray:
    """Return and length of the first episode of each row, float64 (B, 2); NaN where none ended in `max_steps` steps."""
    first = np.full((env.num_rows, 2), np.nan)
    for _ in range(max_steps):
        step = env.step(random_action(env, generator))
        new = np.isnan(first[step.episode_row, 0])
        first[step.episode_row[new]] = step.episode[new, :2]
        if not np.isnan(first).any():
            break
    return first
