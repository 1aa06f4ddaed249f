"""nbexchange import-folder"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import pwd
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from traitlets import Bool, List, Unicode

from nbexchange import archive
from nbexchange.archive import ArchiveLimits
from nbexchange.commands import source_exchange
from nbexchange.commands.base import CourseCommand
from nbexchange.commands.check import check_writable, write_report
from nbexchange.commands.shared_folder import MANIFEST
from nbexchange.commands.source_exchange import (
    KINDS,
    BadCourse,
    Item,
    Reading,
    SourceCourse,
    Unreadable,
    check_digest,
)
from nbexchange.database import Database
from nbexchange.errors import Malformed, NbExchangeError, NotFound, StoreFull, TooLarge, Unavailable
from nbexchange.exchange.upkeep.importing import (
    PEOPLE,
    OldFeedback,
    OldPerson,
    OldRelease,
    OldSubmission,
    import_people,
)
from nbexchange.progress import Progress
from nbexchange.storage import CHUNK, Blob, Storage, delete_all, unchecked
from nbexchange.timestamps import to_text

NEW, THERE, REFUSED = "imported", "already there", "refused"


class ImportFolder(CourseCommand):
    """Import nbgrader's own exchange, or an export of another nbexchange.

    Imports released assignments, submissions with the time that nbgrader gave them, and feedback.
    Nothing is imported twice, nothing is changed in the folder and nothing is replaced here, so you
    can run it again. An item that cannot be imported is named with the reason; the others are still
    imported, and the exit status is 1. Stop using the old exchange before that. --dry-run only
    prints what would be imported.

    If other users than its owner may write in a folder, an entry of that folder is imported only if
    it belongs to the user who runs this command, to root, to the owner of the exchange, or to an
    --owner.
    """

    name = "nbexchange-import-folder"
    takes_words = True
    description = __doc__ or ""
    examples = """
    nbexchange import-folder /srv/nbgrader/exchange --instructor=ada --dry-run
    nbexchange import-folder /srv/nbgrader/exchange --course=physics --instructor=ada --owner=ada
    nbexchange import-folder /backup/physics-2026 --from-export --instructor=ada
    """
    aliases: dict[Any, Any] = {
        **CourseCommand.aliases,
        "instructor": "ImportFolder.instructor",
        "owner": "ImportFolder.owners",
        "report": "ImportFolder.report",
    }
    flags: dict[Any, Any] = {
        "dry-run": ({"ImportFolder": {"dry_run": True}}, "Only print what would be imported."),
        "from-export": (
            {"ImportFolder": {"from_export": True}},
            "The folder is an export of an nbexchange: trust its manifest.json.",
        ),
    }

    instructor = Unicode(
        help="The user name of the instructor who released the assignments and the feedback."
    ).tag(config=True)
    owners = List(
        Unicode(),
        help="Users of this machine, by name or uid, whose folders are trusted as an instructor's.",
    ).tag(config=True)
    from_export = Bool(
        False, help="The folder is an export of an nbexchange: trust its manifest.json."
    ).tag(config=True)
    report = Unicode(
        None, allow_none=True, help="Write the outcome of every item into this file, as JSON."
    ).tag(config=True)
    dry_run = Bool(False, help="Only print what would be imported.").tag(config=True)

    def run(self) -> None:
        exchange, courses = self._courses()
        if self.report is not None:
            check_writable(self.report)
        with self.parts() as (database, storage):
            importer = _Importer(
                database, storage, self.limits, self.service.max_buffer_size, self.dry_run
            )
            asyncio.run(importer.import_all(courses))
        _print_summary(importer.outcomes, dry_run=self.dry_run)
        if self.report is not None:
            write_report(self.report, self._report(exchange, importer.outcomes))
        if any(outcome["outcome"] == REFUSED for outcome in importer.outcomes):
            sys.exit(1)

    def _courses(self) -> tuple[Path, list[SourceCourse | BadCourse]]:
        if len(self.extra_args) != 1:
            raise Malformed(
                "Name one exchange folder: nbexchange import-folder FOLDER --instructor=..."
            )
        if not self.instructor:
            raise Malformed(
                "Add --instructor with the user name of the instructor who released the "
                "assignments and the feedback."
            )
        exchange = Path(self.extra_args[0]).absolute()
        available = source_exchange.courses(exchange, self._reading(exchange))
        wanted = [course for course in available if self.course_id in (None, course.course_id)]
        # One that cannot be read may be it: folders of an export are not always called as courses.
        wanted = wanted or [course for course in available if isinstance(course, BadCourse)]
        if not wanted:
            course_ids = ", ".join(repr(course.course_id) for course in available)
            raise Malformed(f"{exchange} has no course {self.course_id!r}. It has {course_ids}.")
        return exchange, wanted

    def _reading(self, exchange: Path) -> Reading:
        trusted = {0, os.geteuid(), *map(_uid, self.owners)}
        if exchange.is_dir():
            trusted.add(exchange.stat().st_uid)
        return Reading(
            self.org_id, self.instructor, self.limits, frozenset(trusted), self.from_export
        )

    def _report(self, exchange: Path, outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "exchange": str(exchange),
            "organisation": self.org_id,
            "dry_run": self.dry_run,
            "counts": Counter(outcome["outcome"] for outcome in outcomes),
            "items": outcomes,
        }


def _uid(owner: str) -> int:
    if owner.isascii() and owner.isdigit():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise Malformed(f"--owner={owner}: this machine has no such user. Use the uid.") from None


class _Importer:
    def __init__(
        self,
        database: Database,
        storage: Storage,
        limits: ArchiveLimits,
        max_size: int,
        dry_run: bool,  # noqa: FBT001
    ) -> None:
        self._database = database
        self._storage = storage
        self._limits = limits
        self._max_size = max_size
        self._dry_run = dry_run
        self._missing: set[OldSubmission] = set()
        self._new_keys: set[str] = set()
        """Keys of the blobs that were stored by this run."""
        self.outcomes: list[dict[str, Any]] = []

    async def import_all(self, courses: Sequence[SourceCourse | BadCourse]) -> None:
        size = sum(len(course) for course in courses if isinstance(course, SourceCourse))
        with Progress("Importing", size) as self._progress:
            for course in courses:
                if isinstance(course, SourceCourse):
                    await self._import_course(course)
                else:
                    fields = {"what": "course", "place": str(course.path)}
                    self._add_outcome(course, _refused(fields, course.reason))

    async def _import_course(self, course: SourceCourse) -> None:
        if course.ignores_manifest:
            notice = (
                f"{course.path / MANIFEST} is not read. If this is an export, add --from-export."
            )
            self._progress.print(notice)
        await self._import_people(course)
        for item in course.items():
            outcome = await self._outcome(item)
            self._add_outcome(course, outcome)
            self._remember_result(course, item, outcome)
            self._progress.advance()

    def _add_outcome(self, course: SourceCourse | BadCourse, outcome: dict[str, Any]) -> None:
        self.outcomes.append({"course_id": course.course_id, **outcome})
        for head, reason in (("WARNING", "warning"), ("REFUSED", "reason")):
            if reason in outcome:
                self._progress.print(f"{head}: {outcome['place']}: {outcome[reason]}")

    def _remember_result(
        self, course: SourceCourse, item: Item | Unreadable, outcome: dict[str, Any]
    ) -> None:
        old = item.old if isinstance(item, Item) else None
        if isinstance(old, OldRelease) and outcome["outcome"] != REFUSED:
            course.released.add(old.assignment_id)
        if isinstance(old, OldSubmission) and outcome["outcome"] == REFUSED:
            self._missing.add(old)

    async def _import_people(self, course: SourceCourse) -> None:
        people: list[OldPerson] = []
        for person in course.people():
            if isinstance(person, Unreadable):
                fields = {"what": person.what, "place": str(person.path)}
                self._add_outcome(course, _refused(fields, person.reason))
            else:
                people.append(person)
        if self._dry_run or not course.is_export:
            return
        for start in range(0, len(people) or 1, PEOPLE):
            some = people[start : start + PEOPLE]
            verb = functools.partial(
                import_people,
                org_id=course.org_id,
                course_id=course.course_id,
                title=course.title,
                people=some,
            )
            await self._database.write(verb)

    async def _outcome(self, item: Item | Unreadable) -> dict[str, Any]:
        if isinstance(item, Unreadable):
            return _refused({"what": item.what, "place": str(item.path)}, item.reason)
        fields = _described(item)
        try:
            return fields | {"outcome": NEW if await self._import_item(item) else THERE}
        except (Unavailable, StoreFull):
            raise  # the next items would fail too
        except NbExchangeError as error:
            return _refused(fields, str(error))
        except OSError as error:
            return _refused(fields, f"It cannot be read or copied: {error.strerror}.")

    async def _import_item(self, item: Item) -> bool:
        """Store the bytes, then write the row. Returns whether it is new."""
        kind = KINDS[type(item.old)]
        if isinstance(item.old, OldFeedback) and item.old.submission in self._missing:
            raise NotFound("Its submission was refused.")
        with item.opened() as file:
            sha256 = self._checked_sha256(file)
            check_digest(item, sha256)
            contents = self._inspect(file) if kind.is_archive else self._new_keys
            if await self._database.read(kind.existing, item.old, sha256) is not None:
                return False
            if self._dry_run:
                return True
            blob = await self._store(file)
        return await self._write_row(kind.import_row, item, blob, contents)

    async def _write_row(
        self, import_row: Callable[..., Any], item: Item, blob: Blob, contents: object
    ) -> bool:
        try:
            imported = await self._database.write(
                lambda session: import_row(session, item.old, blob, contents)
            )
        except Unavailable:
            # The database may have committed before it became unavailable, so the bytes must stay.
            raise
        except NbExchangeError:
            await delete_all(self._storage, [blob.key])
            raise
        if imported.key != blob.key:
            await delete_all(self._storage, [blob.key])
        else:
            self._new_keys.add(blob.key)
        return bool(imported.is_new)

    async def _store(self, file: BinaryIO) -> Blob:
        file.seek(0)
        upload = self._storage.open_upload()
        try:
            while chunk := file.read(CHUNK):
                await upload.write(chunk)
            blob = await upload.seal(unchecked)
            await upload.commit()
        finally:
            await upload.abort()
        return blob

    def _checked_sha256(self, file: BinaryIO) -> str:
        hasher = hashlib.sha256()
        size = 0
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
        if not 0 < size <= self._max_size:
            raise TooLarge(f"It has {size:,} bytes. Allowed are 1 to {self._max_size:,}.")
        return hasher.hexdigest()

    def _inspect(self, file: BinaryIO) -> archive.Contents:
        file.seek(0)
        return archive.inspect(file, self._limits)


def _described(item: Item) -> dict[str, Any]:
    old = item.old
    fields: dict[str, Any] = {"what": KINDS[type(old)].what, "place": str(item.path)}
    if isinstance(old, OldFeedback):
        fields["notebook_id"] = old.notebook_id
        old = old.submission
    if item.warning is not None:
        fields["warning"] = item.warning
    fields["assignment_id"] = old.assignment_id
    if isinstance(old, OldRelease):
        fields["stands_in"] = old.stands_in
    else:
        fields |= {"student": old.student, "timestamp": to_text(old.timestamp)}
    return fields


def _refused(fields: dict[str, Any], reason: str) -> dict[str, Any]:
    return fields | {"outcome": REFUSED, "reason": reason}


def _print_summary(outcomes: Sequence[dict[str, Any]], *, dry_run: bool) -> None:
    counts = Counter((item["what"], item["outcome"]) for item in outcomes)
    heads = ("would be imported" if dry_run else NEW, THERE, REFUSED)
    print(f"{'':<12}" + "".join(f"{head:>19}" for head in heads))
    for kind in KINDS.values():
        row = [counts[kind.what, outcome] for outcome in (NEW, THERE, REFUSED)]
        print(f"{kind.what:<12}" + "".join(f"{count:>19,}" for count in row))
    if bad := counts["course", REFUSED]:
        print(f"{bad} folders were refused as a whole. They are named above.")
    if dry_run:
        print("Nothing was imported: this was a dry run.")
