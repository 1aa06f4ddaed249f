"""What a database's errors mean: try again, come back later, or its disk is full."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc

from nbexchange.errors import NbExchangeError, StoreFull, Unavailable

log = logging.getLogger(__name__)

_LOST_TO_ANOTHER = (
    "40001",  # PostgreSQL: serialization failure
    "40P01",  # PostgreSQL: deadlock
    1020,  # MariaDB: the row has changed since it was read
    1213,  # MariaDB, MySQL: deadlock
)

_DISK_FULL = (
    sqlite3.SQLITE_FULL,
    "53100",  # PostgreSQL
    # MariaDB, MySQL: error writing a file, disk full, error writing a file, table full
    3,
    1021,
    1026,
    1114,
)


def lost_to_another_writer(error: exc.DBAPIError) -> bool:
    """Whether the same verb may well succeed when it runs again."""
    return isinstance(error, exc.IntegrityError) or _says(error.orig, _LOST_TO_ANOTHER)


@contextlib.contextmanager
def known_errors() -> Iterator[None]:
    """Raises Unavailable when the database is away and StoreFull when its disk is full."""
    try:
        yield
    except NbExchangeError:
        raise
    except exc.TimeoutError as error:
        log.error("no connection to the database became free: %s", error)
        raise away() from error
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError) as error:
        # InternalError is, besides faults of the database's own, one that may only be read
        # while another takes over.
        if _says(error.orig, _DISK_FULL):
            log.error("the database's disk is full")
            raise StoreFull(
                "the exchange's disk is full, so nothing was stored; tell your instructor"
            ) from error
        log.error("the database is away: %s", error.orig)
        raise away() from error
    except exc.DatabaseError as error:
        # The class itself is a file that is harmed or no database; its subclasses are our faults.
        if type(error) is not exc.DatabaseError:
            raise
        log.error("the database cannot be read: %s", error.orig)
        raise away() from error


def away() -> Unavailable:
    return Unavailable("the exchange's database is away for now; try again soon")


def _says(orig: Any, codes: tuple[str | int, ...]) -> bool:
    """psycopg has a `sqlstate`, sqlite3 a number, pymysql its number as the first argument."""
    said = (
        getattr(orig, "sqlstate", None),
        getattr(orig, "sqlite_errorcode", None),
        *getattr(orig, "args", ())[:1],
    )
    return any(code in codes for code in said)
