"""docs/backup.md, done: the database first and then the store loses nothing; the other way does."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from traitlets.config import Config

from nbexchange.database import Database
from tests.support import course, databases
from tests.support.archives import sha256, tar_gz
from tests.support.commands import run
from tests.support.course import receipt, release, submit
from tests.support.parts import needs
from tests.support.process import wait_until
from tests.support.service import Service
from tests.support.stores import s3_server

# They bring databases and stores of their own.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

Said = pytest.CaptureFixture[str]

LOAD = ("bob", "chloe", "dmitri")


@dataclass
class House:
    """Where one service lives: its data directory, its database and its store."""

    data: Path
    db_url: str
    bucket: str
    """Empty for a disk."""

    @property
    def config(self) -> Config:
        config = s3_server().config(f"s3://{self.bucket}") if self.bucket else Config()
        config.NbExchange.db_url = self.db_url
        return config

    def run(self, name: str, *arguments: str) -> int | str | None:
        file = self.data.parent / f"{self.data.name}.json"
        options = self.config.NbExchange | {"base_storage_location": str(self.data)}
        file.write_text(json.dumps({"NbExchange": options}))
        return run(name, f"--config-file={file}", *arguments)


class Kind:
    """How to make a house, and the commands of docs/backup.md."""

    def __init__(self, database: str, store: str, tmp_path: Path) -> None:
        self._database = database
        self._store = store
        self._tmp_path = tmp_path
        self._urls: list[str] = []
        self._number = itertools.count()

    def house(self) -> House:
        data = self._tmp_path / f"house{next(self._number)}"
        data.mkdir()
        self._urls.append(databases.create(self._database, data))
        bucket = s3_server().new_bucket() if self._store == "s3" else ""
        return House(data, self._urls[-1], bucket)

    def drop(self) -> None:
        for url in self._urls:
            databases.drop(url)

    # -- the database

    def back_up_database(self, house: House) -> Path:
        file = self._tmp_path / f"database-{secrets.token_hex(4)}"
        if self._database == "sqlite":
            code = (
                "import sqlite3, sys; source, target = map(sqlite3.connect, sys.argv[1:]); "
                "source.backup(target); target.close()"
            )
            live = make_url(house.db_url).database
            subprocess.run([sys.executable, "-c", code, str(live), str(file)], check=True)
        elif self._database == "mariadb":
            with file.open("wb") as target:
                self._mariadb("mariadb-dump", house, "--single-transaction", stdout=target)
        else:
            self._postgresql("pg_dump", house, "--format=custom", f"--file={file}")
        return file

    def restore_database(self, file: Path, house: House) -> None:
        if self._database == "sqlite":
            shutil.copy(file, str(make_url(house.db_url).database))
        elif self._database == "mariadb":
            with file.open("rb") as source:
                self._mariadb("mariadb", house, stdin=source)
        else:
            options = ("--single-transaction", "--no-owner", str(file), "--dbname")
            self._postgresql("pg_restore", house, *options)

    def _mariadb(self, program: str, house: House, *options: str, **files: Any) -> None:
        url = make_url(house.db_url)
        who = [f"--host={url.host}", f"--port={url.port}", f"--user={url.username}"]
        environment = os.environ | ({"MYSQL_PWD": str(url.password)} if url.password else {})
        subprocess.run(
            [needs(program), *who, *options, str(url.database)],
            check=True,
            env=environment,
            **files,
        )

    def _postgresql(self, program: str, house: House, *options: str) -> None:
        url = make_url(house.db_url).set(drivername="postgresql")
        text = url.render_as_string(hide_password=False)
        subprocess.run([needs(program), *options, text], check=True)

    # -- the store

    def back_up_store(self, house: House) -> Path | str:
        """Without `uploads`: nothing there has a row."""
        if self._store == "s3":
            copy = s3_server().new_bucket()
            _copy_bucket(house.bucket, copy)
            return copy
        place = self._tmp_path / f"store-{secrets.token_hex(4)}"
        shutil.copytree(house.data / "blobs", place)
        return place

    def restore_store(self, copy: Path | str, house: House) -> None:
        if isinstance(copy, str):
            _copy_bucket(copy, house.bucket)
        else:
            shutil.copytree(copy, house.data / "blobs")


def _copy_bucket(source: str, target: str) -> None:
    client = s3_server().client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=source):
        for entry in page.get("Contents", ()):
            client.copy_object(
                Bucket=target,
                Key=entry["Key"],
                CopySource={"Bucket": source, "Key": entry["Key"]},
            )


@pytest.fixture(
    params=[("sqlite", "disk"), ("mariadb", "disk"), ("postgresql", "disk"), ("sqlite", "s3")],
    ids=" and ".join,
)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    kind = Kind(*request.param, tmp_path)
    yield kind
    kind.drop()


@pytest.fixture
def here(kind: Kind) -> House:
    house = kind.house()
    database = Database(house.db_url)
    database.prepare(upgrade=True)
    database.close()
    return house


@pytest.fixture
def used(here: House) -> Iterator[Service]:
    with Service(here.data, here.config) as service:
        receipt(release(service.instructor()))
        yield service


@contextlib.contextmanager
def uploads_going_on(service: Service) -> Iterator[list[dict[str, Any]]]:
    """Receipts, as they come in."""
    receipts: list[dict[str, Any]] = []
    stop = threading.Event()
    wires = [service.student(name=name) for name in LOAD]

    def work(name: str) -> None:
        wire = wires[LOAD.index(name)]
        for number in itertools.count():
            if stop.is_set():
                return
            body = tar_gz(p1=f"{name} {number}".encode())
            while (answer := submit(wire, body)).status_code == 503:
                stop.wait(0.05)
            receipts.append(receipt(answer))

    threads = [threading.Thread(target=work, args=(name,)) for name in LOAD]
    for thread in threads:
        thread.start()
    try:
        yield receipts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def more(receipts: list[dict[str, Any]], number: int = 10) -> list[dict[str, Any]]:
    """All that are there, once there are so many more."""
    enough = len(receipts) + number
    wait_until(lambda: len(receipts) >= enough, "more receipts")
    return list(receipts)


def restored(kind: Kind, database: Path, store: Path | str) -> House:
    house = kind.house()
    kind.restore_database(database, house)
    kind.restore_store(store, house)
    return house


def assert_is_there(house: House, receipts: list[dict[str, Any]]) -> None:
    with Service(house.data, house.config) as service:
        ada = service.instructor()
        for one in receipts:
            body = course.collect(ada, one["submission_id"]).content
            assert sha256(body) == one["sha256"]


def test_a_backup_under_load_in_the_safe_order_has_every_receipt_from_before_it(
    kind: Kind, here: House, used: Service, capsys: Said
) -> None:
    with uploads_going_on(used) as receipts:
        before = more(receipts)
        database = kind.back_up_database(here)
        more(receipts)
        store = kind.back_up_store(here)
        more(receipts)

    there = restored(kind, database, store)

    assert there.run("check") == 0
    assert " 0 missing or corrupt" in capsys.readouterr().out
    assert len(before) >= 10
    assert_is_there(there, before)


def test_what_came_after_the_backup_of_the_database_is_orphaned_and_a_person_can_still_read(
    kind: Kind, here: House, used: Service, capsys: Said
) -> None:
    database = kind.back_up_database(here)
    late = receipt(submit(used.student()))
    store = kind.back_up_store(here)

    there = restored(kind, database, store)

    assert there.run("gc", "--older-than=0") == 0
    assert f"1 files of {late['size']} bytes found" in capsys.readouterr().out


def test_a_store_that_was_backed_up_first_lacks_what_came_in_between(
    kind: Kind, here: House, used: Service, capsys: Said
) -> None:
    store = kind.back_up_store(here)
    lost = receipt(submit(used.student()))
    database = kind.back_up_database(here)

    there = restored(kind, database, store)

    assert there.run("check") == 1
    assert "1 missing or corrupt" in capsys.readouterr().out
    with pytest.raises(AssertionError):
        assert_is_there(there, [lost])


def erase_for_good(house: House, service: Service, capsys: Said) -> None:
    house.run("purge", "--course=physics", "--student=bob")
    code = capsys.readouterr().out.rpartition("--confirm=")[2].strip()
    assert house.run("purge", f"--confirm={code}") == 0


def purge_the_assignment(house: House, service: Service, capsys: Said) -> None:
    assert house.run("purge", f"--confirm={course.purge(service.instructor())}") == 0


@pytest.mark.parametrize(
    "erase", [erase_for_good, purge_the_assignment], ids=["operator", "instructor"]
)
def test_what_is_erased_between_the_two_is_missing_and_check_says_so(
    kind: Kind,
    here: House,
    used: Service,
    capsys: Said,
    erase: Callable[[House, Service, Said], None],
) -> None:
    receipt(submit(used.student()))
    # A store without any file is refused as one that is not mounted.
    spared = {"course_id": "chemistry", "assignment_id": "ps1"}
    receipt(used.instructor("chemistry").post("assignment", course.WORK, **spared))
    database = kind.back_up_database(here)
    erase(here, used, capsys)
    store = kind.back_up_store(here)

    there = restored(kind, database, store)

    assert there.run("check") == 1
    assert "submission of 'bob'" in capsys.readouterr().out


def test_the_repair_report_and_an_older_backup_mend_a_store(tmp_path: Path) -> None:
    kind = Kind("sqlite", "disk", tmp_path)
    house = kind.house()
    with Service(house.data, house.config) as service:
        receipt(release(service.instructor()))
        given = receipt(submit(service.student()))
        backup = kind.back_up_store(house)
        for path in service.files():
            path.write_bytes(b"corrupt")
    report = tmp_path / "report.json"
    assert house.run("check", f"--repair-report={report}") == 1

    for entry in json.loads(report.read_text())["corrupt"]:
        (copy,) = Path(backup).rglob(entry["key"])
        shutil.copy(copy, entry["place"])

    assert house.run("check") == 0
    assert_is_there(house, [given])
