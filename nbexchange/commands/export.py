"""nbexchange export"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy.orm import Session
from traitlets import Unicode

from nbexchange import archive
from nbexchange.archive import ArchiveLimits
from nbexchange.commands import shared_folder
from nbexchange.commands.base import CourseCommand, refuse_absence
from nbexchange.commands.shared_folder import (
    ARCHIVES,
    FEEDBACK,
    FORMAT,
    INBOUND,
    MANIFEST,
    OUTBOUND,
    RECEIPT,
    SUMS,
    TIMESTAMP,
    FolderNames,
)
from nbexchange.database import Database, clock
from nbexchange.errors import BadArchive, Damaged, Malformed, Misconfigured, Unavailable
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.purge_records import Scope
from nbexchange.exchange.upkeep import export_queries
from nbexchange.exchange.upkeep.export_queries import (
    CourseRow,
    FeedbackRow,
    ReleaseRow,
    SubmissionRow,
)
from nbexchange.progress import Progress
from nbexchange.storage import Blob, Storage
from nbexchange.temporary import temporary_folder
from nbexchange.timestamps import to_text

Row = TypeVar("Row", export_queries.EventRow, ReleaseRow, SubmissionRow)

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Export(CourseCommand):
    """Copy a course, or all of an organisation, into a folder in nbgrader's own layout.

    Released assignments, submissions and feedback are in the folders where nbgrader looks for them.
    In addition, `archives` contains every version of every file as it was sent, `manifest.json`
    contains all data of the course, and `sha256sum -c SHA256SUMS` checks the files. The folder
    appears when it is complete. Corrupt files are named and left out; then the exit status is 1.
    The service may run meanwhile. `nbexchange import-folder` imports the folder.
    """

    name = "nbexchange-export"
    takes_words = True
    description = __doc__ or ""
    examples = """
    nbexchange export /backup/physics-2026 --org=1 --course=physics
    nbexchange export --to=/backup/2026 --org=1
    """
    aliases: dict[Any, Any] = {**CourseCommand.aliases, "to": "Export.to"}

    to = Unicode(help="The folder to create; --to= may be omitted.").tag(config=True)

    def run(self) -> None:
        destination = self._destination()
        scope = Scope(self.org_id, self.course_id)
        with self.parts() as (database, storage):
            courses = database.read_now(export_queries.courses, scope)
            with _published_when_complete(destination) as folder:
                exporter = _Exporter(database, storage, self.org_id, self.limits)
                problems = asyncio.run(exporter.export(courses, folder))
        print(f"{len(courses)} courses are in {destination}.")
        if problems:
            print(f"{problems} files are corrupt or cannot be unpacked. They are named above.")
            sys.exit(1)

    def _destination(self) -> Path:
        folders = [*self.extra_args, *filter(None, [self.to])]
        if len(folders) != 1:
            raise Malformed("Name one target folder: nbexchange export FOLDER --course=...")
        destination = Path(folders[0]).absolute()
        if os.path.lexists(destination):
            raise Malformed(f"{destination} exists already. Name a folder that does not exist.")
        if not destination.parent.is_dir():
            raise Malformed(f"The folder {destination.parent} does not exist. Create it first.")
        return destination


@contextlib.contextmanager
def _published_when_complete(destination: Path) -> Iterator[Path]:
    """A folder that only the administrator can read, renamed to `destination` when complete."""
    try:
        with temporary_folder(destination.parent) as workshop:
            folder = workshop / "export"
            folder.mkdir(0o700)
            yield folder
            _make_durable(folder)
            _move(folder, destination)
    except OSError as error:
        raise Misconfigured(
            f"Cannot write {destination}: {error.strerror}. The incomplete copy was removed."
        ) from error


def _make_durable(folder: Path) -> None:
    """Sync all files, because a course may be purged right after its export, and the power may
    fail after that."""
    for directory, _, files in os.walk(folder):
        for name in files:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _move(folder: Path, destination: Path) -> None:
    folder.rename(destination)
    try:
        _sync(destination.parent)
    except OSError:
        destination.rename(folder)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _Exporter:
    database: Database
    storage: Storage
    org_id: int
    limits: ArchiveLimits

    async def export(self, courses: Sequence[CourseRow], folder: Path) -> int:
        """How many problems there were."""
        names = FolderNames()
        counts = [await self.database.read(export_queries.count_rows, course) for course in courses]
        with Progress("Exporting", sum(counts)) as progress:
            copies = [
                _Copy(self, course, folder / names.of(course.course_id), progress)
                for course in courses
            ]
            return sum([await copy.make() for copy in copies])


class _Copy:
    """The copy of one course."""

    def __init__(
        self, exporter: _Exporter, course: CourseRow, folder: Path, progress: Progress
    ) -> None:
        self._database = exporter.database
        self._storage = exporter.storage
        self._org_id = exporter.org_id
        self._limits = exporter.limits
        self._course = course
        self._folder = folder
        self._progress = progress
        self._assignments, self._students = FolderNames(), FolderNames()
        self._problems = 0

    async def make(self) -> int:
        """How many problems there were."""
        for name in ("", OUTBOUND, INBOUND, FEEDBACK, ARCHIVES):
            (self._folder / name).mkdir(0o700)
        with self._open(SUMS) as self._sums:
            with self._open(MANIFEST) as file:
                await self._write_manifest(_Manifest(file))
            self._sum(self._folder / MANIFEST, _sha256(self._folder / MANIFEST))
        return self._problems

    def _open(self, name: str) -> IO[str]:
        return (self._folder / name).open("w", encoding="utf-8")

    async def _write_manifest(self, manifest: _Manifest) -> None:
        """Submissions before releases, so that every answered release is exported too."""
        visible = {
            row.assignment_id
            for row in await self._database.read(export_queries.assignments, self._course)
            if row.released
        }
        manifest.write("format", FORMAT)
        manifest.write("exported_at", to_text(await self._database.read(clock)))
        manifest.write("organisation", self._org_id)
        manifest.write("course_id", self._course.course_id)
        manifest.write("title", self._course.title)
        with manifest.list("submissions") as add:
            async for handed_in in self._all(export_queries.submissions):
                add(await self._submission(handed_in))
        with manifest.list("releases") as add:
            async for release in self._all(export_queries.releases):
                add(await self._release(release, release.assignment_id in visible))
        with manifest.list("assignments") as add:
            for assignment in await self._database.read(export_queries.assignments, self._course):
                add(assignment._asdict())
        with manifest.list("people") as add:
            for person in await self._database.read(export_queries.people, self._course):
                add(_plain(person._asdict()))
        with manifest.list("events") as add:
            async for event in self._all(export_queries.events):
                add(_plain(event._asdict()))
        manifest.write("renamed_assignments", self._assignments.changed)
        manifest.write("renamed_students", self._students.changed)
        manifest.end()

    async def _all(
        self, verb: Callable[[Session, CourseRow, int], list[Row]]
    ) -> AsyncIterator[Row]:
        after = 0
        while rows := await self._database.read(verb, self._course, after):
            for row in rows:
                yield row
            after = rows[-1].pk

    # -- folders

    async def _release(self, row: ReleaseRow, is_visible: bool) -> dict[str, Any]:  # noqa: FBT001
        archived = await self._archive_blob(
            row.blob, ".tar.gz", f"version {row.version} of {self._of(row)}"
        )
        folder = None
        if archived and row.is_newest and is_visible:
            target = self._folder / OUTBOUND / self._assignments.of(row.assignment_id)
            folder = self._unpack(archived, target, {}, self._of(row))
        self._progress.advance()
        return _plain(row._asdict()) | {
            "archive": self._name(archived),
            "folder": self._name(folder),
        }

    async def _submission(self, row: SubmissionRow) -> dict[str, Any]:
        whose = f"submission {row.id} of {row.student!r} for {self._of(row)}"
        archived = await self._archive_blob(row.blob, ".tar.gz", whose)
        folder = None
        if archived:
            target = self._folder / INBOUND / self._folder_name(row)
            folder = self._unpack(archived, target, self._marks(row), whose)
        newest = {page.notebook_id: page.version for page in row.feedback}
        feedback = [
            await self._feedback(
                row,
                folder if page.version == newest[page.notebook_id] else None,
                page,
            )
            for page in row.feedback
        ]
        self._progress.advance()
        return _plain(row._asdict()) | {
            "archive": self._name(archived),
            "folder": self._name(folder),
            "feedback": feedback,
        }

    async def _feedback(
        self, row: SubmissionRow, folder: Path | None, page: FeedbackRow
    ) -> dict[str, Any]:
        whose = f"feedback on {page.notebook_id!r} of submission {row.id} of {row.student!r}"
        archived = await self._archive_blob(page.blob, ".html", whose)
        file = self._publish(row, folder, page, archived) if archived and folder else None
        fields = _plain(page._asdict())
        del fields["submission_pk"]
        return fields | {"archive": self._name(archived), "file": self._name(file)}

    def _publish(
        self, row: SubmissionRow, folder: Path, page: FeedbackRow, archived: Path
    ) -> Path | None:
        """Copy the page to where nbgrader looks for it. None if nbgrader would not look for it, or
        if another file has the name."""
        names = shared_folder.feedback_names(
            folder,
            self._course.course_id,
            row.assignment_id,
            row.student,
            to_text(row.timestamp),
            page.notebook_id,
        )
        if not names:
            return None
        file = self._folder / FEEDBACK / names[0]
        if file.exists():
            return None
        shutil.copyfile(archived, file)
        self._sum(file, page.sha256)
        return file

    def _folder_name(self, row: SubmissionRow) -> str:
        student, assignment = (
            self._students.of(row.student),
            self._assignments.of(row.assignment_id),
        )
        return f"{student}+{assignment}+{to_text(row.timestamp)}+{row.id[:12]}"

    def _marks(self, row: SubmissionRow) -> dict[str, bytes]:
        """The files that the plugin's collect adds to a submission."""
        timestamp = to_text(row.timestamp)
        receipt = {
            "course_id": self._course.course_id,
            "assignment_id": row.assignment_id,
            "student": row.student,
            "submission_id": row.id,
            "timestamp": timestamp,
            "sha256": row.sha256,
            "size": row.size,
        }
        text = json.dumps(receipt, indent=1, ensure_ascii=False) + "\n"
        return {TIMESTAMP: timestamp.encode(), RECEIPT: text.encode()}

    # -- bytes

    async def _archive_blob(self, blob: Blob, suffix: str, whose: str) -> Path | None:
        """The bytes as they were sent, in a file named by their hash; None if they are corrupt."""
        path = self._folder / ARCHIVES / f"{blob.sha256}{suffix}"
        if path.exists():
            return path
        part = path.with_name("part")
        try:
            with part.open("wb") as file:
                async for chunk in self._storage.read(blob):
                    file.write(chunk)
        except (Damaged, Unavailable) as error:
            part.unlink()
            if isinstance(error, Unavailable):
                await refuse_absence(self._storage)
            is_owned = await self._database.read(known_keys, [blob.key])
            state = "CORRUPT" if is_owned else "ERASED meanwhile"
            self._problem(f"{state}: {whose}: file {blob.key}")
            return None
        part.rename(path)
        self._sum(path, blob.sha256)
        return path

    def _unpack(
        self, archived: Path, target: Path, marks: Mapping[str, bytes], whose: str
    ) -> Path | None:
        try:
            with archived.open("rb") as file:
                archive.unpack(file, target, self._limits, marks)
        except (BadArchive, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NO_SPACE:
                raise
            self._problem(f"NOT UNPACKED: {whose}: {error}; it is in {self._name(archived)}")
            return None
        return target

    def _problem(self, what: str) -> None:
        self._problems += 1
        self._progress.print(f"{self._course.course_id!r}: {what}")

    def _sum(self, path: Path, sha256: str) -> None:
        self._sums.write(f"{sha256}  {self._name(path)}\n")

    def _name(self, path: Path | None) -> str | None:
        return None if path is None else path.relative_to(self._folder).as_posix()

    def _of(self, row: ReleaseRow | SubmissionRow) -> str:
        return f"assignment {row.assignment_id!r}"


class _Manifest:
    """A JSON object that is written piece by piece, one line for each value, so it is never whole
    in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._between = "{\n"

    def write(self, key: str, value: Any) -> None:
        self._key(key)
        self._file.write(_json(value))

    @contextlib.contextmanager
    def list(self, key: str) -> Iterator[Callable[[Any], None]]:
        self._key(key)
        between = "[\n"

        def add(value: Any) -> None:
            nonlocal between
            self._file.write(f"{between}{_json(value)}")
            between = ",\n"

        yield add
        self._file.write("[]" if between == "[\n" else "\n]")

    def end(self) -> None:
        self._file.write("\n}\n")

    def _key(self, key: str) -> None:
        self._file.write(f"{self._between}{_json(key)}: ")
        self._between = ",\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row for JSON: without primary keys, and with times as text."""
    return {
        key: to_text(value) if hasattr(value, "astimezone") else value
        for key, value in row.items()
        if key != "pk"
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
