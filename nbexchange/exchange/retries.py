"""A retry is safe: requests with the same idempotency key and bytes are the same upload."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.errors import Conflict
from nbexchange.exchange.policy import Verb
from nbexchange.identity import User
from nbexchange.storage import Blob

StoredRow = TypeVar("StoredRow", models.Release, models.Submission, models.Feedback)


def earlier(
    session: Session,
    table: type[StoredRow],
    user: User,
    idempotency_key: str | None,
    blob: Blob | None = None,
) -> StoredRow | None:
    """Return the row that the same caller stored under this key before.

    Raises Conflict if its bytes were different. Of two requests at the same time, the unique key
    makes the later one fail. It runs again and finds the earlier one here.
    """
    if idempotency_key is None:
        return None
    row = session.execute(
        select(table)
        .join(table.user)
        .where(
            models.UserRow.org_id == user.org_id,
            models.UserRow.name == user.name,
            table.idempotency_key == idempotency_key,
        )
    ).scalar_one_or_none()
    if row is not None and blob is not None and row.sha256 != blob.sha256:
        raise used_before()
    return row


def is_stored(session: Session, user: User, verb: Verb, idempotency_key: str | None) -> bool:
    """Whether the upload was stored before, by one of the three verbs that store blobs."""
    return earlier(session, _TABLES[verb], user, idempotency_key) is not None


_TABLES: dict[Verb, type[Any]] = {
    Verb.RELEASE: models.Release,
    Verb.SUBMIT: models.Submission,
    Verb.RELEASE_FEEDBACK: models.Feedback,
}


def used_before() -> Conflict:
    return Conflict(
        "This Idempotency-Key was used before for something else. Use a new key for new work."
    )
