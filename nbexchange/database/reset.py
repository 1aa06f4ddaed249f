"""`--reset-db`: erase every row, with a confirmation code and without another process.

An empty database stays as it is. Any other one is erased only with a code, which stands for exactly
the rows that it holds, and only by a process with exclusive access:

    SQLite      Leaving the write-ahead log fails while another process has the file open.
    PostgreSQL  The server lists the sessions of all accounts. The tables are locked first.
    MariaDB     The same, but an account without the right PROCESS sees only its own sessions, and a
    and MySQL   node of a cluster sees only its own clients. The refusal says so if it applies.

A replica that serves always has a session, because it asks the database for readyz and for its own
periodic work.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, MetaData, Table, exc, func, inspect, select, text

from nbexchange.database.failures import has_code
from nbexchange.errors import Misconfigured

KEPT = ("alembic_version", "compatibility", "secret")
"""Tables that migrations fill."""

COUNTED = {"course": "courses", "release": "releases", "submission": "submissions"}
COUNTED |= {"feedback": "feedback"}

SESSION_END_SECONDS = 5.0
"""How long sessions may take to end: our own, and those of a service that was just stopped."""

LOCK_SECONDS = 10

_DENIED = (1044, 1142)
"""MariaDB, MySQL: a database, a command on a table."""


@dataclass(frozen=True)
class Loss:
    """What a reset would erase."""

    counts: Mapping[str, int]
    """Rows, by table."""
    code: str
    """The code that confirms erasing exactly these rows."""

    def __str__(self) -> str:
        return ", ".join(f"{self.counts.get(name, 0):,} {word}" for name, word in COUNTED.items())

    @property
    def is_nothing(self) -> bool:
        return not any(self.counts.values())


def measure(connection: Connection) -> Loss:
    """Counts the rows of every table of the schema, whatever its version."""
    counts, digest = {}, hashlib.sha256()
    for table in _tables(connection):
        # Times and random names, so that the same number of other rows has a different code.
        marks = [table.c[name] for name in ("id", "key", "token", "at") if name in table.c]
        query = select(func.count(), *map(func.max, marks)).select_from(table)
        counts[table.name], *maxima = connection.execute(query).one()
        digest.update(repr((table.name, counts[table.name], maxima)).encode())
    return Loss(counts, digest.hexdigest()[:12])


def refuse_without_code(connection: Connection, code: str) -> Loss:
    """Return what this code erases. Raises Misconfigured if it is missing or wrong."""
    loss = measure(connection)
    if loss.is_nothing or code == loss.code:
        return loss
    wrong = f"the code {code} does not match the rows that are there now; " if code else ""
    raise Misconfigured(
        f"Nothing was erased: {wrong}--reset-db (c.NbExchange.reset_db) would erase {loss} for "
        "good. To start and keep them, remove that option from the command line and from the "
        "configuration file. To erase them, make a backup, stop every process that uses the "
        f"database, and start once as usual and with --reset-db --confirm-reset={loss.code}"
        + _blind_spots(connection)
    )


def leave_wal(connection: Connection) -> None:
    """Leave SQLite's write-ahead log, before the transaction. Raises Misconfigured if another
    process has the file open. The next connection creates the log again."""
    if connection.dialect.name != "sqlite":
        return
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout = {int(1000 * SESSION_END_SECONDS)}")
    try:
        (mode,) = driver.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError:
        mode = "wal"
    if mode != "delete":
        raise _in_use("another process has the database's file open")


@contextlib.contextmanager
def locked_tables(connection: Connection) -> Iterator[None]:
    """Within the transaction: keep other sessions from reading or writing any row. Rows are counted
    after that. Raises Misconfigured if another session uses the database."""
    dialect = connection.dialect.name
    if dialect != "sqlite":
        _wait_for_other_sessions(connection)
    names = [_quoted(connection, table.name) for table in _tables(connection)]
    if dialect == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE"))
    if dialect not in ("mysql", "mariadb"):
        yield
        return
    names += [name for name in KEPT if inspect(connection).has_table(name)]
    _lock_mysql_tables(connection, names)
    try:
        yield
    finally:
        connection.execute(text("UNLOCK TABLES"))


def _lock_mysql_tables(connection: Connection, names: Sequence[str]) -> None:
    try:
        connection.execute(text(f"LOCK TABLES {', '.join(f'{name} WRITE' for name in names)}"))
    except exc.DBAPIError as error:
        if not has_code(error.orig, _DENIED):
            raise
        database, account = connection.execute(text("SELECT DATABASE(), CURRENT_USER()")).one()
        name, _, host = account.rpartition("@")
        raise Misconfigured(
            "Nothing was erased: the database account may not lock its tables. Run as an "
            f"administrator of the database: GRANT LOCK TABLES ON `{database}`.* TO "
            f"'{name}'@'{host}'"
        ) from error


def _tables(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in KEPT]


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)


def _wait_for_other_sessions(connection: Connection) -> None:
    deadline = time.monotonic() + SESSION_END_SECONDS
    while others := connection.execute(_OTHERS[connection.dialect.name]).scalar_one():
        if time.monotonic() > deadline:
            raise _in_use(f"{others:,} other sessions use the database")
        time.sleep(0.1)


def _in_use(reason: str) -> Misconfigured:
    return Misconfigured(
        f"Nothing was erased: {reason}. Stop every service, replica, command and client that uses "
        "it, then try again."
    )


def _blind_spots(connection: Connection) -> str:
    """Warn about sessions that the database does not show to this account."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return ""
    grants = " ".join(connection.execute(text("SHOW GRANTS")).scalars())
    advice = ""
    if not re.search(r"\b(PROCESS|ALL PRIVILEGES)\b[^;]*? ON \*\.\*", grants):
        advice += (
            ". This account does not see other accounts' sessions (it lacks the right PROCESS), so "
            "make sure yourself that no process uses the database with another account"
        )
    size = connection.execute(text("SHOW STATUS LIKE 'wsrep_cluster_size'")).first()
    if size is not None and size[1] not in ("", "0", "1"):
        advice += (
            ". The server is one of a cluster and does not see the other nodes' clients, so make "
            "sure yourself that no process uses the database there"
        )
    return advice


_MYSQL = text(
    "SELECT COUNT(*) FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()"
)
_OTHERS = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "postgresql": text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ),
}
