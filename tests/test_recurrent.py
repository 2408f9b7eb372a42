"""Recurrent cells against PyTorch's, sequences and resets, and whole trainings of policies that remember."""

import numpy as np
import pytest
import torch
from fake_env import FakeEnv, tiny
from gymnasium import spaces
from torch import nn

import ridgeline
import ridgeline.training
from ridgeline import components
from ridgeline.algorithms.ppo import PPO
from ridgeline.calls import both
from ridgeline.distributions import Categorical
from ridgeline.estimators.gae import GAE
from ridgeline.gradient_cloud import Settings, measure
from ridgeline.population import Population
from ridgeline.recurrent import GATES, STATES, Sequence, states_of
from ridgeline.recurrent_policies import GRU, LSTM
from ridgeline.rollout import Estimate, collect, reevaluate
from ridgeline.training import Training

BOX, THREE = spaces.Box(-5, 5, (3,), np.float32), spaces.Discrete(3)
SMALL = {"gru": GRU(hidden_sizes=(8,), state_size=6), "lstm": LSTM(hidden_sizes=(), state_size=6)}
each_cell = pytest.mark.parametrize("kind", ["gru", "lstm"])


def inputs(kind, runs=3, length=7, rows=5, size=4, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (runs, length, rows, GATES[kind] * size), (runs, rows, STATES[kind] * size), (runs, GATES[kind] * size, size),
        (runs, GATES[kind] * size),
    )  # fmt: skip
    x, state, weight, bias = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    start = torch.rand(runs, length, rows, generator=generator) < 0.3
    return x, state, start, weight, bias


# ------------------------------------------------------------------------------------------------------------ the cells


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_are_pytorchs(kind, dtype):
    """States and all gradients, of runs stacked and alone, compiled and not, against nn.GRUCell and nn.LSTMCell."""
    x, state, start, weight, bias = inputs(kind, dtype=dtype)
    found = states_of(kind, x, state, start, weight, bias)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = torch.autograd.grad((found * weights).sum(), (x, state, weight, bias))
    for run in range(3):
        cell = (nn.GRUCell if kind == "gru" else nn.LSTMCell)(GATES[kind] * 4, 4).to(dtype)
        own = [tensor[run].detach().clone().requires_grad_() for tensor in (x, state, weight, bias)]
        hidden, outputs = own[1], []
        for t in range(7):
            hidden = torch.where(start[run, t].unsqueeze(-1), 0.0, hidden)
            parameters = {"weight_ih": torch.eye(GATES[kind] * 4, dtype=dtype), "weight_hh": own[2],
                          "bias_ih": torch.zeros(GATES[kind] * 4, dtype=dtype), "bias_hh": own[3]}  # fmt: skip
            given = hidden if kind == "gru" else tuple(hidden.split(4, -1))
            hidden = torch.func.functional_call(cell, parameters, (own[0][t], given))
            hidden = hidden if kind == "gru" else torch.cat(hidden, -1)
            outputs.append(hidden)
        expected = torch.stack(outputs)
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        assert (found[run] - expected).abs().max() < tolerance
        others = torch.autograd.grad((expected * weights[run]).sum(), own)
        for one, two in zip(gradients, others, strict=True):
            assert (one[run] - two).abs().max() < 20 * tolerance * max(1, two.abs().max().item())
        alone = states_of(kind, x[run], state[run], start[run], weight[run], bias[run])
        assert torch.equal(alone, found[run]) or dtype == torch.float64
        single = [tensor[run : run + 1].detach().clone().requires_grad_() for tensor in (x, state, weight, bias)]
        again = states_of(kind, single[0], single[1], start[run : run + 1], single[2], single[3])
        assert torch.equal(again[0], found[run]) or dtype == torch.float64
        back = torch.autograd.grad((again * weights[run : run + 1]).sum(), single)
        assert dtype == torch.float64 or all(torch.equal(a[0], b[run]) for a, b in zip(back, gradients, strict=True))


def test_the_compiled_cell_has_no_second_derivative():
    x, state, start, weight, bias = inputs("gru")
    found = states_of("gru", x, state, start, weight, bias)
    with pytest.raises(RuntimeError, match="no second derivative by autograd"):
        torch.autograd.grad(found.sum(), weight, create_graph=True)


# -------------------------------------------------------------------------------------------------------- in a training


def start(monkeypatch, policy, algorithm="ppo", estimator="gae", seeds=(0, 1), vmap=None, space=BOX, **fake):
    monkeypatch.setattr(
        ridgeline.training, "make", lambda e, n, seed, parameters: FakeEnv(space, THREE, n, seed, **fake)
    )
    training = Training(
        "fake", tiny(algorithm), estimator, policy, total_steps=10_000, seed=list(seeds), num_threads=1, vmap=vmap
    )
    population = training.shards[0].population
    with torch.no_grad():  # the value head begins at 0
        noise = torch.randn(population.flat.shape[1], generator=torch.Generator().manual_seed(0))
        population.flat.add_(0.3 * noise)
    return training


def state(training, run=0):
    (shard,) = training.shards
    return {name: tensor[run].clone() for name, tensor in shard.population.state_dict().items()}


def different(one, two):
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


class Plain(nn.Module):
    """A user's recurrent policy: a cell of its own, one step at a time."""

    recurrent = True

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 4)

    def initial_state(self, rows):
        return torch.zeros(rows, 5)

    def forward(self, observation, state):
        state = torch.tanh(self.inner(observation) + self.outer(state))
        output = self.head(state)
        return Categorical(output[..., :3]), output[..., 3:], state


POLICIES = [SMALL["gru"], SMALL["lstm"], Plain]


@pytest.mark.parametrize("policy", POLICIES, ids=["gru", "lstm", "plain"])
@pytest.mark.parametrize("skip", [None, 0.4])
def test_replaying_gives_what_acted(monkeypatch, policy, skip):
    """Over several rollouts with episodes ending inside: log-probabilities, values and next values, the state before
    the reset at a truncation included; and minibatches of some columns give those of all."""
    training = start(monkeypatch, policy, vmap=True, skip=skip)
    env, population = training.shards[0].env, training.shards[0].population
    finals = 0
    for _ in range(4):
        rollout = collect(env, population, 8)
        finals += 0 if rollout.final is None else len(rollout.final.step)
        acted = [tensor.clone() for tensor in (rollout.value, rollout.next_value, rollout.cut_state)]
        reevaluate(rollout, population)
        assert rollout.log_ratio.abs().max() < 1e-5
        for one, two in zip(acted, (rollout.value, rollout.next_value, rollout.cut_state), strict=True):
            assert (one - two).abs().max() < 1e-5
        minibatch = rollout.rows(torch.tensor([[2, 0], [1, 3]]), Estimate(rollout.log_prob, None))
        for run, policy_of_run in enumerate(training.policies()):
            own = {"observation": Sequence(*(part[run] for part in minibatch["observation"]))}
            distribution, _ = both(policy_of_run, own["observation"])
            log_ratio = distribution.log_prob(minibatch["action"][run]) - minibatch["log_prob"][run]
            log_ratio = log_ratio if skip is None else log_ratio[minibatch["valid"][run]]
            assert log_ratio.abs().max() < 1e-5
    assert finals > 5


@pytest.mark.parametrize("policy", POLICIES, ids=["gru", "lstm", "plain"])
def test_nothing_of_the_episode_before_is_remembered(monkeypatch, policy):
    """Scrambling all observations up to an episode's end changes no bit of anything behind it, and much before it."""
    training = start(monkeypatch, policy, vmap=True, ends=0.4)
    env, population = training.shards[0].env, training.shards[0].population
    rollout = collect(env, population, 8)
    before = population.value(rollout._sequence(torch.arange(4).expand(2, 4), _columns(rollout)))
    ends = rollout.by_run(rollout.terminated | rollout.truncated).transpose(0, 1)
    # the first row of each column's last episode
    last = torch.where(ends[:, :-1], torch.arange(1, 8).view(1, 7, 1), 0).amax(1)
    old = torch.arange(8).view(1, 8, 1) < last.unsqueeze(1)
    scrambled = torch.where(old.unsqueeze(-1), 100 * torch.randn(2, 8, 4, 3), _columns(rollout).unflatten(1, (8, 4)))
    after = population.value(rollout._sequence(torch.arange(4).expand(2, 4), scrambled.flatten(1, 2)))
    same = (before == after).squeeze(-1).unflatten(1, (8, 4))
    assert same[~old].all() and not same[old].any() and old.any(1).sum() >= 5


def _columns(rollout):
    return rollout.by_run(rollout.observation[:-1]).transpose(0, 1).flatten(1, 2)


def test_a_truncation_is_valued_with_the_state_before_the_reset(monkeypatch):
    training = start(monkeypatch, SMALL["gru"], seeds=(0,), ends=0.5)
    env, (policy,) = training.shards[0].env, training.policies()
    rollout = collect(env, training.shards[0].population, 8)
    state, checked = torch.zeros(4, 6), 0
    assert rollout.final is not None
    for t in range(8):
        _, value, state = policy(rollout.observation[t], state)
        assert (rollout.value[t] - value).abs().max() < 1e-6
        for place in np.flatnonzero(rollout.final.step == t):
            row = rollout.final.row[place]
            observation = rollout.final.observation[0, rollout.final.place[place]].unsqueeze(0)
            right, wrong = (policy(observation, one[row].unsqueeze(0))[1] for one in (state, torch.zeros(4, 6)))
            assert (rollout.next_value[t, row] - right).abs().max() < 1e-6 < (right - wrong).abs().max()
            checked += 1
        state[rollout.terminated[t] | rollout.truncated[t]] = 0
    assert checked > 2


@pytest.mark.parametrize("policy", [*POLICIES[:2], Plain], ids=["gru", "lstm", "plain"])
def test_a_run_has_the_same_bits_in_every_population(monkeypatch, policy):
    three, alone, direct = (
        start(monkeypatch, policy, seeds=seeds, vmap=vmap, skip=0.2)
        for seeds, vmap in (((0, 1, 2), True), ((1,), True), ((1,), None))
    )
    for _ in range(2):
        metrics = [training.iterate() for training in (three, alone, direct)]
    assert metrics[0]["first_log_ratio"].max() < 1e-5 and not any(three.frozen)
    ours, theirs = state(three, 1), state(alone)
    if policy is Plain:  # mapped: products of torch's own, equal within rounding
        assert (ours["flat"] - theirs["flat"]).abs().max() < 1e-4
    else:
        assert different(ours, theirs) == [] and ours["state"].any()
    assert (state(direct)["flat"] - theirs["flat"]).abs().max() < 1e-3


@pytest.mark.parametrize("algorithm", components.names("algorithm"))
@pytest.mark.parametrize("runs", [1, 2])
def test_every_algorithm_trains_a_memory(monkeypatch, algorithm, runs):
    training = start(monkeypatch, SMALL["gru"], algorithm, seeds=range(runs))
    before = state(training)["flat"]
    for _ in range(2):
        metrics = training.iterate()
    assert metrics["first_log_ratio"].max() < 1e-5 and not any(training.frozen) and not training.warnings
    assert not torch.equal(state(training)["flat"], before)


@pytest.mark.parametrize("estimator", components.names("estimator"))
def test_every_estimator_takes_a_memory(monkeypatch, estimator):
    training = start(monkeypatch, SMALL["lstm"], "ppo", estimator, skip=0.3, garbage=np.nan)
    for _ in range(2):
        assert training.iterate()["first_log_ratio"].max() < 1e-5
    assert not any(training.frozen)


def test_resume_is_exact(tmp_path):
    """Stopped and continued equals uninterrupted, the remembered states included."""
    policy, ppo = GRU(hidden_sizes=(8,), state_size=6), PPO(num_envs=4, rollout_length=16, num_epochs=2)
    settings = {"total_steps": 640, "num_runs": 2, "num_threads": 1, "parameters": {"delay": 9}}
    whole = ridgeline.train("memory", ppo, "gae", policy, out=tmp_path / "whole", **settings)
    count = iter(range(100))
    ridgeline.train(
        "memory", ppo, "gae", policy, out=tmp_path / "cut", stop=lambda: "interrupt" if next(count) == 3 else None,
        **settings,
    )  # fmt: skip
    resumed = ridgeline.train(resume=tmp_path / "cut", num_threads=1)
    for one, two in zip(whole.policies, resumed.policies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    run = ridgeline.load(tmp_path / "cut")
    observation = np.array([1, 0, 0], np.float32)
    action, memory = run.policies[0].act(observation)
    again, later = run.policies[0].act(observation, memory)
    assert action.shape == () == again.shape and memory.shape == (1, 6) and not torch.equal(memory, later)
    evaluation = ridgeline.evaluate(run, episodes=6)
    assert evaluation.episode_returns.shape == (2, 6)


def test_minibatches_are_whole_rows(monkeypatch):
    with pytest.raises(ValueError, match="num_envs x agents = 6 is not divisible by num_minibatches = 4; change one"):
        Training("memory", PPO(num_envs=6, rollout_length=8), policy="gru")
    with pytest.raises(ValueError, match="state_size and memory_steps must be at least 1"):
        GRU(state_size=0)


def test_pictures_and_masks_reach_the_cell(monkeypatch):
    space = spaces.Dict({
        "picture": spaces.Box(0, 255, (12, 12, 3), np.uint8), "number": BOX,
        "action_mask": spaces.Box(0, 1, (3,), np.int8),
    })  # fmt: skip
    three, alone = (start(monkeypatch, LSTM(state_size=6), seeds=s, vmap=True, space=space) for s in ((0, 1, 2), (2,)))
    for _ in range(2):
        assert three.iterate()["first_log_ratio"].max() < 1e-5
        alone.iterate()
    assert different(state(three, 2), state(alone)) == []


def test_evaluation_forgets_where_an_episode_ends():
    env = FakeEnv(BOX, THREE, 4, [0, 1])
    population = Population(lambda: SMALL["gru"].build(BOX, THREE), BOX, THREE, (0, 1), {})
    population.act(torch.randn(2, 4, 3), population.noise(1, 4)[0])
    assert population.state is not None and population.state.any(-1).all()
    population.forget(np.array([1, 6]))
    kept = population.state.flatten(0, 1).any(-1)
    assert kept.tolist() == [True, False, True, True, True, True, False, True] and env.num_rows == 8


def test_the_cloud_refuses_a_memory():
    env = ridgeline.make("memory", 1)
    policy = SMALL["gru"].build(env.observation_space, env.action_space)
    with pytest.raises(ValueError, match="the cloud is of policies without memory in environments of one agent"):
        measure("memory", policy, SMALL["gru"], {"gae": GAE()}, Settings(4, 8), num_threads=1)


@pytest.mark.slow
def test_memory_over_64_steps_is_solved_with_a_gru_and_not_without():
    """Four runs each. Without memory the answer cannot depend on the cue: a policy's return is a fair coin's, 0."""
    ppo = PPO(num_envs=32, rollout_length=128)
    settings = {"total_steps": 500_000, "num_runs": 4, "parameters": {"delay": 64}}
    solved = ridgeline.evaluate(ridgeline.train("memory", ppo, policy="gru", **settings), episodes=400)
    assert min(solved.episode_return) > 0.95, solved.episode_return
    without = ridgeline.evaluate(ridgeline.train("memory", ppo, policy="mlp", **settings), episodes=400)
    assert max(map(abs, without.episode_return)) < 0.2, without.episode_return  # four standard errors of 1/20
