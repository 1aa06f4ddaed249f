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
from nbexchange.exchange.hiding import restore_as_administrator
from nbexchange.exchange.purge_records import PurgeRecord, Scope
from nbexchange.exchange.upkeep.purging import confirm_purge, purges, request_purge
from nbexchange.progress import Progress
from nbexchange.storage import Storage, delete_all
from nbexchange.timestamps import minute


class Purge(CourseCommand):
    """Erase a course, an assignment, or all work of a student, for good; in two steps.

    The first step only prints what would be erased, and a code. With --confirm=CODE, within a day,
    the second step erases exactly that; if rows were added or removed meanwhile, it erases nothing.
    Both steps are recorded with the name of the operating system's user; --list shows them. Backups
    keep erased data for as long as you keep the backups.

    An instructor's purge first hides the assignment, and the service erases it after a grace period
    (purge_grace). --list shows its code too: --restore=CODE restores the assignment, with
    --assignment=NAME under another name, and --confirm=CODE erases it at once.
    """

    name = "nbexchange-purge"
    description = __doc__ or ""
    examples = """
    nbexchange purge --org=1 --course=physics
    nbexchange purge --org=1 --course=physics --assignment=ps1
    nbexchange purge --org=1 --student=bob                  # in all courses
    nbexchange purge --confirm=CODE
    nbexchange purge --restore=CODE                         # undo an instructor's purge
    nbexchange purge --list
    """

    aliases: dict[Any, Any] = {
        **CourseCommand.aliases,
        "assignment": "Purge.assignment_id",
        "student": "Purge.student_id",
        "confirm": "Purge.confirm",
        "restore": "Purge.restore",
    }
    flags: dict[Any, Any] = {"list": ({"Purge": {"list": True}}, "Show all purges.")}

    assignment_id = Unicode(None, allow_none=True, help="Only this assignment of the course.").tag(
        config=True
    )
    student_id = Unicode(
        None, allow_none=True, help="Only this student's submissions, and the feedback on them."
    ).tag(config=True)
    confirm = Unicode(None, allow_none=True, help="Carry out the purge with this code.").tag(
        config=True
    )
    restore = Unicode(
        None, allow_none=True, help="Undo the instructor's purge with this code."
    ).tag(config=True)
    list = Bool(False, help="Show all purges, requested and carried out.").tag(config=True)

    def run(self) -> None:
        scope = Scope(self.org_id, self.course_id, self.assignment_id, self.student_id)
        if self.confirm is not None and self.restore is not None:
            raise Malformed("--confirm erases and --restore restores. Use only one of them.")
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
            restore_as_administrator, code, operator(), self.assignment_id or None
        )
        scope = replace(restored.record.scope, assignment_id=restored.assignment_id)
        print(f"Restored {scope}: {restored.record.words}.")

    def _erase(self, database: Database, storage: Storage, code: str) -> None:
        record, keys = database.write_now(confirm_purge, code, operator())
        print(f"Erased of {record.scope}: {record.words}.")
        left = asyncio.run(_delete(storage, keys))
        if left:
            print(
                f"{left:,} of the files could not be deleted, because the store is unavailable. No "
                "row owns them any more. When the store is available again, delete them with "
                "`nbexchange gc --delete`.",
                file=sys.stderr,
            )
            sys.exit(1)


async def _delete(storage: Storage, keys: Collection[str]) -> int:
    with Progress("Deleting files", len(keys)) as progress:
        return await delete_all(storage, keys, progress.advance)


def _check(scope: Scope) -> None:
    if scope.course_id is None and scope.assignment_id is not None:
        raise Malformed("Add --course with the course of the assignment.")
    if scope.course_id is None and scope.student_id is None:
        raise Malformed("Say what to erase with --course, --assignment or --student.")


def _print_request(record: PurgeRecord) -> None:
    print(f"Nothing is erased yet. This would be erased of {record.scope}: {record.words}.")
    print("To erase it for good within 24 hours, if no row is added or removed meanwhile:")
    print(f"    nbexchange purge --confirm={record.code}")


def _print_records(records: Sequence[PurgeRecord]) -> None:
    for record in records:
        print(f"{record.code}  {record.scope}: {record.words}")
        if record.erase_at is None:
            print(f"    requested on {minute(record.requested_at)} by {record.requested_by}")
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
            f"restore it with: nbexchange purge --restore={record.code}"
        )
    return "not erased"
