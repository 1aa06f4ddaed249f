"""An exchange that does not answer, and two Jupyter servers whose people go on clicking.

The service is stopped by SIGSTOP: its port takes connections, and nothing comes back.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import requests

from nbexchange.plugin.shown import WIDTH
from tests.jupyter.story import some_text
from tests.support.archives import NOTEBOOK, tar_gz, upload_headers
from tests.support.jupyter import Jupyter
from tests.support.nbgrader import Home, Zygote, write_notebook
from tests.support.process import ServiceProcess, wait_until

pytestmark = pytest.mark.slow

PATIENT = "c.Exchange.api_timeout = 300.0"
"""Requests wait for longer than any test does."""


@dataclass
class Click:
    """A request and its answer."""

    answer: requests.Response
    seconds: float

    @property
    def json(self) -> Any:
        return self.answer.json()


@dataclass
class School:
    """ada teaches physics; ben studies it."""

    service: ServiceProcess
    ada: Jupyter
    ben: Jupyter

    @contextmanager
    def stopped(self) -> Iterator[None]:
        os.kill(self.service.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.service.pid, signal.SIGCONT)

    def release(self, *assignment_ids: str) -> None:
        body = tar_gz(p1=NOTEBOOK)
        for assignment_id in assignment_ids:
            answer = self.service.wire("token-1-ada").post(
                "assignment",
                body,
                upload_headers(body),
                course_id="physics",
                assignment_id=assignment_id,
            )
            assert answer.status_code == 201, answer.text

    def draft(self, *names: str) -> None:
        """Assignments that are ready to be released, each with a notebook of its name."""
        for name in names:
            for step in ("source", "release"):
                path = self.ada.home.work / step / name / f"{name}.ipynb"
                write_notebook(path, cells=[some_text()])

    def notebooks(self, assignment_id: str) -> list[str]:
        """Of a release, as the service lists it."""
        listed = self.service.wire("token-1-ada").get("assignments", course_id="physics").json()
        return [
            notebook["notebook_id"]
            for one in listed["value"]
            if (one["assignment_id"], one["status"]) == (assignment_id, "released")
            for notebook in one["notebooks"]
        ]

    def submissions(self, assignment_id: str) -> int:
        names = {"course_id": "physics", "assignment_id": assignment_id}
        listed = self.service.wire("token-1-ada").get("collections", **names)
        return len(listed.json()["value"])


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("school")
    (folder / "data").mkdir()
    with ServiceProcess(folder / "data") as service:
        roles = {"ada": "Instructor", "ben": "Student"}
        homes = {
            name: Home(
                folder / name,
                service.url,
                service.enrol(name, {"physics": role}),
                zygote,
                "physics",
                PATIENT,
            )
            for name, role in roles.items()
        }
        with Jupyter(homes["ada"], hurried=True) as ada, Jupyter(homes["ben"], hurried=True) as ben:
            yield School(service, ada, ben)


def click(server: Jupyter, method: str, path: str, **said: str) -> Click:
    started = time.monotonic()
    body = said if method == "POST" else None
    answer = server.ask(method, path, None if body else said, body)
    return Click(answer, time.monotonic() - started)


def named(assignment_id: str) -> dict[str, str]:
    return {"course_id": "physics", "assignment_id": assignment_id}


FORMGRADER = "/formgrader/api/assignment"


@dataclass
class Clicks:
    """The events while the exchange was stopped, and just after."""

    of_ben: dict[str, Click] = field(default_factory=dict)
    of_ada: dict[str, Click] = field(default_factory=dict)
    second: Any = None  # ben's second click on Submit
    idle: list[float] = field(default_factory=list)  # seconds of GET api/status before
    status: list[float] = field(default_factory=list)  # and meanwhile
    folders: set[Path] = field(default_factory=set)

    @property
    def all(self) -> dict[str, Click]:
        return {**self.of_ben, **self.of_ada}


@pytest.fixture(scope="module")
def clicks(school: School) -> Clicks:
    school.release("lab", "essay")
    school.draft("exam", "quiz")
    assert school.ben.post("/assignments/fetch", **named("lab"))["success"]
    students = "/formgrader/api/students"  # makes the gradebook
    wait_until(lambda: school.ada.ask("GET", students).status_code == 200, "the gradebook")
    seen = Clicks()
    for server in 50 * (school.ada, school.ben):
        seen.idle.append(click(server, "GET", "/api/status").seconds)
    asked: dict[str, dict[str, tuple[Any, ...]]] = {
        "of_ben": {
            "list": (school.ben, "GET", "/assignments"),
            "courses": (school.ben, "GET", "/courses"),
            "submit": (school.ben, "POST", "/assignments/submit"),
            "fetch": (school.ben, "POST", "/assignments/fetch"),
        },
        "of_ada": {
            "page": (school.ada, "GET", "/formgrader/manage_assignments"),
            "assignments": (school.ada, "GET", "/formgrader/api/assignments"),
            "students": (school.ada, "GET", "/formgrader/api/students"),
            "collect": (school.ada, "POST", f"{FORMGRADER}/lab/collect"),
            "release exam": (school.ada, "POST", f"{FORMGRADER}/exam/release"),
            "release quiz": (school.ada, "POST", f"{FORMGRADER}/quiz/release"),
        },
    }
    said = {
        "list": {"course_id": "physics"},
        "submit": named("lab"),
        "fetch": named("essay"),
    }
    with ThreadPoolExecutor(12) as people, school.stopped():
        pending: dict[tuple[str, str], Future[Click]] = {
            (who, name): people.submit(click, *request, **said.get(name, {}))
            for who, requests_ in asked.items()
            for name, request in requests_.items()
        }
        while not all(future.done() for future in pending.values()):
            for server in (school.ada, school.ben):
                seen.status.append(click(server, "GET", "/api/status").seconds)
                seen.folders.add(server.directory)
        for (who, name), future in pending.items():
            getattr(seen, who)[name] = future.result()
        second = people.submit(click, school.ben, "POST", "/assignments/submit", **named("lab"))
        os.kill(school.service.pid, signal.SIGCONT)
        seen.second = second.result().json
    wait_until(lambda: school.notebooks("quiz"), "the release of quiz")
    return seen


def test_other_requests_of_the_server_do_not_wait(clicks: Clicks):
    """Before, each waited for as long as the longest click."""
    longest = max(one.seconds for one in clicks.all.values())

    assert max(clicks.status) < longest / 10
    assert late_ones(clicks.status) < 100 * median(clicks.idle)


def late_ones(seconds: list[float]) -> float:
    """How long those waited that waited longest, but for one in a hundred: the machine's own
    pauses are among these."""
    return quantiles(seconds, n=100)[-1]


def test_each_click_is_answered_though_the_exchange_is_not(clicks: Clicks):
    """After 10 seconds; the exchange is waited for for five minutes."""
    assert max(one.seconds for one in clicks.all.values()) < 20


@pytest.mark.parametrize("name", ["list", "courses", "submit", "fetch"])
def test_a_student_gets_one_sentence(clicks: Clicks, name: str):
    answer = clicks.of_ben[name]

    assert answer.answer.status_code == 200
    assert not answer.json["success"]
    assert "Click the refresh button in a minute" in " ".join(answer.json["value"].split())
    assert "Traceback" not in answer.json["value"]


@pytest.mark.parametrize("name", ["collect", "release exam", "release quiz"])
def test_formgraders_dialog_shows_one_sentence(clicks: Clicks, name: str):
    """Its scripts parse the answer themselves: as application/json it would not appear."""
    answer = clicks.of_ada[name].answer

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    said = answer.json()
    assert (said["success"], said["error"]) == (False, "")
    sentence = r"\w+ takes long and continues\. Reload this page in a minute\."
    assert re.fullmatch(sentence, " ".join(said["log"].split()))
    assert all(len(line) <= WIDTH for line in said["log"].splitlines())


def test_formgraders_pages_that_need_the_exchange_say_so(clicks: Clicks):
    for name in ("page", "assignments"):
        answer = clicks.of_ada[name].answer
        assert answer.status_code == 504
        assert "takes long and continues" in answer.text


def test_a_page_that_needs_only_the_gradebook_does_not_wait(clicks: Clicks):
    assert clicks.of_ada["students"].json == []
    assert clicks.of_ada["students"].seconds < clicks.of_ada["page"].seconds / 2


def test_a_second_click_joins_the_first_and_says_so(school: School, clicks: Clicks):
    assert clicks.second["success"], clicks.second
    (submitted,) = [one for one in clicks.second["value"] if one["status"] == "submitted"]
    submission, note = submitted["submissions"]
    assert submission["timestamp"].endswith(" UTC")
    assert "If you have changed files since, submit again." in note["timestamp"]
    assert school.submissions("lab") == 1


def test_clicks_that_were_answered_early_are_done_each_with_its_own_assignment(
    school: School, clicks: Clicks
):
    """nbgrader's formgrader has one place for the assignment, which calls at a time would share."""
    assert school.notebooks("exam") == ["exam"]
    assert school.notebooks("quiz") == ["quiz"]
    assert wait_until((school.ben.home.work / "essay" / "p1.ipynb").is_file, "what was fetched")


def test_the_folder_of_the_process_stays(school: School, clicks: Clicks):
    assert clicks.folders == {school.ada.home.work, school.ben.home.work}


def test_nothing_is_written_to_a_request_that_was_answered(school: School, clicks: Clicks):
    for server in (school.ada, school.ben):
        assert "finish()" not in server.log.read_text()
        assert "never retrieved" not in server.log.read_text()


def test_the_log_in_the_dialog_holds_only_lines_of_its_own_click(school: School):
    """Other requests write to the log of the same server meanwhile."""
    school.release("poster")
    path = f"{FORMGRADER}/poster/collect"
    with ThreadPoolExecutor(2) as people, school.stopped():
        collect = people.submit(click, school.ada, "POST", path)
        courses = people.submit(click, school.ada, "GET", "/courses")
        school.ada.ask("GET", "/formgrader/nowhere")  # a line in the log
        os.kill(school.service.pid, signal.SIGCONT)

        assert courses.result().json["success"]
        log = collect.result().json["log"]
    assert log == "[WARNING] No submissions of 'poster' for course 'physics' to collect\n"


def test_a_failure_that_came_too_late_is_in_the_next_list(school: School, clicks: Clicks):
    school.release("late")
    with ThreadPoolExecutor(1) as people, school.stopped():
        fetch = people.submit(click, school.ben, "POST", "/assignments/fetch", **named("late"))
        assert not fetch.result().json["success"]
        # In its way: the fetch refuses to overwrite it.
        (school.ben.home.work / "late").write_text("my notes")
    said = wait_until(lambda: failure_in(school.ben), "the failure in the list")
    (school.ben.home.work / "late").unlink()

    assert said.startswith("late could not be fetched. ")
    assert school.ben.get("/assignments", course_id="physics")["success"]


def failure_in(server: Jupyter) -> str:
    said = server.get("/assignments", course_id="physics")
    return "" if said["success"] else said["value"]


def waits_during(server: Jupyter, work: Callable[[], Click]) -> tuple[Click, list[float]]:
    """The click, and how long each other request waited meanwhile."""
    waits = []
    with ThreadPoolExecutor(1) as person:
        pending = person.submit(work)
        while not pending.done():
            waits.append(click(server, "GET", "/api/status").seconds)
        return pending.result(), waits


def test_a_large_submission_stops_no_other_request(school: School, clicks: Clicks):
    """Of an exchange that is well: it was packed and sent in the event loop."""
    school.release("large")
    assert school.ben.post("/assignments/fetch", **named("large"))["success"]
    (school.ben.home.work / "large" / "data.bin").write_bytes(os.urandom(60_000_000))

    submitted, waits = waits_during(
        school.ben, lambda: click(school.ben, "POST", "/assignments/submit", **named("large"))
    )

    wait_until(lambda: school.submissions("large") == 1, "the submission")
    assert max(waits) < submitted.seconds / 3


def test_collecting_many_submissions_stops_no_other_request(school: School, clicks: Clicks):
    school.release("many")
    body = tar_gz(p1=NOTEBOOK)
    for number in range(60):
        wire = school.service.student(name=f"student-{number}")
        wire.post("submission", body, upload_headers(body), **named("many"))

    collected, waits = waits_during(
        school.ada, lambda: click(school.ada, "POST", f"{FORMGRADER}/many/collect")
    )

    assert collected.json["success"], collected.json
    assert len(list(school.ada.home.work.glob("submitted/*/many/p1.ipynb"))) == 60
    assert max(waits) < collected.seconds / 3


def test_sigterm_ends_a_server_whose_jobs_still_wait(school: School, zygote: Zygote):
    """`Jupyter.stop` waits for less long than a request to the exchange does."""
    home = Home(
        school.ada.home.folder.parent / "eve", school.service.url, "token-1-ada", zygote, "physics"
    )
    home.configure(PATIENT)
    with ThreadPoolExecutor(1) as people, school.stopped():
        server = Jupyter(home, hurried=True)
        server.start()
        collect = people.submit(click, server, "POST", f"{FORMGRADER}/lab/collect")
        assert not collect.result().json["success"]

        server.stop()
