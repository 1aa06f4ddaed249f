"""Options about where the service listens, and how it stops."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tornado.netutil import bind_sockets
from traitlets import Float, HasTraits, Int, Unicode, default, validate

from nbexchange.errors import Misconfigured


class AddressOptions(HasTraits):
    base_url = Unicode(
        "/services/nbexchange/",
        help="""
        The path below which everything is served; a slash at both ends is added.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_PREFIX.
        """,
    ).tag(config=True)

    @default("base_url")
    def _prefix(self) -> str:
        return _of_service("JUPYTERHUB_SERVICE_PREFIX") or "/services/nbexchange/"

    @validate("base_url")
    def _slashes(self, proposal: Any) -> str:
        inner = proposal["value"].strip("/")
        return f"/{inner}/" if inner else "/"

    ip = Unicode(
        "0.0.0.0",  # noqa: S104 (a service)
        help="""
        The address to listen on; empty for all, also IPv6.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_URL.
        """,
    ).tag(config=True)

    @default("ip")
    def _address(self) -> str:
        return _service_url().hostname or "0.0.0.0"  # noqa: S104 (a service)

    port = Int(
        9000,
        help="""
        The port to listen on; 0 for any that is free.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_URL.
        """,
    ).tag(config=True)

    @default("port")
    def _port(self) -> int:
        return _service_url().port or 9000

    stop_delay = Float(
        0,
        min=0,
        help="""
        Seconds after SIGTERM during which all goes on, but readyz says 503, so that requests are
        sent to other replicas. With several: as long as a load balancer needs to notice.
        """,
    ).tag(config=True)

    stop_grace = Float(
        20,
        min=0,
        help="""
        Seconds that the end then waits for uploads that are under way; all else is broken off.
        Kubernetes kills after terminationGracePeriodSeconds (30), which has to be five seconds
        longer than stop_delay and this together.
        """,
    ).tag(config=True)

    def listen(self) -> list[socket.socket]:
        try:
            return bind_sockets(self.port, self.ip or None)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self.ip}:{self.port}: {error.strerror}; "
                "choose another with --ip and --port"
            ) from error


def _of_service(name: str) -> str:
    """A variable that JupyterHub sets for its services; users' servers have the same for theirs."""
    return os.environ.get(name, "") if os.environ.get("JUPYTERHUB_SERVICE_NAME") else ""


def _service_url() -> SplitResult:
    """Where JupyterHub expects the service."""
    try:
        url = urlsplit(_of_service("JUPYTERHUB_SERVICE_URL"))
        _ = url.port
    except ValueError:
        raise Misconfigured(
            "$JUPYTERHUB_SERVICE_URL is not a URL with a valid port; set it as JupyterHub does, "
            "or unset it"
        ) from None
    return url
