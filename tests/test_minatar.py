"""MinAtar's games against the package from PyPI: recorded (minatar.json), and side by side where it is installed."""

import json

import numpy as np
import pytest
from games import FOLDER, play
from minatar_package import FIXTURE, GAMES, PURPOSE, OurRandom, actions_of, digest, package

from ridgeline.canvas import Canvas
from ridgeline.kernel import define, seed_rows
from ridgeline.sources import plain
from ridgeline.vector import CompiledEnv


def environment(game, rows=1, seed=0, **parameters):
    return CompiledEnv(define(FOLDER / f"minatar_{game}.py"), rows, seed, PURPOSE, parameters)


class Plain:
    """One instance of a game in plain Python, which goes on after a terminal step."""

    def __init__(self, game, seed):
        self.definition = define(FOLDER / f"minatar_{game}.py", compile=False)
        self.rows = np.zeros(1, self.definition.state_dtype).view(np.recarray)
        seed_rows(self.rows, seed, PURPOSE)
        self.observation = np.zeros(self.definition.observation_space.shape, np.uint8)
        self.reset()

    def _do(self, name, *arguments):
        with np.errstate(over="ignore"):
            return plain(getattr(self.definition.module, name))(self.rows[0], *arguments, self.definition.parameters)

    def reset(self):
        self._do("reset")

    def step(self, action):
        result = self._do("step", action)
        self._do("observe", self.observation)
        return result


@pytest.mark.parametrize("length", [500, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("game", GAMES)
def test_equals_what_the_package_did(game, length):
    """3,000 steps with sticky actions and rising difficulty; compiled code from states on the way too."""
    recorded = json.loads(FIXTURE.read_text(encoding="utf-8"))["games"][game]
    one, checksum, total, ends = Plain(game, recorded["seed"]), 0, 0, 0
    compiled = environment(game)
    compared = 0
    for step, action in enumerate(map(int, recorded["actions"][:length])):
        if step % 7 == 0:
            compiled.state[0] = one.rows[0]
        reward, terminated = one.step(action)
        checksum = digest(checksum, one.observation, reward, terminated)
        total, ends = total + reward, ends + terminated
        if step % 50 == 49:
            assert checksum == recorded["checksums"][step // 50], f"differs within 50 steps before step {step}"
        if step % 7 == 0:
            result = compiled.step(np.array([action]))
            assert (result.reward[0], result.terminated[0]) == (reward, terminated)
            if not terminated:
                compared += 1
                np.testing.assert_array_equal(result.observation[0], one.observation)
        if terminated and game == "breakout":
            one.reset()
    assert compared > length / 30
    if length == len(recorded["actions"]):
        assert (total, ends) == (recorded["return"], recorded["terminals"])


@pytest.mark.parametrize("settings", [{}, {"sticky_action_prob": 0.0}, {"sticky_action_prob": 0.5, "ramping": False}])
@pytest.mark.parametrize("game", GAMES)
def test_equals_the_package_side_by_side(game, settings):
    """Episodes of the compiled game, begun anew where they end."""
    pytest.importorskip("minatar")
    ramps = game not in ("breakout", "freeway")
    sticky, ramping = settings.get("sticky_action_prob", 0.1), settings.get("ramping", True)
    theirs = package(game, 11, sticky_action_prob=sticky, difficulty_ramping=ramping)
    ours = environment(
        game, 1, 11, sticky_action_prob=sticky, **({"difficulty_ramping": int(ramping)} if ramps else {})
    )
    generator, episodes, returns = np.random.default_rng(5), 0, 0.0
    for _ in range(2600):
        action = actions_of(game, theirs.state(), generator, 0.05)
        reward, terminal = theirs.act(action)
        step = ours.step(np.array([action]))
        assert (step.reward[0], step.terminated[0]) == (reward, terminal) and not step.truncated[0]
        if terminal:
            episodes += 1
            theirs.last_action = 0
            theirs.reset()
        returns += reward
        np.testing.assert_array_equal(step.observation[0], theirs.state())
        assert ours.state[0].random_state == theirs.random.state[0].random_state
    assert episodes > 0 and returns > 0


def test_no_two_streams_are_confused():
    """The twin draws what the game draws: the first numbers of row 0."""
    from ridgeline.kernel import uniform

    rows = np.zeros(1, define(FOLDER / "minatar_breakout.py").state_dtype).view(np.recarray)
    seed_rows(rows, 11, PURPOSE)
    twin = OurRandom(11)
    with np.errstate(over="ignore"):
        assert [twin.rand() for _ in range(3)] == [plain(uniform)(rows[0]) for _ in range(3)]


def test_random_play_of_breakout():
    """0.5 in MinAtar's README."""
    env, generator = environment("breakout", 1000, 1), np.random.default_rng(0)
    assert 0.4 < play(env, lambda: generator.integers(0, 6, 1000))[:, 0].mean() < 0.6


def test_a_player_under_the_ball_never_loses():
    env = environment("breakout", 16, 2, sticky_action_prob=0.0)
    for _ in range(1000):
        state = env.state
        step = env.step(np.where(state.x > state.paddle, 3, np.where(state.x < state.paddle, 1, 0)))
        assert not step.terminated.any()
    assert (env.state.episode_return > 20).all()


def test_seaquest_lists_stay_within_their_bounds():
    """The most that can be: the last level from the start, never ending."""
    one = Plain("seaquest", 4)
    generator, most = np.random.default_rng(0), np.zeros(5, int)
    for _ in range(500):
        one.rows.enemy_interval, one.rows.oxygen, one.rows.x, one.rows.y = 1, 200, 0, 1
        if one.rows.num_submarines[0] + one.rows.num_fish[0] < 25:
            one.rows.move_interval = 5
        one.step(int(generator.choice([0, 5])))
        row = one.rows[0]
        most = np.maximum(
            most, [row.num_bullets, row.num_enemy_bullets, row.num_fish, row.num_submarines, row.num_divers]
        )
    assert (most <= [2, 60, 60, 60, 2]).all() and most[2] > 20 and most[1] > 5


@pytest.mark.parametrize("game", GAMES)
def test_draw(game):
    """After 60 steps of play: more colours than the start's ground and player."""
    env, generator = environment(game, 1, 3), np.random.default_rng(1)
    for _ in range(60):
        env.step(generator.integers(0, 6, 1))
    canvas = Canvas(360, 360)
    assert env.draw(0, canvas) and len(np.unique(canvas.pixels().reshape(-1, 3), axis=0)) > 3
