"""Column types with the same meaning in every database."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, String, types
from sqlalchemy.dialects import mysql

from nbexchange.identity import LONGEST_NAME

# SQLite numbers rows automatically only if the column type is exactly INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")


class Name(types.TypeDecorator[str]):
    """Text that is compared byte by byte in every database.

    For the text collations of MariaDB and MySQL, 'Bob', 'bob ' and 'bób' are equal, which would
    make three people one. There the text is stored as UTF-8 bytes.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int = LONGEST_NAME) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        if _is_mysql(dialect):
            # A character has at most four bytes.
            return dialect.type_descriptor(mysql.VARBINARY(4 * self.length))
        return dialect.type_descriptor(String(self.length))

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], Any] | None:
        return _encoded if _is_mysql(dialect) else None

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[bytes | None], str | None] | None:
        # None avoids a function call for each of the tens of thousands of names in a long list.
        return _decoded if _is_mysql(dialect) else None


def _is_mysql(dialect: Dialect) -> bool:
    return dialect.name in ("mysql", "mariadb")


def _encoded(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


class Moment(types.TypeDecorator[datetime.datetime]):
    """An instant: UTC, microseconds. Aware in Python, without a zone in the database."""

    impl = types.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        if _is_mysql(dialect):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(types.DateTime())

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        return value.astimezone(datetime.UTC).replace(tzinfo=None) if value else None

    def process_result_value(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        return value.replace(tzinfo=datetime.UTC) if value else None
