"""The tables. Every constraint has a name, so that a migration can speak of it.

    course ─┬─ subscription (roster) ── user
            └─ assignment ─┬─ release       numbered versions, only added
                           ├─ submission    only added; answers a release
                           │    └─ feedback numbered versions for each notebook, only added
                           └─ event         who did what, when

`release`, `submission` and `feedback` each own one blob. A row is written after its blob is
durable, so every row has its blob; a blob without a row is litter. `purge` stands alone, so that
what was erased can be told for good.
"""

from __future__ import annotations

import datetime
import enum

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from nbexchange.columns import Key, Moment, Name


class Action(enum.StrEnum):
    """What an event says was done. The words are the wire's."""

    RELEASED = "released"
    FETCHED = "fetched"
    SUBMITTED = "submitted"
    REMOVED = "removed"
    COLLECTED = "collected"
    FEEDBACK_RELEASED = "feedback_released"
    FEEDBACK_FETCHED = "feedback_fetched"
    PURGED = "purged"
    RESTORED = "restored"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Course(Base):
    __tablename__ = "course"
    __table_args__ = (UniqueConstraint("org_id", "course_id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    org_id: Mapped[int]
    course_id: Mapped[str] = mapped_column(Name())
    title: Mapped[str | None] = mapped_column(Text())


class UserRow(Base):
    """Somebody seen. What is here is for reports and lists; it gives no right to anything."""

    __tablename__ = "user"
    __table_args__ = (UniqueConstraint("org_id", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    org_id: Mapped[int]
    name: Mapped[str] = mapped_column(Name())
    full_name: Mapped[str | None] = mapped_column(Text())
    email: Mapped[str | None] = mapped_column(Text())
    lms_user_id: Mapped[str | None] = mapped_column(Text())


class Subscription(Base):
    """The roster: which role somebody was last seen with in a course. A report, never a right."""

    __tablename__ = "subscription"
    __table_args__ = (UniqueConstraint("course_pk", "user_pk"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    course_pk: Mapped[int] = mapped_column(ForeignKey("course.id"))
    user_pk: Mapped[int] = mapped_column(ForeignKey("user.id"), index=True)
    role: Mapped[str] = mapped_column(Name(20))
    last_seen: Mapped[datetime.datetime] = mapped_column(Moment())


class Assignment(Base):
    __tablename__ = "assignment"
    __table_args__ = (UniqueConstraint("course_pk", "assignment_id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    course_pk: Mapped[int] = mapped_column(ForeignKey("course.id"))
    assignment_id: Mapped[str] = mapped_column(Name())
    released: Mapped[bool] = mapped_column(Boolean())
    """Taking a release back is this flag and nothing else."""

    course: Mapped[Course] = relationship()


class Stored:
    """The columns of everything that owns a blob."""

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    key: Mapped[str] = mapped_column(Name(64), unique=True)
    """The name of the blob in the store: random, ours."""
    sha256: Mapped[str] = mapped_column(Name(64))
    size: Mapped[int] = mapped_column(BigInteger())
    timestamp: Mapped[datetime.datetime] = mapped_column(Moment())
    """The official time."""
    idempotency_key: Mapped[str | None] = mapped_column(Name(255))


class Release(Stored, Base):
    __tablename__ = "release"
    __table_args__ = (
        UniqueConstraint("assignment_pk", "version"),
        UniqueConstraint("user_pk", "idempotency_key"),
    )

    token: Mapped[str] = mapped_column(Name(32), unique=True)
    """Its name to the outside: random, so that it tells nothing of other courses."""
    assignment_pk: Mapped[int] = mapped_column(ForeignKey("assignment.id"))
    user_pk: Mapped[int] = mapped_column(ForeignKey("user.id"))
    version: Mapped[int] = mapped_column(Integer())
    notebooks: Mapped[list[str]] = mapped_column(JSON())
    """Paths of its notebooks, as in the archive."""

    assignment: Mapped[Assignment] = relationship()
    user: Mapped[UserRow] = relationship()


class Submission(Stored, Base):
    __tablename__ = "submission"
    __table_args__ = (
        # The order of a student's submissions is the order of their official times.
        UniqueConstraint("assignment_pk", "user_pk", "timestamp"),
        UniqueConstraint("user_pk", "idempotency_key"),
        Index("ix_submission_user_pk_assignment_pk", "user_pk", "assignment_pk"),
    )

    token: Mapped[str] = mapped_column(Name(32), unique=True)
    assignment_pk: Mapped[int] = mapped_column(ForeignKey("assignment.id"))
    user_pk: Mapped[int] = mapped_column(ForeignKey("user.id"))
    release_pk: Mapped[int] = mapped_column(ForeignKey("release.id"), index=True)
    """The newest release when it arrived."""
    arrived_at: Mapped[datetime.datetime] = mapped_column(Moment())
    """The database's clock when the header was here, before any correction."""
    stored_at: Mapped[datetime.datetime] = mapped_column(Moment())
    """The database's clock when this row was written."""
    client_timestamp: Mapped[str | None] = mapped_column(Name(100))
    """What the client says of the time. It decides nothing; old clients name it with feedback."""
    notebooks: Mapped[list[str]] = mapped_column(JSON())

    assignment: Mapped[Assignment] = relationship()
    user: Mapped[UserRow] = relationship()
    release: Mapped[Release] = relationship()


class Feedback(Stored, Base):
    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("submission_pk", "notebook_id", "version"),
        UniqueConstraint("user_pk", "idempotency_key"),
    )

    key: Mapped[str] = mapped_column(Name(64), index=True)
    """Shared by versions that do not differ: releasing all feedback again costs no space."""
    submission_pk: Mapped[int] = mapped_column(ForeignKey("submission.id"))
    user_pk: Mapped[int] = mapped_column(ForeignKey("user.id"))
    """The instructor who gave it."""
    notebook_id: Mapped[str] = mapped_column(Name())
    version: Mapped[int] = mapped_column(Integer())
    checksum: Mapped[str | None] = mapped_column(Name(255))
    """A note of old clients, handed back to them as it came."""

    submission: Mapped[Submission] = relationship()
    user: Mapped[UserRow] = relationship()


class Event(Base):
    """One for each thing done, written in the transaction that does it."""

    __tablename__ = "event"
    # Each ends with the id, so that the newest of what it finds are at its end, and histories read
    # that and no more (`exchange/history.py`).
    __table_args__ = tuple(
        Index(f"ix_event_{'_'.join(columns)}", *columns)
        for columns in (
            ("assignment_pk", "user_pk", "action", "id"),
            ("assignment_pk", "action", "id"),
            ("course_pk", "action", "id"),
            ("user_pk", "id"),
            ("token", "user_pk", "action", "id"),
        )
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(Moment())
    action: Mapped[str] = mapped_column(Name(20))
    course_pk: Mapped[int] = mapped_column(ForeignKey("course.id"))
    user_pk: Mapped[int] = mapped_column(ForeignKey("user.id"))
    assignment_pk: Mapped[int | None] = mapped_column(ForeignKey("assignment.id"))
    """None once the assignment is purged, and for the purge itself, which names it in `detail`."""
    token: Mapped[str | None] = mapped_column(Name(32))
    """The release or submission that it is about."""
    detail: Mapped[str | None] = mapped_column(Text())

    assignment: Mapped[Assignment | None] = relationship()
    user: Mapped[UserRow] = relationship()


class PurgeRow(Base):
    """What an operator asked to erase, and whether it was. It outlives what it speaks of, so it
    names things and refers to nothing."""

    __tablename__ = "purge"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    code: Mapped[str] = mapped_column(Name(32), unique=True)
    """Confirms it."""
    org_id: Mapped[int]
    course_id: Mapped[str | None] = mapped_column(Name())
    """None, here and below, for all."""
    assignment_id: Mapped[str | None] = mapped_column(Name())
    student_id: Mapped[str | None] = mapped_column(Name())
    counts: Mapped[dict[str, int]] = mapped_column(JSON())
    """How much of what was there."""
    fingerprint: Mapped[str] = mapped_column(Name(64))
    """Of all that was there: another one means that something has come since."""
    requested_at: Mapped[datetime.datetime] = mapped_column(Moment())
    requested_by: Mapped[str] = mapped_column(Name())
    """The operating system's user, or the instructor."""
    erased_at: Mapped[datetime.datetime | None] = mapped_column(Moment())
    erased_by: Mapped[str | None] = mapped_column(Name())
    erase_at: Mapped[datetime.datetime | None] = mapped_column(Moment())
    """When what an instructor hid is erased; None for an operator's purge."""
    restored_at: Mapped[datetime.datetime | None] = mapped_column(Moment())
    restored_by: Mapped[str | None] = mapped_column(Name())


class Compatibility(Base):
    """One row, written by migrations: which versions of the program may use this schema."""

    __tablename__ = "compatibility"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    oldest: Mapped[str] = mapped_column(Name(32))
    """The revision that a version has to know, to go on with a schema newer than its own."""


class Secret(Base):
    """One row, written by a migration: random text that all replicas share and no client knows."""

    __tablename__ = "secret"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    value: Mapped[str] = mapped_column(Name(64))


STORED: tuple[type[Release] | type[Submission] | type[Feedback], ...] = (
    Release,
    Submission,
    Feedback,
)
