from __future__ import annotations

import base64
import hashlib
import json
import shutil

import pytest

from tests.plugin.conftest import left_over, ran_well, submit
from tests.plugin.middleman import Answer, change, drop, lose, say

MARKS = ("timestamp.txt", "submission_receipt.json")


def generate(teacher, student="alice", text="Well done", notebooks=("p1", "p2")):
    """Write the files of autograde and generate_feedback for the collected submission."""
    feedback = teacher.work / "feedback" / student / "ps1"
    feedback.mkdir(parents=True, exist_ok=True)
    for notebook in notebooks:
        (feedback / f"{notebook}.html").write_text(f"<p>{text}, {student}: {notebook}</p>")
    for mark in MARKS:
        shutil.copy(teacher.work / "submitted" / student / "ps1" / mark, feedback)
    return feedback


def states(home):
    (group,) = home.value(
        "exchange.List(coursedir=coursedir, authenticator=authenticator, config=config, "
        "cached=True).start()"
    )
    keys = ("has_local_feedback", "has_exchange_feedback", "feedback_updated")
    return [tuple(one[key] for key in keys) for one in group["submissions"]]


@pytest.fixture
def graded(teacher, alice, released):
    """Alice's submission has feedback on the instructor's disk."""
    submit(alice)
    ran_well(teacher, "collect", "ps1")
    return generate(teacher)


def test_nothing_to_release_is_a_silent_success(teacher, released):
    ran = ran_well(teacher, "release_feedback", "ps1")

    assert ran.output == ""


def test_a_course_has_to_be_named(teacher, alice, graded):
    for home, command in ((teacher, "release_feedback"), (alice, "fetch_feedback")):
        home.course_id = None
        home.configure()
        ran = home.nbgrader(command, "ps1")
        assert ran.status == 1
        assert "No course id specified. Re-run with --course flag." in ran.output


def test_feedback_goes_from_one_disk_to_the_other(teacher, alice, graded):
    before = states(alice)
    ran_well(teacher, "release_feedback", "ps1")
    ready = states(alice)

    ran_well(alice, "fetch_feedback", "ps1")

    (folder,) = (alice.work / "ps1/feedback").iterdir()
    assert folder.name == (graded / "timestamp.txt").read_text()
    assert left_over(folder) == {"p1.html", "p2.html"}
    assert (folder / "p1.html").read_bytes() == (graded / "p1.html").read_bytes()
    assert [before, ready, states(alice)] == [
        [(False, False, False)],
        [(False, True, False)],
        [(True, True, False)],
    ]


def test_an_extra_notebook_does_not_hide_the_feedback_on_the_others(teacher, alice, released):
    ran_well(alice, "fetch_assignment", "ps1")
    (alice.work / "ps1/scratch.ipynb").write_text("{}")
    submit(alice)
    ran_well(teacher, "collect", "ps1")
    generate(teacher, notebooks=("p1",))
    ran_well(teacher, "release_feedback", "ps1")
    ready = states(alice)

    ran_well(alice, "fetch_feedback", "ps1")

    assert [ready, states(alice)] == [[(False, True, False)], [(True, True, False)]]
    generate(teacher, notebooks=("p1", "p2"))
    ran_well(teacher, "release_feedback", "ps1")
    assert states(alice) == [(False, True, False)]


def test_a_feedback_file_that_cannot_be_read_is_offered_again(teacher, alice, graded):
    ran_well(teacher, "release_feedback", "ps1")
    ran_well(alice, "fetch_feedback", "ps1")
    (folder,) = (alice.work / "ps1/feedback").iterdir()
    (folder / "p1.html").unlink()
    (folder / "p1.html").mkdir()
    (folder / "p2.html").unlink()
    (folder / "p2.html").symlink_to("/proc/self/mem")  # reading it fails, for root as well

    assert states(alice) == [(False, True, True)]
    assert "feedback ready to be fetched" in ran_well(alice, "list", "--cached").output


def test_new_feedback_is_noticed_and_replaces_the_old(teacher, alice, graded):
    ran_well(teacher, "release_feedback", "ps1")
    ran_well(alice, "fetch_feedback", "ps1")
    (graded / "p1.html").write_text("<p>On second thoughts</p>")
    ran_well(teacher, "release_feedback", "ps1")
    updated = states(alice)

    ran_well(alice, "fetch_feedback", "ps1")

    assert updated == [(True, True, True)]
    assert states(alice) == [(True, True, False)]
    (page,) = (alice.work / "ps1/feedback").rglob("p1.html")
    assert page.read_text() == "<p>On second thoughts</p>"


def test_feedback_on_some_notebooks_is_announced_and_the_others_are_named(teacher, alice, graded):
    (graded / "p2.html").unlink()
    ran_well(teacher, "release_feedback", "ps1")

    ran = ran_well(alice, "fetch_feedback", "ps1")

    assert states(alice) == [(True, True, False)]
    assert "Could not find feedback for 'physics/ps1/p2'" in ran.output
    assert "Found feedback for 'physics/ps1/p1'" in ran.output


def test_feedback_is_about_the_submission_that_was_graded(teacher, alice, graded):
    """Alice submits again, and the instructor has collected that too, before the feedback."""
    submit(alice, "again")
    ran_well(teacher, "collect", "ps1", "--update")

    ran_well(teacher, "release_feedback", "ps1")

    assert states(alice) == [(False, True, False), (False, False, False)]


@pytest.mark.parametrize("with_timestamp", [True, False])
def test_the_receipt_names_the_submission(teacher, alice, graded, trouble, with_timestamp):
    receipt = json.loads((graded / "submission_receipt.json").read_text())
    if not with_timestamp:
        (graded / "timestamp.txt").unlink()
    teacher.url = trouble.url

    ran_well(teacher, "release_feedback", "ps1")

    for seen in trouble.requests("POST feedback"):
        assert seen.params["submission_id"] == receipt["submission_id"]
        assert seen.params["student"] == "alice"
    assert states(alice) == [(False, True, False)]


def test_without_a_receipt_student_and_time_name_the_submission(teacher, alice, graded):
    submit(alice, "again")
    (graded / "submission_receipt.json").unlink()

    ran_well(teacher, "release_feedback", "ps1")

    assert states(alice) == [(False, True, False), (False, False, False)]


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda receipt: receipt | {"student": "bob"}, id="student"),
        pytest.param(lambda receipt: receipt | {"assignment_id": "ps2"}, id="assignment"),
        pytest.param(lambda receipt: receipt | {"course_id": "chemistry"}, id="course"),
        pytest.param(lambda receipt: receipt | {"timestamp": "yesterday"}, id="time"),
        pytest.param(lambda receipt: receipt | {"submission_id": [1]}, id="id"),
        pytest.param(lambda receipt: [receipt], id="list"),
    ],
)
def test_a_receipt_that_is_not_about_this_folder_is_not_believed(
    teacher, alice, graded, trouble, forge
):
    receipt = json.loads((graded / "submission_receipt.json").read_text())
    (graded / "submission_receipt.json").write_text(json.dumps(forge(receipt)))
    teacher.url = trouble.url

    ran_well(teacher, "release_feedback", "ps1")

    params = trouble.requests("POST feedback")[0].params
    assert "submission_id" not in params
    assert (params["student"], params["timestamp"]) == ("alice", receipt["timestamp"])
    assert states(alice) == [(False, True, False)]


def test_a_bad_one_does_not_stop_the_others(teacher, alice, machine, graded):
    for name in ("bob", "carol"):
        submit(machine(name))
    ran_well(teacher, "collect", "ps1")
    of_bob, _ = generate(teacher, "bob"), generate(teacher, "carol")
    for mark in MARKS:
        (of_bob / mark).unlink()

    ran = teacher.nbgrader("release_feedback", "ps1")

    assert ran.status == 1
    assert "2 of 6 notebooks' feedback could not be released. bob p1, bob p2: " in ran.output
    assert "neither submission_receipt.json nor timestamp.txt" in ran.output
    assert "Traceback" not in ran.output
    assert ran.output.count("Feedback released to:") == 4
    assert states(alice) == [(False, True, False)]


@pytest.mark.parametrize(
    ("options", "config", "released_to"),
    [
        pytest.param(["--student=bob"], "", {"bob"}, id="one"),
        pytest.param(["--student=*"], "", {"alice", "bob"}, id="all"),
        pytest.param(["--student=a*"], "", {"alice"}, id="glob"),
        pytest.param(
            [], "c.CourseDirectory.student_id_exclude = 'alice,carol'", {"bob"}, id="excluded"
        ),
    ],
)
def test_students_may_be_picked(teacher, machine, graded, options, config, released_to):
    submit(machine("bob"))
    ran_well(teacher, "collect", "ps1")
    generate(teacher, "bob")
    teacher.configure(config)

    ran = ran_well(teacher, "release_feedback", "ps1", *options)

    assert {name for name in ("alice", "bob") if f"student '{name}'" in ran.output} == released_to


def test_the_folders_may_be_arranged_otherwise(teacher, alice, graded):
    teacher.configure(
        "c.CourseDirectory.directory_structure = "
        "'{nbgrader_step}/{assignment_id}/of {student_id} (x)'\n"
        "c.CourseDirectory.feedback_directory = 'fb[1]'"
    )
    (teacher.work / "fb[1]/ps1").mkdir(parents=True)
    graded.rename(teacher.work / "fb[1]/ps1/of alice (x)")
    (teacher.work / "fb[1]/ps1/of others").mkdir()

    ran_well(teacher, "release_feedback", "ps1")

    assert states(alice) == [(False, True, False)]


def test_the_same_feedback_again_changes_nothing(service, teacher, alice, graded):
    def newest():
        wire = service.wire(alice.token)
        answer = wire.get("feedback", course_id="physics", assignment_id="ps1").json()
        return [(one["notebook_id"], one["sha256"]) for one in answer["feedback"]]

    ran_well(teacher, "release_feedback", "ps1")
    before = newest(), service.files()

    ran_well(teacher, "release_feedback", "ps1")

    assert (newest(), service.files()) == before


@pytest.mark.parametrize("mishap", [drop, lose], ids=["before", "after"])
def test_a_lost_answer_is_asked_for_again_with_the_same_key(teacher, graded, trouble, mishap):
    teacher.url = trouble.url
    teacher.configure("c.ExchangeReleaseFeedback.release_workers = 1")
    trouble.next("POST feedback", mishap)

    ran_well(teacher, "release_feedback", "ps1")

    tries = trouble.requests("POST feedback")
    assert [seen.params["notebook"] for seen in tries] == ["p1", "p1", "p2"]
    keys = [seen.headers["idempotency-key"] for seen in tries]
    assert keys[0] == keys[1] != keys[2]


def test_a_student_cannot_release_feedback(alice, released):
    submit(alice)
    folder = alice.work / "feedback/alice/ps1"
    folder.mkdir(parents=True)
    (folder / "p1.html").write_text("I am great")
    (folder / "timestamp.txt").write_text("2026-01-01 00:00:00.000000 UTC")

    ran = alice.nbgrader("release_feedback", "ps1")

    assert ran.status == 1
    assert "Traceback" not in ran.output
    assert states(alice) == [(False, False, False)]


# Fetching


def test_nothing_to_fetch_is_a_success_and_creates_nothing(alice, released):
    submit(alice)
    before = left_over(alice.work)

    ran = ran_well(alice, "fetch_feedback", "ps1")

    assert "WARNING] Could not find feedback for 'physics/ps1/p1' submitted at" in ran.output
    assert left_over(alice.work) == before


def test_a_student_never_gets_the_feedback_of_another(teacher, alice, machine, graded):
    ran_well(teacher, "release_feedback", "ps1")
    bob = machine("bob")
    submit(bob)

    ran_well(bob, "fetch_feedback", "ps1")
    ran_well(bob, "fetch_feedback", "ps1", "--student=alice")

    assert not (bob.work / "ps1/feedback").exists()


def test_it_comes_where_the_assignment_is(teacher, alice, graded):
    ran_well(teacher, "release_feedback", "ps1")
    alice.configure("c.Exchange.assignment_dir = 'my work'\nc.Exchange.path_includes_course = True")

    ran_well(alice, "fetch_feedback", "ps1/")

    assert len(list(alice.work.glob("my work/physics/ps1/feedback/*/p1.html"))) == 1
    assert states(alice) == [(True, True, False)]


def test_an_unknown_assignment_is_an_error(alice, released):
    ran = alice.nbgrader("fetch_feedback", "nope")

    assert ran.status == 1
    assert "Traceback" not in ran.output
    assert left_over(alice.work) == set()


def page(notebook_id="p1", timestamp="2026-01-01 00:00:00.000000 UTC", content=b"<p>hi</p>"):
    return {
        "notebook_id": notebook_id,
        "submission_timestamp": timestamp,
        "content": base64.b64encode(content).decode(),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def told(*pages):
    return say(Answer.json({"success": True, "feedback": list(pages)}))


@pytest.mark.parametrize("name", ["../../evil", "..", "/tmp/evil", "a/b", "a\0b"])
def test_a_name_does_not_lead_out_of_the_folder(alice, released, trouble, name):
    submit(alice)
    alice.url = trouble.url
    before = left_over(alice.folder)
    trouble.always("GET feedback", told(page(name), page("p2")))

    ran = alice.nbgrader("fetch_feedback", "ps1")

    assert ran.status == 1
    assert "cannot be the name of a file" in ran.output
    new = {one for one in left_over(alice.folder) - before if one.endswith((".html", "evil"))}
    assert new == {"work/ps1/feedback/2026-01-01 00:00:00.000000 UTC/p2.html"}


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(page(timestamp="../../../evil"), id="a path for a time"),
        pytest.param(page(timestamp="2026-13-01 00:00:00.000000 UTC"), id="no such time"),
        pytest.param(page(timestamp="2026-1-1 0:0:0.5 UTC"), id="a time of another width"),
        pytest.param(page() | {"content": "%%%"}, id="not base64"),
        pytest.param(page() | {"content": None}, id="no content"),
        pytest.param(page() | {"notebook_id": 7}, id="a number for a name"),
        pytest.param("page", id="text"),
    ],
)
def test_invalid_feedback_is_an_error(alice, released, trouble, bad):
    submit(alice)
    alice.url = trouble.url
    trouble.always("GET feedback", told(bad))

    ran = alice.nbgrader("fetch_feedback", "ps1")

    assert ran.status == 1
    assert "is not an exchange service of this version" in ran.output
    assert "Traceback" not in ran.output
    assert not (alice.work / "ps1/feedback").exists()


def test_feedback_that_arrives_corrupt_is_not_written(alice, released, trouble):
    submit(alice)
    alice.url = trouble.url
    trouble.always("GET feedback", told(page() | {"sha256": "0" * 64}, page("p2")))

    ran = alice.nbgrader("fetch_feedback", "ps1")

    assert ran.status == 1
    assert "arrived corrupt" in ran.output
    assert [path.name for path in alice.work.rglob("*.html")] == ["p2.html"]


def test_feedback_may_change_while_it_is_listed(teacher, alice, graded, trouble):
    """The list says so, and another machine has it already."""
    ran_well(teacher, "release_feedback", "ps1")
    alice.url = trouble.url

    def forget(said):
        for record in said["value"]:
            for notebook in record["notebooks"]:
                notebook["feedback_sha256"] = None

    ran_well(alice, "fetch_feedback", "ps1")
    trouble.always("GET assignments", change(forget))

    assert states(alice) == [(True, True, False)]
