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
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

CHUNK = 1024 * 1024
"""Bytes that travel at a time: all that one transfer holds in memory."""


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


class Upload:
    """A blob on its way in. Ends with exactly one effective `commit` or `abort`."""

    async def write(self, chunk: bytes) -> None:
        """Add bytes. Raises StoreFull or Unavailable, after which only `abort` makes sense."""
        raise NotImplementedError

    async def seal(self, check: Callable[[Blob, BinaryIO], T]) -> T:
        """No more bytes will come: hand the whole to `check`, in a thread, before it counts.

        What `check` returns or raises comes back.
        """
        raise NotImplementedError

    async def commit(self) -> None:
        """Make it durable, then visible. If this raises, the upload has failed for good."""
        raise NotImplementedError

    async def abort(self) -> None:
        """Leave nothing behind. Harmless after `commit` or another `abort`."""
        raise NotImplementedError


class Storage:
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

    async def sweep(self, entry: Entry) -> None:
        """Remove what `entries` listed, unless it became something else since: an upload that was
        unfinished then and is committed now stays."""
        raise NotImplementedError

    def entries(self) -> AsyncIterator[Entry]:
        """Everything that is stored, in no order."""
        raise NotImplementedError

    async def check(self) -> None:
        """Raise Unavailable unless blobs can be written now."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of threads and connections."""


def new_key() -> str:
    return secrets.token_hex(16)
