"""assignments and assignment: list, fetch, release, remove, purge."""

from __future__ import annotations

import functools

from sqlalchemy.orm import Session

from nbexchange import archive
from nbexchange.archive import Contents
from nbexchange.exchange import assignments, listing
from nbexchange.exchange.listing import Listing
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import ReleaseRecord
from nbexchange.handlers import shapes
from nbexchange.handlers.base import BaseHandler, to_json
from nbexchange.handlers.transfer import GZIP, DownloadHandler, UploadHandler
from nbexchange.storage import Blob


class Assignments(BaseHandler):
    verbs = {"GET": Verb.LIST}

    async def get(self) -> None:
        """list: what is released, and what the caller did with it."""
        await self.answer(_listing, listing.list_assignments, self.parameter("course_id"))


class Assignment(UploadHandler, DownloadHandler):
    verbs = {"GET": Verb.FETCH, "POST": Verb.RELEASE, "DELETE": Verb.REMOVE}
    form_file = "assignment"

    async def get(self) -> None:
        """fetch: the newest release."""
        course_id, assignment_id = self.required("course_id", "assignment_id")
        fetch = functools.partial(assignments.fetch, first_part=self.wants_first_part)
        record = await self.act(fetch, course_id, assignment_id)
        self.set_header("Nbexchange-Version", str(record.version))
        await self.send(record.blob, GZIP, "assignment.tar.gz")

    async def admit(self) -> None:
        self.course_id, self.assignment_id = self.required("course_id", "assignment_id")
        self.first_only = self.request.headers.get("If-None-Match") == "*"
        await self.services.database.read(
            assignments.admit_release,
            self.user,
            self.course_id,
            self.assignment_id,
            first_only=self.first_only,
            idempotency_key=self.key,
        )

    async def post(self) -> None:
        """release: a new version for the students."""
        inspect = functools.partial(archive.inspect, limits=self.services.limits)
        record = await self.store(inspect, self._release)
        self.set_status(201)
        self.finish(to_json(shapes.release_receipt(record)))

    def _release(self, session: Session, blob: Blob, contents: Contents) -> ReleaseRecord:
        return assignments.release(
            session,
            self.user,
            self.course_id,
            self.assignment_id,
            blob,
            contents.notebooks,
            first_only=self.first_only,
            idempotency_key=self.key,
        )

    async def delete(self) -> None:
        """remove: hide the assignment; with `purge`, erase it."""
        course_id, assignment_id = self.required("course_id", "assignment_id")
        if self.flag("purge"):
            keys = await self.act(assignments.purge, course_id, assignment_id)
            for key in keys:
                await self.services.storage.delete(key)
            note = "deleted and purged from the database"
        else:
            await self.act(assignments.remove, course_id, assignment_id)
            note = "marked as unreleased"
        note = f"Assignment {assignment_id!r} on course {course_id!r} {note}"
        self.finish(to_json({"success": True, "note": note}))


def _listing(found: Listing) -> shapes.Json:
    return {
        "value": [
            *map(shapes.release_shape, found.releases),
            *map(shapes.own_submission_shape, found.submissions),
            *map(shapes.own_action_shape, found.actions),
        ]
    }
