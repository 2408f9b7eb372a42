"""REINFORCE and its estimator: baselines, whole returns, what the sum over a batch is divided by."""

import dataclasses
import math

import pytest
import torch
from test_estimators import NAN, PATTERNS, pattern, rollout

from ridgeline.algorithms.reinforce import REINFORCE, steps_per_episode
from ridgeline.estimators.monte_carlo import MonteCarlo, reward_to_go, whole_return
from ridgeline.training import Training

# ------------------------------------------------------------------------------------------------------ whole returns


@pytest.mark.parametrize(("steps", "columns", "chance"), PATTERNS)
def test_whole_return(steps, columns, chance):
    """Walk through each column; whenever an episode begins, remember what it will bring."""
    reward, _, next_value, terminated, truncated = pattern(steps, columns, chance)
    to_go = reward_to_go(reward, next_value, terminated, truncated, 0.97)
    found = whole_return(to_go, terminated, truncated)
    for b in range(columns):
        begins, expected = True, to_go[0, b]
        for t in range(steps):
            expected = to_go[t, b] if begins else expected
            assert found[t, b] == expected
            begins = bool(terminated[t, b] | truncated[t, b])


def episodes(num_runs=1):
    """Rewards 1, 2, 3, 4 in two columns: a termination and a cut; an episode of one step and a truncation."""
    reward = torch.arange(1.0, 5.0).unsqueeze(1).repeat(1, 2)
    terminated = torch.tensor([[0, 1], [1, 0], [0, 0], [0, 0]]).bool()
    truncated = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1]]).bool()
    none = torch.full((4, 2), NAN)
    return rollout(reward, none, none, terminated, truncated, num_runs)


def test_without_reward_to_go_every_step_is_credited_with_its_episode():
    estimate, _ = MonteCarlo(gamma=0.5, reward_to_go=False, baseline="none")(episodes(), {})
    assert estimate.target is None
    assert estimate.advantage.T.tolist() == [[2, 2, 5, 5], [1, 4.5, 4.5, 4.5]]


def test_a_learned_baseline_learns_the_reward_to_go():
    """Whatever the steps are credited with: the critic's target is what follows its state."""
    batch = episodes()
    batch.value, batch.next_value = torch.ones(4, 2, 1), torch.full((4, 2, 1), 8.0)
    estimate, memory = MonteCarlo(gamma=0.5, reward_to_go=False)(batch, {})
    assert estimate.target is not None and memory == {}
    assert estimate.target[..., 0].T.tolist() == [[2, 2, 7, 8], [1, 5.5, 7, 8]]
    assert estimate.advantage.T.tolist() == [[1, 1, 6, 6], [0, 4.5, 4.5, 4.5]]


# ---------------------------------------------------------------------------------------------------------- baselines


def test_a_constant_baseline():
    plain, memory = MonteCarlo(gamma=0.5, baseline="none")(episodes(), {})
    constant, same = MonteCarlo(gamma=0.5, baseline="constant", constant_baseline=3.0)(episodes(), {})
    assert torch.equal(constant.advantage, plain.advantage - 3)
    assert constant.target is None and memory.keys() == same.keys()


@pytest.mark.parametrize("to_go", [True, False])
def test_the_moving_average_is_that_of_earlier_rollouts(to_go):
    """Each run's own, of what steps are credited with; 0 in the first rollout."""
    estimator = MonteCarlo(gamma=0.5, reward_to_go=to_go, baseline="moving_average")
    plain = dataclasses.replace(estimator, baseline="none")
    memory: dict = {}
    seen: list = []
    for k in range(30):
        batch = episodes(num_runs=2)
        batch.reward = batch.reward * (1 + k % 3) + torch.tensor([0.0, float(k)])
        credited = plain(batch, memory)[0].advantage
        estimate, memory = estimator(batch, memory)
        expected = torch.zeros(2) if not seen else torch.stack(seen).float().mean(0)
        if k < 20:  # by then the newest rollout would weigh less than 5%
            assert torch.allclose(credited - estimate.advantage, expected.expand(4, 2), atol=1e-4)
        seen.append(credited.double().mean(0))
    assert all(tensor.shape == (2,) for tensor in memory.values())


def test_its_own_rewards_are_not_in_the_baseline():
    """What a rollout brought changes the baseline of the next one, never its own."""
    estimator = MonteCarlo(gamma=0.5, baseline="moving_average")
    _, memory = estimator(episodes(), {})
    baselines = []
    for factor in (1.0, 100.0):
        batch = episodes()
        batch.reward = batch.reward * factor
        own, _ = estimator(batch, memory)
        plain, after = dataclasses.replace(estimator, baseline="none")(batch, memory)
        baselines.append((plain.advantage - own.advantage)[0, 0])
        assert after["credit"] != memory["credit"]
    assert baselines[0] == pytest.approx(float(baselines[1]), rel=1e-4) and baselines[0] > 0


def test_runs_are_kept_apart():
    """R = 2 is twice R = 1, bit for bit; a rollout that is not finite leaves the memory as it was."""
    estimator = MonteCarlo(gamma=0.9, reward_to_go=False, baseline="moving_average")
    memory: dict = {}
    alone: list[dict] = [{}, {}]
    for k in range(3):
        batch = episodes(num_runs=2)
        batch.reward[k % 2] += torch.tensor([0.1, math.inf if k == 1 else 7.0])
        together, memory = estimator(batch, memory)
        for run in range(2):
            names = "reward", "value", "next_value", "terminated", "truncated"
            own = {name: getattr(batch, name)[:, run : run + 1] for name in names}
            own |= {name: own[name][..., 0] for name in ("value", "next_value")}
            single, alone[run] = estimator(rollout(**own), alone[run])
            assert torch.equal(single.advantage, together.advantage[:, run : run + 1])
            assert all(torch.equal(alone[run][name], memory[name][run : run + 1]) for name in memory)
    assert memory["num_rollouts"].tolist() == [3, 2] and memory["credit"].isfinite().all()


def test_a_constant_of_each_run():
    stacked = MonteCarlo(gamma=0.5, baseline="constant")
    object.__setattr__(stacked, "constant_baseline", torch.tensor([1.0, 3.0], dtype=torch.float64))
    plain, _ = MonteCarlo(gamma=0.5, baseline="none")(episodes(2), {})
    assert torch.equal(stacked(episodes(2), {})[0].advantage, plain.advantage - torch.tensor([1.0, 3.0]))


# -------------------------------------------------------------------------------------------------------- the algorithm


def test_steps_per_episode():
    """Run 0: two episodes of two rows, the second one cut. Run 1: one of one row, one of three."""
    assert steps_per_episode(episodes(num_runs=2)).tolist() == [2, 2]
    assert steps_per_episode(episodes(num_runs=1)).tolist() == [2]
    batch = episodes(num_runs=2)
    batch.terminated[2, 1] = True  # one, two, and one rows
    batch.truncated[2, 1] = True  # both flags at once are one end
    assert steps_per_episode(batch).tolist() == pytest.approx([2, 4 / 3])


def gradients(algorithm: REINFORCE, estimator: MonteCarlo) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the second iteration of two runs, (2, P), with a policy that stays; and steps per episode."""
    algorithm = dataclasses.replace(algorithm, num_envs=8, rollout_length=64, learning_rate=0.0)
    training = Training("cartpole", algorithm, estimator, total_steps=10_000, num_runs=2, num_threads=1)
    training.iterate()
    training.iterate()
    shard = training.shards[0]
    training.close()
    return shard.population.gradient.clone(), steps_per_episode(shard.env._rollout)  # type: ignore[attr-defined]


@pytest.mark.parametrize("standardize", [False, True])
def test_normalize_by(standardize):
    """By episodes is by steps, times steps per episode of each run."""
    estimator = MonteCarlo(baseline="moving_average")
    by_steps, _ = gradients(REINFORCE(standardize_return=standardize), estimator)
    by_episodes, steps = gradients(REINFORCE(standardize_return=standardize, normalize_by="episodes"), estimator)
    assert steps[0] != steps[1] and (by_steps.abs().amax(1) > 1e-3).all()
    assert torch.allclose(by_episodes, by_steps * steps.unsqueeze(1), rtol=1e-4, atol=1e-6)


def test_a_standardised_batch_knows_no_constant():
    """A baseline that is one number for all steps changes nothing; without standardisation it does."""
    baselines = [
        MonteCarlo(baseline="none"),
        MonteCarlo(baseline="constant", constant_baseline=20.0),
        MonteCarlo(baseline="moving_average"),
    ]
    none, constant, moving = (gradients(REINFORCE(), estimator)[0] for estimator in baselines)
    assert torch.allclose(none, constant, rtol=1e-3, atol=1e-6) and torch.allclose(none, moving, rtol=1e-3, atol=1e-6)
    none, constant, moving = (gradients(REINFORCE(standardize_return=False), estimator)[0] for estimator in baselines)
    assert (none - constant).abs().max() > 1e-2 and (none - moving).abs().max() > 1e-2


@pytest.mark.parametrize("baseline", ["learned", "moving_average", "constant", "none"])
@pytest.mark.parametrize("normalize_by", ["steps", "episodes"])
def test_every_form_trains(baseline, normalize_by):
    algorithm = REINFORCE(num_envs=4, rollout_length=16, normalize_by=normalize_by)
    estimator = MonteCarlo(baseline=baseline, reward_to_go=normalize_by == "steps")
    training = Training("cartpole", algorithm, estimator, total_steps=200, num_runs=2, num_threads=1)
    before = training.shards[0].population.flat.clone()
    names = [sorted(training.iterate()) for _ in range(3)]
    assert names[0] == names[2] and not training.warnings and not any(training.frozen)
    assert ("value_loss" in names[0]) == (baseline == "learned")
    assert (training.shards[0].population.flat != before).any(1).all()
    training.close()


def test_bad_settings():
    with pytest.raises(ValueError, match="normalize_by = 'rows'; use steps or episodes"):
        REINFORCE(normalize_by="rows")  # type: ignore[arg-type]
