"""What lies in another exchange, item by item: nbgrader's shared folder, or an export of ours.

An item knows where its bytes are, what it would become here, and the verbs for that. In an export
the manifest says what there is; whatever else lies in the folders is read as nbgrader would.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy.orm import Session

from nbexchange import archive
from nbexchange.archive import Limits
from nbexchange.commands.foreign import copy_plain, members, open_plain
from nbexchange.commands.shared_folder import (
    FEEDBACK,
    FORMAT,
    INBOUND,
    MANIFEST,
    OUTBOUND,
    feedback_names,
)
from nbexchange.errors import DigestMismatch, Malformed, NbExchangeError
from nbexchange.exchange import importing
from nbexchange.exchange.importing import Kept, OldFeedback, OldPerson, OldRelease, OldSubmission
from nbexchange.identity import Role
from nbexchange.storage import Blob

_INBOUND = re.compile(
    r"(?P<who>.+)\+(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?)"
    r"( ?(?P<zone>[A-Za-z_/]+|[+-]\d\d:?\d\d))?(\+[A-Za-z0-9_=-]*)?"
)
_ARCHIVE = re.compile(r"archives/[0-9a-f]{64}(\.tar\.gz|\.html)")
_UTC = ("UTC", "Z", "GMT", None)

Old = OldRelease | OldSubmission | OldFeedback


class Refused(NbExchangeError):
    """This cannot be imported; the message says why."""


@dataclass(frozen=True)
class Item:
    """Something to import."""

    old: Old
    place: Path
    """Where it lies, for the report."""
    opened: Callable[[], contextlib.AbstractContextManager[BinaryIO]]
    """Its bytes as they will be stored."""
    sha256: str | None = None
    """What they have to be, if that was written down."""


@dataclass(frozen=True)
class Mystery:
    """Something that cannot even be understood."""

    what: str
    place: Path
    reason: str


@dataclass(frozen=True)
class Kind:
    """What is done with items of one sort."""

    what: str
    knows: Callable[[Session, Any, str], Kept | None]
    bring: Callable[[Session, Any, Blob, Any], Kept]
    is_archive: bool


KINDS: dict[type[Any], Kind] = {
    OldRelease: Kind("release", importing.knows_release, importing.import_release, True),
    OldSubmission: Kind(
        "submission", importing.knows_submission, importing.import_submission, True
    ),
    OldFeedback: Kind("feedback", importing.knows_feedback, importing.import_feedback, False),
}


def courses(exchange: Path) -> list[Path]:
    """The folders of courses; Malformed when there is none."""
    if not exchange.is_dir():
        raise Malformed(f"there is no folder {exchange}")
    found = [path for path in sorted(exchange.iterdir()) if _is_course(path)]
    if not found:
        above = " (this is one course; name the folder above)" if _is_course(exchange) else ""
        raise Malformed(
            f"{exchange} is no exchange: no folder in it has {OUTBOUND} or {INBOUND}{above}"
        )
    return found


def _is_course(path: Path) -> bool:
    return not path.is_symlink() and any((path / name).is_dir() for name in (OUTBOUND, INBOUND))


@dataclass(frozen=True)
class Roster:
    title: str | None
    people: list[OldPerson]


class Course:
    """One course of another exchange. Its items come in the order in which they can be imported."""

    def __init__(self, folder: Path, org_id: int, instructor: str, limits: Limits) -> None:
        self._folder = folder
        self.org_id = org_id
        self._instructor = instructor
        self._limits = limits
        self._manifest = _manifest(folder)
        self.course_id: str = self._manifest.get("course_id", folder.name)
        self._told = {row.get("folder") for row in self._rows("releases", "submissions")}
        self._feedback_files = {
            path.name for path in self._in(FEEDBACK) if path.suffix == ".html"
        } - {Path(one["file"]).name for one in self._told_feedback() if one.get("file")}
        self.released: set[str] = set()
        """Assignments with a release here; whoever imports them says so."""
        self._about: dict[str, list[tuple[OldSubmission, str]]] = defaultdict(list)

    def __len__(self) -> int:
        """About how many items there are."""
        rows = [*self._rows("releases", "submissions"), *self._told_feedback()]
        untold = [*self._untold(OUTBOUND), *self._untold(INBOUND), *self._feedback_files]
        return len(rows) + len(untold)

    @property
    def roster(self) -> Roster | None:
        """Of an export."""
        if not self._manifest:
            return None
        people = [
            OldPerson(
                row["name"],
                Role.of(row["role"]),
                _moment(row["last_seen"]),
                row.get("full_name"),
                row.get("email"),
                row.get("lms_user_id"),
            )
            for row in self._rows("people")
        ]
        return Roster(self._manifest.get("title"), people)

    def items(self) -> Iterator[Item | Mystery]:
        yield from self._each("release", self._rows("releases"), self._told_release)
        yield from self._each("release", self._untold(OUTBOUND), self._release)
        yield from self._stand_ins()
        yield from self._each("submission", self._rows("submissions"), self._told_submission)
        yield from self._each("submission", self._untold(INBOUND), self._submission)
        for row in self._rows("submissions"):
            yield from self._each("feedback", row["feedback"], self._told_feedback_on(row))
        yield from self._each("feedback", sorted(self._feedback_files), self._feedback)

    def _each(
        self, what: str, things: Any, make: Callable[[Any], Item]
    ) -> Iterator[Item | Mystery]:
        for thing in things:
            try:
                item: Item | Mystery = make(thing)
            except Refused as error:
                item = Mystery(what, self._shown(thing), str(error))
            except (KeyError, TypeError, ValueError, AttributeError):
                item = Mystery(what, self._shown(thing), f"{MANIFEST} makes no sense there")
            yield item

    def _shown(self, thing: Any) -> Path:
        if isinstance(thing, str):
            return self._folder / FEEDBACK / thing
        return thing if isinstance(thing, Path) else self._folder / MANIFEST

    # -- as nbgrader has it

    def _in(self, name: str) -> list[Path]:
        folder = self._folder / name
        return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []

    def _untold(self, name: str) -> list[Path]:
        """The folders that no manifest speaks of."""
        return [path for path in self._in(name) if f"{name}/{path.name}" not in self._told]

    def _release(self, path: Path) -> Item:
        return Item(self._old_release(path.name), path, lambda: self._packed(path))

    def _old_release(self, assignment_id: str) -> OldRelease:
        origin = _origin(self.course_id, assignment_id)
        return OldRelease(self.org_id, self.course_id, assignment_id, self._instructor, origin)

    def _stand_ins(self) -> Iterator[Item]:
        """An empty release, not visible, for submissions to what is not released any more."""
        wanted = {row.get("assignment_id"): self._folder for row in self._rows("submissions")}
        for path in self._untold(INBOUND):
            with contextlib.suppress(Refused):
                wanted.setdefault(self._parsed(path)[1], path)
        for assignment_id, path in wanted.items():
            if isinstance(assignment_id, str) and assignment_id not in self.released:
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
        return Item(old, path, lambda: self._packed(path, old))

    def _parsed(self, path: Path) -> tuple[str, str, datetime.datetime]:
        found = _INBOUND.fullmatch(path.name)
        if found is None:
            raise Refused("its name is not student+assignment+time, as nbgrader makes it")
        student, assignment_id = self._split(found["who"])
        return student, assignment_id, _moment(found["time"], found["zone"])

    def _split(self, who: str) -> tuple[str, str]:
        """Of several ways to read it, the one that names an assignment that is there."""
        parts = who.split("+")
        ways = [("+".join(parts[:n]), "+".join(parts[n:])) for n in range(1, len(parts))]
        if len(ways) > 1:
            known = {path.name for path in self._in(OUTBOUND)}
            ways = [way for way in ways if way[1] in known]
        if len(ways) != 1 or not all(ways[0]):
            raise Refused(
                "its name does not tell where the student's ends and the assignment's begins"
            )
        return ways[0]

    @contextlib.contextmanager
    def _packed(self, path: Path, old: OldSubmission | None = None) -> Iterator[BinaryIO]:
        with tempfile.TemporaryDirectory(prefix="nbexchange-") as workshop:
            copy = Path(workshop, "copy")
            copy_plain(path, copy, self._limits)
            if old is not None:
                self._expect_feedback(copy, path.name, old)
            with Path(workshop, "packed").open("w+b") as file:
                archive.pack(members(copy), file)
                file.seek(0)
                yield file

    def _expect_feedback(self, copy: Path, name: str, old: OldSubmission) -> None:
        """Which feedback is about this, by the names that nbgrader gives it."""
        found = _INBOUND.fullmatch(name)
        assert found
        timestamp = name[found.start("time") :].partition("+")[0]
        for notebook in sorted(copy.glob("*.ipynb")):
            names = feedback_names(
                copy, self.course_id, old.assignment_id, old.student, timestamp, notebook.stem
            )
            there = [one for one in names if one in self._feedback_files]
            if there:
                self._about[there[0]].append((old, notebook.stem))

    def _feedback(self, name: str) -> Item:
        about = self._about[name]
        if not about:
            raise Refused("it belongs to no submission that is here")
        if len(about) > 1:
            raise Refused("it may belong to several submissions, which do not differ")
        ((submission, notebook_id),) = about
        origin = _origin(self.course_id, submission.origin, notebook_id)
        old = OldFeedback(submission, notebook_id, self._instructor, origin)
        path = self._folder / FEEDBACK / name
        return Item(old, path, lambda: open_plain(path))

    # -- as the manifest of an export tells it

    def _rows(self, *keys: str) -> list[Any]:
        return [row for key in keys for row in self._manifest.get(key, [])]

    def _told_feedback(self) -> Iterator[Any]:
        for row in self._rows("submissions"):
            yield from row.get("feedback", [])

    def _told_release(self, row: Any) -> Item:
        shown = {one["assignment_id"] for one in self._rows("assignments") if one["released"]}
        old = OldRelease(
            self.org_id,
            self.course_id,
            row["assignment_id"],
            row["by"],
            _origin(row["id"]),
            row["assignment_id"] in shown,
            row["version"],
            _moment(row["timestamp"]),
        )
        return self._told_item(old, row)

    def _told_submission(self, row: Any) -> Item:
        return self._told_item(self._old_submission(row), row)

    def _old_submission(self, row: Any) -> OldSubmission:
        return OldSubmission(
            self.org_id,
            self.course_id,
            row["assignment_id"],
            row["student"],
            _moment(row["timestamp"]),
            _origin(row["id"]),
            row["client_timestamp"],
            row["release_version"],
        )

    def _told_feedback_on(self, submission: Any) -> Callable[[Any], Item]:
        def feedback(row: Any) -> Item:
            old = OldFeedback(
                self._old_submission(submission),
                row["notebook_id"],
                row["by"],
                _origin(submission["id"], row["notebook_id"], str(row["version"])),
                row["version"],
                _moment(row["timestamp"]),
                row["checksum"],
            )
            return self._told_item(old, row)

        return feedback

    def _told_item(self, old: Old, row: Any) -> Item:
        name = row["archive"]
        if name is None:
            raise Refused(f"{row['key']} was harmed when it was exported")
        if not _ARCHIVE.fullmatch(name):
            raise Refused(f"{MANIFEST} says that it is in {name!r}, where nothing of ours lies")
        path = self._folder / name
        return Item(old, path, lambda: open_plain(path), row["sha256"])


def check_digest(item: Item, sha256: str) -> None:
    if item.sha256 not in (None, sha256):
        raise DigestMismatch(f"its bytes are not those that {MANIFEST} tells of")


@contextlib.contextmanager
def _nothing() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        archive.pack([], file)
        file.seek(0)
        yield file


def _manifest(folder: Path) -> dict[str, Any]:
    """Empty if this is not an export of ours."""
    path = folder / MANIFEST
    if not path.is_file() or path.is_symlink():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Malformed(f"{path} cannot be read: {error}") from error
    is_ours = isinstance(found, dict) and found.get("format") == FORMAT
    if is_ours and not isinstance(found.get("course_id"), str):
        raise Malformed(f"{path} does not say which course it is of")
    return found if is_ours else {}


def _moment(text: str, zone: str | None = "UTC") -> datetime.datetime:
    text = text.removesuffix(" UTC")
    if zone not in _UTC and not re.fullmatch(r"[+-]\d\d:?\d\d", zone or ""):
        raise Refused(
            f"its time is in zone {zone!r}, which has more than one meaning; rename the folder, "
            "with the time in UTC"
        )
    offset = "+00:00" if zone in _UTC else f"{zone[:3]}:{zone[-2:]}"
    try:
        return datetime.datetime.fromisoformat(text + offset).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise Refused(f"its time {text!r} does not exist") from None


def _origin(*names: str) -> str:
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
