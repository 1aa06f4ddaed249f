"""What is left when something breaks at the worst moment: killed at every step, and under load.

`NBEXCHANGE_FAULT_TRIALS` times ten is how often the service is killed under load (10); what was
found goes to the file that `NBEXCHANGE_FAULT_REPORT` names.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from nbexchange.storage.disk import DiskStorage
from tests.support import course
from tests.support.archives import sha256, tar_gz, upload_headers
from tests.support.course import PS1, collect, give_feedback, receipt, release, rows, submit
from tests.support.crowd import UPLOADERS, Crowd, account, whole
from tests.support.faults_report import TRIALS, report
from tests.support.numbers import Numbers
from tests.support.parts import needs
from tests.support.process import (
    FaultyService,
    ServiceProcess,
    small_disk,
    wait_until,
)
from tests.support.proxy import Proxy
from tests.support.raw import RawConnection
from tests.support.service import Wire
from tests.support.stores import s3_server

KILLS = 10 * TRIALS
MOST_STEPS = 100

Send = Callable[[bytes, str, str], requests.Response]
"""Sends bytes under a key with a fault."""


@pytest.fixture
def faulty(data: Path) -> Iterator[FaultyService]:
    """Whatever is done to it, every row has its bytes in the end."""
    with FaultyService(data) as service:
        yield service
        code, said = service.run_command("check")
        assert code == 0, said


class Verbs:
    """The three uploads of a course with one release and one submission."""

    def __init__(self, service: FaultyService) -> None:
        self.service = service
        receipt(release(self.ada))
        self.submission_id = receipt(submit(self.bob, key="before"))["submission_id"]

    # The service has another address after each start.
    @property
    def ada(self) -> Wire:
        return self.service.instructor()

    @property
    def bob(self) -> Wire:
        return self.service.student()

    def release(self, body: bytes, key: str, **headers: str) -> requests.Response:
        return release(self.ada, body, key, **headers)

    def submission(self, body: bytes, key: str, **headers: str) -> requests.Response:
        return submit(self.bob, body, key, **headers)

    def feedback(self, body: bytes, key: str, **headers: str) -> requests.Response:
        return give_feedback(self.ada, self.submission_id, body, key, **headers)

    def body(self, verb: str, number: int) -> bytes:
        text = f"work {number}".encode()
        return text if verb == "feedback" else tar_gz(p1=text)

    def read_back(self, verb: str, given: dict[str, Any]) -> str:
        """The sha256 of what a receipt is for, through the front door."""
        if verb == "submission":
            return sha256(collect(self.ada, given["submission_id"]).content)
        table = {row["sha256"]: row["key"] for row in rows(self.service, verb)}
        key = table[given["sha256"]]
        return sha256(self.service.content(key))


VERBS = ("submission", "release", "feedback")


# -- killed


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_step_a_retry_gives_exactly_one_result(
    faulty: FaultyService, verb: str
) -> None:
    verbs = Verbs(faulty)
    before = len(rows(faulty, verb))
    receipts = []

    for step in range(1, MOST_STEPS):
        body, key = verbs.body(verb, step), f"key-{step}"
        survived = send_and_die(faulty, getattr(verbs, verb), body, key, step)
        course.assert_every_row_has_its_bytes(faulty)
        receipts.append(receipt(getattr(verbs, verb)(body, key)))
        if survived:
            break

    assert survived
    assert step > 8, "the fail points do not work"
    assert len(rows(faulty, verb)) == before + step
    for number, given in enumerate(receipts, 1):
        assert given["sha256"] == sha256(verbs.body(verb, number)) == verbs.read_back(verb, given)
    assert collect(verbs.bob, verbs.submission_id).content == course.WORK
    assert_gc_leaves_what_rows_own(faulty)
    report(fault=f"killed at every step of a {verb}", trials=step, acknowledged=len(receipts))


def send_and_die(
    service: FaultyService, send: Callable[..., requests.Response], body: bytes, key: str, step: int
) -> bool:
    """Send with a kill at the step; start again if it came. True if there was no such step."""
    start = len(service.output.lines)
    with contextlib.suppress(requests.ConnectionError):
        send(body, key, Fault=f"kill {step}")
    if service.after_fault(start) is not None:
        return True
    assert service.wait() == 9
    service.start()
    return False


def assert_gc_leaves_what_rows_own(service: FaultyService) -> None:
    code, said = service.run_command("gc", "--older-than=0", "--delete")
    assert code == 0, said
    assert {path.name for path in service.files()} == set(course.blobs(service))
    course.assert_every_row_has_its_bytes(service)


@pytest.mark.slow
def test_killed_again_and_again_under_load_nothing_acknowledged_is_lost(
    faulty: FaultyService,
) -> None:
    receipt(release(faulty.instructor()))
    crowd = Crowd(faulty, sizes=(100, 50_000, 2_000_000))
    recoveries = []

    with crowd.at_work():
        for _ in range(KILLS):
            crowd.wait_for(random.randint(1, 2 * UPLOADERS), of=crowd.receipts)
            # Not always just after an answer: anywhere in what the others are doing.
            threading.Event().wait(random.uniform(0, 0.05))
            faulty.kill()
            course.assert_every_row_has_its_bytes(faulty)
            killed = time.monotonic()
            faulty.start()
            crowd.wait_for(1, of=crowd.receipts)
            recoveries.append(time.monotonic() - killed)
        crowd.wait_for(UPLOADERS, of=crowd.receipts)

    stored = rows(faulty, "submission")
    found = account(faulty, crowd.receipts, stored)
    report(fault="service killed under load", trials=KILLS, recovery=max(recoveries), **found)
    assert found == whole(crowd.receipts)
    # Everybody retried until there was an answer, so nothing else may be there.
    assert len(stored) == len(crowd.receipts)
    assert_gc_leaves_what_rows_own(faulty)


@pytest.mark.parametrize("gone", ["cut off", "unreachable"])
def test_an_object_store_that_is_away_under_load_loses_nothing_acknowledged(
    data: Path, gone: str
) -> None:
    server = s3_server()
    with Proxy(int(server.endpoint.rpartition(":")[2])) as proxy:
        options = server.options(f"http://127.0.0.1:{proxy.port}")
        config = f"c.NbExchange.storage_url = 's3://{server.new_bucket()}/prefix'\n"
        config += f"c.NbExchange.storage_options = {options!r}\n"
        with FaultyService(data, config) as service:
            receipt(release(service.instructor()))
            crowd = Crowd(service)
            with crowd.at_work():
                crowd.wait_for(UPLOADERS, of=crowd.receipts)
                if gone == "cut off":
                    for _ in range(20 * TRIALS):
                        crowd.wait_for(1, of=crowd.receipts)
                        proxy.cut()
                else:
                    proxy.refuse()
                    crowd.wait_for(UPLOADERS, of=crowd.refusals)
                    assert service.student().get("readyz").status_code == 503
                    assert service.student().get("healthz").status_code == 200
                    proxy.accept()
                back = time.monotonic()
                crowd.wait_for(1, of=crowd.receipts)
                recovery = time.monotonic() - back
                crowd.wait_for(UPLOADERS, of=crowd.receipts)

            stored = rows(service, "submission")
            found = account(service, crowd.receipts, stored)
            trials = 20 * TRIALS if gone == "cut off" else 1
            report(
                fault=f"object store {gone} under load",
                trials=trials,
                recovery=recovery,
                store="s3",
                **found,
            )
            assert found == whole(crowd.receipts)
            assert len(stored) == len(crowd.receipts)
            assert service.run_command("check")[0] == 0


# -- the operating system says no


@pytest.mark.disk
@pytest.mark.parametrize(("error", "status"), [("EIO", 503), ("ENOSPC", 507), ("EFBIG", 413)])
@pytest.mark.parametrize("verb", VERBS)
def test_an_error_of_any_system_call_is_said_and_leaves_nothing(
    faulty: FaultyService, verb: str, error: str, status: int
) -> None:
    verbs = Verbs(faulty)

    for step in range(1, MOST_STEPS):
        before, body, key = rows(faulty, verb), verbs.body(verb, step), f"key-{step}"
        start = len(faulty.output.lines)
        answer = getattr(verbs, verb)(body, key, Fault=f"{error} {step}")
        steps = faulty.after_fault(start)
        assert steps is not None
        if len(steps) < step:
            break
        assert answer.status_code == status
        assert answer.json()["success"] is False
        assert rows(faulty, verb) == before
        # A second fsync would succeed: the kernel has forgotten the error, and the bytes.
        assert "fsync" not in steps[step:], "fsync was tried again"
        wait_until(lambda: not list((faulty.data / "uploads").iterdir()))
        given = receipt(getattr(verbs, verb)(body, key))
        assert given["sha256"] == verbs.read_back(verb, given)

    assert step > 5, "the fail points do not work"
    assert answer.status_code == 201
    assert verbs.bob.get("readyz").status_code == 200
    assert_gc_leaves_what_rows_own(faulty)
    report(fault=f"{error} at every call of a {verb}", trials=step - 1, acknowledged=step)


@pytest.mark.sqlite
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_an_error_under_the_database_is_never_a_receipt(
    data: Path, tmp_path: Path, call: str, error: str
) -> None:
    """SQLite's own calls, which only the kernel's side can make fail."""
    needs("strace")
    with ServiceProcess(data) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        receipt(submit(bob, key="before"))
        with failing(service.pid, call, error, tmp_path / "trace"):
            answer = submit(bob, tar_gz(p1=b"work"), key="work")
        refused = answer.json()
        given = receipt(submit(bob, tar_gz(p1=b"work"), key="work"))
        retried = collect(ada, given["submission_id"])
        stored = rows(service, "submission")

    assert answer.status_code in (503, 507), refused
    assert retried.content == tar_gz(p1=b"work")
    assert len(stored) == 2
    course.assert_every_row_has_its_bytes(service)


@pytest.mark.parametrize("verb", VERBS)
def test_a_commit_whose_answer_is_lost_keeps_its_bytes_and_a_retry_finds_it(
    faulty: FaultyService, verb: str
) -> None:
    """The first commit is that of the admission, the second that of the row."""
    verbs = Verbs(faulty)
    before, body = len(rows(faulty, verb)), verbs.body(verb, 1)

    answer = getattr(verbs, verb)(body, "key", Fault="lost 2")
    course.assert_every_row_has_its_bytes(faulty)
    stored = len(rows(faulty, verb))
    given = receipt(getattr(verbs, verb)(body, "key"))

    assert answer.status_code == 503
    assert stored == len(rows(faulty, verb)) == before + 1
    assert given["sha256"] == verbs.read_back(verb, given)
    report(fault=f"the answer to a COMMIT lost, {verb}", trials=1, acknowledged=1)


@pytest.mark.disk
@pytest.mark.parametrize("verb", VERBS)
def test_bytes_that_cannot_be_deleted_change_no_answer(faulty: FaultyService, verb: str) -> None:
    """Those of a retry, and those of something else with the same key."""
    verbs = Verbs(faulty)
    before, body, failed = len(rows(faulty, verb)), verbs.body(verb, 1), 0
    receipt(getattr(verbs, verb)(body, "key"))

    for again, status in ((body, 201), (verbs.body(verb, 2), 409)):
        for step in range(1, MOST_STEPS):
            start = len(faulty.output.lines)
            answer = getattr(verbs, verb)(again, "key", Fault=f"EIO {step}")
            steps = faulty.after_fault(start)
            assert steps is not None
            if len(steps) < step:
                break
            if steps[step - 1] == "unlink":
                failed += 1
                assert answer.status_code == status, answer.text

    assert failed >= 2
    assert len(rows(faulty, verb)) == before + 1
    assert_gc_leaves_what_rows_own(faulty)


@contextlib.contextmanager
def failing(pid: int, call: str, error: str, log: Path) -> Iterator[None]:
    """Let every call of that name fail in a running process."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-o", str(log), "-e", f"inject={call}:error={error}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr
    try:
        assert "attached" in tracer.stderr.readline()
        yield
        assert "INJECTED" in log.read_text(), "nothing failed"
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()


# -- the order of things


@pytest.mark.sqlite
def test_bytes_are_durable_before_the_row_and_the_row_before_the_answer(
    data: Path, tmp_path: Path
) -> None:
    strace = needs("strace")
    log = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,pwrite64,write,sendto,sendmsg"
    wrapper = [strace, "-f", "-y", "-s", "2000", "-e", calls, "-o", str(log)]
    with ServiceProcess(data, wrapper=wrapper) as service:
        receipt(release(service.instructor()))
        given = receipt(submit(service.student()))
        (stored,) = rows(service, "submission")
        traced = wait_until(lambda: _with_answer(completed_calls(log), given))

    key, root = stored["key"], re.escape(str(data))
    order = [
        rf"write\(\d+<{root}/uploads/{key}>",
        rf"fsync\(\d+<{root}/uploads/{key}>",
        rf'rename\w*\(.*uploads/{key}".*blobs/{key[:2]}/{key}"',
        rf"fsync\(\d+<{root}/blobs/{key[:2]}>\)",
        rf"pwrite64\(\d+<{root}/nbexchange.sqlite-wal>",
        rf"f(?:data)?sync\(\d+<{root}/nbexchange.sqlite-wal>",
        rf"(?:sendto|sendmsg|write)\(.*{given['submission_id']}",
    ]
    *_, synced, answered = in_order(traced, order)
    late = [line for line in traced[synced + 1 : answered] if re.search(order[-3], line)]
    assert not late, "something was written after the sync and before the answer"


def _with_answer(calls: list[str], given: dict[str, Any]) -> list[str]:
    """All of them, as soon as the answer is among them; strace may be late."""
    return calls if any(given["submission_id"] in call for call in calls) else []


def completed_calls(log: Path) -> list[str]:
    """Calls in the order in which they ended; strace tells in two lines of those that took time."""
    calls, begun = [], {}
    for line in log.read_text().splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix(" <unfinished ...>").strip()
        elif "resumed>" in call:
            calls.append(begun.pop(thread) + call.partition("resumed>")[2])
        else:
            calls.append(call.strip())
    return calls


def in_order(lines: list[str], patterns: list[str]) -> list[int]:
    """For each pattern the first line after that of the pattern before."""
    found, position = [], -1
    for pattern in patterns:
        hits = (
            number
            for number in range(position + 1, len(lines))
            if re.search(pattern, lines[number])
        )
        position = next(hits, -1)
        assert position >= 0, f"{pattern} never came after line {found}"
        found.append(position)
    return found


@pytest.mark.disk
def test_the_directories_of_the_store_are_durable_before_the_first_upload(
    data: Path, tmp_path: Path
) -> None:
    strace = needs("strace")
    log = tmp_path / "trace"
    wrapper = [strace, "-f", "-y", "-e", "trace=mkdir,mkdirat,fsync", "-o", str(log)]
    with ServiceProcess(data, wrapper=wrapper) as service:
        traced = log.read_text()
        receipt(release(service.instructor()))

    assert service.files()
    last = traced.rindex(str(data / "blobs" / "ff"))
    for directory in (data / "blobs", data):
        assert f"<{directory}>)" in traced[last:]


# -- disks that are not mounted


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@contextlib.contextmanager
def a_service_with_its_database_elsewhere(disk: Path) -> Iterator[FaultyService]:
    """And with a limit for the room on its disk."""
    config = f'c.NbExchange.db_url = "sqlite:///{disk.parent}/nbexchange.sqlite"\n'
    with FaultyService(disk, config) as service:
        yield service


@contextlib.contextmanager
def not_mounted(disk: Path) -> Iterator[None]:
    """All that a disk leaves is an empty directory, until it comes back over it."""
    disk.rename(disk.with_name("away"))
    disk.mkdir()
    yield
    shutil.rmtree(disk, ignore_errors=True)
    disk.with_name("away").rename(disk)


IN_ITS_PLACE = {
    "nothing": lambda disk: disk.rmdir(),
    "an empty directory": lambda disk: None,
    "what an earlier start made there": lambda disk: DiskStorage(disk).close(),
}

NOT_MOUNTED = re.compile(
    r"the database knows 2 files, and there is not one in .*is its disk mounted"
)


@pytest.mark.disk
@pytest.mark.parametrize("prepare", IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)
def test_a_store_that_is_not_mounted_is_refused_at_the_start_and_nothing_is_made_there(
    disk: Path, prepare: Callable[[Path], None]
) -> None:
    with a_service_with_its_database_elsewhere(disk) as service:
        receipt(release(service.instructor()))
        given = receipt(submit(service.student()))
        service.kill()
        with not_mounted(disk):
            prepare(disk)
            before = disk.exists(), sorted(disk.rglob("*"))
            with pytest.raises(AssertionError, match=NOT_MOUNTED) as said:
                service.start()
            status = service.wait()
            after = disk.exists(), sorted(disk.rglob("*"))
        service.start()

        assert status == 1
        assert "Traceback" not in str(said.value)
        assert after == before
        assert collect(service.instructor(), given["submission_id"]).content == course.WORK


@pytest.mark.disk
@pytest.mark.parametrize(
    "command",
    [
        ("check",),
        ("gc", "--delete", "--older-than=0"),
        ("purge", "--course=physics"),
    ],
    ids=lambda command: command[0],
)
def test_no_command_takes_a_store_that_is_not_mounted_for_an_empty_one(
    disk: Path, command: tuple[str, ...]
) -> None:
    with a_service_with_its_database_elsewhere(disk) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student()))
        with not_mounted(disk):
            code, said = service.run_command(*command)
            found = list(disk.iterdir())

        assert code == 1
        assert NOT_MOUNTED.search(said), said
        assert "Traceback" not in said
        assert found == []


@pytest.mark.disk
def test_where_all_files_are_lost_the_service_goes_on_once_its_operator_says_so(
    disk: Path,
) -> None:
    with a_service_with_its_database_elsewhere(disk) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(), key="lost"))
        service.kill()
        shutil.rmtree(disk)
        disk.mkdir()
        (disk / "all-files-are-lost").touch()
        service.start()

        _, said = service.run_command("check")
        assert "2 files checked, 2 missing or corrupt" in said
        assert receipt(release(service.instructor(), key="again"))
        given = receipt(submit(service.student(), key="again"))
        assert collect(service.instructor(), given["submission_id"]).content == course.WORK


WHILE_IT_RUNS = {name: IN_ITS_PLACE[name] for name in ("nothing", "an empty directory")}


@pytest.mark.disk
@pytest.mark.parametrize("prepare", WHILE_IT_RUNS.values(), ids=WHILE_IT_RUNS)
def test_a_store_that_goes_away_is_a_503_and_no_damage_and_heals(
    disk: Path, prepare: Callable[[Path], None]
) -> None:
    with a_service_with_its_database_elsewhere(disk) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        given = receipt(submit(bob, key="before"))
        with not_mounted(disk):
            prepare(disk)
            refused = {
                "submit": submit(bob, key="while"),
                "fetch": bob.get("assignment", **PS1),
                "collect": collect(ada, given["submission_id"]),
                "readyz": bob.get("readyz"),
            }
        receipt(submit(bob, key="while"))
        wait_until(lambda: bob.get("readyz").ok)

        for name, answer in refused.items():
            assert answer.status_code == 503, (name, answer.text)
            assert "store is unavailable" in answer.json()["note"]
            assert int(answer.headers["Retry-After"]) > 0
        assert collect(ada, given["submission_id"]).content == course.WORK
        assert "Traceback" not in str(service.output)
        assert "is not what was stored" not in str(service.output)


# -- disks that are full


@pytest.mark.disk
def test_a_full_store_says_507_and_recovers_when_space_returns(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk, a_service_with_its_store_on(disk) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        kept = receipt(submit(bob, key="kept"))
        work = tar_gz(p1=os.urandom(3_000_000))
        (disk / "ballast").write_bytes(bytes(6_000_000))

        full = submit(bob, work, key="large")
        with (disk / "more").open("wb", buffering=0) as more:
            meanwhile = collect(ada, kept["submission_id"])
            ready = wait_until(lambda: readyz_without_room(service, more), "no room is found")
            warnings = bob.get("readyz").json()["warnings"]
        for name in ("ballast", "more"):
            (disk / name).unlink()
        given = receipt(submit(bob, work, key="large"))

        assert full.status_code == 507
        assert full.json()["success"] is False
        assert "full" in full.json()["note"]
        assert meanwhile.content == course.WORK
        assert ready == 200, "those who read were sent away"
        assert "The store is full" in " ".join(warnings)
        wait_until(lambda: bob.get("readyz").json()["warnings"] == [])
        assert collect(ada, given["submission_id"]).content == work
        report(fault="store's disk full", trials=1, acknowledged=2)


def readyz_without_room(service: FaultyService, ballast: Any) -> int | None:
    """The status of readyz once the metrics know that there is no room. An answer counts for two
    seconds, and what is left of a refused upload gives its room back when it is closed."""
    fill(ballast)
    status = service.student().get("readyz").status_code
    return status if Numbers(service).get("nbexchange_storage_full") == 1 else None


@contextlib.contextmanager
def a_service_with_its_store_on(disk: Path) -> Iterator[FaultyService]:
    """The database stays where there is room."""
    database = disk.parent / "nbexchange.sqlite"
    config = f'c.NbExchange.db_url = "sqlite:///{database}"\nc.NbExchange.min_free_space = 0\n'
    with FaultyService(disk, config) as service:
        yield service


def test_a_full_disk_under_the_database_says_507_and_keeps_what_was_acknowledged(
    tmp_path: Path,
) -> None:
    store = tmp_path / "data"
    with small_disk(tmp_path / "disk", "2m") as disk:
        url = f"sqlite:///{disk}/nbexchange.sqlite"
        # Otherwise there would be no way to come so far.
        config = f"c.NbExchange.db_url = {url!r}\nc.NbExchange.min_free_space = 0\n"
        with FaultyService(store, config) as service:
            ada, bob = service.instructor(), service.student()
            receipt(release(ada))
            kept = receipt(submit(bob, key="kept"))
            with open(disk / "ballast", "wb", buffering=0) as ballast:
                fill(ballast)
            full = submit_until_full(bob)
            meanwhile = submit(bob, key="kept"), ada.get("collections", **PS1)
            (disk / "ballast").unlink()
            given = receipt(submit(bob, tar_gz(p1=b"after"), key="after"))
            listed = course.submissions(ada)
            whole = [collect(ada, record["submission_id"]).ok for record in listed]

    assert full.status_code == 507
    assert "full" in full.json()["note"]
    assert meanwhile[0].status_code in (201, 507)
    assert meanwhile[1].ok
    assert {kept["submission_id"], given["submission_id"]} <= {
        record["submission_id"] for record in listed
    }
    assert all(whole)


def fill(ballast: Any) -> None:
    with contextlib.suppress(OSError):
        while ballast.write(bytes(4096)):
            pass


def submit_until_full(wire: Wire) -> requests.Response:
    # The log may have some room left from earlier transactions.
    for number in range(1000):
        answer = submit(wire, tar_gz(p1=str(number).encode()), key=f"n{number}")
        if answer.status_code != 201:
            return answer
    raise AssertionError("never full")


# -- the database is away


@pytest.mark.sqlite
def test_a_locked_database_is_a_503_and_heals(data: Path) -> None:
    config = 'c.NbExchange.db_kwargs = {"connect_args": {"timeout": 0.2}}\n'
    with FaultyService(data, config) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        with locked(data / "nbexchange.sqlite"):
            away = submit(bob, key="work")
            alive = bob.get("healthz")
        given = receipt(submit(bob, key="work"))
        collected = collect(ada, given["submission_id"])

        assert away.status_code == 503
        assert int(away.headers["Retry-After"]) > 0
        assert away.json()["success"] is False
        assert alive.status_code == 200
        assert collected.content == course.WORK
        assert len(rows(service, "submission")) == 1


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    other = sqlite3.connect(file, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
    finally:
        other.close()


@pytest.mark.sqlite
def test_a_database_that_is_only_busy_for_a_moment_is_waited_for(faulty: FaultyService) -> None:
    ada, bob = faulty.instructor(), faulty.student()
    receipt(release(ada))
    answers: list[requests.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(submit(bob, key="work")))

    with locked(faulty.data / "nbexchange.sqlite"):
        waiting.start()
        # The bytes are stored before the row is asked for, so by now it waits.
        wait_until(lambda: len(faulty.files()) == 2)
        assert not answers
    waiting.join()

    assert receipt(answers[0])["sha256"] == sha256(course.WORK)


# -- the end


@contextlib.contextmanager
def half_an_upload(service: FaultyService, body: bytes) -> Iterator[RawConnection]:
    """The other half, from the first million bytes on, is the test's to send."""
    receipt(release(service.instructor()))
    token = service.enrol("bob", {"physics": "Student"})
    with RawConnection(service.url, token) as connection:
        headers = upload_headers(body, "key", **{"Content-Length": str(len(body))})
        head = connection.head("POST", "submission", headers, **PS1)
        connection.send(head, body[:1_000_000])
        wait_until(lambda: course.uploads_in_flight(service.student()) == 1)
        yield connection


def test_sigterm_ends_an_upload_that_takes_too_long_and_leaves_nothing(data: Path) -> None:
    with FaultyService(data, "c.NbExchange.stop_grace = 0.2\n") as service:
        with half_an_upload(service, bytes(2_000_000)) as connection:
            service.terminate()
            assert connection.is_closed()

        assert service.wait() == 0
        assert "Traceback" not in str(service.output)
        service.start()
        assert [path for path in service.files() if "uploads" in path.parts] == []
        assert submissions_of(service) == []
        assert service.run_command("check")[0] == 0


def test_sigterm_waits_for_an_upload_that_is_under_way(faulty: FaultyService) -> None:
    body = tar_gz(p1=os.urandom(1_500_000))
    with half_an_upload(faulty, body) as connection:
        faulty.terminate()
        faulty.output.wait_for("stopping")
        connection.send(body[1_000_000:])
        answer = connection.answer()

    assert answer.status == 201
    assert faulty.wait() == 0
    faulty.start()
    (listed,) = submissions_of(faulty)
    assert listed["submission_id"] == answer.json()["submission_id"]


def test_sigterm_waits_for_an_upload_that_begins_on_a_connection_that_was_kept(
    faulty: FaultyService,
) -> None:
    body = tar_gz(p1=os.urandom(1_500_000))
    with (
        half_an_upload(faulty, body) as first,
        RawConnection(faulty.url, faulty.enrol("carl", {"physics": "Student"})) as kept,
    ):
        kept.send(kept.head("GET", "assignments"))
        assert kept.answer().status == 200
        faulty.terminate()
        faulty.output.wait_for("stopping")
        headers = upload_headers(body, "later", **{"Content-Length": str(len(body))})
        kept.send(kept.head("POST", "submission", headers, **PS1), body[:1_000_000])
        first.send(body[1_000_000:])
        one = first.answer()
        kept.send(body[1_000_000:])
        other = kept.answer()

    assert (one.status, other.status) == (201, 201)
    assert other.headers["Connection"] == "close"
    assert faulty.wait() == 0


def test_readyz_goes_down_before_anything_else_does(data: Path) -> None:
    with FaultyService(data, "c.NbExchange.stop_delay = 600\n") as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada))
        assert bob.get("readyz").status_code == 200

        service.terminate()

        wait_until(lambda: bob.get("readyz").status_code == 503)
        assert "another" in bob.get("readyz").json()["note"]
        assert service.wire(None).get("healthz").status_code == 200
        receipt(submit(bob))


def submissions_of(service: FaultyService) -> list[dict[str, Any]]:
    return course.submissions(service.instructor())


@pytest.mark.sqlite
def test_sigterm_while_a_submission_waits_for_its_row_still_gives_the_receipt(
    faulty: FaultyService,
) -> None:
    bob = faulty.student()
    receipt(release(faulty.instructor()))
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(receipt(submit(bob, key="work"))))

    with locked(faulty.data / "nbexchange.sqlite"):
        waiting.start()
        wait_until(lambda: len(faulty.files()) == 2)
        start = len(faulty.output.lines)
        faulty.terminate()
        faulty.output.wait_for("stopping", start)
    waiting.join()

    assert faulty.wait() == 0
    faulty.start()
    (listed,) = submissions_of(faulty)
    assert answers[0]["submission_id"] == listed["submission_id"]


@pytest.mark.sqlite
def test_sigterm_while_a_hidden_assignment_is_erased_waits_for_its_files(data: Path) -> None:
    with FaultyService(data, "c.NbExchange.purge_grace = 0\n") as service:
        ada = service.instructor()
        receipt(release(ada))
        receipt(submit(service.student()))
        course.purge(ada)
        with locked(data / "nbexchange.sqlite"):
            start = len(service.output.lines)
            wait_until(lambda: "database_pool_in_use 1.0" in course.metrics(service.wire(None)))
            service.terminate()
            service.output.wait_for("stopping", start)

        assert service.wait() == 0
        assert service.files() == []


def test_sigterm_does_not_wait_for_uploads_that_are_over(data: Path) -> None:
    with FaultyService(data, "c.NbExchange.stop_grace = 600\n") as service:
        with half_an_upload(service, bytes(2_000_000)) as cut:
            cut.reset()
        bob = service.student()
        receipt(submit(bob))
        assert bob.get("assignment", **PS1).ok
        wait_until(lambda: course.uploads_in_flight(bob) == 0)

        service.terminate()

        assert service.wait() == 0


def test_sigterm_does_not_wait_for_connections_that_are_only_kept(faulty: FaultyService) -> None:
    idle = faulty.student()
    assert idle.get("healthz").ok

    faulty.terminate()

    assert faulty.wait() == 0
