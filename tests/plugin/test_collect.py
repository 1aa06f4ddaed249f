from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sqlite3
import stat
import sys
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from nbgrader.api import Gradebook
from nbgrader.utils import parse_utc

from nbexchange import archive
from nbexchange.archive import Member
from nbexchange.plugin.gradebook import split_name
from tests.plugin.conftest import left_over, ran_well, submit
from tests.plugin.middleman import Answer, change, cut, drop, say
from tests.support import course, places
from tests.support.legacy import LegacyClient
from tests.support.nbgrader import Home

PIECE = 64 * 1024  # how much is read at a time, and lost when the rest of it does not come


def submitted(teacher: Home, student: str = "alice") -> Path:
    return teacher.work / "submitted" / student / "ps1"


def test_a_course_has_to_be_named(teacher, released):
    teacher.course_id = None
    teacher.configure()

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "No course id specified. Re-run with --course flag." in ran.output


@pytest.mark.parametrize("assignment_id", ["ps1", "never released"])
def test_nothing_to_collect_is_a_warning_and_creates_nothing(teacher, released, assignment_id):
    before = left_over(teacher.work)

    ran = ran_well(teacher, "collect", assignment_id)

    nothing = f"No submissions of '{assignment_id}' for course 'physics' to collect"
    assert ran.lines == [f"[CollectApp | WARNING] {nothing}"]
    assert left_over(teacher.work) == before


def test_a_course_that_is_not_ours_is_an_error(teacher, released):
    ran = teacher.nbgrader("collect", "ps1", "--course", "chemistry")

    assert ran.status == 1
    assert "[CollectApp | CRITICAL]" in ran.output
    assert "Traceback" not in ran.output


def test_what_an_old_client_made_of_links_and_times_is_collected(service, teacher, alice, released):
    folder = alice.work / "ps1"
    ran_well(alice, "fetch_assignment", "ps1")
    (folder / "timestamp.txt").write_text("2020-01-01 00:00:00.000000 UTC")
    (folder / "q.ipynb").hardlink_to(folder / "p1.ipynb")
    old_client = LegacyClient(service.url, alice.token)

    old_client.submit("physics", "ps1", folder)
    ran_well(teacher, "collect", "ps1")

    (record,) = old_client.collections("physics", "ps1")
    place = submitted(teacher)
    assert (place / "timestamp.txt").read_text() == record["timestamp"]
    assert (place / "q.ipynb").read_bytes() == (folder / "p1.ipynb").read_bytes()


def test_the_newest_submission_of_each_student_has_its_official_time_and_receipt(
    teacher, alice, machine, released
):
    bob = machine("bob")
    submit(alice, "old")
    of_bob = submit(bob, "bob's")
    of_alice = submit(alice, "new")

    ran = ran_well(teacher, "collect", "ps1")

    assert ran.lines == [
        "[CollectApp | INFO] Processing 2 submissions of 'ps1' for course 'physics'",
        "[CollectApp | INFO] Collecting submission: alice ps1",
        "[CollectApp | INFO] Collecting submission: bob ps1",
    ]
    for student, text, timestamp in (("alice", "new", of_alice), ("bob", "bob's", of_bob)):
        folder = submitted(teacher, student)
        receipt = json.loads((folder / "submission_receipt.json").read_text())
        assert (folder / "p1.ipynb").read_text() == text
        assert (folder / "timestamp.txt").read_text() == timestamp
        assert (receipt["student"], receipt["timestamp"]) == (student, timestamp)
        assert (folder / "extra/p3.ipynb").is_file()


def test_a_newer_one_replaces_the_old_one_only_on_request(teacher, alice, released):
    submit(alice, "old")
    ran_well(teacher, "collect", "ps1")
    (submitted(teacher) / "mine.txt").write_text("from the old one")
    submit(alice, "new")

    kept = ran_well(teacher, "collect", "ps1")
    text_then = (submitted(teacher) / "p1.ipynb").read_text()
    updated = ran_well(teacher, "collect", "ps1", "--update")
    again = ran_well(teacher, "collect", "ps1", "--update")

    assert text_then == "old"
    assert (submitted(teacher) / "p1.ipynb").read_text() == "new"
    assert not (submitted(teacher) / "mine.txt").exists()
    assert [ran.lines[-1].partition("INFO] ")[2] for ran in (kept, updated, again)] == [
        "Submission already exists, use --update to update: alice ps1",
        "Updating submission: alice ps1",
        "No newer submission to collect: alice ps1",
    ]


@pytest.mark.parametrize("timestamp", [None, "", "garbage", "9999-99-99 99:99:99 UTC", b"\xff"])
def test_a_timestamp_that_cannot_be_read_is_older_than_anything(
    teacher, alice, released, timestamp
):
    submit(alice)
    ran_well(teacher, "collect", "ps1")
    file = submitted(teacher) / "timestamp.txt"
    if timestamp is None:
        file.unlink()
    else:
        file.write_bytes(timestamp if isinstance(timestamp, bytes) else timestamp.encode())

    ran = ran_well(teacher, "collect", "ps1", "--update")

    assert "Updating submission: alice ps1" in ran.output


@pytest.mark.parametrize(
    ("pattern", "students"),
    [
        pytest.param("alice", {"alice"}, id="name"),
        pytest.param("a*", {"ada lovelace", "alice"}, id="glob"),
        pytest.param("b[1]", {"b[1]"}, id="a name like a glob"),
        pytest.param("*", {"ada lovelace", "alice", "b[1]"}, id="all"),
        pytest.param("nobody", set(), id="nobody"),
    ],
)
def test_some_students_may_be_picked(teacher, alice, machine, released, pattern, students):
    for home in (alice, machine("b[1]"), machine("ada lovelace")):
        submit(home)

    ran_well(teacher, "collect", "ps1", f"--student={pattern}")

    folder = teacher.work / "submitted"
    assert ({path.name for path in folder.iterdir()} if folder.exists() else set()) == students


def test_it_comes_where_the_configuration_says(teacher, alice, released):
    teacher.configure(
        "c.CourseDirectory.directory_structure = "
        "'{nbgrader_step}/{assignment_id}/of-{student_id}'\n"
        "c.CourseDirectory.submitted_directory = 'handed in'\n"
        "c.CourseDirectory.groupshared = True"
    )
    submit(alice)

    ran_well(teacher, "collect", "ps1")

    folder = teacher.work / "handed in/ps1/of-alice"
    assert stat.S_IMODE(folder.stat().st_mode) & 0o2770 == 0o2770
    assert stat.S_IMODE((folder / "p1.ipynb").stat().st_mode) & 0o660 == 0o660


def test_the_instructors_rules_apply_but_the_marks_stay(teacher, alice, released):
    submit(alice)
    teacher.configure("c.CourseDirectory.include = ['*.ipynb']")

    ran_well(teacher, "collect", "ps1")

    assert {path.name for path in submitted(teacher).iterdir()} == {
        "extra", "p1.ipynb", "p2.ipynb", "submission_receipt.json", "timestamp.txt",
    }  # fmt: skip


def test_a_submission_that_is_too_big_for_the_instructor_is_a_bad_one(teacher, alice, released):
    submit(alice, "long " * 1000)
    teacher.configure("c.CourseDirectory.max_dir_size = 1")

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "Directory size is too big" in ran.output
    assert not submitted(teacher).exists()


# Due dates and names: the gradebook


@contextlib.contextmanager
def gradebook(teacher: Home):
    with Gradebook(f"sqlite:///{teacher.work / 'gradebook.db'}", "physics") as opened:
        yield opened


@pytest.fixture(scope="session")
def empty_gradebook(tmp_path_factory):
    """Making one takes a second or two, because nbgrader starts alembic for it."""

    file = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), path])
    try:
        Gradebook(f"sqlite:///{file}", "physics").close()
    finally:
        os.environ["PATH"] = path
    return file


@pytest.fixture
def with_gradebook(teacher, empty_gradebook):
    shutil.copy(empty_gradebook, teacher.work / "gradebook.db")


def due(teacher: Home, timestamp: str, later: timedelta = timedelta(0)) -> None:
    with gradebook(teacher) as opened:
        opened.update_or_create_assignment("ps1", duedate=parse_utc(timestamp) + later)


def test_the_last_one_in_time_is_collected(teacher, alice, machine, released, with_gradebook):
    bob = machine("bob")
    submit(alice, "early")
    deadline = submit(alice, "in the last microsecond")
    submit(alice, "late")
    submit(bob, "late")
    submit(bob, "later")
    due(teacher, deadline)

    ran = ran_well(teacher, "collect", "ps1", "--before-duedate")

    assert "Processing 2 submissions" in ran.output
    assert (submitted(teacher) / "p1.ipynb").read_text() == "in the last microsecond"
    assert (submitted(teacher, "bob") / "p1.ipynb").read_text() == "later"


def test_before_the_duedate_an_earlier_one_replaces_a_later_one(
    teacher, alice, released, with_gradebook
):
    deadline = submit(alice, "in time")
    submit(alice, "late")
    ran_well(teacher, "collect", "ps1")
    due(teacher, deadline)

    ran = ran_well(teacher, "collect", "ps1", "--before-duedate")

    assert "Updating submission: alice ps1" in ran.output
    assert (submitted(teacher) / "p1.ipynb").read_text() == "in time"


@pytest.mark.filterwarnings("ignore:Object of type <SubmittedAssignment>")  # nbgrader's own
def test_an_extension_in_the_gradebook_is_honoured(
    teacher, alice, machine, released, with_gradebook
):
    bob = machine("bob")
    deadline = submit(alice, "in time")
    for home in (alice, bob):
        submit(home, "in the extension")
        submit(home, "late")
    submit(bob, "very late")
    due(teacher, deadline)
    with gradebook(teacher) as opened:
        for student, until in (("alice", 2), ("bob", 1)):
            opened.update_or_create_student(student)
            opened.update_or_create_submission("ps1", student)
            opened.grant_extension("ps1", student, days=until)
        due_of_bob = opened.find_submission("ps1", "bob")
        due_of_bob.extension = parse_utc(times(teacher, "bob")[0]) - parse_utc(deadline)
        opened.db.commit()

    ran_well(teacher, "collect", "ps1", "--before-duedate")

    assert (submitted(teacher) / "p1.ipynb").read_text() == "late"
    assert (submitted(teacher, "bob") / "p1.ipynb").read_text() == "in the extension"


def times(teacher: Home, student: str) -> list[str]:
    """The official times of a student's submissions, oldest first."""
    ran = ran_well(teacher, "list", "--inbound", f"--student={student}")
    return [line.partition(f"{student} ps1 ")[2].partition(" (")[0] for line in ran.lines[1:]]


def test_one_file_name_that_this_disk_cannot_have_stops_no_other_submission(
    teacher, alice, machine, released
):
    bob = machine("bob")
    submit(alice)
    (bob.work / "ps1").mkdir()
    (bob.work / "ps1/p1.ipynb").write_text("my work")
    (bob.work / "ps1/Übung.csv").write_text("1")
    ran_well(bob, "submit", "ps1")
    teacher.env = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

    ran = teacher.nbgrader_in_a_new_process("collect", "ps1")

    assert ran.status == 1
    assert "cannot be the name of a file here" in ran.output
    assert "Set a locale with UTF-8" in ran.output
    assert "Traceback" not in ran.output
    assert (submitted(teacher) / "p1.ipynb").is_file()


def test_without_a_duedate_the_newest_is_collected_and_no_gradebook_is_made(
    teacher, alice, released
):
    submit(alice, "old")
    submit(alice, "new")

    ran_well(teacher, "collect", "ps1", "--before-duedate")

    assert (submitted(teacher) / "p1.ipynb").read_text() == "new"
    assert not (teacher.work / "gradebook.db").exists()


def test_a_gradebook_that_cannot_be_read_stops_the_collect_that_needs_it(teacher, alice, released):
    submit(alice)
    (teacher.work / "gradebook.db").write_text("this is no database" * 100)

    ran = teacher.nbgrader("collect", "ps1", "--before-duedate")
    other = ran_well(teacher, "collect", "ps1")

    assert ran.status == 1
    assert "The due date of ps1 cannot be read from the gradebook (DatabaseError)" in ran.output
    assert "Traceback" not in ran.output
    assert "Collecting submission: alice ps1" in other.output


def test_students_are_added_to_the_gradebook(teacher, machine, released, with_gradebook):
    alice = machine(
        "alice", full_name="Alice van Wonder", email="alice@example.org", lms_user_id="77"
    )
    submit(alice)

    ran_well(teacher, "collect", "ps1")

    with gradebook(teacher) as opened:
        student = opened.find_student("alice")
        assert (student.first_name, student.last_name) == ("Alice", "van Wonder")
        assert (student.email, student.lms_user_id) == ("alice@example.org", "77")


def test_names_that_an_instructor_entered_stay(teacher, machine, released, with_gradebook):
    alice = machine("alice", full_name="Alice Liddell", email="alice@example.org")
    submit(alice)
    with gradebook(teacher) as opened:
        opened.add_student("alice", first_name="Alicia", email="")

    ran_well(teacher, "collect", "ps1")

    with gradebook(teacher) as opened:
        student = opened.find_student("alice")
        assert (student.first_name, student.last_name) == ("Alicia", "Liddell")
        assert student.email == "alice@example.org"


def test_a_gradebook_that_cannot_be_written_costs_no_submission(
    teacher, machine, released, with_gradebook
):

    alice = machine("alice", full_name="Alice Liddell")
    submit(alice)
    with contextlib.closing(sqlite3.connect(teacher.work / "gradebook.db")) as database:
        database.execute("ALTER TABLE student RENAME COLUMN lms_user_id TO other")
        database.commit()

    ran = ran_well(teacher, "collect", "ps1")

    assert "The students' names could not be written into the gradebook" in ran.output
    assert submitted(teacher).is_dir()


@pytest.mark.parametrize(
    ("full_name", "first", "last"),
    [
        ("Ada Lovelace", "Ada", "Lovelace"),
        ("Ada King Lovelace", "Ada King", "Lovelace"),
        ("Lovelace, Ada King", "Ada King", "Lovelace"),
        ("Ludwig van Beethoven", "Ludwig", "van Beethoven"),
        ("Charles de la Vallée Poussin", "Charles de la Vallée", "Poussin"),
        ("Plato", "Plato", ""),
        ("bell hooks", "bell", "hooks"),
        ("  Ada   Lovelace ", "Ada", "Lovelace"),
        ("", "", ""),
    ],
)
def test_a_name_has_a_first_and_a_last_part(full_name, first, last):
    assert split_name(full_name) == (first, last)


# Bad ones among good ones


def test_one_damaged_submission_of_thirty_does_not_stop_the_others(service, teacher, released):
    for number in range(30):
        wire = service.student(name=f"s{number:02}")
        answer = wire.post("submission", _work(number), course_id="physics", assignment_id="ps1")
        assert answer.status_code == 201
    _damage_the_blob_of(service, teacher, "s17")
    teacher.configure("c.Exchange.retries = 1")

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    collected = {path.name for path in (teacher.work / "submitted").iterdir()}
    assert collected == {f"s{number:02}" for number in range(30)} - {"s17"}
    about = [line.split("ps1")[0].split()[-1] for line in ran.lines[1:31]]
    assert about == [f"s{number:02}" for number in range(30)]
    assert "1 of 30 submissions could not be collected. s17: " in ran.lines[-2]
    assert ran.lines[-1] == "[CollectApp | ERROR] nbgrader collect failed"


def _work(number: int) -> bytes:
    target = io.BytesIO()
    archive.pack([Member("p1.ipynb", f"work {number}".encode())], target)
    return target.getvalue()


def _damage_the_blob_of(service, teacher, student):
    records = service.wire(teacher.token).get("collections", course_id="physics").json()["value"]
    (digest,) = [record["sha256"] for record in records if record["student_id"] == student]
    (key,) = [row["key"] for row in course.rows(service, "submission") if row["sha256"] == digest]
    places.harm(service.data, key, lambda file: file.write_bytes(file.read_bytes()[:-8] + bytes(8)))


def test_the_old_copy_stays_until_the_new_one_is_whole(teacher, alice, released, trouble):
    submit(alice, "old")
    ran_well(teacher, "collect", "ps1")
    submit(alice, "new")
    before = left_over(teacher.work)
    teacher.url = trouble.url
    teacher.configure("c.Exchange.retries = 0")
    trouble.always("GET collection", cut(50))

    ran = teacher.nbgrader("collect", "ps1", "--update")

    assert ran.status == 1
    assert "1 of 1 submissions could not be collected. alice: " in ran.output
    assert (submitted(teacher) / "p1.ipynb").read_text() == "old"
    assert left_over(teacher.work) == before


def test_a_download_that_breaks_off_goes_on_where_it_was(teacher, alice, released, trouble):
    submit(alice, os.urandom(300_000).hex())
    teacher.url = trouble.url
    trouble.next("GET collection", cut(2 * PIECE), cut(PIECE))

    ran_well(teacher, "collect", "ps1")

    tries = trouble.requests("GET collection")
    assert [seen.headers.get("range") for seen in tries] == [
        None, f"bytes={2 * PIECE}-", f"bytes={3 * PIECE}-",
    ]  # fmt: skip
    assert tries[0].headers["accept-encoding"] == "identity"
    assert tries[1].headers["if-range"] == tries[2].headers["if-range"]
    assert len((submitted(teacher) / "p1.ipynb").read_text()) == 600_000


@pytest.fixture
def five(service, released):
    """Submissions of a, b, c, d and e."""
    for name in "abcde":
        wire = service.student(name=name)
        wire.post("submission", _work(1), course_id="physics", assignment_id="ps1")


@pytest.mark.parametrize(
    "mishap", [drop, say(Answer.refusal(503, "Not now."))], ids=["hangs up", "503"]
)
def test_when_the_service_goes_away_the_rest_is_not_tried(teacher, five, trouble, mishap):
    teacher.url = trouble.url
    teacher.configure("c.Exchange.retries = 0\nc.ExchangeCollect.collect_workers = 1")
    trouble.always("GET collection", mishap)

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "5 of 5 submissions could not be collected. a, b, c: " in ran.output
    assert "d, e: Not tried, because the exchange service is unavailable" in ran.output
    assert len(trouble.requests("GET collection")) == 3


def test_one_that_always_breaks_off_does_not_stop_the_others(teacher, five, trouble):
    teacher.url = trouble.url
    teacher.configure("c.Exchange.retries = 0\nc.ExchangeCollect.collect_workers = 1")
    trouble.next("GET collection", drop, drop)

    ran = teacher.nbgrader("collect", "ps1")

    assert "2 of 5 submissions could not be collected. a, b: " in ran.output
    assert {path.name for path in (teacher.work / "submitted").iterdir()} == {"c", "d", "e"}


@pytest.mark.parametrize("student", ["..", ".", "../..", "/tmp/mallory", "a/b", "a\0b"])
def test_a_students_name_does_not_lead_out_of_the_folder(
    teacher, alice, machine, released, trouble, student
):
    submit(alice)
    submit(machine("bob"))
    before = left_over(teacher.folder)
    teacher.url = trouble.url

    def rename(said):
        for record in said["value"]:
            if record["student_id"] == "bob":
                record["student_id"] = student

    trouble.always("GET collections", change(rename))

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "cannot be the name of a folder" in ran.output
    assert "Traceback" not in ran.output
    new = left_over(teacher.folder) - before
    assert {name for name in new if not name.startswith("work/submitted/alice")} == {
        "work/submitted"
    }


def test_an_archive_with_a_way_out_is_a_bad_one(teacher, alice, released, trouble):

    submit(alice)
    teacher.url = trouble.url
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        info = tarfile.TarInfo("../../out.txt")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"out"))
    evil = Answer.archive(target.getvalue())
    trouble.always("GET collection", say(evil))

    def confess(said):
        for record in said["value"]:
            record["sha256"] = evil.headers["ETag"].strip('"')

    trouble.always("GET collections", change(confess))

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "cannot be sent" in ran.output
    assert "Traceback" not in ran.output
    assert not (teacher.work / "submitted").exists()
    assert not list(teacher.folder.rglob("out.txt"))


def test_another_archive_than_the_listed_one_is_a_bad_one(teacher, alice, released, trouble):
    submit(alice)
    teacher.url = trouble.url
    teacher.configure("c.Exchange.retries = 0")
    trouble.always("GET collections", change(lambda said: said["value"][0].update(sha256="0" * 64)))

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "The archive arrived corrupt" in ran.output


def test_all_pages_are_read(teacher, alice, machine, released, trouble):
    submit(alice)
    submit(machine("bob"))
    teacher.url = trouble.url

    def one_a_page(handler, seen):
        seen.params["limit"] = "1"
        handler.send(handler.forward(seen))

    trouble.always("GET collections", one_a_page)

    ran = ran_well(teacher, "collect", "ps1")

    assert "Processing 2 submissions" in ran.output


def test_a_list_without_end_is_noticed(teacher, released, trouble):
    teacher.url = trouble.url

    def again(handler, seen):
        seen.params.pop("page", None)
        change(lambda said: said | {"next": "again"})(handler, seen)

    trouble.always("GET collections", again)

    ran = teacher.nbgrader("collect", "ps1")

    assert ran.status == 1
    assert "its list never ends" in ran.output
