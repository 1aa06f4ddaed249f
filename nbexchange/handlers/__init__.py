"""HTTP: take from the request, call one verb, answer."""

from __future__ import annotations

import re
from typing import Any

from tornado.routing import Rule, URLSpec
from tornado.web import RequestHandler

from nbexchange.errors import Misconfigured
from nbexchange.exchange.policy import POLICY
from nbexchange.handlers.assignments import AssignmentHandler, AssignmentsHandler
from nbexchange.handlers.base import PUBLIC, BaseHandler
from nbexchange.handlers.feedback import FeedbackHandler
from nbexchange.handlers.health import HealthzHandler, MetricsPageHandler, ReadyzHandler
from nbexchange.handlers.history import HistoryHandler
from nbexchange.handlers.pages import HomeHandler, OpenApiHandler
from nbexchange.handlers.purges import PurgesHandler
from nbexchange.handlers.services import Services
from nbexchange.handlers.submissions import CollectionHandler, CollectionsHandler, SubmissionHandler

ROUTES: tuple[tuple[str, type[BaseHandler]], ...] = (
    ("", HomeHandler),
    ("assignments", AssignmentsHandler),
    ("assignment", AssignmentHandler),
    ("purges", PurgesHandler),
    ("submission", SubmissionHandler),
    ("collections", CollectionsHandler),
    ("collection", CollectionHandler),
    ("feedback", FeedbackHandler),
    ("history", HistoryHandler),
    ("openapi.yaml", OpenApiHandler),
    ("healthz", HealthzHandler),
    ("readyz", ReadyzHandler),
)
"""Every address below the base URL."""

MACHINES: tuple[tuple[str, type[BaseHandler]], ...] = (
    ("/healthz", HealthzHandler),
    ("/readyz", ReadyzHandler),
    ("/metrics", MetricsPageHandler),
)
"""For probes and scrapers, which reach the port but do not know the base URL. `metrics` is here
alone: a hub's proxy passes on every address below the base URL, to anyone."""


def _table(base_url: str) -> list[tuple[str, type[BaseHandler]]]:
    table = [(base_url + path, handler) for path, handler in ROUTES]
    return table + [row for row in MACHINES if row[0] not in dict(table)]


def machine_paths(base_url: str) -> frozenset[str]:
    """The addresses of probes and scrapers, which always get a connection."""
    handlers = dict(MACHINES).values()
    return frozenset(path for path, handler in _table(base_url) if handler in handlers)


def rules(base_url: str, services: Services) -> list[Rule]:
    """The routing table. Raises Misconfigured for a route that the policy does not know."""
    table = _table(base_url)
    for _, handler in table:
        check_verbs(handler)
    kwargs: dict[str, Any] = {"services": services}
    return [URLSpec(_literal(path), handler, kwargs) for path, handler in table]


def check_verbs(handler: type[BaseHandler]) -> None:
    """Every method of a handler has to have a verb, and every verb a row in the policy."""
    for method in RequestHandler.SUPPORTED_METHODS:
        name = method.lower()
        if getattr(handler, name) is getattr(RequestHandler, name):
            continue
        if method not in handler.verbs:
            raise Misconfigured(f"{handler.__name__}.{name} has no verb")
        verb = handler.verbs[method]
        if verb is not PUBLIC and verb not in POLICY:
            raise Misconfigured(f"the policy has no row for {verb}")


def _literal(path: str) -> str:
    return re.escape(path) + "$"
