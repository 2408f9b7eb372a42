"""The pages of `ridgeline report` and `ridgeline board`: their numbers, and that a browser draws them."""

import http.client
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from test_comparison import SPEC, make

import ridgeline
from ridgeline import board, cli, report, report_runs, report_sections, statistics
from ridgeline.algorithms.ppo import PPO
from ridgeline.comparison import run
from ridgeline.loopback import PortError
from ridgeline.policies import MLP
from ridgeline.sweep import conduct
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.records import Run, Trial

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=3000",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """runs/one, a run directory; compare, a comparison; sweep, a sweep of 30 trials."""
    folder = tmp_path_factory.mktemp("report")
    algorithm = PPO(num_envs=4, rollout_length=16, num_epochs=1)
    ridgeline.train(
        "cartpole", algorithm, policy=MLP(hidden_sizes=(8,)), total_steps=640, num_runs=3, seed=5, num_threads=1,
        out=folder / "runs" / "one",
    )  # fmt: skip
    comparison, runner = make(folder, SPEC.replace("seeds = 3", "seeds = 2"))
    run(comparison, runner)
    (folder / "out").rename(folder / "compare")
    sweep(folder / "sweep")
    return folder


def sweep(folder) -> None:
    """Score rises with the learning rate and not with gamma; the two best trials are judged again, and are worse."""
    ledger, generator = Ledger(folder / conduct.LEDGER), np.random.default_rng(0)
    (folder / conduct.FILE).write_text(json.dumps({"storage": None, "study": "walk"}), encoding="utf-8")
    study = ledger.create_study("walk", "sweep", {"environment": "cartpole", "trials": 30})
    rates = 10 ** generator.uniform(-4, -2, 30)
    settings = [
        {"learning_rate": float(rate), "gamma": 0.9 + 0.01 * (i % 5), "activation": "tanh"}
        for i, rate in enumerate(rates)
    ]
    numbers = ledger.add_trials(study, [Trial(-1, one, 1000, "", "tpe") for one in settings], [0, 1])
    ledger.claim(study, "worker", 1000, 60.0)
    scores = 100 * (np.log10(rates) + 4)
    seconds = generator.uniform(1, 2, 30)
    runs = [
        Run(trial, seed, "tuning", "finished", float(scores[trial] + seed), 1000, float(seconds[trial]))
        for trial in numbers[:-1] for seed in (0, 1)
    ]  # fmt: skip
    runs += [Run(numbers[-1], seed, "tuning", "pruned", 1.0, 400, 0.5, "hopeless") for seed in (0, 1)]
    points = [
        (trial, seed, step, float(scores[trial] * step / 1000), 0.1)
        for trial in numbers
        for seed in (0, 1)
        for step in (500, 1000)
    ]
    ledger.finish(study, "worker", runs, points)
    for trial in np.argsort(-scores[:-1])[:2].tolist():
        ledger.add_runs(study, trial, [100, 101, 102], "evaluation")
        ledger.claim(study, "worker", 3, 60.0)
        ledger.finish(
            study,
            "worker",
            [
                Run(trial, seed, "evaluation", "finished", float(scores[trial] - 20), 1000, 1.0)
                for seed in (100, 101, 102)
            ],
        )
    ledger.close()


def sections(document: dict, kind: str) -> list[dict]:
    return [section for section in document["sections"] if section["kind"] == kind]


# -------------------------------------------------------------------------------------------------------------- numbers


def test_the_page_of_a_run(folder):
    document = report.document(folder / "runs" / "one")
    [first, metrics] = sections(document, "curves")
    [series] = first["panels"][0]["series"]
    assert series["x"] == list(range(64, 641, 64)) and len(series["runs"]) == 3
    last = [run[-1] for run in series["runs"]]
    assert series["mean"][-1] == pytest.approx(statistics.iqm(np.array(last)[:, None]), rel=1e-4)
    assert series["low"][-1] <= series["mean"][-1] <= series["high"][-1]
    assert {"entropy", "policy_loss", "learning_rate"} <= {panel["title"] for panel in metrics["panels"]}
    commands = dict(sections(document, "commands")[0]["items"])
    again = commands["train the same again"].split()
    expected = "--runs 3 --seed 5 --steps 640 --num-envs 4 --rollout-length 16 --num-epochs 1 --hidden-sizes 8"
    assert again == ["ridgeline", "train", "cartpole", *expected.split()]
    parsed = cli.parse(cli.options.Train, again[2:], "ridgeline train", components=True)
    assert parsed.policy == MLP(hidden_sizes=(8,))


def test_commands_of_runs_that_differ():
    """One for each setting whose seeds follow on; what is a default is not said."""
    gae = {"gamma": 0.99, "gae_lambda": 0.95, "truncation_as_termination": False}
    config = {
        "environment": "delayed", "parameters": {"delay": 16}, "seeds": [0, 1, 7, 0], "total_steps": 10,
        "algorithm": {"name": "ppo", "fields": {}}, "policy": {"name": "mlp", "fields": {"shared_trunk": True}},
        "estimator": {"name": "gae", "fields": [gae, gae, gae, gae | {"gamma": 0.9}]},
    }  # fmt: skip
    assert ridgeline.run_directory.train_commands(config) == [
        "ridgeline train delayed --runs 2 --seed 0 --steps 10 --shared-trunk --environment.delay 16",
        "ridgeline train delayed --runs 1 --seed 7 --steps 10 --shared-trunk --environment.delay 16",
        "ridgeline train delayed --runs 1 --seed 0 --steps 10 --gamma 0.9 --shared-trunk --environment.delay 16",
    ]


def test_the_page_of_a_comparison(folder):
    document = report.document(folder / "compare")
    result = json.loads((folder / "compare" / "result.json").read_text(encoding="utf-8"))
    assert document["verdict"] == result["verdict"]
    [forest] = sections(document, "forest")
    assert [row["name"] for row in forest["rows"]] == ["gae", "single", "oracle"]
    assert forest["rows"][1]["values"][0] == report_sections.rounded(result["arms"]["single"]["iqm"])
    tables = {section["title"]: section for section in sections(document, "table")}
    assert [row[0] for row in tables["Returns"]["rows"]] == ["gae", "single", "oracle", "random play", "best known"]
    assert tables["Cost"]["rows"][2][2] == 8 and len(tables["Pairs"]["rows"]) == 3
    assert len(sections(document, "parallel")) == 1  # both arms have one grid; two settings have no importance
    assert len(sections(document, "commands")[0]["items"]) == 1 + 3 * 2


def test_the_page_of_a_sweep(folder):
    document = report.document(folder / "sweep")
    [front], [bars], [parallel] = (sections(document, kind) for kind in ("front", "bars", "parallel"))
    assert len(front["trials"]) == 30 and len(parallel["trials"]) == 29  # the one that was stopped has no score
    best = max((trial for trial in front["trials"] if trial["y"] is not None), key=lambda trial: trial["y"])
    assert best["front"] and ["state", "finished"] in best["rows"]
    assert (
        bars["rows"][0]["name"] == "learning_rate" and bars["rows"][0]["value"] > 0.7 > 0.2 > bars["rows"][1]["value"]
    )
    varying = {"learning_rate", "gamma", "seconds of a run", "score"}
    assert {one["name"] for one in parallel["dimensions"]} == varying
    judged = next(section for section in document["sections"] if section["title"] == "The best, judged again")
    assert [round(row[1] - row[2], 3) for row in judged["rows"]] == [20.5, 20.5] and judged["rows"][0][3] == 3
    assert [tile for tile in document["tiles"] if tile[0] == "stopped early"] == [["stopped early", "1"]]


def test_the_page_of_a_folder(folder, tmp_path):
    document = report.document(folder / "runs")
    assert document["subtitle"] == "1 run directories" and sections(document, "table")[0]["rows"][0][0] == "one"
    with pytest.raises(report.ReportError, match="holds no run, sweep or comparison"):
        report.document(tmp_path)
    with pytest.raises(report.ReportError, match="is no directory; name one"):
        report.document(tmp_path / "none")
    (tmp_path / "begun" / "populations").mkdir(parents=True)
    with pytest.raises(report.ReportError, match="has only begun"):
        report.document(tmp_path / "begun")


def test_metrics_without_numbers():
    """Before the first episode has ended, and of a run that froze."""
    lines = [
        {"iteration": i, "steps": 10 * i, "episode_return": [None, 1.0 * i], "entropy": [None, None]} for i in (1, 2)
    ]
    first, second = report_runs.metric_panels(lines, 2)
    assert first["series"][0]["mean"] == [None, None] and first["series"][0]["runs"] == [[None, None], [1.0, 2.0]]
    assert second["title"] == "entropy" and report_runs.metric_panels([], 2) == []


def test_importance_by_hand():
    """Groups {0: 1, 3} and {1: 5, 7}: variance within 4 / 2, in all 20 / 3; a setting that changes nothing has 0."""
    assert statistics.importance([0, 0, 1, 1], [1, 3, 5, 7]) == pytest.approx(1 - 2 / (20 / 3))
    assert statistics.importance([0, 1, 0, 1], [1, 1, 5, 5]) == 0.0
    assert np.isnan(statistics.importance([1, 1, 1], [1, 2, 3]))
    generator = np.random.default_rng(0)
    x = generator.uniform(size=400)
    assert statistics.importance(x, (x - 0.5) ** 2) > 0.6 > 0.05 > statistics.importance(x, generator.normal(size=400))


# ----------------------------------------------------------------------------------------------------------- one file


def test_the_file_is_whole_in_itself(folder):
    """No address is asked: nothing is loaded, and the page's own policy forbids it."""
    assert cli.main(["report", str(folder / "compare")]) == 0
    page = (folder / "compare" / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"')]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "default-src 'none'" in page and "connect-src 'none'" in page and not re.findall(r"(?:src|href)=", page)
    assert "{{" not in page and page.count("<script") == 2


def test_names_cannot_leave_the_data():
    page = report.render({"title": "</script><script>alert(1)</script>", "sections": []})
    assert "alert(1)</script>" not in page and page.count("<script") == 2
    data = re.search(r'<script type="application/json" id="document">(.*?)</script>', page, re.S)
    assert data is not None and json.loads(data[1])["title"] == "</script><script>alert(1)</script>"


def browse(address: str, tmp_path, *more: str) -> str:
    """The page as the browser has it when its scripts have run."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *more, "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


ACTIONS = Path(__file__).with_name("report_actions.js")


def played(page: str, tmp_path, *more: str) -> str:
    path = tmp_path / "page.html"
    path.write_text(
        page.replace("</body>", f"<script>{ACTIONS.read_text(encoding='utf-8')}</script></body>"), encoding="utf-8"
    )
    found = re.search(r'<pre id="said">(.*?)</pre>', browse(path.as_uri(), tmp_path, *more), re.S)
    assert found is not None, "the page's script failed"
    return found[1]


@in_browser
def test_a_browser_draws_the_comparison(folder, tmp_path):
    said = played(report.render(report.document(folder / "compare")), tmp_path)
    assert "error" not in said
    assert "cards forest,curves,curves,curves,table,table,table,parallel,table,commands" in said
    assert "smoothed true" in said and "hidden 1" in said and "rows 3, wide false" in said
    assert "forest tip: gaeIQM" in said and "95% interval" in said and "parallel tip: setting" in said
    assert "brush 1, left 1" in said


@in_browser
def test_a_browser_draws_the_sweep(folder, tmp_path):
    said = played(report.render(report.document(folder / "sweep")), tmp_path, "--window-size=420,900")
    assert "error" not in said and "wide false" in said
    assert re.search(r"front tip: trial \d+score[\d.]+seconds[\d.]+statefinishedlearning_rate", said)


# ---------------------------------------------------------------------------------------------------------------- board


@pytest.fixture(scope="module")
def server(folder):
    server = board.serve(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_the_board_lists_and_shows(server, folder):
    assert server.server_address[0] == "127.0.0.1"
    status, text = ask(server, "/list.json")
    entries = {entry["path"]: entry for entry in json.loads(text)["entries"]}
    assert status == 200 and {"runs/one", "compare", "sweep"} == entries.keys() and entries["runs/one"]["live"]
    assert entries["runs/one"]["text"] == "run, 640 steps, live"
    for path in entries:
        status, text = ask(server, f"/page.json?path={path}")
        document = report.document(folder / path)
        assert status == 200 and [s["title"] for s in json.loads(text)["sections"]] == [
            s["title"] for s in document["sections"]
        ]
    assert ask(server, "/")[0] == 200


def test_the_board_is_for_this_machine(server, folder):
    """Not for a page that has another name for it, nor for a path that leads out."""
    port = server.server_port
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"127.0.0.1:{port}", "Origin": "http://evil.example"},
    ):
        assert ask(server, "/list.json", **headers)[0] == 403
    assert ask(server, "/list.json", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200
    for path in ("../", "/etc", "runs/../../"):
        assert ask(server, f"/page.json?path={path}")[0] == 404
    assert ask(server, "/../../etc/passwd")[0] == 404
    with pytest.raises(PortError, match=r"cannot be used.*another --port"):
        board.serve(folder, port)


def test_the_board_renews(server, folder):
    before = ask(server, "/page.json?path=runs/one")[1]
    metrics = folder / "runs" / "one" / "metrics.jsonl"
    kept = metrics.read_bytes()
    try:
        line = json.loads(kept.splitlines()[-1]) | {"iteration": 11, "steps": 704}
        metrics.write_bytes(kept + json.dumps(line).encode() + b"\n" + b'{"half')
        after = ask(server, "/page.json?path=runs/one")[1]
        assert before != after and '"704"' in after
    finally:
        metrics.write_bytes(kept)


@in_browser
def test_a_browser_shows_the_board(server, tmp_path):
    page = browse(f"http://127.0.0.1:{server.server_port}/#sweep", tmp_path)
    assert "<h1>walk</h1>" in page and page.count("trial") > 30 and "runs/one" in page


def test_the_numbers_of_a_comparison_are_enough_for_its_page():
    """Where its populations were not kept."""
    assert report.kind_of(Path(__file__).parents[1] / "studies" / "one_configuration") == "comparison"
