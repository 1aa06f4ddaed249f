"""Who may do what, through the front door: every route x method x caller x target.

The cells come from the policy table and the route table; only the callers are written down here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from nbexchange.errors import Misconfigured
from nbexchange.exchange.policy import POLICY, Reach, Verb, permit
from nbexchange.handlers import ROUTES, check_verbs
from nbexchange.handlers.base import PUBLIC, BaseHandler
from nbexchange.identity import Membership, Role, User
from tests.support import course
from tests.support.archives import tar_gz
from tests.support.process import wait_until
from tests.support.service import Service, Wire

BODY = tar_gz(p1=b"{}")
PURGE = "purge"


@dataclass
class Campus:
    """Physics and chemistry in organisation 1, and another physics in organisation 2.

    Each course has an assignment that is released, handed in by its student, and given feedback.
    """

    service: Service
    tokens: dict[str, str | None] = field(default_factory=dict)
    submissions: dict[tuple[int, str], str] = field(default_factory=dict)
    purges: dict[tuple[int, str], str] = field(default_factory=dict)

    def wire(self, caller: str) -> Wire:
        return self.service.wire(self.tokens[caller])

    def fingerprint(self) -> tuple[Any, ...]:
        """All that a refused request must not change."""
        rows = [
            course.rows(self.service, table)
            for table in ("assignment", "release", "submission", "feedback", "event", "user")
        ]
        return str(rows), self.service.fingerprints()


def build_campus(service: Service) -> Campus:
    campus = Campus(service)
    for org_id, course_id in ((1, "physics"), (1, "chemistry"), (2, "physics")):
        # The same two names everywhere: what tells people apart is the organisation.
        instructor = f"ada-{course_id}" if course_id == "chemistry" else "ada"
        ada = service.instructor(course_id, instructor, org_id)
        bob = service.student(course_id, "bob" if course_id == "physics" else "zoe", org_id)
        where = {"course_id": course_id, "assignment_id": "ps1"}
        assert ada.post("assignment", BODY, **where).status_code == 201
        receipt = bob.post("submission", BODY, **where).json()
        assert ada.post(
            "feedback", b"<p>", notebook="p1", submission_id=receipt["submission_id"], **where
        ).ok
        campus.submissions[org_id, course_id] = receipt["submission_id"]
        gone = {"course_id": course_id, "assignment_id": "gone"}
        assert ada.post("assignment", BODY, **gone).status_code == 201
        campus.purges[org_id, course_id] = course.purge(ada, **gone)
    campus.tokens = {
        "nobody": None,
        "bad token": "not-a-token",
        "student": "token-1-bob",
        "instructor": "token-1-ada",
        "student of another course": "token-1-zoe",
        "instructor of another course": "token-1-ada-chemistry",
        "same name, student in another organisation": "token-2-bob",
        "same name, instructor in another organisation": "token-2-ada",
        "former instructor, now a student": service.enrol("max", {"physics": "Student"}),
        "former member": service.enrol("mia", {}),
    }
    return campus


@pytest.fixture
def campus(service: Service) -> Campus:
    return build_campus(service)


@pytest.fixture(scope="module")
def busy_campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campus]:
    """One for all cells that add something: they find what they ask for, however much there is."""
    with Service(tmp_path_factory.mktemp("busy") / "data") as service:
        yield build_campus(service)


@pytest.fixture
def campus_to_change(request: pytest.FixtureRequest, method: str) -> Campus:
    """What is deleted is missing in the next cell, so such a cell has a campus of its own."""
    campus: Campus = request.getfixturevalue("campus" if method == "DELETE" else "busy_campus")
    return campus


@pytest.fixture(scope="module")
def quiet_campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campus]:
    """One for all cells that change nothing, which is asserted in each."""
    data = tmp_path_factory.mktemp("campus") / "data"
    with Service(data) as service:
        # Roles of the past leave rows; that must not leave rights.
        where = {"course_id": "physics", "assignment_id": "old"}
        for name in ("max", "mia"):
            past = service.instructor("physics", name)
            assert past.post("assignment", BODY, **where).status_code == 201
        yield build_campus(service)


# -- the cells

TARGETS = {
    "own": (1, "physics"),
    "other course": (1, "chemistry"),
    "absent": (1, "alchemy"),
}
"""Seen from organisation 1. The other organisation's physics has the same name as ours, so its
people are the callers, and our physics is their target."""

ROLE_IN_PHYSICS = {
    "student": Role.STUDENT,
    "instructor": Role.INSTRUCTOR,
    "former instructor, now a student": Role.STUDENT,
}

CALLERS = (
    "nobody",
    "bad token",
    "student",
    "instructor",
    "student of another course",
    "instructor of another course",
    "former instructor, now a student",
    "former member",
)


def routes() -> list[tuple[str, str, Verb]]:
    found = []
    for path, handler in ROUTES:
        for method, verb in handler.verbs.items():
            if verb is not PUBLIC:
                found.append((path, method, verb))
    # One address, two verbs: erasing is removing with a flag.
    found.append(("assignment?purge=yes", "DELETE", Verb.PURGE))
    return found


def ask(campus: Campus, caller: str, path: str, method: str, target: tuple[int, str]):
    _, course_id = target
    path, _, purge = path.partition("?")
    params = {
        "course_id": course_id,
        "assignment_id": "ps1",
        "notebook": "p1",
        "submission_id": campus.submissions.get(target, "0" * 32),
        "path": campus.submissions.get(target, "0" * 32),
    }
    if path == "purges":
        del params["assignment_id"]
        params["purge_id"] = campus.purges.get(target, "0" * 12)
    if purge:
        params[PURGE] = "yes"
    if path == "feedback" and method == "GET":
        del params["submission_id"]
    body = BODY if method == "POST" else None
    return campus.wire(caller).request(method, path, params=params, data=body)


def said(answer: requests.Response, target: tuple[int, str]) -> tuple[int, str]:
    """Status and words, without what names the request itself."""
    words = answer.json()
    del words["request_id"]
    return answer.status_code, repr(words).replace(target[1], "COURSE")


def role_of(caller: str, target: str) -> Role | None:
    if target == "own":
        return ROLE_IN_PHYSICS.get(caller)
    if target == "other course":
        return {
            "student of another course": Role.STUDENT,
            "instructor of another course": Role.INSTRUCTOR,
        }.get(caller)
    return None


def expected_refusal(caller: str, verb: Verb, target: str) -> int | None:
    if caller in ("nobody", "bad token"):
        return 401
    role = role_of(caller, target)
    if role is None:
        return 404
    return None if role in POLICY[verb] else 403


CELLS = [
    pytest.param(path, method, verb, caller, target, id=f"{method} {path}-{caller}-{target}")
    for path, method, verb in routes()
    for caller in CALLERS
    for target in TARGETS
]
REFUSED = [cell for cell in CELLS if expected_refusal(cell.values[3], *cell.values[2:5:2])]
ALLOWED = [cell for cell in CELLS if cell not in REFUSED]


def test_the_table_has_a_row_for_every_verb_and_both_lists_have_cells():
    assert set(POLICY) == set(Verb)
    assert {verb for _, _, verb in routes()} == set(Verb)
    assert len(REFUSED) > 200
    assert len(ALLOWED) > 20


@pytest.mark.parametrize(("path", "method", "verb", "caller", "target"), REFUSED)
def test_a_refused_request_says_so_and_changes_nothing(
    quiet_campus, path, method, verb, caller, target
):
    before = quiet_campus.fingerprint()

    answer = ask(quiet_campus, caller, path, method, TARGETS[target])

    assert answer.status_code == expected_refusal(caller, verb, target)
    assert answer.json()["success"] is False
    assert answer.json()["note"]
    assert quiet_campus.fingerprint() == before


@pytest.mark.parametrize(("path", "method", "verb", "caller", "target"), ALLOWED)
def test_a_permitted_request_is_served(campus_to_change, path, method, verb, caller, target):
    answer = ask(campus_to_change, caller, path, method, TARGETS[target])

    if verb is Verb.COLLECT and caller == "former instructor, now a student":
        # May collect, but only the own submissions.
        assert answer.status_code == 404
    else:
        assert answer.ok, answer.text


@pytest.mark.parametrize(("path", "method", "verb"), routes())
@pytest.mark.parametrize(
    "caller",
    ["student", "instructor", "former member", "instructor of another course"],
)
def test_a_foreign_course_and_an_absent_one_look_the_same(quiet_campus, path, method, verb, caller):
    foreign = (1, "physics" if "another" in caller or "former" in caller else "chemistry")

    there = ask(quiet_campus, caller, path, method, foreign)
    absent = ask(quiet_campus, caller, path, method, TARGETS["absent"])

    assert said(there, foreign) == said(absent, TARGETS["absent"])


@pytest.mark.parametrize(("path", "method", "verb"), routes())
@pytest.mark.parametrize(
    "caller",
    [
        "same name, student in another organisation",
        "same name, instructor in another organisation",
    ],
)
def test_the_same_names_in_another_organisation_reach_nothing_of_ours(
    campus_to_change, path, method, verb, caller
):
    ours = said_by_us(campus_to_change)

    ask(campus_to_change, caller, path, method, (1, "physics"))

    assert said_by_us(campus_to_change) == ours


def said_by_us(campus: Campus) -> tuple[Any, ...]:
    """All that organisation 1 sees of its own."""
    ada = campus.wire("instructor")
    where = {"course_id": "physics", "assignment_id": "ps1"}
    return (
        ada.get("assignments", course_id="physics").json()["value"][0],
        ada.get("collections", **where).json(),
        campus.wire("student").get("feedback", **where).json()["feedback"],
        [
            (action["action"], action["user"], action["path"])
            for action in ada.get("history", action="submitted").json()["value"][0]["assignments"][
                0
            ]["actions"]
        ],
    )


def test_tokens_of_another_organisation_or_course_open_nothing(campus):
    where = {"course_id": "physics", "assignment_id": "ps1"}
    absent = campus.wire("instructor").get("collection", path="f" * 32, **where)

    for place in ((2, "physics"), (1, "chemistry")):
        stolen = campus.submissions[place]
        answers = {
            "collect": campus.wire("instructor").get("collection", path=stolen, **where),
            "feedback": campus.wire("instructor").post(
                "feedback", b"<p>", notebook="p1", submission_id=stolen, **where
            ),
        }
        assert said(answers["collect"], (1, "physics")) == said(absent, (1, "physics"))
        assert answers["feedback"].status_code == 404


def test_a_student_sees_own_submissions_only(campus):
    where = {"course_id": "physics", "assignment_id": "ps1"}
    eve = campus.service.student("physics", "eve")
    eve.post("submission", BODY, **where)
    bobs = campus.submissions[1, "physics"]

    listed = eve.get("collections", **where).json()["value"]
    absent = eve.get("collection", path="f" * 32, **where)

    assert [record["student_id"] for record in listed] == ["eve"]
    assert eve.get("collections", user_id="bob", **where).json()["value"] == []
    assert said(eve.get("collection", path=bobs, **where), (1, "")) == said(absent, (1, ""))
    assert eve.get("collection", path=listed[0]["path"], **where).content == BODY
    assert eve.get("feedback", **where).json()["feedback"] == []
    assert eve.get("feedback", submission_id=bobs, **where).json()["feedback"] == []
    assert {record["student"] for record in eve.get("assignments").json()["value"]} == {
        "ada",
        "eve",
    }


def test_a_student_reads_releases_and_own_acts_in_the_history(campus):
    campus.service.student("physics", "eve").get(
        "assignment", course_id="physics", assignment_id="ps1"
    )

    (course,) = campus.wire("student").get("history").json()["value"]
    seen = {
        (action["action"], action["user"])
        for assignment in course["assignments"]
        for action in assignment["actions"]
    }

    assert seen == {
        ("AssignmentActions.released", "ada"),
        ("AssignmentActions.submitted", "bob"),
    }


def test_a_role_ends_with_the_next_request(campus):
    where = {"course_id": "physics", "assignment_id": "ps2"}
    ada = campus.wire("instructor")
    assert ada.post("assignment", BODY, **where).ok

    campus.service.enrol("ada", {"physics": "Student"})
    assert ada.post("assignment", BODY, **where).status_code == 403
    campus.service.enrol("ada", {})
    assert ada.get("assignments", course_id="physics").status_code == 404
    campus.service.expel("token-1-ada")
    assert ada.get("assignments", course_id="physics").status_code == 401


STUDENT = {"physics": "Student"}
RIGHTS_LOST = {
    "a student who left submits": ("submission", "bob", ("bob", {}), 404),
    "a token that became another student's submits": ("submission", "bob", ("eve", STUDENT), 401),
    "an instructor who left releases": ("assignment", "ada", ("ada", {}), 404),
    "an instructor who is a student now releases": ("assignment", "ada", ("ada", STUDENT), 403),
    "an instructor who left gives feedback": ("feedback", "ada", ("ada", {}), 404),
    "an instructor who is a student now gives feedback": (
        "feedback",
        "ada",
        ("ada", STUDENT),
        403,
    ),
}


@pytest.mark.parametrize(("path", "caller", "now", "status"), RIGHTS_LOST.values(), ids=RIGHTS_LOST)
def test_a_right_that_is_lost_during_a_long_upload_is_lost(
    campus, monkeypatch, path, caller, now, status
):
    monkeypatch.setattr("nbexchange.handlers.transfer.ASK_AGAIN", -1)
    token, watcher, before = f"token-1-{caller}", campus.wire("nobody"), campus.fingerprint()
    params = {
        "course_id": "physics",
        "assignment_id": "ps1",
        "notebook": "p1",
        "submission_id": campus.submissions[1, "physics"],
    }

    def body():
        yield BODY[:50]
        # The header has been accepted, so only a later check can refuse this upload.
        wait_until(lambda: course.uploads_in_flight(watcher) == 1)
        campus.service.enrol(*now, token=token)
        yield BODY[50:]

    answer = campus.service.wire(token).post(path, body(), **params)

    assert answer.status_code == status
    wait_until(lambda: campus.fingerprint() == before)


def test_feedback_that_names_another_student_than_the_submission_s_is_refused(campus):
    where = {"course_id": "physics", "assignment_id": "ps1", "notebook": "p1"}
    token = campus.submissions[1, "physics"]
    ada = campus.wire("instructor")

    assert (
        ada.post("feedback", b"<p>", submission_id=token, student="eve", **where).status_code == 404
    )
    assert ada.post("feedback", b"<p>", submission_id=token, student="bob", **where).ok


def test_a_member_of_several_courses_lists_them_all(campus):
    both = campus.service.wire(
        campus.service.enrol("bea", {"physics": "Student", "chemistry": "Instructor"})
    )

    listed = both.get("assignments").json()["value"]

    assert [record["course_id"] for record in listed] == ["chemistry", "physics"]


@pytest.mark.parametrize("role", ["instructor", "INSTRUCTOR", "Instructor"])
def test_instructor_is_privileged_in_any_case(service, role):
    ada = service.wire(service.enrol("ada", {"physics": role}))

    assert ada.post("assignment", BODY, course_id="physics", assignment_id="ps1").ok


@pytest.mark.parametrize("role", ["Student", "instructor ", "Teacher", "admin", "İnstructor", ""])
def test_every_other_role_is_a_students(service, role):
    ada = service.wire(service.enrol("ada", {"physics": role}))

    answer = ada.post("assignment", BODY, course_id="physics", assignment_id="ps1")

    assert answer.status_code == 403


def test_a_route_without_a_verb_fails_the_start():
    class Forgotten(BaseHandler):
        verbs = {}

        async def get(self) -> None: ...

    with pytest.raises(Misconfigured, match=r"Forgotten\.get"):
        check_verbs(Forgotten)


def test_a_verb_without_a_row_fails_the_start(monkeypatch):
    class Unruled(BaseHandler):
        verbs = {"GET": Verb.FETCH}

        async def get(self) -> None: ...

    monkeypatch.setattr("nbexchange.handlers.POLICY", {})

    with pytest.raises(Misconfigured, match="FETCH"):
        check_verbs(Unruled)


def test_permission_asks_the_identity_alone():
    user = User("ada", courses={"physics": Membership(Role.INSTRUCTOR)})

    assert permit(user, Verb.RELEASE, "physics") is Reach.ALL


def test_a_token_opens_its_own_assignment_only(campus):
    ada = campus.wire("instructor")
    ada.post("assignment", BODY, course_id="physics", assignment_id="ps2")
    token = campus.submissions[1, "physics"]

    answer = ada.get("collection", course_id="physics", assignment_id="ps2", path=token)

    assert answer.status_code == 404


def test_no_path_of_the_server_is_in_an_answer(campus):
    ada = campus.wire("instructor")
    where = {"course_id": "physics", "assignment_id": "ps1"}
    root = str(Path(campus.service.data).parent)

    for answer in (ada.get("assignments"), ada.get("collections", **where), ada.get("history")):
        assert root not in answer.text
