"""Engines: from a URL to connections with safe settings.

Every new connection to a server is checked for settings that lose committed data (durability.py),
because the server may have been restarted with other settings.
"""

from __future__ import annotations

import datetime
import math
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, exc
from sqlalchemy.engine import make_url

from nbexchange import timeouts
from nbexchange.database.durability import check_durability
from nbexchange.errors import Misconfigured

SQLITE_BUSY_SECONDS = timeouts.SQLITE
"""How long a write waits for another process; `connect_args` of db_kwargs can change it."""

READERS = 4
SCANNERS = 4
WRITERS = 6
"""Connections to a database server, from one process. They are separate, so that a writer that
waits for a lock does not delay readers, and a long list does not delay uploads, which read before
they write."""

STATEMENT_SECONDS = 4
"""How long a SELECT of a request may run on a server; on SQLite, the whole transaction. It is
shorter than the request's timeout, so that the thread is free again when the request is refused."""

SQLITE_STEPS = 10_000
"""SQLite instructions between two checks of the time; they take less than a millisecond."""

LOCK_SECONDS = 4
"""How long a verb waits for a locked row. It is shorter than the request's timeout, so that the
thread is free again when the request is refused."""

CONNECT_SECONDS = 5
SILENCE_SECONDS = 60
"""After this the connection to a silent server is closed. Requests are answered long before."""

_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
"""For URLs without a driver. SQLAlchemy's own defaults are drivers that are not installed."""


def make_engine(
    url: str,
    *,
    for_migrations: bool = False,
    for_requests: bool = False,
    writes_whole_pages: bool = False,
    **options: Any,
) -> Engine:
    """Raises Misconfigured for a URL that cannot be used.

    `for_migrations` sets no timeouts, because a server may work on a migration for hours.
    `for_requests` lets the database end each statement after STATEMENT_SECONDS.
    `writes_whole_pages` is the administrator's statement about the server's disks.
    """
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        kind = _Kind.of(parsed)
        connect_args = kind.connect_args | (kind.no_timeouts if for_migrations else {})
        connect_args |= options.get("connect_args", {})
        engine = create_engine(
            parsed, pool_pre_ping=True, **kind.options | options | {"connect_args": connect_args}
        )
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError, TypeError) as error:
        # The URL may hold a password; the error may hold the URL.
        missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
        raise Misconfigured(
            f"db_url needs the package {missing!r}: install nbexchange with its extra [postgresql]"
            if missing == "psycopg"
            else f"db_url or db_kwargs is not usable ({type(error).__name__})"
        ) from None
    if "@" in (parsed.host or ""):
        # A part of the password became part of the host name, and errors show the host name.
        raise Misconfigured("db_url is not usable: an @ in its password has to be written as %40")
    # Once: if the first connection succeeds, later errors are not caused by an option.
    event.listen(engine, "do_connect", _connect_first, once=True)
    if kind.on_connect:
        event.listen(engine, "connect", kind.on_connect)
    if kind is _SQLITE:
        event.listen(engine, "begin", _begin_sqlite)

    def check(connection: Any, record: object) -> None:
        check_durability(engine.dialect.name, connection, writes_whole_pages=writes_whole_pages)

    event.listen(engine, "connect", check)
    if kind.limit_locks and not for_migrations:
        event.listen(engine, "connect", kind.limit_locks)
    if for_requests:
        event.listen(engine, "connect", kind.limit_statements)
    return engine


def _connect_first(dialect: Dialect, record: object, args: Any, options: Any) -> Any:
    """A driver reports an unknown option only when it connects, each with an exception of its own.

    An unavailable server is an OperationalError with every driver.
    """
    dbapi = dialect.loaded_dbapi
    try:
        return dialect.connect(*args, **options)
    except (
        dbapi.ProgrammingError,
        TypeError,
        AttributeError,
        LookupError,
        ValueError,
        OSError,
    ) as error:
        # The message may quote a part of a password that was split at an & or an =.
        raise Misconfigured(
            f"{dialect.driver} cannot use db_url or db_kwargs ({type(error).__name__}); look at "
            "the options after the question mark of db_url, and at connect_args of db_kwargs"
        ) from None


# -- SQLite


def _refuse_memory(url: URL) -> None:
    database = url.database or ":memory:"
    if ":memory:" in database or "memory" in url.normalized_query.get("mode", ()):
        raise Misconfigured(
            "an SQLite database in memory loses all coursework at a restart; "
            "set db_url to a file: sqlite:////path/to/nbexchange.sqlite"
        )


def _open_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # The service issues BEGIN itself. sqlite3 would begin late and as a reader, and a reader that
    # becomes a writer can fail with SQLITE_BUSY at once, whatever the timeout is.
    connection.isolation_level = None
    connection.create_function("nbexchange_clock", 0, _system_clock)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Misconfigured(f"SQLite cannot use a write-ahead log here (it stays in {mode!r} mode)")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _system_clock() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("nbexchange_writes")
    connection.info[_DEADLINE] = time.monotonic() + STATEMENT_SECONDS
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_DEADLINE = "nbexchange_deadline"


def _limit_sqlite_statements(connection: sqlite3.Connection, record: Any) -> None:
    def is_over() -> bool:
        return bool(time.monotonic() > record.info.get(_DEADLINE, math.inf))

    connection.set_progress_handler(is_over, SQLITE_STEPS)


# -- MariaDB and MySQL


def _open_mysql(connection: Any, record: object) -> None:
    """Set the variables that change the meaning of our statements, whatever the server's defaults.

    sql_select_limit truncates every result without an error, so `gc` would delete the files of
    rows that it does not see, and lists would be incomplete. Without sql_big_selects the server
    refuses joins that it expects to be large. Without the checks it accepts rows that refer to
    nothing and keys that are not unique.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION sql_select_limit = 18446744073709551615, sql_big_selects = 1,"
            " foreign_key_checks = 1, unique_checks = 1"
        )


def _limit_mysql_locks(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        for name in ("innodb_lock_wait_timeout", "lock_wait_timeout"):
            cursor.execute(f"SET SESSION {name} = {LOCK_SECONDS}")


def _limit_mysql_statements(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        (version,) = cursor.fetchone()
        if "MariaDB" in version:
            cursor.execute(f"SET SESSION max_statement_time = {STATEMENT_SECONDS}")
        else:
            cursor.execute(f"SET SESSION max_execution_time = {1000 * STATEMENT_SECONDS}")


# -- PostgreSQL


def _open_postgresql(connection: Any, record: object) -> None:
    """Do not prepare statements behind a pooler such as PgBouncer.

    Each transaction may run in another session, where the same name can stand for a different
    prepared statement. A query would then return the result of another query.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    connection.commit()
    if backend != connection.info.backend_pid:  # a pooler reports process numbers of its own
        connection.prepare_threshold = None


def _limit_postgresql_locks(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    connection.commit()


def _limit_postgresql_statements(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
    connection.commit()


class _Kind:
    """The settings of one kind of database."""

    def __init__(
        self,
        limit_statements: Callable[[Any, Any], None],
        connect_args: dict[str, Any],
        options: dict[str, Any] | None = None,
        no_timeouts: dict[str, Any] | None = None,
        limit_locks: Callable[[Any, object], None] | None = None,
        on_connect: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.on_connect = on_connect
        self.limit_statements = limit_statements
        self.connect_args = connect_args
        self.options = options or {}
        self.no_timeouts = no_timeouts or {}
        self.limit_locks = limit_locks

    @staticmethod
    def of(url: URL) -> _Kind:
        """Raises Misconfigured for a database in memory and for unknown kinds."""
        name = url.get_backend_name()
        if name == "sqlite":
            _refuse_memory(url)
        if name not in _KINDS:
            raise Misconfigured(
                "db_url must name an SQLite file, or a MariaDB, MySQL or PostgreSQL database: "
                "sqlite:////path, mysql://user:password@host/name, postgresql://..."
            )
        return _KINDS[name]


_SERVER_OPTIONS: dict[str, Any] = {
    # The next statement of a verb sees rows that were committed while it waited. So it finds the
    # row that another transaction inserted first. By default, MariaDB would show the state at the
    # transaction's first statement.
    "isolation_level": "READ COMMITTED",
    "pool_size": max(READERS + SCANNERS, WRITERS),
    "pool_timeout": CONNECT_SECONDS,
}

_SQLITE = _Kind(_limit_sqlite_statements, {"timeout": SQLITE_BUSY_SECONDS}, on_connect=_open_sqlite)
_MYSQL = _Kind(
    _limit_mysql_statements,
    {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": SILENCE_SECONDS,
        "write_timeout": SILENCE_SECONDS,
    },
    _SERVER_OPTIONS,
    {"read_timeout": None, "write_timeout": None},
    _limit_mysql_locks,
    _open_mysql,
)
_POSTGRESQL = _Kind(
    _limit_postgresql_statements,
    {
        "connect_timeout": CONNECT_SECONDS,
        # Milliseconds, and below seconds: how long it takes to notice that a machine is gone.
        "tcp_user_timeout": 1000 * SILENCE_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "nbexchange",
        # A database in SQL_ASCII would return bytes, before it could be refused with a message.
        "client_encoding": "UTF8",
    },
    _SERVER_OPTIONS,
    limit_locks=_limit_postgresql_locks,
    on_connect=_open_postgresql,
)
_KINDS = {"sqlite": _SQLITE, "mysql": _MYSQL, "mariadb": _MYSQL, "postgresql": _POSTGRESQL}
