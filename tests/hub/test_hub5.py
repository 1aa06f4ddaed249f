"""A whole course on JupyterHub 5.5, asked as nbgrader's pages ask, without a browser.

What test_browser.py shows on version 6, on the same example. Launches, cookies, tokens against
forgery and the hub's proxy are the real ones.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.hub import PAUSE
from tests.support.hub_local import EXAMPLE, HubLocal
from tests.support.lms import Browser, words
from tests.support.parts import PATIENCE
from tests.support.process import wait_until

pytestmark = pytest.mark.slow


class Server:
    """Somebody's JupyterLab behind the hub, which they have launched into."""

    def __init__(self, campus: HubLocal, name: str, button: str) -> None:
        self._browser = Browser(SimpleNamespace(url=campus.platform_url))
        launched = self._browser.press(button)
        assert launched.status_code == 302, launched.text
        self.url = f"{campus.url}/user/{name}"
        self._browser.get(f"{campus.url}/hub/user-redirect/lab")

    def wait(self) -> Server:
        wait_until(self._is_there, "a JupyterLab", pause=PAUSE)
        return self

    def _is_there(self) -> bool:
        # Until then the hub answers, in its own name.
        return self.ask("GET", "/lab").url.startswith(self.url)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> requests.Response:
        token = self._token()
        return self._browser.session.request(
            method,
            f"{self.url}{path}",
            params=query,
            json=body,
            # JupyterLab's pages send the one, formgrader the other.
            headers={"X-XSRFToken": token, "X-CSRFToken": token},
            timeout=PATIENCE,
        )

    def _token(self) -> str:
        """Against forgery: that of this server, and not the hub's."""
        ours = urlsplit(self.url).path + "/"
        cookies = self._browser.session.cookies
        return next(
            (str(one.value) for one in cookies if (one.name, one.path) == ("_xsrf", ours)), ""
        )

    def say(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        answer = self.ask(method, path, body, **query)
        assert answer.ok, f"{method} {path}: {answer.status_code} {words(answer)}"
        said = answer.json() if answer.text else None
        assert not isinstance(said, dict) or said.get("success", True), said
        return said

    def save(self, path: str, notebook: Any) -> None:
        body = {"type": "notebook", "format": "json", "content": notebook}
        self.say("PUT", f"/api/contents/{path}", body)

    def page_config(self) -> Any:
        page = self.ask("GET", "/lab").text
        start = page.index(">", page.index('id="jupyter-config-data"')) + 1
        return json.loads(page[start : page.index("</script>", start)])


@pytest.fixture
def campus(tmp_path: Path) -> Any:
    with HubLocal(tmp_path / "data", version=5) as running:
        yield running


def test_a_course_from_the_launch_to_the_feedback(campus: HubLocal):
    launched = (
        Server(campus, "ada", "launch-ada-17-11-jupyterlab"),
        Server(campus, "zoe", "launch-zoe-17-13-jupyterlab"),
    )
    ada, zoe = (one.wait() for one in launched)
    version = ada.ask("GET", "/api/status").headers["X-JupyterHub-Version"]
    assert version.startswith("5.")

    # The instructor writes an assignment and releases it.
    (address,) = re.findall(r'<a href="(.*?)">', ada.ask("GET", "/formgrader").text)
    formgrader = address.removeprefix("/user/ada")
    course = formgrader.split("/")[2]
    assert course.startswith("phys101-")
    api = f"{formgrader}/api"
    no_date = {"duedate_notimezone": None, "duedate_timezone": None}
    ada.say("PUT", f"{api}/assignment/ps1", no_date)
    sums = json.loads((EXAMPLE / "sums.ipynb").read_text())
    ada.save(f"courses/{course}/source/ps1/sums.ipynb", sums)
    ada.say("POST", f"{api}/assignment/ps1/assign")
    ada.say("POST", f"{api}/assignment/ps1/release")

    # A student fetches it, works on it and submits; formgrader is not shown to students.
    assert "@jupyter/nbgrader:formgrader" in zoe.page_config()["disabledExtensions"]
    assert "@jupyter/nbgrader:course-list" in zoe.page_config()["disabledExtensions"]
    assert "@jupyter/nbgrader:course-list" not in ada.page_config()["disabledExtensions"]
    assert zoe.say("GET", "/courses")["value"] == [course]
    names = {"course_id": course, "assignment_id": "ps1"}
    (fetched,) = zoe.say("POST", "/assignments/fetch", names)["value"]
    path = fetched["notebooks"][0]["path"]
    notebook = zoe.say("GET", f"/api/contents/{path}")["content"]
    notebook["cells"][1]["source"] = "def add(a, b): return a + b"
    zoe.save(path, notebook)
    zoe.say("POST", "/assignments/submit", names)

    # The instructor collects and grades, and gives feedback.
    ada.say("POST", f"{api}/assignment/ps1/collect")
    ada.say("POST", f"{api}/submission/ps1/zoe/autograde")
    ada.say("POST", f"{api}/assignment/ps1/generate_feedback")
    ada.say("POST", f"{api}/assignment/ps1/release_feedback")
    (graded,) = ada.say("GET", f"{api}/submissions/ps1")
    assert (graded["student"], graded["score"], graded["max_score"]) == ("zoe", 2, 2)

    # The student reads it.
    listed = zoe.say("POST", "/assignments/fetch_feedback", names)["value"]
    (submission,) = next(one["submissions"] for one in listed if one["status"] == "submitted")
    feedback = f"{submission['local_feedback_path']}/sums.html"
    read = zoe.say("GET", f"/api/contents/{feedback}", format="base64")
    assert "Score: 2.0 / 2.0" in base64.b64decode(read["content"]).decode()
