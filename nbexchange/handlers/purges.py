"""purges: what instructors have hidden, until it is erased."""

from __future__ import annotations

import logging

from nbexchange.exchange import hiding
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.purge_records import PurgeRecord
from nbexchange.handlers.base import BaseHandler, to_json
from nbexchange.timestamps import to_text

log = logging.getLogger(__name__)


class PurgesHandler(BaseHandler):
    verbs = {"GET": Verb.LIST_PURGES, "DELETE": Verb.RESTORE}

    async def get(self) -> None:
        """list_purges: the hidden assignments of a course."""
        (course_id,) = self.required("course_id")
        records = await self.services.database.read(hiding.list_purges, self.user, course_id)
        self.finish(to_json({"success": True, "value": [_shape(record) for record in records]}))

    async def delete(self) -> None:
        """restore: take a purge back."""
        course_id, code = self.required("course_id", "purge_id")
        restored = await self.act(hiding.restore, course_id, code, self.parameter("assignment_id"))
        log.warning(
            "Assignment %r of course %r in organisation %d was restored by %r",
            restored.assignment_id,
            course_id,
            self.user.org_id,
            self.user.name,
        )
        note = f"Assignment {restored.assignment_id!r} on course {course_id!r} is restored"
        self.finish(to_json({"success": True, "note": note}))


def _shape(record: PurgeRecord) -> dict[str, object]:
    assert record.erase_at is not None
    return {
        "purge_id": record.code,
        "course_id": record.scope.course_id,
        "assignment_id": record.scope.assignment_id,
        "hidden_by": record.requested_by,
        "hidden_at": to_text(record.requested_at),
        "erase_at": to_text(record.erase_at),
        **{name: record.counts[name] for name in ("releases", "submissions", "feedback")},
    }
