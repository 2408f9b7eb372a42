"""The documentation is part of the project: its examples run, its quotations and tables agree with the code.

How a block of a page is told what it is:
    ```python                      run, with the blocks above it in the page; an eighth of total_steps, 5,000 at most
    ```python, first line # x.py   saved as x.py, for the blocks and commands around it
    ```python needs=x              the same, where the package x is installed
    ```python source=x.py          copied from src/ridgeline/x.py
    ```console                     commands; those of ridgeline must parse
    ```text                        what Ridgeline says
"""

import dataclasses
import importlib.util
import json
import re
import shlex
import sys
import tomllib
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_envs import HEADINGS, assert_same, by_hand, record
from test_layering import PACKAGE, files, imports, own
from test_vocabulary import faults, reason

import ridgeline
from ridgeline import cli, components, options
from ridgeline.canvas import Canvas
from ridgeline.kernel import InvalidEnvironment, define, sample_action
from ridgeline.vector import CompiledEnv

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MAY_BE_ABSENT = ROOT / "docs" / "breakout.gif"  # the film of `make demo`


def title(page: Path) -> str:
    """README, or for example algorithms/ppo."""
    return page.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/")


each_page = pytest.mark.parametrize("page", PAGES, ids=title)


class Block(NamedTuple):
    kind: str  # what stands behind the opening fence
    text: str
    line: int  # of its first line in the page

    @property
    def file(self) -> str | None:
        """The name of the file that it is; None where it is to be run."""
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found and self.kind == "python" else None

    @property
    def runs(self) -> bool:
        """Whether it is Python to be run here."""
        kind, _, package = self.kind.partition(" needs=")
        return kind == "python" and (not package or importlib.util.find_spec(package) is not None)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0, f"{page.name}: a block has no end"
    return [
        Block(match[1], match[2], text[: match.start(2)].count("\n") + 1)
        for match in re.finditer(r"^```(\S.*)\n((?:.*\n)*?)```$", text, re.M)
    ]


def commands(page: Path) -> list[list[str]]:
    """The words of every command of the page, without the settings of environment variables before it."""
    lines = [line for block in blocks(page) if block.kind == "console" for line in block.text.splitlines()]
    assert all(line.startswith("$ ") for line in lines), f"{page.name}: a console block holds commands only"
    return [shlex.split(re.sub(r"^\$ (\w+=\S+ )*", "", line)) for line in lines]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of all pages."""
    folder = tmp_path_factory.mktemp("docs")
    for page in PAGES:
        for block in blocks(page):
            if block.file:
                assert not (folder / block.file).exists(), f"{page.name}: {block.file} is in two pages"
                (folder / block.file).write_text(block.text, encoding="utf-8")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """That folder as the working directory, from which Python imports too; modules of it are forgotten afterwards."""
    before = dict(sys.modules)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        is_own = not name.startswith("ridgeline_")  # those are told apart by their content
        if is_own and name not in before and str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


# ----------------------------------------------------------------------------------------------------------- every page


@each_page
def test_python_blocks_run(page, here, monkeypatch):
    module = types.ModuleType(f"docs_{title(page).replace('/', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page):
        if block.runs and not block.file:
            source = re.sub(
                r"total_steps=([\d_]+)", lambda found: f"total_steps={min(int(found[1]) // 8, 5_000)}", block.text
            )
            # the empty lines make a traceback show the page and the line
            exec(compile("\n" * (block.line - 1) + source, str(page), "exec"), module.__dict__)


@each_page
def test_quotations_are_in_the_source(page):
    for block in blocks(page):
        if block.kind.startswith("python source="):
            source = PACKAGE / block.kind.partition("=")[2]
            assert f"\n{block.text}" in "\n" + source.read_text(encoding="utf-8"), (
                f"{page.name}:{block.line}: this is not in {source.name} any more:\n{block.text}"
            )
        else:
            known = block.kind in ("python", "console", "text") or block.kind.startswith("python needs=")
            assert known, f"{page.name}:{block.line}: {block.kind}"


def test_there_is_something_to_compare():
    quoted = [block for block in blocks(ROOT / "docs" / "one_iteration.md") if "source=" in block.kind]
    assert len(quoted) > 8
    assert sum(len(blocks(page)) for page in PAGES) > 50


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=title)
def test_commands_exist(page, here, monkeypatch, capsys):
    parse, parsed = cli.parse, 77

    def parse_only(*arguments, **settings):
        parse(*arguments, **settings)
        raise SystemExit(parsed)

    monkeypatch.setattr(cli, "parse", parse_only)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for program, *arguments in commands(page):
        line = shlex.join([program, *arguments])
        if program == "ridgeline":
            code = cli.main(arguments)
            assert code == (0 if "--help" in arguments else parsed), f"{line}: {capsys.readouterr().err}"
        elif program == "make":
            assert arguments[0] in targets, line
        elif program == "python" and arguments[0] == "-c":
            compile(arguments[1], line, "exec")
        elif program == "python" and arguments[0].endswith("pictures.py"):
            source = (ROOT / arguments[0]).read_text(encoding="utf-8")
            assert arguments[1] in ("measure", "draw", "table"), line
            assert all(re.search(f"^def (measure|draw)_{picture}\\(", source, re.M) for picture in arguments[2:]), line
        elif program == "python" and arguments[0] == "benchmarks/economy.py":
            source = (ROOT / arguments[0]).read_text(encoding="utf-8")
            assert re.search(f"^def {arguments[1]}\\(out: str", source, re.M), line
        elif program == "pip":
            assert set(re.findall(r"\[(\w+)\]", line)) <= set(extras), line
        else:
            pytest.fail(f"{line}: teach this test how to check it")


@pytest.mark.parametrize("page", ALL_PAGES, ids=title)
def test_flags_in_the_text_exist(page, here):
    classes = [item for item in vars(options).values() if dataclasses.is_dataclass(item)]
    for kind in components.METHODS:
        own_files = [block.file for page in PAGES for block in blocks(page) if block.file]
        mine = [file for file in own_files if f"def {components.METHODS[kind]}(" in Path(file).read_text("utf-8")]
        classes += [components.find(kind, name) for name in (*components.names(kind), *mine)]
    known = {field.name.replace("_", "-") for one in classes for field in dataclasses.fields(one)}
    known |= {f"no-{name}" for name in known} | {"help", "no-deps"}  # the last is pip's
    said = set(re.findall(r"(?<![\w-])--([a-z][a-z-]*)(?![a-z.-])", page.read_text(encoding="utf-8")))
    assert not said - known


@pytest.mark.parametrize("page", ALL_PAGES, ids=title)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path = (page.parent / target).resolve()
        assert path.exists() or path == MAY_BE_ABSENT, f"{page.name}: {target} does not exist"
        assert path.is_relative_to(ROOT)


def test_every_page_is_linked_from_the_readme():
    """Or, in a folder of docs, from the folder's README, which is."""
    assert "](docs/breakout.gif)" in (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ALL_PAGES[1:]:
        in_folder = page.is_relative_to(ROOT / "docs") and page.parent != ROOT / "docs" and page.stem != "README"
        index = (page.parent if in_folder else ROOT) / "README.md"
        link = f"]({page.relative_to(index.parent).as_posix()})"
        assert link in index.read_text(encoding="utf-8"), f"{index} has no {link}"


def test_published_scores_are_quoted_word_for_word():
    """A row of published_scores.md, elsewhere: train it again, and copy it again."""
    rows = set(re.findall(r"^\| `.*$", (ROOT / "docs" / "published_scores.md").read_text("utf-8"), re.M))
    names = {row.split("`")[1] for row in rows}
    for page in PAGES:
        for line in re.findall(r"^\| `.*$", page.read_text("utf-8"), re.M):
            assert line in rows or line.split("`")[1] not in names, f"{title(page)}: {line}"


def test_examples_use_the_words_of_the_glossary(tmp_path):
    for page in PAGES:
        for number, block in enumerate(blocks(page)):
            if block.kind.partition(" needs=")[0] == "python":
                (tmp_path / f"{title(page).replace('/', '_')}_{number}.py").write_text(block.text, encoding="utf-8")
    assert len(list(tmp_path.iterdir())) > 25
    assert not faults(tmp_path)


# ------------------------------------------------------------------------------------------------ add_an_environment.md


@pytest.mark.parametrize("name", ["catch", "catch32"])
def test_the_environment_conforms(name, here):
    """As the built-in ones: compiled, plain Python and a double loop agree over whole episodes, to the last bit."""
    compiled, uncompiled = define(here / f"{name}.py"), define(here / f"{name}.py", compile=False)
    compiled, uncompiled = (one._replace(max_episode_steps=20) for one in (compiled, uncompiled))
    rows = [sample_action(compiled.action_space, np.random.default_rng(row), 300) for row in range(4)]
    action = list(np.stack(rows, 1))
    with np.errstate(over="ignore"):
        expected = by_hand(compiled, 4, 5, action)
    assert_same(record(CompiledEnv(compiled, 4, 5), action), expected)
    assert_same(record(CompiledEnv(uncompiled, 4, 5), action), expected)
    assert sum(step[2].sum() for step in expected) > 3, "no termination was seen"
    assert sum(step[3].sum() for step in expected) > 3, "no truncation was seen"
    for step in expected:
        assert all(compiled.observation_space.contains(row) for row in step[0])
    canvas = Canvas(*compiled.module.canvas_size)
    assert CompiledEnv(compiled, 1, 0).draw(0, canvas) and len(np.unique(canvas.pixels())) > 5
    if name == "catch":
        assert re.findall(r"^([A-Z]\w+)\b", compiled.module.__doc__, re.M)[1:] == HEADINGS


def test_the_world_of_several_agents_conforms(here):
    """race.py, in plain Python against one agent and one step at a time, with its own structure and another."""
    for changes in ({}, {"players": 2, "length": 5}):
        definition = define(here / "race.py", compile=False, parameters=changes)
        env, generator = CompiledEnv(definition, 3, 5), np.random.default_rng(0)
        action = [sample_action(definition.action_space, generator, env.num_rows) for _ in range(120)]
        with np.errstate(over="ignore"):
            expected = by_hand(definition, 3, 5, action)
        assert_same(record(env, action), expected)
        assert sum(step[2].sum() for step in expected) > 10
        wins = np.concatenate([step[7][:, 0] for step in expected])
        assert set(np.round(wins, 3)) == ({1.0, -0.5} if not changes else {1.0, -1.0})


def test_the_environment_is_learned(here):
    """The page's commands, with fewer steps; random play catches 0.3 apples."""
    train, watch, film, evaluate, *_ = [
        arguments for program, *arguments in commands(ROOT / "docs" / "add_an_environment.md") if program == "ridgeline"
    ]
    assert (train[0], watch[0], film[0], evaluate[0]) == ("train", "watch", "watch", "evaluate")
    train[train.index("--steps") + 1] = "30000"
    assert cli.main([*train, "--runs", "1", "--threads", "1", "--quiet"]) == 0
    returns = json.loads((here / "runs" / "catch" / "summary.json").read_text(encoding="utf-8"))["episode_return"]
    assert min(returns) > 0.9
    assert cli.main(evaluate) == 0
    assert cli.main(film) == 0
    assert (here / "catch.gif").read_bytes().startswith(b"GIF89a")


MISTAKES = [  # what is replaced in catch.py, by what; in the order of the page's messages
    ("def observe", "def look"),
    ("def step(state, action, p):", "def step(state, action):"),
    ("    observation[3] = state.drift\n", ""),
    ("    observation[3] = state.drift", "    observation[4] = state.drift"),
    ("p.fall", "p.gravity"),
    ("    state.caught += 1", "    state.score += 1"),
    ("@compiled\n", ""),
    ("    return 1.0, False", "    return 1.0"),
    ("    state.caught += 1", "    state.caught += np.random.default_rng().integers(2)"),
    ('("caught",)', '("score",)'),
    ("speed: float = 0.0625", "speed: float"),
]


def test_mistakes_in_an_environment_are_told_as_the_page_says(here, tmp_path):
    source = (here / "catch.py").read_text(encoding="utf-8")
    said = [block.text.strip() for block in blocks(ROOT / "docs" / "add_an_environment.md") if block.kind == "text"]
    assert len(said) == len(MISTAKES)
    path = tmp_path / "catch.py"
    for (old, new), expected in zip(MISTAKES, said, strict=True):
        assert source.count(old) == 1, old
        path.write_text(source.replace(old, new), encoding="utf-8")
        with pytest.raises(InvalidEnvironment) as caught:
            CompiledEnv(define(path), 2, 0).step(np.zeros(2, np.int64))
        message = str(caught.value).replace(str(path.resolve()), "catch.py")
        pattern = ".*".join(
            re.escape(part) for part in expected.split("...")
        )  # Numba's words differ from version to version
        assert re.fullmatch(pattern, message), f"say instead:\n{message}"


# -------------------------------------------------------------------------------------------------------------- metrics


def documented(heading: str = "") -> list[list[str]]:
    """The rows of the first table behind `heading` in metrics.md, without its titles."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert heading in text
    table = re.search(r"(?:^\|.*\n)+", text[text.index(heading) :], re.M)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].splitlines()[2:]]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize("critic", [True, False], ids=["critic", "no critic"])
@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_every_metric_is_documented(algorithm, critic, here, tmp_path):
    cls = components.find("algorithm", algorithm)
    estimator = "gae" if critic else components.find("estimator", "monte_carlo")(baseline="none")
    result = ridgeline.train(
        "catch.py", cls(num_envs=4, rollout_length=8), estimator,
        total_steps=1, num_runs=2, num_threads=1, out=tmp_path / "run",
    )  # fmt: skip
    [line] = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    written = {name.replace("episode_caught", "episode_STATISTIC"): value for name, value in line.items()}
    shapes = {
        name: shape
        for cell, shape, who in documented()
        for name in names_in(cell)
        if who.startswith("all") or algorithm in re.findall(r"\w+", who)
        if critic or not who.endswith("critic")
    }
    assert shapes == {name: "per run" if isinstance(value, list) else "number" for name, value in written.items()}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = documented("## summary.json")
    assert [name for row in rows for name in names_in(row[0])] == list(summary) == list(result.document())


def test_every_metric_has_a_section():
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### `(\w+)`\n\n(\S.*)", text, re.M)
    assert sorted(name for name, _ in sections) == sorted(name for row in documented() for name in names_in(row[0]))
    shown = re.findall(r"\*Healthy:\*", text)
    assert len(shown) > 10


# --------------------------------------------------------------------------------------------- the design, the glossary


def test_table_of_files():
    """The design page's table: every file once, with what it imports of the package."""
    found: dict[str, set[str]] = {}
    for name, path in files(PACKAGE).items():
        row = f"{name.partition('/')[0]}/*" if name.startswith(("envs/", "estimators/", "algorithms/")) else name
        targets = {own(module, PACKAGE) for module, _ in imports(path)} - {"__init__", None}
        found.setdefault(row, set()).update(str(target) for target in targets)
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w/*]+)` \| .* \| ?(.*?) ?\|$", text, re.M)
    assert {name: set(re.findall(r"`([\w/]+)`", cell)) for name, cell in rows} == found


def test_glossary_and_vocabulary_test_refuse_the_same_words():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    table = text[text.index("## What never to say") :]
    words = [word for row in re.findall(r"^\| ([a-z_, ]+) \|", table, re.M)[1:] for word in row.split(", ")]
    assert len(words) > 15
    assert [word for word in words if word != "act" and reason(word) is None] == []  # act is a verb: a method's name
