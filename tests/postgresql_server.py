"""A PostgreSQL server for a test, on loopback, from Debian's package `postgresql`; not there: the test skips."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database. The server refuses to run as root: it then runs as the user `postgres`."""
    pytest.importorskip("psycopg")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    root = os.geteuid() == 0
    if root and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("run as root, this needs a user named postgres")
    folder = Path(tempfile.mkdtemp(prefix="ridgeline-postgresql-"))
    if root:
        shutil.chown(folder, "postgres")

    def run(program: str, *arguments: str) -> None:
        # no pipes: the server would hold them open
        with open(folder.with_suffix(".log"), "ab") as log:
            subprocess.run(
                [str(programs[-1] / program), *arguments], check=True, stdout=log, stderr=log, cwd="/",
                user="postgres" if root else None,
            )  # fmt: skip

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "ridgeline", "--auth=trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        run("pg_ctl", "-D", data, "-o", options, "-w", "start")
        try:
            yield f"postgresql://ridgeline@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
