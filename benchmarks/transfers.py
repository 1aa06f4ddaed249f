"""Large files in and out: how long others wait, what memory it takes, how fast against nginx."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bodies, nginx
from benchmarks.bodies import Body
from benchmarks.client import Client, crowd
from benchmarks.cycle import release
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs, Waiting
from benchmarks.service import Service
from benchmarks.sizes import MB


class Mover:
    """Moves archives of one assignment in and out."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.where = release(service, bodies.archive(MB // 10))

    def put(self, archive: Body, student: int = 0) -> float:
        with self.service.student(student) as client:
            answer = client.upload("submission", archive, **self.where)
        self.path = answer.json()["submission_id"]
        self.size = archive.size
        return answer.seconds

    def get(self) -> float:
        """What was put last."""
        with self.service.instructor() as client:
            answer = client.download("collection", path=self.path, **self.where)
        if answer.size != self.size:
            raise RuntimeError(f"{answer.size} bytes came back of {self.size}")
        return answer.seconds


def waiting(ground: Ground) -> Runs:
    """how long others wait during 500 MB in and out"""
    archive = ground.archive_file(ground.sizes.transfer)
    while True:
        with ground.service() as service:
            yield _waiting(service, archive)


def _waiting(service: Service, archive: Body) -> Readings:
    readings = Readings()
    mover = Mover(service)
    # What they wait when nothing happens is the machine's share in all that follows.
    with Waiting(service) as others:
        time.sleep(1)
    readings.numbers["wait.idle.ms"] = others.longest_ms
    with Waiting(service) as others:
        readings.measure("500 MB: submit", service, lambda: [mover.put(archive)])
    readings.numbers["wait.in.ms"] = others.longest_ms
    with Waiting(service) as others:
        readings.measure("500 MB: collect", service, lambda: [mover.get()])
    readings.numbers["wait.out.ms"] = others.longest_ms
    return readings


def heavy(ground: Ground) -> Runs:
    """memory during 1 GB in and out"""
    archive = ground.archive_file(ground.sizes.heavy_transfer)
    return _memory(ground, archive, 1, "1 GB", "one")


def crowded(ground: Ground) -> Runs:
    """memory during 20 times 100 MB at once, in and out"""
    archive = ground.archive_file(ground.sizes.crowd_transfer)
    count = ground.sizes.crowd
    return _memory(ground, archive, count, f"{count} x 100 MB", "crowd")


def _memory(ground: Ground, archive: Body, count: int, label: str, key: str) -> Runs:
    warm_up = ground.archive_file(ground.sizes.warm_up)
    while True:
        with ground.service() as service:
            mover = Mover(service)
            # Threads, pools and code that stay are there before we look.
            mover.put(warm_up)
            mover.get()
            yield _moved(mover, archive, count, label, key)


def _moved(mover: Mover, archive: Body, count: int, label: str, key: str) -> Readings:
    readings = Readings()

    def put() -> Sequence[float]:
        return crowd(range(count), lambda student: mover.put(archive, student), count)

    def get() -> Sequence[float]:
        return crowd(range(count), lambda _: mover.get(), count)

    moved_in = readings.measure(f"{label}: submit", mover.service, put)
    moved_out = readings.measure(f"{label}: collect", mover.service, get)
    readings.number(f"memory.{key}.in.mb", moved_in.memory.growth_mb)
    readings.number(f"memory.{key}.out.mb", moved_out.memory.growth_mb)
    return readings


def against_nginx(ground: Ground) -> Runs:
    """500 MB in and out, against nginx on the same disk"""
    reason = _why_no_nginx(ground)
    if reason:
        yield Readings(skipped=dict.fromkeys(("nginx.in.ratio", "nginx.out.ratio"), reason))
        return
    archive = ground.archive_file(ground.sizes.transfer)
    while True:
        readings = Readings()
        with ground.empty_directory() as directory, nginx.started(directory) as url:
            _nginx(readings, url, directory, archive)
        with ground.service() as service:
            _ours(readings, service, archive)
        yield readings


def _why_no_nginx(ground: Ground) -> str | None:
    if ground.url is not None:
        return "the service's disk is not on this machine"
    return None if nginx.is_installed() else "nginx with its dav module is not installed"


def _nginx(readings: Readings, url: str, directory: Path, archive: Body) -> None:
    numbers = readings.numbers
    with Client(url) as client:
        os.sync()  # what was written before is not written back while we measure
        put = client.upload("file", archive, method="PUT").seconds
        synced = put + _sync(directory / "files" / "file")
        get = client.download("file").seconds
    numbers["nginx.in.mb_s"] = archive.size / MB / put
    numbers["nginx.in_synced.mb_s"] = archive.size / MB / synced
    numbers["nginx.out.mb_s"] = archive.size / MB / get


def _ours(readings: Readings, service: Service, archive: Body) -> None:
    numbers = readings.numbers
    mover = Mover(service)
    os.sync()
    numbers["ours.in.mb_s"] = archive.size / MB / mover.put(archive)
    numbers["ours.out.mb_s"] = archive.size / MB / mover.get()
    numbers["nginx.in.ratio"] = numbers["ours.in.mb_s"] / numbers["nginx.in.mb_s"]
    numbers["nginx.in_synced.ratio"] = numbers["ours.in.mb_s"] / numbers["nginx.in_synced.mb_s"]
    numbers["nginx.out.ratio"] = numbers["ours.out.mb_s"] / numbers["nginx.out.mb_s"]


def _sync(file: Path) -> float:
    """How long the disk needs for what nginx has only handed to the kernel."""
    began = time.perf_counter()
    with file.open("rb") as written:
        os.fsync(written.fileno())
    return time.perf_counter() - began
