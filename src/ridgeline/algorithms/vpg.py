"""Vanilla policy gradient: act, estimate, learn.

Source: Sutton et al. 2000, "Policy gradient methods for reinforcement learning with function approximation"; with GAE,
Schulman et al. 2015; the order of steps is Spinning Up's.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import collect, squared_error, summary
from ridgeline.valid_rows import mean, select, standardized


@dataclass(frozen=True)
class VPG:
    """One gradient step of the policy per rollout, then several of the critic alone."""

    num_envs: int = 64
    """Environment instances per run."""
    rollout_length: int = 32
    """Steps per instance and iteration."""
    num_value_updates: int = 8
    """Gradient steps of the critic alone, after the one of policy and critic."""
    learning_rate: float = 5e-3
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
    """Weight of half the squared critic error."""
    max_grad_norm: float = 0.5
    """Longest gradient of one run; longer ones are scaled down."""
    normalize_advantage: bool = True
    """Standardise the advantage within each rollout."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length) < 1 or self.num_value_updates < 0:
            raise ValueError("num_envs and rollout_length must be at least 1, num_value_updates at least 0")

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
            batch = rollout.everything(estimate)
            log = [population.update(self.loss, batch)]
            if estimate.target is not None:
                for _ in range(self.num_value_updates):
                    population.update(self.value_loss, batch)
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, log)

    def loss(self, policy, minibatch, coefficients):
        """−E[log π(a|s) Â] + c_v ½E[((V−R̂)/σ)²] − c_e H, of one run."""
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
            square = squared_error(value, minibatch, coefficients["value_scale"])
            metrics["value_loss"] = 0.5 * mean(square, minibatch)
            loss = loss + coefficients["value_coef"] * metrics["value_loss"]
        return loss, metrics

    def value_loss(self, policy, minibatch, coefficients):
        """c_v ½E[((V−R̂)/σ)²], of one run."""
        _, value = policy(minibatch["observation"])
        square = squared_error(value, minibatch, coefficients["value_scale"])
        return coefficients["value_coef"] * 0.5 * mean(square, minibatch), {}
