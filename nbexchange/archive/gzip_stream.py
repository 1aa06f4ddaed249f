"""A gzip stream, expanded a little at a time and within limits."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from nbexchange.archive.limits import ArchiveLimits
from nbexchange.archive.refusals import cut, damaged, quoted, too_big
from nbexchange.errors import BadArchive

PIECE = 64 * 1024  # how much is read or expanded at a time

_MOST_GZIP_MEMBERS = (
    100_000  # bgzip makes one per 64 kB; empty ones cost time and expand to nothing
)

_GZIP_MAGIC = b"\x1f\x8b"


class Expanded:
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
                raise cut()
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
            raise cut()
        try:
            piece = self._gzip.decompress(self._compressed, PIECE)
        except zlib.error as error:
            raise damaged("its gzip is broken") from error
        self._compressed = self._gzip.unconsumed_tail or self._gzip.unused_data
        return piece

    def _load(self) -> bool:
        self._compressed = self._file.read(PIECE)
        self._compressed_count += len(self._compressed)
        return bool(self._compressed)

    def _check_measure(self) -> None:
        if self._count > self._limits.expanded_size:
            raise too_big(self._limits)
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
