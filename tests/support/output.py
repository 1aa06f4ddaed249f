"""What a process says while it runs."""

from __future__ import annotations

import os
import re
import select
import threading

from tests.support.parts import PATIENCE


class Output:
    """What a process says, line by line, as it says it."""

    def __init__(self, descriptor: int, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.lines: list[str] = []
        self.over = False
        self._rest = b""
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, args=(descriptor,), daemon=True)
        self._thread.start()

    def _listen(self, descriptor: int) -> None:
        poll = select.poll()  # select() takes no number above 1,023
        poll.register(descriptor, select.POLLIN)
        with open(descriptor, "rb", buffering=0):
            while not self.over:
                poll.poll()
                self._take()

    def _take(self) -> None:
        """All that was said until now."""
        with self._news:
            while piece := self._read():
                *lines, self._rest = (self._rest + piece).split(b"\n")
                self.lines += [line.decode(errors="replace") for line in lines]
            self._news.notify_all()

    def _read(self) -> bytes:
        """Nothing where nothing more has come yet, or when it is over."""
        if self.over:
            return b""
        try:
            piece = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return b""
        if not piece:
            self.over = True
            # What was said without the end of its line.
            return b"\n" if self._rest else b""
        return piece

    def wait_for(self, pattern: str | re.Pattern[str], start: int = 0) -> re.Match[str] | None:
        """The first line from number `start` with the pattern; None if the process ended."""
        wanted = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return next(filter(None, map(wanted.search, self.lines[start:])), None)

        with self._news:
            assert self._news.wait_for(lambda: found() or self.over, self.patience), str(self)
            return found()

    def __str__(self) -> str:
        """Also what was said just before an answer that a test has already."""
        self._take()
        return "\n".join(self.lines)
