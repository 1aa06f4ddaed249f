"""Read an LTI launch: the course, the user, and the user's role.

The launch is LTI 1.1 or 1.3, as jupyterhub-ltiauthenticator leaves it in `auth_state` after it has
checked the signature. This module does not trust the form: a platform may send anything under any
name, so a value that is not text counts as missing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .naming import INSTRUCTOR, STUDENT, course_id_from, fingerprint

CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"

_NEW_ROLE = re.compile(r"http://purl\.imsglobal\.org/vocab/lis/v2/membership(?:/(\w+))?#(\w+)")
_OLD_ROLE = re.compile(r"(?:urn:lti:role:ims/lis/)?(\w+)(?:/(\w+))?")
_NEW_ROLE_ELSEWHERE = re.compile(
    r"http://purl\.imsglobal\.org/vocab/lis/v2/(institution|system)/person#(\w+)"
)
_OLD_ROLE_ELSEWHERE = re.compile(r"urn:lti:(inst|sys)role:ims/lis/(\w+)(?:/\w+)?")
_OLD_PLACES = {"inst": "institution", "sys": "system"}
_LONGEST_TEXT = 250

ASSISTANTS = frozenset(
    f"Instructor#TeachingAssistant{of}"
    for of in (
        "",
        "Group",
        "Offering",
        "Section",
        "SectionAssociation",
        "Template",
    )
)
"""The roles of assistants, including assistants for a part of the course."""

INSTRUCTORS = ASSISTANTS | {
    "Instructor",
    "Instructor#ExternalInstructor",
    "Instructor#Grader",
    "Instructor#Lecturer",
    "Instructor#PrimaryInstructor",
    "Instructor#SecondaryInstructor",
}
"""The default roles in a course that make a user an instructor in the exchange."""

_KINDS_OF_INSTRUCTOR = INSTRUCTORS | {"Instructor#GuestInstructor"}


@dataclass(frozen=True)
class Launch:
    """One launch. `context_id` is empty if the launch does not belong to a course."""

    platform: str
    """The issuer (1.3) or the consumer key (1.1), with which the signature was checked."""

    guid: str
    """The platform's own identifier. One issuer can serve several platforms."""

    context_id: str
    label: str | None
    title: str | None
    role: str
    full_name: str | None
    email: str | None
    lms_user_id: str | None

    @property
    def course_id(self) -> str:
        """The default course id, if the administrator has no rule for another."""
        return course_id_from(self.label or self.title, *self._context)

    @property
    def fingerprint(self) -> str:
        """Identifies the course uniquely, whatever its label is."""
        return fingerprint(*self._context)

    @property
    def _context(self) -> tuple[str, str, str]:
        return self.platform, self.guid, self.context_id

    @property
    def user_info(self) -> dict[str, str]:
        fields = {
            "full_name": self.full_name,
            "email": self.email,
            "lms_user_id": self.lms_user_id,
        }
        return {key: value for key, value in fields.items() if value}


def launch_from(
    auth_state: object, *, consumer_key: str = "", instructors: Collection[str] = INSTRUCTORS
) -> Launch | None:
    """The launch by which a user logged in; None for every other login.

    An LTI 1.1 launch does not name its platform, so `consumer_key` is the key that signed it.
    Raises ValueError for a launch that looks like both versions: a platform may put any field into
    a 1.1 form, even the claims that identify another platform.
    """
    if not isinstance(auth_state, Mapping):
        return None
    is_13, is_11 = f"{CLAIM}version" in auth_state, "lti_version" in auth_state
    if is_13 and is_11:
        raise ValueError("the launch claims to be both LTI 1.1 and LTI 1.3")
    if is_13:
        return _launch_of_13(auth_state, instructors)
    if is_11:
        return _launch_of_11(auth_state, consumer_key, instructors)
    return None


def _launch_of_13(claims: Mapping[str, Any], instructors: Collection[str]) -> Launch:
    context = _mapping(claims.get(f"{CLAIM}context"))
    platform = _mapping(claims.get(f"{CLAIM}tool_platform"))
    roles = claims.get(f"{CLAIM}roles")
    return Launch(
        platform=_id(claims.get("iss")),
        guid=_id(platform.get("guid")),
        context_id=_id(context.get("id")),
        label=_text(context.get("label")),
        title=_text(context.get("title")),
        role=role_from(roles if isinstance(roles, list) else [], instructors),
        full_name=_text(claims.get("name"))
        or _joined(claims.get("given_name"), claims.get("family_name")),
        email=_text(claims.get("email")),
        lms_user_id=_text(claims.get("sub")),
    )


def _launch_of_11(
    form: Mapping[str, Any], consumer_key: str, instructors: Collection[str]
) -> Launch:
    return Launch(
        platform=consumer_key,
        guid=_id(form.get("tool_consumer_instance_guid")),
        context_id=_id(form.get("context_id")),
        label=_text(form.get("context_label")),
        title=_text(form.get("context_title")),
        role=role_from(_id(form.get("roles")).split(","), instructors),
        full_name=_text(form.get("lis_person_name_full"))
        or _joined(form.get("lis_person_name_given"), form.get("lis_person_name_family")),
        email=_text(form.get("lis_person_contact_email_primary")),
        lms_user_id=_text(form.get("user_id")),
    )


def role_from(roles: Iterable[object], instructors: Collection[str] = INSTRUCTORS) -> str:
    """Instructor if one of the roles in *this course* is an instructor's, else Student.

    Roles in the institution or the system come in the same list. They count only if `instructors`
    names them, as `institution/person#Instructor`: a professor may be a student in a colleague's
    course. Of two roles, the higher one counts. But a sub-role (`Instructor#TeachingAssistant`)
    replaces the general role that comes with it (`Instructor`). Otherwise administrators could not
    exclude assistants from the instructors.
    """
    held = {_name_of(role) for role in roles if isinstance(role, str)}
    if held & _KINDS_OF_INSTRUCTOR - {"Instructor"}:
        held.discard("Instructor")
    qualifying = {
        _name_of(role) or role for role in instructors
    }  # our short names, or platforms' own
    return INSTRUCTOR if held & qualifying else STUDENT


def _name_of(role: str) -> str:
    """`Role` or `Role#SubRole` for a role in the course; `institution/person#Role` or
    `system/person#Role` for one elsewhere; empty for every other role."""
    if elsewhere := _NEW_ROLE_ELSEWHERE.fullmatch(role.strip()):
        return f"{elsewhere[1]}/person#{elsewhere[2]}"
    if elsewhere := _OLD_ROLE_ELSEWHERE.fullmatch(role.strip()):
        return f"{_OLD_PLACES[elsewhere[1]]}/person#{elsewhere[2]}"
    match = _NEW_ROLE.fullmatch(role.strip()) or _OLD_ROLE.fullmatch(role.strip())
    parts = [part for part in match.groups() if part] if match else []
    # In LTI 1.1, TeachingAssistant is a role of its own, not a sub-role of Instructor.
    if parts[:1] == ["TeachingAssistant"]:
        parts = ["Instructor", parts[-1]]
    return "#".join(parts)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id(value: object) -> str:
    """An id, unchanged: ids that differ only in a space are different ids."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def _text(value: object) -> str | None:
    """Text for display: one line without control characters; None if nothing is left."""
    seen = "".join(char if _is_shown(char) else " " for char in _id(value))
    return " ".join(seen.split())[:_LONGEST_TEXT].rstrip() or None


def _is_shown(char: str) -> bool:
    # The invisible joiner within emoji is not "printable".
    return char.isprintable() or char == "\u200d"


def _joined(*names: object) -> str | None:
    return " ".join(filter(None, map(_text, names))) or None
