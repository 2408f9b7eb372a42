"""One HTML file of a directory: its data, style and script inside, so that it opens anywhere, without a network."""

import json
import os
import time
from pathlib import Path
from typing import Any

from ridgeline import report_comparison, report_runs, report_sweep
from ridgeline.metrics import read_lines
from ridgeline.run_directory import RunError
from ridgeline.sweep import conduct

PAGE = Path(__file__).parent / "page"
DEPTH = 4  # of folders that are searched for runs
MAX_SHOWN = 64  # run directories on the page of a folder, the newest


class ReportError(ValueError):
    """A directory of which there is nothing to show; one line with the way out."""


def kind_of(directory: Path) -> str | None:
    """run, comparison, sweep, or None: what a directory itself is."""
    if (directory / "populations").is_dir() or (directory / "runs.jsonl").exists():  # all of it, or its numbers
        return "comparison"
    if (directory / conduct.LEDGER).exists() or (directory / conduct.FILE).exists():
        return "sweep"
    return "run" if (directory / "config.json").exists() else None


def find(directory: Path, depth: int = DEPTH) -> list[Path]:
    """Directories of runs, comparisons and sweeps below, those of which nothing is known passed through."""
    found = []
    if depth < 0:
        return found
    with os.scandir(directory) as entries:
        children = sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    for child in children:
        found += [child] if kind_of(child) else find(child, depth - 1)
    return found


def document(directory: str | Path) -> dict[str, Any]:
    """What the page of a directory shows. Raises ReportError, RunError, SpecError, LedgerError."""
    directory = Path(directory)
    if not directory.is_dir():
        raise ReportError(
            f"{directory} is no directory; name one of a run, a sweep or a comparison, or a folder of runs"
        )
    kind = kind_of(directory)
    if kind == "comparison":
        page = (
            report_comparison.comparison(directory) if (directory / "result.json").exists() else unfinished(directory)
        )
    elif kind == "sweep":
        page = report_sweep.sweep(*conduct.find(directory))
    elif kind == "run":
        page = report_runs.run(directory)
    else:
        runs = [path for path in find(directory) if kind_of(path) == "run"]
        if not runs:
            raise ReportError(f"{directory} holds no run, sweep or comparison; name a directory that does")
        runs.sort(key=lambda path: (path / "config.json").stat().st_mtime)
        page = report_runs.folder(directory, runs[-MAX_SHOWN:])
    return page | {"footer": f"{directory}, {time.strftime('%Y-%m-%d %H:%M')}"}


def unfinished(directory: Path) -> dict[str, Any]:
    """A comparison that is still running: its populations."""
    runs = [path for path in find(directory / "populations") if kind_of(path) == "run"]
    if not runs:
        raise ReportError(f"{directory} holds no run yet; ridgeline compare has only begun")
    page = report_runs.folder(directory / "populations", runs[-MAX_SHOWN:])
    return page | {"title": directory.name, "subtitle": "A comparison that has not ended: its populations so far"}


def render(content: dict[str, Any], connect: str = "'none'") -> str:
    """The page of a document as HTML, whole in itself. `connect`: what its script may ask, by the page's own policy."""
    # what stands in a script element may hold no tag: the text of a name may be anybody's
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    parts = {
        "title": "Ridgeline",
        "connect": connect,
        "style": (PAGE / "page.css").read_text(encoding="utf-8"),
        "script": "".join((PAGE / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js")),
        "document": text,
    }
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"{{{{{name}}}}}", part, 1)
    return page


def write(directory: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a directory, to report.html in it or to `out`; returns where. Raises ReportError and others."""
    path = Path(directory) / "report.html" if out is None else Path(out)
    page = render(document(directory))
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}; name another --out") from error
    return path


def summary(directory: Path) -> tuple[str, float]:
    """(a line on a directory for the board's list, when it last changed)."""
    kind = kind_of(directory)
    names = {
        "run": ["metrics.jsonl", "config.json"],
        "comparison": ["result.json", conduct.LEDGER, f"{conduct.LEDGER}-wal"],
    }
    files = [directory / name for name in names.get(str(kind), [conduct.LEDGER, f"{conduct.LEDGER}-wal"])]
    changed = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    if kind == "run":
        lines = read_lines(directory / "metrics.jsonl")
        return f"run, {lines[-1]['steps']:,} steps" if lines else "run, no steps yet", changed
    ended = kind == "comparison" and not (directory / "result.json").exists()
    return f"{kind}, running" if ended else str(kind), changed


__all__ = ["ReportError", "RunError", "document", "find", "kind_of", "render", "summary", "write"]
