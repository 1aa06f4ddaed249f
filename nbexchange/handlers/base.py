"""What every handler shares: who asks, what with, and how a refusal is said."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy.orm import Session
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError
from tornado.web import Finish, HTTPError, RequestHandler, stream_request_body

from nbexchange.archive import Limits
from nbexchange.database import Database
from nbexchange.errors import (
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
from nbexchange.exchange.policy import Verb
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.handlers.metrics import Metrics
from nbexchange.identity import User
from nbexchange.storage import Storage

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PUBLIC: Final = None
"""In a handler's `verbs`: anyone may, and nobody is asked who they are."""

LARGEST_PAGE = 1000
"""Entries that a client may ask for at a time; without a limit it gets all."""

LONGEST_NOTE = 1000
"""Characters; a note quotes names, and a name in a request can be anything."""

SMALL_BODY = 64 * 1024
"""Bytes of a body that nobody asked for."""

DRAIN = 64 * 1024 * 1024
"""Bytes of a refused body that are read and dropped. A connection closed at once would break
under a client that still sends, and it would never see why it was refused."""


@dataclass(frozen=True)
class Services:
    """The parts that the composition root made, for the handlers."""

    database: Database
    storage: Storage
    user_handler: BaseUserHandler
    metrics: Metrics
    max_buffer_size: int
    limits: Limits


# Streamed: Tornado would otherwise gather and parse every body before a handler has its say.
@stream_request_body
class BaseHandler(RequestHandler):
    verbs: ClassVar[Mapping[str, Verb | None]] = {}
    """HTTP method -> what it does. The policy knows who may; a method that is not here is a 405."""

    user: User
    refusal: NbExchangeError | None = None
    """What the answer will be once the body is over."""

    def initialize(self, services: Services) -> None:
        self.services = services

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
        if self.settings["stopping"].is_set():
            self.set_header("Connection", "close")

    async def prepare(self) -> None:
        try:
            await self.judge()
        except NbExchangeError as error:
            if self._must_answer_now(error):
                raise
            self.refusal = error
            # Above DRAIN an upload is answered in words; here the connection just breaks.
            self.limit_body(2 * DRAIN)
            # Tornado calls it when the body is over.
            setattr(self, (self.request.method or "").lower(), self._refuse)

    async def judge(self) -> None:
        """Raise whatever can be refused before the body is read."""
        self.limit_body(SMALL_BODY)
        method = self.request.method or ""
        if method not in self.verbs:
            raise NotAllowed(f"this address does not take {method}")
        if self.verbs[method] is not PUBLIC:
            self.user = await self._who_asks()

    async def _refuse(self) -> None:
        assert self.refusal is not None
        raise self.refusal

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
        except NbExchangeError:
            if not self._headers_written:
                raise
            self._connection.close()
        except StreamClosedError:
            raise Finish from None  # who asked is gone

    @property
    def _connection(self) -> HTTP1Connection:
        assert isinstance(self.request.connection, HTTP1Connection)
        return self.request.connection

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
            # Somebody else's code: whatever it raises is a fault that the operator has to see.
            raise MalformedIdentity("the user handler failed") from error

    # -- what with

    def parameter(self, name: str) -> str | None:
        """A query parameter, exactly as sent; the first where it is repeated.

        None for an empty one. Raises Malformed for bytes that are no text, and for NUL, which not
        every database can be asked about.
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
        verb: Callable[Concatenate[Session, User, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do something that leaves rows."""
        return await self.services.database.write(verb, self.user, *args, **kwargs)

    async def answer(
        self,
        shape: Callable[[T], dict[str, Any]],
        verb: Callable[Concatenate[Session, User, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Read, and answer with what `shape` makes of it.

        Long lists take time to put into JSON, so that happens in the verb's thread as well.
        """

        def read(session: Session) -> bytes:
            return list_to_json(
                {"success": True} | shape(verb(session, self.user, *args, **kwargs))
            )

        self.finish(await self.services.database.read(read))

    def compute_etag(self) -> None:
        """None for JSON: it would cost a hash of every answer."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if not self.request._body_future.done():
            # Tornado will close it; a client that does not know would send its next request here.
            self.set_header("Connection", "close")
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
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, NbExchangeError):
            status_code = error.status
        super().send_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, NbExchangeError) and value.status != 500:
            log.debug("%s refused: %s", self.request_id, value)
        elif isinstance(value, HTTPError):
            log.debug("%s refused: %s", self.request_id, value.status_code)
        else:
            log.error("%s failed", self.request_id, exc_info=(typ, value, tb))

    def on_finish(self) -> None:
        self.services.metrics.count(self)


class NothingHere(BaseHandler):
    """Every address that is not in the table."""

    async def judge(self) -> None:
        raise NotFound("there is nothing at this address")


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(answer: Mapping[str, Any]) -> bytes:
    return _ENCODE(answer).encode()


def list_to_json(answer: dict[str, Any]) -> bytes:
    """The same for an answer with a long `value`, entry by entry.

    The encoder does not let other threads run before it is done: with 5,000 submissions at once
    everybody else waited 140 ms, and so they wait 48.
    """
    entries = ",".join([_ENCODE(entry) for entry in answer.pop("value")])
    rest = _ENCODE(answer)
    return f'{rest[:-1]},"value":[{entries}]}}'.encode()


def _note(status_code: int, error: BaseException | None) -> str:
    if isinstance(error, MalformedIdentity):
        return (
            "the exchange is set up in a way that it cannot tell who you are; "
            "tell the people who run it"
        )
    if isinstance(error, Misconfigured):
        # The words that mend it are the operator's, and in the log.
        return "the exchange is not set up well; tell the people who run it"
    if isinstance(error, NbExchangeError):
        return str(error)[:LONGEST_NOTE]
    if status_code < 500:
        return "the request makes no sense to the exchange"
    return "the exchange failed; try again, and tell the people who run it if that does not help"
