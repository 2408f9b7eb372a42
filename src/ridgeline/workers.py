"""Objects that live in worker processes and answer method calls: one process each, all calls at once.

A worker is this file, run as a script: it imports nothing of Ridgeline, and no user's `__main__` is imported again, so
a script or a notebook needs no guard. Requests and replies are pickles in the worker's standard input and output (what
the object prints goes to standard error). A worker ends when its input ends, so also when its parent is killed. It does
not end by Ctrl+C or SIGTERM, which reach it too when a whole job is stopped: its parent decides what is finished first.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Sequence
from typing import Any

_PATIENCE = 5.0  # seconds that a closed worker has to finish
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(RuntimeError):
    """A call that failed in a worker: which, the exception's type (None: the process died), message and trace."""

    def __init__(self, worker: int, kind: str | None, message: str, trace: str = ""):
        super().__init__(message)
        self.worker, self.kind, self.trace = worker, kind, trace


class Workers:
    """One worker process for each of the pickled functions `factories`; each builds its object by calling its function.

    Raises WorkerError where an object cannot be built.
    """

    def __init__(self, factories: Sequence[bytes]):
        self._processes: list[subprocess.Popen] = []
        self._end = weakref.finalize(self, _end, self._processes)
        try:
            for _ in factories:
                self._processes.append(_start())
            for process in self._processes:
                _write(process, sys.path)
        except BaseException:
            self.close()
            raise
        self._exchange([(None, (factory,)) for factory in factories])

    def call(self, method: str, arguments: Sequence[tuple]) -> list[Any]:
        """What `method` of each worker's object returns, given its own tuple of arguments.

        Raises WorkerError, for the first worker that failed.
        """
        return self._exchange([(method, one) for one in arguments])

    def _exchange(self, requests: list[tuple]) -> list[Any]:
        try:
            for worker, request in enumerate(requests):
                self._try(_write, worker, request)
            replies = [self._try(_read, worker) for worker in range(len(requests))]
        except BaseException:
            # After Ctrl+C or a death other replies are still to come, and the next call would take them for its own.
            self.close()
            raise
        for worker, (ok, value) in enumerate(replies):
            if not ok:
                raise WorkerError(worker, *value)
        return [value for _, value in replies]

    def _try(self, function, worker: int, *arguments):
        process = self._processes[worker]
        try:
            return function(process, *arguments)
        except (EOFError, OSError, pickle.UnpicklingError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            raise WorkerError(worker, None, f"the worker process ended with exit code {process.poll()}") from None

    def close(self) -> None:
        """End the processes; what does not end within five seconds is killed."""
        self._end()


def _start() -> subprocess.Popen:
    environment = {**dict.fromkeys(_ONE_THREAD, "1"), **os.environ}
    # A process group of its own keeps the terminal's Ctrl+C away.
    group: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    # -P: this file's folder must not come before the libraries.
    command = [sys.executable, "-P", os.path.abspath(__file__)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **group)


def _write(process: subprocess.Popen, message) -> None:
    assert process.stdin is not None
    pickle.dump(message, process.stdin, protocol=5)
    process.stdin.flush()


def _read(process: subprocess.Popen):
    assert process.stdout is not None
    return pickle.load(process.stdout)


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # it has died with a request unread
                if pipe is not None:
                    pipe.close()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Serve requests (method, arguments) until the input ends; the first one, without a method, builds the object."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN: programs that an environment starts would inherit it.
        signal.signal(number, lambda *_: None)
    target: Any = None
    try:
        sys.path[:] = pickle.load(reader)
        while True:
            method, arguments = pickle.load(reader)
            try:
                if method is None:
                    target, value = pickle.loads(arguments[0])(), None
                else:
                    value = getattr(target, method)(*arguments)
                reply = pickle.dumps((True, value), protocol=5)
            except Exception as error:
                reply = pickle.dumps((False, (type(error).__name__, str(error), traceback.format_exc())))
            writer.write(reply)
            writer.flush()
    except (EOFError, OSError):
        pass  # the parent has closed the pipe, or died
    finally:
        with contextlib.suppress(Exception):
            target.close()
        with contextlib.suppress(OSError):
            writer.close()


if __name__ == "__main__":
    main()
