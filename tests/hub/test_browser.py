"""docs/tutorial.md in a real browser: a course from the first click to the feedback.

The hub, the exchange and the LMS are those of examples/hub-local, as they come up by
one command. Each test has people of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.browser import AssignmentList, Chromium, Formgrader, Lab, Person
from tests.support.hub_local import EXAMPLE, HubLocal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubLocal]:
    with HubLocal(tmp_path_factory.mktemp("hub") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def chromium(campus: HubLocal) -> Iterator[Chromium]:
    with Chromium("hub-local") as browser:
        print(f"Pictures of what people see: {browser.pictures}")
        yield browser


def launch(person: Person, campus: HubLocal, button: str) -> None:
    """Press a button of the platform. Where it leads comes up while others do the same."""
    person.page.goto(campus.platform_url)
    person.page.get_by_role("button", name=button, exact=True).click(no_wait_after=True)


def test_a_course_from_the_first_click_to_the_feedback(campus: HubLocal, chromium: Chromium):
    with chromium.watched():
        ada, zoe = chromium.person("ada"), chromium.person("zoe")
        launch(ada, campus, "JupyterLab of Physics I as Ada Lovelace by LTI 1.3")
        launch(zoe, campus, "JupyterLab of Physics I as Zoë Müller-Ångström by LTI 1.1")

        # The instructor writes an assignment and releases it.
        hers = Lab(ada)
        assert ada.page.url.startswith(f"{campus.url}/user/ada/lab")
        # Not Formgrader, whose frame JupyterHub keeps empty.
        assert hers.menu_items() == ["Assignment List", "Course List", "Create assignment"]
        formgrader = hers.formgrader_of("phys101-")
        formgrader.add("ps1")
        (course,) = (campus.data / "homes" / "ada" / "courses").iterdir()
        hers.open_folder("courses", course.name, "source", "ps1")
        hers.upload(EXAMPLE / "sums.ipynb")
        formgrader.press("assign", "ps1")
        formgrader.press("release", "ps1")
        formgrader.row("ps1").get_by_text("released").wait_for()

        # A student fetches it, works on it and submits.
        lab = Lab(zoe)
        assert zoe.page.url.startswith(f"{campus.url}/user/zoe/lab")
        assert lab.menu_items() == ["Assignment List"]
        assignments = AssignmentList(lab)
        assignments.wait_for("released", "ps1")
        assignments.press("Fetch", "released", "ps1")
        assignments.wait_for("fetched", "ps1")
        assignments.open_notebook("ps1", "sums")
        seen = lab.answer(
            "Write a function", "def add(a, b): return a + b", below="assert add(1, 2) == 3"
        )
        assert "HIDDEN" not in seen
        lab.choose("Assignment List")
        assignments.press("Submit", "fetched", "ps1")
        assignments.wait_for("submitted", "ps1")

        # The instructor collects and grades, and gives feedback.
        assert "Collecting" in formgrader.press("collect", "ps1")
        formgrader.submissions_of("ps1")
        formgrader.press("autograde", "zoe")
        row = formgrader.row("zoe")
        row.get_by_text("graded", exact=True).wait_for()
        assert row.locator(".student-name").inner_text() == "Müller-Ångström, Zoë"
        assert row.locator(".score").inner_text() == "2 / 2"
        formgrader.assignments()
        formgrader.press("generate-feedback", "ps1")
        formgrader.press("release-feedback", "ps1")

        # The student reads it.
        assignments.refresh()
        assignments.wait_for_text("(feedback available to fetch)")
        assignments.press("Fetch Feedback", "submitted", "ps1")
        assignments.wait_for_text("(view feedback)")
        feedback = assignments.read_feedback("sums.html")
        assert "Score: 2.0 / 2.0" in feedback
        assert "return a + b" in feedback


def test_a_link_of_the_platform_leads_to_formgrader(campus: HubLocal, chromium: Chromium):
    """By either version of LTI, and of the same account. This link names no course."""
    with chromium.watched():
        tom = chromium.person("tom")
        courses = []
        for version in ("1.1", "1.3"):
            launch(tom, campus, f"Formgrader of Physics I as Tom Kibble by LTI {version}")
            tom.page.get_by_role("link", name=re.compile("^phys101-")).click()
            Formgrader(tom, tom.page)
            tom.look(tom.page, f"by-{version}")
            courses.append(tom.page.url)

    assert courses[0].startswith(f"{campus.url}/user/tom/nbexchange/phys101-")
    assert courses == [courses[0]] * 2


def test_the_server_that_instructors_share_is_in_the_list_of_courses(
    campus: HubLocal, chromium: Chromium
):
    with chromium.watched():
        tom = chromium.person("tom-at-the-shared-one")
        launch(tom, campus, "JupyterLab of Physics I as Tom Kibble by LTI 1.3")
        formgrader = Lab(tom).shared_formgrader_of("phys101-")
        formgrader.add("ps7")

    (shared,) = (campus.data / "homes").glob("grader-phys101-*/courses/phys101-*")
    assert (shared / "source" / "ps7").is_dir()
