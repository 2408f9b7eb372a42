"""What there is, from the sources: nothing is imported."""

import ast
from pathlib import Path


def summaries(kind: str) -> dict[str, str]:
    """name -> first line of the docstring, of the environments, algorithms, estimators or policies."""
    package = Path(__file__).resolve().parent
    if kind == "policies":
        nodes = [node for file in ("policies", "recurrent_policies") for node in _tree(package / f"{file}.py").body]
        # their configurations: dataclasses, and none that others are made of
        found = [n for n in nodes if isinstance(n, ast.ClassDef) and n.decorator_list and not n.name.startswith("_")]
        return {node.name.lower(): _first_line(node) for node in found}
    folder = package / {"environments": "envs"}.get(kind, kind)
    return {file.stem: _first_line(_tree(file)) for file in sorted(folder.glob("[!_]*.py"))}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _first_line(node: ast.Module | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
