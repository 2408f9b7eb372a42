"""Convolutions against PyTorch's own modules; parts of an observation; and that a run's bits are its own."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ridgeline.components import default_policy
from ridgeline.encoders import Convolutions, flat, is_picture, parts, size_of
from ridgeline.policies import CNN

PICTURE = spaces.Box(0, 255, (40, 44, 3), np.uint8)
BOARD = spaces.Box(0, 1, (10, 10, 4), np.uint8)


def image(space, *rows, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(int(space.high.max()) + 1, size=(*rows, *space.shape)).astype(np.uint8))


def test_nature_is_the_published_network():
    torch.manual_seed(0)
    encoder = Convolutions(PICTURE, "nature", ())
    torch.manual_seed(1)
    theirs = nn.Sequential(
        nn.Conv2d(3, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
        nn.Flatten(),
    )  # fmt: skip
    for place, layer in zip((0, 2, 4), encoder.layers, strict=True):
        theirs[place].load_state_dict(layer.state_dict())
    x = image(PICTURE, 5)
    expected = theirs(x.permute(0, 3, 1, 2).float() / 255)
    assert encoder.num_features == expected.shape[1] == 64 * 1 * 2
    assert torch.allclose(encoder(x), expected, atol=1e-5)
    by_steps = encoder(x.unflatten(0, (5, 1)))
    assert torch.allclose(by_steps.flatten(0, 1), expected, atol=1e-5)
    first = Convolutions(spaces.Box(0, 255, (3, 40, 44), np.uint8), "nature", ())
    first.load_state_dict(encoder.state_dict())
    assert first.channels_first and torch.allclose(first(x.permute(0, 3, 1, 2)), expected, atol=1e-5)


class Residual(nn.Module):
    """A block of IMPALA's network, as in its figure 3."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x):
        return x + self.body(x)


def test_impala_is_the_published_network():
    torch.manual_seed(0)
    encoder = Convolutions(PICTURE, "impala", (4, 6))
    stages, depth = [], 3
    for width in (4, 6):
        stages += [nn.Conv2d(depth, width, 3, padding=1), nn.MaxPool2d(3, 2, 1), Residual(width), Residual(width)]
        depth = width
    theirs = nn.Sequential(*stages, nn.ReLU(), nn.Flatten())
    convolutions = [module for module in theirs.modules() if isinstance(module, nn.Conv2d)]
    for own, layer in zip(convolutions, encoder.layers, strict=True):
        own.load_state_dict(layer.state_dict())
    x = image(PICTURE, 3)
    expected = theirs(x.permute(0, 3, 1, 2).float() / 255)
    assert encoder.num_features == 6 * 10 * 11
    assert torch.allclose(encoder(x), expected, atol=1e-5)


@pytest.mark.parametrize(("space", "architecture"), [(PICTURE, "nature"), (PICTURE, "impala"), (BOARD, "minatar")])
def test_stacked_runs_are_the_runs_alone(space, architecture):
    """Three runs at once: features and gradients of each are, to the last bit, those of the run by itself."""
    modules = []
    for seed in range(3):
        torch.manual_seed(seed)
        modules.append(Convolutions(space, architecture, ()))
    stacked = Convolutions(space, architecture, ())
    for name, _ in list(stacked.named_parameters()):
        path, _, leaf = name.rpartition(".")
        owner = stacked.get_submodule(path)
        owner._parameters.pop(leaf)
        both = torch.stack([m.get_parameter(name).detach() for m in modules]).requires_grad_()
        owner.__dict__[leaf] = both
    x = image(space, 3, 6)
    features = stacked(x)
    features.square().sum().backward()
    for run, module in enumerate(modules):
        own = module(x[run])
        own.square().sum().backward()
        assert torch.equal(features[run], own)
        for place, layer in enumerate(module.layers):
            assert torch.equal(stacked.layers[place].weight.grad[run], layer.weight.grad)
            assert torch.equal(stacked.layers[place].bias.grad[run], layer.bias.grad)


@pytest.mark.parametrize(
    ("space", "architecture", "channels", "message"),
    [
        (BOARD, "nature", (), "needs images of 36x36 or more, and these are 10x10; use --encoder impala or minatar"),
        (PICTURE, "nature", (8, 8), r"channels = \(8, 8\); the nature encoder has 3 layers: give as many"),
        (spaces.Box(0, 1, (2, 2, 4), np.uint8), "minatar", (), "needs images of 3x3 or more"),
    ],
)
def test_what_does_not_suit_the_image_is_refused(space, architecture, channels, message):
    with pytest.raises(ValueError, match=message):
        Convolutions(space, architecture, channels)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="encoder = 'resnet'; use auto, nature, impala, minatar"):
        CNN(encoder="resnet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every width must be at least 1"):
        CNN(channels=(0,))
    with pytest.raises(ValueError, match=r"has no image, of shape \(H, W, C\) or \(C, H, W\); use --policy mlp"):
        CNN().build(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))


def test_parts_are_flattened():
    assert flat(spaces.Discrete(3, start=5), torch.tensor([5, 7])).tolist() == [[True, False, False], [False] * 2 + [1]]
    several = flat(spaces.MultiDiscrete([2, 3]), torch.tensor([[1, 0], [0, 2]]))
    assert several.int().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    assert flat(spaces.Box(-1, 1, (2, 2)), torch.ones(5, 7, 2, 2)).shape == (5, 7, 4)
    assert flat(spaces.Box(-1, 1, ()), torch.ones(5)).shape == (5, 1)
    for space, size in ((spaces.Discrete(3), 3), (spaces.MultiDiscrete([2, 3]), 5), (spaces.MultiBinary(4), 4),
                        (spaces.Box(-1, 1, (2, 2)), 4)):  # fmt: skip
        assert size_of(space) == size


def test_the_default_policy_suits_the_observation():
    mask = spaces.Box(0, 1, (2,), np.int8)
    both = spaces.Dict({"picture": PICTURE, "number": spaces.Box(-1, 1, (2,)), "action_mask": mask})
    assert list(parts(both)) == ["number", "picture"]
    assert is_picture(PICTURE) and not is_picture(BOARD) and not is_picture(spaces.Box(0, 255, (9,), np.uint8))
    assert [default_policy(space) for space in (PICTURE, both, BOARD, mask)] == ["cnn", "cnn", "mlp", "mlp"]
