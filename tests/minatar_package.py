"""MinAtar's package from PyPI, played with our random numbers: what test_minatar.py compares with.

`python tests/minatar_package.py` writes minatar.json: what the package does under given actions, for the tests to know
where it is not installed. No code of it is here (it is under the GPL).
"""

import json
import logging
import zlib
from pathlib import Path

import numpy as np

from ridgeline.kernel import seed_rows, state_dtype, uniform
from ridgeline.sources import plain

GAMES = ("breakout", "asterix", "freeway", "seaquest", "space_invaders")
FIXTURE = Path(__file__).with_name("minatar.json")
PURPOSE = 1


class OurRandom:
    """What the games call of numpy.random.RandomState, drawn from the stream of ridgeline's row 0 of a seed."""

    def __init__(self, seed):
        self.state = np.zeros(1, state_dtype(unused=np.int8)).view(np.recarray)
        seed_rows(self.state, seed, PURPOSE)

    def rand(self, count=None):
        with np.errstate(over="ignore"):  # the generator's arithmetic wraps around
            if count is None:
                return plain(uniform)(self.state[0])
            return np.array([plain(uniform)(self.state[0]) for _ in range(count)])

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        if size is None:
            return low + int(self.rand() * (high - low))
        return np.array([low + int(self.rand() * (high - low)) for _ in range(size)])


def package(game, seed, **settings):
    """A game of the package at the start of an episode; ImportError if it is not installed."""
    logging.disable(logging.WARNING)  # it says that it cannot draw
    try:
        from minatar import Environment
    finally:
        logging.disable(logging.NOTSET)
    env = Environment(game, **settings)
    env.random = env.env.random = OurRandom(seed)
    env.reset()
    return env


def actions_of(game, observation, generator, noise):
    """An action: random, or with probability 1 - noise one that stays in play, where that is simple to say."""
    action = int(generator.integers(6))
    if game == "breakout" and generator.random() >= noise:
        paddle, ball = (np.argwhere(observation[:, :, k])[0, 1] for k in (0, 1))
        return 0 if ball == paddle else (3 if ball > paddle else 1)
    if game == "freeway" and generator.random() >= noise:
        return 2
    if game == "space_invaders" and generator.random() >= noise:
        return 5
    return action


def digest(so_far, observation, reward, terminal):
    """A checksum of everything up to this step."""
    bits = np.packbits(np.asarray(observation, bool)).tobytes()
    return zlib.crc32(bits + bytes([int(reward), int(terminal)]), so_far)


def record(game, seed, length):
    """Actions, one digit each, and the checksum at every 50th step. The game goes on after a terminal step, and so
    comes to states that no player would; but breakout, whose ball would leave the grid, begins anew."""
    env, generator, checksum, total, ends = package(game, seed), np.random.default_rng(seed), 0, 0, 0
    actions, checksums = "", []
    for step in range(length):
        action = actions_of(game, env.state(), generator, 0.1)
        actions += str(action)
        reward, terminal = env.act(action)
        checksum = digest(checksum, env.state(), reward, terminal)
        total, ends = total + int(reward), ends + bool(terminal)
        if step % 50 == 49:
            checksums.append(checksum)
        env.env.terminal = False
        if terminal and game == "breakout":
            env.last_action = 0
            env.reset()
    return {"seed": seed, "actions": actions, "checksums": checksums, "return": total, "terminals": ends}


if __name__ == "__main__":
    games = {game: record(game, 3, 3000) for game in GAMES}
    FIXTURE.write_text(json.dumps({"package": "MinAtar 1.0.15", "games": games}, indent=1) + "\n", encoding="utf-8")
