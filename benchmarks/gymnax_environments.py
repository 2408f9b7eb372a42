"""The games that gymnax has too, both on one core in one run: `python benchmarks/gymnax_environments.py PYTHON`.

PYTHON is one that imports gymnax and six (`python -m venv peers; peers/bin/pip install gymnax six`); gymnax runs there,
in a process of its own, in turn with ours on the same core. Both: random actions, autoreset, observations written, so
many instances in one call. gymnax: 100 steps of all instances in one compiled `lax.scan`, drawing its actions and
random numbers inside as its users do. Best of five parts each. Its MinAtar games take the minimal set of actions, ours
all six; its numbers are float32, ours as in the original packages.
"""

import os
import subprocess
import sys

GAMES = {
    "cartpole": "CartPole-v1", "acrobot": "Acrobot-v1", "pendulum": "Pendulum-v1", "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0", "minatar_asterix": "Asterix-MinAtar",
    "minatar_breakout": "Breakout-MinAtar", "minatar_freeway": "Freeway-MinAtar",
    "minatar_seaquest": "Seaquest-MinAtar", "minatar_space_invaders": "SpaceInvaders-MinAtar",
}  # fmt: skip
GYMNAX = """
import json, sys, time
import gymnax, jax
num_envs, length = int(sys.argv[2]), 100
env, params = gymnax.make(sys.argv[1])
space = env.action_space(params)

def step(carry, key):
    observation, state = carry
    draw, move = jax.random.split(key)
    action = jax.vmap(space.sample)(jax.random.split(draw, num_envs))
    observation, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
        jax.random.split(move, num_envs), state, action, params)
    return (observation, state), reward.sum()

play = jax.jit(lambda carry, key: jax.lax.scan(step, carry, jax.random.split(key, length)))
carry = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), num_envs), params)
best = 0.0
for part in range(6):  # the first one compiles
    begin, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - begin < 0.6:
        carry, reward = jax.block_until_ready(play(carry, jax.random.key(part)))
        steps += length * num_envs
    if part:
        best = max(best, steps / (time.perf_counter() - begin))
print(json.dumps(best))
"""
OURS = "import json, sys; from ridgeline import bench; print(json.dumps(bench.environment(sys.argv[1], int(sys.argv[2]))['steps_per_second']))"  # noqa: E501


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings = os.environ | {
        "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }  # fmt: skip

    def steps_per_second(python: str, code: str, name: str, num_envs: int) -> float:
        found = subprocess.run(
            [python, "-c", code, name, str(num_envs)], env=settings, capture_output=True, text=True, check=True
        )
        return float(found.stdout.splitlines()[-1])

    print("| environment | gymnax, M steps/s (instances) | ours | ratio |\n|---|---|---|---|")
    for ours, theirs in GAMES.items():
        rates = {count: steps_per_second(sys.argv[1], GYMNAX, theirs, count) for count in (256, 4096)}
        count, peer = max(rates.items(), key=lambda pair: pair[1])
        own = steps_per_second(sys.executable, OURS, ours, 4096)
        print(f"| {ours} | {peer / 1e6:.2f} ({count}) | {own / 1e6:.1f} | {own / peer:.1f} |", flush=True)


if __name__ == "__main__":
    main()
