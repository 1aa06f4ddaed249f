"""One rule for the names of courses, of their groups in the hub, and of their graders.

A person's groups are their courses: `formgrade-{course_id}` for instructors, `nbgrader-{course_id}`
for students, as nbgrader itself reads them. The hub writes these names, the exchange and the
notebook read them, so all of them take the rule from here.
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
"""Characters; what the exchange takes (`nbexchange.identity.LONGEST_NAME`). A hub's names of groups
and users have 255."""

LARGEST_ORGANISATION = 2**31 - 1
"""The largest `org_id` (`nbexchange.identity.LARGEST_ORGANISATION`)."""

_LONGEST_SLUG = 40
_FINGERPRINT = 10
_PUNCTUATION = "._-"


def group_for(course_id: str, role: str) -> str:
    """The group whose members have this role in the course."""
    return PREFIXES[role] + course_id


def parse_group(name: str) -> tuple[str, str] | None:
    """The course id and the role that membership means; None for a group that is no course's."""
    for role, prefix in PREFIXES.items():
        course_id = name.removeprefix(prefix)
        if course_id != name and _can_be_named(course_id):
            return course_id, role
    return None


def courses_of(groups: Iterable[str]) -> dict[str, str]:
    """course id -> role. Who is in both groups of a course is its instructor."""
    courses: dict[str, str] = {}
    for course_id, role in filter(None, map(parse_group, sorted(groups))):
        if courses.get(course_id) != INSTRUCTOR:
            courses[course_id] = role
    return courses


def grader_for(course_id: str) -> str:
    """The shared account of a course's instructors. The hub lower-cases the names of users."""
    return GRADER + course_id.lower()


def is_grader(username: str) -> bool:
    """Whether this is the name of a shared account, so that no person may have it."""
    return username.lower().startswith(GRADER)


def course_id_from(label: str | None, *context: str) -> str:
    """The course id of a course in a learning platform.

    `context` says which course it is: the platform and its own id of the course. Labels are neither
    unique nor constant, so the id ends with a fingerprint of the context; the label before it is
    for people.
    """
    return f"{_slug(label or '') or 'course'}-{fingerprint(*context)[:_FINGERPRINT]}"


def fingerprint(*context: str) -> str:
    """Letters and digits that no other context has."""
    text = json.dumps(context, separators=(",", ":"))
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower().rstrip("=")


def ending(course_id: str) -> str:
    """What stays when a course gets another label: `-` and the beginning of its fingerprint."""
    return course_id[-_FINGERPRINT - 1 :]


def check_course_id(course_id: object) -> str:
    """The course id, if it is good in groups, folders, nbgrader and addresses; else ValueError."""
    if not (
        isinstance(course_id, str)
        and _can_be_named(course_id)
        and course_id[0].isalnum()
        and all(
            char in _PUNCTUATION or unicodedata.category(char)[0] in "LNM" for char in course_id
        )
    ):
        raise ValueError(
            f"{course_id!r} cannot be a course id; use letters, digits and {_PUNCTUATION}, "
            f"begin with a letter or digit, and end after {LONGEST_COURSE_ID} characters"
        )
    return course_id


def _can_be_named(course_id: str) -> bool:
    return 0 < len(course_id) <= LONGEST_COURSE_ID and course_id.isprintable()


def _slug(label: str) -> str:
    """Lower-case letters and digits of any alphabet, `.`, `_` and `-`; all else is one `-`."""
    slug = ""
    for char in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).lower()):
        if char in _PUNCTUATION or _is_of_a_word(char, after=slug[-1:]):
            slug += char
        elif not slug.endswith("-"):
            slug += "-"
    return slug.strip(_PUNCTUATION)[:_LONGEST_SLUG].rstrip(_PUNCTUATION)


def _is_of_a_word(char: str, after: str) -> bool:
    kind = unicodedata.category(char)[0]
    # Hindi has no vowels without marks; an emoji leaves one behind that nobody sees.
    return kind in "LN" or (kind == "M" and after not in ("", *_PUNCTUATION))
