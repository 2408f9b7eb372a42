"""Sweeps: what is suggested, stopped, widened and recommended, and that every run is what it is alone."""

import dataclasses
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from test_sweep_space import MADE

from ridgeline import cli
from ridgeline.algorithms.ppo import PPO
from ridgeline.estimators.gae import GAE
from ridgeline.policies import MLP
from ridgeline.run_directory import describe
from ridgeline.sweep import outcome, plan, space
from ridgeline.sweep.ledger import Ledger
from ridgeline.sweep.plan import Plan, Planner, edges, hopeless
from ridgeline.sweep.ranges import choice, linear, log, whole
from ridgeline.sweep.records import Claim, Run, Trial
from ridgeline.sweep.sampler import suggest, values
from ridgeline.sweep.space import Space
from ridgeline.sweep.trainer import Trainer
from ridgeline.sweep.worker import Worker, components_of

SMALL = PPO(num_envs=4, rollout_length=8, num_minibatches=2, num_epochs=2)


# ------------------------------------------------------------------------------------------------- runs in freed places


def train(claims, places, growth=()) -> dict[tuple[int, int], tuple[Run, list]]:
    """All claims, `places` at a time, in one population; (trial, seed) -> how it ended, its curve. `growth`: how many
    more places there are after so many iterations."""
    made = {"estimator": GAE(), "policy": MLP(hidden_sizes=(8,))}

    def build(configuration):
        return made | {"algorithm": dataclasses.replace(SMALL, **configuration)}

    trainer = Trainer("cartpole", {}, build, "episode_return", 320)
    waiting, found, points, sizes = list(claims), {}, {}, []
    for iteration in range(10_000):
        places += dict(growth).get(iteration, 0)
        count = places - len(trainer.active)
        trainer.add(waiting[:count]) if waiting[:count] else trainer.shrink()
        waiting = waiting[count:] if count else waiting
        if not trainer.active:
            break
        sizes.append(len(trainer.places))
        over = trainer.iterate()
        for trial, seed, *point in trainer.take_points():
            points.setdefault((trial, seed), []).append(tuple(point[:2]))
        trainer.leave(over)
        found |= {(run.trial, run.seed): run for run in over}
    return {key: (run, points.get(key, [])) for key, run in found.items()} | {"sizes": sizes}


def test_every_run_is_what_it_is_alone():
    """Among others, in freed places, in populations that grow and shrink, with other lengths and coefficients."""
    generator = np.random.default_rng(0)
    claims = [
        Claim(trial, seed, "tuning", {"learning_rate": float(generator.uniform(1e-4, 1e-2))}, length, "")
        for trial, length in enumerate([320, 64, 192, 96, 320]) for seed in (3, 4)
    ]  # fmt: skip
    together = train(claims, 3, growth=[(4, 2)])
    sizes = together.pop("sizes")
    assert len(together) == 10 and max(sizes) == 5 and min(sizes) < 3 and 3 in sizes
    for claim in claims:
        alone = train([claim], 1)
        run, points = together[claim.trial, claim.seed]
        expected, its_points = alone[claim.trial, claim.seed]
        assert dataclasses.replace(run, seconds=0) == dataclasses.replace(expected, seconds=0)
        assert points == its_points and points[-1] == (claim.budget, run.score)
        assert (run.state, run.steps) == ("finished", claim.budget)
    assert len({run.score for run, _ in together.values()}) > 5


def test_a_run_without_an_end_of_an_episode_fails_with_the_reason():
    trainer = Trainer(
        "pendulum", {}, lambda one: {"algorithm": SMALL, "estimator": GAE(), "policy": MLP((8,))}, "episode_return", 64
    )
    trainer.add([Claim(0, 0, "tuning", {}, 64, "")])
    runs = [run for _ in range(2) for run in trainer.iterate()]
    assert [(run.state, run.note) for run in runs] == [
        ("failed", "episode_return is unknown after 64 steps: no episode ended")
    ]


def test_a_run_that_diverges_fails_and_harms_no_other():
    claims = [Claim(0, seed, "tuning", {"learning_rate": rate}, 96, "") for seed, rate in ((0, 1e-3), (1, math.inf))]
    together = train(claims, 2)
    assert together[0, 1][0].state == "failed" and "is not finite" in together[0, 1][0].note
    assert together[0, 0][0].score == train(claims[:1], 1)[0, 0][0].score


# ---------------------------------------------------------------------------------------------------------- suggesting


def over(number, configuration, scores, steps=1000, state="finished") -> Trial:
    runs = tuple(Run(number, seed, "tuning", state, score, steps, 1.0) for seed, score in enumerate(scores))
    return Trial(number, configuration, steps, state=state, runs=runs)


TOY = Space(MADE, {"gamma": linear(0, 1), "learning_rate": log(1e-4, 1), "steps": whole(100, 1000)})


def toy(configuration) -> float:
    """At its best, 0, for gamma = 0.7 and learning_rate = 1e-2."""
    return -((configuration["gamma"] - 0.7) ** 2) - (math.log10(configuration["learning_rate"]) / 4 + 0.5) ** 2


def search(sampler, seed, count=60, batch=5) -> list[float]:
    trials = []
    while len(trials) < count:
        for one in suggest(TOY, trials, batch, sampler, seed, "steps"):
            trials.append(over(len(trials), one, [toy(one)], one["steps"]))
    return [toy(trial.configuration) for trial in trials]


def test_tpe_finds_more_than_chance():
    pytest.importorskip("optuna")
    found = {
        sampler: [np.sort(search(sampler, seed))[-10:].mean() for seed in range(4)] for sampler in ("tpe", "random")
    }
    assert np.mean(found["tpe"]) > np.mean(found["random"]) / 2  # half of the regret, of values below 0


def test_suggestions_depend_on_nothing_but_the_ledger():
    pytest.importorskip("optuna")
    grouped = Space(MADE, TOY.ranges, {"narrow": {"hidden_sizes": [8]}, "wide": {}})
    trials = [over(i, one, [toy(one)]) for i, one in enumerate(suggest(grouped, [], 20, "random", 0, "steps"))]
    assert [trial.configuration["group"] for trial in trials[:2]] == ["narrow", "wide"]  # their own settings first
    assert trials[0].configuration["gamma"] == 0.99
    trials += [
        Trial(20, trials[3].configuration, 1000, state="running"),
        over(21, trials[4].configuration, [None], 0, "failed"),
    ]
    first = suggest(grouped, trials, 4, "tpe", 0, "steps")
    assert first == suggest(grouped, json_trials(trials), 4, "tpe", 0, "steps")
    assert first != suggest(grouped, trials, 4, "tpe", 1, "steps")
    assert all(0 <= one["gamma"] <= 1 and type(one["steps"]) is int for one in first)


def json_trials(trials):
    return [dataclasses.replace(t, configuration=json.loads(json.dumps(t.configuration))) for t in trials]


def test_a_choice_and_a_widened_range_do_not_disturb_what_was_tried():
    pytest.importorskip("optuna")
    before = Space(MADE, {"gamma": linear(0.5, 0.9), "normalize_advantage": choice(True, False)})
    trials = [over(i, one, [i]) for i, one in enumerate(suggest(before, [], 15, "random", 0, "steps"))]
    wider = before.widen({"gamma": linear(0.5, 1.0)})
    found = suggest(wider, trials, 20, "tpe", 0, "steps")
    assert {one["normalize_advantage"] for one in found} <= {True, False}
    assert max(one["gamma"] for one in found) > 0.9


# --------------------------------------------------------------------------------------------------- stopping, widening


def curve(slope, length=1000):
    steps = np.arange(100, length + 1, 100)
    return steps, slope * steps


def test_hopeless():
    others = [[curve(slope)] for slope in range(1, 10)]  # at 300 steps: 300 ... 2700, median 1500
    assert hopeless([curve(1, 200)], others, 1000) == ""  # too early
    text = hopeless([curve(1, 300), curve(4, 400)], others, 1000)
    assert text == "after 300 steps its best seed has 1200, below 1500, the median of 9 trials"
    assert hopeless([curve(1, 300), curve(6, 300)], others, 1000) == ""  # one seed is good
    assert hopeless([curve(1, 300)], others[:7], 1000) == ""  # too few to compare with
    assert hopeless([curve(1, 300)], [[curve(9, 200)]] * 9, 1000) == ""  # that have been as far


def test_edges_of_a_range():
    found = space.make(MADE, set(), whole(100, 1000))
    best = found.default("") | {"learning_rate": 0.0299, "gamma": 0.9001, "steps": 100}
    assert edges(found, best) == {"learning_rate": "high", "gamma": "low"}


# ------------------------------------------------------------------------------------------------------------- results


def test_front_candidates_and_recommendation_by_hand():
    def one(number, score, steps, fresh=None, error=None):
        return outcome.Outcome(number, {}, score, steps, 1.0, fresh, error, 0 if fresh is None else 10)

    found = [one(0, 1, 100), one(1, 3, 200), one(2, 2, 300), one(3, 9, 400, 5.0, 0.5), one(4, 8, 300, 4.6, 0.1)]
    # trial 3 was lucky: on fresh seeds it has 5, and 4 the same within an error for less
    assert [each.trial for each in outcome.front(found, "steps")] == [0, 1, 4, 3]
    assert [each.trial for each in outcome.candidates(found, 3, "steps")] == [3, 4, 1]
    best = outcome.recommended(found, "steps")
    assert best is not None and best.trial == 4
    assert outcome.recommended(found[:3], "steps") is None


def test_means_and_errors_of_a_trial():
    trial = over(0, {}, [1.0, 2.0, 6.0])
    fresh = tuple(Run(0, 100 + i, "evaluation", "finished", score, 1000, 2.0) for i, score in enumerate([1.0, 3.0]))
    (found,) = outcome.outcomes([dataclasses.replace(trial, runs=trial.runs + fresh)])
    assert (found.score, found.fresh_score, found.num_fresh) == (3.0, 2.0, 2)
    assert found.fresh_error == pytest.approx(math.sqrt(2) / math.sqrt(2))  # deviation √2, of two
    assert values(over(1, {}, [None]), "steps") is None
    assert values(over(1, {}, [4.0], state="pruned"), "seconds") == (4.0, 1.0)
    assert values(over(1, {}, [4.0], state="failed"), "steps") is None


# -------------------------------------------------------------------------------------------------------- a whole sweep


def make_plan(**changes) -> Plan:
    found = space.make(MADE | {"algorithm": SMALL, "policy": MLP((8,))}, {"value_coef"}, whole(64, 640, "log"))
    described = {"algorithm": describe([SMALL]), "estimator": describe([GAE()]), "policy": describe([MLP((8,))])}
    return Plan("bandit", {}, **described, space=found.document(), **({"steps": 640, "places": 6} | changes))


class Far:
    """A ledger that is called over a wire, as Ray's workers call theirs: only what can be pickled passes."""

    def __init__(self, ledger):
        self.__dict__["ledger"] = ledger

    def __getattr__(self, name):
        def wire(thing):
            return pickle.loads(pickle.dumps(thing))

        return lambda *given, **named: wire(getattr(self.ledger, name)(*wire(given), **wire(named)))


def test_a_sweep_by_one_worker(tmp_path):
    pytest.importorskip("optuna")
    threads = torch.get_num_threads()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    plan = make_plan(trials=16, seeds=2, candidates=3, fresh_seeds=2)
    study = ledger.create_study("first", "sweep", vars(plan))
    Worker(Far(ledger), "first", "one", {}, 60.0).run()  # type: ignore[arg-type]
    trials = ledger.trials(study)
    assert len(trials) == 16 and {trial.state for trial in trials} <= {"finished", "pruned"}
    assert all(len(trial.of("tuning")) == 2 for trial in trials)
    assert {run.seed for trial in trials for run in trial.of("tuning")} == {0, 1}
    assert {run.seed for trial in trials for run in trial.of("evaluation")} == {1_000_000, 1_000_001}
    (chosen,) = ledger.events(study, "candidates")
    fresh = [trial.trial for trial in trials if trial.of("evaluation")]
    assert sorted(chosen["trials"]) == fresh and len(fresh) == 3
    assert len(ledger.events(study, "widened")) == 1
    document = outcome.document(trials, "steps")
    assert document["recommended"]["trial"] in fresh and document["front"]
    assert ledger.study("first").state == "finished" and ledger.workers(study) == {}
    curves = ledger.points(study)
    assert all(curves[run.trial, run.seed][-1][1] == run.score for trial in trials for run in trial.of("tuning"))
    ledger.close()
    assert torch.get_num_threads() == threads


def test_suggesting_longer_than_the_lease_asks_for_nothing_twice(tmp_path, monkeypatch):
    """While one suggests trials, its lease expires and another plans: one of them writes, and the sweep has its 4."""
    first, second = (Ledger(tmp_path / "ledger.sqlite") for _ in range(2))
    made = make_plan(trials=4, seeds=1, sampler="random")
    study = first.create_study("first", "sweep", vars(made))
    slow, quick = (Planner(ledger, study, made, components_of(made, {})) for ledger in (first, second))
    suggest, asked = plan.suggest, []

    def late(*given):
        if not asked:
            asked.append("one")
            time.sleep(0.1)
            assert not quick.step("two", 60.0)
        return suggest(*given)

    monkeypatch.setattr(plan, "suggest", late)
    assert not slow.step("one", 0.05)
    assert len(first.trials(study)) == 4
    assert first.take(study, plan.LEASE, "three", 60.0)  # a step gives its lease back
    first.close(), second.close()


@pytest.mark.slow
def test_an_iteration_longer_than_the_lease_loses_nothing(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    study = ledger.create_study("first", "sweep", vars(make_plan(trials=1, seeds=2, candidates=0, steps=64)))
    worker = Worker(ledger, "first", "one", {}, 0.8)
    iterate = worker.trainer.iterate
    monkeypatch.setattr(worker.trainer, "iterate", lambda: time.sleep(1.2) or iterate())
    worker.run()
    assert [trial.state for trial in ledger.trials(study)] == ["finished"]
    assert ledger.database.query("SELECT max(attempt) FROM run") == [(1,)]
    ledger.close()


def test_a_budget_ends_a_sweep(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    plan = make_plan(trials=1000, budget=2_000, seeds=1, candidates=1, fresh_seeds=1, sampler="random", prune=False)
    study = ledger.create_study("first", "sweep", vars(plan))
    Worker(ledger, "first", "one", {}, 60.0).run()
    steps = sum(run.steps for trial in ledger.trials(study) for run in trial.of("tuning"))
    assert 2_000 - 640 < steps < 2_000 + 7 * 640
    ledger.close()


# ----------------------------------------------------------------------------------------------------- the command line


SWEEP = [
    "bandit", "--trials", "30", "--steps", "8000", "--num-envs", "4", "--rollout-length", "16", "--seeds", "2",
    "--candidates", "5", "--fresh-seeds", "3", "--workers", "2", "--hidden-sizes", "8", "--places", "4",
]  # fmt: skip


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "ridgeline", "sweep", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished_runs(storage, study) -> dict[tuple[int, int], Run]:
    with closing(Ledger(storage)) as ledger:
        found = ledger.trials(ledger.study(study).study)
    return {(run.trial, run.seed): run for trial in found for run in trial.runs if run.state in ("finished", "pruned")}


def wait_for(storage, study, count, seconds=120) -> dict[tuple[int, int], Run]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.2)
        if storage.exists() if hasattr(storage, "exists") else True:
            try:
                if len(found := finished_runs(storage, study)) >= count:
                    return found
            except ValueError:  # not begun
                continue
    raise AssertionError(f"fewer than {count} runs in {seconds} s")


@pytest.mark.slow
def test_killed_and_resumed_a_sweep_loses_nothing(tmp_path):
    """kill -9 of the sweep twice, Ctrl+C once; what had finished stays as it was, and the end is reached."""
    pytest.importorskip("optuna")
    storage, known = tmp_path / "first" / "ledger.sqlite", {}
    for number, how in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)):
        arguments = ["--resume", tmp_path / "first"] if number else [*SWEEP, "--out", tmp_path / "first"]
        process = start(*arguments, "--lease", "3")
        found = wait_for(storage, "first", len(known) + 6)
        process.send_signal(how)
        said = process.communicate()[0]
        if how == signal.SIGINT:
            assert process.returncode == 130, said
            assert f"go on with ridgeline sweep --resume {tmp_path / 'first'}" in said
        assert {key: found[key] for key in known} == known
        known = finished_runs(storage, "first")
    process = start("--resume", tmp_path / "first", "--json")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    document = json.loads(said.strip().splitlines()[-1])
    found = finished_runs(storage, "first")
    assert {key: found[key] for key in known} == known and len(known) >= 18
    assert sum(document["num_trials"].values()) == 30 and document["num_runs"].get("waiting", 0) == 0
    assert len(document["candidates"]) == 5 and document["recommended"] is not None
    assert json.loads((tmp_path / "first" / "result.json").read_text())["finished"] is True
    assert cli.main(["sweep", "--resume", str(tmp_path / "first"), "--quiet"]) == 0  # nothing is left to do


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path):
    pytest.importorskip("optuna")
    process = start(*SWEEP, "--out", tmp_path / "first")
    wait_for(tmp_path / "first" / "ledger.sqlite", "first", 6)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[0]), signal.SIGKILL)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "a worker died; its runs begin anew elsewhere" in said
    assert len({key for key in finished_runs(tmp_path / "first" / "ledger.sqlite", "first") if key[1] < 9}) == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cartpole", "--sampler", "cma"], "sampler = 'cma'; use one of tpe, random"),
        (["cartpole", "--trials", "0"], "trials = 0; use a whole number from 1"),
        (["cartpole", "--seed", "1000000"], "seed = 1000000; use a whole number from 0 to 999,997"),
        (["cartpole", "--space", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["--resume", "none"], "none holds no sweep: there is no sweep.json that can be read"),
        (["--resume", "none", "--trials", "3"], "a sweep goes on as it is: leave --trials away, or start a new one"),
        (["cartpole", "--join", "none", "--gamma", "0.9"], "leave --gamma away"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, capsys, monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
