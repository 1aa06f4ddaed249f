"""assignments and assignment: list, fetch, release, remove, purge."""

from __future__ import annotations

import asyncio
import functools
import logging

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
from nbexchange.storage import Blob, delete_all

log = logging.getLogger(__name__)


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
        await self.services.database.read(self._admit)

    def _admit(self, session: Session) -> None:
        is_retry = assignments.admit_release(
            session,
            self.user,
            self.course_id,
            self.assignment_id,
            first_only=self.first_only,
            idempotency_key=self.key,
        )
        self.look(session, is_retry=is_retry)

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
            self.verb = Verb.PURGE
            left = await self._purge(course_id, assignment_id)
            note = "deleted and purged from the database" + _what_is(left)
        else:
            await self.act(assignments.remove, course_id, assignment_id)
            note = "marked as unreleased"
        note = f"Assignment {assignment_id!r} on course {course_id!r} {note}"
        self.finish(to_json({"success": True, "note": note}))

    async def _purge(self, course_id: str, assignment_id: str) -> int:
        """How many of its files are still there."""
        # Once the rows are gone nobody can ask again, so a service that stops waits for the files.
        task = asyncio.current_task()
        assert task is not None
        self.hold_the_end(task)
        keys = await self.act(assignments.purge, course_id, assignment_id)
        self.services.quotas.erased(self.user.org_id)
        left = await delete_all(self.services.storage, set(keys))
        if left:
            log.warning(
                "%d files of an assignment that was purged in organisation %d could not be "
                "deleted; no row knows them, and `nbexchange gc --delete` sweeps them up",
                left,
                self.user.org_id,
            )
        return left


def _what_is(left: int) -> str:
    if not left:
        return ""
    return (
        f"; {left:,} of its files could not be deleted yet: tell the people who run the exchange, "
        "whose `nbexchange gc --delete` sweeps them up"
    )


def _listing(found: Listing) -> shapes.Json:
    return {
        "value": [
            *map(shapes.release_shape, found.releases),
            *map(shapes.own_submission_shape, found.submissions),
            *map(shapes.own_action_shape, found.actions),
        ]
    }
