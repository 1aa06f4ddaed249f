"""The values that the verbs return. They outlive the transaction that created them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nbexchange.storage import Blob


@dataclass(frozen=True)
class ReleaseRecord:
    """A version of an assignment, as released."""

    course_id: str
    assignment_id: str
    token: str
    version: int
    timestamp: datetime.datetime
    notebooks: Sequence[str]
    """Paths of the notebooks inside the archive."""
    blob: Blob
    user_pk: int
    user_name: str


class Handout(NamedTuple):
    """A download: a release or a submission."""

    blob: Blob
    version: int
    """Of the release."""


@dataclass(frozen=True)
class NotebookFeedback:
    """The newest feedback on one notebook of a submission."""

    notebook_id: str
    version: int
    timestamp: datetime.datetime
    checksum: str | None
    blob: Blob


class SubmissionRecord(NamedTuple):
    course_id: str
    assignment_id: str
    token: str
    version: int
    """Of the release that it answers."""
    timestamp: datetime.datetime
    client_timestamp: str | None
    notebooks: Sequence[str]
    blob: Blob
    user_pk: int
    student_id: str
    full_name: str | None
    email: str | None
    lms_user_id: str | None
    feedback: Sequence[NotebookFeedback]


@dataclass(frozen=True)
class SubmissionReceipt:
    course_id: str
    assignment_id: str
    student_id: str
    token: str
    timestamp: datetime.datetime
    release_token: str
    version: int
    blob: Blob


@dataclass(frozen=True)
class FeedbackReceipt:
    submission_token: str
    notebook_id: str
    version: int
    timestamp: datetime.datetime
    blob: Blob


@dataclass(frozen=True)
class ActionRecord:
    """An action with its user, time and assignment."""

    id: int
    action: str
    at: datetime.datetime
    course_id: str
    course_pk: int
    course_title: str | None
    assignment_id: str
    assignment_pk: int
    token: str | None
    user_pk: int
    user_name: str
