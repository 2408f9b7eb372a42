"""Speed: of an environment on one core, and of a training against the arithmetic that it cannot avoid."""

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from ridgeline.environments import make
from ridgeline.kernel import sample_action
from ridgeline.policies import MLPPolicy
from ridgeline.training import Training, with_torch_threads


def environment(
    name: str, num_envs: int = 4096, seconds: float = 2.0, parameters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Steps per second of all instances on one thread: observation writing and autoreset included. Of several agents,
    the step of each counts.

    Actions are uniformly random, drawn beforehand. The figure is the best of five equal parts of `seconds`: others on
    the machine can only slow it down.
    """
    env = make(name, num_envs, 0, parameters=parameters)
    actions = [sample_action(env.action_space, np.random.default_rng(i), env.num_rows) for i in range(16)]
    for action in actions:  # compile, and warm the caches
        env.step(action)
    best = 0.0
    for _ in range(5):
        steps, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds / 5:
            for action in actions:
                env.step(action)
            steps += len(actions) * env.num_rows
        best = max(best, steps / elapsed)
    env.close()
    return {
        "environment": name,
        "num_envs": num_envs,
        "steps_per_second": best,
        "observation_bytes": env.observation[0].nbytes,
        "machine": machine(),
    }


def train(environment: str, seconds: float = 10.0, **settings: Any) -> dict[str, Any]:
    """Training steps per second of all runs together, and the fraction of the arithmetic limit that they reach.

    The limit is the same training with everything left out but the matrix products of its network: forward for acting;
    forward, weight gradients and input gradients for each epoch; the same shapes, on the same threads, in this process,
    measured in turn with the training (others on the machine slow both).
    """
    training = Training(environment, total_steps=2**40, **settings)
    try:
        training.iterate()
        training.iterate()
        steps, spent, limit_steps, limit_spent = 0, 0.0, 0, 0.0
        phases: dict[str, float] = {}
        while spent + limit_spent < seconds or not limit_steps:
            start = time.perf_counter()
            metrics = training.iterate()
            spent += time.perf_counter() - start
            steps += training.steps_per_iteration * training.num_runs
            for key, value in metrics.items():
                if key.startswith("seconds_"):
                    phases[key[8:]] = phases.get(key[8:], 0.0) + value
            start = time.perf_counter()
            _products_of_all_shards(training)
            limit_spent += time.perf_counter() - start
            limit_steps += training.steps_per_iteration * training.num_runs
        rate, limit = steps / spent, limit_steps / limit_spent
        return {
            "environment": environment,
            "num_runs": training.num_runs,
            "steps_per_second": rate,
            "arithmetic_limit": limit,
            "fraction": rate / limit,
            "shares": {name: value / spent for name, value in phases.items()},
            "algorithm": repr(training.algorithm),
            "policy": repr(training.policy),
            "machine": machine(),
        }
    finally:
        training.close()


def machine() -> str:
    """Processor, cores and versions, in one line."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        processor = models[0] if models else processor
    return (
        f"{processor}, {os.cpu_count()} cores, {platform.system()}, torch {torch.__version__}, NumPy {np.__version__}"
    )


def _products_of_all_shards(training: Training) -> None:
    shards = training.shards
    if len(shards) == 1:
        with with_torch_threads(training.torch_threads):
            _products(training, shards[0].population)
        return
    with ThreadPoolExecutor(len(shards), initializer=lambda: torch.set_num_threads(1)) as pool:
        list(pool.map(lambda shard: _products(training, shard.population), shards))


@torch.no_grad()
def _products(training: Training, population) -> None:
    """The matrix products of one iteration of one shard, into storage that is reused."""
    module, algorithm = population.module, training.algorithm
    if not isinstance(module, MLPPolicy):
        raise ValueError(f"the arithmetic limit is known for the MLP policy, not for {type(module).__name__}")
    runs, num_envs = population.num_runs, algorithm.num_envs
    rows = num_envs * algorithm.rollout_length // getattr(algorithm, "num_minibatches", 1)
    updates = getattr(algorithm, "num_epochs", 1) * getattr(algorithm, "num_minibatches", 1)
    layers = _layers(module)
    acting = [
        (torch.ones(runs, num_envs, i), torch.ones(runs, i, o), torch.empty(runs, num_envs, o)) for i, o, _ in layers
    ]
    learning = [
        (
            torch.ones(runs, rows, i),
            torch.ones(runs, i, o),
            torch.empty(runs, rows, o),
            torch.empty(runs, i, o),
            None if first else torch.empty(runs, rows, i),
        )
        for i, o, first in layers
    ]
    for _ in range(algorithm.rollout_length):
        for x, weight, y in acting:
            torch.bmm(x, weight, out=y)
    for _ in range(updates):
        for x, weight, y, weight_gradient, input_gradient in learning:
            torch.bmm(x, weight, out=y)
            torch.bmm(x.transpose(1, 2), y, out=weight_gradient)
            if input_gradient is not None:
                torch.bmm(y, weight.transpose(1, 2), out=input_gradient)


def _layers(module: MLPPolicy) -> list[tuple[int, int, bool]]:
    """(inputs, outputs, whether it reads the observation) of every dense layer."""
    return [
        (layer.in_features, layer.out_features, name.endswith(".0") or not len(module.actor))
        for name, layer in module.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
