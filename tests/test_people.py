"""The exchange describes people and courses as their identity did last."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from nbexchange.models import Base
from tests.support import databases
from tests.support.course import PS1, receipt, release, rows, submissions, submit
from tests.support.service import Service, Wire

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
BOB = {"full_name": "Bob", "email": "bob@example.org", "lms_user_id": "7"}


@pytest.fixture
def ada(service: Service) -> Wire:
    ada = service.instructor()
    receipt(release(ada))
    return ada


def bob(service: Service, role: str = "Student", **identity: str) -> Wire:
    return service.wire(service.enrol("bob", {"physics": role}, **identity))


def description(ada: Wire) -> dict[str, str | None]:
    newest, *_ = submissions(ada)
    return {key: newest[key] for key in BOB}


def title(ada: Wire) -> str:
    (course,) = ada.get("history").json()["value"]
    return course["course_title"]


def membership(service: Service, name: str) -> dict[str, Any]:
    (user_pk,) = (row["id"] for row in rows(service, "user") if row["name"] == name)
    (row,) = (row for row in rows(service, "subscription") if row["user_pk"] == user_pk)
    return row


@pytest.mark.parametrize("key", BOB)
def test_a_list_shows_a_student_as_described_last(service: Service, ada: Wire, key: str) -> None:
    receipt(submit(bob(service, **BOB)))
    before = description(ada)
    receipt(submit(bob(service, **BOB | {key: "new"})))

    assert before == BOB
    assert description(ada) == BOB | {key: "new"}


@pytest.mark.parametrize("key", BOB)
def test_what_an_identity_leaves_out_is_kept(service: Service, ada: Wire, key: str) -> None:
    receipt(submit(bob(service, **BOB)))
    receipt(submit(bob(service, **{key: "new"})))

    assert description(ada) == BOB | {key: "new"}


def test_a_course_has_the_title_that_was_named_last(service: Service, ada: Wire) -> None:
    titles = [title(ada)]
    for name, said in (
        ("bob", {"title": "Physics"}),
        ("bob", {"title": "Physics I"}),
        ("bob", {}),
        ("carl", {}),
    ):
        student = service.enrol(name, {"physics": {"role": "Student", **said}})
        receipt(submit(service.wire(student)))
        titles.append(title(ada))

    assert titles == ["no_title", "Physics", "Physics I", "Physics I", "Physics I"]


def test_a_member_is_kept_with_the_newest_role(service: Service, ada: Wire) -> None:
    receipt(submit(bob(service)))
    before = membership(service, "bob")["role"]
    assert bob(service, "Instructor").get("assignment", **PS1).ok

    assert before == "Student"
    assert membership(service, "bob")["role"] == "Instructor"


def test_a_member_is_seen_again_once_a_day(service: Service, ada: Wire) -> None:
    receipt(submit(bob(service)))
    first = membership(service, "bob")["last_seen"]
    receipt(submit(bob(service)))
    same_day = membership(service, "bob")["last_seen"]
    with databases.engine_of(databases.database_of(service.data)).begin() as connection:
        connection.execute(Base.metadata.tables["subscription"].update().values(last_seen=LONG_AGO))
    receipt(submit(bob(service)))

    assert same_day == first
    assert membership(service, "bob")["last_seen"] > first
