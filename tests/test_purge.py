"""nbexchange purge: two steps, both recorded; only what was told is erased."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import course
from tests.support.archives import tar_gz, upload_headers
from tests.support.commands import run_for
from tests.support.course import give_feedback, receipt, release, submit
from tests.support.service import Service, Wire

Said = pytest.CaptureFixture[str]

TABLES = ("course", "user", "subscription", "assignment", "release", "submission", "feedback")
PS2 = {"course_id": "physics", "assignment_id": "ps2"}


def send(wire: Wire, path: str, body: bytes, **params: str) -> dict[str, Any]:
    return receipt(wire.post(path, body, upload_headers(body), **params))


@pytest.fixture
def used(service: Service) -> Service:
    """Two courses and two organisations; bob is everywhere, chloe in physics only."""
    ada, bob, chloe = (
        service.instructor(),
        service.wire(service.enrol("bob", {"physics": "Student", "maths": "Student"})),
        service.student(name="chloe"),
    )
    send(ada, "assignment", tar_gz(p2=b"{}"), **PS2)
    receipt(release(ada))
    for number in range(2):
        for student in (bob, chloe):
            given = receipt(submit(student, tar_gz(p1=f"work {number}".encode())))
            receipt(give_feedback(ada, given["submission_id"], b"good"))
            receipt(give_feedback(ada, given["submission_id"], b"good"))
    assert course.collect(ada, given["submission_id"]).status_code == 200
    send(bob, "submission", tar_gz(p2=b"bob"), **PS2)

    other = {"course_id": "maths", "assignment_id": "ps1"}
    send(service.instructor("maths", "emmy"), "assignment", tar_gz(m=b"{}"), **other)
    send(bob, "submission", tar_gz(m=b"bob"), **other)
    abroad = service.instructor(name="ada", org_id=2)
    receipt(release(abroad))
    receipt(submit(service.student(name="bob", org_id=2)))
    return service


def ask(service: Service, capsys: Said, *arguments: str) -> str:
    """Ask for a purge; returns its code."""
    assert run_for(service, "purge", *arguments) == 0
    found = re.search("--confirm=(.*)", capsys.readouterr().out)
    assert found
    return found[1]


def confirm(service: Service, code: str) -> int | str | None:
    return run_for(service, "purge", f"--confirm={code}")


def count(service: Service) -> dict[str, int]:
    return {table: len(course.rows(service, table)) for table in TABLES}


def stored(service: Service) -> tuple[dict[str, int], int]:
    return count(service), len(service.files())


def records(service: Service) -> list[dict[str, Any]]:
    return course.rows(service, "purge")


def test_the_first_step_tells_what_would_go_and_erases_nothing(used: Service, capsys: Said) -> None:
    before = stored(used)

    assert run_for(used, "purge", "--course=physics") == 0

    said = capsys.readouterr().out
    works = [tar_gz(p1=b"work 0"), tar_gz(p1=b"work 1")]
    files = [course.WORK, tar_gz(p2=b"{}"), *2 * works, tar_gz(p2=b"bob"), *4 * [b"good"]]
    assert "Nothing is erased yet" in said
    assert (
        "organisation 1, course 'physics': 2 releases, 5 submissions, 8 feedback; "
        f"11 files of {sum(map(len, files)):,} bytes" in said
    )
    assert stored(used) == before


def test_a_course_is_erased_with_its_people_and_no_other_course_is_touched(
    used: Service, capsys: Said
) -> None:
    code = ask(used, capsys, "--course=physics")

    assert confirm(used, code) == 0

    assert {(row["org_id"], row["course_id"]) for row in course.rows(used, "course")} == {
        (1, "maths"),
        (2, "physics"),
    }
    # Bob and emmy are in maths; chloe and ada were in physics only.
    assert sorted((row["org_id"], row["name"]) for row in course.rows(used, "user")) == [
        (1, "bob"),
        (1, "emmy"),
        (2, "ada"),
        (2, "bob"),
    ]
    assert count(used)["submission"] == 2
    assert {path.name for path in used.files()} == set(course.blobs(used))
    course.assert_every_row_has_its_bytes(used)
    assert "Erased of organisation 1, course 'physics'" in capsys.readouterr().out


def test_an_assignment_is_erased_and_the_others_stay(used: Service, capsys: Said) -> None:
    code = ask(used, capsys, "--course=physics", "--assignment=ps1")

    assert confirm(used, code) == 0

    physics = [row["assignment_id"] for row in course.rows(used, "assignment")]
    assert sorted(physics) == ["ps1", "ps1", "ps2"]  # maths', the other organisation's, ours
    assert count(used)["feedback"] == 0
    assert {path.name for path in used.files()} == set(course.blobs(used))


def test_a_student_is_erased_from_one_course(used: Service, capsys: Said) -> None:
    code = ask(used, capsys, "--course=physics", "--student=bob")

    assert confirm(used, code) == 0

    left = {row["id"]: row for row in course.rows(used, "user")}
    handed_in = [left[row["user_pk"]]["name"] for row in course.rows(used, "submission")]
    assert sorted(handed_in) == ["bob", "bob", "chloe", "chloe"]  # his in maths, and his namesake's
    assert count(used)["release"] == 4
    assert {path.name for path in used.files()} == set(course.blobs(used))


def test_a_student_is_erased_everywhere_with_every_trace(used: Service, capsys: Said) -> None:
    (bob,) = [
        row for row in course.rows(used, "user") if (row["org_id"], row["name"]) == (1, "bob")
    ]
    tokens = {
        row["token"] for row in course.rows(used, "submission") if row["user_pk"] == bob["id"]
    }
    code = ask(used, capsys, "--student=bob")

    assert confirm(used, code) == 0

    for table in ("subscription", "submission", "event"):
        for row in course.rows(used, table):
            assert row["user_pk"] != bob["id"], table
            assert row.get("token") not in tokens, table
    names = sorted((row["org_id"], row["name"]) for row in course.rows(used, "user"))
    assert names == [(1, "ada"), (1, "chloe"), (1, "emmy"), (2, "ada"), (2, "bob")]
    assert count(used)["release"] == 4
    course.assert_every_row_has_its_bytes(used)


@pytest.mark.parametrize(
    ("erased", "left"), [("--student=chloe", ["bob"] * 2), ("--assignment=ps1", [])]
)
def test_a_page_of_a_history_leads_on_where_its_event_was_erased(
    used: Service, capsys: Said, erased: str, left: list[str]
) -> None:
    ada, question = used.instructor(), {"course_id": "physics", "action": "submitted"}
    page = ada.get("history", **question, limit=2).json()

    assert names_in(page) == ["bob", "chloe"]  # bob's of ps2, and one of two each of ps1
    assert confirm(used, ask(used, capsys, "--course=physics", erased)) == 0
    rest = ada.get("history", **question, limit=10, page=page["next"])
    assert names_in(rest.json()) == left


def names_in(history: dict[str, Any]) -> list[str]:
    return [
        action["user"]
        for tree in history["value"]
        for assignment in tree["assignments"]
        for action in assignment["actions"]
    ]


def test_the_service_goes_on_and_the_erased_may_come_back(used: Service, capsys: Said) -> None:
    assert confirm(used, ask(used, capsys, "--student=chloe")) == 0

    chloe = used.student(name="chloe")
    assert course.submissions(chloe) == []
    assert receipt(submit(chloe))["student"] == "chloe"


# -- and only then


def late_submission(service: Service) -> None:
    receipt(submit(service.student(), tar_gz(p1=b"at the last minute")))


def late_feedback(service: Service) -> None:
    (first, *_) = course.rows(service, "submission")
    receipt(give_feedback(service.instructor(), first["token"], b"on second thoughts"))


def late_release(service: Service) -> None:
    receipt(release(service.instructor(), tar_gz(p1=b"again")))


def another_purge(service: Service) -> None:
    purge_id = course.purge(service.instructor())
    assert run_for(service, "purge", f"--confirm={purge_id}") == 0


SINCE: dict[str, Callable[[Service], None]] = {
    "a submission": late_submission,
    "feedback": late_feedback,
    "a release": late_release,
    "something went": another_purge,
}


@pytest.mark.parametrize("happen", SINCE.values(), ids=SINCE)
def test_nothing_is_erased_when_something_has_changed_since(
    used: Service, capsys: Said, happen: Callable[[Service], None]
) -> None:
    code = ask(used, capsys, "--course=physics")
    happen(used)
    before = stored(used)

    said = str(confirm(used, code))

    assert "Rows were added or removed since" in said
    assert "Request the purge again" in said
    assert stored(used) == before
    (asked,) = (record for record in records(used) if record["code"] == code)
    assert asked["erased_at"] is None


def test_what_changes_elsewhere_does_not_matter(used: Service, capsys: Said) -> None:
    code = ask(used, capsys, "--course=maths")
    late_submission(used)

    assert confirm(used, code) == 0


def test_a_code_is_good_for_a_day(
    used: Service, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(used)
    code = ask(used, capsys, "--course=physics")
    monkeypatch.setattr("nbexchange.exchange.upkeep.purging.VALID", datetime.timedelta(0))

    assert "too long ago" in str(confirm(used, code))
    assert stored(used) == before


def test_a_code_erases_once(used: Service, capsys: Said) -> None:
    code = ask(used, capsys, "--course=physics", "--assignment=ps1")
    confirm(used, code)
    receipt(release(used.instructor()))
    before = stored(used)

    assert "already carried out" in str(confirm(used, code))
    assert stored(used) == before


def test_both_steps_are_on_record_for_good(used: Service, capsys: Said) -> None:
    confirm(used, ask(used, capsys, "--course=maths"))
    ask(used, capsys, "--course=physics", "--assignment=ps1", "--student=bob")

    assert run_for(used, "purge", "--list") == 0
    said = capsys.readouterr().out
    assert "organisation 1, course 'maths': 1 releases, 1 submissions" in said
    assert "course 'physics', assignment 'ps1', student 'bob'" in said
    assert re.search("erased on .* UTC by .", said)
    assert "not erased" in said
    done, asked = records(used)
    assert done["requested_by"] == done["erased_by"]
    assert (done["requested_by"], asked["erased_at"]) == (asked["requested_by"], None)
    assert as_counts(done["counts"])["submissions"] == 1


def as_counts(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


@pytest.mark.disk
def test_files_that_the_store_does_not_let_go_are_left_for_gc_and_it_is_said(
    used: Service, capsys: Said
) -> None:
    code = ask(used, capsys, "--course=physics")
    (stuck, *_) = course.rows(used, "release")
    path = used.data / "blobs" / stuck["key"][:2] / stuck["key"]
    path.unlink()
    path.mkdir()

    assert confirm(used, code) == 1

    assert "1 of the files could not be deleted" in capsys.readouterr().err
    path.rmdir()
    path.write_bytes(b"still there")
    assert count(used)["submission"] == 2
    run_for(used, "gc", "--delete", "--older-than=0")
    assert {path.name for path in used.files()} == set(course.blobs(used))


# -- what makes no sense

WRONG: dict[str, tuple[list[str], str]] = {
    "nothing said": ([], "Say what to erase with --course"),
    "an assignment of no course": (["--assignment=ps1"], "Add --course"),
    "no such course": (["--course=chemistry"], "no data of organisation 1, course 'chemistry'"),
    "a course of others": (["--org=2", "--course=maths"], "no data of organisation 2"),
    "no such assignment": (["--course=physics", "--assignment=ps9"], "assignment 'ps9'"),
    "no such student": (["--course=physics", "--student=zoe"], "student 'zoe'"),
    "no such code": (["--confirm=0123"], "No purge has the code '0123'"),
    "a space for =": (["--course", "physics", "ps1"], "Unexpected argument 'ps1'"),
    "an empty name": (["--course="], "no data of"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_said_and_nothing_is_recorded(
    used: Service, capsys: Said, arguments: list[str], words: str
) -> None:
    assert run_for(used, "purge", *arguments) == 2

    said = capsys.readouterr()
    (line,) = (line for line in said.err.splitlines() if line.startswith("nbexchange: "))
    assert words in line
    assert records(used) == []
