"""Running statistics against NumPy over all rows; the value head's change of units leaves its outputs as they were."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ridgeline.normalize import RunningMoments, TargetMoments
from ridgeline.policies import MLP
from ridgeline.population import Population

RUNS, ROWS, COLUMNS = 3, 4, 2


def data(steps, shift=0.0, seed=0, dtype=np.float64):
    """(T, R, N, D), every run and column with its own mean and spread."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(steps, RUNS, ROWS, COLUMNS))
    spread, mean = generator.uniform(0.1, 10, (RUNS, 1, COLUMNS)), generator.normal(size=(RUNS, 1, COLUMNS))
    return torch.from_numpy((x * spread + 3 * mean + shift).astype(dtype))


# -------------------------------------------------------------------------------------------------------- observations


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.parametrize("split", [[60], [1] * 60, [7, 1, 50, 2], [30, 30]])
def test_running_moments_equal_numpy_over_all_rows(split, shift, dtype):
    x = data(60, shift, dtype=dtype)
    moments = RunningMoments(RUNS, COLUMNS)
    for part in x.split(split):
        assert moments.update(part).all()
    every = x.double().numpy().transpose(1, 0, 2, 3).reshape(RUNS, -1, COLUMNS)
    assert np.allclose(moments.mean.numpy(), every.mean(1), rtol=1e-9, atol=1e-9)
    assert np.allclose(moments.variance.numpy(), every.var(1), rtol=1e-9, atol=1e-9)
    assert moments.count.tolist() == [60.0 * ROWS] * RUNS
    assert torch.allclose(moments.scale().double(), 1 / torch.from_numpy(every.std(1)), rtol=1e-6)


def test_running_moments_take_whole_numbers():
    x = torch.randint(0, 256, (10, RUNS, ROWS, COLUMNS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments(RUNS, COLUMNS)
    moments.update(x)
    assert torch.allclose(moments.mean, x.double().mean((0, 2)), rtol=1e-12)
    assert torch.allclose(moments.variance, x.double().var((0, 2), correction=0), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.1, 12345.678, -1e8])
def test_a_column_that_never_varies_is_not_blown_up(constant):
    moments = RunningMoments(RUNS, COLUMNS)
    assert (moments.scale() == 1).all()
    for _ in range(3):
        moments.update(torch.full((50, RUNS, ROWS, COLUMNS), constant, dtype=torch.float32))
    assert (moments.scale() == 1).all()
    assert torch.allclose(moments.mean.float(), torch.tensor(constant))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (4, 3)])
def test_rows_that_are_not_finite_leave_no_trace(bad, place):
    """Run 1 keeps the statistics it had, the others are those of all rows; then it takes part again."""
    x = data(15)
    poisoned = x.clone()
    poisoned[5 + place[0], 1, place[1], 0] = bad
    moments, expected, without = (RunningMoments(RUNS, COLUMNS) for _ in range(3))
    for part, clean in zip(poisoned.split(5), x.split(5), strict=True):
        taken = moments.update(part)
        assert taken.tolist() == [True, bool(part[:, 1].isfinite().all()), True]
        expected.update(clean)
    for part in (x[:5], x[10:]):
        without.update(part)
    for name in ("mean", "variance", "count"):
        found = getattr(moments, name)
        assert torch.equal(found[[0, 2]], getattr(expected, name)[[0, 2]])
        assert torch.equal(found[1], getattr(without, name)[1])


def test_inactive_runs_keep_their_statistics():
    active = torch.tensor([True, False, True])
    moments = RunningMoments(RUNS, COLUMNS)
    assert moments.update(data(5), active).tolist() == active.tolist()
    assert moments.count.tolist() == [20.0, 0.0, 20.0] and moments.mean[1].tolist() == [0.0, 0.0]
    targets = TargetMoments(RUNS, COLUMNS)
    targets.update(data(5), active)
    assert targets.count.tolist() == [1.0, 0.0, 1.0] and targets.scale()[1].tolist() == [1.0, 1.0]


# ------------------------------------------------------------------------------------------------------ critic targets


def test_target_moments_are_a_weighted_mean_of_rollouts():
    """Weight 1 / number of rollouts while they are few, at least 5% later."""
    moments = TargetMoments(RUNS, COLUMNS)
    assert (moments.scale() == 1).all() and (moments.mean == 0).all()
    mean = square = np.zeros((RUNS, COLUMNS))
    for k in range(1, 41):
        x = data(3, seed=k)
        moments.update(x)
        weight = max(1 / k, 0.05)
        mean = (1 - weight) * mean + weight * x.numpy().mean((0, 2))
        square = (1 - weight) * square + weight * (x.numpy() ** 2).mean((0, 2))
    assert np.allclose(moments.mean.numpy(), mean, rtol=1e-9, atol=1e-9)
    assert np.allclose(moments.scale().numpy(), np.sqrt(square - mean**2 + 1e-4 * square), rtol=1e-9)


def test_target_moments_without_spread():
    """A constant target c has the scale |c| / 100; all zeros have the scale 1."""
    moments = TargetMoments(1, 2)
    moments.update(torch.tensor([-5.0, 0.0]).expand(4, 1, 3, 2).contiguous())
    assert torch.allclose(moments.scale(), torch.tensor([[0.05, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_targets_that_are_not_finite_leave_no_trace(bad):
    x = data(5)
    moments, expected = TargetMoments(RUNS, COLUMNS), TargetMoments(RUNS, COLUMNS)
    for one in (moments, expected):
        one.update(data(5, seed=1))
    before = moments.mean[1].clone()
    expected.update(x)
    x[2, 1, 3, 0] = bad
    moments.update(x)
    assert moments.count.tolist() == [2.0, 1.0, 2.0]
    assert torch.equal(moments.mean[1], before)
    assert torch.equal(moments.scale()[[0, 2]], expected.scale()[[0, 2]])


# ------------------------------------------------------------------------------------- the value head's change of units


def make_population(runs=3, num_values=2, **settings) -> Population:
    box = spaces.Box(-1, 1, (4,))
    policy = MLP(hidden_sizes=(16,), **settings)
    build = lambda: policy.build(box, spaces.Discrete(2), num_values)  # noqa: E731
    return Population(build, box, spaces.Discrete(2), range(runs), {"learning_rate": [0.01] * runs})


@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e4])
def test_new_units_leave_the_values_as_they_were(shared_trunk, size):
    population = make_population(shared_trunk=shared_trunk)
    observation = torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(0))
    assert (population.value(observation) == 0).all()  # untrained, whatever the unit of reward
    population.update_target_moments(size * data(10, seed=9).float().flatten(1, 2))
    mean = population.buffers["value_mean"].unsqueeze(1).expand(-1, 50, -1)
    torch.testing.assert_close(population.value(observation), mean)  # the first targets' mean
    with torch.no_grad():
        population.view("value_head.weight").normal_(generator=torch.Generator().manual_seed(1))
    before, head = population.value(observation), population.view("value_head.weight").clone()
    for seed in range(5):
        target = size * data(10, seed=seed).float()
        population.update_target_moments(target.flatten(1, 2))
        after = population.value(observation)
        assert (after - before).abs().max() < 1e-5 * max(1.0, population.buffers["value_mean"].abs().max().item())
    moments = population.target_moments
    assert moments is not None
    assert torch.equal(population.buffers["value_mean"], moments.mean.float())
    assert torch.equal(population.buffers["value_scale"], moments.scale().float())
    assert torch.equal(population.coefficients["value_scale"], moments.error_scale().float())
    assert (population.view("value_head.weight") - head).abs().max() > 0.01


def test_a_frozen_run_keeps_its_bits():
    """Whatever its rollouts hold from then on: parameters, normalisers and units stay."""
    population = make_population()
    population.update_target_moments(data(10).float().flatten(1, 2))
    population.freeze(1, "test")
    before = {name: tensor.clone() for name, tensor in population.state_dict().items()}
    for seed in range(3):
        population.update_target_moments(data(10, seed=seed).float().flatten(1, 2))
    for name, tensor in population.state_dict().items():
        assert torch.equal(tensor[1], before[name][1]), name
    assert not torch.equal(population.flat[0], before["flat"][0])


def test_targets_that_repeat_change_no_bit():
    """The same moments again are the same units: nothing is multiplied by 1 plus a rounding error."""
    population = make_population()
    target = data(10).float().flatten(1, 2)
    population.update_target_moments(target)
    before = population.flat.clone()
    target[:, 0] = math.nan  # no run's moments move
    target[:, ROWS] = target[:, 2 * ROWS] = math.nan
    population.update_target_moments(target)
    assert torch.equal(population.flat, before)


def test_values_without_units():
    population = make_population(normalize_value=False)
    before = population.flat.clone()
    population.update_target_moments(data(10).float().flatten(1, 2))
    assert torch.equal(population.flat, before) and population.target_moments is None
    assert (population.buffers["value_scale"] == 1).all()


def test_target_scale_stays_above_a_hundredth_of_its_peak():
    """Targets of standard deviation 100, then nothing but zeros: the scale falls to 1 and no further."""
    moments = TargetMoments(1, 1)
    moments.update(torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1))
    assert torch.allclose(moments.scale(), torch.tensor([[100.0]], dtype=torch.float64), rtol=1e-3)
    for _ in range(1000):
        moments.update(torch.zeros(2, 1, 1, 1))
    assert torch.allclose(moments.scale(), torch.tensor([[1.0]], dtype=torch.float64), rtol=1e-3)


def test_a_head_that_hardly_varies_does_not_drown_the_others():
    """Units of error by hand: targets 1 +- 0.01 and 0 +- 10, then one head alone."""
    wave = torch.tensor([1.0, -1.0]).repeat(8).view(16, 1, 1, 1)
    moments = TargetMoments(1, 2)
    moments.update(torch.cat([1 + 0.01 * wave, 10 * wave], -1))
    torch.testing.assert_close(moments.scale(), torch.tensor([[0.0141, 10.0005]]).double(), atol=1e-3, rtol=1e-3)
    # root mean squares 1 and 10, times the larger of 0.014 and 1
    torch.testing.assert_close(moments.error_scale(), torch.tensor([[1.0, 10.0]]).double(), atol=1e-3, rtol=1e-3)
    alone = TargetMoments(1, 1)
    alone.update(1 + 0.01 * wave)
    assert torch.equal(alone.error_scale(), alone.scale())
    none = TargetMoments(1, 2)
    none.update(torch.zeros(4, 1, 2, 2))
    assert torch.equal(none.error_scale(), torch.ones(1, 2, dtype=torch.float64))
