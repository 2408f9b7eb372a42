"""What a ledger holds: its tables, one schema for SQLite and PostgreSQL, and their rows as dataclasses.

    study   one sweep, or one comparison: its name and what was asked for (JSON)
    seed    what a seed is for, `tuning` or `evaluation`: once in a ledger, so what was tuned on judges nothing
    trial   one configuration of a study: fields (JSON), shape (its population), budget (steps of each run), state
    run     one seed of one trial: state, score, steps and seconds that it took
    point   the score of a run on its way: its learning curve
    lease   who works at what, and until when; of a run its trial and seed, else only a word
    event   what a study decided on its way: ranges that were widened, trials that were chosen

A run is waiting, running, finished, pruned (stopped because hopeless) or failed. A trial is waiting until a run of it
starts, and over when all its tuning runs are: failed if one failed, pruned if one was pruned, else finished.
"""

from dataclasses import dataclass
from typing import Any

VERSION = 1
KINDS = ("tuning", "evaluation")
OVER = ("finished", "pruned", "failed")
MAX_ATTEMPTS = 5  # a run whose workers die as often is failed: it may be what kills them

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (version INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS study (
    study INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, specification TEXT NOT NULL,
    state TEXT NOT NULL, created DOUBLE PRECISION NOT NULL);
CREATE TABLE IF NOT EXISTS seed (
    seed BIGINT PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('tuning', 'evaluation')), UNIQUE (seed, kind));
CREATE TABLE IF NOT EXISTS trial (
    study INTEGER NOT NULL REFERENCES study, trial INTEGER NOT NULL, shape TEXT NOT NULL, configuration TEXT NOT NULL,
    budget BIGINT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, PRIMARY KEY (study, trial));
CREATE TABLE IF NOT EXISTS run (
    study INTEGER NOT NULL, trial INTEGER NOT NULL, seed BIGINT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    score DOUBLE PRECISION, steps BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL, attempt INTEGER NOT NULL,
    note TEXT NOT NULL, ended DOUBLE PRECISION, PRIMARY KEY (study, trial, seed),
    FOREIGN KEY (study, trial) REFERENCES trial, FOREIGN KEY (seed, kind) REFERENCES seed (seed, kind));
CREATE INDEX IF NOT EXISTS run_state ON run (study, state, trial);
CREATE TABLE IF NOT EXISTS point (
    study INTEGER NOT NULL, trial INTEGER NOT NULL, seed BIGINT NOT NULL, steps BIGINT NOT NULL,
    score DOUBLE PRECISION NOT NULL, seconds DOUBLE PRECISION NOT NULL, PRIMARY KEY (study, trial, seed, steps),
    FOREIGN KEY (study, trial, seed) REFERENCES run);
CREATE TABLE IF NOT EXISTS lease (
    study INTEGER NOT NULL REFERENCES study, work TEXT NOT NULL, trial INTEGER, seed BIGINT, worker TEXT NOT NULL,
    expires DOUBLE PRECISION NOT NULL, PRIMARY KEY (study, work));
CREATE TABLE IF NOT EXISTS event (
    study INTEGER NOT NULL REFERENCES study, number INTEGER NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, PRIMARY KEY (study, number));
"""


Point = tuple[int, int, int, float, float]  # trial, seed, steps, score, seconds so far


@dataclass(frozen=True)
class Study:
    """One sweep or one comparison."""

    study: int
    name: str
    kind: str  # "sweep" or "compare"
    specification: dict[str, Any]
    state: str  # "running", or "finished"


@dataclass(frozen=True)
class Run:
    """One seed of one trial."""

    trial: int
    seed: int
    kind: str  # what the seed is for: "tuning" or "evaluation"
    state: str = "waiting"
    score: float | None = None
    steps: int = 0  # environment steps taken
    seconds: float = 0.0  # processor seconds, its share of its population's
    note: str = ""  # why it failed or was stopped


@dataclass(frozen=True)
class Trial:
    """One configuration, and its runs."""

    trial: int
    configuration: dict[str, Any]  # field -> value
    budget: int  # steps of each run
    shape: str = ""  # runs of one shape may share a population
    origin: str = ""  # who asked for it: the sampler's name, an arm's
    state: str = "waiting"
    note: str = ""
    runs: tuple[Run, ...] = ()

    def of(self, kind: str) -> list[Run]:
        """Its runs on tuning, or on evaluation, seeds."""
        return [run for run in self.runs if run.kind == kind]


@dataclass(frozen=True)
class Claim:
    """A run lent to a worker, with all that is needed to train it."""

    trial: int
    seed: int
    kind: str
    configuration: dict[str, Any]
    budget: int
    shape: str
