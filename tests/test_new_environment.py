"""`ridgeline new-env`: the file is whole, documented, agrees with its plain twin, and a policy improves on it."""

import re

import numpy as np
import pytest

import ridgeline
from ridgeline import cli
from ridgeline.kernel import define, sample_action
from ridgeline.new_environment import NameTaken, new_environment
from ridgeline.vector import CompiledEnv


def test_the_command_writes_a_file_that_trains_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new-env", "my_game"]) == 0
    assert "Wrote my_game.py" in capsys.readouterr().out
    text = (tmp_path / "my_game.py").read_text(encoding="utf-8")
    assert text.startswith('"""My game: ') and "ridgeline train my_game.py" in text and "{" not in text.split('"""')[1]
    result = ridgeline.train("my_game.py", total_steps=60_000, num_threads=1)
    random = CompiledEnv(define(tmp_path / "my_game.py"), 200, 0)
    generator, ended = np.random.default_rng(0), []
    for _ in range(400):
        ended += random.step(generator.integers(0, 5, 200)).episode[:, 0].tolist()
    assert min(result.episode_return) > np.mean(ended) + 4


def test_it_is_the_same_in_plain_python_and_has_every_part(tmp_path):
    path = new_environment("game.py", tmp_path)
    fast, slow = (CompiledEnv(define(path, compile=compile), 4, 3) for compile in (True, False))
    for action in sample_action(fast.action_space, np.random.default_rng(0), 1200).reshape(-1, 4):
        for one, other in zip(fast.step(action), slow.step(action), strict=True):
            assert np.array_equal(one, other)
        assert all(fast.observation_space.contains(row) for row in fast.observation)
    text = path.read_text(encoding="utf-8")
    headings = ["Game", "Observation", "Action", "Reward", "Start", "End", "Source", "Differs", "Version"]
    assert re.findall(r"^([A-Z]\w+)\b(?=:|$)", text.split('"""')[1], re.MULTILINE) == headings
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("#") > 12


@pytest.mark.parametrize("name", ["my-game", "2048", "class", "MyGame", "../game", ""])
def test_names_that_are_none(tmp_path, name):
    with pytest.raises(NameTaken, match="is no name for an environment; use lower-case letters"):
        new_environment(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_exists_is_kept(tmp_path):
    (tmp_path / "game.py").write_text("mine")
    with pytest.raises(NameTaken, match="exists; choose another name"):
        new_environment("game", tmp_path)
    assert (tmp_path / "game.py").read_text() == "mine"
    with pytest.raises(NameTaken, match="would hide Python's own module random"):
        new_environment("random", tmp_path)
