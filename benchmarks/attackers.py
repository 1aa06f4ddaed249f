"""Clients that do harm, in a process of their own: `python -m benchmarks.attackers URL KIND ...`.

    header     a byte of a request's header a second
    body       a byte of a submission a second
    reader     a byte of a download a second
    flood      requests that are refused, each as soon as the one before was answered
    malformed  what is no HTTP, the same

They begin when they are connected, say `ready`, come again when they are thrown out, and go on
until their standard input ends. Then they say what they were answered, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

TOP = Path(__file__).parent.parent
STEP = 0.02
"""Seconds between two looks at the slow ones; a part of them moves each time."""


class Attackers:
    """Attackers on a service, until they are told to end."""

    def __init__(
        self, url: str, kind: str, count: int, tokens: Sequence[str] = (), query: str = ""
    ) -> None:
        self._command = [sys.executable, "-m", "benchmarks.attackers", url, kind, str(count)]
        self._command += [f"--query={query}", *(f"--token={token}" for token in tokens)]
        self.answers: Counter[str] = Counter()
        """Statuses, and how often each was answered; known at the end."""

    def __enter__(self) -> Attackers:
        self._process = subprocess.Popen(
            self._command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the attackers do not begin")
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        said, _ = self._process.communicate()
        self.answers = Counter(json.loads(said))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attackers")
    parser.add_argument("url")
    parser.add_argument("kind", choices=["header", "body", "reader", "flood", "malformed"])
    parser.add_argument("count", type=int)
    parser.add_argument("--token", action="append", default=[])
    parser.add_argument("--query", default="")
    arguments = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    if arguments.kind in ("flood", "malformed"):
        answers = asyncio.run(_flood(arguments, over))
    else:
        answers = _drip(arguments, over)
    print(json.dumps(answers))


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _head(url: str, line: str, *headers: str) -> bytes:
    lines = [f"{line} HTTP/1.1", f"Host: {urlsplit(url).netloc}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# -- the slow ones


class _Slow:
    """One of them. `head` is sent at once, then a byte of `rest` at a time; or a byte is read."""

    def __init__(self, url: str, head: bytes, rest: bytes, *, reads: bool) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._head, self._rest, self._reads = head, rest, reads
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        self._socket = socket.socket()
        if self._reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._socket.settimeout(30)
        self._socket.connect(self._address)
        self._socket.setblocking(False)
        self._socket.send(self._head)
        self._bytes = iter(self._rest)

    def move(self) -> str | None:
        """What became of it: a status, `cut`, or None while it goes on."""
        try:
            if self._socket is None:
                self.connect()
                return None
            said = self._socket.recv(1 if self._reads else 4096) if self._has_news() else b" "
            if self._reads and said:
                return None
            if said == b" ":
                self._socket.send(bytes([next(self._bytes)]))
                return None
            return self._end(said.split(b" ")[1].decode() if said.count(b" ") > 1 else "cut")
        except (OSError, StopIteration):
            return self._end("cut")

    def _has_news(self) -> bool:
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLHUP)
        return bool(poll.poll(0))

    def _end(self, what: str) -> str:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        return what


def _drip(arguments: argparse.Namespace, over: threading.Event) -> Counter[str]:
    all_of_them = [_slow(arguments, number) for number in range(arguments.count)]
    for one in all_of_them:
        one.connect()
    print("ready", flush=True)
    answers: Counter[str] = Counter()
    waves = _waves(all_of_them, round(1 / STEP))
    while not over.wait(STEP):
        answers.update(filter(None, [one.move() for one in next(waves)]))
    return answers


def _waves(everybody: list[_Slow], number: int) -> Iterator[list[_Slow]]:
    """Each a part of them, so that all have moved after so many."""
    while True:
        for wave in range(number):
            yield everybody[wave::number]


def _slow(arguments: argparse.Namespace, number: int) -> _Slow:
    url, path = arguments.url, urlsplit(arguments.url).path
    token = arguments.token[number % len(arguments.token)] if arguments.token else "none"
    login = f"Authorization: Bearer {token}"
    if arguments.kind == "header":
        return _Slow(
            url, b"", _head(url, f"GET {path}/assignments", "X: " + "x" * 900), reads=False
        )
    if arguments.kind == "body":
        line = f"POST {path}/submission?{arguments.query}"
        return _Slow(
            url, _head(url, line, login, "Content-Length: 100000"), bytes(9999), reads=False
        )
    return _Slow(url, _head(url, f"GET {path}/{arguments.query}", login), b"", reads=True)


# -- the fast ones


async def _flood(arguments: argparse.Namespace, over: threading.Event) -> Counter[str]:
    answers: Counter[str] = Counter()
    url = arguments.url
    parts = urlsplit(url)
    bad = [b"nonsense\r\n\r\n"] if arguments.kind == "malformed" else _bad_requests(url)
    if arguments.token:
        bad = _bad_requests_of(url, arguments.token[0])
    tasks = [
        asyncio.create_task(_ask_again_and_again(parts.hostname, parts.port, bad, answers, one))
        for one in range(arguments.count)
    ]
    print("ready", flush=True)
    await asyncio.to_thread(over.wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


def _bad_requests(url: str) -> list[bytes]:
    path = urlsplit(url).path
    return [
        _head(url, f"GET {path}/assignments"),
        _head(url, f"GET {path}/assignments", "Authorization: Bearer nobody"),
        _head(url, f"GET {path}/nothing-here"),
        _head(url, f"PUT {path}/assignment"),
        _head(url, f"NONSENSE {path}/assignment"),
    ]


def _bad_requests_of(url: str, token: str) -> list[bytes]:
    """Of somebody who is known."""
    path, login = urlsplit(url).path, f"Authorization: Bearer {token}"
    return [
        _head(url, f"GET {path}/assignment", login),
        _head(url, f"GET {path}/assignments?course_id=none", login),
        _head(url, f"GET {path}/collections?course_id=none&limit=x", login),
    ]


async def _ask_again_and_again(
    host: str | None, port: int | None, bad: list[bytes], answers: Counter[str], number: int
) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                while True:
                    writer.write(bad[number % len(bad)])
                    number += 1
                    head = await reader.readuntil(b"\r\n\r\n")
                    answers[head.split()[1].decode()] += 1
                    length = head.lower().partition(b"content-length:")[2].split()
                    await reader.readexactly(int(length[0]) if length else 0)
            finally:
                writer.close()
        answers["connections"] += 1


if __name__ == "__main__":
    main()
