"""Find an algorithm, an estimator or a policy by its name, by the path of a user's file, or take the object itself.

There is no registry: the file's name in `algorithms/` or `estimators/` is the component's name, and the file holds one
frozen dataclass with the method that makes it one.
"""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from gymnasium import spaces

import ridgeline.algorithms
import ridgeline.estimators
from ridgeline.encoders import is_picture, parts
from ridgeline.policies import CNN, MLP
from ridgeline.recurrent_policies import GRU, LSTM
from ridgeline.sources import describe

METHODS = {"algorithm": "iterate", "estimator": "__call__", "policy": "build"}
_FOLDERS = {"algorithm": ridgeline.algorithms, "estimator": ridgeline.estimators}
POLICIES = {"mlp": MLP, "cnn": CNN, "gru": GRU, "lstm": LSTM}


class UnknownComponent(ValueError):
    """A name that is neither a component nor a file; the message names the nearest."""


def names(kind: str) -> list[str]:
    """The names of the built-in algorithms, estimators or policies."""
    if kind == "policy":
        return list(POLICIES)
    return sorted(module.name for module in pkgutil.iter_modules(_FOLDERS[kind].__path__))


def default_policy(observation_space: spaces.Space) -> str:
    """The policy where none is named: cnn where a part of the observation is a picture, else mlp."""
    return "cnn" if any(is_picture(part) for part in parts(observation_space).values()) else "mlp"


def find(kind: str, name: str) -> type:
    """The dataclass of the component `name`, or of the user's file at that path.

    Raises UnknownComponent, naming the nearest names, the file, or what the file must define.
    """
    if name.endswith(".py"):
        return _only_class(kind, _load_file(Path(name)), name)
    if name not in names(kind):
        near = difflib.get_close_matches(name, names(kind), 3, 0.4) or names(kind)
        raise UnknownComponent(f"unknown {kind} {name!r}; did you mean {', '.join(near)}? A file.py works too")
    if kind == "policy":
        return POLICIES[name]
    return _only_class(kind, importlib.import_module(f"{_FOLDERS[kind].__name__}.{name}"), name)


def name_of(component: Any) -> str:
    """The name under which a run directory records a component: built-in name, or module and class."""
    cls = type(component)
    for name, policy in POLICIES.items():
        if cls is policy:
            return name
    for folder in _FOLDERS.values():
        if cls.__module__.startswith(folder.__name__ + "."):
            return cls.__module__.rsplit(".", 1)[1]
    return f"{cls.__module__}:{cls.__qualname__}"


def is_built_in(kind: str, name: str) -> bool:
    return name in names(kind)


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UnknownComponent(f"{path}: no such file")
    name = f"ridgeline_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UnknownComponent(describe(error, path)) from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _only_class(kind: str, module: ModuleType, name: str) -> type:
    method = METHODS[kind]
    found = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__
        and dataclasses.is_dataclass(cls)
        and any(method in vars(base) for base in cls.__mro__)
    ]
    if len(found) != 1:
        raise UnknownComponent(
            f"{name} defines {len(found)} dataclasses with a method {method}; a file for --{kind} defines exactly one"
        )
    return found[0]


COEFFICIENT_TYPES = (float, bool, float | None, "float", "bool", "float | None")


def stack(configurations: list[Any]) -> dict[str, list[float]]:
    """The coefficients of R configurations of one class: every float or bool field, and every optional float that is
    given, name -> one float per run.

    Only floating-point ones may differ. The others (bools, whole numbers, names, None) shape the training and must be
    equal in all runs. Raises ValueError naming the field where they are not.
    """
    first = configurations[0]
    coefficients = {}
    for field in dataclasses.fields(first):
        values = [getattr(configuration, field.name) for configuration in configurations]
        if all(isinstance(value, int | float) for value in values) and field.type in COEFFICIENT_TYPES:
            coefficients[field.name] = [float(value) for value in values]
        if field.type not in (float, "float") and any(value != values[0] for value in values):
            raise ValueError(
                f"{field.name} differs between the runs of one population ({values}); only coefficients "
                "(floating-point fields) may: train such configurations as populations of their own"
            )
    return coefficients
