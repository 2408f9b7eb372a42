"""What the weights of the adaptive mixture could gain: `python benchmarks/mixture_weights.py [TASK ...]`.

PPO with the settings of estimators.py trains with the equal mixture. At STOPS of its iterations policy and critic are
held still, and rollouts are collected that nothing learns from. With the gradient g_c of one rollout by component c, in
all of the actor's parameters, and the true one ∇J, taken from other instances,

    b_c = E[g_c]·∇J,   M = E[g gᵀ],   G(w) = wᵀb / √(wᵀM w)

G is what a step of unit length along one rollout's mixture gains, to first order. ∇J is that of the return discounted
by the longest horizon (0.998), which nothing cuts. Printed for each task: G summed over runs and stops, in units of
that of the equal mixture, and the same with the stops of the first half and of the second alone:

    shrunk, ...    weights that each form of `adaptive_mixture` would have used here, from the rollouts before
    best pair      the single component that is best on the whole training
    best weights   those that are best on the whole training: what a slow average could gain at most
"""

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from estimators import ROWS, TASKS, make_algorithm

from ridgeline import mixture
from ridgeline.estimators.adaptive_mixture import (
    COUNT,
    FLOOR,
    GAMMAS,
    HEAD,
    PRIOR,
    TRACE,
    AdaptiveMixture,
    advantages,
    reference_error,
)
from ridgeline.gradient_cloud import actor_parameters
from ridgeline.rollout import Estimate, Rollout, collect, reverse_scan
from ridgeline.training import Training

LENGTH = 64
STOPS = 6
FORMS = ("shrunk", "nonnegative", "gated")


@dataclass
class Watched:
    """The equal mixture, and beside it what each form would have done."""

    num_values = len(GAMMAS)

    def __post_init__(self):
        self.forms = {form: AdaptiveMixture(form) for form in FORMS}
        self.memory: dict[str, dict[str, torch.Tensor]] = {form: {} for form in FORMS}

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        for form, estimator in self.forms.items():
            _, self.memory[form] = estimator(rollout, self.memory[form])
        advantage, target = advantages(rollout)
        mixed = (standardized(advantage) @ PRIOR).astype(np.float32)  # (T, R, N)
        return Estimate(torch.from_numpy(mixed).flatten(1, 2), target), memory

    def weights(self, form: str, run: int) -> np.ndarray:
        own = {name: tensor[run].numpy() for name, tensor in self.memory[form].items()}
        return self.forms[form].weights(own)[0]


def standardized(advantage: np.ndarray) -> np.ndarray:
    """(T, R, N, C), each component with mean 0 and standard deviation 1 over a run's rollout."""
    mean, std = advantage.mean((0, 2), keepdims=True), advantage.std((0, 2), keepdims=True)
    return (advantage - mean) / np.maximum(std + FLOOR * std.max(-1, keepdims=True), 1e-30)


def measure(training: Training, num_rollouts: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(b, M) of each run, from rollouts of policy and critic as they are."""
    env, population = training.shards[0].env, training.shards[0].population
    kept, runs = population.iteration.clone(), training.num_runs
    parts: list[tuple[Any, ...]] = []
    for _ in range(num_rollouts):
        population.iteration += 1  # other random numbers
        rollout = collect(env, population, LENGTH)
        ends = rollout.by_run(rollout.terminated | rollout.truncated).clone()
        error = rollout.by_run(reference_error(rollout))
        observation = rollout.by_run(rollout.observation[:-1]).clone()
        action = rollout.by_run(rollout.action).clone()
        parts.append((observation, action, standardized(advantages(rollout)[0]), error, ends))
    population.iteration.copy_(kept)
    error, ends = (torch.cat([part[k] for part in parts]).double() for k in (3, 4))
    truth = reverse_scan(error.flatten(1), float(GAMMAS[-1]) * (1 - ends).flatten(1)).view_as(error).split(LENGTH)
    # the last rollouts know too little of what follows
    whole = num_rollouts - min(num_rollouts // 4, 500 // LENGTH)
    found = []
    for run in range(runs):
        module, halves = population.policy(run), ([], [])
        for (observation, action, component, *_), reference in zip(parts[:whole], truth[:whole], strict=True):
            centred = reference - reference.mean((0, 2), keepdim=True)
            columns = np.concatenate([component, centred.unsqueeze(-1).numpy()], -1)
            for half in (0, 1):
                rows = (slice(None), run, slice(half, None, 2))
                halves[half].append(_gradients(module, observation[rows], action[rows], columns[rows]))
        first, second = np.array(halves[0]), np.array(halves[1])  # (J, C + 1, P)
        both = (first + second)[:, :COUNT] / 2
        one, two = first.mean(0), second.mean(0)
        b = (one[:COUNT] @ two[COUNT] + two[:COUNT] @ one[COUNT]) / 2
        found.append((b, np.einsum("jcp,jdp->cd", both, both) / len(both)))
    return found


def _gradients(module, observation, action, columns) -> np.ndarray:
    """∇ E[column · log π(a|s)] of every column, (columns, P)."""
    rows = observation.flatten(0, 1)
    log_prob = module.distribution(rows).log_prob(action.flatten(0, 1))
    parameters = [module.get_parameter(name) for name in actor_parameters(module, rows[:1])]
    found = []
    for k in range(columns.shape[-1]):
        weight = torch.as_tensor(columns[..., k].ravel(), dtype=log_prob.dtype) / len(log_prob)
        gradient = torch.autograd.grad(log_prob, parameters, weight, retain_graph=True)
        found.append(torch.cat([part.flatten() for part in gradient]).numpy().astype(np.float64))
    return np.array(found)


def gain(found: list[tuple[np.ndarray, np.ndarray]], weights: list[np.ndarray]) -> float:
    """G, summed over stops and runs."""
    return float(sum(w @ b / np.sqrt(max(w @ m @ w, 1e-30)) for (b, m), w in zip(found, weights, strict=True)))


def study(name: str, num_runs: int, num_rollouts: int) -> None:
    task, watched = TASKS[name], Watched()
    training = Training(
        task.environment, make_algorithm(LENGTH), watched, "mlp", num_runs=num_runs, total_steps=task.steps,
        parameters=task.parameters, num_threads=1,
    )  # fmt: skip
    count = -(-task.steps // ROWS)
    stops = np.linspace(0.1, 0.95, STOPS) * count
    found, chosen = [], {form: [] for form in FORMS}
    while not training.finished:
        training.iterate()
        if training.iteration in stops.astype(int):
            found += measure(training, num_rollouts)
            for form in FORMS:
                chosen[form] += [watched.weights(form, run) for run in range(num_runs)]
    training.close()
    scale = [1 / np.sqrt(np.trace(m)) for _, m in found]  # as the steps have one length
    b = sum(b * s for (b, _), s in zip(found, scale, strict=True))
    m = sum(m * s * s for (_, m), s in zip(found, scale, strict=True))
    single, equal = np.eye(COUNT), [PRIOR] * len(found)
    pair = max(range(COUNT), key=lambda c: gain(found, [single[c]] * len(found)))
    rows = dict(chosen)
    rows[f"best pair ({GAMMAS[HEAD[pair]]}, {TRACE[pair]})"] = [single[pair]] * len(found)
    rows["best weights"] = [mixture.nonnegative_ridge(m, b, PRIOR, 1e-3)] * len(found)
    half = len(found) // 2
    parts = (slice(None), slice(half), slice(half, None))
    for label, weights in rows.items():
        gains = [gain(found[part], weights[part]) / gain(found[part], equal[part]) for part in parts]
        print(f"{name:14s} {label:24s} " + " ".join(f"{g:6.2f}" for g in gains), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["cartpole", "pendulum", "noisy_bandit", "corridor"])
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--rollouts", type=int, default=40, help="of each run at each stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.tasks:
        if name not in TASKS:
            raise SystemExit(f"no task named {name!r}; choose from {', '.join(TASKS)}")
        study(name, options.runs, options.rollouts)


if __name__ == "__main__":
    main()
