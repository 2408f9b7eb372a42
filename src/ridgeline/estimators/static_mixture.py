"""The static mixture: several horizons, every trace decay, in equal shares, so that neither is chosen.

Source: Schulman et al. 2015, eq. 16, for each component; several discounts as heads of one critic: Fedus et al. 2019,
"Hyperbolic discounting and learning over multiple horizons". The mixture is this project's.
Differs: the undiscounted head means the return inside the time limit, so for it a truncation is an end with value 0
(Pardo et al. 2018, "Time limits in reinforcement learning"); the others bootstrap there.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan

HORIZONS = (32, 64, 128, 256, 512, 1024)  # 1/(1−γ): octaves, a log-uniform prior over horizons
NODES = 5  # Gauss-Legendre points over λ: a harmonic trace up to about 20 steps, exact up to 9
LEAST_STD = 1e-8


def trace_mixture(reward, value, next_value, terminated, truncated, gamma, num_nodes: int = NODES):
    """GAE averaged over the trace decay by Gauss-Legendre quadrature, and the critic's target.

        δₜ = rₜ + γ v'ₜ − V(sₜ),   Âₜ = Σ_q ω_q Σₗ (γ λ_q)ˡ δₜ₊ₗ  up to the end of the trace,   target = Âₜ + V(sₜ)

    The weight of lag l is γˡ/(1+l) as long as l < 2 num_nodes, and falls off as the largest λ_q beyond. v' is dropped
    at a termination; either flag, and the rollout's cut, end the trace. num_nodes = 1: GAE with λ = 1/2.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; gamma float or (B,).
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    node, weight = np.polynomial.legendre.leggauss(num_nodes)
    following = torch.where(terminated, 0.0, torch.as_tensor(gamma, dtype=reward.dtype) * next_value)
    delta = reward + following - value
    ends = terminated | truncated
    advantage = torch.zeros_like(delta)
    for gae_lambda, share in zip((node + 1) / 2, weight / 2, strict=True):
        decay = torch.where(ends, 0.0, torch.as_tensor(gamma * gae_lambda, dtype=reward.dtype))
        advantage += share * reverse_scan(delta, decay)
    return advantage, advantage + value


@dataclass(frozen=True)
class StaticMixture:
    """GAE over seven horizons and all trace decays, each horizon in units of its own standard deviation.

    Per head k: Â⁽ᵏ⁾ and its target by `trace_mixture`, and of one run Âₜ = 1/K Σₖ Âₜ⁽ᵏ⁾ / std(Â⁽ᵏ⁾), which has no unit.
    A head whose advantage is all noise gets as much weight as the others: that is its weakness.
    """

    undiscounted: bool = True
    """Add a head for the whole return inside the time limit; needs one."""

    @property
    def gammas(self) -> tuple[float, ...]:
        """The discount of each head of the critic."""
        return tuple(1 - 1 / horizon for horizon in HORIZONS) + (1.0,) * bool(self.undiscounted)

    @property
    def num_values(self) -> int:
        return len(self.gammas)

    def check(self, env, population, algorithm) -> None:
        """Raises ValueError where the undiscounted head is asked for and nothing bounds an episode."""
        if self.undiscounted and env.max_episode_steps is None:
            raise ValueError(
                f"the undiscounted head needs a time limit, and {env.name} has none; use undiscounted=False"
            )

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        mixture, target = torch.zeros_like(rollout.reward), torch.empty_like(rollout.value)
        for k, gamma in enumerate(self.gammas):
            terminated = rollout.terminated | rollout.truncated if gamma == 1 else rollout.terminated
            advantage, target[..., k] = trace_mixture(
                rollout.reward, rollout.value[..., k], rollout.next_value[..., k], terminated, rollout.truncated, gamma
            )
            own = rollout.of_each_run(advantage)
            std = torch.stack([one.std(correction=0) for one in own]).clamp_min(LEAST_STD)
            mixture += (rollout.by_run(advantage) / std.unsqueeze(1)).flatten(1, 2) / self.num_values
        return Estimate(mixture, target), memory
