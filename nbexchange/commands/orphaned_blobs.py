"""Orphaned blobs, which no row owns: gc deletes them, and check counts them."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

from nbexchange.database import Database
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.upkeep.inventory import BATCH
from nbexchange.progress import Progress
from nbexchange.storage import Entry, Storage

ORPHAN_HOURS = 24.0
"""After so many hours, the row of a file that has none will not be written any more."""


async def orphaned_blobs(
    database: Database, storage: Storage, older_than: float, progress: Progress
) -> AsyncIterator[Entry]:
    youngest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=older_than)
    async for batch in _batches(storage.entries()):
        old = [entry for entry in batch if entry.modified <= youngest]
        owned = await database.read(known_keys, [entry.key for entry in old])
        for entry in old:
            if entry.key not in owned:
                yield entry
        progress.advance(len(batch))


async def belongs_to_other_installation(database: Database, storage: Storage) -> bool:
    """Whether there are files and the database owns none: it belongs to another installation."""
    is_empty = True
    async for batch in _batches(storage.entries()):
        is_empty = False
        if await database.read(known_keys, [entry.key for entry in batch]):
            return False
    return not is_empty


async def _batches(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    batch: list[Entry] = []
    async for entry in entries:
        batch.append(entry)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
