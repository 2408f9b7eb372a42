"""Arms of a comparison that are tuned by a sweep of a given budget: one sweep per environment, kept in the directory.

DIR/sweeps/ARM-ENVIRONMENT is what `ridgeline sweep` makes, and goes on like it. Its recommended setting is what the arm
runs with on the evaluation seeds; all that the sweep has run, its fresh seeds too, is the arm's tuning.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ridgeline import components
from ridgeline.comparison_runs import Interrupted
from ridgeline.comparison_spec import Arm, Spec, SpecError, Task
from ridgeline.run_directory import describe
from ridgeline.sweep import conduct, plan, space
from ridgeline.sweep.progress import Progress
from ridgeline.training import available_cores


def directory_of(directory: Path, arm: Arm, task: Task) -> Path:
    return directory / "sweeps" / re.sub(r"[^A-Za-z0-9_.]+", "-", f"{arm.name}-{task.name}")


def plan_of(spec: Spec, arm: Arm, task: Task, num_workers: int) -> plan.Plan:
    """The sweep of an arm on an environment: settings that the file gives are fixed, every run has full length.

    Raises: SpecError where an evaluation seed is one of its own; SpaceError.
    """
    made = arm.build(task, {})
    given = {name: value for name, value in arm.sweep.items() if name != "space"}
    searched = space.make(made, {*arm.settings, *task.settings}, None, arm.sweep.get("space"))
    runs = given.get("trials", 100) * len(spec.tuning_seeds)
    found = plan.Plan(
        task.environment, task.parameters, **{kind: describe([one]) for kind, one in made.items()},
        space=searched.document(), steps=task.steps, seeds=len(spec.tuning_seeds), seed=spec.tuning_seeds[0],
        places=min(64, max(4 * len(spec.tuning_seeds), -(-runs // (10 * num_workers)))), **given,
    )  # fmt: skip
    shared = sorted({*found.tuning_seeds, *found.evaluation_seeds} & set(spec.seeds))
    if shared:
        raise SpecError(f"arm {arm.name!r}: its sweep uses seed {shared[0]}, an evaluation seed; move first_seed")
    return found


def tune(
    spec: Spec, directory: Path, arm: Arm, task: Task, stop: Callable[[], str | None] | None, quiet: bool,
    num_threads: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Conduct the sweep of an arm on an environment to its end, or go on with it; {"settings", and what it cost}.

    Raises: Interrupted, SpecError, SpaceError, LedgerError, WorkersFailed.
    """
    own, num_workers = directory_of(directory, arm, task), num_threads or available_cores()
    if not (own / conduct.FILE).exists():
        conduct.create(own, None, own.name, plan_of(spec, arm, task, num_workers))
    elif (result := _result(own)) is not None:
        return result
    names = {kind: name for kind, name in arm.components.items() if not components.is_built_in(kind, name)}
    if task.environment.endswith(".py") or ":" in task.environment:
        names["environment"] = task.environment
    asked = stop or (lambda: None)
    made = plan_of(spec, arm, task, num_workers)
    progress = Progress(sys.stderr, made, quiet)
    try:
        workers = conduct.local(num_workers, own)
        conduct.conduct(
            *conduct.find(own), own, workers, progress, lambda: asked() is not None, names, num_workers
        )  # fmt: skip
    finally:
        progress.close()
    result = _result(own)
    if result is None:
        raise Interrupted(asked() or "interrupt")
    return result


def _result(own: Path) -> dict[str, Any] | None:
    """What a sweep that is over has found; None where it is not. Raises SpecError where nothing was."""
    try:
        document = json.loads((own / conduct.RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not document.get("finished"):
        return None
    if document["recommended"] is None:
        raise SpecError(f"{own} has no trial that finished; look at its result.json")
    storage, study = conduct.find(own)
    settings = dict(document["recommended"]["configuration"])
    ledger = conduct.Ledger(storage)
    try:
        made = plan.Plan(**ledger.study(study).specification)
    finally:
        ledger.close()
    settings = made.space["groups"].get(settings.pop(space.GROUP, ""), {}) | settings
    return {
        "settings": settings,
        "runs": sum(document["num_runs"].values()),
        "steps": sum(document["steps"].values()),
        "seconds": sum(document["seconds"].values()),
        "seeds": sorted({*made.tuning_seeds, *made.evaluation_seeds}),
    }
