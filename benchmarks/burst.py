"""The last seconds of an exam, on one service with SQLite and a local directory.

The hour of the largest course we know of, on PostgreSQL and an object store, belongs here too.
"""

from __future__ import annotations

import time

from benchmarks import bodies
from benchmarks.bodies import Body
from benchmarks.client import crowd
from benchmarks.cycle import release
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs, percentile
from benchmarks.service import Service
from benchmarks.sizes import Sizes


def burst(ground: Ground) -> Runs:
    """300 students hand in 1 MB each within ten seconds"""
    archive = bodies.archive(ground.sizes.burst_archive)
    while True:
        with ground.service() as service:
            yield _burst(service, ground.sizes, archive)


def _burst(service: Service, sizes: Sizes, archive: Body) -> Readings:
    readings = Readings()
    where = release(service, archive)
    began = time.perf_counter()

    def submit(number: int) -> float:
        due = began + sizes.burst_seconds * number / sizes.burst_students
        time.sleep(max(0.0, due - time.perf_counter()))
        with service.student(number) as client:
            client.upload("submission", archive, **where)
        # From when it was meant to begin: whoever waits for a free thread here waits as well.
        return time.perf_counter() - due

    students = range(sizes.burst_students)
    found = readings.measure(
        "burst: submit", service, lambda: crowd(students, submit, sizes.burst_students)
    )
    with service.instructor() as client:
        kept = len(client.get("collections", **where).json()["value"])
    readings.numbers["burst.lost"] = sizes.burst_students - kept
    readings.numbers["burst.p95_ms"] = 1000 * percentile(found.latencies, 95)
    return readings
