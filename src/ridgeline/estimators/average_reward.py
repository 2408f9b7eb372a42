"""Average reward: differential generalised advantage estimation, for tasks that go on for ever.

Source: Sutton & Barto 2018, section 10.3; Wan, Naik & Sutton 2021, "Learning and planning in average-reward Markov
decision processes", which learns the reward rate from TD errors; the trace: Schulman et al. 2015, eq. 16. `variant`
"apo": Ma et al. 2021, "Average-reward reinforcement learning with trust region methods", and its authors' code.
Differs: one step of the reward rate per rollout, by the mean of its TD errors; the first rollout starts it at its mean
reward. APO's code knows terminations only; here a truncation is bootstrapped.
"""

from dataclasses import dataclass
from typing import Literal

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
    """Rewards count against the run's reward rate r̄, kept in `memory`; there is no discount.

        differential:  r̄ ← r̄ + step · mean(δ),  behind the rollout
        apo:           r̄ ← r̄ + step · (mean(r) − r̄),  b ← b + step · (mean(V) − b),  target = Âₜ + V(sₜ) − ν b

    No TD error changes when all values do by the same number, so nothing says at what level they lie, and whatever
    moves it moves it for good. ν b pulls their mean to 0, as the gradient of ½ E[(V − R̂)²] + ½ ν E[V]² does; the
    differential form has no such pull.

    For continuing tasks: those that never terminate, time limits or not. Where a policy can terminate, it maximises
    something else than the return: with reward 1 per step every centred reward becomes 0, and nothing tells a long
    episode from a short one.
    """

    gae_lambda: float = 0.95
    """Trace decay, 0 (TD error) to 1 (Monte Carlo)."""
    reward_rate_step: float = 0.1
    """Share by which the reward rate moves towards what a rollout says, above 0 to 1."""
    variant: Literal["differential", "apo"] = "differential"
    """differential: the reward rate from TD errors; apo: from the rewards, with the values held around 0."""
    value_centering: float = 0.1
    """Share ν of the mean value that apo takes off the critic's targets, 0 to 1."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"gae_lambda = {self.gae_lambda}; use a number from 0 to 1")
        if not 0 < self.reward_rate_step <= 1:
            raise ValueError(f"reward_rate_step = {self.reward_rate_step}; use a number above 0, up to 1")
        if self.variant not in ("differential", "apo"):
            raise ValueError(f"variant = {self.variant!r}; use differential or apo")
        if not 0 <= self.value_centering <= 1:
            raise ValueError(f"value_centering = {self.value_centering}; use a number from 0 to 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        apo = self.variant == "apo"
        memory = _started(memory, "reward_rate", _mean_by_run(rollout, rollout.reward))
        if apo:
            memory = self._moved(rollout, memory, "reward_rate", rollout.reward)
            memory = _started(memory, "mean_value", _mean_by_run(rollout, rollout.value))
            memory = self._moved(rollout, memory, "mean_value", rollout.value[..., 0])
        advantage, target, delta = differential_advantage(
            rollout.reward, rollout.value[..., 0], rollout.next_value[..., 0], rollout.terminated, rollout.truncated,
            memory["reward_rate"].repeat_interleave(rollout.rows_per_run), self.gae_lambda,
        )  # fmt: skip
        if apo:
            mean_value = memory["mean_value"].repeat_interleave(rollout.rows_per_run)
            target = target - torch.as_tensor(self.value_centering * mean_value, dtype=target.dtype)
        else:
            newest = memory["reward_rate"] + _mean_by_run(rollout, self.reward_rate_step * delta.double())
            memory = memory | {"reward_rate": torch.where(newest.isfinite(), newest, memory["reward_rate"])}
        return Estimate(advantage, target.unsqueeze(-1)), memory

    def _moved(self, rollout: Rollout, memory: dict, name: str, tensor: torch.Tensor) -> dict:
        """Memory with the mean of (T, B) `tensor` taken into the running mean `name`, if it is finite."""
        old = memory[name].repeat_interleave(rollout.rows_per_run)
        newest = memory[name] + _mean_by_run(rollout, self.reward_rate_step * (tensor.double() - old))
        return memory | {name: torch.where(newest.isfinite(), newest, memory[name])}


def _started(memory: dict, name: str, first: torch.Tensor) -> dict:
    """Memory with `name`, which begins at `first` (R,), or at 0 where that is not finite."""
    return memory if name in memory else memory | {name: torch.where(first.isfinite(), first, 0.0)}


def _mean_by_run(rollout: Rollout, tensor: torch.Tensor) -> torch.Tensor:
    """(T, B) -> (R,) in float64."""
    return torch.stack([own.double().mean() for own in rollout.of_each_run(tensor)])
