"""Record which release of which course a student has fetched into which folder.

The records tell whether there is a newer release, and which course a folder belongs to. They are
beside the cache of submissions. In the folder itself they would be submitted or released again.

A record finds a folder by its inode number, which stays when the folder is renamed. For the
version, it also finds a folder by its path, because a restored or moved home has other numbers. For
the course it does not, because a path may be used again. An unknown folder gets no message.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbexchange.plugin import files
from nbexchange.plugin.answers import Released

_MOST = 50  # folders of one assignment


@dataclass(frozen=True)
class Fetched:
    """One release in one folder."""

    sha256: str
    version: int | None
    path: str
    number: int

    def is_older_than(self, released: Released) -> bool:
        """Whether a fetch would now get newer content. A release may repeat earlier content."""
        if self.sha256 == released.sha256 or self.version is None or released.version is None:
            return False
        return self.version < released.version


def record(
    cache: Path, course_id: str, assignment_id: str, folder: Path, sha256: str, version: int | None
) -> None:
    """Record the release that was fetched into a folder. Raises OSError for a disk error."""
    new = Fetched(sha256, version, str(folder), folder.stat().st_ino)
    # File systems reuse the inode number of a deleted folder.
    for file in _files(cache):
        _write(file, _without(_load(file), new.number))
    file = _path(cache, course_id, assignment_id)
    existing = _load(file)
    folders = [*(existing.folders if existing else ()), new][-_MOST:]
    _write(file, _FetchedFolders(course_id, assignment_id, tuple(folders)))


def find(cache: Path, course_id: str, assignment_id: str, folder: Path) -> Fetched | None:
    """The release of this assignment that was fetched into this folder, if it is known."""
    newest_first = _folders(cache, course_id, assignment_id)[::-1]
    number = folder.stat().st_ino
    by_number = (fetched for fetched in newest_first if fetched.number == number)
    by_path = (fetched for fetched in newest_first if fetched.path == str(folder))
    return next(by_number, next(by_path, None))


def course_of(cache: Path, folder: Path) -> str | None:
    """The course that the content of this folder was fetched from, if that is known."""
    number = folder.stat().st_ino
    for existing in filter(None, map(_load, _files(cache))):
        if any(fetched.number == number for fetched in existing.folders):
            return existing.course_id
    return None


def renamed(cache: Path, course_id: str, assignment_id: str, beside: Path) -> Path | None:
    """The existing folder, with the same parent as `beside`, of the last recorded fetch."""
    newest_first = [folder.number for folder in _folders(cache, course_id, assignment_id)[::-1]]
    if not newest_first:
        return None
    try:
        with os.scandir(beside.parent) as entries:
            present = {entry.inode(): Path(entry.path) for entry in entries if entry.is_dir()}
    except OSError:
        return None
    return next((present[number] for number in newest_first if number in present), None)


@dataclass(frozen=True)
class _FetchedFolders:
    """One file: the folders of one assignment, oldest first."""

    course_id: str
    assignment_id: str
    folders: tuple[Fetched, ...]


def _folders(cache: Path, course_id: str, assignment_id: str) -> tuple[Fetched, ...]:
    existing = _load(_path(cache, course_id, assignment_id))
    return existing.folders if existing else ()


def _directory(cache: Path) -> Path:
    return cache.with_name("nbexchange_fetched")


def _path(cache: Path, course_id: str, assignment_id: str) -> Path:
    """The file of an assignment. Names may be long, so its own name is a hash of them."""
    name = hashlib.sha256(json.dumps([course_id, assignment_id]).encode()).hexdigest()
    return _directory(cache) / f"{name}.json"


def _files(cache: Path) -> list[Path]:
    return sorted(_directory(cache).glob("*.json"))


def _load(file: Path) -> _FetchedFolders | None:
    """The content of a file; None if it is missing or not one of ours."""
    try:
        fields: Any = json.loads(file.read_bytes())
        course_id, assignment_id = fields["course_id"], fields["assignment_id"]
        folders = tuple(Fetched(**folder) for folder in fields["folders"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    are_names = isinstance(course_id, str) and isinstance(assignment_id, str)
    if not are_names or not all(isinstance(folder.version, int | None) for folder in folders):
        return None
    return _FetchedFolders(course_id, assignment_id, folders)


def _without(existing: _FetchedFolders | None, number: int) -> _FetchedFolders | None:
    """A copy without this folder; None if the folder is not in it."""
    if existing is None or all(folder.number != number for folder in existing.folders):
        return None
    others = tuple(folder for folder in existing.folders if folder.number != number)
    return dataclasses.replace(existing, folders=others)


def _write(file: Path, existing: _FetchedFolders | None) -> None:
    if existing is not None:
        text = json.dumps(asdict(existing), indent=1, ensure_ascii=False) + "\n"
        files.write_whole(file, text.encode())
