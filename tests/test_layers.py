"""Chains of layers: equal to PyTorch's own operations, forward and backward, and blind to the place in a population."""

import math

import numpy as np
import pytest
import torch

from ridgeline.layers import _bias_activation, chain, standardize

OWN = {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda x: x}


def make(sizes, activations, runs=None, seed=0):
    """(weight, bias, activation) of each layer, with a leading R where runs is given."""
    generator = torch.Generator().manual_seed(seed)
    lead = () if runs is None else (runs,)
    layers = []
    for inputs, outputs, activation in zip(sizes, sizes[1:], activations, strict=False):
        weight = torch.randn(*lead, outputs, inputs, generator=generator) * (2 / inputs) ** 0.5
        bias = 0.3 * torch.randn(*lead, outputs, generator=generator)
        layers.append((weight.requires_grad_(), bias.requires_grad_(), activation))
    return layers


def reference(x, layers):
    """The composition of PyTorch's operations, for one run."""
    for weight, bias, activation in layers:
        x = OWN[activation](torch.nn.functional.linear(x, weight, bias))
    return x


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CHAINS = [
    ((4, 64, 64, 2), ("tanh", "tanh", "linear")),
    ((17, 32, 24, 6), ("relu", "relu", "linear")),
    ((3, 8, 1), ("tanh", "linear")),
    ((1, 5, 1, 3), ("relu", "tanh", "relu")),
    ((116, 128, 3), ("tanh", "linear")),
    ((6, 1), ("linear",)),
    ((17, 18, 6), ("relu", "tanh")),
    ((3, 6, 17, 2), ("tanh", "tanh", "linear")),
]


def gradients(y, x, layers):
    parameters = [tensor for weight, bias, _ in layers for tensor in (weight, bias)]
    return torch.autograd.grad((y * torch.cos(torch.arange(y.numel()).view(y.shape))).sum(), [x, *parameters])


@pytest.mark.parametrize("rows", [(), (1,), (13,), (4, 5)])
@pytest.mark.parametrize(("sizes", "activations"), CHAINS)
def test_one_run_equals_the_composition(sizes, activations, rows):
    layers, x = make(sizes, activations), normal(*rows, sizes[0]).requires_grad_()
    found, expected = chain(x, layers), reference(x, layers)
    assert found.shape == expected.shape == (*rows, sizes[-1])
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients(found, x, layers), gradients(expected, x, layers), strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5 * max(1.0, two.abs().max().item()))


@pytest.mark.parametrize("rows", [(1,), (13,), (4, 5)])
@pytest.mark.parametrize(("sizes", "activations"), CHAINS)
def test_many_runs_equal_one_after_another(sizes, activations, rows):
    layers, x = make(sizes, activations, runs=3), normal(3, *rows, sizes[0]).requires_grad_()
    found = chain(x, layers)
    expected = torch.stack([reference(x[r], [(w[r], b[r], a) for w, b, a in layers]) for r in range(3)])
    assert found.shape == expected.shape == (3, *rows, sizes[-1])
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients(found, x, layers), gradients(expected, x, layers), strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-5 * max(1.0, two.abs().max().item()))


@pytest.mark.parametrize("rows", [8, 13, 64])
@pytest.mark.parametrize(("sizes", "activations"), CHAINS)
def test_a_run_does_not_notice_the_others(sizes, activations, rows):
    """Alone or in any place of a population of 8, forward and backward: the same bits.

    As in a population, all parameters lie in one tensor, so that a run's begin at any address.
    """
    layers = make(sizes, activations, runs=8)
    flat = torch.cat([tensor.flatten(1) for weight, bias, _ in layers for tensor in (weight, bias)], 1).detach()
    x = normal(8, rows, sizes[0])

    def run_all(flat, x):
        flat, x = flat.clone().requires_grad_(), x.clone().requires_grad_()
        views, start = [], 0
        for weight, bias, activation in layers:
            parts = []
            for tensor in (weight, bias):
                count = tensor[0].numel()
                parts.append(flat[:, start : start + count].view(-1, *tensor.shape[1:]))
                start += count
            views.append((*parts, activation))
        y = chain(x, views)
        weight = torch.cos(torch.arange(y[0].numel())).view(y.shape[1:])
        return y.detach(), *torch.autograd.grad((y * weight).sum(), (flat, x))

    together = run_all(flat, x)
    for runs in (slice(0, 1), slice(3, 4), slice(7, 8), slice(2, 5)):
        for one, two in zip(run_all(flat[runs], x[runs]), together, strict=True):
            assert torch.equal(one, two[runs])


def test_tanh_is_accurate():
    """Within 3e-7 of the float64 one everywhere; odd; exactly 0 at 0; 1 far out; NaN stays NaN."""
    x = torch.cat([torch.linspace(-12, 12, 1_000_003), torch.tensor([0.0, 1e-30, 1e30, -1e30, math.inf, -math.inf])])
    y = x.clone().view(1, 1, -1)
    _bias_activation(y.numpy(), np.zeros((1, x.numel()), np.float32), 0)
    y = y.view(-1)
    assert (y.double() - x.double().tanh()).abs().max() < 3e-7
    assert y[-6] == 0 and y[-5] == pytest.approx(1e-30)
    assert torch.equal(y[:500_000], -y[:-6].flip(0)[:500_000])
    for kind in range(3):
        row = torch.full((1, 1, 19), math.nan)
        _bias_activation(row.numpy(), np.zeros((1, 19), np.float32), kind)
        assert row.isnan().all()


def test_relu_gradient_at_zero_and_below():
    x = torch.tensor([[-1.0, 0.0, 2.0]], requires_grad=True)
    y = chain(x, [(torch.eye(3), torch.zeros(3), "relu")])
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("rows", [(), (7,), (4, 5)])
@pytest.mark.parametrize("runs", [None, 3])
def test_standardize(rows, runs):
    """clip((x - mean) scale): in float32, in float64, under vmap, with a gradient; NaN stays NaN."""
    lead = () if runs is None else (runs,)
    x, mean, scale = normal(*lead, *rows, 6), normal(*lead, 6, seed=2), normal(*lead, 6, seed=3).exp()
    if runs is not None and not rows:
        x = x.unsqueeze(1)
    x.view(-1)[1] = math.nan
    shape = (*lead, *[1] * (x.dim() - len(lead) - 1), 6)
    expected = ((x - mean.view(shape)) * scale.view(shape)).clamp(-1.5, 1.5)
    for kind in (torch.float32, torch.float64):
        found = standardize(x.to(kind), mean.to(kind), scale.to(kind), 1.5)
        assert found.dtype == kind
        assert torch.allclose(found.float(), expected, atol=1e-6, equal_nan=True)
    if runs is not None:
        mapped = torch.vmap(lambda *each: standardize(*each, 1.5))(x, mean, scale)
        assert torch.allclose(mapped, expected, atol=1e-6, equal_nan=True)
    x = x.nan_to_num().requires_grad_()
    (gradient,) = torch.autograd.grad(standardize(x, mean, scale, 1.5).sum(), x)
    inside = ((x - mean.view(shape)) * scale.view(shape)).abs() < 1.5
    assert torch.allclose(gradient, inside * scale.view(shape)) and not inside.all()


def test_float64_is_differentiable_twice():
    layers = [(w.detach().double(), b.detach().double(), a) for w, b, a in make((3, 5, 2), ("tanh", "linear"))]
    x = normal(4, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: chain(x, layers), x)
    assert torch.autograd.gradgradcheck(lambda x: chain(x, layers), x)


def hessian(function):
    """By two reverse passes: PyTorch's own takes a forward one, and warns."""
    return torch.func.jacrev(torch.func.jacrev(function))


def test_torch_func_falls_back_and_differentiates_twice():
    """Hessians and per-row gradients by torch.func, in float32, equal those of the composition."""
    layers, x = make((3, 8, 1), ("tanh", "linear")), normal(3)
    layers = [(weight.detach(), bias.detach(), activation) for weight, bias, activation in layers]
    hessians = [hessian(lambda x, f=f: f(x, layers).sum())(x) for f in (chain, reference)]
    assert hessians[0].abs().max() > 0.01
    assert torch.allclose(*hessians, atol=1e-6)

    def gradient(function, weight, x):
        return torch.func.grad(lambda w: function(x, [(w, *layers[0][1:]), layers[1]]).sum())(weight)

    weight, rows = layers[0][0], normal(6, 3)
    per_row = [torch.func.vmap(gradient, (None, None, 0))(f, weight, rows) for f in (chain, reference)]
    assert torch.allclose(*per_row, atol=1e-6)
    stacked = make((3, 8, 1), ("tanh", "linear"), runs=2)
    assert hessian(lambda x: chain(x, stacked).sum())(normal(2, 4, 3)).abs().max() > 0.01


def test_a_second_derivative_of_the_fast_path_is_refused():
    """By autograd it would silently be left out of a loss; by torch.func it is right."""
    layers, x = make((3, 8, 1), ("tanh", "linear")), normal(2, 3).requires_grad_()
    with pytest.raises(RuntimeError, match="no second derivative by autograd"):
        torch.autograd.grad(chain(x, layers).sum(), x, create_graph=True)
    (inner,) = torch.autograd.grad(torch.func.grad(lambda x: chain(x, layers).sum())(x).square().sum(), x)
    (expected,) = torch.autograd.grad(torch.func.grad(lambda x: reference(x, layers).sum())(x).square().sum(), x)
    assert torch.allclose(inner, expected, atol=1e-6) and inner.abs().max() > 0.01
