"""HumanoidStandup-v5 with REINFORCE and PPO: `benchmarks/humanoid_standup.py train FOLDER`, then `report FOLDER`.

`train` makes the run directories FOLDER/reinforce and FOLDER/ppo, or continues them where they are; it may be stopped
and called again. `report` evaluates the newest policies, 10 sampled episodes each and 10 with the most probable
actions, and writes humanoid_standup.json beside this file, the learning curves docs/humanoid_standup.png, and a film of
the best seed docs/humanoid_standup.gif (on a machine without a display: MUJOCO_GL=egl).

An episode has 1000 steps, never terminates, and pays 35 to 160 per step, so the critic's targets must be normalised
(PopArt, the default). Without learning: zero action 29,808; the untrained Gaussian with standard deviation 1, clipped
to the box, 38,890 +- 1,601.
"""

import argparse
import dataclasses
import json
import subprocess
from pathlib import Path

import numpy as np

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.evaluation import Player
from ridgeline.film import write_gif
from ridgeline.metrics import read_lines
from ridgeline.policies import MLP

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parent / "docs"
ENVIRONMENT = "HumanoidStandup-v5"
UNTRAINED = 38_890
EPISODES = 10  # of each seed, in the evaluation
FILM_STEPS, FILM_EVERY = 400, 4  # the beginning of an episode, 15 ms a step
CAMERA = {"trackbodyid": 1, "distance": 2.8, "elevation": -15.0}

# Two trunks of 64 and 64 tanh units. The actions' box is +-0.4, so exp(-1) is nearly all of it.
SETTINGS = {
    "reinforce": (
        REINFORCE(num_envs=2, rollout_length=1000, learning_rate=1e-2),  # two whole episodes, one gradient step
        MonteCarlo(),
        MLP(log_std=-1.0),
        500_000,
    ),
    "ppo": (
        PPO(num_envs=8, rollout_length=256, num_epochs=10, num_minibatches=32, learning_rate=3e-4, entropy_coef=0.0),
        GAE(gae_lambda=0.9),
        MLP(log_std=-2.0, observation_clip=10.0),
        400_000,
    ),
}


def train(folder: Path, names: list[str], num_runs: int, num_threads: int | None) -> None:
    """Train, or go on training, the algorithms `names`."""
    for name in names:
        algorithm, estimator, policy, steps = SETTINGS[name]
        if (folder / name).exists():
            ridgeline.train(resume=folder / name, num_threads=num_threads)
        else:
            ridgeline.train(
                ENVIRONMENT, algorithm, estimator, policy, total_steps=steps, num_runs=num_runs, out=folder / name,
                num_threads=num_threads,
            )  # fmt: skip


def report(folder: Path, names: list[str]) -> None:
    """Evaluate, draw and film."""
    file = FOLDER / "humanoid_standup.json"
    figures = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    best = (0.0, names[0], 0)
    for name in names:
        run = ridgeline.load(folder / name)
        returns, greedy = (
            np.array(ridgeline.evaluate(run, EPISODES, greedy=mode).episode_return) for mode in (False, True)
        )
        lines = read_lines(folder / name / "metrics.jsonl")
        figures[name] = {
            "steps": run.steps,
            "total_steps": run.config["total_steps"],
            "scores": [round(float(value)) for value in returns],
            "mean": round(float(returns.mean())),
            "sd": round(float(returns.std(ddof=1))),
            "greedy": [round(float(value)) for value in greedy],
            "commit": _commit(),
            "curve_steps": [line["steps"] for line in lines if None not in line["episode_return"]],
            "curve": [
                [round(x) for x in line["episode_return"]] for line in lines if None not in line["episode_return"]
            ],
        }
        print(f"{name}: {figures[name]['mean']:,} ± {figures[name]['sd']:,} at {run.steps:,} steps: {returns.round()}")
        print(f"by the most probable actions: {greedy.mean():,.0f}: {greedy.round()}")
        best = max(best, (float(returns.max()), name, int(returns.argmax())))
    file.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    draw(figures, DOCS / "humanoid_standup.png")
    film(folder / best[1], best[2], DOCS / "humanoid_standup.gif")


def draw(figures: dict, path: Path) -> None:
    """The learning curves: a line for each seed, their mean, and the evaluation of the final policies."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in (("ppo", "tab:blue"), ("reinforce", "tab:orange")):
        if name not in figures:
            continue
        one = figures[name]
        steps, curve = np.array(one["curve_steps"]), np.array(one["curve"])
        axes.plot(steps, curve, color=colour, alpha=0.3, linewidth=1)
        axes.plot(steps, curve.mean(1), color=colour, linewidth=2, label=f"{name}, last 100 training episodes")
        places = np.full(len(one["scores"]), one["steps"])
        axes.plot(places, one["scores"], "o", color=colour, markersize=4, label=f"{name}, evaluated at the end")
    axes.axhline(UNTRAINED, color="gray", linestyle="--", linewidth=1, label="untrained policy")
    axes.set(xlabel="environment steps of each seed", ylabel="episode return", title=ENVIRONMENT)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def film(directory: Path, index: int, path: Path) -> None:
    """The beginning of an episode of seed `index`, by its most probable actions."""
    run = dataclasses.replace(
        ridgeline.load(directory), parameters={"width": 320, "height": 240, "default_camera_config": CAMERA}
    )
    player = Player(run, index, greedy=True, seed=0)
    try:
        frames = []
        for step in range(FILM_STEPS):
            if step % FILM_EVERY == 0:
                frames.append(player.picture() & 0xF8)  # fewer colours, a smaller file
            player.advance()
        write_gif(path, frames, player.env.frames_per_second / FILM_EVERY)
    finally:
        player.env.close()
    print(f"{path}: {directory.name}, seed {index}, {path.stat().st_size / 1e6:.1f} MB")


def _commit() -> str:
    command = ["git", "-C", str(FOLDER), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "report"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="reinforce, ppo; default both")
    parser.add_argument("--runs", type=int, default=5, help="seeds")
    parser.add_argument("--threads", type=int, help="cores to train on; all if not given")
    options = parser.parse_args()
    if unknown := set(options.names) - set(SETTINGS):
        parser.error(f"no algorithm {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    names = options.names or list(SETTINGS)
    if options.command == "train":
        train(options.folder, names, options.runs, options.threads)
    else:
        report(options.folder, names)


if __name__ == "__main__":
    main()
