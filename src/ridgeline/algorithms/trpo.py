"""Trust region policy optimisation: act, estimate, learn.

Source: Schulman et al. 2015, "Trust region policy optimization", appendix C; acceptance of a step as in Spinning Up.
Differs: the critic learns by steps of Adam; what it shares with the policy (`--shared-trunk`) only the policy's step
moves, as the bound on the KL would not hold otherwise. No entropy bonus.

The runs of a population act and train their critics side by side; the policy's step loops over them, as each run's
line search ends where it will. The work is in products over the whole rollout, so the loop costs little.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call, grad, vjp
from torch.utils._pytree import tree_map

from ridgeline.calls import both, first
from ridgeline.recurrent import Sequence
from ridgeline.rollout import check_minibatches, collect, squared_error, summary
from ridgeline.valid_rows import mean, select, standardized

Tensors = dict[str, torch.Tensor]

STEP_METRICS = ("policy_loss", "entropy", "gradient_norm", "max_log_ratio", "kl", "step_fraction")
SHRINK = 0.8  # of the line search


@dataclass(frozen=True)
class TRPO:
    """One natural gradient step of the policy per rollout, as long as the KL bound allows; then the critic's steps."""

    num_envs: int = 32
    """Environment instances per run."""
    rollout_length: int = 64
    """Steps per instance and iteration."""
    max_kl: float = 0.01
    """Bound on the mean KL of the old policy from the new one, in nats."""
    damping: float = 0.1
    """Added to the diagonal of the Fisher matrix."""
    num_conjugate_gradient_steps: int = 10
    """Products with the Fisher matrix that the step's direction is made of."""
    num_line_search_steps: int = 10
    """Step lengths tried, each 0.8 of the one before; where none is accepted the policy stays."""
    num_value_updates: int = 20
    """Passes of the critic over each rollout."""
    num_minibatches: int = 1
    """Parts into which a pass of the critic is divided; a gradient step for each."""
    learning_rate: float = 5e-3
    """Step size of the critic's optimizer."""
    anneal_learning_rate: bool = True
    """Let the critic's learning rate fall linearly to zero over the training."""
    optimizer: Literal["adam", "muon", "rmsprop", "rmsprop_tf"] = "adam"
    """What moves the critic's parameters: Adam, RMSprop, or Muon for matrices and Adam for the rest."""
    normalize_advantage: bool = True
    """Standardise the advantage within each rollout."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length, self.num_value_updates) < 1:
            raise ValueError("num_envs, rollout_length and num_value_updates must be at least 1")
        check_minibatches(self.num_envs, self.rollout_length, self.num_minibatches)
        if min(self.num_conjugate_gradient_steps, self.num_line_search_steps) < 1:
            raise ValueError("num_conjugate_gradient_steps and num_line_search_steps must be at least 1")
        if self.max_kl <= 0 or self.damping < 0:
            raise ValueError(f"max_kl = {self.max_kl} must be above 0, damping = {self.damping} at least 0")

    def iterate(self, env, population, estimator) -> dict[str, torch.Tensor]:
        """One iteration; returns metrics, one number per run."""
        # act
        with population.clock("act"):
            rollout = collect(env, population, self.rollout_length)

        # estimate
        with population.clock("estimate"):
            estimate, population.memory = estimator(rollout, population.memory)
            population.update_target_moments(estimate.target, rollout.valid)

        # learn
        with population.clock("learn"):
            batch = rollout.everything(estimate)
            batch["observation"] = population.unpack(batch["observation"])
            names = policy_parameters(population.module, batch)
            steps = [self.policy_step(population, run, names, batch) for run in range(population.num_runs)]
            metrics = {name: torch.tensor([step[name] for step in steps]) for name in STEP_METRICS}
            if estimate.target is not None:
                metrics["value_loss"] = self.fit_critic(population, names, rollout, estimate)
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, [metrics])

    def policy_step(self, population, run: int, names: list[str], batch: Tensors) -> dict[str, float]:
        """One step of one run's policy parameters `names`; returns STEP_METRICS.

        Maximises L(θ) = E[ρÂ], ρ = π_θ(a|s)/π_old(a|s), where E[KL(π_old‖π_θ)] ≤ δ. A frozen run stays as it is, and
        its metrics are NaN.
        """
        if population.frozen[run]:
            return dict.fromkeys(STEP_METRICS, math.nan)
        one = tree_map(lambda tensor: tensor[run], batch)
        advantage = one["advantage"].double()
        if self.normalize_advantage:
            advantage = standardized(advantage, one)
        policy = distribution_of(population, run, one["observation"])

        def log_ratio(distribution) -> torch.Tensor:
            return select(distribution.log_prob(one["action"]) - one["log_prob"], one)

        def surrogate(distribution) -> torch.Tensor:
            return mean(log_ratio(distribution).exp() * advantage, one)

        theta = {name: population.view(name)[run].clone() for name in names}
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in theta.items()}
        gradient = flatten(torch.autograd.grad(surrogate(policy(leaves)), list(leaves.values())))
        with torch.no_grad():
            old = policy(theta)
            before = surrogate(old).item()
            metrics: dict[str, float] = dict.fromkeys(STEP_METRICS, 0.0)
            metrics |= {"policy_loss": -before, "entropy": mean(old.entropy(), one).item()}
            metrics |= {"gradient_norm": gradient.norm().item(), "max_log_ratio": log_ratio(old).abs().max().item()}
            if not math.isfinite(before + metrics["gradient_norm"]):
                population.freeze(
                    run, f"the policy's gradient is not finite in iteration {population.iteration[run] + 1}"
                )
                return metrics

            def mean_kl(theta: Tensors) -> torch.Tensor:
                return mean(old.kl(policy(theta)), one)

            max_kl, damping = (population.coefficients[name][run].item() for name in ("max_kl", "damping"))
            step = natural_step(mean_kl, theta, gradient, max_kl, damping, self.num_conjugate_gradient_steps)
            found = line_search(
                lambda theta: (surrogate(policy(theta)).item(), mean_kl(theta).item()),
                theta, step, before, max_kl, self.num_line_search_steps,
            )  # fmt: skip
            if found is None:
                return metrics
            theta, after, kl, fraction = found
            for name, tensor in theta.items():
                population.view(name)[run].copy_(tensor)
            return metrics | {"policy_loss": -after, "kl": kl, "step_fraction": fraction}

    def fit_critic(self, population, names: list[str], rollout, estimate) -> torch.Tensor:
        """Passes of the critic over the rollout, all parameters but `names`; returns its first loss, (R,)."""
        kept = {name: population.view(name).clone() for name in names}
        losses = []
        for minibatch in self.value_minibatches(population, rollout, estimate):
            losses.append(population.update(self.value_loss, minibatch)["value_loss"])
            for name, tensor in kept.items():
                population.view(name).copy_(tensor)
        return losses[0]

    def value_minibatches(self, population, rollout, estimate) -> Iterator[Tensors]:
        """The whole rollout again and again, or shuffled minibatches of it."""
        if self.num_minibatches == 1:
            batch = rollout.everything(estimate)
            yield from [batch] * self.num_value_updates
            return
        for order in population.shuffles(rollout.num_samples, self.num_value_updates):
            for index in order.chunk(self.num_minibatches, 1):
                yield rollout.rows(index, estimate)

    def value_loss(self, policy, minibatch, coefficients):
        """½E[((V−R̂)/σ)²], of one run."""
        _, value = policy(minibatch["observation"])
        loss = 0.5 * mean(squared_error(value, minibatch, coefficients["value_scale"]), minibatch)
        return loss, {"value_loss": loss}


# ---------------------------------------------------------------------------------- the distribution and what moves it


class _Actor(nn.Module):
    """A policy without its value."""

    def __init__(self, policy: nn.Module):
        super().__init__()
        self.policy = policy

    def forward(self, observation):
        if getattr(self.policy, "stackable", False):
            return self.policy.distribution(observation)  # type: ignore[operator]
        return both(self.policy, observation)[0]


def distribution_of(population, run: int, observation: torch.Tensor) -> Callable:
    """The function θ -> action distribution at `observation` (M, *O) of one run; what θ leaves out is as it is."""
    actor = _Actor(population.module)
    fixed = {f"policy.{name}": buffer[run] for name, buffer in population.buffers.items()}

    def distribution(theta: Tensors):
        moved = {f"policy.{name}": tensor for name, tensor in theta.items()}
        return functional_call(actor, fixed | moved, (observation,))

    return distribution


def policy_parameters(policy: nn.Module, batch: Tensors) -> list[str]:
    """The names of the parameters that the action distribution depends on.

    Raises ValueError where nothing is left for the critic: its training would move the policy beyond the KL bound.
    """
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    observation, action = first((batch["observation"], batch["action"]))
    if not isinstance(observation, Sequence):  # one row tells as much as many
        observation, action = tree_map(lambda tensor: tensor[:1], (observation, action))

    def reached(number: torch.Tensor) -> list[str]:
        gradients = torch.autograd.grad(number, list(trained.values()), allow_unused=True)
        return [name for name, gradient in zip(trained, gradients, strict=True) if gradient is not None]

    names = reached(_Actor(policy)(observation).log_prob(action).sum())
    if "target" in batch and len(names) == len(trained):
        raise ValueError(
            "trpo needs a critic with parameters of its own, but every parameter of this policy reaches its action "
            "distribution; give the value a layer of its own, or train none (estimator monte_carlo without a baseline)"
        )
    return names


def flatten(tensors) -> torch.Tensor:
    """Tensors one behind another, as one float64 vector."""
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def unflatten(vector: torch.Tensor, like: Tensors) -> Tensors:
    """The opposite of `flatten`, with the names, shapes and dtypes of `like`."""
    parts = vector.split([tensor.numel() for tensor in like.values()])
    return {name: part.view_as(t).to(t.dtype) for (name, t), part in zip(like.items(), parts, strict=True)}


# ---------------------------------------------------------------------------------------------------------- the step


def fisher_vector_product(mean_kl: Callable, theta: Tensors) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function v -> F v = ∇(∇E[KL]·v) at θ = θ_old, where the Hessian of E[KL(π_old‖π_θ)] is the Fisher matrix.

    The Hessian is symmetric, so a product is one pass backward through the gradient, which is computed here, once.
    """
    backward: Any = vjp(grad(mean_kl), theta)[1]
    return lambda vector: flatten(backward(unflatten(vector, theta))[0].values())


def conjugate_gradient(product: Callable, b: torch.Tensor, num_steps: int) -> torch.Tensor:
    """x after `num_steps` steps towards A x = b from x = 0, for a positive definite A given by its product."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual.dot(residual)
    smallest = 1e-20 * square  # solved to ten digits: going on would divide by rounding errors
    for _ in range(num_steps):
        if square <= smallest:
            break
        image = product(direction)
        length = square / direction.dot(image)
        x += length * direction
        residual -= length * image
        square, previous = residual.dot(residual), square
        direction = residual + square / previous * direction
    return x


def natural_step(
    mean_kl: Callable, theta: Tensors, gradient: torch.Tensor, max_kl: float, damping: float, num_steps: int
) -> torch.Tensor:
    """β x, (F + κI) x = ∇L, β = √(2δ / xᵀ(F + κI)x): the KL's quadratic form, damping included, is δ. (P,) float64."""
    fisher = fisher_vector_product(mean_kl, theta)

    def product(vector: torch.Tensor) -> torch.Tensor:
        return fisher(vector) + damping * vector

    x = conjugate_gradient(product, gradient, num_steps)
    curvature = x.dot(product(x))
    return (2 * max_kl / curvature).sqrt() * x if curvature > 0 else torch.zeros_like(x)


def line_search(
    measure: Callable[[Tensors], tuple[float, float]],
    theta: Tensors,
    step: torch.Tensor,
    before: float,
    max_kl: float,
    num_steps: int,
) -> tuple[Tensors, float, float, float] | None:
    """θ + 0.8ʲ step for the first j = 0, 1, ... where L > `before` and E[KL] ≤ δ, with L, E[KL] and 0.8ʲ; or None.

    `measure(θ)` gives L and E[KL]; what is not finite is not accepted.
    """
    start = flatten(theta.values())
    for j in range(num_steps):
        fraction = SHRINK**j
        candidate = unflatten(start + fraction * step, theta)
        surrogate, kl = measure(candidate)
        if kl <= max_kl and surrogate > before:
            return candidate, surrogate, kl, fraction
    return None
