"""Safe reading of files that other users own and may change meanwhile.

Students own their files in nbgrader's shared exchange. A link, or a file that becomes a link while
it is read, could give them files that only the administrator may read. So nothing is opened through
a symbolic link, no hard link to another owner's file is opened, and only a private copy is
inspected.
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
    """Open a regular file; BadArchive for anything else. Its parent folders are not checked."""
    return _opened(path.name, path, path.parent.stat().st_uid)


def check_owner(path: Path, trusted: Collection[int], *, group_too: bool = False) -> None:
    """Raises Forbidden if a user who is not in `trusted` (uids) may have put the file there.

    If only the owner of a folder may write in it, the owner is responsible for its content.
    `group_too`: a group with write access is not trusted either.
    """
    strangers = stat.S_IWOTH | (stat.S_IWGRP if group_too else 0)
    owner = path.lstat().st_uid
    if path.parent.stat().st_mode & strangers and owner not in trusted:
        raise Forbidden(
            f"It belongs to {user_name(owner)}, and users who are not instructors may write in the "
            f"folder above. Add --owner={user_name(owner)} if that user is an instructor."
        )


def user_name(uid: int) -> str:
    """The user's name on this machine, or the uid if there is none."""
    return login(uid) or str(uid)


def login(uid: int) -> str | None:
    """None for a user of another machine."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def copy_plain(source: Path, target: Path, limits: ArchiveLimits) -> None:
    """Copy a folder of files and folders; BadArchive at the first entry of another type."""
    folder = os.open(source, _HERE | os.O_DIRECTORY)
    try:
        _Copying(limits).copy(folder, target, "")
    finally:
        os.close(folder)


def members(folder: Path, prefix: str = "") -> Iterator[Member]:
    """All members of a private copy, always in the same order."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield Member(prefix + path.name, None)
            yield from members(path, f"{prefix}{path.name}/")
        else:
            yield Member(prefix + path.name, path)


def is_utf8(name: str) -> bool:
    """Whether a file name is UTF-8. Python decodes other bytes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Copying:
    """Counts while copying, so that a folder cannot fill the disk before it is inspected."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._entries = 0
        self._left = limits.expanded_size

    def copy(self, folder: int, target: Path, prefix: str) -> None:
        if prefix.count("/") > self._limits.depth:
            raise BadArchive(f"It is more than {self._limits.depth} folders deep.")
        target.mkdir(0o700)
        for name in sorted(os.listdir(folder)):
            self._entries += 1
            if self._entries > self._limits.entries:
                raise BadArchive(f"It contains more than {self._limits.entries} files and folders.")
            self._copy_one(folder, name, target / name, prefix + name)

    def _copy_one(self, folder: int, name: str, target: Path, shown: str) -> None:
        if not is_utf8(name):
            raise BadArchive(f"It contains {shown[:80]!r}, whose name is not UTF-8.")
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
            raise BadArchive(f"It contains more than {most // 1024**2} MiB.")
        with target.open("xb") as copy:
            left = status.st_size  # a file that grows meanwhile is copied up to its first size
            while piece := file.read(min(_PIECE, left)):
                copy.write(piece)
                left -= len(piece)
            os.fchmod(copy.fileno(), 0o700 if status.st_mode & stat.S_IXUSR else 0o600)


def _opened(shown: str, name: str | Path, owner: int, folder: int | None = None) -> BinaryIO:
    """`owner` is the owner of its folder."""
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not stat.S_ISREG(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
        raise BadArchive(
            f"It contains {what}: {shown[:80]!r}. Only files and folders are accepted."
        )
    file = os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb")
    try:
        _check_plain(os.fstat(file.fileno()), shown, owner)
    except BadArchive:
        file.close()
        raise
    return file


def _check_plain(status: os.stat_result, shown: str, owner: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadArchive(f"{shown[:80]!r} was replaced while it was read.")
    if status.st_nlink > 1 and status.st_uid != owner:
        raise BadArchive(
            f"It contains a hard link to a file of {user_name(status.st_uid)}: {shown[:80]!r}, in "
            f"a folder of {user_name(owner)}. Put a copy in its place if it belongs there."
        )
