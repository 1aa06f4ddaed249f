"""The items of another exchange: of nbgrader's shared folder, or of an nbexchange export.

An item has its bytes, the row that it would become here, and the functions that import it. If the
administrator says that the folder is an export, its manifest lists the items; all other folders are
read as nbgrader would. Otherwise a manifest is not trusted, because a student may have written it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sqlalchemy.orm import Session

from nbexchange import archive
from nbexchange.archive import ArchiveLimits
from nbexchange.commands.shared_folder import (
    ARCHIVES,
    FEEDBACK,
    FORMAT,
    INBOUND,
    MANIFEST,
    OUTBOUND,
    feedback_names,
)
from nbexchange.commands.untrusted_files import (
    check_owner,
    copy_plain,
    is_utf8,
    login,
    members,
    open_plain,
    user_name,
)
from nbexchange.errors import BadArchive, DigestMismatch, Forbidden, Malformed, NbExchangeError
from nbexchange.exchange.upkeep import importing
from nbexchange.exchange.upkeep.importing import (
    ImportedBlob,
    OldFeedback,
    OldPerson,
    OldRelease,
    OldSubmission,
)
from nbexchange.identity import Role, is_name
from nbexchange.storage import Blob
from nbexchange.temporary import temporary_folder

_INBOUND = re.compile(
    r"(?P<who>.+)\+(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?)"
    r"( ?(?P<zone>[A-Za-z_/]+|[+-]\d\d:?\d\d))?(\+[A-Za-z0-9_=-]*)?"
)
_ARCHIVE = re.compile(r"archives/[0-9a-f]{64}(\.tar\.gz|\.html)")
_UTC = ("UTC", "Z", "GMT", None)
_FIRST_YEAR = 1970
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
"""Python's errors for a manifest with unexpected types."""

Old = OldRelease | OldSubmission | OldFeedback
Thing = TypeVar("Thing")


class NotImportable(NbExchangeError):
    """The item cannot be imported; the message gives the reason."""


@dataclass(frozen=True)
class Item:
    """An item to import."""

    old: Old
    path: Path
    """Its path, for the report."""
    opened: Callable[[], contextlib.AbstractContextManager[BinaryIO]]
    """Opens the bytes to store."""
    sha256: str | None = None
    """The expected hash, if the manifest has one."""
    warning: str | None = None
    """Why an instructor should check it, although it is imported."""


@dataclass(frozen=True)
class Unreadable:
    """An item that cannot be read."""

    what: str
    path: Path
    reason: str


@dataclass(frozen=True)
class ItemKind:
    """The functions for items of one kind."""

    what: str
    existing: Callable[[Session, Any, str], ImportedBlob | None]
    import_row: Callable[[Session, Any, Blob, Any], ImportedBlob]
    is_archive: bool


KINDS: dict[type[Any], ItemKind] = {
    OldRelease: ItemKind("release", importing.existing_release, importing.import_release, True),
    OldSubmission: ItemKind(
        "submission", importing.existing_submission, importing.import_submission, True
    ),
    OldFeedback: ItemKind(
        "feedback", importing.existing_feedback, importing.import_feedback, False
    ),
}


@dataclass(frozen=True)
class Reading:
    """How to read an exchange."""

    org_id: int
    instructor: str
    limits: ArchiveLimits
    trusted: frozenset[int]
    """Users (uids) whose folders are trusted even if other users may create folders beside them."""
    from_export: bool = False


@dataclass(frozen=True)
class BadCourse:
    """A course folder that is refused as a whole."""

    course_id: str
    path: Path
    reason: str


def courses(exchange: Path, reading: Reading) -> list[SourceCourse | BadCourse]:
    """The folders that may be courses. Raises Malformed if there are none."""
    if not exchange.is_dir():
        raise Malformed(f"The folder {exchange} does not exist.")
    folders = [path for path in sorted(exchange.iterdir()) if _is_course(path)]
    if not folders:
        hint = " This is one course; name the folder above it." if _is_course(exchange) else ""
        raise Malformed(
            f"{exchange} is not an exchange: no folder in it has {OUTBOUND} or {INBOUND}.{hint}"
        )
    return _without_rivals([_course(folder, reading) for folder in folders])


def _is_course(path: Path) -> bool:
    try:
        return not path.is_symlink() and any((path / name).is_dir() for name in (OUTBOUND, INBOUND))
    except PermissionError:
        return True  # so that the report names it


def _course(folder: Path, reading: Reading) -> SourceCourse | BadCourse:
    try:
        check_owner(folder, reading.trusted, group_too=True)
        return SourceCourse(folder, reading)
    except (NotImportable, Forbidden) as error:
        reason = str(error)
    except OSError as error:
        reason = f"It cannot be read: {error.strerror}."
    except _MALFORMED:
        reason = f"Its {MANIFEST} is malformed."
    return BadCourse(folder.name, folder, reason)


_RIVAL = "Another folder has the same course id {!r}. Remove one of them."


def _without_rivals(courses: Sequence[SourceCourse | BadCourse]) -> list[SourceCourse | BadCourse]:
    """Refuse folders with the same course id, because it is unknown which one is right."""
    counts = Counter(course.course_id for course in courses if isinstance(course, SourceCourse))
    return [
        BadCourse(course.course_id, course.path, _RIVAL.format(course.course_id))
        if counts[course.course_id] > 1
        else course
        for course in courses
    ]


class SourceCourse:
    """One course of another exchange. Its items come in the order in which they can be imported.

    Raises NotImportable, Forbidden, OSError, or an error of _MALFORMED, if it cannot be read.
    """

    def __init__(self, folder: Path, reading: Reading) -> None:
        self.path = folder
        self.org_id = reading.org_id
        self._instructor = reading.instructor
        self._limits = reading.limits
        self._trusted = reading.trusted | {folder.lstat().st_uid}
        self._from_export = reading.from_export
        export_files = (ARCHIVES, MANIFEST) if reading.from_export else ()
        for name in (OUTBOUND, FEEDBACK, *export_files):
            if os.path.lexists(folder / name):
                self._check_owner(folder / name, f"{name}: ")
        self._folders = {name: _entries(folder / name) for name in (OUTBOUND, INBOUND, FEEDBACK)}
        self._manifest = _manifest(folder) if reading.from_export else {}
        self.course_id: str = self._manifest.get("course_id", folder.name)
        if not is_name(self.course_id):
            raise NotImportable("Its name cannot be a course id here. Rename the folder.")
        self.title: str | None = _optional_text(self._manifest.get("title"))
        listed = self._rows("releases", "submissions")
        self._listed_folders = {str(row.get("folder")) for row in listed}
        self._feedback_files = {
            path.name for path in self._folders[FEEDBACK] if path.suffix == ".html"
        } - {Path(str(row.get("file"))).name for row in self._listed_feedback()}
        self.released: set[str] = set()
        """Assignments with a release here; the importer adds to it."""
        self._feedback_subjects: dict[str, list[tuple[OldSubmission, str]]] = defaultdict(list)

    def __len__(self) -> int:
        """The approximate number of items."""
        rows = [*self._rows("releases", "submissions"), *self._listed_feedback()]
        folders = [*self._unlisted_folders(OUTBOUND), *self._unlisted_folders(INBOUND)]
        return len(rows) + len(folders) + len(self._feedback_files)

    @property
    def is_export(self) -> bool:
        return bool(self._manifest)

    @property
    def ignores_manifest(self) -> bool:
        """Whether it looks like an export, but the administrator did not say that it is one."""
        return not self._from_export and (self.path / MANIFEST).is_file()

    def people(self) -> Iterator[OldPerson | Unreadable]:
        """The roster of an export."""
        yield from self._each("person", self._rows("people"), _person)

    def items(self) -> Iterator[Item | Unreadable]:
        yield from self._each("release", self._rows("releases"), self._listed_release)
        yield from self._each("release", self._unlisted_folders(OUTBOUND), self._release)
        yield from self._stand_ins()
        yield from self._each("submission", self._rows("submissions"), self._listed_submission)
        yield from self._each("submission", self._unlisted_folders(INBOUND), self._submission)
        for row in self._rows("submissions"):
            feedback = row.get("feedback", [])
            yield from self._each("feedback", feedback, self._listed_feedback_on(row))
        yield from self._each("feedback", sorted(self._feedback_files), self._feedback)

    def _each(
        self, what: str, things: Any, make: Callable[[Any], Thing]
    ) -> Iterator[Thing | Unreadable]:
        for thing in things:
            try:
                item: Thing | Unreadable = make(thing)
            except (NotImportable, Forbidden) as error:
                item = Unreadable(what, self._shown(thing), str(error))
            except OSError as error:
                reason = f"It cannot be read: {error.strerror}."
                item = Unreadable(what, self._shown(thing), reason)
            except _MALFORMED:
                item = Unreadable(what, self._shown(thing), f"{MANIFEST} is malformed there.")
            yield item

    def _shown(self, thing: Any) -> Path:
        if isinstance(thing, str):
            return self.path / FEEDBACK / thing
        return thing if isinstance(thing, Path) else self.path / MANIFEST

    def _check_owner(self, path: Path, what: str = "") -> None:
        try:
            check_owner(path, self._trusted)
        except Forbidden as error:
            raise Forbidden(f"{what}{error}") from None

    # -- items in nbgrader's layout

    def _unlisted_folders(self, name: str) -> list[Path]:
        """The folders that the manifest does not list."""
        return [
            path
            for path in self._folders[name]
            if f"{name}/{path.name}" not in self._listed_folders
        ]

    def _release(self, path: Path) -> Item:
        _check_utf8(path)
        self._check_owner(path)
        return Item(self._old_release(path.name), path, lambda: self._packed(path))

    def _old_release(self, assignment_id: str) -> OldRelease:
        origin = _origin(self.course_id, assignment_id)
        return OldRelease(self.org_id, self.course_id, assignment_id, self._instructor, origin)

    def _stand_ins(self) -> Iterator[Item]:
        """An empty, hidden release for each submitted assignment that is not released any more."""
        names = [row.get("assignment_id") for row in self._rows("submissions")]
        wanted = {name: self.path for name in names if is_name(name)}
        for path in self._unlisted_folders(INBOUND):
            with contextlib.suppress(NotImportable):
                wanted.setdefault(self._parsed(path)[1], path)
        for assignment_id, path in wanted.items():
            if assignment_id not in self.released:
                old = self._old_release(assignment_id)
                yield Item(replace(old, visible=False, stands_in=True), path, _nothing)

    def _submission(self, path: Path) -> Item:
        student, assignment_id, moment = self._parsed(path)
        old = OldSubmission(
            self.org_id,
            self.course_id,
            assignment_id,
            student,
            moment,
            _origin(self.course_id, path.name),
        )
        warning = self._warning(path, student)
        return Item(old, path, lambda: self._packed(path, old), warning=warning)

    def _warning(self, path: Path, student: str) -> str | None:
        """Any user may create a folder in `inbound` with the name of another student. nbgrader's
        collect warns about that too. A trusted owner may have put it there for the student."""
        owner = path.lstat().st_uid
        if owner in self._trusted or login(owner) == student:
            return None
        others = ", ".join(sorted(self._owned.get(owner, set()) - {student})[:3])
        if login(owner) is None and not others:
            return None  # a user of another machine, and nothing contradicts the name
        return (
            f"It is named after {student} and belongs to {user_name(owner)}"
            + (f", who also owns folders of {others}" if others else "")
            + ". Ask both whose work it is."
        )

    @functools.cached_property
    def _owned(self) -> dict[int, set[str]]:
        """The students whose names are on each owner's folders."""
        owned: dict[int, set[str]] = defaultdict(set)
        for path in self._unlisted_folders(INBOUND):
            with contextlib.suppress(NotImportable, OSError):
                owned[path.lstat().st_uid].add(self._parsed(path)[0])
        return owned

    def _parsed(self, path: Path) -> tuple[str, str, datetime.datetime]:
        _check_utf8(path)
        match = _INBOUND.fullmatch(path.name)
        if match is None:
            raise NotImportable("Its name is not nbgrader's student+assignment+time.")
        student, assignment_id = self._split(match["who"])
        return student, assignment_id, _moment(match["time"], match["zone"])

    def _split(self, text: str) -> tuple[str, str]:
        """Split the name. Of several ways, choose the one with an existing assignment."""
        parts = text.split("+")
        splits = [("+".join(parts[:n]), "+".join(parts[n:])) for n in range(1, len(parts))]
        if len(splits) > 1:
            assignments = {path.name for path in self._folders[OUTBOUND]}
            splits = [split for split in splits if split[1] in assignments]
        if len(splits) != 1 or not all(splits[0]):
            raise NotImportable(
                "Its name is ambiguous: the student's and the assignment's part cannot be told "
                "apart. Rename the folder."
            )
        return splits[0]

    @contextlib.contextmanager
    def _packed(self, path: Path, old: OldSubmission | None = None) -> Iterator[BinaryIO]:
        with temporary_folder(Path(tempfile.gettempdir())) as workshop:
            copy = workshop / "copy"
            copy_plain(path, copy, self._limits)
            if old is not None:
                self._expect_feedback(copy, path.name, old)
            with (workshop / "packed").open("w+b") as file:
                archive.pack(members(copy), file)
                file.seek(0)
                yield file

    def _expect_feedback(self, copy: Path, name: str, old: OldSubmission) -> None:
        """Find the feedback on this submission, by the names that nbgrader gives it."""
        match = _INBOUND.fullmatch(name)
        assert match
        timestamp = name[match.start("time") :].partition("+")[0]
        for notebook in sorted(copy.glob("*.ipynb")):
            names = feedback_names(
                copy, self.course_id, old.assignment_id, old.student, timestamp, notebook.stem
            )
            present = [file_name for file_name in names if file_name in self._feedback_files]
            if present:
                self._feedback_subjects[present[0]].append((old, notebook.stem))

    def _feedback(self, name: str) -> Item:
        about = self._feedback_subjects[name]
        if not about:
            raise NotImportable("It does not belong to any submission that is here.")
        if len(about) > 1:
            raise NotImportable("It may belong to several identical submissions.")
        ((submission, notebook_id),) = about
        origin = _origin(self.course_id, submission.origin, notebook_id)
        old = OldFeedback(submission, notebook_id, self._instructor, origin)
        path = self.path / FEEDBACK / name
        self._check_owner(path)
        return Item(old, path, lambda: open_plain(path))

    # -- items of the manifest

    def _rows(self, *keys: str) -> list[Any]:
        return [row for key in keys for row in self._manifest.get(key, [])]

    def _listed_feedback(self) -> Iterator[Any]:
        for row in self._rows("submissions"):
            yield from row.get("feedback", [])

    def _listed_release(self, row: Any) -> Item:
        assignments = self._rows("assignments")
        visible = {each["assignment_id"] for each in assignments if each["released"]}
        old = OldRelease(
            self.org_id,
            self.course_id,
            _text(row["assignment_id"]),
            _text(row["by"]),
            _origin(row["id"]),
            row["assignment_id"] in visible,
            _number(row["version"]),
            _moment(row["timestamp"]),
        )
        return self._listed_item(old, row)

    def _listed_submission(self, row: Any) -> Item:
        return self._listed_item(self._old_submission(row), row)

    def _old_submission(self, row: Any) -> OldSubmission:
        return OldSubmission(
            self.org_id,
            self.course_id,
            _text(row["assignment_id"]),
            _text(row["student"]),
            _moment(row["timestamp"]),
            _origin(row["id"]),
            _optional_text(row["client_timestamp"], 100),
            _number(row["release_version"]),
        )

    def _listed_feedback_on(self, submission: Any) -> Callable[[Any], Item]:
        def feedback(row: Any) -> Item:
            old = OldFeedback(
                self._old_submission(submission),
                _text(row["notebook_id"]),
                _text(row["by"]),
                _origin(submission["id"], row["notebook_id"], str(row["version"])),
                _number(row["version"]),
                _moment(row["timestamp"]),
                _optional_text(row["checksum"], 255),
            )
            return self._listed_item(old, row)

        return feedback

    def _listed_item(self, old: Old, row: Any) -> Item:
        name = row["archive"]
        if name is None:
            raise NotImportable(f"{row['key']} was already corrupt when it was exported.")
        if not _ARCHIVE.fullmatch(name):
            raise NotImportable(
                f"{MANIFEST} names the file {name!r}, which is not a path of an export."
            )
        path = self.path / name
        return Item(old, path, lambda: open_plain(path), row["sha256"])


def check_digest(item: Item, sha256: str) -> None:
    if item.sha256 not in (None, sha256):
        raise DigestMismatch(f"Its bytes do not match the sha256 in {MANIFEST}.")


@contextlib.contextmanager
def _nothing() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        archive.pack([], file)
        file.seek(0)
        yield file


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _check_utf8(path: Path) -> None:
    if not is_utf8(path.name):
        raise NotImportable("Its name is not UTF-8. Rename it.")


def _manifest(folder: Path) -> dict[str, Any]:
    """Empty if this is not an nbexchange export."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {}
    try:
        with open_plain(path) as file:
            manifest = json.load(file)
    except (BadArchive, ValueError, RecursionError) as error:
        raise NotImportable(f"Its {MANIFEST} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return {}
    if not is_name(manifest.get("course_id")):
        raise NotImportable(f"Its {MANIFEST} has no valid course id.")
    _check_shape(manifest)
    return manifest


def _check_shape(manifest: dict[str, Any]) -> None:
    """Check that the lists contain objects. The objects themselves are checked one by one later."""
    for key in ("releases", "submissions", "assignments", "people"):
        _check_objects(manifest.get(key, []))
    for row in manifest.get("submissions", []):
        _check_objects(row.get("feedback", []))


def _check_objects(rows: Any) -> None:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NotImportable(f"Its {MANIFEST} is malformed.")


def _person(row: Any) -> OldPerson:
    if not is_name(row["name"]):
        raise NotImportable(f"{row['name']!r} cannot be a name here.")
    return OldPerson(
        row["name"],
        Role.of(row["role"]),
        _moment(row["last_seen"]),
        _optional_text(row.get("full_name")),
        _optional_text(row.get("email")),
        _optional_text(row.get("lms_user_id")),
    )


def _text(value: Any, longest: int | None = None) -> str:
    """Raises ValueError for a value that the database could not hold, as do the next functions."""
    if not isinstance(value, str) or "\0" in value or not is_utf8(value):
        raise ValueError("not a text")
    if longest is not None and len(value) > longest:
        raise ValueError("too long")
    return value


def _optional_text(value: Any, longest: int = 10_000) -> str | None:
    return None if value is None else _text(value, longest)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ValueError("not a version number")
    return value


def _moment(text: str, zone: str | None = "UTC") -> datetime.datetime:
    text = text.removesuffix(" UTC")
    if zone not in _UTC and not re.fullmatch(r"[+-]\d\d:?\d\d", zone or ""):
        raise NotImportable(
            f"Its time is in zone {zone!r}, which is ambiguous. Rename the folder, with the time "
            "in UTC."
        )
    offset = "+00:00" if zone in _UTC else f"{zone[:3]}:{zone[-2:]}"
    try:
        moment = datetime.datetime.fromisoformat(text + offset).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise NotImportable(f"Its time {text!r} does not exist.") from None
    if moment.year < _FIRST_YEAR:
        raise NotImportable(f"Its time {text!r} is before the year {_FIRST_YEAR}.")
    return moment


def _origin(*names: str) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
