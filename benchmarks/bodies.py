"""What travels: archives as a student's, of two notebooks and a data file.

The data does not compress, as pictures do not, so the size of an archive is what was asked for.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sizes import MB
from nbexchange.archive import Member, pack

_ROOM = 2_000  # for the notebooks and headers of an archive
_NOTEBOOK = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "execution_count": None,
                "metadata": {"nbgrader": {"grade_id": f"cell-{number}", "schema_version": 3}},
                "outputs": [],
                "source": f"def solution_{number}(x):\n    return x ** {number}\n",
            }
            for number in range(20)
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
).encode()


@dataclass(frozen=True)
class Body:
    """What to send: bytes that are in memory, or a file that the kernel sends."""

    content: bytes | Path
    size: int
    digest: str
    """The value of Content-Digest."""


def archive(size: int) -> Body:
    target = io.BytesIO()
    data = _noise(size - _ROOM)
    pack([*_notebooks(), Member("data.bin", data)], target)
    return body(target.getvalue())


def page(size: int) -> Body:
    """Feedback: text of that many bytes."""
    return body(base64.b64encode(_noise(size))[:size])


def body(content: bytes) -> Body:
    return Body(content, len(content), _field(hashlib.sha256(content)))


def archive_file(size: int, file: Path) -> Body:
    """An archive too large for memory. It is stored, not compressed, which takes a tenth of the
    time to make and is what gzip turns noise into anyway."""
    with (
        file.open("wb") as target,
        gzip.GzipFile("", "wb", 0, target, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", bufsize=MB) as tar,
    ):
        for member in _notebooks():
            assert isinstance(member.source, bytes)
            _add(tar, member.name, io.BytesIO(member.source), len(member.source))
        _add(tar, "data.bin", _Noise(), size - _ROOM)
    with file.open("rb") as made:
        return Body(file, file.stat().st_size, _field(hashlib.file_digest(made, "sha256")))


def _notebooks() -> Iterator[Member]:
    for name in ("p1.ipynb", "p2.ipynb"):
        yield Member(name, _NOTEBOOK)


def _add(tar: tarfile.TarFile, name: str, content: io.IOBase, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    tar.addfile(info, content)


class _Noise(io.RawIOBase):
    """The same megabyte for ever: gzip looks back 32 kB, so it never notices."""

    def __init__(self) -> None:
        self._noise = _noise(MB) * 2
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        start, size = self._position % MB, min(size, MB)
        self._position += size
        return self._noise[start : start + size]


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _field(hasher: hashlib._Hash) -> str:
    return f"sha-256=:{base64.b64encode(hasher.digest()).decode()}:"
