"""Monte Carlo: the rewards of the rest of the episode.

Source: Williams 1992 (the whole episode's return, with any constant for a baseline); Sutton & Barto 2018, sections 13.3
and 13.4. What stands for the rest of a truncated episode when there is no critic: Tianshou's REINFORCE, which takes the
mean of all returns so far.
Differs: that mean follows the policy, as the weight of the newest rollout never falls below 5%; what an episode brought
before the rollout is left out of its whole return, to which it would add nothing but noise.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan

RATE = 0.05  # least weight of the newest rollout in the running means


def reward_to_go(reward, next_value, terminated, truncated, gamma):
    """The discounted sum of the rewards from here to the episode's end, completed by v' where it is not seen.

        Gₜ = rₜ + γ Gₜ₊₁,   rₜ at a termination,   rₜ + γ v'ₜ at a truncation and at the rollout's cut

    Elsewhere v' is not read. γ = 0: the reward. No end in the rollout, γ = 1, v' = 0: the plain sum of what is left.

    Args: reward, next_value (T, B) float; terminated, truncated (T, B) bool; gamma float or (B,).
    Returns: return_to_go (T, B), in units of reward.
    """
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    unseen = truncated & ~terminated
    unseen[-1] = ~terminated[-1]
    delta = reward + torch.where(unseen, gamma * next_value, 0.0)
    return reverse_scan(delta, torch.where(terminated | truncated, 0.0, gamma))


def whole_return(return_to_go, terminated, truncated):
    """The return-to-go of the first row of the episode (of its part in the rollout), in every row of it.

        Rₜ = G_b,   b the last row up to t that begins an episode, or the rollout's first

    Episodes of one step: the reward.

    Args: return_to_go (T, B) float; terminated, truncated (T, B) bool.
    Returns: (T, B), in units of reward.
    """
    begins = torch.ones_like(terminated)
    begins[1:] = (terminated | truncated)[:-1]
    row = torch.arange(len(begins)).unsqueeze(1)
    return return_to_go.gather(0, torch.where(begins, row, 0).cummax(0).values)


@dataclass(frozen=True)
class MonteCarlo:
    """Reward-to-go, or the return of the whole episode, less a baseline.

    The whole return has more noise, and its discount begins at the episode's first step: in the mean it credits step t
    with γᵗ times what reward-to-go does, which is the exact gradient of the discounted return.

    Only the learned baseline is a critic. Without it the rest of an episode that is truncated or cut counts as much as
    the run's average reward-to-go: an exponentially weighted mean over earlier rollouts (`memory`; 0 in the first one).
    It is one number for all states and actions, so a long rollout, of whole episodes if possible, is the better cure.
    """

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    reward_to_go: bool = True
    """Credit a step with what followed it; otherwise with the return of its whole episode."""
    baseline: Literal["learned", "moving_average", "constant", "none"] = "learned"
    """Subtracted: the critic's value; the mean return of earlier rollouts; a number; nothing."""
    constant_baseline: float = 0.0
    """The number of `baseline` constant."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")
        if self.baseline not in ("learned", "moving_average", "constant", "none"):
            raise ValueError(f"baseline = {self.baseline!r}; use learned, moving_average, constant or none")
        if self.constant_baseline != 0 and self.baseline != "constant":
            raise ValueError(f"constant_baseline = {self.constant_baseline} has no use; set baseline to constant too")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        if self.baseline == "learned":
            return_to_go, credit = self._returns(rollout, rollout.next_value[..., 0])
            return Estimate(credit - rollout.value[..., 0], return_to_go.unsqueeze(-1)), memory
        zero = torch.zeros(rollout.num_runs, dtype=torch.float64)
        # those of earlier rollouts: a return in its own baseline would bias the gradient
        mean, baseline = memory.get("return_to_go", zero), memory.get("credit", zero)
        return_to_go, credit = self._returns(rollout, _rows(mean, rollout).expand_as(rollout.reward))
        advantage = credit
        if self.baseline == "moving_average":
            advantage = credit - _rows(baseline, rollout)
        elif self.baseline == "constant":
            advantage = credit - torch.as_tensor(self.constant_baseline, dtype=credit.dtype)
        count = memory.get("num_rollouts", zero)
        newest, newest_credit = (
            torch.stack([own.double().mean() for own in rollout.of_each_run(tensor)])
            for tensor in (return_to_go, credit)
        )
        finite = torch.isfinite(newest + newest_credit)
        share = 1 / (count + 1).clamp_max(1 / RATE)
        return Estimate(advantage, None), {
            "return_to_go": torch.where(finite, mean + share * (newest - mean), mean),
            "credit": torch.where(finite, baseline + share * (newest_credit - baseline), baseline),
            "num_rollouts": torch.where(finite, count + 1, count),
        }

    def _returns(self, rollout: Rollout, rest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return-to-go, where `rest` (T, B) stands for what is not seen, and what a step is credited with; (T, B)."""
        ends = rollout.terminated, rollout.truncated
        return_to_go = reward_to_go(rollout.reward, rest, *ends, self.gamma)
        return return_to_go, return_to_go if self.reward_to_go else whole_return(return_to_go, *ends)


def _rows(per_run: torch.Tensor, rollout: Rollout) -> torch.Tensor:
    """(R,) -> (B,), in the rollout's precision."""
    return per_run.to(rollout.reward.dtype).repeat_interleave(rollout.rows_per_run)
