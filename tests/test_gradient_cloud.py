"""The gradient cloud: its numbers on clouds that are known, its gradients on problems that are solved, its command."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from ridgeline import cli, cloud_command, gradient_cloud
from ridgeline.algorithms.ppo import PPO
from ridgeline.environments import make
from ridgeline.envs import bandit
from ridgeline.estimators.dae import DAE
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.monte_carlo import MonteCarlo
from ridgeline.estimators.n_step import NStep
from ridgeline.estimators.static_mixture import StaticMixture
from ridgeline.gradient_cloud import Settings, measure
from ridgeline.gradient_comparison import Cloud, compare, describe_truth, plane, student, true_parts
from ridgeline.policies import MLP
from ridgeline.rollout import collect
from ridgeline.training import Training

TABLE = MLP(hidden_sizes=())  # on one-hot observations a softmax table, with a bias for each action
WALK = {"control": 1.0}
STATES = 19

# ------------------------------------------------------------------------------------------------ clouds that are known


def known(generator, runs=8, batches=20, size=30, parts=16, bias=0.25, noise=1.0):
    """Gradients with mean g/2 and a bias across it, the parts of g, and the numbers that they should give."""
    truth = generator.normal(size=size)
    truth /= np.linalg.norm(truth)
    across = generator.normal(size=size)
    across -= (across @ truth) * truth
    across *= bias / np.linalg.norm(across)
    mean = truth / 2 + across
    gradient = mean + noise / math.sqrt(size) * generator.normal(size=(runs, batches, size))
    square = 0.25 + bias**2
    scale = 0.5 / square
    expected = {
        "scale": scale, "bias": math.sqrt(1 - 0.25 / square), "variance": scale**2 * noise**2,
        "signal_to_noise": square / noise**2,
    }  # fmt: skip
    many = mean + noise / math.sqrt(size) * generator.normal(size=(4000, size))
    expected["cosine"] = float((many @ truth / np.linalg.norm(many, axis=1)).mean())
    return gradient.astype(np.float32), truth + 0.2 / math.sqrt(size) * generator.normal(size=(parts, size)), expected


@pytest.mark.parametrize(("bias", "noise"), [(0.25, 1.0), (0.0, 2.0), (1.0, 0.3)])
def test_numbers_of_a_known_cloud(bias, noise):
    """Over 60 clouds: estimates right on average, 95% intervals that hold the truth about that often."""
    generator = np.random.default_rng(0)
    held, found = {}, {}
    for _ in range(60):
        gradient, parts, expected = known(generator, bias=bias, noise=noise)
        numbers = compare(gradient, parts)
        for name, value in expected.items():
            estimate, lower, upper = numbers[name]
            assert lower <= estimate <= upper
            held.setdefault(name, []).append(lower - 1e-9 <= value <= upper + 1e-9)
            found.setdefault(name, []).append((estimate, value))
    for name, inside in held.items():
        assert np.mean(inside) > 0.83, name
        estimate, value = np.transpose(found[name])
        if name != "bias" or bias > 0:  # its square may be estimated below 0, where it is 0
            error = (estimate - value).std() / math.sqrt(60)
            assert abs((estimate - value).mean()) < 5 * error + 0.02 * value.mean(), name
    if bias > 0:
        assert np.mean(held["bias"]) < 1 or np.mean(held["variance"]) < 1, "the intervals are too wide to say anything"


def test_noise_is_not_taken_for_bias():
    """Few, noisy gradients without bias: their mean is far from the truth, and the interval of the bias begins at 0."""
    generator = np.random.default_rng(1)
    gradient, parts, _ = known(generator, batches=4, bias=0.0, noise=4.0)
    mean = gradient.mean((0, 1))
    scaled = mean * (mean @ parts.mean(0)) / (mean @ mean)
    assert np.linalg.norm(scaled - parts.mean(0)) > 0.5
    assert compare(gradient, parts)["bias"][1] == 0


def test_a_mean_that_is_nothing_has_no_bias():
    generator = np.random.default_rng(2)
    gradient = generator.normal(size=(8, 4, 30)).astype(np.float32)
    gradient[:, 2:] = -gradient[:, :2]
    numbers = compare(gradient, known(generator)[1])
    assert all(math.isnan(number) for name in ("bias", "variance", "scale") for number in numbers[name])


def test_the_ratio_of_sums_and_its_error():
    """h_j = S_j/L − (L_j/L − 1) g by hand; its standard error is that of the ratio, by simulation."""
    parts = true_parts(np.array([[2.0, 0.0], [4.0, 2.0]]), np.array([1.0, 3.0]))
    np.testing.assert_allclose(parts, [[1 + 0.75, 0.25], [2 - 0.75, 1 - 0.25]])
    np.testing.assert_allclose(parts.mean(0), [1.5, 0.5])
    generator = np.random.default_rng(3)
    steps = generator.poisson(50, (2000, 16)).astype(float)
    total = 3 * steps[..., None] + generator.normal(size=(2000, 16, 5)) * np.sqrt(steps)[..., None]
    found = [describe_truth(true_parts(t, s)) for t, s in zip(total, steps, strict=True)]
    ratio = total.sum(1) / steps.sum(1)[:, None]
    actual = math.sqrt(((ratio - 3) ** 2).sum(1).mean() / 45)
    assert np.sqrt(np.mean([one["relative_standard_error"] ** 2 for one in found])) == pytest.approx(actual, rel=0.05)
    assert np.mean([one["length"] ** 2 for one in found]) == pytest.approx(45, rel=0.001)


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (7, 2.365), (15, 2.131), (1000, 1.962)])
def test_student(freedom, quantile):
    assert student(freedom) == pytest.approx(quantile, rel=0.01)


def test_the_plane():
    """A perfect estimator is the point (1, 0); the second axis is the one across the truth that extends most."""
    truth = np.array([0.0, 2.0, 0.0, 0.0])
    parts = truth + np.array([[0.1, 0, 0, 0], [-0.1, 0, 0, 0]])
    perfect = np.tile(truth, (3, 5, 1)).astype(np.float32)
    wide = np.random.default_rng(4).normal(size=(3, 200, 4)).astype(np.float32) * [1e-3, 1e-3, 1e-3, 5.0]
    one, other = plane([Cloud("a", "a", perfect), Cloud("b", "b", wide.astype(np.float32))], parts)
    np.testing.assert_allclose(one, np.tile([1.0, 0.0], (15, 1)), atol=1e-6)
    assert (other**2).mean(0) == pytest.approx([0, 1], abs=1e-3)


# --------------------------------------------------------------------------------------------- problems that are solved


def policy_of(environment, config=TABLE, **parameters):
    training = Training(environment, PPO(num_envs=1, rollout_length=4), policy=config, total_steps=4, num_threads=1,
                        parameters=parameters)  # fmt: skip
    policy = training.policies()[0]
    training.close()
    with torch.no_grad():  # an untrained policy is nearly even-handed, and its gradient too simple
        generator = torch.Generator().manual_seed(0)
        policy.action_head.weight.normal_(0.0, 0.1, generator=generator)
        policy.action_head.bias.normal_(0.0, 0.1, generator=generator)
    return policy


def walk(policy):
    """The random walk solved: visits per episode (19,), π (19, 2), ∇ log π by state and action (19, 2, P)."""
    observation = torch.eye(STATES)
    scores = np.zeros((STATES, 2, sum(policy.get_parameter(name).numel() for name in ACTOR)))
    for state in range(STATES):
        for action in range(2):
            distribution, _ = policy(observation[state : state + 1])
            log_prob = distribution.log_prob(torch.tensor([action])).sum()
            gradient = torch.autograd.grad(log_prob, [policy.get_parameter(name) for name in ACTOR])
            scores[state, action] = torch.cat([one.flatten() for one in gradient]).double().numpy()
    with torch.no_grad():
        chance = policy(observation)[0].log_probs.double().exp().numpy()
    move = np.zeros((STATES, STATES))
    move[np.arange(1, STATES), np.arange(STATES - 1)] = chance[1:, 0]
    move[np.arange(STATES - 1), np.arange(1, STATES)] = chance[:-1, 1]
    visits = np.linalg.solve((np.eye(STATES) - move).T, np.eye(STATES)[STATES // 2])
    return visits, chance, scores, move


ACTOR = ["action_head.weight", "action_head.bias"]
END = np.array([-1.0] + [0.0] * STATES + [1.0])  # what follows is worth, where it is an end


def following(value):
    """r + V(s') of each state and action, (19, 2)."""
    around = np.concatenate([[-1.0], value, [1.0]])
    return np.stack([around[:-2], around[2:]], 1)


def expected_gradient(solved, credit):
    """Σ_s visits(s) Σ_a π(a|s) ∇log π(a|s) credit(s, a) / E[length]."""
    visits, chance, scores, _ = solved
    return np.einsum("s,sa,sap,sa->p", visits, chance, scores, credit) / visits.sum()


def test_the_true_gradient_of_a_solved_walk():
    """Against linear algebra: as far from it as its standard error says, and no more."""
    policy = policy_of("random_walk", **WALK)
    solved = walk(policy)
    value = np.linalg.solve(np.eye(STATES) - solved[3], solved[1][:, 1] * END[2:] + solved[1][:, 0] * END[:-2])
    estimators = {"one step": NStep(gamma=1.0, num_steps=1)}
    settings = Settings(num_envs=16, rollout_length=64, num_runs=4, num_batches=8, fit_steps=5_000, true_steps=80_000)
    clouds = measure("random_walk", policy, TABLE, estimators, settings, parameters=WALK, num_threads=2)
    exact = expected_gradient(solved, following(value))
    mean = clouds.parts.mean(0)
    error = np.linalg.norm(mean - exact) / np.linalg.norm(exact)
    claimed = clouds.truth["relative_standard_error"]
    assert claimed < 0.1 and error < 2 * claimed
    assert clouds.truth["length"] == pytest.approx(np.linalg.norm(exact), rel=3 * claimed)
    assert clouds.truth["cosine_of_halves"] > 0.95


def test_the_noise_of_a_solved_bandit():
    """One pull is an episode: g = E[r ∇log π], and the variance of M pulls is (E[(r − b)² |∇log π|²] − |g|²) / M.

    With rewards around 4 the baseline takes nine tenths of it away.
    """
    policy, shift = policy_of("bandit"), {"shift": 4.0}
    settings = Settings(num_envs=64, rollout_length=4, num_runs=4, num_batches=400, fit_steps=20_000, true_steps=60_000)
    estimators = {"baseline": MonteCarlo(gamma=1.0), "none": MonteCarlo(gamma=1.0, baseline="none")}
    clouds = measure("bandit", policy, TABLE, estimators, settings, parameters=shift, num_threads=1)
    with torch.no_grad():
        chance = policy(torch.ones(1, 1))[0].log_probs.double().exp().numpy()[0]
    score = np.tile(np.eye(10) - chance, 2)  # of weights and biases
    reward = np.array(bandit.VALUES) + 4
    exact = (chance * reward) @ score
    mean = clouds.parts.mean(0)
    assert np.linalg.norm(mean - exact) < 2 * clouds.truth["relative_standard_error"] * np.linalg.norm(exact)
    assert clouds.truth["relative_standard_error"] < 0.1 and clouds.truth["episode_length"] == 1
    variance = {}
    for cloud, baseline in zip(clouds.clouds, (chance @ reward, 0.0), strict=True):
        square = (reward - baseline) ** 2 + 1  # the noise of a reward is 1
        variance[cloud.label] = ((chance * square) @ (score**2).sum(1) - exact @ exact) / 256 / (exact @ exact)
        measured, lower, upper = cloud.numbers["variance"]
        assert measured == pytest.approx(variance[cloud.label], rel=0.15) and lower < variance[cloud.label] < upper
        assert cloud.numbers["bias"][1] < 0.1 and cloud.numbers["scale"][0] == pytest.approx(1, abs=0.15)
        unit = cloud.gradient / np.linalg.norm(cloud.gradient, axis=-1, keepdims=True)
        cosine = float((unit @ exact).mean() / np.linalg.norm(exact))
        assert cloud.numbers["cosine"][0] == pytest.approx(cosine, abs=0.02)
    assert variance["none"] > 8 * variance["baseline"]


def test_the_bias_of_one_step_is_that_of_its_critic():
    """Each run's mean gradient is Σ d π ∇log π (r + V(s') − V(s)) of its own critic; and so is the bias."""
    policy = policy_of("random_walk", **WALK)
    solved = walk(policy)
    settings = Settings(num_envs=64, rollout_length=32, num_runs=4, num_batches=240, fit_steps=20_000)
    env = make("random_walk", settings.num_envs, [1, 2, 3, 4], parameters=WALK)
    group = gradient_cloud._Group(env, policy, TABLE, settings, {"one step": NStep(gamma=1.0, num_steps=1)})
    for _ in range(settings.num_fits):
        group.fit()
    population = group.critics["one step"].population
    with torch.no_grad():  # each run's critic is wrong in a way of its own
        weight = population.view("value_head.weight")
        weight += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    gradient = np.stack([group.gradients()["one step"] for _ in range(60)], 1)
    value = population.value(torch.eye(STATES).expand(4, STATES, STATES))[..., 0].double()
    expected = np.stack([expected_gradient(solved, following(one) - one[:, None]) for one in value.numpy()])
    block = gradient.reshape(4, 10, 6, -1).mean(2)  # successive batches share episodes
    error = block.var(1, ddof=1).sum(-1) / 10
    assert (((gradient.mean(1) - expected) ** 2).sum(-1) / error).mean() < 2.5
    others = np.roll(expected, 1, 0)  # another run's critic gives another gradient
    assert (((gradient.mean(1) - others) ** 2).sum(-1) / error).min() > 25
    exact = np.linalg.solve(np.eye(STATES) - solved[3], solved[1][:, 1] * END[2:] + solved[1][:, 0] * END[:-2])
    truth = expected_gradient(solved, following(exact))
    along, square = (expected @ truth).mean(), (expected**2).sum(1).mean()
    bias = math.sqrt(1 - along**2 / (square * (truth @ truth)))
    estimate, lower, upper = compare(gradient, np.tile(truth, (4, 1)))["bias"]
    assert bias > 0.1 and lower <= bias <= upper and abs(estimate - bias) < 0.1
    env.close()


def test_short_corridor_without_observation():
    """dJ/dθ of J = −(4 − 2q)/(q(1 − q)), episodes longer than rollouts; a mean over steps divides by E[L] = −J."""
    policy = policy_of("short_corridor")
    with torch.no_grad():
        chance = policy(torch.ones(1, 1))[0].log_probs.double().exp()[0]
    q = float(chance[0])
    slope = (2 * q * (1 - q) + (4 - 2 * q) * (1 - 2 * q)) / (q * (1 - q)) ** 2 * q * (1 - q)
    exact = np.array([slope, -slope, slope, -slope]) / ((4 - 2 * q) / (q * (1 - q)))
    settings = Settings(num_envs=32, rollout_length=8, num_runs=3, num_batches=6, fit_steps=1_000, true_steps=80_000)
    clouds = measure("short_corridor", policy, TABLE, {"lone": GAE()}, settings, num_threads=1)
    error = np.linalg.norm(clouds.parts.mean(0) - exact) / np.linalg.norm(exact)
    assert error < 4 * clouds.truth["relative_standard_error"] < 0.4  # one number, in two ways
    assert clouds.truth["episode_length"] == pytest.approx((4 - 2 * q) / (q * (1 - q)), rel=0.05)
    assert clouds.truth["episode_return"] == pytest.approx(-clouds.truth["episode_length"])


def test_the_policy_stays_and_all_estimators_see_the_same():
    policy = policy_of("cartpole", MLP(hidden_sizes=(8,)))
    settings = Settings(num_envs=8, rollout_length=16, num_runs=3, num_batches=6, fit_steps=256)
    env = make("cartpole", 8, [1, 2, 3])
    estimators = {"a": GAE(), "b": StaticMixture(), "c": MonteCarlo(gamma=1.0), "d": MonteCarlo(gamma=1.0)}
    group = gradient_cloud._Group(env, policy, MLP(hidden_sizes=(8,)), settings, estimators)
    assert group.actor == ["actor.0.weight", "actor.0.bias", "action_head.weight", "action_head.bias"]
    assert group.critics["c"] is group.acting
    before = group.critics["b"].population.view("value_head.weight").clone()
    for _ in range(2):
        group.fit()
    assert not torch.equal(before, group.critics["b"].population.view("value_head.weight"))
    for critic in group.critics.values():
        for name in group.actor:
            for run in range(3):
                assert torch.equal(critic.population.view(name)[run], policy.get_parameter(name))
    rollout = collect(env, group.acting.population, 16)
    for label in "ab":
        own = group.critics[label].rollout(rollout)
        assert own.value.shape == (16, 24, estimators[label].num_values)
        assert own.log_ratio.abs().max() < 1e-6 and own.observation is rollout.observation
    first = group.gradients()
    np.testing.assert_array_equal(first["c"], first["d"])
    assert np.abs(first["a"] - first["c"]).max() > 1e-4
    # the gradient of the mean of Â log π, by autograd on the policy alone
    rollout = env._rollout  # type: ignore[attr-defined]
    advantage = group.critics["a"].advantage(rollout)
    for run in range(3):
        rows = slice(8 * run, 8 * run + 8)
        log_prob = policy(rollout.observation[:-1, rows].flatten(0, 1))[0].log_prob(rollout.action[:, rows].flatten())
        loss = (log_prob * advantage[:, rows].flatten()).mean()
        expected = torch.autograd.grad(loss, [policy.get_parameter(name) for name in group.actor])
        flat = torch.cat([one.flatten() for one in expected]).numpy()
        np.testing.assert_allclose(first["a"][run], flat, rtol=1e-3, atol=1e-5)
    env.close()


def test_threads_do_not_matter():
    policy, settings = policy_of("bandit"), Settings(8, 4, 3, 6, 64, 1000)
    one, two = (measure("bandit", policy, TABLE, {"a": GAE()}, settings, num_threads=n) for n in (1, 2))
    np.testing.assert_allclose(one.clouds[0].gradient, two.clouds[0].gradient, rtol=1e-5, atol=1e-7)


def test_standardised_is_the_same_direction_less_the_mean():
    env = make("bandit", 4, [0, 1])
    policy = policy_of("bandit")
    settings = Settings(num_envs=4, rollout_length=8, num_runs=3, num_batches=6, fit_steps=0)
    raw = MonteCarlo(gamma=1.0, baseline="none")
    group = gradient_cloud._Group(env, policy, TABLE, settings, {"raw": raw, "s": cloud_command.Standardized(raw)})
    rollout = group.collect()
    advantage = rollout.by_run(group.critics["raw"].advantage(rollout)).numpy()
    expected = (advantage - advantage.mean((0, 2), keepdims=True)) / advantage.std((0, 2), keepdims=True)
    found = rollout.by_run(group.critics["s"].advantage(rollout)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    env.close()


# ---------------------------------------------------------------------------------------------------------- refusals


def test_a_shared_trunk_is_refused():
    config = MLP(hidden_sizes=(4,), shared_trunk=True)
    with pytest.raises(ValueError, match=r"share parameters.*--no-shared-trunk"):
        measure("cartpole", policy_of("cartpole", config), config, {"a": GAE()}, Settings(8, 4, 3, 6, 64, 1000))


def test_an_estimator_that_the_environment_refuses_is_named():
    policy, settings = policy_of("bandit"), Settings(8, 4, 3, 6, 64, 1000)
    clouds = measure("bandit", policy, TABLE, {"a": GAE(), "b": StaticMixture()}, settings, num_threads=1)
    assert [cloud.label for cloud in clouds.clouds] == ["a"]
    assert list(clouds.refused) == ["b"] and "needs a time limit" in clouds.refused["b"]
    with pytest.raises(ValueError, match="needs a time limit"):
        measure("bandit", policy, TABLE, {"b": StaticMixture()}, settings, num_threads=1)


def test_episodes_without_end_are_refused(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text('''
"""Endless: nothing ever ends."""
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype

State = state_dtype(x=np.float64)
observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)


def reset(state, p):
    state.x = 0.0


def step(state, action, p):
    return 1.0, False


def observe(state, observation, p):
    observation[0] = 1.0
''')  # fmt: skip
    monkeypatch.setattr(gradient_cloud, "LONGEST", 100)
    path = tmp_path / "endless.py"
    with pytest.raises(gradient_cloud.CloudError, match=r"episode of more than 100 steps.*give the environment one"):
        measure(path, policy_of(path), TABLE, {"a": GAE()}, Settings(8, 4, 3, 6, 64, 1000), num_threads=1)


# ---------------------------------------------------------------------------------------------------------- the command

SMALL = "--num-envs 8 --rollout-length 8 --batches 16 --fit-steps 128 --true-steps 2000 --hidden-sizes 4 --threads 1"


def run(line, capsys):
    code = cli.main(line.split())
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_draws_and_writes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    line = f"cloud cartpole {SMALL} --steps 128 --num-minibatches 1 --estimator gae --gamma 0.5 --out pictures --json"
    code, out, err = run(line, capsys)
    assert code == 0
    for stage in ("training the policy", "fitting the critics", "single batches", "the true gradient"):
        assert f"{stage}: 0 of " in err
    *said, last = out.splitlines()
    document = json.loads(last)
    labels = [row["label"] for row in document["clouds"]]
    assert labels[:2] == ["whole return", "reward-to-go"] and labels[-1] == "gae, as asked"
    assert labels == [*cloud_command.default_estimators(), "gae, as asked"]
    assert all(any(line.startswith(label) for line in said) for label in labels)
    for row in document["clouds"]:
        assert all(len(row[name]) == 3 for name in ("cosine", "bias", "variance", "signal_to_noise", "scale"))
    assert document["settings"]["num_envs"] == 8 and document["true_gradient"]["num_steps"] >= 1500
    assert document["policy"] == "a policy after 128 steps of ppo"
    files = [tmp_path / "pictures" / f"cloud-cartpole.{kind}" for kind in ("png", "json")]
    assert [document["png"], document["json"]] == [str(file.relative_to(tmp_path)) for file in files]
    assert json.loads(files[1].read_text(encoding="utf-8")) == document
    with Image.open(files[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=-1) > 60).mean() > 0.003, "no clouds are drawn"


def test_the_policy_of_a_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    train = "train random_walk --environment.control 1 --steps 64 --num-envs 4 --rollout-length 8 --num-minibatches 1"
    assert cli.main(f"{train} --hidden-sizes 4 --out a --quiet --threads 1".split()) == 0
    small = "--batches 16 --fit-steps 64 --true-steps 500 --threads 1 --json"
    code, out, _ = run(f"cloud random_walk --run a {small} --rollout-length 16", capsys)
    document = json.loads(out.splitlines()[-1])
    assert code == 0 and document["policy"] == "the first policy of a, after 64 steps"
    assert (document["settings"]["num_envs"], document["settings"]["rollout_length"]) == (4, 16)
    assert document["parameters"] == {"control": 1.0}
    code, out, err = run(f"cloud random_walk --run a --learning-rate 1 --steps 3 {small}", capsys)
    assert (code, out) == (2, "") and "leave --learning-rate, --steps away" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cloud", "name an environment: ridgeline cloud ENV"),
        ("cloud cartpol", "unknown environment 'cartpol'; did you mean cartpole"),
        ("cloud cartpole --batches 3", "batches = 3; use at least 16, two for each of 8 runs"),
        ("cloud cartpole --true-steps 0", "true_steps = 0; use a whole number from 1"),
        ("cloud cartpole --steps -1", "steps = -1; use a whole number from 0"),
        ("cloud cartpole --run nowhere", "nowhere holds no run"),
        ("cloud cartpole --batch 3", "unknown flag --batch; did you mean --batches?"),
        ("cloud cartpole --steps 0 --shared-trunk", "the policy and its critic share parameters"),
    ],
)
def test_a_mistake_is_one_line(line, words, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(line, capsys)
    assert code == 2 and words in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_mending_line_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = run("cloud cartpole", capsys)
    assert (code, out) == (1, "") and err.count("\n") == 1 and 'pip install "ridgeline[plot]"' in err


def test_a_directory_that_cannot_be_is_named(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    code, _, err = run(f"cloud bandit --steps 0 {SMALL} --out {tmp_path / 'file'}", capsys)
    assert code == 1 and "cannot be written" in err and "choose another --out" in err


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    def interrupted(group):
        raise KeyboardInterrupt

    monkeypatch.setattr(gradient_cloud._Group, "fit", interrupted)
    code, out, err = run(f"cloud bandit --steps 0 {SMALL}", capsys)
    assert (code, out) == (130, "") and "Traceback" not in err


def test_bad_settings():
    for wrong in ({"num_runs": 2}, {"fit_steps": -1}, {"seed": -1}, {"num_batches": 15}):
        with pytest.raises(ValueError, match=r"= -?\d+; use"):
            Settings(**wrong)


def test_critics_whose_size_depends_on_the_actions():
    """dae's number of predictions is a function of the action space."""

    policy = policy_of("bandit")
    clouds = measure("bandit", policy, TABLE, {"dae": DAE()}, Settings(8, 4, 3, 6, 64, 1000), num_threads=1)
    assert [cloud.label for cloud in clouds.clouds] == ["dae"] and np.isfinite(clouds.clouds[0].gradient).all()
