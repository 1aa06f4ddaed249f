"""Where the next page of a history begins, as a text that reveals nothing about other rows.

A cursor holds the number of an event, encrypted and authenticated together with the query. So an
invented cursor, or a cursor of another query, is refused. The event is not looked up: if it was
purged, its cursor still leads to the events before it.
"""

from __future__ import annotations

import hmac
import json
import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from nbexchange.errors import Malformed
from nbexchange.models import Secret

_TAG, _NUMBER = 16, 8
"""Bytes of each part."""
_CURSOR = re.compile(f"[0-9a-f]{{{2 * (_TAG + _NUMBER)}}}")


class Cursors:
    """The cursors of one query. All replicas share one secret, so a cursor is valid on each."""

    def __init__(self, session: Session, *question: int | str | None) -> None:
        self._secret = session.execute(select(Secret.value)).scalar_one().encode()
        self._question = question

    def to_text(self, number: int) -> str:
        tag = self._tag(number)
        return (tag + self._masked(number, tag).to_bytes(_NUMBER)).hex()

    def to_number(self, text: str) -> int:
        """Raises Malformed for a text that is not a cursor of this query."""
        if _CURSOR.fullmatch(text) is None:
            raise no_such_page()
        cursor = bytes.fromhex(text)
        tag, masked = cursor[:_TAG], int.from_bytes(cursor[_TAG:])
        number = self._masked(masked, tag)
        if not hmac.compare_digest(tag, self._tag(number)):
            raise no_such_page()
        return number

    # The mask is derived from the tag, so no two numbers share a mask, and no random number is
    # needed (a synthetic initialisation vector, as in RFC 5297).

    def _tag(self, number: int) -> bytes:
        return self._digest("tag", *self._question, number)[:_TAG]

    def _masked(self, number: int, tag: bytes) -> int:
        return number ^ int.from_bytes(self._digest("mask", tag.hex())[:_NUMBER])

    def _digest(self, *parts: int | str | None) -> bytes:
        return hmac.digest(self._secret, json.dumps(parts).encode(), "sha256")


def no_such_page() -> Malformed:
    return Malformed("This list does not have the requested page. Start again without `page`.")
