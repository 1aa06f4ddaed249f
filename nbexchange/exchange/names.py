"""Names that become folders and files on somebody's disk."""

from __future__ import annotations

from nbexchange.errors import Malformed
from nbexchange.identity import LONGEST_NAME, is_name


def check_file_name(name: str, what: str) -> None:
    """Refuse a new name that could not be a folder or a file."""
    if not is_name(name) or name in (".", "..") or "/" in name or "\\" in name:
        raise Malformed(
            f"{what} becomes the name of a folder or file, so it cannot be {name!r}; "
            f"use 1 to {LONGEST_NAME} characters other than / and \\"
        )
