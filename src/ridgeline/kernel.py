"""What compiled environments share: state header, random numbers, episode bookkeeping, compilation.

An environment is one Python file that declares a state dtype and three functions for ONE instance:
`reset(state, p)`, `step(state, action, p) -> (reward, terminated)` and `observe(state, observation, p)`; or, for a
world of several agents, `num_agents` and their forms in docs/add_an_environment.md.
This module turns them into loops over many instances, compiled by Numba and cached on disk.

With the environment variable RIDGELINE_COMPILE=0 the same files run as plain Python, under a debugger.

Differs: Numba's own cache does not see an edit of a function that a cached function imports (numba issue 1833),
and never hits for loops made by a closure; so the loops are written into a generated module whose name holds the
hash of every source that they are made of.
"""

import sys
import types
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ridgeline.cache import PREFIX, cache_directory, import_generated
from ridgeline.declarations import Definition, NoParameters, changed, read, settings_class
from ridgeline.loops import source
from ridgeline.rehearsal import rehearse, sample_action
from ridgeline.sources import InvalidEnvironment, load_source, plain, source_hash
from ridgeline.state import (
    COMPILE,
    borrowed,
    compiled,
    copy_row,
    next_random,
    random_integer,
    seed_rows,
    sine_cosine,
    standard_normal,
    state_dtype,
    uniform,
    uniform_between,
)

__all__ = [
    "COMPILE", "NO_LIMIT", "Definition", "InvalidEnvironment", "NoParameters", "compiled", "copy_row", "define",
    "next_random", "plain", "random_integer", "sample_action", "seed_rows", "settings", "sine_cosine",
    "standard_normal", "state_dtype", "uniform", "uniform_between", "with_parameters", "without_autoreset",
]  # fmt: skip

NO_LIMIT = 2**62


def define(path: Path, compile: bool = COMPILE, parameters: dict[str, Any] | None = None) -> Definition:
    """Load, check and compile the environment file at `path`, with changes of its Parameters and Structure.

    `compile=False` gives the same loops over the same functions in plain Python: the slow twin.
    Raises InvalidEnvironment with the file, the line and the rule.
    """
    path = path.resolve()
    digest = source_hash(path)
    module = load_source(path)
    definition = read(module, path, digest, parameters or {})
    loops = _loops(definition, compile)
    return definition._replace(reset_rows=loops.reset_rows, step_rows=loops.step_rows)


def without_autoreset(definition: Definition) -> Definition:
    """The same environment, whose `step_rows` leaves an instance as it is where its episode (of several agents: its
    world) has ended: `observation` is then the last one, and the instance must be reset before it is stepped again."""
    compile = hasattr(definition.step_rows, "py_func")
    return definition._replace(step_rows=_loops(definition, compile, autoreset=False).step_rows)


def _stay(state, p):
    """Instead of `reset`."""


def _loops(definition: Definition, compile: bool, autoreset: bool = True) -> types.ModuleType:
    """The module of the environment's loops: generated, or found in the cache."""
    path, module = definition.path, definition.module
    functions = {name: getattr(module, name) for name in definition.form.functions()}
    if not autoreset:
        functions["reset"] = _stay
    structure = {name: getattr(definition.parameters, name) for name in definition.structure}
    every = dict.fromkeys(definition.parameters._fields) | structure
    text = source(definition.form, path.name, compile, definition.statistics, definition.num_agents, every)
    if not compile:
        loops = types.ModuleType("ridgeline_plain_loops")
        loops.__dict__.update({name: plain(function) for name, function in functions.items()})
        exec(text, loops.__dict__)
        return loops
    versions = source_hash(path, str(path), sys.version_info[:3], numba.__version__, np.__version__, structure)
    file = cache_directory() / f"{PREFIX}{versions}{'' if autoreset else '_stay'}.py"
    if not file.exists() and autoreset:
        rehearse(definition)  # a file that is there has passed
    _name_apart(type(definition.parameters), module)
    # Without what Python, or a pointer, would call: only the loops call them, and hold their code. A call would cost
    # the action's reference count, which is atomic, twice: up to a third of a step.
    options: dict[str, Any] = dict(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
    wrap = numba.njit(nogil=True, error_model="numpy", **options)
    made = {name: one if hasattr(one, "py_func") else wrap(one) for name, one in functions.items()}
    return import_generated(file, text, {**made, "Settings": type(definition.parameters), "borrowed": borrowed})


def _name_apart(kind: type, module: types.ModuleType) -> None:
    """Give a file's Parameters class a name of its own.

    Numba's fast dispatch tells NamedTuples apart by the names of the class and of its fields: of two environments
    whose parameters look alike, the second would lose 0.15 ms in every call.
    """
    if kind is not NoParameters:
        if kind.__module__ != module.__name__:
            kind.__module__, kind.__qualname__ = module.__name__, "Parameters"  # found there by pickle
        kind.__name__ = f"Parameters_{module.__name__}"


def with_parameters(definition: Definition, changes: dict[str, Any]) -> Definition:
    """The definition with some of its parameters changed; where one is of the structure, it is made anew."""
    parameters = changed(definition.parameters, definition.name, changes)
    if all(getattr(parameters, name) == getattr(definition.parameters, name) for name in definition.structure):
        return definition._replace(parameters=parameters)
    return define(definition.path, hasattr(definition.step_rows, "py_func"), parameters._asdict())


def settings(path: Path) -> type:
    """The class of the numbers that can be changed of the environment file at `path`, a NamedTuple with defaults."""
    return settings_class(load_source(path), path)
