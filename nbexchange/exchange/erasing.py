"""Erasing for good: the rows. Whoever calls deletes the blobs after the commit.

A blob too many is litter, a row too many a lie. An operator erases in two steps, a request that
tells what would go, and a confirmation that erases only what was told; both are recorded.
"""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import clock
from nbexchange.errors import Conflict, NotFound

VALID = datetime.timedelta(hours=24)
"""How long a request may be confirmed."""

LOOKUP_SIZE = 500
"""Rows asked for in one query; SQLite and others limit the number of parameters."""

_Table = type[models.Release] | type[models.Submission] | type[models.Feedback]
_PLURALS = {
    models.Release: "releases",
    models.Submission: "submissions",
    models.Feedback: "feedback",
}


@dataclass(frozen=True)
class Scope:
    """What to erase, or to copy: of one organisation, and None means all."""

    org_id: int
    course_id: str | None = None
    assignment_id: str | None = None
    student_id: str | None = None

    def __str__(self) -> str:
        said = [f"organisation {self.org_id}"]
        said += [f"course {self.course_id!r}"] if self.course_id is not None else []
        said += [f"assignment {self.assignment_id!r}"] if self.assignment_id is not None else []
        said += [f"student {self.student_id!r}"] if self.student_id is not None else []
        return ", ".join(said)


@dataclass(frozen=True)
class PurgeRecord:
    """A request, and whether it was carried out."""

    code: str
    scope: Scope
    counts: Mapping[str, int]
    requested_at: datetime.datetime
    requested_by: str
    erased_at: datetime.datetime | None
    erased_by: str | None


def request_purge(session: Session, scope: Scope, by: str) -> PurgeRecord:
    """Tell what would be erased, and keep the request. Raises NotFound for what is not there."""
    found = _find(session, scope)
    counts, fingerprint = _measure(session, found)
    row = models.Purge(
        code=secrets.token_hex(6),
        org_id=scope.org_id,
        course_id=scope.course_id,
        assignment_id=scope.assignment_id,
        student_id=scope.student_id,
        counts=counts,
        fingerprint=fingerprint,
        requested_at=clock(session),
        requested_by=by,
    )
    session.add(row)
    return _record(row)


def confirm_purge(session: Session, code: str, by: str) -> tuple[PurgeRecord, list[str]]:
    """Erase what was told, and only that. Also returns the keys of the blobs that have to go.

    Raises NotFound for a code that was never given out, and Conflict when it was used, is too old,
    or something has come or gone since.
    """
    row = session.execute(
        select(models.Purge).where(models.Purge.code == code).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"no purge has the code {code!r}; `nbexchange purge --list` shows them")
    now = clock(session)
    _refuse_late(row, now)
    scope = _record(row).scope
    found = _find(session, scope, lock=True)
    counts, fingerprint = _measure(session, found)
    if fingerprint != row.fingerprint:
        changed = _difference(row.counts, counts)
        raise Conflict(
            f"something has come or gone since this was asked for ({changed}), so nothing was "
            "erased; ask again, and look at what would be erased"
        )
    keys = _erase(session, found)
    row.counts = counts
    row.erased_at, row.erased_by = now, by
    return _record(row), keys


def purges(session: Session) -> list[PurgeRecord]:
    """All requests, oldest first."""
    rows = session.execute(select(models.Purge).order_by(models.Purge.id)).scalars()
    return [_record(row) for row in rows]


def erase_assignment(session: Session, assignment_pk: int) -> list[str]:
    """An assignment with all that students handed in. Returns the keys of its blobs.

    What was done stays in the history of the course, without the assignment.
    """
    keys = _erase_rows(session, _work(assignment_pk))
    session.execute(
        update(models.Event)
        .where(models.Event.assignment_pk == assignment_pk)
        .values(assignment_pk=None)
    )
    session.execute(delete(models.Assignment).where(models.Assignment.id == assignment_pk))
    return keys


# -- what there is


@dataclass(frozen=True)
class _Found:
    """The rows that a scope covers. Without `user_pk` it is everybody's, and whole."""

    scope: Scope
    course_pks: Sequence[int]
    assignment_pks: Sequence[int]
    user_pk: int | None


def _find(session: Session, scope: Scope, *, lock: bool = False) -> _Found:
    """Locked, nobody can add a release or a submission to it until the transaction ends."""
    courses = select(models.Course.id).where(models.Course.org_id == scope.org_id)
    if scope.course_id is not None:
        courses = courses.where(models.Course.course_id == scope.course_id)
    assignments = select(models.Assignment.id).where(models.Assignment.course_pk.in_(courses))
    if scope.assignment_id is not None:
        assignments = assignments.where(models.Assignment.assignment_id == scope.assignment_id)
    if lock:
        courses = courses.with_for_update()
        assignments = assignments.with_for_update()
    found = _Found(
        scope,
        session.execute(courses.order_by(models.Course.id)).scalars().all(),
        session.execute(assignments.order_by(models.Assignment.id)).scalars().all(),
        _user_pk(session, scope),
    )
    if not found.course_pks or (scope.assignment_id is not None and not found.assignment_pks):
        raise NotFound(f"there is nothing of {scope}")
    return found


def _user_pk(session: Session, scope: Scope) -> int | None:
    if scope.student_id is None:
        return None
    user_pk = session.execute(
        select(models.User.id).where(
            models.User.org_id == scope.org_id, models.User.name == scope.student_id
        )
    ).scalar_one_or_none()
    if user_pk is None:
        raise NotFound(f"there is nothing of {scope}")
    return user_pk


def _measure(session: Session, found: _Found) -> tuple[dict[str, int], str]:
    """How much there is, and a fingerprint of it."""
    counts: Counter[str] = Counter(
        {"releases": 0, "submissions": 0, "feedback": 0, "files": 0, "bytes": 0}
    )
    digest = hashlib.sha256()
    for table, condition in _all_work(found):
        sizes = {}
        for row in session.execute(_sized(table, condition)):
            digest.update(f"{table.__tablename__} {row.id} {row.key}\n".encode())
            counts[_PLURALS[table]] += 1
            sizes[row.key] = row.size  # versions of feedback that do not differ share a blob
        counts["files"] += len(sizes)
        counts["bytes"] += sum(sizes.values())
    return dict(counts), digest.hexdigest()


def _sized(table: _Table, condition: ColumnElement[bool]) -> Select[int, str, int]:
    return select(table.id, table.key, table.size).where(condition).order_by(table.id)


def _all_work(found: _Found) -> Iterator[tuple[_Table, ColumnElement[bool]]]:
    for assignment_pk in found.assignment_pks:
        yield from _work(assignment_pk, found.user_pk)


def _work(
    assignment_pk: int, user_pk: int | None = None
) -> Iterator[tuple[_Table, ColumnElement[bool]]]:
    """The rows of an assignment, or of one student in it, children first.

    One assignment at a time: where the database has to think about several, it locks them all.
    """
    handed_in = models.Submission.assignment_pk == assignment_pk
    if user_pk is not None:
        handed_in = and_(handed_in, models.Submission.user_pk == user_pk)
    chosen = select(models.Submission.id).where(handed_in)
    yield models.Feedback, models.Feedback.submission_pk.in_(chosen)
    yield models.Submission, handed_in
    if user_pk is None:
        yield models.Release, models.Release.assignment_pk == assignment_pk


# -- and there is no more


def _erase(session: Session, found: _Found) -> list[str]:
    if found.user_pk is not None:
        return _erase_student(session, found, found.user_pk)
    keys = [key for pk in found.assignment_pks for key in erase_assignment(session, pk)]
    if found.scope.assignment_id is None:
        for course_pk in found.course_pks:
            _erase_course(session, course_pk)
    return keys


def _erase_student(session: Session, found: _Found, user_pk: int) -> list[str]:
    """The work, the feedback on it, and every trace of the person; releases stay."""
    keys = []
    for assignment_pk in found.assignment_pks:
        tokens = select(models.Submission.token).where(
            models.Submission.assignment_pk == assignment_pk, models.Submission.user_pk == user_pk
        )
        session.execute(
            delete(models.Event).where(
                models.Event.assignment_pk == assignment_pk,
                or_(models.Event.user_pk == user_pk, models.Event.token.in_(tokens)),
            )
        )
        keys += _erase_rows(session, _work(assignment_pk, user_pk))
    if found.scope.assignment_id is None:
        for table in (models.Event, models.Subscription):
            for course_pk in found.course_pks:
                session.execute(
                    delete(table).where(table.user_pk == user_pk, table.course_pk == course_pk)
                )
    _forget(session, [user_pk])
    return keys


def _erase_course(session: Session, course_pk: int) -> None:
    """What is left of a course without assignments; also people who were nowhere else."""
    seen = set()
    for table in (models.Event, models.Subscription):
        of_course = table.course_pk == course_pk
        seen |= set(session.execute(select(table.user_pk).where(of_course).distinct()).scalars())
        session.execute(delete(table).where(of_course))
    session.execute(delete(models.Course).where(models.Course.id == course_pk))
    _forget(session, sorted(seen))


def _erase_rows(session: Session, work: Iterator[tuple[_Table, ColumnElement[bool]]]) -> list[str]:
    keys: list[str] = []
    for table, condition in work:
        keys += session.execute(select(table.key).where(condition)).scalars()
        session.execute(delete(table).where(condition))
    return keys


def _forget(session: Session, user_pks: Sequence[int]) -> None:
    """Erase those people of whom nothing remains."""
    remains = [
        exists().where(table.user_pk == models.User.id)
        for table in (models.Subscription, models.Event, *models.STORED)
    ]
    for start in range(0, len(user_pks), LOOKUP_SIZE):
        chosen = models.User.id.in_(user_pks[start : start + LOOKUP_SIZE])
        session.execute(delete(models.User).where(chosen, ~or_(*remains)))


# -- what is said of it


def _refuse_late(row: models.Purge, now: datetime.datetime) -> None:
    if row.erased_at is not None:
        raise Conflict(f"this was carried out already, on {row.erased_at:%Y-%m-%d %H:%M} UTC")
    if now - row.requested_at > VALID:
        raise Conflict(
            f"this was asked for on {row.requested_at:%Y-%m-%d %H:%M} UTC, which is too long ago; "
            "ask again, and look at what would be erased"
        )


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    changed = [name for name in after if before[name] != after[name]]
    said = [f"{name} {before[name]:,}, now {after[name]:,}" for name in changed]
    return "; ".join(said) or "as many, but others"


def _record(row: models.Purge) -> PurgeRecord:
    return PurgeRecord(
        code=row.code,
        scope=Scope(row.org_id, row.course_id, row.assignment_id, row.student_id),
        counts=row.counts,
        requested_at=row.requested_at,
        requested_by=row.requested_by,
        erased_at=row.erased_at,
        erased_by=row.erased_by,
    )
