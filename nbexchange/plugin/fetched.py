"""Which release somebody has in which folder, so that a newer one can be told.

Kept beside the cache of what was submitted, and not in the folder itself: there it would be
submitted, or released again. A folder is known by its number on the disk, which it keeps when it is
renamed, and else by its path: a home that was restored or moved has other numbers. What is not
known is not guessed: then nothing is told.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbexchange.plugin import files
from nbexchange.plugin.answers import Released

_MOST = 50  # folders of one assignment


@dataclass(frozen=True)
class Fetched:
    """One release in one folder."""

    sha256: str
    version: int | None
    path: str
    number: int

    def is_older_than(self, released: Released) -> bool:
        """Whether students get another content now. A release may repeat what was there before."""
        if self.sha256 == released.sha256 or self.version is None or released.version is None:
            return False
        return self.version < released.version


def remember(
    cache: Path, course_id: str, assignment_id: str, folder: Path, sha256: str, version: int | None
) -> None:
    """OSError when the disk does not want to."""
    new = Fetched(sha256, version, str(folder), folder.stat().st_ino)
    others = [one for one in _read(cache, course_id, assignment_id) if one.number != new.number]
    said = {
        "course_id": course_id,
        "assignment_id": assignment_id,
        "folders": [asdict(one) for one in [*others, new][-_MOST:]],
    }
    text = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
    files.write_whole(_place(cache, course_id, assignment_id), text.encode())


def recall(cache: Path, course_id: str, assignment_id: str, folder: Path) -> Fetched | None:
    """What was fetched into this folder, if that is known."""
    newest_first = list(_read(cache, course_id, assignment_id))[::-1]
    number = folder.stat().st_ino
    by_number = (one for one in newest_first if one.number == number)
    by_path = (one for one in newest_first if one.path == str(folder))
    return next(by_number, next(by_path, None))


def _place(cache: Path, course_id: str, assignment_id: str) -> Path:
    """Beside the cache. The names, which may be long, are no part of the path."""
    name = hashlib.sha256(json.dumps([course_id, assignment_id]).encode()).hexdigest()
    return cache.with_name("nbexchange_fetched") / f"{name}.json"


def _read(cache: Path, course_id: str, assignment_id: str) -> Iterator[Fetched]:
    """Oldest first; nothing of what somebody else has written there."""
    try:
        said: Any = json.loads(_place(cache, course_id, assignment_id).read_bytes())
        for one in said["folders"]:
            fetched = Fetched(**one)
            if isinstance(fetched.version, int | None):
                yield fetched
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return
