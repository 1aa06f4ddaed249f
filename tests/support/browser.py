"""People at a real browser, who do what JupyterLab and nbgrader's pages let them do.

What they see at each step is kept as pictures in `SCREENSHOTS`, a folder that git ignores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import sync_playwright

from tests.support.parts import PATIENCE, needs
from tests.support.process import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(os.environ.get("NBEXCHANGE_SCREENSHOTS") or ROOT / "screenshots")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Chromium:
    """A browser without a window. `folder` is where the pictures of these people go."""

    def __init__(self, folder: str) -> None:
        self.pictures = SCREENSHOTS / folder
        self._program = needs("chromium")
        self._people: list[Person] = []

    def __enter__(self) -> Chromium:
        self.pictures.mkdir(parents=True, exist_ok=True)
        for old in self.pictures.glob("*.png"):
            old.unlink()
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=self._program, args=FLAGS, timeout=PATIENCE * 1000
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._browser.close()
        finally:
            self._playwright.stop()

    def person(self, name: str) -> Person:
        """Somebody with cookies of their own."""
        context = self._browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE * 1000)
        self._people.append(Person(name, context, self))
        return self._people[-1]

    def look_at_all(self, what: str) -> None:
        """What everybody sees; for when a test is about to fail."""
        for person in self._people:
            for number, page in enumerate(person.context.pages):
                person.look(page, f"{what}-{number}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A failure leaves pictures of what everybody saw, and says where they are."""
        try:
            yield
        except BaseException as failure:
            failure.add_note(f"What people saw: {self.pictures}")
            self.look_at_all("failed")
            raise


ITEM = ".lm-Menu-itemLabel"
"""Of a menu of JupyterLab that is open."""

BESIDE = (1000, 800)
"""Where a JupyterLab that has just been opened shows nothing."""


class Person:
    def __init__(self, name: str, context: Any, browser: Chromium) -> None:
        self.name = name
        self.context = context
        self._browser = browser
        self._step = 0
        self.page = context.new_page()

    def look(self, page: Any, what: str) -> None:
        """Keep what the page shows."""
        self._step += 1
        folder = self._browser.pictures
        page.screenshot(path=folder / f"{self.name}-{self._step:02}-{what}.png")


class Lab:
    """JupyterLab in somebody's page, which is on its way there."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.page = person.page
        self.menu.wait_for()

    @property
    def menu(self) -> Any:
        return self.page.locator(".lm-MenuBar-itemLabel", has_text="Nbgrader")

    def menu_items(self) -> list[str]:
        """What the menu Nbgrader offers."""
        self.menu.click()
        self.page.locator(ITEM).first.wait_for()
        items = self.page.locator(f"{ITEM}:visible").all_inner_texts()
        self.person.look(self.page, "menu")
        # A click on a menu that is open would close it.
        wait_until(self._closes_the_menu, "a menu that is closed")
        return [item for item in items if item]

    def _closes_the_menu(self) -> bool:
        """By a click beside it. A key reaches only what has the focus, and a page that still loads
        takes that away."""
        self.page.mouse.click(*BESIDE)
        return not self.page.locator(ITEM).first.is_visible()

    def choose(self, item: str) -> None:
        self.page.bring_to_front()
        self.menu.click()
        self.page.locator(ITEM, has_text=re.compile(f"^{item}$")).click()

    def formgrader_of(self, course_id: str) -> Formgrader:
        """From the list of courses, in a tab of its own."""
        return Formgrader(self.person, self._open_course(course_id, "your server"))

    def shared_formgrader_of(self, course_id: str) -> Formgrader:
        """That of the account that the course's instructors share, which nobody has started."""
        page = self._open_course(course_id, "shared")
        page.get_by_role("button", name="Launch Server").click()
        # It is not theirs alone, so JupyterHub asks.
        page.get_by_role("button", name="Authorize").click()
        return Formgrader(self.person, page)

    def _open_course(self, course_id: str, kind: str) -> Any:
        self.choose("Course List")
        row = self.page.locator("#courses .list_item", has_text=course_id).filter(has_text=kind)
        row.wait_for()
        self.person.look(self.page, "course-list")
        with self.person.context.expect_page() as opened:
            row.get_by_role("link").click()
        return opened.value

    def open_folder(self, *names: str) -> None:
        """In the file browser, from the top."""
        self.page.bring_to_front()
        for name in names:
            self.page.locator(".jp-DirListing-item").get_by_text(name, exact=True).dblclick()
            self.page.locator(".jp-FileBrowser-crumbs", has_text=name).wait_for()

    def upload(self, file: Path) -> None:
        """Into the folder that is open."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".jp-FileBrowser [data-jp-item-name=uploader] >> nth=0").click()
        chooser.value.set_files(file)
        self.page.locator(".jp-DirListing-item", has_text=file.name).wait_for()
        self.person.look(self.page, "uploaded")

    def answer(self, question: str, code: str, below: str) -> str:
        """Write into the first code cell of the notebook and save; what code cells said before.

        `below` is in the last of them: JupyterLab shows one after the other.
        """
        notebook = self.page.locator(".jp-Notebook:visible")
        notebook.locator(".jp-RenderedMarkdown", has_text=question).wait_for()
        cells = notebook.locator(".jp-CodeCell .cm-content")
        cells.filter(has_text=below).wait_for()
        said: str = "\n".join(cells.all_inner_texts())
        cell = cells.first
        cell.fill(code)
        cells.filter(has_text=code).wait_for()
        self.person.look(self.page, "answered")
        with self.page.expect_response(is_saved):
            cell.press("ControlOrMeta+s")
        return said


def is_saved(said: Any) -> bool:
    """The server's answer to a file that was saved; JupyterLab saves its own layout as well."""
    return said.request.method == "PUT" and "/api/contents/" in said.url and said.ok


class AssignmentList:
    """nbgrader's page for students."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.page = lab.page
        lab.choose("Assignment List")

    def _row(self, state: str, assignment_id: str) -> Any:
        rows = self.page.locator(f"#{state}_assignments_list > .list_item")
        return rows.filter(has_text=assignment_id)

    def wait_for(self, state: str, assignment_id: str) -> None:
        """`state` is released, fetched or submitted."""
        self._row(state, assignment_id).wait_for()
        self.lab.person.look(self.page, state)

    def press(self, button: str, state: str, assignment_id: str) -> None:
        row = self._row(state, assignment_id)
        row.get_by_role("button", name=button, exact=True).click()

    def open_notebook(self, assignment_id: str, name: str) -> None:
        row = self._row("fetched", assignment_id)
        row.locator(".assignment-notebooks-link").click()
        row.get_by_role("link", name=name, exact=True).click()

    def refresh(self) -> None:
        self.page.bring_to_front()
        self.page.locator("#refresh_assignments_list").click()

    def wait_for_text(self, text: str) -> None:
        self.page.locator("#submitted_assignments_list", has_text=text).wait_for()
        self.lab.person.look(self.page, text.strip("()").replace(" ", "-"))

    def read_feedback(self, name: str) -> str:
        """Open the folder from the list, and the file in it: what JupyterLab shows of it."""
        self.page.get_by_text("(view feedback)").click()
        self.page.locator(".jp-DirListing-item", has_text=name).dblclick()
        body = self.page.frame_locator(".jp-HTMLViewer iframe").locator("body")
        body.get_by_text("Score:").first.wait_for()
        self.lab.person.look(self.page, "reads-feedback")
        text: str = body.inner_text()
        return text


class Formgrader:
    """nbgrader's pages for instructors, in a tab of their own."""

    def __init__(self, person: Person, page: Any) -> None:
        self.person = person
        self.page = page
        self.page.get_by_role("heading", name="Manage Assignments").wait_for()
        # The list replaces all rows when it comes, also one that was added before.
        self.page.get_by_text("Loading, please wait...").wait_for(state="detached")

    def add(self, assignment_id: str) -> None:
        self.page.get_by_role("link", name="Add new assignment...").click()
        modal = self.page.locator("#add-assignment-modal")
        modal.locator("input.name").fill(assignment_id)
        self.person.look(self.page, "add")
        # The table has it at once, and the disk later: the first one has to make the gradebook.
        with self.page.expect_response(lambda said: said.request.method == "PUT" and said.ok):
            modal.get_by_role("button", name="Save").click()
        self.row(assignment_id).locator(".assign a").wait_for()
        self.person.look(self.page, "added")

    def row(self, text: str) -> Any:
        return self.page.locator("#main-table tr", has_text=text)

    def press(self, what: str, row: str) -> str:
        """The button of a column (`what` is its class), and OK: the log that nbgrader shows."""
        self.page.bring_to_front()
        self.row(row).locator(f".{what} a").click()
        modal = self.page.locator(".modal.in")
        modal.wait_for()
        log: str = modal.inner_text()
        self.person.look(self.page, what)
        assert "Success" in log, log
        modal.get_by_role("button", name="OK").click()
        modal.wait_for(state="detached")
        return log

    def submissions_of(self, assignment_id: str) -> None:
        self.page.bring_to_front()
        self.row(assignment_id).locator(".num-submissions a").click()
        self.page.get_by_role("heading", name="Submissions").wait_for()

    def assignments(self) -> None:
        self.page.get_by_role("link", name="Manage Assignments").first.click()
        self.page.get_by_role("heading", name="Manage Assignments").wait_for()
