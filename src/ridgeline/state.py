"""One instance's memory: its state record with the kernel's header, its random numbers, and how helpers are compiled.

`kernel` hands everything here on to the authors of environments.
"""

import math
import os
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError
from numba.core.types import unliteral
from numba.extending import intrinsic, overload

COMPILE = os.environ.get("RIDGELINE_COMPILE", "1") != "0"


def compiled(function):
    """Decorator of an environment's helper functions: compiled by Numba, callable from `reset`, `step`, `observe`."""
    if not COMPILE:
        return function
    options: dict[str, Any] = dict(nogil=True, error_model="numpy")
    dispatcher = numba.njit(**options)(function)
    # Compiled code calls a twin without what Python, or a pointer, would call: a sixth of the time of compiling.
    options |= dict(no_cpython_wrapper=True, no_cfunc_wrapper=True)
    twin = numba.njit(**options)(function)
    specialise = twin.get_call_template

    # Numba would compile a helper anew for each constant that it is called with: half of the time of `runner`. What is
    # inlined knows the constant all the same.
    def get_call_template(args, kws):
        try:
            return specialise([unliteral(one) for one in args], {name: unliteral(one) for name, one in kws.items()})
        except TypingError:  # a type depends on the constant, as of x[i] for a tuple of mixed types
            return specialise(args, kws)

    dispatcher.get_call_template = get_call_template
    dispatcher.get_overload = twin.get_overload
    dispatcher._compiling_counter = twin._compiling_counter  # a call of itself is known by it
    return dispatcher


_RANDOM = [("random_state", np.uint64), ("random_stream", np.uint64)]
_EPISODE = [("episode_return", np.float64), ("episode_length", np.int64)]


def state_dtype(**fields) -> np.dtype:
    """The structured dtype of one instance: the author's `name=type` fields, then the kernel's header.

    A field is a NumPy scalar type (`np.float64`) or a pair `(type, shape)`. Header: `random_state`, `random_stream`
    (the instance's own generator), `episode_return` (sum of rewards) and `episode_length` (steps) of the episode in
    flight.
    """
    own = [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()]
    # The header comes last: a record whose first fields are those of another one is its subtype for Numba, and the
    # helpers compiled for the shorter one would be used for both, with a warning.
    return np.dtype(own + _RANDOM + _EPISODE, align=True)


def several_agents_dtype(dtype: np.dtype, num_agents: int) -> np.dtype:
    """The state of a world of agents: of each its `episode_return`, `episode_length` (its decisions), and `playing`,
    1 while an episode of it is in flight; `world_length`, the steps of the world since its reset.
    """
    own = [(name, dtype[name]) for name in own_fields(dtype)]
    each = [(name, kind, (num_agents,)) for name, kind in (*_EPISODE, ("playing", np.int8))]
    return np.dtype([*own, *_RANDOM, *each, ("world_length", np.int64)], align=True)


def own_fields(dtype: np.dtype) -> list[str]:
    """The names of the author's fields of a state: those before the header."""
    names = list(dtype.names or ())
    return names[: names.index(_RANDOM[0][0])]


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


@compiled
def sine_cosine(x):
    """(sin x, cos x) of a float64: where |x| <= 1e6 within 2.5e-16 and within 3 units in the last place, up to 1e15
    within 2e-16 |x|, which is what the rounding of x does itself, and beyond not a number.

    Additions and multiplications alone: the same bits on every machine, faster than the C library, and fit for `simd`.
    The nearest multiple of a quarter turn is taken away first (Cody & Waite 1980): pi / 2 is the sum of three numbers,
    and multiples of the first two, of 33 bits, are exact. Then fdlibm's polynomials (Sun Microsystems 1993), with their
    terms in pairs, which a processor computes side by side.
    """
    turns = 0.0
    if not abs(x) <= 0.7853981633974483:
        turns = np.rint(x * 0.6366197723675814) if abs(x) <= 1e15 else math.nan
        x = x - turns * 1.5707963267341256 - turns * 6.077100506303966e-11 - turns * 2.0222662487959506e-21
    z = x * x
    z2 = z * z
    z4 = z2 * z2
    low = -1.66666666666666324348e-01 + z * 8.33333333332248946124e-03
    middle = -1.98412698298579493134e-04 + z * 2.75573137070700676789e-06
    high = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    sine = x + x * z * ((low + z2 * middle) + z4 * high)
    low = 4.16666666666666019037e-02 + z * -1.38888888888741095749e-03
    middle = 2.48015872894767294178e-05 + z * -2.75573143513906633035e-07
    high = 2.08757232129817482790e-09 + z * -1.13596475577881948265e-11
    cosine = (1.0 - 0.5 * z) + z2 * ((low + z2 * middle) + z4 * high)
    if turns == 0.0:
        return sine, cosine
    half_turns = np.floor(turns * 0.5)
    sign = 1.0 - 2.0 * (half_turns - 2.0 * np.floor(half_turns * 0.5))
    if turns > 2.0 * half_turns:
        return sign * cosine, -sign * sine
    return sign * sine, sign * cosine


@intrinsic
def borrowed(typing_context, array):
    """The same array, whose owner sees to it that it lives: a part of it that is handed to a function is not counted.

    The counts are atomic: with them a step of `snake` takes 51 ns, without 31.
    """

    def generate(context, builder, signature, arguments):
        made = context.make_array(array)(context, builder, arguments[0])
        made.meminfo = ir.Constant(made.meminfo.type, None)
        made.parent = ir.Constant(made.parent.type, None)
        return made._getvalue()

    return array(array), generate


LANES = 8  # numbers that are copied at once; a processor's registers hold a power of two


def _copy_lanes(target, place, source, first):
    target[place : place + LANES] = source[first : first + LANES]


@intrinsic
def _lanes(typing_context, target, place, source, first):
    """`_copy_lanes` from int8 to float32, as one load, one conversion and one store."""
    if (target.dtype, source.dtype) != (types.float32, types.int8):
        raise TypingError(f"copy_row copies int8 numbers to float32 ones, not {source.dtype} to {target.dtype}")

    def generate(context, builder, signature, arguments):
        def lanes(which, number):
            array = context.make_array(signature.args[which])(context, builder, arguments[which])
            pointer = builder.gep(array.data, [arguments[which + 1]])
            return builder.bitcast(pointer, ir.VectorType(number, LANES).as_pointer())

        numbers = builder.load(lanes(2, ir.IntType(8)), align=1)
        converted = builder.sitofp(numbers, ir.VectorType(ir.FloatType(), LANES))
        builder.store(converted, lanes(0, ir.FloatType()), align=4)
        return context.get_dummy_value()

    return types.void(target, types.uint64, source, types.uint64), generate


@overload(_copy_lanes)
def _(target, place, source, first):
    return lambda target, place, source, first: _lanes(target, place, source, first)  # type: ignore


@compiled
def copy_row(target, place, source, first, count):
    """target[place : place + count] = source[first : first + count], from int8 to float32, both with one axis.

    A loop does the same at a third of the speed: it is compiled for many numbers and goes through few one by one.
    """
    # Unsigned indices: compiled code need not look whether they count from the end.
    place, first, count, lanes = np.uint64(place), np.uint64(first), np.uint64(count), np.uint64(LANES)
    if count < lanes:
        for i in range(count):
            target[place + np.uint64(i)] = source[first + np.uint64(i)]
        return
    i, last = np.uint64(0), count - lanes
    while i < last:
        _copy_lanes(target, place + i, source, first + i)
        i += lanes
    _copy_lanes(target, place + last, source, first + last)  # some of them once more


def seed_rows(state: np.ndarray, seed: int, purpose: int) -> None:
    """Give row i the random stream of (seed, purpose, i): the same for any number of rows."""
    words = np.random.SeedSequence([seed, purpose]).generate_state(2 * len(state), np.uint64)
    state["random_state"] = words[0::2]
    state["random_stream"] = words[1::2] | np.uint64(1)
