"""What acting stores: the value of the state that truly followed, and minibatches of the right cells."""

import pytest
import torch
from torch import nn

from ridgeline.distributions import Categorical
from ridgeline.kernel import define
from ridgeline.population import Population
from ridgeline.rollout import Estimate, Rollout, collect
from ridgeline.vector import CompiledEnv

COUNTER = """
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype, uniform

State = state_dtype(count=np.int64, start=np.int64)
observation_space = spaces.Box(0, 1e6, (2,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 5


def reset(state, p):
    state.start = 100 * int(uniform(state) * 50)
    state.count = 0


def step(state, action, p):
    state.count += 1
    return float(state.start + state.count), uniform(state) < 0.15


def observe(state, observation, p):
    observation[0] = state.start + state.count
    observation[1] = 1.0
"""


class Reader(nn.Module):
    """Its value is ten times the first number that it sees."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(10.0))

    def forward(self, observation):
        return Categorical(torch.zeros(*observation.shape[:-1], 2)), self.factor * observation[..., :1]


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """An environment that counts: what follows is always the observation plus one. As plain Python, uncompiled."""
    path = tmp_path_factory.mktemp("counter") / "counter.py"
    path.write_text(COUNTER)
    return define(path, compile=False)


@pytest.mark.parametrize(("runs", "vmap"), [(1, False), (3, True)])
def test_next_value_is_the_value_of_the_state_that_followed(counter, runs, vmap):
    """At every row that is not terminated: after a step, at a time limit, and at the cut; over several rollouts."""
    env = CompiledEnv(counter, 4, range(runs))
    population = Population(Reader, env.observation_space, env.action_space, range(runs), {}, vmap)
    limits = 0
    for _ in range(4):
        rollout = collect(env, population, 7)
        assert torch.equal(rollout.value[..., 0], 10 * rollout.observation[:-1, :, 0])
        goes_on = ~rollout.terminated
        expected = 10 * (rollout.observation[:-1, :, 0] + 1)
        assert torch.equal(rollout.next_value[..., 0][goes_on], expected[goes_on])
        same = goes_on & ~rollout.truncated
        assert torch.equal(rollout.observation[1:, :, 0][same], rollout.observation[:-1, :, 0][same] + 1)
        assert torch.equal(rollout.reward[goes_on], rollout.observation[:-1, :, 0][goes_on] + 1)
        ends = rollout.terminated | rollout.truncated
        assert len(rollout.episode_row) == ends.sum() and len(rollout.episode) == ends.sum()
        assert rollout.episode_row.tolist() == ends.nonzero()[:, 1].tolist()
        limits += int((rollout.truncated & goes_on).sum())
    assert limits > 5 and not population.frozen.any()


def test_minibatch_rows_are_the_cells_that_were_asked_for():
    """Cell t of environment n of run r holds the number 10,000 r + 100 t + n, in every field."""
    steps, runs, envs = 6, 3, 5
    t, r, n = torch.meshgrid(torch.arange(steps), torch.arange(runs), torch.arange(envs), indexing="ij")
    cell = (10_000 * r + 100 * t + n).flatten(1)
    flags = torch.zeros(steps, runs * envs, dtype=torch.bool)
    observation = torch.cat([cell, cell[:1] + 10**6]).unsqueeze(-1).float()
    value = cell.unsqueeze(-1).float()
    rollout = Rollout(runs, observation, cell, cell.float(), value, value, cell.float(), flags, flags)
    estimate = Estimate(cell.float(), value)
    order = torch.stack([torch.randperm(steps * envs, generator=torch.Generator().manual_seed(k)) for k in range(runs)])
    for index in order.chunk(3, 1):
        minibatch = rollout.rows(index, estimate)
        expected = 10_000 * torch.arange(runs).unsqueeze(1) + 100 * (index // envs) + index % envs
        assert torch.equal(minibatch["action"], expected)
        for name in ("log_prob", "advantage"):
            assert torch.equal(minibatch[name], expected.float())
        for name in ("observation", "target"):
            assert torch.equal(minibatch[name], expected.float().unsqueeze(-1))
    assert "target" not in rollout.rows(order, Estimate(cell.float(), None))
    everything = rollout.everything(estimate)["action"]
    assert torch.equal(everything, rollout.by_run(cell).transpose(0, 1).flatten(1))
