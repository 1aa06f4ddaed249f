"""Engines: from a URL to connections that keep what they are told.

Every new connection to a server is checked for settings that lose what was acknowledged
(durability.py), because a server may have been restarted with other settings.
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
"""How long a write waits for another process; `connect_args` of db_kwargs may say otherwise."""

READERS = 4
SCANNERS = 4
WRITERS = 6
"""Connections to a database server, from one process. A writer that waits for a lock delays no
reader, and a long list delays no upload, which reads before it writes."""

STATEMENT_SECONDS = 4
"""How long a request's reading statement may run, on a server; on SQLite, its transaction. Shorter
than the request waits, so that its thread is free again when the request is refused."""

SQLITE_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the time; less than a millisecond."""

LOCK_SECONDS = 4
"""How long a verb waits for a row that another one holds; shorter than a request waits, so that its
thread is free again when it is refused."""

CONNECT_SECONDS = 5
SILENCE_SECONDS = 60
"""Until a server that says nothing is given up; a request has its answer long before."""

_DRIVERS = {
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
"""For URLs that name no driver; SQLAlchemy's own choice is one that is not here."""


def make_engine(
    url: str,
    *,
    for_migrations: bool = False,
    for_requests: bool = False,
    writes_whole_pages: bool = False,
    **options: Any,
) -> Engine:
    """Raises Misconfigured for a URL that cannot be used.

    A `for_migrations` one is for migrations, during which a server may work in silence for hours. A
    `for_requests` one is for what requests read: the database ends each statement after
    STATEMENT_SECONDS. `writes_whole_pages` is what the administrator says of the server's disks.
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
        # Half of the password went into the host, and errors name the host.
        raise Misconfigured("db_url is not usable: an @ in its password has to be written as %40")
    # Once: what went well at first is no option's fault later.
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
    """Only now a driver says, each in its own way, that it does not know an option.

    A server that is away is an OperationalError, with every driver.
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
        # What it says may quote a part of a password that was split at an & or an =.
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
            "let db_url name a file: sqlite:////path/to/nbexchange.sqlite"
        )


def _open_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # We say BEGIN ourselves: sqlite3 would begin late and as a reader, and a reader that turns
    # writer can fail with SQLITE_BUSY at once, however long the timeout.
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
    """Set what changes the meaning of our statements, whatever the server's own defaults are.

    sql_select_limit cuts every result without an error, so `gc` would delete the files of the rows
    that it does not see, and lists would end early. Without sql_big_selects the server refuses
    joins that it expects to be large. Without the checks it keeps rows that refer to nothing, and
    keys that are not unique.
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
    """Prepare no statements behind a pooler such as PgBouncer.

    Each of its transactions may run in another session, where a statement of the same name can be
    another one: a question would get the answer to a different question.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    connection.commit()
    if backend != connection.info.backend_pid:  # a pooler gives its clients numbers of its own
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
    """What is particular to one kind of database."""

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
        """Raises Misconfigured for what cannot keep coursework, and for unknown kinds."""
        name = url.get_backend_name()
        if name == "sqlite":
            _refuse_memory(url)
        if name not in _KINDS:
            raise Misconfigured(
                "db_url has to name an SQLite file, a MariaDB or MySQL, or a PostgreSQL: "
                "sqlite:////path, mysql://user:password@host/name, postgresql://..."
            )
        return _KINDS[name]


_SERVER_OPTIONS: dict[str, Any] = {
    # What was committed while a verb waited is seen by its next statement: that is how it finds
    # the row that another inserted first. MariaDB would show the state at its first statement.
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
        # Milliseconds, and seconds: until a server whose machine is gone is noticed.
        "tcp_user_timeout": 1000 * SILENCE_SECONDS,
        "keepalives_idle": 10,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "application_name": "nbexchange",
        # A database in SQL_ASCII would hand out bytes, before it could be refused in words.
        "client_encoding": "UTF8",
    },
    _SERVER_OPTIONS,
    limit_locks=_limit_postgresql_locks,
    on_connect=_open_postgresql,
)
_KINDS = {"sqlite": _SQLITE, "mysql": _MYSQL, "mariadb": _MYSQL, "postgresql": _POSTGRESQL}
