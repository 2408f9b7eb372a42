"""`ridgeline compare`: the work in sight while it goes on, and the tables that come of it."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ridgeline.comparison import Comparison, run
from ridgeline.comparison_runs import Interrupted, Population, Runner
from ridgeline.comparison_spec import Spec, SpecError, read
from ridgeline.lock import alone
from ridgeline.session import View
from ridgeline.stopping import Stop

LINE_SECONDS, DRAW_SECONDS = 10.0, 0.2
MAX_FAILURES = 20  # that are listed
AGGREGATES = {"iqm": "IQM", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}


class Progress(View):
    """One line that says how far the comparison is: redrawn on a terminal, printed now and then elsewhere."""

    def __init__(self, stream: IO[str], quiet: bool = False):
        self.stream, self.quiet = stream, quiet
        self.redraws = not quiet and stream.isatty()
        self.total = self.before = self.now = self.num_runs = 0
        self.label, self.place = "", ""
        self.begin = self._next = time.monotonic()

    def plan(self, total: int) -> None:
        """Steps of all runs that are missing."""
        self.total = total

    def start(self, training: Any, directory: Path | None) -> None:
        self.num_runs, self.first = training.num_runs, training.steps
        self.label = "" if directory is None else directory.name
        self.now = 0

    def update(self, metrics: dict[str, Any]) -> None:
        self.now = (metrics["steps"] - self.first) * self.num_runs
        if time.monotonic() >= self._next:
            self._draw()

    def finish(self, result: Any) -> None:
        self.before, self.now = self.before + self.now, 0

    def message(self, text: str) -> None:
        self._print(f"{self.label}: {text}")

    def say(self, text: str) -> None:
        """What belongs to no single training."""
        if not self.quiet:
            self._print(text)

    def stopping(self, text: str) -> None:
        self._print(text)

    def abandon(self) -> None: ...

    def close(self) -> None:
        if self.redraws:
            self._write("\r\x1b[K")

    def _draw(self) -> None:
        steps, passed = self.before + self.now, time.monotonic() - self.begin
        share = min(steps / max(self.total, 1), 1.0)
        left = passed * (1 - share) / share if share else 0.0
        speed = steps / max(passed, 1e-9)
        text = f"{100 * share:3.0f}%  {_duration(passed)} passed  {_duration(left)} left  {speed:,.0f} steps/s"
        self._next = time.monotonic() + (DRAW_SECONDS if self.redraws else LINE_SECONDS)
        if self.redraws:
            self._write(f"\r\x1b[K{text}  {self.label}"[:160])
        elif not self.quiet:
            self._print(f"{text}  {self.label}")

    def _print(self, text: str) -> None:
        self._write(("\r\x1b[K" if self.redraws else "") + text + "\n")

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self.stream.write(text)
            self.stream.flush()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


# -------------------------------------------------------------------------------------------------------------- command


def command(asked: Any) -> tuple[dict[str, Any] | None, int]:
    """What `ridgeline compare` does: (the result, None where it was stopped; the exit code)."""
    stream = sys.stderr if asked.json else sys.stdout
    view = Progress(stream, asked.quiet)
    stop = Stop(view)
    try:
        with stop:
            document = compare(asked.spec, asked.out, asked.threads, asked.minutes, view, stop)
    except Interrupted as interruption:
        print(f"ridgeline: stopped ({interruption}); the same command goes on from here", file=sys.stderr)
        return None, stop.exit_code if stop.number else 0
    finally:
        view.close()
    for line in lines(document):
        print(line, file=stream)
    return document, 0


def compare(path: str, out: str | None, threads: int | None, minutes: float | None, view: Progress, stop: Any) -> dict:
    """The result of the comparison in a file; runs what is missing. Raises Interrupted, InUse, SpecError."""
    spec = read(path)
    directory = Path(out) if out is not None else Path("runs") / f"compare-{Path(path).stem}"
    try:
        (directory / "populations").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"{directory}: cannot be made: {error.strerror}; name another --out") from error
    with alone(directory):
        comparison = Comparison(spec, directory)
        until = None if minutes is None else time.monotonic() + 60 * minutes
        runner = Runner(spec, directory, comparison.records, view, threads, stop, until, view.quiet)
        tuning = runner.missing(comparison.tuning())
        later = runner.missing(comparison.evaluation())
        view.plan(sum(population.steps for population in (*tuning, *later)))
        for line in plan(spec, comparison, tuning, later):
            view.say(line)
        document = run(comparison, runner)
    return {"directory": str(directory), **document}


def plan(spec: Spec, comparison: Comparison, tuning: list[Population], later: list[Population]) -> list[str]:
    """What will be run, in words."""
    runs = sum(len(population.cells) for population in (*tuning, *later))
    steps = sum(population.steps for population in (*tuning, *later))
    there = len({c.key for c in (*comparison.tuning(), *comparison.evaluation())}) - runs
    first = (
        f"{spec.name}: {len(spec.arms)} arms, {len(spec.tasks)} environments, seeds {spec.seeds[0]} to {spec.seeds[-1]}"
    )
    second = (
        f"{runs} runs are missing, {steps:,} steps in {len(tuning) + len(later)} populations; {max(there, 0)} are there"
    )
    return [first, second]


def lines(document: dict[str, Any]) -> list[str]:
    """The result as text: aggregates, environments, pairs, cost, verdict."""
    arms = document["arms"]
    width = max(len("score"), *(len(name) for name in arms))
    found = [f"{'score':<{width}}" + "".join(f"{title:>24}" for title in AGGREGATES.values())]
    for name, arm in arms.items():
        found.append(f"{name:<{width}}" + "".join(f"{shown(arm[key]):>24}" for key in AGGREGATES))
    for task in document["environments"]:
        best, random = (document["environments"][task][key] for key in ("best", "random"))
        found += ["", f"{task}: mean return (random play {random:.5g}, best known {best:.5g})"]
        for name, arm in arms.items():
            entry = arm["environments"][task]
            settings = ", ".join(f"{key} {value:g}" for key, value in entry["settings"].items())
            found.append(f"  {name:<{width}}{shown(entry['return'], 5):>30}   {settings}".rstrip())
    if document["pairs"]:
        found += ["", f"{'pairs':<{2 * width + 4}}{'difference of IQM':>26}{'probability':>24}{'p':>8}   better"]
    for pair in document["pairs"]:
        names = f"{pair['first']:<{width}} to {pair['second']}"
        said = "the same runs" if pair["same"] else pair["better"] or _undecided(pair)
        found.append(
            f"{names:<{2 * width + 4}}{shown(pair['iqm']):>26}{shown(pair['probability']):>24}"
            f"{pair['p_value']:>8.3f}   {said}"
        )
    found += [
        "",
        f"{'cost':<{width}}{'seconds per run':>18}{'tuning runs':>14}{'steps':>14}{'seconds':>10}{'sensitivity':>13}",
    ]
    for name, arm in arms.items():
        tuning = arm["tuning"]
        sensitivity = f"{tuning['sensitivity']:.3f}" if "sensitivity" in tuning else ""
        numbers = f"{arm['seconds']:>18.2f}{tuning['runs']:>14}{tuning['steps']:>14,}{tuning['seconds']:>10.0f}"
        found.append(f"{name:<{width}}{numbers}{sensitivity:>13}".rstrip())
    failures = [f"{name}: {failure}" for name, arm in arms.items() for failure in arm["failures"]]
    if len(failures) > MAX_FAILURES:
        failures[MAX_FAILURES:] = [f"{len(failures) - MAX_FAILURES} more, in result.json"]
    found += ["", *(f"failed: {failure}" for failure in failures), *document["notes"], document["verdict"]]
    return found


def shown(interval: list[Any], digits: int = 3) -> str:
    """`0.812 [0.7, 0.9]`; `?` for an end that is not known."""
    first, *ends = (None if end is None else float(end) for end in interval)
    text = [f"{end:.{digits}g}" if end is not None and abs(end) != float("inf") else "?" for end in (first, *ends)]
    return f"{text[0]} [{text[1]}, {text[2]}]"


def _undecided(pair: dict[str, Any]) -> str:
    return "undecided" + (f"; 10% needs {pair['runs_needed']} seeds" if pair["runs_needed"] else "")
