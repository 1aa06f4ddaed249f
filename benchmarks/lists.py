"""Lists of a course with few and with many submissions.

The student who asks has the same number of own submissions in both, so what grows is the others'.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from benchmarks import bodies
from benchmarks.client import Client, crowd
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs, Waiting
from benchmarks.people import FEW, MANY
from benchmarks.service import Service
from benchmarks.sizes import KB, Sizes

ASSIGNMENT = "ps1"
ARCHIVE = 4 * KB


def lists(ground: Ground) -> Runs:
    """lists of a course with 5,000 submissions"""
    sizes = ground.sizes
    with ground.service() as service:
        _fill(service, sizes, FEW, sizes.few)
        _fill(service, sizes, MANY, sizes.many)
        while True:
            yield _Lists(service, sizes).run()


def _fill(service: Service, sizes: Sizes, course_id: str, count: int) -> None:
    """Bring the course to `count` submissions; a service elsewhere may have them from before."""
    where = {"course_id": course_id, "assignment_id": ASSIGNMENT}
    archive = bodies.archive(ARCHIVE)

    def submit(student: int) -> float:
        with service.student(student) as client:
            return client.upload("submission", archive, **where).seconds

    with service.instructor() as client:
        client.upload("assignment", archive, **where)
        there = len(client.get("collections", **where).json()["value"])
    students = itertools.cycle(range(count // sizes.attempts))
    crowd(itertools.islice(students, there, count), submit, sizes.at_a_time)


class _Lists:
    def __init__(self, service: Service, sizes: Sizes) -> None:
        self.service = service
        self.sizes = sizes
        self.readings = Readings()

    def run(self) -> Readings:
        numbers = self.readings.numbers
        with self.service.student() as client:
            few = self._ask("few: list", client, "assignments", course_id=FEW)
            many = self._ask("many: list", client, "assignments", course_id=MANY)
        with self.service.instructor() as client:
            first = {"course_id": MANY, "limit": self.sizes.page}
            page = self._ask("many: list submissions, a page", client, "collections", **first)
            whole = self._ask("many: list submissions", client, "collections", course_id=MANY)
            with Waiting(self.service) as others:
                for _ in range(self.sizes.lists):
                    client.get("collections", course_id=MANY)
        numbers["list.student.ms"] = many
        numbers["list.student.ratio"] = many / few
        numbers["list.page.ms"] = page
        numbers["list.whole.ms"] = whole
        numbers["list.whole.others_wait_ms"] = others.longest_ms
        return self.readings

    def _ask(self, name: str, client: Client, path: str, **params: object) -> float:
        """How long it usually takes, in ms."""
        client.get(path, **params)  # the first of its kind compiles the SQL

        def ask() -> Sequence[float]:
            return [client.get(path, **params).seconds for _ in range(self.sizes.lists)]

        found = self.readings.measure(name, self.service, ask)
        return 1000 * statistics.median(found.latencies)
