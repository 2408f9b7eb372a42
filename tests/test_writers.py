"""Metrics for other tools: what is written, read again with the tool itself where it is installed."""

import importlib.util
import math

import numpy as np
import pytest

from ridgeline import cli, writers
from ridgeline.metrics import read_lines
from ridgeline.session import View, train
from ridgeline.writers import Several, WriterError, scalars, written

ARGUMENTS = "train cartpole --runs 2 --steps 384 --num-envs 4 --rollout-length 16 --threads 1 --quiet".split()


def needs(name: str) -> pytest.MarkDecorator:
    absent = [module for module in writers.WRITERS[name].needs if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: pip install .[{name}]")


def wrote(folder, name: str) -> dict[int, dict[str, float]]:
    """steps -> scalars that metrics.jsonl has, of a training with this writer."""
    assert cli.main([*ARGUMENTS, "--out", str(folder / "run"), "--writers", name]) == 0
    lines = read_lines(folder / "run" / "metrics.jsonl")
    return {line["steps"]: scalars({key: np.array(value, float) for key, value in line.items()}) for line in lines}


def test_scalars():
    metrics = {
        "iteration": 3, "steps": 96, "learning_rate": np.array([0.5, 0.5]), "wall_seconds": 2.0,
        "episode_return": np.array([1.0, np.nan, 4.0]), "entropy": np.array([np.nan, np.nan]),
    }  # fmt: skip
    assert scalars(metrics) == {
        "learning_rate": 0.5, "wall_seconds": 2.0, "episode_return": 2.5,
        "episode_return/run_0": 1.0, "episode_return/run_2": 4.0,
    }  # fmt: skip
    assert scalars({"episode_return": np.array([7.0])}) == {"episode_return": 7.0}


def test_without_writers_nothing_is_between():
    view = View()
    assert written(view, ()) is view


def test_all_are_told_and_only_the_first_speaks():
    class Told(View):
        def __init__(self):
            self.calls = []

        def start(self, training, directory):
            self.calls.append("start")

        def update(self, metrics):
            self.calls.append(metrics["steps"])

        def message(self, text):
            self.calls.append(text)

        def finish(self, result):
            self.calls.append("finish")

    first, second = Told(), Told()
    view = Several([first, second])
    view.message("a warning")
    train("bandit", total_steps=8192, num_threads=1, view=view)
    assert second.calls == ["start", 4096, 8192, "finish"] and first.calls == ["a warning", *second.calls]


def test_a_missing_library_is_named_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else True)
    assert cli.main([*ARGUMENTS, "--out", str(tmp_path / "run"), "--writers", "wandb"]) == 2
    assert "--writers wandb needs wandb: pip install ridgeline[wandb]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(WriterError, match="need a run directory"):
        writers.TensorBoard().start(None, None)


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = wrote(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"policy_loss", "episode_return", "episode_return/run_1"} <= set(events.Tags()["scalars"])
    for name in ("policy_loss", "learning_rate"):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({steps: values[name] for steps, values in expected.items()}, rel=1e-5)


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow(tmp_path):
    import mlflow

    expected = wrote(tmp_path, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{(tmp_path / 'run').resolve() / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ridgeline")
    [run] = client.search_runs([experiment.experiment_id])
    found = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "policy_loss")}
    assert found == pytest.approx({steps: values["policy_loss"] for steps, values in expected.items()}, rel=1e-4)
    assert run.data.params["environment"] == "cartpole" and run.info.status == "FINISHED"


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_is_offline(tmp_path):
    import wandb

    expected = wrote(tmp_path, "wandb")
    wandb.teardown()  # its service writes the rest of the file
    [run] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    content = run.read_bytes()
    assert b"policy_loss" in content and b"episode_return/run_1" in content
    assert len(expected) == 6 and not math.isnan(expected[64]["policy_loss"])
