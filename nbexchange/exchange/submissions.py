"""submit, list submissions and collect: what students hand in."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from nbexchange import models
from nbexchange.archive import Contents
from nbexchange.database import clock
from nbexchange.errors import Malformed, NotFound
from nbexchange.exchange.events import note
from nbexchange.exchange.feedback import newest_feedback
from nbexchange.exchange.lookup import find_assignment, not_released
from nbexchange.exchange.people import remember
from nbexchange.exchange.policy import Reach, Verb, permit
from nbexchange.exchange.records import SubmissionRecord
from nbexchange.exchange.retries import earlier, used_before
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.storage import Blob, new_key
from nbexchange.timestamps import normal_claim

TICK = datetime.timedelta(microseconds=1)


@dataclass(frozen=True)
class Admission:
    """What was settled when the header of a submission arrived."""

    arrived_at: datetime.datetime
    release_pk: int
    after: datetime.datetime | None
    """The official time of the caller's newest submission then."""


def admit_submission(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    *,
    idempotency_key: str | None,
) -> Admission:
    """Everything that can refuse a submission before its bytes are read, and the clock."""
    permit(user, Verb.SUBMIT, course_id)
    retried = earlier(session, models.Submission, user, idempotency_key)
    if retried is not None:
        return Admission(retried.arrived_at, retried.release_pk, None)
    assignment = find_assignment(session, user, course_id, assignment_id)
    release_pk = session.execute(
        select(func.max(models.Release.id)).where(models.Release.assignment_pk == assignment.id)
    ).scalar_one()
    if not assignment.released:
        raise not_released(course_id, assignment_id)
    return Admission(clock(session), release_pk, _newest_time(session, user, assignment))


def submit(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    blob: Blob,
    contents: Contents,
    admission: Admission,
    *,
    committed: bool,
    client_timestamp: str | None,
    idempotency_key: str | None,
) -> SubmissionRecord:
    """Keep the student's work under its official time.

    That is when the header arrived if the header held the digest (`committed`), since nobody
    could change the bytes after that; else when all had arrived. It is unique, and later than
    that of every submission that was complete when this one began: where the clock was set back,
    the order wins.
    """
    permit(user, Verb.SUBMIT, course_id)
    assignment = find_assignment(session, user, course_id, assignment_id)
    row = earlier(session, models.Submission, user, idempotency_key, blob)
    if row is not None and row.assignment_pk != assignment.id:
        raise used_before()
    if row is None:
        place = remember(session, user, course_id)
        now = clock(session)
        row = models.Submission(
            token=new_key(),
            assignment_pk=assignment.id,
            user_pk=place.user_pk,
            release_pk=admission.release_pk,
            key=blob.key,
            sha256=blob.sha256,
            size=blob.size,
            timestamp=_official_time(
                session, user, assignment, admission, now, committed=committed
            ),
            arrived_at=admission.arrived_at,
            stored_at=now,
            client_timestamp=normal_claim(client_timestamp or contents.timestamp),
            notebooks=top_level(contents.notebooks),
            idempotency_key=idempotency_key,
        )
        session.add(row)
        note(session, place, Action.SUBMITTED, assignment, row.token)
        session.flush()
    return _one(session, user, course_id, models.Submission.id == row.id)


class Page(NamedTuple):
    records: Sequence[SubmissionRecord]
    next: str | None
    """What to ask for as `page` to get the rest; None at the end."""


def list_submissions(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str | None = None,
    *,
    student_id: str | None = None,
    latest: bool = False,
    limit: int | None = None,
    page: str | None = None,
) -> Page:
    """What was handed in, newest first for each student; a student sees the own only."""
    reach = permit(user, Verb.LIST_SUBMISSIONS, course_id)
    query = _submissions(user.org_id, [course_id])
    if reach is Reach.OWN:
        query = query.where(models.User.name == user.name)
    if student_id is not None:
        query = query.where(models.User.name == student_id)
    if assignment_id is not None:
        query = query.where(models.Assignment.assignment_id == assignment_id)
    if latest:
        query = query.where(_is_latest())
    if page is not None:
        query = query.where(_after(session, user, course_id, page))
    query = query.order_by(*_ORDER)
    if limit is None:
        return Page(_records(session, query), None)
    records = _records(session, query.limit(limit + 1))
    more = len(records) > limit
    return Page(records[:limit], records[limit - 1].token if more else None)


def collect(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    token: str,
    *,
    first_part: bool = True,
) -> SubmissionRecord:
    """One submission: any for an instructor, an own one for a student."""
    reach = permit(user, Verb.COLLECT, course_id)
    record = _one(session, user, course_id, models.Submission.token == token)
    if record.assignment_id != assignment_id or (
        reach is Reach.OWN and record.student_id != user.name
    ):
        raise _no_submission()
    if first_part:
        place = remember(session, user, course_id)
        assignment = find_assignment(session, user, course_id, assignment_id)
        note(session, place, Action.COLLECTED, assignment, token)
    return record


def own_submissions(session: Session, user: User, courses: Iterable[str]) -> list[SubmissionRecord]:
    """All that the caller handed in, oldest first."""
    query = _submissions(user.org_id, courses).where(models.User.name == user.name)
    return _records(session, query.order_by(models.Submission.timestamp))


def top_level(notebooks: Iterable[str]) -> list[str]:
    """nbgrader grades the notebooks that lie at the top of an assignment, and only those."""
    return [path for path in notebooks if "/" not in path]


# -- time


def _newest_time(
    session: Session, user: User, assignment: models.Assignment
) -> datetime.datetime | None:
    newest = _own(user, assignment).order_by(models.Submission.timestamp.desc()).limit(1)
    return session.execute(newest).scalar_one_or_none()


def _official_time(
    session: Session,
    user: User,
    assignment: models.Assignment,
    admission: Admission,
    now: datetime.datetime,
    *,
    committed: bool,
) -> datetime.datetime:
    if committed:
        time, after = admission.arrived_at, admission.after
    else:
        time, after = now, _newest_time(session, user, assignment)
    if after is not None:
        time = max(time, after + TICK)
    while _is_taken(session, user, assignment, time):
        time += TICK
    return time


def _is_taken(
    session: Session, user: User, assignment: models.Assignment, time: datetime.datetime
) -> bool:
    taken = _own(user, assignment).where(models.Submission.timestamp == time)
    return session.execute(taken).first() is not None


def _own(user: User, assignment: models.Assignment) -> Select[datetime.datetime]:
    return (
        select(models.Submission.timestamp)
        .join(models.Submission.user)
        .where(
            models.Submission.assignment_pk == assignment.id,
            models.User.org_id == user.org_id,
            models.User.name == user.name,
        )
    )


# -- reading

_ORDER = (
    models.Submission.assignment_pk,
    models.Submission.user_pk,
    models.Submission.timestamp.desc(),
)

_Row = Select[models.Submission, str, str, int, str, str, str | None, str | None, str | None]


def _submissions(org_id: int, courses: Iterable[str]) -> _Row:
    return (
        select(
            models.Submission,
            models.Course.course_id,
            models.Assignment.assignment_id,
            models.Release.version,
            models.Release.token,
            models.User.name,
            models.User.full_name,
            models.User.email,
            models.User.lms_user_id,
        )
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .join(models.Submission.user)
        .join(models.Submission.release)
        .where(models.Course.org_id == org_id, models.Course.course_id.in_(courses))
    )


def _records(session: Session, query: _Row) -> list[SubmissionRecord]:
    rows = session.execute(query).all()
    feedback = newest_feedback(session, [row[0].id for row in rows])
    return [
        SubmissionRecord(
            course_id=course_id,
            assignment_id=assignment_id,
            token=row.token,
            version=version,
            release_token=release_token,
            timestamp=row.timestamp,
            client_timestamp=row.client_timestamp,
            notebooks=row.notebooks,
            blob=Blob(row.key, row.sha256, row.size),
            user_pk=row.user_pk,
            student_id=student_id,
            full_name=full_name,
            email=email,
            lms_user_id=lms_user_id,
            feedback=feedback.get(row.id, ()),
        )
        for (
            row,
            course_id,
            assignment_id,
            version,
            release_token,
            student_id,
            full_name,
            email,
            lms_user_id,
        ) in rows
    ]


def _one(
    session: Session, user: User, course_id: str, which: ColumnElement[bool]
) -> SubmissionRecord:
    records = _records(session, _submissions(user.org_id, [course_id]).where(which))
    if not records:
        raise _no_submission()
    return records[0]


def _no_submission() -> NotFound:
    return NotFound("there is no such submission; list the submissions again")


def _is_latest() -> ColumnElement[bool]:
    later = aliased(models.Submission)
    return ~exists().where(
        later.assignment_pk == models.Submission.assignment_pk,
        later.user_pk == models.Submission.user_pk,
        later.timestamp > models.Submission.timestamp,
    )


def _after(session: Session, user: User, course_id: str, page: str) -> ColumnElement[bool]:
    """Behind the submission that ended the page before, in the order of `_ORDER`."""
    query = _submissions(user.org_id, [course_id]).where(models.Submission.token == page)
    row = session.execute(query).first()
    if row is None:
        raise Malformed("there is no such page; start again without one")
    last, this = row[0], models.Submission
    same_assignment = this.assignment_pk == last.assignment_pk
    return or_(
        this.assignment_pk > last.assignment_pk,
        and_(same_assignment, this.user_pk > last.user_pk),
        and_(same_assignment, this.user_pk == last.user_pk, this.timestamp < last.timestamp),
    )
