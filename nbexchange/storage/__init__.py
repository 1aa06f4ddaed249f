"""Where blobs live: the promise that every back-end keeps.

* A blob is invisible until its upload is committed, and whole and durable from then on.
* A blob never changes. Its key is random and made here, so no upload can meet another.
* An upload that is aborted leaves nothing; one whose process died leaves litter that `gc` finds.
* The event loop never waits: every method that touches the store is awaited.

An operator may read in each back-end's docstring what it needs.
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
"""A check that lets others have their turn: each step is short, and yields how many bytes it has
read, or expanded."""

CHUNK = 1024 * 1024
"""Bytes that travel at a time: all that one transfer holds in memory."""

MAX_FAILURES = 10
"""Deletes that fail in a row, after which a store is taken to be away."""


@dataclass(frozen=True)
class Blob:
    """Bytes in the store: `sha256` is lower-case hex, `size` is in bytes."""

    key: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Entry:
    """What the store has, whether or not anybody knows of it."""

    key: str
    size: int
    modified: datetime.datetime
    unfinished: bool = False
    """An upload that was neither committed nor aborted."""


@dataclass(frozen=True)
class DiskSpace:
    """The disk on which uploads gather; sizes in bytes."""

    place: str
    """`files`: blobs stay there; `spool`: only until they are sent."""
    free: int
    """For us: without what is kept for root."""
    size: int
    oldest_unfinished: float | None
    """When the oldest upload that is not finished was written last, in seconds since 1970; None
    where there is none. After hours nobody will finish it: `gc` sweeps it up."""


class Upload:
    """A blob on its way in. Ends with exactly one effective `commit` or `abort`."""

    async def write(self, chunk: bytes) -> None:
        """Add bytes. Raises StoreFull or Unavailable, after which only `abort` makes sense."""
        raise NotImplementedError

    async def seal(self, check: Callable[[Blob, BinaryIO], Steps[T]]) -> T:
        """No more bytes will come: hand the whole to `check`, in a thread, before it counts.

        What `check` returns or raises comes back. Raises BadArchive for one that takes far longer
        than its bytes can explain.
        """
        raise NotImplementedError

    async def commit(self) -> None:
        """Make it durable, then visible. If this raises, the upload has failed for good."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Leave nothing behind. Harmless after `commit` or another `abort`."""
        raise NotImplementedError


def unchecked(blob: Blob, _: BinaryIO) -> Steps[Blob]:
    """For `seal`, of bytes that may be anything."""
    yield from ()
    return blob


class Storage:
    kind: ClassVar[str]
    """One word for what it is."""

    def path(self, key: str) -> Path | str:
        """Where an operator finds the blob: on the disk, or in the bucket."""
        raise NotImplementedError

    def open_upload(self) -> Upload:
        """A new upload under a new key."""
        raise NotImplementedError

    def read(self, blob: Blob, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` up to `stop`, in chunks.

        A whole read is checked against the hash before its last bytes are handed out, so a
        damaged blob never arrives complete. Raises Damaged for such a one or a missing one.
        """
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Remove a blob or an unfinished upload. Harmless when it is gone."""
        raise NotImplementedError

    async def delete_entry(self, entry: Entry) -> None:
        """Remove what `entries` listed, unless it became something else since: an upload that was
        unfinished then and is committed now stays."""
        raise NotImplementedError

    def entries(self) -> AsyncIterator[Entry]:
        """Everything that is stored, in no order."""
        raise NotImplementedError

    async def read_state(self, name: str) -> bytes | None:
        """What `write_state` kept beside the blobs; None where there is none."""
        raise NotImplementedError

    async def write_state(self, name: str, content: bytes) -> None:
        """Keep something small, durably, in place of what it was before. It is no blob, and not
        among `entries`. For commands: all of it is in memory."""
        raise NotImplementedError

    async def check(self) -> None:
        """Raise Unavailable unless blobs can be written now."""
        raise NotImplementedError

    async def disk_space(self) -> DiskSpace:
        """How full the disk is. Looks at no blob. Raises OSError."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of threads and connections."""


def new_key() -> str:
    return secrets.token_hex(16)


async def delete_all(
    storage: Storage, keys: Collection[str], advance: Callable[[], object] = lambda: None
) -> int:
    """Delete blobs that no row knows any more. Returns how many may still be there.

    One that cannot be deleted does not keep the others; it is litter that `gc` sweeps up. A store
    that fails again and again is away, and each try may take seconds, so the rest is left too.
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
