"""The table of docs/environments.md: made from the code and the figures that are kept."""

import importlib.util
import math
import re
from pathlib import Path

import pytest

import ridgeline

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def table():
    """benchmarks/environments.py as a module."""
    spec = importlib.util.spec_from_file_location("environment_table", ROOT / "benchmarks" / "environments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_command_writes(table):
    said = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    assert said == table.page(), "python benchmarks/environments.py page (for a new one: random NAME, pictures)"


def test_every_environment_has_a_best_and_a_random_score(table):
    assert sorted(table.BEST) == ridgeline.names()
    assert set(table.figures()["random"]) >= set(ridgeline.names())


def test_random_scores_are_those_of_the_docstrings(table):
    """Where a file states the mean of random play as a number."""
    compared = 0
    for name, line in table.figures()["random"].items():
        text = (ROOT / "src" / "ridgeline" / "envs" / f"{name}.py").read_text(encoding="utf-8")
        found = re.search(r"[Rr]andom play: (-?\d+(?:\.\d+)?)(?=;|, | on | \(mea| and |\.\s)", text)
        if found:
            tolerance = 4 * line["standard_error"] + 0.06 * abs(float(found[1])) + 0.006
            assert abs(line["mean"] - float(found[1])) < tolerance, name
            compared += 1
    assert compared >= 10


def test_the_interval_is_students(table):
    """Five runs 1 .. 5: mean 3, deviation sqrt(2.5), half width 2.776 sqrt(2.5 / 5)."""
    mean, low, high = table.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (mean, (high - low) / 2) == pytest.approx((3.0, 2.776 * math.sqrt(0.5)))
    assert table.interval([7.0])[1:] == (-math.inf, math.inf)
    assert [table.number(x) for x in (0.0, 12345.6, -0.8684, 99.96, 0.25)] == ["0", "12346", "-0.868", "100", "0.25"]


def test_a_row_says_what_was_learned(table):
    known = {
        "random": {"snake": {"mean": -0.87, "standard_error": 0.01}},
        "trained": {
            "snake": {"returns": [10.0, 11.0, 12.0], "steps": 2_000_000, "failures": 0, "environment_share": 0.064}
        },
    }
    assert table.row("snake", known).endswith("| -0.87 | 63, optimum | 11 (8.52 .. 13.5; 3 runs, 2 M steps) | 6.4% |")
    known["trained"]["snake"]["returns"] = [-1.0, -0.9, -0.8]
    assert "*not learned*" in table.row("snake", known)
    known["trained"].clear()
    assert table.row("snake", known).endswith("| not run | not run |")


def test_what_has_a_figure_is_not_trained_again(table, tmp_path, monkeypatch):
    """And a line is written as soon as an environment is finished; one that fails stops nothing."""
    monkeypatch.setattr(table, "FIGURES", tmp_path / "figures.jsonl")
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    asked = []

    def measure(name, steps, runs, threads):
        asked.append(name)
        if name == "snake":
            raise ValueError("no")
        figures = {"returns": [1.0] * runs, "steps": steps, "failures": 0, "environment_share": 0.1}
        return {"kind": "trained", "environment": name, **figures}

    monkeypatch.setattr(table, "measure_trained", measure)
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["environments.py", "train", "snake", "maze", "--steps", "64", "--runs", "2"])
        table.main()
    assert asked == ["snake", "maze", "snake"]
    assert table.figures()["trained"]["maze"]["returns"] == [1.0, 1.0] and (tmp_path / "page.md").exists()
