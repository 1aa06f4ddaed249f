"""What operators count: no names of people or courses, and no secrets, ever become labels.

docs/monitoring.md says what each number means.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tornado.web import HTTPError
from traitlets import HasTraits, Integer, Unicode, default

from nbexchange import __version__
from nbexchange.database import Database
from nbexchange.errors import NbExchangeError
from nbexchange.exchange.policy import Verb
from nbexchange.server.readiness import Readiness, SharedCall
from nbexchange.storage import DiskSpace, Storage

# Otherwise each counter has a second series, with the time of its birth.
disable_created_metrics()  # type: ignore[no-untyped-call]  # theirs has no types

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""From a list out of memory to an upload over a slow line."""

WAITS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

BEAT = 0.1
"""Seconds between two looks at how late the event loop is."""

ROOM_SECONDS = 5.0
"""For how long a look at the disk counts."""

ROOM_PATIENCE = 1.0
"""Seconds that a scrape waits for the disk. Its numbers are left out when it says nothing."""

ORGANISATIONS = 100

OTHER = "other"

UNTIMELY = ("slow", "idle", "full")
"""Why we close a connection: it stood still; it waited for nothing while another had no place; or
that other one had none."""

SCHEMAS = ("current", "ahead", "behind", "empty", "unknown")


class MetricsOptions(HasTraits):
    """Options about who may read the metrics, and how many series there are."""

    metrics_token = Unicode(
        help="""
        What a scraper has to show as `Authorization: Bearer <token>` before it reads `metrics`.
        Default: $NBEXCHANGE_METRICS_TOKEN, else whoever reaches the port may. `metrics` is never
        below the base URL, unless that is `/`.
        """,
    ).tag(config=True)

    @default("metrics_token")
    def _metrics_token(self) -> str:
        return os.environ.get("NBEXCHANGE_METRICS_TOKEN", "").strip()

    metrics_organisations = Integer(
        ORGANISATIONS,
        min=0,
        help="""
        How many organisations get numbers of their own in `metrics`; those that come later share
        `other`. Each costs up to eleven series, in every replica.
        """,
    ).tag(config=True)


class Metrics:
    """One registry for each application, so that several can live in one process."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        readiness: Readiness,
        organisations: int = ORGANISATIONS,
    ) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "nbexchange_requests",
            "Requests answered; status 499: the sender went away before there was an answer",
            ("handler", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "nbexchange_request_seconds",
            "Time from a request's header to the end of its answer, so with the body's way",
            ("handler", "method"),
            buckets=SECONDS,
            registry=registry,
        )
        self._refusals = Counter(
            "nbexchange_refusals",
            "Requests that were refused or failed, by the kind of error",
            ("reason",),
            registry=registry,
        )
        # From the beginning, or Prometheus would not see the first of a kind as an increase.
        for why in _reasons(NbExchangeError):
            self._refusals.labels(why)
        self._verbs = Counter(
            "nbexchange_verbs",
            "What people did, and was done",
            ("verb", "organisation"),
            registry=registry,
        )
        self.uploads_in_flight = Gauge(
            "nbexchange_uploads_in_flight", "Uploads under way", registry=registry
        )
        self.connections = Gauge(
            "nbexchange_connections", "Connections that are open", registry=registry
        )
        self._closed = Counter(
            "nbexchange_connections_closed",
            "Connections that the service closed before their time",
            ("reason",),
            registry=registry,
        )
        for why in UNTIMELY:
            self._closed.labels(why)
        self.bytes_in = Counter(
            "nbexchange_upload_bytes", "Bytes of bodies received", registry=registry
        )
        self.bytes_out = Counter(
            "nbexchange_download_bytes", "Bytes of blobs sent", registry=registry
        )
        self._waits = Histogram(
            "nbexchange_loop_wait_seconds",
            "How late the event loop was, ten times a second: all requests waited for so long",
            buckets=WAITS,
            registry=registry,
        )
        Info("nbexchange_build", "What runs", registry=registry).info(
            {
                "version": __version__,
                "python": platform.python_version(),
                "database": database.engine.dialect.name,
                "store": storage.kind,
            }
        )
        self._parts = _Parts(database, readiness)
        registry.register(self._parts)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._room = SharedCall(storage.disk_space, ROOM_SECONDS)
        self._page = SharedCall(self._make_page, 0)
        self._most = organisations
        self._organisations: set[int] = set()

    def count(self, handler: str, method: str, status: int, seconds: float) -> None:
        """A request that is over."""
        self._requests.labels(handler, method, status).inc()
        self._seconds.labels(handler, method).observe(seconds)

    def count_refusal(self, why: str) -> None:
        """`why` is what `reason` makes of an error."""
        self._refusals.labels(why).inc()

    def count_closed(self, why: str) -> None:
        """A connection that was closed; one of UNTIMELY."""
        self._closed.labels(why).inc()

    def count_verb(self, verb: Verb, org_id: int) -> None:
        """Something that was done."""
        self._verbs.labels(verb.name.lower(), self._label(org_id)).inc()

    def _label(self, org_id: int) -> str:
        """Ids come from outside, and every label costs memory here and in Prometheus."""
        if org_id not in self._organisations:
            if len(self._organisations) >= self._most:
                return OTHER
            self._organisations.add(org_id)
        return str(org_id)

    async def watch_the_loop(self) -> None:
        """Until it is cancelled."""
        while True:
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            self._waits.observe(max(0.0, time.monotonic() - due))

    async def page(self) -> bytes:
        """Prometheus' text format. Those who ask at the same time get the same."""
        return await self._page.get()

    async def _make_page(self) -> bytes:
        self._parts.room = await self._look_at_the_disk()
        # Thousands of lines take tens of milliseconds.
        return await asyncio.to_thread(generate_latest, self._registry)

    async def _look_at_the_disk(self) -> DiskSpace | None:
        with contextlib.suppress(TimeoutError, OSError, NbExchangeError):
            async with asyncio.timeout(ROOM_PATIENCE):
                return await self._room.get()
        return None


def reason(error: BaseException | None) -> str:
    """The nearest class of our tree of errors. `error` is None where the client disconnected."""
    if error is None:
        return "BrokenOff"
    for known in type(error).__mro__:
        if known.__module__ == NbExchangeError.__module__:
            return known.__name__
    return "HTTPError" if isinstance(error, HTTPError) else "Failure"


def _reasons(error: type[NbExchangeError]) -> Iterator[str]:
    if error.__module__ == NbExchangeError.__module__:
        yield error.__name__
        for narrower in error.__subclasses__():
            yield from _reasons(narrower)


class _Parts(Collector):
    """Values that the parts are asked for at a scrape. Nothing here waits."""

    def __init__(self, database: Database, readiness: Readiness) -> None:
        self._database = database
        self._readiness = readiness
        self.room: DiskSpace | None = None

    def collect(self) -> Iterator[Metric]:
        yield from self._of_readiness()
        yield from self._of_database()
        yield from self._of_room()

    def _of_readiness(self) -> Iterator[Metric]:
        ready, schema = self._readiness.ready, self._readiness.schema
        if ready is not None:
            yield _gauge("nbexchange_ready", "Whether readyz could use database and store", ready)
        if schema is not None:
            states = GaugeMetricFamily(
                "nbexchange_database_schema", "Which schema readyz found", labels=["state"]
            )
            for state in SCHEMAS:
                states.add_metric([state], state == schema)
            yield states
        if self._readiness.full is not None:
            yield _gauge(
                "nbexchange_storage_full", "Whether readyz found no room", self._readiness.full
            )
        if ready is not None:
            yield _gauge(
                "nbexchange_people_outdated",
                "Whether readyz found that people's last valid data are used, not their source",
                self._readiness.problem_of_people is not None,
            )
        if self._readiness.skew is not None:
            yield _gauge(
                "nbexchange_database_clock_skew_seconds",
                "Seconds by which readyz found the database's clock ahead of this machine's",
                self._readiness.skew,
            )

    def _of_database(self) -> Iterator[Metric]:
        load = self._database.load()
        if load.connections is not None and load.in_use is not None:
            yield _gauge(
                "nbexchange_database_pool_size", "Connections that are kept", load.connections
            )
            yield _gauge("nbexchange_database_pool_in_use", "Connections at work", load.in_use)
        waiting = GaugeMetricFamily(
            "nbexchange_database_waiting",
            "Requests that wait for a thread with a connection",
            labels=["kind"],
        )
        waiting.add_metric(["read"], load.waiting_to_read)
        waiting.add_metric(["scan"], load.waiting_to_scan)
        waiting.add_metric(["write"], load.waiting_to_write)
        yield waiting

    def _of_room(self) -> Iterator[Metric]:
        if self.room is None:
            return
        for name, words, value in (
            ("free", "Bytes that are free on the disk", self.room.free),
            ("size", "Bytes that the disk has", self.room.size),
        ):
            family = GaugeMetricFamily(f"nbexchange_storage_{name}_bytes", words, labels=["place"])
            family.add_metric([self.room.place], value)
            yield family
        oldest = self.room.oldest_unfinished
        age = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        yield _gauge(
            "nbexchange_litter_oldest_seconds", "Age of the oldest unfinished upload on it", age
        )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
