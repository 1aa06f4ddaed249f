"""A course's week: everybody fetches, submits and lists; the instructor collects; feedback returns.

Everybody comes over a new connection each time, as the commands of nbgrader do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchmarks import bodies
from benchmarks.bodies import Body
from benchmarks.client import crowd
from benchmarks.ground import Ground, new_assignment
from benchmarks.meters import Readings, Runs, disk_cpu_ms
from benchmarks.people import COURSE
from benchmarks.service import Service
from benchmarks.sizes import Sizes

HTML = "text/html"
NOTEBOOK = "p1"


def small(ground: Ground) -> Runs:
    """the whole cycle, archives of 20 kB"""
    return _runs(ground, "20kB", ground.sizes.small_archive)


def large(ground: Ground) -> Runs:
    """the whole cycle, archives of 4.3 MB"""
    return _runs(ground, "4.3MB", ground.sizes.large_archive)


def _runs(ground: Ground, label: str, size: int) -> Runs:
    archive, page = bodies.archive(size), bodies.page(ground.sizes.feedback)
    while True:
        with ground.service() as service:
            readings = _Cycle(service, ground.sizes, label, archive, page).run()
        readings.number(f"disk.{label}.cpu_ms", _disk_cpu_ms(ground, archive))
        yield readings


def _disk_cpu_ms(ground: Ground, archive: Body) -> float | None:
    """What of a submit's CPU time no service can save; None where the disk is elsewhere."""
    if ground.url is not None or not isinstance(archive.content, bytes):
        return None
    with ground.empty_directory() as directory:
        return disk_cpu_ms(directory, archive.content, ground.sizes.students)


def release(service: Service, archive: Body) -> dict[str, Any]:
    """A new assignment; what names it in a request."""
    where = {"course_id": COURSE, "assignment_id": new_assignment()}
    with service.instructor() as client:
        client.upload("assignment", archive, **where)
    return where


@dataclass
class _Cycle:
    service: Service
    sizes: Sizes
    label: str
    archive: Body
    page: Body

    def run(self) -> Readings:
        self.readings = Readings()
        self.where = release(self.service, self.archive)
        students = range(self.sizes.students)
        began = time.perf_counter()
        self._everybody("fetch", students, self._fetch)
        self._everybody("submit", students, self._submit)
        self._everybody("list", students, self._list)
        self._everybody("list submissions", [None], self._list_submissions)
        self._everybody("collect", self.submissions, self._collect)
        self._everybody("release feedback", self.submissions, self._release_feedback)
        self._everybody("fetch feedback", students, self._fetch_feedback)
        seconds = time.perf_counter() - began
        submit = self.readings.operations[f"{self.label}: submit"]
        self.readings.number(f"cycle.{self.label}.seconds", seconds)
        self.readings.number(f"submit.{self.label}.cpu_ms", submit.summary()["cpu_ms"])
        return self.readings

    def _everybody(self, name: str, people: Any, act: Any) -> None:
        self.readings.measure(
            f"{self.label}: {name}",
            self.service,
            lambda: crowd(people, act, self.sizes.at_a_time),
        )

    def _fetch(self, student: int) -> float:
        with self.service.student(student) as client:
            return client.download("assignment", **self.where).seconds

    def _submit(self, student: int) -> float:
        with self.service.student(student) as client:
            return client.upload("submission", self.archive, **self.where).seconds

    def _list(self, student: int) -> float:
        with self.service.student(student) as client:
            return client.get("assignments", course_id=COURSE).seconds

    def _list_submissions(self, _: None) -> float:
        with self.service.instructor() as client:
            answer = client.get("collections", **self.where)
        self.submissions = answer.json()["value"]
        if len(self.submissions) != self.sizes.students:
            raise RuntimeError(f"{len(self.submissions)} submissions of {self.sizes.students}")
        return answer.seconds

    def _collect(self, submission: dict[str, Any]) -> float:
        with self.service.instructor() as client:
            path = submission["path"]
            answer = client.download("collection", path=path, **self.where)
        if answer.size != self.archive.size:
            raise RuntimeError(f"collected {answer.size} bytes of {self.archive.size}")
        return answer.seconds

    def _release_feedback(self, submission: dict[str, Any]) -> float:
        which = {"notebook": NOTEBOOK, "submission_id": submission["submission_id"]}
        with self.service.instructor() as client:
            return client.upload("feedback", self.page, kind=HTML, **self.where, **which).seconds

    def _fetch_feedback(self, student: int) -> float:
        with self.service.student(student) as client:
            answer = client.get("feedback", **self.where)
        if len(answer.json()["feedback"]) != 1:
            raise RuntimeError("feedback did not come back")
        return answer.seconds
