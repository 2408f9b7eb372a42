"""Dict observations, pictures and action masks through whole iterations: the same bits alone and in a population."""

import itertools

import numpy as np
import pytest
import torch
from fake_env import FakeEnv, tiny
from gymnasium import spaces

import ridgeline.training
from ridgeline import components
from ridgeline.distributions import Categorical, MultiCategorical
from ridgeline.evaluation import _Choice
from ridgeline.observations import pack, unpack
from ridgeline.policies import CNN, MLP
from ridgeline.population import Population
from ridgeline.rollout import collect
from ridgeline.training import Training

TWO, MANY = spaces.Discrete(3), spaces.MultiDiscrete([2, 3])


def mixed(action_space, picture=True):
    kinds = {
        "number": spaces.Box(-5, 5, (2,), np.float32),
        "choice": spaces.Discrete(3, start=1),
        "choices": spaces.MultiDiscrete([2, 2]),
        "flags": spaces.MultiBinary(3),
        "action_mask": spaces.Box(0, 1, (3,), np.int8) if action_space is TWO else spaces.Box(0, 1, (5,), np.bool_),
    }
    return spaces.Dict(kinds | ({"picture": spaces.Box(0, 255, (12, 12, 3), np.uint8)} if picture else {}))


def start(monkeypatch, observation_space, action_space, seeds=(0,), algorithm="ppo", policy="auto", vmap=True, **fake):
    def make(environment, num_envs, seed, parameters):
        return FakeEnv(observation_space, action_space, num_envs, seed, **fake)

    monkeypatch.setattr(ridgeline.training, "make", make)
    return Training(
        "fake", tiny(algorithm), policy=policy, total_steps=10_000, seed=list(seeds), num_threads=1, vmap=vmap
    )


def state(training, run):
    (shard,) = training.shards
    return {name: tensor[run].clone() for name, tensor in shard.population.state_dict().items()}


@pytest.mark.parametrize(
    ("observation_space", "action_space", "policy"),
    [
        (mixed(TWO), TWO, "auto"),
        (mixed(MANY), MANY, CNN("impala", (4,), (16,))),
        (mixed(MANY, picture=False), MANY, MLP(hidden_sizes=(16,))),
        (spaces.Box(0, 255, (4, 36, 36), np.uint8), TWO, "auto"),
        (spaces.Tuple((spaces.Discrete(4), spaces.Box(-1, 1, (3,)))), spaces.Box(-1, 1, (2,)), MLP(shared_trunk=True)),
    ],
)
def test_a_run_has_the_same_bits_in_every_population(monkeypatch, observation_space, action_space, policy):
    three = start(monkeypatch, observation_space, action_space, (0, 1, 2), policy=policy)
    alone = start(monkeypatch, observation_space, action_space, (2,), policy=policy)
    direct = start(monkeypatch, observation_space, action_space, (2,), policy=policy, vmap=None)
    for _ in range(2):
        metrics = [training.iterate() for training in (three, alone, direct)]
    assert metrics[0]["first_log_ratio"].max() < 1e-5 and not any(three.frozen)
    ours, theirs = state(three, 2), state(alone, 0)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert not torch.equal(ours["flat"], state(three, 1)["flat"])
    assert (state(direct, 0)["flat"] - ours["flat"]).abs().max() < 1e-3


@pytest.mark.parametrize("algorithm", components.names("algorithm"))
@pytest.mark.parametrize("runs", [1, 2])
def test_every_algorithm_learns_from_parts_and_masks(monkeypatch, algorithm, runs):
    training = start(monkeypatch, mixed(MANY), MANY, range(runs), algorithm, vmap=None)
    before = state(training, 0)["flat"]
    for _ in range(2):
        metrics = training.iterate()
    assert isinstance(training.policy, CNN) and not any(training.frozen) and not training.warnings
    assert metrics["first_log_ratio"].max() < 1e-5 and np.isfinite(metrics["entropy"]).all()
    assert not torch.equal(state(training, 0)["flat"], before)


def test_parts_side_by_side_are_a_box(monkeypatch):
    """A policy that reads a Dict learns what one learns that is given the same numbers as one Box."""
    whole = spaces.Box(-5, 5, (5,), np.float32)
    apart = spaces.Dict({"a": spaces.Box(-5, 5, (2,), np.float32), "b": spaces.Box(-5, 5, (3,), np.float32)})

    def observe(env, row):
        x = env.generators[row].standard_normal(5).astype(np.float32)
        return pack(apart, {"a": x[:2], "b": x[2:]}) if env.observation_space is apart else x

    monkeypatch.setattr(FakeEnv, "observe", observe)
    one, two = (start(monkeypatch, space, TWO, (0, 1), policy="mlp") for space in (whole, apart))
    for _ in range(2):
        one.iterate(), two.iterate()
    observation = two.shards[0].env.observation
    assert observation.dtype == np.uint8 and observation.shape == (8, 24)
    ours, theirs = state(one, 1), state(two, 1)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("action_space", [TWO, MANY])
def test_no_forbidden_action_is_ever_taken(monkeypatch, action_space):
    training = start(monkeypatch, mixed(action_space, picture=False), action_space, (0, 1))
    (shard,) = training.shards
    sizes, forbidden = ([3] if action_space is TWO else [2, 3]), 0
    for _ in range(5):
        training.iterate()
        rollout = shard.env._rollout
        mask = unpack(shard.env.observation_space, rollout.observation[:-1])["action_mask"]
        action = rollout.action.unsqueeze(-1) if action_space is TWO else rollout.action
        for part, allowed in enumerate(mask.split(sizes, -1)):
            assert (allowed.gather(-1, action[..., part : part + 1]) == 1).all()
            forbidden += int((allowed == 0).sum())
    assert forbidden > 100
    choose = _Choice(shard.env, shard.population, greedy=True)
    mask = unpack(shard.env.observation_space, torch.from_numpy(shard.env.observation))["action_mask"]
    action = torch.from_numpy(choose()).reshape(len(mask), -1)
    for part, allowed in enumerate(mask.split(sizes, -1)):
        assert (allowed.gather(-1, action[:, part : part + 1]) == 1).all()


def test_a_row_that_allows_nothing_is_named(monkeypatch):
    training = start(monkeypatch, mixed(TWO, picture=False), TWO, (0, 1))
    env = training.shards[0].env
    env.mask = lambda generator, like: np.zeros_like(like) if env.generators[6] is generator else np.ones_like(like)
    with pytest.raises(ValueError, match=r"fake: the action mask allows nothing at step 1 .* environment row 6"):
        training.iterate()


# ---------------------------------------------------------------------------------------------------------- the numbers


def masks(size):
    every = torch.tensor(list(itertools.product((0, 1), repeat=size)), dtype=torch.int8)
    return every[every.any(-1)]


def test_a_masked_probability_is_exactly_zero():
    """Sampling, entropy, KL and scores against the distribution over the allowed actions alone."""
    generator = torch.Generator().manual_seed(0)
    mask = masks(4)
    logits, others = (torch.randn(len(mask), 4, generator=generator, dtype=torch.float64) for _ in range(2))
    masked, other = Categorical(logits, mask), Categorical(others, mask)
    assert torch.equal(masked.log_probs.exp() == 0, mask == 0)
    for noise in (0.0, 0.3, 0.999999, 1 - 2**-24):
        action = masked.sample(torch.full((len(mask),), noise, dtype=torch.float32))
        assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert mask.gather(-1, masked.mode().unsqueeze(-1)).all()
    for row, allowed in enumerate(mask.bool()):
        own, against = Categorical(logits[row, allowed]), Categorical(others[row, allowed])
        assert torch.allclose(masked.log_probs[row, allowed], own.log_probs)
        assert torch.allclose(masked.entropy()[row], own.entropy())
        assert torch.allclose(masked.kl(other)[row], own.kl(against))
        score = masked.score(masked.mode())[0][row]
        assert torch.allclose(score[allowed], own.score(own.mode())[0]) and not score[~allowed].any()


def test_gradients_through_masked_logits_are_exactly_zero():
    generator = torch.Generator().manual_seed(1)
    mask = torch.cat([masks(2).repeat(7, 1), masks(3).repeat_interleave(3, 0)], -1)
    logits = torch.randn(21, 5, generator=generator).requires_grad_()
    old = MultiCategorical(torch.randn(21, 5, generator=generator), (2, 3), mask)
    new = MultiCategorical(logits, (2, 3), mask)
    action = old.sample(torch.rand(21, 2, generator=generator))
    for number in (new.log_prob(action), new.entropy(), old.kl(new), new.kl(old)):
        (gradient,) = torch.autograd.grad(number.square().sum(), logits, retain_graph=True)
        assert not gradient[mask == 0].any() and gradient.isfinite().all()
    alone = mask.split((2, 3), -1)[1].sum(-1) == 1  # one action left: nothing to learn
    (gradient,) = torch.autograd.grad(new.log_prob(action).sum(), logits)
    assert not gradient[alone, 2:].any() and gradient[~alone].any()
    # a mask that allows nothing counts as none
    assert torch.equal(Categorical(logits[:, :2], torch.zeros(21, 2)).log_probs, Categorical(logits[:, :2]).log_probs)


# ----------------------------------------------------------------------------------------------------- a policy by hand


def test_a_policy_acts_on_parts_packed_or_not(monkeypatch):
    training = start(monkeypatch, mixed(MANY), MANY, (0, 1))
    training.iterate()
    policy, env = training.policies()[1], training.shards[0].env
    rows = env.observation[:5]
    parts = unpack(env.observation_space, rows)
    many, _ = policy.act(rows, greedy=True)
    same, _ = policy.act({key: part.copy() for key, part in parts.items()}, greedy=True)
    single, _ = policy.act(rows[3], greedy=True)
    part, _ = policy.act({key: part[3].copy() for key, part in parts.items()}, greedy=True)
    assert many.shape == (5, 2) and np.array_equal(many, same)
    assert np.array_equal(single, many[3]) and np.array_equal(part, many[3])


def test_a_users_policy_sees_parts():
    """A plain module that reads a flat dict, mapped over runs."""
    from torch import nn

    space = mixed(TWO, picture=False)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.critic = nn.Linear(5, 3), nn.Linear(2, 1)

        def forward(self, observation):
            assert set(observation) == set(space.spaces)
            x = torch.cat([observation["number"], observation["flags"].float()], -1)
            return Categorical(self.head(x), observation["action_mask"]), self.critic(observation["number"])

    env = FakeEnv(space, TWO, 4, [0, 1, 2])
    population = Population(Reader, space, TWO, env.seeds, {})
    rollout = collect(env, population, 6)
    number = unpack(space, rollout.observation[:-1])["number"]
    for run in range(3):
        expected = population.policy(run).critic(number[:, 4 * run : 4 * run + 4])
        assert torch.allclose(rollout.value[:, 4 * run : 4 * run + 4], expected, atol=1e-6)


def test_a_normaliser_of_parts_needs_to_know_the_numbers():
    from torch import nn

    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 3)
            self.register_buffer("observation_mean", torch.zeros(2))

    space = mixed(TWO, picture=False)
    with pytest.raises(ValueError, match="Normalising has observation_mean and the observation several parts: give"):
        Population(Normalising, space, TWO, (0,), {})
