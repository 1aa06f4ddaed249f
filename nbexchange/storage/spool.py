"""What back-ends share: uploads that collect their bytes on this machine, and their threads.

An upload collects up to one chunk in memory and writes every full chunk to a file. Each chunk is
hashed as it arrives. The next chunk arrives while the previous one is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import io
import logging
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, TypeVar

from nbexchange.errors import (
    BadArchive,
    Damaged,
    Misconfigured,
    NbExchangeError,
    StoreFull,
    TooLarge,
    Unavailable,
)
from nbexchange.storage import CHUNK, Blob, Steps, Upload

log = logging.getLogger(__name__)
T = TypeVar("T")

READ_SIZE = 128 * 1024
"""Bytes that a check reads at a time, and holds while it waits for its next slice."""

MAX_GATHERED = 64 * CHUNK
"""Bytes that all uploads together hold in memory, however many of them are open."""

THREADS = 8
LONG_THREADS = 1
"""For checks that continue after their first slice. They need the processor, which others need
too."""

SLICE_SECONDS = 0.1
"""After this time a check lets other checks run. A usual submission takes a tenth of it."""

LARGE = 16 * CHUNK
"""From this number of bytes on, making a file durable may take seconds."""

CHECK_SECONDS = 30.0
CHECK_RATE = 20_000_000
"""Processor time that a check may take: CHECK_SECONDS, and one second for every CHECK_RATE bytes
that it has read. Even a slow machine expands five times as many per second."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Threads:
    """Thread pools for everything that would block the event loop."""

    def __init__(self) -> None:
        self.gathering: weakref.WeakSet[SpooledUpload] = weakref.WeakSet()
        """Uploads that hold bytes in memory."""
        self._working = ThreadPoolExecutor(THREADS, "store")
        # Separate, so that large archives of one user delay neither reads and writes of other users
        # nor short checks. The size of an archive is known only once it is expanded.
        self._checking = ThreadPoolExecutor(THREADS, "check")
        self._checking_long = ThreadPoolExecutor(LONG_THREADS, "check-long")
        # Separate, so that large files, which keep a disk busy, do not delay small ones.
        self._storing_large = ThreadPoolExecutor(THREADS, "store-large")

    async def work(self, function: Callable[..., T], *args: object) -> T:
        return await _run_in(self._working, function, *args)

    @property
    def piece(self) -> int:
        """Bytes that one upload collects before it writes them: a chunk, or less if many uploads
        are open."""
        return min(CHUNK, MAX_GATHERED // max(1, len(self.gathering)))

    async def make_durable(self, size: int, function: Callable[[], T]) -> T:
        """Run `function`, which makes a file of this size durable."""
        return await _run_in(self._storing_large if size >= LARGE else self._working, function)

    async def check(self, steps: Steps[T]) -> T:
        """Run the check in slices: the first slice in the pool of short checks, and the rest of a
        long one in turn with other long ones. So no check occupies a thread until its end."""
        check = _Check(steps)
        pool = self._checking
        while not await _run_in(pool, check.run_slice):
            pool = self._checking_long
        return check.result

    def close(self) -> None:
        for pool in (
            self._working,
            self._storing_large,
            self._checking,
            self._checking_long,
        ):
            pool.shutdown()


class _Check(Generic[T]):
    """A check that may go on in another thread. `result` is set when `run_slice` returns True."""

    result: T

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self._seconds = 0.0
        self._size = 0

    def run_slice(self) -> bool:
        """Run for one slice. Returns True at the end. Raises what the check raises."""
        started = time.thread_time()
        end = time.monotonic() + SLICE_SECONDS
        try:
            while time.monotonic() < end:
                self._size += next(self._steps)
        except StopIteration as done:
            self.result = done.value
            return True
        self._seconds += time.thread_time() - started
        if self._seconds > CHECK_SECONDS + self._size / CHECK_RATE:
            raise BadArchive(
                "Checking the archive takes too long. Leave out large files and send it again."
            )
        return False


class SpooledUpload(Upload):
    """The common part of uploads. A back-end defines where the file is and how it is committed."""

    in_memory: ClassVar[bool] = False
    """Whether an upload of less than one chunk stays in memory."""

    def __init__(self, key: str, threads: Threads) -> None:
        self._key = key
        self._threads = threads
        self._file: io.FileIO | None = None
        self._waiting = bytearray()
        self._flushing: asyncio.Future[None] | None = None
        self._hasher = hashlib.sha256()
        self._size = 0
        self._blob: Blob | None = None
        self._closed = self._aborted = False
        threads.gathering.add(self)
        # A broken connection may call `abort` while a thread still writes.
        self._lock = asyncio.Lock()

    # -- for a back-end

    def make_file(self) -> io.FileIO:
        """Open a new file for writing and reading."""
        raise NotImplementedError

    async def store(self, blob: Blob) -> None:
        """Make it durable, then visible."""
        raise NotImplementedError

    def discard(self) -> None:
        """Remove the file of an upload that will not be committed."""

    # -- the interface of Upload

    async def write(self, chunk: bytes) -> None:
        self._waiting += chunk
        if len(self._waiting) >= self._threads.piece:
            # The next chunk arrives while this one is hashed and written.
            await self._flushed()
            if self._aborted:
                raise upload_interrupted()
            full, self._waiting = self._waiting, bytearray()
            self._flushing = asyncio.ensure_future(self._flush_in_turn(full))

    async def seal(self, check: Callable[[Blob, BinaryIO], Steps[T]]) -> T:
        await self._flushed()
        async with self._lock:
            blob = await self._threads.work(self._finish)
            result: T = await self._threads.check(self._check(check, blob))
            self._blob = blob
            return result

    async def commit(self) -> None:
        async with self._lock:
            if self._closed or self._blob is None:
                raise upload_interrupted()
            await self.store(self._blob)

    async def abort(self) -> None:
        self._aborted = True
        with contextlib.suppress(NbExchangeError):
            await self._flushed()
        async with self._lock:
            if not self._closed:
                await self._threads.work(self._abort)

    # -- the implementation

    async def _flush_in_turn(self, chunk: bytearray) -> None:
        async with self._lock:
            await self._threads.work(self._flush, chunk)

    async def _flushed(self) -> None:
        """Wait until the previous chunk is written, and raise its error if there was one."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            await flushing

    def _flush(self, chunk: bytearray) -> None:
        if self._closed:
            raise upload_interrupted()
        if self._file is None:
            self._file = self.make_file()
        self._count(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _count(self, chunk: bytearray) -> None:
        self._hasher.update(chunk)
        self._size += len(chunk)

    def _finish(self) -> Blob:
        if self._file is None and self.in_memory and not self._closed:
            self._count(self._waiting)
        else:
            self._flush(self._waiting)
        return Blob(self._key, self._hasher.hexdigest(), self._size)

    def _check(self, check: Callable[[Blob, BinaryIO], Steps[T]], blob: Blob) -> Steps[T]:
        if self._file is None:
            return (yield from check(blob, io.BytesIO(self._waiting)))
        self._file.seek(0)
        with open(self._file.fileno(), "rb", buffering=READ_SIZE, closefd=False) as file:
            return (yield from check(blob, file))

    def _abort(self) -> None:
        self.close()
        self.discard()

    def close(self) -> None:
        """Release the collected bytes. The upload cannot be used after this."""
        self._closed = True
        self._threads.gathering.discard(self)
        self._waiting = bytearray()
        if self._file is not None:
            self._file.close()


def cannot_make(root: Path, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"Cannot create the storage directory {root}: {error.strerror}. Set base_storage_location "
        "to a directory that the service may write."
    )


def upload_interrupted() -> Unavailable:
    return Unavailable("The upload was interrupted. Send it again.")


def damaged() -> Damaged:
    return Damaged(
        "The stored file is corrupt, so it is not delivered. Contact your administrator."
    )


def store_full() -> StoreFull:
    return StoreFull(
        "The exchange's disk is full, so nothing was stored. Contact your administrator."
    )


def file_too_large() -> TooLarge:
    """The file system or the process limits the size of files, so a retry cannot succeed."""
    return TooLarge(
        "The exchange's disk cannot hold a file of this size, so nothing was stored. Remove large "
        "files and send it again, or contact your administrator."
    )


def store_unavailable() -> Unavailable:
    return Unavailable("The exchange's store is unavailable. Try again shortly.")


async def _run_in(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
    call: Callable[[], T] = functools.partial(_known_errors, function, *args)
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _known_errors(function: Callable[..., T], *args: object) -> T:
    try:
        return function(*args)
    except NbExchangeError:
        raise
    except OSError as error:
        log.error("The store failed: %s", error)
        if error.errno == errno.EFBIG:
            raise file_too_large() from error
        raise (store_full() if error.errno in _NO_SPACE else store_unavailable()) from error
