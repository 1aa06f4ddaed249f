"""Keys of blobs that rows own."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from nbexchange.models import STORED


def known_keys(session: Session, keys: Collection[str]) -> set[str]:
    """The subset of `keys` that rows own. Pass at most 500: databases limit the parameters."""
    owned: set[str] = set()
    for table in STORED:
        owned.update(session.execute(select(table.key).where(table.key.in_(keys))).scalars())
    return owned
