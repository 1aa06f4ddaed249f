"""Finding rows, always inside one organisation; what is not there is raised."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.errors import Malformed, NotFound
from nbexchange.exchange.records import ReleaseRecord
from nbexchange.identity import User, is_name
from nbexchange.storage import Blob


def find_assignment(
    session: Session, user: User, course_id: str, assignment_id: str
) -> models.Assignment:
    """The assignment, released or not; NotFound when it never was."""
    assignment = session.execute(
        select(models.Assignment)
        .join(models.Course)
        .where(
            models.Course.org_id == user.org_id,
            models.Course.course_id == course_id,
            models.Assignment.assignment_id == assignment_id,
        )
    ).scalar_one_or_none()
    if assignment is None:
        raise not_released(course_id, assignment_id)
    return assignment


def newest_release(
    session: Session, user: User, course_id: str, assignment_id: str
) -> ReleaseRecord:
    """The version that is out now; NotFound when none is."""
    row = session.execute(
        releases(user.org_id, [course_id])
        .where(models.Assignment.assignment_id == assignment_id)
        .order_by(models.Release.version.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        raise not_released(course_id, assignment_id)
    return release_record(*row)


def not_released(course_id: str, assignment_id: str) -> NotFound:
    return NotFound(f"assignment {assignment_id!r} is not released in course {course_id!r}")


def check_file_name(name: str, what: str) -> None:
    """Refuse a new name that could not be a folder or a file on somebody's disk."""
    if not is_name(name) or name in (".", "..") or "/" in name or "\\" in name:
        raise Malformed(
            f"{what} becomes the name of a folder or file, so it cannot be {name!r}; "
            "use 1 to 200 characters other than / and \\"
        )


def releases(org_id: int, courses: Iterable[str]) -> Select[models.Release, str, str, str]:
    """What is out now, all versions, with the columns that `release_record` takes."""
    return (
        select(
            models.Release,
            models.Course.course_id,
            models.Assignment.assignment_id,
            models.User.name,
        )
        .join(models.Release.assignment)
        .join(models.Assignment.course)
        .join(models.Release.user)
        .where(
            models.Course.org_id == org_id,
            models.Course.course_id.in_(courses),
            models.Assignment.released.is_(True),
        )
    )


def newest_releases(session: Session, org_id: int, courses: Iterable[str]) -> list[ReleaseRecord]:
    versions = select(func.max(models.Release.id)).group_by(models.Release.assignment_pk)
    rows = session.execute(
        releases(org_id, courses)
        .where(models.Release.id.in_(versions))
        .order_by(models.Course.course_id, models.Assignment.assignment_id)
    )
    return [release_record(*row) for row in rows]


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
