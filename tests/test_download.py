"""Bytes out: whole, in ranges, and never wrong ones as if they were right."""

from __future__ import annotations

import base64
import datetime
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from nbexchange.models import Base
from tests.support import databases, places
from tests.support.archives import content_digest, sha256, tar_gz, upload_headers
from tests.support.commands import run_for
from tests.support.course import (
    PS1,
    WORK,
    collect,
    give_feedback,
    purge,
    receipt,
    release,
    rows,
    submit,
)
from tests.support.numbers import Numbers
from tests.support.process import ServiceProcess, highest_memory, wait_until
from tests.support.raw import RawConnection
from tests.support.service import PATIENCE, Service, Wire, configured

LARGE = tar_gz(p1=random.Random(1).randbytes(3_500_000))
"""Several chunks."""
LONG_AGO = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
MEGABYTE = 1024 * 1024


@pytest.fixture
def ada(service: Service) -> Wire:
    ada = service.instructor()
    receipt(release(ada, LARGE))
    return ada


@pytest.fixture
def bob(service: Service, ada: Wire) -> Wire:
    return service.student()


def fetch(wire: Wire, **headers: str) -> requests.Response:
    return wire.get(
        "assignment", {name.replace("_", "-"): text for name, text in headers.items()}, **PS1
    )


def test_a_release_is_fetched_as_it_was_sent(bob: Wire) -> None:
    answer = fetch(bob)

    assert answer.content == LARGE
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["Content-Length"] == str(len(LARGE))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Nbexchange-Version"] == "1"


def test_a_submission_is_collected_as_it_was_sent(ada: Wire, bob: Wire) -> None:
    submission_id = receipt(submit(bob))["submission_id"]

    for wire in (ada, bob):
        answer = collect(wire, submission_id)
        assert answer.content == WORK
        assert answer.headers["Content-Type"] == "application/gzip"
        assert answer.headers["Etag"] == f'"{sha256(WORK)}"'


def test_a_download_carries_its_digests(bob: Wire) -> None:
    whole, part = fetch(bob), fetch(bob, Range="bytes=1-5")

    assert whole.headers["Content-Digest"] == content_digest(LARGE)
    assert whole.headers["Repr-Digest"] == content_digest(LARGE)
    assert part.headers["Repr-Digest"] == content_digest(LARGE)
    assert "Content-Digest" not in part.headers


SIZE = len(LARGE)
RANGES = {
    "the first byte": ("bytes=0-0", 0, 1),
    "some": ("bytes=10-19", 10, 20),
    "over a chunk's end": (f"bytes={MEGABYTE - 2}-{MEGABYTE + 1}", MEGABYTE - 2, MEGABYTE + 2),
    "from the middle on": (f"bytes={SIZE // 2}-", SIZE // 2, SIZE),
    "the last byte": (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    "beyond the end": (f"bytes={SIZE - 5}-{SIZE + 100}", SIZE - 5, SIZE),
    "the last five": ("bytes=-5", SIZE - 5, SIZE),
}


@pytest.mark.parametrize(("field", "start", "stop"), RANGES.values(), ids=RANGES)
def test_a_range_is_answered_with_just_that(bob: Wire, field: str, start: int, stop: int) -> None:
    answer = fetch(bob, Range=field)

    assert answer.status_code == 206
    assert answer.content == LARGE[start:stop]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["Etag"] == f'"{sha256(LARGE)}"'


WHOLE = (
    "bytes=0-",
    f"bytes=-{SIZE}",
    f"bytes=-{SIZE + 1}",
    "bytes=0-1,5-6",
    "bytes=-",
    "bytes=a-b",
    "bytes",
    "lines=1-2",
    "bytes=99999999999999999999-",
)


@pytest.mark.parametrize("field", WHOLE)
def test_a_range_that_is_all_or_not_understood_is_answered_with_the_whole(
    bob: Wire, field: str
) -> None:
    answer = fetch(bob, Range=field)

    assert answer.status_code == 200
    assert answer.content == LARGE


@pytest.mark.parametrize("field", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
def test_bytes_that_do_not_exist_are_a_416(bob: Wire, field: str) -> None:
    answer = fetch(bob, Range=field)

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.json()["success"] is False


def test_a_download_is_resumed_only_of_the_same_bytes(bob: Wire, ada: Wire) -> None:
    etag = fetch(bob).headers["Etag"]
    same = fetch(bob, Range="bytes=5-", If_Range=etag)
    receipt(release(ada, WORK))
    other = fetch(bob, Range="bytes=5-", If_Range=etag)

    assert (same.status_code, same.content) == (206, LARGE[5:])
    assert (other.status_code, other.content) == (200, WORK)


@pytest.mark.parametrize("field", ["W/{etag}", "Sat, 21 Nov 2026 10:00:00 GMT", '"other"'])
def test_an_if_range_that_proves_nothing_gets_the_whole(bob: Wire, field: str) -> None:
    etag = fetch(bob).headers["Etag"]

    assert fetch(bob, Range="bytes=5-", If_Range=field.format(etag=etag)).content == LARGE


@pytest.mark.parametrize("field", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
def test_who_has_it_already_gets_no_body(bob: Wire, field: str) -> None:
    etag = fetch(bob).headers["Etag"]

    answer = fetch(bob, If_None_Match=field.format(etag=etag))

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["Etag"] == etag


def test_who_has_something_else_gets_it(bob: Wire) -> None:
    assert fetch(bob, If_None_Match='"other"').content == LARGE


def test_later_parts_of_a_download_are_not_noted_as_another_fetch(
    service: Service, bob: Wire
) -> None:
    fetch(bob)
    fetch(bob, Range="bytes=100-")

    assert actions(service) == ["released", "fetched"]


def actions(service: Service) -> list[str]:
    return [event["action"] for event in rows(service, "event")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=1-"},
        {"Range": "bytes=1-", "If-Range": '"other"'},
        {"Range": "bytes=-5"},
        {"Range": "nonsense"},
    ],
)
def test_nobody_has_any_part_of_a_file_without_an_event(
    service: Service, bob: Wire, ada: Wire, headers: dict[str, str]
) -> None:
    given = receipt(submit(bob))
    before = actions(service)

    for _ in range(2):
        assert bob.get("assignment", headers, **PS1).ok
        assert ada.get("collection", headers, **PS1, path=given["submission_id"]).ok

    assert actions(service) == [*before, "fetched", "collected"]


def test_a_part_of_another_version_is_noted(service: Service, bob: Wire, ada: Wire) -> None:
    fetch(bob)
    receipt(release(ada, WORK))
    fetch(bob, Range="bytes=1-")

    assert actions(service) == ["released", "fetched", "released", "fetched"]


def test_the_same_file_again_within_a_minute_is_one_event(
    service: Service, bob: Wire, ada: Wire
) -> None:
    given = [receipt(submit(bob)) for _ in range(2)]
    before = actions(service)

    for _ in range(3):
        fetch(bob)
        for each in given:
            assert collect(ada, each["submission_id"]).ok

    assert actions(service) == [*before, "fetched", "collected", "collected"]


def test_the_same_file_again_after_a_minute_is_another_event_and_a_part_is_not(
    service: Service, bob: Wire, ada: Wire
) -> None:
    given = receipt(submit(bob))

    def download(**headers: str) -> None:
        assert bob.get("assignment", headers, **PS1).ok
        assert ada.get("collection", headers, **PS1, path=given["submission_id"]).ok

    download()
    with databases.engine_of(databases.database_of(service.data)).begin() as connection:
        event = Base.metadata.tables["event"]
        connection.execute(event.update().values(at=LONG_AGO))
    download(Range="bytes=1-")
    download()

    assert actions(service) == ["released", "submitted", *2 * ["fetched", "collected"]]


# -- damaged


def flip_the_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def flip_the_first_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


HARM: dict[str, Callable[[Path], None]] = {
    "a bit flipped at the end": flip_the_last_bit,
    "a bit flipped at the beginning": flip_the_first_bit,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "missing": Path.unlink,
}


def harm_file(service: Service, table: str, harm: Callable[[Path], None]) -> None:
    (row,) = rows(service, table)
    places.harm(service.data, row["key"], harm)


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_small_damaged_file_is_refused_in_words(
    service: Service, ada: Wire, bob: Wire, harm: Callable[[Path], None]
) -> None:
    submission_id = receipt(submit(bob))["submission_id"]
    harm_file(service, "submission", harm)

    answer = collect(ada, submission_id)

    assert answer.status_code == 500
    assert answer.headers["Content-Type"].startswith("application/json")
    assert "corrupt" in answer.json()["note"]
    assert "Etag" not in answer.headers
    assert "Content-Disposition" not in answer.headers
    assert ada.get("healthz").ok


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_a_large_damaged_file_never_arrives_complete(
    service: Service, bob: Wire, harm: Callable[[Path], None]
) -> None:
    harm_file(service, "release", harm)

    try:
        answer = fetch(bob)
    except requests.exceptions.ChunkedEncodingError:
        pass  # cut
    else:
        assert answer.status_code == 500
        assert answer.json()["success"] is False


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_damaged_feedback_never_arrives_complete(
    service: Service, ada: Wire, bob: Wire, harm: Callable[[Path], None]
) -> None:
    submission_id = receipt(submit(bob))["submission_id"]
    receipt(give_feedback(ada, submission_id, os.urandom(2_500_000)))
    harm_file(service, "feedback", harm)

    answer = bob.get("feedback", **PS1)

    assert answer.status_code == 500
    assert "corrupt" in answer.json()["note"]


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_one_damaged_file_keeps_no_other_feedback_from_the_student(
    service: Service, ada: Wire, bob: Wire, harm: Callable[[Path], None]
) -> None:
    damaged, good = (receipt(submit(bob))["submission_id"] for _ in range(2))
    receipt(give_feedback(ada, damaged, b"first"))
    harm_file(service, "feedback", harm)
    receipt(give_feedback(ada, good, b"second"))

    found = bob.get("feedback", **PS1).json()["feedback"]

    assert [item["submission_id"] for item in found] == [good]
    assert base64.b64decode(found[0]["content"]) == b"second"
    numbers = Numbers(service)
    assert numbers.get("nbexchange_refusals_total", reason="Damaged") == 1


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_feedback_that_was_damaged_is_there_when_it_is_released_again(
    service: Service, ada: Wire, bob: Wire, harm: Callable[[Path], None]
) -> None:
    submission_id = receipt(submit(bob))["submission_id"]
    receipt(give_feedback(ada, submission_id, b"the same"))
    harm_file(service, "feedback", harm)

    again = receipt(give_feedback(ada, submission_id, b"the same"))

    (item,) = bob.get("feedback", **PS1).json()["feedback"]
    assert (again["version"], item["version"]) == (2, 2)
    assert base64.b64decode(item["content"]) == b"the same"


# -- erased


PS2 = {"course_id": "physics", "assignment_id": "ps2"}

# Feedback is looked for when its turn has come, so that no turn lies between the row and its bytes.
DOWNLOADS: dict[str, tuple[str, Callable[[Wire, str], requests.Response]]] = {
    "a release": ("fetched", lambda bob, _: fetch(bob)),
    "a submission": ("collected", collect),
}


@pytest.mark.parametrize(("action", "download"), DOWNLOADS.values(), ids=DOWNLOADS)
def test_what_is_purged_while_its_download_waits_for_a_turn_is_gone_and_not_damaged(
    data: Path, action: str, download: Callable[[Wire, str], requests.Response]
) -> None:
    with configured(data, max_transfers_per_person=1) as service:
        ada, token = service.instructor(), service.enrol("bob", {"physics": "Student"})
        bob, large = service.wire(token), tar_gz(p2=os.urandom(8_000_000))
        receipt(release(ada))
        receipt(ada.post("assignment", large, upload_headers(large), **PS2))
        submission_id = receipt(submit(bob))["submission_id"]
        receipt(give_feedback(ada, submission_id, b"good"))
        with RawConnection(service.url, token) as reader:
            reader.send(reader.head("GET", "assignment", **PS2))
            wait_until(lambda: reader.socket.recv(1, socket.MSG_PEEK))
            done = len([row for row in rows(service, "event") if row["action"] == action])
            answers: list[requests.Response] = []
            waiting = threading.Thread(target=lambda: answers.append(download(bob, submission_id)))
            waiting.start()
            wait_until(
                lambda: [row["action"] for row in rows(service, "event")].count(action) > done
            )
            assert run_for(service, "purge", f"--confirm={purge(ada)}") == 0
        waiting.join()
        numbers = Numbers(service)

    assert answers[0].status_code == 404
    assert "erased meanwhile" in answers[0].json()["note"]
    assert numbers.get("nbexchange_refusals_total", reason="Damaged") == 0


def test_who_fetches_much_feedback_at_a_time_waits_for_a_turn(data: Path) -> None:
    with configured(data, turn_timeout=0.2, max_transfers_per_person=1) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        bob = service.wire(token)
        submission_id = receipt(submit(bob))["submission_id"]
        receipt(give_feedback(service.instructor(), submission_id, os.urandom(8_000_000)))
        with RawConnection(service.url, token) as reader:
            reader.send(reader.head("GET", "feedback", **PS1))
            wait_until(lambda: reader.socket.recv(1, socket.MSG_PEEK))
            refused = bob.get("feedback", **PS1)
        wait_until(lambda: bob.get("feedback", **PS1).ok)

    assert refused.status_code == 429


@pytest.mark.disk
def test_a_file_that_shrinks_while_it_is_sent_never_arrives_complete(
    service: Service, ada: Wire
) -> None:
    """Past what the sockets buffer, the server waits for the reader; then the disk loses it."""
    body = tar_gz(p1=os.urandom(30_000_000))
    receipt(ada.post("assignment", body, upload_headers(body), **{**PS1, "assignment_id": "big"}))
    *_, row = rows(service, "release")
    with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
        params = {**PS1, "assignment_id": "big"}
        connection.send(connection.head("GET", "assignment", **params))
        assert connection.first_line().split()[1] == b"200"
        os.truncate(service.data / "blobs" / row["key"][:2] / row["key"], 20_000_000)
        received = 0
        while piece := connection.socket.recv(MEGABYTE):
            received += len(piece)

    assert received < len(body)


def test_a_client_that_goes_away_in_the_middle_harms_nobody(service: Service, bob: Wire) -> None:
    token = service.enrol("bob", {"physics": "Student"})
    for _ in range(5):
        connection = RawConnection(service.url, token)
        connection.send(connection.head("GET", "assignment", **PS1))
        connection.first_line()
        connection.reset()

    assert fetch(bob).content == LARGE


def test_feedback_of_every_size_survives_the_trip(service: Service, ada: Wire, bob: Wire) -> None:
    """It travels as base64, which is made in pieces."""
    submission_id = receipt(submit(bob))["submission_id"]
    for size in (1, 2, 3, 4, MEGABYTE - 1, MEGABYTE, MEGABYTE + 1, 2 * MEGABYTE + 5):
        body = os.urandom(size)
        receipt(give_feedback(ada, submission_id, body))
        (item,) = bob.get("feedback", **PS1).json()["feedback"]
        assert base64.b64decode(item["content"]) == body
        assert item["sha256"] == sha256(body)


# -- large


SOME_MEGABYTES = 200
GROWTH = 32 * MEGABYTE


@pytest.mark.slow
def test_memory_does_not_grow_with_a_file_and_others_are_not_kept_waiting(data: Path) -> None:
    """200 MB up and down. Others are answered meanwhile; how fast is for the benchmarks."""
    body_size = SOME_MEGABYTES * MEGABYTE
    with ServiceProcess(data) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        submission_id = receipt(submit(bob))["submission_id"]
        assert fetch(bob).ok
        before = highest_memory(service.pid)
        piece = os.urandom(MEGABYTE)

        with OthersAt(service) as during_upload:
            receipt(
                ada.post(
                    "feedback",
                    (piece for _ in range(SOME_MEGABYTES)),
                    {"Content-Type": "text/html"},
                    **PS1,
                    notebook="p1",
                    submission_id=submission_id,
                )
            )
        after_upload = highest_memory(service.pid)
        with OthersAt(service) as during_download:
            received = sum(map(len, stream(bob)))
        after_download = highest_memory(service.pid)

    assert received > body_size
    assert after_upload - before <= GROWTH
    assert after_download - before <= GROWTH
    assert during_upload.answers > 0
    assert during_download.answers > 0


def stream(wire: Wire) -> Iterator[bytes]:
    with wire.session.get(
        f"{wire.url}/feedback", params=PS1, stream=True, timeout=PATIENCE
    ) as answer:
        yield from answer.iter_content(MEGABYTE)


class OthersAt:
    """Somebody who asks again and again while a transfer goes on."""

    def __init__(self, service: Service) -> None:
        self.answers = 0
        self._over = False
        self._wire = service.wire(None)
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> OthersAt:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _ask(self) -> None:
        while not self._over:
            assert self._wire.get("healthz").ok
            self.answers += not self._over
