"""list: the releases, submissions and actions that a member of a course sees."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from nbexchange import models
from nbexchange.exchange.assignments import release_record
from nbexchange.exchange.events import newest_own
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.records import ActionRecord, ReleaseRecord, SubmissionRecord
from nbexchange.exchange.submissions import own_submissions
from nbexchange.exchange.walks import Query, Walk, keys_of, unindexed
from nbexchange.identity import User


class Listing(NamedTuple):
    """The newest releases, and the caller's own submissions and actions."""

    releases: Walk[ReleaseRecord]
    submissions: Walk[SubmissionRecord]
    actions: Walk[ActionRecord]


def list_assignments(session: Session, user: User, course_id: str | None) -> Listing:
    """For one course, or for all the caller's courses. The number of queries is constant."""
    courses = [course_id] if course_id is not None else list(user.courses)
    for course in courses:
        permit(user, Verb.LIST, course)
    return Listing(
        _newest_releases(session, user.org_id, courses),
        own_submissions(session, user, courses),
        Walk.over({action.id: action for action in newest_own(session, user, courses)}),
    )


def _newest_releases(session: Session, org_id: int, courses: Iterable[str]) -> Walk[ReleaseRecord]:
    other = aliased(models.Release)
    newest = (
        select(other.id)
        .where(other.assignment_pk == models.Assignment.id)
        .order_by(other.version.desc())
        .limit(1)
        .correlate(models.Assignment)
        .scalar_subquery()
    )
    query = (
        _joined(select())
        .where(
            models.Course.org_id == org_id,
            models.Course.course_id.in_(courses),
            models.Assignment.released.is_(True),
            models.Release.id == newest,
        )
        .order_by(models.Course.course_id, models.Assignment.assignment_id)
    )
    visible = _joined(
        select(
            models.Release,
            models.Course.course_id,
            models.Assignment.assignment_id,
            models.UserRow.name,
        )
    ).where(unindexed(models.Course.org_id) == org_id, models.Course.course_id.in_(courses))
    rows = session.execute(keys_of(query, models.Release.id, models.Release.notebooks))
    return Walk(((key, size) for key, size in rows), functools.partial(_read_releases, visible))


def _read_releases(
    visible: Query, session: Session, keys: Sequence[int]
) -> dict[int, ReleaseRecord]:
    rows = session.execute(visible.where(models.Release.id.in_(keys)))
    return {row[0].id: release_record(*row) for row in rows}


def _joined(query: Query) -> Query:
    return (
        query.select_from(models.Release)
        .join(models.Release.assignment)
        .join(models.Assignment.course)
        .join(models.Release.user)
    )
