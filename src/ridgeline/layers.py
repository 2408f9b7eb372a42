"""Chains of dense layers whose activation and its gradient are single passes over memory, for one run or many.

Measured on one core: torch.tanh gives 0.4 G values/s on float32, the rational function below 4.3 G values/s, with an
error below 3e-7. A policy of 2 x 64 tanh units spends most of its time in the former. On other devices and in other
precisions a chain is the plain composition of torch's own operations.
"""

import os

import numba
import numpy as np
import torch
from torch.autograd import Function

# Intel MKL, which PyTorch brings on x86: without this a product's last bits depend on where in memory its operands lie,
# so a run's result would depend on its place in the population. Read at MKL's first product; costs no time (measured).
os.environ.setdefault("MKL_CBWR", "AUTO")

TANH, RELU, LINEAR = 0, 1, 2
ACTIVATIONS = {"tanh": TANH, "relu": RELU, "linear": LINEAR}


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def tanh(x):
    """tanh of a float32: x P(x^2) / Q(x^2), degrees 13 and 6 (the minimax fit that Eigen and XLA use), clamped at 7.9,
    where float32 tanh is 1."""
    x = min(max(x, np.float32(-7.90531110763549805)), np.float32(7.90531110763549805))
    s = x * x
    p = s * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = s * p + np.float32(-8.60467152213735e-11)
    p = s * p + np.float32(5.12229709037114e-08)
    p = s * p + np.float32(1.48572235717979e-05)
    p = s * p + np.float32(6.37261928875436e-04)
    p = s * p + np.float32(4.89352455891786e-03)
    q = s * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = s * q + np.float32(2.26843463243900e-03)
    q = s * q + np.float32(4.89352518554385e-03)
    return x * p / q


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _bias_activation(z, bias, kind):
    """z <- f(z + bias) in place; z (R, M, O), bias (R, O)."""
    runs, rows, columns = z.shape
    for run in range(runs):
        shift = bias[run]
        for row in range(rows):
            line = z[run, row]
            if kind == 0:
                for i in range(columns):
                    line[i] = tanh(line[i] + shift[i])
            elif kind == 1:
                for i in range(columns):
                    x = line[i] + shift[i]
                    line[i] = np.float32(0) if x < 0 else x  # keeps NaN
            else:
                for i in range(columns):
                    line[i] = line[i] + shift[i]


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _activation_gradient(gradient, y, out, bias_gradient, kind):
    """out <- gradient f'(z), bias_gradient (R, O) <- its sum over rows; f' from the output y."""
    runs, rows, columns = y.shape
    one = np.float32(1)
    for run in range(runs):
        total = bias_gradient[run]
        total[:] = 0
        for row in range(rows):
            g, value, line = gradient[run, row], y[run, row], out[run, row]
            if kind == 0:
                for i in range(columns):
                    line[i] = g[i] * (one - value[i] * value[i])
                    total[i] += line[i]
            elif kind == 1:
                for i in range(columns):
                    line[i] = g[i] if value[i] > 0 else np.float32(0)
                    total[i] += line[i]
            else:
                for i in range(columns):
                    line[i] = g[i]
                    total[i] += g[i]


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Batched product of (R, M, K) and (R, K, N) whose bits do not depend on R.

    MKL takes another routine where one matrix is multiplied by a single column; so that is done twice, as a batch.
    """
    if a.shape[0] == 1 and b.shape[2] == 1:
        return torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1))[:1]
    return torch.bmm(a, b)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _standardize(x, mean, scale, clip, out):
    runs, rows, columns = x.shape
    for run in range(runs):
        one_mean, one_scale = mean[run], scale[run]
        for row in range(rows):
            line, result = x[run, row], out[run, row]
            for i in range(columns):
                z = (line[i] - one_mean[i]) * one_scale[i]
                z = -clip if z < -clip else z  # keeps NaN
                result[i] = clip if z > clip else z


def _fast(x: torch.Tensor) -> bool:
    """Whether compiled loops may be used: float32 on the CPU, outside torch.func transforms."""
    level = torch._C._functorch.maybe_current_level()  # type: ignore[attr-defined]
    return x.device.type == "cpu" and x.dtype == torch.float32 and level is None


def standardize(x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, clip: float) -> torch.Tensor:
    """clip((x - mean) scale, -clip, clip): x (*rows, D), mean and scale (D,); or all with a leading R."""
    rows = x.shape
    if x.requires_grad or not _fast(x):
        if mean.dim() == 2:
            mean, scale = (tensor.view(len(tensor), *[1] * (x.dim() - 2), -1) for tensor in (mean, scale))
        return ((x - mean) * scale).clamp(-clip, clip)
    if mean.dim() == 1:
        mean, scale = mean.unsqueeze(0), scale.unsqueeze(0)
    x = x.reshape(len(mean), -1, rows[-1]).contiguous()
    out = torch.empty_like(x)
    _standardize(x.numpy(), mean.contiguous().numpy(), scale.contiguous().numpy(), np.float32(clip), out.numpy())
    return out.view(rows)


class _Chain(Function):
    """Dense layers one after another: x (R, M, I), then weight (R, O, I) and bias (R, O) of each -> (R, M, O)."""

    @staticmethod
    def forward(ctx, x, kinds, *parameters):
        outputs = [x]
        for kind, weight, bias in zip(kinds, parameters[0::2], parameters[1::2], strict=True):
            y = _product(outputs[-1], weight.transpose(1, 2))
            _bias_activation(y.numpy(), bias.detach().contiguous().numpy(), kind)
            outputs.append(y)
        ctx.kinds = kinds
        ctx.save_for_backward(*outputs[:-1], outputs[-1], *parameters[0::2])
        return outputs[-1]

    @staticmethod
    def backward(ctx, *gradients):
        if torch.is_grad_enabled():  # once_differentiable would leave the second derivative out without a word
            raise RuntimeError(
                "a float32 chain on the CPU has no second derivative by autograd (create_graph=True); take the inner "
                "one by torch.func.grad"
            )
        count = len(ctx.kinds)
        outputs, weights = ctx.saved_tensors[: count + 1], ctx.saved_tensors[count + 1 :]
        gradient = gradients[0].contiguous()
        parameter_gradients: list = [None] * (2 * count)
        for i in reversed(range(count)):
            y = outputs[i + 1]
            inner = torch.empty_like(y)
            bias_gradient = torch.empty(y.shape[0], y.shape[2])
            _activation_gradient(gradient.numpy(), y.numpy(), inner.numpy(), bias_gradient.numpy(), ctx.kinds[i])
            # the narrower side transposed: the product is six times faster for 4 inputs and 64 outputs
            if outputs[i].shape[2] < inner.shape[2]:
                parameter_gradients[2 * i] = _product(outputs[i].transpose(1, 2), inner).transpose(1, 2)
            else:
                parameter_gradients[2 * i] = _product(inner.transpose(1, 2), outputs[i])
            parameter_gradients[2 * i + 1] = bias_gradient
            if i > 0 or ctx.needs_input_grad[0]:
                gradient = _product(inner, weights[i])
        return gradient if ctx.needs_input_grad[0] else None, None, *parameter_gradients


def chain(x: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor, str]]) -> torch.Tensor:
    """Dense layers one after another, y = f(x W^T + b), for one run or for R runs at once.

    Args: x (*rows, I) and layers of (weight (O, I), bias (O,), activation); or x (R, *rows, I), weight (R, O, I), bias
    (R, O). Activations: "tanh", "relu", "linear". Returns (*rows, O) or (R, *rows, O).

    Inside `torch.func` transforms, in float64 and on other devices it is made of torch's own operations, which can be
    differentiated twice.
    """
    weight = layers[0][0]
    if weight.dtype != torch.float32 or not _fast(x):
        for weight, bias, activation in layers:
            if weight.dim() == 3:
                rows = x.shape[:-1]
                x = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, -2), weight.transpose(1, 2))
                x = x.view(*rows, x.shape[-1])
            else:
                x = torch.nn.functional.linear(x, weight, bias)
            x = torch.tanh(x) if activation == "tanh" else torch.relu(x) if activation == "relu" else x
        return x
    kinds = tuple(ACTIVATIONS[activation] for _, _, activation in layers)
    parameters = [tensor for weight, bias, _ in layers for tensor in (weight, bias)]
    rows = x.shape[:-1]
    if weight.dim() == 2:
        parameters = [tensor.unsqueeze(0) for tensor in parameters]
        x = x.reshape(1, -1, x.shape[-1])
    else:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
    return _Chain.apply(x, kinds, *parameters).view(*rows, -1)
