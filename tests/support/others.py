"""How long others wait while somebody does harm, against what they wait when nobody does."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any

import requests

from benchmarks.meters import percentile
from tests.support.course import PS1, submit
from tests.support.service import Service
from tests.support.threads import at_work

PAUSE = 0.003

MOST_ROUNDS = 6

FLOOR_MS = 25.0
"""What a busy machine adds to a wait of a few milliseconds, whoever attacks."""


Ask = Callable[[], requests.Response]


def readers(service: Service) -> list[Ask]:
    """A probe, which takes the loop alone, and a student who lists, which takes the database."""
    nobody, other = service.wire(None), service.student(name="other")
    return [lambda: nobody.get("healthz"), lambda: other.get("assignments", **PS1)]


def submitters(service: Service) -> list[Ask]:
    """The same, and a student who submits, which takes all there is; a thousand times one may not,
    so it is the same submission again and again."""
    writer = service.student(name="writer")
    return [*readers(service), lambda: submit(writer, key="again")]


class Others:
    """People who go on asking, each as soon as the answer has come."""

    def __init__(self, asks: list[Ask]) -> None:
        self._asks = asks
        self._waits: list[float] = []

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        return at_work(functools.partial(self._go_on, ask) for ask in self._asks)

    def _go_on(self, ask: Ask, over: threading.Event) -> None:
        while True:
            answer = ask()
            assert answer.ok, answer.text
            self._waits.append(answer.elapsed.total_seconds())
            if over.wait(PAUSE):
                return

    @property
    def p95_ms(self) -> float:
        return 1000 * percentile(self._waits, 95)


class Waits:
    """What others waited: in the best of several rounds, each with and without the attack.

    An attack that keeps others waiting does so in each; what else the machine does, does not.
    """

    def __init__(self, others: Callable[[Service], list[Ask]] = readers) -> None:
        self._others = others
        self._idle: list[float] = []
        self._attacked: list[float] = []

    def watch(
        self,
        service: Service,
        attack: Callable[[], contextlib.AbstractContextManager[Any]],
        seconds: float,
        bearable: Callable[[float], float] = lambda idle_ms: 2 * idle_ms + FLOOR_MS,
    ) -> None:
        """Go on until the waits are `bearable`, which says how many ms after so many idle ones."""
        for _ in range(MOST_ROUNDS):
            self._round(service, attack, seconds)
            if self.attacked_ms <= bearable(self.idle_ms):
                return
        raise AssertionError(str(self))

    def watch_after(
        self,
        service: Service,
        attack: Callable[[], contextlib.AbstractContextManager[Any]],
        seconds: float,
    ) -> None:
        """The same for an attack that goes on when it was ended: all rounds without it first."""
        for _ in range(MOST_ROUNDS // 2):
            self._idle.append(self._wait(service, seconds))
        with attack():
            for _ in range(MOST_ROUNDS):
                self._attacked.append(self._wait(service, seconds))
                if self.attacked_ms <= 2 * self.idle_ms + FLOOR_MS:
                    return
        raise AssertionError(str(self))

    def _round(
        self,
        service: Service,
        attack: Callable[[], contextlib.AbstractContextManager[Any]],
        seconds: float,
    ) -> None:
        self._idle.append(self._wait(service, seconds))
        with attack():
            self._attacked.append(self._wait(service, seconds))

    def _wait(self, service: Service, seconds: float) -> float:
        others = Others(self._others(service))
        with others.at_work():
            threading.Event().wait(seconds)
        return others.p95_ms

    @property
    def rounds(self) -> int:
        return len(self._idle)

    @property
    def idle_ms(self) -> float:
        return min(self._idle)

    @property
    def attacked_ms(self) -> float:
        return min(self._attacked)

    def __repr__(self) -> str:
        return f"p95 {self.idle_ms:.1f} ms before, {self.attacked_ms:.1f} ms during the attack"
