"""Optimizers of many runs: one update of each, clipped by its own norm, in one pass over memory.

Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization"; Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"; Liu et al. 2025, "Muon is scalable for LLM training", section 2.2, for its scale;
Tieleman & Hinton 2012, "Lecture 6.5, RMSprop", in PyTorch's form, whose epsilon stands outside the root and whose mean
square starts at 0, and in TensorFlow's, which OpenAI's baselines use: inside, and 1. Where gradients are small beside
√ε = 0.003, the second one's steps are that much shorter.
Differs: no weight decay; a parameter that the loss does not reach is left alone; Muon orthogonalises in float32, not in
bfloat16, and moves all matrices. Jordan leaves the first and last layer to Adam, but which these are is not to be seen
from outside a module, and a network with one hidden layer would have none left (PufferLib too hands Muon all of them).
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numba
import numpy as np
import torch

OPTIMIZERS = ("adam", "muon", "rmsprop", "rmsprop_tf")
RMSPROP = {"rmsprop": 1, "rmsprop_tf": 2}  # 0: another optimizer
DECAY_1, DECAY_2, EPSILON = 0.9, 0.999, 1e-5  # of Adam; the epsilon is that of PPO's reference implementations
CRITIC = ("critic", "value_head")  # names of the critic's own parts, in policies
MEAN_SQUARE_DECAY = 0.99  # of RMSprop, whose epsilon is Adam's
MOMENTUM, SHORTEST = 0.95, 1e-7  # of Muon: decay of its momentum; a shorter one is not stretched to length 1
LINEAR, CUBIC, QUINTIC, NUM_ITERATIONS = 3.4445, -4.7750, 2.0315, 5  # of the Newton-Schulz iteration
RMS = 0.2  # of Muon's change of a parameter, in learning rates: near Adam's, so one learning rate serves all parameters


def muon_matrices(optimizer: str, shapes: Iterable[tuple[int, ...]]) -> np.ndarray:
    """(rows, columns) of each parameter that Muon moves, (0, 0) of another's; (G, 2) int64.

    Muon moves matrices, with the filters of a convolution as rows. A single row or column (the value head) is left to
    Adam like a vector: it has one singular value, so orthogonalising would only normalise it (in a trial, PPO then
    learned cartpole at 1e-2 and above only). Raises ValueError for another optimizer.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; choose from {', '.join(OPTIMIZERS)}")
    flattened = [(shape[0], math.prod(shape[1:])) if len(shape) > 1 else (0, 0) for shape in shapes]
    own = [optimizer == "muon" and min(size) > 1 for size in flattened]
    return np.array([size if mine else (0, 0) for size, mine in zip(flattened, own, strict=True)], np.int64)


def annealed(coefficients: Mapping[str, torch.Tensor], name: str, rate: str | None = None) -> torch.Tensor:
    """Coefficient `name` now: where `anneal_<name>` is 1 it falls linearly to 0 with `progress`, the share of the
    training that is over; with `rate`, the coefficient of that name falls so instead."""
    value = coefficients[rate or name]
    anneal = coefficients.get(f"anneal_{name}")
    return value if anneal is None else value * (1 - anneal * coefficients["progress"])


def critic_parameters(names: Sequence[str], coefficients: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Which parameters move at `critic_learning_rate`, (G,) bool: where there is one, those that are called critic or
    value_head. Raises ValueError where nothing is called so."""
    if "critic_learning_rate" not in coefficients:
        return np.zeros(len(names), np.bool_)
    own = np.array([name.split(".")[0] in CRITIC for name in names])
    if not own.any():
        raise ValueError(
            f"critic_learning_rate needs parameters of the critic, whose names begin with {' or '.join(CRITIC)}; "
            f"this policy has {', '.join(names)}: name them so, or leave critic_learning_rate at None"
        )
    return own


def learning_rates(of_critic: np.ndarray, coefficients: Mapping[str, torch.Tensor]) -> np.ndarray:
    """The learning rate of each parameter of each run now, (R, G); those `of_critic` (G,) have one of their own, which
    falls like the others'."""
    rate = annealed(coefficients, "learning_rate")
    own = annealed(coefficients, "learning_rate", "critic_learning_rate") if of_critic.any() else rate
    return np.where(of_critic, own.numpy()[:, None], rate.numpy()[:, None])


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})
def _square_sum(values):
    total = 0.0
    for value in values:
        total += np.float64(value) * np.float64(value)
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _clip(norm, limit):
    return np.float32(limit / (norm + 1e-6)) if norm > limit else np.float32(1)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _rmsprop(values, v, g, clip, rate, tensorflow, is_first):
    """v ← 0.99 v + 0.01 g², θ ← θ − η g / (√v + ε), in place; with `tensorflow` √(v + ε), and the first v is 1."""
    decay, rest, epsilon = np.float32(MEAN_SQUARE_DECAY), np.float32(1 - MEAN_SQUARE_DECAY), np.float32(EPSILON)
    for i in range(len(g)):
        clipped = g[i] * clip
        v[i] = decay * (np.float32(1) if tensorflow and is_first else v[i]) + rest * clipped * clipped
        values[i] -= rate * clipped / (np.sqrt(v[i] + epsilon) if tensorflow else np.sqrt(v[i]) + epsilon)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _adam(flat, gradient, first, second, starts, matrices, rmsprop, count, rate, limit, allowed, norm):
    """Adam's or RMSprop's share of `update`, and the norms."""
    runs, groups = count.shape
    for run in range(runs):
        norm[run] = math.sqrt(_square_sum(gradient[run]))
        if not (allowed[run] and math.isfinite(norm[run])):
            continue
        clip = _clip(norm[run], limit[run])
        b1, b2 = np.float32(DECAY_1), np.float32(DECAY_2)
        c1, c2 = np.float32(1 - DECAY_1), np.float32(1 - DECAY_2)
        for group in range(groups):
            span = slice(starts[group], starts[group + 1])
            values, m, v, g = flat[run, span], first[run, span], second[run, span], gradient[run, span]
            if matrices[group, 0] > 0 or _square_sum(g) == 0:
                continue
            count[run, group] += 1
            if rmsprop:
                _rmsprop(values, v, g, clip, rate[run, group], rmsprop == 2, count[run, group] == 1)
                continue
            step = np.float32(rate[run, group] / (1 - DECAY_1 ** count[run, group]))
            root = np.float32(1 / math.sqrt(1 - DECAY_2 ** count[run, group]))
            for i in range(len(g)):
                clipped = g[i] * clip
                m[i] = b1 * m[i] + c1 * clipped
                v[i] = b2 * v[i] + c2 * clipped * clipped
                values[i] -= step * m[i] / (np.sqrt(v[i]) * root + np.float32(EPSILON))


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _product(out, a, b, symmetric):
    """out <- a b, all sides multiples of 4; of a symmetric result the lower triangle is a copy of the upper one.

    Two rows and four terms at a time: near the matrix library's speed, and with bits that depend on nothing else.
    """
    rows, inner = a.shape
    for i in range(rows):
        for j in range(b.shape[1]):
            out[i, j] = 0
    for i in range(0, rows, 2):
        start = i - i % 16 if symmetric else 0
        line_0, line_1 = out[i][start:], out[i + 1][start:]
        for k in range(0, inner, 4):
            p0, p1, p2, p3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            q0, q1, q2, q3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
            b0, b1, b2, b3 = b[k][start:], b[k + 1][start:], b[k + 2][start:], b[k + 3][start:]
            for j in range(len(line_0)):
                line_0[j] += p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j]
                line_1[j] += q0 * b0[j] + q1 * b1[j] + q2 * b2[j] + q3 * b3[j]
    if symmetric:
        for i in range(rows):
            for j in range(i):
                out[i, j] = out[j, i]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def orthogonalize(matrix):
    """U S' Vᵀ for a float32 matrix U S Vᵀ: singular values of any common scale come out as about 1 (0.68 to 1.21).

    X ← aX + (bA + cA²)X, A = XXᵀ, five times from X = matrix / ‖matrix‖; of a tall matrix the transpose is taken,
    whose A is smaller. Singular values below 0.002 of the norm come out smaller, and a matrix of zeros stays one.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    rows, columns = matrix.shape
    if tall:
        rows, columns = columns, rows
    height, width = (rows + 3) // 4 * 4, (columns + 3) // 4 * 4  # zeros at the edges change nothing
    scale = np.float32(1 / max(math.sqrt(_square_sum(matrix.ravel())), SHORTEST))
    x, transposed = np.zeros((height, width), np.float32), np.empty((width, height), np.float32)
    for i in range(rows):
        for j in range(columns):
            x[i, j] = (matrix[j, i] if tall else matrix[i, j]) * scale
    gram, factor = np.empty((height, height), np.float32), np.empty((height, height), np.float32)
    product = np.empty_like(x)
    for _ in range(NUM_ITERATIONS):
        for i in range(height):
            for j in range(width):
                transposed[j, i] = x[i, j]
        _product(gram, x, transposed, True)
        _product(factor, gram, gram, True)
        for i in range(height):
            for j in range(height):
                factor[i, j] = np.float32(CUBIC) * gram[i, j] + np.float32(QUINTIC) * factor[i, j]
            factor[i, i] += np.float32(LINEAR)
        _product(product, factor, x, False)
        x, product = product, x
    out = np.empty_like(matrix)
    for i in range(rows):
        for j in range(columns):
            if tall:
                out[j, i] = x[i, j]
            else:
                out[i, j] = x[i, j]
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _muon(flat, gradient, first, starts, matrices, count, rate, limit, allowed, norm):
    """Muon's share of `update`, behind `_adam`."""
    runs, groups = count.shape
    for run in range(runs):
        if not (allowed[run] and math.isfinite(norm[run])):
            continue
        clip = _clip(norm[run], limit[run])
        b, c = np.float32(MOMENTUM), np.float32(1 - MOMENTUM)
        for group in range(groups):
            rows, columns = matrices[group]
            span = slice(starts[group], starts[group + 1])
            values, m, g = flat[run, span], first[run, span], gradient[run, span]
            if rows == 0 or _square_sum(g) == 0:
                continue
            count[run, group] += 1
            ahead = np.empty_like(g)  # Nesterov: the momentum, one more decay ahead
            for i in range(len(g)):
                clipped = g[i] * clip
                m[i] = b * m[i] + c * clipped
                ahead[i] = b * m[i] + c * clipped
            direction = orthogonalize(ahead.reshape(rows, columns)).ravel()
            step = np.float32(rate[run, group] * RMS * math.sqrt(max(rows, columns)))
            for i in range(len(g)):
                values[i] -= step * direction[i]


def update(flat, gradient, first, second, starts, matrices, rmsprop, count, rate, limit, allowed, norm):
    """One update of each run that is allowed one: of each parameter by Muon where `matrices` says so, else by Adam, or
    where `rmsprop` is not 0 by RMSprop, in TensorFlow's form where it is 2.

    Adam: θ ← θ − η m̂ / (√v̂ + ε). RMSprop: v ← 0.99 v + 0.01 g², θ ← θ − η g / (√v + ε), TensorFlow's: / √(v + ε).
    Muon: m ← 0.95 m + 0.05 g; θ ← θ − 0.2 √max(rows, columns) η O, where O is 0.95 m + 0.05 g orthogonalised; a
    full-rank change thus has the root mean square 0.2 η, near Adam's. O does not depend on the scale of the gradients:
    clipping one only weighs it against those before.

    Args: flat, gradient, first, second (R, P) float32: parameters, gradients and moments of all runs (Muon has no
    second, RMSprop no first); starts (G + 1,): where each parameter tensor begins; matrices (G, 2): of
    `muon_matrices`; count (R, G): updates of it; rate (R, G): learning rates η; limit (R,): longest gradient; allowed
    (R,) bool. Fills norm (R,), the gradients' lengths before clipping; a run whose norm is not finite stays.

    A parameter whose gradient is zero throughout is left alone, momentum and count too: a loss that does not reach it
    does not move it.
    """
    _adam(flat, gradient, first, second, starts, matrices, rmsprop, count, rate, limit, allowed, norm)
    if matrices.any():  # whoever uses Adam alone need not wait for Muon's compilation
        _muon(flat, gradient, first, starts, matrices, count, rate, limit, allowed, norm)
