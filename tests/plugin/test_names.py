"""Names as people have them, all the way round: release to feedback."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import left_over, ran_well
from tests.support.nbgrader import graded_cells, write_notebook

COURSE = "chem & phys + 100 % 'Ä'"


def cached(home):
    return home.value(
        "exchange.List(coursedir=coursedir, authenticator=authenticator, config=config, "
        "cached=True).start()"
    )


def solve(path):
    """Answer the question, as a student does."""
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["metadata"]["nbgrader"]["solution"]:
            cell["source"] = "x = 2"
    path.write_text(json.dumps(notebook))


@pytest.mark.parametrize(
    ("student", "assignment_id", "notebook_id"),
    [
        pytest.param("alice", "ps1", "p1", id="plain", marks=pytest.mark.slow),
        pytest.param("o'neil, 'Zoë' 🦊", "Problem Set 1 & 2", "Aufgabe Nº 1 🧪", id="any words"),
    ],
)
def test_a_whole_cycle_with_nbgraders_own_grading(machine, student, assignment_id, notebook_id):
    teacher = machine("ada", "Instructor", COURSE)
    pupil = machine(student, "Student", COURSE, full_name="Zoë O'Neil", email="zoe@example.org")
    write_notebook(
        teacher.work / "source" / assignment_id / f"{notebook_id}.ipynb", cells=graded_cells()
    )
    ran_well(teacher, "generate_assignment", assignment_id)
    ran_well(teacher, "release_assignment", assignment_id)
    ran_well(pupil, "fetch_assignment", assignment_id)
    solve(pupil.work / assignment_id / f"{notebook_id}.ipynb")
    ran_well(pupil, "submit", assignment_id)
    ran_well(teacher, "collect", assignment_id)
    ran_well(teacher, "autograde", assignment_id)
    ran_well(teacher, "generate_feedback", assignment_id)
    ran_well(pupil, "submit", assignment_id)  # later, and not what the feedback is about

    ran_well(teacher, "release_feedback", assignment_id)
    ran_well(pupil, "fetch_feedback", assignment_id)

    (group,) = cached(pupil)
    first, second = group["submissions"]
    page = pupil.work / assignment_id / "feedback" / first["timestamp"] / f"{notebook_id}.html"
    assert (first["has_local_feedback"], second["has_local_feedback"]) == (True, False)
    assert first["local_feedback_path"] == str(page.parent)
    assert "(Score: 1.0 / 1.0)" in page.read_text()
    graded = teacher.value(
        "[[s.student.id, s.student.first_name, s.student.email, s.score] "
        f"for s in api.gradebook.assignment_submissions({assignment_id!r})]"
    )
    assert graded == [[student, "Zoë", "zoe@example.org", 1.0]]


# nbgrader's converters look for files with globs and regular expressions made of these names and
# find nothing; the exchange carries them all the same.
@pytest.mark.parametrize(
    ("student", "assignment_id", "notebook_id"),
    [
        pytest.param("a+b", "ps (x)", "p (y)", id="round brackets and plus"),
        pytest.param("a[1]", "ps[1]", "p[1]", id="square brackets"),
        pytest.param("a*?", "ps.*", "p?", id="stars"),
        pytest.param('"a" \\d', "{ps} 'q' \"r\"", "p\\1", id="quotes, braces, backslashes"),
        pytest.param("%2e%2e", "a#b?c=d&e", "100 %", id="signs of an address"),
        pytest.param("-a", "ps -- 1", "--p", id="dashes"),
        pytest.param("Ünï", "ΔΣ 中文 🦊", "проба", id="alphabets"),
        pytest.param("a@example.org", "x" * 180, "n" * 150, id="long"),
    ],
)
def test_names_that_mean_something_elsewhere(machine, student, assignment_id, notebook_id):
    teacher = machine("ada", "Instructor", COURSE)
    pupil = machine(student, "Student", COURSE)
    # A backslash is a separator on some machines, so no archive may hold one.
    file_id = notebook_id.replace("\\", "")
    write_notebook(teacher.work / "release" / assignment_id / f"{file_id}.ipynb")
    named = f"--assignment={assignment_id}"

    ran_well(teacher, "release_assignment", named)
    ran_well(pupil, "fetch_assignment", named)
    ran_well(pupil, "submit", named)
    ran_well(teacher, "collect", named)
    collected = teacher.work / "submitted" / student / assignment_id
    feedback = teacher.work / "feedback" / student / assignment_id
    feedback.parent.mkdir(parents=True)
    collected.rename(feedback)
    (feedback / f"{file_id}.html").write_text("<p>Well done")
    ran_well(teacher, "release_feedback", named)
    ran_well(pupil, "fetch_feedback", named)

    (group,) = cached(pupil)
    (submission,) = group["submissions"]
    assert (group["course_id"], group["student_id"]) == (COURSE, student)
    assert group["assignment_id"] == assignment_id
    assert submission["has_local_feedback"]
    assert [nb["notebook_id"] for nb in submission["notebooks"]] == [file_id]
    assert left_over(pupil.work / assignment_id) == {
        "feedback",
        f"feedback/{submission['timestamp']}",
        f"feedback/{submission['timestamp']}/{file_id}.html",
        f"{file_id}.ipynb",
    }


def test_an_assignment_with_a_plus_is_nbgraders_own_error(teacher):
    ran = teacher.nbgrader("release_assignment", "a+b")

    assert ran.status == 1
    assert "Assignment names should not contain the following characters: +" in ran.output
