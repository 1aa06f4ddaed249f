"""Whoever is slow is closed after a while, leaves nothing, and keeps nobody else waiting."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
import requests

from benchmarks.attackers import Attackers
from nbexchange.server.connections import LEAST_CHUNK, REST_SECONDS, SMALL_CHUNKS, ConnectionLimits
from tests.support import course
from tests.support.archives import sha256, tar_gz_of, upload_headers
from tests.support.course import PS1, WORK, receipt, release, rows, submit
from tests.support.numbers import Numbers
from tests.support.others import Waits
from tests.support.parts import PATIENCE, needs
from tests.support.process import PROGRAM, ServiceProcess, wait_until
from tests.support.raw import RawConnection, chunk
from tests.support.service import Service, configured

MEGABYTE = 1024 * 1024

QUICK = {"header_timeout": 0.4, "silence_timeout": 0.4}


def bob_at(service: Service) -> RawConnection:
    return RawConnection(service.url, service.enrol("bob", {"physics": "Student"}))


def half_an_upload(
    service: Service, body: bytes = WORK, length: int | None = None
) -> RawConnection:
    """Its head and a few bytes of its body were sent, and it has begun."""
    connection, before = bob_at(service), bytes_received(service)
    headers = upload_headers(body, **{"Content-Length": str(length or len(body))})
    connection.send(connection.head("POST", "submission", headers, **PS1), body[:10])
    wait_until(lambda: bytes_received(service) >= before + 10)
    return connection


def bytes_received(service: Service) -> float:
    return Numbers(service).get("nbexchange_upload_bytes_total")


def drip(connection: RawConnection, what: bytes, every: float) -> float:
    """Send byte by byte until the other side closes; when that was."""
    for byte in what:
        if connection.hears_within(every):
            assert _is_closed(connection)
            return time.monotonic()
        with contextlib.suppress(OSError):
            connection.send(bytes([byte]))
    raise AssertionError("it was never closed")


def _is_closed(connection: RawConnection) -> bool:
    try:
        return connection.socket.recv(1) == b""
    except ConnectionError:
        return True


def assert_nothing_is_left(service: Service) -> None:
    assert rows(service, "submission") == []
    wait_until(lambda: len(service.files()) == 1)
    wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 0)


# -- headers


def test_a_header_that_drips_is_cut_at_its_deadline(data: Path) -> None:
    with configured(data, **QUICK) as service:
        begun = time.monotonic()
        with bob_at(service) as connection:
            head = connection.head("GET", "assignments", {"X": "x" * 500})
            cut = drip(connection, head, every=0.02)

    assert cut - begun >= QUICK["header_timeout"]


def test_a_connection_that_asks_nothing_is_cut(data: Path) -> None:
    with configured(data, **QUICK) as service:
        with bob_at(service) as connection:
            assert connection.is_closed()

        assert Numbers(service).all("nbexchange_connections_closed_total") == {
            ("slow",): 1,
            ("idle",): 0,
            ("full",): 0,
        }


def test_a_kept_connection_may_be_silent_for_longer_but_its_next_header_may_not(
    data: Path,
) -> None:
    with configured(data, **QUICK) as service, bob_at(service) as kept:
        kept.send(kept.head("GET", "healthz"))
        first = kept.answer()
        with bob_at(service) as silent:
            assert silent.is_closed()
        kept.send(kept.head("GET", "healthz"))
        second = kept.answer()
        begun = time.monotonic()
        cut = drip(kept, kept.head("GET", "healthz", {"X": "x" * 500}), every=0.02)

    assert (first.status, second.status) == (200, 200)
    assert cut - begun >= QUICK["header_timeout"]


# -- bodies


def test_a_body_that_stops_is_cut_and_leaves_nothing(data: Path) -> None:
    with configured(data, **QUICK) as service:
        receipt(release(service.instructor()))
        with half_an_upload(service) as connection:
            assert connection.is_closed()
        assert_nothing_is_left(service)


def test_a_body_that_drips_is_cut_and_leaves_nothing(data: Path) -> None:
    """Never silent for long, but so slow that it would hold its connection for hours."""
    with configured(data, **QUICK) as service:
        receipt(release(service.instructor()))
        begun = time.monotonic()
        with half_an_upload(service, length=10**6) as connection:
            cut = drip(connection, bytes(500), every=0.02)
        assert_nothing_is_left(service)

    assert cut - begun > QUICK["silence_timeout"]


REFUSED = {
    "of nobody": (401, False, "submission", {}),
    "with a bad digest": (400, True, "submission", {"Content-Digest": "nonsense"}),
    "without a release": (404, True, "submission", {}),
    "to an address without one": (404, True, "nowhere", {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_body_has_a_deadline_and_then_its_answer(data: Path, name: str) -> None:
    """However fast it comes."""
    status, is_known, path, headers = REFUSED[name]
    with configured(data, silence_timeout=1) as service:
        token = service.enrol("bob", {"physics": "Student"}) if is_known else None
        with RawConnection(service.url, token) as connection:
            headers = {"Content-Length": "60000000", **headers}
            begun = time.monotonic()
            connection.send(connection.head("POST", path, headers, **PS1))
            while not connection.hears_within(0.05):
                connection.send(bytes(1000))
            took = time.monotonic() - begun
            connection.send(bytes(1000))
            answer = connection.answer()

    assert took >= 1
    assert answer.status == status
    assert answer.headers["Connection"] == "close"
    assert answer.json()["note"]


def test_a_refused_body_that_ends_in_time_keeps_its_connection(data: Path) -> None:
    with configured(data) as service, bob_at(service) as connection:
        headers = upload_headers(WORK, **{"Content-Length": str(len(WORK))})
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK)
        first = connection.answer().status
        connection.send(connection.head("GET", "healthz"))
        second = connection.answer().status

    assert (first, second) == (404, 200)


@pytest.mark.parametrize("path", ["healthz", "openapi.yaml"])
def test_a_request_of_nobody_with_a_slow_body_is_cut(data: Path, path: str) -> None:
    with configured(data, **QUICK) as service, RawConnection(service.url) as connection:
        connection.send(connection.head("GET", path, {"Content-Length": "60000"}))

        assert drip(connection, bytes(60_000), every=0.01)


def test_a_student_on_a_telephone_line_gets_through(data: Path) -> None:
    """5 kB a second, as 56 kbit/s are in practice, for longer than any deadline."""
    body = tar_gz_of({"p1.ipynb": WORK, "data": os.urandom(35_000)})
    silence = 1.5
    with configured(data, silence_timeout=silence) as service:
        receipt(release(service.instructor()))
        with half_an_upload(service, body) as connection:
            begun = time.monotonic()
            for start in range(10, len(body), 500):
                connection.send(body[start : start + 500])
                assert not connection.hears_within(0.1) or start + 500 >= len(body)
            took = time.monotonic() - begun
            answer = connection.answer()

    assert took > 2 * 2 * silence
    assert answer.status == 201
    assert answer.json()["sha256"] == sha256(body)


def test_an_upload_on_a_connection_that_was_slow_before_begins_anew(data: Path) -> None:
    """What one request lost is not counted against the next."""
    with configured(data, silence_timeout=3) as service:
        receipt(release(service.instructor()))
        with half_an_upload(service) as connection:
            connection.hears_within(1)
            connection.send(WORK[10:])
            first = connection.answer().status
            for _ in range(10):
                connection.send(connection.head("GET", "healthz"))
                assert connection.answer().status == 200

    assert first == 201


@pytest.mark.sqlite
def test_a_service_that_is_slow_itself_blames_nobody(data: Path) -> None:
    with configured(data, **QUICK) as service:
        receipt(release(service.instructor()))
        with bob_at(service) as connection:
            other = sqlite3.connect(data / "nbexchange.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            headers = {**upload_headers(WORK), "Content-Length": str(len(WORK))}
            connection.send(connection.head("POST", "submission", headers, **PS1), WORK)
            wait_until(lambda: len(service.files()) == 2)
            for _ in range(2):
                with bob_at(service) as silent:
                    assert silent.is_closed()
            other.execute("ROLLBACK")
            other.close()
            answer = connection.answer()

    assert answer.status == 201


# -- bodies in small pieces

TINY = 1000 * chunk(b"x")


def chunked_upload(service: Service, token: str | None) -> RawConnection:
    connection = RawConnection(service.url, token)
    headers = {"Transfer-Encoding": "chunked"}
    connection.send(connection.head("POST", "submission", headers, **PS1))
    return connection


@pytest.mark.parametrize("is_known", [True, False], ids=["of somebody", "of nobody"])
def test_a_body_in_tiny_chunks_is_refused_in_words_and_leaves_nothing(
    data: Path, is_known: bool
) -> None:
    """Also while it is refused for another reason."""
    with configured(data) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"}) if is_known else None
        with chunked_upload(service, token) as connection:
            connection.send(TINY)
            answer = connection.answer()
        with chunked_upload(service, token) as connection:
            with contextlib.suppress(OSError):
                while True:
                    connection.send(TINY)
            first_line = connection.first_line()
        assert_nothing_is_left(service)
        requests_of = functools.partial(Numbers(service).get, "nbexchange_requests_total")

        assert answer.status == 400
        assert answer.json()["success"] is False
        assert "too many small chunks" in answer.json()["note"]
        assert first_line.split()[1] == b"400"
        assert requests_of(handler="Submission", method="POST", status="400") == 2


@pytest.mark.parametrize(
    ("piece", "number"), [(LEAST_CHUNK, 2 * SMALL_CHUNKS), (100, 3000), (8192, 100)]
)
def test_a_body_in_reasonable_chunks_is_taken(data: Path, piece: int, number: int) -> None:
    body = tar_gz_of({"p1.ipynb": WORK, "data": os.urandom(piece * number)})
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    with configured(data) as service:
        receipt(release(service.instructor()))
        answer = service.student().post("submission", iter(pieces), upload_headers(body), **PS1)

    assert receipt(answer)["sha256"] == sha256(body)


STRANGE = {
    "an extension": b"5;a=b\r\nhello\r\n",
    "a long line": b"0" * 1000 + b"5\r\nhello\r\n",
    "a trailer": b"5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "no number": b"five\r\nhello\r\n",
    "a wrong number": b"4\r\nhello\r\n",
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_chunks_are_refused_in_words(data: Path, name: str) -> None:
    with configured(data) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})
        with chunked_upload(service, token) as connection:
            connection.send(STRANGE[name])
            answer = connection.answer()
        assert_nothing_is_left(service)

    assert answer.status == 400
    assert answer.json()["success"] is False


# -- readers


def test_a_reader_that_stops_is_cut(data: Path) -> None:
    """More than the system takes into its buffers, so that the service notices."""
    body = tar_gz_of({"data": os.urandom(20 * MEGABYTE)})
    options = "".join(f"c.NbExchange.{name} = {value}\n" for name, value in QUICK.items())
    with ServiceProcess(data, options) as service:
        receipt(release(service.instructor(), body))
        process = psutil.Process(service.pid)
        token = service.enrol("bob", {"physics": "Student"})
        with RawConnection(service.url, token) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.send(connection.head("GET", "assignment", **PS1))
            assert connection.socket.recv(1, socket.MSG_PEEK)
            wait_until(lambda: not any("blobs" in file.path for file in process.open_files()))
            ports = {one.raddr.port for one in process.net_connections() if one.raddr}

            assert connection.socket.getsockname()[1] not in ports


@pytest.mark.slow
def test_a_reader_that_is_slow_gets_all_of_it(data: Path) -> None:
    """Never silent, though what the system would gather lasts it for longer than silence may."""
    body = tar_gz_of({"data": os.urandom(8 * MEGABYTE)})
    with configured(data, silence_timeout=2) as service:
        receipt(release(service.instructor(), body))
        with bob_at(service) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.send(connection.head("GET", "assignment", **PS1))
            received = b""
            while not received.endswith(body[-100:]):
                threading.Event().wait(0.01)
                piece = connection.socket.recv(10_000)
                assert piece, "it was cut"
                received += piece

    assert received.partition(b"\r\n\r\n")[2] == body


# -- how many


@contextlib.contextmanager
def silent(service: Service, number: int) -> Iterator[list[RawConnection]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(RawConnection(service.url)) for _ in range(number)]


def is_answered(service: Service) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{service.url}/healthz", timeout=PATIENCE).ok
    return False


def when_there_is_room(ask: Callable[[], Any]) -> Any:
    """The answer to somebody who comes again whenever they are turned away."""

    def once() -> Any:
        with contextlib.suppress(requests.RequestException):
            return ask()
        return None

    return wait_until(once)


def test_who_waits_longest_without_asking_gives_way(data: Path) -> None:
    with configured(data, max_connections=20, header_timeout=60) as service, silent(service, 30):
        wait_until(lambda: requests.get(f"{service.url}/", timeout=PATIENCE).ok)
        numbers = Numbers(service)

    assert 0 < numbers.get("nbexchange_connections") <= 20
    assert numbers.get("nbexchange_connections_closed_total", reason="idle") > 0


def test_where_nobody_gives_way_a_newcomer_is_told_to_come_again(data: Path) -> None:
    with configured(data, max_connections=3) as service:
        receipt(release(service.instructor()))
        for session in service._sessions:
            session.close()
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(wait_until(lambda: _begun(service)))
            (answer,) = wait_until(lambda: _refusals(service))
            assert all(is_answered(service) for _ in range(20))
        numbers = Numbers(service)

    assert numbers.get("nbexchange_connections_closed_total", reason="full") > 0
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["success"] is False
    assert "Try again shortly" in answer.json()["note"]


def _begun(service: Service) -> RawConnection | None:
    """An upload, if it is let in."""
    connection = bob_at(service)
    headers = {"Content-Length": str(len(WORK)), "Expect": "100-continue"}
    with contextlib.suppress(ConnectionError, AssertionError):
        connection.send(connection.head("POST", "submission", headers, **PS1))
        if connection.first_line().split()[1] == b"100":
            return connection
    connection.socket.close()
    return None


def _refusals(service: Service) -> list[requests.Response]:
    with contextlib.suppress(requests.RequestException):
        answer = requests.get(f"{service.url}/assignments", timeout=PATIENCE)
        return [answer] if answer.status_code == 503 else []
    return []


def test_where_nobody_gives_way_probes_and_scrapers_get_a_connection(data: Path) -> None:
    """Also while hundreds of others want one, who say nothing or ask for something else."""
    with configured(data, max_connections=3) as service:
        receipt(release(service.instructor()))
        for session in service._sessions:
            session.close()
        root = service.url.removesuffix("/services/nbexchange")
        probes = (f"{service.url}/healthz", f"{root}/healthz", f"{root}/readyz", f"{root}/metrics")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(wait_until(lambda: _begun(service)))
            stack.enter_context(silent(service, 200))
            for connection in stack.enter_context(silent(service, 200)):
                with contextlib.suppress(OSError):
                    connection.send(connection.head("GET", "assignments"))
            answers = [requests.get(probe, timeout=PATIENCE) for probe in 5 * probes]

    assert {answer.status_code for answer in answers} == {200}


def test_refused_bodies_give_way(data: Path) -> None:
    """As many as there may be, none of which is silent."""
    with configured(data, max_connections=20) as service:
        receipt(release(service.instructor()))
        for session in service._sessions:
            session.close()
        with Attackers(service.url, "refused", 40, (), urlencode(PS1)):
            given = receipt(when_there_is_room(lambda: submit(service.student())))
            gave_way = Numbers(service).get("nbexchange_connections_closed_total", reason="idle")

    assert given["size"] == len(WORK)
    assert gave_way > 0


def test_few_files_are_enough_for_many_who_come(data: Path) -> None:
    wrapper = (needs("prlimit"), "--nofile=240:240")
    with ServiceProcess(data, wrapper=wrapper) as service, silent(service, 400):
        process = psutil.Process(service.pid)
        receipt(when_there_is_room(lambda: release(service.instructor())))
        receipt(when_there_is_room(lambda: submit(service.student())))

        assert process.num_fds() < 240
        assert "Traceback" not in str(service.output)


def test_a_system_without_descriptors_stops_nothing_for_good(data: Path) -> None:
    """The limit is taken away under the running service, as a whole machine may run out of it."""
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        process, refused = psutil.Process(service.pid), "no connection can be accepted for now"
        limits = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (process.num_fds(), limits[1]))
        begun = time.monotonic()
        with silent(service, 20):
            assert service.output.wait_for(refused)
            lines = len(service.output.lines)
            assert service.output.wait_for(refused, lines)
            rested = time.monotonic() - begun
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, limits)
            wait_until(lambda: is_answered(service))

        assert rested > REST_SECONDS / 2
        assert "Traceback" not in str(service.output)


@pytest.mark.parametrize(
    ("files", "option", "words"),
    [
        (120, "", "it needs 200"),
        (1000, "--NbExchange.max_connections=800", "max_connections is 800"),
    ],
)
def test_too_few_files_are_refused_at_the_start(
    tmp_path: Path, files: int, option: str, words: str
) -> None:
    done = subprocess.run(
        [needs("prlimit"), f"--nofile={files}:{files}", *PROGRAM, *filter(None, [option])],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "NBEXCHANGE_DATA": str(tmp_path / "data")},
        check=False,
    )

    assert done.returncode != 0
    assert words in done.stderr
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr


# -- R8: what others wait

MOST_MEMORY = 300 * MEGABYTE

LITTLE_AT_A_TIME = {
    "chunks": ("chunks", True, 16),
    "chunks of nobody": ("chunks", False, 16),
    "crumbs": ("crumbs", False, 16),
    "pipelined": ("pipelined", False, 50),
    "chunks of many": ("chunks", True, 200),
    "chunks of many nobodies": ("chunks", False, 200),
    "crumbs of many": ("crumbs", False, 200),
}

SHOWN = ("chunks", "crumbs")


@pytest.mark.parametrize("name", SHOWN)
def test_clients_that_send_a_little_at_a_time_keep_nobody_waiting(data: Path, name: str) -> None:
    _little_at_a_time(data, *LITTLE_AT_A_TIME[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LITTLE_AT_A_TIME if name not in SHOWN])
def test_many_clients_that_send_a_little_at_a_time_keep_nobody_waiting(
    data: Path, name: str
) -> None:
    _little_at_a_time(data, *LITTLE_AT_A_TIME[name])


def _little_at_a_time(data: Path, kind: str, is_known: bool, count: int) -> None:
    waits = Waits()
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(name="other")))
        people = 20 if is_known else 0
        tokens = [service.enrol(f"mallory{one}", {"physics": "Student"}) for one in range(people)]
        process = psutil.Process(service.pid)
        before = len(process.net_connections())

        @contextlib.contextmanager
        def attack() -> Iterator[None]:
            with Attackers(service.url, kind, count, tokens, urlencode(PS1)):
                # That so many come at once is not the attack.
                wait_until(lambda: len(process.net_connections()) >= before + 0.8 * count)
                yield

        waits.watch(service, attack, 2)
        memory = process.memory_info().rss

    print(f"{count} {kind}: {waits}")
    assert memory <= MOST_MEMORY


@pytest.mark.parametrize("kind", ["header", "body"])
def test_a_hundred_slow_clients_keep_nobody_waiting(data: Path, kind: str) -> None:
    _slow(data, kind, count=100, seconds=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["header", "body"])
def test_five_hundred_slow_clients_keep_nobody_waiting(data: Path, kind: str) -> None:
    _slow(data, kind, count=500, seconds=5)


def _slow(data: Path, kind: str, count: int, seconds: float) -> None:
    waits = Waits()
    with ServiceProcess(data, "c.NbExchange.header_timeout = 3\n") as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(name="other")))
        tokens = [service.enrol(f"slow{one}", {"physics": "Student"}) for one in range(50)]
        process = psutil.Process(service.pid)
        before = len(process.net_connections())

        def attack() -> Attackers:
            return Attackers(service.url, kind, count, tokens, urlencode(PS1))

        waits.watch(service, attack, seconds)
        wait_until(lambda: len(process.net_connections()) <= before + 4 * waits.rounds)
        assert_nothing_of_the_slow_is_left(service)

    print(f"{count} slow {kind}: {waits}")


def assert_nothing_of_the_slow_is_left(service: Service) -> None:
    wait_until(lambda: len(service.files()) == 2)
    wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 0)


def test_the_usual_deadlines_are_those_that_are_promised() -> None:
    """R8: ten seconds for a header, thirty without a byte; and 56 kbit/s are enough."""
    usual = ConnectionLimits()

    assert (usual.header, usual.silence) == (10, 30)
    assert usual.rate * 4 <= 56_000 / 10
