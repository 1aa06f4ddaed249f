"""Make a folder of an archive, whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from nbexchange.archive.gzip_stream import PIECE
from nbexchange.archive.limits import USUAL, ArchiveLimits, Contents
from nbexchange.archive.names import checked_name
from nbexchange.archive.reading import at_once, read_archive
from nbexchange.archive.refusals import Unsendable
from nbexchange.archive.tar import TIMESTAMP, ArchiveEntry
from nbexchange.temporary import temporary_folder

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # never an existing file, never through a link

_CREATE |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_NOTHING: Mapping[str, bytes] = MappingProxyType({})


def unpack(
    file: BinaryIO,
    destination: Path,
    limits: ArchiveLimits = USUAL,
    extra: Mapping[str, bytes] = _NOTHING,
) -> Contents:
    """Make the folder `destination` of the archive, with the `extra` files instead of its own.

    FileExistsError when there is something already; it is not touched. Whatever goes wrong, there
    is no `destination` afterwards, and nothing beside it.
    """
    if os.path.lexists(destination):
        raise _exists(destination)
    # The outer folder is for our eyes only (0700) while we work; the inner one gets its mode from
    # the umask as any other, and only that one moves out.
    with temporary_folder(destination.parent) as workshop:
        folder = workshop / "unpacked"
        folder.mkdir(0o755)
        contents = at_once(
            read_archive(file, limits, lambda entry, pieces: _put(folder, entry, pieces))
        )
        for name, content in extra.items():
            _put_instead(folder, checked_name(name, limits), content)
        _move(folder, destination)
    return contents


def file_mode(*, is_executable: bool) -> int:
    return 0o755 if is_executable else 0o644


def _put(folder: Path, entry: ArchiveEntry, pieces: Iterable[bytes]) -> None:
    path = folder / entry.name
    if entry.is_folder:
        _make_folder(path)
    else:
        _make_folder(path.parent)
        if entry.name == TIMESTAMP:
            path.unlink(missing_ok=True)  # an earlier one, which may only be of this name
        if entry.copy_of is not None:
            pieces = _pieces_of(folder / entry.copy_of)
        _make_file(path, pieces, file_mode(is_executable=entry.is_executable))


def _pieces_of(path: Path) -> Iterator[bytes]:
    """Of a file that was unpacked before, in a folder that no other account can enter."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _put_instead(folder: Path, name: str, content: bytes) -> None:
    """Write a file of ours in place of whatever of that name the archive had."""
    *parents, last = name.split("/")
    for parent in parents:
        folder /= parent
        if folder.is_file():
            folder.unlink()
    path = folder / last
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    _make_folder(path.parent)
    _make_file(path, [content], file_mode(is_executable=False))


def _make_folder(folder: Path) -> None:
    # Not `parents=True`: it gives the parents another mode.
    try:
        folder.mkdir(0o755)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_folder(folder.parent)
        folder.mkdir(0o755)


def _make_file(path: Path, pieces: Iterable[bytes], mode: int) -> None:
    try:
        descriptor = os.open(path, _CREATE, mode)
    except FileExistsError as error:
        raise Unsendable(path.name, "this disk takes it for another file in the archive") from error
    with os.fdopen(descriptor, "wb") as file:
        for piece in pieces:
            file.write(piece)


def _move(folder: Path, destination: Path) -> None:
    try:
        folder.rename(destination)
    except OSError as error:
        if os.path.lexists(destination):
            raise _exists(destination) from error
        raise


def _exists(destination: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
