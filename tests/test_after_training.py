"""After training, not only on vectors: what critics have learned where every reward is 1 and every state looks alike,
and what training sees of the unit of reward.

The constant environment shows one observation, so a critic is one number per head, and its fixed point is a linear
equation: V = E[target | V], over the rows of all episodes. Targets are written here anew, from their definitions as
mixtures of n-step returns, in plain Python; nothing of them is imported. Truncated at 10 steps and never terminated,
the equation's solution is the value of an endless life, 1/(1 − γ); terminated instead, it is that of a life of unknown
rest (ALGORITHMS.md 0.4, 7); with a chance of a termination in every step, p, it is 1/(1 − γ(1 − p)) again for whatever
bootstraps, however long its traces.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline import components
from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.envs import cartpole
from ridgeline.estimators import adaptive_mixture, static_mixture
from ridgeline.estimators.adaptive_mixture import AdaptiveMixture
from ridgeline.estimators.average_reward import AverageReward
from ridgeline.estimators.block import Block
from ridgeline.estimators.dae import DAE
from ridgeline.estimators.fixed_horizon import FixedHorizon
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.harmonic_trace import HarmonicTrace
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.estimators.n_step import NStep
from ridgeline.estimators.puffer_advantage import PufferAdvantage
from ridgeline.estimators.static_mixture import StaticMixture
from ridgeline.estimators.v_trace import VTrace
from ridgeline.policies import MLP
from ridgeline.training import Training

CONSTANT = '''"""Constant: one observation and reward 1, whatever is done.

Observation
    index  meaning                    range
    0      nothing, always the same   0 .. 0
Action: 0 or 1; neither changes anything.
Reward: 1 for every step.
Start: the only state.
End: terminated after `last` steps, if that is above 0, and with probability `hazard` after each; truncated at 10 steps.
Source: a test.
Version: 1
"""

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from ridgeline.kernel import state_dtype, uniform

State = state_dtype(age=np.int64)

observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 10


class Parameters(NamedTuple):
    last: int = 0
    hazard: float = 0.0


def reset(state, p):
    state.age = 0


def step(state, action, p):
    state.age += 1
    return 1.0, state.age == p.last or uniform(state) < p.hazard


def observe(state, observation, p):
    observation[0] = 0.0
'''
LIMIT = 10
HAZARD = 0.2
WAYS = {"truncated": {}, "terminated": {"last": LIMIT}, "by chance": {"hazard": HAZARD}}  # to end an episode


# --------------------------------------------------------------------------------------- what the critic should believe

# A target is a function (m, end, value (K,)) -> (K,): of a row that is m rows before its piece's end, itself included,
# where the critic says `value` everywhere. `end` is how that piece ends: "terminated", "truncated" or "cut".


def n_step_return(steps: int, m: int, after: float, value: float, gamma: float) -> float:
    """`steps` rewards and then the critic; the rest of the piece and `after` where it is shorter."""
    seen = min(steps, m)
    return sum(gamma**i for i in range(seen)) + gamma**seen * (value if seen < m else after)


def mixed(gammas: list[float], shares: Callable[[int], float]):
    """n-step returns in `shares` of n; what is left belongs to the piece's end. Undiscounted, a truncation is one."""

    def target(m, end, value):
        out = []
        for gamma, own in zip(gammas, value, strict=True):
            after = 0.0 if end == "terminated" or (end == "truncated" and gamma == 1) else own
            share = [shares(n) for n in range(1, m)]
            share.append(1 - sum(share))
            out.append(sum(s * n_step_return(n, m, after, own, gamma) for n, s in enumerate(share, 1)))
        return np.array(out)

    return target


def lambda_returns(gammas, gae_lambda):
    return mixed(gammas, lambda n: (1 - gae_lambda) * gae_lambda ** (n - 1))


def harmonic(gammas):
    return mixed(gammas, lambda n: 1 / (n * (n + 1)))


def legacy(target):
    """With a time limit that counts as a termination."""
    return lambda m, end, value: target(m, "terminated" if end == "truncated" else end, value)


def blocks(m, end, value):
    """1 while the piece lasts, then 0, or what the critic says of the state behind it."""
    beyond = np.zeros(len(value)) if end == "terminated" else value
    return np.concatenate([np.ones(m), beyond])[: len(value)]


def octaves(m, end, value):
    """Half a horizon is seen; the other half is the critic's, on a straight line between two of its horizons."""
    horizons = 2 ** np.arange(len(value))
    out = []
    for horizon in horizons:
        seen = min(max(1, horizon // 2), m)
        rest = float(np.interp(horizon - seen, [0, *horizons], [0.0, *value]))
        out.append(seen + (0.0 if seen == m and end == "terminated" else rest))
    return np.array(out)


def rows(way: str, length: int) -> Iterator[tuple[float, int, str]]:
    """(share, m, end) of all rows of rollouts of `length` steps; only chance makes episodes of unlike age."""
    if way != "by chance":
        yield from ((1 / LIMIT, m, way) for m in range(1, LIMIT + 1))
        return
    age = (1 - HAZARD) ** np.arange(LIMIT)
    for here, share in enumerate(age / age.sum() / length):
        for t in range(length):
            left = min(LIMIT - here, length - t)
            for m in range(1, left + 1):
                yield share * (1 - HAZARD) ** (m - 1) * HAZARD, m, "terminated"
            yield share * (1 - HAZARD) ** left, left, "truncated" if left == LIMIT - here else "cut"


def fixed_point(target, num_values: int, way: str, length: int) -> np.ndarray:
    """V = b + A V, solved; A and b by evaluating the mean target at 0 and at every unit vector."""

    def mean(value):
        return sum(share * target(m, end, value) for share, m, end in rows(way, length))

    base = mean(np.zeros(num_values))
    slope = np.stack([mean(unit) - base for unit in np.eye(num_values)], 1)
    return np.linalg.solve(np.eye(num_values) - slope, base)


def endless(gammas: list[float], hazard: float = 0.0) -> list[float]:
    return [1 / (1 - gamma * (1 - hazard)) for gamma in gammas]


@dataclass(frozen=True)
class Case:
    """Configurations that differ in floating-point fields train side by side."""

    name: str
    estimators: list[Any]
    targets: list[Callable]  # one per configuration, of the first heads
    truncated: list[list[float]]  # the closed form of each
    chance: list[list[float]] | None = None  # with HAZARD; None: the equation's solution, which depends on the traces

    def __str__(self):
        return self.name


def discounted(name, estimators, targets, gammas) -> Case:
    """All bootstrap at a truncation, so neither time limit nor trace is to be seen in what they learn."""
    return Case(name, estimators, targets, [endless(g) for g in gammas], [endless(g, HAZARD) for g in gammas])


G, H = [0.99], [0.9]
STATIC, ADAPTIVE = [0.75, 0.9, 0.96], list(adaptive_mixture.GAMMAS[:5])  # the rest of these: the slow test
CASES = [
    discounted(
        "gae",
        [GAE(0.99, trace) for trace in (0.0, 0.5, 0.95, 1.0)],
        [lambda_returns(G, trace) for trace in (0.0, 0.5, 0.95, 1.0)],
        [G] * 4,
    ),
    Case(
        "gae, truncation as termination",
        [GAE(0.99, trace, truncation_as_termination=True) for trace in (0.0, 0.5, 0.95, 1.0)],
        [legacy(lambda_returns(G, trace)) for trace in (0.0, 0.5, 0.95, 1.0)],
        [[9.1743], [8.3576], [5.7169], [5.3383]],  # ALGORITHMS.md 0.4, 7
    ),
    # n = 5 leaves the first rows of a piece to the critic
    discounted("n_step", [NStep(0.99, 5), NStep(0.9, 5)], [mixed(g, lambda n: n == 5) for g in (G, H)], [G, H]),
    # n-step returns for all n at once: λ = 1
    discounted("monte_carlo", [MonteCarlo(0.99), MonteCarlo(0.9)], [lambda_returns(g, 1.0) for g in (G, H)], [G, H]),
    # the policy that learns is the one that acted, ratio 1: λ-returns
    discounted("v_trace", [VTrace(0.99), VTrace(0.9, 0.5)], [lambda_returns(G, 1.0), lambda_returns(H, 0.5)], [G, H]),
    discounted("puffer_advantage", [PufferAdvantage()], [lambda_returns(G, 0.95)], [G]),
    # undiscounted, it is the return inside the time limit: ALGORITHMS.md 6.7
    Case(
        "harmonic_trace",
        [HarmonicTrace(0.99), HarmonicTrace(0.9), HarmonicTrace(1.0)],
        [harmonic(G), harmonic(H), harmonic([1.0])],
        [endless(G), endless(H), [7.5858]],
        [endless(G, HAZARD), endless(H, HAZARD)],
    ),
    # with horizons that are learned in a second; quadrature over the trace is exact for pieces of up to 10 rows
    Case("static_mixture", [StaticMixture()], [harmonic([*STATIC, 1.0])], [[*endless(STATIC), 7.5858]]),
    discounted("adaptive_mixture", [AdaptiveMixture()], [lambda_returns(ADAPTIVE, 0.95)], [ADAPTIVE]),
    # V alone: its target explains the rewards by Â too, and Â = 0 where actions change nothing
    discounted("dae", [DAE(0.99), DAE(0.9)], [lambda_returns(G, 1.0), lambda_returns(H, 1.0)], [G, H]),
    # each of the next 16 rewards is 1 as long as there is one
    Case("block", [Block(16)], [blocks], [[1.0] * 16], [[(1 - HAZARD) ** j for j in range(16)]]),
    # not with P3O's weights: the next reward is known without error here, so its lag takes nearly all of the loss, and
    # the others had not arrived after 400 iterations (largest error 17%)
    # h rewards of 1 lie ahead; that the line between two horizons is wrong where episodes end shows at the mirrors
    Case("fixed_horizon", [FixedHorizon(32)], [octaves], [[1, 2, 4, 8, 16, 32]]),
]
OWN = {"average_reward": "test_the_reward_rate"}  # of no fixed point of this kind
ITERATIONS = {"truncated": 400, "terminated": 150, "by chance": 300}
LENGTH = LIMIT


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    path = tmp_path_factory.mktemp("environments") / "constant.py"
    path.write_text(CONSTANT, encoding="utf-8")
    return path


def train(path, estimators, way, num_envs=2, learning_rate=0.5, before=None) -> Training:
    """A critic of nothing but biases, with A2C; the learning rate falls to 0 from as high as Adam bears."""
    training = Training(
        path, A2C(num_envs=num_envs, rollout_length=LENGTH, learning_rate=learning_rate), estimators,
        MLP(hidden_sizes=()), total_steps=ITERATIONS[way] * num_envs * LENGTH, num_threads=1, parameters=WAYS[way],
    )  # fmt: skip
    if before is not None:
        before(training.shards[0].population)
    while not training.finished:
        training.iterate()
    training.close()
    assert not any(training.frozen)
    return training


def learned(training: Training) -> np.ndarray:
    """What every run's critic says of the only observation, (R, K)."""
    population = training.shards[0].population
    return population.value(torch.zeros(population.num_runs, 1, 1))[:, 0].double().numpy()


def test_every_estimator_is_here():
    found = {components.name_of(case.estimators[0]) for case in CASES} | set(OWN)
    assert found == set(components.names("estimator"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_equation_has_the_closed_form(case):
    """The two truths agree: targets written anew, and what theory says of an endless or hazardous life."""
    for target, truncated in zip(case.targets, case.truncated, strict=True):
        np.testing.assert_allclose(fixed_point(target, len(truncated), "truncated", LENGTH), truncated, rtol=1e-5)
    for target, chance in zip(case.targets, case.chance or [], strict=False):
        np.testing.assert_allclose(fixed_point(target, len(chance), "by chance", LENGTH), chance, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["truncated", "terminated", pytest.param("by chance", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_critic_learns_it(case, way, constant, monkeypatch):
    monkeypatch.setattr(static_mixture, "HORIZONS", tuple(endless(STATIC)))
    by_chance = way == "by chance"
    training = train(constant, case.estimators, way, **({"num_envs": 32, "learning_rate": 0.1} if by_chance else {}))
    tolerance = 0.05 if by_chance else 0.02
    for found, target, truncated in zip(learned(training), case.targets, case.truncated, strict=True):
        expected = fixed_point(target, len(truncated), way, LENGTH)
        np.testing.assert_allclose(found[: len(truncated)], expected, rtol=tolerance, atol=tolerance / 2)
    if isinstance(case.estimators[0], DAE):
        preference = learned(training)[:, 1:]
        assert np.isfinite(preference).all()  # of actions that change nothing it learns the noise of this small batch


@pytest.mark.slow
@pytest.mark.parametrize("way", ["truncated", "terminated"])
def test_a_masked_block_cannot_tell(way, constant):
    """The first proposal: what lies behind an end is learned nowhere, so both lives look the same."""
    [value] = learned(train(constant, [Block(16, "masked")], way))
    np.testing.assert_allclose(value, [1.0] * LIMIT + [0.0] * (16 - LIMIT), atol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["truncated", "terminated"])
def test_the_mean_return_without_a_critic(way, constant):
    """What stands for the rest of a truncated episode is the mean return itself: the same equation."""
    gammas = [0.5, 0.7]
    training = train(constant, [MonteCarlo(gamma, baseline="moving_average") for gamma in gammas], way)
    found = training.shards[0].population.memory["return_to_go"]
    for gamma, mean in zip(gammas, found.tolist(), strict=True):
        [expected] = fixed_point(lambda_returns([gamma], 1.0), 1, way, LENGTH)
        assert mean == pytest.approx(expected, rel=0.01)
        assert way == "terminated" or expected == pytest.approx(1 / (1 - gamma))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["truncated", "terminated"])
@pytest.mark.parametrize("variant", ["differential", "apo"])
def test_the_reward_rate(variant, way, constant):
    """Every reward is the average one: r̄ = 1, and no state is better than the average. Begun at r̄ = 0, which lifts the
    values at first; where nothing terminates, only apo's pull says at what level they end."""

    def wrong(population):
        population.memory = {"reward_rate": torch.zeros(1, dtype=torch.float64)}

    training = train(constant, [AverageReward(variant=variant)], way, before=wrong)
    [[value]] = learned(training)
    assert training.shards[0].population.memory["reward_rate"].item() == pytest.approx(1.0, abs=1e-2)
    limit = {("differential", "truncated"): 1000.0, ("apo", "truncated"): 0.5}.get((variant, way), 0.05)
    assert abs(value) < limit


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [StaticMixture(), AdaptiveMixture(), FixedHorizon()], ids=lambda e: type(e).__name__
)
def test_a_million_steps_where_nothing_terminates(estimator, constant):
    """1000 iterations of 50 instances, 20 steps, one seed: every head that begins at its fixed point is there at the
    end, within 2%, at the default learning rate. (Begun at 0, the static mixture's longest discount came to 370 of 1024
    in a million steps, at 250 times that rate.)"""
    gammas = {"StaticMixture": [1 - 2.0**-k for k in range(5, 11)], "AdaptiveMixture": list(adaptive_mixture.GAMMAS)}
    name = type(estimator).__name__
    expected = endless(gammas[name]) if name in gammas else [2.0**k for k in range(11)]
    if name == "StaticMixture":
        expected = [*expected, 7.5858]
    training = Training(
        constant, A2C(num_envs=50, rollout_length=2 * LIMIT), estimator, MLP(hidden_sizes=()), total_steps=1_000_000,
        num_threads=1,
    )  # fmt: skip
    population = training.shards[0].population
    with torch.no_grad():
        population.buffers["value_mean"].copy_(torch.tensor([expected]))
    while not training.finished:
        training.iterate()
    training.close()
    assert not any(training.frozen) and training.steps == 1_000_000
    np.testing.assert_allclose(learned(training)[0], expected, rtol=0.02)


# ------------------------------------------------------------------------------------------------- the unit of reward


class Recorder:
    """An estimator that remembers the advantages it gave, standardised."""

    def __init__(self, estimator):
        self.estimator, self.given = estimator, []

    def __getattr__(self, name):
        return getattr(self.estimator, name)

    def __call__(self, rollout, memory):
        estimate, memory = self.estimator(rollout, memory)
        advantage = estimate.advantage.double()
        spread = advantage.std(correction=0)
        self.given.append(torch.where(spread > 0, (advantage - advantage.mean()) / spread, 0.0))
        return estimate, memory


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """CartPole with rewards that vary, in any unit."""
    source = inspect.getsource(cartpole)
    for old, new in (
        ("class Parameters(NamedTuple):\n", "class Parameters(NamedTuple):\n    scale: float = 1.0\n"),
        ("return 1.0, terminated", "return p.scale * (1.0 + state.theta), terminated"),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    path = tmp_path_factory.mktemp("environments") / "scaled.py"
    path.write_text(source, encoding="utf-8")
    return path


FORMS = [AdaptiveMixture(form=form) for form in ("shrunk", "nonnegative", "gated")]
OTHERS = [components.find("estimator", name)() for name in components.names("estimator") if name != "adaptive_mixture"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [*FORMS, *OTHERS, AverageReward(variant="apo"), Block(puf=0.5)],
    ids=lambda e: re.sub(r"\W+", "-", repr(e)),
)
def test_the_unit_of_reward_does_not_matter(estimator, scaled):
    """Rewards a thousand times as large, or as small, train the same policy by the same advantages."""

    def given(scale):
        training = Training(
            scaled, PPO(num_envs=8, rollout_length=16, num_epochs=2, num_minibatches=2), estimator,
            MLP(hidden_sizes=(8,)), total_steps=6 * 128, num_threads=1, parameters={"scale": scale},
        )  # fmt: skip
        recorder = training.shards[0].estimator = Recorder(training.shards[0].estimator)
        while not training.finished:
            training.iterate()
        training.close()
        assert len(recorder.given) >= 6
        return torch.stack(recorder.given)

    one = given(1.0)
    assert one.isfinite().all() and (one[0] - one[-1]).abs().max() > 0.1  # something was learned in between
    for scale in (1000.0, 0.001):
        np.testing.assert_allclose(given(scale), one, atol=2e-3, err_msg=f"scale {scale}")
