"""The queue of questions to the hub, and answers that are kept for a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LONGEST_CACHE = 30
"""Seconds during which a removed member may go on reading."""

MOST_WAITING = 1000
"""Strangers of each kind who wait; each more takes the place of one of them."""

MOST_KEPT = 10_000
"""Tokens, and groups, whose answers are kept."""

CROWDED = (
    "JupyterHub is to say of too many tokens at once whose they are, and yours was not among those "
    "that it came to; try again soon"
)


@dataclass(frozen=True)
class TokenOwner:
    """Whose a token is: the keys of `get_current_user`, and course_id -> role."""

    identity: Mapping[str, Any]
    courses: Mapping[str, str]
    is_service: bool = False


class PendingLookups:
    """Those who want to know whose one token is."""

    answer: asyncio.Task[TokenOwner]

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.put = 0
        """How many questions were; `answer` is that to the last."""


class Crowded(Exception):
    """Another took the place of this one among those who wait."""


class Lottery:
    """A semaphore that wakes a random one of those who wait.

    First come, first served would let a flood decide who is first: with more questions waiting than
    the hub answers in time, all of them would come too late. Here each has the same chance.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[asyncio.Future[None]] = []

    async def acquire(self) -> None:
        """Raises Crowded where more wait than may."""
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= MOST_WAITING and (drawn := self._draw()):
            drawn.set_exception(Crowded)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self.release()  # it was drawn in the same moment
            raise

    def release(self) -> None:
        if drawn := self._draw():
            drawn.set_result(None)
        else:
            self._free += 1

    def _draw(self) -> asyncio.Future[None] | None:
        """One of those who wait, if there are any. Those who gave up are left out."""
        while self._waiting:
            at = random.randrange(len(self._waiting))  # noqa: S311 (no secret)
            self._waiting[at], self._waiting[-1] = self._waiting[-1], self._waiting[at]
            drawn = self._waiting.pop()
            if not drawn.done():
                return drawn
        return None


async def undisturbed(asking: asyncio.Future[T]) -> T:
    """Its result. Cancelling one waiter must not cancel the shared task: others may wait for it,
    and Tornado logs an error when the end of a request finds no reader."""
    asking.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(asking)


class ExpiringCache(Generic[T]):
    """Recent answers. The oldest is forgotten first."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        asked, answer = self._answers.get(key, (None, None))
        if asked is None or self._clock() - asked >= self._seconds:
            return None
        return answer

    def last(self, key: str) -> T | None:
        """However old it is."""
        return self._answers.get(key, (None, None))[1]

    def keep(self, key: str, answer: T, asked: float) -> None:
        """`asked` is when the question was put; the answer does not know later changes."""
        self.drop(key)
        self._answers[key] = (asked, answer)
        if len(self._answers) > MOST_KEPT:
            del self._answers[next(iter(self._answers))]

    def drop(self, key: str) -> None:
        self._answers.pop(key, None)
