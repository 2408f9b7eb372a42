"""Policies: observation -> (action distribution, value).

A policy is an ordinary `nn.Module` for ONE run. `MLP` is its configuration (flags of the command line) and
`MLP.build(...)` makes the module. Any module whose forward(observation (M, *O)) gives (distribution, value (M, K))
will do; what this one does beyond that:

- it accepts stacked parameters too (every parameter with a leading R), so a population of them needs no vmap to act;
- it gives the distribution or the value alone, so that with separate trunks acting leaves the critic for later;
- it normalises observations with running statistics, which are its buffers, frozen from acting to learning;
- its value is predicted in units of the running standard deviation of the critic's targets (PopArt, van Hasselt et al.
  2016), and given in units of reward;
- its exploration may depend on the state (gSDE, distributions.py).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from ridgeline.distributions import Distribution, StateDependentGaussian, make_distribution, num_outputs
from ridgeline.encoders import CHANNELS, Convolutions, flat, is_image, parts, size_of
from ridgeline.layers import chain, standardize
from ridgeline.observations import ACTION_MASK, as_dict, check_action_mask, storage_shape_dtype, unpack


class Policy(nn.Module):
    """Dense trunks, a head per distribution parameter, a value head of K outputs.

    `config` has the fields of `MLP`. What the trunks read is `input_of(observation)`, (*rows, inputs): the numbers of
    the observation, standardised, and of a subclass what it makes of images or of the past.
    """

    stackable = True  # forward also takes parameters with a leading R and observations (R, *rows, *O)
    recurrent = False
    observation_mean: torch.Tensor
    observation_scale: torch.Tensor
    value_mean: torch.Tensor
    value_scale: torch.Tensor

    def __init__(self, config, observation_space: spaces.Space, action_space: spaces.Space, num_values: int):
        super().__init__()
        self.observation_space, self.action_space = observation_space, action_space
        self.activation = config.activation
        self.masked = check_action_mask(observation_space, action_space)
        self.dense = self.dense_parts()
        inputs = self.make_encoder(config, sum(size_of(part) for part in self.dense.values()))
        widths = [inputs, *(() if self.recurrent else config.hidden_sizes)]  # of a cell the heads read the output
        self.actor = layers(widths)
        self.critic = None if config.shared_trunk else layers(widths)
        width = widths[-1]
        self.action_head = linear(width, num_outputs(action_space), 0.01)
        # normalised: 0 at first, which is the same in every unit of reward
        self.value_head = linear(width, num_values, 0.0 if config.normalize_value else 1.0)
        self.noise_steps, is_box = config.noise_steps, isinstance(action_space, spaces.Box)
        if self.noise_steps and not is_box:
            raise ValueError(
                f"noise_steps = {self.noise_steps} is for actions of a Box; of {action_space} leave it at 0"
            )
        shape = (*([width] if self.noise_steps else []), *(action_space.shape or ()))
        self.log_std = nn.Parameter(torch.full(shape, config.log_std)) if is_box else None
        size = sum(size_of(part) for part in self.dense.values())
        self.normalize_observation = config.normalize_observation and size > 0
        if self.normalize_observation:
            self.register_buffer("observation_mean", torch.zeros(size))
            self.register_buffer("observation_scale", torch.ones(size))
        self.register_buffer("value_mean", torch.zeros(num_values))
        self.register_buffer("value_scale", torch.ones(num_values))
        self.observation_clip, self.normalize_value = config.observation_clip, config.normalize_value

    def dense_parts(self) -> dict[str, Any]:
        """The parts of the observation that are read as plain numbers."""
        return parts(self.observation_space)

    def make_encoder(self, config, num_dense: int) -> int:
        """Make what `input_of` needs beside the dense parts, which have `num_dense` numbers; how many it gives."""
        return num_dense

    def forward(self, observation) -> tuple[Distribution, torch.Tensor]:
        """(*rows, *O) -> distribution over (*rows), value (*rows, K) in units of reward."""
        if self.critic is not None or self.noise_steps:  # a shared trunk twice, then: the noise needs its output
            return self.distribution(observation), self.value(observation)
        # both heads in one product
        weight = torch.cat([self.action_head.weight, self.value_head.weight], -2)
        bias = torch.cat([self.action_head.bias, self.value_head.bias], -1)
        both = chain(self.input_of(observation), [*self._trunk(self.actor), (weight, bias, "linear")])
        output, value = both.split([self.action_head.out_features, self.value_head.out_features], -1)
        return self._distribution(output, observation), self._value(value)

    def distribution(self, observation) -> Distribution:
        """The action distribution alone: half the work where the trunks are separate."""
        if self.noise_steps:
            return self.last_layer(observation)[1]
        head = (self.action_head.weight, self.action_head.bias, "linear")
        output = chain(self.input_of(observation), [*self._trunk(self.actor), head])
        return self._distribution(output, observation)

    def last_layer(self, observation) -> tuple[torch.Tensor, Distribution]:
        """The input (*rows, F) of the layer that gives the distribution, and the distribution."""
        x = self.input_of(observation)
        feature = chain(x, self._trunk(self.actor)) if self.actor else x
        head = (self.action_head.weight, self.action_head.bias, "linear")
        output = chain(feature, [head])
        if self.noise_steps:
            return feature, self._state_dependent(output, feature.detach())
        return feature, self._distribution(output, observation)

    def value(self, observation) -> torch.Tensor:
        """The value alone, (*rows, K)."""
        trunk = self.actor if self.critic is None else self.critic
        head = (self.value_head.weight, self.value_head.bias, "linear")
        return self._value(chain(self.input_of(observation), [*self._trunk(trunk), head]))

    def input_of(self, observation) -> torch.Tensor:
        """What the trunks read, (*rows, inputs)."""
        return self._standardized(observation)

    def dense_input(self, observation) -> torch.Tensor:
        """The dense parts side by side, (*rows, D): what is standardised. `observation` is a tensor or a flat dict."""
        if isinstance(observation, torch.Tensor):
            observation = {"": observation}
        found = [flat(part, observation[key]) for key, part in self.dense.items()]
        return found[0] if len(found) == 1 else torch.cat(found, -1)

    def _standardized(self, observation) -> torch.Tensor:
        x = self.dense_input(observation).to(self.action_head.weight.dtype)
        if not self.normalize_observation:
            return x
        return standardize(x, self.observation_mean, self.observation_scale, self.observation_clip)

    def _distribution(self, output: torch.Tensor, observation) -> Distribution:
        log_std = None if self.log_std is None else _rows(self.log_std, output)
        mask = observation[ACTION_MASK] if self.masked else None
        return make_distribution(self.action_space, output, log_std, mask)

    def _state_dependent(self, mean: torch.Tensor, feature: torch.Tensor) -> Distribution:
        """sigma_i(s)^2 = sum_f phi_f(s)^2 sigma_fi^2 + 1e-6; no gradient reaches the features through it."""
        assert self.log_std is not None
        std = self.log_std.exp()
        tiny = torch.full_like(std[..., 0, :], 1e-6)  # as in Stable-Baselines3
        variance = chain(feature.square(), [(std.square().transpose(-1, -2), tiny, "linear")])
        return StateDependentGaussian(mean, 0.5 * variance.log(), feature, std)

    def _value(self, output: torch.Tensor) -> torch.Tensor:
        return output * _rows(self.value_scale, output) + _rows(self.value_mean, output)

    def _trunk(self, layers) -> list[tuple[torch.Tensor, torch.Tensor, str]]:
        return [(layer.weight, layer.bias, self.activation) for layer in layers]

    @torch.no_grad()
    def act(self, observation, state=None, greedy: bool = False):
        """One action per row, without a trainer: observation (*O) or (M, *O) -> (action as NumPy, state).

        An observation of several parts is a dict, or packed bytes as a VectorEnv gives them. Box actions are clipped to
        the space. `greedy` takes the mode instead of sampling (torch's global generator). The `state` of a recurrent
        policy, or the noise that is kept for `noise_steps`, goes into the next call; begin each episode with None.
        """
        rows, single = as_rows(self.observation_space, observation)
        count = len(next(iter(rows.values()))) if isinstance(rows, dict) else len(rows)
        distribution, state = self._act(rows, count, state)
        if greedy:
            action = distribution.mode()
        else:
            noise, state = self._noise(count, state)
            action = distribution.sample(noise)
        action = clip_action(self.action_space, action.numpy())
        return (action[0] if single else action), state

    def _act(self, rows, count: int, state) -> tuple[Distribution, Any]:
        """The distributions over `count` rows, and the state after them."""
        return self.distribution(rows), state

    def _noise(self, count: int, state) -> tuple[torch.Tensor, Any]:
        """What `count` samples need, and the state after them: with `noise_steps`, noise and the steps left to it."""
        shape = (count, *(self.action_space.shape or ()))
        if self.noise_steps:
            noise, left = state or (torch.randn(count, self.action_head.in_features, *shape[1:]), self.noise_steps)
            return noise, (noise, left - 1) if left > 1 else None
        return (torch.randn(shape) if isinstance(self.action_space, spaces.Box) else torch.rand(shape)), state


class MLPPolicy(Policy):
    """All that is observed as plain numbers. Built by `MLP.build`."""


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
    """Initial log standard deviation of continuous actions, whatever the state; with noise_steps, of the matrix."""
    noise_steps: int = 0
    """Steps for which a noise matrix of state-dependent exploration (gSDE) is kept; 0: independent noise instead."""

    def __post_init__(self):
        if self.noise_steps < 0:
            raise ValueError(f"noise_steps = {self.noise_steps}; use 0 or the steps that a noise matrix is kept")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes = {self.hidden_sizes}; every width must be at least 1")
        if self.shared_trunk and not self.hidden_sizes:
            raise ValueError("shared_trunk needs at least one hidden layer; hidden_sizes is empty")

    def build(self, observation_space: spaces.Space, action_space: spaces.Space, num_values: int = 1) -> MLPPolicy:
        """The module for one run, initialised from torch's global generator."""
        return MLPPolicy(self, observation_space, action_space, num_values)


class CNNPolicy(Policy):
    """Images through convolutions, other parts beside them as plain numbers; one trunk. Built by `CNN.build`."""

    def dense_parts(self) -> dict[str, Any]:
        own = parts(self.observation_space)
        self.images = {key: part for key, part in own.items() if is_image(part)}
        return {key: part for key, part in own.items() if key not in self.images}

    def make_encoder(self, config, num_dense: int) -> int:
        if not self.images:
            raise ValueError(
                f"{self.observation_space} has no image, of shape (H, W, C) or (C, H, W); use --policy mlp"
            )
        made = [Convolutions(space, config.encoder, config.channels) for space in self.images.values()]
        self.convolutions = nn.ModuleList(made)
        return sum(one.num_features for one in made) + num_dense

    def input_of(self, observation) -> torch.Tensor:
        images = {"": observation} if isinstance(observation, torch.Tensor) else observation
        found = [encode(images[key]) for key, encode in zip(self.images, self.convolutions, strict=True)]
        if self.dense:
            found.append(self._standardized(observation))
        return found[0] if len(found) == 1 else torch.cat(found, -1)


@dataclass(frozen=True)
class CNN:
    """Convolutions for images, one trunk for actions and value. Other parts of the observation join behind them."""

    encoder: Literal["auto", "nature", "impala", "minatar"] = "auto"
    """nature: three layers, images from 36x36; impala: residual, slower, stronger; minatar: one layer, for small
    boards; auto: nature where the image is large enough, else minatar."""
    channels: tuple[int, ...] = ()
    """Channels of each layer or stage; by default 32 64 64 for nature, 16 32 32 for impala, 16 for minatar."""
    hidden_sizes: tuple[int, ...] = (256,)
    """Width of each dense layer behind the convolutions."""
    activation: Literal["tanh", "relu"] = "relu"
    """Function between dense layers."""
    normalize_observation: bool = True
    """Standardise what is no image with running statistics."""
    observation_clip: float = 3.0
    """Standardised numbers are clipped to plus or minus this."""
    normalize_value: bool = True
    """Predict values in units of the running standard deviation of their targets (PopArt)."""
    log_std: float = 0.0
    """Initial log standard deviation of continuous actions (it does not depend on the state)."""

    shared_trunk = True
    noise_steps = 0

    def __post_init__(self):
        if self.encoder not in ("auto", *CHANNELS):
            raise ValueError(f"encoder = {self.encoder!r}; use auto, {', '.join(CHANNELS)}")
        if any(size < 1 for size in (*self.hidden_sizes, *self.channels)):
            raise ValueError(
                f"hidden_sizes = {self.hidden_sizes}, channels = {self.channels}; every width must be at least 1"
            )

    def build(self, observation_space: spaces.Space, action_space: spaces.Space, num_values: int = 1) -> CNNPolicy:
        """The module for one run, initialised from torch's global generator. Raises ValueError without an image."""
        return CNNPolicy(self, observation_space, action_space, num_values)


def as_rows(space: spaces.Space, observation) -> tuple[Any, bool]:
    """One observation or many, packed or in parts, as rows of tensors; and whether it was one."""
    if isinstance(observation, tuple):
        observation = {str(index): part for index, part in enumerate(observation)}
    if not isinstance(observation, dict):
        tensor = torch.as_tensor(np.asarray(observation))
        single = tensor.dim() == len(storage_shape_dtype(space)[0])
        return unpack(space, tensor.unsqueeze(0) if single else tensor), single
    tensors = {key: torch.as_tensor(np.asarray(part)) for key, part in observation.items()}
    key, part = next(iter(as_dict(space).items()))
    single = tensors[key].dim() == len(part.shape or ())
    return {key: tensor.unsqueeze(0) if single else tensor for key, tensor in tensors.items()}, single


def clip_action(space: spaces.Space, action: np.ndarray) -> np.ndarray:
    """What is sent to the environment: Box actions clipped to the bounds, others unchanged."""
    return np.clip(action, space.low, space.high) if isinstance(space, spaces.Box) else action


def _rows(parameter: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A per-run vector (R, D) shaped to broadcast over rows (R, *rows, D); (D,) broadcasts by itself."""
    if parameter.dim() == 1:
        return parameter
    return parameter.view(parameter.shape[0], *[1] * (like.dim() - 2), parameter.shape[-1])


def layers(sizes: list[int]) -> nn.ModuleList:
    """Dense layers of these widths, the first one the input's."""
    return nn.ModuleList(linear(i, o, 2**0.5) for i, o in pairwise(sizes))


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A dense layer of orthogonal weights, without bias at first."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
