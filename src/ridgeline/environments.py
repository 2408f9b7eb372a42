"""Environments by name: `make` takes a built-in name, a file, a module or a Gymnasium name, and gives a VectorEnv."""

import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ridgeline.adapters.gymnasium import GymnasiumEnv, install_hint
from ridgeline.gymnasium_rows import describe
from ridgeline.kernel import InvalidEnvironment, define
from ridgeline.registration import FOLDER, gymnasium_ids, names
from ridgeline.vector import TRAINING, CompiledEnv, VectorEnv

__all__ = ["make", "names", "resolve"]


def make(
    environment: str | Path | ModuleType,
    num_envs: int,
    seed: int | Sequence[int] = 0,
    purpose: int = TRAINING,
    parameters: dict[str, Any] | None = None,
    processes: int | None = None,
    render: bool = False,
) -> VectorEnv:
    """`num_envs` instances of an environment for each seed, as one VectorEnv of len(seeds) x num_envs rows, run-major.

    Args:
        environment: what `resolve` takes.
        num_envs: instances per run.
        seed: of the one run, or one for each run.
        purpose: `vector.TRAINING` or `vector.EVALUATION`; their episodes are disjoint.
        parameters: changes of a compiled environment's `Parameters`, or keyword arguments of `gymnasium.make`.
        processes: of a Gymnasium environment; None: chosen by a short timing.
        render: give `draw` a picture of a Gymnasium environment; a compiled one always has it.

    Raises: InvalidEnvironment, a ValueError: unknown, or cannot be made; in one line, with the way out.
    """
    found = resolve(environment)
    if isinstance(found, Path):
        return CompiledEnv(define(found), num_envs, seed, purpose, parameters)
    return GymnasiumEnv(found, num_envs, seed, purpose, parameters, processes, render, name=str(environment))


def resolve(environment: str | Path | ModuleType) -> Path | EnvSpec:
    """The file of a compiled environment, or the specification of a Gymnasium one.

    In this order: a built-in name, a path that ends in .py, a module (its file); else a Gymnasium id, or "module:Id" or
    "module:Class", which import the module (from the current folder too).

    Raises: InvalidEnvironment with the nearest names.
    """
    if isinstance(environment, ModuleType):
        if not getattr(environment, "__file__", None):
            raise InvalidEnvironment(f"the module {environment.__name__!r} has no file; save it as a file.py")
        return Path(str(environment.__file__))
    name = str(environment)
    if name in names():
        return FOLDER / f"{name}.py"
    if name.startswith("ridgeline/") and name in (own := gymnasium_ids()):
        return FOLDER / f"{own[name]}.py"
    if isinstance(environment, Path) or name.endswith(".py"):
        path = Path(environment)
        if not path.is_file():
            raise InvalidEnvironment(f"{path}: no such file{_did_you_mean(path.name, _beside(path))}")
        return path
    if ":" in name:
        return _find_in_module(name)
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    others = [id for id in gymnasium.registry if not id.startswith("ridgeline/")]
    hint = _did_you_mean(name, [*names(), *others])
    raise InvalidEnvironment(
        f"unknown environment {name!r}"
        + (hint or f"; built in are {', '.join(names())}; or give a Gymnasium id, a module:Class or a file.py")
    )


def _find_in_module(name: str) -> EnvSpec:
    module_name, _, attribute = name.partition(":")
    module = _import(module_name, name)
    if attribute in gymnasium.registry:
        return gymnasium.registry[attribute]
    target = getattr(module, attribute, None)
    if not callable(target):
        kinds = (gymnasium.Env, gymnasium.vector.VectorEnv)
        own = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, kinds)]
        raise InvalidEnvironment(
            f"{name}: {module_name} registers no Gymnasium id {attribute!r} and has no such class"
            + (_did_you_mean(attribute, own) or f"; it has {', '.join(own) or 'no environment'}")
        )
    if isinstance(target, type) and issubclass(target, gymnasium.vector.VectorEnv):
        return EnvSpec(attribute, vector_entry_point=name)
    return EnvSpec(attribute, entry_point=name)


def _import(module_name: str, name: str) -> ModuleType:
    here = Path.cwd()
    first = here / module_name.partition(".")[0]
    if (first.is_dir() or first.with_suffix(".py").is_file()) and str(here) not in sys.path:
        sys.path.append(str(here))  # last, so that it hides no library
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InvalidEnvironment(f"{name}: no module {error.name!r}, installed or in this folder") from error
        raise InvalidEnvironment(f"{name}: {install_hint(error)}") from error
    except Exception as error:
        raise InvalidEnvironment(f"{name}: importing {module_name} failed: {describe(error)}") from error


def _beside(path: Path) -> list[str]:
    return [file.name for file in path.parent.glob("*.py")]


def _did_you_mean(name: str, candidates: list[str]) -> str:
    """`; did you mean a, b?` of the nearest three; of a Gymnasium name its newest version only."""
    nearest: dict[str, list[str]] = {}
    for candidate in candidates:
        nearest.setdefault(_plain(candidate), []).append(candidate)
    found = []
    for key in difflib.get_close_matches(_plain(name), nearest, n=3, cutoff=0.7):
        built_in = [one for one in nearest[key] if not re.search(r"-v\d+$", one)]
        versions = [one for one in nearest[key] if re.search(r"-v\d+$", one)]
        found += built_in + sorted(versions, key=lambda one: int(one.rpartition("-v")[2]))[-1:]
    return f"; did you mean {', '.join(found[:3])}?" if found else ""


def _plain(name: str) -> str:
    return re.sub(r"-v\d+$", "", name).lower().replace("_", "").replace("-", "")
