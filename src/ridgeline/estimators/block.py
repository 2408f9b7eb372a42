"""The block estimator: a prediction for the reward of each of the next H steps.

Source: proposed in PufferLib, later developed there into "P3O"; no paper.
Differs: after a termination the rewards are 0 and are learned as such, and what the rollout did not see is bootstrapped
from the prediction at the truncation or cut. `variant` "masked" is the first proposal: steps after an end count
nowhere. A critic cannot be told to ignore a target, so a masked one is its own prediction.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import Estimate, Rollout


def block_target(reward, value, next_value, terminated, truncated, masked: bool = False):
    """What the critic should have predicted for the reward of each of the next H steps.

        y_{t,j} = rₜ₊ⱼ₋₁  for j <= m;   beyond: 0 after a termination,   r̂_{j−m}(s') at a truncation and at the cut

    m counts the rows from t to the last one of its piece, s' is the state that followed that one. The advantage is
    Âₜ = Σⱼ y_{t,j} − r̂ⱼ(sₜ). Masked: y_{t,j} = r̂ⱼ(sₜ) for j > m, whatever ended the piece; where every reward is the
    same and the critic has learned it, the advantage is then 0: only its errors tell survival from an end. H = 1: the
    reward.

    Args: reward (T, B) float; value, next_value (T, B, H); terminated, truncated (T, B) bool.
    Returns: target (T, B, H), in units of reward.
    """
    steps, _, horizon = value.shape
    ends = terminated | truncated
    ends[-1] = True
    row = torch.arange(steps).unsqueeze(1)
    last = torch.where(ends, row, steps).flip(0).cummin(0).values.flip(0)
    lag = torch.arange(horizon)  # j − 1
    behind = lag - (last - row + 1).unsqueeze(-1)  # lags since the state that followed the piece; negative: was seen
    padded = torch.cat([reward, reward.new_zeros(horizon - 1, reward.shape[1])])
    seen = padded.unfold(0, horizon, 1)
    if masked:
        return torch.where(behind < 0, seen, value)
    following = next_value.gather(0, last.unsqueeze(-1).expand_as(value)).gather(-1, behind.clamp_min(0))
    rest = torch.where(terminated.gather(0, last).unsqueeze(-1), 0.0, following)
    return torch.where(behind < 0, seen, rest)


@dataclass(frozen=True)
class Block:
    """The next `horizon` rewards against a prediction of each."""

    horizon: int = 32
    """Steps ahead that are predicted, one output each; what comes later is invisible."""
    variant: Literal["absorbing", "masked"] = "absorbing"
    """absorbing: zeros after a termination, bootstrapped where the rollout did not see; masked: as first proposed."""

    def __post_init__(self):
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon = {self.horizon}; use a whole number from 1")
        if self.variant not in ("absorbing", "masked"):
            raise ValueError(f"variant = {self.variant!r}; use absorbing or masked")

    @property
    def num_values(self) -> int:
        return self.horizon

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        target = block_target(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.truncated,
            self.variant == "masked",
        )  # fmt: skip
        return Estimate((target - rollout.value).sum(-1), target), memory
