"""The soak itself works; what it finds in two hours is for `python -m tests.soak`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak import BLOCKS, slope, soak

NOISE = random.Random(1)
MINUTES = 60
TIMES = [60.0 * minute / BLOCKS for minute in range(MINUTES * BLOCKS)]
MOST_MEMORY_MB = 300


def test_what_grows_is_told_from_what_goes_up_and_down() -> None:
    level = [100 + NOISE.gauss(0, 5) for _ in TIMES]
    growing = [value + 0.2 * time / 60 for value, time in zip(level, TIMES, strict=True)]

    assert slope(TIMES, level).lowest <= 0
    assert slope(TIMES, growing).lowest > 0
    assert slope(TIMES, growing).value == pytest.approx(0.2, abs=0.1)


@pytest.mark.slow
def test_everybody_is_served_while_the_database_comes_and_goes(tmp_path: Path) -> None:
    measured = soak(40, tmp_path)

    print(measured)
    assert {"200", "201", "401", "422", "cut"} <= measured.answers.keys()
    assert measured.answers.keys() <= {"200", "201", "401", "422", "429", "503", "cut", "no answer"}
    assert max(measured.memory_mb) <= MOST_MEMORY_MB
    assert len(measured.slopes()) == 3
