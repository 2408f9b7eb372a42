"""Generalised advantage estimation.

Source: Schulman et al. 2015, "High-dimensional continuous control using generalized advantage estimation", eq. 16.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan


def generalized_advantage(reward, value, next_value, terminated, truncated, gamma, gae_lambda):
    """The exponentially weighted sum of TD errors, and the critic's target.

        δₜ = rₜ + γ v'ₜ − V(sₜ),   Âₜ = δₜ + γλ cₜ Âₜ₊₁,   target = Âₜ + V(sₜ)

    v' is dropped at a termination; either flag ends the trace (c = 0); at the rollout's cut v' is the value of the
    observation after it. λ = 1: reward-to-go minus V. λ = 0: the TD error.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; gamma, gae_lambda float or (B,).
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    bootstrap = torch.as_tensor(gamma, dtype=reward.dtype) * next_value
    delta = reward + torch.where(terminated, 0.0, bootstrap) - value
    decay = torch.where(terminated | truncated, 0.0, torch.as_tensor(gamma * gae_lambda, dtype=reward.dtype))
    advantage = reverse_scan(delta, decay)
    return advantage, advantage + value


@dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation: discount gamma, trace decay gae_lambda."""

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    gae_lambda: float = 0.95
    """Trace decay, 0 (TD error) to 1 (Monte Carlo)."""
    truncation_as_termination: bool = False
    """Legacy: treat a time limit as an end of the MDP, as CleanRL and openai/baselines do; to compare with them."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda = {self.gae_lambda}; use a number from 0 to 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        terminated = rollout.terminated
        if self.truncation_as_termination:
            terminated = terminated | rollout.truncated
        advantage, target = generalized_advantage(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], terminated, rollout.truncated,
            self.gamma, self.gae_lambda,
        )  # fmt: skip
        return Estimate(advantage, target.unsqueeze(-1)), memory
