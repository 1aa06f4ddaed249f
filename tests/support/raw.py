"""HTTP by hand: requests that stop in the middle, and answers that come too early."""

from __future__ import annotations

import http.client
import json
import select
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.service import PATIENCE


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """One TCP connection to a service. Nothing is sent that a test did not ask for."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self._path = parts.path
        self._host = parts.netloc
        self._token = token
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE)

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        self.socket.sendall(b"".join(pieces))

    def head(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        **params: Any,
    ) -> bytes:
        """The bytes of a request's head; a list of headers may name one twice."""
        lines = [f"{method} {self._path}/{path}?{urlencode(params)} HTTP/1.1"]
        lines.append(f"Host: {self._host}")
        if self._token is not None:
            lines.append(f"Authorization: Bearer {self._token}")
        pairs = headers.items() if isinstance(headers, dict) else headers or ()
        lines += [f"{name}: {value}" for name, value in pairs]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def answer(self) -> RawAnswer:
        """Wait for one whole answer; IncompleteRead where it is cut."""
        response = http.client.HTTPResponse(self.socket)
        try:
            response.begin()
            return RawAnswer(response.status, response.headers, response.read())
        finally:
            response.close()

    def first_line(self) -> bytes:
        """The status line of the next answer, also of one that is not final."""
        line = b""
        while not line.endswith(b"\r\n"):
            piece = self.socket.recv(1)
            assert piece, "the connection was closed"
            line += piece
        return line.rstrip()

    def hears_within(self, seconds: float) -> bool:
        """Whether the other side says something, or closes, until then."""
        poll = select.poll()  # select() takes no number above 1,023
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def is_closed(self) -> bool:
        """Wait until the other side closes."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def reset(self) -> None:
        """Break off without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def chunk(data: bytes) -> bytes:
    """One piece of a body with `Transfer-Encoding: chunked`."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


LAST_CHUNK = chunk(b"")
