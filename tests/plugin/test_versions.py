"""The release that a student has, messages about newer ones, and starting over."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.plugin.conftest import left_over, ran_well, submit
from tests.plugin.middleman import drop
from tests.support.nbgrader import Home, write_notebook

RESET = "--ExchangeFetchAssignment.reset=True"
NEWS = "There is a newer release of ps1 than yours: version 2, and you have version 1."
KEPT = re.compile(r"ps1 \(kept \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\)")


def release(teacher: Home, text: str) -> None:
    """Once more, with this in one of the files."""
    (teacher.work / "release/ps1/data.csv").write_text(text)
    ran_well(teacher, "release_assignment", "ps1", "--force")


def memories(home: Home) -> Path:
    return home.cache.with_name("nbexchange_fetched")


def kept(home: Home, assignment_id: str = "ps1") -> list[Path]:
    return sorted(home.work.glob(f"{assignment_id} (kept *"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def a_student_at_work(home: Home) -> dict[str, bytes]:
    """Fetch, and change everything that can be changed."""
    ran_well(home, "fetch_assignment", "ps1")
    mine = home.work / "ps1"
    (mine / "p1.ipynb").write_text("my work")
    (mine / "p2.ipynb").unlink()
    (mine / "notes").mkdir()
    (mine / "notes" / ".hidden").write_text("mine")
    return content(mine)


# Messages


@pytest.fixture
def outdated(teacher, alice, released) -> Home:
    """Alice has the first release, and there is a second one."""
    ran_well(alice, "fetch_assignment", "ps1")
    release(teacher, "3,4\n")
    return alice


def told(home: Home, *arguments: str) -> list[str]:
    """The lines about a newer release."""
    ran = home.nbgrader(*arguments)
    assert "Traceback" not in ran.output
    return [line for line in ran.lines if "newer release" in line]


def test_a_newer_release_is_reported_once_with_advice(outdated):
    for level, *command in (
        ("ListApp | INFO", "list"),
        ("FetchAssignmentApp | WARNING", "fetch_assignment", "ps1"),
        ("FetchAssignmentApp | WARNING", "fetch_assignment", "ps1", "--replace"),
        ("SubmitApp | WARNING", "submit", "ps1"),
    ):
        (line,) = told(outdated, *command)
        assert line.startswith(f"[{level}] {NEWS} To get the new one, rename or move your folder ")
        assert RESET in line


def test_students_with_the_newest_release_get_no_message(alice, released):
    ran_well(alice, "fetch_assignment", "ps1")

    for command in (["list"], ["fetch_assignment", "ps1"], ["submit", "ps1"], ["list", "--cached"]):
        assert told(alice, *command) == []


def test_work_on_an_older_copy_can_be_submitted(teacher, outdated):
    submit(outdated, "my work")

    ran_well(teacher, "collect", "ps1")
    assert (teacher.work / "submitted/alice/ps1/p1.ipynb").read_text() == "my work"


def test_a_release_with_the_same_content_is_not_reported(teacher, outdated):
    release(teacher, "1,2\n")

    assert told(outdated, "list") == []


def test_a_release_that_is_taken_back_is_not_reported(teacher, outdated):
    ran_well(teacher, "list", "--remove", "--assignment=ps1")

    assert told(outdated, "list") == []
    assert told(outdated, "fetch_assignment", "ps1") == []


def test_after_fetching_the_newer_release_there_is_no_message(outdated):
    (outdated.work / "ps1").rename(outdated.work / "my old ps1")

    ran_well(outdated, "fetch_assignment", "ps1")

    assert told(outdated, "list") == []
    assert told(outdated, "submit", "ps1") == []


def test_a_folder_is_known_again_after_it_was_renamed(outdated):
    work = outdated.work
    (work / "ps1").rename(work / "old")
    ran_well(outdated, "fetch_assignment", "ps1")
    (work / "ps1").rename(work / "new")
    (work / "old").rename(work / "ps1")

    assert len(told(outdated, "submit", "ps1")) == 1


def test_a_folder_is_known_by_its_place_in_a_home_that_was_restored(outdated):
    work = outdated.work
    shutil.copytree(work / "ps1", work / "backup")
    shutil.rmtree(work / "ps1")
    (work / "taken").mkdir()  # or the disk would give the same number again
    (work / "backup").rename(work / "ps1")

    assert len(told(outdated, "list")) == 1


def test_each_folder_has_a_release_of_its_own(outdated):
    elsewhere = outdated.folder / "elsewhere"
    elsewhere.mkdir()

    ran = outdated.nbgrader("fetch_assignment", "ps1", cwd=elsewhere)

    assert ran.status == 0, ran.output
    assert "newer" not in outdated.nbgrader("list", cwd=elsewhere).output
    assert len(told(outdated, "list")) == 1


def test_a_folder_from_elsewhere_gets_no_message(outdated):
    shutil.rmtree(memories(outdated))

    for command in (["list"], ["fetch_assignment", "ps1"], ["submit", "ps1"]):
        assert told(outdated, *command) == []


def test_a_copy_newer_than_the_release_gets_no_message(outdated):
    """After the service got an older backup, perhaps."""
    (memory,) = memories(outdated).iterdir()
    memory.write_text(memory.read_text().replace('"version": 1', '"version": 9'))

    assert told(outdated, "list") == []


RUBBISH = (
    b"", b"[]", b"{", b'{"folders": 3}', b'{"folders": [3]}', b'{"folders": [{"x": 1}]}',
    b'{"folders": [{"sha256": 1, "version": "1", "path": "PS1", "number": []}]}', b"\xff",
    b"[" * 9999,
)  # fmt: skip


def test_rubbish_in_the_memory_is_forgotten(outdated):
    (memory,) = memories(outdated).iterdir()

    for rubbish in RUBBISH:
        memory.write_bytes(rubbish.replace(b"PS1", bytes(outdated.work / "ps1")))
        assert told(outdated, "list") == []
    (outdated.work / "ps1").rename(outdated.work / "old")
    ran_well(outdated, "fetch_assignment", "ps1")
    assert json.loads(memory.read_text())["folders"][0]["version"] == 2


def test_a_record_that_cannot_be_written_does_not_stop_a_fetch(alice, released):
    memories(alice).parent.mkdir(parents=True)
    memories(alice).write_text("in the way")

    ran = ran_well(alice, "fetch_assignment", "ps1")

    assert "newer" not in ran.output
    assert (alice.work / "ps1" / "p1.ipynb").is_file()


def test_nothing_of_it_is_submitted(teacher, outdated):
    ran_well(outdated, "fetch_assignment", "ps1", RESET)
    ran_well(outdated, "submit", "ps1")
    ran_well(teacher, "collect", "ps1")

    assert left_over(teacher.work / "submitted/alice/ps1") == {
        "data.csv", "extra", "extra/p3.ipynb", "p1.ipynb", "p2.ipynb",
        "submission_receipt.json", "submission_secret.txt", "timestamp.txt",
    }  # fmt: skip


def test_files_of_a_newer_release_do_not_make_the_copy_a_new_one(outdated):
    (outdated.work / "ps1/data.csv").unlink()

    ran_well(outdated, "fetch_assignment", "ps1", "--replace")

    assert (outdated.work / "ps1/data.csv").read_text() == "3,4\n"
    assert len(told(outdated, "list")) == 1


def test_without_version_numbers_there_is_no_message(outdated, trouble):
    """An older one says neither version nor digest in its list."""

    def forget(handler, seen):
        answer = handler.forward(seen)
        said = json.loads(answer.body)
        for one in said["value"]:
            for key in ("version", "sha256", "timestamp"):
                one.pop(key, None) if one["status"] == "released" else None
        answer.body = json.dumps(said).encode()
        handler.send(answer)

    outdated.url = trouble.url
    trouble.always("GET assignments", forget)

    assert told(outdated, "list") == []
    assert told(outdated, "submit", "ps1") == []


# Fetching again


def test_fetching_again_changes_nothing_and_says_what_to_do(alice, released):
    before = a_student_at_work(alice)

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 1
    assert ran.lines[0] == (
        "[FetchAssignmentApp | CRITICAL] You already have a copy of the assignment in this "
        "directory: ps1"
    )
    assert ran.lines[1].startswith("[FetchAssignmentApp | INFO] Nothing in it was changed. ")
    assert "--replace" in ran.lines[1]
    assert RESET in ran.lines[1]
    assert content(alice.work / "ps1") == before


def test_fetching_again_is_explained_even_without_an_answer(outdated, trouble):
    outdated.url = trouble.url
    outdated.configure("c.Exchange.retries = 0")
    trouble.always("GET assignments", drop)

    ran = outdated.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 1
    assert ran.output.count("CRITICAL") == 1
    assert "You already have a copy" in ran.output


# Starting over


def test_a_reset_gives_the_newest_release_and_keeps_all_work_beside_it(teacher, alice, released):
    work = a_student_at_work(alice)
    release(teacher, "3,4\n")

    ran = ran_well(alice, "fetch_assignment", "ps1", RESET)

    (old,) = kept(alice)
    assert KEPT.fullmatch(old.name)
    assert f"Your copy, with all your work, is kept in: {old}" in ran.output
    assert content(old) == work
    assert content(alice.work / "ps1") == content(teacher.work / "release/ps1")
    assert left_over(alice.work) == {
        "ps1", *(f"ps1/{name}" for name in left_over(alice.work / "ps1")),
        old.name, *(f"{old.name}/{name}" for name in left_over(old)),
    }  # fmt: skip


def test_a_reset_without_a_copy_is_a_fetch(alice, released):
    ran = ran_well(alice, "fetch_assignment", "ps1", RESET)

    assert "kept" not in ran.output
    assert left_over(alice.work) == {"ps1", *(f"ps1/{x}" for x in left_over(alice.work / "ps1"))}


def test_every_reset_keeps_the_existing_folder(alice, released):
    ran_well(alice, "fetch_assignment", "ps1")
    for number in range(4):  # more than one in the same second
        (alice.work / "ps1/p1.ipynb").write_text(f"work {number}")
        ran_well(alice, "fetch_assignment", "ps1", RESET)

    texts = sorted((folder / "p1.ipynb").read_text() for folder in kept(alice))
    assert texts == ["work 0", "work 1", "work 2", "work 3"]


def test_the_name_that_would_be_given_may_be_taken(alice, released):
    a_student_at_work(alice)
    code = STOPPED_CLOCK + "os.mkdir('ps1 (kept 2026-11-21 14.30.12)')\n" + RUN_RESET

    ran = alice.python(code)

    assert ran.status == 0, ran.output
    assert [folder.name for folder in kept(alice)] == [
        "ps1 (kept 2026-11-21 14.30.12)",
        "ps1 (kept 2026-11-21 14.30.12, 2)",
    ]
    assert (alice.work / "ps1 (kept 2026-11-21 14.30.12, 2)/p1.ipynb").read_text() == "my work"


STOPPED_CLOCK = """
import os
from nbexchange.plugin import assignments
assignments._now = lambda: "2026-11-21 14.30.12"
"""
RUN_RESET = f"""
import sys
from nbgrader.apps import nbgraderapp
sys.argv = ["nbgrader", "fetch_assignment", "ps1", {RESET!r}]
nbgraderapp.main()
"""


@pytest.mark.parametrize("assignment_id", ["Übung " + "ß" * 120, "文" * 84], ids=["ß", "文"])
def test_a_long_name_is_cut_and_not_refused(teacher, alice, assignment_id):
    write_notebook(teacher.work / "release" / assignment_id / "p1.ipynb")
    named = f"--assignment={assignment_id}"
    ran_well(teacher, "release_assignment", named)
    ran_well(alice, "fetch_assignment", named)
    (alice.work / assignment_id / "p1.ipynb").write_text("my work")

    ran_well(alice, "fetch_assignment", named, RESET)

    (old,) = (path for path in alice.work.iterdir() if " (kept " in path.name)
    assert (old / "p1.ipynb").read_text() == "my work"
    assert (alice.work / assignment_id / "p1.ipynb").read_text() != "my work"


def test_a_reset_stays_in_the_folder_of_the_course(alice, released):
    alice.configure("c.Exchange.path_includes_course = True")
    ran_well(alice, "fetch_assignment", "ps1")

    ran_well(alice, "fetch_assignment", "ps1", RESET)

    names = sorted(path.name for path in (alice.work / "physics").iterdir())
    assert [path.name for path in alice.work.iterdir()] == ["physics"]
    assert names[0] == "ps1"
    assert KEPT.fullmatch(names[1])


def test_the_kept_folder_does_not_count_as_an_assignment(alice, released):
    ran_well(alice, "fetch_assignment", "ps1")
    ran_well(alice, "fetch_assignment", "ps1", RESET)
    (old,) = kept(alice)

    assert ran_well(alice, "list").lines[1:] == [
        "[ListApp | INFO] physics ps1 (already downloaded)"
    ]
    refused = alice.nbgrader("submit", old.name)
    assert refused.status == 1
    assert "Assignment not found" in refused.output


def test_renamed_back_it_is_the_students_work_again(teacher, outdated):
    (outdated.work / "ps1/p1.ipynb").write_text("my work")
    ran_well(outdated, "fetch_assignment", "ps1", RESET)
    (old,) = kept(outdated)
    (outdated.work / "ps1").rename(outdated.work / "new")
    old.rename(outdated.work / "ps1")

    assert len(told(outdated, "submit", "ps1")) == 1
    ran_well(teacher, "collect", "ps1")
    assert (teacher.work / "submitted/alice/ps1/p1.ipynb").read_text() == "my work"


def test_work_that_is_read_only_is_kept_as_it_is(alice, released):
    a_student_at_work(alice)
    mine = alice.work / "ps1"
    for path in (mine / "p1.ipynb", mine / "notes", mine):
        path.chmod(0o555 if path.is_dir() else 0o444)

    ran_well(alice, "fetch_assignment", "ps1", RESET)

    (old,) = kept(alice)
    assert (old / "p1.ipynb").read_text() == "my work"
    assert (old / "p1.ipynb").stat().st_mode & 0o777 == 0o444
    for path in (old, old / "notes"):
        path.chmod(0o755)


def test_a_link_to_the_work_is_kept_as_a_link(alice, released, tmp_path):
    a_student_at_work(alice)
    place = tmp_path / "another disk"
    (alice.work / "ps1").rename(place)
    (alice.work / "ps1").symlink_to(place)

    ran_well(alice, "fetch_assignment", "ps1", RESET)

    (old,) = kept(alice)
    assert old.readlink() == place
    assert (place / "p1.ipynb").read_text() == "my work"
    assert not (alice.work / "ps1").is_symlink()


def test_a_reset_that_cannot_be_fetched_changes_nothing(alice, released, trouble):
    before = a_student_at_work(alice)
    alice.url = trouble.url
    alice.configure("c.Exchange.retries = 0")
    trouble.always("GET assignment", drop)

    ran = alice.nbgrader("fetch_assignment", "ps1", RESET)

    assert ran.status == 1
    assert content(alice.work / "ps1") == before
    assert kept(alice) == []


RENAMES = """
import os, pathlib
real, count = pathlib.Path.rename, 0
def rename(self, target):
    global count
    count += 1
    if {when}:
        {then}
    return real(self, target)
pathlib.Path.rename = rename
"""


def test_whatever_moment_it_is_killed_at_no_work_is_lost(teacher, alice, released):
    work, new = a_student_at_work(alice), content(teacher.work / "release/ps1")
    moments = []
    for number in range(1, 9):
        killed = RENAMES.format(when=f"count == {number}", then="os._exit(9)")

        status = alice.python(killed + RUN_RESET).status

        here, beside = alice.work / "ps1", kept(alice)
        moments.append((here.exists(), len(beside)))
        if status == 0:
            break
        assert status == 9
        (whole,) = {here, *beside} if here.exists() else beside
        assert content(whole) == work
        whole.rename(here)
    assert (content(here), content(*beside)) == (new, work)
    assert moments == [*[(True, 0)] * (len(moments) - 2), (False, 1), (True, 1)]


def test_after_a_kill_in_between_fetching_gives_the_new_copy(alice, released):
    a_student_at_work(alice)
    alice.python(RENAMES.format(when="self.name == 'new'", then="os._exit(9)") + RUN_RESET)
    assert not (alice.work / "ps1").exists()

    ran_well(alice, "fetch_assignment", "ps1")

    assert (alice.work / "ps1/p2.ipynb").is_file()
    assert len(kept(alice)) == 1


def test_a_disk_that_refuses_the_new_copy_gives_the_old_one_back(alice, released):
    before = a_student_at_work(alice)
    full = RENAMES.format(
        when="self.name == 'new' and target.name == 'ps1'",
        then="raise OSError(28, 'No space left on device')",
    )

    ran = alice.python(full + RUN_RESET)

    assert ran.status == 1
    assert "No space left on device" in ran.output
    assert content(alice.work / "ps1") == before
    assert kept(alice) == []


def test_feedback_comes_back_after_a_reset(teacher, alice, released):
    timestamp = submit(alice)
    ran_well(teacher, "collect", "ps1")
    feedback = teacher.work / "feedback/alice/ps1"
    feedback.parent.mkdir(parents=True)
    (teacher.work / "submitted/alice/ps1").rename(feedback)
    (feedback / "p1.html").write_text("<p>Well done")
    ran_well(teacher, "release_feedback", "ps1")
    ran_well(alice, "fetch_feedback", "ps1")

    ran_well(alice, "fetch_assignment", "ps1", RESET)
    ran_well(alice, "fetch_feedback", "ps1")

    (old,) = kept(alice)
    for folder in (old, alice.work / "ps1"):
        assert (folder / "feedback" / timestamp / "p1.html").read_text() == "<p>Well done"


def test_a_reset_in_the_configuration_outdoes_replacing(alice, released):
    a_student_at_work(alice)
    alice.configure("c.ExchangeFetchAssignment.reset = True")

    ran_well(alice, "fetch_assignment", "ps1", "--replace")

    assert len(kept(alice)) == 1
    assert os.listdir(alice.work / "ps1")
