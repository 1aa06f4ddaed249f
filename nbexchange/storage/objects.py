"""Blobs in a bucket: S3 and compatible stores, and Google's and Azure's by the same library.

Requirements: an existing bucket that only the service uses, and the rights to put, get and delete
objects and to list the bucket (`s3:ListBucket`; without it S3 answers "forbidden" for a missing
object). The store must be strongly consistent and support `If-None-Match: *`, as S3, Ceph, Google
and Azure do. Layout, below the prefix of the URL:

    blobs/<key>     a blob
    last-check      the rows that the last `nbexchange check` saw
    probe           written and deleted by `readyz`

Switch versioning off, or let the bucket expire old versions, because `purge` deletes one version
only.

An upload is first written to a directory on this machine (the spool), in a file without a name, so
a killed process leaves nothing. That directory needs space for all uploads in progress. Commit
sends the file: up to PART in one request, which creates the object or fails, and more as a
multipart upload in parts of that size. The store checks the SHA-256 that signs every request (S3).
After a multipart upload the service also compares the size. When a multipart upload fails, the
service asks the store to discard its parts. If that request is lost, only the bucket's owner can
list the parts, so give the bucket a lifecycle rule: AbortIncompleteMultipartUpload after one day.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL,
roles of machines and of pods) or from the options, and are never logged. The log shows only the
status, the code and the cause of a store's error, because its message may quote the request. An
endpoint without TLS is accepted from the options; from the environment only with
AWS_ALLOW_HTTP=true.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    UnknownConfigurationKeyError,
)
from obstore.store import ObjectStore, from_url

from nbexchange import timeouts
from nbexchange.errors import Damaged, Misconfigured, NbExchangeError, Unavailable
from nbexchange.storage import CHUNK, Blob, DiskSpace, Entry, Storage, Upload, new_key
from nbexchange.storage.spool import (
    SpooledUpload,
    Threads,
    cannot_make,
    damaged,
    store_full,
    store_unavailable,
    upload_interrupted,
)

log = logging.getLogger(__name__)

SCHEMES = ("s3", "gs", "az")

PART = 5 * CHUNK
"""Bytes in one request. S3 accepts no smaller parts, and at most 10,000 of them: 50 GB."""

PARTS_AT_A_TIME = 2
UPLOADS_AT_A_TIME = 8
LARGE_AT_A_TIME = 4
"""Uploads of several parts. They queue separately, so that a few videos do not delay all others."""

TURN_SECONDS = timeouts.STORE_TURN
"""How long an upload waits for its turn before it is refused."""

PROBE = "probe"

CLIENT: dict[str, Any] = {
    "connect_timeout": "3s",
    # From the request to the response, and between the chunks of its body. The whole has no limit,
    # because a large download takes as long as the client needs.
    "read_timeout": f"{timeouts.STORE_ANSWER:g}s",
    "timeout": "30days",
}

# The library's default retries for three minutes, while a user waits.
RETRY: Any = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=timeouts.STORE_RETRIES),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=1),
        "base": 2,
    },
}


class ObjectStorage(Storage):
    kind = "objects"

    def __init__(self, store: ObjectStore, spool: Path) -> None:
        self.store = store
        self.threads = Threads()
        self.spool = spool
        # Each upload that is being sent holds one or two parts in memory; the others wait with
        # their bytes in the spool.
        self._sending = asyncio.Semaphore(UPLOADS_AT_A_TIME)
        self._sending_large = asyncio.Semaphore(LARGE_AT_A_TIME)
        self._forgetting: set[asyncio.Task[None]] = set()
        try:
            spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise cannot_make(spool, error) from error

    @classmethod
    def from_url(cls, url: str, options: Mapping[str, Any], spool: Path) -> ObjectStorage:
        """Does not access the bucket; `check` does."""
        return cls(_store_at(url, options), spool)

    def path(self, key: str) -> str:
        return f"blobs/{key}"

    def open_upload(self) -> Upload:
        return ObjectUpload(self, new_key())

    @contextlib.asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait until the upload may be sent. Raises Unavailable after TURN_SECONDS."""
        turns = self._sending if size <= PART else self._sending_large
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await turns.acquire()
        except TimeoutError as error:
            log.warning("%d bytes waited %g s for their turn to be stored", size, TURN_SECONDS)
            raise Unavailable(
                "The exchange is storing as many files as it can at a time. Send yours again "
                "shortly."
            ) from error
        try:
            yield
        finally:
            turns.release()

    def make_file(self) -> io.FileIO:
        """A file in the spool without a name, which is deleted when it is closed."""
        return tempfile.TemporaryFile(dir=self.spool, buffering=0)

    async def read(
        self, blob: Blob, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        stop = blob.size if stop is None else stop
        hasher = hashlib.sha256() if (start, stop) == (0, blob.size) else None
        position = start
        with _known_errors(blob):
            response = await self._get(blob, start, stop)
            if not response.meta["e_tag"]:
                # A proxy's page, such as a login. Every object has an ETag.
                log.error("The store failed: GET answered 200 without an ETag")
                raise store_unavailable()
            if response.meta["size"] != blob.size:
                raise damaged()
            if start == stop:
                return
            async for chunk in response.stream(CHUNK):
                position += len(chunk)
                if hasher:
                    await self.threads.work(hasher.update, chunk)
                last = position >= stop
                if position > stop or (last and hasher and hasher.hexdigest() != blob.sha256):
                    raise damaged()
                yield chunk
            if position < stop:
                raise damaged()

    async def _get(self, blob: Blob, start: int, stop: int) -> obstore.GetResult:
        path = self.path(blob.key)
        if (start, stop) == (0, blob.size):
            return await obstore.get_async(self.store, path)
        # No HEAD request for an empty range: its response does not tell a missing bucket from a
        # missing object.
        wanted = (start, stop) if start < stop else (0, 1)
        return await obstore.get_async(self.store, path, options={"range": wanted})

    async def delete(self, key: str) -> None:
        await self._delete(self.path(key))

    async def _delete(self, path: str) -> None:
        with _known_errors():
            try:
                await obstore.delete_async(self.store, path)
            except FileNotFoundError as error:
                if not _is_missing(error):
                    raise

    async def delete_entry(self, entry: Entry) -> None:
        # Uploads in progress are not among the entries, so the state of this one cannot change.
        await self.delete(entry.key)

    async def entries(self) -> AsyncIterator[Entry]:
        with _known_errors():
            async for batch in obstore.list(self.store, "blobs", chunk_size=1000):
                for item in batch:
                    key = item["path"].rpartition("/")[2]
                    yield Entry(key, item["size"], item["last_modified"])

    async def read_state(self, name: str) -> bytes | None:
        with _known_errors():
            try:
                response = await obstore.get_async(self.store, name)
                return bytes(await response.bytes_async())
            except FileNotFoundError as error:
                if not _is_missing(error):
                    raise
                return None

    async def write_state(self, name: str, content: bytes) -> None:
        with _known_errors():
            await obstore.put_async(self.store, name, content, mode="overwrite")

    async def check(self) -> None:
        """Write and delete one object, to find missing rights and an exhausted quota."""
        (await self.threads.work(self.make_file)).close()
        with _known_errors():
            await obstore.put_async(self.store, PROBE, b"nbexchange", mode="overwrite")
        await self._delete(PROBE)

    async def disk_space(self) -> DiskSpace:
        """The disk of the spool. Its files have no names, so none of them can be abandoned."""
        usage = await self.threads.work(shutil.disk_usage, self.spool)
        return DiskSpace("spool", usage.free, usage.total, None)

    def forget(self, key: str) -> None:
        """Delete, in the background, an object that may exist in spite of an error. `gc` finds the
        ones that this misses."""
        task = asyncio.ensure_future(self._forget(key))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, key: str) -> None:
        with contextlib.suppress(NbExchangeError):
            await self.delete(key)

    def close(self) -> None:
        self.threads.close()


class ObjectUpload(SpooledUpload):
    in_memory = True

    def __init__(self, storage: ObjectStorage, key: str) -> None:
        super().__init__(key, storage.threads)
        self._storage = storage
        self._path = storage.path(key)

    def make_file(self) -> io.FileIO:
        return self._storage.make_file()

    async def store(self, blob: Blob) -> None:
        sending = asyncio.ensure_future(self._send(blob))
        try:
            await asyncio.shield(sending)
        except _KeyTaken:
            raise
        except BaseException:
            # Also when cancelled: an unfinished multipart upload would stay in the bucket.
            self._aborted = True
            await asyncio.gather(sending, return_exceptions=True)
            self._storage.forget(self._key)
            raise
        finally:
            self._closed = True
            await self._threads.work(self.close)

    async def _send(self, blob: Blob) -> None:
        async with self._storage.turn(blob.size):
            with _known_errors():
                await self._send_now(blob)

    async def _send_now(self, blob: Blob) -> None:
        if blob.size <= PART:
            await self._send_whole(blob)
        else:
            await self._send_parts(blob)

    async def _send_whole(self, blob: Blob) -> None:
        body = bytes(self._waiting) if self._file is None else await self._piece(0, PART)
        try:
            await obstore.put_async(self._storage.store, self._path, body, mode="create")
        except AlreadyExistsError:
            # Perhaps an earlier attempt stored it and the response was lost. Then the bytes match.
            await self._compare(blob)

    async def _compare(self, blob: Blob) -> None:
        try:
            async for _ in self._storage.read(blob):
                pass
        except Damaged as error:
            raise _KeyTaken(
                "The object store already has another file under the same key. Send yours again."
            ) from error

    async def _send_parts(self, blob: Blob) -> None:
        await obstore.put_async(
            self._storage.store,
            self._path,
            self._pieces(blob.size),
            use_multipart=True,
            chunk_size=PART,
            max_concurrency=PARTS_AT_A_TIME,
        )
        stored = await obstore.head_async(self._storage.store, self._path)
        if stored["size"] != blob.size:
            log.error("The store has %d of %d bytes of %s.", stored["size"], blob.size, blob.key)
            raise store_unavailable()

    async def _pieces(self, size: int) -> AsyncIterator[bytes]:
        for position in range(0, size, CHUNK):
            piece = await self._piece(position, CHUNK)
            if self._aborted or len(piece) != min(CHUNK, size - position):
                raise upload_interrupted()
            yield piece

    async def _piece(self, position: int, length: int) -> bytes:
        assert self._file is not None
        return await self._threads.work(os.pread, self._file.fileno(), length, position)


class _KeyTaken(Unavailable):
    """An object that we did not write has the key. It must not be deleted."""


# -- configuration


def _store_at(url: str, options: Mapping[str, Any]) -> ObjectStore:
    config = dict(options)
    client = CLIENT | dict(config.pop("client_options", {}))
    if any("endpoint" in key.lower() and str(config[key]).startswith("http:") for key in config):
        client.setdefault("allow_http", True)
    if os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true":
        # The library ignores this variable if it is given other client options.
        client.setdefault("allow_http", True)
    _check_url(url)
    try:
        return from_url(url, config=config, client_options=client, retry_config=RETRY)  # type: ignore[call-overload,no-any-return] # the scheme decides which options there are
    except UnknownConfigurationKeyError as error:
        raise Misconfigured(
            f"storage_options: {_first(_KEY, error)} is not an option of {urlsplit(url).scheme}://"
        ) from None
    except (BaseError, TypeError, ValueError, OSError) as error:
        raise Misconfigured(
            f"storage_url and storage_options do not describe a store: {_safe_details(error)}. See "
            "obstore's documentation for the options."
        ) from None


def _check_url(url: str) -> None:
    """The messages do not quote the URL, because people put credentials into it."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        raise Misconfigured(
            "storage_url must look like s3://bucket/prefix, gs://bucket/prefix or "
            "az://container/prefix."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Misconfigured(
            "storage_url must not contain credentials or options. Put them into the environment or "
            "into storage_options."
        )


_KEY = re.compile(r"key: '(\w+)'")


# -- errors of a store


@contextlib.contextmanager
def _known_errors(blob: Blob | None = None) -> Iterator[None]:
    """Translate the library's errors. `blob` is the one that is being read, if any."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        # Not `from error`: the traceback would show the original message, which quotes the request.
        raise _translated(error, blob) from None


def _translated(error: Exception, blob: Blob | None) -> NbExchangeError:
    if blob is not None and _is_missing(error):
        return damaged()
    details = _safe_details(error)
    if _FULL.search(details):
        log.error("The store is full: %s", details)
        return store_full()
    if _REFUSED.search(details):
        details += "; check its credentials and their rights in the bucket"
    log.error("The store failed: %s", details)
    return store_unavailable()


def _is_missing(error: Exception) -> bool:
    """Whether the object is missing, and not the bucket or the store behind a proxy."""
    text = str(error)
    return bool(_MISSING.search(text)) or (
        isinstance(error, FileNotFoundError) and "status code" not in text
    )


def _safe_details(error: Exception) -> str:
    """The details that may be logged: never a URL's query or the store's own message, which quotes
    the request."""
    text = str(error)
    details = [_first(pattern, text) for pattern in _DETAILS]
    return " ".join([type(error).__name__, *dict.fromkeys(filter(None, details))])


def _first(pattern: re.Pattern[str], text: object) -> str:
    match = pattern.search(str(text))
    return match[1] if match else ""


_MISSING = re.compile("<Code>(NoSuchKey|BlobNotFound|InvalidRange)</Code>")
_FULL = re.compile(r"\b(QuotaExceeded|XMinioStorageFull|507)\b")
_REFUSED = re.compile("401 Unauthorized|403 Forbidden")
_DETAILS = [
    re.compile(pattern)
    for pattern in (
        r"\bsource: ([A-Z]\w+)",
        r"performing ([A-Z]+) ",
        r"performing [A-Z]+ (https?://[\w.:\[\]-]+)/",
        r"status code: (\d{3}[A-Za-z ]*)",
        r"<Code>(\w{1,60})</Code>",
        r"kind: (Connect|Timeout|Request|Interrupted|Decode)\b",
        r"(TimedOut)\b",
        r'"(tcp connect error|dns error)"',
        r'message: "([A-Z][a-z ]+)"',
        r"(InvalidCertificate)\b",
        r"\((UnknownIssuer|Expired|NotValidForName)\w*",
        r"(BadScheme)",
    )
]
