"""The metrics of a training for other tools: TensorBoard, Weights & Biases, MLflow; into the run directory, no network.

Each is an extra (`pip install ridgeline[tensorboard]`) and imported when it is asked for. What differs between runs is
written as its mean, and the return of each run beside; metrics.jsonl keeps everything.
"""

import importlib.util
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.run_directory import read_config
from ridgeline.session import Result, View


class WriterError(ValueError):
    """A tool that cannot be written for; one line with the way out."""


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of one iteration: of an array over runs the mean, and of `episode_return` each run's too."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        array = np.atleast_1d(np.asarray(value, float))
        finite = array[np.isfinite(array)]
        if len(finite):
            found[name] = float(finite.mean())
        if name == "episode_return" and len(array) > 1:
            found |= {f"{name}/run_{run}": float(one) for run, one in enumerate(array) if math.isfinite(one)}
    return {name: value for name, value in found.items() if name not in ("iteration", "steps")}


class TensorBoard(View):
    """Events in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    needs = ("tensorboard",)

    def start(self, training: Any, directory: Path | None) -> None:
        folder = _directory(directory) / "tensorboard"
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=training.steps + 1)

    def update(self, metrics: dict[str, Any]) -> None:
        for name, value in scalars(metrics).items():
            self.writer.add_scalar(name, value, metrics["steps"])

    def finish(self, result: Result) -> None:
        self.writer.close()


class WandB(View):
    """An offline run of Weights & Biases in RUN/wandb, which `wandb sync` uploads; WANDB_MODE=online does at once."""

    needs = ("wandb",)

    def start(self, training: Any, directory: Path | None) -> None:
        import wandb  # type: ignore[import-not-found]

        folder = _directory(directory)
        self.run = wandb.init(
            project="ridgeline", name=folder.name, dir=str(folder), config=read_config(folder),
            mode=os.environ.get("WANDB_MODE", "offline"), settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def update(self, metrics: dict[str, Any]) -> None:
        self.run.log(scalars(metrics), step=metrics["steps"])

    def finish(self, result: Result) -> None:
        self.run.finish()


class MLflow(View):
    """A run of MLflow in RUN/mlflow.db, or where MLFLOW_TRACKING_URI says."""

    needs = ("mlflow", "sqlalchemy", "alembic")  # the last two for its database

    def start(self, training: Any, directory: Path | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # type: ignore[import-not-found]

        folder = _directory(directory).resolve()
        client = mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"))
        found = client.get_experiment_by_name("ridgeline")
        experiment = client.create_experiment("ridgeline") if found is None else found.experiment_id
        self.client, self.entity = client, mlflow.entities
        self.run = client.create_run(experiment, run_name=folder.name).info.run_id
        for name, value in read_config(folder).items():
            client.log_param(self.run, name, value if isinstance(value, str) else json.dumps(value)[:500])

    def update(self, metrics: dict[str, Any]) -> None:
        now = int(1000 * metrics["wall_seconds"])
        values = [self.entity.Metric(name, value, now, metrics["steps"]) for name, value in scalars(metrics).items()]
        self.client.log_batch(self.run, metrics=values)

    def finish(self, result: Result) -> None:
        self.client.set_terminated(self.run)


WRITERS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Several(View):
    """A view and writers, told the same; the first speaks to people."""

    def __init__(self, views: Sequence[View]):
        self.views = views

    def start(self, training: Any, directory: Path | None) -> None:
        for view in self.views:
            view.start(training, directory)

    def update(self, metrics: dict[str, Any]) -> None:
        for view in self.views:
            view.update(metrics)

    def message(self, text: str) -> None:
        self.views[0].message(text)

    def finish(self, result: Result) -> None:
        for view in reversed(self.views):
            view.finish(result)


def written(view: View, names: Sequence[str]) -> View:
    """The view, with the writers of these names beside it. Raises WriterError where a library is missing."""
    for name in names:
        absent = [module for module in WRITERS[name].needs if importlib.util.find_spec(module) is None]
        if absent:
            raise WriterError(f"--writers {name} needs {', '.join(absent)}: pip install ridgeline[{name}]")
    return Several([view, *(WRITERS[name]() for name in dict.fromkeys(names))]) if names else view


def _directory(directory: Path | None) -> Path:
    if directory is None:
        raise WriterError("writers need a run directory; name one with out")
    return directory
