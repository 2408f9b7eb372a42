"""Every figure of benchmarks/results.md: `python benchmarks/run.py [NAME ...]`, names below; none means all.

Run it on an idle machine. Figures are the best or the median of several tries, as each line says; where two things are
compared they are measured in turn in one process.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time

import torch

import ridgeline
from ridgeline import bench, components
from ridgeline.algorithms.ppo import PPO
from ridgeline.kernel import define
from ridgeline.optimizers import OPTIMIZERS, orthogonalize
from ridgeline.policies import MLP
from ridgeline.population import PHASES
from ridgeline.registration import FOLDER
from ridgeline.training import Training, with_torch_threads

ESTIMATORS = (
    ("gae", {}), ("monte_carlo", {}), ("n_step", {"num_steps": 5}), ("n_step", {"num_steps": 64}), ("v_trace", {}),
    ("puffer_advantage", {}), ("average_reward", {}), ("harmonic_trace", {}), ("fixed_horizon", {}), ("block", {}),
    ("block", {"puf": 0.5}), ("dae", {}), ("static_mixture", {}), ("adaptive_mixture", {}),
    ("adaptive_mixture", {"form": "gated"}),
)  # fmt: skip
CARTPOLE_FAST = [
    "--num-envs", "64", "--rollout-length", "32", "--num-epochs", "6", "--num-minibatches", "4",
    "--learning-rate", "1e-2", "--entropy-coef", "0",
]  # fmt: skip


def environments() -> None:
    """Steps per second on one core, 4096 rows, random actions, observation writing and autoreset included."""
    others = [("breakout", {"frames_per_action": 1}), ("pong", {"frames_per_action": 1}),
              ("snake", {"num_snakes": 256, "size": 128, "num_food": 512})]  # fmt: skip
    for name, parameters in [*((name, {}) for name in ridgeline.names()), *others]:
        agents = parameters.get("num_snakes", define(FOLDER / f"{name}.py", compile=False).num_agents)
        result = bench.environment(name, max(1, 4096 // agents), 3.0, parameters)
        print(f"  {name} {parameters or ''}: {result['steps_per_second'] / 1e6:.1f} M steps/s", flush=True)


def breakout() -> None:
    """Training steps per second, breakout, 4 frames, one hidden layer of 128, one epoch, and the arithmetic limit."""
    for num_runs, num_envs in ((1, 4096), (2, 1024), (4, 512)):
        result = bench.train(
            "breakout",
            20.0,
            algorithm=PPO(num_envs=num_envs, rollout_length=64, num_epochs=1, num_minibatches=8),
            policy=MLP((128,), "relu", shared_trunk=True),
            num_runs=num_runs,
        )
        _training(f"{num_runs} runs of {num_envs} instances", result)


def cartpole() -> None:
    """Training steps per second, PPO on cartpole, two separate 2x64 tanh networks, 4 epochs of 4 minibatches."""
    for num_runs in (1, 16, 64):
        result = bench.train("cartpole", 20.0, algorithm=PPO(num_envs=16, rollout_length=128), num_runs=num_runs)
        _training(f"{num_runs} runs of 16 instances", result)


def _training(what: str, result: dict) -> None:
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result["shares"].items())
    print(
        f"  {what}: {result['steps_per_second'] / 1e6:.3f} M steps/s, "
        f"{result['fraction']:.0%} of the limit {result['arithmetic_limit'] / 1e6:.2f} M ({shares})"
    )


def solve() -> None:
    """CartPole to a mean return of 475 over 100 episodes, one run, from process start, 10 seeds."""
    seconds, steps = [], []
    for seed in range(10):
        start = time.perf_counter()
        result = _ridgeline("train", "cartpole", "--steps", "1000000", "--until", "475", "--seed", str(seed),
                            "--no-anneal-learning-rate", *CARTPOLE_FAST)  # fmt: skip
        seconds.append(time.perf_counter() - start)
        steps.append(result["total_steps"])
        print(f"  seed {seed}: {seconds[-1]:.2f} s, {steps[-1]} steps, {result['stopped']}", flush=True)
    print(
        f"  median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s, "
        f"median {statistics.median(steps)} steps"
    )


def population() -> None:
    """64 CartPole runs side by side against the same 64 one after another, in one process."""
    settings = {"algorithm": PPO(num_envs=8, rollout_length=32), "total_steps": 10_240}
    ridgeline.train("cartpole", **settings, num_runs=64)
    start = time.perf_counter()
    ridgeline.train("cartpole", **settings, num_runs=64)
    together = time.perf_counter() - start
    start = time.perf_counter()
    for seed in range(64):
        ridgeline.train("cartpole", **settings, seed=seed)
    alone = time.perf_counter() - start
    print(
        f"  together {together:.1f} s, one after another {alone:.1f} s: {alone / together:.1f} times as many per minute"
    )


def estimators() -> None:
    """The estimator's share of an iteration of `breakout` above, one run, one thread: median of five."""
    algorithm = PPO(num_envs=4096, rollout_length=64, num_epochs=1, num_minibatches=8)
    for name, settings in ESTIMATORS:
        estimator = components.find("estimator", name)(**settings)
        training = Training("breakout", algorithm, estimator, MLP((128,), "relu", shared_trunk=True), num_threads=1)
        shares = []
        for iteration in range(7):
            metrics = training.iterate()
            if iteration > 1:
                total = sum(metrics[f"seconds_{phase}"] for phase in PHASES)
                shares.append(metrics["seconds_estimate"] / total)
        training.close()
        print(f"  {name} {settings or ''}: {statistics.median(shares):.1%}", flush=True)


def optimizers() -> None:
    """One update by Muon against one by Adam, in turn in one process, CPU time; two separate 2x64 networks."""
    for num_runs in (1, 8, 64):
        training = {
            name: Training("cartpole", PPO(optimizer=name), num_runs=num_runs, num_threads=1) for name in OPTIMIZERS
        }
        update, iteration = {name: math.inf for name in training}, {name: math.inf for name in training}
        for _ in range(6):
            for name, one in training.items():
                start = time.process_time()
                one.iterate()
                iteration[name] = min(iteration[name], time.process_time() - start)
                population = one.shards[0].population
                for _ in range(5):
                    start = time.process_time()
                    population._step(~population.frozen)
                    update[name] = min(update[name], (time.process_time() - start) / num_runs)
        matrices = torch.randn(num_runs, 64, 64)
        bmm = kernel = math.inf
        for _ in range(10):
            start = time.process_time()
            with with_torch_threads(1):
                _newton_schulz(matrices)
            middle = time.process_time()
            for matrix in matrices.numpy():
                orthogonalize(matrix)
            bmm, kernel = min(bmm, middle - start), min(kernel, time.process_time() - middle)
        ratio = iteration["muon"] / iteration["adam"]
        print(
            f"  {num_runs} runs: Adam {update['adam'] * 1e6:.0f} us, Muon {update['muon'] * 1e6:.0f} us per run and "
            f"update; an iteration with Muon takes {ratio:.2f} times as long\n"
            f"    orthogonalising a 64x64 matrix of each run {kernel * 1e6:.0f} us, by torch.bmm {bmm * 1e6:.0f} us"
        )


def _newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """What Muon's kernel does, by the matrix library, for matrices (R, rows, columns)."""
    x = x / torch.linalg.matrix_norm(x, keepdim=True)
    for _ in range(5):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


def startup() -> None:
    """Seconds of `ridgeline train cartpole --steps 1`, warm cache: median of 5."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        _ridgeline("train", "cartpole", "--steps", "1")
        times.append(time.perf_counter() - start)
    print(f"  median {statistics.median(times[1:]):.2f} s, worst {max(times[1:]):.2f} s")


def _ridgeline(*arguments: str) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "ridgeline", *arguments, "--out", f"{directory}/run", "--json", "--quiet"]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


BENCHMARKS = {
    f.__name__: f for f in (environments, breakout, cartpole, solve, population, estimators, optimizers, startup)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    print(bench.machine())
    for name in names:
        print(f"{name}: {BENCHMARKS[name].__doc__}", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
