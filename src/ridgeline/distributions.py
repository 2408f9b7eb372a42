"""Action distributions: categorical, several categoricals, diagonal Gaussian, one with state-dependent exploration.

Each is made from the policy's output and knows `sample(noise)`, `mode()`, `log_prob(action)`, `entropy()`,
`kl(other)` and `score(action)`, over any leading dimensions. The noise is drawn outside (one stream per run), so
sampling is a deterministic function and means the same for one run and for a population.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch.utils._pytree import register_pytree_node


class Distribution(Protocol):
    def sample(self, noise: torch.Tensor) -> torch.Tensor: ...
    def mode(self) -> torch.Tensor: ...
    def log_prob(self, action: torch.Tensor) -> torch.Tensor: ...
    def entropy(self) -> torch.Tensor: ...
    def kl(self, other) -> torch.Tensor: ...
    def score(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...


class Categorical:
    """pi(a) = softmax(logits)_a over the last dimension; actions are int64 (...).

    `mask` (..., A), where given, is 0 for actions that are not allowed: their probability is exactly 0, and so are the
    gradients of their logits. A mask that allows nothing (of a row that is no transition) counts as none.
    """

    def __init__(self, logits: torch.Tensor, mask: torch.Tensor | None = None):
        if mask is not None:
            allowed = mask != 0
            logits = torch.where(allowed | ~allowed.any(-1, keepdim=True), logits, -torch.inf)
        self.log_probs = torch.log_softmax(logits, -1)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """The inverse distribution function at uniform noise (...) in [0, 1); never an action of probability 0."""
        cumulative = self.log_probs.exp().cumsum(-1)
        # times the last sum, which rounding leaves beside 1: noise beyond it would reach an impossible last action
        return (cumulative[..., :-1] <= noise.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)

    def mode(self) -> torch.Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """log pi(a) = z_a - logsumexp(z), (...)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> torch.Tensor:
        """H = -sum_a pi(a) log pi(a), in nats; a probability of exactly 0 counts 0."""
        possible = self.log_probs > -torch.inf
        return -(self.log_probs.exp() * torch.where(possible, self.log_probs, 0.0)).sum(-1)

    def kl(self, other: "Categorical") -> torch.Tensor:
        """KL(self || other) = sum_a p_a (log p_a - log q_a), in nats; where p_a is exactly 0, 0."""
        possible = self.log_probs > -torch.inf
        return (self.log_probs.exp() * torch.where(possible, self.log_probs - other.log_probs, 0.0)).sum(-1)

    def score(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """d log pi(a) / d z = e_a - pi, (..., A); and of parameters beside the output: none, (..., 0)."""
        score = -self.log_probs.exp()
        one = torch.ones((), dtype=score.dtype).expand(*action.shape, 1)
        return score.scatter_add(-1, action.unsqueeze(-1), one), self.log_probs[..., :0]


class MultiCategorical:
    """Independent categoricals whose logits, and masks where given, stand side by side; actions are int64 (..., D)."""

    def __init__(self, logits: torch.Tensor, sizes: tuple[int, ...], mask: torch.Tensor | None = None):
        masks = [None] * len(sizes) if mask is None else mask.split(sizes, -1)
        self.parts = [Categorical(part, own) for part, own in zip(logits.split(sizes, -1), masks, strict=True)]

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.sample(noise[..., i]) for i, part in enumerate(self.parts)], -1)

    def mode(self) -> torch.Tensor:
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.log_prob(action[..., i]) for i, part in enumerate(self.parts)]).sum(0)

    def entropy(self) -> torch.Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)

    def kl(self, other: "MultiCategorical") -> torch.Tensor:
        return torch.stack([p.kl(q) for p, q in zip(self.parts, other.parts, strict=True)]).sum(0)

    def score(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the parts side by side, (..., sum of sizes) and (..., 0)."""
        scores = [part.score(action[..., i])[0] for i, part in enumerate(self.parts)]
        return torch.cat(scores, -1), scores[0][..., :0]


class DiagonalGaussian:
    """N(mean, diag(exp(log_std))^2); actions are float (..., D), unclipped."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor):
        self.mean, self.log_std = torch.broadcast_tensors(mean, log_std)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """mean + exp(log_std) noise, for standard normal noise (..., D)."""
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> torch.Tensor:
        return self.mean

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """-1/2 sum_i [((a_i - mu_i) / sigma_i)^2 + 2 log sigma_i + log 2 pi], (...): the sum over dimensions."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -0.5 * (z * z + 2 * self.log_std + math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """sum_i (log sigma_i + 1/2 log 2 pi e), in nats."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> torch.Tensor:
        """sum_i [log(q_i / p_i) + (p_i^2 + (mu_p - mu_q)^2) / (2 q_i^2) - 1/2], p_i, q_i the standard deviations."""
        variance = (2 * self.log_std).exp() + (self.mean - other.mean).square()
        return (other.log_std - self.log_std + 0.5 * variance * (-2 * other.log_std).exp() - 0.5).sum(-1)

    def score(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Whitened, z = (a - mu)/sigma: sigma d log pi / d mu = z, (..., D); d log pi / d log sigma over sqrt 2 =
        (z^2 - 1)/sqrt 2, (..., D). The plain ones grow without bound as sigma falls."""
        z = (action - self.mean) * (-self.log_std).exp()
        return z, (z * z - 1) / math.sqrt(2)


class StateDependentGaussian(DiagonalGaussian):
    """Generalised state-dependent exploration (gSDE): a = mean + theta' phi(s), where the noise matrix theta ~ N(0,
    std^2) (F, A) is kept for several steps, so that the noise changes as smoothly as the policy's features phi.

    Given s alone an action is N(mean, diag(sigma(s))^2), sigma_i^2 = sum_f phi_f^2 std_fi^2, so `log_std` (..., A), the
    log of sigma, is all that log_prob, entropy, kl and score know (of the latter, the second part is that of log
    sigma(s)). Only `sample` needs feature (..., F) and std (F, A), of many runs (R, F, A).

    Source: Raffin, Kober & Stulp 2022, "Smooth exploration for robotic reinforcement learning", section 3.
    """

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor, feature: torch.Tensor, std: torch.Tensor):
        super().__init__(mean, log_std)
        self.feature, self.std = feature, std

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """mean_i + sum_f phi_f std_fi noise_fi, for standard normal noise (..., F, A): a matrix for each action."""
        std = self.std.unflatten(-2, (*[1] * (noise.dim() - self.std.dim()), -1))  # of R runs: (R, 1, F, A)
        return self.mean + (self.feature.unsqueeze(-1) * std * noise).sum(-2)


def _register(cls, becomes, kept: int | None = None) -> None:
    """Let torch.func transforms carry a distribution as they carry a tuple of its tensors, or of the first ones `kept`,
    of which the class that it `becomes` is made."""

    def rebuild(children, names):
        distribution = becomes.__new__(becomes)
        vars(distribution).update(zip(names, children, strict=True))
        return distribution

    register_pytree_node(cls, lambda item: (list(vars(item).values())[:kept], tuple(vars(item))[:kept]), rebuild)


for _cls in (Categorical, MultiCategorical, DiagonalGaussian):
    _register(_cls, _cls)
_register(StateDependentGaussian, DiagonalGaussian, 2)  # `std` has no rows; actions are sampled before


def num_outputs(space: spaces.Space) -> int:
    """How many numbers a policy's last layer gives for this action space. Raises ValueError for other spaces."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"action space {space} is not supported; use Discrete, or MultiDiscrete or Box of one dimension")


def make_distribution(
    space: spaces.Space, output: torch.Tensor, log_std: torch.Tensor | None, mask: torch.Tensor | None = None
) -> Distribution:
    """The distribution over `space` that a policy's output (and, for Box, log standard deviation) describes; `mask` is
    the observation's "action_mask" where it has one."""
    if isinstance(space, spaces.Discrete):
        return Categorical(output, mask)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(output, tuple(int(n) for n in space.nvec), mask)
    assert log_std is not None
    return DiagonalGaussian(output, log_std)


def draw_noise(space: spaces.Space, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 noise that `sample` needs for `shape` actions: uniform, or standard normal for a Box."""
    if isinstance(space, spaces.Box):
        return generator.standard_normal((*shape, *space.shape), dtype=np.float32)
    return generator.random((*shape, *(space.shape or ())), dtype=np.float32)


def steps_at_once(policy: Any) -> int:
    """The steps whose noise is drawn together where no rollout says how many: those of a matrix that is kept, or 64."""
    return getattr(policy, "noise_steps", 0) or 64


def draw_steps(
    policy: Any, space: spaces.Space, streams: Sequence[np.random.Generator], length: int, rows: int
) -> torch.Tensor | list[torch.Tensor]:
    """What `sample` needs in each of `length` steps, (R, rows, ...) each: a run's from its own stream. A policy's
    `noise_steps`, where it has any, are those for which a matrix of noise is kept."""
    kept: int = getattr(policy, "noise_steps", 0)
    matrix = (policy.action_head.in_features,) if kept else ()
    shape = (-(-length // max(kept, 1)), rows, *matrix)
    noise = torch.from_numpy(np.stack([draw_noise(space, stream, shape) for stream in streams], 1))
    if len(noise) in (1, length):
        return noise.expand(length, *noise.shape[1:])
    return [noise[step // kept] for step in range(length)]
