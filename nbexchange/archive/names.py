"""Names in archives: plain relative paths, no two of which are one on any disk."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from nbexchange.archive.limits import ArchiveLimits
from nbexchange.archive.refusals import Unsendable, quoted
from nbexchange.errors import BadArchive
from nbexchange.text import is_safe


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
        path = checked_name(name, self._limits)
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


def checked_name(name: str, limits: ArchiveLimits) -> str:
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
