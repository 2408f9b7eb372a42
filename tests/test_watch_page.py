"""The page of `ridgeline watch RUN --web`: the game behind it, its server, and a browser that uses it."""

import base64
import http.client
import io
import json
import math
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from PIL import Image

import ridgeline
from ridgeline import components, loopback, watch_page
from ridgeline.algorithms.ppo import PPO
from ridgeline.distributions import Categorical, DiagonalGaussian, MultiCategorical
from ridgeline.evaluation import Player, watch
from ridgeline.film import FilmError
from ridgeline.session import Trained, load
from ridgeline.watch_page import Stage, describe_policy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1200,800")  # fmt: skip


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("watched") / "run"
    ridgeline.train("cartpole", PPO(num_envs=8, rollout_length=16), total_steps=256, num_threads=1, out=out)
    return out


@pytest.fixture
def trained(run_directory) -> Trained:
    return load(run_directory)


@pytest.fixture
def stage(trained):
    stage = Stage(lambda seed: Player(trained, 0, False, seed), 0, 200.0, "cartpole")
    yield stage
    stage.close()


@pytest.fixture
def server(stage):
    server = watch_page.serve(stage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


# --------------------------------------------------------------------------------------------------------------- stage


def test_frames_are_those_of_the_player(stage, trained):
    """One after the other, each with the policy's own value and probabilities."""
    assert stage.command({"pause": True}) == {"paused": True, "speed": 1.0}
    twin = Player(trained, 0, False, 0)
    for _ in range(12):
        frame = stage.next_frame(-1)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(frame["picture"]))))
        np.testing.assert_array_equal(pixels, twin.picture())
        assert (frame["step"], frame["episode_return"], frame["ended"]) == (twin.step, twin.episode_return, twin.ended)
        if not twin.ended:
            with torch.no_grad():
                distribution, value = trained.policies[0](torch.from_numpy(twin.env.observation))
            assert frame["policy"]["value"] == pytest.approx(value.item(), abs=1e-5)
            np.testing.assert_allclose(frame["policy"]["parts"][0], distribution.log_probs.exp()[0], atol=1e-6)
            assert frame["policy"]["names"] == ["pushes left", "pushes right"]
        stage.command({"step": True})
        twin.advance()
    twin.env.close()


def test_it_plays_while_somebody_looks(stage, monkeypatch):
    monkeypatch.setattr(watch_page, "LOOKING_SECONDS", 0.2)
    assert stage.number == 0
    first = stage.next_frame(-1)
    for _ in range(5):
        assert stage.next_frame(first["number"])["number"] > first["number"]
        first = stage.next_frame(first["number"])
    seen = [-1]
    while stage.number != seen[-1]:
        seen.append(stage.number)
        time.sleep(0.5)
        assert len(seen) < 20, "it goes on though nobody looks"


def test_pause_speed_and_restart(stage):
    stage.next_frame(-1)
    stage.command({"pause": True})
    number = stage.next_frame(-1)["number"]
    begin = time.monotonic()
    assert stage.next_frame(number)["number"] == number and time.monotonic() - begin > 0.5
    stage.command({"step": True})
    assert stage.next_frame(number)["number"] == number + 1
    assert stage.command({"speed": 8})["speed"] == 8.0
    stage.command({"restart": True})
    frame = stage.next_frame(-1)
    assert frame["step"] == 0 and frame["paused"] and stage.seed == 1
    stage.command({"pause": False})
    while not frame["finished"]:
        frame = stage.next_frame(frame["number"])
    assert frame["finished"][0] > 5


@pytest.mark.parametrize(
    "asked", [{}, {"speed": 3}, {"speed": "8"}, {"pause": 1}, {"fly": True}, {"step": 1, "pause": 1}]
)
def test_other_commands_are_refused(stage, asked):
    with pytest.raises(ValueError, match="send pause, speed"):
        stage.command(asked)


def test_rates_that_are_none(trained):
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(FilmError, match="use a positive number"):
            Stage(lambda seed: Player(trained, 0, False, seed), 0, rate, "")


def test_distributions_as_json():
    logits = torch.log(torch.tensor([[[0.2, 0.8, 0.5, 0.25, 0.25]]]))
    told = describe_policy(MultiCategorical(logits, (2, 3)), 1.5, spaces.MultiDiscrete([2, 3]), None)
    np.testing.assert_allclose(told["parts"][0], [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(told["parts"][1], [0.5, 0.25, 0.25], rtol=1e-6)
    assert told["value"] == 1.5
    space = spaces.Box(np.float32([-2, -np.inf]), np.float32([2, np.inf]))
    gaussian = DiagonalGaussian(torch.tensor([[[0.5, 1.0]]]), torch.zeros(1, 1, 2, requires_grad=True))
    told = describe_policy(gaussian, math.inf, space, None)
    assert told["mean"] == [0.5, 1.0] and told["std"] == [1, 1] and told["low"] == [-2, -3] and told["high"] == [2, 3]
    assert told["value"] is None and told["entropy"] == pytest.approx(math.log(2 * math.pi * math.e))
    masked = Categorical(torch.tensor([[[0.0, -math.inf]]]))
    assert json.loads(json.dumps(describe_policy(masked, 0, spaces.Discrete(2), None)))["parts"] == [[1, 0]]


# -------------------------------------------------------------------------------------------------------------- server


def test_the_server_shows_the_page_and_obeys(server, stage):
    assert server.server_address[0] == "127.0.0.1"
    status, page = ask(server, "GET", "/")
    assert status == 200 and "http" not in re.sub("http-equiv|http://www.w3.org/2000/svg", "", page)
    frame = json.loads(ask(server, "GET", "/frame.json?after=-1")[1])
    later = json.loads(ask(server, "GET", f"/frame.json?after={frame['number']}")[1])
    assert later["number"] > frame["number"] and later["policy"]["parts"]
    assert json.loads(ask(server, "POST", "/command", '{"pause": true}')[1]) == {"paused": True, "speed": 1.0}
    assert stage.paused
    assert ask(server, "GET", "/frame.json?after=x")[0] == 200
    for body in ("", "x", "[1]", '{"speed": 3}', '{"pause": 1}'):
        assert ask(server, "POST", "/command", body)[0] == 404
    assert ask(server, "POST", "/command", " " * 5000)[0] == 400
    assert ask(server, "GET", "/../config.json")[0] == 404 and ask(server, "POST", "/", "{}")[0] == 404


def test_it_is_for_this_machine(server, stage):
    port = server.server_port
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"127.0.0.1:{port}", "Origin": "http://evil.example"},
        {"Host": f"127.0.0.1:{port}", "Origin": "null"},
    ):
        assert ask(server, "GET", "/frame.json", **headers)[0] == 403
        assert ask(server, "POST", "/command", '{"pause": true}', **headers)[0] == 403
    assert not stage.paused
    own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert ask(server, "POST", "/command", '{"pause": true}', **own)[0] == 200
    with pytest.raises(loopback.PortError, match=r"cannot be used.*another --port"):
        loopback.serve({}, {}, port)


def test_the_command_serves_until_interrupted(run_directory):
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "ridgeline", "watch", str(run_directory), "--web"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/ shows .*Ctrl\+C ends it", line)
        assert found, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        connection.request("GET", "/frame.json?after=-1")
        assert json.loads(connection.getresponse().read())["title"] == "cartpole after 256 steps"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.communicate()


# ------------------------------------------------------------------------------------------------------------- browser


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_browser_shows_it_and_its_buttons_work(stage, tmp_path):
    gets, posts = watch_page.answers(stage)
    page = gets["/"]({})[1].decode()
    script = Path(__file__).with_name("watch_actions.js").read_text(encoding="utf-8")
    page = page.replace("</body>", f"<script type='module'>{script}</script></body>")
    said: list[str] = []
    heard = threading.Event()

    def hear(body):
        said.append(body["said"])
        heard.set()
        return "application/json", b"{}"

    server = loopback.serve(gets | {"/": lambda query: ("text/html", page.encode())}, posts | {"/said": hear})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stage.rate = 30.0
    address = f"http://127.0.0.1:{server.server_port}/"
    browser = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'browser'}", "--remote-debugging-port=0", address],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert heard.wait(90), "the page never answered"
    finally:
        browser.terminate()
        browser.wait()
        server.shutdown()
        server.server_close()
    for expected in (
        "runs true", "picture 480x360, title cartpole", "actions 0 pushes left|1 pushes right, best 1", "percent 100",
        "value true, entropy 0.6", "pauses true", "stands still true", "steps once true", "speed true", "anew true",
        "an end true", "episodes true, wide false",
    ):  # fmt: skip
        assert expected in said[0], said[0]
    assert "error" not in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ridgeline.names())
def test_every_environment_can_be_watched(name, tmp_path):
    """An untrained policy in each: a film, the terminal, the page."""
    env = ridgeline.make(name, 1)
    policy = components.find("policy", components.default_policy(env.observation_space))()
    module = policy.build(env.observation_space, env.action_space)
    watch(module, environment=name, gif=tmp_path / "film.gif", max_frames=4)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size[0] >= 100
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    watch(module, environment=name, out=out, max_frames=2, frames_per_second=100)
    assert "▀" in out.getvalue()
    player = Player(Trained(policies=[module], trained_on=name), 0, False, 0)
    stage = Stage(lambda seed: player, 0, None, name)
    try:
        stage.command({"step": True})
        policy = stage.next_frame(-1)["policy"]
        assert policy is None or "value" in policy
        json.dumps(policy, allow_nan=False)
    finally:
        stage.close()
