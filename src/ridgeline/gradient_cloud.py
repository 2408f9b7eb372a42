"""The gradient cloud: many single-batch policy gradients of each estimator, against the true gradient.

A learning curve hides an estimator behind the noise of training. Here nothing is learned while one looks: the policy is
fixed, each estimator is given the same rollouts, and its gradient of a batch is an arrow that is compared with the true
one. Letters: runs r = 1..R, batches i = 1..n of each run, one batch N x T steps.

    g_ri = ∇ 1/(NT) Σ Â log π(a|s)                 of one batch, by estimator and critic
    g    = ∇ E[sum of an episode's rewards] / E[its length]    the truth: undiscounted, inside the time limit
    μ_r  = E[g_ri],  V = mean_r E|g_ri − μ_r|²,  Q = mean_r |μ_r|²,  a = mean_r <μ_r, g>

    cosine            mean of <g_ri, g> / (|g_ri| |g|)
    scale             c = max(a, 0) / Q = argmin mean_r |cμ_r − g|²: brings the mean gradient nearest to the true one
    bias              √(mean_r |cμ_r − g|²) / |g| = √(1 − max(a, 0)² / (Q|g|²)), 0 to 1: what more data does not mend
    variance          c² V / |g|²: what more data mends
    signal to noise   Q / V

The scale is taken out because no algorithm keeps it: advantages are standardised, gradients clipped, steps divided by
Adam. So gradients of standardised advantages, which have no unit, stand in one table with the others. For unit-carrying
ones c says how much too short (c > 1) or too long the mean gradient is.

A mean of n gradients is no expectation: Q is estimated by mean_r (|mean_i g_ri|² − E_r), with E_r the squared standard
error of this mean, by the means of blocks of successive batches (an episode may reach over several). |g|² is likewise
less the squared standard error of g, and cosines are divided by that |g|, which frees them of the truth's own noise.
Intervals (95%) come from the jackknife over runs (each has a critic of its own) and over the parts of the true
gradient, with Student's t of R − 1 degrees of freedom.

The true gradient is a mean over whole episodes, all those that begin in a fixed span of time, with return-to-go without
discount less a critic that was fitted before: any function of the state leaves the mean as it is. By the renewal
theorem the mean over a rollout's rows has the same expectation where Â is unbiased, hence the division by E[length].
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ridgeline import components
from ridgeline.environments import make
from ridgeline.gradient_comparison import Cloud, compare, describe_truth, true_parts
from ridgeline.observations import unpack
from ridgeline.population import Population
from ridgeline.rollout import Rollout, collect, reevaluate, reverse_scan, squared_error
from ridgeline.slots import num_values
from ridgeline.training import available_cores, keep_memory
from ridgeline.vector import EVALUATION

NUM_EPOCHS, NUM_MINIBATCHES = 2, 4  # of a critic's fit, per rollout
FIT_COEFFICIENTS = {"learning_rate": 2.5e-3, "max_grad_norm": 0.5, "anneal_learning_rate": 1.0}
NUM_PARTS = 2  # of the true gradient, from each run
LONGEST = 100_000  # steps of an episode, beyond which it is taken for endless

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class CloudError(RuntimeError):
    """The cloud cannot be measured or drawn; the message says what mends it."""


@dataclass(frozen=True)
class Settings:
    """What is drawn. A batch is `num_envs` x `rollout_length` steps; estimators are checked against these two."""

    num_envs: int = 64
    rollout_length: int = 64
    num_runs: int = 8
    """Critics of each estimator, each with environments of its own."""
    num_batches: int = 256
    """Gradients of each estimator, of all runs together."""
    fit_steps: int = 200_000
    """Steps of each run from which its critics are fitted, the policy held fixed."""
    true_steps: int = 2_000_000
    """Steps of the episodes from which the true gradient comes, of all runs together."""
    seed: int = 0

    def __post_init__(self):
        least = {"num_envs": 1, "rollout_length": 1, "num_runs": 3, "fit_steps": 0, "true_steps": 1, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} = {getattr(self, name)}; use a whole number from {smallest}")
        if self.num_batches < 2 * self.num_runs:
            raise ValueError(
                f"batches = {self.num_batches}; use at least {2 * self.num_runs}, two for each of {self.num_runs} runs"
            )

    @property
    def num_fits(self) -> int:
        return math.ceil(self.fit_steps / (self.num_envs * self.rollout_length))

    @property
    def batches_per_run(self) -> int:
        return math.ceil(self.num_batches / self.num_runs)


@dataclass
class Clouds:
    """What `measure` gives."""

    clouds: list[Cloud]
    parts: np.ndarray = field(repr=False)  # (R * NUM_PARTS, P): their mean is the true gradient
    truth: dict[str, Any]  # how well it is known, and the episodes that it comes from
    settings: Settings
    refused: dict[str, str]  # label -> why the environment does not allow the estimator
    environment: str

    def document(self) -> dict[str, Any]:
        """All but the gradients, as JSON knows it."""
        rows = [{"label": cloud.label, "estimator": cloud.kind} | cloud.numbers for cloud in self.clouds]
        return {
            "environment": self.environment, "settings": asdict(self.settings), "true_gradient": self.truth,
            "clouds": rows, "refused": self.refused,
        }  # fmt: skip


def measure(
    environment: str | Path | ModuleType,
    policy: torch.nn.Module,
    configuration: Any,
    estimators: Mapping[str, Any],
    settings: Settings | None = None,
    *,
    parameters: dict[str, Any] | None = None,
    num_threads: int | None = None,
    progress: Progress | None = None,
) -> Clouds:
    """Draw the cloud of every estimator around a policy.

    Args:
        policy: the module whose gradient is looked at; its parameters stay as they are.
        configuration: of the policy, whose `build` makes a module with a critic of K outputs.
        estimators: label -> estimator.
        parameters: changes of the environment's parameters.

    Raises: CloudError where something is not finite or an episode does not end; ValueError where the policy's critic
    shares parameters with its actor, or where the environment refuses every estimator.
    """
    keep_memory()
    settings, progress = settings or Settings(), progress or (lambda what, number, total: None)
    runs = np.arange(settings.num_runs)
    parts = np.array_split(runs, min(settings.num_runs, num_threads or available_cores()))
    groups: list[_Group] = []
    pool = ThreadPoolExecutor(len(parts), "ridgeline", lambda: torch.set_num_threads(1))

    def everywhere(what: str, call: Callable, count: int) -> list[list[Any]]:
        found = []
        for number in range(count):
            progress(what, number, count)
            found.append(list(pool.map(call, groups)))
        return found

    try:
        for share in parts:
            seeds = [settings.seed + 1 + int(run) for run in share]
            env = make(environment, settings.num_envs, seeds, EVALUATION, parameters)
            groups.append(_Group(env, policy, configuration, settings, estimators))
        if not groups[0].critics:
            raise ValueError("; ".join(groups[0].refused.values()) or "name an estimator")
        everywhere("fitting the critics", _Group.fit, settings.num_fits)
        gradients = everywhere("single batches", _Group.gradients, settings.batches_per_run)
        sums = everywhere("the true gradient", _Group.true_gradient, NUM_PARTS)
        refused, name = groups[0].refused, str(groups[0].env.name)
    finally:
        pool.shutdown()
        for group in groups:
            group.env.close()
    total = np.concatenate([one[0] for pass_ in sums for one in pass_])
    steps, episodes, returns = (np.concatenate([one[k] for pass_ in sums for one in pass_]) for k in (1, 2, 3))
    truth = true_parts(total, steps)
    numbers = describe_truth(truth) | {
        "num_steps": int(steps.sum()), "num_episodes": int(episodes.sum()),
        "episode_return": float(returns.sum() / episodes.sum()), "episode_length": float(steps.sum() / episodes.sum()),
    }  # fmt: skip
    clouds = []
    for label in gradients[0][0]:
        own = np.concatenate([np.stack([one[k][label] for one in gradients], 1) for k in range(len(groups))])
        kind = components.name_of(getattr(estimators[label], "estimator", estimators[label]))
        clouds.append(Cloud(label, kind, own, compare(own, truth)))
    return Clouds(clouds, truth, numbers, settings, refused, name)


def actor_parameters(policy: torch.nn.Module, observation: torch.Tensor) -> list[str]:
    """The names of the parameters on which log π(a|s) depends, by one observation (1, *O).

    Raises: ValueError where the value depends on one of them.
    """
    own = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}

    def reached(of: torch.Tensor) -> set[str]:
        gradients = torch.autograd.grad(of.sum(), [*own.values()], allow_unused=True)
        return {name for name, gradient in zip(own, gradients, strict=True) if gradient is not None}

    distribution = policy(observation)[0]
    of_actor, of_critic = reached(distribution.log_prob(distribution.mode())), reached(policy(observation)[1])
    if of_actor & of_critic:
        raise ValueError(
            "the policy and its critic share parameters, so that the critic cannot be fitted while the policy stays; "
            "use a policy with separate trunks, as --no-shared-trunk makes"
        )
    return [name for name in own if name in of_actor]


class _Critic:
    """An estimator with R critics and what it remembers; the actor beside them is the policy that is looked at."""

    def __init__(self, group: "_Group", policy, configuration, estimator):
        self.estimator, env = estimator, group.env
        self.num_values = num_values(estimator, env.action_space)
        coefficients = {name: [value] * len(env.seeds) for name, value in FIT_COEFFICIENTS.items()}

        def build():
            return configuration.build(env.observation_space, env.action_space, self.num_values)

        self.population = Population(build, env.observation_space, env.action_space, env.seeds, coefficients)
        with torch.no_grad():
            for name in group.actor:
                self.population.view(name).copy_(policy.get_parameter(name))
            for name in ("observation_mean", "observation_scale"):
                if name in self.population.buffers:
                    self.population.buffers[name].copy_(policy.get_buffer(name))
        if hasattr(estimator, "check"):
            estimator.check(env, self.population, group.settings)

    def rollout(self, rollout: Rollout) -> Rollout:
        """The same steps, with the predictions of these critics."""
        if rollout.population is self.population:
            return rollout
        value = rollout.value.new_empty(*rollout.reward.shape, self.num_values)
        own = replace(
            rollout, value=value, next_value=torch.empty_like(value), log_ratio=torch.empty_like(rollout.reward),
            population=self.population,
        )  # fmt: skip
        reevaluate(own, self.population)
        return own

    def fit(self, rollout: Rollout) -> None:
        """Some updates of the critics, none of the policy; and the estimator's memory goes on."""
        population, own = self.population, self.rollout(rollout)
        estimate, population.memory = self.estimator(own, population.memory)
        population.update_target_moments(estimate.target)
        if estimate.target is not None:
            rows = own.num_samples
            for order in population.shuffles(rows, NUM_EPOCHS):
                for index in order.chunk(min(NUM_MINIBATCHES, rows), 1):
                    population.update(value_loss, own.rows(index, estimate))

    def advantage(self, rollout: Rollout) -> torch.Tensor:
        """(T, B), with critics and memory as they are."""
        return self.estimator(self.rollout(rollout), self.population.memory)[0].advantage


def value_loss(policy, minibatch, coefficients):
    """½E[((V−R̂)/σ)²] of one run."""
    _, value = policy(minibatch["observation"])
    return 0.5 * squared_error(value, minibatch, coefficients["value_scale"]).mean(), {}


def policy_sum(policy, minibatch, coefficients):
    """Σ Â log π(a|s) of one run: what a gradient of the cloud is the gradient of, times the number of rows."""
    distribution, _ = policy(minibatch["observation"])
    return (distribution.log_prob(minibatch["action"]) * minibatch["advantage"]).sum(), {}


class _Group:
    """Runs that are measured on one thread: environments, the population that acts, and the critics."""

    def __init__(self, env, policy, configuration, settings: Settings, estimators: Mapping[str, Any]):
        self.env, self.settings = env, settings
        if getattr(policy, "recurrent", False) or env.num_agents > 1:
            raise ValueError(
                "the cloud is of policies without memory in environments of one agent; give it another policy or "
                "environment"
            )
        self.actor = actor_parameters(policy, unpack(env.observation_space, torch.as_tensor(env.observation[:1])))
        baseline = components.find("estimator", "monte_carlo")(gamma=1.0)
        self.acting = _Critic(self, policy, configuration, baseline)
        self.critics, self.refused = {}, {}
        for label, estimator in estimators.items():
            try:
                same = estimator == baseline
                self.critics[label] = self.acting if same else _Critic(self, policy, configuration, estimator)
            except ValueError as error:
                self.refused[label] = str(error)
        population = self.acting.population
        spans = [
            np.arange(start, start + math.prod(shape))
            for start, shape in (population.shapes[name] for name in self.actor)
        ]
        self.columns = torch.from_numpy(np.concatenate(spans))
        self.nobody = torch.zeros(population.num_runs, dtype=torch.bool)

    def collect(self) -> Rollout:
        """The next rollout of the policy. Raises CloudError where it is not finite."""
        population = self.acting.population
        rollout = collect(self.env, population, self.settings.rollout_length)
        if population.failure:
            raise CloudError(f"{next(iter(population.failure.values()))}; there is no gradient then")
        for critic in {id(one): one for one in (self.acting, *self.critics.values())}.values():
            critic.population.iteration += 1  # of the streams of random numbers
        return rollout

    def fit(self) -> None:
        """One iteration of fitting every critic."""
        rollout = self.collect()
        # the acting one last: until then, the others' rollouts are of its predictions
        others = [one for one in self.critics.values() if one is not self.acting]
        for critic in (*others, self.acting):
            population = critic.population
            population.progress += 1 / self.settings.num_fits
            critic.fit(rollout)
            if population.failure:
                raise CloudError(f"{critic.estimator}: {next(iter(population.failure.values()))}")

    def gradients(self) -> dict[str, np.ndarray]:
        """label -> the gradient of one batch of each run, (R, P)."""
        rollout = self.collect()
        minibatch = {"observation": self._rows(rollout.observation[:-1]), "action": self._rows(rollout.action)}
        count = minibatch["action"].shape[1]
        return {
            label: self._gradient(minibatch | {"advantage": self._rows(critic.advantage(rollout))}) / count
            for label, critic in self.critics.items()
        }

    def true_gradient(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of all episodes that begin in a span of time: gradient of Σ Â log π (R, P), their steps, their number and the
        sum of their returns, (R,) each."""
        settings = self.settings
        span = math.ceil(settings.true_steps / (settings.num_runs * settings.num_envs * NUM_PARTS))
        kept, first, counts, begins = [], None, torch.empty(0), torch.empty(0)
        while True:
            rollout = self.collect()
            over = rollout.terminated | rollout.truncated
            kept.append([one.clone() for one in (rollout.observation[:-1], rollout.action, rollout.value[..., 0],
                                                 rollout.reward, over)])  # fmt: skip
            ended = torch.cat([one[-1] for one in kept])
            begins = torch.zeros_like(ended)
            begins[1:] = ended[:-1]  # what the first row belongs to began before
            if first is None and len(ended) >= span and bool(begins.any(0).all()):
                first = len(ended)  # every row has begun an episode; the later ones do not count
            if first is not None:
                row = torch.arange(len(ended)).unsqueeze(1)
                begin = torch.where(begins, row, 0).cummax(0).values
                counts = (begin > 0) & (begin < first)
                if not bool((counts[-1] & ~ended[-1]).any()):
                    break
            if len(ended) > span + LONGEST:
                raise CloudError(
                    f"an episode of more than {LONGEST:,} steps: without a time limit nothing bounds the undiscounted "
                    "return; give the environment one"
                )
        observation, action, value, reward, ended = (torch.cat(one) for one in zip(*kept, strict=True))
        return_to_go = reverse_scan(reward, torch.where(ended, 0.0, 1.0).to(reward.dtype))
        advantage = torch.where(counts, return_to_go - value, 0.0)
        gradient = np.zeros((len(self.env.seeds), len(self.columns)))
        for start in range(0, len(reward), settings.rollout_length):
            part = slice(start, start + settings.rollout_length)
            batch = {"observation": observation[part], "action": action[part], "advantage": advantage[part]}
            gradient += self._gradient({name: self._rows(tensor) for name, tensor in batch.items()})
        steps, number, returns = (
            self._rows(one).double().sum(1).numpy() for one in (counts, counts & begins, reward * counts)
        )
        return gradient, steps, number, returns

    def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """(T, B, ...) -> (R, T * N, ...)."""
        return tensor.unflatten(1, (len(self.env.seeds), -1)).transpose(0, 1).flatten(1, 2)

    def _gradient(self, minibatch: dict[str, torch.Tensor]) -> np.ndarray:
        """The gradient of `policy_sum` of each run with respect to the actor, (R, P); nobody takes a step."""
        population = self.acting.population
        population.update(policy_sum, minibatch, self.nobody)
        return population.gradient[:, self.columns].numpy()
