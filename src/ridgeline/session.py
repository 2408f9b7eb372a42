"""A training with a run directory: configuration, metrics, checkpoints, exact resume, stopping.

    config.json     what was asked for; nothing in it is ever imported or executed
    metrics.jsonl   one line per iteration
    checkpoints/    the newest three
    summary.json    the result, written when the training ends
"""

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ridgeline import checkpoint, components
from ridgeline.environments import make
from ridgeline.metrics import MetricsFile
from ridgeline.training import Training, TrainingError, reached
from ridgeline.vector import EVALUATION, VectorEnv

FORMAT = 1
CHECKPOINT_SECONDS = 60.0


class RunError(ValueError):
    """A run directory that cannot be used; one line with the reason and the way out."""


class View:
    """What shows a training while it goes on; this one shows nothing."""

    def start(self, training: Training, directory: Path | None) -> None: ...
    def update(self, metrics: dict[str, Any]) -> None: ...
    def message(self, text: str) -> None: ...
    def finish(self, result: "Result") -> None: ...


@dataclasses.dataclass
class Result:
    """What a training gives."""

    environment: str
    algorithm: str
    estimator: str
    num_runs: int
    total_steps: int  # of each run, done so far
    wall_seconds: float
    startup_seconds: float
    steps_per_second: float  # environment steps of all runs together, start-up excluded
    episode_return: list[float | None]  # of each run: mean of its last 100 episodes; None before the first has ended
    run_dir: str | None
    stopped: str  # "finished", "until", "minutes", "interrupt", "terminate" or "frozen"
    failures: dict[int, str]  # run -> why it was frozen
    policies: list[torch.nn.Module] = dataclasses.field(repr=False)

    def document(self) -> dict[str, Any]:
        """All but the policies, as JSON knows it."""
        document = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "policies"}
        return document | {"failures": {str(run): why for run, why in self.failures.items()}}


def train(
    environment: str | Path | ModuleType | None = None,
    algorithm: Any = "ppo",
    estimator: Any = "gae",
    policy: Any = "mlp",
    *,
    total_steps: int = 1_000_000,
    num_runs: int | None = None,
    seed: int | Sequence[int] = 0,
    parameters: dict[str, Any] | None = None,
    num_threads: int | None = None,
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
        environment, algorithm, estimator, policy, total_steps, num_runs, seed, parameters, num_threads: see
            `training.Training`.
        out: the run directory to make; None writes nothing.
        resume: a run directory to continue exactly. Its configuration counts; of the arguments only `until`, `minutes`,
            and what it cannot hold: an environment, algorithm, estimator or policy that is the user's own.
        init: a run directory whose newest weights to start from.
        until: stop when every run's mean over its last 100 episodes is at least this.
        minutes: stop after this long.
        stop: asked once per iteration; a reason ("interrupt", "terminate") ends the training.
        started: `time.perf_counter()` when the program started, for `startup_seconds`.

    Raises: RunError, InvalidEnvironment, UnknownComponent, TrainingError, ValueError.
    """
    started = time.perf_counter() if started is None else started
    view = view or View()
    document: dict[str, Any] = {"wall_seconds": 0.0}
    if resume is not None:
        training, directory, document = _resume(
            Path(resume), environment, algorithm, estimator, policy, total_steps, num_threads, view
        )
    else:
        if environment is None:
            raise RunError("name an environment, or a run directory to resume")
        training = Training(
            environment, algorithm, estimator, policy, total_steps=total_steps, num_runs=num_runs, seed=seed,
            parameters=parameters, num_threads=num_threads,
        )  # fmt: skip
        directory = None if out is None else Path(out)
        if directory is not None:
            _create(directory, training)
    try:
        if init is not None:
            saved = _newest(Path(init), view)
            training.load_policies(saved.tensors)
        return _loop(training, directory, document["wall_seconds"], until, minutes, view, stop, started)
    finally:
        training.close()


def _loop(training, directory, wall_before, until, minutes, view, stop, started) -> Result:
    metrics_file = None if directory is None else MetricsFile(directory / "metrics.jsonl", training.iteration)
    view.start(training, directory)
    begin = saved_at = time.perf_counter()
    first_steps, told, reason, metrics = training.steps, set(), "finished", None
    while not training.finished:
        metrics = training.iterate()
        now = time.perf_counter()
        metrics["wall_seconds"] = wall_before + now - begin
        if metrics_file is not None and (problem := metrics_file.append(metrics)):
            view.message(problem)
        for run, why in training.failures.items():
            if run not in told:
                view.message(f"run {run} (seed {training.seeds[run]}) is frozen at step {training.steps}: {why}")
                told.add(run)
        while training.warnings and "ratio" not in told:
            view.message(training.warnings[0])
            told.add("ratio")
        view.update(metrics)
        asked = stop() if stop is not None else None
        if all(training.frozen):
            reason = "frozen"
        elif asked:
            reason = asked
        elif until is not None and reached(metrics, training.frozen, until):
            reason = "until"
        elif minutes is not None and now - begin > 60 * minutes:
            reason = "minutes"
        if reason != "finished":
            break
        if directory is not None and now - saved_at > CHECKPOINT_SECONDS:
            _save(training, directory, metrics["wall_seconds"], view)
            saved_at = time.perf_counter()
    seconds = time.perf_counter() - begin
    if directory is not None and reason != "frozen":
        _save(training, directory, wall_before + seconds, view)
    last = training.episode_means()[0]
    result = Result(
        str(training.shards[0].env.name), components.name_of(training.algorithm),
        components.name_of(training.estimator), training.num_runs, training.steps, wall_before + seconds,
        begin - started, (training.steps - first_steps) * training.num_runs / max(seconds, 1e-9),
        [None if np.isnan(value) else float(value) for value in last],
        None if directory is None else str(directory), reason, training.failures, training.policies(),
    )  # fmt: skip
    if directory is not None:
        try:
            checkpoint.write_json(directory / "summary.json", result.document())
        except checkpoint.CheckpointError as error:
            view.message(str(error))
    view.finish(result)
    if reason == "frozen":
        raise TrainingError(_all_frozen(training, directory))
    return result


def _all_frozen(training: Training, directory: Path | None) -> str:
    run, why = next(iter(training.failures.items()))
    saved = None if directory is None else checkpoint.load_newest(directory / "checkpoints")
    good = f"the last good checkpoint is {saved.path}" if saved else "no checkpoint had been written"
    return f"no run is left: run {run} was frozen because {why}; {good}"


def _save(training: Training, directory: Path, wall_seconds: float, view: View) -> None:
    tensors, document = training.state_dict()
    document |= {"wall_seconds": wall_seconds, "versions": versions(training)}
    try:
        checkpoint.save(directory / "checkpoints", training.steps, tensors, document)
    except checkpoint.CheckpointError as error:
        view.message(f"{error}; training goes on, the last good checkpoint stays")


# -------------------------------------------------------------------------------------------------------- configuration


def versions(training: Training) -> dict[str, Any]:
    """What bit-identical continuation depends on."""
    import numba

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "num_threads": training.num_threads,
    }


def _create(directory: Path, training: Training) -> None:
    """Make the run directory and write config.json."""
    if (directory / "config.json").exists():
        raise RunError(f"{directory} already holds a run; continue it with --resume {directory}, or choose another --out")
    try:
        (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{directory}: cannot be made: {error.strerror}") from error
    env = training.shards[0].env
    checkpoint.write_json(
        directory / "config.json",
        {
            "format": FORMAT,
            "environment": env.name if isinstance(training.environment, ModuleType) else str(training.environment),
            "environment_digest": env.digest,
            "parameters": training.parameters,
            "algorithm": _describe(training.algorithms),
            "estimator": _describe(training.estimators),
            "policy": _describe([training.policy]),
            "seeds": list(training.seeds),
            "total_steps": training.total_steps,
            "versions": versions(training),
        },
    )


def _describe(configurations: list[Any]) -> dict[str, Any]:
    """{"name", "fields"}: one dict of fields, or one per run where they differ."""
    described = [dataclasses.asdict(c) if dataclasses.is_dataclass(c) else {} for c in configurations]
    same = all(fields == described[0] for fields in described)
    return {"name": components.name_of(configurations[0]), "fields": described[0] if same else described}


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a run directory. Raises RunError with the reason."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{directory} holds no run: there is no config.json") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise RunError(f"{path} has format {found!r}; this version of ridgeline reads {FORMAT}")
    return config


def _configured(kind: str, config: dict[str, Any], given: Any) -> Any:
    """The configuration (or one per run) of a component as the run directory has it."""
    name, fields = config[kind]["name"], config[kind]["fields"]
    if not components.is_built_in(kind, name):
        if isinstance(given, str) and components.is_built_in(kind, given):
            raise RunError(f"this run's {kind} is the user's own ({name}); name its file again with --{kind} FILE.py")
        cls = components.find(kind, given) if isinstance(given, str) else type(given)
        if not dataclasses.is_dataclass(cls):
            return given
    else:
        cls = components.find(kind, name)
    try:
        made = [_build(cls, one) for one in (fields if isinstance(fields, list) else [fields])]
    except (TypeError, ValueError) as error:
        raise RunError(f"the run's {kind} {name} cannot be made by this version of ridgeline: {error}") from error
    return made if isinstance(fields, list) else made[0]


def _build(cls: type, fields: dict[str, Any]) -> Any:
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def _environment(config: dict[str, Any], given: str | Path | ModuleType | None) -> str | Path | ModuleType:
    """The environment of a run directory; one that would import the user's code must be named again."""
    name = config["environment"]
    own = ":" in name or name.endswith(".py") or "/" in name
    if own and given is None:
        raise RunError(f"this run's environment is the user's own ({name}); name it again")
    return given if given is not None else name


def _newest(directory: Path, view: View) -> checkpoint.Checkpoint:
    saved = checkpoint.load_newest(directory / "checkpoints")
    if saved is None:
        raise RunError(f"{directory} has no checkpoint that can be read")
    for path, reason in saved.skipped:
        view.message(f"skipped {path}: {reason}")
    return saved


def _resume(directory, environment, algorithm, estimator, policy, total_steps, num_threads, view):
    config = read_config(directory)
    training = Training(
        _environment(config, environment),
        _configured("algorithm", config, algorithm),
        _configured("estimator", config, estimator),
        _configured("policy", config, policy),
        total_steps=config["total_steps"],
        seed=config["seeds"],
        parameters=config["parameters"],
        num_threads=num_threads or config["versions"]["num_threads"],
    )
    env = training.shards[0].env
    if env.digest != config["environment_digest"]:
        raise RunError(
            f"{config['environment']} has changed since this run was started; restore its source, or start anew from "
            f"the weights with --init {directory}"
        )
    if checkpoint.load_newest(directory / "checkpoints") is None:
        view.message(f"{directory} has no checkpoint yet; it starts from the beginning")
        return training, directory, {"wall_seconds": 0.0}
    saved = _newest(directory, view)
    training.load_state_dict(saved.tensors, saved.document)
    before, now = saved.document["versions"], versions(training)
    for name in before:
        if before[name] != now.get(name):
            view.message(f"continues, not bit-identical: {name} was {before[name]} and is {now.get(name)}")
    if not env.resumes_exactly:
        view.message(f"continues, not bit-identical: {env.name} is an outside environment and starts new episodes")
    return training, directory, saved.document


# -------------------------------------------------------------------------------------------------------------- loading


@dataclasses.dataclass
class Run:
    """A run directory opened for evaluation."""

    directory: Path
    config: dict[str, Any]
    steps: int
    policies: list[torch.nn.Module] = dataclasses.field(repr=False)
    skipped: list[tuple[Path, str]]
    environment: str | Path | ModuleType

    def make_env(self, num_envs: int, seed: int | Sequence[int] = 0, render: bool = False) -> VectorEnv:
        """The run's environment for evaluation: its random streams are never those of training."""
        return make(self.environment, num_envs, seed, EVALUATION, self.config["parameters"], render=render)


def load(
    directory: str | Path,
    environment: str | Path | ModuleType | None = None,
    estimator: Any = None,
    policy: Any = None,
) -> Run:
    """The newest policies of a run directory. An environment or policy of the user's own must be given again."""
    directory = Path(directory)
    config = read_config(directory)
    skipped: list[tuple[Path, str]] = []
    collector = View()
    collector.message = lambda text: None  # type: ignore[method-assign]
    saved = _newest(directory, collector)
    skipped = list(saved.skipped)
    training = Training(
        _environment(config, environment),
        _Shape(),
        _configured("estimator", config, estimator or "gae"),
        _configured("policy", config, policy or "mlp"),
        total_steps=1,
        seed=config["seeds"],
        parameters=config["parameters"],
        num_threads=1,
    )
    try:
        training.load_policies(saved.tensors)
        policies = training.policies()
    finally:
        training.close()
    return Run(directory, config, saved.step, policies, skipped, _environment(config, environment))


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Stands for the algorithm where only policies are made."""

    num_envs: int = 1
    rollout_length: int = 1
    learning_rate: float = 0.0

    def iterate(self, env, population, estimator):
        raise TypeError("a loaded run is not trained; resume it")
