"""One order of locks for all verbs: the course, the assignment, what is in it, the people.

Transactions that lock the same rows in different orders wait for each other until the database
aborts one of them, on PostgreSQL after a second. So a verb that adds to an assignment or changes
it locks the course and the assignment before anything else:

    submit, release_feedback   share the assignment: a class does not wait for itself
    release, remove            change it: one after the other
    purge                      has it alone: what it erases is all that there is

A new course and new people come first: nobody else waits for a row that nobody knows. The locks
end with the transaction. SQLite has one writer at a time, and needs none.
"""

from __future__ import annotations

import enum

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import insert_if_absent, queue_up


class LockMode(enum.Enum):
    """How a transaction holds an assignment. The course is always shared."""

    SHARED = enum.auto()
    CHANGE = enum.auto()
    """Alone among those that change it; on PostgreSQL, beside those that share it."""
    ALONE = enum.auto()


def lock_assignment(session: Session, course_pk: int, assignment_pk: int, mode: LockMode) -> bool:
    """Whether the assignment is still there. Nobody else erases it before the transaction ends."""
    queue_up(session, assignment_pk, alone=mode is LockMode.ALONE)
    if mode is not LockMode.SHARED:
        _share_course(session, course_pk)
    pks = {"course_pk": course_pk, "assignment_pk": assignment_pk}
    return session.execute(_BY_PK[mode], pks).first() is not None


def get_or_create_assignment(
    session: Session, course_pk: int, assignment_id: str
) -> models.Assignment:
    """The row, made if it is new or was just erased, to change it."""
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
    # In one question, since everybody in a class asks it: locked are the rows of a course and then
    # those of its assignment.
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
