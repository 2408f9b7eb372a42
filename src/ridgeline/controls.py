"""What a person's keys do in an environment, and what its actions are called.

The names of actions come from the paragraph `Action:` of the environment's docstring: "0 stays, 1 moves left, 2 up" is
also what a player needs to know. An arrow stands for the action whose name says left, right, up or down, two arrows
together for the one that says both; the space bar for one that shoots or jumps. A digit chooses any action.
"""

import re
import time
from typing import Any

import numpy as np
from gymnasium import spaces

HOLD_SECONDS = 0.25  # how long a key counts as pressed: a terminal tells of no release, and repeats a held key later
WORDS = {
    "left": r"\bleft\b",
    "right": r"\bright\b",
    "up": r"\b(up|upwards|jumps?|main engine)\b",
    "down": r"\b(down|downwards)\b",
    "space": r"\b(shoots?|fires?|opens?)\b",
}
IDLE = r"^(stays?|waits?|stops?|nothing|do nothing|not at all|noop)\b"
ARROWS = {"left": "←", "right": "→", "up": "↑", "down": "↓", "space": "space"}


def action_names(space: spaces.Space, documentation: str | None) -> list[str]:
    """One name per action of a Discrete space, from the documentation or else its number; per part of other spaces."""
    if not isinstance(space, spaces.Discrete):
        shape = space.shape or ()
        return [str(part) for part in range(int(np.prod(shape)))]
    names = [str(action) for action in range(int(space.n))]
    found = re.search(r"^Action: (.*(?:\n[ \t]+.*)*)", documentation or "", re.MULTILINE)
    sentence = re.split(r"[.:] ", re.sub(r"\s+", " ", found[1]) if found else "")[0].rstrip(".")
    # "0 stays, 1 moves left", and "2, 4 and 5 stay too": a clause begins with its number, or with several
    for numbers, text in re.findall(r"(?:^|(?<!\d), |; |; and )((?:\d+, )*(?:\d+ and )?\d+) ([a-z][^,;()]*)", sentence):
        name = re.split(r" (?:by|with|in|within|where|if|and|on|for)\b", text)[0].strip().removesuffix(" too")
        each = [int(number) for number in re.findall(r"\d+", numbers)]
        if not re.match(r"(and|or)\b", text) and max(each) < len(names) and "apply" not in name:
            for action in each:
                names[action] = name
    if others := re.search(r"the others (\w+)", sentence):
        names = [others[1] if name.isdecimal() else name for name in names]
    return names


class Controls:
    """The action of a person: `press` takes keys, `action` gives what they amount to now.

    Of a Box or MultiDiscrete space the arrows move its first two parts (left, right; down, up), and a, d, s, w the next
    two: a Box to its lower or upper bound while the key is held, a MultiDiscrete by one.
    """

    def __init__(self, space: spaces.Space, documentation: str | None):
        self.space = space
        self.names = action_names(space, documentation)
        self.pressed: dict[str, float] = {}  # key -> when
        self.chosen: Any = None  # a digit's action, for the next step only
        self.by_words: dict[frozenset[str], int] = {}
        self.idle: int | None = None
        if isinstance(space, spaces.Discrete):
            for action, name in enumerate(self.names):
                words = frozenset(word for word, pattern in WORDS.items() if re.search(pattern, name))
                if words:
                    self.by_words.setdefault(words, action)
                if self.idle is None and re.search(IDLE, name):
                    self.idle = action
        elif isinstance(space, spaces.MultiDiscrete):
            self.parts = np.zeros(space.shape, np.int64)

    @property
    def real_time(self) -> bool:
        """Whether the game goes on without a key: where doing nothing is an action."""
        return self.idle is not None or isinstance(self.space, spaces.Box)

    def press(self, key: str) -> bool:
        """Take a key ("left", "space", "3", "a" ...); whether it means anything here."""
        if isinstance(self.space, spaces.Discrete):
            if key.isdecimal() and int(key) < self.space.n:
                self.chosen = int(key)
                return True
            if not any(key in words for words in self.by_words):
                return False
        elif key not in self._axes():
            return False
        elif isinstance(self.space, spaces.MultiDiscrete):
            part, direction = self._axes()[key]
            self.parts[part] = (self.parts[part] + direction) % self.space.nvec[part]
        self.pressed[key] = time.monotonic()
        return True

    def action(self) -> Any:
        """The action of the keys that are held; None where a Discrete space has none for them."""
        now = time.monotonic()
        self.pressed = {key: when for key, when in self.pressed.items() if now - when < HOLD_SECONDS}
        if isinstance(self.space, spaces.Discrete):
            chosen, self.chosen = self.chosen, None
            return chosen if chosen is not None else self._discrete()
        if isinstance(self.space, spaces.MultiDiscrete):
            return self.parts.copy()
        assert isinstance(self.space, spaces.Box)
        low = np.where(np.isfinite(self.space.low), self.space.low, -1)
        high = np.where(np.isfinite(self.space.high), self.space.high, 1)
        action = np.clip(np.zeros(self.space.shape, np.float32), low, high).astype(np.float32)
        for key in self.pressed:
            part, direction = self._axes()[key]
            action[part] = high[part] if direction > 0 else low[part]
        return action

    def _discrete(self) -> int | None:
        held = sorted(self.pressed, key=lambda key: -self.pressed[key])
        for words in (frozenset(held[:2]), *(frozenset([key]) for key in held)):
            if words in self.by_words:
                return self.by_words[words]
        for key in held:  # "jumps right" where there is no plain "jumps"
            for words, action in self.by_words.items():
                if key in words:
                    return action
        return self.idle

    def _axes(self) -> dict[str, tuple[int, int]]:
        keys = [("left", 0, -1), ("right", 0, 1), ("down", 1, -1), ("up", 1, 1),
                ("a", 2, -1), ("d", 2, 1), ("s", 3, -1), ("w", 3, 1)]  # fmt: skip
        return {key: (part, direction) for key, part, direction in keys if part < len(self.names)}

    def help(self) -> str:
        """One line: the keys and what they do."""
        if isinstance(self.space, spaces.Discrete):
            single = {next(iter(words)): action for words, action in self.by_words.items() if len(words) == 1}
            said = [f"{ARROWS[key]} {self.names[action]}" for key, action in single.items()]
            return "  ".join([*said, f"0-{min(int(self.space.n), 10) - 1} any action"])
        axes = self._axes()
        return "  ".join(
            f"{ARROWS.get(low, low)}{ARROWS.get(high, high)} part {part}"
            for part, low, high in ((0, "left", "right"), (1, "down", "up"), (2, "a", "d"), (3, "s", "w"))
            if low in axes
        )
