"""An environment file as source: which files it is made of, loading it, its plain-Python twin, where an error lies.

The file and its helper files are read anew whenever one of them changes, in the same process too: modules are kept
under a name that holds the hash of all of them, and no `.pyc` file and no earlier import stands in for a helper file.
"""

import ast
import hashlib
import importlib
import importlib.util
import linecache
import sys
import sysconfig
import traceback
import types
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
SHARED = tuple(_PACKAGE / f"{name}.py" for name in ("kernel", "loops", "observations", "state"))  # of every environment


class InvalidEnvironment(ValueError):
    """An environment that cannot be used; the message names the file, the line and how to write it."""


def is_library(path: Path) -> bool:
    """Whether a source file belongs to Python or an installed package (ridgeline's own files do not count)."""
    path = path.resolve()
    return not path.is_relative_to(_PACKAGE) and any(path.is_relative_to(root) for root in _library_roots())


@cache
def _library_roots() -> list[Path]:
    roots = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    return [Path(root).resolve() for root in roots if root]


def local_sources(path: Path) -> list[Path]:
    """The file at `path` and every source that it imports, directly or not, that is not a library; sorted.

    Of ridgeline itself SHARED always counts, and what else is imported by name, such as `levels.py`.
    """
    path = path.resolve()
    found: set[Path] = set(SHARED)
    pending = [path]
    while pending:
        file = pending.pop()
        if file in found or (file != path and is_library(file)):
            continue
        found.add(file)
        for node in _imports(file.read_bytes(), str(file)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    pending += _find(alias.name, [path.parent, *map(Path, sys.path)])
            else:
                above = file.parents[min(node.level, len(file.parents)) - 1]
                roots = [above] if node.level else [path.parent, *map(Path, sys.path)]
                for alias in node.names:
                    pending += _find(".".join(filter(None, (node.module, alias.name))), roots)
    return sorted(found)


@lru_cache(maxsize=256)
def _imports(source: bytes, name: str) -> list[ast.Import | ast.ImportFrom]:
    try:
        tree = ast.parse(source, name)
    except (SyntaxError, ValueError):
        return []  # reported when it is loaded
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _find(name: str, roots: list[Path]) -> list[Path]:
    """The source files that importing `name` runs: of each package on the way, and of the module."""
    parts = name.split(".")
    if parts[0] == "ridgeline":
        return [file for part in parts[1:2] if (file := _PACKAGE / f"{part}.py").is_file()]
    for root in roots:
        files = []
        for count in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:count])
            files += [file for file in (place.with_name(place.name + ".py"), place / "__init__.py") if file.is_file()]
        if files:
            return [file.resolve() for file in files]
    return []


def source_hash(path: Path, *versions: object) -> str:
    """Twenty hexadecimal digits that change when the file, a file that it imports, or one of `versions` changes."""
    if not path.is_file():
        raise InvalidEnvironment(f"{path}: no such file")
    digest = hashlib.sha256(repr(versions).encode())
    for file in local_sources(path):
        digest.update(b"\0" + file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:20]


def load_source(path: Path) -> types.ModuleType:
    """The module of the environment file at `path`, loaded once per content of it and of its helper files."""
    path = path.resolve()
    return _load_source(path, source_hash(path, str(path)))


@cache
def _load_source(path: Path, digest: str) -> types.ModuleType:
    name = f"ridgeline_environment_{digest}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    helpers = {file for file in local_sources(path) if file.parent != _PACKAGE}
    earlier = _modules_of(helpers)  # imported by somebody else, perhaps before the last edit
    for key in earlier:
        del sys.modules[key]
    sys.modules[name] = module
    write_no_bytecode = sys.dont_write_bytecode
    sys.path.insert(0, str(path.parent))
    sys.dont_write_bytecode = True  # a .pyc is keyed by whole seconds and size: it misses a quick second edit
    importlib.invalidate_caches()
    linecache.checkcache()
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise InvalidEnvironment(describe(error, path)) from error
    finally:
        sys.dont_write_bytecode = write_no_bytecode
        sys.path.remove(str(path.parent))
        for key, helper in _modules_of(helpers).items():
            if key != name:
                del sys.modules[key]
                _rename(helper, f"{name}_{key}")
        sys.modules.update(earlier)
    return module


def _rename(module: types.ModuleType, name: str) -> None:
    """Keep a helper file's module under a name of its own: two environments may each have a helper.py.

    Numba's cache finds the module of a compiled function by the function's `__module__`.
    """
    for item in vars(module).values():
        function = getattr(item, "py_func", item)
        if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
            function.__module__ = name
    module.__name__ = name
    sys.modules[name] = module


def _modules_of(files: set[Path]) -> dict[str, types.ModuleType]:
    """The imported modules whose source is one of `files`."""
    names = {file.name for file in files}
    return {
        key: module
        for key, module in list(sys.modules.items())
        if (file := _file(module)) and file.name in names and file.resolve() in files
    }


def _file(module) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) else None


def plain(function) -> Any:
    """The plain-Python twin of a compiled function: it and every compiled function that it calls, uncompiled."""
    return _plain(function, {})


def _plain(value, twins: dict):
    if isinstance(value, types.ModuleType):
        if (file := _file(value)) is None or is_library(file):
            return value
        if value not in twins:
            twins[value] = types.SimpleNamespace()
            twins[value].__dict__.update({name: _plain(item, twins) for name, item in vars(value).items()})
        return twins[value]
    function = getattr(value, "py_func", value)
    if not isinstance(function, types.FunctionType) or _is_foreign(function.__code__.co_filename):
        return value
    if function not in twins:
        names = dict(function.__globals__)
        twins[function] = types.FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, function.__closure__
        )
        for name in function.__code__.co_names:
            if name in names:
                names[name] = _plain(names[name], twins)
    return twins[function]


def _is_foreign(filename: str) -> bool:
    return "<" in filename or is_library(Path(filename))


def line_of(function) -> int:
    """The line on which a function, compiled or not, is defined."""
    return getattr(function, "py_func", function).__code__.co_firstlineno


def describe(error: BaseException, path: Path) -> str:
    """`file:line: message` with the source line, for an error raised in or by the user's file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: syntax error: {error.msg}\n    {(error.text or '').strip()}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_foreign(f.filename)]
    own = [f for f in frames if not Path(f.filename).resolve().is_relative_to(_PACKAGE)]
    own = own or [f for f in frames if Path(f.filename).resolve() == path]
    message = f"{type(error).__name__}: {error}"
    return f"{own[-1].filename}:{own[-1].lineno}: {message}\n    {own[-1].line}" if own else f"{path}: {message}"
