"""nbexchange check, gc, upgrade-db, --generate-config, and how the program says no."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import socket
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from nbexchange.app import NbExchange
from nbexchange.database import Database
from nbexchange.exchange.upkeep import inventory
from nbexchange.models import Base
from tests.support import course, databases
from tests.support.archives import tar_gz
from tests.support.commands import here, run
from tests.support.course import give_feedback, receipt, release, submit
from tests.support.process import run_program
from tests.support.service import Service

pytestmark = pytest.mark.disk  # files are corrupt in place

Said = pytest.CaptureFixture[str]


@pytest.fixture
def used(service: Service) -> Service:
    """A service with a release, twenty submissions and feedback."""
    ada, bob = service.instructor(), service.student()
    receipt(release(ada))
    for number in range(20):
        given = receipt(submit(bob, tar_gz(p1=f"work {number}".encode())))
    receipt(give_feedback(ada, given["submission_id"], b"good"))
    return service


def keys(service: Service, table: str) -> list[str]:
    return [row["key"] for row in course.rows(service, table)]


def blob(service: Service, key: str) -> Path:
    return service.data / "blobs" / key[:2] / key


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


# -- check


def test_check_finds_nothing_wrong_in_a_healthy_store(used: Service, capsys: Said) -> None:
    assert run("check", here(used)) == 0
    assert "22 files checked, 0 missing or corrupt" in capsys.readouterr().out


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


HARM = {
    "a flipped bit": flip_a_bit,
    "cut": cut,
    "only zeros": zero,
    "longer": lengthen,
    "deleted": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
}


def test_check_names_each_corrupt_file_and_no_other(used: Service, capsys: Said) -> None:
    corrupt = [*keys(used, "submission")[::4], *keys(used, "release")]
    for key, harm in zip(corrupt, HARM.values(), strict=True):
        harm(blob(used, key))

    assert run("check", here(used)) == 1
    said = capsys.readouterr().out
    assert set(re.findall("file ([0-9a-f]{32})", said)) == set(corrupt)
    assert "submission of 'bob' in organisation 1, course 'physics', assignment 'ps1'" in said
    assert f"{len(corrupt)} missing or corrupt" in said


def test_check_names_corrupt_feedback_by_its_student(used: Service, capsys: Said) -> None:
    (key,) = keys(used, "feedback")
    flip_a_bit(blob(used, key))

    assert run("check", here(used)) == 1
    assert "feedback of 'bob'" in capsys.readouterr().out


def test_check_changes_nothing(used: Service) -> None:
    cut(blob(used, keys(used, "submission")[0]))
    before = {path: path.read_bytes() for path in used.files()}, course.blobs(used)

    run("check", here(used))

    assert ({path: path.read_bytes() for path in used.files()}, course.blobs(used)) == before


def test_a_quick_check_sees_what_is_missing_or_cut_but_reads_nothing(
    used: Service, capsys: Said
) -> None:
    gone, shorter, altered, *_ = keys(used, "submission")
    blob(used, gone).unlink()
    cut(blob(used, shorter))
    flip_a_bit(blob(used, altered))

    assert run("check", "--quick", here(used)) == 1
    assert set(re.findall("file ([0-9a-f]{32})", capsys.readouterr().out)) == {gone, shorter}


def test_check_looks_at_more_rows_than_one_batch(
    used: Service, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbexchange.exchange.upkeep.inventory.BATCH", 3)
    last = keys(used, "submission")[-1]
    cut(blob(used, last))

    assert run("check", here(used)) == 1
    said = capsys.readouterr().out
    assert "22 files checked" in said
    assert last in said


def test_a_command_that_goes_through_all_rows_reads_a_batch_of_them_at_a_time(
    used: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, it needs little memory and no long transaction."""
    monkeypatch.setattr("nbexchange.exchange.upkeep.inventory.BATCH", 3)
    sizes, position = [], inventory.Position()

    with Session(databases.engine_of(databases.database_of(used.data))) as session:
        while position is not None:
            owned, position = inventory.owned_blobs(session, position)
            sizes.append(len(owned))

    assert sum(sizes) == 22
    assert max(sizes) == 3


# -- check --repair-report


def harm(service: Service, number: int) -> dict[str, Path]:
    """Harm so many submissions, in every way by turns; by key."""
    wanted = keys(service, "submission")
    step = len(wanted) // number
    corrupt = {key: blob(service, key) for key in wanted[::step][:number]}
    for turn, path in enumerate(corrupt.values()):
        (flip_a_bit, cut, Path.unlink)[turn % 3](path)
    return corrupt


def repair_report(service: Service, file: Path) -> dict[str, Any]:
    assert run("check", here(service), f"--repair-report={file}") == 1
    return json.loads(file.read_text())


def assert_all_harm_is_found(service: Service, number: int, file: Path) -> None:
    corrupt = harm(service, number)
    before = {path: path.read_bytes() for path in service.files()}, course.blobs(service)

    report = repair_report(service, file)

    assert {found["key"]: found["place"] for found in report["corrupt"]} == {
        key: str(path) for key, path in corrupt.items()
    }
    assert ({path: path.read_bytes() for path in service.files()}, course.blobs(service)) == before


def test_every_corrupt_file_is_in_the_repair_report_and_none_is_deleted(
    used: Service, tmp_path: Path
) -> None:
    assert_all_harm_is_found(used, 10, tmp_path / "report.json")


@pytest.mark.slow
def test_100_corrupt_files_of_1000_are_in_the_repair_report(used: Service, tmp_path: Path) -> None:
    bob = used.student()
    for number in range(980):
        receipt(submit(bob, tar_gz(p1=f"more work {number}".encode())))

    assert_all_harm_is_found(used, 100, tmp_path / "report.json")


def test_the_repair_report_says_whose_it_is_and_what_to_do(used: Service, tmp_path: Path) -> None:
    first, *_ = course.rows(used, "submission")
    cut(blob(used, first["key"]))

    (found,) = repair_report(used, tmp_path / "report.json")["corrupt"]

    assert found | {"timestamp": "", "what_to_do": ""} == {
        "what": "submission",
        "organisation": 1,
        "course_id": "physics",
        "assignment_id": "ps1",
        "person": "bob",
        "timestamp": "",
        "id": first["token"],
        "notebook_id": None,
        "version": 1,
        "key": first["key"],
        "sha256": first["sha256"],
        "size": first["size"],
        "place": str(blob(used, first["key"])),
        "state": "wrong size",
        "found_size": first["size"] - 1,
        "what_to_do": "",
    }
    assert found["timestamp"].endswith(" UTC")
    assert "submit again" in " ".join(found["what_to_do"])


@pytest.mark.parametrize(
    ("harm", "state"),
    [(flip_a_bit, "wrong bytes"), (cut, "wrong size"), (Path.unlink, "missing")],
    ids=["a flipped bit", "cut", "deleted"],
)
def test_the_repair_report_tells_kinds_of_harm_apart(
    used: Service, tmp_path: Path, harm: Any, state: str
) -> None:
    (key,) = keys(used, "feedback")
    harm(blob(used, key))

    (found,) = repair_report(used, tmp_path / "report.json")["corrupt"]

    assert (found["state"], found["notebook_id"], found["person"]) == (state, "p1", "bob")


def test_what_the_repair_report_asks_for_mends_the_harm(used: Service, tmp_path: Path) -> None:
    (key,) = keys(used, "release")
    backup = blob(used, key).read_bytes()
    flip_a_bit(blob(used, key))
    (found,) = repair_report(used, tmp_path / "report.json")["corrupt"]
    assert hashlib.sha256(backup).hexdigest() == found["sha256"]

    Path(found["place"]).write_bytes(backup)

    assert run("check", here(used)) == 0


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_looked_at(
    used: Service, tmp_path: Path
) -> None:
    first, *_, last = keys(used, "submission")
    blob(used, first).unlink()
    blob(used, first).mkdir()
    cut(blob(used, last))

    found = repair_report(used, tmp_path / "report.json")["corrupt"]

    assert [one["key"] for one in found] == [first, last]


def test_the_repair_report_counts_orphans(
    used: Service, orphans: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "report.json"

    assert run("check", here(used), f"--repair-report={file}") == 0
    assert json.loads(file.read_text()) == {
        "looked_at": 22,
        "corrupt": [],
        "gone": [],
        "orphaned": {"files": 2, "bytes": 12},
    }


def test_a_repair_report_that_cannot_be_written_is_said_before_the_work(
    used: Service, tmp_path: Path, capsys: Said
) -> None:
    assert run("check", here(used), f"--repair-report={tmp_path}/nowhere/report.json") == 2
    said = capsys.readouterr()
    assert "Cannot write the report" in said.err
    assert "looked at" not in said.out


# -- rows that are gone, and files without a row


def lose(service: Service, *tables: str) -> None:
    """Rows, behind the service's back: as an older backup of the database would."""
    with databases.engine_of(databases.database_of(service.data)).begin() as connection:
        for table in tables:
            connection.execute(Base.metadata.tables[table].delete())


def lose_all(service: Service) -> None:
    names = [table.name for table in reversed(Base.metadata.sorted_tables)]
    lose(service, *(name for name in names if name not in databases.WRITTEN_BY_MIGRATIONS))


def test_check_counts_files_without_a_row(
    used: Service, orphans: dict[str, Path], capsys: Said
) -> None:
    assert run("check", here(used)) == 0
    assert "2 files of 12 bytes have no row." in capsys.readouterr().out


def test_check_says_that_a_database_without_any_row_may_have_been_reset(
    used: Service, capsys: Said
) -> None:
    lose_all(used)

    assert run("check", here(used)) == 1

    said = capsys.readouterr().out
    assert "22 files of " in said
    assert "The database owns none of the files in the store." in said


def test_check_names_rows_that_the_last_check_saw_and_that_are_gone_until_told_to_forget(
    used: Service, capsys: Said
) -> None:
    run("check", here(used))
    lose(used, "feedback", "submission")
    capsys.readouterr()

    found = [run("check", here(used)), run("check", here(used))]
    said = capsys.readouterr().out
    forgotten = run("check", "--forget-gone", here(used))

    assert found == [1, 1]
    gone = "GONE: 1 feedback, 20 submissions of organisation 1, course 'physics', assignment 'ps1'"
    assert said.count(gone) == 2
    assert "nbexchange check --forget-gone" in said
    assert (forgotten, run("check", here(used))) == (0, 0)


def test_rows_that_came_back_are_not_gone_any_more(used: Service, tmp_path: Path) -> None:
    run("check", here(used))
    rows = course.rows(used, "feedback")
    lose(used, "feedback")
    assert run("check", here(used)) == 1

    with databases.engine_of(databases.database_of(used.data)).begin() as connection:
        connection.execute(Base.metadata.tables["feedback"].insert(), rows)

    assert run("check", here(used)) == 0


PURGED: dict[str, list[str]] = {
    "a course": ["--course=physics"],
    "an assignment": ["--course=physics", "--assignment=ps1"],
    "a student": ["--student=bob"],
}


@pytest.mark.parametrize("scope", PURGED.values(), ids=PURGED)
def test_what_an_administrator_purged_is_not_gone(
    used: Service, capsys: Said, scope: list[str]
) -> None:
    run("check", here(used))
    run("purge", *scope, here(used))
    code = capsys.readouterr().out.rpartition("--confirm=")[2].strip()
    assert run("purge", f"--confirm={code}", here(used)) == 0

    assert run("check", here(used)) == 0
    assert "GONE" not in capsys.readouterr().out


def test_what_an_instructor_purged_is_not_gone(used: Service, capsys: Said) -> None:
    run("check", here(used))
    purge_id = course.purge(used.instructor())
    hidden = run("check", here(used))
    run("purge", f"--confirm={purge_id}", here(used))

    assert (hidden, run("check", here(used))) == (0, 0)
    assert "GONE" not in capsys.readouterr().out


def test_a_purge_explains_nothing_beyond_its_scope(used: Service, capsys: Said) -> None:
    receipt(submit(used.student(name="chloe")))
    run("check", here(used))
    run("purge", "--student=chloe", here(used))
    code = capsys.readouterr().out.rpartition("--confirm=")[2].strip()
    run("purge", f"--confirm={code}", here(used))
    lose(used, "feedback")

    assert run("check", here(used)) == 1
    assert "GONE: 1 feedback of organisation 1" in capsys.readouterr().out


ELSEWHERE = {
    "another organisation": (2, "physics", "ps1"),
    "another course": (1, "maths", "ps1"),
    "another assignment": (1, "physics", "ps2"),
}


@pytest.mark.parametrize(
    ("org_id", "course_id", "assignment_id"), ELSEWHERE.values(), ids=ELSEWHERE
)
def test_a_purge_elsewhere_explains_nothing(
    used: Service, capsys: Said, org_id: int, course_id: str, assignment_id: str
) -> None:
    place = {"course_id": course_id, "assignment_id": assignment_id}
    zoe = used.instructor(course_id, "zoe", org_id)
    receipt(zoe.post("assignment", tar_gz(p1=b"{}"), **place))
    run("check", here(used))
    scope = [f"--org={org_id}", f"--course={course_id}", f"--assignment={assignment_id}"]
    run("purge", *scope, here(used))
    code = capsys.readouterr().out.rpartition("--confirm=")[2].strip()
    assert run("purge", f"--confirm={code}", here(used)) == 0
    lose(used, "feedback")

    assert run("check", here(used)) == 1
    assert "GONE: 1 feedback of organisation 1" in capsys.readouterr().out


def test_gc_deletes_nothing_while_rows_are_gone(used: Service, capsys: Said) -> None:
    run("check", here(used))
    lose(used, "feedback", "submission")
    before = used.files()

    assert run("gc", "--delete", "--older-than=0", here(used)) == 2
    assert "21 rows of the check of" in capsys.readouterr().err
    assert used.files() == before
    assert run("gc", "--delete", "--older-than=0", "--everything", here(used)) == 0
    assert len(used.files()) == 1


def test_a_note_of_the_last_check_that_cannot_be_read_is_said(used: Service) -> None:
    run("check", here(used))
    (used.data / "last-check").write_bytes(b"half")

    assert "last-check of the store cannot be read" in str(run("check", here(used)))


# -- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LONG: dict[str, list[str]] = {
    "check": ["check"],
    "gc": ["gc", "--older-than=0"],
}


@pytest.mark.parametrize("command", LONG.values(), ids=LONG)
def test_a_terminal_shows_how_far_it_is_and_a_pipe_does_not(
    used: Service, monkeypatch: pytest.MonkeyPatch, capsys: Said, command: list[str]
) -> None:
    run(*command, here(used))
    assert "\r" not in capsys.readouterr().err

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    run(*command, here(used))

    assert "\r\x1b[KChecking files: " in terminal.getvalue()
    assert "\r" not in capsys.readouterr().out


# -- gc


@pytest.fixture
def orphans(used: Service) -> dict[str, Path]:
    """A broken upload and a blob without a row, both from the day before yesterday."""
    unfinished = used.data / "uploads" / ("a" * 32)
    orphan = blob(used, "b" * 32)
    for path in (unfinished, orphan):
        path.write_bytes(b"litter")
        age(path, 48)
    return {"unfinished": unfinished, "orphan": orphan}


def test_gc_only_tells_unless_it_is_told_to_delete(
    used: Service, orphans: dict[str, Path], capsys: Said
) -> None:
    assert run("gc", here(used)) == 0
    said = capsys.readouterr().out

    assert "2 files of 12 bytes found" in said
    assert all(path.name in said for path in orphans.values())
    assert all(path.exists() for path in orphans.values())


def test_gc_deletes_orphans_and_nothing_else(used: Service, orphans: dict[str, Path]) -> None:
    for path in used.files():
        age(path, 48)

    assert run("gc", "--delete", here(used)) == 0

    assert {path.name for path in used.files()} == set(course.blobs(used))
    course.assert_every_row_has_its_bytes(used)


def test_gc_leaves_young_orphans_alone(used: Service, orphans: dict[str, Path]) -> None:
    """Its row may still come."""
    age(orphans["unfinished"], 23)
    age(orphans["orphan"], 25)

    run("gc", "--delete", here(used))

    assert orphans["unfinished"].exists()
    assert not orphans["orphan"].exists()


def test_gc_can_be_told_how_old_orphans_has_to_be(used: Service, orphans: dict[str, Path]) -> None:
    run("gc", "--delete", "--older-than=49", here(used))
    assert all(path.exists() for path in orphans.values())

    run("gc", "--delete", "--older-than=47", here(used))
    assert not any(path.exists() for path in orphans.values())


def test_gc_looks_at_more_files_than_one_batch(
    used: Service, orphans: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbexchange.commands.orphaned_blobs.BATCH", 3)

    run("gc", "--delete", "--older-than=0", here(used))

    assert {path.name for path in used.files()} == set(course.blobs(used))


# -- the program


def test_a_subcommand_ends_and_does_not_serve(used: Service) -> None:
    """In a process of its own: the service would never return."""
    done = run_program("check", here(used))

    assert done.returncode == 0
    assert "22 files checked" in done.stdout


@pytest.mark.sqlite
@pytest.mark.parametrize("command", ["check", "gc", "purge", "export"])
def test_a_command_on_a_wrong_address_makes_no_database_that_looks_empty(
    tmp_path: Path, command: str
) -> None:
    words = run(command, f"--base-storage-location={tmp_path}")

    if command in ("check", "gc"):
        assert "no tables yet" in str(words)
    assert words != 0


def test_gc_with_the_database_of_another_installation_deletes_nothing(
    used: Service, tmp_path: Path, capsys: Said
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Service(elsewhere) as other:
        receipt(release(other.instructor()))
    before = used.files()

    url = databases.database_of(elsewhere)
    refused = run("gc", "--delete", "--older-than=0", f"--db-url={url}", here(used))
    databases.give_back(elsewhere)

    assert refused == 2
    assert "Check that it is the right database" in capsys.readouterr().err
    assert used.files() == before


def test_gc_finds_nothing_where_nothing_is(service: Service) -> None:
    assert run("gc", "--delete", here(service)) == 0


def test_gc_does_not_delete_every_file_unless_it_is_told_to(
    used: Service, orphans: dict[str, Path], capsys: Said
) -> None:
    for table in ("feedback", "submission", "event", "release"):
        empty(used, table)
    before = used.files()

    refused = run("gc", "--delete", "--older-than=0", here(used))
    spared = used.files()
    told = run("gc", "--delete", "--everything", "--older-than=0", here(used))

    assert refused == 2
    assert "Check that it is the right database" in capsys.readouterr().err
    assert spared == before
    assert (told, used.files()) == (0, [])


def empty(service: Service, table: str) -> None:
    engine = databases.engine_of(databases.database_of(service.data))
    with engine.begin() as connection:
        connection.execute(Base.metadata.tables[table].delete())


@pytest.mark.sqlite
def test_a_subcommand_takes_the_options_of_the_service_from_its_file(
    used: Service, tmp_path: Path, capsys: Said
) -> None:
    file = tmp_path / "config.py"
    file.write_text(f"c.NbExchange.base_storage_location = {str(used.data)!r}\n")

    assert run("check", f"--config-file={file}") == 0
    assert "22 files" in capsys.readouterr().out


@pytest.mark.sqlite
def test_the_command_line_goes_over_the_file(used: Service, tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "config.py"
    file.write_text("c.NbExchange.base_storage_location = '/nowhere'\nc.Gc.older_than = 100\n")
    orphan = blob(used, "b" * 32)
    orphan.touch()
    age(orphan, 48)

    place = f"--base-storage-location={used.data}"
    assert run("gc", f"--config-file={file}", place, "--older-than=47") == 0
    assert "1 files" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["check"], ["gc"], ["upgrade-db"], ["purge"]])
def test_a_word_that_means_nothing_is_refused_and_nothing_begins(
    tmp_path: Path, capsys: Said, command: list[str]
) -> None:
    place = tmp_path / "new"

    assert run(*command, "nonsense", f"--base-storage-location={place}") == 2
    assert (
        "Unexpected argument 'nonsense'. Options are written --option=value"
        in capsys.readouterr().err
    )
    assert not place.exists()


def test_upgrade_db_makes_the_schema_and_is_harmless_again(tmp_path: Path, capsys: Said) -> None:
    option = f"--base-storage-location={tmp_path / 'new'}"

    assert run("upgrade-db", option) == 0
    assert run("upgrade-db", option) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "The schema was empty. It is current now."
    assert second == "The schema was current. It is current now."


def test_generate_config_names_every_option_with_its_meaning(capsys: Said) -> None:
    assert run("--generate-config") == 0
    said = capsys.readouterr().out

    for name, trait in NbExchange.class_own_traits(config=True).items():
        assert f"c.NbExchange.{name} = " in said, name
        assert trait.help, name


def test_the_generated_configuration_can_be_read_back(tmp_path: Path, capsys: Said) -> None:
    run("--generate-config")
    file = tmp_path / "config.py"
    file.write_text(capsys.readouterr().out)

    assert run("upgrade-db", f"--config-file={file}", f"--base-storage-location={tmp_path}") == 0


REFUSED: dict[str, tuple[list[str], str]] = {
    "a database in memory": (["--db-url=sqlite://"], "in memory loses all coursework"),
    "a database in memory by name": (["--db-url=sqlite:///:memory:"], "in memory"),
    "a shared database in memory": (
        ["--db-url=sqlite:///file:x?mode=memory&cache=shared&uri=true"],
        "in memory",
    ),
    "no URL at all": (["--db-url=nonsense"], "is not usable"),
    "an unknown database": (["--db-url=nosuchdb://x/y"], "db_url must name"),
    "no such configuration file": (
        ["--config-file=/no/such.py"],
        "configuration file /no/such.py does not exist",
    ),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_at_the_start_in_one_line(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    code = run(f"--base-storage-location={tmp_path / 'data'}", *arguments)

    assert words in str(code)
    assert str(code).startswith("nbexchange: ")
    assert "\n" not in str(code)


OPTIONS = {
    "postgresql": ("postgresql", {"foo": "bar"}),
    "mariadb": ("mariadb", {"foo": "1"}),
    "a value": ("mariadb", {"charset": "bogus"}),
    "a file": ("mariadb", {"ssl_ca": "/no/such.pem"}),
}


@pytest.mark.parametrize("command", [(), ("upgrade-db",), ("check",)], ids=" ".join)
@pytest.mark.parametrize(("kind", "query"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_of_db_url_that_the_driver_does_not_take_is_one_line_without_a_secret(
    tmp_path: Path, command: tuple[str, ...], kind: str, query: dict[str, str]
) -> None:
    url = databases.server(kind).url.set(query=query | {"password": "a-secret"})
    option = f"--db-url={url.render_as_string(hide_password=False)}"

    code = run(*command, option, f"--base-storage-location={tmp_path / 'data'}")

    assert str(code).startswith("nbexchange: ")
    assert "after the question mark of db_url" in str(code)
    assert "a-secret" not in str(code)
    assert "\n" not in str(code)


class Broken(sqlite3.Connection):
    """A driver that fails, from some time on, at every new connection."""

    is_broken = False

    def __init__(self, *args: Any, **options: Any) -> None:
        if self.is_broken:
            raise TypeError("not what we expected")
        super().__init__(*args, **options)


def test_what_a_driver_says_later_is_no_fault_of_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'nbexchange.sqlite'}"
    with contextlib.closing(Database(url, connect_args={"factory": Broken})) as database:
        database.prepare()
        database.engine.dispose()
        monkeypatch.setattr(Broken, "is_broken", True)

        with pytest.raises(TypeError):
            database.schema.state()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_data_directory_that_cannot_be_is_one_clear_line_and_a_status(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()

    done = run_program("--ip=127.0.0.1", "--port=0", f"--base-storage-location={tmp_path / place}")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "base_storage_location" in line
    assert str(tmp_path / place) in line


def test_a_port_that_is_taken_is_one_clear_line_and_a_status(service: Service) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_program("--ip=127.0.0.1", f"--port={port}", here(service))

    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr.splitlines()[-1]
    assert "--port" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_database_that_is_no_database_is_said_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "nbexchange.sqlite").write_bytes(b"something else entirely" * 100)

    done = run_program("check", f"--base-storage-location={tmp_path}")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
