"""Connections to the service, with limits on the size and the time of an answer.

A service, or a proxy in front of it, may send endless headers, bodies or pages, or a byte now and
then. `requests` only limits the time between two bytes, so the limits are enforced where bytes
arrive:

* From its first byte on, an answer may take `Timeouts.silence`, and one second more for each 1,000
  bytes of its body. A slow connection that makes progress stays within that.
* The `Budget` of the request limits the bytes and the seconds of the answer.

urllib3 uses the timeout for connecting also for sending. A connection may stall for longer than it
may take to open, so sending has a timeout of its own.
"""

import functools
import http.client
import http.cookiejar
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from nbexchange import timeouts

SLOWEST = 1_000  # bytes a second; the service requires the same of uploads
_CONNECTIONS = 16
_OVERHEAD = 1024**2  # bytes of headers and of chunked encoding


class Exceeded(Exception):
    """An answer is too large or too slow. The text ends a sentence "The exchange service at …"."""


@dataclass(frozen=True)
class Timeouts:
    """How many seconds one attempt may wait."""

    connect: float = timeouts.CONNECT
    send: float = timeouts.SEND
    """Until the other side accepts more of the body."""
    answer: float = timeouts.ANSWER
    """From the end of the request until the first byte of the answer."""
    silence: float = timeouts.ANSWER
    """From one byte of the answer to the next."""


class Budget:
    """The limits of one answer, or of all pages of a list: bytes in memory or on disk, and time.

    `retry_seconds` is how long the request may be retried.
    """

    timeouts = Timeouts()
    """Those of the current attempt."""

    def __init__(
        self,
        size: int,
        *,
        retry_seconds: float,
        seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.size = size
        self.retry_seconds = retry_seconds
        self._seconds = seconds
        self._clock = clock
        self._ends = clock() + seconds
        self._used = 0

    def use(self, size: int) -> None:
        """Count more bytes. Raises Exceeded if they are over the limit."""
        self._used += size
        self.check(self._used)

    def check(self, size: int) -> None:
        if size > self.size:
            raise Exceeded(f"sends an answer of more than {self.size:,} bytes")
        if self._clock() > self._ends:
            raise Exceeded(f"takes more than {self._seconds:.0f} seconds for a list")

    @contextmanager
    def in_use(self, timeouts: Timeouts) -> Iterator[None]:
        """In this context, requests of this thread use this budget and these timeouts."""
        self.timeouts = timeouts
        token = _BUDGET.set(self)
        try:
            yield
        finally:
            _BUDGET.reset(token)


_BUDGET: ContextVar[Budget] = ContextVar("budget")


class _Reader(io.RawIOBase):
    """The bytes of one answer as they arrive."""

    def __init__(self, raw: Any, budget: Budget) -> None:
        self.has_headers = False
        self._raw = raw
        self._timeout = budget.timeouts.silence
        self._budget = budget
        self._started_at: float | None = None
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._raw.readinto(buffer)
        self._count += count
        self._check(time.monotonic())
        return count

    def _check(self, now: float) -> None:
        if self._started_at is None:
            self._started_at = now
        earned = self._count / SLOWEST if self.has_headers else 0
        if now - self._started_at > self._timeout + earned:
            raise Exceeded("sends its answer too slowly")
        self._budget.check((self._count - _OVERHEAD) // 2)  # a chunk may be a byte, and 5 more

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A socket whose file counts and times the bytes that `http.client` reads."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.reader = _Reader(socket.makefile("rb", buffering=0), _BUDGET.get())

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.reader)


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        timed_socket = _Socket(sock)
        self._sock = sock
        self._reader = timed_socket.reader
        super().__init__(timed_socket, *args, **kwargs)  # type: ignore[arg-type]  # http.client only calls makefile

    def begin(self) -> None:
        super().begin()
        self._sock.settimeout(_BUDGET.get().timeouts.silence)
        self._reader.has_headers = True


class _SendTimeoutMixin:
    """Opens the connection with its own timeout, then sends with `Timeouts.send`."""

    sock: Any
    timeout: float | None
    connect: Callable[[], None]

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self.timeout = _BUDGET.get().timeouts.send
        super().request(*args, **kwargs)  # type: ignore[misc]  # of urllib3's class beside it


class _Connection(_SendTimeoutMixin, HTTPConnection):
    response_class = _TimedResponse


class _SecureConnection(_SendTimeoutMixin, HTTPSConnection):
    response_class = _TimedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager


@functools.cache
def session() -> requests.Session:
    """The connections of this process, to all addresses; each request carries its own login."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(pool_connections=4, pool_maxsize=_CONNECTIONS))
    session.headers["User-Agent"] = "nbexchange-plugin"
    # In a test or a script, requests of several users may share these connections.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return session
