"""Import rows from another exchange with its times, and mark them as imported.

Nothing is imported twice: the idempotency key of each row is derived from its origin. An import
never replaces later work of this exchange; it raises Conflict instead.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.archive import Contents
from nbexchange.database import clock, insert_if_absent
from nbexchange.errors import Conflict, Malformed, NotFound
from nbexchange.exchange.events import record_event
from nbexchange.exchange.locks import LockMode, get_or_create_assignment, lock_assignment
from nbexchange.exchange.names import check_file_name
from nbexchange.exchange.people import MembershipKeys
from nbexchange.exchange.submissions import listable
from nbexchange.exchange.upkeep.inventory import STAND_INS
from nbexchange.identity import LONGEST_NAME, Role, is_name
from nbexchange.models import Action
from nbexchange.storage import Blob, new_key

IMPORTED = "imported"
"""The detail of the events of imported rows."""

_KEYS = "§imported:"
"""The prefix of idempotency keys of imports. No client can send it, because a header is ASCII."""

_STAND_INS = STAND_INS
"""The prefix for stand-in releases. All other keys continue with hexadecimal digits."""

PEOPLE = 100

Imported = models.Release | models.Submission | models.Feedback


class ImportedBlob(NamedTuple):
    """The result of an import."""

    is_new: bool
    key: str
    """The key of the blob that the row has."""


@dataclass(frozen=True)
class OldRelease:
    org_id: int
    course_id: str
    assignment_id: str
    by: str
    origin: str
    """Identifies it among everything that is imported, also in the classes that follow."""
    visible: bool = True
    version: int | None = None
    """Its number in the other exchange; None if it has no numbers."""
    timestamp: datetime.datetime | None = None
    stands_in: bool = False
    """Whether it is a stand-in for a missing release, since submissions need a release."""


@dataclass(frozen=True)
class OldSubmission:
    org_id: int
    course_id: str
    assignment_id: str
    student: str
    timestamp: datetime.datetime
    origin: str
    client_timestamp: str | None = None
    release_version: int | None = None


@dataclass(frozen=True)
class OldFeedback:
    submission: OldSubmission
    notebook_id: str
    by: str
    origin: str
    version: int | None = None
    timestamp: datetime.datetime | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class OldPerson:
    name: str
    role: Role
    last_seen: datetime.datetime
    full_name: str | None = None
    email: str | None = None
    lms_user_id: str | None = None


# -- finding what exists


def existing_release(session: Session, old: OldRelease, sha256: str) -> ImportedBlob | None:
    """None if it has to be imported. Raises Conflict if it must not be; as the next functions."""
    _check_names(old.course_id, old.by)
    check_file_name(old.assignment_id, "An assignment id")
    row = _find_assignment(session, old.org_id, old.course_id, old.assignment_id)
    versions = _releases(session, row)
    if old.stands_in and versions:
        return ImportedBlob(False, versions[-1].key)
    real = [version for version in versions if not _stands_in(version)]
    return _known_version(real, old.version, sha256, _release_key(old, sha256))


def existing_submission(session: Session, old: OldSubmission, sha256: str) -> ImportedBlob | None:
    _check_names(old.course_id, old.assignment_id, old.student)
    if old.timestamp > clock(session):
        raise Conflict("Its submission time is in the future.")
    row = _find_submission(session, old)
    if row is None:
        return None
    if row.sha256 != sha256 and row.idempotency_key != _key(old.origin):
        raise Conflict("The student has a different submission with the same time here.")
    return ImportedBlob(False, row.key)


def existing_feedback(session: Session, old: OldFeedback, sha256: str) -> ImportedBlob | None:
    check_file_name(old.notebook_id, "A notebook id")
    _check_names(old.by)
    row = _find_submission(session, old.submission)
    versions = _feedback(session, row, old.notebook_id)
    return _known_version(versions, old.version, sha256, _key(old.origin, sha256))


# -- importing


def import_release(
    session: Session, old: OldRelease, blob: Blob, contents: Contents
) -> ImportedBlob:
    member = _membership(session, old.org_id, old.course_id, old.by, Role.INSTRUCTOR)
    assignment = get_or_create_assignment(session, member.course_pk, old.assignment_id)
    existing = existing_release(session, old, blob.sha256)
    if existing is not None:
        return existing
    key = _unused(session, models.Release, member, _release_key(old, blob.sha256))
    versions = _releases(session, assignment)
    row = _version(session, assignment, versions, old.version)
    row.user_pk = member.user_pk
    row.notebooks = list(contents.notebooks)
    row.key, row.sha256, row.size = blob.key, blob.sha256, blob.size
    row.timestamp = old.timestamp or clock(session)
    row.idempotency_key = key
    session.add(row)
    if not _is_released_or_removed_here(session, assignment, versions):
        assignment.released = old.visible
    session.flush()
    record_event(session, member, Action.RELEASED, assignment.id, row.token, IMPORTED)
    return ImportedBlob(True, row.key)


def import_submission(
    session: Session, old: OldSubmission, blob: Blob, contents: Contents
) -> ImportedBlob:
    """Raises NotFound if its assignment was never released."""
    existing = existing_submission(session, old, blob.sha256)
    if existing is not None:
        return existing
    release = _answered_release(session, old)
    _share_assignment(session, release.assignment)
    member = _membership(session, old.org_id, old.course_id, old.student, Role.STUDENT)
    key = _unused(session, models.Submission, member, _key(old.origin))
    now = clock(session)
    row = models.Submission(
        token=new_key(),
        assignment_pk=release.assignment_pk,
        user_pk=member.user_pk,
        release_pk=release.id,
        key=blob.key,
        sha256=blob.sha256,
        size=blob.size,
        timestamp=old.timestamp,
        arrived_at=now,
        stored_at=now,
        client_timestamp=old.client_timestamp,
        notebooks=listable(contents.notebooks),
        idempotency_key=key,
    )
    session.add(row)
    session.flush()
    record_event(session, member, Action.SUBMITTED, release.assignment_pk, row.token, IMPORTED)
    return ImportedBlob(True, row.key)


def import_feedback(
    session: Session, old: OldFeedback, blob: Blob, fresh: Collection[str]
) -> ImportedBlob:
    """Raises NotFound if the submission does not exist here.

    Identical bytes share a blob if its key is in `fresh`, the keys that this import stored. An
    older blob may be corrupt, and then these bytes would be lost as well.
    """
    existing = existing_feedback(session, old, blob.sha256)
    if existing is not None:
        return existing
    submission = _find_submission(session, old.submission)
    if submission is None:
        raise NotFound("Its submission does not exist here.")
    _share_assignment(session, submission.assignment)
    member = _membership(
        session, old.submission.org_id, old.submission.course_id, old.by, Role.INSTRUCTOR
    )
    key = _unused(session, models.Feedback, member, _key(old.origin, blob.sha256))
    versions = _feedback(session, submission, old.notebook_id)
    same = [row for row in versions[-1:] if row.sha256 == blob.sha256 and row.key in fresh]
    row = models.Feedback(
        submission_pk=submission.id,
        user_pk=member.user_pk,
        notebook_id=old.notebook_id,
        version=old.version or _next(versions),
        key=same[0].key if same else blob.key,
        sha256=blob.sha256,
        size=blob.size,
        timestamp=old.timestamp or clock(session),
        checksum=old.checksum,
        idempotency_key=key,
    )
    session.add(row)
    session.flush()
    record_event(
        session,
        member,
        Action.FEEDBACK_RELEASED,
        submission.assignment_pk,
        submission.token,
        IMPORTED,
    )
    return ImportedBlob(True, row.key)


def import_people(
    session: Session,
    org_id: int,
    course_id: str,
    title: str | None,
    people: Sequence[OldPerson],
) -> None:
    """Import the roster, for reports and lists. People who exist here keep their fields.

    Pass at most PEOPLE: the transaction has to end before waiting requests time out.
    """
    _check_names(course_id, *(person.name for person in people))
    insert_if_absent(session, models.Course, org_id=org_id, course_id=course_id, title=title)
    for person in people:
        insert_if_absent(
            session,
            models.UserRow,
            org_id=org_id,
            name=person.name,
            full_name=person.full_name,
            email=person.email,
            lms_user_id=person.lms_user_id,
        )
        _membership(session, org_id, course_id, person.name, person.role, person.last_seen)


# -- the rows


def _share_assignment(session: Session, assignment: models.Assignment) -> None:
    """If the assignment is erased meanwhile, the insert fails and the import runs again."""
    lock_assignment(session, assignment.course_pk, assignment.id, LockMode.SHARED)


def _membership(
    session: Session,
    org_id: int,
    course_id: str,
    name: str,
    role: Role,
    last_seen: datetime.datetime | None = None,
) -> MembershipKeys:
    """Insert the rows if they are new. Existing fields are newer than imported ones and stay."""
    insert_if_absent(session, models.UserRow, org_id=org_id, name=name)
    insert_if_absent(session, models.Course, org_id=org_id, course_id=course_id)
    person = select(models.UserRow.id).filter_by(org_id=org_id, name=name)
    course = select(models.Course.id).filter_by(org_id=org_id, course_id=course_id)
    member = MembershipKeys(
        session.execute(person).scalar_one(), session.execute(course).scalar_one()
    )
    insert_if_absent(
        session,
        models.Subscription,
        course_pk=member.course_pk,
        user_pk=member.user_pk,
        role=role.value,
        last_seen=last_seen or clock(session),
    )
    return member


def _find_assignment(
    session: Session, org_id: int, course_id: str, assignment_id: str
) -> models.Assignment | None:
    return session.execute(
        select(models.Assignment)
        .join(models.Assignment.course)
        .where(
            models.Course.org_id == org_id,
            models.Course.course_id == course_id,
            models.Assignment.assignment_id == assignment_id,
        )
    ).scalar_one_or_none()


def _find_submission(session: Session, old: OldSubmission) -> models.Submission | None:
    """The student's submission with this time. Imports and their feedback identify it so."""
    query: Select[models.Submission] = (
        select(models.Submission)
        .join(models.Submission.user)
        .join(models.Submission.assignment)
        .join(models.Assignment.course)
        .where(
            models.Course.org_id == old.org_id,
            models.Course.course_id == old.course_id,
            models.Assignment.assignment_id == old.assignment_id,
            models.UserRow.name == old.student,
            models.Submission.timestamp == old.timestamp,
        )
    )
    return session.execute(query).scalar_one_or_none()


def _answered_release(session: Session, old: OldSubmission) -> models.Release:
    """The release that it answers, or else the newest."""
    row = _find_assignment(session, old.org_id, old.course_id, old.assignment_id)
    versions = _releases(session, row)
    if not versions:
        raise NotFound(f"Assignment {old.assignment_id!r} has no release here.")
    by_number = {version.version: version for version in versions}
    return by_number.get(old.release_version or 0, versions[-1])


def _releases(session: Session, assignment: models.Assignment | None) -> list[models.Release]:
    """The releases of the assignment, oldest first."""
    if assignment is None:
        return []
    query = select(models.Release).filter_by(assignment_pk=assignment.id)
    return list(session.execute(query.order_by(models.Release.version)).scalars())


def _version(
    session: Session,
    assignment: models.Assignment,
    versions: Sequence[models.Release],
    number: int | None,
) -> models.Release:
    """A new row, or the row of a stand-in with this number (without a number: the only release).

    Submissions answer the stand-in, so its row stays and becomes the real release. Its blob becomes
    an orphaned blob for `gc`. It is not deleted here, because a backup may be running.
    """
    for version in versions:
        meant = version.version == number or (number is None and len(versions) == 1)
        if meant and _stands_in(version):
            return version
    return models.Release(
        token=new_key(), assignment_pk=assignment.id, version=number or _next(versions)
    )


def _feedback(
    session: Session, submission: models.Submission | None, notebook_id: str
) -> list[models.Feedback]:
    if submission is None:
        return []
    query = select(models.Feedback).filter_by(submission_pk=submission.id, notebook_id=notebook_id)
    return list(session.execute(query.order_by(models.Feedback.version)).scalars())


def _known_version(
    versions: Sequence[models.Release] | Sequence[models.Feedback],
    number: int | None,
    sha256: str,
    key: str,
) -> ImportedBlob | None:
    if number is None:
        existing = [row for row in versions if row.idempotency_key == key]
        existing = [row for row in versions[-1:] if row.sha256 == sha256] or existing
    else:
        existing = [row for row in versions if row.version == number]
        if existing and existing[0].sha256 != sha256:
            raise Conflict(f"Version {number} of it is different here.")
    if existing:
        return ImportedBlob(False, existing[0].key)
    if versions and not _is_imported(versions[-1]):
        raise Conflict("This exchange has a newer version, which is not replaced.")
    return None


def _stands_in(row: models.Release) -> bool:
    return (row.idempotency_key or "").startswith(_STAND_INS)


def _is_imported(row: models.Release | models.Feedback) -> bool:
    return (row.idempotency_key or "").startswith(_KEYS)


def _is_released_or_removed_here(
    session: Session, assignment: models.Assignment, versions: Sequence[models.Release]
) -> bool:
    """Whether a user released it here, or removed it."""
    removed = select(models.Event.id).filter_by(assignment_pk=assignment.id, action=Action.REMOVED)
    return (
        not all(map(_is_imported, versions))
        or session.execute(removed.limit(1)).first() is not None
    )


def _next(versions: Sequence[models.Release] | Sequence[models.Feedback]) -> int:
    return versions[-1].version + 1 if versions else 1


def _release_key(old: OldRelease, sha256: str) -> str:
    return f"{_STAND_INS}{old.origin}" if old.stands_in else _key(old.origin, sha256)


def _key(origin: str, sha256: str = "") -> str:
    return f"{_KEYS}{origin}:{sha256}"


def _unused(session: Session, table: type[Imported], member: MembershipKeys, key: str) -> str:
    """Return the key. Raises Conflict if the other exchange gave one id to two objects."""
    query = select(table.id).filter_by(user_pk=member.user_pk, idempotency_key=key)
    if session.execute(query).first() is not None:
        raise Conflict("Another object with the same id was already imported.")
    return key


def _check_names(*names: str) -> None:
    for name in names:
        if not is_name(name):
            raise Malformed(
                f"{name!r} cannot be a name here. Names have 1 to {LONGEST_NAME} characters, and "
                "no control characters."
            )
