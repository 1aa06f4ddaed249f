"""How much may be kept: a student stops at the quota, an organisation at its own, all at a disk
that is nearly full; and nobody else notices."""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from nbexchange import models
from nbexchange.errors import StoreFull
from nbexchange.exchange import quotas
from nbexchange.identity import User
from tests.support import course, databases
from tests.support.archives import tar_gz, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, WORK, give_feedback, purge, receipt, release, rows, submit
from tests.support.process import run_program, small_disk, wait_until
from tests.support.raw import LAST_CHUNK, RawConnection, chunk
from tests.support.service import Service, Wire, configured

KB = 1000
MB = 1000 * KB
QUOTA = 300 * KB
WORK_100 = tar_gz(p1=os.urandom(99 * KB))
"""A little less than 100 kB; compressed it stays so."""


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    """Each student may keep QUOTA bytes."""
    with configured(data, student_quota=QUOTA) as service:
        receipt(release(service.instructor()))
        yield service


def begin(
    connection: RawConnection, body: bytes, *, key: str | None = None, length: int | None = None
) -> None:
    """A submission's header, and so little of its body that more has to come."""
    headers = upload_headers(body, key, **{"Content-Length": str(length or len(body))})
    connection.send(connection.head("POST", "submission", headers, **PS1), body[:100])


def stored(service: Service, table: str = "submission") -> int:
    return sum(row["size"] for row in rows(service, table))


# -- a student


def test_a_student_who_fills_the_disk_stops_at_the_quota_and_others_go_on(
    service: Service,
) -> None:
    bob, eve = service.student(), service.student(name="eve")
    answers = [submit(bob, WORK_100) for _ in range(5)]
    other = submit(eve, WORK_100)

    assert [answer.status_code for answer in answers] == [201, 201, 201, 413, 413]
    assert stored(service) == 4 * len(WORK_100)
    assert other.status_code == 201
    wait_until(lambda: len(service.files()) == 5)


def test_the_refusal_says_how_much_there_is_and_how_much_is_needed(service: Service) -> None:
    bob = service.student()
    for _ in range(3):
        receipt(submit(bob, WORK_100))

    note = submit(bob, WORK_100).json()["note"]

    assert f"{3 * len(WORK_100):,} of the {QUOTA:,} bytes" in note
    assert f"needs {len(WORK_100):,} more" in note
    assert "ask your instructor" in note


def test_the_refusal_comes_before_the_body(service: Service) -> None:
    with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
        headers = {"Content-Length": str(QUOTA + 1), "Expect": "100-continue"}
        connection.send(connection.head("POST", "submission", headers, **PS1))
        answer = connection.answer()

    assert answer.status == 413
    assert f"0 of the {QUOTA:,} bytes" in answer.json()["note"]


def test_a_body_of_unknown_length_is_stopped_too_and_leaves_nothing(service: Service) -> None:
    bob = service.student()
    receipt(submit(bob, WORK_100))
    body = tar_gz(p1=os.urandom(QUOTA))

    answer = bob.post("submission", iter([body]), upload_headers(body), **PS1)

    assert answer.status_code == 413
    assert stored(service) == len(WORK_100)
    wait_until(lambda: len(service.files()) == 2)


def test_a_body_of_unknown_length_is_stopped_under_way(data: Path) -> None:
    """Not only when all of it is on the disk."""
    megabyte = os.urandom(1024 * 1024)
    with configured(data, student_quota=MEGABYTES_ALLOWED * len(megabyte)) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            headers = {"Transfer-Encoding": "chunked"}
            connection.send(connection.head("POST", "submission", headers, **PS1))
            for _ in range(2 * MEGABYTES_ALLOWED):
                connection.send(chunk(megabyte))
            # It goes on, but what came is gone already.
            wait_until(lambda: len(service.files()) == 1)
            connection.send(LAST_CHUNK)
            answer = connection.answer()

    assert answer.status == 413


MEGABYTES_ALLOWED = 18
"""More than what is taken without another look."""


def test_what_is_on_its_way_counts_until_it_is_given_up(service: Service) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    bob = service.wire(token)
    large = tar_gz(p1=os.urandom(QUOTA - 50 * KB))
    with RawConnection(service.url, token) as connection:
        headers = upload_headers(large, **{"Content-Length": str(len(large))})
        connection.send(connection.head("POST", "submission", headers, **PS1), large[:100])
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
        refused = submit(bob, WORK_100)
        connection.reset()
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 0)
        taken = submit(bob, WORK_100)

    assert refused.status_code == 413
    assert taken.status_code == 201


def test_parallel_uploads_do_not_go_beyond_the_quota(service: Service) -> None:
    token = service.enrol("bob", {"physics": "Student"})

    def send(number: int) -> int:
        return submit(service.wire(token), WORK_100, f"key-{number}").status_code

    with ThreadPoolExecutor(12) as threads:
        statuses = list(threads.map(send, range(12)))

    assert stored(service) <= QUOTA
    assert set(statuses) == {201, 413}
    assert statuses.count(201) == len(rows(service, "submission"))


def test_what_another_process_stored_meanwhile_counts_when_the_row_is_written(
    service: Service,
) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    large = tar_gz(p1=os.urandom(QUOTA - 50 * KB))
    with (
        configured(service.data, student_quota=QUOTA) as other,
        RawConnection(service.url, token) as connection,
    ):
        headers = upload_headers(large, **{"Content-Length": str(len(large))})
        connection.send(connection.head("POST", "submission", headers, **PS1), large[:100])
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
        receipt(submit(other.wire(token), WORK_100))
        connection.send(large[100:])
        answer = connection.answer()

    assert answer.status == 413
    assert stored(service) == len(WORK_100)
    wait_until(lambda: len(service.files()) == 2)


def test_a_retry_of_what_is_stored_gets_its_receipt_where_there_is_no_room(
    service: Service,
) -> None:
    bob = service.student()
    given = [receipt(submit(bob, WORK_100, f"key-{number}")) for number in range(3)]

    again = submit(bob, WORK_100, "key-0")

    assert receipt(again) == given[0]
    assert submit(bob, WORK_100, "key-3").status_code == 413


@pytest.mark.parametrize("option", ["student_quota", "organisation_quota"])
def test_a_retry_is_not_refused_for_the_room_of_its_own_first_try(data: Path, option: str) -> None:
    with configured(data, **{option: 150 * KB}) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            begin(connection, WORK_100, key="work")
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            again = receipt(submit(service.wire(token), WORK_100, "work"))
            connection.send(WORK_100[100:])
            first = connection.answer()

    assert first.status == 201
    assert first.json() == again


@pytest.mark.parametrize("option", ["student_quota", "organisation_quota"])
def test_tries_of_one_key_at_once_all_get_the_receipt(data: Path, option: str) -> None:
    with configured(data, **{option: 150 * KB}) as service:
        receipt(release(service.instructor()))
        wires = [service.student() for _ in range(8)]
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda wire: submit(wire, WORK_100, "work"), wires))

        assert [answer.status_code for answer in answers] == 8 * [201]
        assert len({receipt(answer)["submission_id"] for answer in answers}) == 1
        assert len(rows(service, "submission")) == 1


def test_tries_of_one_key_count_as_the_largest(service: Service) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    large = tar_gz(p1=os.urandom(QUOTA - 50 * KB))
    with (
        RawConnection(service.url, token) as small_try,
        RawConnection(service.url, token) as large_try,
    ):
        begin(small_try, WORK_100, key="work")
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
        begin(large_try, large, key="work")
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 2)
        beside_both = submit(service.wire(token), WORK_100)
        large_try.reset()
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
        beside_the_small = submit(service.wire(token), WORK_100)

    assert beside_both.status_code == 413
    assert beside_the_small.status_code == 201


def test_a_retry_goes_on_when_its_first_try_is_stored_elsewhere(data: Path) -> None:
    """More room is asked for as it comes, and then what is stored would count against it."""
    body = tar_gz(p1=os.urandom(6 * MB))
    with (
        configured(data, student_quota=10 * MB) as service,
        configured(data, student_quota=10 * MB) as other,
    ):
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            begin(connection, body, key="work")
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            given = receipt(submit(other.wire(token), body, "work"))
            connection.send(body[100:])
            answer = connection.answer()

    assert answer.status == 201
    assert answer.json() == given


def test_a_header_holds_all_of_the_senders_own_room(data: Path) -> None:
    with configured(data, student_quota=10 * MB) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            begin(connection, WORK_100, length=10 * MB - 50 * KB)
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            answer = submit(service.wire(token), WORK_100)

    assert answer.status_code == 413


def test_a_client_of_an_older_version_reads_why(service: Service) -> None:
    form = {"assignment": ("ps1.tar.gz", tar_gz(p1=os.urandom(QUOTA)))}

    answer = service.student().request("POST", "submission", params=PS1, files=form)

    assert answer.status_code == 413
    assert answer.json()["success"] is False
    assert answer.json()["value"] == []
    assert "bytes that you may keep" in answer.json()["note"]


# -- an organisation


def test_an_organisation_stops_at_its_quota_and_another_goes_on(data: Path) -> None:
    special = {2: {"organisation": 0}}
    with configured(data, organisation_quota=250 * KB, quotas=special) as service:
        statuses = {}
        for org_id in (1, 2):
            receipt(release(service.instructor(org_id=org_id)))
            bob = service.student(org_id=org_id)
            statuses[org_id] = [submit(bob, WORK_100).status_code for _ in range(4)]

    assert statuses == {1: [201, 201, 507, 507], 2: [201, 201, 201, 201]}


def test_what_fits_to_the_last_byte_is_taken(data: Path) -> None:
    size = len(WORK_100)
    with configured(data, student_quota=size, organisation_quota=2 * size) as service:
        receipt(release(service.instructor(), WORK_100))
        last = submit(service.student(), WORK_100)
        beyond = submit(service.student(name="eve"))

    assert (last.status_code, beyond.status_code) == (201, 507)


def test_numbers_of_an_organisation_are_for_its_instructors_alone(data: Path) -> None:
    with configured(data, organisation_quota=150 * KB) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        receipt(submit(bob, WORK_100))
        used = len(WORK) + len(WORK_100)

        to_student = submit(bob, WORK_100)
        to_instructor = release(ada, WORK_100)

    assert to_student.status_code == to_instructor.status_code == 507
    assert not any(char.isdigit() for char in to_student.json()["note"])
    assert "Contact your instructor" in to_student.json()["note"]
    assert f"{used:,} of the {150 * KB:,} bytes" in to_instructor.json()["note"]
    assert "Contact your administrator" in to_instructor.json()["note"]


@pytest.mark.slow
def test_one_student_hands_in_one_assignment_a_thousand_times_and_no_more(data: Path) -> None:
    """Small files fill a disk by their number, and a quota counts their bytes."""
    with configured(data) as service, ThreadPoolExecutor(4) as threads:
        receipt(release(service.instructor()))
        bobs = [service.student() for _ in range(4)]
        done = list(threads.map(lambda number: submit(bobs[number % 4]), range(1000)))
        refused, retried = submit(bobs[0]), submit(bobs[0], key="again")
        others = submit(service.student(name="eve"))

    assert {answer.status_code for answer in done} == {201}
    assert (refused.status_code, retried.status_code, others.status_code) == (413, 413, 201)
    assert "1,000 times" in refused.json()["note"]


def test_a_thousand_times_are_those_of_one_student_and_one_assignment(data: Path) -> None:
    ps2 = {**PS1, "assignment_id": "ps2"}
    with configured(data) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        receipt(ada.post("assignment", WORK, upload_headers(WORK), **ps2))
        receipt(submit(bob))
        _add_copies(service, 999)
        refused = submit(bob)
        elsewhere = bob.post("submission", WORK, upload_headers(WORK), **ps2)
        eve = service.student(name="eve")
        others = [submit(eve) for _ in range(2)]

    statuses = [answer.status_code for answer in (refused, elsewhere, *others)]
    assert statuses == [413, 201, 201, 201]


def test_releases_and_feedback_count_and_a_purge_makes_room(data: Path) -> None:
    with configured(data, organisation_quota=250 * KB) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada, WORK_100))
        given = receipt(submit(bob))
        receipt(give_feedback(ada, given["submission_id"], os.urandom(100 * KB)))
        full = give_feedback(ada, given["submission_id"], os.urandom(100 * KB))
        assert run_for(service, "purge", f"--confirm={purge(ada)}") == 0
    with configured(data, organisation_quota=250 * KB) as service:
        after = release(service.instructor(), WORK_100)

    assert full.status_code == 507
    assert after.status_code == 201


def test_feedback_that_has_not_changed_takes_no_room(data: Path) -> None:
    page = os.urandom(100 * KB)
    answers = []
    for _ in range(2):  # the second sums up what the first has stored
        with configured(data, organisation_quota=350 * KB) as service:
            ada, bob = service.instructor(), service.student()
            receipt(release(ada))
            given = receipt(submit(bob, key="work"))
            answers += [give_feedback(ada, given["submission_id"], page) for _ in range(4)]

    assert [answer.status_code for answer in answers] == 8 * [201]


def test_a_quota_counts_what_was_there_before_the_service_started(data: Path) -> None:
    with configured(data) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(), WORK_100))
    with configured(data, organisation_quota=150 * KB, student_quota=150 * KB) as service:
        answers = submit(service.student(), WORK_100), submit(service.student(name="eve"), WORK_100)

    assert [answer.status_code for answer in answers] == [413, 507]


def test_a_header_alone_does_not_hold_an_organisations_room(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with configured(data, organisation_quota=100 * MB) as service:
        receipt(release(service.instructor()))
        eve = service.student(name="eve")
        with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
            begin(connection, WORK_100, length=100 * MB - 50 * KB)
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            taken = submit(eve, WORK_100)
            with caplog.at_level(logging.WARNING):
                refused = too_large_for(service, eve, 100 * MB)

    assert taken.status_code == 201
    assert refused == 507
    assert "The quota of organisation 1 is used up" in caplog.text
    assert "bob in organisation 1 holds" in caplog.text


def too_large_for(service: Service, wire: Wire, length: int) -> int:
    """The status that answers a header, before anything is sent."""
    token = wire.session.headers["Authorization"].split()[-1]
    with RawConnection(service.url, token) as connection:
        headers = {"Content-Length": str(length), "Expect": "100-continue"}
        connection.send(connection.head("POST", "submission", headers, **PS1))
        return connection.answer().status


def test_bodies_that_fit_one_by_one_do_not_go_beyond_the_quota_together(data: Path) -> None:
    body = tar_gz(p1=os.urandom(6 * MB))
    with configured(data, organisation_quota=11 * MB) as service, ExitStack() as stack:
        receipt(release(service.instructor()))
        connections = [
            stack.enter_context(
                RawConnection(service.url, service.enrol(name, {"physics": "Student"}))
            )
            for name in ("bob", "eve")
        ]
        for connection in connections:
            begin(connection, body)
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 2)
        statuses = []
        for connection in connections:
            connection.send(body[100:])
            statuses.append(connection.answer().status)

    assert sorted(statuses) == [201, 507]


def test_bodies_of_unknown_length_do_not_go_beyond_the_quota_together(data: Path) -> None:
    with configured(data, organisation_quota=350 * KB) as service:
        receipt(release(service.instructor()))
        statuses = _send_at_once(service, WORK_100, 8)

        assert stored(service) <= 350 * KB
    assert set(statuses) == {201, 507}


def _send_at_once(service: Service, body: bytes, number: int) -> list[int]:
    """By so many students, without a length, and all begin before one of them ends."""
    statuses = []
    with ExitStack() as stack:
        connections = [
            stack.enter_context(
                RawConnection(service.url, service.enrol(f"bob{one}", {"physics": "Student"}))
            )
            for one in range(number)
        ]
        for connection in connections:
            headers = {"Transfer-Encoding": "chunked"}
            head = connection.head("POST", "submission", headers, **PS1)
            connection.send(head, chunk(body[:100]))
        wait_until(lambda: course.uploads_in_flight(service.wire(None)) == number)
        for connection in connections:
            connection.send(chunk(body[100:]))
        for connection in connections:
            connection.send(LAST_CHUNK)
            statuses.append(connection.answer().status)
    return statuses


def test_a_body_of_unknown_length_fits_into_little_room_beside_another(data: Path) -> None:
    with configured(data, organisation_quota=250 * KB) as service:
        receipt(release(service.instructor()))
        with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
            headers = {"Transfer-Encoding": "chunked"}
            head = connection.head("POST", "submission", headers, **PS1)
            connection.send(head, chunk(WORK_100[:100]))
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            eve = service.student(name="eve")
            answer = eve.post("submission", iter([WORK_100]), upload_headers(WORK_100), **PS1)

    assert answer.status_code == 201


def test_a_refused_body_gives_its_room_back_before_it_ends(data: Path) -> None:
    with configured(data, organisation_quota=250 * KB, max_buffer_size=150 * KB) as service:
        receipt(release(service.instructor()))
        watcher = service.wire(None)
        with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
            headers = {"Transfer-Encoding": "chunked"}
            head = connection.head("POST", "submission", headers, **PS1)
            connection.send(head, chunk(bytes(149 * KB)))
            wait_until(lambda: course.uploads_in_flight(watcher) == 1)
            connection.send(chunk(bytes(2 * KB)))
            wait_until(lambda: course.uploads_in_flight(watcher) == 0)
            work = tar_gz(p1=os.urandom(140 * KB))
            answer = submit(service.student(name="eve"), work)
            connection.send(LAST_CHUNK)
            refusal = connection.answer()

    assert (refusal.status, answer.status_code) == (413, 201)


def test_what_is_stored_while_an_organisation_is_summed_up_counts(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum that is over later than it began would not know of it."""
    with configured(data) as service:
        receipt(release(service.instructor()))
    with configured(data, organisation_quota=150 * KB) as service:
        eve = service.student(name="eve")
        statuses = []
        sum_up = quotas.stored_in

        def slowly(*args: Any) -> int:
            size = sum_up(*args)
            if not statuses:
                statuses.append(0)
                statuses.append(submit(eve, WORK_100).status_code)
            return size

        monkeypatch.setattr(quotas, "stored_in", slowly)
        bob = service.student()
        statuses += [submit(bob).status_code, submit(bob, WORK_100).status_code]

    assert statuses[1:] == [201, 201, 507]


# -- the disk


@pytest.mark.disk
def test_an_upload_that_would_fill_the_disk_is_refused_before_its_body_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/nbexchange.sqlite"
    with small_disk(tmp_path / "disk", "20m") as disk, configured(disk, db_url=url) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            # It would fit, and leave less than a twentieth.
            headers = {"Content-Length": str(19_500 * 1024), "Expect": "100-continue"}
            with caplog.at_level(logging.WARNING):
                connection.send(connection.head("POST", "submission", headers, **PS1))
                answer = connection.answer()
        small = submit(service.wire(token))

    assert answer.status == 507
    assert "full" in answer.json()["note"]
    assert small.status_code == 201
    assert "The disk is full except for the space that has to stay free" in caplog.text
    assert "bob in organisation 1 holds" in caplog.text


@pytest.mark.disk
def test_uploads_under_way_leave_room_for_each_other(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nbexchange.sqlite"
    half = 3 * MB
    with small_disk(tmp_path / "disk", "5m") as disk, configured(disk, db_url=url) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as one, RawConnection(service.url, token) as other:
            headers = {"Content-Length": str(half), "Expect": "100-continue"}
            one.send(one.head("POST", "submission", headers, **PS1))
            first = one.first_line()
            other.send(other.head("POST", "submission", headers, **PS1))
            second = other.answer()

    assert first.split()[1] == b"100"
    assert second.status == 507


def test_what_fits_on_the_disk_to_the_last_byte_is_let_in() -> None:
    """A disk has its room in blocks and changes it by itself, so here it says what it has."""
    upload = quotas.Quotas().reservation(User("bob"), "act", 100, is_instructor=False)

    upload.grow(0, quotas.Usage(student=None, organisation=False, free=100))

    with pytest.raises(StoreFull):
        upload.grow(0, quotas.Usage(student=None, organisation=False, free=99))


@pytest.mark.disk
def test_a_header_alone_does_not_hold_the_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nbexchange.sqlite"
    with small_disk(tmp_path / "disk", "60m") as disk, configured(disk, db_url=url) as service:
        receipt(release(service.instructor()))
        with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
            begin(connection, WORK_100, length=55 * MB)
            wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 1)
            answer = submit(service.student(name="eve"), tar_gz(p1=os.urandom(9 * MB)))

    assert answer.status_code == 201


@pytest.mark.disk
def test_bodies_of_unknown_length_leave_free_together_what_has_to_be_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/nbexchange.sqlite"
    with small_disk(tmp_path / "disk", "8m") as disk, configured(disk, db_url=url) as service:
        receipt(release(service.instructor()))
        statuses = _send_at_once(service, tar_gz(p1=os.urandom(MB)), 12)
        found = os.statvfs(disk)

    assert set(statuses) == {201, 507}
    assert found.f_bavail >= found.f_blocks // 20


# -- set up


@pytest.mark.parametrize(
    "said",
    ["{7: {'studnet': 1}}", "{7: {'student': -1}}", "{'seven': {'student': 1}}", "{7: 1}"],
)
def test_a_quota_that_makes_no_sense_is_refused_at_the_start(tmp_path: Path, said: str) -> None:
    file = tmp_path / "config.py"
    file.write_text(f"c.NbExchange.quotas = {said}\n")

    done = run_program(f"--config-file={file}", NBEXCHANGE_DATA=str(tmp_path / "data"))

    assert done.returncode != 0
    assert "quotas" in done.stderr
    assert "Traceback" not in done.stderr


# -- what it costs


@pytest.mark.slow
def test_a_submit_costs_the_same_where_there_are_5000_submissions(data: Path) -> None:
    with configured(data, student_quota=10**9, organisation_quota=10**12) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(name="first")))
        few = _least_seconds(service.student(name="few"))
        _add_submissions(service, 5000)
        many = _least_seconds(service.student(name="many"))

    print(f"a submit among few {1000 * few:.1f} ms, among 5,000 {1000 * many:.1f} ms")
    assert many <= 2 * few


def _least_seconds(wire: Wire) -> float:
    def seconds() -> float:
        begun = time.perf_counter()
        receipt(submit(wire))
        return time.perf_counter() - begun

    return min(seconds() for _ in range(60))


def _add_submissions(service: Service, number: int) -> None:
    """Rows of 100 other students, without their bytes."""
    engine = databases.engine_of(databases.database_of(service.data))
    table = models.Submission.__table__
    with engine.begin() as connection:
        first = dict(connection.execute(select(table).limit(1)).mappings().one())
        people = [{"org_id": 1, "name": f"student{one}"} for one in range(100)]
        connection.execute(insert(models.UserRow), people)
        users = connection.execute(
            select(models.UserRow.id).where(models.UserRow.name.like("student%"))
        )
        pks = list(users.scalars())
        copies = [_copy(first, one) | {"user_pk": pks[one % len(pks)]} for one in range(number)]
        connection.execute(insert(models.Submission), copies)


def _add_copies(service: Service, number: int) -> None:
    """Rows like that of the only submission, without their bytes."""
    engine = databases.engine_of(databases.database_of(service.data))
    with engine.begin() as connection:
        found = connection.execute(select(models.Submission.__table__)).mappings().one()
        copies = [_copy(dict(found), one) for one in range(number)]
        connection.execute(insert(models.Submission), copies)


def _copy(row: dict[str, Any], number: int) -> dict[str, Any]:
    timestamp = row["timestamp"].replace(microsecond=number) - datetime.timedelta(hours=1)
    own = {"key": f"k{number}", "token": f"t{number}", "timestamp": timestamp}
    return {name: row[name] for name in row if name != "id"} | own | {"idempotency_key": None}
