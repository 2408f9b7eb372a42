"""REINFORCE: act, estimate, learn.

Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning";
Sutton & Barto 2018, section 13.3 and, with a learned baseline, 13.4.
Differs: the factor gamma^t is left out, as everybody does: it silences all but the first 1/(1 - gamma) steps of an
episode. Without it the sum is no gradient of the discounted return, unless gamma = 1. A batch of steps from many
instances, not one episode, makes an update. Baselines, and the whole return of Williams, are the estimator's:
`monte_carlo --baseline` and `--no-reward-to-go`; in a standardised batch one that is a mere number changes nothing.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ridgeline.rollout import collect, squared_error, summary
from ridgeline.valid_rows import mean, select, standardized


@dataclass(frozen=True)
class REINFORCE:
    """One gradient step per rollout on log-probability times return-to-go, less the baseline that the estimator has."""

    num_envs: int = 32
    """Environment instances per run."""
    rollout_length: int = 128
    """Steps per instance and iteration; episodes that it cuts are bootstrapped by the estimator."""
    learning_rate: float = 3e-3
    """Step size of the optimizer."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall linearly to zero over the training."""
    optimizer: Literal["adam", "muon", "rmsprop", "rmsprop_tf"] = "adam"
    """What moves the parameters: Adam, RMSprop, or Muon for matrices and Adam for the rest."""
    value_coef: float = 0.5
    """Weight of half the squared error of the learned baseline."""
    max_grad_norm: float = 0.5
    """Longest gradient of one run; longer ones are scaled down."""
    standardize_return: bool = True
    """Standardise return-to-go (or its excess over the baseline) within each batch."""
    normalize_by: Literal["steps", "episodes"] = "steps"
    """Divide the sum over a batch by its steps, or as textbooks do by its episodes, cut ones included."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length) < 1:
            raise ValueError("num_envs and rollout_length must be at least 1")
        if self.normalize_by not in ("steps", "episodes"):
            raise ValueError(f"normalize_by = {self.normalize_by!r}; use steps or episodes")

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
            if self.normalize_by == "episodes":
                batch["steps_per_episode"] = steps_per_episode(rollout)
            log = [population.update(self.loss, batch)]
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, log)

    def loss(self, policy, minibatch, coefficients):
        """−E[log π(a|s) (G − b)], plus c_v ½E[((b−G)/σ)²] where the baseline is learned; of one run.

        By episodes, the first term is the sum over the steps divided by the number of episodes.
        """
        distribution, value = policy(minibatch["observation"])
        log_prob = distribution.log_prob(minibatch["action"])
        excess = minibatch["advantage"]
        if self.standardize_return:
            excess = standardized(excess, minibatch)
        loss = -mean(log_prob * excess, minibatch) * minibatch.get("steps_per_episode", 1.0)
        metrics = {
            "policy_loss": loss,
            "entropy": mean(distribution.entropy(), minibatch),
            "max_log_ratio": select(log_prob - minibatch["log_prob"], minibatch).abs().max(),
        }
        if "target" in minibatch:
            square = squared_error(value, minibatch, coefficients["value_scale"])
            metrics["value_loss"] = 0.5 * mean(square, minibatch)
            loss = loss + coefficients["value_coef"] * metrics["value_loss"]
        return loss, metrics


def steps_per_episode(rollout) -> torch.Tensor:
    """Steps of each run's rollout divided by the episodes that it has a step of, (R,)."""
    ends = rollout.terminated | rollout.truncated
    if rollout.valid is None:
        begins = rollout.by_run(ends)[:-1].sum((0, 2))  # and one in each first row
        return rollout.length * rollout.rows_per_run / (rollout.rows_per_run + begins)
    begins = rollout.by_run(ends & rollout.valid)[:-1].sum((0, 2)) + rollout.by_run(rollout.valid)[-1].sum(1)
    return rollout.by_run(rollout.valid).sum((0, 2)) / begins.clamp_min(1)
