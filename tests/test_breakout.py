"""Breakout: rules by hand, and flight against a slow twin."""

import math

import numpy as np
import pytest
from games import LEFT, RIGHT, STAY, ball, follow, go, make, one, wall

from ridgeline.canvas import Canvas
from ridgeline.envs import breakout


def test_breakout_bounce_from_below():
    state, reward, _ = go(one("breakout", x=100, y=63, velocity_x=0, velocity_y=1.25))
    assert ball(state) == [100, 63.75, 0, -1.25]  # 1 up to the brick's edge at 64, 0.25 back
    assert reward == 1 and state.score == 1 and state.bricks_left == 107
    assert np.array_equal(np.flatnonzero(state.bricks == 0), [12])  # x = 100 lies in column 12, 96 .. 104


def test_breakout_bounce_from_the_side_above_and_the_walls():
    env = one("breakout", x=47, y=73, velocity_x=1.5, velocity_y=0.5, bricks=wall((6, 2)), bricks_left=9)
    state, reward, _ = go(env)
    assert ball(state) == pytest.approx([47.5, 73.5, -1.5, 0.5]) and reward == 4 and not state.bricks.any()
    env = one("breakout", x=50, y=77, velocity_x=0.5, velocity_y=-1.5, bricks=wall((6, 2)), bricks_left=9)
    state, reward, _ = go(env)
    assert ball(state) == pytest.approx([50.5, 76.5, 0.5, 1.5]) and reward == 4
    for y in (30, 96):  # below the bricks and above them
        state, reward, _ = go(one("breakout", x=143.5, y=y, velocity_x=1, velocity_y=1))
        assert ball(state) == [143.5, y + 1, -1, 1] and reward == 0
        state, reward, _ = go(one("breakout", x=0.5, y=y, velocity_x=-1, velocity_y=1))
        assert ball(state) == [0.5, y + 1, 1, 1] and reward == 0
    state, reward, _ = go(one("breakout", x=144, y=96, velocity_x=1, velocity_y=1))  # on the wall's line
    assert ball(state) == [143, 97, -1, 1] and reward == 0
    state, reward, _ = go(one("breakout", x=143.5, y=103.5, velocity_x=1, velocity_y=1.5))
    assert ball(state) == [143.5, 103, -1, -1.5] and reward == 0


@pytest.mark.parametrize(
    "velocity, bricks, after, reward",
    [
        ((1.0, 1.1), [(6, 2)], (-1.0, 1.1), 4),  # meets the row's line first: the brick's left side
        ((1.1, 1.0), [(6, 2)], (1.1, -1.0), 4),  # meets the column's line first: its underside
        ((1.0, 1.1), [(5, 2), (6, 1)], (-1.0, -1.1), 5),  # no way between two bricks that touch at a corner
        ((1.1, 1.0), [(5, 2), (6, 1)], (-1.1, -1.0), 5),
        ((1.0, 1.1), [(5, 2), (6, 2)], (1.0, -1.1), 4),  # a smooth row has no corners
    ],
)
def test_breakout_corners(velocity, bricks, after, reward):
    env = one("breakout", x=47.2, y=71.2, bricks=wall(*bricks), bricks_left=9)
    env.state.velocity_x, env.state.velocity_y = velocity
    state, got, _ = go(env)
    assert ball(state)[2:] == pytest.approx(after) and got == reward


@pytest.mark.parametrize("row, worth", list(enumerate([1, 1, 4, 4, 7, 7])))
def test_breakout_worth_of_the_rows(row, worth):
    env = one("breakout", x=20, y=64 + 4 * row - 0.5, velocity_x=0, velocity_y=1, bricks=wall((2, row)), bricks_left=9)
    assert go(env)[1] == worth


def test_breakout_paddle_angle_law():
    for place in (-1, -0.5, 0, 0.3, 1):
        env = one("breakout", paddle=60, x=60 + 8.75 * place, y=7, velocity_x=0, velocity_y=-1.5)
        state, _, _ = go(env)
        sine = 0.85 * place
        cosine = math.sqrt(1 - sine * sine)
        third = 1 / 3  # of the frame is left after the meeting
        wanted = [60 + 8.75 * place + third * 1.25 * sine, 6 + third * 1.25 * cosine, 1.25 * sine, 1.25 * cosine]
        assert ball(state) == pytest.approx(wanted, abs=1e-5) and state.hits == 1
    for place in (-1.01, 1.01):
        env = one("breakout", paddle=60, x=60 + 8.75 * place, y=7, velocity_x=0, velocity_y=-1.5)
        assert ball(go(env)[0])[1:] == [5.5, 0, -1.5]
    state, _, _ = go(one("breakout", paddle=60, x=60, y=5.75, velocity_x=0, velocity_y=-1.5))
    assert ball(state)[1:] == [4.25, 0, -1.5]  # too late


def test_breakout_paddle_and_left_wall_in_one_frame():
    # Reaches the wall after half a frame and the paddle's level, at x = 0.25, after three quarters.
    state, _, _ = go(one("breakout", paddle=8, x=0.5, y=6.75, velocity_x=-1, velocity_y=-1))
    sine = 0.85 * (0.25 - 8) / 8.75
    u, v = 1.25 * sine, 1.25 * math.sqrt(1 - sine * sine)
    assert ball(state) == pytest.approx([0.25 + u / 4, 6 + v / 4, u, v], abs=1e-5)


def test_breakout_speeds_up():
    for hits, hurried, speed in [(0, 0, 1.25), (2, 0, 1.25), (3, 0, 1.5), (10, 0, 1.5), (11, 0, 1.75), (12, 0, 1.75),
                                 (0, 1, 1.5), (3, 1, 1.75), (12, 1, 2.0)]:  # fmt: skip
        env = one("breakout", paddle=60, x=63, y=6.5, velocity_x=0.3, velocity_y=-1, hits=hits, hurried=hurried)
        state, _, _ = go(env)
        assert math.hypot(*ball(state)[2:]) == pytest.approx(speed, abs=1e-6) and state.hits == min(hits + 1, 12)
    bricks = wall((2, 4), (2, 5), (3, 5))
    env = one("breakout", x=20, y=79.5, velocity_x=0.75, velocity_y=1, bricks=bricks, bricks_left=9)
    state, reward, _ = go(env)
    assert reward == 7 and ball(state)[2:] == pytest.approx([0.9, -1.2])  # 1.25 becomes 1.5, the direction stays
    env.state.x, env.state.y, env.state.velocity_x, env.state.velocity_y = 20, 83.5, 0.9, 1.2
    state, reward, _ = go(env)
    assert reward == 7 and ball(state)[2:] == pytest.approx([0.9, -1.2])  # only the first touch counts
    assert env.observation[0, 3:5] == pytest.approx([0.36, -0.48])
    env = one("breakout", x=20, y=75.5, velocity_x=0.75, velocity_y=1, bricks=wall((2, 3)), bricks_left=9)
    state, reward, _ = go(env)
    assert reward == 4 and ball(state)[2:] == [0.75, -1]


def test_breakout_losing_lives():
    env = one("breakout", x=100, y=0.5, velocity_x=0, velocity_y=-1, hits=7, hurried=True, score=5, bricks=wall((0, 0)))
    for lives in (4, 3, 2, 1):
        state, reward, terminated = go(env)
        assert (state.lives, reward, terminated, state.hits, state.hurried) == (lives, 0, False, 0, False)
        assert state.y == 56 and state.velocity_y < 0 and state.bricks.sum() == 1  # served at once, the wall stays
        env.state.y, env.state.velocity_y = 0.5, -1
    step = env.step(np.array([STAY]))
    assert step.terminated[0] and not step.truncated[0] and step.episode.tolist() == [[0, 5, 5, 108, 0]]
    assert env.state[0].lives == 5 and env.state[0].bricks.sum() == 108 and env.state[0].score == 0


def test_breakout_clearing_the_wall_ends_the_game():
    env = one("breakout", frames=4, x=20, y=63, velocity_x=0, velocity_y=2, bricks=wall((2, 0)), bricks_left=1)
    env.state.score = 431
    step = env.step(np.array([STAY]))
    assert step.reward[0] == 1 and step.terminated[0] and step.episode.tolist() == [[1, 1, 432, 0, 5]]


def test_breakout_serves_to_both_sides_alike():
    state = make("breakout", rows=20_000).state
    speed, sine = np.hypot(state.velocity_x, state.velocity_y), state.velocity_x / np.float32(1.25)
    assert np.allclose(speed, 1.25) and (state.velocity_y < 0).all() and np.abs(sine).max() <= 0.5
    assert state.x.min() >= 24 and state.x.max() <= 120
    for sample, half_range in ((state.x - 72, 48), (sine, 0.5)):  # uniform: standard deviation is half range / sqrt(3)
        assert abs(sample.mean()) < 4 * half_range / math.sqrt(3 * 20_000)
        assert sample.std() == pytest.approx(half_range / math.sqrt(3), rel=0.02)
    assert abs(np.corrcoef(state.x, sine)[0, 1]) < 0.03


def random_flights(rows, seed=0):
    """Balls at random empty places among half a wall of random bricks, in all directions at top speed."""
    generator = np.random.default_rng(seed)
    env = make("breakout", rows=rows)
    state = env.state
    state.x, state.y = generator.uniform(0, 144, rows), generator.uniform(60, 104, rows)
    state.bricks = generator.random((rows, 108)) < 0.5
    row = np.floor((state.y - 64) / 4).astype(int)
    inside = (row >= 0) & (row < 6)
    state.bricks[inside, (18 * row + np.minimum(state.x // 8, 17).astype(int))[inside]] = 0
    state.bricks_left, state.hurried, state.hits, state.score = 200, True, 12, 0
    angle = generator.uniform(0, 2 * np.pi, rows)
    state.velocity_x, state.velocity_y = 2 * np.cos(angle), 2 * np.sin(angle)
    return env


def slow_flight(state, parts=400):
    """One frame in many small parts, in float64; unsure where one part crosses two borders at once."""
    x, y, u, v = (state[field].astype(np.float64) for field in ("x", "y", "velocity_x", "velocity_y"))
    bricks = np.zeros((len(x), 20, 12), bool)  # a frame of solid cells around the field, row 0 below the wall
    bricks[:, 1:19, 1:7] = state.bricks.reshape(-1, 6, 18).transpose(0, 2, 1) > 0
    unsure, every = np.zeros(len(x), bool), np.arange(len(x))
    for _ in range(parts):
        a, b = x + u / parts, y + v / parts
        column, row = np.floor(x / 8).astype(int), np.floor((y - 64) / 4).astype(int)
        new_column, new_row = np.floor(a / 8).astype(int), np.floor((b - 64) / 4).astype(int)
        unsure |= (column != new_column) & (row != new_row)
        cell = np.clip(new_column + 1, 0, 19), np.clip(new_row + 1, 0, 11)
        solid = (new_column < 0) | (new_column > 17) | (new_row > 9) | bricks[every, *cell]
        bricks[every[solid], cell[0][solid], cell[1][solid]] = False
        side, rise = solid & (column != new_column), solid & (row != new_row)
        a = np.where(side, 16 * np.maximum(column, new_column) - a, a)
        b = np.where(rise, 2 * (64 + 4 * np.maximum(row, new_row)) - b, b)
        x, y, u, v = a, b, np.where(side, -u, u), np.where(rise, -v, v)
    return x, y, u, v, bricks[:, 1:19, 1:7].transpose(0, 2, 1).reshape(-1, 108), unsure


def test_breakout_flight_equals_a_slow_twin():
    env = random_flights(4000)
    before = env.state.copy()
    bounced = 0
    for _ in range(3):
        *wanted, bricks, unsure = slow_flight(env.state)
        env.step(np.zeros(4000, np.int64))
        sure = ~unsure
        assert sure.mean() > 0.98
        got = [env.state[field][sure] for field in ("x", "y", "velocity_x", "velocity_y")]
        assert all(np.abs(a - b[sure]).max() < 1e-4 for a, b in zip(got, wanted, strict=True))
        assert np.array_equal(env.state.bricks[sure] > 0, bricks[sure])
        bounced = (before.bricks - env.state.bricks).sum()
    worth = np.repeat([1, 1, 4, 4, 7, 7], 18)
    assert bounced > 1000 and np.array_equal((before.bricks - env.state.bricks) @ worth, env.state.score)


def test_breakout_mirrored_game():
    env, mirrored = random_flights(2000, seed=1), random_flights(2000, seed=1)
    mirrored.state.x = 144 - mirrored.state.x
    mirrored.state.velocity_x *= -1
    mirrored.state.bricks = mirrored.state.bricks.reshape(-1, 6, 18)[:, :, ::-1].reshape(-1, 108)
    for _ in range(4):
        env.step(np.full(2000, LEFT))
        mirrored.step(np.full(2000, RIGHT))
    same = np.abs(env.state.x - (144 - mirrored.state.x)) < 1e-3
    assert same.mean() > 0.995  # but for a few corners that rounding decides
    bricks, others = env.state.bricks.reshape(-1, 6, 18), mirrored.state.bricks.reshape(-1, 6, 18)
    assert np.array_equal(bricks[same, :, ::-1], others[same])
    assert np.array_equal(env.state.paddle, 144 - mirrored.state.paddle)


def test_breakout_invariants_over_games():
    env, generator = make("breakout", rows=128, seed=5), np.random.default_rng(0)
    worth = np.repeat([1, 1, 4, 4, 7, 7], 18)
    bricks, endings = env.state.bricks.copy(), 0
    for _ in range(4000):
        step = env.step(follow(env, generator))
        state, playing = env.state, ~step.terminated
        endings += step.terminated.sum()
        level = (state.hits >= 4).astype(int) + (state.hits >= 12) + state.hurried
        assert np.abs(np.hypot(state.velocity_x, state.velocity_y) - (1.25 + 0.25 * level)).max() < 1e-5
        assert (state.bricks <= bricks)[playing].all()
        assert np.array_equal(state.score, (1 - state.bricks) @ worth)
        assert np.array_equal(state.bricks_left, state.bricks.sum(1))
        row, column = np.floor((state.y - 64) / 4).astype(int), np.minimum(state.x // 8, 17).astype(int)
        inside = np.flatnonzero((row >= 0) & (row < 6))
        assert not state.bricks[inside, 18 * row[inside] + column[inside]].any()  # never within a brick
        assert (np.abs(step.observation) <= 1).all() and np.array_equal(step.observation[:, 8:], state.bricks)
        bricks = state.bricks.copy()
    assert endings > 100 and state.score.max() > 200


def test_breakout_draw():
    env = one("breakout", paddle=40, x=72, y=30, score=21, bricks=wall((0, 0), (17, 5)))
    canvas = Canvas(480, 360)
    assert env.draw(0, canvas)
    pixels = canvas.pixels()

    def at(x, y):
        return tuple(int(part) for part in pixels[round((116 - y) * 3), round((x + 8) * 3)])

    assert at(4, 66) == breakout.ROW_COLOURS[0] and at(140, 86) == breakout.ROW_COLOURS[5]
    assert at(140, 66) == at(4, 86) == breakout.BACKGROUND
    assert at(40, 4.5) == breakout.ROW_COLOURS[5] and at(60, 4.5) == breakout.BACKGROUND
    assert min(at(72, 30)) > 200 and at(72, 107) == at(-4, 50) == at(147, 50) == breakout.EDGE
