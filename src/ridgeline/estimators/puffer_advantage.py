"""PufferLib's advantage: GAE with V-trace's clipped importance weights.

Source: PufferLib 3 and 4 (`compute_puff_advantage`), after Espeholt et al. 2018, "IMPALA", eq. 1; no paper.
Differs: all T rows get an advantage, the last one by the value of the observation behind it, where PufferLib gives up
its last row; a truncation is bootstrapped and ends the trace; computed again before every epoch, not every minibatch.
The ratio weighs the whole TD error, as in PufferLib's vectorised code; its scalar code weighs the reward alone. As in
PufferLib the ratio counts twice under PPO, here and in the loss: the gradient of what has become less probable is too
small. v_trace.py has it once.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan


def puffer_advantage(
    reward, value, next_value, terminated, truncated, log_ratio, gamma, gae_lambda, max_ratio=1.0, max_trace_ratio=1.0
):
    """The sum of weighted TD errors, and the critic's target.

        δₜ = min(ρ̄, ratioₜ) (rₜ + γ v'ₜ − V(sₜ)),   Âₜ = δₜ + γλ min(c̄, ratioₜ) cₜ Âₜ₊₁,   target = Âₜ + V(sₜ)

    ratio = π(a|s)/μ(a|s). v' is dropped at a termination; either flag ends the trace (c = 0); at the rollout's cut v'
    is the value of the observation after it. Ratio 1: GAE. λ = 1: v − V of V-trace, which is not V-trace's advantage.

    Args: reward, value, next_value, log_ratio (T, B) float; terminated, truncated (T, B) bool; gamma, gae_lambda λ,
        max_ratio ρ̄, max_trace_ratio c̄ float or (B,).
    Returns: advantage (T, B), target (T, B), in units of reward.
    """
    ratio = log_ratio.exp()
    clipped_ratio = torch.minimum(ratio, torch.as_tensor(max_ratio, dtype=ratio.dtype))
    trace_ratio = torch.minimum(ratio, torch.as_tensor(max_trace_ratio, dtype=ratio.dtype))
    bootstrap = torch.as_tensor(gamma, dtype=reward.dtype) * next_value
    delta = clipped_ratio * (reward + torch.where(terminated, 0.0, bootstrap) - value)
    decay = torch.as_tensor(gamma * gae_lambda, dtype=reward.dtype) * trace_ratio
    advantage = reverse_scan(delta, torch.where(terminated | truncated, 0.0, decay))
    return advantage, advantage + value


@dataclass(frozen=True)
class PufferAdvantage:
    """PufferLib's advantage, computed again before every epoch. PufferLib's defaults: gamma 0.995, gae_lambda 0.9."""

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    gae_lambda: float = 0.95
    """Trace decay, 0 (TD error) to 1 (Monte Carlo)."""
    max_ratio: float = 1.0
    """Largest weight of a TD error; larger ones are cut to it."""
    max_trace_ratio: float = 1.0
    """Largest factor of the trace; larger ones are cut to it."""

    num_values = 1
    every_epoch = True

    def __post_init__(self):
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}; use a number from 0 to 1")
        for name in ("max_ratio", "max_trace_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}; use a number above 0, inf for no limit")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        advantage, target = puffer_advantage(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], rollout.terminated, rollout.truncated,
            rollout.log_ratio, self.gamma, self.gae_lambda, self.max_ratio, self.max_trace_ratio,
        )  # fmt: skip
        return Estimate(advantage, target.unsqueeze(-1)), memory
