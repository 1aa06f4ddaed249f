"""An administrator's purge, in two steps: a request that counts what would be erased, and a
confirmation that erases exactly that. Both are recorded.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock, clock, queue_up
from nbexchange.errors import Conflict, NotFound
from nbexchange.exchange.erasing import (
    LOOKUP_SIZE,
    Work,
    erase_assignment,
    erase_course,
    erase_hidden,
    erase_rows,
    erase_unused_people,
    measure,
    rows_of,
)
from nbexchange.exchange.names import hidden_course
from nbexchange.exchange.purge_records import PurgeRecord, Scope, record_of
from nbexchange.timestamps import minute

VALID = datetime.timedelta(hours=24)
"""How long a request may be confirmed."""


def request_purge(session: Session, scope: Scope, by: str) -> PurgeRecord:
    """Count what would be erased, and store the request. Raises NotFound for an empty scope."""
    covered = _find(session, scope)
    counts, fingerprint = measure(session, _all_work(covered))
    row = models.PurgeRow(
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
    """Erase what the request counted, and only that. Also returns the keys of the blobs to delete.

    With the code of an instructor's purge, the hidden assignment is erased before its grace period
    ends.

    Raises NotFound for an unknown code, and Conflict if the code was used or is too old, or if rows
    were added or removed since the request.
    """
    row = session.execute(
        select(models.PurgeRow).where(models.PurgeRow.code == code).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"No purge has the code {code!r}. `nbexchange purge --list` shows them.")
    if row.erase_at is not None:
        if row.restored_at is not None:
            raise Conflict(f"This was restored on {minute(row.restored_at)}.")
        _refuse_again(row)
        keys = erase_hidden(session, row, by)
        return record_of(row), keys
    now = clock(session)
    _refuse_late(row, now)
    scope = record_of(row).scope
    covered = _find(session, scope, lock=True)
    counts, fingerprint = measure(session, _all_work(covered))
    if fingerprint != row.fingerprint:
        changed = _difference(row.counts, counts)
        raise Conflict(
            f"Rows were added or removed since the request ({changed}), so nothing was erased. "
            "Request the purge again, and check what would be erased."
        )
    keys = _erase(session, covered, by)
    row.counts = counts
    row.erased_at, row.erased_by = now, by
    return record_of(row), keys


def purges(session: Session) -> list[PurgeRecord]:
    """All requests, oldest first."""
    rows = session.execute(select(models.PurgeRow).order_by(models.PurgeRow.id)).scalars()
    return [record_of(row) for row in rows]


# -- the rows of a scope


@dataclass(frozen=True)
class _Covered:
    """The rows that a scope covers: those of one user, or (`user_pk` is None) all of them."""

    scope: Scope
    course_pks: Sequence[int]
    assignment_pks: Sequence[int]
    user_pk: int | None


def _find(session: Session, scope: Scope, *, lock: bool = False) -> _Covered:
    """With `lock`, no rows can be added to the scope until the transaction ends (locks.py)."""
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
    covered = _Covered(
        scope,
        session.execute(courses.order_by(models.Course.id)).scalars().all(),
        session.execute(assignments.order_by(models.Assignment.id)).scalars().all(),
        _user_pk(session, scope),
    )
    if not covered.course_pks or (scope.assignment_id is not None and not covered.assignment_pks):
        raise NotFound(f"The exchange has no data of {scope}. Check the options.")
    return covered


def _courses_of(session: Session, scope: Scope) -> list[str]:
    """The id of the course, and the ids of the courses that hold its hidden assignments. A scope
    with one assignment means the one in use, and no hidden one."""
    assert scope.course_id is not None
    if scope.assignment_id is not None:
        return [scope.course_id]
    codes = session.execute(_hidden_in(scope)).scalars()
    return [scope.course_id, *map(hidden_course, codes)]


def _hidden_in(scope: Scope) -> Select[str]:
    query = select(models.PurgeRow.code).where(
        models.PurgeRow.org_id == scope.org_id,
        models.PurgeRow.erase_at.is_not(None),
        models.PurgeRow.erased_at.is_(None),
        models.PurgeRow.restored_at.is_(None),
    )
    if scope.course_id is not None:
        query = query.where(models.PurgeRow.course_id == scope.course_id)
    return query


def _user_pk(session: Session, scope: Scope) -> int | None:
    if scope.student_id is None:
        return None
    user_pk = session.execute(
        select(models.UserRow.id).where(
            models.UserRow.org_id == scope.org_id, models.UserRow.name == scope.student_id
        )
    ).scalar_one_or_none()
    if user_pk is None:
        raise NotFound(f"The exchange has no data of {scope}. Check the options.")
    return user_pk


def _all_work(covered: _Covered) -> Work:
    for assignment_pk in covered.assignment_pks:
        yield from rows_of(assignment_pk, covered.user_pk)


# -- erasing


def _erase(session: Session, covered: _Covered, by: str) -> list[str]:
    if covered.user_pk is not None:
        return _erase_student(session, covered, covered.user_pk)
    keys = [key for pk in covered.assignment_pks for key in erase_assignment(session, pk)]
    if covered.scope.assignment_id is None:
        codes = session.execute(_hidden_in(covered.scope)).scalars().all()
        session.execute(
            update(models.PurgeRow)
            .where(models.PurgeRow.code.in_(codes))
            .values(erased_at=DatabaseClock(), erased_by=by)
        )
        for course_pk in covered.course_pks:
            erase_course(session, course_pk)
    return keys


def _erase_student(session: Session, covered: _Covered, user_pk: int) -> list[str]:
    """Erase the user's submissions, the feedback on them, and other rows. Releases stay."""
    keys = []
    for assignment_pk in covered.assignment_pks:
        _erase_events(session, assignment_pk, user_pk)
        keys += erase_rows(session, rows_of(assignment_pk, user_pk))
    if covered.scope.assignment_id is None:
        for table in (models.Event, models.Subscription):
            for course_pk in covered.course_pks:
                session.execute(
                    delete(table).where(table.user_pk == user_pk, table.course_pk == course_pk)
                )
    erase_unused_people(session, [user_pk])
    return keys


def _erase_events(session: Session, assignment_pk: int, user_pk: int) -> None:
    """Erase the student's events, and the events of others about the student's submissions.

    Each condition compares an indexed column with constants: with OR or a subquery, MariaDB reads
    and locks all events of the assignment.
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


# -- refusals


def _refuse_again(row: models.PurgeRow) -> None:
    if row.erased_at is not None:
        raise Conflict(f"This purge was already carried out, on {minute(row.erased_at)}.")


def _refuse_late(row: models.PurgeRow, now: datetime.datetime) -> None:
    _refuse_again(row)
    if now - row.requested_at > VALID:
        raise Conflict(
            f"This purge was requested on {minute(row.requested_at)}, which is too long ago. "
            "Request it again, and check what would be erased."
        )


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    changed = [name for name in after if before[name] != after[name]]
    changes = [f"{name} {before[name]:,}, now {after[name]:,}" for name in changed]
    return "; ".join(changes) or "the same number, but different rows"
