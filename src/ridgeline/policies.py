"""Policies: observation -> (action distribution, value).

A policy is an ordinary `nn.Module` for ONE run. `MLP` is its configuration (flags of the command line) and
`MLP.build(...)` makes the module. Any module whose forward(observation (M, *O)) gives (distribution, value (M, K))
will do; what this one does beyond that:

- it accepts stacked parameters too (every parameter with a leading R), so a population of them needs no vmap to act;
- it gives the distribution or the value alone, so that with separate trunks acting leaves the critic for later;
- it normalises observations with running statistics, which are its buffers, frozen from acting to learning;
- its value is predicted in units of the running standard deviation of the critic's targets (PopArt, van Hasselt et al.
  2016), and given in units of reward.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from ridgeline.distributions import Distribution, make_distribution, num_outputs
from ridgeline.layers import chain, standardize


class MLPPolicy(nn.Module):
    """Dense trunks, a head per distribution parameter, a value head of K outputs. Built by `MLP.build`."""

    stackable = True  # forward also takes parameters with a leading R and observations (R, *rows, *O)
    observation_mean: torch.Tensor
    observation_scale: torch.Tensor
    value_mean: torch.Tensor
    value_scale: torch.Tensor

    def __init__(self, config: "MLP", observation_space: spaces.Box, action_space: spaces.Space, num_values: int):
        super().__init__()
        self.action_space = action_space
        self.activation = config.activation
        size = int(np.prod(observation_space.shape))
        self.observation_dims = len(observation_space.shape)
        self.actor = _layers([size, *config.hidden_sizes])
        self.critic = None if config.shared_trunk else _layers([size, *config.hidden_sizes])
        width = config.hidden_sizes[-1] if config.hidden_sizes else size
        self.action_head = _linear(width, num_outputs(action_space), 0.01)
        # normalised: 0 at first, which is the same in every unit of reward
        self.value_head = _linear(width, num_values, 0.0 if config.normalize_value else 1.0)
        is_box = isinstance(action_space, spaces.Box)
        self.log_std = nn.Parameter(torch.full(action_space.shape, config.log_std)) if is_box else None
        if config.normalize_observation:
            self.register_buffer("observation_mean", torch.zeros(size))
            self.register_buffer("observation_scale", torch.ones(size))
        self.register_buffer("value_mean", torch.zeros(num_values))
        self.register_buffer("value_scale", torch.ones(num_values))
        self.observation_clip = config.observation_clip
        self.normalize_observation, self.normalize_value = config.normalize_observation, config.normalize_value

    def forward(self, observation: torch.Tensor) -> tuple[Distribution, torch.Tensor]:
        """(*rows, *O) -> distribution over (*rows), value (*rows, K) in units of reward."""
        if self.critic is not None:
            return self.distribution(observation), self.value(observation)
        # both heads in one product
        weight = torch.cat([self.action_head.weight, self.value_head.weight], -2)
        bias = torch.cat([self.action_head.bias, self.value_head.bias], -1)
        both = chain(self._input(observation), [*self._trunk(self.actor), (weight, bias, "linear")])
        output, value = both.split([self.action_head.out_features, self.value_head.out_features], -1)
        return self._distribution(output), self._value(value)

    def distribution(self, observation: torch.Tensor) -> Distribution:
        """The action distribution alone: half the work where the trunks are separate."""
        head = (self.action_head.weight, self.action_head.bias, "linear")
        return self._distribution(chain(self._input(observation), [*self._trunk(self.actor), head]))

    def last_layer(self, observation: torch.Tensor) -> tuple[torch.Tensor, Distribution]:
        """The input (*rows, F) of the layer that gives the distribution, and the distribution."""
        feature = chain(self._input(observation), self._trunk(self.actor)) if self.actor else self._input(observation)
        head = (self.action_head.weight, self.action_head.bias, "linear")
        return feature, self._distribution(chain(feature, [head]))

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """The value alone, (*rows, K)."""
        trunk = self.actor if self.critic is None else self.critic
        head = (self.value_head.weight, self.value_head.bias, "linear")
        return self._value(chain(self._input(observation), [*self._trunk(trunk), head]))

    def _input(self, observation: torch.Tensor) -> torch.Tensor:
        x = observation.flatten(-self.observation_dims) if self.observation_dims > 1 else observation
        x = x.to(self.action_head.weight.dtype)
        if not self.normalize_observation:
            return x
        return standardize(x, self.observation_mean, self.observation_scale, self.observation_clip)

    def _distribution(self, output: torch.Tensor) -> Distribution:
        log_std = None if self.log_std is None else _rows(self.log_std, output)
        return make_distribution(self.action_space, output, log_std)

    def _value(self, output: torch.Tensor) -> torch.Tensor:
        return output * _rows(self.value_scale, output) + _rows(self.value_mean, output)

    def _trunk(self, layers) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
        return [(layer.weight, layer.bias, self.activation) for layer in layers]

    @torch.no_grad()
    def act(self, observation, state=None, greedy: bool = False):
        """One action per row, without a trainer: observation (*O) or (M, *O) -> (action as NumPy, state).

        Box actions are clipped to the space. `greedy` takes the mode instead of sampling (torch's global generator).
        """
        tensor = torch.as_tensor(np.asarray(observation))
        single = tensor.dim() == self.observation_dims
        distribution = self.distribution(tensor.unsqueeze(0) if single else tensor)
        if greedy:
            action = distribution.mode()
        else:
            rows = (1 if single else len(tensor), *(self.action_space.shape or ()))
            is_box = isinstance(self.action_space, spaces.Box)
            action = distribution.sample(torch.randn(rows) if is_box else torch.rand(rows))
        action = clip_action(self.action_space, action.numpy())
        return (action[0] if single else action), state


@dataclass(frozen=True)
class MLP:
    """A multilayer perceptron, orthogonally initialised (gain sqrt 2; 0.01 for the actions; the value starts at 0)."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Width of each hidden layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Function between layers."""
    shared_trunk: bool = False
    """One trunk for actions and value, or one each."""
    normalize_observation: bool = True
    """Standardise observations with running statistics, saved inside the policy."""
    observation_clip: float = 3.0
    """Standardised observations are clipped to plus or minus this; a rare event is then no huge input."""
    normalize_value: bool = True
    """Predict values in units of the running standard deviation of their targets (PopArt)."""
    log_std: float = 0.0
    """Initial log standard deviation of continuous actions (it does not depend on the state)."""

    def __post_init__(self):
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes = {self.hidden_sizes}; every width must be at least 1")
        if self.shared_trunk and not self.hidden_sizes:
            raise ValueError("shared_trunk needs at least one hidden layer; hidden_sizes is empty")

    def build(self, observation_space: spaces.Box, action_space: spaces.Space, num_values: int = 1) -> MLPPolicy:
        """The module for one run, initialised from torch's global generator."""
        return MLPPolicy(self, observation_space, action_space, num_values)


def clip_action(space: spaces.Space, action: np.ndarray) -> np.ndarray:
    """What is sent to the environment: Box actions clipped to the bounds, others unchanged."""
    return np.clip(action, space.low, space.high) if isinstance(space, spaces.Box) else action


def _rows(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A per-run vector (R, D) shaped to broadcast over rows (R, *rows, D); (D,) broadcasts by itself."""
    if parameter.dim() == 1:
        return parameter
    return parameter.view(parameter.shape[0], *[1] * (like.dim() - 2), parameter.shape[-1])


def _layers(sizes: list[int]) -> nn.ModuleList:
    return nn.ModuleList(_linear(i, o, 2**0.5) for i, o in pairwise(sizes))


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
