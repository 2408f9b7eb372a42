"""Random numbers, and a user's own environment file: helper files, the cache, processes, bad input."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import mpmath
import numba
import numpy as np
import pytest

from ridgeline import cache, kernel, state
from ridgeline.kernel import InvalidEnvironment, define, sample_action
from ridgeline.sources import local_sources
from ridgeline.vector import EVALUATION, TRAINING, CompiledEnv

PACKAGE = Path(kernel.__file__).parent

# An agent on a line: simple enough to compute by hand, with everything that a file may have.
LINE = """
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from helper import speed
from ridgeline.kernel import compiled, state_dtype, uniform

State = state_dtype(x=np.float64)
observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
action_space = spaces.Discrete(2)
max_episode_steps = 50
statistics = ("x",)


class Parameters(NamedTuple):
    gain: float = 1.0
    num_lives: int = 3


@compiled
def bounded(x):
    return min(max(x, -10.0), 10.0)


def reset(state, p):
    state.x = uniform(state)


def step(state, action, p):
    state.x = bounded(state.x + p.gain * speed(action))
    return state.x, state.x >= 9.0


def observe(state, observation, p):
    observation[0] = state.x
    observation[1] = 1.0
"""
HELPER = """
from ridgeline.kernel import compiled

SPEED = 1.0


@compiled
def speed(action):
    return SPEED if action == 1 else -SPEED
"""
RUN = """
import sys
from pathlib import Path
import numpy as np
from ridgeline.kernel import define
from ridgeline.vector import CompiledEnv

env = CompiledEnv(define(Path(sys.argv[1])), 3, 0)
total = sum(env.step(np.array([1, 0, 1])).reward.sum() for _ in range(4))
stats = getattr(env.definition.step_rows, "stats", None)
print(repr(float(total)), sum(stats.cache_misses.values()) if stats else "plain")
"""


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A fresh cache for this test, in this process."""
    directory = tmp_path / "cache"
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(kernel, "cache_directory", lambda: directory)
    return directory


def write(folder: Path, source: str = LINE, helper: str = HELPER) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "helper.py").write_text(helper, encoding="utf-8")
    (folder / "line.py").write_text(source, encoding="utf-8")
    return folder / "line.py"


def start(path: Path, directory: Path, **variables: str) -> subprocess.Popen:
    """Run RUN in a new process."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "RIDGELINE_CACHE": str(directory), **variables}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", RUN, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[float, str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    total, misses = output.split()
    return float(total), misses


def total_reward(path: Path, **parameters) -> float:
    """The same as RUN, in this process."""
    env = CompiledEnv(define(path), 3, 0, parameters=parameters)
    return float(sum(env.step(np.array([1, 0, 1])).reward.sum() for _ in range(4)))


def expected_total(speed: float) -> float:
    """The same by hand: three starts in 0 .. 1, then four steps of +, -, + `speed`."""
    start = sum(by_integers(*first_words(row), 1)[0] / 2**53 for row in range(3))
    return 4 * start + speed * (1 + 2 + 3 + 4)


# ------------------------------------------------------------------------------------------------------ random numbers


def by_integers(state: int, stream: int, count: int) -> list[int]:
    """SplitMix64 (Steele, Lea & Flood 2014) in Python's unbounded integers: the upper 53 bits of each output."""
    outputs = []
    for _ in range(count):
        state = (state + stream) % 2**64
        bits = state
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        outputs.append((bits ^ (bits >> 31)) >> 11)
    return outputs


def first_words(row: int, seed: int = 0, purpose: int = TRAINING) -> tuple[int, int]:
    """State and stream of one row, from NumPy's SeedSequence."""
    words = np.random.SeedSequence([seed, purpose]).generate_state(2 * row + 2, np.uint64)
    return int(words[2 * row]), int(words[2 * row + 1]) | 1


def instance(state: int, stream: int) -> np.record:
    row = np.zeros(1, kernel.state_dtype()).view(np.recarray)
    row.random_state, row.random_stream = state, stream
    return row[0]


def rows(count: int, seed: int = 0, purpose: int = TRAINING) -> np.recarray:
    state = np.zeros(count, kernel.state_dtype()).view(np.recarray)
    kernel.seed_rows(state, seed, purpose)
    return state


def chi_square(observed: np.ndarray, probability: np.ndarray | float) -> float:
    """Standard deviations from the expected chi-square; a fixed seed makes it one number."""
    expected = observed.sum() * np.broadcast_to(probability, observed.shape)
    freedom = observed.size - 1
    return (((observed - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_generator_known_answer():
    """The published outputs of SplitMix64 for the seed 1234567, compiled and plain, and the same in integers."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    seed, golden = 1234567, 0x9E3779B97F4A7C15
    compiled, uncompiled = instance(seed, golden), instance(seed, golden)
    next_plain = kernel.plain(kernel.next_random)
    with np.errstate(over="ignore"):
        assert [int(next_plain(uncompiled)) for _ in published] == published
    assert [int(kernel.next_random(compiled)) for _ in published] == published
    assert by_integers(seed, golden, 4) == [value >> 11 for value in published]
    one = instance(seed, golden)
    assert [kernel.uniform(one) for _ in range(4)] == [value / 2**53 for value in by_integers(seed, golden, 4)]


def test_streams_come_from_seed_purpose_and_row_alone():
    for seed, purpose in ((0, TRAINING), (0, EVALUATION), (2**63 - 1, TRAINING)):
        many, few = rows(50, seed, purpose), rows(5, seed, purpose)
        assert (many[:5] == few).all()
        assert (int(many[4].random_state), int(many[4].random_stream)) == first_words(4, seed, purpose)
    everything = np.concatenate([rows(5000, seed, purpose) for seed in (0, 1, 2) for purpose in (TRAINING, EVALUATION)])
    assert len(np.unique(everything["random_state"])) == len(everything)
    assert (everything["random_stream"] % np.uint64(2) == 1).all()


def test_uniform_is_uniform_along_a_stream_and_across_streams():
    one = rows(1)[0]
    along = np.array([kernel.uniform(one) for _ in range(30_000)])
    across = np.array([kernel.uniform(row) for row in rows(30_000)])
    for sample in (along, across):
        assert sample.min() >= 0 and sample.max() < 1
        assert abs(chi_square(np.histogram(sample, 100, (0, 1))[0], 0.01)) < 4
        pairs = np.histogram2d(sample[0::2], sample[1::2], 10, ((0, 1), (0, 1)))[0]
        assert abs(chi_square(pairs, 0.01)) < 4
        assert abs(chi_square(np.bincount((sample * 2**53).astype(np.int64) % 16, minlength=16), 1 / 16)) < 4


def test_integers_and_normal_numbers():
    one = rows(1)[0]
    count = np.bincount([kernel.random_integer(one, 7) for _ in range(21_000)], minlength=7)
    assert len(count) == 7 and abs(chi_square(count, 1 / 7)) < 4
    edges = np.linspace(-3, 3, 25)
    below = np.array([0.0, *(0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges), 1.0])
    sample = np.array([kernel.standard_normal(one) for _ in range(30_000)])
    count = np.histogram(sample, np.array([-np.inf, *edges, np.inf]))[0]
    assert abs(chi_square(count, np.diff(below))) < 4
    sample = np.array([kernel.uniform_between(one, -2.0, 5.0) for _ in range(10_000)])
    assert sample.min() >= -2 and sample.max() < 5 and abs(chi_square(np.histogram(sample, 50, (-2, 5))[0], 0.02)) < 4


def test_sine_cosine():
    """Against mpmath with 40 digits: all sizes, every quarter turn's neighbourhood, where sine or cosine is near 0."""
    plain, generator = kernel.plain(kernel.sine_cosine), np.random.default_rng(0)
    quarters = generator.integers(-636_619, 636_619, 1000) * (math.pi / 2)
    sizes = [generator.uniform(-size, size, 1500) for size in (0.8, 10, 1e3, 1e6)]
    near_zero, edges = 10.0 ** generator.uniform(-300, -1, 500), np.array([0.0, -0.0, math.pi / 4, 1e6, -1e6])
    found, exact = [], []
    with mpmath.workdps(40):
        for x in np.concatenate([*sizes, quarters, np.nextafter(quarters, 0), near_zero, edges]):
            found.append(kernel.sine_cosine(x))
            assert found[-1] == plain(x)
            exact.append((mpmath.sin(x), mpmath.cos(x)))
        error = np.abs(np.array(found) - np.array(exact)).astype(np.float64)
    assert error.max() <= 2.5e-16
    assert (error / np.spacing(np.abs(np.array(exact, np.float64)))).max() <= 3.0


def test_sine_cosine_beyond():
    plain = kernel.plain(kernel.sine_cosine)
    for x in (1e6 + 1e-9, -3e7, 5e9, -1e12, 1e15):
        assert kernel.sine_cosine(x) == plain(x) == pytest.approx((math.sin(x), math.cos(x)), rel=0, abs=2e-16 * abs(x))
    for x in (1.001e15, -1e22, 1.7e308, math.inf, math.nan):
        assert all(math.isnan(value) for value in (*kernel.sine_cosine(x), *plain(x)))


def test_copy_row():
    """Every length around a multiple of what is copied at once, at odd places: as a slice, and nothing beside it."""
    source = np.random.default_rng(0).integers(-128, 128, 60).astype(np.int8)
    for count in range(36):
        compiled, plain = np.full(50, 7.0, np.float32), np.full(50, 7.0, np.float32)
        kernel.copy_row(compiled, 3, source, 5, count)
        kernel.plain(kernel.copy_row)(plain, 3, source, 5, count)
        expected = np.full(50, 7.0, np.float32)
        expected[3 : 3 + count] = source[5 : 5 + count]
        assert (compiled == expected).all() and (plain == expected).all()
    with pytest.raises(numba.TypingError, match="int8 numbers to float32 ones, not int16 to float32"):
        kernel.copy_row(expected, 0, source.astype(np.int16), 0, 9)


# ------------------------------------------------------------------------------------------------- a user's own file


def test_two_processes_compile_at_once_and_a_third_finds_it_compiled(tmp_path):
    path, directory = write(tmp_path / "user"), tmp_path / "fresh"
    both = [start(path, directory) for _ in range(2)]
    for process in both:
        assert finish(process)[0] == pytest.approx(expected_total(1.0), rel=1e-12)
    files = sorted(directory.rglob("*"))
    assert len(list(directory.glob("*.py"))) == 1 and not list(directory.glob("*.tmp"))
    if hasattr(os, "getuid"):
        assert directory.stat().st_mode & 0o077 == 0
    total, misses = finish(start(path, directory))
    assert misses == "0" and total == pytest.approx(expected_total(1.0), rel=1e-12)
    assert sorted(directory.rglob("*")) == files
    (path.parent / "helper.py").write_text(HELPER.replace("1.0", "2.0"), encoding="utf-8")
    total, misses = finish(start(path, directory))
    assert misses == "1" and total == pytest.approx(expected_total(2.0), rel=1e-12)


def test_without_compilation_in_a_process_of_its_own(tmp_path):
    path, directory = write(tmp_path / "user"), tmp_path / "unused"
    total, misses = finish(start(path, directory, RIDGELINE_COMPILE="0"))
    assert misses == "plain" and total == pytest.approx(expected_total(1.0), rel=1e-12)
    assert not directory.exists()


@pytest.mark.parametrize(("compile", "import_line"), [(True, "from helper import speed"), (False, "import helper")])
def test_editing_a_helper_changes_results_at_once(tmp_path, own_cache, monkeypatch, compile, import_line):
    """In the same second, with the same size, while somebody else has the helper file imported, and back again."""
    source = LINE.replace("from helper import speed", import_line)
    if import_line == "import helper":
        source = source.replace("* speed(", "* helper.speed(")
    path = write(tmp_path / "user", source)
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import helper  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(state, "COMPILE", compile)
    monkeypatch.setattr(define, "__defaults__", (compile, None))
    try:
        digests = []
        for speed in (1.0, 2.0, 1.0):
            write(path.parent, source, HELPER.replace("1.0", str(speed)))
            assert total_reward(path) == pytest.approx(expected_total(speed), rel=1e-12)
            digests.append(define(path).digest)
        assert digests[0] == digests[2] != digests[1]
        assert sys.modules["helper"] is helper and helper.SPEED == 1.0
    finally:
        del sys.modules["helper"]


def test_helper_of_a_helper_in_a_package_counts(tmp_path):
    package = tmp_path / "tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text("from .second import SPEED\n")
    (package / "second.py").write_text("SPEED = 1.0\n")
    path = write(tmp_path, LINE, "from tools.first import SPEED\n" + HELPER.replace("SPEED = 1.0\n", ""))
    before = define(path, compile=False).digest
    assert {file.name for file in local_sources(path)} == {
        "line.py", "helper.py", "__init__.py", "first.py", "second.py",
        "kernel.py", "loops.py", "observations.py", "state.py",
    }  # fmt: skip
    (package / "second.py").write_text("SPEED = 2.0\n")
    assert define(path, compile=False).digest != before
    env = CompiledEnv(define(path, compile=False), 3, 0)
    total = sum(env.step(np.array([1, 0, 1])).reward.sum() for _ in range(4))
    assert total == pytest.approx(expected_total(2.0), rel=1e-12)


def test_two_environments_may_each_have_a_helper(tmp_path, own_cache):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", LINE, HELPER.replace("1.0", "2.0"))
    for path, speed in ((one, 1.0), (two, 2.0), (one, 1.0)):
        assert total_reward(path) == pytest.approx(expected_total(speed), rel=1e-12)
    assert "helper" not in sys.modules


def test_environments_that_look_alike_keep_the_fast_dispatch(tmp_path, own_cache, monkeypatch):
    """Numba's fingerprint of a NamedTuple is its class name and its field names: ours must differ."""
    environments = [CompiledEnv(define(write(tmp_path / name)), 1, 0) for name in ("one", "two")]
    for env in environments:
        env.step(np.zeros(1, np.int64))

    def slow_path(*arguments, **keywords):
        raise AssertionError("Numba looked at the types of the arguments one by one")

    for env in environments:
        monkeypatch.setattr(type(env.definition.step_rows), "_compile_for_args", slow_path)
        env.step(np.zeros(1, np.int64))


def test_an_exception_of_the_compiled_file_arrives_as_it_is(tmp_path, own_cache):
    raising = "    if p.gain > 2.0:\n        raise OverflowError('too fast')\n    return state.x,"
    source = LINE.replace("    return state.x,", raising)
    env = CompiledEnv(define(write(tmp_path, source)), 2, 0, parameters={"gain": 3.0})
    with pytest.raises(OverflowError, match="too fast"):
        env.step(np.ones(2, np.int64))


def test_helpers_are_compiled_once_for_all_constants(tmp_path, own_cache):
    """But for each where a type depends on it: here, the place in a tuple of mixed types."""
    source = LINE.replace(
        "def reset(",
        """@compiled
def mixed(place):
    return (1.0, 2)[place]


def reset(""",
    ).replace("state.x = uniform(state)", "state.x = bounded(20) + bounded(-20) + mixed(0) + mixed(1)")
    env = CompiledEnv(define(write(tmp_path, source)), 1, 0)
    assert env.observation[0, 0] == 3.0 and env.step(np.array([1])).observation[0, 0] == 4.0
    module = env.definition.module
    bounded, mixed = (helper.get_overload.__self__.overloads for helper in (module.bounded, module.mixed))
    assert sorted(map(str, (one for (one,) in bounded))) == ["float64", "int64"]
    assert len(mixed) == 2


def test_helpers_call_themselves_and_each_other_and_are_called_from_python(tmp_path, own_cache):
    source = LINE.replace(
        "def reset(",
        """@compiled
def factorial(count):
    return 1 if count < 2 else count * factorial(count - 1)


@compiled
def even(count):
    return True if count == 0 else odd(count - 1)


@compiled
def odd(count):
    return False if count == 0 else even(count - 1)


def reset(""",
    ).replace("state.x = uniform(state)", "state.x = factorial(4) + even(10)")
    definition = define(write(tmp_path, source))
    assert CompiledEnv(definition, 1, 0).observation[0, 0] == 25.0
    assert definition.module.factorial(5) == 120 and definition.module.odd(3)


def test_parameters_change_without_compiling_again(tmp_path, own_cache):
    path = write(tmp_path / "user")
    assert total_reward(path, gain=0.5) == pytest.approx(expected_total(0.5), rel=1e-12)
    assert total_reward(path, gain=2) == pytest.approx(expected_total(2.0), rel=1e-12)
    assert len(define(path).step_rows.signatures) == 1
    for changes, message in (
        ({"gravity": 1.0}, "line has no parameter 'gravity'; it has: gain, num_lives"),
        ({"num_lives": 2.5}, "line: num_lives = 2.5; use a whole number"),
        ({"gain": math.nan}, "line: gain = nan; use a finite number"),
        ({"gain": "fast"}, "line: gain = 'fast'; use a finite number"),
    ):
        with pytest.raises(InvalidEnvironment) as caught:
            CompiledEnv(define(path), 1, 0, parameters=changes)
        assert str(caught.value) == message


def test_shapes_and_counts_are_checked(tmp_path, own_cache):
    definition = define(write(tmp_path / "user"), compile=False)
    env = CompiledEnv(definition, 3, 0)
    with pytest.raises(ValueError, match=r"action has shape \(2,\); give \(3,\)"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"out is float64 \(3, 2\); give float32 \(3, 2\)"):
        env.step(np.zeros(3, np.int64), out=np.zeros((3, 2)))
    for bad in (0, 2.0):
        with pytest.raises(ValueError, match=r"num_envs = .*; use a whole number from 1"):
            CompiledEnv(definition, bad, 0)  # pyright: ignore[reportArgumentType]
    for bad in (-1, 2**63, [], [0, -1]):
        with pytest.raises(ValueError, match="seed"):
            CompiledEnv(definition, 1, bad)


# ---------------------------------------------------------------------------------------------------------------- cache


def test_cache_directory_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path / "new" / "cache"))
    directory = cache.cache_directory.__wrapped__()
    assert directory == tmp_path / "new" / "cache"
    if hasattr(os, "getuid"):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
@pytest.mark.parametrize("which", ["itself", "__pycache__"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_cache_directory_that_others_can_write_is_not_used(tmp_path, monkeypatch, which, mode):
    (tmp_path / "__pycache__").mkdir(mode=0o700)
    (tmp_path if which == "itself" else tmp_path / "__pycache__").chmod(mode)
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="can be written by others"):
        directory = cache.cache_directory.__wrapped__()
    assert directory != tmp_path and directory.stat().st_mode & 0o777 == 0o700


def test_without_a_home_directory(monkeypatch):
    for name in ("RIDGELINE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home directory")))
    with pytest.warns(UserWarning, match="no home directory"):
        assert cache.cache_directory.__wrapped__().is_dir()


def test_cache_directory_that_is_a_file_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("RIDGELINE_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="are not kept"):
        assert cache.cache_directory.__wrapped__() != tmp_path / "cache"


def test_pruning_deletes_only_what_nobody_used_for_long(own_cache):
    old, kept = f"{cache.PREFIX}old", f"{cache.PREFIX}kept"
    (own_cache / "__pycache__").mkdir()
    for name in (old, kept):
        for file in (own_cache / f"{name}.py", own_cache / "__pycache__" / f"{name}.step_rows-1.py311.nbi"):
            file.write_text("")
            os.utime(file, (0, 0))
    os.utime(own_cache / f"{kept}.py", (2**40, 0))  # read lately, written long ago
    foreign = own_cache / "notes.py"
    foreign.write_text("")
    os.utime(foreign, (0, 0))
    cache._prune(own_cache)
    left = {file.name.split(".")[0] for file in own_cache.rglob("*") if file.is_file()}
    assert old not in left and {kept, "notes"} <= left


# ------------------------------------------------------------------------------------------------------------ bad input

STEP = "    return state.x, state.x >= 9.0\n"
HINT = "State has the fields x; Parameters gain, num_lives; observation the shape (2,)"
BAD = {  # what is replaced in LINE, by what; the line that is named and what the message says
    "syntax": ("def step(state, action, p):", "def step(state, action, p)", ["syntax error: expected ':'"]),
    "import": ("import numpy as np", "import numpyy as np", ["No module named 'numpyy'"]),
    "missing function": ("def observe", "def look", ["observe missing", "observe(state, observation, p)"]),
    "not a function": ("def observe", "step = 5\n\n\ndef observe", ["step is 5; write def step(state, action, p):"]),
    "signature": ("def step(state, action, p):", "def step(state, action):", ["step must take (state, action, p)"]),
    "State": ("state_dtype(x=np.float64)", "np.dtype([('x', float)])", ["State must be made by", "state_dtype"]),
    "field twice": ("x=np.float64", "episode_length=np.int64", ["field 'episode_length' occurs more than once"]),
    "space": ("spaces.Box(-10.0, 10.0, (2,), np.float32)", "(2,)", ["observation_space must be a gymnasium.spaces"]),
    "first action": ("spaces.Discrete(2)", "spaces.Discrete(2, start=1)", ["must start at 0"]),
    "limit": ("max_episode_steps = 50", "max_episode_steps = 0", ["max_episode_steps = 0 must be a positive whole"]),
    "simd": ("max_episode_steps = 50", "max_episode_steps = 50\nsimd = 1", ["simd = 1 must be True or False"]),
    "statistics": ('("x",)', '("score",)', ["statistics names 'score', which is no field of State"]),
    "no default": ("gain: float = 1.0", "gain: float", ["default of Parameters.gain is missing; write gain: float"]),
    "text parameter": ("gain: float = 1.0", "gain: str = 'a'", ["Parameters.gain is 'a'; write gain: float = 1.0"]),
    "no NamedTuple": ("Parameters(NamedTuple)", "Parameters", ["write class Parameters(NamedTuple)"]),
    "unknown field": ("    state.x = uniform(state)", "    state.y = uniform(state)", ["no attribute 'y'", HINT]),
    "unknown parameter": ("p.gain", "p.gian", ["'Parameters' object has no attribute 'gian'", HINT]),
    "index": ("    observation[1] = 1.0", "    observation[2] = 1.0", ["index 2 is out of bounds", HINT]),
    "vector": ("    observation[1] = 1.0", "    observation[:] = np.ones(3)", ["shape (3,) into shape (2,)", HINT]),
    "unwritten": ("    observation[1] = 1.0\n", "", ["NaN or infinity in observation[1]", "all (2,) numbers"]),
    "NaN": ("    observation[1] = 1.0", "    observation[1] = np.nan", ["NaN or infinity in observation[1]"]),
    "reward alone": (STEP, "    return state.x\n", ["step returned", "return (reward, terminated): a finite number"]),
    "three results": (STEP, "    return state.x, False, False\n", ["return (reward, terminated): a finite number"]),
    "text reward": (STEP, "    return 'a', False\n", ["step returned ('a', False); return (reward, terminated)"]),
    "NaN reward": (STEP, "    return np.nan, False\n", ["step returned (nan, False); return (reward, terminated)"]),
    "no flag": (STEP, "    return 1.0, None\n", ["step returned (1.0, None)", "and True or False"]),
    "two types": ("    state.x = bounded", "    y = 'a' if action else 1.0\n    state.x = bounded", ["Cannot unify"]),
    "bare helper": ("@compiled\n", "", ["Untyped global name 'bounded'", "@compiled above def bounded"]),
    "inside a helper": ("return min(", "return float(str(int(x))) if x > 99 else min(", ["float(unicode_type)"]),
}  # fmt: skip
NO_LINE = {"missing function", "not a function", "State", "space", "first action", "limit", "simd", "statistics",
           "no default", "text parameter", "no NamedTuple"}  # fmt: skip
PLACE = {"unwritten": "def observe", "NaN": "def observe", "unknown parameter": "p.gian", "field twice": "State =",
         "two types": "y = 'a'", "bare helper": "bounded(state"}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_refused_with_the_place_and_the_rule(tmp_path, own_cache, case):
    old, new, expected = BAD[case]
    assert LINE.count(old) == 1
    path = write(tmp_path, LINE.replace(old, new))
    with pytest.raises(InvalidEnvironment) as caught:
        env = CompiledEnv(define(path), 2, 0)
        env.step(sample_action(env.action_space, np.random.default_rng(0), 2))
    message = str(caught.value)
    assert message.startswith(str(path)), message
    for part in expected:
        assert part in message, message
    if case not in NO_LINE:
        line = int(message.removeprefix(f"{path}:").split(":")[0])
        place = PLACE.get(case) or ("def step" if STEP == old else new.strip())
        assert place in path.read_text().splitlines()[line - 1], message
    assert len(message.splitlines()) <= 3
    for generated in own_cache.glob("*.py"):
        sys.modules.pop(generated.stem, None)


def test_error_in_a_helper_file_names_the_helper_file(tmp_path, own_cache):
    path = write(tmp_path, LINE, textwrap.dedent(HELPER).replace("SPEED = 1.0", "SPEED = 1.0 +"))
    with pytest.raises(InvalidEnvironment, match=r"helper\.py:4: syntax error: invalid syntax\n    SPEED = 1\.0 \+"):
        define(path)
    path = write(tmp_path, LINE, HELPER.replace("SPEED if", "SPEEDY if"))
    with pytest.raises(InvalidEnvironment, match=r"helper\.py:9: NameError: name 'SPEEDY' is not defined"):
        define(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidEnvironment, match=r"nowhere\.py: no such file"):
        define(tmp_path / "nowhere.py")


def test_a_mended_file_works_in_the_same_process(tmp_path, own_cache):
    path = write(tmp_path, LINE.replace("observation[1]", "observation[2]"))
    with pytest.raises(InvalidEnvironment, match="out of bounds"):
        define(path)
    assert define(write(tmp_path)).name == "line"
