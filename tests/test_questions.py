"""The environments that ask one question each, against what is known exactly: optimum, random play, every rule."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import ridgeline.kernel
from ridgeline.kernel import define, sample_action
from ridgeline.vector import CompiledEnv

ENVIRONMENTS = Path(ridgeline.kernel.__file__).with_name("envs")


def make(name: str, num_envs: int, **parameters) -> CompiledEnv:
    return CompiledEnv(define(ENVIRONMENTS / f"{name}.py"), num_envs, seed=0, parameters=parameters)


def first_episodes(env: CompiledEnv, choose) -> tuple[np.ndarray, np.ndarray]:
    """Return and length of the first episode of every row; `choose` maps an observation (B, O) to actions (B,)."""
    total, length = np.zeros(env.num_rows), np.zeros(env.num_rows)
    running = np.ones(env.num_rows, bool)
    while running.any():
        step = env.step(choose(env.observation).astype(env.action_space.dtype))
        total += step.reward * running
        length += running
        running &= ~(step.terminated | step.truncated)
    return total, length


def randomly(env: CompiledEnv, seed: int = 0):
    generator = np.random.default_rng(seed)
    return lambda observation: sample_action(env.action_space, generator, len(observation))


def assert_mean(sample: np.ndarray, expected: float, deviation: float | None = None) -> None:
    """Within 4 standard errors; `deviation` is one row's, measured if not known."""
    deviation = sample.std() if deviation is None else deviation
    assert abs(sample.mean() - expected) < 4 * deviation / math.sqrt(len(sample))


# --------------------------------------------------------------------------------------------------------------- memory


class Remember:
    """The optimum: keep the cue of the first step, answer when asked."""

    def __init__(self):
        self.cue = np.zeros(0)

    def __call__(self, observation):
        self.cue = np.where(observation[:, 2] == 0, observation[:, 0], self.cue if self.cue.size else 0.0)
        return np.where(observation[:, 1] == 1, self.cue > 0, observation[:, 0] < 0)


@pytest.mark.parametrize("delay", [1, 7, 64])
def test_memory_optimum(delay):
    total, length = first_episodes(make("memory", 50, delay=delay), Remember())
    assert (total == 1).all() and (length == delay + 1).all()


def test_memory_shows_the_cue_only_at_the_first_step():
    """After it, the observation is the same for both cues and whatever was done: without memory, chance is the best."""
    env, delay = make("memory", 200, delay=5), 5
    cue = env.state.cue.copy()
    assert set(cue) == {-1, 1}
    np.testing.assert_array_equal(env.observation[:, 0], cue)
    act = randomly(env)
    for elapsed in range(1, delay + 1):
        step = env.step(act(env.observation))
        np.testing.assert_array_equal(
            env.observation, np.tile(np.float32([0, elapsed == delay, elapsed / delay]), (200, 1))
        )
        assert (step.reward == 0).all()


@pytest.mark.parametrize("play", ["random", "always 1"])
def test_memory_chance(play):
    env = make("memory", 10_000, delay=2)
    total, _ = first_episodes(env, randomly(env) if play == "random" else lambda observation: np.ones(len(observation)))
    assert_mean(total, 0.0, 1.0)


# ------------------------------------------------------------------------------------------------------------- password

PI = "00100100001111110110101010001000"  # the first 32 binary digits of pi's fraction, 0x243F6A88


def enter(secret: str):
    """Types `secret`, each row at its own place."""
    bits = np.array([int(bit) for bit in secret])
    return lambda observation: bits[(observation != 0).sum(1)]


@pytest.mark.parametrize("length", [1, 12, 32])
def test_password_optimum_and_every_single_mistake(length):
    total, steps = first_episodes(make("password", 2, length=length), enter(PI))
    assert (total == 1).all() and (steps == length).all()
    for place in range(length):
        wrong = PI[:place] + "10"[int(PI[place])] + PI[place + 1 :]
        total, steps = first_episodes(make("password", 1, length=length), enter(wrong))
        assert total[0] == 0 and steps[0] == length


def test_password_shows_what_was_entered():
    env = make("password", 1)
    for count, bit in enumerate([1, 0, 0, 1], start=1):
        env.step(np.array([bit]))
        np.testing.assert_array_equal(env.observation[0, :5], [1, -1, -1, 1, 0][:count] + [0] * (5 - count))


def test_password_random_play():
    env = make("password", 20_000, length=4)
    total, _ = first_episodes(env, randomly(env))
    assert_mean(total, 1 / 16, math.sqrt(15) / 16)


# ----------------------------------------------------------------------------------------------------------- stochastic


def pushing(probability: float):
    generator = np.random.default_rng(1)
    return lambda observation: generator.random(len(observation)) < probability


@pytest.mark.parametrize(
    ("push", "pull", "probability", "expected"),
    [(9, 1, 0.75, -16.0), (9, 1, 0.5, -20.0), (9, 1, 0.9, -20.0), (4, 4, 0.5, -16.0), (0, 3, 0.0, -3.0)],
)
def test_stochastic_mean_return(push, pull, probability, expected):
    """Each door is a geometric wait: mean 1 / q and variance (1 - q) / q^2."""
    total, _ = first_episodes(make("stochastic", 10_000, push=push, pull=pull), pushing(probability))
    variance = sum(n * (1 - q) / (q * q) for n, q in ((push, probability), (pull, 1 - probability)) if n)
    assert_mean(total, expected, math.sqrt(variance) + 1e-12 if variance else 1e-9)


def test_stochastic_best_policy_is_the_documented_one():
    q = np.linspace(0.01, 0.99, 9_801)
    mean = -(9 / q + 1 / (1 - q))
    assert abs(q[mean.argmax()] - 0.75) < 1e-3 and abs(mean.max() + 16) < 1e-3


@pytest.mark.parametrize("action", [0, 1])
def test_stochastic_one_action_alone_never_gets_through(action):
    total, length = first_episodes(make("stochastic", 20), lambda observation: np.full(20, action))
    assert (total == -200).all() and (length == 200).all()


def test_stochastic_order_of_doors_is_even():
    """The single door to pull is each of the ten equally often, and nothing that is seen tells which."""
    env, place = make("stochastic", 10_000), np.zeros(10_000)
    for door in range(10):
        place[env.state.door == 0] = door
        assert (env.observation == 1).all()
        env.step(env.state.door.copy())
    assert_mean(place, 4.5, math.sqrt(99 / 12))


# -------------------------------------------------------------------------------------------------------------- squared


def straight_to_a_target(observation):
    """The optimum: steps towards the nearest target, diagonally while both coordinates differ."""
    action = []
    for square in observation[:, :49].reshape(-1, 7, 7):
        y, x = np.argwhere(square == 1)[0]
        targets = np.argwhere(square == -1)
        below, right = targets[np.abs(targets - (y, x)).max(1).argmin()] - (y, x)
        cell = 3 * (np.sign(below) + 1) + np.sign(right) + 1
        action.append(cell - (cell > 4))
    return np.array(action)


@pytest.mark.parametrize("targets", [1, 4, 24])
def test_squared_optimum(targets):
    total, length = first_episodes(make("squared", 20, targets=targets), straight_to_a_target)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    assert (length == 3 * targets).all()


def test_squared_targets_are_on_the_rim():
    square = make("squared", 12_000).observation[:, :49].reshape(-1, 7, 7)
    assert (square[:, 3, 3] == 1).all() and ((square == -1).sum((1, 2)) == 4).all()
    assert (square[:, 1:-1, 1:-1] == -1).sum() == 0
    share = (square == -1).mean(0)[np.array([[max(abs(x), abs(y)) == 3 for x in range(-3, 4)] for y in range(-3, 4)])]
    assert len(share) == 24 and np.abs(share - 1 / 6).max() < 4.5 * math.sqrt(5 / 36 / 12_000)


def test_squared_moves_and_reward():
    """All eight steps from the middle and against the rim, towards one target at the upper right corner."""
    for action, (right, up) in enumerate((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0)):
        env = make("squared", 1, targets=1)
        env.state.target_x[0, 0], env.state.target_y[0, 0] = 3, 3
        place, near = np.zeros(2), 3
        for _ in range(3):
            place = np.clip(place + (right, up), -3, 3)
            now = np.abs(3 - place).max()
            step = env.step(np.array([action]))
            assert abs(step.reward[0] - (near - now) / 3) < 1e-12
            near = now
            if not step.terminated[0]:
                assert (env.state.x[0], env.state.y[0]) == tuple(place)
        assert step.terminated[0]


def test_squared_random_play():
    """One target: all 8^3 walks and 24 places. Four targets: the docstring's figure."""
    rim = [(x, y) for x in range(-3, 4) for y in range(-3, 4) if max(abs(x), abs(y)) == 3]
    moves = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)])
    ends = np.array([moves[list(walk)].sum(0) for walk in product(range(8), repeat=3)])
    distance = np.abs(ends[:, None] - np.array(rim)[None]).max(-1)
    expected = 1 - distance.mean() / 3
    assert abs(expected - -0.125) < 1e-12
    for targets, value in ((1, expected), (4, 0.144349)):
        env = make("squared", 10_000, targets=targets)
        total, _ = first_episodes(env, randomly(env))
        assert_mean(total, value)


# ---------------------------------------------------------------------------------------------------- continuous target


@pytest.mark.parametrize(("width", "expected"), [(0.5, 11 / 48), (2.0, 2 / 3)])
def test_continuous_target_optimum_and_random_play(width, expected):
    env = make("continuous_target", 20_000, width=width)
    total, length = first_episodes(env, lambda observation: observation)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)  # the target is shown in single precision
    assert (length == 1).all()
    total, _ = first_episodes(env, randomly(env))
    assert_mean(total, expected)


def test_continuous_target_constant_and_clipped_actions():
    env = make("continuous_target", 20_000)
    target = env.state.target.copy()
    step = env.step(np.full((20_000, 1), 7.0, np.float32))
    np.testing.assert_allclose(step.reward, np.maximum(1 - (1 - target) / 0.5, 0), atol=1e-12)
    total, _ = first_episodes(env, lambda observation: 0 * observation)
    assert_mean(total, 0.25)
