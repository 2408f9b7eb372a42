"""Stable-Baselines3's own A2C: `python benchmarks/sb3_a2c.py TASK [SEED ...]`, by default ten seeds; TASK is pendulum,
pendulum_sde or lunar_lander.

The references of the rows of published_scores.py whose names end in -run: the RL zoo's settings, for pendulum 500,000
steps of its million, and independent noise of standard deviation 1 for state-dependent exploration (gSDE), which
pendulum_sde has, and all of its steps. Printed: each seed's mean return of 100 greedy episodes of its last policy, with
the rewards as they are; then their mean and standard deviation.
"""

import sys

import numpy as np
import torch
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

EPISODES = 100
NUM_ENVS = 8  # instance i of a run has the run's seed + i


def pendulum(seed: int, steps: int = 500_000, log_std: float = 0.0, use_sde: bool = False) -> A2C:
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=NUM_ENVS, seed=seed), gamma=0.9)
    model = A2C(
        "MlpPolicy", env, learning_rate=lambda left: left * 7e-4, n_steps=8, gamma=0.9, gae_lambda=0.9, vf_coef=0.4,
        ent_coef=0.0, max_grad_norm=0.5, policy_kwargs={"log_std_init": log_std, "ortho_init": False}, seed=seed,
        use_sde=use_sde, device="cpu",
    )  # fmt: skip
    model.learn(steps)
    env.training = env.norm_reward = False
    return model


def lunar_lander(seed: int) -> A2C:
    env = make_vec_env("LunarLander-v3", n_envs=NUM_ENVS, seed=seed)
    model = A2C(
        "MlpPolicy", env, learning_rate=lambda left: left * 8.3e-4, n_steps=5, gamma=0.995, ent_coef=1e-5, seed=seed,
        device="cpu",
    )  # fmt: skip
    return model.learn(200_000)


def pendulum_sde(seed: int) -> A2C:
    return pendulum(seed, 1_000_000, -2.0, use_sde=True)


TASKS = {"pendulum": pendulum, "pendulum_sde": pendulum_sde, "lunar_lander": lunar_lander}

if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) < 2 or sys.argv[1] not in TASKS:
        sys.exit(__doc__)
    scores = []
    for seed in [int(word) for word in sys.argv[2:]] or range(10):
        model = TASKS[sys.argv[1]](NUM_ENVS * seed)  # so no two runs share an instance's seed
        returns = evaluate_policy(model, model.get_env(), EPISODES, return_episode_rewards=True)[0]
        scores.append(float(np.mean(returns)))
        print(f"seed {seed}: {scores[-1]:.1f}", flush=True)
    print(f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f} ({len(scores)})")
