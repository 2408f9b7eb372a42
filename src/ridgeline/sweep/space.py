"""What a sweep varies: the settings that it searches, their ranges, and the groups that each are a population.

Scalars (floating-point fields of the algorithm and the estimator) differ between the runs of one population, so their
trials train side by side. Everything else shapes a population: its values come in groups that are declared, or as the
few values of a field, and there are at most MAX_SHAPES of them together.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np

from ridgeline import components
from ridgeline.sweep import ranges
from ridgeline.sweep.ranges import Choice, Range

MAX_SHAPES = 6
KINDS = ("algorithm", "estimator", "policy")
STEPS, GROUP = "steps", "group"  # of a configuration, beside fields: the length of its runs, its group
TRIES = 100  # draws until the components accept one


class SpaceError(ValueError):
    """A space that cannot be searched; one line with the field, the rule and the way out."""


Configuration = dict[str, Any]  # searched field -> value
Components = dict[str, Any]  # "algorithm", "estimator", "policy" -> configuration object


@dataclasses.dataclass(frozen=True)
class Space:
    """The fields that are searched and their ranges; `groups`: name -> what is fixed in it. Raises SpaceError."""

    components: Components  # of the group without settings of its own
    ranges: Mapping[str, Range | Choice]
    groups: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"": {}})

    def __post_init__(self):
        for name, item in self.ranges.items():
            owners = [owner for group in self.groups if (owner := self._owner(group, name))]
            if name == STEPS:
                continue
            if not owners:
                known = [field for group in self.groups for own in self._made[group].values() for field in _fields(own)]
                near = difflib.get_close_matches(name, known, 3, 0.6)
                hint = f"; did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
                raise SpaceError(f"no component of this sweep has a field {name!r}{hint}")
            if isinstance(item, Range) and not self.is_scalar(name) and not item.whole:
                raise SpaceError(f"{name} shapes a population and has a range; name a few values, as {name} = [1, 2]")
        count = sum(self._num_shapes(group) for group in self.groups)
        if count > MAX_SHAPES:
            raise SpaceError(
                f"the groups and the values of what is no scalar make {count} shapes, each a population of its own; "
                f"at most {MAX_SHAPES}: name fewer values or groups"
            )

    @cached_property
    def _made(self) -> dict[str, Components]:
        return {name: _in_group(self.components, name, fields) for name, fields in self.groups.items()}

    def _owner(self, group: str, name: str) -> str | None:
        """The component of the group that has the field."""
        return next((kind for kind in KINDS if name in _fields(self._made[group][kind])), None)

    def is_scalar(self, name: str) -> bool:
        """Whether the runs of one population may differ in it."""
        if name == STEPS:
            return True
        for group in self.groups:
            kind = self._owner(group, name)
            if kind == "policy" or (kind and _fields(self._made[group][kind])[name].type not in (float, "float")):
                return False
        return True

    def _num_shapes(self, group: str) -> int:
        count = 1
        for name, item in self.ranges.items():
            if not self.is_scalar(name) and self._owner(group, name):
                if isinstance(item, Choice):
                    count *= len(item.values)
                else:
                    first, last = item.coordinates
                    count *= len({item.value(place) for place in np.linspace(first, last, 1000)})
        return count

    # ------------------------------------------------------------------------------------------------- configurations

    def draw(self, number: Callable[[str, Range], Any], choose: Callable[[str, Choice], Any]) -> Configuration:
        """A configuration, value by value, that the components accept: `number` and `choose` give the values."""
        configuration: Configuration = {}
        if len(self.groups) > 1:
            configuration[GROUP] = choose(GROUP, Choice(tuple(self.groups)))
        later = {name: item for name, item in self.ranges.items() if item.when is not None}
        for name, item in [*((n, i) for n, i in self.ranges.items() if n not in later), *later.items()]:
            if self._applies(name, item, configuration):
                configuration[name] = number(name, item) if isinstance(item, Range) else choose(name, item)
        return configuration

    def _applies(self, name: str, item: Range | Choice, configuration: Configuration) -> bool:
        group = self.group(configuration)
        if name != STEPS and self._owner(group, name) is None:
            return False
        if item.when is None:
            return True
        field, values = item.when
        owner = self._owner(group, field)
        value = configuration.get(field, getattr(self._made[group][owner], field) if owner else None)
        return value in values

    def random(self, generator: np.random.Generator) -> Configuration:
        """A random configuration, even along every scale. Raises SpaceError where the components accept none."""
        error: Exception | None = None
        for _ in range(TRIES):
            drawn = self.draw(
                lambda name, item: item.value(generator.uniform(*item.coordinates)),
                lambda name, item: item.values[generator.integers(len(item.values))],
            )
            try:
                self.build(drawn)
                return drawn
            except ValueError as refused:
                error = refused
        raise SpaceError(f"{TRIES} random configurations were refused; the last: {error}")

    def default(self, group: str) -> Configuration:
        """The settings that the components have, where a range does not exclude them."""
        made = self._made[group]

        def number(name: str, item: Range) -> Any:
            return item.high if name == STEPS else item.clip(getattr(made[str(self._owner(group, name))], name))

        def choose(name: str, item: Choice) -> Any:
            if name == GROUP:
                return group
            value = getattr(made[str(self._owner(group, name))], name)
            return value if value in item.values else item.values[0]

        return self.draw(number, choose)

    def group(self, configuration: Configuration) -> str:
        return configuration.get(GROUP, next(iter(self.groups)))

    def build(self, configuration: Configuration) -> Components:
        """The components of a configuration. Raises ValueError where they refuse it."""
        group = self.group(configuration)
        changes: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for name, value in configuration.items():
            if name not in (STEPS, GROUP):
                changes[str(self._owner(group, name))][name] = tuple(value) if isinstance(value, list) else value
        return {kind: dataclasses.replace(own, **changes[kind]) for kind, own in self._made[group].items()}

    def shape(self, configuration: Configuration) -> str:
        """What must be equal for runs to share a population."""
        parts = [self.group(configuration)] if len(self.groups) > 1 else []
        parts += [
            f"{name}={value}" for name, value in configuration.items() if name != GROUP and not self.is_scalar(name)
        ]
        return " ".join(parts)

    def widen(self, changes: Mapping[str, Range]) -> "Space":
        return dataclasses.replace(self, ranges={**self.ranges, **changes})

    def document(self) -> dict[str, Any]:
        """As JSON knows it; `from_document` reads it."""
        return {
            "ranges": {name: ranges.document(item) for name, item in self.ranges.items()},
            "groups": {name: dict(fields) for name, fields in self.groups.items()},
        }


def from_document(document: Mapping[str, Any], made: Components) -> Space:
    """The space that `Space.document` wrote down."""
    read = {
        name: ranges.read(name, _tuples(one), _is_whole(name, made, document["groups"]))
        for name, one in document["ranges"].items()
    }
    return Space(made, read, document["groups"])


def make(made: Components, fixed: set[str], steps: Range | None, file: str | Path | None = None) -> Space:
    """The space of a sweep: every scalar that has a range and is not `fixed`, the length of the runs where `steps` is a
    range, and what the TOML `file` changes: [space] has a range, a list of values or one value for each field, and
    [groups.NAME] what is fixed in a group. Raises SpaceError.
    """
    found: dict[str, Range | Choice] = {} if steps is None else {STEPS: steps}
    document = {} if file is None else _load(Path(file))
    groups = document.get("groups", {}) or {"": {}}
    for group, fields in groups.items():
        for own in list(_in_group(made, group, fields).values())[:2]:  # scalars are the algorithm's and the estimator's
            for name, field in _fields(own).items():
                item = ranges.of(type(own), name)
                if field.type in (float, "float") and item and name not in fixed and name not in fields:
                    found[name] = item
    for name, one in document.get("space", {}).items():
        if name == STEPS and not isinstance(one, Mapping):
            raise SpaceError(f"{file}: steps = {one!r}; give it a range, or leave it to --steps")
        if isinstance(one, Mapping | list):
            try:
                found[name] = ranges.read(name, _tuples(one), name == STEPS or _is_whole(name, made, groups))
            except ValueError as error:
                raise SpaceError(f"{file}: {error}") from None
        elif one == "search":
            found[name] = _own_range(name, made, groups, file)
        else:
            found.pop(name, None)
            groups = {group: {name: one} | fields for group, fields in groups.items()}
    if not found:
        raise SpaceError("nothing is left to search: every field is fixed")
    return Space(made, found, groups)


def _own_range(name: str, made: Components, groups: Mapping[str, Any], file: Any) -> Range | Choice:
    for group, fields in groups.items():
        for own in _in_group(made, group, fields).values():
            if name in _fields(own) and (item := ranges.of(type(own), name) or _of_type(_fields(own)[name])):
                return item
    raise SpaceError(f"{file}: {name} has no range of its own; write {name} = {{ low = ..., high = ... }}")


def _of_type(field: dataclasses.Field) -> Choice | None:
    """The values of a bool or a Literal."""
    if field.type in (bool, "bool"):
        return Choice((True, False))
    return Choice(get_args(field.type)) if get_origin(field.type) is Literal else None


def _is_whole(name: str, made: Components, groups: Mapping[str, Any]) -> bool:
    if name == STEPS:
        return True
    found = [own for group, fields in groups.items() for own in _in_group(made, group, fields).values()]
    return any(_fields(own)[name].type in (int, "int") for own in found if name in _fields(own))


def _in_group(made: Components, group: str, fields: Mapping[str, Any]) -> Components:
    """The components with a group's settings; the group may name other components. Raises SpaceError."""
    found = {kind: components.find(kind, fields[kind])() if kind in fields else made[kind] for kind in KINDS}
    for name, value in fields.items():
        if name in KINDS:
            continue
        kind = next((kind for kind in KINDS if name in _fields(found[kind])), None)
        if kind is None:
            raise SpaceError(f"group {group!r}: no component has a field {name!r}")
        try:
            found[kind] = dataclasses.replace(found[kind], **{name: _tuples(value)})
        except ValueError as error:
            raise SpaceError(f"group {group!r}: {error}") from None
    return found


def _fields(component: Any) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(component)}


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value


def _load(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SpaceError(f"{path} is no TOML: {error}") from None
    unknown = set(document) - {"space", "groups"}
    if unknown:
        raise SpaceError(f"{path}: unknown table {', '.join(sorted(unknown))}; use [space] and [groups.NAME]")
    for name, fields in document.get("groups", {}).items():
        if not isinstance(fields, dict):
            raise SpaceError(f"{path}: groups.{name} = {fields!r}; write a table, [groups.{name}]")
    return document
