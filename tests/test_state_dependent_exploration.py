"""Generalised state-dependent exploration (gSDE): the distribution, noise that is kept for some steps, whole runs."""

import math

import numpy as np
import pytest
import torch
from fake_env import FakeEnv, tiny
from gymnasium import spaces

import ridgeline
import ridgeline.training
from ridgeline import cli, components, evaluation
from ridgeline.algorithms.ppo import PPO
from ridgeline.distributions import DiagonalGaussian, draw_noise
from ridgeline.environments import make
from ridgeline.policies import MLP
from ridgeline.population import Population
from ridgeline.rollout import collect
from ridgeline.training import Training

OBSERVATION, TWO = spaces.Box(-5, 5, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
LINEAR = {"hidden_sizes": (), "normalize_observation": False}  # the observation itself is what the noise is made of


def build(noise_steps=4, action_space=TWO, **settings):
    """A policy with random weights, float64."""
    torch.manual_seed(0)
    policy = MLP(**{"hidden_sizes": (6,)} | settings, noise_steps=noise_steps).build(OBSERVATION, action_space).double()
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return policy


def sample(policy, rows=5):
    """Observations, features, noise matrices, and the distribution with actions of it."""
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    feature, distribution = policy.last_layer(observation)
    noise = torch.randn(rows, feature.shape[1], 2, generator=generator, dtype=torch.float64)
    return observation, feature.detach(), noise, distribution, distribution.sample(noise)


# -------------------------------------------------------------------------------------------------------- distribution


@pytest.mark.parametrize("settings", [{}, {"shared_trunk": True}, LINEAR])
def test_density_and_samples_written_out(settings):
    policy = build(**settings)
    observation, feature, noise, distribution, action = sample(policy)
    both, _ = policy(observation)
    deviation, phi = policy.log_std.detach().exp().tolist(), feature.tolist()
    for row in range(5):
        log_prob, entropy = 0.0, 0.0
        for i in range(2):
            mean = distribution.mean[row, i].item()
            theta = [deviation[f][i] * noise[row, f, i].item() for f in range(len(phi[row]))]
            expected = mean + sum(t * one for t, one in zip(theta, phi[row], strict=True))
            assert action[row, i].item() == pytest.approx(expected, abs=1e-12)
            variance = 1e-6 + sum((deviation[f][i] * one) ** 2 for f, one in enumerate(phi[row]))
            log_prob -= 0.5 * ((action[row, i].item() - mean) ** 2 / variance + math.log(2 * math.pi * variance))
            entropy += 0.5 * math.log(2 * math.pi * math.e * variance)
        for one in (distribution, both):
            assert one.log_prob(action)[row].item() == pytest.approx(log_prob, abs=1e-10)
            assert one.entropy()[row].item() == pytest.approx(entropy, abs=1e-10)
    assert torch.equal(distribution.mode(), distribution.mean)


def test_it_is_that_of_stable_baselines3():
    """Log-probability, entropy, sampled action, and the gradients of the first two."""
    theirs = pytest.importorskip("stable_baselines3.common.distributions").StateDependentNoiseDistribution(2)
    policy = build()
    _, feature, noise, distribution, action = sample(policy)
    theirs.proba_distribution_net(6)
    their_log_std = policy.log_std.detach().clone().requires_grad_()
    theirs.proba_distribution(distribution.mean.detach(), their_log_std, feature)
    theirs.exploration_matrices = their_log_std.detach().exp() * noise
    torch.testing.assert_close(action, theirs.sample(), rtol=1e-12, atol=1e-12)
    for own, their in (
        (distribution.log_prob(action.detach()), theirs.log_prob(action.detach())),
        (distribution.entropy(), theirs.entropy()),
    ):
        torch.testing.assert_close(own, their, rtol=1e-10, atol=1e-10)
        (gradient,) = torch.autograd.grad(own.sum(), policy.log_std, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(their.sum(), their_log_std, retain_graph=True)[0])
    (reached,) = torch.autograd.grad(distribution.entropy().sum(), policy.actor[0].weight, allow_unused=True)
    assert reached is None  # the features are a constant for the noise


def test_actions_over_many_matrices_have_the_covariance_of_the_density():
    """With the noise that training draws: within 5 standard errors, the two parts uncorrelated."""
    policy, count = build(), 50_000
    feature, distribution = policy.last_layer(torch.tensor([[0.3, -1.0, 0.7]], dtype=torch.float64).expand(count, 3))
    noise = draw_noise(TWO, np.random.default_rng(0), (count, feature.shape[1]))
    difference = (distribution.sample(torch.from_numpy(noise).double()) - distribution.mean).detach()
    expected = feature[0].square() @ policy.log_std.exp().square()
    found = difference.T @ difference / count
    assert ((found.diag() - expected).abs() < 5 * expected * math.sqrt(2 / count)).all()
    assert found[0, 1].abs() < 5 * expected.prod().sqrt() / math.sqrt(count)


# -------------------------------------------------------------------------------------------- noise kept for some steps


def residual(feature, difference):
    """How far `difference` (T,) is from feature (T, F) times one vector: T must exceed F."""
    return np.abs(feature @ np.linalg.lstsq(feature, difference, rcond=None)[0] - difference).max()


def test_a_matrix_is_kept_for_its_steps_and_is_then_another_one():
    """Of each instance its own; a rollout begins with fresh ones, though the last of the one before had steps left."""
    training = Training(
        "pendulum", PPO(num_envs=2, rollout_length=14), policy=MLP(**LINEAR, noise_steps=6), num_runs=2, num_threads=1
    )
    (shard,) = training.shards
    matrices = []
    for _ in range(2):
        rollout = collect(shard.env, shard.population, 14)
        feature = rollout.observation[:-1].numpy()
        difference = (rollout.action - rollout.distribution().mean).squeeze(-1).numpy()
        for row in range(4):
            for start, stop in ((0, 6), (6, 12)):
                part = feature[start:stop, row], difference[start:stop, row]
                assert residual(*part) < 1e-4
                matrices.append(np.linalg.lstsq(*part, rcond=None)[0])
            assert residual(feature[3:9, row], difference[3:9, row]) > 1e-2  # over the change
            assert residual(feature[10:, row], difference[10:, row]) > 1e-2
        shard.population.iteration += 1
    matrices = np.array(matrices)
    distance = np.abs(matrices[:, None] - matrices).max(-1)
    assert distance[~np.eye(len(distance), dtype=bool)].min() > 1e-2
    training.close()


def test_evaluation_keeps_a_matrix_too():
    """Longer than the blocks in which it draws independent noise; or for good."""
    env = make("pendulum", 2, [0])
    policy = MLP(**LINEAR, noise_steps=100).build(env.observation_space, env.action_space)
    population = Population(lambda: policy, env.observation_space, env.action_space, [0], {})
    choose, feature, difference = evaluation._Choice(env, population, greedy=False), [], []
    env.action_space.low[:], env.action_space.high[:] = -np.inf, np.inf  # nothing is clipped
    for _ in range(110):
        feature.append(env.observation.copy())
        mean = population.distribution(torch.from_numpy(env.observation).unsqueeze(0)).mean[0].numpy()
        action = choose()
        difference.append((action - mean).squeeze(-1))
        env.step(action)
    feature, difference = np.array(feature), np.array(difference)
    for row in range(2):
        assert residual(feature[:100, row], difference[:100, row]) < 1e-4
        assert residual(feature[:, row], difference[:, row]) > 1e-2
    policy.noise_steps, choose.step = 10**15, 0
    assert choose().shape == (2, 1)
    env.close()


def test_acting_by_hand_keeps_a_matrix_in_the_state():
    policy = build(noise_steps=3, **LINEAR).float()
    policy.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    observation = np.ones((4, 3), np.float32)
    torch.manual_seed(0)
    actions, state = [], None
    for _ in range(7):
        action, state = policy.act(observation, state)
        actions.append(action)
    for step in range(1, 7):
        assert (actions[step] == actions[step - 1]).all() == (step not in (3, 6))
    assert (actions[0][0] != actions[0][1]).all()
    assert policy.act(observation, None, greedy=True)[1] is None


# ---------------------------------------------------------------------------------------------------------- whole runs


def finish(training):
    """Every run's policy, and the metrics, after the training."""
    found = []
    while not training.finished:
        found.append(training.iterate())
    training.close()
    return [torch.cat([t.flatten() for t in policy.state_dict().values()]) for policy in training.policies()], found


@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_every_algorithm_learns_from_the_policy_that_acted(algorithm):
    """The first minibatch's log ratio is 0, runs stay finite, and the noise's deviations move."""
    training = Training(
        "lander_continuous", tiny(algorithm), policy=MLP((8,), log_std=-2.0, noise_steps=3), total_steps=64,
        num_runs=2, num_threads=1,
    )  # fmt: skip
    policies, metrics = finish(training)
    assert not training.failures
    for one in metrics:
        assert (one["first_log_ratio"] < 1e-5).all() and np.isfinite(one["entropy"]).all()
    log_std = training.policies()[0].log_std
    assert log_std.shape == (8, 2) and (log_std != -2).any()
    assert all(torch.isfinite(one).all() for one in policies)


def test_the_adaptive_mixture_takes_whitened_scores():
    """z and (z^2 - 1)/sqrt 2 of each row's own deviation, whose mean is 0 and whose variance is 1."""
    training = Training(
        "pendulum", PPO(num_envs=8, rollout_length=64), "adaptive_mixture", MLP((8,), noise_steps=1), total_steps=512,
        num_threads=1,
    )  # fmt: skip
    (shard,) = training.shards
    layer = collect(shard.env, shard.population, 64).last_layer(8)
    assert layer.score.shape == layer.score_free.shape == (64, 8, 1)
    for score in (layer.score, layer.score_free):
        assert score.mean().abs() < 5 / math.sqrt(512) and (score.var() - 1).abs() < 0.5
    finish(training)
    assert not training.failures


@pytest.mark.parametrize("environment", ["pendulum", "lander_continuous"])
def test_a_run_does_not_depend_on_the_others(environment):
    settings = {"policy": MLP((64,), noise_steps=4, log_std=-1.0), "total_steps": 192}
    algorithm = PPO(num_envs=4, rollout_length=16, num_epochs=1)
    alone = [finish(Training(environment, algorithm, seed=seed, num_threads=1, **settings))[0][0] for seed in (0, 1, 2)]
    for threads in (1, 2):
        together, _ = finish(Training(environment, algorithm, num_runs=3, num_threads=threads, **settings))
        assert all(torch.equal(one, two) for one, two in zip(alone, together, strict=True))
    (mapped,), _ = finish(Training(environment, algorithm, num_threads=1, vmap=True, **settings))
    assert torch.equal(mapped, alone[0])


def test_stop_and_resume_is_exact():
    """After a rollout whose last matrix had steps left."""

    def start():
        return Training(
            "pendulum", PPO(num_envs=4, rollout_length=14), policy=MLP((8,), noise_steps=4), total_steps=224,
            num_runs=2, num_threads=1,
        )  # fmt: skip

    whole, first, second = start(), start(), start()
    first.iterate()
    first.iterate()
    tensors, document = first.state_dict()
    second.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in tensors.items()}, document)
    for one, two in zip(finish(whole)[0], finish(second)[0], strict=True):
        assert torch.equal(one, two)
    assert first.iteration == 2 and second.iteration == 4


def test_evaluation_of_a_run_does_not_depend_on_the_others():
    policies = [MLP((8,), noise_steps=4).build(OBSERVATION, spaces.Box(-2, 2, (1,), np.float32)) for _ in range(2)]
    together = ridgeline.evaluate(policies, 3, seed=5, environment="pendulum").episode_returns
    alone = ridgeline.evaluate(policies[1], 3, seed=6, environment="pendulum").episode_returns
    greedy = ridgeline.evaluate(policies, 3, greedy=True, seed=5, environment="pendulum").episode_returns
    assert (together[1] == alone[0]).all() and (together != greedy).all()


def test_in_self_play_a_snapshot_keeps_its_matrix(monkeypatch):
    monkeypatch.setattr(
        ridgeline.training, "make",
        lambda environment, num_envs, seed, parameters: FakeEnv(OBSERVATION, TWO, num_envs, seed, num_agents=2),
    )  # fmt: skip

    def start(seeds):
        policy = MLP((8,), noise_steps=4)
        return Training("fake", tiny("ppo"), policy=policy, total_steps=96, seed=seeds, num_threads=1, vmap=True,
                        self_play=0.5)  # fmt: skip

    together, alone = start([0, 1]), start([1])
    env = together.shards[0].env
    kept = []
    for step in range(9):
        env.num_steps[:] = step
        kept.append(env._noise())
    assert kept[0].shape == (2, 2, 8, 2)
    for step in range(1, 9):
        assert torch.equal(kept[step], kept[step - 1]) == (step not in (4, 8))
    env.num_steps[:] = 0
    assert torch.equal(finish(together)[0][1], finish(alone)[0][0])


def test_what_cannot_be_is_refused(capsys):
    with pytest.raises(ValueError, match=r"noise_steps = 4 is for actions of a Box; of Discrete\(2\) leave it at 0"):
        Training("cartpole", tiny("ppo"), policy=MLP(noise_steps=4), num_threads=1)
    with pytest.raises(ValueError, match="noise_steps = -1; use 0 or"):
        MLP(noise_steps=-1)
    for policy in ("cnn", "gru"):
        assert cli.main(["train", "pendulum", "--policy", policy, "--noise-steps", "4"]) != 0
        assert "unknown flag --noise-steps: it belongs to the policy mlp" in capsys.readouterr().err


def test_muon_leaves_the_deviations_to_adam():
    """A matrix of numbers that is no map of anything; the layers' weights stay Muon's."""
    policy = MLP((8,), noise_steps=4)
    population = Population(lambda: policy.build(OBSERVATION, TWO), OBSERVATION, TWO, [0], {}, optimizer="muon")
    sizes = dict(zip(population.shapes, population.muon_matrices.tolist(), strict=True))
    assert sizes["log_std"] == [0, 0] and sizes["action_head.weight"] == [2, 8]


def test_without_it_nothing_has_changed():
    policy = MLP((8,)).build(OBSERVATION, TWO)
    assert policy.log_std.shape == (2,) and type(policy.distribution(torch.zeros(1, 3))) is DiagonalGaussian
