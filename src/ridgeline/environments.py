"""Environments by name: `make` takes a built-in name, a file, a module or a Gymnasium name, and gives a VectorEnv."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ridgeline.adapters import ale, dm_env, envpool, pettingzoo, procgen
from ridgeline.adapters.gymnasium import GymnasiumEnv, install_hint
from ridgeline.gymnasium_rows import describe
from ridgeline.kernel import InvalidEnvironment, define
from ridgeline.registration import FOLDER, did_you_mean, gymnasium_ids, names
from ridgeline.vector import TRAINING, CompiledEnv, VectorEnv

__all__ = ["make", "names", "resolve"]

# What stands before the colon, and what finds the rest.
_ADAPTERS = {
    "ale": ale.specification,
    "dm_control": dm_env.control_specification,
    "envpool": envpool.specification,
    "procgen": procgen.specification,
}
_IN_MODULES = {"dm_env": (dm_env.specification, ""), "pettingzoo": (pettingzoo.specification, "parallel_env")}


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

    In this order: a built-in name, a path that ends in .py, a module (its file), an adapter's name as "ale:Breakout";
    else a Gymnasium id, or "module:Id" or "module:Class", which import the module (from the current folder too).

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
            raise InvalidEnvironment(f"{path}: no such file{did_you_mean(path.name, _beside(path))}")
        return path
    kind, colon, rest = name.partition(":")
    if colon and kind in _ADAPTERS | _IN_MODULES:
        return _adapted(kind, rest, name)
    if colon:
        return _find_in_module(name)
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    others = [id for id in gymnasium.registry if not id.startswith("ridgeline/")]
    hint = did_you_mean(name, [*names(), *others])
    raise InvalidEnvironment(
        f"unknown environment {name!r}"
        + (hint or f"; built in are {', '.join(names())}; or give a Gymnasium id, a module:Class or a file.py")
    )


def _adapted(kind: str, rest: str, name: str) -> EnvSpec:
    try:
        if kind in _ADAPTERS:
            return _ADAPTERS[kind](rest, name)
        specification, usual = _IN_MODULES[kind]
        module_name, _, attribute = rest.partition(":")
        module, attribute = (
            _import(module_name, name, f": pip install {module_name.partition('.')[0]}"),
            attribute or usual,
        )
        if not callable(getattr(module, attribute, None)):
            callables = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            hint = did_you_mean(attribute, callables) or f"; it has {', '.join(callables) or 'nothing to call'}"
            raise InvalidEnvironment(f"{name}: {module_name} has no {attribute!r}{hint}")
        return specification(module_name, attribute, name)
    except ModuleNotFoundError as error:
        raise InvalidEnvironment(f"{name}: {install_hint(error)}") from error
    except InvalidEnvironment:
        raise
    except Exception as error:
        raise InvalidEnvironment(f"{name}: {describe(error)}") from error


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
            + (did_you_mean(attribute, own) or f"; it has {', '.join(own) or 'no environment'}")
        )
    if isinstance(target, type) and issubclass(target, gymnasium.vector.VectorEnv):
        return EnvSpec(attribute, vector_entry_point=name)
    return EnvSpec(attribute, entry_point=name)


def _import(module_name: str, name: str, mend: str = "") -> ModuleType:
    here = Path.cwd()
    first = here / module_name.partition(".")[0]
    if (first.is_dir() or first.with_suffix(".py").is_file()) and str(here) not in sys.path:
        sys.path.append(str(here))  # last, so that it hides no library
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InvalidEnvironment(f"{name}: no module {error.name!r}, installed or in this folder{mend}") from error
        raise InvalidEnvironment(f"{name}: {install_hint(error)}") from error
    except Exception as error:
        raise InvalidEnvironment(f"{name}: importing {module_name} failed: {describe(error)}") from error


def _beside(path: Path) -> list[str]:
    return [file.name for file in path.parent.glob("*.py")]
