"""The effect of the hub's list of courses on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.plugin.conftest import left_over, ran_well
from tests.support import databases
from tests.support.archives import NOTEBOOK, tar_gz, upload_headers
from tests.support.nbgrader import Home

AliceIn = Callable[..., Home]


@pytest.fixture
def alice_in(service, machine) -> AliceIn:
    """Alice on a machine of her hub, which knows these courses; each has a ps1."""

    def make(*course_ids: str, told: object = None) -> Home:
        alice = machine("alice")
        alice.course_id = None
        alice.configure()
        alice.token = service.enrol("alice", dict.fromkeys(course_ids, "Student"))
        alice.env["NBEXCHANGE_COURSES"] = json.dumps(
            dict.fromkeys(course_ids, "Student") if told is None else told
        )
        for course_id in course_ids:
            body = tar_gz(p1=NOTEBOOK, of=course_id.encode())
            ada = service.instructor(course_id)
            answer = ada.post(
                "assignment", body, upload_headers(body), course_id=course_id, assignment_id="ps1"
            )
            assert answer.status_code == 201, answer.text
        return alice

    return make


def test_two_courses_may_have_an_assignment_of_the_same_name(alice_in):
    alice = alice_in("physics", "latin")

    for course_id in ("physics", "latin"):
        ran_well(alice, "fetch_assignment", "ps1", "--course", course_id)
        (alice.work / course_id / "ps1" / "p1.ipynb").write_text(f"my {course_id}")
        ran_well(alice, "submit", "ps1", "--course", course_id)
    ran_well(alice, "fetch_feedback", "ps1", "--course", "latin")

    assert {path.name for path in alice.work.iterdir()} == {"physics", "latin"}
    assert (alice.work / "latin/ps1/of.ipynb").read_text() == "latin"
    for course_id in ("physics", "latin"):
        (copy,) = (alice.cache / course_id).iterdir()
        assert (copy / "p1.ipynb").read_text() == f"my {course_id}"
    assert ran_well(alice, "list").lines[1:] == [
        "[ListApp | INFO] latin ps1 (already downloaded)",
        "[ListApp | INFO] physics ps1 (already downloaded)",
    ]


def test_the_only_course_need_not_be_named(alice_in):
    alice = alice_in("physics")

    ran_well(alice, "fetch_assignment", "ps1")
    ran_well(alice, "submit", "ps1")
    ran_well(alice, "fetch_feedback", "ps1")

    assert (alice.work / "physics/ps1/p1.ipynb").is_file()
    assert len(ran_well(alice, "list", "--cached").lines) == 2


def test_of_several_courses_none_is_guessed(alice_in):
    alice = alice_in("physics", "latin")
    alice.env["NBEXCHANGE_COURSE_ID"] = "latin"

    for command in ("fetch_assignment", "submit", "fetch_feedback"):
        ran = alice.nbgrader(command, "ps1")
        assert ran.status == 1
        assert (
            "No course id specified. Re-run with --course flag. Your courses are: latin, physics."
        ) in ran.output


def test_where_no_hub_names_courses_the_course_of_the_server_is_meant(alice_in):
    alice = alice_in("physics", "latin")
    del alice.env["NBEXCHANGE_COURSES"]
    alice.env["NBEXCHANGE_COURSE_ID"] = "latin"

    ran_well(alice, "fetch_assignment", "ps1")

    assert (alice.work / "ps1/of.ipynb").read_text() == "latin"


def test_the_configuration_has_the_last_word_on_the_folder(alice_in):
    alice = alice_in("physics")
    alice.configure("c.Exchange.path_includes_course = False")

    ran_well(alice, "fetch_assignment", "ps1")

    assert (alice.work / "ps1/p1.ipynb").is_file()


def test_rubbish_is_ignored_with_a_word(alice_in):
    alice = alice_in("physics")

    for rubbish in ("{", "[]", '{"physics": 1}', "3", "[" * 9999):
        alice.env["NBEXCHANGE_COURSES"] = rubbish
        ran = alice.nbgrader("fetch_assignment", "ps1")
        assert ran.status == 1
        assert "NBEXCHANGE_COURSES is not a JSON object" in ran.output
        assert "No course id specified." in ran.output
        assert "Traceback" not in ran.output


HOSTILE = ("..", ".", "../out", "/tmp/out", "a/b", ".jupyter", "", "x" * 256, "a\0b", "\ud800")


def test_a_course_whose_name_leads_elsewhere_has_no_folder(alice_in):
    alice = alice_in("physics", told=dict.fromkeys(HOSTILE, "Student"))

    for name in HOSTILE:
        alice.env["NBEXCHANGE_COURSES"] = json.dumps({name: "Student"})
        ran = alice.nbgrader("fetch_assignment", "ps1")
        assert ran.status == 1
        assert "No course id specified." in ran.output
    for name in ("..", ".jupyter"):
        ran = alice.nbgrader("fetch_assignment", "ps1", f"--course={name}")
        assert ran.status == 1
        assert "cannot be the name of a folder" in ran.output
    assert left_over(alice.work) == set()


def test_a_hidden_folder_is_never_fetched_into(alice_in, service):
    """Hidden folders may contain code that programs run, or a user's keys."""
    courses = dict.fromkeys(("physics", ".ipython"), "Student")
    alice = alice_in("physics", "ipython", told=courses)
    databases.rename(service.data, "course", "course_id", {"ipython": ".ipython"})
    alice.token = service.enrol("alice", courses)

    listed = alice.nbgrader("list")
    hidden_course = alice.nbgrader("fetch_assignment", "ps1", "--course=.ipython")
    hidden_assignment = alice.nbgrader("fetch_assignment", ".ssh", "--course=physics")

    assert ".ipython ps1" not in listed.output
    assert hidden_course.status == hidden_assignment.status == 1
    assert left_over(alice.work) == set()
