"""history: what was done in a course, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import and_, or_
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.exchange.events import select_actions
from nbexchange.exchange.policy import Reach, Verb, permit
from nbexchange.exchange.records import ActionRecord
from nbexchange.identity import User
from nbexchange.models import Action


class Page(NamedTuple):
    records: Sequence[ActionRecord]
    next: int | None
    """What to ask for as `page` to get the rest; None at the end."""


def history(
    session: Session,
    user: User,
    course_id: str | None = None,
    *,
    action: Action | None = None,
    limit: int | None = None,
    page: int | None = None,
) -> Page:
    """Of one course, or of all the caller's. Students see releases and what they did themselves."""
    courses = [course_id] if course_id is not None else list(user.courses)
    everything = [course for course in courses if permit(user, Verb.HISTORY, course) is Reach.ALL]
    own = or_(models.Event.action == Action.RELEASED, models.User.name == user.name)
    query = select_actions(user.org_id).where(
        or_(
            models.Course.course_id.in_(everything),
            and_(models.Course.course_id.in_(courses), own),
        )
    )
    if action is not None:
        query = query.where(models.Event.action == action)
    if page is not None:
        query = query.where(models.Event.id < page)
    query = query.order_by(models.Event.id.desc())
    if limit is None:
        return Page([ActionRecord(*row) for row in session.execute(query)], None)
    rows = [ActionRecord(*row) for row in session.execute(query.limit(limit + 1))]
    more = len(rows) > limit
    return Page(rows[:limit], rows[limit - 1].id if more else None)
