"""tar.gz: pack, inspect, unpack; a hostile archive hurts nobody.

What is promised, on the server and on other people's machines alike:

* Only regular files and folders pass, with plain relative names of which no two are one on a
  disk that ignores case or normalises Unicode. Symbolic links, devices and the like do not.
* Clients in the field send two more things, and nothing else of their kind passes: a hard link to
  an earlier file of the same archive is read as a copy of that file and counts as one; and
  `timestamp.txt` at the top may occur again, because they append theirs. The last one counts.
* An archive is believed only when it was read to its last byte: cut or altered, it is refused.
* Memory is bounded by the constants below and by `ArchiveLimits`, never by a number in the archive.
* Every refusal is a `BadArchive` with a sentence for the person who sent it. An error of the disk
  flies as the `OSError` that it is.
* What is unpacked appears whole or not at all.

`tarfile` writes here but does not read: it takes headers of any declared size into memory, and its
filters were got round again and again (CVE-2025-4517, CVE-2025-4330, CVE-2025-4138), on Pythons
that are still in people's images. `gzip` does not read either: padding and file names in its
header it takes byte by byte in Python, so zeros could keep a thread busy for very long. zlib checks
the same CRC and length in C.
"""

import contextlib
import errno
import gzip
import io
import os
import posixpath
import re
import shutil
import stat
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from nbexchange.errors import BadArchive
from nbexchange.temporary import temporary_folder
from nbexchange.text import is_safe

_MIB = 1024 * 1024
_BLOCK = 512  # a tar is made of these
_PIECE = 64 * 1024  # how much is read or expanded at a time
_LONGEST_EXTENSION = 64 * 1024  # one PAX header or GNU long name; a usual one has 100 bytes
_ALL_EXTENSIONS = 16 * _MIB  # together with their blocks; PAX is slow to parse, so this is time
_LONGEST_PADDING = _MIB  # zeros after the end: tar fills up its last record, usually of 10 kB
_MOST_GZIP_MEMBERS = (
    100_000  # bgzip makes one per 64 kB; empty ones cost time and expand to nothing
)
_TIMESTAMP = "timestamp.txt"
_LONGEST_TIMESTAMP = 100
_LONGEST_QUOTE = 80

_GZIP_MAGIC = b"\x1f\x8b"
_END = bytes(_BLOCK)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # never an existing file, never through a link
_CREATE |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_NOTHING: Mapping[str, bytes] = MappingProxyType({})

_DIGITS = re.compile("[0-9]{1,20}")
_PAX_RECORD = re.compile(rb"([0-9]{1,5}) ([^=]+)=")
_SPECIAL = (
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
class ArchiveLimits:
    """How much an archive may ask of whoever reads it; sizes and lengths are in bytes."""

    entries: int = 10_000  # files and folders, those included that only occur in a path
    expanded_size: int = 10 * 1024 * _MIB
    ratio: int = 200  # expanded to compressed; zeros reach 1028
    ratio_floor: int = 100_000_000  # expanded bytes that the ratio does not count: as many as
    # nbgrader's CourseDirectory.max_dir_size lets a submission have, however repetitive it is
    depth: int = 64
    name_length: int = 255  # of one component
    path_length: int = 2048
    all_paths_length: int = 2 * _MIB  # together, because the names are what is kept in memory


@dataclass(frozen=True)
class Contents:
    """What an archive holds."""

    entries: int  # files and folders that it lists
    expanded_size: int  # of the files
    notebooks: tuple[str, ...]  # their paths, sorted, as nbgrader's find_all_notebooks
    timestamp: str | None  # what timestamp.txt says, when it is one short printable line


@dataclass(frozen=True)
class Member:
    """Something to pack: a file on disk or its bytes, or with `None` a folder."""

    name: str
    source: Path | bytes | None


@dataclass(frozen=True)
class _Entry:
    """One member of an archive, checked."""

    name: str
    size: int  # also of a copy, whose bytes are not in the archive once more
    is_folder: bool
    is_executable: bool
    copy_of: str | None = None  # the earlier file that a hard link points to


class Unsendable(BadArchive):
    """One file or folder cannot be in an archive; the others can."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{quoted(name)} cannot be sent: {reason}")
        self.reason = reason


class BrokenOff(BadArchive):
    """A file could not be read to its end, so what was packed so far is no archive."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{quoted(name)} {reason} while it was read; save it and try again")
        self.name = name
        self.reason = f"it {reason} while it was read"


_USUAL = ArchiveLimits()
_Put = Callable[[_Entry, Iterable[bytes]], None]
_Steps = Generator[int, None, Contents]
"""Reading, a little at a time: each step yields how many bytes it has expanded, about."""


def inspect(file: BinaryIO, limits: ArchiveLimits = _USUAL) -> Contents:
    """What the archive holds, read from where `file` stands to its end; else BadArchive."""
    return _at_once(inspect_in_steps(file, limits))


def inspect_in_steps(file: BinaryIO, limits: ArchiveLimits = _USUAL) -> _Steps:
    """`inspect` for a thread that has others to serve: a step expands 64 kB or little more."""

    def leave_it(_entry: _Entry, _pieces: Iterable[bytes]) -> None:
        pass

    return _read(file, limits, leave_it)


def _at_once(steps: _Steps) -> Contents:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            contents: Contents = end.value
            return contents


def unpack(
    file: BinaryIO,
    destination: Path,
    limits: ArchiveLimits = _USUAL,
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
        contents = _at_once(_read(file, limits, lambda entry, pieces: _put(folder, entry, pieces)))
        for name, content in extra.items():
            _put_instead(folder, _checked_name(name, limits), content)
        _move(folder, destination)
    return contents


# Level 1, 4, 6, 9 on 4.3 MB of notebooks, CSV and pictures: 47, 63, 146, 183 ms for 2.91, 2.83,
# 2.79, 2.78 MB; on 20 kB of notebooks 0.15, 0.19, 0.22, 0.30 ms for 8.6, 8.2, 8.1, 8.0 kB.
# Beyond 4 a class that submits at the deadline pays twice the time for a hundredth of the space.
_COMPRESSION_LEVEL = 4


def pack(
    members: Iterable[Member],
    target: BinaryIO,
    leave_out: Callable[[Member, Unsendable | OSError], None] | None = None,
) -> int:
    """Write the members as tar.gz, in the given order; the same members give the same bytes.

    Return how many bytes their files have. What `inspect` would refuse by its name is refused here
    with the same words, before it travels: Unsendable, or OSError if it cannot be opened. With
    `leave_out`, such a member is passed to it, and the others are packed. BrokenOff if a file
    cannot be read to its end; then the archive is incomplete.
    """
    names = Names(_USUAL)
    size = 0
    with (
        gzip.GzipFile("", "wb", _COMPRESSION_LEVEL, target, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for member in members:
            with contextlib.ExitStack() as stack:
                try:
                    info, file = _opened(member, names, stack)
                except (Unsendable, OSError) as error:
                    if leave_out is None:
                        raise
                    leave_out(member, error)
                    continue
                if info.name:
                    tar.addfile(info, file)
                    size += info.size
    return size


def _opened(
    member: Member, names: "Names", stack: contextlib.ExitStack
) -> "tuple[tarfile.TarInfo, _Whole | io.BytesIO | None]":
    """The header and the content."""
    source = member.source
    info = tarfile.TarInfo(names.add(member.name, is_folder=source is None))
    # It is born without owner and time.
    if source is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        return info, None
    if isinstance(source, bytes):
        info.size = len(source)
        return info, io.BytesIO(source)
    # Asked before it is opened: opening a named pipe waits for its other end, maybe for ever.
    check_is_file(member.name, source.stat().st_mode)
    file = stack.enter_context(source.open("rb"))
    status = os.fstat(file.fileno())
    info.size = status.st_size
    info.mode = _mode(is_executable=bool(status.st_mode & stat.S_IXUSR))
    return info, _Whole(file, info.name)


def check_is_file(name: str, mode: int) -> None:
    """Unsendable when something that is not a folder is not a regular file either."""
    if not stat.S_ISREG(mode):
        kind = next((kind for is_one, kind in _SPECIAL if is_one(mode)), "not a file")
        raise Unsendable(name, f"it is {kind}")


class _Whole:
    """A file on disk whose end, or an error of the disk, before as much was read is BrokenOff."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def read(self, size: int = -1) -> bytes:
        try:
            piece = self._file.read(size)
        except OSError as error:
            raise BrokenOff(self._name, f"could not be read ({error.strerror})") from error
        if len(piece) < size:
            raise BrokenOff(self._name, "became shorter")
        return piece


def _mode(*, is_executable: bool) -> int:
    return 0o755 if is_executable else 0o644


class _Expanded:
    """The bytes inside the gzip, as a stream that knows when enough is enough."""

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._limits = limits
        self._compressed = file.read(len(_GZIP_MAGIC))  # read, not yet expanded
        if self._compressed != _GZIP_MAGIC:
            raise BadArchive("this is not a tar.gz archive")
        self._compressed_count = len(self._compressed)
        self._gzip = _gzip_member()
        self._gzip_members = 1
        self._ready = b""  # expanded, partly taken
        self._taken = 0
        self._count = 0
        self._name = self._most_repetitive = ""  # of files
        self._begun = self._most_excess = 0

    def begin(self, name: str) -> None:
        """What follows is this file; the most repetitive one is named when there is too much."""
        excess = self._excess()
        if excess - self._begun > self._most_excess:
            self._most_repetitive, self._most_excess = self._name, excess - self._begun
        self._name, self._begun = name, excess

    def _excess(self) -> int:
        """Expanded bytes beyond the ratio, so far; negative when there are fewer."""
        used = self._compressed_count - len(self._compressed)
        return self._count - self._limits.ratio * used

    def exactly(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def count_copy(self, size: int) -> None:
        """Bytes that whoever unpacks has to write without reading them here."""
        self._count += size
        self._check_measure()

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, however many, a piece at a time."""
        while size:
            piece = self.some(size)
            if not piece:
                raise _cut()
            size -= len(piece)
            yield piece

    def some(self, most: int) -> bytes:
        """Between one byte and `most`; none only at the proper end."""
        if self._taken == len(self._ready):
            self._ready, self._taken = self._expand(), 0
        piece = self._ready[self._taken : self._taken + most]
        self._taken += len(piece)
        return piece

    def _expand(self) -> bytes:
        piece = b""
        while not piece and not self._at_end():
            piece = self._expand_a_little()
        self._count += len(piece)
        self._check_measure()
        return piece

    def _at_end(self) -> bool:
        """Whether all is read; what follows the end of a gzip member has to be another one."""
        if not self._gzip.eof:
            return False
        if not self._compressed and not self._load():
            return True
        self._gzip = _gzip_member()
        self._gzip_members += 1
        if self._gzip_members > _MOST_GZIP_MEMBERS:
            raise BadArchive("the archive is put together of too many pieces")
        return False

    def _expand_a_little(self) -> bytes:
        if not self._compressed and not self._load():
            raise _cut()
        try:
            piece = self._gzip.decompress(self._compressed, _PIECE)
        except zlib.error as error:
            raise _damaged("its gzip is broken") from error
        self._compressed = self._gzip.unconsumed_tail or self._gzip.unused_data
        return piece

    def _load(self) -> bool:
        self._compressed = self._file.read(_PIECE)
        self._compressed_count += len(self._compressed)
        return bool(self._compressed)

    def _check_measure(self) -> None:
        if self._count > self._limits.expanded_size:
            raise _too_big(self._limits)
        if self._excess() > self._limits.ratio_floor:
            self.begin("")
            name = self._most_repetitive
            raise BadArchive(
                f"the archive expands to more than {self._limits.ratio} times its size, because "
                f"{quoted(name) if name else 'a file'} repeats itself; clear its output or leave "
                "it out, and try again"
            )


def _gzip_member() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # with gzip's header, CRC and length


def _read(file: BinaryIO, limits: ArchiveLimits, put: _Put) -> _Steps:
    """Walk to the end of the archive and `put` every entry, once it is checked."""
    entries = expanded_size = 0
    notebooks = []
    timestamp = None
    for found in _walk(_Expanded(file, limits), limits):
        yield _BLOCK
        if found is None:
            continue
        entry, content = found
        pieces: Iterable[bytes] = content
        if entry.name == _TIMESTAMP:
            timestamp, pieces = _claim(entry, content)
        put(entry, pieces)
        entries += 1
        expanded_size += entry.size
        if _is_notebook(entry):
            notebooks.append(entry.name)
        yield from map(len, content)  # what nobody wanted
    return Contents(entries, expanded_size, tuple(sorted(notebooks)), timestamp)


def _claim(entry: _Entry, content: Iterable[bytes]) -> tuple[str | None, Iterable[bytes]]:
    """The time that timestamp.txt says, and its content, of which none is lost."""
    if entry.size > _LONGEST_TIMESTAMP or entry.copy_of is not None:
        return None, content
    text = b"".join(content)
    return _printable_line(text), [text]


def _is_notebook(entry: _Entry) -> bool:
    return posixpath.splitext(entry.name)[1] == ".ipynb" and not entry.is_folder


def _printable_line(text: bytes) -> str | None:
    try:
        line = text.decode().strip()
    except UnicodeDecodeError:
        return None
    return line if line.isprintable() else None


def _walk(
    stream: _Expanded, limits: ArchiveLimits
) -> Iterator[tuple[_Entry, Iterator[bytes]] | None]:
    """Every checked entry with its content, which the caller reads to its end.

    None for a header that only describes others: there may be many, and they take time.
    """
    names = Names(limits, may_repeat=_TIMESTAMP)
    files = _ArchivedFiles()
    extensions = _Extensions()
    while (block := stream.exactly(_BLOCK)) != _END:
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
        stream.exactly(-stored % _BLOCK)
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
        raise _damaged("a size is negative")
    if size > limits.expanded_size:
        raise _too_big(limits)


def _entry(
    header: tarfile.TarInfo, described: dict[str, str], names: "Names", limits: ArchiveLimits
) -> _Entry:
    name = described.get("path", header.name)
    size = _size(header, described, limits)
    is_folder, is_link = header.isdir(), header.islnk()
    if not (is_folder or is_link or header.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        raise _unwanted(_REFUSED.get(header.type, f"an entry of type {header.type!r}"), name)
    if size and (is_folder or is_link):
        raise _damaged(f"the {'folder' if is_folder else 'hard link'} {quoted(name)} has a size")
    if not is_folder and name.endswith("/"):
        raise _damaged(f"the file {quoted(name)} is named like a folder")
    name = names.add(name, is_folder=is_folder)
    target = described.get("linkpath", header.linkname).removeprefix("./") if is_link else None
    is_executable = bool(header.mode & stat.S_IXUSR)
    return _Entry(name, size, is_folder, is_executable, copy_of=target)


class _ArchivedFiles:
    """The sizes of the files so far, to which hard links may point."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def add(self, entry: _Entry) -> _Entry:
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
        raise _damaged(f"a size is {quoted(text)}")
    _check_size(int(text), limits)
    return int(text)


def _check_end(stream: _Expanded) -> None:
    """Another block of zeros, little more than zeros, and the end of the file."""
    if stream.exactly(_BLOCK) != _END:
        raise _damaged("a block of zeros is in the middle of it")
    padding = 0
    while piece := stream.some(_PIECE):
        padding += len(piece)
        if piece.strip(b"\0") or padding > _LONGEST_PADDING:
            raise _damaged("something follows after its end")


class _Extensions:
    """PAX headers and GNU long names: what they say about the member that comes next."""

    def __init__(self) -> None:
        self._described: dict[str, str] | None = None
        self._used = 0

    def read(self, header: tarfile.TarInfo, stream: _Expanded) -> None:
        self._used += _BLOCK + header.size
        if header.size > _LONGEST_EXTENSION or self._used > _ALL_EXTENSIONS:
            raise BadArchive("the archive has too long headers; pack it without extra attributes")
        body = stream.exactly(header.size)
        stream.exactly(-header.size % _BLOCK)
        if header.type == tarfile.XGLTYPE:
            _check_global(_pax_records(body))
        elif self._described is not None:
            raise _damaged("two headers describe one file")
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            self._described = {"path": _text(body.rstrip(b"\0"))}
        else:
            self._described = _pax_records(body)

    def pop(self) -> dict[str, str]:
        described, self._described = self._described or {}, None
        return described

    def check_used(self) -> None:
        if self._described is not None:
            raise _damaged("a header describes no file")


def _check_global(records: dict[str, str]) -> None:
    """`git archive` leaves a comment for all files; a name or size for all is an attack."""
    if not records.keys().isdisjoint(("path", "linkpath", "size")):
        raise _damaged("a header gives all files one name or size")


def _pax_records(body: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    start = 0
    while start < len(body):
        match = _PAX_RECORD.match(body, start)
        end = start + int(match[1]) if match else 0
        if not match or match.end() >= end or body[end - 1 : end] != b"\n":
            raise _damaged("a PAX header is malformed")
        key = _text(match[2])
        if key in records:
            raise _damaged(f"a PAX header says {quoted(key)} twice")
        if key.startswith("GNU.sparse."):
            raise BadArchive("the archive holds a sparse file; pack it without --sparse")
        records[key] = _text(body[match.end() : end - 1])
        start = end
    return records


def _text(encoded: bytes) -> str:
    return encoded.decode("utf-8", "surrogateescape")


@dataclass
class _Place:
    """A name in a folder, and what is below it."""

    spelling: str
    is_folder: bool
    below: "dict[str, _Place]" = field(default_factory=dict)


class Names:
    """The names so far, as the most forgetful disk sees them: one rule for reading and packing."""

    def __init__(self, limits: ArchiveLimits, may_repeat: str | None = None) -> None:
        self._limits = limits
        self._may_repeat = may_repeat  # the one file that may occur more than once
        self._top = _Place("", is_folder=True)
        self._members = 0
        self._places = 0
        self._length = 0

    def add(self, name: str, *, is_folder: bool) -> str:
        """The name as it goes to disk, "" for the top folder.

        Unsendable if it must not, BadArchive if there are too many; then it is not added.
        """
        path = _checked_name(name, self._limits)
        parts = path.split("/") if path else []
        if not parts and not is_folder:
            raise Unsendable(name, "a file cannot be called that")
        place, depth = self._known(parts, path, is_folder=is_folder)
        self._count(path, len(parts) - depth)
        for position, part in enumerate(parts[depth:], start=depth + 1):
            new = _Place(part, is_folder=is_folder or position < len(parts))
            place.below[folded(part)] = new
            place = new
        return path

    def _known(self, parts: list[str], path: str, *, is_folder: bool) -> tuple[_Place, int]:
        """The last place on the way that there is already, and how deep it is."""
        place = self._top
        for depth, part in enumerate(parts):
            known = place.below.get(folded(part))
            if known is None:
                return place, depth
            self._check_same(known, part, path, is_folder=is_folder or depth + 1 < len(parts))
            place = known
        return place, len(parts)

    def _check_same(self, known: _Place, part: str, path: str, *, is_folder: bool) -> None:
        if known.spelling != part:
            other = quoted(known.spelling)
            raise Unsendable(path, f"there is {other} too, and many disks take the two for one")
        if known.is_folder != is_folder:
            raise Unsendable(path, "it is a file and a folder at once")
        if not is_folder and path != self._may_repeat:
            raise Unsendable(path, "it is in the archive twice")

    def _count(self, path: str, new_places: int) -> None:
        members, places = self._members + 1, self._places + new_places
        length = self._length + len(path.encode())
        if max(members, places) > self._limits.entries:
            raise BadArchive(
                f"the archive holds more than {self._limits.entries} files and folders"
            )
        if length > self._limits.all_paths_length:
            raise BadArchive("the names of the files in the archive are too long altogether")
        self._members, self._places, self._length = members, places, length


def folded(part: str) -> str:
    """Canonical caseless matching (Unicode D145): what macOS and Windows make equal is equal."""
    decomposed = unicodedata.normalize("NFD", part).casefold()
    return unicodedata.normalize("NFC", decomposed)


def _checked_name(name: str, limits: ArchiveLimits) -> str:
    """The name without a leading "./" and trailing "/", "" for the folder that holds all."""
    if name in (".", "./"):
        return ""
    path = name.removeprefix("./").removesuffix("/")
    problem = next(_problems(path, limits), None)
    if problem:
        raise Unsendable(name, problem)
    return path


def _problems(path: str, limits: ArchiveLimits) -> Iterator[str]:
    """Why this is not a relative path that is safe on every disk."""
    parts = path.split("/")
    if not _is_utf8(path):
        yield "its name is not UTF-8"
    if path.startswith("/"):
        yield "its name begins with a slash"
    if "\\" in path:
        yield "there is a backslash in its name"
    if not is_safe(path):
        yield "a control character, or one that changes the direction of text, is in its name"
    if not {"", ".", ".."}.isdisjoint(parts):
        yield "a part of its name is empty, '.' or '..'"
    if len(parts) > limits.depth:
        yield f"it is more than {limits.depth} folders deep"
    if len(path.encode()) > limits.path_length:
        yield f"its name has more than {limits.path_length} bytes"
    if any(len(part.encode()) > limits.name_length for part in parts):
        yield f"a part of its name has more than {limits.name_length} bytes"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _put(folder: Path, entry: _Entry, pieces: Iterable[bytes]) -> None:
    path = folder / entry.name
    if entry.is_folder:
        _make_folder(path)
    else:
        _make_folder(path.parent)
        if entry.name == _TIMESTAMP:
            path.unlink(missing_ok=True)  # an earlier one, which may only be of this name
        if entry.copy_of is not None:
            pieces = _pieces_of(folder / entry.copy_of)
        _make_file(path, pieces, _mode(is_executable=entry.is_executable))


def _pieces_of(path: Path) -> Iterator[bytes]:
    """Of a file that was unpacked before, in a folder that nobody else can enter."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
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
    _make_file(path, [content], _mode(is_executable=False))


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


def _damaged(detail: str) -> BadArchive:
    return BadArchive(f"the archive is damaged: {detail}")


def _cut() -> BadArchive:
    return BadArchive("the archive is incomplete: it ends too early")


def _too_big(limits: ArchiveLimits) -> BadArchive:
    return BadArchive(f"the archive holds more than {limits.expanded_size // _MIB} MiB")


def _unwanted(what: str, name: str) -> BadArchive:
    advice = "; put a copy of the file in its place" if what.endswith("link") else ""
    return BadArchive(
        f"the archive holds {what}: {quoted(name)}; only files and folders can be sent{advice}"
    )


def quoted(name: str) -> str:
    """A name in a message: escaped, on one line, and not longer than one."""
    quoted = repr(name[:_LONGEST_QUOTE])
    return quoted if len(quoted) <= _LONGEST_QUOTE else quoted[: _LONGEST_QUOTE - 3] + "..."
