"""The questions that the service asks JupyterHub, and what its answers are taken for."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from nbexchange.errors import (
    Unauthenticated,
    Unavailable,
)
from nbexchange.handlers.auth.lookups import LONGEST_CACHE, MOST_KEPT, ExpiringCache, undisturbed

log = logging.getLogger(__name__)

AT_A_TIME = 20
"""Questions that are open at the hub, which answers one after the other."""

LONGEST_LINE = 0.75
"""Of `hub_timeout`, the part after which a question is not worth putting any more."""

LARGEST_ANSWER = 2 * 1024 * 1024
"""Bytes; an answer about a group lists all its members."""

MINUTE = 60

TOKEN = re.compile(r"[!-~]{1,500}")

OF_A_HUB = re.compile(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}|[0-9a-f]{64}")
"""JupyterHub 5 and 6 make all tokens by uuid4; Zero to JupyterHub gives services 64 digits."""

UNKNOWN = (
    "JupyterHub does not know your token (any more); get a new one by stopping and starting your "
    "server in the hub's control panel, and try again"
)

AWAY = "the exchange cannot ask JupyterHub who you are for now; try again soon"


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
            return await undisturbed(asking)
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
        """Empty where the service may not read them; None where the group does not exist."""
        if not self._token or self._was_refused():
            return {}
        kept = self._kept.get(group)
        if kept is not None:
            return kept
        # All members of a course need the same answer, and a hub takes long for a large group.
        asking = self._asking.get(group)
        if asking is None:
            asking = self._asking[group] = asyncio.create_task(self._ask(group))
            asking.add_done_callback(lambda _: self._asking.pop(group))
        return await undisturbed(asking)

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


class ThrottledLog:
    """Log lines for the administrator, each at most once a minute for all requests together."""

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
