"""Several courses of one person in nbgrader's own pages, as the hub's word makes them.

Ada teaches physics and "Übung & (b)" and is a student of latin; alice studies physics and latin;
grader-physics is the account that physics' instructors share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import pytest
from nbgrader.api import Gradebook
from nbgrader.server_extensions.formgrader.base import BaseHandler
from nbgrader.server_extensions.formgrader.handlers import default_handlers

from tests.jupyter.story import some_text
from tests.support.archives import NOTEBOOK, tar_gz, upload_headers
from tests.support.jupyter import Jupyter
from tests.support.nbgrader import Home, Zygote, write_notebook
from tests.support.service import Service

pytestmark = pytest.mark.slow

ODD = "Übung & (b)"
ROLES = {
    "ada": {"physics": "Instructor", ODD: "Instructor", "latin": "Student"},
    "alice": {"physics": "Student", "latin": "Student"},
    "grader-physics": {"physics": "Instructor"},
}
HOSTILE = dict.fromkeys(
    ("..", "../out", "/tmp/out", "a/b", ".jupyter", "", 'x";alert(1);"', "<img src=x>"),
    "Instructor",
)
"""Groups that a hub may have, but that cannot be courses."""

SETTLED = ("physics", ODD)
"""The courses that ada teaches from the beginning; some tests open more."""

BIO = {"path": "courses/bio"}

SHARED = {"physics": "/user/grader-physics/formgrader", "latin": "javascript:alert(1)"}


@dataclass
class School:
    service: Service
    ada: Jupyter
    alice: Jupyter
    grader: Jupyter

    def enrol(self, name: str, **more: str) -> None:
        self.service.enrol(name, {**ROLES[name], **more})

    def released(self, course_id: str) -> list[str]:
        """As the service says it."""
        wire = self.service.instructor(course_id, "witness")
        said = wire.get("assignments", course_id=course_id).json()["value"]
        return [one["assignment_id"] for one in said if one["status"] == "released"]


@pytest.fixture(scope="module")
def school(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, zygote: Zygote
) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("school")
    (folder / "data").mkdir()
    (folder / "data" / empty_database.name).write_bytes(empty_database.read_bytes())
    with Service(folder / "data") as service:
        servers = []
        for name, roles in ROLES.items():
            home = Home(folder / name, service.url, service.enrol(name, roles), zygote, None)
            home.env["NBEXCHANGE_COURSES"] = json.dumps({**HOSTILE, **roles})
            servers.append(Jupyter(home, lab=name == "alice"))
        ada, alice, grader = servers
        ada.home.env["NBEXCHANGE_GRADERS"] = json.dumps(SHARED)
        alice.home.env["NBEXCHANGE_COURSES"] = json.dumps(ROLES["alice"])
        grader.home.env["NBEXCHANGE_COURSE_ID"] = "physics"
        unusable = dict.fromkeys(("blocked", "broken", "y2026"), "Instructor")
        told = {**HOSTILE, **ROLES["ada"], **unusable}
        ada.home.env["NBEXCHANGE_COURSES"] = json.dumps(told)
        mine = course(ada, ODD)
        mine.mkdir(parents=True)
        course(ada, "blocked").write_text("my notes")
        course(ada, "broken").mkdir()
        course(ada, "y2026").mkdir()
        (course(ada, "y2026") / "nbgrader_config.py").write_text(
            "c.CourseDirectory.course_id = 'y2025'"
        )
        (course(ada, "broken") / "nbgrader_config.py").write_text("c.CourseDirectory.course_id = 3")
        (mine / "nbgrader_config.py").write_text(f"c.CourseDirectory.course_id = {ODD!r} # mine")
        for server in servers:
            server.start()
        try:
            for course_id in ("physics", "latin"):
                release(service, course_id, "quiz")
            yield School(service, ada, alice, grader)
        finally:
            for server in servers:
                server.stop()


def release(service: Service, course_id: str, assignment_id: str) -> None:
    body = tar_gz(**{course_id: NOTEBOOK})
    names = {"course_id": course_id, "assignment_id": assignment_id}
    wire = service.instructor(course_id, "witness")
    answer = wire.post("assignment", body, upload_headers(body), **names)
    assert answer.status_code == 201, answer.text


def course(server: Jupyter, course_id: str) -> Path:
    return server.home.work / "courses" / course_id


def draft(server: Jupyter, course_id: str, name: str) -> None:
    """An assignment that is ready to be released."""
    for step in ("source", "release"):
        write_notebook(course(server, course_id) / step / name / "p1.ipynb", cells=[some_text()])


def formgrader(course_id: str) -> str:
    """Where the formgrader of a course is."""
    return f"/nbexchange/{quote(course_id, safe='')}/formgrader"


def shown_course(page: str) -> dict[str, str]:
    """The course that a page of formgrader shows."""
    return dict(re.findall(r'var (\w+) = "(.*?)";', page))


# -- students


def test_the_list_has_all_courses_of_a_person_also_of_one_who_teaches(school: School):
    assert school.alice.get("/courses")["value"] == ["latin", "physics"]
    assert school.ada.get("/courses")["value"] == ["latin", "physics"]


def test_assignments_of_two_courses_with_one_name_do_not_meet(school: School):
    alice = school.alice
    for course_id in ("physics", "latin"):
        names = {"course_id": course_id, "assignment_id": "quiz"}
        (fetched,) = alice.post("/assignments/fetch", **names)["value"]
        _, submitted = alice.post("/assignments/submit", **names)["value"]

        assert fetched["path"] == f"{course_id}/quiz"
        (notebook,) = fetched["notebooks"]
        assert notebook["path"] == f"{course_id}/quiz/{course_id}.ipynb"
        assert len(submitted["submissions"]) == 1

    assert [path.name for path in (alice.home.work / "latin/quiz").iterdir()] == ["latin.ipynb"]


def test_a_folder_that_is_renamed_can_be_fetched_again(school: School):
    """A student's requests in the notebook page to start over."""
    names = {"course_id": "latin", "assignment_id": "verbs"}
    release(school.service, "latin", "verbs")
    school.alice.post("/assignments/fetch", **names)
    folder = school.alice.home.work / "latin"
    (folder / "verbs" / "latin.ipynb").write_text("my work")

    (folder / "verbs").rename(folder / "verbs of monday")
    listed = school.alice.get("/assignments", course_id="latin")["value"]
    school.alice.post("/assignments/fetch", **names)

    assert [one["status"] for one in listed if one["assignment_id"] == "verbs"] == ["released"]
    assert (folder / "verbs of monday" / "latin.ipynb").read_text() == "my work"
    assert (folder / "verbs" / "latin.ipynb").read_bytes() == NOTEBOOK


def test_a_student_does_not_see_the_instructors_pages(school: School):
    page = school.alice.ask("GET", "/lab").text

    (config,) = re.findall(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert json.loads(config)["disabledExtensions"] == [
        "@jupyter/nbgrader:formgrader",
        "@jupyter/nbgrader:create-assignment",
        "@jupyter/nbgrader:course-list",
    ]
    assert school.alice.get("/formgraders")["value"] == []
    assert not (school.alice.home.work / "courses").exists()


# -- instructors


PAGES = [
    "manage_assignments",
    "manage_submissions/exercise",
    "gradebook",
    "gradebook/exercise",
    "gradebook/exercise/p1",
    "submissions/{submission}/",
    "manage_students",
    "manage_students/zoe",
    "manage_students/zoe/exercise",
]
WITHOUT = {"FormgraderHandler", "SubmissionNavigationHandler", "SubmissionFilesHandler"}
"""They answer with a redirect or a file."""


def graded(server: Jupyter, course_id: str) -> str:
    """zoe's `exercise`, as autograde leaves it; the id of her notebook."""
    folder = course(server, course_id)
    server.get(f"{formgrader(course_id)}/api/students")  # makes the gradebook
    write_notebook(folder / "autograded/zoe/exercise/p1.ipynb", cells=[some_text()])
    with Gradebook(f"sqlite:///{folder}/gradebook.db", course_id) as gradebook:
        gradebook.update_or_create_student("zoe")
        gradebook.update_or_create_assignment("exercise")
        gradebook.update_or_create_notebook("p1", "exercise")
        gradebook.update_or_create_submission("exercise", "zoe")
        found: str = gradebook.find_submission_notebook("p1", "exercise", "zoe").id
    return found


@pytest.mark.filterwarnings("ignore:Object of type <Submitted")  # nbgrader's own
@pytest.mark.parametrize("course_id", ["physics", ODD])
def test_each_page_of_formgrader_names_its_course(school: School, course_id: str):
    submission = graded(school.ada, course_id)

    shown = {
        page: school.ada.ask("GET", f"{formgrader(course_id)}/{page.format(submission=submission)}")
        for page in PAGES
    }

    named = {page: re.findall(r'id="course-name">(.*?)<', one.text) for page, one in shown.items()}
    assert named == {page: [escape(course_id)] for page in PAGES}


def test_the_pages_above_are_all_that_formgrader_has():
    handlers = [
        handler
        for _, handler, *_ in default_handlers
        if issubclass(handler, BaseHandler) and handler.__name__ not in WITHOUT
    ]

    assert len(handlers) == len(PAGES)


def test_each_course_that_is_taught_has_a_folder_and_no_other_name_has(school: School):
    work = school.ada.home.work

    assert {path.name for path in (work / "courses").iterdir()} >= {"physics", ODD}
    assert {path.name for path in work.iterdir()} <= {"courses", "latin"}
    assert not (work.parent / "out").exists()
    assert not (school.ada.home.home / ".jupyter" / "source").exists()


def test_what_is_in_such_a_folder_is_never_changed(school: School):
    config = course(school.ada, ODD) / "nbgrader_config.py"

    school.ada.ask("GET", "/formgrader", {"path": f"courses/{ODD}"})

    assert config.read_text() == f"c.CourseDirectory.course_id = {ODD!r} # mine"


def test_course_list_leads_to_each_course_and_to_shared_accounts(school: School):
    listed = school.ada.get("/formgraders")["value"]

    assert [one for one in listed if one["course_id"] in SETTLED] == [
        {"course_id": "physics", "url": formgrader("physics"), "kind": "your server"},
        {"course_id": "physics", "url": SHARED["physics"], "kind": "shared"},
        {"course_id": ODD, "url": formgrader(ODD), "kind": "your server"},
    ]


@pytest.mark.parametrize("course_id", ["physics", ODD])
def test_formgrader_opens_the_folder_of_a_course(school: School, course_id: str):
    """The request of "Formgrader (local)", and of a link from an LMS."""
    page = school.ada.ask("GET", "/formgrader", {"path": f"courses/{course_id}"})
    absolute = school.ada.ask("GET", "/formgrader", {"path": str(course(school.ada, course_id))})

    assert page.status_code == 200
    assert page.url.endswith(f"{formgrader(course_id)}/manage_assignments")
    assert absolute.url == page.url
    said = shown_course(page.text)
    assert said["base_url"] == formgrader(course_id).removesuffix("/formgrader")
    assert said["url_prefix"] == f"courses/{course_id}"
    assert 'id="warning-exchange"' not in page.text
    assert 'id="warning-course-id"' not in page.text
    style = school.ada.ask("GET", f"{formgrader(course_id)}/static/css/nbgrader.css")
    assert style.status_code == 200


def test_formgraders_links_lead_to_files_of_this_server(school: School):
    script = school.ada.ask("GET", f"{formgrader('physics')}/static/js/utils.js")

    assert script.headers["Content-Type"].startswith("text/javascript")
    assert re.findall(r'(?:notebook|file|directory): "(/.*?)"', script.text) == ["/lab/tree/"] * 3
    assert "var linkTo" in script.text


def test_a_button_acts_on_the_course_of_its_page_whatever_was_opened_since(school: School):
    """Both courses have an assignment of this name."""
    for course_id in ("physics", ODD):
        draft(school.ada, course_id, "exam")
        school.ada.ask("GET", "/formgrader", {"path": f"courses/{course_id}"})

    released = school.ada.post(f"{formgrader('physics')}/api/assignment/exam/release")

    assert released["success"], released
    assert "exam" in school.released("physics")
    assert school.released(ODD) == []
    statuses = {
        course_id: school.ada.get(f"{formgrader(course_id)}/api/assignment/exam")["status"]
        for course_id in ("physics", ODD)
    }
    assert statuses == {"physics": "released", ODD: "draft"}


def test_each_course_has_a_gradebook_of_its_own(school: School):
    student = {"first_name": "Yves", "last_name": "Y", "email": None}
    answer = school.ada.ask("PUT", f"{formgrader('physics')}/api/student/yves", body=student)
    names = {
        course_id: [one["id"] for one in school.ada.get(f"{formgrader(course_id)}/api/students")]
        for course_id in ("physics", ODD)
    }

    assert answer.status_code == 200, answer.text
    assert "yves" in names["physics"]
    assert "yves" not in names[ODD]
    for course_id in ("physics", ODD):
        assert (course(school.ada, course_id) / "gradebook.db").is_file()


def test_collecting_brings_submissions_into_the_folder_of_their_course(school: School):
    names = {"course_id": "physics", "assignment_id": "lab 1"}
    draft(school.ada, "physics", "lab 1")
    assert school.ada.post(f"{formgrader('physics')}/api/assignment/lab 1/release")["success"]
    for action in ("fetch", "submit"):
        assert school.alice.post(f"/assignments/{action}", **names)["success"]

    collected = school.ada.post(f"{formgrader('physics')}/api/assignment/lab 1/collect")

    assert collected["success"], collected
    assert (course(school.ada, "physics") / "submitted/alice/lab 1/p1.ipynb").is_file()


def test_another_configuration_does_not_change_what_a_course_is(school: School):
    """A user's own configuration, for a course from before there was a hub."""
    home = school.ada.home
    home.configure("c.CourseDirectory.course_id = 'old'\nc.CourseDirectory.root = '/nowhere'")
    here = home.work / "nbgrader_config.py"
    here.write_text("c.CourseDirectory.course_id = 'older'\nc.CourseDirectory.root = '/nowhere'")
    try:
        draft(school.ada, "physics", "mock exam")
        page = school.ada.ask("GET", f"{formgrader('physics')}/manage_assignments").text
        released = school.ada.post(f"{formgrader('physics')}/api/assignment/mock exam/release")
    finally:
        home.configure()
        here.unlink()

    assert shown_course(page)["url_prefix"] == "courses/physics"
    assert released["success"], released
    assert "mock exam" in school.released("physics")


def test_the_command_line_in_the_folder_is_about_its_course(school: School):
    draft(school.ada, "physics", "cli")
    home, folder = school.ada.home, course(school.ada, "physics")

    ran = home.nbgrader("release_assignment", "cli", cwd=folder)
    listed = home.nbgrader("list", cwd=folder)

    assert ran.status == 0, ran.output
    assert "cli" in school.released("physics")
    assert "physics cli" in listed.output
    assert "latin" not in listed.output


def test_formgrader_asks_which_of_several_courses(school: School):
    page = school.ada.ask("GET", "/formgrader")

    assert page.status_code == 200
    links = re.findall(r'<a href="(.*?)">(.*?)</a>', page.text)
    assert links[:2] == [
        (formgrader("physics"), "physics"),
        (formgrader(ODD), "Übung &amp; (b)"),
    ]


def test_formgrader_asks_also_where_the_server_knows_only_one_course(school: School):
    """A link from an LMS may be about a course that came after the server's start."""
    page = school.grader.ask("GET", "/formgrader")

    assert page.url.endswith("/formgrader")
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', page.text) == [
        (formgrader("physics"), "physics")
    ]
    assert "stop your server and start it again" in page.text
    assert {path.name for path in school.grader.home.work.iterdir()} == {"courses"}


def test_a_course_that_came_after_the_server_started_is_opened_too(school: School):
    school.enrol("ada", bio="Instructor")

    with ThreadPoolExecutor(2) as clicks:
        asked = [clicks.submit(school.ada.ask, "GET", "/formgrader", BIO) for _ in range(2)]
    pages = [one.result() for one in asked]

    for page in pages:
        assert page.url.endswith(f"{formgrader('bio')}/manage_assignments")
        assert 'id="warning-exchange"' not in page.text
    listed = [one["course_id"] for one in school.ada.get("/formgraders")["value"]]
    assert listed.count("bio") == 1
    assert "'bio'" in (course(school.ada, "bio") / "nbgrader_config.py").read_text()


def test_a_course_that_is_over_is_opened_as_long_as_its_folder_is_there(school: School):
    over = course(school.ada, "physics of last year")
    over.mkdir()
    (over / "nbgrader_config.py").write_text(f"c.CourseDirectory.course_id = {over.name!r}")

    page = school.ada.ask("GET", "/formgrader", {"path": f"courses/{over.name}"})

    (over / "nbgrader_config.py").unlink()
    over.rmdir()
    assert page.status_code == 200
    assert page.url.endswith(f"{formgrader(over.name)}/manage_assignments")
    assert 'id="warning-exchange"' in page.text


def test_a_course_of_others_is_refused_with_the_reason_and_gets_no_folder(school: School):
    page = school.grader.ask("GET", "/formgrader", {"path": "courses/latin"})

    assert page.status_code == 404
    assert "latin" in page.text
    assert not course(school.grader, "latin").exists()


@pytest.mark.parametrize("path", ["courses/..", "courses/.x", "courses/../../x", "/tmp/courses/x"])
def test_no_path_makes_a_folder_elsewhere(school: School, path: str):
    before = {one.name for one in school.grader.home.folder.iterdir()}
    school.service.enrol("grader-physics", dict.fromkeys(("physics", ".x", "x"), "Instructor"))

    school.grader.ask("GET", "/formgrader", {"path": path})

    assert {one.name for one in school.grader.home.folder.iterdir()} == before
    assert [one.name for one in (school.grader.home.work / "courses").iterdir()] == ["physics"]
    assert not Path("/tmp/courses").exists()


def test_another_folder_is_opened_as_nbgrader_opens_it(school: School):
    """Also one that is called like a course."""
    (school.grader.home.work / "elsewhere" / "physics").mkdir(parents=True)

    page = school.grader.ask("GET", "/formgrader", {"path": "elsewhere/physics"})

    (school.grader.home.work / "elsewhere" / "physics").rmdir()
    (school.grader.home.work / "elsewhere").rmdir()
    assert page.url.endswith("/formgrader/manage_assignments")
    assert shown_course(page.text)["base_url"] == ""
    assert shown_course(page.text)["url_prefix"] == "elsewhere/physics"


@pytest.mark.parametrize(
    ("course_id", "reason"),
    [
        pytest.param("blocked", "courses/blocked", id="no folder"),
        pytest.param("broken", "configuration in", id="wrong configuration"),
        pytest.param("y2026", "is for the course &#x27;y2025&#x27;", id="copied of another year"),
    ],
)
def test_a_course_that_cannot_be_opened_stops_no_other(school: School, course_id, reason):
    school.enrol("ada", **{course_id: "Instructor"})

    opened = school.ada.ask("GET", "/formgrader", {"path": f"courses/{course_id}"})

    assert opened.status_code in (404, 500)
    assert reason in opened.text
    assert course_id not in [one["course_id"] for one in school.ada.get("/formgraders")["value"]]
    assert f"The course '{course_id}' cannot be opened." in school.ada.log.read_text()
