"""Proximal policy optimisation: act, estimate, learn.

Source: Schulman et al. 2017, "Proximal policy optimization algorithms", eq. 7 and 9; the details of Huang et al. 2022,
"The 37 implementation details of PPO".
Differs: critic errors are measured in units of the targets' running standard deviation (policies.py), so value_coef
means the same at every scale of reward; value clipping is off unless asked for.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.optimizers import annealed
from ridgeline.rollout import check_minibatches, collect, reevaluate, squared_error, summary
from ridgeline.valid_rows import mean, select, standardized


@dataclass(frozen=True)
class PPO:
    """PPO with a clipped ratio, several epochs of shuffled minibatches, and an optional bound on the KL."""

    num_envs: int = 64
    """Environment instances per run."""
    rollout_length: int = 64
    """Steps per instance and iteration."""
    num_epochs: int = 4
    """Passes over each rollout."""
    num_minibatches: int = 4
    """Parts into which a pass is divided."""
    learning_rate: float = 2.5e-3
    """Step size of the optimizer."""
    critic_learning_rate: float | None = None
    """Step size of the optimizer for the critic's own parameters; None: that of the others."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall linearly to zero over the training."""
    optimizer: Literal["adam", "muon", "rmsprop", "rmsprop_tf"] = "adam"
    """What moves the parameters: Adam, RMSprop, or Muon for matrices, at its best with a learning rate near 1e-2."""
    clip_coef: float = 0.2
    """Half-width of the interval around 1 in which the ratio is rewarded."""
    anneal_clip_coef: bool = False
    """Let clip_coef fall linearly to zero over the training."""
    entropy_coef: float = 0.01
    """Weight of the entropy bonus."""
    value_coef: float = 0.5
    """Weight of half the squared critic error."""
    value_clip_coef: float | None = None
    """Let the value move at most this many standard deviations of its targets per iteration; None: no limit."""
    max_grad_norm: float = 0.5
    """Longest gradient of one run; longer ones are scaled down."""
    target_kl: float | None = None
    """Stop a run's epochs early when its approximate KL exceeds this."""
    normalize_advantage: bool = True
    """Standardise the advantage within each minibatch."""
    recompute_advantage: bool = False
    """Estimate anew before every pass, with the critic as it is by then (which value clipping then compares with)."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length, self.num_epochs, self.num_minibatches) < 1:
            raise ValueError("num_envs, rollout_length, num_epochs and num_minibatches must be at least 1")
        check_minibatches(self.num_envs, self.rollout_length, self.num_minibatches)

    def iterate(self, env, population, estimator) -> dict[str, torch.Tensor]:
        """One iteration; returns metrics, one number per run."""
        # act
        with population.clock("act"):
            rollout = collect(env, population, self.rollout_length)

        # estimate
        with population.clock("estimate"):
            memory = population.memory
            estimate, population.memory = estimator(rollout, memory)
            population.update_target_moments(estimate.target, rollout.valid)
            recompute = self.recompute_advantage or getattr(estimator, "every_epoch", False)

        # learn
        with population.clock("learn"):
            active = ~population.frozen
            log = []
            for epoch, order in enumerate(population.shuffles(rollout.num_samples, self.num_epochs)):
                if recompute and epoch > 0:
                    reevaluate(rollout, population)
                    estimate, _ = estimator(rollout, memory)
                for index in order.chunk(self.num_minibatches, 1):
                    metrics = population.update(self.loss, rollout.rows(index, estimate), active)
                    log.append(metrics)
                    if self.target_kl is not None:
                        active = active & (metrics["approximate_kl"] <= self.target_kl)
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, log)

    def loss(self, policy, minibatch, coefficients):
        """−E[min(ρÂ, clip(ρ, 1−ε, 1+ε)Â)] + c_v ½E[((V−R̂)/σ)²] − c_e H, ρ = π(a|s)/π_old(a|s), of one run."""
        distribution, value = policy(minibatch["observation"])
        log_ratio = select(distribution.log_prob(minibatch["action"]) - minibatch["log_prob"], minibatch)
        ratio = log_ratio.exp()
        advantage = minibatch["advantage"]
        if self.normalize_advantage:
            advantage = standardized(advantage, minibatch)
        clip = annealed(coefficients, "clip_coef")
        clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
        policy_loss = -mean(torch.minimum(ratio * advantage, clipped * advantage), minibatch)
        entropy = mean(distribution.entropy(), minibatch)
        loss = policy_loss - coefficients["entropy_coef"] * entropy
        metrics = {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "approximate_kl": mean(ratio - 1 - log_ratio, minibatch),
            "clip_fraction": mean(((ratio - 1).abs() > clip).float(), minibatch),
            "max_log_ratio": log_ratio.abs().max(),
        }
        if "target" in minibatch:
            metrics["value_loss"] = self.value_loss(value, minibatch, coefficients["value_scale"])
            loss = loss + coefficients["value_coef"] * metrics["value_loss"]
        return loss, metrics

    def value_loss(self, value, minibatch, scale):
        """½E[((V−R̂)/σ)²]; clipped, ½E[max of it and the same with V_old + clip(V−V_old, ±ε_v σ)]."""
        square = squared_error(value, minibatch, scale)
        if self.value_clip_coef is not None:
            limit = self.value_clip_coef * scale
            change = torch.minimum(torch.maximum(value - minibatch["value"], -limit), limit)
            near = minibatch["value"] + change
            square = torch.maximum(square, squared_error(near, minibatch, scale))
        return 0.5 * mean(square, minibatch)
