"""assignments and assignment: list, fetch, release, remove, purge."""

from __future__ import annotations

import functools
import logging

from sqlalchemy.orm import Session

from nbexchange import archive
from nbexchange.archive import Contents
from nbexchange.exchange import assignments, hiding, listing
from nbexchange.exchange.listing import Listing
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import ReleaseRecord
from nbexchange.handlers import shapes
from nbexchange.handlers.base import to_json
from nbexchange.handlers.lists import Entries, ListHandler
from nbexchange.handlers.transfer import GZIP, DownloadHandler, UploadHandler
from nbexchange.storage import Blob
from nbexchange.timestamps import minute

log = logging.getLogger(__name__)


class AssignmentsHandler(ListHandler):
    verbs = {"GET": Verb.LIST}

    async def get(self) -> None:
        """list: what is released, and what the caller did with it."""
        course_id = self.parameter("course_id")

        def begin(session: Session) -> Entries:
            return _entries(listing.list_assignments(session, self.user, course_id))

        await self.answer(begin)


class AssignmentHandler(UploadHandler, DownloadHandler):
    verbs = {"GET": Verb.FETCH, "POST": Verb.RELEASE, "DELETE": Verb.REMOVE}
    form_file = "assignment"

    async def get(self) -> None:
        """fetch: the newest release."""
        course_id, assignment_id = self.required("course_id", "assignment_id")
        fetch = functools.partial(assignments.fetch, is_part=self.asks_for_part)
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
        inspect = functools.partial(archive.inspect_in_steps, limits=self.services.limits)
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
        """remove: take the release back; with `purge`, hide all of it until it is erased."""
        course_id, assignment_id = self.required("course_id", "assignment_id")
        if self.flag("purge"):
            self.verb = Verb.PURGE
            note = await self._purge(course_id, assignment_id)
        else:
            await self.act(assignments.remove, course_id, assignment_id)
            note = "marked as unreleased"
        note = f"Assignment {assignment_id!r} on course {course_id!r} {note}"
        self.finish(to_json({"success": True, "note": note}))

    async def _purge(self, course_id: str, assignment_id: str) -> str:
        grace = self.services.purge_grace
        record = await self.act(hiding.purge, course_id, assignment_id, grace)
        assert record.erase_at is not None
        log.warning(
            "Assignment %r of course %r in organisation %d was hidden by %r with %s, and will be "
            "erased on %s. To restore it: nbexchange purge --restore=%s",
            assignment_id,
            course_id,
            self.user.org_id,
            self.user.name,
            record.words,
            minute(record.erase_at),
            record.code,
        )
        return (
            f"is hidden with {record.words}, and will be purged from the database on "
            f"{minute(record.erase_at)}. Until then an instructor of the course (DELETE purges "
            f"with purge_id={record.code}) or the administrator can restore it"
        )


def _entries(found: Listing) -> Entries:
    return Entries(
        {},
        [
            (found.releases, shapes.release_shape),
            (found.submissions, shapes.own_submission_shape),
            (found.actions, shapes.own_action_shape),
        ],
    )
