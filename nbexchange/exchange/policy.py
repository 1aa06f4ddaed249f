"""Who may do what. Every verb asks `permit`.

The decision depends on the requested course, the caller's organisation, and the role that the
caller's identity has *now*. Roles seen in the past do not count.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from nbexchange.errors import Forbidden, NotFound
from nbexchange.identity import Role, User


class Verb(enum.Enum):
    """The verbs, in the words of a refusal: "Only instructors of the course can ..."."""

    LIST = "list assignments"
    FETCH = "fetch an assignment"
    RELEASE = "release an assignment"
    REMOVE = "take a release back"
    PURGE = "erase an assignment"
    LIST_PURGES = "list hidden assignments"
    RESTORE = "restore an assignment"
    SUBMIT = "submit"
    LIST_SUBMISSIONS = "list submissions"
    COLLECT = "collect submissions"
    RELEASE_FEEDBACK = "release feedback"
    FETCH_FEEDBACK = "fetch feedback"
    HISTORY = "read the history"


class Reach(enum.Enum):
    """Whose submissions, feedback and events a permitted verb covers."""

    OWN = "own"
    ALL = "all"


POLICY: Mapping[Verb, Mapping[Role, Reach]] = MappingProxyType(
    {
        Verb.LIST: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.OWN},
        Verb.FETCH: {Role.STUDENT: Reach.ALL, Role.INSTRUCTOR: Reach.ALL},
        Verb.RELEASE: {Role.INSTRUCTOR: Reach.ALL},
        Verb.REMOVE: {Role.INSTRUCTOR: Reach.ALL},
        Verb.PURGE: {Role.INSTRUCTOR: Reach.ALL},
        Verb.LIST_PURGES: {Role.INSTRUCTOR: Reach.ALL},
        Verb.RESTORE: {Role.INSTRUCTOR: Reach.ALL},
        Verb.SUBMIT: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.OWN},
        Verb.LIST_SUBMISSIONS: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.ALL},
        Verb.COLLECT: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.ALL},
        Verb.RELEASE_FEEDBACK: {Role.INSTRUCTOR: Reach.ALL},
        Verb.FETCH_FEEDBACK: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.OWN},
        Verb.HISTORY: {Role.STUDENT: Reach.OWN, Role.INSTRUCTOR: Reach.ALL},
    }
)


def permit(user: User, verb: Verb, course_id: str) -> Reach:
    """Return how far `user` may use the verb in the course.

    Raises NotFound for a user outside the course, with the same message whether or not the course
    exists, and Forbidden for a member whose role does not have the verb.
    """
    role = user.role_in(course_id)
    if role is None:
        raise NotFound(f"There is no course {course_id!r} that you belong to.")
    reach = POLICY[verb].get(role)
    if reach is None:
        raise Forbidden(f"Only instructors of {course_id!r} can {verb.value}.")
    return reach
