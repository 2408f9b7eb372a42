"""The harmonic trace: generalised advantage estimation averaged over all trace decays, so that none is chosen.

Source: Schulman et al. 2015, eq. 16, integrated over a uniform λ with ∫ λˡ dλ = 1/(1+l) from 0 to 1; no paper proposes
it to our knowledge. The rule at γ = 1: Pardo et al. 2018, "Time limits in reinforcement learning", section 2.
Differs: γ = 1 means the return inside the time limit, so there a truncation ends it with value 0; a critic that
bootstraps at truncation with γ = 1 grows without bound.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch

from ridgeline.rollout import Estimate, Rollout


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _harmonic_sum(delta, ends, gamma, out):
    """Row by row to all rows before it in the piece: a sum of vectors, which the processor takes several numbers at a
    time; each row's own sum over the rows behind it would be one number after the other."""
    steps, rows = delta.shape
    total, weight = np.empty(steps), np.empty(steps)
    for row in range(rows):
        if row == 0 or gamma[row] != gamma[row - 1]:
            power = 1.0
            for lag in range(steps):
                weight[steps - 1 - lag] = power / (1 + lag)  # backwards, as the rows before are
                power *= gamma[row]
        total[:] = 0.0
        first = 0
        for here in range(steps):
            error = np.float64(delta[here, row])
            reached, own = total[first : here + 1], weight[steps - 1 - here + first :]
            for i in range(len(reached)):
                reached[i] += own[i] * error
            if ends[here, row]:
                first = here + 1
        for t in range(steps):
            out[t, row] = total[t]


def harmonic_trace(reward, value, next_value, terminated, truncated, gamma):
    """The TD errors of the rest of the episode, each divided by its distance, and the critic's target.

        δₜ = rₜ + γ v'ₜ − V(sₜ),   Âₜ = Σₗ γˡ/(1+l) δₜ₊ₗ  up to the end of the trace,   target = Âₜ + V(sₜ)

    It is the mixture of n-step advantages with weights 1/(n(n+1)); at an end after M rows the weight that is left, 1/M,
    belongs to the longest one. v' is dropped at a termination; either flag, and the rollout's cut, end the trace.
    γ = 0, or every row an end: the TD error. The cost grows with rows times rollout length.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; gamma float or (B,).
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    following = torch.where(terminated, 0.0, torch.as_tensor(gamma, dtype=reward.dtype) * next_value)
    delta = reward + following - value
    ends = (terminated | truncated).numpy()
    per_column = torch.as_tensor(gamma, dtype=torch.float64).expand(delta.shape[1]).numpy()
    advantage = torch.empty_like(delta, memory_format=torch.contiguous_format)
    _harmonic_sum(delta.contiguous().numpy(), np.ascontiguousarray(ends), per_column, advantage.numpy())
    return advantage, advantage + value


@dataclass(frozen=True)
class HarmonicTrace:
    """GAE averaged over every trace decay from 0 to 1: no gae_lambda to choose."""

    gamma: float = 0.997
    """Discount of the return, 0 to 1; at 1 the return inside the time limit."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")

    def check(self, env, population, algorithm) -> None:
        """Raises ValueError where gamma = 1 and nothing bounds an episode."""
        if self.gamma == 1 and env.max_episode_steps is None:
            raise ValueError(f"gamma = 1 needs a time limit, and {env.name} has none; use a gamma below 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        undiscounted = torch.as_tensor(self.gamma) == 1
        terminated = rollout.terminated | (rollout.truncated & undiscounted)
        advantage, target = harmonic_trace(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], terminated, rollout.truncated, self.gamma
        )
        return Estimate(advantage, target.unsqueeze(-1)), memory
