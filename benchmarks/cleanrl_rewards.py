"""MuJoCo's Hopper with the rewards that CleanRL's ppo_continuous_action.py trains on, for published_scores.py:
divided by the running standard deviation of their discounted sum (γ = .99), then clipped to ±10."""

import gymnasium
import numpy as np
from gymnasium.wrappers import NormalizeReward, TransformReward


class Hopper(gymnasium.Wrapper):
    def __init__(self):
        env = NormalizeReward(gymnasium.make("Hopper-v4"), gamma=0.99)
        super().__init__(TransformReward(env, lambda reward: float(np.clip(reward, -10, 10))))
