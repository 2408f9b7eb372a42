"""Direct advantage estimation: the advantage of every action is learned, as its share in the return.

Source: Pan, Gürtler, Neitz & Schölkopf 2022, "Direct advantage estimation", eq. 13; the scale of the advantage is that
of the authors' code (github.com/hrpan/dae). `corrected`: Cheng, Yan & Boots 2019, "Trajectory-wise control variates for
variance reduction in policy gradient methods".
Differs: a truncation is bootstrapped, where the authors' code takes a time limit for the end of the task. Minibatches
are rows, not whole pieces of a trajectory: the loss couples the rows of a piece, so its gradient is put into the
critic's targets, of all rows at once and before each pass. Errors are in units of the running standard deviation of V's
targets.
"""

import copy
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch.nn.functional import one_hot

from ridgeline.rollout import Estimate, Rollout, explained_variance, reverse_scan


def direct_advantage(preference, probability):
    """Â(s, a) = f(s, a) − Σ_b π(b|s) f(s, b) of all actions, (..., A): its mean under the policy is 0."""
    return preference - (probability * preference).sum(-1, keepdim=True)


def direct_target(reward, value, next_value, terminated, truncated, action, probability, gamma):
    """Targets towards which a row-wise squared error has the gradient of the loss of direct advantage estimation.

        L = Σₜ eₜ²,   eₜ = Yₜ − V(sₜ),   Yₜ = rₜ − Â(sₜ, aₜ) + γ Yₜ₊₁,   with γ v'ₜ for γ Yₜ₊₁ where a piece ends

    (0 behind a termination). Within a piece −½ ∂L/∂V(sₜ) = eₜ and −½ ∂L/∂Âₜ = Eₜ = eₜ + γ Eₜ₋₁, so

        target = (Yₜ, f(sₜ, b) + Eₜ/Wₜ (1[aₜ = b] − π(b|sₜ))),   weight = (1, Wₜ),   Wₜ = 1 + γ² Wₜ₋₁

    The gradient does not depend on W. In the mean over trajectories the Âₜ of different rows are uncorrelated, and the
    curvature of L is W times the covariance of a one-hot action: to fit the targets all the way does not overshoot.
    γ = 0: the reward less V is regressed on the action.

    Args: reward, next_value (T, B) float; value (T, B, 1 + A) holds V and f; terminated, truncated (T, B) bool;
        action (T, B) int64; probability (T, B, A) under the policy that acted; gamma float or (B,).
    Returns: target and weight (T, B, 1 + A), in units of reward and without unit.
    """
    gamma = torch.as_tensor(gamma, dtype=reward.dtype)
    preference = value[..., 1:]
    ends = terminated | truncated
    ends[-1] = True
    taken = direct_advantage(preference, probability).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    bootstrap = torch.where(ends & ~terminated, gamma * next_value, 0.0)
    explained = reverse_scan(reward - taken + bootstrap, torch.where(ends, 0.0, gamma))
    begins = torch.cat([torch.ones_like(ends[:1]), ends[:-1]])
    decay = torch.where(begins, 0.0, gamma)
    error = _scan(explained - value[..., 0], decay)
    curvature = _scan(torch.ones_like(reward), decay.square()).unsqueeze(-1)
    step = error.unsqueeze(-1) / curvature * (one_hot(action, preference.shape[-1]) - probability)
    target = torch.cat([explained.unsqueeze(-1), preference + step], -1)
    return target, torch.cat([torch.ones_like(curvature), curvature.expand_as(step)], -1)


def _scan(delta: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """yₜ = deltaₜ + decayₜ yₜ₋₁: `reverse_scan` in the other direction."""
    return reverse_scan(delta.flip(0), decay.flip(0)).flip(0)


@dataclass(frozen=True)
class DAE:
    """An advantage for every action from a head of its own: discrete actions only, and no trace decay.

    The policy's advantage is Â(sₜ, aₜ) / √E[Σ_a π(a|s) Â(s, a)²], the mean over a run's rollout. It is without noise
    and may be wrong: a policy that follows it takes larger steps, and early ones in the wrong direction.
    """

    gamma: float = 0.99
    """Discount of the return, 0 to 1."""
    corrected: bool = False
    """Add eₜ, what the critic leaves unexplained: the Monte Carlo advantage less the luck of later actions; unbiased
    whatever the critic has learned, up to the bootstrap."""

    every_epoch = True  # the gradient is that at the critic's outputs, and a pass moves these

    def __post_init__(self):
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma = {self.gamma}; use a number from 0 to 1")

    def num_values(self, action_space: spaces.Space) -> int:
        """One for the value and one for each action. Raises ValueError where the actions cannot be listed."""
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(
                f"dae averages over all actions of a state, so it needs a Discrete action space, not {action_space}; "
                "use another estimator, for example gae"
            )
        return 1 + int(action_space.n)

    def check(self, env, population, algorithm) -> None:
        """Raises ValueError where the action space is not Discrete."""
        self.num_values(env.action_space)

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        first, next_value = _first_next_value(rollout)
        value, probability = rollout.value, rollout.distribution().log_probs.exp()
        target, weight = direct_target(
            rollout.reward, value, next_value, rollout.terminated, rollout.truncated, rollout.action, probability,
            self.gamma,
        )  # fmt: skip
        every = direct_advantage(value[..., 1:], probability)
        advantage = every.gather(-1, rollout.action.unsqueeze(-1)).squeeze(-1)
        if self.corrected:
            advantage = advantage + target[..., 0] - value[..., 0]
        else:
            square = rollout.of_each_run((probability * every.square()).sum(-1))
            scale = torch.stack([own.mean() for own in square]).sqrt().clamp_min(1e-8)
            advantage = (rollout.by_run(advantage) / scale.unsqueeze(1)).flatten(1, 2)
        weight = (rollout.by_run(weight) * _scale_of_value(rollout, target, first).unsqueeze(1)).flatten(1, 2)
        return Estimate(advantage, target, weight, _metrics(rollout, target[..., 0])), memory


def _first_next_value(rollout: Rollout) -> tuple[bool, torch.Tensor]:
    """Whether this is the first call for what was collected, and V(s') as it was then: evaluating anew overwrites it,
    and a loss that bootstraps from what it moves has another gradient. Each collection has its own distribution."""
    distribution = rollout.distribution()
    kept, next_value = getattr(rollout, "_first_next_value", (None, rollout.next_value[..., 0]))
    if kept is distribution:
        return False, next_value
    next_value = rollout.next_value[..., 0].clone()
    rollout._first_next_value = distribution, next_value  # type: ignore[attr-defined]
    return True, next_value


def _scale_of_value(rollout: Rollout, target: torch.Tensor, first: bool) -> torch.Tensor:
    """(scale / σ)², (R, K): algorithms divide each head's error by its own scale; weighted so, it is ½E[(e/σ)²] with
    the standard deviation σ of V's targets for all. The first call's target changes the scales before the loss reads
    them."""
    population = rollout.population
    if population is None or population.target_moments is None:
        return target.new_ones(rollout.num_runs, target.shape[-1])
    scale, unit = population.coefficients["value_scale"], population.buffers["value_scale"]
    if first:
        moments = copy.deepcopy(population.target_moments)
        moments.update(rollout.by_run(target), ~population.frozen, rollout.valid_by_run)
        scale, unit = moments.error_scale().float(), moments.scale().float()
    return (scale / unit[:, :1]).square()


def _metrics(rollout: Rollout, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """`value` and `explained_variance` of V alone: the other heads are advantages."""
    value = rollout.value[..., 0]
    means = [own.mean() for own in rollout.of_each_run(value)]
    return {"value": torch.stack(means), "explained_variance": explained_variance(rollout, target, value)}
