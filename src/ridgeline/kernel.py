"""What compiled environments share: state header, random numbers, episode bookkeeping, compilation.

An environment is one Python file that declares a state dtype and three functions for ONE instance:
`reset(state, p)`, `step(state, action, p) -> (reward, terminated)` and `observe(state, observation, p)`.
This module turns them into loops over many instances, compiled by Numba and cached on disk.

With the environment variable RIDGELINE_COMPILE=0 the same files run as plain Python, under a debugger.

Differs: Numba's own cache does not see an edit of a function that a cached function imports (numba issue 1833),
and never hits for loops made by a closure; so the loops are written into a generated module whose name holds the
hash of every source that they are made of.
"""

import ast
import hashlib
import importlib.util
import linecache
import math
import os
import re
import stat
import sys
import sysconfig
import tempfile
import time
import traceback
import types
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from gymnasium import spaces

COMPILE = os.environ.get("RIDGELINE_COMPILE", "1") != "0"
NO_LIMIT = 2**62
_KEEP_SECONDS = 30 * 24 * 3600


class InvalidEnvironment(ValueError):
    """An environment that cannot be used; the message names the file, the line and how to write it."""


def compiled(function):
    """Decorator of an environment's helper functions: compiled by Numba, callable from `reset`, `step`, `observe`."""
    return numba.njit(nogil=True, error_model="numpy")(function) if COMPILE else function


# ------------------------------------------------------------------------------------------------ state and randomness


def state_dtype(**fields) -> np.dtype:
    """The structured dtype of one instance: the kernel's header, then the author's `name=type` fields.

    A field is a NumPy scalar type (`np.float64`) or a pair `(type, shape)`. Header: `random_state`, `random_stream`
    (the instance's own generator), `episode_return` (sum of rewards) and `episode_length` (steps) of the episode in
    flight.
    """
    header = [
        ("random_state", np.uint64),
        ("random_stream", np.uint64),
        ("episode_return", np.float64),
        ("episode_length", np.int64),
    ]
    own = [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()]
    return np.dtype(header + own, align=True)


@compiled
def next_random(state):
    """The next 64 random bits of this instance (SplitMix64 with a stream of its own; Steele et al. 2014)."""
    state.random_state += state.random_stream
    bits = state.random_state
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@compiled
def uniform(state):
    """A float64 in [0, 1), 53 bits."""
    return np.float64(next_random(state) >> np.uint64(11)) * 1.1102230246251565e-16


@compiled
def uniform_between(state, low, high):
    """A float64 in [low, high)."""
    return low + (high - low) * uniform(state)


@compiled
def random_integer(state, count):
    """An int64 in 0 .. count - 1 (count far below 2**53)."""
    return np.int64(uniform(state) * count)


@compiled
def standard_normal(state):
    """A float64 from N(0, 1) (Box and Muller 1958)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(6.283185307179586 * uniform(state))


def seed_rows(state: np.ndarray, seed: int, purpose: int) -> None:
    """Give row i the random stream of (seed, purpose, i): the same for any number of rows."""
    words = np.random.SeedSequence([seed, purpose]).generate_state(2 * len(state), np.uint64)
    state["random_state"] = words[0::2]
    state["random_stream"] = words[1::2] | np.uint64(1)


# ------------------------------------------------------------------------------------------------------------- sources


def load_source(path: Path) -> types.ModuleType:
    """The module of the environment file at `path`, loaded once per content of it and of its helper files."""
    path = path.resolve()
    return _load_source(path, source_hash(path))


@lru_cache(maxsize=None)
def _load_source(path: Path, digest: str) -> types.ModuleType:
    name = f"ridgeline_environment_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    linecache.checkcache(str(path))
    before = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        # Compiled here, not by the loader: its .pyc is keyed by whole seconds and misses a quick second edit.
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        sys.modules.pop(name, None)
        raise InvalidEnvironment(_where(error, path)) from error
    finally:
        sys.path.remove(str(path.parent))
        for other in set(sys.modules) - before:  # two environments may each have a helpers.py
            file = getattr(sys.modules[other], "__file__", None)
            if file and not is_library(Path(file)):
                sys.modules[other].__dict__["__cached__"] = None
                del sys.modules[other]
    return module


def is_library(path: Path) -> bool:
    """Whether a source file belongs to Python or an installed package (ridgeline's own files do not count)."""
    path = path.resolve()
    if path.is_relative_to(Path(__file__).resolve().parent):
        return False
    roots = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(path.is_relative_to(Path(root).resolve()) for root in roots if root)


def local_sources(path: Path) -> list[Path]:
    """The file at `path` and every source it imports, directly or not, that is not a library; sorted."""
    found: set[Path] = set()
    pending = [path.resolve()]
    while pending:
        file = pending.pop()
        if file in found:
            continue
        found.add(file)
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        except (SyntaxError, UnicodeDecodeError):
            continue  # reported when it is loaded
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for name in names:
                beside = path.resolve().parent.joinpath(*name.split("."))
                for candidate in (beside.with_suffix(".py"), beside / "__init__.py"):
                    if candidate.is_file():
                        pending.append(candidate)
                if name == "ridgeline.kernel":
                    pending.append(Path(__file__).resolve())
    return sorted(found)


def source_hash(path: Path) -> str:
    """Twenty hexadecimal digits that change when the file, a helper file that it imports, or a version changes."""
    if not path.is_file():
        raise InvalidEnvironment(f"{path}: no such file")
    digest = hashlib.sha256(f"{sys.version_info[:3]} {numba.__version__} {np.__version__} {COMPILE}".encode())
    for file in local_sources(path):
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:20]


def _where(error: BaseException, path: Path) -> str:
    """`file:line: message` with the source line, for an error raised in or by the user's file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: syntax error: {error.msg}\n    {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_library(Path(f.filename))]
    own = [f for f in frames if Path(f.filename).resolve() != Path(__file__).resolve() and "<" not in f.filename]
    message = f"{type(error).__name__}: {error}"
    return f"{own[-1].filename}:{own[-1].lineno}: {message}\n    {own[-1].line}" if own else f"{path}: {message}"


# --------------------------------------------------------------------------------------------------------- compilation

_LOOPS = '''"""Generated by ridgeline from {origin}: loops over instances. `reset`, `step`, `observe` are set by the loader."""
import numba

compiled = numba.njit(nogil=True, error_model="numpy", cache=True) if {compile} else (lambda function: function)


@compiled
def reset_rows(state, p, observation, start, stop):
    for i in range(start, stop):
        instance = state[i]
        instance.episode_return = 0.0
        instance.episode_length = 0
        reset(instance, p)
        observe(instance, observation[i], p)


@compiled
def observe_rows(state, p, observation, start, stop):
    for i in range(start, stop):
        observe(state[i], observation[i], p)


@compiled
def step_rows(
    state, action, p, max_episode_steps, observation, reward, terminated, truncated,
    final_row, final_observation, episode_row, episode, start, stop,
):
    num_final = 0
    num_episodes = 0
    for i in range(start, stop):
        instance = state[i]
        one_reward, one_terminated = step(instance, action[i], p)
        instance.episode_return += one_reward
        instance.episode_length += 1
        one_truncated = instance.episode_length >= max_episode_steps
        reward[i] = one_reward
        terminated[i] = one_terminated
        truncated[i] = one_truncated
        if one_terminated or one_truncated:
            if not one_terminated:
                final_row[start + num_final] = i
                observe(instance, final_observation[start + num_final], p)
                num_final += 1
            episode_row[start + num_episodes] = i
            episode[start + num_episodes, 0] = instance.episode_return
            episode[start + num_episodes, 1] = instance.episode_length
{statistics}            num_episodes += 1
            instance.episode_return = 0.0
            instance.episode_length = 0
            reset(instance, p)
        observe(instance, observation[i], p)
    return num_final, num_episodes
'''


class NoParameters(NamedTuple):
    """The parameters of an environment that declares none."""


class Definition(NamedTuple):
    """An environment file, checked and compiled: everything that `vector.VectorEnv` needs."""

    name: str
    path: Path
    digest: str
    module: types.ModuleType
    state_dtype: np.dtype
    parameters: Any  # a NamedTuple of numbers
    observation_space: spaces.Box
    action_space: spaces.Space
    max_episode_steps: int | None
    statistics: tuple[str, ...]
    reset_rows: Any
    observe_rows: Any
    step_rows: Any


def define(path: Path, compile: bool = COMPILE) -> Definition:
    """Load, check and compile the environment file at `path`.

    `compile=False` gives the same loops over the same functions in plain Python: the slow twin.
    Raises InvalidEnvironment with the file, the line and the rule.
    """
    path = path.resolve()
    digest = source_hash(path)
    module = load_source(path)
    missing = [n for n in ("State", "observation_space", "action_space", "reset", "step", "observe")
               if not hasattr(module, n)]  # fmt: skip
    if missing:
        raise InvalidEnvironment(
            f"{path}: {', '.join(missing)} missing. An environment file defines State = state_dtype(...), "
            "observation_space, action_space, reset(state, p), step(state, action, p) and "
            "observe(state, observation, p); see docs/add_an_environment.md"
        )
    parameters = getattr(module, "Parameters", NoParameters)()
    statistics = tuple(getattr(module, "statistics", ()))
    _check_declarations(module, path, parameters, statistics)
    functions = {name: getattr(module, name) for name in ("reset", "step", "observe")}
    lines = "".join(
        f"            episode[start + num_episodes, {2 + j}] = instance.{name}\n" for j, name in enumerate(statistics)
    )
    source = _LOOPS.format(origin=path.name, compile=compile, statistics=lines)
    definition = Definition(
        path.stem, path, digest, module, module.State, parameters, module.observation_space, module.action_space,
        getattr(module, "max_episode_steps", None), statistics, None, None, None,
    )  # fmt: skip
    if compile:
        file = cache_directory() / f"ridgeline_loops_{digest}.py"
        if not file.exists():
            _check_behaviour(definition)  # a file that is there has passed
        loops = _import_loops(file, source, functions)
    else:
        loops = types.ModuleType("ridgeline_plain_loops")
        loops.__dict__.update({name: plain(function) for name, function in functions.items()})
        exec(source, loops.__dict__)
    return definition._replace(
        reset_rows=loops.reset_rows, observe_rows=loops.observe_rows, step_rows=loops.step_rows
    )


def plain(function):
    """The plain-Python twin of a compiled function: it and every compiled function that it calls, uncompiled."""
    return _plain(function, {})


def _plain(function, done):
    function = getattr(function, "py_func", function)
    if function not in done:
        names = dict(function.__globals__)
        done[function] = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
        for name in function.__code__.co_names:
            value = names.get(name)
            if hasattr(value, "py_func") or (
                isinstance(value, types.FunctionType) and not is_library(Path(value.__code__.co_filename))
            ):
                names[name] = _plain(value, done)
    return done[function]


def _check_declarations(module, path, parameters, statistics) -> None:
    if not isinstance(module.State, np.dtype) or "random_state" not in (module.State.names or ()):
        raise InvalidEnvironment(f"{path}: State must be made by ridgeline.kernel.state_dtype(name=type, ...)")
    if not isinstance(module.observation_space, spaces.Box):
        raise InvalidEnvironment(f"{path}: observation_space must be a gymnasium.spaces.Box")
    if not isinstance(module.action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box):
        raise InvalidEnvironment(f"{path}: action_space must be a Discrete, MultiDiscrete or Box of gymnasium.spaces")
    if isinstance(module.action_space, spaces.Discrete) and module.action_space.start != 0:
        raise InvalidEnvironment(f"{path}: a Discrete action_space must start at 0")
    for name in statistics:
        if name not in module.State.names:
            raise InvalidEnvironment(f"{path}: statistics names {name!r}, which is no field of State")
    for name, value in parameters._asdict().items():
        if not isinstance(value, int | float | bool):
            raise InvalidEnvironment(f"{path}: Parameters.{name} = {value!r} must be a number")
    limit = getattr(module, "max_episode_steps", None)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidEnvironment(f"{path}: max_episode_steps = {limit!r} must be a positive whole number or None")
    for name, count in (("reset", 2), ("step", 3), ("observe", 3)):
        code = getattr(getattr(module, name), "py_func", getattr(module, name)).__code__
        if code.co_argcount != count:
            rule = {"reset": "(state, p)", "step": "(state, action, p)", "observe": "(state, observation, p)"}[name]
            raise InvalidEnvironment(f"{path}:{code.co_firstlineno}: {name} must take {rule}")


def _check_behaviour(definition: Definition) -> None:
    """Run one instance in plain Python, where an index out of range is an error and not a corrupted memory."""
    path, space = definition.path, definition.observation_space
    reset, step, observe = (plain(getattr(definition.module, name)) for name in ("reset", "step", "observe"))
    state = np.zeros(1, definition.state_dtype).view(np.recarray)
    seed_rows(state, 0, 0)
    observation = np.full(space.shape, np.nan, space.dtype) if space.dtype.kind == "f" else np.zeros_like(space.low)
    generator = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        try:
            reset(state[0], definition.parameters)
            for _ in range(64):
                observe(state[0], observation, definition.parameters)
                if not np.isfinite(observation).all():
                    bad = np.flatnonzero(~np.isfinite(observation)).tolist()
                    raise InvalidEnvironment(
                        f"{path}: observe left NaN or infinity in observation{bad}; it must write all "
                        f"{space.shape} numbers of observation_space"
                    )
                result = step(state[0], sample_actions(definition.action_space, generator, 1)[0], definition.parameters)
                if not isinstance(result, tuple) or len(result) != 2:
                    line = getattr(definition.module.step, "py_func", definition.module.step).__code__.co_firstlineno
                    raise InvalidEnvironment(f"{path}:{line}: step returned {result!r}; return (reward, terminated)")
                if result[1]:
                    reset(state[0], definition.parameters)
        except InvalidEnvironment:
            raise
        except Exception as error:
            raise InvalidEnvironment(_where(error, path)) from error


def sample_actions(space: spaces.Space, generator: np.random.Generator, count: int) -> np.ndarray:
    """`count` uniformly random actions: int64 (count,) or (count, A), or float32 (count, A) within the bounds."""
    if isinstance(space, spaces.Discrete):
        return generator.integers(0, space.n, count)
    if isinstance(space, spaces.MultiDiscrete):
        return generator.integers(0, space.nvec, (count, *space.shape))
    assert isinstance(space, spaces.Box)
    low = np.where(np.isfinite(space.low), space.low, -1.0)
    high = np.where(np.isfinite(space.high), space.high, 1.0)
    return generator.uniform(low, high, (count, *space.shape)).astype(np.float32)


def compile_error(error: Exception, path: Path) -> InvalidEnvironment:
    """What Numba says of a user's function, cut down to the file, the line and the reason."""
    text = str(error)
    reasons = [line.strip() for line in text.splitlines() if line.strip()]
    lines = re.findall(r'File "([^"]+)", line (\d+)', text)
    own = [(f, n) for f, n in lines if Path(f).name == path.name] or lines
    place = f"{own[-1][0]}:{own[-1][1]}" if own else str(path)
    wanted = [r for r in reasons if not r.startswith(("Failed in", "During", "File", "-", "def ", "^", "This error"))]
    return InvalidEnvironment(
        f"{place}: cannot be compiled: {' '.join(wanted[:3])}\n"
        "    Use numbers, arrays, math and NumPy functions, and helpers decorated with @ridgeline.kernel.compiled; "
        "RIDGELINE_COMPILE=0 runs the file as plain Python"
    )


@lru_cache(maxsize=1)
def cache_directory() -> Path:
    """The user's private directory of generated modules and compiled code (RIDGELINE_CACHE overrides it)."""
    root = os.environ.get("RIDGELINE_CACHE")
    if root is None:
        base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
        root = Path(base) / "ridgeline"
    path = Path(root)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = True
        if hasattr(os, "getuid"):  # the index of Numba's cache is a pickle: nobody else may write it
            status = path.stat()
            private = status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if private and os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="ridgeline-"))


def _import_loops(path: Path, source: str, functions: dict) -> types.ModuleType:
    """Import the generated module at `path`, written beside and renamed where it does not exist."""
    name = path.stem
    if name in sys.modules:
        return sys.modules[name]
    if path.exists():
        os.utime(path)
    else:
        _prune(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        try:
            os.replace(temporary, path)
        except PermissionError:  # Windows, while another process reads the same text
            os.unlink(temporary)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    wrap = numba.njit(nogil=True, error_model="numpy")
    for key, function in functions.items():
        module.__dict__[key] = function if hasattr(function, "py_func") else wrap(function)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _prune(directory: Path) -> None:
    """Delete generated modules, and Numba's files for them, that nobody used for thirty days."""
    for file in [*directory.glob("ridgeline_loops_*.py"), *directory.glob("__pycache__/ridgeline_loops_*")]:
        try:
            if time.time() - file.stat().st_mtime > _KEEP_SECONDS:
                file.unlink()
        except OSError:
            pass  # another process was first
