"""Several replicas on one database and one store, behind a load balancer."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.plugin.middleman import Answer, Middleman, Seen, running
from tests.support import course
from tests.support.course import PS1, collect, receipt, release, rows, submit
from tests.support.crowd import Crowd, account, whole
from tests.support.faults_report import report
from tests.support.process import FaultyService, Output, wait_until


class Balancer(Middleman):
    """Gives each request to the next replica, whoever sends it."""

    def __init__(self, replicas: list[FaultyService]) -> None:
        super().__init__("")
        self.replicas = replicas
        self._turn = itertools.count()
        self.served: list[int] = []

    def next_url(self) -> str:
        replicas = list(self.replicas)
        replica = replicas[next(self._turn) % len(replicas)]
        self.served.append(replica.pid)
        return replica.url

    def reaction(self, seen: Seen) -> Callable[[Any, Seen], None]:
        return forward_or_502


def forward_or_502(handler: Any, seen: Seen) -> None:
    """As proxies do: what a replica may have done already is not tried at another."""
    try:
        answer = handler.forward(seen)
    except requests.RequestException:
        answer = Answer(502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>")
    handler.send(answer)


CONFIG = "c.NbExchange.stop_delay = 3\n"


@contextlib.contextmanager
def replicas(data: Path, number: int = 2) -> Iterator[list[FaultyService]]:
    started = [FaultyService(data, CONFIG) for _ in range(number)]
    try:
        for replica in started:
            replica.start()
        yield started
    finally:
        for replica in started:
            replica.__exit__()


@pytest.fixture
def pair(data: Path) -> Iterator[list[FaultyService]]:
    with replicas(data) as started:
        yield started


@pytest.fixture
def balancer(pair: list[FaultyService]) -> Iterator[Balancer]:
    balancer = Balancer(list(pair))
    with running(balancer):
        yield balancer


# -- what one knows, all know


def test_what_one_replica_took_the_other_has(pair: list[FaultyService]) -> None:
    one, other = pair
    ada = one.enrol("ada", {"physics": "Instructor"})
    bob = one.enrol("bob", {"physics": "Student"})
    receipt(release(one.wire(ada)))

    fetched = other.wire(bob).get("assignment", **PS1)
    given = receipt(submit(other.wire(bob), key="work"))
    again = submit(one.wire(bob), key="work")

    assert fetched.content == course.WORK
    assert receipt(again)["submission_id"] == given["submission_id"]
    assert collect(one.wire(ada), given["submission_id"]).content == course.WORK
    assert len(rows(one, "submission")) == 1


def test_a_key_that_is_sent_to_both_at_once_is_one_submission(pair: list[FaultyService]) -> None:
    one, other = pair
    bob = one.enrol("bob", {"physics": "Student"})
    receipt(release(one.instructor()))

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda n: submit((one, other)[n % 2].wire(bob), key="work"), range(32))
        )

    assert len({receipt(answer)["submission_id"] for answer in answers}) == 1
    assert len(rows(one, "submission")) == 1
    wait_until(lambda: len(one.files()) == 2)


def test_the_order_of_one_students_submissions_is_one_order_for_both(
    pair: list[FaultyService],
) -> None:
    bob = pair[0].enrol("bob", {"physics": "Student"})
    receipt(release(pair[0].instructor()))

    given = [receipt(submit(pair[n % 2].wire(bob)))["timestamp"] for n in range(12)]

    assert given == sorted(set(given))


def test_a_page_of_a_history_is_one_for_all_replicas_and_after_a_restart(
    pair: list[FaultyService],
) -> None:
    one, other = pair
    ada = one.enrol("ada", {"physics": "Instructor"})
    receipt(release(one.wire(ada)))
    receipt(submit(one.wire(ada)))

    page = one.wire(ada).get("history", limit=1).json()["next"]
    there = other.wire(ada).get("history", limit=1, page=page).json()
    one.kill()
    one.start()
    later = one.wire(ada).get("history", limit=1, page=page).json()

    (course,) = later["value"]
    assert course["assignments"][0]["action_summary"] == {"released": 1}
    assert later["next"] is None
    assert there == later


# -- under load, while replicas come and go


def assert_all_is_kept(crowd: Crowd, service: FaultyService, fault: str, trials: int) -> None:
    """Nothing lost, nothing wrong, nothing twice."""
    stored = rows(service, "submission")
    found = account(service, crowd.receipts, stored)
    report(fault=fault, trials=trials, **found)
    assert found == whole(crowd.receipts)
    assert len(stored) == len(crowd.receipts)
    code, said = service.run_command("check")
    assert code == 0, said


@pytest.mark.slow
def test_a_replica_that_is_killed_and_replaced_under_load_loses_nothing(
    pair: list[FaultyService], balancer: Balancer
) -> None:
    receipt(release(pair[0].instructor()))
    crowd = Crowd(pair[0], lambda: balancer.url)

    with crowd.at_work():
        for replica in (*pair, *pair):
            crowd.wait_for(20, of=crowd.receipts)
            replica.kill()
            crowd.wait_for(10, of=crowd.receipts)
            replica.start()
        crowd.wait_for(20, of=crowd.receipts)

    assert crowd.refusals, "nobody noticed"
    assert_all_is_kept(crowd, pair[0], "one of two replicas killed under load", 4)


@pytest.mark.slow
def test_replicas_are_replaced_one_after_the_other_and_nobody_notices(
    pair: list[FaultyService], balancer: Balancer
) -> None:
    receipt(release(pair[0].instructor()))
    crowd = Crowd(pair[0], lambda: balancer.url)

    with crowd.at_work():
        for replica in pair:
            crowd.wait_for(20, of=crowd.receipts)
            replica.terminate()
            wait_until(lambda replica=replica: not is_ready(replica))
            balancer.replicas.remove(replica)
            assert replica.wait() == 0
            replica.start()
            balancer.replicas.append(replica)
        crowd.wait_for(20, of=crowd.receipts)

    assert crowd.refusals == []
    assert_all_is_kept(crowd, pair[0], "replicas replaced one after the other under load", 2)


def is_ready(service: FaultyService) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{service.url}/readyz", timeout=10).ok
    return False


# -- a whole course, with nbgrader's own commands


@pytest.mark.slow
def test_a_whole_course_goes_through_two_replicas_one_of_which_is_killed_and_replaced(
    pair: list[FaultyService], balancer: Balancer, tmp_path: Path
) -> None:
    one, other = pair
    one.enrol("ada", {"art": "Instructor"})
    for student in ("ben", "chloe", "dmitri"):
        one.enrol(student, {"art": "Student"})
    command = [sys.executable, "-m", "nbexchange", "demo", f"--directory={tmp_path / 'demo'}"]
    options = [f"--url={balancer.url}", f"--people={one.people}", "--course=art"]
    first = other.pid

    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as demo:
        assert demo.stdout
        said = Output(os.dup(demo.stdout.fileno()), patience=240)
        assert said.wait_for("chloe, a student"), str(said)
        other.kill()
        assert said.wait_for("dmitri, a student"), str(said)
        other.start()
        assert said.wait_for("Every byte and all feedback arrived"), str(said)
        assert demo.wait() == 0, str(said)

    served = {pid: balancer.served.count(pid) for pid in balancer.served}
    assert min(served[one.pid], served[other.pid]) > 5, served
    assert first in served
    assert one.run_command("check")[0] == 0
