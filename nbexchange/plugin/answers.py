"""Parse the service's JSON answers into values of our own, or raise `ProtocolError`.

The server at the configured address may be something else altogether, or an older or newer
service. Only this module reads its JSON; all other modules work with these values. Their texts
contain no characters that a terminal would obey, and are truncated at the length of the longest
name or path.
"""

import base64
import binascii
import datetime
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nbexchange.text import escaped, is_safe

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC", re.ASCII)
LONGEST_NAME = 255  # bytes; the usual limit of file systems
_LONGEST_TEXT = 2048  # characters; the limit of a path in an archive, in bytes
_SHA256 = re.compile("[0-9a-f]{64}")

_Value = TypeVar("_Value")


class ProtocolError(ValueError):
    """The answer is not one of an exchange service; the message names the invalid part."""


@dataclass(frozen=True)
class Notebook:
    notebook_id: str
    has_feedback: bool
    feedback_sha256: str | None

    @classmethod
    def from_json(cls, fields: Any) -> "Notebook":
        return cls(
            notebook_id=_text(fields, "notebook_id"),
            has_feedback=bool(fields.get("has_exchange_feedback")),
            feedback_sha256=_or_none(_sha256, fields, "feedback_sha256"),
        )


@dataclass(frozen=True)
class Released:
    """An assignment as it is currently released."""

    course_id: str
    assignment_id: str
    notebooks: tuple[Notebook, ...]  # at the top level
    notebook_files: tuple[str, ...]  # all relative paths, including those in folders
    sha256: str | None = None
    version: int | None = None
    timestamp: str | None = None

    @classmethod
    def from_json(cls, fields: Any) -> "Released":
        return cls(
            course_id=_text(fields, "course_id"),
            assignment_id=_text(fields, "assignment_id"),
            notebooks=_notebooks(fields),
            notebook_files=tuple(sorted(map(_is_text, items(fields, "notebook_files")))),
            sha256=_or_none(_sha256, fields, "sha256"),
            version=_or_none(_number, fields, "version"),
            timestamp=_or_none(_timestamp, fields, "timestamp"),
        )


@dataclass(frozen=True)
class ListedSubmission:
    course_id: str
    assignment_id: str
    student: str
    submission_id: int | str
    timestamp: str
    path: str  # the service's own token for the archive
    sha256: str
    size: int
    notebooks: tuple[Notebook, ...]
    full_name: str | None = None
    email: str | None = None
    lms_user_id: str | None = None

    @classmethod
    def own(cls, fields: Any) -> "ListedSubmission":
        """Parse an item of the caller's own list, in which `student_id` is a database id."""
        return cls._from_json(fields, _text(fields, "student"))

    @classmethod
    def inbound(cls, fields: Any) -> "ListedSubmission":
        return cls._from_json(fields, _text(fields, "student_id"))

    @classmethod
    def _from_json(cls, fields: Any, student: str) -> "ListedSubmission":
        return cls(
            course_id=_text(fields, "course_id"),
            assignment_id=_text(fields, "assignment_id"),
            student=student,
            submission_id=_id(fields, "submission_id"),
            timestamp=_timestamp(fields, "timestamp"),
            path=_text(fields, "path"),
            sha256=_sha256(fields, "sha256"),
            size=_number(fields, "size"),
            notebooks=_notebooks(fields),
            full_name=_text_or_none(fields, "full_name"),
            email=_text_or_none(fields, "email"),
            lms_user_id=_text_or_none(fields, "lms_user_id"),
        )


@dataclass(frozen=True)
class Receipt:
    """The service has stored these bytes durably."""

    sha256: str
    size: int

    @classmethod
    def from_json(cls, fields: Any) -> "Receipt":
        return cls(sha256=_sha256(fields, "sha256"), size=_number(fields, "size"))


@dataclass(frozen=True)
class SubmitReceipt(Receipt):
    course_id: str
    assignment_id: str
    student: str
    submission_id: int | str
    timestamp: str

    @classmethod
    def from_json(cls, fields: Any) -> "SubmitReceipt":
        return cls(
            sha256=_sha256(fields, "sha256"),
            size=_number(fields, "size"),
            course_id=_text(fields, "course_id"),
            assignment_id=_text(fields, "assignment_id"),
            student=_text(fields, "student"),
            submission_id=_id(fields, "submission_id"),
            timestamp=_timestamp(fields, "timestamp"),
        )


@dataclass(frozen=True)
class ReleaseFeedbackReceipt(Receipt):
    submission_id: int | str

    @classmethod
    def from_json(cls, fields: Any) -> "ReleaseFeedbackReceipt":
        return cls(
            sha256=_sha256(fields, "sha256"),
            size=_number(fields, "size"),
            submission_id=_id(fields, "submission_id"),
        )


@dataclass(frozen=True)
class FetchedFeedback:
    notebook_id: str
    submission_timestamp: str
    content: bytes
    sha256: str

    @classmethod
    def from_json(cls, fields: Any) -> "FetchedFeedback":
        return cls(
            notebook_id=_text(fields, "notebook_id"),
            submission_timestamp=_timestamp(fields, "submission_timestamp"),
            content=_bytes(fields, "content"),
            sha256=_sha256(fields, "sha256"),
        )


class _EscapedText(str):
    """A text of the service, escaped for display. It is not the original name."""

    __slots__ = ()


def is_folder_name(name: str) -> bool:
    """Whether this is a single file name, and not a path to somewhere else."""
    separators = {os.sep, os.altsep or os.sep}
    return (
        name not in ("", ".", "..")
        and not isinstance(name, _EscapedText)
        and separators.isdisjoint(name)
        and is_safe(name)
        and _bytes_on_disk(name) <= LONGEST_NAME
    )


def _bytes_on_disk(name: str) -> float:
    try:
        return len(os.fsencode(name))
    except UnicodeEncodeError:  # a lone surrogate, from JSON
        return math.inf


def is_visible_name(name: str) -> bool:
    """Whether a user's folder may have this name, which another person chose.

    Hidden folders belong to programs, which may execute their contents.
    """
    return name[:1] != "." and is_folder_name(name)


def items(fields: Any, key: str) -> list[Any]:
    value = _get(fields, key)
    if not isinstance(value, list):
        raise ProtocolError(f"{key!r} is not a list")
    return value


def _get(fields: Any, key: str) -> Any:
    if not isinstance(fields, Mapping) or key not in fields:
        raise ProtocolError(f"{key!r} is missing")
    return fields[key]


def _text(fields: Any, key: str) -> str:
    return _is_text(_get(fields, key), key)


def _is_text(value: Any, key: str = "a name") -> str:
    if not isinstance(value, str) or not value:
        raise ProtocolError(f"{key!r} is not text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ProtocolError(f"{key!r} is not text") from None
    shown = escaped(value, _LONGEST_TEXT)
    return value if shown == value else _EscapedText(shown)


def _text_or_none(fields: Any, key: str) -> str | None:
    return None if fields.get(key) in (None, "") else _text(fields, key)


def _or_none(read: Callable[[Any, str], _Value], fields: Any, key: str) -> _Value | None:
    return None if fields.get(key) is None else read(fields, key)


def _number(fields: Any, key: str) -> int:
    value = _get(fields, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"{key!r} is not a whole number")
    return value


def _id(fields: Any, key: str) -> int | str:
    value = _get(fields, key)
    return _text(fields, key) if isinstance(value, str) else _number(fields, key)


def _timestamp(fields: Any, key: str) -> str:
    """A timestamp in one fixed format: it becomes a folder name, and sorting it sorts the times."""
    value = _text(fields, key)
    try:
        if not _TIMESTAMP.fullmatch(value):
            raise ValueError
        datetime.datetime.strptime(value, "%Y-%m-%d %H:%M:%S.%f UTC")  # noqa: DTZ007
    except ValueError:
        raise ProtocolError(f"{key!r} is not a timestamp") from None
    return value


def _sha256(fields: Any, key: str) -> str:
    value = _text(fields, key)
    if not _SHA256.fullmatch(value):
        raise ProtocolError(f"{key!r} is not a sha256")
    return value


def _bytes(fields: Any, key: str) -> bytes:
    try:
        return base64.b64decode(_get(fields, key), validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ProtocolError(f"{key!r} is not base64") from None


def _notebooks(fields: Any) -> tuple[Notebook, ...]:
    """The notebooks whose names can be file names, because we build paths from these names."""
    notebooks: Iterable[Notebook] = map(Notebook.from_json, items(fields, "notebooks"))
    usable = (notebook for notebook in notebooks if is_folder_name(notebook.notebook_id))
    return tuple(sorted(usable, key=lambda notebook: notebook.notebook_id))
