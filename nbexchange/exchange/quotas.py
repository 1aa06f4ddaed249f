"""How many bytes may be kept: of one student, of one organisation, and beside a free disk.

Asked at a request's header, so that nobody sends what cannot stay: what is stored, and what is on
its way in this process, count. Of a student all that was declared is on its way; of an organisation
and of the disk only what came and what may come soon, so that nobody holds the others' room with a
header alone. More is asked for as it comes. Asked again of a student in the transaction that writes
the row, where the student's others wait. So nobody goes beyond a student's quota; beyond an
organisation's, several processes may, by what is on its way in the others.

What a student has is summed up when it is asked: an index finds the rows. An organisation's sum is
remembered and only now and then asked again, so that a submission does not cost more where there
are more of them: what other processes stored, or erased, counts up to
`REFRESH_FACTOR` times later than summing up took.
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
"""A sum counts for at least FRESH_SECONDS, and for so many times longer than it took."""

PART_OF_DISK = 20
"""No more than a twentieth of a disk has to be free, however small it is."""

LOG_SECONDS = 60.0

LEAST_AHEAD, MOST_AHEAD = 4 * 1024 * 1024, 16 * 1024 * 1024
"""Bytes reserved for what may come soon: as many as came already, within these."""

IN_MEMORY = 2 * CHUNK
"""Bytes of an upload that came last, of which the disk may not know yet."""


@dataclass(frozen=True)
class Quota:
    """Bytes; 0 for as many as there is room for."""

    student: int = 0
    """All submissions of one person in the organisation."""
    organisation: int = 0
    """Releases, submissions and feedback of all its courses."""


@dataclass(frozen=True)
class Usage:
    """What there is, in bytes; None where no limit asks for it."""

    student: int | None
    organisation: bool
    """Whether its quota asks; how much it has is known at any time."""
    free: int | None
    """On the fullest of our disks, beyond what has to stay free."""


@dataclass
class CachedTotal:
    size: int
    written: int
    """What this process had written when summing up began."""
    valid_until: float


@dataclass
class InFlight:
    """Bytes that have been let in and are not stored yet."""

    uploads: dict[Hashable, list[Reservation]] = field(default_factory=dict)
    """The tries of each. One of them at most is stored, so the largest counts for all."""
    students: Counter[tuple[int, str]] = field(default_factory=Counter)
    organisations: Counter[int] = field(default_factory=Counter)
    disk: int = 0
    """Of them, those that are not on it yet."""

    def largest(self, of: int | None) -> str:
        """Who holds the most, in an organisation or in all, and how much."""
        reserved: Counter[tuple[int, str]] = Counter()
        for attempts in self.uploads.values():
            person = attempts[0].person
            if of in (None, person[0]):
                reserved[person] += max(attempt.reserved for attempt in attempts)
        (((org_id, name), size),) = reserved.most_common(1)
        return f"{name} in organisation {org_id} holds {size:,} bytes"


class Quotas:
    """`look` and `check_student` run in a verb's thread; all else on the event loop."""

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
        """What counts for somebody's upload; `personal` for one of the person's own.

        What `is_stored` already needs room on the disk alone, until it is recognised.
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
        """By an organisation whose quota was looked at."""
        total = self._totals[org_id]
        return total.size + self._written[org_id] - total.written

    def stored(self, org_id: int, size: int) -> None:
        """A row was written."""
        self._written[org_id] += size

    def erased(self, org_id: int) -> None:
        """Nobody knows how much."""
        if org_id in self._totals:
            self._totals[org_id].valid_until = 0.0

    def _refresh_total(self, session: Session, org_id: int) -> None:
        started = time.monotonic()
        total = self._totals.get(org_id)
        if total is not None and started < total.valid_until:
            return
        # What is written meanwhile counts twice rather than not at all.
        written = self._written[org_id]
        size = stored_in(session, org_id)
        now = time.monotonic()
        valid_until = now + max(REFRESH_SECONDS, REFRESH_FACTOR * (now - started))
        self._totals[org_id] = CachedTotal(size, written, valid_until)

    def _free(self, disk: Path) -> int:
        try:
            status = os.statvfs(disk)
        except OSError as error:
            log.error("the disk does not tell its room: %s", error)
            raise store_unavailable() from error
        least = min(self._least_free, status.f_blocks * status.f_frsize // PART_OF_DISK)
        return status.f_bavail * status.f_frsize - least

    def warn(self, text: str, of: int | None = None) -> None:
        """The operator should know, and who it may be; once a minute is enough.

        Called for somebody who asks for room, so somebody is there.
        """
        if time.monotonic() - self._warned_at >= LOG_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("%s; of what is on its way, %s, the most", text, self.in_flight.largest(of))


class QuotaOptions(HasTraits):
    """Options about how many bytes may be kept."""

    student_quota = Integer(
        10_000_000_000,
        min=0,
        help="""
        The most bytes that all submissions of one person in an organisation may have together;
        more are answered 413. 0: as many as there is room for. The default is twice the largest
        file, and twenty times what a student hands in who takes ten courses.
        """,
    ).tag(config=True)

    organisation_quota = Integer(
        0,
        min=0,
        help="""
        The most bytes that all releases, submissions and feedback of one organisation may have
        together; more are answered 507. 0: as many as there is room for.
        """,
    ).tag(config=True)

    quotas: Any = Dict(
        value_trait=Dict(value_trait=Integer(min=0), key_trait=Enum(["student", "organisation"])),
        key_trait=OrganisationNumber(),
        help="""
        Other quotas for some organisations, by their number:
        {7: {"student": 2_000_000_000, "organisation": 500_000_000_000}}. What is not said here is
        as everywhere.
        """,
    ).tag(config=True)

    min_free_space = Integer(
        1_000_000_000,
        min=0,
        help="""
        Bytes that have to stay free on the disk of base_storage_location, and on that of an SQLite
        database; an upload that needs them is answered 507. A database that meets a full disk
        fails in everything. Of a small disk no more than a twentieth is kept free.
        """,
    ).tag(config=True)

    def make_quotas(self, disks: Sequence[Path]) -> Quotas:
        usual = Quota(self.student_quota, self.organisation_quota)
        special = {org_id: replace(usual, **fields) for org_id, fields in self.quotas.items()}
        return Quotas(usual, special, disks, self.min_free_space)


class Reservation:
    """Disk space for one upload, from its header until its row is written or it is given up."""

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
        """Make it so many bytes at least, and some ahead, by what there is now.

        At the header, `size` is 0: all that was declared has to fit, and is not reserved yet.
        Raises TooLarge and StoreFull in words for the caller.
        """
        if self not in self._attempts:
            return  # given up meanwhile
        with self._recounted():
            most = self._most(size or self._declared or 1, usage)
            ahead = min(max(size, LEAST_AHEAD), MOST_AHEAD)
            if self._declared:
                self.reserved = min(size + ahead, self._declared, most)
            else:
                # It may need much less, so the others get as much.
                self.reserved = size + min(ahead, (most - size) // 2)
            self._usage = usage

    def arrive(self, size: int) -> None:
        """So many bytes more are here."""
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
        """While this changes, only the others count."""
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
        """How many bytes it could have in all. Raises where `size` is more."""
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
            self._quotas.warn(f"organisation {org_id} has no room left", org_id)
            raise _organisation_full(used, size, quota, is_instructor=self._is_instructor)
        return quota - used

    def _most_of_disk(self, size: int, usage: Usage) -> int:
        if usage.free is None:
            return sys.maxsize
        most = usage.free - self._quotas.in_flight.disk + self._on_disk
        if size > most:
            self._quotas.warn("the disk is full but for what has to stay free")
            raise _disk_full(is_instructor=self._is_instructor)
        return most


def lock_user(session: Session, user_pk: int) -> None:
    """Until the person's other transactions are over: two at once would not see each other."""
    session.execute(_LOCK, {"user_pk": user_pk})


def check_student(session: Session, user: User, size: int, quota: int) -> None:
    """Raises TooLarge where so many more bytes are too many for the person."""
    if quota:
        check(stored_by(session, user), size, quota)


def check(used: int, more: int, quota: int) -> None:
    if used + more > quota:
        raise TooLarge(
            f"you have {used:,} of the {quota:,} bytes that you may keep here, and this needs "
            f"{more:,} more, so it was not stored; send it without large files, or ask your "
            "instructor"
        )


def stored_by(session: Session, user: User) -> int:
    """Bytes of all submissions of a person."""
    of = {"org_id": user.org_id, "name": user.name}
    return int(session.execute(_OF_PERSON, of).scalar_one())


def stored_in(session: Session, org_id: int) -> int:
    """Bytes of all that an organisation keeps."""
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

# Versions of feedback that do not differ share their bytes.
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
            f"your organisation has {used:,} of the {quota:,} bytes that it may keep here, and "
            f"this needs {more:,} more, so it was not stored; tell the people who run the exchange"
        )
    return StoreFull(
        "the room that your organisation has in the exchange is full, so nothing was stored; tell "
        "your instructor"
    )


def _disk_full(*, is_instructor: bool) -> StoreFull:
    whom = "the people who run the exchange" if is_instructor else "your instructor"
    return StoreFull(f"the exchange's disk is full, so nothing was stored; tell {whom}")
