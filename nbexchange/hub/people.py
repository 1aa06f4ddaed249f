"""What a person's groups in the hub say about them."""

from __future__ import annotations

from typing import Any

from .naming import INSTRUCTOR, courses_of


def courses_of_user(user: Any) -> dict[str, str]:
    """course id -> role, of a user of the hub (a spawner's `user`, or the hub's own)."""
    return courses_of(group.name for group in user.groups)


def role_of(user: Any, course_id: str | None = None) -> str | None:
    """ "Instructor", "Student", or None for a stranger; in this course, or in any.

    For images and profiles that depend on it:

        c.KubeSpawner.profile_list = lambda spawner: (
            TEACHERS if role_of(spawner.user) == "Instructor" else STUDENTS
        )
    """
    courses = courses_of_user(user)
    if course_id is not None:
        return courses.get(course_id)
    return min(courses.values(), key=lambda role: role != INSTRUCTOR, default=None)
