"""The textbook's figures: against its pseudo-code, against what is known exactly, and against the reference tables."""

import json
import math
import sys

import numpy as np
import pytest
from test_docs import ROOT

from ridgeline import cli, kernel, reproduce
from ridgeline.envs import short_corridor
from ridgeline.kernel import plain
from ridgeline.vector import TRAINING


@pytest.fixture(scope="module")
def walks():
    return reproduce.record_walks(200, seed=3)


# ---------------------------------------------------------------------------------------------------------- random walk


def test_the_walks_are_those_of_the_book(walks):
    position, reward, terminated = walks
    assert (terminated.sum(1) >= 10).all()
    num_right = num_inner = 0
    for run in range(len(position)):
        assert position[run, 0] == 9
        for t in range(position.shape[1] - 1):
            here, following = position[run, t], position[run, t + 1]
            if terminated[run, t]:
                assert (here, reward[run, t]) in ((0, -1.0), (18, 1.0)) and following == 9
            else:
                assert abs(following - here) == 1 and reward[run, t] == 0.0
                num_inner += 0 < here < 18
                num_right += (0 < here < 18) and following > here
    assert abs(num_right / num_inner - 0.5) < 4 * 0.5 / math.sqrt(num_inner)


def by_the_book(episodes, n, alpha):
    """RMS error after each of the `episodes`, pairs (states, rewards): the box of n-step TD, page 144, with γ = 1."""
    value, errors = np.zeros(19), []
    for states, rewards in episodes:
        T = len(rewards)
        R = [None, *rewards]  # R[t + 1] follows S[t]
        for t in range(T + n):
            tau = t - n + 1
            if 0 <= tau < T:
                G = sum(R[i] for i in range(tau + 1, min(tau + n, T) + 1))
                if tau + n < T:
                    G += value[states[tau + n]]
                value[states[tau]] += alpha * (G - value[states[tau]])
        errors.append(math.sqrt(np.mean((value - (np.arange(1, 20) - 10) / 10) ** 2)))
    return errors


@pytest.mark.parametrize("n", [1, 2, 5, 40, 512])
def test_n_step_td_is_that_of_the_book(walks, n):
    """With rewards in every step too, which the walk does not have."""
    position, reward, terminated = (array[:6] for array in walks)
    for rewards in (reward, np.random.default_rng(n).normal(size=reward.shape)):
        expected = []
        for run in range(6):
            ends = np.flatnonzero(terminated[run])[:10] + 1
            pieces = zip([0, *ends[:-1]], ends, strict=True)
            expected.append(by_the_book([(position[run, a:b], rewards[run, a:b]) for a, b in pieces], n, 0.3))
        found = np.empty((6, 10))
        reproduce.n_step_errors(position, rewards, terminated, n, 0.3, reproduce.TRUE_VALUE, found)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_random_walk_meets_the_table():
    """Within 3 standard errors of so many runs in all 15 places, and best at n = 4 with alpha near 0.4."""
    document = reproduce.random_walk(300, seed=0)
    assert len(document["comparison"]) == 15
    for row in document["comparison"]:
        assert row["met"] == (abs(row["rms_error"] - row["reference"]) < row["tolerance"])
        assert row["met"], row
    assert document["best"]["n"] == 4 and 0.35 <= document["best"]["alpha"] <= 0.45
    assert document["met"]
    tolerance = {(row["n"], row["alpha"]): row["tolerance"] for row in document["comparison"]}
    assert tolerance[4, 0.4] == pytest.approx(3 * 0.0050 / math.sqrt(3), abs=1e-5)


def test_a_wrong_step_size_does_not_meet_the_table(monkeypatch):
    """The comparison can fail: with steps larger by a twentieth."""
    real = reproduce.n_step_errors
    monkeypatch.setattr(reproduce, "n_step_errors", lambda *a: real(*a[:4], 1.05 * a[4], *a[5:]))
    document = reproduce.random_walk(300, seed=0)
    assert not document["met"] and sum(not row["met"] for row in document["comparison"]) >= 2


@pytest.mark.slow
def test_random_walk_with_many_runs():
    document = reproduce.random_walk(5000, seed=1)
    for row in document["comparison"]:
        tolerance = row["tolerance"] * math.sqrt(1 + 5000 / 20_000)  # the table, of 20,000 runs, has an error too
        assert abs(row["rms_error"] - row["reference"]) < tolerance + 0.00005, row
    assert document["best"]["n"] == 4 and 0.35 <= document["best"]["alpha"] <= 0.45


# ------------------------------------------------------------------------------------------------------- short corridor

RIGHT, LEFT = 0, 1
FOLLOWING = {(0, RIGHT): 1, (0, LEFT): 0, (1, RIGHT): 0, (1, LEFT): 2, (2, RIGHT): 3, (2, LEFT): 1}


def reinforce_by_the_book(run, seed, alpha, alpha_baseline, num_episodes):
    """Returns of one run: the boxes of REINFORCE, pages 328 and 330, with vectors; and how often the floor held."""
    state = np.zeros(run + 1, short_corridor.State).view(np.recarray)
    kernel.seed_rows(state, seed, TRAINING)
    uniform = plain(kernel.uniform)
    feature = np.eye(2)
    theta, w, returns, held = np.array([-1.0, 1.0]) * math.log(19) / 2, 0.0, [], 0

    def probabilities():
        softmax = np.exp(theta - theta.max()) / np.exp(theta - theta.max()).sum()
        return np.clip(softmax, 0.05, 0.95)

    for _ in range(num_episodes):
        policy, position, actions = probabilities(), 0, []
        while position != 3:
            with np.errstate(over="ignore"):
                actions.append(RIGHT if uniform(state[run]) < policy[RIGHT] else LEFT)
            position = FOLLOWING[position, actions[-1]]
        returns.append(-len(actions))
        for t, action in enumerate(actions):
            delta = -(len(actions) - t) - w
            w += alpha_baseline * delta
            gradient = feature[action] - probabilities() @ feature
            theta = theta + alpha * delta * gradient
            held += policy[RIGHT] in (0.05, 0.95)
    return returns, held


@pytest.mark.parametrize(("alpha", "alpha_baseline"), [(2.0**-12, 0.0), (2.0**-9, 2.0**-6), (2.0**-5, 2.0**-6)])
def test_reinforce_is_that_of_the_book(alpha, alpha_baseline):
    found = reproduce.corridor_returns(3, 5, alpha, alpha_baseline, num_episodes=25)
    for run in range(3):
        expected, held = reinforce_by_the_book(run, 5, alpha, alpha_baseline, 25)
        assert found[run].tolist() == expected
        assert len(set(expected)) > 5
        assert alpha < 0.03 or held > 50


def test_short_corridor_begins_at_its_value():
    """Without learning, the mean return is -(4 - 2p) / (p (1 - p)) = -82.105 for p = 0.05."""
    returns = reproduce.corridor_returns(500, 0, 0.0, 0.0, num_episodes=40)
    assert abs(returns.mean() + 82.10526) < 4 * returns.std() / math.sqrt(returns.size)


def test_short_corridor_meets_the_table():
    document = reproduce.short_corridor(400, seed=0)
    settings = [row["setting"] for row in document["comparison"]]
    assert document["order"] == ["baseline 2^-9, 2^-6", "2^-12", "2^-13", "2^-14"] == [settings[3], *settings[:3]]
    for row in document["comparison"]:
        assert abs(row["mean_return"][-1] - row["reference"][-1]) < 0.5 and row["met"], row
        for found, expected, error in zip(row["mean_return"], row["reference"], row["standard_error"], strict=True):
            assert abs(found - expected) < 4 * error * math.sqrt(1 + 400 / 3000) + 0.05, row
    assert document["met"]


@pytest.mark.slow
def test_short_corridor_with_many_runs():
    document = reproduce.short_corridor(3000, seed=1)
    assert document["met"]
    for row in document["comparison"]:
        for found, expected, error in zip(row["mean_return"], row["reference"], row["standard_error"], strict=True):
            assert abs(found - expected) < 4 * error * math.sqrt(2) + 0.05, row


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("figure", ["random-walk", "short-corridor"])
def test_the_command_draws_and_writes(figure, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from PIL import Image

    line = ["reproduce", figure, "--runs", "20", "--seed", "2", "--out", str(tmp_path / "pictures"), "--json"]
    assert cli.main(line) == 0
    said = capsys.readouterr().out.splitlines()
    document = json.loads(said[-1])
    assert "the table is" in " ".join(said[:-1])
    assert (document["figure"], document["num_runs"], document["seed"]) == (figure, 20, 2)
    files = [tmp_path / "pictures" / f"{figure}.{kind}" for kind in ("png", "json")]
    assert [document.pop(kind) for kind in ("png", "json")] == [str(file) for file in files]
    assert json.loads(files[1].read_text(encoding="utf-8")) == document
    with Image.open(files[0]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (750, 1200, 3)
    coloured = np.ptp(pixels.astype(int), axis=-1) > 60
    assert coloured.mean() > 0.005, "no lines are drawn"


def test_without_matplotlib_the_mending_line_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(["reproduce", "random-walk", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and 'pip install "ridgeline[plot]"' in said.err
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_is_named(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    assert cli.main(["reproduce", "random-walk", "--runs", "2", "--out", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot be written" in said and "choose another --out" in said


def test_the_page_has_the_tables():
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for n, alpha, error, _, error_04, _ in reproduce.WALK_TABLE:
        assert f"| {n} | {alpha:.2f} | {error:.4f} | {error_04:.4f} |" in text
    for label, _, _, (first, middle, last) in reproduce.CORRIDOR_TABLE:
        assert f"| {label} | {first:.1f} | {middle:.1f} | {last:.2f} |" in text
