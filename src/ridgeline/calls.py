"""How a policy is called: for one run directly, for many with stacked parameters where it knows them, else mapped.

A recurrent policy is called on one step, as a pair (observation, state), or on a `Sequence`; one that knows single
steps only is unrolled here.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from ridgeline.recurrent import Sequence, unroll

Tensors = dict[str, torch.Tensor]


class Calls:
    """One module, called for all runs at once.

    Args: parameters and buffers: name -> (R, *shape); of the module itself where there is one run that is not `mapped`.
    """

    def __init__(self, module: nn.Module, parameters: Tensors, buffers: Tensors, mapped: bool):
        self.module, self.parameters, self.buffers, self.mapped = module, parameters, buffers, mapped
        stackable = getattr(module, "stackable", False)
        self.stacked = self._stacked_module() if mapped and stackable else None
        self.separate = stackable and getattr(module, "critic", None) is not None

    def _stacked_module(self) -> nn.Module:
        """A copy of the module whose parameters and buffers are those of all runs: one call, no vmap, no swapping."""
        stacked = copy.deepcopy(self.module)
        for name, tensor in {**self.parameters, **self.buffers}.items():
            path, _, leaf = name.rpartition(".")
            owner = stacked.get_submodule(path)
            owner._parameters.pop(leaf, None)
            owner._buffers.pop(leaf, None)
            owner.__dict__[leaf] = tensor
        return stacked

    def __call__(self, call: Callable, then: Callable, observation: Any, *extra: torch.Tensor) -> Any:
        """then(*call(policy, observation), *extra) of all runs: observation (R, M, *O), extra (R, M, ...)."""
        if not self.mapped:
            results = then(*call(self.module, first(observation)), *(tensor[0] for tensor in extra))
            return tree_map(lambda tensor: tensor.unsqueeze(0), results)
        if self.stacked is not None:
            return then(*call(self.stacked, observation), *extra)

        def one(parameters, buffers, observation, *extra):
            return then(*call(_Bound(self.module, parameters, buffers), observation), *extra)

        return vmap(one)(self.parameters, self.buffers, observation, *extra)

    def losses(self, loss: Callable, minibatch: dict[str, Any], coefficients: Tensors) -> tuple[torch.Tensor, Tensors]:
        """The losses (R,) and the metrics, (R,) each, of all runs.

        A stackable policy is evaluated on the minibatch's observations for all runs at once, outside vmap (five times
        less overhead); inside, calling the policy on exactly these observations gives what was computed.
        """
        if not self.mapped:
            policy = _Unrolled(self.module) if _by_steps(self.module) else self.module
            value, metrics = loss(policy, first(minibatch), {k: v[0] for k, v in coefficients.items()})
            return value.unsqueeze(0), {k: v.detach().unsqueeze(0) for k, v in metrics.items()}
        prepared = () if self.stacked is None else self.stacked(minibatch["observation"])

        def one(parameters, buffers, minibatch, coefficients, prepared):
            def policy(observation):
                if prepared and observation is minibatch["observation"]:
                    return prepared
                return both(_Bound(self.module, parameters, buffers), observation)

            return loss(policy, minibatch, coefficients)

        values, metrics = vmap(one)(self.parameters, self.buffers, minibatch, coefficients, prepared)
        return values, {name: tensor.detach() for name, tensor in metrics.items()}


class _Bound:
    """A module with other parameters and buffers than its own."""

    def __init__(self, module: nn.Module, parameters: Tensors, buffers: Tensors):
        self.module, self.tensors = module, (parameters, buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, *observation):
        return functional_call(self.module, self.tensors, observation)


class _Unrolled:
    """A recurrent policy of single steps, called on sequences."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, observation):
        return both(self.module, observation)


def _by_steps(policy) -> bool:
    return getattr(policy, "recurrent", False) and not getattr(policy, "stackable", False)


def first(tensors: Any) -> Any:
    """The first run's part of a tensor (R, ...) or of several."""
    if isinstance(tensors, torch.Tensor):  # every act and update asks; walking a tree costs five times as much
        return tensors[0]
    if type(tensors) is dict:
        return {name: first(tensor) for name, tensor in tensors.items()}
    return tree_map(lambda tensor: tensor[0], tensors)


def both(policy, observation):
    """(distribution, value) of rows or of a Sequence; (distribution, value, state) of a pair (observation, state)."""
    if isinstance(observation, Sequence) and _by_steps(policy):
        return unroll(policy, observation, policy.initial_state(len(observation.state)))[:2]
    return policy(*observation) if type(observation) is tuple else policy(observation)


def states(policy, sequence: Sequence):
    """The states after each step of a Sequence, (L * M, S)."""
    if _by_steps(policy):
        return unroll(policy, sequence, policy.initial_state(len(sequence.state)))[2:]
    return (policy.states(sequence),)


def distribution(policy, observation):
    return (policy.distribution(observation),)


def value(policy, observation):
    return (policy.value(observation),)
