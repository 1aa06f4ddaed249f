"""A line between a client and a service that stands still, or breaks, where a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from tests.support.parts import PATIENCE

PIECE = 16 * 1024
BUFFER = 64 * 1024
"""Bytes: the system's own would take megabytes of a body before its sender noticed anything."""


class Cut(Exception):
    """Raised by `behave` to break a connection."""


class Line:
    """Listens from `with` to its end, and passes on all bytes.

    `behave` gets the number of the connection, from 1, and how many bytes of the client went
    through it, and may sleep, wait, or raise Cut.
    """

    def __init__(self, url: str, behave: Callable[[int, int], None]) -> None:
        parts = urlsplit(url)
        self._target = parts.port
        self._behave = behave
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self.port}"))
        self.passed: list[int] = []
        """Bytes of the client that went through each connection."""
        self.received: list[int] = []
        """The same with those that stand still."""
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()

    def stand_still(self) -> None:
        """For `behave`: until the end."""
        self._over.wait(PATIENCE)
        raise Cut

    def __enter__(self) -> Line:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for ours in (self._listener, *self._sockets):
            _break(ours)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                service = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
                service.settimeout(None)
                self._sockets += [client, service]
                self.passed.append(0)
                self.received.append(0)
                number = len(self.passed)
                for work in (self._up, self._down):
                    threading.Thread(
                        target=work, args=(number, client, service), daemon=True
                    ).start()

    def _up(self, number: int, client: socket.socket, service: socket.socket) -> None:
        with contextlib.suppress(OSError, Cut):
            while piece := client.recv(PIECE):
                self.received[number - 1] += len(piece)
                self._behave(number, self.passed[number - 1])
                service.sendall(piece)
                self.passed[number - 1] += len(piece)
        _break(service)
        _break(client)

    def _down(self, _number: int, client: socket.socket, service: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := service.recv(PIECE):
                client.sendall(piece)
        _break(client)


def _break(ours: socket.socket) -> None:
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    ours.close()


def stalls(*places: int, seconds: float) -> Callable[[int, int], None]:
    """For `behave`: stand still once at each of so many bytes, whatever connection gets there."""
    left = sorted(places)

    def behave(_number: int, passed: int) -> None:
        if left and passed >= left[0]:
            left.pop(0)
            time.sleep(seconds)

    return behave
