"""Parts of a machine that a test needs."""

from __future__ import annotations

import os
import random
import shutil
import socket

import pytest

PATIENCE = 120
"""Seconds until a test gives up on something; a busy machine takes its time."""


def needs(program: str) -> str:
    """The program's path. Without it the test is skipped; where changes are judged, it fails."""
    found = shutil.which(program)
    if found is None:
        missing(f"{program} is not installed")
    assert found
    return found


def missing(reason: str) -> None:
    if os.environ.get("NBEXCHANGE_CI"):
        pytest.fail(f"needed here: {reason}")
    pytest.skip(reason)


def free_port() -> int:
    """One that is free now, below those that the system gives to clients."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
