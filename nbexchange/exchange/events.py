"""Events: each is written in the transaction that does what it records."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from sqlalchemy import Select, and_, insert, select, union_all
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock
from nbexchange.exchange.people import MembershipKeys
from nbexchange.exchange.records import ActionRecord
from nbexchange.exchange.walks import unindexed
from nbexchange.identity import User
from nbexchange.models import Action

# Releases and submissions are listed from their own tables.
LISTED = (
    Action.FETCHED,
    Action.COLLECTED,
    Action.FEEDBACK_RELEASED,
    Action.FEEDBACK_FETCHED,
)


REPEAT_AFTER = datetime.timedelta(minutes=1)
"""How long one event stands for all downloads of the same file by the same person."""


def record_event(
    session: Session,
    member: MembershipKeys,
    action: Action,
    assignment_pk: int | None,
    token: str | None = None,
    detail: str | None = None,
) -> None:
    session.execute(
        _INSERT_EVENT,
        {
            "action": action,
            "course_pk": member.course_pk,
            "user_pk": member.user_pk,
            "assignment_pk": assignment_pk,
            "token": token,
            "detail": detail,
        },
    )


def record_download(
    session: Session,
    member: MembershipKeys,
    action: Action,
    assignment_pk: int,
    token: str | None,
    *,
    now: datetime.datetime,
    is_part: bool = False,
) -> None:
    """Record that a user downloaded a file, unless a recent event says so already.

    A repeated download of the whole file is recorded after REPEAT_AFTER. A client may ask for one
    part only, so a part is recorded too, but only if the user has no event for this file: an
    interrupted download is resumed in parts.
    """
    last = session.execute(
        select(models.Event.at)
        .where(
            unindexed(models.Event.assignment_pk) == assignment_pk,
            models.Event.token == token,
            models.Event.user_pk == member.user_pk,
            models.Event.action == action,
        )
        .order_by(models.Event.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    if last is None or (not is_part and now - last >= REPEAT_AFTER):
        record_event(session, member, action, assignment_pk, token)


_INSERT_EVENT = insert(models.Event.__table__).values(at=DatabaseClock())  # type: ignore[arg-type]


def newest_own(session: Session, user: User, courses: Iterable[str]) -> list[ActionRecord]:
    """The caller's newest action of each kind on each assignment.

    The history has all of them: an instructor may collect hundreds of times.
    """
    # A join: for `id IN (... UNION ...)` MariaDB evaluates the union for every event.
    newest = union_all(*(_newest(user, courses, action) for action in LISTED)).subquery()
    rows = session.execute(
        ACTIONS.where(models.Course.org_id == user.org_id)
        .join(newest, newest.c.id == models.Event.id)
        .order_by(models.Event.id)
    )
    return [ActionRecord(*row) for row in rows]


def _newest(user: User, courses: Iterable[str], action: Action) -> Select[int]:
    """One index lookup for each assignment, however many events it has."""
    me = (
        select(models.UserRow.id)
        .where(models.UserRow.org_id == user.org_id, models.UserRow.name == user.name)
        .scalar_subquery()
    )
    # Not max(id): MariaDB would read all of them for it.
    newest = (
        select(models.Event.id)
        .where(
            models.Event.assignment_pk == models.Assignment.id,
            models.Event.user_pk == me,
            models.Event.action == action,
        )
        .order_by(models.Event.id.desc())
        .limit(1)
        .correlate(models.Assignment)
        .scalar_subquery()
    )
    return (
        select(newest.label("id"))
        .select_from(models.Assignment)
        .join(models.Assignment.course)
        .where(models.Course.org_id == user.org_id, models.Course.course_id.in_(courses))
    )


ACTIONS = (
    select(
        models.Event.id,
        models.Event.action,
        models.Event.at,
        models.Course.course_id,
        models.Course.id,
        models.Course.title,
        models.Assignment.assignment_id,
        models.Assignment.id,
        models.Event.token,
        models.UserRow.id,
        models.UserRow.name,
    )
    # A hidden assignment is not in the event's course any more.
    .join(
        models.Assignment,
        and_(
            models.Assignment.id == models.Event.assignment_pk,
            models.Assignment.course_pk == models.Event.course_pk,
        ),
    )
    .join(models.Course, models.Course.id == models.Event.course_pk)
    .join(models.Event.user)
)
"""The columns of an ActionRecord, in its order. The caller must restrict the organisation."""

PURGES = (
    select(
        models.Event.id,
        models.Event.action,
        models.Event.at,
        models.Course.course_id,
        models.Course.id,
        models.Course.title,
        models.Event.detail,
        (0 - models.Event.id).label("number"),
        models.Event.token,
        models.UserRow.id,
        models.UserRow.name,
    )
    .join(models.Course, models.Course.id == models.Event.course_pk)
    .join(models.Event.user)
    .where(models.Event.action == Action.PURGED)
)
"""The same for purges. Their assignment may not exist any more, so each has a number of its own."""
