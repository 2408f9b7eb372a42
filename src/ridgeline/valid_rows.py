"""Cells that are no transition (a dead agent, another player's turn, a frozen opponent): moved out of the way behind
acting, and left out of every mean.

After acting, the valid cells of each column are moved to the rollout's end, in their order, so that its last row is the
cut for every column and a recursion over time meets no hole; what is left free before them is zeros, terminated. A
reward or an end that comes while a row is not asked belongs to what the row did last. Whatever stood in invalid cells
is selected away here, before any arithmetic.
"""

from typing import Any

import numba
import numpy as np
import torch


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _compact(valid, reward, terminated, truncated, source, place):
    """Credit what comes in invalid cells, and say where the valid ones go.

    In place: reward, terminated, truncated (T, B) take what is credited to their cells. Fills source (T, B): the step
    from which a cell is taken, -1 where it stays free; place (T, B): where what ended in a cell goes, -1 where it is
    dropped: before the column's first valid cell, or behind an end.
    """
    steps, rows = valid.shape
    last, ended = np.full(rows, -1, np.int64), np.zeros(rows, np.bool_)
    for t in range(steps):
        for row in range(rows):
            over = terminated[t, row] or truncated[t, row]
            source[t, row], place[t, row] = -1, -1
            if valid[t, row]:
                last[row], ended[row], place[t, row] = t, over, t
            elif last[row] >= 0 and not ended[row]:
                reward[last[row], row] += reward[t, row]
                if over:
                    terminated[last[row], row], truncated[last[row], row] = terminated[t, row], truncated[t, row]
                    ended[row], place[t, row] = True, last[row]
    free = np.full(rows, steps - 1, np.int64)
    moved = np.empty((steps, rows), np.int64)
    for t in range(steps - 1, -1, -1):
        for row in range(rows):
            if valid[t, row]:
                source[free[row], row], moved[t, row] = t, free[row]
                free[row] -= 1
    for t in range(steps):
        for row in range(rows):
            if place[t, row] >= 0:
                place[t, row] = moved[place[t, row], row]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _move(x, source):
    """x (T, B, bytes) <- x at `source`, 0 where that is -1; in place, for no cell moves towards the beginning."""
    steps, rows, size = x.shape
    for t in range(steps - 1, -1, -1):
        for row in range(rows):
            if source[t, row] < 0:
                x[t, row, :] = 0
            elif source[t, row] != t:
                for i in range(size):  # x[t, row] = x[source[t, row], row] would take 1.5 s to compile
                    x[t, row, i] = x[source[t, row], row, i]


def compact(
    valid: torch.Tensor, reward: torch.Tensor, terminated: torch.Tensor, truncated: torch.Tensor, *others: torch.Tensor
) -> np.ndarray:
    """Move the valid cells of each column to the end of all tensors (T, B, ...), `valid` (T, B) among them, in place.

    Returns where what ended in a cell is now, (T, B) int64; -1 where it belongs to nothing that is left.
    """
    flags = valid.numpy()
    source, place = np.empty(flags.shape, np.int64), np.empty(flags.shape, np.int64)
    _compact(flags, reward.numpy(), terminated.numpy(), truncated.numpy(), source, place)
    for tensor in (reward, terminated, truncated, *others):
        array = tensor.numpy()
        _move(array.reshape(*flags.shape, -1).view(np.uint8), source)
    np.greater_equal(source, 0, out=flags)
    terminated |= ~valid
    return place


# ------------------------------------------------------------------------------- over the rows of one run's minibatch


def select(x: torch.Tensor, minibatch: dict[str, Any]) -> torch.Tensor:
    """x (M, ...) of the minibatch's valid rows, 0 in the others."""
    if "valid" not in minibatch:
        return x
    valid = minibatch["valid"]
    return torch.where(valid.view(*valid.shape, *[1] * (x.dim() - valid.dim())), x, 0.0)


def mean(x: torch.Tensor, minibatch: dict[str, Any]) -> torch.Tensor:
    """The mean of x (M, ...) over the minibatch's valid rows."""
    if "valid" not in minibatch:
        return x.mean()
    count = minibatch["valid"].sum().clamp_min(1) * (x.numel() // minibatch["valid"].numel())
    return select(x, minibatch).sum() / count


def standardized(x: torch.Tensor, minibatch: dict[str, Any]) -> torch.Tensor:
    """(x − mean) / (standard deviation + 1e-8) of x (M,) over the minibatch's valid rows."""
    if "valid" not in minibatch:
        return (x - x.mean()) / (x.std(correction=0) + 1e-8)
    difference = select(x - mean(x, minibatch), minibatch)
    return difference / (mean(difference.square(), minibatch).sqrt() + 1e-8)
