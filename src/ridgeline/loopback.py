"""A small web server for this machine only.

It listens on the loopback address, and answers only requests that are addressed to it by that name: a page from
elsewhere that makes the browser ask here (DNS rebinding, or a form that posts) names its own host or origin, and is
refused.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ADDRESS = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
MAX_BODY = 4096

Answer = tuple[str, bytes]  # media type, content
Get = Callable[[dict[str, list[str]]], Answer]  # of the query
Post = Callable[[dict[str, Any]], Answer]  # of the JSON object that was sent


class PortError(ValueError):
    """A port that cannot be used; one line with the reason and the way out."""


def serve(gets: Mapping[str, Get], posts: Mapping[str, Post], port: int = 0) -> ThreadingHTTPServer:
    """A server with an answer for each path, bound but not yet serving; port 0: any that is free.

    An answer that raises ValueError or OSError is a 404 with the message. Raises PortError.
    """
    try:
        server = ThreadingHTTPServer((ADDRESS, port), BaseHTTPRequestHandler)
    except (OSError, OverflowError) as error:
        raise PortError(f"port {port} cannot be used: {error}; choose another --port, or 0 for any") from error
    server.daemon_threads = True
    server.RequestHandlerClass = _handler(gets, posts, {f"{name}:{server.server_port}" for name in NAMES})
    return server


def _handler(gets: Mapping[str, Get], posts: Mapping[str, Post], hosts: set[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "ridgeline", ""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._respond(gets, parts.path, lambda answer: answer(parse_qs(parts.query)))

        def do_POST(self) -> None:
            def send(answer: Post) -> Answer:
                body = json.loads(self.rfile.read(length))
                if not isinstance(body, dict):
                    raise ValueError("send a JSON object")
                return answer(body)

            text = self.headers.get("Content-Length", "")
            length = int(text) if text.isdecimal() else -1
            if not 0 <= length <= MAX_BODY:
                self.close_connection = True
                return self._answer(400, "text/plain", b"send a small JSON object\n")
            self._respond(posts, urlsplit(self.path).path, send)

        def _respond(self, answers: Mapping[str, Any], path: str, call: Callable[[Any], Answer]) -> None:
            host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
            if host not in hosts or (origin is not None and origin.removeprefix("http://") not in hosts):
                self.close_connection = True  # what was sent is not read
                return self._answer(403, "text/plain", b"this server answers requests from its own machine only\n")
            if path not in answers:
                self.close_connection = True
                return self._answer(404, "text/plain", b"there is no such page\n")
            try:
                kind, content = call(answers[path])
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
            with suppress(ConnectionError):  # whoever asked has gone
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None: ...

    return Handler
