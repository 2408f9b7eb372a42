"""V-trace, PufferLib's advantage, the lambda-return: exact vectors, slow twins, limits, an MDP enumerated by hand."""

import dataclasses
import itertools
import math

import naive
import numpy as np
import pytest
import torch
from test_estimators import BOUND, GOLDEN, NAN, PATTERNS, TOLERANCE, golden, pattern, slow

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import generalized_advantage, lambda_return
from ridgeline.estimators.monte_carlo import reward_to_go
from ridgeline.estimators.n_step import n_step_advantage
from ridgeline.estimators.puffer_advantage import PufferAdvantage, puffer_advantage
from ridgeline.estimators.v_trace import VTrace, v_trace
from ridgeline.rollout import Rollout
from ridgeline.training import Training

INFINITE = math.inf
each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
each_estimator = pytest.mark.parametrize("cls", [VTrace, PufferAdvantage])


def ratios(steps, columns, dtype=torch.float64) -> torch.Tensor:
    """Log ratios of a policy that has moved far: a third below 0.6, a third above 1.6."""
    return torch.from_numpy(np.random.default_rng([1, steps, columns]).normal(size=(steps, columns))).to(dtype)


def off_policy(steps, columns, chance, dtype=torch.float64) -> list[torch.Tensor]:
    return [*pattern(steps, columns, chance, dtype), ratios(steps, columns, dtype)]


def rollout(reward, value, next_value, terminated, truncated, log_ratio, num_runs=1) -> Rollout:
    empty = torch.zeros(0)
    values = value.unsqueeze(-1), next_value.unsqueeze(-1)
    return Rollout(num_runs, empty, empty, empty, *values, reward, terminated, truncated, log_ratio=log_ratio)


def check(result, expected, bound=1e-10):
    assert result.shape == expected.shape
    assert (result - expected).abs().max() < bound  # also refuses NaN


def coefficients(columns, per_column):
    """gamma, gae_lambda, max_ratio, max_trace_ratio."""
    if not per_column:
        return 0.97, 0.9, 1.3, 0.8
    limits = ((0.6, 1.0), (0.0, 1.0), (0.5, 3.0), (1.5, 0.4))
    return tuple(torch.linspace(low, high, columns, dtype=torch.float64) for low, high in limits)


# -------------------------------------------------------------------------------------- exact vectors and slow twins


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_golden(dtype):
    log_ratio = torch.tensor(GOLDEN["vtrace_rho"], dtype=dtype).log()[:, None]
    given = GOLDEN["vtrace_parameters"]
    limits = given["rho_clip"], given["c_clip"]
    advantage, target, clipped_ratio = v_trace(*golden(dtype), log_ratio, given["gamma"], given["lambda"], *limits)
    given = GOLDEN["puffer_parameters"]
    limits = given["rho_clip"], given["c_clip"]
    puffer, returns = puffer_advantage(*golden(dtype), log_ratio, given["gamma"], given["lambda"], *limits)
    for result, name in (
        (target, "vtrace_vs"),
        (clipped_ratio * advantage, "vtrace_pg_adv"),
        (puffer, "puffer_adv_l.8"),
        (lambda_return(*(golden(dtype)[i] for i in (0, 2, 3, 4)), 0.9, 0.8), "returns_g.9_l.8"),
    ):
        assert result.dtype == dtype
        check(result[:, 0], torch.tensor(GOLDEN[name], dtype=dtype), TOLERANCE[dtype])
    check(returns, puffer + golden(dtype)[1], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("per_column", [False, True])
@each_pattern
def test_random_patterns(steps, columns, chance, per_column, dtype):
    given = reward, value, next_value, terminated, truncated, log_ratio = off_policy(steps, columns, chance, dtype)
    gamma, gae_lambda, *limits = coefficients(columns, per_column)
    twin_given = [*given[:-1], log_ratio.double().exp()]
    expected_target, expected = (
        slow(lambda *column, i=i: naive.v_trace(*column)[i], twin_given, gamma, gae_lambda, *limits) for i in (0, 1)
    )
    advantage, target, clipped_ratio = v_trace(*given, gamma, gae_lambda, *limits)
    puffer, puffer_target = puffer_advantage(*given, gamma, gae_lambda, *limits)
    returns = lambda_return(reward, next_value, terminated, truncated, gamma, gae_lambda)
    without_value = [reward, next_value, terminated, truncated]
    for result, by_hand in (
        (target, expected_target),
        (advantage, expected),
        (clipped_ratio, slow(lambda column, limit: [min(one, limit) for one in column], twin_given[-1:], limits[0])),
        (puffer, expected_target - value),
        (puffer_target, expected_target),
        (returns, slow(naive.lambda_return, without_value, gamma, gae_lambda)),
    ):
        assert result.dtype == dtype
        check(result, by_hand, BOUND[dtype])


def n_step_of_tensors(reward, next_value, terminated, truncated, gamma, num_steps):
    """What the compiled loop does, with whole tensors: one reward more in each pass."""
    goes_on = ~(terminated | truncated)[:-1]
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    one_step = reward + torch.where(terminated, 0.0, gamma * next_value)
    target = one_step
    for _ in range(min(num_steps, len(reward)) - 1):
        longer = torch.where(goes_on, reward[:-1] + gamma * target[1:], one_step[:-1])
        target = torch.cat([longer, one_step[-1:]])
    return target


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("steps", "columns", "chance"), [*PATTERNS, (5, 700, 0.1)])
def test_the_compiled_n_step_return_has_the_bits_of_its_twin(steps, columns, chance, dtype):
    """More columns than it takes at once, and rows that are not contiguous, included."""
    given = [tensor[:, ::2] for tensor in pattern(steps, 2 * columns, chance, dtype)]
    per_column = torch.linspace(0.0, 1.0, columns, dtype=torch.float64)
    for gamma, num_steps in itertools.product((0.97, per_column), (1, 2, 5, steps + 3)):
        expected = n_step_of_tensors(given[0], *given[2:], gamma, num_steps)
        assert torch.equal(n_step_advantage(*given, gamma, num_steps)[1], expected)


@pytest.mark.parametrize("reward_only", [False, True])
@pytest.mark.parametrize(("steps", "columns", "chance"), [(7, 6, 0.3), (40, 8, 0.1), (90, 5, 0.02)])
def test_puffer_advantage_in_pufferlibs_layout(steps, columns, chance, reward_only):
    """Number for number: ours on all rows but one, with the last row's value at the cut, and 0 for the last row.
    PufferLib knows no truncation. Its scalar form weighs only the reward: the same where the ratio is 1, else not."""
    reward, value, _, terminated, _, log_ratio = off_policy(steps, columns, chance)
    coefficients = 0.97, 0.9, 1.0, 1.0
    none = torch.zeros(1, columns, dtype=torch.float64)
    with_observation = [torch.cat([none, tensor[:-1]]) for tensor in (reward, terminated.double())]
    next_value = torch.where(terminated[:-1], NAN, value[1:])
    never = torch.zeros_like(terminated)
    ours = [tensor[:-1] for tensor in (reward, value, next_value, terminated, never)]
    for here, equal in ((log_ratio, not reward_only), (torch.zeros_like(log_ratio), True)):
        theirs = slow(
            lambda *column: naive.pufferlib_advantage(*column, reward_only=reward_only),
            [value, *with_observation, here.exp()], *coefficients,
        )  # fmt: skip
        found = torch.cat([puffer_advantage(*ours[:2], next_value, *ours[3:], here[:-1], *coefficients)[0], none])
        assert ((found - theirs).abs().max() < 1e-10) == equal


@each_pattern
def test_nothing_behind_an_end_is_read(steps, columns, chance):
    """In each column, everything behind its first end is made NaN: the rows up to it keep every bit."""
    clean = off_policy(steps, columns, chance)
    ends = clean[3] | clean[4]
    behind = torch.cat([torch.zeros_like(ends[:1]), ends.cummax(0).values[:-1]])
    poisoned = [torch.where(behind, NAN, x) if x.is_floating_point() else x for x in clean]
    for function in (
        lambda x: v_trace(*x, *coefficients(columns, True)),
        lambda x: puffer_advantage(*x, *coefficients(columns, True)),
        lambda x: [lambda_return(x[0], *x[2:5], 0.97, 0.9)],
    ):
        for before, after in zip(function(clean), function(poisoned), strict=True):
            assert torch.equal(torch.where(behind, 0.0, before), torch.where(behind, 0.0, after))
            assert after[behind].isnan().all()


def test_a_ratio_without_meaning_is_not_hidden():
    given = off_policy(6, 3, 0.0)
    given[-1][3, 1] = NAN
    for result in (v_trace(*given, 0.9)[:2], puffer_advantage(*given, 0.9, 0.9)):
        assert all(tensor[:4, 1].isnan().any() and tensor[:, [0, 2]].isfinite().all() for tensor in result)


def test_a_ratio_beyond_all_numbers_at_an_end_is_selected_away():
    """exp overflows there; the trace ends, so its factor must be 0 and not infinity times 0."""
    given = off_policy(6, 3, 0.0)
    given[4][2, 1], given[-1][2, 1] = True, 1e6
    for function in (v_trace, puffer_advantage):
        assert all(result.isfinite().all() for result in function(*given, 0.9, 0.9, 1.0, INFINITE))


# --------------------------------------------------------------------------------------------------------------- limits


@each_pattern
def test_limits_at_ratio_one(steps, columns, chance):
    """V-trace's target is the TD(1) return, GAE(lambda = 1) + V; PufferLib's advantage is GAE."""
    reward, value, next_value, terminated, truncated = given = pattern(steps, columns, chance)
    same = torch.zeros_like(reward)
    full = reward_to_go(reward, next_value, terminated, truncated, 0.97)
    advantage, target, clipped_ratio = v_trace(*given, same, 0.97)
    check(target, full)
    check(target, generalized_advantage(*given, 0.97, 1.0)[1])
    check(advantage, full - value)
    assert (clipped_ratio == 1).all()
    for gae_lambda in (0.0, 0.6, 1.0):
        gae, returns = generalized_advantage(*given, 0.97, gae_lambda)
        check(puffer_advantage(*given, same, 0.97, gae_lambda)[0], gae)
        check(v_trace(*given, same, 0.97, gae_lambda)[1], returns)
        check(lambda_return(reward, next_value, terminated, truncated, 0.97, gae_lambda), returns)
        # V-trace's advantage looks one step further: the TD error plus the whole of the next advantage
        error = generalized_advantage(*given, 0.97, 0.0)[0]
        following = torch.cat([torch.where((terminated | truncated)[:-1], 0.0, gae[1:]), 0 * gae[:1]])
        check(v_trace(*given, same, 0.97, gae_lambda)[0], error + 0.97 * following)
    check(lambda_return(reward, next_value, terminated, truncated, 0.97, 1.0), full)
    one_step = reward + torch.where(terminated, 0.0, 0.97 * next_value)
    check(lambda_return(reward, next_value, terminated, truncated, 0.97, 0.0), one_step)


@each_pattern
def test_limits_off_policy(steps, columns, chance):
    given = off_policy(steps, columns, chance)
    reward, value, next_value, terminated, truncated, log_ratio = given
    advantage, target, clipped_ratio = v_trace(*given, 0.97, 1.0, 1.2, 0.9)
    puffer = puffer_advantage(*given, 0.97, 1.0, 1.2, 0.9)[0]
    check(puffer, target - value)
    if steps > 2:
        assert (puffer - clipped_ratio * advantage).abs().max() > 0.1
    # no trace: PufferLib's is one weighted TD error; gamma = 0: the weighted surprise of the reward
    error = generalized_advantage(reward, value, next_value, terminated, truncated, 0.97, 0.0)[0]
    check(puffer_advantage(*given, 0.97, 0.0)[0], log_ratio.exp().clamp_max(1.0) * error)
    check(v_trace(*given, 0.0, 1.0, INFINITE)[1] - value, log_ratio.exp() * (reward - value))
    check(v_trace(*given, 0.0)[0], reward - value)
    # both limits are 1 unless they are given
    for some, explicit in (
        (v_trace(*given, 0.97), v_trace(*given, 0.97, 1.0, 1.0, 1.0)),
        (puffer_advantage(*given, 0.97, 0.9), puffer_advantage(*given, 0.97, 0.9, 1.0, 1.0)),
    ):
        assert torch.equal(some[0], explicit[0]) and torch.equal(some[1], explicit[1])
    assert VTrace() == VTrace(0.99, 1.0, 1.0, 1.0) and PufferAdvantage() == PufferAdvantage(0.99, 0.95, 1.0, 1.0)
    # limits above every ratio are no limits
    highest = float(log_ratio.exp().max())
    for some, unlimited in zip(
        v_trace(*given, 0.97, 0.9, highest, highest), v_trace(*given, 0.97, 0.9, INFINITE, INFINITE), strict=True
    ):
        assert torch.equal(some, unlimited)


# ------------------------------------------------------------------------- two decisions, enumerated: who is estimated?

# One state, two actions (b), two further states (x), two actions (c), the end.
ACTED_FIRST, NOW_FIRST = np.array([0.7, 0.3]), np.array([0.4, 0.6])  # policies in the first state
ACTED_THEN, NOW_THEN = np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[0.9, 0.1], [0.45, 0.55]])  # by x
TRANSITION = np.array([[0.7, 0.3], [0.2, 0.8]])  # of b to x
REWARD_FIRST, REWARD_THEN = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[2.0, -1.0], [0.0, 4.0]])
TWO_STEP_GAMMA = 0.9
WRONG_FIRST, WRONG_THEN = 5.0, np.array([-3.0, 4.0])  # a critic's values


def values_of(first, then):
    """The values of a policy: of the first state's actions, of the first state, of the further states."""
    value_then = (then * REWARD_THEN).sum(1)
    action_value = (TRANSITION * (REWARD_FIRST + TWO_STEP_GAMMA * value_then)).sum(1)
    return action_value, first @ action_value, value_then


def every_episode(value_first=WRONG_FIRST, value_then=WRONG_THEN):
    """All eight episodes: the chance of each under the policy that acted, what was done, and the estimators' inputs."""
    chance, done, rows = [], [], []
    for b, x, c in itertools.product((0, 1), repeat=3):
        chance.append(ACTED_FIRST[b] * TRANSITION[b, x] * ACTED_THEN[x, c])
        done.append((b, x, c))
        log_ratio = np.log([NOW_FIRST[b] / ACTED_FIRST[b], NOW_THEN[x, c] / ACTED_THEN[x, c]])
        reward = REWARD_FIRST[b, x], REWARD_THEN[x, c]
        rows.append((reward, (value_first, value_then[x]), (value_then[x], NAN), (0.0, 1.0), (0.0, 0.0), log_ratio))
    inputs = [torch.tensor(np.array(column), dtype=torch.float64).T for column in zip(*rows, strict=True)]
    inputs[3:5] = (flag > 0 for flag in inputs[3:5])
    assert sum(chance) == pytest.approx(1)
    return np.array(chance), np.array(done), inputs


def mean(result, chance, where=True):
    return float((result.numpy() * chance * where).sum() / (chance * where).sum())


def test_without_limits_v_trace_is_unbiased_for_the_policy_as_it_is_now():
    """Its target is the value, its advantage the action value less the critic's, however wrong the critic; and PPO's
    ratio times it gives the true policy gradient of the first state."""
    action_value, value, value_then = values_of(NOW_FIRST, NOW_THEN)
    chance, done, inputs = every_episode()
    advantage, target, _ = v_trace(*inputs, TWO_STEP_GAMMA, 1.0, INFINITE, INFINITE)
    assert mean(target[0], chance) == pytest.approx(value, abs=1e-12)
    for x in (0, 1):
        assert mean(target[1], chance, done[:, 1] == x) == pytest.approx(value_then[x], abs=1e-12)
        for c in (0, 1):
            here = (done[:, 1] == x) & (done[:, 2] == c)
            assert mean(advantage[1], chance, here) == pytest.approx(REWARD_THEN[x, c] - WRONG_THEN[x], abs=1e-12)
    for b in (0, 1):
        found = mean(advantage[0], chance, done[:, 0] == b)
        assert found == pytest.approx(action_value[b] - WRONG_FIRST, abs=1e-12)
    assert policy_gradient(advantage) == pytest.approx(NOW_FIRST * (action_value - value), abs=1e-12)
    # and the values of the policy that acted are others: the test can tell
    assert abs(values_of(ACTED_FIRST, ACTED_THEN)[1] - value) > 0.5


def policy_gradient(advantage):
    """The mean of ratio x advantage x score over all episodes: of PPO's loss, in the two logits of the first state."""
    chance, done, inputs = every_episode()
    ratio = inputs[-1][0].exp()
    score = np.eye(2)[done[:, 0]] - NOW_FIRST
    return np.array([mean(ratio * advantage[0] * torch.from_numpy(score[:, i]), chance) for i in (0, 1)])


def test_the_ratio_counts_twice_in_pufferlibs_advantage():
    """The predicted bias: the gradient of PPO's loss is sum of pi ratio (Q - V) score, not sum of pi (Q - V) score. It
    depends on the critic's error, and V-trace with IMPALA's factor has it too."""
    action_value, value, _ = values_of(NOW_FIRST, NOW_THEN)
    *_, inputs = every_episode()
    puffer = puffer_advantage(*inputs, TWO_STEP_GAMMA, 1.0, INFINITE, INFINITE)[0]
    ratio = NOW_FIRST / ACTED_FIRST
    weighted = NOW_FIRST * ratio * (action_value - WRONG_FIRST)
    predicted = weighted - NOW_FIRST * weighted.sum()
    advantage, _, clipped_ratio = v_trace(*inputs, TWO_STEP_GAMMA, 1.0, INFINITE, INFINITE)
    assert policy_gradient(puffer) == pytest.approx(predicted, abs=1e-12)
    assert policy_gradient(clipped_ratio * advantage) == pytest.approx(predicted, abs=1e-12)
    assert np.abs(predicted - NOW_FIRST * (action_value - value)).max() > 0.4


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("max_trace_ratio", [0.5, 1.0, INFINITE])
@pytest.mark.parametrize("max_ratio", [0.5, 1.0, 1.2])
def test_with_limits_the_policy_between_is_estimated(max_ratio, max_trace_ratio, gae_lambda):
    """The value of the policy proportional to min(max_ratio x the policy that acted, the policy now) is the target's
    fixed point, whatever the limit and the decay of the trace (IMPALA, theorem 1)."""
    between = [np.minimum(max_ratio * acted, now) for acted, now in ((ACTED_FIRST, NOW_FIRST), (ACTED_THEN, NOW_THEN))]
    _, value, value_then = values_of(*(policy / policy.sum(-1, keepdims=True) for policy in between))
    chance, done, inputs = every_episode(value, value_then)
    _, target, _ = v_trace(*inputs, TWO_STEP_GAMMA, gae_lambda, max_ratio, max_trace_ratio)
    _, puffer_target = puffer_advantage(*inputs, TWO_STEP_GAMMA, gae_lambda, max_ratio, max_trace_ratio)
    for found in (target, puffer_target):
        assert mean(found[0], chance) == pytest.approx(value, abs=1e-12)
        for x in (0, 1):
            assert mean(found[1], chance, done[:, 1] == x) == pytest.approx(value_then[x], abs=1e-12)
    assert abs(value - values_of(NOW_FIRST, NOW_THEN)[1]) > 0.01


# ------------------------------------------------------------------------------------- as the training loop calls them


def test_estimators_apply_their_function_to_a_rollout():
    given = off_policy(7, 6, 0.3, torch.float32)
    estimate, memory = VTrace(0.9, 0.8, 1.2, 0.7)(rollout(*given, num_runs=3), {})
    advantage, target, _ = v_trace(*given, 0.9, 0.8, 1.2, 0.7)
    assert torch.equal(estimate.advantage, advantage) and torch.equal(estimate.target[..., 0], target) and memory == {}
    estimate, memory = PufferAdvantage(0.9, 0.8, 1.2, 0.7)(rollout(*given, num_runs=3), {})
    advantage, target = puffer_advantage(*given, 0.9, 0.8, 1.2, 0.7)
    assert torch.equal(estimate.advantage, advantage) and torch.equal(estimate.target[..., 0], target) and memory == {}


@each_estimator
def test_runs_with_coefficients_of_their_own_are_kept_apart(cls):
    """R = 3 is three times R = 1, bit for bit, also where each has other coefficients; and columns may be permuted."""
    given = off_policy(40, 6, 0.1, torch.float32)
    settings = [(0.99, 0.95, 1.0, 1.0), (0.9, 0.7, 1.5, 0.8), (0.97, 0.3, INFINITE, 2.0)]
    columns = torch.tensor(settings, dtype=torch.float64).repeat_interleave(2, 0).T
    function = {VTrace: v_trace, PufferAdvantage: puffer_advantage}[cls]
    together = function(*given, *columns)
    for run, own in enumerate(settings):
        alone = cls(*own)(rollout(*(tensor[:, 2 * run : 2 * run + 2] for tensor in given)), {})[0]
        assert torch.equal(alone.advantage, together[0][:, 2 * run : 2 * run + 2])
        assert torch.equal(alone.target[..., 0], together[1][:, 2 * run : 2 * run + 2])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = function(*(tensor[:, order] for tensor in given), *columns[:, order])
    assert all(torch.equal(here[:, order], there) for here, there in zip(together, moved, strict=True))


@each_estimator
def test_every_epoch_sees_the_policy_as_it_is(cls):
    """PPO asks anew before each pass; the log ratio is 0 in the first and afterwards what the policy says by then."""
    seen = []

    class Recorder(cls):
        def __call__(self, rollout, memory):
            policy = rollout.population.policy(1)
            own = slice(4, 8)
            now = policy(rollout.observation[:-1, own])[0].log_prob(rollout.action[:, own])
            seen.append((rollout.log_ratio.clone(), (now - rollout.log_prob[:, own]).detach()))
            return super().__call__(rollout, memory)

    recorder = dataclasses.dataclass(frozen=True)(Recorder)()
    training = Training("cartpole", PPO(num_envs=4, rollout_length=8), recorder, num_runs=2, num_threads=1)
    metrics = training.iterate()
    assert metrics["first_log_ratio"].max() < 1e-5
    training.iterate()
    training.close()
    assert len(seen) == 8
    for call, (log_ratio, expected) in enumerate(seen):
        check(log_ratio[:, 4:], expected, 1e-5)
        assert (log_ratio != 0).any() == (call % 4 > 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VTrace(gamma=1.01), "gamma = 1.01; use a number from 0 to 1"),
        (lambda: VTrace(gae_lambda=NAN), "gae_lambda = nan; use a number from 0 to 1"),
        (lambda: VTrace(max_ratio=0.0), "max_ratio = 0.0; use a number above 0, inf for no limit"),
        (lambda: VTrace(max_trace_ratio=NAN), "max_trace_ratio = nan; use a number above 0"),
        (lambda: PufferAdvantage(gamma=-1), "gamma = -1; use a number from 0 to 1"),
        (lambda: PufferAdvantage(gae_lambda=2), "gae_lambda = 2; use a number from 0 to 1"),
        (lambda: PufferAdvantage(max_ratio=-1), "max_ratio = -1; use a number above 0, inf for no limit"),
        (lambda: PufferAdvantage(max_trace_ratio=0), "max_trace_ratio = 0; use a number above 0"),
    ],
)
def test_bad_coefficients(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------------------ the time limit


def learned(estimator, terminating) -> float:
    """The value at which a critic stays: reward 1, an observation that never changes, ends at 10 steps. The target's
    mean is affine in the value; its slope is below 1."""
    ends, never = (torch.arange(10) == 9).unsqueeze(1), torch.zeros(10, 1, dtype=torch.bool)
    flags = (ends, never) if terminating else (never, ends)
    reward = torch.ones(10, 1, dtype=torch.float64)

    def update(value):
        prediction = torch.full((10, 1), value, dtype=torch.float64)
        following = torch.where(flags[0], NAN, prediction)
        estimate, _ = estimator(rollout(reward, prediction, following, *flags, torch.zeros_like(reward)), {})
        return float(estimate.target.mean())

    slope = update(1.0) - update(0.0)
    assert -1 < slope < 1
    return update(0.0) / (1 - slope)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@each_estimator
def test_a_time_limit_is_no_end_and_a_termination_is(cls, gae_lambda):
    """100 = 1/(1 - gamma) without an end, the known values of ALGORITHMS.md 0.4(7) with one."""
    assert learned(cls(0.99, gae_lambda), terminating=False) == pytest.approx(100, abs=1e-9)
    known = {0.0: 9.1743, 0.5: 8.3576, 0.95: 5.7169, 1.0: 5.3383}
    assert learned(cls(0.99, gae_lambda), terminating=True) == pytest.approx(known[gae_lambda], abs=1e-4)


@each_pattern
def test_a_right_critic_is_left_alone_at_every_ratio(steps, columns, chance):
    """Reward 1 and V = 1/(1 - gamma): no TD error, so the ratios and the time limits change nothing."""
    *_, truncated, log_ratio = off_policy(steps, columns, chance)
    reward, right = torch.ones(steps, columns, dtype=torch.float64), torch.full((steps, columns), 100.0).double()
    given = reward, right, right, torch.zeros_like(truncated), truncated, log_ratio
    for target in (v_trace(*given, 0.99)[1], puffer_advantage(*given, 0.99, 0.95)[1]):
        check(target, right)


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [VTrace(), PufferAdvantage()], ids=str)
def test_learns_cartpole(estimator):
    """PPO on cartpole, 200,000 steps, seeds 1000 to 1003: mean of the last 100 training episodes; measured 500."""
    result = ridgeline.train("cartpole", PPO(), estimator, total_steps=200_000, num_runs=4, seed=1000)
    assert not result.failures
    assert np.mean(result.episode_return) >= 450
