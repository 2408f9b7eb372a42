"""Generalised advantage estimation, and the λ-return, which is its target.

Source: Schulman et al. 2015, "High-dimensional continuous control using generalized advantage estimation", eq. 16;
Sutton & Barto 2018, section 12.1.
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


def lambda_return(reward, next_value, terminated, truncated, gamma, gae_lambda):
    """The λ-return: (1−λ) λⁿ⁻¹ of each n-step return, what is left of the weight on the longest. The target of GAE.

        Gₜ = rₜ + γ ((1−λ) v'ₜ + λ Gₜ₊₁),   rₜ at a termination,   rₜ + γ v'ₜ at a truncation and at the rollout's cut

    It needs no value of the state itself, and equals `generalized_advantage` + V where v'ₜ = V(sₜ₊₁). λ = 1: the
    reward-to-go. λ = 0: the one-step return.

    Args: reward, next_value (T, B) float; terminated, truncated (T, B) bool; gamma, gae_lambda float or (B,).
    Returns: lambda_return (T, B), in units of reward.
    """
    ends = terminated | truncated
    one_step = torch.as_tensor(gamma * (1 - gae_lambda), dtype=reward.dtype)
    weight = torch.where(ends, torch.as_tensor(gamma, dtype=reward.dtype), one_step)
    weight[-1] = gamma
    delta = reward + torch.where(terminated, 0.0, weight * next_value)
    return reverse_scan(delta, torch.where(ends, 0.0, torch.as_tensor(gamma * gae_lambda, dtype=reward.dtype)))


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
