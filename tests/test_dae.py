"""Direct advantage estimation: the coupled loss by autograd, an enumerated MDP, a piece by hand, runs kept apart."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_estimators import NAN, PATTERNS, pattern
from test_more_estimators import check

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.vpg import VPG
from ridgeline.distributions import Categorical
from ridgeline.estimators.dae import DAE, direct_advantage, direct_target
from ridgeline.rollout import Rollout, collect, reevaluate
from ridgeline.training import Training

each_pattern = pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
ACTIONS, GAMMA = 3, 0.9


def direct_errors(reward, value, next_value, terminated, truncated, action, probability, gamma) -> torch.Tensor:
    """The errors whose squares the definition sums, (T,): one column, one piece after the other, row by row. value
    (T, 1 + A) holds V and f, next_value (T,) the V of the state that followed."""
    taken = value[torch.arange(len(reward)), 1 + action] - (probability * value[:, 1:]).sum(-1)
    errors, start = [], 0
    for last in range(len(reward)):
        if not (terminated[last] or truncated[last] or last == len(reward) - 1):
            continue
        for t in range(start, last + 1):
            power = gamma ** torch.arange(last + 1 - t)
            explained = (power * (reward - taken)[t : last + 1]).sum()
            if not terminated[last]:
                explained = explained + gamma ** (last + 1 - t) * next_value[last]
            errors.append(explained - value[t, 0])
        start = last + 1
    return torch.stack(errors)


class Given(NamedTuple):
    """What `direct_target` takes, in its order."""

    reward: torch.Tensor
    value: torch.Tensor
    next_value: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    action: torch.Tensor
    probability: torch.Tensor

    def errors(self, gamma) -> torch.Tensor:
        """`direct_errors` of every column, (T, B)."""
        gamma = torch.as_tensor(gamma, dtype=torch.float64).expand(self.reward.shape[1])
        return torch.stack(
            [direct_errors(*(tensor[:, b] for tensor in self), gamma[b]) for b in range(self.reward.shape[1])], 1
        )


def given(steps, columns, chance, dtype=torch.float64, seed=0) -> Given:
    """`pattern` with actions; NaN where a next value must not be read."""
    reward, first, next_value, terminated, truncated = pattern(steps, columns, chance, dtype, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    preference, logit = torch.randn(2, steps, columns, ACTIONS, generator=generator, dtype=torch.float64).to(dtype)
    action = torch.randint(ACTIONS, (steps, columns), generator=generator)
    last = torch.arange(steps).unsqueeze(1) == steps - 1
    next_value = torch.where((truncated | last) & ~terminated, next_value, NAN)
    value = torch.cat([first.unsqueeze(-1), preference], -1)
    return Given(reward, value, next_value, terminated, truncated, action, logit.softmax(-1))


def rollout(x: Given, num_runs=1) -> Rollout:
    """next_value of the heads for f is NaN: nothing reads it."""
    empty = torch.zeros(0)
    following = torch.full_like(x.value, NAN)
    following[..., 0] = x.next_value
    batch = Rollout(
        num_runs, empty, x.action, empty, x.value.clone(), following, x.reward, x.terminated, x.truncated
    )  # fmt: skip
    batch._distribution = Categorical(x.probability.log())
    return batch


def columns_of(x: Given, columns) -> Given:
    return Given(*(tensor[:, columns] for tensor in x))


# ---------------------------------------------------------------------------------------------------- the coupled loss


def coupled_gradient(x: Given, gamma) -> torch.Tensor:
    """The gradient of the sum of all squared errors with respect to the critic's outputs, (T, B, 1 + A)."""
    leaf = x.value.clone().requires_grad_()
    return torch.autograd.grad(x._replace(value=leaf).errors(gamma).square().sum(), leaf)[0]


@pytest.mark.parametrize("per_column", [False, True])
@each_pattern
def test_the_targets_have_the_gradient_of_the_coupled_loss(steps, columns, chance, per_column):
    x = given(steps, columns, chance)
    gamma = torch.linspace(1.0, 0.0, columns, dtype=torch.float64) if per_column else 0.97
    target, weight = direct_target(*x, gamma)
    assert target.dtype == weight.dtype == torch.float64 and (weight >= 1).all()
    expected = coupled_gradient(x, gamma)
    check(2 * weight * (x.value - target), expected, 1e-10 * max(1.0, float(expected.abs().max())))
    single = direct_target(*given(steps, columns, chance, torch.float32), gamma)
    for ours, exact in zip(single, (target, weight), strict=True):
        assert ours.dtype == torch.float32
        check(ours.double(), exact, 1e-3)


def test_by_hand():
    """Three steps, both actions in two states' worth of rows: f = (2, -2) under (1/4, 3/4) is an advantage of (3, -1).
    Y = (1 - 3 + 3/2, 2 + 1 + 0, 3 - 3); E = (-3/2, 3 - 3/4, -2 + 9/8); W = (1, 5/4, 21/16)."""

    def column(*numbers):
        return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)

    probability = torch.tensor([0.25, 0.75], dtype=torch.float64).expand(3, 1, 2)
    value = torch.cat([column(1, 0, 2).unsqueeze(-1), torch.tensor([2.0, -2.0]).expand(3, 1, 2)], -1)
    end = torch.tensor([[False], [False], [True]])
    x = Given(column(1, 2, 3), value, column(NAN, NAN, NAN), end, end & False, column(0, 1, 0).long(), probability)
    target, weight = direct_target(*x, 0.5)
    assert target[:, 0].tolist() == [
        pytest.approx([-0.5, 2 - 1.5 * 0.75, -2 + 1.5 * 0.75]),
        pytest.approx([3.0, 2 - 1.8 * 0.25, -2 + 1.8 * 0.25]),
        pytest.approx([0.0, 2 - 0.5, -2 + 0.5]),
    ]
    assert weight[:, 0].tolist() == [[1, 1, 1], [1, 1.25, 1.25], [1, 1.3125, 1.3125]]
    assert DAE(0.5)(rollout(x), {})[0].advantage[:, 0].tolist() == pytest.approx([3**0.5, -(3**-0.5), 3**0.5])
    assert DAE(0.5, corrected=True)(rollout(x), {})[0].advantage[:, 0].tolist() == pytest.approx([1.5, 2.0, 1.0])
    # truncated instead, before a state worth 4: Y is 2 more at the last row, 1 and 1/2 before it
    cut = x._replace(terminated=end & False, truncated=end, next_value=column(NAN, NAN, 4))
    assert direct_target(*cut, 0.5)[0][:, 0, 0].tolist() == pytest.approx([0.0, 4.0, 2.0])


@each_pattern
def test_advantages_are_centred(steps, columns, chance):
    """The policy's mean of the advantage is 0, and neither a step of the targets nor a shift of f changes that."""
    x = given(steps, columns, chance)
    target, _ = direct_target(*x, 0.97)
    for preference in (x.value[..., 1:], target[..., 1:], x.value[..., 1:] + 7):
        mean = (x.probability * direct_advantage(preference, x.probability)).sum(-1)
        check(mean, torch.zeros_like(mean), 1e-12)
    shifted = x.value.clone()
    shifted[..., 1:] += 7
    for estimator in (DAE(), DAE(corrected=True)):
        one, two = (estimator(rollout(x._replace(value=value)), {})[0].advantage for value in (x.value, shifted))
        check(one, two, 1e-9)


# -------------------------------------------------------------------------------------------------- an enumerated MDP


class Enumerated(NamedTuple):
    """All trajectories of three steps, one per column; each also with a truncation behind its second step."""

    x: Given  # with the value and next value of no table yet
    state: torch.Tensor  # (T, B)
    following: torch.Tensor  # (T, B) the next state
    weight: torch.Tensor  # (T, B) probability of the row; 0 behind a termination
    value: torch.Tensor  # (S,) exact
    advantage: torch.Tensor  # (S, A) exact
    probability: torch.Tensor  # (S, A)

    def of(self, table: torch.Tensor, bootstrap: torch.Tensor) -> Given:
        """With the values of a table (S, 1 + A), bootstrapped from (S,)."""
        following = torch.where(self.x.terminated, NAN, bootstrap[self.following])
        return self.x._replace(value=table[self.state], next_value=following)

    def fitted(self, table: torch.Tensor, bootstrap: torch.Tensor, gamma=GAMMA) -> tuple[torch.Tensor, float]:
        """The table that fits the targets best, their weighted mean in each state; and the loss before."""
        x = self.of(table, bootstrap)
        target, weight = direct_target(*x, gamma)
        weight = weight * self.weight.unsqueeze(-1)
        total, mass = (
            torch.zeros_like(table).index_add(0, self.state.flatten(), part.flatten(0, 1))
            for part in (weight * target, weight)
        )
        return total / mass, float((self.weight * (target - x.value)[..., 0].square()).sum())


@pytest.fixture(scope="module")
def enumerated() -> Enumerated:
    """Two states, two actions; the third outcome is a termination. Rewards belong to (state, action, outcome)."""
    generator = np.random.default_rng(3)
    outcome, policy = generator.dirichlet(np.ones(3), (2, 2)), generator.dirichlet(np.full(2, 2.0), 2)
    reward = generator.normal(size=(2, 2, 3))
    mean = (outcome * reward).sum(-1)
    move = np.einsum("sa,saz->sz", policy, outcome[..., :2])
    value = np.linalg.solve(np.eye(2) - GAMMA * move, (policy * mean).sum(-1))
    advantage = mean + GAMMA * outcome[..., :2] @ value - value[:, None]
    columns = {}
    for start, *choices in itertools.product(range(2), *[range(2), range(3)] * 3):
        state, chance, alive, rows = start, 0.5, True, []
        for action, end in zip(choices[::2], choices[1::2], strict=True):
            if alive:
                chance *= policy[state, action] * outcome[state, action, end]
                rows.append((state, action, reward[state, action, end], end % 2, end == 2, 1))
            else:  # whatever follows a termination counts nothing
                rows.append((0, 0, 0.0, 0, False, 0))
            state, alive = end % 2, alive and end < 2
        columns[tuple(rows)] = chance
    table = torch.tensor(list(columns), dtype=torch.float64)
    table[..., 5] *= torch.tensor(list(columns.values()), dtype=torch.float64).unsqueeze(1)
    table = table.transpose(0, 1).repeat(1, 2, 1)  # (T, B, 6)
    state, action, rewards, following, terminated, weight = table.unbind(-1)
    weight = weight / 2
    truncated = torch.zeros_like(state, dtype=torch.bool)
    truncated[1, len(columns) :] = True
    state, following, probability = state.long(), following.long(), torch.tensor(policy)
    empty = torch.zeros(0)
    x = Given(rewards, empty, empty, terminated > 0, truncated, action.long(), probability[state])
    return Enumerated(x, state, following, weight, torch.tensor(value), torch.tensor(advantage), probability)


def test_every_trajectory_is_there(enumerated):
    assert float(enumerated.weight[0].sum()) == pytest.approx(1.0)
    ends = enumerated.x.terminated & enumerated.x.truncated
    assert ends.any() and (enumerated.weight[ends] > 0).any()


def test_the_minimum_is_the_advantage(enumerated):
    """The errors are affine in V and f: least squares over all trajectories, by their probabilities."""

    def errors(table):
        return enumerated.of(table, enumerated.value).errors(GAMMA).flatten()

    constant = errors(torch.zeros(2, 3, dtype=torch.float64))
    units = torch.eye(6, dtype=torch.float64).unflatten(1, (2, 3))
    matrix = torch.stack([errors(unit) - constant for unit in units], 1)
    root = enumerated.weight.flatten().sqrt().unsqueeze(1)
    assert torch.linalg.matrix_rank(root * matrix) == 4  # f is free up to a constant in each state
    table = torch.linalg.lstsq(root * matrix, -root * constant.unsqueeze(1), driver="gelsd").solution.view(2, 3)
    check(table[:, 0], enumerated.value, 1e-9)
    check(direct_advantage(table[:, 1:], enumerated.probability), enumerated.advantage, 1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_targets_may_be_fitted_all_the_way(enumerated, seed):
    """As VPG and TRPO do with many steps: the loss falls each time, and the way leads to V and the advantage; also
    where the bootstrap is the table that moves."""
    start = 10 * torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for bootstrap in (enumerated.value, None):
        table, losses = start, []
        for _ in range(100):
            table, loss = enumerated.fitted(table, table[:, 0] if bootstrap is None else bootstrap)
            losses.append(loss)
        check(table[:, 0], enumerated.value, 1e-6)
        check(direct_advantage(table[:, 1:], enumerated.probability), enumerated.advantage, 1e-6)
        if bootstrap is not None:
            assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))


def test_corrected_is_unbiased_whatever_the_critic_says(enumerated):
    """The mean over all trajectories is Q less the baseline V; the plain advantage is f's, right or wrong."""
    table = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = rollout(enumerated.of(table, enumerated.value))
    corrected, plain = (DAE(GAMMA, corrected=flag)(batch, {})[0].advantage for flag in (True, False))
    expected = enumerated.advantage + (enumerated.value - table[:, 0]).unsqueeze(1)
    wrong = direct_advantage(table[:, 1:], enumerated.probability)
    ratios = []
    for state, action in itertools.product(range(2), range(2)):
        here = (enumerated.state == state) & (enumerated.x.action == action)
        mass = enumerated.weight[here]
        mean = (mass * corrected[here]).sum() / mass.sum()
        assert float(mean) == pytest.approx(float(expected[state, action]))
        ratios.append(plain[here].unique() / wrong[state, action])
    check(torch.cat(ratios), ratios[0].expand(4), 1e-9)


# ------------------------------------------------------------------------------------------------------ the time limit


@pytest.mark.parametrize("terminating", [False, True])
def test_constant_reward(terminating):
    """Reward 1, ends at 6 steps, an observation that never changes, every sequence of actions by its probability.
    With a time limit V = 1/(1 - gamma), and no action is better; with a termination the mean over what is left."""
    policy, action = torch.tensor([0.3, 0.7]).double(), torch.tensor(list(itertools.product(range(2), repeat=6))).T
    never, ends = torch.zeros(6, 64, dtype=torch.bool), (torch.arange(6) == 5).unsqueeze(1).expand(6, 64)
    flags = (ends, never) if terminating else (never, ends)
    x = Given(torch.ones(6, 64, dtype=torch.float64), policy, policy, *flags, action, policy.expand(6, 64, 2))
    none = torch.zeros_like(action)
    every = Enumerated(x, none, none, policy[action].prod(0).expand(6, 64), policy, policy, policy)
    table = torch.tensor([[0.0, 3.0, -3.0]], dtype=torch.float64)
    for _ in range(100):
        table, _ = every.fitted(table, table[:, 0])
    left = sum(sum(GAMMA**k for k in range(rows)) for rows in range(1, 7)) / 6
    assert float(table[0, 0]) == pytest.approx(left if terminating else 1 / (1 - GAMMA))
    assert float(table[0, 1]) == pytest.approx(float(table[0, 2]), abs=1e-6)


# --------------------------------------------------------------------------------- as the training loop calls it

both = pytest.mark.parametrize("estimator", [DAE(), DAE(corrected=True)], ids=str)


@both
@pytest.mark.parametrize("scale", [1000.0, 0.001])
def test_no_unit(estimator, scale):
    """Rewards and critic in other units: the same advantage, and targets in these units with the same weights."""
    x = given(40, 6, 0.1)
    scaled = x._replace(reward=x.reward * scale, value=x.value * scale, next_value=x.next_value * scale)
    here, there = estimator(rollout(x), {})[0], estimator(rollout(scaled), {})[0]
    check(there.advantage, here.advantage * (scale if estimator.corrected else 1), 1e-9 * max(1, scale))
    check(there.target / scale, here.target, 1e-9)
    check(there.target_weight, here.target_weight, 1e-12)


def test_no_advantage_is_no_division_by_zero():
    x = given(5, 4, 0.2)
    value = x.value.clone()
    value[..., 1:] = 0.0
    advantage = DAE()(rollout(x._replace(value=value)), {})[0].advantage
    assert torch.equal(advantage, torch.zeros_like(advantage))


@both
def test_runs_are_kept_apart(estimator):
    """R = 3 is three times R = 1, bit for bit; columns may be permuted; a run that explodes stays alone."""
    x = given(20, 12, 0.1, torch.float32)
    together, memory = estimator(rollout(x, 3), {})
    assert memory == {}
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    for run in range(3):
        columns = slice(4 * run, 4 * run + 4)
        own = columns_of(x, columns)
        alone = estimator(rollout(own), {})[0]
        permuted = estimator(rollout(columns_of(own, order)), {})[0]
        for name in ("advantage", "target", "target_weight"):
            assert torch.equal(getattr(alone, name), getattr(together, name)[:, columns])
            check(getattr(permuted, name), getattr(alone, name)[:, order], 1e-5)
    x.reward[3, 5] = np.inf
    exploded = estimator(rollout(x, 3), {})[0]
    others = [c for c in range(12) if c not in range(4, 8)]
    assert torch.equal(exploded.target[:, others], together.target[:, others])
    assert torch.equal(exploded.advantage[:, others], together.advantage[:, others])


def test_gamma_of_each_run():
    x, stacked = given(20, 8, 0.1, torch.float32), DAE()
    object.__setattr__(stacked, "gamma", torch.tensor([0.97, 0.5], dtype=torch.float64).repeat_interleave(4))
    together = stacked(rollout(x, 2), {})[0]
    for run, gamma in enumerate((0.97, 0.5)):
        columns = slice(4 * run, 4 * run + 4)
        alone = DAE(gamma)(rollout(columns_of(x, columns)), {})[0]
        assert torch.equal(alone.target, together.target[:, columns])
        assert torch.equal(alone.target_weight, together.target_weight[:, columns])


def small_training(num_runs=2, vmap=None, seed=0) -> Training:
    ppo = PPO(num_envs=4, rollout_length=16)
    return Training("cartpole", ppo, DAE(), total_steps=640, num_runs=num_runs, num_threads=1, vmap=vmap, seed=seed)


def test_the_critic_learns_from_the_coupled_loss():
    """PPO's critic loss at the critic's outputs, scales and weights included, has the gradient of E[e²]/2 in units of
    V's scale: in the first pass, where the scales have just changed, and in the next, which bootstraps from the values
    of the first."""
    training = small_training()
    env, population = training.shards[0].env, training.shards[0].population
    ppo, estimator = training.algorithm, training.estimator
    for _ in range(3):
        rollout = collect(env, population, 16)
        bootstrap = rollout.next_value[..., 0].clone()
        before = population.buffers["value_scale"].clone()
        estimate, _ = estimator(rollout, {})
        population.update_target_moments(estimate.target)
        assert (population.buffers["value_scale"] / before - 1).abs().max() > 1e-3
        for number in range(2):
            if number:
                reevaluate(rollout, population)
                estimate, _ = estimator(rollout, {})
                assert (rollout.next_value[..., 0] - bootstrap).abs().max() > 1e-3
            probability = rollout.distribution().log_probs.exp()
            x = Given(
                rollout.reward, rollout.value, bootstrap, rollout.terminated, rollout.truncated, rollout.action,
                probability,
            )  # fmt: skip
            expected = coupled_gradient(Given(*(t.double() if t.is_floating_point() else t for t in x)), 0.99)
            everything = rollout.everything(estimate)
            for run in range(2):
                minibatch = {name: tensor[run] for name, tensor in everything.items()}
                scale = population.coefficients["value_scale"][run]
                leaf = minibatch["value"].clone().requires_grad_()
                ours = torch.autograd.grad(ppo.value_loss(leaf, minibatch, scale), leaf)[0]
                unit = float(population.buffers["value_scale"][run, 0])
                theirs = rollout.by_run(expected)[:, run].flatten(0, 1) / (2 * 64 * unit**2)
                check(ours.double(), theirs, 1e-4 * float(theirs.abs().max()))
            population.update(ppo.loss, everything)
        population.update_observation_moments(rollout)
    training.close()


def test_metrics_are_those_of_the_value():
    training = small_training()
    for _ in range(2):
        metrics = training.iterate()
    rollout = training.shards[0].env._rollout  # type: ignore[attr-defined]
    value = rollout.by_run(rollout.value[..., 0]).mean((0, 2))
    assert metrics["value"].tolist() == pytest.approx(value.tolist(), rel=1e-5)
    training.close()


def test_a_run_learns_as_it_does_alone():
    together, alone = small_training(3), small_training(1, vmap=True, seed=1)
    for _ in range(3):
        together.iterate()
        alone.iterate()
    ours, theirs = together.shards[0].population.flat[1], alone.shards[0].population.flat[0]
    assert torch.equal(ours, theirs)
    together.close()
    alone.close()


# ----------------------------------------------------------------------------------------------------------- refusals


def test_bad_settings():
    for gamma in (-0.1, 1.01, NAN):
        with pytest.raises(ValueError, match=f"gamma = {gamma}; use a number from 0 to 1"):
            DAE(gamma)


def test_only_actions_that_can_be_listed():
    assert DAE().num_values(spaces.Discrete(4)) == 5
    with pytest.raises(ValueError, match=r"needs a Discrete action space, not MultiDiscrete.*gae"):
        DAE().num_values(spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ValueError, match="needs a Discrete action space, not Box"):
        Training("pendulum", estimator="dae", num_threads=1)


# ------------------------------------------------------------------------------------------------------------ learning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "estimator", "bound"),
    [
        (VPG(), DAE(), 450),
        (PPO(), DAE(), 150),
        (PPO(), DAE(corrected=True), 450),
    ],
)
def test_learns(algorithm, estimator, bound):
    """cartpole, 200,000 steps, seeds 1000..1003, mean of the last 100 training episodes.

    Measured: 500, 493 and 500. PPO's many steps per rollout settle on what the critic believes early: with other first
    values of the critic the second was 201 to 419, single runs 111 to 500.
    """
    result = ridgeline.train("cartpole", algorithm, estimator, total_steps=200_000, num_runs=4, seed=1000)
    assert not result.failures
    assert np.array(result.episode_return).mean() >= bound
