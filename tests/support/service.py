"""A real service on a real port, and people who talk to it."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
from traitlets.config import Config

from nbexchange.app import NbExchange
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from tests.support import databases, places
from tests.support.parts import PATIENCE


def parts_of(data: Path) -> list[tuple[str, Any]]:
    """The options that name the database and the store of a data directory, where they are not
    in there."""
    database = [] if databases.KIND == "sqlite" else [("db_url", databases.database_of(data))]
    return [*database, *places.options(data)]


def configured(data: Path, **options: Any) -> Service:
    """A service with these options of NbExchange."""
    return Service(data, Config(NbExchange=options))


class Wire:
    """Somebody's HTTP client."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        if token is not None:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, /, headers: dict[str, str] | None = None, **params: Any):
        return self.request("GET", path, headers=headers, params=params)

    def post(
        self, path: str, /, body: Any = None, headers: dict[str, str] | None = None, **params: Any
    ):
        return self.request("POST", path, data=body, headers=headers, params=params)

    def delete(self, path: str, /, **params: Any):
        return self.request("DELETE", path, params=params)

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", PATIENCE)
        return self.session.request(method, f"{self.url}/{path}", **kwargs)


class Service:
    """The service in a thread of its own. `config` holds more options of NbExchange."""

    def __init__(self, data: Path, config: Config | None = None) -> None:
        self.data = data
        self.people = data.parent / "people.json"
        if not self.people.exists():
            self.people.write_text("{}")
        self._known: dict[str, Any] = json.loads(self.people.read_text())
        options = Config()
        options.NbExchange.user_plugin_class = TokenFileUserHandler
        options.TokenFileUserHandler.path = str(self.people)
        options.NbExchange.base_storage_location = str(data)
        options.NbExchange.ip = "127.0.0.1"
        options.NbExchange.port = 0
        for name, value in parts_of(data):
            options.NbExchange[name] = value
        options.merge(config or {})
        self.app = NbExchange(config=options)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._sessions: list[requests.Session] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    # -- life

    def __enter__(self) -> Service:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._failure:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in self._sessions:
            session.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (raised in the test's own thread)
            self._failure = error
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self.app.running() as port:
            self.port = port
            self.url = f"http://127.0.0.1:{port}{self.app.base_url.rstrip('/')}"
            self._ready.set()
            await self._stop.wait()

    # -- people

    def enrol(
        self,
        name: str,
        courses: dict[str, Any] | None = None,
        org_id: int = 1,
        token: str | None = None,
        **identity: Any,
    ) -> str:
        """Let somebody in, or change what is known of them; returns their token."""
        token = token or f"token-{org_id}-{name}"
        self._known[token] = {
            "name": name,
            "org_id": org_id,
            "courses": courses or {},
            **identity,
        }
        self._write_people()
        return token

    def expel(self, token: str) -> None:
        del self._known[token]
        self._write_people()

    def _write_people(self) -> None:
        fresh = self.people.with_suffix(".new")
        fresh.write_text(json.dumps(self._known))
        fresh.replace(self.people)

    def wire(self, token: str | None) -> Wire:
        wire = Wire(self.url, token)
        self._sessions.append(wire.session)
        return wire

    def instructor(self, course_id: str = "physics", name: str = "ada", org_id: int = 1) -> Wire:
        return self.wire(self.enrol(name, {course_id: "Instructor"}, org_id))

    def student(self, course_id: str = "physics", name: str = "bob", org_id: int = 1) -> Wire:
        return self.wire(self.enrol(name, {course_id: "Student"}, org_id))

    # -- what is on its disk

    def files(self) -> list[Path]:
        """Every file of the store, finished or not."""
        return sorted(places.files(self.data))

    def fingerprints(self) -> dict[str, str]:
        """Of each file of the store: another one where a byte has changed."""
        return places.fingerprints(self.data)

    def content(self, key: str) -> bytes:
        """What the store has under a key."""
        return places.content(self.data, key)
