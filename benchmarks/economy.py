"""The study of docs/economy.md: `python benchmarks/economy.py train|measure|draw|film|speed [--out RUN]`.

`train` trains the policies on one core, `measure` lets them and random policies live in worlds that training never saw
and writes economy.json beside this file, `draw` makes docs/pictures/economy.png of it, `film` docs/economy.gif, and
`speed` counts agent-steps per second. Without --out the run directory is runs/economy.

Every setting (all as in training, food growing half as fast from step CUT on, or wood) has the same seeds: until CUT
the worlds are the same to the bit. A figure's interval is the 95% bootstrap interval over worlds.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import ridgeline
from ridgeline import statistics
from ridgeline.algorithms.ppo import PPO
from ridgeline.canvas import Canvas
from ridgeline.environments import make
from ridgeline.estimators.gae import GAE
from ridgeline.film import write_gif
from ridgeline.observations import ACTION_MASK, random_allowed, unpack
from ridgeline.policies import MLP
from ridgeline.vector import EVALUATION

FOLDER = Path(__file__).resolve().parent
STORE, DOCS = FOLDER / "economy.json", FOLDER.parent / "docs"
AGENTS = 128
GOODS = ("food", "wood", "ore", "tool")
RUNS, TOTAL_STEPS = 2, 15_360  # steps of the worlds of each run, in each of which 128 agents act: 2.0 M agent-steps
WORLDS, STEPS, CUT, WINDOW = 6, 1000, 400, 25  # of each run; STEPS is the world's time limit
SETTINGS: dict[str, dict[str, float]] = {"": {}, "food": {"food_growth": 0.5}, "wood": {"wood_growth": 0.5}}
FEWEST = 5  # units that an agent must have produced to count in the shares


# ------------------------------------------------------------------------------------------------------------ training


def train(out: str) -> None:
    """Two runs on one core. The trade of each part of the training is in metrics.jsonl as episode_trades."""
    start = time.process_time()
    result = ridgeline.train(
        "economy",
        PPO(num_envs=4, rollout_length=64, num_epochs=3, num_minibatches=8, learning_rate=1e-3, entropy_coef=0.005),
        GAE(0.99, 0.95),
        MLP((64, 64), "relu"),
        total_steps=TOTAL_STEPS,
        num_runs=RUNS,
        num_threads=1,
        out=out,
    )
    print(f"{time.process_time() - start:.0f} CPU-seconds, {AGENTS * result.steps_per_second:,.0f} agent-steps/s")


# ----------------------------------------------------------------------------------------------------------- measuring


def random_policy(env: Any) -> Callable[[], np.ndarray]:
    generator = np.random.default_rng(0)
    return lambda: random_allowed(
        env.action_space, unpack(env.observation_space, env.observation)[ACTION_MASK], generator
    )


def trained_policy(env: Any, policy: Any) -> Callable[[], np.ndarray]:
    return lambda: policy.act(env.observation)[0]


def simulate(player: Callable[[Any], Callable[[], np.ndarray]], seed: int, change: dict[str, float]) -> dict[str, Any]:
    """WORLDS worlds of STEPS steps: value and volume of trade (W, parts, goods), and what became of the agents."""
    env: Any = make("economy", WORLDS, seed, EVALUATION)
    torch.manual_seed(seed)  # of the actions
    state, choose = env.state, player(env)
    value, volume = np.zeros((2, WORLDS, STEPS // WINDOW, len(GOODS)))
    produced, before = np.zeros(state.produced.shape), state.produced.copy()
    lives, steps_alive, deaths, wellbeing = np.zeros((4, WORLDS))
    net = np.zeros(produced.shape)  # units bought less units sold
    for step in range(STEPS - 1):  # the last one begins new worlds
        if step == CUT:
            env.parameters = env.parameters._replace(
                **{name: factor * getattr(env.parameters, name) for name, factor in change.items()}
            )
        result = env.step(choose())
        steps_alive += result.valid.reshape(WORLDS, -1).sum(1)
        wellbeing += result.reward.reshape(WORLDS, -1).sum(1)
        deaths += result.terminated.reshape(WORLDS, -1).sum(1)
        world, place = np.nonzero(np.arange(state.trade.shape[1]) < state.num_trades[:, None])
        _, _, good, price = state.trade[world, place].T
        np.add.at(value, (world, step // WINDOW, good), price)
        np.add.at(volume, (world, step // WINDOW, good), 1)
        if step >= CUT:
            lives += result.valid.reshape(WORLDS, -1).sum(1)
            new = state.produced - before
            produced += np.where(new >= 0, new, state.produced)  # a birth begins at 0
            buyer, seller = state.trade[world, place, :2].T
            np.add.at(net, (world, buyer, good), 1)
            np.add.at(net, (world, seller, good), -1)
        before = state.produced.copy()
    total = produced.sum(2, keepdims=True)
    share = np.where(total >= FEWEST, produced / np.maximum(total, 1), np.nan)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(2)
    env.close()
    return {
        "value": value, "volume": volume, "largest_share": share.max(2), "entropy": entropy,
        "bought": 100 * np.maximum(net[..., :2], 0).sum((1, 2)) / lives, "wellbeing": wellbeing / steps_alive,
        "deaths": 1000 * deaths / steps_alive, "produced": produced.sum((0, 1)),
    }  # fmt: skip


def mean_price(found: dict[str, Any], start: int, stop: int) -> np.ndarray:
    """The mean of the trades from step `start` to `stop`, (worlds, goods)."""
    part = slice(start // WINDOW, stop // WINDOW)
    return found["value"][:, part].sum(1) / np.maximum(found["volume"][:, part].sum(1), 1)


def measure(out: str) -> None:
    torch.set_num_threads(1)
    players: dict[str, list[Any]] = {
        "trained": [lambda env, p=policy: trained_policy(env, p) for policy in ridgeline.load(out).policies],
        "random": [random_policy] * RUNS,
    }
    figures: dict[str, Any] = {}
    for name, group in players.items():
        found = {
            setting: [simulate(player, 1000 + run, change) for run, player in enumerate(group)]
            for setting, change in SETTINGS.items()
        }
        figures[name] = describe(found)
        print(name, json.dumps({k: v for k, v in figures[name].items() if k not in ("prices", "shares")}, indent=1))
    figures["curve"] = curve(out)
    STORE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def describe(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures of one kind of policies: [mean, low, high] over worlds."""
    base = found[""]
    share = np.concatenate([one["largest_share"] for one in base])
    figures: dict[str, Any] = {
        "wellbeing": spread(np.concatenate([one["wellbeing"] for one in base])),
        "deaths_per_1000_steps": spread(np.concatenate([one["deaths"] for one in base])),
        "bought_per_100_steps": spread(np.concatenate([one["bought"] for one in base])),
        "largest_share": spread(np.nanmean(share, 1)),
        "entropy": spread(np.concatenate([np.nanmean(one["entropy"], 1) for one in base])),
        "shares": np.histogram(share[~np.isnan(share)], 16, (0.2, 1.0))[0].tolist(),
        "produced": np.sum([one["produced"] for one in base], 0).astype(int).tolist(),
        "prices": {},
        "rise": {},
    }
    for setting, runs in found.items():
        value, volume = (np.concatenate([one[key] for one in runs]).sum(0) for key in ("value", "volume"))
        figures["prices"][setting] = np.round(value / np.maximum(volume, 1), 3).tolist()
        if setting:
            after = np.concatenate([mean_price(one, CUT + 100, STEPS) for one in runs])
            paired = np.concatenate([mean_price(one, CUT + 100, STEPS) for one in base])
            ratio = after / paired
            figures["rise"][setting] = {good: spread(ratio[:, i] - 1) for i, good in enumerate(GOODS[:2])}
            figures["rise"][setting]["worlds"] = np.round(ratio[:, GOODS.index(setting)] - 1, 4).tolist()
    return figures


def spread(values: np.ndarray) -> list[float]:
    """[mean, low, high]: 95% bootstrap interval of the mean."""
    values = values[np.isfinite(values)]
    found = statistics.interval(statistics.mean, values[:, None])
    return [float(f"{float(number):.4g}") for number in (found.estimate, found.low, found.high)]


def curve(out: str) -> dict[str, list[float]]:
    """Episode means over training, of all runs."""
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "episode_trades" in line]
    return {
        key: [float(np.mean(np.array(line[key], float))) for line in lines]
        for key in ("steps", "episode_trades", "episode_length", "episode_return")
    }


# ------------------------------------------------------------------------------------------------------------- drawing


def draw(out: str) -> None:
    """docs/pictures/economy.png: prices, their rise, specialisation, trade over training."""
    figures = json.loads(STORE.read_text(encoding="utf-8"))
    figure = Figure((11, 7), layout="constrained")
    panels = figure.subplots(2, 3)
    steps = np.arange(0, STEPS, WINDOW) + WINDOW / 2
    colours = {"food": "#c9a400", "wood": "#8a5020"}
    for panel, name in zip(panels[:, 0], ("trained", "random"), strict=True):
        for good, colour in colours.items():
            for setting, style in (("", "-"), (good, "--")):
                prices = np.array(figures[name]["prices"][setting])[:, GOODS.index(good)]
                label = f"{good}, growing half as fast" if setting else good
                panel.plot(steps[1:], prices[1:], style, color=colour, label=label)
        panel.axvline(CUT, color="0.8", zorder=0)
        panel.set(title=f"{name} policies: price", xlabel="step", ylabel="coins", ylim=(0, 27))
    panels[0, 0].legend(fontsize=8)
    panel, shown = panels[0, 1], ("trained", "random")
    for place, (good, name) in enumerate((good, name) for good in colours for name in shown):
        found = figures[name]["rise"][good]
        worlds = 100 * np.array(found["worlds"])
        panel.plot(place + np.linspace(-0.2, 0.2, len(worlds)), worlds, ".", color="0.7")
        middle, low, high = 100 * np.array(found[good])
        panel.errorbar(place, middle, [[middle - low], [high - middle]], fmt="o", color=colours[good], capsize=4)
    panel.axhline(0, color="0.8", zorder=0)
    panel.set_xticks(range(4), [f"{good}\n{name}" for good in colours for name in shown])
    panel.set(title="rise of its price, step 500 on", ylabel="percent; a dot is a world")
    panel = panels[1, 1]
    edges = np.linspace(0.2, 1.0, 17)
    for name, colour in zip(shown, ("#356fb5", "0.6"), strict=True):
        counts = np.array(figures[name]["shares"])
        panel.stairs(counts / counts.sum(), edges, color=colour, fill=True, alpha=0.5, label=name)
    panel.set(title="specialisation", xlabel="largest share of one good in what an agent makes", ylabel="agents")
    panel.legend(fontsize=8)
    curve = figures["curve"]
    million = np.array(curve["steps"]) * AGENTS / 1e6
    for panel, key, title in (
        (panels[0, 2], "episode_trades", "trades in a life"),
        (panels[1, 2], "episode_length", "length of a life in steps"),
    ):
        panel.plot(million, curve[key], color="#356fb5")
        panel.set(title=f"training: {title}", xlabel="million agent-steps of each run", ylim=(0, None))
    (DOCS / "pictures").mkdir(exist_ok=True)
    figure.savefig(DOCS / "pictures" / "economy.png", dpi=80)


def film(out: str) -> None:
    """docs/economy.gif: the first run's policy in one world."""
    policy = ridgeline.load(out).policies[0]
    env: Any = make("economy", 1, 7, EVALUATION)
    choose = trained_policy(env, policy)
    frames = []
    for step in range(380):
        env.step(choose())
        if step >= 300:
            canvas = Canvas(605, 440)
            env.draw(0, canvas)
            frames.append(canvas.pixels())
    write_gif(DOCS / "economy.gif", frames, 8)


def speed(out: str) -> None:
    """Agent-steps per second on one core, random allowed actions of 64 worlds; the choice of actions is not counted."""
    env: Any = make("economy", 64, 0)
    choose, best = random_policy(env), 0.0
    for _ in range(20):
        actions = [choose()]
        env.step(actions[0])
    for _ in range(50):
        action = choose()
        start = time.perf_counter()
        env.step(action)
        best = max(best, env.num_rows / (time.perf_counter() - start))
    print(f"{best / 1e6:.2f} M agent-steps/s")


if __name__ == "__main__":
    commands = {"train": train, "measure": measure, "draw": draw, "film": film, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--out", default="runs/economy")
    arguments = parser.parse_args()
    commands[arguments.command](arguments.out)
