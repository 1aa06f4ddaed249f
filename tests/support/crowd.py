"""Students who submit while something breaks, and what has become of their work."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests

from tests.support.archives import sha256, tar_gz
from tests.support.course import collect, submit
from tests.support.service import Service, Wire
from tests.support.threads import at_work

UPLOADERS = 8

Given = list[tuple[dict[str, Any], str]]
"""Receipts, each with the hash of what it is for."""


class Crowd:
    """Students who submit as the plugin does: until they have a receipt, and then again.

    `url` is asked before each attempt, for a service has another after each start.
    """

    def __init__(
        self,
        service: Service,
        url: Callable[[], str] | None = None,
        sizes: Sequence[int] = (100, 50_000),
    ) -> None:
        self.receipts: Given = []
        self.refusals: list[float] = []
        """How many seconds each took to come."""
        self._url = url or (lambda: service.url)
        self._sizes = sizes
        self._news = threading.Condition()
        self._tokens = [
            service.enrol(f"student{number}", {"physics": "Student"}) for number in range(UPLOADERS)
        ]

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        return at_work(functools.partial(self._work, token) for token in self._tokens)

    def wait_for(self, number: int, *, of: list[Any]) -> None:
        """Wait for so many more."""
        with self._news:
            wanted = len(of) + number
            assert self._news.wait_for(lambda: len(of) >= wanted, 60)

    def _work(self, token: str, over: threading.Event) -> None:
        number = 0
        while not over.is_set():
            number += 1
            body = tar_gz(p1=os.urandom(random.choice(self._sizes)))
            given = self._submit(token, body, f"work-{number}")
            self._note(self.receipts, (given, sha256(body)))

    def _submit(self, token: str, body: bytes, key: str) -> dict[str, Any]:
        while True:
            wire, begun = Wire(self._url(), token), time.monotonic()
            with contextlib.suppress(requests.RequestException), wire.session:
                answer = submit(wire, body, key)
                if answer.status_code == 201:
                    return answer.json()
                # 502 is a load balancer's.
                assert answer.status_code in (502, 503), answer.text
                assert answer.status_code == 502 or int(answer.headers["Retry-After"]) > 0
            self._note(self.refusals, time.monotonic() - begun)
            # Sooner than Retry-After says, but not at once: the processor is for the others.
            threading.Event().wait(0.05)

    def _note(self, where: list[Any], what: Any) -> None:
        with self._news:
            where.append(what)
            self._news.notify_all()


def account(service: Service, given: Given, rows: list[dict[str, Any]]) -> dict[str, int]:
    """What has become of the submissions that were acknowledged; `rows` are those of the table."""
    ada = service.instructor()
    read = [(collect(ada, one["submission_id"]), digest) for one, digest in given]
    keys = [(row["user_pk"], row["idempotency_key"]) for row in rows]
    return {
        "acknowledged": len(given),
        "lost": sum(not answer.ok for answer, _ in read),
        "wrong": sum(answer.ok and sha256(answer.content) != digest for answer, digest in read),
        "duplicates": len(keys) - len(set(keys)),
    }


def whole(given: Given) -> dict[str, int]:
    return {"acknowledged": len(given), "lost": 0, "wrong": 0, "duplicates": 0}
