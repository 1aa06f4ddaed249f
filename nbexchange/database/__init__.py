"""The database: one verb = one transaction = one thread hop.

A verb is a plain function that takes a `Session` first. `Database.read`, `Database.scan` and
`Database.write` run it in a thread, commit, and hand back what it returned, so the event loop never
waits for SQL and no lazily loaded object outlives the transaction. Lists and histories use `scan`,
which has its own threads and connections, apart from the short queries of every upload. When two
writers conflict, the verb of the one that failed runs again from its beginning and sees the rows of
the other. A verb must therefore have no effects other than its rows.

SQLite allows one writer at a time: its writes queue for one thread instead of spinning on a lock.

    engines.py      from a URL to connections with safe settings
    durability.py   refuses server settings that lose committed data
    schema.py       migrations, one process at a time
    reset.py        erasing every row, with a code and exclusive access
    sql.py          SQL that differs between databases
    failures.py     translates the database's errors
    rights.py       privileges that a migration needs
    threads.py      threads for database servers, which do not delay the end of the process
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import ExceptionContext, QueuePool, event, exc, text
from sqlalchemy.orm import Session

from nbexchange import timeouts
from nbexchange.database.durability import check_durability
from nbexchange.database.engines import READERS, SCANNERS, WRITERS, make_engine
from nbexchange.database.failures import (
    busy,
    can_only_read,
    known_errors,
    log,
    lost_to_another_writer,
    unavailable,
)
from nbexchange.database.schema import Schema
from nbexchange.database.sql import DatabaseClock, clock, insert_if_absent, queue_up
from nbexchange.database.threads import ServerThreads
from nbexchange.errors import Unavailable

__all__ = ["Database", "DatabaseClock", "Load", "clock", "insert_if_absent", "queue_up"]

P = ParamSpec("P")
T = TypeVar("T")

_random = random.Random()  # noqa: S311 - no secret
"""Separate from the generator of the `random` module: property tests in the same process fail when
another thread uses that one."""

SQLITE_READERS = 4
SQLITE_SCANNERS = 2

ATTEMPTS = 8
"""How often a verb that conflicts with other writers runs before it fails."""

ANSWER_SECONDS = timeouts.DATABASE
"""How long a request waits for a server that does not answer. SQLite has a timeout of its own."""


@dataclass(frozen=True)
class Load:
    """How busy the database is: connections, and requests that wait for a thread."""

    connections: int | None
    """Connections in the pool; None if the pool has no fixed size."""
    in_use: int | None
    waiting_to_read: int
    waiting_to_scan: int
    waiting_to_write: int


@dataclass
class _Progress:
    """The progress of a write transaction. Before its COMMIT, a transaction is always rolled back,
    whatever happens to the server or the connection."""

    reached_commit: bool = False


class Database:
    """Raises Unavailable when the database is unavailable and StoreFull when its disk is full.

    After Unavailable it is unknown whether a write was committed, unless the error says that
    nothing was written. A retry finds out.
    """

    def __init__(
        self,
        url: str,
        *,
        echo: bool = False,
        writes_whole_pages: bool = False,
        **engine_options: Any,
    ) -> None:
        engine_options |= {"echo": echo, "writes_whole_pages": writes_whole_pages}
        self.engine = make_engine(url, **engine_options)
        self.schema = Schema(
            self.engine, lambda: make_engine(url, for_migrations=True, **engine_options)
        )
        self._writes_whole_pages = writes_whole_pages
        self._writing = self.engine.execution_options(nbexchange_writes=True)
        self._reading = make_engine(url, for_requests=True, **engine_options)
        event.listen(self.engine, "handle_error", self._leave_standby)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._timeout = None if self.is_sqlite else ANSWER_SECONDS
        """Seconds; None for no timeout."""
        self._readers: Executor
        self._scanners: Executor
        self._writers: Executor
        if self.is_sqlite:
            self._readers = ThreadPoolExecutor(SQLITE_READERS, "database-read")
            self._scanners = ThreadPoolExecutor(SQLITE_SCANNERS, "database-scan")
            self._writers = ThreadPoolExecutor(1, "database-write")
        else:
            self._readers = ServerThreads(READERS, "database-read")
            self._scanners = ServerThreads(SCANNERS, "database-scan")
            self._writers = ServerThreads(WRITERS, "database-write")
        self._queued: dict[Executor, set[object]] = {
            threads: set() for threads in (self._readers, self._scanners, self._writers)
        }

    def _leave_standby(self, context: ExceptionContext) -> None:
        """After a failover, connections would stay with the old primary, which is read-only."""
        if can_only_read(context.original_exception):
            context.is_disconnect = True
            self._reading.dispose()

    def disable_timeouts(self) -> None:
        """For commands: no request waits, so statements may take as long as they need."""
        self._timeout = None
        self._reading.dispose()
        self._reading = self.engine

    async def read(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._in(
            self._readers, lambda: self._read(lambda session: verb(session, *args, **kwargs))
        )

    async def scan(self, verb: Callable[[Session], T], on_done: Callable[[], None]) -> T:
        """`read` for queries that may take long. `on_done` is called once no thread works on the
        query any more. If the request timed out, that is after its refusal."""
        return await self._in(self._scanners, lambda: self._read(verb, in_list=True), on_done)

    async def write(
        self, verb: Callable[[Session], T], on_done: Callable[[], None] = lambda: None
    ) -> T:
        """`on_done` as in `scan`."""
        return await self._in(self._writers, lambda: self.write_now(verb), on_done)

    async def write_without_timeout(self, verb: Callable[[Session], T]) -> T:
        """`write` for periodic work that no request waits for. With a frozen server it does not
        delay the end of the process either."""
        return await asyncio.wrap_future(self._writers.submit(self.write_now, verb))

    async def in_thread(self, question: Callable[[], T]) -> T:
        """Run a query that is not a verb."""
        return await self._in(self._readers, question)

    async def _in(
        self,
        threads: Executor,
        work: Callable[[], T],
        on_done: Callable[[], None] = lambda: None,
    ) -> T:
        queued, request = self._queued[threads], object()

        def begin() -> T:
            queued.discard(request)
            return work()

        queued.add(request)
        try:
            future = threads.submit(begin)
            future.add_done_callback(_on_this_loop(on_done))
            async with asyncio.timeout(self._timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if request in queued:
                log.error("No thread of the database was free within %g seconds", self._timeout)
                raise busy() from error
            log.error("The database did not answer within %g seconds", self._timeout)
            raise unavailable() from error
        finally:
            queued.discard(request)

    def check_durability(self) -> None:
        """Raises Misconfigured if the server's current settings may lose coursework."""
        dialect = self.engine.dialect
        with known_errors(), self.engine.connect() as connection:
            try:
                check_durability(
                    dialect.name,
                    connection.connection.driver_connection,
                    writes_whole_pages=self._writes_whole_pages,
                )
            except dialect.loaded_dbapi.Error as error:
                raise unavailable() from error

    def check_writable(self) -> None:
        """Raises Unavailable if the server is read-only, as a standby is."""
        if not self.is_sqlite:
            self.write_now(_change_nothing)

    def skew(self) -> float:
        """Seconds by which the database's clock is ahead of this machine's.

        A lower bound, because the duration of the query makes the measurement uncertain.
        """
        before = datetime.datetime.now(datetime.UTC)
        theirs = self.read_now(clock)
        after = datetime.datetime.now(datetime.UTC)
        return (theirs - min(max(theirs, before), after)).total_seconds()

    def load(self) -> Load:
        """Reads the pools and queues in memory; it sends no query."""
        pools = [
            engine.pool
            for engine in {self.engine, self._reading}
            if isinstance(engine.pool, QueuePool)
        ]
        return Load(
            connections=sum(pool.size() for pool in pools) if pools else None,
            in_use=sum(pool.checkedout() for pool in pools) if pools else None,
            waiting_to_read=len(self._queued[self._readers]),
            waiting_to_scan=len(self._queued[self._scanners]),
            waiting_to_write=len(self._queued[self._writers]),
        )

    def read_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`read` for a caller without an event loop, without a timeout."""
        with known_errors(), Session(self.engine) as session, session.begin():
            return verb(session, *args, **kwargs)

    def _read(self, verb: Callable[[Session], T], *, in_list: bool = False) -> T:
        with (
            known_errors(in_list=in_list),
            Session(self._reading) as session,
            session.begin(),
        ):
            return verb(session)

    def write_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` for a caller without an event loop."""
        progress = _Progress()
        try:
            with known_errors():
                for attempt in range(ATTEMPTS - 1):
                    try:
                        return self._transaction(progress, verb, *args, **kwargs)
                    except exc.DBAPIError as error:
                        if not lost_to_another_writer(error):
                            raise
                    # Without a random pause the same writers would conflict again.
                    time.sleep(_random.uniform(0, 0.002 * 2**attempt))
                return self._transaction(progress, verb, *args, **kwargs)
        except Unavailable as error:
            error.nothing_written = not progress.reached_commit
            raise

    def _transaction(
        self,
        progress: _Progress,
        verb: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            result = verb(session, *args, **kwargs)
            session.flush()
            progress.reached_commit = True
            self._commit(session)
        return result

    def _commit(self, session: Session) -> None:
        """Raises Unavailable for an error of COMMIT, unless it reports a conflict.

        After any other error it is unknown whether the rows were committed. When the disk of its
        log is full, PostgreSQL reports that and stops; after its recovery the rows may be there.
        """
        try:
            session.commit()
        except exc.DBAPIError as error:
            if self.is_sqlite or lost_to_another_writer(error):
                raise
            log.error("The database failed at a COMMIT: %s", error.orig)
            raise unavailable() from error

    def prepare(
        self,
        *,
        upgrade: bool = False,
        reset: bool = False,
        reset_code: str = "",
        make: bool = True,
    ) -> None:
        """Make the schema usable, or raise Misconfigured with instructions."""
        self.schema.prepare(upgrade=upgrade, reset=reset, reset_code=reset_code, make=make)

    def close(self) -> None:
        for threads in (self._readers, self._scanners, self._writers):
            threads.shutdown(cancel_futures=True)
        self._reading.dispose()
        self.engine.dispose()


def _change_nothing(session: Session) -> None:
    session.execute(text("UPDATE compatibility SET oldest = oldest WHERE id < 0"))


def _on_this_loop(on_done: Callable[[], None]) -> Callable[[object], None]:
    loop = asyncio.get_running_loop()

    def call(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the service with it
            loop.call_soon_threadsafe(on_done)

    return call
