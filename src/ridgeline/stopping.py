"""Ctrl+C and SIGTERM while something long goes on: stop after this iteration, with everything saved."""

import os
import signal
import threading
from typing import Any

REASONS = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminate"}


class Stop:
    """Ctrl+C and SIGTERM while training: the first asks to stop after this iteration, a second exits at once."""

    def __init__(self, view: Any):
        self.view = view
        self.number = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python's rule; elsewhere nothing is caught
            self._before = {number: signal.signal(number, self._handle) for number in REASONS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> str | None:
        return REASONS.get(signal.Signals(self.number)) if self.number else None

    @property
    def exit_code(self) -> int:
        return 128 + self.number

    def _handle(self, number: int, frame: object) -> None:
        if self.number:
            self.view.abandon()
            os._exit(128 + number)  # threads and compiled loops would otherwise finish their iteration first
        self.number = number
        self.view.stopping("stopping after this iteration, then saving; Ctrl+C again exits at once")
