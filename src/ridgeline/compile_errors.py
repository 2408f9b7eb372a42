"""What Numba says of a user's environment, cut down to the file, the line, the reason and the way to write it."""

import linecache
import re
import traceback
from pathlib import Path

import numba

from ridgeline.sources import SHARED, InvalidEnvironment, local_sources

# The first pattern found in the reason, or in the line of code, says how to write it instead.
WAYS = (
    (r"Untyped global name '(\w+)'.*'function'", r"write @compiled above def \1; it is ridgeline.kernel.compiled"),
    (r"Untyped global name '(\w+)'.*'type'", r"\1 is a class: use numbers, and arrays that are fields of State"),
    (r"name '(\w+)' is not defined", r"give \1 a value at the top of the file, or import it there"),
    (r"Can't unify return type", "let every return give the same types: return reward, terminated"),
    (r"unify .*'(\w+)'", r"a variable keeps its type: begin with \1 = 0.0 where it will be a fraction, not None"),
    (r"IMPORT_NAME", "import at the top of the file; random numbers come from uniform(state) of ridgeline.kernel"),
    (r"STORE_GLOBAL", "a global cannot change: what an instance remembers is a field of State"),
    (r"random", "random numbers come from the state: uniform(state), random_integer(state, count) of ridgeline.kernel"),
    (r"f-string|format", "text is not for compiled code: keep numbers, and make text of them in draw"),
    (r"has no field", "add it to state_dtype(...), or mend the name"),
    (r"DictType|dict\b", "a dictionary has keys of one type and values of one type: use if and elif, or a tuple"),
    (r"list", "a list holds numbers of one type: use an array that is a field of State, name=(np.float64, (8,))"),
    (r"getiter", "loop over range(...) or over values of one type"),
    (r"reflected|unicode|Literal\[str\]|str", "compare and store numbers: text is not for compiled code"),
    (r"Unknown attribute", "compiled code knows numbers, arrays, math and NumPy's functions of numbers"),
    (r"Function\(<function (\w+)", r"\1 does not take these arguments here: use math on numbers, or write the loop"),
)
ELSE = "Use numbers, arrays, math and NumPy functions, and helpers decorated with @ridgeline.kernel.compiled"


def is_compile_error(error: Exception) -> bool:
    """Whether an error arose in Numba while it compiled, and not in compiled code that ran."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return type(error).__module__.startswith("numba") or Path(numba.__file__).parent in Path(last).parents


def compile_error(error: Exception, path: Path) -> InvalidEnvironment:
    """The error for whoever wrote the environment file at `path`."""
    text = str(error)
    sources = sorted(set(local_sources(path)) - set(SHARED))
    places = _places(text, sources)
    if isinstance(error, KeyError):  # all that Numba says of a field that is not there
        name = rf"\.{re.escape(str(error.args[0]))}\b"
        places = _search(name, sources)
        is_part = bool(places) and re.search(r"observation" + name, _code(places[0]))
        text = f"{'observation' if is_part else 'State'} has no field {error}"
    if not places and (unknown := re.search(r"name '(\w+)' is not defined", text)):
        places = _search(rf"\b{unknown[1]}\b", sources)
    place = f"{places[0][0]}:{places[0][1]}" if places else str(path)
    code = _code(places[0]) if places else ""
    reason = _reason(text)
    return InvalidEnvironment(
        f"{place}: cannot be compiled: {reason}{code and chr(10) + '    ' + code}\n"
        f"    {_way(reason, code)}; RIDGELINE_COMPILE=0 runs the file as plain Python"
    )


def _places(text: str, sources: list[Path]) -> list[tuple[Path, int]]:
    """The lines of the user's own files that the message names, in either of its forms, in its order."""
    found = re.findall(r'File "([^"]+)", line (\d+)|(?:at|from) (/?[^\s()"]+\.py) \((\d+)\)', text)
    places = [(Path(one or other).resolve(), int(line or number)) for one, line, other, number in found]
    return [(file, line) for file, line in places if file in sources]


def _search(pattern: str, sources: list[Path]) -> list[tuple[Path, int]]:
    return [
        (file, line)
        for file in sources
        for line, code in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, code.partition("#")[0])
    ]


def _code(place: tuple[Path, int]) -> str:
    return linecache.getline(str(place[0]), place[1]).strip()


def _reason(text: str) -> str:
    skipped = ("Failed in", "During", "File", "-", "def ", "^", "This error", "Overload")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(skipped)]
    reason = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return re.sub(r" Raised from \S+ \(\d+\)$", "", reason).split(", defined at")[0]


def _way(reason: str, code: str) -> str:
    for text in (reason, code.partition("#")[0]):
        for pattern, way in WAYS:
            if found := re.search(pattern, text):
                said = found.expand(way)
                return said if way.startswith(r"\1") else said[0].upper() + said[1:]
    return ELSE
