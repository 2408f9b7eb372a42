"""`ridgeline compare`: the file, the runs that are missing, the choice, the verdict."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ridgeline import cli, comparison_runs, statistics
from ridgeline.compare_command import Progress, lines
from ridgeline.comparison import Comparison, _pair, analyse, command, read_result, run, verdict
from ridgeline.comparison_runs import Cell, Interrupted, Population, Records, Runner, populations, resample
from ridgeline.comparison_spec import SpecError, read
from ridgeline.session import View
from ridgeline.sweep.database import LedgerError
from ridgeline.training import Training

SPEC = """
steps = 96
seeds = 3
tuning_seeds = 2
episodes = 2
[settings]
num_envs = 4
rollout_length = 8
num_epochs = 1
hidden_sizes = [8]

[environments.short]
environment = "corridor"
parameters = {length = 4}
best = -4
random = -18

[environments.cartpole]
best = 500
steps = 64

[arms.gae]
settings = {gamma = 0.9}

[arms.single]
grid = {gamma = [0.9, 0.99]}
choose = "one"

[arms.oracle]
grid = {gamma = [0.9, 0.99]}
choose = "each"
"""


def spec(folder: Path, text: str = SPEC):
    path = folder / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return read(path)


def make(folder: Path, text: str = SPEC, stop=None) -> tuple[Comparison, Runner]:
    given = spec(folder, text)
    (folder / "out" / "populations").mkdir(parents=True, exist_ok=True)
    comparison = Comparison(given, folder / "out")
    return comparison, Runner(given, folder / "out", comparison.records, View(), 1, stop)


# ------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps = 96", "steps = 0", "steps = 0; give a whole number from 1"),
        ("steps = 96", "step = 96", "unknown key 'step'; did you mean steps"),
        ("best = 500", "", "environments.cartpole has no best: give the best known return"),
        ("random = -18", "random = -3", "best = -4 is not above random = -3; scores would be upside down"),
        ("seeds = 3", "seeds = 3\nfirst_seed = 1", "seed 1 is a tuning seed and an evaluation seed.*first_seed to 2"),
        ("seeds = 3", 'seeds = 3\nscore = "best"', "score = 'best'; there are final, evaluation, area"),
        ('choose = "one"', "", 'a grid or a sweep and choose = "one" or "each" go together'),
        ('choose = "one"', 'choose = "two"', "choose = 'two'; use one"),
        ("gamma = 0.9}", "gama = 0.9}", "arm 'gae': none of ppo, gae, mlp has a setting 'gama'; did you mean gamma"),
        ("gamma = 0.9}", "gamma = 1.9}", "arm 'gae': gamma"),
        ("gamma = 0.9}", 'gamma = "x"}', "arm 'gae': gamma = 'x' is no float"),
        ("gamma = [0.9, 0.99]", "gamma = 0.9", "arms.single.grid.gamma = 0.9; give a list"),
        (
            "[arms.gae]\nsettings",
            '[arms.gae]\nestimator = "gea"\nsettings',
            "unknown estimator 'gea'; did you mean gae",
        ),
        (
            "[arms.gae]\nsettings",
            "[arms.gae]\ngamma = 1\nsettings",
            "unknown key 'gamma'.*a table of their own, settings",
        ),
        ("steps = 96", "steps = ", "spec.toml is no TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, old, new, message):
    assert old in SPEC
    with pytest.raises(SpecError, match=message) as caught:
        spec(tmp_path, SPEC.replace(old, new, 1))
    assert "\n" not in str(caught.value) and "spec.toml" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(SpecError, match=r"No such file.*name the TOML file"):
        read(tmp_path / "none.toml")


def test_random_play_must_be_random_play(tmp_path):
    with pytest.raises(SpecError, match=r"random = -30, but random play gives -18.34 here; leave random away"):
        make(tmp_path, SPEC.replace("random = -18", "random = -30"))
    with pytest.raises(SpecError, match=r"best = 20 is not above random play, 2\d"):
        make(tmp_path, SPEC.replace("best = 500", "best = 20"))


# ---------------------------------------------------------------------------------------------------------- populations


def test_what_shares_a_population(tmp_path):
    """Runs that differ in floating-point settings or seeds do; in anything else not; equal runs are one."""
    comparison, _ = make(tmp_path)
    tuning = comparison.tuning()
    assert len(tuning) == 2 * 2 * 2 * 2  # arms, settings, seeds, environments
    sizes = {population.cells[0].task.name: len(population.cells) for population in populations(tuning)}
    assert sizes == {"short": 4, "cartpole": 4}  # both arms have one grid
    task, seed = comparison.spec.tasks[0], 0

    def cell(**settings):
        return Cell(task, "", comparison.spec.arms[0].build(task, settings), seed, "tuning")

    assert cell().mates == cell(gamma=0.5, learning_rate=1e-4).mates and cell().key != cell(gamma=0.5).key
    for other in ({"num_epochs": 2}, {"hidden_sizes": [16]}, {"optimizer": "muon"}, {"target_kl": 0.1}):
        assert cell().mates != cell(**other).mates, other


def test_large_groups_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison_runs, "MAX_RUNS", 3)
    comparison, _ = make(tmp_path)
    assert [len(population.cells) for population in populations(comparison.tuning())] == [2, 2, 2, 2]


def test_resample():
    steps, values = np.array([10.0, 20.0, 30.0, 40.0]), np.array([np.nan, 1.0, 2.0, 3.0])
    curve = resample(steps, values, 40)
    assert curve[0] == curve[49] == 1.0 and curve[74] == 2.0 and curve[73] == 1.0 and curve[99] == 3.0
    assert np.isnan(resample(steps, np.full(4, np.nan), 40)).all()


# ---------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The comparison above, run to its end."""
    folder = tmp_path_factory.mktemp("comparison")
    comparison, runner = make(folder)
    document = run(comparison, runner)
    return folder, comparison, document


def without_seconds(folder: Path) -> list[dict]:
    text = (folder / "out" / "runs.jsonl").read_text(encoding="utf-8")
    dropped = {"seconds", "population"}
    return [{k: v for k, v in json.loads(line).items() if k not in dropped} for line in text.splitlines()]


def test_the_result_is_whole(finished):
    folder, comparison, document = finished
    assert document["seeds"] == {"tuning": [0, 1], "evaluation": [1000, 1001, 1002]}
    arms = document["arms"]
    assert [arms[name]["tuning"]["runs"] for name in arms] == [0, 8, 8]
    single = [entry["settings"] for entry in arms["single"]["environments"].values()]
    assert single[0] == single[1] and single[0]["gamma"] in (0.9, 0.99)
    for arm in arms.values():
        assert arm["iqm"][1] <= arm["iqm"][0] <= arm["iqm"][2]
        assert len(arm["curve"][0]) == len(document["points"]) == 100
        assert len(arm["profile"][0]) == len(document["thresholds"])
    assert len(document["pairs"]) == 3 and document["winner"] is None
    assert read_result(folder / "out")["verdict"] == document["verdict"] != ""
    text = "\n".join(lines(document))
    assert "optimality gap" in text and "gamma 0.9" in text and document["verdict"] in text
    assert comparison.records.runs.keys() == Records(folder / "out").runs.keys()
    assert (folder / "out" / "spec.toml").read_text(encoding="utf-8") == SPEC


def test_a_run_is_what_it_is_alone(finished):
    """Same bits as a training of its own, whatever shared its population."""
    _, comparison, _ = finished
    task = comparison.spec.tasks[1]
    cell = next(c for c in comparison.tuning() if c.task == task and c.seed == 1 and c.made["estimator"].gamma == 0.99)
    alone = Training(task.environment, **cell.made, total_steps=task.steps, seed=[cell.seed], num_threads=1)
    while not alone.finished:
        metrics = alone.iterate()
    alone.close()
    kept = comparison.records.runs[cell.key]
    assert kept["final"] == pytest.approx(metrics["episode_return"][0], rel=1e-5)
    assert kept["kind"] == "tuning" and kept["steps"] == 64 and kept["settings"]["estimator"]["gamma"] == 0.99


def test_nothing_is_run_twice(finished, monkeypatch):
    folder, _, document = finished
    comparison, runner = make(folder)

    def forbidden(*arguments, **settings):
        raise AssertionError("a run that is on disk was run again")

    monkeypatch.setattr(comparison_runs, "train", forbidden)
    again = run(comparison, runner)
    assert again["arms"]["gae"]["iqm"] == document["arms"]["gae"]["iqm"]
    more = SPEC.replace("seeds = 3", "seeds = 4")
    comparison, runner = make(folder, more)
    assert [len(p.cells) for p in runner.missing(comparison.evaluation())] == [1, 1]  # the fourth seed only
    spec(folder)


def test_an_interrupted_comparison_ends_like_an_uninterrupted_one(finished, tmp_path):
    """Stopped again and again, after each iteration; and half a record, as a full disk would leave it, is no record."""
    for interruption in range(100):
        comparison, runner = make(tmp_path, stop=lambda: "interrupt")
        try:
            run(comparison, runner)
            break
        except Interrupted:
            for record in list((tmp_path / "out" / "populations").glob("*/record.json"))[:1]:
                if interruption == 3:
                    record.write_text(record.read_text()[:100])
    assert interruption > 5
    assert without_seconds(tmp_path) == without_seconds(finished[0])


def test_a_failed_run_counts_as_random_play(finished):
    _, comparison, _ = finished
    arm, task = comparison.spec.arms[0], comparison.spec.tasks[1]
    cell = comparison.cells(arm, task, {}, "evaluation")[0]
    kept = comparison.records.runs[cell.key]
    try:
        comparison.records.runs[cell.key] = kept | {"failure": "loss is not finite", "final": 400.0}
        assert comparison.value(cell) == comparison.random["cartpole"]
        assert analyse(comparison)["arms"]["gae"]["failures"] == ["cartpole seed 1000: loss is not finite"]
        comparison.records.runs[cell.key] = kept | {"final": None}
        assert comparison.value(cell) == comparison.random["cartpole"]
        assert comparison.why(comparison.records.runs[cell.key]) == "no episode ended"
    finally:
        comparison.records.runs[cell.key] = kept


def test_a_seed_that_chose_may_not_judge(finished, monkeypatch):
    """The ledger knows what each seed was for: neither another file nor an altered record gets past it."""
    _, comparison, _ = finished
    assert comparison.records.seeds() == {"tuning": [0, 1], "evaluation": [1000, 1001, 1002]}
    with pytest.raises(LedgerError, match="seed 1 is for tuning"):
        comparison.records._enter(
            [comparison.records.runs[comparison.tuning()[0].key] | {"seed": 1, "kind": "evaluation", "trial": "x"}]
        )
    cell = comparison.evaluation()[0]
    monkeypatch.setitem(comparison.records.runs, cell.key, comparison.records.runs[cell.key] | {"seed": 1})
    with pytest.raises(SpecError, match=r"the ledger does not have seeds \[1\] as evaluation seeds"):
        analyse(comparison)


def test_the_ledger_has_every_run(finished):
    """Once each, with scores and curves; opening the directory again changes nothing."""
    folder, comparison, _ = finished
    for records in (comparison.records, Records(folder / "out")):
        trials = records.ledger.trials(records.study)
        runs = {(trial.configuration["trial"], run.seed): run for trial in trials for run in trial.runs}
        assert len(runs) == sum(len(trial.runs) for trial in trials) == len(comparison.records.runs)
        for kept in comparison.records.runs.values():
            run = runs[kept["trial"], kept["seed"]]
            assert (run.state, run.score, run.kind) == ("finished", kept["final"], kept["kind"])
        assert {len(curve) for curve in records.ledger.points(records.study).values()} == {64, 96}  # of 100 points


def test_the_choice(finished, monkeypatch):
    """Returns by hand: 0.99 is far better on cartpole and a little worse on the corridor."""
    _, comparison, _ = finished
    single, oracle = comparison.spec.arms[1:]
    returns = np.array([[[-20.0, 30.0], [-22.0, 31.0]], [[-21.0, 400.0], [-24.0, 300.0]]])
    monkeypatch.setattr(comparison, "tuning_returns", lambda arm: returns)
    monkeypatch.setattr(comparison, "chosen", {})
    comparison.choose()
    # places: corridor .875, .375 | .625, .125; cartpole .125, .375 | .875, .625: means .4375 and .5625
    assert {one["gamma"] for one in comparison.chosen["single"].values()} == {0.99}
    assert comparison.chosen["oracle"] == {"short": {"gamma": 0.9}, "cartpole": {"gamma": 0.99}}
    assert comparison.settings(oracle, comparison.spec.tasks[0]) == {"gamma": 0.9}
    assert single.candidates() == [{"gamma": 0.9}, {"gamma": 0.99}]


def test_commands_are_exact(finished):
    _, comparison, document = finished
    said = document["arms"]["gae"]["environments"]["short"]["command"]
    assert said == (
        "ridgeline train corridor --runs 3 --seed 1000 --steps 96 --num-envs 4 --rollout-length 8 "
        "--num-epochs 1 --gamma 0.9 --hidden-sizes 8 --environment.length 4"
    )
    parsed = cli.parse(cli.options.Train, said.split()[2:], "ridgeline train", components=True)
    task, arm = comparison.spec.tasks[0], comparison.spec.arms[0]
    assert {kind: getattr(parsed, kind) for kind in ("algorithm", "estimator", "policy")} == arm.build(task, {})
    assert command(task, arm.build(task, {}), (1, 2)).endswith("--hidden-sizes 8 --environment.length 4")


# ------------------------------------------------------------------------------------------------------------- verdicts


def judged(scores: dict[str, np.ndarray]) -> dict:
    names = list(scores)
    pairs = [_pair(a, b, scores) for place, a in enumerate(names) for b in names[place + 1 :]]
    arms = {name: {"iqm": [float(statistics.iqm(one)), 0, 0]} for name, one in scores.items()}
    return verdict({"arms": arms, "pairs": pairs}) | {"pairs": pairs}


def test_a_winner_beats_every_other_arm():
    generator = np.random.default_rng(0)
    weak, good, best = (generator.normal(centre, 0.05, (8, 4)) for centre in (0.3, 0.6, 0.8))
    found = judged({"weak": weak, "best": best, "good": good})
    assert found["winner"] == "best" and found["verdict"] == "best is better than every other arm"
    assert [pair["better"] for pair in found["pairs"]] == ["best", "good", "best"]
    found = judged({"weak": weak, "good": good, "like it": good + generator.normal(0, 0.05, good.shape)})
    assert found["winner"] is None and "to see a difference of 10%, use" in found["verdict"]


def test_seeds_needed_to_see_a_tenth():
    """Two arms of standard deviation s on one environment: 15.7 (s / (IQM / 10))^2, about."""
    generator = np.random.default_rng(1)
    pair = _pair("a", "b", {"a": generator.normal(1, 0.2, (100, 1)), "b": generator.normal(1, 0.2, (100, 1))})
    assert pair["runs_needed"] == pytest.approx(15.7 * (0.2 / 0.1) ** 2 * 1.2, rel=0.25)  # the IQM's variance: 1.2 s^2


def test_equal_and_single_runs_have_no_winner():
    scores = np.random.default_rng(2).random((5, 2))
    pair = _pair("a", "b", {"a": scores, "b": scores}, same=True)
    arms = {name: {"iqm": [0.5, 0.4, 0.6]} for name in "ab"}
    assert verdict({"arms": arms, "pairs": [pair]})["verdict"] == "no winner: a and b are the same runs"
    found = judged({"a": scores[:1], "b": scores[1:2]})
    assert found["winner"] is None and "one seed tells nothing" in found["verdict"]
    assert found["pairs"][0]["runs_needed"] is None and math.isinf(found["pairs"][0]["iqm"][1])


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command(finished, capsys):
    folder, _, document = finished
    out = ["--out", str(folder / "out"), "--threads", "1", "--json"]
    assert cli.main(["compare", str(folder / "spec.toml"), *out]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["arms"]["gae"]["iqm"] == pytest.approx(document["arms"]["gae"]["iqm"])
    assert "are there" in said.err and document["verdict"] in said.err
    assert cli.main(["compare", str(folder / "none.toml"), *out]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_stops_and_goes_on(tmp_path, capsys):
    """No time at all: every population stops after one iteration; the message says how to go on."""
    spec(tmp_path)
    arguments = ["compare", str(tmp_path / "spec.toml"), "--out", str(tmp_path / "out"), "--threads", "1", "--quiet"]
    assert cli.main([*arguments, "--minutes", "0"]) == 0
    assert "stopped (minutes); the same command goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()


def test_progress_is_shown_now_and_then(capsys):
    view = Progress(sys.stdout)
    view.plan(1000)
    view.num_runs, view.first = 2, 0
    view.update({"steps": 100})
    view.update({"steps": 110})
    view.finish(None)
    assert capsys.readouterr().out.startswith(" 20%  0:00 passed") and view.before == 220
    assert isinstance(Population([]).cells, list)


@pytest.mark.parametrize("name", ["small", "one_configuration"])
def test_the_studies_can_be_read(name):
    path = Path(__file__).parents[1] / "studies" / f"{name}.toml"
    given = read(path)
    assert len(given.seeds) >= 8 and len(given.arms) > 3
    page = (path.parents[1] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert name != "small" or path.read_text(encoding="utf-8") in page


@pytest.mark.slow  # worker processes
def test_an_arm_tuned_by_a_sweep(tmp_path):
    """A sweep per environment with the sampler that needs no library; its best setting is run on fresh seeds."""
    text = SPEC[: SPEC.index("[environments.cartpole]")] + '[arms.swept]\nchoose = "each"\n[arms.swept.sweep]\n'
    text += 'trials = 2\ncandidates = 1\nfresh_seeds = 2\nsampler = "random"\n'
    comparison, runner = make(tmp_path, text)
    document = run(comparison, runner)
    arm = document["arms"]["swept"]
    assert arm["tuning"]["runs"] == 2 * 2 + 2 and arm["tuning"]["steps"] == 6 * 96
    settings = arm["environments"]["short"]["settings"]
    assert "gamma" in settings and "learning_rate" in settings and "num_envs" not in settings
    assert document["seeds"] == {"tuning": [0, 1, 1_000_000, 1_000_001], "evaluation": [1000, 1001, 1002]}
    comparison, runner = make(tmp_path, text)
    assert run(comparison, runner)["arms"]["swept"]["iqm"] == arm["iqm"]  # nothing was run again


@pytest.mark.slow  # processes that are killed
def test_kill_9_loses_no_finished_run(finished, tmp_path):
    """Killed whenever another population is complete, until one goes through: the same runs as without."""
    spec(tmp_path)
    command = [sys.executable, "-m", "ridgeline", "compare", "spec.toml", "--out", "out", "--threads", "1", "--quiet"]
    records = tmp_path / "out" / "populations"
    kills = 0
    while kills < 20:
        before = len(list(records.glob("*/record.json")))
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(records.glob("*/record.json"))) <= before:
            time.sleep(0.02)
        process.kill()
        if process.wait() == 0:
            break
        kills += 1
        assert len(list(records.glob("*/record.json"))) > before, "a kill lost what was complete"
    assert kills >= 3 and without_seconds(tmp_path) == without_seconds(finished[0])


def test_the_study_says_what_its_data_say():
    """The page of the first study has what the command prints of the numbers that are kept, and they are whole."""
    root = Path(__file__).parents[1]
    page = (root / "docs" / "one_configuration.md").read_text(encoding="utf-8")
    kept = root / "studies" / "one_configuration"
    result = read_result(kept)
    assert "\n".join(lines(result)) in page
    runs = [json.loads(line) for line in (kept / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({run["key"] for run in runs}) == len(runs) == 1075
    wanted = read(root / "studies" / "one_configuration.toml")
    assert [arm.name for arm in wanted.arms] == list(result["arms"]) and len(wanted.seeds) == 10
    by_arm = [run for run in runs if run["components"]["estimator"] == "adaptive_mixture"]
    for task, entry in result["arms"]["adaptive mixture"]["environments"].items():
        scores = [run["area"] for run in by_arm if run["environment"] == task]
        assert len(scores) == 10 and np.mean(scores) == pytest.approx(entry["return"][0])
