"""multipart/form-data, for old clients: one file among any number of small fields, as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from nbexchange.errors import Malformed

MOST_PARTS = 20_000
"""Old clients name each notebook in a part of its own."""

LONGEST_FIELD = 64 * 1024

AT_A_TIME = 100
"""Pieces of a form before others have their turn: 20,000 small parts fit into what is read at
once, and took 97 ms."""


def is_multipart(content_type: str) -> bool:
    return bool(parse_options_header(content_type)[0] == "multipart/form-data")


class MultipartFile:
    """Passes on the bytes of the file called `name` and lets the other parts go by."""

    def __init__(
        self, content_type: str, name: str, write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._name = name
        self._write = write
        self._part: MultipartSegment | None = None
        self._found = False
        options = parse_options_header(content_type)[1]
        try:
            self._parser = PushMultipartParser(
                options.get("boundary", ""), max_segment_count=MOST_PARTS
            )
        except MultipartError as error:
            raise _malformed(error) from error

    async def feed(self, chunk: bytes) -> None:
        try:
            for number, event in enumerate(self._parser.parse(chunk), start=1):
                if number % AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if isinstance(event, MultipartSegment):
                    self._open(event)
                elif event is None:
                    self._part = None
                elif self._is_file():
                    await self._write(bytes(event))
                elif self._part and self._part.bytes_received > LONGEST_FIELD:
                    raise Malformed(f"the form's field {self._part.name!r} is too long")
        except MultipartError as error:
            raise _malformed(error) from error

    def close(self) -> None:
        """The body is over. Raises Malformed when it was cut, or had no such file."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise _malformed(error) from error
        if not self._found:
            raise Malformed(f"the form has no file called {self._name!r}")

    def _open(self, part: MultipartSegment) -> None:
        self._part = part
        if self._is_file():
            if self._found:
                raise Malformed(f"the form has more than one file called {self._name!r}")
            self._found = True

    def _is_file(self) -> bool:
        return self._part is not None and self._part.name == self._name


def _malformed(error: MultipartError) -> Malformed:
    return Malformed(f"the form in the request is not whole or not well made ({error})")
