"""Only the server tells the time, and there is one order."""

from __future__ import annotations

import datetime
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tornado.web import RequestHandler
from traitlets.config import Config

from nbexchange.database import engines
from nbexchange.exchange.commitments import Commitment, Commitments
from nbexchange.exchange.official_time import COMMITMENT
from nbexchange.exchange.submissions import Admission
from nbexchange.handlers import base
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.handlers.auth.user_handler import Answer
from nbexchange.identity import User
from nbexchange.timestamps import normal_claim
from tests.support import course
from tests.support.archives import sha256, tar_gz, tar_gz_of, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, WORK, purge, receipt, release, rows, submit
from tests.support.faults_report import report
from tests.support.parts import PATIENCE, missing, needs
from tests.support.process import ServiceProcess, wait_until
from tests.support.raw import RawConnection
from tests.support.service import Service, Wire
from tests.test_faults import locked

TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6} UTC")
LONG_AGO = "2001-01-01 00:00:00.000000 UTC"


pytestmark = pytest.mark.sqlite  # whose clock is in our hands


class Clock:
    """The database's clock, in our hands, and what it shows has passed."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2026, 11, 20, 12, 0, 0, 0, datetime.UTC)

    def __call__(self) -> str:
        return self.now.strftime("%Y-%m-%d %H:%M:%S.%f")

    def monotonic(self) -> float:
        return self.now.timestamp()

    def set(self, text: str) -> None:
        self.now = moment(f"2026-11-20 {text}.000000 UTC")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(engines, "_system_clock", lambda: clock())
    monkeypatch.setattr(base, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def service(data: Path, clock: Clock) -> Iterator[Service]:
    """A service that goes by our clock."""
    with Service(data) as running:
        yield running


@pytest.fixture
def bob(service: Service) -> Wire:
    receipt(release(service.instructor()))
    return service.student()


def moment(text: str) -> datetime.datetime:
    naive = datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f UTC")
    return naive.replace(tzinfo=datetime.UTC)


class Slow:
    """A submission whose last byte is held back."""

    def __init__(
        self,
        service: Service,
        body: bytes,
        name: str = "bob",
        where: dict[str, str] = PS1,
        **headers: str,
    ) -> None:
        self._service = service
        self.last = body[-1:]
        token = service.enrol(name, {"physics": "Student"})
        self.connection = RawConnection(service.url, token)
        watcher = service.wire(None)
        before = course.uploads_in_flight(watcher)
        head = self.connection.head(
            "POST", "submission", headers | {"Content-Length": str(len(body))}, **where
        )
        self.connection.send(head, body[:-1])
        wait_until(lambda: course.uploads_in_flight(watcher) == before + 1)

    def finish(self) -> dict[str, Any]:
        with self.connection:
            self.connection.send(self.last)
            answer = self.connection.answer()
        assert answer.status == 201, answer.body
        return answer.json()

    def finish_behind_others(self, clock: Clock, until: str) -> dict[str, Any]:
        """The same, while somebody else writes until so late."""
        with locked(self._service.data / "nbexchange.sqlite"):
            self.connection.send(self.last)
            # What is left is its row.
            wait_until(lambda: len([*self._service.data.glob("blobs/*/*")]) == 2)
            clock.set(until)
        with self.connection:
            given: dict[str, Any] = self.connection.answer().json()
        return given


def test_with_a_digest_in_the_header_the_time_is_when_the_header_came(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("11:59:59")
    slow = Slow(service, WORK, **upload_headers(WORK))
    clock.set("12:30:00")

    assert slow.finish()["timestamp"] == "2026-11-20 11:59:59.000000 UTC"


class TakesItsTime(TokenFileUserHandler):
    """Says who asks when two seconds of our clock are over."""

    clock: Clock
    asked: threading.Event

    def get_current_user(self, request: RequestHandler) -> Answer:
        self.clock.now += datetime.timedelta(seconds=2)
        self.asked.set()
        return super().get_current_user(request)


def slow_to_let_in(data: Path, clock: Clock, **options: Any) -> Service:
    TakesItsTime.clock, TakesItsTime.asked = clock, threading.Event()
    return Service(data, Config(NbExchange={"user_plugin_class": TakesItsTime} | options))


@pytest.mark.parametrize(
    ("digest", "seconds"), [(True, 0), (False, 2)], ids=["digest in the header", "no digest"]
)
def test_that_it_took_long_to_know_who_sends_does_not_count(
    data: Path, clock: Clock, digest: bool, seconds: int
) -> None:
    with slow_to_let_in(data, clock) as service:
        receipt(release(service.instructor()))
        clock.set("12:00:00")
        headers = {} if digest else {"Content-Digest": None}
        given = receipt(submit(service.student(), **headers))

    assert given["timestamp"] == f"2026-11-20 12:00:{seconds:02}.000000 UTC"


def test_that_somebody_was_paced_does_not_count(data: Path, clock: Clock) -> None:
    paced = {"max_rate_per_person": 0.3, "max_burst_per_person": 1}
    with slow_to_let_in(data, clock, **paced) as service, ThreadPoolExecutor(1) as threads:
        receipt(release(service.instructor()))
        bob = service.student()
        for _ in range(2):
            assert bob.get("assignments", course_id="physics").ok
        clock.set("12:00:00")
        TakesItsTime.asked.clear()
        answer = threads.submit(submit, bob)
        assert TakesItsTime.asked.wait(PATIENCE)
        clock.set("12:00:30")  # it waits for some seconds now
        given = receipt(answer.result())

    assert given["timestamp"] == "2026-11-20 12:00:00.000000 UTC"


def test_who_had_to_wait_still_comes_after_what_was_complete_before(
    data: Path, clock: Clock
) -> None:
    with slow_to_let_in(data, clock) as service:
        receipt(release(service.instructor()))
        bob = service.student()
        clock.set("12:00:00")
        before = receipt(submit(bob, **{"Content-Digest": None}))
        clock.set("12:00:01")  # and is set back by a second
        after = receipt(submit(bob))

    assert before["timestamp"] == "2026-11-20 12:00:02.000000 UTC"
    assert after["timestamp"] == "2026-11-20 12:00:02.000001 UTC"


def test_a_digest_holds_the_time_for_an_hour_and_no_longer(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """Nobody can hold back several answers until the right one is known."""
    clock.set("11:59:59")
    slow = Slow(service, WORK, **upload_headers(WORK))
    clock.set("13:00:00")

    assert slow.finish()["timestamp"] == "2026-11-20 13:00:00.000000 UTC"


OTHER_WORK = tar_gz(p1=b'{"cells": [], "metadata": {}}')


def test_of_several_uploads_held_open_only_the_first_keeps_the_time_of_its_header(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """Who could choose which one to complete would choose when the solution is known."""
    works = [tar_gz(p1=str(number).encode()) for number in range(4)]
    clock.set("11:59:59")
    slow = [Slow(service, work, **upload_headers(work, sha256(work))) for work in works]
    clock.set("12:30:00")

    times = [one.finish()["timestamp"] for one in reversed(slow)]

    assert times == [
        "2026-11-20 12:30:00.000000 UTC",
        "2026-11-20 12:30:00.000001 UTC",
        "2026-11-20 12:30:00.000002 UTC",
        "2026-11-20 11:59:59.000000 UTC",
    ]


def test_of_several_uploads_held_open_only_the_first_gets_in_when_the_assignment_was_closed(
    service: Service, bob: Wire, clock: Clock
) -> None:
    first = Slow(service, WORK, **upload_headers(WORK))
    second = Slow(service, OTHER_WORK, **upload_headers(OTHER_WORK))
    assert service.instructor().delete("assignment", **PS1).ok
    second.connection.send(second.last)

    with second.connection:
        assert second.connection.answer().status == 404
    assert first.finish()["sha256"] == sha256(WORK)


def test_another_assignment_and_another_student_keep_their_own_time(
    service: Service, bob: Wire, clock: Clock
) -> None:
    ps2 = {**PS1, "assignment_id": "ps2"}
    receipt(service.instructor().post("assignment", WORK, upload_headers(WORK), **ps2))
    clock.set("11:59:59")
    uploads = [
        Slow(service, WORK, **upload_headers(WORK)),
        Slow(service, WORK, where=ps2, **upload_headers(WORK)),
        Slow(service, WORK, name="carl", **upload_headers(WORK)),
    ]
    clock.set("12:30:00")

    times = {upload.finish()["timestamp"] for upload in uploads}
    assert times == {"2026-11-20 11:59:59.000000 UTC"}


@pytest.mark.parametrize("is_noticed", [True, False], ids=["broken", "stalled"])
def test_a_retry_after_a_connection_failed_keeps_the_time_of_the_first_header(
    service: Service, bob: Wire, clock: Clock, is_noticed: bool
) -> None:
    clock.set("11:59:59")
    failed = Slow(service, WORK, **upload_headers(WORK, "k"))
    if is_noticed:
        failed.connection.reset()
        wait_until(lambda: course.uploads_in_flight(bob) == 0)
    clock.set("12:30:00")

    with failed.connection:
        assert receipt(submit(bob, key="k"))["timestamp"] == "2026-11-20 11:59:59.000000 UTC"


@pytest.mark.parametrize(
    ("work", "key", "time"),
    [(OTHER_WORK, "k", "12:30:00"), (WORK, "l", "12:30:00"), (WORK, None, "12:30:00")],
    ids=["other bytes", "another key", "no key"],
)
def test_nothing_but_a_retry_takes_over_the_time_of_a_failed_upload(
    service: Service, bob: Wire, clock: Clock, work: bytes, key: str | None, time: str
) -> None:
    clock.set("11:59:59")
    failed = Slow(service, WORK, **upload_headers(WORK, "k"))
    failed.connection.reset()
    wait_until(lambda: course.uploads_in_flight(bob) == 0)
    clock.set(time)

    assert receipt(submit(bob, work, key))["timestamp"] == f"2026-11-20 {time}.000000 UTC"


def test_a_new_upload_after_a_failed_one_keeps_the_time_of_its_header(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """And the failed one, if it is tried again, has no time any more: there would be two."""
    failed = Slow(service, WORK, **upload_headers(WORK, "k"))
    failed.connection.reset()
    wait_until(lambda: course.uploads_in_flight(bob) == 0)
    clock.set("12:10:00")
    new = Slow(service, OTHER_WORK, **upload_headers(OTHER_WORK, "l"))
    clock.set("12:30:00")
    given = receipt(submit(bob, WORK, "k"))

    assert given["timestamp"] == "2026-11-20 12:30:00.000000 UTC"
    assert new.finish()["timestamp"] == "2026-11-20 12:10:00.000000 UTC"


def test_a_failed_upload_is_remembered_for_an_hour_and_no_longer(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("12:00:00")
    failed = Slow(service, WORK, **upload_headers(WORK, "k"))
    failed.connection.reset()
    wait_until(lambda: course.uploads_in_flight(bob) == 0)
    clock.set("13:00:01")
    retry = Slow(service, WORK, **upload_headers(WORK, "k"))
    clock.set("13:30:00")

    assert retry.finish()["timestamp"] == "2026-11-20 13:00:01.000000 UTC"


@pytest.mark.parametrize(
    ("headers", "status"),
    [(upload_headers(WORK), 201), ({}, 404)],
    ids=["digest in the header", "no digest"],
)
def test_who_was_sending_when_the_assignment_was_closed_gets_in_if_nothing_can_change_any_more(
    service: Service, bob: Wire, clock: Clock, headers: dict[str, str], status: int
) -> None:
    slow = Slow(service, WORK, **headers)
    assert service.instructor().delete("assignment", **PS1).ok
    clock.set("12:30:00")
    slow.connection.send(WORK[-1:])

    with slow.connection:
        assert slow.connection.answer().status == status
    assert len(rows(service, "submission")) == (status == 201)


def test_work_for_an_assignment_that_was_erased_meanwhile_does_not_reach_the_new_one(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """SQLite gives the numbers of erased rows out again."""
    slow = Slow(service, WORK, **upload_headers(WORK))
    ada = service.instructor()
    assert run_for(service, "purge", f"--confirm={purge(ada)}") == 0
    receipt(release(ada))
    slow.connection.send(WORK[-1:])

    with slow.connection:
        assert slow.connection.answer().status == 404
    assert rows(service, "submission") == []
    assert len(service.files()) == 1


def test_without_a_digest_the_time_is_when_all_had_come(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("11:59:59")
    slow = Slow(service, WORK)
    clock.set("12:30:00")

    assert slow.finish()["timestamp"] == "2026-11-20 12:30:00.000000 UTC"


def test_without_a_digest_the_time_is_of_the_last_byte_however_busy_the_service_is(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("12:00:00")
    slow = Slow(service, WORK)
    clock.set("12:30:00")

    assert (
        slow.finish_behind_others(clock, "12:30:07")["timestamp"]
        == "2026-11-20 12:30:00.000000 UTC"
    )


def test_what_we_need_for_it_is_no_part_of_the_hour(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("12:00:00")
    slow = Slow(service, WORK, **upload_headers(WORK))
    clock.set("12:59:55")

    assert (
        slow.finish_behind_others(clock, "13:00:07")["timestamp"]
        == "2026-11-20 12:00:00.000000 UTC"
    )


def test_bytes_other_than_the_header_announced_get_no_time(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """Nobody can reserve a time for work that is yet to be done."""
    other = tar_gz(p1=b"done later")
    slow = Slow(service, other, **upload_headers(WORK))
    slow.connection.send(other[-1:])

    with slow.connection:
        assert slow.connection.answer().status == 422
    assert rows(service, "submission") == []


def test_a_submission_in_between_is_ordered_by_its_own_arrival(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("12:00:00")
    slow = Slow(service, WORK, **upload_headers(WORK))
    clock.set("12:01:00")
    between = receipt(submit(bob, tar_gz(p1=b"second")))
    clock.set("12:02:00")
    first = slow.finish()

    assert first["timestamp"] < between["timestamp"]
    newest, oldest = course.submissions(bob)
    assert newest["submission_id"] == between["submission_id"]
    assert oldest["submission_id"] == first["submission_id"]


def test_a_clock_that_steps_back_does_not_turn_the_order(
    service: Service, bob: Wire, clock: Clock
) -> None:
    given = []
    for time in ("12:00:00", "11:00:00", "11:00:00", "10:30:00", "13:00:00"):
        clock.set(time)
        given.append(receipt(submit(bob))["timestamp"])
        given.append(receipt(submit(bob, **{"Content-Digest": None}))["timestamp"])

    assert given == sorted(set(given))
    assert given[-1] == "2026-11-20 13:00:00.000001 UTC"
    listed = [record["timestamp"] for record in course.submissions(bob)]
    assert listed == given[::-1]


def test_times_are_unique_and_increasing_however_fast_they_come(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """The clock stands still, which is the fastest that a client can be."""
    token = service.enrol("bob", {"physics": "Student"})
    wires = [service.wire(token) for _ in range(16)]

    with ThreadPoolExecutor(len(wires)) as pool:
        given = [receipt(answer)["timestamp"] for answer in pool.map(submit, wires)]
    then = receipt(submit(bob))["timestamp"]

    assert len({*given, then}) == len(wires) + 1
    assert max(given) < then


def test_two_students_may_have_the_same_time(service: Service, bob: Wire, clock: Clock) -> None:
    carl = service.student(name="carl")

    assert receipt(submit(bob))["timestamp"] == receipt(submit(carl))["timestamp"]


def test_what_arrived_and_what_was_corrected_are_both_on_record(
    service: Service, bob: Wire, clock: Clock
) -> None:
    clock.set("12:00:00")
    receipt(submit(bob))
    clock.set("11:00:00")
    receipt(submit(bob))

    _, row = rows(service, "submission")
    assert row["arrived_at"] == moment("2026-11-20 11:00:00.000000 UTC")
    assert row["timestamp"] == moment("2026-11-20 12:00:00.000001 UTC")


BACKDATING_HEADERS = (
    "Date",
    "Last-Modified",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "X-Timestamp",
    "X-Request-Start",
    "X-Received-At",
    "Timestamp",
    "Forwarded",
    "X-Forwarded-For",
)
BACKDATING_PARAMETERS = ("timestamp", "arrived_at", "stored_at", "date", "time", "submitted_at")


@pytest.mark.parametrize("header", BACKDATING_HEADERS)
def test_no_header_changes_the_time(service: Service, bob: Wire, clock: Clock, header: str) -> None:
    for said in ("Mon, 01 Jan 2001 00:00:00 GMT", LONG_AGO, "978307200"):
        receipt(submit(bob, **{header: said}))

    assert_all_of_today(service, bob)


@pytest.mark.parametrize("parameter", BACKDATING_PARAMETERS)
def test_no_parameter_changes_the_time(
    service: Service, bob: Wire, clock: Clock, parameter: str
) -> None:
    for said in (LONG_AGO, "2001-01-01T00:00:00Z", "9999-12-31 23:59:59.999999 UTC", "0", "-1"):
        headers = upload_headers(WORK)
        receipt(bob.post("submission", WORK, headers, **PS1, **{parameter: said}))

    assert_all_of_today(service, bob)


def test_nothing_in_the_archive_changes_the_time(service: Service, bob: Wire, clock: Clock) -> None:
    receipt(submit(bob, tar_gz_of({"p1.ipynb": b"{}", "timestamp.txt": LONG_AGO.encode()})))
    receipt(submit(bob, old_archive()))

    assert_all_of_today(service, bob)


def test_a_form_field_does_not_change_the_time(service: Service, bob: Wire, clock: Clock) -> None:
    wire = service.wire(service.enrol("bob", {"physics": "Student"}))
    answer = wire.request(
        "POST",
        "submission",
        params={**PS1, "timestamp": LONG_AGO},
        data={"timestamp": LONG_AGO},
        files={"assignment": ("assignment.tar.gz", WORK)},
    )
    receipt(answer)

    assert_all_of_today(service, bob)


def old_archive() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        entry = tarfile.TarInfo("p1.ipynb")
        entry.size, entry.mtime = 2, 978307200
        archive.addfile(entry, io.BytesIO(b"{}"))
    return target.getvalue()


def assert_all_of_today(service: Service, bob: Wire) -> None:
    """The clock stands still at noon; only ticks may have been added."""
    listed = [record["timestamp"] for record in course.submissions(bob)]
    assert listed
    assert all(time.startswith("2026-11-20 12:00:00.0000") for time in listed), listed
    for row in rows(service, "submission"):
        assert row["arrived_at"] == row["stored_at"] == moment("2026-11-20 12:00:00.000000 UTC")


CLAIMS = {
    "ours": ("2026-11-21 10:00:00.000000 UTC", "2026-11-21 10:00:00.000000 UTC"),
    "without a zone": ("2026-11-21 10:00:00", "2026-11-21 10:00:00.000000 UTC"),
    "with a zone": ("2026-11-21 19:00:00.500000+0900", "2026-11-21 10:00:00.500000 UTC"),
    "with a zone, ISO 8601": ("2026-11-21T05:30:00-04:30", "2026-11-21 10:00:00.000000 UTC"),
    "with spaces around": (" 2026-11-21 10:00:00 UTC ", "2026-11-21 10:00:00.000000 UTC"),
    "before the first year": ("0001-01-01 00:00:00+09:00", "0001-01-01 00:00:00+09:00"),
    "some words": ("yesterday evening", "yesterday evening"),
    "as long as is kept": ("x" * 100, "x" * 100),
    "too long": ("x" * 101, None),
    "with a tab": ("2026-11-21\t10:00:00", None),
    "empty": (" ", None),
}


@pytest.mark.parametrize(("claim", "kept"), CLAIMS.values(), ids=CLAIMS)
def test_of_what_a_client_says_about_time_what_fits_is_kept_in_our_form(
    claim: str, kept: str | None
) -> None:
    assert normal_claim(claim) == kept


def test_every_time_has_one_fixed_width_and_is_utc(
    service: Service, bob: Wire, clock: Clock
) -> None:
    """.strftime and isoformat both drop zeros somewhere; sorting text must sort times."""
    ada = service.instructor()
    given = receipt(submit(bob))
    feedback = receipt(course.give_feedback(ada, given["submission_id"], b"good"))
    assert bob.get("assignment", **PS1).ok

    listed = bob.get("assignments", course_id="physics").json()["value"]
    history = ada.get("history").json()["value"]
    times = [given["timestamp"], feedback["timestamp"]]
    times += [record["timestamp"] for record in listed]
    times += [
        action["timestamp"]
        for place in history
        for assignment in place.get("assignments", ())
        for action in assignment.get("actions", ())
        if "timestamp" in action
    ]

    assert len(times) >= 5
    for time in times:
        assert TIMESTAMP.fullmatch(time), time
        assert time.endswith((".000000 UTC", ".000001 UTC"))


def test_the_time_is_utc_whatever_the_zone_of_the_machine(data: Path) -> None:
    with ServiceProcess(data, env={"TZ": "Pacific/Kiritimati"}) as service:
        receipt(release(service.instructor()))
        before = datetime.datetime.now(datetime.UTC)
        given = receipt(submit(service.student()))
        after = datetime.datetime.now(datetime.UTC)

    assert before <= moment(given["timestamp"]) <= after


def test_a_machine_whose_clock_steps_back_keeps_the_order(data: Path, tmp_path: Path) -> None:
    """The same through the whole system: libfaketime turns back the clock of a real process."""
    needs("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        missing("there is no libfaketimeMT.so.1")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    given = []
    with ServiceProcess(data, env=env) as service:
        bob = service.student()
        receipt(release(service.instructor()))
        for shift in ("+0", "-3600", "-7200", "+3600", "-0"):
            offset.write_text(shift)
            given.append(receipt(submit(bob))["timestamp"])
        listed = [record["timestamp"] for record in course.submissions(bob)]
        arrived = [row["arrived_at"] for row in rows(service, "submission")]

    assert arrived != sorted(arrived), "the clock was not turned back"
    assert given == sorted(set(given))
    assert listed == given[::-1]
    report(fault="clock turned back and forth", trials=len(given), acknowledged=len(given))


def test_a_commitment_that_holds_no_time_any_more_is_forgotten(clock: Clock) -> None:
    """However many students there are, memory holds those of the last while."""
    commitments = Commitments()

    def begin(number: int) -> Commitment:
        admission = Admission(clock.now, 1, 1, "release", None)
        begun = commitments.begin(User(f"student{number}"), "key", "digest", admission)
        assert begun is not None
        return begun

    unfinished = begin(0)
    for number in range(1, 100):
        begin(number).end()
        clock.now += COMMITMENT / 10

    assert 11 <= len(commitments) <= 12
    unfinished.end()
    begin(100).end()
    assert 10 <= len(commitments) <= 11
