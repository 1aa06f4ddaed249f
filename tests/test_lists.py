"""Lists and histories: however long they are, they delay nobody else and stay small in memory."""

from __future__ import annotations

import datetime
import http.client
import itertools
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import text
from sqlalchemy.orm import Session

from nbexchange.exchange import walks
from nbexchange.models import Base
from tests.support import databases
from tests.support.archives import sha256, tar_gz_of, upload_headers
from tests.support.course import PS1, WORK, give_feedback, receipt, release, rows, submit
from tests.support.databases import engine_of
from tests.support.process import FaultyService, ServiceProcess, highest_memory, wait_until
from tests.support.raw import RawConnection
from tests.support.servers import KINDS, DatabaseServer, make_server
from tests.support.service import Service, Wire

NOISE = 0.05
"""Seconds of a wait that tell nothing: a shared machine is as late by itself."""


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with make_server(request.param) as running:
        yield running


SLOW = "SELECT * FROM feedback_itself WHERE {} <> 1"
SLEEPS = {"mariadb": "SLEEP(600)", "postgresql": "LENGTH(CAST(PG_SLEEP(600) AS TEXT))"}
COUNTS = (
    "(WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 1000000000)"
    " SELECT COUNT(*) FROM number)"
)


def slow_feedback(condition: str) -> tuple[str, str]:
    """Makes every look at feedback take minutes. Lists look at it, and submissions do not."""
    return (
        "ALTER TABLE feedback RENAME TO feedback_itself",
        f"CREATE VIEW feedback AS {SLOW.format(condition)}",
    )


def on(server: DatabaseServer, **options: object) -> str:
    options = {"db_url": server.url(), **options}
    return "".join(f"c.NbExchange.{name} = {value!r}\n" for name, value in options.items())


def with_feedback(service: Service) -> Wire:
    """A course of which every list looks at feedback; returns its instructor."""
    ada = service.instructor()
    receipt(release(ada))
    given = receipt(submit(service.student(name="zoe")))
    receipt(give_feedback(ada, given["submission_id"], b"<p>good</p>"))
    return ada


def seconds(act: Callable[[], requests.Response], status: int) -> float:
    begun = time.monotonic()
    answer = act()
    assert answer.status_code == status, answer.text
    return time.monotonic() - begun


def assert_stopped(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert "took too long" in answer.json()["note"]
    assert "`limit`" in answer.json()["note"]


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.disk
def test_a_list_that_takes_too_long_delays_no_submission_and_its_statement_ends(
    data: Path, server: DatabaseServer
) -> None:
    with ServiceProcess(data, on(server)) as service:
        with_feedback(service)
        tokens = [
            service.enrol(name, {"physics": "Instructor"}) for name in 2 * ("ada", "ida", "eva")
        ]
        bob = service.student()
        idle = [seconds(lambda: submit(bob), 201) for _ in range(20)]
        server.say(*slow_feedback(SLEEPS[server.kind]))
        busy, stop = [], threading.Event()

        def list_until_told(token: str) -> list[requests.Response]:
            answers = [service.wire(token).get("collections", **PS1)]
            while not stop.is_set():
                answers.append(service.wire(token).get("collections", **PS1))
            return answers

        with ThreadPoolExecutor(len(tokens)) as threads:
            lists = [threads.submit(list_until_told, token) for token in tokens]
            try:
                wait_until(lambda: running(server))
                for _ in range(20):
                    busy.append(seconds(lambda: submit(bob), 201))
                    assert bob.get("readyz").ok
            finally:
                stop.set()
        answers = [answer for each in lists for answer in each.result()]
        wait_until(lambda: not running(server), "the end of the lists' statements")

    # Those that did not even begin are told to come again.
    assert {answer.status_code for answer in answers} <= {429, 503}
    assert_stopped(next(answer for answer in answers if "too long" in answer.text))
    print(f"{statistics.median(idle):.4f} s alone, {statistics.median(busy):.4f} s beside")
    assert statistics.median(busy) <= 2 * max(statistics.median(idle), NOISE)
    assert sorted(busy)[-2] <= 2 * max(*idle, 5 * NOISE)


def running(server: DatabaseServer) -> list[str]:
    """Statements of the service that work at this moment."""
    found = {
        "mariadb": "SELECT info FROM information_schema.processlist"
        " WHERE command = 'Query' AND id <> CONNECTION_ID()",
        "postgresql": "SELECT query FROM pg_stat_activity WHERE state = 'active'"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
    }
    with server.engine().connect() as connection:
        return list(connection.execute(text(found[server.kind])).scalars())


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.disk
@pytest.mark.parametrize(("name", "path"), [("ada", "collections"), ("zoe", "feedback")])
def test_a_list_that_takes_too_long_is_ended_on_sqlite_too(
    data: Path, name: str, path: str
) -> None:
    with ServiceProcess(data) as service:
        people = {"ada": with_feedback(service), "zoe": service.student(name="zoe")}
        engine = engine_of(f"sqlite:///{data}/nbexchange.sqlite")
        with engine.begin() as connection:
            for statement in slow_feedback(COUNTS):
                connection.execute(text(statement))
        answer = people[name].get(path, **PS1)
        after = receipt(submit(service.student()))

    assert_stopped(answer)
    assert after["sha256"] == sha256(WORK)


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.disk
def test_a_list_keeps_its_place_until_its_thread_has_ended(
    data: Path, server: DatabaseServer
) -> None:
    """Nor is a place free because its request was refused: the server may still work for it."""
    with FaultyService(data, on(server, turn_timeout=0.2)) as service:
        receipt(release(service.instructor()))
        token = service.enrol("bob", {"physics": "Student"})

        def lists(_: int) -> requests.Response:
            return service.wire(token).get("assignments", **PS1)

        with ThreadPoolExecutor(2) as threads:
            # A new connection would give up sooner, so there are two before the server freezes.
            assert {answer.status_code for answer in threads.map(lists, range(20))} == {200}
            server.freeze()
            first = list(threads.map(lists, range(2)))
        third = service.wire(token).get("assignments", **PS1)
        others = service.student(name="eve").get("assignments", **PS1)
        server.thaw()
        wait_until(lambda: service.wire(token).get("assignments", **PS1).ok)

    assert [answer.status_code for answer in first] == [503, 503]
    assert third.status_code == 429
    assert "as many lists as one person may" in third.json()["note"]
    assert others.status_code == 503


# -- long ones

MOST_MEMORY = 300 * 2**20
"""Of the whole process, in bytes."""

NOTEBOOKS = [f"notebook-{number:03}.ipynb" for number in range(250)]


def insert(service: Service, table: str, values: Iterable[dict[str, Any]]) -> None:
    """Rows behind the service's back: a term takes too long to submit."""
    with databases.engine_of(databases.database_of(service.data)).begin() as connection:
        left = iter(values)
        while batch := list(itertools.islice(left, 1000)):
            connection.execute(Base.metadata.tables[table].insert(), batch)


def many_submissions(service: Service, number: int, notebooks: list[str]) -> None:
    """Of one student, like the first one that there is, which counts."""
    first = rows(service, "submission")[0]
    insert(
        service,
        "submission",
        (
            first
            | {
                "id": first["id"] + 10_000 + n,
                "key": f"key-{n}",
                "token": f"token-{n:05}",
                "timestamp": first["timestamp"] + n * datetime.timedelta(seconds=1),
                "idempotency_key": None,
                "notebooks": notebooks,
            }
            for n in range(1, number)
        ),
    )


def much_feedback(service: Service, number: int, **values: Callable[[int], Any]) -> None:
    """Rows like the first one that there is, which counts; `values` of their columns by number."""
    first = rows(service, "feedback")[0]
    one = {name: first[name] for name in first if name not in ("id", "idempotency_key")}
    insert(
        service,
        "feedback",
        (one | {name: value(n) for name, value in values.items()} for n in range(1, number)),
    )


def many_events(service: Service, number: int, action: str, **values: Any) -> None:
    one = rows(service, "event")[0] | {"action": action} | values
    del one["id"]  # a sequence of PostgreSQL's would not know of it
    insert(service, "event", itertools.repeat(one, number))


def token_of(service: Service, name: str, role: str = "Student") -> str:
    return service.enrol(name, {"physics": role})


@pytest.fixture
def course(service: Service) -> Service:
    receipt(release(service.instructor()))
    receipt(submit(service.student()))
    return service


def test_a_long_list_is_whole_and_in_its_order(course: Service) -> None:
    many_submissions(course, 1200, ["p1.ipynb"])
    ada, bob = course.instructor(), course.student()

    whole = ada.get("collections", **PS1).json()
    pages = list(paged(ada, "collections", limit=500, **PS1))
    own = bob.get("assignments", **PS1).json()["value"]

    assert whole["next"] is None
    assert len(whole["value"]) == 1200
    times = [record["timestamp"] for record in whole["value"]]
    assert times == sorted(times, reverse=True)
    assert [record for page in pages for record in page] == whole["value"]
    assert [len(page) for page in pages] == [500, 500, 200]
    assert [record["status"] for record in own] == ["released"] + 1200 * ["submitted"]
    assert [record["timestamp"] for record in own[1:]] == times[::-1]


def paged(wire: Wire, path: str, **params: Any) -> Iterator[Any]:
    answer = wire.get(path, **params).json()
    yield answer["value"]
    while answer["next"] is not None:
        answer = wire.get(path, page=answer["next"], **params).json()
        yield answer["value"]


@pytest.mark.parametrize("left", [0, 1], ids=["as many as may be", "one less"])
def test_feedback_on_one_submission_has_250_notebooks_at_most(course: Service, left: int) -> None:
    ada = course.instructor()
    submission_id = submission_of_bob(course)
    receipt(give_feedback(ada, submission_id, b"<html>", key="first"))
    much_feedback(course, 250 - left, notebook_id=lambda n: f"n{n:03}")

    another = feedback_on("p2", ada, submission_id)
    again = give_feedback(ada, submission_id, b"<html>new")
    retried = give_feedback(ada, submission_id, b"<html>", key="first")

    assert another.status_code == (201 if left else 413), another.text
    assert left or "250 notebooks" in another.json()["note"]
    assert (again.status_code, retried.status_code) == (201, 201)


def test_feedback_on_one_submission_is_released_10000_times_at_most(course: Service) -> None:
    ada = course.instructor()
    submission_id = submission_of_bob(course)
    receipt(give_feedback(ada, submission_id, b"<html>", key="first"))
    much_feedback(course, 10_000, version=lambda n: n + 1)

    refused = give_feedback(ada, submission_id, b"<html>new")
    retried = give_feedback(ada, submission_id, b"<html>", key="first")
    other = give_feedback(ada, receipt(submit(course.student()))["submission_id"], b"<html>")

    assert (refused.status_code, retried.status_code, other.status_code) == (413, 201, 201)
    assert "10,000 times" in refused.json()["note"]


def submission_of_bob(service: Service) -> str:
    (submission,) = rows(service, "submission")
    return str(submission["token"])


def feedback_on(notebook: str, wire: Wire, submission_id: str) -> requests.Response:
    headers = upload_headers(b"<html>") | {"Content-Type": "text/html"}
    where = {**PS1, "notebook": notebook, "submission_id": submission_id}
    return wire.post("feedback", b"<html>", headers, **where)


def test_a_long_history_is_whole_and_in_its_order(course: Service) -> None:
    ada, bob = course.instructor(), course.student()
    receipt(ada.post("assignment", WORK, upload_headers(WORK), **(PS1 | {"assignment_id": "ps2"})))
    bob_pk = next(row["id"] for row in rows(course, "user") if row["name"] == "bob")
    many_events(course, 700, "fetched", user_pk=bob_pk)
    many_events(course, 700, "collected")

    (everything,) = ada.get("history").json()["value"]
    (own,) = bob.get("history").json()["value"]
    pages = list(paged(ada, "history", limit=600))

    first, second = everything["assignments"]
    assert [first["assignment_code"], second["assignment_code"]] == ["ps1", "ps2"]
    assert first["action_summary"] == {
        "collected": 700,
        "fetched": 700,
        "submitted": 1,
        "released": 1,
    }
    kinds = [action["action"].partition(".")[2] for action in first["actions"]]
    assert kinds == [*700 * ["collected"], *700 * ["fetched"], "submitted", "released"]
    assert own["assignments"][0]["action_summary"] == {
        "fetched": 700,
        "submitted": 1,
        "released": 1,
    }
    assert len(everything["user_id"]) == len(own["user_id"]) == 1
    shown = [
        action
        for (tree,) in pages
        for assignment in tree["assignments"]
        for action in assignment["actions"]
    ]
    assert len(shown) == 1403


def test_a_long_history_leaves_out_nothing_of_the_next_assignment(course: Service) -> None:
    """Also what is newer than where the last batch of the one before ended."""
    ada, ps2 = course.instructor(), PS1 | {"assignment_id": "ps2"}
    many_events(course, 700, "collected")
    for _ in range(2):
        receipt(ada.post("assignment", WORK, upload_headers(WORK), **ps2))
    receipt(submit(course.student()))

    (everything,) = ada.get("history").json()["value"]

    first, second = everything["assignments"]
    assert [first["assignment_code"], second["assignment_code"]] == ["ps1", "ps2"]
    assert second["action_summary"] == {"released": 2}


def test_numbers_in_answers_do_not_tell_how_many_rows_other_organisations_have(
    service: Service,
) -> None:
    found = []
    for org_id in (1, 2):
        ada = service.instructor(org_id=org_id)
        receipt(release(ada))
        receipt(submit(ada))
        records = ada.get("assignments", **PS1).json()["value"]
        (tree,) = ada.get("history").json()["value"]
        (assignment,) = tree["assignments"]
        students = {record["student_id"] for record in records}
        found.append((students, tree["user_id"], tree["course_id"], assignment["assignment_id"]))

    assert found[0] == found[1]
    assert len(found[0][0]) == 1


def acts(wire: Wire, **params: str) -> list[tuple[str, str, str]]:
    """What a list tells of the caller's own acts, besides releases and submissions."""
    return [
        (record["course_id"], record["status"], record["path"])
        for record in wire.get("assignments", **params).json()["value"]
        if record["status"] not in ("released", "submitted")
    ]


def test_a_list_shows_the_callers_newest_act_of_each_kind_and_of_no_namesake(
    service: Service,
) -> None:
    for org_id in (1, 2):
        ada = service.instructor(org_id=org_id)
        bob, carl = (service.student(name=name, org_id=org_id) for name in ("bob", "carl"))
        receipt(release(ada))
        assert bob.get("assignment", **PS1).ok
        submissions = [receipt(submit(bob))["submission_id"] for _ in range(2)]
        for submission_id in submissions:
            assert ada.get("collection", **PS1, path=submission_id).ok
        receipt(give_feedback(ada, submissions[0], b"<p>good</p>"))
        newest = receipt(release(ada))["release_id"]
        assert bob.get("assignment", **PS1).ok
        assert bob.get("feedback", **PS1, submission_id=submissions[0]).ok

        assert acts(ada) == [
            ("physics", "collected", submissions[1]),
            ("physics", "feedback_released", submissions[0]),
        ]
        assert acts(bob) == [
            ("physics", "fetched", newest),
            ("physics", "feedback_fetched", submissions[0]),
        ]
        assert acts(carl) == []


def test_a_list_of_one_course_shows_no_act_in_another(service: Service) -> None:
    for course_id in ("physics", "art"):
        ada = service.instructor(course_id)
        where = {"course_id": course_id, "assignment_id": "ps1"}
        receipt(ada.post("assignment", WORK, upload_headers(WORK), **where))
    both = service.wire(service.enrol("bob", {"physics": "Student", "art": "Student"}))
    for course_id in ("physics", "art"):
        assert both.get("assignment", course_id=course_id, assignment_id="ps1").ok

    shown = {
        asked: [(course, status) for course, status, _ in acts(both, **params)]
        for asked, params in (
            ("art", {"course_id": "art"}),
            ("physics", {"course_id": "physics"}),
            ("all", {}),
        )
    }

    assert shown == {
        "art": [("art", "fetched")],
        "physics": [("physics", "fetched")],
        "all": [("physics", "fetched"), ("art", "fetched")],
    }


@pytest.mark.parametrize("path", ["assignments", "collections", "history"])
def test_an_empty_list_is_a_list(service: Service, path: str) -> None:
    answer = service.student().get(path, course_id="physics")

    assert answer.json()["value"] == []
    assert "Content-Length" in answer.headers


@pytest.mark.parametrize("keep", ["close", "keep-alive"])
def test_a_client_of_http_1_0_gets_a_long_list_whole(course: Service, keep: str) -> None:
    many_submissions(course, 200, NOTEBOOKS)
    token = token_of(course, "bob")

    with RawConnection(course.url, token) as connection:
        head = connection.head("GET", "assignments", {"Connection": keep}, **PS1)
        connection.send(head.replace(b"HTTP/1.1", b"HTTP/1.0"))
        response = http.client.HTTPResponse(connection.socket)
        response.begin()
        text = b"".join(iter(lambda: connection_read(response), b""))

    assert response.getheader("Transfer-Encoding") is None
    assert len(json.loads(text)["value"]) == 201


def connection_read(response: http.client.HTTPResponse) -> bytes:
    return response.fp.read(65536)


@pytest.mark.sqlite
def test_a_list_that_fails_under_way_never_arrives_complete(course: Service) -> None:
    many_submissions(course, 1000, NOTEBOOKS)
    token = token_of(course, "bob")

    with RawConnection(course.url, token) as reader:
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.send(reader.head("GET", "assignments", **PS1))
        wait_until(lambda: reader.socket.recv(1, socket.MSG_PEEK))
        with engine_of(f"sqlite:///{course.data}/nbexchange.sqlite").begin() as connection:
            connection.execute(text("ALTER TABLE feedback RENAME TO feedback_itself"))
        with pytest.raises(http.client.IncompleteRead):
            reader.answer()


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("name", "path"),
    [("bob", "assignments"), ("ada", "collections"), ("ada", "history"), ("bob", "history")],
)
def test_a_list_shows_no_row_that_another_organisation_has_by_now(
    course: Service, name: str, path: str
) -> None:
    """SQLite gives the keys of erased rows to new rows, and a reader may take hours."""
    secret = {"course_id": "secret", "assignment_id": "ps2"}
    teacher = course.instructor("secret", org_id=2)
    receipt(teacher.post("assignment", WORK, upload_headers(WORK), **secret))
    bob_pk = rows(course, "submission")[0]["user_pk"]
    many_submissions(course, 400, NOTEBOOKS)
    many_events(course, 20_000, "fetched", user_pk=bob_pk, token="f" * 32)
    ours, theirs = rows(course, "course")
    token = token_of(course, name, "Instructor" if name == "ada" else "Student")

    with RawConnection(course.url, token) as reader:
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.send(reader.head("GET", path, **PS1))
        wait_until(lambda: reader.socket.recv(1, socket.MSG_PEEK))
        with engine_of(f"sqlite:///{course.data}/nbexchange.sqlite").begin() as connection:
            for table in ("assignment", "event"):
                connection.execute(
                    text(f"UPDATE {table} SET course_pk = :theirs WHERE course_pk = :ours"),
                    {"theirs": theirs["id"], "ours": ours["id"]},
                )
        answer = reader.answer().body

    mark, all_of_it = (b".fetched", 20_000) if path == "history" else (b'"path":"token-', 399)
    assert 0 < answer.count(mark) < all_of_it
    assert b"secret" not in answer


def test_a_release_lists_as_many_notebooks_as_a_submission(service: Service) -> None:
    ada = service.instructor()
    many = tar_gz_of({f"p{number}.ipynb": b"{}" for number in range(251)})
    deep = tar_gz_of(
        {"p.ipynb": b"{}", **{f"more/p{number}.ipynb": b"{}" for number in range(251)}}
    )

    refused = release(ada, many)
    taken = release(ada, deep)
    (record,) = ada.get("assignments", **PS1).json()["value"]

    assert refused.status_code == 422
    assert "more than 250 notebooks" in refused.json()["note"]
    assert taken.status_code == 201
    assert record["notebook_files"] == ["p.ipynb"]


READER = """
import sys, urllib.request
url, token, word = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
found, tail, word = 0, b"", word.encode()
with urllib.request.urlopen(request, timeout=300) as answer:
    while piece := answer.read(1 << 16):
        text = tail + piece
        found += text.count(word)
        tail = text[len(text) - len(word) + 1 :]
print(found)
"""
"""In a process of its own, so that it delays nobody in ours."""


def counter(service: Service, token: str, path: str, word: str) -> subprocess.Popen[str]:
    """Tells how often a word is in an answer, which it reads as it comes."""
    url = f"{service.url}/{path}?course_id=physics"
    return subprocess.Popen(
        [sys.executable, "-c", READER, url, token, word], stdout=subprocess.PIPE, text=True
    )


def waits_until_over(
    readers: list[subprocess.Popen[str]], act: Callable[[], float]
) -> tuple[list[float], list[int]]:
    """What others wait meanwhile, and what the readers found."""
    waits = []
    while any(reader.poll() is None for reader in readers):
        waits.append(act())
    return waits, [int(reader.communicate()[0]) for reader in readers]


LONG = walks.BATCH_CHARACTERS

BATCHES: dict[str, tuple[list[int], list[int]]] = {
    "short ones": ([100] * 1_100, [500, 500, 100]),
    "ones without long columns": ([0] * 600, [500, 100]),
    "long ones": ([LONG // 4] * 10, [4, 4, 2]),
    "one that is too long by itself": ([100, 2 * LONG, 100, 100], [2, 2]),
}


@pytest.mark.parametrize(("sizes", "expected"), BATCHES.values(), ids=BATCHES)
def test_a_batch_has_as_many_records_as_stay_small_together(
    service: Service, sizes: list[int], expected: list[int]
) -> None:
    walk = walks.Walk(enumerate(sizes), lambda _, keys: {key: key for key in keys})
    found = []

    with Session(databases.engine_of(databases.database_of(service.data))) as session:
        while not walk.is_over:
            found.append(walk.take(session))

    assert [len(batch) for batch in found] == expected
    assert list(itertools.chain(*found)) == list(range(len(sizes)))


@pytest.mark.slow
def test_the_longest_lists_of_one_person_stay_small_and_delay_nobody(data: Path) -> None:
    """3,000 submissions of 250 notebooks: 130 MB of JSON, read and not read."""
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        token = token_of(service, "bob")
        receipt(submit(service.wire(token)))
        eve = service.student(name="eve")
        idle = [seconds(lambda: submit(eve), 201) for _ in range(20)]
        many_submissions(service, 3000, NOTEBOOKS)
        with RawConnection(service.url, token) as unread:
            unread.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.send(unread.head("GET", "collections", **PS1))
            wait_until(lambda: unread.socket.recv(1, socket.MSG_PEEK))
            reader = counter(service, token, "assignments", '"submission_id"')
            busy, found = waits_until_over([reader], lambda: seconds(lambda: submit(eve), 201))
        memory = highest_memory(service.pid)

    print(
        f"{memory / 2**20:.0f} MiB; {statistics.median(idle):.4f} s alone,"
        f" {statistics.median(busy):.4f} s beside"
    )
    assert found == [3000]
    assert memory <= MOST_MEMORY
    assert statistics.median(busy) <= 2 * max(statistics.median(idle), NOISE)


@pytest.mark.slow
def test_the_longest_history_stays_small_and_delays_nobody(data: Path) -> None:
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        eve = service.student(name="eve")
        idle = [seconds(lambda: submit(eve), 201) for _ in range(20)]
        many_events(service, 50_000, "fetched")
        token = token_of(service, "ada", "Instructor")
        before = highest_memory(service.pid)
        readers = [
            counter(service, token, "history", "AssignmentActions.fetched") for _ in range(2)
        ]
        busy, found = waits_until_over(readers, lambda: seconds(lambda: submit(eve), 201))
        memory = highest_memory(service.pid) - before

    print(
        f"{memory / 2**20:.0f} MiB more; {statistics.median(idle):.4f} s alone,"
        f" {statistics.median(busy):.4f} s beside"
    )
    assert found == [50_000, 50_000]
    assert memory <= 64 * 2**20
    assert statistics.median(busy) <= 2 * max(statistics.median(idle), NOISE)
