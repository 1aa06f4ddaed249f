"""Folders that arrive: how they are unpacked, and how they take their place."""

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nbexchange import archive
from nbexchange.archive import ArchiveLimits
from nbexchange.plugin.answers import LONGEST_NAME
from nbexchange.plugin.client import ServiceError
from nbexchange.plugin.disks import naming
from nbexchange.plugin.jobs import COMPUTING
from nbexchange.temporary import temporary_folder

FEEDBACK = "feedback"
"""The folder that fetch_feedback writes, in that of the assignment."""


def is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises when a name is too long


def is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - as above


def has_work(folder: Path) -> bool:
    """Whether there is a file or a folder that a person would look for: not feedback alone."""
    try:
        return any(path.name != FEEDBACK and path.name[0] != "." for path in folder.iterdir())
    except OSError:
        return False


@contextlib.contextmanager
def unpacked(file: BinaryIO, beside: Path, limits: ArchiveLimits) -> Iterator[Path]:
    """A fresh folder with the archive's contents, on the same disk as `beside` will be.

    It may be renamed away. Whatever is left of it in the end goes, and so do the parents of
    `beside` that had to be made, if nothing came into them.
    """
    with naming(beside), _parents(beside), temporary_folder(beside.parent) as temporary:
        folder = temporary / "new"
        with COMPUTING:
            archive.unpack(file, folder, limits)
        yield folder


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty: it is needed, and so are those above
            for parent in missing:
                parent.rmdir()


def prune(folder: Path, leave_out: Callable[[Path], bool]) -> None:
    """Remove what the rules leave out."""
    for path in sorted(folder.iterdir()):
        if leave_out(path):
            _remove(path)
        elif path.is_dir():
            prune(path, leave_out)


def put(folder: Path, name: str, content: str) -> None:
    """Write a file of ours, whatever of that name came with the archive."""
    path = folder / name
    _remove(path)
    path.write_text(content, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_into_place(new: Path, target: Path) -> None:
    """Let the new folder take its place; should that fail, what was there before is there again."""
    if not target.is_dir():
        if target.is_symlink() or target.exists():
            raise ServiceError(f"{target} is in the way; move it somewhere else.")
        new.rename(target)
        return
    old = new.with_name("old")
    _swap(new, target, old)


def replace_keeping_old(new: Path, target: Path, mark: str) -> Path:
    """Let the new folder take the place of the old one, and say where the old one is now.

    It gets another name and nothing else. Should the power fail in between, it has that name and
    nothing has the old one.
    """
    old = _free_name(target, mark)
    _swap(new, target, old)
    return old


def _swap(new: Path, target: Path, old: Path) -> None:
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _free_name(target: Path, mark: str) -> Path:
    for number in itertools.count(1):
        ending = f" ({mark})" if number == 1 else f" ({mark}, {number})"
        longest = LONGEST_NAME - len(os.fsencode(ending))
        begin = os.fsencode(target.name)[:longest].decode(errors="ignore")
        free = target.with_name(f"{begin}{ending}")
        if not os.path.lexists(free):
            return free
    raise AssertionError("unreachable: there is always another number")


def replace_missing(new: Path, folder: Path, log: Callable[..., None]) -> None:
    """Move over what is not there; never touch what is, not even a link that leads nowhere."""
    for source in sorted(new.iterdir()):
        target = folder / source.name
        shown = os.path.relpath(target)
        if source.is_dir():
            if not (target.is_symlink() or target.exists()):
                log("Creating missing directory '%s'", shown)
                target.mkdir()
            if target.is_dir():
                replace_missing(source, target, log)
        elif not (target.is_symlink() or target.exists()):
            log("Replacing missing file '%s'", shown)
            source.rename(target)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary_folder(path.parent) as temporary:
        new = temporary / "new"
        new.write_bytes(content)
        new.replace(path)


def share_with_group(folder: Path, log: Any) -> None:
    """For `CourseDirectory.groupshared`: every instructor of the group may write."""
    for parent, _, names in os.walk(folder):
        _permit(Path(parent), 0o2770, log)
        for name in names:
            _permit(Path(parent, name), 0o660, log)


def _permit(path: Path, bits: int, log: Any) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        try:
            path.chmod(mode | bits)
        except PermissionError:
            log.warning("Could not update permissions of %s to make it groupshared", path)
