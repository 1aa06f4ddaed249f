"""How long others wait while somebody does harm, against what they wait when nobody does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from benchmarks.meters import percentile
from tests.support.course import PS1
from tests.support.service import Service, Wire

PAUSE = 0.003

MOST_ROUNDS = 6

FLOOR_MS = 25.0
"""What a busy machine adds to a wait of a few milliseconds, whoever attacks."""


class Others:
    """A probe, which takes the loop alone, and a student who lists, which takes the database."""

    def __init__(self, service: Service) -> None:
        self._over = threading.Event()
        self._waits: list[float] = []
        wires = (
            (service.wire(None), "healthz", {}),
            (service.student(name="other"), "assignments", PS1),
        )
        self._threads = [threading.Thread(target=self._ask, args=asked) for asked in wires]

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, wire: Wire, path: str, params: dict[str, str]) -> None:
        while True:
            answer = wire.get(path, **params)
            assert answer.ok, answer.text
            self._waits.append(answer.elapsed.total_seconds())
            if self._over.wait(PAUSE):
                return

    @property
    def p95_ms(self) -> float:
        return 1000 * percentile(self._waits, 95)


class Waits:
    """What others waited: in the best of several rounds, each with and without the attack.

    An attack that keeps others waiting does so in each; what else the machine does, does not.
    """

    def __init__(self) -> None:
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

    def _round(
        self,
        service: Service,
        attack: Callable[[], contextlib.AbstractContextManager[Any]],
        seconds: float,
    ) -> None:
        with Others(service) as idle:
            threading.Event().wait(seconds)
        with attack(), Others(service) as attacked:
            threading.Event().wait(seconds)
        self._idle.append(idle.p95_ms)
        self._attacked.append(attacked.p95_ms)

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
