"""Pong: rules by hand."""

import math

import numpy as np
import pytest
from games import STAY, UP, ball, fold, go, make, one

from ridgeline import court
from ridgeline.canvas import Canvas


def test_pong_returns():
    for place in (-1, -0.5, 0, 0.8, 1):
        env = one("pong", paddle=50, x=151, y=50 + 7 * place, velocity_x=2, velocity_y=0)
        state, reward, _ = go(env)
        u, v = -2.125, 1.2 * place * 2.125
        assert ball(state) == pytest.approx([152 + u / 2, 50 + 7 * place + v / 2, u, v], abs=1e-5) and reward == 0
        env = one("pong", opponent=50, paddle=50, x=9, y=50 + 7 * place, velocity_x=-2, velocity_y=0)
        env.parameters = env.parameters._replace(opponent_speed=0.0)
        state, reward, _ = go(env)
        assert ball(state) == pytest.approx([8 - u / 2, 50 + 7 * place + v / 2, -u, v], abs=1e-5) and reward == 0
    state, _, _ = go(one("pong", paddle=50, x=151, y=50, velocity_x=2.95, velocity_y=0))
    assert state.velocity_x == -3  # no faster
    state, _, _ = go(one("pong", paddle=50, x=151, y=57.1, velocity_x=2, velocity_y=0))
    assert ball(state) == pytest.approx([153, 57.1, 2, 0])  # past its end


def test_pong_return_beside_the_edge():
    # y = 95.5 rises to the edge and is back at 95.75 when it meets the paddle, after three quarters of the frame.
    state, _, _ = go(one("pong", paddle=90, x=150.5, y=95.5, velocity_x=2, velocity_y=1))
    v = 1.2 * (95.75 - 90) / 7 * 2.125
    assert ball(state) == pytest.approx([152 - 2.125 / 4, 192 - (95.75 + v / 4), -2.125, -v], abs=1e-5)


def test_pong_points():
    env = one("pong", x=159.5, y=20, velocity_x=2, velocity_y=1, points=3, opponent_points=4)
    state, reward, terminated = go(env)
    assert (reward, terminated, state.points, state.opponent_points, state.x) == (-1, False, 3, 5, 80)
    assert abs(state.velocity_x) == 2
    state, reward, terminated = go(one("pong", x=0.5, y=20, velocity_x=-2, velocity_y=1, points=3))
    assert (reward, terminated, state.points, state.opponent_points) == (1, False, 4, 0)
    for x, velocity, last in ((0.5, -2, [1, 1, 21, 20]), (159.5, 2, [-1, 1, 20, 21])):
        env = one("pong", frames=4, x=x, y=20, velocity_x=velocity, points=20, opponent_points=20)
        step = env.step(np.array([STAY]))
        assert step.terminated[0] and step.episode.tolist() == [last]
        assert env.state[0].points == env.state[0].opponent_points == 0


def test_pong_serves_to_both_sides_alike():
    state = make("pong", rows=20_000).state
    assert (np.abs(state.velocity_x) == 2).all() and (state.x == 80).all()
    assert abs(state.velocity_x.mean()) < 2 * 4 / math.sqrt(20_000)
    for sample, half_range in ((state.y - 48, 24), (state.velocity_y, 0.75)):
        assert np.abs(sample).max() <= half_range and abs(sample.mean()) < 4 * half_range / math.sqrt(3 * 20_000)
        assert sample.std() == pytest.approx(half_range / math.sqrt(3), rel=0.02)


def test_pong_ball_between_the_paddles_flies_as_between_mirrors():
    env, generator = make("pong", rows=2000), np.random.default_rng(0)
    state = env.state
    state.x, state.y, state.velocity_x = 20, generator.uniform(0, 96, 2000), generator.uniform(2, 3, 2000)
    state.velocity_y = state.velocity_x * generator.uniform(-1.2, 1.2, 2000)
    start = state.copy()
    for frame in range(1, 45):  # to x = 152 at the most
        env.step(np.full(2000, UP))
        assert np.abs(state.x - (20 + frame * start.velocity_x)).max() < 1e-3
        assert np.abs(state.y - fold(start.y + frame * start.velocity_y, 96)).max() < 1e-3


@pytest.mark.parametrize("limit", [1.25, 0.5, 0.0])
def test_pong_opponent_keeps_to_its_speed(limit):
    env, generator = make("pong", rows=256, opponent_speed=limit), np.random.default_rng(0)
    moved = np.zeros(0)
    for _ in range(600):
        before = env.state.copy()
        step = env.step(generator.integers(0, 3, 256))
        moved = np.abs(env.state.opponent - before.opponent)[~step.terminated]
        assert moved.max() <= limit + 1e-5
        assert env.state.opponent.min() >= 6 and env.state.opponent.max() <= 90
        way = np.where(before.velocity_x < 0, before.y + np.where(env.state.paddle > 48, 4, -4), 48) - before.opponent
        free = ~step.terminated & (env.state.opponent > 6) & (env.state.opponent < 90)
        assert np.abs((env.state.opponent - before.opponent - np.clip(way, -limit, limit))[free]).max() < 1e-4
        assert (np.abs(step.observation) <= 1).all()


def test_pong_draw():
    env = one("pong", paddle=20, opponent=70, x=100, y=50, points=3, opponent_points=12)
    canvas = Canvas(480, 360)
    assert env.draw(0, canvas)
    pixels = canvas.pixels()

    def at(x, y):
        return tuple(int(part) for part in pixels[round((112 - y) * 3), round(x * 3)])

    assert at(154.5, 20) == court.PLAYER and at(5.5, 70) == court.OPPONENT
    assert at(154.5, 70) == at(5.5, 20) == court.BACKGROUND
    assert at(100, 50) == at(50, 99) == at(50, -4) == court.EDGE
