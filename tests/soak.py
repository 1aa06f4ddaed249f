"""R16: memory and open files of a service do not grow, however long it works.

`python -m tests.soak --seconds 7200`. Students submit, list, fetch and collect; some cut their
uploads, one sends bad archives, one has no token; and the database is stopped and started again
now and then. Submissions stay the same, because each student has a few keys and sends the same
work under each; only events become more, and of those a page is asked for. After a warm-up, a
straight line is fitted to what the service takes: a slope whose 95 % confidence interval lies
above 0 is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.support.archives import tar_gz_of
from tests.support.bombs import MB, damaged_bomb
from tests.support.course import PS1, WORK, collect, receipt, release, submit
from tests.support.process import ServiceProcess, resident_memory, wait_until
from tests.support.raw import RawConnection
from tests.support.servers import make_server
from tests.support.service import Service, Wire
from tests.support.threads import at_work

SAMPLE_SECONDS = 1.0
WARM_UP = 0.25
"""The part of the time after which caches, pools and threads are what they will be."""

BLOCKS = 12
"""Samples close together are alike, so the line is fitted to means of so many stretches."""

T_975 = 2.228
"""Student's t for a confidence of 95 % with BLOCKS - 2 degrees of freedom."""

KEYS = 20
"""Submissions of a student; what comes then is sent again."""

PAUSE = 0.05
"""Between two things of one person, so that the machine has a rest."""

BURST = 64
"""People at once, once."""

AS_STUDENT = {"physics": "Student"}

RESTART_SECONDS = 120.0


@dataclass
class Slope:
    """Of a straight line through the means, a minute, with its 95 % confidence interval."""

    value: float
    error: float

    @property
    def lowest(self) -> float:
        return self.value - self.error

    def __str__(self) -> str:
        return f"{self.value:+.3f} ± {self.error:.3f} a minute"


def block_means(values: Sequence[float]) -> list[float]:
    size = len(values) // BLOCKS
    return [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(BLOCKS)]


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """`times` in seconds."""
    minutes = [time / 60 for time in block_means(times)]
    means = block_means(values)
    value, intercept = statistics.linear_regression(minutes, means)
    residues = [y - value * x - intercept for x, y in zip(minutes, means, strict=True)]
    spread = math.sqrt(sum((x - statistics.fmean(minutes)) ** 2 for x in minutes))
    deviation = math.sqrt(sum(residue**2 for residue in residues) / (BLOCKS - 2))
    return Slope(value, T_975 * deviation / spread)


@dataclass
class Measured:
    times: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def look(self, pid: int, begun: float) -> None:
        self.times.append(time.monotonic() - begun)
        self.memory_mb.append(resident_memory(pid) / MB)
        self.descriptors.append(len(os.listdir(f"/proc/{pid}/fd")))
        self.threads.append(len(os.listdir(f"/proc/{pid}/task")))

    @property
    def _warm(self) -> int:
        """The first sample after the warm-up."""
        return next(i for i, t in enumerate(self.times) if t >= WARM_UP * self.times[-1])

    def slopes(self) -> dict[str, Slope]:
        return {
            name: slope(self.times[self._warm :], getattr(self, name)[self._warm :])
            for name in ("memory_mb", "descriptors", "threads")
        }

    def __str__(self) -> str:
        lines = [f"{sum(self.answers.values())} answers in {self.times[-1]:.0f} s: {self.answers}"]
        for name, found in self.slopes().items():
            values = getattr(self, name)
            lines.append(f"{name}: {values[0]:.0f} to {values[-1]:.0f}, at most {max(values):.0f}")
            # Whether it grows for ever or levels off: a slope alone does not tell.
            means = block_means(values[self._warm :])
            lines.append(f"{name}: {' '.join(f'{mean:.1f}' for mean in means)}, {found}")
        return "\n".join(lines)


Act = Callable[[], str]
"""What became of it."""


class Crowd:
    """Everybody who does something, each in a thread."""

    def __init__(self, service: Service, measured: Measured) -> None:
        self._service, self._answers = service, measured.answers
        self._large = tar_gz_of({"p1.ipynb": WORK, "data": os.urandom(3 * MB)})
        self._bomb = damaged_bomb(20 * MB)
        self._people = [
            *(self._student(service.student(name=f"student{number}")) for number in range(4)),
            *(self._cutter(service.enrol(f"cutter{number}", AS_STUDENT)) for number in range(3)),
            self._sender_of_bad_archives(service.student(name="bad")),
            self._instructor(service.instructor()),
            self._stranger(service.wire("nobody")),
        ]

    def burst(self) -> None:
        """All at once, so that threads and pools are as many from the start as they can be."""
        wires = [self._service.student(name=f"early{number}") for number in range(BURST)]
        with ThreadPoolExecutor(BURST) as threads:
            list(threads.map(lambda wire: _asked(submit, wire, self._large, "large")(), wires))
            list(threads.map(lambda wire: _asked(wire.get, "assignment", **PS1)(), wires))

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        return at_work(functools.partial(self._go_on, acts) for acts in self._people)

    def _go_on(self, acts: Iterator[Act], over: threading.Event) -> None:
        for act in acts:
            self._answers[act()] += 1
            if over.wait(PAUSE):
                return

    def _student(self, wire: Wire) -> Iterator[Act]:
        for turn in itertools.count():
            yield _asked(submit, wire, WORK, f"small-{turn % KEYS}")
            yield _asked(wire.get, "assignments", course_id="physics")
            yield _asked(wire.get, "assignment", **PS1)
            yield _asked(wire.get, "history", limit=20)
            yield _asked(_collect_newest, wire)
            if turn % 5 == 0:
                yield _asked(submit, wire, self._large, "large")

    def _cutter(self, token: str) -> Iterator[Act]:
        for turn in itertools.count():
            yield functools.partial(self._cut, token, turn * 100_003 % len(self._large))

    def _cut(self, token: str, size: int) -> str:
        with RawConnection(self._service.url, token) as connection:
            headers = {"Content-Length": str(len(self._large))}
            head = connection.head("POST", "submission", headers, **PS1)
            connection.send(head, self._large[:size])
            connection.reset()
        return "cut"

    def _sender_of_bad_archives(self, wire: Wire) -> Iterator[Act]:
        for turn in itertools.count():
            yield _asked(submit, wire, self._bomb if turn % 50 == 0 else WORK[:-5])

    def _instructor(self, wire: Wire) -> Iterator[Act]:
        while True:
            yield _asked(wire.get, "collections", **PS1)
            yield _asked(_collect_newest, wire)
            yield _asked(release, wire, WORK, "release")

    def _stranger(self, wire: Wire) -> Iterator[Act]:
        while True:
            yield _asked(wire.get, "assignments")


def _asked(ask: Callable[..., requests.Response], *args: Any, **kwargs: Any) -> Act:
    def act() -> str:
        try:
            return str(ask(*args, **kwargs).status_code)
        except requests.RequestException:
            return "no answer"

    return act


def _collect_newest(wire: Wire) -> requests.Response:
    listed = wire.get("collections", **PS1)
    value = listed.json()["value"]
    return collect(wire, value[0]["submission_id"]) if value else listed


def soak(seconds: float, directory: Path, kind: str = "postgresql", config: str = "") -> Measured:
    measured = Measured()
    with make_server(kind) as database:
        config += f"\nc.NbExchange.db_url = {database.url()!r}\n"
        data = directory / "data"
        data.mkdir()
        with ServiceProcess(data, config) as service:
            receipt(release(service.instructor(), WORK, "release"))
            crowd = Crowd(service, measured)
            crowd.burst()
            begun = time.monotonic()
            pause = min(RESTART_SECONDS, seconds / 3)
            restarts = itertools.count(1)
            restart_at = pause
            with crowd.at_work():
                while (now := time.monotonic() - begun) < seconds:
                    measured.look(service.pid, begun)
                    if now >= restart_at:
                        database.stop()
                        database.start()
                        restart_at = pause * (next(restarts) + 1)
                    threading.Event().wait(SAMPLE_SECONDS)
            wait_until(lambda: receipt(submit(service.student(), WORK, "last")))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--database", choices=["postgresql", "mariadb"], default="postgresql")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nbexchange-soak-") as directory:
        measured = soak(arguments.seconds, Path(directory), arguments.database)
    print(measured)
    growing = [name for name, found in measured.slopes().items() if found.lowest > 0]
    if growing:
        sys.exit(f"These grow: {', '.join(growing)}")


if __name__ == "__main__":
    main()
