"""The official time, as a table: seconds after the header arrived."""

from __future__ import annotations

import datetime

import pytest

from nbexchange.exchange.official_time import COMMITMENT, TICK, official_time

HEADER = datetime.datetime(2026, 12, 1, 12, 0)
HOUR = COMMITMENT.total_seconds()


def seconds(number: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=number)


CASES = {
    # completed, committed, after, taken -> official time
    "a digest fixes the bytes at the header": (600, True, None, (), 0),
    "without a digest the last byte counts": (600, False, None, (), 600),
    "a digest counts for an hour": (HOUR, True, None, (), 0),
    "and not for longer": (HOUR + 1, True, None, (), HOUR + 1),
    "an earlier submission changes nothing": (0, True, -60, (), 0),
    "the order wins over a clock that was set back": (0, True, 60, (), 60.000001),
    "also for the last byte": (5, False, 60, (), 60.000001),
    "two are never the same": (0, True, None, (0,), 0.000001),
    "nor three": (0, True, None, (0, 0.000001), 0.000002),
    "the order and uniqueness together": (0, True, 0, (0.000001,), 0.000002),
}


@pytest.mark.parametrize("case", CASES)
def test_the_official_time_is(case: str) -> None:
    completed, committed, after, taken, expected = CASES[case]
    times = {HEADER + seconds(number) for number in taken}

    time = official_time(
        HEADER,
        HEADER + seconds(completed),
        committed=committed,
        after=None if after is None else HEADER + seconds(after),
        is_taken=times.__contains__,
    )

    assert time == HEADER + seconds(expected)
    assert seconds(0.000001) == TICK
