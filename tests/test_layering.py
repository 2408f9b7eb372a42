"""Which way imports point: each file of the package uses only files above its own, and torch starts where it should."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "ridgeline"

# From the first to the last; `folder/*` are files side by side, which never import each other; a folder whose files do
# is named file by file.
ORDER = """
registration cache sources compile_errors observations
translation
state loops declarations rehearsal
kernel levels ground order_book court rocket envs/* vector random_play gymnasium_rows workers adapters/* environments
canvas
film gymnasium
pettingzoo
controls play new_environment
distributions normalize layers
streams recurrent encoders
policies recurrent_policies optimizers
calls
population self_play storage valid_rows rollout mixture estimators/* algorithms/* components
sweep/database sweep/records sweep/ledger
checkpoint metrics
slots
training run_directory lock session evaluation loopback watch_page meter view statistics bench reproduce
sweep/ranges sweep/space sweep/sampler sweep/outcome sweep/plan sweep/trainer sweep/worker sweep/local sweep/progress
sweep/conduct sweep/ray_workers
stopping writers catalogue comparison_spec comparison_runs comparison_sweep comparison compare_command
report_sections report_runs report_comparison report_sweep report board
gradient_comparison gradient_cloud cloud_command arguments options train_command sweep/command cli __init__ __main__
""".split()
FIRST_WITH_TORCH = ORDER.index("distributions")
IMPORT_NAMES = {  # cloudpickle: gymnasium requires it; llvmlite: numba does
    "pillow": {"PIL"}, "gymnasium": {"gymnasium", "cloudpickle"}, "numba": {"numba", "llvmlite"},
}  # fmt: skip


def files(package: Path) -> dict[str, Path]:
    """Each file by its place in the package: "kernel", "envs/cartpole"."""
    found = {path.relative_to(package).with_suffix("").as_posix(): path for path in package.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.endswith("/__init__")}


def layer(name: str) -> int:
    """The line of ORDER that a file or a sub-package stands in."""
    if name in ORDER:
        return ORDER.index(name)
    folder, _, file = name.partition("/")
    line = f"{folder}/*" if file or f"{folder}/*" in ORDER else folder
    assert line in ORDER, f"{name} has no place in ORDER: give it one, below what it imports and above what imports it"
    return ORDER.index(line)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that the file names (`a.b`, and `a.b.c` for `from a.b import c`), and whether within a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ]
    inside = {id(child) for function in functions for child in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: write the whole name, `from ridgeline.x import y`"
            found += [(f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names]
    return found


def own(module: str, package: Path) -> str | None:
    """The file or sub-package of ours that `ridgeline.a.b` names; None for other people's modules."""
    top, *parts = module.split(".")
    if top != "ridgeline":
        return None
    for length in range(len(parts), 0, -1):
        path = package.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file() or path.is_dir():
            return "/".join(parts[:length])
    return "__init__"


def dependencies() -> set[str]:
    """The import names of what the package requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in project["dependencies"]}
    return set().union(*(IMPORT_NAMES.get(name, {name}) for name in names))


def faults(package: Path) -> list[str]:
    """Everything that breaks the rules, one line each."""
    found = []
    for name, path in sorted(files(package).items()):
        here = layer(name)
        for module, in_function in imports(path):
            top = module.split(".")[0]
            target = own(module, package)
            if target is not None:
                if layer(target) >= here:
                    found.append(f"{name} imports {target}, which is not above it")
                continue
            if top == "torch" and here < FIRST_WITH_TORCH:
                found.append(f"{name} imports torch, which starts at distributions.py")
            if name == "statistics" and top != "numpy" and top not in sys.stdlib_module_names:
                found.append(f"statistics imports {top}; it needs NumPy only")
            if not in_function and top not in dependencies() | sys.stdlib_module_names:
                found.append(f"{name} imports {top} at the top; an optional library belongs inside the function")
    for folder in sorted(path for path in package.iterdir() if path.is_dir() and list(path.glob("*.py"))):
        init = folder / "__init__.py"
        if not init.is_file() or init.read_text(encoding="utf-8").strip():
            found.append(f"{folder.name}/__init__.py must exist and be empty")
    return found


def test_imports_point_one_way():
    assert len(files(PACKAGE)) >= 5
    assert not faults(PACKAGE), "\n".join(faults(PACKAGE))


def test_every_name_in_the_order_is_there_once():
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("kernel", "from ridgeline.vector import Step", "kernel imports vector"),
        ("kernel", "import ridgeline.vector", "kernel imports vector"),
        ("kernel", "from ridgeline import vector", "kernel imports vector"),
        ("kernel", "def f():\n    from ridgeline import make", "kernel imports __init__"),
        ("envs/pong", "from ridgeline.envs.cartpole import step", "envs/pong imports envs/cartpole"),
        ("envs/pong", "from ridgeline.envs import cartpole", "envs/pong imports envs/cartpole"),
        ("kernel", "import ridgeline.envs", "kernel imports envs"),
        ("vector", "import torch", "vector imports torch"),
        ("vector", "def f():\n    from torch import nn", "vector imports torch"),
        ("statistics", "import torch", "statistics imports torch"),
        ("film", "import imageio_ffmpeg", "film imports imageio_ffmpeg at the top"),
        ("film", "class A:\n    import matplotlib.pyplot", "film imports matplotlib at the top"),
        ("envs/__init__", "x = 1", "envs/__init__.py must exist and be empty"),
        ("training", "from ridgeline.checkpoint import save", None),
        ("envs/pong", "import numpy as np\nfrom ridgeline.kernel import uniform", None),
        ("vector", "from ridgeline.envs import cartpole", None),
        ("checkpoint", "import torch\nfrom PIL import Image\ndef f():\n    import mujoco", None),
        ("__main__", "from ridgeline import cli\nimport ridgeline", None),
    ],
)
def test_the_check_sees_what_it_should(tmp_path, file, source, fault):
    for name in ("kernel", "vector", "checkpoint", "cli", "__init__", "envs/__init__", "envs/cartpole", file):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source if name == file else "")
    found = faults(tmp_path)
    assert not found if fault is None else len(found) == 1 and found[0].startswith(fault), found


def test_a_new_file_needs_a_place(tmp_path):
    (tmp_path / "helpers.py").write_text("")
    with pytest.raises(AssertionError, match="helpers has no place in ORDER"):
        faults(tmp_path)


def test_relative_imports_are_refused(tmp_path):
    (tmp_path / "vector.py").write_text("from . import kernel")
    with pytest.raises(AssertionError, match="write the whole name"):
        faults(tmp_path)
