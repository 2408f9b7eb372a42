"""benchmarks/pictures.py: its statistics; every picture is stored, small, drawn, shown, and quoted as measured."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def _script():
    spec = importlib.util.spec_from_file_location("benchmarks_pictures", ROOT / "benchmarks" / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pictures = _script()
each_picture = pytest.mark.parametrize("name", pictures.load())


def gray(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), float)


def test_interquartile_mean_and_its_interval():
    values = np.array([[0.0, 3.0], [2.0, 3.0], [4.0, 3.0], [100.0, 3.0]])
    (middle, low, high), constant = pictures.summarize(values)
    assert middle == 3  # of 2 and 4
    assert 0 <= low < 3 < high <= 100
    assert constant == [3, 3, 3]


def test_returns_and_kl_of_a_curve(monkeypatch):
    """CartPole: returns between its shortest and longest episodes, and steps that TRPO keeps inside its bound."""
    monkeypatch.setattr(pictures, "RUNS", 2)
    policy = pictures.MLP(normalize_observation=False)
    found = pictures.curve("cartpole", pictures.TRPO(4, 64), pictures.GAE(), 25 * 256, policy, kl=True)
    assert found["steps"] == list(range(256, 26 * 256 - 255, 256))
    returns, kl = np.array(found["episode_return"]), np.array(found["kl"])
    assert returns.shape == (25, 3) and (returns >= 8).all() and (returns <= 500).all()
    assert ((kl > 0) & (kl < 0.0101)).mean() > 0.9  # float32 beside TRPO's own bound


@each_picture
def test_picture_is_small_and_shown(name):
    path = ROOT / "docs" / "pictures" / f"{name}.png"
    assert path.stat().st_size <= 60_000
    assert gray(path).shape[1] == 800
    assert any(f"pictures/{name}.png)" in page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))


@each_picture
def test_picture_is_drawn_from_the_stored_figures(name, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    drawn, kept = gray(pictures.draw(name, pictures.load()[name])), gray(ROOT / "docs" / "pictures" / f"{name}.png")
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 4  # another version of Matplotlib may place a letter elsewhere


@each_picture
def test_tables_quote_the_stored_figures(name):
    pages = [page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md")]
    shown = "\n".join(text for text in pages if f"pictures/{name}.png)" in text)
    for row in pictures.table(pictures.load()[name]):
        assert row in shown, f"copy it from `python benchmarks/pictures.py table {name}`:\n{row}"


def test_nothing_else_is_stored():
    assert set(pictures.load()) <= set(pictures.MEASURE)
