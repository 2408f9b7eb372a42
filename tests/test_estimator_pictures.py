"""benchmarks/estimator_pictures.py: every picture is small and shown, and is what the code draws."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ridgeline import components

ROOT = Path(__file__).parents[1]


def _script():
    spec = importlib.util.spec_from_file_location(
        "benchmarks_estimator_pictures", ROOT / "benchmarks" / "estimator_pictures.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


pictures = _script()


@pytest.mark.parametrize("name", pictures.DRAW)
def test_picture_is_small_and_shown(name):
    path = ROOT / "docs" / "pictures" / f"estimator_{name}.png"
    assert path.stat().st_size <= 60_000
    with Image.open(path) as image:
        assert image.width == 800
    page = ROOT / "docs" / "estimators" / f"{'README' if name == 'ends' else name}.md"
    assert f"](../pictures/estimator_{name}.png)" in page.read_text("utf-8")


@pytest.mark.parametrize("name", ["ends", "harmonic_trace", "puffer_advantage", "average_reward"])
def test_picture_is_what_the_code_draws(name, monkeypatch, tmp_path):
    """Those that are drawn in a second."""
    kept = _grey(ROOT / "docs" / "pictures" / f"estimator_{name}.png")
    monkeypatch.setattr(pictures, "PICTURES", tmp_path)
    pictures.save(name)
    drawn = _grey(tmp_path / f"estimator_{name}.png")
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 1


def _grey(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), float)


def test_every_estimator_has_a_page_with_the_same_sections():
    for name in components.names("estimator"):
        text = (ROOT / "docs" / "estimators" / f"{name}.md").read_text("utf-8")
        sections = re.findall(r"^## (.*)", text, re.M)
        assert sections == [
            "The picture", "Details", "When to use it", "How it fails", "Command and numbers",
        ], name  # fmt: skip
        assert f"source=estimators/{name}.py" in text or name == "adaptive_mixture"
