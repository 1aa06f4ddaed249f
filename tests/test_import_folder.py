"""nbexchange import-folder: nbgrader's own exchange, or an export, becomes rows and blobs."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from nbexchange.archive import ArchiveLimits, Contents, unpack
from nbexchange.commands.untrusted_files import check_owner, copy_plain
from nbexchange.errors import BadArchive, Forbidden
from nbexchange.exchange.upkeep.importing import (
    ImportedBlob,
    OldRelease,
    OldSubmission,
    import_people,
    import_release,
    import_submission,
)
from nbexchange.storage import Blob
from nbexchange.text import is_safe
from tests.support import course, databases, places
from tests.support.archives import NOTEBOOK, sha256, tar_gz, tar_gz_of, upload_headers
from tests.support.commands import run_for
from tests.support.course import give_feedback, receipt, release, submit
from tests.support.service import Service

Said = pytest.CaptureFixture[str]

FIRST, SECOND = "2026-03-01 10:00:00.000001 UTC", "2026-03-02 10:00:00.500000 UTC"


class Exchange:
    """A course in nbgrader's own exchange, as nbgrader leaves it."""

    def __init__(self, root: Path, course_id: str = "physics") -> None:
        self.root = root
        self.course_id = course_id
        self.folder = root / course_id
        for name in ("outbound", "inbound", "feedback"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def release(self, assignment_id: str = "ps1", content: bytes = NOTEBOOK) -> Path:
        folder = self.folder / "outbound" / assignment_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "p1.ipynb").write_bytes(content)
        return folder

    def hand_in(
        self,
        student: str,
        timestamp: str = FIRST,
        assignment_id: str = "ps1",
        content: bytes = b"work",
        *,
        secret: str | None = None,
        random: str = "+aB3_-c=",
    ) -> Path:
        folder = self.folder / "inbound" / f"{student}+{assignment_id}+{timestamp}{random}"
        folder.mkdir()
        (folder / "p1.ipynb").write_bytes(content)
        (folder / "timestamp.txt").write_text(timestamp)
        secret = secrets.token_hex(64) if secret is None else secret
        if secret:
            (folder / "submission_secret.txt").write_text(secret)
        return folder

    def give_feedback(self, submission: Path, html: bytes = b"<p>good</p>") -> Path:
        secret = (submission / "submission_secret.txt").read_text()
        return self.put_feedback(f"{secret}p1".encode(), html)

    def put_feedback(self, hashed: bytes, html: bytes = b"<p>good</p>") -> Path:
        path = self.folder / "feedback" / f"{hashlib.md5(hashed).hexdigest()}.html"
        path.write_bytes(html)
        return path


@pytest.fixture
def exchange(tmp_path: Path) -> Exchange:
    """One assignment, three submissions of two students, and feedback on one of them."""
    exchange = Exchange(tmp_path / "exchange")
    exchange.release()
    exchange.give_feedback(exchange.hand_in("bob", FIRST, content=b"first"))
    exchange.hand_in("bob", SECOND, content=b"second")
    exchange.hand_in("chloe", FIRST, content=b"chloe's")
    return exchange


def bring(
    service: Service, exchange: Exchange | Path, *arguments: str, config: str = ""
) -> int | str | None:
    root = exchange.root if isinstance(exchange, Exchange) else exchange
    return run_for(
        service, "import-folder", str(root), "--instructor=ada", *arguments, config=config
    )


def counted(said: str) -> dict[str, list[int]]:
    """The table: imported, already there, refused."""
    return {
        name: [int(number) for number in numbers.split()]
        for name, numbers in re.findall(r"^(release|submission|feedback) +(.*)$", said, re.M)
    }


def collected(service: Service) -> dict[tuple[str, str], dict[str, bytes]]:
    """What an instructor collects."""
    ada = service.instructor()
    return {
        (row["student_id"], row["timestamp"]): files_of(course.collect(ada, row["path"]).content)
        for row in course.submissions(ada)
    }


def files_of(body: bytes) -> dict[str, bytes]:
    place = Path(os.environ["PYTEST_TMP"]) / secrets.token_hex(8)
    unpack(io.BytesIO(body), place)
    return files(place)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def _unpacking_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path / "unpacked"))


def rows(service: Service) -> dict[str, int]:
    tables = ("release", "submission", "feedback", "event", "user")
    return {table: len(course.rows(service, table)) for table in tables}


# -- what comes over


def test_every_submission_comes_over_with_its_files_and_its_time(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    assert bring(service, exchange) == 0

    assert counted(capsys.readouterr().out) == {
        "release": [1, 0, 0],
        "submission": [3, 0, 0],
        "feedback": [1, 0, 0],
    }
    inbound = exchange.folder / "inbound"
    expected = {
        (folder.name.split("+")[0], folder.name.split("+")[2]): files(folder)
        for folder in inbound.iterdir()
    }
    assert collected(service) == expected
    course.assert_every_row_has_its_bytes(service)


def test_students_fetch_the_release_and_their_feedback(
    service: Service, exchange: Exchange
) -> None:
    bring(service, exchange)
    bob, chloe = service.student(), service.student(name="chloe")

    assert files_of(bob.get("assignment", **course.PS1).content) == {"p1.ipynb": NOTEBOOK}
    (feedback,) = bob.get("feedback", **course.PS1).json()["feedback"]
    assert (feedback["submission_timestamp"], feedback["filename"]) == (FIRST, "p1.html")
    assert chloe.get("feedback", **course.PS1).json()["feedback"] == []


def test_work_goes_on_after_what_was_imported(service: Service, exchange: Exchange) -> None:
    bring(service, exchange)

    said = receipt(submit(service.student()))

    assert said["version"] == 1
    assert said["timestamp"] > SECOND
    times = [row["timestamp"] for row in course.submissions(service.student())]
    assert times == [said["timestamp"], SECOND, FIRST]


def test_events_say_that_it_was_imported(service: Service, exchange: Exchange) -> None:
    bring(service, exchange)

    events = course.rows(service, "event")
    assert {event["detail"] for event in events} == {"imported"}
    assert [event["action"] for event in events] == [
        "released",
        *["submitted"] * 3,
        "feedback_released",
    ]


def test_running_it_again_imports_nothing_twice(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    bring(service, exchange)
    before, stored = rows(service), service.files()
    capsys.readouterr()

    assert bring(service, exchange) == 0

    assert counted(capsys.readouterr().out) == {
        "release": [0, 1, 0],
        "submission": [0, 3, 0],
        "feedback": [0, 1, 0],
    }
    assert (rows(service), service.files()) == (before, stored)


def test_what_came_since_is_imported_the_next_time(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    bring(service, exchange)
    exchange.release(content=b'{"a": "better one"}')
    exchange.give_feedback(exchange.hand_in("dmitri"))
    (old,) = (exchange.folder / "inbound").glob(f"bob+ps1+{FIRST}*")
    exchange.give_feedback(old, b"on second thoughts")
    capsys.readouterr()

    assert bring(service, exchange) == 0

    assert counted(capsys.readouterr().out) == {
        "release": [1, 0, 0],
        "submission": [1, 3, 0],
        "feedback": [2, 0, 0],
    }
    assert [row["version"] for row in course.rows(service, "release")] == [1, 2]
    feedback = [(row["submission_pk"], row["version"]) for row in course.rows(service, "feedback")]
    first, *_, last = [row["id"] for row in course.rows(service, "submission")]
    assert sorted(feedback) == [(first, 1), (first, 2), (last, 1)]


def test_a_dry_run_tells_the_same_and_writes_nothing(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    (exchange.folder / "inbound" / "nonsense").mkdir()
    before = rows(service), service.files()

    assert bring(service, exchange, "--dry-run") == 1
    dry = capsys.readouterr().out
    assert "dry run" in dry
    assert (rows(service), service.files()) == before

    bring(service, exchange)
    assert counted(capsys.readouterr().out) == counted(dry)


def test_submissions_to_what_is_released_no_more_come_over_and_it_stays_hidden(
    service: Service, exchange: Exchange
) -> None:
    shutil.rmtree(exchange.folder / "outbound" / "ps1")

    assert bring(service, exchange) == 0

    assert len(collected(service)) == 3
    assert service.student().get("assignment", **course.PS1).status_code == 404


@pytest.mark.parametrize("stands_in", [False, True], ids=["release", "stand-in"])
def test_of_two_imports_at_once_the_second_brings_nothing(
    service: Service, stands_in: bool
) -> None:
    """Both have looked before, when neither had brought anything."""
    release = OldRelease(1, "physics", "ps1", "ada", "its release", stands_in=stands_in)
    handed_in = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    work = OldSubmission(1, "physics", "ps1", "bob", handed_in, "its work")
    contents = Contents(1, 5, ("p1.ipynb",), None)
    blobs = [Blob(secrets.token_hex(16), "0" * 64, 5) for _ in range(4)]

    with Session(databases.engine_of(databases.database_of(service.data))) as session:
        kept = [import_release(session, release, blob, contents) for blob in blobs[:2]]
        kept += [import_submission(session, work, blob, contents) for blob in blobs[2:]]

    first, other = blobs[0].key, blobs[2].key
    assert kept == [
        ImportedBlob(True, first),
        ImportedBlob(False, first),
        ImportedBlob(True, other),
        ImportedBlob(False, other),
    ]


def test_work_that_was_packed_otherwise_since_is_not_imported_again(service: Service) -> None:
    """It is known by where it comes from; another version may make other bytes of it."""
    release = OldRelease(1, "physics", "ps1", "ada", "its release")
    handed_in = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    work = OldSubmission(1, "physics", "ps1", "bob", handed_in, "its work")
    contents = Contents(1, 5, ("p1.ipynb",), None)
    first, again = (Blob(secrets.token_hex(16), digit * 64, 5) for digit in "01")

    with Session(databases.engine_of(databases.database_of(service.data))) as session:
        import_release(session, release, first, contents)
        import_submission(session, work, first, contents)

        assert import_submission(session, work, again, contents) == ImportedBlob(False, first.key)


def test_a_release_that_is_refused_holds_up_no_submission(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    (exchange.folder / "outbound" / "ps1" / "link").symlink_to("/etc/passwd")

    assert bring(service, exchange) == 1

    assert counted(capsys.readouterr().out)["submission"] == [3, 0, 0]


def test_only_the_course_that_is_named_comes_over(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    Exchange(exchange.root, "maths").release()

    bring(service, exchange, "--course=maths", "--org=3")

    assert [(row["org_id"], row["course_id"]) for row in course.rows(service, "course")] == [
        (3, "maths")
    ]


# -- what is done here is not replaced


def test_a_release_that_was_made_here_is_not_replaced(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    receipt(release(service.instructor(), tar_gz(p1=b"newer")))

    assert bring(service, exchange) == 1

    assert "newer version, which is not replaced" in capsys.readouterr().out
    assert len(course.rows(service, "release")) == 1


def test_feedback_that_was_given_here_is_not_replaced(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    bring(service, exchange)
    ada = service.instructor()
    (bobs,) = [
        row
        for row in course.submissions(ada)
        if row["timestamp"] == FIRST and row["student_id"] == "bob"
    ]
    receipt(give_feedback(ada, bobs["path"], b"newer"))
    (old,) = (exchange.folder / "inbound").glob(f"bob+ps1+{FIRST}*")
    exchange.give_feedback(old, b"changed there too")

    assert bring(service, exchange) == 1

    assert "newer version" in capsys.readouterr().out
    assert len(course.rows(service, "feedback")) == 2


def test_what_is_known_of_people_stays(service: Service, exchange: Exchange) -> None:
    chloe = service.wire(service.enrol("chloe", {"physics": "Instructor"}, full_name="Chloe C"))
    receipt(release(chloe, tar_gz_of({"p1.ipynb": NOTEBOOK})))

    bring(service, exchange)

    roles = {row["user_pk"]: row["role"] for row in course.rows(service, "subscription")}
    known = {
        row["name"]: (row["full_name"], roles[row["id"]]) for row in course.rows(service, "user")
    }
    assert known["chloe"] == ("Chloe C", "Instructor")
    assert known["bob"] == (None, "Student")


def forged_key(exchange: Exchange, name: str) -> str:
    origin = sha256("\0".join((exchange.course_id, name)).encode())
    return f"imported:{origin}:"


@pytest.mark.parametrize("sign", ["", "§"], ids=["as it once was", "as it is"])
def test_no_client_can_take_the_key_of_something_to_import(
    service: Service, exchange: Exchange, capsys: Said, sign: str
) -> None:
    receipt(release(service.instructor(), body := tar_gz(p1=NOTEBOOK)))
    (old,) = (exchange.folder / "inbound").glob("chloe+*")
    chloe = service.student(name="chloe")
    key = (sign + forged_key(exchange, old.name)).encode("latin-1")
    given = chloe.post("submission", body, upload_headers(body, key=key), **course.PS1)
    assert given.status_code == (400 if sign else 201)

    bring(service, exchange)

    assert counted(capsys.readouterr().out)["submission"] == [3, 0, 0]


def test_a_release_that_was_taken_back_here_stays_so(service: Service, exchange: Exchange) -> None:
    bring(service, exchange)
    service.instructor().delete("assignment", **course.PS1)
    exchange.release(content=b'{"a": "better one"}')

    assert bring(service, exchange) == 0

    assert len(course.rows(service, "release")) == 2
    assert service.student().get("assignment", **course.PS1).status_code == 404


# -- whose folders count


def strangers(folder: Path) -> None:
    """Give it to somebody else, with all that is in it."""
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, 54321, 54321)


def course_in_an_open_root(exchange: Exchange) -> Path:
    exchange.root.chmod(0o777)
    return exchange.folder


def course_in_a_root_open_to_a_group(exchange: Exchange) -> Path:
    exchange.root.chmod(0o770)
    return exchange.folder


def outbound_in_an_open_course(exchange: Exchange) -> Path:
    exchange.folder.chmod(0o777)
    return exchange.folder / "outbound"


def feedback_in_an_open_course(exchange: Exchange) -> Path:
    exchange.folder.chmod(0o777)
    return exchange.folder / "feedback"


def release_in_an_open_outbound(exchange: Exchange) -> Path:
    (exchange.folder / "outbound").chmod(0o777)
    return exchange.folder / "outbound" / "ps1"


def file_in_an_open_feedback(exchange: Exchange) -> Path:
    (exchange.folder / "feedback").chmod(0o777)
    return next((exchange.folder / "feedback").iterdir())


STRANGERS: dict[str, Callable[[Exchange], Path]] = {
    "a course": course_in_an_open_root,
    "a course, where a group may write": course_in_a_root_open_to_a_group,
    "outbound": outbound_in_an_open_course,
    "feedback": feedback_in_an_open_course,
    "a release": release_in_an_open_outbound,
    "a file of feedback": file_in_an_open_feedback,
}


@pytest.mark.parametrize("what", STRANGERS.values(), ids=STRANGERS)
def test_what_a_stranger_may_have_put_there_is_refused_until_he_is_named_an_owner(
    service: Service, exchange: Exchange, capsys: Said, what: Callable[[Exchange], Path]
) -> None:
    strangers(what(exchange))

    assert bring(service, exchange) == 1
    said = capsys.readouterr().out
    assert re.search("REFUSED: .*It belongs to 54321, .* Add --owner=54321", said)

    assert bring(service, exchange, "--owner=root", "--owner=54321") == 0
    assert {name: len(course.rows(service, name)) for name in ("release", "submission")} == {
        "release": 1,
        "submission": 3,
    }


def test_where_only_the_owner_may_write_all_courses_are_his(
    service: Service, exchange: Exchange
) -> None:
    strangers(exchange.folder)

    assert bring(service, exchange) == 0


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o770, 0o755])
def test_an_owner_counts_only_where_others_may_write(tmp_path: Path, mode: int) -> None:
    (path := tmp_path / "open" / "course").mkdir(parents=True)
    path.parent.chmod(mode)

    check_owner(path, {path.stat().st_uid}, group_too=True)
    if mode == 0o755:
        check_owner(path, (), group_too=True)
    else:
        with pytest.raises(Forbidden, match="Add --owner="):
            check_owner(path, (), group_too=True)


# -- feedback finds its submission


def test_feedback_of_older_nbgraders_is_matched_by_the_notebook_and_the_names(
    service: Service, exchange: Exchange
) -> None:
    exchange.hand_in("dmitri", content=b"dmitri's", secret="")
    exchange.put_feedback(b"dmitri's" + f"physics+ps1+p1+dmitri+{FIRST}".encode())
    exchange.hand_in("emmy", content=b"emmy's", secret="")
    exchange.put_feedback(b"emmy's")

    assert bring(service, exchange) == 0

    for name in ("dmitri", "emmy"):
        found = service.student(name=name).get("feedback", **course.PS1).json()["feedback"]
        assert len(found) == 1, name


def test_feedback_that_may_be_about_several_submissions_is_not_guessed(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    for name in ("dmitri", "emmy"):
        exchange.hand_in(name, content=b"copied", secret="")
    path = exchange.put_feedback(b"copied")

    assert bring(service, exchange) == 1

    said = capsys.readouterr().out
    assert f"REFUSED: {path}: It may belong to several identical submissions" in said
    assert len(course.rows(service, "feedback")) == 1


def test_feedback_on_nothing_is_refused_and_named(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    path = exchange.put_feedback(b"whatever")

    assert bring(service, exchange) == 1
    assert f"REFUSED: {path}: It does not belong to any submission" in capsys.readouterr().out


def test_feedback_on_a_submission_that_was_refused_is_refused_too(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    folder = exchange.hand_in("dmitri", "2099-01-01 00:00:00.000000 UTC")
    exchange.give_feedback(folder)

    assert bring(service, exchange, "--dry-run") == 1
    dry = counted(capsys.readouterr().out)
    assert bring(service, exchange) == 1

    assert counted(capsys.readouterr().out) == dry
    assert dry["submission"] == [3, 0, 1]
    assert dry["feedback"] == [1, 0, 1]


WARNING = re.compile(r"WARNING: .*/(\S+)\+ps1\+.*: (It is named after .*)\. Ask both")


def owned(folder: Path, owner: int) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner)


def test_a_folder_that_its_name_does_not_own_comes_over_with_a_warning_that_names_both(
    service: Service, exchange: Exchange, tmp_path: Path, capsys: Said
) -> None:
    daemon = pwd.getpwnam("daemon")
    owned(exchange.hand_in("daemon", FIRST), daemon.pw_uid)
    owned(exchange.hand_in("eve", FIRST), daemon.pw_uid)
    report = tmp_path / "report.json"

    assert bring(service, exchange, f"--report={report}") == 0

    said = capsys.readouterr().out
    warning = "It is named after eve and belongs to daemon, who also owns folders of daemon"
    assert WARNING.findall(said) == [("eve", warning)]
    (warned,) = [one for one in json.loads(report.read_text())["items"] if "warning" in one]
    assert warned["student"] == "eve"
    assert warned["outcome"] == "imported"
    assert counted(said)["submission"] == [5, 0, 0]


def test_owners_of_another_machine_are_compared_with_each_other(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    owned(exchange.hand_in("eve", FIRST), 54321)
    owned(exchange.hand_in("mallory", FIRST), 54322)
    owned(exchange.hand_in("alice", FIRST), 54322)

    assert bring(service, exchange) == 0

    assert WARNING.findall(capsys.readouterr().out) == [
        ("alice", "It is named after alice and belongs to 54322, who also owns folders of mallory"),
        (
            "mallory",
            "It is named after mallory and belongs to 54322, who also owns folders of alice",
        ),
    ]


def test_an_owner_who_counts_may_hand_in_for_a_student(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    owned(exchange.hand_in("eve", FIRST), pwd.getpwnam("daemon").pw_uid)

    assert bring(service, exchange, "--owner=daemon") == 0

    assert "WARNING" not in capsys.readouterr().out


def test_a_hard_link_to_the_file_of_another_owner_is_refused(
    service: Service, exchange: Exchange, tmp_path: Path, capsys: Said
) -> None:
    """Its reader would get what the student may not read."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"for the administrator")
    submission = exchange.hand_in("eve", FIRST)
    owned(submission, 54321)
    (submission / "answers").hardlink_to(secret)
    release = exchange.release("ps2")
    owned(release, 54321)
    (release / "answers").hardlink_to(secret)
    feedback = exchange.put_feedback(b"p1")
    feedback.unlink()
    feedback.hardlink_to(secret)
    owned_by_eve = exchange.folder / "feedback"
    os.chown(owned_by_eve, 54321, 54321)

    assert bring(service, exchange, "--owner=54321") == 1

    said = capsys.readouterr().out
    assert counted(said)["submission"] == [3, 0, 1]
    assert counted(said)["release"] == [1, 0, 1]
    assert "It contains a hard link to a file of root: 'answers', in a folder of 54321" in said
    for key in course.blobs(service):
        assert b"for the administrator" not in service.content(key)


def test_hard_links_of_one_owner_come_over_as_copies(
    service: Service, exchange: Exchange, capsys: Said
) -> None:
    """As in a backup that shares what has not changed."""
    submission = exchange.hand_in("eve", FIRST)
    (submission / "again.ipynb").hardlink_to(submission / "p1.ipynb")

    assert bring(service, exchange) == 0

    assert collected(service)["eve", FIRST]["again.ipynb"] == b"work"


# -- one that is bad never stops the rest


def link(folder: Path) -> None:
    (folder / "answers").symlink_to("/etc/passwd")


def link_to_a_folder(folder: Path) -> None:
    (folder / "answers").symlink_to(folder.parent)


def dangling(folder: Path) -> None:
    (folder / "p1.ipynb").unlink()
    (folder / "p1.ipynb").symlink_to("nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def deep(folder: Path) -> None:
    (folder / "/".join("d" * 70)).mkdir(parents=True)


def twins(folder: Path) -> None:
    (folder / "P1.ipynb").write_bytes(b"another")


def backslash(folder: Path) -> None:
    (folder / "a\\b").write_bytes(b"")


def not_utf8(folder: Path) -> None:
    os.mkdir(os.fsencode(folder) + b"/\xff")


def notebook_not_utf8(folder: Path) -> None:
    """As nbgrader on a disk of another time leaves it; its feedback has the old name."""
    (folder / "submission_secret.txt").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.ipynb")).touch()


def itself_not_utf8(folder: Path) -> None:
    (folder / "submission_secret.txt").unlink()
    os.rename(folder, os.fsencode(folder.parent) + f"/d\xe9+ps1+{FIRST}".encode("latin-1"))


def too_many_notebooks(folder: Path) -> None:
    for number in range(251):
        (folder / f"n{number}.ipynb").touch()


def too_many_files(folder: Path) -> None:
    for number in range(400):
        (folder / f"n{number}").touch()


def too_large(folder: Path) -> None:
    with (folder / "hole").open("wb") as file:
        file.truncate(20 * 1024 * 1024)


def itself_a_link(folder: Path) -> None:
    shutil.move(folder, folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "elsewhere")


def renamed(name: str) -> Callable[[Path], None]:
    return lambda folder: folder.rename(folder.with_name(name)) and None


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a link": (link, "a symbolic link: 'answers'"),
    "a link to a folder": (link_to_a_folder, "a symbolic link"),
    "a link that leads nowhere": (dangling, "a symbolic link: 'p1.ipynb'"),
    "a named pipe": (pipe, "a special file: 'pipe'"),
    "too deep": (deep, "folders deep"),
    "names that are one on many disks": (twins, "many disks take the two for one"),
    "a backslash": (backslash, "backslash"),
    "a name that is not UTF-8": (not_utf8, "not UTF-8"),
    "a notebook's name that is not UTF-8": (notebook_not_utf8, "not UTF-8"),
    "its own name that is not UTF-8": (itself_not_utf8, "Its name is not UTF-8"),
    "too many notebooks": (too_many_notebooks, "more than 250 notebooks"),
    "too many files": (too_many_files, "more than 300 files and folders"),
    "too large": (too_large, "more than 16 MiB"),
    "a link itself": (itself_a_link, "cannot be read or copied"),
    "no assignment": (renamed(f"dmitri+{FIRST}"), "Its name is ambiguous"),
    "no time": (renamed("dmitri+ps1+yesterday"), "Its name is not"),
    "a time that does not exist": (
        renamed("d+ps1+2026-02-30 10:00:00.000000 UTC"),
        "does not exist",
    ),
    "a time before all others": (
        renamed("d+ps1+0999-01-01 00:00:00.000000 UTC"),
        "is before the year 1970",
    ),
    "a zone of several meanings": (renamed("d+ps1+2026-02-03 10:00:00.000000 IST"), "zone 'IST'"),
    "a time to come": (renamed("d+ps1+2099-01-01 00:00:00.000000 UTC"), "is in the future"),
    "a plus in the name": (renamed(f"a+b+c+{FIRST}"), "Its name is ambiguous"),
    "a student who cannot be": (renamed(f"{'d' * 201}+ps1+{FIRST}"), "cannot be a name here"),
    "an escape for the terminal": (renamed(f"\x1b[2J+ps1+{FIRST}"), r"cannot be a name here"),
    "a name that turns text round": (renamed(f"\u202exeve+ps1+{FIRST}"), r"cannot be a name"),
}


@pytest.mark.parametrize(("spoil", "words"), BAD.values(), ids=BAD)
def test_a_bad_folder_is_refused_and_named_and_the_rest_comes_over(
    service: Service,
    exchange: Exchange,
    tmp_path: Path,
    capsys: Said,
    spoil: Callable[[Path], Any],
    words: str,
) -> None:
    config = "c.NbExchange.max_entries = 300\nc.NbExchange.max_expanded_size = 16 * 1024 * 1024\n"
    spoil(exchange.hand_in("dmitri"))
    report = tmp_path / "report.json"

    assert bring(service, exchange, f"--report={report}", config=config) == 1

    said = capsys.readouterr().out
    assert counted(said)["submission"] == [3, 0, 1]
    assert is_safe(said.replace("\n", ""))
    (refused,) = [
        one for one in json.loads(report.read_text())["items"] if one["outcome"] == "refused"
    ]
    assert words in refused["reason"]
    assert len(collected(service)) == 3
    assert len(service.files()) == len(course.blobs(service))


def test_a_plus_in_a_name_is_read_by_the_assignments_that_are_there(
    service: Service, exchange: Exchange
) -> None:
    exchange.hand_in("d+mitri")

    assert bring(service, exchange) == 0

    assert ("d+mitri", FIRST) in collected(service)


TIMES = {
    "2026-03-01 10:00:00.000001 UTC": "2026-03-01 10:00:00.000001 UTC",
    "2026-03-01 10:00:00.5": "2026-03-01 10:00:00.500000 UTC",
    "2026-03-01 10:00:00 Z": "2026-03-01 10:00:00.000000 UTC",
    "2026-03-01 10:00:00.000001 -0500": "2026-03-01 15:00:00.000001 UTC",
    "2026-03-01 10:00:00.000001 +0545": "2026-03-01 04:15:00.000001 UTC",
}


@pytest.mark.parametrize(("written", "meant"), TIMES.items(), ids=TIMES)
@pytest.mark.parametrize("random", ["", "+aB3_-c="], ids=["without a random name", "with one"])
def test_times_are_read_as_they_were_written(
    service: Service, tmp_path: Path, written: str, meant: str, random: str
) -> None:
    exchange = Exchange(tmp_path / "exchange")
    exchange.release()
    exchange.hand_in("bob", written, random=random)

    assert bring(service, exchange) == 0
    assert [time for _, time in collected(service)] == [meant]


def test_what_becomes_a_link_while_we_look_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student may win the race between the look and the opening."""
    secret, folder = tmp_path / "secret", tmp_path / "folder"
    secret.write_text("for the operator only")
    folder.mkdir()
    (folder / "p1.ipynb").write_text("mine")
    real = os.stat

    def swapped(path: Any, **how: Any) -> os.stat_result:
        found = real(path, **how)
        if path == "p1.ipynb":
            (folder / path).unlink()
            (folder / path).symlink_to(secret)
        return found

    monkeypatch.setattr(os, "stat", swapped)
    with pytest.raises((OSError, BadArchive)):
        copy_plain(folder, tmp_path / "copy", ArchiveLimits())
    assert files(tmp_path / "copy") == {}


ENDLESS = {
    "large": (too_large, ArchiveLimits(expanded_size=1024 * 1024)),
    "many": (too_many_files, ArchiveLimits(entries=10)),
}


@pytest.mark.parametrize(("spoil", "limits"), ENDLESS.values(), ids=ENDLESS)
def test_a_folder_beyond_the_limits_does_not_fill_our_disk_before_it_is_refused(
    tmp_path: Path, spoil: Callable[[Path], Any], limits: ArchiveLimits
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    spoil(folder)

    with pytest.raises(BadArchive):
        copy_plain(folder, tmp_path / "copy", limits)

    copied = list((tmp_path / "copy").iterdir())
    assert len(copied) <= limits.entries
    assert sum(path.stat().st_size for path in copied) <= limits.expanded_size


# -- an export comes back


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Service]:
    """Another, empty service."""
    data = tmp_path / "elsewhere" / "data"
    data.mkdir(parents=True)
    with Service(data) as running:
        yield running


NAMES = ["bob", "Bob", "../up", "a+b", "🎓"]


@pytest.fixture
def used(service: Service) -> Service:
    ada = service.instructor()
    receipt(release(ada, tar_gz(p1=b"a first try")))
    receipt(release(ada, tar_gz(p1=b"the second")))
    receipt(release(ada, tar_gz(p1=b"a first try")))
    for number, name in enumerate(NAMES):
        stand_in = name.replace("../", "")
        token = service.enrol(
            stand_in, {"physics": "Student"}, token=f"t{number}", email=f"{number}@x"
        )
        for work in range(2):
            body = tar_gz_of({"p1.ipynb": f"{name} {work}".encode(), "empty": None})
            given = receipt(submit(service.wire(token), body))
        for html in (b"bad", b"good", b"good"):
            receipt(give_feedback(ada, given["submission_id"], html))
    databases.rename(service.data, "user", "name", {"up": "../up"})
    return service


@pytest.fixture
def exported(used: Service, tmp_path: Path) -> Path:
    place = tmp_path / "exported"
    assert run_for(used, "export", str(place)) == 0
    return place


def facts(service: Service) -> dict[str, Any]:
    """What is stored of the course, without what is only a number or a name of ours."""
    names = {row["id"]: row["name"] for row in course.rows(service, "user")}
    handed_in = {row["id"]: row for row in course.rows(service, "submission")}
    versions = {row["id"]: row["version"] for row in course.rows(service, "release")}
    return {
        "releases": [
            (row["version"], row["sha256"], row["timestamp"], names[row["user_pk"]])
            for row in course.rows(service, "release")
        ],
        "submissions": sorted(
            (
                names[row["user_pk"]],
                row["timestamp"],
                row["sha256"],
                row["client_timestamp"],
                versions[row["release_pk"]],
            )
            for row in handed_in.values()
        ),
        "feedback": sorted(
            (
                names[handed_in[row["submission_pk"]]["user_pk"]],
                handed_in[row["submission_pk"]]["timestamp"],
                row["notebook_id"],
                row["version"],
                row["sha256"],
                row["timestamp"],
            )
            for row in course.rows(service, "feedback")
        ),
        "people": sorted((row["name"], row["email"]) for row in course.rows(service, "user")),
        "assignments": [
            (row["assignment_id"], row["released"]) for row in course.rows(service, "assignment")
        ],
    }


def test_an_export_gives_back_every_version_of_everything_byte_by_byte(
    used: Service, exported: Path, elsewhere: Service, capsys: Said
) -> None:
    assert bring(elsewhere, exported, "--from-export") == 0

    assert counted(capsys.readouterr().out) == {
        "release": [3, 0, 0],
        "submission": [10, 0, 0],
        "feedback": [15, 0, 0],
    }
    assert facts(elsewhere) == facts(used)
    assert len(elsewhere.files()) == len(used.files())
    course.assert_every_row_has_its_bytes(elsewhere)
    assert {path.name for path in elsewhere.files()} == set(course.blobs(elsewhere))
    assert contents(elsewhere) == contents(used)


def contents(service: Service) -> list[str]:
    return sorted(set(course.blobs(service).values()))


def test_an_export_is_not_imported_twice_nor_where_it_came_from(
    used: Service, exported: Path, elsewhere: Service, capsys: Said
) -> None:
    bring(elsewhere, exported, "--from-export")
    for service in (elsewhere, used):
        before = rows(service), service.files()
        capsys.readouterr()

        assert bring(service, exported, "--from-export") == 0

        assert [row[0] for row in counted(capsys.readouterr().out).values()] == [0, 0, 0]
        assert (rows(service), service.files()) == before


def test_an_export_that_was_used_as_an_exchange_gives_back_what_came_since(
    exported: Path, elsewhere: Service, capsys: Said
) -> None:
    exchange = Exchange(exported)
    exchange.give_feedback(exchange.hand_in("zoe"))

    assert bring(elsewhere, exchange, "--from-export") == 0

    said = counted(capsys.readouterr().out)
    assert (said["submission"], said["feedback"]) == ([11, 0, 0], [16, 0, 0])


def test_unless_it_is_called_an_export_it_is_an_exchange_like_any_other(
    used: Service, exported: Path, elsewhere: Service, capsys: Said
) -> None:
    bring(elsewhere, exported)
    assert "manifest.json is not read" in capsys.readouterr().out

    expected = {("bob", row["timestamp"]) for row in course.submissions(used.student())}
    assert expected <= set(collected(elsewhere))
    body = elsewhere.student().get("assignment", **course.PS1).content
    assert files_of(body) == {"p1.ipynb": b"a first try"}


def test_an_altered_file_of_an_export_is_refused_and_the_rest_comes_over(
    exported: Path, elsewhere: Service, capsys: Said
) -> None:
    manifest = json.loads((exported / "physics" / "manifest.json").read_text())
    altered = exported / "physics" / manifest["submissions"][0]["archive"]
    altered.write_bytes(tar_gz(p1=b"a better answer"))

    assert bring(elsewhere, exported, "--from-export") == 1

    said = capsys.readouterr().out
    assert f"REFUSED: {altered}: Its bytes do not match the sha256 in manifest.json" in said
    assert counted(said)["submission"] == [9, 0, 1]


@pytest.fixture
def begun(elsewhere: Service) -> Service:
    """A service where the course goes on already, with the first release of the other one."""
    receipt(release(elsewhere.instructor(), tar_gz(p1=b"a first try")))
    return elsewhere


def test_versions_of_an_export_do_not_replace_a_release_that_was_made_here(
    exported: Path, begun: Service, capsys: Said
) -> None:
    begun.instructor().delete("assignment", **course.PS1)

    assert bring(begun, exported, "--from-export") == 1

    said = capsys.readouterr().out
    assert "newer version, which is not replaced" in said
    assert counted(said)["release"] == [0, 1, 2]
    (assignment,) = course.rows(begun, "assignment")
    assert not assignment["released"]


def test_versions_of_an_export_do_not_replace_feedback_that_was_given_here(
    exported: Path, elsewhere: Service, capsys: Said
) -> None:
    path = exported / "physics" / "manifest.json"
    whole = json.loads(path.read_text())
    first = {**whole, "submissions": [one | {"feedback": []} for one in whole["submissions"]]}
    path.write_text(json.dumps(first))
    bring(elsewhere, exported, "--from-export")
    ada = elsewhere.instructor()
    (about,) = [one for one in whole["submissions"] if one["student"] == "bob" and one["feedback"]]
    (bobs,) = [
        row
        for row in course.submissions(ada)
        if (row["student_id"], row["timestamp"]) == ("bob", about["timestamp"])
    ]
    receipt(give_feedback(ada, bobs["path"], b"bad"))
    path.write_text(json.dumps(whole))
    capsys.readouterr()

    assert bring(elsewhere, exported, "--from-export") == 1

    said = capsys.readouterr().out
    assert "newer version, which is not replaced" in said
    assert counted(said)["feedback"] == [12, 1, 2]


def test_a_manifest_is_not_believed_unless_the_operator_says_so(
    service: Service, exchange: Exchange, exported_of_a_student: Path, capsys: Said
) -> None:
    assert bring(service, exchange) == 0

    said = capsys.readouterr().out
    assert f"{exported_of_a_student / 'manifest.json'} is not read" in said
    assert counted(said)["submission"] == [3, 0, 0]


def test_two_folders_that_claim_one_course_are_refused(
    service: Service, exchange: Exchange, exported_of_a_student: Path, capsys: Said
) -> None:
    Exchange(exchange.root, "maths").release()

    assert bring(service, exchange, "--from-export") == 1

    said = capsys.readouterr().out
    for folder in (exchange.folder, exported_of_a_student):
        assert f"REFUSED: {folder}: Another folder has the same course id 'physics'" in said
    assert "2 folders were refused" in said
    assert [row["course_id"] for row in course.rows(service, "course")] == ["maths"]


@pytest.fixture
def exported_of_a_student(exchange: Exchange) -> Path:
    """A folder that says it is the course of another."""
    (folder := exchange.root / "aaa").mkdir()
    (folder / "outbound").mkdir()
    told = {"format": "nbexchange export 1", "course_id": "physics"}
    (folder / "manifest.json").write_text(json.dumps(told))
    return folder


ROW = {"assignment_id": "ps1", "student": "bob", "id": "1", "version": 1, "feedback": []}

NONSENSE: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "cannot be read"),
    "no text": (b"\xff\xfe\x00", "cannot be read"),
    "endless depth": ("[" * 200_000, "cannot be read"),
    "no course": ({"course_id": None}, "has no valid course id"),
    "a course of no name": ({"course_id": "a\nb"}, "has no valid course id"),
    "lists that are none": ({"submissions": {"a": 1}}, "is malformed"),
    "a roster that is none": ({"people": 5}, "is malformed"),
    "rows that are none": ({"releases": [1]}, "is malformed"),
    "feedback that is none": ({"submissions": [ROW | {"feedback": 3}]}, "is malformed"),
    "an empty person": ({"people": [{}]}, "is malformed there"),
    "a person of no name": (
        {"people": [{"name": "", "role": "", "last_seen": FIRST}]},
        "cannot be a name",
    ),
    "a person of strange things": (
        {"people": [{"name": "bob", "role": "", "last_seen": FIRST, "email": ["x"]}]},
        "is malformed there",
    ),
    "a title that is none": ({"title": {}}, "is malformed"),
    "a row of nothing": ({"submissions": [{}]}, "is malformed there"),
    "an assignment that is a list": (
        {"submissions": [ROW | {"assignment_id": []}]},
        "is malformed there",
    ),
    "half a character": (
        {"submissions": [ROW | {"assignment_id": "\ud800"}]},
        "is malformed there",
    ),
}


@pytest.mark.parametrize(("told", "words"), NONSENSE.values(), ids=NONSENSE)
def test_a_manifest_without_sense_is_refused_and_the_other_courses_come_over(
    service: Service,
    exchange: Exchange,
    exported_of_a_student: Path,
    capsys: Said,
    told: Any,
    words: str,
) -> None:
    if isinstance(told, dict):
        told = json.dumps({"format": "nbexchange export 1", "course_id": "aaa"} | told)
    told = told.encode() if isinstance(told, str) else told
    (exported_of_a_student / "manifest.json").write_bytes(told)

    assert bring(service, exchange, "--from-export") == 1

    said = capsys.readouterr().out
    assert re.search(f"REFUSED: {exported_of_a_student}.*{words}", said)
    assert counted(said)["submission"][0] == 3


def test_an_id_that_is_given_twice_is_refused_and_the_rest_comes_over(
    exported: Path, elsewhere: Service, capsys: Said
) -> None:
    path = exported / "physics" / "manifest.json"
    manifest = json.loads(path.read_text())
    first, second = (one for one in manifest["submissions"] if one["student"] == "bob")
    second["id"] = first["id"]
    path.write_text(json.dumps(manifest))

    assert bring(elsewhere, exported, "--from-export") == 1

    said = capsys.readouterr().out
    assert "Another object with the same id was already imported" in said
    assert counted(said)["submission"] == [9, 0, 1]


def test_people_are_imported_a_hundred_at_a_time(
    exported: Path, elsewhere: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported / "physics" / "manifest.json"
    manifest = json.loads(path.read_text())
    one = manifest["people"][0]
    manifest["people"] = [one | {"name": f"student {number}"} for number in range(250)]
    path.write_text(json.dumps(manifest))
    sizes: list[int] = []

    def counting(session: Any, **about: Any) -> None:
        sizes.append(len(about["people"]))
        import_people(session, **about)

    monkeypatch.setattr("nbexchange.commands.import_folder.import_people", counting)

    assert bring(elsewhere, exported, "--from-export") == 0

    assert sizes == [100, 100, 50]
    names = {row["name"] for row in course.rows(elsewhere, "user")}
    assert {f"student {number}" for number in range(250)} <= names


HOSTILE_MANIFEST: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a path to elsewhere": (
        lambda row: row | {"archive": "../../people.json"},
        "is not a path of an export",
    ),
    "an absolute path": (
        lambda row: row | {"archive": "/etc/passwd"},
        "is not a path of an export",
    ),
    "no time": (lambda row: row | {"timestamp": None}, "is malformed"),
    "nothing": (lambda row: {"feedback": []}, "is malformed"),
    "corrupt then": (
        lambda row: row | {"archive": None},
        "was already corrupt when it was exported",
    ),
    "a version that is text": (lambda row: row | {"release_version": "x"}, "is malformed"),
    "a version beyond all": (lambda row: row | {"release_version": 2**40}, "is malformed"),
    "a long note": (lambda row: row | {"client_timestamp": "x" * 101}, "is malformed"),
    "a name with a line end": (lambda row: row | {"student": "b\nob"}, "cannot be a name"),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE_MANIFEST.values(), ids=HOSTILE_MANIFEST)
def test_a_manifest_is_not_believed_more_than_anything_else(
    exported: Path, elsewhere: Service, capsys: Said, change: Callable[[Any], Any], words: str
) -> None:
    path = exported / "physics" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["submissions"][0] = change(manifest["submissions"][0])
    path.write_text(json.dumps(manifest))

    assert bring(elsewhere, exported, "--from-export") == 1

    said = capsys.readouterr().out
    assert words in said
    assert counted(said)["release"] == [3, 0, 0]


# -- a release that was refused the first time

FEW = "c.NbExchange.max_entries = 10\n"


@pytest.fixture
def stood_in(service: Service, elsewhere: Service, tmp_path: Path, capsys: Said) -> Path:
    """An export. Elsewhere its submission came over, and its release had too many files."""
    large = tar_gz_of({"p1.ipynb": NOTEBOOK} | {f"n{number}": b"" for number in range(20)})
    receipt(release(service.instructor(), large))
    receipt(submit(service.student()))
    place = tmp_path / "exported"
    assert run_for(service, "export", str(place)) == 0
    assert bring(elsewhere, place, "--from-export", config=FEW) == 1
    said = counted(capsys.readouterr().out)
    assert (said["release"], said["submission"]) == ([1, 0, 1], [1, 0, 0])
    assert elsewhere.student().get("assignment", **course.PS1).status_code == 404
    return place


def test_a_release_that_was_refused_takes_the_place_of_what_stands_in_for_it(
    service: Service, elsewhere: Service, stood_in: Path, capsys: Said
) -> None:
    for expected in ([1, 0, 0], [0, 1, 0]):
        assert bring(elsewhere, stood_in, "--from-export") == 0

        said = counted(capsys.readouterr().out)
        assert (said["release"], said["submission"]) == (expected, [0, 1, 0])
    assert facts(elsewhere) == facts(service)
    course.assert_every_row_has_its_bytes(elsewhere)
    ours, theirs = (one.student().get("assignment", **course.PS1) for one in (elsewhere, service))
    assert ours.content == theirs.content


def test_as_long_as_it_is_refused_nothing_else_changes(
    elsewhere: Service, stood_in: Path, capsys: Said
) -> None:
    before = rows(elsewhere), elsewhere.files()

    assert bring(elsewhere, stood_in, "--from-export", config=FEW) == 1

    assert counted(capsys.readouterr().out)["release"] == [0, 1, 1]
    assert (rows(elsewhere), elsewhere.files()) == before


def test_it_does_not_come_below_what_was_released_here_meanwhile(
    elsewhere: Service, stood_in: Path, capsys: Said
) -> None:
    receipt(release(elsewhere.instructor(), tar_gz(p1=b"newer")))
    before = course.rows(elsewhere, "release")

    assert bring(elsewhere, stood_in, "--from-export") == 1

    assert "newer version, which is not replaced" in capsys.readouterr().out
    assert course.rows(elsewhere, "release") == before


def test_a_version_that_was_imported_is_not_replaced_by_another_of_its_number(
    exported: Path, elsewhere: Service, capsys: Said
) -> None:
    bring(elsewhere, exported, "--from-export")
    path = exported / "physics" / "manifest.json"
    manifest = json.loads(path.read_text())
    first, second, _ = manifest["releases"]
    first |= {key: second[key] for key in ("archive", "sha256")}
    path.write_text(json.dumps(manifest))
    before = course.rows(elsewhere, "release")

    assert bring(elsewhere, exported, "--from-export") == 1

    assert "Version 1 of it is different here" in capsys.readouterr().out
    assert course.rows(elsewhere, "release") == before


def test_a_version_keeps_its_number_where_an_earlier_one_is_no_more(
    exported: Path, elsewhere: Service
) -> None:
    path = exported / "physics" / "manifest.json"
    whole = json.loads(path.read_text())
    work = [one | {"feedback": one["feedback"][1:]} for one in whole["submissions"]]
    path.write_text(json.dumps({**whole, "releases": whole["releases"][1:], "submissions": work}))

    assert bring(elsewhere, exported, "--from-export") == 0

    assert [row["version"] for row in course.rows(elsewhere, "release")] == [2, 3]
    feedback = sorted(row["version"] for row in course.rows(elsewhere, "feedback"))
    assert feedback == [2] * len(NAMES) + [3] * len(NAMES)


# -- bytes that are here already


def cut(path: Path) -> None:
    os.truncate(path, 1)


@pytest.mark.parametrize("how", [Path.unlink, cut], ids=["is gone", "is cut"])
def test_feedback_does_not_rely_on_the_same_of_before_whose_file(
    exported: Path, elsewhere: Service, how: Callable[[Path], Any]
) -> None:
    path = exported / "physics" / "manifest.json"
    whole = json.loads(path.read_text())
    two = [one | {"feedback": one["feedback"][:2]} for one in whole["submissions"]]
    path.write_text(json.dumps(whole | {"submissions": two}))
    bring(elsewhere, exported, "--from-export")
    for row in course.rows(elsewhere, "feedback"):
        places.harm(elsewhere.data, row["key"], how)
    path.write_text(json.dumps(whole))

    assert bring(elsewhere, exported, "--from-export") == 0

    third = [row for row in course.rows(elsewhere, "feedback") if row["version"] == 3]
    assert [elsewhere.content(row["key"]) for row in third] == [b"good"] * len(NAMES)


# -- what is malformed

WRONG: dict[str, tuple[list[str], str]] = {
    "no exchange": (["--instructor=ada"], "Name one exchange folder"),
    "no instructor": (["{root}"], "--instructor"),
    "no such folder": (["{root}/no", "--instructor=ada"], "no does not exist"),
    "no exchange there": (["{root}/physics/inbound", "--instructor=ada"], "is not an exchange"),
    "one course": (["{root}/physics", "--instructor=ada"], "name the folder above"),
    "no such course": (["{root}", "--instructor=ada", "--course=x"], "It has 'physics'"),
    "an owner whom nobody knows": (
        ["{root}", "--instructor=ada", "--owner=nobody-knows"],
        "--owner=nobody-knows: this machine has no such user",
    ),
    "a report nowhere": (["{root}", "--instructor=ada", "--report={root}/no/x"], "Cannot write"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_makes_no_sense_is_said_and_nothing_is_imported(
    service: Service, exchange: Exchange, capsys: Said, arguments: list[str], words: str
) -> None:
    told = [one.format(root=exchange.root) for one in arguments]

    assert run_for(service, "import-folder", *told) == 2

    assert words in capsys.readouterr().err
    assert rows(service)["submission"] == 0


# -- as nbgrader itself makes it


@pytest.mark.slow
def test_what_nbgrader_wrote_comes_over(service: Service, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "release" / "ps1").mkdir(parents=True)
    (home / "release" / "ps1" / "p1.ipynb").write_bytes(NOTEBOOK)
    exchange = tmp_path / "shared"
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    (home / "nbgrader_config.py").write_text(
        "c = get_config()\n"
        f"c.Exchange.root = {str(exchange)!r}\n"
        f"c.Exchange.cache = {str(tmp_path / 'cache')!r}\n"
        "c.CourseDirectory.course_id = 'physics'\n"
    )

    def nbgrader(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=home, check=True)

    nbgrader("release_assignment", "ps1")
    nbgrader("fetch_assignment", "ps1")
    nbgrader("submit", "ps1")
    (folder,) = (exchange / "physics" / "inbound").iterdir()
    student, _, timestamp, _ = folder.name.split("+")
    feedback = home / "feedback" / student / "ps1"
    feedback.mkdir(parents=True)
    for name in ("timestamp.txt", "submission_secret.txt"):
        shutil.copy(folder / name, feedback)
    (feedback / "p1.html").write_text("<p>good</p>")
    nbgrader("release_feedback", "ps1")

    assert bring(service, exchange) == 0

    assert collected(service) == {(student, timestamp): files(folder)}
    (given,) = course.rows(service, "feedback")
    assert given["sha256"] == sha256(b"<p>good</p>")
