"""The workers of this machine: one process each, one core each, started anew when they die."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEATHS = 20  # of all workers together: then something else is wrong


class WorkersFailed(RuntimeError):
    """The workers of a sweep do not stay alive; the message has what the last one said."""


class LocalWorkers:
    """`count` worker processes; `check` keeps them alive. What they say is in the files worker-*.log of `directory`.

    Args: asked: the arguments of `worker.work`, all but the name.
    """

    def __init__(self, count: int, directory: Path, asked: Mapping[str, Any]):
        self.directory, self.asked = directory, dict(asked)
        self.deaths = 0
        self._processes: dict[str, subprocess.Popen] = {}
        self._number = 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        self._number += 1
        name = f"{socket.gethostname()}:{os.getpid()}:{self._number}"
        # one thread each: threads of a matrix library would only wait for one another
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with open(self._log(name), "wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "ridgeline.sweep.worker", json.dumps(self.asked | {"name": name})],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
            )  # fmt: skip

    def _log(self, name: str) -> Path:
        return self.directory / f"worker-{name.rpartition(':')[2]}.log"

    def check(self) -> list[str]:
        """Start anew those that died; returns their names. Raises WorkersFailed where that does not help."""
        dead = []
        for name, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self._processes[name]
            if code == 0:
                continue
            self.deaths += 1
            said = self._log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if code == 2 or self.deaths > MAX_DEATHS:
                last = said[-1].removeprefix("ridgeline: ") if said else f"it ended with code {code}"
                raise WorkersFailed(f"a worker cannot go on: {last}; all that it said is in {self._log(name)}")
            dead.append(name)
            self._start()
        return dead

    def stop(self, seconds: float = 20.0) -> None:
        """End them: they give back what they have, unless they take longer than so many seconds."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + seconds
        for process in self._processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes = {}
