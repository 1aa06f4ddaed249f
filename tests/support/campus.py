"""Two organisations, each with the courses physics and chemistry, each with ps1 and ps2.

All names are the same in both organisations, and bob and eve take every course. Each of them
submits twice to every assignment and gets feedback on the first submission. Every file says where
it belongs, so a row from the wrong place is visible.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.support.archives import tar_gz
from tests.support.course import receipt
from tests.support.service import Service, Wire

ORGANISATIONS = (1, 2)
COURSES = ("physics", "chemistry")
ASSIGNMENTS = ("ps1", "ps2")
STUDENTS = ("bob", "eve")
ATTEMPTS = (1, 2)


class Place(NamedTuple):
    """One assignment of the campus."""

    org_id: int
    course_id: str
    assignment_id: str

    @property
    def params(self) -> dict[str, str]:
        return {"course_id": self.course_id, "assignment_id": self.assignment_id}

    def archive(self, *words: object) -> bytes:
        return tar_gz(p1=self.text(*words))

    def text(self, *words: object) -> bytes:
        return " ".join(map(str, (*self, *words))).encode()


class Work(NamedTuple):
    """One submission of the campus."""

    place: Place
    student: str
    attempt: int


PLACES = [
    Place(org_id, course_id, assignment_id)
    for assignment_id in ASSIGNMENTS
    for org_id in ORGANISATIONS
    for course_id in COURSES
]


class Campus:
    def __init__(self, service: Service) -> None:
        self.service = service
        self._wires = {
            (org_id, name): service.wire(service.enrol(name, dict.fromkeys(COURSES, role), org_id))
            for org_id in ORGANISATIONS
            for name, role in [("ada", "Instructor"), *((name, "Student") for name in STUDENTS)]
        }
        self.versions: dict[Place, list[int]] = {}
        """The answers to the releases: each place has one more than the place before it."""
        self.submissions: dict[Work, str] = {}
        """Their ids."""
        for number, place in enumerate(PLACES):
            self.versions[place] = [self._release(place, n) for n in range(number % 3 + 1)]
        for attempt in ATTEMPTS:
            for place in PLACES:
                for student in STUDENTS:
                    self._submit(Work(place, student, attempt))

    def wire(self, org_id: int, name: str) -> Wire:
        return self._wires[org_id, name]

    def works(
        self,
        org_id: int,
        courses: Iterable[str] = COURSES,
        assignments: Iterable[str] = ASSIGNMENTS,
        students: Iterable[str] = STUDENTS,
        attempts: Iterable[int] = ATTEMPTS,
    ) -> set[str]:
        """The ids of these submissions."""
        wanted = {
            Work(Place(org_id, course_id, assignment_id), student, attempt)
            for course_id in courses
            for assignment_id in assignments
            for student in students
            for attempt in attempts
        }
        return {self.submissions[work] for work in wanted}

    def _release(self, place: Place, number: int) -> int:
        body = place.archive("release", number)
        answer = receipt(self.wire(place.org_id, "ada").post("assignment", body, **place.params))
        version: int = answer["version"]
        return version

    def _submit(self, work: Work) -> None:
        place, student, attempt = work
        wire = self.wire(place.org_id, student)
        given = receipt(wire.post("submission", place.archive(student, attempt), **place.params))
        self.submissions[work] = given["submission_id"]
        if attempt == 1:
            params = {**place.params, "notebook": "p1", "submission_id": given["submission_id"]}
            ada = self.wire(place.org_id, "ada")
            receipt(ada.post("feedback", place.text("feedback for", student), **params))


def content(feedback: dict[str, Any]) -> bytes:
    """The file in one item of an answer to fetch_feedback."""
    return base64.b64decode(feedback["content"])
