"""One word for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import nbexchange

PACKAGE = Path(nbexchange.__file__).parent


def test_no_class_name_stands_for_two_things() -> None:
    where = defaultdict(list)
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(str(file.relative_to(PACKAGE)))

    assert {name: files for name, files in where.items() if len(files) > 1} == {}
