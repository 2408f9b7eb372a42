"""The built-in environments by name, and their ids for `gymnasium.make`: breakout is "ridgeline/Breakout-v0".

Gymnasium has had no plugins since 1.0: an id exists once somebody has registered it. `import ridgeline` does so at once
where Gymnasium is loaded already, and otherwise when it is; so the package stays cheap to import. In a process that has
not imported the package, the id "ridgeline:ridgeline/Breakout-v0" makes Gymnasium import it.

Nothing here imports NumPy or Numba, and no environment is loaded or compiled.
"""

import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "envs"


def names() -> list[str]:
    """The names of the built-in environments, sorted; nothing is imported or compiled."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))


def gymnasium_ids() -> dict[str, str]:
    """Gymnasium id -> name of each environment of one agent. Gymnasium counts versions from 0: `Version: 1` is -v0."""
    ids = {}
    for name in names():
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        if re.search(r"^(num_agents\b|def num_agents\b)", text, re.M):
            continue  # Gymnasium has no API for several
        version = re.search(r"^Version: (\d+)$", text, re.M)
        title = "".join(part.capitalize() for part in name.split("_"))
        ids[f"ridgeline/{title}-v{int(version[1]) - 1 if version else 0}"] = name
    return ids


def register() -> None:
    """Make the ids known to Gymnasium; those that are known already stay as they are."""
    from gymnasium.envs.registration import register, registry

    for id, name in gymnasium_ids().items():
        if id not in registry:
            register(
                id, "ridgeline.gymnasium:SingleEnv", vector_entry_point="ridgeline.gymnasium:InstancesEnv",
                kwargs={"environment": name},
            )  # fmt: skip


class _WhenImported:
    """A finder of modules that finds nothing itself, but registers the ids when Gymnasium has been imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "gymnasium":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module):
                execute(module)
                register()

            spec.loader.exec_module = execute_and_register
        return spec


def register_when_imported() -> None:
    """`register`, now or when Gymnasium is imported."""
    if "gymnasium" in sys.modules:
        register()
    elif not any(type(finder).__name__ == "_WhenImported" for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())  # type: ignore[arg-type]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """`; did you mean a, b?` of the nearest three; of a Gymnasium name its newest version only."""
    nearest: dict[str, list[str]] = {}
    for candidate in candidates:
        nearest.setdefault(_plain(candidate), []).append(candidate)
    found = []
    for key in difflib.get_close_matches(_plain(name), nearest, n=3, cutoff=0.7):
        built_in = [one for one in nearest[key] if not re.search(r"-v\d+$", one)]
        versions = [one for one in nearest[key] if re.search(r"-v\d+$", one)]
        found += built_in + sorted(versions, key=lambda one: int(one.rpartition("-v")[2]))[-1:]
    return f"; did you mean {', '.join(found[:3])}?" if found else ""


def _plain(name: str) -> str:
    return re.sub(r"-v\d+$", "", name).lower().replace("_", "").replace("-", "")
