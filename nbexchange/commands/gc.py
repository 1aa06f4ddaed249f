"""nbexchange gc"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

from traitlets import Bool, Float

from nbexchange.commands.base import Command
from nbexchange.database import Database
from nbexchange.exchange.inventory import BATCH, known_keys
from nbexchange.storage import Entry, Storage


class Gc(Command):
    """Sweep up bytes that belong to nothing.

    An upload that was broken off by a crash, or whose row could not be written, leaves a file
    that no row owns. Without --delete this only tells. The service may go on meanwhile: what is
    younger than --older-than hours is left alone, as its row may still come.
    """

    name = "nbexchange-gc"
    description = __doc__ or ""
    aliases: dict[Any, Any] = {**Command.aliases, "older-than": "Gc.older_than"}
    flags: dict[Any, Any] = {"delete": ({"Gc": {"delete": True}}, "Delete what was found.")}

    delete = Bool(False, help="Delete what was found; without it, only tell.").tag(config=True)
    older_than = Float(
        24, min=0, help="How old a file has to be, in hours. Keep it longer than an upload takes."
    ).tag(config=True)

    def run(self) -> None:
        database, storage = self.service.make_database(), self.service.make_storage()
        try:
            database.prepare()
            found = asyncio.run(self._sweep(database, storage))
        finally:
            storage.close()
            database.close()
        size = sum(entry.size for entry in found)
        done = "deleted" if self.delete else "found; delete them with --delete"
        print(f"{len(found)} files of {size:,} bytes {done}.")

    async def _sweep(self, database: Database, storage: Storage) -> list[Entry]:
        found = []
        async for batch in _batches(self._old(storage)):
            known = await database.read(known_keys, [entry.key for entry in batch])
            for entry in batch:
                if entry.key not in known:
                    found.append(entry)
                    print(f"{entry.modified:%Y-%m-%d %H:%M} {entry.size:>12,} {entry.key}")
                    if self.delete:
                        await storage.sweep(entry)
        return found

    async def _old(self, storage: Storage) -> AsyncIterator[Entry]:
        youngest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=self.older_than)
        async for entry in storage.entries():
            if entry.modified <= youngest:
                yield entry


async def _batches(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    batch: list[Entry] = []
    async for entry in entries:
        batch.append(entry)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
