"""Every estimator and every algorithm against small MDPs that linear algebra solves.

Estimators: the mean advantage of each state and action is the true one where theory says so, with critics however wrong
where it says that they do not matter, and misses it by the predicted amount elsewhere. Algorithms: the mean of their
gradients, as they come out of whole iterations, is the one that an enumeration of all episodes gives.

A new estimator is one line in UNBIASED (whole episodes, a critic without any sense) or in CASES (cut, truncated and
terminated ones, with the exact critic and with a wrong one).
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ridgeline import components
from ridgeline.algorithms import trpo
from ridgeline.algorithms.a2c import A2C
from ridgeline.algorithms.ppo import PPO
from ridgeline.algorithms.reinforce import REINFORCE
from ridgeline.algorithms.trpo import TRPO
from ridgeline.algorithms.vpg import VPG
from ridgeline.distributions import Categorical
from ridgeline.estimators.average_reward import AverageReward
from ridgeline.estimators.block import Block
from ridgeline.estimators.dae import DAE
from ridgeline.estimators.fixed_horizon import FixedHorizon
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.harmonic_trace import HarmonicTrace
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.estimators.n_step import NStep
from ridgeline.estimators.puffer_advantage import PufferAdvantage
from ridgeline.estimators.static_mixture import trace_mixture
from ridgeline.estimators.v_trace import VTrace
from ridgeline.population import Population
from ridgeline.rollout import Estimate, Rollout
from ridgeline.vector import Step, VectorEnv

GAMMA, NOISE = 0.9, 0.5

# ------------------------------------------------------------------------------------------------------------- the MDPs


@dataclass(frozen=True, eq=False)
class MDP:
    """S states, A actions; the end is state S."""

    transition: np.ndarray  # (S, A, S + 1)
    reward: np.ndarray  # (S, A, S + 1), means
    policy: np.ndarray  # (S, A)
    start: np.ndarray  # (S,)

    @property
    def mean_reward(self) -> np.ndarray:
        return (self.transition * self.reward).sum(-1)

    @property
    def chain(self) -> np.ndarray:
        """(S, S): state to next state, while it goes on."""
        return np.einsum("sa,sax->sx", self.policy, self.transition[..., :-1])

    def value(self, gamma: float) -> np.ndarray:
        return np.linalg.solve(np.eye(len(self.chain)) - gamma * self.chain, (self.policy * self.mean_reward).sum(1))

    def action_value(self, gamma: float) -> np.ndarray:
        return self.mean_reward + gamma * self.transition[..., :-1] @ self.value(gamma)

    def differential_value(self) -> tuple[float, np.ndarray]:
        """The reward per step where nothing ends, and the values over it, (S,), which sum to 0."""
        size = len(self.chain)
        system = np.block([[np.eye(size) - self.chain, np.ones((size, 1))], [np.ones((1, size)), 0.0]])
        solution = np.linalg.solve(system, [*(self.policy * self.mean_reward).sum(1), 0.0])
        return solution[-1], solution[:-1]

    def ahead(self, num_steps: int) -> np.ndarray:
        """(S, A, S): the state after so many steps, from 1, and still going."""
        return self.transition[..., :-1] @ np.linalg.matrix_power(self.chain, num_steps - 1)

    def reward_ahead(self, lag: int) -> np.ndarray:
        """(S, A): the reward `lag` steps later, 0 behind an end."""
        return self.ahead(lag) @ (self.policy * self.mean_reward).sum(1) if lag else self.mean_reward

    def visits(self) -> np.ndarray:
        """(S,): in an episode."""
        return np.linalg.solve((np.eye(len(self.chain)) - self.chain).T, self.start)


@functools.cache
def layered() -> MDP:
    """Episodes of exactly three steps: state 0, then 1 or 2, then 3 or 4."""
    generator = np.random.default_rng(0)
    transition = np.zeros((5, 3, 6))
    for here, there in (([0], [1, 2]), ([1, 2], [3, 4])):
        for state in here:
            transition[state][:, there] = generator.dirichlet([1, 1], 3)
    transition[3:, :, 5] = 1.0
    return MDP(transition, generator.normal(size=(5, 3, 6)), generator.dirichlet([2, 2, 2], 5), np.eye(5)[0])


@functools.cache
def looping(ending: bool = True) -> MDP:
    """Four states, round and round; some actions may end it, or none."""
    generator = np.random.default_rng(1)
    transition = np.zeros((4, 2, 5))
    transition[..., :4] = generator.dirichlet([0.5] * 4, (4, 2))
    end = np.where(generator.random((4, 2)) < 0.4, 0.3, 0.0) * ending
    transition = transition * (1 - end)[..., None]
    transition[..., 4] = end
    assert end.any() == ending
    reward = 0.5 + generator.normal(size=(4, 2, 5))
    return MDP(transition, reward, generator.dirichlet([2, 2], 4), generator.dirichlet([1] * 4))


def other_policy(mdp: MDP) -> np.ndarray:
    """One that acts otherwise, but never too seldom what the MDP's policy does, (S, A)."""
    return 0.5 * mdp.policy + 0.5 / mdp.policy.shape[1]


LIMIT = 5  # steps until every second column is truncated, where there is a limit


@functools.cache
def simulate(mdp: MDP, steps: int, columns: int, limit: bool, seed: int, other: bool = False) -> dict[str, np.ndarray]:
    """Columns that begin with an episode: state, action, following, reward, terminated, truncated, (T, B) each; `rows`,
    how many rows are seen at most from each on: up to the limit or to the cut; `policy` (T, B, A), which acted: the
    `other` one or the MDP's."""
    generator = np.random.default_rng([7, seed])
    record: dict[str, list] = {name: [] for name in ("policy", "state", "action", "following", "reward", "terminated")}
    truncated = np.zeros((steps, columns), bool)
    truncated[LIMIT - 1, ::2] = limit
    state = generator.choice(len(mdp.start), columns, p=mdp.start)
    policy = other_policy(mdp) if other else mdp.policy
    for t in range(steps):
        action = draw(generator, policy[state])
        following = draw(generator, mdp.transition[state, action])
        terminated = following == len(mdp.start)
        reward = mdp.reward[state, action, following] + NOISE * generator.normal(size=columns)
        for name, array in zip(record, (policy[state], state, action, following, reward, terminated), strict=True):
            record[name].append(array)
        again = generator.choice(len(mdp.start), columns, p=mdp.start)
        state = np.where(terminated | truncated[t], again, following)
    row = np.arange(steps)[:, None]
    rows = np.where(truncated[LIMIT - 1] & (row < LIMIT), LIMIT - row, steps - row)
    return {name: np.stack(arrays) for name, arrays in record.items()} | {"truncated": truncated, "rows": rows}


def draw(generator: np.random.Generator, probability: np.ndarray) -> np.ndarray:
    """One index for each row of probabilities (B, C)."""
    return (probability.cumsum(-1)[:, :-1] <= generator.random((len(probability), 1))).sum(-1)


def make_rollout(
    found: dict[str, np.ndarray], heads: np.ndarray, num_runs: int = 1, log_ratio: np.ndarray | None = None
) -> Rollout:
    """With a critic that says `heads` (S, K), NaN behind an end; log_ratio (S, A)."""
    following = np.concatenate([heads, np.full((1, heads.shape[1]), math.nan)])[found["following"]]
    empty = torch.zeros(0)
    names = ("action", "reward", "terminated", "truncated")
    action, reward, terminated, truncated = (torch.from_numpy(found[name]) for name in names)
    value, next_value = torch.from_numpy(heads[found["state"]]), torch.from_numpy(following)
    batch = Rollout(num_runs, empty, action, empty, value, next_value, reward, terminated, truncated)
    log_ratio = np.zeros((len(heads), 3)) if log_ratio is None else log_ratio
    batch.log_ratio = torch.from_numpy(log_ratio[found["state"], found["action"]])
    batch._distribution = Categorical(torch.from_numpy(np.log(found["policy"])))
    return batch


def scores(error: np.ndarray, found: dict[str, np.ndarray], num_clusters: int) -> np.ndarray:
    """(S, A): by how many standard errors the mean of `error` (T, B) is not 0; neighbouring columns form clusters."""
    state, action = found["state"], found["action"]
    assert np.isfinite(error).all()
    result = np.zeros((state.max() + 1, action.max() + 1))
    for s, a in np.ndindex(result.shape):
        sums = np.where((state == s) & (action == a), error, 0.0).sum(0).reshape(num_clusters, -1).sum(1)
        result[s, a] = sums.sum() / math.sqrt((sums**2).sum())
    return result


def wrong_heads(mdp: MDP, estimator: Any) -> np.ndarray:
    """(S, K) predictions without any sense."""
    count: Any = estimator.num_values
    if callable(count):
        count = count(spaces.Discrete(mdp.policy.shape[1]))
    return np.random.default_rng(5).normal(scale=2.0, size=(len(mdp.start), count))


# -------------------------------------------------------------------------- whole episodes: critics without any sense


def past(mdp: MDP, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Of `layered`: the mean discounted return before a state, given that it is visited; and its step; (S,) each."""
    step, arrived, brought = np.array([0, 1, 1, 2, 2]), mdp.visits(), np.zeros(5)
    for there in (1, 2, 3, 4):  # states come in the order of their steps
        flow = mdp.policy * mdp.transition[..., there]
        before = brought / arrived + gamma**step * mdp.reward[:, :, there].T
        brought[there] = (arrived * flow.T * before).sum()
    return brought / arrived, step


def discounted(mdp: MDP, heads: np.ndarray) -> np.ndarray:
    return mdp.action_value(GAMMA) - heads[:, :1]


def undiscounted(mdp: MDP, heads: np.ndarray) -> np.ndarray:
    return mdp.action_value(1.0) - heads.sum(1, keepdims=True)


def whole(mdp: MDP, heads: np.ndarray) -> np.ndarray:
    before, step = past(mdp, GAMMA)
    return (before - heads[:, 0])[:, None] + GAMMA ** step[:, None] * mdp.action_value(GAMMA)


def centred(truth: Callable) -> Callable:
    """Less the mean over all steps, without a critic."""

    def mean(mdp: MDP, heads: np.ndarray) -> np.ndarray:
        credit = truth(mdp, 0 * heads)
        return credit - (mdp.visits()[:, None] * mdp.policy * credit).sum() / 3

    return mean


def less(baseline: float, truth: Callable) -> Callable:
    return lambda mdp, heads: truth(mdp, 0 * heads) - baseline


UNBIASED: list[tuple[Any, Callable]] = [  # an estimator, its mean advantage (S, A)
    (MonteCarlo(GAMMA), discounted),
    (MonteCarlo(GAMMA, True, "none"), less(0.0, discounted)),
    (MonteCarlo(GAMMA, True, "constant", 2.5), less(2.5, discounted)),
    (MonteCarlo(GAMMA, True, "moving_average"), centred(discounted)),
    (MonteCarlo(GAMMA, False), whole),
    (MonteCarlo(GAMMA, False, "none"), less(0.0, whole)),
    (MonteCarlo(GAMMA, False, "constant", 2.5), less(2.5, whole)),
    (MonteCarlo(GAMMA, False, "moving_average"), centred(whole)),
    (GAE(GAMMA, 1.0), discounted),
    (NStep(GAMMA, 3), discounted),
    (NStep(GAMMA, 9), discounted),
    (VTrace(GAMMA, 1.0), discounted),
    (PufferAdvantage(GAMMA, 1.0), discounted),
    (DAE(GAMMA, corrected=True), discounted),
    (Block(3), undiscounted),
    (Block(5), undiscounted),
    (FixedHorizon(8, "half"), lambda mdp, heads: undiscounted(mdp, heads[:, -1:])),
]


@pytest.mark.parametrize(("estimator", "truth"), UNBIASED, ids=lambda x: str(x) if hasattr(x, "num_values") else "")
def test_whole_episodes_need_no_critic(estimator, truth):
    """1250 runs of 8 columns of two episodes; what is remembered comes from three rollouts before."""
    mdp, memory = layered(), {}
    heads = wrong_heads(mdp, estimator)
    for seed in range(4):
        found = simulate(mdp, 6, 10_000, False, seed)
        estimate, memory = estimator(make_rollout(found, heads, 1250), memory)
    expected = truth(mdp, heads)[found["state"], found["action"]]
    assert np.abs(scores(estimate.advantage.numpy() - expected, found, 1250)).max() < 4


def test_a_return_in_its_own_baseline_is_noticed():
    """The test above has the power to tell: less the mean of its own 16 episodes, an advantage is too small."""
    mdp, heads, estimator = layered(), np.zeros((5, 1)), MonteCarlo(GAMMA, True, "none")
    found = simulate(mdp, 6, 10_000, False, 3)
    advantage = estimator(make_rollout(found, heads, 1250), {})[0].advantage.unflatten(1, (1250, 8))
    own = (advantage - advantage.mean((0, 2), keepdim=True)).flatten(1, 2)
    expected = centred(discounted)(mdp, heads)[found["state"], found["action"]]
    assert np.abs(scores(own.numpy() - expected, found, 1250)).max() > 5


# ----------------------------------------------------------------- episodes that end in every way: the bias of a critic


@dataclass(frozen=True, eq=False)
class Case:
    """An estimator; its mean advantage, mean(mdp, heads, rows) -> (S, A) where so many rows follow up to the limit or
    cut; the exact critic's heads (S, K); the advantage that it means, (S, A)."""

    estimator: Any
    mean: Callable[[MDP, np.ndarray, int], np.ndarray]
    exact: Callable[[MDP], np.ndarray]
    advantage: Callable[[MDP], np.ndarray]
    mdp: MDP = field(default_factory=looping)
    memory: dict[str, torch.Tensor] = field(default_factory=dict)
    off_policy: bool = False  # another policy than the MDP's has acted

    def __str__(self):
        return f"{self.estimator}{' off-policy' if self.off_policy else ''}"


def exactly(num_steps: int) -> Callable:
    return lambda rows: {min(num_steps, rows): 1.0}


def geometric(gae_lambda: float) -> Callable:
    """n-step advantages in the shares of lambda; the longest one gets what is left."""
    return lambda rows: (
        {n: (1 - gae_lambda) * gae_lambda ** (n - 1) for n in range(1, rows)} | {rows: gae_lambda ** (rows - 1)}
    )


def harmonic(rows: int) -> dict[int, float]:
    return {n: 1 / (n * (n + 1)) for n in range(1, rows)} | {rows: 1 / rows}


def nodes(rows: int) -> dict[int, float]:
    """Gauss-Legendre, five points."""
    points, weights = np.polynomial.legendre.leggauss(5)
    every = [geometric((1 + point) / 2)(rows) for point in points]
    return {n: sum(w / 2 * one[n] for w, one in zip(weights, every, strict=True)) for n in every[0]}


def one_more(weights: Callable) -> Callable:
    """Of the reward and what follows, estimated from the next row on."""
    return lambda rows: {n + 1: share for n, share in weights(rows - 1).items()} if rows > 1 else {1: 1.0}


def by_ratio(mdp: MDP) -> np.ndarray:
    return mdp.policy / other_policy(mdp)


def discounted_case(estimator, weights: Callable, ratio: Callable | None = None, **settings) -> Case:
    """Mixtures of n-step advantages, weights(rows) -> {n: share}. With e = critic - V (ALGORITHMS.md, section 3):

    E[estimate - A] = -e(s_t) + sum of share_n gamma^n E[e(s_t+n)], where the episode goes on
    """

    def mean(mdp: MDP, heads: np.ndarray, rows: int) -> np.ndarray:
        error = heads[:, 0] - mdp.value(GAMMA)
        result = discounted(mdp, heads)
        for n, share in weights(rows).items():
            result = result + share * GAMMA**n * mdp.ahead(n) @ error
        return result * ratio(mdp) if ratio else result

    def advantage(mdp: MDP) -> np.ndarray:
        return mdp.action_value(GAMMA) - mdp.value(GAMMA)[:, None]

    def exact(mdp: MDP) -> np.ndarray:
        value = mdp.value(GAMMA)[:, None]
        return np.concatenate([value, advantage(mdp)], 1) if isinstance(estimator, DAE) else value

    return Case(estimator, mean, exact, advantage, **settings)


def endless_case(estimator, weights: Callable, rate: float) -> Case:
    """The same without a discount where nothing terminates, and a wrong reward rate: n steps, n times its error."""
    mdp = looping(False)
    true_rate, value = mdp.differential_value()

    def advantage(mdp: MDP) -> np.ndarray:
        return mdp.mean_reward - true_rate + mdp.transition[..., :-1] @ value - value[:, None]

    def mean(mdp: MDP, heads: np.ndarray, rows: int) -> np.ndarray:
        error = heads[:, 0] - value
        result = advantage(mdp) - error[:, None]
        for n, share in weights(rows).items():
            result = result + share * (mdp.ahead(n) @ error + n * (true_rate - rate))
        return result

    memory = {"reward_rate": torch.tensor([rate], dtype=torch.float64)}
    return Case(estimator, mean, lambda mdp: value[:, None], advantage, mdp, memory)


def within(mdp: MDP, horizon: int) -> np.ndarray:
    """(S, A): the sum of so many rewards."""
    return np.sum([mdp.reward_ahead(lag) for lag in range(horizon)], 0) if horizon else 0 * mdp.policy


def horizon_case(estimator, weights: Callable) -> Case:
    """n rewards and the prediction for the horizon that is left, on the line between the heads 0, 1, 2, 4, ..."""
    horizons = [0, *(2**k for k in range(estimator.num_values))]

    def mean(mdp: MDP, heads: np.ndarray, rows: int) -> np.ndarray:
        result = -heads[:, -1:]
        for n, share in weights(min(rows, horizons[-1])).items():
            left = np.array([np.interp(horizons[-1] - n, horizons, [0.0, *own]) for own in heads])
            result = result + share * (within(mdp, n) + mdp.ahead(n) @ left)
        return result

    def exact(mdp: MDP) -> np.ndarray:
        return np.stack([(mdp.policy * within(mdp, h)).sum(1) for h in horizons[1:]], 1)

    return Case(estimator, mean, exact, undiscounted_advantage)


def block_case(estimator, absorbing: bool = True, weights: tuple[float, ...] = (1.0,) * 9, **settings) -> Case:
    """Each lag that is seen, less its prediction; what is not seen is predicted at the cut, or masked. A lag behind an
    end is 0 and less its prediction, or masked. Each lag times its weight."""

    def mean(mdp: MDP, heads: np.ndarray, rows: int) -> np.ndarray:
        result = 0 * mdp.policy
        for lag in range(estimator.horizon):
            if lag < rows:
                alive = mdp.ahead(lag).sum(-1) if lag and not absorbing else 1.0
                result = result + weights[lag] * (mdp.reward_ahead(lag) - alive * heads[:, lag, None])
            elif absorbing:
                result = result + weights[lag] * (mdp.ahead(rows) @ heads[:, lag - rows] - heads[:, lag, None])
        return result

    def exact(mdp: MDP) -> np.ndarray:
        return np.stack([(mdp.policy * mdp.reward_ahead(lag)).sum(1) for lag in range(estimator.horizon)], 1)

    return Case(estimator, mean, exact, undiscounted_advantage, **settings)


def undiscounted_advantage(mdp: MDP) -> np.ndarray:
    return mdp.action_value(1.0) - mdp.value(1.0)[:, None]


@dataclass(frozen=True)
class Component:
    """One component of the static mixture, in units of reward."""

    num_values = 1

    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        values = rollout.value[..., 0], rollout.next_value[..., 0]
        given = rollout.reward, *values, rollout.terminated, rollout.truncated
        return Estimate(trace_mixture(*given, GAMMA)[0], None), memory


ANY = math.inf
ONE = torch.ones(1, dtype=torch.float64)
P3O = {  # variances of 0.5, 1, 2, 3 and of the rewards, 4: 1/variance - 0.5/4 is 15, 7, 3 and 5/3 eighths
    "lag_variance": torch.tensor([[0.5, 1.0, 2.0, 3.0]], dtype=torch.float64),
    "lag_count": ONE.expand(1, 4),
    "target_mean": ONE,
    "target_square": 5 * ONE,
}
CASES = [
    discounted_case(GAE(GAMMA, 0.0), geometric(0.0)),
    discounted_case(GAE(GAMMA, 0.7), geometric(0.7)),
    discounted_case(GAE(GAMMA, 1.0), geometric(1.0)),
    discounted_case(NStep(GAMMA, 1), exactly(1)),
    discounted_case(NStep(GAMMA, 3), exactly(3)),
    discounted_case(MonteCarlo(GAMMA), exactly(99)),
    discounted_case(HarmonicTrace(GAMMA), harmonic),
    discounted_case(Component(), nodes),
    discounted_case(VTrace(GAMMA, 0.7), one_more(geometric(0.7))),
    discounted_case(VTrace(GAMMA, 1.0, ANY, ANY), exactly(99), off_policy=True),
    discounted_case(VTrace(GAMMA, 0.7, ANY, ANY), one_more(geometric(0.7)), off_policy=True),
    discounted_case(PufferAdvantage(GAMMA, 0.7), geometric(0.7)),
    discounted_case(PufferAdvantage(GAMMA, 0.7, ANY, ANY), geometric(0.7), by_ratio, off_policy=True),
    discounted_case(DAE(GAMMA, corrected=True), exactly(99)),
    endless_case(AverageReward(0.7), geometric(0.7), rate=0.2),
    endless_case(AverageReward(0.7, 1e-9, "apo"), geometric(0.7), rate=0.2),
    horizon_case(FixedHorizon(8, "half"), exactly(4)),
    horizon_case(FixedHorizon(8), harmonic),
    block_case(Block(4)),
    block_case(Block(4, "masked"), absorbing=False),
    block_case(Block(4, puf=0.5), weights=(1, 7 / 15, 3 / 15, 1 / 9), memory=P3O),
    block_case(Block(4, "masked", 0.5), False, (1, 7 / 15, 3 / 15, 1 / 9), memory=P3O),
]


def advantages(case: Case, heads: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Of 20,000 columns (T, B); what was simulated; and the predicted mean for every entry."""
    mdp = case.mdp
    found = simulate(mdp, 9, 20_000, True, 1, case.off_policy)
    log_ratio = np.log(by_ratio(mdp)) if case.off_policy else None
    advantage = case.estimator(make_rollout(found, heads, 1, log_ratio), case.memory)[0].advantage.numpy()
    every = np.stack([case.mean(mdp, heads, rows) for rows in range(1, 10)])
    return advantage, found, every[found["rows"] - 1, found["state"], found["action"]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_with_the_exact_critic(case):
    advantage, found, expected = advantages(case, case.exact(case.mdp))
    assert np.abs(scores(advantage - expected, found, 20_000)).max() < 4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_with_a_wrong_critic(case):
    """The bias has the predicted sign and size; and it is one: what is left is not a number of each state."""
    mdp = case.mdp
    advantage, found, expected = advantages(case, wrong_heads(mdp, case.estimator))
    assert np.abs(scores(advantage - expected, found, 20_000)).max() < 4
    policy = other_policy(mdp) if case.off_policy else mdp.policy
    every = np.stack([case.mean(mdp, wrong_heads(mdp, case.estimator), rows) for rows in range(1, 10)])
    shift = (policy * every).sum(-1)[found["rows"] - 1, found["state"]]
    harmless = case.advantage(mdp)[found["state"], found["action"]] + shift
    assert np.abs(scores(advantage - harmless, found, 20_000)).max() > 6


def test_clipped_ratios_judge_a_policy_between():
    """V-trace with its limits of 1, the critic exact for the policy that is proportional to min(mu, pi)."""
    mdp = looping()
    least = np.minimum(other_policy(mdp), mdp.policy)
    between = replace(mdp, policy=least / least.sum(1, keepdims=True))
    heads = between.value(GAMMA)[:, None]
    found = simulate(mdp, 9, 20_000, True, 1, True)
    batch = make_rollout(found, heads, 1, np.log(by_ratio(mdp)))
    advantage = VTrace(GAMMA, 0.9)(batch, {})[0].advantage.numpy()
    for judged, bound in ((between, (0, 4)), (mdp, (6, ANY))):
        expected = (judged.action_value(GAMMA) - judged.value(GAMMA)[:, None])[found["state"], found["action"]]
        assert bound[0] < np.abs(scores(advantage - expected, found, 20_000)).max() < bound[1]


# ---------------------------------------------------------------------------------------- the gradients of algorithms


def episode_gradient(mdp: MDP, gamma: float, whole_return: bool) -> np.ndarray:
    """The sum over all episodes of P(episode) sum_t grad log pi(a_t|s_t) credit_t, (S, A), for a table of logits; the
    credit is the return from t on, or that of the whole episode."""
    gradient = np.zeros_like(mdp.policy)

    def visit(state: int, probability: float, steps: list[tuple[int, int, float]]) -> None:
        if state == len(mdp.start):
            for t, (s, a, _) in enumerate(steps):
                rest = steps if whole_return else steps[t:]
                credit = sum(gamma**k * reward for k, (_, _, reward) in enumerate(rest))
                gradient[s] += probability * credit * (np.eye(len(mdp.policy[s]))[a] - mdp.policy[s])
            return
        for a, following in np.ndindex(mdp.transition.shape[1:]):
            likely = probability * mdp.policy[state, a] * mdp.transition[state, a, following]
            if likely:
                visit(following, likely, [*steps, (state, a, mdp.reward[state, a, following])])

    for state in mdp.start.nonzero()[0]:
        visit(int(state), mdp.start[state], [])
    return gradient


def of_advantage(mdp: MDP, advantage: np.ndarray) -> np.ndarray:
    """The policy-gradient theorem: sum_s visits(s) sum_a grad pi(a|s) advantage(s, a), (S, A)."""
    less_mean = advantage - (mdp.policy * advantage).sum(1, keepdims=True)
    return mdp.visits()[:, None] * mdp.policy * less_mean


def test_two_truths_agree():
    """The enumeration of all 108 episodes, finite differences of the expected return, and the theorem."""
    mdp = layered()
    for gamma in (1.0, GAMMA):
        theorem = of_advantage(mdp, mdp.action_value(gamma))
        np.testing.assert_allclose(episode_gradient(mdp, gamma, False), theorem, atol=1e-12)
        expected = np.zeros_like(mdp.policy)
        for s, a in np.ndindex(expected.shape):
            values = []
            for shift in (1e-5, -1e-5):
                policy = mdp.policy * np.exp(shift * (np.arange(3) == a) * (np.arange(5) == s)[:, None])
                moved = replace(mdp, policy=policy / policy.sum(1, keepdims=True))
                values.append(moved.start @ moved.value(gamma))
            expected[s, a] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(episode_gradient(mdp, gamma, True), expected, atol=1e-9)
    # without the factor gamma^t reward-to-go gives no gradient of the discounted return; at gamma = 1 it does
    assert np.abs(theorem - expected).max() > 0.01
    np.testing.assert_allclose(episode_gradient(mdp, 1.0, True), of_advantage(mdp, mdp.action_value(1.0)), atol=1e-12)


class TableEnv(VectorEnv):
    """An MDP as an environment, its state as a one-hot observation."""

    name, digest, statistics, max_episode_steps = "table", "", (), None

    def __init__(self, mdp: MDP, num_envs: int, num_runs: int):
        self.mdp, self.num_envs, self.seeds = mdp, num_envs, tuple(range(num_runs))
        size, actions = mdp.policy.shape
        self.observation_space, self.action_space = spaces.Box(0.0, 1.0, (size,)), spaces.Discrete(actions)
        self.generator = np.random.default_rng(11)
        self.state = self.begin()
        self.observation = np.eye(size, dtype=np.float32)[self.state]

    def begin(self) -> np.ndarray:
        return self.generator.choice(len(self.mdp.start), self.num_rows, p=self.mdp.start)

    def step(self, action: np.ndarray, out: np.ndarray | None = None) -> Step:
        following = draw(self.generator, self.mdp.transition[self.state, action])
        reward = self.mdp.reward[self.state, action, following] + NOISE * self.generator.normal(size=self.num_rows)
        terminated = following == len(self.mdp.start)
        self.state = np.where(terminated, self.begin(), following)
        assert out is not None
        out[:] = np.eye(len(self.mdp.start), dtype=np.float32)[self.state]
        self.observation = out
        none, ended = np.zeros(0, np.int64), terminated.nonzero()[0]
        return Step(out, reward, terminated, terminated & False, none, out[:0], ended, np.zeros((len(ended), 2)))


class Table(nn.Module):
    """Logits and values of each state."""

    def __init__(self, policy: np.ndarray, heads: np.ndarray):
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(np.log(policy)).float())
        self.values = nn.Parameter(torch.from_numpy(heads).float())

    def forward(self, observation):
        return Categorical(observation @ self.logits), observation @ self.values


PLAIN = {"rollout_length": 6, "learning_rate": 0.0, "normalize_advantage": False}
A_REINFORCE = REINFORCE(rollout_length=6, learning_rate=0.0, standardize_return=False)
BY_EPISODES = replace(A_REINFORCE, normalize_by="episodes")
A_VPG = VPG(entropy_coef=0.0, num_value_updates=0, **PLAIN)
A_A2C = A2C(entropy_coef=0.0, **PLAIN)
A_PPO = PPO(entropy_coef=0.0, num_epochs=1, num_minibatches=1, **PLAIN)
A_TRPO = TRPO(num_value_updates=1, num_line_search_steps=1, **PLAIN)


def gradients(algorithm, estimator, iterations: int = 4) -> np.ndarray:
    """(100 or 400, S, A): of what the algorithm maximises, with respect to the logits, from whole iterations of runs
    with 160 episodes each, whose policy stays, with a critic without any sense."""
    mdp, num_envs = layered(), 80
    num_runs = 25 if isinstance(algorithm, TRPO) else 100  # TRPO loops over them
    algorithm = replace(algorithm, num_envs=num_envs)
    env = TableEnv(mdp, num_envs, num_runs)
    population = Population(
        lambda: Table(mdp.policy, wrong_heads(mdp, estimator)), env.observation_space, env.action_space,
        env.seeds, components.stack([algorithm] * num_runs),
    )  # fmt: skip
    before, found, steps = population.flat.clone(), [], []

    def natural_step(mean_kl, theta, gradient, *settings):
        steps.append(gradient.clone())
        return torch.zeros_like(gradient)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trpo, "natural_step", natural_step)
        for _ in range(iterations):
            algorithm.iterate(env, population, estimator)
            population.iteration += 1
            logits = torch.stack(steps[-num_runs:]) if steps else -population.gradient[:, : mdp.policy.size].clone()
            found.append(logits.double().numpy())
    assert torch.equal(population.flat, before) and not population.frozen.any()
    return np.concatenate(found).reshape(-1, *mdp.policy.shape)


def misses(found: np.ndarray, expected: np.ndarray) -> float:
    """By how many standard errors the mean misses what is expected, at most."""
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    return float(np.abs((found.mean(0) - expected) / error).max())


NAMES = {A_REINFORCE: "by steps", BY_EPISODES: "by episodes"}
GRADIENTS = [
    (algorithm, MonteCarlo(GAMMA, to_go, baseline, 2.5 * (baseline == "constant")))
    for algorithm in (A_REINFORCE, BY_EPISODES)
    for to_go in (True, False)
    for baseline in ("learned", "moving_average", "constant", "none")
] + [
    (A_VPG, GAE(GAMMA, 1.0)),
    (A_A2C, NStep(GAMMA, 5)),
    (A_PPO, GAE(GAMMA, 1.0)),
    (A_PPO, MonteCarlo(GAMMA, False)),
    (A_TRPO, GAE(GAMMA, 1.0)),
]  # fmt: skip


def name(item) -> str:
    return NAMES.get(item, type(item).__name__) if hasattr(item, "iterate") else str(item)


@pytest.mark.parametrize(("algorithm", "estimator"), GRADIENTS, ids=name)
def test_the_mean_gradient_is_the_enumerated_one(algorithm, estimator):
    """Per step, a third of an episode; REINFORCE's by episodes is that of an episode."""
    whole_return = isinstance(estimator, MonteCarlo) and not estimator.reward_to_go
    expected = episode_gradient(layered(), GAMMA, whole_return) / (1 if algorithm is BY_EPISODES else 3)
    found = gradients(algorithm, estimator)
    assert misses(found, expected) < 4.5
    assert misses(found, 0.8 * expected) > 6  # so much is seen


@pytest.mark.parametrize("algorithm", [A_VPG, A_A2C, A_PPO, A_TRPO], ids=name)
def test_a_biased_estimator_biases_the_gradient_as_predicted(algorithm):
    """GAE at lambda = 0 with a critic without any sense: r + gamma V(s') is what the gradient takes for the return."""
    mdp = layered()
    heads = wrong_heads(mdp, GAE())[:, 0]
    credit = mdp.mean_reward + GAMMA * mdp.transition[..., :-1] @ heads
    found = gradients(algorithm, GAE(GAMMA, 0.0))
    assert misses(found, of_advantage(mdp, credit) / 3) < 4.5
    assert misses(found, episode_gradient(mdp, GAMMA, False) / 3) > 20


@pytest.mark.parametrize("algorithm", [A_REINFORCE, A_VPG, A_A2C, A_PPO, A_TRPO], ids=name)
def test_standardised_the_gradient_is_shorter_by_the_standard_deviation(algorithm):
    """As the defaults are; the batch of 160 episodes is large enough to hide that it is in its own mean."""
    flag = "standardize_return" if isinstance(algorithm, REINFORCE) else "normalize_advantage"
    mdp, estimator = layered(), GAE(GAMMA, 1.0)
    batch = make_rollout(simulate(mdp, 6, 10_000, False, 0), wrong_heads(mdp, estimator))
    spread = estimator(batch, {})[0].advantage.std().item()
    assert abs(spread - 1) > 0.5
    found = gradients(replace(algorithm, **{flag: True}), estimator)
    assert misses(found, episode_gradient(mdp, GAMMA, False) / 3 / spread) < 4.5
