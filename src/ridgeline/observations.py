"""Observations of several parts: one packed record per row, so that every array of observations is one array.

An observation space is a Box, or a flat Dict (a Tuple counts as a Dict with the keys "0", "1", ...) of Box, Discrete,
MultiDiscrete and MultiBinary. A Box's observations are arrays of its shape and dtype. A Dict's are uint8
(..., itemsize): the bytes of a NumPy record with one field per key. Rollouts, checkpoints and minibatches store and
gather the bytes; `unpack` shows the parts without a copy.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

ACTION_MASK = "action_mask"  # the part that says which actions are allowed: 1 allowed, 0 not
_ALIGNMENT = 8  # bytes: of the largest number


def as_dict(space: spaces.Space) -> dict[str, Any]:
    """The parts of a Dict or Tuple by name, in the space's order.

    Raises ValueError for a part that is none of Box, Discrete, MultiDiscrete, MultiBinary, and for a space of one part.
    """
    if isinstance(space, spaces.Dict):
        parts = {str(key): part for key, part in space.spaces.items()}
    elif isinstance(space, spaces.Tuple):
        parts = {str(index): part for index, part in enumerate(space.spaces)}
    else:
        raise ValueError(f"{space} has no parts; use a Dict or Tuple of gymnasium.spaces")
    if not parts:
        raise ValueError("an observation space without a part; give the Dict or Tuple at least one")
    for key, part in parts.items():
        if not isinstance(part, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
            raise ValueError(
                f"observation part {key!r} is {part}; use Box, Discrete, MultiDiscrete or MultiBinary, in one flat "
                "Dict or Tuple (gymnasium.wrappers.FlattenObservation makes one Box of anything)"
            )
    return parts


def is_packed(space: spaces.Space) -> bool:
    """Whether observations of `space` are packed records: of a Dict or Tuple."""
    return isinstance(space, spaces.Dict | spaces.Tuple)


def record_dtype(space: spaces.Space) -> np.dtype:
    """The aligned record of a Dict or Tuple: a field per part, in the space's order; itemsize a multiple of 8 bytes."""
    parts = as_dict(space)
    fields: list[Any] = [(key, part.dtype, part.shape or ()) for key, part in parts.items()]
    dtype = np.dtype(fields, align=True)
    placed: Any = dtype.fields
    return np.dtype({
        "names": list(parts),
        "formats": [placed[key][0] for key in parts],
        "offsets": [placed[key][1] for key in parts],
        "itemsize": -(-dtype.itemsize // _ALIGNMENT) * _ALIGNMENT,
        "aligned": True,
    })  # fmt: skip


def storage_shape_dtype(space: spaces.Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one row's stored observation: a Box's own, else ((itemsize,), uint8)."""
    if is_packed(space):
        return (record_dtype(space).itemsize,), np.dtype(np.uint8)
    if not isinstance(space, spaces.Box):
        raise ValueError(f"observation_space is {space}; use a Box, or a flat Dict or Tuple of gymnasium.spaces")
    return space.shape, space.dtype


def pack(space: spaces.Space, observation: Mapping[str, Any] | tuple) -> np.ndarray:
    """The bytes, uint8 (..., itemsize), of a dict (or tuple) of arrays (..., *shape of the part); padding is 0.

    Raises ValueError where a part is missing, is not in the space, or has another shape.
    """
    dtype, parts = record_dtype(space), as_dict(space)
    if isinstance(observation, tuple):
        observation = {str(index): value for index, value in enumerate(observation)}
    if set(observation) != set(parts):
        raise ValueError(f"the observation has the parts {', '.join(observation)}; the space {', '.join(parts)}")
    arrays = {key: np.asarray(observation[key]) for key in parts}
    first, array = next(iter(arrays.items()))
    lead = array.shape[: array.ndim - len(parts[first].shape or ())]
    record = np.zeros((*lead, dtype.itemsize), np.uint8)
    fields = unpack(space, record)
    for key, array in arrays.items():
        if array.shape != fields[key].shape:
            raise ValueError(f"observation part {key!r} has shape {array.shape}; give {fields[key].shape}")
        fields[key][...] = array
    return record


def unpack(space: spaces.Space, observation: Any) -> Any:
    """The parts of packed observations, uint8 (..., itemsize), as views (..., *shape of the part) by name.

    `observation` is a NumPy array or a torch tensor with a contiguous last dimension, and so are the parts. What
    belongs to a Box comes back as it is.
    """
    if not is_packed(space):
        return observation
    fields: Any = record_dtype(space).fields
    parts = {}
    for key, part in as_dict(space).items():
        offset, shape = fields[key][1], part.shape or ()
        size = math.prod(shape) * part.dtype.itemsize
        kind = part.dtype if isinstance(observation, np.ndarray) else getattr(sys.modules["torch"], part.dtype.name)
        parts[key] = observation[..., offset : offset + size].view(kind).reshape((*observation.shape[:-1], *shape))
    return parts


def mask_size(action_space: spaces.Space) -> int:
    """The number of entries of an action mask: n of a Discrete, the sum of nvec of a MultiDiscrete, side by side.

    Raises ValueError for other action spaces, which cannot be masked.
    """
    if isinstance(action_space, spaces.Discrete):
        return int(action_space.n)
    if isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
        return int(action_space.nvec.sum())
    raise ValueError(
        f"actions of {action_space} cannot be masked; use Discrete or MultiDiscrete, or leave the mask out"
    )


def check_action_mask(observation_space: spaces.Space, action_space: spaces.Space) -> bool:
    """Whether the observations have an action mask; raises ValueError where it does not suit the actions."""
    if not is_packed(observation_space) or ACTION_MASK not in as_dict(observation_space):
        return False
    mask, size = as_dict(observation_space)[ACTION_MASK], mask_size(action_space)
    if mask.shape != (size,) or mask.dtype not in (np.int8, np.bool_):
        raise ValueError(
            f"observation part {ACTION_MASK!r} is {mask}; for actions of {action_space} use "
            f"Box(0, 1, ({size},), np.int8): 1 where an action is allowed"
        )
    return True


def random_allowed(action_space: spaces.Space, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Uniformly random allowed actions, int64 (B,) or (B, A), for masks (B, M); a part that allows none: any action."""
    nvec = action_space.nvec if isinstance(action_space, spaces.MultiDiscrete) else [mask_size(action_space)]
    actions, start = [], 0
    for count in nvec:
        allowed = mask[:, start : start + count].astype(np.float64)
        allowed[~allowed.any(1)] = 1.0
        cumulative = allowed.cumsum(1)
        place = generator.random(len(mask)) * cumulative[:, -1]
        actions.append((cumulative <= place[:, None]).sum(1))
        start += count
    return np.stack(actions, 1) if isinstance(action_space, spaces.MultiDiscrete) else actions[0]
