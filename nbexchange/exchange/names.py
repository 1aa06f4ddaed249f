"""Names that become folders and files on somebody's disk."""

from __future__ import annotations

from nbexchange.errors import Malformed
from nbexchange.identity import LONGEST_NAME, is_name
from nbexchange.text import escaped

_HIDDEN = "\x1f"
"""Identities and requests cannot name it: ids of courses hold no control characters."""


def hidden_course(code: str) -> str:
    """The id of the course that holds what a purge has hidden (hiding.py)."""
    return _HIDDEN + code


def is_hidden(course_id: str) -> bool:
    return course_id.startswith(_HIDDEN)


def check_folder_name(name: str, what: str) -> None:
    """Refuse a new name of a folder that students would get. Hidden folders belong to programs."""
    check_file_name(name, what)
    if name[0] == ".":
        raise Malformed(
            f"{what} becomes the name of a folder, so it cannot begin with a dot, as "
            f"{escaped(repr(name), LONGEST_NAME)} does; rename it"
        )


def check_student_name(name: str) -> None:
    """Refuse work that could not be collected: its student's name is the name of a folder there."""
    if name in (".", "..") or "/" in name:
        raise Malformed(
            f"your user name {escaped(repr(name), LONGEST_NAME)} cannot be the name of a folder, "
            "so your work could not be collected; ask your administrator for another user name"
        )


def check_file_name(name: str, what: str) -> None:
    """Refuse a new name that could not be a folder or a file."""
    if not is_name(name) or name in (".", "..") or "/" in name or "\\" in name:
        raise Malformed(
            f"{what} becomes the name of a folder or file, so it cannot be "
            f"{escaped(repr(name), LONGEST_NAME)}; use 1 to {LONGEST_NAME} characters, without / "
            "and \\, control characters, and characters that change the direction of text"
        )
