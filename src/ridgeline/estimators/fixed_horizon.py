"""Fixed horizons: values of the next 1, 2, 4, ... rewards, without a discount.

Source: De Asis et al. 2020, "Fixed-horizon temporal difference methods for stable reinforcement learning", in its
n-step form.
Differs: only horizons that are powers of two have a head; each backs up over half its horizon, and horizons between two
heads are interpolated, which is exact where reward accrues evenly.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import Estimate, Rollout, reverse_scan


def fixed_horizon_target(reward, next_value, terminated, truncated):
    """What the critic should have predicted: the sum of the next h rewards for h = 1, 2, 4, ..., half of them seen.

        m = min(max(1, h/2), rows to the end of the piece),   targetₜ⁽ʰ⁾ = Σ rₜ₊ⱼ (j < m) + v'ₜ₊ₘ₋₁⁽ʰ⁻ᵐ⁾
        v⁽ʰ⁻ᵐ⁾ = 2m/h v⁽ʰᐟ²⁾ + (1 − 2m/h) v⁽ʰ⁾,   v⁽⁰⁾ = 0

    Where the piece ends in a termination, the rest is 0; at a truncation and at the rollout's cut v' is the prediction
    for the state that followed. No head bootstraps from itself but where a piece is too short. h = 1: the reward.

    Args: reward (T, B) float; next_value (T, B, K) for the horizons 1, 2, ..., 2ᴷ⁻¹; terminated, truncated (T, B) bool.
    Returns: target (T, B, K), in units of reward.
    """
    steps = len(reward)
    ends = terminated | truncated
    ends[-1] = True
    row = torch.arange(steps).unsqueeze(1)
    last = torch.where(ends, row, steps).flip(0).cummin(0).values.flip(0)  # of the row's piece
    # in float64, as the sum of a window is the difference of two sums
    rest = reverse_scan(reward.double(), torch.where(ends, 0.0, 1.0).double())
    target = torch.empty_like(next_value)
    for k in range(next_value.shape[-1]):
        half = max(1, 2**k // 2)
        end = torch.minimum(row + half - 1, last)  # the last row whose reward is taken
        behind = torch.where(end < last, rest.gather(0, (end + 1).clamp_max(steps - 1)), 0.0)
        target[..., k] = (rest - behind).to(reward.dtype)
        if k > 0:
            share = ((end - row + 1) / half).to(reward.dtype)
            following = share * next_value[..., k - 1].gather(0, end) + (1 - share) * next_value[..., k].gather(0, end)
            target[..., k] += torch.where(terminated.gather(0, end), 0.0, following)
    return target


@dataclass(frozen=True)
class FixedHorizon:
    """The rewards of the next `max_horizon` steps against their prediction; heads for all octaves below it.

    Half of the longest horizon is summed reward by reward, where the rollout is long enough: an estimate with little
    bias and much variance. The horizon is a bound, not a decay: what comes later is invisible, what comes before counts
    in full.
    """

    max_horizon: int = 1024
    """Steps that the longest head looks ahead; a power of two."""

    def __post_init__(self):
        if not isinstance(self.max_horizon, int) or self.max_horizon < 1 or self.max_horizon & (self.max_horizon - 1):
            raise ValueError(f"max_horizon = {self.max_horizon}; use a power of two: 1, 2, 4, ...")

    @property
    def num_values(self) -> int:
        return self.max_horizon.bit_length()

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        target = fixed_horizon_target(rollout.reward, rollout.next_value, rollout.terminated, rollout.truncated)
        return Estimate(target[..., -1] - rollout.value[..., -1], target), memory
