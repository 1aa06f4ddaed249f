"""What was done: one event in the transaction that does it."""

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
    """Note that somebody got a file, unless that is known already.

    The whole file again is noted after REPEAT_AFTER. A part may be all that a client asks for, so
    it is noted too, but only where the person has no event for this file: a broken download is
    resumed in parts.
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

    Not every one: an instructor collects hundreds of times, and the whole is in the history.
    """
    # A join: MariaDB answers `id IN (... UNION ...)` by asking the union for every event there is.
    newest = union_all(*(_newest(user, courses, action) for action in LISTED)).subquery()
    rows = session.execute(
        ACTIONS.where(models.Course.org_id == user.org_id)
        .join(newest, newest.c.id == models.Event.id)
        .order_by(models.Event.id)
    )
    return [ActionRecord(*row) for row in rows]


def _newest(user: User, courses: Iterable[str], action: Action) -> Select[int]:
    """For each assignment one look into the index, however much was done."""
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
    # Not in its course any more is one that is hidden.
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
"""The columns of an ActionRecord, in its order, of every organisation: the caller has to choose."""

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
"""The same for purges, whose assignment may be no more: they have a number of their own."""
