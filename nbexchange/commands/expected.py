"""The rows that the last check saw. A row that is missing since and was not purged is lost.

The list is kept in the store, which a reset or a restore of the database does not change.
"""

from __future__ import annotations

import datetime
import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nbexchange.database import Database
from nbexchange.errors import Misconfigured
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.purge_records import PurgeRecord
from nbexchange.exchange.upkeep.inventory import BATCH, Owned
from nbexchange.exchange.upkeep.purging import purges
from nbexchange.storage import Storage
from nbexchange.timestamps import minute

STATE_FILE = "last-check"
KEY_LENGTH = 32
PLURALS = {"release": "releases", "submission": "submissions", "feedback": "feedback"}


class Owner(NamedTuple):
    """The owner of rows, as precisely as purges and reports need it."""

    org_id: int
    course_id: str
    assignment_id: str
    kind: str
    person: str

    @classmethod
    def of(cls, owned: Owned) -> Owner:
        return cls(owned.org_id, owned.course_id, owned.assignment_id, owned.kind, owned.person)

    def was_purged(self, records: Sequence[PurgeRecord]) -> bool:
        student = None if self.kind == "release" else self.person
        return any(
            record.scope.covers(self.org_id, self.course_id, self.assignment_id, student)
            for record in records
        )


class Expected:
    """The expected rows, as the keys of their blobs."""

    def __init__(self, seen_at: datetime.datetime) -> None:
        self.seen_at = seen_at
        """When the check began, by the database's clock."""
        self._keys: dict[Owner, list[str]] = defaultdict(list)

    def add(self, owned: Owned) -> None:
        if not owned.stands_in:
            self._keys[Owner.of(owned)].append(owned.blob.key)

    @classmethod
    async def load(cls, storage: Storage) -> Expected | None:
        """None before the first check. Raises Misconfigured for a file of another format."""
        content = await storage.read_state(STATE_FILE)
        if content is None:
            return None
        try:
            saved = json.loads(gzip.decompress(content))
            expected = cls(datetime.datetime.fromisoformat(saved["seen_at"]))
            for *owner, keys in saved["rows"]:
                expected._keys[Owner(*owner)] = [
                    keys[start : start + KEY_LENGTH] for start in range(0, len(keys), KEY_LENGTH)
                ]
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise Misconfigured(
                f"The file {STATE_FILE} of the store cannot be read ({type(error).__name__}), so "
                "the rows that the last check saw are not known. Restore it from a backup, or "
                "delete it to begin again."
            ) from error
        return expected

    async def save(self, storage: Storage) -> None:
        rows = [[*owner, "".join(keys)] for owner, keys in self._keys.items()]
        content = json.dumps({"seen_at": self.seen_at.isoformat(), "rows": rows})
        await storage.write_state(STATE_FILE, gzip.compress(content.encode(), 6))

    async def gone(self, database: Database) -> Counter[Owner]:
        """The number of missing rows of each owner, without rows that were purged since."""
        records = [
            record
            for record in await database.read(purges)
            if record.erased_at is not None and record.erased_at >= self.seen_at
        ]
        gone: Counter[Owner] = Counter()
        for owner, keys in self._keys.items():
            missing = len(keys) - await _count_existing(database, keys)
            if missing and not owner.was_purged(records):
                gone[owner] += missing
        return gone


async def _count_existing(database: Database, keys: Sequence[str]) -> int:
    number = 0
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        saved = await database.read(known_keys, batch)
        number += sum(key in saved for key in batch)
    return number


def lines(gone: Mapping[Owner, int], seen_at: datetime.datetime) -> list[str]:
    """Lines for people: the number of rows of each kind, for each assignment."""
    counts: dict[tuple[int, str, str], Counter[str]] = defaultdict(Counter)
    for owner, number in gone.items():
        counts[owner.org_id, owner.course_id, owner.assignment_id][owner.kind] += number
    return [
        f"GONE: {_words(kinds)} of organisation {org_id}, course {course_id!r}, assignment "
        f"{assignment_id!r}, which existed at the check of {minute(seen_at)}"
        for (org_id, course_id, assignment_id), kinds in sorted(counts.items())
    ]


def _words(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {PLURALS[kind]}" for kind, number in sorted(kinds.items()))
