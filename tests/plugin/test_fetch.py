from __future__ import annotations

import io
import os
import tarfile

import pytest

from tests.plugin.conftest import fetched, left_over
from tests.plugin.middleman import Answer, say
from tests.support.nbgrader import write_notebook


def test_all_of_it_arrives(teacher, alice, released):
    assert fetched(alice, released) == {
        "data.csv", "extra", "extra/p3.ipynb", "p1.ipynb", "p2.ipynb",
    }  # fmt: skip
    ours = (teacher.work / "release/ps1/p1.ipynb").read_bytes()
    assert (alice.work / "ps1/p1.ipynb").read_bytes() == ours


def test_it_comes_where_the_configuration_says(alice, released):
    alice.configure("c.Exchange.path_includes_course = True\nc.Exchange.assignment_dir = 'my/work'")

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert (alice.work / "my/work/physics/ps1/p1.ipynb").is_file()
    again = alice.nbgrader("fetch_assignment", "ps1")
    assert (
        "You already have a copy of the assignment in this directory: physics/ps1" in again.output
    )


def test_nothing_is_left_of_a_fetch_that_fails(alice, released):
    alice.configure("c.Exchange.path_includes_course = True")

    ran = alice.nbgrader("fetch_assignment", "nope")

    assert ran.status == 1
    assert left_over(alice.work) == set()


def test_a_damaged_archive_leaves_nothing(alice, released, trouble):
    alice.configure("c.Exchange.path_includes_course = True\nc.Exchange.retries = 0")
    alice.url = trouble.url

    def damage(handler, seen):
        answer = handler.forward(seen)
        answer.body = answer.body[:-20] + bytes(20)
        handler.send(answer)

    trouble.always("GET assignment", damage)

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 1
    assert "The archive arrived corrupt" in ran.output
    assert left_over(alice.work) == set()


def archive_with(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    return target.getvalue()


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"rubbish", id="rubbish"),
        pytest.param(archive_with("p1.ipynb")[:-20], id="cut"),
        pytest.param(archive_with("../out"), id="a way up"),
        pytest.param(archive_with("/tmp/out"), id="a way to the top"),
        pytest.param(archive_with("link", tarfile.SYMTYPE), id="symbolic link"),
        pytest.param(archive_with("link", tarfile.LNKTYPE), id="hard link"),
    ],
)
@pytest.mark.parametrize("option", [[], ["--replace"]], ids=["once", "replace"])
def test_an_archive_that_is_not_safe_leaves_nothing(alice, released, trouble, blob, option):
    alice.configure("c.Exchange.path_includes_course = True")
    alice.url = trouble.url
    trouble.always("GET assignment", say(Answer.archive(blob)))

    ran = alice.nbgrader("fetch_assignment", "ps1", *option)

    assert ran.status == 1
    assert "Traceback" not in ran.output
    assert left_over(alice.work) == set()


def test_every_name_on_the_command_line_is_tried(teacher, alice, released):
    write_notebook(teacher.work / "release/ps2/p1.ipynb")
    teacher.nbgrader("release_assignment", "ps2")

    ran = alice.nbgrader("fetch_assignment", "nope", "ps1", "ps2")

    assert ran.status == 1
    assert {path.name for path in alice.work.iterdir()} == {"ps1", "ps2"}


def test_only_missing_files_are_replaced(alice, released):
    alice.nbgrader("fetch_assignment", "ps1")
    mine = alice.work / "ps1"
    (mine / "p1.ipynb").write_text("my work")
    (mine / "p2.ipynb").unlink()
    (mine / "extra/p3.ipynb").unlink()
    (mine / "mine.txt").write_text("mine")

    ran = alice.nbgrader("fetch_assignment", "ps1", "--replace")

    assert ran.status == 0
    assert "Replacing missing file 'ps1/p2.ipynb'" in ran.output
    assert "Replacing missing file 'ps1/extra/p3.ipynb'" in ran.output
    assert (mine / "p1.ipynb").read_text() == "my work"
    assert (mine / "mine.txt").read_text() == "mine"
    assert (mine / "extra/p3.ipynb").is_file()
    assert "ps1/p1.ipynb" not in ran.output


def test_everything_may_be_missing(alice, released):
    ran = alice.nbgrader("fetch_assignment", "ps1", "--replace")

    assert ran.status == 0
    assert "Replacing" not in ran.output
    assert (alice.work / "ps1/extra/p3.ipynb").is_file()


def test_missing_folders_are_replaced_and_links_are_not_followed_out(alice, released, tmp_path):
    alice.nbgrader("fetch_assignment", "ps1")
    mine = alice.work / "ps1"
    (mine / "extra/p3.ipynb").unlink()
    (mine / "extra").rmdir()
    (mine / "p2.ipynb").unlink()
    (mine / "p2.ipynb").symlink_to(tmp_path / "not there")

    ran = alice.nbgrader("fetch_assignment", "ps1/", "--replace")

    assert ran.status == 0, ran.output
    assert "Creating missing directory 'ps1/extra'" in ran.output
    assert (mine / "extra/p3.ipynb").is_file()
    assert (mine / "p2.ipynb").is_symlink()
    assert not (tmp_path / "not there").exists()


def test_ignored_files_are_not_fetched(alice, released):
    alice.configure(
        "c.CourseDirectory.ignore = ['*.csv', 'extra']\nc.CourseDirectory.include = ['p1*']\n"
        "c.CourseDirectory.max_file_size = 0"
    )

    # `include` and the sizes do not matter here, as in nbgrader's own exchange.
    assert fetched(alice, "ps1") == {"p1.ipynb", "p2.ipynb"}


def test_something_in_the_way_stays(alice, released):
    (alice.work / "ps1").write_text("my notes")

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 1
    assert "exists and is not a folder" in ran.output
    assert (alice.work / "ps1").read_text() == "my notes"


def test_a_foreign_course_looks_like_none(alice, released, machine):
    stranger = machine("eve", course_id="chemistry")

    foreign = stranger.nbgrader("fetch_assignment", "ps1", "--course", "physics")
    absent = stranger.nbgrader("fetch_assignment", "ps1", "--course", "phys1cs")

    assert foreign.status == absent.status == 1
    assert foreign.output.replace("physics", "phys1cs") == absent.output
    assert "Traceback" not in foreign.output
    assert left_over(stranger.work) == set()


def test_nbgraders_authenticator_may_forbid_it(alice, released):
    alice.configure(
        "from nbgrader.auth.base import NoAuthPlugin\n"
        "class Elsewhere(NoAuthPlugin):\n"
        "    def get_student_courses(self, student_id):\n"
        "        assert student_id == '*'\n"
        "        return ['chemistry']\n"
        "c.Authenticator.plugin_class = Elsewhere"
    )

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 1
    assert "You do not have access to this course." in ran.output


def test_an_authenticator_that_fails_gives_a_sentence(alice, released):
    alice.configure(
        "from nbgrader.auth.jupyterhub import JupyterHubAuthPlugin\n"
        "c.Authenticator.plugin_class = JupyterHubAuthPlugin"
    )

    for command in ("list", "fetch_assignment", "submit"):
        os.makedirs(alice.work / "ps2", exist_ok=True)
        ran = alice.nbgrader(command, *(["ps2"] if command != "list" else []))
        assert ran.status == 1
        assert "cannot list your courses" in ran.output
        assert "Traceback" not in ran.output


def test_the_old_section_of_the_configuration_still_counts(alice, released):
    alice.nbgrader("fetch_assignment", "ps1")
    alice.configure("c.ExchangeFetch.replace_missing_files = True")

    ran = alice.nbgrader("fetch_assignment", "ps1")

    assert ran.status == 0, ran.output
    assert "Use ExchangeFetchAssignment in config, not ExchangeFetch" in ran.output


@pytest.mark.parametrize("name", ["../out", "..", "/tmp/out"], ids=["above", "parent", "absolute"])
def test_a_name_that_leads_elsewhere_is_refused(alice, released, trouble, name):
    alice.url = trouble.url
    trouble.always("GET assignment", say(Answer.archive(b"")))

    ran = alice.nbgrader("fetch_assignment", name)

    assert ran.status == 1
    assert "cannot be the name of a folder" in ran.output
    assert not trouble.seen
