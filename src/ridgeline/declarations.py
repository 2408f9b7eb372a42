"""What an environment file declares, read and checked: spaces, parameters, structure, agents, the form of its loops."""

import collections
import math
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.loops import Form
from ridgeline.observations import ACTION_MASK, check_action_mask, is_packed, mask_size, record_dtype
from ridgeline.sources import InvalidEnvironment, describe, line_of
from ridgeline.state import several_agents_dtype

_OF_STRUCTURE = ("State", "observation_space", "action_space", "num_agents", "max_episode_steps")


class NoParameters(NamedTuple):
    """The parameters of an environment that declares none."""


class Definition(NamedTuple):
    """An environment file, checked and compiled: everything that `vector.VectorEnv` needs."""

    name: str
    path: Path
    digest: str
    module: types.ModuleType
    state_dtype: np.dtype
    parameters: Any  # a NamedTuple of numbers: those of Parameters, then those of Structure
    structure: tuple[str, ...]  # names of Structure's numbers
    observation_space: spaces.Box | spaces.Dict
    action_space: spaces.Space
    max_episode_steps: int | None
    statistics: dict[str, bool]  # state fields; whether each has one number per agent
    num_agents: int
    form: Form
    reset_rows: Any = None
    step_rows: Any = None


def read(module: types.ModuleType, path: Path, digest: str, changes: dict[str, Any]) -> Definition:
    """The definition, without its loops, of a loaded file with some parameters and structure numbers changed.

    Raises InvalidEnvironment with the file, where there is one the line, and the rule.
    """
    several = hasattr(module, "num_agents")
    missing = [n for n in ("State", "observation_space", "action_space", "reset", "step", "observe")
               if not hasattr(module, n)]  # fmt: skip
    if missing:
        functions = Form(several, "", False, False).functions()
        listed = [f"{name}({functions[name]})" for name in ("reset", "step", "observe")]
        raise InvalidEnvironment(
            f"{path}: {', '.join(missing)} missing. An environment file defines State = state_dtype(...), "
            f"observation_space, action_space, {listed[0]}, {listed[1]} and {listed[2]}; see "
            "docs/add_an_environment.md"
        )
    parameters = changed(settings_class(module, path)(), path.stem, changes)
    structure = getattr(module, "Structure", NoParameters)._fields
    found = {name: _declared(module, path, name, structure, parameters) for name in _OF_STRUCTURE}
    num_agents = found["num_agents"] or 1
    _check_declarations(found, path, several)
    space, form = _observations(module, path, found, several)
    _check_functions(module, path, form)
    statistics = _statistics(module, path, found["State"], num_agents, several)
    try:
        dtype = several_agents_dtype(found["State"], num_agents) if several else found["State"]
    except ValueError as error:
        raise InvalidEnvironment(f"{path}: State: {error}") from None
    return Definition(
        path.stem, path, digest, module, dtype, parameters, structure, space, found["action_space"],
        found["max_episode_steps"], statistics, num_agents, form,
    )  # fmt: skip


def settings_class(module: types.ModuleType, path: Path) -> Any:
    """The NamedTuple class of what can be changed: the file's Parameters, with the fields of its Structure behind."""
    kinds = [getattr(module, name, NoParameters) for name in ("Parameters", "Structure")]
    for kind, name in zip(kinds, ("Parameters", "Structure"), strict=True):
        defaults = getattr(kind, "_field_defaults", None)
        if defaults is None:
            raise InvalidEnvironment(f"{path}: write class {name}(NamedTuple), with typing.NamedTuple")
        for field in kind._fields:
            if not isinstance(defaults.get(field), int | float):
                value = repr(defaults[field]) if field in defaults else "missing"
                raise InvalidEnvironment(
                    f"{path}: the default of {name}.{field} is {value}; write {field}: float = 1.0, with a number"
                )
    twice = set(kinds[0]._fields) & set(kinds[1]._fields)
    if twice:
        raise InvalidEnvironment(f"{path}: Parameters and Structure both have {', '.join(sorted(twice))}; rename one")
    if not kinds[1]._fields:
        return kinds[0]
    if "_Settings" not in vars(module):
        defaults = kinds[0]._field_defaults | kinds[1]._field_defaults
        both: Any = collections.namedtuple("Parameters", defaults, defaults=defaults.values())
        both.__annotations__ = {name: type(value) for name, value in defaults.items()}
        both.__module__, both.__qualname__ = module.__name__, "_Settings"  # found there by pickle
        vars(module)["_Settings"] = both
    return vars(module)["_Settings"]


def changed(parameters: Any, name: str, changes: dict[str, Any]) -> Any:
    """The environment's parameters with `changes`, each in the type of its default."""
    defaults = parameters._asdict()
    converted = {}
    for field, value in changes.items():
        if field not in defaults:
            raise InvalidEnvironment(f"{name} has no parameter {field!r}; it has: {', '.join(defaults) or 'none'}")
        kind = type(defaults[field])
        if not isinstance(value, int | float | np.number) or not math.isfinite(value) or kind(value) != value:
            rule = {int: "a whole number", bool: "True or False"}.get(kind, "a finite number")
            raise InvalidEnvironment(f"{name}: {field} = {value!r}; use {rule}")
        converted[field] = kind(value)
    return parameters._replace(**converted)


def _declared(module, path: Path, name: str, structure: tuple[str, ...], parameters) -> Any:
    """The file's declaration, or what its function makes of the structure."""
    value = getattr(module, name, None)
    if not isinstance(value, types.FunctionType):
        return value
    if not structure or value.__code__.co_argcount != 1:
        raise InvalidEnvironment(
            f"{path}:{line_of(value)}: {name} is a function; it may be one of class Structure(NamedTuple): "
            f"def {name}(structure): return ..."
        )
    try:
        return value(module.Structure(**{field: getattr(parameters, field) for field in structure}))
    except Exception as error:
        values = ", ".join(f"{field} = {getattr(parameters, field)}" for field in structure)
        said = describe(error, path).replace("\n", f" ({values})\n", 1)
        raise InvalidEnvironment(said) from error


def _check_declarations(found: dict[str, Any], path: Path, several: bool) -> None:
    state, action_space, limit = found["State"], found["action_space"], found["max_episode_steps"]
    if not isinstance(state, np.dtype) or "random_state" not in (state.names or ()):
        raise InvalidEnvironment(f"{path}: State must be made by ridgeline.kernel.state_dtype(name=type, ...)")
    _check_compiles(state, path, "State")
    if not isinstance(found["observation_space"], spaces.Box | spaces.Dict):
        raise InvalidEnvironment(f"{path}: observation_space must be a gymnasium.spaces.Box, or a Dict of such")
    if not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box):
        raise InvalidEnvironment(f"{path}: action_space must be a Discrete, MultiDiscrete or Box of gymnasium.spaces")
    if isinstance(action_space, spaces.Discrete) and action_space.start != 0:
        raise InvalidEnvironment(f"{path}: a Discrete action_space must start at 0")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise InvalidEnvironment(f"{path}: max_episode_steps = {limit!r} must be a positive whole number or None")
    num_agents = found["num_agents"]
    if several and (not isinstance(num_agents, int) or isinstance(num_agents, bool) or num_agents < 1):
        raise InvalidEnvironment(f"{path}: num_agents = {num_agents!r} must be a positive whole number")


def _check_compiles(dtype: np.dtype, path: Path, where: str) -> None:
    for name in dtype.names or ():
        if dtype[name].shape and dtype[name].base == np.bool_:
            raise InvalidEnvironment(f"{path}: {where}: {name} is an array of booleans; Numba needs np.int8 there")
        if hasattr(np.record, name):
            raise InvalidEnvironment(f"{path}: {where}: {name!r} is a method of NumPy's records; use another name")


def _observations(module, path: Path, found: dict[str, Any], several: bool) -> tuple[Any, Form]:
    """The space of a row's observation, with its action mask, and the form of the loops."""
    space, masked = found["observation_space"], hasattr(module, ACTION_MASK)
    part = ".observation" if masked and not is_packed(space) else ""
    try:
        if masked:
            size = mask_size(found["action_space"])
            parts = dict(space.spaces) if is_packed(space) else {"observation": space}
            if ACTION_MASK in parts:
                raise ValueError(f"{ACTION_MASK} is a function of the file: leave it out of observation_space")
            space = spaces.Dict({**parts, ACTION_MASK: spaces.Box(0, 1, (size,), np.int8)})
        if is_packed(space):
            check_action_mask(space, found["action_space"])
            _check_compiles(record_dtype(space), path, "observation_space")
            for name in record_dtype(space).names or ():
                if not name.isidentifier():
                    raise ValueError(f"observation part {name!r} is no name; `observe` writes observation.NAME")
    except ValueError as error:
        raise InvalidEnvironment(f"{path}: {error}") from None
    alive = several and hasattr(module, "alive")
    return space, Form(several, part, masked, alive, _simd(module, path, several))


def _simd(module, path: Path, several: bool) -> bool:
    value = getattr(module, "simd", False)
    if not isinstance(value, bool):
        raise InvalidEnvironment(f"{path}: simd = {value!r} must be True or False")
    if value and several:
        raise InvalidEnvironment(f"{path}: simd is for environments of one agent; leave it out beside num_agents")
    return value


def _check_functions(module, path: Path, form: Form) -> None:
    for name, rule in form.functions().items():
        function = getattr(getattr(module, name), "py_func", getattr(module, name))
        if not isinstance(function, types.FunctionType):
            raise InvalidEnvironment(f"{path}: {name} is {function!r}; write def {name}({rule}):")
        if function.__code__.co_argcount != rule.count(",") + 1:
            why = "; with num_agents it is written for several agents" * form.several
            raise InvalidEnvironment(f"{path}:{line_of(function)}: {name} must take ({rule}){why}")


def _statistics(module, path: Path, state: np.dtype, num_agents: int, several: bool) -> dict[str, bool]:
    each = {}
    for name in getattr(module, "statistics", ()):
        if name not in (state.names or ()):
            raise InvalidEnvironment(f"{path}: statistics names {name!r}, which is no field of State")
        shape = state[name].shape
        if shape != () and not (several and shape == (num_agents,)):
            rule = f"one number, or one per agent: ({num_agents},)" if several else "one number"
            raise InvalidEnvironment(f"{path}: statistics names {name!r}, a field of shape {shape}; use {rule}")
        each[name] = shape != ()
    return each
