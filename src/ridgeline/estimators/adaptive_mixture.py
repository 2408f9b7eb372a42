"""The adaptive mixture: GAE for several discounts and trace decays at once, mixed by weights that the data choose.

For each run, the weights make the mixture's policy gradient the best prediction of an unbiased one that is measured on
other instances: E|Σ w_c g_c − ∇J|² is least. There is nothing to set for an environment.

Source: this project. Each component: Schulman et al. 2015, eq. 16; several discounts as heads of one critic: Fedus et
al. 2019; the reference is the backward view of TD(1), Sutton & Barto 2018, section 12.2; choosing between returns by
their measured error: Thomas & Brunskill 2016 (MAGIC), there for evaluating a policy.
Differs: the forms are three ways from the same statistics to the weights. "nonnegative" keeps them at or above 0;
"shrunk" does too, and first leaves out what the noise of the statistics explains; "gated" lets them have any sign, and
uses them only where they beat the equal mixture on data held out.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ridgeline import mixture
from ridgeline.rollout import RATIO_TOLERANCE, Estimate, Rollout
from ridgeline.storage import LastLayer
from ridgeline.streams import HALVES, random_stream

GAMMAS = np.array([0.0, 0.8, 0.95, 0.98, 0.99, 0.998])  # the critic's heads; the last is the reference's
TRACES = (0.5, 0.8, 0.95, 1.0)  # λ of the components of each head; γ = 0 needs but one
HEAD = np.array([0] + [k for k in range(1, len(GAMMAS)) for _ in TRACES])
TRACE = np.array([1.0] + [trace for _ in GAMMAS[1:] for trace in TRACES])
COUNT = len(HEAD)
TARGET_TRACE = 0.95  # λ of the critic's targets
PRIOR = np.full(COUNT, 1 / COUNT)
FOLDS = 8
DECAY = {"shrunk": 0.97, "nonnegative": 0.9, "gated": 0.95}  # of the statistics, per rollout
WARM_UP = {"shrunk": 4.0, "nonnegative": 4.0, "gated": 17.0}  # mass of statistics before the weights are used
GATE = 2.0  # standard errors by which the weights must beat the prior
UNIT_RATE = 0.1  # of the running moments of each component
FLOOR = 1e-3  # least standard deviation of a component, as a share of the largest
MOST_ROWS = 1 << 16  # of a run's rollout that the statistics see; the mixture has all
METRICS = ("effective_horizon", "effective_trace", "mixture_adapted", "mixture_cosine")


@dataclass(frozen=True)
class AdaptiveMixture:
    """Several discounts, several trace decays, and weights regressed on the Monte Carlo gradient of other instances.

    Â = Σ_c w_c (Â⁽ᶜ⁾ − mean)/std, standardised. `memory` holds the statistics M = E[ḡḡᵀ] and b = E[g·g_ref] in units of
    reward, from earlier rollouts alone, and w minimises wᵀMw − 2wᵀb + ε|w − s₀w₀|² around the equal mixture w₀. The
    critic learns every head's own GAE(0.95) return. Needs two instances; with one, or as long as the reference shows
    nothing (w₀ᵀb <= 0), it is the equal mixture.
    """

    form: Literal["shrunk", "nonnegative", "gated"] = "shrunk"
    """shrunk: without what noise explains; nonnegative: with it; gated: weights of any sign, if they prove better."""

    num_values = len(GAMMAS)

    def __post_init__(self):
        if self.form not in DECAY:
            raise ValueError(f"form = {self.form!r}; use shrunk, nonnegative or gated")

    def check(self, env, population, algorithm) -> str | None:
        """A warning where the weights cannot adapt. Raises ValueError where the policy does not tell its features."""
        if not population.has_last_layer:
            raise ValueError(
                "adaptive_mixture needs what the policy's last layer sees: give the policy a method last_layer("
                "observation) -> (features, distribution), as MLPPolicy has, or use the estimator static_mixture"
            )
        if env.num_envs < 2:
            return "adaptive_mixture compares instances; with num_envs = 1 it is the equal mixture of its components"
        return None

    @np.errstate(invalid="ignore", over="ignore")  # what is not finite is left out of the statistics
    def __call__(self, rollout: Rollout, memory: dict) -> tuple[Estimate, dict]:
        advantage, target = advantages(rollout)
        most = max(2, MOST_ROWS // (rollout.length * rollout.num_agents))
        layer = rollout.last_layer(min(rollout.num_envs, most))
        error, ends = reference_error(rollout), rollout.terminated | rollout.truncated
        memory = {name: tensor.clone() for name, tensor in (memory or self.begin(rollout, layer)).items()}
        mixed = np.empty((rollout.length, *rollout.by_run(rollout.reward).shape[1:]), np.float32)
        metrics = {name: torch.zeros(rollout.num_runs) for name in METRICS}
        for run in range(rollout.num_runs):
            own = {name: tensor[run].numpy() for name, tensor in memory.items()}
            one = _Run(rollout, run, advantage, error, ends, layer)
            weight, facts = self.weights(own)
            mixed[:, run] = one.mix(weight)
            for name in METRICS:
                metrics[name][run] = facts[name]
            self.learn(own, one)
        return Estimate(torch.from_numpy(mixed).flatten(1, 2), target, None, metrics), memory

    def begin(self, rollout: Rollout, layer: LastLayer) -> dict[str, torch.Tensor]:
        """The memory of R runs before their first rollout."""
        runs, double = rollout.num_runs, torch.float64
        size = layer.score.shape[-1] * (layer.feature.shape[-1] + 1) + layer.score_free.shape[-1]
        return {
            "mass": torch.zeros(runs, FOLDS, dtype=double),
            "matrix": torch.zeros(runs, FOLDS, COUNT, COUNT, dtype=double),
            "vector": torch.zeros(runs, FOLDS, COUNT, dtype=double),
            "outer": torch.zeros(runs, COUNT, COUNT, dtype=double),  # of the vectors of single rollouts
            "square_mass": torch.zeros(runs, 1, dtype=double),
            "mean": torch.zeros(runs, COUNT, dtype=double),
            "square": torch.zeros(runs, COUNT, dtype=double),
            "count": torch.zeros(runs, 1, dtype=double),
            "trace": torch.zeros(runs, layer.score.shape[1] // runs, size),
        }

    def weights(self, memory: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
        """The weights (C,) of one run's standardised components, from its `memory`, and what to log about them."""
        weight, cosine, adapted = PRIOR, 1.0, 0.0
        if memory["mass"].sum() >= WARM_UP[self.form]:
            matrix, found, trust = self.solve(memory)
            power = found @ matrix @ found * (PRIOR @ matrix @ PRIOR)
            if trust > 0 and np.isfinite(found).all() and power > 0:
                weight, cosine, adapted = found, float(found @ matrix @ PRIOR / np.sqrt(power)), trust
        share = np.abs(weight) / np.abs(weight).sum()
        return weight, {
            "effective_horizon": float(np.exp(-share @ np.log1p(-GAMMAS[HEAD]))),
            "effective_trace": float(np.exp(-share @ np.log1p(-GAMMAS[HEAD] * TRACE))),
            "mixture_adapted": adapted,
            "mixture_cosine": cosine,
        }

    def solve(self, memory: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
        """M (C, C) in units of the components, the weights (C,), and how far they are to be trusted, 0 (not) to 1."""
        mass, unit = memory["mass"], _unit(memory["mean"], memory["square"])
        matrices, vectors = memory["matrix"] * unit * unit[:, None], memory["vector"] * unit
        matrix, vector = matrices.sum(0) / mass.sum(), vectors.sum(0) / mass.sum()
        trust = float(PRIOR @ vector > 0)
        if self.form == "gated":
            trust *= mass.min() > 0 and mixture.held_out(matrices, vectors, mass, PRIOR) > GATE
            return matrix, mixture.ridge(matrix, vector, PRIOR), float(trust)
        if self.form == "shrunk":
            outer = memory["outer"] * unit * unit[:, None] / mass.sum()
            share = memory["square_mass"][0] / mass.sum() ** 2  # 1 / effective number of rollouts
            noise = (outer - np.outer(vector, vector)) * share / max(1 - share, 1e-9)
            vector, kept = mixture.without_noise(matrix, vector, noise, PRIOR)
            trust *= kept
        return matrix, mixture.nonnegative_ridge(matrix, vector, PRIOR), trust

    def learn(self, memory: dict[str, np.ndarray], one: "_Run") -> None:
        """Take one run's rollout into its memory, in place; what is not finite only lets it decay."""
        count, decay = int(memory["count"][0]), DECAY[self.form]
        statistics = one.statistics(memory["mean"], memory["trace"]) if one.sound else None
        for name in ("mass", "matrix", "vector", "outer"):
            memory[name] *= decay
        memory["square_mass"] *= decay**2
        if statistics is None or not all(np.isfinite(part).all() for part in statistics):
            memory["trace"][:] = 0
        elif count > 0 and one.num_envs > 1:  # the first rollout only gives the means
            matrix, vector = statistics
            fold = count % FOLDS
            memory["mass"][fold] += 1
            memory["matrix"][fold] += matrix
            memory["vector"][fold] += vector
            memory["outer"] += np.outer(vector, vector)
            memory["square_mass"] += 1
        if np.isfinite(one.square).all():
            rate = UNIT_RATE if count > 0 else 1.0
            memory["mean"] += rate * (one.mean - memory["mean"])
            memory["square"] += rate * (one.square - memory["square"])
            memory["count"] += 1


def advantages(rollout: Rollout) -> tuple[np.ndarray, torch.Tensor]:
    """Every component's advantage (T, R, N, C), and the critic's targets (T, B, K), in units of reward.

    Âₜ⁽ᶜ⁾ = Σₗ (γ_k λ_c)ˡ δₜ₊ₗ⁽ᵏ⁾ up to the end of the trace, as in GAE;   targetₜ⁽ᵏ⁾ = Vₖ(sₜ) + Âₜ with λ = 0.95
    """
    heads = np.concatenate([HEAD, np.arange(len(GAMMAS))])
    decay = GAMMAS[heads] * np.concatenate([TRACE, np.full(len(GAMMAS), TARGET_TRACE)])
    out = np.empty((*rollout.reward.shape, len(heads)), np.float32)
    mixture.components(
        rollout.reward.numpy(), rollout.value.numpy(), rollout.next_value.numpy(), rollout.terminated.numpy(),
        rollout.truncated.numpy(), GAMMAS.astype(np.float32), heads, decay.astype(np.float32), out,
    )  # fmt: skip
    target = rollout.value + torch.from_numpy(out[..., COUNT:])
    return out[..., :COUNT].reshape(rollout.length, rollout.num_runs, -1, COUNT), target


def reference_error(rollout: Rollout) -> torch.Tensor:
    """The TD errors of the longest horizon, (T, B): the reference is their sum from a row to its episode's end."""
    following = torch.where(rollout.terminated, 0.0, float(GAMMAS[-1]) * rollout.next_value[..., -1])
    return rollout.reward + following - rollout.value[..., -1]


def _unit(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
    """1 / standard deviation of each component, (C,); one that hardly varies beside the others stays small."""
    std = np.sqrt(np.maximum(square - mean * mean, 0.0))
    std += FLOOR * std.max()
    return 1 / np.where(std > 0, std, 1.0)


class _Run:
    """One run's part of a rollout."""

    def __init__(self, rollout, run, advantage, error, ends, layer):
        def own(tensor):
            return np.ascontiguousarray(rollout.by_run(tensor)[:, run].numpy())

        self.advantage = np.ascontiguousarray(advantage[:, run])
        self.error, self.ends = own(error), own(ends)
        self.score, self.feature, self.free = own(layer.score), own(layer.feature), own(layer.score_free)
        self.length, seen, _ = self.score.shape
        self.num_agents, self.num_envs = rollout.num_agents, seen // rollout.num_agents  # that the statistics see
        every = torch.ones_like(rollout.terminated) if rollout.valid is None else rollout.valid
        self.valid = own(every)
        # the score of another distribution than the one that acted would be a biased reference
        difference = np.where(self.valid[:, :seen], own(layer.log_prob) - own(rollout.log_prob)[:, :seen], 0)
        self.sound = bool(np.abs(difference).max() <= RATIO_TOLERANCE)
        self.mean, self.square = np.empty(COUNT), np.empty(COUNT)
        mixture.moments(self.advantage, self.valid, self.mean, self.square)
        population = rollout.population
        generator = random_stream(population.seeds[run], HALVES, int(population.iteration[run]))
        self.order = generator.permutation(self.num_envs)  # of instances: which half each is in

    def rows_of(self, instances: np.ndarray) -> np.ndarray:
        """The rows of all agents of these instances: what one sees depends on the others, so they share a half."""
        return (instances[:, None] * self.num_agents + np.arange(self.num_agents)).ravel()

    def mix(self, weight: np.ndarray) -> np.ndarray:
        """The mixture of this rollout's standardised components, standardised, (T, N)."""
        out = np.empty(self.error.shape, np.float32)
        mixture.mix(self.advantage, self.valid, self.mean, weight * _unit(self.mean, self.square), out)
        return out

    def statistics(self, centre: np.ndarray, trace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """M (C, C) and b (C,) of this rollout, in units of reward; `trace` (N, P) goes on to the next one.

            M = ḡ ḡᵀ, ḡ the mean over the halves;   b = ½ (g⁽¹⁾·g_ref⁽²⁾ + g⁽²⁾·g_ref⁽¹⁾), over two halves

        `centre` (C,) is subtracted from the components; it must be known before this rollout.
        """
        half = self.num_envs // 2  # of an odd number, one instance sits out
        g, r = [], []
        for instances in (self.order[:half], self.order[half : 2 * half], self.order[2 * half :]):
            gradient, reference = mixture.gradients(
                self.advantage, centre.astype(np.float32), self.error, self.ends, self.valid, np.float32(GAMMAS[-1]),
                self.score, self.feature, self.free, self.rows_of(instances), trace,
            )  # fmt: skip
            rows = max(int(self.valid[:, self.rows_of(instances)].sum()), 1)
            g.append(gradient.astype(np.float64) / rows)
            r.append(reference.astype(np.float64) / rows)
        mean = (g[0] + g[1]) / 2
        return mean @ mean.T, 0.5 * (g[0] @ r[1] + g[1] @ r[0])
