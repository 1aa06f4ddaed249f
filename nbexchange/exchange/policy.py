"""Who may do what: the one place that is asked.

The answer depends on the requested course, the caller's organisation, and the role that the
caller's identity has *now*. Roles seen in the past are never looked at.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from nbexchange.errors import Forbidden, NotFound
from nbexchange.identity import Role, User


class Verb(enum.Enum):
    """What can be done, in the words a refusal uses: "only instructors of the course can ..."."""

    LIST = "list assignments"
    FETCH = "fetch an assignment"
    RELEASE = "release an assignment"
    REMOVE = "take a release back"
    PURGE = "erase an assignment"
    LIST_PURGES = "list what is hidden until it is erased"
    RESTORE = "restore an assignment"
    SUBMIT = "submit"
    LIST_SUBMISSIONS = "list submissions"
    COLLECT = "collect submissions"
    RELEASE_FEEDBACK = "release feedback"
    FETCH_FEEDBACK = "fetch feedback"
    HISTORY = "read the history"


class Reach(enum.Enum):
    """Whose things a permitted verb covers."""

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
    """Whose things `user` may do this with.

    Raises NotFound for somebody outside the course, in the same words whether or not the course
    exists, and Forbidden for a member whose role does not have the verb.
    """
    role = user.role_in(course_id)
    if role is None:
        raise NotFound(f"there is no course {course_id!r} that you belong to")
    reach = POLICY[verb].get(role)
    if reach is None:
        raise Forbidden(f"only instructors of {course_id!r} can {verb.value}")
    return reach
