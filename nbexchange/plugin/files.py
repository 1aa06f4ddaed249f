"""Unpack folders that were downloaded, and move them into place."""

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
"""The folder that fetch_feedback writes, within the assignment's folder."""


def is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises when a name is too long


def is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - as above


def has_work(folder: Path) -> bool:
    """Whether the folder contains a visible file or folder other than feedback."""
    try:
        return any(path.name != FEEDBACK and path.name[0] != "." for path in folder.iterdir())
    except OSError:
        return False


@contextlib.contextmanager
def unpacked(file: BinaryIO, beside: Path, limits: ArchiveLimits) -> Iterator[Path]:
    """Unpack into a new folder on the same disk as `beside`.

    The caller may rename the folder. If it does not, the folder is deleted at the end, and so are
    the parents of `beside` that were created for it, if they are still empty.
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
        with contextlib.suppress(OSError):  # not empty, so it is needed, and so are its parents
            for parent in missing:
                parent.rmdir()


def prune(folder: Path, leave_out: Callable[[Path], bool]) -> None:
    """Remove the files and folders that the rules leave out."""
    for path in sorted(folder.iterdir()):
        if leave_out(path):
            _remove(path)
        elif path.is_dir():
            prune(path, leave_out)


def put(folder: Path, name: str, content: str) -> None:
    """Write a file, and replace whatever the archive has under that name."""
    path = folder / name
    _remove(path)
    path.write_text(content, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_into_place(new: Path, target: Path) -> None:
    """Move the new folder into place. If that fails, the old folder is restored."""
    if not target.is_dir():
        if target.is_symlink() or target.exists():
            raise ServiceError(f"{target} exists and is not a folder. Move it somewhere else.")
        new.rename(target)
        return
    old = new.with_name("old")
    _swap(new, target, old)


def replace_keeping_old(new: Path, target: Path, mark: str) -> Path:
    """Move the new folder into place, rename the old one, and return its new path.

    The old folder only gets another name. If the power fails in between, it has that name, and
    there is no folder with the original name.
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
    """Move files that are missing in `folder`. Never touch existing ones, even broken links."""
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
    """Replace a file atomically: a reader sees the old content or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary_folder(path.parent) as temporary:
        new = temporary / "new"
        new.write_bytes(content)
        new.replace(path)


def share_with_group(folder: Path, log: Any) -> None:
    """Let every instructor of the group write, for `CourseDirectory.groupshared`."""
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
