"""Cells that are no transition: where they go, and that what stands in them changes no bit of anything learned."""

import numpy as np
import pytest
import torch
from fake_env import FakeEnv, tiny
from gymnasium import spaces

import ridgeline.training
from ridgeline import components
from ridgeline.policies import MLP
from ridgeline.population import Population
from ridgeline.rollout import Rollout, collect
from ridgeline.training import Training
from ridgeline.valid_rows import compact, mean, select, standardized

BOX = spaces.Box(-5, 5, (3,), np.float32)
PARTS = spaces.Dict({"number": BOX, "action_mask": spaces.Box(0, 1, (3,), np.int8)})
THREE = spaces.Discrete(3)


def start(monkeypatch, algorithm="ppo", estimator="gae", seeds=(0, 1), policy="auto", space=BOX, vmap=None, **fake):
    def make(environment, num_envs, seed, parameters):
        return FakeEnv(space, THREE, num_envs, seed, **{"skip": 0.4} | fake)

    monkeypatch.setattr(ridgeline.training, "make", make)
    return Training(
        "fake", tiny(algorithm), estimator, policy, total_steps=10_000, seed=list(seeds), num_threads=1, vmap=vmap
    )


def state(training, run=0):
    (shard,) = training.shards
    return {name: tensor[run].clone() for name, tensor in shard.population.state_dict().items()}


def different(one, two):
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


# ----------------------------------------------------------------------------------------------------------- compaction


def twin(valid, reward, terminated, truncated, number):
    """Column by column, cell by cell, with lists: what each column holds behind its free cells."""
    columns = []
    for row in range(valid.shape[1]):
        cells = []
        for t in range(len(valid)):
            if valid[t, row]:
                cells.append([number[t, row], reward[t, row], terminated[t, row], truncated[t, row]])
            elif cells and not (cells[-1][2] or cells[-1][3]):
                cells[-1][1] = np.float32(cells[-1][1] + reward[t, row])
                cells[-1][2:] = terminated[t, row], truncated[t, row]
        columns.append([[0, np.float32(0), True, False]] * (len(valid) - len(cells)) + cells)
    return columns


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_compaction_is_that_of_the_twin(share):
    generator = np.random.default_rng(int(10 * share))
    shape = (9, 40)
    valid = generator.random(shape) < share
    reward = generator.normal(size=shape).astype(np.float32)
    terminated, truncated = generator.random(shape) < 0.1, generator.random(shape) < 0.1
    truncated &= ~terminated
    number = np.arange(1, 361).reshape(shape)
    expected = twin(valid, reward, terminated, truncated, number)
    wide = torch.from_numpy(np.stack([number] * 3, -1).astype(np.float64))
    found = [torch.from_numpy(x.copy()) for x in (valid, reward, terminated, truncated, number)]
    place = compact(*found, wide)
    for row in range(shape[1]):
        own = [[x[t, row].item() for x in (found[4], *found[1:4])] for t in range(shape[0])]
        assert own == [[int(n), float(r), bool(a), bool(b)] for n, r, a, b in expected[row]]
    assert torch.equal(found[0], found[4] > 0) and torch.equal(wide[..., 2], found[4].double())
    for t, row in zip(*np.nonzero(truncated), strict=True):
        last = np.flatnonzero(valid[: t + 1, row])
        over = last.size and (terminated | truncated)[last[-1] : t, row].any()
        now = place[t, row]
        assert (now < 0) == (not last.size or bool(over))
        assert now < 0 or (found[4][now, row] == number[last[-1], row] and found[3][now, row])


def test_values_are_those_of_the_next_valid_cell(monkeypatch):
    """A policy whose value is the first number it sees: what follows a cell is the row's next one that is valid."""
    env = FakeEnv(BOX, THREE, 3, [0, 1], skip=0.5)
    population = Population(lambda: MLP(hidden_sizes=()).build(BOX, THREE), BOX, THREE, (0, 1), {})
    finals = 0
    for _ in range(5):
        rollout = collect(env, population, 8)
        assert rollout.valid is not None
        value = population.value(rollout.by_run(rollout.observation[:-1]).transpose(0, 1).flatten(1, 2))
        value = value.unflatten(1, (8, 3)).transpose(0, 1).flatten(1, 2)[..., 0]
        cut = population.value(rollout.observation[-1].unflatten(0, (2, 3))).flatten()
        ends = rollout.terminated | rollout.truncated
        for row in range(6):
            valid = rollout.valid[:, row]
            first = int((~valid).sum())
            assert valid[first:].all() and not rollout.observation[:first, row].any()
            assert not rollout.value[:first, row].any() and not rollout.next_value[:first, row].any()
            following = torch.cat([value[first + 1 :, row], cut[row : row + 1]])
            goes_on = ~ends[first:, row]
            assert torch.equal(rollout.next_value[first:, row, 0][goes_on], following[goes_on])
        finals += 0 if rollout.final is None else len(rollout.final.step)
    assert finals > 5


# -------------------------------------------------------------------------------------------------------------- garbage


@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_garbage_changes_no_bit(monkeypatch, algorithm, runs):
    """NaN in every cell that is no transition: parameters, optimizer, normalisers and metrics after two iterations."""
    clean, dirty = (
        start(monkeypatch, algorithm, seeds=range(runs), space=PARTS, garbage=garbage) for garbage in (None, np.nan)
    )
    for _ in range(2):
        expected, found = clean.iterate(), dirty.iterate()
    assert not any(dirty.frozen) and not dirty.warnings and found["first_log_ratio"].max() < 1e-5
    for run in range(runs):
        assert different(state(clean, run), state(dirty, run)) == []
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, found[name], equal_nan=True), name


@pytest.mark.parametrize("estimator", components.names("estimator"))
def test_garbage_changes_no_estimate(monkeypatch, estimator):
    clean, dirty = (start(monkeypatch, "ppo", estimator, garbage=garbage) for garbage in (None, np.nan))
    for _ in range(2):
        clean.iterate(), dirty.iterate()
    assert not any(dirty.frozen) and different(state(clean), state(dirty)) == []


def test_nan_would_be_noticed(monkeypatch):
    """The control: the same NaN in cells that are transitions freezes the runs."""
    training = start(monkeypatch, garbage=np.nan, skip=0.4)
    env = training.shards[0].env
    step = env.step

    def all_valid(action, out=None):
        return step(action, out)._replace(valid=np.ones(env.num_rows, bool))

    env.step = all_valid
    training.iterate()
    assert all(training.frozen)


# ------------------------------------------------------------------------------------------------ estimators and masks


@pytest.mark.parametrize("estimator", components.names("estimator"))
def test_free_cells_are_as_if_they_were_not_there(estimator):
    """Every estimator on 9 steps of which the first 4 are free: what it gives on the other 5 alone."""
    env = FakeEnv(BOX, THREE, 6, [0, 1])
    made = components.find("estimator", estimator)()
    count = ridgeline.training.slots.num_values(made, THREE)
    population = Population(lambda: MLP(hidden_sizes=(4,)).build(BOX, THREE, count), BOX, THREE, (0, 1), {})
    with torch.no_grad():
        population.flat.add_(0.3 * torch.randn(population.flat.shape, generator=torch.Generator().manual_seed(0)))
    short = collect(env, population, 5)

    def longer(tensor, fill):
        return torch.cat([torch.full((4, *tensor.shape[1:]), fill, dtype=tensor.dtype), tensor])

    flags = longer(torch.ones(5, 12, dtype=torch.bool), False)
    long = Rollout(
        2, longer(short.observation, 0), longer(short.action, 0), longer(short.log_prob, 0), longer(short.value, 0),
        longer(short.next_value, 0), longer(short.reward, 0), longer(short.terminated, True),
        longer(short.truncated, False), valid=flags, population=population,
    )  # fmt: skip
    memories: list = [{}, {}]
    for _ in range(2):  # the second time with what it remembers of the first
        (expected, memories[0]), (found, memories[1]) = made(short, memories[0]), made(long, memories[1])
    for name in ("advantage", "target", "target_weight"):
        one, two = getattr(expected, name), getattr(found, name)
        assert (one is None) == (two is None)
        if one is not None:
            one, two = one.expand(5, *one.shape[1:]), two.expand(9, *two.shape[1:])[4:]
            assert torch.allclose(one, two, rtol=1e-4, atol=1e-5), name
    for name in memories[0]:
        assert torch.allclose(memories[0][name], memories[1][name], rtol=1e-4, atol=1e-6), name
    for name, number in (expected.metrics or {}).items():
        assert torch.allclose(number, found.metrics[name], rtol=1e-4, atol=1e-5), name


def test_means_are_over_valid_rows():
    generator = torch.Generator().manual_seed(0)
    x, wide = torch.randn(9, generator=generator), torch.randn(9, 3, generator=generator)
    valid = torch.arange(9) >= 4
    minibatch = {"valid": valid}
    assert torch.allclose(mean(x, minibatch), x[4:].mean()) and torch.allclose(mean(wide, minibatch), wide[4:].mean())
    expected = (x[4:] - x[4:].mean()) / (x[4:].std(correction=0) + 1e-8)
    assert torch.allclose(standardized(x, minibatch)[4:], expected, atol=1e-6)
    assert not select(wide, minibatch)[:4].any() and torch.equal(select(wide, minibatch)[4:], wide[4:])
    assert mean(x, {"valid": valid & False}) == 0
    assert torch.equal(mean(x, {}), x.mean()) and select(x, {}) is x


def test_a_run_has_the_same_bits_in_every_population(monkeypatch):
    three, alone = (start(monkeypatch, seeds=seeds, vmap=True, num_agents=2) for seeds in ((0, 1, 2), (1,)))
    for _ in range(2):
        three.iterate(), alone.iterate()
    assert different(state(three, 1), state(alone)) == []
    assert three.shards[0].env._rollout.num_agents == 2


def test_normalisers_count_valid_rows(monkeypatch):
    training = start(monkeypatch, seeds=(0,))
    training.iterate()
    population, rollout = training.shards[0].population, training.shards[0].env._rollout
    seen = rollout.observation[:-1][rollout.valid].double()
    moments = population.observation_moments
    assert moments.count[0] == len(seen) < 32
    assert torch.allclose(moments.mean[0], seen.mean(0)) and torch.allclose(moments.variance[0], seen.var(0, False))
