"""release_feedback and fetch_feedback: feedback on its way to students.

Feedback belongs to one submission, not to a hash and not to the newest submission. Clients name the
submission by its id; old clients by the student and a timestamp, which may be the client's own.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import clock
from nbexchange.errors import Conflict, Malformed, NotFound, TooLarge
from nbexchange.exchange.assignment_state import assignment_state
from nbexchange.exchange.events import record_download, record_event
from nbexchange.exchange.locks import LockMode, lock_assignment
from nbexchange.exchange.names import check_file_name
from nbexchange.exchange.people import MembershipKeys, upsert_member
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.records import FeedbackReceipt, NotebookFeedback
from nbexchange.exchange.retries import earlier, used_before
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.storage import Blob
from nbexchange.timestamps import to_text

LOOKUP_SIZE = 500
"""Submissions of one query; SQLite and others limit the number of parameters."""

MOST_NOTEBOOKS = 250
MOST_VERSIONS = 10_000
"""Limits for one submission: notebooks with feedback, and versions of all its feedback. Every list
reads them, and quotas do not count rows: one instructor could make a list of 200,000 rows."""

_COLLECT = (
    "move the student's folder out of `submitted`, collect again, and run autograde and "
    "generate_feedback with --force."
)
"""collect never replaces a folder unless its timestamp is older."""


@dataclass(frozen=True)
class Target:
    """Which submission the feedback is for: by id, or by student and timestamp (old clients)."""

    submission_id: str | None = None
    student_id: str | None = None
    timestamp: str | None = None
    """In the form of `timestamps.normal_claim`."""


class SubmissionFeedback(NamedTuple):
    """The newest feedback on one submission, notebook by notebook."""

    submission_token: str
    timestamp: datetime.datetime
    client_timestamp: str | None
    notebooks: Sequence[NotebookFeedback]


def admit_feedback(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    notebook_id: str,
    target: Target,
    *,
    idempotency_key: str | None,
) -> tuple[bool, Blob | None]:
    """Check everything that can refuse feedback before its body is read.

    Returns whether it is a retry, and the blob of the previous version, which may be identical.
    """
    permit(user, Verb.RELEASE_FEEDBACK, course_id)
    check_file_name(notebook_id, "A notebook id")
    state = assignment_state(session, user, course_id, assignment_id)
    submission = _find_submission(session, user.org_id, state.assignment_pk, target)
    newest = _newest(session, submission, notebook_id)
    is_retry = earlier(session, models.Feedback, user, idempotency_key) is not None
    if not is_retry:
        _check_number(session, submission, is_first=newest is None)
    return is_retry, None if newest is None else _blob_of(newest)


def release_feedback(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    notebook_id: str,
    target: Target,
    blob: Blob,
    *,
    shared: Blob | None,
    checksum: str | None,
    idempotency_key: str | None,
) -> FeedbackReceipt:
    """Add a version of the feedback on one notebook.

    `shared` is the blob of the previous version if it is identical and readable. The row then uses
    that blob instead of `blob`.
    """
    permit(user, Verb.RELEASE_FEEDBACK, course_id)
    state = assignment_state(session, user, course_id, assignment_id)
    lock_assignment(session, state.course_pk, state.assignment_pk, LockMode.SHARED)
    submission = _find_submission(session, user.org_id, state.assignment_pk, target)
    member = upsert_member(session, user, course_id, state)
    row = earlier(session, models.Feedback, user, idempotency_key, blob)
    if row is not None and (row.submission_pk, row.notebook_id) != (submission.id, notebook_id):
        raise used_before()
    if row is None:
        row = _add_version(session, member, submission, notebook_id, shared or blob)
        row.checksum, row.idempotency_key = checksum, idempotency_key
        session.flush()
        record_event(
            session, member, Action.FEEDBACK_RELEASED, state.assignment_pk, submission.token
        )
    return FeedbackReceipt(
        submission_token=submission.token,
        notebook_id=row.notebook_id,
        version=row.version,
        timestamp=row.timestamp,
        blob=_blob_of(row),
    )


def fetch_feedback(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    submission_id: str | None = None,
) -> list[SubmissionFeedback]:
    """The caller's own feedback, for each submission that has some, oldest submission first.

    It only reads, so that a long list does not block writers. The caller calls `record_fetch` after
    it, and before the first byte leaves.
    """
    permit(user, Verb.FETCH_FEEDBACK, course_id)
    state = assignment_state(session, user, course_id, assignment_id)
    query = (
        select(
            models.Submission.id,
            models.Submission.token,
            models.Submission.timestamp,
            models.Submission.client_timestamp,
        )
        .where(
            models.Submission.assignment_pk == state.assignment_pk,
            models.Submission.user_pk == state.user_pk,
        )
        .order_by(models.Submission.timestamp)
    )
    if submission_id is not None:
        query = query.where(models.Submission.token == submission_id)
    submissions = session.execute(query).all()
    feedback = newest_feedback(session, [row.id for row in submissions])
    return [
        SubmissionFeedback(row.token, row.timestamp, row.client_timestamp, feedback[row.id])
        for row in submissions
        if row.id in feedback
    ]


def record_fetch(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    submission_id: str | None = None,
) -> None:
    """Record the event of a fetch that returned feedback."""
    permit(user, Verb.FETCH_FEEDBACK, course_id)
    state = assignment_state(session, user, course_id, assignment_id)
    member = upsert_member(session, user, course_id, state)
    record_download(
        session,
        member,
        Action.FEEDBACK_FETCHED,
        state.assignment_pk,
        submission_id,
        now=state.now,
    )


def newest_feedback(
    session: Session, submission_pks: Sequence[int]
) -> Mapping[int, Sequence[NotebookFeedback]]:
    """The newest version for each notebook, by submission, sorted by notebook."""
    feedback_by_submission: dict[int, list[NotebookFeedback]] = defaultdict(list)
    for start in range(0, len(submission_pks), LOOKUP_SIZE):
        wanted = models.Feedback.submission_pk.in_(submission_pks[start : start + LOOKUP_SIZE])
        newest = (
            select(func.max(models.Feedback.id))
            .where(wanted)
            .group_by(models.Feedback.submission_pk, models.Feedback.notebook_id)
        )
        rows = session.execute(
            select(*_COLUMNS)
            .where(models.Feedback.id.in_(newest))
            .order_by(models.Feedback.notebook_id)
        )
        for row in rows:
            feedback_by_submission[row.submission_pk].append(
                NotebookFeedback(
                    notebook_id=row.notebook_id,
                    version=row.version,
                    timestamp=row.timestamp,
                    checksum=row.checksum,
                    blob=Blob(row.key, row.sha256, row.size),
                )
            )
    return feedback_by_submission


_COLUMNS = (
    models.Feedback.submission_pk,
    models.Feedback.notebook_id,
    models.Feedback.version,
    models.Feedback.timestamp,
    models.Feedback.checksum,
    models.Feedback.key,
    models.Feedback.sha256,
    models.Feedback.size,
)


def _check_number(session: Session, submission: models.Submission, *, is_first: bool) -> None:
    """Raises TooLarge if the submission has reached a limit. `is_first`: this is the first feedback
    on its notebook."""
    of_submission = models.Feedback.submission_pk == submission.id
    versions = session.execute(select(func.count()).where(of_submission)).scalar_one()
    if versions >= MOST_VERSIONS:
        raise TooLarge(
            f"Feedback on this submission was released {versions:,} times, which is the limit, so "
            "this feedback was not stored."
        )
    if is_first and versions >= MOST_NOTEBOOKS:
        notebooks = select(func.count(models.Feedback.notebook_id.distinct())).where(of_submission)
        if session.execute(notebooks).scalar_one() >= MOST_NOTEBOOKS:
            raise TooLarge(
                f"This submission has feedback on {MOST_NOTEBOOKS} notebooks, which is the limit, "
                "so feedback on another notebook was not stored."
            )


def _find_submission(
    session: Session, org_id: int, assignment_pk: int, target: Target
) -> models.Submission:
    query = select(models.Submission).where(models.Submission.assignment_pk == assignment_pk)
    if target.submission_id is not None:
        query = query.where(models.Submission.token == target.submission_id)
        if target.student_id is not None:
            query = query.join(models.Submission.user).where(
                models.UserRow.org_id == org_id, models.UserRow.name == target.student_id
            )
        row = session.execute(query).scalar_one_or_none()
        if row is None:
            raise NotFound(
                f"This submission does not exist in the assignment. To repair this, {_COLLECT}"
            )
        return row
    if target.student_id is None or target.timestamp is None:
        raise Malformed("Feedback needs submission_id, or student and timestamp.")
    rows = session.execute(
        query.join(models.Submission.user).where(
            models.UserRow.org_id == org_id, models.UserRow.name == target.student_id
        )
    ).scalars()
    return _by_timestamp(list(rows), target)


def _by_timestamp(rows: Sequence[models.Submission], target: Target) -> models.Submission:
    official = [row for row in rows if to_text(row.timestamp) == target.timestamp]
    claimed = [row for row in rows if row.client_timestamp == target.timestamp]
    matching = official or claimed
    if not matching:
        raise NotFound(
            f"{target.student_id!r} has no submission of {target.timestamp}. To repair this, "
            f"{_COLLECT}"
        )
    if len(matching) > 1:
        raise Conflict(
            f"{target.student_id!r} has several submissions with the time {target.timestamp}. "
            f"With a newer nbexchange plugin, which names the submission, {_COLLECT}"
        )
    return matching[0]


def _blob_of(row: models.Feedback) -> Blob:
    return Blob(row.key, row.sha256, row.size)


def _newest(
    session: Session, submission: models.Submission, notebook_id: str
) -> models.Feedback | None:
    return session.execute(
        select(models.Feedback)
        .where(
            models.Feedback.submission_pk == submission.id,
            models.Feedback.notebook_id == notebook_id,
        )
        .order_by(models.Feedback.version.desc())
        .limit(1)
    ).scalar_one_or_none()


def _add_version(
    session: Session,
    member: MembershipKeys,
    submission: models.Submission,
    notebook_id: str,
    blob: Blob,
) -> models.Feedback:
    newest = _newest(session, submission, notebook_id)
    row = models.Feedback(
        submission_pk=submission.id,
        user_pk=member.user_pk,
        notebook_id=notebook_id,
        version=newest.version + 1 if newest else 1,
        key=blob.key,
        sha256=blob.sha256,
        size=blob.size,
        timestamp=clock(session),
    )
    session.add(row)
    return row
