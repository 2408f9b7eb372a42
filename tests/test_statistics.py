"""Statistics against numbers worked out by hand, against rliable, and by simulation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ridgeline import statistics

# Scores, and what rliable 1.2.0 made of them (pandas 2.3.3, NumPy 2.4.6), 50,000 bootstrap samples of the aggregates
RLIABLE = json.loads((Path(__file__).parent / "rliable.json").read_text(encoding="utf-8"))
X, Y = np.array(RLIABLE["x"]), np.array(RLIABLE["y"])
SMALL = np.array([[1.0, 0.0], [2.0, 10.0], [3.0, 2.0], [6.0, 4.0]])  # 4 runs, 2 environments


def test_aggregates_by_hand():
    assert statistics.iqm(SMALL) == (2 + 2 + 3 + 4) / 4  # sorted: 0 1 | 2 2 3 4 | 6 10
    assert statistics.mean(SMALL) == 28 / 8
    assert statistics.median(SMALL) == (3 + 4) / 2  # of the means 3 and 4
    assert statistics.optimality_gap(SMALL, best=3.0) == 3 - (1 + 2 + 3 + 3 + 0 + 3 + 2 + 3) / 8
    assert statistics.iqm(np.array([[1.0], [5.0], [9.0]])) == 5.0  # a quarter of 3, rounded down, is nothing


def test_leading_axes_are_carried():
    stack = np.stack([X, X + 1, 2 * X])
    for aggregate in statistics.AGGREGATES.values():
        np.testing.assert_allclose(aggregate(stack), [aggregate(one) for one in stack])
    np.testing.assert_allclose(statistics.performance_profile(stack, np.array([0.5]))[0], (X > 0.5).mean())


def test_profile_by_hand():
    np.testing.assert_array_equal(
        statistics.performance_profile(SMALL, np.array([-1.0, 0.0, 2.0, 10.0])), [1.0, 7 / 8, 4 / 8, 0.0]
    )


def test_probability_of_improvement_by_hand():
    """Environment 0: 1 > 0, 1 = 1, 3 > 0, 3 > 1: 3.5 of 4; environment 1: 0 < 5, 0 < 6, 6 > 5, 6 = 6: 1.5 of 4."""
    first, second = np.array([[1.0, 0.0], [3.0, 6.0]]), np.array([[0.0, 5.0], [1.0, 6.0]])
    assert statistics.probability_of_improvement(first, second) == (3.5 + 1.5) / 8
    assert statistics.probability_of_improvement(second, first) == 3 / 8
    assert statistics.probability_of_improvement(X, X) == 0.5


# -------------------------------------------------------------------------------------------------------------- rliable


@pytest.mark.parametrize("name", statistics.AGGREGATES)
@pytest.mark.parametrize("arm", ["x", "y"])
def test_aggregates_are_rliables(arm, name):
    scores = np.array(RLIABLE[arm])
    assert statistics.AGGREGATES[name](scores) == pytest.approx(RLIABLE["aggregate"][arm][name], abs=1e-12)
    low, high = RLIABLE["percentile_interval"][arm][name]
    found = np.quantile(statistics.bootstrap(statistics.AGGREGATES[name], scores, samples=10_000), [0.025, 0.975])
    np.testing.assert_allclose(found, [low, high], atol=0.04 * (high - low))  # other draws of the same distribution


def test_profile_and_probability_are_rliables():
    thresholds = np.array(RLIABLE["thresholds"])
    np.testing.assert_allclose(statistics.performance_profile(X, thresholds), RLIABLE["profile"]["x"], atol=1e-12)
    np.testing.assert_allclose(
        statistics.probability_of_improvement(X, Y), RLIABLE["probability_of_improvement"], atol=1e-12
    )
    values = statistics.bootstrap(statistics.probability_of_improvement, X, Y)
    np.testing.assert_allclose(np.quantile(values, [0.025, 0.975]), RLIABLE["probability_interval"], atol=0.02)


# ------------------------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (60, 2.0003)])
def test_student_quantile_is_the_textbooks(freedom, expected):
    assert statistics.student_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-4)
    assert statistics.student_quantile(0.5, freedom) == pytest.approx(0, abs=1e-9)


def test_interval_of_a_mean_is_students():
    """Of normal scores of one environment the bootstrap's interval is mean +- t s / sqrt(n), up to its noise."""
    scores = np.random.default_rng(0).normal(size=(40, 1))
    found = statistics.interval(statistics.mean, scores, samples=20_000)
    half = 2.0227 * scores.std(ddof=1) / math.sqrt(40)
    assert found.estimate == scores.mean()
    np.testing.assert_allclose([found.low, found.high], [scores.mean() - half, scores.mean() + half], atol=0.03 * half)
    assert found.standard_error == pytest.approx(scores.std(ddof=1) / math.sqrt(40), rel=0.02)


def test_resampling_stays_within_environments_and_pairs():
    """Environment e holds only 10 e + run: a resample never mixes them; paired arms draw the same runs."""
    scores = 10.0 * np.arange(3) + np.arange(4)[:, None]
    kept = statistics.bootstrap(lambda a: a, scores, samples=50)
    assert (kept // 10 == np.arange(3)).all() and len(np.unique(kept)) == 12
    assert (kept[:, :, 0] != kept[:, :, 1] - 10).any(), "environments are resampled together"
    assert not statistics.bootstrap(lambda a, b: a - b, scores, scores, samples=50, paired=True).any()
    assert statistics.bootstrap(lambda a, b: a - b, scores, scores, samples=50).any()


def test_intervals_of_curves_are_those_of_their_points():
    curve = np.random.default_rng(1).normal(size=(3, 5, 2))
    together = statistics.interval(statistics.mean, curve)
    for point in range(3):
        alone = statistics.bootstrap(statistics.mean, curve[point])
        ends = np.quantile(alone, [0.025, 0.975]) - curve[point].mean()
        found = np.array([together.low[point], together.high[point]]) - curve[point].mean()
        assert found[0] / ends[0] == pytest.approx(found[1] / ends[1]) and found[0] / ends[0] > 1.1


def test_one_run_has_no_interval():
    found = statistics.interval(statistics.mean, np.array([[1.0, 2.0]]))
    assert (found.estimate, found.low, found.high) == (1.5, -math.inf, math.inf)
    equal = statistics.interval(statistics.iqm, np.ones((5, 2)))
    assert (equal.low, equal.high, equal.standard_error) == (1.0, 1.0, 0.0)


def test_what_is_no_score_is_refused():
    with pytest.raises(ValueError, match=r"not finite.*random play"):
        statistics.interval(statistics.mean, np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        statistics.interval(statistics.mean, np.zeros(3))
    with pytest.raises(ValueError, match="one run for each seed"):
        statistics.bootstrap(statistics.mean, np.zeros((3, 2)), np.zeros((4, 2)), paired=True)


@pytest.mark.parametrize(("num_runs", "num_environments"), [(5, 6), (10, 1)])
@pytest.mark.parametrize("skewed", [False, True])
def test_intervals_cover_the_truth(num_runs, num_environments, skewed):
    """95% of intervals of the IQM, within what 200 studies can tell (s.d. 1.5%); fewer of the percentile intervals."""
    generator = np.random.default_rng([num_runs, num_environments, skewed])
    centre = np.linspace(0.3, 0.9, num_environments)

    def draw(runs):
        if skewed:
            return generator.beta(4 * centre, 1.2, (runs, num_environments))
        return generator.normal(centre, 0.05 + 0.1 * centre, (runs, num_environments))

    truth = statistics.iqm(draw(200_000 // num_environments))
    covered = percentile = 0
    for study in range(200):
        scores = draw(num_runs)
        found = statistics.interval(statistics.iqm, scores, samples=200, seed=study)
        covered += found.low <= truth <= found.high
        low, high = np.quantile(statistics.bootstrap(statistics.iqm, scores, samples=100, seed=study), [0.025, 0.975])
        percentile += low <= truth <= high
    assert 0.91 <= covered / 200 <= 0.985 and percentile < covered


# ---------------------------------------------------------------------------------------------------------- comparisons


def test_equal_arms_have_no_winner():
    """200 comparisons of two identical arms of 5 runs: a winner in at most 5%, and the noise of 200 (s.d. 1.5%)."""
    generator = np.random.default_rng(3)
    called = [
        statistics.difference(*(generator.beta(3, 1, (5, 4)) for _ in range(2)), samples=100, seed=study).better
        for study in range(200)
    ]
    assert np.mean(np.abs(called)) <= 0.08


def test_a_difference_is_seen():
    generator = np.random.default_rng(4)
    weak, strong = generator.normal(0.5, 0.1, (8, 4)), generator.normal(0.7, 0.1, (8, 4))
    found = statistics.difference(strong, weak)
    assert found.better == 1 and statistics.difference(weak, strong).better == -1
    assert 0.1 < found.iqm.low < 0.2 < found.iqm.high < 0.3 and found.p_value < 0.001
    assert found.probability.high <= 1.0


def test_pairing_removes_what_seeds_share():
    generator = np.random.default_rng(5)
    shared = generator.normal(0, 1, (10, 2))
    first, second = shared + 0.1, shared + generator.normal(0, 0.02, (10, 2))
    assert statistics.difference(first, second).better == 0
    assert statistics.difference(first, second, paired=True).iqm.low > 0


def test_permutation_p_value_by_hand():
    """3 against 3 runs, all higher: 2 of 20 ways to deal them out are as extreme."""
    p_value = statistics.permutation_p_value(
        statistics.mean, np.array([[4.0], [5.0], [6.0]]), np.array([[1.0], [2.0], [3.0]]), samples=20_000
    )
    assert p_value == pytest.approx(0.1, abs=0.01)


def test_runs_needed():
    """The cases of two arms of standard deviation s, difference 230: 15.7 (s / 230)^2, rounded up."""
    for std, expected in ((300, 27), (700, 146)):
        for num_runs in (3, 10):
            assert statistics.runs_needed(std * math.sqrt(2 / num_runs), num_runs, 230) == expected
    assert statistics.runs_needed(0.0, 5, 0.1) == 2


def test_published_z_by_hand():
    scores = np.array([90.0, 100.0, 110.0])
    assert statistics.published_z(scores, 120, 10, 10) == pytest.approx(-20 / math.sqrt(100 / 3 + 10))
    assert statistics.published_z(scores, 120, 10, 3) == pytest.approx(-20 / math.sqrt(100 / 3 + 100 / 3 + 144))
    assert statistics.published_z(np.full(3, -200.0), -200, 0, 3) == 0.0
    assert statistics.published_z(np.full(3, 2.0), 1, 0, 4) == math.inf


def test_one_setting_for_all_environments():
    """Settings 0 and 1 are specialists, 2 is good at both; tuning each environment gains (1 + 1) / 2 - 0.8."""
    scores = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.8, 0.8]]])
    assert statistics.best_setting(scores) == 2
    assert statistics.best_settings(scores).tolist() == [0, 1]
    assert statistics.sensitivity(scores) == pytest.approx(0.2)
    assert statistics.sensitivity(scores[:1]) == 0.0


def test_empirical_scores_by_hand():
    """Ranks in the environment, whatever its scale; equal scores share the middle."""
    scores = np.array([[[10.0, -3.0], [20.0, -3.0]], [[40.0, -1.0], [30.0, -2.0]]])
    np.testing.assert_array_equal(
        statistics.empirical_scores(scores),
        [[[0.125, 0.25], [0.375, 0.25]], [[0.875, 0.875], [0.625, 0.625]]],
    )
