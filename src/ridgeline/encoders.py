"""How an observation becomes a vector: its parts flattened side by side, and its images through convolutions.

Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning" (nature); Espeholt et al. 2018,
"IMPALA", figure 3 right (impala); Young & Tian 2019, "MinAtar" (minatar).
Differs: biases start at 0 and weights are orthogonal, as everywhere here; the dense layer behind the convolutions is
the policy's first hidden layer.

The runs of a population go through the convolutions one after another. Measured on one core with batches of 64 images
of 84x84, forward and backward, 8 runs in a loop take half as long as one grouped convolution and a fifth of unfolding
with batched products; and the bits of a run are those that it has alone, wherever its tensors lie in memory.
"""

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional

from ridgeline.observations import ACTION_MASK, as_dict, is_packed

KERNELS = {"nature": ((8, 4), (4, 2), (3, 1)), "minatar": ((3, 1),)}  # side and stride of each layer
CHANNELS = {"nature": (32, 64, 64), "impala": (16, 32, 32), "minatar": (16,)}
SMALLEST_NATURE = 36  # pixels of a side: below, nothing is left of the image behind three layers


def parts(space: spaces.Space) -> dict[str, Any]:
    """What a network reads: the parts of a Dict or Tuple but for the action mask; a Box is the one part ""."""
    if not is_packed(space):
        return {"": space}
    return {key: part for key, part in as_dict(space).items() if key != ACTION_MASK}


def is_image(space: spaces.Space) -> bool:
    """Whether convolutions can read a part: a Box (H, W, C) or (C, H, W)."""
    return isinstance(space, spaces.Box) and len(space.shape) == 3


def is_picture(space: spaces.Space) -> bool:
    """Whether a part is an image of uint8 up to 255, and no board of flags: what a CNN is chosen for unasked."""
    return is_image(space) and space.dtype == "uint8" and space.high.max() > 1  # type: ignore[attr-defined]


def image_layout(space: spaces.Box) -> tuple[bool, int, tuple[int, int]]:
    """Whether the channels come first (where the first axis is shorter than the last), their number, the sides."""
    first, middle, last = space.shape
    return (True, first, (middle, last)) if first < last else (False, last, (first, middle))


def size_of(space: spaces.Space) -> int:
    """How many numbers `flat` makes of one observation part."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return math.prod(space.shape or ())


def flat(space: spaces.Space, x: torch.Tensor) -> torch.Tensor:
    """(*rows, *shape) of one part -> (*rows, D): numbers as they are, a choice of n as n zeros and ones."""
    if isinstance(space, spaces.Discrete):
        return x.unsqueeze(-1) - int(space.start) == torch.arange(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        x = (x - torch.as_tensor(space.start)).flatten(-len(space.shape))
        counts = space.nvec.ravel().tolist()
        return torch.cat([x[..., i : i + 1] == torch.arange(count) for i, count in enumerate(counts)], -1)
    dims = len(space.shape or ())
    return x.flatten(-dims) if dims > 1 else x if dims else x.unsqueeze(-1)


class Convolutions(nn.Module):
    """An image (*rows, H, W, C) or (*rows, C, H, W) -> features (*rows, F). With stacked parameters, all with a
    leading R. Each layer: convolution, then ReLU; impala: stages of a convolution, a maximum over 3x3 with stride 2,
    and two residual blocks of two convolutions."""

    def __init__(self, space: spaces.Box, architecture: str, channels: tuple[int, ...]):
        """`architecture` is auto, nature, impala or minatar. Raises ValueError where it does not suit the image."""
        super().__init__()
        self.channels_first, depth, sides = image_layout(space)
        if architecture == "auto":
            architecture = "nature" if min(sides) >= SMALLEST_NATURE else "minatar"
        self.architecture = architecture
        self.scale = 1 / float(space.high.max()) if space.dtype == "uint8" else 1.0
        if architecture == "nature" and min(sides) < SMALLEST_NATURE:
            raise ValueError(
                f"the nature encoder needs images of {SMALLEST_NATURE}x{SMALLEST_NATURE} or more, and these are "
                f"{sides[0]}x{sides[1]}; use --encoder impala or minatar"
            )
        if architecture == "minatar" and min(sides) < 3:
            raise ValueError(f"the minatar encoder needs images of 3x3 or more, and these are {sides[0]}x{sides[1]}")
        channels = channels or CHANNELS[architecture]
        if architecture in KERNELS and len(channels) != len(KERNELS[architecture]):
            raise ValueError(
                f"channels = {channels}; the {architecture} encoder has {len(KERNELS[architecture])} layers: give as "
                "many numbers"
            )
        self.layers = nn.ModuleList()
        for i, width in enumerate(channels):
            if architecture == "impala":
                self.layers.append(_convolution(depth, width, 3))
                self.layers.extend(_convolution(width, width, 3) for _ in range(4))
            else:
                self.layers.append(_convolution(depth, width, KERNELS[architecture][i][0]))
            depth = width
        with torch.no_grad():
            self.num_features = self(torch.zeros(1, *space.shape)).shape[-1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        weights: list[Any] = [(layer.weight, layer.bias) for layer in self.layers]
        encode = self._impala if self.architecture == "impala" else self._plain
        if weights[0][0].dim() == 5:
            runs = zip(image.unbind(0), *(zip(w.unbind(0), b.unbind(0), strict=True) for w, b in weights), strict=True)
            return torch.stack([self._rows(encode, x, own) for x, *own in runs])
        return self._rows(encode, image, weights)

    def _rows(self, encode, image: torch.Tensor, weights: list) -> torch.Tensor:
        rows = image.shape[:-3]
        x = image.reshape(-1, *image.shape[-3:]).to(weights[0][0].dtype) * self.scale
        x = encode(x if self.channels_first else x.permute(0, 3, 1, 2), weights)
        return x.flatten(1).view(*rows, -1)

    def _plain(self, x: torch.Tensor, weights: list) -> torch.Tensor:
        for (weight, bias), (_, stride) in zip(weights, KERNELS[self.architecture], strict=True):
            x = torch.relu(functional.conv2d(x, weight, bias, stride))
        return x.contiguous()

    def _impala(self, x: torch.Tensor, weights: list) -> torch.Tensor:
        for stage in range(0, len(weights), 5):
            first, *blocks = weights[stage : stage + 5]
            x = functional.max_pool2d(functional.conv2d(x, *first, padding=1), 3, 2, 1)
            for one, two in (blocks[:2], blocks[2:]):
                inner = functional.conv2d(torch.relu(x), *one, padding=1)
                x = x + functional.conv2d(torch.relu(inner), *two, padding=1)
        return torch.relu(x).contiguous()


def _convolution(depth: int, width: int, side: int) -> nn.Conv2d:
    layer = nn.Conv2d(depth, width, side)
    nn.init.orthogonal_(layer.weight, 2**0.5)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
