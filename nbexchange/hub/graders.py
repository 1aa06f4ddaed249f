"""The accounts that the instructors of a course share: `grader-{course_id}`.

A user of the hub that nobody can log in as. It is in the group of the course's instructors, so its
server is an instructor's; and everybody in that group may start, open and stop its server. The
course's gradebook lives there, once for all of them.

Here is what jupyterhub_config.py says about courses that are known before the hub starts;
`sharing.py` does it for a course that comes by a launch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .naming import INSTRUCTOR, check_course_id, fingerprint, grader_for, group_for

_SCOPES = ("access:servers", "servers")
"""To open the server; to start and stop it. The page that starts it wants `servers`, of which
`start:servers`, which JupyterHub 6 has, is a part."""

# What JupyterHub takes as the name of a role.
_ROLE_NAME = re.compile(r"[a-z][a-z0-9\-_~.]{1,253}[a-z0-9]")

# Version 0.1.0 named the roles of other courses so, and those roles may still exist.
_OLD_HASH = re.compile(r"nbexchange-grader-[0-9a-f]{20}")


def grader_roles(courses: Iterable[str]) -> list[dict[str, Any]]:
    """For c.JupyterHub.load_roles: instructors of each course may use its shared account."""
    return [
        {
            "name": _role_name(course_id),
            "description": f"Instructors of {course_id} share an account",
            "groups": [group_for(course_id, INSTRUCTOR)],
            "scopes": [f"{scope}!user={grader_for(course_id)}" for scope in _SCOPES],
        }
        for course_id in courses
    ]


def grader_groups(courses: Iterable[str]) -> dict[str, str]:
    """For c.JupyterHub.load_groups: group -> the shared account that has to be in it."""
    return {group_for(course_id, INSTRUCTOR): grader_for(course_id) for course_id in courses}


def check_graders(courses: Iterable[str]) -> list[str]:
    """The course ids; ValueError where one is none, or where two would share one account."""
    checked = [check_course_id(course_id) for course_id in courses]
    names = [grader_for(course_id) for course_id in checked]
    for course_id, name in zip(checked, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(
                f"graders: {course_id!r} and another course would share the account {name}; "
                "course ids have to differ in more than capitals"
            )
    return checked


def _role_name(course_id: str) -> str:
    """The course's own role. No course id contains `~`, so no two courses share a role."""
    name = f"nbexchange-{grader_for(course_id)}"
    if _ROLE_NAME.fullmatch(name) and not _OLD_HASH.fullmatch(name):
        return name
    return f"nbexchange-grader~{fingerprint(course_id)}"
