"""The official time of a submission: one rule, on the database's clock."""

from __future__ import annotations

import datetime
from collections.abc import Callable

COMMITMENT = datetime.timedelta(hours=1)
"""How long a digest in the header keeps the time of the header. A student who may choose among
several uploads that were held back for longer has not decided yet."""

TICK = datetime.timedelta(microseconds=1)


def keeps_header_time(
    arrived_at: datetime.datetime, completed_at: datetime.datetime, *, committed: bool
) -> bool:
    """Whether the bytes were fixed when the header arrived.

    `committed`: the header held their digest, and the student had no other upload to choose from.
    """
    return committed and completed_at - arrived_at <= COMMITMENT


def official_time(
    arrived_at: datetime.datetime,
    completed_at: datetime.datetime,
    *,
    committed: bool,
    after: datetime.datetime | None,
    is_taken: Callable[[datetime.datetime], bool],
) -> datetime.datetime:
    """The arrival of the header where the bytes were fixed then, else that of the last byte.

    It is later than `after`, the time of the student's newest submission that was complete when
    this one began: if the clock was set back, the order wins. And it is unique: `is_taken` says
    whether another submission of the student for this assignment has it.
    """
    fixed = keeps_header_time(arrived_at, completed_at, committed=committed)
    time = arrived_at if fixed else completed_at
    if after is not None:
        time = max(time, after + TICK)
    while is_taken(time):
        time += TICK
    return time
