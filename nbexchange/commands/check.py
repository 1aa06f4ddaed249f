"""nbexchange check"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from traitlets import Bool, Unicode

from nbexchange.commands.base import Command, refuse_absence
from nbexchange.commands.expected import Expected, Owner, lines
from nbexchange.commands.orphaned_blobs import ORPHAN_HOURS, orphaned_blobs
from nbexchange.database import Database, clock
from nbexchange.errors import Damaged, Malformed, Unavailable
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.upkeep.inventory import Owned, Position, count_rows, owned_blobs
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

    It also counts files that no row owns, and names rows that the last check saw and that are gone
    without a purge, as after a reset or an older backup of the database. What it saw is kept in the
    store; while rows are gone it is not replaced, until --forget-gone says that they are lost.
    """

    name = "nbexchange-check"
    description = __doc__ or ""
    aliases: dict[Any, Any] = {**Command.aliases, "repair-report": "Check.repair_report"}
    flags: dict[Any, Any] = {
        "quick": ({"Check": {"quick": True}}, "Look at sizes only; do not read the files."),
        "forget-gone": (
            {"Check": {"forget_gone": True}},
            "Do not expect rows any more that are gone for good.",
        ),
    }

    quick = Bool(False, help="Look at sizes only; do not read the files.").tag(config=True)
    repair_report = Unicode(
        None, allow_none=True, help="Write what is needed for a repair into this file, as JSON."
    ).tag(config=True)

    forget_gone = Bool(False, help="Do not expect rows any more that are gone for good.").tag(
        config=True
    )

    def run(self) -> None:
        if self.repair_report is not None:
            check_writable(self.repair_report)
        with self.parts() as (database, storage):
            is_fine = asyncio.run(self._check(database, storage))
        if not is_fine:
            sys.exit(1)

    async def _check(self, database: Database, storage: Storage) -> bool:
        expected = await Expected.load(storage)
        current = Expected(await database.read(clock))
        checked, corrupt = await self._look(database, storage, current)
        print(f"{checked} files looked at, {len(corrupt)} missing or damaged.")
        gone = await expected.gone(database) if expected is not None else {}
        if expected is not None and gone:
            _print_gone(gone, expected, forget=self.forget_gone)
        if not gone or self.forget_gone:
            await current.save(storage)
        orphans = await _orphans(database, storage)
        is_wrong_database = _print_orphans(orphans, checked)
        if self.repair_report is not None:
            report = await _report(storage, checked, corrupt, gone, orphans)
            write_report(self.repair_report, report)
        return not corrupt and not is_wrong_database and (not gone or self.forget_gone)

    async def _look(
        self, database: Database, storage: Storage, current: Expected
    ) -> tuple[int, list[Owned]]:
        checked, corrupt = 0, []
        position: Position | None = Position()
        with Progress("Looking at files", await database.read(count_rows)) as progress:
            while position is not None:
                batch, position = await database.read(owned_blobs, position)
                for owned in batch:
                    current.add(owned)
                    is_whole = await self._is_whole(storage, owned)
                    if not is_whole and await _is_still_owned(database, owned):
                        corrupt.append(owned)
                        progress.print(f"HARMED: {owned}: file {owned.blob.key}")
                    progress.advance()
                checked += len(batch)
        return checked, corrupt

    async def _is_whole(self, storage: Storage, owned: Owned) -> bool:
        try:
            async for _ in storage.read(owned.blob, 0, 0 if self.quick else None):
                pass
        except Damaged:
            return False
        except Unavailable:
            await refuse_absence(storage)
            return False
        return True


async def _is_still_owned(database: Database, owned: Owned) -> bool:
    """False when it was erased while we looked."""
    return bool(await database.read(known_keys, [owned.blob.key]))


def check_writable(file: str) -> None:
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


def _print_gone(gone: Mapping[Owner, int], expected: Expected, *, forget: bool) -> None:
    for line in lines(gone, expected.seen_at):
        print(line)
    print(
        "They are not expected any more."
        if forget
        else "No purge erased them. Restore the database from a backup, and delete no file before. "
        "If they are gone for good: nbexchange check --forget-gone"
    )


class Orphans(NamedTuple):
    """Files that no row owns."""

    files: int
    size: int
    young: int
    """Of the files, those whose row may still come."""
    finished: int
    """Of the files, those that are no broken upload."""


async def _orphans(database: Database, storage: Storage) -> Orphans:
    files = size = young = finished = 0
    youngest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=ORPHAN_HOURS)
    with Progress("Looking for files without a row") as progress:
        async for entry in orphaned_blobs(database, storage, 0, progress):
            files, size = files + 1, size + entry.size
            young += entry.modified > youngest
            finished += not entry.unfinished
    return Orphans(files, size, young, finished)


def _print_orphans(orphans: Orphans, checked: int) -> bool:
    """Whether none of the files is known, so that it is a wrong or an erased database."""
    if orphans.files:
        young = f" (that of {orphans.young:,} may still come)" if orphans.young else ""
        print(f"{orphans.files:,} files of {orphans.size:,} bytes have no row{young}.")
    is_wrong_database = bool(orphans.finished and not checked)
    if is_wrong_database:
        print(
            "The database knows none of the files in the store. Is it the right one (db_url), or "
            "was it reset? Restore it from a backup, and delete no file before."
        )
    return is_wrong_database


async def _report(
    storage: Storage,
    checked: int,
    corrupt: Sequence[Owned],
    gone: Mapping[Owner, int],
    orphans: Orphans,
) -> dict[str, Any]:
    sizes = await _sizes(storage, corrupt)
    return {
        "looked_at": checked,
        "harmed": [_repair(storage, owned, sizes.get(owned.blob.key)) for owned in corrupt],
        "gone": [{**owner._asdict(), "rows": number} for owner, number in gone.items()],
        "litter": {"files": orphans.files, "bytes": orphans.size},
    }


async def _sizes(storage: Storage, corrupt: Sequence[Owned]) -> dict[str, int]:
    """What the store has of them."""
    wanted = {owned.blob.key for owned in corrupt}
    if not wanted:
        return {}
    with Progress("Looking for what is missing") as progress:
        sizes = {}
        async for entry in storage.entries():
            progress.advance()
            if entry.key in wanted and not entry.unfinished:
                sizes[entry.key] = entry.size
    return sizes


def _repair(storage: Storage, owned: Owned, actual_size: int | None) -> dict[str, Any]:
    return {
        "what": owned.kind,
        "organisation": owned.org_id,
        "course_id": owned.course_id,
        "assignment_id": owned.assignment_id,
        "person": owned.person,
        "timestamp": to_text(owned.timestamp),
        "id": owned.token,
        "notebook_id": owned.part,
        "version": owned.version,
        "key": owned.blob.key,
        "sha256": owned.blob.sha256,
        "size": owned.blob.size,
        "place": str(storage.path(owned.blob.key)),
        "state": _state(owned, actual_size),
        "found_size": actual_size,
        "what_to_do": [
            f"restore the file named {owned.blob.key} from a backup to this place",
            "or put any file there that has this sha256, whatever its name is in the backup",
            f"else {ADVICE[owned.kind]}",
        ],
    }


def _state(owned: Owned, actual_size: int | None) -> str:
    if actual_size is None:
        return "missing"
    return "wrong size" if actual_size != owned.blob.size else "wrong bytes"
