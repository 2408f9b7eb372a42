"""The ledger: everything that sweeps and comparisons ask for, lend out and find; its tables are in records.py.

A worker *claims* runs, which lends them for a time, extends the lease while it works, and *finishes* them. A lease that
expires makes its run waiting again. A run finishes once: whoever comes second is told so and nothing is written, so a
worker killed at any moment loses no finished run and leaves none twice.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ridgeline.sweep.database import LedgerError, connect
from ridgeline.sweep.records import MAX_ATTEMPTS, OVER, SCHEMA, VERSION, Claim, Point, Run, Study, Trial

Holder = tuple[str, str]  # (work, worker): who writes only as long as it has that lease


class LeaseLost(RuntimeError):
    """What a worker wanted to write down is another's to decide by now."""


class Ledger:
    """The ledger at a path or a postgresql:// address, made where it is not there. Raises LedgerError."""

    def __init__(self, storage: str | Path):
        self.storage = storage
        self.database = connect(storage)
        with self.database.transaction():
            for statement in filter(None, (part.strip() for part in SCHEMA.split(";"))):
                self.database.execute(statement)
            found = self.database.query("SELECT version FROM ledger")
            if not found:
                self.database.execute("INSERT INTO ledger VALUES (?)", (VERSION,))
        if found and found[0][0] != VERSION:
            raise LedgerError(f"{storage} has version {found[0][0]}; this version of Ridgeline reads {VERSION}")

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def _writing(self, study: int, holder: Holder | None) -> Iterator[None]:
        """A transaction; where a holder is named, only as long as it has its lease. Else LeaseLost is raised: another
        has decided meanwhile, knowing things that this one did not."""
        with self.database.transaction():
            if holder is not None:
                query = "SELECT worker FROM lease WHERE study = ? AND work = ?"
                if self.database.query(query, (study, holder[0])) != [(holder[1],)]:
                    raise LeaseLost(f"{holder[1]} no longer has the lease of {holder[0]!r}")
            yield

    def now(self) -> float:
        """Seconds since 1970, by the database's clock."""
        return float(self.database.query(f"SELECT {self.database.NOW}")[0][0])

    # ------------------------------------------------------------------------------------------------------- studies

    def create_study(self, name: str, kind: str, specification: Mapping[str, Any]) -> int:
        """The number of a new study. Raises LedgerError where there is one of that name."""
        with self.database.transaction():
            if self.database.query("SELECT study FROM study WHERE name = ?", (name,)):
                raise LedgerError(f"{self.storage} has a study {name!r}; resume it, or choose another name")
            number = self.database.query("SELECT coalesce(max(study), 0) + 1 FROM study")[0][0]
            self.database.execute(
                "INSERT INTO study VALUES (?, ?, ?, ?, 'running', ?)",
                (number, name, kind, json.dumps(specification), self.now()),
            )
        return number

    def studies(self) -> list[Study]:
        rows = self.database.query("SELECT study, name, kind, specification, state FROM study ORDER BY study")
        return [Study(number, name, kind, json.loads(text), state) for number, name, kind, text, state in rows]

    def study(self, name: str) -> Study:
        """The study of that name. Raises LedgerError naming those that there are."""
        studies = {study.name: study for study in self.studies()}
        if name not in studies:
            raise LedgerError(f"{self.storage} has no study {name!r}; it has: {', '.join(studies) or 'none'}")
        return studies[name]

    def end_study(self, study: int) -> None:
        self.database.execute("UPDATE study SET state = 'finished' WHERE study = ?", (study,))

    def add_event(self, study: int, kind: str, detail: Mapping[str, Any], holder: Holder | None = None) -> None:
        """Write down what the study decided."""
        with self._writing(study, holder):
            query = "SELECT coalesce(max(number), 0) + 1 FROM event WHERE study = ?"
            number = self.database.query(query, (study,))[0][0]
            self.database.execute(
                "INSERT INTO event VALUES (?, ?, ?, ?, ?)", (study, number, kind, json.dumps(detail), self.now())
            )

    def events(self, study: int, kind: str | None = None) -> list[dict[str, Any]]:
        """The details of what was decided, of one kind or of all, in order."""
        rows = self.database.query("SELECT kind, detail FROM event WHERE study = ? ORDER BY number", (study,))
        return [json.loads(text) | {"kind": own} for own, text in rows if kind in (None, own)]

    # -------------------------------------------------------------------------------------------------------- asking

    def add_trials(
        self, study: int, trials: Iterable[Trial], seeds: Sequence[int], kind: str = "tuning",
        holder: Holder | None = None,
    ) -> list[int]:  # fmt: skip
        """Ask for trials, each with a run for every seed; their numbers, which are given here and follow without a gap.

        Raises LedgerError where a seed already serves the other kind.
        """
        with self._writing(study, holder):
            self._take_seeds(seeds, kind)
            query = "SELECT coalesce(max(trial), -1) + 1 FROM trial WHERE study = ?"
            first, now = self.database.query(query, (study,))[0][0], self.now()
            rows = [
                (study, number, one.shape, json.dumps(one.configuration), one.budget, one.origin, "waiting", "", now)
                for number, one in enumerate(trials, first)
            ]
            self.database.execute_many("INSERT INTO trial VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            numbers = [row[1] for row in rows]
            self._insert_runs(study, [(number, seed) for number in numbers for seed in seeds], kind)
        return numbers

    def add_runs(self, study: int, trial: int, seeds: Sequence[int], kind: str) -> None:
        """Ask for more runs of a trial: its evaluation. Runs that are there stay as they are."""
        with self.database.transaction():
            self._take_seeds(seeds, kind)
            self._insert_runs(study, [(trial, seed) for seed in seeds], kind)

    def _take_seeds(self, seeds: Sequence[int], kind: str) -> None:
        for seed in seeds:
            self.database.execute("INSERT INTO seed VALUES (?, ?) ON CONFLICT DO NOTHING", (seed, kind))
            ((found,),) = self.database.query("SELECT kind FROM seed WHERE seed = ?", (seed,))
            if found != kind:
                raise LedgerError(f"seed {seed} is for {found} in {self.storage}; choose another for {kind}")

    def _insert_runs(self, study: int, pairs: Sequence[tuple[int, int]], kind: str) -> None:
        self.database.execute_many(
            "INSERT INTO run VALUES (?, ?, ?, ?, 'waiting', NULL, 0, 0.0, 0, '', NULL) ON CONFLICT DO NOTHING",
            [(study, trial, seed, kind) for trial, seed in pairs],
        )

    # -------------------------------------------------------------------------------------------------------- working

    def claim(self, study: int, worker: str, count: int, seconds: float, shape: str | None = None) -> list[Claim]:
        """Lend `worker` up to `count` waiting runs for so many seconds, oldest trials first; all of one shape: of
        `shape`, or of that of which most are waiting."""
        with self.database.transaction():
            self._expire(study)
            if shape is None:
                counts = self.waiting(study)
                shape = max(counts, key=lambda one: counts[one]) if counts else None
            rows = self.database.query(
                "SELECT r.trial, r.seed, r.kind, t.configuration, t.budget, t.shape FROM run r "
                "JOIN trial t ON t.study = r.study AND t.trial = r.trial "
                "WHERE r.study = ? AND r.state = 'waiting' AND t.shape = ? ORDER BY r.trial, r.seed LIMIT ?",
                (study, shape, count),
            )
            claims = [Claim(trial, seed, kind, json.loads(text), *rest) for trial, seed, kind, text, *rest in rows]
            expires = self.now() + seconds
            for one in claims:
                self._set(study, one.trial, one.seed, "state = 'running', attempt = attempt + 1")
                self.database.execute(
                    "INSERT INTO lease VALUES (?, ?, ?, ?, ?, ?)",
                    (study, f"run {one.trial} {one.seed}", one.trial, one.seed, worker, expires),
                )
            self.database.execute_many(
                "UPDATE trial SET state = 'running' WHERE study = ? AND trial = ? AND state = 'waiting'",
                [(study, trial) for trial in sorted({one.trial for one in claims})],
            )
        return claims

    def waiting(self, study: int) -> dict[str, int]:
        """Shape -> how many runs of it wait for a worker."""
        return dict(
            self.database.query(
                "SELECT t.shape, count(*) FROM run r JOIN trial t ON t.study = r.study AND t.trial = r.trial "
                "WHERE r.study = ? AND r.state = 'waiting' GROUP BY t.shape ORDER BY min(r.trial)",
                (study,),
            )
        )

    def extend(self, study: int, worker: str, seconds: float, points: Sequence[Point] = ()) -> set[tuple[int, int]]:
        """Extend the worker's leases by so many seconds from now, and write down `points` (trial, seed, steps, score,
        seconds so far) of its runs. Returns the (trial, seed) that it holds: no others are its to go on with."""
        with self.database.transaction():
            self.database.execute(
                "UPDATE lease SET expires = ? WHERE study = ? AND worker = ?", (self.now() + seconds, study, worker)
            )
            held = self._held(study, worker)
            self._insert_points(study, [point for point in points if point[:2] in held])
        return held

    def finish(
        self, study: int, worker: str, results: Sequence[Run],
        points: Sequence[Point] = (),
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Write down runs that are over (state finished, pruned or failed), with the last of their `points`, and give
        their leases back: all in one transaction. Returns the (trial, seed) taken down; one whose lease has been lost
        is not, for another worker has it, or has finished it."""
        with self.database.transaction():
            held = self._held(study, worker)
            mine = [run for run in results if (run.trial, run.seed) in held]
            self._insert_points(study, [point for point in points if point[:2] in held])
            now = self.now()
            for run in mine:
                if run.state not in OVER:
                    raise LedgerError(f"a run that is over has state {run.state!r}; use one of {', '.join(OVER)}")
                self._set(
                    study, run.trial, run.seed, "state = ?, score = ?, steps = ?, seconds = ?, note = ?, ended = ?",
                    (run.state, run.score, run.steps, run.seconds, run.note, now),
                )  # fmt: skip
                self._give_back(study, run.trial, run.seed)
            for trial in sorted({run.trial for run in mine}):
                self._update_trial(study, trial, now)
        return [(run.trial, run.seed) for run in mine]

    def prune(self, study: int, trial: int, note: str) -> None:
        """Stop a trial: its tuning runs end with their newest points, and are taken from their workers."""
        with self.database.transaction():
            now = self.now()
            query = "SELECT seed FROM run WHERE study = ? AND trial = ? AND kind = 'tuning' AND state = 'running'"
            for (seed,) in self.database.query(query, (study, trial)):
                query = (
                    "SELECT score, steps, seconds FROM point WHERE study = ? AND trial = ? AND seed = ? ORDER BY steps"
                )
                last = self.database.query(query, (study, trial, seed))[-1:] or [(None, 0, 0.0)]
                self._set(
                    study, trial, seed, "state = 'pruned', score = ?, steps = ?, seconds = ?, note = ?, ended = ?",
                    (*last[0], note, now),
                )  # fmt: skip
                self._give_back(study, trial, seed)
            self._update_trial(study, trial, now)

    def release(self, study: int, worker: str) -> None:
        """Take back what a worker holds, because it leaves or is dead: its runs wait again."""
        with self.database.transaction():
            self.database.execute("UPDATE lease SET expires = 0 WHERE study = ? AND worker = ?", (study, worker))
            self._expire(study)

    def take(self, study: int, work: str, worker: str, seconds: float) -> bool:
        """Whether `worker` now has, or still has, the lease of `work`, a word: what only one may do at a time."""
        with self.database.transaction():
            self._expire(study)
            now = self.now()
            self.database.execute(
                "INSERT INTO lease VALUES (?, ?, NULL, NULL, ?, ?) ON CONFLICT DO NOTHING",
                (study, work, worker, now + seconds),
            )
            changed = self.database.execute(
                "UPDATE lease SET expires = ? WHERE study = ? AND work = ? AND worker = ?",
                (now + seconds, study, work, worker),
            )
        return changed == 1

    def leave(self, study: int, work: str, worker: str) -> None:
        """Give back the lease of `work`, if `worker` still has it."""
        query = "DELETE FROM lease WHERE study = ? AND work = ? AND worker = ?"
        with self.database.transaction():
            self.database.execute(query, (study, work, worker))

    def workers(self, study: int) -> dict[str, int]:
        """Worker -> how many runs it has."""
        query = "SELECT worker, count(*) FROM lease WHERE study = ? AND trial IS NOT NULL GROUP BY worker"
        return dict(self.database.query(query, (study,)))

    def _held(self, study: int, worker: str) -> set[tuple[int, int]]:
        query = "SELECT trial, seed FROM lease WHERE study = ? AND worker = ? AND trial IS NOT NULL"
        return {(trial, seed) for trial, seed in self.database.query(query, (study, worker))}

    def _insert_points(self, study: int, points: Iterable[Point]) -> None:
        self.database.execute_many(
            "INSERT INTO point VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(study, *point) for point in points],
        )

    def _set(self, study: int, trial: int, seed: int, change: str, values: Sequence[Any] = ()) -> None:
        self.database.execute(
            f"UPDATE run SET {change} WHERE study = ? AND trial = ? AND seed = ?", (*values, study, trial, seed)
        )

    def _give_back(self, study: int, trial: int, seed: int) -> None:
        self.database.execute("DELETE FROM lease WHERE study = ? AND trial = ? AND seed = ?", (study, trial, seed))

    def _expire(self, study: int) -> None:
        """Let the runs wait again whose leases are over; their curves begin anew."""
        now = self.now()
        query = "SELECT trial, seed FROM lease WHERE study = ? AND expires < ? AND trial IS NOT NULL"
        for trial, seed in self.database.query(query, (study, now)):
            self.database.execute("DELETE FROM point WHERE study = ? AND trial = ? AND seed = ?", (study, trial, seed))
            state = f"CASE WHEN attempt < {MAX_ATTEMPTS} THEN 'waiting' ELSE 'failed' END"
            self._set(study, trial, seed, f"state = {state}, note = ?", ("its worker was lost",))
            self._update_trial(study, trial, now)
        self.database.execute("DELETE FROM lease WHERE study = ? AND expires < ?", (study, now))

    def _update_trial(self, study: int, trial: int, now: float) -> None:
        """The trial's state, from those of its tuning runs (of all, where it has none of these). A stopped or failed
        trial needs no further seeds: what waits is stopped, and what others train is taken from them."""
        query = "SELECT seed, state, kind, note FROM run WHERE study = ? AND trial = ?"
        rows = self.database.query(query, (study, trial))
        rows = [row for row in rows if row[2] == "tuning"] or rows
        states = {state for _, state, _, _ in rows}
        worst = next((state for state in ("failed", "pruned") if state in states), None)
        if worst is not None:
            for seed, state, _, _ in rows:
                if state not in OVER:
                    self._set(study, trial, seed, "state = 'pruned', note = ?, ended = ?", (f"the trial {worst}", now))
                    self._give_back(study, trial, seed)
        elif states != {"finished"}:
            return
        note = next((note for _, state, _, note in rows if state == worst), "")
        self.database.execute(
            "UPDATE trial SET state = ?, note = ? WHERE study = ? AND trial = ?",
            (worst or "finished", note, study, trial),
        )

    # -------------------------------------------------------------------------------------------------------- reading

    def trials(self, study: int) -> list[Trial]:
        """All trials in order, each with its runs in the order of their seeds."""
        runs: dict[int, list[Run]] = {}
        query = (
            "SELECT trial, seed, kind, state, score, steps, seconds, note FROM run WHERE study = ? ORDER BY trial, seed"
        )
        for row in self.database.query(query, (study,)):
            runs.setdefault(row[0], []).append(Run(*row))
        query = (
            "SELECT trial, configuration, budget, shape, origin, state, note FROM trial WHERE study = ? ORDER BY trial"
        )
        return [
            Trial(number, json.loads(text), *rest, runs=tuple(runs.get(number, ())))
            for number, text, *rest in self.database.query(query, (study,))
        ]

    def points(
        self, study: int, trials: Sequence[int] | None = None
    ) -> dict[tuple[int, int], list[tuple[int, float, float]]]:
        """(trial, seed) -> its curve: (steps, score, seconds so far), in order; of some trials, or of all."""
        curves: dict[tuple[int, int], list[tuple[int, float, float]]] = {}
        where = "" if trials is None else f" AND trial IN ({', '.join(str(int(trial)) for trial in trials) or 'NULL'})"
        query = "SELECT trial, seed, steps, score, seconds FROM point WHERE study = ?"
        for trial, seed, *point in self.database.query(f"{query}{where} ORDER BY trial, seed, steps", (study,)):
            curves.setdefault((trial, seed), []).append(tuple(point))
        return curves

    def seeds(self) -> dict[int, str]:
        """Every seed that was used, and what for."""
        return dict(self.database.query("SELECT seed, kind FROM seed ORDER BY seed"))
