"""A progress line for a user at a terminal. Without a terminal, it writes nothing."""

import sys
import time
from types import TracebackType
from typing import Self

from nbexchange.text import escaped

_EVERY = 0.2  # seconds


class Progress:
    """One line on standard error that is overwritten repeatedly, and removed at the end."""

    is_long = True
    """Whether it takes long enough to need a progress line."""

    def __init__(self, label: str, total: int | None = None) -> None:
        self._label = label
        self._total = total
        self._done = 0
        self._shown_at = 0.0
        self._is_wanted = self.is_long and sys.stderr.isatty()

    def restart(self, done: int = 0) -> None:
        self._done = done

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if self._is_wanted and now - self._shown_at >= _EVERY:
            self._shown_at = now
            self._write(f"{self._label}: {self.how_far(self._done, self._total)}")

    def how_far(self, done: int, total: int | None) -> str:
        if total is None:
            return f"{done:,}"
        return f"{done:,} of {total:,} ({percent(done, total)} %)"

    def print(self, line: str) -> None:
        """Print a permanent line on standard output, in place of the progress line.

        It is escaped, because names in it may contain characters that a terminal obeys.
        """
        self._clear()
        print(escaped(line), flush=True)  # noqa: T201 (for a person in a terminal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        if self._shown_at:
            self._write("")
            self._shown_at = 0.0

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")  # to the start of the line, and clear it
        sys.stderr.flush()


def percent(done: int, total: int) -> int:
    return min(100, 100 * done // max(total, 1))
