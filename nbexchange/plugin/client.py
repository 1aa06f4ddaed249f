"""The plugin's HTTP client: one method for each verb of an exchange.

Every failure is a `ServiceError` with a message for the user:

    ServiceError
    ├── Unreachable      no or an incomplete answer, or one that asks to try later
    ├── NotAnExchange    the answer does not come from an exchange service
    └── RequestRefused   the service refuses the request; `status` is the HTTP status

The client retries with growing pauses and for a limited time. That is safe: reading changes
nothing, removing twice has the effect of removing once, and each upload has an `Idempotency-Key`.
Before it sends a file again, it sends a small request, so that the file does not run into the same
stall. Messages and log lines contain no token, so error texts of `requests` are never passed on.
"""

import base64
import contextlib
import functools
import hashlib
import io
import json
import logging
import math
import os
import random
import re
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import requests
from requests.auth import AuthBase

from nbexchange import timeouts
from nbexchange.plugin.answers import (
    FetchedFeedback,
    ListedSubmission,
    ProtocolError,
    Receipt,
    Released,
    ReleaseFeedbackReceipt,
    SubmitReceipt,
    items,
)
from nbexchange.plugin.between import (
    CHECK_ADDRESS,
    TRY_AGAIN,
    Attempt,
    proxy_in_environment,
    without_password,
)
from nbexchange.plugin.connections import Budget, Exceeded, Timeouts, session
from nbexchange.plugin.disks import naming_temporary
from nbexchange.plugin.progress import TransferProgress
from nbexchange.text import escaped

_CHUNK_SIZE = 64 * 1024
_LONGEST_PAGE_TOKEN = 2_000  # characters; it becomes a part of the next request
_LONGEST_MESSAGE = 2000  # characters
_FIRST_PAUSE = 0.3  # seconds, doubled each time
_FIRST_PAUSE_OF_TRANSFER = 1.0
_LONGEST_PAUSE = 30.0
# How long a list may be retried: a whole Jupyter server waits for it.
_LIST_RETRY_SECONDS = 5.0
# A transfer may break off after an hour, so only `retries` limits its attempts.
_TRANSFER_RETRY_SECONDS = math.inf
_PAGE = 500  # submissions per request; 5,000 at once would keep the service busy too long
_RETRY_STATUSES = {429, 502, 503, 504}
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/\d{1,18}", re.ASCII)

_Value = TypeVar("_Value")
_Sent = TypeVar("_Sent", bound=Receipt)
_Params = Mapping[str, str | int]


class ServiceError(Exception):
    """A request to the service failed; the message says what to do.

    The message may quote the service, so it is limited to one line and 2,000 characters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message, _LONGEST_MESSAGE))


class Unreachable(ServiceError):
    pass


class NotAnExchange(ServiceError):
    pass


class RequestRefused(ServiceError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


_Lists = dict[tuple[str, str | None], tuple[list[Released], list[ListedSubmission]]]
_lists: ContextVar[_Lists | None] = ContextVar("_lists", default=None)


@contextlib.contextmanager
def cached_lists() -> Iterator[None]:
    """In this context, request each list once, and again only after a request that may change it.

    nbgrader's pages request the same list several times. The cache belongs to the current thread.
    """
    token = _lists.set({})
    try:
        yield
    finally:
        _lists.reset(token)


class _Retry(Exception):
    """The attempt failed, but the next may succeed, after `pause` seconds if that is set."""

    def __init__(
        self, error: ServiceError, pause: float | None = None, *, answered: bool = False
    ) -> None:
        """`answered` means that the connection works: the other side has refused the request."""
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.answered = answered


class BearerToken(AuthBase):
    """`Authorization: Bearer`, with the user's token from JupyterHub or the administrator."""

    def __init__(self) -> None:
        token = os.environ.get("NBEXCHANGE_TOKEN") or os.environ.get("JUPYTERHUB_API_TOKEN")
        self._token = (token or "").strip()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Checked here, because http.client's error about an invalid header would show the token.
        if not (self._token.isascii() and self._token.isprintable()):
            raise ServiceError(
                "The token in NBEXCHANGE_TOKEN or JUPYTERHUB_API_TOKEN contains characters that "
                "cannot be sent. Contact your administrator."
            )
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Login(AuthBase):
    """The configured authentication, created when it is first needed.

    Its failures become a ServiceError without their texts, which may contain secrets.
    """

    def __init__(self, auth_class: type[AuthBase]) -> None:
        self._auth_class = auth_class
        self._auth: AuthBase | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            self._auth = self._auth or self._auth_class()
            return self._auth(request)
        except ServiceError:
            raise
        except Exception as error:  # noqa: BLE001 - the administrator's code may raise anything
            raise ServiceError(
                f"{self._auth_class.__name__} (c.Exchange.auth_class) cannot log in: "
                f"{type(error).__name__}. Contact your administrator."
            ) from None


class Payload:
    """Bytes to send, with their digest, and one idempotency key for all attempts."""

    def __init__(self, file: BinaryIO, content_type: str) -> None:
        self.file = file
        self.content_type = content_type
        self.key = uuid.uuid4().hex
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # typeshed asks for readinto, which these files have

    @property
    def sha256(self) -> str:
        return self._digest.hex()

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Type": self.content_type,
            "Content-Digest": f"sha-256=:{base64.b64encode(self._digest).decode()}:",
            "Idempotency-Key": self.key,
        }


@dataclass(frozen=True)
class AnswerLimits:
    """How much of a JSON answer the client reads. All sizes are in bytes."""

    receipt: int = 1024**2  # or a refusal
    list: int = 128 * 1024**2  # all pages
    list_seconds: float = 600.0  # all pages
    pages: int = 10_000
    feedback: int = 256 * 1024**2  # on one assignment, which comes in one answer
    values: int = 4_000_000  # in one answer: each may be 2 bytes long and take 70 bytes of memory


@dataclass(frozen=True)
class FetchedRelease:
    """A released archive, in a temporary file that is deleted at the end of `with`."""

    file: BinaryIO
    sha256: str
    version: int | None

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass(frozen=True)
class Client:
    """A client of the service at `url`; cheap to create, because connections are kept elsewhere."""

    url: str
    auth: AuthBase
    log: logging.Logger | logging.LoggerAdapter[Any]
    connect_timeout: float = timeouts.CONNECT
    send_timeout: float = timeouts.SEND
    api_timeout: float = timeouts.ANSWER
    transfer_timeout: float = timeouts.TRANSFER
    retries: int = 3
    max_buffer_size: int = 5_253_530_000
    limits: AnswerLimits = AnswerLimits()
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    # The verbs

    def assignments(self, course_id: str | None) -> tuple[list[Released], list[ListedSubmission]]:
        """list: the releases and the caller's own submissions; None means all courses."""
        cached = _lists.get()
        if cached is None:
            return self._assignments(course_id)
        key = (self.url, course_id)
        if key not in cached:
            cached[key] = self._assignments(course_id)
        return cached[key]

    def _assignments(self, course_id: str | None) -> tuple[list[Released], list[ListedSubmission]]:
        params = {} if course_id is None else {"course_id": course_id}
        records = self._items("assignments", params, "value", self._budget_of_list())
        with self._checking_answer():
            return (
                [
                    Released.from_json(fields)
                    for fields in records
                    if _has_status(fields, "released")
                ],
                [
                    ListedSubmission.own(fields)
                    for fields in records
                    if _has_status(fields, "submitted")
                ],
            )

    def release(
        self, course_id: str, assignment_id: str, payload: Payload, *, overwrite: bool
    ) -> Receipt:
        """Release an assignment. Refused with 412 if it exists and `overwrite` is false."""
        condition = {} if overwrite else {"If-None-Match": "*"}
        params = {"course_id": course_id, "assignment_id": assignment_id}
        return self._send("assignment", params, payload, Receipt.from_json, condition)

    def fetch(self, course_id: str, assignment_id: str) -> FetchedRelease:
        """Download the newest release."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        download = self._download("assignment", params, f"Fetching {assignment_id}")
        return FetchedRelease(download.file, download.sha256, download.version)

    def remove(self, course_id: str, assignment_id: str) -> None:
        """Take a release back. Also succeeds without a release."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        try:
            self._ask_json(
                "DELETE",
                "assignment",
                params,
                self._budget(self.limits.receipt, _LIST_RETRY_SECONDS),
            )
        except RequestRefused as refusal:
            if refusal.status != requests.codes.not_found:
                raise

    def submit(self, course_id: str, assignment_id: str, payload: Payload) -> SubmitReceipt:
        params = {"course_id": course_id, "assignment_id": assignment_id}
        receipt = self._send("submission", params, payload, SubmitReceipt.from_json)
        if (receipt.course_id, receipt.assignment_id) != (course_id, assignment_id):
            raise self._unconfirmed()
        return receipt

    def inbound(
        self,
        course_id: str,
        assignment_id: str | None = None,
        student: str | None = None,
        *,
        latest: bool = False,
    ) -> list[ListedSubmission]:
        """list --inbound: all submissions for an instructor, else the caller's own."""
        params: dict[str, str | int] = {"course_id": course_id, "limit": _PAGE}
        if assignment_id is not None:
            params["assignment_id"] = assignment_id
        if student is not None:
            params["user_id"] = student
        if latest:
            params["latest"] = "true"
        return [submission for page in self._pages(params) for submission in page]

    def collect(self, submission: ListedSubmission) -> BinaryIO:
        """Download the archive of a submission into a temporary file."""
        params = {
            "course_id": submission.course_id,
            "assignment_id": submission.assignment_id,
            "path": submission.path,
        }
        return self._download("collection", params, expected=submission.sha256).file

    def release_feedback(
        self, course_id: str, assignment_id: str, notebook_id: str, html: bytes, submission: _Params
    ) -> ReleaseFeedbackReceipt:
        """`submission` names it: by `submission_id`, or by `student` and `timestamp`."""
        params = {
            "course_id": course_id,
            "assignment_id": assignment_id,
            "notebook": notebook_id,
            **submission,
        }
        payload = Payload(io.BytesIO(html), "text/html")
        return self._send("feedback", params, payload, ReleaseFeedbackReceipt.from_json)

    def fetch_feedback(self, course_id: str, assignment_id: str) -> list[FetchedFeedback]:
        """The newest feedback on each notebook of the caller's submissions of the assignment."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        budget = self._budget(self.limits.feedback, _TRANSFER_RETRY_SECONDS)
        records = self._items("feedback", params, "feedback", budget)
        with self._checking_answer():
            return [FetchedFeedback.from_json(fields) for fields in records]

    # Requests

    def _pages(self, params: dict[str, str | int]) -> Iterator[list[ListedSubmission]]:
        seen: set[str] = set()
        budget = self._budget_of_list()
        while True:
            answer = self._ask_json("GET", "collections", params, budget)
            with self._checking_answer():
                page = [ListedSubmission.inbound(fields) for fields in items(answer, "value")]
            yield page
            token = answer.get("next")
            if not token:
                return
            if not _is_page_token(token) or token in seen or len(seen) == self.limits.pages:
                raise self._not_an_exchange("its list never ends")
            seen.add(token)
            params = {**params, "page": token}

    def _items(self, path: str, params: _Params, key: str, budget: Budget) -> list[Any]:
        answer = self._ask_json("GET", path, params, budget)
        with self._checking_answer():
            return items(answer, key)

    def _send(
        self,
        path: str,
        params: _Params,
        payload: Payload,
        read: Callable[[Any], _Sent],
        headers: Mapping[str, str] | None = None,
    ) -> _Sent:
        """Upload, and check that the receipt is for exactly the bytes that were sent."""
        headers = {**payload.headers, **(headers or {})}
        with TransferProgress("Sending", payload.size) as progress:
            body = _Body(payload.file, payload.size, progress)
            budget = self._budget(self.limits.receipt, _TRANSFER_RETRY_SECONDS)
            answer = self._ask_json("POST", path, params, budget, headers, body)
        with self._checking_answer():
            receipt = read(answer)
        if (receipt.sha256, receipt.size) != (payload.sha256, payload.size):
            raise self._unconfirmed()
        return receipt

    def _download(
        self, path: str, params: _Params, label: str | None = None, expected: str | None = None
    ) -> "_Download":
        """Download a blob into a temporary file and verify its digest; the caller closes it."""
        with naming_temporary():
            file = tempfile.TemporaryFile()  # noqa: SIM115 - it is what we return
            try:
                download = _Download(file, self.max_buffer_size, label, expected)
                budget = self._budget(self.max_buffer_size, _TRANSFER_RETRY_SECONDS)
                self._ask("GET", path, params, budget, download.take, download.headers)
                file.seek(0)
            except BaseException:
                file.close()  # flushes the buffer, which may fail as the write did
                raise
            return download

    def _ask_json(
        self,
        method: str,
        path: str,
        params: _Params,
        budget: Budget,
        headers: Mapping[str, str] | None = None,
        body: "_Body | None" = None,
    ) -> Mapping[str, Any]:
        take = functools.partial(self._json, budget)
        return self._ask(method, path, params, budget, take, headers, body)

    def _ask(
        self,
        method: str,
        path: str,
        params: _Params,
        budget: Budget,
        take: Callable[[requests.Response], _Value],
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        body: "_Body | None" = None,
    ) -> _Value:
        """Send a request, retry within the budget, and return what `take` reads of the answer."""
        if method != "GET" and (lists := _lists.get()):
            lists.clear()
        self._check_text(params)
        started = self.clock()
        connection_broke = False
        for attempt in range(self.retries + 1):
            now = headers() if callable(headers) else headers or {}
            try:
                if body is not None and connection_broke:
                    self._probe()
                with budget.in_use(self._timeouts(budget, body, attempt)):
                    return self._ask_once(method, path, params, budget.timeouts, take, now, body)
            except _Retry as retry:
                connection_broke = not retry.answered
                pause = _pause(attempt, retry.pause, budget.retry_seconds)
                late = self.clock() - started + pause > budget.retry_seconds
                if late or attempt == self.retries:
                    raise retry.error from None
                self.log.debug("%s", retry.error)
                # Pages request lists all the time, but a user waits for a transfer.
                level = (
                    logging.WARNING if budget.retry_seconds > _LIST_RETRY_SECONDS else logging.DEBUG
                )
                self.log.log(level, "The request failed; trying again in %.1f seconds.", pause)
            self.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _timeouts(self, budget: Budget, body: "_Body | None" = None, attempt: int = 0) -> Timeouts:
        """The timeouts of one attempt. Each further attempt tolerates a longer stall."""
        answer = (
            self.transfer_timeout
            if budget.retry_seconds > _LIST_RETRY_SECONDS
            else self.api_timeout
        )
        return Timeouts(
            connect=self.connect_timeout,
            send=self.send_timeout * (attempt + 1),
            answer=answer + (timeouts.storing(len(body)) if body is not None else 0),
            silence=self.api_timeout,
        )

    def _probe(self) -> None:
        """Send a small request before a file is sent again. Raises _Retry without an answer.

        It is sent only after a broken connection. Each probe is a request of its own: if a proxy
        alternates between two replicas and one of them is down, every attempt after a probe would
        reach that one.
        """
        budget = self._budget(self.limits.receipt, _LIST_RETRY_SECONDS)
        with contextlib.suppress(RequestRefused), budget.in_use(self._timeouts(budget)):
            self._ask_once("GET", "healthz", {}, budget.timeouts, lambda _: None)

    def _ask_once(
        self,
        method: str,
        path: str,
        params: _Params,
        waits: Timeouts,
        take: Callable[[requests.Response], _Value],
        headers: Mapping[str, str] | None = None,
        body: "_Body | None" = None,
    ) -> _Value:
        if body is not None:
            body.rewind()
        started_at = self.clock()

        def attempt() -> Attempt:
            size, sent = (0, 0) if body is None else (len(body), body.sent)
            return Attempt(self.shown_url, size, sent, self.clock() - started_at)

        try:
            with session().request(
                method,
                f"{self._checked_url()}/{path}",
                params=dict(params),
                headers=dict(headers or {}),
                data=body,
                auth=self.auth,
                timeout=(waits.connect, waits.answer),
                allow_redirects=False,
                stream=True,
            ) as answer:
                self._check(answer, attempt())
                return take(answer)
        except requests.exceptions.SSLError:
            raise Unreachable(
                f"The certificate of the exchange service at {self.shown_url} is not trusted here. "
                "Contact your administrator."
            ) from None
        except (requests.Timeout, requests.ConnectionError) as error:
            raise self._broken(error, attempt(), waits) from None
        except (
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ):
            raise _Retry(self._unreachable("sent an incomplete answer.")) from None
        except Exceeded as exceeded:
            raise self._unreachable(f"{exceeded}.") from None
        except ProtocolError as error:
            raise self._not_an_exchange(str(error)) from None
        except requests.RequestException as error:
            raise self._unreachable(f"cannot be used ({type(error).__name__}).") from None

    def _broken(
        self, error: requests.RequestException, attempt: Attempt, waits: Timeouts
    ) -> Exception:
        """The exception for a connection that broke or stalled."""
        broken = self._unreachable(attempt.connection_error(error, waits.send))
        return broken if attempt.is_hopeless else _Retry(broken)

    def _check(self, answer: requests.Response, attempt: Attempt) -> None:
        """Raise the error for a status that is not a success."""
        status = answer.status_code
        if status in (requests.codes.ok, requests.codes.created, requests.codes.partial_content):
            return
        if 300 <= status < 400:
            raise NotAnExchange(
                attempt.redirect(answer.headers.get("Location")) + proxy_in_environment(self.url)
            )
        if status in _RETRY_STATUSES:
            later = Unreachable(self._refusal_message(answer, attempt))
            raise _Retry(later, _number(answer.headers.get("Retry-After")), answered=True)
        raise RequestRefused(self._refusal_message(answer, attempt), status)

    def _refusal_message(self, answer: requests.Response, attempt: Attempt) -> str:
        """The note of the service; else an explanation of a proxy's answer."""
        try:
            budget = self._budget(self.limits.receipt, _LIST_RETRY_SECONDS)
            note = self._json(budget, answer, success=False)["note"]
        except (ProtocolError, KeyError, requests.RequestException):
            note = None
        if not isinstance(note, str) or not note:
            note = attempt.unexpected_answer(answer.status_code) + proxy_in_environment(self.url)
        elif answer.status_code == requests.codes.unauthorized:
            note += " (The plugin sends NBEXCHANGE_TOKEN, else JUPYTERHUB_API_TOKEN.)"
        return note

    def _json(
        self, budget: Budget, answer: requests.Response, *, success: bool = True
    ) -> Mapping[str, Any]:
        if _content_type(answer) != "application/json":
            raise ProtocolError(_description(answer))
        body = _body(budget, answer)
        if sum(map(body.count, (b",", b"[", b"{"))) > self.limits.values:
            raise ProtocolError(f"it sends more than {self.limits.values:,} values")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise ProtocolError("it sends broken JSON") from None
        if not isinstance(content, Mapping) or content.get("success") is not success:
            raise ProtocolError("'success' is missing")
        return content

    def _budget(self, size: int, retry_seconds: float) -> Budget:
        return Budget(size, retry_seconds=retry_seconds, clock=self.clock)

    def _budget_of_list(self) -> Budget:
        return Budget(
            self.limits.list,
            seconds=self.limits.list_seconds,
            retry_seconds=_LIST_RETRY_SECONDS,
            clock=self.clock,
        )

    @property
    def shown_url(self) -> str:
        """The address for messages, without a password that it may contain."""
        return without_password(self.url)

    def _checked_url(self) -> str:
        try:
            parts = urllib.parse.urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.netloc)
        except ValueError:  # "http://[::1"
            is_address = False
        if not is_address:
            raise ServiceError(
                f"{self.shown_url!r} is not an address of an exchange service. Set NBEXCHANGE_URL "
                "or c.Exchange.base_service_url to one like http://host:9000/."
            )
        return self.url

    def _check_text(self, params: _Params) -> None:
        for name, value in params.items():
            try:
                str(value).encode()
            except UnicodeEncodeError:
                raise ServiceError(f"The {name} {value!r} is not text.") from None

    def _checking_answer(self) -> "_AnswerCheck":
        return _AnswerCheck(self)

    def _not_an_exchange(self, detail: str) -> NotAnExchange:
        return NotAnExchange(
            f"The server at {self.shown_url} is not an exchange service of this version "
            f"({detail}). {CHECK_ADDRESS}{proxy_in_environment(self.url)}"
        )

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(
            f"The exchange service at {self.shown_url} {what}"
            f"{proxy_in_environment(self.url)} {TRY_AGAIN}"
        )

    def _unconfirmed(self) -> NotAnExchange:
        return NotAnExchange(
            f"The exchange service at {self.shown_url} confirms something other than what was "
            "sent. Do not rely on this upload: try again, and contact your administrator."
        )


class _AnswerCheck:
    """Turns a ProtocolError inside it into NotAnExchange."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ProtocolError):
            raise self._client._not_an_exchange(str(error)) from None


class _Body:
    """A file being uploaded. `requests` takes its length and then reads it."""

    def __init__(self, file: BinaryIO, size: int, progress: TransferProgress) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self.sent = 0
        """Bytes handed to the operating system, which may still buffer some megabytes."""

    def rewind(self) -> None:
        self._file.seek(0)
        self.sent = 0
        self._progress.restart()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.sent += len(chunk)
        self._progress.advance(len(chunk))
        return chunk

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(functools.partial(self.read, _CHUNK_SIZE), b"")


class _Download:
    """A file being downloaded. A retry requests only the missing part."""

    def __init__(
        self, file: BinaryIO, most: int, label: str | None, expected: str | None = None
    ) -> None:
        self.file = file
        self.sha256 = ""
        self.version: int | None = None
        self._most = most
        self._label = label
        self._expected = expected
        self._etag: str | None = None

    def headers(self) -> dict[str, str]:
        # If a proxy compressed the archive again, no digest would match.
        headers = {"Accept-Encoding": "identity"}
        if self._etag and self.file.tell():
            headers["Range"] = f"bytes={self.file.tell()}-"
            headers["If-Range"] = self._etag
        return headers

    def take(self, answer: requests.Response) -> None:
        if _content_type(answer) != "application/gzip":
            raise ProtocolError(f"it does not send an archive; {_description(answer)}")
        if not self._continues(answer):
            self._restart()
        self._etag = answer.headers.get("ETag")
        version = _number(answer.headers.get("Nbexchange-Version"))
        self.version = None if version is None else int(version)
        left = int(_number(answer.headers.get("Content-Length")) or 0)
        with TransferProgress(self._label or "", left if self._label else 0) as progress:
            for chunk in answer.iter_content(_CHUNK_SIZE):
                self.file.write(chunk)
                progress.advance(len(chunk))
                self._check_size()
        self._verify(_announced(answer))

    def _continues(self, answer: requests.Response) -> bool:
        if answer.status_code != requests.codes.partial_content:
            return False
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if not match or int(match[1]) != self.file.tell():
            self._restart()
            raise _Retry(ServiceError("The exchange service sent a part that was not requested."))
        return True

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._etag = None

    def _check_size(self) -> None:
        if self.file.tell() > self._most:
            raise ServiceError(
                f"The archive is larger than {self._most} bytes, the limit in "
                "c.Exchange.max_buffer_size."
            )

    def _verify(self, announced: str | None) -> None:
        if announced is None:
            raise ProtocolError("it sends an archive without its digest")
        self.file.seek(0)
        sha256 = hashlib.file_digest(self.file, "sha256").hexdigest()  # type: ignore[arg-type]  # see Payload
        if sha256 != announced or sha256 != (self._expected or sha256):
            self._restart()
            raise _Retry(
                ServiceError(
                    "The archive arrived corrupt: its digest is not the one that the exchange "
                    "service sent. Try again. If it happens again, contact your administrator."
                )
            )
        self.sha256 = sha256


def _is_page_token(token: Any) -> bool:
    return isinstance(token, str) and len(token) <= _LONGEST_PAGE_TOKEN


def _body(budget: Budget, answer: requests.Response) -> bytearray:
    """A whole answer, in memory. A compressed answer counts with its uncompressed size."""
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_SIZE):
        budget.use(len(chunk))
        body += chunk
    return body


def _content_type(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _description(answer: requests.Response) -> str:
    if _content_type(answer) == "text/html":
        return "it sends a web page, perhaps the login page of a proxy"
    return f"it sends {_content_type(answer) or 'content without a type'}, not JSON"


def _announced(answer: requests.Response) -> str | None:
    """The sha256 of the whole blob. In a partial answer, `Content-Digest` covers the part only."""
    header = answer.headers.get("Repr-Digest")
    if header is None and answer.status_code == requests.codes.ok:
        header = answer.headers.get("Content-Digest")
    match = _DIGEST.search(header or "")
    return base64.b64decode(match[1]).hex() if match else None


def _has_status(fields: Any, status: str) -> bool:
    return isinstance(fields, Mapping) and fields.get("status") == status


def _number(text: str | None) -> float | None:
    """A header's number. `Retry-After` may also be a date, which is ignored: clocks may differ."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _pause(attempt: int, asked: float | None, retry_seconds: float) -> float:
    """Seconds until the next attempt, randomised so that a class does not retry all at once."""
    if asked is not None:
        return min(asked, _LONGEST_PAUSE) * random.uniform(1, 1.2)  # noqa: S311
    first = _FIRST_PAUSE_OF_TRANSFER if retry_seconds > _LIST_RETRY_SECONDS else _FIRST_PAUSE
    pause: float = first * 2**attempt
    return min(pause, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
