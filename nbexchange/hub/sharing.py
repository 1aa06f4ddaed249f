"""The shared account of a course that came by a launch: made without a restart of the hub."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm, roles
from jupyterhub.utils import maybe_future

from .graders import grader_roles
from .naming import INSTRUCTOR, courses_of, grader_for, group_for


async def share_grader(authenticator: Any, handler: Any, course_id: str) -> None:
    """Make the account if there is none, and share it with the course's instructors."""
    name = grader_for(course_id)
    user = handler.find_user(name)
    if user is None:
        if not authenticator.validate_username(name):
            handler.log.warning("This hub does not take the name %r; no shared account.", name)
            return
        user = handler.user_from_username(name)
        await maybe_future(authenticator.add_user(user))
    if others := set(courses_of(group.name for group in user.groups)) - {course_id}:
        handler.log.error(
            "The account %s is in other courses (%s), so it is not shared with the instructors of "
            "%s. What is in its home may be theirs: look there, then take it out of their groups.",
            name,
            ", ".join(sorted(others)),
            course_id,
        )
        return
    _share(handler.db, user, course_id)


def _share(db: Any, user: Any, course_id: str) -> None:
    group = orm.Group.find(db, group_for(course_id, INSTRUCTOR))
    if group is None:  # removed while the account was made; the next launch makes all of it
        return
    if group not in user.orm_user.groups:
        user.orm_user.groups.append(group)
        db.commit()
    # A role, because what is shared with a group does not count when a server asks who comes; and
    # one of the authenticator's, because the hub deletes others that are not in its configuration
    # when it starts.
    (definition,) = grader_roles([course_id])
    role = orm.Role.find(db, definition["name"])
    if role is None:
        role = roles.create_role(db, {**definition, "managed_by_auth": True})
    roles.grant_role(db, group, role)
