"""The members of a tar stream, each checked."""

import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nbexchange.archive.gzip_stream import PIECE, Expanded
from nbexchange.archive.limits import MIB, ArchiveLimits
from nbexchange.archive.names import Names
from nbexchange.archive.refusals import damaged, quoted, too_big, unwanted
from nbexchange.errors import BadArchive

BLOCK = 512  # a tar is made of these

_LONGEST_EXTENSION = 64 * 1024  # one PAX header or GNU long name; a usual one has 100 bytes

_ALL_EXTENSIONS = 16 * MIB  # together with their blocks; PAX is slow to parse, so this is time

_LONGEST_PADDING = MIB  # zeros after the end: tar fills up its last record, usually of 10 kB

TIMESTAMP = "timestamp.txt"

_END = bytes(BLOCK)

_DIGITS = re.compile("[0-9]{1,20}")

_PAX_RECORD = re.compile(rb"([0-9]{1,5}) ([^=]+)=")

SPECIAL = (
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)

_REFUSED = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.GNUTYPE_LONGLINK: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True)
class ArchiveEntry:
    """One member of an archive, checked."""

    name: str
    size: int  # also of a copy, whose bytes are not in the archive once more
    is_folder: bool
    is_executable: bool
    copy_of: str | None = None  # the earlier file that a hard link points to


def members(
    stream: Expanded, limits: ArchiveLimits
) -> Iterator[tuple[ArchiveEntry, Iterator[bytes]] | None]:
    """Every checked entry with its content, which the caller reads to its end.

    None for a header that only describes others: there may be many, and they take time.
    """
    names = Names(limits, may_repeat=TIMESTAMP)
    files = _ArchivedFiles()
    extensions = _Extensions()
    while (block := stream.exactly(BLOCK)) != _END:
        header = _header(block, limits)
        if header.type in _EXTENSIONS:
            extensions.read(header, stream)
            yield None
            continue
        entry = files.add(_entry(header, extensions.pop(), names, limits))
        stream.begin(entry.name)
        is_copy = entry.copy_of is not None
        if is_copy:
            stream.count_copy(entry.size)
        stored = 0 if is_copy else entry.size
        content = stream.pieces(stored)
        if entry.name:
            yield entry, content
        stream.exactly(-stored % BLOCK)
    extensions.check_used()
    _check_end(stream)


def _header(block: bytes, limits: ArchiveLimits) -> tarfile.TarInfo:
    try:
        # Not "strict": the owner may be called what he likes, only names of files have to be UTF-8.
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadArchive("this is not a tar.gz archive, or it is damaged") from error
    _check_size(header.size, limits)
    return header


def _check_size(size: int, limits: ArchiveLimits) -> None:
    if size < 0:
        raise damaged("a size is negative")
    if size > limits.expanded_size:
        raise too_big(limits)


def _entry(
    header: tarfile.TarInfo, described: dict[str, str], names: "Names", limits: ArchiveLimits
) -> ArchiveEntry:
    name = described.get("path", header.name)
    size = _size(header, described, limits)
    is_folder, is_link = header.isdir(), header.islnk()
    if not (is_folder or is_link or header.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise unwanted(_REFUSED.get(header.type, f"an entry of type {header.type!r}"), name)
    if size and (is_folder or is_link):
        raise damaged(f"the {'folder' if is_folder else 'hard link'} {quoted(name)} has a size")
    if not is_folder and name.endswith("/"):
        raise damaged(f"the file {quoted(name)} is named like a folder")
    name = names.add(name, is_folder=is_folder)
    target = described.get("linkpath", header.linkname).removeprefix("./") if is_link else None
    is_executable = bool(header.mode & stat.S_IXUSR)
    return ArchiveEntry(name, size, is_folder, is_executable, copy_of=target)


class _ArchivedFiles:
    """The sizes of the files so far, to which hard links may point."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def add(self, entry: ArchiveEntry) -> ArchiveEntry:
        """The entry with its size; BadArchive if it is a link to anything but an earlier file."""
        target = entry.copy_of
        if target is not None:
            if target == entry.name or target not in self._sizes:
                raise BadArchive(
                    f"the archive holds a hard link to something else than an earlier file of its "
                    f"own: {quoted(entry.name)}; put a copy of the file in its place"
                )
            entry = replace(entry, size=self._sizes[target])
        if not entry.is_folder:
            self._sizes[entry.name] = entry.size
        return entry


def _size(header: tarfile.TarInfo, described: dict[str, str], limits: ArchiveLimits) -> int:
    text = described.get("size")
    if text is None:
        return header.size
    if not _DIGITS.fullmatch(text):
        raise damaged(f"a size is {quoted(text)}")
    _check_size(int(text), limits)
    return int(text)


def _check_end(stream: Expanded) -> None:
    """Another block of zeros, little more than zeros, and the end of the file."""
    if stream.exactly(BLOCK) != _END:
        raise damaged("a block of zeros is in the middle of it")
    padding = 0
    while piece := stream.some(PIECE):
        padding += len(piece)
        if piece.strip(b"\0") or padding > _LONGEST_PADDING:
            raise damaged("something follows after its end")


class _Extensions:
    """PAX headers and GNU long names: what they say about the member that comes next."""

    def __init__(self) -> None:
        self._described: dict[str, str] | None = None
        self._used = 0

    def read(self, header: tarfile.TarInfo, stream: Expanded) -> None:
        self._used += BLOCK + header.size
        if header.size > _LONGEST_EXTENSION or self._used > _ALL_EXTENSIONS:
            raise BadArchive("the archive has too long headers; pack it without extra attributes")
        body = stream.exactly(header.size)
        stream.exactly(-header.size % BLOCK)
        if header.type == tarfile.XGLTYPE:
            _check_global(_pax_records(body))
        elif self._described is not None:
            raise damaged("two headers describe one file")
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            self._described = {"path": _text(body.rstrip(b"\0"))}
        else:
            self._described = _pax_records(body)

    def pop(self) -> dict[str, str]:
        described, self._described = self._described or {}, None
        return described

    def check_used(self) -> None:
        if self._described is not None:
            raise damaged("a header describes no file")


def _check_global(records: dict[str, str]) -> None:
    """`git archive` leaves a comment for all files; a name or size for all is an attack."""
    if not records.keys().isdisjoint(("path", "linkpath", "size")):
        raise damaged("a header gives all files one name or size")


def _pax_records(body: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    start = 0
    while start < len(body):
        match = _PAX_RECORD.match(body, start)
        end = start + int(match[1]) if match else 0
        if not match or match.end() >= end or body[end - 1 : end] != b"\n":
            raise damaged("a PAX header is malformed")
        key = _text(match[2])
        if key in records:
            raise damaged(f"a PAX header says {quoted(key)} twice")
        if key.startswith("GNU.sparse."):
            raise BadArchive("the archive holds a sparse file; pack it without --sparse")
        records[key] = _text(body[match.end() : end - 1])
        start = end
    return records


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogateescape")
