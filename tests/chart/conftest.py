from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    """The service reads what the chart wrote, and nothing of this machine."""
    for name in list(os.environ):
        if name.startswith(("NBEX", "JUPYTERHUB_")):
            monkeypatch.delenv(name)


@pytest.fixture
def config_file(tmp_path):
    return tmp_path / "nbexchange_config.py"
