from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nbgrader import Zygote
from tests.support.nbgrader import zygote as running_zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with running_zygote() as running:
        yield running
