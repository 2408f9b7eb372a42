"""A sweep from start to end: the ledger, the workers of this machine, and what the plan says next."""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from ridgeline import checkpoint
from ridgeline.sweep import outcome
from ridgeline.sweep.database import LedgerError
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.local import LocalWorkers
from ridgeline.sweep.plan import Plan, Planner
from ridgeline.sweep.progress import Progress
from ridgeline.sweep.records import Trial
from ridgeline.sweep.worker import components_of

LOOK = 1.0  # seconds between two looks at the ledger
LEASE_SECONDS = 60.0
FILE, RESULT, LEDGER = "sweep.json", "result.json", "ledger.sqlite"  # of a sweep's directory


def create(directory: Path, storage: str | None, name: str, plan: Plan) -> None:
    """Write down a new sweep. Raises LedgerError where the directory or the ledger has it already."""
    if (directory / FILE).exists():
        raise LedgerError(
            f"{directory} already holds a sweep; choose another --out, or go on with --resume {directory}"
        )
    with closing(Ledger(storage or directory / LEDGER)) as ledger:
        ledger.create_study(name, "sweep", vars(plan))
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(directory / FILE, {"storage": storage, "study": name})


def find(directory: Path) -> tuple[str, str]:
    """(storage, study) of a sweep's directory. Raises LedgerError."""
    try:
        document = json.loads((directory / FILE).read_text(encoding="utf-8"))
        return str(document["storage"] or directory / LEDGER), str(document["study"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LedgerError(f"{directory} holds no sweep: there is no {FILE} that can be read") from None


def conduct(
    storage: str, study: str, directory: Path, workers: Callable[[dict[str, Any]], Any], progress: Progress,
    stop: Callable[[], Any], named: dict[str, Any], num_workers: int, lease_seconds: float = LEASE_SECONDS,
) -> list[Trial]:  # fmt: skip
    """Work at a sweep until it is over or `stop()`; returns its trials, and writes result.json.

    Args: workers: makes those of an executor, with `check` and `stop`, from the arguments of `worker.work`.
    """
    with closing(Ledger(storage)) as ledger:
        plan = Plan(**ledger.study(study).specification)
        planner = Planner(ledger, ledger.study(study).study, plan, components_of(plan, named), num_workers)
        asked = {"storage": storage, "study": study, "named": named, "lease_seconds": lease_seconds}
        over = _work(planner, lambda: workers(asked), progress, stop, lease_seconds)
        trials = ledger.trials(planner.study)
        document = outcome.document(trials, plan.cost) | {"environment": plan.environment, "finished": over}
        document["workers"] = ledger.events(planner.study, "worker")
        document["widened"] = [one["ranges"] for one in ledger.events(planner.study, "widened")]
    checkpoint.write_json(directory / RESULT, document)
    return trials


def _work(
    planner: Planner, workers: Callable[[], Any], progress: Progress, stop: Callable[[], Any], lease_seconds: float
) -> bool:
    """Let workers work until the sweep is over or `stop()`; whether it is over."""
    ledger, study, name = planner.ledger, planner.study, f"{socket.gethostname()}:{os.getpid()}"
    told: set[str] = set()
    hands = None
    try:
        if not (over := planner.step(name, lease_seconds)):
            hands = workers()
        while hands is not None and not over and not stop():
            time.sleep(LOOK)
            for dead in hands.check():
                ledger.release(study, dead)
                progress.message(f"a worker died; its runs begin anew elsewhere ({dead})")
            over = planner.step(name, lease_seconds)
            trials = ledger.trials(study)
            _tell(planner, trials, progress, told)
            progress.update(trials, len(ledger.workers(study)))
        return over
    finally:
        if hands is not None:
            hands.stop()
        ledger.release(study, name)


def _tell(planner: Planner, trials: list[Trial], progress: Progress, told: set[str]) -> None:
    """Say once what a user must hear."""
    news = []
    for event in planner.ledger.events(planner.study, "widened"):
        news += [
            f"{name} = {one['value']:.4g} of the best trial so far is at the {one['edge']} edge of its range; "
            f"it is searched from {one['low']:.4g} to {one['high']:.4g} from now on"
            for name, one in event["ranges"].items()
        ]
    news += [f"trial {trial.trial} failed: {trial.note}" for trial in trials if trial.state == "failed"]
    for text in news:
        if text not in told:
            told.add(text)
            progress.message(text)


def local(count: int, directory: Path) -> Callable[[dict[str, Any]], LocalWorkers]:
    """Workers of this machine, for `conduct`."""
    return lambda asked: LocalWorkers(count, directory, asked)
