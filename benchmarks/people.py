"""Who takes part: an instructor and students, in the form of a token file.

The names and tokens are always the same, so that a file made once for a service that runs
elsewhere (`--make-tokens`) fits every later run against it.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COURSE = "benchmark"
FEW = "benchmark-few"
MANY = "benchmark-many"

INSTRUCTOR = "benchmark-instructor"


@dataclass(frozen=True)
class People:
    instructor: str
    """A token, as all here."""
    students: list[str]


def make_tokens(file: Path, students: int) -> None:
    """Write a token file with fresh secrets, for a `TokenFileUserHandler`."""
    known = {secrets.token_hex(16): _person(INSTRUCTOR, "Instructor")}
    for number in range(students):
        known[secrets.token_hex(16)] = _person(f"benchmark-student-{number:04}", "Student")
    file.write_text(json.dumps(known, indent=1))


def read_tokens(file: Path) -> People:
    known: dict[str, dict[str, Any]] = json.loads(file.read_text())
    tokens = {person["name"]: token for token, person in known.items()}
    instructor = tokens.pop(INSTRUCTOR)
    names = sorted(name for name in tokens if name.startswith("benchmark-student-"))
    return People(instructor, [tokens[name] for name in names])


def _person(name: str, role: str) -> dict[str, Any]:
    return {"name": name, "courses": dict.fromkeys((COURSE, FEW, MANY), role)}
