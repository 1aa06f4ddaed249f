"""At login, turn a launch into a course, its groups, and its instructors' shared account.

This is a JupyterHub `post_auth_hook`. The user stays in the groups of all other courses. Of this
course's two groups, the user is then only in the one for the role in the launch. The hook works on
the hub's own objects, so a new course needs neither a restart nor a token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jupyterhub import orm
from jupyterhub.utils import maybe_future
from tornado.web import HTTPError

from .lti import INSTRUCTORS, Launch, launch_from
from .naming import (
    INSTRUCTOR,
    STUDENT,
    check_course_id,
    ending,
    group_for,
    is_grader,
    parse_group,
)
from .sharing import share_grader

Hook = Callable[[Any, Any, Any], Any]
"""(authenticator, handler, auth_model) -> auth_model, or an awaitable of it."""

CONTEXT = "nbexchange_context"
"""A property of a course's groups: the fingerprint of the course that they were made for."""

_WITH_ORGANISATION = re.compile(r"\d+-")


@dataclass(frozen=True)
class LoginRules:
    """The administrator's options about launches; `configure` explains each."""

    instructors: Collection[str] = INSTRUCTORS
    platforms: Mapping[str, str] = field(default_factory=dict)
    organisations: Mapping[str, int] = field(default_factory=dict)
    course_id: Callable[[Launch], str | None] | None = None
    graders: bool = True
    prefix_names: bool = False

    def organisation(self, launch: Launch) -> int:
        return self.organisations.get(launch.platform, 1)


def groups_hook(rules: LoginRules | None = None, before: Hook | None = None) -> Hook:
    """A post_auth_hook for a hub with `manage_groups`. It calls the hook `before` first."""
    launches = rules or LoginRules()

    async def hook(authenticator: Any, handler: Any, auth_model: Any) -> Any:
        auth_model = await _admitted(authenticator, handler, auth_model, before)
        if auth_model:
            await _apply_launch(launches, authenticator, handler, auth_model)
        return auth_model

    return hook


def no_grader_hook(before: Hook | None = None) -> Hook:
    """A post_auth_hook that refuses logins to the shared accounts and does nothing else."""

    async def hook(authenticator: Any, handler: Any, auth_model: Any) -> Any:
        return await _admitted(authenticator, handler, auth_model, before)

    return hook


async def _admitted(authenticator: Any, handler: Any, auth_model: Any, before: Hook | None) -> Any:
    if before is not None:
        auth_model = await maybe_future(before(authenticator, handler, auth_model))
    if auth_model and is_grader(auth_model["name"]):
        handler.log.warning("Refused to log in %r: it is a shared account.", auth_model["name"])
        raise HTTPError(
            403,
            f"Nobody can log in as {auth_model['name']}. Names that begin with grader- belong to "
            "the accounts that a course's instructors share. If this is your own name in the LMS, "
            "ask your administrator for another one.",
        )
    return auth_model


async def _apply_launch(
    rules: LoginRules, authenticator: Any, handler: Any, auth_model: Any
) -> None:
    launch = _launch(rules, handler, auth_model)
    if rules.prefix_names:
        await _prefix_name(rules, launch, authenticator, handler, auth_model)
    name = auth_model["name"]
    course_id = _course_id(rules, handler, launch) if launch and launch.context_id else None
    auth_model["groups"] = _LazyGroups(
        handler, name, given=auth_model.get("groups"), course_id=course_id, launch=launch
    )
    if launch is None:
        return
    auth_model["user_info"] = {**(auth_model.get("user_info") or {}), **launch.user_info}
    if course_id is None:
        handler.log.info("The launch of %s does not belong to a course.", name)
        return
    _keep_groups(handler.db, course_id, launch, rules)
    if rules.graders and launch.role == INSTRUCTOR:
        await share_grader(authenticator, handler, course_id)


def _launch(rules: LoginRules, handler: Any, auth_model: Any) -> Launch | None:
    try:
        return launch_from(
            auth_model.get("auth_state"),
            consumer_key=_consumer_key(handler),
            instructors=rules.instructors,
        )
    except ValueError as error:
        handler.log.warning("Refused to log in %r: %s.", auth_model["name"], error)
        raise HTTPError(
            400,
            "This launch contradicts itself. Contact the administrator of your LMS (learning "
            "management system).",
        ) from None


async def _prefix_name(
    rules: LoginRules, launch: Launch | None, authenticator: Any, handler: Any, auth_model: Any
) -> None:
    """Put the org_id before the name. Two platforms may each have a user called 2, and these two
    must not share an account."""
    if launch is None:
        if _WITH_ORGANISATION.match(auth_model["name"]):
            raise HTTPError(
                403,
                "Names that begin with a number and - can only log in by a launch. Open the link "
                "in your LMS.",
            )
        return
    auth_model["name"] = name = f"{rules.organisation(launch)}-{auth_model['name']}"
    # JupyterHub made these decisions for the name without the prefix.
    if not await maybe_future(authenticator.check_blocked_users(name, auth_model)):
        raise HTTPError(403, f"{name} may not log in to this hub. Contact your administrator.")
    auth_model["admin"] = await maybe_future(authenticator.is_admin(handler, auth_model))


def _consumer_key(handler: Any) -> str:
    # The first value, because the signature was checked with it. get_argument would return the
    # last, which a third party can add.
    values = handler.request.arguments.get("oauth_consumer_key", [b""])
    return bytes(values[0]).decode(errors="replace")


def _course_id(rules: LoginRules, handler: Any, launch: Launch) -> str | None:
    try:
        if rules.course_id is None:
            return _existing_course_id(handler.db, _with_platform(rules, launch))
        return _by_rule(rules, handler.db, launch)
    except ValueError:
        handler.log.exception("Cannot make a course id for %s", launch)
        raise HTTPError(
            500,
            "This course has no usable course id on this hub. Contact your administrator; the "
            "hub's log has the reason.",
        ) from None


def _with_platform(rules: LoginRules, launch: Launch) -> Launch:
    return replace(launch, platform=rules.platforms.get(launch.platform, launch.platform))


def _existing_course_id(db: Any, launch: Launch) -> str:
    """The id that the course already has, whatever its label is now; else a new id.

    An id holds only the beginning of a fingerprint, and a group of this name may have been created
    by hand. So the fingerprint in the group's properties decides. ValueError if the group was made
    for another course.
    """
    like = orm.Group.name.endswith(ending(launch.course_id), autoescape=True)
    for group in db.query(orm.Group).filter(like):
        made_for = (group.properties or {}).get(CONTEXT)
        course_id, _ = parse_group(group.name) or (None, None)
        if course_id and made_for == launch.fingerprint:
            return course_id
        if course_id == launch.course_id and made_for is not None:
            raise ValueError(f"{course_id} is already the course id of another course")
    return launch.course_id


def _by_rule(rules: LoginRules, db: Any, launch: Launch) -> str | None:
    """The course id by the administrator's own rule. ValueError if it is invalid or would give
    access to another course."""
    assert rules.course_id is not None
    course_id = rules.course_id(_with_platform(rules, launch))
    if course_id is not None:
        _check_unlike_others(db, check_course_id(course_id))
        if rules.organisations:
            _check_organisation(db, course_id, rules.organisation(launch))
    return course_id


def _check_unlike_others(db: Any, course_id: str) -> None:
    """ValueError if another course's id differs only in upper and lower case: the two courses
    would have the same shared account."""
    for (name,) in db.query(orm.Group.name):
        other, _ = parse_group(name) or (course_id, None)
        if other != course_id and other.lower() == course_id.lower():
            raise ValueError(f"{course_id} and {other} differ only in upper and lower case")


def _check_organisation(db: Any, course_id: str, org_id: int) -> None:
    """ValueError if the course belongs to another organisation. If a rule gives two platforms the
    same course id, one of them would lose access to all of its work."""
    for role in (INSTRUCTOR, STUDENT):
        group = orm.Group.find(db, group_for(course_id, role))
        owner = (group.properties or {}).get("org_id", 1) if group else org_id
        # To the exchange, the number and its digits as text are the same organisation.
        if str(owner) != str(org_id):
            raise ValueError(
                f"{course_id} is a course of organisation {owner}, but this launch is from "
                f"organisation {org_id}. If they are one course, set that org_id in the properties "
                "of its groups with the hub's REST API"
            )


def _keep_groups(db: Any, course_id: str, launch: Launch, rules: LoginRules) -> None:
    """Create the course's two groups if they are missing, and update their properties."""
    properties_of_launch: dict[str, Any] = {}
    if rules.course_id is None:
        properties_of_launch[CONTEXT] = _with_platform(rules, launch).fingerprint
    if launch.title:
        properties_of_launch["title"] = launch.title
    if launch.platform in rules.organisations:
        properties_of_launch["org_id"] = rules.organisations[launch.platform]
    names = [group_for(course_id, role) for role in (INSTRUCTOR, STUDENT)]
    groups = {name: orm.Group.find(db, name) for name in names}
    stored = [dict(group.properties or {}) for group in groups.values() if group]
    for name, group in groups.items():
        if group is None:
            group = orm.Group(name=name)
            db.add(group)
        properties = {
            **(stored[0] if stored else {}),
            **(group.properties or {}),
            **properties_of_launch,
        }
        if group.properties != properties:
            group.properties = properties
    db.commit()


class _LazyGroups(Collection[str]):
    """The groups that a user will be in, computed at the moment when the hub stores them.

    The hub replaces all of the user's groups with these. Between this hook and that moment it may
    wait (it creates the account), and another launch of the same user may be stored meanwhile.
    Groups read before the wait would undo that launch. Between reading this collection and storing
    the groups, the hub does not wait.
    """

    def __init__(
        self,
        handler: Any,
        username: str,
        *,
        given: Collection[str] | None,
        course_id: str | None,
        launch: Launch | None,
    ) -> None:
        self._handler = handler
        self._username = username
        self._given = given
        self._course_id = course_id
        self._role = launch.role if launch else None

    def _names(self) -> set[str]:
        user = self._handler.find_user(self._username)
        groups = {group.name for group in user.groups} if user else set()
        if self._given is not None:
            # The authenticator that gave them means all groups, but knows nothing of courses.
            groups = {name for name in groups if parse_group(name)} | set(self._given)
        if self._course_id is None or self._role is None:
            return groups
        groups -= {group_for(self._course_id, role) for role in (INSTRUCTOR, STUDENT)}
        return groups | {group_for(self._course_id, self._role)}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()
