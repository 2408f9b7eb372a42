"""A new environment file's first steps, in plain Python, where an index out of range is an error and not a corrupted
memory."""

import math

import numpy as np
from gymnasium import spaces

from ridgeline.declarations import Definition
from ridgeline.observations import ACTION_MASK, random_allowed, record_dtype
from ridgeline.sources import InvalidEnvironment, describe, line_of, plain
from ridgeline.state import own_fields, seed_rows

_STEPS, _CALLS = 64, 1024  # steps of one instance; of many agents fewer, and at least 8


def sample_action(space: spaces.Space, generator: np.random.Generator, count: int) -> np.ndarray:
    """`count` uniformly random actions: int64 (count,) or (count, A), or float32 (count, A) within the bounds."""
    if isinstance(space, spaces.Discrete):
        return generator.integers(0, space.n, count)
    if isinstance(space, spaces.MultiDiscrete):
        return generator.integers(0, space.nvec, (count, *space.shape))
    assert isinstance(space, spaces.Box)
    low = np.where(np.isfinite(space.low), space.low, np.where(np.isfinite(space.high), space.high - 2.0, -1.0))
    high = np.where(np.isfinite(space.high), space.high, low + 2.0)
    return generator.uniform(low, high, (count, *space.shape)).astype(np.float32)


def rehearse(definition: Definition) -> None:
    """Play one instance for some steps of random allowed actions.

    Raises InvalidEnvironment where the file raises, leaves an observation unwritten, or returns what it must not.
    """
    try:
        with np.errstate(all="ignore"):
            _play(definition)
    except InvalidEnvironment:
        raise
    except Exception as error:
        space, own = definition.observation_space, own_fields(definition.state_dtype)
        if isinstance(space, spaces.Dict):
            shape = "the parts " + ", ".join(f"{name} {part.shape}" for name, part in space.spaces.items())
        else:
            shape = f"the shape {space.shape}"
        said = describe(error, definition.path).replace(type(definition.parameters).__name__, "Parameters")
        raise InvalidEnvironment(
            f"{said}\n    State has the fields {', '.join(own) or '(none)'}; Parameters "
            f"{', '.join(definition.parameters._fields) or '(none)'}; observation {shape}"
        ) from error


def _play(definition: Definition) -> None:
    form, p, count = definition.form, definition.parameters, definition.num_agents
    functions = {name: plain(getattr(definition.module, name)) for name in form.functions()}
    generator = np.random.default_rng(0)
    state = np.zeros(1, definition.state_dtype).view(np.recarray)
    seed_rows(state, 0, 0)
    functions["reset"](state[0], p)
    for _ in range(max(8, min(_STEPS, _CALLS // count))):
        masks = [_observe(definition, functions, state[0], agent) for agent in range(count)]
        if form.masked:
            action = random_allowed(definition.action_space, np.array(masks), generator)
        else:
            action = sample_action(definition.action_space, generator, count)
        if form.several:
            over = _step_several(definition, functions, state[0], action)
        else:
            over = _step(definition, functions, state[0], action[0])
        if over:
            functions["reset"](state[0], p)


def _observe(definition: Definition, functions: dict, state, agent: int) -> np.ndarray | None:
    """One agent's view, checked; its action mask where there is one."""
    form, space, module = definition.form, definition.observation_space, definition.module
    who = (agent,) if form.several else ()
    where = f"{definition.path}:{line_of(module.observe)}"
    if isinstance(space, spaces.Box):
        observation = np.full(space.shape, np.nan, space.dtype) if space.dtype.kind == "f" else np.zeros_like(space.low)
        functions["observe"](state, *who, observation, definition.parameters)
        _check_written(where, "observation", observation, "observation_space")
        return None
    record = np.zeros(1, record_dtype(space)).view(np.recarray)
    for name in space.spaces:
        if record.dtype[name].base.kind == "f":
            record[name] = np.nan
    target = record[0].observation if form.part else record[0]
    functions["observe"](state, *who, target, definition.parameters)
    for name in space.spaces:
        _check_written(where, f"observation{'' if form.part else f'.{name}'}", record[name][0], "it")
    if not form.masked:
        return None
    mask = record[0].action_mask
    mask[:] = 2
    functions["action_mask"](state, *who, mask, definition.parameters)
    decides = not form.alive or functions["alive"](state, agent)
    _check_mask(definition, mask, decides)
    return mask


def _check_written(where: str, name: str, observation: np.ndarray, space: str) -> None:
    if not np.isfinite(observation).all():
        bad = np.argwhere(~np.isfinite(observation))[0].tolist() or ""
        raise InvalidEnvironment(
            f"{where}: observe left NaN or infinity in {name}{bad}; it must write all {observation.shape} numbers of "
            f"{space}"
        )


def _check_mask(definition: Definition, mask: np.ndarray, decides: bool) -> None:
    where = f"{definition.path}:{line_of(definition.module.action_mask)}"
    wrong = np.flatnonzero((mask != 0) & (mask != 1))
    if len(wrong):
        raise InvalidEnvironment(
            f"{where}: {ACTION_MASK} left mask[{wrong[0]}] unwritten, or wrote neither 0 nor 1; it must write all "
            f"{len(mask)} entries"
        )
    space = definition.action_space
    parts = np.split(mask, np.cumsum(space.nvec)[:-1]) if isinstance(space, spaces.MultiDiscrete) else [mask]
    for index, part in enumerate(parts):
        if decides and not part.any():
            which = f" in part {index}" if len(parts) > 1 else ""
            raise InvalidEnvironment(
                f"{where}: {ACTION_MASK} allows no action{which}; allow at least one where there is something to decide"
            )


def _step(definition: Definition, functions: dict, state, action) -> bool:
    result = functions["step"](state, action, definition.parameters)
    if not _is_step_result(result):
        raise InvalidEnvironment(
            f"{definition.path}:{line_of(definition.module.step)}: step returned {result!r}; "
            "return (reward, terminated): a finite number, and True or False"
        )
    return result[1]


def _is_step_result(result) -> bool:
    if not isinstance(result, tuple) or len(result) != 2:
        return False
    reward, terminated = result
    if not isinstance(reward, int | float | np.number) or not isinstance(terminated, bool | np.bool):
        return False
    return math.isfinite(reward)


def _step_several(definition: Definition, functions: dict, state, action) -> bool:
    module, path = definition.module, definition.path
    if definition.form.alive:
        for agent in range(definition.num_agents):
            result = functions["alive"](state, agent)
            if not isinstance(result, bool | np.bool):
                raise InvalidEnvironment(
                    f"{path}:{line_of(module.alive)}: alive returned {result!r}; use True or False"
                )
    reward, terminated = np.zeros(definition.num_agents), np.zeros(definition.num_agents, np.bool_)
    over = functions["step"](state, action, reward, terminated, definition.parameters)
    where = f"{path}:{line_of(module.step)}"
    if not isinstance(over, bool | np.bool):
        raise InvalidEnvironment(
            f"{where}: step returned {over!r}; of several agents return whether the world is over, True or False, and "
            "write reward[agent] and terminated[agent]"
        )
    if not np.isfinite(reward).all():
        agent = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise InvalidEnvironment(f"{where}: step wrote reward[{agent}] = {reward[agent]}; use a finite number")
    return bool(over)
