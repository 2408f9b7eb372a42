"""Atari on two cores: `python benchmarks/ale.py breakout sign --minutes 28` (or pong).

Trains PPO with the convolutional policy on "ale:Breakout" for a time, with the game's rewards (`game`) or by the
protocol of the published tables (`sign`: rewards clipped to their sign, in training only). Then it plays whole games
with the game's own rewards: the trained policy, sampled, and uniformly random actions. Prints both means with their 95%
bootstrap intervals over games, and whether the intervals are apart: play above random. It is one run: the interval is
over its games, not over seeds.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path

import numpy as np

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.policies import CNN
from ridgeline.session import View
from ridgeline.statistics import interval, mean
from ridgeline.vector import EVALUATION

GAMES = {"pong": "ale:Pong", "breakout": "ale:Breakout"}
# CleanRL's settings for Atari with larger steps and fewer epochs, because the time is short.
SETTINGS = PPO(
    num_envs=16, rollout_length=64, num_epochs=2, num_minibatches=4, learning_rate=5e-4, clip_coef=0.1,
    entropy_coef=0.01, max_grad_norm=0.5, anneal_learning_rate=False,
)  # fmt: skip


class Progress(View):
    """A line every minute."""

    def __init__(self):
        self.told = time.perf_counter()

    def update(self, metrics):
        if time.perf_counter() - self.told > 60:
            self.told = time.perf_counter()
            print(
                f"{metrics['wall_seconds']:.0f} s, {metrics['steps']:,} steps: {metrics['episode_return']}", flush=True
            )


def random_play(name, games, num_envs=16):
    """The returns of whole games of uniformly random actions, the same number of each instance."""
    env = ridgeline.make(name, num_envs, 0, EVALUATION)
    rng, returns = np.random.default_rng(0), [[] for _ in range(num_envs)]
    each = -(-games // num_envs)
    while min(map(len, returns)) < each:
        step = env.step(rng.integers(0, env.action_space.n, num_envs))
        for row, episode in zip(step.episode_row, step.episode, strict=True):
            returns[row].append(episode[0])
    env.close()
    return np.array([own[:each] for own in returns]).ravel()[:games]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("game", choices=GAMES)
    parser.add_argument("reward", choices=("game", "sign"), help="in training; evaluation plays the game's own")
    parser.add_argument("--minutes", type=float, default=28.0)
    parser.add_argument("--games", type=int, default=30)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None, help="a file; one JSON line is added")
    arguments = parser.parse_args()
    name = GAMES[arguments.game]
    chance = random_play(name, arguments.games)
    result = ridgeline.train(
        name, SETTINGS, policy=CNN(), total_steps=100_000_000, num_runs=1, view=Progress(),
        num_threads=arguments.threads, minutes=arguments.minutes,
        parameters={"reward_clipping": arguments.reward == "sign"},
    )  # fmt: skip
    result.parameters = {}  # the game's own rewards
    trained = ridgeline.evaluate(result, episodes=arguments.games).episode_returns[0]
    own, other = (interval(mean, returns[:, None]) for returns in (trained, chance))  # games are what is resampled
    record = {
        "environment": name, "steps": result.total_steps, "minutes": round(result.wall_seconds / 60, 1),
        "steps_per_second": round(result.steps_per_second), "reward_in_training": arguments.reward,
        "games": arguments.games, "trained": [float(own.estimate), float(own.low), float(own.high)],
        "random": [float(other.estimate), float(other.low), float(other.high)],
        "above_random": bool(own.low > other.high),
        "machine": platform.processor() or platform.machine(),
        "commit": subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], text=True).strip(),
    }  # fmt: skip
    print(json.dumps(record))
    if arguments.out is not None:
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
