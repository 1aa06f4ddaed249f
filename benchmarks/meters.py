"""What is read off while something happens: CPU time, memory, and how long others wait."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from benchmarks.client import Client
from benchmarks.people import COURSE
from benchmarks.service import Service
from benchmarks.sizes import MB

OUT_OF_SIGHT = "the service's process is not on this machine"

PROBE_PAUSE = 0.003
"""Seconds between two questions of one prober."""


@dataclass
class Memory:
    """Resident bytes of the service."""

    before: int | None = None
    peak: int | None = None

    @property
    def growth_mb(self) -> float | None:
        if self.before is None or self.peak is None:
            return None
        return (self.peak - self.before) / MB


@dataclass
class Operation:
    """Something done many times over."""

    latencies: Sequence[float]
    seconds: float
    """From the first to the last of them."""
    cpu_seconds: float | None
    memory: Memory

    def summary(self) -> dict[str, float | None]:
        count = len(self.latencies)
        return {
            "count": count,
            "per_second": count / self.seconds,
            "p50_ms": 1000 * percentile(self.latencies, 50),
            "p95_ms": 1000 * percentile(self.latencies, 95),
            "p99_ms": 1000 * percentile(self.latencies, 99),
            "cpu_ms": None if self.cpu_seconds is None else 1000 * self.cpu_seconds / count,
            "peak_mb": None if self.memory.peak is None else self.memory.peak / MB,
        }


@dataclass
class Readings:
    """What one run of a scenario found."""

    operations: dict[str, Operation] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    """By the key of their goal."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Keys that could not be measured, and why."""

    def number(self, key: str, value: float | None) -> None:
        if value is None:
            self.skipped[key] = OUT_OF_SIGHT
        else:
            self.numbers[key] = value

    def measure(self, name: str, service: Service, act: Callable[[], Sequence[float]]) -> Operation:
        """Note what `act`, which returns latencies, takes in time, CPU time and memory."""
        cpu = cpu_seconds(service)
        with memory(service) as used:
            began = time.perf_counter()
            latencies = act()
            seconds = time.perf_counter() - began
        after = cpu_seconds(service)
        spent = None if cpu is None or after is None else after - cpu
        found = Operation(latencies, seconds, spent, used)
        self.operations[name] = found
        return found


Runs = Generator[Readings, None, None]
"""What a scenario gives: one run after another, for as long as it is asked."""


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def cpu_seconds(service: Service) -> float | None:
    if service.process is None:
        return None
    times = service.process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def memory(service: Service) -> Iterator[Memory]:
    """The kernel keeps the highest value, so no peak between two looks is missed.

    Nothing is seen where the service runs elsewhere, or where the kernel is not Linux.
    """
    used = Memory()
    if service.process is None or not _status(service.process.pid).exists():
        yield used
        return
    pid = service.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from now
    used.before = _resident(pid, "VmRSS")
    yield used
    used.peak = _resident(pid, "VmHWM")


def _resident(pid: int, key: str) -> int:
    for line in _status(pid).read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"the kernel does not tell {key}")


def _status(pid: int) -> Path:
    return Path(f"/proc/{pid}/status")


def disk_cpu_ms(directory: Path, content: bytes, times: int) -> float:
    """CPU time that the kernel alone takes to write a file of that content and make it durable.

    Each time a new file, as a store does: where a virtual machine has to fetch fresh pages from
    its host, that is ten times the cost of writing the same file again.
    """
    began = time.thread_time()
    for number in range(times):
        with (directory / f"file-{number}").open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
    return 1000 * (time.thread_time() - began) / times


class Waiting:
    """How long others wait meanwhile: two of them ask for something small, again and again.

    One asks whether the service is alive, which takes the loop alone; one is a student who asks
    for a list, which takes a thread and the database.
    """

    def __init__(self, service: Service) -> None:
        self._over = threading.Event()
        self._waits: list[float] = []
        self._probes = [
            threading.Thread(target=self._ask, args=(service.anybody(), "healthz", {})),
            threading.Thread(
                target=self._ask, args=(service.student(), "assignments", {"course_id": COURSE})
            ),
        ]

    def __enter__(self) -> Waiting:
        for probe in self._probes:
            probe.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for probe in self._probes:
            probe.join()

    def _ask(self, client: Client, path: str, params: dict[str, str]) -> None:
        with client:
            while True:
                self._waits.append(client.get(path, **params).seconds)
                if self._over.wait(PROBE_PAUSE):
                    return

    @property
    def longest_ms(self) -> float:
        return 1000 * max(self._waits)

    @property
    def p95_ms(self) -> float:
        return 1000 * percentile(self._waits, 95)
