"""healthz, readyz and metrics: for the machines that look after the service."""

from __future__ import annotations

from nbexchange.database.schema import USABLE
from nbexchange.errors import Unavailable
from nbexchange.handlers.base import PUBLIC, BaseHandler, to_json


class Healthz(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """Alive: the loop turns."""
        self.finish(to_json({"success": True}))


class Readyz(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """Ready: the database has a schema that fits, and the store takes bytes.

        Not any more once the service was told to stop, so that requests go elsewhere.
        """
        if self.settings["stopping"].is_set():
            raise Unavailable("this service is about to stop; ask another, or try again soon")
        state = await self.services.database.in_thread(self.services.database.schema.state)
        if state not in USABLE:
            raise Unavailable(f"the database's schema is {state}; see `nbexchange upgrade-db`")
        await self.services.storage.check()
        self.finish(to_json({"success": True}))


class MetricsPage(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """For Prometheus; holds no names."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(self.services.metrics.text())
