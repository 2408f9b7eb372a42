"""Average reward: differential generalised advantage estimation, for tasks that go on for ever.

Source: Sutton & Barto 2018, section 10.3; Wan, Naik & Sutton 2021, "Learning and planning in average-reward Markov
decision processes", which learns the reward rate from TD errors; the trace: Schulman et al. 2015, eq. 16.
Differs: one step of the reward rate per rollout, by the mean of its TD errors; the first rollout starts it at its mean
reward.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan


def differential_advantage(reward, value, next_value, terminated, truncated, reward_rate, gae_lambda):
    """The advantage over the average, the critic's target, and the TD errors.

        δₜ = rₜ − r̄ + v'ₜ − V(sₜ),   Âₜ = δₜ + λ cₜ Âₜ₊₁,   target = Âₜ + V(sₜ)

    Ends are those of GAE: v' is dropped at a termination, either flag ends the trace (c = 0). r̄ = 0: GAE with γ = 1.

    Args: reward, value, next_value (T, B) float; terminated, truncated (T, B) bool; reward_rate r̄ and gae_lambda float
        or (B,).
    Returns: advantage (T, B), target (T, B), TD error (T, B), in units of reward.
    """
    rate = torch.as_tensor(reward_rate, dtype=reward.dtype)
    delta = reward - rate + torch.where(terminated, 0.0, next_value) - value
    decay = torch.where(terminated | truncated, 0.0, torch.as_tensor(gae_lambda, dtype=reward.dtype))
    advantage = reverse_scan(delta, decay)
    return advantage, advantage + value, delta


@dataclass(frozen=True)
class AverageReward:
    """Rewards count against the run's reward rate r̄ ← r̄ + step · mean(δ), kept in `memory`; there is no discount.

    For continuing tasks: those that never terminate, time limits or not. Where a policy can terminate, it maximises
    something else than the return: with reward 1 per step every centred reward becomes 0, and nothing tells a long
    episode from a short one.
    """

    gae_lambda: float = 0.95
    """Trace decay, 0 (TD error) to 1 (Monte Carlo)."""
    reward_rate_step: float = 0.1
    """Share of a rollout's mean TD error by which the reward rate moves, above 0 to 1."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda = {self.gae_lambda}; use a number from 0 to 1")
        if not 0 < self.reward_rate_step <= 1:
            raise ValueError(f"reward_rate_step = {self.reward_rate_step}; use a number above 0, up to 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        num_envs = rollout.reward.shape[1] // rollout.num_runs
        rate = memory.get("reward_rate")
        if rate is None:
            rate = _mean_by_run(rollout, rollout.reward)
            rate = torch.where(rate.isfinite(), rate, 0.0)
        advantage, target, delta = differential_advantage(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], rollout.terminated, rollout.truncated,
            rate.repeat_interleave(num_envs), self.gae_lambda,
        )  # fmt: skip
        newest = rate + _mean_by_run(rollout, self.reward_rate_step * delta.double())
        return Estimate(advantage, target.unsqueeze(-1)), {"reward_rate": torch.where(newest.isfinite(), newest, rate)}


def _mean_by_run(rollout: Rollout, tensor: torch.Tensor) -> torch.Tensor:
    """(T, B) -> (R,) in float64; one run at a time, so that it is rounded as where the run is alone."""
    return torch.stack([own.double().contiguous().mean() for own in rollout.by_run(tensor).unbind(1)])
