"""What means an organisation, and what does not, wherever somebody names one."""

from __future__ import annotations

LARGEST = 2**31 - 1

NUMBERS: dict[object, int] = {
    1: 1,
    "1": 1,
    10: 10,
    "10": 10,
    LARGEST: LARGEST,
    str(LARGEST): LARGEST,
}

NO_NUMBERS: list[object] = [
    0,
    -1,
    LARGEST + 1,
    2**63,
    1.0,
    1.5,
    True,
    "",
    "0",
    "-1",
    "+1",
    "01",
    " 1",
    "1 ",
    "1\n",
    "1_0",
    "1.0",
    "1e1",
    "0x1",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "\N{FULLWIDTH DIGIT ONE}",
    "\N{SUPERSCRIPT TWO}",
    str(LARGEST + 1),
    "9" * 5000,
    "one",
    [1],
]
