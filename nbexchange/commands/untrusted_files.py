"""Files that somebody else wrote, and may still write: read without being led astray.

Students own what lies in nbgrader's shared exchange. A link, or a file that becomes one while we
look, would hand them what only the operator may read; so nothing is opened through a symbolic link,
no hard link to the file of another owner is opened, and what is looked at is a private copy.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from nbexchange.archive import ArchiveLimits, Member
from nbexchange.errors import BadArchive, Forbidden

_HERE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1024 * 1024
_FILE = _HERE | os.O_NONBLOCK  # opening a named pipe would wait for its other end


def open_plain(path: Path) -> BinaryIO:
    """A regular file; BadArchive for all else. Folders above it are taken as they are."""
    return _opened(path.name, path, path.parent.stat().st_uid)


def check_owner(path: Path, trusted: Collection[int], *, group_too: bool = False) -> None:
    """Forbidden when somebody who is not `trusted` (uids) may have put it there.

    Where only its owner may write, all that is in a folder is his doing. `group_too`: a group that
    may write is not taken for instructors either.
    """
    strangers = stat.S_IWOTH | (stat.S_IWGRP if group_too else 0)
    owner = path.lstat().st_uid
    if path.parent.stat().st_mode & strangers and owner not in trusted:
        raise Forbidden(
            f"it belongs to {user_name(owner)}, and others than instructors may write in the "
            f"folder above; say --owner={user_name(owner)} if that is an instructor"
        )


def user_name(uid: int) -> str:
    """The user's name on this machine, or else the number."""
    return login(uid) or str(uid)


def login(uid: int) -> str | None:
    """None for a user of another machine."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def copy_plain(source: Path, target: Path, limits: ArchiveLimits) -> None:
    """Copy a folder of nothing but files and folders; BadArchive at the first other thing."""
    folder = os.open(source, _HERE | os.O_DIRECTORY)
    try:
        _Copying(limits).copy(folder, target, "")
    finally:
        os.close(folder)


def members(folder: Path, prefix: str = "") -> Iterator[Member]:
    """All of a private copy, in an order that is always the same."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield Member(prefix + path.name, None)
            yield from members(path, f"{prefix}{path.name}/")
        else:
            yield Member(prefix + path.name, path)


def is_utf8(name: str) -> bool:
    """Names of files are bytes; what Python cannot read becomes lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Copying:
    """Counts along, so that a folder cannot fill the disk before anybody looks at it."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._entries = 0
        self._left = limits.expanded_size

    def copy(self, folder: int, target: Path, prefix: str) -> None:
        if prefix.count("/") > self._limits.depth:
            raise BadArchive(f"it is more than {self._limits.depth} folders deep")
        target.mkdir(0o700)
        for name in sorted(os.listdir(folder)):
            self._entries += 1
            if self._entries > self._limits.entries:
                raise BadArchive(f"it holds more than {self._limits.entries} files and folders")
            self._copy_one(folder, name, target / name, prefix + name)

    def _copy_one(self, folder: int, name: str, target: Path, shown: str) -> None:
        if not is_utf8(name):
            raise BadArchive(f"it holds {shown[:80]!r}, whose name is not UTF-8")
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            with _opened(shown, name, os.fstat(folder).st_uid, folder) as file:
                self._copy_file(file, target)
            return
        below = os.open(name, _HERE | os.O_DIRECTORY, dir_fd=folder)
        try:
            self.copy(below, target, f"{shown}/")
        finally:
            os.close(below)

    def _copy_file(self, file: BinaryIO, target: Path) -> None:
        status = os.fstat(file.fileno())
        self._left -= status.st_size
        if self._left < 0:
            most = self._limits.expanded_size
            raise BadArchive(f"it holds more than {most // 1024**2} MiB")
        with target.open("xb") as copy:
            left = status.st_size  # what grows while we read is not copied further
            while piece := file.read(min(_PIECE, left)):
                copy.write(piece)
                left -= len(piece)
            os.fchmod(copy.fileno(), 0o700 if status.st_mode & stat.S_IXUSR else 0o600)


def _opened(shown: str, name: str | Path, owner: int, folder: int | None = None) -> BinaryIO:
    """`owner` is that of the folder it is in."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "something special"
        raise BadArchive(f"it holds {what}: {shown[:80]!r}; only files and folders are taken")
    file = os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb")
    try:
        _check_plain(os.fstat(file.fileno()), shown, owner)
    except BadArchive:
        file.close()
        raise
    return file


def _check_plain(status: os.stat_result, shown: str, owner: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadArchive(f"{shown[:80]!r} became something else while it was read")
    if status.st_nlink > 1 and status.st_uid != owner:
        raise BadArchive(
            f"it holds a hard link to a file of {user_name(status.st_uid)}: {shown[:80]!r}, in a "
            f"folder of {user_name(owner)}; put a copy in its place if it belongs there"
        )
