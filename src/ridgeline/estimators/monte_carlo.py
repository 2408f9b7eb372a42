"""Monte Carlo: the rewards of the rest of the episode.

Source: Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4. What stands for the rest of a truncated episode when
there is no critic: Tianshou's REINFORCE, which takes the mean of all returns so far.
Differs: that mean follows the policy, as the weight of the newest rollout never falls below 5%.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan

RATE = 0.05  # least weight of the newest rollout in the running mean


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


@dataclass(frozen=True)
class MonteCarlo:
    """Reward-to-go, less a learned baseline or as it is.

    Without the baseline there is no critic. The rest of an episode that is truncated or cut then counts as much as the
    run's average reward-to-go: an exponentially weighted mean over earlier rollouts (`memory`; 0 in the first one). It
    is one number for all states and actions, so a long rollout, of whole episodes if possible, is the better cure.
    """

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    learned_baseline: bool = True
    """Subtract the critic's value, and let it stand for what is not seen of an episode."""

    num_values = 1

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        flags = rollout.terminated, rollout.truncated
        if self.learned_baseline:
            target = reward_to_go(rollout.reward, rollout.next_value[..., 0], *flags, self.gamma)
            return Estimate(target - rollout.value[..., 0], target.unsqueeze(-1)), memory
        zero = torch.zeros(rollout.num_runs, dtype=torch.float64)
        mean, count = memory.get("return_to_go", zero), memory.get("num_rollouts", zero)
        rest = mean.to(rollout.reward.dtype).repeat_interleave(rollout.reward.shape[1] // rollout.num_runs)
        return_to_go = reward_to_go(rollout.reward, rest.expand_as(rollout.reward), *flags, self.gamma)
        newest = rollout.by_run(return_to_go).double().mean((0, 2))
        finite = torch.isfinite(newest)
        memory = {
            "return_to_go": torch.where(finite, mean + (newest - mean) / (count + 1).clamp_max(1 / RATE), mean),
            "num_rollouts": torch.where(finite, count + 1, count),
        }
        return Estimate(return_to_go, None), memory
