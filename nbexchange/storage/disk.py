"""Blobs in a local directory.

Requirements: one directory on one file system, writable only by the service, on a disk that honours
fsync. Layout:

    last-check              the rows that the last `nbexchange check` saw
    uploads/<key>           an unfinished upload
    blobs/<k>/<key>         a blob; <k> is the first two characters of the key

Commit is: fsync the file, rename it into `blobs`, fsync that directory. A failed fsync is never
repeated, because the kernel forgets the error and the bytes with it. The only limit is the size of
the disk.

A disk that is not mounted looks like an empty directory. A missing directory therefore means that
the store is unavailable. Only a missing file in an existing directory means that a blob is corrupt.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from nbexchange.storage import CHUNK, Blob, DiskSpace, Entry, Storage, Upload, new_key, unchecked
from nbexchange.storage.spool import SpooledUpload, Threads, cannot_make, damaged

ALL_LOST_MARKER = "all-files-are-lost"
"""A file that administrators put beside `blobs` if all files are lost. It is on the disk, so the
empty mount point of an unmounted disk does not have it."""


class DiskStorage(Storage):
    kind = "disk"

    def __init__(self, root: Path) -> None:
        self._root = root
        self.blobs = root / "blobs"
        self.uploads = root / "uploads"
        self.threads = Threads()
        try:
            _make_directories(root, self.uploads, self.blobs)
        except OSError as error:
            raise cannot_make(root, error) from error

    def path(self, key: str) -> Path:
        return self.blobs / key[:2] / key

    def open_upload(self) -> Upload:
        return DiskUpload(self, new_key())

    async def read(
        self, blob: Blob, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        stop = blob.size if stop is None else stop
        hasher = hashlib.sha256() if (start, stop) == (0, blob.size) else None
        file = await self.threads.work(self._open, blob)
        try:
            for position in range(start, stop, CHUNK):
                length = min(CHUNK, stop - position)
                chunk = await self.threads.work(_read_at, file, position, length, hasher)
                last = position + length == stop
                if len(chunk) < length or (last and hasher and hasher.hexdigest() != blob.sha256):
                    raise damaged()
                yield chunk
        finally:
            file.close()

    def _open(self, blob: Blob) -> io.FileIO:
        path = self.path(blob.key)
        try:
            file = io.FileIO(path)
        except FileNotFoundError as error:
            if not path.parent.is_dir():
                raise  # the store is unavailable
            raise damaged() from error
        if os.fstat(file.fileno()).st_size != blob.size:
            file.close()
            raise damaged()
        return file

    async def delete(self, key: str) -> None:
        await self.threads.work(self._delete, key)

    def _delete(self, key: str) -> None:
        for path in (self.path(key), self.uploads / key):
            _remove(path)

    async def delete_entry(self, entry: Entry) -> None:
        path = self.uploads / entry.key if entry.unfinished else self.path(entry.key)
        await self.threads.work(_remove, path)

    async def entries(self) -> AsyncIterator[Entry]:
        for directory in await self.threads.work(
            lambda: [self.uploads, *sorted(self.blobs.iterdir())]
        ):
            unfinished = directory == self.uploads
            for entry in await self.threads.work(_entries, directory, unfinished):
                yield entry

    async def read_state(self, name: str) -> bytes | None:
        return await self.threads.work(self._read_state, name)

    def _read_state(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    async def write_state(self, name: str, content: bytes) -> None:
        await self.threads.work(self._write_state, name, content)

    def _write_state(self, name: str, content: bytes) -> None:
        temporary = self._root / f".{name}.{new_key()}"
        try:
            with open(temporary, "xb", opener=_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._root / name)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(self._root)

    async def check(self) -> None:
        await self.threads.work(self.blobs.stat)
        probe = self.open_upload()
        try:
            await probe.write(b"nbexchange")
            await probe.seal(unchecked)
        finally:
            await probe.abort()

    async def disk_space(self) -> DiskSpace:
        return await self.threads.work(self._disk_space)

    def _disk_space(self) -> DiskSpace:
        usage = shutil.disk_usage(self.uploads)
        unfinished = [entry.modified.timestamp() for entry in _entries(self.uploads, True)]
        return DiskSpace("files", usage.free, usage.total, min(unfinished, default=None))

    def close(self) -> None:
        self.threads.close()


class DiskUpload(SpooledUpload):
    def __init__(self, storage: DiskStorage, key: str) -> None:
        super().__init__(key, storage.threads)
        self._part = storage.uploads / key
        self._final = storage.path(key)

    def make_file(self) -> io.FileIO:
        return io.FileIO(
            os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "r+"
        )

    async def store(self, blob: Blob) -> None:
        await self._threads.make_durable(blob.size, self._store)

    def _store(self) -> None:
        assert self._file is not None
        os.utime(self._file.fileno())  # for `gc`, its age begins now: the row is written next
        os.fsync(self._file.fileno())
        self._part.rename(self._final)
        _sync_directory(self._final.parent)
        self.close()

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)


def may_be_absent(root: Path) -> bool:
    """Whether the store has neither a blob nor the file that says that all files are lost.

    The directories do not count: a start without the disk may have created them in its mount point.
    """
    try:
        parts = [part for part in _parts(root / "blobs") if part.is_dir()]
        return (
            not any(any(part.iterdir()) for part in parts) and not (root / ALL_LOST_MARKER).exists()
        )
    except OSError as error:
        raise cannot_make(root, error) from error


def _parts(blobs: Path) -> list[Path]:
    return [blobs / f"{number:02x}" for number in range(256)]


def _make_directories(root: Path, uploads: Path, blobs: Path) -> None:
    """Create all directories, durably, before the first blob needs them.

    They are synced at every start, because the process that created them may have been killed
    before it could.
    """
    for directory in (uploads, blobs):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for part in _parts(blobs):
        part.mkdir(exist_ok=True, mode=0o700)
    for directory in (blobs, root, root.parent):
        _sync_directory(directory)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise  # the store is unavailable, and may still have the file


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
    entries = []
    for file in directory.iterdir():
        # It may be committed or aborted meanwhile.
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            modified = datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC)
            entries.append(Entry(file.name, stat.st_size, modified, unfinished))
    return entries
