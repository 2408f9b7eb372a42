"""The table of docs/environments.md and the pictures beside it: `python benchmarks/environments.py COMMAND [NAME ...]`.

    random     random play of the named environments, measured anew (default: all; a minute)
    train      the default configuration on the named environments that have no figure yet, --runs side by side for
               --steps each; --again trains those with one anew. Each finished one is a line in environments.jsonl, so
               that the command can be stopped and started again
    pictures   a sheet of pictures, docs/pictures/environments.png
    page       writes the page from the code and the figures (the three above do so at their end)

A figure of training is the mean over the runs of the mean return of each run's last 100 episodes, with a 95% interval
of the runs (Student's t).
"""

import argparse
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw

import ridgeline
from ridgeline import bench
from ridgeline.canvas import Canvas
from ridgeline.environments import make
from ridgeline.kernel import define
from ridgeline.population import PHASES
from ridgeline.random_play import first_episodes, random_action
from ridgeline.registration import FOLDER
from ridgeline.session import View
from ridgeline.vector import CompiledEnv

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "environments.jsonl"
PAGE = HERE.parent / "docs" / "environments.md"
SHEET = HERE.parent / "docs" / "pictures" / "environments.png"

# The largest mean return, or the best known: "optimum" is proved in the file's docstring or by a test, "scripted" is
# what a player of the tests reaches, "limit" cannot be passed.
BEST = {
    "acrobot": "unknown",
    "bandit": "1.55, optimum",
    "breakout": "432, optimum",
    "cartpole": "500, optimum",
    "cartpole_swingup": "426.5, scripted",
    "chaser": "1, optimum",
    "collector": "1, optimum",
    "connect_four": "0 (both sides)",
    "continuous_target": "1, optimum",
    "corridor": "-20, optimum",
    "delayed": "11.4, optimum",
    "economy": "0.75 per step, scripted",
    "freeway": "17.7, optimum",
    "key_to_door": "11.4, optimum",
    "lander": "287, scripted",
    "lander_continuous": "287, scripted",
    "matching_pennies": "0 (both sides)",
    "maze": "1, optimum",
    "memory": "1, optimum",
    "minatar_asterix": "unknown",
    "minatar_breakout": "unknown",
    "minatar_freeway": "92, limit",
    "minatar_seaquest": "unknown",
    "minatar_space_invaders": "unknown",
    "mountain_car": "unknown",
    "mountain_car_continuous": "100, limit",
    "noisy_bandit": "200, optimum",
    "password": "1, optimum",
    "pendulum": "unknown",
    "pong": "21, optimum",
    "pong_duel": "0 (both sides)",
    "random_walk": "0: nothing to decide",
    "reacher": "-15.3, scripted",
    "runner": "1, optimum",
    "short_corridor": "-11.66, optimum",
    "snake": "63, optimum",
    "space_invaders": "40, optimum",
    "spaces": "1, optimum",
    "squared": "1, optimum",
    "stochastic": "-16, optimum",
}
INTRODUCTION = """# The environments

Every environment is one file of `src/ridgeline/envs/`; its name links to it, and its docstring has the rules, the
source, and what is known of its optimum. `ridgeline watch` and `ridgeline play` show them moving;
[add_an_environment.md](add_an_environment.md) says how to write one, [adapters.md](adapters.md) how to use those of
others.

![a picture of each, after some random steps](pictures/environments.png)

Random play is uniform over the allowed actions, the mean return of first episodes. "Trained" is the default
configuration, which nothing was tuned for: the mean return of the last 100 episodes, over the runs, with a 95% interval
of the runs. *not learned* stands where that interval does not lie above random play: a finding, and often the question
that the environment asks. Where several agents share one policy, the return is that of one agent; against itself, a
game that one side loses is 0 however well it is played. The last column is the environment's share of the time of
that training's iterations, observations written; the rest is the policy's.

This page is made by `python benchmarks/environments.py page`; the figures by its other commands (`--help`).
"""


def figures() -> dict[str, dict[str, Any]]:
    """The newest figure of each kind and environment: {"random": {name: line}, "trained": {name: line}}."""
    found: dict[str, dict[str, Any]] = {"random": {}, "trained": {}}
    lines = FIGURES.read_text(encoding="utf-8").splitlines() if FIGURES.exists() else []
    for line in map(json.loads, lines):
        found[line["kind"]][line["environment"]] = line
    return found


def keep(line: dict[str, Any]) -> None:
    with FIGURES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_random(name: str, rows: int = 2000, max_steps: int = 12_000) -> dict[str, Any]:
    """Mean return and length of the first episode of each row, and the standard error of the former over instances."""
    agents = define(FOLDER / f"{name}.py").num_agents
    env = make(name, max(8, rows // agents), 1)
    first = first_episodes(env, max_steps, np.random.default_rng(0))
    by_instance = np.nanmean(first[:, 0].reshape(-1, agents), 1)
    return {
        "kind": "random", "environment": name, "mean": float(np.nanmean(first[:, 0])),
        "standard_error": float(by_instance.std(ddof=1) / math.sqrt(len(by_instance))),
        "length": float(np.nanmean(first[:, 1])), "episodes": int((~np.isnan(first[:, 0])).sum()),
    }  # fmt: skip


class Shares(View):
    """Seconds of each phase of the training."""

    def __init__(self):
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def update(self, metrics):
        for phase in PHASES:
            self.seconds[phase] += metrics[f"seconds_{phase}"]


def measure_trained(name: str, steps: int, runs: int, threads: int | None) -> dict[str, Any]:
    start, shares = time.perf_counter(), Shares()
    result = ridgeline.train(name, total_steps=steps, num_runs=runs, num_threads=threads, view=shares)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    return {
        "kind": "trained", "environment": name, "returns": result.episode_return, "steps": result.total_steps,
        "seconds": round(time.perf_counter() - start, 1), "failures": len(result.failures),
        "environment_share": round(shares.seconds["environment"] / sum(shares.seconds.values()), 4),
        "commit": commit.stdout.strip(), "machine": bench.machine(),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the table

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}  # 97.5%


def interval(returns: list[float]) -> tuple[float, float, float]:
    """Mean, and the 95% interval of the mean over runs."""
    count = len(returns)
    mean = float(np.mean(returns))
    freedom = max((key for key in STUDENT if key <= count - 1), default=0)
    half = STUDENT[freedom] * float(np.std(returns, ddof=1)) / math.sqrt(count) if freedom else math.inf
    return mean, mean - half, mean + half


def number(value: float) -> str:
    """Three digits, without an exponent."""
    if value == 0 or abs(value) < 5e-4:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shape(space: spaces.Space) -> str:
    if isinstance(space, spaces.Dict):
        return ", ".join(f"{key}: {shape(part)}" for key, part in space.spaces.items())
    if isinstance(space, spaces.Discrete):
        return f"1 of {space.n}"
    if isinstance(space, spaces.MultiDiscrete):
        return " and ".join(f"1 of {n}" for n in space.nvec)
    size = " x ".join(map(str, space.shape or (1,)))
    return size + (" bits" if isinstance(space, spaces.MultiBinary) else "")


def row(name: str, known: dict[str, dict[str, Any]]) -> str:
    definition = define(FOLDER / f"{name}.py", compile=False)
    title = str(definition.module.__doc__).split("\n", maxsplit=1)[0]
    question = title.partition(": ")[2].rstrip(".") or title
    agents = f"; {definition.num_agents} agents" if definition.num_agents > 1 else ""
    random = known["random"].get(name)
    trained = known["trained"].get(name)
    cells = [
        f"[`{name}`](../src/ridgeline/envs/{name}.py)", question[0].upper() + question[1:],
        shape(definition.observation_space), shape(definition.action_space) + agents,
        number(random["mean"]) if random else "not run", BEST[name],
    ]  # fmt: skip
    if trained is None or random is None:
        cells += ["not run", "not run"]
    else:
        returns = [value for value in trained["returns"] if value is not None]
        mean, low, high = interval(returns)
        failed = f", {trained['failures']} failed" if trained["failures"] else ""
        balanced = BEST[name].endswith(("(both sides)", "nothing to decide"))
        verdict = "" if balanced or low > random["mean"] + 2 * random["standard_error"] else "; *not learned*"
        cells.append(
            f"{number(mean)} ({number(low)} .. {number(high)}; {len(returns)} runs{failed}, "
            f"{trained['steps'] / 1e6:.3g} M steps{verdict})"
        )
        cells.append(f"{trained['environment_share']:.1%}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The text of docs/environments.md."""
    known = figures()
    head = (
        "| name | task | observation | action | random play | best known | trained, default configuration "
        "| share of an iteration |"
    )
    rows = [row(name, known) for name in ridgeline.names()]
    return INTRODUCTION + "\n" + "\n".join([head, "|---" * 8 + "|", *rows]) + "\n"


# ------------------------------------------------------------------------------------------------------------- pictures

TILE, COLUMNS, LABEL = 150, 7, 16


def picture(name: str, steps: int = 12) -> Image.Image:
    """One instance after some random steps, in a tile."""
    path = FOLDER / f"{name}.py"
    env = CompiledEnv(define(path), 1, 3)
    generator = np.random.default_rng(0)
    canvas = Canvas(*getattr(env.definition.module, "canvas_size", (480, 360)))
    for _ in range(steps):
        before = env.state.copy()
        step = env.step(random_action(env, generator))
        if step.terminated.any() or step.truncated.any():  # not the start of the next one
            env.state[:] = before
    env.draw(0, canvas)
    tile = Image.new("RGB", (TILE, TILE + LABEL), (255, 255, 255))
    image = Image.fromarray(canvas.pixels())
    image.thumbnail((TILE - 6, TILE - 6))
    tile.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    ImageDraw.Draw(tile).text((TILE // 2, TILE + LABEL // 2), name, fill=(40, 40, 40), anchor="mm")
    return tile


def draw_sheet() -> None:
    names = ridgeline.names()
    rows = math.ceil(len(names) / COLUMNS)
    sheet = Image.new("RGB", (TILE * COLUMNS, (TILE + LABEL) * rows), (255, 255, 255))
    for place, name in enumerate(names):
        sheet.paste(picture(name), (place % COLUMNS * TILE, place // COLUMNS * (TILE + LABEL)))
    sheet.quantize(128).save(SHEET, optimize=True)
    print(f"{SHEET.name}: {len(names)} pictures, {SHEET.stat().st_size // 1000} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("random", "train", "pictures", "page"))
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--again", action="store_true", help="train what has a figure, too")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(ridgeline.names())
    if unknown:
        parser.error(f"no such environment: {', '.join(sorted(unknown))}")
    for name in asked.names or ridgeline.names():
        if asked.command == "random":
            keep(measure_random(name))
        elif asked.command == "train" and (asked.again or name not in figures()["trained"]):
            try:
                keep(measure_trained(name, asked.steps, asked.runs, asked.threads))
            except Exception as error:  # one that fails does not stop the others
                print(f"{name}: {' '.join(str(error).split())[:300]}", flush=True)
    if asked.command == "pictures":
        draw_sheet()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
