"""A proxy between the plugin and the service that makes trouble on request.

Everything goes through to the real service, except what a test said beforehand: `trouble.next`
takes a request ("POST submission") and what happens to it instead. Real sockets all the way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

PREFIX = "/services/nbexchange"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        return cls(
            status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()
        )

    @classmethod
    def refusal(cls, status: int, note: str, **headers: str) -> Answer:
        return cls.json({"success": False, "note": note, "value": []}, status, **headers)

    @classmethod
    def html(cls, status: int = 200, **headers: str) -> Answer:
        return cls(status, {"Content-Type": "text/html", **headers}, b"<h1>Log in</h1>")

    @classmethod
    def archive(cls, body: bytes) -> Answer:
        """An archive with everything that belongs to it."""
        digest = hashlib.sha256(body).digest()
        said = f"sha-256=:{base64.b64encode(digest).decode()}:"
        headers = {
            "Content-Type": "application/gzip",
            "ETag": f'"{digest.hex()}"',
            "Repr-Digest": said,
        }
        return cls(200, headers, body)


@dataclass
class Seen:
    """A request that came."""

    method: str
    name: str  # of the resource: "submission"
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


Reaction = Callable[["_Handler", Seen], None]


def say(answer: Answer) -> Reaction:
    """Give this answer instead of the service's."""

    def react(handler: _Handler, _seen: Seen) -> None:
        handler.send(answer)

    return react


def change(alter: Callable[[Any], Any]) -> Reaction:
    """Let `alter` change the service's JSON; it may change it in place and return None."""

    def react(handler: _Handler, seen: Seen) -> None:
        answer = handler.forward(seen)
        value = json.loads(answer.body)
        changed = alter(value)
        answer.body = json.dumps(value if changed is None else changed).encode()
        handler.send(answer)

    return react


def cut(after: int) -> Reaction:
    """Let the service answer, and break off after so many bytes of its body."""

    def react(handler: _Handler, seen: Seen) -> None:
        handler.send(handler.forward(seen), only=after)

    return react


def lose(handler: _Handler, seen: Seen) -> None:
    """Let the service do it, and never say so."""
    handler.forward(seen)
    handler.hang_up()


def drop(handler: _Handler, _seen: Seen) -> None:
    """Hang up before the service has heard anything."""
    handler.hang_up()


def pour(head: str, pieces: Iterable[bytes]) -> Reaction:
    """Send a header line by line, and then pieces for as long as the other side takes them."""

    def react(handler: _Handler, _seen: Seen) -> None:
        handler.wfile.write(head.replace("\n", "\r\n").encode())
        for piece in pieces:
            handler.wfile.write(piece)
        handler.hang_up()

    return react


def slowly(piece: bytes, pause: float) -> Iterator[bytes]:
    """The piece again and again with pauses, for much longer than a patient client waits."""
    for _ in range(int(30 / pause)):
        yield piece
        time.sleep(pause)


def hang(handler: _Handler, _seen: Seen) -> None:
    """Say nothing until the other side has had enough."""
    handler.connection.settimeout(30)
    handler.rfile.read(1)


class Middleman(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service_url = service_url
        self.url = f"http://127.0.0.1:{self.server_port}{PREFIX}"
        self.seen: list[Seen] = []
        self.connections = 0
        self._reactions: dict[str, deque[Reaction]] = defaultdict(deque)
        self._always: dict[str, Reaction] = {}

    def next_url(self) -> str:
        """Where the next request goes."""
        return self.service_url

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.connections += 1
        return True

    def next(self, request: str, *reactions: Reaction) -> None:
        """What happens to the next such requests; later ones pass unchanged."""
        self._reactions[request].extend(reactions)

    def always(self, request: str, reaction: Reaction) -> None:
        self._always[request] = reaction

    def reaction(self, seen: Seen) -> Reaction | None:
        request = f"{seen.method} {seen.name}"
        waiting = self._reactions[request]
        return waiting.popleft() if waiting else self._always.get(request)

    def requests(self, request: str) -> list[Seen]:
        return [seen for seen in self.seen if f"{seen.method} {seen.name}" == request]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The plugin may hang up when it likes."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Middleman

    def _any(self) -> None:
        parts = urlsplit(self.path)
        seen = Seen(
            self.command,
            parts.path.removeprefix(f"{PREFIX}/"),
            {key: values[0] for key, values in parse_qs(parts.query).items()},
            {key.lower(): value for key, value in self.headers.items()},
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        self.server.seen.append(seen)
        reaction = self.server.reaction(seen)
        if reaction:
            reaction(self, seen)
        else:
            self.send(self.forward(seen))

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 - http.server's names

    def forward(self, seen: Seen) -> Answer:
        headers = {key: value for key, value in seen.headers.items() if key != "host"}
        answer = requests.request(
            seen.method,
            f"{self.server.next_url()}/{seen.name}",
            params=seen.params,
            headers=headers,
            data=seen.body,
            timeout=30,
            stream=True,
        )
        with answer:
            kept = {
                key: value
                for key, value in answer.headers.items()
                if key.lower() not in ("content-length", "transfer-encoding", "connection")
            }
            return Answer(answer.status_code, kept, answer.raw.read())

    def send(self, answer: Answer, only: int | None = None) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[:only])
        if only is not None:
            self.hang_up()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


@contextmanager
def middleman(service_url: str) -> Iterator[Middleman]:
    server = Middleman(service_url)
    with running(server):
        yield server


@contextmanager
def running(server: Middleman) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
