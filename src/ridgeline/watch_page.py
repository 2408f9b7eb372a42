"""`ridgeline watch RUN --web`: a policy at play, in a page that a small server on this machine shows.

The game is played here, frame by frame; the page asks for the next frame, with what the policy thinks of it, and sends
back what its buttons say. It goes on only while somebody looks.
"""

import base64
import io
import json
import math
import threading
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from ridgeline import loopback
from ridgeline.controls import action_names
from ridgeline.distributions import Categorical, DiagonalGaussian, MultiCategorical
from ridgeline.evaluation import HOLD_SECONDS, Player
from ridgeline.film import FilmError

PAGE = Path(__file__).resolve().parent / "page" / "watch.html"
SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MAX_FRAMES_PER_SECOND = 60.0  # more is left out, not shown faster
LOOKING_SECONDS = 3.0  # after the last question the game waits for the next one
ANSWER_SECONDS = 1.0  # a question for a frame that is not there is answered by then


class Stage:
    """The game and what the page may do with it, apart from HTTP. `make_player(seed)` gives a new game."""

    def __init__(self, make_player: Callable[[int], Player], seed: int, rate: float | None, title: str):
        self.make_player, self.seed, self.title = make_player, seed, title
        self.player = make_player(seed)
        self.rate = self.player.env.frames_per_second if rate is None else rate
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise FilmError(f"frames_per_second = {self.rate!r}; use a positive number")
        self.speed, self.paused = 1.0, False
        self._changed = threading.Condition()
        self._asked = 0.0
        self._closed = False
        self.number = 0
        self.frame = self._describe(self.player.picture())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def next_frame(self, after: int) -> dict[str, Any]:
        """The newest frame once it is another one than number `after`; the same again after a second without one."""
        with self._changed:
            self._asked = time.monotonic()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.number != after or self._closed, ANSWER_SECONDS)
            return self.frame | {"paused": self.paused, "speed": self.speed}

    def command(self, asked: dict[str, Any]) -> dict[str, Any]:
        """{"pause": true or false}, {"speed": one of SPEEDS}, {"step": true}, {"restart": true}.

        Raises ValueError for anything else.
        """
        (name, value), *others = asked.items() or [("", None)]
        with self._changed:
            if name == "pause" and isinstance(value, bool) and not others:
                self.paused = value
            elif name == "speed" and value in SPEEDS and not others:
                self.speed = float(value)
            elif name == "step" and not others:
                self.paused = True
                self._advance()
            elif name == "restart" and not others:
                self.player.env.close()
                self.seed += 1
                self.player = self.make_player(self.seed)
                self._show()
            else:
                raise ValueError(f"{asked}: send pause, speed (one of {SPEEDS}), step or restart")
            self._changed.notify_all()
        return {"paused": self.paused, "speed": self.speed}

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self.player.env.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                looking = time.monotonic() - self._asked < LOOKING_SECONDS
                if not looking or self.paused:
                    self._changed.wait_for(lambda: self._closed, 0.05)
                if self._closed:
                    return
                if not looking or self.paused:
                    continue
                rate = self.rate * self.speed
                begin = time.monotonic()
                for _ in range(math.ceil(rate / MAX_FRAMES_PER_SECOND)):
                    if self.player.ended:
                        break
                    self.player.advance()
                self._show()
                pause = math.ceil(rate / MAX_FRAMES_PER_SECOND) / rate
                if self.player.ended:
                    pause = max(pause, HOLD_SECONDS)
                end = begin + pause
                while (left := end - time.monotonic()) > 0 and not self._closed and not self.paused:
                    self._changed.wait(left)
                if self.player.ended and not self.paused:
                    self._advance()

    def _advance(self) -> None:
        self.player.advance()
        self._show()

    def _show(self) -> None:
        picture = self.player.picture()
        self.number += 1
        self.frame = self._describe(picture)
        self._changed.notify_all()

    def _describe(self, picture: np.ndarray) -> dict[str, Any]:
        player = self.player
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", compress_level=1)
        thought = None if player.ended else player.choose.view()  # then the next episode has begun
        return {
            "number": self.number,
            "title": self.title,
            "step": player.step,
            "reward": player.reward,
            "episode_return": player.episode_return,
            "ended": player.ended,
            "finished": player.finished[-20:],
            "picture": base64.b64encode(file.getvalue()).decode(),
            "policy": None if thought is None else self._policy(*thought),
        }

    def _policy(self, distribution: Any, value: float) -> dict[str, Any]:
        module = getattr(getattr(player_env := self.player.env, "definition", None), "module", None)
        return describe_policy(distribution, value, player_env.action_space, getattr(module, "__doc__", None))


def describe_policy(distribution: Any, value: float, space: spaces.Space, documentation: str | None) -> dict[str, Any]:
    """Value and distribution of one row as JSON knows them.

    `parts` is a list of bars (one for a Discrete space, one per part of a MultiDiscrete one), each a list of
    probabilities; of a Gaussian `mean` and `std` with the bounds `low` and `high` of each part.
    """
    told: dict[str, Any] = {"value": value if math.isfinite(value) else None}
    if isinstance(distribution, DiagonalGaussian):
        assert isinstance(space, spaces.Box)
        told["mean"] = distribution.mean.flatten().tolist()
        told["std"] = distribution.log_std.exp().flatten().tolist()
        told["low"] = np.nan_to_num(space.low, neginf=-3.0).flatten().tolist()
        told["high"] = np.nan_to_num(space.high, posinf=3.0).flatten().tolist()
    elif isinstance(distribution, MultiCategorical):
        told["parts"] = [part.log_probs.exp().flatten().tolist() for part in distribution.parts]
    elif isinstance(distribution, Categorical):
        told["parts"] = [distribution.log_probs.exp().flatten().tolist()]
        told["names"] = action_names(space, documentation)
    told["entropy"] = float(distribution.entropy().detach().flatten()[0])
    return told


def serve(stage: Stage, port: int = 0) -> ThreadingHTTPServer:
    """A server that shows `stage`, bound but not yet serving. Raises PortError."""
    return loopback.serve(*answers(stage), port)


def answers(stage: Stage) -> tuple[dict[str, loopback.Get], dict[str, loopback.Post]]:
    """What the server answers to GET and to POST."""
    page = PAGE.read_bytes()

    def frame(query: dict[str, list[str]]) -> loopback.Answer:
        text = query.get("after", ["-1"])[0]
        return _json(stage.next_frame(int(text) if text.lstrip("-").isdecimal() else -1))

    gets: dict[str, loopback.Get] = {"/": lambda query: ("text/html", page), "/frame.json": frame}
    return gets, {"/command": lambda asked: _json(stage.command(asked))}


def _json(document: dict[str, Any]) -> loopback.Answer:
    return "application/json", json.dumps(document, separators=(",", ":")).encode()
