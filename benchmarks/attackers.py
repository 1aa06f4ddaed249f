"""Clients that do harm, in a process of their own: `python -m benchmarks.attackers URL KIND ...`.

    header     a byte of a request's header a second
    body       a byte of a submission a second
    refused    1,100 bytes of a submission a second
    reader     a byte of a download a second
    flood      requests that are refused, each as soon as the one before was answered
    malformed  what is no HTTP, the same
    strangers  lists, each with a token that nobody has; --query says of which form: odd or hub
    chunks     a submission with a byte in each chunk, as fast as it is taken
    crumbs     a header of 60 kB, and then a byte in each packet, as fast as they are taken
    pipelined  requests that are sent before the one before is answered

They begin when they are connected, say `ready`, come again when they are thrown out, and go on
until their standard input ends. Then they say what they were answered, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOP = Path(__file__).parent.parent
SLOW = ("header", "body", "refused", "reader")
FLOODS = ("flood", "malformed", "strangers")
BLASTS = ("chunks", "crumbs", "pipelined")

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
    parser.add_argument("kind", choices=[*SLOW, *FLOODS, *BLASTS])
    parser.add_argument("count", type=int)
    parser.add_argument("--token", action="append", default=[])
    parser.add_argument("--query", default="")
    arguments = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    if arguments.kind in FLOODS:
        answers = asyncio.run(_flood(arguments, over))
    elif arguments.kind in BLASTS:
        answers = asyncio.run(_blast(arguments, over))
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
    """One of them. `head` is sent at once, then a piece of `rest` at a time; or a byte is read."""

    def __init__(
        self, url: str, head: bytes, rest: bytes, *, piece: int = 1, reads: bool = False
    ) -> None:
        self._address = (urlsplit(url).hostname, urlsplit(url).port)
        self._head, self._piece, self._reads = head, piece, reads
        self._pieces = [rest[start : start + piece] for start in range(0, len(rest), piece)]
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        self._socket = socket.socket()
        if self._reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._socket.settimeout(30)
        self._socket.connect(self._address)
        self._socket.setblocking(False)
        self._socket.send(self._head)
        self._left = iter(self._pieces)

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
                self._socket.send(next(self._left))
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
        return _Slow(url, b"", _head(url, f"GET {path}/assignments", "X: " + "x" * 900))
    if arguments.kind == "reader":
        return _Slow(url, _head(url, f"GET {path}/{arguments.query}", login), b"", reads=True)
    line = f"POST {path}/submission?{arguments.query}"
    if arguments.kind == "refused":
        head = _head(url, line, login, "Content-Length: 60000000")
        return _Slow(url, head, bytes(10**6), piece=1100)
    return _Slow(url, _head(url, line, login, "Content-Length: 100000"), bytes(9999))


# -- the fast ones


async def _flood(arguments: argparse.Namespace, over: threading.Event) -> Counter[str]:
    answers: Counter[str] = Counter()
    url = arguments.url
    parts = urlsplit(url)
    await _all_at_once(
        (
            _ask_again_and_again(parts.hostname, parts.port, _all_bad(arguments, one), answers)
            for one in range(arguments.count)
        ),
        over,
    )
    return answers


def _all_bad(arguments: argparse.Namespace, number: int) -> Iterator[bytes]:
    """The requests of one of them, without an end."""
    url = arguments.url
    if arguments.kind == "strangers":
        return _requests_of_strangers(url, is_odd=arguments.query == "odd")
    bad = [b"nonsense\r\n\r\n"] if arguments.kind == "malformed" else _bad_requests(url)
    if arguments.token:
        bad = _bad_requests_of(url, arguments.token[0])
    return itertools.islice(itertools.cycle(bad), number % len(bad), None)


def _requests_of_strangers(url: str, *, is_odd: bool) -> Iterator[bytes]:
    path = urlsplit(url).path
    while True:
        token = f"{'odd-' if is_odd else ''}{uuid.uuid4().hex}"
        yield _head(url, f"GET {path}/assignments", f"Authorization: Bearer {token}")


async def _all_at_once(attacks: Iterable[Coroutine[Any, Any, None]], over: threading.Event) -> None:
    tasks = [asyncio.create_task(attack) for attack in attacks]
    print("ready", flush=True)
    await asyncio.to_thread(over.wait)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
    host: str | None, port: int | None, bad: Iterator[bytes], answers: Counter[str]
) -> None:
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                while True:
                    writer.write(next(bad))
                    head = await reader.readuntil(b"\r\n\r\n")
                    answers[head.split()[1].decode()] += 1
                    length = head.lower().partition(b"content-length:")[2].split()
                    await reader.readexactly(int(length[0]) if length else 0)
            finally:
                writer.close()
        answers["connections"] += 1


# -- those that send without a pause


async def _blast(arguments: argparse.Namespace, over: threading.Event) -> Counter[str]:
    answers: Counter[str] = Counter()
    parts = urlsplit(arguments.url)
    await _all_at_once(
        (
            _send_again_and_again(parts.hostname, parts.port, *_endless(arguments, number), answers)
            for number in range(arguments.count)
        ),
        over,
    )
    return answers


def _endless(arguments: argparse.Namespace, number: int) -> tuple[bytes, bytes]:
    """What is sent first, and what again and again after it."""
    url, path = arguments.url, urlsplit(arguments.url).path
    tokens = arguments.token
    login = [f"Authorization: Bearer {tokens[number % len(tokens)]}"] if tokens else []
    if arguments.kind == "chunks":
        line = f"POST {path}/submission?{arguments.query}"
        return _head(url, line, *login, "Transfer-Encoding: chunked"), 1000 * b"1\r\nx\r\n"
    if arguments.kind == "crumbs":
        return _head(url, f"GET {path}/assignments", *login)[:-2] + b"X: " + 60_000 * b"x", b"x"
    return b"", 20 * _head(url, f"GET {path}/healthz")


async def _send_again_and_again(
    host: str | None, port: int | None, first: bytes, more: bytes, answers: Counter[str]
) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                sending = asyncio.create_task(_send_for_ever(writer, first, more))
                await _count_answers(reader, answers)
            finally:
                sending.cancel()
                writer.close()
        answers["connections"] += 1
        await asyncio.sleep(STEP)


async def _send_for_ever(writer: asyncio.StreamWriter, first: bytes, more: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(first)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0)


async def _count_answers(reader: asyncio.StreamReader, answers: Counter[str]) -> None:
    """Until the connection is closed."""
    while piece := await reader.read(65536):
        for status in re.findall(rb"HTTP/1.1 (\d+)", piece):
            answers[status.decode()] += 1


if __name__ == "__main__":
    main()
