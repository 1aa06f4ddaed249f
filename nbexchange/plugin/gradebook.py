"""Collect's use of nbgrader's gradebook: due dates, and the students' names.

Collect uses an existing gradebook and never creates one: that takes seconds, and it fails if
`alembic` is not on the PATH. The check for existence works for an SQLite file only. A configured
database of another kind is assumed to contain a gradebook.
"""

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry

from nbexchange.plugin.answers import ListedSubmission

_SQLITE = "sqlite:///"
_LONGEST = 128  # characters in a column


@contextlib.contextmanager
def opened(coursedir: Any) -> Iterator[Any | None]:
    """The gradebook, or None if it does not exist."""
    if not _exists(coursedir.db_url):
        yield None
        return
    with Gradebook(coursedir.db_url, coursedir.course_id) as gradebook:
        yield gradebook


def _exists(db_url: str) -> bool:
    if not db_url.startswith(_SQLITE):
        return True
    path = Path(db_url.removeprefix(_SQLITE))
    if not path.is_file():
        return False
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return (
            db.execute("SELECT 1 FROM sqlite_master WHERE name = 'student'").fetchone() is not None
        )


@dataclass(frozen=True)
class Duedates:
    """The due date of an assignment, and the students' extensions."""

    usual: datetime.datetime | None  # naive, in UTC
    extensions: Mapping[str, datetime.timedelta] = field(default_factory=dict)

    def of(self, student: str) -> datetime.datetime | None:
        if self.usual is None:
            return None
        return self.usual + self.extensions.get(student, datetime.timedelta(0))


def duedates(coursedir: Any) -> Duedates:
    """The due dates in the gradebook; none if it or the assignment does not exist."""
    with opened(coursedir) as gradebook:
        if gradebook is None:
            return Duedates(None)
        try:
            assignment = gradebook.find_assignment(coursedir.assignment_id)
        except MissingEntry:
            return Duedates(None)
        extensions = {
            submission.student_id: submission.extension
            for submission in assignment.submissions
            if submission.extension is not None
        }
        return Duedates(assignment.duedate, extensions)


def add_to_gradebook(coursedir: Any, submissions: list[ListedSubmission]) -> None:
    """Add the students' names from the service. Values that an instructor entered stay."""
    identities = {
        submission.student: identity
        for submission in submissions
        if (identity := _identity(submission))
    }
    if not identities:
        return
    with opened(coursedir) as gradebook:
        if gradebook is None:
            return
        present = {student.id: student for student in gradebook.students}
        for student_id, identity in identities.items():
            missing = {
                key: value
                for key, value in identity.items()
                if student_id not in present or not getattr(present[student_id], key)
            }
            if missing:
                gradebook.update_or_create_student(student_id, **missing)


def _identity(submission: ListedSubmission) -> dict[str, str]:
    first_name, last_name = split_name(submission.full_name or "")
    identity = {
        "first_name": first_name,
        "last_name": last_name,
        "email": submission.email or "",
        "lms_user_id": submission.lms_user_id or "",
    }
    return {key: value[:_LONGEST] for key, value in identity.items() if value}


def split_name(full_name: str) -> tuple[str, str]:
    """First and last name: "Lovelace, Ada", "Ada Lovelace", "Ludwig van Beethoven", "Plato"."""
    last, comma, first = full_name.partition(",")
    if comma:
        return " ".join(first.split()), " ".join(last.split())
    words = full_name.split()
    start = max(len(words) - 1, 1)
    while start > 1 and words[start - 1].islower():  # van, de la, von der
        start -= 1
    return " ".join(words[:start]), " ".join(words[start:])
