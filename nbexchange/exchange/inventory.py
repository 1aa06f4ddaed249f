"""Which blobs the database knows: for `nbexchange check` and `nbexchange gc`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Row, Select, literal, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.models import STORED
from nbexchange.storage import Blob

_Query = Select[int, str, str, int, int, str, str, str, str]

BATCH = 500
"""Rows or keys at a time."""


@dataclass(frozen=True)
class Owned:
    """A blob and, in words, whose it is."""

    blob: Blob
    owner: str


@dataclass(frozen=True)
class Position:
    """How far a walk over all rows has come."""

    table: int = 0
    pk: int = 0


def owned_blobs(session: Session, position: Position) -> tuple[list[Owned], Position | None]:
    """The next batch after `position`, and where it ended; None at the very end."""
    if position.table == len(STORED):
        return [], None
    table = STORED[position.table]
    rows = session.execute(
        _described(table).where(table.id > position.pk).order_by(table.id).limit(BATCH)
    ).all()
    owned = [Owned(Blob(row.key, row.sha256, row.size), _words(row)) for row in rows]
    if len(rows) < BATCH:
        return owned, Position(position.table + 1)
    return owned, Position(position.table, rows[-1].id)


def known_keys(session: Session, keys: Collection[str]) -> set[str]:
    """Those of at most BATCH `keys` that some row owns."""
    known: set[str] = set()
    for table in STORED:
        known.update(session.execute(select(table.key).where(table.key.in_(keys))).scalars())
    return known


def _described(table: type[models.Release | models.Submission | models.Feedback]) -> _Query:
    """The columns of an `Owned`; the person is who released or handed in."""
    query = select(
        table.id,
        table.key,
        table.sha256,
        table.size,
        models.Course.org_id,
        models.Course.course_id,
        models.Assignment.assignment_id,
        models.User.name,
        literal(table.__tablename__).label("kind"),
    ).select_from(table)
    if table is models.Feedback:
        query = query.join(models.Feedback.submission)
    holder = models.Release if table is models.Release else models.Submission
    return query.join(holder.user).join(holder.assignment).join(models.Assignment.course)


def _words(row: Row[int, str, str, int, int, str, str, str, str]) -> str:
    return (
        f"{row.kind} of {row.name!r} in organisation {row.org_id}, "
        f"course {row.course_id!r}, assignment {row.assignment_id!r}"
    )
