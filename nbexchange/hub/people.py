"""A user's courses and roles, from the user's groups in the hub."""

from __future__ import annotations

from typing import Any

from .naming import INSTRUCTOR, courses_of


def courses_of_user(user: Any) -> dict[str, str]:
    """course id -> role, for a user of the hub (a spawner's `user`, or the hub's own object)."""
    return courses_of(group.name for group in user.groups)


def role_of(user: Any, course_id: str | None = None) -> str | None:
    """ "Instructor", "Student", or None if the user has no role; in this course, or in any.

    Use it to choose images and profiles by role:

        c.KubeSpawner.profile_list = lambda spawner: (
            TEACHERS if role_of(spawner.user) == "Instructor" else STUDENTS
        )
    """
    courses = courses_of_user(user)
    if course_id is not None:
        return courses.get(course_id)
    return min(courses.values(), key=lambda role: role != INSTRUCTOR, default=None)
