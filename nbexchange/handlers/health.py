"""healthz, readyz and metrics: for the machines that look after the service."""

from __future__ import annotations

import hmac

from nbexchange.errors import Unauthenticated, Unavailable
from nbexchange.handlers.base import PUBLIC, BaseHandler, to_json


class HealthzHandler(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """Alive: the loop turns."""
        self.finish(to_json({"success": True}))


class ReadyzHandler(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """Ready: the database has a schema that fits, and the store takes bytes.

        Not any more once the service was told to stop, so that requests go elsewhere.
        """
        if self.services.stopping.is_set():
            raise Unavailable("this service is about to stop; ask another, or try again soon")
        await self.services.readiness.check()
        self.finish(to_json({"success": True, "warnings": self.services.readiness.warnings}))


class MetricsPageHandler(BaseHandler):
    verbs = {"GET": PUBLIC}

    async def get(self) -> None:
        """For Prometheus; holds no names."""
        token = self.services.metrics_token
        if token and not self._shows(token):
            raise Unauthenticated("the numbers are for whoever has the token of metrics_token")
        page = await self.services.metrics.page()
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(page)

    def _shows(self, token: str) -> bool:
        shown = self.request.headers.get("Authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(shown, f"Bearer {token}".encode())
