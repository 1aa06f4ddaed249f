"""How much a database did for a transaction, in a number that does not depend on the machine.

MariaDB and PostgreSQL count rows and entries of indexes that were read; SQLite counts the steps of
its virtual machine, some ten for each row. So only numbers of one database can be compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

STEPS = 20
"""SQLite tells us each time that a statement did so many; what is left over at its end is lost."""


@contextlib.contextmanager
def rolled_back(engine: Engine) -> Iterator[Connection]:
    """In a transaction that may write, and leaves nothing."""
    with engine.execution_options(nbexchange_writes=True).connect() as connection:
        connection.begin()
        try:
            yield connection
        finally:
            connection.rollback()


def work_of(engine: Engine, verb: Callable[[Session], Any]) -> int:
    """Of a verb, which is then rolled back."""
    with rolled_back(engine) as connection, Session(connection) as session:

        def run() -> None:
            verb(session)
            session.flush()

        return _COUNTERS[engine.dialect.name](connection, run)


def _steps(connection: Connection, run: Callable[[], None]) -> int:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += STEPS

    raw: Any = connection.connection.dbapi_connection
    raw.set_progress_handler(count, STEPS)
    try:
        run()
    finally:
        raw.set_progress_handler(None, 0)
    return steps


def _difference(question: str) -> Callable[[Connection, Callable[[], None]], int]:
    """Two answers, before and after; asking counts itself, always by the same."""

    def ask(connection: Connection) -> int:
        return int(connection.execute(text(question)).scalar_one())

    def count(connection: Connection, run: Callable[[], None]) -> int:
        ask(connection)
        first = ask(connection)
        second = ask(connection)
        run()
        return ask(connection) - second - (second - first)

    return count


_POSTGRESQL = """
SELECT sum(pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid))
FROM pg_class WHERE relnamespace = 'public'::regnamespace
"""
_MARIADB = """
SELECT sum(variable_value) FROM information_schema.session_status
WHERE variable_name LIKE 'Handler_read%'
"""
_COUNTERS: dict[str, Callable[[Connection, Callable[[], None]], int]] = {
    "sqlite": _steps,
    "postgresql": _difference(_POSTGRESQL),
    "mysql": _difference(_MARIADB),
    "mariadb": _difference(_MARIADB),
}
