"""Parts of a machine that a test needs."""

from __future__ import annotations

import os
import shutil

import pytest

PATIENCE = 30
"""Seconds until a test gives up on an answer."""


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
