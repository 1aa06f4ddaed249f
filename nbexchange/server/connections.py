"""Connections: how many there may be, and how slow one may be.

An idle connection costs a file descriptor and some memory, so the number of connections is limited
and stalled ones are closed. Time counts against a client only while we wait for it: neither while
its turn has not come, nor while our disk or database is slow.

Tornado has no such limits. Its time for a header begins when the request before it is over, and its
time for a body is one for all bodies, however large; a reader that stops may stop for ever.

A connection that sends a little at a time, such as a byte in each packet or in each chunk, costs as
much processor time as one that sends a thousand times more. Such connections share a slow lane, so
that all of them together take a bounded part of the event loop.
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
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Never, cast

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
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from traitlets import Float, HasTraits, Integer

from nbexchange import timeouts
from nbexchange.errors import Misconfigured
from nbexchange.server.metrics import Metrics

log = logging.getLogger(__name__)

LONGEST_HEADER = 32 * 1024
MOST_HEADER_LINES = 100
"""More than any proxy or browser sends. 20,000 short lines took 60 ms to parse, in which
no other client got an answer."""

LONGEST_READ = 64 * 1024
"""A header longer than LONGEST_HEADER gets a refusal; one longer than this is cut without one."""

MOST_CONNECTIONS = 4000
"""Unless an operator says otherwise; each takes some 20 kB of memory while it waits."""

FILES_OF_OURS = 130
"""Descriptors for all but clients: databases, files that are written and checked, logs, and the
connections that are reserved."""

FEWEST_FILES = 200

LONGEST_CHUNK_LINE = 64
SMALL_CHUNKS = 256
LEAST_CHUNK = 64
"""A body may come in that many chunks of any size. After those, an average of less than LEAST_CHUNK
bytes is refused: no client is known that sends such a body, and reading it costs 50 times more."""

CREDIT = 4 * 1024
EVENT_COST = 1024
READ_COST = 128
"""What a connection may do before it is sent to the slow lane, in bytes: each byte that it sends
pays 1. A packet costs as much processor time as eight reads from memory."""

REQUEST_PAYS = 2 * EVENT_COST
"""A whole header pays for the packets that it came in."""

PIPELINED_COST = 2 * CREDIT
"""For a request that came before the answer to the previous one. Neither proxies nor nbgrader's
clients send any."""

SLICE = 4 * 1024
SLICE_SECONDS = 0.002
"""How far a connection gets in the slow lane before the next one, and when that is. A slice takes
about 0.3 ms."""

AT_A_TIME = 128
"""Connections accepted before others get a turn."""

RESERVED = 32
"""Connections beyond the limit. Their requests are read, but only those of probes and scrapers get
an answer other than 503."""

RESERVED_AT_A_TIME = RESERVED // 4
"""Of these accepted before others get a turn: a probe's request comes within two turns, so it is
here before its connection is the oldest."""

SEND_BUFFER = 128 * 1024
"""Bytes; the system doubles it, and left alone it lets 4 MB gather. It reports free space when
a third is free, so a reader of 40 kB/s would look silent for half a minute at a time."""

REST_SECONDS = 1.0
"""How long no connection is accepted after the system had no more descriptors."""

YOUNG_SECONDS = 1.0
"""A connection that has waited for less is not closed for another."""

MOST_LEAVING = 30
LEAVING_SECONDS = 1.0
"""How many who were turned away may read why, and for how long."""

_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_MALFORMED = b"HTTP/1.1 400 Bad Request\r\n\r\n"
"""Tornado's answer to bytes that are not HTTP, after which it closes. Replaced by one in words."""


@dataclass(frozen=True)
class ConnectionLimits:
    """In seconds and bytes; 0 for no limit."""

    header: float = timeouts.HEADER
    """From the first byte of a header to its last. The first header has to come at once."""
    silence: float = timeouts.SILENCE
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


class ConnectionOptions(HasTraits):
    """Options about how many connections there may be, and how slow one may be."""

    max_connections = Integer(
        0,
        min=0,
        help="""
        Connections at a time. Beyond, the one is closed that has been waiting longest for a request
        or for the rest of a refused body; without such a connection, the new one is answered 503.
        Requests of probes and metrics are answered in any case. 0: 4,000, or as many as the limit
        of open files allows, of which each takes two.
        """,
    ).tag(config=True)

    header_timeout = Float(
        ConnectionLimits().header,
        min=0,
        help="Seconds from the first byte of a request's header to its last. 0: 75.",
    ).tag(config=True)

    silence_timeout = Float(
        ConnectionLimits().silence,
        min=0,
        help="""
        Seconds without a byte of a body, or of an answer that is read, after which a connection
        is closed; and seconds that a refused body may take, after which it is answered. 0: for
        ever.
        """,
    ).tag(config=True)

    min_transfer_rate = Float(
        ConnectionLimits().rate,
        min=0,
        help="""
        Bytes a second that a body, or an answer, has to move over any stretch of twice
        silence_timeout; a telephone line moves 5,000. 0: any.
        """,
    ).tag(config=True)

    def connection_limits(self) -> ConnectionLimits:
        return ConnectionLimits(
            header=self.header_timeout,
            silence=self.silence_timeout,
            rate=self.min_transfer_rate,
            connections=most_connections(self.max_connections),
        )


class SlowLane:
    """Connections go on one after the other: one in a turn of the loop, `SLICE_SECONDS` apart."""

    def __init__(self) -> None:
        self._queue: deque[Callable[[], None]] = deque()
        self._is_busy = False

    def join(self, go_on: Callable[[], None]) -> None:
        self._queue.append(go_on)
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        self._is_busy = bool(self._queue)
        if self._is_busy:
            asyncio.get_running_loop().call_later(SLICE_SECONDS, self._next)
            self._queue.popleft()()


class ClientConnection(IOStream):
    """One client's connection, which counts what moves, and knows whether we wait for it."""

    def __init__(self, connection: socket.socket, server: Server, **kwargs: Any) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().__init__(connection, **kwargs)
        self._server = server
        self._limits = server.limits
        self._moved = self._seen = 0
        self._asks = False
        self.is_new = True
        """Whether it has not waited for its first request yet."""
        self.spare_since = time.monotonic()
        """When it began to wait for a request, or when its request was refused."""
        self._header_for: float | None = None
        """Seconds that a header has been on its way; at first less by what one look may add."""
        self._silent = 0.0
        self._lead = self._limits.longest_lead
        self._credit = CREDIT
        """Below 0 it goes on in the slow lane."""
        self._rests = False
        """Whether it waits there before it reads from the network."""
        self._is_pipelined = False
        """Whether the next request came before the answer to this one."""
        self._searched = 0
        """Bytes of a header that do not contain its end."""
        self._arrived = self._body_start = 0
        """Bytes from the client, and how many of them came before the body."""
        self._chunks = 0
        """Chunks of the body that have begun."""
        self.refusal: str | None = None
        """Why the connection was answered with 400 and closed, if it was."""
        self._answered_early = self._is_refused = False

    # -- what Tornado calls

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        count = super().read_from_fd(buf)
        self._moved += count or 0
        self._arrived += count or 0
        self._pay(count or 0)
        return count

    def write_to_fd(self, data: memoryview) -> int:
        count = super().write_to_fd(data)
        self._moved += count
        return count

    async def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> bytes:
        """A request's header. One that costs too much to put in order is a 400."""
        self._searched = 0
        if self._is_pipelined:
            self._credit -= PIPELINED_COST
            self._is_pipelined = False
        header = await self._paced(super().read_until_regex(regex, max_bytes))
        if len(header) > LONGEST_HEADER or header.count(b"\n") > MOST_HEADER_LINES:
            self._malformed("the header is too long")
        return header

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> asyncio.Future[bytes]:
        """The line before a chunk of a body, with its size."""
        self._chunks += 1
        body = self._taken - self._body_start
        if self._chunks > SMALL_CHUNKS and body < LEAST_CHUNK * self._chunks:
            self._malformed(
                "the body comes in too many small chunks; send it in chunks of 8 kB or more, or "
                "with a Content-Length"
            )
        reading = self._paced(super().read_until(delimiter, LONGEST_READ))
        if reading.done() and len(reading.result()) <= LONGEST_CHUNK_LINE:
            return reading
        return asyncio.ensure_future(self._chunk_line(reading))

    async def _chunk_line(self, reading: asyncio.Future[bytes]) -> bytes:
        line = await reading
        if len(line) > LONGEST_CHUNK_LINE:
            self._malformed("the size of a chunk of the body takes too many characters")
        return line

    def read_bytes(self, num_bytes: int, partial: bool = False) -> asyncio.Future[bytes]:  # noqa: FBT001, FBT002 (Tornado's)
        return self._paced(super().read_bytes(num_bytes, partial))

    def _find_read_pos(self) -> int | None:
        """Tornado searches the whole header again for each packet, which took 3 ms for 60 kB."""
        if self._read_regex is None:
            return super()._find_read_pos()
        ends = [self._end_after(mark) for mark in (b"\n\r\n", b"\n\n")]
        end = min(filter(None, ends), default=None)
        self._searched = max(0, self._read_buffer_size - 2)
        self._check_max_bytes(self._read_regex, end or self._read_buffer_size)
        return end

    def _end_after(self, mark: bytes) -> int:
        """0 where it is not there."""
        start = self._read_buffer.find(mark, self._searched)
        return start + len(mark) if start >= 0 else 0

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data == _MALFORMED:
            return asyncio.ensure_future(self._refuse())
        # Later is too late: a client that got its answer may send the next request at once.
        self._is_pipelined = self._read_buffer_size > 0
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:  # noqa: FBT002 (Tornado's)
        if self._answered_early and not self.closed():
            with contextlib.suppress(OSError):
                self._server.see_off(self.socket.dup())
        super().close(exc_info)

    def _malformed(self, why: str) -> Never:
        self.refusal = why
        raise HTTPInputError(why)

    async def _refuse(self) -> None:
        self.refusal = self.refusal or "the request is not HTTP as the exchange understands it"
        if await self._server.hold() and not self.closed():
            self.answers_early()
            await super().write(_answer("400 Bad Request", self.refusal))

    # -- the slow lane

    def _paced(self, reading: Awaitable[bytes]) -> asyncio.Future[bytes]:
        """The same, later if this connection has no credit. Bytes that are not here yet are paid
        for when they arrive."""
        assert isinstance(reading, asyncio.Future)
        if not reading.done():
            return reading
        self._credit -= READ_COST
        if reading.exception() is None:
            self._pay(len(reading.result()))
        return reading if self._credit >= 0 else asyncio.ensure_future(self._in_turn(reading))

    def _pay(self, count: int) -> None:
        self._credit = min(CREDIT, self._credit + count)

    async def _in_turn(self, reading: asyncio.Future[bytes]) -> bytes:
        while self._credit < 0:
            turn = asyncio.Event()
            self._server.lane.join(turn.set)
            await turn.wait()
            self._credit += SLICE
        return await reading

    def _handle_events(self, fd: Any, events: int) -> None:
        if events & IOLoop.READ and not self._rests:
            self._credit -= EVENT_COST
            if self._credit < 0:
                self._rests = True
                self._server.lane.join(self._go_on)
        if self._rests:
            events &= ~IOLoop.READ
        if events:
            super()._handle_events(fd, events)
        if self._rests:
            self._listen()

    def _go_on(self) -> None:
        self._rests = False
        self._credit += SLICE
        self._listen()

    def _listen(self) -> None:
        """For all that Tornado wants to know, but not for news from the client while it rests."""
        if not self.closed() and self._state is not None:
            hidden = IOLoop.READ if self._rests else 0
            self.io_loop.update_handler(self.fileno(), self._state & ~hidden)

    # -- what the server tells and asks

    def wait_for_request(self) -> None:
        """A request is over; another may come."""
        self.spare_since = time.monotonic()
        self._asks = self._is_refused = False
        self._header_for = -self._limits.longest_look if self.is_new else None
        self.is_new = False
        self._seen = self._moved

    def begin_request(self) -> None:
        """Its header is here."""
        self._asks = True
        self._seen = self._moved
        self._silent = 0.0
        self._lead = self._limits.longest_lead
        self._chunks = 0
        self._body_start = self._taken
        self._pay(REQUEST_PAYS)

    @property
    def _taken(self) -> int:
        return self._arrived - self._read_buffer_size

    def gives_way(self) -> None:
        """Its request is refused or answered, and only the client's bytes are waited for."""
        self.spare_since = time.monotonic()
        self._is_refused = True
        self._server.spare(self)

    @property
    def longest_refusal(self) -> float:
        """Seconds that a refused body may take before it is answered; 0 for no limit."""
        return self._limits.silence

    def answers_early(self) -> None:
        """The client gets an answer while it still sends. After that the connection is closed."""
        self._answered_early = True

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
        return self._header_for is not None and self._header_for > self._limits.header > 0

    def _stands_still(self, moved: int, seconds: float) -> bool:
        if not (self.reading() or self.writing()):
            return False  # it waits for us
        limits = self._limits
        if self._is_refused and time.monotonic() - self.spare_since > limits.longest_lead:
            return True
        self._silent = 0.0 if moved else self._silent + seconds
        if limits.rate:
            self._lead = min(limits.longest_lead, self._lead + moved / limits.rate) - seconds
        return self._silent > limits.silence > 0 or self._lead < 0


class _Request(HTTPMessageDelegate):
    """Reports when a header is complete; passes on the rest, unless the request is not let in."""

    def __init__(
        self,
        inner: HTTPMessageDelegate,
        is_let_in: Callable[[RequestStartLine, HTTPHeaders], bool],
    ) -> None:
        self._inner = inner
        self._is_let_in = is_let_in

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        if not self._is_let_in(cast(RequestStartLine, start_line), headers):
            self._inner = HTTPMessageDelegate()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


class Server(HTTPServer):
    """Serves at most so many connections, none of which stands still.

    When there are as many as there may be, the one gives way that has been spare for longest: it
    waits for a request, or its request is refused. Where none does, the new one is answered 503,
    unless it asks for one of `machines`.
    """

    def limit(
        self,
        limits: ConnectionLimits,
        hold: Callable[[], Awaitable[bool]],
        metrics: Metrics,
        machines: Collection[str],
    ) -> None:
        """`hold` lets a refusal wait its turn, or says that it is not worth an answer.

        `machines` are the paths for which there is always a connection.
        """
        self.limits = limits
        self.hold = hold
        self.lane = SlowLane()
        self._metrics = metrics
        self._machines = machines
        self._open: set[ClientConnection] = set()
        metrics.connections.set_function(lambda: len(self._open) - len(self._reserved))
        self._spare: dict[ClientConnection, None] = {}  # in the order in which they became so
        self._reserved: dict[ClientConnection, None] = {}  # those beyond the limit, oldest first
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
        left = AT_A_TIME
        while left > 0:
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
            is_usual = self._take(connection, address)
            left -= 1 if is_usual else AT_A_TIME // RESERVED_AT_A_TIME

    def _rest(self, listener: socket.socket, error: OSError) -> None:
        """The loop would call `_accept` again and again, and no other task would get a turn."""
        log.error("no connection can be accepted for now: %s", error.strerror)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(REST_SECONDS, self._accept_from, listener)
        self._make_room()

    def _take(self, connection: socket.socket, address: Any) -> bool:
        """False where it is one beyond the limit."""
        used = len(self._open) - len(self._reserved)
        if used < self.limits.connections or self._make_room():
            self._serve(connection, address)
            return True
        if len(self._reserved) < RESERVED or self._make_reserved_room():
            self._reserved[self._serve(connection, address)] = None
        else:
            self._turn_away(connection)
        return False

    def _serve(self, client: socket.socket, address: Any) -> ClientConnection:
        connection = ClientConnection(
            client,
            self,
            max_buffer_size=self.max_buffer_size,
            read_chunk_size=self.read_chunk_size,
        )
        self._open.add(connection)
        self.handle_stream(connection, address)
        return connection

    def _turn_away(self, connection: socket.socket) -> None:
        self._metrics.count_closed("full")
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_FULL)
        self.see_off(connection)

    def _turn_out(self, connection: ClientConnection) -> None:
        """The same for one that was let in."""
        self._forget(connection)
        with contextlib.suppress(OSError):
            self._turn_away(connection.socket.dup())
        connection.close()

    def see_off(self, connection: socket.socket) -> None:
        """Let a client read its answer. Closed at once, the connection would break under what is
        still on its way, and the answer would be lost."""
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        if len(self._leaving) >= MOST_LEAVING:
            self._leaving.popleft().close()
        self._leaving.append(connection)
        asyncio.get_running_loop().call_later(LEAVING_SECONDS, connection.close)

    def _make_room(self) -> bool:
        oldest = next((one for one in self._spare if one not in self._reserved), None)
        if oldest is None or time.monotonic() - oldest.spare_since < YOUNG_SECONDS:
            return False
        self._metrics.count_closed("idle")
        self._forget(oldest)
        oldest.close()
        return True

    def _make_reserved_room(self) -> bool:
        oldest = next((one for one in self._reserved if one in self._spare), None)
        if oldest is None:
            return False
        self._turn_out(oldest)
        return True

    # -- those who are here

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        connection = _connection_of(server_conn)
        if connection in self._reserved and not connection.is_new:
            connection.close()  # one request each
        connection.wait_for_request()
        self.spare(connection)
        is_let_in = functools.partial(self._begin, connection)
        return _Request(super().start_request(server_conn, request_conn), is_let_in)

    def spare(self, connection: ClientConnection) -> None:
        """It can be closed when another needs its place."""
        self._spare.pop(connection, None)
        if not connection.closed():
            self._spare[connection] = None

    def _begin(
        self, connection: ClientConnection, start_line: RequestStartLine, headers: HTTPHeaders
    ) -> bool:
        """A header is here; whether its request is let in."""
        self._spare.pop(connection, None)
        connection.begin_request()
        if connection not in self._reserved or self._is_of_machine(start_line, headers):
            return True
        self._turn_out(connection)
        return False

    def _is_of_machine(self, start_line: RequestStartLine, headers: HTTPHeaders) -> bool:
        has_body = "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
        return start_line.path.partition("?")[0] in self._machines and not has_body

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        self._forget(_connection_of(server_conn))

    def _forget(self, connection: ClientConnection) -> None:
        self._spare.pop(connection, None)
        self._reserved.pop(connection, None)
        self._open.discard(connection)

    async def _look(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(self.limits.tick)
            # If the loop was held up, nothing that they sent meanwhile was read.
            seconds = min(time.monotonic() - begun, self.limits.longest_look)
            for connection in [one for one in self._open if one.is_too_slow(seconds)]:
                log.debug("a connection is closed: it stands still")
                self._metrics.count_closed("slow")
                connection.close()


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


def _connection_of(server_conn: object) -> ClientConnection:
    return cast(ClientConnection, cast(HTTP1ServerConnection, server_conn).stream)


def _answer(status: str, note: str, *headers: str) -> bytes:
    """An answer without a handler, after which the connection is closed."""
    body = json.dumps({"success": False, "note": note, "value": []}).encode()
    lines = [
        f"HTTP/1.1 {status}",
        *headers,
        "Connection: close",
        "Content-Type: application/json; charset=UTF-8",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_FULL = _answer(
    "503 Service Unavailable",
    "The exchange has reached its connection limit. Try again shortly.",
    "Retry-After: 5",
)
