"""Limits of stored bytes: for one student, for one organisation, and for the free disk space.

The limits are checked at a request's header, so that clients do not send bodies that cannot be
stored. Stored bytes and this process's in-flight uploads count. For a student, an in-flight upload
counts with its declared size. For an organisation and the disk it counts with the bytes that
arrived and those that may arrive soon, so that a header alone cannot reserve the space of others;
the reservation grows as bytes arrive. The transaction that writes the row checks the student's
quota again, and the student's other uploads wait for it. So a student's quota is never exceeded. An
organisation's quota may be, by the in-flight uploads of other processes.

A student's usage is computed for each check, because an index finds the rows. An organisation's
usage is cached, so that a submission does not get slower as submissions accumulate. What other
processes stored or erased counts after a delay of up to `REFRESH_FACTOR` times the duration of that
query.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session
from traitlets import Dict, Enum, HasTraits, Integer

from nbexchange import models
from nbexchange.errors import StoreFull, TooLarge
from nbexchange.identity import User
from nbexchange.storage import CHUNK
from nbexchange.storage.spool import store_unavailable
from nbexchange.traits import OrganisationNumber

log = logging.getLogger(__name__)

REFRESH_SECONDS = 15.0
REFRESH_FACTOR = 100
"""A cached total is valid for at least REFRESH_SECONDS, and otherwise for REFRESH_FACTOR times the
duration of its query."""

PART_OF_DISK = 20
"""On a small disk, only a twentieth of it has to be free."""

LOG_SECONDS = 60.0

LEAST_AHEAD, MOST_AHEAD = 4 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes that are reserved ahead: as many as have arrived already, within these limits."""

IN_MEMORY = 2 * CHUNK
"""The last bytes of an upload, which may not be on the disk yet."""


@dataclass(frozen=True)
class Quota:
    """Bytes; 0 for no limit except the disk."""

    student: int = 0
    """All submissions of one student in the organisation."""
    organisation: int = 0
    """Releases, submissions and feedback of all its courses."""


@dataclass(frozen=True)
class Usage:
    """Current usage in bytes; None if no limit needs it."""

    student: int | None
    organisation: bool
    """Whether the organisation has a quota. Its usage is in the cache."""
    free: int | None
    """On the fullest of the disks, beyond the space that has to stay free."""


@dataclass
class CachedTotal:
    size: int
    written: int
    """Bytes that this process had written when the query began."""
    valid_until: float


@dataclass
class InFlight:
    """Bytes that are reserved for uploads and not stored yet."""

    uploads: dict[Hashable, list[Reservation]] = field(default_factory=dict)
    """The attempts of each upload. At most one of them is stored, so only the largest counts."""
    students: Counter[tuple[int, str]] = field(default_factory=Counter)
    organisations: Counter[int] = field(default_factory=Counter)
    disk: int = 0
    """Reserved bytes that are not on the disk yet."""

    def largest(self, of: int | None) -> str:
        """The user with the largest reservation, in one organisation or in all, and its size."""
        reserved: Counter[tuple[int, str]] = Counter()
        for attempts in self.uploads.values():
            person = attempts[0].person
            if of in (None, person[0]):
                reserved[person] += max(attempt.reserved for attempt in attempts)
        (((org_id, name), size),) = reserved.most_common(1)
        return f"{name} in organisation {org_id} holds {size:,} bytes"


class Quotas:
    """`look` and `check_student` run in a verb's thread, everything else on the event loop."""

    def __init__(
        self,
        usual: Quota | None = None,
        special: Mapping[int, Quota] | None = None,
        disks: Sequence[Path] = (),
        least_free: int = 0,
    ) -> None:
        self._usual = usual or Quota()
        self._special = special or {}
        self._disks = disks if least_free else ()
        self._least_free = least_free
        self._totals: dict[int, CachedTotal] = {}
        self._written: Counter[int] = Counter()
        self.in_flight = InFlight()
        self._warned_at = -LOG_SECONDS

    def of(self, org_id: int) -> Quota:
        return self._special.get(org_id, self._usual)

    def look(
        self, session: Session, user: User, *, personal: bool, is_stored: bool = False
    ) -> Usage:
        """The usage that matters for an upload; `personal` if it counts for the user's own quota.

        An upload that `is_stored` already needs disk space only, until it is recognised as a retry.
        """
        quota = Quota() if is_stored else self.of(user.org_id)
        if quota.organisation:
            self._refresh_total(session, user.org_id)
        return Usage(
            student=stored_by(session, user) if personal and quota.student else None,
            organisation=bool(quota.organisation),
            free=min(map(self._free, self._disks), default=None),
        )

    def reservation(
        self, user: User, upload: Hashable, declared: int, *, is_instructor: bool
    ) -> Reservation:
        """For one attempt of an `upload` that declares a body of `declared` bytes; 0 if unknown."""
        return Reservation(self, user, upload, declared, is_instructor=is_instructor)

    def usage_of(self, org_id: int) -> int:
        """Bytes stored by an organisation, after `look` was called for it."""
        total = self._totals[org_id]
        return total.size + self._written[org_id] - total.written

    def stored(self, org_id: int, size: int) -> None:
        """Record that a row was written."""
        self._written[org_id] += size

    def erased(self, org_id: int) -> None:
        """Record that rows were erased. Their size is unknown, so the cached total expires."""
        if org_id in self._totals:
            self._totals[org_id].valid_until = 0.0

    def _refresh_total(self, session: Session, org_id: int) -> None:
        started = time.monotonic()
        total = self._totals.get(org_id)
        if total is not None and started < total.valid_until:
            return
        # Bytes that are written meanwhile may count twice, but never not at all.
        written = self._written[org_id]
        size = stored_in(session, org_id)
        now = time.monotonic()
        valid_until = now + max(REFRESH_SECONDS, REFRESH_FACTOR * (now - started))
        self._totals[org_id] = CachedTotal(size, written, valid_until)

    def _free(self, disk: Path) -> int:
        try:
            status = os.statvfs(disk)
        except OSError as error:
            log.error("The free disk space cannot be read: %s", error)
            raise store_unavailable() from error
        least = min(self._least_free, status.f_blocks * status.f_frsize // PART_OF_DISK)
        return status.f_bavail * status.f_frsize - least

    def warn(self, text: str, of: int | None = None) -> None:
        """Log, at most once a minute, that space runs out, and the user with the most in flight.

        It is called for an upload that asks for space, so there is at least one in flight.
        """
        if time.monotonic() - self._warned_at >= LOG_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("%s Of the in-flight uploads, %s.", text, self.in_flight.largest(of))


class QuotaOptions(HasTraits):
    """Options of the quotas and of the free disk space."""

    student_quota = Integer(
        10_000_000_000,
        min=0,
        help="""
        The maximum number of bytes of all submissions of one student in an organisation. An upload
        beyond that gets a 413. 0: no limit except the disk. The default is twice the largest file,
        and twenty times what a student submits who takes ten courses.
        """,
    ).tag(config=True)

    organisation_quota = Integer(
        0,
        min=0,
        help="""
        The maximum number of bytes of all releases, submissions and feedback of one organisation.
        An upload beyond that gets a 507. 0: no limit except the disk.
        """,
    ).tag(config=True)

    quotas: Any = Dict(
        value_trait=Dict(value_trait=Integer(min=0), key_trait=Enum(["student", "organisation"])),
        key_trait=OrganisationNumber(),
        help="""
        Different quotas for some organisations, by their number:
        {7: {"student": 2_000_000_000, "organisation": 500_000_000_000}}. The general quotas apply
        to everything that is missing here.
        """,
    ).tag(config=True)

    min_free_space = Integer(
        1_000_000_000,
        min=0,
        help="""
        Bytes that have to stay free on the disk of base_storage_location and on that of an SQLite
        database. An upload that would use them gets a 507. (On a full disk every request to the
        database fails.) On a small disk at most a twentieth is kept free.
        """,
    ).tag(config=True)

    def make_quotas(self, disks: Sequence[Path]) -> Quotas:
        usual = Quota(self.student_quota, self.organisation_quota)
        special = {org_id: replace(usual, **fields) for org_id, fields in self.quotas.items()}
        return Quotas(usual, special, disks, self.min_free_space)


class Reservation:
    """Space for one upload, from its header until its row is written or the upload fails."""

    def __init__(
        self, quotas: Quotas, user: User, upload: Hashable, declared: int, *, is_instructor: bool
    ) -> None:
        self._quotas = quotas
        self.person = (user.org_id, user.name)
        self._upload = (self.person, upload)
        self._declared = declared
        self._is_instructor = is_instructor
        self._usage: Usage | None = None
        self.reserved = 0
        self._arrived = 0
        quotas.in_flight.uploads.setdefault(self._upload, []).append(self)

    def grow(self, size: int, usage: Usage) -> None:
        """Reserve at least `size` bytes, and some ahead, according to the current usage.

        At the header, `size` is 0: the declared size has to fit, but is not reserved yet.
        Raises TooLarge and StoreFull with a message for the caller.
        """
        if self not in self._attempts:
            return  # released meanwhile
        with self._recounted():
            most = self._most(size or self._declared or 1, usage)
            ahead = min(max(size, LEAST_AHEAD), MOST_AHEAD)
            if self._declared:
                self.reserved = min(size + ahead, self._declared, most)
            else:
                # The size is unknown, so half of the free space is left to others.
                self.reserved = size + min(ahead, (most - size) // 2)
            self._usage = usage

    def arrive(self, size: int) -> None:
        """Record that so many more bytes have arrived."""
        with self._recounted():
            self._arrived += size

    def release(self) -> None:
        with self._recounted():
            if self in self._attempts:
                self._attempts.remove(self)
        if not self._attempts:
            self._quotas.in_flight.uploads.pop(self._upload, None)

    @property
    def _attempts(self) -> list[Reservation]:
        return self._quotas.in_flight.uploads.get(self._upload, [])

    @contextmanager
    def _recounted(self) -> Iterator[None]:
        """Take this upload out of the totals while it changes, and add it again afterwards."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    def _count(self, sign: int) -> None:
        in_flight, attempts = self._quotas.in_flight, self._attempts
        in_flight.disk += sign * max((each._of_disk for each in attempts), default=0)
        org_id = self.person[0]
        of_org = max((each._of_org for each in attempts), default=0)
        of_student = max((each._of_student for each in attempts), default=0)
        in_flight.organisations[org_id] += sign * of_org
        in_flight.students[self.person] += sign * of_student
        if not in_flight.students[self.person]:
            del in_flight.students[self.person]

    @property
    def _of_student(self) -> int:
        if self._usage is None or self._usage.student is None:
            return 0
        return max(self._declared, self.reserved)

    @property
    def _of_org(self) -> int:
        return self.reserved if self._usage is not None and self._usage.organisation else 0

    @property
    def _of_disk(self) -> int:
        return self.reserved - self._on_disk

    @property
    def _on_disk(self) -> int:
        return max(0, min(self._arrived, self.reserved) - IN_MEMORY)

    def _most(self, size: int, usage: Usage) -> int:
        """How many bytes the upload may have. Raises if `size` is more."""
        return min(
            self._most_of_student(size, usage),
            self._most_of_organisation(size, usage),
            self._most_of_disk(size, usage),
        )

    def _most_of_student(self, size: int, usage: Usage) -> int:
        if usage.student is None:
            return sys.maxsize
        used = usage.student + self._quotas.in_flight.students[self.person]
        quota = self._quotas.of(self.person[0]).student
        check(used, max(size, self._declared), quota)
        return quota - used

    def _most_of_organisation(self, size: int, usage: Usage) -> int:
        if not usage.organisation:
            return sys.maxsize
        org_id = self.person[0]
        used = self._quotas.usage_of(org_id) + self._quotas.in_flight.organisations[org_id]
        quota = self._quotas.of(org_id).organisation
        if used + size > quota:
            self._quotas.warn(f"The quota of organisation {org_id} is used up.", org_id)
            raise _organisation_full(used, size, quota, is_instructor=self._is_instructor)
        return quota - used

    def _most_of_disk(self, size: int, usage: Usage) -> int:
        if usage.free is None:
            return sys.maxsize
        most = usage.free - self._quotas.in_flight.disk + self._on_disk
        if size > most:
            self._quotas.warn("The disk is full except for the space that has to stay free.")
            raise _disk_full(is_instructor=self._is_instructor)
        return most


def lock_user(session: Session, user_pk: int) -> None:
    """Wait for the user's other transactions: two at the same time would not see each other."""
    session.execute(_LOCK, {"user_pk": user_pk})


def check_student(session: Session, user: User, size: int, quota: int) -> None:
    """Raises TooLarge if `size` more bytes exceed the student's quota."""
    if quota:
        check(stored_by(session, user), size, quota)


def check(used: int, more: int, quota: int) -> None:
    if used + more > quota:
        raise TooLarge(
            f"You have {used:,} of the {quota:,} bytes that you may keep here, and this needs "
            f"{more:,} more, so it was not stored. Send it without large files, or ask your "
            "instructor."
        )


def stored_by(session: Session, user: User) -> int:
    """Bytes of all submissions of a user."""
    of = {"org_id": user.org_id, "name": user.name}
    return int(session.execute(_OF_PERSON, of).scalar_one())


def stored_in(session: Session, org_id: int) -> int:
    """Bytes of all blobs of an organisation."""
    return sum(
        int(session.execute(query, {"org_id": org_id}).scalar_one()) for query in _OF_ORGANISATION
    )


_LOCK = select(models.UserRow.id).where(models.UserRow.id == bindparam("user_pk")).with_for_update()

_OF_PERSON = (
    select(func.coalesce(func.sum(models.Submission.size), 0))
    .join(models.Submission.user)
    .where(models.UserRow.org_id == bindparam("org_id"), models.UserRow.name == bindparam("name"))
)

_COURSE = models.Course.org_id == bindparam("org_id")

# Identical versions of feedback share their blob.
_FEEDBACK = (
    select(models.Feedback.key, models.Feedback.size)
    .join(models.Feedback.submission)
    .join(models.Submission.assignment)
    .join(models.Assignment.course)
    .where(_COURSE)
    .distinct()
    .subquery()
)

_OF_ORGANISATION = (
    *(
        select(func.coalesce(func.sum(table.size), 0))
        .join(table.assignment)
        .join(models.Assignment.course)
        .where(_COURSE)
        for table in (models.Release, models.Submission)
    ),
    select(func.coalesce(func.sum(_FEEDBACK.c.size), 0)),
)


def _organisation_full(used: int, more: int, quota: int, *, is_instructor: bool) -> StoreFull:
    if is_instructor:
        return StoreFull(
            f"Your organisation has {used:,} of the {quota:,} bytes that it may keep here, and "
            f"this needs {more:,} more, so it was not stored. Contact your administrator."
        )
    return StoreFull(
        "Your organisation has used up its space in the exchange, so nothing was stored. Contact "
        "your instructor."
    )


def _disk_full(*, is_instructor: bool) -> StoreFull:
    contact = "administrator" if is_instructor else "instructor"
    return StoreFull(f"The exchange's disk is full, so nothing was stored. Contact your {contact}.")
