"""Translate a database's errors: run the verb again, Unavailable, or StoreFull."""

from __future__ import annotations

import contextlib
import errno
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

_STOPPED = (
    sqlite3.SQLITE_INTERRUPT,
    "57014",  # PostgreSQL: statement_timeout, or an administrator
    1969,  # MariaDB: max_statement_time
    3024,  # MySQL: max_execution_time
)

_LOCKED = (
    sqlite3.SQLITE_BUSY,
    "55P03",  # PostgreSQL: lock_timeout
    1205,  # MariaDB, MySQL: innodb_lock_wait_timeout, lock_wait_timeout
)

_NO_TABLE = (  # while an administrator restores a backup
    "42P01",  # PostgreSQL
    "42704",  # PostgreSQL, which restores constraints after the rows
    1146,  # MariaDB, MySQL
)

_ONLY_READ = (
    sqlite3.SQLITE_READONLY,
    "25006",  # PostgreSQL: a standby, or default_transaction_read_only
    # MariaDB, MySQL: read_only, a transaction that is READ ONLY, innodb_read_only
    1290,
    1792,
    1836,
)


def lost_to_another_writer(error: exc.DBAPIError) -> bool:
    """Whether the same verb may well succeed when it runs again."""
    return isinstance(error, exc.IntegrityError) or has_code(error.orig, _LOST_TO_ANOTHER)


def can_only_read(orig: Any) -> bool:
    """Whether the driver's error means that the server or the session is read-only."""
    return has_code(orig, _ONLY_READ)


@contextlib.contextmanager
def known_errors(*, in_list: bool = False) -> Iterator[None]:
    """Raises Unavailable when the database is unavailable and StoreFull when its disk is full.

    Set `in_list` if the caller can ask for less at a time.
    """
    try:
        yield
    except NbExchangeError:
        raise
    except exc.TimeoutError as error:
        log.error("No connection to the database became free: %s", error)
        raise unavailable() from error
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError) as error:
        # InternalError is a fault of the database itself, or an attempt to write while read-only.
        if _is_disk_full(error.orig):
            log.error("The database's disk is full.")
            raise StoreFull(
                "The exchange's disk is full, so nothing was stored. Contact your administrator."
            ) from error
        if has_code(error.orig, _STOPPED):
            log.error("The database stopped a statement that took too long: %s", error.orig)
            raise (too_long() if in_list else busy()) from error
        if has_code(error.orig, _LOCKED):
            log.error("The database kept a statement waiting for a lock too long: %s", error.orig)
            raise busy() from error
        if can_only_read(error.orig):
            log.error("The database is read-only: %s", error.orig)
            raise only_read() from error
        log.error("The database is unavailable: %s", error.orig)
        raise unavailable() from error
    except exc.DatabaseError as error:
        # The class itself means a corrupt file or a file that is not a database; its subclasses
        # are programming errors.
        if type(error) is not exc.DatabaseError and not has_code(error.orig, _NO_TABLE):
            raise
        log.error("The database cannot be read: %s", error.orig)
        raise unavailable() from error


def _is_disk_full(orig: Any) -> bool:
    return has_code(orig, _DISK_FULL) or (
        # MariaDB, MySQL: an error of the storage engine, with the operating system's error number
        has_code(orig, (1030,)) and f"error {errno.ENOSPC} " in str(orig)
    )


def unavailable() -> Unavailable:
    return Unavailable("The exchange's database is unavailable. Try again shortly.")


def busy() -> Unavailable:
    return Unavailable("The exchange's database is too busy. Try again shortly.")


def only_read() -> Unavailable:
    return Unavailable(
        "The exchange's database is read-only at the moment, so nothing was stored. Try again "
        "shortly."
    )


def too_long() -> Unavailable:
    return Unavailable(
        "The database stopped this request because it took too long. Ask for less at a time (one "
        "course, one assignment, or pages with `limit`), or try again shortly."
    )


def has_code(orig: Any, codes: tuple[str | int, ...]) -> bool:
    """Whether a driver's error has one of these codes.

    psycopg has `sqlstate`, sqlite3 has a number, and pymysql's number is the first argument."""
    present = (
        getattr(orig, "sqlstate", None),
        getattr(orig, "sqlite_errorcode", None),
        *getattr(orig, "args", ())[:1],
    )
    return any(code in codes for code in present)
