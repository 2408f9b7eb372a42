"""Optimizers of many runs: one step of each, clipped by its own norm, in one pass over memory."""

import math

import numba
import numpy as np

DECAY_1, DECAY_2, EPSILON = 0.9, 0.999, 1e-5  # of Adam; the epsilon is that of PPO's reference implementations


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})
def _square_sum(values):
    total = 0.0
    for value in values:
        total += np.float64(value) * np.float64(value)
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def adam(flat, gradient, first, second, starts, count, rate, limit, allowed, norm):
    """One Adam step (Kingma & Ba 2015) of each run that is allowed one.

    Args: flat, gradient, first, second (R, P) float32: parameters, gradients and Adam's moments of all runs; starts
    (G + 1,): where each parameter tensor begins; count (R, G): steps it has taken; rate, limit (R,): learning rate and
    longest gradient; allowed (R,) bool. Fills norm (R,), the gradients' lengths before clipping; a run whose norm is
    not finite stays.

    A parameter whose gradient is zero throughout is left alone, momentum and count too: a loss that does not reach it
    does not move it.
    """
    runs, groups = count.shape
    for run in range(runs):
        total = _square_sum(gradient[run])
        norm[run] = math.sqrt(total)
        if not (allowed[run] and math.isfinite(norm[run])):
            continue
        clip = np.float32(1)
        if norm[run] > limit[run]:
            clip = np.float32(limit[run] / (norm[run] + 1e-6))
        b1, b2 = np.float32(DECAY_1), np.float32(DECAY_2)
        c1, c2 = np.float32(1 - DECAY_1), np.float32(1 - DECAY_2)
        for group in range(groups):
            span = slice(starts[group], starts[group + 1])
            values, m, v, g = flat[run, span], first[run, span], second[run, span], gradient[run, span]
            if _square_sum(g) == 0:
                continue
            count[run, group] += 1
            step = np.float32(rate[run] / (1 - DECAY_1 ** count[run, group]))
            root = np.float32(1 / math.sqrt(1 - DECAY_2 ** count[run, group]))
            for i in range(len(g)):
                clipped = g[i] * clip
                m[i] = b1 * m[i] + c1 * clipped
                v[i] = b2 * v[i] + c2 * clipped * clipped
                values[i] -= step * m[i] / (np.sqrt(v[i]) * root + np.float32(EPSILON))
