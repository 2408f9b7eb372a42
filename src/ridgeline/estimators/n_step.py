"""n-step returns.

Source: Sutton & Barto 2018, eq. 7.1 and section 7.1; Mnih et al. 2016, "Asynchronous methods for deep reinforcement
learning".
Differs: every row looks n steps ahead where its rollout allows it. A3C's n is the rollout length, and its later rows
look less far; `num_steps` >= rollout_length gives that.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout


def n_step_advantage(reward, value, next_value, terminated, truncated, gamma, num_steps: int):
    """The n-step return minus the value, and the n-step return, which is the critic's target.

        Gₜ = Σ γᵏ rₜ₊ₖ (k < m) + γᵐ v'ₜ₊ₘ₋₁,   m = min(n, steps until terminated, truncated or cut),   Âₜ = Gₜ − V(sₜ)

    v' is dropped at a termination; at the rollout's cut it is the value of the observation after it. n = 1: the TD
    error. n at least the length of the rollout: reward-to-go minus V.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; gamma float or (B,); num_steps n.
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    goes_on = ~(terminated | truncated)[:-1]
    shortest = reward + torch.where(terminated, 0.0, gamma * next_value)
    target = shortest
    for _ in range(min(num_steps, len(reward)) - 1):
        longer = torch.where(goes_on, reward[:-1] + gamma * target[1:], shortest[:-1])
        target = torch.cat([longer, shortest[-1:]])
    return target - value, target


@dataclass(frozen=True)
class NStep:
    """n-step returns: num_steps rewards, then the critic."""

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    num_steps: int = 5
    """Rewards that are summed before the critic's value stands for the rest."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise ValueError(f"num_steps = {self.num_steps}; use a whole number from 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        advantage, target = n_step_advantage(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], rollout.terminated, rollout.truncated,
            self.gamma, self.num_steps,
        )  # fmt: skip
        return Estimate(advantage, target.unsqueeze(-1)), memory
