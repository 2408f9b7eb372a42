"""What the adaptive mixture is made of: many advantages at once, their policy gradients in the last layer, and the
weights that make of them the best gradient.

Everything here is of one run, or treats runs one by one, so a run alone gives the same bits as in a population.
"""

import numba
import numpy as np

PRODUCT = 1 << 19  # numbers that a product takes at once
STRENGTH = 0.05  # of the pull towards the prior
STEPS = 200  # of the projected gradient
SURE = 2.0  # standard errors within which a difference counts as noise
TINY = 1e-300


@numba.njit(nogil=True, cache=True, error_model="numpy")
def components(reward, value, next_value, terminated, truncated, gamma, head, decay, out):
    """GAE for several discounts and trace decays at once.

        δₜ⁽ᵏ⁾ = rₜ + γₖ v'ₜ⁽ᵏ⁾ − Vₖ(sₜ),   Âₜ⁽ᶜ⁾ = δₜ⁽ᵏ⁾ + γₖ λ_c Âₜ₊₁⁽ᶜ⁾  until the piece ends,   k: c's head

    Args: reward (T, B); value, next_value (T, B, K); terminated, truncated (T, B) bool; gamma (K,); head (C,) int;
    decay (C,): γ λ of each component. Fills out (T, B, C), in units of reward.
    """
    steps, rows, num_heads = value.shape
    num_components = len(head)
    delta = np.empty(num_heads, np.float32)
    for t in range(steps - 1, -1, -1):
        for row in range(rows):
            ends = terminated[t, row] or truncated[t, row]
            for k in range(num_heads):
                error = reward[t, row] - value[t, row, k]
                # selected, not multiplied: what lies behind an end may be anything
                if not terminated[t, row]:
                    error += gamma[k] * next_value[t, row, k]
                delta[k] = error
            if ends or t == steps - 1:
                for c in range(num_components):
                    out[t, row, c] = delta[head[c]]
            else:
                for c in range(num_components):
                    out[t, row, c] = delta[head[c]] + decay[c] * out[t + 1, row, c]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def moments(advantage, valid, mean, square):
    """Mean and mean square of each component over valid cells (T, N): advantage (T, N, C) -> (C,), (C,) float64."""
    steps, rows, num_components = advantage.shape
    mean[:] = 0
    square[:] = 0
    count = 0
    for t in range(steps):
        for row in range(rows):
            if not valid[t, row]:
                continue
            count += 1
            for c in range(num_components):
                a = np.float64(advantage[t, row, c])
                mean[c] += a
                square[c] += a * a
    mean /= max(count, 1)
    square /= max(count, 1)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _scores_and_reference(error, ends, valid, decay, score, feature, free, instances, trace, psi, reference):
    """Fill psi (T, n, P) of some instances, add to reference (P,), and carry their traces on."""
    num_scores, width, num_free = score.shape[2], feature.shape[2], free.shape[2]
    for i in range(len(instances)):
        n = instances[i]
        e = trace[n]
        for t in range(len(error)):
            line = psi[t, i]
            if not valid[t, n]:
                line[:] = 0
                continue
            for s in range(num_scores):
                part = line[s * (width + 1) : (s + 1) * (width + 1)]
                value = score[t, n, s]
                for f in range(width):
                    part[f] = value * feature[t, n, f]
                part[width] = value
            for s in range(num_free):
                line[num_scores * (width + 1) + s] = free[t, n, s]
            delta = error[t, n]
            for p in range(len(line)):
                e[p] = line[p] + decay * e[p]
                reference[p] += delta * e[p]
            if ends[t, n]:
                e[:] = 0


def gradients(advantage, centre, error, ends, valid, decay, score, feature, free, instances, trace):
    """Policy gradients in the last layer's weights, of some instances of one run: the sums over their rows of

        gradient[c] = Σ (Âₜ⁽ᶜ⁾ − centre_c) ψₜ,      reference = Σ δₜ eₜ,   eₜ = ψₜ + γ eₜ₋₁ within an episode,
        ψₜ = score ⊗ [feature, 1] beside score_free: how log π(aₜ|sₜ) depends on the last layer

    The reference is the policy gradient of the return with nothing cut off at the rollout's end: in a rollout, each TD
    error is credited to every action of its episode so far, whichever rollout that was taken in (the backward view of
    TD(1), Sutton & Barto 2018, section 12.2).

    Args: advantage (T, N, C) float32; centre (C,) float32; error (T, N): the reference's TD errors δ; ends (T, N) bool;
    valid (T, N) bool: the cells that count; decay: its γ; score (T, N, S), feature (T, N, F), free (T, N, S0);
    instances: those to take; trace (N, P): e at the rollout's beginning, left as it is at its end, P = S (F + 1) + S0.
    Returns gradient (C, P), reference (P,).
    """
    length, size = len(error), trace.shape[1]
    gradient, reference = np.zeros((len(centre), size), np.float32), np.zeros(size, np.float32)
    together = max(1, PRODUCT // (length * size))  # instances whose ψ stay in the cache
    psi = np.empty((length, min(together, len(instances)), size), np.float32)
    for start in range(0, len(instances), together):
        part = instances[start : start + together]
        if len(part) != psi.shape[1]:
            psi = np.empty((length, len(part), size), np.float32)
        _scores_and_reference(error, ends, valid, decay, score, feature, free, part, trace, psi, reference)
        centred = (advantage[:, part] - centre).reshape(-1, len(centre))
        gradient += centred.T @ psi.reshape(-1, size)
    return gradient, reference


@numba.njit(nogil=True, cache=True, error_model="numpy")
def mix(advantage, valid, mean, weight, out):
    """out (T, N) = sum over c of weight_c (advantage (T, N, C) − mean_c), standardised: mean 0, variance 1 over valid
    cells (T, N); the others are 0."""
    steps, rows, num_components = advantage.shape
    total, square, count = 0.0, 0.0, 0
    for t in range(steps):
        for row in range(rows):
            if not valid[t, row]:
                continue
            count += 1
            value = 0.0
            for c in range(num_components):
                value += weight[c] * (advantage[t, row, c] - mean[c])
            out[t, row] = value
            total += value
            square += value * value
    count = max(count, 1)
    centre = total / count
    scale = 1 / (np.sqrt(max(square / count - centre * centre, 0.0)) + 1e-8)
    for t in range(steps):
        for row in range(rows):
            out[t, row] = (out[t, row] - centre) * scale if valid[t, row] else 0.0


def ridge(matrix: np.ndarray, vector: np.ndarray, prior: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """The weights w that minimise wᵀMw − 2wᵀb + ε|w − s₀w₀|²: (M + ε I)⁻¹ (b + ε s₀ w₀).

    ε = strength tr(M)/C; s₀ = max(0, w₀ᵀb / w₀ᵀMw₀), the best multiple of the prior w₀ by the same measure.
    """
    epsilon = strength * np.trace(matrix) / len(vector)
    scale = max(0.0, prior @ vector / max(prior @ matrix @ prior, TINY))
    return np.linalg.solve(matrix + epsilon * np.eye(len(vector)), vector + epsilon * scale * prior)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def nonnegative_ridge(matrix, vector, prior, strength=STRENGTH):
    """As `ridge`, over w >= 0: projected gradient with momentum (Nesterov 1983; Beck & Teboulle 2009, FISTA).

    s₀ is at least 0.001, so that what the data do not decide stays at a multiple of the prior.
    """
    size = len(vector)
    trace, signal, power, bound = 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        trace += matrix[i, i]
        signal += prior[i] * vector[i]
        row = 0.0
        for j in range(size):
            power += prior[i] * matrix[i, j] * prior[j]
            row += abs(matrix[i, j])
        bound = max(bound, row)  # the largest eigenvalue is at most the largest row sum
    epsilon = strength * trace / size
    scale = max(signal / max(power, TINY), 1e-3)
    rate = 1.0 / max(bound + epsilon, TINY)
    weight = scale * prior
    ahead, following, inertia = weight.copy(), weight.copy(), 1.0
    for _ in range(STEPS):
        for i in range(size):
            slope = epsilon * (ahead[i] - scale * prior[i]) - vector[i]
            for j in range(size):
                slope += matrix[i, j] * ahead[j]
            following[i] = max(ahead[i] - rate * slope, 0.0)
        stronger = 0.5 * (1 + np.sqrt(1 + 4 * inertia * inertia))
        for i in range(size):
            ahead[i] = following[i] + (inertia - 1) / stronger * (following[i] - weight[i])
            weight[i] = following[i]
        inertia = stronger
    return weight


def without_noise(
    matrix: np.ndarray, vector: np.ndarray, noise: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, float]:
    """b (C,) as far as its noise does not explain it, and the share of M that is kept.

    Along each principal axis q of M, what sets b apart from s₀Mw₀ (then the prior would be best) is multiplied by
    max(0, 1 − 4 Var(qᵀb)/(qᵀ(b − s₀Mw₀))²): nothing is left within two standard errors, nearly all far beyond them
    (James & Stein 1961, by single axes and with a margin).

    Args: matrix M, vector b, noise: the covariance of b, prior w₀.
    """
    expected = max(0.0, prior @ vector / max(prior @ matrix @ prior, TINY)) * (matrix @ prior)
    size, axes = np.linalg.eigh(matrix)
    difference = axes.T @ (vector - expected)
    variance = np.maximum(np.einsum("ci,cd,di->i", axes, noise, axes), 0.0)
    keep = np.maximum(0.0, 1 - SURE**2 * variance / np.maximum(difference * difference, TINY))
    return expected + axes @ (keep * difference), float(keep @ size / max(size.sum(), TINY))


def held_out(matrix: np.ndarray, vector: np.ndarray, mass: np.ndarray, prior: np.ndarray) -> float:
    """How surely the regression beats the prior on data that it has not seen: z = mean(d) / (sd(d)/√F) over F folds,

        d_f = S_f(w_f) − S_f(w₀),   S_f(w) = wᵀb_f / √(wᵀM_f w),   w_f from the other folds

    Args: matrix (F, C, C), vector (F, C), mass (F,): sums over the rollouts of each fold, and their weights.
    """
    differences = []
    for fold in range(len(mass)):
        others = np.arange(len(mass)) != fold
        total = mass[others].sum()
        weight = ridge(matrix[others].sum(0) / total, vector[others].sum(0) / total, prior)
        own, signal = matrix[fold] / mass[fold], vector[fold] / mass[fold]

        def score(w, own=own, signal=signal):
            return w @ signal / np.sqrt(max(w @ own @ w, 1e-30))

        differences.append(score(weight) - score(prior))
    spread = np.std(differences, ddof=1) / np.sqrt(len(mass))
    return float(np.mean(differences) / max(spread, 1e-30))
