"""The ledger: nothing that finished is lost, nothing is there twice, and no seed serves two purposes."""

import json
import subprocess
import sys
import time

import pytest
from postgresql_server import postgresql

from ridgeline.sweep.database import LedgerError
from ridgeline.sweep.ledger import LeaseLost, Ledger
from ridgeline.sweep.records import MAX_ATTEMPTS, Run, Trial


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def ask(ledger, count=2, seeds=(0, 1, 2), shapes=("",)) -> int:
    study = ledger.create_study("first", "sweep", {"environment": "cartpole"})
    trials = [Trial(-1, {"gamma": 0.9 + 0.01 * i}, 1000, shapes[i % len(shapes)]) for i in range(count)]
    assert ledger.add_trials(study, trials, seeds) == list(range(count))
    return study


def over(claim, state="finished", score=1.0) -> Run:
    return Run(claim.trial, claim.seed, claim.kind, state, score, claim.budget, 0.5)


def test_a_trial_from_waiting_to_finished(ledger):
    study = ask(ledger)
    claims = ledger.claim(study, "one", 4, 60)
    assert [(claim.trial, claim.seed) for claim in claims] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert claims[3].configuration == {"gamma": 0.91} and claims[3].budget == 1000 and claims[3].kind == "tuning"
    assert ledger.waiting(study) == {"": 2} and ledger.workers(study) == {"one": 4}
    assert [trial.state for trial in ledger.trials(study)] == ["running", "running"]
    points = [(0, 0, 500, 0.25, 0.1), (0, 0, 1000, 0.5, 0.2)]
    assert ledger.extend(study, "one", 60, points) == {(0, 0), (0, 1), (0, 2), (1, 0)}
    assert ledger.extend(study, "two", 60, points) == set()
    assert ledger.points(study) == {(0, 0): [(500, 0.25, 0.1), (1000, 0.5, 0.2)]}
    assert len(ledger.finish(study, "one", [over(claim, score=claim.seed) for claim in claims[:3]])) == 3
    first, second = ledger.trials(study)
    assert (first.state, second.state) == ("finished", "running")
    assert [(run.seed, run.score, run.steps) for run in first.runs] == [(0, 0.0, 1000), (1, 1.0, 1000), (2, 2.0, 1000)]
    ledger.add_runs(study, 0, [100, 101], "evaluation")
    assert [run.seed for run in ledger.trials(study)[0].of("evaluation")] == [100, 101]
    assert ledger.trials(study)[0].state == "finished"  # its evaluation is another matter


def test_a_seed_tunes_or_evaluates(ledger):
    study = ask(ledger)
    with pytest.raises(LedgerError, match=r"seed 1 is for tuning in .*; choose another for evaluation"):
        ledger.add_runs(study, 0, [100, 1], "evaluation")
    assert len(ledger.trials(study)[0].runs) == 3  # nothing of it was written
    ledger.add_runs(study, 0, [100], "evaluation")
    other = ledger.create_study("second", "compare", {})
    with pytest.raises(LedgerError, match="seed 100 is for evaluation"):
        ledger.add_trials(other, [Trial(-1, {}, 10)], [100], "tuning")
    assert ledger.seeds() == {0: "tuning", 1: "tuning", 2: "tuning", 100: "evaluation"}


def test_a_lease_that_expires_gives_its_run_to_another(ledger):
    study = ask(ledger, 1, [0])
    (claim,) = ledger.claim(study, "dead", 1, 0.05)
    ledger.extend(study, "dead", 0.05, [(0, 0, 500, 0.1, 0.1)])
    assert ledger.claim(study, "other", 1, 60) == []
    time.sleep(0.1)
    assert ledger.claim(study, "other", 1, 60) == [claim]
    assert ledger.points(study) == {}  # its curve begins anew
    assert ledger.finish(study, "dead", [over(claim)]) == []  # it was not dead, but late
    assert ledger.trials(study)[0].runs[0].state == "running"
    assert ledger.finish(study, "other", [over(claim, score=2.0)]) == [(0, 0)]
    assert ledger.finish(study, "other", [over(claim, score=3.0)]) == []
    assert ledger.trials(study)[0].runs[0].score == 2.0


def test_a_run_that_kills_its_workers_fails(ledger):
    study = ask(ledger, 1, [0, 1])
    for attempt in range(MAX_ATTEMPTS):
        assert len(ledger.claim(study, f"worker {attempt}", 1, 60)) == 1
        ledger.release(study, f"worker {attempt}")
    (trial,) = ledger.trials(study)
    assert (trial.state, trial.note) == ("failed", "its worker was lost")
    assert [run.state for run in trial.runs] == ["failed", "pruned"]  # its other seed is not needed any more
    assert ledger.claim(study, "last", 9, 60) == []


def test_a_pruned_trial_is_taken_from_everyone(ledger):
    study = ask(ledger, 1)
    mine, *_ = ledger.claim(study, "one", 1, 60)
    ledger.claim(study, "two", 1, 60)
    ledger.finish(study, "one", [over(mine, "pruned")])
    (trial,) = ledger.trials(study)
    assert trial.state == "pruned" and [run.state for run in trial.runs] == ["pruned"] * 3
    assert ledger.extend(study, "two", 60) == set()


def test_claims_are_of_one_shape(ledger):
    study = ask(ledger, 5, [0], ["wide", "narrow"])
    assert ledger.waiting(study) == {"wide": 3, "narrow": 2}
    assert {claim.shape for claim in ledger.claim(study, "one", 9, 60)} == {"wide"}
    assert len(ledger.claim(study, "two", 1, 60, "narrow")) == 1
    assert ledger.claim(study, "two", 1, 60, "wide") == []


def test_what_only_one_may_do(ledger):
    study = ask(ledger)
    assert ledger.take(study, "suggest", "one", 0.1) and ledger.take(study, "suggest", "one", 0.1)
    assert not ledger.take(study, "suggest", "two", 60)
    time.sleep(0.15)
    assert ledger.take(study, "suggest", "two", 60) and not ledger.take(study, "suggest", "one", 60)


def test_only_the_holder_of_a_lease_writes(ledger):
    study = ask(ledger, 1)
    assert ledger.take(study, "plan", "one", 0.1)
    ledger.add_event(study, "widened", {}, ("plan", "one"))
    time.sleep(0.15)
    assert ledger.take(study, "plan", "two", 60)
    with pytest.raises(LeaseLost, match="one no longer has the lease of 'plan'"):
        ledger.add_event(study, "widened", {}, ("plan", "one"))
    with pytest.raises(LeaseLost, match="one no longer has the lease of 'plan'"):
        ledger.add_trials(study, ledger.trials(study), [0], holder=("plan", "one"))
    ledger.leave(study, "plan", "one")  # not its own
    assert not ledger.take(study, "plan", "one", 60)
    ledger.leave(study, "plan", "two")
    assert ledger.take(study, "plan", "one", 60)
    assert len(ledger.events(study)) == 1 and len(ledger.trials(study)) == 1


def test_events_and_studies(ledger):
    study = ask(ledger)
    ledger.add_event(study, "widened", {"name": "gamma", "high": 0.999})
    ledger.add_event(study, "candidates", {"trials": [1]})
    assert ledger.events(study, "widened") == [{"name": "gamma", "high": 0.999, "kind": "widened"}]
    assert len(ledger.events(study)) == 2
    assert ledger.study("first").specification == {"environment": "cartpole"}
    ledger.end_study(study)
    assert ledger.study("first").state == "finished"
    with pytest.raises(LedgerError, match="has a study 'first'; resume it, or choose another name"):
        ledger.create_study("first", "sweep", {})
    with pytest.raises(LedgerError, match="has no study 'third'; it has: first"):
        ledger.study("third")


def test_what_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no database, and longer than the header of one " * 9)
    for storage, message in (
        (tmp_path / "notes.txt", "is no ledger that can be opened: .*; name another directory"),
        ("mysql://host/name", "storage = mysql://host/name; use postgresql://"),
        ("postgresql://me:secret@127.0.0.1:9/none", r"postgresql://127\.0\.0\.1:9/none cannot be reached"),
    ):
        with pytest.raises(LedgerError, match=message):
            Ledger(storage)
    ledger = Ledger(tmp_path / "later.sqlite")
    ledger.database.execute("UPDATE ledger SET version = 2")
    with pytest.raises(LedgerError, match="has version 2; this version of Ridgeline reads 1"):
        Ledger(tmp_path / "later.sqlite")


# A worker that dies at each place between a result and its commit: before the transaction, when all is written in it,
# right behind the commit. 50 of them, killed by SIGKILL as `kill -9` would.
KILLED = """
import json, os, signal, sys
from ridgeline.sweep.ledger import LeaseLost, Ledger
from ridgeline.sweep.records import Run, Trial

def die(): os.kill(os.getpid(), signal.SIGKILL)

storage, killed = sys.argv[1], 0
ledger = Ledger(storage)
study = ledger.create_study("killed", "sweep", {})
ledger.add_trials(study, [Trial(-1, {"x": i}, 10) for i in range(24)], [0, 1, 2])
ledger.close()
for number in range(1000):
    child = os.fork()
    if child == 0:
        ledger = Ledger(storage)
        claims = ledger.claim(study, f"worker {number}", 2, 600)
        if not claims:
            os._exit(7)
        results = [Run(c.trial, c.seed, c.kind, "finished", c.trial + c.seed / 10, 10, 1.0) for c in claims]
        points = [(c.trial, c.seed, 10, 0.5, 1.0) for c in claims]
        place = number % 4
        if place == 0:
            die()
        if place == 1:
            ledger._update_trial = lambda *_: die()  # the last thing before the commit
        ledger.finish(study, f"worker {number}", results, points)
        if place == 2:
            die()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 7:
        break
    assert status in (0, -signal.SIGKILL), status
    killed += status != 0
    ledger = Ledger(storage)
    ledger.release(study, f"worker {number}")
    ledger.close()
print(json.dumps(killed))
"""


def survives_kills(storage) -> None:
    command = [sys.executable, "-c", KILLED, str(storage)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    ledger = Ledger(storage)
    study = ledger.study("killed").study
    trials = ledger.trials(study)
    assert json.loads(found.stdout) >= 50
    assert [trial.state for trial in trials] == ["finished"] * 24
    for trial in trials:
        assert [(run.seed, run.state, run.score) for run in trial.runs] == [
            (seed, "finished", trial.trial + seed / 10) for seed in range(3)
        ]
    assert all(curve == [(10, 0.5, 1.0)] for curve in ledger.points(study).values())
    assert len(ledger.points(study)) == 72 and ledger.workers(study) == {}
    ledger.close()


def test_workers_killed_between_result_and_commit(tmp_path):
    survives_kills(tmp_path / "ledger.sqlite")


@pytest.mark.slow
def test_postgresql_keeps_the_same_ledger():
    """Every test above, on PostgreSQL."""
    with postgresql() as storage:
        for test in (
            test_a_trial_from_waiting_to_finished,
            test_a_seed_tunes_or_evaluates,
            test_a_lease_that_expires_gives_its_run_to_another,
            test_a_run_that_kills_its_workers_fails,
            test_a_pruned_trial_is_taken_from_everyone,
            test_claims_are_of_one_shape,
            test_what_only_one_may_do,
            test_events_and_studies,
            survives_kills,
        ):
            ledger = Ledger(storage)
            try:
                test(storage if test is survives_kills else ledger)
            finally:
                for table in ("event", "lease", "point", "run", "trial", "seed", "study", "ledger"):
                    ledger.database.execute(f"DROP TABLE {table}")
                ledger.close()
