"""Connections: how many there may be, and how slow one may be.

Whoever is silent costs a descriptor and a little memory; so connections are counted, and what does
not move is closed. Time counts against a client only while we wait for it: neither while its turn
has not come, nor while our disk or database is slow.

Tornado has no such limits. Its time for a header begins when the request before it is over, and its
time for a body is one for all bodies, however large; a reader that stops may stop for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import resource
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from nbexchange.errors import Misconfigured
from nbexchange.handlers.metrics import Metrics

log = logging.getLogger(__name__)

LONGEST_HEADER = 32 * 1024
MOST_HEADER_LINES = 100
"""More than any proxy or browser sends. 20,000 short lines took 60 ms to put in order, in which
nobody else got an answer."""

LONGEST_READ = 64 * 1024
"""What is longer than LONGEST_HEADER is refused in an answer; what is longer than this is not."""

MOST_CONNECTIONS = 4000
"""Unless an operator says otherwise; each takes some 20 kB of memory while it waits."""

FILES_OF_OURS = 100
"""Descriptors for all but clients: databases, files that are written and checked, logs."""

FEWEST_FILES = 160

AT_A_TIME = 128
"""Connections accepted before others get a turn."""

SEND_BUFFER = 128 * 1024
"""Bytes; the system doubles it, and left alone it lets 4 MB gather. It tells of room when a third
is free, so a reader of 40 kB/s would look silent for half a minute at a time."""

REST_SECONDS = 1.0
"""How long nobody is accepted after the system had no more descriptors."""

YOUNG_SECONDS = 1.0
"""Whoever has waited for less does not give way."""

MOST_LEAVING = 30
LEAVING_SECONDS = 1.0
"""How many who were turned away may read why, and for how long."""

_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_MALFORMED = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's answer to what is no HTTP, after which it closes."""


@dataclass(frozen=True)
class Patience:
    """In seconds and bytes; 0 for no limit."""

    header: float = 10
    """From the first byte of a header to its last. The first header has to come at once."""
    silence: float = 30
    """Without a byte of a body or of an answer."""
    rate: float = 1000
    """Bytes a second that have to move, over any stretch of twice `silence`."""
    connections: int = MOST_CONNECTIONS

    @property
    def longest_lead(self) -> float:
        """Seconds that one may go on for when it moves nothing: what it has moved faster than it
        had to, up to this."""
        return 2 * self.silence or 60.0

    @property
    def tick(self) -> float:
        """How often we look."""
        return min(1.0, self.header / 5 or 1.0, self.silence / 5 or 1.0)

    @property
    def longest_look(self) -> float:
        """What one look counts at most, however late it comes."""
        return 2 * self.tick


class Line(IOStream):
    """One client's connection, which counts what moves, and knows whether we wait for it."""

    def __init__(
        self,
        connection: socket.socket,
        patience: Patience,
        hold: Callable[[], Awaitable[bool]],
        **kwargs: Any,
    ) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().__init__(connection, **kwargs)
        self._patience = patience
        self._hold = hold
        self._moved = self._seen = 0
        self._asks = False
        self._is_new = True
        self.waits_since = time.monotonic()
        """When it began to wait for a request."""
        self._header_for: float | None = None
        """Seconds that a header has been on its way; at first less by what one look may add."""
        self._silent = 0.0
        self._lead = patience.longest_lead

    # -- what Tornado calls

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        self._moved += count or 0
        return count

    def write_to_fd(self, data: memoryview) -> int:
        count = super().write_to_fd(data)
        self._moved += count
        return count

    async def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> bytes:
        """A request's header. One that costs too much to put in order is a 400."""
        header = await super().read_until_regex(regex, max_bytes)
        if len(header) > LONGEST_HEADER or header.count(b"\n") > MOST_HEADER_LINES:
            raise HTTPInputError("the header is too long")
        return header

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data == _MALFORMED:
            return asyncio.ensure_future(self._refuse(data))
        return super().write(data)

    async def _refuse(self, data: bytes | memoryview) -> None:
        if await self._hold() and not self.closed():
            await super().write(data)

    # -- what the server tells and asks

    def wait_for_request(self) -> None:
        """A request is over; another may come."""
        self.waits_since = time.monotonic()
        self._asks = False
        self._header_for = -self._patience.longest_look if self._is_new else None
        self._is_new = False
        self._seen = self._moved

    def begin_request(self) -> None:
        """Its header is here."""
        self._asks = True
        self._seen = self._moved
        self._silent = 0.0
        self._lead = self._patience.longest_lead

    def is_too_slow(self, seconds: float) -> bool:
        """Asked every so many seconds."""
        moved, self._seen = self._moved - self._seen, self._moved
        if self._asks:
            return self._stands_still(moved, seconds)
        return self._header_is_late(moved, seconds)

    def _header_is_late(self, moved: int, seconds: float) -> bool:
        if self._header_for is not None:
            self._header_for += seconds
        elif moved:
            self._header_for = 0.0
        return self._header_for is not None and self._header_for > self._patience.header > 0

    def _stands_still(self, moved: int, seconds: float) -> bool:
        if not (self.reading() or self.writing()):
            return False  # it waits for us
        patience = self._patience
        self._silent = 0.0 if moved else self._silent + seconds
        if patience.rate:
            self._lead = min(patience.longest_lead, self._lead + moved / patience.rate) - seconds
        return self._silent > patience.silence > 0 or self._lead < 0


class _Request(HTTPMessageDelegate):
    """Tells when a header is whole; all else is passed on."""

    def __init__(self, inner: HTTPMessageDelegate, begin: Callable[[], None]) -> None:
        self._inner = inner
        self._begin = begin

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._begin()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


class Server(HTTPServer):
    """Serves at most so many connections, none of which stands still.

    When there are as many as there may be, the one that has waited longest without a request gives
    way. Where none does, the new one gets a 503.
    """

    def limit(
        self, patience: Patience, hold: Callable[[], Awaitable[bool]], metrics: Metrics
    ) -> None:
        """`hold` lets a refusal wait its turn, or says that it is not worth an answer."""
        self._patience = patience
        self._hold = hold
        self._metrics = metrics
        self._lines: set[Line] = set()
        metrics.connections.set_function(self._lines.__len__)
        self._waiting: dict[Line, None] = {}  # in the order in which they began to wait
        self._listening: list[socket.socket] = []
        self._leaving: deque[socket.socket] = deque(maxlen=MOST_LEAVING)
        self._watch: asyncio.Task[None] | None = None

    def listen_on(self, sockets: Iterable[socket.socket]) -> None:
        for listener in sockets:
            self._listening.append(listener)
            self._accept_from(listener)
        self._watch = asyncio.create_task(self._look())

    def stop(self) -> None:
        super().stop()
        for listener in self._listening:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        self._listening.clear()
        for connection in self._leaving:
            connection.close()

    async def close_all_connections(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await super().close_all_connections()

    # -- those who come

    def _accept_from(self, listener: socket.socket) -> None:
        if listener in self._listening:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_A_TIME):
            try:
                connection, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _NO_MORE:
                    raise
                self._rest(listener, error)
                return
            self._take(connection, address)

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """The loop would call us again at once, and again, and nobody else would get a turn."""
        log.error("no connection can be accepted for now: %s", error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(REST_SECONDS, self._accept_from, listener)
        self._make_room()

    def _take(self, connection: socket.socket, address: Any) -> None:
        if len(self._lines) >= self._patience.connections and not self._make_room():
            self._metrics.count_closed("full")
            self._turn_away(connection)
            return
        line = Line(
            connection,
            self._patience,
            self._hold,
            max_buffer_size=self.max_buffer_size,
            read_chunk_size=self.read_chunk_size,
        )
        self._lines.add(line)
        self.handle_stream(line, address)

    def _turn_away(self, connection: socket.socket) -> None:
        """Say why. Closed at once, it would break under the request that is still on its way, and
        nobody would read that."""
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_FULL)
            connection.shutdown(socket.SHUT_WR)
        if len(self._leaving) >= MOST_LEAVING:
            self._leaving.popleft().close()
        self._leaving.append(connection)
        asyncio.get_running_loop().call_later(LEAVING_SECONDS, connection.close)

    def _make_room(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is None or time.monotonic() - oldest.waits_since < YOUNG_SECONDS:
            return False
        self._metrics.count_closed("idle")
        self._forget(oldest)
        oldest.close()
        return True

    # -- those who are here

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        line = _line_of(server_conn)
        line.wait_for_request()
        self._waiting.pop(line, None)
        self._waiting[line] = None
        begin = functools.partial(self._begin, line)
        return _Request(super().start_request(server_conn, request_conn), begin)

    def _begin(self, line: Line) -> None:
        self._waiting.pop(line, None)
        line.begin_request()

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        self._forget(_line_of(server_conn))

    def _forget(self, line: Line) -> None:
        self._waiting.pop(line, None)
        self._lines.discard(line)

    async def _look(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(self._patience.tick)
            # If the loop was held up, nobody has read what they sent meanwhile.
            seconds = min(time.monotonic() - begun, self._patience.longest_look)
            for line in [line for line in self._lines if line.is_too_slow(seconds)]:
                log.debug("a connection is closed: it stands still")
                self._metrics.count_closed("slow")
                line.close()


def most_connections(wanted: int) -> int:
    """How many there may be: `wanted`, or for 0 as many as we have files for.

    Asks the system for more files where it may. Each connection takes two: itself, and what it
    sends or gets. Raises Misconfigured where there are too few.
    """
    files = _files(2 * (wanted or MOST_CONNECTIONS) + FILES_OF_OURS)
    if files < FEWEST_FILES:
        raise Misconfigured(
            f"the service may open only {files} files, and it needs {FEWEST_FILES} to begin with; "
            "raise the limit (ulimit -n, LimitNOFILE=)"
        )
    possible = (files - FILES_OF_OURS) // 2
    if wanted > possible:
        raise Misconfigured(
            f"max_connections is {wanted}, which takes {2 * wanted + FILES_OF_OURS} files, but the "
            f"service may open {files}; lower it, or raise the limit (ulimit -n, LimitNOFILE=)"
        )
    return wanted or min(possible, MOST_CONNECTIONS)


def _files(wanted: int) -> int:
    """How many we may open: `wanted`, if that can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return wanted if soft == unlimited else soft
    soft = wanted if hard == unlimited else min(hard, wanted)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _line_of(server_conn: object) -> Line:
    return cast(Line, cast(HTTP1ServerConnection, server_conn).stream)


def _full() -> bytes:
    note = "the exchange has more visitors than it can serve; try again soon"
    body = json.dumps({"success": False, "note": note, "value": []}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
        f"Content-Type: application/json; charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_FULL = _full()
