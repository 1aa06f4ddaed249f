"""Names that become folders and files on the machines of students and instructors."""

from __future__ import annotations

from nbexchange.errors import Malformed
from nbexchange.identity import LONGEST_NAME, is_name
from nbexchange.text import escaped

_HIDDEN = "\x1f"
"""Identities and requests cannot contain it: course ids must not have control characters."""


def hidden_course(code: str) -> str:
    """The id of the course that holds a hidden assignment (hiding.py)."""
    return _HIDDEN + code


def is_hidden(course_id: str) -> bool:
    return course_id.startswith(_HIDDEN)


def check_folder_name(name: str, what: str) -> None:
    """Refuse a new name that students cannot have as a folder. A leading dot hides a folder."""
    check_file_name(name, what)
    if name[0] == ".":
        raise Malformed(
            f"{what} becomes the name of a folder, so it must not begin with a dot. Rename "
            f"{escaped(repr(name), LONGEST_NAME)}."
        )


def check_student_name(name: str) -> None:
    """Refuse work that could not be collected: collect creates a folder with the student's name."""
    if name in (".", "..") or "/" in name:
        raise Malformed(
            f"Your user name {escaped(repr(name), LONGEST_NAME)} cannot be the name of a folder, "
            "so your work could not be collected. Ask your administrator for another user name."
        )


def check_file_name(name: str, what: str) -> None:
    """Refuse a new name that could not be a folder or a file."""
    if not is_name(name) or name in (".", "..") or "/" in name or "\\" in name:
        raise Malformed(
            f"{what} becomes the name of a folder or file, so it cannot be "
            f"{escaped(repr(name), LONGEST_NAME)}. Use 1 to {LONGEST_NAME} characters, without / "
            "and \\, control characters, and characters that change the direction of text."
        )
