"""The database: one verb = one transaction = one thread hop.

A verb is a plain function that takes a `Session` first. `Database.read` and `Database.write` run
it in a thread, commit, and hand back what it returned, so the event loop never waits for SQL and
nothing lazy outlives the transaction. When two writers meet, the loser's verb runs again from its
beginning and sees what the winner wrote; so a verb has no effects but its rows.

SQLite has one writer at a time: its writes queue up in one thread instead of spinning on a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql import expression
from sqlalchemy.sql.compiler import SQLCompiler

from nbexchange.columns import Moment
from nbexchange.errors import Misconfigured, NbExchangeError, StoreFull, Unavailable

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READERS = 4
ATTEMPTS = 8
"""Runs of a verb that lost to another writer, before it is given up."""

SQLITE_BUSY_SECONDS = 20
"""How long a write waits for another process; `connect_args` of db_kwargs may say otherwise."""


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


class Database:
    """Raises Unavailable when the database is away and StoreFull when its disk is full."""

    def __init__(self, url: str, *, echo: bool = False, **engine_options: Any) -> None:
        self.engine = _engine(url, echo=echo, **engine_options)
        self._writing = self.engine.execution_options(nbexchange_writes=True)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(READERS, "database-read")
        self._writers = ThreadPoolExecutor(1, "database-write") if self.is_sqlite else self._readers

    async def read(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: self.read_now(verb, *args, **kwargs)
        )

    async def write(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._writers, lambda: self.write_now(verb, *args, **kwargs)
        )

    async def in_thread(self, question: Callable[[], T]) -> T:
        """Ask something of the database that is not a verb."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, question)

    def read_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`read` for a caller without an event loop."""
        with _known_errors(), Session(self.engine) as session, session.begin():
            return verb(session, *args, **kwargs)

    def write_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` for a caller without an event loop."""
        with _known_errors():
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._transaction(verb, *args, **kwargs)
                except exc.DBAPIError as error:
                    if not _lost_to_another_writer(error):
                        raise
            return self._transaction(verb, *args, **kwargs)

    def _transaction(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            return verb(session, *args, **kwargs)

    def close(self) -> None:
        self._readers.shutdown()
        self._writers.shutdown()
        self.engine.dispose()

    # -- schema

    def prepare(self, *, upgrade: bool = False, reset: bool = False) -> None:
        """Make the schema usable, or raise Misconfigured with the words that mend it.

        A new SQLite file gets its schema; every other change of a schema is asked for.
        """
        with _known_errors():
            if reset:
                self._reset()
            state = self.schema_state()
            if upgrade or (state == "empty" and self.is_sqlite):
                self.upgrade()
            elif state != "current":
                raise Misconfigured(_SCHEMA_ADVICE[state])

    def schema_state(self) -> str:
        """`current`, `empty`, `behind`, or `unknown`: made by a newer version or not by us."""
        script = ScriptDirectory.from_config(_alembic_config())
        with _known_errors(), self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_heads()
        if not found:
            return "empty"
        if set(found) == set(script.get_heads()):
            return "current"
        known = {revision.revision for revision in script.walk_revisions()}
        return "behind" if set(found) <= known else "unknown"

    def upgrade(self) -> None:
        """Bring the schema up to date. Two at once: the second waits and finds nothing to do."""
        with _known_errors():
            self._migrate(command.upgrade, "head")

    def _migrate(self, direction: Callable[[Config, str], None], revision: str) -> None:
        with self._writing.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            direction(config, revision)

    def _reset(self) -> None:
        # The URL itself may hold a password, also in its query.
        log.warning("reset_db: throwing away every row of %s", self.engine.url.database)
        self._migrate(command.downgrade, "base")


_SCHEMA_ADVICE = {
    "empty": "the database has no tables yet; make them with `nbexchange upgrade-db`",
    "behind": "the database was made by an older version; back it up, then run "
    "`nbexchange upgrade-db` (or start once with --upgrade-db)",
    "unknown": "the database has a schema that this version does not know, perhaps from a newer "
    "one; run the version that made it, or restore a backup",
}


def migrations() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    here = Path(__file__).parent
    packed = here / "_alembic"
    return packed if packed.is_dir() else here.parent / "alembic"


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config


def _engine(url: str, **options: Any) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            _refuse_memory(parsed)
            wait = {"timeout": SQLITE_BUSY_SECONDS}
            options["connect_args"] = wait | dict(options.get("connect_args", {}))
        engine = create_engine(parsed, pool_pre_ping=True, **options)
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError) as error:
        # The URL may hold a password; the error may hold the URL.
        raise Misconfigured(f"db_url is not usable ({type(error).__name__})") from None
    if "@" in (parsed.host or ""):
        # Half of the password went into the host, and errors name the host.
        raise Misconfigured("db_url is not usable: an @ in its password has to be written as %40")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


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
    connection.create_function("nbexchange_clock", 0, _machine_clock)
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Misconfigured(f"SQLite cannot use a write-ahead log here (it stays in {mode!r} mode)")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _machine_clock() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("nbexchange_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lost_to_another_writer(error: exc.DBAPIError) -> bool:
    """Whether the same verb may well succeed when it runs again."""
    if isinstance(error, exc.IntegrityError):
        return True
    orig = error.orig
    code = getattr(orig, "sqlstate", None) or (orig.args or (None,))[0] if orig else None
    # PostgreSQL: serialization failure, deadlock. MariaDB and MySQL: deadlock, lock wait timeout.
    return code in ("40001", "40P01", 1213, 1205)


@contextlib.contextmanager
def _known_errors() -> Iterator[None]:
    try:
        yield
    except NbExchangeError:
        raise
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        orig = getattr(error, "orig", error)
        if getattr(orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            log.error("the database's disk is full")
            raise StoreFull(
                "the exchange's disk is full, so nothing was stored; tell your instructor"
            ) from error
        log.error("the database is away: %s", orig)
        raise _away() from error
    except exc.DatabaseError as error:
        # The class itself is a file that is harmed or no database; its subclasses are our faults.
        if type(error) is not exc.DatabaseError:
            raise
        log.error("the database cannot be read: %s", error.orig)
        raise _away() from error


def _away() -> Unavailable:
    return Unavailable("the exchange's database is away for now; try again soon")
