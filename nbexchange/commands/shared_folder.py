"""The layout of nbgrader's own exchange, a shared folder.

    <course>/outbound/<assignment>/                             a release
    <course>/inbound/<student>+<assignment>+<time>+<random>/    a submission
    <course>/feedback/<hash>.html                               for one notebook of one submission

The hash is made from the submission's secret and the notebook's name. Submissions of older
nbgrader versions have no secret. Then the hash is made from the notebook and the names of its
course, assignment and student, or, in still older versions, from the notebook alone.
"""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path

OUTBOUND, INBOUND, FEEDBACK = "outbound", "inbound", "feedback"
TIMESTAMP = "timestamp.txt"
SECRET = "submission_secret.txt"  # noqa: S105 (the name of a file)
RECEIPT = "submission_receipt.json"

ARCHIVES = "archives"
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
FORMAT = "nbexchange export 1"
"""Files that `nbexchange export` adds, and the first value of the manifest."""

_LONGEST = 80
"""Bytes of a name: a folder name of two names, a time and a random part has at most 255."""
_CHUNK = 1024 * 1024


def feedback_names(
    folder: Path, course_id: str, assignment_id: str, student: str, timestamp: str, notebook_id: str
) -> list[str]:
    """The names that nbgrader may have given the feedback on a notebook, the likeliest first."""
    secret = folder / SECRET
    if secret.is_file() and secret.stat().st_size:
        return [f"{_hashed(secret, notebook_id)}.html"]
    notebook = folder / f"{notebook_id}.ipynb"
    if not notebook.is_file():
        return []
    names = "+".join((course_id, assignment_id, notebook_id, student, timestamp))
    return [f"{_hashed(notebook, names)}.html", f"{_hashed(notebook)}.html"]


def _hashed(path: Path, more: str = "") -> str:
    hasher = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    hasher.update(more.encode())
    return hasher.hexdigest()


class FolderNames:
    """Unique folder names that are valid on every disk. Most names stay unchanged."""

    def __init__(self) -> None:
        self._chosen: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        if name not in self._chosen:
            self._chosen[name] = self._choose(name)
        return self._chosen[name]

    @property
    def changed(self) -> dict[str, str]:
        return {name: folder for name, folder in self._chosen.items() if name != folder}

    def _choose(self, name: str) -> str:
        if _is_safe(name) and self._take(name):
            return name
        readable = "".join(char if _is_plain(char) else "_" for char in name)[: _LONGEST // 4]
        digest = hashlib.sha256(name.encode()).hexdigest()
        lengths = range(8, len(digest))
        return next(
            other for n in lengths if self._take(other := f"{readable or '_'}~{digest[:n]}")
        )

    def _take(self, name: str) -> bool:
        """Whether the name is unique, even on a disk that ignores case and normalises Unicode."""
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        is_free = folded not in self._taken
        self._taken.add(folded)
        return is_free


def _is_safe(name: str) -> bool:
    return (
        all(char.isprintable() and char not in '/\\+<>:"|?*' for char in name)
        and name == name.strip(" ").strip(".")
        and name == unicodedata.normalize("NFC", name)
        and 0 < len(name.encode()) <= _LONGEST
    )


def _is_plain(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char in "-_")
