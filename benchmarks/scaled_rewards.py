"""Environments whose rewards are scaled as publications scale them, for published_scores.py: divided by the running
standard deviation of their discounted sum, then clipped to ±10."""

import gymnasium
import numpy as np
from gymnasium.wrappers import NormalizeReward, TransformReward


def scaled(env: gymnasium.Env, gamma: float) -> gymnasium.Env:
    return TransformReward(NormalizeReward(env, gamma=gamma), lambda reward: float(np.clip(reward, -10, 10)))


class Hopper(gymnasium.Wrapper):
    """As CleanRL's ppo_continuous_action.py."""

    def __init__(self):
        super().__init__(scaled(gymnasium.make("Hopper-v4"), 0.99))


class Pendulum(gymnasium.Wrapper):
    """As Stable-Baselines3's VecNormalize, but for the instances, each of which has its own statistics."""

    def __init__(self):
        super().__init__(scaled(gymnasium.make("Pendulum-v1"), 0.9))
