"""What `ridgeline compare` reads: a TOML file of arms, environments, steps and seeds, checked before anything runs.

steps = 100_000                      of every run; an environment may have its own
seeds = 10                           evaluation seeds of every arm and environment
[settings]                           of all arms, as the flags of `ridgeline train`
[environments.cartpole]              best = 500; random play is measured, or given as random = 22
[arms.gae]                           algorithm, estimator, policy, and their settings
[arms.tuned]                         grid = {gamma = [0.9, 0.99]}, choose = "one" or "each"
"""

import dataclasses
import difflib
import itertools
import math
import tomllib
from pathlib import Path
from typing import Any

from ridgeline import components

KINDS = {"algorithm": "ppo", "estimator": "gae", "policy": "mlp"}
SCORES = {
    "final": "mean return of the last 100 episodes of training",
    "evaluation": "mean return of the trained policy, sampled actions, on episodes of its own",
    "area": "mean over the training of the return, which is the area under the learning curve",
}
CHOICES = ("one", "each")
TOP = {"name", "steps", "seeds", "first_seed", "tuning_seeds", "first_tuning_seed", "score", "episodes", "settings",
       "environments", "arms"}  # fmt: skip
ENVIRONMENT = {"environment", "steps", "random", "best", "parameters", "settings"}
SWEEP = {"trials", "candidates", "fresh_seeds", "sampler", "space"}
ARM = {*KINDS, "grid", "choose", "sweep", "settings"}


class SpecError(ValueError):
    """A comparison that cannot be made as it is written; one line with the value, the rule and the way out."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An environment of the comparison: `best` is score 1, `random` (None: measured) is score 0."""

    name: str
    environment: str
    steps: int
    best: float
    random: float | None = None
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Arm:
    """What is compared: components and settings, and what is chosen by tuning, if anything."""

    name: str
    components: dict[str, str]
    settings: dict[str, Any]
    grid: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    choose: str = ""  # "one" setting of the grid for all environments, the best for "each", "" without a grid
    sweep: dict[str, Any] = dataclasses.field(default_factory=dict)  # the budget of a sweep per environment

    def candidates(self) -> list[dict[str, Any]]:
        """The settings to choose among: those of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]

    def build(self, task: Task, chosen: dict[str, Any]) -> dict[str, Any]:
        """kind -> configuration, with the task's and the chosen settings. Raises SpecError naming the arm."""
        return build(f"arm {self.name!r}", self.components, {**self.settings, **task.settings, **chosen})


@dataclasses.dataclass(frozen=True)
class Spec:
    """A whole comparison."""

    name: str
    tasks: list[Task]
    arms: list[Arm]
    seeds: tuple[int, ...]  # of evaluation
    tuning_seeds: tuple[int, ...]
    score: str = "final"
    episodes: int = 20  # of each trained policy; 0: it is not evaluated
    text: str = ""


def read(path: str | Path) -> Spec:
    """The comparison of a TOML file. Paths in it are taken from its folder. Raises SpecError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}; name the TOML file of a comparison") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is no TOML: {error}") from error
    try:
        return _spec(table, text, path)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def build(owner: str, names: dict[str, str], settings: dict[str, Any]) -> dict[str, Any]:
    """kind -> configuration of each component, from settings that each belong to one of them. Raises SpecError."""
    try:
        classes = {kind: components.find(kind, name) for kind, name in names.items()}
    except components.UnknownComponent as error:
        raise SpecError(f"{owner}: {error}") from error
    fields = {kind: {field.name: field for field in dataclasses.fields(cls)} for kind, cls in classes.items()}
    given: dict[str, dict[str, Any]] = {kind: {} for kind in classes}
    for name, value in settings.items():
        owners = [kind for kind in classes if name in fields[kind]]
        if not owners:
            known = [field for kind in classes for field in fields[kind]]
            raise SpecError(f"{owner}: none of {', '.join(names.values())} has a setting {name!r}{_near(name, known)}")
        given[owners[0]][name] = _typed(owner, name, value, str(fields[owners[0]][name].type))
    made = {}
    for kind, cls in classes.items():
        try:
            made[kind] = cls(**given[kind])
        except (TypeError, ValueError) as error:
            raise SpecError(f"{owner}: {error}") from error
    return made


def _typed(owner: str, name: str, value: Any, kind: str) -> Any:
    """A TOML value as the field's type: lists as tuples, whole numbers as floats where those are meant."""
    kind = kind.removeprefix("<class '").removesuffix("'>")
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and "float" in kind:
        return float(value)
    simple = {"float": float, "int": int, "bool": bool, "str": str}.get(kind)
    if simple and type(value) is not simple:
        raise SpecError(f"{owner}: {name} = {value!r} is no {kind}")
    return value


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), 3, 0.6)
    return f"; did you mean {', '.join(near)}?" if near else f"; there are {', '.join(known)}"


# ------------------------------------------------------------------------------------------------------------- checking


def _spec(table: dict[str, Any], text: str, path: Path) -> Spec:
    _check_keys("the file", table, TOP)
    steps = _number("steps", table.get("steps"), 1)
    tasks = [_task(name, entry, steps, path.parent) for name, entry in _tables(table, "environments").items()]
    common = _table("settings", table.get("settings", {}))
    arms = [_arm(name, entry, common, path.parent) for name, entry in _tables(table, "arms").items()]
    seeds = _seeds(table, "seeds", "first_seed", 10, 1000)
    tuning = _seeds(table, "tuning_seeds", "first_tuning_seed", 3, 0)
    shared = sorted(set(seeds) & set(tuning))
    if shared:
        raise SpecError(
            f"seed {shared[0]} is a tuning seed and an evaluation seed, which would reward luck; "
            f"move first_seed to {max(tuning) + 1} or beyond"
        )
    score = table.get("score", "final")
    episodes = _number("episodes", table.get("episodes", 20), 0)
    if score not in SCORES:
        raise SpecError(f"score = {score!r}; there are {', '.join(SCORES)}")
    if score == "evaluation" and not episodes:
        raise SpecError('score = "evaluation" needs episodes of evaluation; set episodes to 20, say')
    spec = Spec(str(table.get("name", path.stem)), tasks, arms, seeds, tuning, score, episodes, text)
    for arm, task in itertools.product(arms, tasks):
        for chosen in arm.candidates():
            arm.build(task, chosen)
    return spec


def _task(name: str, entry: Any, steps: int, folder: Path) -> Task:
    where = f"environments.{name}"
    entry = _table(where, entry)
    _check_keys(where, entry, ENVIRONMENT)
    if "best" not in entry:
        raise SpecError(
            f"{where} has no best: give the best known return, which is score 1 (random play is score 0, measured)"
        )
    best = _real(f"{where}.best", entry["best"])
    random = None if "random" not in entry else _real(f"{where}.random", entry["random"])
    if random is not None and best <= random:
        raise SpecError(f"{where}: best = {best:g} is not above random = {random:g}; scores would be upside down")
    own_steps = _number(f"{where}.steps", entry.get("steps", steps), 1)
    return Task(
        name, _path(str(entry.get("environment", name)), folder), own_steps, best, random,
        _table(f"{where}.parameters", entry.get("parameters", {})),
        _table(f"{where}.settings", entry.get("settings", {})),
    )  # fmt: skip


def _arm(name: str, entry: Any, common: dict[str, Any], folder: Path) -> Arm:
    where = f"arms.{name}"
    entry = _table(where, entry)
    _check_keys(where, entry, ARM)
    names = {kind: _path(str(entry.get(kind, default)), folder) for kind, default in KINDS.items()}
    settings = common | _table(f"{where}.settings", entry.get("settings", {}))
    grid = _table(f"{where}.grid", entry.get("grid", {}))
    choose, sweep = entry.get("choose", ""), _table(f"{where}.sweep", entry.get("sweep", {}))
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SpecError(f"{where}.grid.{key} = {values!r}; give a list of the values to choose among")
    if choose not in ("", *CHOICES):
        raise SpecError(f"{where}: choose = {choose!r}; use one (for all environments) or each (environment its own)")
    if bool(grid or sweep) != bool(choose):
        raise SpecError(f'{where}: a grid or a sweep and choose = "one" or "each" go together; give both or neither')
    if grid and sweep:
        raise SpecError(f"{where} has a grid and a sweep; keep one of them")
    if sweep and choose != "each":
        raise SpecError(f'{where}: a sweep finds settings for each environment; choose = "each", or use a grid')
    _check_keys(f"{where}.sweep", sweep, SWEEP)
    for key in ("trials", "candidates", "fresh_seeds"):
        if key in sweep:
            _number(f"{where}.sweep.{key}", sweep[key], 1)
    if "space" in sweep:
        sweep = sweep | {"space": str(folder / str(sweep["space"]))}
    return Arm(name, names, settings, grid, choose, sweep)


def _seeds(table: dict[str, Any], count: str, first: str, default: int, default_first: int) -> tuple[int, ...]:
    start = _number(first, table.get(first, default_first), 0)
    return tuple(range(start, start + _number(count, table.get(count, default), 1)))


def _check_keys(where: str, entry: dict[str, Any], known: set[str]) -> None:
    for key in entry:
        if key not in known:
            more = " (settings of components stand in a table of their own, settings)" if "settings" in known else ""
            raise SpecError(f"{where} has an unknown key {key!r}{_near(key, sorted(known))}{more}")


def _tables(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = _table(key, table.get(key, {}))
    if not found:
        raise SpecError(f"there is no [{key}.NAME]; name at least one")
    return found


def _table(where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise SpecError(f"{where} = {entry!r}; it is a table: [{where}]")
    return entry


def _number(where: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SpecError(f"{where} = {value!r}; give a whole number from {least}")
    return value


def _real(where: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise SpecError(f"{where} = {value!r}; give a number")
    return float(value)


def _path(name: str, folder: Path) -> str:
    """A file.py is looked for in the folder of the specification; any other name stays."""
    return str(folder / name) if name.endswith(".py") else name
