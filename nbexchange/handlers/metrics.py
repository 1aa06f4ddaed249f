"""What operators count: no names of people or courses, and no secrets, ever become labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from tornado.web import RequestHandler

from nbexchange import __version__


class Metrics:
    """One registry for each application, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "nbexchange_requests",
            "Requests answered",
            ("handler", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "nbexchange_request_seconds",
            "Time from a request's header to the end of its answer",
            ("handler", "method"),
            registry=self._registry,
        )
        self.uploads_in_flight = Gauge(
            "nbexchange_uploads_in_flight", "Uploads under way", registry=self._registry
        )
        self.bytes_in = Counter(
            "nbexchange_upload_bytes", "Bytes of bodies received", registry=self._registry
        )
        self.bytes_out = Counter(
            "nbexchange_download_bytes", "Bytes of blobs sent", registry=self._registry
        )
        Info("nbexchange_build", "The version that runs", registry=self._registry).info(
            {"version": __version__}
        )

    def count(self, handler: RequestHandler) -> None:
        name = type(handler).__name__
        method = handler.request.method
        # A client may call its method anything; a label for each would never end.
        if method not in handler.SUPPORTED_METHODS:
            method = "other"
        self._requests.labels(name, method, handler.get_status()).inc()
        self._seconds.labels(name, method).observe(handler.request.request_time())

    def text(self) -> bytes:
        return generate_latest(self._registry)
