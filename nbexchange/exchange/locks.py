"""One order of locks for all verbs: the course, the assignment, its rows, the people.

Transactions that lock the same rows in different orders wait for each other until the database
aborts one of them, on PostgreSQL after a second. So a verb that changes an assignment or adds rows
to it locks the course and the assignment before anything else:

    submit, release_feedback   SHARED: the students of a class do not wait for each other
    release, remove            CHANGE: one after the other
    purge                      ALONE: no row can be added while it erases

New courses and new people are inserted before that: another transaction cannot wait for a row that
it cannot see. The locks end with the transaction. SQLite has one writer at a time and needs none.
"""

from __future__ import annotations

import enum

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import insert_if_absent, queue_up


class LockMode(enum.Enum):
    """How a transaction locks an assignment. The course is always shared."""

    SHARED = enum.auto()
    CHANGE = enum.auto()
    """Excludes other changes; on PostgreSQL it does not exclude SHARED."""
    ALONE = enum.auto()


def lock_assignment(session: Session, course_pk: int, assignment_pk: int, mode: LockMode) -> bool:
    """Whether the assignment still exists. It cannot be erased before the transaction ends."""
    queue_up(session, assignment_pk, alone=mode is LockMode.ALONE)
    if mode is not LockMode.SHARED:
        _share_course(session, course_pk)
    pks = {"course_pk": course_pk, "assignment_pk": assignment_pk}
    return session.execute(_BY_PK[mode], pks).first() is not None


def get_or_create_assignment(
    session: Session, course_pk: int, assignment_id: str
) -> models.Assignment:
    """Lock the row for a change; insert it if it is new or was just erased."""
    _share_course(session, course_pk)
    keys = {"course_pk": course_pk, "assignment_id": assignment_id}
    query = select(models.Assignment).filter_by(**keys).with_for_update(key_share=True)
    while (row := session.execute(query).scalar_one_or_none()) is None:
        insert_if_absent(session, models.Assignment, **keys, released=False)
    return row


def _share_course(session: Session, course_pk: int) -> None:
    session.execute(_COURSE, {"course_pk": course_pk})


def _assignment() -> Select[int]:
    return select(models.Assignment.id).where(models.Assignment.id == bindparam("assignment_pk"))


_COURSE = (
    select(models.Course.id)
    .where(models.Course.id == bindparam("course_pk"))
    .with_for_update(read=True, key_share=True)
)

_BY_PK = {
    # One query, because every submit runs it. It locks the row of the course and then the row of
    # the assignment.
    LockMode.SHARED: select(models.Course.id, models.Assignment.id)
    .select_from(models.Course)
    .join(models.Assignment, models.Assignment.course_pk == models.Course.id)
    .where(
        models.Course.id == bindparam("course_pk"),
        models.Assignment.id == bindparam("assignment_pk"),
    )
    .with_for_update(read=True, key_share=True),
    LockMode.CHANGE: _assignment().with_for_update(key_share=True),
    LockMode.ALONE: _assignment().with_for_update(),
}
