"""What a process says while it runs."""

from __future__ import annotations

import re
import threading

from tests.support.parts import PATIENCE


class Output:
    """What a process says, line by line, as it says it."""

    def __init__(self, descriptor: int, patience: float = PATIENCE) -> None:
        self.patience = patience
        self.lines: list[str] = []
        self.over = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, args=(descriptor,), daemon=True)
        self._thread.start()

    def _listen(self, descriptor: int) -> None:
        with open(descriptor, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self.over = True
            self._news.notify_all()

    def wait_for(self, pattern: str | re.Pattern[str], start: int = 0) -> re.Match[str] | None:
        """The first line from number `start` with the pattern; None if the process ended."""
        wanted = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return next(filter(None, map(wanted.search, self.lines[start:])), None)

        with self._news:
            assert self._news.wait_for(lambda: found() or self.over, self.patience), str(self)
            return found()

    def __str__(self) -> str:
        return "\n".join(self.lines)
