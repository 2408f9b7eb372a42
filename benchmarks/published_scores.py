"""Published scores, reached again: `python benchmarks/published_scores.py [NAME ...]`.

A row is an environment, an algorithm with the settings of a publication, seeds, steps, and the published score. The
command trains the named rows anew (default: all, hours), prints each beside its reference, keeps the figures in
published_scores.json and writes docs/published_scores.md. The name `list` shows the names, the name `page` writes the
page from the figures that are there.

    z = (ours - theirs) / sqrt(s²/n + s0²/n0 + floor²)

s, n are our standard deviation over seeds and their number, s0, n0 the publication's. The floor is 10% of the published
mean where three seeds or fewer, or no standard deviation over seeds, were published; else 0. Reached: z > -2.

The native cartpole, acrobot, mountain_car and pendulum equal Gymnasium's step for step (tests/test_classic_control.py).
"""

import argparse
import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import ridgeline
from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.trpo import TRPO
from ridgeline.algorithms.vpg import VPG
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.policies import MLP

FOLDER = Path(__file__).resolve().parent
REFERENCES = json.loads((FOLDER / "published_references.json").read_text(encoding="utf-8"))
FIGURES = FOLDER / "published_scores.json"
PAGE = FOLDER.parent / "docs" / "published_scores.md"

NATIVE = ("cartpole", "acrobot", "mountain_car", "pendulum")  # twins of Gymnasium's
FIRST_SEED = 1000
EPISODES = 100  # of a greedy evaluation, each seed

_RAW = MLP(normalize_observation=False, normalize_value=False)
_PLAIN = MLP(normalize_observation=False)  # critic targets are normalised (PopArt), as everywhere but in CleanRL's rows


@dataclasses.dataclass(frozen=True)
class Row:
    """A configuration, and the reference that it is held against: a key of published_references.json."""

    environment: str
    reference: str
    algorithm: Any
    estimator: Any
    policy: Any = _PLAIN
    steps: int | None = None  # None: as many as the reference
    seeds: int = 10
    greedy: bool = False  # deterministic evaluation of the final policy; else the last 100 training episodes
    plays: str = ""  # where training changes the rewards: what the final policy plays instead, sampled, for its score
    differs: str = ""  # from the published settings

    @property
    def total_steps(self) -> int:
        return self.steps or REFERENCES[self.reference]["steps"]


def _glorot(layer: nn.Linear) -> None:
    """As TensorFlow's dense layers begin: uniform in ±√(6 / (inputs + outputs)), biases at 0."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


@dataclasses.dataclass(frozen=True)
class Begun(MLP):
    """A perceptron whose layers, the last ones too, begin otherwise than orthogonally."""

    begin: Callable[[nn.Linear], None] = nn.Linear.reset_parameters  # PyTorch's own: uniform in ±1 / √inputs

    def build(self, *spaces: Any, **settings: Any) -> Any:
        policy = super().build(*spaces, **settings)
        for module in policy.modules():
            if isinstance(module, nn.Linear):
                self.begin(module)
        return policy


# ---------------------------------------------------------------------------------------------------- the publications

# CleanRL's ppo.py: 4 x 128 steps, 4 epochs of 4 minibatches; no normaliser of any kind
_CLEANRL = PPO(
    num_envs=4, rollout_length=128, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4, value_clip_coef=0.2
)  # fmt: skip
_CLEANRL_GAE = GAE(truncation_as_termination=True)
# CleanRL's ppo_continuous_action.py
_CLEANRL_MUJOCO = PPO(
    num_envs=4, rollout_length=512, num_epochs=10, num_minibatches=32, learning_rate=3e-4, entropy_coef=0.0,
    value_clip_coef=0.2,
)  # fmt: skip
_CLEANRL_MUJOCO_ONE = dataclasses.replace(_CLEANRL_MUJOCO, num_envs=1, rollout_length=2048)
_CLEANRL_REWARDS = (
    "the critic's targets are normalised (PopArt) where CleanRL scales the rewards by the standard deviation of their "
    "discounted sum, a wrapper that has a gamma of its own"
)
# In CleanRL's units the standard deviation of Hopper's targets falls from 0.8 to 0.55 (one run, 210 rollouts); so its
# clip of the value, 0.2, and its weight of the squared error, 0.5, in units of that deviation:
_CLEANRL_UNITS = {"value_clip_coef": 0.36, "value_coef": 0.15}
_CLEANRL_CRITIC = "its value_clip_coef, 0.2, and value_coef, 0.5, in these units: 0.36 and 0.15"
_CLEANRL_MUJOCO_DIFFERS = f"{_CLEANRL_REWARDS}; 2048 steps of 4 instances together, not of one"

# Spinning Up: 4000 steps of one instance, gamma .99, lambda .97, (64, 32) tanh, standard deviation exp(-.5)
_SPINNING_UP_GAE = GAE(gae_lambda=0.97)
_SPINNING_UP_POLICY = Begun((64, 32), normalize_observation=False, log_std=-0.5, begin=_glorot)
_SPINNING_UP_DIFFERS = "4000 steps of 4 instances together, not of one; the critic's targets are normalised (PopArt)"

_SB3_NORMALISED = MLP()
_SB3_SDE = MLP(normalize_observation=False, noise_steps=4)  # use_sde, sde_sample_freq
_SB3_CHOICE = "the mean of our final policies, against one agent at its best checkpoint"
_SLM_RATE = "one learning rate, the actor's; the published critic has a larger one"
_SLM_CLIP = "the gradients of the two networks are clipped together"
_SB3_REWARDS = "the critic's targets are normalised (PopArt) where the zoo scales the rewards"


def _ppo(num_envs: int, rollout_length: int, minibatch: int, num_epochs: int, **settings: Any) -> PPO:
    """PPO with a constant learning rate and no entropy bonus unless asked for, and minibatches of `minibatch` rows."""
    parts = num_envs * rollout_length // minibatch
    settings = {"anneal_learning_rate": False, "entropy_coef": 0.0} | settings
    return PPO(num_envs, rollout_length, num_epochs, parts, **settings)


def _trpo(rollout_length: int, damping: float, num_value_updates: int, minibatch: int = 128) -> TRPO:
    """The SB3 zoo's TRPO: `num_value_updates` passes of the critic in minibatches."""
    return TRPO(
        2, rollout_length, damping=damping, num_conjugate_gradient_steps=15, num_value_updates=num_value_updates,
        num_minibatches=2 * rollout_length // minibatch, learning_rate=1e-3, anneal_learning_rate=False,
    )  # fmt: skip


def _a2c(num_envs: int, rollout_length: int = 5, **settings: Any) -> A2C:
    """The SB3 zoo's A2C: PyTorch's RMSprop, advantages as they are."""
    settings = {"learning_rate": 7e-4, "anneal_learning_rate": False, "entropy_coef": 0.0} | settings
    return A2C(num_envs, rollout_length, optimizer="rmsprop", normalize_advantage=False, **settings)


_A2C_PENDULUM = _a2c(8, 8, anneal_learning_rate=True, value_coef=0.4)
_A2C_PENDULUM_GAE = GAE(gamma=0.9, gae_lambda=0.9)
_A2C_PENDULUM_SDE = Begun(normalize_value=False, log_std=-2.0, noise_steps=8)
_A2C_LUNAR = _a2c(8, learning_rate=8.3e-4, anneal_learning_rate=True, entropy_coef=1e-5)


def _slm_a2c(num_envs: int, rollout_length: int, **settings: Any) -> A2C:
    """SLM-Lab's A2C: Adam, advantages and the critic's targets as they are."""
    settings = {"anneal_learning_rate": False} | settings
    return A2C(num_envs, rollout_length, normalize_advantage=False, **settings)


ROWS = {
    # ------------------------------------------------------------------------------------------------------- CartPole
    "reinforce-cartpole-slm": Row(
        "cartpole", "slm-reinforce-cartpole",
        REINFORCE(num_envs=4, rollout_length=512, learning_rate=2e-3, anneal_learning_rate=False),
        MonteCarlo(baseline="none"), MLP((128, 128), normalize_observation=False),
        differs="standardised where SLM-Lab centres; no entropy bonus; what is cut counts as the mean return so far",
    ),
    "a2c-cartpole-slm": Row(
        "cartpole", "slm-a2c-cartpole",
        _slm_a2c(4, 32, learning_rate=1e-3, critic_learning_rate=3e-3, entropy_coef=0.005), GAE(), _RAW,
        differs=f"{_SLM_CLIP}; a constant entropy bonus, the mean of the falling one",
    ),
    "a2c-cartpole-sb3": Row(
        "cartpole", "sb3-a2c-cartpole",
        _a2c(8), GAE(gae_lambda=1.0), _RAW, greedy=True, differs=_SB3_CHOICE,
    ),
    "trpo-cartpole-sb3": Row(
        "cartpole", "sb3-trpo-cartpole",
        _trpo(512, 1e-3, num_value_updates=20, minibatch=512), GAE(gae_lambda=0.98), greedy=True, differs=_SB3_CHOICE,
    ),
    "ppo-cartpole-cleanrl": Row("cartpole", "cleanrl-ppo-cartpole", _CLEANRL, _CLEANRL_GAE, _RAW),
    "ppo-cartpole-slm": Row(
        "cartpole", "slm-ppo-cartpole",
        _ppo(4, 256, 128, 15, learning_rate=5.9e-4, clip_coef=0.1312, entropy_coef=0.0074, value_coef=1.2),
        GAE(gamma=0.9769, gae_lambda=0.9112), differs=_SLM_RATE,
    ),
    "ppo-cartpole-sb3": Row(
        "cartpole", "sb3-ppo-cartpole",
        _ppo(8, 32, 256, 20, learning_rate=1e-3, anneal_learning_rate=True, anneal_clip_coef=True),
        GAE(gamma=0.98, gae_lambda=0.8), greedy=True, differs=_SB3_CHOICE,
    ),
    # -------------------------------------------------------------------------------------------------------- Acrobot
    "a2c-acrobot-slm": Row(
        "acrobot", "slm-a2c-acrobot",
        _slm_a2c(4, 32, learning_rate=1e-3, critic_learning_rate=3e-3, entropy_coef=0.005), GAE(), _RAW,
        differs=f"{_SLM_CLIP}; a constant entropy bonus, the mean of the falling one",
    ),
    "a2c-acrobot-sb3": Row(
        "acrobot", "sb3-a2c-acrobot",
        _a2c(16), GAE(gae_lambda=1.0), _SB3_NORMALISED, greedy=True, differs=f"{_SB3_REWARDS}; {_SB3_CHOICE}",
    ),
    "trpo-acrobot-sb3": Row(
        "acrobot", "sb3-trpo-acrobot",
        _trpo(1024, 0.1, num_value_updates=10),
        GAE(), _SB3_NORMALISED, greedy=True, differs=_SB3_CHOICE,
    ),
    "ppo-acrobot-cleanrl": Row("acrobot", "cleanrl-ppo-acrobot", _CLEANRL, _CLEANRL_GAE, _RAW),
    "ppo-acrobot-slm": Row(
        "acrobot", "slm-ppo-acrobot",
        _ppo(4, 256, 64, 10, learning_rate=3e-4, entropy_coef=0.01, value_coef=1.0), GAE(), differs=_SLM_RATE,
    ),
    "ppo-acrobot-sb3": Row(
        "acrobot", "sb3-ppo-acrobot",
        _ppo(16, 256, 64, 4, learning_rate=3e-4, value_coef=1.0), GAE(gae_lambda=0.94), _SB3_NORMALISED, greedy=True,
        differs=_SB3_CHOICE,
    ),
    # --------------------------------------------------------------------------------------------------- MountainCar
    "a2c-mountain-car-sb3": Row(
        "mountain_car", "sb3-a2c-mountain-car",
        _a2c(16), GAE(gae_lambda=1.0), _SB3_NORMALISED, greedy=True, differs=f"{_SB3_REWARDS}; {_SB3_CHOICE}",
    ),
    "trpo-mountain-car-sb3": Row(
        "mountain_car", "sb3-trpo-mountain-car",
        _trpo(1024, 0.1, num_value_updates=20),
        GAE(), _SB3_NORMALISED, greedy=True, differs=_SB3_CHOICE,
    ),
    "ppo-mountain-car-cleanrl": Row(
        "mountain_car", "cleanrl-ppo-mountain-car", _CLEANRL, _CLEANRL_GAE, _RAW,
        differs="nothing: these settings learn nothing here, and ours must not either",
    ),
    "ppo-mountain-car-sb3": Row(
        "mountain_car", "sb3-ppo-mountain-car",
        _ppo(16, 16, 64, 4, learning_rate=3e-4, value_coef=1.0), GAE(gae_lambda=0.98), _SB3_NORMALISED, greedy=True,
        differs=_SB3_CHOICE,
    ),
    # ------------------------------------------------------------------------------------------------------ Pendulum
    "a2c-pendulum-slm": Row(
        "pendulum", "slm-a2c-pendulum",
        _slm_a2c(4, 512, learning_rate=2e-3, entropy_coef=0.0, value_coef=2e-3), GAE(),
        MLP((256, 256), "relu", normalize_value=False),
        differs=f"2048 rows a step, as the settings say and the code does not; {_SLM_CLIP}, so the critic weighs less",
    ),
    "a2c-pendulum-sb3": Row(
        "scaled_rewards:Pendulum", "sb3-a2c-pendulum", _A2C_PENDULUM, _A2C_PENDULUM_GAE, _A2C_PENDULUM_SDE, greedy=True,
        plays="Pendulum-v1", differs=_SB3_CHOICE,
    ),
    "a2c-pendulum-sb3-sde-run": Row(
        "scaled_rewards:Pendulum", "sb3-run-a2c-pendulum-sde", _A2C_PENDULUM, _A2C_PENDULUM_GAE, _A2C_PENDULUM_SDE,
        greedy=True, plays="Pendulum-v1",
    ),
    "a2c-pendulum-sb3-run": Row(
        "scaled_rewards:Pendulum", "sb3-run-a2c-pendulum", _A2C_PENDULUM, _A2C_PENDULUM_GAE,
        Begun(normalize_value=False), seeds=30, greedy=True, plays="Pendulum-v1",
    ),
    "trpo-pendulum-sb3": Row(
        "pendulum", "sb3-trpo-pendulum",
        _trpo(1024, 0.1, num_value_updates=15), GAE(gamma=0.9), _SB3_SDE, seeds=5, greedy=True, differs=_SB3_CHOICE,
    ),
    "ppo-pendulum-slm": Row(
        "pendulum", "slm-ppo-pendulum", _ppo(4, 2048, 64, 10, learning_rate=3e-4, value_coef=1.0), GAE(),
        MLP((256, 256), "relu", normalize_observation=False), seeds=5,
    ),
    "ppo-pendulum-sb3": Row(
        "pendulum", "sb3-ppo-pendulum", _ppo(4, 1024, 64, 10, learning_rate=1e-3, value_coef=1.0), GAE(gamma=0.9),
        _SB3_SDE, greedy=True, differs=_SB3_CHOICE,
    ),
    # -------------------------------------------------------------------------------------------------- LunarLander
    "a2c-lunar-lander-slm": Row(
        "LunarLander-v3", "slm-a2c-lunar-lander",
        _slm_a2c(8, 5, learning_rate=8.3e-4, anneal_learning_rate=True, entropy_coef=1e-5), GAE(gamma=0.995),
        MLP((128, 128), normalize_observation=False, normalize_value=False), differs=_SLM_CLIP,
    ),
    "a2c-lunar-lander-sb3": Row(
        "LunarLander-v3", "sb3-a2c-lunar-lander",
        _A2C_LUNAR, GAE(gamma=0.995, gae_lambda=1.0), _RAW, greedy=True, differs=_SB3_CHOICE,
    ),
    "a2c-lunar-lander-sb3-run": Row(
        "LunarLander-v3", "sb3-run-a2c-lunar-lander",
        _A2C_LUNAR, GAE(gamma=0.995, gae_lambda=1.0), _RAW, greedy=True,
    ),
    "trpo-lunar-lander-sb3": Row(
        "LunarLander-v3", "sb3-trpo-lunar-lander",
        _trpo(512, 0.01, num_value_updates=15),
        GAE(gae_lambda=0.98), seeds=5, greedy=True, differs=_SB3_CHOICE,
    ),
    "ppo-lunar-lander-slm": Row(
        "LunarLander-v3", "slm-ppo-lunar-lander",
        _ppo(8, 512, 256, 15, learning_rate=5.65e-4, clip_coef=0.22, entropy_coef=1e-5, value_coef=2.28,
             max_grad_norm=1.0),
        GAE(gamma=0.9914, gae_lambda=0.9527), MLP((128, 128), normalize_observation=False), seeds=5,
        differs=f"{_SLM_RATE}; Adam for AdamW; the mean of the falling clip_coef",
    ),
    "ppo-lunar-lander-sb3": Row(
        "LunarLander-v3", "sb3-ppo-lunar-lander",
        _ppo(16, 1024, 64, 4, learning_rate=3e-4, entropy_coef=0.01, value_coef=1.0),
        GAE(gamma=0.999, gae_lambda=0.98), seeds=3, greedy=True, differs=_SB3_CHOICE,
    ),
    # -------------------------------------------------------------------------------------------------------- MuJoCo
    "ppo-inverted-pendulum-cleanrl": Row(
        "InvertedPendulum-v4", "cleanrl-ppo-inverted-pendulum", _CLEANRL_MUJOCO, _CLEANRL_GAE,
        MLP(observation_clip=10.0), seeds=3, differs=_CLEANRL_MUJOCO_DIFFERS,
    ),
    "ppo-hopper-cleanrl": Row(
        "scaled_rewards:Hopper", "cleanrl-ppo-hopper", _CLEANRL_MUJOCO_ONE, _CLEANRL_GAE,
        MLP(observation_clip=10.0, normalize_value=False), seeds=3, plays="Hopper-v4",
        differs="the final policy's episodes, for training's have other rewards",
    ),
    "ppo-hopper-popart": Row(
        "Hopper-v4", "cleanrl-ppo-hopper", dataclasses.replace(_CLEANRL_MUJOCO, **_CLEANRL_UNITS), _CLEANRL_GAE,
        MLP(observation_clip=10.0), seeds=3, differs=f"{_CLEANRL_MUJOCO_DIFFERS}; {_CLEANRL_CRITIC}",
    ),
    "ppo-hopper-popart-one": Row(
        "Hopper-v4", "cleanrl-ppo-hopper", dataclasses.replace(_CLEANRL_MUJOCO_ONE, **_CLEANRL_UNITS), _CLEANRL_GAE,
        MLP(observation_clip=10.0), seeds=3, differs=f"{_CLEANRL_REWARDS}; {_CLEANRL_CRITIC}",
    ),
    "vpg-hopper-spinningup": Row(
        "Hopper-v4", "spinningup-vpg-hopper",
        VPG(num_envs=4, rollout_length=1000, num_value_updates=80, learning_rate=3e-4, critic_learning_rate=1e-3,
            anneal_learning_rate=False, entropy_coef=0.0, max_grad_norm=1e9),
        _SPINNING_UP_GAE, _SPINNING_UP_POLICY, seeds=3, differs=_SPINNING_UP_DIFFERS,
    ),
    "trpo-hopper-spinningup": Row(
        "Hopper-v4", "spinningup-trpo-hopper",
        TRPO(num_envs=4, rollout_length=1000, num_value_updates=80, learning_rate=1e-3, anneal_learning_rate=False),
        _SPINNING_UP_GAE, _SPINNING_UP_POLICY, seeds=3, differs=_SPINNING_UP_DIFFERS,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------- measuring


def score(ours: np.ndarray, reference: dict[str, Any]) -> float:
    """z of our seeds' scores (n,) against a published mean."""
    mean, sd, seeds = reference["mean"], reference["sd"], reference["seeds"]
    floor = 0.1 * abs(mean) if sd is None or seeds <= 3 else 0.0
    variance = ours.var(ddof=1) / len(ours) + (0.0 if sd is None else sd**2 / seeds) + floor**2
    return float((ours.mean() - mean) / variance**0.5)


def measure(row: Row, num_threads: int | None = None) -> dict[str, Any]:
    """Train the row's seeds side by side: every seed's score, their mean, standard deviation and z; seconds of this
    process on all cores."""
    start = time.process_time()
    result = ridgeline.train(
        row.environment, row.algorithm, row.estimator, row.policy, total_steps=row.total_steps, num_runs=row.seeds,
        seed=FIRST_SEED, num_threads=num_threads,
    )  # fmt: skip
    if result.failures:
        raise RuntimeError(f"{row.environment}: frozen runs {result.failures}")
    training = np.array(result.episode_return)
    ours = training
    if row.greedy or row.plays:
        played = ridgeline.evaluate(result, EPISODES, row.greedy, environment=row.plays or None)
        ours = np.array(played.episode_return)
    return {
        "steps": result.total_steps,
        "seeds": row.seeds,
        "scores": [round(float(value), 2) for value in ours],
        "mean": round(float(ours.mean()), 2),
        "sd": round(float(ours.std(ddof=1)), 2),
        "training_mean": round(float(training.mean()), 2),
        "z": round(score(ours, REFERENCES[row.reference]), 2),
        "cpu_seconds": round(time.process_time() - start),
    }


def commit() -> str:
    """The commit whose figures these are."""
    command = ["git", "-C", str(FOLDER), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


# --------------------------------------------------------------------------------------------------------- the page


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def table(figures: dict[str, Any]) -> str:
    """The Markdown of the rows that have figures: scores; protocols and sources; what differs."""
    shown = {name: row for name, row in ROWS.items() if name in figures}
    head = ["row", "environment", "steps", "ours (seeds)", "reference (seeds)", "z", "protocol: ours", "source"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    sources = {}
    for name, row in shown.items():
        ours, theirs = figures[name], REFERENCES[row.reference]
        source = row.reference.partition("-")[0]
        sources[source] = f"- {source}: {theirs['protocol']}; {theirs['source']}."
        reference = f"{_number(theirs['mean'])} ± {_number(theirs['sd'])} ({theirs['seeds']})"
        if ours["steps"] < 0.97 * theirs["steps"]:
            reference += f" at {theirs['steps']:,}"
        environment = theirs["environment"] if row.environment in NATIVE else row.plays or row.environment
        if environment != theirs["environment"]:
            reference += f" on {theirs['environment']}"
        cells = [
            f"`{name}`", environment, f"{ours['steps']:,}",
            f"{_number(ours['mean'])} ± {_number(ours['sd'])} ({ours['seeds']})", reference, f"{ours['z']:.2f}",
            "greedy" if row.greedy else "sampled" if row.plays else "training", source,
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Protocols of the references, and where they stand:", "", *sources.values()]
    lines += ["", "What differs from the published settings:", ""]
    lines += [f"- `{name}`: {row.differs}." for name, row in shown.items() if row.differs]
    return "\n".join(lines) + "\n"


MARKS = ("<!-- begin -->\n", "<!-- end -->\n")  # around the tables in the page


def write_page(figures: dict[str, Any]) -> None:
    """Put the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    PAGE.write_text(before + MARKS[0] + table(figures) + MARKS[1] + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows, default all; or list; or page")
    parser.add_argument("--threads", type=int, help="cores to use; all if not given")
    options = parser.parse_args()
    names = options.names or list(ROWS)
    if names == ["list"]:
        print("\n".join(ROWS))
        return
    if unknown := set(names) - {*ROWS, "page"}:
        parser.error(f"no row {', '.join(sorted(unknown))}; the name list shows them")
    for name in names:
        if name == "page":
            continue
        figure = {**measure(ROWS[name], options.threads), "commit": commit()}
        theirs = REFERENCES[ROWS[name].reference]
        print(f"{name}: {figure['mean']} ± {figure['sd']} (reference {theirs['mean']}), z = {figure['z']}", flush=True)
        figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        figures[name] = figure
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    write_page(json.loads(FIGURES.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
