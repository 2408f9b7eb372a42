"""The directory of a run, as data: what was asked for, and its checkpoints.

    config.json     what was asked for; nothing in it is ever imported or executed
    metrics.jsonl   one line per iteration
    checkpoints/    the newest three
    summary.json    the result, written when the training ends

A name in config.json chooses among what Ridgeline has; whatever is the user's own (a file, a class, `module:Class`)
is not looked up by the name found there, and must be named again by whoever opens the run.
"""

import dataclasses
import json
import math
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import torch

from ridgeline import checkpoint, components
from ridgeline.training import Training

FORMAT = 1
COMPONENTS = ("algorithm", "estimator", "policy")
_TYPES = {
    "environment": str, "environment_digest": str, "parameters": dict, "num_values": int, "seeds": list,
    "total_steps": int, "versions": dict,
}  # fmt: skip


class RunError(ValueError):
    """A run directory that cannot be used; one line with the reason and the way out."""


# -------------------------------------------------------------------------------------------------------------- writing


def refuse_run(directory: Path) -> None:
    """Raises RunError where `directory` already holds a run."""
    if (directory / "config.json").exists():
        raise RunError(
            f"{directory} already holds a run; choose another --out, or continue it with --resume {directory}"
        )


def make(directory: Path) -> None:
    """Make the directories. Raises RunError."""
    try:
        (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{directory}: cannot be made: {error.strerror}; name another --out") from error


def create(directory: Path, training: Training) -> None:
    """Write config.json into a directory that was made. Raises RunError or checkpoint.CheckpointError."""
    refuse_run(directory)
    config = {
        "format": FORMAT,
        "environment": _environment_name(training.environment),
        "environment_digest": training.shards[0].env.digest,
        "parameters": training.parameters,
        "algorithm": describe(training.algorithms),
        "estimator": describe(training.estimators),
        "policy": describe([training.policy]),
        "num_values": training.num_values,
        "seeds": list(training.seeds),
        "total_steps": training.total_steps,
        "self_play": training.self_play,
        "versions": versions(training),
    }
    write_config(directory, config)


def write_config(directory: Path, config: dict[str, Any]) -> None:
    checkpoint.write_json(directory / "config.json", config)


def versions(training: Training) -> dict[str, Any]:
    """What bit-identical continuation depends on."""
    return {
        "ridgeline": sys.modules["ridgeline"].__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "num_threads": training.num_threads,
        "torch_threads": training.torch_threads,
    }


def _environment_name(environment: str | Path | ModuleType) -> str:
    """A built-in or registered name; of what is the user's own a path or `module:Class`, which shows that it is."""
    if isinstance(environment, ModuleType):
        name = environment.__name__
        return name.rpartition(".")[2] if name.startswith("ridgeline.envs.") else str(environment.__file__)
    return str(environment)


def describe(configurations: list[Any]) -> dict[str, Any]:
    """{"name", "fields"}: one dict of fields, or one per run where they differ."""
    described = [fields_of(one) for one in configurations]
    same = all(fields == described[0] for fields in described)
    return {"name": components.name_of(configurations[0]), "fields": described[0] if same else described}


def fields_of(configuration: Any) -> dict[str, Any]:
    """The settings of a configuration as JSON knows them; none of what is no dataclass."""
    return _encoded(dataclasses.asdict(configuration)) if dataclasses.is_dataclass(configuration) else {}  # type: ignore


def _encoded(value: Any) -> Any:
    """Numbers that JSON does not know (no limit is an infinite one) as text, which `_build` reads."""
    if isinstance(value, dict):
        return {key: _encoded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return str(float(value)) if isinstance(value, float | np.floating) and not math.isfinite(value) else value


# -------------------------------------------------------------------------------------------------------------- reading


def read_config(directory: Path) -> dict[str, Any]:
    """config.json of a run directory. Raises RunError with the reason."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{directory} holds no run: there is no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT:
        raise RunError(f"{path} has format {found!r}; this version of Ridgeline reads {FORMAT}")
    damaged = [name for name, kind in _TYPES.items() if type(config.get(name)) is not kind]
    for kind in COMPONENTS:
        entry = config.get(kind)
        if not isinstance(entry, dict) or type(entry.get("name")) is not str or not _are_fields(entry.get("fields")):
            damaged.append(kind)
    if damaged:
        raise RunError(f"{path} was altered: {', '.join(damaged)} is missing or of another type")
    return config


def train_commands(config: dict[str, Any]) -> list[str]:
    """The `ridgeline train` that make the same runs again: one for all runs of one setting whose seeds follow on."""
    groups: list[tuple[dict[str, Any], list[int]]] = []
    for run, seed in enumerate(config["seeds"]):
        own = {}
        for kind in COMPONENTS:
            fields = config[kind]["fields"]
            own[kind] = {"name": config[kind]["name"], "fields": fields[run] if isinstance(fields, list) else fields}
        if groups and groups[-1][0] == own and groups[-1][1][-1] == seed - 1:
            groups[-1][1].append(seed)
        else:
            groups.append((own, [seed]))
    return [_train_command(config, kinds, seeds) for kinds, seeds in groups]


def _train_command(config: dict[str, Any], kinds: dict[str, dict[str, Any]], seeds: list[int]) -> str:
    words = ["ridgeline train", config["environment"]]
    for kind, default in zip(COMPONENTS, ("ppo", "gae", "mlp"), strict=True):
        words += [] if kinds[kind]["name"] == default else [f"--{kind}", kinds[kind]["name"]]
    words += ["--runs", str(len(seeds)), "--seed", str(seeds[0]), "--steps", str(config["total_steps"])]
    for kind, entry in kinds.items():
        known = components.find(kind, entry["name"]) if components.is_built_in(kind, entry["name"]) else None
        for name, value in entry["fields"].items():
            default = getattr(known, name, None)
            if known is None or value != (list(default) if isinstance(default, tuple) else default):
                words += _flag(name.replace("_", "-"), value)
    words += [word for name, value in config["parameters"].items() for word in _flag(f"environment.{name}", value)]
    return " ".join(words)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", *map(str, value)] if isinstance(value, list | tuple) else [f"--{name}", str(value)]


def _are_fields(fields: Any) -> bool:
    return isinstance(fields, dict) or (isinstance(fields, list) and all(isinstance(one, dict) for one in fields))


def environment(config: dict[str, Any], given: str | Path | ModuleType | None) -> str | Path | ModuleType:
    """The environment of a run. Raises RunError where it is the user's own and was not named again."""
    if given is not None:
        return given
    name = config["environment"]
    if name.endswith(".py") or ":" in name:
        raise RunError(f"this run's environment is the user's own, {name}; name it again")
    return name


def component(kind: str, config: dict[str, Any], given: Any) -> Any:
    """The configuration, or one per run, of a run's algorithm, estimator or policy: that of config.json.

    `given` is what the caller names. It is needed where the component is the user's own, and can change nothing.
    Raises: RunError.
    """
    name, fields = config[kind]["name"], config[kind]["fields"]
    one = given[0] if isinstance(given, list | tuple) and given else given
    if components.is_built_in(kind, name):
        cls = components.find(kind, name)
    elif given is None or (isinstance(given, str) and (given == name or components.is_built_in(kind, given))):
        raise RunError(f"this run's {kind} is the user's own, {name}; name its file again with --{kind} FILE.py")
    elif isinstance(given, str | Path):
        return _made(kind, components.find(kind, str(given)), fields)
    elif not dataclasses.is_dataclass(one):
        return given
    else:
        cls = type(one)
    made = _made(kind, cls, fields)
    if given is not None and given != name and given != made:
        raise RunError(f"this run's {kind} is {made!r} and stays so; leave --{kind} away, or start a new run")
    return made


def _made(kind: str, cls: type, fields: dict[str, Any] | list[dict[str, Any]]) -> Any:
    try:
        made = [_build(cls, one) for one in (fields if isinstance(fields, list) else [fields])]
    except (TypeError, ValueError) as error:
        raise RunError(f"this run's {kind} cannot be made by this version of {cls.__name__}: {error}") from error
    return made if isinstance(fields, list) else made[0]


def _build(cls: type, fields: dict[str, Any]) -> Any:
    numbers = {field.name for field in dataclasses.fields(cls) if "float" in str(field.type)}
    values = {}
    for name, value in fields.items():
        value = tuple(value) if isinstance(value, list) else value
        values[name] = float(value) if name in numbers and isinstance(value, str) else value
    return cls(**values)


def newest(directory: Path) -> checkpoint.Checkpoint | None:
    """The newest checkpoint that verifies; None before the first. Raises RunError where each is refused."""
    try:
        return checkpoint.load_newest(directory / "checkpoints")
    except checkpoint.CheckpointError as error:
        raise RunError(str(error)) from error


def skipped(saved: checkpoint.Checkpoint) -> list[str]:
    """What to say about newer checkpoints that were refused."""
    return [f"skipped {path}: {reason}" for path, reason in saved.skipped]
