"""Stable-Baselines3's own A2C on Pendulum-v1: `python benchmarks/sb3_a2c.py [SEED ...]`, by default ten (10 minutes).

The reference of the row `a2c-pendulum-sb3-run` of published_scores.py: the RL zoo's settings for it, but 500,000 steps
for a million, and independent noise of standard deviation 1 for state-dependent exploration (gSDE), which Ridgeline has
not. Printed: each seed's mean return of 100 greedy episodes, with the rewards as they are; then their mean and standard
deviation.
"""

import sys

import numpy as np
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

STEPS, RATE, EPISODES = 500_000, 7e-4, 100


def score(seed: int) -> float:
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=8, seed=seed), gamma=0.9)
    model = A2C(
        "MlpPolicy", env, learning_rate=lambda left: left * RATE, n_steps=8, gamma=0.9, gae_lambda=0.9, vf_coef=0.4,
        ent_coef=0.0, max_grad_norm=0.5, policy_kwargs={"log_std_init": 0.0, "ortho_init": False}, seed=seed,
        device="cpu",
    )  # fmt: skip
    model.learn(STEPS)
    env.training = env.norm_reward = False
    return float(np.mean(evaluate_policy(model, env, EPISODES, return_episode_rewards=True)[0]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    scores = []
    for seed in [int(word) for word in sys.argv[1:]] or range(10):
        scores.append(score(seed))
        print(f"seed {seed}: {scores[-1]:.1f}", flush=True)
    print(f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f} ({len(scores)})")
