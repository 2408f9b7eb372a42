"""Action distributions against closed forms, finite sums and quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from ridgeline.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    draw_noise,
    make_distribution,
    num_outputs,
)
from ridgeline.policies import clip_action

ALMOST_ONE = 1 - 2.0**-24  # the largest float32 below 1, which uniform noise can be
INF = math.inf


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def probabilities(logits: list[float]) -> list[float]:
    weights = [math.exp(z) for z in logits]
    return [weight / sum(weights) for weight in weights]


# --------------------------------------------------------------------------------------------------------- categorical


def test_categorical_against_finite_sums():
    logits, other = normal(5, 4), normal(5, 4, seed=1)
    distribution = Categorical(logits)
    entropy, kl = distribution.entropy(), distribution.kl(Categorical(other))
    for row in range(5):
        p, q = probabilities(logits[row].tolist()), probabilities(other[row].tolist())
        for action in range(4):
            log_prob = Categorical(logits[row]).log_prob(torch.tensor(action))
            assert log_prob.item() == pytest.approx(math.log(p[action]), abs=1e-12)
        assert entropy[row].item() == pytest.approx(-sum(x * math.log(x) for x in p), abs=1e-12)
        assert kl[row].item() == pytest.approx(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)), abs=1e-12)
        assert distribution.mode()[row].item() == p.index(max(p))


def test_categorical_score():
    """The gradient of log pi(a) with respect to the logits is e_a - p, and its mean under pi is zero."""
    logits = normal(4).requires_grad_()
    p = torch.tensor(probabilities(logits.tolist()), dtype=torch.float64)
    mean = torch.zeros(4, dtype=torch.float64)
    for action in range(4):
        (score,) = torch.autograd.grad(Categorical(logits).log_prob(torch.tensor(action)), logits)
        assert (score - (torch.eye(4)[action] - p)).abs().max() < 1e-12
        mean += p[action] * score
    assert mean.abs().max() < 1e-12


def test_categorical_sample_is_the_inverse_distribution_function():
    """Of n evenly spaced numbers, an action of probability p gets n p, give or take the two at its ends."""
    logits, count = normal(7, seed=2), 100_000
    noise = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found = torch.bincount(Categorical(logits.expand(count, 7)).sample(noise), minlength=7)
    for action, p in enumerate(probabilities(logits.tolist())):
        assert abs(found[action].item() - count * p) <= 1


def test_categorical_sample_frequencies():
    """With the noise that training draws: within 5 standard errors."""
    logits, count = normal(5, seed=3, dtype=torch.float32), 200_000
    noise = torch.from_numpy(draw_noise(spaces.Discrete(5), np.random.default_rng(0), (count,)))
    found = torch.bincount(Categorical(logits.expand(count, 5)).sample(noise), minlength=5)
    for action, p in enumerate(probabilities(logits.tolist())):
        assert abs(found[action].item() - count * p) < 5 * math.sqrt(count * p * (1 - p))


def test_an_impossible_action_is_never_taken():
    """Whatever the noise and the rounding of the sums: of 20,000 random masked policies, none picks one."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(20_000, 6, generator=generator)
    masked = torch.rand(20_000, 6, generator=generator) < 0.5
    masked[:, 5] = True
    masked[torch.arange(20_000), torch.randint(5, (20_000,), generator=generator)] = False
    distribution = Categorical(logits.masked_fill(masked, -INF))
    for noise in (0.0, 0.5, ALMOST_ONE):
        action = distribution.sample(torch.full((20_000,), noise))
        assert not masked.gather(1, action.unsqueeze(1)).any()


def test_masked_actions_do_not_count():
    """Entropy, KL and their gradients are those of the distribution over the possible actions alone."""
    logits, other = normal(3), normal(3, seed=1)
    masked = [torch.cat([x[:2], torch.tensor([-INF], dtype=torch.float64), x[2:]]) for x in (logits, other)]
    for tensor in (logits, *masked):
        tensor.requires_grad_()
    full, small = Categorical(masked[0]), Categorical(logits)
    for one, two in (
        (full.entropy(), small.entropy()),
        (full.kl(Categorical(masked[1])), small.kl(Categorical(other))),
        (full.log_prob(torch.tensor(3)), small.log_prob(torch.tensor(2))),
    ):
        assert one.item() == pytest.approx(two.item(), abs=1e-12)
        (gradient,) = torch.autograd.grad(one, masked[0], retain_graph=True)
        (expected,) = torch.autograd.grad(two, logits, retain_graph=True)
        assert gradient[2] == 0
        assert (gradient[[0, 1, 3]] - expected).abs().max() < 1e-12
    certain = Categorical(torch.tensor([0.0, -INF]))
    assert certain.entropy() == 0 and certain.kl(certain) == 0
    assert Categorical(torch.zeros(2)).kl(certain) == INF


# ------------------------------------------------------------------------------------------------- several categoricals


def test_multi_categorical_against_the_sum_over_all_actions():
    sizes = (2, 3, 4)
    logits, other = normal(9), normal(9, seed=1)
    distribution, second = MultiCategorical(logits, sizes), MultiCategorical(other, sizes)
    p = [probabilities(part.tolist()) for part in logits.split(sizes)]
    q = [probabilities(part.tolist()) for part in other.split(sizes)]
    total = entropy = kl = 0.0
    for action in itertools.product(*map(range, sizes)):
        one, two = (math.prod(part[a] for part, a in zip(parts, action, strict=True)) for parts in (p, q))
        assert distribution.log_prob(torch.tensor(action)).item() == pytest.approx(math.log(one), abs=1e-12)
        total, entropy, kl = total + one, entropy - one * math.log(one), kl + one * math.log(one / two)
    assert total == pytest.approx(1)
    assert distribution.entropy().item() == pytest.approx(entropy, abs=1e-12)
    assert distribution.kl(second).item() == pytest.approx(kl, abs=1e-12)
    assert distribution.mode().tolist() == [part.index(max(part)) for part in p]


def test_multi_categorical_samples_each_part_by_its_own_noise():
    sizes = (2, 3)
    logits = normal(1, 5).expand(1000, 5)
    noise = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    action = MultiCategorical(logits, sizes).sample(noise)
    for i, part in enumerate(logits.split(sizes, -1)):
        assert torch.equal(action[:, i], Categorical(part).sample(noise[:, i]))


# ------------------------------------------------------------------------------------------------------------- Gaussian


def gaussian(seed, dimensions=3):
    mean = normal(dimensions, seed=seed).requires_grad_()
    return mean, (0.5 * normal(dimensions, seed=seed + 1)).requires_grad_()


def expectation(distribution, function) -> torch.Tensor:
    """E[f(a)] by Gauss-Hermite quadrature in 3 dimensions: exact for polynomials up to degree 9 in each."""
    points, weights = np.polynomial.hermite_e.hermegauss(5)
    noise = torch.tensor(list(itertools.product(points, repeat=3)))
    weight = torch.tensor([math.prod(w) for w in itertools.product(weights, repeat=3)]) / (2 * math.pi) ** 1.5
    values = function(distribution.sample(noise).detach())
    return (weight.view(-1, *[1] * (values.dim() - 1)) * values).sum(0)


def test_gaussian_log_prob_is_the_sum_of_log_densities():
    mean, log_std = gaussian(0)
    action = normal(6, 3, seed=9)
    log_prob = DiagonalGaussian(mean, log_std).log_prob(action)
    for row in range(6):
        total = 0.0
        for a, m, s in zip(action[row].tolist(), mean.tolist(), log_std.exp().tolist(), strict=True):
            total += math.log(math.exp(-((a - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi)))
        assert log_prob[row].item() == pytest.approx(total, abs=1e-12)


def test_gaussian_entropy_and_kl_are_expectations():
    p, q = DiagonalGaussian(*gaussian(0)), DiagonalGaussian(*gaussian(5))
    assert p.entropy().item() == pytest.approx(-expectation(p, p.log_prob).item(), abs=1e-10)
    difference = expectation(p, lambda action: p.log_prob(action) - q.log_prob(action))
    assert p.kl(q).item() == pytest.approx(difference.item(), abs=1e-10)
    assert p.kl(p).item() == pytest.approx(0, abs=1e-12)
    assert torch.equal(p.mode(), p.mean)


def test_gaussian_score():
    """(a - mu) / sigma^2 and ((a - mu) / sigma)^2 - 1, both of mean zero."""
    mean, log_std = gaussian(0)
    distribution = DiagonalGaussian(mean, log_std)

    def score(action):
        rows = [torch.autograd.grad(distribution.log_prob(a), (mean, log_std), retain_graph=True) for a in action]
        return torch.stack([torch.cat(row) for row in rows])

    action = normal(4, 3, seed=9)
    z = (action - mean) / log_std.exp()
    assert (score(action) - torch.cat([z / log_std.exp(), z * z - 1], 1)).abs().max() < 1e-12
    assert expectation(distribution, score).abs().max() < 1e-12


def test_gaussian_samples():
    """Mean and standard deviation of 200,000 samples with the noise that training draws, within 5 standard errors."""
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    count, std = 200_000, log_std.exp()
    noise = torch.from_numpy(draw_noise(spaces.Box(-1, 1, (2,)), np.random.default_rng(0), (count,)))
    action = DiagonalGaussian(mean.expand(count, 2), log_std).sample(noise)
    assert ((action.mean(0) - mean).abs() < 5 * std / math.sqrt(count)).all()
    assert ((action.std(0) - std).abs() < 5 * std / math.sqrt(2 * count)).all()


# ---------------------------------------------------------------------------------------------------- spaces and noise


@pytest.mark.parametrize(
    ("space", "outputs", "shape", "kind"),
    [
        (spaces.Discrete(4), 4, (), Categorical),
        (spaces.MultiDiscrete([2, 3]), 5, (2,), MultiCategorical),
        (spaces.Box(-1, 1, (3,)), 3, (3,), DiagonalGaussian),
    ],
)
def test_spaces(space, outputs, shape, kind):
    assert num_outputs(space) == outputs
    distribution = make_distribution(space, torch.zeros(6, outputs), torch.zeros(3))
    assert isinstance(distribution, kind)
    noise = draw_noise(space, np.random.default_rng(0), (6,))
    assert noise.dtype == np.float32 and noise.shape == (6, *shape)
    action = distribution.sample(torch.from_numpy(noise))
    assert action.shape == (6, *shape)
    assert distribution.log_prob(action).shape == distribution.entropy().shape == (6,)
    assert all(space.contains(one.astype(space.dtype)) for one in clip_action(space, action.numpy()))


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2, 2)), spaces.MultiDiscrete([[2, 2], [2, 2]]), spaces.Text(3)])
def test_other_spaces_are_refused(space):
    with pytest.raises(ValueError, match="is not supported; use Discrete, or MultiDiscrete or Box of one dimension"):
        num_outputs(space)


def test_torch_func_carries_distributions():
    """A distribution may cross the border of a vmap, as an argument and as a result."""
    for space, outputs in ((spaces.Discrete(3), 3), (spaces.MultiDiscrete([2, 2]), 4), (spaces.Box(-1, 1, (2,)), 2)):
        output, log_std = normal(5, 7, outputs), torch.zeros(7, 2)
        distributions = torch.vmap(lambda x, s, space=space: make_distribution(space, x, s))(
            output, log_std.expand(5, 7, 2)
        )
        entropy = torch.vmap(lambda distribution: distribution.entropy())(distributions)
        assert torch.equal(entropy, make_distribution(space, output, log_std).entropy())
