"""What can go wrong between a service and its database server: a proxy that lets it.

It reads along in PostgreSQL's and MariaDB's own words, in the clear.
"""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import threading
from types import TracebackType

from tests.support.service import PATIENCE

PIECE = 65536

# What a driver says, and what PostgreSQL answers when the statement was prepared before.
WRITES = (b"INSERT INTO ", b"INSERT 0 ")
ENDS = (b"COMMIT", b"ROLLBACK")


PREPARE = re.compile(b"P.{4}_pg3_", re.DOTALL)
"""How psycopg says that a statement is to be kept under a name."""

BACKEND_KEY = b"K\0\0\0\x0c"
BACKEND = re.compile(re.escape(BACKEND_KEY) + b".{4}", re.DOTALL)
"""How PostgreSQL tells a client the number of its session."""

DISK_FULL = {
    "postgresql": b"E\0\0\0\x24SPANIC\0VPANIC\0C53100\0Mno space\0\0",
    "mariadb": b"\x11\0\0\1\xff\x02\x04#HY000no space",
}
"""How a server says so, in place of the answer to a COMMIT."""


class Fate(enum.Enum):
    """What becomes of the next COMMIT of a transaction that wrote."""

    ANSWER_LOST = "done, but nobody was told"
    NEVER_SENT = "cut off before the server saw it"
    HELD = "late: when `let_go` says so"
    DISK_FULL = "done, but the server said that its disk was full and died"


class Proxy:
    """Listens from `with` to its end."""

    def __init__(self, target: int, kind: str = "") -> None:
        """`kind` of the server is needed where it is to say something."""
        self._target = target
        self.disk_full = DISK_FULL.get(kind, b"")
        self._links: list[_Link] = []
        self._fate: Fate | None = None
        self._lock = threading.Lock()
        self._free = threading.Event()
        self.struck = threading.Event()
        """The fate has met a COMMIT."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = True
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.let_go()
        # Closing alone would not wake the thread that waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        self.cut()
        for link in self._links:
            link.join()

    # -- what goes wrong

    def cut(self) -> None:
        """Break every connection that there is."""
        for link in self._links:
            link.cut()

    def refuse(self) -> None:
        """Nobody comes through, as when the server is away, until `accept`."""
        self._open = False
        self.cut()

    def accept(self) -> None:
        self._open = True

    def arm(self, fate: Fate) -> None:
        with self._lock:
            self._fate = fate
            self.struck.clear()
            self._free.clear()

    def let_go(self) -> None:
        self._free.set()

    # -- the inside

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), PATIENCE)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._links.append(_Link(self, client, server))
            if not self._open:
                self._links[-1].cut()

    def next_fate(self) -> Fate | None:
        with self._lock:
            fate, self._fate = self._fate, None
            return fate

    def wait_until_free(self) -> None:
        self._free.wait(PATIENCE)

    def passed_on(self, piece: bytes, *, from_client: bool) -> bytes:
        """What becomes of what comes through."""
        return piece


class Pooler(Proxy):
    """Like PostgreSQL's poolers, it gives its clients other numbers than those of their sessions,
    and sees whether they prepare statements."""

    def __init__(self, target: int, *, own_numbers: bool = True) -> None:
        super().__init__(target)
        self._own_numbers = own_numbers
        self.prepared = False

    def passed_on(self, piece: bytes, *, from_client: bool) -> bytes:
        if from_client:
            self.prepared |= PREPARE.search(piece) is not None
        elif self._own_numbers:
            return BACKEND.sub(BACKEND_KEY + b"\0\0\0\1", piece)
        return piece


class _Link:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._wrote = self._is_last = False
        self._last_words = b""
        self._threads = [
            threading.Thread(target=self._pass, args=ways, daemon=True)
            for ways in ((client, server), (server, client))
        ]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
        self._client.close()
        self._server.close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                from_client = source is self._client
                if not self._may_pass(piece, from_client=from_client):
                    break
                target.sendall(self._proxy.passed_on(piece, from_client=from_client))
        self.cut()

    def _may_pass(self, piece: bytes, *, from_client: bool) -> bool:
        if any(word in piece for word in WRITES):
            self._wrote = True
        if not from_client:
            # The answer to the COMMIT: now it has happened.
            if self._is_last:
                self._client.sendall(self._last_words)
                self._proxy.struck.set()
            return not self._is_last
        if not any(word in piece for word in ENDS):
            return True
        wrote, self._wrote = self._wrote, False
        fate = self._proxy.next_fate() if wrote and ENDS[0] in piece else None
        return self._meet(fate)

    def _meet(self, fate: Fate | None) -> bool:
        if fate in (Fate.ANSWER_LOST, Fate.DISK_FULL):
            self._last_words = self._proxy.disk_full if fate is Fate.DISK_FULL else b""
            self._is_last = True
            return True
        if fate is not None:
            self._proxy.struck.set()
        if fate is Fate.HELD:
            self._proxy.wait_until_free()
        return fate is not Fate.NEVER_SENT
