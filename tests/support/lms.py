"""The pretend learning platform of examples/hub-local, and a browser that launches from it."""

from __future__ import annotations

import html
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

from tests.support.hub import Hub
from tests.support.parts import PATIENCE


def _load() -> ModuleType:
    file = Path(__file__).parents[2] / "examples" / "hub-local" / "lms.py"
    spec = importlib.util.spec_from_file_location("lms", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lms"] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


lms = _load()

PEOPLE = {person.id: person for person in lms.PEOPLE}
COURSES = {course.id: course for course in lms.COURSES}


def course_id_in(hub: Hub, group: str, part: str) -> str:
    """The id of the course whose group begins with `group` and has `part` in its title."""
    groups = hub.do("GET", "/groups")
    found = [
        one["name"].removeprefix(group)
        for one in groups
        if one["name"].startswith(group) and part in one["properties"].get("title", "")
    ]
    assert len(found) == 1, groups
    return found[0]


class Browser:
    """The cookies of one person's browser, who launches from the platform into the hub."""

    def __init__(self, platform: Any) -> None:
        self.platform = platform
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.session.get(url, timeout=PATIENCE, **options)

    def post(self, url: str, fields: dict[str, str]) -> requests.Response:
        """Where the hub sends the browser next is not followed."""
        return self.session.post(url, fields, allow_redirects=False, timeout=PATIENCE)

    def launch(
        self, version: str, person: Any, course: Any, to: str = "", **changes: Any
    ) -> requests.Response:
        """The hub's answer to a launch, which `changes` may have made another one."""
        if version == "1.1":
            form = self.platform.form_of_11(person, course, to, **changes)
            return self.post(self.platform.launch_url_of_11, form)
        return self.answer_of_13(self.begin_13(person, course, to), person, course, **changes)

    def begin_13(self, person: Any, course: Any, to: str = "") -> dict[str, str]:
        """The hub asks the platform: what it asks."""
        url = self.platform.login_of_13(person, course, to)
        said = self.get(url, allow_redirects=False)
        assert said.status_code == 302, said.text
        return {
            key: values[0]
            for key, values in parse_qs(urlsplit(said.headers["Location"]).query).items()
        }

    def answer_of_13(
        self,
        asked: dict[str, str],
        person: Any,
        course: Any,
        *,
        token: str | None = None,
        key: Any = None,
        algorithm: str = "RS256",
        **changes: Any,
    ) -> requests.Response:
        if token is None:
            claims = self.platform.claims_of_13(
                person, course, **{"nonce": asked["nonce"], **changes}
            )
            token = self.platform.id_token(claims, key=key, algorithm=algorithm)
        return self.post(asked["redirect_uri"], {"id_token": token, "state": asked["state"]})

    def press(self, form: str) -> requests.Response:
        """A button of the platform's page, and every form on the way that sends itself."""
        page = self.get(f"{self.platform.url}/").text
        found = re.search(rf'<form action="/launch" id="{form}">(.*?)<button', page)
        assert found, form
        said = self.session.get(
            f"{self.platform.url}/launch", params=_inputs(found[1]), timeout=PATIENCE
        )
        while sending := re.search(
            r'<form id="launch" method="post" action="([^"]*)">(.*?)</form>', said.text
        ):
            said = self.post(html.unescape(sending[1]), _inputs(sending[2]))
        return said


def _inputs(text: str) -> dict[str, str]:
    found = re.findall(r'name="([^"]*)" value="([^"]*)"', text)
    return {html.unescape(name): html.unescape(value) for name, value in found}


def words(response: requests.Response) -> str:
    """What a person reads on a page of the hub."""
    body = response.text.partition("<body")[2] or response.text
    body = re.sub(r"<(script|style|nav).*?</\1>", " ", body, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
