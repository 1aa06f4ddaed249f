"""What back-ends share: an upload that gathers on this machine before it counts, and its threads.

Bytes gather in memory up to one chunk and from then on in a file, hashed as they come. The next
chunk arrives while the one before is written.
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
"""Bytes that all uploads together gather in memory: who holds many open takes no more."""

THREADS = 8
LONG_THREADS = 1
"""For checks that go on after their first slice. They are bound by the processor, which has other
things to do."""

SLICE_SECONDS = 0.1
"""After which a check lets the others have their turn; a usual submission takes a tenth of it."""

LARGE = 16 * CHUNK
"""Bytes from which on a file may take seconds to become durable."""

CHECK_SECONDS = 30.0
CHECK_RATE = 20_000_000
"""How much time of the processor a check may take: so much, and a second for so many bytes that it
has read. A slow machine expands five times as many."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Threads:
    """Where a back-end does what would hold up the event loop."""

    def __init__(self) -> None:
        self.gathering: weakref.WeakSet[SpooledUpload] = weakref.WeakSet()
        """Uploads that hold bytes in memory now."""
        self._working = ThreadPoolExecutor(THREADS, "store")
        # Apart, so that nobody's large archives keep others from their files, or from a check of
        # something small. How large one is shows only when it is expanded.
        self._checking = ThreadPoolExecutor(THREADS, "check")
        self._checking_long = ThreadPoolExecutor(LONG_THREADS, "check-long")
        # And large files, which keep a disk busy, from all that is small.
        self._storing_large = ThreadPoolExecutor(THREADS, "store-large")

    async def work(self, function: Callable[..., T], *args: object) -> T:
        return await _run_in(self._working, function, *args)

    @property
    def piece(self) -> int:
        """Bytes that one upload gathers before they are written: a chunk, or less among many."""
        return min(CHUNK, MAX_GATHERED // max(1, len(self.gathering)))

    async def make_durable(self, size: int, function: Callable[[], T]) -> T:
        """Do it for a file of that size."""
        return await _run_in(self._storing_large if size >= LARGE else self._working, function)

    async def check(self, steps: Steps[T]) -> T:
        """Go to the end, a slice at a time: the first among the quick ones, and what is left of a
        long one in line with other long ones. So none of them keeps a thread to itself."""
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
        """For one slice; True at the end. Raises what the check raises."""
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
                "checking the archive takes too long; leave out large files and send it again"
            )
        return False


class SpooledUpload(Upload):
    """A back-end says where the file is and what it means to commit it."""

    in_memory: ClassVar[bool] = False
    """Whether an upload of less than one chunk never becomes a file."""

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
        # A connection may break, and abort, while a thread still writes.
        self._lock = asyncio.Lock()

    # -- for a back-end

    def make_file(self) -> io.FileIO:
        """A new file, to be written and read."""
        raise NotImplementedError

    async def store(self, blob: Blob) -> None:
        """Make it durable, then visible."""
        raise NotImplementedError

    def discard(self) -> None:
        """Remove what is there of an upload that will not be committed."""

    # -- the promise

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

    # -- how

    async def _flush_in_turn(self, chunk: bytearray) -> None:
        async with self._lock:
            await self._threads.work(self._flush, chunk)

    async def _flushed(self) -> None:
        """Wait for the chunk before, and raise what went wrong with it."""
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
        """Let go of what was gathered; nothing can be done with this upload any more."""
        self._closed = True
        self._threads.gathering.discard(self)
        self._waiting = bytearray()
        if self._file is not None:
            self._file.close()


def cannot_make(root: Path, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"cannot make the storage directory {root}: {error.strerror}; "
        "let base_storage_location name a directory that the service may write"
    )


def upload_interrupted() -> Unavailable:
    return Unavailable("the upload was broken off; send it again")


def damaged() -> Damaged:
    return Damaged(
        "the stored file is damaged, so it is not handed out; tell the people who run the exchange"
    )


def store_full() -> StoreFull:
    return StoreFull(
        "the exchange's disk is full, so nothing was stored; contact your administrator"
    )


def file_too_large() -> TooLarge:
    """A limit of the file system or of the process, so it does not go away by itself."""
    return TooLarge(
        "The exchange's disk cannot hold a file of this size, so nothing was stored. Remove large "
        "files and send it again, or contact your administrator."
    )


def store_unavailable() -> Unavailable:
    return Unavailable("the exchange's store is away for now; try again soon")


async def _run_in(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
    call: Callable[[], T] = functools.partial(_known_errors, function, *args)
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _known_errors(function: Callable[..., T], *args: object) -> T:
    try:
        return function(*args)
    except NbExchangeError:
        raise
    except OSError as error:
        log.error("the store failed: %s", error)
        if error.errno == errno.EFBIG:
            raise file_too_large() from error
        raise (store_full() if error.errno in _NO_SPACE else store_unavailable()) from error
