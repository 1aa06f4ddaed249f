"""Archives that cost far more to check than to send."""

from __future__ import annotations

import functools
import gzip
import random
import tarfile

MB = 1_000_000
MEMBER = 20 * MB
"""Bytes that one gzip member expands to."""

NOISE = 2, 1000
"""So many bytes of noise in each so many, and it expands to a little less than 200 times its size,
which is the most that the service allows."""


def damaged_bomb(size: int) -> bytes:
    """Holds one file of about so many bytes, and lacks its end, which shows when all was read."""
    return gzip.compress(_header(size)) + _members(size)


def large(size: int) -> bytes:
    """The same, and nothing is wrong with it."""
    return damaged_bomb(size) + _end(size)


def zeros(size: int) -> bytes:
    """Holds nothing but zeros, and expands to a thousand times its size."""
    members = size // MEMBER * gzip.compress(bytes(MEMBER))
    return gzip.compress(_header(size)) + members + _end(size)


def _header(size: int) -> bytes:
    header = tarfile.TarInfo("p1.ipynb")
    header.size = _whole(size)
    return header.tobuf()


def _end(size: int) -> bytes:
    return gzip.compress(bytes(-_whole(size) % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE))


def _members(size: int) -> bytes:
    return size // MEMBER * _member()


def _whole(size: int) -> int:
    return size // MEMBER * MEMBER


@functools.cache
def _member() -> bytes:
    """Zeros with a little noise."""
    noise = random.Random(1)
    content = bytearray(MEMBER)
    length, step = NOISE
    for position in range(0, MEMBER - step, step):
        content[position : position + length] = noise.randbytes(length)
    return gzip.compress(bytes(content), 9)
