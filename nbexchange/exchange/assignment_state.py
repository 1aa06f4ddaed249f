"""The state of an assignment for one member: one query for everything that a verb has to know.

A submit runs it twice, at the header and at the end. It is built once and reads columns only: seven
separate queries for entities took 2.9 ms of processor time, this one takes 0.2 ms.
"""

from __future__ import annotations

import datetime
from typing import NamedTuple

from sqlalchemy import and_, bindparam, func, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock
from nbexchange.errors import NotFound
from nbexchange.identity import User


class AssignmentState(NamedTuple):
    """The columns of `_QUERY`, in its order; None for missing values."""

    now: datetime.datetime
    """The database's clock."""
    course_pk: int
    title: str | None
    assignment_pk: int
    released: bool
    release_pk: int
    release_token: str
    version: int
    key: str
    sha256: str
    size: int
    user_pk: int | None
    full_name: str | None
    email: str | None
    lms_user_id: str | None
    role: str | None
    last_seen: datetime.datetime | None
    newest_time: datetime.datetime | None
    """The official time of the member's newest submission."""


_newest_version = (
    select(func.max(models.Release.version))
    .where(models.Release.assignment_pk == models.Assignment.id)
    .correlate(models.Assignment)
    .scalar_subquery()
)
_newest_time = (
    select(func.max(models.Submission.timestamp))
    .where(
        models.Submission.assignment_pk == models.Assignment.id,
        models.Submission.user_pk == models.UserRow.id,
    )
    .correlate(models.Assignment, models.UserRow)
    .scalar_subquery()
)

_QUERY = (
    select(
        DatabaseClock(),
        models.Course.id,
        models.Course.title,
        models.Assignment.id,
        models.Assignment.released,
        models.Release.id,
        models.Release.token,
        models.Release.version,
        models.Release.key,
        models.Release.sha256,
        models.Release.size,
        models.UserRow.id,
        models.UserRow.full_name,
        models.UserRow.email,
        models.UserRow.lms_user_id,
        models.Subscription.role,
        models.Subscription.last_seen,
        _newest_time,
    )
    .select_from(models.Course)
    .join(models.Assignment, models.Assignment.course_pk == models.Course.id)
    .join(
        models.Release,
        and_(
            models.Release.assignment_pk == models.Assignment.id,
            models.Release.version == _newest_version,
        ),
    )
    .outerjoin(
        models.UserRow,
        and_(
            models.UserRow.org_id == bindparam("org_id"), models.UserRow.name == bindparam("name")
        ),
    )
    .outerjoin(
        models.Subscription,
        and_(
            models.Subscription.course_pk == models.Course.id,
            models.Subscription.user_pk == models.UserRow.id,
        ),
    )
    .where(
        models.Course.org_id == bindparam("org_id"),
        models.Course.course_id == bindparam("course_id"),
        models.Assignment.assignment_id == bindparam("assignment_id"),
    )
)


def assignment_state(
    session: Session, user: User, course_id: str, assignment_id: str
) -> AssignmentState:
    """Raises NotFound for an assignment that was never released."""
    row = session.execute(
        _QUERY,
        {
            "org_id": user.org_id,
            "name": user.name,
            "course_id": course_id,
            "assignment_id": assignment_id,
        },
    ).one_or_none()
    if row is None:
        raise not_released(course_id, assignment_id)
    return AssignmentState._make(row)


def released(session: Session, user: User, course_id: str, assignment_id: str) -> AssignmentState:
    """Raises NotFound for an assignment that is not released now."""
    state = assignment_state(session, user, course_id, assignment_id)
    if not state.released:
        raise not_released(course_id, assignment_id)
    return state


def not_released(course_id: str, assignment_id: str) -> NotFound:
    return NotFound(f"Assignment {assignment_id!r} is not released in course {course_id!r}.")
