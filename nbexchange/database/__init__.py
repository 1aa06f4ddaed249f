"""The database: one verb = one transaction = one thread hop.

A verb is a plain function that takes a `Session` first. `Database.read` and `Database.write` run
it in a thread, commit, and hand back what it returned, so the event loop never waits for SQL and
nothing lazy outlives the transaction. When two writers meet, the loser's verb runs again from its
beginning and sees what the winner wrote; so a verb has no effects but its rows.

SQLite has one writer at a time: its writes queue up in one thread instead of spinning on a lock.

    engines.py   from a URL to connections that keep what they are told
    schema.py    migrations, one at a time
    sql.py       what each database says in words of its own
    failures.py  what its errors mean
    threads.py   threads that wait for a server, and that nobody waits for
"""

from __future__ import annotations

import asyncio
import datetime
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import QueuePool, exc
from sqlalchemy.orm import Session

from nbexchange.database.engines import READERS, WRITERS, make_engine
from nbexchange.database.failures import away, known_errors, log, lost_to_another_writer
from nbexchange.database.schema import Schema
from nbexchange.database.sql import DatabaseClock, clock, insert_if_absent
from nbexchange.database.threads import ServerThreads

__all__ = ["Database", "DatabaseClock", "Load", "clock", "insert_if_absent"]

P = ParamSpec("P")
T = TypeVar("T")

SQLITE_READERS = 4

ATTEMPTS = 8
"""Runs of a verb that lost to another writer, before it is given up."""

ANSWER_SECONDS = 5.0
"""How long a request waits for a server that says nothing. SQLite waits as its own timeout says."""


@dataclass(frozen=True)
class Load:
    """How busy we keep the database: connections, and requests that have no thread yet."""

    connections: int | None
    """That are kept; None with a pool that has no size."""
    in_use: int | None
    waiting_to_read: int
    waiting_to_write: int


class Database:
    """Raises Unavailable when the database is away and StoreFull when its disk is full.

    After Unavailable nobody knows whether a write was committed; its retry finds out.
    """

    def __init__(self, url: str, *, echo: bool = False, **engine_options: Any) -> None:
        self.engine = make_engine(url, echo=echo, **engine_options)
        self.schema = Schema(
            self.engine, lambda: make_engine(url, echo=echo, patient=True, **engine_options)
        )
        self._writing = self.engine.execution_options(nbexchange_writes=True)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.patience = None if self.is_sqlite else ANSWER_SECONDS
        """Seconds; None to wait for as long as it takes."""
        self._readers: Executor
        self._writers: Executor
        if self.is_sqlite:
            self._readers = ThreadPoolExecutor(SQLITE_READERS, "database-read")
            self._writers = ThreadPoolExecutor(1, "database-write")
        else:
            self._readers = ServerThreads(READERS, "database-read")
            self._writers = ServerThreads(WRITERS, "database-write")
        self._waiting: dict[Executor, set[object]] = {self._readers: set(), self._writers: set()}

    async def read(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._in(self._readers, lambda: self.read_now(verb, *args, **kwargs))

    async def write(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._in(self._writers, lambda: self.write_now(verb, *args, **kwargs))

    async def in_thread(self, question: Callable[[], T]) -> T:
        """Ask something of the database that is not a verb."""
        return await self._in(self._readers, question)

    async def _in(self, threads: Executor, work: Callable[[], T]) -> T:
        waiting, ticket = self._waiting[threads], object()

        def begin() -> T:
            waiting.discard(ticket)
            return work()

        waiting.add(ticket)
        try:
            async with asyncio.timeout(self.patience):
                return await asyncio.get_running_loop().run_in_executor(threads, begin)
        except TimeoutError as error:
            log.error("the database did not answer within %g seconds", self.patience)
            raise away() from error
        finally:
            waiting.discard(ticket)

    def skew(self) -> float:
        """Seconds by which the database's clock is ahead of this machine's.

        Never more than is sure: its answer was on the way for a while.
        """
        before = datetime.datetime.now(datetime.UTC)
        theirs = self.read_now(clock)
        after = datetime.datetime.now(datetime.UTC)
        return (theirs - min(max(theirs, before), after)).total_seconds()

    def load(self) -> Load:
        """Asks nobody."""
        pool = self.engine.pool
        connections, in_use = (
            (pool.size(), pool.checkedout()) if isinstance(pool, QueuePool) else (None, None)
        )
        return Load(
            connections=connections,
            in_use=in_use,
            waiting_to_read=len(self._waiting[self._readers]),
            waiting_to_write=len(self._waiting[self._writers]),
        )

    def read_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`read` for a caller without an event loop."""
        with known_errors(), Session(self.engine) as session, session.begin():
            return verb(session, *args, **kwargs)

    def write_now(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` for a caller without an event loop."""
        with known_errors():
            for attempt in range(ATTEMPTS - 1):
                try:
                    return self._transaction(verb, *args, **kwargs)
                except exc.DBAPIError as error:
                    if not lost_to_another_writer(error):
                        raise
                # Losers that come back all at once would meet again.
                time.sleep(random.uniform(0, 0.002 * 2**attempt))  # noqa: S311 (no secret)
            return self._transaction(verb, *args, **kwargs)

    def _transaction(
        self, verb: Callable[Concatenate[Session, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            return verb(session, *args, **kwargs)

    def prepare(self, *, upgrade: bool = False, reset: bool = False, make: bool = True) -> None:
        """Make the schema usable, or raise Misconfigured with the words that mend it."""
        self.schema.prepare(upgrade=upgrade, reset=reset, make=make)

    def close(self) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)
        self.engine.dispose()
