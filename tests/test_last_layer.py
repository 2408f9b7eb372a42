"""What the estimators may ask of the policy that acted: distributions, the last layer's features and scores, and all of
it again after learning."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ridgeline.algorithms.ppo import PPO
from ridgeline.environments import make
from ridgeline.estimators.gae import GAE
from ridgeline.policies import MLP
from ridgeline.population import Population
from ridgeline.rollout import Estimate, collect, reevaluate
from ridgeline.training import Training

OBSERVATION = spaces.Box(-1, 1, (5,), np.float32)
ACTIONS = {
    "categorical": spaces.Discrete(3),
    "several": spaces.MultiDiscrete([2, 4]),
    "gaussian": spaces.Box(-1, 1, (2,), np.float32),
}
POLICIES = [MLP((7,)), MLP((7, 6), shared_trunk=True), MLP((), normalize_observation=False)]


def actions(space, shape, generator):
    if isinstance(space, spaces.Box):
        return torch.randn(*shape, *space.shape, generator=generator)
    if isinstance(space, spaces.MultiDiscrete):
        columns = [torch.randint(int(n), shape, generator=generator) for n in space.nvec]
        return torch.stack(columns, -1)
    return torch.randint(int(space.n), shape, generator=generator)


def last_layer_gradient(feature, score, score_free, advantage):
    """score^T diag(A) [feature, 1] over rows, and the sum of A score_free, both divided by the number of rows."""
    feature = torch.cat([feature, torch.ones_like(feature[..., :1])], -1)
    product = torch.einsum("ms,m,mf->sf", score, advantage, feature)
    return product / len(advantage), (advantage.unsqueeze(-1) * score_free).mean(0)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS)
@pytest.mark.parametrize("policy", POLICIES)
def test_feature_and_score_give_the_gradient(action_space, policy):
    generator = torch.Generator().manual_seed(3)
    module = policy.build(OBSERVATION, action_space).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    observation = torch.randn(40, 5, generator=generator).double()
    action = actions(action_space, (40,), generator)
    action = action.double() if action.is_floating_point() else action
    advantage = torch.randn(40, generator=generator).double()

    distribution, _ = module(observation)
    (advantage * distribution.log_prob(action)).mean().backward()
    feature, same = module.last_layer(observation)
    score, score_free = same.score(action)
    weight, free = last_layer_gradient(feature, score, score_free, advantage)
    if module.log_std is not None:  # whitened scores: undo the scale
        weight = weight / module.log_std.exp().unsqueeze(-1)
        free = free * math.sqrt(2)
        torch.testing.assert_close(free, module.log_std.grad, atol=1e-10, rtol=1e-10)
    else:
        assert free.shape == (0,)
    torch.testing.assert_close(weight[:, :-1], module.action_head.weight.grad, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(weight[:, -1], module.action_head.bias.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=ACTIONS)
def test_scores_have_mean_zero_given_an_observation(action_space):
    generator = torch.Generator().manual_seed(4)
    module = MLP((8,)).build(OBSERVATION, action_space)
    with torch.no_grad():
        module.action_head.weight.mul_(100)
    observation = torch.randn(5, generator=generator).expand(40_000, 5)
    distribution = module.distribution(observation)
    shape = (40_000, *(action_space.shape or ()))
    is_box = isinstance(action_space, spaces.Box)
    noise = torch.randn(shape, generator=generator) if is_box else torch.rand(shape, generator=generator)
    for score in distribution.score(distribution.sample(noise)):
        score = score.detach().double()
        if not score.numel():
            continue
        assert bool((score.mean(0).abs() <= 4.5 * score.std(0) / 200 + 1e-6).all())
        if is_box:  # whitened: unit variance
            assert bool((score.var(0) - 1).abs().max() < 0.1)


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
@pytest.mark.parametrize("shared_trunk", [False, True])
def test_every_row_of_every_run_is_where_it_belongs(environment, shared_trunk):
    """Runs, steps and rows are in order: the policy of each run, asked by itself, says the same."""
    training = Training(
        environment,
        PPO(num_envs=4, rollout_length=21),
        policy=MLP(shared_trunk=shared_trunk),
        num_runs=3,
        num_threads=1,
    )
    training.iterate()
    (shard,) = training.shards
    rollout = collect(shard.env, shard.population, 21)
    layer, distribution = rollout.last_layer(4), rollout.distribution()
    torch.testing.assert_close(layer.log_prob, rollout.log_prob, atol=1e-5, rtol=0)
    torch.testing.assert_close(distribution.log_prob(rollout.action), rollout.log_prob, atol=1e-5, rtol=0)
    for run, policy in enumerate(training.policies()):
        rows = slice(4 * run, 4 * run + 4)
        feature, own = policy.last_layer(rollout.observation[:-1, rows])
        torch.testing.assert_close(layer.feature[:, rows], feature)
        score, score_free = own.score(rollout.action[:, rows])
        torch.testing.assert_close(layer.score[:, rows], score, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.score_free[:, rows], score_free, atol=1e-5, rtol=1e-5)
    training.close()


@pytest.mark.parametrize(("runs", "shared_trunk"), [(1, False), (1, True), (3, False), (3, True)])
def test_reevaluate_is_what_the_policy_says_now(runs, shared_trunk):
    """Final observations too: pendulum's limit of 200 steps falls into the rollout."""
    training = Training(
        "pendulum", PPO(num_envs=4, rollout_length=208), policy=MLP(shared_trunk=shared_trunk), num_runs=runs,
        num_threads=1,
    )  # fmt: skip
    training.iterate()
    (shard,) = training.shards
    population = shard.population
    rollout = collect(shard.env, population, 208)
    acted = {name: getattr(rollout, name).clone() for name in ("value", "next_value", "log_prob")}
    before = rollout.distribution()
    reevaluate(rollout, population)
    for name, tensor in acted.items():  # nothing was learned
        torch.testing.assert_close(getattr(rollout, name), tensor, atol=1e-4, rtol=1e-5)
    assert float(rollout.log_ratio.abs().max()) < 1e-5
    with torch.no_grad():
        population.flat += 0.01 * torch.randn(population.flat.shape, generator=torch.Generator().manual_seed(1))
    reevaluate(rollout, population)
    assert rollout.distribution() is before  # still the one that acted
    assert torch.equal(rollout.log_prob, acted["log_prob"])
    assert bool(rollout.truncated.any())
    assert not torch.allclose(rollout.next_value[rollout.truncated], acted["next_value"][rollout.truncated])
    for run, policy in enumerate(training.policies()):
        rows = slice(4 * run, 4 * run + 4)
        distribution, value = policy(rollout.observation[:-1, rows])
        torch.testing.assert_close(rollout.value[:, rows], value, atol=1e-4, rtol=1e-4)
        log_ratio = distribution.log_prob(rollout.action[:, rows]) - rollout.log_prob[:, rows]
        torch.testing.assert_close(rollout.log_ratio[:, rows], log_ratio, atol=1e-5, rtol=0)
        following = policy.value(rollout.observation[1:, rows])
        goes_on = ~rollout.truncated[:, rows]
        torch.testing.assert_close(rollout.next_value[:, rows][goes_on], following[goes_on], atol=1e-4, rtol=1e-4)
        step, row, owner, place, final, _ = rollout.final
        own = owner == run
        torch.testing.assert_close(
            rollout.next_value[step[own], row[own]], policy.value(final[run, place[own]]), atol=1e-4, rtol=1e-4
        )
    training.close()


class Counting(GAE):
    """GAE that counts its calls and what it was given."""

    def __call__(self, rollout, memory):
        calls = memory.get("calls", torch.zeros(rollout.num_runs)) + 1
        seen.append((int(calls[0]), float(rollout.log_ratio.abs().max()), rollout.value.clone()))
        estimate, _ = super().__call__(rollout, memory)
        return estimate, {"calls": calls}


seen: list = []


@pytest.mark.parametrize("how", ["flag", "estimator", "never"])
def test_ppo_estimates_anew_before_every_epoch_but_the_first(how):
    seen.clear()
    estimator = Counting()
    if how == "estimator":
        object.__setattr__(estimator, "every_epoch", True)
    algorithm = PPO(num_envs=4, rollout_length=16, num_epochs=3, recompute_advantage=how == "flag")
    training = Training("cartpole", algorithm, estimator, num_threads=1)
    training.iterate()
    training.iterate()
    # the memory of an iteration is that of its first call: weights must not move within it
    assert [calls for calls, _, _ in seen] == ([1, 2] if how == "never" else [1, 1, 1, 2, 2, 2])
    if how != "never":
        ratios = [ratio for _, ratio, _ in seen]
        assert ratios[0] == ratios[3] == 0 and min(ratios[1], ratios[2], ratios[4], ratios[5]) > 1e-4
        assert not torch.equal(seen[0][2], seen[1][2])
    training.close()


def test_weights_of_targets_reach_the_critic():
    """A weight of 0 takes a row out of the critic's loss, whatever stands there; a weight of 2 doubles its gradient."""

    def critic_gradient(weight, target):
        env = make("cartpole", 4, [0])
        population = Population(
            lambda: MLP().build(env.observation_space, env.action_space), env.observation_space, env.action_space, [0],
            {"learning_rate": [0.0], "value_coef": [0.5], "entropy_coef": [0.0], "clip_coef": [0.2]},
        )  # fmt: skip
        rollout = collect(env, population, 8)
        estimate = Estimate(torch.zeros(8, 4), target, weight)
        population.update(PPO(num_envs=4, rollout_length=8).loss, rollout.everything(estimate))
        return population.gradient.clone()

    half = torch.zeros(8, 4, 1)
    half[:4] = 1
    target = torch.randn(8, 4, 1, generator=torch.Generator().manual_seed(0))
    other = torch.where(half > 0, target, 1e6)
    assert torch.equal(critic_gradient(half, target), critic_gradient(half, other))
    assert not torch.equal(critic_gradient(half, target), critic_gradient(None, target))
    torch.testing.assert_close(critic_gradient(None, target), critic_gradient(torch.ones(8, 4, 1), target))
    torch.testing.assert_close(2 * critic_gradient(half, target), critic_gradient(2 * half, target))
