"""The environments that ask about credit, against what is known exactly: optimum, random play, every transition."""

import math
from pathlib import Path

import numpy as np
import pytest

import ridgeline.kernel
from ridgeline.kernel import define
from ridgeline.vector import CompiledEnv

ENVIRONMENTS = Path(ridgeline.kernel.__file__).with_name("envs")
MATCH = 0.1  # what matching a cue pays
PAYMENT = 5.0


def make(name: str, num_envs: int, **parameters) -> CompiledEnv:
    return CompiledEnv(define(ENVIRONMENTS / f"{name}.py"), num_envs, seed=0, parameters=parameters)


def play(env: CompiledEnv, num_steps: int, choose) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and ends of `num_steps` steps, (T, B) each; `choose` maps an observation (B, O) to actions (B,)."""
    reward, ends = [], []
    for _ in range(num_steps):
        step = env.step(choose(env.observation).astype(np.int64))
        reward.append(step.reward.copy())
        ends.append(step.terminated | step.truncated)
    return np.array(reward), np.array(ends)


def coin(seed: int):
    generator = np.random.default_rng(seed)
    return lambda observation: generator.integers(0, 2, len(observation))


# -------------------------------------------------------------------------------------------------------------- delayed


def best_in_delayed(observation):
    return np.where(observation[:, 0] == 1, 1, observation[:, 1] == 1)


@pytest.mark.parametrize("delay", [1, 2, 16, 64, 256, 1024])
def test_delayed_pays_exactly_so_many_steps_later(delay):
    """Without noise and distractions the payment stands alone: `delay` steps after the first action, and there it
    ends."""
    env = make("delayed", 2, delay=delay, noise=0.0, distraction=0.0)
    first = np.array([1, 0])
    reward, ends = play(env, delay + 1, lambda observation: np.where(observation[:, 0] == 1, first, 1))
    expected = np.zeros((delay + 1, 2))
    expected[delay, 0] = PAYMENT
    np.testing.assert_array_equal(reward, expected)
    assert ends[-1].all() and not ends[:-1].any()
    np.testing.assert_array_equal(env.observation, [[1] + [0] * 10] * 2)


def test_delayed_beyond_its_range_is_cut_without_payment():
    reward, ends = play(make("delayed", 1, delay=1025, noise=0.0), 1025, best_in_delayed)
    assert ends[-1].all() and reward[-1, 0] == MATCH


def test_delayed_optimum_and_random_play():
    """payment + delay * distraction, and half of it; the variance is that of its parts."""
    delay = 16
    reward, _ = play(make("delayed", 4, delay=delay, noise=0.0), delay + 1, best_in_delayed)
    np.testing.assert_allclose(reward.sum(0), PAYMENT + delay * MATCH, rtol=1e-12)
    reward, _ = play(make("delayed", 20_000, delay=delay, noise=0.3), delay + 1, coin(0))
    total = reward.sum(0)
    expected = delay * (0.3**2 + MATCH**2 / 4) + PAYMENT**2 / 4
    assert abs(total.var() - expected) < 0.03 * expected
    assert abs(total.mean() - (PAYMENT + delay * MATCH) / 2) < 4 * math.sqrt(expected / len(total))
    assert (reward[0] == 0).all()


def test_delayed_noise_knows_nothing():
    """Reward minus the distraction: the same for both first actions, for both answers and both cues."""
    env = make("delayed", 40_000, delay=2, noise=0.3)
    first = coin(1)(env.observation)
    env.step(first)
    cue, answer = env.observation[:, 1].copy(), coin(2)(env.observation)
    noise = env.step(answer).reward - MATCH * ((answer == 1) == (cue == 1))
    assert abs(noise.std() - 0.3) < 0.005 and np.abs(noise).max() <= 0.3 * math.sqrt(3)
    for group in (first == 1, answer == 1, cue == 1):
        assert 0.48 < group.mean() < 0.52
        difference = noise[group].mean() - noise[~group].mean()
        assert abs(difference) < 4 * 0.3 * 2 / math.sqrt(len(noise))


@pytest.mark.parametrize("delay", [1, 4, 16, 20])
def test_delayed_shows_the_promise_in_its_place_or_hides_it(delay):
    """Step i of the way, 1 .. delay, lies in the eighth 8 (i - 1) / delay, rounded down."""
    for visible in (1, 0):
        env = make("delayed", 2, delay=delay, visible=visible)
        np.testing.assert_array_equal(env.observation, [[1] + [0] * 10] * 2)
        step = env.step(np.array([0, 1]))
        for elapsed in range(1, delay + 1):
            expected = np.zeros((2, 8))
            expected[:, math.floor(8 * (elapsed - 1) / delay)] = [-visible, visible]
            np.testing.assert_array_equal(env.observation[:, 3:], expected)
            np.testing.assert_array_equal(env.observation[:, 0], [0, 0])
            np.testing.assert_allclose(env.observation[:, 2], elapsed / delay, rtol=1e-6)
            assert (np.abs(env.observation[:, 1]) == 1).all()
            step = env.step(np.array([0, 0]))
        np.testing.assert_array_equal(step.episode[:, 2], [0, 1])  # promised


# ---------------------------------------------------------------------------------------------------------- key to door


def best_in_key_to_door(observation):
    return np.where(observation[:, 0] == 1, 0, np.where(observation[:, 2] == 1, 1, observation[:, 4] == 1))


@pytest.mark.parametrize(("search", "opens", "paid"), [(0, 1, True), (1, 1, False), (0, 0, False)])
def test_key_to_door_pays_for_the_key_at_the_door(search, opens, paid):
    """Left for the key, right for none; opening or not; the payment is the last reward and the only one."""
    delay = 5
    env = make("key_to_door", 3, delay=delay, noise=0.0, distraction=0.0)
    reward, ends = play(env, 14, lambda observation: np.where(observation[:, 0] == 1, search, opens))
    assert (reward[:-1] == 0).all() and (reward[-1] == PAYMENT * paid).all()
    assert ends[-1].all() and not ends[:-1].any()


def test_key_to_door_optimum_and_random_play():
    delay = 16
    reward, _ = play(make("key_to_door", 4, delay=delay, noise=0.0), delay + 9, best_in_key_to_door)
    np.testing.assert_allclose(reward.sum(0), PAYMENT + delay * MATCH, rtol=1e-12)
    assert (reward[:8] == 0).all()
    reward, _ = play(make("key_to_door", 20_000, delay=delay), delay + 9, coin(0))
    total = reward.sum(0)
    probability = sum(1 for code in range(256) if _meets_the_key(code)) / 256
    assert probability == 37 / 128
    expected = probability * PAYMENT / 2 + delay * MATCH / 2
    assert abs(total.mean() - expected) < 4 * total.std() / math.sqrt(len(total))


def _meets_the_key(code: int) -> bool:
    """Whether the walk of 8 steps whose directions are the bits of `code` comes to place 0 from place 3."""
    place = 3
    for bit in range(8):
        place = min(place + (1 if code >> bit & 1 else -1), 6)
        if place == 0:
            return True
    return False


def test_key_to_door_shows_the_key_in_its_place_or_hides_it():
    delay = 12
    for visible in (1, 0):
        env = make("key_to_door", 2, delay=delay, visible=visible)
        shown = []
        for _ in range(delay + 9):
            shown.append(env.observation.copy())
            step = env.step(np.where(env.observation[:, 0] == 1, [0, 1], 0))
        shown = np.array(shown)
        expected = np.zeros((delay + 9, 10))
        expected[:3, 0], expected[3:8, 0] = -1, 1
        expected[8 + np.arange(delay), 1 + np.floor(8 * np.arange(delay) / delay).astype(int)] = 1
        expected[-1, -1] = 1
        np.testing.assert_array_equal(shown[:, 0, 6:], visible * expected)
        np.testing.assert_array_equal(shown[:, 1, 6:], -visible * np.abs(expected))
        np.testing.assert_array_equal(shown[:, 0, :3].argmax(1), [0] * 8 + [1] * delay + [2])
        assert (shown[..., :3].sum(-1) == 1).all()
        np.testing.assert_allclose(shown[:5, 0, 3], [0, -1 / 3, -2 / 3, -1, -1], rtol=1e-6)
        np.testing.assert_array_equal(np.abs(shown[..., 4]), shown[..., 1])
        np.testing.assert_array_equal(step.episode[:, 2], [1, 0])  # key


# --------------------------------------------------------------------------------------------------------- noisy bandit


def test_noisy_bandit_optimum_and_random_play():
    env = make("noisy_bandit", 50, noise=0.0)
    reward, ends = play(env, 200, lambda observation: observation.argmax(1))
    assert (reward == 1).all() and ends[-1].all() and not ends[:-1].any()
    generator = np.random.default_rng(0)
    reward, _ = play(make("noisy_bandit", 500), 200, lambda observation: generator.integers(0, 4, len(observation)))
    assert abs(reward.mean() - 0.25) < 4 * 2.05 / math.sqrt(reward.size)
    assert abs(reward.var() - (4 + 0.1875)) < 4 * math.sqrt(2 / reward.size) * 4.1875


def test_noisy_bandit_action_changes_nothing_to_come():
    one, other = make("noisy_bandit", 8), make("noisy_bandit", 8)
    for _ in range(30):
        best = one.observation.argmax(1)
        difference = one.step(best).reward - other.step((best + 1) % 4).reward
        np.testing.assert_allclose(difference, 1.0, rtol=1e-12)
        np.testing.assert_array_equal(one.observation, other.observation)


# ------------------------------------------------------------------------------------------------------------- corridor


@pytest.mark.parametrize("length", [1, 20, 400])
def test_corridor_optimum(length):
    reward, ends = play(make("corridor", 2, length=length), length, lambda observation: np.ones(2))
    assert (reward == -1).all() and ends[-1].all() and not ends[:-1].any()


def test_corridor_left_meets_the_limit():
    env = make("corridor", 1)
    for t in range(400):
        step = env.step(np.zeros(1, np.int64))
        assert not step.terminated[0] and step.truncated[0] == (t == 399)
        assert step.observation[0, 0] == -1


def test_corridor_random_play():
    """The walk's distribution over places, step by step: 286.2 steps on average, 61% arrive."""
    place, steps = np.eye(21)[0], 0.0
    for _ in range(400):
        steps += place[:20].sum()
        following = np.zeros(21)
        following[1:] += place[:20] / 2
        following[:19] += place[1:20] / 2
        following[0] += place[0] / 2
        following[20] += place[20]
        place = following
    env, generator = make("corridor", 4000), np.random.default_rng(0)
    length, arrived, running = np.zeros(4000), 0, np.ones(4000, bool)
    while running.any():
        step = env.step(generator.integers(0, 2, 4000))
        length += running
        arrived += (step.terminated & running).sum()
        running &= ~(step.terminated | step.truncated)
    assert round(steps, 1) == 286.2
    assert abs(length.mean() - steps) < 4 * length.std() / math.sqrt(4000)
    assert abs(arrived / 4000 - place[20]) < 4 * 0.5 / math.sqrt(4000)
