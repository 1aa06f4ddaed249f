"""Blobs in a local directory.

What it needs: one directory on one file system, writable by the service alone, on a disk that
keeps what it has acknowledged to fsync. Layout:

    uploads/<key>           on its way in
    blobs/<k>/<key>         stored; <k> is the first two characters of the key

Commit is: fsync the file, rename it into `blobs`, fsync that directory. An fsync that failed is
never tried again, because the kernel forgets the error and the bytes with it. There is no limit
of its own but the disk's.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import functools
import hashlib
import io
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

from nbexchange.errors import Damaged, Misconfigured, NbExchangeError, StoreFull, Unavailable
from nbexchange.storage import CHUNK, Blob, Entry, Storage, Upload, new_key

log = logging.getLogger(__name__)
T = TypeVar("T")

THREADS = 8
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DiskStorage(Storage):
    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.uploads = root / "uploads"
        self._threads = ThreadPoolExecutor(THREADS, "disk")
        # Apart, so that nobody's large archives keep others from their files.
        self.checking = ThreadPoolExecutor(THREADS, "check")
        try:
            _make_directories(root, self.uploads, self.blobs)
        except OSError as error:
            raise Misconfigured(
                f"cannot make the storage directory {root}: {error.strerror}; "
                "let base_storage_location name a directory that the service may write"
            ) from error

    def path(self, key: str) -> Path:
        return self.blobs / key[:2] / key

    def open_upload(self) -> Upload:
        return DiskUpload(self, new_key())

    async def read(
        self, blob: Blob, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        stop = blob.size if stop is None else stop
        hasher = hashlib.sha256() if (start, stop) == (0, blob.size) else None
        file = await self.thread(self._open, blob)
        try:
            for position in range(start, stop, CHUNK):
                length = min(CHUNK, stop - position)
                chunk = await self.thread(_read_at, file, position, length, hasher)
                last = position + length == stop
                if len(chunk) < length or (last and hasher and hasher.hexdigest() != blob.sha256):
                    raise _damaged(blob)
                yield chunk
        finally:
            file.close()

    def _open(self, blob: Blob) -> io.FileIO:
        try:
            file = io.FileIO(self.path(blob.key))
        except FileNotFoundError as error:
            raise _damaged(blob) from error
        if os.fstat(file.fileno()).st_size != blob.size:
            file.close()
            raise _damaged(blob)
        return file

    async def delete(self, key: str) -> None:
        await self.thread(self._delete, key)

    def _delete(self, key: str) -> None:
        for path in (self.path(key), self.uploads / key):
            path.unlink(missing_ok=True)

    async def sweep(self, entry: Entry) -> None:
        path = self.uploads / entry.key if entry.unfinished else self.path(entry.key)
        await self.thread(lambda: path.unlink(missing_ok=True))

    async def entries(self) -> AsyncIterator[Entry]:
        for directory in await self.thread(lambda: [self.uploads, *sorted(self.blobs.iterdir())]):
            unfinished = directory == self.uploads
            for entry in await self.thread(_entries, directory, unfinished):
                yield entry

    async def check(self) -> None:
        probe = self.open_upload()
        try:
            await probe.write(b"nbexchange")
            await probe.seal(lambda blob, file: None)
        finally:
            await probe.abort()

    def close(self) -> None:
        self._threads.shutdown()
        self.checking.shutdown()

    async def thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, functools.partial(_known_errors(function), *args)
        )


class DiskUpload(Upload):
    """Bytes gather in memory up to one chunk, so that small files cost one thread hop."""

    def __init__(self, storage: DiskStorage, key: str) -> None:
        self._storage = storage
        self._key = key
        self._part = storage.uploads / key
        self._file: io.FileIO | None = None
        self._waiting = bytearray()
        self._flushing: asyncio.Future[None] | None = None
        self._hasher = hashlib.sha256()
        self._size = 0
        self._over = self._aborted = False
        # A connection may break, and abort, while a thread still writes.
        self._turn = asyncio.Lock()

    async def write(self, chunk: bytes) -> None:
        self._waiting += chunk
        if len(self._waiting) >= CHUNK:
            # The next chunk arrives while this one is hashed and written.
            await self._flushed()
            if self._aborted:
                raise _broken_off()
            full, self._waiting = self._waiting, bytearray()
            self._flushing = asyncio.ensure_future(self._flush_in_turn(full))

    async def seal(self, check: Callable[[Blob, BinaryIO], T]) -> T:
        await self._flushed()
        async with self._turn:
            blob = await self._storage.thread(self._finish)
            return await asyncio.get_running_loop().run_in_executor(
                self._storage.checking, functools.partial(_known_errors(self._check), check, blob)
            )

    async def commit(self) -> None:
        async with self._turn:
            await self._storage.thread(self._commit)

    async def abort(self) -> None:
        self._aborted = True
        with contextlib.suppress(NbExchangeError):
            await self._flushed()
        async with self._turn:
            if not self._over:
                await self._storage.thread(self._abort)

    async def _flush_in_turn(self, chunk: bytearray) -> None:
        async with self._turn:
            await self._storage.thread(self._flush, chunk)

    async def _flushed(self) -> None:
        """Wait for the chunk before, and raise what went wrong with it."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None:
            await flushing

    def _flush(self, chunk: bytearray) -> None:
        if self._over:
            raise _broken_off()
        if self._file is None:
            self._file = io.FileIO(
                os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "r+"
            )
        self._hasher.update(chunk)
        self._size += len(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _finish(self) -> Blob:
        self._flush(self._waiting)
        return Blob(self._key, self._hasher.hexdigest(), self._size)

    def _check(self, check: Callable[[Blob, BinaryIO], T], blob: Blob) -> T:
        assert self._file is not None
        self._file.seek(0)
        with open(self._file.fileno(), "rb", buffering=CHUNK, closefd=False) as file:
            return check(blob, file)

    def _commit(self) -> None:
        if self._over or self._file is None:
            raise _broken_off()
        os.utime(self._file.fileno())  # `gc` counts from here: the row comes next
        os.fsync(self._file.fileno())
        final = self._storage.path(self._key)
        self._part.rename(final)
        _sync_directory(final.parent)
        self._close()

    def _abort(self) -> None:
        self._close()
        self._part.unlink(missing_ok=True)

    def _close(self) -> None:
        self._over = True
        if self._file is not None:
            self._file.close()


def _make_directories(root: Path, uploads: Path, blobs: Path) -> None:
    """All of them, durable before the first blob comes; later nobody has to wait for that.

    Synced at every start: who made them may have died before it could.
    """
    for directory in (uploads, blobs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(256):
        (blobs / f"{number:02x}").mkdir(exist_ok=True, mode=0o700)
    for directory in (blobs, root, root.parent):
        _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_at(file: io.FileIO, position: int, length: int, hasher: hashlib._Hash | None) -> bytes:
    chunk = os.pread(file.fileno(), length, position)
    if hasher:
        hasher.update(chunk)
    return chunk


def _entries(directory: Path, unfinished: bool) -> list[Entry]:  # noqa: FBT001
    found = []
    for file in directory.iterdir():
        # It may be committed or aborted while we look.
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            modified = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC)
            found.append(Entry(file.name, stat.st_size, modified, unfinished))
    return found


def _broken_off() -> Unavailable:
    return Unavailable("the upload was broken off; send it again")


def _damaged(blob: Blob) -> Damaged:
    log.error("blob %s is not what was stored; run `nbexchange check`", blob.key)
    return Damaged(
        "the stored file is damaged, so it is not handed out; tell the people who run the exchange"
    )


def _known_errors(function: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(function)
    def wrapped(*args: object) -> T:
        try:
            return function(*args)
        except NbExchangeError:
            raise
        except OSError as error:
            log.error("the store failed: %s", error)
            if error.errno in _NO_SPACE:
                raise StoreFull(
                    "the exchange's disk is full, so nothing was stored; tell your instructor"
                ) from error
            raise Unavailable("the exchange's store is away for now; try again soon") from error

    return wrapped
