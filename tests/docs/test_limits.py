"""docs/limits.md has a row for each limit that can be set, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nbexchange.app import NbExchange
from nbexchange.archive import ArchiveOptions
from nbexchange.exchange.quotas import QuotaOptions
from nbexchange.server.connections import ConnectionOptions
from nbexchange.server.rate_limits import RateLimitOptions

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]

LIMITS = ["max_buffer_size"] + [
    name
    for options in (ArchiveOptions, QuotaOptions, RateLimitOptions, ConnectionOptions)
    for name in options.class_trait_names(config=True)
]


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_a_row_with_its_default(name: str) -> None:
    default = NbExchange.class_traits()[name].default()
    (row, *_) = [row for row in ROWS if f"`{name}`" in row.split("|")[1]]

    if default:
        numbers = [float(number.replace(",", "")) for number in re.findall(r"[\d,.]*\d", row)]
        assert default in numbers
