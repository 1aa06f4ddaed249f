"""How much one person may ask for, and how much all may at once: the one place of these rules.

A person is a name in an organisation, never an address: a whole university may come from one. Who
is not known yet shares one allowance with all who are not known.

Whoever asks too fast waits first, which costs us nothing and paces a client that asks again only
when it has its answer; a 429 or 503 comes where waiting would take too long. The same goes for
refusals: a client that sends nonsense is slowed down to what its allowance is.
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
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from nbexchange.errors import TooManyRequests, Unavailable

LONGEST_HOLD = 5.0
"""Seconds that a refusal may wait."""

MOST_HELD = 1000
"""Refusals that may wait at a time; beyond, a connection is closed without an answer."""

REFUSALS_AT_ONCE = 4
"""Times what may be refused in a second: so many are refused at once after a rest."""

Person = tuple[int, str]
"""Organisation and name."""


@dataclass(frozen=True)
class Allowance:
    """0 for no limit."""

    requests: int = 64
    """Of one person, under way at a time."""
    rate: float = 100
    """Requests of one person a second, after `burst` of them."""
    burst: int = 2000
    transfers: int = 16
    """Files of one person at a time, in, and as many out; more wait for their turn."""
    lists: int = 2
    """Lists of one person at a time, until they have been read: a whole one may be megabytes, and
    takes a thread of the database for as long as a hundred other requests."""
    all_transfers: int = 400
    patience: float = 8
    """Seconds that a request may wait for its turn; old clients give up after ten."""
    refusals: float = 50
    """A second, of one person and of all unknown together; more wait before they are said."""


class Turnstile:
    """Lets people in, one by one. `stopping` is set when nobody shall wait any more."""

    def __init__(
        self,
        allowance: Allowance,
        stopping: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowance = allowance
        self._stopping = stopping
        self._here: Counter[Person] = Counter()
        self._requests = Pace(allowance.rate, allowance.burst, clock)
        self._refusals = Pace(allowance.refusals, REFUSALS_AT_ONCE * allowance.refusals, clock)
        self._held = 0
        files = allowance.transfers
        self.uploads = Turns(
            allowance, files, "sending", "takes", "files", "so this one was not stored; send it"
        )
        self.downloads = Turns(
            allowance, files, "fetching", "sends", "files", "so this one has to wait; ask for it"
        )
        self.lists = Turns(
            allowance, allowance.lists, "fetching", "sends", "lists", "so ask for this one"
        )

    # -- requests

    @contextlib.contextmanager
    def one_of(self, person: Person) -> Iterator[None]:
        """Counts as one of the person's requests. Raises TooManyRequests beyond the limit."""
        if 0 < self._allowance.requests <= self._here[person]:
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
        """Wait where somebody asks too fast. Raises TooManyRequests where that takes too long."""
        delay = self._requests.delay(person, self._allowance.patience)
        if delay > self._allowance.patience:
            raise TooManyRequests(
                f"you ask for more than {self._allowance.rate:g} things a second; try again soon",
                retry_after=soon(),
            )
        await self._wait(delay)

    # -- refusals

    async def hold(self, person: Person | None) -> bool:
        """Let a refusal wait; None is whoever is not known. False where it is not to be said."""
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


class Turns:
    """What is on its way in one direction: so much of one person, and so much of all, at a time."""

    def __init__(
        self, allowance: Allowance, most: int, person_is: str, we_do: str, what: str, outcome: str
    ) -> None:
        self._patience = allowance.patience
        self._most = most or sys.maxsize
        self._all = asyncio.Semaphore(allowance.all_transfers or sys.maxsize)
        self._own: weakref.WeakValueDictionary[Person, asyncio.Semaphore] = (
            weakref.WeakValueDictionary()
        )
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
        own = self._own.setdefault(person, asyncio.Semaphore(self._most))
        if not await self._take(own):
            raise TooManyRequests(self._too_many, retry_after=soon())
        try:
            if not await self._take(self._all):
                raise Unavailable(self._busy, retry_after=soon())
        except BaseException:
            own.release()
            raise

        def end() -> None:
            self._all.release()
            own.release()

        return end

    async def _take(self, turns: asyncio.Semaphore) -> bool:
        if not turns.locked():
            return await turns.acquire()  # at once; a timeout would cost more than all else here
        try:
            async with asyncio.timeout(self._patience):
                return await turns.acquire()
        except TimeoutError:
            return False


class Pace:
    """`rate` a second for each key, and `burst` at once after a rest. A rate of 0 is no limit."""

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
