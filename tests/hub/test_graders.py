"""Servers below a real hub: their environment, and the servers that instructors share.

Courses come by launch, or are known in jupyterhub_config.py.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from nbexchange.hub.naming import grader_for
from tests.support.hub import PAUSE, Hub
from tests.support.launches import hub_with_launches
from tests.support.lms import Browser, lms
from tests.support.parts import PATIENCE
from tests.support.process import wait_until

pytestmark = pytest.mark.slow

STATIC = """
from nbexchange.hub import configure

# What the operator has, which has to stay.
c.JupyterHub.load_groups = {{"formgrade-physics": ["ada"], "formgrade-math": {{"users": ["tom"]}}}}
c.JupyterHub.load_groups["nbgrader-physics"] = {{"users": ["zoe"]}}
c.JupyterHub.load_roles = [{{"name": "user", "scopes": ["self", "read:hub"]}}]
c.Authenticator.allow_all = True
c.Spawner.environment = {{"COLOUR": "blue"}}

configure(c, {url!r}, api_token="the-token-of-the-service-0123456789", graders=["physics", "math"])
"""


@dataclass
class Campus:
    """Ada teaches a course, Zoë learns there, Tom teaches another one."""

    hub: Hub
    course_id: str
    browsers: dict[str, requests.Session]

    @property
    def grader(self) -> str:
        return grader_for(self.course_id)


@pytest.fixture(scope="module", params=[6, 5], ids=["hub-6", "hub-5"])
def version(request):
    return request.param


@pytest.fixture(scope="module", params=["launched", "configured"])
def campus(request, version, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    with lms.Platform() as platform:
        make = launched if request.param == "launched" else configured
        yield from make(folder, platform, version)


def launched(folder, platform, version):
    ada, zoe, tom = (lms.Person(name, name) for name in ("ada", "zoe", "tom"))
    psychology = lms.Course("1", "Ψυχολογία {}", "Psychology", {"ada": "instructor"})
    other = lms.Course("2", "Other", "Other", {"tom": "instructor"})
    with hub_with_launches(folder, platform, version=version) as hub:
        browsers = {}
        for who, where in ((ada, psychology), (zoe, psychology), (tom, other)):
            browser = Browser(platform)
            assert browser.launch("1.3", who, where).status_code == 302
            browsers[who.id] = browser.session
        (group,) = hub.do("GET", "/users/ada")["groups"]
        yield Campus(hub, group.removeprefix("formgrade-"), browsers)


def configured(folder, platform, version):
    config = STATIC.format(url=platform.url)
    repository = Path(__file__).parents[2]
    with Hub(folder, config, version=version, env={"PYTHONPATH": str(repository)}) as hub:
        browsers = {name: hub.browser(name) for name in ("ada", "zoe", "tom")}
        yield Campus(hub, "physics", browsers)


def ask(browser, url, **options):
    said = browser.get(url, timeout=PATIENCE, **options)
    said.encoding = "utf-8"
    return said


def open_server(browser, server):
    """Open a page as a browser does, and confirm that the server may learn the user's identity."""
    # A page that every server has. Access is checked before the page is looked up.
    said = ask(browser, f"{server}/files/")
    if "/oauth2/authorize" in said.url and said.status_code == 200:
        found = re.findall(r'<input[^>]*?name="([^"]+)"[^>]*?value="([^"]*)"', said.text)
        fields = [(html.unescape(name), html.unescape(value)) for name, value in found]
        browser.post(said.url, fields, headers={"Referer": said.url}, timeout=PATIENCE)
    return ask(browser, f"{server}/api/kernelspecs", headers={"Referer": quote(server, safe=":/")})


def test_only_an_instructor_starts_and_opens_the_shared_server(campus):
    hub, grader = campus.hub, campus.grader
    start = f"{hub.url}/hub/spawn/{grader}"
    address = f"{hub.url}/user/{grader}"

    for stranger in ("zoe", "tom"):
        assert ask(campus.browsers[stranger], start).status_code in (403, 404)
    assert not (hub._server(grader) or {}).get("started")

    assert ask(campus.browsers["ada"], start).status_code == 200
    wait_until(lambda: hub._is_ready(grader), "the shared server", pause=PAUSE)

    opened = open_server(campus.browsers["ada"], address)
    assert opened.status_code == 200, opened.text
    assert "kernelspecs" in opened.json()
    for stranger in ("zoe", "tom"):
        assert open_server(campus.browsers[stranger], address).status_code in (403, 404)

    environment = hub.environment(grader)
    assert json.loads(environment["NBEXCHANGE_COURSES"]) == {campus.course_id: "Instructor"}
    assert json.loads(environment["NBEXCHANGE_GRADERS"]) == {}
    hub.stop_server(grader)


def test_a_server_gets_the_address_of_the_exchange_and_the_courses(campus):
    hub = campus.hub
    hub.spawn("ada")

    environment = hub.environment("ada")
    whose = hub.do("GET", "/user", token=environment["JUPYTERHUB_API_TOKEN"])
    assert environment["NBEXCHANGE_URL"] == f"{hub.url}/services/nbexchange/"
    assert json.loads(environment["NBEXCHANGE_COURSES"]) == {campus.course_id: "Instructor"}
    assert "access:services!service=nbexchange" in whose["scopes"]
    assert "access:servers!server=ada/" in whose["scopes"]
    assert "users:activity!user=ada" in whose["scopes"]
    shared = json.loads(environment["NBEXCHANGE_GRADERS"])[campus.course_id]
    assert ask(campus.browsers["ada"], hub.url + shared).status_code == 424
    hub.stop_server("ada")


def test_the_account_is_still_shared_when_the_hub_was_started_again(campus):
    hub = campus.hub
    hub.stop()
    hub.start()

    address = f"{hub.url}/hub/user/{campus.grader}/"
    said = {name: ask(browser, address).status_code for name, browser in campus.browsers.items()}
    assert said == {"ada": 424, "zoe": 404, "tom": 404}


def test_a_user_cannot_log_in_as_the_shared_account(campus):
    if campus.course_id != "physics":
        return  # launches: test_launch.py
    with pytest.raises(AssertionError, match="Nobody can log in as grader-physics"):
        campus.hub.browser("grader-physics")


def test_the_administrators_configuration_stays(campus):
    if campus.course_id != "physics":
        return
    hub = campus.hub
    assert set(hub.do("GET", "/groups/formgrade-math")["users"]) == {"tom", "grader-math"}
    own = hub.do("GET", "/user", token=hub.token("tom", ["inherit"]))["scopes"]
    assert {"read:hub", "access:services!service=nbexchange", "servers!user=tom"} <= set(own)
    hub.spawn("tom")
    assert hub.environment("tom")["COLOUR"] == "blue"
    hub.stop_server("tom")
