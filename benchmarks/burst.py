"""The last seconds of an exam, and the hour of the largest course that we know of."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import bodies
from benchmarks.bodies import Body
from benchmarks.client import crowd
from benchmarks.cycle import release
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs, percentile
from benchmarks.service import Service

THREADS = 300
"""Clients at a time, on the machine that is measured."""


def burst(ground: Ground) -> Runs:
    """300 students hand in 1 MB each within ten seconds"""
    sizes = ground.sizes
    archive = bodies.archive(sizes.burst_archive)
    while True:
        with ground.service() as service:
            readings = Readings()
            where = release(service, archive)
            act = _submit([service], archive, where, sizes.burst_seconds, sizes.burst_students)
            everybody = functools.partial(_all, sizes.burst_students, act)
            found = readings.measure("burst: submit", service, everybody)
            readings.numbers["burst.lost"] = sizes.burst_students - _kept(service, where)
            readings.numbers["burst.p95_ms"] = 1000 * percentile(found.latencies, 95)
        yield readings


def hour(ground: Ground) -> Runs:
    """1,350 students hand in 1 MB each within five minutes, to two replicas"""
    sizes = ground.sizes
    archive = bodies.archive(sizes.hour_archive)
    while True:
        with ground.replicas(sizes.hour_replicas) as services:
            readings = Readings()
            where = release(services[0], archive)
            act = _submit(services, archive, where, sizes.hour_seconds, sizes.hour_students)
            everybody = functools.partial(_all, sizes.hour_students, act)
            with _Lister(services[-1], where, sizes.page) as lister:
                found = readings.measure("hour: submit, CPU of one of two", services[0], everybody)
            readings.numbers["hour.lost"] = sizes.hour_students - _kept(services[0], where)
            readings.numbers["hour.p95_ms"] = 1000 * percentile(found.latencies, 95)
            readings.numbers["hour.list_ms"] = 1000 * percentile(lister.latencies, 95)
        yield readings


def _submit(
    services: Sequence[Service], archive: Body, where: dict[str, Any], seconds: float, students: int
) -> Callable[[int], float]:
    """What one of so many students does, spread over so many seconds."""
    began = time.perf_counter()

    def submit(number: int) -> float:
        due = began + seconds * number / students
        time.sleep(max(0.0, due - time.perf_counter()))
        with services[number % len(services)].student(number) as client:
            client.upload("submission", archive, **where)
        # From when it was meant to begin: whoever waits for a free thread here waits as well.
        return time.perf_counter() - due

    return submit


def _all(students: int, act: Callable[[int], float]) -> Sequence[float]:
    return crowd(range(students), act, min(students, THREADS))


def _kept(service: Service, where: dict[str, Any]) -> int:
    with service.instructor() as client:
        return len(client.get("collections", **where).json()["value"])


class _Lister:
    """An instructor who looks at the first page again and again meanwhile."""

    def __init__(self, service: Service, where: dict[str, Any], page: int) -> None:
        self.latencies: list[float] = []
        self._service, self._where, self._page = service, where, page
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Lister:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with self._service.instructor() as client:
            while True:
                answer = client.get("collections", **self._where, latest=1, limit=self._page)
                self.latencies.append(answer.seconds)
                if self._over.wait(0.5):
                    return
