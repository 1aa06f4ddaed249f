"""Archives: what is packed comes out again, and what is hostile goes nowhere."""

import bz2
import errno
import gzip
import hashlib
import io
import os
import random
import resource
import stat
import subprocess
import tarfile
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbexchange.archive import ArchiveLimits, Contents, Member, inspect, pack, unpack
from nbexchange.errors import BadArchive

MIB = 1024 * 1024
END = bytes(1024)


def header(
    name: bytes = b"a",
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    mode: int = 0o644,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    uname: bytes = b"",
) -> bytes:
    """One tar header, with nothing checked but the checksum made right."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    fields = [
        name.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        digits.ljust(12, b"\0"),
        b"%011o\0" % 0,
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        magic.ljust(8, b"\0"),
        uname.ljust(32, b"\0"),
        bytes(32 + 16),
        prefix.ljust(155, b"\0"),
        bytes(12),
    ]
    block = b"".join(fields)
    assert len(block) == 512
    return block.replace(b" " * 8, b"%06o\0 " % sum(block), 1)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def member(name: bytes, content: bytes = b"", **fields: object) -> bytes:
    return header(name, **({"size": len(content)} | fields)) + padded(content)  # type: ignore[arg-type]


def pax_record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(kind: bytes = b"x", **records: bytes) -> bytes:
    body = b"".join(pax_record(key, value) for key, value in records.items())
    return member(b"././@PaxHeader", body, kind=kind)


def raw_pax(body: bytes, kind: bytes = b"x") -> bytes:
    return member(b"././@PaxHeader", body, kind=kind) + member(b"a")


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return member(b"././@LongLink", name + b"\0", kind=kind, magic=b"ustar  ")


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    return header(name, kind=kind, link=target)


def folder(name: bytes) -> bytes:
    return header(name, kind=b"5")


def tgz(*blocks: bytes, end: bytes = END) -> bytes:
    return gzip.compress(b"".join(blocks) + end, mtime=0)


def packed(*members: tuple[str, Path | bytes | None] | Member) -> bytes:
    target = io.BytesIO()
    pack([each if isinstance(each, Member) else Member(*each) for each in members], target)
    return target.getvalue()


def zeros(size: int) -> bytes:
    """A tar.gz with one file of zeros, made without holding it."""
    compress = zlib.compressobj(9, wbits=31)
    pieces = [compress.compress(header(b"zeros", size=size))]
    pieces += [compress.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*pieces, compress.compress(END), compress.flush()])


def zipped() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("../a", b"")
    return target.getvalue()


def flipped(archive: bytes, position: int) -> bytes:
    changed = bytearray(archive)
    changed[position] ^= 1
    return bytes(changed)


def bad_checksum() -> bytes:
    block = bytearray(header(b"p1.ipynb"))
    block[150] ^= 1
    return tgz(bytes(block))


def snowball() -> bytes:
    """A bomb in many gzip members, each of them harmless."""
    piece = gzip.compress(bytes(MIB), mtime=0)
    return gzip.compress(header(b"zeros", size=130 * MIB), mtime=0) + piece * 130 + tgz()


def hard_links() -> bytes:
    """A bomb that zlib does not see: copies of a file that does not shrink."""
    content = random.Random(6).randbytes(60_000)
    return tgz(member(b"a", content), *(link(b"%d" % n, b"a", b"1") for n in range(2000)))


def deep_chain() -> list[bytes]:
    """CVE-2025-4517: links so long together that realpath gives up, and then out of the folder."""
    component = b"d" * 247
    blocks, path = [], b""
    for step in b"abcdefghijklmnop":
        blocks += [pax(path=path + component), folder(b"d")]
        blocks += [pax(path=path + bytes([step]), linkpath=component), link(b"l", b"d")]
        path += component + b"/"
    out = [pax(path=path[:-1], linkpath=b"../" * 16), link(b"l", b"..")]
    return [*blocks, *out, link(b"escape", path[:80] + b"/../../evil"), member(b"escape", b"x")]


NOISE = random.Random(4).randbytes(60_000)
NFC, NFD = (unicodedata.normalize(form, "é.ipynb").encode() for form in ("NFC", "NFD"))
GNU = b"ustar  "
LONG_FOLDER = (b"f" * 240 + b"/") * 8
OLD_SPARSE = header(b"sparse", kind=b"S", magic=GNU)
ESCAPES = [
    ("parent", "part", lambda: tgz(member(b"../evil", b"x"))),
    ("parent-inside", "part", lambda: tgz(member(b"a/../../evil", b"x"))),
    ("parent-that-stays-inside", "part", lambda: tgz(member(b"a/../evil", b"x"))),
    ("parent-folder", "part", lambda: tgz(folder(b"../evil/"))),
    ("parent-alone", "part", lambda: tgz(folder(b".."))),
    ("parent-at-end", "part", lambda: tgz(folder(b"a/.."))),
    ("parent-after-dot", "part", lambda: tgz(member(b"./../evil"))),
    ("dot-inside", "part", lambda: tgz(member(b"a/./b"))),
    ("dot-twice", "part", lambda: tgz(member(b"././b"))),
    ("absolute", "slash", lambda: tgz(member(b"/tmp/evil", b"x"))),
    ("absolute-after-dot", "slash", lambda: tgz(member(b".//tmp/evil", b"x"))),
    ("absolute-twice", "slash", lambda: tgz(member(b"//tmp/evil", b"x"))),
    ("absolute-by-prefix", "slash", lambda: tgz(member(b"evil", prefix=b"/tmp"))),
    ("absolute-after-prefix", "part", lambda: tgz(member(b"/evil", prefix=b"a"))),
    ("parent-by-prefix", "part", lambda: tgz(member(b"evil", prefix=b"a/../.."))),
    ("root-of-disk", "part", lambda: tgz(folder(b"/"))),
    ("backslashes", "backslash", lambda: tgz(member(b"..\\evil"))),
    ("drive", "backslash", lambda: tgz(member(b"C:\\evil"))),
    ("empty-name", "part", lambda: tgz(member(b""))),
    ("empty-part", "part", lambda: tgz(member(b"a//b"))),
    ("file-named-like-folder", "like a folder", lambda: tgz(member(b"a/"))),
    ("file-named-dot", "cannot be called", lambda: tgz(member(b"."))),
    ("pax-path-parent", "part", lambda: tgz(pax(path=b"../evil"), member(b"a"))),
    ("pax-path-absolute", "slash", lambda: tgz(pax(path=b"/tmp/evil"), member(b"a"))),
    ("pax-path-empty", "part", lambda: tgz(pax(path=b""), member(b"a"))),
    ("pax-path-nul", "control", lambda: tgz(pax(path=b"a\0b"), member(b"a"))),
    ("pax-path-like-folder", "like a folder", lambda: tgz(pax(path=b"a/"), member(b"a"))),
    ("global-path", "all files", lambda: tgz(pax(b"g", path=b"../evil"), member(b"a"))),
    ("gnu-name-parent", "part", lambda: tgz(long_name(b"a/../../evil"), member(b"a"))),
    ("gnu-name-absolute", "slash", lambda: tgz(long_name(b"/tmp/evil"), member(b"a"))),
    ("gnu-name-nul", "control", lambda: tgz(long_name(b"a\0/../b"), member(b"a"))),
]
KINDS = [
    ("symlink", "symbolic link: 'a/b'; only files.*put a copy", lambda: tgz(link(b"a/b", b"c"))),
    ("symlink-out", "symbolic link", lambda: tgz(link(b"a", b"../.."))),
    ("symlink-absolute", "symbolic link", lambda: tgz(link(b"a", b"/etc/passwd"))),
    ("symlink-then-through", "symbolic", lambda: tgz(link(b"a", b".."), member(b"a/evil"))),
    ("symlink-to-itself", "symbolic link", lambda: tgz(link(b"a", b"a"))),
    ("symlink-with-slash", "symbolic link", lambda: tgz(link(b"a/", b".."))),
    ("symlink-by-pax", "symbolic", lambda: tgz(pax(linkpath=b"../.."), link(b"a", b""))),
    ("symlink-after-file", "symbolic", lambda: tgz(member(b"a"), link(b"a", b".."))),
    ("gnu-long-link", "a link", lambda: tgz(long_name(b"../" * 60, b"K"), link(b"a", b"b"))),
    ("hardlink-out", "hard link.*'a'; put a copy", lambda: tgz(link(b"a", b"/etc/passwd", b"1"))),
    ("hardlink-parent", "hard link", lambda: tgz(member(b"e"), link(b"a", b"../e", b"1"))),
    ("hardlink-absolute", "hard link", lambda: tgz(member(b"e"), link(b"a", b"/e", b"1"))),
    ("hardlink-not-plain", "hard link", lambda: tgz(member(b"e"), link(b"a", b"b/../e", b"1"))),
    ("hardlink-other-case", "hard link", lambda: tgz(member(b"e"), link(b"a", b"E", b"1"))),
    ("hardlink-to-later", "hard link", lambda: tgz(link(b"a", b"b", b"1"), member(b"b"))),
    ("hardlink-to-itself", "hard link", lambda: tgz(link(b"a", b"a", b"1"))),
    ("hardlink-to-nothing", "hard link", lambda: tgz(link(b"a", b"", b"1"))),
    ("hardlink-to-folder", "hard link", lambda: tgz(folder(b"b"), link(b"a", b"b", b"1"))),
    ("hardlink-with-slash", "like a folder", lambda: tgz(member(b"b"), link(b"a/", b"b", b"1"))),
    ("hardlink-twice", "twice", lambda: tgz(member(b"b"), *[link(b"a", b"b", b"1")] * 2)),
    ("hardlink-over-its-file", "twice", lambda: tgz(member(b"b"), link(b"b", b"b", b"1"))),
    (
        "hardlink-with-content",
        "hard link 'a' has a size",
        lambda: tgz(member(b"b"), member(b"a", b"x", kind=b"1", link=b"b")),
    ),
    (
        "hardlink-by-pax-out",
        "hard link",
        lambda: tgz(member(b"b"), pax(linkpath=b"../../evil"), link(b"a", b"b", b"1")),
    ),
    (
        "hardlink-of-a-timestamp-to-itself",
        "hard link",
        lambda: tgz(member(b"timestamp.txt"), link(b"timestamp.txt", b"timestamp.txt", b"1")),
    ),
    ("global-link", "all files", lambda: tgz(pax(b"g", linkpath=b"b"), member(b"b"))),
    (
        "CVE-2025-4138",
        "symbolic link",
        lambda: tgz(folder(b"a"), link(b"a/b", b"."), link(b"c", b"a/b/.."), member(b"c/evil")),
    ),
    ("CVE-2025-4517", "symbolic link|two headers", lambda: tgz(*deep_chain())),
    (
        "CVE-2025-4330",
        "symbolic link",
        lambda: tgz(link(b"x", b"y/../.."), link(b"h", b"x/evil", b"1"), member(b"h", b"x")),
    ),
    (
        "hardlink-to-symlink",
        "symbolic link",
        lambda: tgz(link(b"a/b/s", b"../../c"), link(b"d", b"a/b/s", b"1"), member(b"d", b"x")),
    ),
    ("character-device", "a device", lambda: tgz(header(b"null", kind=b"3"))),
    ("block-device", "a device", lambda: tgz(header(b"sda", kind=b"4"))),
    ("fifo", "named pipe", lambda: tgz(header(b"pipe", kind=b"6"))),
    ("contiguous", "type b'7'", lambda: tgz(member(b"a", b"x", kind=b"7"))),
    ("gnu-dump", "type b'D'", lambda: tgz(member(b"a/", b"Yb\0\0", kind=b"D", magic=GNU))),
    ("gnu-multivolume", "type b'M'", lambda: tgz(member(b"a", b"x", kind=b"M", magic=GNU))),
    ("gnu-volume", "type b'V'", lambda: tgz(header(b"label", kind=b"V", magic=GNU))),
    ("solaris-header", "type b'X'", lambda: tgz(raw_pax(pax_record("path", b"b"), b"X"))),
    ("vendor", "type b'Z'", lambda: tgz(header(kind=b"Z"))),
    ("binary-kind", "type b'.xff'", lambda: tgz(header(kind=b"\xff"))),
    ("gnu-sparse", "sparse", lambda: tgz(OLD_SPARSE)),
    (
        "pax-sparse-0.1",
        "sparse",
        lambda: tgz(raw_pax(pax_record("GNU.sparse.map", b"0,1") + pax_record("size", b"1"))),
    ),
    (
        "pax-sparse-1.0",
        "sparse",
        lambda: tgz(
            raw_pax(pax_record("GNU.sparse.major", b"1") + pax_record("GNU.sparse.name", b"../a"))
        ),
    ),
    ("global-sparse", "sparse", lambda: tgz(raw_pax(pax_record("GNU.sparse.name", b"a"), b"g"))),
]
COLLISIONS = [
    ("file-twice", "twice", lambda: tgz(member(b"a", b"1"), member(b"a", b"2"))),
    ("file-twice-by-dot", "twice", lambda: tgz(member(b"a"), member(b"./a"))),
    ("below-twice", "twice", lambda: tgz(*[member(b"sub/timestamp.txt")] * 2)),
    (
        "timestamp-and-folder",
        "once",
        lambda: tgz(member(b"timestamp.txt"), folder(b"timestamp.txt")),
    ),
    ("file-twice-by-pax", "twice", lambda: tgz(member(b"a"), pax(path=b"a"), member(b"b"))),
    ("case", "take the two for one", lambda: tgz(member(b"P1.ipynb"), member(b"p1.ipynb"))),
    ("case-of-folder", "take the two", lambda: tgz(member(b"Data/a"), member(b"data/b"))),
    ("case-beyond-ascii", "take the two", lambda: tgz(member("Ä".encode()), member("ä".encode()))),
    ("sharp-s", "take the two", lambda: tgz(member("ß".encode()), member(b"SS"))),
    ("NFC-and-NFD", "take the two", lambda: tgz(member(NFC), member(NFD))),
    ("NFC-and-NFD-folder", "take the two", lambda: tgz(folder(NFC), member(NFD + b"/a"))),
    ("kelvin", "take the two", lambda: tgz(member("\u212a".encode()), member(b"k"))),
    ("file-then-folder", "at once", lambda: tgz(member(b"a"), folder(b"a"))),
    ("file-then-below-it", "at once", lambda: tgz(member(b"a"), member(b"a/b"))),
    ("folder-then-file", "at once", lambda: tgz(folder(b"a"), member(b"a"))),
    ("implied-folder-then-file", "at once", lambda: tgz(member(b"a/b"), member(b"a"))),
]
NAMES = [
    ("newline", "control", lambda: tgz(member(b"a\nb"))),
    ("escape", "control", lambda: tgz(member(b"\x1b[2Ja"))),
    ("delete", "control", lambda: tgz(member(b"a\x7f"))),
    ("C1", "control", lambda: tgz(member("a\x85".encode()))),
    ("line-separator", "control", lambda: tgz(member("a\u2028b".encode()))),
    ("paragraph-separator", "control", lambda: tgz(member("a\u2029b".encode()))),
    ("bidi-override", "direction", lambda: tgz(member("a\u202egpj.ipynb".encode()))),
    ("bidi-isolate", "direction", lambda: tgz(pax(path="\u2067a".encode()), member(b"a"))),
    ("latin-1", "UTF-8", lambda: tgz(member(b"\xe9.ipynb"))),
    ("latin-1-by-pax", "UTF-8", lambda: tgz(pax(path=b"\xe9"), member(b"a"))),
    ("latin-1-by-gnu", "UTF-8", lambda: tgz(long_name(b"\xe9" * 120), member(b"a"))),
    ("overlong-UTF-8", "UTF-8", lambda: tgz(member(b"\xc0\xae\xc0\xae/evil"))),
    ("UTF-8-surrogate", "UTF-8", lambda: tgz(member(b"\xed\xa0\x80"))),
    ("65-deep", "64 folders deep", lambda: tgz(long_name(b"a/" * 64 + b"b"), member(b"a"))),
    ("10000-deep", "64 folders deep", lambda: tgz(long_name(b"a/" * 10_000), folder(b"a"))),
    ("256-byte-part", "255 bytes", lambda: tgz(pax(path=b"a" * 256), member(b"a"))),
    ("256-byte-emoji", "255 bytes", lambda: tgz(pax(path="🎓".encode() * 64), member(b"a"))),
    ("long-path", "2048 bytes", lambda: tgz(pax(path=b"/".join([b"a" * 200] * 11)), member(b"a"))),
]
HEADERS = [
    ("pax-size-too-small", "not a tar", lambda: tgz(pax(size=b"1"), member(b"a", b"x" * 999))),
    ("pax-size-too-large", "incomplete", lambda: tgz(pax(size=b"9999"), member(b"a", b"x"))),
    ("pax-size-huge", "MiB", lambda: tgz(pax(size=b"9" * 19), member(b"a"))),
    ("pax-size-of-4301-digits", "a size is", lambda: tgz(pax(size=b"9" * 4301), member(b"a"))),
    ("pax-size-negative", "a size is '-1'", lambda: tgz(pax(size=b"-1"), member(b"a"))),
    ("pax-size-empty", "a size is ''", lambda: tgz(pax(size=b""), member(b"a"))),
    ("pax-size-arabic", "a size is", lambda: tgz(pax(size="٣".encode()), member(b"a"))),
    ("pax-size-of-folder", "has a size", lambda: tgz(pax(size=b"1"), folder(b"a"))),
    ("pax-twice", "describe one file", lambda: tgz(pax(path=b"a"), pax(path=b"b"), member(b"c"))),
    ("pax-and-gnu", "describe one", lambda: tgz(pax(path=b"a"), long_name(b"b"), member(b"c"))),
    ("gnu-twice", "describe one", lambda: tgz(long_name(b"a"), long_name(b"b"), member(b"c"))),
    ("pax-of-nothing", "describes no file", lambda: tgz(pax(path=b"a"))),
    ("gnu-of-nothing", "describes no file", lambda: tgz(long_name(b"a"))),
    ("pax-key-twice", "twice", lambda: tgz(raw_pax(pax_record("path", b"a") * 2))),
    ("pax-without-length", "malformed", lambda: tgz(raw_pax(b"path=a\n"))),
    ("pax-length-zero", "malformed", lambda: tgz(raw_pax(b"0 path=a\n"))),
    ("pax-length-short", "malformed", lambda: tgz(raw_pax(b"5 path=a\n"))),
    ("pax-length-beyond", "malformed", lambda: tgz(raw_pax(b"99 path=a\n"))),
    ("pax-length-of-2000-digits", "malformed", lambda: tgz(raw_pax(b"1" * 2000 + b" path=a\n"))),
    ("pax-equals-beyond", "malformed", lambda: tgz(raw_pax(b"6 abc\n9 path=a\n"))),
    ("pax-without-newline", "malformed", lambda: tgz(raw_pax(b"9 path=a "))),
    ("pax-without-equals", "malformed", lambda: tgz(raw_pax(b"7 path\n"))),
    ("pax-nul-padding", "malformed", lambda: tgz(raw_pax(b"9 path=a\n\0\0"))),
    ("pax-huge", "too long headers", lambda: tgz(raw_pax(pax_record("comment", b"x" * 70_000)))),
    ("pax-huge-declared", "too long", lambda: tgz(header(kind=b"x", size=8 * 1024 * MIB - 1))),
    ("pax-endless", "too long", lambda: tgz(pax(b"g", comment=NOISE) * 300)),
    ("global-size", "all files", lambda: tgz(pax(b"g", size=b"0"), member(b"a"))),
    ("gnu-name-huge", "too long", lambda: tgz(long_name(b"a" * 70_000), member(b"a"))),
    ("gnu-name-huge-declared", "too long", lambda: tgz(header(kind=b"L", size=MIB))),
    ("size-negative", "negative", lambda: tgz(header(size=b"\xff" * 12))),
    ("size-negative-octal", "negative", lambda: tgz(header(size=b"-0000000001"))),
    ("size-2-to-the-87", "MiB", lambda: tgz(header(size=b"\x80" + b"\xff" * 11))),
    ("size-not-a-number", "not a tar", lambda: tgz(header(size=b"zzzzzzzzzzz"))),
    ("size-of-folder", "has a size", lambda: tgz(member(b"a", b"x", kind=b"5"))),
    ("checksum-flipped", "not a tar", bad_checksum),
    ("expanded-too-large", "MiB", lambda: tgz(header(size=b"\x80".ljust(6, b"\0") + b"\7" * 6))),
    ("too-many-files", "10000 files", lambda: tgz(*(member(b"%d" % n) for n in range(10_001)))),
    ("one-folder-10001-times", "10000 files", lambda: tgz(folder(b"a") * 10_001)),
    ("top-folder-10001-times", "10000 files", lambda: tgz(folder(b"./") * 10_001)),
    (
        "too-many-implied-folders",
        "10000 files",
        lambda: tgz(*(member(b"%d/" % n + b"a/" * 30 + b"b") for n in range(400))),
    ),
    (
        "too-much-to-remember",
        "too long altogether",
        lambda: tgz(*(pax(path=LONG_FOLDER + b"%d" % n) + member(b"a") for n in range(1100))),
    ),
]
STREAMS = [
    ("empty", "not a tar", lambda: b""),
    ("one-byte", "not a tar", lambda: b"\x1f"),
    ("magic-alone", "incomplete", lambda: b"\x1f\x8b"),
    ("text", "not a tar", lambda: b"hello, world\n" * 99),
    ("random", "not a tar", lambda: random.Random(1).randbytes(10_000)),
    ("plain-tar", "not a tar", lambda: member(b"a", b"x") + END),
    ("zip", "not a tar", zipped),
    ("bzip2", "not a tar", lambda: bz2.compress(member(b"a", b"x") + END)),
    ("gzipped-nothing", "incomplete", lambda: gzip.compress(b"", mtime=0)),
    ("gzipped-text", "not a tar", lambda: gzip.compress(b"hello, world\n" * 99, mtime=0)),
    ("gzipped-gzip", "not a tar|incomplete", lambda: gzip.compress(tgz(member(b"a")), mtime=0)),
    ("gzipped-random", "not a tar", lambda: gzip.compress(random.Random(2).randbytes(5000))),
    ("random-behind-magic", "damaged", lambda: b"\x1f\x8b" + random.Random(3).randbytes(999)),
    ("other-compression", "damaged", lambda: b"\x1f\x8b\x07" + tgz(member(b"a"))[3:]),
    ("crc-flipped", "damaged", lambda: flipped(tgz(member(b"a", b"x")), -8)),
    ("length-flipped", "damaged", lambda: flipped(tgz(member(b"a", b"x")), -1)),
    ("no-end", "incomplete", lambda: tgz(member(b"a", b"x"), end=b"")),
    ("half-an-end", "incomplete", lambda: tgz(member(b"a", b"x"), end=bytes(512))),
    ("end-cut", "incomplete", lambda: tgz(member(b"a", b"x"), end=bytes(1023))),
    ("content-cut", "incomplete", lambda: tgz(header(size=600) + bytes(512), end=b"")),
    ("zeros-in-the-middle", "zeros", lambda: tgz(bytes(512), member(b"a"))),
    ("something-after-the-end", "follows", lambda: tgz(END, member(b"../evil"))),
    ("one-byte-after-the-end", "follows", lambda: tgz(bytes(9216), b"x", end=b"")),
    ("zeros-without-end", "follows", lambda: tgz(bytes(3 * MIB))),
    ("garbage-after-gzip", "damaged", lambda: tgz(member(b"a")) + b"garbage"),
    ("zeros-after-gzip", "damaged", lambda: tgz(member(b"a")) + bytes(512)),
    ("magic-after-gzip", "incomplete", lambda: tgz(member(b"a")) + b"\x1f\x8b"),
    ("second-archive", "follows", lambda: tgz(member(b"a")) + tgz(member(b"../evil"))),
    ("empty-gzips", "too many pieces", lambda: tgz() + gzip.compress(b"", mtime=0) * 100_001),
    ("bomb-of-hard-links", "200 times", hard_links),
    ("bomb-of-zeros", "200 times.*'zeros' repeats.*clear its output", lambda: zeros(130 * MIB)),
    ("bomb-of-gzip-members", "200 times", snowball),
]
HOSTILE = [
    pytest.param(reason, make, id=name)
    for name, reason, make in [*ESCAPES, *KINDS, *COLLISIONS, *NAMES, *HEADERS, *STREAMS]
]


def tree(top: Path) -> dict[str, object]:
    """Everything below `top`: its kind and bytes."""
    return {
        str(path.relative_to(top)): (
            path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes()
        )
        for path in top.rglob("*")
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A student's folder, with neighbours that an archive might want to reach."""
    home = tmp_path / "outer" / "home"
    home.mkdir(parents=True)
    (home / "mine.txt").write_text("mine")
    (tmp_path / "outer" / "evil").write_text("untouched")
    return home


@pytest.mark.parametrize(("reason", "make"), HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing_anywhere(
    reason: str, make: Callable[[], bytes], home: Path, tmp_path: Path
) -> None:
    archive = make()
    before = tree(tmp_path)

    with pytest.raises(BadArchive, match=reason) as inspected:
        inspect(io.BytesIO(archive))
    with pytest.raises(BadArchive, match=reason) as unpacked:
        unpack(io.BytesIO(archive), home / "ps1")

    assert tree(tmp_path) == before
    assert str(inspected.value) == str(unpacked.value)
    assert len(str(inspected.value)) < 300
    assert str(inspected.value).isprintable()


def test_an_archive_cut_anywhere_is_refused(home: Path) -> None:
    archive = packed(("p1.ipynb", b"{}"), ("data", None), ("data/é", bytes(range(256)) * 3))

    for length in range(len(archive)):
        with pytest.raises(BadArchive, match=r"incomplete|not a tar"):
            inspect(io.BytesIO(archive[:length]))
        with pytest.raises(BadArchive):
            unpack(io.BytesIO(archive[:length]), home / "ps1")
    assert tree(home) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65_535, 65_536, 65_537, 131_072, 200_000])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_an_archive_without_its_last_byte_is_refused_whatever_its_size(
    size: int, level: int
) -> None:
    content = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    archive = gzip.compress(member(b"a", content) + END, level)

    assert inspect(io.BytesIO(archive)).expanded_size == size
    with pytest.raises(BadArchive, match="incomplete"):
        inspect(io.BytesIO(archive[:-1]))


VALID = packed(
    ("p1.ipynb", b'{"cells": []}'), ("sub", None), ("sub/é.ipynb", b"x"), ("timestamp.txt", b"now")
)
PLAIN = gzip.decompress(VALID)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), inside=st.booleans())
def test_a_changed_archive_is_refused_or_understood_and_never_crashes(
    data: st.DataObject, inside: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    changed = bytearray(PLAIN[:6144] if inside else VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed) - 1))
        stop = data.draw(st.integers(start, min(len(changed), start + 8)))
        changed[start:stop] = data.draw(st.binary(max_size=stop - start if inside else 8))
        changed = changed or bytearray(1)
    archive = gzip.compress(changed + END, 1) if inside else bytes(changed)

    check_refused_or_understood(archive, tmp_path_factory.mktemp("home"))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_header_with_any_field_is_refused_or_understood(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.binary(max_size=100) | st.text(max_size=25).map(str.encode))
    body = data.draw(st.binary(max_size=600))
    kind = data.draw(
        st.sampled_from([b"0", b"\0", b"5", b"x", b"g", b"L"]) | st.binary(min_size=1, max_size=1)
    )
    size = data.draw(st.just(len(body)) | st.binary(max_size=12))
    one = member(name, body, kind=kind, size=size, mode=data.draw(st.integers(0, 0o7777777)))

    check_refused_or_understood(tgz(one, member(b"a")), tmp_path_factory.mktemp("home"))


def check_refused_or_understood(archive: bytes, home: Path) -> None:
    try:
        contents = inspect(io.BytesIO(archive))
    except BadArchive:
        with pytest.raises(BadArchive):
            unpack(io.BytesIO(archive), home / "ps1")
        assert tree(home) == {}
    else:
        assert isinstance(contents, Contents)
        assert unpack(io.BytesIO(archive), home / "ps1") == contents
        assert set(os.listdir(home)) == {"ps1"}


SMALL = [
    ("entries", ArchiveLimits(entries=3), "more than 3 files and folders"),
    ("expanded", ArchiveLimits(expanded_size=4096), "MiB"),
    ("ratio", ArchiveLimits(ratio=2, ratio_floor=1000), "2 times"),
    ("depth", ArchiveLimits(depth=1), "1 folders deep"),
    ("name", ArchiveLimits(name_length=5), "5 bytes"),
    ("path", ArchiveLimits(path_length=9), "9 bytes"),
    ("paths", ArchiveLimits(all_paths_length=20), "altogether"),
]


@pytest.mark.parametrize(
    ("limits", "reason"), [pytest.param(limits, why, id=name) for name, limits, why in SMALL]
)
def test_each_limit_can_be_set(limits: ArchiveLimits, reason: str, home: Path) -> None:
    assert inspect(io.BytesIO(VALID)).entries == 4

    with pytest.raises(BadArchive, match=reason):
        inspect(io.BytesIO(VALID), limits)
    with pytest.raises(BadArchive, match=reason):
        unpack(io.BytesIO(VALID), home / "ps1", limits)


JUST_ENOUGH = {
    "entries": 4,
    "depth": len(["sub", "é.ipynb"]),
    "name_length": len("timestamp.txt"),
    "path_length": len("timestamp.txt"),
    "all_paths_length": len("p1.ipynb" + "sub" + "timestamp.txt") + len("sub/é.ipynb".encode()),
    "expanded_size": len(PLAIN),
}


@pytest.mark.parametrize(("name", "most"), JUST_ENOUGH.items(), ids=JUST_ENOUGH)
def test_what_just_fits_is_accepted_and_one_less_is_too_little(name: str, most: int) -> None:
    assert inspect(io.BytesIO(VALID), ArchiveLimits(**{name: most})).entries == 4

    with pytest.raises(BadArchive):
        inspect(io.BytesIO(VALID), ArchiveLimits(**{name: most - 1}))


def test_just_within_the_limits_is_accepted(home: Path) -> None:
    longest = "/".join(["ü" * 127 + "x"] * 8)[:-1]
    assert len(longest.encode()) <= 2048
    archive = packed(
        (longest, b""), ("a/" * 63 + "b", b""), *((f"{n}.txt", b"") for n in range(9_928))
    )

    assert inspect(io.BytesIO(archive)).entries == 9_930
    assert unpack(io.BytesIO(archive), home / "ps1").entries == 9_930


def test_the_usual_limits_are_the_same_in_every_version() -> None:
    """A plugin of another version unpacks what this service accepts, and the other way round."""
    assert ArchiveLimits() == ArchiveLimits(
        entries=10_000,
        expanded_size=10_737_418_240,
        ratio=200,
        ratio_floor=100_000_000,
        depth=64,
        name_length=255,
        path_length=2048,
        all_paths_length=2_097_152,
    )


def test_a_ratio_counts_what_is_expanded_and_not_what_comes_later() -> None:
    """Otherwise bytes that do not shrink could follow a bomb and excuse it."""
    limits = ArchiveLimits(ratio_floor=10 * MIB)
    excuse = random.Random(1).randbytes(120_000)
    bomb = tgz(member(b"zeros", bytes(13 * MIB)), member(b"excuse", excuse))
    assert 200 * len(bomb) > 13 * MIB

    with pytest.raises(BadArchive, match="200 times"):
        inspect(io.BytesIO(bomb), limits)


def test_the_ratio_counts_only_what_is_beyond_its_floor() -> None:
    """So bytes that repeat themselves do not spoil those of other files."""
    size = 3 * MIB
    archive = tgz(member(b"zeros", bytes(size)))
    beyond = 200 * len(archive)

    for floor in (0, size - beyond - 10_000):
        with pytest.raises(BadArchive, match="200 times"):
            inspect(io.BytesIO(archive), ArchiveLimits(ratio_floor=floor))
    assert inspect(io.BytesIO(archive), ArchiveLimits(ratio_floor=size - beyond + 10_000))


def test_the_most_repetitive_file_is_named_wherever_it_is() -> None:
    """Not the one that happens to be the last drop."""
    files = [
        member(b"some.ipynb", b"a" * MIB),
        member(b"sub/most.ipynb", b"b" * (12 * MIB)),
        *(member(b"%d.txt" % number, b"c" * MIB) for number in range(10)),
    ]
    limits = ArchiveLimits(ratio_floor=12_000_000)

    with pytest.raises(BadArchive, match=r"because 'sub/most.ipynb' repeats itself; clear its out"):
        inspect(io.BytesIO(tgz(*files)), limits)
    with pytest.raises(BadArchive, match=r"'sub/most.ipynb'"):
        inspect(io.BytesIO(tgz(*reversed(files))), limits)


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 2])
def test_a_gzip_member_may_end_where_a_piece_was_read(length: int) -> None:
    first = padded_gzip(PLAIN[:1024], length)

    contents = inspect(io.BytesIO(first + gzip.compress(PLAIN[1024:])))

    assert len(first) == length
    assert contents == inspect(io.BytesIO(VALID))


def padded_gzip(content: bytes, size: int) -> bytes:
    """A gzip member of just that size: the comment in its header fills up."""
    packed = gzip.compress(content, mtime=0)
    comment = b"x" * (size - len(packed) - 1) + b"\0"
    return packed[:3] + b"\x10" + packed[4:10] + comment + packed[10:]


def test_an_archive_of_100000_gzip_members_is_accepted_and_one_more_is_not() -> None:
    empty = gzip.compress(b"", mtime=0)
    most = VALID + empty * 99_999

    assert inspect(io.BytesIO(most)).entries == 4
    with pytest.raises(BadArchive, match="pieces"):
        inspect(io.BytesIO(most + empty))


def test_folders_that_only_occur_in_paths_count_as_entries() -> None:
    paths = [b"/".join([b"%d" % number, *[b"d"] * 40, b"a"]) for number in range(240)]

    assert inspect(io.BytesIO(tgz(*map(member, paths[:230])))).entries == 230
    with pytest.raises(BadArchive, match="files and folders"):
        inspect(io.BytesIO(tgz(*map(member, paths))))


def test_a_long_name_is_cut_in_a_message() -> None:
    with pytest.raises(BadArchive) as refusal:
        inspect(io.BytesIO(tgz(pax(path=b"x" * 300), member(b"a"))))

    assert str(refusal.value).startswith(f"'{'x' * 76}... cannot be sent")


def test_what_a_course_may_hold_may_be_all_the_same(home: Path) -> None:
    """nbgrader's max_dir_size: 100,000,000 bytes, in one file or in as many as there may be."""
    one = zeros(95 * MIB)
    many = packed(*((f"{number}.txt", bytes(10_000)) for number in range(10_000)))

    assert inspect(io.BytesIO(one)).expanded_size == 95 * MIB
    assert inspect(io.BytesIO(many)).expanded_size == 100_000_000


UNUSUAL_NAMES = [
    "p1.ipynb",
    ".hidden",
    ".ipynb_checkpoints/p1-checkpoint.ipynb",
    "name with  spaces .ipynb",
    " ",
    "🎓👩‍👩‍👧.ipynb",
    "žluťoučký.ipynb",
    "دفتر\u200cچه.ipynb",
    "\u200fמחברת 1.ipynb",
    "日本語/ファイル.csv",
    "a+b (x) [1].ipynb",
    'it\'s "quoted" & <b>.txt',
    "-rf",
    "~",
    "...",
    "..a",
    "a..",
    "%2e%2e",
    "$HOME",
    "C:",
    "con",
    "a" * 255,
    "/".join(["d" * 99] * 3),
    "m" * 99 + "/" + "n" * 150,
]


def test_what_is_packed_comes_out_again(home: Path) -> None:
    big = random.Random(7).randbytes(3 * MIB + 17)
    members = [(name, name.encode()) for name in UNUSUAL_NAMES]
    empty = [("empty", b""), ("folder", None), ("folder/inner", None), (".git", None)]
    archive = packed(*members, *empty, ("big.bin", big))

    contents = unpack(io.BytesIO(archive), home / "ps1")

    assert contents == inspect(io.BytesIO(archive))
    assert contents.entries == len(members) + len(empty) + 1
    assert contents.expanded_size == sum(len(content) for _, content in members) + len(big)
    found = tree(home / "ps1")
    for name, content in [*members, *empty, ("big.bin", big)]:
        assert found[name] == (True if content is None else content or False or b"")
    assert (home / "ps1" / "empty").read_bytes() == b""
    assert os.listdir(home / "ps1" / "folder" / "inner") == []


@given(
    tops=st.sets(
        st.text(
            st.characters(exclude_categories=["C", "Z"], exclude_characters="/\\"),
            min_size=1,
            max_size=20,
        ).filter(lambda name: name not in {".", ".."}),
        max_size=6,
    ),
    content=st.binary(max_size=2000),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_ordinary_name_and_content_survives_the_trip(
    tops: set[str], content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    once = {unicodedata.normalize("NFKC", name).casefold(): name for name in sorted(tops)}
    home = tmp_path_factory.mktemp("home")

    unpack(io.BytesIO(packed(*((name, content) for name in once.values()))), home / "ps1")

    assert {path.name: path.read_bytes() for path in (home / "ps1").iterdir()} == dict.fromkeys(
        once.values(), content
    )


def test_an_empty_folder_is_an_archive_too(home: Path) -> None:
    assert unpack(io.BytesIO(packed()), home / "ps1") == Contents(0, 0, (), None)

    assert tree(home / "ps1") == {}


def test_files_come_from_disk_with_their_executable_bit(home: Path) -> None:
    script, secret = home / "run.sh", home / "secret.txt"
    script.write_bytes(b"#!/bin/sh\n")
    script.chmod(0o700)
    secret.write_bytes(b"42")
    secret.chmod(0o400)

    unpack(io.BytesIO(packed(("run.sh", script), ("secret.txt", secret))), home / "ps1")

    assert modes(home / "ps1") == {"run.sh": 0o755, "secret.txt": 0o644}
    assert (home / "ps1" / "run.sh").read_bytes() == b"#!/bin/sh\n"


def modes(top: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in top.rglob("*")}


def test_modes_in_an_archive_count_for_nothing_but_the_executable_bit(home: Path) -> None:
    archive = tgz(
        member(b"setuid", b"x", mode=0o6755),
        member(b"open", b"x", mode=0o666),
        member(b"shut", b"x", mode=0),
        header(b"shared", kind=b"5", mode=0o2777),
        header(b"locked", kind=b"5", mode=0),
        member(b"locked/in", b"x"),
    )

    unpack(io.BytesIO(archive), home / "ps1")

    assert modes(home) == {
        "mine.txt": 0o644, "ps1": 0o755, "setuid": 0o755, "open": 0o644, "shut": 0o644,
        "shared": 0o755, "locked": 0o755, "in": 0o644,
    }  # fmt: skip


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@pytest.mark.parametrize(("mask", "folders", "files"), [(0o027, 0o750, 0o640), (0, 0o755, 0o644)])
def test_the_umask_is_obeyed_also_by_the_folder_itself(
    mask: int, folders: int, files: int, home: Path
) -> None:
    archive = packed(("a/b/c", b""))

    with umask(mask):
        unpack(io.BytesIO(archive), home / "ps1", extra={"d/e": b""})

    assert modes(home / "ps1") == dict.fromkeys("abd", folders) | dict.fromkeys("ce", files)
    assert stat.S_IMODE((home / "ps1").stat().st_mode) == folders


def test_the_same_members_give_the_same_bytes(home: Path) -> None:
    source = home / "p1.ipynb"
    source.write_bytes(b"{}" * 1000)
    first = packed(("p1.ipynb", source), ("d", None), ("é", b"x"))
    os.utime(source, (1, 1))

    assert packed(("p1.ipynb", source), ("d", None), ("é", b"x")) == first
    assert packed(("p1.ipynb", b"{}" * 1000), ("d", None), ("é", b"x")) == first
    assert packed(("d", None), ("p1.ipynb", source), ("é", b"x")) != first


def test_nothing_about_the_owner_travels(home: Path) -> None:
    source = home / "p1.ipynb"
    source.write_bytes(b"{}")

    archive = packed(("p1.ipynb", source))

    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (found,) = tar.getmembers()
    assert (found.uid, found.gid, found.uname, found.gname, found.mtime) == (0, 0, "", "", 0)
    assert archive[4:8] == bytes(4)
    assert not archive[3], "no file name in the gzip header"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\\b", "backslash"),
        ("../a", "part"),
        ("/a", "slash"),
        ("a\nb", "control"),
        ("\udce9.ipynb", "UTF-8"),
        ("P1.IPYNB", "take the two for one"),
        ("p1.ipynb", "twice"),
        ("p1.ipynb/x", "at once"),
        ("a" * 256, "255 bytes"),
    ],
)
def test_a_name_that_would_be_refused_is_not_even_packed(name: str, reason: str) -> None:
    with pytest.raises(BadArchive, match=reason):
        packed(("p1.ipynb", b""), (name, b""))


class Disturbing(io.BytesIO):
    """A target; while bytes arrive there, something happens elsewhere."""

    def __init__(self, disturb: Callable[[], object]) -> None:
        super().__init__()
        self.disturb = disturb

    def write(self, chunk: object) -> int:
        if self.tell() > 1000:
            self.disturb()
        return super().write(chunk)  # type: ignore[arg-type]


@pytest.fixture
def log(home: Path) -> Path:
    (home / "log.txt").write_bytes(random.Random(1).randbytes(MIB))
    return home / "log.txt"


def test_a_file_that_shrinks_while_it_is_packed_makes_no_archive(log: Path) -> None:
    target = Disturbing(lambda: os.truncate(log, 0))

    with pytest.raises(BadArchive, match=r"'log.txt' became shorter"):
        pack([Member("log.txt", log)], target)

    with pytest.raises(BadArchive, match="incomplete"):
        inspect(io.BytesIO(target.getvalue()))


def test_a_file_that_grows_is_packed_as_long_as_it_was(log: Path) -> None:
    target = Disturbing(lambda: os.truncate(log, 2 * MIB))

    pack([Member("log.txt", log)], target)

    assert log.stat().st_size == 2 * MIB
    assert inspect(io.BytesIO(target.getvalue())).expanded_size == MIB


class UnreadableFile(io.FileIO):
    """On a disk that gives the first piece of a file and no other."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


class Unreadable(PosixPath):
    def open(self, *_: object) -> UnreadableFile:  # type: ignore[override]
        return UnreadableFile(self)


def test_a_file_that_the_disk_does_not_give_makes_no_archive_and_is_named(log: Path) -> None:
    with pytest.raises(BadArchive, match=r"'log.txt' could not be read \(Input/output error\)"):
        pack([Member("log.txt", Unreadable(log))], io.BytesIO())


def test_only_files_and_folders_are_packed(home: Path) -> None:
    os.mkfifo(home / "pipe")

    with pytest.raises(BadArchive, match="'pipe' cannot be sent: it is a named pipe"):
        packed(("pipe", home / "pipe"))
    with pytest.raises(FileNotFoundError):
        packed(("gone", home / "gone"))


def test_inspecting_tells_notebooks_and_timestamp() -> None:
    archive = packed(
        ("z.ipynb", b"{}"), ("a.ipynb", b"{}"), ("sub/b.ipynb", b"{}"), ("folder.ipynb", None),
        ("a.IPYNB.txt", b""), (".ipynb", b""), ("timestamp.txt", b"2025-01-31 12:00:00.5 UTC\n"),
        ("sub/timestamp.txt", b"another"),
    )  # fmt: skip

    contents = inspect(io.BytesIO(archive))

    assert contents == Contents(
        8, 39, ("a.ipynb", "sub/b.ipynb", "z.ipynb"), "2025-01-31 12:00:00.5 UTC"
    )


@pytest.mark.parametrize("text", [b"x" * 101, b"\xff", b"a\0b", b"two\nlines"])
def test_a_timestamp_that_is_no_short_line_is_none(text: bytes, home: Path) -> None:
    archive = packed(("timestamp.txt", text))

    assert unpack(io.BytesIO(archive), home / "ps1").timestamp is None
    assert (home / "ps1" / "timestamp.txt").read_bytes() == text


@pytest.mark.parametrize("what", ["file", "folder", "empty folder", "dangling link"])
def test_what_is_at_the_destination_is_not_touched(what: str, home: Path) -> None:
    destination = home / "ps1"
    if what == "file":
        destination.write_text("old")
    elif what == "dangling link":
        destination.symlink_to("nowhere")
    else:
        destination.mkdir()
        if what == "folder":
            (destination / "p1.ipynb").write_text("old")
    before = tree(home)

    with pytest.raises(FileExistsError, match="ps1"):
        unpack(io.BytesIO(VALID), destination)

    assert tree(home) == before


def test_what_comes_to_the_destination_meanwhile_is_not_touched(home: Path) -> None:
    class Meanwhile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            (home / "ps1").mkdir(exist_ok=True)
            (home / "ps1" / "theirs").write_text("theirs")
            return super().read(size)

    with pytest.raises(FileExistsError, match="ps1"):
        unpack(Meanwhile(VALID), home / "ps1")

    assert tree(home) == {"mine.txt": b"mine", "ps1": True, "ps1/theirs": b"theirs"}


def test_nothing_is_at_the_destination_before_all_is_there(home: Path) -> None:
    seen = []

    class Watching(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            seen.append((home / "ps1").exists())
            return super().read(size)

    unpack(Watching(VALID), home / "ps1")

    assert seen
    assert not any(seen)
    assert set(os.listdir(home)) == {"mine.txt", "ps1"}


@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_an_existing_file_is_never_opened_for_writing(link: bool, home: Path) -> None:
    class Planting(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            for folder in home.glob(".nbexchange-*/unpacked"):
                if link and not (folder / "p1.ipynb").is_symlink():
                    (folder / "p1.ipynb").symlink_to(home / "mine.txt")
                elif not link:
                    (folder / "p1.ipynb").write_text("another name on a forgetful disk")
            return super().read(size)

    with pytest.raises(BadArchive, match=r"'p1.ipynb' cannot be sent: this disk takes"):
        unpack(Planting(VALID), home / "ps1")

    assert tree(home) == {"mine.txt": b"mine"}


def test_a_folder_that_is_not_there_is_not_made_up(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(io.BytesIO(VALID), home / "nowhere" / "ps1")


EXTRA = [
    ("new", "receipt.json", lambda: packed(("a", b"theirs"))),
    ("instead-of-a-file", "receipt.json", lambda: packed(("receipt.json", b"theirs"))),
    ("instead-of-a-folder", "receipt.json", lambda: packed(("receipt.json/x/y", b"theirs"))),
    ("in-a-new-folder", "our/own/receipt.json", lambda: packed(("a", b"theirs"))),
    ("in-their-folder", "our/receipt.json", lambda: packed(("our/other", b"theirs"))),
    ("in-place-of-their-file", "our/own/receipt.json", lambda: packed(("our", b"theirs"))),
    ("in-place-of-an-executable", "our", lambda: tgz(member(b"our", b"x", mode=0o755))),
]


@pytest.mark.parametrize(
    ("name", "make"), [pytest.param(name, make, id=label) for label, name, make in EXTRA]
)
def test_extra_files_win(name: str, make: Callable[[], bytes], home: Path) -> None:
    unpack(io.BytesIO(make()), home / "ps1", extra={name: b"ours"})

    assert (home / "ps1" / name).read_bytes() == b"ours"
    assert stat.S_IMODE((home / "ps1" / name).stat().st_mode) == 0o644


def test_an_extra_file_stays_inside_too(home: Path) -> None:
    before = tree(home)

    with pytest.raises(BadArchive, match="part"):
        unpack(io.BytesIO(VALID), home / "ps1", extra={"../evil": b""})

    assert tree(home) == before


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_of_the_disk_is_not_blamed_on_the_archive(after: int, home: Path) -> None:
    class Failing(io.BytesIO):
        left = after

        def read(self, size: int | None = -1) -> bytes:
            if not self.left:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.left -= 1
            return super().read(size)

    archive = packed(("big", random.Random(1).randbytes(MIB)))
    before = tree(home)

    with pytest.raises(OSError, match="Input/output error"):
        inspect(Failing(archive))
    with pytest.raises(OSError, match="Input/output error"):
        unpack(Failing(archive), home / "ps1")
    assert tree(home) == before


def test_a_full_disk_leaves_nothing(home: Path) -> None:
    archive = packed(("a", b"x"), ("big", random.Random(1).randbytes(MIB)))
    before = tree(home)

    with file_size_limit(100_000), pytest.raises(OSError, match="File too large"):
        unpack(io.BytesIO(archive), home / "ps1")

    assert tree(home) == before


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_slow_file_that_gives_a_byte_at_a_time_is_read_all_the_same() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size if size == 2 else 1)

    assert inspect(Slow(VALID)) == inspect(io.BytesIO(VALID))


def course(top: Path) -> Path:
    """A folder such as students have."""
    long = "/".join(["long folder " + "x" * 40] * 5) + "/" + "y" * 120 + ".txt"
    names = ["p1.ipynb", ".hidden", "empty", "häuser/ü 🎓.csv", "a+b (x) [1].txt", long]
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("" if name == "empty" else name)
    (top / "nothing inside").mkdir()
    return top


@pytest.mark.parametrize("form", ["gnu", "posix", "oldgnu", "ustar", "v7"])
@pytest.mark.parametrize("dot", [False, True], ids=["names", "dot"])
def test_archives_of_gnu_tar_are_understood(form: str, dot: bool, home: Path) -> None:
    source = home / "source"
    source.mkdir()
    course(source)
    if form in {"ustar", "v7"}:  # they cannot hold such long names
        (source / "long folder xxx").mkdir()
        subprocess.run("rm -r long*x", shell=True, cwd=source, check=True)
    members = ["."] if dot else sorted(os.listdir(source))

    subprocess.run(
        ["tar", "czf", "../ps1.tgz", f"--format={form}", "--", *members], cwd=source, check=True
    )
    with (home / "ps1.tgz").open("rb") as archive:
        contents = unpack(archive, home / "ps1")

    assert tree(home / "ps1") == tree(source)
    assert contents.entries == len(tree(source))


@pytest.mark.parametrize("level", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_pythons_tarfile_are_understood(level: int, home: Path) -> None:
    source = home / "source"
    source.mkdir()
    course(source)
    if level == tarfile.USTAR_FORMAT:
        subprocess.run("rm -r long*", shell=True, cwd=source, check=True)

    with tarfile.open(home / "ps1.tgz", "w:gz", format=level) as tar:
        tar.add(source, arcname=".")
    with (home / "ps1.tgz").open("rb") as archive:
        unpack(archive, home / "ps1")

    assert tree(home / "ps1") == tree(source)


HARMLESS = [
    ("git-comment", lambda: tgz(pax(b"g", comment=b"0" * 40), member(b"a"))),
    ("comment-between", lambda: tgz(pax(path=b"a"), pax(b"g", comment=b"x"), member(b"b"))),
    ("times-and-attributes", lambda: tgz(pax(mtime=b"1.5", uid=b"-1"), member(b"a"))),
    ("pax-size", lambda: tgz(pax(size=b"3"), header(b"a"), padded(b"abc"))),
    ("pax-empty", lambda: tgz(raw_pax(b""))),
    ("pax-longest", lambda: tgz(raw_pax(pax_record("comment", b"x" * 65_521)))),
    ("latin-1-owner", lambda: tgz(member(b"a", uname=b"Ren\xe9"))),
    ("v7-file", lambda: tgz(member(b"a", kind=b"\0", magic=b""))),
    ("v7-folder", lambda: tgz(member(b"b/", kind=b"\0", magic=b""), member(b"b/a"))),
    ("folder-twice", lambda: tgz(folder(b"b/"), member(b"b/a"), folder(b"b"))),
    ("dots-in-names", lambda: tgz(folder(b"."), member(b"./a"), folder(b"./b/"))),
    ("much-padding", lambda: tgz(member(b"a"), END * 500)),
    ("gzip-members", lambda: gzip.compress(member(b"a", b"x")) + gzip.compress(END)),
    ("empty-gzip-member", lambda: tgz(member(b"a")) + gzip.compress(b"")),
    ("gzip-file-name", lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"n\0" + tgz(member(b"a"))[10:]),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in HARMLESS])
def test_what_looks_odd_and_does_no_harm_is_accepted(make: Callable[[], bytes], home: Path) -> None:
    contents = unpack(io.BytesIO(make()), home / "ps1")

    assert (home / "ps1").is_dir()
    assert contents.entries >= 1
    assert {path.name for path in (home / "ps1").rglob("*")} <= {"a", "b"}


COPY = member(b"d/a.ipynb", b"work"), link(b"b.ipynb", b"d/a.ipynb", b"1")
COPIES = [
    ("plain", lambda: tgz(*COPY)),
    ("of-a-copy", lambda: tgz(*COPY, link(b"c.ipynb", b"b.ipynb", b"1"))),
    ("after-a-dot", lambda: tgz(member(b"./a", b"work"), link(b"./b.ipynb", b"./a", b"1"))),
    ("by-pax", lambda: tgz(COPY[0], pax(linkpath=b"d/a.ipynb"), link(b"b.ipynb", b"x", b"1"))),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in COPIES])
def test_a_hard_link_to_an_earlier_file_is_a_copy_of_it(
    make: Callable[[], bytes], home: Path
) -> None:
    found = inspect(io.BytesIO(make()))

    assert unpack(io.BytesIO(make()), home / "ps1") == found
    files = [path for path in (home / "ps1").rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in files} == {b"work"}
    assert {path.stat().st_nlink for path in files} == {1}
    assert "b.ipynb" in found.notebooks
    assert (found.entries, found.expanded_size) == (len(files), 4 * len(files))


def test_copies_count_as_what_they_take_on_the_disk(home: Path) -> None:
    archive = tgz(member(b"a", bytes(600)), link(b"b", b"a", b"1"))

    assert inspect(io.BytesIO(archive), ArchiveLimits(expanded_size=4_000)).expanded_size == 1_200
    with pytest.raises(BadArchive, match="holds more than"):
        inspect(
            io.BytesIO(archive), ArchiveLimits(expanded_size=3_000)
        )  # with headers, 2,560 without b
    with pytest.raises(BadArchive, match="holds more than"):
        unpack(io.BytesIO(archive), home / "ps1", ArchiveLimits(expanded_size=3_000))


STAMPS = [
    ("twice", [member(b"timestamp.txt", b"old"), member(b"timestamp.txt", b"new")], b"new", "new"),
    ("by-dot", [member(b"timestamp.txt", b"o"), member(b"./timestamp.txt", b"n")], b"n", "n"),
    (
        "long-at-last",
        [member(b"timestamp.txt", b"old"), member(b"timestamp.txt", b"x" * 200)],
        b"x" * 200,
        None,
    ),
    (
        "linked-at-last",
        [
            member(b"timestamp.txt", b"old"),
            member(b"a", b"content"),
            link(b"timestamp.txt", b"a", b"1"),
        ],
        b"content",
        None,
    ),
    (
        "linked-to",
        [
            member(b"timestamp.txt", b"old"),
            link(b"a", b"timestamp.txt", b"1"),
            member(b"timestamp.txt", b"new"),
        ],
        b"new",
        "new",
    ),
]


@pytest.mark.parametrize(
    ("members", "content", "timestamp"), [pytest.param(*case, id=name) for name, *case in STAMPS]
)
def test_of_several_timestamps_at_the_top_the_last_one_counts(
    members: list[bytes], content: bytes, timestamp: str | None, home: Path
) -> None:
    archive = tgz(*members)

    found = inspect(io.BytesIO(archive))

    assert found.timestamp == timestamp
    assert unpack(io.BytesIO(archive), home / "ps1") == found
    assert (home / "ps1" / "timestamp.txt").read_bytes() == content


def test_a_timestamp_is_not_packed_twice() -> None:
    with pytest.raises(BadArchive, match="twice"):
        packed(("timestamp.txt", b"1"), ("timestamp.txt", b"2"))


def test_the_same_archive_in_many_gzip_members_holds_the_same() -> None:
    pieces = [PLAIN[start : start + 100] for start in range(0, len(PLAIN), 100)]

    assert inspect(io.BytesIO(b"".join(map(gzip.compress, pieces)))) == inspect(io.BytesIO(VALID))


def test_inspecting_starts_where_the_file_stands() -> None:
    file = io.BytesIO(b"before" + VALID)
    file.seek(6)

    assert inspect(file).entries == 4


@pytest.mark.parametrize("what", ["a large file", "a bomb", "a huge header"])
def test_memory_does_not_grow_with_the_archive(what: str, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(HEAVY[what]())
    limits = ArchiveLimits(ratio=2000)

    tracemalloc.start()
    with path.open("rb") as file:
        if what == "a huge header":
            with pytest.raises(BadArchive):
                inspect(file, limits)
        else:
            assert inspect(file, limits).expanded_size == 200 * MIB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * MIB


def stored(size: int) -> bytes:
    compress = zlib.compressobj(0, wbits=31)
    noise = random.Random(5).randbytes(MIB)
    pieces = [compress.compress(noise) for _ in range(size // MIB)]
    first = zlib.compressobj(0, wbits=31)
    start = first.compress(header(b"noise", size=size)) + first.flush()
    return b"".join([start, *pieces, compress.compress(END), compress.flush()])


HEAVY: dict[str, Callable[[], bytes]] = {
    "a large file": lambda: stored(200 * MIB),
    "a bomb": lambda: zeros(200 * MIB),
    "a huge header": lambda: tgz(header(kind=b"x", size=200 * MIB), bytes(200 * MIB)),
}


def test_packing_and_unpacking_a_large_file_take_little_memory(tmp_path: Path) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    source.write_bytes(random.Random(1).randbytes(MIB) * 40)

    tracemalloc.start()
    with archive.open("wb") as target:
        pack([Member("big", source)], target)
    with archive.open("rb") as file:
        unpack(file, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * MIB
    assert digest(tmp_path / "out" / "big") == digest(source)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
