"""A fake hub that gives the answers of a test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.parts import PATIENCE

SCOPES = ["access:services!service=nbexchange"]
ADA: dict[str, Any] = {
    "kind": "user",
    "name": "ada",
    "groups": ["formgrade-physics"],
    "admin": False,
    "scopes": SCOPES,
}

TURNS = 5
"""Of the loop: from an accepted socket to its handler, and from an abort to a closed socket."""

Answer = bytes | Callable[[str], bytes]


def http(code: int, body: Any = None, *headers: str, hub: bool = True) -> bytes:
    """An answer of a hub; `body` is bytes, or a value that becomes JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {code} Whatever",
        f"Content-Length: {len(content)}",
        *(["X-JupyterHub-Version: 6.1.1"] if hub else []),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


class FakeHub:
    """`answers` maps a path below /hub/api/ to an answer, or to a function of the request's token
    that returns one. An empty answer means that the hub never answers.

    `hold` collects the requests for one path until `let_go`.
    """

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = dict(answers)
        self.asked: list[str] = []
        self.open = 0
        self.most_open = 0
        self.answered = 0
        self._held: str | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> FakeHub:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())
            runner.run(self._close_all())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._go = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.api_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hub/api"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _close_all(self) -> None:
        """Also connections that were accepted just before the end: a warning about one of them
        would fail another test."""
        for _ in range(TURNS):
            for writer in self._writers:
                writer.transport.abort()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Awaitable[None]:
        self._writers.add(writer)
        return self._answer(reader, writer)

    def hold(self, path: str) -> None:
        self._held = path

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._go.set)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Also at the end of the hub, which cancels requests that are still held.
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            await self._answer_one(reader, writer)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises IncompleteReadError if the client gave up before it sent the request."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode().removeprefix("/hub/api/")
        token = head.decode().partition("Authorization: token ")[2].split("\r\n")[0]
        self.asked.append(path)
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        if path == self._held:
            await self._go.wait()
        said = self.answers.get(path, http(404))
        content = said(token) if callable(said) else said
        if not content:
            await reader.read()  # until the service gives it up
        self.open -= 1
        self.answered += 1
        writer.write(content)
