"""Evaluation against loops over single instances; films and the terminal."""

import io
import math
import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ridgeline import evaluation, session
from ridgeline.algorithms.ppo import PPO
from ridgeline.canvas import Canvas, Rendered
from ridgeline.distributions import Categorical
from ridgeline.environments import make
from ridgeline.evaluation import EvaluationError, Player, evaluate, watch
from ridgeline.film import FilmError
from ridgeline.policies import MLP, clip_action
from ridgeline.vector import EVALUATION, TRAINING

# Episodes of 1 or 9 steps with equal chance, whatever the action: the mean length is 5.
TWO_LENGTHS = """
from typing import NamedTuple
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype, uniform

State = state_dtype(length=np.int64, clock=np.int64, squared=np.int64)
statistics = ("squared",)
observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
action_space = spaces.Discrete(2)


class Parameters(NamedTuple):
    never_ends: bool = False
    broken_after: int = 1_000_000


def reset(state, p):
    state.length = 1 if uniform(state) < 0.5 else 9
    state.clock = 0


def step(state, action, p):
    state.clock += 1
    state.squared = state.clock * state.clock
    reward = np.nan if state.clock > p.broken_after else 2.0
    return reward, state.clock >= state.length and not p.never_ends


def observe(state, observation, p):
    observation[0] = state.clock / 9
"""

# A walk of 25 frames, 4 of them per action; the time limit counts actions. Drawn as a bar that grows.
FRAMES = """
from typing import NamedTuple
import numpy as np
from gymnasium import spaces
from ridgeline.kernel import state_dtype, uniform

State = state_dtype(frame=np.int64, first=np.float64)
observation_space = spaces.Box(-1.0, 40.0, (1,), np.float32)
action_space = spaces.Discrete(3)
max_episode_steps = 6
canvas_size = (64, 32)
frames_per_second = 20


class Parameters(NamedTuple):
    frames_per_action: int = 4


def reset(state, p):
    state.frame = 0
    state.first = uniform(state)


def step(state, action, p):
    reward = 0.0
    for _ in range(p.frames_per_action):
        state.frame += 1
        reward += (action + 1) * state.first * state.frame
    return reward, state.frame >= 400


def observe(state, observation, p):
    observation[0] = state.frame * state.first


def draw(state, canvas):
    canvas.world(0, 64, 0, 32)
    canvas.fill((0, 0, 0))
    canvas.rectangle(0, 0, 2 * state.frame, 32, (255, 255, 255))
"""


@pytest.fixture(scope="module")
def two_lengths(tmp_path_factory):
    path = tmp_path_factory.mktemp("environment") / "two_lengths.py"
    path.write_text(TWO_LENGTHS)
    return path


def policies(environment, count=1, scale=1.0, **config):
    """Policies with weights of their own, far from uniform."""
    env = make(environment, 1)
    torch.manual_seed(5)
    found = [MLP(hidden_sizes=(8,), **config).build(env.observation_space, env.action_space) for _ in range(count)]
    for policy in found:
        nn.init.normal_(policy.action_head.weight, std=scale)
    env.close()
    return found


class Terminal(io.StringIO):
    def isatty(self):
        return True


# ----------------------------------------------------------------------------------------------------------- evaluating


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_a_fixed_number_of_episodes_of_each_instance(two_lengths, monkeypatch, rows):
    monkeypatch.setattr(evaluation, "MAX_ROWS", 2 * rows)
    found = evaluate(policies(two_lengths, 2), episodes=10, seed=3, environment=two_lengths)
    num_envs = min(rows, 10)
    expected = []
    for run in range(2):
        env = make(two_lengths, num_envs, 3 + run, EVALUATION)
        ended = [[] for _ in range(num_envs)]
        for _ in range(200):
            step = env.step(np.zeros(num_envs, np.int64))
            for row, episode in zip(step.episode_row, step.episode, strict=True):
                ended[row].append(episode[1])
        shares = [10 // num_envs] * num_envs if 10 % num_envs == 0 else [2, 3, 2, 3]
        expected.append([length for own, share in zip(ended, shares, strict=True) for length in own[:share]])
    assert found.episode_lengths.tolist() == expected
    assert found.episode_returns.tolist() == (2 * found.episode_lengths).tolist()
    assert found.statistics["squared"].tolist() == (found.episode_lengths**2).tolist()
    assert found.episode_return == [sum(2 * one for one in own) / 10 for own in expected]


def test_short_episodes_do_not_count_more(two_lengths, monkeypatch):
    """Of 2,000 episodes the mean length is 5 with standard error 0.09; of the first 2,000 to end it is 4.1."""
    monkeypatch.setattr(evaluation, "MAX_ROWS", 1000)
    found = evaluate(policies(two_lengths), episodes=2000, environment=two_lengths)
    assert abs(found.episode_length[0] - 5) < 0.3
    assert set(found.episode_lengths.ravel()) == {1, 9}


@pytest.mark.parametrize("environment", ["cartpole", "pendulum"])
def test_greedy_episodes_equal_a_loop_over_one_instance(environment):
    (policy,) = policies(environment)
    found = evaluate(policy, episodes=3, greedy=True, seed=11, environment=environment)
    env = make(environment, 3, 11, EVALUATION)
    returns, total = {}, np.zeros(3)
    while len(returns) < 3:
        action, _ = policy.act(env.observation, greedy=True)
        step = env.step(clip_action(env.action_space, action))
        total += step.reward
        for row in step.episode_row:
            returns.setdefault(int(row), total[row])
            total[row] = 0
    np.testing.assert_allclose(found.episode_returns[0], [returns[row] for row in range(3)], rtol=1e-6)


def test_sampled_actions_have_the_probabilities_of_the_policy(two_lengths):
    """The bandit's mean reward under a policy of known probabilities, within five standard errors."""
    env = make("bandit", 1)

    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.linspace(-1, 1, env.action_space.n))

        def forward(self, observation):
            rows = observation.shape[:-1]
            return Categorical(self.logits.expand(*rows, -1)), observation.new_zeros(*rows, 1)

    probability = torch.softmax(Fixed().logits.detach(), 0).numpy()
    arms = [
        evaluate(_always(arm, env.action_space.n), 4000, True, environment="bandit").episode_return[0]
        for arm in range(env.action_space.n)
    ]
    found = evaluate(Fixed(), 4000, environment="bandit")
    error = found.episode_returns.std() / math.sqrt(4000)
    assert abs(found.episode_return[0] - probability @ arms) < 5 * 2 * error


def _always(arm, count):
    class Always(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(10.0 * torch.eye(count)[arm])

        def forward(self, observation):
            rows = observation.shape[:-1]
            return Categorical(self.logits.expand(*rows, -1)), observation.new_zeros(*rows, 1)

    return Always()


def test_every_step_run_and_seed_has_noise_of_its_own():
    env = make("bandit", 2, [4, 5])
    choose = evaluation._Choice(env, evaluation._population([_always(0, env.action_space.n)] * 2, env), greedy=False)
    choose.population.view("logits").zero_()  # all arms alike
    actions = np.stack([choose() for _ in range(256)])
    blocks = [actions[start : start + 64, row].tolist() for start in range(0, 256, 64) for row in range(4)]
    assert len({tuple(block) for block in blocks}) == 16
    counts = np.bincount(actions.ravel(), minlength=env.action_space.n)
    assert (abs(counts - counts.mean()) < 5 * np.sqrt(counts.mean())).all()


def test_a_run_does_not_depend_on_its_neighbours_or_on_when_it_is_asked():
    several = policies("cartpole", 3, scale=0.1)
    found = evaluate(several, 20, seed=[4, 5, 9], environment="cartpole")
    alone = evaluate(several[2], 20, seed=9, environment="cartpole")
    assert found.episode_returns[2].tolist() == alone.episode_returns[0].tolist()
    again = evaluate(several, 20, seed=[4, 5, 9], environment="cartpole")
    assert (again.episode_returns == found.episode_returns).all()
    assert not (evaluate(several, 20, seed=0, environment="cartpole").episode_returns == found.episode_returns).all()
    greedy = evaluate(several, 20, greedy=True, seed=[4, 5, 9], environment="cartpole")
    assert not (greedy.episode_returns == found.episode_returns).all()


def test_evaluation_never_sees_the_episodes_of_training():
    result = session.train("cartpole", PPO(num_envs=64, rollout_length=4), total_steps=256)
    env = result.make_env(64, 0)
    seen = make("cartpole", 64, 0, TRAINING)
    assert not set(env.observation[:, 0]) & set(seen.observation[:, 0])


def test_result_run_directory_and_modules_are_the_same(tmp_path, two_lengths):
    out = tmp_path / "run"
    result = session.train(
        two_lengths,
        PPO(num_envs=4, rollout_length=8),
        total_steps=64,
        num_runs=2,
        parameters={"never_ends": 0},
        out=out,
    )
    returns = [
        evaluate(result, 7).episode_lengths.tolist(),
        evaluate(out, 7, environment=two_lengths).episode_lengths.tolist(),
        evaluate(session.load(out, two_lengths), 7).episode_lengths.tolist(),
        evaluate(result.policies, 7, environment=two_lengths).episode_lengths.tolist(),
    ]
    assert all(one == returns[0] for one in returns)
    with pytest.raises(session.RunError, match=r"two_lengths\.py; name it again"):
        evaluate(out, 7)


def test_evaluating_changes_no_policy():
    (policy,) = policies("cartpole")
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    evaluate(policy, 3, environment="cartpole")
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_an_environment_of_gymnasium(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_OUTSIDE_ROWS", 6)
    found = evaluate(policies("CartPole-v1", 2), episodes=7, environment="CartPole-v1")
    assert found.episode_returns.shape == (2, 7)
    assert (found.episode_returns == found.episode_lengths).all() and (found.episode_lengths >= 1).all()


def test_an_episode_that_never_ends_is_given_up(two_lengths, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 60)
    result = session.Trained(policies=policies(two_lengths), trained_on=two_lengths, parameters={"never_ends": True})
    with pytest.raises(EvaluationError, match="two_lengths has not ended after 60 steps; give the environment a max_"):
        evaluate(result, 5)


def test_many_short_episodes_are_not_one_long_one(two_lengths, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 10)
    monkeypatch.setattr(evaluation, "MAX_ROWS", 1)
    assert evaluate(policies(two_lengths), 30, environment=two_lengths).episode_lengths.sum() > 10


def test_document_holds_what_json_knows(two_lengths):
    (policy,) = policies(two_lengths)
    whole = evaluate(policy, 4, environment=two_lengths)
    assert whole.document() == {
        "environment": "two_lengths", "episodes": 4, "greedy": False,
        "episode_return": whole.episode_return, "episode_length": whole.episode_length,
        "statistics": {"squared": [float(np.mean(whole.statistics["squared"]))]},
    }  # fmt: skip
    broken = session.Trained(policies=[policy], trained_on=two_lengths, parameters={"broken_after": 5})
    assert evaluate(broken, 50).document()["episode_return"] == [None]


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (lambda: policies("cartpole"), {}, "name the environment"),
        (lambda: [], {"environment": "cartpole"}, "nothing to evaluate"),
        (lambda: [3], {"environment": "cartpole"}, "nothing to evaluate"),
        (lambda: policies("cartpole"), {"environment": "cartpole", "episodes": 0}, "episodes = 0; use a whole"),
        (lambda: policies("cartpole", 2), {"environment": "cartpole", "seed": [1]}, "1 seeds for 2 runs"),
        (lambda: policies("cartpole") + policies("pendulum"), {"environment": "cartpole"}, "not of one shape"),
    ],
)
def test_bad_input(run, arguments, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(run(), **arguments)


# ------------------------------------------------------------------------------------------------------------- watching


def film(path):
    """(sizes, total duration in seconds, frames) of a GIF."""
    with Image.open(path) as image:
        frames, duration = [], 0
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
            duration += image.info["duration"]
    return image.size, duration / 1000, frames


def test_a_film_shows_every_frame_of_an_action_at_the_environments_rate(tmp_path):
    path = tmp_path / "frames.py"
    path.write_text(FRAMES)
    returns = watch(policies(path), gif=tmp_path / "film.gif", greedy=True, environment=path)
    size, duration, frames = film(tmp_path / "film.gif")
    assert size == (64, 32)
    # 24 frames of 6 actions: the first picture, 23 that follow, the last one again and held for half a second
    assert duration == pytest.approx((1 + 23 + 1 + 10) / 20, abs=0.011)
    bars = [int((frame[16, :, 0] > 128).sum()) for frame in frames]
    assert bars == [2 * frame for frame in range(24)]
    expected = evaluate(policies(path), 1, greedy=True, environment=path)
    assert returns == pytest.approx(expected.episode_returns[0].tolist())
    assert expected.episode_lengths[0] == 6


def test_breakout_watched_frame_by_frame_is_breakout():
    (policy,) = policies("breakout")
    player = Player(session.Trained(policies=[policy], trained_on="breakout"), 0, greedy=True, seed=8)
    while len(player.finished) < 2:
        player.advance()
    env = make("breakout", 1, 8, EVALUATION)
    expected = []
    while len(expected) < 2:
        expected += env.step(policy.act(env.observation, greedy=True)[0]).episode[:, 0].tolist()
    assert player.finished == expected


def test_films_of_several_episodes_and_of_limited_length(tmp_path):
    (policy,) = policies("cartpole")
    found = evaluate(policy, 1, True, environment="cartpole").episode_lengths[0]
    gif = tmp_path / "film.gif"
    assert len(watch(policy, greedy=True, gif=gif, environment="cartpole")) == 1
    assert film(gif)[1] == pytest.approx((found[0] + 1 + 25) / 50, abs=0.011)
    assert len(watch(policy, greedy=True, gif=gif, environment="cartpole", episodes=2)) == 2
    assert watch(policy, gif=gif, environment="cartpole", max_frames=3) == []
    assert film(gif)[1] == pytest.approx(3 / 50, abs=0.011)
    watch(policy, gif=gif, environment="cartpole", max_frames=3, frames_per_second=1)
    assert film(gif)[1] == pytest.approx(3)


def test_mp4(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    (policy,) = policies("cartpole")
    watch(policy, mp4=tmp_path / "film.mp4", gif=tmp_path / "film.gif", environment="cartpole", max_frames=5)
    assert (tmp_path / "film.mp4").stat().st_size > 1000 and (tmp_path / "film.gif").stat().st_size > 1000


def test_the_terminal_shows_it_and_is_given_back():
    (policy,) = policies("cartpole")
    out = Terminal()
    returns = watch(policy, greedy=True, out=out, environment="cartpole", frames_per_second=1000)
    text = out.getvalue()
    assert text.startswith("\x1b[?1049h\x1b[?25l") and text.endswith("\x1b[?25h\x1b[?1049l")
    assert text.count("\x1b[H") == text.count("step ") >= 1 and "▀" in text
    assert f"step {returns[0]:.0f}   reward 1   return {returns[0]:.0f}   the end" in text


def test_ctrl_c_gives_the_terminal_back(monkeypatch):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.time, "sleep", nap)
    out = Terminal()
    with pytest.raises(KeyboardInterrupt):
        watch(policies("cartpole"), out=out, environment="cartpole")
    assert out.getvalue().endswith("\x1b[?25h\x1b[?1049l")


def test_a_terminal_that_changes_its_size_is_cleared(monkeypatch):
    sizes = iter([(80, 24), (80, 24), (40, 10), (40, 10)])
    out = Terminal()
    with monkeypatch.context() as patched:  # no longer than needed: pytest -v asks for the size too
        patched.setattr(shutil, "get_terminal_size", lambda: os.terminal_size(next(sizes)))
        patched.setattr(evaluation.time, "sleep", lambda seconds: None)
        patched.setattr(evaluation.time, "perf_counter", lambda: 0.0)
        watch(policies("cartpole"), out=out, environment="cartpole", max_frames=4)
    pictures = out.getvalue().split("\x1b[H")[1:]
    assert [text.count("\r\n") for text in pictures] == [22, 22, 8, 8]
    assert out.getvalue().count("\x1b[2J") == 2


def test_slow_drawing_leaves_pictures_out_and_keeps_the_time(monkeypatch):
    drawn = []
    real = evaluation._draw

    def slow(*arguments):
        drawn.append(arguments[0].step)
        time.sleep(0.05)
        return real(*arguments)

    monkeypatch.setattr(evaluation, "_draw", slow)
    watch(policies("pendulum"), out=Terminal(), environment="pendulum", frames_per_second=100, max_frames=60)
    assert 1 < len(drawn) < 30 and drawn == sorted(drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"index": 2}, "no run 2; this training has runs 0 to 1"),
        ({"index": -1}, "no run -1"),
        ({"out": io.StringIO()}, "no terminal; write a film with --gif FILE"),
    ],
)
def test_what_cannot_be_watched(arguments, message):
    with pytest.raises(EvaluationError, match=message):
        watch(policies("cartpole", 2), environment="cartpole", **{"out": Terminal(), **arguments})


def test_no_picture_says_how_to_add_one(two_lengths, tmp_path):
    out = Terminal()
    with pytest.raises(EvaluationError, match=r"two_lengths has no picture: add draw\(state, canvas\)"):
        watch(policies(two_lengths), out=out, environment=two_lengths)
    assert out.getvalue() == ""
    with pytest.raises(EvaluationError, match="no picture"):
        watch(policies(two_lengths), gif=tmp_path / "film.gif", environment=two_lengths)
    assert list(tmp_path.glob("*film*")) == []


def test_pictures_of_gymnasium_keep_their_size(tmp_path):
    name = "gymnasium_samples:Trouble"
    env = make(name, 1, render=True)
    canvas = Rendered()
    assert env.draw(0, canvas)
    height, width = canvas.pixels().shape[:2]
    env.close()
    watch(policies(name), gif=tmp_path / "film.gif", environment=name, max_frames=2)
    assert film(tmp_path / "film.gif")[0] == (width, height) != (Canvas().width, Canvas().height)


def test_a_film_that_cannot_be_written(tmp_path):
    with pytest.raises(FilmError, match="cannot be written"):
        watch(policies("cartpole"), gif=tmp_path, environment="cartpole", max_frames=2)
