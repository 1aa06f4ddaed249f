"""The rows of users, their courses, and their roles in them."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import clock, insert_if_absent
from nbexchange.errors import NotFound
from nbexchange.exchange.assignment_state import AssignmentState
from nbexchange.identity import User

SEEN_AGAIN = datetime.timedelta(days=1)
"""How stale `last_seen` may become: it is not worth a write for each request."""


class MembershipKeys(NamedTuple):
    """A member of a course: the keys of the rows of the user and the course."""

    user_pk: int
    course_pk: int


def upsert_member(
    session: Session, user: User, course_id: str, state: AssignmentState | None = None
) -> MembershipKeys:
    """Insert or update the rows of the caller and the course if necessary. Returns their keys."""
    if state is not None and state.user_pk is not None and _is_fresh(state, user, course_id):
        return MembershipKeys(state.user_pk, state.course_pk)
    _upsert_user(session, user)
    _upsert_course(session, user, course_id)
    session.flush()
    person = find_user(session, user.org_id, user.name)
    course = session.execute(_course(user.org_id, course_id)).scalar_one()
    _upsert_role(session, user, course_id, MembershipKeys(person.id, course.id))
    return MembershipKeys(person.id, course.id)


def find_user(session: Session, org_id: int, name: str) -> models.UserRow:
    person = session.execute(_person(org_id, name)).scalar_one_or_none()
    if person is None:
        raise NotFound(f"User {name!r} does not exist.")
    return person


def _is_fresh(state: AssignmentState, user: User, course_id: str) -> bool:
    membership = user.courses[course_id]
    return (
        all(getattr(state, key) == value for key, value in _provided_fields(user).items())
        and state.title == (membership.title or state.title)
        and state.role == membership.role.value
        and state.last_seen is not None
        and state.now - state.last_seen < SEEN_AGAIN
    )


def _upsert_user(session: Session, user: User) -> None:
    person = session.execute(_person(user.org_id, user.name)).scalar_one_or_none()
    if person is None:
        insert_if_absent(session, models.UserRow, org_id=user.org_id, name=user.name)
        person = find_user(session, user.org_id, user.name)
    for key, value in _provided_fields(user).items():
        setattr(person, key, value)


def _provided_fields(user: User) -> dict[str, str]:
    """Fields that the identity provides. A field it omits keeps its stored value."""
    fields = {"full_name": user.full_name, "email": user.email, "lms_user_id": user.lms_user_id}
    return {key: value for key, value in fields.items() if value is not None}


def _upsert_course(session: Session, user: User, course_id: str) -> None:
    # An INSERT would lock an existing row on MariaDB, and other transactions would wait for it.
    if session.execute(_course(user.org_id, course_id)).first() is None:
        insert_if_absent(session, models.Course, org_id=user.org_id, course_id=course_id)
    title = user.courses[course_id].title
    if title:
        session.execute(_course(user.org_id, course_id)).scalar_one().title = title


def _upsert_role(session: Session, user: User, course_id: str, member: MembershipKeys) -> None:
    role, now = user.courses[course_id].role.value, clock(session)
    keys = {"course_pk": member.course_pk, "user_pk": member.user_pk}
    query = select(models.Subscription).filter_by(**keys)
    if session.execute(query).first() is None:
        insert_if_absent(session, models.Subscription, **keys, role=role, last_seen=now)
    subscription = session.execute(query).scalar_one()
    subscription.role, subscription.last_seen = role, now


def _person(org_id: int, name: str) -> Select[models.UserRow]:
    return select(models.UserRow).where(
        models.UserRow.org_id == org_id, models.UserRow.name == name
    )


def _course(org_id: int, course_id: str) -> Select[models.Course]:
    return select(models.Course).where(
        models.Course.org_id == org_id, models.Course.course_id == course_id
    )
