"""The next command removes what killed commands left in users' folders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.plugin.conftest import ran_well, submit
from tests.support.nbgrader import Home

NAME = ".nbexchange-abc_1234"


def left_behind(parent: Path) -> Path:
    """By a command that was killed two days ago."""
    folder = parent / NAME
    (folder / "new").mkdir(parents=True)
    (folder / "new" / "p1.ipynb").write_text("a whole copy")
    then = time.time() - 2 * 24 * 60 * 60
    os.utime(folder, (then, then))
    return folder


@pytest.mark.parametrize("course_too", [False, True], ids=["plain", "below its course"])
def test_in_a_students_folders_and_cache(alice: Home, released: str, *, course_too: bool) -> None:
    alice.configure(f"c.Exchange.path_includes_course = {course_too}")
    place = alice.work / "physics" if course_too else alice.work
    caches = [left_behind(alice.cache / course) for course in ("physics", "chemistry")]
    fetching = left_behind(place)
    ran_well(alice, "fetch_assignment", "ps1")
    after_fetch = [folder.exists() for folder in (fetching, *caches)]

    left_behind(place)
    again = alice.nbgrader("fetch_assignment", "ps1")
    after_refusal = fetching.exists()

    for folder in (place, alice.cache / "physics"):
        left_behind(folder)
    ran_well(alice, "submit", "ps1")

    assert after_fetch == [False, False, False]
    assert again.status == 1
    assert not after_refusal
    assert not list(alice.folder.rglob(NAME))


@pytest.mark.parametrize(
    "structure", ["{student_id}/{assignment_id}", "{assignment_id}/{student_id}"]
)
def test_in_an_instructors_folders_also_where_nothing_new_is_collected(
    teacher: Home, alice: Home, released: str, structure: str
) -> None:
    teacher.configure(f"c.CourseDirectory.directory_structure = '{{nbgrader_step}}/{structure}'")
    submit(alice)
    ran_well(teacher, "collect", "ps1")
    (receipt,) = (teacher.work / "submitted").rglob("submission_receipt.json")
    left_behind(receipt.parent.parent)

    ran_well(teacher, "collect", "ps1")

    assert not list(teacher.folder.rglob(NAME))
    assert receipt.exists()
