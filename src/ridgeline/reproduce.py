"""Two figures of Sutton & Barto (2018), computed anew and compared with their reference tables.

random-walk: figure 7.2, n-step TD on the walk of `envs/random_walk.py`. short-corridor: figures 13.1 and 13.2,
REINFORCE without and with baseline in `envs/short_corridor.py`. The environments are these files; what learns is
written out here in scalars, apart from the trainer, so that the textbook's algorithm can be read as it stands there.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.environments import make
from ridgeline.envs import short_corridor as corridor
from ridgeline.kernel import NoParameters, compiled, seed_rows, uniform
from ridgeline.vector import TRAINING

# n, alpha, mean RMS error there, its standard error for 100 runs; the same two at alpha = 0.4. From 20,000 runs.
WALK_TABLE = (
    (1, 0.80, 0.3453, 0.0019, 0.4123, 0.0006),
    (2, 0.60, 0.2772, 0.0042, 0.3113, 0.0023),
    (4, 0.40, 0.2642, 0.0050, 0.2642, 0.0050),
    (8, 0.25, 0.2771, 0.0052, 0.3170, 0.0053),
    (16, 0.15, 0.3120, 0.0053, 0.4182, 0.0061),
    (32, 0.10, 0.3639, 0.0054, 0.5353, 0.0059),
    (64, 0.05, 0.4148, 0.0051, 0.6410, 0.0066),
    (512, 0.05, 0.5091, 0.0083, 0.7192, 0.0085),
)
WALK_ALPHAS = tuple(round(0.05 * k, 2) for k in range(1, 21))
WALK_EPISODES = 10
TRUE_VALUE = np.arange(-9, 10) / 10

# label, step size of theta, of the baseline; mean return of the episodes in CORRIDOR_SPANS. From 3,000 runs.
CORRIDOR_TABLE = (
    ("2^-12", 2.0**-12, 0.0, (-69.8, -16.2, -12.05)),
    ("2^-13", 2.0**-13, 0.0, (-75.3, -21.9, -12.44)),
    ("2^-14", 2.0**-14, 0.0, (-78.5, -32.0, -14.92)),
    ("baseline 2^-9, 2^-6", 2.0**-9, 2.0**-6, (-53.3, -12.0, -12.00)),
)
CORRIDOR_SPANS = ((1, 10), (196, 205), (901, 1000))
CORRIDOR_TOLERANCE = 0.5  # of the last span
CORRIDOR_EPISODES = 1000
BEST_RETURN = -6.0 - 4.0 * math.sqrt(2.0)  # with probability 2 - sqrt(2) of right
FLOOR = 0.05


class ReproduceError(RuntimeError):
    """A figure cannot be drawn or written; the message says what mends it."""


# ---------------------------------------------------------------------------------------------------------- random walk


def record_walks(
    num_runs: int, seed: int, num_episodes: int = WALK_EPISODES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first episodes of `num_runs` walks of the environment: position before each step, reward, terminated.

    Each (num_runs, T), with T large enough for `num_episodes` episodes of every run.
    """
    env = make("random_walk", num_runs, seed)
    position, reward, terminated, count = [], [], [], np.zeros(num_runs, np.int64)
    action = np.zeros(num_runs, np.int64)
    while count.min() < num_episodes:
        position.append(env.observation.argmax(axis=1))
        step = env.step(action)
        assert not step.truncated.any(), "a walk of 10,000 steps: its chance is 1 in 10^53"
        reward.append(step.reward.astype(np.float64))
        terminated.append(step.terminated.copy())
        count += step.terminated
    env.close()
    return np.stack(position, 1), np.stack(reward, 1), np.stack(terminated, 1)


@compiled
def n_step_errors(position, reward, terminated, num_steps, alpha, true_value, error):
    """Per run, the RMS error of n-step TD after each episode, into `error` (num_runs, num_episodes).

    V(S_t) ← V(S_t) + α (R_{t+1} + ... + R_{t+n} + V(S_{t+n}) - V(S_t)), in the order of t, at once; the sum ends with
    the episode, and then without V (Sutton & Barto 2018, equations 7.1 and 7.2 with γ = 1). V starts at 0.
    """
    for run in range(error.shape[0]):
        value = np.zeros(len(true_value))
        start = 0
        for episode in range(error.shape[1]):
            end = start
            while not terminated[run, end]:
                end += 1
            end += 1
            window = 0.0
            for t in range(start, min(start + num_steps - 1, end)):
                window += reward[run, t]
            for t in range(start, end):
                following = t + num_steps
                if following <= end:
                    window += reward[run, following - 1]
                bootstrap = value[position[run, following]] if following < end else 0.0
                here = position[run, t]
                value[here] += alpha * (window + bootstrap - value[here])
                window -= reward[run, t]
            total = 0.0
            for i in range(len(true_value)):
                total += (value[i] - true_value[i]) ** 2
            error[run, episode] = math.sqrt(total / len(true_value))
            start = end


def random_walk(num_runs: int = 1000, seed: int = 0, alphas: tuple[float, ...] = WALK_ALPHAS) -> dict[str, Any]:
    """The numbers of figure 7.2: RMS error against alpha for each n, and the comparison with the table.

    The error is averaged over the 19 states within the root, then over the first 10 episodes and the runs; all
    settings see the same walks. A row of the table is met where |ours - table| < 3 standard errors of `num_runs` runs.

    Raises: ValueError.
    """
    _check(num_runs, seed)
    walks = record_walks(num_runs, seed)
    episodes = np.empty((num_runs, WALK_EPISODES))

    def errors(num_steps: int, alpha: float) -> float:
        n_step_errors(*walks, num_steps, alpha, TRUE_VALUE, episodes)
        return round(float(episodes.mean()), 5)

    curves = {row[0]: [errors(row[0], alpha) for alpha in alphas] for row in WALK_TABLE}
    comparison = []
    for num_steps, alpha, expected, deviation, expected_04, deviation_04 in WALK_TABLE:
        rows = {(alpha, expected, deviation), (0.4, expected_04, deviation_04)}
        for at, reference, error in sorted(rows, key=lambda row: row[0] != alpha):
            found, tolerance = errors(num_steps, at), 3.0 * error * math.sqrt(100.0 / num_runs)
            comparison.append({
                "n": num_steps, "alpha": at, "rms_error": found, "reference": reference,
                "tolerance": round(tolerance, 5), "met": abs(found - reference) < tolerance,
            })  # fmt: skip
    lowest, n, alpha = min((error, n, alphas[k]) for n, curve in curves.items() for k, error in enumerate(curve))
    best = {"n": n, "alpha": alpha, "rms_error": lowest}
    met = all(row["met"] for row in comparison) and n == 4 and 0.35 <= alpha <= 0.45
    return {
        "figure": "random-walk", "num_runs": num_runs, "seed": seed, "met": met, "best": best,
        "comparison": comparison, "alpha": list(alphas), "rms_error": {str(n): curve for n, curve in curves.items()},
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------- short corridor

_reset, _step = compiled(corridor.reset), compiled(corridor.step)


@compiled
def _floored(preference):
    return min(max(1.0 / (1.0 + math.exp(-preference)), FLOOR), 1.0 - FLOOR)


@compiled
def reinforce(state, p, start, alpha, alpha_baseline, action, return_to_go, episode_return):
    """REINFORCE with the baseline w of one number, for each instance of `state`: one run.

    p = P(right) = clip(σ(θ_right - θ_left), 0.05, 0.95), θ = ±start at first, w = 0. An episode is played with the p of
    its start; then for each of its steps δ = G_t - w, w ← w + α_w δ, θ ← θ + α δ (x(a) - Σ_b p_b x(b)), where p follows
    θ (Sutton & Barto 2018, equations 13.8 and 13.11 with γ = 1; with α_w = 0 there is no baseline). The sum of rewards
    of each episode goes into `episode_return` (num_runs, num_episodes); `action` and `return_to_go` are working space,
    one element per step of the longest possible episode.
    """
    for run in range(episode_return.shape[0]):
        instance = state[run]
        theta_right, theta_left, baseline = start, -start, 0.0
        for episode in range(episode_return.shape[1]):
            right = _floored(theta_right - theta_left)
            _reset(instance, p)
            length, terminated = 0, False
            while not terminated and length < len(action):
                action[length] = 0 if uniform(instance) < right else 1
                return_to_go[length], terminated = _step(instance, action[length], p)
                length += 1
            for t in range(length - 2, -1, -1):
                return_to_go[t] += return_to_go[t + 1]
            episode_return[run, episode] = return_to_go[0]
            for t in range(length):
                error = return_to_go[t] - baseline
                baseline += alpha_baseline * error
                chosen_right = 1.0 if action[t] == 0 else 0.0
                change = alpha * error * (chosen_right - _floored(theta_right - theta_left))
                theta_right += change
                theta_left -= change


def corridor_returns(
    num_runs: int, seed: int, alpha: float, alpha_baseline: float, num_episodes: int = CORRIDOR_EPISODES
) -> np.ndarray:
    """The sum of rewards of each episode, (num_runs, num_episodes), from P(right) = 0.05 on."""
    state = np.zeros(num_runs, corridor.State).view(np.recarray)
    seed_rows(state, seed, TRAINING)
    longest = corridor.max_episode_steps
    episode_return = np.empty((num_runs, num_episodes))
    start = 0.5 * math.log(FLOOR / (1.0 - FLOOR))
    working = np.empty(longest, np.int64), np.empty(longest)
    reinforce(state, NoParameters(), start, alpha, alpha_baseline, *working, episode_return)
    return episode_return


def short_corridor(num_runs: int = 1000, seed: int = 0) -> dict[str, Any]:
    """The numbers of figures 13.1 and 13.2: mean return of each episode, and the comparison with the table.

    Met where the mean of episodes 901 to 1000 is within 0.5 of the table's for each setting, and the settings come in
    the table's order at episodes 196 to 205.

    Raises: ValueError.
    """
    _check(num_runs, seed)
    curves, comparison = {}, []
    for label, alpha, alpha_baseline, reference in CORRIDOR_TABLE:
        returns = corridor_returns(num_runs, seed, alpha, alpha_baseline)
        spans = [returns[:, first - 1 : last].mean(axis=1) for first, last in CORRIDOR_SPANS]  # per run
        found = [round(float(span.mean()), 3) for span in spans]
        comparison.append({
            "setting": label, "alpha": alpha, "alpha_baseline": alpha_baseline, "mean_return": found,
            "standard_error": [round(float(span.std(ddof=1)) / math.sqrt(num_runs), 3) for span in spans],
            "reference": list(reference), "tolerance": CORRIDOR_TOLERANCE,
            "met": abs(found[-1] - reference[-1]) < CORRIDOR_TOLERANCE,
        })  # fmt: skip
        curves[label] = np.round(returns.mean(axis=0), 3).tolist()
    order = [row["setting"] for row in sorted(comparison, key=lambda row: -row["mean_return"][1])]
    expected = [row[0] for row in sorted(CORRIDOR_TABLE, key=lambda row: -row[3][1])]
    return {
        "figure": "short-corridor", "num_runs": num_runs, "seed": seed,
        "met": order == expected and all(row["met"] for row in comparison), "order": order,
        "episodes": [list(span) for span in CORRIDOR_SPANS], "comparison": comparison, "mean_return": curves,
    }  # fmt: skip


def _check(num_runs: int, seed: int) -> None:
    if num_runs < 2:
        raise ValueError(f"runs = {num_runs}; use a whole number from 2: the comparison needs a spread")
    if seed < 0:
        raise ValueError(f"seed = {seed}; use a whole number from 0")


# ------------------------------------------------------------------------------------------------- pictures and numbers

FIGURES = {"random-walk": random_walk, "short-corridor": short_corridor}


def reproduce(figure: str, num_runs: int = 1000, seed: int = 0, directory: Path | str = ".") -> dict[str, Any]:
    """The numbers of a figure, written to DIRECTORY/FIGURE.json and drawn in DIRECTORY/FIGURE.png.

    Raises: ReproduceError where Matplotlib is missing or the files cannot be written; ValueError.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ReproduceError('the picture needs Matplotlib: pip install "ridgeline[plot]"') from None
    document = FIGURES[figure](num_runs, seed)
    files = {kind: Path(directory, f"{figure}.{kind}") for kind in ("png", "json")}
    picture = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = picture.subplots()
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    draw = draw_random_walk if figure == "random-walk" else draw_short_corridor
    draw(axes, document)
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        picture.savefig(files["png"])
        files["json"].write_text(json.dumps(document) + "\n", encoding="utf-8")
    except OSError as error:
        raise ReproduceError(f"{directory}: cannot be written: {error.strerror}; choose another --out") from None
    return document | {kind: str(file) for kind, file in files.items()}


def lines(document: dict[str, Any]) -> list[str]:
    """The comparison with the table, for people."""
    if document["figure"] == "random-walk":
        found = [f"{'n':>4} {'alpha':>6} {'RMS error':>10} {'reference':>10} {'tolerance':>10}"]
        for row in document["comparison"]:
            numbers = "".join(f" {row[key]:10.4f}" for key in ("rms_error", "reference", "tolerance"))
            found.append(f"{row['n']:>4} {row['alpha']:6.2f}{numbers}" + " not met" * (not row["met"]))
        best = document["best"]
        found.append(f"best: n = {best['n']}, alpha = {best['alpha']:.2f}, RMS error {best['rms_error']:.4f}")
    else:
        titles = [f"episodes {first} to {last}" for first, last in document["episodes"]]
        found = [f"{'mean return (reference)':<24}" + "".join(f"{title:>22}" for title in titles)]
        for row in document["comparison"]:
            pairs = zip(row["mean_return"], row["reference"], strict=True)
            cells = "".join(f"{f'{mean:.2f} ({reference:.2f})':>22}" for mean, reference in pairs)
            found.append(f"{row['setting']:<24}{cells}" + " not met" * (not row["met"]))
        found.append(f"from the best at episodes 196 to 205: {'; '.join(document['order'])}")
    return [*found, "the table is met" if document["met"] else "the table is not met"]


def draw_random_walk(axes: Any, document: dict[str, Any]) -> None:
    """RMS error against alpha, a line for each n, and the table's optima as circles."""
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0.0, 0.92, len(WALK_TABLE)))
    for (n, curve), row, colour in zip(document["rms_error"].items(), WALK_TABLE, colours, strict=True):
        axes.plot(document["alpha"], curve, color=colour, linewidth=1.8, label=f"n = {n}")
        axes.plot(row[1], row[2], "o", color=colour, markersize=7, markerfacecolor="white", markeredgewidth=1.6)
        place = {"ha": "center", "va": "top"} if row[1] > 0.2 else {"ha": "right", "va": "top"}
        axes.annotate(n, (row[1], row[2]), (0 if row[1] > 0.2 else -4, -6), textcoords="offset points", **place)
    axes.plot([], [], "o", color="0.3", markerfacecolor="white", label="reference")
    axes.set(xlim=(-0.02, 1.02), ylim=(0.24, 0.56), xlabel="step size α")
    axes.set_ylabel(f"RMS error of the values, mean of the first {WALK_EPISODES} episodes")
    axes.set_title(f"n-step TD on the random walk of 19 states ({document['num_runs']:,} runs)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def draw_short_corridor(axes: Any, document: dict[str, Any]) -> None:
    """Mean return of each episode, a line for each setting, and the best that a policy of one number can get."""
    colours = ("#d55e00", "#0072b2", "#009e73", "#222222")
    for (label, curve), colour in zip(document["mean_return"].items(), colours, strict=True):
        name = label if label.startswith("baseline") else f"α = {label}"
        axes.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=1.1, label=_exponents(name))
    axes.axhline(
        BEST_RETURN, color="0.4", linestyle="--", linewidth=1.0, zorder=3, label=f"best policy, {BEST_RETURN:.2f}"
    )
    axes.set(xlim=(0, CORRIDOR_EPISODES), ylim=(-90, -8), xlabel="episode")
    axes.set_ylabel("sum of rewards in the episode, mean of the runs")
    axes.set_title(f"REINFORCE in the short corridor ({document['num_runs']:,} runs)")
    axes.legend(loc="lower right", frameon=False)


def _exponents(label: str) -> str:
    """2^-9 as mathematics."""
    return " ".join(f"$2^{{{word[2:].rstrip(',')}}}${',' * word.endswith(',')}" if word.startswith("2^") else word
                    for word in label.split())  # fmt: skip
