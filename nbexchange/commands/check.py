"""nbexchange check"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from traitlets import Bool

from nbexchange.commands.base import Command
from nbexchange.database import Database
from nbexchange.errors import Damaged
from nbexchange.exchange.inventory import Owned, Position, owned_blobs
from nbexchange.storage import Storage


class Check(Command):
    """Find out whether every row has its bytes, unharmed.

    Reads every stored file and compares its size and hash with the database. Names what is
    missing or damaged, changes nothing, and leaves with exit status 1 if there was anything. The
    service may go on meanwhile.
    """

    name = "nbexchange-check"
    description = __doc__ or ""
    flags: dict[Any, Any] = {
        "quick": ({"Check": {"quick": True}}, "Look at sizes only; do not read the files."),
    }

    quick = Bool(False, help="Look at sizes only; do not read the files.").tag(config=True)

    def run(self) -> None:
        database, storage = self.service.make_database(), self.service.make_storage()
        try:
            database.prepare()
            looked, harmed = asyncio.run(self._look(database, storage))
        finally:
            storage.close()
            database.close()
        print(f"{looked} files looked at, {harmed} missing or damaged.")
        if harmed:
            sys.exit(1)

    async def _look(self, database: Database, storage: Storage) -> tuple[int, int]:
        looked = harmed = 0
        position: Position | None = Position()
        while position is not None:
            owned, position = await database.read(owned_blobs, position)
            for one in owned:
                looked += 1
                if not await self._is_whole(storage, one):
                    harmed += 1
                    print(f"HARMED: {one.owner}: file {one.blob.key}", flush=True)
        return looked, harmed

    async def _is_whole(self, storage: Storage, one: Owned) -> bool:
        try:
            async for _ in storage.read(one.blob, 0, 0 if self.quick else None):
                pass
        except Damaged:
            return False
        return True
