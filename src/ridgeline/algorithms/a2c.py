"""Advantage actor-critic: act for a few steps, estimate, learn once.

Source: Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", in the synchronous form of OpenAI's
baselines.
Differs: Adam with a step size of its own (the original: `--optimizer rmsprop_tf --learning-rate 7e-4`); the advantage
is standardised within each rollout, so that entropy_coef means the same at every scale of reward; critic errors are
measured in units of the targets' running standard deviation (policies.py). The original's advantage is that of
`n_step`, or `gae` with lambda 1.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import collect, squared_error, summary
from ridgeline.valid_rows import mean, select, standardized


@dataclass(frozen=True)
class A2C:
    """One gradient step of policy and critic after every few steps of many instances."""

    num_envs: int = 16
    """Environment instances per run."""
    rollout_length: int = 8
    """Steps per instance and iteration."""
    learning_rate: float = 2e-3
    """Step size of the optimizer."""
    critic_learning_rate: float | None = None
    """Step size of the optimizer for the critic's own parameters; None: that of the others."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall linearly to zero over the training."""
    optimizer: Literal["adam", "muon", "rmsprop", "rmsprop_tf"] = "adam"
    """What moves the parameters: Adam, RMSprop, or Muon for matrices and Adam for the rest."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""
    value_coef: float = 0.5
    """Weight of the squared critic error: the whole, where PPO, VPG and REINFORCE weigh half of it."""
    max_grad_norm: float = 0.5
    """Longest gradient of one run; longer ones are scaled down."""
    normalize_advantage: bool = True
    """Standardise the advantage within each rollout."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length) < 1:
            raise ValueError("num_envs and rollout_length must be at least 1")

    def iterate(self, env, population, estimator) -> dict[str, torch.Tensor]:
        """One iteration; returns metrics, one number per run."""
        # act
        with population.clock("act"):
            rollout = collect(env, population, self.rollout_length)

        # estimate
        with population.clock("estimate"):
            estimate, population.memory = estimator(rollout, population.memory)
            population.update_target_moments(estimate.target, rollout.valid)

        # learn
        with population.clock("learn"):
            log = [population.update(self.loss, rollout.everything(estimate))]
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, log)

    def loss(self, policy, minibatch, coefficients):
        """−E[log π(a|s) Â] + c_v E[((V−R̂)/σ)²] − c_e H, of one run; the critic's term without the usual ½."""
        distribution, value = policy(minibatch["observation"])
        log_prob = distribution.log_prob(minibatch["action"])
        advantage = minibatch["advantage"]
        if self.normalize_advantage:
            advantage = standardized(advantage, minibatch)
        policy_loss = -mean(log_prob * advantage, minibatch)
        entropy = mean(distribution.entropy(), minibatch)
        loss = policy_loss - coefficients["entropy_coef"] * entropy
        metrics = {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "max_log_ratio": select(log_prob - minibatch["log_prob"], minibatch).abs().max(),
        }
        if "target" in minibatch:
            square = mean(squared_error(value, minibatch, coefficients["value_scale"]), minibatch)
            metrics["value_loss"] = 0.5 * square  # logged with the half, to be comparable with the other algorithms
            loss = loss + coefficients["value_coef"] * square
        return loss, metrics
