"""How far a long transfer is, for a person who waits at a terminal."""

import sys
import time
from types import TracebackType
from typing import Self

_LONG = 5_000_000  # bytes; what is shorter is over before anybody wonders
_EVERY = 0.2  # seconds


class Progress:
    """One line on standard error that is written over and over, and removed at the end."""

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._shown_at = 0.0
        self._is_wanted = total > _LONG and sys.stderr.isatty()

    def restart(self, done: int = 0) -> None:
        self._done = done

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._is_wanted and now - self._shown_at >= _EVERY:
            self._shown_at = now
            percent = min(100, 100 * self._done // self._total)
            self._write(f"{self._label}: {percent} % of {self._total / 1e6:.0f} MB")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._shown_at:
            self._write("")

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")  # to the start of the line, and clear it
        sys.stderr.flush()
