"""A training from start to end: metrics, checkpoints, exact resume, stopping; and opening a run directory again."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ridgeline import checkpoint, components, run_directory
from ridgeline.environments import make
from ridgeline.lock import alone
from ridgeline.metrics import MetricsFile
from ridgeline.run_directory import RunError
from ridgeline.training import Training, TrainingError, reached
from ridgeline.vector import EVALUATION, VectorEnv

CHECKPOINT_SECONDS = 60.0


class View:
    """What shows a training while it goes on; this one shows nothing."""

    def start(self, training: Training, directory: Path | None) -> None: ...
    def update(self, metrics: dict[str, Any]) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self, result: "Result") -> None: ...


@dataclasses.dataclass(kw_only=True)
class Trained:
    """Policies, one per run, and the environment that they were trained on."""

    policies: list[torch.nn.Module] = dataclasses.field(repr=False)
    trained_on: str | Path | ModuleType = dataclasses.field(repr=False)
    parameters: dict[str, Any] = dataclasses.field(repr=False, default_factory=dict)
    notes: list[str] = dataclasses.field(repr=False, default_factory=list)  # what to tell whoever uses them

    def make_env(
        self, num_envs: int, seed: int | Sequence[int] = 0, render: bool = False, **parameters: Any
    ) -> VectorEnv:
        """The environment for evaluation: its random streams are never those of training."""
        return make(self.trained_on, num_envs, seed, EVALUATION, {**self.parameters, **parameters}, render=render)


@dataclasses.dataclass
class Result(Trained):
    """What a training gives."""

    environment: str
    algorithm: str
    estimator: str
    num_runs: int
    total_steps: int  # of each run, done so far
    wall_seconds: float  # resumed sessions add up
    startup_seconds: float
    steps_per_second: float  # environment steps of all runs together in this session, start-up excluded
    episode_return: list[float | None]  # of each run: mean of its last 100 episodes; None before the first has ended
    run_dir: str | None
    stopped: str  # "finished", "until", "minutes", "interrupt", "terminate" or "frozen"
    failures: dict[int, str]  # run -> why it was frozen

    def document(self) -> dict[str, Any]:
        """All but the policies and what they were trained on, as JSON knows it."""
        inherited = {field.name for field in dataclasses.fields(Trained)}
        names = [field.name for field in dataclasses.fields(self) if field.name not in inherited]
        document = {name: getattr(self, name) for name in names}
        return document | {"failures": {str(run): why for run, why in self.failures.items()}}


def train(
    environment: str | Path | ModuleType | None = None,
    algorithm: Any = None,
    estimator: Any = None,
    policy: Any = None,
    *,
    total_steps: int | None = None,
    num_runs: int | None = None,
    seed: int | Sequence[int] | None = None,
    parameters: dict[str, Any] | None = None,
    num_threads: int | None = None,
    self_play: float | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    init: str | Path | None = None,
    until: float | None = None,
    minutes: float | None = None,
    view: View | None = None,
    stop: Callable[[], str | None] | None = None,
    started: float | None = None,
) -> Result:
    """Train R runs side by side and return their returns and policies.

    Args:
        environment, algorithm, estimator, policy, total_steps, num_runs, seed, parameters, num_threads, self_play:
            see `training.Training`; None gives its default.
        out: the run directory to make; None writes nothing.
        resume: a run directory to continue exactly. It knows everything but an environment, algorithm, estimator or
            policy of the user's own, which is named again. Nothing can be changed, except `total_steps` where no
            schedule depends on it.
        init: a run directory whose newest weights to start from.
        until: stop when every run's mean over its last 100 episodes is at least this.
        minutes: stop after this long.
        stop: asked once per iteration; a reason ("interrupt", "terminate") ends the training.
        started: `time.perf_counter()` when the program started, for `startup_seconds`.

    Raises: RunError, InUse, InvalidEnvironment, UnknownComponent, TrainingError, CheckpointError, ValueError.
    """
    started = time.perf_counter() if started is None else started
    view = view or View()
    named = {"algorithm": algorithm, "estimator": estimator, "policy": policy}
    asked = {"num_runs": num_runs, "seed": seed, "parameters": parameters, "self_play": self_play}
    with ExitStack() as held:
        if resume is not None:
            directory = Path(resume)
            fixed = [name for name, value in {**asked, "out": out, "init": init}.items() if value not in (None, {})]
            if fixed:
                raise RunError(f"a resumed run goes on as it is: leave {' and '.join(fixed)} away, or start a new run")
            held.enter_context(alone(directory))
            training, wall_seconds = _resume(directory, environment, named, total_steps, num_threads, view)
        else:
            if environment is None:
                raise RunError("name an environment, or a run directory to resume")
            directory, wall_seconds = None if out is None else Path(out), 0.0
            if directory is not None:
                run_directory.refuse_run(directory)
            given = {**named, **asked, "total_steps": total_steps, "num_threads": num_threads}
            training = Training(environment, **{name: value for name, value in given.items() if value is not None})
        held.callback(training.close)
        if init is not None:
            _initialise(training, Path(init), view)
        if resume is None and directory is not None:
            run_directory.make(directory)
            held.enter_context(alone(directory))
            run_directory.create(directory, training)
        return _loop(training, directory, wall_seconds, until, minutes, view, stop, started)


# ------------------------------------------------------------------------------------------------------------- the loop


def _loop(training, directory, wall_before, until, minutes, view, stop, started) -> Result:
    metrics_file = None if directory is None else MetricsFile(directory / "metrics.jsonl", training.iteration)
    view.start(training, directory)
    begin = saved_at = time.perf_counter()
    first_steps, told, reason = training.steps, set(), "finished"
    while reason == "finished" and not training.finished:
        metrics = training.iterate()
        now = time.perf_counter()
        metrics["wall_seconds"] = wall_before + now - begin
        if metrics_file is not None and (problem := metrics_file.append(metrics)):
            view.message(problem)
        for text in _news(training):
            if text not in told:
                view.message(text)
        told.update(_news(training))
        view.update(metrics)
        if all(training.frozen):
            reason = "frozen"
        elif stop is not None and (asked := stop()):
            reason = asked
        elif until is not None and reached(metrics, training.frozen, until):
            reason = "until"
        elif minutes is not None and now - begin > 60 * minutes:
            reason = "minutes"
        elif metrics_file is not None and now - saved_at > CHECKPOINT_SECONDS:
            _save(training, metrics_file, metrics["wall_seconds"], view)
            saved_at = time.perf_counter()
    seconds = time.perf_counter() - begin
    if metrics_file is not None and reason != "frozen":
        _save(training, metrics_file, wall_before + seconds, view)
    result = Result(
        str(training.shards[0].env.name), components.name_of(training.algorithm),
        components.name_of(training.estimator), training.num_runs, training.steps, wall_before + seconds,
        begin - started, (training.steps - first_steps) * training.num_runs / max(seconds, 1e-9),
        [None if np.isnan(value) else float(value) for value in training.episode_means()["episode_return"]],
        None if directory is None else str(directory), reason, training.failures,
        policies=training.policies(), trained_on=training.environment, parameters=training.parameters,
    )  # fmt: skip
    if directory is not None:
        try:
            checkpoint.write_json(directory / "summary.json", result.document())
        except checkpoint.CheckpointError as error:
            view.message(str(error))
    view.finish(result)
    if reason == "frozen":
        raise TrainingError(_nothing_left(training, directory))
    return result


def _news(training: Training) -> list[str]:
    """What a user must hear once."""
    seeds, failures = training.seeds, training.failures
    return [*training.warnings, *(f"run {run} (seed {seeds[run]}) is frozen: {failures[run]}" for run in failures)]


def _nothing_left(training: Training, directory: Path | None) -> str:
    run, why = next(iter(training.failures.items()))
    try:
        saved = None if directory is None else run_directory.newest(directory)
    except RunError:
        saved = None
    good = f"the last good checkpoint is {saved.path}" if saved else "no checkpoint had been written"
    return f"no run is left: run {run} was frozen because {why}; {good}"


def _save(training: Training, metrics_file: MetricsFile, wall_seconds: float, view: View) -> None:
    tensors, document = training.state_dict()
    document |= {"wall_seconds": wall_seconds, "versions": run_directory.versions(training)}
    try:
        metrics_file.flush()
        checkpoint.save(metrics_file.path.parent / "checkpoints", training.steps, tensors, document)
    except checkpoint.CheckpointError as error:
        view.message(f"{error}; training goes on, the last good checkpoint stays")


# ------------------------------------------------------------------------------------------------------ starting a loop


def _initialise(training: Training, directory: Path, view: View) -> None:
    """Give every run the weights that `directory` saved last."""
    saved = run_directory.newest(directory)
    if saved is None:
        raise RunError(f"{directory} has no checkpoint to start from")
    for text in run_directory.skipped(saved):
        view.message(text)
    try:
        training.load_policies(saved.tensors)
    except ValueError as error:
        raise RunError(f"{saved.path} does not fit: {error}; use the policy and the environment of that run") from error


def _resume(directory, environment, named, total_steps, num_threads, view) -> tuple[Training, float]:
    """A run directory's training where its newest checkpoint left it, and the seconds spent so far."""
    config = run_directory.read_config(directory)
    made = {kind: run_directory.component(kind, config, given) for kind, given in named.items()}
    source = run_directory.environment(config, environment)
    total = _total_steps(directory, config, made["algorithm"], total_steps)
    saved = run_directory.newest(directory)
    before = config["versions"] if saved is None else saved.document.get("versions", {})
    training = Training(
        source, **made, total_steps=total, seed=config["seeds"], parameters=config["parameters"],
        num_threads=num_threads or before.get("num_threads"), self_play=config.get("self_play"),
    )  # fmt: skip
    try:
        _continue(training, directory, config, saved, before, view)
        if total != config["total_steps"]:
            if total < training.steps:
                raise RunError(f"total_steps = {total:,} and the run has done {training.steps:,}; ask for more")
            run_directory.write_config(directory, config | {"total_steps": total})
    except BaseException:
        training.close()
        raise
    if training.finished:
        view.message(f"{directory} has already done its {training.total_steps:,} steps")
    return training, 0.0 if saved is None else saved.document["wall_seconds"]


def _total_steps(directory: Path, config: dict[str, Any], algorithm: Any, asked: int | None) -> int:
    """The steps of a resumed run; RunError where other steps would change a schedule that has begun."""
    if asked is None or asked == config["total_steps"]:
        return config["total_steps"]
    for one in algorithm if isinstance(algorithm, list) else [algorithm]:
        for name, value in vars(one).items():
            if name.startswith("anneal_") and value:
                raise RunError(
                    f"total_steps = {asked:,} would change the schedule of {name}, which falls over the run's "
                    f"{config['total_steps']:,} steps; leave it away, or start anew from the weights with "
                    f"--init {directory}"
                )
    return asked


def _continue(training, directory, config, saved, before, view) -> None:
    """Load the checkpoint, and say where the continuation is not the same to the last bit."""
    env = training.shards[0].env
    if env.digest != config["environment_digest"]:
        raise RunError(
            f"{config['environment']} has changed since this run was started; restore its source, or start anew from "
            f"the weights with --init {directory}"
        )
    if saved is None:
        view.message(f"{directory} has no checkpoint yet; it starts from the beginning")
        return
    for text in run_directory.skipped(saved):
        view.message(text)
    try:
        training.load_state_dict(saved.tensors, saved.document)
    except (KeyError, ValueError, TypeError) as error:
        raise RunError(f"{saved.path} is no checkpoint of this run: {error}") from error
    now = run_directory.versions(training)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            view.message(f"continues, not bit-identical: {name} was {before.get(name)} and is {now.get(name)}")
    if not env.resumes_exactly:
        view.message(f"continues, not bit-identical: {env.name} is an outside environment and starts new episodes")


# -------------------------------------------------------------------------------------------------------------- loading


@dataclasses.dataclass
class Run(Trained):
    """A run directory opened for evaluation."""

    directory: Path
    config: dict[str, Any]
    steps: int  # of each run, at the checkpoint
    skipped: list[tuple[Path, str]]


def load(directory: str | Path, environment: str | Path | ModuleType | None = None, policy: Any = None) -> Run:
    """The newest policies of a run directory. An environment or policy of the user's own must be named again.

    Raises: RunError, InvalidEnvironment, UnknownComponent.
    """
    directory = Path(directory)
    config = run_directory.read_config(directory)
    source = run_directory.environment(config, environment)
    made = run_directory.component("policy", config, policy)
    saved = run_directory.newest(directory)
    if saved is None:
        raise RunError(f"{directory} has no checkpoint yet")
    notes = run_directory.skipped(saved)
    notes += [f"run {run} was frozen: {why}" for run, why in saved.document.get("failures", {}).items()]
    stand_in = _StandIn(config["num_values"])
    training = Training(
        source, stand_in, stand_in, made, total_steps=1, seed=config["seeds"], parameters=config["parameters"],
        num_threads=1,
    )  # fmt: skip
    try:
        training.load_policies(saved.tensors)
        if training.shards[0].env.digest != config["environment_digest"]:
            notes.append(f"{config['environment']} is not what this run was trained on: its source differs")
        policies = training.policies()
    except ValueError as error:
        raise RunError(f"{saved.path} does not fit its config.json: {error}") from error
    finally:
        training.close()
    return Run(
        directory, config, saved.step, saved.skipped,
        policies=policies, trained_on=source, parameters=config["parameters"], notes=notes,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _StandIn:
    """Stands for the algorithm and the estimator where policies are only loaded."""

    num_values: int
    num_envs: int = 1
    rollout_length: int = 1
    learning_rate: float = 0.0

    def iterate(self, env, population, estimator):
        raise TypeError("a loaded run is not trained; resume it")

    def __call__(self, rollout, memory):
        raise TypeError("a loaded run is not trained; resume it")
