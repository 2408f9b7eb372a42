"""The user's private directory of generated modules and of the machine code that Numba keeps for them."""

import atexit
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
import time
import types
import warnings
from functools import lru_cache
from pathlib import Path

PREFIX = "ridgeline_loops_"  # of the names of generated modules; nothing else in the directory is ever deleted
_KEEP_SECONDS = 30 * 24 * 3600


@lru_cache(maxsize=1)
def cache_directory() -> Path:
    """The user's private directory of generated modules and compiled code (RIDGELINE_CACHE overrides it).

    One that cannot be written, or that others can write, is not used: Numba's index files are pickles. Then compiled
    code lasts as long as the process.
    """
    try:
        path = _wanted_directory()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        (path / "__pycache__").mkdir(exist_ok=True, mode=0o700)
        if _is_private(path) and _is_private(path / "__pycache__"):
            return path
        reason = f"{path} can be written by others; chmod -R go-w mends it"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    warnings.warn(f"compiled environments are not kept ({reason}); RIDGELINE_CACHE names a directory", stacklevel=2)
    temporary = Path(tempfile.mkdtemp(prefix="ridgeline-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _wanted_directory() -> Path:
    if root := os.environ.get("RIDGELINE_CACHE"):
        return Path(root).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base).absolute() / "ridgeline"


def _is_private(directory: Path) -> bool:
    if not os.access(directory, os.W_OK):
        raise PermissionError(f"no permission to write {directory}")
    if not hasattr(os, "getuid"):
        return True
    status = directory.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def import_generated(path: Path, source: str, names: dict) -> types.ModuleType:
    """Import the generated module at `path` with `names` defined; write it first where it does not exist.

    It is written beside and renamed: another process sees all of it or nothing.
    """
    name = path.stem
    if name in sys.modules:
        return sys.modules[name]
    if path.exists():
        os.utime(path, (time.time(), path.stat().st_mtime))  # Numba before 0.68 recompiles when the second one changes
    else:
        _prune(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        try:
            os.replace(temporary, path)
        except PermissionError:  # Windows, while another process reads the same text
            os.unlink(temporary)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__.update(names)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _prune(directory: Path) -> None:
    """Delete generated modules that nobody used for thirty days, and Numba's files of modules that are gone."""
    for file in [*directory.glob(f"{PREFIX}*.py"), *directory.glob(f"__pycache__/{PREFIX}*")]:
        try:
            status = file.stat()
            if file.suffix == ".py":
                stale = time.time() - max(status.st_atime, status.st_mtime) > _KEEP_SECONDS
            else:
                stale = not (directory / f"{file.name.split('.')[0]}.py").exists()
            if stale:
                file.unlink()
        except OSError:
            pass  # another process was first
