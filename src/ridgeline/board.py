"""`ridgeline board`: the pages of a directory's runs, live, from a small server on this machine only.

It listens on the loopback address, and answers only requests that are addressed to it by that name: a page from
elsewhere that makes the browser ask here (DNS rebinding) names its own host, and is refused. It reads what is below its
directory, writes nothing, and never imports what it finds.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ridgeline import report

ADDRESS = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
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


def handler(board: Board, hosts: set[str]) -> type[BaseHTTPRequestHandler]:
    """The class that answers requests addressed to one of `hosts`."""
    answers: dict[str, Callable[[dict[str, list[str]]], tuple[str, bytes]]] = {
        "/": lambda query: (
            "text/html",
            report.render({"title": "Ridgeline", "live": RENEW_SECONDS}, "'self'").encode(),
        ),
        "/list.json": lambda query: ("application/json", json.dumps(board.entries()).encode()),
        "/page.json": lambda query: ("application/json", board.page(query.get("path", ["."])[0] or ".")),
    }

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "ridgeline", ""

        def do_GET(self) -> None:
            host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
            if host not in hosts or (origin is not None and origin.removeprefix("http://") not in hosts):
                return self._answer(403, "text/plain", b"this board answers requests from its own machine only\n")
            parts = urlsplit(self.path)
            if parts.path not in answers:
                return self._answer(404, "text/plain", b"there is no such page\n")
            try:
                kind, content = answers[parts.path](parse_qs(parts.query))
            except (ValueError, OSError) as error:
                return self._answer(404, "text/plain", f"{error}\n".encode())
            self._answer(200, kind, content)

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            for name, value in (
                ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"),
                ("Referrer-Policy", "no-referrer"), ("Cross-Origin-Resource-Policy", "same-origin"),
            ):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None: ...

    return Handler


def serve(directory: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for a directory, bound but not yet serving; port 0: any that is free. Raises ReportError."""
    board = Board(Path(directory))
    try:
        server = ThreadingHTTPServer((ADDRESS, port), BaseHTTPRequestHandler)
    except (OSError, OverflowError) as error:
        raise report.ReportError(f"port {port} cannot be used: {error}; choose another --port, or 0 for any") from error
    server.daemon_threads = True
    server.RequestHandlerClass = handler(board, {f"{name}:{server.server_port}" for name in NAMES})
    return server
