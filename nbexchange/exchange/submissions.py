"""submit, list submissions and collect: submissions on their way to instructors."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, bindparam, exists, func, insert, or_, select
from sqlalchemy.orm import Session, aliased

from nbexchange import models
from nbexchange.archive import Contents
from nbexchange.errors import BadArchive, NotFound, TooLarge
from nbexchange.exchange.assignment_state import assignment_state, not_released, released
from nbexchange.exchange.cursors import no_such_page
from nbexchange.exchange.events import record_download, record_event
from nbexchange.exchange.feedback import MOST_NOTEBOOKS, newest_feedback
from nbexchange.exchange.locks import LockMode, lock_assignment
from nbexchange.exchange.names import check_student_name
from nbexchange.exchange.official_time import keeps_header_time, official_time
from nbexchange.exchange.people import MembershipKeys, upsert_member
from nbexchange.exchange.policy import Reach, Verb, permit
from nbexchange.exchange.quotas import check_student, lock_user
from nbexchange.exchange.records import Handout, SubmissionReceipt, SubmissionRecord
from nbexchange.exchange.retries import earlier, used_before
from nbexchange.exchange.walks import Query, Walk, keys_of, unindexed
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.storage import Blob, new_key
from nbexchange.timestamps import normal_claim

MOST_SUBMISSIONS = 1000
"""Limit for one student and one assignment. Quotas do not count that a row and its file take up to
20 kB of the disk however small the file is."""

LONGEST_NOTEBOOKS = 16 * 1024
"""Limit for the characters in the names of a submission's top-level notebooks, of which there are
at most MOST_NOTEBOOKS. Every list contains them: without a limit, 60 archives of 200 kB could make
one page of a list 180 MB large."""


class Admission(NamedTuple):
    """The facts that are fixed when the header of a submission arrives."""

    arrived_at: datetime.datetime
    assignment_pk: int
    release_pk: int
    release_token: str
    """Unlike a primary key, it is never used again. SQLite reuses the keys of erased rows."""
    after: datetime.datetime | None
    """The official time of the caller's newest submission at that moment."""
    is_retry: bool = False
    """Whether it is stored already."""


def admit_submission(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    *,
    idempotency_key: str | None,
    waited: Callable[[], datetime.timedelta],
) -> Admission:
    """Check everything that can refuse a submission before its body is read, and read the clock.

    `waited` returns how long ago the header arrived. Since then the request may have waited for
    the hub or for its turn.
    """
    permit(user, Verb.SUBMIT, course_id)
    check_student_name(user.name)
    retried = earlier(session, models.Submission, user, idempotency_key)
    if retried is not None:
        return Admission(
            retried.arrived_at,
            retried.assignment_pk,
            retried.release_pk,
            retried.release.token,
            None,
            is_retry=True,
        )
    ago = waited()  # before the clock is read, so that no time is earlier than its header
    state = released(session, user, course_id, assignment_id)
    if state.user_pk is not None:
        _check_number(session, state.user_pk, state.assignment_pk, assignment_id)
    return Admission(
        state.now - ago,
        state.assignment_pk,
        state.release_pk,
        state.release_token,
        state.newest_time,
    )


@dataclass(frozen=True)
class SubmissionUpload:
    """A submission whose bytes have arrived and were checked."""

    blob: Blob
    contents: Contents
    admission: Admission
    committed: bool
    """Whether `commitments` lets it keep the time of its header."""
    since: Callable[[], datetime.timedelta]
    """How long ago the last byte arrived, so that the service's own work does not count."""
    client_timestamp: str | None
    idempotency_key: str | None


def submit(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    upload: SubmissionUpload,
    quota: int,
) -> SubmissionReceipt:
    """Store the student's work under its official time (official_time.py).

    `quota` is how many bytes one student may keep; 0 for no limit.
    """
    permit(user, Verb.SUBMIT, course_id)
    session.connection()  # SQLite waits here for other writers
    ago = upload.since()  # before the clock is read, as in `admit_submission`
    state = assignment_state(session, user, course_id, assignment_id)
    if not lock_assignment(session, state.course_pk, state.assignment_pk, LockMode.SHARED):
        raise not_released(course_id, assignment_id)
    member = upsert_member(session, user, course_id, state)
    if quota:
        lock_user(session, member.user_pk)
    row = earlier(session, models.Submission, user, upload.idempotency_key, upload.blob)
    if row is not None:
        if row.assignment_pk != state.assignment_pk:
            raise used_before()
        return _receipt(session, user, course_id, assignment_id, row.token)
    admission, completed_at = upload.admission, state.now - ago
    if not _is_there(session, state.assignment_pk, admission):
        raise not_released(course_id, assignment_id)  # erased meanwhile and released again
    notebooks = listable(upload.contents.notebooks)
    # An upload that was completed after the assignment was removed may be work done after that.
    if not state.released and not keeps_header_time(
        admission.arrived_at, completed_at, committed=upload.committed
    ):
        raise not_released(course_id, assignment_id)
    check_student(session, user, upload.blob.size, quota)
    time = official_time(
        admission.arrived_at,
        completed_at,
        committed=upload.committed,
        after=admission.after,
        is_taken=functools.partial(_is_taken, session, state.assignment_pk, member),
    )
    token = new_key()
    claim = upload.client_timestamp or upload.contents.timestamp
    session.execute(
        _INSERT,
        {
            "token": token,
            "assignment_pk": state.assignment_pk,
            "user_pk": member.user_pk,
            "release_pk": admission.release_pk,
            "key": upload.blob.key,
            "sha256": upload.blob.sha256,
            "size": upload.blob.size,
            "timestamp": time,
            "arrived_at": admission.arrived_at,
            "stored_at": state.now,
            "client_timestamp": normal_claim(claim),
            "notebooks": notebooks,
            "idempotency_key": upload.idempotency_key,
        },
    )
    record_event(session, member, Action.SUBMITTED, state.assignment_pk, token)
    return _receipt(session, user, course_id, assignment_id, token)


def _check_number(session: Session, user_pk: int, assignment_pk: int, assignment_id: str) -> None:
    query = select(func.count()).where(
        models.Submission.assignment_pk == assignment_pk, models.Submission.user_pk == user_pk
    )
    if session.execute(query).scalar_one() >= MOST_SUBMISSIONS:
        raise TooLarge(
            f"You have submitted {assignment_id} {MOST_SUBMISSIONS:,} times, which is the limit, "
            "so this submission was not stored. Ask your instructor."
        )


def _is_there(session: Session, assignment_pk: int, admission: Admission) -> bool:
    """Whether the release of the admission still belongs to this assignment."""
    query = select(models.Release.id).where(
        models.Release.id == admission.release_pk,
        models.Release.token == admission.release_token,
        models.Release.assignment_pk == assignment_pk,
    )
    return session.execute(query).first() is not None


_INSERT = insert(models.Submission.__table__)  # type: ignore[arg-type]


class SubmissionPage(NamedTuple):
    records: Walk[SubmissionRecord]
    next: str | None
    """The value of `page` for the next page; None at the end."""


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
) -> SubmissionPage:
    """Submissions, newest first for each student. Students see only their own."""
    reach = permit(user, Verb.LIST_SUBMISSIONS, course_id)
    last = None if page is None else _last_of(session, user, course_id, page)
    visible = _submissions(user.org_id, [course_id])
    query = keys_of(select(), models.Submission.id, models.Submission.notebooks)
    if reach is Reach.OWN:
        visible = visible.where(models.UserRow.name == user.name)
        query = query.where(_by(user.org_id, user.name))
    if student_id is not None:
        query = query.where(_by(user.org_id, student_id))
    if latest:
        query = query.where(_is_latest())
    pks = _assignment_pks(session, user.org_id, course_id, assignment_id)
    rows = _rows(session, query, pks, last, None if limit is None else limit + 1)
    read = functools.partial(_records, visible)
    if limit is None or len(rows) <= limit:
        return SubmissionPage(Walk(rows, read), None)
    return SubmissionPage(Walk(rows[:limit], read), _token(session, rows[limit - 1][0]))


def _rows(
    session: Session,
    query: Query,
    assignment_pks: Iterable[int],
    last: Row[*tuple[Any, ...]] | None,
    wanted: int | None,
) -> Sequence[tuple[int, int]]:
    """The rows that a `Walk` starts with: those after `last`, at most `wanted`.

    One assignment after the other, because an index has each assignment's submissions in order. All
    submissions of a course would have to be sorted for each page.
    """
    rows: list[tuple[int, int]] = []
    for pk in assignment_pks:
        part = query.where(models.Submission.assignment_pk == pk).order_by(*_ORDER)
        if last is not None and pk <= last.assignment_pk:
            if pk < last.assignment_pk:
                continue
            part = part.where(_is_behind(last))
        rows += _tuples(session, part.limit(None if wanted is None else wanted - len(rows)))
        if len(rows) == wanted:
            break
    return rows


def _tuples(session: Session, query: Query) -> Sequence[tuple[int, int]]:
    return [(key, size) for key, size in session.execute(query)]


def _token(session: Session, key: int) -> str:
    query = select(models.Submission.token).where(models.Submission.id == key)
    return session.execute(query).scalar_one()


def collect(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    token: str,
    *,
    is_part: bool = False,
) -> Handout:
    """Return one submission: any of the course to an instructor, only their own to students.

    `is_part`: the caller asks for a range of its bytes.
    """
    reach = permit(user, Verb.COLLECT, course_id)
    state = assignment_state(session, user, course_id, assignment_id)
    query = (
        select(
            models.Submission.key,
            models.Submission.sha256,
            models.Submission.size,
            models.Release.version,
        )
        .join(models.Submission.release)
        .where(
            models.Submission.assignment_pk == state.assignment_pk,
            models.Submission.token == token,
        )
    )
    if reach is Reach.OWN:
        query = query.where(models.Submission.user_pk == state.user_pk)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound("This submission does not exist. List the submissions again.")
    record_download(
        session,
        upsert_member(session, user, course_id, state),
        Action.COLLECTED,
        state.assignment_pk,
        token,
        now=state.now,
        is_part=is_part,
    )
    return Handout(Blob(row.key, row.sha256, row.size), row.version)


def own_submissions(session: Session, user: User, courses: Iterable[str]) -> Walk[SubmissionRecord]:
    """All submissions of the caller, oldest first."""
    visible = _submissions(user.org_id, courses).where(models.UserRow.name == user.name)
    query = (
        keys_of(select(), models.Submission.id, models.Submission.notebooks)
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .where(
            _by(user.org_id, user.name),
            models.Course.org_id == user.org_id,
            models.Course.course_id.in_(courses),
        )
        .order_by(models.Submission.timestamp)
    )
    return Walk(_tuples(session, query), functools.partial(_records, visible))


def top_level(notebooks: Iterable[str]) -> list[str]:
    """nbgrader grades only the notebooks at the top level of an assignment."""
    return [path for path in notebooks if "/" not in path]


def listable(paths: Iterable[str]) -> list[str]:
    """The notebooks that lists show. Raises BadArchive if there are too many."""
    notebooks = top_level(paths)
    if not fits_in_lists(notebooks):
        raise BadArchive(
            f"There are more than {MOST_NOTEBOOKS} notebooks, or their names are too long. Put "
            "notebooks that are not graded into a folder."
        )
    return notebooks


def fits_in_lists(paths: Collection[str]) -> bool:
    return len(paths) <= MOST_NOTEBOOKS and sum(map(len, paths)) <= LONGEST_NOTEBOOKS


def _is_taken(
    session: Session, assignment_pk: int, member: MembershipKeys, time: datetime.datetime
) -> bool:
    taken = select(models.Submission.id).where(
        models.Submission.assignment_pk == assignment_pk,
        models.Submission.user_pk == member.user_pk,
        models.Submission.timestamp == time,
    )
    return session.execute(taken).first() is not None


def _receipt(
    session: Session, user: User, course_id: str, assignment_id: str, token: str
) -> SubmissionReceipt:
    """Read the row back, so that the receipt shows the stored values."""
    row = session.execute(_RECEIPT, {"token": token}).one()
    return SubmissionReceipt(
        course_id=course_id,
        assignment_id=assignment_id,
        student_id=user.name,
        token=token,
        timestamp=row.timestamp,
        release_token=row.release_token,
        version=row.version,
        blob=Blob(row.key, row.sha256, row.size),
    )


_RECEIPT = (
    select(
        models.Submission.timestamp,
        models.Submission.key,
        models.Submission.sha256,
        models.Submission.size,
        models.Release.token.label("release_token"),
        models.Release.version,
    )
    .join(models.Submission.release)
    .where(models.Submission.token == bindparam("token"))
)


# -- reading

# The order within each assignment. Both columns have the direction of an index.
_ORDER = (models.Submission.user_pk.desc(), models.Submission.timestamp.desc())

# Columns, not entities: 5,000 entities cost a third of a second, their columns a tenth.
_COLUMNS = (
    models.Submission.id,
    models.Course.course_id,
    models.Assignment.assignment_id,
    models.Submission.token,
    models.Release.version,
    models.Submission.timestamp,
    models.Submission.client_timestamp,
    models.Submission.notebooks,
    models.Submission.key,
    models.Submission.sha256,
    models.Submission.size,
    models.Submission.user_pk,
    models.UserRow.name,
    models.UserRow.full_name,
    models.UserRow.email,
    models.UserRow.lms_user_id,
)


def _assignment_pks(
    session: Session, org_id: int, course_id: str, assignment_id: str | None
) -> Sequence[int]:
    """The keys of one assignment, or of all assignments of a course in order."""
    query = (
        select(models.Assignment.id)
        .join(models.Assignment.course)
        .where(models.Course.org_id == org_id, models.Course.course_id == course_id)
        .order_by(models.Assignment.id)
    )
    if assignment_id is not None:
        query = query.where(models.Assignment.assignment_id == assignment_id)
    return session.execute(query).scalars().all()


def _submissions(org_id: int, courses: Iterable[str]) -> Query:
    """The query for records, to be restricted by keys."""
    return (
        select(*_COLUMNS)
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .join(models.Submission.user)
        .join(models.Submission.release)
        .where(unindexed(models.Course.org_id) == org_id, models.Course.course_id.in_(courses))
    )


def _by(org_id: int, name: str) -> ColumnElement[bool]:
    # With the organisation, the database finds the user in an index.
    person = select(models.UserRow.id).where(
        models.UserRow.org_id == org_id, models.UserRow.name == name
    )
    return models.Submission.user_pk == person.scalar_subquery()


def _records(visible: Query, session: Session, keys: Sequence[int]) -> dict[int, SubmissionRecord]:
    rows = session.execute(visible.where(models.Submission.id.in_(keys)))
    feedback = newest_feedback(session, keys)
    return {
        row.id: SubmissionRecord(
            course_id=row.course_id,
            assignment_id=row.assignment_id,
            token=row.token,
            version=row.version,
            timestamp=row.timestamp,
            client_timestamp=row.client_timestamp,
            notebooks=row.notebooks,
            blob=Blob(row.key, row.sha256, row.size),
            user_pk=row.user_pk,
            student_id=row.name,
            full_name=row.full_name,
            email=row.email,
            lms_user_id=row.lms_user_id,
            feedback=feedback.get(row.id, ()),
        )
        for row in rows
    }


def _is_latest() -> ColumnElement[bool]:
    later = aliased(models.Submission)
    return ~exists().where(
        later.assignment_pk == models.Submission.assignment_pk,
        later.user_pk == models.Submission.user_pk,
        later.timestamp > models.Submission.timestamp,
    )


def _last_of(session: Session, user: User, course_id: str, page: str) -> Row[*tuple[Any, ...]]:
    """The position of the submission that ended the previous page."""
    last = session.execute(
        select(
            models.Submission.assignment_pk,
            models.Submission.user_pk,
            models.Submission.timestamp,
        )
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .where(
            models.Submission.token == page,
            models.Course.org_id == user.org_id,
            models.Course.course_id == course_id,
        )
    ).one_or_none()
    if last is None:
        raise no_such_page()
    return last


def _is_behind(last: Row[*tuple[Any, ...]]) -> ColumnElement[bool]:
    """Whether a submission of the same assignment comes after `last`."""
    this = models.Submission
    return and_(
        this.user_pk <= last.user_pk,  # an index finds it
        or_(this.user_pk < last.user_pk, this.timestamp < last.timestamp),
    )
