"""REINFORCE: act, estimate, learn.

Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning";
Sutton & Barto 2018, section 13.3 and, with a learned baseline, 13.4.
Differs: the factor gamma^t is left out, as everybody does (the gradient is then a biased one of the discounted return);
a batch of steps from many instances, not one episode, makes an update, and the sum over it is divided by the number of
steps. With the estimator `monte_carlo --no-learned-baseline` there is no critic.
"""

from dataclasses import dataclass

import torch

from ridgeline.rollout import collect, squared_error, summary


@dataclass(frozen=True)
class REINFORCE:
    """One gradient step per rollout on log-probability times return-to-go, less the baseline that the estimator has."""

    num_envs: int = 32
    """Environment instances per run."""
    rollout_length: int = 128
    """Steps per instance and iteration; episodes that it cuts are bootstrapped by the estimator."""
    learning_rate: float = 3e-3
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall linearly to zero over the training."""
    value_coef: float = 0.5
    """Weight of half the squared error of the learned baseline."""
    max_grad_norm: float = 0.5
    """Longest gradient of one run; longer ones are scaled down."""
    standardize_return: bool = True
    """Standardise return-to-go (or its excess over the baseline) within each batch."""

    def __post_init__(self):
        if min(self.num_envs, self.rollout_length) < 1:
            raise ValueError("num_envs and rollout_length must be at least 1")

    def iterate(self, env, population, estimator) -> dict[str, torch.Tensor]:
        """One iteration; returns metrics, one number per run."""
        # act
        with population.clock("act"):
            rollout = collect(env, population, self.rollout_length)

        # estimate
        with population.clock("estimate"):
            estimate, population.memory = estimator(rollout, population.memory)
            population.update_target_moments(estimate.target)

        # learn
        with population.clock("learn"):
            log = [population.update(self.loss, rollout.everything(estimate))]
            population.update_observation_moments(rollout)
        return summary(population, rollout, estimate, log)

    def loss(self, policy, minibatch, coefficients):
        """−E[log π(a|s) (G − b)], plus c_v ½E[((b−G)/σ)²] where the baseline is learned; of one run."""
        distribution, value = policy(minibatch["observation"])
        log_prob = distribution.log_prob(minibatch["action"])
        excess = minibatch["advantage"]
        if self.standardize_return:
            excess = (excess - excess.mean()) / (excess.std(correction=0) + 1e-8)
        loss = -(log_prob * excess).mean()
        metrics = {
            "policy_loss": loss,
            "entropy": distribution.entropy().mean(),
            "max_log_ratio": (log_prob - minibatch["log_prob"]).abs().max(),
        }
        if "target" in minibatch:
            metrics["value_loss"] = 0.5 * squared_error(value, minibatch, coefficients["value_scale"]).mean()
            loss = loss + coefficients["value_coef"] * metrics["value_loss"]
        return loss, metrics
