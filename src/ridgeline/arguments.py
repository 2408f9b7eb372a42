"""The command line's arguments: every field of a dataclass is a flag, and every mistake is one line.

The flags of `train` depend on what is trained: the algorithm, estimator and policy named on the line are looked up
first, then their dataclasses make the parser, and so do the environment's parameters. Parsing is tyro's; where it
refuses, its message is brought down to one line.
"""

import ast
import dataclasses
import difflib
import inspect
import io
import operator
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro

DEFAULTS = {"algorithm": "ppo", "estimator": "gae", "policy": "auto"}
VALUED = {
    f"--{name}" for name in "algorithm estimator out init resume run space join storage study ray".split()
}  # a name or path follows


class UsageError(ValueError):
    """Arguments that make no command; the message is one line with the way out."""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """The arguments of a command: its own options, and what is trained where it trains."""

    options: Any
    given: set[str]  # the options and fields named on the line
    algorithm: Any = None
    estimator: Any = None
    policy: Any = None
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)  # of the components, or their files


def parse(
    options: type,
    arguments: Sequence[str],
    program: str,
    components: bool = False,
    environment: Callable[[Any], str] | None = None,
) -> Parsed:
    """The `options`, a dataclass whose positional field may be called `environment`, from the `arguments` of `program`.

    With `components`, the fields of the named algorithm, estimator and policy are flags too, and so are the
    environment's parameters, as `--environment.NAME`. `environment` names the environment, given the options, where it
    is not among them.

    Raises: UsageError; UnknownComponent and InvalidEnvironment for names and files. Exits after `--help`.
    """
    groups: dict[str, Any] = {"options": Annotated[options, tyro.conf.arg(name="")]}
    named = names_of(arguments) if components else {}
    if named:
        groups |= _component_groups(named)
    _check_names(groups)
    help_wanted = bool({"-h", "--help"} & set(arguments))
    literal = False
    if components:
        environment = environment or operator.attrgetter("environment")
    changes = any(argument.startswith("--environment.") for argument in arguments)
    if environment is not None and (changes or (help_wanted and components)):
        rest = _without(arguments)
        name = environment(_parse(groups, rest, program, components)[0].options)
        if name:
            kind, literal = _parameters(name, arguments)
            title = tyro.conf.arg(name="environment", help=f"Parameters of {name}.")
            groups["parameters"] = Annotated[kind, title]
    arguments = ["--help"] if help_wanted else arguments  # positional ones before it would not be explained
    parsed, flags = _parse(groups, arguments, program, components)
    known_elsewhere = any(getattr(parsed.options, name, None) is not None for name in ("resume", "join"))
    if getattr(parsed.options, "environment", None) == "" and not known_elsewhere:
        raise UsageError(f"name an environment: {program} ENV; ridgeline list shows them")
    given = {_name(argument, flags) for argument in arguments if argument.startswith("--")}
    return Parsed(
        parsed.options,
        given,
        **{kind: getattr(parsed, kind, None) for kind in DEFAULTS},
        parameters=_changed(getattr(parsed, "parameters", None), given, literal),
        names=named,
    )


def names_of(arguments: Sequence[str]) -> dict[str, str]:
    """The algorithm, estimator and policy named on the line, kind -> name or path; the defaults else. The default
    policy is the one that suits the environment named."""
    found = dict(DEFAULTS)
    for kind in DEFAULTS:
        for place, argument in enumerate(arguments):
            if argument.startswith(f"--{kind}="):
                found[kind] = argument.partition("=")[2]
            elif argument == f"--{kind}" and place + 1 < len(arguments):
                found[kind] = arguments[place + 1]
    if found["policy"] == "auto":
        found["policy"] = _default_policy(arguments)
    return found


def _default_policy(arguments: Sequence[str]) -> str:
    """The policy for the first word on the line that names an environment; mlp where none does."""
    from ridgeline.components import default_policy
    from ridgeline.environments import make, resolve
    from ridgeline.kernel import InvalidEnvironment, define

    for before, word in zip(["", *arguments], arguments, strict=False):
        if word.startswith("-") or before in VALUED:
            continue
        try:
            found = resolve(word)
            if isinstance(found, Path):
                return default_policy(define(found, parameters=_structure(found, arguments)).observation_space)
            env = make(word, 1)
        except InvalidEnvironment:
            continue  # no environment, or one whose fault is told when it is made
        env.close()
        return default_policy(env.observation_space)
    return "mlp"


def _structure(path: Path, arguments: Sequence[str]) -> dict[str, float]:
    """The numbers on the line that change the environment's parameters, as far as they are such: shapes follow them."""
    from ridgeline.kernel import settings

    known, found = settings(path)._fields, {}  # type: ignore[attr-defined]
    words = [part for argument in arguments for part in argument.split("=", 1)]
    for word, value in pairwise(words):
        name = word.removeprefix("--environment.").replace("-", "_")
        if word.startswith("--environment.") and name in known:
            with suppress(ValueError):
                found[name] = float(value)
    return found


def did_you_mean(name: str, candidates: Sequence[str], prefix: str = "") -> str:
    """`; did you mean a, b?`, or nothing where no candidate is near."""
    near = [prefix + one for one in difflib.get_close_matches(name, candidates, 3, 0.6)]
    return f"; did you mean {', '.join(near)}?" if near else ""


# ---------------------------------------------------------------------------------------------------------- the parser


def _component_groups(named: dict[str, str]) -> dict[str, Any]:
    from ridgeline.components import find

    groups = {}
    for kind, name in named.items():
        title = tyro.conf.arg(name=f"{kind} {name}")
        groups[kind] = Annotated[find(kind, name), tyro.conf.OmitArgPrefixes, title]
    return groups


def _fields(group: Any) -> list[str]:
    kind = group.__origin__
    return list(kind._fields) if hasattr(kind, "_fields") else [field.name for field in dataclasses.fields(kind)]


def _check_names(groups: dict[str, Any]) -> None:
    """One flag, one meaning: a user's file may not use a name that is taken."""
    owner: dict[str, str] = {}
    for group, kind in groups.items():
        for name in _fields(kind):
            if name in owner:
                raise UsageError(
                    f"the {group} {kind.__origin__.__name__} has a field {name!r}, which is one of the "
                    f"{owner[name]} too; rename the field"
                )
            owner[name] = group if group == "options" else f"{group}'s"


def _parse(groups: dict[str, Any], arguments: Sequence[str], program: str, components: bool) -> tuple[Any, list[str]]:
    """(an object with one attribute per group, the flags that there are)."""
    kind = dataclasses.make_dataclass("Arguments", list(groups.items()), frozen=True)
    flags = [f"--{'environment.' * (g == 'parameters')}{n}" for g, group in groups.items() for n in _fields(group)]
    flags = [flag.replace("_", "-") for flag in flags if flag != "--environment"]
    description = inspect.cleandoc(groups["options"].__origin__.__doc__)
    messages = io.StringIO()
    try:
        with redirect_stderr(messages):
            parsed, unknown = tyro.cli(
                kind, prog=program, description=description, args=list(arguments), return_unknown_args=True
            )
    except SystemExit as error:
        if error.code:
            message = _one_line(messages.getvalue())
            raise UsageError(message if ";" in message else f"{message}; see {program} --help") from None
        raise
    if unknown:
        raise UsageError(_unknown(unknown, flags, program, components))
    return parsed, flags


def _one_line(message: str) -> str:
    """What tyro says in its box, between the title and the first rule, in one line."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", message).splitlines()]
    if "╭" not in message:  # where the terminal has no such characters, a rule follows the title
        lines = lines[next((place + 1 for place, line in enumerate(lines) if re.fullmatch("-{3,}", line)), 0) :]
    said = []
    for line in lines:
        if re.fullmatch("[─-]{3,}", line):
            break
        if not line.startswith(("╭", "╰")):
            said.append(line)
    text = " ".join(filter(None, said)).removeprefix("Error parsing ").rstrip(".")
    return re.sub(r"no type matching (\{None\}\|)?(.*) could be instantiated from \[(.*?)\].*", r"\3 is no \2", text)


def _unknown(unknown: list[str], flags: list[str], program: str, components: bool) -> str:
    first = next((token for token in unknown if token.startswith("-")), None)
    if first is None:
        return f"unexpected argument {unknown[0]!r}; see {program} --help"
    flag = first.partition("=")[0].replace("_", "-")
    if components and (owner := _owner(flag.removeprefix("--no-").removeprefix("--").replace("-", "_"))):
        return f"unknown flag {flag}: it belongs to the {owner}, which this training does not use"
    prefix = "--environment." if flag.startswith("--environment.") else "--"
    candidates = [one.removeprefix(prefix) for one in flags if one.startswith(prefix)]
    hint = did_you_mean(flag.removeprefix(prefix), candidates, prefix)
    return f"unknown flag {flag}{hint or f'; see {program} --help'}"


def _owner(field: str) -> str | None:
    """The built-in component that has a field of this name."""
    from ridgeline.components import find, names

    for kind in DEFAULTS:
        for name in names(kind):
            if any(one.name == field for one in dataclasses.fields(find(kind, name))):
                return f"{kind} {name}"
    return None


def _name(argument: str, flags: list[str]) -> str:
    """`learning_rate` for --learning-rate, --learning_rate=1 and --no-learning-rate."""
    flag = argument.partition("=")[0].replace("_", "-")
    if flag not in flags and flag.startswith("--no-"):
        flag = "--" + flag.removeprefix("--no-")
    return flag.removeprefix("--").replace("-", "_")


# ----------------------------------------------------------------------------------------- the environment's parameters


def _without(arguments: Sequence[str]) -> list[str]:
    """The arguments without help and the environment's parameters, to learn which environment it is."""
    rest, skip = [], False
    for argument in arguments:
        if argument.startswith("--environment."):
            skip = "=" not in argument
        elif skip or argument in ("-h", "--help"):
            skip = False
        else:
            rest.append(argument)
    return rest


def _parameters(environment: str, arguments: Sequence[str]) -> tuple[type, bool]:
    """(the class of the environment's parameters, whether its values are Python literals): Gymnasium takes anything."""
    from ridgeline.environments import resolve
    from ridgeline.kernel import settings

    found = resolve(environment)
    if isinstance(found, Path):
        return settings(found), False
    prefix = "--environment."
    keys = [argument.partition("=")[0].removeprefix(prefix) for argument in arguments if argument.startswith(prefix)]
    wrong = [key for key in keys if not key.replace("-", "_").isidentifier()]
    if wrong:
        raise UsageError(f"--environment.{wrong[0]} is no keyword argument; write --environment.KEY VALUE")
    fields = [(key, str) for key in dict.fromkeys(key.replace("-", "_") for key in keys)]
    return dataclasses.make_dataclass("Parameters", fields, frozen=True), True


def _changed(parameters: Any, given: set[str], literal: bool) -> dict[str, Any]:
    """What was given of the environment's parameters: of a Gymnasium one everything."""
    if parameters is None:
        return {}
    if literal:
        return {name: _literal(text) for name, text in vars(parameters).items()}
    return {name: value for name, value in parameters._asdict().items() if f"environment.{name}" in given}


def _literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
