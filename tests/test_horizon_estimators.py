"""Fixed horizons and the block estimator: exact vectors, slow twins, limits, fixed points, runs kept apart."""

import naive
import pytest
import torch
from test_estimators import BOUND, GOLDEN, NAN, PATTERNS, TOLERANCE
from test_more_estimators import check, columns_of, critic_update, fixed_point, heads, rollout
from test_smoke import check as check_training

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.block import Block, block_target
from ridgeline.estimators.fixed_horizon import FixedHorizon, fixed_horizon_target, fixed_horizon_trace
from ridgeline.estimators.monte_carlo import reward_to_go
from ridgeline.training import Training

each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
each_estimator = pytest.mark.parametrize(
    "estimator",
    [FixedHorizon(1), FixedHorizon(64), FixedHorizon(64, "half"), Block(8), Block(8, "masked"), Block(1)],
    ids=str,
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
    estimate, _ = FixedHorizon(4, "half")(batch, {})
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
    estimate, _ = Block(4, variant)(batch, {})
    assert estimate.advantage.dtype == dtype
    check(estimate.advantage[:, 0], torch.tensor(GOLDEN[f"block_H4_{variant}"], dtype=dtype), TOLERANCE[dtype])
    seen = [3, 2, 1, 3, 2, 1, 2, 1]  # rows to the end of the piece: terminated at row 2, truncated at 5, cut at 7
    weight = [[0.25 * (j < count or variant == "absorbing") for j in range(4)] for count in seen]
    assert estimate.target_weight is not None and estimate.target_weight.dtype == dtype
    assert estimate.target_weight[:, 0].tolist() == weight


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
        given = batch.reward, batch.value[..., :count], next_value, *flags
        advantage = fixed_horizon_trace(*given)
        assert advantage.dtype == dtype
        check(advantage, slow(naive.fixed_horizon_trace, *given), BOUND[dtype])
        target, seen, known = block_target(*given)
        assert target.dtype == dtype
        entries = slow(naive.block_entries, *given, masked=False)
        for ours, theirs in zip((target, seen.double(), known.double()), entries.unbind(-1), strict=True):
            check(ours, theirs, BOUND[dtype])
        estimate, _ = Block(count, "masked")(rollout(*given), {})
        check(estimate.target, slow(naive.block_target, *given, masked=True), BOUND[dtype])
        check(estimate.target_weight, seen.to(dtype) / count)


# --------------------------------------------------------------------------------------------------------------- limits


@each_pattern
def test_limits(steps, columns, chance):
    """Horizon 1: the reward. A horizon that reaches beyond every end, with nothing behind it: reward-to-go."""
    batch = heads(steps, columns, chance, 9)
    given = batch.terminated, batch.truncated
    check(fixed_horizon_target(batch.reward, batch.next_value, *given)[..., 0], batch.reward)
    check(block_target(batch.reward, batch.value[..., :1], batch.next_value[..., :1], *given)[0][..., 0], batch.reward)
    heads_one = batch.value[..., :1], batch.next_value[..., :1]
    check(fixed_horizon_trace(batch.reward, *heads_one, *given), batch.reward - batch.value[..., 0])
    nothing = torch.where(batch.next_value.isnan(), NAN, 0.0).double()
    expected = reward_to_go(batch.reward, nothing[..., 0], *given, 1.0)
    check(fixed_horizon_target(batch.reward, nothing, *given)[..., -1], expected)  # half of 256 is more than 90
    nothing = torch.where(batch.terminated, NAN, 0.0).double().unsqueeze(-1).repeat(1, 1, 90)
    check(block_target(batch.reward, torch.zeros_like(nothing), nothing, *given)[0].sum(-1), expected)


def test_a_flat_reward_is_predicted_without_error():
    """Reward 1 and exact predictions: no advantage before a truncation or a cut, at any row and horizon."""
    reward, never = torch.ones(20, 1, dtype=torch.float64), torch.zeros(20, 1, dtype=torch.bool)
    truncated = (torch.arange(20) == 13).unsqueeze(1)
    exact = (2.0 ** torch.arange(11, dtype=torch.float64)).expand(20, 1, -1)
    check(fixed_horizon_target(reward, exact, never, truncated), exact)
    check(FixedHorizon()(rollout(reward, exact, exact, never, truncated), {})[0].advantage, 0 * reward)
    ones = torch.ones(20, 1, 32, dtype=torch.float64)
    check(Block()(rollout(reward, ones, ones, never, truncated), {})[0].advantage, 0 * reward)


def test_the_masked_block_cannot_see_survival():
    """Reward 1 until a termination: the first proposal finds nothing, the correction what the end costs."""
    ends = (torch.arange(6) == 3).unsqueeze(1)
    values = torch.ones(6, 1, 4, dtype=torch.float64)
    batch = rollout(torch.ones(6, 1, dtype=torch.float64), values, values, ends, ends & False)
    assert Block(4, "masked")(batch, {})[0].advantage.ravel().tolist() == [0, 0, 0, 0, 0, 0]
    assert Block(4)(batch, {})[0].advantage.ravel().tolist() == [0, -1, -2, -3, 0, 0]
    # and with any critic, nothing but the critic's error in what was seen
    values = heads(6, 1, 0.0, 4).value
    wrong = Block(4, "masked")(rollout(batch.reward, values, values, ends, ends & False), {})[0].advantage
    own_error = torch.where(torch.arange(4) < torch.tensor([4, 3, 2, 1, 2, 1]).view(6, 1, 1), 1 - values, 0.0)
    check(wrong, own_error.sum(-1))


def test_the_trace_of_a_shrinking_horizon_by_hand():
    """Horizons 1, 2, 4; three rows, terminated at the last. Row 0: delta 1 + V'3 - V4, where 3 lies halfway between the
    heads 2 and 4; then half of (0 + V'2 - V3), then a third of (2 - V2)."""
    reward = torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)
    value = torch.tensor([[0.5, 1.0, 2.0], [0.0, 3.0, 4.0], [1.0, 1.5, 1.75]], dtype=torch.float64).unsqueeze(1)
    next_value = torch.cat([value[1:], torch.full_like(value[:1], NAN)])
    ends = torch.tensor([[False], [False], [True]])
    first = (1 + 3.5 - 2) + (0 + 1.5 - 3.5) / 2 + (2 - 1.5) / 3
    second = (0 + 1.625 - 4) + (2 - 1.625) / 2
    advantage = fixed_horizon_trace(reward, value, next_value, ends, ends)
    assert advantage.ravel().tolist() == pytest.approx([first, second, 2 - 1.75])


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
        (lambda: FixedHorizon(4, "full"), "trace = 'full'; use harmonic or half"),  # type: ignore[arg-type]
        (lambda: Block(4, puf=-0.1), "puf = -0.1; use a number from 0, or None"),
        (lambda: Block(4, puf=NAN), "puf = nan; use a number from 0, or None"),
        (lambda: Block(0), "horizon = 0; use a whole number from 1"),
        (lambda: Block(4, "maskd"), "variant = 'maskd'; use absorbing or masked"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("environment", ["pendulum", "mountain_car_continuous"])
@pytest.mark.parametrize("estimator", [Block(12, "masked"), Block(12, puf=0.5), FixedHorizon(16, "half")], ids=str)
def test_continuous_actions(estimator, environment):
    """Nothing in these estimators looks at actions; each has been trained with every kind."""
    check_training(
        Training(environment, PPO(num_envs=4, rollout_length=8), estimator, total_steps=96, num_runs=2, num_threads=1)
    )


@pytest.mark.slow
def test_survival_is_learned_with_the_correction_only():
    """CartPole, PPO, 300,000 steps, four runs, mean return of the last 100 episodes. Measured from seeds 1000 and 2000:
    absorbing 357 and 326, masked 89 and 133, and single masked runs up to 325: what they learn from are the critic's
    errors."""
    returns = {}
    for variant in ("absorbing", "masked"):
        result = ridgeline.train("cartpole", PPO(), Block(32, variant), total_steps=300_000, num_runs=4, seed=1000)
        returns[variant] = sum(result.episode_return) / 4
    assert returns["absorbing"] > 220 and returns["masked"] < 190
