"""Long lists in batches: first the keys of all rows, then the rows of some keys at a time.

So a list shows one moment, each batch is a lookup by primary key however long the list is, and a
list needs twelve bytes of memory for each row, and one batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, Text, cast, func
from sqlalchemy.orm import Session

T = TypeVar("T")

BATCH_ROWS = 500
BATCH_CHARACTERS = 64 * 1024
"""Limit for the long columns of a batch together. A longer row is a batch of its own."""

Query = Select[*tuple[Any, ...]]


class Walk(Generic[T]):
    """The records of a list, in its order. `read` returns some of them by their keys, in any order.

    `read` must check again that the caller may see them: a client may read for hours, and SQLite
    gives the keys of erased rows to new rows, also of other organisations.
    """

    def __init__(
        self,
        rows: Iterable[tuple[int, int]],
        read: Callable[[Session, Sequence[int]], dict[int, T]],
    ) -> None:
        """`rows`: the key of each row, and the number of characters in its long columns."""
        self._keys, self._sizes = array("q"), array("l")
        for key, size in rows:
            self._keys.append(key)
            self._sizes.append(size)
        self._read = read
        self._position = 0

    @classmethod
    def over(cls, records: Mapping[int, T]) -> Walk[T]:
        """A walk over records that are in memory already."""
        return cls(
            ((key, 0) for key in records), lambda _, keys: {key: records[key] for key in keys}
        )

    @property
    def is_over(self) -> bool:
        return self._position == len(self._keys)

    def take(self, session: Session) -> list[T]:
        """The next batch, without the rows that were erased since the walk began."""
        keys = self._next_keys()
        records = self._read(session, keys) if keys else {}
        return [records[key] for key in keys if key in records]

    def _next_keys(self) -> Sequence[int]:
        begin = self._position
        stop = min(begin + BATCH_ROWS, len(self._keys))
        size = 0
        while self._position < stop and (size == 0 or size < BATCH_CHARACTERS):
            size += self._sizes[self._position]
            self._position += 1
        return self._keys[begin : self._position]


def keys_of(query: Query, key: Any, long_column: Any) -> Query:
    """The same query with the columns that a `Walk` starts with."""
    return query.with_only_columns(key, _characters(long_column))


def _characters(column: Any) -> ColumnElement[int]:
    return func.length(cast(column, Text()))


def unindexed(number: Any) -> ColumnElement[int]:
    """The same value, but no index is used for it.

    SQLite has no statistics. For rows with known keys or tokens it would start with the index of an
    organisation or an assignment, and read all of its rows.
    """
    expression: ColumnElement[int] = number + 0
    return expression
