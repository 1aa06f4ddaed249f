"""Named jobs in daemon threads, so that no request of a Jupyter server waits for the exchange.

* A job has a key. While it runs, starting the same key again gives the same job.
* A job runs in a lane. A lane has a fixed number of threads; further jobs wait in order.
* `Job.ended_within` only stops waiting. The job continues, because a thread cannot be stopped.
* The threads are daemons, so SIGTERM ends the process while jobs still run.
"""

import asyncio
import concurrent.futures
import contextlib
import datetime
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
COMPUTING = threading.Lock()
"""Locked while an archive is packed or unpacked: two threads that compute in Python would delay
every request of a Jupyter server."""


def answer_after(settings: Mapping[str, Any]) -> float:
    """Seconds after which a request is answered, whether its job has ended or not.

    The documentation promises ten seconds. The difference is the time for sending the answer.

    `settings` are those of the Jupyter server (`ServerApp.tornado_settings`).
    """
    return float(settings.get("nbexchange_answer_after", 9.5))


class Job(Generic[_T]):
    """Work that waits for its turn in a lane, runs, or has ended."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self.started = datetime.datetime.now(datetime.UTC)
        self._future: Future[_T] = Future()

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the end without disturbing the event loop or the job."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake(_: Any) -> None:
            with contextlib.suppress(
                RuntimeError
            ):  # the loop is closed, because the server is stopping
                loop.call_soon_threadsafe(ended.set)

        self._future.add_done_callback(wake)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), seconds)
        return self._future.done()

    def result(self) -> _T:
        """The result of the work, or its exception. Only call this after the end."""
        return self._future.result(0)

    def wait(self) -> _T:
        """Wait for the end and return the result. Do not call this in an event loop's thread."""
        return self._future.result()

    def join(self) -> None:
        """Wait for the end, and ignore the result."""
        concurrent.futures.wait([self._future])

    def when_ended(self, callback: Callable[["Job[_T]"], None]) -> None:
        """Call back, from the job's thread, or at once if it has ended."""
        self._future.add_done_callback(lambda _: callback(self))

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised in the threads that wait for the job
            self._future.set_exception(error)
        else:
            self._future.set_result(result)


class Lane:
    """Runs jobs in a limited number of threads, first come, first served."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = f"nbexchange {name}"
        self._most = threads
        self._running = 0
        self._waiting: deque[Job[Any]] = deque()
        self._lock = threading.Lock()

    def start(self, work: Callable[[], _T]) -> Job[_T]:
        """Start the work, or queue it."""
        job: Job[_T] = Job(work)
        with self._lock:
            self._waiting.append(job)
            if self._running == self._most:
                return job
            self._running += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return job

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job = self._waiting.popleft()
            job.run()


class Jobs:
    """The running jobs, by their keys."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Job[Any]] = {}
        self._lock = threading.Lock()

    def start(self, key: Hashable, lane: Lane, work: Callable[[], _T]) -> tuple[Job[_T], bool]:
        """Start a job, or return the running one with this key. The flag says whether it ran
        already, so that `work` was not used."""

        def work_and_forget() -> _T:
            try:
                return work()
            finally:
                # Removed before the result is set, so that a later click starts the work again.
                with self._lock:
                    del self._running[key]

        with self._lock:
            running = self._running.get(key)
            if running is not None:
                return running, True
            job = self._running[key] = lane.start(work_and_forget)
            return job, False


class Messages(logging.Handler):
    """The warnings and errors that were logged during one job."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def failure(self) -> str:
        """The reason why the plugin failed; "" if it did not."""
        return "".join(self.texts(logging.CRITICAL)[-1:])

    def texts(self, *levels: int) -> list[str]:
        """The messages of these levels, in order."""
        return [record.getMessage() for record in self.records if record.levelno in levels]


def logger_of_job(server_log: Any) -> tuple[logging.Logger, Messages]:
    """A logger for one job, which also writes to the log of the server.

    nbgrader shows the lines that it captures from a logger. From the server's own logger, it would
    also capture lines of other jobs and of requests.
    """
    log = logging.Logger(server_log.name, server_log.getEffectiveLevel())  # noqa: LOG001 - a registered one would never be freed
    log.parent = server_log
    messages = Messages()
    log.addHandler(messages)
    return log, messages
