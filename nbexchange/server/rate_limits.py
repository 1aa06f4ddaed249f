"""How much one person may ask for, and how much all may at once: the one place of these rules.

A person is a name in an organisation, never an address: a whole university may come from one. All
requests of unknown senders share one limit.

A person who asks too fast waits first, which costs nothing and paces a client that asks again only
when it has its answer; a 429 or 503 comes where waiting would take too long. The same goes for
refusals: a client that sends nonsense is slowed down to the same rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass

from traitlets import Float, HasTraits, Integer

from nbexchange import timeouts
from nbexchange.errors import TooManyRequests, Unavailable, Unprocessable

LONGEST_HOLD = 5.0
"""Seconds that a refusal may wait."""

MOST_HELD = 1000
"""Refusals that may wait at a time; beyond, a connection is closed without an answer."""

REST, LONGEST_REST = 4.0, timeouts.REST
"""How long a person's next check waits after one that was refused: times what that took, up to so
many seconds."""

REFUSALS_AT_ONCE = 4
"""Times what may be refused in a second: so many are refused at once after a rest."""

Person = tuple[int, str]
"""Organisation and name."""


@dataclass(frozen=True)
class RequestLimits:
    """0 for no limit."""

    requests: int = 64
    """Of one person, under way at a time."""
    rate: float = 100
    """Requests of one person a second, after `burst` of them."""
    burst: int = 2000
    transfers: int = 16
    """Files of one person at a time, in, and as many out; more wait for their turn."""
    lists: int = 2
    """Lists of one person at a time, until they have been read and no thread of the database works
    on them any more."""
    all_transfers: int = 400
    writes: int = 2
    """Transactions of one person that write, at a time; fewer than the threads that write."""
    course_writes: int = 4
    """The same of one course."""
    patience: float = timeouts.TURN
    """Seconds that a request may wait for its turn; old clients give up after ten."""
    refusals: float = 50
    """A second, of one person and of all unknown together; more wait before they are said."""


class RateLimitOptions(HasTraits):
    """Options about how much one person, and all, may ask for at once."""

    max_requests_per_person = Integer(
        RequestLimits().requests,
        min=0,
        help="Requests of one person under way at a time; more are answered 429. 0: any number.",
    ).tag(config=True)

    max_rate_per_person = Float(
        RequestLimits().rate,
        min=0,
        help="""
        Requests a second that one person may go on with, after a burst of max_burst_per_person.
        More wait, so that a client that asks again only when it has its answer is paced; those
        that would wait for more than turn_timeout are answered 429. 0: any number.
        """,
    ).tag(config=True)

    max_burst_per_person = Integer(
        RequestLimits().burst, min=1, help="Requests that one person may send at once after a rest."
    ).tag(config=True)

    max_transfers_per_person = Integer(
        RequestLimits().transfers,
        min=0,
        help="""
        Files that one person may send at a time, and as many that the person may fetch. The next
        wait, and are answered 429 after turn_timeout. 0: any number.
        """,
    ).tag(config=True)

    max_transfers = Integer(
        RequestLimits().all_transfers,
        min=0,
        help="""
        Files that all may send at a time to this process, and as many that all may fetch from it;
        each takes up to two megabytes of memory. The next wait, and are answered 503 after
        turn_timeout. 0: any number.
        """,
    ).tag(config=True)

    turn_timeout = Float(
        RequestLimits().patience,
        min=0,
        help="""
        Seconds that a request waits for its turn before it is answered 429 or 503. Clients of
        older versions give up after ten.
        """,
    ).tag(config=True)

    max_refusals_per_second = Float(
        RequestLimits().refusals,
        min=0,
        help="""
        Refused requests (400 to 499) that are answered a second: of one person, and of all who
        are not known together. More wait for up to five seconds. 0: any number.
        """,
    ).tag(config=True)

    def request_limits(self, *, is_sqlite: bool) -> RequestLimits:
        return RequestLimits(
            requests=self.max_requests_per_person,
            rate=self.max_rate_per_person,
            burst=self.max_burst_per_person,
            transfers=self.max_transfers_per_person,
            all_transfers=self.max_transfers,
            patience=self.turn_timeout,
            refusals=self.max_refusals_per_second,
            # SQLite has one writer at a time, which waits for no lock of ours.
            writes=0 if is_sqlite else RequestLimits().writes,
            course_writes=0 if is_sqlite else RequestLimits().course_writes,
        )


class RateLimiter:
    """The limits of all people. `stopping` is set when no request shall wait any more."""

    def __init__(
        self,
        limits: RequestLimits,
        stopping: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._stopping = stopping
        self._here: Counter[Person] = Counter()
        self._requests = TokenBucket(limits.rate, limits.burst, clock)
        self._refusals = TokenBucket(limits.refusals, REFUSALS_AT_ONCE * limits.refusals, clock)
        self._held = 0
        self.checks = CheckLimiter(self._wait)
        self.writes = WriteLimiter(limits.writes, limits.course_writes)
        files = limits.transfers
        self.uploads = ConcurrencyLimiter(
            limits, files, "sending", "takes", "files", "so this one was not stored; send it"
        )
        self.downloads = ConcurrencyLimiter(
            limits, files, "fetching", "sends", "files", "so this one has to wait; ask for it"
        )
        self.lists = ConcurrencyLimiter(
            limits, limits.lists, "fetching", "sends", "lists", "so ask for this one"
        )

    # -- requests

    @contextlib.contextmanager
    def one_of(self, person: Person) -> Iterator[None]:
        """Counts as one of the person's requests. Raises TooManyRequests beyond the limit."""
        if 0 < self._limits.requests <= self._here[person]:
            raise TooManyRequests(
                f"you have {self._here[person]} requests under way, which is as many as one person "
                "may; wait until some are answered",
                retry_after=soon(),
            )
        self._here[person] += 1
        try:
            yield
        finally:
            self._here[person] -= 1
            if not self._here[person]:
                del self._here[person]

    async def pace(self, person: Person) -> None:
        """Wait where the person asks too fast. Raises TooManyRequests where that takes too long."""
        delay = self._requests.delay(person, self._limits.patience)
        if delay > self._limits.patience:
            raise TooManyRequests(
                f"Too many requests: the limit is {self._limits.rate:g} per second. Try again "
                "shortly.",
                retry_after=soon(),
            )
        await self._wait(delay)

    # -- refusals

    async def hold(self, person: Person | None) -> bool:
        """Let a refusal wait; `person` is None for an unknown sender. False: it gets no answer."""
        delay = min(self._refusals.delay(person, LONGEST_HOLD), LONGEST_HOLD)
        if delay and self._held >= MOST_HELD:
            return False
        self._held += 1
        try:
            await self._wait(delay)
        finally:
            self._held -= 1
        return True

    async def _wait(self, seconds: float) -> None:
        """Or until the end."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()


class ConcurrencyLimiter:
    """Transfers in one direction: so many of one person, and so many of all, at a time."""

    def __init__(
        self, limits: RequestLimits, most: int, person_is: str, we_do: str, what: str, outcome: str
    ) -> None:
        self._patience = limits.patience
        self._all = asyncio.Semaphore(limits.all_transfers or sys.maxsize)
        self._own = _Semaphores(most)
        self._too_many = (
            f"you are {person_is} as many {what} as one person may at a time, {outcome} again when "
            "one of them has arrived"
        )
        self._busy = (
            f"the exchange {we_do} as many {what} as it can at a time, {outcome} again soon"
        )

    async def take(self, person: Person) -> Callable[[], None]:
        """Wait for a turn; returns what ends it.

        Raises TooManyRequests or Unavailable where it takes too long.
        """
        own = self._own.of(person)
        if not await _taken(own, self._patience):
            raise TooManyRequests(self._too_many, retry_after=soon())
        try:
            if not await _taken(self._all, self._patience):
                raise Unavailable(self._busy, retry_after=soon())
        except BaseException:
            own.release()
            raise

        def end() -> None:
            self._all.release()
            own.release()

        return end


class WriteLimiter:
    """Transactions that write: so many of one person, and of one course, at a time.

    A transaction that waits for a lock keeps one of the few threads that write. While a purge
    locks a course, requests for that course would take all of them, and no other course could
    write.
    """

    def __init__(self, of_person: int, of_course: int) -> None:
        """0 for any number."""
        self._people = _Semaphores(of_person)
        self._courses = _Semaphores(of_course)

    async def take(self, person: Person, course_id: str) -> Callable[[], None]:
        """Wait for a turn; returns what ends it, to be called when the thread has ended.

        Raises Unavailable where it takes too long.
        """
        own, course = self._people.of(person), self._courses.of((person[0], course_id))
        if not await _taken(own, timeouts.DATABASE):
            raise Unavailable(
                "The exchange is still busy with other requests of yours. Try again shortly.",
                nothing_written=True,
            )
        try:
            if not await _taken(course, timeouts.DATABASE):
                raise Unavailable(
                    "The exchange is still busy with other requests for this course. Try again "
                    "shortly.",
                    nothing_written=True,
                )
        except BaseException:
            own.release()
            raise

        def end() -> None:
            course.release()
            own.release()

        return end


class _Semaphores:
    """A semaphore for each key, kept while it is in use. Each has `most` holders; 0: any number."""

    def __init__(self, most: int) -> None:
        self._most = most or sys.maxsize
        self._used: weakref.WeakValueDictionary[Hashable, asyncio.Semaphore] = (
            weakref.WeakValueDictionary()
        )

    def of(self, key: Hashable) -> asyncio.Semaphore:
        return self._used.setdefault(key, asyncio.Semaphore(self._most))


async def _taken(turns: asyncio.Semaphore, patience: float) -> bool:
    """Whether one was free within so many seconds."""
    if not turns.locked():
        return await turns.acquire()  # at once; a timeout would cost more than all else here
    try:
        async with asyncio.timeout(patience):
            return await turns.acquire()
    except TimeoutError:
        return False


class CheckLimiter:
    """One check of a person at a time. After one that was refused, the next has to wait.

    A bad archive may cost a thousand times more to check than to send, so it counts by the time
    that it took. The wait comes when the bytes of the next are here, so it uses up no deadline.
    """

    def __init__(self, wait: Callable[[float], Awaitable[None]]) -> None:
        self._wait = wait
        self._own: weakref.WeakValueDictionary[Person, asyncio.Lock] = weakref.WeakValueDictionary()
        self._resting: set[asyncio.Future[None]] = set()

    @contextlib.asynccontextmanager
    async def turn(self, person: Person) -> AsyncIterator[None]:
        """To be held while a check goes on; what that raises ends it."""
        lock = self._own.setdefault(person, asyncio.Lock())
        await lock.acquire()
        begun = time.monotonic()
        rest = 0.0
        try:
            yield
        except Unprocessable:
            rest = min(REST * (time.monotonic() - begun), LONGEST_REST)
            raise
        finally:
            if rest:
                self._release_after(rest, lock)
            else:
                lock.release()

    def _release_after(self, rest: float, lock: asyncio.Lock) -> None:
        """In the background, so that the refusal is answered at once."""
        resting = asyncio.ensure_future(self._wait(rest))
        self._resting.add(resting)
        resting.add_done_callback(lambda _: lock.release())
        resting.add_done_callback(self._resting.discard)


class Lease:
    """Something taken that has several holders; the last one to release it ends it."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._holders = 0

    def hold(self) -> Callable[[], None]:
        """Returns what releases it."""
        self._holders += 1
        return self._release

    def _release(self) -> None:
        self._holders -= 1
        if not self._holders:
            self._end()


class TokenBucket:
    """`rate` a second for each key, and `burst` at once after a rest. A rate of 0: no limit."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._rest = burst * self._interval
        self._clock = clock
        self._due: dict[Hashable, float] = {}
        """When the next of a key is due, if none is to be early; the least recent key first."""

    def delay(self, key: Hashable, at_most: float) -> float:
        """Seconds until this one's turn. It takes that turn, unless it would wait too long."""
        now = self._clock()
        self._forget(now)
        due = max(self._due.pop(key, now), now)
        delay = max(0.0, due - now - self._rest)
        if self._interval:
            self._due[key] = due + self._interval if delay <= at_most else due
        return delay

    def _forget(self, now: float) -> None:
        """Those who have rested are like those who never came. Two for each that comes."""
        for key in list(itertools.islice(self._due, 2)):
            if self._due[key] <= now:
                del self._due[key]

    def __len__(self) -> int:
        return len(self._due)


def soon() -> int:
    """Seconds, spread so that a class does not come back all at once."""
    return random.randint(3, 12)  # noqa: S311 (no secret)
