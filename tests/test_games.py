"""Breakout and pong: players from both ends of the scale, frames per action, compiled against plain Python."""

import numpy as np
import pytest
from games import FOLDER, BreakoutPlayer, PongPlayer, follow, make, play, random_player

from ridgeline.envs import breakout, pong
from ridgeline.kernel import define
from ridgeline.sources import plain
from ridgeline.vector import EVALUATION, CompiledEnv


@pytest.mark.parametrize("frames", [1, 4])
def test_breakout_players(frames):
    env = make("breakout", rows=8, seed=frames, frames=frames)
    games = play(env, BreakoutPlayer(env))
    assert (games[:, 0] == 432).all() and (games[:, 2:4] == [432, 0]).all()
    assert games[:, 1].max() < env.max_episode_steps * 0.8
    env = make("breakout", rows=500, seed=frames, frames=frames)
    games = play(env, random_player(env))
    assert 0.4 < games[:, 0].mean() < 1.5 and games[:, 0].max() < 30 and (games[:, 4] == 0).all()


def test_breakout_cannot_be_stalled():
    env = make("breakout", rows=500)
    assert play(env, lambda: np.zeros(500, np.int64))[:, 1].max() < 2000


@pytest.mark.parametrize("frames", [1, 4])
def test_pong_players(frames):
    env = make("pong", rows=8, seed=frames, frames=frames)
    games = play(env, PongPlayer(env))
    assert (games[:, [0, 2, 3]] == [21, 21, 0]).all() and games[:, 1].max() < env.max_episode_steps
    env = make("pong", rows=300, seed=frames, frames=frames)
    games = play(env, random_player(env))
    assert -20.2 < games[:, 0].mean() < -18.5 and (games[:, 3] == 21).all()


@pytest.mark.parametrize("game", [breakout, pong])
def test_four_frames_per_action_are_four_single_frames(game):
    name = game.__name__.rpartition(".")[2]
    reset, step = plain(game.reset), plain(game.step)
    env, generator = make(name, rows=40, frames=4), np.random.default_rng(0)
    if name == "breakout":
        env.state.lives, env.state.bricks_left = generator.integers(1, 3, 40), generator.integers(1, 4, 40)
        env.state.y = generator.uniform(0, 64, 40)
    else:
        env.state.points, env.state.opponent_points = 20, 20
        env.state.x = generator.uniform(0, 160, 40)
    singles = env.state.copy()
    endings = early = 0
    for _ in range(20):
        action = generator.integers(0, 3, 40)
        result = env.step(action)
        for row in range(40):
            reward, terminated = 0.0, False
            for frame in range(4):
                with np.errstate(over="ignore"):
                    part, terminated = step(singles[row], action[row], env.parameters._replace(frames_per_action=1))
                reward += part
                if terminated:
                    early += frame < 3
                    with np.errstate(over="ignore"):
                        reset(singles[row], env.parameters)
                    break
            endings += terminated
            assert result.reward[row] == reward and result.terminated[row] == terminated
        for field in [name for name in game.State.names if name not in ("episode_return", "episode_length")]:
            assert np.array_equal(env.state[field], singles[field]), field
    assert endings > 10 and early > 5


@pytest.mark.parametrize("name", ["breakout", "pong"])
def test_compiled_equals_plain_python(name):
    fast = make(name, rows=4, seed=3, frames=4)
    slow = CompiledEnv(define(FOLDER / f"{name}.py", compile=False), 4, 3, EVALUATION)
    generator = np.random.default_rng(0)
    for _ in range(300):
        action = follow(fast, generator) if name == "breakout" else generator.integers(0, 3, 4)
        a, b = fast.step(action), slow.step(action)
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert fast.state.tobytes() == slow.state.tobytes()
