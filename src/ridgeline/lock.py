"""One process at a time in a directory: the operating system's lock on a file in it, which ends with the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "nt":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: a child would hold it after a kill


class InUse(ValueError):
    """Another process writes there; one line with the way out."""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """No other process that asks the same is in `directory`, which exists, until the block ends.

    Raises InUse. Where the file system knows no locks, nothing is excluded.
    """
    try:
        file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield  # whatever cannot be written is told by who writes
        return
    try:
        try:
            _lock(file)
        except (PermissionError, BlockingIOError):
            raise InUse(
                f"{directory} is in use by another process; wait until that ends, or name another directory"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(file)
