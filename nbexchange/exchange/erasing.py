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
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, delete, exists, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock, clock, queue_up
from nbexchange.errors import Conflict, NotFound
from nbexchange.exchange.locks import Hold, lock_assignment
from nbexchange.exchange.names import hidden_course
from nbexchange.timestamps import minute

VALID = datetime.timedelta(hours=24)
"""How long a request may be confirmed."""

LOOKUP_SIZE = 500
"""Rows asked for in one query; SQLite and others limit the number of parameters."""

_Table = type[models.Release] | type[models.Submission] | type[models.Feedback]
_Work = Iterator[tuple[_Table, ColumnElement[bool]]]
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

    def covers(
        self, org_id: int, course_id: str, assignment_id: str, student_id: str | None
    ) -> bool:
        """Whether that is part of it. None for what is not of one student."""
        return (
            self.org_id == org_id
            and self.course_id in (None, course_id)
            and self.assignment_id in (None, assignment_id)
            and self.student_id in (None, student_id)
        )

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
    erase_at: datetime.datetime | None
    """When what an instructor hid is erased; None for an administrator's purge."""
    restored_at: datetime.datetime | None
    restored_by: str | None

    @property
    def words(self) -> str:
        said = [f"{self.counts[name]:,} {name}" for name in ("releases", "submissions", "feedback")]
        return (
            f"{', '.join(said)}; {self.counts['files']:,} files of {self.counts['bytes']:,} bytes"
        )


class Hidden(NamedTuple):
    """Where a hidden assignment is."""

    course_pk: int
    assignment_pk: int


def request_purge(session: Session, scope: Scope, by: str) -> PurgeRecord:
    """Tell what would be erased, and keep the request. Raises NotFound for what is not there."""
    found = _find(session, scope)
    counts, fingerprint = _measure(session, _all_work(found))
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
    return record_of(row)


def confirm_purge(session: Session, code: str, by: str) -> tuple[PurgeRecord, list[str]]:
    """Erase what was told, and only that. Also returns the keys of the blobs that have to go.

    What an instructor hid is erased before its time.

    Raises NotFound for a code that was never given out, and Conflict when it was used, is too old,
    or something has come or gone since.
    """
    row = session.execute(
        select(models.Purge).where(models.Purge.code == code).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"no purge has the code {code!r}; `nbexchange purge --list` shows them")
    if row.erase_at is not None:
        if row.restored_at is not None:
            raise Conflict(f"this was restored on {minute(row.restored_at)}")
        _refuse_again(row)
        keys = erase_hidden(session, row, by)
        return record_of(row), keys
    now = clock(session)
    _refuse_late(row, now)
    scope = record_of(row).scope
    found = _find(session, scope, lock=True)
    counts, fingerprint = _measure(session, _all_work(found))
    if fingerprint != row.fingerprint:
        changed = _difference(row.counts, counts)
        raise Conflict(
            f"something has come or gone since this was asked for ({changed}), so nothing was "
            "erased; ask again, and look at what would be erased"
        )
    keys = _erase(session, found, by)
    row.counts = counts
    row.erased_at, row.erased_by = now, by
    return record_of(row), keys


def purges(session: Session) -> list[PurgeRecord]:
    """All requests, oldest first."""
    rows = session.execute(select(models.Purge).order_by(models.Purge.id)).scalars()
    return [record_of(row) for row in rows]


def erase_assignment(session: Session, assignment_pk: int) -> list[str]:
    """An assignment with all that students handed in. Returns the keys of its blobs.

    The caller holds it alone: a row that came after the keys were read would lose its blob's key.
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


def erase_hidden(session: Session, row: models.Purge, by: str) -> list[str]:
    """What an instructor's purge has hidden. Returns the keys of its blobs."""
    keys: list[str] = []
    hidden = hidden_assignment(session, row)
    if hidden is not None:
        lock_assignment(session, hidden.course_pk, hidden.assignment_pk, Hold.ALONE)
        row.counts, _ = measure_assignment(session, hidden.assignment_pk)
        keys = erase_assignment(session, hidden.assignment_pk)
        _erase_course(session, hidden.course_pk)
    row.erased_at, row.erased_by = clock(session), by
    return keys


def hidden_assignment(session: Session, row: models.Purge) -> Hidden | None:
    """None once it was restored or erased."""
    found = session.execute(
        select(models.Course.id, models.Assignment.id)
        .join(models.Assignment, models.Assignment.course_pk == models.Course.id)
        .where(
            models.Course.org_id == row.org_id,
            models.Course.course_id == hidden_course(row.code),
        )
    ).first()
    return None if found is None else Hidden(*found)


def measure_assignment(session: Session, assignment_pk: int) -> tuple[dict[str, int], str]:
    """How much there is of it, and a fingerprint of it."""
    return _measure(session, _work(assignment_pk))


# -- what there is


@dataclass(frozen=True)
class _Found:
    """The rows that a scope covers. Without `user_pk` it is everybody's, and whole."""

    scope: Scope
    course_pks: Sequence[int]
    assignment_pks: Sequence[int]
    user_pk: int | None


def _find(session: Session, scope: Scope, *, lock: bool = False) -> _Found:
    """Locked, as locks.py says, nobody can add anything to it until the transaction ends."""
    courses = select(models.Course.id).where(models.Course.org_id == scope.org_id)
    if scope.course_id is not None:
        courses = courses.where(models.Course.course_id.in_(_courses_of(session, scope)))
    assignments = select(models.Assignment.id).where(models.Assignment.course_pk.in_(courses))
    if scope.assignment_id is not None:
        assignments = assignments.where(models.Assignment.assignment_id == scope.assignment_id)
    if lock:
        for assignment_pk in session.execute(assignments.order_by(models.Assignment.id)).scalars():
            queue_up(session, assignment_pk, alone=True)
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


def _courses_of(session: Session, scope: Scope) -> list[str]:
    """Ids: of the course, and of those that hold what was hidden in it. Who names one assignment
    means the one that is in use."""
    assert scope.course_id is not None
    if scope.assignment_id is not None:
        return [scope.course_id]
    codes = session.execute(_hidden_in(scope)).scalars()
    return [scope.course_id, *map(hidden_course, codes)]


def _hidden_in(scope: Scope) -> Select[str]:
    query = select(models.Purge.code).where(
        models.Purge.org_id == scope.org_id,
        models.Purge.erase_at.is_not(None),
        models.Purge.erased_at.is_(None),
        models.Purge.restored_at.is_(None),
    )
    if scope.course_id is not None:
        query = query.where(models.Purge.course_id == scope.course_id)
    return query


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


def _measure(session: Session, work: _Work) -> tuple[dict[str, int], str]:
    """How much there is, and a fingerprint of it."""
    counts: Counter[str] = Counter(
        {"releases": 0, "submissions": 0, "feedback": 0, "files": 0, "bytes": 0}
    )
    digest = hashlib.sha256()
    for table, condition in work:
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


def _erase(session: Session, found: _Found, by: str) -> list[str]:
    if found.user_pk is not None:
        return _erase_student(session, found, found.user_pk)
    keys = [key for pk in found.assignment_pks for key in erase_assignment(session, pk)]
    if found.scope.assignment_id is None:
        codes = session.execute(_hidden_in(found.scope)).scalars().all()
        session.execute(
            update(models.Purge)
            .where(models.Purge.code.in_(codes))
            .values(erased_at=DatabaseClock(), erased_by=by)
        )
        for course_pk in found.course_pks:
            _erase_course(session, course_pk)
    return keys


def _erase_student(session: Session, found: _Found, user_pk: int) -> list[str]:
    """The work, the feedback on it, and every trace of the person; releases stay."""
    keys = []
    for assignment_pk in found.assignment_pks:
        _erase_events(session, assignment_pk, user_pk)
        keys += _erase_rows(session, _work(assignment_pk, user_pk))
    if found.scope.assignment_id is None:
        for table in (models.Event, models.Subscription):
            for course_pk in found.course_pks:
                session.execute(
                    delete(table).where(table.user_pk == user_pk, table.course_pk == course_pk)
                )
    _forget(session, [user_pk])
    return keys


def _erase_events(session: Session, assignment_pk: int, user_pk: int) -> None:
    """What a student did, and what others did with the student's submissions.

    By constants, each found in an index: with OR or a subquery, MariaDB reads and locks all events
    of the assignment.
    """
    handed_in = select(models.Submission.token).where(
        models.Submission.assignment_pk == assignment_pk, models.Submission.user_pk == user_pk
    )
    tokens = session.execute(handed_in).scalars().all()
    session.execute(
        delete(models.Event).where(
            models.Event.assignment_pk == assignment_pk, models.Event.user_pk == user_pk
        )
    )
    for start in range(0, len(tokens), LOOKUP_SIZE):
        chosen = tokens[start : start + LOOKUP_SIZE]
        session.execute(delete(models.Event).where(models.Event.token.in_(chosen)))


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
    """Returns the keys of their blobs, each once: equal versions of feedback share one.

    By the primary key: to delete what a subquery finds, MariaDB reads and locks the whole table.

    A row that arrives meanwhile refers to what is deleted next, so the verb runs again.
    """
    keys: list[str] = []
    for table, condition in work:
        rows = session.execute(select(table.id, table.key).where(condition)).all()
        keys += dict.fromkeys(row.key for row in rows)
        for start in range(0, len(rows), LOOKUP_SIZE):
            chosen = [row.id for row in rows[start : start + LOOKUP_SIZE]]
            session.execute(delete(table).where(table.id.in_(chosen)))
    return keys


def _forget(session: Session, user_pks: Sequence[int]) -> None:
    """Erase those people of whom nothing remains."""
    nothing_remains = [
        ~exists().where(table.user_pk == models.User.id)
        for table in (models.Subscription, models.Event, *models.STORED)
    ]
    for start in range(0, len(user_pks), LOOKUP_SIZE):
        chosen = models.User.id.in_(user_pks[start : start + LOOKUP_SIZE])
        session.execute(delete(models.User).where(chosen, *nothing_remains))


# -- what is said of it


def _refuse_again(row: models.Purge) -> None:
    if row.erased_at is not None:
        raise Conflict(f"this was carried out already, on {minute(row.erased_at)}")


def _refuse_late(row: models.Purge, now: datetime.datetime) -> None:
    _refuse_again(row)
    if now - row.requested_at > VALID:
        raise Conflict(
            f"this was asked for on {minute(row.requested_at)}, which is too long ago; "
            "ask again, and look at what would be erased"
        )


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    changed = [name for name in after if before[name] != after[name]]
    said = [f"{name} {before[name]:,}, now {after[name]:,}" for name in changed]
    return "; ".join(said) or "as many, but others"


def record_of(row: models.Purge) -> PurgeRecord:
    return PurgeRecord(
        code=row.code,
        scope=Scope(row.org_id, row.course_id, row.assignment_id, row.student_id),
        counts=row.counts,
        requested_at=row.requested_at,
        requested_by=row.requested_by,
        erased_at=row.erased_at,
        erased_by=row.erased_by,
        erase_at=row.erase_at,
        restored_at=row.restored_at,
        restored_by=row.restored_by,
    )
