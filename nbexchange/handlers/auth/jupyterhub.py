"""People as JupyterHub knows them: the hub says whose a token is and which groups they are in.

`formgrade-{course_id}` makes its members instructors of the course, `nbgrader-{course_id}`
students. Nothing else gives a right; an administrator of the hub is nobody special here.

* A token counts only if it was made to be shown to this service: one of its scopes is an access
  scope. Every other valid token has the person's name and groups as well, and is in the hands of
  other services and of other people's servers.
* A write believes only what was asked after it came. A read believes an answer for at most
  `cache_seconds`, and so does everybody what it says of a course: its title and its organisation.
* The hub answers one after the other. So one token has one question open at a time, one person
  few, and so have all tokens together that nobody has seen to be good. Those wait for a lottery, in
  which tokens that look like a hub's come first.
* Where the hub does not answer, or not with sense, it is a 503 and never a guess.

What the hub needs is in `nbexchange.hub.configure`: users and the tokens of their servers have the
scope `access:services!service=NAME`. The service's own token is needed only for the properties of
the groups, and wants a role with the scope `read:groups`:

    PUT /hub/api/groups/formgrade-physics/properties  {"title": "Physics I", "org_id": 2}

Both groups of a course should have the same. A course without `org_id` is in the default
organisation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import random
import re
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Never, TypeGuard, TypeVar
from urllib.parse import quote, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import RequestHandler
from traitlets import Dict, Float, List, TraitError, Unicode, default
from traitlets.config import Configurable

from nbexchange import timeouts
from nbexchange.errors import (
    Forbidden,
    Misconfigured,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from nbexchange.handlers.auth.token_file import bearer_token
from nbexchange.handlers.auth.user_handler import Answer, BaseUserHandler
from nbexchange.hub.naming import PREFIXES, courses_of, group_for, parse_group
from nbexchange.identity import (
    LARGEST_ORGANISATION,
    LONGEST_NAME,
    is_name,
    parse_organisation,
)
from nbexchange.server.rate_limits import soon
from nbexchange.traits import OrganisationNumber

log = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_CACHE = 30
"""Seconds during which somebody who was removed may go on reading."""

AT_A_TIME = 20
"""Questions that are open at the hub, which answers one after the other."""

STRANGERS = 5
"""Of these, about tokens that were not good when they came last: anybody can make up tokens."""

ODD_STRANGERS = 1
"""Of these, about tokens that do not look like a hub's: those of services, set by hand."""

MOST_WAITING = 1000
"""Strangers of each kind who wait; each more takes the place of one of them."""

OWN = 2
"""Of these, about the tokens of one person, who can have many."""

LONGEST_LINE = 0.75
"""Of `hub_timeout`, the part after which a question is not worth putting any more."""

LARGEST_ANSWER = 2 * 1024 * 1024
"""Bytes; a group is told with the names of all its members."""

MOST_KEPT = 10_000
"""Tokens, and groups, whose answers are kept."""

UNKNOWN_SECONDS = 3
"""How long a token stays unknown once the hub said so: a client that asks on and on with it would
keep the hub busy."""

MINUTE = 60

ANY_SERVICE: Final = "access:services"

_ACCESS_SCOPE = re.compile(r"access:services(!service=[^!\s]+)?")
_TOKEN = re.compile(r"[!-~]{1,500}")
_OF_A_HUB = re.compile(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}|[0-9a-f]{64}")
"""JupyterHub 5 and 6 make all tokens by uuid4; Zero to JupyterHub gives services 64 digits."""

UNKNOWN = (
    "JupyterHub does not know your token (any more); get a new one by stopping and starting your "
    "server in the hub's control panel, and try again"
)
AWAY = "the exchange cannot ask JupyterHub who you are for now; try again soon"
CROWDED = (
    "JupyterHub is to say of too many tokens at once whose they are, and yours was not among those "
    "that it came to; try again soon"
)


class SecretText(Unicode[str, str]):
    """Text that is not quoted when it is none."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> Never:
        raise TraitError(f"{self.name} has to be text")


@dataclass(frozen=True)
class TokenOwner:
    """Whose a token is: the keys of `get_current_user`, and course_id -> role."""

    identity: Mapping[str, Any]
    courses: Mapping[str, str]
    is_service: bool = False


class JupyterHubUserHandler(BaseUserHandler, Configurable):
    api_url = Unicode(
        help="The address of the hub's REST API. Default: $JUPYTERHUB_API_URL.",
    ).tag(config=True)

    @default("api_url")
    def _api_url(self) -> str:
        return os.environ.get("JUPYTERHUB_API_URL", "")

    service_name = Unicode(
        help="""
        The name that this service has in the hub (c.JupyterHub.services).
        Default: $JUPYTERHUB_SERVICE_NAME.
        """,
    ).tag(config=True)

    @default("service_name")
    def _service_name(self) -> str:
        return os.environ.get("JUPYTERHUB_SERVICE_NAME", "")

    access_scopes = List(
        Unicode(),
        help="""
        A token has to have one of these scopes. Default: $JUPYTERHUB_OAUTH_ACCESS_SCOPES, which
        the hub sets for a service that it starts, else access:services and
        access:services!service=NAME with the service_name.
        """,
    ).tag(config=True)

    @default("access_scopes")
    def _access_scopes(self) -> list[str]:
        given = _list_in_environment("JUPYTERHUB_OAUTH_ACCESS_SCOPES")
        if given or not self.service_name:
            return given
        return [ANY_SERVICE, f"{ANY_SERVICE}!service={self.service_name}"]

    api_token = SecretText(
        help="""
        The service's own token at the hub, for the titles and organisations of courses: its role
        needs the scope read:groups. Without it courses have no titles, and all are in one
        organisation. Default: $JUPYTERHUB_API_TOKEN.
        """,
    ).tag(config=True)

    @default("api_token")
    def _api_token(self) -> str:
        return os.environ.get("JUPYTERHUB_API_TOKEN", "")

    cache_seconds = Float(
        LONGEST_CACHE,
        min=0,
        max=LONGEST_CACHE,
        help="How long the hub's answer is believed when somebody reads; a write asks each time.",
    ).tag(config=True)

    services = Dict(
        help="""
        Services of the hub that may come with their own token, as nbgrader's graders do, and
        their courses: {"grader-of-physics": {"physics": "Instructor"}}. All others are refused.
        """,
    ).tag(config=True)

    org_id = OrganisationNumber(
        help="The organisation of all courses whose groups name none in their properties.",
    ).tag(config=True)

    hub_timeout = Float(
        timeouts.HUB,
        min=0.1,
        max=60,
        help="""
        Seconds that one request waits for all that it asks of the hub; after that the exchange is
        not available for now (503), and people try again.
        """,
    ).tag(config=True)

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._check_options()
        self._clock = clock
        self._seldom = ThrottledLog(clock)
        self._hub = HubApi(self.api_url, self.hub_timeout, self._seldom)
        self._people: ExpiringCache[TokenOwner] = ExpiringCache(self.cache_seconds, clock)
        self._unknown: ExpiringCache[bool] = ExpiringCache(UNKNOWN_SECONDS, clock)
        self._lines: weakref.WeakValueDictionary[str, PendingLookups] = (
            weakref.WeakValueDictionary()
        )
        self._places: weakref.WeakValueDictionary[str, asyncio.Semaphore] = (
            weakref.WeakValueDictionary()
        )
        self._strangers = Lottery(STRANGERS)
        self._odd_strangers = Lottery(ODD_STRANGERS)
        self._groups = GroupProperties(self._hub, self.api_token, self.cache_seconds, clock)

    def _check_options(self) -> None:
        if not _is_address(self.api_url):
            raise Misconfigured(
                "JupyterHubUserHandler does not know the hub: set "
                "c.JupyterHubUserHandler.api_url or $JUPYTERHUB_API_URL to the address of its "
                "REST API, like http://hub:8081/hub/api"
            )
        # Without a scope to check, every token of a person would do, whoever holds it.
        if not self.access_scopes:
            raise Misconfigured(
                "JupyterHubUserHandler cannot tell which tokens are meant for it: set "
                "c.JupyterHubUserHandler.service_name or $JUPYTERHUB_SERVICE_NAME to the name "
                "that this service has in the hub"
            )
        for scope in self.access_scopes:
            if not _ACCESS_SCOPE.fullmatch(scope):
                raise Misconfigured(
                    f"{scope!r} in JupyterHubUserHandler.access_scopes is not a right to use a "
                    "service; those begin with access:services"
                )
        for name, courses in self.services.items():
            if not _is_course_map(courses):
                raise Misconfigured(
                    f"JupyterHubUserHandler.services has to say the courses of {name!r} as "
                    "{'course_id': 'Instructor'}"
                )

    # -- who asks

    async def get_current_user(self, request: RequestHandler) -> Answer:
        token = bearer_token(request)
        if token is None:
            return None
        if not _TOKEN.fullmatch(token):
            raise Unauthenticated(UNKNOWN)
        fresh = request.request.method not in ("GET", "HEAD")
        try:
            async with asyncio.timeout(self.hub_timeout):
                person = await self._whose(token, fresh=fresh)
                return await self._described(person)
        except TimeoutError:
            raise self._hub.away("it takes too long") from None

    async def _whose(self, token: str, *, fresh: bool) -> TokenOwner:
        key = hashlib.sha256(token.encode()).hexdigest()
        if self._unknown.get(key):
            raise Unauthenticated(UNKNOWN)
        person = None if fresh else self._people.get(key)
        return await self._told(key, token) if person is None else person

    async def _told(self, key: str, token: str) -> TokenOwner:
        """The answer to a question that is put from now on. All who came before it share it."""
        line = self._lines.setdefault(key, PendingLookups())
        came = line.put
        async with line.turn:
            if line.put == came:
                if self._unknown.get(key):
                    raise Unauthenticated(UNKNOWN)
                place = await self._place(key, token)
                line.put += 1
                line.answer = asyncio.create_task(self._ask(key, token))
                line.answer.add_done_callback(lambda _: place.release())
            return await _undisturbed(line.answer)

    async def _place(self, key: str, token: str) -> asyncio.Semaphore | Lottery:
        """Among the questions that are open; to be released. Raises TooManyRequests."""
        places = self._places_for(key, token)
        try:
            async with asyncio.timeout(LONGEST_LINE * self.hub_timeout):
                await places.acquire()
        except (TimeoutError, Crowded):
            raise TooManyRequests(CROWDED, retry_after=soon()) from None
        return places

    def _places_for(self, key: str, token: str) -> asyncio.Semaphore | Lottery:
        known = self._people.last(key)
        if known is not None:
            return self._places.setdefault(known.identity["name"], asyncio.Semaphore(OWN))
        return self._strangers if _OF_A_HUB.fullmatch(token) else self._odd_strangers

    async def _ask(self, key: str, token: str) -> TokenOwner:
        asked = self._clock()
        try:
            person = self._person(await self._hub.whoami(token))
        except (Unauthenticated, Forbidden) as error:
            self._people.drop(key)
            if isinstance(error, Unauthenticated):
                self._unknown.keep(key, True, asked)
            raise
        self._people.keep(key, person, asked)
        return person

    def _person(self, model: Mapping[str, Any]) -> TokenOwner:
        """What the hub says of a token's owner, if it may be used here."""
        name, scopes, groups = (model.get(key) for key in ("name", "scopes", "groups"))
        if not isinstance(name, str) or not _is_list_of_text(scopes):
            raise self._hub.away("it does not say whose a token is, with which scopes")
        self._check_scopes(scopes)
        if model.get("kind") == "service":
            return self._service(name)
        if model.get("kind") != "user" or not _is_list_of_text(groups):
            raise self._hub.away("it does not say in which groups somebody is")
        if not is_name(name):
            raise Forbidden(
                f"the exchange cannot take your name: it has more than {LONGEST_NAME} characters, "
                "or one that cannot be shown; contact the administrator of the hub"
            )
        return TokenOwner({"name": name, **_user_info(model)}, self._courses(groups))

    def _check_scopes(self, scopes: list[str]) -> None:
        if not set(scopes) & set(self.access_scopes):
            narrowest = max(self.access_scopes, key=len)
            raise Forbidden(
                f"your token was not made for the exchange: it lacks the scope {narrowest}. "
                "Whoever runs the hub has to grant that scope to users and to their servers "
                "(c.Spawner.server_token_scopes); then restart your server"
            )

    def _service(self, name: str) -> TokenOwner:
        courses = self.services.get(name)
        if courses is None:
            raise Forbidden(
                f"the service {name} of the hub has no course here: whoever runs the exchange "
                "has to name its courses in c.JupyterHubUserHandler.services"
            )
        # No user can be called so: a hub takes no slash in their names.
        return TokenOwner({"name": f"services/{name}"}, courses, is_service=True)

    def _courses(self, groups: list[str]) -> dict[str, str]:
        for group in groups:
            if group.startswith(tuple(PREFIXES.values())) and parse_group(group) is None:
                self._seldom.warning("the group %.300r names no usable course id", group)
        return courses_of(groups)

    # -- titles and organisations

    async def _described(self, person: TokenOwner) -> Answer:
        """With titles and organisation, which give no right and are believed for writes as well:
        somebody in hundreds of courses would keep the hub busy with each submission."""
        found = await asyncio.gather(
            *(
                self._groups.of(group_for(course_id, role))
                for course_id, role in person.courses.items()
            )
        )
        courses: dict[str, Any] = {}
        organisations: dict[int, str] = {}
        for (course_id, role), properties in zip(person.courses.items(), found, strict=True):
            if properties is None and not person.is_service:
                self._seldom.warning(
                    "the course %r is left out: the hub names its group and does not tell of it; "
                    "it has just vanished, or the role of this service has a filter",
                    course_id,
                )
                continue
            org_id = self._organisation(course_id, properties or {})
            if org_id is not None:
                organisations[org_id] = course_id
                courses[course_id] = {"role": role, "title": _text((properties or {}).get("title"))}
        if len(organisations) > 1:
            raise Forbidden(_mixed(organisations))
        return {
            **person.identity,
            "courses": courses,
            "org_id": next(iter(organisations), self.org_id),
        }

    def _organisation(self, course_id: str, properties: Mapping[str, Any]) -> int | None:
        """None where the property is no organisation: which one is meant, nobody can guess."""
        number = parse_organisation(properties.get("org_id", self.org_id))
        if number is None:
            self._seldom.warning(
                "the course %r is left out: the property org_id of its group is not a whole number "
                "from 1 to %d",
                course_id,
                LARGEST_ORGANISATION,
            )
        return number


class PendingLookups:
    """Those who want to know whose one token is."""

    answer: asyncio.Task[TokenOwner]

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.put = 0
        """How many questions were; `answer` is that to the last."""


class Crowded(Exception):
    """Another took the place of this one among those who wait."""


class Lottery:
    """A semaphore that wakes a random one of those who wait.

    First come, first served would let a flood decide who is first: with more questions waiting than
    the hub answers in time, all of them would come too late. Here each has the same chance.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[asyncio.Future[None]] = []

    async def acquire(self) -> None:
        """Raises Crowded where more wait than may."""
        if self._free:
            self._free -= 1
            return
        if len(self._waiting) >= MOST_WAITING and (drawn := self._draw()):
            drawn.set_exception(Crowded)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self.release()  # it was drawn in the same moment
            raise

    def release(self) -> None:
        if drawn := self._draw():
            drawn.set_result(None)
        else:
            self._free += 1

    def _draw(self) -> asyncio.Future[None] | None:
        """One of those who wait, if there are any. Those who gave up are left out."""
        while self._waiting:
            at = random.randrange(len(self._waiting))  # noqa: S311 (no secret)
            self._waiting[at], self._waiting[-1] = self._waiting[-1], self._waiting[at]
            drawn = self._waiting.pop()
            if not drawn.done():
                return drawn
        return None


class HubApi:
    """The hub's REST API: its answers where they make sense, and Unavailable for all else."""

    def __init__(self, api_url: str, timeout: float, seldom: ThrottledLog) -> None:
        self._url = api_url.rstrip("/")
        self._timeout = timeout
        self._seldom = seldom
        self._client: AsyncHTTPClient | None = None

    async def whoami(self, token: str) -> Mapping[str, Any]:
        """The owner of a token. Raises Unauthenticated where there is none."""
        status, model = await self.get("user", token)
        if status == 404:
            raise self.away("it has no /user; is the address that of its REST API?")
        if status != 200:
            raise Unauthenticated(UNKNOWN)
        return model

    async def get(self, path: str, token: str) -> tuple[int, Mapping[str, Any]]:
        """200 and an object, or 401, 403 or 404 from the hub itself."""
        response = await self._fetch(path, token)
        if response.code == 200:
            return 200, self._object(response.body)
        # Whatever stands where the hub should be may say these as well.
        if response.code in (401, 403, 404) and "X-JupyterHub-Version" in response.headers:
            return response.code, {}
        raise self.away(f"its answer is {response.code}, which a hub does not say")

    async def _fetch(self, path: str, token: str) -> HTTPResponse:
        if self._client is None:  # not before: the loop of the service has to run
            self._client = AsyncHTTPClient(
                force_instance=True, max_clients=AT_A_TIME, max_body_size=LARGEST_ANSWER
            )
        asking = self._client.fetch(
            f"{self._url}/{path}",
            headers={"Authorization": f"token {token}", "Accept": "application/json"},
            raise_error=False,
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=self._timeout,
            request_timeout=self._timeout,
        )
        try:
            return await _undisturbed(asking)
        except Exception as error:  # noqa: BLE001 (it has many names for what it cannot read)
            raise self.away(f"{type(error).__name__}: {error}") from None

    def _object(self, body: bytes) -> Mapping[str, Any]:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self.away("its answer is no JSON object; is the address that of its REST API?")
        return said

    def away(self, reason: str) -> Unavailable:
        """What to raise; the reason is for the operator."""
        self._seldom.warning("the hub at %s is of no help: %.300s", self._url, reason)
        return Unavailable(AWAY)


class GroupProperties:
    """The properties of the hub's groups, as far as the service may read them."""

    def __init__(
        self, hub: HubApi, token: str, cache_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._hub = hub
        self._token = token
        self._kept: ExpiringCache[Mapping[str, Any]] = ExpiringCache(cache_seconds, clock)
        self._asking: dict[str, asyncio.Task[Mapping[str, Any] | None]] = {}
        self._clock = clock
        self._has_read = False
        self._refused: float | None = None

    async def of(self, group: str) -> Mapping[str, Any] | None:
        """Empty where the service may not read them; None where there is no such group."""
        if not self._token or self._was_refused():
            return {}
        kept = self._kept.get(group)
        if kept is not None:
            return kept
        # Everybody in a course wants the same, and a hub takes long to tell of a large group.
        asking = self._asking.get(group)
        if asking is None:
            asking = self._asking[group] = asyncio.create_task(self._ask(group))
            asking.add_done_callback(lambda _: self._asking.pop(group))
        return await _undisturbed(asking)

    async def _ask(self, group: str) -> Mapping[str, Any] | None:
        asked = self._clock()
        status, model = await self._hub.get(f"groups/{quote(group, safe='')}", self._token)
        if status == 404:
            return None
        properties = model.get("properties")
        if not isinstance(properties, dict):
            return self._without()
        self._has_read = True
        self._kept.keep(group, properties, asked)
        return properties

    def _was_refused(self) -> bool:
        return self._refused is not None and self._clock() - self._refused < LONGEST_CACHE

    def _without(self) -> Mapping[str, Any]:
        if self._has_read:
            # To go on without would put people into another organisation.
            raise self._hub.away("it no longer lets this service read the properties of groups")
        if self._refused is None:
            log.warning(
                "the hub does not let this service read the properties of groups, so courses have "
                "no titles and are all in one organisation; a role with the scope read:groups for "
                "the service changes that"
            )
        self._refused = self._clock()
        return {}


async def _undisturbed(asking: asyncio.Future[T]) -> T:
    """Its result. Who no longer waits for it does not break it off: others may wait, and Tornado
    logs an error when the end of a request finds nobody."""
    asking.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(asking)


class ExpiringCache(Generic[T]):
    """What was answered lately. The oldest is forgotten first."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: dict[str, tuple[float, T]] = {}

    def get(self, key: str) -> T | None:
        asked, answer = self._answers.get(key, (None, None))
        if asked is None or self._clock() - asked >= self._seconds:
            return None
        return answer

    def last(self, key: str) -> T | None:
        """However old it is."""
        return self._answers.get(key, (None, None))[1]

    def keep(self, key: str, answer: T, asked: float) -> None:
        """`asked` is when the question was put: what was true later is not in the answer."""
        self.drop(key)
        self._answers[key] = (asked, answer)
        if len(self._answers) > MOST_KEPT:
            del self._answers[next(iter(self._answers))]

    def drop(self, key: str) -> None:
        self._answers.pop(key, None)


class ThrottledLog:
    """Log lines for the operator, each at most once a minute, whoever runs into it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def warning(self, text: str, *args: object) -> None:
        line = text % args
        if self._clock() - self._said.get(line, -math.inf) < MINUTE:
            return
        if len(self._said) >= MOST_KEPT:
            self._said.clear()
        self._said[line] = self._clock()
        log.warning("%s", line)


def _mixed(organisations: Mapping[int, str]) -> str:
    listed = ", ".join(f"{course_id} in {org_id}" for org_id, course_id in organisations.items())
    return (
        f"your courses are in more than one organisation ({listed}), and the exchange never mixes "
        "them: whoever runs the hub has to give all your groups the same org_id"
    )


def _user_info(model: Mapping[str, Any]) -> dict[str, str | None]:
    """What a hub from version 6 on was told about somebody at login; it may hold anything."""
    said = model.get("user_info")
    info = said if isinstance(said, dict) else {}
    return {
        "full_name": _text(info.get("full_name")) or _text(info.get("name")),
        "email": _text(info.get("email")),
        "lms_user_id": _text(info.get("lms_user_id")),
    }


def _text(value: object) -> str | None:
    """None for what is not text, which must not keep a person out."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)


def _is_address(text: str) -> bool:
    """Of a hub; without a password, because it is logged."""
    try:
        address = urlsplit(text)
    except ValueError:
        return False
    return address.scheme in ("http", "https") and bool(address.hostname) and not address.username


def _is_list_of_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_course_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        is_name(course_id) and role in PREFIXES for course_id, role in value.items()
    )


def _list_in_environment(name: str) -> list[str]:
    try:
        said = json.loads(os.environ.get(name) or "[]")
    except ValueError:
        said = None
    if not _is_list_of_text(said):
        raise Misconfigured(f"${name} is no JSON list of scopes")
    return said
