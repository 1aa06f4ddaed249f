"""People as JupyterHub knows them: the hub says whose a token is and which groups they are in.

`formgrade-{course_id}` makes its members instructors of the course, `nbgrader-{course_id}`
students. Nothing else gives a right. Administrators of the hub have no special rights here.

* A token counts only if it was made to be shown to this service: one of its scopes is an access
  scope. Every other valid token has the person's name and groups as well, and is in the hands of
  other services and of other people's servers.
* A write believes only an answer to a question that was asked after the write arrived. A read
  believes an answer for at most `cache_seconds`; the title and the organisation of a course too.
* The hub answers one after the other. So one token has one question open at a time, one person
  few, and so have all tokens together that have not been valid yet. Those wait for a lottery, in
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
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, Never, TypeGuard
from urllib.parse import urlsplit

from tornado.web import RequestHandler
from traitlets import Dict, Float, List, TraitError, Unicode, default
from traitlets.config import Configurable

from nbexchange import timeouts
from nbexchange.errors import (
    Forbidden,
    Misconfigured,
    TooManyRequests,
    Unauthenticated,
)
from nbexchange.handlers.auth.hub_api import (
    LONGEST_LINE,
    OF_A_HUB,
    TOKEN,
    UNKNOWN,
    GroupProperties,
    HubApi,
    ThrottledLog,
)
from nbexchange.handlers.auth.lookups import (
    CROWDED,
    LONGEST_CACHE,
    Crowded,
    ExpiringCache,
    Lottery,
    PendingLookups,
    TokenOwner,
    undisturbed,
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

STRANGERS = 5
"""Of these, about tokens that were not good when they came last: anybody can make up tokens."""

ODD_STRANGERS = 1
"""Of these, about tokens that do not look like a hub's: those of services, set by hand."""

OWN = 2
"""Of these, about the tokens of one person; one person can have many."""

UNKNOWN_SECONDS = 3
"""How long a token stays unknown once the hub said so: a client that asks on and on with it would
keep the hub busy."""

ANY_SERVICE: Final = "access:services"

_ACCESS_SCOPE = re.compile(r"access:services(!service=[^!\s]+)?")


class SecretText(Unicode[str, str]):
    """Text that is not quoted when it is none."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> Never:
        raise TraitError(f"{self.name} has to be text")


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
        help="How long the hub's answer is believed for a read; a write asks each time.",
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
        # Without a scope to check, every token of a person would be accepted, also a stolen one.
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
        if not TOKEN.fullmatch(token):
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
            return await undisturbed(line.answer)

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
        return self._strangers if OF_A_HUB.fullmatch(token) else self._odd_strangers

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
            raise self._hub.away("its answer does not list the groups of the token's owner")
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
        a person in hundreds of courses would keep the hub busy with each submission."""
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
                    "the course %r is left out: the hub names its group but does not describe it; "
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
        """None where the property is not an organisation: the right one cannot be guessed."""
        number = parse_organisation(properties.get("org_id", self.org_id))
        if number is None:
            self._seldom.warning(
                "the course %r is left out: the property org_id of its group is not a whole number "
                "from 1 to %d",
                course_id,
                LARGEST_ORGANISATION,
            )
        return number


def _mixed(organisations: Mapping[int, str]) -> str:
    listed = ", ".join(f"{course_id} in {org_id}" for org_id, course_id in organisations.items())
    return (
        f"your courses are in more than one organisation ({listed}), and the exchange never mixes "
        "them: whoever runs the hub has to give all your groups the same org_id"
    )


def _user_info(model: Mapping[str, Any]) -> dict[str, str | None]:
    """What the authenticator of a hub from version 6 on stored at login; it may hold anything."""
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
