"""Adam and Muon of many runs: against torch.optim, against singular values, and each run as it is alone."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import ridgeline
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.trpo import TRPO
from ridgeline.distributions import Categorical
from ridgeline.environments import make
from ridgeline.optimizers import OPTIMIZERS, RMSPROP, muon_matrices, orthogonalize, update
from ridgeline.policies import MLP
from ridgeline.population import Population
from ridgeline.training import Training

SMALL = PPO(num_envs=8, rollout_length=16, num_epochs=2, optimizer="muon")
ODD = PPO(num_envs=5, rollout_length=13, num_minibatches=5, num_epochs=2, optimizer="muon")
SHAPES = [(64, 4), (4, 64), (17, 9), (9, 17), (33, 33), (1, 8), (8, 1), (7,), (6, 3, 2, 2)]
MATRICES = [(64, 4), (4, 64), (17, 9), (9, 17), (33, 33), (0, 0), (0, 0), (0, 0), (6, 12)]


@pytest.fixture
def float32(monkeypatch):
    """torch.optim.Muon orthogonalises in float32, as ours."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


class Arrays:
    """What `update` is called with: parameters, gradients and state of several runs."""

    def __init__(self, optimizer: str, shapes, runs: int):
        self.generator = np.random.default_rng(0)
        self.matrices = muon_matrices(optimizer, shapes)
        self.starts = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        self.flat = self.generator.normal(size=(runs, self.starts[-1])).astype(np.float32)
        self.gradient, self.first, self.second = (np.zeros_like(self.flat) for _ in range(3))
        self.count = np.zeros((runs, len(shapes)), np.int64)
        self.rate, self.limit = np.full_like(self.count, 0.01, np.float32), np.full(runs, np.inf, np.float32)
        self.rmsprop = RMSPROP.get(optimizer, 0)
        self.allowed, self.norm = np.ones(runs, bool), np.empty(runs, np.float32)

    def draw(self) -> None:
        self.gradient[:] = self.generator.normal(size=self.flat.shape)

    def update(self) -> None:
        update(self.flat, self.gradient, self.first, self.second, self.starts, self.matrices, self.rmsprop, self.count,
               self.rate, self.limit, self.allowed, self.norm)  # fmt: skip

    def state(self, run: int) -> list[np.ndarray]:
        return [array[run].copy() for array in (self.flat, self.first, self.second, self.count)]


class Reference:
    """torch's Muon for matrices, filters flattened, and torch's Adam for the rest; one run."""

    def __init__(self, parameters, rate: float):
        muon = [p for p in parameters if p.dim() > 1 and min(p.flatten(1).shape) > 1]
        adam = [p for p in parameters if p.dim() < 2 or min(p.flatten(1).shape) == 1]
        options = {"weight_decay": 0, "adjust_lr_fn": "match_rms_adamw"}
        self.optimizers = [torch.optim.Muon(muon, rate, **options), torch.optim.Adam(adam, rate, eps=1e-5)]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


# -------------------------------------------------------------------------------------------------------- what is right


def test_which_parameters_are_muons():
    assert muon_matrices("muon", SHAPES).tolist() == [list(size) for size in MATRICES]
    assert not muon_matrices("adam", SHAPES).any()
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; choose from adam, muon, rmsprop, rmsprop_tf"):
        muon_matrices("sgd", SHAPES)


def test_muon_equals_torch(float32):
    """Six updates of three runs, every kind of shape, with and without clipping."""
    arrays = Arrays("muon", SHAPES, 3)
    arrays.rate.T[:], arrays.limit[:] = (0.003, 0.03, 0.1), (np.inf, 5.0, 20.0)
    flattened = [(shape[0], -1) if len(shape) > 1 else shape for shape in SHAPES]
    parts = [
        [nn.Parameter(torch.from_numpy(part.copy()).view(shape)) for part, shape in zip(split, flattened, strict=True)]
        for split in (np.split(arrays.flat[run], arrays.starts[1:-1]) for run in range(3))
    ]
    references = [Reference(parameters, arrays.rate[run, 0].item()) for run, parameters in enumerate(parts)]
    clipped = set()
    for number in range(6):
        arrays.draw()
        arrays.gradient *= 0.5**number  # a fixed multiple would hide a wrong momentum
        for run, (parameters, reference) in enumerate(zip(parts, references, strict=True)):
            for p, g in zip(parameters, np.split(arrays.gradient[run], arrays.starts[1:-1]), strict=True):
                p.grad = torch.from_numpy(g.copy()).view_as(p)
            norm = nn.utils.clip_grad_norm_(parameters, arrays.limit[run].item())
            clipped |= {(run, bool(norm > arrays.limit[run]))}
            reference.step()
        arrays.update()
        for run, parameters in enumerate(parts):
            assert np.abs(arrays.flat[run] - nn.utils.parameters_to_vector(parameters).detach().numpy()).max() < 1e-5
    assert {(0, False), (1, True), (2, True), (2, False)} <= clipped
    assert not arrays.second[:, : arrays.starts[5]].any()  # Muon has no second moment


def test_rmsprop_is_torchs():
    """Eight updates of two runs, of ever smaller gradients, the second one clipped, against torch.optim.RMSprop."""
    arrays = Arrays("rmsprop", [(3, 2), (5,)], 2)
    arrays.rate[:], arrays.limit[1] = 0.02, 0.5
    parameters = [nn.Parameter(torch.from_numpy(run.copy())) for run in arrays.flat]
    reference = torch.optim.RMSprop(parameters, lr=0.02, alpha=0.99, eps=1e-5)
    for number in range(8):
        arrays.draw()
        arrays.gradient *= 10.0**-number
        for parameter, gradient in zip(parameters, torch.from_numpy(arrays.gradient.copy()), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters[1:], 0.5)
        reference.step()
        arrays.update()
        assert np.abs(arrays.flat - torch.stack(parameters).detach().numpy()).max() < 1e-6
    assert not arrays.first.any()


def test_rmsprop_tf_has_its_epsilon_inside_the_root():
    """Eight updates of two runs, written out in float64: the mean square starts at 1, the second run is clipped, and
    the gradients become so small that an epsilon outside the root, as torch's, would give other steps."""
    arrays = Arrays("rmsprop_tf", [(3, 2), (5,)], 2)
    arrays.rate[:], arrays.limit[1] = [[0.01, 0.02], [0.1, 0.3]], 0.5
    value, square = arrays.flat.astype(float), np.ones_like(arrays.flat, float)
    rate = arrays.rate.repeat([6, 5], 1).astype(float)
    for number in range(8):
        arrays.draw()
        arrays.gradient *= 10.0**-number
        gradient = arrays.gradient.astype(float)
        norm = np.linalg.norm(gradient[1])
        gradient[1] *= min(1.0, 0.5 / (norm + 1e-6))
        square = 0.99 * square + 0.01 * gradient**2
        value -= rate * gradient / np.sqrt(square + 1e-5)
        arrays.update()
        assert np.abs(arrays.flat - value).max() < 1e-6 and arrays.norm[1] == pytest.approx(norm, rel=1e-5)
    assert np.abs(arrays.second - square).max() < 1e-6 and not arrays.first.any()
    # where the mean square is far below epsilon, only its place decides: g / sqrt(1e-5), not g / 1e-5
    arrays.second[:], before = 0, arrays.flat.copy()
    arrays.gradient[:] = 1e-4
    arrays.update()
    step = arrays.rate.repeat([6, 5], 1) * 1e-4 / np.sqrt(1e-10 + 1e-5)
    assert (before - arrays.flat) == pytest.approx(step, rel=2e-2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 12), nn.Tanh())
        self.head = nn.Linear(12, 2)
        self.value = nn.Linear(12, 1)

    def forward(self, observation):
        x = self.layers(observation)
        return Categorical(self.head(x)), self.value(x)


def regression(policy, minibatch, coefficients):
    distribution, value = policy(minibatch["observation"])
    log_prob = distribution.log_prob(minibatch["action"])
    return (value.squeeze(-1) - minibatch["target"]).square().mean() - log_prob.mean(), {}


@pytest.mark.parametrize(("runs", "vmap"), [(1, False), (1, True), (3, True)])
def test_a_population_updates_by_muon(runs, vmap, float32):
    """Eight updates of real gradients equal torch's, run by run."""
    env = make("cartpole", 1)
    rate, limit = [0.01, 0.1, 0.003][:runs], [0.5, 1e9, 2.0][:runs]
    population = Population(
        Net, env.observation_space, env.action_space, range(runs), {"learning_rate": rate, "max_grad_norm": limit},
        vmap, optimizer="muon",
    )  # fmt: skip
    modules = [population.policy(run) for run in range(runs)]
    references = [Reference(list(module.parameters()), rate[run]) for run, module in enumerate(modules)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        minibatch = {
            "observation": torch.randn(runs, 32, 4, generator=generator),
            "action": torch.randint(2, (runs, 32), generator=generator),
            "target": 3 * torch.randn(runs, 32, generator=generator),
        }
        metrics = population.update(regression, minibatch)
        for run, (module, reference) in enumerate(zip(modules, references, strict=True)):
            module.zero_grad()
            regression(module, {name: tensor[run] for name, tensor in minibatch.items()}, {})[0].backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), limit[run])
            reference.step()
            assert metrics["gradient_norm"][run].item() == pytest.approx(norm.item(), rel=1e-3)
            difference = population.flat[run] - nn.utils.parameters_to_vector(module.parameters())
            assert difference.abs().max() < 1e-4  # rounding of the gradients, which the iteration magnifies


@pytest.mark.parametrize("shape", [(64, 64), (64, 4), (4, 64), (17, 9), (2, 130), (33, 34), (128, 128)])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e6])
def test_orthogonalized(shape, length):
    """U p(p(p(p(p(S / |S|))))) Vᵀ by NumPy in float64; singular values that are not tiny end within [0.68, 1.21]."""
    matrix = np.random.default_rng(3).normal(size=shape)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s /= np.linalg.norm(s)
    expected = s.copy()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = orthogonalize((length * matrix / np.linalg.norm(matrix)).astype(np.float32))
    assert np.abs(found - (u * expected) @ v).max() < 1e-4
    values = np.linalg.svd(found, compute_uv=False)
    assert 0.68 < values[s > 0.002].min() and values.max() < 1.21 and len(values) == min(shape)


def test_the_library_in_bfloat16_is_near():
    """What the other tests take away from torch.optim.Muon is no more than its rounding."""
    start = torch.randn(48, 24, generator=torch.Generator().manual_seed(1))
    parameter = nn.Parameter(start.clone())
    parameter.grad = torch.randn(48, 24, generator=torch.Generator().manual_seed(2))
    torch.optim.Muon([parameter], 1.0, weight_decay=0, adjust_lr_fn="match_rms_adamw").step()
    change = (start - parameter.detach()).numpy()
    own = 0.2 * 48**0.5 * orthogonalize(parameter.grad.numpy())
    assert 1e-6 < np.linalg.norm(change - own) / np.linalg.norm(own) < 0.03


# ------------------------------------------------------------------------------------------------------- what must stay


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_must_not_move_keeps_every_bit(optimizer):
    """A run that is not allowed, one with a gradient that is not finite, and parameters whose gradient is zero."""
    arrays = Arrays(optimizer, SHAPES, 4)
    arrays.draw()
    arrays.update()
    before = [arrays.state(run) for run in range(4)]
    arrays.draw()
    arrays.allowed[1] = False
    arrays.gradient[1] = np.nan
    arrays.gradient[2, 300] = np.inf
    spans = [slice(arrays.starts[i], arrays.starts[i + 1]) for i in (0, 4, 7)]
    for span in spans:
        arrays.gradient[3, span] = 0
    arrays.update()
    for run in (1, 2):
        assert all(np.array_equal(a, b) for a, b in zip(before[run], arrays.state(run), strict=True))
    assert not np.isfinite(arrays.norm[[1, 2]]).any()
    assert arrays.count[0].tolist() == [2] * 9 and arrays.count[3].tolist() == [1, 2, 2, 2, 1, 2, 2, 1, 2]
    for old, new in zip(before[3][:3], arrays.state(3)[:3], strict=True):
        assert all(np.array_equal(old[span], new[span]) for span in spans)
    moved = arrays.flat[3] != before[3][0]
    for span in spans:
        moved[span] = True
    assert moved.mean() > 0.99 and np.isfinite(arrays.flat).all()


def train(environment, seeds, iterations, algorithm, policy="mlp", num_threads=1, vmap: bool | None = True) -> Training:
    training = Training(
        environment, algorithm, "gae", policy, total_steps=10_000, seed=list(seeds), num_threads=num_threads, vmap=vmap
    )
    for _ in range(iterations):
        training.iterate()
    return training


@pytest.mark.parametrize(
    ("environment", "algorithm", "policy"),
    [
        ("cartpole", SMALL, MLP()),
        ("cartpole", ODD, MLP(hidden_sizes=(17, 6), activation="relu", shared_trunk=True)),
        ("pendulum", SMALL, MLP(hidden_sizes=(32,))),
        ("cartpole", TRPO(num_envs=4, rollout_length=16, optimizer="muon"), MLP((16, 16))),
        ("cartpole", TRPO(num_envs=4, rollout_length=16, num_minibatches=4, optimizer="rmsprop"), MLP((16,))),
        ("cartpole", dataclasses.replace(ODD, optimizer="rmsprop_tf", critic_learning_rate=1e-3), MLP((16, 16))),
    ],
)
def test_a_run_has_the_same_bits_in_every_population(environment, algorithm, policy):
    """Alone, as one of five and at another place among two: parameters and momentum."""
    five = train(environment, range(5), 2, algorithm, policy)
    two = train(environment, [4, 1], 2, algorithm, policy)
    for run in (1, 4):
        alone = train(environment, [run], 2, algorithm, policy).shards[0].population.state_dict()
        for name, tensor in alone.items():
            assert torch.equal(tensor[0], five.shards[0].population.state_dict()[name][run]), name
            assert torch.equal(tensor[0], two.shards[0].population.state_dict()[name][[4, 1].index(run)]), name
    assert five.shards[0].population.second_moment.any()
    adam = train(environment, range(5), 2, dataclasses.replace(algorithm, optimizer="adam"), policy)
    assert not torch.equal(adam.shards[0].population.flat, five.shards[0].population.flat)


class Named(Net):
    """A critic of its own, by the names that `critic_learning_rate` knows."""

    def __init__(self):
        super().__init__()
        self.critic, self.value_head = nn.Linear(4, 9), nn.Linear(9, 3)

    def forward(self, observation):
        return super().forward(observation)[0], self.value_head(self.critic(observation)).sum(-1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_critic_may_have_a_learning_rate_of_its_own(optimizer):
    """One update of two runs: the actor moves to the same bits, the critic 3 and 0.5 times as far."""
    env, generator, factor = make("cartpole", 1), torch.Generator().manual_seed(0), torch.tensor([3.0, 0.5])
    rate = {"learning_rate": [0.01, 0.02], "anneal_learning_rate": [1.0, 0.0]}
    minibatch = {
        "observation": torch.randn(2, 32, 4, generator=generator),
        "action": torch.randint(2, (2, 32), generator=generator),
        "target": torch.randn(2, 32, generator=generator),
    }

    def updated(coefficients, updates):
        population = Population(
            Named, env.observation_space, env.action_space, (0, 1), coefficients, optimizer=optimizer
        )
        population.progress.fill_(0.25)
        for _ in range(updates):
            population.update(regression, minibatch)
        return population

    start, near = updated(rate, 0), updated(rate, 1)
    far = updated(rate | {"critic_learning_rate": [0.03, 0.01]}, 1)
    for name in start.shapes:
        moved, further = (p.view(name) - start.view(name) for p in (near, far))
        if name.startswith(("critic", "value_head")):
            assert moved.any() and torch.allclose(further.flatten(1), factor[:, None] * moved.flatten(1), rtol=1e-3)
        else:
            assert torch.equal(moved, further), name
    assert far.learning_rate().tolist() == pytest.approx([0.0075, 0.02])


def test_a_policy_without_a_critic_by_name_is_told():
    with pytest.raises(ValueError, match=r"critic_learning_rate needs parameters of the critic.*layers\.0\.weight"):
        train("cartpole", [0], 1, dataclasses.replace(SMALL, optimizer="adam", critic_learning_rate=1e-3), Net)


def test_called_directly_it_is_the_same_within_rounding():
    one_update = dataclasses.replace(SMALL, num_epochs=1, num_minibatches=1)
    direct = train("cartpole", [3], 1, one_update, vmap=None).shards[0].population
    mapped = train("cartpole", [3], 1, one_update).shards[0].population
    assert not direct.mapped and (direct.flat - mapped.flat).abs().max() < 1e-6


def test_the_number_of_threads_changes_no_bit():
    found = [
        [nn.utils.parameters_to_vector(p.parameters()) for p in train("cartpole", range(4), 2, SMALL, num_threads=n,
                                                                       vmap=None).policies()]
        for n in (1, 2)
    ]  # fmt: skip
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_runs_of_one_population_share_their_optimizer():
    with pytest.raises(ValueError, match="optimizer differs between the runs of one population"):
        Training("cartpole", [SMALL, dataclasses.replace(SMALL, optimizer="adam")], total_steps=1000)


def test_resume_is_exact(tmp_path):
    """Four iterations, and two, a checkpoint, and two more from what the run directory says."""
    whole = ridgeline.train("cartpole", SMALL, total_steps=4 * 128, num_runs=2, num_threads=1)
    asked = iter([None, None, "interrupt"])
    part = ridgeline.train(
        "cartpole", SMALL, total_steps=4 * 128, num_runs=2, num_threads=1, out=tmp_path / "run",
        stop=lambda: next(asked, "interrupt"),
    )  # fmt: skip
    resumed = ridgeline.train(resume=tmp_path / "run", num_threads=1)
    assert part.total_steps < resumed.total_steps == 4 * 128 and resumed.algorithm == whole.algorithm
    for one, two, early in zip(whole.policies, resumed.policies, part.policies, strict=True):
        assert torch.equal(*(nn.utils.parameters_to_vector(policy.parameters()) for policy in (one, two)))
        assert not torch.equal(*(nn.utils.parameters_to_vector(policy.parameters()) for policy in (one, early)))


@pytest.mark.slow
def test_muon_learns_cartpole():
    """PPO, 200,000 steps, seeds 1000 to 1003, each run's last 100 episodes; measured: all 500 at 2.5e-3 to 2e-2."""
    algorithm = PPO(optimizer="muon", learning_rate=5e-3)
    result = ridgeline.train("cartpole", algorithm, total_steps=200_000, num_runs=4, seed=1000)
    assert not result.failures and np.min(np.array(result.episode_return)) >= 450
