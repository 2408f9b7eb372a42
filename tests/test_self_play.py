"""Self-play: who plays whom, that a snapshot's rows teach nothing, ratings, and exact resume."""

import numpy as np
import pytest
import torch
from fake_env import FakeEnv
from gymnasium import spaces

import ridgeline
import ridgeline.training
from ridgeline.algorithms.ppo import PPO
from ridgeline.recurrent_policies import GRU
from ridgeline.rollout import collect
from ridgeline.self_play import SelfPlay
from ridgeline.training import Training

BOX, THREE = spaces.Box(-5, 5, (3,), np.float32), spaces.Discrete(3)
SMALL = PPO(num_envs=6, rollout_length=8, num_minibatches=2)


class World(FakeEnv):
    """Two agents whose episodes end together; the first action number of one is the other's loss."""

    def step(self, action, out=None):
        step = super().step(action, out)
        pair = np.asarray(action).reshape(-1, 2)
        step.reward[:] = np.stack([pair[:, 1] - pair[:, 0], pair[:, 0] - pair[:, 1]], 1).ravel()
        first = step.terminated.reshape(-1, 2)[:, :1] | step.truncated.reshape(-1, 2)[:, :1]
        step.terminated[:] = np.repeat(first.ravel(), 2)
        step.truncated[:] = False
        rows = np.flatnonzero(step.terminated)
        self.actions = np.asarray(action).copy()
        return step._replace(
            final_row=np.empty(0, np.int64), final_observation=step.final_observation[:0], episode_row=rows,
            episode=np.ones((len(rows), 2)),
        )  # fmt: skip


def start(monkeypatch, seeds=(0, 1), policy="mlp", self_play: float | None = 0.5, vmap=True, num_agents=2):
    def make(environment, num_envs, seed, parameters):
        return World(BOX, THREE, num_envs, seed, num_agents=num_agents)

    monkeypatch.setattr(ridgeline.training, "make", make)
    return Training(
        "fake", SMALL, policy=policy, total_steps=48 * 80, seed=list(seeds), num_threads=1, vmap=vmap,
        self_play=self_play,
    )  # fmt: skip


def state(training, run):
    (shard,) = training.shards
    own = {name: tensor[run].clone() for name, tensor in shard.population.state_dict().items()}
    for name, array in shard.env.state_dict().items():
        own[f"env.{name}"] = torch.from_numpy(np.array_split(array, training.num_runs)[run].copy())
    return own


def test_a_snapshot_plays_one_side_of_its_games(monkeypatch):
    """In half of the instances one side's actions are the snapshot's, and only these rows are left out."""
    training = start(monkeypatch, seeds=(0,))
    shard = training.shards[0]
    env, population = shard.env, shard.population
    assert isinstance(env, SelfPlay) and env.games == 3 and env.rows_per_run == 12 and env.num_agents == 2
    with torch.no_grad():
        population.flat.add_(torch.randn(population.flat.shape))  # the policy has moved on, the pool has not
    seats = set()
    for _ in range(6):
        rows = env._frozen_rows()[0]
        assert (rows // 2).tolist() == [0, 1, 2]
        rollout_rows = set(rows.tolist())
        seats |= set(enumerate((rows % 2).tolist()))
        action = np.full(12, 7)
        step = env.step(action)
        assert (action == 7).all() and set(np.flatnonzero(~step.valid).tolist()) == rollout_rows
        assert (env.env.actions[list(rollout_rows)] != 7).all()
        others = np.setdiff1d(np.arange(12), rows)
        assert (env.env.actions[others] == 7).all()
        assert not set(step.episode_row.tolist()) & rollout_rows
    assert len(seats) > 3  # sides change when episodes begin


def test_snapshots_teach_nothing(monkeypatch):
    """NaN in all that the frozen rows see and give leaves everything learned as it is."""
    found = []
    for garbage in (False, True):
        training = start(monkeypatch)
        env, population = training.shards[0].env, training.shards[0].population
        act = population.act

        def poisoned(observation, noise, act=act, env=env, garbage=garbage):
            action, log_prob, value = act(observation, noise)
            if garbage:
                rows = torch.from_numpy(env._frozen_rows().ravel())
                log_prob.view(-1)[rows] = torch.nan
                action.view(-1)[rows] = 1
            return action, log_prob, value

        population.act = poisoned
        for _ in range(3):
            training.iterate()
        assert not any(training.frozen)
        found.append(state(training, 1))
    assert [name for name in found[0] if not torch.equal(found[0][name], found[1][name])] == []


@pytest.mark.parametrize("policy", ["mlp", GRU(hidden_sizes=(8,), state_size=5)], ids=["mlp", "gru"])
def test_a_run_has_the_same_bits_in_every_population(monkeypatch, policy):
    three, alone = (start(monkeypatch, seeds, policy) for seeds in ((0, 1, 2), (1,)))
    for _ in range(5):  # snapshots are taken every second iteration
        metrics = three.iterate(), alone.iterate()
    ours, theirs = state(three, 1), state(alone, 0)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert metrics[0]["rating"][1] == metrics[1]["rating"][0] != 0 and three.shards[0].env.taken.max() == 2


@pytest.mark.parametrize("policy", ["mlp", GRU(hidden_sizes=(8,), state_size=5)], ids=["mlp", "gru"])
def test_resume_is_exact(monkeypatch, policy):
    whole, cut = (start(monkeypatch, policy=policy) for _ in range(2))
    for _ in range(7):
        whole.iterate()
    for _ in range(3):
        cut.iterate()
    tensors, document = cut.state_dict()
    kept = {name: torch.as_tensor(tensor).clone() for name, tensor in tensors.items()}
    resumed = start(monkeypatch, policy=policy)
    resumed.load_state_dict(kept, document)
    for _ in range(4):
        resumed.iterate()
    for run in range(2):
        ours, theirs = state(whole, run), state(resumed, run)
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_ratings_follow_elo(monkeypatch):
    """One game won by an equal: half of the step; the odds of 400 points are 10 to 1; a draw between equals nothing."""
    training = start(monkeypatch, seeds=(0,))
    env = training.shards[0].env
    ended = np.zeros((1, 3, 2), bool)
    ended[0, 1] = True
    env.seat[:], env.total[0, 1] = 1, (1.0, -1.0)
    env._end_games(ended)
    assert env.rating[0] == 8.0 and env.ratings[0].tolist() == [0.0, -8.0, 0.0]
    env.rating[0], env.ratings[0] = 400.0, 0.0
    env.seat[:], env.total[0, 1] = 0, (3.0, 2.0)  # lost against one that is 400 points weaker
    env._end_games(ended)
    assert env.rating[0] == pytest.approx(400 - 16 * 10 / 11)
    env.rating[0], env.ratings[0], env.total[0, 1] = 0.0, 0.0, (2.0, 2.0)
    env._end_games(ended)
    assert env.rating[0] == 0 and env.count[0] == 3 and env.score[0] == 1.5
    metrics = env.after(torch.tensor([1]))
    assert metrics["pool_score"][0] == 0.5 and torch.isnan(env.after(torch.tensor([1]))["pool_score"]).all()


def test_the_pool_reaches_back(monkeypatch):
    training = start(monkeypatch, seeds=(0,))
    env, population = training.shards[0].env, training.shards[0].population
    begin = population.flat.clone()
    assert (env.flat == begin).all()
    for _ in range(4):
        training.iterate()
    taken = env.taken[0].tolist()
    assert max(taken) == 2 and (env.flat[taken.index(2), 0] == population.flat[0]).all()
    assert (env.flat[:, 0] == begin[0]).all(1).sum() == taken.count(0)


def test_what_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="self_play is for environments of two agents; fake has 1"):
        start(monkeypatch, num_agents=1)
    with pytest.raises(ValueError, match=r"self_play = 1\.5; use a share of the instances above 0, up to 1, or None"):
        start(monkeypatch, self_play=1.5)


def test_replace_begins_the_pool_anew(monkeypatch):
    training = start(monkeypatch)
    for _ in range(3):
        training.iterate()
    env = training.shards[0].env
    env.env.restart = lambda run, seed: None
    training.replace(1, 9)
    assert env.rating[1] == 0 and env.rating[0] != 0 and not env.taken[1].any()
    assert (env.flat[:, 1] == training.shards[0].population.flat[1]).all()


def test_from_the_outside(tmp_path):
    """A real game: the option is part of the run directory, and a resumed run knows it."""
    settings = {"total_steps": 1024, "num_runs": 2, "num_threads": 1}
    ppo = PPO(num_envs=8, rollout_length=16, num_epochs=2)
    whole = ridgeline.train("connect_four", ppo, self_play=0.5, out=tmp_path / "whole", **settings)
    count = iter(range(100))
    ridgeline.train(
        "connect_four", ppo, self_play=0.5, out=tmp_path / "cut", **settings,
        stop=lambda: "interrupt" if next(count) == 3 else None,
    )  # fmt: skip
    resumed = ridgeline.train(resume=tmp_path / "cut", num_threads=1)
    for one, two in zip(whole.policies, resumed.policies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_rows_of_both_agents_are_learned_from(monkeypatch):
    """Without past selves both sides are rows of one shared policy."""
    training = start(monkeypatch, self_play=None)
    shard = training.shards[0]
    rollout = collect(shard.env, shard.population, 8)
    assert rollout.valid is None and rollout.reward.shape == (8, 24) and rollout.num_agents == 2
    assert rollout.rows_per_run == 12 and rollout.num_envs == 6
    metrics = training.iterate()
    assert metrics["first_log_ratio"].max() < 1e-5 and not any(training.frozen)
