"""nbexchange gc"""

from __future__ import annotations

import asyncio
from typing import Any

from traitlets import Bool, Float

from nbexchange.commands.base import Command
from nbexchange.commands.expected import Expected
from nbexchange.commands.orphaned_blobs import (
    ORPHAN_HOURS,
    belongs_to_other_installation,
    orphaned_blobs,
)
from nbexchange.database import Database
from nbexchange.errors import Malformed
from nbexchange.progress import Progress
from nbexchange.storage import Storage
from nbexchange.timestamps import minute


class Gc(Command):
    """Delete stored files that belong to nothing.

    An upload that was interrupted by a crash, or whose row could not be written, leaves an orphaned
    blob: a file that no row owns. Without --delete this only lists them. The service may run
    meanwhile: files younger than --older-than hours stay, because their row may still be written.
    """

    name = "nbexchange-gc"
    description = __doc__ or ""
    aliases: dict[Any, Any] = {**Command.aliases, "older-than": "Gc.older_than"}
    flags: dict[Any, Any] = {
        "delete": ({"Gc": {"delete": True}}, "Delete the files that were found."),
        "everything": (
            {"Gc": {"everything": True}},
            "Delete even if the database owns none of the files, as after --reset-db.",
        ),
    }

    delete = Bool(False, help="Delete the files; without it, only list them.").tag(config=True)
    older_than = Float(
        ORPHAN_HOURS,
        min=0,
        help="How old a file has to be, in hours. Keep it longer than an upload takes.",
    ).tag(config=True)

    everything = Bool(
        False, help="Delete even if the database owns none of the files, as after --reset-db."
    ).tag(config=True)

    def run(self) -> None:
        with self.parts() as (database, storage):
            number, size = asyncio.run(self._find_orphans(database, storage))
        done = "deleted" if self.delete else "found; delete them with --delete"
        print(f"{number} files of {size:,} bytes {done}.")

    async def _find_orphans(self, database: Database, storage: Storage) -> tuple[int, int]:
        """The number and total size of the orphaned blobs, which `--delete` also deletes."""
        is_guarded = self.delete and not self.everything
        if is_guarded and await belongs_to_other_installation(database, storage):
            raise Malformed(
                "The database owns none of the files in the store, so all old ones would be "
                "deleted. Check that it is the right database. If it is, add --everything."
            )
        if is_guarded:
            await _refuse_gone(database, storage)
        number = size = 0
        with Progress("Checking files") as progress:
            async for entry in orphaned_blobs(database, storage, self.older_than, progress):
                number, size = number + 1, size + entry.size
                progress.print(f"{entry.modified:%Y-%m-%d %H:%M} {entry.size:>12,} {entry.key}")
                if self.delete:
                    await storage.delete_entry(entry)
        return number, size


async def _refuse_gone(database: Database, storage: Storage) -> None:
    """Raise Malformed if files without a row may be the only copies of lost work."""
    expected = await Expected.load(storage)
    gone = await expected.gone(database) if expected is not None else None
    if expected is not None and gone:
        raise Malformed(
            f"Nothing was deleted: {sum(gone.values()):,} rows of the check of "
            f"{minute(expected.seen_at)} are gone, and no purge erased them. Restore the database "
            "from a backup. If they are lost: nbexchange check --forget-gone, or --everything"
        )
