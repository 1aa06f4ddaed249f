"""SQL that differs between databases."""

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
    """The database's clock, in UTC and microseconds. No other clock counts."""

    type = Moment()
    inherit_cache = True


@compiles(DatabaseClock, "sqlite")
def _sqlite_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    return "nbexchange_clock()"


@compiles(DatabaseClock, "postgresql")
def _postgresql_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    # now() is constant during a transaction, which may have waited for a lock.
    return "timezone('utc', clock_timestamp())"


@compiles(DatabaseClock, "mysql")
@compiles(DatabaseClock, "mariadb")
def _mysql_clock(element: DatabaseClock, compiler: SQLCompiler, **kw: Any) -> str:
    return "utc_timestamp(6)"


def clock(session: Session) -> datetime.datetime:
    return session.execute(select(DatabaseClock())).scalar_one()


def queue_up(session: Session, number: int, *, alone: bool) -> None:
    """Wait in line before locking a row that some transactions share and others lock exclusively.

    MariaDB grants row locks in the order of arrival. On PostgreSQL a constant flow of shared locks
    would starve an exclusive one. Its advisory locks are granted in order.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_QUEUE[alone], {"number": number % 2**31})


_QUEUE = {
    False: text("SELECT pg_advisory_xact_lock_shared(hashtext('nbexchange row'), :number)"),
    True: text("SELECT pg_advisory_xact_lock(hashtext('nbexchange row'), :number)"),
}


def insert_if_absent(session: Session, table: type[DeclarativeBase], **values: Any) -> None:
    """Insert a row unless one with the same unique key exists, also when two do it at once."""
    dialect = session.get_bind().dialect.name
    if dialect in ("mysql", "mariadb"):
        # INSERT IGNORE would also hide errors about values that do not fit.
        row = mysql.insert(table).values(**values)
        session.execute(row.on_duplicate_key_update(id=table.__table__.c.id))
    elif dialect == "postgresql":
        # By name: a primary key that is taken (a sequence that was not restored) must be an error.
        new = postgresql.insert(table).values(**values)
        session.execute(new.on_conflict_do_nothing(constraint=_unique_key(table)))
    else:
        session.execute(sqlite.insert(table).values(**values).on_conflict_do_nothing())


def _unique_key(table: type[DeclarativeBase]) -> UniqueConstraint:
    """The table's only unique constraint besides the primary key."""
    assert isinstance(table.__table__, Table)
    (key,) = (
        constraint
        for constraint in table.__table__.constraints
        if isinstance(constraint, UniqueConstraint)
    )
    return key
