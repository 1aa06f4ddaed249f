"""The accounts that the instructors of a course share: `grader-{course_id}`.

A shared account is a user of the hub that cannot log in. It is in the group of the course's
instructors, so its server has an instructor's rights, and every member of that group may start,
open and stop its server. The server holds the course's one gradebook.

This module makes the configuration for courses that are listed in jupyterhub_config.py.
`sharing.py` creates the account of a course that comes from a launch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .naming import INSTRUCTOR, check_course_id, fingerprint, grader_for, group_for

_SCOPES = ("access:servers", "servers")
"""To open the server, and to start and stop it. JupyterHub 6 has `start:servers`, a part of
`servers`, but its page that starts a server requires `servers`."""

# The names that JupyterHub accepts for a role.
_ROLE_NAME = re.compile(r"[a-z][a-z0-9\-_~.]{1,253}[a-z0-9]")

# Version 0.1.0 gave such names to the roles of other courses, and those roles may still exist.
_OLD_HASH = re.compile(r"nbexchange-grader-[0-9a-f]{20}")


def grader_roles(courses: Iterable[str]) -> list[dict[str, Any]]:
    """For c.JupyterHub.load_roles: roles that let instructors use the shared account."""
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
    """For c.JupyterHub.load_groups: group -> the shared account to add to it."""
    return {group_for(course_id, INSTRUCTOR): grader_for(course_id) for course_id in courses}


def check_graders(courses: Iterable[str]) -> list[str]:
    """Return the course ids. ValueError if one is invalid or two would share one account."""
    checked = [check_course_id(course_id) for course_id in courses]
    names = [grader_for(course_id) for course_id in checked]
    for course_id, name in zip(checked, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(
                f"graders: {course_id!r} and another course would share the account {name}. "
                "Course ids must differ in more than upper and lower case."
            )
    return checked


def _role_name(course_id: str) -> str:
    """The name of the course's own role. A course id never contains `~`, so names are unique."""
    name = f"nbexchange-{grader_for(course_id)}"
    if _ROLE_NAME.fullmatch(name) and not _OLD_HASH.fullmatch(name):
        return name
    return f"nbexchange-grader~{fingerprint(course_id)}"
