"""What others build upon: the public names and how they are called. A change here is a change for every user.

If one of these fails on purpose, change the line here and write it down in CHANGELOG.md.
"""

import dataclasses
import inspect
import subprocess
import sys
from typing import get_type_hints

import pytest

import ridgeline
from ridgeline import components, distributions, evaluation, kernel, policies, population, rollout, session, vector

NAMES = ["Result", "Run", "Training", "evaluate", "iterate", "load", "make", "names", "train"]

SIGNATURES = {
    # the package
    ridgeline.make: "environment, num_envs, seed=0, purpose=1, parameters=None, processes=None, render=False",
    ridgeline.names: "",
    ridgeline.train: (
        "environment=None, algorithm=None, estimator=None, policy=None, *, total_steps=None, num_runs=None, seed=None, "
        "parameters=None, num_threads=None, self_play=None, out=None, resume=None, init=None, until=None, "
        "minutes=None, view=None, stop=None, started=None"
    ),
    ridgeline.load: "directory, environment=None, policy=None",
    ridgeline.evaluate: "run, episodes=100, greedy=False, seed=0, environment=None, parameters=None",
    ridgeline.iterate: "environment, **settings",
    ridgeline.Training: (
        "environment, algorithm='ppo', estimator='gae', policy='auto', *, total_steps=1000000, num_runs=None, seed=0, "
        "parameters=None, num_threads=None, vmap=None, self_play=None"
    ),
    ridgeline.Training.iterate: "self",
    ridgeline.Training.policies: "self",
    ridgeline.Training.close: "self",
    ridgeline.Result.make_env: "self, num_envs, seed=0, render=False, **parameters",
    ridgeline.Result.document: "self",
    evaluation.watch: (
        "run, index=0, greedy=False, seed=0, *, frames_per_second=None, gif=None, mp4=None, episodes=1, "
        "max_frames=None, out=None, environment=None"
    ),
    session.View.start: "self, training, directory",
    session.View.update: "self, metrics",
    session.View.message: "self, text",
    session.View.finish: "self, result",
    # for authors of environments
    kernel.state_dtype: "**fields",
    kernel.compiled: "function",
    kernel.uniform: "state",
    kernel.uniform_between: "state, low, high",
    kernel.random_integer: "state, count",
    kernel.standard_normal: "state",
    kernel.sine_cosine: "x",
    kernel.copy_row: "target, place, source, first, count",
    kernel.sample_action: "space, generator, count",
    kernel.define: f"path, compile={kernel.COMPILE}, parameters=None",
    vector.CompiledEnv: "definition, num_envs, seed=0, purpose=1, parameters=None",
    vector.VectorEnv.step: "self, action, out=None",
    # for authors of algorithms, estimators and policies
    rollout.collect: "env, population, rollout_length",
    rollout.reverse_scan: "delta, decay",
    rollout.summary: "population, rollout, estimate, log",
    rollout.Rollout.rows: "self, index, estimate",
    rollout.Rollout.everything: "self, estimate",
    population.Population.update: "self, loss, minibatch, active=None",
    population.Population.shuffles: "self, rows, num_epochs",
    population.Population.clock: "self, phase",
    population.Population.update_target_moments: "self, target, valid=None",
    population.Population.update_observation_moments: "self, rollout",
    policies.MLP.build: "self, observation_space, action_space, num_values=1",
    policies.CNN.build: "self, observation_space, action_space, num_values=1",
    policies.MLPPolicy.act: "self, observation, state=None, greedy=False",
    distributions.Categorical: "logits, mask=None",
    distributions.MultiCategorical: "logits, sizes, mask=None",
    distributions.DiagonalGaussian: "mean, log_std",
    distributions.make_distribution: "space, output, log_std, mask=None",
    distributions.num_outputs: "space",
}

FIELDS = {
    ridgeline.Result: (
        "policies trained_on parameters notes environment algorithm estimator num_runs total_steps wall_seconds "
        "startup_seconds steps_per_second episode_return run_dir stopped failures"
    ),
    ridgeline.Run: "policies trained_on parameters notes directory config steps skipped",
    evaluation.Evaluation: "environment greedy seeds episode_returns episode_lengths statistics notes",
    vector.Step: ("observation reward terminated truncated final_row final_observation episode_row episode valid"),
    rollout.Estimate: "advantage target target_weight metrics",
    rollout.Rollout: (
        "num_runs observation action log_prob value next_value reward terminated truncated episode_row episode "
        "log_ratio final population valid num_agents state cut_state"
    ),
}

FLAGS = {  # the settings of each component, in order; their values are defaults, their names are not to be changed
    ("algorithm", "ppo"): (
        "num_envs rollout_length num_epochs num_minibatches learning_rate critic_learning_rate anneal_learning_rate "
        "optimizer clip_coef anneal_clip_coef entropy_coef value_coef value_clip_coef max_grad_norm target_kl "
        "normalize_advantage recompute_advantage"
    ),
    ("algorithm", "vpg"): (
        "num_envs rollout_length num_value_updates learning_rate critic_learning_rate anneal_learning_rate optimizer "
        "entropy_coef value_coef max_grad_norm normalize_advantage"
    ),
    ("algorithm", "a2c"): (
        "num_envs rollout_length learning_rate critic_learning_rate anneal_learning_rate optimizer entropy_coef "
        "value_coef max_grad_norm normalize_advantage"
    ),
    ("algorithm", "trpo"): (
        "num_envs rollout_length max_kl damping num_conjugate_gradient_steps num_line_search_steps num_value_updates "
        "num_minibatches learning_rate anneal_learning_rate optimizer normalize_advantage"
    ),
    ("algorithm", "reinforce"): (
        "num_envs rollout_length learning_rate anneal_learning_rate optimizer value_coef max_grad_norm "
        "standardize_return normalize_by"
    ),
    ("estimator", "gae"): "gamma gae_lambda truncation_as_termination",
    ("estimator", "n_step"): "gamma num_steps",
    ("estimator", "v_trace"): "gamma gae_lambda max_ratio max_trace_ratio",
    ("estimator", "puffer_advantage"): "gamma gae_lambda max_ratio max_trace_ratio",
    ("estimator", "monte_carlo"): "gamma reward_to_go baseline constant_baseline",
    ("estimator", "harmonic_trace"): "gamma",
    ("estimator", "static_mixture"): "undiscounted",
    ("estimator", "adaptive_mixture"): "form",
    ("estimator", "fixed_horizon"): "max_horizon trace",
    ("estimator", "block"): "horizon variant puf",
    ("estimator", "average_reward"): "gae_lambda reward_rate_step variant value_centering",
    ("estimator", "dae"): "gamma corrected",
    ("policy", "mlp"): (
        "hidden_sizes activation shared_trunk normalize_observation observation_clip normalize_value log_std "
        "noise_steps"
    ),
    ("policy", "gru"): (
        "hidden_sizes state_size memory_steps encoder channels activation normalize_observation observation_clip "
        "normalize_value log_std"
    ),
    ("policy", "lstm"): (
        "hidden_sizes state_size memory_steps encoder channels activation normalize_observation observation_clip "
        "normalize_value log_std"
    ),
    ("policy", "cnn"): (
        "encoder channels hidden_sizes activation normalize_observation observation_clip normalize_value log_std"
    ),
}

ENVIRONMENTS = [
    "acrobot", "bandit", "breakout", "cartpole", "cartpole_swingup", "chaser", "collector", "connect_four",
    "continuous_target", "corridor", "delayed", "economy", "freeway", "key_to_door", "lander", "lander_continuous",
    "matching_pennies", "maze", "memory", "minatar_asterix", "minatar_breakout", "minatar_freeway",
    "minatar_seaquest", "minatar_space_invaders", "mountain_car", "mountain_car_continuous", "noisy_bandit",
    "password", "pendulum", "pong", "pong_duel", "random_walk", "reacher", "runner", "short_corridor", "snake",
    "space_invaders", "spaces", "squared", "stochastic",
]  # fmt: skip


def signature(item) -> str:
    """`a, b=0, *, c=None`, without annotations."""
    found = inspect.signature(getattr(item, "py_func", item))
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))[1:-1]


def test_names():
    assert sorted(ridgeline.__all__) == NAMES
    assert dir(ridgeline) == sorted([*NAMES, "__version__"])
    for name in NAMES:
        assert getattr(ridgeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'; it has Result, Run, Training, evaluate"):
        _ = ridgeline.trian


def test_environments():
    assert ridgeline.names() == ENVIRONMENTS


@pytest.mark.parametrize("item", SIGNATURES, ids=lambda item: getattr(item, "__qualname__", str(item)))
def test_signature(item):
    assert signature(item) == SIGNATURES[item]


@pytest.mark.parametrize("item", FIELDS, ids=lambda item: item.__name__)
def test_fields(item):
    fields = () if hasattr(item, "_fields") else dataclasses.fields(item)
    names = item._fields if hasattr(item, "_fields") else [field.name for field in fields if field.init]
    assert " ".join(names) == FIELDS[item]


@pytest.mark.parametrize("kind, name", FLAGS)
def test_flags(kind, name):
    cls = components.find(kind, name)
    assert " ".join(field.name for field in dataclasses.fields(cls)) == FLAGS[kind, name]
    assert get_type_hints(cls), "flags need types"


def test_every_component_is_here():
    assert sorted(FLAGS) == sorted((kind, name) for kind in components.METHODS for name in components.names(kind))


def test_importing_the_package_is_cheap():
    """Its names are imported when they are used: `ridgeline list` and errors in arguments need no PyTorch."""
    code = "import ridgeline, sys; print(len(sys.modules.keys() & {'torch', 'numba', 'numpy', 'gymnasium'}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"
