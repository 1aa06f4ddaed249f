"""A database server that dies, freezes, fills up, forgets, or is cut off at the worst moment.

Each test has a server of its own. `NBEXCHANGE_FAULT_TRIALS` is how often each fault strikes (once);
what was found goes to the file that `NBEXCHANGE_FAULT_REPORT` names.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
from sqlalchemy import exc, insert, text

from nbexchange import models
from nbexchange.database import Database, clock
from nbexchange.database.durability import MYSQL
from nbexchange.database.failures import known_errors
from nbexchange.errors import Misconfigured, StoreFull, Unavailable
from tests.support.archives import sha256, tar_gz, upload_headers
from tests.support.course import PS1, WORK, give_feedback, receipt, release, submit
from tests.support.crowd import UPLOADERS, Crowd, Given, account, whole
from tests.support.faults_report import TRIALS, report
from tests.support.numbers import Numbers
from tests.support.parts import missing, needs
from tests.support.process import FaultyService, ServiceProcess, small_disk, wait_until
from tests.support.proxy import Fate, Pooler, Proxy
from tests.support.servers import KINDS, DatabaseServer, make_server
from tests.support.service import Wire

# They bring their own servers and look at the disk, so one run asks them all.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

SOON = 15
"""Seconds within which a refusal has to come, on a busy machine; it takes 5 where there is room."""


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with make_server(request.param) as running:
        yield running


@pytest.fixture
def mariadb() -> Iterator[DatabaseServer]:
    with make_server("mariadb") as running:
        yield running


@pytest.fixture
def postgresql() -> Iterator[DatabaseServer]:
    with make_server("postgresql") as running:
        yield running


@pytest.fixture
def faulty(data: Path, server: DatabaseServer) -> Iterator[FaultyService]:
    with FaultyService(data, on(server.url())) as service:
        yield service


@pytest.fixture
def proxy(server: DatabaseServer) -> Iterator[Proxy]:
    with Proxy(server.port, server.kind) as running:
        yield running


@pytest.fixture
def behind_proxy(data: Path, server: DatabaseServer, proxy: Proxy) -> Iterator[FaultyService]:
    with FaultyService(data, on(server.url(port=proxy.port))) as service:
        yield service


def on(url: str, **options: Any) -> str:
    """Lines of a configuration."""
    options = {"db_url": url, **options}
    return "".join(f"c.NbExchange.{name} = {value!r}\n" for name, value in options.items())


# -- away, under load


def assert_away(answer: requests.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["success"] is False


def killed(server: DatabaseServer) -> None:
    server.kill()


def stopped(server: DatabaseServer) -> None:
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("gone", [killed, stopped])
def test_away_under_load_everybody_is_told_and_nothing_acknowledged_is_lost(
    server: DatabaseServer, faulty: FaultyService, gone: Callable[[DatabaseServer], None]
) -> None:
    receipt(release(faulty.instructor()))
    crowd, recoveries = Crowd(faulty), []

    with crowd.at_work():
        for _ in range(TRIALS):
            crowd.wait_for(random.randint(1, 2 * UPLOADERS), of=crowd.receipts)
            gone(server)
            crowd.wait_for(2 * UPLOADERS, of=crowd.refusals)
            assert faulty.student().get("healthz").ok
            server.start()
            back = time.monotonic()
            crowd.wait_for(1, of=crowd.receipts)
            recoveries.append(time.monotonic() - back)
        crowd.wait_for(UPLOADERS, of=crowd.receipts)

    found = account(faulty, crowd.receipts, server.rows("submission"))
    tell(f"server {gone.__name__} under load", server, found, crowd.refusals, recoveries)
    assert found == whole(crowd.receipts)
    assert len(server.rows("submission")) == len(crowd.receipts)
    assert max(crowd.refusals) < SOON
    assert max(recoveries) < SOON
    assert_store_is_sound(server, faulty)


def tell(
    fault: str,
    server: DatabaseServer,
    found: dict[str, int],
    refusals: list[float] | None = None,
    recoveries: list[float] | None = None,
) -> None:
    report(
        fault=fault,
        database=server.kind,
        trials=TRIALS,
        refusal=max(refusals or (), default=None),
        recovery=max(recoveries or (), default=None),
        **found,
    )


def assert_store_is_sound(server: DatabaseServer, service: FaultyService) -> None:
    """Every row has its bytes, and `gc` finds what no row owns and nothing else."""
    owned = keys_of_rows(server)
    orphans = {path.name for path in service.files()} - owned
    code, said = service.run_command("check")
    assert code == 0, said
    code, said = service.run_command("gc", "--older-than=0", "--delete")
    assert code == 0, said
    assert f"{len(orphans)} files of" in said
    assert {path.name for path in service.files()} == owned


def keys_of_rows(server: DatabaseServer) -> set[str]:
    tables = ("release", "submission", "feedback")
    return {row["key"] for table in tables for row in server.rows(table)}


# -- locked


@pytest.mark.slow
def test_who_waits_for_a_lock_keeps_nobody_else_waiting(
    server: DatabaseServer, faulty: FaultyService
) -> None:
    """A long purge of one course holds its rows; people of others read and write."""
    ada = faulty.instructor()
    receipt(release(ada))
    waiting = [faulty.student(name=f"student{number}") for number in range(2 * UPLOADERS)]
    other = faulty.instructor("chemistry", "eve")
    written: list[requests.Response] = []
    refused: list[requests.Response] = []
    threads = [
        threading.Thread(target=lambda wire=wire: refused.append(submit(wire, key="work")))
        for wire in waiting
    ]

    (physics,) = server.rows("course")
    with server.locked(f"SELECT id FROM course WHERE id = {physics['id']} FOR UPDATE"):
        for thread in threads:
            thread.start()
        while all(thread.is_alive() for thread in threads):
            assert other.get("assignments", course_id="chemistry").ok
            written.append(release_in(other, "chemistry"))
            threads[0].join(0.05)
        for thread in threads:
            thread.join()
    given = [(until_receipt(wire, "work"), sha256(WORK)) for wire in waiting]

    for answer in refused:
        assert_away(answer)
    assert {answer.status_code for answer in written} == {201}, written[0].text
    assert len(written) > 10  # all the time, until those who waited were refused
    found = account(faulty, given, server.rows("submission"))
    tell("a course's rows locked", server, found)
    assert found == whole(given)


@pytest.mark.slow
def test_one_person_who_waits_in_several_courses_keeps_nobody_else_waiting(
    server: DatabaseServer, faulty: FaultyService
) -> None:
    names = [f"held{number}" for number in range(4)]
    many = faulty.wire(faulty.enrol("may", dict.fromkeys(names, "Instructor")))
    other = faulty.instructor("chemistry", "eve")
    assert all(release_in(many, name).ok for name in names)
    pks = ", ".join(str(row["id"]) for row in server.rows("course"))
    held = f"SELECT id FROM course WHERE id IN ({pks}) FOR UPDATE"
    written = []

    with server.locked(held), ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(release_in, many, name) for name in (*names, *names)]
        while not any(one.done() for one in waiting):
            written.append(release_in(other, "chemistry").status_code)

    assert set(written) == {201}
    assert len(written) > 10  # all the time, until those who waited were refused


@pytest.mark.slow
def test_who_comes_after_an_administrators_purge_does_not_pass_it(data: Path) -> None:
    """PostgreSQL lets those that share a row in for as long as they come, unless they queue up."""
    with make_server("postgresql") as server, FaultyService(data, on(server.url())) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student()))
        later = service.student(name="cleo")
        _, said = service.run_command("purge", "--course=physics", "--student=bob")
        (code,) = re.findall(r"--confirm=(\w+)", said)
        with ThreadPoolExecutor(2) as threads:
            with server.locked("SELECT id FROM course FOR KEY SHARE"):
                purge = threads.submit(service.run_command, "purge", f"--confirm={code}")
                wait_until(lambda: waiting_for_locks(server) == 1)
                answer = threads.submit(submit, later)
                wait_until(lambda: waiting_for_locks(server) == 2)
            assert purge.result()[0] == 0
            assert receipt(answer.result())


def test_on_postgresql_a_class_and_its_instructor_do_not_wait_for_each_other(
    data: Path, postgresql: DatabaseServer
) -> None:
    """Those who change an assignment and those who add to it hold the same rows at once."""
    rows = "SELECT course.id FROM course JOIN assignment ON course_pk = course.id FOR"
    with FaultyService(data, on(postgresql.url())) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))

        with postgresql.locked(f"{rows} NO KEY UPDATE"):  # an instructor releases
            receipt(submit(bob))
        with postgresql.locked(f"{rows} KEY SHARE"):  # a class hands in
            receipt(release(ada))
            assert ada.delete("assignment", **PS1).ok


def waiting_for_locks(server: DatabaseServer) -> int:
    with server.engine().connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        ).scalar_one()


def release_in(wire: Wire, course_id: str) -> requests.Response:
    names = {"course_id": course_id, "assignment_id": "ps1"}
    return wire.post("assignment", WORK, upload_headers(WORK), **names)


# -- busy, or only to be read


STOPS = {
    "a lock, PostgreSQL": ("postgresql", ""),
    "a lock, MariaDB": ("mariadb", ""),
    "its time, PostgreSQL": (
        "postgresql",
        "ALTER DATABASE nbexchange SET statement_timeout = '500ms'",
    ),
    "its time, MariaDB": ("mariadb", "SET GLOBAL max_statement_time = 0.5"),
}
"""What stops a statement, and the statement that sets it where it is not ours."""

HURRY = "from nbexchange.database import engines\nengines.LOCK_SECONDS = 1\n"


@pytest.mark.parametrize(("kind", "harm"), STOPS.values(), ids=STOPS)
def test_work_that_waited_too_long_for_a_lock_is_to_be_sent_again_and_not_in_parts(
    data: Path, kind: str, harm: str
) -> None:
    with make_server(kind) as server, FaultyService(data, HURRY + on(server.url())) as service:
        bob = service.student()
        receipt(release(service.instructor()))
        if harm:
            server.say(harm)
            server.throw_out()
        with server.locked("SELECT id FROM course FOR UPDATE"):
            refused = submit(bob, key="work")

        assert_away(refused)
        assert len(service.files()) == 1, "what was refused takes room"
        assert "is too busy" in refused.json()["note"]
        assert "The database is unavailable" not in str(service.output)
        receipt(submit(bob, key="work"))


ONLY_READ = {
    "postgresql": (
        "ALTER DATABASE nbexchange SET default_transaction_read_only = on",
        "ALTER DATABASE nbexchange RESET default_transaction_read_only",
    ),
    "mariadb": ("SET GLOBAL tx_read_only = 1", "SET GLOBAL tx_read_only = 0"),
}


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EIO, Unavailable)])
def test_a_storage_engine_without_room_is_a_full_disk(number: int, kind: type[Exception]) -> None:
    """As pymysql reads what MariaDB sends. No test can fill the disk at just that moment."""
    packet = struct.pack("<Bh", 0xFF, 1030) + f"#HY000Got error {number} from engine".encode()
    with pytest.raises(pymysql.err.Error) as sent:
        pymysql.err.raise_mysql_exception(packet)
    error = exc.DBAPIError.instance("INSERT", {}, sent.value, pymysql.err.Error)

    with pytest.raises(kind), known_errors():
        raise error


def test_a_database_whose_tables_are_being_restored_is_away(
    server: DatabaseServer, faulty: FaultyService
) -> None:
    bob = faulty.student()
    receipt(release(faulty.instructor()))

    server.say("ALTER TABLE submission RENAME TO put_aside")
    listed, refused = bob.get("assignments", **PS1), submit(bob, key="work")
    server.say("ALTER TABLE put_aside RENAME TO submission")

    for answer in (listed, refused):
        assert_away(answer)
    receipt(submit(bob, key="work"))


def test_a_database_whose_constraints_are_being_restored_is_away(
    data: Path, postgresql: DatabaseServer
) -> None:
    """pg_restore adds them after all rows."""
    constraint = "subscription_course_pk_user_pk"
    with FaultyService(data, on(postgresql.url())) as service:
        bob = service.student()
        receipt(release(service.instructor()))

        postgresql.say(f"ALTER TABLE subscription DROP CONSTRAINT uq_{constraint}")
        refused = submit(bob, key="work")
        unique = "UNIQUE (course_pk, user_pk)"
        postgresql.say(f"ALTER TABLE subscription ADD CONSTRAINT uq_{constraint} {unique}")

        assert_away(refused)
        receipt(submit(bob, key="work"))


def test_a_database_that_can_only_be_read_is_not_ready_and_says_so(
    server: DatabaseServer, faulty: FaultyService
) -> None:
    """As a standby, or a server that an administrator has closed. It heals without a restart,
    although the old sessions stay what they are."""
    bob = faulty.student()
    receipt(release(faulty.instructor()))
    assert bob.get("readyz").ok
    close, reopen = ONLY_READ[server.kind]

    server.say(close)
    server.throw_out()
    (not_ready,) = wait_until(lambda: unready(bob.get("readyz")))
    refused, listed = submit(bob, key="work"), bob.get("assignments", **PS1)
    server.say(reopen, database="")
    wait_until(lambda: bob.get("readyz").ok)

    for answer in (not_ready, refused):
        assert_away(answer)
        assert "is read-only" in answer.json()["note"]
    assert listed.ok
    assert "The database is read-only" in str(faulty.output)
    receipt(submit(bob, key="work"))


def unready(answer: requests.Response) -> list[requests.Response]:
    """An answer of readyz, which counts for two seconds; none where its connection was cut."""
    return [] if answer.ok or "is unavailable" in answer.text else [answer]


# -- frozen


@pytest.mark.slow
def test_a_frozen_server_is_a_503_while_the_service_lives_and_it_heals(
    server: DatabaseServer, faulty: FaultyService
) -> None:
    receipt(release(faulty.instructor()))
    students = [faulty.student(name=f"student{number}") for number in range(UPLOADERS)]
    given: Given = [(receipt(submit(students[0], key="before")), sha256(WORK))]
    refusals, recoveries = [], []

    for trial in range(TRIALS):
        server.freeze()
        answers, alive = at_once(students, f"work-{trial}", faulty.student())
        server.thaw()
        back = time.monotonic()
        given.append((until_receipt(students[0], f"work-{trial}"), sha256(WORK)))
        recoveries.append(time.monotonic() - back)
        for student in students[1:]:
            given.append((until_receipt(student, f"work-{trial}"), sha256(WORK)))
        for answer, seconds in answers:
            assert_away(answer)
            refusals.append(seconds)
        assert alive < 3

    found = account(faulty, given, server.rows("submission"))
    tell("server frozen", server, found, refusals, recoveries)
    assert found == whole(given)
    assert max(refusals) < SOON
    assert_store_is_sound(server, faulty)


def at_once(
    students: list[Wire], key: str, other: Wire
) -> tuple[list[tuple[requests.Response, float]], float]:
    """All submit; each answer and its seconds, and the slowest `healthz` of the time but one."""
    answers: list[tuple[requests.Response, float]] = []
    waits = [0.0, 0.0]

    def send(wire: Wire) -> None:
        begun = time.monotonic()
        answer = submit(wire, WORK, key)
        answers.append((answer, time.monotonic() - begun))

    threads = [threading.Thread(target=send, args=(student,)) for student in students]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        begun = time.monotonic()
        assert other.get("healthz").ok
        waits.append(time.monotonic() - begun)
        threads[0].join(0.05)
    return answers, sorted(waits)[-2]


def until_receipt(wire: Wire, key: str, body: bytes = WORK) -> dict[str, Any]:
    def attempt() -> dict[str, Any] | None:
        answer = submit(wire, body, key)
        if answer.status_code == 201:
            return answer.json()
        assert_away(answer)
        return None

    return wait_until(attempt, "a receipt")


@pytest.mark.slow
def test_what_is_committed_after_everybody_gave_up_is_what_a_retry_finds(
    server: DatabaseServer, proxy: Proxy, behind_proxy: FaultyService
) -> None:
    """Refused after 5 seconds; the retry comes while the first one is still on its way."""
    receipt(release(behind_proxy.instructor()))
    bob = behind_proxy.student()
    given: Given = []

    for trial in range(TRIALS):
        key, body = f"work-{trial}", tar_gz(p1=str(trial).encode())
        proxy.arm(Fate.HELD)
        refused = submit(bob, body, key)
        before = len(server.rows("submission"))
        retried = {path.name for path in behind_proxy.files()}
        again = threading.Thread(
            target=lambda key=key, body=body: given.append(
                (until_receipt(bob, key, body), sha256(body))
            )
        )
        again.start()
        wait_until(lambda seen=retried: {path.name for path in behind_proxy.files()} - seen)
        proxy.let_go()
        again.join()
        assert_away(refused)
        assert before == trial

    found = account(behind_proxy, given, server.rows("submission"))
    tell("commit held up", server, found)
    assert found == whole(given)
    assert len(server.rows("submission")) == TRIALS
    assert_store_is_sound(server, behind_proxy)


ERASES_ALL_THE_TIME = (
    "from nbexchange.server import scheduled_erasure as erasure\n"
    "erasure.FIRST_SECONDS = erasure.PAUSE_SECONDS = 0.1\n"
    "c.NbExchange.stop_grace = 5\n"  # for what it erases
)


@pytest.mark.slow
def test_sigterm_ends_a_service_whose_server_is_frozen(data: Path, server: DatabaseServer) -> None:
    """Also while it looks for what is to be erased, which no request waits for."""
    with ServiceProcess(data, ERASES_ALL_THE_TIME + on(server.url())) as service:
        receipt(release(service.instructor()))
        students = [service.student(name=f"student{number}") for number in range(UPLOADERS)]
        server.freeze()
        answers, _ = at_once(students, "work", service.student())
        begun = time.monotonic()
        service.terminate()
        code = service.wait()
        seconds = time.monotonic() - begun
        server.thaw()

    for answer, _ in answers:
        assert_away(answer)
    assert code == 0, service.output
    assert "Traceback" not in str(service.output)
    assert seconds < SOON


# -- gone at COMMIT


class Submitting:
    table = "submission"

    def __init__(self, service: FaultyService) -> None:
        self.wire = service.student()

    def send(self, body: bytes, key: str) -> requests.Response:
        return submit(self.wire, body, key)

    def body(self, number: int) -> bytes:
        return tar_gz(p1=f"work {number}".encode())


class Releasing(Submitting):
    table = "release"

    def __init__(self, service: FaultyService) -> None:
        self.wire = service.instructor()

    def send(self, body: bytes, key: str) -> requests.Response:
        return release(self.wire, body, key)


class GivingFeedback(Releasing):
    table = "feedback"

    def __init__(self, service: FaultyService) -> None:
        super().__init__(service)
        self.submission_id = receipt(submit(service.student()))["submission_id"]

    def send(self, body: bytes, key: str) -> requests.Response:
        return give_feedback(self.wire, self.submission_id, body, key)

    def body(self, number: int) -> bytes:
        return f"feedback {number}".encode()


@pytest.mark.parametrize(
    "fate", [Fate.ANSWER_LOST, Fate.NEVER_SENT, Fate.DISK_FULL], ids=lambda fate: fate.name
)
@pytest.mark.parametrize("act", [Submitting, Releasing, GivingFeedback])
def test_gone_at_commit_a_retry_gives_exactly_one_row_with_its_bytes(
    server: DatabaseServer,
    proxy: Proxy,
    behind_proxy: FaultyService,
    act: type[Submitting],
    fate: Fate,
) -> None:
    receipt(release(behind_proxy.instructor()))
    verb = act(behind_proxy)
    before, receipts = len(server.rows(verb.table)), []

    for trial in range(TRIALS):
        body, key = verb.body(trial), f"key-{trial}"
        proxy.arm(fate)
        # A slow machine may give up before the COMMIT; the next try reaches it.
        while not proxy.struck.is_set():
            assert_away(verb.send(body, key))
        # The transaction that was cut off may need a moment to be taken back.
        committed = len(server.rows(verb.table)) - before - trial
        assert committed == (fate is not Fate.NEVER_SENT)
        receipts.append(receipt(verb.send(body, key)))

    rows = server.rows(verb.table)[before:]
    wrong = sum(not is_whole(behind_proxy, row) for row in rows)
    found = {
        "acknowledged": len(receipts),
        "lost": len(receipts) - len({row["idempotency_key"] for row in rows}),
        "wrong": wrong,
        "duplicates": len(rows) - len({row["idempotency_key"] for row in rows}),
    }
    tell(f"COMMIT of a {verb.table} {fate.value}", server, found)
    assert found == {"acknowledged": TRIALS, "lost": 0, "wrong": 0, "duplicates": 0}
    assert [row["sha256"] for row in rows] == [one["sha256"] for one in receipts]
    assert_store_is_sound(server, behind_proxy)


def is_whole(service: FaultyService, row: dict[str, Any]) -> bool:
    key = row["key"]
    return sha256((service.data / "blobs" / key[:2] / key).read_bytes()) == row["sha256"]


def test_connections_that_were_cut_are_made_anew_before_anybody_notices(
    proxy: Proxy, behind_proxy: FaultyService
) -> None:
    """Firewalls cut what was silent for long."""
    bob = behind_proxy.student()
    receipt(release(behind_proxy.instructor()))

    for number in range(3):
        proxy.cut()
        receipt(submit(bob, key=f"work-{number}"))


def test_a_server_that_refuses_connections_is_a_503_and_heals(
    proxy: Proxy, behind_proxy: FaultyService
) -> None:
    bob = behind_proxy.student()
    receipt(release(behind_proxy.instructor()))

    proxy.refuse()
    refused = submit(bob, key="work"), bob.get("assignments"), bob.get("readyz")
    alive = bob.get("healthz")
    proxy.accept()

    for answer in refused:
        assert_away(answer)
    assert alive.ok
    receipt(submit(bob, key="work"))
    wait_until(lambda: bob.get("readyz").ok)  # its answer is kept for two seconds


@pytest.mark.parametrize("own_numbers", [True, False], ids=["a pooler", "none"])
def test_statements_are_prepared_where_no_pooler_could_run_others_of_their_names(
    data: Path, postgresql: DatabaseServer, *, own_numbers: bool
) -> None:
    with (
        Pooler(postgresql.port, own_numbers=own_numbers) as between,
        FaultyService(data, on(postgresql.url(port=between.port))) as service,
    ):
        bob = service.student()
        receipt(release(service.instructor()))
        for number in range(20):
            receipt(submit(bob, key=f"work-{number}"))

    assert between.prepared is not own_numbers


def test_a_newcomer_whose_number_is_taken_gets_the_next_one(
    data: Path, postgresql: DatabaseServer
) -> None:
    """After rows were copied without their sequences."""
    with FaultyService(data, on(postgresql.url())) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student()))
        for table in ("user", "subscription"):
            postgresql.say(
                f"""SELECT setval(pg_get_serial_sequence('"{table}"', 'id'), 1, false)"""
            )

        receipt(submit(service.student(name="zoe")))


# -- its disk is full


@pytest.mark.slow
def test_its_disk_full_says_so_and_keeps_what_was_acknowledged(
    data: Path, disk_of: Callable[..., Any]
) -> None:
    """Nobody has to start anything again. PostgreSQL has its log (WAL) on another disk here."""
    with disk_of() as (server, disk), FaultyService(data, on(server.url())) as service:
        bob = service.student()
        receipt(release(service.instructor()))
        given, full = submit_until_full(bob, disk)
        meanwhile = service.instructor().get("collections", **PS1), submit(bob, key="no room")
        (disk / "ballast").unlink()
        begun = time.monotonic()
        given.append((until_room(bob, "no room"), sha256(WORK)))
        recovery = time.monotonic() - begun
        found = account(service, given, server.rows("submission"))

        assert full.status_code == 507, full.text
        assert "full" in full.json()["note"]
        assert meanwhile[0].ok
        assert len(meanwhile[0].json()["value"]) == len(given) - 1
        assert meanwhile[1].status_code in (503, 507)
        assert found == whole(given)
        assert_store_is_sound(server, service)
        tell("disk full", server, found, recoveries=[recovery])


@pytest.fixture(params=KINDS)
def disk_of(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A server on a small disk of its own."""

    @contextlib.contextmanager
    def made(*, log_elsewhere: bool = True) -> Iterator[tuple[DatabaseServer, Path]]:
        place = Path(tempfile.mkdtemp(prefix="nbexchange-disk-"))
        log = Path(tempfile.mkdtemp(prefix="nbexchange-wal-"))
        try:
            with small_disk(place, "64m"), make_server(request.param, place) as server:
                if request.param == "postgresql" and log_elsewhere:
                    move_log(server, log)
                yield server, place
        finally:
            place.rmdir()
            shutil.rmtree(log)

    return made


def move_log(server: DatabaseServer, place: Path) -> None:
    server.stop()
    place.chmod(0o755)
    subprocess.run(["mv", server.files / "pg_wal", place], check=True)
    (server.files / "pg_wal").symlink_to(place / "pg_wal")
    server.start()


def submit_until_full(wire: Wire, disk: Path) -> tuple[Given, requests.Response]:
    """The receipts until then, and the first refusal."""
    given: Given = [
        (receipt(submit(wire, key=f"before-{number}")), sha256(WORK)) for number in range(20)
    ]
    with open(disk / "ballast", "wb", buffering=0) as ballast:
        for number in range(5000):
            with contextlib.suppress(OSError):
                while ballast.write(bytes(4096)):
                    pass
            body = tar_gz(p1=str(number).encode())
            answer = submit(wire, body, key=f"n{number}")
            if answer.status_code != 201:
                return given, answer
            given.append((answer.json(), sha256(body)))
    raise AssertionError("never full")


def until_room(wire: Wire, key: str) -> dict[str, Any]:
    def attempt() -> dict[str, Any] | None:
        answer = submit(wire, WORK, key)
        assert answer.status_code in (201, 503, 507), answer.text
        return answer.json() if answer.status_code == 201 else None

    return wait_until(attempt, "room")


@pytest.mark.slow
def test_the_disk_of_postgresqls_log_full_loses_nothing_once_it_is_started_again(
    data: Path, tmp_path: Path
) -> None:
    """PostgreSQL itself gives up where its log (WAL) has no room, and may stay away until its
    operator has made room and started it again. The service is not started again."""
    place = Path(tempfile.mkdtemp(prefix="nbexchange-disk-"))
    with (
        small_disk(place, "64m") as disk,
        make_server("postgresql", place) as server,
        FaultyService(data, on(server.url())) as service,
    ):
        bob = service.student()
        receipt(release(service.instructor()))
        given, full = submit_until_full(bob, disk)
        (disk / "ballast").unlink()
        if not server.is_running():
            server.start()
        begun = time.monotonic()
        given.append((until_room(bob, "no room"), sha256(WORK)))
        recovery = time.monotonic() - begun
        found = account(service, given, server.rows("submission"))

        assert full.status_code in (503, 507)
        assert found == whole(given)
        assert_store_is_sound(server, service)
        tell("disk of the log full", server, found, recoveries=[recovery])
    place.rmdir()


# -- modes that lose

LOSSY = {
    "strict mode off": ("mariadb", "SET GLOBAL sql_mode = ''", "without strict mode"),
    "commits forgotten": (
        "mariadb",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
        "innodb_flush_log_at_trx_commit is 2",
    ),
    "commits forgotten sooner": (
        "mariadb",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 0",
        "innodb_flush_log_at_trx_commit is 0",
    ),
    "a table in MyISAM": ("mariadb", "ALTER TABLE `purge` ENGINE = MyISAM", "engine MyISAM"),
    "a table in Aria": ("mariadb", "ALTER TABLE alembic_version ENGINE = Aria", "engine Aria"),
    "a commit that does not wait": (
        "postgresql",
        "ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()",
        "synchronous_commit is off",
    ),
    "no fsync": (
        "postgresql",
        "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()",
        "fsync is off",
    ),
    "a table that a crash empties": (
        "postgresql",
        "ALTER TABLE event SET UNLOGGED",
        "Table event is UNLOGGED",
    ),
}

STATEMENT = re.compile(r"[Rr]un `(.+)`|with: (.+)$", re.MULTILINE)
LINE = re.compile(r"Write `(.+) = (.+)` into")


@pytest.mark.parametrize(("kind", "harm", "words"), LOSSY.values(), ids=LOSSY)
def test_a_mode_that_loses_is_refused_at_the_start_with_the_words_that_mend_it(
    data: Path, kind: str, harm: str, words: str
) -> None:
    with make_server(kind) as server, stopping(FaultyService(data, on(server.url()))) as service:
        server.say(harm)
        said = wait_until(lambda: refused_start(service))
        server.say(statement_in(said))
        wait_until(lambda: starts(service))

        assert words in said
        assert receipt(release(service.instructor()))


@contextlib.contextmanager
def stopping(service: FaultyService) -> Iterator[FaultyService]:
    """One that has not started yet."""
    try:
        yield service
    finally:
        service.__exit__()


def refused_start(service: FaultyService) -> str | None:
    """What it says; None if it starts. A setting needs a moment to reach every process."""
    if starts(service):
        service.kill()
        return None
    assert service.wait() != 0
    return str(service.output)


def starts(service: FaultyService) -> bool:
    try:
        service.start()
    except AssertionError:
        return False
    return True


def statement_in(said: str) -> str:
    found = STATEMENT.search(said)
    assert found, said
    return found[1] or found[2]


BINARY_LOG = ("--log-bin=binlog", "--server-id=1")
STANDBY = "ALTER SYSTEM SET synchronous_standby_names = 'other'; SELECT pg_reload_conf()"
ROLE = "ALTER ROLE postgres IN DATABASE nbexchange SET synchronous_commit"

SETTINGS = {
    "a binary log that is not synced": ("mariadb", BINARY_LOG, "", "sync_binlog is 0"),
    "a binary log that is synced at times": (
        "mariadb",
        (*BINARY_LOG, "--sync-binlog=2"),
        "",
        "sync_binlog is 2",
    ),
    "no doublewrite": (
        "mariadb",
        ("--skip-innodb-doublewrite",),
        "",
        "innodb_doublewrite is OFF",
    ),
    "files that are not synced": (
        "mariadb",
        ("--innodb-flush-method=nosync",),
        "",
        "innodb_flush_method is nosync",
    ),
    "files that are hardly synced": (
        "mariadb",
        ("--innodb-flush-method=littlesync",),
        "",
        "innodb_flush_method is littlesync",
    ),
    "files that grow unsynced": (
        "mariadb",
        ("--innodb-flush-method=O_DIRECT_NO_FSYNC",),
        "",
        "innodb_flush_method is O_DIRECT_NO_FSYNC",
    ),
    "a table in memory": (
        "mariadb",
        (),
        "ALTER TABLE compatibility ENGINE = MEMORY",
        "engine MEMORY",
    ),
    "pages that are torn": (
        "postgresql",
        (),
        "ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()",
        "full_page_writes is off",
    ),
    "a failed sync that is forgotten": (
        "postgresql",
        ("--data_sync_retry=on",),
        "",
        "data_sync_retry is on",
    ),
    "damaged pages that are emptied": (
        "postgresql",
        (),
        "ALTER SYSTEM SET zero_damaged_pages = on; SELECT pg_reload_conf()",
        "zero_damaged_pages is on",
    ),
    "damaged pages that pass for whole": (
        "postgresql",
        (),
        "ALTER SYSTEM SET ignore_checksum_failure = on; SELECT pg_reload_conf()",
        "ignore_checksum_failure is on",
    ),
    "rows that may refer to nothing": (
        "postgresql",
        (),
        "ALTER DATABASE nbexchange SET session_replication_role = replica",
        "session_replication_role is replica",
    ),
    "a role whose commits do not wait": (
        "postgresql",
        (),
        "ALTER ROLE postgres SET synchronous_commit = off",
        "synchronous_commit is off",
    ),
    "a database whose commits do not wait": (
        "postgresql",
        (),
        "ALTER DATABASE nbexchange SET synchronous_commit = off",
        "synchronous_commit is off",
    ),
    "commits that the standby lacks": (
        "postgresql",
        (),
        f"{ROLE} = local; {STANDBY}",
        "synchronous_commit is local",
    ),
    "tables that refer to each other": (
        "postgresql",
        (),
        "; ".join(f"ALTER TABLE {one} SET UNLOGGED" for one in ("event", "feedback", "submission")),
        "Table event is UNLOGGED",
    ),
}


MEANINGS = {
    "results that are cut": "SET GLOBAL sql_select_limit = 1",
    "joins that are refused": "SET GLOBAL max_join_size = 1",
}


@pytest.mark.parametrize("setting", MEANINGS.values(), ids=MEANINGS)
def test_a_setting_of_the_server_changes_no_answer_and_deletes_no_file(
    data: Path, setting: str
) -> None:
    with make_server("mariadb") as server:
        server.say(setting)
        with FaultyService(data, on(server.url())) as service:
            ada = service.instructor()
            receipt(release(ada))
            given = [receipt(submit(service.student(name=name))) for name in ("bob", "cleo", "dan")]
            files = service.files()

            listed = ada.get("collections", **PS1).json()["value"]
            swept = service.run_command("gc", "--older-than=0", "--delete")

            assert swept[0] == 0, swept
            assert service.files() == files
            assert {one["submission_id"] for one in given} == {one["path"] for one in listed}
            assert service.run_command("check")[0] == 0


def test_a_row_that_refers_to_nothing_is_refused_whatever_the_server_allows(
    mariadb: DatabaseServer,
) -> None:
    """A student's submission may meet the purge of all that the student has."""
    mariadb.say("SET GLOBAL foreign_key_checks = 0")
    database = Database(mariadb.url())

    with pytest.raises(exc.IntegrityError):
        database.write_now(
            lambda session: session.execute(
                insert(models.Assignment).values(course_pk=1, assignment_id="ps1", released=True)
            )
        )

    database.close()


@pytest.mark.parametrize(("kind", "options", "harm", "words"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_loses_is_refused_until_it_is_corrected_as_the_message_says(
    kind: str, options: tuple[str, ...], harm: str, words: str
) -> None:
    with make_server(kind) as server:
        if options:
            server.restart(*options)
        server.say(harm)
        said = [wait_until(lambda: refusal(server))]
        while said[-1] is not None and len(said) < 5:
            correct(server, said[-1])
            wait_until(lambda: refusal(server) != said[-1])
            said.append(refusal(server))

        assert words in said[0]
        assert said[-1] is None


def refusal(server: DatabaseServer) -> str | None:
    """What a new connection is told; None where it may be used."""
    with contextlib.closing(Database(server.url())) as database:
        try:
            database.read_now(clock)
        except Misconfigured as error:
            return str(error)
    return None


def correct(server: DatabaseServer, said: str) -> None:
    """Do what the message says, and nothing else."""
    line = LINE.search(said)
    if line:
        server.restart(*server.options, f"--{line[1].replace('_', '-')}={line[2]}")
        return
    server.say(statement_in(said))
    if "restart the server" in said:
        server.restart()


SAFE = {
    "MariaDB's own group commit": (
        "mariadb",
        (),
        "SET GLOBAL innodb_flush_log_at_trx_commit = 3",
    ),
    "a binary log that is synced": ("mariadb", (*BINARY_LOG, "--sync-binlog=1"), ""),
    "files that are opened synchronously": (
        "mariadb",
        ("--innodb-flush-method=O_DSYNC",),
        "",
    ),
    "a local commit where there is no standby": (
        "postgresql",
        (),
        f"{ROLE} = local",
    ),
    "a standby that has written": ("postgresql", (), f"{ROLE} = remote_write; {STANDBY}"),
}


@pytest.mark.parametrize(("kind", "options", "change"), SAFE.values(), ids=SAFE)
def test_a_setting_that_loses_nothing_is_accepted(
    kind: str, options: tuple[str, ...], change: str
) -> None:
    with make_server(kind) as server:
        if options:
            server.restart(*options)
        server.say(change)

        assert refusal(server) is None


TORN = {"mariadb": "--skip-innodb-doublewrite", "postgresql": "--full_page_writes=off"}


def test_pages_may_be_written_once_where_the_administrator_says_that_disks_do_not_tear_them(
    data: Path, server: DatabaseServer
) -> None:
    server.restart(TORN[server.kind])
    config = on(server.url(), db_writes_whole_pages=True)
    with FaultyService(data, config) as service:
        assert refusal(server)
        assert receipt(release(service.instructor()))


MYSQL_8 = {
    "pages that are only recognised as torn": ({"innodb_doublewrite": "DETECT_ONLY"}, False),
    "pages that are repaired": ({"innodb_doublewrite": "DETECT_AND_RECOVER"}, True),
    "no redo log": ({"Innodb_redo_log_enabled": "OFF"}, False),
    "a redo log": ({"Innodb_redo_log_enabled": "ON"}, True),
    "a flush method that is the system's": ({"innodb_flush_method": ""}, True),
    "files of MariaDB 11 that are not synced": ({"innodb_doublewrite": "fast"}, False),
}


@pytest.mark.parametrize(("values", "safe"), MYSQL_8.values(), ids=MYSQL_8)
def test_what_only_servers_say_that_are_not_here(values: dict[str, str], *, safe: bool) -> None:
    assert all(setting.is_safe(values) for setting in MYSQL) == safe


COLUMNS = {
    "names that ignore case": (
        "ALTER TABLE `user` MODIFY name VARCHAR(255) NOT NULL",
        "ALTER TABLE `user` MODIFY name VARBINARY(255) NOT NULL",
        "Column 'name' of table 'user' is varchar(255)",
    ),
    "times without microseconds": (
        "ALTER TABLE event MODIFY at DATETIME NOT NULL",
        "ALTER TABLE event MODIFY at DATETIME(6) NOT NULL",
        "Column 'at' of table 'event' is datetime",
    ),
    "text in utf8mb3": (
        "ALTER TABLE course MODIFY title TEXT CHARACTER SET utf8mb3",
        "ALTER TABLE course MODIFY title TEXT CHARACTER SET utf8mb4",
        "utf8mb3",
    ),
    "text in latin1": (
        "ALTER TABLE course MODIFY title TEXT CHARACTER SET latin1",
        "ALTER TABLE course MODIFY title TEXT CHARACTER SET utf8mb4",
        "latin1",
    ),
}


@pytest.mark.parametrize(("harm", "mend", "words"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_that_does_not_keep_its_values_is_refused_at_the_start(
    data: Path, mariadb: DatabaseServer, harm: str, mend: str, words: str
) -> None:
    with stopping(FaultyService(data, on(mariadb.url()))) as service:
        mariadb.say(harm)
        said = refused_start(service)
        mariadb.say(mend)

        assert said
        assert words in said
        assert starts(service)


DEFAULTS = {
    "letters": ("ALTER DATABASE fresh CHARACTER SET latin1", "character set is latin1"),
    "engine": ("SET GLOBAL default_storage_engine = MyISAM", "engine MyISAM"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "words"), DEFAULTS.values(), ids=DEFAULTS)
def test_new_tables_that_would_lose_are_not_made(
    data: Path, mariadb: DatabaseServer, harm: str, words: str
) -> None:
    mariadb.say("CREATE DATABASE fresh", harm)
    with stopping(FaultyService(data, on(mariadb.url("fresh"), upgrade_db=True))) as service:
        said = refused_start(service)
        assert said
        mariadb.say(statement_in(said))

        assert words in said
        assert starts(service)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_postgresql_that_cannot_hold_every_name_is_refused_at_the_start(
    data: Path, postgresql: DatabaseServer, encoding: str
) -> None:
    postgresql.say(f"CREATE DATABASE narrow ENCODING '{encoding}' TEMPLATE template0")
    with stopping(FaultyService(data, on(postgresql.url("narrow"), upgrade_db=True))) as service:
        said = refused_start(service)
    assert said
    postgresql.say(statement_in(said).replace("...", "wide"))
    with stopping(FaultyService(data, on(postgresql.url("wide"), upgrade_db=True))) as service:
        assert starts(service)

    assert f"encoding is {encoding}" in said


CHANGED = {name: LOSSY[name] for name in ("strict mode off", "a commit that does not wait")}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "harm", "words"), CHANGED.values(), ids=CHANGED)
def test_a_mode_that_changes_later_is_found_by_the_next_connection(
    data: Path, kind: str, harm: str, words: str
) -> None:
    with make_server(kind) as server, FaultyService(data, on(server.url())) as service:
        bob = service.student()
        receipt(release(service.instructor()))
        server.say(harm)
        (refused,) = wait_until(lambda: refusals_on_new_connections(server, bob))
        stored = server.rows("submission")
        server.say(statement_in(str(service.output)))
        wait_until(lambda: submit(bob, key="after").status_code == 201)

        assert refused.status_code in (500, 503)
        assert refused.json()["success"] is False
        assert [row for row in stored if row["idempotency_key"] == "work"] == []
        assert words in str(service.output)


LATER = {name: LOSSY[name] for name in ("commits forgotten", "a table that a crash empties")}


@pytest.mark.parametrize(("kind", "harm", "words"), LATER.values(), ids=LATER)
def test_a_mode_that_changes_later_is_found_by_readyz_on_old_connections(
    data: Path, kind: str, harm: str, words: str
) -> None:
    with make_server(kind) as server, FaultyService(data, on(server.url())) as service:
        wire = service.student()
        assert wire.get("readyz").ok
        server.say(harm)
        wait_until(lambda: wire.get("readyz").status_code == 500)
        server.say(statement_in(str(service.output)))
        wait_until(lambda: wire.get("readyz").ok)

        assert words in str(service.output)


def refusals_on_new_connections(server: DatabaseServer, wire: Wire) -> list[requests.Response]:
    server.throw_out()
    probe = wire.get("assignments", course_id=PS1["course_id"])
    return [] if probe.ok else [submit(wire, key="work")]


# -- addresses


SCHEMES = [
    ("mariadb", "mysql"),
    ("mariadb", "mariadb"),
    ("postgresql", "postgresql"),
    ("postgresql", "postgres"),
]


@pytest.mark.parametrize(("kind", "scheme"), SCHEMES, ids=[scheme for _, scheme in SCHEMES])
def test_an_address_needs_no_name_of_a_driver(data: Path, kind: str, scheme: str) -> None:
    with make_server(kind) as server:
        url = re.sub(r"^[^:]+", scheme, server.url())
        with FaultyService(data, on(url)) as service:
            receipt(release(service.instructor()))


PASSWORD = "canary-of-a-password"


def test_a_wrong_password_is_said_without_the_password(data: Path, server: DatabaseServer) -> None:
    let_in(server, "exchange", "another")
    url = server.url().replace(f"{server.administrator}@", f"exchange:{PASSWORD}@")
    with stopping(FaultyService(data, on(url))) as service:
        said = refused_start(service)

    assert said
    assert "exchange" in said
    assert re.search("denied|authentication failed", said)
    assert PASSWORD not in said


def let_in(server: DatabaseServer, name: str, password: str) -> None:
    if server.kind == "mariadb":
        server.say(f"CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY '{password}'")
        return
    server.say(f"CREATE USER {name} PASSWORD '{password}'")
    rules = server.files / "pg_hba.conf"
    rules.write_text(f"host all {name} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    server.say("SELECT pg_reload_conf()")


def test_a_database_that_is_not_there_is_said_without_the_password(
    data: Path, server: DatabaseServer
) -> None:
    let_in(server, "exchange", PASSWORD)
    url = server.url("absent").replace(f"{server.administrator}@", f"exchange:{PASSWORD}@")
    with stopping(FaultyService(data, on(url))) as service:
        said = refused_start(service)

    assert said
    assert "absent" in said
    assert PASSWORD not in said


# -- one clock


@pytest.mark.slow
def test_services_whose_clocks_differ_keep_the_order_and_the_databases_time(
    data: Path, server: DatabaseServer
) -> None:
    library = faketime_library()
    skews = ("+300", "-300")
    with contextlib.ExitStack() as stack:
        services = [
            stack.enter_context(ServiceProcess(data, on(server.url()), env=skewed(library, skew)))
            for skew in skews
        ]
        token = services[0].enrol("bob", {"physics": "Student"})
        receipt(release(services[0].instructor()))
        wires = [service.wire(token) for service in services]
        given = [
            receipt(submit(wires[number % 2], key=str(number)))["timestamp"]
            for number in range(6 * TRIALS)
        ]
        dates = [wire.get("healthz").headers["Date"] for wire in wires]
        assert all(wire.get("readyz").ok for wire in wires)
        skew = "nbexchange_database_clock_skew_seconds"
        told = [Numbers(service).get(skew) for service in services]
        said = [str(service.output) for service in services]
        listed = [
            record["timestamp"] for record in wires[0].get("collections", **PS1).json()["value"]
        ]

    now = datetime.datetime.now(datetime.UTC)
    assert dates[0] != dates[1], "the clocks did not differ"
    assert [round(seconds / 100) for seconds in told] == [-3, 3]
    for word, words in zip(("behind", "ahead of"), said, strict=True):
        assert f" s {word} this machine's" in words
    assert given == sorted(set(given))
    assert listed == given[::-1]
    for timestamp in given:
        official = datetime.datetime.fromisoformat(timestamp.replace(" UTC", "+00:00"))
        assert abs(official - now) < datetime.timedelta(seconds=120)


def faketime_library() -> Path:
    needs("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        missing("there is no libfaketimeMT.so.1")
    assert library
    return library


def skewed(library: Path, seconds: str) -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds}s", "DONT_FAKE_MONOTONIC": "1"}
