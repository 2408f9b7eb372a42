"""A2C: its policy gradient is PPO's at ratio 1, its critic's term has no half, one update per rollout; it learns."""

import numpy as np
import pytest
import torch
from test_ppo import (
    SPACES,
    coefficients,
    enumerated,  # noqa: F401
    expected_gradient,
    gradient,
    make_minibatch,
    make_policy,
)

import ridgeline
from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.monte_carlo import reward_to_go
from ridgeline.training import Training


@pytest.mark.parametrize("action_space", SPACES)
@pytest.mark.parametrize("normalize", [False, True])
def test_the_policy_gradient_is_that_of_ppo_at_ratio_one(normalize, action_space):
    policy = make_policy(action_space)
    minibatch = make_minibatch(policy, action_space)
    settings = coefficients(entropy_coef=0.02)
    ours, metrics = A2C(normalize_advantage=normalize).loss(policy, minibatch, settings)
    theirs, _ = PPO(normalize_advantage=normalize).loss(policy, minibatch, settings)
    expected = gradient(theirs, policy)
    assert expected.abs().max() > 1e-3
    assert (gradient(ours, policy) - expected).abs().max() < 1e-12
    assert metrics["max_log_ratio"] == 0


def test_the_squared_error_counts_whole():
    """value_coef means c_v E[((V - target) / sigma)^2]: twice PPO's term. What is logged is half the square."""
    policy = make_policy(SPACES[0])
    minibatch = make_minibatch(policy, SPACES[0])
    base, _ = A2C().loss(policy, minibatch, coefficients())
    loss, metrics = A2C().loss(policy, minibatch, coefficients(value_coef=0.7, value_scale=2.0))
    _, value = policy(minibatch["observation"])
    square = ((value - minibatch["target"]) / 2).square().mean().item()
    assert (loss - base).item() == pytest.approx(0.7 * square)
    assert metrics["value_loss"].item() == pytest.approx(0.5 * square)


def test_the_expected_gradient_is_that_of_the_return(enumerated):  # noqa: F811
    logits, exact, state, action, reward, chance = enumerated
    last = torch.zeros(reward.shape, dtype=torch.bool)
    last[-1] = True
    to_go = reward_to_go(reward, torch.full_like(reward, float("nan")), last, torch.zeros_like(last), 1.0)
    found = expected_gradient(A2C(normalize_advantage=False), logits, state, action, to_go, chance)
    assert (found - exact).abs().max() < 1e-12


def test_one_update_per_rollout():
    training = Training("cartpole", A2C(num_envs=4), total_steps=100, num_runs=2, num_threads=1)
    assert training.steps_per_iteration == 32
    for _ in range(3):
        training.iterate()
    assert training.shards[0].population.update_count.tolist() == [3, 3]


@pytest.mark.slow
def test_learns_cartpole():
    """200,000 steps, four runs, mean of the last 100 training episodes."""
    result = ridgeline.train("cartpole", A2C(), "gae", total_steps=200_000, num_runs=4, seed=1000)
    assert np.mean(result.episode_return) >= 400 and not result.failures
