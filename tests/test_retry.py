"""A retry is safe: one key is one result, however often and however parallel it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support import course
from tests.support.archives import sha256, tar_gz, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, WORK, give_feedback, receipt, release, rows, submit
from tests.support.faults_report import report
from tests.support.process import wait_until
from tests.support.raw import RawConnection
from tests.support.service import Service, Wire

MANY = 32
OTHER = tar_gz(p1=b"other")


@pytest.fixture
def ada(service: Service) -> Wire:
    ada = service.instructor()
    receipt(release(ada))
    return ada


@pytest.fixture
def bob(service: Service, ada: Wire) -> Wire:
    return service.student()


@pytest.fixture
def submission_id(bob: Wire) -> str:
    return receipt(submit(bob))["submission_id"]


def at_once(requests_: list[Any]) -> list[requests.Response]:
    with ThreadPoolExecutor(len(requests_)) as pool:
        return list(pool.map(lambda send: send(), requests_))


def wires(service: Service, token: str) -> list[Wire]:
    return [service.wire(token) for _ in range(MANY)]


def test_the_same_submission_sent_in_parallel_is_one(service: Service, bob: Wire) -> None:
    token = service.enrol("bob", {"physics": "Student"})

    answers = at_once([lambda wire=wire: submit(wire, key="k") for wire in wires(service, token)])

    assert [answer.status_code for answer in answers] == [201] * MANY
    assert len({answer.text for answer in answers}) == 1
    (stored,) = rows(service, "submission")
    assert [event["action"] for event in rows(service, "event")] == ["released", "submitted"]
    assert sha256(course.collect(bob, stored["token"]).content) == sha256(WORK)
    assert run_for(service, "check") == 0
    report(fault="one submission sent in parallel", trials=MANY, acknowledged=1)


def test_the_same_release_sent_in_parallel_is_one(service: Service) -> None:
    token = service.enrol("ada", {"physics": "Instructor"})

    answers = at_once([lambda wire=wire: release(wire, key="k") for wire in wires(service, token)])

    assert [answer.status_code for answer in answers] == [201] * MANY
    assert len({answer.text for answer in answers}) == 1
    assert len(rows(service, "release")) == 1


def test_the_same_feedback_sent_in_parallel_is_one(service: Service, submission_id: str) -> None:
    token = service.enrol("ada", {"physics": "Instructor"})

    answers = at_once(
        [
            lambda wire=wire: give_feedback(wire, submission_id, b"well done", key="k")
            for wire in wires(service, token)
        ]
    )

    assert [answer.status_code for answer in answers] == [201] * MANY
    assert len({answer.text for answer in answers}) == 1
    assert len(rows(service, "feedback")) == 1


def test_retries_leave_no_bytes_behind(service: Service, bob: Wire) -> None:
    for _ in range(3):
        receipt(submit(bob, key="k"))

    assert {path.name for path in service.files()} == set(course.blobs(service))
    assert len(service.files()) == 2


def test_a_retry_while_the_first_is_still_uploading_gives_one_submission(
    service: Service, bob: Wire
) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    headers = upload_headers(WORK, "k", **{"Content-Length": str(len(WORK))})
    with RawConnection(service.url, token) as slow:
        slow.send(slow.head("POST", "submission", headers, **PS1), WORK[:-1])
        wait_until(lambda: course.uploads_in_flight(bob) == 1)
        retried = receipt(submit(bob, key="k"))
        slow.send(WORK[-1:])
        first = slow.answer()

    assert first.status == 201
    assert first.json() == retried
    assert len(rows(service, "submission")) == 1


def test_the_same_key_with_other_bytes_is_refused(
    service: Service, ada: Wire, bob: Wire, submission_id: str
) -> None:
    receipt(submit(bob, key="k"))
    receipt(release(ada, key="k"))
    receipt(give_feedback(ada, submission_id, b"good", key="k"))
    before = course.blobs(service)

    refused = [
        submit(bob, OTHER, key="k"),
        release(ada, OTHER, key="k"),
        give_feedback(ada, submission_id, b"bad", key="k"),
    ]

    assert [answer.status_code for answer in refused] == [409] * 3
    assert course.blobs(service) == before
    wait_until(lambda: {path.name for path in service.files()} == set(before))


def test_two_bodies_under_one_key_at_once_are_one_submission_and_refusals(
    service: Service, bob: Wire
) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    bodies = [WORK if number % 2 else OTHER for number in range(MANY)]

    answers = at_once(
        [
            lambda wire=wire, body=body: submit(wire, body, key="k")
            for wire, body in zip(wires(service, token), bodies, strict=True)
        ]
    )

    (stored,) = rows(service, "submission")
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.status_code == (201 if sha256(body) == stored["sha256"] else 409)


def test_another_key_is_another_submission_of_the_same_bytes(service: Service, bob: Wire) -> None:
    first, second = receipt(submit(bob, key="one")), receipt(submit(bob, key="two"))

    assert first["submission_id"] != second["submission_id"]
    assert first["sha256"] == second["sha256"]
    assert first["timestamp"] < second["timestamp"]


def test_without_a_key_each_submission_counts(service: Service, bob: Wire) -> None:
    receipt(submit(bob))
    receipt(submit(bob))

    assert len(rows(service, "submission")) == 2


def test_two_people_may_use_the_same_key(service: Service, ada: Wire, bob: Wire) -> None:
    receipt(submit(bob, key="k"))
    given = receipt(submit(service.student(name="carl"), OTHER, key="k"))

    assert given["student"] == "carl"
    assert len(rows(service, "submission")) == 2


def test_a_key_of_one_assignment_is_no_receipt_for_another(
    service: Service, ada: Wire, bob: Wire
) -> None:
    ps2 = {**PS1, "assignment_id": "ps2"}
    receipt(ada.post("assignment", WORK, upload_headers(WORK), **ps2))
    receipt(submit(bob, key="k"))
    receipt(release(ada, key="k"))

    submitted = bob.post("submission", WORK, upload_headers(WORK, "k"), **ps2)
    released = ada.post("assignment", WORK, upload_headers(WORK, "k"), **ps2)

    assert (submitted.status_code, released.status_code) == (409, 409)


def test_a_key_of_one_submission_is_no_receipt_for_feedback_on_another(
    ada: Wire, bob: Wire
) -> None:
    one, two = receipt(submit(bob))["submission_id"], receipt(submit(bob))["submission_id"]
    receipt(give_feedback(ada, one, b"good", key="k"))

    assert give_feedback(ada, two, b"good", key="k").status_code == 409


def test_a_submission_can_be_retried_after_the_assignment_was_taken_back(
    service: Service, ada: Wire, bob: Wire
) -> None:
    first = receipt(submit(bob, key="k"))
    assert ada.delete("assignment", **PS1).ok

    assert receipt(submit(bob, key="k")) == first
    assert submit(bob, key="new").status_code == 404


def test_a_retry_keeps_the_time_of_the_first(service: Service, bob: Wire) -> None:
    first = receipt(submit(bob, key="k"))
    later = receipt(submit(bob, key="other"))
    again = receipt(submit(bob, key="k"))

    assert again == first
    assert again["timestamp"] < later["timestamp"]


def test_of_two_first_releases_at_once_exactly_one_wins(service: Service) -> None:
    token = service.enrol("ada", {"physics": "Instructor"})

    answers = at_once(
        [
            lambda wire=wire, number=number: release(
                wire, tar_gz(p1=str(number).encode()), f"k{number}", **{"If-None-Match": "*"}
            )
            for number, wire in enumerate(wires(service, token))
        ]
    )

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [412] * (MANY - 1)
    assert len(rows(service, "release")) == 1
    wait_until(lambda: len(service.files()) == 1)


def test_a_first_release_that_is_retried_is_not_refused(service: Service) -> None:
    ada = service.instructor()
    first = receipt(release(ada, key="k", **{"If-None-Match": "*"}))

    assert receipt(release(ada, key="k", **{"If-None-Match": "*"})) == first


def test_releases_at_once_are_numbered_without_a_gap(service: Service) -> None:
    token = service.enrol("ada", {"physics": "Instructor"})

    answers = at_once([lambda wire=wire: release(wire) for wire in wires(service, token)])

    assert sorted(receipt(answer)["version"] for answer in answers) == [*range(1, MANY + 1)]


def test_the_first_contact_of_many_at_once_makes_one_row_of_each(service: Service) -> None:
    """Nobody, no course and no assignment is known yet, and everybody comes at once."""
    identity = {"full_name": "Ada L", "email": "ada@example.org"}
    ada = service.enrol("ada", {"new": {"role": "Instructor", "title": "New"}}, **identity)
    where = {"course_id": "new", "assignment_id": "ps1"}

    answers = at_once(
        [
            lambda wire=wire, key=f"k{number}": wire.post(
                "assignment", WORK, upload_headers(WORK, key), **where
            )
            for number, wire in enumerate(wires(service, ada))
        ]
    )

    assert {answer.status_code for answer in answers} == {201}
    for table in ("user", "course", "assignment", "subscription"):
        assert len(rows(service, table)) == 1, table


def test_32_new_students_at_once_are_32_rows(service: Service, ada: Wire) -> None:
    tokens = [service.enrol(f"s{number}", {"physics": "Student"}) for number in range(32)]

    answers = at_once(
        [lambda wire=wire: submit(wire, key="k") for wire in map(service.wire, tokens * 2)]
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len(rows(service, "user")) == 33
    assert len(rows(service, "subscription")) == 33
    assert len(rows(service, "submission")) == 32


def test_feedback_that_has_not_changed_is_a_version_that_takes_no_space(
    service: Service, ada: Wire, submission_id: str
) -> None:
    first = receipt(give_feedback(ada, submission_id, b"good", key="one"))
    files = service.files()
    again = receipt(give_feedback(ada, submission_id, b"good", key="two"))

    assert (first["version"], again["version"]) == (1, 2)
    assert service.files() == files


def test_a_key_of_unchanged_feedback_is_remembered_too(
    service: Service, ada: Wire, submission_id: str
) -> None:
    for text, key in ((b"good", "one"), (b"good", "two"), (b"bad", "three")):
        receipt(give_feedback(ada, submission_id, text, key=key))

    late = receipt(give_feedback(ada, submission_id, b"good", key="two"))

    assert late["version"] == 2
    assert len(rows(service, "feedback")) == 3
    assert give_feedback(ada, submission_id, b"other", key="two").status_code == 409


def test_feedback_that_comes_back_to_earlier_words_is_a_new_version(
    service: Service, ada: Wire, submission_id: str
) -> None:
    texts = [b"good", b"bad", b"good"]

    versions = [
        receipt(give_feedback(ada, submission_id, text, key=f"k{number}"))["version"]
        for number, text in enumerate(texts)
    ]

    assert versions == [1, 2, 3]


def test_a_key_of_200_characters_is_taken(bob: Wire) -> None:
    assert receipt(submit(bob, key="x" * 200)) == receipt(submit(bob, key="x" * 200))


@pytest.mark.parametrize("key", ["", "x" * 201, "x" * 1000, "schlüssel"])
def test_a_malformed_key_is_refused(service: Service, bob: Wire, key: str) -> None:
    answer = submit(bob, **{"Idempotency-Key": key.encode()})

    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["note"]


def test_two_keys_on_one_request_are_refused(service: Service, bob: Wire) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    headers = [
        ("Content-Length", str(len(WORK))),
        ("Idempotency-Key", "one"),
        ("Idempotency-Key", "two"),
    ]
    with RawConnection(service.url, token) as connection:
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK)
        answer = connection.answer()

    assert answer.status == 400
    assert rows(service, "submission") == []
