"""benchmarks/published_scores.py: its arithmetic, its page, twins of what others run; and, slow, that we reach them."""

import dataclasses
import importlib.util
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ridgeline.adapters.gymnasium import GymnasiumEnv
from ridgeline.algorithms.ppo import PPO
from ridgeline.training import Training

ROOT = Path(__file__).parents[1]


def _load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


published = _load("published_scores")


def test_score_by_hand():
    """Three published seeds: the floor counts; ten: it does not; no standard deviation: the floor stands for it."""
    ours = np.array([90.0, 110.0])  # mean 100, variance 200
    assert published.score(ours, {"mean": 120, "sd": 6, "seeds": 3}) == pytest.approx(-20 / math.sqrt(100 + 12 + 144))
    assert published.score(ours, {"mean": 120, "sd": 6, "seeds": 10}) == pytest.approx(-20 / math.sqrt(100 + 3.6))
    assert published.score(ours, {"mean": -120, "sd": None, "seeds": 4}) == pytest.approx(220 / math.sqrt(100 + 144))


def test_every_row_names_a_reference_of_its_own_algorithm():
    for name, row in published.ROWS.items():
        reference = published.REFERENCES[row.reference]
        assert reference["algorithm"] == type(row.algorithm).__name__, name
        assert name.split("-")[0] == reference["algorithm"].lower()


def test_the_page_is_made_from_the_figures():
    figures = json.loads(published.FIGURES.read_text(encoding="utf-8"))
    page = published.PAGE.read_text(encoding="utf-8")
    begin, end = published.MARKS
    assert page.split(begin)[1].split(end)[0] == published.table(figures)


def test_the_figures_are_those_of_their_seeds():
    """Mean, standard deviation and z follow from the scores of the seeds."""
    for name, one in json.loads(published.FIGURES.read_text(encoding="utf-8")).items():
        scores = np.array(one["scores"])
        assert len(scores) == one["seeds"] and scores.mean() == pytest.approx(one["mean"], abs=0.01), name
        assert scores.std(ddof=1) == pytest.approx(one["sd"], abs=0.01)
        reference = published.REFERENCES[published.ROWS[name].reference]
        assert published.score(scores, reference) == pytest.approx(one["z"], abs=0.02), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least"),
    [
        # at the row's steps, its 5 or 10 seeds, 1000 and on
        ("reinforce-cartpole-slm", 450),
        ("a2c-cartpole-slm", 470),
        ("trpo-cartpole-sb3", 375),
        ("ppo-cartpole-sb3", 470),
        ("a2c-acrobot-slm", -95),
        ("trpo-pendulum-sb3", -200),
        ("ppo-lunar-lander-slm", 180),
    ],
)
def test_a_published_score_is_reached(name, least):
    """z > -2, and the mean over seeds at least `least`: where the reference is little known, z forgives 20%."""
    row = published.ROWS[name]
    if row.environment.startswith("LunarLander"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SWIG's: as an error, it crashes the import
            pytest.importorskip("Box2D")
    figure = published.measure(row)
    print(f"{name}: {figure['mean']} ± {figure['sd']}, z = {figure['z']}")
    assert figure["z"] > -2
    assert figure["mean"] >= least


def test_scaled_rewards_are_those_of_vec_normalize():
    """Of two runs of 8 instances each, over the end of their episodes."""
    env_util = pytest.importorskip("stable_baselines3.common.env_util")
    from stable_baselines3.common.vec_env import VecNormalize

    ours = _load("scaled_rewards").Pendulum(16)
    theirs = [
        VecNormalize(env_util.make_vec_env("Pendulum-v1", 8, seed=seed), norm_obs=False, gamma=0.9) for seed in (0, 8)
    ]
    ours.reset(seed=list(range(16)))
    for env in theirs:
        env.reset()
    generator = np.random.default_rng(0)
    for step in range(200):  # what follows a reset is drawn anew
        action = generator.uniform(-2, 2, (16, 1)).astype(np.float32)
        reward = ours.step(action)[1]
        expected = [env.step(own)[1] for env, own in zip(theirs, np.split(action, 2), strict=True)]
        np.testing.assert_allclose(reward, np.concatenate(expected), rtol=1e-5, err_msg=f"step {step}")
    assert (ours.total == 0).all() and all((env.returns == 0).all() for env in theirs)


OURS_OF_THEIRS = {
    "mlp_extractor.policy_net.0": "actor.0", "mlp_extractor.policy_net.2": "actor.1", "action_net": "action_head",
    "mlp_extractor.value_net.0": "critic.0", "mlp_extractor.value_net.2": "critic.1", "value_net": "value_head",
}  # fmt: skip


@pytest.mark.parametrize(("algorithm", "noise_steps"), [("A2C", 0), ("A2C", 4), ("PPO", 0)])
def test_algorithm_is_that_of_stable_baselines3(monkeypatch, algorithm, noise_steps):
    """From the same weights, noise and first states: 26 updates, over an end of all episodes, observations as they are;
    with independent noise, and with gSDE whose matrix changes in the middle of a rollout. PPO with three passes in four
    minibatches each, dealt alike, and an entropy bonus; advantages as they are, for theirs divide by n - 1.

    Stable-Baselines3's learning rate is one update ahead of ours, which its schedule is given here. Its critic's loss
    is the squared error, ours in PPO half of it.
    """
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.distributions import DiagGaussianDistribution
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    updates = 26
    steps, draws = 64 * updates, (2, 8, 64, 1) if noise_steps else (8, 8, 1)
    noise = np.random.default_rng(0).standard_normal((updates, *draws)).astype(np.float32)
    orders = np.array([np.random.default_rng(i).permutation(64) for i in range(3 * updates)])
    row = published.ROWS["a2c-pendulum-sb3-run"]
    extra, ours_algorithm = {}, row.algorithm
    if algorithm == "PPO":
        extra = {"batch_size": 16, "n_epochs": 3, "ent_coef": 0.01, "normalize_advantage": False}
        ours_algorithm = PPO(
            8, 8, num_epochs=3, num_minibatches=4, learning_rate=7e-4, entropy_coef=0.01, value_coef=0.8,
            normalize_advantage=False,
        )  # fmt: skip
    env = VecNormalize(make_vec_env("Pendulum-v1", 8, seed=0), norm_obs=False, gamma=0.9)
    theirs = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", env, lambda left: 7e-4 * (left + 64 / steps), n_steps=8, gamma=0.9, gae_lambda=0.9, vf_coef=0.4,
        policy_kwargs={"ortho_init": False, "log_std_init": -2.0 if noise_steps else 0.0}, seed=0, device="cpu",
        use_sde=bool(noise_steps), sde_sample_freq=noise_steps, **extra,
    )  # fmt: skip
    names = {
        f"{OURS_OF_THEIRS[module]}.{leaf}" if module else leaf: name
        for name in dict(theirs.policy.named_parameters())
        for module, _, leaf in [name.rpartition(".")]
    }

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(GymnasiumEnv, "_row_seeds", lambda self, seed: list(range(8)))
    policy = dataclasses.replace(row.policy, normalize_observation=False, noise_steps=noise_steps)
    ours = Training(row.environment, ours_algorithm, row.estimator, policy, total_steps=steps, num_threads=1)
    population = ours.shards[0].population
    for name, their_name in names.items():
        population.view(name)[0] = theirs.policy.get_parameter(their_name).detach()

    draws = iter(noise.reshape(-1, *noise.shape[2:]))
    monkeypatch.setattr(
        DiagGaussianDistribution, "sample",
        lambda self: self.distribution.mean + self.distribution.stddev * torch.from_numpy(next(draws)),
    )  # fmt: skip

    def reset_noise(num_envs):
        matrices = torch.from_numpy(noise[theirs._n_updates, theirs.rollout_buffer.pos // noise_steps])
        theirs.policy.action_dist.exploration_matrices = theirs.policy.log_std.detach().exp() * matrices

    monkeypatch.setattr(theirs.policy, "reset_noise", reset_noise)
    if algorithm == "PPO":
        dealt = iter(orders)
        monkeypatch.setattr(np.random, "permutation", lambda size: next(dealt))
    theirs.learn(steps)
    kept = noise_steps or 1
    monkeypatch.setattr(
        population, "noise",
        lambda length, rows: [torch.from_numpy(noise[ours.iteration, None, step // kept]) for step in range(length)],
    )  # fmt: skip
    in_ours = torch.from_numpy(orders % 8 * 8 + orders // 8)  # theirs lie instance by instance, ours step by step
    monkeypatch.setattr(
        population, "shuffles", lambda size, epochs: [in_ours[None, 3 * ours.iteration + i] for i in range(epochs)]
    )
    while not ours.finished:
        ours.iterate()
    ours.close()
    assert set(names) == set(population.shapes)
    for name, their_name in names.items():
        own, their = population.view(name)[0].numpy(), theirs.policy.get_parameter(their_name).detach().numpy()
        np.testing.assert_allclose(own, their, rtol=0, atol=2e-5, err_msg=name)
