"""What each database says in words of its own."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Table, UniqueConstraint, select, text
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


def queue_up(session: Session, number: int, *, alone: bool) -> None:
    """Wait one's turn for a row that some share and others want alone, before it is locked.

    MariaDB grants locks of rows in the order of arrival. On PostgreSQL those that share a row pass
    the one that wants it alone for as long as they come; its advisory locks have an order.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_QUEUE[alone], {"number": number % 2**31})


_QUEUE = {
    False: text("SELECT pg_advisory_xact_lock_shared(hashtext('nbexchange row'), :number)"),
    True: text("SELECT pg_advisory_xact_lock(hashtext('nbexchange row'), :number)"),
}


def insert_if_absent(session: Session, table: type[DeclarativeBase], **values: Any) -> None:
    """Insert a row unless one with the same unique key is there, also when two do it at once."""
    dialect = session.get_bind().dialect.name
    if dialect in ("mysql", "mariadb"):
        # INSERT IGNORE would also swallow values that do not fit.
        row = mysql.insert(table).values(**values)
        session.execute(row.on_duplicate_key_update(id=table.__table__.c.id))
    elif dialect == "postgresql":
        # By name: a number that is taken, as where a sequence was not restored, is a fault.
        new = postgresql.insert(table).values(**values)
        session.execute(new.on_conflict_do_nothing(constraint=_unique_key(table)))
    else:
        session.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())


def _unique_key(table: type[DeclarativeBase]) -> UniqueConstraint:
    """The only one besides the primary key."""
    assert isinstance(table.__table__, Table)
    (key,) = (
        constraint
        for constraint in table.__table__.constraints
        if isinstance(constraint, UniqueConstraint)
    )
    return key
