"""What a person sees of a training: a live table in a terminal, or plain lines in a file.

Both are `session.View`s and draw from the training's own thread, between two iterations: there is no thread of their
own to fight for a core. A drawing waits until 200 times the cost of the one before has passed, so that the view never
takes more than half a percent of the time, however short the iterations are.
"""

import math
import os
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

from ridgeline.meter import LABELS, Meter

DRAW_SECONDS = 0.125
LINE_SECONDS = 5.0
COST = 200  # a drawing may follow after so many times its own duration

COLOURS = {"act": "cyan", "environment": "green", "estimate": "yellow", "learn": "magenta", "other": "bright_black"}
REASONS = {
    "finished": "Finished",
    "until": "Stopped: every run reached the return asked for",
    "minutes": "Stopped: the time is up",
    "interrupt": "Interrupted",
    "terminate": "Terminated",
    "frozen": "Stopped: no run is left",
}
AGAIN = ("", "")  # after the run directory: arguments of train --resume, and of watch and evaluate
LABEL, NUMBER = 20, 10  # widths of the table's columns


# -------------------------------------------------------------------------------------------------------------- drawing


Line = list[tuple[str, str]]  # pieces of text with their styles; rich's Text would take three times as long


def draw(meter: Meter, width: int, ascii_only: bool = False, heading: str = "", note: str = "") -> list[Line]:
    """The live view as lines of at most `width` characters; below 66 the curves go, below 50 the extremes too."""
    lines = [*_wrapped(heading, "bold", width), _bar(meter, width, ascii_only), *_wrapped(_clock(meter), "", width), []]
    lines += [*_shares(meter, width, ascii_only), [], *_table(meter, width, ascii_only)]
    failures = [f"run {run} is frozen: {why}" for run, why in meter.training.failures.items()]
    if len(failures) > 3:
        failures[3:] = [f"and {len(failures) - 3} more runs are frozen"]
    for failure in failures:
        lines += _wrapped(failure, "red", width)
    return lines + _wrapped(note, "yellow", width)


def _wrapped(text: str, style: str, width: int) -> list[Line]:
    return [[(line, style)] for line in textwrap.wrap(text, width)]


def _bar(meter: Meter, width: int, ascii_only: bool) -> Line:
    share = meter.progress
    caption = f" {100 * share:3.0f}%" + ("" if width < 60 else f"  {meter.steps:,} of {meter.total_steps:,} steps")
    size = max(width - len(caption), 4)
    full = round(size * share)
    return [
        (("#" if ascii_only else "━") * full, "green"),
        (("-" if ascii_only else "━") * (size - full), "bright_black"),
        (caption, ""),
    ]


def _clock(meter: Meter) -> str:
    together = f" over {meter.num_runs} runs" if meter.num_runs > 1 else ""
    speed = f"{number(meter.steps_per_second)} steps/s{together}"
    return f"{duration(meter.elapsed)} passed   {duration(meter.seconds_left)} left   {speed}"


def _shares(meter: Meter, width: int, ascii_only: bool) -> list[Line]:
    """Where each second goes: a legend, and a strip in the same colours where there is room."""
    shares = meter.shares
    legend: list[Line] = [[("time", "")]]
    for phase, colour in COLOURS.items():
        text = f"  {phase} {100 * shares[phase]:.0f}%"
        if sum(len(piece) for piece, _ in legend[-1]) + len(text) > width:
            legend.append([("    ", "")])
        legend[-1].append((text, colour))
    if len(legend) > 1 or ascii_only:
        return legend
    strip: Line = [("      ", "")]
    end, place = 0, 0.0
    for phase, colour in COLOURS.items():
        place += shares[phase] * min(width - 6, 74)
        strip.append(("█" * (round(place) - end), colour))
        end = round(place)
    return [*legend, strip]


def _table(meter: Meter, width: int, ascii_only: bool) -> list[Line]:
    levels = " .:-=+*#%@" if ascii_only else "▁▂▃▄▅▆▇█"
    several = meter.num_runs > 1 and width >= LABEL + 3 * NUMBER
    titles = ("mean", "min", "max") if several else ("mean",)
    space = min(width - LABEL - NUMBER * len(titles) - 2, 40)
    lines: list[Line] = []
    if meter.num_runs > 1:
        lines.append([(" " * LABEL + "".join(title.rjust(NUMBER) for title in titles), "bright_black")])
    for name, label in LABELS.items():
        if name in meter.spread:
            numbers = "".join(number(one).rjust(NUMBER) for one in meter.spread[name][: len(titles)])
            curve = "  " + meter.curves[name].draw(space, levels) if space >= 14 else ""
            bold = "bold" if name == "episode_return" else ""
            lines.append([(f"{label:<{LABEL}}{numbers}", bold), (curve, "blue")])
    return lines


def number(value: float) -> str:
    """At most nine characters: `1,234`, `123.4`, `1.23`, `0.0123`, `1.2e-05`; `-` for what is not known."""
    size = abs(value)
    if not math.isfinite(value):
        return "-"
    if size >= 1e7:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 1e-3 or size == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`; `-` for what is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def heading(training: Any, names: Sequence[str]) -> str:
    """`cartpole, ppo, gae, mlp: 8 runs of 1,000,000 steps, seeds 0 to 7`."""
    seeds = list(training.seeds)
    runs = f"{len(seeds)} runs" if len(seeds) > 1 else "1 run"
    said = f"seeds {min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"{', '.join(names)}: {runs} of {training.total_steps:,} steps, {said}"


def closing(result: Any, again: tuple[str, str] = AGAIN) -> list[str]:
    """The last lines of both views: why it stopped, what was reached, where it is and what to do with it."""
    runs = f"{result.num_runs} runs of " if result.num_runs > 1 else ""
    lines = [
        f"{REASONS.get(result.stopped, result.stopped)} after {runs}{result.total_steps:,} steps in "
        f"{result.wall_seconds:.1f} s ({result.steps_per_second:,.0f} steps/s)"
    ]
    returns = [one for one in result.episode_return if one is not None]
    if returns:
        extremes = f", from {number(min(returns))} to {number(max(returns))} over the runs" if len(returns) > 1 else ""
        lines.append(f"Episode return {number(sum(returns) / len(returns))}{extremes}")
    if result.failures and result.stopped != "frozen":
        lines.append(f"Frozen on the way: run {', '.join(map(str, result.failures))}")
    if result.run_dir is not None:
        run = quoted(result.run_dir)
        lines.append(f"The run is in {result.run_dir}")
        if result.stopped in ("interrupt", "terminate", "minutes", "until"):
            lines.append(f"  continue  ridgeline train --resume {run}{again[0]}")
        if result.stopped != "frozen":
            lines.append(f"  watch     ridgeline watch {run}{again[1]}")
            lines.append(f"  evaluate  ridgeline evaluate {run}{again[1]}")
    return lines


def quoted(path: str) -> str:
    """A path as a shell takes it, on Windows too."""
    return f'"{path}"' if set(path) & set(" ()&;'$*?") else path


# ---------------------------------------------------------------------------------------------------------------- views


class LiveView:
    """A table in the terminal that is drawn anew several times a second.

    Args: console: of the terminal; names: of environment, algorithm, estimator and policy; minutes: after which the
    training stops; again: see AGAIN.
    """

    def __init__(
        self, console: Console, names: Sequence[str], minutes: float | None = None, again: tuple[str, str] = AGAIN
    ):
        self.console, self.names, self.minutes, self.again = console, names, minutes, again
        self.meter: Meter | None = None
        self.result: Any = None
        self.note = ""
        self.num_drawings, self.drawing_seconds = 0, 0.0
        self._next = 0.0
        self._busy = False
        self._heading = f"{names[0]}: preparing (the first time takes longer)"
        self._live = Live(self, console=console, auto_refresh=False, transient=True)

    def prepare(self) -> None:
        """Show at once that something happens."""
        self._live.start(refresh=True)

    def start(self, training: Any, directory: Path | None) -> None:
        self.meter = Meter(training, self.minutes)
        self._heading = heading(training, self.names)
        self._live.transient = False
        self._live.start()
        self._draw()

    def update(self, metrics: dict[str, Any]) -> None:
        assert self.meter is not None
        self.meter.take(metrics)
        if time.perf_counter() >= self._next:
            self._draw()

    def message(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, highlight=False)

    def stopping(self, text: str) -> None:
        """From a signal handler, which may run in the middle of a drawing."""
        self.note = text
        if not self._busy:
            self._draw()

    def finish(self, result: Any) -> None:
        self.result, self.note = result, ""
        self._draw()
        self._live.stop()
        self.console.print()
        for line in closing(result, self.again):
            self.console.print(line, markup=False, highlight=False, soft_wrap=line.startswith("  "))

    def close(self) -> None:
        """Give the terminal back; nothing happens the second time."""
        self._live.stop()

    def abandon(self) -> None:
        """From a signal handler just before the process ends: only show the cursor again."""
        with suppress(OSError, ValueError):
            os.write(self.console.file.fileno(), b"\n\x1b[?25h")

    def _draw(self) -> None:
        self._busy = True
        begin = time.perf_counter()
        if self.meter is not None:
            self.meter.mark()
        self._live.refresh()
        end = time.perf_counter()
        self.num_drawings, self.drawing_seconds = self.num_drawings + 1, self.drawing_seconds + end - begin
        self._next = end + max(DRAW_SECONDS, COST * (end - begin))
        self._busy = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.meter is None:
            lines: list[Line] = [[(self._heading, "")], [(self.note, "yellow")]]
        else:
            lines = draw(self.meter, options.max_width, options.ascii_only, self._heading, self.note)
        for line in lines:
            for text, style in line:
                yield Segment(text, console.get_style(style) if style else None)
            yield Segment.line()


class PlainView:
    """One line at the start, about every five seconds, and at the end; ASCII only, for files and other programs."""

    def __init__(
        self, file: IO[str], names: Sequence[str], minutes: float | None = None, again: tuple[str, str] = AGAIN
    ):
        self.file, self.names, self.minutes, self.again = file, names, minutes, again
        self.meter: Meter | None = None
        self.result: Any = None
        self._shown = 0  # steps on the last line
        self._next = 0.0
        self._busy = False

    def prepare(self) -> None: ...

    def start(self, training: Any, directory: Path | None) -> None:
        self.meter = Meter(training, self.minutes, window=1)
        self._shown = self.meter.steps
        self._print(heading(training, self.names) + (f", in {directory}" if directory is not None else ""))
        self._next = time.perf_counter()  # the first line comes with the first iteration

    def update(self, metrics: dict[str, Any]) -> None:
        assert self.meter is not None
        self.meter.take(metrics)
        now = time.perf_counter()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            self._print(self._line())

    def message(self, text: str) -> None:
        self._print(text)

    def stopping(self, text: str) -> None:
        if not self._busy:
            self._print(text)

    def finish(self, result: Any) -> None:
        self.result = result
        if self.meter is not None and self.meter.steps != self._shown:
            self._print(self._line())
        for line in closing(result, self.again):
            self._print(line)

    def close(self) -> None: ...

    def abandon(self) -> None: ...

    def _line(self) -> str:
        meter = self.meter
        assert meter is not None
        meter.mark()
        self._shown = meter.steps
        parts = [
            f"{100 * meter.progress:.0f}%", f"{meter.steps:,} steps", f"{duration(meter.elapsed)} passed",
            f"{duration(meter.seconds_left)} left", f"{number(meter.steps_per_second)} steps/s",
        ]  # fmt: skip
        for name, label in LABELS.items():
            if name in meter.spread:
                mean, low, high = meter.spread[name]
                extremes = name == "episode_return" and meter.num_runs > 1 and math.isfinite(mean)
                parts.append(f"{label} {number(mean)}" + (f" ({number(low)} to {number(high)})" if extremes else ""))
        parts.append("time " + " ".join(f"{phase} {100 * share:.0f}%" for phase, share in meter.shares.items()))
        return ", ".join(parts)

    def _print(self, text: str) -> None:
        self._busy = True
        with suppress(OSError):  # a full disk or a closed pipe ends the lines, not the training
            print(text, file=self.file, flush=True)
        self._busy = False


class QuietView(PlainView):
    """Warnings only."""

    def start(self, training: Any, directory: Path | None) -> None: ...

    def update(self, metrics: dict[str, Any]) -> None: ...

    def stopping(self, text: str) -> None: ...

    def finish(self, result: Any) -> None:
        self.result = result
