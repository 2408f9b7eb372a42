"""V-trace: values of the policy as it is now, from a rollout of an earlier one, by clipped importance weights.

Source: Espeholt et al. 2018, "IMPALA: scalable distributed deep-RL with importance weighted actor-learner
architectures", eq. 1 and section 4.2; λ as in its remark 2.
Differs: the advantage comes without IMPALA's factor min(ρ̄, ratio), which stands for the ratio that IMPALA's loss lacks.
PPO's loss has it, so with the factor it would count twice (as in PufferLib, see puffer_advantage.py); RLlib's APPO,
which keeps the factor, divides its loss's ratio by it. In all other algorithms the ratio is 1.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan


def v_trace(
    reward, value, next_value, terminated, truncated, log_ratio, gamma, gae_lambda=1.0, max_ratio=1.0,
    max_trace_ratio=1.0,
):  # fmt: skip
    """The advantage, the critic's target v, and the clipped ratio ρ.

        ρₜ = min(ρ̄, π(aₜ|sₜ)/μ(aₜ|sₜ)),   κₜ = λ min(c̄, π(aₜ|sₜ)/μ(aₜ|sₜ)),   δₜ = ρₜ (rₜ + γ v'ₜ − V(sₜ))
        vₜ = V(sₜ) + xₜ,   xₜ = δₜ + γ κₜ cₜ xₜ₊₁,   Âₜ = rₜ + γ v̂ₜ − V(sₜ)
        v̂ₜ = vₜ₊₁,   but 0 at a termination, v'ₜ at a truncation and at the rollout's cut

    v' is dropped at a termination; either flag ends the trace (c = 0). v is an estimate for the policy between μ and π
    that is proportional to min(ρ̄ μ, π); for π itself, without bias, if ρ̄ = c̄ = ∞ and λ = 1. ρ Â is IMPALA's
    policy-gradient advantage, for losses −log π · ρ Â. Ratio 1, λ = 1: Â = v − V is reward-to-go minus V.

    Args: reward, value, next_value, log_ratio (T, B) float; terminated, truncated (T, B) bool; gamma, gae_lambda λ,
        max_ratio ρ̄, max_trace_ratio c̄ float or (B,).
    Returns: advantage (T, B), target (T, B), in units of reward; clipped ratio (T, B).
    """
    ratio = log_ratio.exp()
    clipped_ratio = torch.minimum(ratio, torch.as_tensor(max_ratio, dtype=ratio.dtype))
    trace_ratio = torch.minimum(ratio, torch.as_tensor(max_trace_ratio, dtype=ratio.dtype))
    ends = terminated | truncated
    decay = torch.where(ends, 0.0, torch.as_tensor(gamma * gae_lambda, dtype=reward.dtype) * trace_ratio)
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    delta = clipped_ratio * (reward + torch.where(terminated, 0.0, gamma * next_value) - value)
    target = value + reverse_scan(delta, decay)
    following = torch.cat([torch.where(ends[:-1], next_value[:-1], target[1:]), next_value[-1:]])
    advantage = reward + torch.where(terminated, 0.0, gamma * following) - value
    return advantage, target, clipped_ratio


@dataclass(frozen=True)
class VTrace:
    """V-trace, computed again before every epoch: the ratio is 1 in the first one and moves with the policy.

    An algorithm that goes over a rollout once never sees another ratio than 1: there it is λ-returns as targets, and
    advantages that look ahead one step more.
    """

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    gae_lambda: float = 1.0
    """Trace decay, 0 to 1."""
    max_ratio: float = 1.0
    """Largest weight of a TD error; larger ones are cut to it. The smaller, the closer to the policy that acted."""
    max_trace_ratio: float = 1.0
    """Largest factor of the trace; it bounds the variance and changes nothing in what is learned."""

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
        advantage, target, _ = v_trace(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], rollout.terminated, rollout.truncated,
            rollout.log_ratio, self.gamma, self.gae_lambda, self.max_ratio, self.max_trace_ratio,
        )  # fmt: skip
        return Estimate(advantage, target.unsqueeze(-1)), memory
