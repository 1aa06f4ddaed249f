"""list: what a member of a course sees of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from nbexchange import models
from nbexchange.exchange.assignments import release_record
from nbexchange.exchange.events import newest_own
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.records import ActionRecord, ReleaseRecord, SubmissionRecord
from nbexchange.exchange.submissions import own_submissions
from nbexchange.identity import User


class Listing(NamedTuple):
    """What a member sees: the newest releases, and what they did themselves."""

    releases: Sequence[ReleaseRecord]
    submissions: Sequence[SubmissionRecord]
    actions: Sequence[ActionRecord]


def list_assignments(session: Session, user: User, course_id: str | None) -> Listing:
    """Of one course, or of all the caller's courses; the number of queries is constant."""
    courses = [course_id] if course_id is not None else list(user.courses)
    for course in courses:
        permit(user, Verb.LIST, course)
    return Listing(
        _newest_releases(session, user.org_id, courses),
        own_submissions(session, user, courses),
        newest_own(session, user, courses),
    )


def _newest_releases(session: Session, org_id: int, courses: Iterable[str]) -> list[ReleaseRecord]:
    other = aliased(models.Release)
    newest = (
        select(func.max(other.version))
        .where(other.assignment_pk == models.Assignment.id)
        .correlate(models.Assignment)
        .scalar_subquery()
    )
    rows = session.execute(
        select(
            models.Release,
            models.Course.course_id,
            models.Assignment.assignment_id,
            models.User.name,
        )
        .join(models.Release.assignment)
        .join(models.Assignment.course)
        .join(models.Release.user)
        .where(
            models.Course.org_id == org_id,
            models.Course.course_id.in_(courses),
            models.Assignment.released.is_(True),
            models.Release.version == newest,
        )
        .order_by(models.Course.course_id, models.Assignment.assignment_id)
    )
    return [release_record(*row) for row in rows]
