from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.plugin.middleman import Middleman, middleman
from tests.support.nbgrader import Home, Ran, Zygote, write_notebook
from tests.support.nbgrader import zygote as running_zygote
from tests.support.service import Service

Machine = Callable[..., Home]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with running_zygote() as running:
        yield running


@pytest.fixture
def machine(service: Service, zygote: Zygote, tmp_path: Path) -> Machine:
    """Give a user a machine of their own and a role in a course."""

    def make(name: str, role: str = "Student", course_id: str = "physics", **identity: Any) -> Home:
        token = service.enrol(name, {course_id: role}, token=f"token-1-{quote(name)}", **identity)
        folder = tmp_path / f"machine-{len(list(tmp_path.glob('machine-*')))}"
        return Home(folder, service.url, token, zygote, course_id)

    return make


@pytest.fixture
def teacher(machine: Machine) -> Home:
    return machine("ada", "Instructor")


@pytest.fixture
def alice(machine: Machine) -> Home:
    return machine("alice")


@pytest.fixture
def released(teacher: Home) -> str:
    """An assignment that is released, with notebooks at the top and below."""
    folder = teacher.work / "release" / "ps1"
    for name in ("p1.ipynb", "p2.ipynb", "extra/p3.ipynb"):
        write_notebook(folder / name)
    (folder / "data.csv").write_text("1,2\n")
    ran = teacher.nbgrader("release_assignment", "ps1")
    assert ran.status == 0, ran.output
    return "ps1"


@pytest.fixture
def trouble(service: Service) -> Iterator[Middleman]:
    """A proxy between all machines and the service that makes trouble; see middleman.py."""
    with middleman(service.url) as between:
        yield between


def left_over(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def fetched(student: Home, assignment_id: str) -> set[str]:
    """The files that a student gets by fetching it."""
    ran = student.nbgrader("fetch_assignment", assignment_id)
    assert ran.status == 0, ran.output
    return left_over(student.work / assignment_id)


def ran_well(home: Home, *arguments: str) -> Ran:
    ran = home.nbgrader(*arguments)
    assert ran.status == 0, ran.output
    return ran


def submit(home: Home, text: str = "my work", assignment_id: str = "ps1") -> str:
    """Fetch if need be, write, submit; the official time."""
    folder = home.work / assignment_id
    if not folder.exists():
        ran_well(home, "fetch_assignment", assignment_id)
    (folder / "p1.ipynb").write_text(text)
    ran = ran_well(home, "submit", assignment_id)
    return ran.lines[-1].partition(f"{assignment_id} ")[2]
