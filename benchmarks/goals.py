"""What is to be reached, next to what is measured.

The times of a whole cycle compare with the service that the field uses today, measured as here on
two shared cores; the rest are ratios within a run, or bounds that no machine excuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    what: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    today: str = ""
    """What the field's service of today does."""

    def is_reached(self, value: float) -> bool | None:
        """None where nothing is asked."""
        if self.at_most is not None:
            return value <= self.at_most
        if self.at_least is not None:
            return value >= self.at_least
        return None

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"


GOALS: Mapping[str, Goal] = {
    "cycle.20kB.seconds": Goal("whole cycle, 20 kB", "s", at_most=25 / 3, today="25"),
    "cycle.4.3MB.seconds": Goal("whole cycle, 4.3 MB", "s", at_most=74 / 3, today="74"),
    "submit.20kB.cpu_ms": Goal("server CPU per submit, 20 kB", "ms", at_most=3, today="6"),
    "submit.4.3MB.cpu_ms": Goal("server CPU per submit, 4.3 MB", "ms", at_most=12.5, today="25"),
    "disk.20kB.cpu_ms": Goal("of it, writing 20 kB and fsync", "ms"),
    "disk.4.3MB.cpu_ms": Goal("of it, writing 4.3 MB and fsync", "ms"),
    "list.student.ms": Goal("student's list, many", "ms", at_most=20, today="317"),
    "list.student.ratio": Goal("student's list, many / few", "x", at_most=1.5, today="linear"),
    "list.whole.ms": Goal("instructor's list, whole", "ms", at_most=160, today="1638"),
    "list.page.ms": Goal("instructor's list, first page", "ms", at_most=30),
    "list.whole.others_wait_ms": Goal(
        "longest wait during the whole list", "ms", at_most=50, today="1638"
    ),
    "wait.idle.ms": Goal("longest wait when idle, for comparison", "ms"),
    "wait.in.ms": Goal("longest wait during 500 MB in", "ms", at_most=50, today="11984"),
    "wait.out.ms": Goal("longest wait during 500 MB out", "ms", at_most=50, today="2511"),
    "memory.one.in.mb": Goal("memory growth, 1 GB in", "MB", at_most=32, today="3900"),
    "memory.one.out.mb": Goal("memory growth, 1 GB out", "MB", at_most=32, today="2000"),
    "memory.crowd.in.mb": Goal("memory growth, 20 x 100 MB in", "MB", at_most=150),
    "memory.crowd.out.mb": Goal("memory growth, 20 x 100 MB out", "MB", at_most=150),
    "ours.in.mb_s": Goal("500 MB in", "MB/s"),
    "nginx.in.mb_s": Goal("500 MB into nginx", "MB/s"),
    "nginx.in_synced.mb_s": Goal("500 MB into nginx, then fsync", "MB/s"),
    "nginx.in.ratio": Goal("in, against nginx", "x", at_least=0.5),
    "nginx.in_synced.ratio": Goal("in, against nginx and fsync", "x"),
    "ours.out.mb_s": Goal("500 MB out", "MB/s"),
    "nginx.out.mb_s": Goal("500 MB out of nginx", "MB/s"),
    "nginx.out.ratio": Goal("out, against nginx", "x", at_least=0.5),
    "slow.header.idle.p95_ms": Goal("others' p95 before 500 headers of a byte a second", "ms"),
    "slow.header.p95_ms": Goal("others' p95 during 500 headers of a byte a second", "ms"),
    "slow.header.ratio": Goal("the same, against before", "x", at_most=2),
    "slow.body.idle.p95_ms": Goal("others' p95 before 500 bodies of a byte a second", "ms"),
    "slow.body.p95_ms": Goal("others' p95 during 500 bodies of a byte a second", "ms"),
    "slow.body.ratio": Goal("the same, against before", "x", at_most=2),
    "slow.chunks.idle.p95_ms": Goal("others' p95 before 200 bodies of a byte in each chunk", "ms"),
    "slow.chunks.p95_ms": Goal("others' p95 during 200 bodies of a byte in each chunk", "ms"),
    "slow.chunks.ratio": Goal("the same, against before", "x", at_most=2),
    "slow.crumbs.idle.p95_ms": Goal(
        "others' p95 before 200 headers of a byte in each packet", "ms"
    ),
    "slow.crumbs.p95_ms": Goal("others' p95 during 200 headers of a byte in each packet", "ms"),
    "slow.crumbs.ratio": Goal("the same, against before", "x", at_most=2),
    "slow.pipelined.idle.p95_ms": Goal("others' p95 before 200 clients that pipeline", "ms"),
    "slow.pipelined.p95_ms": Goal("others' p95 during 200 clients that pipeline", "ms"),
    "slow.pipelined.ratio": Goal("the same, against before", "x", at_most=2),
    "slow.refused.idle.p95_ms": Goal("others' p95 before 4,500 refused bodies of 1.1 kB/s", "ms"),
    "slow.refused.p95_ms": Goal("others' p95 during 4,500 refused bodies of 1.1 kB/s", "ms"),
    "slow.refused.ratio": Goal("the same, against before", "x", at_most=2),
    "flood.unknown.idle.p95_ms": Goal("others' p95 before a flood from nobody", "ms"),
    "flood.unknown.p95_ms": Goal("others' p95 during a flood from nobody", "ms"),
    "flood.unknown.ratio": Goal("the same, against before", "x", at_most=2),
    "flood.unknown.per_second": Goal("of it, answered a second", ""),
    "flood.known.idle.p95_ms": Goal("others' p95 before a flood from somebody", "ms"),
    "flood.known.p95_ms": Goal("others' p95 during a flood from somebody", "ms"),
    "flood.known.ratio": Goal("the same, against before", "x", at_most=2),
    "flood.known.per_second": Goal("of it, answered a second", ""),
    "flood.malformed.idle.p95_ms": Goal("others' p95 before a flood of what is no HTTP", "ms"),
    "flood.malformed.p95_ms": Goal("others' p95 during a flood of what is no HTTP", "ms"),
    "flood.malformed.ratio": Goal("the same, against before", "x", at_most=2),
    "flood.malformed.per_second": Goal("of it, answered a second", ""),
    "flood.strangers.idle.p95_ms": Goal("others' p95 before a flood of invented tokens", "ms"),
    "flood.strangers.p95_ms": Goal("others' p95 during a flood of invented tokens", "ms"),
    "flood.strangers.ratio": Goal("the same, against before", "x", at_most=2),
    "flood.strangers.per_second": Goal("of it, answered a second", ""),
    "burst.p95_ms": Goal("burst of an exam, p95", "ms", at_most=5000),
    "burst.lost": Goal("burst of an exam, lost", "", at_most=0),
    "hour.p95_ms": Goal("the largest course, two replicas, p95", "ms", at_most=5000),
    "hour.lost": Goal("the largest course, lost", "", at_most=0),
    "hour.list_ms": Goal("its instructor's first page meanwhile, p95", "ms", at_most=300),
}
