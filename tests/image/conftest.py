from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import engine


@pytest.fixture(scope="session")
def base() -> str:
    """The image that Dockerfile begins with."""
    engine.must_answer()
    with one_at_a_time():
        if not engine.have(engine.BASE):
            engine.make_base()
    return engine.BASE


@pytest.fixture(scope="session")
def image(base: str) -> str:
    """The image of the service, built from this tree."""
    with one_at_a_time():
        engine.build(f"--tag={engine.IMAGE}", engine.TOP)
    return engine.IMAGE


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Who comes second finds what the first has made."""
    with (Path(tempfile.gettempdir()) / "nbexchange-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
