"""What the tests of breakout and pong share: games with a given state, and scripted players."""

from pathlib import Path

import numpy as np

import ridgeline.kernel
from ridgeline.kernel import define
from ridgeline.vector import EVALUATION, CompiledEnv

FOLDER = Path(ridgeline.kernel.__file__).parent / "envs"
STAY, LEFT, RIGHT = 0, 1, 2
UP, DOWN = 1, 2


def make(name, rows=1, seed=0, frames=1, **parameters):
    parameters["frames_per_action"] = frames
    return CompiledEnv(define(FOLDER / f"{name}.py"), rows, seed, EVALUATION, parameters)


def one(name, frames=1, **fields):
    """One instance with the given state."""
    env = make(name, frames=frames)
    for field, value in fields.items():
        env.state[field][0] = value
    return env


def go(env, action=STAY):
    """One step of one instance: its state after, reward, terminated."""
    step = env.step(np.full(env.num_rows, action))
    return env.state[0], step.reward[0], bool(step.terminated[0])


def wall(*cells):
    """Bricks at the given (column, row)."""
    bricks = np.zeros(108, np.float32)
    for column, row in cells:
        bricks[row * 18 + column] = 1
    return bricks


def ball(state):
    return [float(state[field]) for field in ("x", "y", "velocity_x", "velocity_y")]


def fold(x, size):
    """Where a point that moves freely is between two mirrors at 0 and `size`."""
    return np.abs((x + size) % (2 * size) - size)


def follow(env, generator):
    """Keep the paddle under the ball, but for a part of random actions: a tenth in the first row, all in the last."""
    state = env.state
    action = np.where(state.x > state.paddle + 3, RIGHT, np.where(state.x < state.paddle - 3, LEFT, STAY))
    noisy = generator.random(env.num_rows) < np.linspace(0.1, 1, env.num_rows)
    return np.where(noisy, generator.integers(0, 3, env.num_rows), action)


class BreakoutPlayer:
    """Tries, in copies of the game, each place from which the paddle would return the ball, and takes the best."""

    def __init__(self, env):
        self.env, self.reach = env, 2 * env.parameters.frames_per_action
        self.copies = make("breakout", rows=100, frames=8)
        self.target, self.planned = np.zeros(env.num_rows), np.zeros(env.num_rows, bool)
        self.generator = np.random.default_rng(0)

    def __call__(self):
        state = self.env.state
        falling = (state.velocity_y < 0) & (state.y < 64)
        for row in np.flatnonzero(falling & ~self.planned):
            self.target[row] = self.plan(state[row])
        self.planned = falling
        return nearest(state.paddle, np.where(falling, self.target, state.x), self.reach, 8, 136, (STAY, LEFT, RIGHT))

    def plan(self, state):
        frames = (state.y - 6) / -state.velocity_y
        landing = fold(state.x + state.velocity_x * frames, 144)
        places = np.unique(np.clip(state.paddle + self.reach * np.arange(-72, 73), 8, 136))
        close = np.abs(places - landing) < 8.5
        places = places[close & (np.abs(places - state.paddle) <= 2 * frames - self.reach)][:100]
        copies = self.copies.state[: len(places)]
        copies[:], copies.paddle = state, places
        gain = np.zeros(self.copies.num_rows)
        for _ in range(22):
            gain += self.copies.step(np.zeros(self.copies.num_rows, np.int64)).reward
        gain += self.generator.random(len(gain)) / 2  # leaves loops
        return places[gain[: len(places)].argmax()] if len(places) else landing


def nearest(paddle, target, reach, low, high, actions):
    """The action (stay, down the axis, up the axis) after which the paddle is nearest to its target."""
    after = np.stack([paddle, np.maximum(paddle - reach, low), np.minimum(paddle + reach, high)])
    return np.array(actions)[np.abs(after - target).argmin(0)]


def play(env, player):
    """(return, length, statistics) of each row's first episode."""
    episodes = np.full((env.num_rows, 2 + len(env.statistics)), np.nan)
    for _ in range(env.max_episode_steps):
        step = env.step(player())
        for row, episode in zip(step.episode_row, step.episode, strict=True):
            if np.isnan(episodes[row, 0]):
                episodes[row] = episode
        if not np.isnan(episodes).any():
            break
    return episodes


def random_player(env):
    generator = np.random.default_rng(7)
    return lambda: generator.integers(0, 3, env.num_rows)


class PongPlayer(BreakoutPlayer):
    """The same search: the place that wins the point, or else any that returns the ball."""

    def __init__(self, env):
        super().__init__(env)
        self.copies = make("pong", rows=100, frames=8)

    def __call__(self):
        state = self.env.state
        coming = state.velocity_x > 0
        for row in np.flatnonzero(coming & ~self.planned):
            self.target[row] = self.plan(state[row])
        self.planned = coming
        return nearest(state.paddle, np.where(coming, self.target, 48), self.reach, 6, 90, (STAY, DOWN, UP))

    def plan(self, state):
        frames = (152 - state.x) / state.velocity_x
        landing = fold(state.y + state.velocity_y * frames, 96)
        places = np.unique(np.clip(state.paddle + self.reach * np.arange(-45, 46), 6, 90))
        close = np.abs(places - landing) < 6.8
        places = places[close & (np.abs(places - state.paddle) <= 2 * frames - self.reach)]
        copies = self.copies.state[: len(places)]
        copies[:], copies.paddle = state, places
        gain = np.zeros(self.copies.num_rows)
        for _ in range(20):
            step = self.copies.step(np.zeros(self.copies.num_rows, np.int64))
            gain += np.where(gain == 0, step.reward, 0)  # the first point counts
        gain += self.generator.random(len(gain)) / 2
        return places[gain[: len(places)].argmax()] if len(places) else landing
