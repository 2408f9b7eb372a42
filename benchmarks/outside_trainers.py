"""Other people's trainers on compiled environments: `python benchmarks/outside_trainers.py sb3` (or cleanrl).

`sb3`: Stable-Baselines3's PPO with its defaults on "ridgeline/Cartpole-v0", then 100 episodes on other seeds.
`cleanrl`: a loop in CleanRL's manner over `gymnasium.make_vec`, in next-step autoreset: the steps that only reset are
left out of the loss, as CleanRL's newer files do. Both print the mean return with its 95% bootstrap interval.
"""

import sys
import time

import gymnasium
import numpy as np
import torch
from torch import nn

import ridgeline  # noqa: F401  (registers the ids)

ID, EPISODES = "ridgeline/Cartpole-v0", 100


def interval(returns):
    """The mean and its bootstrap interval."""
    draws = np.random.default_rng(0).choice(returns, (10_000, len(returns))).mean(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{np.mean(returns):.1f} [{low:.1f}, {high:.1f}]"


def play(choose):
    """The returns of EPISODES whole episodes, side by side, on seeds that training never saw."""
    envs = gymnasium.make_vec(ID, num_envs=EPISODES)
    observation, _ = envs.reset(seed=10_000)
    total, going = np.zeros(EPISODES), np.ones(EPISODES, bool)
    while going.any():
        observation, reward, terminated, truncated, _ = envs.step(choose(observation))
        total += np.where(going, reward, 0.0)
        going &= ~(terminated | truncated)
    return total


def sb3(steps=100_000):
    """Stable-Baselines3's PPO, defaults, one environment."""
    from stable_baselines3 import PPO

    torch.set_num_threads(1)
    model = PPO("MlpPolicy", gymnasium.make(ID), seed=0, device="cpu")
    model.learn(total_timesteps=steps)
    return play(lambda observation: model.predict(observation)[0])


def cleanrl(steps=100_000, num_envs=8, length=128, epochs=4, minibatches=4):
    """PPO as one file."""
    torch.manual_seed(0)
    envs = gymnasium.make_vec(ID, num_envs=num_envs)
    inputs, outputs = envs.single_observation_space.shape[0], envs.single_action_space.n
    actor, critic = (nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n))
                     for n in (outputs, 1))  # fmt: skip
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], 2.5e-4, eps=1e-5)
    observation = torch.tensor(envs.reset(seed=0)[0], dtype=torch.float32)
    ended = torch.zeros(num_envs)
    shape = (length, num_envs)
    store = {name: torch.zeros(shape) for name in ("action", "log_prob", "reward", "ended", "value")}
    seen = torch.zeros(*shape, inputs)
    for _ in range(steps // (num_envs * length)):
        for t in range(length):
            seen[t], store["ended"][t] = observation, ended
            with torch.no_grad():
                distribution = torch.distributions.Categorical(logits=actor(observation))
                action = distribution.sample()
                store["value"][t] = critic(observation).squeeze(1)
            store["action"][t], store["log_prob"][t] = action, distribution.log_prob(action)
            following, reward, terminated, truncated, _ = envs.step(action.numpy())
            store["reward"][t] = torch.from_numpy(reward)
            observation = torch.tensor(following, dtype=torch.float32)
            ended = torch.from_numpy(terminated | truncated).float()
        with torch.no_grad():
            value, tail = critic(observation).squeeze(1), 0.0
            advantage = torch.zeros(shape)
            for t in reversed(range(length)):
                going = 1 - (ended if t == length - 1 else store["ended"][t + 1])
                following = value if t == length - 1 else store["value"][t + 1]
                tail = store["reward"][t] + 0.99 * following * going - store["value"][t] + 0.99 * 0.95 * going * tail
                advantage[t] = tail
            target = advantage + store["value"]
        keep = torch.nonzero(store["ended"].flatten() == 0).squeeze(1)  # a step after an end only resets
        flat = {name: tensor.flatten()[keep] for name, tensor in store.items()}
        rows, advantage, target = seen.flatten(0, 1)[keep], advantage.flatten()[keep], target.flatten()[keep]
        for _ in range(epochs):
            for index in torch.randperm(len(keep)).tensor_split(minibatches):
                distribution = torch.distributions.Categorical(logits=actor(rows[index]))
                ratio = (distribution.log_prob(flat["action"][index]) - flat["log_prob"][index]).exp()
                own = (advantage[index] - advantage[index].mean()) / (advantage[index].std() + 1e-8)
                policy_loss = torch.max(-own * ratio, -own * ratio.clamp(0.8, 1.2)).mean()
                value_loss = 0.5 * (critic(rows[index]).squeeze(1) - target[index]).square().mean()
                loss = policy_loss + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_([*actor.parameters(), *critic.parameters()], 0.5)
                optimizer.step()

    @torch.no_grad()
    def choose(observation):
        return torch.distributions.Categorical(logits=actor(torch.from_numpy(observation))).sample().numpy()

    return play(choose)


if __name__ == "__main__":
    trainers = {"sb3": sb3, "cleanrl": cleanrl}
    chosen = sys.argv[1:] or list(trainers)
    for name in chosen:
        start = time.perf_counter()
        returns = trainers[name]()
        print(f"{name}: {ID}, 100,000 steps, mean return of {EPISODES} episodes {interval(returns)}, "
              f"{time.perf_counter() - start:.0f} s")  # fmt: skip
