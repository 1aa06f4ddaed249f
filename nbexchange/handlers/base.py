"""What all request handlers share: identity, parameters, answers, refusals and the log."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import inspect
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from time import monotonic
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy.orm import Session
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.web import Application, Finish, HTTPError, RequestHandler, stream_request_body

from nbexchange.errors import (
    Damaged,
    Malformed,
    MalformedIdentity,
    Misconfigured,
    NbExchangeError,
    NotAllowed,
    NotFound,
    OutOfRange,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.policy import Verb
from nbexchange.handlers.services import Services
from nbexchange.identity import User
from nbexchange.server.connections import ClientConnection
from nbexchange.server.metrics import reason
from nbexchange.server.rate_limits import Person
from nbexchange.storage import Blob

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PUBLIC: Final = None
"""In a handler's `verbs`: every client may, without signing in."""

LARGEST_PAGE = 1000
"""Entries that a client may ask for at a time; without a limit it gets all."""

LONGEST_NOTE = 1000
"""Characters; a note quotes names, and a name in a request can be anything."""

LONGEST_PATH = 200
"""Characters of an address that are quoted."""

SMALL_BODY = 64 * 1024
"""Bytes of a body where none is expected."""

BROKEN_OFF = 499
"""What the log and the metrics call the status of a request whose sender went away."""

_REQUEST_ID = re.compile(r"[\w./:=+-]{1,64}", re.ASCII)

DRAIN = 64 * 1024 * 1024
"""Bytes of a refused body that are read and dropped. A connection closed at once would break
under a client that still sends, and it would never see why it was refused."""


# Streamed: Tornado would otherwise gather and parse every body before a handler has its say.
@stream_request_body
class BaseHandler(RequestHandler):
    verbs: ClassVar[Mapping[str, Verb | None]] = {}
    """HTTP method -> what it does. The policy knows who may; a method that is not here is a 405."""

    user: User
    refusal: NbExchangeError | None = None
    """What the answer will be once the body is over."""

    verb: Verb | None = None
    """What this request is to do; known once it was judged."""

    failure: BaseException | None = None
    """The error that took the place of the answer."""

    broken_off = told = False
    """Whether who asked went away before the end, and whether that was logged already."""

    _received = 0
    """Bytes of the body that were taken."""

    bytes_sent = 0
    """Of a list, whose length no header tells."""

    _acts = _held = False
    _deadline: asyncio.TimerHandle | None = None

    def __init__(
        self, application: Application, request: HTTPServerRequest, *, services: Services
    ) -> None:
        # Before Tornado's own, which asks for the headers of the answer before `initialize`.
        self.services = services
        super().__init__(application, request)

    def initialize(self) -> None:
        self._came = monotonic()
        self.leases = contextlib.ExitStack()
        """What this request takes up, until it is over."""

    @property
    def waited(self) -> datetime.timedelta:
        """Since the header arrived."""
        return datetime.timedelta(seconds=monotonic() - self._came)

    @functools.cached_property
    def request_id(self) -> str:
        return secrets.token_hex(8)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        # Here and not in `initialize`: an error starts its answer over with these headers alone.
        self.set_header("X-Request-Id", self.request_id)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header(
            "Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'"
        )
        self.set_header("Cache-Control", "no-store")
        if self.services.stopping.is_set():
            self.set_header("Connection", "close")

    async def prepare(self) -> None:
        method = (self.request.method or "").lower()
        act = getattr(self, method)
        try:
            await self.judge()
        except NbExchangeError as error:
            self._line.gives_way()
            await self._hold(error)
            if self._must_answer_now(error):
                raise
            self.refuse_after_body(error)
            # Above DRAIN an upload is answered in words; here the connection just breaks.
            self.limit_body(2 * DRAIN)
            act = self._refuse
        if self.verb is PUBLIC and self._has_body:
            self._line.gives_way()
        # Tornado calls it when the body is over.
        setattr(self, method, functools.partial(self._do, act))

    async def _do(self, act: Callable[[], Awaitable[None]]) -> None:
        self._acts = True
        with self.leases:
            try:
                await act()
            except NbExchangeError as error:
                await self._hold(error)
                raise

    async def judge(self) -> None:
        """Raise whatever can be refused before the body is read."""
        self.limit_body(SMALL_BODY)
        method = self.request.method or ""
        if method not in self.verbs:
            raise NotAllowed(f"this address does not take {method}")
        self.verb = self.verbs[method]
        if self.verb is not PUBLIC:
            self.user = await self._who_asks()
            self.leases.enter_context(self.services.rate_limiter.one_of(self.person))
            await self.services.rate_limiter.pace(self.person)

    @property
    def person(self) -> Person:
        return self.user.org_id, self.user.name

    async def _hold(self, error: NbExchangeError | HTTPError) -> None:
        """Slow down a person whose requests are refused again and again. Others do not wait."""
        status = error.status if isinstance(error, NbExchangeError) else error.status_code
        if self._held or not 400 <= status < 500:
            return
        self._held = True
        person = self.person if hasattr(self, "user") else None
        if not await self.services.rate_limiter.hold(person):
            self._connection.close()

    def hold_the_end(self, work: asyncio.Future[Any]) -> None:
        """Let the end of the service wait for this."""
        self.services.under_way.add(work)
        work.add_done_callback(self.services.under_way.discard)

    def refuse_after_body(self, error: NbExchangeError) -> None:
        """Answer with this error when the body is over, or when it takes too long."""
        self.refusal = error
        if not self._has_body:
            return
        self._line.gives_way()
        if seconds := self._line.longest_refusal:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(seconds, self.refuse_now, error)

    def refuse_now(self, error: NbExchangeError) -> None:
        """Answer with this error before the body is over."""
        if not self._acts and not self._finished:
            self.send_error(error.status, exc_info=(type(error), error, error.__traceback__))

    async def _refuse(self) -> None:
        assert self.refusal is not None
        raise self.refusal

    @property
    def _has_body(self) -> bool:
        return self.declared_length > 0 or "Transfer-Encoding" in self.request.headers

    def _must_answer_now(self, error: NbExchangeError) -> bool:
        """Whether the client waits for an answer before it sends, or will send too much."""
        waits: bool = self.request.headers.get("Expect", "").lower() == "100-continue"
        return waits or isinstance(error, TooLarge) or self.declared_length > DRAIN

    @property
    def declared_length(self) -> int:
        """Of the body; 0 where it is not said, or not in a way that Tornado will take."""
        text: str = self.request.headers.get("Content-Length", "")
        return int(text[:20]) if text.isascii() and text.isdigit() else 0

    def limit_body(self, size: int) -> None:
        """How many bytes of body the connection lets through before it breaks."""
        self._connection.set_max_body_size(size)

    @contextlib.contextmanager
    def whole_or_cut(self) -> Iterator[None]:
        """An answer that fails under way breaks off, so that it cannot pass for whole."""
        try:
            yield
        except StreamClosedError:
            raise Finish from None  # the client disconnected
        except Exception as error:
            if not self._headers_written:
                raise
            self.failure, self.broken_off = error, True
            self._connection.close()
            if not isinstance(error, NbExchangeError):
                self.log_exception(type(error), error, error.__traceback__)

    @property
    def _connection(self) -> HTTP1Connection:
        assert isinstance(self.request.connection, HTTP1Connection)
        return self.request.connection

    @property
    def _line(self) -> ClientConnection:
        stream = self._connection.stream
        assert isinstance(stream, ClientConnection)
        return stream

    def data_received(self, chunk: bytes) -> None:
        """Bodies are for uploads (`transfer.UploadHandler`); elsewhere they are let pass by."""

    # -- who asks

    async def _who_asks(self) -> User:
        try:
            answer = self.services.user_handler.get_current_user(self)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is None:
                raise Unauthenticated(
                    "the exchange does not know you; check the token in NBEXCHANGE_TOKEN or "
                    "JUPYTERHUB_API_TOKEN, or restart your server to get a new one"
                )
            return User.from_answer(answer)
        except (NbExchangeError, HTTPError):
            raise
        except Exception as error:
            # A plug-in of the administrator: every error that it raises has to be in the log.
            raise MalformedIdentity("the user handler failed") from error

    # -- what with

    def parameter(self, name: str) -> str | None:
        """A query parameter, exactly as sent; the first where it is repeated.

        None for an empty one. Raises Malformed for bytes that are not UTF-8, and for NUL, which
        some databases refuse.
        """
        value = self.request.query_arguments.get(name, [b""])[0]
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"{name} is not text in UTF-8") from error
        if "\0" in text:
            raise Malformed(f"{name} holds a NUL character")
        return text or None

    def required(self, *names: str) -> list[str]:
        values = {name: self.parameter(name) for name in names}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            raise Malformed(f"the request lacks {', '.join(missing)}")
        return [value for value in values.values() if value is not None]

    def flag(self, name: str) -> bool:
        """Set by any value other than an empty one, `false` and `0`."""
        return (self.parameter(name) or "").lower() not in ("", "false", "0")

    def number(self, name: str, highest: int) -> int | None:
        text = self.parameter(name)
        if text is None:
            return None
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(highest))
        if not is_number or not 1 <= int(text) <= highest:
            raise Malformed(f"{name} has to be a whole number from 1 to {highest}")
        return int(text)

    # -- answers

    async def act(
        self,
        verb: Callable[Concatenate[Session, User, str, P], T],
        course_id: str,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do something in a course that leaves rows."""
        user = self.user
        return await self.transact(
            course_id, lambda session: verb(session, user, course_id, *args, **kwargs)
        )

    async def transact(self, course_id: str, verb: Callable[[Session], T]) -> T:
        """One transaction, at this person's turn and this course's."""
        over = await self.services.rate_limiter.writes.take(self.person, course_id)
        return await self.services.database.write(verb, over)

    async def read_blob(
        self, blob: Blob, start: int = 0, stop: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a file. Raises NotFound where a purge erased it since its row was read, and
        Damaged where the row is still there."""
        try:
            async for chunk in self.services.storage.read(blob, start, stop):
                yield chunk
        except Damaged:
            if not await self.services.database.read(known_keys, [blob.key]):
                raise NotFound(
                    "The file was erased meanwhile. List the assignments again."
                ) from None
            log.error("blob %s is not what was stored; run `nbexchange check`", blob.key)
            raise

    def compute_etag(self) -> None:
        """None for JSON: it would cost a hash of every answer."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if not self.request._body_future.done():
            # Tornado will close it; a client that does not know would send its next request here.
            self.set_header("Connection", "close")
            self._line.answers_early()
        if isinstance(error, Unavailable | TooManyRequests):
            self.set_header("Retry-After", str(error.retry_after))
        if isinstance(error, Unauthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        if status_code == NotAllowed.status:
            self.set_header("Allow", ", ".join(self.verbs))
        if isinstance(error, OutOfRange):
            self.set_header("Content-Range", f"bytes */{error.size}")
        self.finish(
            to_json(
                {
                    "success": False,
                    "note": _note(status_code, error),
                    "request_id": self.request_id,
                    "value": [],  # old clients look into it before they look at `success`
                }
            )
        )

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = self.failure = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, NbExchangeError):
            status_code = error.status
        if isinstance(error, HTTPError) and not self._held:
            # Tornado's own, said before anything of ours was asked.
            self.hold_the_end(asyncio.ensure_future(self._send_late(error, status_code, **kwargs)))
            return
        super().send_error(status_code, **kwargs)

    async def _send_late(self, error: HTTPError, status_code: int, **kwargs: Any) -> None:
        await self._hold(error)
        super().send_error(status_code, **kwargs)

    # -- log and metrics

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        facts = {"fields": {"request_id": self.request_id}}
        if isinstance(value, NbExchangeError) and value.status != 500:
            log.debug("refused: %s", value, extra=facts)
        elif isinstance(value, HTTPError):
            log.debug("refused: %s", value.status_code, extra=facts)
        else:
            log.error("failed", exc_info=(typ, value, tb), extra=facts)

    def on_connection_close(self) -> None:
        self.broken_off = True
        self._forget_deadline()
        # Tornado calls this also where there was an answer before the body was over.
        if not self._acts:
            self.leases.close()
        will_end = self.request._body_future.done()
        super().on_connection_close()
        if not will_end and not self._finished:
            # No handler will answer this request, so nothing else would log it.
            if self._line.refusal is None:
                self.set_status(BROKEN_OFF, "Client Closed Request")
            else:
                self.failure = Malformed(self._line.refusal)
                self.set_status(Malformed.status)
            self._log()
            self._count()
            self.told = True

    def on_finish(self) -> None:
        self._forget_deadline()
        if not hasattr(self, "user"):
            # An anonymous client waits for the rest of this answer.
            self._line.gives_way()
        if not self.told:
            self._count()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _count(self) -> None:
        metrics, status = self.services.metrics, self.get_status()
        # A client may call its method anything; a label for each would never end.
        method = self.request.method if self.request.method in self.verbs else "other"
        metrics.count(
            type(self).__name__.removesuffix("Handler"),
            method or "",
            status,
            self.request.request_time(),
        )
        if why := self._why_not():
            metrics.count_refusal(why)
        elif self.verb is not None and self.wants_first_part:
            metrics.count_verb(self.verb, self.user.org_id)

    def _why_not(self) -> str | None:
        failed = self.failure is not None or self.get_status() >= Malformed.status
        return reason(self.failure) if failed or self._is_unread else None

    @property
    def _is_unread(self) -> bool:
        """Whether the receiver went away. An upload that was stored is done whoever went away."""
        return self.broken_off and self.request.method == "GET"

    @property
    def wants_first_part(self) -> bool:
        """False for a later part of something that its first part already counted."""
        return True

    def facts(self) -> dict[str, Any]:
        """Fields of the log: the sender and the verb, but no course, assignment or file.

        The query holds names of courses, and whatever a client puts there by mistake.
        """
        user: User | None = getattr(self, "user", None)
        theirs = self.request.headers.get("X-Request-Id", "")
        facts = {
            "request_id": self.request_id,
            # Anybody may send one, so it never takes the place of ours.
            "proxy_request_id": theirs if _REQUEST_ID.fullmatch(theirs) else None,
            "status": self.get_status(),
            "method": (self.request.method or "")[:20],
            "path": self.request.path[:200],
            "verb": self.verb and self.verb.name.lower(),
            "user": user and user.name,
            "organisation": user and user.org_id,
            "reason": self._why_not(),
            "duration_ms": round(1000 * self.request.request_time(), 1),
            "bytes_in": self._received,
            "bytes_out": None if self._is_unread else self._bytes_out,
        }
        return {name: value for name, value in facts.items() if value is not None}

    @property
    def _bytes_out(self) -> int:
        return self.bytes_sent or int(self._headers.get("Content-Length", 0))


class NothingHereHandler(BaseHandler):
    """Every address that is not in the table."""

    async def judge(self) -> None:
        raise NotFound(
            f"there is nothing at {self.request.path[:LONGEST_PATH]}; check the address of the "
            "exchange (NBEXCHANGE_URL)"
        )


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(answer: Mapping[str, Any]) -> bytes:
    return _ENCODE(answer).encode()


def _note(status_code: int, error: BaseException | None) -> str:
    if isinstance(error, MalformedIdentity):
        return (
            "The exchange is not configured correctly: it cannot identify you. Contact your "
            "administrator."
        )
    if isinstance(error, Misconfigured):
        # The advice is for the administrator, and in the log.
        return "The exchange is not configured correctly. Contact your administrator."
    if isinstance(error, NbExchangeError):
        return str(error)[:LONGEST_NOTE]
    if status_code < 500:
        return "The exchange cannot read this request. Update nbexchange in the notebook image."
    return "The exchange failed. Try again. If that does not help, contact your administrator."
