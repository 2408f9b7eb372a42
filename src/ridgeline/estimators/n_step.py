"""n-step returns.

Source: Sutton & Barto 2018, eq. 7.1 and section 7.1; Mnih et al. 2016, "Asynchronous methods for deep reinforcement
learning".
Differs: every row looks n steps ahead where its rollout allows it. A3C's n is the rollout length, and its later rows
look less far; `num_steps` >= rollout_length gives that.
"""

from dataclasses import dataclass

import numba
import torch

from ridgeline.rollout import Estimate, Rollout

COLUMNS = 256  # taken at once: what a pass over them touches stays in the cache


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _lengthen(reward, goes_on, one_step, gamma, num_steps, target):
    """One-step returns (T, B) in `target` become num_steps-step returns, by one reward in each pass."""
    steps, columns = reward.shape
    for start in range(0, columns, COLUMNS):
        own = slice(start, min(start + COLUMNS, columns))
        factor = gamma[own]
        for _ in range(num_steps - 1):
            for t in range(steps - 1):  # forwards: the next row is still that of the last pass
                here, following = target[t, own], target[t + 1, own]
                first, inside, shortest = reward[t, own], goes_on[t, own], one_step[t, own]
                for b in range(len(here)):
                    longer = first[b] + factor[b] * following[b]
                    here[b] = longer if inside[b] else shortest[b]


def n_step_advantage(reward, value, next_value, terminated, truncated, gamma, num_steps: int):
    """The n-step return minus the value, and the n-step return, which is the critic's target.

        Gₜ = Σ γᵏ rₜ₊ₖ (k < m) + γᵐ v'ₜ₊ₘ₋₁,   m = min(n, steps until terminated, truncated or cut),   Âₜ = Gₜ − V(sₜ)

    v' is dropped at a termination; at the rollout's cut it is the value of the observation after it. n = 1: the TD
    error. n at least the length of the rollout: reward-to-go minus V.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; gamma float or (B,); num_steps n.
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    one_step = reward + torch.where(terminated, 0.0, gamma * next_value)
    target = one_step.clone(memory_format=torch.contiguous_format)
    goes_on, factor = ~(terminated | truncated), gamma.expand(reward.shape[1]).contiguous()
    _lengthen(
        reward.contiguous().numpy(), goes_on.contiguous().numpy(), one_step.contiguous().numpy(), factor.numpy(),
        min(num_steps, len(reward)), target.numpy(),
    )  # fmt: skip
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
