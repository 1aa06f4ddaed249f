"""submission, collections and collection: submit, list submissions, collect."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable

from sqlalchemy.orm import Session

from nbexchange import archive
from nbexchange.archive import Contents
from nbexchange.exchange import submissions
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import SubmissionReceipt
from nbexchange.exchange.submissions import Admission, SubmissionUpload
from nbexchange.handlers import shapes
from nbexchange.handlers.base import LARGEST_PAGE, to_json
from nbexchange.handlers.lists import Entries, ListHandler
from nbexchange.handlers.transfer import GZIP, DownloadHandler, UploadHandler
from nbexchange.storage import Blob


class SubmissionHandler(UploadHandler):
    verbs = {"POST": Verb.SUBMIT}
    form_file = "assignment"
    is_personal = True
    is_committed = False
    """Whether the time of its header counts."""

    async def admit(self) -> None:
        self.course_id, self.assignment_id = self.required("course_id", "assignment_id")
        self.admission = await self.services.database.read(self._admit)
        if self.digest is not None and not self.admission.is_retry:
            self._commit(self.digest)

    def _admit(self, session: Session) -> Admission:
        admission = submissions.admit_submission(
            session,
            self.user,
            self.course_id,
            self.assignment_id,
            idempotency_key=self.key,
            waited=lambda: self.waited,
        )
        self.look(session, is_retry=admission.is_retry)
        return admission

    def _commit(self, digest: str) -> None:
        commitment = self.services.commitments.begin(self.user, self.key, digest, self.admission)
        if commitment is not None:
            self.leases.callback(commitment.end)
            self.is_committed = True
            first = commitment.admission
            self.admission = self.admission._replace(arrived_at=first.arrived_at, after=first.after)

    async def post(self) -> None:
        """submit: keep the student's work, and say when it came."""
        header_to_end = self.waited
        inspect = functools.partial(archive.inspect_in_steps, limits=self.services.limits)

        def since() -> datetime.timedelta:
            return self.waited - header_to_end

        record = await self.store(inspect, functools.partial(self._submit, since))
        self.set_status(201)
        self.finish(to_json(shapes.submission_receipt(record)))

    def _submit(
        self,
        since: Callable[[], datetime.timedelta],
        session: Session,
        blob: Blob,
        contents: Contents,
    ) -> SubmissionReceipt:
        upload = SubmissionUpload(
            blob,
            contents,
            self.admission,
            committed=self.is_committed,
            since=since,
            client_timestamp=self.parameter("timestamp"),
            idempotency_key=self.key,
        )
        quota = self.services.quotas.of(self.user.org_id).student
        return submissions.submit(
            session, self.user, self.course_id, self.assignment_id, upload, quota
        )


class CollectionsHandler(ListHandler):
    verbs = {"GET": Verb.LIST_SUBMISSIONS}

    async def get(self) -> None:
        """list submissions: those of all students for an instructor, their own for a student."""
        (course_id,) = self.required("course_id")
        list_submissions = functools.partial(
            submissions.list_submissions,
            user=self.user,
            course_id=course_id,
            assignment_id=self.parameter("assignment_id"),
            student_id=self.parameter("user_id"),
            latest=self.flag("latest"),
            limit=self.number("limit", LARGEST_PAGE),
            page=self.parameter("page"),
        )

        def begin(session: Session) -> Entries:
            page = list_submissions(session)
            return Entries({"next": page.next}, [(page.records, shapes.collection_shape)])

        await self.answer(begin)


class CollectionHandler(DownloadHandler):
    verbs = {"GET": Verb.COLLECT}

    async def get(self) -> None:
        """collect: one submission, by the token that the list gave."""
        course_id, assignment_id, path = self.required("course_id", "assignment_id", "path")
        collect = functools.partial(submissions.collect, is_part=self.asks_for_part)
        found = await self.act(collect, course_id, assignment_id, path)
        self.set_header("Nbexchange-Version", str(found.version))
        await self.send(found.blob, GZIP, "submission.tar.gz")
