"""Play an environment at the keyboard, in the terminal."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from ridgeline.canvas import Canvas, Rendered
from ridgeline.controls import Controls
from ridgeline.environments import make
from ridgeline.film import other_screen, show_frame
from ridgeline.random_play import random_action
from ridgeline.vector import EVALUATION

MAX_FRAMES_PER_SECOND = 60.0
SEQUENCES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
    "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left",
    " ": "space", "\x1b": "escape", "\r": "enter", "\n": "enter", "\x03": "interrupt",
}  # fmt: skip
WINDOWS = {"H": "up", "P": "down", "M": "right", "K": "left"}  # after \x00 or \xe0


class PlayError(ValueError):
    """What cannot be played; one line with the reason and the way out."""


@contextmanager
def keyboard(stream: IO[str]) -> Iterator[Any]:
    """A function `keys(seconds)` that waits that long at most for keys and names those pressed.

    The terminal gives each key at once and shows none; it is as it was afterwards, whatever happens.
    """
    if os.name == "nt":
        yield _windows_keys
        return
    import termios
    import tty

    number = stream.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield lambda seconds: _posix_keys(number, seconds)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _posix_keys(number: int, seconds: float) -> list[str]:
    import select

    if not select.select([number], [], [], max(0.0, seconds))[0]:
        return []
    data = os.read(number, 1024)
    if not data:
        raise KeyboardInterrupt  # the terminal has gone
    return split_keys(data.decode("utf-8", "ignore"))


def _windows_keys(seconds: float) -> list[str]:
    import msvcrt

    console: Any = msvcrt
    end = time.monotonic() + seconds
    while not console.kbhit():
        if time.monotonic() >= end:
            return []
        time.sleep(0.005)
    found = []
    while console.kbhit():
        one = console.getwch()
        found += [WINDOWS.get(console.getwch(), "")] if one in "\x00\xe0" else split_keys(one)
    return found


def split_keys(text: str) -> list[str]:
    """The names of the keys that a terminal wrote."""
    found = []
    while text:
        size = 3 if text[:3] in SEQUENCES else 1
        found.append(SEQUENCES.get(text[:size], text[:size].lower()))
        text = text[size:]
    return found


class Game:
    """One instance, stepped by a person: agent 0 of it, where there are several; the others act at random."""

    def __init__(self, environment: str | Path, seed: int, parameters: dict[str, Any]):
        self.env = make(environment, 1, seed, EVALUATION, parameters, render=True)
        if getattr(getattr(self.env, "parameters", None), "frames_per_action", 1) != 1:
            self.env.close()  # a person decides for each frame
            self.env = make(environment, 1, seed, EVALUATION, {**parameters, "frames_per_action": 1}, render=True)
        module = getattr(getattr(self.env, "definition", None), "module", None)
        self.canvas_size = None if module is None else getattr(module, "canvas_size", (480, 360))
        self.controls = Controls(self.env.action_space, getattr(module, "__doc__", None))
        self.generator = np.random.default_rng(seed)
        self.step, self.reward, self.episode_return, self.ended = 0, 0.0, 0.0, False
        self.pixels = self._draw()

    def advance(self, action: Any) -> None:
        """One step, or after an end the first picture of the next episode."""
        if self.ended:
            self.step, self.reward, self.episode_return, self.ended = 0, 0.0, 0.0, False
        else:
            actions = random_action(self.env, self.generator)
            actions[0] = action
            result = self.env.step(actions)
            self.reward = float(result.reward[0])
            self.episode_return += self.reward
            self.step += 1
            self.ended = bool(result.terminated[0] or result.truncated[0])
            if self.ended:
                return  # the picture stays: the environment has begun the next episode
        self.pixels = self._draw()

    def _draw(self) -> np.ndarray:
        canvas = Rendered() if self.canvas_size is None else Canvas(*self.canvas_size)
        if not self.env.draw(0, canvas):
            way_out = "it has no render_mode rgb_array" if self.canvas_size is None else "add draw(state, canvas)"
            raise PlayError(f"{self.env.name} has no picture: {way_out}")
        return canvas.pixels()


def play(
    environment: str | Path,
    seed: int | None = None,
    parameters: dict[str, Any] | None = None,
    frames_per_second: float | None = None,
    stdin: IO[str] | None = None,
    out: IO[str] | None = None,
) -> list[float]:
    """Let a person play until q; returns the returns of the episodes that ended.

    A game in which doing nothing is an action runs by itself at the environment's `frames_per_second`, or the one
    given; another one waits for a key at each step.

    Raises: PlayError, InvalidEnvironment.
    """
    source, screen = stdin or sys.stdin, out or sys.stdout
    assert source is not None and screen is not None
    if not (source.isatty() and screen.isatty()):
        raise PlayError("playing needs a terminal: standard input and output must be one")
    chosen = int(np.random.default_rng().integers(2**31)) if seed is None else seed  # another game each time
    game = Game(environment, chosen, parameters or {})
    rate = min(frames_per_second or game.env.frames_per_second, MAX_FRAMES_PER_SECOND)
    returns: list[float] = []
    try:
        with suppress(KeyboardInterrupt), keyboard(source) as keys, other_screen(screen):
            _loop(game, keys, rate, returns, screen)
    finally:
        game.env.close()
    return returns


def _loop(game: Game, keys: Any, rate: float, returns: list[float], out: IO[str]) -> None:
    controls, size, paused = game.controls, None, False
    while True:
        size = show_frame(game.pixels, _caption(game, paused), size, out)
        waits = paused or game.ended or not controls.real_time
        end = time.monotonic() + 1 / rate
        meant = False
        for key in _until(keys, end, waits):
            if key in ("q", "escape", "interrupt"):
                return
            if key == "p":
                paused = not paused
            elif key == "enter" and game.ended:
                meant = True
            elif not game.ended and controls.press(key):
                meant = True
        if game.ended:
            if meant:
                controls.pressed.clear()
                game.advance(None)
        elif not paused and (meant or controls.real_time):
            action = controls.action()
            if not controls.real_time:
                controls.pressed.clear()
            if action is not None:
                game.advance(action)
                if game.ended:
                    returns.append(game.episode_return)


def _until(keys: Any, end: float, waits: bool) -> Iterator[str]:
    """The keys up to `end`; where the game waits, the first ones, whenever they come."""
    while True:
        found = keys(3600.0 if waits else end - time.monotonic())
        yield from found
        if (found and waits) or (not waits and time.monotonic() >= end):
            return


def _caption(game: Game, paused: bool) -> str:
    numbers = f"step {game.step:,}  reward {game.reward:g}  return {game.episode_return:.5g}"
    if game.ended:
        return f"{numbers}  the end\nEnter plays on  q quit"
    return f"{numbers}{'  PAUSED' * paused}\n{game.controls.help()}  p pause  q quit"
