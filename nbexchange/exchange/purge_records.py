"""Records of purges, and the scope of a purge or an export."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from nbexchange import models


@dataclass(frozen=True)
class Scope:
    """The part of an organisation to erase or to export. None means all."""

    org_id: int
    course_id: str | None = None
    assignment_id: str | None = None
    student_id: str | None = None

    def covers(
        self, org_id: int, course_id: str, assignment_id: str, student_id: str | None
    ) -> bool:
        """Whether such a row is in the scope. `student_id` is None for rows of no student."""
        return (
            self.org_id == org_id
            and self.course_id in (None, course_id)
            and self.assignment_id in (None, assignment_id)
            and self.student_id in (None, student_id)
        )

    def __str__(self) -> str:
        parts = [f"organisation {self.org_id}"]
        parts += [f"course {self.course_id!r}"] if self.course_id is not None else []
        parts += [f"assignment {self.assignment_id!r}"] if self.assignment_id is not None else []
        parts += [f"student {self.student_id!r}"] if self.student_id is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class PurgeRecord:
    """A request, and whether it was carried out."""

    code: str
    scope: Scope
    counts: Mapping[str, int]
    requested_at: datetime.datetime
    requested_by: str
    erased_at: datetime.datetime | None
    erased_by: str | None
    erase_at: datetime.datetime | None
    """When a hidden assignment is erased; None for an administrator's purge."""
    restored_at: datetime.datetime | None
    restored_by: str | None

    @property
    def words(self) -> str:
        names = ("releases", "submissions", "feedback")
        rows = ", ".join(f"{self.counts[name]:,} {name}" for name in names)
        return f"{rows}; {self.counts['files']:,} files of {self.counts['bytes']:,} bytes"


def record_of(row: models.PurgeRow) -> PurgeRecord:
    return PurgeRecord(
        code=row.code,
        scope=Scope(row.org_id, row.course_id, row.assignment_id, row.student_id),
        counts=row.counts,
        requested_at=row.requested_at,
        requested_by=row.requested_by,
        erased_at=row.erased_at,
        erased_by=row.erased_by,
        erase_at=row.erase_at,
        restored_at=row.restored_at,
        restored_by=row.restored_by,
    )
