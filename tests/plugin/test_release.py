from __future__ import annotations

import os

import pytest

from tests.plugin.conftest import fetched
from tests.plugin.middleman import Answer, lose, say
from tests.support.legacy import LegacyClient
from tests.support.nbgrader import write_notebook


@pytest.fixture
def source(teacher):
    folder = teacher.work / "release" / "ps1"
    write_notebook(folder / "p1.ipynb")
    return folder


def test_a_course_has_to_be_named(teacher, source):
    teacher.course_id = None
    teacher.configure()

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "No course id specified. Re-run with --course flag." in ran.output


def test_an_assignment_must_be_generated_before_release(teacher):
    write_notebook(teacher.work / "source" / "ps1" / "p1.ipynb")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert f"Assignment found in '{teacher.work}/source/./ps1' but not" in ran.output
    assert "run `nbgrader generate_assignment` first." in ran.output


def test_a_missing_assignment_is_not_found(teacher, source):
    ran = teacher.nbgrader("release_assignment", "ps2")

    assert ran.status == 1
    assert f"Assignment not found at: {teacher.work}/release/./ps2" in ran.output
    assert f"Did you mean: {teacher.work}/release/ps1" in ran.output


def test_a_student_cannot_release(alice):
    write_notebook(alice.work / "release" / "ps1" / "p1.ipynb")

    ran = alice.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "[ReleaseAssignmentApp | CRITICAL]" in ran.output
    assert "Traceback" not in ran.output
    assert "Released as" not in ran.output


def test_forcing_replaces_all_files(teacher, alice, source):
    (source / "old.txt").write_text("old")
    teacher.nbgrader("release_assignment", "ps1")
    (source / "old.txt").unlink()
    (source / "new.txt").write_text("new")

    ran = teacher.nbgrader("release_assignment", "ps1", "--force")

    assert ran.status == 0
    assert "Overwriting files: physics ps1" in ran.output
    assert fetched(alice, "ps1") == {"new.txt", "p1.ipynb"}


def test_forcing_is_not_overwriting_when_nothing_is_there(teacher, source):
    ran = teacher.nbgrader("release_assignment", "ps1", "--force")

    assert ran.status == 0
    assert "Overwriting" not in ran.output


def test_releasing_again_after_removing_needs_no_force(teacher, source):
    teacher.nbgrader("release_assignment", "ps1")
    teacher.nbgrader("list", "--remove", "ps1")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0, ran.output


def test_a_colleague_who_was_quicker_is_not_overwritten(service, teacher, source, trouble):
    teacher.url = trouble.url
    colleague = LegacyClient(service.url, service.enrol("ben", {"physics": "Instructor"}))

    def be_quicker(handler, seen):
        colleague.release("physics", "ps1", {"theirs.ipynb": b"{}"})
        handler.send(handler.forward(seen))

    trouble.next("POST assignment", be_quicker)

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "Destination already exists, add --force to overwrite: physics ps1" in ran.output
    assert trouble.requests("POST assignment")[0].headers["if-none-match"] == "*"
    assert "Traceback" not in ran.output
    assert colleague.fetch("physics", "ps1") == {"theirs.ipynb": b"{}"}


@pytest.mark.parametrize(
    ("option", "answer", "words"),
    [
        pytest.param([], Answer.html(412), "it answers 412 with a page of its own", id="page"),
        pytest.param(["--force"], Answer.refusal(412, "Where?"), "Where?", id="force"),
    ],
)
def test_a_refusal_of_another_service_is_not_taken_for_a_release_that_is_there(
    teacher, source, trouble, option, answer, words
):
    teacher.url = trouble.url
    trouble.always("POST assignment", say(answer))

    ran = teacher.nbgrader("release_assignment", "ps1", *option)

    assert ran.status == 1
    assert words in ran.output
    assert "already exists" not in ran.output


@pytest.mark.parametrize("option", [[], ["--force"]], ids=["once", "force"])
def test_a_release_whose_answer_was_lost_is_released_once(
    service, teacher, source, trouble, option
):
    """The retry must not mistake the first attempt for another user's release."""
    teacher.url = trouble.url
    trouble.next("POST assignment", lose)

    ran = teacher.nbgrader("release_assignment", "ps1", *option)

    assert ran.status == 0, ran.output
    first, second = trouble.requests("POST assignment")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    (record,) = service.wire(teacher.token).get("assignments", course_id="physics").json()["value"]
    assert record["version"] == 1


def test_a_removal_whose_answer_was_lost_is_a_removal(teacher, source, trouble):
    teacher.nbgrader("release_assignment", "ps1")
    teacher.url = trouble.url
    trouble.next("DELETE assignment", lose)

    ran = teacher.nbgrader("list", "--remove", "ps1")

    assert ran.status == 0, ran.output
    assert teacher.nbgrader("list").lines[1:] == []


def test_ignored_files_are_not_released_and_all_others_are(teacher, alice, source):
    teacher.configure("c.CourseDirectory.include = ['*.ipynb', '*.txt', '.hidden']")
    (source / "empty").mkdir()
    (source / "empty.txt").touch()
    (source / ".hidden").write_text("here")
    (source / "sub/deep").mkdir(parents=True)
    (source / "sub/deep/a.txt").write_text("a")
    (source / "sub/deep/a.csv").write_text("not included")
    (source / "sub/feedback").mkdir()
    (source / "sub/feedback/old.txt").write_text("ignored with its folder")
    (source / "a.pyc").write_text("ignored")
    (source / ".ipynb_checkpoints").mkdir()
    write_notebook(source / ".ipynb_checkpoints" / "p1-checkpoint.ipynb")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert fetched(alice, "ps1") == {
        ".hidden", "empty", "empty.txt", "p1.ipynb", "sub", "sub/deep", "sub/deep/a.txt",
    }  # fmt: skip


def test_a_file_that_is_too_large_is_left_out_with_a_warning(teacher, alice, source):
    teacher.configure("c.CourseDirectory.max_file_size = 2")
    (source / "fits.bin").write_bytes(bytes(2000))
    (source / "large.bin").write_bytes(bytes(2001))

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0
    assert f"WARNING] Ignoring file too large '{source}/large.bin'" in ran.output
    assert fetched(alice, "ps1") == {"fits.bin", "p1.ipynb"}


def test_an_archive_that_is_too_large_names_the_largest_files(teacher, source):
    teacher.configure("c.Exchange.max_buffer_size = 1000")
    (source / "picture.png").write_bytes(os.urandom(3000))

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "too large to be sent" in ran.output
    assert "The largest files are 'picture.png' (0.0 MB)" in ran.output


def test_links_are_followed(teacher, alice, source):
    elsewhere = teacher.work / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data.csv").write_text("1")
    (source / "data.csv").symlink_to(elsewhere / "data.csv")
    (source / "folder").symlink_to(elsewhere)

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert fetched(alice, "ps1") == {"data.csv", "folder", "folder/data.csv", "p1.ipynb"}
    assert not (alice.work / "ps1" / "data.csv").is_symlink()


def test_files_that_cannot_be_sent_are_named_and_nothing_is_released(teacher, source):
    """A class would work without it."""
    (source / "data").mkdir()
    (source / "data" / "back\\slash.csv").touch()
    (source / "link").symlink_to("nowhere")
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "Nothing was released, because some files cannot be sent: " in ran.output
    assert "'data/back\\\\slash.csv': there is a backslash in its name; " in ran.output
    assert "'link': it is a link to nothing; " in ran.output
    assert "'loop': it is a link to a folder that it is in; " in ran.output
    assert "'pipe': it is a named pipe. Rename or remove them" in ran.output
    assert "Traceback" not in ran.output
    assert teacher.nbgrader("list").lines[1:] == []


def test_files_that_cannot_be_sent_may_be_ignored(teacher, alice, source):
    (source / ".#p1.ipynb").symlink_to("ada@host.1:2")
    teacher.configure("c.CourseDirectory.ignore = ['.#*']")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert fetched(alice, "ps1") == {"p1.ipynb"}


def test_the_same_files_make_the_same_archive_with_and_without_ignored_ones(source):
    """So that a second upload after a lost answer is the same upload."""
    from nbexchange.plugin import packing

    def packed():
        rules = packing.PackingRules((".ignored",), (), 0, 10**9)
        with packing.select(source, rules).packed((), 10**9) as parcel:
            parcel.file.seek(0)
            return parcel.file.read()

    before = packed()
    (source / ".ignored").write_text("ignored")

    assert packed() == before


def test_the_old_section_of_the_configuration_still_counts(teacher, source):
    teacher.nbgrader("release_assignment", "ps1")
    teacher.configure("c.ExchangeRelease.force = True")

    ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert "Use ExchangeReleaseAssignment in config, not ExchangeRelease" in ran.output
