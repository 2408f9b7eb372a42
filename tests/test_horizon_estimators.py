"""Fixed horizons and the block estimator: exact vectors, slow twins, limits, fixed points, runs kept apart."""

import naive
import pytest
import torch
from test_estimators import BOUND, GOLDEN, NAN, PATTERNS, TOLERANCE
from test_more_estimators import check, columns_of, critic_update, fixed_point, heads, rollout

from ridgeline.estimators.block import Block, block_target
from ridgeline.estimators.fixed_horizon import FixedHorizon, fixed_horizon_target
from ridgeline.estimators.monte_carlo import reward_to_go

each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
each_estimator = pytest.mark.parametrize(
    "estimator", [FixedHorizon(1), FixedHorizon(64), Block(8), Block(8, "masked"), Block(1)], ids=str
)


def golden(values, at_cut, at_truncation, dtype):
    """The inputs of the golden vectors with K heads: values (8, K), at_cut and at_truncation (K,)."""
    given = GOLDEN["inputs"]
    next_value = torch.cat([values[1:], at_cut[None]])
    next_value[2], next_value[5] = NAN, at_truncation
    reward = torch.tensor(given["r"], dtype=dtype)[:, None]
    flags = (torch.tensor(given[name])[:, None] > 0 for name in ("terminated", "truncated"))
    return rollout(reward, values[:, None].to(dtype), next_value[:, None].to(dtype), *flags)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_golden_fixed_horizon(dtype):
    given = GOLDEN["FH_inputs"]
    values = torch.tensor([given[f"V{h}"] for h in (1, 2, 4)], dtype=torch.float64).T
    at_cut, at_truncation = (
        torch.tensor([given[name][h] for h in "124"], dtype=torch.float64) for name in ("V_end", "V_final_obs_t5")
    )
    batch = golden(values, at_cut, at_truncation, dtype)
    estimate, _ = FixedHorizon(4)(batch, {})
    assert estimate.target is not None and estimate.target.dtype == dtype
    for k, h in enumerate((1, 2, 4)):
        target = torch.tensor(GOLDEN[f"FH_target_h{h}_halfbackup"], dtype=dtype)
        check(estimate.target[:, 0, k], target, TOLERANCE[dtype])
        advantage = torch.tensor(GOLDEN[f"FH_adv_h{h}"], dtype=dtype)
        check((estimate.target - batch.value)[:, 0, k], advantage, TOLERANCE[dtype])
    assert torch.equal(estimate.advantage, (estimate.target - batch.value)[..., -1])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", ["absorbing", "masked"])
def test_golden_block(variant, dtype):
    given = GOLDEN["block_inputs"]
    every, at_cut, at_truncation = (
        torch.tensor(given[f"prediction_{name}"], dtype=torch.float64)
        for name in ("every_row", "at_cut", "final_obs_t5")
    )
    batch = golden(every.repeat(8, 1), at_cut, at_truncation, dtype)
    advantage = Block(4, variant)(batch, {})[0].advantage
    assert advantage.dtype == dtype
    check(advantage[:, 0], torch.tensor(GOLDEN[f"block_H4_{variant}"], dtype=dtype), TOLERANCE[dtype])


def slow(function, *tensors, **settings):
    """A function of one column, for all columns: (T, B, K)."""
    every = [function(*(x[:, b].tolist() for x in tensors), **settings) for b in range(tensors[0].shape[1])]
    return torch.tensor(every, dtype=torch.float64).transpose(0, 1)


@pytest.mark.parametrize("dtype", BOUND)
@each_pattern
def test_random_patterns(steps, columns, chance, dtype):
    batch = heads(steps, columns, chance, 7, dtype=dtype)
    flags = batch.terminated, batch.truncated
    for count in (1, 2, 7):
        next_value = batch.next_value[..., :count]
        target = fixed_horizon_target(batch.reward, next_value, *flags)
        assert target.dtype == dtype
        check(target, slow(naive.fixed_horizon_target, batch.reward, next_value, *flags), BOUND[dtype])
    for count in (1, 2, 7):
        given = batch.reward, batch.value[..., :count], batch.next_value[..., :count], *flags
        for masked in (False, True):
            target = block_target(*given, masked)
            assert target.dtype == dtype
            check(target, slow(naive.block_target, *given, masked=masked), BOUND[dtype])


# --------------------------------------------------------------------------------------------------------------- limits


@each_pattern
def test_limits(steps, columns, chance):
    """Horizon 1: the reward. A horizon that reaches beyond every end, with nothing behind it: reward-to-go."""
    batch = heads(steps, columns, chance, 9)
    given = batch.terminated, batch.truncated
    check(fixed_horizon_target(batch.reward, batch.next_value, *given)[..., 0], batch.reward)
    check(block_target(batch.reward, batch.value[..., :1], batch.next_value[..., :1], *given)[..., 0], batch.reward)
    nothing = torch.where(batch.next_value.isnan(), NAN, 0.0).double()
    expected = reward_to_go(batch.reward, nothing[..., 0], *given, 1.0)
    check(fixed_horizon_target(batch.reward, nothing, *given)[..., -1], expected)  # half of 256 is more than 90
    nothing = torch.where(batch.terminated, NAN, 0.0).double().unsqueeze(-1).repeat(1, 1, 90)
    check(block_target(batch.reward, torch.zeros_like(nothing), nothing, *given).sum(-1), expected)


def test_a_flat_reward_is_predicted_without_error():
    """Reward 1 and exact predictions: no advantage before a truncation or a cut, at any row and horizon."""
    reward, never = torch.ones(20, 1, dtype=torch.float64), torch.zeros(20, 1, dtype=torch.bool)
    truncated = (torch.arange(20) == 13).unsqueeze(1)
    exact = (2.0 ** torch.arange(11, dtype=torch.float64)).expand(20, 1, -1)
    check(fixed_horizon_target(reward, exact, never, truncated), exact)
    ones = torch.ones(20, 1, 32, dtype=torch.float64)
    check(Block()(rollout(reward, ones, ones, never, truncated), {})[0].advantage, 0 * reward)


def test_the_masked_block_cannot_see_survival():
    """Reward 1 until a termination: the first proposal finds nothing, the correction what the end costs."""
    ends = (torch.arange(6) == 3).unsqueeze(1)
    values = torch.ones(6, 1, 4, dtype=torch.float64)
    batch = rollout(torch.ones(6, 1, dtype=torch.float64), values, values, ends, ends & False)
    assert Block(4, "masked")(batch, {})[0].advantage.ravel().tolist() == [0, 0, 0, 0, 0, 0]
    assert Block(4)(batch, {})[0].advantage.ravel().tolist() == [0, -1, -2, -3, 0, 0]


# --------------------------------------------------------------------------------- as the training loop calls them


@each_estimator
def test_columns_may_be_permuted_and_runs_are_kept_apart(estimator):
    batch = heads(20, 12, 0.1, estimator.num_values, num_runs=3)
    together, memory = estimator(batch, {"untouched": 1})
    assert memory == {"untouched": 1}
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    for columns in (order, slice(0, 4), slice(4, 8), slice(8, 12)):
        alone, _ = estimator(columns_of(batch, columns), {})
        assert torch.equal(alone.advantage, together.advantage[:, columns])
        assert torch.equal(alone.target, together.target[:, columns])


def test_a_time_limit_is_no_end():
    """Reward 1 in a state that never changes: the horizon itself, and 1 for each lag. Masked lags learn nothing."""
    assert fixed_point(FixedHorizon(1024)).tolist() == pytest.approx([2.0**k for k in range(11)])
    assert fixed_point(Block(32)).tolist() == pytest.approx([1.0] * 32)
    start = torch.linspace(0.0, 1.0, 32, dtype=torch.float64)
    check(critic_update(Block(32, "masked"), start)[0][10:], start[10:])


def test_a_termination_is_an_end():
    """The mean of min(h, rows left) where all rewards of a horizon are seen; 10 - j of 10 rows see lag j."""
    lags = [max(0.0, 1 - j / 10) for j in range(32)]
    assert fixed_point(Block(32), True).tolist() == pytest.approx(lags)
    whole = fixed_point(FixedHorizon(1024), True).tolist()
    assert whole[0] == pytest.approx(1.0) and whole[5:] == pytest.approx([5.5] * 6)
    # h = 2: one reward, then V1 but at the last row; h = 4: two of them, then V2 but at the last two
    assert whole[1] == pytest.approx(1 + 0.9 * 1) and whole[2] == pytest.approx((9 * 2 + 1 + 8 * 1.9) / 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedHorizon(0), "max_horizon = 0; use a power of two"),
        (lambda: FixedHorizon(12), "max_horizon = 12; use a power of two"),
        (lambda: FixedHorizon(4.0), "max_horizon = 4.0; use a power of two"),  # type: ignore[arg-type]
        (lambda: Block(0), "horizon = 0; use a whole number from 1"),
        (lambda: Block(4, "maskd"), "variant = 'maskd'; use absorbing or masked"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
