"""Recurrent cells for one run or many, and sequences of observations with the episodes' beginnings inside.

Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder" (the GRU, in the form of cuDNN and
PyTorch, where the reset gate works behind the product); Hochreiter & Schmidhuber 1997, "Long short-term memory", with
the forget gate of Gers et al. 2000.

The products with the input are one for all steps; what is left in the loop over time is one product and one pass over
memory per step, forward and backward (`_Unroll`). Inside `torch.func` transforms and in float64 a cell is made of
torch's own operations, which can be differentiated twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch.autograd import Function
from torch.utils._pytree import tree_map

from ridgeline.layers import _fast, _product, tanh

GATES = {"gru": 3, "lstm": 4}
STATES = {"gru": 1, "lstm": 2}  # an LSTM keeps its cell beside its output
_KEPT = {"gru": 4, "lstm": 5}  # numbers of each unit and step that the way back needs


class Sequence(NamedTuple):
    """L steps of M rows, from the state that they began with. With a leading R where it belongs to several runs."""

    observation: Any  # (L, M, *O), or a flat dict of such
    state: torch.Tensor  # (M, S) before the first step
    start: torch.Tensor  # (L, M) bool: this step begins an episode, with the initial state


def unroll(step: Callable, sequence: Sequence, initial: torch.Tensor) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The results of `step(observation, state) -> (distribution, value, state)` over a sequence of one run, flattened
    to L * M rows, step by step; `initial` (M, S) is the state at the beginning of an episode."""
    state, found = sequence.state, []
    for t in range(len(sequence.start)):
        state = torch.where(sequence.start[t].unsqueeze(-1), initial, state)
        distribution, value, state = step(tree_map(lambda leaf, t=t: leaf[t], sequence.observation), state)
        found.append((distribution, value, state))
    return tree_map(lambda *leaves: torch.cat(leaves), *found)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sigmoid(x):
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _before(t, state, start, states, previous):
    """previous (R, L, M, S) at t <- the state after the step before, 0 where an episode starts."""
    runs, _, rows, _ = states.shape
    for run in range(runs):
        for row in range(rows):
            line = previous[run, t, row]
            if start[run, t, row]:
                line[:] = 0
            else:
                before = state[run, row] if t == 0 else states[run, t - 1, row]
                for i in range(len(line)):
                    line[i] = before[i]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _gru(t, x, u, bias, previous, kept, states):
    """One step of a GRU. x (R, L, M, 3H): the input's products; u (R, M, 3H): the state's, with bias (R, 3H) to add;
    previous (R, L, M, H). Fills states (R, L, M, H) and kept (R, L, M, 4H) at t."""
    runs, _, rows, size = states.shape
    for run in range(runs):
        b = bias[run]
        for row in range(rows):
            own, from_state, before = x[run, t, row], u[run, row], previous[run, t, row]
            line, keep = states[run, t, row], kept[run, t, row]
            for i in range(size):
                r = _sigmoid(own[i] + from_state[i] + b[i])
                z = _sigmoid(own[size + i] + from_state[size + i] + b[size + i])
                inner = from_state[2 * size + i] + b[2 * size + i]
                n = tanh(own[2 * size + i] + r * inner)
                line[i] = n + z * (before[i] - n)
                keep[i], keep[size + i], keep[2 * size + i], keep[3 * size + i] = r, z, n, inner


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _gru_back(t, gradient, kept, previous, dx, du, direct):
    """From the gradient (R, M, H) of the state after t: of x at t (dx), of u (du, both (R, L, M, 3H)), and of the state
    before, as far as it does not go through u (direct, (R, M, H))."""
    runs, _, rows, size = previous.shape
    one = np.float32(1)
    for run in range(runs):
        for row in range(rows):
            g, keep, before = gradient[run, row], kept[run, t, row], previous[run, t, row]
            own, from_state, line = dx[run, t, row], du[run, t, row], direct[run, row]
            for i in range(size):
                r, z, n, inner = keep[i], keep[size + i], keep[2 * size + i], keep[3 * size + i]
                at_n = g[i] * (one - z) * (one - n * n)
                at_r = at_n * inner * r * (one - r)
                at_z = g[i] * (before[i] - n) * z * (one - z)
                own[i], own[size + i], own[2 * size + i] = at_r, at_z, at_n
                from_state[i], from_state[size + i], from_state[2 * size + i] = at_r, at_z, at_n * r
                line[i] = g[i] * z


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _lstm(t, x, u, bias, previous, kept, states):
    """One step of an LSTM; states hold output and cell, (R, L, M, 2H); x, u, bias have 4H columns, kept 5H."""
    runs, _, rows, both = states.shape
    size = both // 2
    for run in range(runs):
        b = bias[run]
        for row in range(rows):
            own, from_state, before = x[run, t, row], u[run, row], previous[run, t, row]
            line, keep = states[run, t, row], kept[run, t, row]
            for i in range(size):
                enter = _sigmoid(own[i] + from_state[i] + b[i])
                stay = _sigmoid(own[size + i] + from_state[size + i] + b[size + i])
                new = tanh(own[2 * size + i] + from_state[2 * size + i] + b[2 * size + i])
                leave = _sigmoid(own[3 * size + i] + from_state[3 * size + i] + b[3 * size + i])
                cell = stay * before[size + i] + enter * new
                shown = tanh(cell)
                line[i], line[size + i] = leave * shown, cell
                keep[i], keep[size + i], keep[2 * size + i] = enter, stay, new
                keep[3 * size + i], keep[4 * size + i] = leave, shown


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _lstm_back(t, gradient, kept, previous, dx, du, direct):
    """As `_gru_back`, for (R, M, 2H)."""
    runs, _, rows, both = previous.shape
    size = both // 2
    one = np.float32(1)
    for run in range(runs):
        for row in range(rows):
            g, keep, before = gradient[run, row], kept[run, t, row], previous[run, t, row]
            own, from_state, line = dx[run, t, row], du[run, t, row], direct[run, row]
            for i in range(size):
                enter, stay, new = keep[i], keep[size + i], keep[2 * size + i]
                leave, shown = keep[3 * size + i], keep[4 * size + i]
                at_cell = g[size + i] + g[i] * leave * (one - shown * shown)
                own[i] = at_cell * new * enter * (one - enter)
                own[size + i] = at_cell * before[size + i] * stay * (one - stay)
                own[2 * size + i] = at_cell * enter * (one - new * new)
                own[3 * size + i] = g[i] * shown * leave * (one - leave)
                line[i], line[size + i] = np.float32(0), at_cell * stay
            for i in range(4 * size):  # from_state[:] = own would take 2 s to compile
                from_state[i] = own[i]


_FORWARD, _BACKWARD = {"gru": _gru, "lstm": _lstm}, {"gru": _gru_back, "lstm": _lstm_back}


class _Unroll(Function):
    """The states after each step: x (R, L, M, G H), state (R, M, S), start (R, L, M), weight (R, G H, H), bias (R, G H)
    -> (R, L, M, S)."""

    @staticmethod
    def forward(ctx, kind, x, state, start, weight, bias):
        runs, length, rows, _ = x.shape
        size = weight.shape[2]
        states, previous = (torch.empty(runs, length, rows, state.shape[2]) for _ in range(2))
        kept = torch.empty(runs, length, rows, _KEPT[kind] * size)
        arrays = x.contiguous().numpy(), bias.detach().contiguous().numpy()
        first, begins = state.contiguous().numpy(), start.contiguous().numpy()
        across = weight.transpose(1, 2)
        for t in range(length):
            _before(t, first, begins, states.numpy(), previous.numpy())
            u = _product(previous[:, t, :, :size].contiguous(), across)
            _FORWARD[kind](t, arrays[0], u.numpy(), arrays[1], previous.numpy(), kept.numpy(), states.numpy())
        ctx.kind = kind
        ctx.save_for_backward(kept, previous, start, weight)
        return states

    @staticmethod
    def backward(ctx, *gradients):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a float32 cell on the CPU has no second derivative by autograd (create_graph=True); take the inner "
                "one by torch.func.grad"
            )
        kept, previous, start, weight = ctx.saved_tensors
        runs, length, rows, _ = previous.shape
        size = weight.shape[2]
        dx, du = (torch.empty(runs, length, rows, weight.shape[1]) for _ in range(2))
        direct = torch.empty(runs, rows, previous.shape[3])
        flowing = torch.zeros_like(direct)
        for t in reversed(range(length)):
            flowing = (flowing + gradients[0][:, t]).contiguous()
            _BACKWARD[ctx.kind](
                t, flowing.numpy(), kept.numpy(), previous.numpy(), dx.numpy(), du.numpy(), direct.numpy()
            )
            flowing = direct.clone()
            flowing[..., :size] += _product(du[:, t].contiguous(), weight)
            flowing.masked_fill_(start[:, t].unsqueeze(-1), 0.0)
        flat = du.flatten(1, 2)
        at_weight = _product(flat.transpose(1, 2), previous[..., :size].flatten(1, 2).contiguous())
        return None, dx, flowing if ctx.needs_input_grad[2] else None, None, at_weight, flat.sum(1)


def states_of(
    kind: str, x: torch.Tensor, state: torch.Tensor, start: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The states after each step of a cell, (L, M, S); its output is the first H columns of them.

    Args: kind gru or lstm; x (L, M, G H): the input's products with the cell's weights and their biases, G gates side
    by side (gru: reset, update, new; lstm: input, forget, new, output); state (M, S) before the first step; start
    (L, M) bool; weight (G H, H) and bias (G H,) of the state's products. Or all with a leading R.
    """
    if weight.dtype == torch.float32 and _fast(x):
        if weight.dim() == 3:
            return _Unroll.apply(kind, x, state, start, weight, bias)
        one = (tensor.unsqueeze(0) for tensor in (x, state, start, weight, bias))
        return _Unroll.apply(kind, *one).squeeze(0)
    size, found = weight.shape[-1], []
    state = state.to(x.dtype)
    for gates, begins in zip(x.unbind(-3), start.unbind(-2), strict=True):
        state = torch.where(begins.unsqueeze(-1), 0.0, state)
        u = state[..., :size] @ weight.transpose(-1, -2) + bias.unsqueeze(-2)
        if kind == "gru":
            (xr, xz, xn), (ur, uz, un) = gates.split(size, -1), u.split(size, -1)
            r, z = torch.sigmoid(xr + ur), torch.sigmoid(xz + uz)
            n = torch.tanh(xn + r * un)
            state = n + z * (state - n)
        else:
            enter, stay, new, leave = (gates + u).split(size, -1)
            cell = torch.sigmoid(stay) * state[..., size:] + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.cat([torch.sigmoid(leave) * torch.tanh(cell), cell], -1)
        found.append(state)
    return torch.stack(found, -3)
