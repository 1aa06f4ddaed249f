"""Long answers, piece by piece: memory holds one piece, however long the answer is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple, Protocol

from sqlalchemy.orm import Session

from nbexchange.exchange.walks import Walk
from nbexchange.handlers.base import BaseHandler
from nbexchange.server.rate_limits import Lease

PIECE = 256 * 1024
"""Bytes after which a piece is sent; it is longer by one batch at most."""

encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

REST_AFTER = 0.25
"""Seconds of work on an answer after which it rests as long as each piece took, because others need
the interpreter too."""


class Piece(NamedTuple):
    text: bytes
    is_last: bool


class Pieces(Protocol):
    """An answer, as pieces of JSON."""

    def next(self, session: Session) -> Piece: ...


class ListHandler(BaseHandler):
    """Answers with a list of any length."""

    async def answer(self, begin: Callable[[Session], Pieces]) -> None:
        """Read a piece in a transaction of its own, send it, and so on.

        It is the person's turn until the answer has left and the last thread has ended: a list that
        nobody reads stays in memory, and a statement may go on when its request was refused.
        """
        turn = Lease(await self.services.rate_limiter.lists.take(self.person))
        self.leases.callback(turn.hold())

        def read_first(session: Session) -> tuple[Pieces, Piece]:
            pieces = begin(session)
            return pieces, pieces.next(session)

        scan = self.services.database.scan
        pieces, piece = await scan(read_first, turn.hold())
        with self.whole_or_cut():
            worked = 0.0
            while not piece.is_last:
                await self._send(piece)
                begun = monotonic()
                piece = await scan(pieces.next, turn.hold())
                took = monotonic() - begun
                worked += took
                if worked > REST_AFTER:
                    await asyncio.sleep(took)
            self.bytes_sent += len(piece.text)
            await self.finish(piece.text)

    async def _send(self, piece: Piece) -> None:
        if self.request.version == "HTTP/1.0":
            # Without chunks or a length, only the end of the connection ends the answer.
            self._connection._disconnect_on_finish = True
        self.write(piece.text)
        self.bytes_sent += len(piece.text)
        await self.flush()


class Whole:
    """An answer of a bounded size, as one piece."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer

    def next(self, session: Session) -> Piece:
        return Piece(encode(self._answer).encode(), is_last=True)


class Entries:
    """`{"success": true, <head>, "value": [<entries>]}`; each walk's records with its shape."""

    def __init__(
        self,
        head: Mapping[str, Any],
        parts: Iterable[tuple[Walk[Any], Callable[[Any], Mapping[str, Any]]]],
    ) -> None:
        self._opening = f'{encode({"success": True, **head})[:-1]},"value":['
        self._between = ""
        self._parts = list(parts)

    def next(self, session: Session) -> Piece:
        texts, size = [self._opening], 0
        self._opening = ""
        while self._parts and size < PIECE:
            for text in self._batch(session):
                texts.append(self._between + text)
                self._between = ","
                size += len(text)
        if self._parts:
            return Piece("".join(texts).encode(), is_last=False)
        return Piece("".join([*texts, "]}"]).encode(), is_last=True)

    def _batch(self, session: Session) -> Sequence[str]:
        walk, shape = self._parts[0]
        records = walk.take(session)
        if walk.is_over:
            self._parts.pop(0)
        # One by one: the encoder does not let other threads run before it is done.
        return [encode(shape(record)) for record in records]
