"""The pictures of the pages about estimators: `python benchmarks/estimator_pictures.py draw [NAME ...]`.

Each `draw_NAME(figure)` computes what it shows by calling the estimator's own function, on pieces made by hand or small
processes simulated here with fixed seeds, and becomes docs/pictures/estimator_NAME.png. The adaptive
mixture's comes from the study's cells. The figures are printed as one line of JSON each: the pages quote them.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from ridgeline.estimators.average_reward import AverageReward
from ridgeline.estimators.block import Block
from ridgeline.estimators.dae import direct_advantage, direct_target
from ridgeline.estimators.fixed_horizon import fixed_horizon_target, fixed_horizon_trace
from ridgeline.estimators.gae import generalized_advantage
from ridgeline.estimators.harmonic_trace import harmonic_trace
from ridgeline.estimators.monte_carlo import MonteCarlo, reward_to_go, whole_return
from ridgeline.estimators.n_step import n_step_advantage
from ridgeline.estimators.puffer_advantage import puffer_advantage
from ridgeline.estimators.static_mixture import StaticMixture, trace_mixture
from ridgeline.estimators.v_trace import v_trace
from ridgeline.rollout import Rollout

STUDY = Path(__file__).resolve().parent / "estimator_study.jsonl"
PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, DPI, COLOURS = 800, 100, 48  # of a PNG, which has a palette of its own
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip  # told apart by everybody (Okabe and Ito)
HALF = 0.5  # what the wrong critics of the random walk know of the true values
BATCH = 64  # returns in the mean whose error is shown

Figures = dict[str, Any]


def no_ends(like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like, dtype=torch.bool)


def rollout(reward, value, next_value, terminated) -> Rollout:
    """A rollout of one run; value and next_value (T, B, K)."""
    zero = torch.zeros_like(reward)
    return Rollout(1, zero, zero, zero, value, next_value, reward, terminated, no_ends(reward))


def weights(function: Callable[..., Any], steps: int, **settings: Any) -> np.ndarray:
    """What one reward 0, 1, ... steps ahead adds to the advantage, by giving it to the estimator; the critic says 0."""
    reward = torch.eye(steps)
    zero = torch.zeros_like(reward)
    result = function(reward, zero, zero, no_ends(reward), no_ends(reward), **settings)
    return (result[0] if isinstance(result, tuple) else result)[0].numpy()


def walk(episodes: int = 8000, steps: int = 400, start: int = 15) -> dict[str, torch.Tensor]:
    """Sutton & Barto's walk among 19 states, from state 15: one episode in each column, nothing behind its end.

    The critic says HALF of the true value; -1 and 1 are paid at the ends, and there is no discount.
    """
    generator = np.random.default_rng(0)
    moves = generator.integers(0, 2, (steps, episodes)) * 2 - 1
    place = np.concatenate([np.full((1, episodes), start), start + moves.cumsum(0)])
    ended = (place[1:] == 0) | (place[1:] == 20)
    first = ended & (ended.cumsum(0) == 1)
    over = np.concatenate([np.zeros((1, episodes), bool), ended.cumsum(0)[:-1] > 0])
    reward = np.where(first, np.sign(place[1:] - 10.0), 0.0)
    value = np.where(over, 0.0, HALF * (place[:-1] - 10) / 10)
    following = np.where(over | first, 0.0, HALF * (place[1:] - 10) / 10)
    tensors = {"reward": reward, "value": value, "next_value": following}
    flags = {"terminated": torch.from_numpy(first | over), "truncated": torch.zeros(steps, episodes, dtype=torch.bool)}
    return {name: torch.from_numpy(array).float() for name, array in tensors.items()} | flags


def errors(targets: dict[float, torch.Tensor]) -> Figures:
    """Bias of each target at the walk's first row, the standard error of the mean of BATCH, and both together."""
    bias = [float(target[0].mean()) - 0.5 for target in targets.values()]
    noise = [float(target[0].std()) / BATCH**0.5 for target in targets.values()]
    both = np.hypot(bias, noise).tolist()
    return {"x": list(targets), "bias": np.abs(bias).tolist(), "noise": noise, "both": both}


def draw_errors(panel: Any, figures: Figures) -> None:
    for name, colour, label in (
        ("bias", RED, "bias"),
        ("noise", BLUE, f"standard error of {BATCH}"),
        ("both", BLACK, "root mean square error"),
    ):
        panel.plot(figures["x"], figures[name], "o-", color=colour, markersize=3, label=label)
    panel.set(title="estimates of v = 0.5 where the critic says 0.25", ylim=(0, None))
    panel.legend(fontsize=8)


# ------------------------------------------------------------------------------------------------------------ the pages


def draw_ends(figure: Figure) -> Figures:
    """Targets on a piece of 24 rows with reward 1, and a critic that knows that for ever 1 is worth 10 at gamma 0.9."""
    steps = 24
    reward = torch.ones(steps, 1)
    value = torch.full_like(reward, 10.0)
    never, in_the_middle = no_ends(reward), no_ends(reward)
    in_the_middle[11] = True
    cases = {
        "no flag; the cut at the end": (never, never),
        "truncated": (never, in_the_middle),
        "terminated": (in_the_middle, never),
        "both flags": (in_the_middle, in_the_middle),
    }
    found = {
        label: generalized_advantage(reward, value, value, *flags, 0.9, 0.95)[1][:, 0].tolist()
        for label, flags in cases.items()
    }
    panel = figure.subplots()
    styles = {"no flag; the cut at the end": ("-", BLACK, 5), "truncated": ("--", SKY, 3)}
    for label, target in found.items():
        style, colour, width = styles.get(label, ("-" if label == "terminated" else ":", RED, 3))
        panel.plot(target, style, color=colour, linewidth=width, label=label)
    panel.axvline(11, color="black", linewidth=0.8)
    panel.annotate("the flag is in this row", (11, 5), (12, 5), fontsize=8)
    panel.set(xlabel="row of the rollout", ylabel="critic's target", ylim=(0, 11), title="GAE(0.9, 0.95): four ends")
    panel.legend(fontsize=8, loc="lower left")
    return found


def draw_monte_carlo(figure: Figure) -> Figures:
    """How large the credit of a step is, and the rest of what is cut."""
    left, right = figure.subplots(1, 2)
    generator = torch.Generator().manual_seed(0)
    steps = 32
    reward = 1 + torch.randn(steps, 4000, generator=generator)
    zero, ends = torch.zeros_like(reward), no_ends(reward)
    ends[-1] = True
    to_go = reward_to_go(reward, zero, ends, ~ends & ends, 1.0)
    whole = whole_return(to_go, ends, ~ends & ends)
    value = torch.arange(steps, 0, -1.0).unsqueeze(1)
    credits = {
        "whole return": whole,
        "reward-to-go": to_go,
        "less its mean": to_go - to_go.mean(),
        "less the exact value": to_go - value,
    }
    figures: Figures = {"root_mean_square": {}, "mean_by_row": {}}
    for (label, credit), colour in zip(credits.items(), (RED, ORANGE, SKY, BLUE), strict=True):
        line = credit.square().mean(1).sqrt()
        left.plot(line, color=colour, label=label)
        figures["root_mean_square"][label] = float(credit.square().mean().sqrt())
    left.set(xlabel="step of an episode of 32", ylabel="root mean square", title="credit: reward 1 ± 1 per step")
    left.set_ylim(0, 46)
    left.legend(fontsize=8, ncols=2, loc="upper center")
    endless = torch.ones(64, 1)
    zero = torch.zeros(64, 1, 1)
    without, memory = MonteCarlo(baseline="none"), {}
    for number in range(41):
        estimate, memory = without(rollout(endless, zero, zero, no_ends(endless)), memory)
        if number in (0, 1, 40):
            label = f"no critic, rollout {number + 1}"
            figures["mean_by_row"][label] = estimate.advantage[:, 0].tolist()
    exact = reward_to_go(endless, torch.full_like(endless, 100.0), no_ends(endless), no_ends(endless), 0.99)
    figures["mean_by_row"]["critic that knows the value"] = exact[:, 0].tolist()
    for (label, line), colour in zip(figures["mean_by_row"].items(), (RED, ORANGE, SKY, BLUE), strict=True):
        right.plot(line, color=colour, label=label)
    right.set(xlabel="row of the rollout", ylabel="return", title="an endless task with value 100, cut", ylim=(0, 150))
    right.legend(fontsize=8, ncols=2, loc="upper center")
    return figures


def draw_n_step(figure: Figure) -> Figures:
    left, right = figure.subplots(1, 2)
    for n, colour in zip((1, 5, 16), (RED, BLUE, GREEN), strict=True):
        left.step(range(40), weights(n_step_advantage, 40, gamma=0.99, num_steps=n), color=colour, label=f"n = {n}")
    left.set(xlabel="steps ahead", ylabel="weight of a reward", title="rewards before the critic, gamma = 0.99")
    left.legend(fontsize=8)
    batch = walk()
    counts = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    figures = errors({n: n_step_advantage(**batch, gamma=1.0, num_steps=n)[1] for n in counts})
    draw_errors(right, figures)
    right.set_xscale("log", base=2)
    right.set(xlabel="n")
    return figures


def draw_gae(figure: Figure) -> Figures:
    left, right = figure.subplots(1, 2)
    for trace, colour in zip((0.0, 0.8, 0.95, 1.0), (RED, BLUE, GREEN, BLACK), strict=True):
        left.plot(weights(generalized_advantage, 80, gamma=0.99, gae_lambda=trace), color=colour, label=f"λ = {trace}")
    left.set(xlabel="steps ahead", ylabel="weight of a TD error", title="weights, gamma = 0.99")
    left.legend(fontsize=8)
    batch = walk()
    traces = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
    figures = errors({x: generalized_advantage(**batch, gamma=1.0, gae_lambda=x)[1] for x in traces})
    draw_errors(right, figures | {"x": range(len(traces))})
    right.set_xticks(range(len(traces)), [f"{x:g}" for x in traces])
    right.set(xlabel="λ")
    return figures


def draw_harmonic_trace(figure: Figure) -> Figures:
    """The weights, and what becomes of a critic with γ = 1: one state, reward 1, truncated after 10 steps."""
    left, right = figure.subplots(1, 2)
    steps = 512
    lines = {
        "harmonic trace": (weights(harmonic_trace, steps, gamma=1.0), BLACK, "-"),
        "5 nodes (static mixture)": (weights(trace_mixture, steps, gamma=1.0), SKY, "--"),
        "GAE, λ = 0.5": (weights(generalized_advantage, steps, gamma=1.0, gae_lambda=0.5), RED, "-"),
        "GAE, λ = 0.95": (weights(generalized_advantage, steps, gamma=1.0, gae_lambda=0.95), BLUE, "-"),
    }
    for label, (line, colour, style) in lines.items():
        left.loglog(range(1, steps + 1), line, style, color=colour, label=label)
    left.set(xlabel="1 + steps ahead", title="weight of a TD error, gamma = 1", ylim=(1e-3, 9))
    left.legend(fontsize=8, ncols=2, loc="upper center")
    reward, ends = torch.ones(40, 1), torch.zeros(40, 1, dtype=torch.bool)
    ends[9::10] = True
    figures: Figures = {}
    for label, terminated in (("a truncation is bootstrapped", no_ends(reward)), ("a truncation is an end", ends)):
        value, line = 0.0, []
        for _ in range(60):
            line.append(value)
            same = torch.full_like(reward, value)
            value = float(harmonic_trace(reward, same, same, terminated, ends, 1.0)[1].mean())
        figures[label] = line
        right.plot(line, color=RED if "bootstrapped" in label else BLUE, label=label)
    right.set(xlabel="updates of the critic", ylabel="value", title="gamma = 1, reward 1, limit of 10 steps")
    right.legend(fontsize=8, loc="upper left")
    return figures


def draw_v_trace(figure: Figure) -> Figures:
    """20 steps, reward 1 for the right one of two actions; a coin acted, and every other policy is judged."""
    left, right = figure.subplots(1, 2)
    steps, episodes = 20, 4_000
    generator = torch.Generator().manual_seed(0)
    good = torch.rand(steps, episodes, generator=generator) < 0.5
    ends = no_ends(good)
    ends[-1] = True
    shares = np.linspace(0.05, 0.95, 19)
    settings = {
        "ratio cut at 1": (1.0, 1.0, BLUE),
        "not cut": (np.inf, np.inf, RED),
        "TD errors not cut, trace at 1": (np.inf, 1.0, ORANGE),
    }
    figures: Figures = {"x": shares.tolist(), "value": {}, "std": {}}
    for label, (largest, largest_trace, colour) in settings.items():
        values, stds = [], []
        for share in shares:
            log_ratio = torch.where(good, float(np.log(share / 0.5)), float(np.log((1 - share) / 0.5)))
            value = torch.zeros(steps + 1, 1)
            target = value
            exact = torch.arange(steps, 0, -1) * share
            for _ in range(25):
                given = value[:-1].expand(steps, episodes), value[1:].expand(steps, episodes), ends, no_ends(good)
                target = v_trace(good.float(), *given, log_ratio, 1.0, 1.0, largest, largest_trace)[1]
                # without any bound the mean of 4,000 is too noisy
                value[:-1, 0] = target.mean(1) if np.isfinite(largest_trace) else exact
            values.append(float(value[0, 0]))
            stds.append(float(target[0].std()))
        figures["value"][label], figures["std"][label] = values, stds
        if label != "not cut":
            left.plot(shares, values, color=colour, label=label)
        right.plot(shares, stds, color=colour, label=label)
    left.plot(shares, steps * shares, color=BLACK, linewidth=0.8, linestyle="--", label="the policy's true value")
    left.plot(shares, 0 * shares + steps / 2, color=PINK, label="GAE: the policy that acted")
    left.set(xlabel="probability of the right action now", ylabel="value", title="what the critic converges to")
    left.legend(fontsize=7)
    right.set(xlabel="probability of the right action now", title="standard deviation of the target", yscale="log")
    right.legend(fontsize=7)
    return figures


def draw_puffer_advantage(figure: Figure) -> Figures:
    """Advantage times the ratio in the loss, where the TD error is 1: what weighs the gradient of log π."""
    left, right = figure.subplots(1, 2)
    ratio = torch.linspace(0.02, 2, 100)
    log_ratio = ratio.log().view(1, -1)
    reward, zero = torch.ones_like(log_ratio), torch.zeros_like(log_ratio)
    given = reward, zero, zero, ~no_ends(reward), no_ends(reward), log_ratio, 0.99
    lines = {"PufferLib's": puffer_advantage(*given, 0.95)[0], "V-trace's": v_trace(*given)[0]}
    for (label, advantage), colour in zip(lines.items(), (RED, BLUE), strict=True):
        left.plot(ratio, (advantage * ratio)[0], color=colour, label=label)
    left.set(xlabel="π(a|s) / μ(a|s)", title="ratio of the loss x advantage, TD error 1")
    left.legend(fontsize=8, loc="upper left")
    figures: Figures = {label: (advantage * ratio)[0].tolist() for label, advantage in lines.items()}
    for label, own, colour in (("ratio 1: GAE", 1.0, BLACK), ("ratio 0.9", 0.9, BLUE), ("ratio 0.7", 0.7, RED)):

        def one(*arguments, own=own):
            return puffer_advantage(*arguments, torch.full((60, 60), float(np.log(own))), 0.99, 0.95)

        figures[label] = weights(one, 60).tolist()
        right.plot(figures[label], color=colour, label=label)
    right.set(xlabel="steps ahead", title="weight of a TD error", ylim=(0, None))
    right.legend(fontsize=8, loc="upper right")
    return figures


def draw_dae(figure: Figure) -> Figures:
    """Seven states in a row, right with probability 0.7, 1 is paid at the right end; tables for V and f."""
    panels = figure.subplots(1, 2)
    states, right, gamma, columns, steps = 7, 0.7, 0.9, 32, 64
    generator = np.random.default_rng(0)
    matrix = np.zeros((states, states))
    paid = np.zeros(states)
    for s in range(states):
        if s > 0:
            matrix[s, s - 1] = (1 - right) * gamma
        if s < states - 1:
            matrix[s, s + 1] = right * gamma
        else:
            paid[s] = right
    true = np.linalg.solve(np.eye(states) - matrix, paid)
    after = np.stack([gamma * np.append(0, true[:-1]), np.append(gamma * true[1:], 1.0)], 1)
    exact = after - true[:, None]
    table, rows = torch.zeros(states, 3), []
    place = np.full(columns, 3)
    for count in range(400):
        state, action, reward, done = (np.empty((steps, columns)) for _ in range(4))
        for t in range(steps):
            move = generator.random(columns) < right
            state[t], action[t] = place, move
            place = place + np.where(move, 1, -1)
            done[t] = (place < 0) | (place == states)
            reward[t] = place == states
            place = np.where(done[t] > 0, 3, place)
        s = torch.from_numpy(state).long()
        following = torch.cat([table[s[1:], 0], table[torch.from_numpy(place), 0][None]])
        probability = torch.tensor([1 - right, right]).expand(steps, columns, 2)
        flags = torch.from_numpy(done).bool(), torch.zeros(steps, columns, dtype=torch.bool)
        rewards = torch.from_numpy(reward).float()
        target, weight = direct_target(
            rewards, table[s], following, *flags, torch.from_numpy(action).long(), probability, gamma
        )
        taken = torch.from_numpy(action).long().unsqueeze(-1)
        learned = direct_advantage(table[s][..., 1:], probability).gather(-1, taken).squeeze(-1)
        monte_carlo = generalized_advantage(rewards, table[s, 0], following, *flags, gamma, 1.0)[0]
        rows.append((s, taken.squeeze(-1), learned, monte_carlo))
        step = 0.3 if count < 100 else 0.05
        total = torch.zeros_like(table).index_add_(0, s.ravel(), ((target - table[s]) * weight).flatten(0, 1))
        mass = torch.zeros_like(table).index_add_(0, s.ravel(), weight.flatten(0, 1))
        table += step * total / mass.clamp_min(1e-9)
    learned = direct_advantage(table[:, 1:], torch.tensor([1 - right, right])).numpy()
    for a, colour, label in ((1, BLUE, "right"), (0, RED, "left")):
        panels[0].plot(exact[:, a], color=colour, linewidth=1, label=f"{label}: exact")
        panels[0].plot(learned[:, a], "o", color=colour, markersize=5, label=f"{label}: learned")
    panels[0].set(xlabel="state", title="advantage of every action", ylabel="advantage")
    panels[0].legend(fontsize=8)
    figures: Figures = {"exact": exact.tolist(), "learned": learned.tolist(), "root_mean_square_error": {}}
    truth = torch.from_numpy(exact).float()
    for index, label, colour in ((2, "direct advantage", BLUE), (3, "GAE, λ = 1", ORANGE)):
        line = [float((row[index] - truth[row[0], row[1]]).square().mean().sqrt()) for row in rows]
        figures["root_mean_square_error"][label] = [line[0], line[20], line[-1]]
        panels[1].plot(line, color=colour, label=label)
    panels[1].set(xlabel="rollouts of 64 x 32 steps", title="root mean square error of a row", ylim=(0, None))
    panels[1].legend(fontsize=8)
    return figures


def draw_average_reward(figure: Figure) -> Figures:
    """Four states in a ring, one further with probability 1/2, reward = state; from rollout 150 on one more."""
    left, right = figure.subplots(1, 2)
    figures: Figures = {"reward_rate": {}, "mean_value": {}}
    for label, estimator, colour in (
        ("differential", AverageReward(), BLUE),
        ("apo", AverageReward(variant="apo"), RED),
    ):
        generator = np.random.default_rng(0)
        place, table, memory = np.zeros(8, np.int64), torch.zeros(4), {}
        rates, levels = [], []
        for number in range(300):
            places = np.empty((33, 8), np.int64)
            for t in range(33):
                places[t] = place
                place = (place + generator.integers(0, 2, 8)) % 4 if t < 32 else place
            s = torch.from_numpy(places)
            value = table[s].unsqueeze(-1)
            reward = s[:-1].float() + (number >= 150)
            estimate, memory = estimator(rollout(reward, value[:-1], value[1:], no_ends(reward)), memory)
            for state in range(4):
                here = s[:-1] == state
                table[state] += 0.3 * (estimate.target[..., 0] - table[s[:-1]])[here].mean()
            rates.append(float(memory["reward_rate"]))
            levels.append(float(table.mean()))
        width = 3.5 if label == "differential" else 1.2  # the two nearly agree
        left.plot(rates, color=colour, linewidth=width, label=label)
        right.plot(levels, color=colour, label=label)
        figures["reward_rate"][label] = [rates[149], rates[-1]]
        figures["mean_value"][label] = [levels[149], levels[-1]]
    left.plot([1.5] * 150 + [2.5] * 150, color=BLACK, linewidth=0.8, linestyle="--", label="true")
    left.set(xlabel="rollout", title="reward rate", ylim=(0, None))
    right.set(xlabel="rollout", title="mean of the four values")
    left.legend(fontsize=8, loc="lower right")
    right.legend(fontsize=8, loc="upper left")
    return figures


def draw_fixed_horizon(figure: Figure) -> Figures:
    """One endless road with reward 1 at its steps 40 and 100: what the heads converge to, and what the traces weigh."""
    left, right = figure.subplots(1, 2)
    steps, heads = 160, 7
    reward = torch.zeros(steps, 1)
    reward[40], reward[100] = 1.0, 1.0
    ends = no_ends(reward)
    ends[-1] = True
    figures: Figures = {}
    learned = {}
    for length in (steps, 24):  # of a rollout: the road is cut into pieces
        value = torch.zeros(steps + 1, 1, heads)
        for _ in range(200):
            for start in range(0, steps, length):
                own = slice(start, min(start + length, steps))
                following = value[own.start + 1 : own.stop + 1]
                value[own] = fixed_horizon_target(reward[own], following, ends[own], no_ends(reward[own]))
        learned[length] = value
    for head, colour in ((6, BLUE), (4, GREEN), (2, RED)):
        horizon = 2**head
        true = torch.tensor([float(reward[t : t + horizon].sum()) for t in range(steps)])
        left.plot(learned[steps][:-1, 0, head], color=colour, linewidth=3, label=f"h = {horizon}")
        for length, value in learned.items():
            error = float((value[:-1, 0, head] - true).abs().max())
            figures[f"largest error, h = {horizon}, rollouts of {length}"] = error
    left.plot(learned[24][:-1, 0, 6], color=BLACK, linewidth=1, label="h = 64, rollouts of 24")
    left.set(xlabel="step", title="what the heads converge to", ylim=(-0.05, 2.9))
    left.legend(fontsize=8, ncols=2, loc="upper right")

    def half(reward, zero, _, *ends):
        return fixed_horizon_target(reward, zero.unsqueeze(-1).expand(-1, -1, heads), *ends)[..., -1]

    def shrinking(reward, zero, _, *ends):
        nothing = zero.unsqueeze(-1).expand(-1, -1, heads)
        return fixed_horizon_trace(reward, nothing, nothing, *ends)

    for label, function, colour in (("harmonic", shrinking, BLUE), ("half", half, RED)):
        right.step(range(80), weights(function, 80), color=colour, label=f"trace {label}")
    right.step(range(80), [1.0] * 64 + [0.0] * 16, color=BLACK, linewidth=0.8, linestyle="--", label="asked for")
    right.set(xlabel="steps ahead", title="weight of a reward, horizon 64")
    right.legend(fontsize=8, loc="upper right")
    return figures


def draw_block(figure: Figure) -> Figures:
    """One state, reward 1 per step; a risky action, taken half the time, ends the episode with probability 0.1.

    The heads are tables, fitted to their own targets until they stay; then the mean advantage of each action.
    """
    left, right = figure.subplots(1, 2)
    generator = torch.Generator().manual_seed(0)
    steps, episodes, horizon = 128, 400, 32
    risky = torch.rand(steps, episodes, generator=generator) < 0.5
    over = risky & (torch.rand(steps, episodes, generator=generator) < 0.1)
    reward = torch.ones(steps, episodes)
    alive = 0.95 ** torch.arange(horizon)
    after = float(alive[:-1].sum())  # of the 31 rewards behind this one, where the episode goes on
    exact = [1 + after - float(alive.sum()), 1 + 0.9 * after - float(alive.sum())]
    figures: Figures = {"exact": exact, "heads": {}}
    bars = {"exact": exact}
    for variant in ("absorbing", "masked"):
        estimator, table = Block(horizon, variant), torch.zeros(horizon)
        estimate = None
        for _ in range(60):
            value = table.expand(steps, episodes, horizon)
            estimate, _ = estimator(rollout(reward, value, value, over), {})
            weight = estimate.target_weight if estimate.target_weight is not None else torch.ones_like(value)
            table = (estimate.target * weight).sum((0, 1)) / weight.sum((0, 1))
        value = table.expand(steps, episodes, horizon)
        advantage = estimator(rollout(reward, value, value, over), {})[0].advantage
        bars[variant] = [float(advantage[~risky].mean()), float(advantage[risky].mean())]
        figures["heads"][variant] = table.tolist()
        left.plot(range(1, horizon + 1), table, color=BLUE if variant == "absorbing" else RED, label=variant)
    left.plot(range(1, horizon + 1), alive, color=BLACK, linewidth=0.8, linestyle="--", label="exact")
    left.set(xlabel="steps ahead", ylabel="predicted reward", title="the heads", ylim=(0, 1.1))
    left.legend(fontsize=8)
    for number, (label, colour) in enumerate((("exact", BLACK), ("absorbing", BLUE), ("masked", RED))):
        right.bar(np.arange(2) + 0.25 * (number - 1), bars[label], 0.22, color=colour, label=label)
        figures[label] = bars[label]
    right.axhline(0, color="black", linewidth=0.8)
    right.set_xticks([0, 1], ["safe", "risky"])
    right.set(xlabel="action", title="mean advantage, 32 steps")
    right.legend(fontsize=8)
    return figures


def draw_static_mixture(figure: Figure) -> Figures:
    """What each reward weighs where rewards are white noise and the critic says 0: their covariance with Â."""
    panels = figure.subplots(1, 2)
    steps, columns, lags = 512, 3000, 200
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(steps, columns, generator=generator)
    estimator = StaticMixture(undiscounted=False)
    zero = torch.zeros(steps, columns, estimator.num_values)
    mixed = estimator(rollout(reward, zero, zero, no_ends(reward)), {})[0].advantage[: steps - lags]
    line = np.array([float((mixed * reward[lag : steps - lags + lag]).mean()) for lag in range(lags)])
    given = reward, zero[..., 0], zero[..., 0], no_ends(reward), no_ends(reward)
    figures: Figures = {}
    for label, advantage, colour in (
        ("GAE(0.99, 0.95)", generalized_advantage(*given, 0.99, 0.95)[0], BLUE),
        ("GAE(0.995, 0.8)", generalized_advantage(*given, 0.995, 0.8)[0], RED),
    ):
        own = advantage[: steps - lags]
        other = np.array([float((own * reward[lag : steps - lags + lag]).mean()) for lag in range(lags)])
        panels[0].semilogy(other / other[0], color=colour, label=label)
        figures[label] = (other / other[0])[[1, 10, 20, 50]].tolist()
    panels[0].semilogy(line / line[0], color=BLACK, label="static mixture")
    figures["static mixture"] = (line / line[0])[[1, 10, 20, 50]].tolist()
    panels[0].set(xlabel="steps ahead", title="weight of a TD error over that of the first", ylim=(3e-3, 1.5))
    panels[0].set_xlim(0, 100)
    panels[0].legend(fontsize=8)
    for gamma, colour in zip(estimator.gammas, (RED, ORANGE, GREEN, SKY, BLUE, PINK), strict=True):
        own = weights(trace_mixture, 1024, gamma=gamma)
        value = weights(generalized_advantage, 1024, gamma=gamma, gae_lambda=1.0)
        panels[1].loglog(range(1, 1025), value, color=colour, label=f"1/(1 − γ) = {1 / (1 - gamma):.0f}")
        panels[1].loglog(range(1, 1025), own, color=colour, linewidth=0.8, linestyle="--")
    panels[1].set(xlabel="1 + steps ahead", title="each head: its value (solid), its trace (dashed)", ylim=(1e-3, 1.5))
    panels[1].legend(fontsize=7)
    return figures


def draw_adaptive_mixture(figure: Figure) -> Figures:
    """The horizon that each of 16 runs ended up acting as, in the study's cells with rollouts of 64 steps."""
    forms = {"adaptive nonnegative": (RED, -0.2), "adaptive mixture": (BLUE, 0.0), "adaptive gated": (GREEN, 0.2)}
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for line in STUDY.read_text(encoding="utf-8").splitlines():
        cell = json.loads(line)
        if cell["estimator"] in forms and cell["rollout_length"] == 64:
            cells[cell["task"], cell["estimator"]] = cell["last"]
    tasks = ("noisy_bandit", "corridor", "cartpole", "key_to_door", "delayed_64", "pendulum")
    panels = figure.subplots(1, 2)
    figures: Figures = {}
    for panel, name in zip(panels, ("effective_horizon", "effective_trace"), strict=True):
        for form, (colour, shift) in forms.items():
            label = "shrunk (default)" if form == "adaptive mixture" else form.removeprefix("adaptive ")
            for x, task in enumerate(tasks):
                values = cells[task, form][name]
                panel.plot([x + shift] * len(values), values, "_", color=colour, label=label if x == 0 else None)
                figures[f"{task}, {form}, {name}"] = [float(np.quantile(values, share)) for share in (0, 0.5, 1)]
        panel.set_xticks(range(len(tasks)), [task.replace("_", "\n", 1) for task in tasks], fontsize=7)
        panel.set(ylabel="steps", title=f"{name} at the end, each of 16 runs", yscale="log")
        panel.axhline(39.8 if name == "effective_horizon" else 7.4, color=BLACK, linewidth=0.8, linestyle="--")
    panels[0].legend(fontsize=7, loc="lower right")
    return figures


# ------------------------------------------------------------------------------------------------------------- command

DRAW: dict[str, Callable[[Figure], Figures]] = {
    name.removeprefix("draw_"): item
    for name, item in list(globals().items())
    if name.startswith("draw_") and name != "draw_errors"
}


def save(name: str) -> Figures:
    """docs/pictures/estimator_NAME.png; returns what it shows."""
    figure = Figure(figsize=(WIDTH / DPI, 3.3), dpi=DPI, layout="constrained")
    figures = DRAW[name](figure)
    for panel in figure.axes:
        panel.title.set_fontsize(10)
        panel.grid(alpha=0.25, linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file)
    PICTURES.mkdir(exist_ok=True)
    Image.open(file).convert("RGB").quantize(COLOURS).save(PICTURES / f"estimator_{name}.png", optimize=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["draw"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRAW))
    names = parser.parse_args().names or list(DRAW)
    if unknown := set(names) - set(DRAW):
        parser.error(f"{', '.join(sorted(unknown))}: no such picture; there are {', '.join(DRAW)}")
    for name in names:
        print(json.dumps({name: save(name)}), flush=True)
        print(f"docs/pictures/estimator_{name}.png", file=sys.stderr)


if __name__ == "__main__":
    main()
