"""An instructor's purge: hidden at once, restorable for its grace, then erased and on record."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbexchange.exchange.hiding import erase_due
from nbexchange.server import scheduled_erasure
from tests.support import course, databases
from tests.support.archives import tar_gz, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, WORK, give_feedback, receipt, release, submit
from tests.support.process import wait_until
from tests.support.service import Service, Wire, configured

Said = pytest.CaptureFixture[str]

KB = 1000


@pytest.fixture
def used(service: Service) -> Service:
    """An assignment with two submissions that got feedback, and one of another course."""
    fill(service)
    receipt(service.instructor("maths").post("assignment", WORK, upload_headers(WORK), **MATHS))
    return service


MATHS = {"course_id": "maths", "assignment_id": "ps1"}


def fill(service: Service) -> None:
    ada = service.instructor()
    receipt(release(ada))
    for name in ("bob", "chloe"):
        given = receipt(submit(service.student(name=name), tar_gz(p1=name.encode())))
        receipt(give_feedback(ada, given["submission_id"], name.encode()))


def purge(service: Service) -> str:
    """As an instructor; returns the id of the purge."""
    return course.purge(service.instructor())


def pending(service: Service) -> list[dict[str, Any]]:
    answer = service.instructor().get("purges", course_id="physics")
    assert answer.status_code == 200, answer.text
    value: list[dict[str, Any]] = answer.json()["value"]
    return value


def restore(service: Service, purge_id: str, **more: str) -> Any:
    where = {"course_id": "physics", "purge_id": purge_id}
    return service.instructor().delete("purges", **where, **more)


def seen(service: Service) -> dict[str, Any]:
    """All that members see of the course, but for the history."""
    ada, bob = service.instructor(), service.student()
    return {
        "list": listed(ada),
        "own list": listed(bob),
        "collections": ada.get("collections", course_id="physics").json()["value"],
        "own collections": bob.get("collections", course_id="physics").json()["value"],
        "collections of one": ada.get("collections", **PS1).json()["value"],
        "fetch": bob.get("assignment", **PS1).content,
        "feedback": bob.get("feedback", **PS1).json().get("feedback"),
    }


def listed(wire: Wire) -> list[dict[str, Any]]:
    """Without what was only looked at."""
    value = wire.get("assignments", course_id="physics").json()["value"]
    return [one for one in value if one["status"] in ("released", "submitted")]


def done(wire: Wire, *, limit: int | None = None, **query: Any) -> list[tuple[str, str]]:
    """What the history tells: assignments and actions."""
    pages = {} if limit is None else {"limit": limit}
    value = wire.get("history", course_id="physics", **pages, **query).json()["value"]
    return sorted(
        (assignment["assignment_code"], action["action"].removeprefix("AssignmentActions."))
        for entry in value
        for assignment in entry["assignments"]
        for action in assignment["actions"]
    )


def record(service: Service) -> dict[str, Any]:
    (found,) = course.rows(service, "purge")
    return found


# -- the first step


def test_a_purged_assignment_is_hidden_from_everybody_at_once(used: Service) -> None:
    token = course.submissions(used.student())[0]["submission_id"]

    purge(used)

    after = seen(used)
    assert not any(after[key] for key in after if key not in ("fetch", "feedback"))
    bob, ada = used.student(), used.instructor()
    for answer in (
        bob.get("assignment", **PS1),
        bob.get("feedback", **PS1),
        submit(bob),
        ada.get("collection", **PS1, path=token),
        give_feedback(ada, token, b"late"),
        ada.delete("assignment", **PS1),
        ada.delete("assignment", **PS1, purge="1"),
    ):
        assert answer.status_code == 404, answer.text
    assert done(bob) == done(bob, limit=100) == []


def test_nothing_of_it_is_erased(used: Service) -> None:
    before = used.fingerprints(), course.blobs(used)

    purge(used)

    assert (used.fingerprints(), course.blobs(used)) == before
    assert run_for(used, "check") == 0
    assert run_for(used, "gc", "--delete", "--older-than=0") == 0
    assert used.fingerprints() == before[0]


def test_the_answer_says_until_when_and_how_it_can_be_restored(used: Service) -> None:
    answer = used.instructor().delete("assignment", **PS1, purge="1")

    (listed,) = pending(used)
    note = answer.json()["note"]
    assert "will be purged from the database on " + listed["erase_at"][:16] in note
    assert f"purge_id={listed['purge_id']}" in note
    assert (listed["assignment_id"], listed["hidden_by"]) == ("ps1", "ada")
    assert (listed["releases"], listed["submissions"], listed["feedback"]) == (1, 2, 2)


def test_the_log_names_course_and_assignment(
    used: Service, caplog: pytest.LogCaptureFixture
) -> None:
    purge_id = purge(used)

    (line,) = (one.message for one in caplog.records if "was hidden by" in one.message)
    assert "Assignment 'ps1' of course 'physics' in organisation 1 was hidden by 'ada'" in line
    assert f"nbexchange purge --restore={purge_id}" in line


def test_the_list_of_purges_shows_who_hid_it_and_when_it_will_be_erased(
    used: Service, capsys: Said
) -> None:
    purge_id = purge(used)

    assert run_for(used, "purge", "--list") == 0

    said = capsys.readouterr().out
    assert f"{purge_id}  organisation 1, course 'physics', assignment 'ps1': 1 releases" in said
    assert "by instructor ada" in said
    assert "will be erased on " in said
    assert f"nbexchange purge --restore={purge_id}" in said


@pytest.mark.parametrize("limit", [None, 100])
def test_the_history_of_instructors_shows_it_by_name_also_once_it_is_erased(
    used: Service, limit: int | None
) -> None:
    purge_id = purge(used)
    hidden = done(used.instructor(), limit=limit)
    run_for(used, "purge", f"--confirm={purge_id}")

    assert hidden == [("ps1", "purged")]
    assert done(used.instructor(), limit=limit) == [("ps1", "purged")]
    assert done(used.instructor(), limit=limit, action="purged") == [("ps1", "purged")]
    assert done(used.student(), limit=limit) == []


# -- back


def as_an_instructor(service: Service, purge_id: str) -> None:
    assert restore(service, purge_id).json()["success"] is True


def as_an_administrator(service: Service, purge_id: str) -> None:
    assert run_for(service, "purge", f"--restore={purge_id}") == 0


RESTORERS: dict[str, Callable[[Service, str], None]] = {
    "an instructor": as_an_instructor,
    "an administrator": as_an_administrator,
}


@pytest.mark.parametrize("bring_back", RESTORERS.values(), ids=RESTORERS)
def test_a_restored_assignment_is_as_it_was(
    used: Service, bring_back: Callable[[Service, str], None]
) -> None:
    before = seen(used)

    bring_back(used, purge(used))

    assert seen(used) == before
    assert {("ps1", "released"), ("ps1", "submitted")} <= set(done(used.student()))
    assert pending(used) == []
    assert record(used)["restored_at"] is not None
    receipt(submit(used.student(), tar_gz(p1=b"more")))


def test_a_release_that_was_taken_back_before_is_restored_as_that(used: Service) -> None:
    used.instructor().delete("assignment", **PS1)

    restore(used, purge(used))

    assert used.student().get("assignment", **PS1).status_code == 404
    assert len(course.submissions(used.instructor())) == 2


def test_both_are_in_the_history(used: Service) -> None:
    restore(used, purge(used))

    acts = done(used.instructor())
    assert ("ps1", "purged") in acts
    assert ("ps1", "restored") in acts


def test_what_was_restored_or_erased_cannot_be_restored(used: Service) -> None:
    first = purge(used)
    restore(used, first)
    second = purge(used)
    run_for(used, "purge", f"--confirm={second}")

    again, erased = restore(used, first), restore(used, second)

    assert (again.status_code, erased.status_code) == (409, 409)
    assert "was already undone" in again.json()["note"]
    assert "Only a backup still has it" in erased.json()["note"]
    assert "already carried out" in str(run_for(used, "purge", f"--confirm={second}"))
    assert "was restored" in str(run_for(used, "purge", f"--confirm={first}"))


def test_a_purge_of_another_course_or_organisation_is_not_found(used: Service) -> None:
    purge_id = purge(used)

    for wire, course_id in (
        (used.instructor("maths"), "maths"),
        (used.instructor(org_id=2), "physics"),
    ):
        answer = wire.delete("purges", course_id=course_id, purge_id=purge_id)
        assert answer.status_code == 404
        assert wire.get("purges", course_id=course_id).json()["value"] == []
    assert len(pending(used)) == 1


def test_it_comes_back_to_its_own_organisation_where_another_has_a_course_of_that_name(
    used: Service,
) -> None:
    zoe = used.instructor(name="zoe", org_id=2)
    receipt(release(zoe))
    before, hers = seen(used), listed(zoe)

    assert restore(used, purge(used)).status_code == 200

    assert seen(used) == before
    assert listed(zoe) == hers


# -- a new assignment of the same name


def test_releasing_again_starts_with_a_new_assignment_and_the_hidden_one_keeps_its_own(
    used: Service,
) -> None:
    purge_id = purge(used)

    assert receipt(release(used.instructor(), tar_gz(new=b"{}")))["version"] == 1

    assert course.submissions(used.instructor()) == []
    given = receipt(submit(used.student(), tar_gz(new=b"new work")))
    assert [one["submission_id"] for one in course.submissions(used.instructor())] == [
        given["submission_id"]
    ]
    refused = restore(used, purge_id)
    assert refused.status_code == 409
    assert "under another name" in refused.json()["note"]
    assert restore(used, purge_id, assignment_id="ps1-old").ok
    old = used.instructor().get("collections", course_id="physics", assignment_id="ps1-old")
    assert len(old.json()["value"]) == 2
    assert len(course.submissions(used.instructor())) == 1


def test_erasing_the_hidden_one_leaves_the_new_one_alone(used: Service) -> None:
    purge_id = purge(used)
    receipt(release(used.instructor()))
    given = receipt(submit(used.student(), tar_gz(p1=b"new work")))

    assert run_for(used, "purge", f"--confirm={purge_id}") == 0

    assert [one["submission_id"] for one in course.submissions(used.instructor())] == [
        given["submission_id"]
    ]
    assert {path.name for path in used.files()} == set(course.blobs(used))
    course.assert_every_row_has_its_bytes(used)


@pytest.mark.parametrize("name", ["..", "x/y", ".x"])
def test_an_assignment_is_not_restored_under_a_name_that_cannot_be_released(
    used: Service, name: str
) -> None:
    purge_id = purge(used)

    refused = restore(used, purge_id, assignment_id=name)

    assert refused.status_code == 400, refused.text
    assert len(pending(used)) == 1


def test_a_name_that_an_older_version_took_is_restored(used: Service) -> None:
    purge_id = purge(used)
    databases.rename(used.data, "purge", "assignment_id", {"ps1": ".x"})

    restored = restore(used, purge_id)

    assert restored.status_code == 200, restored.text


def test_the_same_name_can_be_purged_twice_and_each_is_restored_by_its_id(used: Service) -> None:
    first = purge(used)
    receipt(release(used.instructor()))
    second = purge(used)

    assert restore(used, second).ok
    assert course.submissions(used.instructor()) == []
    assert restore(used, first, assignment_id="first").ok


def test_an_upload_under_way_does_not_reach_a_new_assignment_of_the_same_name(
    used: Service,
) -> None:
    body = tar_gz(p1=b"twice")
    receipt(submit(used.student(), body, key="one"))
    purge(used)
    receipt(release(used.instructor()))

    assert submit(used.student(), body, key="one").status_code == 409
    assert receipt(submit(used.student(), body, key="two"))["version"] == 1


# -- quotas


def test_what_is_hidden_counts_for_quotas_until_it_is_erased(data: Path) -> None:
    work, more = (tar_gz(p1=os.urandom(100 * KB)) for _ in range(2))
    quotas = {"student_quota": 150 * KB, "organisation_quota": 350 * KB}
    with configured(data, **quotas) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada, work))
        receipt(submit(bob, work))
        purge_id = purge(service)
        receipt(release(ada, work))
        hidden = submit(bob, more), release(ada, more)
        run_for(service, "purge", f"--confirm={purge_id}")
    with configured(data, **quotas) as service:  # another one has not summed up what there was
        erased = submit(service.student(), more)

    assert [answer.status_code for answer in hidden] == [413, 507]
    assert erased.status_code == 201


# -- the end


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service looks all the time for what it has to erase."""
    for name in ("FIRST_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(f"nbexchange.server.scheduled_erasure.{name}", 0.05)


@pytest.mark.usefixtures("impatient")
def test_the_service_erases_it_after_the_grace_and_records_it(
    data: Path, capsys: Said, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(data, purge_grace=0) as service:
        fill(service)
        service.instructor().delete("assignment", **PS1, purge="1")
        wait_until(lambda: service.files() == [])
        run_for(service, "purge", "--list")
        wait_until(lambda: "Erased of organisation 1" in caplog.text)

        assert course.rows(service, "submission") == []
        assert [row["course_id"] for row in course.rows(service, "course")] == ["physics"]
    said = capsys.readouterr().out
    assert "course 'physics', assignment 'ps1': 1 releases, 2 submissions, 2 feedback" in said
    assert "by the service, after the grace" in said
    assert "Erased of organisation 1, course 'physics', assignment 'ps1'" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_replicas_that_look_at_the_same_time_erase_it_once(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(configured(data, purge_grace=0)) for _ in range(3)]
        for _ in range(3):
            fill(services[0])
            services[0].instructor().delete("assignment", **PS1, purge="1")
        wait_until(lambda: services[0].files() == [])
        wait_until(lambda: caplog.text.count("Erased of organisation 1") == 3)

    assert all(row["erased_at"] for row in course.rows(services[0], "purge"))
    assert "could not be erased" not in caplog.text


@pytest.mark.disk
@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_away_is_not_asked_to_delete_every_file(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_away = threading.Event()
    monkeypatch.setattr(
        scheduled_erasure, "erase_due", lambda *what: erase_due(*what) if is_away.is_set() else None
    )
    with configured(data, purge_grace=0) as service:
        fill(service)
        for number in range(15):
            receipt(submit(service.student(), tar_gz(p1=f"more {number}".encode())))
        purge(service)
        (data / "blobs").rename(data / "away")
        (data / "blobs").touch()
        is_away.set()
        wait_until(lambda: "20 of the files could not be deleted" in caplog.text)

    failures = [one for one in caplog.records if one.message.startswith("The store failed")]
    assert len(failures) == 10


@pytest.mark.usefixtures("impatient")
def test_before_its_time_nothing_is_erased(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(
        scheduled_erasure, "erase_due", lambda *what: looks.append(what) or erase_due(*what)
    )
    with configured(data, purge_grace=0.01) as service:
        fill(service)
        purge_id = purge(service)
        looked = len(looks)
        wait_until(lambda: len(looks) > looked + 2)

        assert restore(service, purge_id).ok
        assert len(course.submissions(service.instructor())) == 2


@pytest.mark.disk
@pytest.mark.usefixtures("impatient")
def test_files_that_the_store_does_not_delete_are_left_to_gc_and_logged(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(data, purge_grace=0) as service:
        fill(service)
        (row, *_) = course.rows(service, "submission")
        path = data / "blobs" / row["key"][:2] / row["key"]
        path.unlink()
        path.mkdir()
        service.instructor().delete("assignment", **PS1, purge="1")
        wait_until(lambda: "1 of the files could not be deleted" in caplog.text)

        assert service.files() == []
        assert course.rows(service, "submission") == []


def test_an_administrator_erases_it_before_its_time(used: Service, capsys: Said) -> None:
    purge_id = purge(used)

    assert run_for(used, "purge", f"--confirm={purge_id}") == 0

    assert "Erased of organisation 1, course 'physics', assignment 'ps1'" in capsys.readouterr().out
    assert len(used.files()) == 1
    assert pending(used) == []


def ask(service: Service, capsys: Said, *arguments: str) -> str:
    assert run_for(service, "purge", *arguments) == 0
    return capsys.readouterr().out.rpartition("--confirm=")[2].strip()


def test_a_course_is_erased_with_what_is_hidden_in_it(used: Service, capsys: Said) -> None:
    purge(used)
    code = ask(used, capsys, "--course=physics")

    assert run_for(used, "purge", f"--confirm={code}") == 0

    assert [row["course_id"] for row in course.rows(used, "course")] == ["maths"]
    assert course.rows(used, "submission") == []
    assert all(row["erased_at"] for row in course.rows(used, "purge"))


@pytest.mark.parametrize("scope", [["--course=physics"], []], ids=["one course", "all"])
def test_a_student_is_erased_with_what_is_hidden(
    used: Service, capsys: Said, scope: list[str]
) -> None:
    purge_id = purge(used)
    code = ask(used, capsys, *scope, "--student=bob")

    assert run_for(used, "purge", f"--confirm={code}") == 0

    restore(used, purge_id)
    assert [one["student_id"] for one in course.submissions(used.instructor())] == ["chloe"]
    assert {path.name for path in used.files()} == set(course.blobs(used))


def test_an_export_leaves_it_out(used: Service, tmp_path: Path) -> None:
    purge(used)

    assert run_for(used, "export", f"--to={tmp_path / 'out'}") == 0

    names = [path.name for path in (tmp_path / "out").rglob("*")]
    assert "maths" in names
    assert not any("\x1f" in name for name in names)
    assert "bob" not in " ".join(names)
