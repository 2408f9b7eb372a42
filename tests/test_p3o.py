"""P3O, the block estimator whose lags are weighed by variance: by hand, against its loop, against the likelihood."""

import math
from types import SimpleNamespace

import naive
import pytest
import torch
from test_horizon_estimators import slow
from test_more_estimators import check, columns_of, heads, rollout

from ridgeline.estimators.block import Block, lag_weight
from ridgeline.rollout import squared_error


def test_weights_by_hand():
    """1 - 1/4, 1/2 - 1/4, 1/4 - 1/4, over the largest; rewards that never differ take nothing off."""
    variance, spread = torch.tensor([[1.0, 2.0, 4.0, math.inf]]), torch.tensor([[4.0]])
    assert lag_weight(variance, spread, 1.0).ravel().tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert lag_weight(variance, spread, 0.0).ravel().tolist() == pytest.approx([1, 1 / 2, 1 / 4, 0])
    assert lag_weight(variance, 0 * spread, 1.0).ravel().tolist() == pytest.approx([1, 1 / 2, 1 / 4, 0])
    assert lag_weight(variance, spread, 5.0).ravel().tolist() == [0, 0, 0, 0]
    exact = lag_weight(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0]]), 0.0)
    assert exact.ravel().tolist() == pytest.approx([1, 2e-6])  # no better than a standard deviation of 0.001
    assert lag_weight(torch.zeros(1, 3), torch.zeros(1, 1), 0.5).ravel().tolist() == [0, 0, 0]


def test_the_stop_rule():
    """A lag with a standard deviation above 0.95 of the rewards' ends the sum, from the 17th on."""
    variance = torch.full((1, 24), 0.5)
    variance[0, 3] = variance[0, 18] = 0.91
    weight = lag_weight(variance, torch.ones(1, 1), 0.0).ravel()
    assert (weight > 0).tolist() == [True] * 18 + [False] * 6
    variance[0, 18] = 0.9
    assert (lag_weight(variance, torch.ones(1, 1), 0.0) > 0).all()
    assert (lag_weight(variance, torch.zeros(1, 1), 0.0) > 0).ravel().tolist() == [True] * 16 + [False] * 8


@pytest.mark.parametrize("puf", [0.0, 0.5, 1.0, 3.0])
def test_weights_against_the_loop(puf):
    generator = torch.Generator().manual_seed(0)
    variance = torch.rand(50, 24, generator=generator, dtype=torch.float64) + 0.01
    spread = 1.5 * torch.rand(50, 1, generator=generator, dtype=torch.float64)
    spread[0] = 0.0
    expected = [naive.lag_weight(v.tolist(), float(r), puf) for v, r in zip(variance, spread, strict=True)]
    check(lag_weight(variance, spread, puf), torch.tensor(expected, dtype=torch.float64))


def lag_weights(memory, puf):
    """(R, H), from what an estimator remembers."""
    spread = memory["target_square"] - memory["target_mean"] ** 2
    variance = torch.where(memory["lag_count"] > 0, memory["lag_variance"], math.inf)
    return lag_weight(variance, spread.unsqueeze(-1), puf)


@pytest.mark.parametrize("variant", ["absorbing", "masked"])
def test_p3o_in_two_rollouts(variant):
    """All weights are 1 at first; then they are those of the first rollout, whatever the second one holds. Its variance
    is the maximum of the Gaussian likelihood, and the critic's loss has the likelihood's gradient."""
    estimator, first, second = Block(8, variant, 0.05), heads(40, 6, 0.1, 8), heads(40, 6, 0.1, 8, seed=1)
    equal, memory = estimator(first, {})
    check(equal.advantage, Block(8, variant)(first, {})[0].advantage)
    entries = slow(
        naive.block_entries, first.reward, first.value, first.next_value, first.terminated, first.truncated,
        masked=variant == "masked",
    )  # fmt: skip
    known = entries[..., 1 if variant == "masked" else 2] > 0
    log_std = (0.5 * memory["lag_variance"].log()).requires_grad_()
    likelihood = torch.nn.GaussianNLLLoss(reduction="none", eps=1e-12)
    loss = likelihood(first.value, entries[..., 0], (2 * log_std).exp().expand_as(first.value))
    (gradient,) = torch.autograd.grad(loss[known].sum(), log_std)
    check(gradient, 0 * gradient, 1e-9)
    known_targets = entries[..., 0][known]
    weight = lag_weights(memory, 0.05)
    if variant == "masked":
        pooled = known_targets.var(correction=0)
        check(memory["target_square"] - memory["target_mean"] ** 2, pooled.view(1))
    assert 0 < weight.min() < 0.9 and weight.max() == 1  # the test can tell

    scale = torch.linspace(0.5, 3.0, 8, dtype=torch.float64).view(1, 8)
    second.population = SimpleNamespace(coefficients={"value_scale": scale})  # type: ignore[assignment]
    estimate, _ = estimator(second, memory)
    assert estimate.target is not None and estimate.target_weight is not None
    plain, _ = Block(8, variant)(second, {})
    check(estimate.target, plain.target)
    check(estimate.advantage, (weight * (plain.target - second.value)).sum(-1))

    value = second.value.clone().requires_grad_()
    minibatch = {"target": estimate.target, "target_weight": estimate.target_weight}
    (ours,) = torch.autograd.grad(squared_error(value, minibatch, scale).sum(), value)
    loss = likelihood(value, estimate.target, memory["lag_variance"].expand_as(value))
    assert plain.target_weight is not None
    (theirs,) = torch.autograd.grad((plain.target_weight * loss).sum(), value)
    ratio = ours[theirs.abs() > 1e-9] / theirs[theirs.abs() > 1e-9]
    check(ratio, ratio.mean().expand_as(ratio), 1e-9)
    if variant == "absorbing":
        check(estimate.target_weight.sum(-1), torch.ones(40, 6, dtype=torch.float64))
    assert (ours[theirs == 0] == 0).all()


def test_lags_that_no_rollout_sees_have_no_weight():
    """Four steps, no end: how well the others are predicted nobody knows; they are trained all the same."""
    estimator, batch = Block(8, puf=0.0), heads(4, 3, 0.0, 8)
    batch.terminated[:], batch.truncated[:] = False, False
    batch.next_value.nan_to_num_()
    _, memory = estimator(batch, {})
    assert memory["lag_count"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]
    changed = heads(4, 3, 0.0, 8)
    changed.terminated[:], changed.truncated[:], changed.next_value = False, False, batch.next_value.clone()
    changed.next_value[-1, :, 4:] += 5  # of what nothing is known: their sum would see it
    one, other = estimator(batch, memory)[0], estimator(changed, memory)[0]
    assert torch.equal(one.advantage, other.advantage) and not torch.equal(one.target, other.target)
    assert (lag_weights(memory, 0.0)[0, 4:] == 0).all()
    assert one.target_weight is not None and (one.target_weight > 0).all()


def test_running_means_forget_an_untrained_critic():
    """The newest of n rollouts has weight 1/n, at least 1/5; a rollout that never reaches a lag leaves it alone."""
    estimator = Block(2, "masked", 0.5)
    no = torch.zeros(3, 1, dtype=torch.bool)
    memory, expected = {}, 0.0
    for n, error in enumerate([8.0, 2.0, 1.0, 1.0, 3.0, 2.0, 5.0], 1):
        value = torch.zeros(3, 1, 2, dtype=torch.float64)
        ends = no if n % 2 else ~no  # every second rollout has no second lag
        _, memory = estimator(rollout(torch.full((3, 1), error, dtype=torch.float64), value, value, ends, no), memory)
        expected += max(1 / n, 0.2) * (error**2 - expected)
        assert float(memory["lag_variance"][0, 0]) == pytest.approx(expected)
    assert memory["lag_count"].tolist() == [[7, 4]]
    assert float(memory["lag_variance"][0, 1]) == pytest.approx((64 + 1 + 9 + 25) / 4)


@pytest.mark.parametrize("scale", [1000.0, 0.001])
@pytest.mark.parametrize("variant", ["absorbing", "masked"])
def test_p3o_has_no_unit(variant, scale):
    estimator, memory, other = Block(8, variant, 0.5), {}, {}
    for seed in range(3):
        batch, scaled = heads(40, 6, 0.1, 8, seed=seed), heads(40, 6, 0.1, 8, seed=seed)
        scaled.reward, scaled.value, scaled.next_value = (
            x * scale for x in (scaled.reward, scaled.value, scaled.next_value)
        )
        (one, memory), (two, other) = estimator(batch, memory), estimator(scaled, other)
        check(two.advantage / scale, one.advantage, 1e-9)
        check(two.target_weight, one.target_weight, 1e-9)


@pytest.mark.parametrize("estimator", [Block(8, puf=0.5), Block(8, "masked", 0.5), Block(1, puf=0.5)], ids=str)
def test_p3o_keeps_runs_apart(estimator):
    """R = 3 is three times R = 1, bit for bit; a run that explodes keeps what it knew; rewards of 0 are no error."""
    memory, memories = {}, [{}, {}, {}]
    for seed in range(3):
        batch = heads(20, 12, 0.1, estimator.num_values, num_runs=3, dtype=torch.float32, seed=seed)
        together, memory = estimator(batch, memory)
        for run in range(3):
            columns = slice(4 * run, 4 * run + 4)
            alone, memories[run] = estimator(columns_of(batch, columns), memories[run])
            for ours, theirs in zip(alone[:3], together[:3], strict=True):
                assert torch.equal(ours, theirs[:, columns])
            assert all(torch.equal(memories[run][name], memory[name][run : run + 1]) for name in memory)
    batch.reward[3, 5] = math.inf
    _, newest = estimator(batch, memory)
    for name, tensor in newest.items():
        assert torch.equal(tensor[1], memory[name][1]) and tensor.isfinite().all()
    nothing, memory = torch.zeros(4, 2, estimator.num_values), {}
    for _ in range(3):
        still = rollout(nothing[..., 0], nothing, nothing, nothing[..., 0] > 0, nothing[..., 0] > 0)
        estimate, memory = estimator(still, memory)
        assert (estimate.advantage == 0).all() and estimate.target_weight.isfinite().all()
