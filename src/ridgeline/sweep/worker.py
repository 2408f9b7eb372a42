"""A worker of a sweep: takes runs from the ledger, trains them side by side, writes down what they give.

It needs nothing but the ledger, so there may be any number, on any machine, and each may die at any moment: what it had
finished is there, and its leases expire.

`python -m ridgeline.sweep.worker JSON` is how a sweep starts those of its own machine.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ridgeline import run_directory
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.plan import Plan, Planner
from ridgeline.sweep.records import Run
from ridgeline.sweep.space import KINDS, Components, from_document
from ridgeline.sweep.trainer import Trainer

BEAT = 1.0  # seconds between two reports to the ledger
PAUSE = 0.3  # seconds to wait where there is nothing to do


def components_of(plan: Plan, named: dict[str, Any]) -> Components:
    """The components of a plan; one of the user's own must be in `named`. Raises run_directory.RunError."""
    config = vars(plan)
    return {kind: run_directory.component(kind, config, named.get(kind)) for kind in KINDS}


class Worker:
    """Works at one study until it is over, or until `stop()`.

    Args: ledger; study: its name; name: of the worker, its own in the ledger; named: environment and components of the
    user's own; lease_seconds: after which what it has is given to another, if nothing is heard of it.
    """

    def __init__(
        self,
        ledger: Ledger,
        study: str,
        name: str,
        named: dict[str, Any],
        lease_seconds: float,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.ledger, self.name, self.lease_seconds, self.stop = ledger, name, lease_seconds, stop
        found = ledger.study(study)
        self.study, self.plan = found.study, Plan(**found.specification)
        made = components_of(self.plan, named)
        environment = run_directory.environment(vars(self.plan), named.get("environment"))
        self.space = from_document(self.plan.space, made)
        self.planner = Planner(ledger, self.study, self.plan, made)
        self.trainer = Trainer(environment, self.plan.parameters, self.space.build, self.plan.metric, self.plan.steps)
        self.shape: str | None = None
        self.evaluates = False  # whether what it took last was of candidates
        self.bookkeeping = 0.0  # seconds spent on the ledger
        self.training = 0.0  # seconds of training
        self.processor = 0.0  # processor seconds of it

    def run(self) -> None:
        """Work until the study is over."""
        ended = threading.Event()
        threading.Thread(target=self._keep, args=(ended,), daemon=True).start()
        try:
            while not self.stop():
                self._fill()
                if not self.trainer.active:
                    if self.planner.step(self.name, self.lease_seconds):
                        return
                    time.sleep(PAUSE)
                    continue
                self._train()
        finally:
            ended.set()
            self.trainer.close()
            self.ledger.release(self.study, self.name)

    def _keep(self, ended: threading.Event) -> None:
        """Renew the leases in between, where an iteration takes longer than they do."""
        with suppress(Exception):  # what is wrong with the ledger, the worker itself will find
            while not ended.wait(self.lease_seconds / 4):
                self.ledger.extend(self.study, self.name, self.lease_seconds)

    def _fill(self) -> None:
        """Take what waits, as far as there are places."""
        if not self.trainer.active:
            self.shape = None
        fresh = self.evaluates and max(self.plan.places, self.plan.fresh_places)
        count = (fresh or self.plan.places) - len(self.trainer.active)
        if not self.trainer.can_grow:
            count = min(count, len(self.trainer.free))
        with self._booking():
            asked = (self.study, self.name, count, self.lease_seconds, self.shape)
            claims = self.ledger.claim(*asked) if count > 0 else []
        if not claims:
            self.trainer.shrink()
            return
        self.evaluates = claims[-1].kind == "evaluation"
        if self.shape != claims[0].shape:
            self.trainer.close()
            self.shape = claims[0].shape
        self._finish(self.trainer.add(claims))

    def _train(self) -> None:
        """Iterate until a run is over, or for a beat; then report."""
        start, begin, over = time.perf_counter(), time.process_time(), []
        while not over and time.perf_counter() - start < BEAT:
            over = self.trainer.iterate()
        self.training += time.perf_counter() - start
        self.processor += time.process_time() - begin
        self._finish(over)
        if self.trainer.active:
            with self._booking():
                held = self.ledger.extend(self.study, self.name, self.lease_seconds, self.trainer.take_points())
            self.trainer.drop(held)

    def _finish(self, over: list[Run]) -> None:
        if over:
            with self._booking():
                self.ledger.finish(self.study, self.name, over, self.trainer.take_points())
            self.trainer.leave(over)

    @contextmanager
    def _booking(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.bookkeeping += time.perf_counter() - start


def work(
    storage: str, study: str, name: str, named: dict[str, Any], lease_seconds: float,
    stop: Callable[[], bool] = lambda: False, ledger: Ledger | None = None,
) -> dict[str, float]:  # fmt: skip
    """Open the ledger, unless one is given, and work; returns the seconds that training and bookkeeping took."""
    import torch

    torch.set_num_threads(1)
    ledger = ledger or Ledger(storage)
    try:
        worker = Worker(ledger, study, name, named, lease_seconds, stop)
        worker.run()
        names = ("training", "processor", "bookkeeping")
        seconds = {one: float(getattr(worker, one)) for one in names}
        ledger.add_event(worker.study, "worker", {"name": name} | seconds)
        return seconds
    finally:
        ledger.close()


def main() -> int:
    """Work as the JSON says; ends with its parent, and by SIGTERM, giving back what it has."""
    asked, parent, stopped = json.loads(sys.argv[1]), os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the sweep's
    try:
        work(**asked, stop=lambda: bool(stopped) or os.getppid() != parent)
    except ValueError as error:
        print(f"ridgeline: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
