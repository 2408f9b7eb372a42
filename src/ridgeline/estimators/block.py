"""The block estimator: a prediction for the reward of each of the next H steps.

Source: proposed in PufferLib, later weighed by variance there as "P3O" (commit 36f9a3c, `p3o_kernel`); no paper.
Differs: after a termination the rewards are 0 and are learned as such, and what the rollout did not see is bootstrapped
from the prediction at the truncation or cut; `variant` "masked" is the first proposal, where steps after an end count
nowhere. `puf` gives P3O's weights, with `variant` "masked" as P3O had it. There a log σⱼ per lag is trained by the
Gaussian likelihood ½ E[2 log σⱼ + (y − r̂ⱼ)²/σⱼ²], whose derivative 1 − E[(y − r̂ⱼ)²]/σⱼ² is 0 where σⱼ is the root mean
square error: that is kept here instead, as a running mean over earlier rollouts, so that no weight has seen the batch
it is applied to. Weights depend on the lag alone, all lags are trained (P3O's stop rule also ends their training, and
with it their return), and rewards are not clamped to [−1, 1]: all is relative to the rewards' own spread.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import Estimate, Rollout

RATE = 0.2  # least weight of the newest rollout in the running means: an untrained critic is soon forgotten
LEAST_VARIANCE = 1e-6  # of σⱼ², in units of σᵣ²: PyTorch's floor for the Gaussian likelihood, where σᵣ is about 1
ALWAYS = 16  # lags that the stop rule spares


def block_target(reward, value, next_value, terminated, truncated):
    """What the critic should have predicted for the reward of each of the next H steps, and which were seen.

        y_{t,j} = rₜ₊ⱼ₋₁  for j <= m;   beyond: 0 after a termination,   r̂_{j−m}(s') at a truncation and at the cut

    m counts the rows from t to the last one of its piece, s' is the state that followed that one. H = 1: the reward.

    Args: reward (T, B) float; value, next_value (T, B, H); terminated, truncated (T, B) bool.
    Returns: target (T, B, H), in units of reward; seen (T, B, H) bool: j <= m; known (T, B, H) bool: seen, or 0
        behind a termination, where t + j <= T: beyond that a rollout knows of ends, but of nothing that goes on.
    """
    steps, _, horizon = value.shape
    ends = terminated | truncated
    ends[-1] = True
    row = torch.arange(steps).unsqueeze(1)
    last = torch.where(ends, row, steps).flip(0).cummin(0).values.flip(0)
    lag = torch.arange(horizon)  # j − 1
    behind = lag - (last - row + 1).unsqueeze(-1)  # lags since the state that followed the piece; negative: was seen
    padded = torch.cat([reward, reward.new_zeros(horizon - 1, reward.shape[1])])
    following = next_value.gather(0, last.unsqueeze(-1).expand_as(value)).gather(-1, behind.clamp_min(0))
    over = terminated.gather(0, last).unsqueeze(-1)
    seen = behind < 0
    target = torch.where(seen, padded.unfold(0, horizon, 1), torch.where(over, 0.0, following))
    return target, seen, seen | (over & (row + lag < steps).unsqueeze(1))


def lag_weight(variance, reward_variance, puf):
    """P3O's weight of each lag in the advantage, 0 to 1.

        wⱼ = max(0, 1/σⱼ² − puf/σᵣ²) / max of all;   0 from the first lag beyond 16 with σⱼ > 0.95 σᵣ

    σⱼ² is the mean square error at lag j, σᵣ² the variance of the rewards; where they never differ, σᵣ = 0, puf counts
    nothing. puf = 0: inverse variances. puf = 1: a lag counts as far as it is predicted better than by the mean. It is
    predictability that is weighed: a lag that no action changes and that is predicted without error gets all of it.

    Args: variance σⱼ² (R, H), infinite where nothing is known; reward_variance σᵣ² (R, 1); puf float or (R, 1).
    Returns: weight (R, H), without unit.
    """
    floor = torch.maximum(variance, LEAST_VARIANCE * reward_variance)
    precision = torch.where(floor > 0, 1 / floor, 0.0) - torch.where(reward_variance > 0, puf / reward_variance, 0.0)
    precision = precision.clamp_min(0.0)
    largest = precision.amax(-1, keepdim=True)
    weight = torch.where(largest > 0, precision / largest, 0.0)
    hopeless = (variance > 0.95**2 * reward_variance) & (torch.arange(variance.shape[-1]) >= ALWAYS)
    return torch.where(hopeless.cumsum(-1) > 0, 0.0, weight)


@dataclass(frozen=True)
class Block:
    """The next `horizon` rewards against a prediction of each: Âₜ = Σⱼ wⱼ (y_{t,j} − r̂ⱼ(sₜ)), wⱼ = 1 without `puf`.

    Masked: y_{t,j} = r̂ⱼ(sₜ) for j > m, whatever ended the piece, and nothing is learned there. Where every reward is
    the same and the critic has learned it, the advantage is then 0: only its errors tell survival from an end.
    """

    horizon: int = 32
    """Steps ahead that are predicted, one output each; what comes later is invisible."""
    variant: Literal["absorbing", "masked"] = "absorbing"
    """absorbing: zeros after a termination, bootstrapped where the rollout did not see; masked: as first proposed."""
    puf: float | None = None
    """Weigh lags by how well they are predicted, less this share of the rewards' spread (P3O); None: all the same."""

    def __post_init__(self):
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"horizon = {self.horizon}; use a whole number from 1")
        if self.variant not in ("absorbing", "masked"):
            raise ValueError(f"variant = {self.variant!r}; use absorbing or masked")
        if self.puf is not None and not 0 <= self.puf < math.inf:
            raise ValueError(f"puf = {self.puf}; use a number from 0, or None for equal weights")

    @property
    def num_values(self) -> int:
        return self.horizon

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        target, seen, known = block_target(
            rollout.reward, rollout.value, rollout.next_value, rollout.terminated, rollout.truncated
        )
        # the heads are parts of one prediction, so their errors count on average
        target_weight = target.new_tensor(1 / self.horizon).expand_as(target)
        if self.variant == "masked":
            known, target, target_weight = seen, torch.where(seen, target, rollout.value), target_weight * seen
        error = target - rollout.value
        if self.puf is None:
            return Estimate(error.sum(-1), target, target_weight), memory
        weight, of_loss = self._weights(rollout, memory)
        weight, of_loss = (w.to(target.dtype).repeat_interleave(rollout.rows_per_run, 0) for w in (weight, of_loss))
        target_weight = of_loss * target_weight
        return Estimate((weight * error).sum(-1), target, target_weight), _remember(rollout, memory, target, known)

    def _weights(self, rollout: Rollout, memory: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights of the lags in the advantage and in the critic's loss, (R, H) each; 1 before anything is known.

        The likelihood's gradient is (r̂ⱼ − y)/σⱼ², up to the common factor that makes the loss's weights 1 on average;
        the loss divides each error by the critic's own scale (population.py), which is taken back here.
        """
        ones = torch.ones(rollout.num_runs, self.horizon, dtype=torch.float64)
        if "lag_count" not in memory:
            return ones, ones
        variance = torch.where(memory["lag_count"] > 0, memory["lag_variance"], math.inf)
        mean, square = memory["target_mean"], memory["target_square"]
        spread = square - mean.square()
        reward_variance = torch.where(spread > 1e-12 * square, spread, 0.0).unsqueeze(-1)
        weight = lag_weight(variance, reward_variance, self.puf)
        known = memory["lag_count"] > 0
        relative = 1 / torch.maximum(variance, LEAST_VARIANCE * reward_variance).clamp_min(1e-300)
        if rollout.population is not None:
            relative = relative * rollout.population.coefficients["value_scale"].double().view(len(relative), -1) ** 2
        average = torch.where(known, relative, 0.0).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp_min(1)
        of_loss = torch.where(known & (average > 0), relative / average, 1.0)
        nothing = ~known.any(-1, keepdim=True)
        return torch.where(nothing, 1.0, weight), of_loss


def _remember(rollout: Rollout, memory: dict, target: torch.Tensor, known: torch.Tensor) -> dict:
    """Running means of the square error per lag and of the targets, over what the rollout knows; one run at a time, so
    that it is rounded as where the run is alone."""
    zeros = torch.zeros(rollout.num_runs, target.shape[-1], dtype=torch.float64)
    zero = zeros[:, 0]
    old = {"lag_variance": zeros, "lag_count": zeros, "target_mean": zero, "target_square": zero} | memory
    one_by_one = [rollout.of_each_run(x) for x in (target, rollout.value, known)]
    newest = [_of_one_run(*(x.flatten(0, -2) for x in own)) for own in zip(*one_by_one, strict=True)]
    variance, number, mean, square = (torch.stack(x) for x in zip(*newest, strict=True))
    finite = (variance.isfinite().all(-1) & square.isfinite()).unsqueeze(-1)
    taken = finite & (number > 0)
    count = old["lag_count"] + taken
    rate = (1 / count.clamp_min(1)).clamp_min(RATE)
    rate_of_run = rate.amin(-1)
    any_taken = taken.any(-1)

    def moved(before, after, rate, taken):
        return torch.where(taken, before + rate * (after - before), before)

    return memory | {
        "lag_variance": moved(old["lag_variance"], variance, rate, taken),
        "lag_count": count,
        "target_mean": moved(old["target_mean"], mean, rate_of_run, any_taken),
        "target_square": moved(old["target_square"], square, rate_of_run, any_taken),
    }


def _of_one_run(target, value, known):
    """Of (cells, H): mean square error and number of known ones per lag (H,); mean and mean square of the targets."""
    number = known.sum(0).double()
    error = torch.where(known, target - value, 0.0).double().square().sum(0) / number.clamp_min(1)
    target = torch.where(known, target, 0.0).double()
    total = number.sum().clamp_min(1)
    return error, number, target.sum() / total, target.square().sum() / total
