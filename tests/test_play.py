"""Playing at the keyboard: names of actions, keys, and the command itself in a pseudo-terminal."""

import importlib
import os
import select
import subprocess
import sys
import time

import numpy as np
import pytest
from gymnasium import spaces

from ridgeline import controls, play
from ridgeline.controls import Controls, action_names

DISCRETE = spaces.Discrete(3)


@pytest.mark.parametrize(
    ("sentence", "count", "names"),
    [
        ("0 stays, 1 moves left, 2 moves right, by 2 units per frame.", 3, ["stays", "moves left", "moves right"]),
        ("0 right, 1 left (the order of the book).", 2, ["right", "left"]),
        ("1 moves left, 3 moves right by one cell, 5 shoots if it can; 0, 2 and 4 wait. More 1 here.", 6,
         ["wait", "moves left", "wait", "moves right", "wait", "shoots"]),
        ("2 moves up, 4 moves down by one cell; the others stay.", 5,
         ["stay", "stay", "moves up", "stay", "moves down"]),
        ("0, 1, 2 apply a torque of -1, 0, 1 N m.", 3, ["0", "1", "2"]),
        ("0 .. 9, the arm to pull.", 10, list("0123456789")),
        ("0 or 1.", 2, ["0", "1"]),
    ],
)  # fmt: skip
def test_names_of_actions_come_from_the_docstring(sentence, count, names):
    text = f"A game.\n\nAction: {sentence}\nReward: 1 left, 2 right.\n"
    assert action_names(spaces.Discrete(count), text) == names


def test_names_without_documentation():
    assert action_names(DISCRETE, None) == ["0", "1", "2"]
    assert action_names(spaces.Box(-1, 1, (2,)), "Action: 0 left.") == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("breakout", {"left": 1, "right": 2}),
        ("pong", {"up": 1, "down": 2}),
        ("maze", {"right": 0, "up": 1, "left": 2, "down": 3}),
        ("runner", {"right": 1, "left": 2, "up": 3}),
        ("lander", {"left": 1, "up": 2, "right": 3}),
        ("minatar_seaquest", {"left": 1, "up": 2, "right": 3, "down": 4, "space": 5}),
        ("minatar_space_invaders", {"left": 1, "right": 3, "space": 5}),
        ("mountain_car", {"left": 0, "right": 2}),
    ],
)
def test_arrows_of_the_games(name, keys):
    module = importlib.import_module(f"ridgeline.envs.{name}")
    for key, action in keys.items():
        hands = Controls(module.action_space, module.__doc__)
        assert hands.press(key) and hands.action() == action


def test_two_keys_are_one_action_where_there_is_one():
    module = importlib.import_module("ridgeline.envs.runner")
    hands = Controls(module.action_space, module.__doc__)
    assert hands.press("right") and hands.press("up") and hands.action() == 4
    assert hands.press("left") and hands.action() in (5, 2)


def test_keys_are_let_go(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(controls.time, "monotonic", lambda: now[0])
    module = importlib.import_module("ridgeline.envs.breakout")
    hands = Controls(module.action_space, module.__doc__)
    assert hands.real_time and hands.action() == 0
    hands.press("left")
    assert hands.action() == 1 == hands.action()
    now[0] += controls.HOLD_SECONDS
    assert hands.action() == 0
    assert hands.press("2") and hands.action() == 2 and hands.action() == 0  # a digit counts once
    assert not hands.press("5") and not hands.press("x")


def test_turns_where_nothing_cannot_be_done():
    hands = Controls(DISCRETE, "Action: 0 left, 1 right, 2 up.\n")
    assert not hands.real_time and hands.action() is None


def test_box_and_multi_discrete():
    hands = Controls(spaces.Box(np.float32([-2, 0]), np.float32([2, np.inf])), None)
    np.testing.assert_array_equal(hands.action(), [0, 0])
    assert hands.press("left") and hands.press("up") and not hands.press("w")
    np.testing.assert_array_equal(hands.action(), [-2, 1])
    hands = Controls(spaces.MultiDiscrete([3, 2]), None)
    hands.press("left")
    hands.press("up")
    np.testing.assert_array_equal(hands.action(), [2, 1])


def test_keys_that_a_terminal_writes():
    assert play.split_keys("\x1b[A\x1bODq \x1bX\r") == ["up", "left", "q", "space", "escape", "x", "enter"]


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
class TestInATerminal:
    """The command, at the other end of a pseudo-terminal."""

    def start(self, *arguments: str):
        import fcntl
        import pty
        import struct
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        before = termios.tcgetattr(theirs)
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        process = subprocess.Popen(
            [sys.executable, "-m", "ridgeline", "play", *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        )  # fmt: skip
        return ours, theirs, before, process

    def read_until(self, terminal: int, text: str, seconds: float = 60.0) -> str:
        found, end = "", time.monotonic() + seconds
        while text not in found:
            assert time.monotonic() < end, f"no {text!r} in {found[-300:]!r}"
            if select.select([terminal], [], [], 0.1)[0]:
                found += os.read(terminal, 65536).decode("utf-8", "replace")
        return found

    def test_maze_turn_by_turn(self):
        import termios

        ours, theirs, before, process = self.start("maze", "--seed", "1", "--environment.difficulty", "1")
        try:
            shown = self.read_until(ours, "q quit")
            assert shown.index("\x1b[?1049h\x1b[?25l") < shown.index("step 0") and "▀" in shown
            assert "→ moves right" in shown and "0-3 any action" in shown
            assert not termios.tcgetattr(theirs)[3] & termios.ECHO
            for count, key in enumerate(("\x1b[C", "\x1b[A", "2", "x3"), start=1):
                os.write(ours, key.encode())
                self.read_until(ours, f"step {count} ", 20)
            os.write(ours, b"q")
            assert "\x1b[?25h\x1b[?1049l" in self.read_until(ours, "no episode has ended")
            assert process.wait(20) == 0
            assert termios.tcgetattr(theirs) == before
        finally:
            process.kill()
            process.wait()

    @pytest.mark.parametrize("ending", ["interrupt", "key"])
    def test_breakout_runs_by_itself_pauses_and_ends(self, ending):
        import signal
        import termios

        ours, theirs, before, process = self.start("breakout", "--frames-per-second", "50")
        try:
            self.read_until(ours, "step 3 ")
            os.write(ours, b"p")
            self.read_until(ours, "PAUSED")
            os.write(ours, b"p")
            self.read_until(ours, "step 6 ")
            if ending == "key":
                os.write(ours, b"q")
            else:
                process.send_signal(signal.SIGINT)
            self.read_until(ours, "\x1b[?1049l")
            assert process.wait(20) in (0, 130)
            assert termios.tcgetattr(theirs) == before
        finally:
            process.kill()
            process.wait()


def test_it_needs_a_terminal(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "ridgeline", "play", "maze"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert found.returncode == 2 and "playing needs a terminal" in found.stderr


def test_an_episode_ends_and_the_next_begins(monkeypatch):
    """The picture of the end stays until a key, and the return is told."""
    game = play.Game("bandit", 0, {})
    steps = 0
    while not game.ended:
        game.advance(0)
        steps += 1
    assert steps == game.step
    game.advance(None)
    assert game.step == 0 and not game.ended and game.episode_return == 0
