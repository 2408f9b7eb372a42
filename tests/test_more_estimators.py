"""Harmonic trace and static mixture: exact vectors, slow twins, limits, fixed points, runs kept apart."""

import math
from pathlib import Path
from types import SimpleNamespace

import naive
import pytest
import torch
from test_estimators import BOUND, GAMMA, GOLDEN, NAN, PATTERNS, TOLERANCE, golden, pattern, scores, slow
from test_estimators import solved as solved  # a fixture

from ridgeline.envs import cartpole
from ridgeline.estimators.gae import generalized_advantage
from ridgeline.estimators.harmonic_trace import HarmonicTrace, harmonic_trace
from ridgeline.estimators.static_mixture import HORIZONS, StaticMixture, trace_mixture
from ridgeline.rollout import Rollout
from ridgeline.training import Training

each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)


def rollout(reward, value, next_value, terminated, truncated, num_runs=1) -> Rollout:
    """value and next_value (T, B, K)."""
    empty = torch.zeros(0)
    return Rollout(num_runs, empty, empty, empty, value, next_value, reward, terminated, truncated)


def heads(steps, columns, chance, num_values, num_runs=1, dtype=torch.float64, seed=0) -> Rollout:
    """`pattern` with K different heads, next values as those of a critic would be; NaN behind a termination."""
    reward, value, next_value, terminated, truncated = pattern(steps, columns, chance, dtype, seed)
    scale = torch.linspace(0.5, 2.0, num_values, dtype=dtype)
    shift = torch.linspace(-1.0, 1.0, num_values, dtype=dtype)
    both = (x.unsqueeze(-1) * scale + shift for x in (value, next_value))
    return rollout(reward, *both, terminated, truncated, num_runs)


def columns_of(batch: Rollout, columns, num_runs=1) -> Rollout:
    names = "reward", "value", "next_value", "terminated", "truncated"
    return rollout(*(getattr(batch, name)[:, columns] for name in names), num_runs=num_runs)


def check(result, expected, bound=1e-10):
    assert result.shape == expected.shape
    assert (result - expected).abs().max() < bound  # also refuses NaN


# -------------------------------------------------------------------------------------- exact vectors and slow twins


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("harmonic_trace_g1", lambda *x: harmonic_trace(*x, 1.0)[0]),
        ("harmonic_trace_g1_5pt_quadrature", lambda *x: trace_mixture(*x, 1.0, 5)[0]),
    ],
)
def test_golden(name, compute, dtype):
    result = compute(*golden(dtype))
    assert result.dtype == dtype
    check(result[:, 0], torch.tensor(GOLDEN[name], dtype=dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("per_column", [False, True])
@each_pattern
def test_random_patterns(steps, columns, chance, per_column, dtype):
    given = pattern(steps, columns, chance, dtype)
    gamma = torch.linspace(1.0, 0.0, columns + 1, dtype=torch.float64)[:columns] if per_column else 0.97
    advantage, target = harmonic_trace(*given, gamma)
    assert advantage.dtype == target.dtype == dtype
    check(advantage, slow(naive.harmonic_trace, given, gamma), BOUND[dtype])
    check(target, advantage + given[1], BOUND[dtype])
    for num_nodes in (1, 2, 5):
        advantage, target = trace_mixture(*given, gamma, num_nodes)
        expected = slow(lambda *column, n=num_nodes: naive.trace_mixture(*column, n), given, gamma)
        assert advantage.dtype == target.dtype == dtype
        check(advantage, expected, BOUND[dtype])
        check(target, advantage + given[1], BOUND[dtype])


def test_one_long_piece():
    """The double sum as a matrix of weights: 512 rows without an end, one discount per column, the last two alike."""
    reward, value, next_value, terminated, _ = pattern(512, 4, 0.0)
    never = torch.zeros_like(terminated)
    next_value = torch.where(next_value.isnan(), 0.5, next_value)
    gamma = torch.tensor([1.0, 0.99, 0.5, 0.5], dtype=torch.float64)
    lag = torch.arange(512) - torch.arange(512).unsqueeze(1)
    advantage, _ = harmonic_trace(reward, value, next_value, never, never, gamma)
    for column, own in enumerate(gamma):
        weight = torch.where(lag < 0, 0.0, own ** lag.clamp_min(0) / (1 + lag.clamp_min(0)))
        delta = reward[:, column] + own * next_value[:, column] - value[:, column]
        check(advantage[:, column], weight @ delta)


# --------------------------------------------------------------------------------------------------------------- limits


@each_pattern
def test_limits(steps, columns, chance):
    """gamma = 0: reward minus V. One node: GAE at 1/2. Nodes for every lag: the harmonic trace. Ends everywhere: the
    TD error."""
    given = reward, value, next_value, terminated, truncated = pattern(steps, columns, chance)
    check(harmonic_trace(*given, 0.0)[0], reward - value)
    check(trace_mixture(*given, 0.0)[0], reward - value)
    check(trace_mixture(*given, 0.97, 1)[0], generalized_advantage(*given, 0.97, 0.5)[0])
    check(trace_mixture(*given, 0.97, (steps + 2) // 2)[0], harmonic_trace(*given, 0.97)[0])
    everywhere = torch.ones_like(truncated)
    read = torch.where(next_value.isnan(), 1.0, next_value)
    error = generalized_advantage(reward, value, read, terminated, everywhere, 0.97, 0.0)[0]
    check(harmonic_trace(reward, value, read, terminated, everywhere, 0.97)[0], error)
    check(trace_mixture(reward, value, read, terminated, everywhere, 0.97)[0], error)


def test_five_nodes_are_exact_to_lag_nine_and_short_beyond():
    impulse = torch.zeros(101, 1, dtype=torch.float64)
    impulse[-1] = 1.0
    none = torch.zeros_like(impulse)
    never = none.bool()
    weight = trace_mixture(impulse, none, none, never, never, 1.0)[0][:, 0].flip(0)
    ratio = weight * torch.arange(1, 102)
    assert torch.allclose(ratio[:10], torch.ones(10, dtype=torch.float64))
    assert [round(float(ratio[lag]), 2) for lag in (20, 50, 100)] == [0.98, 0.55, 0.10]
    exact = harmonic_trace(impulse, none, none, never, never, 1.0)[0][:, 0].flip(0)
    assert torch.allclose(exact * torch.arange(1, 102), torch.ones(101, dtype=torch.float64))


# --------------------------------------------------------------------------------- as the training loop calls them

ESTIMATORS = [HarmonicTrace(0.97), HarmonicTrace(1.0), StaticMixture(), StaticMixture(undiscounted=False)]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)


def test_harmonic_trace_as_an_estimator():
    """At gamma = 1, and in the runs where it is 1, a truncation is an end and the value behind it is not read."""
    batch = heads(40, 8, 0.1, 1, num_runs=2)
    given = batch.reward, batch.value[..., 0], batch.next_value[..., 0]
    either = batch.terminated | batch.truncated
    for gamma, terminated in ((0.97, batch.terminated), (1.0, either)):
        estimate, memory = HarmonicTrace(gamma)(batch, {})
        advantage, target = harmonic_trace(*given, terminated, batch.truncated, gamma)
        assert torch.equal(estimate.advantage, advantage) and memory == {}
        assert estimate.target is not None and torch.equal(estimate.target, target.unsqueeze(-1))
    stacked = HarmonicTrace()
    object.__setattr__(stacked, "gamma", torch.tensor([0.97, 1.0], dtype=torch.float64).repeat_interleave(4))
    batch.next_value[either & (torch.arange(8) >= 4)] = NAN
    together = stacked(batch, {})[0].advantage
    for run, gamma in enumerate((0.97, 1.0)):
        columns = slice(4 * run, 4 * run + 4)
        assert torch.equal(HarmonicTrace(gamma)(columns_of(batch, columns), {})[0].advantage, together[:, columns])
    assert together.isfinite().all()


def test_static_mixture_as_an_estimator():
    """Each head divided by its own standard deviation, and averaged; only the undiscounted one stops at truncation."""
    estimator = StaticMixture()
    batch = heads(40, 6, 0.1, estimator.num_values)
    estimate, memory = estimator(batch, {})
    assert memory == {} and estimate.target is not None and estimate.target.shape == (40, 6, 7)
    total = 0
    for k, gamma in enumerate([1 - 1 / horizon for horizon in HORIZONS] + [1.0]):
        terminated = batch.terminated | batch.truncated if k == 6 else batch.terminated
        value, next_value = batch.value[..., k], batch.next_value[..., k]
        given = batch.reward, value, torch.where(terminated, NAN, next_value), terminated, batch.truncated
        advantage = slow(lambda *column, g=gamma: naive.trace_mixture(*column, g, 5), given)
        check(estimate.target[..., k], advantage + value)
        total = total + advantage / advantage.std(correction=0) / 7
    check(estimate.advantage, torch.as_tensor(total))
    without = StaticMixture(undiscounted=False)
    assert without.num_values == 6 and max(without.gammas) == 1 - 1 / 1024


def test_an_advantage_without_variance_is_no_division_by_zero():
    zero = torch.zeros(4, 2)
    never = zero.bool()
    values = torch.zeros(4, 2, 7)
    assert torch.equal(StaticMixture()(rollout(zero, values, values, never, never), {})[0].advantage, zero)


@pytest.mark.parametrize("scale", [1000.0, 0.001])
def test_the_mixture_has_no_unit(scale):
    batch = heads(40, 6, 0.1, 7)
    scaled = heads(40, 6, 0.1, 7)
    scaled.reward, scaled.value, scaled.next_value = (
        x * scale for x in (scaled.reward, scaled.value, scaled.next_value)
    )
    check(StaticMixture()(scaled, {})[0].advantage, StaticMixture()(batch, {})[0].advantage, 1e-9)


@each_estimator
def test_columns_of_a_run_may_be_permuted(estimator):
    batch = heads(40, 8, 0.1, estimator.num_values)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    here, there = estimator(batch, {})[0], estimator(columns_of(batch, order), {})[0]
    check(there.advantage, here.advantage[:, order], 1e-12)
    assert torch.equal(there.target, here.target[:, order])


@each_estimator
def test_runs_are_kept_apart(estimator):
    """R = 3 is three times R = 1, bit for bit, and a run that explodes stays alone."""
    batch = heads(20, 12, 0.1, estimator.num_values, num_runs=3)
    together = estimator(batch, {})[0]
    for run in range(3):
        columns = slice(4 * run, 4 * run + 4)
        alone = estimator(columns_of(batch, columns), {})[0]
        assert torch.equal(alone.advantage, together.advantage[:, columns])
        assert torch.equal(alone.target, together.target[:, columns])
    batch.reward[3, 5] = math.inf
    exploded = estimator(batch, {})[0]
    others = [c for c in range(12) if c not in range(4, 8)]
    assert torch.equal(exploded.advantage[:, others], together.advantage[:, others])


# ------------------------------------------------------------------------------------------------------ the time limit


def critic_update(estimator, value, terminating=False) -> tuple[torch.Tensor, torch.Tensor]:
    """The values (K,) that a critic learns from its own values (K,): reward 1, an observation that never changes, ends
    at 10 steps; and the advantages (10,)."""
    ends, never = (torch.arange(10) == 9).unsqueeze(1), torch.zeros(10, 1, dtype=torch.bool)
    flags = (ends, never) if terminating else (never, ends)
    reward = torch.ones(10, 1, dtype=torch.float64)
    prediction = value.expand(10, 1, -1)
    following = torch.where(flags[0].unsqueeze(-1), NAN, prediction)
    estimate, _ = estimator(rollout(reward, prediction, following, *flags), {})
    return estimate.target.mean((0, 1)), estimate.advantage[:, 0]


def fixed_point(estimator, terminating=False) -> torch.Tensor:
    """Where `critic_update` leads to, (K,). It is affine, so it stays finite for ever if its matrix contracts."""
    count = estimator.num_values
    constant, _ = critic_update(estimator, torch.zeros(count, dtype=torch.float64), terminating)
    columns = [critic_update(estimator, unit, terminating)[0] for unit in torch.eye(count, dtype=torch.float64)]
    matrix = torch.stack(columns, 1) - constant.unsqueeze(1)
    assert torch.linalg.eigvals(matrix).abs().max() < 1 - 1e-4
    value = torch.linalg.solve(torch.eye(count, dtype=torch.float64) - matrix, constant)
    again, advantage = critic_update(estimator, value, terminating)
    check(again, value, 1e-8)
    assert advantage.isfinite().all()
    return value


def harmonic_value(gamma: float) -> float:
    """The fixed point where the episode's end has value 0: sum of the rows' advantages = 0, solved for V."""
    weight = [sum(gamma**lag / (1 + lag) for lag in range(t + 1)) for t in range(10)]  # of the TD error of row t
    return sum(weight) / ((1 - gamma) * sum(weight[:-1]) + weight[-1])


def test_a_time_limit_is_no_end():
    assert harmonic_value(1.0) == pytest.approx(7.5858, abs=1e-4)
    assert fixed_point(HarmonicTrace(0.99)).tolist() == pytest.approx([100.0])
    assert fixed_point(HarmonicTrace(1.0)).tolist() == pytest.approx([harmonic_value(1.0)])
    expected = [float(horizon) for horizon in HORIZONS] + [harmonic_value(1.0)]
    assert fixed_point(StaticMixture()).tolist() == pytest.approx(expected)


def test_an_undiscounted_critic_stays_where_it_is_for_ever():
    value = torch.zeros(1, dtype=torch.float64)
    for _ in range(10_000):
        value, _ = critic_update(HarmonicTrace(1.0), value)
    assert value.tolist() == pytest.approx([harmonic_value(1.0)])


def test_a_termination_is_an_end():
    assert fixed_point(HarmonicTrace(0.99), True).tolist() == pytest.approx([harmonic_value(0.99)])
    gammas = [1 - 1 / horizon for horizon in HORIZONS] + [1.0]
    expected = [harmonic_value(gamma) for gamma in gammas]
    assert fixed_point(StaticMixture(), True).tolist() == pytest.approx(expected)


# -------------------------------------------------------------------------------------------------------- a solved MDP


@pytest.mark.parametrize("function", [harmonic_trace, trace_mixture])
def test_with_the_exact_value_the_mean_advantage_is_exact(solved, function):
    state, action, tensors, difference = solved
    names = "reward", "value", "next_value", "terminated", "truncated"
    advantage, _ = function(*(tensors[name] for name in names), GAMMA)
    assert abs(scores(advantage, state, action, difference)).max() < 4


def test_truncation_as_an_end_is_noticed(solved):
    """The test above has the power to tell: without the value behind a time limit the mean is wrong."""
    state, action, tensors, difference = solved
    terminated = tensors["terminated"] | tensors["truncated"]
    given = tensors["reward"], tensors["value"], tensors["next_value"], terminated, tensors["truncated"]
    for function in (harmonic_trace, trace_mixture):
        assert abs(scores(function(*given, GAMMA)[0], state, action, difference)).max() > 5


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("gamma", [-0.1, 1.01, NAN])
def test_bad_coefficients(gamma):
    with pytest.raises(ValueError, match=f"gamma = {gamma}; use a number from 0 to 1"):
        HarmonicTrace(gamma)


def test_no_limit_no_undiscounted_return():
    endless = SimpleNamespace(name="endless", max_episode_steps=None)
    limited = SimpleNamespace(name="limited", max_episode_steps=10)
    with pytest.raises(ValueError, match="gamma = 1 needs a time limit, and endless has none; use a gamma below 1"):
        HarmonicTrace(1.0).check(endless, None, None)
    with pytest.raises(
        ValueError, match="undiscounted head needs a time limit, and endless has none; use undiscounted="
    ):
        StaticMixture().check(endless, None, None)
    for estimator in ESTIMATORS:
        estimator.check(limited, None, None)
    HarmonicTrace(0.999).check(endless, None, None)
    StaticMixture(undiscounted=False).check(endless, None, None)


def test_training_without_a_limit_is_refused(tmp_path):
    """At start, before anything is trained."""
    source = Path(cartpole.__file__).read_text(encoding="utf-8")
    assert source.count("max_episode_steps = ") == 1
    (tmp_path / "endless.py").write_text(source.replace("max_episode_steps = ", "unused = "), encoding="utf-8")
    for estimator in (HarmonicTrace(1.0), StaticMixture(), [HarmonicTrace(0.9), HarmonicTrace(1.0)]):
        with pytest.raises(ValueError, match="needs a time limit, and endless has none"):
            Training(tmp_path / "endless.py", estimator=estimator, num_threads=1)
