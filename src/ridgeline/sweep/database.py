"""The two databases that a ledger may be: a file of SQLite, or PostgreSQL past one machine.

Both are used alike: every writing transaction is alone (SQLite's write lock, an advisory lock in PostgreSQL), so what
it reads first still holds when it writes; and time is the database's, so that machines need not agree on theirs.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK = 7_263_418  # of PostgreSQL's advisory locks, ours


class LedgerError(ValueError):
    """A ledger that cannot be used as asked; one line with the reason and the way out."""


def connect(storage: str | Path) -> "SQLite | PostgreSQL":
    """The database at a path, or at a postgresql:// address. Raises LedgerError."""
    if str(storage).startswith(("postgresql://", "postgres://")):
        return PostgreSQL(str(storage))
    if "://" in str(storage):
        raise LedgerError(f"storage = {storage}; use postgresql://USER@HOST/DATABASE, or the path of a file")
    return SQLite(Path(storage))


class SQLite:
    """A file, write-ahead logged: what is committed survives a kill.

    A power cut may take the newest commits, whose runs are then run again, and leaves the rest whole: waiting for the
    disk at every commit would cost up to a tenth of a second.
    Not for network file systems, whose locks do not hold; PostgreSQL is for more than one machine.
    """

    NOW = "((julianday('now') - 2440587.5) * 86400.0)"

    def __init__(self, path: Path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{path} is no ledger that can be opened: {error}; name another directory") from error
        self._one_thread = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and no other writer meanwhile."""
        with self._one_thread:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Number of rows changed."""
        return self._connection.execute(sql, values).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._one_thread:
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        self._connection.close()


class PostgreSQL:
    """A PostgreSQL database, by psycopg (the extra `postgres`)."""

    NOW = "extract(epoch from clock_timestamp())::double precision"

    def __init__(self, address: str):
        try:
            import psycopg
        except ImportError:
            raise LedgerError("PostgreSQL needs psycopg: pip install ridgeline[postgres]") from None
        try:
            self._connection = psycopg.connect(address, autocommit=True, connect_timeout=20)
        except psycopg.Error as error:
            what = " ".join(str(error).split())
            raise LedgerError(f"{_without_password(address)} cannot be reached: {what}") from error
        self._one_thread = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and no other writer meanwhile."""
        with self._one_thread, self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Number of rows changed."""
        return self._connection.execute(sql.replace("?", "%s"), values).rowcount  # type: ignore[arg-type]

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)  # type: ignore[arg-type]

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._one_thread:
            return self._connection.execute(sql.replace("?", "%s"), values).fetchall()  # type: ignore[arg-type]

    def close(self) -> None:
        self._connection.close()


def _without_password(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
