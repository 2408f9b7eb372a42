"""TRPO: Fisher products, conjugate gradient, line search, the whole step against written-out matrices; populations."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_ppo import make_policy
from torch import nn
from torch.func import functional_call

import ridgeline
from ridgeline.algorithms.trpo import (
    TRPO,
    conjugate_gradient,
    distribution_of,
    fisher_vector_product,
    flatten,
    line_search,
    natural_step,
    policy_parameters,
)
from ridgeline.distributions import Categorical, make_distribution
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.policies import MLP
from ridgeline.training import Training

SMALL = TRPO(num_envs=8, rollout_length=16, num_value_updates=3)
DOUBLE = {"dtype": torch.float64}


def cosine(a, b) -> float:
    return (a.dot(b) / (a.norm() * b.norm())).item()


def scores(log_prob, parameters) -> torch.Tensor:
    """The gradient of each entry of log_prob (M,) with respect to all parameters, (M, P)."""
    rows = [torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True) for one in log_prob]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


# ------------------------------------------------------------------------------------------------ a table of softmaxes


@pytest.fixture
def table():
    """Logits of 3 states and 3 actions, states seen 5, 3 and 2 times; F = blockdiag(share (diag p - p p'))."""
    logits = torch.tensor([[0.3, -1.0, 0.2], [1.5, 0.0, -0.5], [0.1, 0.2, 0.4]], **DOUBLE)
    state = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    p = logits.softmax(-1)
    fisher = torch.block_diag(
        *[share * (row.diag() - torch.outer(row, row)) for share, row in zip((0.5, 0.3, 0.2), p, strict=True)]
    )
    old = Categorical(logits[state])
    generator = torch.Generator().manual_seed(3)
    action = old.sample(torch.rand(10, generator=generator))
    advantage = torch.randn(10, generator=generator, **DOUBLE)
    leaf = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((Categorical(leaf[state]).log_prob(action) * advantage).mean(), leaf)

    def mean_kl(theta):
        return old.kl(Categorical(theta["logits"][state])).mean()

    return {"logits": logits}, mean_kl, fisher, gradient.flatten()


def test_the_step_solves_the_damped_system(table):
    """Parallel to (F + kappa I)^-1 g with as many products as parameters, as long as delta allows; F^-1 g differs."""
    theta, mean_kl, fisher, gradient = table
    damped = fisher + 0.1 * torch.eye(9, **DOUBLE)
    expected = torch.linalg.solve(damped, gradient)
    step = natural_step(mean_kl, theta, gradient, 0.01, 0.1, 9)
    assert cosine(step, expected) > 1 - 1e-6
    assert (step @ damped @ step / 2).item() == pytest.approx(0.01)
    assert cosine(step, torch.linalg.pinv(fisher) @ gradient) < 0.99
    # three products do not suffice for nine parameters, but the length is right whatever the direction
    short = natural_step(mean_kl, theta, gradient, 0.01, 0.1, 1)
    assert cosine(short, gradient) > 1 - 1e-12 and cosine(short, expected) < 0.999
    assert (short @ damped @ short / 2).item() == pytest.approx(0.01)
    assert not natural_step(mean_kl, theta, torch.zeros(9, **DOUBLE), 0.01, 0.1, 9).any()


def test_fisher_of_the_table(table):
    theta, mean_kl, fisher, _ = table
    columns = [fisher_vector_product(mean_kl, theta)(unit) for unit in torch.eye(9, **DOUBLE)]
    assert (torch.stack(columns) - fisher).abs().max() < 1e-14


def test_conjugate_gradient_solves():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, **DOUBLE)
    matrix, b = root @ root.T + 0.5 * torch.eye(6, **DOUBLE), torch.randn(6, generator=generator, **DOUBLE)
    solution = torch.linalg.solve(matrix, b)
    assert (conjugate_gradient(matrix.mv, b, 6) - solution).abs().max() < 1e-8
    assert (conjugate_gradient(matrix.mv, b, 60) - solution).abs().max() < 1e-8  # stops where it is solved
    assert (conjugate_gradient(matrix.mv, b, 2) - solution).abs().max() > 1e-3


# ----------------------------------------------------------------------------------------------------- Fisher matrices


@pytest.mark.parametrize(
    ("action_space", "noise_steps"),
    [
        (spaces.Discrete(3), 0),
        (spaces.MultiDiscrete([2, 3]), 0),
        (spaces.Box(-1, 1, (2,)), 0),
        (spaces.Box(-1, 1, (2,)), 4),
    ],
)
def test_fisher_vector_product(action_space, noise_steps):
    """Of a network: E_s E_a[score score'], the inner expectation in full: over all actions, or for a Gaussian
    J' diag(1/sigma^2) J of the means and 2 J' J of the log standard deviations, of each row with gSDE."""
    policy = make_policy(action_space, noise_steps=noise_steps)
    observation = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), **DOUBLE)
    names = policy_parameters(policy, {"observation": observation.unsqueeze(0), "action": actions(action_space)})
    theta = {name: policy.get_parameter(name) for name in names}
    assert {name.split(".")[0] for name in names} == {"actor", "action_head"} | (
        {"log_std"} if isinstance(action_space, spaces.Box) else set()
    )
    values = list(theta.values())
    fisher = torch.zeros(sum(p.numel() for p in values), sum(p.numel() for p in values), **DOUBLE)
    distribution = policy.distribution(observation)
    if isinstance(action_space, spaces.Box):
        spread = distribution.log_std.detach().exp()
        for i in range(2):
            mean, log_std = (scores(output[:, i], values) for output in (distribution.mean, distribution.log_std))
            fisher += (mean / spread[:, i : i + 1] ** 2).T @ mean / 7 + 2 * log_std.T @ log_std / 7
    else:
        for action in actions(action_space)[0]:
            log_prob = distribution.log_prob(action.expand(7, *action.shape))
            score = scores(log_prob, values)
            fisher += score.T @ (log_prob.detach().exp().unsqueeze(1) * score) / 7
    with torch.no_grad():
        old = policy.distribution(observation)

    def mean_kl(theta):
        return old.kl(functional_call(policy, theta, (observation,))[0]).mean()

    product = fisher_vector_product(mean_kl, {name: tensor.detach() for name, tensor in theta.items()})
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        vector = torch.randn(len(fisher), generator=generator, **DOUBLE)
        assert (product(vector) - fisher @ vector).abs().max() < 1e-10
    assert (fisher @ vector).abs().max() > 0.1


def actions(action_space) -> torch.Tensor:
    """All actions of a discrete space, one of a Box, (1, A, ...)."""
    if isinstance(action_space, spaces.Box):
        return torch.zeros(1, 1, 2, **DOUBLE)
    if isinstance(action_space, spaces.Discrete):
        return torch.arange(3).unsqueeze(0)
    return torch.cartesian_prod(*[torch.arange(int(n)) for n in action_space.nvec]).unsqueeze(0)


# ----------------------------------------------------------------------------------------------------------- the search


def search(measure, num_steps=10):
    return line_search(measure, {"x": torch.zeros(1, **DOUBLE)}, torch.ones(1, **DOUBLE), 0.5, 0.1, num_steps)


def test_line_search():
    """The first of 1, 0.8, 0.64, ... that raises the surrogate above what it was and keeps the bound, or nothing."""
    assert search(lambda theta: (0.4, 0.0)) is None
    assert search(lambda theta: (0.5, 0.0)) is None  # no better is not better
    assert search(lambda theta: (0.6, 0.11)) is None
    assert search(lambda theta: (math.nan, 0.0)) is None
    assert search(lambda theta: (0.6, math.nan)) is None
    for measure, power in [
        (lambda theta: (0.6, 0.1), 0),
        (lambda theta: (0.6, 0.15 * theta["x"].item()), 2),  # 0.15, 0.12, 0.096
        (lambda theta: (1.0 - theta["x"].item(), 0.0), 4),  # 0, 0.2, 0.36, 0.488, 0.59
    ]:
        theta, surrogate, kl, fraction = search(measure)
        assert theta["x"].item() == pytest.approx(0.8**power) == fraction
        assert (surrogate, kl) == measure(theta)
    assert search(lambda theta: (1.0 - theta["x"].item(), 0.0), 4) is None


# ------------------------------------------------------------------------------------------------------ on a population


def make_training(environment="cartpole", algorithm=SMALL, estimator="gae", **settings) -> Training:
    return Training(environment, algorithm, estimator, **{"total_steps": 10_000, "num_threads": 1} | settings)


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_a_whole_step(environment):
    """What an iteration adds to the actor is parallel to (F + kappa I)^-1 g, F and g written out in float64."""
    algorithm = dataclasses.replace(SMALL, num_conjugate_gradient_steps=60)
    training = make_training(environment, algorithm, policy=MLP(hidden_sizes=(4,)))
    population, captured = training.shards[0].population, {}
    step = TRPO.policy_step

    def capture(self, population, run, names, batch):
        captured.update(names=names, batch={name: tensor[run].double() for name, tensor in batch.items()})
        return step(self, population, run, names, batch)

    training.iterate()  # the first step moves the action head away from its tiny initial weights
    before = population.policy(0).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRPO, "policy_step", capture)
        metrics = training.iterate()
    after, batch = population.policy(0).double(), captured["batch"]
    theta = [before.get_parameter(name) for name in captured["names"]]
    moved = flatten(after.get_parameter(name) - before.get_parameter(name) for name in captured["names"]).detach()
    distribution = before.distribution(batch["observation"])
    action = batch["action"].long() if environment == "cartpole" else batch["action"]
    advantage = (batch["advantage"] - batch["advantage"].mean()) / batch["advantage"].std(correction=0)
    score = scores(distribution.log_prob(action), theta)
    gradient = (score * advantage.unsqueeze(1)).mean(0)
    if environment == "cartpole":
        fisher = torch.zeros(len(gradient), len(gradient), **DOUBLE)
        for choice in range(2):
            log_prob = distribution.log_prob(torch.full_like(action, choice))
            score = scores(log_prob, theta)
            fisher += score.T @ (log_prob.detach().exp().unsqueeze(1) * score) / len(action)
    else:
        part = [p is not before.log_std for p in theta]
        score = scores(distribution.mean[:, 0], [p for p, mean in zip(theta, part, strict=True) if mean])
        fisher = torch.eye(len(gradient), **DOUBLE) * 2
        place = torch.tensor([mean for p, mean in zip(theta, part, strict=True) for _ in range(p.numel())])
        fisher[place.nonzero(), place.nonzero().T] = (
            score.T @ score / len(action) / distribution.log_std[0, 0].exp() ** 2
        )
    expected = torch.linalg.solve(fisher + 0.1 * torch.eye(len(gradient), **DOUBLE), gradient)
    assert cosine(moved, expected) > 1 - 1e-5
    assert cosine(moved, gradient) < 0.99
    assert metrics["gradient_norm"][0] == pytest.approx(gradient.norm().item(), rel=1e-4)
    assert metrics["step_fraction"][0] > 0


@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared trunk"])
@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_every_iteration_keeps_the_bound(environment, shared):
    """KL(old || new) at the rollout's observations, critic regression included, is within each run's own bound."""
    bounds = (0.001, 0.02)
    algorithms = [dataclasses.replace(SMALL, max_kl=bound) for bound in bounds]
    training = make_training(environment, algorithms, policy=MLP(hidden_sizes=(16,), shared_trunk=shared))
    shard, largest = training.shards[0], np.zeros(2)
    for _ in range(6):
        old = training.policies()
        metrics = training.iterate()
        observation = shard.env._rollout.by_run(shard.env._rollout.observation[:-1])
        for run, policy in enumerate(training.policies()):
            for name, buffer in old[run].named_buffers():  # the normaliser learns after the step
                policy.get_buffer(name).copy_(buffer)
            flat = observation[:, run].flatten(0, 1)
            with torch.no_grad():
                kl = old[run].distribution(flat).kl(policy.distribution(flat)).double().mean().item()
            assert kl <= bounds[run] * 1.0001 + 1e-7
            assert kl == pytest.approx(metrics["kl"][run], rel=1e-3, abs=1e-6)
            assert not torch.equal(old[run].value_head.bias, policy.value_head.bias)
            largest[run] = max(largest[run], kl)
    assert (largest > 0.3 * np.array(bounds)).all()  # and the bound is used


def test_nothing_to_gain_leaves_the_policy():
    """A constant advantage has no gradient; and a step along which the surrogate only falls is not taken."""
    training = make_training()
    training.iterate()
    shard = training.shards[0]
    population, rollout = shard.population, shard.env._rollout
    estimate, _ = shard.estimator(rollout, population.memory)
    batch = rollout.everything(estimate)
    names = policy_parameters(population.module, batch)
    policy = distribution_of(population, 0, batch["observation"][0])
    with torch.no_grad():
        batch["log_prob"] = policy({}).log_prob(batch["action"][0]).unsqueeze(0)
    batch["advantage"] = torch.full_like(batch["advantage"], 3.0)
    before = population.flat.clone()
    metrics = SMALL.policy_step(population, 0, names, batch)
    assert torch.equal(population.flat, before)
    assert metrics["kl"] == metrics["step_fraction"] == 0
    batch["advantage"] = torch.full_like(batch["advantage"], math.nan)
    SMALL.policy_step(population, 0, names, batch)
    assert torch.equal(population.flat, before)
    assert "not finite" in population.failure[0]


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate", "shared trunk"])
def test_a_population_is_its_runs(environment, shared):
    """Three runs side by side are three runs alone, bit for bit."""
    policy = MLP(hidden_sizes=(8, 8), shared_trunk=shared)
    together = make_training(environment, num_runs=3, policy=policy)
    for _ in range(3):
        together.iterate()
    flat = together.shards[0].population.flat
    for run in range(3):
        alone = make_training(environment, seed=run, policy=policy)
        for _ in range(3):
            alone.iterate()
        assert torch.equal(alone.shards[0].population.flat[0], flat[run])


def test_a_frozen_run_stays():
    together, other = make_training(num_runs=3), make_training(num_runs=3)
    for training in (together, other):
        training.iterate()
    population = together.shards[0].population
    before = population.flat.clone()
    population.freeze(1, "for the test")
    for training in (together, other):
        metrics = training.iterate()
    assert torch.equal(population.flat[1], before[1])
    assert torch.equal(population.flat[[0, 2]], other.shards[0].population.flat[[0, 2]])
    assert not torch.equal(population.flat[0], before[0])
    assert np.isfinite(metrics["kl"]).all()


class Mixed(nn.Module):
    """One layer gives logits and value."""

    def __init__(self, separate: bool):
        super().__init__()
        self.action = nn.Linear(4, 2 if separate else 3)
        self.critic = nn.Linear(4, 1) if separate else None

    def forward(self, observation):
        output = self.action(observation)
        value = output[..., 2:] if self.critic is None else self.critic(observation)
        return make_distribution(spaces.Discrete(2), output[..., :2], None), value


def test_modules_of_the_user():
    """Any module will do whose critic has a parameter of its own, or where no critic is trained."""
    training = make_training(policy=lambda: Mixed(True), num_runs=2)
    before = training.shards[0].population.flat.clone()
    metrics = training.iterate()
    assert (training.shards[0].population.flat != before).any(0).all() and (metrics["kl"] > 0).all()
    with pytest.raises(ValueError, match="trpo needs a critic with parameters of its own"):
        make_training(policy=lambda: Mixed(False), num_runs=2).iterate()
    without = make_training(estimator=MonteCarlo(baseline="none"), policy=lambda: Mixed(False), num_runs=2)
    assert (without.iterate()["kl"] > 0).all()


def test_settings():
    for name in ("num_value_updates", "num_conjugate_gradient_steps", "num_line_search_steps"):
        with pytest.raises(ValueError, match=f"{name}.* at least 1"):
            TRPO(**{name: 0})
    with pytest.raises(ValueError, match="max_kl = 0 must be above 0"):
        TRPO(max_kl=0)
    with pytest.raises(ValueError, match=r"damping = -0\.1"):
        TRPO(damping=-0.1)


@pytest.mark.slow
def test_learns_cartpole():
    """200,000 steps, four runs, mean of the last 100 training episodes."""
    result = ridgeline.train("cartpole", TRPO(), "gae", total_steps=200_000, num_runs=4, seed=1000)
    assert np.mean(result.episode_return) >= 450 and not result.failures


def test_the_critic_may_learn_from_minibatches():
    """Five passes in four parts are twenty steps of the critic; the policy's step has the same bits."""
    whole = TRPO(num_envs=8, rollout_length=16, num_value_updates=5)
    parts = dataclasses.replace(whole, num_minibatches=4)
    one, two = (
        Training("cartpole", algorithm, total_steps=10_000, num_runs=2, num_threads=1) for algorithm in (whole, parts)
    )
    metrics = one.iterate(), two.iterate()
    one, two = one.shards[0].population, two.shards[0].population
    for name in one.shapes:
        assert torch.equal(one.view(name), two.view(name)) == name.startswith("act"), name
    assert one.update_count.tolist() == [5, 5] and two.update_count.tolist() == [20, 20]
    assert (metrics[0]["kl"] == metrics[1]["kl"]).all() and (metrics[0]["kl"] > 0).all()
    with pytest.raises(ValueError, match="128 is not divisible by num_minibatches = 3; use one of 1, 2, 4"):
        dataclasses.replace(whole, num_minibatches=3)
