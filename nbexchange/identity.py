"""The identity of a caller: a person in one organisation, with a role in each of their courses.

A `User` is a value. It holds what the user handler returns *now*; nothing here is stored.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nbexchange.errors import MalformedIdentity
from nbexchange.text import cleaned, is_safe

DEFAULT_ORGANISATION = 1
LARGEST_ORGANISATION = 2**31 - 1
"""The largest number that fits into the database column."""

LONGEST_NAME = 200
"""Characters in a user name, a course id or an assignment id; also the width of their columns."""


class Role(enum.Enum):
    STUDENT = "Student"
    INSTRUCTOR = "Instructor"

    @classmethod
    def of(cls, name: str) -> Role:
        """`Instructor`, in upper or lower case, is privileged; every other name means student."""
        return cls.INSTRUCTOR if name.casefold() == "instructor" else cls.STUDENT


_DIGITS = re.compile(r"[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class Membership:
    role: Role
    title: str | None = None


@dataclass(frozen=True)
class User:
    name: str
    org_id: int = DEFAULT_ORGANISATION
    courses: Mapping[str, Membership] = field(default_factory=dict)
    full_name: str | None = None
    email: str | None = None
    lms_user_id: str | None = None

    def role_in(self, course_id: str) -> Role | None:
        """The role in this course of the user's organisation; None without a membership."""
        membership = self.courses.get(course_id)
        return membership.role if membership else None

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> User:
        """Check and convert the answer of a user handler.

        Keys: `name`; `course_id` with `course_role` and perhaps `course_title`, or `courses`
        (course_id -> role, or course_id -> {"role": ..., "title": ...}), or both; optional
        `org_id` (a whole number from 1; default 1), `full_name`, `email`, `lms_user_id`.

        Raises MalformedIdentity, which names the invalid key and never shows its value.
        """
        if not isinstance(answer, Mapping):
            raise MalformedIdentity(
                f"The user handler must return None or a dict, not {type(answer).__name__}."
            )
        return cls(
            name=_name(answer.get("name"), "name"),
            org_id=_organisation(answer.get("org_id", DEFAULT_ORGANISATION)),
            courses=_courses(answer),
            full_name=_text(answer.get("full_name"), "full_name"),
            email=_text(answer.get("email"), "email"),
            lms_user_id=_text(answer.get("lms_user_id"), "lms_user_id"),
        )


def parse_organisation(value: object) -> int | None:
    """The number of an organisation, or None.

    Accepts a whole number from 1, or its decimal digits as text. Each number has only one text:
    `01`, `+1`, `1_0` and digits of other scripts, which `int` would accept, are not valid.
    """
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    # True is an int in Python, and in practice organisation 0 has always been a mistake.
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if 1 <= value <= LARGEST_ORGANISATION else None


def is_name(value: object) -> bool:
    """Whether this can be a user name, a course id, an assignment id or a notebook id."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and is_safe(value)


def _name(value: object, key: str) -> str:
    if not is_name(value):
        raise MalformedIdentity(
            f"The user handler's answer has no valid {key!r}. It must be a text of 1 to "
            f"{LONGEST_NAME} characters, without control characters and without characters that "
            "change the direction of text."
        )
    return str(value)


def _organisation(value: object) -> int:
    number = parse_organisation(value)
    if number is None:
        raise MalformedIdentity(
            "The user handler's answer has an 'org_id' that is not a whole number from 1 to "
            f"{LARGEST_ORGANISATION}."
        )
    return number


def _text(value: object, key: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise MalformedIdentity(f"The user handler's answer has a {key!r} that is not text.")
    # This text is only displayed, so an unprintable character is no reason for a refusal.
    return cleaned(str(value)[:1000]) or None


def _courses(answer: Mapping[str, Any]) -> dict[str, Membership]:
    listed = answer.get("courses") or {}
    if not isinstance(listed, Mapping):
        raise MalformedIdentity("The user handler's answer has 'courses' that is not a mapping.")
    courses = {
        _name(course_id, "courses"): _membership(value) for course_id, value in listed.items()
    }
    current = answer.get("course_id")
    if current is not None and current not in courses:
        courses[_name(current, "course_id")] = _membership(
            {"role": answer.get("course_role"), "title": answer.get("course_title")}
        )
    return courses


def _membership(value: object) -> Membership:
    if isinstance(value, str):
        value = {"role": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str):
        raise MalformedIdentity("The user handler's answer has a course without a role.")
    return Membership(Role.of(value["role"]), _text(value.get("title"), "course_title"))
