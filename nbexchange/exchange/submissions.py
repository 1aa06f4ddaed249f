"""submit, list submissions and collect: what students hand in."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
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

COMMITMENT = datetime.timedelta(hours=1)
"""How long a digest in the header keeps the time of the header: who may choose among several held
back for longer has not decided yet."""

MOST_SUBMISSIONS = 1000
"""Of one student for one assignment. A row and its file take up to 20 kB of a disk however small
the file is, which no quota counts."""

LONGEST_NOTEBOOKS = 16 * 1024
"""Characters of the names of the notebooks at the top of one submission, of which there are
MOST_NOTEBOOKS at most. They are in every list: 60 archives of 200 kB could make one page of it
180 MB."""

TICK = datetime.timedelta(microseconds=1)


class Admission(NamedTuple):
    """What was settled when the header of a submission arrived."""

    arrived_at: datetime.datetime
    assignment_pk: int
    release_pk: int
    release_token: str
    """Never used twice, as numbers of rows are: SQLite gives those of erased rows out again."""
    after: datetime.datetime | None
    """The official time of the caller's newest submission then."""
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
    """Everything that can refuse a submission before its bytes are read, and the clock.

    `waited` says how long ago the header arrived: until somebody asks for the clock, the request
    may have waited for the hub or for its turn.
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
    ago = waited()  # before the clock is asked: no time is earlier than its header
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
    since: Callable[[], datetime.timedelta],
    client_timestamp: str | None,
    idempotency_key: str | None,
    quota: int,
) -> SubmissionReceipt:
    """Keep the student's work under its official time.

    That is when the header arrived if the header held the digest and the student had no other
    upload to choose from (`committed`, by `commitments`), since nobody could change the bytes
    after that; else when the last byte had (`since` says how long ago that
    is: what we needed for it since is nobody's fault). It is unique, and later than that of every
    submission that was complete when this one began: where the clock was set back, the order wins.
    `quota` is how many bytes one student may keep; 0 for any number.
    """
    permit(user, Verb.SUBMIT, course_id)
    session.connection()  # SQLite waits here until nobody else writes
    ago = since()  # before the clock is asked, as above
    state = assignment_state(session, user, course_id, assignment_id)
    if not lock_assignment(session, state.course_pk, state.assignment_pk, LockMode.SHARED):
        raise not_released(course_id, assignment_id)
    member = upsert_member(session, user, course_id, state)
    if quota:
        lock_user(session, member.user_pk)
    row = earlier(session, models.Submission, user, idempotency_key, blob)
    if row is not None:
        if row.assignment_pk != state.assignment_pk:
            raise used_before()
        return _receipt(session, user, course_id, assignment_id, row.token)
    if not _is_there(session, state.assignment_pk, admission):
        raise not_released(course_id, assignment_id)  # erased meanwhile, and made anew
    notebooks = listable(contents.notebooks)
    in_time = state.now - ago - admission.arrived_at <= COMMITMENT
    # What was finished after the assignment was closed may have been made after it.
    if not state.released and not (committed and in_time):
        raise not_released(course_id, assignment_id)
    check_student(session, user, blob.size, quota)
    basis = admission if committed and in_time else admission._replace(arrived_at=state.now - ago)
    token = new_key()
    session.execute(
        _INSERT,
        {
            "token": token,
            "assignment_pk": state.assignment_pk,
            "user_pk": member.user_pk,
            "release_pk": admission.release_pk,
            "key": blob.key,
            "sha256": blob.sha256,
            "size": blob.size,
            "timestamp": _official_time(session, member, state.assignment_pk, basis),
            "arrived_at": admission.arrived_at,
            "stored_at": state.now,
            "client_timestamp": normal_claim(client_timestamp or contents.timestamp),
            "notebooks": notebooks,
            "idempotency_key": idempotency_key,
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
            f"you have handed in {assignment_id} {MOST_SUBMISSIONS:,} times, which is as often as "
            "one may, so this was not stored; ask your instructor"
        )


def _is_there(session: Session, assignment_pk: int, admission: Admission) -> bool:
    """Whether the release that was admitted to is still a release of this assignment."""
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
) -> SubmissionPage:
    """What was handed in, newest first for each student; a student sees the own only."""
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
    """As a `Walk` begins with them; behind `last`, and at most `wanted`.

    One assignment after the other: its submissions lie in an index in their order. All those of a
    course would be sorted for each page.
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
    """One submission: any for an instructor, an own one for a student.

    `is_part` where the caller asks for a range of it.
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
        raise NotFound("there is no such submission; list the submissions again")
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
    """All that the caller handed in, oldest first."""
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
    """nbgrader grades the notebooks that lie at the top of an assignment, and only those."""
    return [path for path in notebooks if "/" not in path]


def listable(paths: Iterable[str]) -> list[str]:
    """The notebooks that lists show; BadArchive when they are too many."""
    notebooks = top_level(paths)
    if not fits_in_lists(notebooks):
        raise BadArchive(
            f"there are more than {MOST_NOTEBOOKS} notebooks, or their names are too long; "
            "put those that are not to be graded into a folder"
        )
    return notebooks


def fits_in_lists(paths: Collection[str]) -> bool:
    return len(paths) <= MOST_NOTEBOOKS and sum(map(len, paths)) <= LONGEST_NOTEBOOKS


def _official_time(
    session: Session, member: MembershipKeys, assignment_pk: int, admission: Admission
) -> datetime.datetime:
    time = admission.arrived_at
    if admission.after is not None:
        time = max(time, admission.after + TICK)
    while _is_taken(session, assignment_pk, member, time):
        time += TICK
    return time


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
    """Read back, so that it says what is stored."""
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

# In each assignment; both in one direction, that of an index.
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
    """In order: of a course, or of one assignment."""
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
    """To choose from by their keys."""
    return (
        select(*_COLUMNS)
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .join(models.Submission.user)
        .join(models.Submission.release)
        .where(unindexed(models.Course.org_id) == org_id, models.Course.course_id.in_(courses))
    )


def _by(org_id: int, name: str) -> ColumnElement[bool]:
    # The organisation is what lets the database find the person without looking at everybody.
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
    """The place of the submission that ended the page before."""
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
    """Of the same assignment."""
    this = models.Submission
    return and_(
        this.user_pk <= last.user_pk,  # an index finds it
        or_(this.user_pk < last.user_pk, this.timestamp < last.timestamp),
    )
