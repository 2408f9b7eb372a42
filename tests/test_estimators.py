"""Every estimator against exact vectors, a double loop, its limits, a fixed point and a solved MDP."""

import json
import math
from pathlib import Path

import naive
import numpy as np
import pytest
import torch

from ridgeline.estimators.gae import GAE, generalized_advantage
from ridgeline.estimators.monte_carlo import MonteCarlo, reward_to_go
from ridgeline.estimators.n_step import NStep, n_step_advantage
from ridgeline.rollout import Rollout, reverse_scan

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
NAN = math.nan


def monte_carlo(reward, value, next_value, terminated, truncated, gamma):
    return reward_to_go(reward, next_value, terminated, truncated, gamma) - value


# ------------------------------------------------------------------------------------------------------- exact vectors


def golden(dtype):
    """The inputs, (8, 1) each; NaN where a next value must not be read."""
    given = GOLDEN["inputs"]
    next_value = [*given["V"][1:], given["V_bootstrap_end"]]
    next_value[2], next_value[5] = NAN, given["V_final_obs_t5"]
    reward, value, next_value = (torch.tensor(x, dtype=dtype)[:, None] for x in (given["r"], given["V"], next_value))
    terminated, truncated = (torch.tensor(given[name])[:, None] > 0 for name in ("terminated", "truncated"))
    return reward, value, next_value, terminated, truncated


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "compute"),
    [
        ("gae_g.9_l.8", lambda *x: generalized_advantage(*x, 0.9, 0.8)[0]),
        ("returns_g.9_l.8", lambda *x: generalized_advantage(*x, 0.9, 0.8)[1]),
        ("gae_g.99_l.95", lambda *x: generalized_advantage(*x, 0.99, 0.95)[0]),
        ("nstep_mc_g.9(l=1)", lambda *x: generalized_advantage(*x, 0.9, 1.0)[0]),
        ("nstep_mc_g.9(l=1)", lambda *x: n_step_advantage(*x, 0.9, 8)[0]),
        ("nstep_mc_g.9(l=1)", lambda *x: monte_carlo(*x, 0.9)),
        ("td0_g.9(l=0)", lambda *x: generalized_advantage(*x, 0.9, 0.0)[0]),
        ("td0_g.9(l=0)", lambda *x: n_step_advantage(*x, 0.9, 1)[0]),
        ("reward_to_go_g.9_bootstrapped", lambda *x: reward_to_go(x[0], *x[2:], 0.9)),
        ("reward_to_go_g.9_bootstrapped", lambda *x: n_step_advantage(*x, 0.9, 100)[1]),
        ("legacy_cleanrl_g.9_l.8", lambda *x: GAE(0.9, 0.8, True)(rollout(*x), {})[0].advantage),
    ],
)
def test_golden(name, compute, dtype):
    result = compute(*golden(dtype))
    assert result.dtype == dtype
    assert (result[:, 0] - torch.tensor(GOLDEN[name], dtype=dtype)).abs().max() < TOLERANCE[dtype]


# ---------------------------------------------------------------------------------------------- against the slow twins


def pattern(steps, columns, chance, dtype=torch.float64, seed=0):
    """Random numbers and flags: each flag with this chance, sometimes both; in columns 0 to 3, if there are so many, on
    the first row, on the last row, on every row, and nowhere. NaN where a next value means nothing."""
    generator = np.random.default_rng([seed, steps, columns])
    reward, value, next_value = (torch.from_numpy(generator.normal(size=(steps, columns))).to(dtype) for _ in "123")
    terminated, truncated = (torch.from_numpy(generator.random((steps, columns)) < chance) for _ in "12")
    kinds = [(True, False), (False, True), (True, True)]
    for column, rows in enumerate([slice(0, 1), slice(steps - 1, steps), slice(None)][:columns]):
        for t in range(steps)[rows]:
            terminated[t, column], truncated[t, column] = kinds[generator.integers(3)]
    if columns > 3:
        terminated[:, 3] = truncated[:, 3] = False
    next_value[:-1] = torch.where((terminated | truncated)[:-1], next_value[:-1], value[1:])
    next_value[terminated] = NAN
    return reward, value, next_value, terminated, truncated


def slow(function, tensors, *coefficients):
    """A function of one column, for all columns; a coefficient is a float or one float per column."""
    columns = []
    for b in range(tensors[0].shape[1]):
        own = [float(c[b]) if isinstance(c, torch.Tensor) else c for c in coefficients]
        columns.append(function(*(tensor[:, b].tolist() for tensor in tensors), *own))
    return torch.tensor(columns, dtype=torch.float64).T


PATTERNS = [(1, 1, 0.3), (1, 6, 0.5), (2, 5, 0.3), (7, 6, 0.3), (40, 8, 0.1), (90, 5, 0.02), (90, 2, 0.0)]
BOUND = {torch.float64: 1e-10, torch.float32: 2e-4}  # of sums of up to 90 normal numbers


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
def test_random_patterns(steps, columns, chance, per_column, dtype):
    given = reward, value, next_value, terminated, truncated = pattern(steps, columns, chance, dtype)
    gamma, gae_lambda = 0.97, 0.9
    if per_column:
        gamma = torch.linspace(1.0, 0.0, columns + 1, dtype=torch.float64)[:columns]
        gae_lambda = torch.linspace(0.0, 1.0, columns + 1, dtype=torch.float64)[1:]
    without_value = [tensor.double() for tensor in (reward, next_value, terminated, truncated)]

    def check(result, expected):
        assert result.dtype == dtype
        assert (result - expected).abs().max() < BOUND[dtype]  # also refuses NaN

    advantage, target = generalized_advantage(*given, gamma, gae_lambda)
    check(advantage, slow(naive.generalized_advantage, given, gamma, gae_lambda))
    check(target, slow(naive.lambda_return, without_value, gamma, gae_lambda))
    for num_steps in (1, 2, 5, steps + 3):
        expected = slow(lambda *column, n=num_steps: naive.n_step_return(*column, min(n, steps)), without_value, gamma)
        advantage, target = n_step_advantage(*given, gamma, num_steps)
        check(target, expected)
        check(advantage, expected - value)
    last = torch.arange(steps)[:, None] == steps - 1
    read = torch.where((truncated | last) & ~terminated, next_value, NAN)
    check(reward_to_go(reward, read, terminated, truncated, gamma), slow(naive.reward_to_go, without_value, gamma))


def test_the_patterns_hold_every_kind_of_end():
    """Both flags at once, and each kind on first, inner and last rows; one-step episodes; columns without end."""
    kinds, short, endless = set(), 0, 0
    for steps, columns, chance in PATTERNS:
        *_, terminated, truncated = pattern(steps, columns, chance)
        for t in range(steps):
            place = "first" if t == 0 else "last" if t == steps - 1 else "inner"
            pairs = zip(terminated[t].tolist(), truncated[t].tolist(), strict=True)
            kinds |= {(place, pair) for pair in pairs if any(pair)}
        ends = terminated | truncated
        short += int((ends[1:] & ends[:-1]).sum())
        endless += int((~ends.any(0)).sum())
    assert len(kinds) == 9 and short > 0 and endless > 0


def test_only_rows_without_meaning_are_ignored():
    """A NaN that stands in a place that counts does reach the output: the patterns above are a test."""
    reward, value, next_value, terminated, truncated = pattern(5, 4, 0.0)
    next_value[4, 3] = NAN
    for result in (
        generalized_advantage(reward, value, next_value, terminated, truncated, 0.9, 0.9)[0],
        n_step_advantage(reward, value, next_value, terminated, truncated, 0.9, 5)[0],
        reward_to_go(reward, next_value, terminated, truncated, 0.9),
    ):
        assert result[:, 3].isnan().all()
        assert result[:, 0].isfinite().all()


def test_reverse_scan_does_not_read_behind_zero():
    delta = torch.tensor([[1.0, 1.0], [2.0, NAN], [NAN, 3.0]])
    decay = torch.tensor([[0.5, 0.0], [0.0, 0.5], [7.0, 7.0]])
    assert torch.equal(reverse_scan(delta, decay)[:2, 0], torch.tensor([2.0, 2.0]))
    assert reverse_scan(delta, decay)[0, 1] == 1.0


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
def test_limits(steps, columns, chance):
    """lambda = 1 and n large: reward-to-go minus V; lambda = 0 and n = 1: the TD error; gamma = 0: reward minus V."""
    given = reward, value, next_value, terminated, _ = pattern(steps, columns, chance)
    full = monte_carlo(*given, 0.97)
    error = reward + torch.where(terminated, 0.0, 0.97 * next_value) - value
    for estimate, limit in (
        (generalized_advantage(*given, 0.97, 1.0)[0], full),
        (n_step_advantage(*given, 0.97, steps)[0], full),
        (generalized_advantage(*given, 0.97, 0.0)[0], error),
        (n_step_advantage(*given, 0.97, 1)[0], error),
        (generalized_advantage(*given, 0.0, 0.9)[0], reward - value),
        (n_step_advantage(*given, 0.0, 4)[0], reward - value),
        (monte_carlo(*given, 0.0), reward - value),
    ):
        assert (estimate - limit).abs().max() < 1e-12


def test_columns_may_be_permuted():
    given = pattern(40, 8, 0.1, torch.float32)
    gamma = torch.linspace(0.8, 1.0, 8, dtype=torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    moved = [tensor[:, order] for tensor in given]
    for function in (
        lambda x, g: generalized_advantage(*x, g, 0.9),
        lambda x, g: n_step_advantage(*x, g, 5),
        lambda x, g: (monte_carlo(*x, g), reward_to_go(x[0], *x[2:], g)),
    ):
        for here, there in zip(function(given, gamma), function(moved, gamma[order]), strict=True):
            assert torch.equal(here[:, order], there)


# -------------------------------------------------------------------------------------- as the training loop calls them


def rollout(reward, value, next_value, terminated, truncated, num_runs=1) -> Rollout:
    empty = torch.zeros(0)
    values = value.unsqueeze(-1), next_value.unsqueeze(-1)
    return Rollout(num_runs, empty, empty, empty, *values, reward, terminated, truncated)


def test_estimators_apply_their_function_to_a_rollout():
    given = pattern(7, 6, 0.3, torch.float32)
    for estimator, (advantage, target) in (
        (GAE(0.9, 0.8), generalized_advantage(*given, 0.9, 0.8)),
        (NStep(0.9, 3), n_step_advantage(*given, 0.9, 3)),
        (MonteCarlo(0.9), (monte_carlo(*given, 0.9), reward_to_go(given[0], *given[2:], 0.9))),
    ):
        estimate, memory = estimator(rollout(*given, num_runs=3), {})
        assert torch.equal(estimate.advantage, advantage)
        assert estimate.target is not None and torch.equal(estimate.target, target.unsqueeze(-1))
        assert memory == {}


def test_coefficients_per_column_round_as_floats_do():
    """Runs with their own gamma and gae_lambda get the bits that they would get alone (both columns in float64)."""
    given = pattern(40, 2, 0.1, torch.float32)
    pairs = [(0.99, 0.95), (0.9, 0.7)]
    gamma, gae_lambda = torch.tensor(pairs, dtype=torch.float64).T
    together = [
        generalized_advantage(*given, gamma, gae_lambda)[0],
        n_step_advantage(*given, gamma, 4)[0],
        monte_carlo(*given, gamma),
    ]
    for b, (own_gamma, own_lambda) in enumerate(pairs):
        own = [tensor[:, b : b + 1] for tensor in given]
        alone = [
            generalized_advantage(*own, own_gamma, own_lambda)[0],
            n_step_advantage(*own, own_gamma, 4)[0],
            monte_carlo(*own, own_gamma),
        ]
        for one, all_runs in zip(alone, together, strict=True):
            assert torch.equal(one[:, 0], all_runs[:, b])


def test_without_a_critic_the_running_mean_stands_for_what_is_not_seen():
    """Two runs of one column: rewards 1; run 0 is truncated in row 1 and cut, run 1 terminates in row 1 and is cut."""
    none = torch.full((3, 2), NAN)  # no value is ever read
    ends = torch.tensor([False, True, False])
    terminated, truncated = torch.stack([~ends & ends, ends], 1), torch.stack([ends, ~ends & ends], 1)
    batch = rollout(torch.ones(3, 2), none, none, terminated, truncated, num_runs=2)
    estimator = MonteCarlo(gamma=0.5, baseline="none")
    estimate, memory = estimator(batch, {})
    assert estimate.target is None
    assert torch.equal(estimate.advantage, torch.tensor([[1.5, 1.5], [1.0, 1.0], [1.0, 1.0]]))
    first = 3.5 / 3
    assert torch.allclose(memory["return_to_go"], torch.tensor([first, first], dtype=torch.float64))
    estimate, memory = estimator(batch, memory)
    rest = 0.5 * first
    expected = torch.tensor([[1.5 + 0.5 * rest, 1.5], [1 + rest, 1.0], [1 + rest, 1 + rest]])
    assert torch.allclose(estimate.advantage, expected)
    assert torch.allclose(memory["return_to_go"], (first + expected.double().mean(0)) / 2)
    assert all(tensor.shape == (2,) for tensor in memory.values())


def test_the_running_mean_follows_and_forgets():
    estimator = MonteCarlo(gamma=1.0, baseline="none")
    ends = torch.ones(1, 2, dtype=torch.bool)
    memory = {}
    for k in range(200):
        reward = torch.tensor([[0.0 if k < 100 else 1.0, NAN if k == 50 else 2.0]])
        none = torch.full((1, 2), NAN)
        _, memory = estimator(rollout(reward, none, none, ends, ~ends, num_runs=2), memory)
    assert memory["return_to_go"][0] == pytest.approx(1 - 0.95**100, abs=1e-12)
    assert memory["return_to_go"][1] == pytest.approx(2.0)  # the rollout that was not finite left no trace
    assert memory["num_rollouts"].tolist() == [200.0, 199.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GAE(gamma=1.01), "gamma = 1.01; use a number from 0 to 1"),
        (lambda: GAE(gae_lambda=-0.1), "gae_lambda = -0.1; use a number from 0 to 1"),
        (lambda: GAE(gamma=NAN), "gamma = nan"),
        (lambda: NStep(gamma=-1), "gamma = -1"),
        (lambda: NStep(num_steps=0), "num_steps = 0; use a whole number from 1"),
        (lambda: NStep(num_steps=2.5), "num_steps = 2.5; use a whole number from 1"),
        (lambda: MonteCarlo(gamma=2), "gamma = 2; use a number from 0 to 1"),
        (lambda: MonteCarlo(baseline="mean"), "baseline = 'mean'; use learned, moving_average, constant or none"),  # type: ignore[arg-type]
        (lambda: MonteCarlo(constant_baseline=1.0), "constant_baseline = 1.0 has no use; set baseline to constant"),
    ],
)
def test_bad_coefficients(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------------------------------ the time limit


def fixed_point(estimator) -> float:
    """The value to which a critic converges: reward 1, an observation that never changes, cut at 10 steps for ever."""
    truncated = (torch.arange(10) == 9).unsqueeze(1)
    reward, terminated = torch.ones(10, 1, dtype=torch.float64), torch.zeros(10, 1, dtype=torch.bool)
    value = 0.0
    for _ in range(2500):
        prediction = torch.full((10, 1), value, dtype=torch.float64)
        value = float(estimator(rollout(reward, prediction, prediction, terminated, truncated), {})[0].target.mean())
    return value


@pytest.mark.parametrize(
    "estimator", [GAE(0.99, 0.0), GAE(0.99, 0.5), GAE(0.99, 0.95), GAE(0.99, 1.0), NStep(0.99, 3), MonteCarlo(0.99)]
)
def test_a_time_limit_is_no_end(estimator):
    assert fixed_point(estimator) == pytest.approx(100, abs=1e-6)


@pytest.mark.parametrize(("gae_lambda", "value"), [(0.0, 9.1743), (0.5, 8.3576), (0.95, 5.7169), (1.0, 5.3383)])
def test_legacy_takes_a_time_limit_for_an_end(gae_lambda, value):
    assert fixed_point(GAE(0.99, gae_lambda, truncation_as_termination=True)) == pytest.approx(value, abs=1e-4)


# -------------------------------------------------------------------------------------------------------- a solved MDP

STATES, ACTIONS, GAMMA = 4, 2, 0.9


@pytest.fixture(scope="module")
def solved():
    """A random MDP, V and Q by linear algebra, and 3000 columns of 25 rows of it with the exact V as critic.

    Some pairs of state and action may terminate, time limits strike at random from outside, rollouts are cut.
    """
    generator = np.random.default_rng(3)
    transition = generator.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
    ending = np.where(generator.random((STATES, ACTIONS)) < 0.4, generator.uniform(0.1, 0.6, (STATES, ACTIONS)), 0.0)
    mean_reward = 1 + generator.normal(size=(STATES, ACTIONS, STATES))
    policy = generator.dirichlet(np.ones(ACTIONS), STATES)
    going = transition * (1 - ending)[..., None]
    expected = (transition * mean_reward).sum(-1)
    value = np.linalg.solve(np.eye(STATES) - GAMMA * np.einsum("sa,sax->sx", policy, going), (policy * expected).sum(1))
    difference = expected + GAMMA * going @ value - value[:, None]  # Q - V

    start = int(np.abs(value - value.mean()).argmax())

    steps, columns = 25, 3000
    state = generator.integers(STATES, size=columns)
    rows = {name: np.zeros((steps, columns)) for name in ("state", "action", "reward", "value", "next_value")}
    flags = {name: np.zeros((steps, columns), bool) for name in ("terminated", "truncated")}
    for t in range(steps):
        action = (generator.random(columns) > policy[state, 0]).astype(int)
        cumulative = transition[state, action].cumsum(-1)[:, :-1]
        following = (cumulative <= generator.random((columns, 1))).sum(-1)
        terminated = generator.random(columns) < ending[state, action]
        truncated = generator.random(columns) < 0.08
        rows["state"][t], rows["action"][t], rows["value"][t] = state, action, value[state]
        rows["reward"][t] = mean_reward[state, action, following] + generator.normal(size=columns)
        rows["next_value"][t] = np.where(terminated, np.nan, value[following])
        flags["terminated"][t], flags["truncated"][t] = terminated, truncated
        state = np.where(terminated | truncated, start, following)
    assert ending.any() and (flags["terminated"] & flags["truncated"]).any()
    tensors = {name: torch.from_numpy(array) for name, array in (rows | flags).items()}
    return tensors.pop("state").numpy().astype(int), tensors.pop("action").numpy().astype(int), tensors, difference


def scores(advantage, state, action, difference) -> np.ndarray:
    """For each state and action, by how many standard errors the mean advantage misses Q - V (independent columns)."""
    error = advantage.numpy() - difference[state, action]
    result = np.zeros((STATES, ACTIONS))
    for s in range(STATES):
        for a in range(ACTIONS):
            per_column = np.where((state == s) & (action == a), error, 0.0).sum(0)
            result[s, a] = per_column.sum() / np.sqrt((per_column**2).sum())
    return result


@pytest.mark.parametrize(
    "estimator",
    [GAE(GAMMA, 0.0), GAE(GAMMA, 0.8), GAE(GAMMA, 1.0), NStep(GAMMA, 1), NStep(GAMMA, 4), MonteCarlo(GAMMA)],
)
def test_with_the_exact_value_the_mean_advantage_is_exact(solved, estimator):
    state, action, tensors, difference = solved
    advantage = estimator(rollout(**tensors), {})[0].advantage
    assert np.abs(scores(advantage, state, action, difference)).max() < 4


def test_wrong_ends_are_noticed(solved):
    """The test above has the power to find a merged end: truncation as termination, and the value of the next row."""
    state, action, tensors, difference = solved
    legacy = GAE(GAMMA, 0.8, truncation_as_termination=True)(rollout(**tensors), {})[0].advantage
    next_row = torch.cat([tensors["value"][1:], tensors["next_value"][-1:]])
    wrong = torch.where(tensors["truncated"], next_row, tensors["next_value"])
    stale = GAE(GAMMA, 0.8)(rollout(**(tensors | {"next_value": wrong})), {})[0].advantage
    for advantage in (legacy, stale):
        assert np.abs(scores(advantage, state, action, difference)).max() > 5
