"""The pictures of the pages about algorithms: `python benchmarks/pictures.py measure|draw|table [NAME ...]`.

`measure` trains anew what a picture shows, keeps the figures in pictures.json beside this file, and draws; `draw` only
draws, from the figures that are there; `table` prints them as the pages quote them. Without a name: every picture.

A picture NAME is two functions, `measure_NAME() -> figures` and `draw_NAME(figure, figures)`, and becomes
docs/pictures/NAME.png. Unless its page says otherwise a figure is the interquartile mean over 8 runs, seeds 0 to 7,
and a band is the 95% interval of 2,000 bootstrap samples of the runs. A curve's return is the mean of the episodes that
ended in one of 25 equal parts of the training; where none ended, the value before stands.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.trpo import TRPO, line_search, natural_step
from ridgeline.algorithms.vpg import VPG
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.policies import MLP
from ridgeline.training import Training

FOLDER = Path(__file__).resolve().parent
STORE = FOLDER / "pictures.json"
PICTURES = FOLDER.parent / "docs" / "pictures"
WIDTH, DPI, COLOURS = 800, 100, 48  # of a PNG, which has a palette of its own
RUNS, PARTS, SAMPLES = 8, 25, 2000

Figures = dict[str, Any]


# ----------------------------------------------------------------------------------------------------------- measuring


def summarize(values: np.ndarray) -> list[list[float]]:
    """[interquartile mean, low, high] of every column of values (R, M)."""

    def iqm(values):
        cut = len(values) // 4
        return np.sort(values, axis=0)[cut : len(values) - cut].mean(0)

    generator = np.random.default_rng(0)
    samples = [iqm(values[generator.integers(0, len(values), len(values))]) for _ in range(SAMPLES)]
    columns = np.stack([iqm(values), *np.quantile(samples, [0.025, 0.975], axis=0)], 1)
    return [[float(f"{number:.5g}") for number in row] for row in columns]


class ExactKL:
    """An estimator that asks for the acting policy's distribution, so that it can be compared with the one learned."""

    def __init__(self, estimator: Any):
        self.estimator = estimator

    def __call__(self, rollout: Any, memory: dict) -> Any:
        self.rollout, self.old = rollout, rollout.distribution()
        return self.estimator(rollout, memory)

    def kl(self) -> np.ndarray:
        """E[KL(pi_old || pi)] over the rollout, (R,)."""
        self.rollout._distribution = None
        with torch.no_grad():
            kl = self.old.kl(self.rollout.distribution())
        return self.rollout.by_run(kl).double().mean((0, 2)).numpy()


def curve(
    environment: str, algorithm: Any, estimator: Any, total_steps: int, policy: Any = "mlp", kl: bool = False
) -> Figures:
    """Train RUNS runs: `steps` of each part's end, `episode_return` and, if asked for, `kl`, [middle, low, high]."""
    training = Training(
        environment, algorithm, estimator, policy, total_steps=total_steps, num_runs=RUNS, num_threads=1
    )  # fmt: skip
    [shard] = training.shards
    if kl:
        shard.estimator = ExactKL(shard.estimator)
    total, count, kls = np.zeros((RUNS, PARTS)), np.zeros((RUNS, PARTS)), np.zeros((RUNS, training.num_iterations))
    part_of = np.arange(training.num_iterations) * PARTS // training.num_iterations
    for iteration, part in enumerate(part_of):
        training.iterate()
        rollout = shard.env._rollout  # type: ignore[attr-defined]
        run = rollout.episode_row // shard.env.num_envs
        np.add.at(total[:, part], run, rollout.episode[:, 0])
        np.add.at(count[:, part], run, 1)
        if kl:
            kls[:, iteration] = shard.estimator.kl()
    training.close()
    assert not any(training.frozen), training.failures
    returns = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    for part in range(1, PARTS):
        returns[:, part] = np.where(np.isnan(returns[:, part]), returns[:, part - 1], returns[:, part])
    for part in reversed(range(PARTS - 1)):
        returns[:, part] = np.where(np.isnan(returns[:, part]), returns[:, part + 1], returns[:, part])
    steps = training.steps_per_iteration * np.searchsorted(part_of, np.arange(PARTS), "right")
    figures: Figures = {"steps": steps.tolist(), "episode_return": summarize(returns)}
    if kl:
        middle, low, high = np.quantile(kls, [0.5, 0.1, 0.9], axis=0)
        figures["kl"] = [[float(f"{number:.4g}") for number in row] for row in np.stack([middle, low, high], 1)]
    return figures


def updates(algorithm: Any, estimator: Any, total_steps: int, names: Sequence[str]) -> Figures:
    """What the loss reports at each update of an iteration, mean over iterations: name -> [middle, low, high] each."""
    training = Training("cartpole", algorithm, estimator, total_steps=total_steps, num_runs=RUNS, num_threads=1)
    [shard] = training.shards
    update, log = shard.population.update, []

    def recorded(*arguments):
        log.append(update(*arguments))
        return log[-1]

    shard.population.update = recorded  # type: ignore[method-assign]
    while not training.finished:
        training.iterate()
    training.close()
    found = {name: torch.stack([entry[name] for entry in log]).double().numpy() for name in names}
    return {
        name: summarize(values.reshape(training.num_iterations, -1, RUNS).mean(0).T) for name, values in found.items()
    }


# ------------------------------------------------------------------------------------------------------------- drawing


def band(panel: Any, x: Any, values: list[list[float]], colour: str, label: str | None = None) -> None:
    """A line with its band."""
    middle, low, high = np.array(values).T
    panel.plot(x, middle, color=colour, linewidth=1.6, label=label)
    panel.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def palette(count: int) -> list[str]:
    """Colours told apart by everybody (Okabe and Ito)."""
    return ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"][:count]


def draw_curves(panel: Any, curves: Figures, title: str, **legend: Any) -> None:
    """Learning curves over environment steps."""
    for (label, one), colour in zip(curves.items(), palette(len(curves)), strict=True):
        band(panel, np.array(one["steps"]) / 1000, one["episode_return"], colour, label)
    panel.set(xlabel="thousand environment steps of a run", ylabel="episode return", title=title)
    panel.legend(fontsize=8, **legend)


# ----------------------------------------------------------------------------------------------------------- REINFORCE


def measure_reinforce() -> Figures:
    """What an action is credited with, and what becomes of episodes that the rollout cuts."""
    estimators = {
        "whole return": MonteCarlo(reward_to_go=False, baseline="none"),
        "reward-to-go": MonteCarlo(baseline="none"),
        "reward-to-go less learned baseline": MonteCarlo(),
    }
    return {
        "curves": {
            label: curve("cartpole", REINFORCE(), estimator, 150_000) for label, estimator in estimators.items()
        },
        "cuts": {
            f"T = {length}, {label}": curve("cartpole", REINFORCE(4096 // length, length), estimators[key], 150_000)
            for label, key in (("no baseline", "reward-to-go"), ("learned", "reward-to-go less learned baseline"))
            for length in (16, 64, 256, 1024)
        },
    }


def draw_reinforce(figure: Figure, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    draw_curves(left, figures["curves"], "what an action is credited with", loc="upper left")
    for label, colour in zip(("no baseline", "learned"), palette(3)[1:], strict=True):
        cells = {key: one for key, one in figures["cuts"].items() if key.endswith(label)}
        lengths = [int(key.split(",")[0].removeprefix("T = ")) for key in cells]
        last = [one["episode_return"][-1] for one in cells.values()]
        band(right, lengths, last, colour, "learned baseline" if label == "learned" else label)
        right.plot(lengths, [row[0] for row in last], "o", color=colour, markersize=4)
    right.set_xscale("log", base=2)
    right.set_xticks(lengths, [str(length) for length in lengths])
    right.set(xlabel="rollout_length, with 4096 steps in a batch", title="return in the last 4% of the training")
    right.legend(fontsize=8)


# ----------------------------------------------------------------------------------------------------------------- VPG


def measure_vpg() -> Figures:
    """One step of the policy per batch against sixteen, on the same batches of 64 x 32 steps."""
    arms = {"VPG": VPG(), "PPO": PPO(64, 32)}
    return {"curves": {label: curve("acrobot", algorithm, GAE(), 120_000) for label, algorithm in arms.items()}}


def draw_vpg(figure: Figure, figures: Figures) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    draw_curves(left, figures["curves"], "by experience")
    for (label, per_batch), colour in zip({"VPG": 1, "PPO": 16}.items(), palette(2), strict=True):
        one = figures["curves"][label]
        band(right, np.array(one["steps"]) / 2048 * per_batch, one["episode_return"], colour, label)
    right.set(xscale="log", xlabel="gradient steps of the policy", title="the same, by gradient steps")


# ----------------------------------------------------------------------------------------------------------------- A2C


def measure_a2c() -> Figures:
    """The length of the rollout: with 16 instances, and with 128 steps in a batch."""
    estimator = GAE(gae_lambda=1.0)
    return {
        "curves": {f"T = {t}, N = 16": curve("cartpole", A2C(16, t), estimator, 60_000) for t in (4, 16, 64)},
        "batch": {
            f"T = {t}, N = {128 // t}": curve("cartpole", A2C(128 // t, t), estimator, 60_000) for t in (4, 16, 64)
        },
    }


def draw_a2c(figure: Figure, figures: Figures) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    draw_curves(left, figures["curves"], "16 instances: batches grow with T")
    draw_curves(right, figures["batch"], "128 steps in a batch")
    right.set_ylabel("")


# ---------------------------------------------------------------------------------------------------------------- TRPO


def measure_trpo() -> Figures:
    """How far each step moved the policy: bounded by TRPO, left to chance by a fixed learning rate."""
    policy = MLP(normalize_observation=False)  # a normaliser that learns would move the policy too
    arms: dict[str, Any] = {"TRPO, max_kl 0.01": TRPO()}
    for rate in (1e-3, 5e-3, 2e-2):
        arms[f"VPG, learning rate {rate:g}"] = VPG(32, 64, learning_rate=rate, anneal_learning_rate=False)
    return {
        "curves": {
            label: curve("cartpole", algorithm, GAE(), 50_000, policy, kl=True) for label, algorithm in arms.items()
        }
    }


def draw_trpo(figure: Figure, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    for one, colour in zip(figures["curves"].values(), palette(4), strict=True):
        band(left, np.arange(1, len(one["kl"]) + 1), one["kl"], colour)
    left.axhline(0.01, color="black", linestyle="--", linewidth=1)
    left.text(1, 0.0115, "max_kl", fontsize=8)
    left.set(yscale="log", ylim=(1e-6, 1), xlabel="iteration", ylabel="E[KL(old ‖ new)] of one step, nats")
    left.set_title("how far one step went: median, 10% to 90%", fontsize=10)
    draw_curves(right, figures["curves"], "what became of it")


def measure_trpo_step() -> Figures:
    """One step of TRPO, and one of fixed length along the gradient, from many policies of a bandit with three arms."""
    reward, rate, rows = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 0.25, []
    for i, j in [divmod(pair, 9) for pair in range(81)]:
        if i == 0 or j == 0 or i + j > 9:
            continue
        old = torch.tensor([i, j, 10 - i - j], dtype=torch.float64) / 10
        mean = (old * reward).sum()
        advantage = (reward - mean) / (old * (reward - mean) ** 2).sum().sqrt()

        def mean_kl(theta, old=old):
            return (old * (old.log() - theta["logits"].log_softmax(0))).sum()

        def measure(theta, advantage=advantage, mean_kl=mean_kl):
            return float((theta["logits"].softmax(0) * advantage).sum()), float(mean_kl(theta))

        theta, gradient = {"logits": old.log()}, old * advantage  # of E[ratio A] = sum of pi A, at pi_old
        settings = TRPO()
        step = natural_step(mean_kl, theta, gradient, settings.max_kl, settings.damping, 3)
        found = line_search(measure, theta, step, 0.0, settings.max_kl, settings.num_line_search_steps)
        assert found is not None
        plain = {"logits": theta["logits"] + rate * gradient}
        ends = [one["logits"].softmax(0).tolist() for one in (found[0], plain)]
        rows.append({"old": old.tolist(), "trpo": ends[0], "plain": ends[1], "kl": [found[2], float(mean_kl(plain))]})
    return {"steps": rows}


def draw_trpo_step(figure: Figure, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)

    def place(policy):
        return policy[1] + policy[2] / 2, policy[2] * 0.75**0.5

    left.plot([0, 1, 0.5, 0], [0, 0, 0.75**0.5, 0], color="gray", linewidth=1)
    for row in figures["steps"]:
        (x, y), trpo, plain = (place(row[key]) for key in ("old", "trpo", "plain"))
        left.plot([x, trpo[0]], [y, trpo[1]], color=palette(2)[0], linewidth=1.8)
        left.plot([x, plain[0]], [y, plain[1]], color=palette(2)[1], linewidth=1.8)
        left.plot(x, y, "o", color="black", markersize=3)
    left.set_aspect("equal")
    left.axis("off")
    for x, y, text in ((0, -0.07, "always reward 0"), (0.75, -0.07, "always 0.5"), (0.56, 0.85, "always 1")):
        left.text(x, y, text, fontsize=8)
    left.set_title("one step, from policies over three arms")
    for index, (label, colour) in enumerate(zip(("TRPO", "gradient, fixed rate"), palette(2), strict=True)):
        right.plot([row["old"][2] for row in figures["steps"]], [row["kl"][index] for row in figures["steps"]], "o",
                   color=colour, markersize=4, label=label)  # fmt: skip
    right.axhline(0.01, color="black", linestyle="--", linewidth=1)
    right.text(0.1, 0.0112, "max_kl", fontsize=8)
    right.set(yscale="log", xlabel="probability of the best arm before", title="KL(old ‖ new) of that step, nats")
    right.legend(fontsize=8)


# ----------------------------------------------------------------------------------------------------------------- PPO


def measure_ppo_objective() -> Figures:
    """The objective of one step as PPO's own loss computes it, over the ratio."""

    class Fixed(NamedTuple):
        log_ratio: torch.Tensor

        def log_prob(self, action):
            return self.log_ratio

        def entropy(self):
            return torch.zeros(1)

    ratio, found = np.linspace(0.5, 1.5, 101), {}
    zero = torch.zeros(1, dtype=torch.float64)
    coefficients = {name: torch.tensor(getattr(PPO(), name)) for name in ("clip_coef", "entropy_coef")}
    algorithm = PPO(normalize_advantage=False)
    for advantage in (1.0, -1.0):
        minibatch = {"observation": zero, "action": zero, "log_prob": zero, "advantage": zero + advantage}
        losses = [
            algorithm.loss(lambda _, x=x: (Fixed(zero + np.log(x)), zero), minibatch, coefficients)[1]["policy_loss"]
            for x in ratio
        ]
        found[f"advantage {advantage:+.0f}"] = [round(-float(loss), 6) for loss in losses]
    return {"ratio": ratio.round(4).tolist(), "objective": found}


def draw_ppo_objective(figure: Figure, figures: Figures) -> None:
    ratio = np.array(figures["ratio"])
    for panel, (label, objective), colour in zip(
        figure.subplots(1, 2), figures["objective"].items(), palette(2), strict=True
    ):
        sign = 1 if "+" in label else -1
        panel.plot(ratio, sign * ratio, color="gray", linewidth=1.2, linestyle=":", label="ratio x advantage")
        panel.plot(ratio, objective, color=colour, linewidth=2, label="PPO's objective")
        panel.axvspan(0.8, 1.2, color="black", alpha=0.06, linewidth=0)
        panel.set(xlabel="ratio π / π_old", title=label)
        panel.legend(fontsize=8)


def measure_ppo() -> Figures:
    """What the clip does within an iteration, and how often a rollout can be used."""
    names = ("approximate_kl", "clip_fraction")
    clips = {"clip_coef 0.1": 0.1, "clip_coef 0.2": 0.2, "clip_coef 0.4": 0.4, "no clip": 1e6}
    arms = {f"{epochs} epochs": PPO(num_epochs=epochs) for epochs in (1, 4, 10)}
    arms = {label.replace("1 epochs", "1 epoch"): algorithm for label, algorithm in arms.items()}
    arms["10 epochs, no clip"] = PPO(num_epochs=10, clip_coef=1e6)
    return {
        "updates": {
            label: updates(PPO(num_epochs=10, clip_coef=clip), GAE(), 60_000, names) for label, clip in clips.items()
        },
        "curves": {label: curve("cartpole", algorithm, GAE(), 100_000) for label, algorithm in arms.items()},
    }


def draw_ppo(figure: Figure, figures: Figures) -> None:
    figure.set_size_inches(WIDTH / DPI, 6.2)
    panels = figure.subplot_mosaic([["kl", "fraction"], ["curves", "curves"]])
    kl, fraction, curves = panels["kl"], panels["fraction"], panels["curves"]
    for (label, one), colour in zip(figures["updates"].items(), palette(4), strict=True):
        x = 1 + np.arange(len(one["approximate_kl"])) / 4
        band(kl, x, one["approximate_kl"], colour, label)
        if label != "no clip":
            band(fraction, x, one["clip_fraction"], colour, label)
    kl.set(xlabel="epoch", ylabel="approximate KL, nats", title="how far the policy is from the one that acted")
    kl.set(yscale="log", ylim=(1e-5, None))
    kl.legend(fontsize=8)
    fraction.set(xlabel="epoch", title="share of samples beyond the clip", ylim=(0, None))
    fraction.legend(fontsize=8)
    draw_curves(curves, figures["curves"], "passes over each rollout")


# ------------------------------------------------------------------------------------------------------------- command

MEASURE: dict[str, Callable[[], Figures]] = {
    name.removeprefix("measure_"): item for name, item in list(globals().items()) if name.startswith("measure_")
}


def draw(name: str, figures: Figures) -> Path:
    """docs/pictures/NAME.png."""
    figure = Figure(figsize=(WIDTH / DPI, 3.3), dpi=DPI, layout="constrained")
    globals()[f"draw_{name}"](figure, figures)
    for panel in figure.axes:
        panel.title.set_fontsize(10)
        panel.grid(alpha=0.25, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file)
    PICTURES.mkdir(exist_ok=True)
    Image.open(file).convert("RGB").quantize(COLOURS).save(PICTURES / f"{name}.png", optimize=True)
    return PICTURES / f"{name}.png"


def table(figures: Figures) -> list[str]:
    """The rows, in Markdown, of what every curve reached: its last part, and the mean over all parts."""
    rows = []
    for group in figures.values():
        for label, one in group.items() if isinstance(group, dict) else ():
            if "episode_return" in one:
                middle, low, high = one["episode_return"][-1]
                area = np.mean([row[0] for row in one["episode_return"]])
                rows.append(f"| {label} | {middle:.0f} ({low:.0f} to {high:.0f}) | {area:.0f} |")
    return rows


def load() -> dict[str, Figures]:
    return json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["measure", "draw", "table"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURE))
    arguments = parser.parse_args()
    names = arguments.names or list(MEASURE)
    if unknown := set(names) - set(MEASURE):
        parser.error(f"{', '.join(sorted(unknown))}: no such picture; there are {', '.join(MEASURE)}")
    for name in names:
        if arguments.command == "measure":
            commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True)
            figures = {"commit": commit.stdout.strip(), **MEASURE[name]()}
            lines = [f"{json.dumps(key)}: {json.dumps(one)}" for key, one in sorted({**load(), name: figures}.items())]
            STORE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        figures = load()[name]
        if arguments.command == "table":
            print(f"{name}, measured at {figures['commit']}", *table(figures), sep="\n")
        else:
            print(draw(name, figures), file=sys.stderr)


if __name__ == "__main__":
    main()
