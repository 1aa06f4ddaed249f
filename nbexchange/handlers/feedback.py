"""feedback: release_feedback and fetch_feedback."""

from __future__ import annotations

import base64
import functools
from collections.abc import AsyncIterator, Sequence
from typing import BinaryIO

from sqlalchemy.orm import Session

from nbexchange.errors import Damaged, Malformed, NotFound
from nbexchange.exchange import feedback
from nbexchange.exchange.feedback import SubmissionFeedback, Target
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import FeedbackReceipt, NotebookFeedback
from nbexchange.handlers import shapes
from nbexchange.handlers.base import to_json
from nbexchange.handlers.transfer import UploadHandler
from nbexchange.identity import User
from nbexchange.server.metrics import reason
from nbexchange.server.rate_limits import Lease
from nbexchange.storage import Blob, Steps
from nbexchange.timestamps import normal_claim, to_text

BASE64_UNIT = 3
"""Bytes that base64 turns into four characters; only whole units can be joined."""


class FeedbackHandler(UploadHandler):
    verbs = {"GET": Verb.FETCH_FEEDBACK, "POST": Verb.RELEASE_FEEDBACK}
    form_file = "feedback"

    _newest: Blob | None = None
    """The version before the one that comes."""
    _shared: Blob | None = None
    """The same, if it has the same bytes and they can be read."""
    _found_damage = False

    async def admit(self) -> None:
        self.course_id, self.assignment_id, self.notebook_id = self.required(
            "course_id", "assignment_id", "notebook"
        )
        self.target = self._target()
        await self.services.database.read(self._admit)

    def _admit(self, session: Session) -> None:
        is_retry, self._newest = feedback.admit_feedback(
            session,
            self.user,
            self.course_id,
            self.assignment_id,
            self.notebook_id,
            self.target,
            idempotency_key=self.key,
        )
        self.look(session, is_retry=is_retry)

    async def compare(self, blob: Blob) -> None:
        newest = self._newest
        if newest is not None and newest.sha256 == blob.sha256 and await self._is_good(newest):
            self._shared = newest

    async def _is_good(self, blob: Blob) -> bool:
        """Whether it can be read to its end. A damaged one is the administrator's to repair."""
        try:
            async for _ in self.read_blob(blob):
                pass
        except NotFound:
            return False
        except Damaged as error:
            self.services.metrics.count_refusal(reason(error))
            self._found_damage = True
            return False
        return True

    async def post(self) -> None:
        """release_feedback: one notebook's, for one submission."""
        receipt = await self.store(_anything, self._release)
        self.set_status(201)
        self.finish(to_json(shapes.feedback_receipt(receipt)))

    def _release(self, session: Session, blob: Blob, _: None) -> FeedbackReceipt:
        return feedback.release_feedback(
            session,
            self.user,
            self.course_id,
            self.assignment_id,
            self.notebook_id,
            self.target,
            blob,
            shared=self._shared,
            checksum=(self.parameter("checksum") or "")[:255] or None,
            idempotency_key=self.key,
        )

    def _target(self) -> Target:
        submission_id = self.parameter("submission_id")
        if submission_id:
            return Target(submission_id=submission_id, student_id=self.parameter("student"))
        student_id, said = self.required("student", "timestamp")
        timestamp = normal_claim(said)
        if timestamp is None:
            raise Malformed("timestamp has to be the one of the submission")
        return Target(student_id=student_id, timestamp=timestamp)

    async def get(self) -> None:
        """fetch_feedback: all of the caller's own, or that of one submission."""
        course_id, assignment_id = self.required("course_id", "assignment_id")
        which = course_id, assignment_id, self.parameter("submission_id")
        turn = Lease(await self.services.rate_limiter.downloads.take(self.person))
        self.leases.callback(turn.hold())
        find = functools.partial(_found, self.user, *which)
        found = await self.services.database.scan(find, turn.hold())
        if found:
            await self.act(feedback.record_fetch, *which)
        items = [(submission, item) for submission in found for item in submission.notebooks]
        # Read twice, because an unreadable file is left out: one damaged file would otherwise keep
        # all that is good from the student.
        good = [one for one in items if await self._is_good(one[1].blob)]
        if items and not good and not self._found_damage:
            raise NotFound("The feedback was erased meanwhile. List the assignments again.")
        if items and not good:
            raise Damaged(
                "Your feedback is corrupt, so it is not delivered. Ask your instructor to release "
                "it again."
            )
        with self.whole_or_cut():
            await self._stream(good)

    async def _stream(self, items: Sequence[tuple[SubmissionFeedback, NotebookFeedback]]) -> None:
        """Feedback can be large, so it is never gathered: the JSON is written as bytes come."""
        self.write(b'{"success":true,"feedback":[')
        between = b""
        for submission, item in items:
            self.write(between + _opening(submission, item))
            async for text in self._base64(item.blob):
                self.write(text)
                await self.flush()
            self.write(b'"}')
            between = b","
        self.finish(b"]}")

    async def _base64(self, blob: Blob) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self.read_blob(blob):
            chunk = rest + chunk
            whole = len(chunk) - len(chunk) % BASE64_UNIT
            yield base64.b64encode(chunk[:whole])
            rest = chunk[whole:]
        yield base64.b64encode(rest)


def _found(
    user: User, course_id: str, assignment_id: str, submission_id: str | None, session: Session
) -> list[SubmissionFeedback]:
    return feedback.fetch_feedback(session, user, course_id, assignment_id, submission_id)


def _opening(submission: SubmissionFeedback, item: NotebookFeedback) -> bytes:
    """The JSON of one item up to its content, which comes last."""
    fields = {
        "filename": f"{item.notebook_id}.html",
        "notebook_id": item.notebook_id,
        "timestamp": submission.client_timestamp or to_text(submission.timestamp),
        "checksum": item.checksum,
        "submission_id": submission.submission_token,
        "submission_timestamp": to_text(submission.timestamp),
        "version": item.version,
        "sha256": item.blob.sha256,
        "content": "",
    }
    return to_json(fields).removesuffix(b'"}')


def _anything(_: BinaryIO) -> Steps[None]:
    """Feedback is opaque: it is never rendered here."""
    yield from ()
