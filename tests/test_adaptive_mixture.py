"""The adaptive mixture: unbiased statistics in a small MDP, weights from the past alone, runs kept apart."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_population import Tiny, assert_same, state

from ridgeline import mixture
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators import adaptive_mixture
from ridgeline.estimators.adaptive_mixture import (
    COUNT,
    DECAY,
    FOLDS,
    GAMMAS,
    HEAD,
    METRICS,
    PRIOR,
    TRACE,
    AdaptiveMixture,
    advantages,
    reference_error,
)  # fmt: skip
from ridgeline.policies import MLP
from ridgeline.rollout import Rollout, collect
from ridgeline.storage import LastLayer
from ridgeline.training import Training

FORMS = ("shrunk", "nonnegative", "gated")
STATISTICS = ("mass", "matrix", "vector", "outer", "square_mass")
each_form = pytest.mark.parametrize("form", FORMS)
SMALL = PPO(num_envs=4, rollout_length=8, num_epochs=2, num_minibatches=2)
TINY = MLP(hidden_sizes=(8,))


@pytest.fixture
def always_adapted(monkeypatch):
    """Every form uses its own weights as soon as there are statistics, whatever they are worth."""
    for form in FORMS:
        monkeypatch.setitem(adaptive_mixture.WARM_UP, form, 1.5)
    monkeypatch.setattr(adaptive_mixture, "GATE", -math.inf)
    monkeypatch.setattr(mixture, "SURE", 0.1)


def as_rollout(num_runs, reward, value, next_value, terminated, truncated, score, feature, free=None, iteration=0):
    """A rollout whose last layer is known: arrays (T, B, ...), NaN behind terminations as given."""
    tensor = [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (reward, value, next_value)]
    flags = [torch.from_numpy(np.ascontiguousarray(x)) for x in (terminated, truncated)]
    empty, log_prob = torch.zeros(0), torch.zeros(reward.shape)
    rollout = Rollout(num_runs, empty, empty, log_prob, tensor[1], tensor[2], tensor[0], *flags)
    free = np.zeros((*reward.shape, 0)) if free is None else free
    layer = [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (feature, score, free)]
    rollout._last_layer = LastLayer(*layer, log_prob.clone())
    rollout.population = SimpleNamespace(  # type: ignore[assignment]
        seeds=tuple(range(num_runs)), iteration=torch.full((num_runs,), iteration)
    )
    return rollout


def random_rollout(seed, num_runs=2, num_envs=5, steps=6, iteration=None) -> Rollout:
    """Random numbers whose rewards have something to do with the scores; both kinds of ends."""
    rng, rows = np.random.default_rng(seed), num_runs * num_envs
    score, feature, free = (rng.normal(size=(steps, rows, size)) for size in (3, 2, 1))
    value = rng.normal(size=(steps + 1, rows, len(GAMMAS)))
    reward = score[..., 0] + 0.5 * rng.normal(size=(steps, rows))
    terminated, truncated = (rng.random((steps, rows)) < 0.1 for _ in "12")
    next_value = np.where(terminated[..., None], np.nan, value[1:])
    iteration = seed if iteration is None else iteration
    return as_rollout(num_runs, reward, value[:-1], next_value, terminated, truncated, score, feature, free, iteration)


def after(form, rollouts):
    """The memory after these rollouts."""
    memory: dict[str, torch.Tensor] = {}
    for rollout in rollouts:
        _, memory = AdaptiveMixture(form)(rollout, memory)
    return memory


def own(memory, run):
    return {name: tensor[run].numpy() for name, tensor in memory.items()}


# ------------------------------------------------------------------------------ a whole estimator against a slow twin


def twin_score(rollout):
    """psi (T, B, P) in float64."""
    layer = rollout._last_layer
    wide = torch.cat([layer.feature, torch.ones_like(layer.feature[..., :1])], -1).double()
    outer = layer.score.double().unsqueeze(-1) * wide.unsqueeze(-2)
    return torch.cat([outer.flatten(2), layer.score_free.double()], -1).numpy()


class Twin:
    """One run, from the definitions, in float64: everything that it has seen is kept, nothing decays."""

    def __init__(self, form, num_envs):
        self.form, self.num_envs, self.history = form, num_envs, []
        self.error, self.ends, self.psi = [], [], []  # row by row
        self.mean = self.square = None

    def see(self, rollout, run):
        """M, b of this rollout go to the history, the moments move."""
        rows = slice(run * self.num_envs, (run + 1) * self.num_envs)
        advantage = advantages(rollout)[0][:, run].astype(np.float64)
        self.error += list(reference_error(rollout)[:, rows].double().numpy())
        self.ends += list((rollout.terminated | rollout.truncated)[:, rows].numpy())
        self.psi += list(twin_score(rollout)[:, rows])
        seed, iteration = rollout.population.seeds[run], int(rollout.population.iteration[run])
        order = adaptive_mixture.random_stream(seed, adaptive_mixture.HALVES, iteration).permutation(self.num_envs)
        half, steps = self.num_envs // 2, len(advantage)
        if self.mean is not None:
            g, r = [], []
            for instances in (order[:half], order[half : 2 * half]):
                psi = np.array(self.psi[-steps:])[:, instances]
                g.append(np.einsum("tnc,tnp->cp", advantage[:, instances] - self.mean, psi) / (half * steps))
                r.append(sum(self.reference(steps, n) for n in instances) / (half * steps))
            both = (g[0] + g[1]) / 2
            self.history.append((both @ both.T, (g[0] @ r[1] + g[1] @ r[0]) / 2))
        flat = advantage.reshape(-1, COUNT)
        mean, square = flat.mean(0), (flat**2).mean(0)
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        self.square = square if self.square is None else 0.9 * self.square + 0.1 * square

    def reference(self, steps, n):
        """Each TD error of the newest rollout times the discounted scores of its episode, from however far back."""
        total = 0.0
        for t in range(len(self.error) - steps, len(self.error)):
            for back in range(t + 1):
                if back > 0 and self.ends[t - back][n]:
                    break
                total = total + self.error[t][n] * GAMMAS[-1] ** back * self.psi[t - back][n]
        return total

    def weights(self):
        """From the statistics alone: the solves have tests of their own."""
        age = np.arange(len(self.history))[::-1]
        share = DECAY[self.form] ** age / (DECAY[self.form] ** age).sum()
        std = np.sqrt(self.square - self.mean**2)
        unit = 1 / (std + 1e-3 * std.max())
        matrices = [matrix * np.outer(unit, unit) for matrix, _ in self.history]
        vectors = np.array([vector * unit for _, vector in self.history])
        matrix, vector = np.einsum("j,jcd->cd", share, matrices), share @ vectors
        if PRIOR @ vector <= 0:
            return PRIOR
        if self.form == "gated":
            return mixture.ridge(matrix, vector, PRIOR)
        if self.form == "shrunk":  # the covariance of a weighted mean, from its own spread
            spread = np.einsum("j,jc,jd->cd", share, vectors - vector, vectors - vector)
            vector, _ = mixture.without_noise(matrix, vector, spread * (share**2).sum() / (1 - (share**2).sum()), PRIOR)
        return mixture.nonnegative_ridge(matrix, vector, PRIOR)


@each_form
def test_statistics_and_advantage_against_the_slow_twin(form, always_adapted):
    """Thirteen rollouts of two runs of five instances: halves, folds, decays, moments, traces, the mixture."""
    estimator, memory, twins, adapted = AdaptiveMixture(form), {}, [Twin(form, 5) for _ in range(2)], 0
    least = FOLDS if form == "gated" else 2  # rollouts: it judges on every fold
    for seed in range(13):
        rollout = random_rollout(seed)
        weights = [twin.weights() if len(twin.history) >= least else PRIOR for twin in twins]  # before this rollout
        estimate, memory = estimator(rollout, memory)
        assert estimate.metrics is not None
        for run, twin in enumerate(twins):
            twin.see(rollout, run)
            flat = advantages(rollout)[0][:, run].astype(np.float64).reshape(-1, COUNT)
            std = flat.std(0)
            mixed = (flat - flat.mean(0)) @ (weights[run] / (std + 1e-3 * std.max()))
            mixed = ((mixed - mixed.mean()) / mixed.std()).reshape(6, 5)
            result = estimate.advantage[:, 5 * run : 5 * run + 5].numpy()
            np.testing.assert_allclose(result, mixed, atol=5e-3)
            adapted += not np.array_equal(weights[run], PRIOR)
            assert (estimate.metrics["mixture_adapted"][run] > 0) == (weights[run] is not PRIOR)
            total, decayed = own(memory, run), DECAY[form] ** np.arange(len(twin.history))[::-1]
            assert total["mass"].sum() == pytest.approx(decayed.sum())
            assert total["square_mass"][0] == pytest.approx((decayed**2).sum())
            for name, of in (("matrix", 0), ("vector", 1)):
                for fold in range(FOLDS):  # the first rollout only gave the means
                    every = range((fold - 1) % FOLDS, len(twin.history), FOLDS)
                    expected = sum(decayed[j] * twin.history[j][of] for j in every)
                    np.testing.assert_allclose(total[name][fold], expected, rtol=1e-3, atol=1e-5)
    assert adapted >= 6


@pytest.mark.parametrize(("environment", "parameters"), [
    ("cartpole", {}), ("pendulum", {}), ("gymnasium_samples:Echo", {"kind": "multi_discrete"}),
])  # fmt: skip
@pytest.mark.parametrize("num_runs", [1, 3])
def test_gradients_are_those_of_autograd(environment, parameters, num_runs):
    """mean(A log pi) with respect to the last layer, for any A, of each run; whitened scores by their scale."""
    training = Training(
        environment, SMALL, AdaptiveMixture(), TINY, num_runs=num_runs, num_threads=1, parameters=parameters
    )
    for _ in range(2):
        training.iterate()
    (shard,) = training.shards
    rollout = collect(shard.env, shard.population, 8)
    layer = rollout.last_layer(4)
    advantage = torch.randn(8, num_runs, 4, COUNT, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(8, 4 * num_runs)
    for run, policy in enumerate(training.policies()):
        one = adaptive_mixture._Run(rollout, run, advantage.numpy(), zero, zero > 0, layer)
        assert one.sound
        trace = np.zeros((4, layer.score.shape[-1] * (layer.feature.shape[-1] + 1) + layer.score_free.shape[-1]))
        gradient, _ = mixture.gradients(
            one.advantage, np.zeros(COUNT, np.float32), one.error, one.ends, one.valid, np.float32(0.9), one.score,
            one.feature, one.free, np.arange(4), trace.astype(np.float32),
        )  # fmt: skip
        rows, module = slice(4 * run, 4 * run + 4), policy.double()
        distribution, _ = module(rollout.observation[:-1, rows].double())
        action = rollout.action[:, rows]
        log_prob = distribution.log_prob(action.double() if action.is_floating_point() else action)
        for c in (0, 7, COUNT - 1):
            module.zero_grad()
            (advantage[:, run, :, c].double() * log_prob).mean().backward(retain_graph=True)
            head, log_std = module.action_head, module.log_std
            scale = 1.0 if log_std is None else log_std.detach().exp().unsqueeze(-1)
            expected = [(torch.cat([head.weight.grad, head.bias.grad.unsqueeze(-1)], -1) * scale).flatten()]
            expected += [] if log_std is None else [log_std.grad / math.sqrt(2)]
            np.testing.assert_allclose(gradient[c] / 32, torch.cat(expected).numpy(), atol=2e-6)
    training.close()


# ------------------------------------------------------------------------------------------------------------- halves


def marked(free, iteration=0, num_runs=1):
    """A rollout in which only `free` (T, B, P) is the gradient of log pi."""
    rollout = random_rollout(5, num_runs, free.shape[1] // num_runs, len(free), iteration)
    layer = rollout._last_layer
    assert layer is not None
    rollout._last_layer = layer._replace(score=0 * layer.score, score_free=free)
    return rollout


def vector_of(rollout):
    """b of this rollout alone, (R, C)."""
    memory = AdaptiveMixture().begin(rollout, rollout._last_layer)  # type: ignore[arg-type]
    memory["count"] += 1
    return AdaptiveMixture()(rollout, memory)[1]["vector"].sum(1)


@pytest.mark.parametrize("num_envs", [2, 5, 8])
def test_no_instance_is_in_both_halves(num_envs):
    """Each instance has a parameter of its own: one half's gradient and the other's reference never meet."""
    instance = torch.eye(num_envs).repeat(3, 1)
    noise = torch.randn(6, 3 * num_envs, 1, generator=torch.Generator().manual_seed(1))
    assert not vector_of(marked(noise * instance, num_runs=3)).any()
    assert bool(vector_of(marked(noise.expand(-1, -1, 3).clone(), num_runs=3)).all())


def test_halves_are_drawn_anew_for_each_run_and_iteration():
    """Two of four instances share a parameter: b is zero exactly if they are in the same half, one time in three."""
    apart = []
    for iteration in range(12):
        free = torch.zeros(3, 40, 4, 1)
        free[:, :, :2] = torch.randn(3, 40, 2, 1, generator=torch.Generator().manual_seed(iteration))
        apart.append(vector_of(marked(free.flatten(1, 2), iteration, num_runs=40)).any(1).numpy())
    found = np.array(apart)
    assert abs(found.mean() - 2 / 3) < 4.5 * math.sqrt(2 / 9 / found.size)
    assert len(np.unique(found, axis=1).T) > 35  # every run its own sequence
    assert len(np.unique(found, axis=0)) == 12


# -------------------------------------------------------------------------------- unbiased: a world solved by hand


class World:
    """Three states, two actions, terminations and truncations at random, a fixed policy, and a critic that is wrong."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.following, self.start = rng.dirichlet(np.ones(3), (3, 2)), rng.dirichlet(np.ones(3))
        self.terminates, self.truncates = rng.uniform(0.0, 0.3, (3, 2)), 0.15
        self.reward = rng.normal(size=(3, 2)) + np.array([1.0, -1.0])
        self.critic = rng.normal(size=(3, len(GAMMAS)))
        logit = rng.normal(size=(3, 2))
        self.policy = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
        self.score = np.eye(2) - self.policy[:, None]  # (S, A, 2)
        wide = np.concatenate([np.eye(3), np.ones((3, 1))], 1)
        self.psi = np.einsum("sao,sf->saof", self.score, wide).reshape(3, 2, -1)

    def gradient(self, steps, sign=1.0):
        """The exact mean of every component's gradient, (C, P), by dynamic programming; the last is the reference's."""
        decay, on = (GAMMAS[HEAD] * TRACE), (1 - self.terminates) * (1 - self.truncates)
        value = self.critic[:, HEAD]
        expected = self.following @ value  # (S, A, C)
        error = sign * self.reward[..., None] + GAMMAS[HEAD] * (1 - self.terminates[..., None]) * expected
        error = error - value[:, None]
        here, advantage, behind = self.start, [], np.zeros_like(error)
        for _ in range(steps):  # from the last row on
            later = np.einsum("sat,tb,tbc->sac", self.following, self.policy, behind)
            behind = error + decay * on[..., None] * later
            advantage.insert(0, behind)
        total = np.zeros((COUNT, self.psi.shape[2]))
        for t in range(steps):
            occupied = here[:, None] * self.policy
            total += np.einsum("sa,sac,sap->cp", occupied, advantage[t], self.psi)
            stays = occupied * on
            here = np.einsum("sa,sat->t", stays, self.following) + (1 - stays.sum()) * self.start
        return total / steps

    def rollout(self, rng, num_runs, num_envs, steps, sign=1.0) -> Rollout:
        """`sign` (N,) of each instance's rewards."""
        rows = num_runs * num_envs
        draw = lambda p: (rng.random(p.shape[:-1])[..., None] > p.cumsum(-1)[..., :-1]).sum(-1)  # noqa: E731
        state, columns = draw(np.tile(self.start, (rows, 1))), []
        for _ in range(steps):
            action = draw(self.policy[state])
            following = draw(self.following[state, action])
            flags = rng.random(rows) < self.terminates[state, action], rng.random(rows) < self.truncates
            columns.append((state, action, following, *flags))
            state = np.where(flags[0] | flags[1], draw(np.tile(self.start, (rows, 1))), following)
        state, action, following, terminated, truncated = (np.array(column) for column in zip(*columns, strict=True))
        reward = self.reward[state, action] * np.tile(sign * np.ones(num_envs), num_runs)
        next_value = np.where(terminated[..., None], np.nan, self.critic[following])
        return as_rollout(
            num_runs, reward, self.critic[state], next_value, terminated, truncated, self.score[state, action],
            np.eye(3)[state],
        )  # fmt: skip


BATCHES = 20_000
CENTRE = np.linspace(-1, 1, COUNT)  # any, if it does not depend on the rollout


def statistics(rollout, num_envs):
    """M and b of every run of a rollout, as the estimator computes them."""
    advantage, error = advantages(rollout)[0], reference_error(rollout)
    ends, layer = rollout.terminated | rollout.truncated, rollout._last_layer
    for run in range(rollout.num_runs):
        one = adaptive_mixture._Run(rollout, run, advantage, error, ends, layer)
        yield one.statistics(CENTRE, np.zeros((num_envs, 8), np.float32))


def per_instance(rollout):
    """Gradients (R, N, C, P) and references (R, N, P) of every instance, means over its rows; advantage and psi."""
    advantage = advantages(rollout)[0].astype(np.float64)
    psi = twin_score(rollout).reshape(*advantage.shape[:3], -1)
    gradient = np.einsum("trnc,trnp->rncp", advantage - CENTRE, psi, optimize=True) / len(psi)
    # in a rollout that begins with an episode, the last component is the reference's forward view
    return gradient, np.einsum("trn,trnp->rnp", advantage[..., -1], psi) / len(psi), advantage, psi


@pytest.fixture(scope="module")
def batches():
    """20,000 rollouts of two instances and three steps: b (B, C) and wMw (B,) as computed, w, and what they are of."""
    world, w = World(), np.random.default_rng(7).normal(size=COUNT)
    rollout = world.rollout(np.random.default_rng(1), BATCHES, 2, 3)
    vector, power = np.empty((BATCHES, COUNT)), np.empty(BATCHES)
    for j, (m, b) in enumerate(statistics(rollout, 2)):
        vector[j], power[j] = b, w @ m @ w
    return SimpleNamespace(
        world=world, w=w, vector=vector, power=power, exact=world.gradient(3), parts=per_instance(rollout)
    )


def errors(sample, exact):
    """By how many standard errors the mean of a sample (B, ...) misses."""
    return np.abs(sample.mean(0) - exact) / (sample.std(0) / math.sqrt(len(sample)))


def test_b_is_unbiased_however_wrong_the_critic(batches):
    exact = batches.exact @ batches.exact[-1]
    assert errors(batches.vector, 0.0).min() > 30  # there is something to miss
    assert errors(batches.vector, exact).max() < 4.5
    g, r, advantage, psi = batches.parts
    crosswise = (np.einsum("rcp,rp->rc", g[:, 0], r[:, 1]) + np.einsum("rcp,rp->rc", g[:, 1], r[:, 0])) / 2
    np.testing.assert_allclose(batches.vector, crosswise, atol=1e-4)
    # both factors from the same rows: fails
    assert errors(np.einsum("rncp,rnp->rc", g, r) / 2, exact).min() > 10
    # the batch's own mean taken off: fails
    mean = advantage.mean((0, 2)) - CENTRE
    g = g - mean[:, None, :, None] * psi.mean(0)[:, :, None]
    crosswise = (np.einsum("rcp,rp->rc", g[:, 0], r[:, 1]) + np.einsum("rcp,rp->rc", g[:, 1], r[:, 0])) / 2
    assert errors(crosswise, exact).max() > 10


def test_what_the_weights_minimise_is_the_error_of_the_mixture(batches):
    """E|sum of w g - grad J|^2 in other batches = wMw - 2 wb + |grad J|^2."""
    target = batches.exact[-1]
    g = per_instance(batches.world.rollout(np.random.default_rng(2), BATCHES, 2, 3))[0].mean(1)
    direct = np.square(np.einsum("c,rcp->rp", batches.w, g) - target).sum(1)
    regressed = batches.power - 2 * batches.vector @ batches.w + target @ target
    spread = math.sqrt((direct.var() + regressed.var()) / BATCHES)
    assert abs(direct.mean() - regressed.mean()) < 4.5 * spread < 0.1 * direct.mean()


def test_instances_that_differ():
    """Rewards of opposite sign: b is the mean over all pairs of instances, which no fixed split would give."""
    world, sign = World(), np.array([1.0, 1.0, -1.0, -1.0])
    rollout = world.rollout(np.random.default_rng(3), 6000, 4, 3, sign)
    vector = np.array([b for _, b in statistics(rollout, 4)])
    mean = np.array([world.gradient(3, one) for one in sign])  # (N, C, P)

    def over(pairs):
        return np.mean([mean[i] @ mean[j, -1] for i, j in pairs], 0)

    assert errors(vector, over(itertools.permutations(range(4), 2))).max() < 4.5
    for half in ((0, 1), (0, 2)):
        other = [n for n in range(4) if n not in half]
        fixed = [*itertools.product(half, other), *itertools.product(other, half)]
        assert errors(vector, over(fixed)).max() > 10


# ------------------------------------------------------------------------------------------------------ the reference


def test_the_reference_sees_beyond_the_rollout():
    """Episodes of six steps in rollouts of two: the first action earns its reward at the end, and the critic is wrong.

    The exact gradient of log pi times the discounted return is a sum over the 64 sequences of actions.
    """
    rng, gamma, count, together = np.random.default_rng(0), GAMMAS[-1], 20_000, 50
    critic, right = rng.normal(size=(6, 2)), rng.uniform(0.2, 0.8, (6, 2))  # of the clock and the first action
    policy = np.stack([1 - right, right], -1)
    score = np.eye(2) - policy[:, :, None]  # (clock, key, action, output)

    def play(action):
        """(6, ...) actions -> keys and rewards; the key is had from the second step on."""
        clock = np.arange(6).reshape(6, *[1] * (action.ndim - 1))
        key = np.where(clock > 0, action[0], 0)
        reward = -0.1 * action + np.where(clock == 5, 3.0 * key, 0.0)
        return clock + 0 * action, key, reward

    def psi_of(clock, key, action):
        state = np.eye(12)[2 * clock + key]
        wide = np.concatenate([state, np.ones((*state.shape[:-1], 1))], -1)
        return state, np.einsum("...o,...f->...of", score[clock, key, action], wide).reshape(*clock.shape, -1)

    action = np.array(list(itertools.product([0, 1], repeat=6))).T
    clock, key, reward = play(action)
    to_go = np.array([sum(gamma ** (later - t) * reward[later] for later in range(t, 6)) for t in range(6)])
    chance = policy[clock, key, action].prod(0)
    exact = np.einsum("s,ts,tsp->p", chance, to_go, psi_of(clock, key, action)[1])
    assert chance.sum() == pytest.approx(1)

    action = np.zeros((6, count), np.int64)
    for t in range(6):
        key = action[0] if t else 0 * action[0]
        action[t] = rng.random(count) < right[t, key]
    clock, key, reward = play(action)
    state, psi = psi_of(clock, key, action)
    value = np.zeros((6, count, len(GAMMAS)))
    value[..., -1] = critic[clock, key]
    next_value = np.concatenate([value[1:], np.full((1, count, len(GAMMAS)), np.nan)])
    terminated = clock == 5
    rollout = as_rollout(1, reward, value, next_value, terminated, terminated & False, score[clock, key, action], state)
    error, layer = reference_error(rollout).numpy(), rollout._last_layer
    assert layer is not None

    def references(carried):
        """The sums over groups of episodes, (count / together, P)."""
        found = []
        for start in range(0, count, together):
            trace, total = np.zeros((together, psi.shape[-1]), np.float32), 0.0
            for t in (0, 2, 4):
                part = slice(t, t + 2), slice(start, start + together)
                given = [np.ascontiguousarray(x[part]) for x in (error, terminated, *(y.numpy() for y in layer[:3]))]
                trace = trace if carried else 0 * trace
                _, reference = mixture.gradients(
                    np.zeros((2, together, 1), np.float32), np.zeros(1, np.float32), given[0], given[1],
                    np.ones_like(given[1]), np.float32(gamma), given[3], given[2], given[4], np.arange(together), trace,
                )  # fmt: skip
                total = total + reference.astype(np.float64)
            found.append(total / together)
        return np.array(found)

    spread = references(True).std(0) / math.sqrt(count / together)
    moving = spread > 1e-4  # parameters of states that can be
    assert moving.sum() > 20
    missed = np.abs(references(True).mean(0) - exact)
    assert (missed <= 4.5 * spread + 1e-5).all()
    assert errors(references(False)[:, moving], exact[moving]).max() > 10


# ------------------------------------------------------------------------------------- weights out of streams of noise


def stream(form, rng, truth, noise, count):
    """The memory after `count` rollouts whose halves have the gradients `truth` (C, P) plus noise (C,) per component;
    the reference, of twice as much noise as any, is the last."""
    estimator, size = AdaptiveMixture(form), truth.shape[1]
    memory = {
        name: np.zeros((FOLDS, *shape))
        for name, shape in (("mass", ()), ("matrix", (COUNT,) * 2), ("vector", (COUNT,)))
    }
    memory |= {
        "outer": np.zeros((COUNT, COUNT)),
        "square_mass": np.zeros(1),
        "count": np.ones(1),
        "trace": np.zeros((2, 1)),
    }
    memory |= {"mean": np.zeros(COUNT), "square": np.ones(COUNT)}
    for _ in range(count):
        draw = rng.normal(size=(2, COUNT + 1, size))
        g = truth + noise[:, None] * draw[:, :COUNT]
        r = truth[-1] + 2 * noise.max() * draw[:, COUNT]
        mean = g.mean(0)
        found = mean @ mean.T, (g[0] @ r[1] + g[1] @ r[0]) / 2
        estimator.learn(memory, SimpleNamespace(  # type: ignore[arg-type]
            sound=True, num_envs=2, mean=np.zeros(COUNT), square=np.ones(COUNT), statistics=lambda *_, f=found: f
        ))  # fmt: skip
    return estimator, memory


def cosine(weight, truth, noise):
    """Of the mixture of one rollout's gradients with the truth: mean product over root mean squares."""
    mean = weight @ truth
    power = mean @ mean + np.square(weight * noise).sum() * truth.shape[1] / 2
    return mean @ truth[-1] / math.sqrt(power * (truth[-1] @ truth[-1]))


def test_where_nothing_is_to_be_gained_the_prior_stays():
    """All components have the same gradient and noise of the same size: the equal mixture is best. 200 streams each."""
    rng, truth, noise = np.random.default_rng(0), np.full((COUNT, 20), 0.3), np.ones(COUNT)
    opened = [stream("gated", rng, truth, noise, 60) for _ in range(200)]
    assert sum(e.weights(memory)[1]["mixture_adapted"] > 0 for e, memory in opened) < 20
    best, quality, distance = cosine(PRIOR, truth, noise), [], []
    for _ in range(200):
        estimator, memory = stream("shrunk", rng, truth, noise, 60)
        weight, _ = estimator.weights(memory)
        quality.append(cosine(weight, truth, noise) / best)
        distance.append(np.abs(weight / weight.sum() - PRIOR).sum())
    assert min(quality) > 0.9 and np.median(quality) > 0.99 and np.median(distance) < 0.25


@each_form
def test_signal_in_one_component_is_found(form):
    """One component points where the reference does, all others together somewhere else."""
    rng, truth, noise = np.random.default_rng(1), np.zeros((COUNT, 20)), np.full(COUNT, 0.5)
    truth[:-1, :10], truth[-1, 10:] = 1.0, 2.0
    found = []
    for _ in range(20):
        estimator, memory = stream(form, rng, truth, noise, 60)
        weight, facts = estimator.weights(memory)
        found.append(cosine(weight, truth, noise))
        assert facts["mixture_adapted"] > 0.5
    assert cosine(PRIOR, truth, noise) < 0.3 and min(found) > 0.9


# ------------------------------------------------------------------------------- the weights, and what they are told


def test_weights_come_from_earlier_rollouts_only(always_adapted):
    memory = after("nonnegative", map(random_rollout, range(5)))
    rollout, other = random_rollout(6), random_rollout(6)
    other.reward.neg_().add_(3)
    one, after_one = AdaptiveMixture("nonnegative")(rollout, memory)
    two, after_two = AdaptiveMixture("nonnegative")(other, memory)
    assert one.metrics is not None and two.metrics is not None
    assert bool((one.metrics["mixture_adapted"] > 0).any())
    for name in one.metrics:
        assert torch.equal(one.metrics[name], two.metrics[name])
    assert not torch.equal(after_one["vector"], after_two["vector"])
    for run in range(2):
        weight, _ = AdaptiveMixture("nonnegative").weights(own(memory, run))
        flat = advantages(other)[0][:, run].reshape(-1, COUNT).astype(np.float64)
        std = flat.std(0)
        mixed = (flat - flat.mean(0)) @ (weight / (std + 1e-3 * std.max()))
        result = two.advantage[:, 5 * run : 5 * run + 5].numpy().ravel()
        np.testing.assert_allclose(result, (mixed - mixed.mean()) / mixed.std(), atol=1e-4)


@each_form
def test_advantage_is_standardised_whatever_the_weights(form, always_adapted):
    memory: dict[str, torch.Tensor] = {}
    adapted = []
    for seed in range(12):
        estimate, memory = AdaptiveMixture(form)(random_rollout(seed), memory)
        assert estimate.metrics is not None
        adapted += estimate.metrics["mixture_adapted"].tolist()
        advantage = estimate.advantage.double().unflatten(1, (2, 5))
        assert advantage.mean((0, 2)).abs().max() < 1e-6
        assert (advantage.std((0, 2), correction=0) - 1).abs().max() < 1e-5
    assert min(adapted) == 0 < max(adapted)


@each_form
@pytest.mark.parametrize(("unit", "bound"), [(1024.0, 1e-6), (1000.0, 1e-4)])
def test_the_unit_of_reward_does_not_matter(form, unit, bound, always_adapted):
    memory, scaled = {}, {}
    for seed in range(12):
        estimate, memory = AdaptiveMixture(form)(random_rollout(seed), memory)
        rollout = random_rollout(seed)
        for tensor in (rollout.reward, rollout.value, rollout.next_value):
            tensor.mul_(unit)
        other, scaled = AdaptiveMixture(form)(rollout, scaled)
        assert (estimate.advantage - other.advantage).abs().max() <= bound
        torch.testing.assert_close(scaled["matrix"], unit**2 * memory["matrix"], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(scaled["vector"], unit**2 * memory["vector"], rtol=1e-4, atol=1e-2)
    assert other.metrics is not None and bool((other.metrics["mixture_adapted"] > 0).any())


def test_horizon_and_trace_by_hand(monkeypatch):
    """Geometric means of 1/(1 - gamma) and 1/(1 - gamma lambda), each component by the size of its weight."""
    weight = np.zeros(COUNT)
    weight[0], weight[20], weight[13] = 3.0, -1.0, 4.0  # gamma, lambda = (0, 1), (0.998, 1), (0.99, 0.5)
    monkeypatch.setattr(AdaptiveMixture, "solve", lambda *_: (np.eye(COUNT), weight, 0.5))
    memory = {"mass": np.full(FOLDS, 100.0)}
    found, facts = AdaptiveMixture().weights(memory)
    assert found is weight and facts["mixture_adapted"] == 0.5
    assert facts["effective_horizon"] == pytest.approx(500 ** (1 / 8) * 100 ** (4 / 8))
    assert facts["effective_trace"] == pytest.approx(500 ** (1 / 8) * (1 / (1 - 0.495)) ** (4 / 8))
    assert facts["mixture_cosine"] == pytest.approx(6 / math.sqrt(26 * COUNT))
    found, facts = AdaptiveMixture().weights({"mass": np.zeros(FOLDS)})  # nothing known
    assert found is PRIOR and facts["mixture_adapted"] == 0 and facts["mixture_cosine"] == 1
    assert facts["effective_horizon"] == pytest.approx((5 * 20 * 50 * 100 * 500) ** (4 / 21))


# ----------------------------------------------------------------------------------------------------- runs kept apart


def select(rollout, runs, num_envs=5):
    """The rollout of some of its runs."""
    rows = torch.cat([torch.arange(num_envs * run, num_envs * run + num_envs) for run in runs])
    layer = rollout._last_layer
    names = "reward", "value", "next_value", "terminated", "truncated"
    parts = [getattr(rollout, name)[:, rows].numpy() for name in names]
    other = as_rollout(len(runs), *parts, *(t[:, rows].numpy() for t in (layer.score, layer.feature, layer.score_free)))
    other.population = SimpleNamespace(  # type: ignore[assignment]
        seeds=tuple(rollout.population.seeds[run] for run in runs), iteration=rollout.population.iteration[list(runs)]
    )
    return other


@each_form
def test_each_run_is_its_own(form, always_adapted):
    """Alone, and among others in another order, to the bit."""
    estimator, together, apart = AdaptiveMixture(form), {}, [{}, {}, {}, {}]
    for seed in range(11):
        rollout = random_rollout(seed, num_runs=3)
        estimate, together = estimator(rollout, together)
        for place, runs in enumerate([(0,), (1,), (2,), (2, 0, 1)]):
            other, apart[place] = estimator(select(rollout, runs), apart[place])
            rows = torch.cat([torch.arange(5 * run, 5 * run + 5) for run in runs])
            assert torch.equal(other.advantage, estimate.advantage[:, rows])
            assert_same(apart[place], {name: tensor[list(runs)] for name, tensor in together.items()})
            assert other.metrics is not None and estimate.metrics is not None
            assert_same(dict(other.metrics), {name: x[list(runs)] for name, x in estimate.metrics.items()})


@pytest.mark.parametrize("what", ["reward", "log_prob"])
def test_a_run_that_breaks_only_decays(what):
    """Infinity in one run's rewards, or a policy that is not the one that acted."""
    memory = after("nonnegative", (random_rollout(seed, 3) for seed in range(4)))
    rollout, broken = random_rollout(4, 3), random_rollout(4, 3)
    if what == "reward":
        broken.reward[2, 7] = math.inf
    else:
        broken.log_prob[2, 7] = 0.1
    estimate, good = AdaptiveMixture("nonnegative")(rollout, memory)
    other, bad = AdaptiveMixture("nonnegative")(broken, memory)
    assert estimate.metrics is not None and other.metrics is not None
    assert_same(dict(estimate.metrics), dict(other.metrics))
    for run in (0, 2):
        assert_same(*({name: tensor[run] for name, tensor in m.items()} for m in (good, bad)))
        rows = slice(5 * run, 5 * run + 5)
        assert torch.equal(estimate.advantage[:, rows], other.advantage[:, rows])
    for name in STATISTICS:
        decay = 0.9**2 if name == "square_mass" else 0.9
        torch.testing.assert_close(bad[name][1], decay * memory[name][1], rtol=1e-12, atol=0)
    assert not bad["trace"][1].any() and bad["trace"][0].any() and memory["trace"][1].any()
    if what == "reward":
        assert all(torch.equal(bad[name][1], memory[name][1]) for name in ("mean", "square", "count"))


def test_nothing_behind_an_end_is_read():
    rollout = random_rollout(0)
    assert bool(rollout.next_value[rollout.terminated].isnan().all()) and bool(rollout.terminated.any())
    estimate, memory = AdaptiveMixture()(rollout, {})
    assert all(bool(tensor.isfinite().all()) for tensor in memory.values())
    assert estimate.target is not None
    assert bool(estimate.advantage.isfinite().all()) and bool(estimate.target.isfinite().all())


# -------------------------------------------------------------------------------------------------------- in training


def trained(environment="cartpole", algorithm=SMALL, form="shrunk", iterations=3, **settings) -> Training:
    settings = {"policy": TINY, "num_threads": 1, "vmap": True, "total_steps": 10_000} | settings
    training = Training(environment, algorithm, AdaptiveMixture(form), **settings)
    for _ in range(iterations):
        training.iterate()
    return training


def test_a_run_has_the_same_bits_in_every_population():
    three = trained(seed=[3, 5, 4], form="nonnegative", iterations=7)
    permuted = trained(seed=[4, 3, 5], form="nonnegative", iterations=7)
    alone = trained(seed=[5], form="nonnegative", iterations=7)
    assert "memory.matrix" in state(three, 0)
    assert_same(state(alone, 0), state(three, 1))
    for place, run in ((0, 2), (1, 0), (2, 1)):
        assert_same(state(permuted, place), state(three, run))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_saved_and_resumed_goes_on_the_same(num_threads):
    """At iteration 10, into another number of threads: the next weights and all metrics."""
    first = trained(form="nonnegative", num_runs=2, iterations=10, num_threads=num_threads)
    tensors, document = first.state_dict()
    tensors = {name: torch.as_tensor(tensor).clone() for name, tensor in tensors.items()}
    second = trained(form="nonnegative", num_runs=2, iterations=0, num_threads=3 - num_threads)
    second.load_state_dict(tensors, document)
    for _ in range(2):
        one, two = first.iterate(), second.iterate()
        assert (one["mixture_adapted"] > 0).any()
        for name in METRICS:
            np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    (states, _), (others, _) = first.state_dict(), second.state_dict()
    for name in states:  # episodes that have not been are NaN
        np.testing.assert_array_equal(np.asarray(states[name]), np.asarray(others[name]), err_msg=name)
    for training in (first, second):
        training.close()


def test_the_entropy_bonus_and_later_epochs_are_no_part_of_the_statistics():
    first = trained(num_runs=2, iterations=3)
    tensors, document = first.state_dict()
    tensors = {name: torch.as_tensor(tensor).clone() for name, tensor in tensors.items()}
    first.iterate()
    expected = first.shards[0].population.memory
    for change in ({"entropy_coef": 10 * SMALL.entropy_coef}, {"recompute_advantage": True}):
        other = trained(algorithm=dataclasses.replace(SMALL, **change), num_runs=2, iterations=0)
        other.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, document)
        other.iterate()
        assert_same(expected, other.shards[0].population.memory)
        assert not torch.equal(first.shards[0].population.flat, other.shards[0].population.flat)


@pytest.mark.parametrize(("environment", "parameters"), [
    ("cartpole", {}), ("pendulum", {}), ("gymnasium_samples:Echo", {"kind": "multi_discrete"}),
])  # fmt: skip
def test_every_kind_of_action_trains_with_an_odd_number_of_instances(environment, parameters):
    algorithm = PPO(num_envs=5, rollout_length=8, num_minibatches=2, num_epochs=1)
    training = trained(environment, algorithm, "nonnegative", 8, parameters=parameters, vmap=None)
    (shard,) = training.shards
    memory = shard.population.memory
    assert not training.warnings and not any(training.frozen)
    assert memory["mass"].sum() == pytest.approx(sum(0.9**j for j in range(7))) and memory["count"] == 8
    assert bool(memory["matrix"].isfinite().all()) and float(memory["matrix"].abs().sum()) > 0
    training.close()


def test_one_instance_warns_and_is_the_prior():
    training = trained(algorithm=PPO(num_envs=1, rollout_length=32), iterations=0)
    assert len(training.warnings) == 1 and "num_envs = 1" in training.warnings[0]
    for _ in range(8):
        metrics = training.iterate()
        assert metrics["mixture_adapted"] == 0 and metrics["mixture_cosine"] == 1
    assert not training.shards[0].population.memory["mass"].any()


def test_a_policy_that_hides_its_last_layer_is_refused():
    with pytest.raises(ValueError, match=r"give the policy a method last_layer.*static_mixture"):
        Training("cartpole", SMALL, AdaptiveMixture(), Tiny)
    with pytest.raises(ValueError, match="form = 'best'; use shrunk, nonnegative or gated"):
        AdaptiveMixture("best")  # type: ignore[arg-type]
