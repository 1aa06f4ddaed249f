"""The only place of the plugin that speaks HTTP: one method for each verb of an exchange.

Every failure is a `ServiceError` with a sentence for the person at the keyboard:

    ServiceError
    ├── Unreachable     nobody answers, the answer breaks off, or it is "later"
    ├── NotAnExchange   somebody answers, but what is no exchange service says
    └── Refused         the service says no; `status` is the HTTP status

What is safe is tried again, with growing pauses and for a limited time: reading always, removing
because it can be done once only, sending because each upload carries an `Idempotency-Key`. Before a
file is sent again something small is asked, so that it does not go into the same stall. No
message and no log line holds a token; that is why the texts of `requests` are never passed on.
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
_LIST_RETRY_SECONDS = (
    5.0  # seconds within which a list may be tried again: a whole Jupyter server waits for it
)
_TRANSFER_RETRY_SECONDS = (
    math.inf
)  # the same for a transfer: it may break off after an hour, and `retries` ends it
_PAGE = 500  # submissions a request; 5,000 at once would keep the service busy too long
_RETRY_STATUSES = {429, 502, 503, 504}
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/\d{1,18}", re.ASCII)

_Value = TypeVar("_Value")
_Sent = TypeVar("_Sent", bound=Receipt)
_Params = Mapping[str, str | int]


class ServiceError(Exception):
    """Something between us and the service went wrong; the message says what to do.

    What the service said may be in it, so no message has a second line or more than a page.
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
    """Inside, in this thread, a list is asked for once, and again after anything has changed it.

    nbgrader's pages ask for the same list several times.
    """
    token = _lists.set({})
    try:
        yield
    finally:
        _lists.reset(token)


class _Retry(Exception):
    """It may go well the next time, after `pause` seconds if the service named them."""

    def __init__(
        self, error: ServiceError, pause: float | None = None, *, answered: bool = False
    ) -> None:
        """`answered` says that the line is good: what it led to has refused."""
        super().__init__(str(error))
        self.error = error
        self.pause = pause
        self.answered = answered


class BearerToken(AuthBase):
    """`Authorization: Bearer`, with the token that JupyterHub or the operator gave this person."""

    def __init__(self) -> None:
        token = os.environ.get("NBEXCHANGE_TOKEN") or os.environ.get("JUPYTERHUB_API_TOKEN")
        self._token = (token or "").strip()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Checked here, because http.client's complaint about a bad header would show the token.
        if not (self._token.isascii() and self._token.isprintable()):
            raise ServiceError(
                "The token in NBEXCHANGE_TOKEN or JUPYTERHUB_API_TOKEN holds characters that "
                "cannot be sent; ask whoever runs your notebook server."
            )
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Login(AuthBase):
    """A configured way to log in, made when it is first needed; its failures become sentences.

    Not its words: they may hold what nobody should read.
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
        except Exception as error:  # noqa: BLE001 - the operator's own code may raise anything
            raise ServiceError(
                f"{self._auth_class.__name__} (c.Exchange.auth_class) cannot log in: "
                f"{type(error).__name__}. Ask whoever runs your notebook server."
            ) from None


class Payload:
    """Bytes to send, with their digest, and one key for as often as they are sent."""

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
    """How much of an answer in JSON is read. All sizes are in bytes."""

    receipt: int = 1024**2  # or a refusal
    list: int = 128 * 1024**2  # all pages
    list_seconds: float = 600.0  # all pages
    pages: int = 10_000
    feedback: int = 256 * 1024**2  # on one assignment, which comes in one answer
    values: int = 4_000_000  # in one answer: each may be 2 bytes long and take 70 bytes of memory


@dataclass(frozen=True)
class FetchedRelease:
    """A released archive, in a temporary file that lasts as long as one is inside."""

    file: BinaryIO
    sha256: str
    version: int | None

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclass(frozen=True)
class Client:
    """An exchange service at `url`; cheap to make, because connections are kept elsewhere."""

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
        """list: what is released, and the caller's own submissions; None means all courses."""
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
        """Refused with 412 when it is released already and may not be overwritten."""
        condition = {} if overwrite else {"If-None-Match": "*"}
        params = {"course_id": course_id, "assignment_id": assignment_id}
        return self._send("assignment", params, payload, Receipt.from_json, condition)

    def fetch(self, course_id: str, assignment_id: str) -> FetchedRelease:
        """The newest release."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        download = self._download("assignment", params, f"Fetching {assignment_id}")
        return FetchedRelease(download.file, download.sha256, download.version)

    def remove(self, course_id: str, assignment_id: str) -> None:
        """Not released any more; also when it was not."""
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
        """list --inbound: everybody's submissions for an instructor, else the caller's own."""
        params: dict[str, str | int] = {"course_id": course_id, "limit": _PAGE}
        if assignment_id is not None:
            params["assignment_id"] = assignment_id
        if student is not None:
            params["user_id"] = student
        if latest:
            params["latest"] = "true"
        return [submission for page in self._pages(params) for submission in page]

    def collect(self, submission: ListedSubmission) -> BinaryIO:
        """The archive of a submission, in a temporary file."""
        params = {
            "course_id": submission.course_id,
            "assignment_id": submission.assignment_id,
            "path": submission.path,
        }
        return self._download("collection", params, expected=submission.sha256).file

    def release_feedback(
        self, course_id: str, assignment_id: str, notebook_id: str, html: bytes, submission: _Params
    ) -> ReleaseFeedbackReceipt:
        """`whose` names the submission: its `submission_id`, or `student` and `timestamp`."""
        params = {
            "course_id": course_id,
            "assignment_id": assignment_id,
            "notebook": notebook_id,
            **submission,
        }
        payload = Payload(io.BytesIO(html), "text/html")
        return self._send("feedback", params, payload, ReleaseFeedbackReceipt.from_json)

    def fetch_feedback(self, course_id: str, assignment_id: str) -> list[FetchedFeedback]:
        """The newest feedback on each notebook of each own submission of the assignment."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        budget = self._budget(self.limits.feedback, _TRANSFER_RETRY_SECONDS)
        records = self._items("feedback", params, "feedback", budget)
        with self._checking_answer():
            return [FetchedFeedback.from_json(fields) for fields in records]

    # How they are asked

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
        """Upload, and believe it only when the receipt is for exactly what was sent."""
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
        """A temporary file with the whole blob, its digest verified; the caller closes it."""
        with naming_temporary():
            file = tempfile.TemporaryFile()  # noqa: SIM115 - it is what we return
            try:
                download = _Download(file, self.max_buffer_size, label, expected)
                budget = self._budget(self.max_buffer_size, _TRANSFER_RETRY_SECONDS)
                self._ask("GET", path, params, budget, download.take, download.headers)
                file.seek(0)
            except BaseException:
                file.close()  # writes what is left, and may fail as writing did
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
        """Ask until it is answered, or until patience ends, and let `take` read the answer."""
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
                # A page that lists asks all the time; at a transfer somebody waits.
                level = (
                    logging.WARNING if budget.retry_seconds > _LIST_RETRY_SECONDS else logging.DEBUG
                )
                self.log.log(level, "That did not work; trying again in %.1f seconds.", pause)
            self.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _timeouts(self, budget: Budget, body: "_Body | None" = None, attempt: int = 0) -> Timeouts:
        """Of one try. Each next one lets a line stand still for longer."""
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
        """Ask something small before a file is sent again. Raises _Again without an answer.

        Only where the line broke. Each look is a request: where a proxy gives them to two replicas
        in turn, and one of these is gone, every try after a look would reach that one.
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
                f"The certificate of the exchange service at {self.shown_url} is not trusted here; "
                "ask whoever runs your notebook server."
            ) from None
        except (requests.Timeout, requests.ConnectionError) as error:
            raise self._broken(error, attempt(), waits) from None
        except (
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
        ):
            raise _Retry(self._unreachable("broke off in the middle of its answer.")) from None
        except Exceeded as exceeded:
            raise self._unreachable(f"{exceeded}.") from None
        except ProtocolError as error:
            raise self._not_an_exchange(str(error)) from None
        except requests.RequestException as error:
            raise self._unreachable(f"cannot be asked ({type(error).__name__}).") from None

    def _broken(
        self, error: requests.RequestException, attempt: Attempt, waits: Timeouts
    ) -> Exception:
        """What to raise for a connection that broke or stood still."""
        broken = self._unreachable(attempt.connection_error(error, waits.send))
        return broken if attempt.is_hopeless else _Retry(broken)

    def _check(self, answer: requests.Response, attempt: Attempt) -> None:
        """Raises what the status says, unless it says that all is well."""
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
        """Why the service refuses, in its own words; else what a proxy means."""
        try:
            budget = self._budget(self.limits.receipt, _LIST_RETRY_SECONDS)
            note = self._json(budget, answer, success=False)["note"]
        except (ProtocolError, KeyError, requests.RequestException):
            note = None
        if not isinstance(note, str) or not note:
            note = attempt.unexpected_answer(answer.status_code) + proxy_in_environment(self.url)
        elif answer.status_code == requests.codes.unauthorized:
            note += " (Your login is the token in NBEXCHANGE_TOKEN, else in JUPYTERHUB_API_TOKEN.)"
        return note

    def _json(
        self, budget: Budget, answer: requests.Response, *, success: bool = True
    ) -> Mapping[str, Any]:
        if _content_type(answer) != "application/json":
            raise ProtocolError(_what_is_sent(answer))
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
        """The address without a password that somebody wrote into it."""
        return without_password(self.url)

    def _checked_url(self) -> str:
        try:
            parts = urllib.parse.urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.netloc)
        except ValueError:  # "http://[::1"
            is_address = False
        if not is_address:
            raise ServiceError(
                f"{self.shown_url!r} is no address of an exchange service: that is like "
                "http://host:9000/. Set NBEXCHANGE_URL or c.Exchange.base_service_url."
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
            f"What answers at {self.shown_url} is not an exchange service of this version "
            f"({detail}). {CHECK_ADDRESS}{proxy_in_environment(self.url)}"
        )

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(
            f"The exchange service at {self.shown_url} {what}"
            f"{proxy_in_environment(self.url)} {TRY_AGAIN}"
        )

    def _unconfirmed(self) -> NotAnExchange:
        return NotAnExchange(
            f"The exchange service at {self.shown_url} confirms something else than what was sent. "
            "Do not rely on it: try again, and tell whoever runs the service."
        )


class _AnswerCheck:
    """Inside, whatever makes no sense is the fault of who answers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, ProtocolError):
            raise self._client._not_an_exchange(str(error)) from None


class _Body:
    """A file on its way out, which `requests` asks for its length and then reads."""

    def __init__(self, file: BinaryIO, size: int, progress: TransferProgress) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self.sent = 0
        """Bytes that were given to the system, which keeps up to some megabytes of them."""

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
    """A file on its way in; what is here already is not asked for again."""

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
        # A proxy that gzips the gzip would make every digest wrong.
        headers = {"Accept-Encoding": "identity"}
        if self._etag and self.file.tell():
            headers["Range"] = f"bytes={self.file.tell()}-"
            headers["If-Range"] = self._etag
        return headers

    def take(self, answer: requests.Response) -> None:
        if _content_type(answer) != "application/gzip":
            raise ProtocolError(f"it does not send an archive; {_what_is_sent(answer)}")
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
            raise _Retry(ServiceError("The exchange service sends another part than asked for."))
        return True

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._etag = None

    def _check_size(self) -> None:
        if self.file.tell() > self._most:
            raise ServiceError(
                f"The archive is larger than {self._most} bytes (c.Exchange.max_buffer_size)."
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
                    "The archive arrived damaged: its digest is not the one that the exchange "
                    "service names. Try again; if it stays so, tell whoever runs the service."
                )
            )
        self.sha256 = sha256


def _is_page_token(token: Any) -> bool:
    return isinstance(token, str) and len(token) <= _LONGEST_PAGE_TOKEN


def _body(budget: Budget, answer: requests.Response) -> bytearray:
    """All of an answer that has to fit into memory; what is packed counts unpacked."""
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_SIZE):
        budget.use(len(chunk))
        body += chunk
    return body


def _content_type(answer: requests.Response) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _what_is_sent(answer: requests.Response) -> str:
    if _content_type(answer) == "text/html":
        return "it sends a web page, perhaps the login page of a proxy in between"
    return f"it sends {_content_type(answer) or 'something untyped'}, not JSON"


def _announced(answer: requests.Response) -> str | None:
    """The sha256 of the whole blob; a part's `Content-Digest` would be that of the part."""
    header = answer.headers.get("Repr-Digest")
    if header is None and answer.status_code == requests.codes.ok:
        header = answer.headers.get("Content-Digest")
    match = _DIGEST.search(header or "")
    return base64.b64decode(match[1]).hex() if match else None


def _has_status(fields: Any, status: str) -> bool:
    return isinstance(fields, Mapping) and fields.get("status") == status


def _number(text: str | None) -> float | None:
    """A header's number; `Retry-After` may be a date too, which needs two clocks that agree."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _pause(attempt: int, asked: float | None, retry_seconds: float) -> float:
    """Seconds until the next try, spread so that a class does not come back all at once."""
    if asked is not None:
        return min(asked, _LONGEST_PAUSE) * random.uniform(1, 1.2)  # noqa: S311
    first = _FIRST_PAUSE_OF_TRANSFER if retry_seconds > _LIST_RETRY_SECONDS else _FIRST_PAUSE
    pause: float = first * 2**attempt
    return min(pause, _LONGEST_PAUSE) * random.uniform(0.5, 1)  # noqa: S311
