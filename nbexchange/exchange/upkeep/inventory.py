"""The blobs that rows own, for `nbexchange check` and `nbexchange gc`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, func, null, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.exchange.names import is_hidden
from nbexchange.models import STORED
from nbexchange.storage import Blob

STAND_INS = "§imported:stand-in:"
"""The prefix of the idempotency keys of stand-in releases (importing.py)."""

_Query = Select[*tuple[Any, ...]]

BATCH = 500
"""Rows or keys at a time."""


@dataclass(frozen=True)
class Owned:
    """A blob and its owner: the instructor of a release, or the student of a submission or of the
    submission that the feedback is about."""

    blob: Blob
    kind: str
    org_id: int
    course_id: str
    assignment_id: str
    person: str
    token: str
    """The token of the release or the submission."""
    timestamp: datetime.datetime
    """The official time of the release or the submission, or the time of the feedback."""
    part: str | None
    """The notebook of feedback."""
    version: int
    """The version of the release, of the release that was answered, or of the feedback."""
    stands_in: bool = False
    """Whether it is a stand-in release of an import, which a real one may replace."""

    def __str__(self) -> str:
        return (
            f"{self.kind} of {self.person!r} in organisation {self.org_id}, "
            f"course {self.course_id!r}, assignment {self.assignment_id!r}"
        )


@dataclass(frozen=True)
class Position:
    """The position of a walk over all rows."""

    table: int = 0
    pk: int = 0


def owned_blobs(session: Session, position: Position) -> tuple[list[Owned], Position | None]:
    """The next batch after `position`, and the position after it; None at the end."""
    if position.table == len(STORED):
        return [], None
    table = STORED[position.table]
    # No LIMIT on the joined query: MariaDB would join all rows to sort them.
    batch = select(table.id).where(table.id > position.pk).order_by(table.id).limit(BATCH)
    pks = session.execute(batch).scalars().all()
    if not pks:
        return [], Position(position.table + 1)
    within = table.id.between(pks[0], pks[-1])
    rows = session.execute(_described(table).where(within).order_by(table.id))
    owned = [_owned(table.__tablename__, *row) for row in rows]
    return owned, Position(position.table, pks[-1])


def _owned(
    kind: str, _: int, key: str, sha256: str, size: int, org_id: int, course_id: str, *more: Any
) -> Owned:
    *columns, title, idempotency_key = more
    # The course of a hidden assignment has the original course id as its title (hiding.py).
    course_id = title if is_hidden(course_id) else course_id
    stands_in = (idempotency_key or "").startswith(STAND_INS)
    owned = Owned(Blob(key, sha256, size), kind, org_id, course_id, *columns)
    return replace(owned, stands_in=stands_in)


def owns_any(session: Session) -> bool:
    """Whether any row owns a blob."""
    return any(session.execute(select(table.id).limit(1)).first() for table in STORED)


def count_rows(session: Session) -> int:
    """The number of rows that own a blob."""
    counts = (session.execute(select(func.count(table.id))).scalar_one() for table in STORED)
    return sum(counts)


def _described(table: type[models.Release | models.Submission | models.Feedback]) -> _Query:
    """The primary key, the columns of a Blob and of an `Owned`, the course's title, and the
    idempotency key."""
    holder = models.Release if table is models.Release else models.Submission
    versioned = models.Feedback if table is models.Feedback else models.Release
    query = select(
        table.id,
        table.key,
        table.sha256,
        table.size,
        models.Course.org_id,
        models.Course.course_id,
        models.Assignment.assignment_id,
        models.UserRow.name,
        holder.token,
        table.timestamp,
        models.Feedback.notebook_id if table is models.Feedback else null(),
        versioned.version,
        models.Course.title,
        table.idempotency_key,
    ).select_from(table)
    if table is models.Feedback:
        query = query.join(models.Feedback.submission)
    if table is models.Submission:
        query = query.join(models.Submission.release)
    return query.join(holder.user).join(holder.assignment).join(models.Assignment.course)
