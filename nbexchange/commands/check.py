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
    "release": "ask the instructor to release the assignment again",
    "submission": "ask the student to submit again, or for the cached copy that nbgrader keeps "
    "on the student's side",
    "feedback": "ask the instructor to release the feedback again",
}


class Check(Command):
    """Check that the stored file of every row exists and is intact.

    Reads every stored file and compares its size and hash with the database. Names each file that
    is missing or corrupt, and changes nothing. The exit status is 1 if there are any. The service
    may run meanwhile. --repair-report=FILE also writes a JSON file with the data for a repair: the
    owner, the path, the hash and the next step for each corrupt file.

    It also counts files that no row owns, and names rows that existed at the last check and
    disappeared without a purge, for example after a reset or the restore of an older backup. The
    store keeps the list of rows for the next check. While rows have disappeared, that list is not
    replaced until --forget-gone confirms that they are lost.
    """

    name = "nbexchange-check"
    description = __doc__ or ""
    aliases: dict[Any, Any] = {**Command.aliases, "repair-report": "Check.repair_report"}
    flags: dict[Any, Any] = {
        "quick": ({"Check": {"quick": True}}, "Compare sizes only; do not read the files."),
        "forget-gone": (
            {"Check": {"forget_gone": True}},
            "Accept that the missing rows are lost; the next check does not expect them.",
        ),
    }

    quick = Bool(False, help="Compare sizes only; do not read the files.").tag(config=True)
    repair_report = Unicode(
        None, allow_none=True, help="Write the data for a repair into this file, as JSON."
    ).tag(config=True)

    forget_gone = Bool(
        False, help="Accept that the missing rows are lost; the next check does not expect them."
    ).tag(config=True)

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
        print(f"{checked} files checked, {len(corrupt)} missing or corrupt.")
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
        with Progress("Checking files", await database.read(count_rows)) as progress:
            while position is not None:
                batch, position = await database.read(owned_blobs, position)
                for owned in batch:
                    current.add(owned)
                    is_whole = await self._is_whole(storage, owned)
                    if not is_whole and await _is_still_owned(database, owned):
                        corrupt.append(owned)
                        progress.print(f"CORRUPT: {owned}: file {owned.blob.key}")
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
    """False if it was erased meanwhile."""
    return bool(await database.read(known_keys, [owned.blob.key]))


def check_writable(file: str) -> None:
    """Raise Malformed unless the file can be written, before hours of work would be lost."""
    try:
        with Path(file).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise Malformed(
            f"Cannot write the report {file}: {error.strerror}. Name another file."
        ) from error


def write_report(file: str, report: Any) -> None:
    text = json.dumps(report, indent=1, ensure_ascii=False)
    # A file name that is not UTF-8 is written with escapes.
    Path(file).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def _print_gone(gone: Mapping[Owner, int], expected: Expected, *, forget: bool) -> None:
    for line in lines(gone, expected.seen_at):
        print(line)
    print(
        "The next check does not expect them."
        if forget
        else "No purge erased them. Restore the database from a backup, and do not delete any file "
        "before that. If they are lost: nbexchange check --forget-gone"
    )


class Orphans(NamedTuple):
    """Files that no row owns."""

    files: int
    size: int
    young: int
    """The files whose row may still be written."""
    finished: int
    """The files that are not unfinished uploads."""


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
    """Whether the database owns none of the files, so that it is the wrong one or was erased."""
    if orphans.files:
        young = f" ({orphans.young:,} of them may still get one)" if orphans.young else ""
        print(f"{orphans.files:,} files of {orphans.size:,} bytes have no row{young}.")
    is_wrong_database = bool(orphans.finished and not checked)
    if is_wrong_database:
        print(
            "The database owns none of the files in the store. It may be the wrong one (check "
            "db_url), or it was reset. Restore it from a backup, and do not delete any file before "
            "that."
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
        "corrupt": [_repair(storage, owned, sizes.get(owned.blob.key)) for owned in corrupt],
        "gone": [{**owner._asdict(), "rows": number} for owner, number in gone.items()],
        "orphaned": {"files": orphans.files, "bytes": orphans.size},
    }


async def _sizes(storage: Storage, corrupt: Sequence[Owned]) -> dict[str, int]:
    """The sizes of these files in the store."""
    wanted = {owned.blob.key for owned in corrupt}
    if not wanted:
        return {}
    with Progress("Looking for missing files") as progress:
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
            f"restore the file named {owned.blob.key} from a backup to this path",
            "or put any file with this sha256 there, whatever its name in the backup is",
            f"or else {ADVICE[owned.kind]}",
        ],
    }


def _state(owned: Owned, actual_size: int | None) -> str:
    if actual_size is None:
        return "missing"
    return "wrong size" if actual_size != owned.blob.size else "wrong bytes"
