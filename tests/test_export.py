"""nbexchange export: a course as nbgrader's own exchange has it, with a manifest and hashes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nbgrader.utils import notebook_hash

from nbexchange.database import Database
from nbexchange.exchange.purge_records import Scope
from nbexchange.exchange.upkeep import export_queries
from nbexchange.exchange.upkeep.export_queries import CourseRow
from tests.support import course, databases
from tests.support.archives import sha256, tar_gz, tar_gz_of, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, give_feedback, receipt, release, submit
from tests.support.service import Service

Said = pytest.CaptureFixture[str]

RELEASED = {"p1.ipynb": b'{"cells": []}', "data/numbers.csv": b"1,2\n", "empty": None}
SECRET = "5ec7e7"


def handed_in(answer: str) -> dict[str, bytes | None]:
    return {
        "p1.ipynb": answer.encode(),
        "notes.txt": b"mine",
        ".hidden/x": b"",
        "timestamp.txt": b"2001-01-01 00:00:00.000000 UTC",
        "submission_secret.txt": (SECRET + answer).encode(),
    }


@pytest.fixture
def used(service: Service) -> Service:
    """Two versions of a release, three submissions, two versions of feedback on one of them."""
    ada, bob, chloe = service.instructor(), service.student(), service.student(name="chloe")
    receipt(release(ada, tar_gz(p1=b"a first try")))
    receipt(release(ada, tar_gz_of(RELEASED)))
    first = receipt(submit(bob, tar_gz_of(handed_in("one"))))
    receipt(submit(bob, tar_gz_of(handed_in("two"))))
    receipt(submit(chloe, tar_gz_of(handed_in("three"))))
    receipt(give_feedback(ada, first["submission_id"], b"<p>bad</p>"))
    receipt(give_feedback(ada, first["submission_id"], b"<p>good</p>"))
    return service


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def export(service: Service, place: Path, *arguments: str) -> int | str | None:
    return run_for(service, "export", str(place), *arguments)


def manifest(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_released_files_lie_where_nbgrader_looks_for_them(used: Service, place: Path) -> None:
    assert export(used, place) == 0

    outbound = place / "physics" / "outbound" / "ps1"
    assert files(outbound) == {
        name: content for name, content in RELEASED.items() if content is not None
    }
    assert (outbound / "empty").is_dir()


def test_submissions_lie_where_nbgrader_looks_for_them_with_the_official_time(
    used: Service, place: Path
) -> None:
    export(used, place)

    inbound = place / "physics" / "inbound"
    for row, answer in zip(
        course.submissions(used.instructor()), ["three", "two", "one"], strict=True
    ):
        timestamp = row["timestamp"]
        (folder,) = inbound.glob(f"{row['student_id']}+ps1+{timestamp}+*")
        found = files(folder)
        said = json.loads(found.pop("submission_receipt.json"))
        assert (said["submission_id"], said["student"]) == (row["path"], row["student_id"])
        expected = handed_in(answer) | {"timestamp.txt": timestamp.encode()}
        assert found == expected


def test_feedback_has_the_name_that_nbgrader_computes(used: Service, place: Path) -> None:
    export(used, place)

    name = notebook_hash(secret=f"{SECRET}one", notebook_id="p1")
    assert files(place / "physics" / "feedback") == {f"{name}.html": b"<p>good</p>"}


def test_feedback_on_a_submission_without_a_secret_has_the_old_name(
    service: Service, place: Path
) -> None:
    ada = service.instructor()
    receipt(release(ada))
    given = receipt(submit(service.student(), tar_gz(p1=b"answer")))
    receipt(give_feedback(ada, given["submission_id"], b"good"))

    export(service, place)

    (folder,) = (place / "physics" / "inbound").iterdir()
    names = "+".join(("physics", "ps1", "p1", "bob", given["timestamp"]))
    assert (folder / "p1.ipynb").read_bytes() == b"answer"
    name = hashlib.md5(b"answer" + names.encode()).hexdigest()  # as nbgrader.utils.notebook_hash
    assert files(place / "physics" / "feedback") == {f"{name}.html": b"good"}


def test_every_version_is_in_the_archives_as_it_was_sent(used: Service, place: Path) -> None:
    export(used, place)

    said = manifest(place / "physics")
    rows = [*said["releases"], *said["submissions"]]
    rows += [one for row in said["submissions"] for one in row["feedback"]]
    assert sorted(row["key"] for row in rows) == sorted(course.blobs(used))
    for row in rows:
        content = (place / "physics" / row["archive"]).read_bytes()
        assert (sha256(content), len(content)) == (row["sha256"], row["size"])


def test_the_manifest_tells_what_the_rows_tell(used: Service, place: Path) -> None:
    export(used, place)

    said = manifest(place / "physics")
    assert (said["format"], said["organisation"], said["course_id"]) == (
        "nbexchange export 1",
        1,
        "physics",
    )
    assert [(row["version"], row["by"]) for row in said["releases"]] == [(1, "ada"), (2, "ada")]
    assert said["assignments"] == [{"assignment_id": "ps1", "released": True}]
    assert {row["name"]: row["role"] for row in said["people"]} == {
        "ada": "Instructor",
        "bob": "Student",
        "chloe": "Student",
    }
    assert len(said["events"]) == len(course.rows(used, "event"))
    first, *_ = said["submissions"]
    assert first["release_version"] == 2
    assert first["client_timestamp"] == "2001-01-01 00:00:00.000000 UTC"
    assert [(one["version"], one["file"] is None) for one in first["feedback"]] == [
        (1, True),
        (2, False),
    ]


def test_sha256sum_can_check_it(used: Service, place: Path) -> None:
    export(used, place)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]

    done = subprocess.run(
        command, cwd=place / "physics", capture_output=True, text=True, check=True
    )

    assert done.stdout.count(": OK") == 8 + 2 - 1  # seven archives, a file of feedback, a manifest


def test_an_assignment_that_was_taken_back_is_not_offered_but_kept(
    used: Service, place: Path
) -> None:
    used.instructor().delete("assignment", **PS1)

    export(used, place)

    assert files(place / "physics" / "outbound") == {}
    said = manifest(place / "physics")
    assert said["assignments"] == [{"assignment_id": "ps1", "released": False}]
    assert all((place / "physics" / row["archive"]).is_file() for row in said["releases"])


def test_only_the_course_and_the_organisation_that_are_named_are_exported(
    used: Service, place: Path, tmp_path: Path
) -> None:
    receipt(release(used.instructor(name="zoe", org_id=2)))
    maths = used.wire(used.enrol("emmy", {"maths": "Instructor"}))
    body = tar_gz(m=b"{}")
    receipt(
        maths.post("assignment", body, upload_headers(body), course_id="maths", assignment_id="a")
    )

    export(used, place, "--course=maths")
    export(used, tmp_path / "two", "--org=2")
    export(used, tmp_path / "one")

    assert [path.name for path in place.iterdir()] == ["maths"]
    assert [row["by"] for row in manifest(tmp_path / "two" / "physics")["releases"]] == ["zoe"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["maths", "physics"]


# -- names that nobody can trust

HOSTILE = [
    "../../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..",
    ".",
    ".hidden",
    "bob",
    "Bob",
    "BOB",
    "bob ",
    " bob",
    "a+b",
    "José",
    "Jose\u0301",
    "Straße",
    "STRASSE",
    "🎓 graduate",
    "a:b*c?",
    "x" * 200,
    "x" * 199 + "y",
    "学" * 200,
    "~",
    "-rf",
    "\u200fexe.png",
]


def test_hostile_names_stay_inside_and_apart_and_the_manifest_tells_them(
    service: Service, place: Path, tmp_path: Path
) -> None:
    safe = {f"no {number}": name for number, name in enumerate(HOSTILE)}
    for stand_in, name in safe.items():
        ada = service.wire(service.enrol("ada", {stand_in: "Instructor"}))
        params = {"course_id": stand_in, "assignment_id": "ps1"}
        body = tar_gz(p1=name.encode())
        receipt(ada.post("assignment", body, upload_headers(body), **params))
    ada = service.instructor()
    receipt(release(ada))
    for stand_in, name in safe.items():
        student = service.wire(service.enrol(stand_in, {"physics": "Student"}, token=stand_in))
        receipt(submit(student, tar_gz(p1=name.encode())))
    databases.rename(service.data, "course", "course_id", safe)
    databases.rename(service.data, "user", "name", safe)
    run_for(service, "gc")  # writes its configuration beside
    beside = {path.name for path in tmp_path.iterdir()}

    assert export(service, place) == 0

    assert {path.name for path in tmp_path.iterdir()} == beside | {"exported"}
    told = {manifest(folder)["course_id"]: folder for folder in place.iterdir()}
    assert set(told) == {*HOSTILE, "physics"}
    assert len({folder.name.casefold() for folder in told.values()}) == len(told)
    for name in HOSTILE:
        assert (told[name] / "outbound/ps1/p1.ipynb").read_text() == name
    said = manifest(told["physics"])
    folders = {row["student"]: row["folder"] for row in said["submissions"]}
    assert len({folder.casefold() for folder in folders.values()}) == len(HOSTILE)
    for name, folder in folders.items():
        assert re.fullmatch(r"inbound/[^/+]+\+ps1\+[^/+]+\+[0-9a-f]{12}", folder)
        assert (told["physics"] / folder / "p1.ipynb").read_text() == name
        assert (name in said["renamed_students"]) == (f"/{name}+" not in folder)
    assert "🎓 graduate" not in said["renamed_students"]


# -- while people work


def test_a_number_that_another_course_got_meanwhile_exports_nothing_of_it(used: Service) -> None:
    """SQLite gives the number of a purged course to the next one, of whatever organisation."""
    with contextlib.closing(Database(databases.database_of(used.data))) as database:
        (ours,) = database.read_now(export_queries.courses, Scope(1, "physics"))

        def held(course: CourseRow) -> list[int]:
            batches = (export_queries.submissions, export_queries.releases, export_queries.events)
            lists = (export_queries.assignments, export_queries.people)
            return [
                database.read_now(export_queries.count_rows, course),
                *(len(database.read_now(verb, course, 0)) for verb in batches),
                *(len(database.read_now(verb, course)) for verb in lists),
            ]

        assert held(ours) == [5, 3, 2, 7, 1, 3]
        assert held(ours._replace(org_id=2)) == [0] * 6
        assert held(ours._replace(course_id="secret")) == [0] * 6


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    (drive := tmp_path / "drive").mkdir()
    return drive


def inodes(*paths: Path) -> set[int]:
    return {path.stat().st_ino for path in paths}


def test_all_of_it_is_on_the_disk_before_it_appears(
    used: Service, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = drive / "exported"
    durable: set[int] = set()
    real = os.fsync

    def noting(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if inode in inodes(drive):
            assert inodes(place, *place.rglob("*")) <= durable
        durable.add(inode)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noting)

    assert export(used, place) == 0

    assert inodes(drive) <= durable


FORGETFUL: dict[str, Callable[[Path], list[Path]]] = {
    "a file": lambda drive: list(drive.rglob("manifest.json")),
    "a folder": lambda drive: list(drive.rglob("inbound")),
    "the folder where it appears": lambda drive: [drive],
}


@pytest.mark.parametrize("what", FORGETFUL.values(), ids=FORGETFUL)
def test_nothing_is_left_when_the_disk_cannot_keep_it(
    used: Service, drive: Path, monkeypatch: pytest.MonkeyPatch, what: Callable[[Path], list[Path]]
) -> None:
    real = os.fsync

    def failing(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino in inodes(*what(drive)):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing)

    assert "Input/output error. The incomplete copy was removed" in str(
        export(used, drive / "exported")
    )
    assert list(drive.iterdir()) == []


# -- when something is wrong


def blob(service: Service, key: str) -> Path:
    return service.data / "blobs" / key[:2] / key


@pytest.mark.disk
def test_a_corrupt_file_is_named_and_the_rest_is_exported(
    used: Service, place: Path, capsys: Said
) -> None:
    first, second, _ = course.rows(used, "submission")
    blob(used, first["key"]).unlink()
    blob(used, second["key"]).write_bytes(b"x" * second["size"])

    assert export(used, place) == 1

    said = capsys.readouterr().out
    for row in (first, second):
        assert re.search(f"CORRUPT: submission {row['token']} of 'bob' .*{row['key']}", said)
    entries = manifest(place / "physics")["submissions"]
    assert [row["archive"] is None for row in entries] == [True, True, False]
    assert [len(row["feedback"]) for row in entries] == [2, 0, 0]
    assert len(list((place / "physics" / "inbound").iterdir())) == 1


def test_an_archive_beyond_todays_limits_is_kept_and_named(
    used: Service, place: Path, capsys: Said
) -> None:
    config = "c.NbExchange.max_entries = 2\n"

    assert run_for(used, "export", str(place), config=config) == 1

    assert capsys.readouterr().out.count("NOT UNPACKED") == 4
    assert len(list((place / "physics" / "archives").iterdir())) == 7


def test_nothing_is_left_when_the_disk_is_full(
    used: Service, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_for(used, "gc")  # writes its configuration beside
    before = {path.name for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nbexchange.archive.unpacking._make_file", full)
    assert "No space left on device. The incomplete copy was removed" in str(export(used, place))
    assert {path.name for path in tmp_path.iterdir()} == before


WRONG: dict[str, tuple[list[str], str]] = {
    "no place": ([], "Name one target folder"),
    "two places": (["/tmp/a", "/tmp/b"], "Name one target folder"),
    "a place that is there": (["{there}"], "exists already"),
    "no folder for it": (["{there}/no/such"], "no does not exist. Create it first"),
    "no such course": (["{new}", "--course=chemistry"], "course 'chemistry'"),
    "no such organisation": (["{new}", "--org=7"], "organisation 7"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_said_and_nothing_is_written(
    used: Service, tmp_path: Path, capsys: Said, arguments: list[str], words: str
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    run_for(used, "gc")  # writes its configuration beside
    before = {path.name for path in tmp_path.iterdir()}
    told = [one.format(there=there, new=tmp_path / "new") for one in arguments]

    assert run_for(used, "export", *told) == 2

    assert words in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == before
    assert list(there.iterdir()) == []


def test_an_export_is_for_the_operators_eyes_only(used: Service, place: Path) -> None:
    export(used, place)

    assert place.stat().st_mode & 0o777 == 0o700


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_it_is(
    used: Service, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())

    export(used, place)

    assert "Exporting: 1 of 5 (20 %)" in terminal.getvalue()


def test_an_export_takes_more_rows_than_one_batch(
    used: Service, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbexchange.exchange.upkeep.export_queries.BATCH", 2)

    assert export(used, place) == 0

    said = manifest(place / "physics")
    assert [len(said[name]) for name in ("submissions", "releases")] == [3, 2]
    assert len(said["events"]) == len(course.rows(used, "event"))
