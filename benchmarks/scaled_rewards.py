"""Environments whose rewards are scaled as publications scale them, for published_scores.py: divided by the running
standard deviation of their discounted sum, then clipped to ±10."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import NormalizeReward, TransformReward
from gymnasium.wrappers.utils import RunningMeanStd


def scaled(env: gymnasium.Env, gamma: float) -> gymnasium.Env:
    return TransformReward(NormalizeReward(env, gamma=gamma), lambda reward: float(np.clip(reward, -10, 10)))


class Hopper(gymnasium.Wrapper):
    """As CleanRL's ppo_continuous_action.py."""

    def __init__(self):
        super().__init__(scaled(gymnasium.make("Hopper-v4"), 0.99))


class Pendulum(gymnasium.vector.VectorEnv):
    """As Stable-Baselines3's VecNormalize: the 8 instances of a run share their statistics; runs follow each other."""

    def __init__(self, num_envs: int, **unused):
        self.env = gymnasium.make_vec(
            "Pendulum-v1", num_envs, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}
        )
        self.num_envs, self.metadata, self.spec = num_envs, self.env.metadata, None
        self.single_observation_space = self.env.single_observation_space
        self.single_action_space = self.env.single_action_space
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
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

    def close(self, **settings):
        self.env.close(**settings)
