"""Fixed horizons: values of the next 1, 2, 4, ... rewards, without a discount.

Source: De Asis et al. 2020, "Fixed-horizon temporal difference methods for stable reinforcement learning", in its
n-step form. The actor's trace is this project's: the n-step advantages of the longest horizon in the shares of the
harmonic trace, 1/(n(n+1)).
Differs: only horizons that are powers of two have a head; each backs up over half its horizon, and horizons between two
heads are interpolated, which is exact where reward accrues evenly.
"""

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
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


def fixed_horizon_trace(reward, value, next_value, terminated, truncated):
    """The advantage over the longest horizon h: its TD errors, whose horizon shrinks with every step.

        δₜ⁽ʰ⁾ = rₜ + v'ₜ⁽ʰ⁻¹⁾ − V⁽ʰ⁾(sₜ),   Âₜ = Σₗ 1/(1+l) δₜ₊ₗ⁽ʰ⁻ˡ⁾,  l < h,  up to the end of the piece

    The first n of these δ add up to the n-step advantage rₜ + ... + rₜ₊ₙ₋₁ + v'ₜ₊ₙ₋₁⁽ʰ⁻ⁿ⁾ − V⁽ʰ⁾(sₜ). So Â is the
    mixture of those with weights 1/(n(n+1)), and what is left on the longest one. v' is dropped at a termination;
    either flag, and the rollout's cut, end the trace. Horizons between two heads lie on a straight line, v⁽⁰⁾ = 0.
    h = 1: r − V.

    Args: reward (T, B) float; value, next_value (T, B, K) for the horizons 1, 2, ..., 2ᴷ⁻¹; terminated, truncated
        (T, B) bool.
    Returns: advantage (T, B), in units of reward.
    """
    following = torch.where(terminated.unsqueeze(-1), 0.0, next_value)
    ends = (terminated | truncated).numpy()
    out = torch.empty_like(reward, memory_format=torch.contiguous_format)
    arrays = [x.contiguous().numpy() for x in (reward, value, following)]
    _shrinking_trace(arrays[0], arrays[1], arrays[2], np.ascontiguousarray(ends), out.numpy())
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _shrinking_trace(reward, value, following, ends, out):
    """Between the heads of horizons a and 2a, δ⁽ᵐ⁾ = level + m slope: two sums. Row by row to all rows before it in the
    piece, as a sum of vectors, of which the processor takes several numbers at a time."""
    steps, rows, heads = value.shape
    horizon = 2 ** (heads - 1)
    lag = steps - 1 - np.arange(steps)  # backwards, as the rows before are
    share, remaining = 1.0 / (1 + lag), (horizon - lag) / (1 + lag)
    total = np.empty(steps)
    for row in range(rows):
        total[:] = 0.0
        first = 0
        for here in range(steps):
            for k in range(heads):
                below = 2 ** (k - 1) if k > 0 else 0  # of this head's segment: below < horizon left <= 2^k
                start, stop = max(first, here - (horizon - below - 1)), here - (horizon - 2**k) + 1
                if start >= stop:
                    continue
                level, slope = np.float64(reward[here, row]) - value[here, row, k], 0.0
                if k > 0:
                    gap = np.float64(value[here, row, k]) - value[here, row, k - 1]
                    gap_behind = np.float64(following[here, row, k]) - following[here, row, k - 1]
                    slope = (gap_behind - gap) / below
                    level += following[here, row, k] - gap_behind / below - 2 * below * slope
                own, more = share[steps - 1 - here + start :], remaining[steps - 1 - here + start :]
                reached = total[start:stop]
                for i in range(len(reached)):
                    reached[i] += level * own[i] + slope * more[i]
            if ends[here, row]:
                first = here + 1
        for t in range(steps):
            out[t, row] = total[t]


@dataclass(frozen=True)
class FixedHorizon:
    """The rewards of the next `max_horizon` steps against their prediction; heads for all octaves below it.

    The horizon is a bound, not a decay: what comes later is invisible, what comes before counts in full. The harmonic
    trace trusts the critic more, half of the horizon the rewards: bias against variance.
    """

    max_horizon: int = 1024
    """Steps that the longest head looks ahead; a power of two."""
    trace: Literal["harmonic", "half"] = "harmonic"
    """The advantage's: harmonic, n steps in shares 1/(n(n+1)); half, half the horizon reward by reward."""

    def __post_init__(self):
        if not isinstance(self.max_horizon, int) or self.max_horizon < 1 or self.max_horizon & (self.max_horizon - 1):
            raise ValueError(f"max_horizon = {self.max_horizon}; use a power of two: 1, 2, 4, ...")
        if self.trace not in ("harmonic", "half"):
            raise ValueError(f"trace = {self.trace!r}; use harmonic or half")

    @property
    def num_values(self) -> int:
        return self.max_horizon.bit_length()

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        target = fixed_horizon_target(rollout.reward, rollout.next_value, rollout.terminated, rollout.truncated)
        if self.trace == "half":
            return Estimate(target[..., -1] - rollout.value[..., -1], target), memory
        advantage = fixed_horizon_trace(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.truncated
        )
        return Estimate(advantage, target), memory
