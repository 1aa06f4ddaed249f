"""A whole course by people whose names, and whatever else they send, can be found again."""

from __future__ import annotations

from tests.support.archives import tar_gz, upload_headers
from tests.support.course import purge, receipt
from tests.support.service import Service

NAMES = {
    "course_id": "canary-course",
    "assignment_id": "canary-assignment",
}
NOTEBOOK = "canary-notebook"
ORGANISATION = 4711


def every_verb(service: Service) -> None:
    """Each once, by people with names that can be found again."""
    body = tar_gz(**{NOTEBOOK: b'{"canary-content": 1}'})
    ada, bob = (
        service.wire(
            service.enrol(
                f"canary-{role.lower()}",
                {NAMES["course_id"]: {"role": role, "title": "canary-title"}},
                ORGANISATION,
                f"canary-token-{role}",
                full_name="canary-full-name",
                email="canary@example.org",
                lms_user_id="canary-lms",
            )
        )
        for role in ("Instructor", "Student")
    )
    receipt(ada.post("assignment", body, upload_headers(body, "canary-key"), **NAMES))
    assert bob.get("assignments", course_id=NAMES["course_id"]).ok
    assert bob.get("assignment", **NAMES).ok
    given = receipt(bob.post("submission", body, upload_headers(body), **NAMES))
    assert ada.get("collections", **NAMES).ok
    assert ada.get("collection", **NAMES, path=given["submission_id"]).ok
    feedback = {"submission_id": given["submission_id"], "notebook": NOTEBOOK, **NAMES}
    receipt(ada.post("feedback", b"<p>canary-feedback", **feedback))
    assert bob.get("feedback", **NAMES).ok
    assert ada.get("history", course_id=NAMES["course_id"]).ok
    assert ada.delete("assignment", **NAMES).ok
    purge_id = purge(ada, **NAMES)
    assert ada.delete("purges", course_id=NAMES["course_id"], purge_id=purge_id).ok
