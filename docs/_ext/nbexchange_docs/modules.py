"""Every module of the package, folder by folder, with the first paragraph of its docstring."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from nbexchange_docs.elsewhere import ROOT
from nbexchange_docs.options import cell, prose


def modules() -> str:
    package = ROOT / "nbexchange"
    folders = [package, *sorted(file.parent for file in package.rglob("*/__init__.py"))]
    return "\n".join(line for folder in folders for line in _folder(folder))


def _folder(folder: Path) -> Iterator[str]:
    yield f"## `{folder.relative_to(ROOT)}/`\n"
    yield f"{prose(_purpose(folder / '__init__.py'))}\n"
    yield "| module | purpose |\n|---|---|"
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield f"| `{file.name}` | {cell(prose(_purpose(file)))} |"
    yield ""


def _purpose(file: Path) -> str:
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return inspect.cleandoc(doc).partition("\n\n")[0]
