"""Records as JSON. The keys are those that clients in the field know; new ones are only added."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from nbexchange.exchange.records import (
    ActionRecord,
    FeedbackReceipt,
    NotebookFeedback,
    ReleaseRecord,
    SubmissionReceipt,
    SubmissionRecord,
)
from nbexchange.exchange.submissions import top_level
from nbexchange.models import Action
from nbexchange.storage import Blob
from nbexchange.timestamps import to_text

Json = dict[str, Any]


def release_shape(record: ReleaseRecord) -> Json:
    return {
        "assignment_id": record.assignment_id,
        # A number here, a name in collections: so it has always been.
        "student_id": number(record.user_name),
        "student": record.user_name,
        "course_id": record.course_id,
        "status": Action.RELEASED,
        "path": record.token,
        "notebooks": _notebooks(top_level(record.notebooks)),
        "notebook_files": list(record.notebooks),
        "timestamp": to_text(record.timestamp),
        "release_id": record.token,
        "version": record.version,
        **_blob(record.blob),
    }


def own_submission_shape(record: SubmissionRecord) -> Json:
    return _submission(record) | {
        "student_id": number(record.student_id),
        "student": record.student_id,
    }


def collection_shape(record: SubmissionRecord) -> Json:
    return _submission(record) | {
        "student_id": record.student_id,
        "full_name": record.full_name,
        "email": record.email,
        "lms_user_id": record.lms_user_id,
    }


def own_action_shape(record: ActionRecord) -> Json:
    return {
        "assignment_id": record.assignment_id,
        "student_id": number(record.user_name),
        "student": record.user_name,
        "course_id": record.course_id,
        "status": record.action,
        "path": record.token or "",
        "notebooks": [],
        "timestamp": to_text(record.at),
    }


def release_receipt(record: ReleaseRecord) -> Json:
    return {
        "success": True,
        "note": "Released",
        "course_id": record.course_id,
        "assignment_id": record.assignment_id,
        "release_id": record.token,
        "version": record.version,
        "timestamp": to_text(record.timestamp),
        "notebooks": [notebook_id(path) for path in top_level(record.notebooks)],
        **_blob(record.blob),
    }


def submission_receipt(record: SubmissionReceipt) -> Json:
    return {
        "success": True,
        "note": "Submitted",
        "course_id": record.course_id,
        "assignment_id": record.assignment_id,
        "student": record.student_id,
        "submission_id": record.token,
        "timestamp": to_text(record.timestamp),
        "release_id": record.release_token,
        "version": record.version,
        **_blob(record.blob),
    }


def feedback_receipt(receipt: FeedbackReceipt) -> Json:
    return {
        "success": True,
        "note": "Feedback released",
        "submission_id": receipt.submission_token,
        "notebook_id": receipt.notebook_id,
        "version": receipt.version,
        "timestamp": to_text(receipt.timestamp),
        **_blob(receipt.blob),
    }


@functools.lru_cache(maxsize=10_000)
def number(*names: str) -> int:
    """For old clients, which expect a number for a row with these names.

    Always the same one, and not the number of a row, which would tell how many rows the other
    organisations have. JavaScript keeps it as it is.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return int.from_bytes(digest[:6])


def label(record: SubmissionRecord) -> str:
    """What an old client calls this submission when it looks for its feedback."""
    return record.client_timestamp or to_text(record.timestamp)


def notebook_id(path: str) -> str:
    return path.removesuffix(".ipynb")


def _submission(record: SubmissionRecord) -> Json:
    return {
        "assignment_id": record.assignment_id,
        "course_id": record.course_id,
        "status": Action.SUBMITTED,
        "path": record.token,
        "notebooks": _notebooks(
            record.notebooks, record.feedback, label(record) if record.feedback else None
        ),
        "timestamp": to_text(record.timestamp),
        "submission_id": record.token,
        "version": record.version,
        **_blob(record.blob),
    }


def _blob(blob: Blob) -> Json:
    return {"sha256": blob.sha256, "size": blob.size}


def _notebooks(
    paths: Iterable[str],
    feedback: Iterable[NotebookFeedback] = (),
    feedback_timestamp: str | None = None,
) -> list[Json]:
    given: Mapping[str, NotebookFeedback] = {item.notebook_id: item for item in feedback}
    return [
        {
            "notebook_id": name,
            "has_exchange_feedback": name in given,
            "feedback_updated": False,  # only the client knows what it has
            "feedback_timestamp": feedback_timestamp if name in given else None,
            "feedback_sha256": given[name].blob.sha256 if name in given else None,
        }
        for name in map(notebook_id, paths)
    ]
