"""What operators can count, and that nobody else learns anything from it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests
from sqlalchemy import make_url

from nbexchange import __version__
from nbexchange.database import Database
from nbexchange.exchange.policy import Verb
from nbexchange.handlers import ROUTES
from nbexchange.server.metrics import SECONDS, Metrics
from nbexchange.server.readiness import READY_SECONDS, Readiness, SharedCall
from nbexchange.storage import CHUNK, DiskSpace
from nbexchange.storage.disk import DiskStorage
from tests.support import databases, places
from tests.support.archives import tar_gz, upload_headers
from tests.support.canaries import ORGANISATION, every_verb
from tests.support.course import PS1, WORK, receipt, release, submit
from tests.support.numbers import Numbers
from tests.support.parts import PATIENCE
from tests.support.process import ServiceProcess, wait_until
from tests.support.proxy import Proxy
from tests.support.raw import RawConnection
from tests.support.service import Service, Wire, configured
from tests.test_faults import locked

DOCUMENT = Path(__file__).parent.parent / "docs" / "monitoring.md"


# -- verbs


def test_every_verb_is_counted_once_for_its_organisation_and_no_name_is_told(service: Service):
    every_verb(service)

    numbers = Numbers(service)
    done = numbers.all("nbexchange_verbs_total", organisation=str(ORGANISATION))
    assert done == {(verb.name.lower(),): 1 for verb in Verb}
    assert numbers.get("nbexchange_verbs_total") == len(Verb)
    assert "canary" not in numbers.page


def test_what_was_refused_is_counted_by_its_reason_and_is_no_verb_done(service: Service):
    release(service.student())
    submit(service.student())  # of nothing that was released
    service.wire("nobody").get("assignments")
    service.student().post("submission", b"no archive", **PS1)

    numbers = Numbers(service)
    assert numbers.all("nbexchange_verbs_total") == {}
    refusals = numbers.all("nbexchange_refusals_total")
    assert {reason: times for reason, times in refusals.items() if times} == {
        ("Forbidden",): 1,
        ("NotFound",): 2,
        ("Unauthenticated",): 1,
    }
    assert numbers.all("nbexchange_requests_total", handler="Submission") == {("POST", "404"): 2}


def test_a_download_that_is_resumed_is_one_fetch(service: Service):
    receipt(release(service.instructor()))
    bob = service.student()
    assert bob.get("assignment", {"Range": "bytes=0-9"}, **PS1).status_code == 206
    assert bob.get("assignment", {"Range": "bytes=10-"}, **PS1).status_code == 206

    wait_until(lambda: Numbers(service).get("nbexchange_verbs_total", verb="fetch") == 1)
    numbers = Numbers(service)
    assert numbers.get("nbexchange_download_bytes_total") == len(WORK)
    assert numbers.get("nbexchange_upload_bytes_total") == len(WORK)


def spoilt(file: Path) -> None:
    with file.open("r+b") as content:
        content.seek(-1, os.SEEK_END)
        content.write(b"?")


def test_a_damaged_file_is_counted_also_where_half_of_it_was_sent(service: Service):
    """The alert NbExchangeDamaged looks at this."""
    ada, bob = service.instructor(), service.student()
    receipt(release(ada))
    before = {*service.files()}
    receipt(submit(bob, tar_gz(p1=os.urandom(3 * CHUNK))))
    (stored,) = {*service.files()} - before
    places.harm(service.data, stored.name, spoilt)

    given = ada.get("collections", **PS1).json()["value"][0]["path"]
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        ada.get("collection", **PS1, path=given)

    wait_until(lambda: Numbers(service).get("nbexchange_refusals_total", reason="Damaged") == 1)
    assert Numbers(service).get("nbexchange_verbs_total", verb="collect") == 0


def test_organisations_that_come_late_share_a_label(data: Path):
    with configured(data, metrics_organisations=2) as service:
        for org_id in (7, 8, 9, 10, 7, 10):
            assert service.student(org_id=org_id).get("assignments").ok

        done = Numbers(service).all("nbexchange_verbs_total", verb="list")

    assert done == {("7",): 2, ("8",): 1, ("other",): 3}


# -- requests


def test_an_upload_whose_sender_goes_away_is_counted_as_broken_off(service: Service):
    receipt(release(service.instructor()))
    url, token = service.url, service.enrol("bob", {"physics": "Student"})
    with RawConnection(url, token) as connection:
        headers = upload_headers(WORK) | {"Content-Length": str(len(WORK))}
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK[:9])
        wait_until(lambda: Numbers(service).get("nbexchange_uploads_in_flight") == 1)
        connection.reset()

    wait_until(lambda: Numbers(service).get("nbexchange_requests_total", status="499") == 1)
    numbers = Numbers(service)
    assert numbers.get("nbexchange_refusals_total", reason="BrokenOff") == 1
    assert numbers.get("nbexchange_requests_total", handler="Submission") == 1
    assert numbers.get("nbexchange_verbs_total", verb="submit") == 0


def test_what_a_client_makes_up_makes_no_series(service: Service):
    wire = service.wire(None)
    for method in ("BREW", "PATCH", "x" * 500):
        for path in ("assignments", "canary/x", "canary/y"):
            wire.request(method, path)

    numbers = Numbers(service)
    assert numbers.all("nbexchange_requests_total") == {
        ("Assignments", "other", "405"): 3,
        ("NothingHere", "other", "404"): 2,
        ("NothingHere", "other", "405"): 4,
    }
    assert "canary" not in numbers.page


def test_times_of_requests_are_told_from_milliseconds_to_a_minute(service: Service):
    assert service.wire(None).get("").ok

    told = Numbers(service).all("nbexchange_request_seconds_bucket", handler="Home", method="GET")
    assert [float(bound) for (bound,) in told] == [*SECONDS, float("inf")]
    assert (SECONDS[0], SECONDS[-1]) == (0.005, 60)
    assert told["+Inf",] == 1


# -- parts


def test_what_runs_is_told(service: Service):
    ((version, python, database, store),) = [
        tuple(sample.labels[name] for name in ("version", "python", "database", "store"))
        for sample in Numbers(service).samples
        if sample.name == "nbexchange_build_info"
    ]

    assert version == __version__
    assert python.startswith("3.")
    assert database == make_url(databases.database_of(service.data)).get_backend_name()
    assert store == {"disk": "disk", "s3": "objects"}[places.KIND]


def test_the_process_is_told_of(service: Service):
    numbers = Numbers(service)

    assert numbers.get("process_start_time_seconds") < time.time()
    assert numbers.get("process_resident_memory_bytes") > 1e7
    assert numbers.get("python_info") == 1
    assert numbers.all("python_gc_collections_total").keys() == {("0",), ("1",), ("2",)}


def with_room(service: Service) -> Numbers:
    """A page that tells of the disk; one that was slow to say is left out."""

    def page() -> Numbers | None:
        numbers = Numbers(service)
        return numbers if numbers.all("nbexchange_storage_size_bytes") else None

    found: Numbers = wait_until(page)
    return found


def test_the_room_on_the_disk_is_told(service: Service):
    numbers = with_room(service)
    usage = shutil.disk_usage(service.data)

    place = {"disk": "files", "s3": "spool"}[places.KIND]
    assert numbers.all("nbexchange_storage_size_bytes") == {(place,): usage.total}
    assert 0 < numbers.get("nbexchange_storage_free_bytes") <= usage.total


@pytest.mark.disk
def test_the_oldest_unfinished_upload_is_told(data: Path, empty_database: Path):
    with Service(data) as service:
        uploads = data / "uploads"
        for name, age in (("new", 0), ("old", 90_000), ("middle", 500)):
            (uploads / name).write_bytes(b"half of it")
            os.utime(uploads / name, (time.time() - age,) * 2)

        found = Numbers(service).get("nbexchange_litter_oldest_seconds")
        for name in ("new", "old", "middle"):
            (uploads / name).unlink()

        assert 90_000 <= found < 91_000
        wait_until(lambda: Numbers(service).get("nbexchange_litter_oldest_seconds") == 0)


@pytest.mark.sqlite
def test_requests_that_wait_for_the_database_are_counted(service: Service):
    receipt(release(service.instructor()))
    with locked(service.data / "nbexchange.sqlite"):
        waiting = [
            threading.Thread(target=submit, args=(service.student(name=f"student-{number}"),))
            for number in range(3)
        ]
        for thread in waiting:
            thread.start()
        # One has the only thread that writes.
        wait_until(lambda: Numbers(service).get("nbexchange_database_waiting", kind="write") == 2)
        busy = Numbers(service)
    for thread in waiting:
        thread.join(PATIENCE)

    assert busy.get("nbexchange_database_pool_in_use") == 1
    assert busy.get("nbexchange_database_pool_size") == 10
    numbers = Numbers(service)
    assert numbers.get("nbexchange_database_waiting") == 0
    assert numbers.get("nbexchange_database_pool_in_use") == 0
    assert numbers.get("nbexchange_verbs_total", verb="submit") == 3


def test_a_loop_that_stood_still_is_told_of(service: Service):
    def stood_still() -> bool:
        numbers = Numbers(service)
        total = numbers.get("nbexchange_loop_wait_seconds_count")
        return total > numbers.get("nbexchange_loop_wait_seconds_bucket", le="0.1")

    wait_until(lambda: Numbers(service).get("nbexchange_loop_wait_seconds_count") > 0)

    service._loop.call_soon_threadsafe(time.sleep, 0.3)

    wait_until(stood_still)


class Stuck(DiskStorage):
    """A disk that says nothing."""

    async def disk_space(self) -> DiskSpace:
        return await asyncio.get_running_loop().create_future()


def test_the_page_comes_without_the_room_of_a_disk_that_says_nothing(tmp_path: Path):
    async def page() -> str:
        database = Database(f"sqlite:///{tmp_path}/x.sqlite")
        storage = Stuck(tmp_path)
        try:
            metrics = Metrics(database, storage, Readiness(database, storage, lambda: None))
            async with asyncio.timeout(PATIENCE):
                return (await metrics.page()).decode()
        finally:
            storage.close()
            database.close()

    text = asyncio.run(page())

    assert "nbexchange_build_info" in text
    assert "nbexchange_storage" not in text
    assert "nbexchange_litter" not in text


# -- readiness


def test_before_anybody_asked_readyz_nothing_is_said_of_it(service: Service):
    before = Numbers(service)
    assert service.wire(None).get("readyz").ok
    after = Numbers(service)

    assert before.all("nbexchange_ready") == {}
    assert before.all("nbexchange_database_schema") == {}
    assert before.all("nbexchange_database_clock_skew_seconds") == {}
    assert after.all("nbexchange_database_clock_skew_seconds") == {(): 0}
    assert after.all("nbexchange_ready") == {(): 1}
    assert [
        state for (state,), is_so in after.all("nbexchange_database_schema").items() if is_so
    ] == ["current"]


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_the_numbers_come_while_the_database_is_away(data: Path, kind: str):
    url = databases.create(kind, data)
    try:
        with Proxy(make_url(databases.server(kind).url).port or 0) as proxy:
            through = make_url(url).set(port=proxy.port).render_as_string(hide_password=False)
            with configured(data, db_url=through, upgrade_db=True) as service:
                assert service.wire(None).get("readyz").ok
                proxy.refuse()
                wait_until(lambda: service.wire(None).get("readyz").status_code == 503)
                away = Numbers(service)
                proxy.accept()
                wait_until(lambda: service.wire(None).get("readyz").ok)
                back = Numbers(service)
    finally:
        databases.drop(url)

    assert (away.get("nbexchange_ready"), back.get("nbexchange_ready")) == (0, 1)
    # The schema is the last that could be read.
    assert away.get("nbexchange_database_schema", state="current") == 1
    assert away.get("nbexchange_database_pool_size") == 16
    assert away.get("nbexchange_storage_free_bytes") > 0


@pytest.mark.sqlite
def test_readyz_asks_no_more_often_however_often_it_is_asked(data: Path):
    with ServiceProcess(data, "c.NbExchange.debug_db = True\n") as service:
        start = time.monotonic()
        askers = [
            threading.Thread(target=ask_readyz, args=(service.wire(None), 25)) for _ in range(4)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(PATIENCE)
        spans = 1 + (time.monotonic() - start) // READY_SECONDS

        said = str(service.output)

    asked = len(re.findall(r"SELECT alembic_version\.version_num", said))
    assert 1 <= asked <= 1 + spans  # and once at the start


def ask_readyz(wire: Wire, times: int) -> None:
    for _ in range(times):
        assert wire.get("readyz").ok


class Asked:
    """Counts how often it is asked, and answers when it may."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.times = 0
        self.failure = failure

    async def __call__(self) -> int:
        self.times += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return self.times


def test_those_who_ask_at_once_get_one_answer():
    async def ask() -> tuple[list[int], int]:
        lately = SharedCall(Asked(), 0)
        return await asyncio.gather(*[lately.get() for _ in range(9)]), await lately.get()

    assert asyncio.run(ask()) == ([1] * 9, 2)


def test_an_error_counts_for_as_long_as_an_answer():
    async def ask() -> tuple[list[Any], int]:
        asked = Asked(ValueError("away"))
        lately = SharedCall(asked, 600)
        errors = [(await asyncio.gather(lately.get(), return_exceptions=True))[0] for _ in "abc"]
        return errors, asked.times

    errors, times = asyncio.run(ask())

    assert [str(error) for error in errors] == ["away"] * 3
    assert times == 1


def test_one_who_goes_away_takes_nothing_from_the_others():
    async def ask() -> int:
        lately = SharedCall(Asked(), 600)
        gone, stays = (asyncio.create_task(lately.get()) for _ in "ab")
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(ask()) == 1


# -- who may read them


def test_nothing_below_the_base_url_tells_numbers(service: Service):
    answers = [service.wire(None).get("metrics"), service.instructor().get("metrics")]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert "metrics" not in [path for path, _ in ROUTES]
    assert b"nbexchange_" not in answers[0].content


@pytest.fixture(params=["/services/nbexchange/", "/"])
def guarded(data: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    options = {"base_url": request.param, "metrics_token": "sésame"}
    with configured(data, **options) as service:
        yield service


SHOWN = {
    "nothing": (None, 401),
    "another": ("Bearer sesame", 401),
    "half of it": ("Bearer sés", 401),
    "another scheme": ("Basic sésame", 401),
    "a person's token": ("Bearer token-1-ada", 401),
    "the token": ("Bearer sésame", 200),
}


@pytest.mark.parametrize(("shown", "status"), SHOWN.values(), ids=SHOWN)
def test_where_a_token_is_set_only_who_has_it_reads_the_numbers(
    guarded: Service, shown: str | None, status: int
):
    guarded.instructor()
    headers = {} if shown is None else {"Authorization": shown.encode()}

    answer = requests.get(urljoin(guarded.url, "/metrics"), headers=headers, timeout=PATIENCE)

    assert answer.status_code == status
    assert ("nbexchange_build_info" in answer.text) == (status == 200)
    assert "sésame" not in answer.text


def test_the_token_may_come_from_the_environment(data: Path):
    with ServiceProcess(data, env={"NBEXCHANGE_METRICS_TOKEN": "sesame\n"}) as service:
        url = urljoin(service.url, "/metrics")
        refused = requests.get(url, timeout=PATIENCE)
        let_in = requests.get(url, headers={"Authorization": "Bearer sesame"}, timeout=PATIENCE)

    assert (refused.status_code, let_in.status_code) == (401, 200)


def test_reading_the_numbers_leaves_everything_as_it_is(service: Service):
    def state() -> dict[Path, tuple[int, int]]:
        paths = [service.data, *service.data.rglob("*")]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    receipt(release(service.instructor()))
    Numbers(service)
    before = state()
    for _ in range(3):
        Numbers(service)

    assert state() == before


# -- the page for operators


def documented() -> dict[str, tuple[str, set[str]]]:
    """name -> type and labels, as the operator's page has them."""
    row = re.compile(r"^\| `((?:nbexchange|process|python)\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
    found = row.findall(DOCUMENT.read_text(encoding="utf-8"))
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in found}


def test_the_operators_page_tells_of_every_number_and_of_no_other(service: Service):
    every_verb(service)
    service.wire("nobody").get("assignments")
    service.wire(None).get("readyz")

    told = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in with_room(service).families
    }

    document = documented()
    assert document == {name: said for name, said in told.items() if name in document}
    assert {name for name in told if name.startswith("nbexchange_")} <= document.keys()
