"""`ridgeline board`: the pages of a directory's runs, live, from a small server on this machine only.

It reads what is below its directory, writes nothing, and never imports what it finds.
"""

import json
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ridgeline import loopback, report

RENEW_SECONDS = 2  # how often the page asks
LIVE_SECONDS = 30.0  # what has changed since then is called live
MAX_ENTRIES = 200


class Board:
    """What the server answers, apart from HTTP."""

    def __init__(self, directory: Path):
        if not directory.is_dir():
            raise report.ReportError(f"{directory} is no directory; name one with runs, sweeps or comparisons")
        self.directory = directory.resolve()
        self._pages: dict[str, tuple[Any, bytes]] = {}
        self._lock = threading.Lock()  # one page is made at a time: the training wants the cores

    def entries(self) -> dict[str, Any]:
        """The list on the left, the newest first; the directory itself where it is a run, or holds several."""
        found = report.find(self.directory)
        rows = []
        for path in found:
            text, changed = report.summary(path)
            live = time.time() - changed < LIVE_SECONDS
            name = path.relative_to(self.directory).as_posix()
            rows.append(
                {"path": name, "name": name, "text": text + (", live" if live else ""), "live": live, "at": changed}
            )
        rows.sort(key=lambda row: -row["at"])
        kind = report.kind_of(self.directory)
        runs = [path for path in found if report.kind_of(path) == "run"]
        first = []
        if kind is not None:
            first = [{"path": ".", "name": self.directory.name, "text": kind, "live": False, "at": 0}]
        elif len(runs) > 1:
            first = [{"path": ".", "name": "all runs", "text": f"{len(runs)} together", "live": False, "at": 0}]
        return {"directory": str(self.directory), "entries": [*first, *rows][:MAX_ENTRIES]}

    def page(self, name: str) -> bytes:
        """The document of an entry as JSON; what cannot be shown is a page that says why."""
        path = (self.directory / name).resolve()
        if not path.is_relative_to(self.directory):
            raise report.ReportError(f"{name} is not below {self.directory}")
        with self._lock:
            stamp = self._stamp(path)
            if name not in self._pages or self._pages[name][0] != stamp:
                try:
                    content = report.document(path)
                except ValueError as error:  # a run that is being written, or a damaged one: the board goes on
                    content = {"title": path.name, "subtitle": str(error), "sections": []}
                text = json.dumps(content | {"live": RENEW_SECONDS}, separators=(",", ":"))
                self._pages[name] = (stamp, text.encode())
            return self._pages[name][1]

    def _stamp(self, path: Path) -> list[Any]:
        """Changes whenever the page would."""
        inside = [path, *(report.find(path) if path.is_dir() and report.kind_of(path) != "run" else [])]
        return [[str(one), report.summary(one)[1]] for one in inside]


def serve(directory: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for a directory, bound but not yet serving; port 0: any that is free. Raises ReportError, PortError."""
    board = Board(Path(directory))
    page = report.render({"title": "Ridgeline", "live": RENEW_SECONDS}, "'self'").encode()
    answers: dict[str, loopback.Get] = {
        "/": lambda query: ("text/html", page),
        "/list.json": lambda query: ("application/json", json.dumps(board.entries()).encode()),
        "/page.json": lambda query: ("application/json", board.page(query.get("path", ["."])[0] or ".")),
    }
    return loopback.serve(answers, {}, port)
