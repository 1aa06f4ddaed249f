"""The names of courses, of their groups in the hub, and of their shared accounts.

A person's groups say which courses they are in: `formgrade-{course_id}` for instructors,
`nbgrader-{course_id}` for students, as nbgrader itself reads them. The hub writes these names, and
the exchange and the notebook read them. The rule is in this module only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterable

INSTRUCTOR = "Instructor"
STUDENT = "Student"

PREFIXES = {INSTRUCTOR: "formgrade-", STUDENT: "nbgrader-"}
GRADER = "grader-"

LONGEST_COURSE_ID = 200
"""Characters. This is the limit of the exchange (`nbexchange.identity.LONGEST_NAME`). Names of
groups and users in a hub may have 255."""

LARGEST_ORGANISATION = 2**31 - 1
"""The largest `org_id` (`nbexchange.identity.LARGEST_ORGANISATION`)."""

_LONGEST_SLUG = 40
_FINGERPRINT = 10
_PUNCTUATION = "._-"


def group_for(course_id: str, role: str) -> str:
    """The group whose members have this role in the course."""
    return PREFIXES[role] + course_id


def parse_group(name: str) -> tuple[str, str] | None:
    """The course id and role of the group's members; None if it is not a course's group."""
    for role, prefix in PREFIXES.items():
        course_id = name.removeprefix(prefix)
        if course_id != name and _can_be_named(course_id):
            return course_id, role
    return None


def courses_of(groups: Iterable[str]) -> dict[str, str]:
    """course id -> role. A member of both groups of a course is an instructor."""
    courses: dict[str, str] = {}
    for course_id, role in filter(None, map(parse_group, sorted(groups))):
        if courses.get(course_id) != INSTRUCTOR:
            courses[course_id] = role
    return courses


def grader_for(course_id: str) -> str:
    """The name of the shared account of a course's instructors. The hub lower-cases user names."""
    return GRADER + course_id.lower()


def is_grader(username: str) -> bool:
    """Whether this name is reserved for a shared account, so that a person must not have it."""
    return username.lower().startswith(GRADER)


def course_id_from(label: str | None, *context: str) -> str:
    """The course id of a course in an LMS.

    `context` identifies the course: the platform and its own id of the course. Labels are neither
    unique nor constant, so the id ends with a fingerprint of the context. The label before it is
    there for readability.
    """
    return f"{_slug(label or '') or 'course'}-{fingerprint(*context)[:_FINGERPRINT]}"


def fingerprint(*context: str) -> str:
    """Letters and digits that identify the context uniquely."""
    text = json.dumps(context, separators=(",", ":"))
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower().rstrip("=")


def ending(course_id: str) -> str:
    """The part that stays when a course's label changes: `-` and the start of its fingerprint."""
    return course_id[-_FINGERPRINT - 1 :]


def check_course_id(course_id: object) -> str:
    """Return the course id if it is valid in groups, folders, nbgrader and URLs, else raise."""
    if not (
        isinstance(course_id, str)
        and _can_be_named(course_id)
        and course_id[0].isalnum()
        and all(
            char in _PUNCTUATION or unicodedata.category(char)[0] in "LNM" for char in course_id
        )
    ):
        raise ValueError(
            f"{course_id!r} cannot be a course id. Use at most {LONGEST_COURSE_ID} letters, digits "
            f"and {_PUNCTUATION}, and begin with a letter or digit."
        )
    return course_id


def _can_be_named(course_id: str) -> bool:
    return 0 < len(course_id) <= LONGEST_COURSE_ID and course_id.isprintable()


def _slug(label: str) -> str:
    """Lower-case letters and digits of any alphabet, `.`, `_` and `-`; a run of others is `-`."""
    slug = ""
    for char in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower()):
        if char in _PUNCTUATION or _is_of_a_word(char, after=slug[-1:]):
            slug += char
        elif not slug.endswith("-"):
            slug += "-"
    return slug.strip(_PUNCTUATION)[:_LONGEST_SLUG].rstrip(_PUNCTUATION)


def _is_of_a_word(char: str, after: str) -> bool:
    kind = unicodedata.category(char)[0]
    # Hindi writes vowels as marks, so marks after a letter count. An invisible mark that an emoji
    # leaves behind does not.
    return kind in "LN" or (kind == "M" and after not in ("", *_PUNCTUATION))
