"""What was found: medians over the runs, as JSON for machines and as tables for people."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # has no types of its own

from benchmarks.goals import GOALS
from benchmarks.meters import Readings
from benchmarks.sizes import MB

Row = Sequence[str]


def scenario_summary(runs: Sequence[Readings]) -> dict[str, Any]:
    """The medians of one scenario, field by field, and what they were made of."""
    operations = [
        {name: operation.summary() for name, operation in run.operations.items()} for run in runs
    ]
    numbers = [run.numbers for run in runs]
    return {
        "runs": len(runs),
        "operations": {name: _medians(run[name] for run in operations) for name in operations[0]},
        "numbers": _medians(numbers),
        "skipped": runs[0].skipped,
        "every_run": numbers,
    }


def _medians(runs: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    values: dict[str, list[float | None]] = defaultdict(list)
    for run in runs:
        for key, value in run.items():
            values[key].append(value)
    return {key: _median(found) for key, found in values.items()}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def machine(directory: Path) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    disk = _disk(directory)
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_mb": memory.total // MB,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "disk": disk,
    }


def now() -> dict[str, Any]:
    """When, and how busy the machine was with other things just before."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _disk(directory: Path) -> str:
    """Device and file system: on a tmpfs, fsync costs nothing and the numbers lie."""
    mounts = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if directory.resolve().is_relative_to(mount.mountpoint)
    ]
    nearest = max(mounts, key=lambda mount: len(mount.mountpoint), default=None)
    return f"{nearest.device} {nearest.fstype}" if nearest else "unknown"


def tables(report: Mapping[str, Any]) -> str:
    scenarios = report["scenarios"].values()
    operations = {name: row for found in scenarios for name, row in found["operations"].items()}
    numbers = {key: value for found in scenarios for key, value in found["numbers"].items()}
    skipped = {key: why for found in scenarios for key, why in found["skipped"].items()}
    return "\n\n".join(
        [
            _table(_OPERATION_HEADS, [_operation(*item) for item in operations.items()]),
            _table(
                _GOAL_HEADS,
                [_goal(key, numbers, skipped) for key in GOALS if key in numbers | skipped],
            ),
        ]
    )


_OPERATION_HEADS = (
    "operation", "count", "per second", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "peak MB",
)  # fmt: skip
_GOAL_HEADS = ("goal", "measured", "unit", "target", "", "field today")


def _operation(name: str, row: Mapping[str, float | None]) -> Row:
    return [name, *map(_number, row.values())]


def _goal(key: str, numbers: Mapping[str, float], skipped: Mapping[str, str]) -> Row:
    goal = GOALS[key]
    if key in skipped:
        return [goal.what, "-", goal.unit, goal.target, f"skipped: {skipped[key]}", goal.today]
    verdict = {True: "reached", False: "MISSED", None: ""}[goal.is_reached(numbers[key])]
    return [goal.what, _number(numbers[key]), goal.unit, goal.target, verdict, goal.today]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _table(heads: Row, rows: Sequence[Row]) -> str:
    """In Markdown, which can be read as it is."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    dashes = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (heads, dashes, *rows)
    )
