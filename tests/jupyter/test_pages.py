"""What golden/ does not show: many courses, many drafts, other folders, and a service in trouble.

One service and two Jupyter servers serve all tests; each test has a course of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.jupyter.story import some_text
from tests.plugin.middleman import Answer, Middleman, Reaction, cut, drop, hang, middleman, say
from tests.support.archives import NOTEBOOK, tar_gz, upload_headers
from tests.support.jupyter import Jupyter
from tests.support.nbgrader import Home, Zygote, write_notebook
from tests.support.service import Service

COURSE = "physics"
"""The one that is formgrader's."""

NOWHERE = "http://127.0.0.1:9/services/nbexchange"


@dataclass
class Room:
    service: Service
    teacher: Jupyter
    alice: Jupyter

    def courses(self, *course_ids: str) -> None:
        """The courses that people are in from now on."""
        self.service.enrol("ada", dict.fromkeys(course_ids, "Instructor"))
        self.service.enrol("alice", dict.fromkeys(course_ids, "Student"))

    def course(self, course_id: str, *assignment_ids: str) -> None:
        """A course that everybody is in, and alone; with these assignments released."""
        self.courses(course_id)
        self.release(course_id, *assignment_ids)

    def release(self, course_id: str, *assignment_ids: str) -> None:
        ada = self.service.wire("token-1-ada")
        body = tar_gz(p1=NOTEBOOK)
        for assignment_id in assignment_ids:
            names = {"course_id": course_id, "assignment_id": assignment_id}
            answer = ada.post("assignment", body, upload_headers(body), **names)
            assert answer.status_code == 201, answer.text

    def nothing_is_released(self) -> None:
        """In formgrader's course, whatever was there before."""
        self.courses(COURSE)
        ada = self.service.wire("token-1-ada")
        for one in ada.get("assignments", course_id=COURSE).json()["value"]:
            if one["status"] == "released":
                ada.delete("assignment", course_id=COURSE, assignment_id=one["assignment_id"])

    def assignments(self, course_id: str) -> list[tuple[str, str]]:
        """What alice's page shows: names and where they stand."""
        answer = self.alice.get("/assignments", course_id=course_id)
        assert answer["success"], answer["value"]
        return [(one["assignment_id"], one["status"]) for one in answer["value"]]


@pytest.fixture(scope="module")
def room(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, zygote: Zygote
) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("room")
    (folder / "data").mkdir()
    (folder / "data" / empty_database.name).write_bytes(empty_database.read_bytes())
    with Service(folder / "data") as service:
        ada, alice = service.enrol("ada"), service.enrol("alice")
        teachers = Home(folder / "ada", service.url, ada, zygote, COURSE)
        alices = Home(folder / "alice", service.url, alice, zygote, course_id=None)
        with Jupyter(teachers) as teacher, Jupyter(alices) as student:
            yield Room(service, teacher, student)


@contextmanager
def configured(server: Jupyter, *lines: str) -> Iterator[None]:
    """These lines in somebody's configuration, which nbgrader's pages read anew each time."""
    server.home.configure("\n".join(lines))
    try:
        yield
    finally:
        server.home.configure()


@contextmanager
def asking(server: Jupyter, url: str, *lines: str) -> Iterator[None]:
    """Somebody's pages ask another service, and forget it again."""
    try:
        with configured(server, _ask(url), *lines):
            yield
    finally:
        with configured(server, _ask(server.home.url)):
            server.get("/courses")


def _ask(url: str) -> str:
    return f"import os; os.environ['NBEXCHANGE_URL'] = {url!r}"


# -- a student in several courses


def test_a_student_sees_all_courses_and_in_each_only_what_belongs_to_it(room: Room):
    room.courses("maths", "Physik für Füße", "a & b #1 + 50%")
    room.release("maths", "ps1", "ps2")
    room.release("Physik für Füße", "Übung 1")
    room.release("a & b #1 + 50%", "ps1")

    assert room.alice.get("/courses")["value"] == ["Physik für Füße", "a & b #1 + 50%", "maths"]
    assert room.assignments("maths") == [("ps1", "released"), ("ps2", "released")]
    assert room.assignments("Physik für Füße") == [("Übung 1", "released")]
    assert room.assignments("a & b #1 + 50%") == [("ps1", "released")]


def test_a_course_without_releases_is_no_error_and_no_entry(room: Room):
    room.courses("maths", "latin")
    room.release("maths", "ps3")

    assert room.assignments("latin") == []
    assert room.alice.get("/courses")["value"] == ["maths"]


def test_a_course_of_others_looks_like_a_missing_exchange(room: Room):
    """The page knows one sentence for all troubles; what it was is in the server's log."""
    room.course("secret", "ps1")
    room.courses("maths")

    answer = room.alice.get("/assignments", course_id="secret")

    assert not answer["success"]
    assert answer["value"].startswith("The exchange directory does not exist")


def test_a_fetched_assignment_that_is_taken_back_is_no_longer_shown(room: Room):
    room.course("history", "sources")
    (fetched,) = of(button(room.alice, "fetch", "history", "sources"), "sources")
    names = {"course_id": "history", "assignment_id": "sources"}
    room.service.wire("token-1-ada").delete("assignment", **names)

    assert fetched["status"] == "fetched"
    assert room.assignments("history") == []
    assert (room.alice.home.work / "sources" / "p1.ipynb").exists()


def button(server: Jupyter, action: str, course_id: str, assignment_id: str) -> Any:
    """What the page shows after a click."""
    names = {"course_id": course_id, "assignment_id": assignment_id}
    return server.post(f"/assignments/{action}", **names)


PLACES = [
    pytest.param([], "{work}/{name}", id="beside the notebooks"),
    pytest.param(["path_includes_course = True"], "{work}/folders/{name}", id="with the course"),
    pytest.param(["assignment_dir = {elsewhere!r}"], "{elsewhere}/{name}", id="elsewhere"),
    pytest.param(
        ["assignment_dir = {elsewhere!r}", "path_includes_course = True"],
        "{elsewhere}/folders/{name}",
        id="elsewhere with the course",
    ),
    # nbgrader's page goes into the folder and then looks for it there.
    pytest.param(["assignment_dir = 'sub'"], "{work}/sub/sub/{name}", id="twice below"),
]


@pytest.mark.parametrize(("options", "place"), PLACES)
def test_fetch_submit_list_and_feedback_agree_on_the_folder(room: Room, request, options, place):
    name = f"ps-{request.node.callspec.id}"
    work = room.alice.home.work
    elsewhere = work / "elsewhere"
    for folder in (elsewhere, work / "sub"):
        folder.mkdir(exist_ok=True)
    names = {"work": str(work), "elsewhere": str(elsewhere), "name": name}
    folder = Path(place.format(**names))
    room.course("folders", name)

    with configured(room.alice, *(f"c.Exchange.{one.format(**names)}" for one in options)):
        (fetched,) = of(button(room.alice, "fetch", "folders", name), name)
        _, submitted = of(button(room.alice, "submit", "folders", name), name)
        give_feedback(room, "folders", name)
        _, with_feedback = of(button(room.alice, "fetch_feedback", "folders", name), name)

    assert fetched["status"] == "fetched"
    assert (work / fetched["path"]).resolve() == folder
    (submission,) = submitted["submissions"]
    (feedback,) = with_feedback["submissions"]
    assert feedback["has_local_feedback"]
    assert not feedback["feedback_updated"]
    there = folder / "feedback" / submission["timestamp"]
    assert (work / feedback["local_feedback_path"]).resolve() == there
    assert (there / "p1.html").read_text() == "<p>Well done</p>"


def of(answer: Any, assignment_id: str) -> list[Any]:
    assert answer["success"], answer["value"]
    return [one for one in answer["value"] if one["assignment_id"] == assignment_id]


def give_feedback(room: Room, course_id: str, assignment_id: str) -> None:
    names = {"course_id": course_id, "assignment_id": assignment_id}
    ada = room.service.wire("token-1-ada")
    (submission,) = ada.get("collections", **names).json()["value"]
    body = b"<p>Well done</p>"
    answer = ada.post(
        "feedback",
        body,
        upload_headers(body, **{"Content-Type": "text/html"}),
        **names,
        notebook="p1",
        submission_id=submission["submission_id"],
    )
    assert answer.status_code == 201, answer.text


# -- formgrader


@pytest.fixture
def drafts(room: Room) -> Iterator[list[str]]:
    """Twenty assignments that their author has not released."""
    source = room.teacher.home.work / "source"
    names = [f"draft {number:02}" for number in range(20)]
    for name in names:
        write_notebook(source / name / "p1.ipynb", cells=[some_text()])
    room.nothing_is_released()
    yield names
    for name in names:
        (source / name / "p1.ipynb").unlink()
        (source / name).rmdir()


def test_formgrader_lists_twenty_drafts_over_one_connection(room: Room, drafts: list[str]):
    """It asks for the list once more for each of them."""
    with middleman(room.service.url) as between, asking(room.teacher, between.url):
        listed = room.teacher.get("/formgrader/api/assignments")

        assert between.connections == 1

    shown = {one["name"]: one["status"] for one in listed}
    assert shown | dict.fromkeys(drafts, "draft") == shown


def test_formgrader_believes_in_an_exchange_with_nothing_in_it(room: Room):
    room.nothing_is_released()

    page = room.teacher.ask("GET", "/formgrader/manage_assignments")

    assert page.status_code == 200
    assert 'id="warning-exchange"' not in page.text


def test_formgrader_can_release_what_is_converted(room: Room):
    work = room.teacher.home.work
    write_notebook(work / "source" / "ps9" / "p1.ipynb", cells=[some_text()])
    write_notebook(work / "release" / "ps9" / "p1.ipynb", cells=[some_text()])
    room.nothing_is_released()

    released = room.teacher.post("/formgrader/api/assignment/ps9/release")
    shown = room.teacher.get("/formgrader/api/assignment/ps9")

    assert released["success"], released
    assert shown["status"] == "released"
    assert room.assignments(COURSE) == [("ps9", "released")]


def test_nbgraders_python_interface_gives_feedback_that_the_page_shows(room: Room):
    """NbGraderAPI misspells `authenticator` for both of the classes that it needs here."""
    room.course(COURSE, "essay")
    teacher, alice = room.teacher.home, room.alice.home
    button(room.alice, "fetch", COURSE, "essay")
    button(room.alice, "submit", COURSE, "essay")
    assert teacher.value("api.collect('essay')")["success"]
    feedback = teacher.work / "feedback" / "alice" / "essay"
    feedback.parent.mkdir(parents=True)
    (teacher.work / "submitted" / "alice" / "essay").rename(feedback)
    (feedback / "p1.html").write_text("<p>Well done</p>")

    released = teacher.value("api.release_feedback('essay', 'alice')")
    (before,) = room.alice.get("/assignments", course_id=COURSE)["value"][-1]["submissions"]
    alice.course_id = COURSE
    with configured(room.alice):
        fetched = alice.value("api.fetch_feedback('essay', 'alice')")
    alice.course_id = None
    alice.configure()
    (after,) = room.alice.get("/assignments", course_id=COURSE)["value"][-1]["submissions"]

    assert released["success"], released
    assert fetched["success"], fetched
    assert (before["has_exchange_feedback"], before["has_local_feedback"]) == (True, False)
    assert (after["has_exchange_feedback"], after["has_local_feedback"]) == (True, True)


# -- a service in trouble


def refuse(_trouble: Middleman) -> str:
    """Nobody listens there."""
    return NOWHERE


def react(reaction: Reaction) -> Callable[[Middleman], str]:
    def prepare(trouble: Middleman) -> str:
        for request in ("GET assignments", "GET collections", "GET assignment", "POST submission"):
            trouble.always(request, reaction)
        return trouble.url

    return prepare


TROUBLES = [
    pytest.param(refuse, id="down"),
    pytest.param(react(drop), id="hangs up"),
    pytest.param(react(hang), id="says nothing"),
    pytest.param(react(cut(4)), id="breaks off"),
    pytest.param(react(say(Answer.html())), id="a page"),
    pytest.param(react(say(Answer.html(500))), id="500"),
    pytest.param(react(say(Answer.refusal(401, "Who are you?"))), id="401"),
    pytest.param(react(say(Answer.refusal(503, "Back at noon."))), id="503"),
]
IMPATIENT = ("c.Exchange.retries = 1", "c.Exchange.api_timeout = 0.2")

Trouble = Callable[[Jupyter], Any]


@pytest.fixture(params=TROUBLES)
def trouble(room: Room, request: pytest.FixtureRequest) -> Iterator[Trouble]:
    """Somebody's pages ask a service in trouble; afterwards they ask the real one again."""
    room.course(COURSE, "quiz")
    with middleman(room.service.url) as between:
        url = request.param(between)
        yield lambda server: asking(server, url, *IMPATIENT)


FORMGRADER = (
    "/formgrader",
    "/formgrader/manage_assignments",
    "/formgrader/manage_students",
    "/formgrader/gradebook",
    "/formgrader/manage_submissions/quiz",
    "/formgrader/api/status",
    "/formgrader/api/assignments",
    "/formgrader/api/students",
    "/formgrader/api/submissions/quiz",
)


def test_every_page_of_formgrader_survives(room: Room, trouble: Trouble):
    write_notebook(room.teacher.home.work / "source" / "quiz" / "p1.ipynb", cells=[some_text()])

    with trouble(room.teacher):
        answers = {page: room.teacher.ask("GET", page) for page in FORMGRADER}

    assert {page: answer.status_code for page, answer in answers.items()} == dict.fromkeys(
        FORMGRADER, 200
    )
    assert 'id="warning-exchange"' in answers["/formgrader/manage_assignments"].text
    listed = {one["name"]: one for one in answers["/formgrader/api/assignments"].json()}
    assert listed["quiz"]["status"] == "draft"
    assert room.teacher.directory == room.teacher.home.work


@pytest.mark.parametrize("action", ["unrelease", "collect"])
def test_formgraders_buttons_say_what_the_trouble_is(room: Room, trouble: Trouble, action: str):
    with trouble(room.teacher):
        answer = room.teacher.post(f"/formgrader/api/assignment/quiz/{action}")

    assert not answer["success"]
    (sentence,) = [line for line in answer["log"].splitlines() if line.startswith("[CRITICAL] ")]
    assert answer["error"].splitlines()[-1] == (
        f"nbgrader.exchange.abc.exchange.ExchangeError: {sentence.removeprefix('[CRITICAL] ')}"
    )
    assert answer["error"].count("Traceback") == 1


def test_a_students_pages_show_nbgraders_error_and_go_on(room: Room, trouble: Trouble):
    with trouble(room.alice):
        answers = [
            room.alice.get("/courses"),
            room.alice.get("/assignments", course_id=COURSE),
            button(room.alice, "fetch", COURSE, "quiz"),
        ]
        submitted = button(room.alice, "submit", COURSE, "quiz")

    for answer in answers:
        assert not answer["success"]
        assert answer["value"].startswith("The exchange directory does not exist")
    assert not submitted["success"]
    assert submitted["value"].count("Traceback") == 1
    assert submitted["value"].splitlines()[-1].startswith("nbgrader.exchange.abc.exchange.Exch")
    assert room.alice.directory == room.alice.home.work
    assert ("quiz", "released") in room.assignments(COURSE)


def test_the_log_of_the_server_says_what_the_trouble_was(room: Room, trouble: Trouble):
    before = len(room.alice.log.read_text())

    with trouble(room.alice):
        room.alice.get("/assignments", course_id=COURSE)

    news = room.alice.log.read_text()[before:]
    (sentence,) = [line for line in news.splitlines() if line.startswith("[C ")]
    assert re.search(r"ServerApp\] [A-Z].*\.", sentence)
    assert news.count("Traceback") == 1
    assert "token-1-alice" not in news
