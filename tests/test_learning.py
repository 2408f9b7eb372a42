"""Do they learn? CartPole from scratch, four runs at a time; random play returns about 22, the most is 500."""

import pytest

from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.vpg import VPG
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.estimators.n_step import NStep
from ridgeline.training import Training


@pytest.mark.parametrize(
    ("algorithm", "estimator", "total_steps"),
    [
        pytest.param(REINFORCE(), MonteCarlo(), 100_000, marks=pytest.mark.slow),
        (REINFORCE(), MonteCarlo(learned_baseline=False), 100_000),
        pytest.param(VPG(), GAE(), 100_000, marks=pytest.mark.slow),
        pytest.param(PPO(num_envs=16, entropy_coef=0.005), GAE(), 60_000, marks=pytest.mark.slow),
        pytest.param(PPO(num_envs=16), NStep(num_steps=20), 100_000, marks=pytest.mark.slow),
        pytest.param(PPO(num_envs=16), MonteCarlo(), 100_000, marks=pytest.mark.slow),
    ],
)
def test_cartpole_is_learned(algorithm, estimator, total_steps):
    """The last 100 episodes: 400 on average over the runs, and 300 in each."""
    training = Training("cartpole", algorithm, estimator, total_steps=total_steps, num_runs=4, num_threads=1)
    while not training.finished:
        metrics = training.iterate()
    found = metrics["episode_return"]
    assert found.mean() > 400 and found.min() > 300, found
