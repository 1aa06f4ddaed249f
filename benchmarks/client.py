"""A client that costs little: it shares the machine's cores with what it measures.

Bodies are made beforehand and large ones are sent by the kernel; what is downloaded is counted and
dropped.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from benchmarks.bodies import Body
from benchmarks.sizes import MB

T = TypeVar("T")
PATIENCE = 300
"""Seconds until an answer is given up."""


@dataclass(frozen=True)
class Answer:
    size: int
    seconds: float
    text: bytes
    """Empty where the answer was dropped."""

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """One connection of one person, kept until it is closed."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._connection = kind[parts.scheme](parts.netloc, timeout=PATIENCE, blocksize=MB)
        self._path = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, path: str, /, **params: Any) -> Answer:
        return self._call("GET", path, params, None, {}, keep=True)

    def download(self, path: str, /, **params: Any) -> Answer:
        """Read to the end and drop."""
        return self._call("GET", path, params, None, {}, keep=False)

    def upload(
        self,
        path: str,
        body: Body,
        /,
        method: str = "POST",
        kind: str = "application/gzip",
        **params: Any,
    ) -> Answer:
        headers = {
            "Content-Length": str(body.size),
            "Content-Type": kind,
            "Content-Digest": body.digest,
            "Idempotency-Key": secrets.token_hex(16),
        }
        return self._call(method, path, params, body.content, headers, keep=True)

    def _call(
        self,
        method: str,
        path: str,
        params: dict[str, Any],
        content: bytes | Path | None,
        headers: dict[str, str],
        *,
        keep: bool,
    ) -> Answer:
        address = f"{self._path}/{path}" + (
            f"?{urlencode(params, quote_via=quote)}" if params else ""
        )
        began = time.perf_counter()
        in_memory = content if isinstance(content, bytes) else None
        self._connection.request(method, address, in_memory, self._headers | headers)
        if isinstance(content, Path):
            with content.open("rb") as file:
                self._connection.sock.sendfile(file)
        answer = self._connection.getresponse()
        text, size = _read(answer, keep=keep or answer.status >= 300)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return Answer(size, time.perf_counter() - began, text)


def _read(answer: http.client.HTTPResponse, *, keep: bool) -> tuple[bytes, int]:
    if keep:
        text = answer.read()
        return text, len(text)
    buffer = bytearray(MB)
    size = 0
    while count := answer.readinto(buffer):
        size += count
    return b"", size


def crowd(people: Iterable[T], act: Callable[[T], float], at_a_time: int) -> Sequence[float]:
    """Everybody acts once, so many at a time; what `act` says, mostly how long it took."""
    with ThreadPoolExecutor(at_a_time) as threads:
        return list(threads.map(act, people))
