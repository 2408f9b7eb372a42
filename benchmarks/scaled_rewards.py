"""Environments whose rewards are scaled as publications scale them, for published_scores.py: divided by the running
standard deviation of their discounted sum, then clipped to ±10."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper
from gymnasium.wrappers import NormalizeReward, TransformReward
from gymnasium.wrappers.utils import RunningMeanStd


class Hopper(gymnasium.Wrapper):
    """As CleanRL's ppo_continuous_action.py."""

    def __init__(self):
        env = NormalizeReward(gymnasium.make("Hopper-v4"), gamma=0.99)
        super().__init__(TransformReward(env, lambda reward: float(np.clip(reward, -10, 10))))


class Pendulum(VectorWrapper):
    """As Stable-Baselines3's VecNormalize: the 8 instances of a run share their statistics; runs follow each other."""

    def __init__(self, num_envs: int, **unused):
        mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
        super().__init__(gymnasium.make_vec("Pendulum-v1", num_envs, "sync", vector_kwargs=mode))
        self.total = np.zeros((num_envs // 8, 8))
        self.moments = [RunningMeanStd() for _ in self.total]

    def reset(self, **settings):
        self.total[:] = 0
        return self.env.reset(**settings)

    def step(self, actions):
        observation, reward, terminated, truncated, info = self.env.step(actions)
        self.total = self.total * 0.9 + reward.reshape(self.total.shape)
        for moments, total in zip(self.moments, self.total, strict=True):
            moments.update(total)
        scale = np.sqrt(np.repeat([moments.var for moments in self.moments], 8) + 1e-8)
        self.total[(terminated | truncated).reshape(self.total.shape)] = 0
        return observation, np.clip(reward / scale, -10, 10), terminated, truncated, info
