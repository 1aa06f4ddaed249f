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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

from nbexchange.errors import Damaged, Misconfigured, NbExchangeError, StoreFull, Unavailable
from nbexchange.storage import CHUNK, Blob, Upload

log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS = 8
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Threads:
    """Where a back-end does what would hold up the event loop."""

    def __init__(self) -> None:
        self._working = ThreadPoolExecutor(THREADS, "store")
        # Apart, so that nobody's large archives keep others from their files.
        self._checking = ThreadPoolExecutor(THREADS, "check")

    async def work(self, function: Callable[..., T], *args: object) -> T:
        return await _in(self._working, function, *args)

    async def check(self, function: Callable[..., T], *args: object) -> T:
        return await _in(self._checking, function, *args)

    def close(self) -> None:
        self._working.shutdown()
        self._checking.shutdown()


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
        self._over = self._aborted = False
        # A connection may break, and abort, while a thread still writes.
        self._turn = asyncio.Lock()

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
        if len(self._waiting) >= CHUNK:
            # The next chunk arrives while this one is hashed and written.
            await self._flushed()
            if self._aborted:
                raise broken_off()
            full, self._waiting = self._waiting, bytearray()
            self._flushing = asyncio.ensure_future(self._flush_in_turn(full))

    async def seal(self, check: Callable[[Blob, BinaryIO], T]) -> T:
        await self._flushed()
        async with self._turn:
            blob = await self._threads.work(self._finish)
            found: T = await self._threads.check(self._check, check, blob)
            self._blob = blob
            return found

    async def commit(self) -> None:
        async with self._turn:
            if self._over or self._blob is None:
                raise broken_off()
            await self.store(self._blob)

    async def abort(self) -> None:
        self._aborted = True
        with contextlib.suppress(NbExchangeError):
            await self._flushed()
        async with self._turn:
            if not self._over:
                await self._threads.work(self._abort)

    # -- how

    async def _flush_in_turn(self, chunk: bytearray) -> None:
        async with self._turn:
            await self._threads.work(self._flush, chunk)

    async def _flushed(self) -> None:
        """Wait for the chunk before, and raise what went wrong with it."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            await flushing

    def _flush(self, chunk: bytearray) -> None:
        if self._over:
            raise broken_off()
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
        if self._file is None and self.in_memory and not self._over:
            self._count(self._waiting)
        else:
            self._flush(self._waiting)
        return Blob(self._key, self._hasher.hexdigest(), self._size)

    def _check(self, check: Callable[[Blob, BinaryIO], T], blob: Blob) -> T:
        if self._file is None:
            return check(blob, io.BytesIO(self._waiting))
        self._file.seek(0)
        with open(self._file.fileno(), "rb", buffering=CHUNK, closefd=False) as file:
            return check(blob, file)

    def _abort(self) -> None:
        self.close()
        self.discard()

    def close(self) -> None:
        """Let go of what was gathered; nothing can be done with this upload any more."""
        self._over = True
        self._waiting = bytearray()
        if self._file is not None:
            self._file.close()


def cannot_make(root: Path, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"cannot make the storage directory {root}: {error.strerror}; "
        "let base_storage_location name a directory that the service may write"
    )


def broken_off() -> Unavailable:
    return Unavailable("the upload was broken off; send it again")


def damaged(blob: Blob) -> Damaged:
    log.error("blob %s is not what was stored; run `nbexchange check`", blob.key)
    return Damaged(
        "the stored file is damaged, so it is not handed out; tell the people who run the exchange"
    )


def store_full() -> StoreFull:
    return StoreFull("the exchange's disk is full, so nothing was stored; tell your instructor")


def store_away() -> Unavailable:
    return Unavailable("the exchange's store is away for now; try again soon")


async def _in(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
    known: Callable[[], T] = functools.partial(_known_errors, function, *args)
    return await asyncio.get_running_loop().run_in_executor(pool, known)


def _known_errors(function: Callable[..., T], *args: object) -> T:
    try:
        return function(*args)
    except NbExchangeError:
        raise
    except OSError as error:
        log.error("the store failed: %s", error)
        raise (store_full() if error.errno in _NO_SPACE else store_away()) from error
