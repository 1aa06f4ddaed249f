"""nbexchange purge"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from traitlets import Bool, Unicode

from nbexchange.commands.base import CourseCommand, operator
from nbexchange.database import Database
from nbexchange.errors import Malformed
from nbexchange.exchange.hiding import restore_as_operator
from nbexchange.exchange.purge_records import PurgeRecord, Scope
from nbexchange.exchange.upkeep.purging import confirm_purge, purges, request_purge
from nbexchange.progress import Progress
from nbexchange.storage import Storage, delete_all
from nbexchange.timestamps import minute


class Purge(CourseCommand):
    """Erase a course, an assignment, or all of a student, for good; in two steps.

    First this only tells what would be erased, and gives a code. With --confirm=CODE, within a
    day, it erases exactly that; if anything has come or gone meanwhile, it erases nothing. Both
    steps are recorded with the name of the operating system's user; --list shows them. Backups
    keep what was erased for as long as you keep them.

    What an instructor purged is hidden first, and erased by the service when its grace is over
    (purge_grace). --list shows its code too: --restore=CODE brings it back, with
    --assignment=NAME under another name, and --confirm=CODE erases it before its time.
    """

    name = "nbexchange-purge"
    description = __doc__ or ""
    examples = """
    nbexchange purge --org=1 --course=physics
    nbexchange purge --org=1 --course=physics --assignment=ps1
    nbexchange purge --org=1 --student=bob                  # in all courses
    nbexchange purge --confirm=CODE
    nbexchange purge --restore=CODE                         # what an instructor purged
    nbexchange purge --list
    """

    aliases: dict[Any, Any] = {
        **CourseCommand.aliases,
        "assignment": "Purge.assignment_id",
        "student": "Purge.student_id",
        "confirm": "Purge.confirm",
        "restore": "Purge.restore",
    }
    flags: dict[Any, Any] = {"list": ({"Purge": {"list": True}}, "Show what was asked and erased.")}

    assignment_id = Unicode(None, allow_none=True, help="Only this assignment of the course.").tag(
        config=True
    )
    student_id = Unicode(
        None, allow_none=True, help="Only what this person handed in, and feedback on it."
    ).tag(config=True)
    confirm = Unicode(None, allow_none=True, help="Erase what this code was given for.").tag(
        config=True
    )
    restore = Unicode(
        None, allow_none=True, help="Bring back what an instructor purged with this code."
    ).tag(config=True)
    list = Bool(False, help="Show what was asked for and what was erased.").tag(config=True)

    def run(self) -> None:
        scope = Scope(self.org_id, self.course_id, self.assignment_id, self.student_id)
        if self.confirm is not None and self.restore is not None:
            raise Malformed("--confirm erases and --restore brings back; write one of them")
        if self.confirm is None and self.restore is None and not self.list:
            _check(scope)
        with self.parts() as (database, storage):
            if self.list:
                _print_records(database.read_now(purges))
            elif self.restore is not None:
                self._restore(database, self.restore)
            elif self.confirm is None:
                _print_request(database.write_now(request_purge, scope, operator()))
            else:
                self._erase(database, storage, self.confirm)

    def _restore(self, database: Database, code: str) -> None:
        restored = database.write_now(
            restore_as_operator, code, operator(), self.assignment_id or None
        )
        scope = replace(restored.record.scope, assignment_id=restored.assignment_id)
        print(f"Restored {scope}: {restored.record.words}.")

    def _erase(self, database: Database, storage: Storage, code: str) -> None:
        record, keys = database.write_now(confirm_purge, code, operator())
        print(f"Erased of {record.scope}: {record.words}.")
        left = asyncio.run(_delete(storage, keys))
        if left:
            print(
                f"{left:,} of the files could not be deleted, since the store is away. No row "
                "knows them any more: `nbexchange gc --delete` sweeps them up when it is back.",
                file=sys.stderr,
            )
            sys.exit(1)


async def _delete(storage: Storage, keys: Collection[str]) -> int:
    with Progress("Deleting files", len(keys)) as progress:
        return await delete_all(storage, keys, progress.advance)


def _check(scope: Scope) -> None:
    if scope.course_id is None and scope.assignment_id is not None:
        raise Malformed("say with --course whose assignment that is")
    if scope.course_id is None and scope.student_id is None:
        raise Malformed("say what to erase with --course, --assignment or --student")


def _print_request(record: PurgeRecord) -> None:
    print(f"Nothing is erased yet. This would go, of {record.scope}: {record.words}.")
    print("To erase it for good, within 24 hours and unless something comes or goes meanwhile:")
    print(f"    nbexchange purge --confirm={record.code}")


def _print_records(records: Sequence[PurgeRecord]) -> None:
    for record in records:
        print(f"{record.code}  {record.scope}: {record.words}")
        if record.erase_at is None:
            print(f"    asked for on {minute(record.requested_at)} by {record.requested_by}")
        else:
            print(
                f"    hidden on {minute(record.requested_at)} by instructor {record.requested_by}"
            )
        print(f"    {_end(record)}")


def _end(record: PurgeRecord) -> str:
    if record.erased_at:
        return f"erased on {minute(record.erased_at)} by {record.erased_by}"
    if record.restored_at:
        return f"restored on {minute(record.restored_at)} by {record.restored_by}"
    if record.erase_at:
        return (
            f"will be erased on {minute(record.erase_at)}; "
            f"nbexchange purge --restore={record.code} brings it back"
        )
    return "not erased"
