"""What `ridgeline train` settles before it trains: what is resumed, where it is written, how it is shown."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ridgeline.arguments import Parsed, UsageError

RESUMABLE = {
    "resume", "steps", "until", "minutes", "threads", "json", "quiet", "writers", "algorithm", "estimator", "policy",
}  # fmt: skip


def resumed(parsed: Parsed, names: dict[str, str]) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Of the run to continue: (environment, names of its components, those that were named again)."""
    from ridgeline.run_directory import read_config

    directory: str = parsed.options.resume
    refused = [f"--{name.replace('_', '-')}" for name in sorted(parsed.given - RESUMABLE)]
    if refused:
        raise UsageError(
            f"a resumed run goes on as it is: leave {', '.join(refused)} away, or start anew from its weights with "
            f"--init {directory}"
        )
    config = read_config(Path(directory))
    chosen: dict[str, Any] = {kind: name for kind, name in names.items() if kind in parsed.given}
    return (
        parsed.options.environment or config["environment"],
        {kind: chosen.get(kind, config[kind]["name"]) for kind in names},
        chosen,
    )


def again(environment: str, names: dict[str, str]) -> tuple[str, str]:
    """What `train --resume RUN`, and `watch RUN` and `evaluate RUN`, must name again because it is the user's own."""
    own = {kind: name for kind, name in names.items() if name.endswith(".py")}
    again = {"environment": environment} if environment.endswith(".py") or ":" in environment else {}
    used = again | {kind: name for kind, name in own.items() if kind == "policy"}
    first = "".join(f" {name}" for name in again.values()) + "".join(f" --{kind} {name}" for kind, name in own.items())
    return first, "".join(f" --{kind} {name}" for kind, name in used.items())


def view_of(asked: Any, names: Sequence[str], again: tuple[str, str]) -> Any:
    """What shows the training: live in a terminal, else lines; nothing with --quiet."""
    from rich.console import Console

    from ridgeline.view import LiveView, PlainView, QuietView

    stream = sys.stderr if asked.json else sys.stdout
    if asked.quiet:
        return QuietView(sys.stderr, names)
    console = Console(file=stream)
    if stream.isatty() and not console.is_dumb_terminal:
        return LiveView(console, names, asked.minutes, again)
    return PlainView(stream, names, asked.minutes, again)


def claim(out: str | None, environment: str, algorithm: str) -> Path:
    """The run directory; a new one of its own where none was asked for."""
    if out is not None:
        return Path(out)
    words = [re.sub(r"[^A-Za-z0-9_.]+", "-", Path(name).stem) for name in (environment, algorithm)]
    base = Path("runs", "-".join([*words, time.strftime("%Y%m%d-%H%M%S")]))
    for number in range(1, 1000):
        directory = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{directory}: cannot be made: {error.strerror}; choose another --out") from None
    raise UsageError(f"{base} and 999 more exist; choose another --out")
