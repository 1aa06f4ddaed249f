"""What was done: one event in the transaction that does it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Select, func, insert, select, union_all
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock
from nbexchange.exchange.people import Place
from nbexchange.exchange.records import ActionRecord
from nbexchange.identity import User
from nbexchange.models import Action

# Releases and submissions are listed from their own tables.
LISTED = (
    Action.FETCHED,
    Action.COLLECTED,
    Action.FEEDBACK_RELEASED,
    Action.FEEDBACK_FETCHED,
)


def note(
    session: Session,
    place: Place,
    action: Action,
    assignment_pk: int | None,
    token: str | None = None,
    detail: str | None = None,
) -> None:
    session.execute(
        _NOTE,
        {
            "action": action,
            "course_pk": place.course_pk,
            "user_pk": place.user_pk,
            "assignment_pk": assignment_pk,
            "token": token,
            "detail": detail,
        },
    )


_NOTE = insert(models.Event.__table__).values(at=DatabaseClock())  # type: ignore[arg-type]


def newest_own(session: Session, user: User, courses: Iterable[str]) -> list[ActionRecord]:
    """The caller's newest action of each kind on each assignment.

    Not every one: an instructor collects hundreds of times, and the whole is in the history.
    """
    newest = union_all(*(_newest(user, courses, action) for action in LISTED))
    rows = session.execute(
        select_actions(user.org_id).where(models.Event.id.in_(newest)).order_by(models.Event.id)
    )
    return [ActionRecord(*row) for row in rows]


def _newest(user: User, courses: Iterable[str], action: Action) -> Select[int]:
    """For each assignment one look into the index, however much was done."""
    me = (
        select(models.User.id)
        .where(models.User.org_id == user.org_id, models.User.name == user.name)
        .scalar_subquery()
    )
    newest = (
        select(func.max(models.Event.id))
        .where(
            models.Event.assignment_pk == models.Assignment.id,
            models.Event.user_pk == me,
            models.Event.action == action,
        )
        .correlate(models.Assignment)
        .scalar_subquery()
    )
    return (
        select(newest)
        .select_from(models.Assignment)
        .join(models.Assignment.course)
        .where(models.Course.org_id == user.org_id, models.Course.course_id.in_(courses))
    )


def select_actions(org_id: int):  # type: ignore[no-untyped-def]
    """The columns of an ActionRecord, in its order, of one organisation."""
    return (
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
            models.User.id,
            models.User.name,
        )
        .join(models.Assignment, models.Assignment.id == models.Event.assignment_pk)
        .join(models.Course, models.Course.id == models.Event.course_pk)
        .join(models.Event.user)
        .where(models.Course.org_id == org_id)
    )
