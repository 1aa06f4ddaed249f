"""release, fetch and remove: assignments on their way from instructors to students."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.database import clock
from nbexchange.errors import AlreadyReleased, NotFound
from nbexchange.exchange.assignment_state import (
    AssignmentState,
    assignment_state,
    not_released,
    released,
)
from nbexchange.exchange.events import record_download, record_event
from nbexchange.exchange.locks import LockMode, get_or_create_assignment, lock_assignment
from nbexchange.exchange.names import check_folder_name
from nbexchange.exchange.people import MembershipKeys, upsert_member
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.records import Handout, ReleaseRecord
from nbexchange.exchange.retries import earlier, used_before
from nbexchange.exchange.submissions import fits_in_lists, listable
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.storage import Blob, new_key


def fetch(
    session: Session, user: User, course_id: str, assignment_id: str, *, is_part: bool = False
) -> Handout:
    """Return the newest release. `is_part`: the caller asks for a range of its bytes."""
    permit(user, Verb.FETCH, course_id)
    state = released(session, user, course_id, assignment_id)
    record_download(
        session,
        upsert_member(session, user, course_id, state),
        Action.FETCHED,
        state.assignment_pk,
        state.release_token,
        now=state.now,
        is_part=is_part,
    )
    return Handout(Blob(state.key, state.sha256, state.size), state.version)


def admit_release(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    *,
    first_only: bool,
    idempotency_key: str | None,
) -> bool:
    """Check everything that can refuse a release before its body is read.

    Returns whether it is a retry.
    """
    permit(user, Verb.RELEASE, course_id)
    check_folder_name(course_id, "A course id")
    check_folder_name(assignment_id, "An assignment id")
    is_retry = earlier(session, models.Release, user, idempotency_key) is not None
    if first_only and not is_retry:
        _refuse_released(session, user, course_id, assignment_id)
    return is_retry


def release(
    session: Session,
    user: User,
    course_id: str,
    assignment_id: str,
    blob: Blob,
    notebooks: Sequence[str],
    *,
    first_only: bool,
    idempotency_key: str | None,
) -> ReleaseRecord:
    """Add a version and make the assignment visible.

    With `first_only`, raises AlreadyReleased if the assignment is visible already.
    """
    permit(user, Verb.RELEASE, course_id)
    state = _existing_state(session, user, course_id, assignment_id)
    member = upsert_member(session, user, course_id, state)
    assignment = get_or_create_assignment(session, member.course_pk, assignment_id)
    row = earlier(session, models.Release, user, idempotency_key, blob)
    if row is not None and row.assignment_pk != assignment.id:
        raise used_before()
    if row is None:
        if first_only and assignment.released:
            raise _already_released(course_id, assignment_id)
        listed = _listed(notebooks)
        row = _add_version(session, member, assignment, blob, listed, idempotency_key)
        record_event(session, member, Action.RELEASED, assignment.id, row.token)
    return release_record(row, course_id, assignment_id, user.name)


def remove(session: Session, user: User, course_id: str, assignment_id: str) -> None:
    """Hide an assignment. Its releases, submissions and feedback stay."""
    permit(user, Verb.REMOVE, course_id)
    state = released(session, user, course_id, assignment_id)
    if not lock_assignment(session, state.course_pk, state.assignment_pk, LockMode.CHANGE):
        raise not_released(course_id, assignment_id)
    session.execute(
        update(models.Assignment)
        .where(models.Assignment.id == state.assignment_pk)
        .values(released=False)
    )
    member = upsert_member(session, user, course_id, state)
    record_event(session, member, Action.REMOVED, state.assignment_pk)


def release_record(
    row: models.Release, course_id: str, assignment_id: str, user_name: str
) -> ReleaseRecord:
    return ReleaseRecord(
        course_id=course_id,
        assignment_id=assignment_id,
        token=row.token,
        version=row.version,
        timestamp=row.timestamp,
        notebooks=row.notebooks,
        blob=Blob(row.key, row.sha256, row.size),
        user_pk=row.user_pk,
        user_name=user_name,
    )


# -- changing


def _refuse_released(session: Session, user: User, course_id: str, assignment_id: str) -> None:
    state = _existing_state(session, user, course_id, assignment_id)
    if state is not None and state.released:
        raise _already_released(course_id, assignment_id)


def _existing_state(
    session: Session, user: User, course_id: str, assignment_id: str
) -> AssignmentState | None:
    """None before the first release."""
    try:
        return assignment_state(session, user, course_id, assignment_id)
    except NotFound:
        return None


def _already_released(course_id: str, assignment_id: str) -> AlreadyReleased:
    return AlreadyReleased(
        f"Assignment {assignment_id!r} is already released in course {course_id!r}. Force the "
        "release to add a new version."
    )


def _listed(notebooks: Sequence[str]) -> list[str]:
    """All notebooks, or only those at the top level if the folders hold too many for a list."""
    top = listable(notebooks)
    return list(notebooks) if fits_in_lists(notebooks) else top


def _add_version(
    session: Session,
    member: MembershipKeys,
    assignment: models.Assignment,
    blob: Blob,
    notebooks: list[str],
    idempotency_key: str | None,
) -> models.Release:
    newest = session.execute(
        select(func.max(models.Release.version)).where(
            models.Release.assignment_pk == assignment.id
        )
    ).scalar_one()
    row = models.Release(
        token=new_key(),
        assignment_pk=assignment.id,
        user_pk=member.user_pk,
        version=(newest or 0) + 1,
        notebooks=notebooks,
        key=blob.key,
        sha256=blob.sha256,
        size=blob.size,
        timestamp=clock(session),
        idempotency_key=idempotency_key,
    )
    session.add(row)
    assignment.released = True
    session.flush()
    return row
