"""PPO: its gradient at ratio 1, its clipping, its value loss, its settings; the other losses where they agree."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.trpo import TRPO
from ridgeline.algorithms.vpg import VPG
from ridgeline.distributions import Categorical
from ridgeline.estimators.gae import generalized_advantage
from ridgeline.estimators.monte_carlo import MonteCarlo, reward_to_go
from ridgeline.policies import MLP
from ridgeline.training import Training

PLAIN = PPO(normalize_advantage=False)
SMALL = PPO(num_envs=8, rollout_length=16)


def coefficients(**changes) -> dict[str, torch.Tensor]:
    values = {"clip_coef": 0.2, "entropy_coef": 0.0, "value_coef": 0.0, "value_scale": 1.0} | changes
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def make_policy(action_space, **settings) -> nn.Module:
    """A float64 policy with random weights in its heads too."""
    torch.manual_seed(0)
    policy = MLP(hidden_sizes=(8,), **settings).build(spaces.Box(-1, 1, (3,)), action_space).double()
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.5)
    return policy


def make_minibatch(policy, action_space, rows=64) -> dict[str, torch.Tensor]:
    """Actions of the policy itself, with its own log-probabilities, and any advantage and target."""
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        distribution, _ = policy(observation)
        noise = torch.rand if isinstance(action_space, spaces.Discrete) else torch.randn
        action = distribution.sample(noise(rows, *action_space.shape, generator=generator, dtype=torch.float64))
        log_prob = distribution.log_prob(action)
    advantage, target = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    return {
        "observation": observation, "action": action, "log_prob": log_prob, "advantage": advantage,
        "target": target.unsqueeze(-1),
    }  # fmt: skip


def gradient(loss, policy) -> torch.Tensor:
    gradients = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    pairs = zip(gradients, policy.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


SPACES = [spaces.Discrete(3), spaces.Box(-1, 1, (2,))]


@pytest.mark.parametrize("action_space", SPACES)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("algorithm", [PPO, VPG])
def test_at_ratio_one_the_gradient_is_the_policy_gradient(algorithm, normalize, action_space):
    """For the same advantage, that of minus the mean of log pi(a|s) times advantage; REINFORCE's without an entropy."""
    policy = make_policy(action_space)
    minibatch = make_minibatch(policy, action_space)
    loss, metrics = algorithm(normalize_advantage=normalize).loss(policy, minibatch, coefficients())
    advantage = minibatch["advantage"]
    if normalize:
        advantage = (advantage - advantage.mean()) / advantage.std(correction=0)
    distribution, _ = policy(minibatch["observation"])
    plain = -(distribution.log_prob(minibatch["action"]) * advantage).mean()
    expected = gradient(plain, policy)
    assert expected.abs().max() > 1e-3
    assert (gradient(loss, policy) - expected).abs().max() < 1e-7
    assert metrics["max_log_ratio"] == 0


def test_entropy_and_value_terms():
    """The loss is policy loss plus value_coef times half the squared error in units of its scale, minus the entropy."""
    action_space = SPACES[0]
    policy = make_policy(action_space)
    minibatch = make_minibatch(policy, action_space)
    distribution, value = policy(minibatch["observation"])
    error = 0.5 * (value.squeeze(-1) - minibatch["target"].squeeze(-1)).square().mean() / 4
    entropy = distribution.entropy().mean()
    settings = coefficients(value_coef=0.7, entropy_coef=0.03, value_scale=2.0)
    for algorithm in (PLAIN, VPG(normalize_advantage=False)):
        base, _ = algorithm.loss(policy, minibatch, coefficients())
        loss, metrics = algorithm.loss(policy, minibatch, settings)
        assert metrics["value_loss"].item() == pytest.approx(error.item())
        assert metrics["entropy"].item() == pytest.approx(entropy.item())
        assert (loss - base).item() == pytest.approx((0.7 * error - 0.03 * entropy).item())
    without = {name: tensor for name, tensor in minibatch.items() if name != "target"}
    for algorithm in (PLAIN, VPG(), REINFORCE()):
        loss, metrics = algorithm.loss(policy, without, settings)
        assert "value_loss" not in metrics
        critic = [
            name.startswith(("critic", "value")) for name, p in policy.named_parameters() for _ in range(p.numel())
        ]
        assert not gradient(loss, policy)[torch.tensor(critic)].any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),  # far enough in the direction that the advantage asks for
        (0.5, 2.0, -1.0, True),  # moved the wrong way: no clipping
        (1.5, -2.0, 3.0, True),
        (0.5, -2.0, 1.6, False),
        (0.9, -2.0, 1.8, True),
    ],
)
def test_clipping(ratio, advantage, loss, moves):
    logits = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    policy = lambda observation: (Categorical(logits.expand(1, 2)), torch.zeros(1, 1))  # noqa: E731
    log_prob = Categorical(logits).log_prob(torch.tensor(0)).detach() - math.log(ratio)
    minibatch = {
        "observation": torch.zeros(1, 1),
        "action": torch.zeros(1, dtype=torch.int64),
        "log_prob": log_prob.unsqueeze(0),
        "advantage": torch.tensor([advantage], dtype=torch.float64),
    }
    found, metrics = PLAIN.loss(policy, minibatch, coefficients())
    assert found.item() == pytest.approx(loss)
    (slope,) = torch.autograd.grad(found, logits)
    p = logits.softmax(0).detach()
    expected = -ratio * advantage * (torch.tensor([1.0, 0.0]) - p) if moves else torch.zeros(2)
    assert torch.allclose(slope, expected.double(), atol=1e-12)
    assert metrics["clip_fraction"] == float(abs(ratio - 1) > 0.2)
    assert metrics["approximate_kl"].item() == pytest.approx(ratio - 1 - math.log(ratio))


# ---------------------------------------------------------------------------------------------------- an enumerated MDP

STATES, ACTIONS, STEPS = 2, 2, 3


@pytest.fixture(scope="module")
def enumerated():
    """All 64 trajectories of 3 steps through 2 states, as columns; parameters, and the exact gradient of the return."""
    generator = np.random.default_rng(0)
    transition = torch.from_numpy(generator.dirichlet(np.ones(STATES), (STATES, ACTIONS)))
    reward = torch.from_numpy(generator.normal(size=(STATES, ACTIONS, STATES)))
    logits = torch.from_numpy(generator.normal(size=(STATES, ACTIONS))).requires_grad_()
    policy = logits.softmax(-1)
    value = torch.zeros(STATES, dtype=torch.float64)
    for _ in range(STEPS):
        value = (policy.unsqueeze(-1) * transition * (reward + value)).sum((1, 2))
    (exact,) = torch.autograd.grad(value[0], logits)

    columns = list(itertools.product(itertools.product(range(ACTIONS), range(STATES)), repeat=STEPS))
    state = torch.zeros(STEPS, len(columns), dtype=torch.int64)
    action, rewards, chance = state.clone(), torch.zeros(state.shape, dtype=torch.float64), torch.ones(len(columns))
    chance = chance.double()
    for column, steps in enumerate(columns):
        here = 0
        for t, (chosen, following) in enumerate(steps):
            state[t, column], action[t, column] = here, chosen
            rewards[t, column] = reward[here, chosen, following]
            chance[column] *= policy[here, chosen].item() * transition[here, chosen, following]
            here = following
    assert chance.sum().item() == pytest.approx(1)
    return logits, exact, state, action, rewards, chance


def expected_gradient(algorithm, logits, state, action, advantage, chance) -> torch.Tensor:
    """E over trajectories of the sum over steps: the loss takes means, so each is weighted by its chance."""
    weight = chance * advantage.numel()
    minibatch = {
        "observation": state.flatten(),
        "action": action.flatten(),
        "log_prob": Categorical(logits[state.flatten()]).log_prob(action.flatten()).detach(),
        "advantage": (weight * advantage).flatten(),
    }
    policy = lambda observation: (Categorical(logits[observation]), torch.zeros(len(observation), 1))  # noqa: E731
    loss, _ = algorithm.loss(policy, minibatch, coefficients())
    return -torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize("algorithm", [PLAIN, VPG(normalize_advantage=False), REINFORCE(standardize_return=False)])
def test_the_expected_gradient_is_that_of_the_return(enumerated, algorithm):
    """Whatever the baseline: reward-to-go alone, less any function of step and state, and GAE with lambda = 1."""
    logits, exact, state, action, reward, chance = enumerated
    last = torch.arange(STEPS).unsqueeze(1).expand_as(state) == STEPS - 1
    none, no = torch.full_like(reward, math.nan), torch.zeros_like(last)
    baseline = torch.tensor([[0.3, -2.0], [5.0, 1.0], [-1.0, 0.5]], dtype=torch.float64)
    value = baseline.gather(1, state)
    next_value = torch.cat([value[1:], none[:1]])
    to_go = reward_to_go(reward, none, last, no, 1.0)
    for advantage in (
        to_go,
        to_go - value,
        generalized_advantage(reward, value, next_value, last, no, 1.0, 1.0)[0],
    ):
        found = expected_gradient(algorithm, logits, state, action, advantage, chance)
        assert (found - exact).abs().max() < 1e-12
    assert exact.abs().max() > 0.01
    wrong = generalized_advantage(reward, value, next_value, last, no, 1.0, 0.5)[0]  # a wrong critic biases it
    assert (expected_gradient(algorithm, logits, state, action, wrong, chance) - exact).abs().max() > 0.01


# ------------------------------------------------------------------------------------------------------------- settings


def test_divisibility():
    message = (
        "rollout_length x num_envs = 96 is not divisible by num_minibatches = 5; "
        "use one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48"
    )
    with pytest.raises(ValueError) as error:
        PPO(num_envs=8, rollout_length=12, num_minibatches=5)
    assert str(error.value) == message
    for name in ("num_envs", "rollout_length", "num_epochs", "num_minibatches"):
        with pytest.raises(ValueError, match="must be at least 1"):
            PPO(**{name: 0})


def test_the_learning_rate_falls_to_zero():
    for anneal in (True, False):
        algorithm = dataclasses.replace(SMALL, learning_rate=0.004, anneal_learning_rate=anneal)
        training = Training("cartpole", algorithm, total_steps=4 * 128, num_threads=1)
        rates = [training.iterate()["learning_rate"][0] for _ in range(4)]
        assert training.finished
        assert rates == pytest.approx([0.004, 0.003, 0.002, 0.001] if anneal else [0.004] * 4)


def test_the_clip_coefficient_falls_to_zero():
    """With a quarter of the training left, the loss of minibatches is that of a quarter of clip_coef; the entropy and
    what is not annealed stay."""
    policy = make_policy(spaces.Discrete(3))
    minibatch = make_minibatch(policy, spaces.Discrete(3))
    minibatch["log_prob"] -= torch.linspace(-0.4, 0.4, 64, dtype=torch.float64)
    falling = coefficients(anneal_clip_coef=1.0, progress=0.75)
    found, quarter, whole = (PLAIN.loss(policy, minibatch, c)[0].item() for c in (
        falling, coefficients(clip_coef=0.05), coefficients(anneal_clip_coef=0.0, progress=0.75)
    ))  # fmt: skip
    assert found == pytest.approx(quarter, rel=1e-12) and abs(found - whole) > 1e-3
    assert whole == PLAIN.loss(policy, minibatch, coefficients())[0].item()


def test_target_kl_ends_the_epochs_of_its_run_alone():
    """Each run stops after the first minibatch whose KL exceeds it; without a bound all 16 updates are made."""
    algorithms = [dataclasses.replace(SMALL, target_kl=0.002, learning_rate=rate) for rate in (1e-6, 3e-2)]
    training = Training("cartpole", algorithms, total_steps=1000, num_threads=1)
    training.iterate()
    calm, wild = training.shards[0].population.update_count.tolist()
    assert calm == 16 and 1 < wild < 16
    training.iterate()
    assert training.shards[0].population.update_count[1] < 32


def test_epochs_and_minibatches_make_updates():
    training = Training("cartpole", dataclasses.replace(SMALL, num_epochs=3, num_minibatches=8), total_steps=1000)
    training.iterate()
    assert training.shards[0].population.update_count.tolist() == [24]


def test_without_a_critic_the_value_head_is_left_alone():
    training = Training("cartpole", SMALL, MonteCarlo(baseline="none"), total_steps=1000, num_runs=2, num_threads=1)
    population = training.shards[0].population
    before = {name: population.view(name).clone() for name in population.shapes}
    metrics = training.iterate()
    assert "value_loss" not in metrics and "explained_variance" not in metrics
    for name, tensor in before.items():
        assert torch.equal(population.view(name), tensor) == name.startswith(("critic", "value_head")), name
    assert population.memory["return_to_go"].shape == (2,) and (population.memory["return_to_go"] > 1).all()


def test_the_critic_alone_does_not_move_the_actor():
    """VPG's critic steps leave the actor's parameters, Adam's momentum for them and their step count alone."""
    algorithm = VPG(num_envs=4, rollout_length=8, num_value_updates=3)
    for shared_trunk in (False, True):
        training = Training(
            "cartpole", algorithm, "gae", MLP(shared_trunk=shared_trunk), total_steps=1000, num_runs=2, num_threads=1
        )
        population, counts = training.shards[0].population, {}
        training.iterate()
        for name, count in zip(population.shapes, population.step_count[0].tolist(), strict=True):
            counts[name.split(".")[0]] = count
        assert counts["action_head"] == 1
        # the first value is the mean of its targets, which may leave its bias no gradient
        assert counts["value_head"] in (3, 4)
        assert counts["actor"] == (4 if shared_trunk else 1)
    assert population.update_count.tolist() == [4, 4]


def test_value_clipping_by_hand():
    """V = 2, V_old = 1, σ = 2, ε_v = 0.1: clipped to 1.2. Target 0: (2/2)² = 1 wins over (1.2/2)² = 0.36; target 3:
    (1.8/2)² = 0.81 wins over (1/2)² = 0.25. Within the limit nothing changes."""
    value, old = torch.tensor([[2.0], [2.0], [1.1]]), torch.ones(3, 1)
    minibatch = {"value": old, "target": torch.tensor([[0.0], [3.0], [0.0]])}
    loss = PPO(value_clip_coef=0.1).value_loss(value, minibatch, torch.tensor([2.0]))
    assert loss.item() == pytest.approx(0.5 * (1 + 0.81 + 0.3025) / 3)
    loss = PPO().value_loss(value, minibatch, torch.tensor([2.0]))
    assert loss.item() == pytest.approx(0.5 * (1 + 0.25 + 0.3025) / 3)


@pytest.mark.parametrize("algorithm", [PPO(), PPO(value_clip_coef=0.1), A2C(), VPG(), REINFORCE(), TRPO()])
def test_a_head_learns_beside_others_as_alone(algorithm):
    """The gradient at each of three heads' outputs is what it is where the critic has that head alone."""
    generator = torch.Generator().manual_seed(0)
    parts = {name: torch.randn(50, 3, generator=generator).double() for name in ("value", "target", "predicted")}
    parts["target_weight"], scale = torch.rand(50, 3, generator=generator), [0.5, 1.0, 20.0]

    def gradient_of(heads):
        minibatch = {name: part[:, heads] for name, part in parts.items()}
        predicted = minibatch.pop("predicted").clone().requires_grad_()
        rest = torch.zeros(50)
        minibatch |= {"observation": rest, "action": rest.long(), "log_prob": rest, "advantage": rest}
        settings = coefficients(value_coef=0.7, value_scale=[scale[head] for head in heads])

        def policy(observation):
            return Categorical(torch.zeros(50, 2)), predicted

        loss = algorithm.value_loss if isinstance(algorithm, TRPO) else algorithm.loss
        return torch.autograd.grad(loss(policy, minibatch, settings)[0], predicted)[0]

    together = gradient_of([0, 1, 2])
    assert (together != 0).any(0).all()  # the test can tell
    for head in range(3):
        torch.testing.assert_close(together[:, [head]], gradient_of([head]))
