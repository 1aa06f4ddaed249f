"""An assignment is purged again and again while a class and its instructors work on it."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.archives import tar_gz
from tests.support.course import PS1, collect, give_feedback, receipt, release, submit
from tests.support.process import FaultyService
from tests.support.servers import KINDS, DatabaseServer, make_server
from tests.support.service import PATIENCE, Wire

# They bring their own servers and look at the disk, so one run asks them all.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk, pytest.mark.slow]

REPLICAS = 2
STUDENTS = 3
PURGES = 8
BETWEEN = 8
"""Submissions that are stored from one purge to the next."""

Act = Callable[[], requests.Response]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with make_server(request.param) as running:
        yield running


@pytest.fixture
def services(server: DatabaseServer, data: Path) -> Iterator[list[FaultyService]]:
    config = f"c.NbExchange.db_url = {server.url()!r}\n"
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FaultyService(data, config)) for _ in range(REPLICAS)]


class Storm:
    """What everybody does until there were enough purges, and the statuses of the answers."""

    def __init__(self, services: list[FaultyService]) -> None:
        self.answers: dict[str, Counter[int]] = {}
        self.failures: list[str] = []
        self._submitted: list[str] = []
        self._news = threading.Condition()
        self._over = threading.Event()
        self._turns = itertools.cycle(services)
        self._enrolled = services[0]
        self._threads: list[threading.Thread] = []

    def wire(self, name: str, role: str = "Instructor") -> Wire:
        """Of one person, at the next replica."""
        token = self._enrolled.enrol(name, {"physics": role})
        return next(self._turns).wire(token)

    def add(self, verb: str, act: Act) -> None:
        """Also once now: the first request of each kind is slow, and people are new."""
        assert act().ok
        seen = self.answers.setdefault(verb, Counter())

        def work() -> None:
            while not self._over.is_set():
                answer = act()
                seen[answer.status_code] += 1
                if answer.status_code >= 500:
                    self.failures.append(f"{verb}: {answer.status_code} {answer.text}")

        self._threads.append(threading.Thread(target=work, name=verb))

    def submit(self, wire: Wire) -> requests.Response:
        answer = submit(wire, tar_gz(p1=os.urandom(200)), os.urandom(8).hex())
        if answer.status_code == 201:
            with self._news:
                self._submitted.append(answer.json()["submission_id"])
                self._news.notify_all()
        return answer

    def newest(self) -> str:
        """One of the last submissions, which may be erased by now."""
        with self._news:
            assert self._news.wait_for(lambda: self._submitted, PATIENCE)
            return random.choice(self._submitted[-2 * STUDENTS :])

    def purge(self, wire: Wire) -> None:
        """Again and again, each time after some more submissions."""
        seen = self.answers.setdefault("purge", Counter())
        while seen[200] < PURGES and not self.failures:
            with self._news:
                wanted = len(self._submitted) + BETWEEN
                self._news.wait_for(lambda wanted=wanted: len(self._submitted) >= wanted, PATIENCE)
            answer = wire.delete("assignment", **PS1, purge="true")
            seen[answer.status_code] += 1
            if answer.status_code >= 500:
                self.failures.append(f"purge: {answer.status_code} {answer.text}")

    @contextlib.contextmanager
    def blowing(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()


def test_a_purge_meets_everybody_without_an_error_and_leaves_no_file(
    server: DatabaseServer, services: list[FaultyService]
) -> None:
    storm = Storm(services)
    receipt(release(storm.wire("ada")))
    for number in range(STUDENTS):
        student = storm.wire(f"student{number}", "Student")
        storm.add("submit", lambda wire=student: storm.submit(wire))
    emmy, grace = storm.wire("emmy"), storm.wire("grace")
    storm.add("feedback", lambda: give_feedback(emmy, storm.newest(), os.urandom(99)))
    storm.add("release", lambda: release(grace, tar_gz(p1=os.urandom(50))))
    storm.add("collect", lambda: collect(grace, storm.newest()))
    with storm.blowing():
        storm.purge(storm.wire("ada"))

    assert storm.failures == [], [
        line
        for service in services
        for line in str(service.output).splitlines()
        if "database" in line
    ]
    assert set(storm.answers["submit"]) == {201, 404}
    assert set(storm.answers["release"]) == {201}
    assert set(storm.answers["feedback"]) <= {201, 404}
    owned = {
        row["key"] for table in ("release", "submission", "feedback") for row in server.rows(table)
    }
    assert {path.name for path in services[0].files()} == owned
