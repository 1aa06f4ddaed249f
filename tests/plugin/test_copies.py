"""Which folder is a student's copy of an assignment, and of which course."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.plugin.conftest import Machine, left_over, ran_well, submit
from tests.plugin.test_feedback import generate, states
from tests.support.nbgrader import Home, write_notebook
from tests.support.service import Service

DOWNLOADED = "physics ps1 (already downloaded)"


@pytest.fixture
def answered(teacher: Home, alice: Home, released: str) -> str:
    """Alice has submitted, and feedback is released; the official time."""
    timestamp = submit(alice)
    ran_well(teacher, "collect", "ps1")
    generate(teacher)
    ran_well(teacher, "release_feedback", "ps1")
    return timestamp


# A folder without any of the release's notebooks


def feedback_alone(folder: Path) -> None:
    (folder / "feedback/2026-01-01 10:00:00.000000 UTC").mkdir(parents=True)


def nothing(folder: Path) -> None:
    folder.mkdir()


def other_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    write_notebook(folder / "attempt.ipynb")


@pytest.mark.parametrize("make", [nothing, feedback_alone, other_files])
def test_a_folder_without_the_releases_notebooks_is_not_a_copy(alice, released, make):
    make(alice.work / "ps1")
    before = left_over(alice.work / "ps1")

    listed = ran_well(alice, "list")
    refused = alice.nbgrader("submit", "ps1")
    fetched = ran_well(alice, "fetch_assignment", "ps1")

    assert listed.lines[1:] == ["[ListApp | INFO] physics ps1"]
    assert refused.status == 1
    assert "ps1 not submitted. The folder has none of the release's notebooks." in refused.output
    assert "WARNING" not in fetched.output
    assert left_over(alice.work / "ps1") > before
    assert (alice.work / "ps1/p1.ipynb").is_file()
    assert DOWNLOADED in ran_well(alice, "list").output
    ran_well(alice, "submit", "ps1")


def test_a_refused_folder_leaves_the_last_submission_the_newest(teacher, alice, released):
    submit(alice, "my work")
    shutil.rmtree(alice.work / "ps1")
    feedback_alone(alice.work / "ps1")

    assert alice.nbgrader("submit", "ps1").status == 1

    ran_well(teacher, "collect", "ps1")
    assert (teacher.work / "submitted/alice/ps1/p1.ipynb").read_text() == "my work"


def test_a_fetch_beside_the_students_own_files_changes_none_of_them(alice, released):
    mine = alice.work / "ps1/data.csv"
    mine.parent.mkdir()
    mine.write_text("mine")

    ran_well(alice, "fetch_assignment", "ps1")

    assert mine.read_text() == "mine"


def test_one_of_the_notebooks_is_enough(alice, released):
    write_notebook(alice.work / "ps1/extra/p3.ipynb")

    assert DOWNLOADED in ran_well(alice, "list").output
    assert "POSSIBLE MISSING" in ran_well(alice, "submit", "ps1").output.upper()


def test_work_on_an_older_release_is_submitted_though_its_notebooks_got_other_names(
    teacher, alice, released
):
    ran_well(alice, "fetch_assignment", "ps1")
    shutil.rmtree(teacher.work / "release/ps1")
    write_notebook(teacher.work / "release/ps1/problem1.ipynb")
    ran_well(teacher, "release_assignment", "ps1", "--force")
    (alice.work / "ps1/p1.ipynb").write_text("my work")

    assert DOWNLOADED in ran_well(alice, "list").output
    ran_well(alice, "submit", "ps1")

    ran_well(teacher, "collect", "ps1")
    assert (teacher.work / "submitted/alice/ps1/p1.ipynb").read_text() == "my work"


def test_a_release_without_notebooks_is_submitted_as_it_is(teacher, alice):
    folder = teacher.work / "release/ps1"
    folder.mkdir(parents=True)
    (folder / "task.txt").write_text("Write an essay.")
    ran_well(teacher, "release_assignment", "ps1")

    ran_well(alice, "fetch_assignment", "ps1")

    assert DOWNLOADED in ran_well(alice, "list").output
    ran_well(alice, "submit", "ps1")


# A folder that was renamed


def test_feedback_goes_to_the_folder_that_the_student_renamed(alice, answered):
    (alice.work / "ps1").rename(alice.work / "my ps1")

    ran_well(alice, "fetch_feedback", "ps1")

    assert not (alice.work / "ps1").exists()
    assert left_over(alice.work / "my ps1/feedback" / answered) == {"p1.html", "p2.html"}
    assert states(alice) == [(True, True, False)]


def test_feedback_whose_folder_is_gone_does_not_pass_for_a_copy(alice, answered):
    shutil.rmtree(alice.work / "ps1")

    ran_well(alice, "fetch_feedback", "ps1")

    assert states(alice) == [(True, True, False)]
    assert DOWNLOADED not in ran_well(alice, "list").output
    ran_well(alice, "fetch_assignment", "ps1")
    assert (alice.work / "ps1/p1.ipynb").is_file()
    assert states(alice) == [(True, True, False)]


def test_feedback_stays_with_the_new_copy_where_an_old_one_was_renamed(alice, answered):
    (alice.work / "ps1").rename(alice.work / "old")
    ran_well(alice, "fetch_assignment", "ps1")

    ran_well(alice, "fetch_feedback", "ps1")

    assert (alice.work / "ps1/feedback" / answered / "p1.html").is_file()
    assert not (alice.work / "old/feedback").exists()


# A folder of another course


@pytest.fixture
def two_courses(service: Service, released: str, machine: Machine) -> Home:
    """ps1 is released in physics and in maths; bob has fetched that of physics."""
    maths = machine("eve", "Instructor", "maths")
    for name in ("p1.ipynb", "p2.ipynb"):
        write_notebook(maths.work / "release/ps1" / name, "maths")
    ran_well(maths, "release_assignment", "ps1")
    bob = machine("bob")
    service.enrol("bob", dict.fromkeys(("physics", "maths"), "Student"), token=bob.token)
    ran_well(bob, "fetch_assignment", "ps1")
    return bob


def test_a_folder_of_one_course_is_not_submitted_to_another(two_courses):
    refused = two_courses.nbgrader("submit", "ps1", "--course=maths")

    assert refused.status == 1
    assert (
        "Nothing was submitted. The folder ps1 was fetched from the course physics, and this "
        "submission is for maths." in refused.output
    )
    assert ran_well(two_courses, "list", "--cached", "--course=maths").lines[1:] == []
    ran_well(two_courses, "submit", "ps1", "--course=physics")


def test_a_folder_of_one_course_is_not_downloaded_for_another(two_courses):
    assert "downloaded" not in ran_well(two_courses, "list", "--course=maths").output
    assert "downloaded" in ran_well(two_courses, "list", "--course=physics").output


@pytest.mark.parametrize("option", [[], ["--replace"]], ids=["fetch", "replace"])
def test_a_folder_of_one_course_gets_no_files_of_another(two_courses, option):
    before = left_over(two_courses.work)

    refused = two_courses.nbgrader("fetch_assignment", "ps1", "--course=maths", *option)

    assert refused.status == 1
    assert "The folder ps1 contains an assignment of the course physics, not of maths." in (
        refused.output
    )
    assert left_over(two_courses.work) == before


def test_the_advice_leads_to_both_submissions(two_courses):
    (two_courses.work / "ps1").rename(two_courses.work / "physics ps1")

    ran_well(two_courses, "fetch_assignment", "ps1", "--course=maths")

    ran_well(two_courses, "submit", "ps1", "--course=maths")
    assert two_courses.nbgrader("submit", "ps1", "--course=physics").status == 1


def test_a_new_folder_with_the_number_of_a_deleted_one_belongs_to_its_own_course(two_courses):
    """A disk gives the inode number of a deleted folder to the next one."""
    shutil.rmtree(two_courses.work / "ps1")
    ran_well(two_courses, "fetch_assignment", "ps1", "--course=maths")

    ran_well(two_courses, "submit", "ps1", "--course=maths")
