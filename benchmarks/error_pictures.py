"""The pictures of docs/tutorial_errors.md: `python benchmarks/error_pictures.py measure|draw [NAME ...]`.

As `walk_pictures.py`; the figures are in error_pictures.json. What learns is a table, one number per state and action,
so that what fails is the formula and neither a network nor an optimiser. 16 runs of 16 instances, 32 steps at a time.

The walk of these pictures: places 0 to 6, start at 3, left or right, 1 step in 10 slips the other way. Reward 1 per
step; the episode terminates beyond either end and is truncated after 100 steps. The arms: 4 states, 4 arms, reward 1
for the arm of the state's number, with noise of standard deviation 1; a new state in every step, truncated after 20.
"""

from typing import Any

import numpy as np
import torch
from pictures import FOLDER, band, palette, summarize
from walk_pictures import Figures, cosines, main, rounded

from ridgeline import reproduce
from ridgeline.estimators.block import block_target
from ridgeline.estimators.gae import generalized_advantage

RUNS, INSTANCES, LENGTH, ITERATIONS = 16, 16, 32, 60
PLACES, START, LIMIT, SLIP = 7, 3, 100, 0.1
GAMMA, LAMBDA, HORIZON = 0.99, 0.95, 16


def walk(generator: np.random.Generator, place: np.ndarray, action: np.ndarray):
    """Reward, next place, terminated."""
    right = (action == 1) ^ (generator.random(place.shape) < SLIP)
    place = place + np.where(right, 1, -1)
    return np.ones(place.shape), place, (place < 0) | (place >= PLACES)


def arms(generator: np.random.Generator, place: np.ndarray, action: np.ndarray):
    reward = (action == place) + generator.standard_normal(place.shape)
    return reward, generator.integers(0, 4, place.shape), np.zeros(place.shape, bool)


TASKS = {"walk": (walk, PLACES, 2, START, LIMIT), "arms": (arms, 4, 4, 0, 20)}


class Table:
    """R runs of a softmax policy and a critic of `heads` predictions per state; `advance` is one iteration."""

    def __init__(self, task: str, wrong: str, runs: int, seed: int = 0):
        self.step, self.states, self.actions, self.start, self.limit = TASKS[task]
        self.wrong, self.runs, self.generator = wrong, runs, np.random.default_rng(seed)
        heads = HORIZON if wrong.startswith("block") else 1
        self.preference, self.value = np.zeros((runs, self.states, self.actions)), np.zeros((runs, self.states, heads))
        self.place = np.full((runs, INSTANCES), self.start)
        self.age, self.total = np.zeros(self.place.shape, int), np.zeros(self.place.shape)
        self.row = np.arange(runs)[:, None]

    def policy(self) -> np.ndarray:
        weight = np.exp(self.preference - self.preference.max(-1, keepdims=True))
        return weight / weight.sum(-1, keepdims=True)

    def collect(self) -> dict[str, Any]:
        """LENGTH steps, name -> (T, R, N), and the returns of the episodes that ended."""
        policy, steps, ended = self.policy(), [], []
        for _ in range(LENGTH):
            place, chance = self.place, policy[self.row, self.place]
            drawn = (chance.cumsum(-1)[..., :-1] <= self.generator.random(place.shape)[..., None]).sum(-1)
            action = chance.argmax(-1) if self.wrong == "argmax" else drawn
            reward, after, terminated = self.step(self.generator, place, action)
            self.age, self.total = self.age + 1, self.total + reward
            truncated = ~terminated & (self.age >= self.limit)
            ends = terminated | truncated
            ended += [(int(run), self.total[run, n]) for run, n in np.argwhere(ends)]
            steps.append((place, action, reward, after.clip(0, self.states - 1), terminated, truncated))
            self.place = np.where(ends, self.start, after)
            self.age, self.total = np.where(ends, 0, self.age), np.where(ends, 0.0, self.total)
        names = ("place", "action", "reward", "after", "terminated", "truncated")
        return dict(zip(names, map(np.stack, zip(*steps, strict=True)), strict=True)) | {"ended": ended}

    def estimate(self, rows: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Advantage (T, R, N), target (T, R, N, K) and which of it the critic learns from."""
        shape = rows["reward"].shape
        value, following = self.value[self.row, rows["place"]], self.value[self.row, rows["after"]]
        if self.wrong == "no ends at all":
            following = np.concatenate([value[1:], following[-1:]])
        flat = [torch.from_numpy(np.ascontiguousarray(x)).flatten(1, 2) for x in (rows["reward"], value, following)]
        ends = [torch.from_numpy(rows[name]).flatten(1, 2) for name in ("terminated", "truncated")]
        if self.wrong.startswith("block"):
            target, seen, _ = block_target(flat[0], flat[1], flat[2], *ends)
            seen = seen if self.wrong == "block, masked" else torch.ones_like(seen)
            advantage = torch.where(seen, target - flat[1], 0.0).sum(-1)
            return (
                advantage.reshape(shape).numpy(),
                target.reshape(*shape, -1).numpy(),
                seen.reshape(*shape, -1).numpy(),
            )
        own = [x[..., 0] if x.dim() == 3 else x for x in flat]
        never = torch.zeros_like(ends[0])
        right, target = generalized_advantage(*own, *ends, GAMMA, LAMBDA)
        advantage = right
        if self.wrong == "sum runs on":
            after = torch.where(ends[0], 0.0, own[2])
            advantage, _ = generalized_advantage(own[0], own[1], after, never, never, GAMMA, LAMBDA)
        elif self.wrong == "no ends at all":
            advantage, target = generalized_advantage(*own, never, never, GAMMA, LAMBDA)
        elif self.wrong in ("V(s)", "without −V(s)", "+V(s)"):
            advantage = {"V(s)": own[1], "without −V(s)": target, "+V(s)": target + own[1]}[self.wrong]
        elif self.wrong == "from the next reward on":
            advantage = right - own[0]
        target = target.reshape(*shape, 1).numpy()
        return advantage.reshape(shape).numpy(), target, np.ones(target.shape, bool)

    def gradient(self, rows: dict[str, Any], advantage: np.ndarray) -> np.ndarray:
        """mean of ∇ log π(a|s) Â over a run's rows, (R, S, A)."""
        place, weight = rows["place"], np.zeros(self.preference.shape)
        run = np.broadcast_to(self.row, place.shape)
        np.add.at(weight, (run, place, rows["action"]), advantage)
        return (weight - weight.sum(-1, keepdims=True) * self.policy()) / place[:, 0].size

    def advance(self, rate: float) -> list[tuple[int, float]]:
        rows = self.collect()
        advantage, target, seen = self.estimate(rows)
        self.preference += rate * self.gradient(rows, advantage)
        run = np.broadcast_to(self.row, rows["place"].shape)
        total, count = np.zeros(self.value.shape), np.zeros(self.value.shape)
        np.add.at(total, (run, rows["place"]), np.where(seen, target, 0.0))
        np.add.at(count, (run, rows["place"]), seen.astype(float))
        mean = total / np.maximum(count, 1)
        self.value += 0.5 * np.where(count > 0, mean - self.value, 0.0)
        return rows["ended"]


def learn(task: str, labels: list[str], rate: float) -> Figures:
    """label -> [middle, low, high] of the mean return in every 4 iterations; all with the same step size."""
    found = {}
    for label in labels:
        table, parts = Table(task, label, RUNS), []
        for _ in range(ITERATIONS // 4):
            ended = [one for _ in range(4) for one in table.advance(rate)]
            returns = np.full(RUNS, parts[-1] if parts else np.nan)
            for run in range(RUNS):
                own = [total for number, total in ended if number == run]
                returns[run] = np.mean(own) if own else returns[run]
            parts.append(returns)
        found[label] = summarize(np.stack(parts, 1))
    return found


def draw_learning(panel: Any, curves: Figures, title: str) -> None:
    x = 4 * LENGTH * INSTANCES * np.arange(1, ITERATIONS // 4 + 1) / 1000
    for (label, values), colour in zip(curves.items(), palette(len(curves)), strict=True):
        band(panel, x, values, colour, label)
    panel.set(xlabel="thousand steps of a run", ylabel="episode return", title=title)
    panel.legend(fontsize=8)


# -------------------------------------------------------------------------------------------------------------- signals

SIGNALS = ["Â, with −V(s)", "without −V(s)", "+V(s)", "V(s)"]


def measure_errors_signal() -> Figures:
    """Cosines of 2,000 single batches with the exact gradient, at the uniform policy with its exact values; curves."""
    exact_value, exact = _exact()
    found = {}
    for label in SIGNALS:
        table = Table("walk", label, 200)
        table.value[:] = exact_value[:, None]
        for _ in range(4):
            table.collect()  # until the places are spread as they always are
        gradient = []
        for _ in range(10):
            rows = table.collect()
            gradient.append(table.gradient(rows, table.estimate(rows)[0]).reshape(200, -1))
        all_of = np.concatenate(gradient)
        cosine = all_of @ exact / np.linalg.norm(all_of, axis=1) / np.linalg.norm(exact)
        error = cosine.std() / np.sqrt(len(cosine))
        mean = all_of.mean(0)
        found[label] = {
            "cosine": [rounded(cosine.mean() + k * error) for k in (0, -1.96, 1.96)],
            "cosine_spread": [rounded(x) for x in np.quantile(cosine, (0.1, 0.9))],
            "variance": rounded(((all_of - mean) ** 2).sum(1).mean() / (exact @ exact)),
            "mean_along": rounded(mean @ exact / (exact @ exact)),
        }
    return {"clouds": found, "learning": learn("walk", SIGNALS, 1.0)}


def _exact() -> tuple[np.ndarray, np.ndarray]:
    """V of the uniform policy, and E[∇ log π(a|s) (Q − V)] over its steps; γ = 0.99, without the limit."""
    move = np.zeros((2, PLACES, PLACES + 2))
    for place in range(PLACES):
        for action, right in ((0, SLIP), (1, 1 - SLIP)):
            move[action, place, place + 2] += right
            move[action, place, place] += 1 - right
    inner = move[:, :, 1:-1]
    chain = inner.mean(0)
    value = np.linalg.solve(np.eye(PLACES) - GAMMA * chain, np.ones(PLACES))
    visits = np.linalg.solve(np.eye(PLACES) - chain.T, np.eye(PLACES)[START])
    advantage = 1 + GAMMA * inner @ value - value  # (A, S)
    gradient = (visits / visits.sum())[:, None] * 0.5 * (advantage.T - advantage.T.mean(-1, keepdims=True))
    return value, gradient.ravel()


def draw_errors_signal(figure: Any, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    cosines(left, figures["clouds"], SIGNALS, palette(4))
    left.set(title="one batch of 512 steps of the walk", xlim=(-1.05, 1.05))
    draw_learning(right, figures["learning"], "the same in training, of at most 100")


# ---------------------------------------------------------------------------------------------------------------- index


def measure_errors_shift() -> Figures:
    """The return that leaves the action's own reward out; the corridor of figure 13.2 with 0 for its last reward."""
    labels = ["from this reward on", "from the next reward on"]
    returns = reproduce.corridor_returns(1000, 0, 2.0**-9, 2.0**-6)
    curve = [rounded(x) for x in np.convolve(returns.mean(0), np.full(20, 0.05), "valid")]
    return {
        "walk": learn("walk", labels, 1.0), "arms": learn("arms", labels, 3.0), "corridor": curve,
        "last_100": rounded(returns[:, -100:].mean()),
    }  # fmt: skip


def draw_errors_shift(figure: Any, figures: Figures) -> None:
    left, middle, right = figure.subplots(1, 3)
    draw_learning(left, figures["walk"], "the walk: every reward is 1")
    draw_learning(middle, figures["arms"], "the arms: rewards differ")
    middle.set_ylabel("")
    x = 20 + np.arange(len(figures["corridor"]))
    for label, shift, colour in zip(("−1 for every step", "0 for the last one"), (0, 1), palette(2), strict=True):
        right.plot(x, np.array(figures["corridor"]) + shift, color=colour, linewidth=1.2, label=label)
    right.axhline(reproduce.BEST_RETURN, color="black", linestyle="--", linewidth=1, label="best there is")
    right.set(ylim=(-16, -10), xlabel="episode", title="short corridor")
    right.legend(fontsize=8, loc="lower right")


# ----------------------------------------------------------------------------------------------------------------- ends


def measure_errors_ends() -> Figures:
    """Truncation taken for termination; a sum that runs on over the end of an episode; no ends at all."""
    probe = {str(decay): [_probe(decay, right) for right in (True, False)] for decay in (0, 0.5, 0.95, 1)}
    return {"probe": probe, "learning": learn("walk", ["ends respected", "sum runs on", "no ends at all"], 1.0)}


def _probe(decay: float, right: bool) -> list[float]:
    """The value after each of 600 updates: one state, reward 1, cut after 10 steps, γ 0.99; V ← mean of the targets."""
    reward, no = torch.ones(10, 1, dtype=torch.float64), torch.zeros(10, 1, dtype=torch.bool)
    last, values = torch.arange(10).unsqueeze(1) == 9, [0.0]
    for _ in range(600):
        value = torch.full_like(reward, values[-1])
        terminated, truncated = (no, last) if right else (last, no)
        _, target = generalized_advantage(reward, value, value, terminated, truncated, 0.99, decay)
        values.append(float(target.mean()))
    return [float(f"{value:.5g}") for value in values]


def draw_errors_ends(figure: Any, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    for (decay, (good, bad)), colour in zip(figures["probe"].items(), palette(4), strict=True):
        left.plot(good, color=colour, linewidth=1.4, label=f"λ = {decay}")
        left.plot(bad, color=colour, linewidth=1.4, linestyle="--")
    left.axhline(100, color="black", linewidth=0.8)
    left.text(600, 10.5, "dashed: truncation as termination", fontsize=8, ha="right", va="bottom")
    left.set(yscale="log", ylim=(3, 130), xlabel="update", ylabel="V of a state that is worth 100")
    left.set_title("reward 1 for ever, cut after 10 steps")
    left.legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.66))
    draw_learning(right, figures["learning"], "the walk")


# ------------------------------------------------------------------------------------------------- argmax, and the mask


def measure_errors_collect() -> Figures:
    """The most probable action while collecting; rewards behind an end that are masked in place of 0."""
    return {
        "argmax": learn("walk", ["sampled", "argmax"], 1.0),
        "mask": learn("walk", ["block, 0 behind an end", "block, masked"], 1.0),
    }


def draw_errors_collect(figure: Any, figures: Figures) -> None:
    left, right = figure.subplots(1, 2)
    draw_learning(left, figures["argmax"], "the walk: what collects")
    draw_learning(right, figures["mask"], f"the walk: predictions of {HORIZON} rewards")


if __name__ == "__main__":
    main(globals(), FOLDER / "error_pictures.json")
