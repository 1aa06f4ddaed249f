"""Where blobs live, and the guarantees that every back-end keeps.

* A blob is invisible until its upload is committed, and complete and durable from then on.
* A blob never changes. Its key is random and generated here, so two uploads never share a key.
* An aborted upload leaves nothing. A killed process may leave an orphaned blob, which `gc` finds.
* The event loop never waits: every method that accesses the store is awaited.

Each back-end's docstring tells administrators which rights it needs, its layout and its limits.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

from nbexchange.errors import NbExchangeError

T = TypeVar("T")

Steps = Generator[int, None, T]
"""A check in short steps, so that other checks run in between. Each step yields how many bytes it
has read or expanded."""

CHUNK = 1024 * 1024
"""Bytes of one chunk: a transfer holds no more than that in memory."""

MAX_FAILURES = 10
"""After so many failed deletes in a row the store counts as unavailable."""


@dataclass(frozen=True)
class Blob:
    """Bytes in the store: `sha256` is lower-case hex, `size` is in bytes."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A file in the store, whether or not a row owns it."""

    key: str
    size: int
    modified: datetime.datetime
    unfinished: bool = False
    """Whether it is an upload that was neither committed nor aborted."""


@dataclass(frozen=True)
class DiskSpace:
    """The disk that uploads are written to; sizes in bytes."""

    place: str
    """`files` if blobs stay on it; `spool` if they are sent to an object store."""
    free: int
    """Available to the service, without the blocks reserved for root."""
    size: int
    oldest_unfinished: float | None
    """When the oldest unfinished upload was last written, in seconds since 1970; None if there is
    none. An upload that is hours old was abandoned, and `gc` deletes it."""


class Upload:
    """A blob that is being written. It ends with exactly one effective `commit` or `abort`."""

    async def write(self, chunk: bytes) -> None:
        """Add bytes. After StoreFull or Unavailable, only `abort` may be called."""
        raise NotImplementedError

    async def seal(self, check: Callable[[Blob, BinaryIO], Steps[T]]) -> T:
        """End the body, and run `check` on the whole of it in a thread, before `commit`.

        Returns or raises what `check` returns or raises. Raises BadArchive if the check takes far
        longer than the number of bytes explains.
        """
        raise NotImplementedError

    async def commit(self) -> None:
        """Make it durable, then visible. If this raises, the upload has failed for good."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Remove everything written so far. Does nothing after `commit` or another `abort`."""
        raise NotImplementedError


def unchecked(blob: Blob, _: BinaryIO) -> Steps[Blob]:
    """A check for `seal` that accepts any bytes."""
    yield from ()
    return blob


class Storage:
    kind: ClassVar[str]
    """The kind of store, in one word."""

    def path(self, key: str) -> Path | str:
        """Where an administrator finds the blob: on the disk, or in the bucket."""
        raise NotImplementedError

    def open_upload(self) -> Upload:
        """A new upload under a new key."""
        raise NotImplementedError

    def read(self, blob: Blob, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `stop`, in chunks.

        A whole read is compared with the hash before its last chunk is yielded, so a corrupt blob
        never arrives complete. Raises Damaged for a corrupt or missing blob.
        """
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Delete a blob or an unfinished upload. Does nothing if it does not exist."""
        raise NotImplementedError

    async def delete_entry(self, entry: Entry) -> None:
        """Delete an entry that `entries` listed, unless its state has changed since: an upload that
        was unfinished then and is committed now stays."""
        raise NotImplementedError

    def entries(self) -> AsyncIterator[Entry]:
        """Everything that is stored, in any order."""
        raise NotImplementedError

    async def read_state(self, name: str) -> bytes | None:
        """The content that `write_state` stored under this name; None if there is none."""
        raise NotImplementedError

    async def write_state(self, name: str, content: bytes) -> None:
        """Store a small file beside the blobs, durably, in place of its previous content.

        It is not a blob and not among `entries`. For commands: all of it is in memory.
        """
        raise NotImplementedError

    async def check(self) -> None:
        """Raise Unavailable or StoreFull unless blobs can be written now."""
        raise NotImplementedError

    async def disk_space(self) -> DiskSpace:
        """How full the disk is. Reads no blob. May raise OSError."""
        raise NotImplementedError

    def close(self) -> None:
        """Release threads and connections."""


def new_key() -> str:
    return secrets.token_hex(16)


async def delete_all(
    storage: Storage, keys: Collection[str], advance: Callable[[], object] = lambda: None
) -> int:
    """Delete blobs that no row owns any more. Returns how many may remain.

    A blob that cannot be deleted does not stop the others. It becomes an orphaned blob, which `gc`
    deletes. After MAX_FAILURES failures in a row the store counts as unavailable, and the rest is
    left too, because each attempt may take seconds.
    """
    left = in_a_row = 0
    for number, key in enumerate(keys, start=1):
        try:
            await storage.delete(key)
            in_a_row = 0
        except NbExchangeError:
            left, in_a_row = left + 1, in_a_row + 1
        advance()
        if in_a_row == MAX_FAILURES:
            return left + len(keys) - number
    return left
