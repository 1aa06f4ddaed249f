"""Whether the service can work. The database and the store are asked, but not for each request.

Anybody may ask readyz, and an object store pays for each answer with a PUT and a DELETE.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from nbexchange.database import Database
from nbexchange.database.schema import USABLE
from nbexchange.errors import StoreFull, Unavailable
from nbexchange.storage import Storage

log = logging.getLogger(__name__)

T = TypeVar("T")

READY_SECONDS = 2.0
"""For how long an answer of readyz counts; shorter than what probes wait between two questions."""

MOST_SKEW = 2.0
"""Seconds between two clocks of machines that keep the time."""

FULL = (
    "The store is full: files can be read, and new ones are refused. Make room, or give it a "
    "larger disk."
)


class SharedCall(Generic[T]):
    """An answer that one asks for at a time, and that counts for some seconds, as errors do."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asked_at = 0.0
        self._answer: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._answer is None or (self._answer.done() and self._is_old()):
            self._asked_at = time.monotonic()
            self._answer = asyncio.create_task(self._ask())
            self._answer.add_done_callback(_look_at)
        # Cancelling one caller must not cancel the shared check.
        return await asyncio.shield(self._answer)

    def _is_old(self) -> bool:
        return time.monotonic() - self._asked_at >= self._seconds


def _look_at(answer: asyncio.Task[Any]) -> None:
    """Retrieve its error: no caller may be left to see it."""
    if not answer.cancelled():
        answer.exception()


class Readiness:
    """What the last look found; None before the first."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        find_problem_of_people: Callable[[], str | None],
    ) -> None:
        self._database = database
        self._storage = storage
        self._find_problem_of_people = find_problem_of_people
        self._found = SharedCall(self._look, READY_SECONDS)
        self.ready: bool | None = None
        self.schema: str | None = None
        """As `Schema.state` says; the last that could be read."""
        self.skew: float | None = None
        """As `Database.skew` says; the last that could be read."""
        self.full: bool | None = None
        """Whether the store had no room when it was last there."""
        self.problem_of_people: str | None = None
        """As `BaseUserHandler.find_problem` says."""

    @property
    def warnings(self) -> list[str]:
        """What an administrator should correct, although people can work."""
        full = FULL if self.full else None
        return [warning for warning in (full, self.problem_of_people) if warning]

    async def check(self) -> None:
        """Raises Unavailable where the service cannot work, Misconfigured for a lossy database."""
        await self._found.get()

    async def _look(self) -> None:
        ready = False
        try:
            self.schema = await self._database.in_thread(self._database.schema.state)
            if self.schema not in USABLE:
                raise Unavailable(
                    f"the database's schema is {self.schema}; see `nbexchange upgrade-db`"
                )
            await self._database.in_thread(self._database.check_durability)
            await self._database.in_thread(self._database.check_writable)
            self._compare(await self._database.in_thread(self._database.skew))
            await self._try_the_store()
            # All replicas read the same file, so an invalid one must not make them all unready.
            self.problem_of_people = await asyncio.to_thread(self._find_problem_of_people)
            ready = True
        finally:
            self.ready = ready

    async def _try_the_store(self) -> None:
        """A full store does not make the service unready: reads still work, and each upload that
        needs space is refused with a reason."""
        try:
            await self._storage.check()
        except StoreFull as error:
            if not self.full:
                log.error("%s", error)
            self.full = True
        else:
            self.full = False

    def _compare(self, skew: float) -> None:
        """Log once that two clocks differ. The service stays ready."""
        if abs(skew) > MOST_SKEW >= abs(self.skew or 0.0):
            log.warning(
                "the database's clock is %.0f s %s this machine's, and all official times are the "
                "database's; let both machines take the time from NTP",
                abs(skew),
                "ahead of" if skew > 0 else "behind",
            )
        self.skew = skew
