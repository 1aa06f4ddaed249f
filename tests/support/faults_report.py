"""What fault tests found, in figures.

Where `NBEXCHANGE_FAULT_REPORT` names a file, each test adds a line of JSON to it, and
`python -m tests.support.faults_report FILE` makes a table of them. `NBEXCHANGE_FAULT_TRIALS` is
how often a fault strikes in each test (once).
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import databases, places

TRIALS = int(os.environ.get("NBEXCHANGE_FAULT_TRIALS", "1"))

SUMS = ("trials", "acknowledged", "lost", "wrong", "duplicates")
WORST = ("refusal", "recovery")


def report(
    *,
    fault: str,
    trials: int,
    acknowledged: int,
    lost: int = 0,
    wrong: int = 0,
    duplicates: int = 0,
    refusal: float | None = None,
    recovery: float | None = None,
    database: str = databases.KIND,
    store: str = places.KIND,
) -> None:
    """Uploads acknowledged; of those lost, with wrong bytes, there twice. Seconds: the slowest
    refusal while it lasted, and from the end of the fault to the first receipt."""
    entry = locals()
    file = os.environ.get("NBEXCHANGE_FAULT_REPORT")
    if file:
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")


def table(entries: Iterable[dict[str, Any]]) -> str:
    """One row for each fault, database and store: sums, and the worst seconds."""
    cases: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        cases[entry["fault"], entry["database"], entry["store"]].append(entry)
    head = ["fault", "database", "store", *SUMS, *(f"{name} s" for name in WORST)]
    rows = [head] + [[*case, *_figures(found)] for case, found in sorted(cases.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(_aligned(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _figures(entries: list[dict[str, Any]]) -> list[str]:
    sums = [f"{sum(entry[name] for entry in entries):,}" for name in SUMS]
    return sums + [_worst(entry[name] for entry in entries) for name in WORST]


def _worst(seconds: Iterable[float | None]) -> str:
    known = [one for one in seconds if one is not None]
    return f"{max(known):.1f}" if known else "-"


def _aligned(cell: str, width: int) -> str:
    is_figure = cell == "-" or cell[:1].isdigit()
    return cell.rjust(width) if is_figure else cell.ljust(width)


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    print(table(map(json.loads, lines)))
