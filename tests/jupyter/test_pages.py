"""Cases that golden/ does not show: many courses, many drafts, other folders, a failing service.

One service and two Jupyter servers serve all tests; each test has a course of its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nbexchange.plugin.shown import WIDTH
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
        """A course of all users, and their only one, with these assignments released."""
        self.courses(course_id)
        self.release(course_id, *assignment_ids)

    def release(self, course_id: str, *assignment_ids: str, **more: bytes) -> None:
        """Each with a notebook p1, and these."""
        ada = self.service.wire("token-1-ada")
        body = tar_gz(p1=NOTEBOOK, **more)
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
        """The names and states that alice's page shows."""
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
    """These lines in a user's configuration, which nbgrader's pages read each time."""
    server.home.configure("\n".join(lines))
    try:
        yield
    finally:
        server.home.configure()


@contextmanager
def asking(server: Jupyter, url: str, *lines: str) -> Iterator[None]:
    """A user's pages use another service, and forget it again."""
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


def test_a_course_without_releases_is_an_empty_list(room: Room):
    room.courses("maths", "latin")
    room.release("maths", "ps3")

    assert room.assignments("latin") == []
    assert room.alice.get("/courses")["value"] == ["maths"]


def test_a_course_of_others_is_refused_in_the_words_of_the_service(room: Room):
    room.course("secret", "ps1")
    room.courses("maths")

    answer = room.alice.get("/assignments", course_id="secret")

    assert not answer["success"]
    assert answer["value"].startswith("There is no course 'secret' that you belong to")


def test_a_fetched_assignment_that_is_taken_back_is_no_longer_shown(room: Room):
    room.course("history", "sources")
    (fetched,) = of(button(room.alice, "fetch", "history", "sources"), "sources")
    names = {"course_id": "history", "assignment_id": "sources"}
    room.service.wire("token-1-ada").delete("assignment", **names)

    assert fetched["status"] == "fetched"
    assert room.assignments("history") == []
    assert (room.alice.home.work / "sources" / "p1.ipynb").exists()


def button(server: Jupyter, action: str, course_id: str, assignment_id: str) -> Any:
    """The content of the page after a click."""
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


def notes(answer: Any, assignment_id: str) -> list[str]:
    """The lines of text below the submissions of an assignment."""
    (submitted,) = [one for one in of(answer, assignment_id) if one["status"] == "submitted"]
    return [one["timestamp"] for one in submitted["submissions"] if one["status"] == "note"]


def test_a_list_asks_the_exchange_once(room: Room):
    room.course("latin", "verbs")
    with middleman(room.service.url) as between, asking(room.alice, between.url):
        room.alice.get("/assignments", course_id="latin")

        assert len(between.requests("GET assignments")) == 1


def test_a_list_after_a_submission_is_asked_for_after_it(room: Room):
    """Not the one that submit itself needs, which is older."""
    room.course("latin", "nouns")
    button(room.alice, "fetch", "latin", "nouns")

    _, submitted = of(button(room.alice, "submit", "latin", "nouns"), "nouns")

    assert len(submitted["submissions"]) == 1


def test_warnings_about_a_submission_are_below_it_until_the_next_refresh(room: Room):
    room.course("latin", "poems")
    button(room.alice, "fetch", "latin", "poems")
    folder = room.alice.home.work / "poems"
    shutil.copy(folder / "p1.ipynb", folder / "my.ipynb")

    submitted = button(room.alice, "submit", "latin", "poems")
    refreshed = room.alice.get("/assignments", course_id="latin")

    (note,) = notes(submitted, "poems")
    assert note.startswith("Possible missing notebooks and/or extra notebooks submitted")
    assert note.endswith("Submitted: my.ipynb: EXTRA; p1.ipynb: OK")  # line breaks do not show
    assert notes(refreshed, "poems") == []


def test_files_that_are_left_out_are_named_below_the_submission(room: Room):
    room.course("latin", "verses")
    button(room.alice, "fetch", "latin", "verses")
    os.mkfifo(room.alice.home.work / "verses/stream")

    submitted = button(room.alice, "submit", "latin", "verses")

    (note,) = notes(submitted, "verses")
    assert note.startswith("A file or folder cannot be sent, so it is left out:")
    assert "'stream': it is a named pipe. If it is needed, " in note


def test_a_newer_release_and_a_copy_that_is_not_kept_are_told_below_the_submission(room: Room):
    room.course("greek", "odes")
    button(room.alice, "fetch", "greek", "odes")
    room.release("greek", "odes", solution=NOTEBOOK)
    cache = room.alice.home.cache
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "greek").write_text("in the way")

    submitted = button(room.alice, "submit", "greek", "odes")

    said = "\n".join(notes(submitted, "odes"))
    assert "There is a newer release of odes than yours: version 2" in said
    assert "Your work is submitted, but no copy of it is kept here: " in said


def test_a_submission_whose_list_fails_is_not_shown_as_failed(room: Room):
    """The page would say "Assignment not submitted"."""
    room.course("latin", "prose")
    button(room.alice, "fetch", "latin", "prose")
    with middleman(room.service.url) as between, asking(room.alice, between.url):
        between.next("GET assignments", lambda handler, seen: handler.send(handler.forward(seen)))
        between.always("GET assignments", say(Answer.refusal(500, "No list today.")))
        submitted = button(room.alice, "submit", "latin", "prose")

    assert submitted["success"], submitted
    (note,) = notes(submitted, "prose")
    assert note == "prose is submitted, but the list cannot be shown: No list today."


def test_fetched_work_lies_below_the_folder_that_jupyterlab_shows(
    room: Room, tmp_path: Path, zygote: Zygote
):
    """Below a hub with `Spawner.notebook_dir` the server is started in another one."""
    room.course("latin", "letters")
    home = Home(tmp_path / "alice", room.service.url, "token-1-alice", zygote, course_id=None)
    root = home.work / "notebooks"
    root.mkdir()
    with Jupyter(home, root=root) as server:
        (fetched,) = of(button(server, "fetch", "latin", "letters"), "letters")
        (notebook,) = fetched["notebooks"]
        opened = server.ask("GET", f"/api/contents/{notebook['path']}")
        submitted = button(server, "submit", "latin", "letters")

    assert notebook["path"] == "letters/p1.ipynb"
    assert opened.status_code == 200
    assert (root / "letters" / "p1.ipynb").is_file()
    assert submitted["success"]


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


def test_formgrader_asks_once_for_the_list_of_twenty_drafts(room: Room, drafts: list[str]):
    """nbgrader asks twice, and once more for each of them."""
    with middleman(room.service.url) as between, asking(room.teacher, between.url):
        listed = room.teacher.get("/formgrader/api/assignments")

        assert len(between.requests("GET assignments")) == 1

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
    """No server listens there."""
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
    """A user's pages use a failing service; afterwards they use the real one again."""
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
    assert answer["error"] == ""
    assert re.match(r"(?s)[A-Z].*\.", answer["log"])
    assert fits(answer["log"].partition("\n\n")[0])
    assert "[CRITICAL]" not in answer["log"]


def fits(text: str) -> bool:
    """Whether a dialog on a phone shows all of it; addresses and paths may be longer."""
    return all(len(line) <= WIDTH or " " not in line for line in text.splitlines())


def test_a_students_pages_show_a_sentence_and_go_on(room: Room, trouble: Trouble):
    with trouble(room.alice):
        answers = [
            room.alice.get("/courses"),
            room.alice.get("/assignments", course_id=COURSE),
            button(room.alice, "fetch", COURSE, "quiz"),
        ]
        submitted = button(room.alice, "submit", COURSE, "quiz")

    for answer in (*answers, submitted):
        assert not answer["success"]
        assert re.match(r"[A-Z]", answer["value"])
        assert "Traceback" not in answer["value"]
    assert fits(submitted["value"])
    for answer in answers[:2]:
        assert re.fullmatch(r"[A-Z].*\.\)?", answer["value"])
    assert room.alice.directory == room.alice.home.work
    assert ("quiz", "released") in room.assignments(COURSE)


def test_the_log_of_the_server_says_what_the_trouble_was(room: Room, trouble: Trouble):
    before = len(room.alice.log.read_text())

    with trouble(room.alice):
        room.alice.get("/assignments", course_id=COURSE)

    news = room.alice.log.read_text()[before:]
    (sentence,) = [line for line in news.splitlines() if line.startswith("[C ")]
    assert re.search(r"ServerApp\] [A-Z].*\.", sentence)
    assert "Traceback" not in news
    assert "token-1-alice" not in news
