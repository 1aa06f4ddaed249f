"""What each database says in words of its own."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from nbexchange.columns import Moment


class DatabaseClock(expression.FunctionElement[datetime.datetime]):
    """The one clock: the database's own, in UTC and microseconds."""

    type = Moment()
    inherit_cache = True


@compiles(DatabaseClock, "sqlite")
def _sqlite_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    return "nbexchange_clock()"


@compiles(DatabaseClock, "postgresql")
def _postgresql_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    # now() stands still during a transaction, which may have waited for a lock.
    return "timezone('utc', clock_timestamp())"


@compiles(DatabaseClock, "mysql")
@compiles(DatabaseClock, "mariadb")
def _mysql_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    return "utc_timestamp(6)"


def clock(session: Session) -> datetime.datetime:
    return session.execute(select(DatabaseClock())).scalar_one()


def insert_if_absent(session: Session, table: type[DeclarativeBase], **values: Any) -> None:
    """Insert a row unless one with the same unique key is there, also when two do it at once."""
    dialect = session.get_bind().dialect.name
    if dialect in ("mysql", "mariadb"):
        # INSERT IGNORE would also swallow values that do not fit.
        row = mysql.insert(table).values(**values)
        session.execute(row.on_duplicate_key_update(id=table.__table__.c.id))
    elif dialect == "postgresql":
        session.execute(postgresql.insert(table).values(**values).on_conflict_do_nothing())
    else:
        session.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())
