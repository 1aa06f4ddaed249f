"""A list holds what was asked for and nothing of another assignment, course or organisation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support import databases
from tests.support.archives import sha256
from tests.support.campus import (
    ASSIGNMENTS,
    COURSES,
    ORGANISATIONS,
    PLACES,
    STUDENTS,
    Campus,
    Place,
    content,
)
from tests.support.service import Service

NO_SUCH_PAGE = "This list does not have the requested page. Start again without `page`."
PLACE_NAMES = [" ".join(map(str, place)) for place in PLACES]


@pytest.fixture(scope="module")
def campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campus]:
    """One for all tests, which only read."""
    data = tmp_path_factory.mktemp("campus") / "data"
    with Service(data) as service:
        yield Campus(service)
    databases.give_back(data)


def ids(campus: Campus, org_id: int, caller: str, **params: Any) -> list[str]:
    answer = campus.wire(org_id, caller).get("collections", **params)
    return [record["submission_id"] for record in answer.json()["value"]]


def test_the_versions_of_every_assignment_count_from_one(campus: Campus) -> None:
    assert {max(versions) for versions in campus.versions.values()} == {1, 2, 3}
    for versions in campus.versions.values():
        assert versions == list(range(1, len(versions) + 1))


@pytest.mark.parametrize("place", PLACES, ids=PLACE_NAMES)
def test_a_fetch_gets_the_newest_release_of_its_own_assignment(
    campus: Campus, place: Place
) -> None:
    answer = campus.wire(place.org_id, "bob").get("assignment", **place.params)

    newest = campus.versions[place][-1]
    assert answer.headers["Nbexchange-Version"] == str(newest)
    assert answer.content == place.archive("release", newest - 1)


@pytest.mark.parametrize("latest", [False, True])
@pytest.mark.parametrize("place", PLACES, ids=PLACE_NAMES)
def test_submissions_of_an_assignment_are_listed_alone(
    campus: Campus, place: Place, latest: bool
) -> None:
    org_id, course_id, assignment_id = place
    params = {**place.params, **({"latest": "true"} if latest else {})}
    attempts = [2] if latest else [1, 2]
    here = {"courses": [course_id], "assignments": [assignment_id], "attempts": attempts}

    everybody = ids(campus, org_id, "ada", **params)
    eves = ids(campus, org_id, "ada", user_id="eve", **params)
    own = ids(campus, org_id, "bob", **params)

    assert sorted(everybody) == sorted(campus.works(org_id, **here))
    assert sorted(eves) == sorted(campus.works(org_id, **here, students=["eve"]))
    assert sorted(own) == sorted(campus.works(org_id, **here, students=["bob"]))


@pytest.mark.parametrize("course_id", COURSES)
@pytest.mark.parametrize("org_id", ORGANISATIONS)
def test_submissions_of_a_course_are_listed_alone(
    campus: Campus, org_id: int, course_id: str
) -> None:
    whole = ids(campus, org_id, "ada", course_id=course_id)
    newest = ids(campus, org_id, "ada", course_id=course_id, latest="true")
    own = ids(campus, org_id, "bob", course_id=course_id)

    here = {"courses": [course_id]}
    assert sorted(whole) == sorted(campus.works(org_id, **here))
    assert sorted(newest) == sorted(campus.works(org_id, **here, attempts=[2]))
    assert sorted(own) == sorted(campus.works(org_id, **here, students=["bob"]))


@pytest.mark.parametrize("latest", [False, True])
def test_pages_of_submissions_are_the_list(campus: Campus, latest: bool) -> None:
    ada = campus.wire(1, "ada")
    params = {"course_id": "physics", **({"latest": "true"} if latest else {})}
    whole = ids(campus, 1, "ada", **params)

    paged, page = [], None
    while page != "":
        more = {} if page is None else {"page": page}
        answer = ada.get("collections", **params, limit=1, **more).json()
        paged += [record["submission_id"] for record in answer["value"]]
        page = answer["next"] or ""

    assert paged == whole


def test_a_page_of_another_course_or_organisation_is_an_invented_one(campus: Campus) -> None:
    def answer(page: str) -> tuple[int, str]:
        found = campus.wire(1, "ada").get("collections", course_id="physics", limit=1, page=page)
        return found.status_code, found.json().get("note", "")

    def next_of(org_id: int, course_id: str) -> str:
        asked = campus.wire(org_id, "ada").get("collections", course_id=course_id, limit=1)
        page: str = asked.json()["next"]
        return page

    status, note = answer("f" * 32)

    assert (status, note) == (400, NO_SUCH_PAGE)
    assert answer(next_of(1, "chemistry")) == (status, note)
    assert answer(next_of(2, "physics")) == (status, note)
    assert answer(next_of(1, "physics"))[0] == 200


QUESTION = (1, "ada", {"course_id": "physics", "action": "submitted"})
OTHER_QUESTIONS = {
    "another organisation": (2, "ada", QUESTION[2]),
    "another person": (1, "bob", QUESTION[2]),
    "another course": (1, "ada", QUESTION[2] | {"course_id": "chemistry"}),
    "all courses": (1, "ada", {"action": "submitted"}),
    "another action": (1, "ada", QUESTION[2] | {"action": "released"}),
    "all actions": (1, "ada", {"course_id": "physics"}),
}


def history(
    campus: Campus, org_id: int, caller: str, params: dict[str, str], **more: Any
) -> requests.Response:
    return campus.wire(org_id, caller).get("history", **params, **more)


@pytest.mark.parametrize("other", OTHER_QUESTIONS)
def test_a_page_of_a_history_belongs_to_its_question(campus: Campus, other: str) -> None:
    page = history(campus, *QUESTION, limit=1).json()["next"]
    foreign = history(campus, *OTHER_QUESTIONS[other], limit=1).json()["next"]

    refused = history(campus, *QUESTION, limit=1, page=foreign)

    assert refused.status_code == 400
    assert refused.json()["note"] == NO_SUCH_PAGE
    assert history(campus, *OTHER_QUESTIONS[other], limit=1, page=page).status_code == 400
    assert history(campus, *QUESTION, limit=3, page=page).status_code == 200


INVENTED = {
    "a number": lambda page: "1",
    "another digit at the beginning": lambda page: another_digit(page, 0),
    "another digit at the end": lambda page: another_digit(page, len(page) - 1),
    "cut": lambda page: page[:-2],
    "longer": lambda page: page + "00",
    "large letters": lambda page: page.upper() + "A",
    "no number": lambda page: "½" * len(page),
}


def another_digit(page: str, place: int) -> str:
    return page[:place] + ("0" if page[place] != "0" else "1") + page[place + 1 :]


@pytest.mark.parametrize("kind", INVENTED)
def test_an_invented_page_of_a_history_is_refused(campus: Campus, kind: str) -> None:
    page = history(campus, *QUESTION, limit=1).json()["next"]

    answer = history(campus, *QUESTION, limit=1, page=INVENTED[kind](page))

    assert (answer.status_code, answer.json()["note"]) == (400, NO_SUCH_PAGE)


def test_a_page_without_a_limit_is_refused(campus: Campus) -> None:
    page = history(campus, *QUESTION, limit=1).json()["next"]

    answer = history(campus, *QUESTION, page=page)

    assert answer.status_code == 400
    assert "`limit`" in answer.json()["note"]


def test_pages_of_a_history_do_not_tell_numbers_of_rows(campus: Campus) -> None:
    """Neither as they are, nor by a difference between two pages."""
    pages = [history(campus, *QUESTION, limit=limit).json()["next"] for limit in range(1, 8)]
    numbers = [int(page, 16) for page in pages]
    differences = [one ^ other for one, other in itertools.pairwise(numbers)]

    assert {len(page) for page in pages} == {48}
    for number in numbers + differences:
        assert number % 2**64 > 2**32
        assert number >> 128 > 2**32


@pytest.mark.parametrize("student", STUDENTS)
@pytest.mark.parametrize("place", PLACES, ids=PLACE_NAMES)
def test_feedback_on_an_assignment_is_fetched_alone(
    campus: Campus, place: Place, student: str
) -> None:
    wire = campus.wire(place.org_id, student)

    found = wire.get("feedback", **place.params).json()["feedback"]

    assert [content(item) for item in found] == [place.text("feedback for", student)]
    for other, submission_id in campus.submissions.items():
        mine = (other.place, other.student, other.attempt) == (place, student, 1)
        if other.student == student or other.place == place:
            answer = wire.get("feedback", **place.params, submission_id=submission_id)
            assert len(answer.json()["feedback"]) == mine, other


@pytest.mark.parametrize("course_id", [*COURSES, None])
@pytest.mark.parametrize("org_id", ORGANISATIONS)
def test_a_list_shows_the_newest_releases_and_own_submissions(
    campus: Campus, org_id: int, course_id: str | None
) -> None:
    courses = COURSES if course_id is None else [course_id]
    params = {} if course_id is None else {"course_id": course_id}
    places = {Place(org_id, course, one) for course in courses for one in ASSIGNMENTS}

    records = campus.wire(org_id, "bob").get("assignments", **params).json()["value"]

    released = [record for record in records if record["status"] == "released"]
    submitted = [record for record in records if record["status"] == "submitted"]
    assert sorted(record["sha256"] for record in released) == sorted(
        sha256(place.archive("release", campus.versions[place][-1] - 1)) for place in places
    )
    assert sorted(record["submission_id"] for record in submitted) == sorted(
        campus.works(org_id, courses, students=["bob"])
    )
    with_feedback = {
        record["submission_id"]
        for record in submitted
        if record["notebooks"][0]["has_exchange_feedback"]
    }
    assert with_feedback == campus.works(org_id, courses, students=["bob"], attempts=[1])


@pytest.mark.parametrize("course_id", [*COURSES, None])
@pytest.mark.parametrize("org_id", ORGANISATIONS)
@pytest.mark.parametrize("caller", ["ada", "bob"])
def test_a_history_shows_what_was_done_there(
    campus: Campus, org_id: int, course_id: str | None, caller: str
) -> None:
    courses = COURSES if course_id is None else [course_id]
    params = {} if course_id is None else {"course_id": course_id}

    shown = campus.wire(org_id, caller).get("history", action="submitted", **params).json()

    actions = [
        (course["course_code"], assignment["assignment_code"], action["path"])
        for course in shown["value"]
        for assignment in course["assignments"]
        for action in assignment["actions"]
    ]
    assert sorted(actions) == sorted(
        (work.place.course_id, work.place.assignment_id, submission_id)
        for work, submission_id in campus.submissions.items()
        if work.place.org_id == org_id
        and work.place.course_id in courses
        and (caller == "ada" or work.student == caller)
    )
