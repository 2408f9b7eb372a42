"""Training on some levels, playing on others: how much of what is learned is of the levels, how much of the game.

    python benchmarks/generalisation.py                        every game, 200 levels, 5 runs
    python benchmarks/generalisation.py maze --levels 20 200   one game, two numbers of levels
    python benchmarks/generalisation.py --draw                 the pictures of docs/procedural.md

Each training uses the default configuration on `--levels` levels; its policies then play with sampled actions on those
and on levels that no training saw. The figures go to generalisation.json beside this file, one entry for each game,
difficulty and number of levels, with 95% intervals over runs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

import ridgeline
from ridgeline import statistics
from ridgeline.bench import machine
from ridgeline.canvas import Canvas
from ridgeline.environments import make
from ridgeline.vector import EVALUATION

GAMES = ("maze", "runner", "chaser", "collector")
UNSEEN = 1_000_000  # the first level that no training sees
ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "generalisation.json"


def measure(game: str, levels: int, difficulty: int, runs: int, steps: int, episodes: int) -> dict:
    """Mean return on the levels of training and on unseen ones, each with its interval over runs."""
    chosen = {"num_levels": levels, "difficulty": difficulty}
    result = ridgeline.train(game, total_steps=steps, num_runs=runs, parameters=chosen, num_threads=1)
    entry = {"game": game, "difficulty": difficulty, "levels": levels, "runs": runs, "steps": steps,
             "episodes": episodes, "seconds": round(result.wall_seconds)}  # fmt: skip
    means = {}
    for where, parameters in (("seen", {}), ("unseen", {"num_levels": 0, "start_level": UNSEEN})):
        found = ridgeline.evaluate(result, episodes=episodes, parameters=parameters)
        means[where] = np.array(found.episode_return)
        entry[where] = interval(means[where])
    entry["gap"] = interval(means["seen"] - means["unseen"])
    return entry


def interval(scores: np.ndarray) -> list[float]:
    """[mean, low, high] over runs."""
    found = statistics.interval(statistics.mean, scores[:, None])
    return [round(float(number), 4) for number in (found.estimate, found.low, found.high)]


def store(entry: dict) -> None:
    """Replace the entry of the same game, difficulty and levels."""
    entries = json.loads(FIGURES.read_text())["entries"] if FIGURES.exists() else []
    names = ("game", "difficulty", "levels")
    entries = [one for one in entries if [one[name] for name in names] != [entry[name] for name in names]] + [entry]
    entries.sort(key=lambda one: (GAMES.index(one["game"]), one["difficulty"], one["levels"]))
    lines = ",\n".join("  " + json.dumps(one) for one in entries)
    FIGURES.write_text(f'{{"machine": {json.dumps(machine())}, "entries": [\n{lines}\n]}}\n')


def draw(game: str) -> Image.Image:
    """Sixteen levels: the first eight easy and hard ones, each as a person sees it."""
    pictures = []
    for difficulty in (0, 1):
        for level in range(8):
            parameters = {"num_levels": 1, "start_level": level, "difficulty": difficulty}
            env = make(game, 1, 0, EVALUATION, parameters)
            canvas = Canvas(*env.definition.module.canvas_size)  # type: ignore[attr-defined]
            env.draw(0, canvas)
            pictures.append(Image.fromarray(canvas.pixels()).resize((236, 236 * canvas.height // canvas.width)))
            env.close()
    width, height = pictures[0].size
    sheet = Image.new("RGB", (8 * width + 7 * 8, 2 * height + 8), (255, 255, 255))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, ((width + 8) * (place % 8), (height + 8) * (place // 8)))
    return sheet.quantize(64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("games", nargs="*", default=GAMES, metavar="GAME", help="by default all four")
    parser.add_argument("--levels", type=int, nargs="+", default=[200])
    parser.add_argument("--difficulty", type=int, default=0, choices=(0, 1))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of each run")
    parser.add_argument("--episodes", type=int, default=200, help="of each run, on either kind of level")
    parser.add_argument("--draw", action="store_true")
    asked = parser.parse_args()
    for game in asked.games:
        if asked.draw:
            draw(game).save(ROOT / "docs" / "pictures" / f"levels_{game}.png", optimize=True)
            continue
        for levels in asked.levels:
            entry = measure(game, levels, asked.difficulty, asked.runs, asked.steps, asked.episodes)
            store(entry)
            print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
