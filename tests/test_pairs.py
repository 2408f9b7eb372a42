"""docs/pairs.md against the code: which estimators go with which algorithms, what is refused, and why.

Print the page anew with `python tests/test_pairs.py > docs/pairs.md`, from the root, with src on PYTHONPATH.
"""

import re
from pathlib import Path

import pytest
import test_smoke

from ridgeline import cli, components
from ridgeline.training import Training

PAGE = Path(__file__).parents[1] / "docs" / "pairs.md"
ACTIONS = {"discrete": "cartpole", "continuous": "pendulum"}  # as in test_smoke.py
START = """# Which estimator goes with which algorithm

Any with any, unless mathematics forbids it; a pair that is forbidden is refused at the start, with the reason. The
table is made by `tests/test_pairs.py`, from what the code refuses and from what `tests/test_smoke.py` trains: two runs
side by side, two iterations, on `cartpole` (discrete actions) and `pendulum` (continuous ones).

| estimator | actions | {algorithms} |
| --- | --- |{rule}
"""

END = """
Estimators that predict the return inside the time limit want one: `static_mixture` with its undiscounted head, and
`harmonic_trace` with gamma 1, refuse an environment that has none. `adaptive_mixture` wants a policy with a method
`last_layer`, which `mlp` has.
"""


def trained() -> set[tuple[str, str, str]]:
    """(algorithm, estimator, environment) of every case of test_smoke.py that trains a pair, the slow ones too."""
    return {tuple(getattr(one, "values", one)) for one in test_smoke.combinations()}


def refusal(algorithm: str, estimator: str, environment: str) -> str | None:
    """What the code says at the start; None where it begins to train."""
    try:
        training = Training(environment, test_smoke.tiny(algorithm), estimator, total_steps=32, num_threads=1)
    except ValueError as error:
        return str(error)
    training.close()
    return None


def page() -> str:
    algorithms = components.names("algorithm")
    text = START.format(algorithms=" | ".join(algorithms), rule=" --- |" * len(algorithms))
    reasons: dict[str, list[str]] = {}
    runs = trained()
    for estimator in components.names("estimator"):
        for kind, environment in ACTIONS.items():
            cells = []
            for algorithm in algorithms:
                reason = refusal(algorithm, estimator, environment)
                if reason:
                    of_reason = reasons.setdefault(reason, [])
                    where = f"`{estimator}`, {kind} actions"
                    if where not in of_reason:
                        of_reason.append(where)
                was_run = (algorithm, estimator, environment) in runs
                cells.append("refused" if reason else "tested" if was_run else "untested")
            text += f"| `{estimator}` | {kind} | {' | '.join(cells)} |\n"
    text += "\n## What is refused\n\n"
    for reason, where in reasons.items():
        text += f'- {"; ".join(where)}: "{reason}"\n'
    return text + END


def test_the_page_says_what_the_code_does():
    assert PAGE.read_text(encoding="utf-8") == page(), "print it anew: python tests/test_pairs.py > docs/pairs.md"


def test_all_pairs_are_tested_or_refused():
    text = PAGE.read_text(encoding="utf-8")
    pairs = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", text, re.M)
    assert {name for name, *_ in pairs} == set(components.names("estimator"))
    assert "untested" not in {cell for *_, cells in pairs for cell in cells.split(" | ")}
    refused = {(name, ACTIONS[kind]) for name, kind, cells in pairs if "refused" in cells}
    assert refused == set(test_smoke.REFUSED)


@pytest.mark.parametrize("algorithm", components.names("algorithm"))
def test_the_command_refuses_in_one_line(algorithm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = cli.main(["train", "pendulum", "--algorithm", algorithm, "--estimator", "dae", "--steps", "1000"])
    said = capsys.readouterr()
    assert code == 2 and not said.out
    assert "needs a Discrete action space" in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.iterdir()), "a refused training leaves nothing behind"


if __name__ == "__main__":
    print(page(), end="")
