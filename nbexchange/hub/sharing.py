"""Create the shared account of a course that came from a launch, without restarting the hub."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm, roles
from jupyterhub.utils import maybe_future

from .graders import grader_roles
from .naming import INSTRUCTOR, courses_of, grader_for, group_for


async def share_grader(authenticator: Any, handler: Any, course_id: str) -> None:
    """Create the account if it is missing, and share it with the course's instructors."""
    name = grader_for(course_id)
    user = handler.find_user(name)
    if user is None:
        if not authenticator.validate_username(name):
            handler.log.warning(
                "The course %r gets no shared account: this hub does not allow the name %r.",
                course_id,
                name,
            )
            return
        user = handler.user_from_username(name)
        await maybe_future(authenticator.add_user(user))
    if others := set(courses_of(group.name for group in user.groups)) - {course_id}:
        handler.log.error(
            "The account %s is in other courses (%s), so it is not shared with the instructors of "
            "%s. Its home may contain files of those courses. Look there, then remove the account "
            "from their groups.",
            name,
            ", ".join(sorted(others)),
            course_id,
        )
        return
    _share(handler.db, user, course_id)


def _share(db: Any, user: Any, course_id: str) -> None:
    group = orm.Group.find(db, group_for(course_id, INSTRUCTOR))
    if group is None:  # removed while the account was created; the next launch creates it again
        return
    if group not in user.orm_user.groups:
        user.orm_user.groups.append(group)
        db.commit()
    # A role, because JupyterHub ignores a share with a group when a server checks its visitor.
    # It is managed by the authenticator, because at its start the hub deletes other roles that are
    # not in its configuration.
    (definition,) = grader_roles([course_id])
    role = orm.Role.find(db, definition["name"])
    if role is None:
        role = roles.create_role(db, {**definition, "managed_by_auth": True})
    roles.grant_role(db, group, role)
