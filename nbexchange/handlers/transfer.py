"""Bytes in and out: the write protocol, and downloads that can be resumed.

In: headers are judged before the body; the body streams into an upload; when all is there the
length, the digest and the contents are checked; then the bytes are made durable, then the row is
written, and only then is there an answer.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from typing import BinaryIO, ClassVar, Protocol, TypeVar

from sqlalchemy.orm import Session

from nbexchange.errors import (
    DigestMismatch,
    Malformed,
    NbExchangeError,
    OutOfRange,
    StoreFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from nbexchange.exchange import retries
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.quotas import Reservation, Usage
from nbexchange.handlers.base import DRAIN, BaseHandler
from nbexchange.handlers.digests import digest_field, parse_digest
from nbexchange.handlers.multipart import MultipartFile, is_multipart
from nbexchange.identity import LONGEST_NAME, Role
from nbexchange.storage import Blob, Steps, Upload, delete_all

GZIP = "application/gzip"
"""Old clients compare the whole header with this, so it never carries a parameter."""

ASK_AGAIN = 60.0
"""Seconds after which what the identity said at the header is not what it says now."""

FORM_OVERHEAD = 4 * 1024 * 1024
"""Bytes that a multipart form may need besides its file."""


class _HasBlob(Protocol):
    @property
    def blob(self) -> Blob: ...


Checked = TypeVar("Checked")
Stored = TypeVar("Stored", bound=_HasBlob)


class UploadHandler(BaseHandler):
    """Takes a body into the store when the method is POST."""

    form_file: ClassVar[str]
    """What old clients call the file in their form."""
    is_personal: ClassVar[bool] = False
    """Whether it counts for the sender's own quota."""
    course_id: str

    _upload: Upload | None = None
    _over: asyncio.Future[None] | None = None
    _form: MultipartFile | None = None
    _received = 0
    _kept = 0
    _dropped = 0
    _usage: Usage | None = None
    _room: Reservation | None = None
    _storing = False

    async def admit(self) -> None:
        """Refuse here whatever can be refused before the body is read."""
        raise NotImplementedError

    async def judge(self) -> None:
        if self.request.method == "POST":
            self._over = asyncio.get_running_loop().create_future()
            self.hold_the_end(self._over)
        await super().judge()
        self._asked_at = time.monotonic()
        if self.request.method == "POST":
            self._judge_headers()
            await self.admit()
            await self._find_room()
            self.leases.callback(await self.services.rate_limiter.uploads.take(self.person))
            self._open_upload()

    async def data_received(self, chunk: bytes) -> None:  # type: ignore[override]
        # An exception here would cut the connection without an answer (tornado #1223), so the
        # refusal is kept until the body is over.
        if self.refusal is None:
            try:
                await self._take(chunk)
            except NbExchangeError as error:
                self.refuse_after_body(error)
                if self._room is not None:
                    self._room.release()
                await self._abort()
        elif not self._finished:
            self._drop(chunk)

    async def store(
        self,
        check: Callable[[BinaryIO], Steps[Checked]],
        verb: Callable[[Session, Blob, Checked], Stored],
    ) -> Stored:
        """Make the body count: bytes first, row second. `verb` gets what `check` found in it."""
        if self.refusal is not None:
            raise self.refusal
        upload = self._whole_upload()
        # From here on it is finished even for a client that is gone: a retry will find it.
        self._storing = True
        task = asyncio.current_task()
        assert task is not None
        self.hold_the_end(task)
        async with self.services.rate_limiter.checks.turn(self.person):
            blob, found = await upload.seal(functools.partial(self._judge, check))
        await self._ask_again()
        await self.compare(blob)
        await upload.commit()
        try:
            stored = await self.transact(self.course_id, lambda session: verb(session, blob, found))
        except Unavailable as error:
            # The database may have committed before it went away; then the bytes have to stay.
            if error.nothing_written:
                await delete_all(self.services.storage, [blob.key])
            raise
        except NbExchangeError:
            await delete_all(self.services.storage, [blob.key])
            raise
        if stored.blob.key != blob.key:
            # The same bytes are here: from an earlier try, or as feedback that has not changed.
            await delete_all(self.services.storage, [blob.key])
        else:
            self.services.quotas.stored(self.user.org_id, blob.size)
        return stored

    async def compare(self, blob: Blob) -> None:
        """All bytes are here, and none is durable yet. The stored ones may be the same."""

    async def _ask_again(self) -> None:
        """A body may take hours; a right that was lost meanwhile is lost."""
        if time.monotonic() - self._asked_at > ASK_AGAIN:
            now = await self._who_asks()
            if (now.org_id, now.name) != (self.user.org_id, self.user.name):
                raise Unauthenticated(
                    "The token now belongs to a different user than when this upload started."
                )
            self.user = now

    def _judge(
        self, check: Callable[[BinaryIO], Steps[Checked]], blob: Blob, file: BinaryIO
    ) -> Steps[tuple[Blob, Checked]]:
        if self.digest not in (None, blob.sha256):
            raise DigestMismatch(
                "other bytes arrived than were sent, so nothing was stored; send them again"
            )
        return blob, (yield from check(file))

    @property
    def idempotency_key(self) -> str | None:
        keys = self.request.headers.get_list("Idempotency-Key")
        if len(keys) > 1:
            raise Malformed("the request has more than one Idempotency-Key")
        key = keys[0] if keys else None
        if key is not None and not (0 < len(key) <= LONGEST_NAME and key.isascii()):
            raise Malformed(f"Idempotency-Key has to be 1 to {LONGEST_NAME} ASCII characters")
        return key

    # -- room

    def look(self, session: Session, *, is_retry: bool) -> Usage:
        """For `admit`: how much is stored. The bytes of a retry are stored already."""
        self._usage = self.services.quotas.look(
            session, self.user, personal=self.is_personal, is_stored=is_retry
        )
        return self._usage

    def _look_again(self, session: Session) -> Usage:
        assert isinstance(self.verb, Verb)
        is_retry = retries.is_stored(session, self.user, self.verb, self.key)
        return self.look(session, is_retry=is_retry)

    async def _find_room(self) -> None:
        assert self._usage is not None
        self._room = self.services.quotas.reservation(
            self.user,
            object() if self.key is None else (self.verb, self.key),
            self.declared_length,
            is_instructor=self.user.role_in(self.course_id) is Role.INSTRUCTOR,
        )
        self.leases.callback(self._room.release)
        await self._take_room(0, self._usage)

    async def _keep_room(self) -> None:
        """A body takes its room as it comes."""
        assert self._room is not None
        if self._received > self._room.reserved:
            await self._take_room(
                self._received, await self.services.database.read(self._look_again)
            )

    async def _take_room(self, size: int, usage: Usage) -> None:
        assert self._room is not None
        try:
            self._room.grow(size, usage)
        except (TooLarge, StoreFull):
            # An earlier try may have been stored since we looked, and would count against this.
            self._room.grow(size, await self.services.database.read(self._look_again))

    # -- before the body

    def _judge_headers(self) -> None:
        headers = self.request.headers
        limit = self.services.max_buffer_size
        self.limit_body(2**62)  # ours is the limit that answers in words
        if self.declared_length > limit + self._overhead:
            raise _too_large(limit)
        if headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedMedia("send the body as it is, without a Content-Encoding")
        if self._content_type is not None and "Content-Digest" in headers:
            raise Malformed("Content-Digest is for raw bodies, not for forms")
        self.digest = parse_digest(headers.get("Content-Digest"))
        self.key = self.idempotency_key

    def _open_upload(self) -> None:
        self._upload = self.services.storage.open_upload()
        self.services.metrics.uploads_in_flight.inc()
        if self._content_type is not None:
            self._form = MultipartFile(self._content_type, self.form_file, self._keep)

    @property
    def _content_type(self) -> str | None:
        """The header of a form; None for a raw body."""
        content_type: str = self.request.headers.get("Content-Type", "")
        return content_type if is_multipart(content_type) else None

    @property
    def _overhead(self) -> int:
        return FORM_OVERHEAD if self._content_type is not None else 0

    # -- the body

    async def _take(self, chunk: bytes) -> None:
        self._received += len(chunk)
        self.services.metrics.bytes_in.inc(len(chunk))
        limit = self.services.max_buffer_size
        if self._received > limit + self._overhead:
            raise _too_large(limit)
        if self._upload is None:
            return
        await self._keep_room()
        await (self._form.feed if self._form is not None else self._upload.write)(chunk)
        if self._room is not None:
            self._room.arrive(len(chunk))

    async def _keep(self, piece: bytes) -> None:
        """A piece of the form's file, which may not use up what is allowed for the form."""
        assert self._upload is not None
        self._kept += len(piece)
        if self._kept > self.services.max_buffer_size:
            raise _too_large(self.services.max_buffer_size)
        await self._upload.write(piece)

    def _drop(self, chunk: bytes) -> None:
        self._dropped += len(chunk)
        if self._dropped > DRAIN and self.refusal is not None:
            self.refuse_now(self.refusal)

    def _whole_upload(self) -> Upload:
        if self._upload is None or self._received == 0:
            raise Malformed("the request has no body; send the file in it")
        if self._form is not None:
            self._form.close()
        return self._upload

    # -- the end

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if not self._storing:
            self._leave_nothing()

    def on_finish(self) -> None:
        super().on_finish()
        self._leave_nothing()

    def _leave_nothing(self) -> None:
        self.hold_the_end(asyncio.ensure_future(self._end()))

    async def _end(self) -> None:
        try:
            await self._abort()
        finally:
            if self._over is not None and not self._over.done():
                self._over.set_result(None)

    async def _abort(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            self.services.metrics.uploads_in_flight.dec()
            await upload.abort()


class DownloadHandler(BaseHandler):
    """Sends a blob, whole or a range of it."""

    @property
    def asks_for_part(self) -> bool:
        """Whether the client asks for a range, whatever it gets: it may be all but one byte."""
        return "Range" in self.request.headers

    @property
    def wants_first_part(self) -> bool:
        """For the numbers: False for the later parts of a download that is resumed."""
        found = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        return found is None or found[1] in ("", "0")

    async def send(self, blob: Blob, media_type: str, file_name: str) -> None:
        etag = f'"{blob.sha256}"'
        self.set_header("Etag", etag)
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("Repr-Digest", digest_field(blob.sha256))
        if self._client_has(etag):
            self.set_status(304)
            return
        start, stop = self._range(blob, etag)
        self.set_header("Content-Type", media_type)
        self.set_header("Content-Disposition", f'attachment; filename="{file_name}"')
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("Content-Length", str(stop - start))
        if (start, stop) == (0, blob.size):
            self.set_header("Content-Digest", digest_field(blob.sha256))
        else:
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {start}-{stop - 1}/{blob.size}")
        self.leases.callback(await self.services.rate_limiter.downloads.take(self.person))
        await self._stream(blob, start, stop)

    async def _stream(self, blob: Blob, start: int, stop: int) -> None:
        with self.whole_or_cut():
            async for chunk in self.read_blob(blob, start, stop):
                self.write(chunk)
                await self.flush()
                self.services.metrics.bytes_out.inc(len(chunk))

    def _client_has(self, etag: str) -> bool:
        known = self.request.headers.get("If-None-Match", "")
        return known.strip() == "*" or etag in [
            tag.strip().removeprefix("W/") for tag in known.split(",")
        ]

    def _range(self, blob: Blob, etag: str) -> tuple[int, int]:
        """From where up to where. What we do not understand is answered with the whole."""
        found = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        if found is None or self.request.headers.get("If-Range", etag) != etag:
            return 0, blob.size
        first, last = found.groups()
        if not first and not last:
            return 0, blob.size
        start = int(first) if first else max(0, blob.size - int(last))
        stop = min(int(last) + 1, blob.size) if first and last else blob.size
        if start >= stop:
            raise OutOfRange("those bytes do not exist", blob.size)
        return start, stop


_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"this is more than the {limit:,} bytes that the exchange takes at once; "
        "remove large files and send it again"
    )
