"""The contracts of a population: a run's result is its own, whichever runs share the process with it."""

import dataclasses
import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from ridgeline.algorithms.ppo import PPO
from ridgeline.distributions import Categorical
from ridgeline.environments import make
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.n_step import NStep
from ridgeline.policies import MLP
from ridgeline.population import Population
from ridgeline.training import Training, TrainingError

SMALL = PPO(num_envs=8, rollout_length=16, num_epochs=2)
ODD = PPO(num_envs=5, rollout_length=13, num_minibatches=5, num_epochs=2)  # nothing is a power of two


def train(environment, seeds, iterations=4, algorithm=SMALL, estimator="gae", policy="mlp", vmap=True) -> Training:
    """As run alone, or with others: several whole iterations, on one thread."""
    training = Training(
        environment, algorithm, estimator, policy, total_steps=10_000, seed=list(seeds), num_threads=1, vmap=vmap
    )
    for _ in range(iterations):
        training.iterate()
    return training


def state(training: Training, run: int) -> dict[str, torch.Tensor]:
    """Everything that a run has learned, its environments' states and the returns of its episodes."""
    (shard,) = training.shards
    own = {name: tensor[run].clone() for name, tensor in shard.population.state_dict().items()}
    rows = shard.env.state_dict()["state"].reshape(training.num_runs, -1)
    return own | {"environment": torch.from_numpy(rows[run].copy())}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert one.keys() == two.keys() and not different, different


# ------------------------------------------------------------------------------------------------- independence of runs


@pytest.mark.parametrize(
    ("environment", "algorithm", "policy"),
    [
        ("cartpole", SMALL, MLP()),
        ("cartpole", ODD, MLP(hidden_sizes=(17, 6), activation="relu", shared_trunk=True)),
        ("pendulum", SMALL, MLP(hidden_sizes=(32,), log_std=-0.5)),
        ("pendulum", ODD, MLP(hidden_sizes=(18,), normalize_observation=False, normalize_value=False)),
    ],
)
def test_a_run_has_the_same_bits_in_every_population(environment, algorithm, policy):
    """Alone, as one of 8, and at another place among others: parameters, optimizer, normalisers, environments."""
    eight = train(environment, range(8), 3, algorithm, policy=policy)
    mixed = train(environment, [9, 7, 3, 0], 3, algorithm, policy=policy)
    for run in (0, 3, 7):
        alone = train(environment, [run], 3, algorithm, policy=policy)
        assert_same(state(alone, 0), state(eight, run))
        assert_same(state(mixed, mixed.seeds.index(run)), state(eight, run))
    assert not torch.equal(state(eight, 0)["flat"], state(eight, 1)["flat"])


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_the_module_called_directly_gives_the_same_within_rounding(environment):
    one_update = dataclasses.replace(SMALL, num_epochs=1, num_minibatches=1)
    direct = train(environment, [3], 1, one_update, vmap=None)
    eight = train(environment, range(8), 1, one_update)
    assert not direct.shards[0].population.mapped
    assert direct.shards[0].population.update_count.tolist() == [1]
    assert (state(direct, 0)["flat"] - state(eight, 3)["flat"]).abs().max() < 1e-6


def test_the_number_of_threads_changes_no_bit():
    found = []
    for num_threads in (1, 2, 4):
        training = Training("cartpole", SMALL, total_steps=10_000, num_runs=4, num_threads=num_threads)
        assert len(training.shards) == num_threads
        for _ in range(3):
            training.iterate()
        found.append(torch.stack([torch.cat([p.flatten() for p in m.parameters()]) for m in training.policies()]))
        training.close()
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


CHANGES = [{}, {"learning_rate": 1e-2}, {"entropy_coef": 0.1}, {"clip_coef": 0.05}, {"max_grad_norm": 0.1}]
DISCOUNTS = [(0.99, 0.95), (0.9, 0.95), (0.99, 0.5), (0.97, 1.0), (0.99, 0.95)]


def test_each_run_has_its_own_coefficients():
    """Five runs of one seed that differ in what a user may sweep: each equals the run that has its values alone."""
    algorithms = [dataclasses.replace(SMALL, **change) for change in CHANGES]
    estimators = [GAE(*pair) for pair in DISCOUNTS]
    together = train("cartpole", [5] * 5, 3, algorithms, estimators)
    for run in range(5):
        assert_same(state(train("cartpole", [5], 3, algorithms[run], estimators[run]), 0), state(together, run))
    flat = together.shards[0].population.flat
    assert all(not torch.equal(flat[i], flat[j]) for i in range(5) for j in range(i))


@pytest.mark.parametrize("field", ["normalize_advantage", "anneal_learning_rate", "num_epochs", "target_kl"])
def test_what_is_no_coefficient_must_be_equal(field):
    other = dataclasses.replace(SMALL, **{field: {"num_epochs": 3, "target_kl": 0.01}.get(field, False)})
    with pytest.raises(ValueError, match=f"{field} differs between the runs of one population"):
        Training("cartpole", [SMALL, other], total_steps=1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": [SMALL] * 2, "num_runs": 3}, "2 algorithm configurations for 3 runs; give one, or one per run"),
        ({"algorithm": [SMALL] * 3, "estimator": [GAE()] * 2}, "2 estimator configurations for 3 runs"),
        ({"estimator": [GAE(), NStep()]}, "the runs of one training share their estimator"),
        ({"algorithm": GAE()}, "it needs a method iterate"),
        ({"num_runs": 2, "seed": [1, 2, 3]}, "3 seeds for 2 runs; give one seed per run, or the first one"),
        ({"num_runs": 0}, "num_runs = 0; use a whole number from 1"),
    ],
)
def test_configurations_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Training("cartpole", total_steps=1000, **settings)


# ------------------------------------------------------------------------------------------------------------ poisoning


def poison(training: Training, run: int, name: str, value: float) -> None:
    """From now on, one environment of one run gives this as its reward or observation."""
    env, row = training.shards[0].env, run * SMALL.num_envs + 2
    step = env.step

    def poisoned(action, out=None):
        result = step(action, out)
        getattr(result, name)[row] = value
        return result

    env.step = poisoned


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
@pytest.mark.parametrize("what", ["reward", "observation", "infinite reward", "learning_rate"])
def test_a_poisoned_run_harms_no_other(environment, what):
    algorithms = [SMALL] * 8
    if what == "learning_rate":
        algorithms[3] = dataclasses.replace(SMALL, learning_rate=1e9)
    clean, poisoned = train(environment, range(8), 1), train(environment, range(8), 1, algorithms)
    before = state(poisoned, 3)
    if what != "learning_rate":
        poison(poisoned, 3, what.split()[-1], math.inf if what.startswith("infinite") else math.nan)
    seen = []
    for _ in range(4):
        seen.append((poisoned.iterate(), state(poisoned, 3)))
        expected = clean.iterate()
    for run in (0, 1, 2, 4, 5, 6, 7):
        assert_same(state(clean, run), state(poisoned, run))
    assert poisoned.frozen == [run == 3 for run in range(8)]
    assert list(poisoned.failures) == [3] and "is not finite at" in poisoned.failures[3]
    if what != "learning_rate":
        at = "step 0" if "reward" in what else "step 1"
        assert poisoned.failures[3] == f"{what.split()[-1]} is not finite at {at} of the rollout, environment row 2"
        assert torch.equal(seen[0][1]["flat"], before["flat"])
    learned = [name for name in before if name not in ("environment", "iteration")]
    assert all(torch.equal(seen[-2][1][name], seen[-1][1][name]) for name in learned)
    for name, value in seen[-1][0].items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(np.delete(value, 3), np.delete(expected[name], 3), equal_nan=True), name


def test_a_loss_that_is_not_finite_freezes_its_run():
    population = linear(2)
    before = population.flat.clone()

    def loss(policy, minibatch, coefficients):
        return policy(minibatch["observation"])[1].mean() * minibatch["factor"].mean(), {}

    minibatch = {"observation": torch.ones(2, 3, 4), "factor": torch.tensor([[1.0], [math.nan]])}
    population.update(loss, minibatch)
    assert population.frozen.tolist() == [False, True]
    assert population.failure == {1: "the loss is not finite at update 1"}
    assert torch.equal(population.flat[1], before[1]) and not torch.equal(population.flat[0], before[0])
    population.update(loss, minibatch | {"factor": torch.ones(2, 1)})
    assert torch.equal(population.flat[1], before[1])  # for good
    assert population.update_count.tolist() == [2, 0]


def test_one_broken_ratio_freezes_its_run_and_all_of_them_end_the_training():
    """Noise inside forward is an error in the program; one run whose numbers are too large is that run's end."""
    training = Training("cartpole", SMALL, total_steps=1000, num_runs=3, num_threads=2)
    training._check(np.array([0.0, 0.5, 1e-7]))
    assert training.frozen == [False, True, False]
    assert "max |log ratio| of the first minibatch is 5.0e-01" in training.failures[1]
    training._check(np.array([0.0, math.nan, 2e-5]))
    assert len(training.warnings) == 1 and "2.0e-05" in training.warnings[0]
    with pytest.raises(TrainingError, match="the policy that learns is not the one that acted; look for dropout"):
        training._check(np.array([0.3, math.nan, 0.5]))


def test_dropout_is_noticed():
    class Dropping(Tiny):
        def forward(self, observation):
            return super().forward(nn.functional.dropout(observation, 0.5))

    with pytest.raises(TrainingError, match="look for dropout"):
        train("cartpole", [0], 1, policy=Dropping, vmap=None)


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_the_policy_that_learns_is_the_one_that_acted(environment):
    """max |log ratio| of the first minibatch below 1e-5 in every iteration, while the normaliser moves."""
    training = train(environment, range(3), 0, PPO(num_envs=16, rollout_length=32))
    population, scales = training.shards[0].population, []
    for _ in range(8):
        assert training.iterate()["first_log_ratio"].max() < 1e-5
        scales.append(population.buffers["observation_scale"].clone())
    assert not training.warnings
    assert all((one - two).abs().max() > 1e-4 for one, two in pairwise(scales))


# ------------------------------------------------------------------------------------------------- a user's own policy


class Tiny(nn.Module):
    """A plain module, as a user writes it: no normaliser, no knowledge of runs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 16)
        self.head = nn.Linear(16, 2)
        self.value = nn.Linear(16, 1)

    def forward(self, observation):
        x = torch.tanh(self.layer(observation))
        return Categorical(self.head(x)), self.value(x)


def test_a_plain_module_trains_directly_and_mapped():
    direct = train("cartpole", [1], 2, policy=Tiny, vmap=None)
    three = train("cartpole", range(3), 2, policy=Tiny)
    own = Tiny()
    module = train("cartpole", [1], 2, policy=own, vmap=None)
    assert (state(direct, 0)["flat"] - state(three, 1)["flat"]).abs().max() < 1e-4
    assert not torch.equal(state(three, 0)["flat"], state(three, 2)["flat"])
    assert torch.equal(nn.utils.parameters_to_vector(own.parameters()), module.shards[0].population.flat[0])
    for training in (direct, three):
        assert training.shards[0].population.update_count.tolist() == [16] * training.num_runs
    policies = three.policies()
    observation = torch.randn(5, 4)
    for run, policy in enumerate(policies):
        assert isinstance(policy, Tiny)
        expected = three.shards[0].population.value(observation.expand(3, 5, 4))[run]
        assert torch.allclose(policy(observation)[1], expected, atol=1e-6)


def test_one_module_is_one_run():
    with pytest.raises(ValueError, match=r"one nn\.Module is the policy of one run"):
        Training("cartpole", policy=Tiny(), num_runs=2, total_steps=1000)
    with pytest.raises(ValueError, match="has no parameters to train"):
        Training("cartpole", policy=nn.Identity(), total_steps=1000)


# ------------------------------------------------------------------------------------------------------------ optimizer


def linear(runs, vmap=None, **coefficients) -> Population:
    values = {"learning_rate": [0.1] * runs} | coefficients
    env = make("cartpole", 1)
    return Population(Tiny, env.observation_space, env.action_space, range(runs), values, vmap)


def regression(policy, minibatch, coefficients):
    distribution, value = policy(minibatch["observation"])
    log_prob = distribution.log_prob(minibatch["action"])
    loss = (value.squeeze(-1) - minibatch["target"]).square().mean() - 0.1 * log_prob.mean()
    return loss, {"value": value.mean()}


@pytest.mark.parametrize(("runs", "vmap"), [(1, False), (1, True), (3, True)])
def test_update_is_adam_with_clipping(runs, vmap):
    """Ten steps equal torch.optim.Adam(eps=1e-5) behind clip_grad_norm_, run by run, with and without clipping."""
    rate, limit = [0.01, 0.1, 0.003][:runs], [0.5, 1e9, 2.0][:runs]
    population = linear(runs, vmap, learning_rate=rate, max_grad_norm=limit)
    modules = [population.policy(run) for run in range(runs)]
    optimizers = [torch.optim.Adam(m.parameters(), rate[r], eps=1e-5) for r, m in enumerate(modules)]
    generator = torch.Generator().manual_seed(0)
    clipped = 0
    for _ in range(10):
        minibatch = {
            "observation": torch.randn(runs, 32, 4, generator=generator),
            "action": torch.randint(2, (runs, 32), generator=generator),
            "target": 3 * torch.randn(runs, 32, generator=generator),
        }
        metrics = population.update(regression, minibatch)
        for run, (module, optimizer) in enumerate(zip(modules, optimizers, strict=True)):
            optimizer.zero_grad()
            loss, expected = regression(module, {name: tensor[run] for name, tensor in minibatch.items()}, {})
            loss.backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), limit[run])
            optimizer.step()
            clipped += norm > limit[run]
            assert metrics["gradient_norm"][run].item() == pytest.approx(norm.item(), rel=1e-4)
            assert metrics["value"][run].item() == pytest.approx(expected["value"].item(), abs=1e-5)
            found = population.flat[run]
            assert (found - nn.utils.parameters_to_vector(module.parameters())).abs().max() < 1e-5
    assert clipped >= 5


def test_inactive_runs_stay():
    population = linear(3)
    before = population.flat.clone()
    minibatch = {
        "observation": torch.randn(3, 8, 4),
        "action": torch.zeros(3, 8, dtype=torch.int64),
        "target": torch.zeros(3, 8),
    }
    population.update(regression, minibatch, torch.tensor([True, False, True]))
    assert population.update_count.tolist() == [1, 0, 1]
    assert torch.equal(population.flat[1], before[1]) and not torch.equal(population.flat[2], before[2])
    assert not population.frozen.any()


@pytest.mark.parametrize(("runs", "vmap"), [(1, False), (2, True)])
def test_a_loss_without_a_gradient_is_refused(runs, vmap):
    def loss(policy, minibatch, coefficients):
        return policy(minibatch["observation"])[1].detach().mean(), {}

    with pytest.raises(ValueError, match="the loss has no gradient"):
        linear(runs, vmap).update(loss, {"observation": torch.ones(runs, 3, 4)})


def test_parameters_outside_the_loss_do_not_move():
    population = linear(2)
    head = population.view("head.weight").clone()

    def loss(policy, minibatch, coefficients):
        return policy(minibatch["observation"])[1].mean(), {}

    population.update(loss, {"observation": torch.ones(2, 3, 4)})
    assert torch.equal(population.view("head.weight"), head)
    assert population.flat.isfinite().all()


def test_noise_and_shuffles_belong_to_the_seed():
    """Whatever the population; new in each iteration; permutations are permutations."""
    env = make("pendulum", 4, [0, 1, 2])
    one, three = (
        Population(lambda: MLP().build(env.observation_space, env.action_space), env.observation_space,
                   env.action_space, seeds, {})
        for seeds in ([2], [0, 1, 2])
    )  # fmt: skip
    noise, order = three.noise(6, 4), three.shuffles(24, 2)
    assert torch.equal(noise[:, 2], one.noise(6, 4)[:, 0]) and torch.equal(order[:, 2], one.shuffles(24, 2)[:, 0])
    assert torch.equal(order.sort(-1).values, torch.arange(24).expand(2, 3, 24))
    assert not torch.equal(order[0], order[1]) and not torch.equal(order[0, 0], order[0, 1])
    one.iteration += 1
    assert not torch.equal(noise[:, 2], one.noise(6, 4)[:, 0])
    assert not torch.equal(order[:, 2], one.shuffles(24, 2)[:, 0])


def test_a_policy_copy_is_independent():
    training = train("cartpole", range(2), 1)
    population = training.shards[0].population
    policy = population.policy(1)
    before = population.flat.clone()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1)
    assert torch.equal(population.flat, before)
    training.iterate()
    assert not torch.equal(nn.utils.parameters_to_vector(policy.parameters()) - 1, population.flat[1])


def test_vmap_false_needs_one_run():
    with pytest.raises(ValueError, match=re.escape("vmap = False needs one run, not 2")):
        linear(2, vmap=False)


class HalfFixed(nn.Module):
    """A linear policy behind a fixed random projection, which differs between runs."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Parameter(torch.randn(8, 4), requires_grad=False)
        self.head = nn.Linear(8, 3)

    def forward(self, observation):
        output = self.head(torch.tanh(observation @ self.projection.T))
        return Categorical(output[..., :2]), output[..., 2:]


@pytest.mark.parametrize("runs", [1, 2])
def test_a_parameter_that_needs_no_gradient_is_not_trained(runs):
    training = Training("cartpole", SMALL, "gae", HalfFixed, total_steps=1000, num_runs=runs, num_threads=1)
    before = [policy.state_dict() for policy in training.policies()]
    training.iterate()
    for old, policy in zip(before, training.policies(), strict=True):
        new = policy.state_dict()
        assert torch.equal(old["projection"], new["projection"])
        assert not torch.equal(old["head.weight"], new["head.weight"])
    if runs == 2:
        assert not torch.equal(before[0]["projection"], before[1]["projection"])
