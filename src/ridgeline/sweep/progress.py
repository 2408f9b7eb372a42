"""A sweep on the terminal: how far it is, the front, the time left; one table that changes, or a line now and then."""

import time
from collections.abc import Sequence
from typing import Any, TextIO

from ridgeline.sweep import outcome
from ridgeline.sweep.outcome import Outcome
from ridgeline.sweep.plan import Plan
from ridgeline.sweep.records import OVER, Trial
from ridgeline.sweep.space import STEPS

LINE_SECONDS = 15.0  # between two lines where there is no terminal
ROWS = 12  # of the front


class Progress:
    """Shows a sweep on `stream`: live where that is a terminal, else in lines; not at all where `quiet`."""

    def __init__(self, stream: TextIO, plan: Plan, quiet: bool = False):
        self.stream, self.plan, self.quiet = stream, plan, quiet
        self.started, self.first_steps, self.told = time.monotonic(), -1, 0.0
        self._live: Any = None
        if not quiet and stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=stream), auto_refresh=False, transient=True)
            self._live.start()

    def message(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)

    def update(self, trials: Sequence[Trial], num_workers: int) -> None:
        if self.quiet:
            return
        line = self.line(trials, num_workers)
        if self._live is not None:
            from rich.console import Group

            self._live.update(Group(line, front_table(trials, self.plan)), refresh=True)
        elif time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            self.message(line)

    def line(self, trials: Sequence[Trial], num_workers: int) -> str:
        """How far it is, in one line."""
        plan = self.plan
        runs = [run for trial in trials for run in trial.runs]
        over = [run for run in runs if run.state in OVER]
        steps = sum(run.steps for run in over)
        if self.first_steps < 0:
            self.first_steps = steps
        elapsed = time.monotonic() - self.started
        rate = (steps - self.first_steps) / max(elapsed, 1e-9)
        states = [trial.state for trial in trials]
        counts = [f"{states.count(state)} {state}" for state in (*OVER, "running") if state in states]
        phase = "candidates on fresh seeds" if any(run.kind == "evaluation" for run in runs) else "trials"
        expected = _expected_steps(trials, plan)
        left = f", about {duration((expected - steps) / rate)} left" if rate > 0 and expected > steps else ""
        best = max((one.score for one in outcome.outcomes(trials)), default=None)
        score = "" if best is None else f", best score {best:.5g}"
        begun = f"{len(trials)} of {plan.trials} asked for ({', '.join(counts) or 'none begun'})"
        return (
            f"{phase}: {begun}, {len(over)} runs, "
            f"{steps / 1e6:.2f} M steps, {rate / 1e3:.0f} k/s with {num_workers} workers{score}; "
            f"{duration(elapsed)} passed{left}"
        )

    def stopping(self, text: str) -> None:
        self.message(f"{text}; runs on their way begin anew with --resume")

    def abandon(self) -> None:
        self.close()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _expected_steps(trials: Sequence[Trial], plan: Plan) -> float:
    """Steps of the whole sweep, as far as one can know."""
    over = [trial for trial in trials if trial.state in OVER]
    each = sum(run.steps for trial in over for run in trial.of("tuning")) / len(over) if over else 0.0
    tuning = each * plan.trials if plan.budget is None else min(each * plan.trials, plan.budget)
    return tuning + plan.steps * plan.candidates * plan.fresh_seeds


def front_table(trials: Sequence[Trial], plan: Plan) -> Any:
    """The front as a table of rich."""
    from rich.table import Table

    found = outcome.front(outcome.outcomes(trials), plan.cost)
    found = found if len(found) <= ROWS else [*found[: ROWS // 2], *found[-(ROWS - ROWS // 2) :]]
    table = Table(title=f"the front: score against {plan.cost}", title_justify="left", box=None, pad_edge=False)
    names = list(dict.fromkeys(name for one in found for name in one.configuration if name != STEPS))
    for title in ("trial", "score", "fresh seeds", "steps", "seconds", *names):
        table.add_column(title, justify="right")
    for one in found:
        table.add_row(*cells(one), *(short(one.configuration.get(name, "")) for name in names))
    return table


def cells(one: Outcome) -> list[str]:
    """Trial, score, score on fresh seeds, steps, seconds."""
    fresh = "" if one.fresh_score is None else f"{one.fresh_score:.5g}"
    fresh += "" if one.fresh_error is None else f" ± {one.fresh_error:.2g}"
    return [str(one.trial), f"{one.score:.5g}", fresh, f"{one.steps:,.0f}", f"{one.seconds:.2f}"]


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """90 s, 12 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
