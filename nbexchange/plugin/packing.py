"""Select and pack the files of a folder, by nbgrader's options and the limits of archives.

A file that cannot be sent is left out, with a reason, so that the others can be sent. The caller
decides whether that is an error. Sizes are those of the bytes that are sent, so a symbolic link has
the size of its target. Collect applies the same rules to unpacked submissions.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import math
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nbexchange import archive
from nbexchange.archive import ArchiveLimits, Member, Names, Unsendable, folded, quoted
from nbexchange.plugin.client import Payload, ServiceError
from nbexchange.plugin.disks import naming_temporary
from nbexchange.plugin.jobs import COMPUTING

_USUAL = ArchiveLimits()
_HEADERS = 64 * 1024**2  # bytes; more than the headers of as many files as an archive may hold
_UNLIMITED = dataclasses.replace(_USUAL, entries=2**62, all_paths_length=2**62)
_MOST_WALKED = 10 * _USUAL.entries  # links between folders can make an endless tree
_SHOWN = 10  # names in a message, before a count of the rest
_LARGEST = 3
_TRIES = 3  # attempts to read a file that changes meanwhile
_MOST_TRIES = 20  # attempts to pack a folder whose files change
_MOST_GROUPS = 50  # groups of files that are left out because there are too many files


@dataclass(frozen=True)
class PackingRules:
    """nbgrader's options about files. Sizes are in bytes here; in nbgrader they are in kB."""

    ignore: tuple[str, ...]
    include: tuple[str, ...]
    max_file_size: int  # 0: any
    max_dir_size: int

    @classmethod
    def of(cls, coursedir: Any) -> "PackingRules":
        return cls(
            ignore=tuple(coursedir.ignore),
            include=tuple(coursedir.include),
            max_file_size=1000 * coursedir.max_file_size,
            max_dir_size=1000 * coursedir.max_dir_size,
        )

    @property
    def limits(self) -> ArchiveLimits:
        """The limits for unpacking here: at least the size that this course allows."""
        return dataclasses.replace(
            _USUAL,
            ratio_floor=max(_USUAL.ratio_floor, self.max_dir_size),
            expanded_size=max(_USUAL.expanded_size, self.max_dir_size + _HEADERS),
        )

    def leave_out(self, path: Path) -> bool:
        """Whether a copy omits this file or folder, as `nbgrader.utils.ignore_patterns` does."""
        is_folder = path.is_dir()
        if not self.match(path.name, is_folder=is_folder):
            return True
        return not is_folder and self.is_too_large(path.stat().st_size)

    def match(self, name: str, *, is_folder: bool) -> bool:
        if matches(name, self.ignore):
            return False
        return is_folder or not self.include or matches(name, self.include)

    def is_too_large(self, size: int) -> bool:
        return bool(self.max_file_size) and size > self.max_file_size


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is left out.

    `path` is the relative path on the disk, which may contain any characters. `shown` is for
    display.
    """

    path: str
    reason: str

    @property
    def shown(self) -> str:
        return quoted(self.path)

    def __str__(self) -> str:
        return f"{self.shown}: {self.reason}"


@dataclass
class Selection:
    """The files of `folder` that are packed, and those that are left out."""

    folder: Path
    rules: PackingRules
    members: list[Member] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # of the files in `members`
    left_out: list[LeftOut] = field(default_factory=list)  # because no archive can hold them
    too_large: list[LeftOut] = field(default_factory=list)  # because max_file_size is less

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

    @property
    def largest(self) -> str:
        """The largest files, for a message."""
        by_size = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{quoted(name)} ({_mb(size)})" for name, size in by_size[:_LARGEST])

    def leave_out(self, path: str, reason: str) -> None:
        """Leave out a selected file or folder, with everything in it."""
        self.left_out.append(LeftOut(path, reason))
        self._drop(name for name in self._names if name == path or name.startswith(f"{path}/"))

    @property
    def _names(self) -> Iterator[str]:
        return (member.name for member in self.members)

    def _drop(self, names: Iterable[str]) -> None:
        dropped = set(names)
        self.members = [member for member in self.members if member.name not in dropped]
        for name in dropped:
            self.sizes.pop(name, None)

    def check_size(self, advice: str) -> None:
        """Raise ServiceError if the files are larger than the course allows."""
        most = self.rules.max_dir_size
        if self.size > most:
            raise ServiceError(
                f"Directory size is too big. Size is {self.size:,}, maximum size is {most:,} bytes "
                f"(CourseDirectory.max_dir_size). The largest files are {self.largest}. {advice}"
            )

    @contextlib.contextmanager
    def packed(self, extra: Sequence[Member], max_size: int) -> Iterator[Payload]:
        """An archive in a temporary file, with the `extra` members at its end.

        Files that have become unreadable are left out. Raises ServiceError if the archive is too
        large to be sent.
        """
        with naming_temporary(), tempfile.TemporaryFile() as file:
            with COMPUTING:
                self._pack(extra, file)
            payload = Payload(file, "application/gzip")
            if payload.size > max_size:
                raise ServiceError(
                    f"This is too large to be sent: {payload.size} bytes packed, and at most "
                    f"{max_size} are allowed (c.Exchange.max_buffer_size). The largest files are "
                    f"{self.largest}."
                )
            yield payload

    def _pack(self, extra: Sequence[Member], file: BinaryIO) -> None:
        broken: list[str] = []
        while len(broken) < _MOST_TRIES:
            file.seek(0)
            file.truncate()
            try:
                size = archive.pack([*self.members, *extra], file, self._give_up)
            except archive.BrokenOff as error:
                broken.append(error.name)
                if broken.count(error.name) == _TRIES:
                    self.leave_out(error.name, error.reason)
            else:
                self._check_grown(size - sum(len(_content(member)) for member in extra))
                return
        raise ServiceError(
            f"The files in {self.folder} keep changing, so they cannot be packed. Save and close "
            "them, stop programs that write to them, and try again."
        )

    def _check_grown(self, size: int) -> None:
        """Raise ServiceError if files grew over the limit after they were measured."""
        if size > self.rules.max_dir_size:
            raise ServiceError(
                f"A file in {self.folder} grew while it was packed. All files together now have "
                f"{size:,} bytes, and {self.rules.max_dir_size:,} are allowed "
                "(CourseDirectory.max_dir_size). Stop programs that write to it, and try again."
            )

    def _give_up(self, member: Member, error: Unsendable | OSError) -> None:
        reason = error.reason if isinstance(error, Unsendable) else _reason(error)
        self.leave_out(member.name, reason)


def _content(member: Member) -> bytes:
    return member.source if isinstance(member.source, bytes) else b""


def select(
    folder: Path,
    rules: PackingRules,
    *,
    notebooks: Collection[str] = (),
    reserved: Collection[str] = (),
) -> Selection:
    """Select all files of `folder` that can be packed, and follow links.

    If only one of two files can be sent, `notebooks` (of the release) and their folders come first,
    then the first in alphabetical order. Files at the top level with a name in `reserved` are
    neither packed nor measured, because the caller adds its own. Raises OSError if the folder
    itself cannot be read.
    """
    selection = Selection(folder, rules)
    _Walk(selection, _with_folders(notebooks), reserved).walk(folder, "", ())
    _leave_out_too_many(selection, set(notebooks), len(reserved))
    return selection


class _Walk:
    def __init__(
        self, selection: Selection, preferred: Collection[str], reserved: Collection[str]
    ) -> None:
        self._selection = selection
        self._preferred = preferred
        self._reserved = reserved
        self._names = Names(_UNLIMITED)
        for name in reserved:
            self._names.add(name, is_folder=False)

    def walk(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise Unsendable(prefix, "it is a link to a folder that it is in")
        names = [path.name for path in folder.iterdir()]
        if prefix:
            self._add(prefix.removesuffix("/"), None)
        for name in sorted(names, key=lambda name: (prefix + name not in self._preferred, name)):
            if prefix or name not in self._reserved:
                path = f"{prefix}{name}"
                try:
                    self._visit(folder / name, path, (*above, here))
                except Unsendable as error:
                    self._leave_out(path, error.reason)
                except OSError as error:
                    is_folder = os.path.isdir(folder / name)  # noqa: PTH112 - never an OSError
                    if self._selection.rules.match(name, is_folder=is_folder):
                        self._leave_out(path, _reason(error, folder / name))

    def _leave_out(self, path: str, reason: str) -> None:
        self._selection.left_out.append(LeftOut(path, reason))

    def _visit(self, file: Path, path: str, above: tuple[tuple[int, int], ...]) -> None:
        """Add a file or folder. Raises Unsendable or OSError if it must be left out."""
        status, rules = file.stat(), self._selection.rules
        is_folder = stat.S_ISDIR(status.st_mode)
        if not rules.match(file.name, is_folder=is_folder):
            return
        if is_folder:
            self.walk(file, f"{path}/", above)
            return
        archive.check_is_file(path, status.st_mode)
        if rules.is_too_large(status.st_size):
            reason = (
                f"it has {status.st_size:,} bytes, and a file may have {rules.max_file_size:,} "
                "(CourseDirectory.max_file_size)"
            )
            self._selection.too_large.append(LeftOut(path, reason))
            return
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._add(path, file)
        self._selection.sizes[path] = status.st_size

    def _add(self, path: str, source: Path | None) -> None:
        self._names.add(path, is_folder=source is None)
        self._selection.members.append(Member(path, source))
        if len(self._selection.members) > _MOST_WALKED:
            raise ServiceError(
                f"{self._selection.folder} contains more than {_MOST_WALKED:,} files and folders, "
                "and "
                f"at most {_USUAL.entries:,} can be sent. The largest folders are "
                f"{_largest_folders(self._selection.members)}. Move them somewhere else."
            )


def _reason(error: OSError, path: Path | None = None) -> str:
    if error.errno == errno.ELOOP:
        return "it is a link that leads in a circle"
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and path is not None and path.is_symlink():
        return "it is a link to nothing"
    if error.errno == errno.ENOENT:
        return "it was removed meanwhile"
    return f"it cannot be read ({error.strerror})"


# Too many files


@dataclass(frozen=True)
class _Group:
    """Members that may be left out together: a folder, or the loose files in one."""

    folder: str
    names: tuple[str, ...]  # sorted
    is_whole: bool

    @property
    def length(self) -> int:
        return sum(len(name.encode()) for name in self.names)


def _leave_out_too_many(selection: Selection, notebooks: set[str], reserved: int) -> None:
    """Leave out folders, or loose files, until an archive can hold the rest.

    It leaves out as little as possible: of the folders without a notebook of the release, the
    smallest one that is enough. Only if none is enough, it leaves out several.
    """
    for _ in range(_MOST_GROUPS):
        entries = len(selection.members) + reserved - _USUAL.entries
        length = sum(len(member.name.encode()) + 1 for member in selection.members)
        length -= _USUAL.all_paths_length - 1024
        if entries <= 0 and length <= 0:
            return
        groups = _groups(selection.members, notebooks)
        enough = [
            group for group in groups if len(group.names) >= entries and group.length >= length
        ]
        if enough:
            group = min(enough, key=lambda group: (len(group.names), group.folder))
        elif groups:
            group = max(groups, key=lambda group: (len(group.names), group.folder))
        else:
            break
        _leave_out_group(selection, group, entries, length)
    raise ServiceError(
        f"{selection.folder} contains more than the {_USUAL.entries:,} files and folders that can "
        f"be sent. The largest folders are {_largest_folders(selection.members)}. Move them "
        "somewhere else."
    )


def _leave_out_group(selection: Selection, group: _Group, entries: int, length: int) -> None:
    most = f"at most {_USUAL.entries:,} files and folders can be sent"
    if entries <= 0:
        most = "all names together are too long to be sent"
    count = len(group.names)
    if group.is_whole:
        selection.leave_out(group.folder, f"it holds {count - 1:,} files and folders, and {most}")
        return
    dropped: list[str] = []
    for name in reversed(group.names):
        if len(dropped) >= entries and length <= 0:
            break
        dropped.append(name)
        length -= len(name.encode()) + 1
    what = f"{len(dropped):,} of the {count:,} files in it, from {quoted(dropped[-1])} on"
    selection.left_out.append(LeftOut(group.folder or ".", f"{what}, because {most}"))
    selection._drop(dropped)


def _groups(members: list[Member], notebooks: set[str]) -> list[_Group]:
    kept = {"", *_with_folders(notebooks)}
    by_folder: dict[str, list[str]] = {}
    for member in members:
        if member.name in kept:
            continue
        above = list(_folders_of(member.name))
        for folder in (*above, *([member.name] if member.source is None else ())):
            if folder not in kept:
                by_folder.setdefault(folder, []).append(member.name)
        parent = above[0] if above else ""
        if member.source is not None and parent in kept:
            by_folder.setdefault(parent, []).append(member.name)
    return [
        _Group(folder, tuple(sorted(names)), is_whole=folder not in kept)
        for folder, names in by_folder.items()
    ]


def _largest_folders(members: list[Member]) -> str:
    counts: dict[str, int] = {}
    for member in members:
        folder = member.name.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + 1
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_LARGEST]
    return ", ".join(f"{quoted(folder or '.')} ({count:,})" for folder, count in largest)


# What people read


def check_notebooks(selection: Selection, notebooks: Collection[str]) -> None:
    """ServiceError when something stays behind that is a notebook of the release, or was to be one.

    Then nothing should be submitted: the rest would be worth little.
    """
    names = _with_folders(notebooks)
    missing = names - {item.name for item in selection.members}
    advice = _Advice(
        {folded(name): name for name in names}, {_skeleton(name): name for name in missing}
    )
    texts = (
        *((item, advice.on(item)) for item in selection.left_out),
        *((item, advice.on(item, is_too_large=True)) for item in selection.too_large),
    )
    for item, text in texts:
        if text is not None:
            raise ServiceError(
                f"{item.shown} cannot be submitted, so nothing was: {item.reason}. {text}"
            )


@dataclass(frozen=True)
class _Advice:
    names: dict[str, str]  # of the release's notebooks and their folders, by what disks make equal
    missing: dict[str, str]  # those of them that are not packed, by what they look like

    def on(self, item: LeftOut, *, is_too_large: bool = False) -> str | None:
        same = self.names.get(folded(item.path))
        alike = self.missing.get(_skeleton(item.path))
        if same is not None and same != item.path:
            return (
                f"Keep your work in {quoted(same)}, which belongs to the assignment, rename or "
                f"remove {item.shown}, and submit again."
            )
        if alike is None:
            return None
        if alike != item.path:
            return f"Rename it to {quoted(alike)}, which is missing, and submit again."
        if is_too_large:
            return "Clear its output, save it, and submit again."
        return (
            "It belongs to the assignment: rename what is there, save your work under this name as "
            "an ordinary file, and submit again."
        )


def _skeleton(path: str) -> str:
    """A name without all the characters that can be wrong in it, for comparison."""
    return re.sub("[^a-z0-9.]", "", folded(path))


def warning(left_out: Sequence[LeftOut], receipt: str) -> str:
    """A warning for a student whose other files are submitted. The file `receipt` lists all."""
    lines = "\n\t".join(listed(left_out, f", which are all in {receipt} in the copy that is kept"))
    if len(left_out) == 1:
        return (
            f"A file or folder cannot be sent, so it is left out:\n\t{lines}\nIf it is needed, "
            "rename it or put a copy in its place, and submit again."
        )
    return (
        f"{len(left_out):,} files or folders cannot be sent, so they are left out:\n\t{lines}\nIf "
        "they are needed, rename them or put copies in their place, and submit again."
    )


def listed(left_out: Sequence[LeftOut], more: str = "") -> list[str]:
    """One line for each of the first items, and one that counts the rest."""
    lines = [str(item) for item in left_out[:_SHOWN]]
    rest = len(left_out) - _SHOWN
    return [*lines, f"and {rest:,} more{more}"] if rest > 0 else lines


def _with_folders(names: Collection[str]) -> set[str]:
    return {part for name in names for part in (name, *_folders_of(name))}


def _folders_of(path: str) -> Iterator[str]:
    """The folders that contain a path, the innermost first, without the top level."""
    while path := path.rpartition("/")[0]:
        yield path


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def kilobytes(size: int) -> int:
    """A size in the unit of nbgrader's options."""
    return math.ceil(size / 1000)
