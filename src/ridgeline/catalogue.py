"""What there is, from the sources: nothing is imported."""

import ast
from pathlib import Path


def summaries(kind: str) -> dict[str, str]:
    """name -> first line of the docstring, of the environments, algorithms, estimators or policies."""
    package = Path(__file__).resolve().parent
    if kind == "policies":
        classes = [node for node in _tree(package / "policies.py").body if isinstance(node, ast.ClassDef)]
        return {
            c.name.lower(): _first_line(c) for c in classes if any(getattr(f, "name", "") == "build" for f in c.body)
        }
    folder = package / {"environments": "envs"}.get(kind, kind)
    return {file.stem: _first_line(_tree(file)) for file in sorted(folder.glob("[!_]*.py"))}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _first_line(node: ast.Module | ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
