"""Learning curves of every estimator: `python benchmarks/estimators.py train|table|final|plot|pack|list FILE.jsonl`.

A cell is one environment, one estimator and one rollout length: 16 runs side by side, PPO with the settings below, 1024
rows per iteration whatever the length. Each cell is one JSON line of FILE, and what is there is not trained again: a
study can be stopped and continued. GAE's cells of one environment and length share populations, for runs do not
interact.

The return of a run at an iteration is the mean of the episodes that ended in it; where none ended the value before
stands, and before the first one the first to come; episodes of one length end together, so such curves have steps, and
rollout lengths compare less well than estimators. The score of a cell is the mean over iterations of the
interquartile mean (IQM) over runs of that return: the area under the learning curve. The final score is the same over
the last tenth. Intervals: 95% of 2,000 bootstrap samples of the runs.
"""

import argparse
import copy
import dataclasses
import json
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ridgeline import components
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import GAE
from ridgeline.rollout import Estimate, Rollout
from ridgeline.training import Training

ROWS = 1024  # per run and iteration: num_envs x rollout_length
GAMMAS = (0.9, 0.98, 0.99, 0.995, 0.999)
LAMBDAS = (0.5, 0.8, 0.9, 0.95, 1.0)
GROUP = 8  # cells of GAE in one population
FRESH = 1000  # first seed of the runs that judge the best pair of the grid: not those that chose it
SAMPLES = 2000
KEPT = 60  # iterations of each cell that are published
MIXTURE = ("effective_horizon", "effective_trace", "mixture_adapted")


class Task(NamedTuple):
    """An environment of the study, and how long it is trained on."""

    environment: str
    parameters: dict[str, Any]
    steps: int
    best: str  # highest mean return, for the table


TASKS = {
    "cartpole": Task("cartpole", {}, 60_000, "500"),
    "delayed_16": Task("delayed", {"delay": 16}, 120_000, "6.6"),
    "delayed_64": Task("delayed", {"delay": 64}, 120_000, "11.4"),
    "delayed_256": Task("delayed", {"delay": 256}, 400_000, "30.6"),
    "noisy_bandit": Task("noisy_bandit", {}, 60_000, "200"),
    "corridor": Task("corridor", {"length": 40}, 60_000, "-40"),
    "key_to_door": Task("key_to_door", {}, 120_000, "11.4"),
    "acrobot": Task("acrobot", {}, 200_000, "about -70"),
    # further ones, run once after the adaptive mixture's constants were frozen (commit 571b190)
    "pendulum": Task("pendulum", {}, 200_000, "about -150"),
    "breakout": Task("breakout", {}, 500_000, "432"),
    "pong": Task("pong", {}, 500_000, "21"),
    "delayed_16_hidden": Task("delayed", {"delay": 16, "visible": 0}, 120_000, "6.6"),
}


@dataclasses.dataclass(frozen=True)
class ExtraHeads:
    """The ablation: the critic also learns the heads of another estimator, the advantage is GAE of a head of its own.

    Whatever such heads do for the critic's features is there; what the other estimator makes of them is not.
    """

    heads: str = "static_mixture"
    gamma: float = 0.99
    gae_lambda: float = 0.95

    @property
    def other(self) -> Any:
        return components.find("estimator", self.heads)()

    @property
    def num_values(self) -> int:
        return self.other.num_values + 1

    def check(self, *given: Any) -> None:
        if hasattr(self.other, "check"):
            self.other.check(*given)

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        own, rest = copy.copy(rollout), copy.copy(rollout)
        own.value, rest.value = rollout.value[..., -1:], rollout.value[..., :-1]
        own.next_value, rest.next_value = rollout.next_value[..., -1:], rollout.next_value[..., :-1]
        theirs, memory = self.other(rest, memory)
        ours, _ = GAE(self.gamma, self.gae_lambda)(own, {})
        assert theirs.target is not None and ours.target is not None
        return Estimate(ours.advantage, torch.cat([theirs.target, ours.target], -1)), memory


# Name -> component and its arguments. What does not exist yet, or takes other arguments, is skipped with a message.
ESTIMATORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "block masked": ("block", {"variant": "masked"}),
    "block absorbing": ("block", {}),
    "P3O masked": ("block", {"variant": "masked", "puf": 0.5}),
    "P3O absorbing": ("block", {"puf": 0.5}),
    "GAE (.99, .95)": ("gae", {"gamma": 0.99, "gae_lambda": 0.95}),
    "GAE (.995, .8)": ("gae", {"gamma": 0.995, "gae_lambda": 0.8}),
    "GAE (.998, .95)": ("gae", {"gamma": 0.998, "gae_lambda": 0.95}),
    "GAE best of grid": ("gae", {}),  # the pair with the highest score of the grid, on fresh seeds
    "harmonic trace": ("harmonic_trace", {}),
    "fixed horizon": ("fixed_horizon", {}),
    "V-trace": ("v_trace", {}),
    "DAE": ("dae", {}),
    "static mixture": ("static_mixture", {}),
    "adaptive mixture": ("adaptive_mixture", {}),
    "adaptive nonnegative": ("adaptive_mixture", {"form": "nonnegative"}),
    "adaptive gated": ("adaptive_mixture", {"form": "gated"}),
    "GAE (.99, .95), static's heads": (ExtraHeads, {}),
    "GAE (.99, .95), adaptive's heads": (ExtraHeads, {"heads": "adaptive_mixture"}),
}
GRID = {f"grid ({g}, {y})": ("gae", {"gamma": g, "gae_lambda": y}) for g in GAMMAS for y in LAMBDAS}
BEST = "GAE best of grid"


def make_estimator(name: str, cells: list[dict], task: str, length: int) -> Any:
    """The estimator object of a name. Raises ValueError or TypeError where it cannot be made."""
    component, arguments = (ESTIMATORS | GRID)[name]
    if name == BEST:
        grid = [c for c in cells if c["task"] == task and c["rollout_length"] == length and c["estimator"] in GRID]
        if len(grid) < len(GRID):
            raise ValueError(f"{len(grid)} of {len(GRID)} cells of the grid are there; train them first")
        arguments = GRID[max(grid, key=lambda cell: cell["score"][0])["estimator"]][1]
    cls = components.find("estimator", component) if isinstance(component, str) else component
    return cls(**arguments)


def make_algorithm(length: int, **changes: Any) -> PPO:
    return PPO(
        num_envs=ROWS // length, rollout_length=length, num_epochs=4, num_minibatches=4, learning_rate=2.5e-3,
        anneal_learning_rate=True, clip_coef=0.2, entropy_coef=0.005, **changes,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- training


def train_cells(task: Task, algorithm: PPO, estimators: list[Any], num_runs: int, seed: int, threads: int, steps: int):
    """For C estimators of one class: returns of every run at every iteration (C, num_runs, I), the last metrics, and
    which runs were frozen."""
    training = Training(
        task.environment, algorithm, [one for one in estimators for _ in range(num_runs)], "mlp",
        total_steps=steps, seed=list(range(seed, seed + num_runs)) * len(estimators), parameters=task.parameters,
        num_threads=threads,
    )  # fmt: skip
    returns, before, metrics = [], np.zeros(training.num_runs, np.int64), {}
    try:
        while not training.finished and not all(training.frozen):
            metrics = training.iterate()
            returns.append(_newest(training, before))
            before = metrics["num_episodes"]
    finally:
        training.close()
    shape = len(estimators), num_runs
    last = {n: np.round(v, 5).reshape(shape).tolist() for n, v in metrics.items() if isinstance(v, np.ndarray)}
    frozen = np.array(training.frozen).reshape(shape)
    return _filled(np.array(returns).T).reshape(*shape, -1), last, frozen


def _newest(training: Training, before: np.ndarray) -> np.ndarray:
    """Mean return of each run's episodes that ended in the last iteration (the newest 100 at most); NaN if none."""
    found = np.full(training.num_runs, np.nan)
    ring = training.episodes.shape[1]
    for run, (start, stop) in enumerate(zip(before, training.num_episodes, strict=True)):
        if stop > start:
            places = np.arange(max(start, stop - ring), stop) % ring
            found[run] = training.episodes[run, places, 0].mean()
    return found


def _filled(returns: np.ndarray) -> np.ndarray:
    """(R, I) with each NaN replaced by the value before it, and at the beginning by the first to come."""
    filled = returns.copy()
    for row in filled:
        known = np.flatnonzero(~np.isnan(row))
        if len(known) == 0:
            raise ValueError("no episode ended; train longer")
        place = np.searchsorted(known, np.arange(len(row)), side="right") - 1
        row[:] = row[known[np.maximum(place, 0)]]
    return filled


# ----------------------------------------------------------------------------------------------------------- statistics


def iqm(values: np.ndarray) -> np.ndarray:
    """Mean over axis 0 without the lowest and the highest quarter (whole runs: 25% of their number, rounded down)."""
    cut = len(values) // 4
    return np.sort(values, axis=0)[cut : len(values) - cut].mean(0)


def scores(returns: np.ndarray, samples: int = SAMPLES) -> tuple[list[float], list[float]]:
    """(score, low, high) and (final score, low, high) of returns (R, I)."""
    tail = max(1, returns.shape[1] // 10)
    generator, found = np.random.default_rng(0), []
    for sample in range(samples + 1):
        runs = np.arange(len(returns)) if sample == 0 else generator.integers(0, len(returns), len(returns))
        curve = iqm(returns[runs])
        found.append((curve.mean(), curve[-tail:].mean()))
    found = np.array(found)
    interval = np.quantile(found[1:], [0.025, 0.975], axis=0)
    return tuple([round(float(x), 4) for x in (found[0, k], *interval[:, k])] for k in (0, 1))  # type: ignore


# ---------------------------------------------------------------------------------------------------------------- study


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def study(path: Path, options: argparse.Namespace) -> None:
    """Train the cells that are asked for and not in the file, task by task."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for task in options.tasks:
        for length in options.lengths:
            together = [name for name in options.estimators if name in GRID]
            groups = [together[i : i + GROUP] for i in range(0, len(together), GROUP)]
            groups += [[name] for name in options.estimators if name not in GRID]
            for group in sorted(groups, key=lambda names: names == [BEST]):
                _train_group(path, options, task, length, group)


def _train_group(path: Path, options: argparse.Namespace, task: str, length: int, names: list[str]) -> None:
    cells = read(path)
    here = {cell["estimator"] for cell in cells if cell["task"] == task and cell["rollout_length"] == length}
    names = [name for name in names if name not in here]
    steps = options.steps or TASKS[task].steps
    seed = FRESH if names == [BEST] else 0
    start, busy = time.perf_counter(), time.process_time()
    try:
        estimators = [make_estimator(name, cells, task, length) for name in names]
        if not estimators:
            return
        algorithm = make_algorithm(length, **options.changes)
        returns, last, frozen = train_cells(
            TASKS[task], algorithm, estimators, options.runs, seed, options.threads, steps
        )
    except (ValueError, TypeError) as error:
        print(f"{task}, T = {length}, {', '.join(names)}: skipped: {error}", flush=True)
        return
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    with path.open("a") as file:
        for k, name in enumerate(names):
            score, final = scores(returns[k])
            settings = {f.name: getattr(estimators[k], f.name) for f in dataclasses.fields(estimators[k])}
            cell = {
                "task": task, "rollout_length": length, "estimator": name, "settings": settings | options.changes,
                "score": score, "final": final, "steps": steps, "num_runs": options.runs, "seed": seed,
                "commit": _commit(),
                "seconds": round(seconds / len(names), 1), "core_seconds": round(busy / len(names), 1),
                "frozen": int(frozen[k].sum()),
                "last": {metric: value[k] for metric, value in last.items()},
                "returns": [[float(f"{x:.5g}") for x in run] for run in returns[k]],
            }  # fmt: skip
            file.write(json.dumps(cell) + "\n")
            low, high = score[1:]
            text = f"{score[0]:.5g} [{low:.5g}, {high:.5g}], final {final[0]:.5g}, {cell['seconds']} s"
            print(f"{task}, T = {length}, {name}: {text}, {cell['core_seconds']} s of a core", flush=True)


def pack(path: Path) -> None:
    """Rewrite the file as it is published: KEPT of each cell's iterations at most, none of the grid's, and of the last
    metrics those of the mixture; scores and intervals stay those of all iterations."""
    lines = []
    for cell in read(path):
        if cell["estimator"] in GRID:
            cell |= {"returns": [], "last": {}}
        elif "iterations" not in cell:
            count = len(cell["returns"][0])
            places = np.unique(np.linspace(0, count - 1, min(count, KEPT)).round().astype(int))
            cell["iterations"] = (places + 1).tolist()
            cell["returns"] = [[run[place] for place in places] for run in cell["returns"]]
            cell["last"] = {name: value for name, value in cell["last"].items() if name in MIXTURE}
        lines.append(json.dumps(cell))
    beside = path.with_suffix(".new")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.replace(path)


def _commit() -> str:
    """The commit, marked where the code differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "../src", Path(__file__).name)
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


# ------------------------------------------------------------------------------------------------------- table and plot


def table(cells: list[dict], what: str = "score") -> str:
    """Markdown: for each rollout length, estimators against tasks; the highest of each column is bold."""
    lines = []
    order = [*ESTIMATORS, *GRID]
    for length in sorted({cell["rollout_length"] for cell in cells}):
        found = {(c["estimator"], c["task"]): c for c in cells if c["rollout_length"] == length}
        tasks = [task for task in TASKS if any(key[1] == task for key in found)]
        names = [name for name in order if any(key[0] == name for key in found)]
        best = {task: max(found[n, task][what][0] for n in names if (n, task) in found) for task in tasks}
        heads = [f"{task} (best {TASKS[task].best})" for task in tasks]
        lines += ["", f"| T = {length} | " + " | ".join(heads) + " |", "|---" * (len(tasks) + 1) + "|"]
        for name in names:
            row = [_entry(found.get((name, task)), best[task], what) for task in tasks]
            lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines[1:])


def _entry(cell: dict | None, best: float, what: str) -> str:
    if cell is None:
        return ""
    value, low, high = cell[what]
    text = f"**{value:.4g}**" if value == best else f"{value:.4g}"
    pair = " ({gamma}, {gae_lambda})".format(**cell["settings"]) if cell["estimator"] == BEST else ""
    frozen = f", {cell['frozen']} frozen" if cell["frozen"] else ""
    return f"{text} [{low:.4g}, {high:.4g}]{pair}{frozen}"


def plot(cells: list[dict], folder: Path, names: list[str]) -> None:
    """One picture per rollout length, folder/curves_T.png: a panel per task, IQM against steps with its interval."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    for length in sorted({cell["rollout_length"] for cell in cells}):
        here = [cell for cell in cells if cell["rollout_length"] == length and cell["estimator"] in names]
        tasks = [task for task in TASKS if any(cell["task"] == task for cell in here)]
        if not tasks:
            continue
        columns = min(3, len(tasks))
        picture = Figure((5 * columns, 3.6 * -(-len(tasks) // columns)), dpi=120, layout="constrained")
        panels = picture.subplots(-(-len(tasks) // columns), columns, squeeze=False).ravel()
        shown = [name for name in names if any(cell["estimator"] == name for cell in here)]
        colour = {name: colormaps["tab20"](2 * k % 20 + k // 10 % 2) for k, name in enumerate(shown)}
        for panel, task in zip(panels, tasks, strict=False):
            for cell in sorted((c for c in here if c["task"] == task), key=lambda c: shown.index(c["estimator"])):
                _curve(panel, cell, colour[cell["estimator"]])
            panel.set_title(f"{task} (best {TASKS[task].best})")
            panel.grid(color="0.9")
            panel.locator_params(axis="x", nbins=5)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel("steps of each run")
        for panel in panels[len(tasks) :]:
            panel.set_axis_off()
        picture.suptitle(f"IQM of the return over runs, and 95% of bootstrap samples; rollouts of {length} steps")
        handles = [panels[0].plot([], [], color=colour[name], label=name)[0] for name in shown]
        picture.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        folder.mkdir(parents=True, exist_ok=True)
        picture.savefig(folder / f"curves_{length}.png")
        print(folder / f"curves_{length}.png")


def _curve(panel: Any, cell: dict, colour: Any) -> None:
    returns = np.array(cell["returns"])
    iterations = cell.get("iterations", range(1, returns.shape[1] + 1))  # a published file has some of them
    steps = ROWS * np.array(iterations)
    generator = np.random.default_rng(0)
    samples = [iqm(returns[generator.integers(0, len(returns), len(returns))]) for _ in range(200)]
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    panel.plot(steps, iqm(returns), color=colour, linewidth=1.5)
    panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


# -------------------------------------------------------------------------------------------------------------- command


def _chosen(text: str | None, known: list[str], default: list[str], kind: str) -> list[str]:
    """Names of a list with semicolons; a part of a name stands for all names that hold it; 'grid' for the grid."""
    if text is None:
        return default
    found = []
    for part in (part.strip() for part in text.split(";")):
        fits = [part] if part in known else [name for name in known if part.lower() in name.lower()]
        if not fits:
            raise SystemExit(f"no {kind} named {part!r}; choose from {'; '.join(known)}")
        found += [name for name in fits if name not in found]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "table", "final", "plot", "pack", "list"])
    parser.add_argument("file", type=Path, nargs="?", default=Path("study.jsonl"))
    parser.add_argument("--tasks", help="separated by semicolons; parts of names will do")
    parser.add_argument("--estimators", help="likewise; without it all but the grid")
    parser.add_argument("--lengths", default="64;16;256", help="rollout lengths")
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--steps", type=int, help="of each run, instead of the task's")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--value-coef", type=float, help="of PPO; take a file of its own")
    parser.add_argument("--max-grad-norm", type=float, help="likewise")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the pictures")
    options = parser.parse_args()
    options.tasks = _chosen(options.tasks, list(TASKS), list(TASKS), "task")
    named = options.estimators is not None
    options.estimators = _chosen(options.estimators, [*ESTIMATORS, *GRID], list(ESTIMATORS), "estimator")
    options.lengths = [int(length) for length in options.lengths.split(";")]
    if any(length < 1 or ROWS % length or ROWS // length < 2 for length in options.lengths):
        raise SystemExit(f"--lengths: use divisors of {ROWS}, {ROWS // 2} at most: rows are environments x length")
    given = {"value_coef": options.value_coef, "max_grad_norm": options.max_grad_norm}
    options.changes = {name: value for name, value in given.items() if value is not None}
    torch.set_num_threads(1)
    if options.command == "list":
        print("\n".join([*TASKS, "", *ESTIMATORS, "", *GRID]))
    elif options.command == "train":
        study(options.file, options)
    elif options.command == "pack":
        pack(options.file)
    else:
        cells = [c for c in read(options.file) if c["task"] in options.tasks]
        cells = [c for c in cells if c["rollout_length"] in options.lengths]
        if options.command == "plot":
            plot(cells, options.out, options.estimators)
        else:
            chosen = [c for c in cells if not named or c["estimator"] in options.estimators]
            print(table(chosen, "final" if options.command == "final" else "score"))


if __name__ == "__main__":
    main()
