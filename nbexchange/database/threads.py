"""Threads that wait for a database server."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ServerThreads(Executor):
    """An executor whose threads do not delay the end of the process.

    Python waits for the threads of a ThreadPoolExecutor: with a frozen server the service did not
    end until it was killed. Timeouts do not cover every call that can block, such as resolving a
    host name.
    """

    def __init__(self, number: int, name: str) -> None:
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(number)
        ]
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the database was closed")
            self._start()
            self._tasks.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's)
        """`wait` has no meaning here."""
        with self._lock:
            self._closed = True
        if cancel_futures:
            self._cancel()
        for _ in self._threads:
            self._tasks.put(None)

    def _cancel(self) -> None:
        try:
            while task := self._tasks.get_nowait():
                task[0].cancel()
        except Empty:
            pass

    def _work(self) -> None:
        while task := self._tasks.get():
            _do(*task)
            # So that the result's rows are not kept in memory until the next task.
            del task


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
        future.set_exception(error)
