"""Types of columns that mean the same in every database."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, String, types
from sqlalchemy.dialects import mysql

from nbexchange.identity import LONGEST_NAME

# SQLite numbers rows by itself only where the column is exactly INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")


class Name(types.TypeDecorator[str]):
    """Text that is compared byte by byte in every database.

    MariaDB's and MySQL's text collations find 'Bob', 'bob ' and 'bób' equal, which would make
    one person of three; so there it is stored as UTF-8 bytes.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int = LONGEST_NAME) -> None:
        super().__init__(length)
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
            # Four bytes hold any character.
            return dialect.type_descriptor(mysql.VARBINARY(4 * self.length))
        return dialect.type_descriptor(String(self.length))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is not None and dialect.name in ("mysql", "mariadb"):
            return value.encode()
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return value.decode() if isinstance(value, bytes) else value


class Moment(types.TypeDecorator[datetime.datetime]):
    """An instant: UTC, microseconds. Aware in Python, without a zone in the database."""

    impl = types.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> types.TypeEngine[Any]:
        if dialect.name in ("mysql", "mariadb"):
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
