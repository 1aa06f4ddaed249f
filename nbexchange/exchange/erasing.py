"""Delete rows for good. The caller deletes their blobs after the commit.

A blob without a row only wastes space; a row without its blob is data loss.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, delete, exists, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import clock
from nbexchange.exchange.locks import LockMode, lock_assignment
from nbexchange.exchange.names import hidden_course

LOOKUP_SIZE = 500
"""Rows of one query; SQLite and others limit the number of parameters."""

_Table = type[models.Release] | type[models.Submission] | type[models.Feedback]
Work = Iterator[tuple[_Table, ColumnElement[bool]]]
"""Tables, children first, each with a condition on its rows."""
_PLURALS = {
    models.Release: "releases",
    models.Submission: "submissions",
    models.Feedback: "feedback",
}


class Hidden(NamedTuple):
    """The keys of a hidden assignment and of the course that holds it."""

    course_pk: int
    assignment_pk: int


def erase_assignment(session: Session, assignment_pk: int) -> list[str]:
    """Erase an assignment with all submissions and feedback. Returns the keys of its blobs.

    The caller must hold an exclusive lock, because the result would lack the keys of rows that are
    added meanwhile. The events stay in the history of the course, without the assignment.
    """
    keys = erase_rows(session, rows_of(assignment_pk))
    session.execute(
        update(models.Event)
        .where(models.Event.assignment_pk == assignment_pk)
        .values(assignment_pk=None)
    )
    session.execute(delete(models.Assignment).where(models.Assignment.id == assignment_pk))
    return keys


def erase_hidden(session: Session, row: models.PurgeRow, by: str) -> list[str]:
    """Erase the assignment that an instructor's purge has hidden. Returns the keys of its blobs."""
    keys: list[str] = []
    hidden = hidden_assignment(session, row)
    if hidden is not None:
        lock_assignment(session, hidden.course_pk, hidden.assignment_pk, LockMode.ALONE)
        row.counts, _ = measure_assignment(session, hidden.assignment_pk)
        keys = erase_assignment(session, hidden.assignment_pk)
        erase_course(session, hidden.course_pk)
    row.erased_at, row.erased_by = clock(session), by
    return keys


def hidden_assignment(session: Session, row: models.PurgeRow) -> Hidden | None:
    """None if it was restored or erased."""
    keys = session.execute(
        select(models.Course.id, models.Assignment.id)
        .join(models.Assignment, models.Assignment.course_pk == models.Course.id)
        .where(
            models.Course.org_id == row.org_id,
            models.Course.course_id == hidden_course(row.code),
        )
    ).first()
    return None if keys is None else Hidden(*keys)


def measure_assignment(session: Session, assignment_pk: int) -> tuple[dict[str, int], str]:
    """Count the assignment's rows, files and bytes, and return their fingerprint."""
    return measure(session, rows_of(assignment_pk))


# -- which rows


def measure(session: Session, work: Work) -> tuple[dict[str, int], str]:
    """Count the rows, files and bytes, and return their fingerprint."""
    counts: Counter[str] = Counter(
        {"releases": 0, "submissions": 0, "feedback": 0, "files": 0, "bytes": 0}
    )
    digest = hashlib.sha256()
    for table, condition in work:
        sizes = {}
        for row in session.execute(_sized(table, condition)):
            digest.update(f"{table.__tablename__} {row.id} {row.key}\n".encode())
            counts[_PLURALS[table]] += 1
            sizes[row.key] = row.size  # identical versions of feedback share a blob
        counts["files"] += len(sizes)
        counts["bytes"] += sum(sizes.values())
    return dict(counts), digest.hexdigest()


def _sized(table: _Table, condition: ColumnElement[bool]) -> Select[int, str, int]:
    return select(table.id, table.key, table.size).where(condition).order_by(table.id)


def rows_of(assignment_pk: int, user_pk: int | None = None) -> Work:
    """The rows of an assignment, or of one student in it, children first.

    One assignment at a time, because a query over several assignments would lock all of them.
    """
    handed_in = models.Submission.assignment_pk == assignment_pk
    if user_pk is not None:
        handed_in = and_(handed_in, models.Submission.user_pk == user_pk)
    chosen = select(models.Submission.id).where(handed_in)
    yield models.Feedback, models.Feedback.submission_pk.in_(chosen)
    yield models.Submission, handed_in
    if user_pk is None:
        yield models.Release, models.Release.assignment_pk == assignment_pk


# -- delete them


def erase_course(session: Session, course_pk: int) -> None:
    """Erase a course without assignments, and the people who have no rows elsewhere."""
    seen = set()
    for table in (models.Event, models.Subscription):
        of_course = table.course_pk == course_pk
        seen |= set(session.execute(select(table.user_pk).where(of_course).distinct()).scalars())
        session.execute(delete(table).where(of_course))
    session.execute(delete(models.Course).where(models.Course.id == course_pk))
    erase_unused_people(session, sorted(seen))


def erase_rows(session: Session, work: Work) -> list[str]:
    """Returns the keys of the rows' blobs, each once: identical versions of feedback share one.

    Rows are deleted by primary key: with a subquery MariaDB reads and locks the whole table.

    A row that is added meanwhile refers to a row that is deleted next. Then the verb runs again.
    """
    keys: list[str] = []
    for table, condition in work:
        rows = session.execute(select(table.id, table.key).where(condition)).all()
        keys += dict.fromkeys(row.key for row in rows)
        for start in range(0, len(rows), LOOKUP_SIZE):
            chosen = [row.id for row in rows[start : start + LOOKUP_SIZE]]
            session.execute(delete(table).where(table.id.in_(chosen)))
    return keys


def erase_unused_people(session: Session, user_pks: Sequence[int]) -> None:
    """Erase those people who have no other rows."""
    nothing_remains = [
        ~exists().where(table.user_pk == models.UserRow.id)
        for table in (models.Subscription, models.Event, *models.STORED)
    ]
    for start in range(0, len(user_pks), LOOKUP_SIZE):
        chosen = models.UserRow.id.in_(user_pks[start : start + LOOKUP_SIZE])
        session.execute(delete(models.UserRow).where(chosen, *nothing_remains))
