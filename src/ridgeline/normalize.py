"""Running statistics of observations and of critic targets, per run, in float64.

Both are updated between learning and the next acting, never in between: the first minibatch's ratio stays exactly 1.
"""

import numba
import numpy as np
import torch


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sums(x, valid, shift, total, square):
    """total, square (R, D) += sums over t and n of (x - shift) and of its square; x (T, R, N, D), shift (R, D); only
    where valid (T, R, N), or everywhere where that is empty."""
    every = valid.size == 0
    steps, runs, rows, columns = x.shape
    for t in range(steps):
        for run in range(runs):
            offset, one_total, one_square = shift[run], total[run], square[run]
            for row in range(rows):
                if not (every or valid[t, run, row]):
                    continue
                line = x[t, run, row]
                for i in range(columns):
                    difference = line[i] - offset[i]
                    one_total[i] += difference
                    one_square[i] += difference * difference


def _rows(x: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """How many rows of x (T, R, N, ...) each run has, (R,) float64."""
    if valid is None:
        return torch.full((x.shape[1],), float(x.shape[0] * x.shape[2]), dtype=torch.float64)
    return valid.sum((0, 2)).double()


def _flags(valid: torch.Tensor | None) -> np.ndarray:
    return np.empty((0, 0, 0), np.bool_) if valid is None else valid.numpy()


class RunningMoments:
    """Mean and variance of all rows seen so far, per run and column (Chan, Golub & LeVeque 1983).

    mean, variance (R, D) float64; count (R,) float64. Before the first update: mean 0, variance 1, count 0.
    """

    def __init__(self, num_runs: int, columns: int):
        self.mean = torch.zeros(num_runs, columns, dtype=torch.float64)
        self.variance = torch.ones(num_runs, columns, dtype=torch.float64)
        self.count = torch.zeros(num_runs, dtype=torch.float64)

    def update(
        self, x: torch.Tensor, active: torch.Tensor | None = None, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Take in x (T, R, N, D) of the `active` runs (R,), where `valid` (T, R, N). Returns those taken in, (R,) bool.

        A run with a non-finite entry keeps its statistics.
        """
        rows = _rows(x, valid)
        # sums of differences, lest squares of large numbers cancel: from the mean, or at first from any row
        shift = torch.where(
            self.count.unsqueeze(1) > 0, self.mean, x[-1, :, 0].double() if valid is not None else x[0, :, 0].double()
        )
        total, square = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        _sums(x.numpy(), _flags(valid), shift.numpy(), total.numpy(), square.numpy())
        taken = torch.isfinite(square).all(1) & (rows > 0)
        if active is not None:
            taken &= active
        divisor = rows.clamp_min(1).unsqueeze(1)
        batch_mean = total / divisor  # of x - shift
        batch_variance = (square / divisor - batch_mean.square()).clamp_min(0.0)
        difference = shift + batch_mean - self.mean
        count = self.count + rows
        share = (rows / count).unsqueeze(1)
        mean = self.mean + share * difference
        variance = (1 - share) * self.variance + share * batch_variance + share * (1 - share) * difference.square()
        column = taken.unsqueeze(1)
        self.mean = torch.where(column, mean, self.mean)
        self.variance = torch.where(column, variance, self.variance)
        self.count = torch.where(taken, count, self.count)
        return taken

    def scale(self) -> torch.Tensor:
        """1 / standard deviation, (R, D) float32; a column that never varies is scaled by 1."""
        return torch.where(self.variance > 1e-12, self.variance + 1e-8, 1.0).rsqrt().float()


class TargetMoments:
    """Exponentially weighted mean and standard deviation of the critic's targets, per run and head, (R, K) float64.

    The weight of the newest rollout is max(rate, 1 / number of rollouts). The standard deviation is at least 1% of the
    root mean square, so a constant target is not divided by zero, and at least 1% of the largest so far, so a critic
    whose rewards have stopped does not magnify what is left. It is 1 while all targets are 0.
    """

    RATE = 0.05

    def __init__(self, num_runs: int, num_values: int):
        self.mean = torch.zeros(num_runs, num_values, dtype=torch.float64)
        self.square = torch.zeros(num_runs, num_values, dtype=torch.float64)
        self.peak = torch.zeros(num_runs, num_values, dtype=torch.float64)
        self.count = torch.zeros(num_runs, dtype=torch.float64)

    def update(
        self, target: torch.Tensor, active: torch.Tensor | None = None, valid: torch.Tensor | None = None
    ) -> None:
        """Take in target (T, R, N, K) of the `active` runs (R,), where `valid` (T, R, N); with a non-finite entry a run
        keeps its statistics."""
        rows = _rows(target, valid).clamp_min(1).unsqueeze(1)
        total, square = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        _sums(target.numpy(), _flags(valid), np.zeros(self.mean.shape), total.numpy(), square.numpy())
        taken = torch.isfinite(square).all(1) & (_rows(target, valid) > 0)
        if active is not None:
            taken &= active
        count = self.count + 1
        weight = torch.where(taken, torch.clamp_min(1 / count, self.RATE), 0.0).unsqueeze(1)
        self.mean = torch.where(weight > 0, self.mean + weight * (total / rows - self.mean), self.mean)
        self.square = torch.where(weight > 0, self.square + weight * (square / rows - self.square), self.square)
        self.count = torch.where(taken, count, self.count)
        self.peak = torch.maximum(self.peak, self._spread())

    def _spread(self) -> torch.Tensor:
        variance = (self.square - self.mean.square()).clamp_min(0.0)
        return (variance + 1e-4 * self.square).sqrt()

    def scale(self) -> torch.Tensor:
        """Standard deviation (R, K) float64."""
        spread = torch.maximum(self._spread(), 0.01 * self.peak)
        return torch.where(spread > 1e-12, spread, 1.0)

    def error_scale(self) -> torch.Tensor:
        """The unit of each head's error in the critic's loss, (R, K) float64: the root mean square of its targets,
        times the largest ratio of standard deviation to root mean square among the heads. With one head it is `scale`.

        In units of its own standard deviation a head whose targets hardly vary would drown the others: the noise of a
        constant, magnified.
        """
        scale = self.scale()
        size = torch.maximum(self.square.sqrt(), scale)
        return size * (scale / size).amax(-1, keepdim=True) if size.shape[-1] > 1 else scale
