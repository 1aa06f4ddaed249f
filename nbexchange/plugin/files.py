"""Folders on their way: what of them travels, and how they take their place.

nbgrader's rules (`CourseDirectory.ignore`, `include`, `max_file_size`, `max_dir_size`; sizes in
units of 1000 bytes) are applied on both ends, as nbgrader's own exchange does when it copies.
"""

import contextlib
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nbgrader.utils import ignore_patterns

from nbexchange import archive
from nbexchange.archive import Member
from nbexchange.plugin.answers import LONGEST_NAME
from nbexchange.plugin.client import Parcel, ServiceError

Ignore = Callable[[str, list[str]], Collection[str]]
"""As for shutil.copytree: which of these names in this folder to leave out."""

_SHOWN = 3


def is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises when a name is too long


def is_file(path: str | Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - as above


def rules(coursedir: Any, log: Any) -> Ignore:
    """What release, submit and collect leave out; files that are too large with a warning."""
    ignore: Ignore = ignore_patterns(
        exclude=coursedir.ignore,
        include=coursedir.include,
        max_file_size=coursedir.max_file_size,
        log=log,
    )
    return ignore


def check_size(folder: Path, coursedir: Any) -> None:
    """Too big is counted with everything in it, as nbgrader does: ignored files too."""
    size = sum(
        file.lstat().st_size
        for parent, _, names in os.walk(folder)
        for file in (Path(parent, name) for name in names)
        if not file.is_symlink()
    )
    most = 1000 * coursedir.max_dir_size
    if size > most:
        raise ServiceError(
            f"Directory size is too big. Size is {size}, maximum size is {most} bytes "
            f"(CourseDirectory.max_dir_size): {folder}"
        )


def members(folder: Path, ignore: Ignore) -> list[Member]:
    """All that travels, links followed; a link that leads nowhere or in a circle is an error."""
    return list(_members(folder, "", ignore, ()))


def _members(
    folder: Path, prefix: str, ignore: Ignore, above: tuple[tuple[int, int], ...]
) -> Iterator[Member]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise ServiceError(f"The link {folder} leads to a folder that it is in; remove it.")
    names = sorted(path.name for path in folder.iterdir())
    left_out = ignore(str(folder), names)
    for name in names:
        if name not in left_out:
            path = folder / name
            if stat.S_ISDIR(_status(path).st_mode):
                yield Member(prefix + name, None)
                yield from _members(path, f"{prefix}{name}/", ignore, (*above, here))
            else:
                yield Member(prefix + name, path)


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        if path.is_symlink():
            raise ServiceError(f"The link {path} leads nowhere; remove it or mend it.") from None
        raise


@contextlib.contextmanager
def packed(contents: list[Member], most: int) -> Iterator[Parcel]:
    """The members as an archive in a temporary file, if it is not too large to be sent."""
    with tempfile.TemporaryFile() as file:
        archive.pack(contents, file)
        parcel = Parcel(file, "application/gzip")
        if parcel.size > most:
            raise ServiceError(
                f"This is too large to be sent: {parcel.size} bytes packed, and at most {most} are "
                f"allowed (c.Exchange.max_buffer_size). The largest files are {_largest(contents)}."
            )
        yield parcel


def _largest(contents: list[Member]) -> str:
    sizes = [
        (member.source.stat().st_size, member.name)
        for member in contents
        if isinstance(member.source, Path)
    ]
    largest = sorted(sizes, reverse=True)[:_SHOWN]
    return ", ".join(f"{name} ({size / 1e6:.1f} MB)" for size, name in largest)


@contextlib.contextmanager
def unpacked(file: BinaryIO, beside: Path) -> Iterator[Path]:
    """A fresh folder with the archive's contents, on the same disk as `beside` will be.

    It may be renamed away. Whatever is left of it in the end goes, and so do the parents of
    `beside` that had to be made, if nothing came into them.
    """
    with (
        _parents(beside),
        tempfile.TemporaryDirectory(
            prefix=".nbexchange-", dir=beside.parent, ignore_cleanup_errors=True
        ) as workshop,
    ):
        folder = Path(workshop, "new")
        archive.unpack(file, folder)
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


def prune(folder: Path, ignore: Ignore) -> None:
    """Remove what the rules leave out."""
    names = sorted(path.name for path in folder.iterdir())
    left_out = ignore(str(folder), names)
    for name in names:
        path = folder / name
        if name in left_out:
            _remove(path)
        elif path.is_dir():
            prune(path, ignore)


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


def settle(new: Path, place: Path) -> None:
    """Let the new folder take its place; should that fail, what was there before is there again."""
    if not place.is_dir():
        if place.is_symlink() or place.exists():
            raise ServiceError(f"{place} is in the way; move it somewhere else.")
        new.rename(place)
        return
    old = new.with_name("old")
    _swap(new, place, old)


def settle_beside(new: Path, place: Path, mark: str) -> Path:
    """Let the new folder take the place of the old one, and say where the old one is now.

    It gets another name and nothing else. Should the power fail in between, it has that name and
    nothing has the old one.
    """
    old = _free_name(place, mark)
    _swap(new, place, old)
    return old


def _swap(new: Path, place: Path, old: Path) -> None:
    place.rename(old)
    try:
        new.rename(place)
    except BaseException:
        old.rename(place)
        raise


def _free_name(place: Path, mark: str) -> Path:
    for number in itertools.count(1):
        ending = f" ({mark})" if number == 1 else f" ({mark}, {number})"
        longest = LONGEST_NAME - len(os.fsencode(ending))
        begin = os.fsencode(place.name)[:longest].decode(errors="ignore")
        free = place.with_name(f"{begin}{ending}")
        if not os.path.lexists(free):
            return free
    raise AssertionError("unreachable: there is always another number")


def replace_missing(new: Path, place: Path, log: Any) -> None:
    """Move over what is not there; never touch what is, not even a link that leads nowhere."""
    for source in sorted(new.iterdir()):
        target = place / source.name
        shown = os.path.relpath(target)
        if source.is_dir():
            if not (target.is_symlink() or target.exists()):
                log.warning("Creating missing directory '%s'", shown)
                target.mkdir()
            if target.is_dir():
                replace_missing(source, target, log)
        elif not (target.is_symlink() or target.exists()):
            log.warning("Replacing missing file '%s'", shown)
            source.rename(target)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: whoever reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".nbexchange-", dir=path.parent, ignore_cleanup_errors=True
    ) as workshop:
        new = Path(workshop, "new")
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
