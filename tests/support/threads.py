"""Several people at once, each in a thread, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

Work = Callable[[threading.Event], None]
"""Ends soon after the event is set."""


@contextlib.contextmanager
def at_work(works: Iterable[Work]) -> Iterator[None]:
    over = threading.Event()
    threads = [threading.Thread(target=work, args=(over,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
