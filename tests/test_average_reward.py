"""Average reward: slow twin, limits, a solved cycle, the reward rate of each run."""

import math

import naive
import pytest
import torch
from test_estimators import BOUND, NAN, PATTERNS, pattern, slow
from test_more_estimators import check, columns_of, heads, rollout
from test_smoke import check as check_training

from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.average_reward import AverageReward, differential_advantage
from ridgeline.estimators.gae import generalized_advantage
from ridgeline.training import Training

each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("per_column", [False, True])
@each_pattern
def test_random_patterns(steps, columns, chance, per_column, dtype):
    given = pattern(steps, columns, chance, dtype)
    rate, gae_lambda = 0.7, 0.9
    if per_column:
        rate = torch.linspace(-1.0, 2.0, columns, dtype=torch.float64)
        gae_lambda = torch.linspace(0.0, 1.0, columns + 1, dtype=torch.float64)[1:]
    advantage, target, delta = differential_advantage(*given, rate, gae_lambda)
    assert advantage.dtype == target.dtype == delta.dtype == dtype
    check(advantage, slow(naive.differential_advantage, given, rate, gae_lambda), BOUND[dtype])
    check(target, advantage + given[1], BOUND[dtype])
    check(delta, slow(naive.differential_advantage, given, rate, 0.0), BOUND[dtype])


@each_pattern
def test_limits(steps, columns, chance):
    """Rate 0: GAE with gamma = 1. A rate r: the same with r taken off every reward."""
    reward, *rest = pattern(steps, columns, chance)
    gae = generalized_advantage(reward, *rest, 1.0, 0.9)
    for ours, theirs in zip(differential_advantage(reward, *rest, 0.0, 0.9)[:2], gae, strict=True):
        check(ours, theirs)
    check(differential_advantage(reward + 3, *rest, 3.0, 0.9)[0], gae[0])


def test_rewards_may_be_shifted():
    """A constant more on every reward is found by the rate and changes no advantage, in the first rollout and later."""
    estimator, batch = AverageReward(), heads(40, 6, 0.0, 1)
    shifted = heads(40, 6, 0.0, 1)
    shifted.reward = shifted.reward + 5
    memory, other = {}, {}
    for _ in range(3):
        (one, memory), (two, other) = estimator(batch, memory), estimator(shifted, other)
        check(one.advantage, two.advantage)
    check(memory["reward_rate"] + 5, other["reward_rate"])


def test_a_solved_cycle():
    """Two states in turn, rewards 1 and 3: rate 2, V(first) - V(second) = -1; there every TD error is 0. From a wrong
    rate and wrong values, cut at 9 steps for ever, a table of two values comes to it."""
    state = torch.arange(9) % 2
    reward = (1.0 + 2 * state).double().unsqueeze(1)
    never, truncated = torch.zeros(9, 1, dtype=torch.bool), (torch.arange(9) == 8).unsqueeze(1)
    estimator = AverageReward(gae_lambda=0.5)
    table, memory = torch.tensor([4.0, 0.0], dtype=torch.float64), {"reward_rate": torch.zeros(1, dtype=torch.float64)}
    estimate = None
    for _ in range(2000):
        value, next_value = table[state].view(9, 1, 1), table[1 - state].view(9, 1, 1)
        estimate, memory = estimator(rollout(reward, value, next_value, never, truncated), memory)
        target = estimate.target[:, 0, 0]
        table = table + 0.3 * torch.stack([(target - table[s])[state == s].mean() for s in (0, 1)])
    assert estimate is not None and estimate.advantage.abs().max() < 1e-8
    assert float(memory["reward_rate"]) == pytest.approx(2.0)
    assert float(table[0] - table[1]) == pytest.approx(-1.0)


def test_apo_by_hand():
    """The rate and the mean value start at the first rollout's means and move a tenth of the way to the second's; nu
    times the mean value comes off the target, and off nothing else."""
    estimator = AverageReward(0.5, 0.1, "apo", 0.2)
    never = torch.zeros(2, 1, dtype=torch.bool)
    first = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.full((2, 1, 1), 4.0, dtype=torch.float64)
    estimate, memory = estimator(rollout(*first, first[1], never, never), {})
    assert memory["reward_rate"].tolist() == [2.0] and memory["mean_value"].tolist() == [4.0]
    assert estimate.advantage.ravel().tolist() == [-1 + 0.5 * 1, 1]
    assert estimate.target.ravel().tolist() == pytest.approx([3.5 - 0.8, 5 - 0.8])
    second = torch.tensor([[0.0], [0.0]], dtype=torch.float64), torch.full((2, 1, 1), -1.0, dtype=torch.float64)
    estimate, memory = estimator(rollout(*second, second[1], never, never), memory)
    assert memory["reward_rate"].tolist() == pytest.approx([1.8])
    assert memory["mean_value"].tolist() == pytest.approx([3.5])
    assert estimate.target.ravel().tolist() == pytest.approx([-1.8 * 1.5 - 1 - 0.7, -1.8 - 1 - 0.7])


@pytest.mark.parametrize("centering", [0.1, 0.0])
def test_apo_finds_values_around_zero(centering):
    """The two states in turn: rate 2 at once in rollouts of even length, values -0.5 and 0.5, wherever they began. The
    pull to 0 alone does that: without it they keep their mean."""
    state = torch.arange(10) % 2
    reward = (1.0 + 2 * state).double().unsqueeze(1)
    never, truncated = torch.zeros(10, 1, dtype=torch.bool), (torch.arange(10) == 9).unsqueeze(1)
    estimator = AverageReward(0.5, 0.1, "apo", centering)
    table, memory, estimate = torch.tensor([9.0, 3.0], dtype=torch.float64), {}, None
    for _ in range(1000):
        value, next_value = table[state].view(10, 1, 1), table[1 - state].view(10, 1, 1)
        estimate, memory = estimator(rollout(reward, value, next_value, never, truncated), memory)
        target = estimate.target[:, 0, 0]
        table = table + 0.3 * torch.stack([(target - table[s])[state == s].mean() for s in (0, 1)])
    assert estimate is not None and estimate.advantage.abs().max() < 1e-8
    assert float(memory["reward_rate"]) == pytest.approx(2.0)
    assert float(table[0] - table[1]) == pytest.approx(-1.0)
    if centering:
        assert float(table.mean()) == pytest.approx(0.0, abs=1e-8)
    else:
        assert float(table.mean()) > 5


def test_a_drift_is_held():
    """A value that something pushes up by 0.01 after every rollout: APO holds it where nu times it is as much, the
    others let it go on for ever."""
    never = torch.zeros(10, 1, dtype=torch.bool)
    reward, truncated = torch.ones(10, 1, dtype=torch.float64), (torch.arange(10) == 9).unsqueeze(1)
    ends = []
    for estimator in (AverageReward(), AverageReward(variant="apo"), AverageReward(variant="apo", value_centering=0.0)):
        value, memory, values = 0.0, {}, []
        for _ in range(400):
            prediction = torch.full((10, 1, 1), value, dtype=torch.float64)
            estimate, memory = estimator(rollout(reward, prediction, prediction, never, truncated), memory)
            value = float(estimate.target.mean()) + 0.01
            values.append(value)
        ends.append((values[-1], values[-1] - values[-2]))
    differential, held, free = ends
    assert held == pytest.approx((0.01 / 0.1, 0.0), abs=1e-6)
    assert differential == free == pytest.approx((4.0, 0.01))


@pytest.mark.parametrize("terminating", [False, True])
def test_constant_reward_stays_finite_for_ever(terminating):
    """Reward 1, ends at 10 steps: the rate comes to 1. With a time limit the value stays where it was by then,
    sum of what the rate had missed; with a termination it is 0, and nothing is left to learn survival from."""
    ends, never = (torch.arange(10) == 9).unsqueeze(1), torch.zeros(10, 1, dtype=torch.bool)
    flags = (ends, never) if terminating else (never, ends)
    reward = torch.ones(10, 1, dtype=torch.float64)
    value, memory = 0.0, {"reward_rate": torch.zeros(1, dtype=torch.float64)}
    estimate = None
    for _ in range(2_000):
        prediction = torch.full((10, 1, 1), value, dtype=torch.float64)
        following = torch.where(flags[0].unsqueeze(-1), NAN, prediction)
        estimate, memory = AverageReward(0.95, 0.1)(rollout(reward, prediction, following, *flags), memory)
        value = float(estimate.target.mean())
    assert estimate is not None and estimate.advantage.abs().max() < 1e-9
    assert float(memory["reward_rate"]) == pytest.approx(1.0)
    trace = sum(sum(0.95**lag for lag in range(rows)) for rows in range(1, 11)) / 10
    assert value == pytest.approx(0.0 if terminating else 10 * trace, abs=1e-9)


@pytest.mark.parametrize("variant", ["differential", "apo"])
def test_runs_are_kept_apart(variant):
    """R = 3 is three times R = 1 with its own rate, bit for bit; a run that explodes keeps the rate it had."""
    estimator, batch = AverageReward(variant=variant), heads(20, 12, 0.1, 1, num_runs=3, dtype=torch.float32)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    memories: list[dict] = [{}, {}, {}]
    memory: dict = {}
    for _ in range(3):
        together, memory = estimator(batch, memory)
        for run in range(3):
            columns = slice(4 * run, 4 * run + 4)
            alone, memories[run] = estimator(columns_of(batch, columns), memories[run])
            assert torch.equal(alone.advantage, together.advantage[:, columns])
            assert torch.equal(alone.target, together.target[:, columns])
            assert torch.equal(memories[run]["reward_rate"], memory["reward_rate"][run : run + 1])
    assert memory["reward_rate"].shape == (3,) and len(memory["reward_rate"].unique()) == 3
    single = columns_of(batch, slice(0, 4))
    permuted = estimator(columns_of(single, order), memories[0])[0].advantage
    assert torch.equal(permuted, estimator(single, memories[0])[0].advantage[:, order])

    before = memory["reward_rate"].clone()
    batch.reward += 1
    batch.reward[3, 5] = math.inf
    _, memory = estimator(batch, memory)
    assert memory["reward_rate"][1] == before[1] and (memory["reward_rate"] != before).tolist() == [True, False, True]
    _, memory = estimator(batch, {})
    assert memory["reward_rate"].isfinite().all()


@pytest.mark.parametrize("variant", ["differential", "apo"])
def test_coefficients_of_each_run(variant):
    stacked = AverageReward(variant=variant)
    settings = ("gae_lambda", [0.9, 0.5]), ("reward_rate_step", [0.1, 0.3]), ("value_centering", [0.2, 0.0])
    for name, values in settings:
        object.__setattr__(stacked, name, torch.tensor(values, dtype=torch.float64).repeat_interleave(4))
    batch = heads(20, 8, 0.1, 1, num_runs=2, dtype=torch.float32)
    together, memory = stacked(batch, {})
    for run, own in enumerate((AverageReward(0.9, 0.1, variant, 0.2), AverageReward(0.5, 0.3, variant, 0.0))):
        alone, own_memory = own(columns_of(batch, slice(4 * run, 4 * run + 4)), {})
        assert torch.equal(alone.advantage, together.advantage[:, 4 * run : 4 * run + 4])
        assert torch.equal(alone.target, together.target[:, 4 * run : 4 * run + 4])
        assert torch.equal(own_memory["reward_rate"], memory["reward_rate"][run : run + 1])


@pytest.mark.parametrize("environment", ["pendulum", "mountain_car_continuous"])
def test_apo_with_continuous_actions(environment):
    estimator = AverageReward(variant="apo")
    check_training(Training(environment, PPO(num_envs=4, rollout_length=8), estimator, total_steps=96, num_threads=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gae_lambda": 1.1}, "gae_lambda = 1.1; use a number from 0 to 1"),
        ({"reward_rate_step": 0.0}, "reward_rate_step = 0.0; use a number above 0"),
        ({"reward_rate_step": NAN}, "reward_rate_step = nan"),
        ({"variant": "trpo"}, "variant = 'trpo'; use differential or apo"),
        ({"value_centering": -0.1}, "value_centering = -0.1; use a number from 0 to 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        AverageReward(**settings)
