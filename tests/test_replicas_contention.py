"""Several services on one database and one store, and everybody meets at once.

`NBEXCHANGE_FAULT_TRIALS` is how many rounds they go (once).
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.archives import tar_gz, upload_headers
from tests.support.databases import rows as rows_of
from tests.support.faults_report import TRIALS, report
from tests.support.process import FaultyService
from tests.support.servers import KINDS, make_server
from tests.support.service import PATIENCE, Wire

# They bring their own servers and look at the disk, so one run asks them all.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

REPLICAS = 4
CLIENTS = 64
KEYS = 4
"""Different uploads among those of all clients; the others are retries."""

Rows = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(params=["sqlite", *KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def replicas(kind: str, data: Path) -> Iterator[tuple[list[FaultyService], Rows]]:
    """The services, and how to look at a table behind their backs."""
    with contextlib.ExitStack() as stack:
        config, rows = "", lambda table: rows_of(data, table)
        if kind != "sqlite":
            server = stack.enter_context(make_server(kind))
            config, rows = f"c.NbExchange.db_url = {server.url()!r}\n", server.rows
        services = [stack.enter_context(FaultyService(data, config)) for _ in range(REPLICAS)]
        yield services, rows


@pytest.mark.slow
def test_what_everybody_meets_first_at_once_is_there_once(
    kind: str, replicas: tuple[list[FaultyService], Rows]
) -> None:
    services, rows = replicas
    given = 0

    for number in range(TRIALS):
        course = {"course_id": f"course-{number}", "assignment_id": "new"}
        released = all_at_once(services, f"ada-{number}", "Instructor", "assignment", course)
        submitted = all_at_once(services, f"bob-{number}", "Student", "submission", course)
        for answers in (released, submitted):
            assert Counter(answer.status_code for answer in answers) == {201: CLIENTS}
        assert len({answer.json()["submission_id"] for answer in submitted}) == KEYS
        given += 2 * CLIENTS

    found = {table: rows(table) for table in ("course", "user", "subscription", "assignment")}
    assert {table: len(there) for table, there in found.items()} == {
        "course": TRIALS,
        "user": 2 * TRIALS,
        "subscription": 2 * TRIALS,
        "assignment": TRIALS,
    }
    for table in ("release", "submission"):
        assert len(rows(table)) == KEYS * TRIALS
    versions = Counter(row["version"] for row in rows("release"))
    assert versions == dict.fromkeys(range(1, KEYS + 1), TRIALS)
    assert {path.name for path in services[0].files()} == {
        row["key"] for table in ("release", "submission") for row in rows(table)
    }
    report(fault="first contact at once", database=kind, trials=TRIALS, acknowledged=given)


def all_at_once(
    services: list[FaultyService], name: str, role: str, verb: str, course: dict[str, str]
) -> list[requests.Response]:
    """What each client is answered. They ask different services, with one of a few keys."""
    token = services[0].enrol(name, {course["course_id"]: role})
    wires = [services[number % REPLICAS].wire(token) for number in range(CLIENTS)]
    start, answers = threading.Barrier(CLIENTS), []

    def go(number: int, wire: Wire) -> None:
        # Neighbours go to different services with the same key.
        key = f"key-{number // REPLICAS % KEYS}"
        body = tar_gz(p1=key.encode())
        start.wait(PATIENCE)
        while True:
            answer = wire.post(verb, body, upload_headers(body, key), **course)
            if answer.status_code != 503:  # it could not be done in time
                return answers.append(answer)

    threads = [
        threading.Thread(target=go, args=(number, wire)) for number, wire in enumerate(wires)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
