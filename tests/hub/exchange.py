"""The exchange in a thread, with a hub's users and a clock that the test controls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from traitlets.config import Config

from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from tests.support.parts import PATIENCE
from tests.support.service import Service


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def exchange(data: Path, clock: Clock, **options: Any) -> Service:
    """`options` are those of JupyterHubUserHandler."""

    class Handler(JupyterHubUserHandler):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(clock=clock, **kwargs)

    usual = {"service_name": "nbexchange", "api_token": "", "hub_timeout": PATIENCE / 4}
    config = Config(
        NbExchange={"user_plugin_class": Handler},
        JupyterHubUserHandler=usual | options,
    )
    return Service(data, config)
