"""Environments of two players: the equilibrium of matching pennies, the rules of connect four, the symmetry of pong."""

import numpy as np
import pytest
from games import DOWN, STAY, UP, fold, nearest
from test_arcade import make

from ridgeline.observations import random_allowed, unpack

# ---------------------------------------------------------------------------------------------------- matching pennies


def pennies(heads: tuple, num_envs: int = 4000, **parameters) -> np.ndarray:
    """Return of each player in each first episode; `heads`: of each the probability of a head, or its actions."""
    env, generator = make("matching_pennies", num_envs, 0, parameters), np.random.default_rng(0)
    while True:
        players = [generator.random(num_envs) < one for one in heads]
        step = env.step(np.stack(players, 1).ravel().astype(np.int64))
        if len(step.episode_row):
            assert step.terminated.all() and len(step.episode_row) == env.num_rows
            return step.episode[:, 0].reshape(-1, 2)


def test_matching_pennies_pays_by_hand():
    for one, other, gain in ((1, 1, 3.0), (0, 0, 1.0), (1, 0, -1.0), (0, 1, -1.0)):
        assert (pennies((one, other), 3, rounds=4) == [4 * gain, -4 * gain]).all()
    assert (pennies((1, 1), 1, head=0.5, rounds=1) == [0.5, -0.5]).all()


@pytest.mark.parametrize("other", [0.0, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("role", [0, 1])
def test_nobody_does_better_against_the_equilibrium(role, other):
    """Whatever the other one plays, it gets the value of the game: 10/3 and -10/3."""
    both = (1 / 3, other) if role == 0 else (other, 1 / 3)
    won = pennies(both)[:, 1 - role]
    assert abs(won.mean() - (10 / 3, -10 / 3)[1 - role]) < 4 * won.std() / np.sqrt(len(won)) + 1e-9


def test_matching_pennies_random_play_is_not_the_equilibrium():
    won = pennies((0.5, 0.5))[:, 0]
    assert abs(won.mean() - 5.0) < 4 * won.std() / np.sqrt(len(won))
    won = pennies((0.5, 0.0))[:, 1]  # against it, always tail loses nothing: more than the value of the game
    assert abs(won.mean()) < 4 * won.std() / np.sqrt(len(won))


def test_matching_pennies_shows_role_and_last_round():
    env = make("matching_pennies", 1)
    assert env.observation.tolist() == [[1, 0, 0], [-1, 0, 0]]
    assert env.step(np.array([1, 0])).observation.tolist() == [[1, 1, -1], [-1, -1, 1]]


# -------------------------------------------------------------------------------------------------------- connect four


def drop(columns: str, starter: int = 0):
    """The step after discs into these columns, in turn; and the environment."""
    env = make("connect_four", 1)
    env.state.turn[0] = starter
    step = None
    for move, column in enumerate(columns):
        action = np.full(2, 6)  # the other one's action counts nothing
        action[(starter + move) % 2] = int(column)
        step = env.step(action)
        assert step.valid is not None and step.valid.tolist() == [move % 2 == starter, move % 2 != starter]
    return step, env


@pytest.mark.parametrize("starter", [0, 1])
@pytest.mark.parametrize(
    "columns",
    [
        "0606060",  # upright
        "0011223",  # level
        "01123223633",  # rising to the right: columns 0, 1, 2, 3
        "65543443033",  # and to the left
        "6655443",
    ],
)
def test_four_in_a_row_win(columns, starter):
    step, _ = drop(columns, starter)
    winner = (starter + len(columns) - 1) % 2
    assert step is not None and step.reward[winner] == 1 and step.reward[1 - winner] == -1
    assert step.terminated.all() and sorted(step.episode[:, 0]) == [-1, 1]
    assert step.episode[:, 1].sum() == len(columns)  # decisions of both
    before, _ = drop(columns[:-1], starter)
    assert before is not None and not before.terminated.any() and not before.reward.any()


def test_connect_four_full_columns_and_draws():
    step, env = drop("000000")
    mask = unpack(env.observation_space, env.observation)["action_mask"]
    assert mask.tolist() == [[0, 1, 1, 1, 1, 1, 1]] * 2
    board = unpack(env.observation_space, env.observation)["observation"]
    assert board[0, :42:7].tolist() == [1, -1, 1, -1, 1, -1] and (board[1] == -board[0]).all()
    assert abs(board).sum() == 12
    step, env = drop("0000000")  # not allowed: the first column with room
    assert unpack(env.observation_space, env.observation)["observation"][0, 1] == 1
    # 42 discs without a winner
    draw = "010101101010232323323232454545545454666666"
    step, env = drop(draw)
    assert step is not None and step.terminated.all() and not step.reward.any()
    assert step.episode.tolist() == [[0, 21], [0, 21]]


def lines(board: np.ndarray) -> bool:
    """Whether the 6 x 7 board has four ones in a row: by looking at every four cells."""
    for y in range(6):
        for x in range(7):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                cells = [(y + k * dy, x + k * dx) for k in range(4)]
                if all(0 <= a < 6 and 0 <= b < 7 and board[a, b] == 1 for a, b in cells):
                    return True
    return False


def test_connect_four_games_against_a_plain_board():
    """Random games: the winner and the board of each step are those of a 6 x 7 array."""
    env, generator = make("connect_four", 40, 3), np.random.default_rng(0)
    boards = np.zeros((40, 6, 7))
    wins = 0
    for _ in range(80):
        turn = env.state.turn.copy()
        mask = unpack(env.observation_space, env.observation)["action_mask"]
        action = random_allowed(env.action_space, mask, generator)
        step = env.step(action)
        shown = unpack(env.observation_space, step.observation)["observation"].reshape(40, 2, 6, 7)
        for i in range(40):
            column = action[2 * i + turn[i]]
            boards[i, int((boards[i, :, column] != 0).sum()), column] = 1 if turn[i] == 0 else -1
            won = lines(boards[i] * (1 if turn[i] == 0 else -1))
            assert step.reward[2 * i + turn[i]] == won and step.reward[2 * i + 1 - turn[i]] == -won
            assert step.terminated[2 * i] == (won or (boards[i] != 0).all())
            if step.terminated[2 * i]:
                boards[i], wins = 0, wins + won
            assert (shown[i, 0] == boards[i]).all() and (shown[i, 1] == -boards[i]).all()
    assert wins > 20


def test_who_starts_is_drawn():
    turn = make("connect_four", 4000).state.turn
    assert abs(turn.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)


# ----------------------------------------------------------------------------------------------------------------- pong


def aim(env) -> np.ndarray:
    """What the right player does to be where the ball will meet its line, off its middle so that the ball flies
    steeply; in the middle while the ball flies away."""
    state = env.state
    coming = state.velocity_x > 0
    frames = np.maximum((152 - state.x) / np.where(coming, state.velocity_x, 1.0), 0.0)
    target = np.where(coming, fold(state.y + state.velocity_y * frames, 96) + 3.0, 48.0)
    reach = 2 * env.parameters.frames_per_action
    return nearest(state.paddle[:, 0], target, reach, 6, 90, (STAY, DOWN, UP))


def test_pong_duel_one_who_aims_wins_every_point():
    env, generator = make("pong_duel", 16, 0), np.random.default_rng(0)
    won = np.full((16, 2, 3), np.nan)
    for _ in range(env.max_episode_steps or 0):
        step = env.step(np.stack([aim(env), generator.integers(0, 3, 16)], 1).ravel())
        for row, episode in zip(step.episode_row, step.episode, strict=True):
            if np.isnan(won[row // 2, row % 2, 0]):
                won[row // 2, row % 2] = episode
        if not np.isnan(won).any():
            break
    assert (won[:, 0, [0, 2]] == [21, 21]).all() and (won[:, 1, [0, 2]] == [-21, 0]).all()


def test_pong_duel_is_the_same_game_from_both_sides():
    """Mirrored states and exchanged actions give mirrored states, exchanged observations and opposite rewards."""
    one, other, generator = make("pong_duel", 200, 0), make("pong_duel", 200, 0), np.random.default_rng(0)
    points = 0
    for _ in range(60):
        state, mirrored = one.state, other.state
        mirrored[:] = state
        mirrored.paddle, mirrored.points = state.paddle[:, ::-1], state.points[:, ::-1]
        mirrored.x, mirrored.velocity_x = 160 - state.x, -state.velocity_x
        action = generator.integers(0, 3, (200, 2))
        step, twin = one.step(action.ravel()), other.step(action[:, ::-1].ravel())
        np.testing.assert_array_equal(step.reward.reshape(-1, 2)[:, ::-1], twin.reward.reshape(-1, 2))
        going = ~step.reward.reshape(-1, 2).any(1)  # no serve, which is drawn
        points += (~going).sum()
        np.testing.assert_allclose(
            step.observation.reshape(-1, 2, 8)[going, ::-1], twin.observation.reshape(-1, 2, 8)[going], atol=1e-4
        )
    assert points > 50
