"""nbexchange check"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitlets import Bool, Unicode

from nbexchange.commands.base import Command, refuse_absence
from nbexchange.commands.litter import OLD, litter
from nbexchange.database import Database
from nbexchange.errors import Damaged, Malformed, Unavailable
from nbexchange.exchange.inventory import Owned, Position, how_many, known_keys, owned_blobs
from nbexchange.progress import Progress
from nbexchange.storage import Storage
from nbexchange.timestamps import to_text

ADVICE = {
    "release": "let the instructor release the assignment again",
    "submission": "ask the student to submit again, or for the cached copy that nbgrader keeps "
    "on the student's side",
    "feedback": "let the instructor release the feedback again",
}


class Check(Command):
    """Find out whether every row has its bytes, unharmed.

    Reads every stored file and compares its size and hash with the database. Names what is
    missing or damaged, changes nothing, and leaves with exit status 1 if there was anything. The
    service may go on meanwhile. With --repair-report=FILE it also writes, as JSON, what is needed
    to mend it: for each harmed file whose it is, where it lies, its hash, and what to do.
    """

    name = "nbexchange-check"
    description = __doc__ or ""
    aliases: dict[Any, Any] = {**Command.aliases, "repair-report": "Check.repair_report"}
    flags: dict[Any, Any] = {
        "quick": ({"Check": {"quick": True}}, "Look at sizes only; do not read the files."),
    }

    quick = Bool(False, help="Look at sizes only; do not read the files.").tag(config=True)
    repair_report = Unicode(
        None, allow_none=True, help="Write what is needed for a repair into this file, as JSON."
    ).tag(config=True)

    def run(self) -> None:
        if self.repair_report is not None:
            writable(self.repair_report)
        with self.parts() as (database, storage):
            looked, harmed = asyncio.run(self._check(database, storage))
        print(f"{looked} files looked at, {harmed} missing or damaged.")
        if harmed:
            sys.exit(1)

    async def _check(self, database: Database, storage: Storage) -> tuple[int, int]:
        looked, harmed = await self._look(database, storage)
        if self.repair_report is not None:
            report = await _report(database, storage, looked, harmed)
            write_report(self.repair_report, report)
        return looked, len(harmed)

    async def _look(self, database: Database, storage: Storage) -> tuple[int, list[Owned]]:
        looked, harmed = 0, []
        position: Position | None = Position()
        with Progress("Looking at files", await database.read(how_many)) as progress:
            while position is not None:
                owned, position = await database.read(owned_blobs, position)
                for one in owned:
                    if not await self._is_whole(storage, one) and await _is_known(database, one):
                        harmed.append(one)
                        progress.print(f"HARMED: {one}: file {one.blob.key}")
                    progress.advance()
                looked += len(owned)
        return looked, harmed

    async def _is_whole(self, storage: Storage, one: Owned) -> bool:
        try:
            async for _ in storage.read(one.blob, 0, 0 if self.quick else None):
                pass
        except Damaged:
            return False
        except Unavailable:
            await refuse_absence(storage)
            return False
        return True


async def _is_known(database: Database, one: Owned) -> bool:
    """False when it was erased while we looked."""
    return bool(await database.read(known_keys, [one.blob.key]))


def writable(file: str) -> None:
    """Raise Malformed unless a report can be written there: hours of work would be lost."""
    try:
        with Path(file).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise Malformed(f"cannot write the report {file}: {error.strerror}") from error


def write_report(file: str, report: Any) -> None:
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # A name of a file that is not UTF-8 becomes what JSON escapes it to.
    Path(file).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


async def _report(
    database: Database, storage: Storage, looked: int, harmed: Sequence[Owned]
) -> dict[str, Any]:
    sizes = await _sizes(storage, harmed)
    return {
        "looked_at": looked,
        "harmed": [_repair(storage, one, sizes.get(one.blob.key)) for one in harmed],
        "litter": await _litter(database, storage),
    }


async def _sizes(storage: Storage, harmed: Sequence[Owned]) -> dict[str, int]:
    """What the store has of them."""
    wanted = {one.blob.key for one in harmed}
    if not wanted:
        return {}
    with Progress("Looking for what is missing") as progress:
        found = {}
        async for entry in storage.entries():
            progress.advance()
            if entry.key in wanted and not entry.unfinished:
                found[entry.key] = entry.size
    return found


async def _litter(database: Database, storage: Storage) -> dict[str, int]:
    files = size = 0
    with Progress("Looking for litter") as progress:
        async for entry in litter(database, storage, OLD, progress):
            files, size = files + 1, size + entry.size
    return {"files": files, "bytes": size}


def _repair(storage: Storage, one: Owned, found_size: int | None) -> dict[str, Any]:
    return {
        "what": one.kind,
        "organisation": one.org_id,
        "course_id": one.course_id,
        "assignment_id": one.assignment_id,
        "person": one.person,
        "timestamp": to_text(one.timestamp),
        "id": one.token,
        "notebook_id": one.part,
        "version": one.version,
        "key": one.blob.key,
        "sha256": one.blob.sha256,
        "size": one.blob.size,
        "place": str(storage.path(one.blob.key)),
        "state": _state(one, found_size),
        "found_size": found_size,
        "what_to_do": [
            f"restore the file named {one.blob.key} from a backup to this place",
            "or put any file there that has this sha256, whatever its name is in the backup",
            f"else {ADVICE[one.kind]}",
        ],
    }


def _state(one: Owned, found_size: int | None) -> str:
    if found_size is None:
        return "missing"
    return "wrong size" if found_size != one.blob.size else "wrong bytes"
