"""The data of a course in batches, for `nbexchange export`.

Each batch is a transaction of its own. Rows refer to each other by value, so a copy that is made
while people work is consistent. A course may be purged between two batches, and SQLite may give its
primary key to a new course of any organisation. So every query also compares the organisation and
the course id.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.errors import NotFound
from nbexchange.exchange.names import is_hidden
from nbexchange.exchange.purge_records import Scope
from nbexchange.storage import Blob

BATCH = 500


class CourseRow(NamedTuple):
    pk: int
    org_id: int
    course_id: str
    title: str | None

    def is_it(self) -> ColumnElement[bool]:
        """The condition for a query that joins the course table."""
        return and_(
            models.Course.id == self.pk,
            models.Course.org_id == self.org_id,
            models.Course.course_id == self.course_id,
        )


class AssignmentRow(NamedTuple):
    assignment_id: str
    released: bool


class PersonRow(NamedTuple):
    name: str
    full_name: str | None
    email: str | None
    lms_user_id: str | None
    role: str
    last_seen: datetime.datetime


class EventRow(NamedTuple):
    pk: int
    at: datetime.datetime
    action: str
    person: str
    assignment_id: str | None
    id: str | None
    detail: str | None


class ReleaseRow(NamedTuple):
    pk: int
    assignment_id: str
    version: int
    by: str
    id: str
    timestamp: datetime.datetime
    notebooks: Sequence[str]
    key: str
    sha256: str
    size: int
    is_newest: bool

    @property
    def blob(self) -> Blob:
        return Blob(self.key, self.sha256, self.size)


class FeedbackRow(NamedTuple):
    submission_pk: int
    notebook_id: str
    version: int
    by: str
    timestamp: datetime.datetime
    checksum: str | None
    key: str
    sha256: str
    size: int

    @property
    def blob(self) -> Blob:
        return Blob(self.key, self.sha256, self.size)


class SubmissionRow(NamedTuple):
    pk: int
    assignment_id: str
    student: str
    id: str
    timestamp: datetime.datetime
    arrived_at: datetime.datetime
    stored_at: datetime.datetime
    client_timestamp: str | None
    release_version: int
    notebooks: Sequence[str]
    key: str
    sha256: str
    size: int
    feedback: Sequence[FeedbackRow]
    """Every version, by notebook, oldest first."""

    @property
    def blob(self) -> Blob:
        return Blob(self.key, self.sha256, self.size)


def courses(session: Session, scope: Scope) -> list[CourseRow]:
    """Raises NotFound if there is none."""
    query = select(
        models.Course.id, models.Course.org_id, models.Course.course_id, models.Course.title
    ).where(models.Course.org_id == scope.org_id)
    if scope.course_id is not None:
        query = query.where(models.Course.course_id == scope.course_id)
    rows = session.execute(query.order_by(models.Course.id))
    course_rows = [CourseRow(*row) for row in rows if not is_hidden(row.course_id)]
    if not course_rows:
        raise NotFound(f"The exchange has no data of {scope}. Check the options.")
    return course_rows


def count_rows(session: Session, course: CourseRow) -> int:
    """The number of releases and submissions."""
    return sum(
        session.execute(
            select(func.count(table.id))
            .join(table.assignment)
            .join(models.Assignment.course)
            .where(course.is_it())
        ).scalar_one()
        for table in (models.Release, models.Submission)
    )


def assignments(session: Session, course: CourseRow) -> list[AssignmentRow]:
    query = (
        select(models.Assignment.assignment_id, models.Assignment.released)
        .join(models.Assignment.course)
        .where(course.is_it())
    )
    return [AssignmentRow(*row) for row in session.execute(query.order_by(models.Assignment.id))]


def people(session: Session, course: CourseRow) -> list[PersonRow]:
    """The roster."""
    query = (
        select(
            models.UserRow.name,
            models.UserRow.full_name,
            models.UserRow.email,
            models.UserRow.lms_user_id,
            models.Subscription.role,
            models.Subscription.last_seen,
        )
        .join(models.Subscription, models.Subscription.user_pk == models.UserRow.id)
        .join(models.Course, models.Course.id == models.Subscription.course_pk)
        .where(course.is_it())
    )
    return [PersonRow(*row) for row in session.execute(query.order_by(models.UserRow.id))]


def events(session: Session, course: CourseRow, after: int) -> list[EventRow]:
    """The next batch after the row with this primary key, as in the functions that follow."""
    query = (
        select(
            models.Event.id,
            models.Event.at,
            models.Event.action,
            models.UserRow.name,
            models.Assignment.assignment_id,
            models.Event.token,
            models.Event.detail,
        )
        .join(models.Event.user)
        .outerjoin(
            models.Assignment,
            and_(
                models.Assignment.id == models.Event.assignment_pk,
                models.Assignment.course_pk == models.Event.course_pk,
            ),
        )
        .join(models.Course, models.Course.id == models.Event.course_pk)
        .where(course.is_it(), models.Event.id > after)
    )
    return [EventRow(*row) for row in session.execute(query.order_by(models.Event.id).limit(BATCH))]


def releases(session: Session, course: CourseRow, after: int) -> list[ReleaseRow]:
    newest = (
        select(func.max(models.Release.version))
        .where(models.Release.assignment_pk == models.Assignment.id)
        .correlate(models.Assignment)
        .scalar_subquery()
    )
    query = _of_course(
        select(
            models.Release.id,
            models.Assignment.assignment_id,
            models.Release.version,
            models.UserRow.name,
            models.Release.token,
            models.Release.timestamp,
            models.Release.notebooks,
            models.Release.key,
            models.Release.sha256,
            models.Release.size,
            models.Release.version == newest,
        ),
        models.Release,
        course,
        after,
    )
    # MariaDB and MySQL return integers for booleans.
    return [ReleaseRow._make((*row[:-1], bool(row[-1]))) for row in session.execute(query)]


def submissions(session: Session, course: CourseRow, after: int) -> list[SubmissionRow]:
    query = _of_course(
        select(
            models.Submission.id,
            models.Assignment.assignment_id,
            models.UserRow.name,
            models.Submission.token,
            models.Submission.timestamp,
            models.Submission.arrived_at,
            models.Submission.stored_at,
            models.Submission.client_timestamp,
            models.Release.version,
            models.Submission.notebooks,
            models.Submission.key,
            models.Submission.sha256,
            models.Submission.size,
        ).join(models.Submission.release),
        models.Submission,
        course,
        after,
    )
    rows = session.execute(query).all()
    feedback = _feedback(session, [row.id for row in rows])
    return [SubmissionRow._make((*row, feedback[row.id])) for row in rows]


def _feedback(session: Session, submission_pks: Sequence[int]) -> dict[int, list[FeedbackRow]]:
    query = (
        select(
            models.Feedback.submission_pk,
            models.Feedback.notebook_id,
            models.Feedback.version,
            models.UserRow.name,
            models.Feedback.timestamp,
            models.Feedback.checksum,
            models.Feedback.key,
            models.Feedback.sha256,
            models.Feedback.size,
        )
        .join(models.Feedback.user)
        .where(models.Feedback.submission_pk.in_(submission_pks))
        .order_by(models.Feedback.notebook_id, models.Feedback.version)
    )
    by_submission: dict[int, list[FeedbackRow]] = defaultdict(list)
    for row in session.execute(query):
        by_submission[row.submission_pk].append(FeedbackRow(*row))
    return by_submission


def _of_course(
    query: Select[*tuple[Any, ...]],
    table: type[models.Release] | type[models.Submission],
    course: CourseRow,
    after: int,
) -> Select[*tuple[Any, ...]]:
    return (
        query.join(table.user)
        .join(table.assignment)
        .join(models.Assignment.course)
        .where(course.is_it(), table.id > after)
        .order_by(table.id)
        .limit(BATCH)
    )
