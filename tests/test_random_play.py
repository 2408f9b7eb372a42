"""Random play: what is allowed, and first episodes."""

import numpy as np
import pytest

import ridgeline
from ridgeline.observations import unpack
from ridgeline.random_play import first_episodes, random_action
from ridgeline.sweep.command import first_score


def test_first_episodes_are_those_that_end_first():
    """Against a list of each row's rewards; a row whose episode does not end has none."""
    env, twin = (ridgeline.make("cartpole", 20, seed=3) for _ in range(2))
    found = first_episodes(env, 15, np.random.default_rng(0))
    generator, rewards, first = np.random.default_rng(0), [[] for _ in range(20)], np.full((20, 2), np.nan)
    for _ in range(15):
        step = twin.step(random_action(twin, generator))
        for row in range(20):
            rewards[row].append(step.reward[row])
            if (step.terminated | step.truncated)[row] and np.isnan(first[row, 0]):
                first[row] = sum(rewards[row]), len(rewards[row])
    np.testing.assert_array_equal(found, first)
    assert 0 < np.isnan(found[:, 0]).sum() < 20


def test_masked_actions_are_never_taken():
    """A column of connect_four that is full is not chosen: such a move would lose."""
    env, generator = ridgeline.make("connect_four", 50, seed=0), np.random.default_rng(0)
    for _ in range(60):
        mask = unpack(env.observation_space, env.observation)["action_mask"]
        action = random_action(env, generator)
        assert mask[np.arange(env.num_rows), action][mask.any(1)].all()
        env.step(action)


@pytest.mark.parametrize(("environment", "least", "most"), [("acrobot", 500, 500), ("cartpole", 12, 30)])
def test_the_shortest_run_of_a_sweep_has_a_score(environment, least, most):
    """Random play leaves acrobot to its limit of 500 steps, and drops cartpole's pole after some 20."""
    assert 8 * least <= first_score(environment, {}, 8) <= 8 * most
