"""The harness of the study of estimators, benchmarks/estimators.py: its statistics, its file, its ablation."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import GAE
from ridgeline.estimators.static_mixture import StaticMixture
from ridgeline.rollout import collect
from ridgeline.training import Training

FILE = Path(__file__).parents[1] / "benchmarks" / "estimators.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("benchmarks_estimators", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def train(harness, monkeypatch, file: Path, *arguments: str) -> list[dict]:
    command = ["estimators.py", "train", str(file), "--runs", "2", "--steps", "4096", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--tasks", "cartpole", "--lengths", "64", "--estimators", *arguments])
    harness.main()
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_interquartile_mean(harness):
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])
    assert harness.iqm(np.random.default_rng(0).permutation(values)) == 3.5  # of 2, 3, 4, 5
    np.testing.assert_array_equal(harness.iqm(np.array([[1.0, 7.0], [3.0, 9.0]])), [2.0, 8.0])


def test_score_is_the_area_under_the_curve_of_iqms(harness):
    """Each iteration has its own middle runs; the final score is that of the last tenth."""
    returns = np.zeros((8, 20))
    returns[:, 0] = [0, 0, 1, 2, 3, 4, 50, 60]
    returns[:, 18:] = 7.0
    score, final = harness.scores(returns)
    assert score[0] == (2.5 + 7 + 7) / 20 and score[1] <= score[0] <= score[2]
    assert final == [7.0, 7.0, 7.0]


def test_interval_covers_the_mean(harness):
    """Of 200 studies of 16 normal runs, about 95% have the truth inside; the bootstrap of 16 is a little narrow."""
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        _, low, high = harness.scores(generator.standard_normal((16, 1)), samples=200)[0]
        inside += low <= 0 <= high
    assert 172 <= inside <= 199


def test_iterations_without_an_end_keep_the_value_before(harness):
    nan = np.nan
    filled = harness._filled(np.array([[nan, nan, 3.0, nan, 4.0], [1.0, nan, nan, 2.0, nan]]))
    np.testing.assert_array_equal(filled, [[3, 3, 3, 3, 4], [1, 1, 1, 2, 2]])


def test_newest_episodes(harness):
    """More than a ring of 100 cannot be kept: the newest 100 count; a run without one is NaN."""
    training = Training("cartpole", PPO(num_envs=2, rollout_length=8), num_runs=3, num_threads=1)
    training.episodes[0, :, 0] = np.arange(100)
    training.num_episodes[:] = [250, 3, 7]
    training.episodes[1, :3, 0] = [5, 6, 10]
    found = harness._newest(training, np.array([100, 1, 7]))
    training.close()
    np.testing.assert_array_equal(found, [49.5, 8.0, np.nan])


def test_cells_are_kept_and_do_not_depend_on_their_group(harness, monkeypatch, tmp_path, capsys):
    one, many = tmp_path / "one.jsonl", tmp_path / "many.jsonl"
    alone = train(harness, monkeypatch, one, "grid (0.99, 0.9)")
    together = train(harness, monkeypatch, many, "grid (0.99, 0.9);grid (0.9, 0.5);block absorbing;best")
    assert "2 of 25 cells of the grid are there" in capsys.readouterr().out
    assert [cell["estimator"] for cell in together] == ["grid (0.99, 0.9)", "grid (0.9, 0.5)", "block absorbing"]
    assert np.array(alone[0]["returns"]).shape == (2, 4)
    assert together[0]["returns"] == alone[0]["returns"] != together[1]["returns"]
    assert train(harness, monkeypatch, many, "grid (0.99, 0.9);grid (0.9, 0.5);block absorbing") == together
    lines = harness.table(together).splitlines()
    assert lines[0] == "| T = 64 | cartpole (best 500) |" and len(lines) == 5
    assert sum("**" in line for line in lines) == 1


def test_extra_heads_change_the_critic_alone(harness):
    """Advantage and last target are GAE's of the last head, the other targets the static mixture's."""
    estimator = harness.ExtraHeads()
    algorithm = PPO(num_envs=8, rollout_length=16)
    training = Training("cartpole", algorithm, estimator, num_runs=2, num_threads=1)
    env, population = training.shards[0].env, training.shards[0].population
    rollout = collect(env, population, 16)
    assert rollout.value.shape[-1] == StaticMixture().num_values + 1
    estimate, _ = estimator(rollout, {})
    value, next_value = rollout.value, rollout.next_value
    rollout.value, rollout.next_value = value[..., -1:], next_value[..., -1:]
    expected, _ = GAE()(rollout, {})
    torch.testing.assert_close(estimate.advantage, expected.advantage, rtol=0, atol=0)
    torch.testing.assert_close(estimate.target[..., -1:], expected.target, rtol=0, atol=0)
    rollout.value, rollout.next_value = value[..., :-1], next_value[..., :-1]
    expected, _ = StaticMixture()(rollout, {})
    torch.testing.assert_close(estimate.target[..., :-1], expected.target, rtol=0, atol=0)
    training.close()


def test_a_packed_file_shows_the_same(harness, tmp_path):
    file = tmp_path / "study.jsonl"
    returns = np.random.default_rng(0).normal(100, 1, (16, 200))
    score, final = harness.scores(returns)
    cell = {"task": "cartpole", "rollout_length": 64, "score": score, "final": final, "frozen": 0, "settings": {}}
    cell |= {"returns": returns.tolist(), "last": {"mixture_adapted": [0.5] * 16, "entropy": [0.1] * 16}}
    cells = [cell | {"estimator": name} for name in ("adaptive mixture", "grid (0.9, 0.5)")]
    file.write_text("".join(json.dumps(one) + "\n" for one in cells), encoding="utf-8")
    harness.pack(file)
    packed, grid = harness.read(file)
    assert harness.table([packed, grid]) == harness.table(cells)
    assert len(packed["iterations"]) == harness.KEPT and packed["iterations"][::59] == [1, 200]
    assert packed["returns"][3][-1] == returns[3, 199] and list(packed["last"]) == ["mixture_adapted"]
    assert (grid["returns"], grid["last"]) == ([], {})
    harness.pack(file)
    assert harness.read(file) == [packed, grid]


def test_the_page_shows_the_published_study(harness):
    """docs/estimator_study.md has the tables of benchmarks/estimator_study.jsonl, which agrees with itself."""
    text = (FILE.parents[1] / "docs" / "estimator_study.md").read_text(encoding="utf-8")
    cells = [
        cell for cell in harness.read(FILE.with_name("estimator_study.jsonl")) if cell["estimator"] not in harness.GRID
    ]
    tables = re.findall(r"<!-- (\w+) (\d+) -->\n(.*?)\n<!-- end -->", text, re.S)
    assert len(tables) == 4
    for what, length, body in tables:
        here = [cell for cell in cells if cell["rollout_length"] == int(length)]
        assert harness.table(here, {"table": "score"}.get(what, what)).strip() == body
    for cell in cells:
        score, low, high = cell["score"]
        assert low <= score <= high and len(cell["returns"]) == cell["num_runs"]
        # of some of the iterations: about the mean over all
        assert abs(harness.iqm(np.array(cell["returns"])).mean() - score) <= 0.1 * abs(score) + 1
