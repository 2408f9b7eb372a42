"""The pictures of docs/walk.md: `python benchmarks/walk_pictures.py measure|draw|table [NAME ...]`.

As `pictures.py`, whose command, curves and style these are; the figures are in walk_pictures.json. The learning curves
are of cartpole, 150,000 steps in batches of 64 x 64; a curve that two steps of the walk show is measured once.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pictures
from pictures import FOLDER, curve, draw_curves, palette, summarize

from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.vpg import VPG
from ridgeline.cloud_command import default_estimators
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.estimators.n_step import NStep
from ridgeline.gradient_cloud import Settings, measure
from ridgeline.policies import MLP
from ridgeline.training import Training

Figures = dict[str, Any]
STORE = FOLDER / "walk_pictures.json"
STEPS = 150_000
pictures.COLOURS = 128  # with fewer, two lines can come out alike


def main(functions: dict[str, Any], store: Path) -> None:
    """The command of `pictures` with these measure_NAME and draw_NAME."""
    own = {name: item for name, item in functions.items() if name.startswith(("measure_", "draw_"))}
    pictures.MEASURE = {name.removeprefix("measure_"): item for name, item in own.items() if name[0] == "m"}
    pictures.STORE = store
    for name, item in own.items():
        setattr(pictures, name, item)
    pictures.main()


# ------------------------------------------------------------------------------------------------------------ measuring


def clouds(estimators: dict[str, Any], **less: Any) -> Figures:
    """What `ridgeline cloud cartpole` measures, with these estimators: the policy is PPO's after 20,480 steps."""
    training = Training("cartpole", PPO(), GAE(), total_steps=20_000, num_threads=1)
    while not training.finished:
        training.iterate()
    policy = training.policies()[0]
    training.close()
    found = measure("cartpole", policy, MLP(), estimators, Settings(**less), num_threads=1)
    return {"clouds": {cloud.label: stored(cloud.numbers) for cloud in found.clouds}}


def stored(numbers: dict[str, list[float]]) -> Figures:
    names = ("cosine", "bias", "variance", "cosine_spread")
    return {name: [rounded(number) for number in numbers[name]] for name in names}


def known(name: str, label: str) -> Figures:
    """A learning curve that another picture has measured."""
    return {label: json.loads(STORE.read_text(encoding="utf-8"))[name]["curves"][label]}


def cloud_rows() -> Figures:
    return json.loads(STORE.read_text(encoding="utf-8"))["walk_cloud"]["clouds"]


def rounded(number: float) -> float | None:
    return float(f"{number:.4g}") if math.isfinite(number) else None


# ------------------------------------------------------------------------------------------------------------- the walk


def measure_walk_cloud() -> Figures:
    """Every step of the walk in one cloud: that of docs/gradient_cloud.md."""
    return clouds(default_estimators())


PLACES = {"learned baseline": (-20, 7), "GAE 0.999, 0.95": (-20, -11), "static mixture": (5, -9), "n = 16": (-32, -3)}


def draw_walk_cloud(figure: Any, figures: Figures) -> None:
    """All of them by bias and variance: the lower left corner is the truth itself."""
    panel = figure.subplots()
    rows = {label: row for label, row in figures["clouds"].items() if row["variance"][0]}
    for family, colour in zip(("n = ", "GAE 0.99, "), palette(2), strict=True):
        own = [row for label, row in rows.items() if label.startswith(family)]
        panel.plot([row["bias"][0] for row in own], [row["variance"][0] for row in own], color=colour, linewidth=1)
    for label, row in rows.items():
        colour = palette(3)[0 if label.startswith("n =") else 1 if label.startswith("GAE") else 2]
        panel.plot(row["bias"][0], row["variance"][0], "o", color=colour, markersize=4)
        place = PLACES.get(label, (5, 3))
        panel.annotate(label, (row["bias"][0], row["variance"][0]), place, textcoords="offset points", fontsize=7)
    panel.set(yscale="log", xlabel="bias: what more data does not mend", ylabel="variance: what more data mends")
    panel.set_title("gradients of one batch of 64 x 64 steps of cartpole")


def cosines(panel: Any, rows: Figures, labels: list[str], colours: list[str]) -> None:
    """Of single batches with the true gradient: the mean, and 10% to 90% of the batches."""
    for k, (label, colour) in enumerate(zip(labels, colours, strict=True)):
        row = rows[label]
        panel.plot(row["cosine_spread"], [-k, -k], color=colour, linewidth=5)
        panel.plot(row["cosine"][0], -k, "o", color=colour, markersize=6)
        number = f"{round(row['cosine'][0], 2) + 0.0:.2f}"
        panel.text(row["cosine"][0], -k + 0.14, number, fontsize=8, ha="center", va="bottom")
    panel.set_yticks(-np.arange(len(labels)), labels)
    panel.set(ylim=(-len(labels) + 0.5, 0.6), xlim=(min(-0.05, panel.get_xlim()[0]), 1.05))
    panel.axvline(1.0, color="black", linewidth=0.8)
    panel.set_xlabel("cosine with the true gradient")


def curves(arms: dict[str, tuple[Any, Any]]) -> Figures:
    """Learning curves of pairs of algorithm and estimator."""
    return {"curves": {label: curve("cartpole", *pair, STEPS) for label, pair in arms.items()}}


def draw_step(figure: Any, labels: list[str], figures: Figures, title: str) -> None:
    """Left the cloud, right the learning curves."""
    left, right = figure.subplots(1, 2)
    cosines(left, cloud_rows(), labels, palette(len(labels)))
    left.set_title("the noise of one batch, cartpole")
    draw_curves(right, figures["curves"], title)


def measure_walk_reward_to_go() -> Figures:
    """REINFORCE as it is written: no baseline of any kind, the batch's mean included."""
    plain = REINFORCE(64, 64, standardize_return=False)
    return curves(
        {
            "whole return": (plain, MonteCarlo(reward_to_go=False, baseline="none")),
            "reward-to-go": (plain, MonteCarlo(baseline="none")),
        }
    )


def draw_walk_reward_to_go(figure: Any, figures: Figures) -> None:
    draw_step(figure, ["whole return", "reward-to-go"], figures, "REINFORCE, cartpole")


def measure_walk_baseline() -> Figures:
    plain = REINFORCE(64, 64, standardize_return=False)
    return curves(
        {
            "reward-to-go, standardised": (REINFORCE(64, 64), MonteCarlo(baseline="none")),
            "learned baseline": (plain, MonteCarlo()),
        }
    )


def draw_walk_baseline(figure: Any, figures: Figures) -> None:
    labels = ["reward-to-go", "reward-to-go, standardised", "learned baseline"]
    both = known("walk_reward_to_go", "reward-to-go") | figures["curves"]
    draw_step(figure, labels, {"curves": both}, "REINFORCE, cartpole")


def measure_walk_n_step() -> Figures:
    """VPG, whose critic takes eight more steps per batch, where REINFORCE's takes one."""
    arms: dict[str, tuple[Any, Any]] = {f"n = {n}": (VPG(64, 64), NStep(num_steps=n)) for n in (1, 4, 16, 64)}
    return curves({"learned baseline": (VPG(64, 64), MonteCarlo()), **arms})


def draw_walk_n_step(figure: Any, figures: Figures) -> None:
    figure.set_size_inches(8, 6)
    panels = figure.subplot_mosaic([["numbers", "cosines"], ["curves", "curves"]])
    left, rows, steps = panels["numbers"], cloud_rows(), (1, 4, 16, 64)
    for name, colour in zip(("bias", "variance"), palette(2), strict=True):
        values = [rows[f"n = {n}"][name][0] for n in steps]
        left.plot(steps, values, "o-", color=colour, markersize=4, label=name)
        left.axhline(rows["learned baseline"][name][0], color=colour, linestyle="--", linewidth=1)
    left.set_xscale("log", base=2)
    left.set_xticks(steps, [str(n) for n in steps])
    left.set(xlabel="n; dashed: Monte Carlo with learned baseline", ylim=(0, 1), title="one batch, cartpole")
    left.legend(fontsize=8)
    labels = ["learned baseline", "n = 1", "n = 4", "n = 16", "n = 64"]
    cosines(panels["cosines"], rows, labels, palette(5))
    draw_curves(panels["curves"], figures["curves"], "VPG, cartpole")


def measure_walk_gae() -> Figures:
    arms = {f"GAE 0.99, {decay:g}": (VPG(64, 64), GAE(gae_lambda=decay)) for decay in (0.8, 0.95, 1.0)}
    return curves(arms)


def draw_walk_gae(figure: Any, figures: Figures) -> None:
    figure.set_size_inches(8, 6)
    panels = figure.subplot_mosaic([["numbers", "cosines"], ["curves", "curves"]])
    left, rows = panels["numbers"], cloud_rows()
    for (family, text), colour in zip({"n = ": "n steps", "GAE 0.99, ": "GAE, by λ"}.items(), palette(2), strict=True):
        own = {label.removeprefix(family): row for label, row in rows.items() if label.startswith(family)}
        x, y = ([row[name][0] for row in own.values()] for name in ("bias", "variance"))
        left.plot(x, y, "o-", color=colour, markersize=4, linewidth=1, label=text)
        for number, *place in zip(own, x, y, strict=True):
            left.annotate(number, place, (4, 3), textcoords="offset points", fontsize=8, color=colour)
    left.set(xlabel="bias", ylabel="variance", title="one batch, cartpole")
    left.legend(fontsize=8)
    labels = ["n = 4", "n = 16", "n = 64", "GAE 0.99, 0.8", "GAE 0.99, 0.95"]
    cosines(panels["cosines"], rows, labels, palette(5))
    panels["cosines"].set_xlim(0.8, 1.01)
    draw_curves(panels["curves"], known("walk_n_step", "n = 16") | figures["curves"], "VPG, cartpole")


def measure_walk_ppo() -> Figures:
    """The same batches: one step of the policy for each, and many with and without the clip."""
    return curves(
        {
            "PPO, 4 x 4 steps per batch": (PPO(64, 64), GAE()),
            "16 x 4 steps": (PPO(64, 64, num_epochs=16), GAE()),
            "16 x 4 steps, no clip": (PPO(64, 64, num_epochs=16, clip_coef=1e6), GAE()),
        }
    )


def draw_walk_ppo(figure: Any, figures: Figures) -> None:
    [vpg] = known("walk_gae", "GAE 0.99, 0.95").values()
    both = {"VPG, 1 step of the policy per batch": vpg, **figures["curves"]}
    draw_curves(figure.subplots(), both, "the same batches of cartpole, GAE(0.99, 0.95)")


STUDY = ["GAE (.99, .95)", "GAE (.995, .8)", "GAE (.998, .95)", "static mixture", "adaptive mixture"]


def measure_walk_mixture() -> Figures:
    """From the study's figures, which `benchmarks/estimators.py train` writes."""
    cells = [json.loads(line) for line in (FOLDER / "estimator_study.jsonl").read_text(encoding="utf-8").splitlines()]
    found: Figures = {"noisy_bandit": {}, "cartpole": {}}
    for cell in cells:
        if cell["task"] in found and cell["rollout_length"] == 64 and cell["estimator"] in STUDY:
            returns = np.array(cell["returns"], float)
            parts = np.stack([part.mean(1) for part in np.array_split(returns, 20, 1)], 1)
            steps = cell["steps"] / 20 * np.arange(1, 21)
            curve = {"steps": steps.tolist(), "episode_return": summarize(parts), "score": cell["score"]}
            found[cell["task"]][cell["estimator"]] = curve | {"commit": cell["commit"]}
    return found


def draw_walk_mixture(figure: Any, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    draw_curves(left, figures["noisy_bandit"], "PPO, noisy_bandit: 1 step ahead is enough")
    draw_curves(right, figures["cartpole"], "PPO, cartpole")


if __name__ == "__main__":
    main(globals(), STORE)
