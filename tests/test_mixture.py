"""What the adaptive mixture is made of: kernels against slow twins in float64, solves against exact answers."""

import itertools

import naive
import numpy as np
import pytest
import torch
from test_estimators import PATTERNS, slow
from test_more_estimators import heads

from ridgeline import mixture
from ridgeline.estimators.adaptive_mixture import COUNT, GAMMAS, HEAD, TRACE, advantages
from ridgeline.mixture import held_out, nonnegative_ridge, ridge, without_noise

STRENGTHS = (1e-12, 1e-3, 0.05, 1.0, 1e12)


# --------------------------------------------------------------------------------------------------------- components


def test_the_components_are_these():
    pairs = [(GAMMAS[k], trace) for k, trace in zip(HEAD, TRACE, strict=True)]
    assert pairs == [(0.0, 1.0), *itertools.product((0.8, 0.95, 0.98, 0.99, 0.998), (0.5, 0.8, 0.95, 1.0))]


@pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
def test_components_are_gae_one_by_one(steps, columns, chance):
    """Random flags, both at once too, on the first row and on the last; T = 1; NaN behind every termination."""
    batch = heads(steps, columns, chance, len(GAMMAS), dtype=torch.float32)
    assert bool(batch.next_value[batch.terminated].isnan().all())
    advantage, target = advantages(batch)
    assert advantage.shape == (steps, 1, columns, COUNT) and target.shape == (steps, columns, len(GAMMAS))

    def twin(head, trace):
        names = "reward", "value", "next_value", "terminated", "truncated"
        given = [getattr(batch, name) for name in names]
        given = [tensor[..., head] if tensor.dim() == 3 else tensor for tensor in given]
        return slow(naive.generalized_advantage, given, float(GAMMAS[head]), trace)

    def check(result, expected):  # also refuses NaN
        assert (result - expected).abs().max() < 1e-5 * (1 + expected.abs().max())

    for c in range(COUNT):
        check(torch.from_numpy(advantage[:, 0, :, c]), twin(HEAD[c], TRACE[c]))
    for head in range(len(GAMMAS)):
        check(target[..., head], twin(head, 0.95) + batch.value[..., head])


def test_components_stand_by_run():
    one, three = heads(9, 6, 0.2, 6, dtype=torch.float32), heads(9, 6, 0.2, 6, num_runs=3, dtype=torch.float32)
    alone, together = advantages(one)[0], advantages(three)[0]
    assert together.shape == (9, 3, 2, COUNT)
    for run, instance in itertools.product(range(3), range(2)):
        np.testing.assert_array_equal(together[:, run, instance], alone[:, 0, 2 * run + instance])


# ---------------------------------------------------------------------------------------------------------- gradients


def twin_gradients(advantage, centre, error, ends, decay, psi, instances, first):
    """Sums over the rows from `first` on, in float64; the reference is a double loop over every TD error's past."""
    gradient = np.einsum("tnc,tnp->cp", (advantage - centre)[first:, instances], psi[first:, instances])
    reference = np.zeros(psi.shape[2])
    for n in instances:
        for t in range(first, len(error)):
            for back in range(t + 1):
                if back > 0 and ends[t - back, n]:
                    break  # that row belongs to the episode before
                reference += float(error[t, n]) * decay**back * psi[t - back, n]
    return gradient, reference


def trace_behind(psi, ends, decay):
    """The trace (N, P) after the last row."""
    trace = np.zeros(psi.shape[1:])
    for n in range(psi.shape[1]):
        for t in reversed(range(len(psi))):
            if ends[t, n]:
                break
            trace[n] += decay ** (len(psi) - 1 - t) * psi[t, n]
    return trace


@pytest.mark.parametrize("product", [1, 100, 1 << 19])
@pytest.mark.parametrize(
    ("steps", "num_envs", "scores", "width", "free"), [(1, 3, 1, 1, 0), (7, 5, 3, 4, 0), (6, 8, 2, 3, 2)]
)
def test_gradients_and_the_trace_that_goes_on(monkeypatch, steps, num_envs, scores, width, free, product):
    """Three rollouts in a row, of which the second and third find the trace of the one before."""
    monkeypatch.setattr(mixture, "PRODUCT", product)  # how many instances a product takes must not matter
    rng = np.random.default_rng([steps, num_envs])
    score, feature, score_free = (
        rng.normal(size=(3 * steps, num_envs, size)).astype(np.float32) for size in (scores, width, free)
    )
    advantage = rng.normal(size=(3 * steps, num_envs, 4)).astype(np.float32)
    error = rng.normal(size=(3 * steps, num_envs)).astype(np.float32)
    ends = rng.random((3 * steps, num_envs)) < 0.15
    ends[steps - 1, 0], ends[:, 1] = True, False  # one ends with the first rollout, one never
    centre = rng.normal(size=4).astype(np.float32)
    wide = np.concatenate([feature, np.ones_like(feature[..., :1])], -1).astype(np.float64)
    psi = np.concatenate([np.einsum("tns,tnf->tnsf", score, wide).reshape(*error.shape, -1), score_free], -1)
    instances, decay = rng.permutation(num_envs)[: max(2, num_envs - 2)], np.float32(0.9)
    trace = np.zeros((num_envs, psi.shape[2]), np.float32)
    for start in (0, steps, 2 * steps):
        part = slice(start, start + steps)
        inputs = [np.ascontiguousarray(a[part]) for a in (advantage, error, ends, score, feature, score_free)]
        a, d, e, s, f, s0 = inputs
        every = np.ones(e.shape, bool)
        gradient, reference = mixture.gradients(a, centre, d, e, every, decay, s, f, s0, instances, trace)
        assert gradient.shape == (4, psi.shape[2]) and reference.shape == (psi.shape[2],)
        until = slice(0, start + steps)
        expected = twin_gradients(
            advantage[until], centre, error[until], ends[until], float(decay), psi[until], instances, start
        )
        np.testing.assert_allclose(gradient, expected[0], atol=2e-5)
        np.testing.assert_allclose(reference, expected[1], atol=5e-5)
        going_on = trace_behind(psi[until], ends[until], float(decay))
        np.testing.assert_allclose(trace[instances], going_on[instances], atol=1e-5)
        others = np.setdiff1d(np.arange(num_envs), instances)
        assert not trace[others].any()
        if start == 0:
            assert not trace[0].any()  # its episode is over


def test_moments_and_mix():
    rng = np.random.default_rng(3)
    advantage = (rng.normal(size=(11, 7, 5)) * [1, 1e-3, 1e3, 1, 1] + [0, 1, 100, -5, 0]).astype(np.float32)
    advantage[..., 4] = 2.5  # does not vary
    mean, square = np.empty(5), np.empty(5)
    every = np.ones((11, 7), bool)
    mixture.moments(advantage, every, mean, square)
    exact = advantage.astype(np.float64).reshape(-1, 5)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(square, (exact**2).mean(0), rtol=1e-12)
    weight, out = np.array([1.0, -700.0, 2e-3, 0.3, 5.0]), np.empty((11, 7), np.float32)
    mixture.mix(advantage, every, mean, weight, out)
    expected = (exact - exact.mean(0)) @ weight
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(out, expected.reshape(11, 7), atol=1e-5)
    mixture.mix(advantage, every, mean, np.array([0.0, 0, 0, 0, 1]), out)
    assert np.abs(out).max() < 1e-6  # nothing varies: no division by zero


# ------------------------------------------------------------------------------------------------------------- solves


def problem(seed, size=6, samples=40):
    """A positive definite M that is nearly singular, b and w0 > 0 of random directions."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(samples, size)) + 2 * rng.normal(size=(samples, 1))
    return columns.T @ columns / samples, rng.normal(size=size), rng.uniform(0.5, 1.5, size) / size


@pytest.mark.parametrize("solve", [ridge, nonnegative_ridge])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_where_the_prior_is_best_it_stays(solve, strength):
    matrix, _, prior = problem(1)
    np.testing.assert_allclose(solve(matrix, 0.7 * matrix @ prior, prior, strength), 0.7 * prior, rtol=1e-4)


def test_ridge_at_its_limits():
    matrix, vector, prior = problem(2)
    vector = vector if prior @ vector > 0 else -vector
    scale = prior @ vector / (prior @ matrix @ prior)
    np.testing.assert_allclose(ridge(matrix, vector, prior, 1e-12), np.linalg.solve(matrix, vector), rtol=1e-6)
    np.testing.assert_allclose(ridge(matrix, vector, prior, 1e12), scale * prior, rtol=1e-6)
    # the pull is never towards a negative multiple of the prior: with b turned round, it is towards 0
    lengths = [np.linalg.norm(ridge(matrix, -vector, prior, strength)) for strength in STRENGTHS]
    assert sorted(lengths, reverse=True) == lengths and lengths[-1] < 1e-9 * lengths[0]


@pytest.mark.parametrize("seed", range(5))
def test_ridge_is_a_minimum(seed):
    matrix, vector, prior = problem(seed)
    epsilon = 0.05 * np.trace(matrix) / len(vector)
    scale = max(0.0, prior @ vector / (prior @ matrix @ prior))
    weight = ridge(matrix, vector, prior)

    def loss(w):
        return w @ matrix @ w - 2 * w @ vector + epsilon * np.sum((w - scale * prior) ** 2)

    for direction in np.random.default_rng(seed).normal(size=(50, len(vector))):
        assert loss(weight + 1e-3 * direction) > loss(weight) < loss(weight - 1e-3 * direction)


def exact_nonnegative(matrix, vector, prior, strength):
    """The minimum over w >= 0: of all sets of free coordinates, the one whose solution is feasible and best."""
    epsilon = strength * np.trace(matrix) / len(vector)
    scale = max(prior @ vector / (prior @ matrix @ prior), 1e-3)
    quadratic, linear = matrix + epsilon * np.eye(len(vector)), vector + epsilon * scale * prior
    best, least = np.zeros(len(vector)), 0.0
    for free in itertools.product([False, True], repeat=len(vector)):
        weight, index = np.zeros(len(vector)), np.flatnonzero(free)
        weight[index] = np.linalg.solve(quadratic[np.ix_(index, index)], linear[index])
        loss = weight @ quadratic @ weight - 2 * weight @ linear
        if weight.min() >= 0 and loss < least:
            best, least = weight, loss
    return best


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("strength", [0.05, 0.5])
def test_nonnegative_ridge_against_all_sets(seed, strength):
    matrix, vector, prior = problem(seed)
    if seed % 2:
        vector = np.abs(vector)
    weight, expected = (
        nonnegative_ridge(matrix, vector, prior, strength),
        exact_nonnegative(matrix, vector, prior, strength),
    )
    assert weight.min() >= 0
    np.testing.assert_allclose(weight, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("seed", range(10))
def test_nonnegative_ridge_of_all_components(seed):
    """At the size of the estimator: at a zero the slope is not negative, elsewhere it is zero."""
    matrix, vector, prior = problem(seed, COUNT, 60)
    vector = matrix @ np.abs(vector) + vector
    weight = nonnegative_ridge(matrix, vector, prior)
    epsilon, scale = 0.05 * np.trace(matrix) / COUNT, max(prior @ vector / (prior @ matrix @ prior), 1e-3)
    slope = matrix @ weight - vector + epsilon * (weight - scale * prior)
    bound = 1e-3 * np.abs(vector).max()
    assert (weight >= 0).all() and slope[weight == 0].min(initial=0) >= -bound and (weight == 0).any()
    assert np.abs(slope[weight > 0]).max() <= bound


def test_nonnegative_ridge_is_the_ridge_where_that_is_nonnegative():
    matrix, _, prior = problem(4)
    vector = matrix @ np.array([0.1, 0.4, 0.2, 0.3, 0.2, 0.5])
    expected = ridge(matrix, vector, prior)
    assert expected.min() > 0
    np.testing.assert_allclose(nonnegative_ridge(matrix, vector, prior), expected, rtol=1e-4)


# -------------------------------------------------------------------------------------------------- without its noise


def best_multiple(matrix, vector, prior):
    return max(0.0, prior @ vector / (prior @ matrix @ prior)) * matrix @ prior


def test_without_noise_by_hand():
    """M = diag(4, 1), w0 = (1/2, 1/2): s0 = 1.5 / 1.25, s0 M w0 = (2.4, 0.6); b is 0.6 away on both axes."""
    matrix, vector, prior = np.diag([4.0, 1.0]), np.array([3.0, 0.0]), np.array([0.5, 0.5])
    found, kept = without_noise(matrix, vector, np.diag([0.01, 0.04]), prior)
    shares = np.array([1 - 4 * 0.01 / 0.36, 1 - 4 * 0.04 / 0.36])
    np.testing.assert_allclose(found, [2.4 + shares[0] * 0.6, 0.6 - shares[1] * 0.6], rtol=1e-12)
    assert kept == pytest.approx((4 * shares[0] + shares[1]) / 5, rel=1e-12)
    found, kept = without_noise(matrix, vector, np.diag([0.0, 0.1]), prior)  # 0.6 is within 2 sqrt(0.1)
    np.testing.assert_allclose(found, [3.0, 0.6], rtol=1e-12)
    assert kept == pytest.approx(0.8)
    found, kept = without_noise(matrix, -vector, np.diag([0.01, 0.0]), prior)  # s0 = 0: what is left is around 0
    np.testing.assert_allclose(found, [-3 * (1 - 4 * 0.01 / 9), 0.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_without_noise_at_its_limits_and_turned(seed):
    matrix, vector, prior = problem(seed)
    noise = problem(seed + 100)[0] * 0.01
    found, kept = without_noise(matrix, vector, 0 * noise, prior)
    np.testing.assert_allclose(found, vector, atol=1e-12)
    assert kept == pytest.approx(1)
    found, kept = without_noise(matrix, vector, 1e9 * noise, prior)
    np.testing.assert_allclose(found, best_multiple(matrix, vector, prior), atol=1e-12)
    assert kept == 0
    found, kept = without_noise(matrix, vector, noise, prior)
    assert 0 < kept < 1
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=matrix.shape))
    turned, same = without_noise(q @ matrix @ q.T, q @ vector, q @ noise @ q.T, q @ prior)
    np.testing.assert_allclose(turned, q @ found, atol=1e-10)
    assert same == pytest.approx(kept)


# -------------------------------------------------------------------------------------------------- on data held out


def folds(seed, count=8, size=5):
    rng = np.random.default_rng(seed)
    gradient = rng.normal(size=(count, 30, size)) + rng.normal(size=(count, 30, 1))
    mass = rng.uniform(0.5, 3.0, count)
    matrix = np.einsum("fnc,fnd->fcd", gradient, gradient) / 30 * mass[:, None, None]
    return matrix, (gradient.mean(1) + 0.3) * mass[:, None], mass, np.full(size, 1 / size)


@pytest.mark.parametrize("seed", range(4))
def test_held_out_against_its_definition(seed):
    matrix, vector, mass, prior = folds(seed)
    difference = []
    for fold in range(8):
        m, b, total = np.zeros((5, 5)), np.zeros(5), 0.0
        for other in range(8):
            if other != fold:
                m, b, total = m + matrix[other], b + vector[other], total + mass[other]
        m, b = m / total, b / total
        epsilon, scale = 0.05 * np.trace(m) / 5, max(0.0, prior @ b / (prior @ m @ prior))
        weight = np.linalg.solve(m + epsilon * np.eye(5), b + epsilon * scale * prior)
        score = [w @ vector[fold] / mass[fold] / np.sqrt(w @ matrix[fold] @ w / mass[fold]) for w in (weight, prior)]
        difference.append(score[0] - score[1])
    z = np.mean(difference) / (np.std(difference, ddof=1) / np.sqrt(8))
    assert abs(z) > 0.1 and held_out(matrix, vector, mass, prior) == pytest.approx(z, rel=1e-9)


@pytest.mark.parametrize("what", ["matrix", "vector"])
def test_a_fold_never_sees_itself(monkeypatch, what):
    """Another M or b of fold 3 leaves the weights that are judged on it as they were, to the bit, and no others."""
    found: list[np.ndarray] = []

    def record(*given):
        found.append(ridge(*given))
        return found[-1]

    monkeypatch.setattr(mixture, "ridge", record)
    matrix, vector, mass, prior = folds(0)
    held_out(matrix, vector, mass, prior)
    changed = {"matrix": matrix.copy(), "vector": vector.copy()}
    changed[what][3] = folds(1)[what == "vector"][3]
    held_out(changed["matrix"], changed["vector"], mass, prior)
    before, after = found[:8], found[8:]
    assert [fold for fold in range(8) if np.array_equal(before[fold], after[fold])] == [3]


def test_cells_that_do_not_count_change_nothing():
    """Moments, mixture, gradients, traces of 5 steps are those of 8 of which 3 do not count, whatever stands there."""
    rng = np.random.default_rng(4)
    kept = np.array([0, 2, 3, 5, 6])
    valid = np.zeros((8, 3), bool)
    valid[kept] = True
    weight, centre = rng.normal(size=2), np.zeros(2, np.float32)
    found = []
    for garbage in (np.nan, 1e9, None):
        rng = np.random.default_rng(5)
        arrays = [rng.normal(size=(8, 3, size)).astype(np.float32) for size in (2, 1, 2, 3, 1)]
        ends = (rng.random((8, 3)) < 0.3) & valid
        for array in arrays[1:]:
            array[~valid] = 0 if garbage is None else garbage
        arrays[0][~valid] = 0  # an estimator leaves numbers there
        flags, arrays, ends = (valid, arrays, ends) if garbage is not None else (
            valid[kept], [np.ascontiguousarray(array[kept]) for array in arrays], np.ascontiguousarray(ends[kept])
        )  # fmt: skip
        advantage, error, score, feature, free = arrays
        mean, square, out = np.empty(2), np.empty(2), np.zeros(flags.shape, np.float32)
        mixture.moments(advantage, flags, mean, square)
        mixture.mix(advantage, flags, mean, weight, out)
        trace = np.zeros((3, 2 * 4 + 1), np.float32)
        gradient, reference = mixture.gradients(
            advantage, centre, np.ascontiguousarray(error[..., 0]), ends, flags, np.float32(0.9), score, feature, free,
            np.arange(3), trace,
        )  # fmt: skip
        found.append((mean, square, out[flags], trace, gradient, reference))
    for one in found[:2]:
        for part, expected in zip(one, found[2], strict=True):
            np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-5)
