"""One process at a time in a directory."""

import subprocess
import sys

import pytest

import ridgeline
from ridgeline import cli
from ridgeline.lock import InUse, alone

HOLD = """
import sys
from pathlib import Path
from ridgeline.lock import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that is in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, tmp_path):
    with pytest.raises(InUse, match="in use by another process"), alone(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with alone(tmp_path):
        pass


def test_a_training_and_its_resumption_want_the_directory_alone(holder, tmp_path):
    settings = {"total_steps": 1, "num_threads": 1}
    with pytest.raises(InUse):
        ridgeline.train("bandit", out=tmp_path, **settings)
    assert not (tmp_path / "config.json").exists()
    holder.kill()
    holder.wait()
    ridgeline.train("bandit", out=tmp_path, **settings)
    ridgeline.train(resume=tmp_path, total_steps=1)


def test_a_comparison_wants_the_directory_alone(holder, tmp_path, capfd):
    spec = tmp_path / "spec.toml"
    spec.write_text("steps = 64\n[environments.bandit]\nbest = 1.55\n[arms.gae]\n[arms.block]\n", encoding="utf-8")
    assert cli.main(["compare", str(spec), "--out", str(tmp_path)]) == 2
    assert "in use by another process" in capfd.readouterr().err
