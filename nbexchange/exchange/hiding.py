"""An instructor's purge, in two steps: hide the assignment at once, erase it after a grace period.

A hidden assignment is moved, with its releases, submissions and feedback, into a course of its own,
whose id no identity and no request can name. So no verb finds it, in this and in earlier versions,
and a new assignment can have its name. Its bytes still count for the quotas of its students and its
organisation. Restoring moves it back, which is possible until it is erased.

The record in the table `purge` is the same as for an administrator's purge.
"""

from __future__ import annotations

import datetime
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import DatabaseClock, clock, insert_if_absent
from nbexchange.errors import Conflict, NotFound
from nbexchange.exchange.assignment_state import assignment_state, not_released
from nbexchange.exchange.erasing import erase_hidden, hidden_assignment, measure_assignment
from nbexchange.exchange.events import record_event
from nbexchange.exchange.locks import LockMode, lock_assignment
from nbexchange.exchange.names import check_folder_name, hidden_course
from nbexchange.exchange.people import MembershipKeys, upsert_member
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.purge_records import PurgeRecord, record_of
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.timestamps import minute

MOST_LISTED = 1000


@dataclass(frozen=True)
class Restored:
    record: PurgeRecord
    assignment_id: str


def purge(
    session: Session, user: User, course_id: str, assignment_id: str, grace: datetime.timedelta
) -> PurgeRecord:
    """Hide an assignment with all submissions and feedback, and schedule its erasure."""
    permit(user, Verb.PURGE, course_id)
    state = assignment_state(session, user, course_id, assignment_id)
    if not lock_assignment(session, state.course_pk, state.assignment_pk, LockMode.ALONE):
        raise not_released(course_id, assignment_id)
    member = upsert_member(session, user, course_id, state)
    counts, fingerprint = measure_assignment(session, state.assignment_pk)
    now = clock(session)
    row = models.PurgeRow(
        code=secrets.token_hex(6),
        org_id=user.org_id,
        course_id=course_id,
        assignment_id=assignment_id,
        counts=counts,
        fingerprint=fingerprint,
        requested_at=now,
        requested_by=user.name,
        erase_at=now + grace,
    )
    session.add(row)
    # Reports show the title, because people cannot read the id.
    course = models.Course(org_id=user.org_id, course_id=hidden_course(row.code), title=course_id)
    session.add(course)
    session.flush()
    _move(session, state.assignment_pk, state.course_pk, course.id, assignment_id)
    record_event(session, member, Action.PURGED, None, detail=assignment_id)
    return record_of(row)


def list_purges(session: Session, user: User, course_id: str) -> list[PurgeRecord]:
    """The course's purges that can still be undone, newest first."""
    permit(user, Verb.LIST_PURGES, course_id)
    rows = session.execute(
        select(models.PurgeRow)
        .where(
            models.PurgeRow.org_id == user.org_id,
            models.PurgeRow.course_id == course_id,
            *_PENDING,
        )
        .order_by(models.PurgeRow.id.desc())
        .limit(MOST_LISTED)
    ).scalars()
    return [record_of(row) for row in rows]


def restore(
    session: Session, user: User, course_id: str, code: str, assignment_id: str | None = None
) -> Restored:
    """Undo a purge. `assignment_id` is a new name, in case its own is used again."""
    permit(user, Verb.RESTORE, course_id)
    row = session.execute(
        select(models.PurgeRow)
        .where(
            models.PurgeRow.code == code,
            models.PurgeRow.org_id == user.org_id,
            models.PurgeRow.course_id == course_id,
        )
        .with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"Course {course_id!r} has no purge {code!r}. List them with GET purges.")
    member = upsert_member(session, user, course_id)
    return _restore(session, row, user.name, assignment_id, member)


def restore_as_administrator(
    session: Session, code: str, by: str, assignment_id: str | None = None
) -> Restored:
    """`restore` for an administrator, without a membership in the course."""
    row = session.execute(
        select(models.PurgeRow).where(models.PurgeRow.code == code).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"No purge has the code {code!r}. `nbexchange purge --list` shows them.")
    return _restore(session, row, by, assignment_id, None)


def erase_due(session: Session, by: str) -> tuple[PurgeRecord, list[str]] | None:
    """Erase one hidden assignment whose grace period is over. Returns the keys of its blobs.

    None if there is none. Replicas that do this at the same time wait for each other, and one of
    them erases it.
    """
    due = session.execute(
        select(models.PurgeRow.id)
        .where(models.PurgeRow.erase_at <= DatabaseClock(), *_PENDING)
        .order_by(models.PurgeRow.id)
        .limit(1)
    ).scalar_one_or_none()
    row = session.execute(
        select(models.PurgeRow).where(models.PurgeRow.id == due, *_PENDING).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        return None
    keys = erase_hidden(session, row, by)
    return record_of(row), keys


_PENDING = (
    models.PurgeRow.erase_at.is_not(None),
    models.PurgeRow.erased_at.is_(None),
    models.PurgeRow.restored_at.is_(None),
)


def _restore(
    session: Session,
    row: models.PurgeRow,
    by: str,
    assignment_id: str | None,
    member: MembershipKeys | None,
) -> Restored:
    hidden = hidden_assignment(session, row)
    if hidden is None or row.course_id is None or row.assignment_id is None:
        raise _gone(row)
    name = assignment_id or row.assignment_id
    if name != row.assignment_id:  # its own name need not follow today's rules
        check_folder_name(name, "An assignment id")
    insert_if_absent(session, models.Course, org_id=row.org_id, course_id=row.course_id)
    course_pk = session.execute(
        select(models.Course.id).filter_by(org_id=row.org_id, course_id=row.course_id)
    ).scalar_one()
    lock_assignment(session, hidden.course_pk, hidden.assignment_pk, LockMode.ALONE)
    taken = select(models.Assignment.id).filter_by(course_pk=course_pk, assignment_id=name)
    if session.execute(taken).first() is not None:
        raise Conflict(
            f"Course {row.course_id!r} has a new assignment {name!r}. Restore the hidden one under "
            "another name."
        )
    _move(session, hidden.assignment_pk, hidden.course_pk, course_pk, name)
    session.execute(delete(models.Course).where(models.Course.id == hidden.course_pk))
    row.restored_at, row.restored_by = clock(session), by
    if member is not None:
        record_event(session, member, Action.RESTORED, hidden.assignment_pk)
    return Restored(record_of(row), name)


def _move(
    session: Session, assignment_pk: int, from_course: int, to_course: int, assignment_id: str
) -> None:
    """The caller has locked it. It may have been moved before that."""
    here = select(models.Assignment.id).filter_by(id=assignment_pk, course_pk=from_course)
    if session.execute(here).first() is None:
        raise NotFound(
            f"Assignment {assignment_id!r} was purged or restored meanwhile. List the purges again."
        )
    session.execute(
        update(models.Assignment)
        .where(models.Assignment.id == assignment_pk)
        .values(course_pk=to_course, assignment_id=assignment_id)
    )


def _gone(row: models.PurgeRow) -> Conflict:
    if row.restored_at is not None:
        return Conflict(f"This purge was already undone, on {minute(row.restored_at)}.")
    if row.erased_at is not None:
        return Conflict(
            f"This was erased for good on {minute(row.erased_at)}. Only a backup still has it."
        )
    return Conflict("This purge hides nothing, so there is nothing to restore.")
