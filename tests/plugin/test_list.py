from __future__ import annotations

import pytest

from tests.plugin.conftest import ran_well, submit
from tests.plugin.middleman import change
from tests.support.nbgrader import write_notebook


def lister(*traits: str) -> str:
    options = "".join(f", {trait}=True" for trait in traits)
    return (
        "exchange.List(coursedir=coursedir, authenticator=authenticator, "
        f"config=config{options}).start()"
    )


@pytest.fixture
def chemistry(service, teacher, alice, machine):
    """A second course of the same people, with something released; ids need not be tame."""
    course_id = "chem & phys + 100 % 🧪"
    for home in (teacher, alice):
        role = "Instructor" if home is teacher else "Student"
        name = "ada" if home is teacher else "alice"
        service.enrol(name, {"physics": role, course_id: role})
    write_notebook(teacher.work / "release" / "exam" / "q.ipynb")
    ran_well(teacher, "release_assignment", "exam", "--course", course_id)
    return course_id


def test_a_course_with_nothing_in_it_is_an_empty_list(teacher, alice):
    assert teacher.value(lister()) == []
    assert teacher.value(lister("inbound")) == []
    assert alice.value(lister("cached")) == []
    assert ran_well(alice, "list").lines == ["[ListApp | INFO] Released assignments:"]


@pytest.mark.parametrize("course_id", ["", "*"], ids=["unnamed", "star"])
def test_without_a_course_all_of_the_callers_are_listed(alice, released, chemistry, course_id):
    submit(alice)
    alice.course_id = course_id
    alice.configure()

    listed = alice.value(lister())
    cached = alice.value(lister("cached"))

    assert [(one["course_id"], one["assignment_id"], one["status"]) for one in listed] == [
        (chemistry, "exam", "released"),
        ("physics", "ps1", "fetched"),
    ]
    assert [one["course_id"] for one in cached] == ["physics"]


def test_without_a_course_submissions_of_all_courses_are_inbound(
    teacher, alice, released, chemistry
):
    submit(alice)
    ran_well(alice, "fetch_assignment", "exam", "--course", chemistry)
    ran_well(alice, "submit", "exam", "--course", chemistry)
    teacher.course_id = ""
    teacher.configure()

    inbound = teacher.value(lister("inbound"))

    assert [(one["course_id"], one["student_id"]) for one in inbound] == [
        (chemistry, "alice"),
        ("physics", "alice"),
    ]


def test_a_course_may_be_called_like_a_glob(machine):
    course_id = "Physics [A]: why?"
    teacher, alice = machine("ada", "Instructor", course_id), machine("alice", "Student", course_id)
    write_notebook(teacher.work / "release" / "ps1" / "p1.ipynb")
    ran_well(teacher, "release_assignment", "ps1")
    submit(alice)
    released = alice.value(lister())
    ran_well(teacher, "list", "--remove")

    inbound = teacher.value(lister("inbound"))

    assert [one["course_id"] for one in (*released, *inbound)] == [course_id, course_id]
    assert teacher.value(lister()) == []


def test_a_foreign_course_is_an_error_that_says_so(alice, released):
    ran = alice.nbgrader("list", "--course", "secret")

    assert ran.status == 1
    assert "[ListApp | CRITICAL]" in ran.output
    assert "secret" in ran.output
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param("", ["ps1", "ps[1]"], id="unnamed"),
        pytest.param("*", ["ps1", "ps[1]"], id="star"),
        pytest.param("ps[1]", ["ps1", "ps[1]"], id="both a name and a glob"),
        pytest.param("ps?", ["ps1"], id="glob"),
        pytest.param("ps9", [], id="nothing"),
    ],
)
def test_assignments_may_be_picked(teacher, alice, released, pattern, names):
    write_notebook(teacher.work / "release" / "ps[1]" / "p.ipynb")
    ran_well(teacher, "release_assignment", "ps[1]")
    alice.configure(f"c.CourseDirectory.assignment_id = {pattern!r}")

    assert [one["assignment_id"] for one in alice.value(lister())] == names


def test_students_may_be_picked(teacher, alice, machine, released):
    for home in (alice, machine("bob"), machine("a+b")):
        submit(home)

    def students(pattern):
        teacher.configure(f"c.CourseDirectory.student_id = {pattern!r}")
        return [one["student_id"] for one in teacher.value(lister("inbound"))]

    assert students("a*") == ["a+b", "alice"]
    assert students("a+b") == ["a+b"]
    assert students("") == ["a+b", "alice", "bob"]


def test_a_student_sees_own_submissions_only(alice, machine, released):
    bob = machine("bob")
    submit(alice)
    submit(bob)

    assert [one["student_id"] for one in alice.value(lister("inbound"))] == ["alice"]
    assert [one["student_id"] for one in bob.value(lister("cached"))] == ["bob"]


def test_submissions_come_oldest_first_and_are_known_on_every_machine(alice, machine, released):
    times = [submit(alice), submit(alice)]
    elsewhere = machine("alice")

    here = alice.value(lister("cached"))[0]["submissions"]
    there = elsewhere.value(lister("cached"))[0]["submissions"]

    assert [one["timestamp"] for one in here] == [one["timestamp"] for one in there] == times
    assert [one["path"] for one in there] == ["", ""]
    assert all(one["path"].startswith(str(alice.cache)) for one in here)


def test_names_that_are_too_long_together_have_no_copy_here(teacher, machine):
    write_notebook(teacher.work / "release" / ("x" * 200) / "p1.ipynb")
    ran_well(teacher, "release_assignment", "x" * 200)
    long = machine("s" * 100)
    submit(long, assignment_id="x" * 200)

    (group,) = long.value(lister("cached"))

    assert [one["path"] for one in group["submissions"]] == [""]


def test_a_fetched_assignment_is_listed_as_it_is_on_the_disk(alice, released):
    alice.configure("c.Exchange.assignment_dir = 'my work'\nc.Exchange.path_includes_course = True")
    ran_well(alice, "fetch_assignment", "ps1")
    folder = alice.work / "my work/physics/ps1"
    (folder / "p2.ipynb").unlink()
    write_notebook(folder / "mine.ipynb")

    (one,) = alice.value(lister())

    assert (one["status"], one["path"]) == ("fetched", str(folder))
    assert one["notebooks"] == [
        {"notebook_id": name, "path": f"{folder}/{name}.ipynb"} for name in ("mine", "p1")
    ]
    assert ran_well(alice, "list").lines[-1].endswith("physics ps1 (already downloaded)")


def test_a_copy_without_notebooks_at_the_top_is_warned_about(alice, released):
    write_notebook(alice.work / "ps1/extra/p3.ipynb")

    ran = ran_well(alice, "list")

    assert f"WARNING] No notebooks found in {alice.work}/ps1" in ran.output


def test_each_list_consists_of_new_objects(alice, released):
    submit(alice)

    same = alice.value(
        "(lambda one: [one.start() is one.start(), "
        "one.start()[0]['notebooks'] is one.start()[0]['notebooks']])"
        "(exchange.List(coursedir=coursedir, authenticator=authenticator, config=config))"
    )

    assert same == [False, False]


def test_nbgraders_authenticator_filters(alice, released, chemistry):
    alice.course_id = ""
    alice.configure(
        "from nbgrader.auth.base import NoAuthPlugin\n"
        "class Some(NoAuthPlugin):\n"
        "    def get_student_courses(self, student_id):\n"
        "        return ['physics']\n"
        "c.Authenticator.plugin_class = Some"
    )

    assert [one["course_id"] for one in alice.value(lister())] == ["physics"]


# Removing


def test_removing_keeps_the_submissions(teacher, alice, released):
    timestamp = submit(alice)

    removed = teacher.value(
        "(lambda one: (setattr(one, 'remove', True), one.start())[1])"
        "(exchange.List(coursedir=coursedir, authenticator=authenticator, config=config))"
    )

    assert [(one["assignment_id"], one["status"]) for one in removed] == [("ps1", "removed")]
    assert teacher.value(lister()) == []
    (group,) = teacher.value(lister("inbound"))
    assert [one["timestamp"] for one in group["submissions"]] == [timestamp]
    (group,) = alice.value(lister("cached"))
    assert [one["timestamp"] for one in group["submissions"]] == [timestamp]


def test_removing_a_missing_release_succeeds(teacher):
    ran = ran_well(teacher, "list", "--remove", "ps1")

    assert ran.lines == ["[ListApp | INFO] Removing released assignments:"]
    assert teacher.value(lister("remove")) == []


def test_two_removals_at_once_both_succeed(service, teacher, released, trouble):
    teacher.url = trouble.url

    def removed_meanwhile(handler, seen):
        service.wire(teacher.token).delete("assignment", **seen.params)
        handler.send(handler.forward(seen))

    trouble.next("DELETE assignment", removed_meanwhile)

    ran_well(teacher, "list", "--remove", "ps1")


def test_a_student_cannot_remove(teacher, alice, released):
    ran = alice.nbgrader("list", "--remove", "ps1")

    assert ran.status == 1
    assert "Traceback" not in ran.output
    assert len(teacher.value(lister())) == 1


def test_removing_needs_a_course(teacher, released):
    teacher.course_id = ""
    teacher.configure()

    ran = teacher.nbgrader("list", "--remove", "ps1")

    assert ran.status == 1
    assert "No course id specified. Re-run with --course flag." in ran.output


def test_submissions_are_not_removed_from_the_service(teacher, alice, released):
    submit(alice)

    ran = teacher.nbgrader("list", "--inbound", "--remove")

    assert ran.status == 1
    assert "Submissions are never removed" in ran.output
    assert len(teacher.value(lister("inbound"))) == 1


def test_removing_cached_copies_removes_the_copies_here(alice, released):
    first, second = submit(alice), submit(alice)
    alice.configure("c.CourseDirectory.assignment_id = 'ps1'")

    ran = ran_well(alice, "list", "--cached", "--remove")
    again = ran_well(alice, "list", "--cached", "--remove")

    assert ran.lines == [
        "[ListApp | INFO] Removing submitted assignments:",
        f"[ListApp | INFO] physics alice ps1 {first}",
        f"[ListApp | INFO] physics alice ps1 {second}",
    ]
    assert list((alice.cache / "physics").iterdir()) == []
    assert again.lines == ["[ListApp | INFO] Removing submitted assignments:"]
    assert len(alice.value(lister("cached"))[0]["submissions"]) == 2


# Names that lead elsewhere


@pytest.mark.parametrize("key", ["course_id", "assignment_id"])
@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", "/etc", ".", "🧪" * 100],
    ids=["up", "above", "absolute", "here", "too long"],
)
def test_a_name_that_cannot_be_a_folder_is_left_out(alice, released, trouble, key, name):
    alice.course_id = ""
    alice.configure("c.Exchange.path_includes_course = True")
    alice.url = trouble.url
    trouble.always("GET assignments", change(lambda said: said["value"][0].update({key: name})))

    assert alice.value(lister()) == []
    assert "Leaving out" in ran_well(alice, "list").output


def test_a_notebook_whose_name_is_a_path_is_left_out(alice, released, trouble):
    submit(alice)
    alice.url = trouble.url

    def rename(said):
        for record in said["value"]:
            for notebook in record["notebooks"]:
                if notebook["notebook_id"] == "p1":
                    notebook["notebook_id"] = "../../p1"

    trouble.always("GET assignments", change(rename))

    (group,) = alice.value(lister("cached"))

    assert [nb["notebook_id"] for nb in group["submissions"][0]["notebooks"]] == ["p2"]
