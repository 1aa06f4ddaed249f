"""tar.gz: pack, inspect, unpack; a hostile archive does no damage.

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

from nbexchange.archive.limits import ArchiveLimits, ArchiveOptions, Contents, Member
from nbexchange.archive.names import Names, folded
from nbexchange.archive.packing import check_is_file, pack
from nbexchange.archive.reading import inspect, inspect_in_steps
from nbexchange.archive.refusals import BrokenOff, Unsendable, quoted
from nbexchange.archive.unpacking import unpack

__all__ = [
    "ArchiveLimits",
    "ArchiveOptions",
    "BrokenOff",
    "Contents",
    "Member",
    "Names",
    "Unsendable",
    "check_is_file",
    "folded",
    "inspect",
    "inspect_in_steps",
    "pack",
    "quoted",
    "unpack",
]
