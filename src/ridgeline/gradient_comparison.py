"""Clouds of gradients in numbers, a table and a picture; `gradient_cloud` has the definitions and draws them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MEASURES = ("cosine", "bias", "variance", "signal_to_noise", "scale")
BLOCKS = 8  # of successive batches, to whose means the error of the mean is due
POINTS = 256  # most that a panel of the picture shows
ARROW = {"arrowstyle": "->", "color": "black", "linewidth": 1.4, "shrinkA": 0.0, "shrinkB": 0.0}
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass
class Cloud:
    """The gradients of one estimator."""

    label: str
    kind: str  # the estimator's name: one colour
    gradient: np.ndarray = field(repr=False)  # (R, n, P) float32
    numbers: dict[str, Any] = field(default_factory=dict)  # `compare`


# ------------------------------------------------------------------------------------------------------------ comparing


def true_parts(total: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Parts of the true gradient per step, (k, P): their mean is Σ total / Σ steps, their spread that of the ratio.

    h_j = S_j / L − (L_j / L − 1) g,   g = Σ S / Σ L,   L the mean of L_j
    """
    mean = total.sum(0) / steps.sum()
    share = steps[:, None] / steps.mean()
    return total / steps.mean() - (share - 1) * mean


def describe_truth(parts: np.ndarray) -> dict[str, float]:
    """How well the true gradient is known: its length, its standard error in units of it, its cosine with the truth as
    this error makes it, and the cosine between its two halves."""
    mean, square, error = truth_of(parts)
    halves = parts[0::2].mean(0), parts[1::2].mean(0)
    return {
        "length": math.sqrt(max(square, 0.0)),
        "relative_standard_error": math.sqrt(error / square) if square > 0 else math.inf,
        "cosine": math.sqrt(max(square, 0.0) / (mean @ mean)),
        "cosine_of_halves": float(halves[0] @ halves[1] / math.sqrt((halves[0] @ halves[0]) * (halves[1] @ halves[1]))),
    }


def truth_of(parts: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The true gradient, its squared length without noise, its squared standard error."""
    mean, count = parts.mean(0), len(parts)
    error = float(((parts - mean) ** 2).sum() / (count * (count - 1)))
    return mean, float(mean @ mean) - error, error


def compare(gradient: np.ndarray, parts: np.ndarray) -> dict[str, Any]:
    """The table's numbers of one estimator, each [estimate, lower, upper] of a 95% interval, NaN where the mean
    gradient cannot be told from 0; and the 10% and 90% quantiles of the cosine, `cosine_spread`.

    Args: gradient (R, n, P); parts (k, P), whose mean is the true gradient.
    """
    runs, count = gradient.shape[:2]
    mean = gradient.mean(1, dtype=np.float64)
    square = np.einsum("rnp,rnp->rn", gradient, gradient, dtype=np.float64)
    noise = (square.mean(1) - (mean**2).sum(1)) * count / (count - 1)  # of one batch
    length = np.sqrt(square)
    unit = np.einsum("rnp,rn->rp", gradient, 1 / np.maximum(length, 1e-300), dtype=np.float64) / count
    blocks = np.stack([block.mean(1, dtype=np.float64) for block in np.array_split(gradient, min(count, BLOCKS), 1)], 1)
    error = ((blocks - blocks.mean(1, keepdims=True)) ** 2).sum((1, 2)) / (blocks.shape[1] * (blocks.shape[1] - 1))
    signal = (mean**2).sum(1) - error

    def measures(runs: np.ndarray, parts: np.ndarray) -> np.ndarray:
        truth, truth_square, _ = truth_of(parts)
        along = float((mean[runs] @ truth).mean())
        q, v = float(signal[runs].mean()), float(noise[runs].mean())
        if q <= 0 or truth_square <= 0:
            return np.full(len(MEASURES), np.nan)
        scale = max(along, 0.0) / q
        cosine = float((unit[runs] @ truth).mean()) / math.sqrt(truth_square)
        bias = 1 - scale * along / truth_square  # its square
        return np.array([cosine, bias, scale**2 * v / truth_square, q / max(v, 1e-300), scale])

    numbers = jackknife(measures, np.arange(runs), parts)
    numbers[1:] = numbers[1:].clip(0.0)
    numbers[MEASURES.index("bias")] = np.sqrt(numbers[MEASURES.index("bias")].clip(None, 1.0))
    truth, truth_square, _ = truth_of(parts)
    cosine = np.einsum("rnp,p->rn", gradient, truth) / (
        np.maximum(length, 1e-300) * math.sqrt(max(truth_square, 1e-300))
    )
    found = {name: [float(one) for one in numbers[k]] for k, name in enumerate(MEASURES)}
    return found | {"cosine_spread": [float(one) for one in np.quantile(cosine, (0.1, 0.9))]}


def jackknife(statistic: Callable, runs: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """statistic(runs, parts) and its 95% interval, (measures, 3).

    Each of m runs, and each of m parts, is left out in turn: the variance is the sum over both of
    (m−1)/m Σᵢ (θ₋ᵢ − mean θ₋ᵢ)².
    """
    variance = np.zeros(len(MEASURES))
    for count, without in (
        (len(runs), lambda i: statistic(np.delete(runs, i), parts)),
        (len(parts), lambda i: statistic(runs, np.delete(parts, i, 0))),
    ):
        left_out = np.stack([without(i) for i in range(count)])
        variance += (count - 1) / count * ((left_out - left_out.mean(0)) ** 2).sum(0)
    estimate, width = statistic(runs, parts), student(len(runs) - 1) * np.sqrt(variance)
    return np.stack([estimate, estimate - width, estimate + width], 1)


def student(freedom: int) -> float:
    """The 97.5% quantile of Student's t, by Cornish and Fisher: 1% off at 3 degrees of freedom, less beyond."""
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


# ------------------------------------------------------------------------------------------------------- for the reader


def table(clouds: list[Cloud]) -> Any:
    """The numbers as a table of Rich's."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("estimator", no_wrap=True)
    for title in ("cosine", "bias", "variance", "signal/noise", "scale"):
        made.add_column(title, justify="right", no_wrap=True)
    for cloud in clouds:
        intervals = [_interval(*cloud.numbers[name]) for name in ("cosine", "bias", "variance")]
        made.add_row(cloud.label, *intervals, *(_number(cloud.numbers[name][0]) for name in MEASURES[3:]))
    return made


def _interval(estimate: float, lower: float, upper: float) -> str:
    if math.isnan(estimate):
        return "-"
    return f"{_number(estimate)} ({_number(lower)} to {_number(upper)})"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.1f}"


def plane(clouds: list[Cloud], parts: np.ndarray) -> list[np.ndarray]:
    """The gradients of each cloud in the plane that the picture shows, (points, 2).

    The first axis is the true gradient, the second the direction across it in which the gradients of all estimators
    together extend most (the first principal direction of their second moment). Each estimator's gradients are in units
    of the root of their mean square: a perfect estimator is the point (1, 0), and a mean at (x, 0) has cosine x or so.
    """
    mean, _, _ = truth_of(parts)
    first = mean / max(float(np.linalg.norm(mean)), 1e-300)
    units, along = [], []
    for cloud in clouds:
        gradient = cloud.gradient.reshape(-1, cloud.gradient.shape[-1])
        size = math.sqrt(max(float(np.einsum("ip,ip->i", gradient, gradient, dtype=np.float64).mean()), 1e-300))
        units.append(gradient / np.float32(size))
        along.append(units[-1] @ first)
    second = np.random.default_rng(0).standard_normal(len(first))
    for _ in range(30):  # power iteration
        second = sum(((unit @ second) @ unit) / len(unit) for unit in units)
        second -= (second @ first) * first
        second /= max(float(np.linalg.norm(second)), 1e-300)
    return [np.stack([x, unit @ second], 1) for x, unit in zip(along, units, strict=True)]


def draw(picture: Any, clouds: list[Cloud], parts: np.ndarray, title: str) -> None:
    """On a figure of Matplotlib's: every cloud in a panel of its own, and the cosines as bars."""
    kinds = list(dict.fromkeys(cloud.kind for cloud in clouds))
    colours = [PALETTE[kinds.index(cloud.kind) % len(PALETTE)] for cloud in clouds]
    left, right = picture.subfigures(1, 2, width_ratios=(2.4, 1.0))
    columns = min(5, len(clouds))
    panels = left.subplots(-(-len(clouds) // columns), columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, cloud, points, colour in zip(panels, clouds, plane(clouds, parts), colours, strict=False):
        panel.axhline(0.0, color="0.85", linewidth=0.8, zorder=0)
        panel.axvline(0.0, color="0.85", linewidth=0.8, zorder=0)
        panel.scatter(*points[:POINTS].T, s=5, color=colour, alpha=0.45, linewidths=0)
        panel.annotate("", (1.0, 0.0), (0.0, 0.0), arrowprops=ARROW)
        panel.plot(*points.mean(0), "o", color=colour, markeredgecolor="black", markersize=4.5)
        panel.set(xlim=(-0.95, 1.85), ylim=(-1.4, 1.4), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        panel.set_title(cloud.label, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(clouds) :]:
        panel.set_visible(False)
    left.supxlabel("along the true gradient (arrow)", fontsize=9)
    left.supylabel("across it, where all the clouds together extend most", fontsize=9)
    left.suptitle(title, fontsize=11)
    axes = right.subplots()
    found = np.nan_to_num(np.array([cloud.numbers["cosine"] for cloud in clouds]))
    place = np.arange(len(clouds))
    axes.barh(place, found[:, 0], color=colours, height=0.7)
    axes.errorbar(found[:, 0], place, xerr=np.abs(found[:, 1:] - found[:, :1]).T, fmt="none", ecolor="black", capsize=2)
    axes.set(yticks=place, xlim=(min(0.0, float(found.min()) * 1.1), 1.0), ylim=(len(clouds) - 0.4, -0.6))
    axes.set_yticklabels([cloud.label for cloud in clouds], fontsize=8)
    axes.set_xlabel("cosine with the true gradient", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
