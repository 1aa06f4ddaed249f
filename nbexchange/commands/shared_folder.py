"""nbgrader's own exchange, a folder that all share: where what lies in it.

    <course>/outbound/<assignment>/                             released
    <course>/inbound/<student>+<assignment>+<time>+<random>/    handed in
    <course>/feedback/<hash>.html                               for one notebook of one submission

The hash is of the submission's secret and the notebook's name. Submissions of old nbgraders have no
secret; then it is of the notebook and of the names of all that it belongs to, or, still older, of
the notebook alone.
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
"""What `nbexchange export` adds, and the first thing that the manifest says."""

_LONGEST = 80
"""Bytes of a name: two of them, a time and a random one make a name of at most 255."""
_CHUNK = 1024 * 1024


def feedback_names(
    folder: Path, course_id: str, assignment_id: str, student: str, timestamp: str, notebook_id: str
) -> list[str]:
    """What nbgrader may have called the feedback on a notebook, the likeliest first."""
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
    """Names as they can stand on every disk, one for each; most stay as they are."""

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
        """Whether no other is the same on a disk that forgets case and spelling."""
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
