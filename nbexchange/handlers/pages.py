"""The home page and the description of the interface."""

from __future__ import annotations

import functools
from pathlib import Path

from nbexchange import __version__
from nbexchange.handlers.base import PUBLIC, BaseHandler


class HomeHandler(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """Says which service this is; old clients and probes look for these words."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(f"NbExchange {__version__}")


class OpenApiHandler(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """docs/openapi.yaml."""
        self.set_header("Content-Type", "application/yaml")
        self.finish(openapi())


@functools.cache
def openapi() -> bytes:
    package = Path(__file__).parent.parent
    packed = package / "_docs" / "openapi.yaml"
    return (packed if packed.exists() else package.parent / "docs" / "openapi.yaml").read_bytes()
