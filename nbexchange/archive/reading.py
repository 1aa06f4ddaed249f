"""Read an archive to its last byte."""

import posixpath
from collections.abc import Callable, Generator, Iterable
from typing import BinaryIO

from nbexchange.archive.gzip_stream import Expanded
from nbexchange.archive.limits import USUAL, ArchiveLimits, Contents
from nbexchange.archive.tar import BLOCK, TIMESTAMP, ArchiveEntry, members

_LONGEST_TIMESTAMP = 100

_Put = Callable[[ArchiveEntry, Iterable[bytes]], None]

_Steps = Generator[int, None, Contents]

"""Reading, a little at a time: each step yields how many bytes it has expanded, about."""


def inspect(file: BinaryIO, limits: ArchiveLimits = USUAL) -> Contents:
    """What the archive holds, read from where `file` stands to its end; else BadArchive."""
    return at_once(inspect_in_steps(file, limits))


def inspect_in_steps(file: BinaryIO, limits: ArchiveLimits = USUAL) -> _Steps:
    """`inspect` for a thread that has others to serve: a step expands 64 kB or little more."""

    def leave_it(_entry: ArchiveEntry, _pieces: Iterable[bytes]) -> None:
        pass

    return read_archive(file, limits, leave_it)


def at_once(steps: _Steps) -> Contents:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def read_archive(file: BinaryIO, limits: ArchiveLimits, put: _Put) -> _Steps:
    """Walk to the end of the archive and `put` every entry, once it is checked."""
    entries = expanded_size = 0
    notebooks = []
    timestamp = None
    for found in members(Expanded(file, limits), limits):
        yield BLOCK
        if found is None:
            continue
        entry, content = found
        pieces: Iterable[bytes] = content
        if entry.name == TIMESTAMP:
            timestamp, pieces = _claim(entry, content)
        put(entry, pieces)
        entries += 1
        expanded_size += entry.size
        if _is_notebook(entry):
            notebooks.append(entry.name)
        yield from map(len, content)  # bytes that `put` did not read
    return Contents(entries, expanded_size, tuple(sorted(notebooks)), timestamp)


def _claim(entry: ArchiveEntry, content: Iterable[bytes]) -> tuple[str | None, Iterable[bytes]]:
    """The time that timestamp.txt says, and its content, of which none is lost."""
    if entry.size > _LONGEST_TIMESTAMP or entry.copy_of is not None:
        return None, content
    text = b"".join(content)
    return _printable_line(text), [text]


def _is_notebook(entry: ArchiveEntry) -> bool:
    return posixpath.splitext(entry.name)[1] == ".ipynb" and not entry.is_folder


def _printable_line(text: bytes) -> str | None:
    try:
        line = text.decode().strip()
    except UnicodeDecodeError:
        return None
    return line if line.isprintable() else None
