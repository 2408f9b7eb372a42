"""Policies that remember: an encoder, a recurrent cell, heads; trained through time from stored states."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from gymnasium import spaces
from torch import nn

from ridgeline.distributions import Distribution
from ridgeline.encoders import CHANNELS, Convolutions, is_picture, parts
from ridgeline.layers import chain
from ridgeline.observations import ACTION_MASK
from ridgeline.policies import Policy, layers, linear
from ridgeline.recurrent import GATES, STATES, Sequence, states_of


class RecurrentPolicy(Policy):
    """Encoder, dense layers, a cell, heads on its output. Built by `GRU.build` and `LSTM.build`.

    It is called on a `Sequence`, with results flattened step by step, or on one step: forward(observation, state) gives
    (distribution, value, state).
    """

    recurrent = True

    def dense_parts(self) -> dict[str, Any]:
        own = parts(self.observation_space)
        self.pictures = {key: part for key, part in own.items() if is_picture(part)}
        return {key: part for key, part in own.items() if key not in self.pictures}

    def make_encoder(self, config, num_dense: int) -> int:
        self.kind, size = config.cell, config.state_size
        made = [Convolutions(space, config.encoder, config.channels) for space in self.pictures.values()]
        self.convolutions = nn.ModuleList(made)
        widths = [sum(one.num_features for one in made) + num_dense, *config.hidden_sizes]
        self.encoder = layers(widths)
        gates = GATES[self.kind]
        self.input_gates, self.state_gates = linear(widths[-1], gates * size, 1.0), linear(size, gates * size, 1.0)
        assert self.state_gates.bias is not None
        with torch.no_grad():
            # each unit forgets at a pace of its own (Tallec & Ollivier 2018, "Can recurrent networks warp time?")
            self.state_gates.weight.copy_(torch.cat([linear(size, size, 1.0).weight for _ in range(gates)]))
            pace = torch.empty(size).uniform_(1, max(config.memory_steps - 1, 1.001)).log()
            self.state_gates.bias[size : 2 * size] = pace
            if self.kind == "lstm":
                self.state_gates.bias[:size] = -pace
        return size

    def initial_state(self, rows: int) -> torch.Tensor:
        """The state at the beginning of an episode, (rows, S)."""
        return torch.zeros(rows, STATES[self.kind] * self.action_head.in_features)

    def forward(self, observation, state: torch.Tensor | None = None):
        """Of a Sequence: distribution over (L * M), value (L * M, K). Of one step of rows (M, *O) with their state
        (M, S): distribution, value and the state after it. All with a leading R where parameters have one."""
        if state is None:
            return super().forward(observation)
        start = torch.zeros(*state.shape[:-2], 1, state.shape[-2], dtype=torch.bool)
        lead = state.dim() - 2
        one = observation.unsqueeze(lead) if isinstance(observation, torch.Tensor) else {
            key: part.unsqueeze(lead) for key, part in observation.items()
        }  # fmt: skip
        sequence = Sequence(one, state, start)
        after = self.states(sequence)
        output = after[..., : self.action_head.in_features]
        distribution = self._distribution(self._head(self.action_head, output), sequence)
        return distribution, self._value(self._head(self.value_head, output)), after

    def _head(self, head: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return chain(x, [(head.weight, head.bias, "linear")])

    def states(self, sequence: Sequence) -> torch.Tensor:
        """The states after each step, (L * M, S)."""
        observation = sequence.observation
        images = {"": observation} if isinstance(observation, torch.Tensor) else observation
        found = [encode(images[key]) for key, encode in zip(self.pictures, self.convolutions, strict=True)]
        if self.dense:
            found.append(self._standardized(observation))
        x = found[0] if len(found) == 1 else torch.cat(found, -1)
        gates = (self.input_gates.weight, self.input_gates.bias, "linear")
        x = chain(x, [*self._trunk(self.encoder), gates])
        weight, bias = self.state_gates.weight, self.state_gates.bias
        return states_of(self.kind, x, sequence.state, sequence.start, weight, bias).flatten(-3, -2)

    def input_of(self, observation: Sequence) -> torch.Tensor:
        return self.states(observation)[..., : self.action_head.in_features]

    def _distribution(self, output: torch.Tensor, observation: Sequence) -> Distribution:
        if not self.masked:
            return super()._distribution(output, {})
        mask = observation.observation[ACTION_MASK]
        return super()._distribution(output, {ACTION_MASK: mask.flatten(-3, -2)})

    def _act(self, rows, count: int, state) -> tuple[Distribution, Any]:
        distribution, _, state = self(rows, self.initial_state(count) if state is None else state)
        return distribution, state


@dataclass(frozen=True)
class _Recurrent:
    hidden_sizes: tuple[int, ...] = (64,)
    """Width of each dense layer before the cell."""
    state_size: int = 64
    """Units of the cell."""
    memory_steps: int = 128
    """Steps over which the slowest units remember at first; the others' paces lie between one step and this."""
    encoder: Literal["auto", "nature", "impala", "minatar"] = "auto"
    """Convolutions for pictures in the observation, as of the policy cnn."""
    channels: tuple[int, ...] = ()
    """Their channels; by default those of the policy cnn."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Function between dense layers."""
    normalize_observation: bool = True
    """Standardise what is no picture with running statistics."""
    observation_clip: float = 3.0
    """Standardised numbers are clipped to plus or minus this."""
    normalize_value: bool = True
    """Predict values in units of the running standard deviation of their targets (PopArt)."""
    log_std: float = 0.0
    """Initial log standard deviation of continuous actions (it does not depend on the state)."""

    shared_trunk: ClassVar[bool] = True
    noise_steps: ClassVar[int] = 0
    cell: ClassVar[str]

    def __post_init__(self):
        if self.encoder not in ("auto", *CHANNELS):
            raise ValueError(f"encoder = {self.encoder!r}; use auto, {', '.join(CHANNELS)}")
        if any(size < 1 for size in (*self.hidden_sizes, *self.channels, self.state_size, self.memory_steps)):
            raise ValueError("hidden_sizes, channels, state_size and memory_steps must be at least 1")

    def build(
        self, observation_space: spaces.Space, action_space: spaces.Space, num_values: int = 1
    ) -> RecurrentPolicy:
        """The module for one run, initialised from torch's global generator."""
        return RecurrentPolicy(self, observation_space, action_space, num_values)


@dataclass(frozen=True)
class GRU(_Recurrent):
    """A gated recurrent unit: remembers within an episode. Minibatches are whole instances, through time."""

    cell: ClassVar[str] = "gru"


@dataclass(frozen=True)
class LSTM(_Recurrent):
    """A long short-term memory: as gru, with a cell beside its output; a third more arithmetic."""

    cell: ClassVar[str] = "lstm"
