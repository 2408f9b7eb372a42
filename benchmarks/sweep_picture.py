"""The picture of docs/sweep.md: `python benchmarks/sweep_picture.py DIR [FILE.png]`, of the sweep in DIR."""

import io
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from ridgeline.sweep import conduct, outcome
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.plan import Plan
from ridgeline.sweep.sampler import values

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "sweep_front.png"
COLOURS = 48  # of a PNG, which has a palette of its own


def draw(directory: Path, file: Path) -> None:
    """Every trial, the front, and what the candidates scored on fresh seeds."""
    storage, name = conduct.find(directory)
    ledger = Ledger(storage)
    study = ledger.study(name)
    plan, trials = Plan(**study.specification), ledger.trials(study.study)
    ledger.close()
    found = outcome.outcomes(trials)
    best, line = outcome.recommended(found, plan.cost), outcome.front(found, plan.cost)
    figure = Figure((8, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    stopped = [known for trial in trials if trial.state == "pruned" and (known := values(trial, plan.cost))]
    axes.plot([c for _, c in stopped], [s for s, _ in stopped], "x", color="0.6", label="stopped, as hopeless")
    axes.plot([one.cost(plan.cost) for one in found], [one.score for one in found], "o", ms=4, color="#6699cc",
              label="finished, on tuning seeds")  # fmt: skip
    told = [(one.cost(plan.cost), one.score if one.fresh_score is None else one.fresh_score) for one in line]
    axes.plot([c for c, _ in told], [s for _, s in told], "-", drawstyle="steps-post", color="#b0341f", label="front")
    fresh = [one for one in found if one.fresh_score is not None]
    axes.errorbar(
        [one.cost(plan.cost) for one in fresh], [one.fresh_score or 0.0 for one in fresh],
        [one.fresh_error or 0.0 for one in fresh], fmt="D", ms=5, color="#b0341f", label="candidates, on fresh seeds",
    )  # fmt: skip
    if best is not None:
        axes.plot(best.cost(plan.cost), best.fresh_score, "*", ms=18, mec="k", color="#f2b134", label="recommended")
    axes.set(xscale="log", xlabel=f"{plan.cost} of one run", ylabel=plan.metric.replace("_", " "))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(COLOURS).save(file, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE)
