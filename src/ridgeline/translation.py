"""Other people's spaces as policies see them, and what passes between the two.

This file travels to worker processes by value with `gymnasium_rows`: it uses nothing of Ridgeline but `observations`,
which does too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from ridgeline.observations import as_dict, is_packed, storage_shape_dtype, unpack


class UnsupportedSpace(ValueError):
    """A space that no policy can use; the message says which can."""


def as_float32(values: np.ndarray) -> np.ndarray:
    """`values` in float32, the same array where it is that already; what is too large becomes infinite."""
    if values.dtype == np.float32:
        return values
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


class Observations:
    """An author's observation space, and his observations as the arrays of `space`.

    Images, a Box of uint8 with two or more dimensions, stay as they are; every other Box is float32. Dict and Tuple
    become a flat Dict, of which an observation is one packed record (`observations`); a Discrete, MultiDiscrete or
    MultiBinary alone becomes a Dict of one part, "0". Discrete numbers start at 0. An "action_mask" is int8.

    Raises UnsupportedSpace.
    """

    def __init__(self, author: spaces.Space):
        self._tuple = not isinstance(author, spaces.Dict)
        self._alone = isinstance(author, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
        try:
            parts = as_dict(spaces.Tuple((author,)) if self._alone or not is_packed(author) else author)
            translated = {key: _part(key, part) for key, part in parts.items()}
        except ValueError as error:
            raise UnsupportedSpace(
                f"observations are {short(author)}; supported are a Box, and a flat Dict or Tuple of Box, Discrete, "
                f"MultiDiscrete and MultiBinary: {error}"
            ) from error
        self._packed = self._alone or is_packed(author)
        self.space: Any = spaces.Dict(translated) if self._packed else translated["0"]
        self.shape, self.dtype = storage_shape_dtype(self.space)
        self._parts = list(parts)
        self._keys = list(author.spaces) if isinstance(author, spaces.Dict) else list(range(len(parts)))
        self._shapes = [part.shape or () for part in parts.values()]
        self._start = [getattr(part, "start", 0) for part in parts.values()]

    def __call__(self, observation: Any, lead: tuple[int, ...] = ()) -> np.ndarray:
        """The author's observation, of `lead` rows, as an array (*lead, *shape): the same one where nothing changes."""
        if not self._packed:
            return self._checked(observation, lead + self._shapes[0], "")
        if self._alone:
            observation = (observation,)
        if len(observation) != len(self._keys):
            raise ValueError(f"an observation of {len(observation)} parts; observation_space has {len(self._keys)}")
        record = np.zeros((*lead, *self.shape), np.uint8)
        fields = unpack(self.space, record)
        for name, key, shape, start in zip(self._parts, self._keys, self._shapes, self._start, strict=True):
            array = np.asarray(observation[key])
            if array.shape != lead + shape:
                raise ValueError(f"an observation part {name!r} of shape {array.shape}; observation_space has {shape}")
            with np.errstate(over="ignore"):
                fields[name][...] = array - start if np.any(start) else array
        return record

    def _checked(self, observation: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
        array = np.asarray(observation)
        if array.shape != shape:
            raise ValueError(f"an observation of shape {array.shape}; observation_space has {shape}")
        return array if array.dtype == self.dtype else as_float32(array)


def _part(key: str, part: spaces.Space) -> spaces.Space:
    """One part as policies see it."""
    if isinstance(part, spaces.Discrete):
        return spaces.Discrete(int(part.n))
    if isinstance(part, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(part.nvec)
    if isinstance(part, spaces.MultiBinary):
        return part
    assert isinstance(part, spaces.Box)
    if key == "action_mask":
        return spaces.Box(0, 1, part.shape, np.int8)
    if not part.shape or 0 in part.shape or part.dtype.kind not in "fiub":
        raise ValueError(f"{short(part)} is a Box without a dimension, or not of numbers")
    if part.dtype == np.uint8 and len(part.shape) > 1:
        return part
    return spaces.Box(as_float32(part.low), as_float32(part.high), dtype=np.float32)


def actions(space: spaces.Space) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """The action space that a policy sees, flat and from 0, and the function from its actions to the author's."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n)), lambda action: (action + space.start).astype(space.dtype)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        discrete = isinstance(space, spaces.MultiDiscrete)
        counts = space.nvec.ravel() if discrete else np.full(int(np.prod(space.shape)), 2)
        start = space.start if discrete else 0

        def shifted(action: np.ndarray) -> np.ndarray:
            return (action.reshape(-1, *space.shape) + start).astype(space.dtype)

        return spaces.MultiDiscrete(counts), shifted
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        raise UnsupportedSpace(
            f"actions are {short(space)}; supported are Discrete, MultiDiscrete, MultiBinary and a Box of "
            "floating-point numbers"
        )
    # Bounds are rounded inwards: what lies within them in float32 then does in float64.
    low, high = as_float32(space.low), as_float32(space.high)
    low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low).ravel()
    high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high).ravel()
    neutral = np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)

    def send(action: np.ndarray) -> np.ndarray:
        action = action.reshape(-1, *space.shape).astype(space.dtype)
        # A run whose parameters have become NaN must not stop the others in an environment that refuses NaN.
        return action if np.isfinite(action).all() else np.where(np.isfinite(action), action, neutral)

    return spaces.Box(low, high, dtype=np.float32), send


def short(space: spaces.Space) -> str:
    """The space in words, on one line."""
    return " ".join(str(space).split())[:200]
