"""nbgrader's pages in JupyterLab, as an extension of the Jupyter server.

Installing this package enables it. If nbgrader uses this package's exchange:

* No request waits for the exchange (`assignment_list.py`, `formgraders.py`). The same addresses are
  added before nbgrader's own, because extensions are loaded in the order of their names.

If a hub provides the user's courses (`NBEXCHANGE_COURSES`):

* A user who teaches no course does not see Formgrader, Create Assignment and Course List. That is
  a convenience; the service decides about permissions. In a JupyterHub, which forbids frames, the
  menu's Formgrader is hidden for all users, because its frame would be empty.
* Each course that the user teaches has its own folder (`courses.py`) and, below
  `nbexchange/<course id>/formgrader`, its own formgrader. nbgrader has one formgrader in a server,
  for one course at a time: a button in an older tab would act on another course.
* Course List links to them, and to the accounts that instructors share (`NBEXCHANGE_GRADERS`).
  `/formgrader` itself lets the user choose. For a course that is newer than the start of the
  server, such as in a link from an LMS, it asks the service.
"""

import json
import os
import re
from collections import ChainMap
from collections.abc import Callable, MutableMapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from nbgrader.coursedir import CourseDirectory
from nbgrader.server_extensions.course_list.handlers import CourseListHandler
from nbgrader.server_extensions.formgrader import apihandlers
from nbgrader.server_extensions.formgrader.base import check_xsrf
from nbgrader.server_extensions.formgrader.formgrader import FormgradeExtension
from nbgrader.server_extensions.formgrader.handlers import (
    FormgraderHandler,
    default_handlers,
    static_path,
)
from tornado import web

from nbexchange.plugin import assignment_list, configuration, courses
from nbexchange.plugin.answers import is_visible_name
from nbexchange.plugin.assignment_list import AssignmentList
from nbexchange.plugin.client import ServiceError
from nbexchange.plugin.coursework import Coursework
from nbexchange.plugin.exchange import EXPECTED_ERRORS, sentence
from nbexchange.plugin.formgraders import adapted, late
from nbexchange.plugin.jobs import Jobs, Lane, answer_after
from nbexchange.plugin.list import ExchangeList
from nbexchange.plugin.shown import page

FRAMED = "@jupyter/nbgrader:formgrader"
INSTRUCTOR_EXTENSIONS = (
    FRAMED,
    "@jupyter/nbgrader:create-assignment",
    "@jupyter/nbgrader:course-list",
)

_NO_FRAMES = "frame-ancestors 'none'"
_PageConfig = MutableMapping[str, Any]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "nbexchange.plugin.pages"}]


def _load_jupyter_server_extension(server: Any) -> None:
    pages = _Pages(server)
    if courses.courses_from_env() is not None:
        taught = courses.taught()
        _hide_extensions(server.web_app.settings, teaches=bool(taught))
        for course_id in taught:
            try:
                pages.open_course(course_id)
            except EXPECTED_ERRORS as error:  # the other courses and JupyterLab itself still work
                server.log.error("The course %r cannot be opened. %s", course_id, sentence(error))
        pages.add("formgrader/?", _Formgrader, pages=pages)
        pages.add("formgraders", _CourseList, pages=pages)
    folders = (configuration.STARTED_IN, server.root_dir)
    if configuration.uses_the_service(configuration.load(server.log, *folders)):
        pages.answer_in_time()


def _hide_extensions(settings: MutableMapping[str, Any], *, teaches: bool) -> None:
    """Disable JupyterLab's extensions that this user cannot use, when it renders its page.

    This is a hook, because files on disk replace `page_config_data`.
    """
    previous_hook: Callable[[Any, _PageConfig], _PageConfig] | None = settings.get(
        "page_config_hook"
    )

    def hook(handler: Any, page_config: _PageConfig) -> _PageConfig:
        if previous_hook is not None:  # JupyterHub has one
            page_config = previous_hook(handler, page_config)
        disabled = [*(page_config.get("disabledExtensions") or ())]
        if not teaches:
            disabled += INSTRUCTOR_EXTENSIONS
        elif _NO_FRAMES in settings.get("headers", {}).get("Content-Security-Policy", ""):
            disabled += [FRAMED]
        page_config["disabledExtensions"] = list(dict.fromkeys(disabled))
        return page_config

    settings["page_config_hook"] = hook


class _Pages:
    """The formgraders of a Jupyter server, one for each course."""

    def __init__(self, server: Any) -> None:
        self.open: dict[str, str] = {}
        """course id -> address of its formgrader"""
        self._server = server
        self._root = Path(server.root_dir)
        self._jobs = Jobs()
        self._lane = Lane("courses", 2)

    def add(self, address: str, handler: type[web.RequestHandler], **options: Any) -> None:
        base_url = re.escape(self._server.web_app.settings["base_url"])
        pattern = url_path_join(base_url, address)
        self._server.web_app.add_handlers(".*$", [(pattern, handler, options)])

    def answer_in_time(self) -> None:
        """Replace nbgrader's handlers, which wait in the event loop."""
        log, seconds = self._server.log, answer_after(self._server.web_app.settings)
        listed = AssignmentList(Coursework(self._server.root_dir, log), seconds, log)
        for address, handler in assignment_list.ROUTES:
            self.add(address, handler, assignment_list=listed)
        self.add("formgrader/?", _AnyFolder)
        for address, handler, *options in (*default_handlers, *apihandlers.default_handlers):
            if handler is not FormgraderHandler:
                self.add(address, adapted(handler), **(options[0] if options else {}))
        if courses.courses_from_env() is None:
            self.add("formgraders", _LocalCourseList)

    def open_course(self, course_id: str) -> None:
        """Create the course's folder and its formgrader. Raises ServiceError or OSError."""
        folder = str(courses.prepare(course_id, self._root))
        formgrader = FormgradeExtension(parent=self._server, log=self._server.log)
        formgrader.root_dir = str(self._root)
        # As nbgrader does when it opens a folder: it ignores the configuration elsewhere.
        formgrader.load_cwd_config = False
        formgrader.config_dir = folder
        try:
            formgrader.initialize([], root=folder)
        except SystemExit:  # nbgrader's reaction to a wrong configuration
            raise ServiceError(
                f"nbgrader's configuration in {folder} or in your home is invalid. Correct it; the "
                "log of your Jupyter server has the details."
            ) from None
        base_url = self._server.web_app.settings["base_url"]
        address = url_path_join(base_url, "nbexchange", quote(course_id, safe=""))
        configured = formgrader.coursedir.course_id
        # It differs in a folder of another year that was copied with its configuration.
        if configured != course_id:
            raise ServiceError(
                f"{folder}/nbgrader_config.py is for the course {configured!r}. Write "
                f"{course_id!r} there, and restart your Jupyter server."
            )
        site = _Site(self._server.web_app, address)
        formgrader.init_tornado_settings(site)
        formgrader.init_handlers(site)
        self.open[course_id] = f"{address}/formgrader"

    async def formgraders_for(self, path: str) -> dict[str, str]:
        """The formgraders that `/formgrader?path=` may mean; none if it is another folder.

        Raises ServiceError if it means a course that the user is not in.
        """
        if not path:
            return self.open
        course_id = self._course_in(path)
        if course_id is None:
            return {}
        if course_id not in self.open:
            job, _ = self._jobs.start(course_id, self._lane, lambda: self._is_new(course_id))
            if not await job.ended_within(answer_after(self._server.web_app.settings)):
                raise ServiceError(late("Asking the exchange"))
            if not job.result():
                return {}
            if course_id not in self.open:  # a second click may have opened it meanwhile
                self.open_course(course_id)
        return {course_id: self.open[course_id]}

    def _course_in(self, path: str) -> str | None:
        folder = Path(os.path.normpath(self._root / path))
        is_ours = folder == courses.folder_of(folder.name, self._root)
        can_be = is_visible_name(folder.name) and courses.can_be_shown(folder.name)
        return folder.name if is_ours and can_be else None

    def _is_new(self, course_id: str) -> bool:
        """Whether this is a course that the hub did not know when it started the server."""
        folder = courses.folder_of(course_id, self._root)
        if (folder / "nbgrader_config.py").is_file():
            return True
        config = configuration.load(self._server.log, configuration.STARTED_IN, self._root)
        exchange = ExchangeList(coursedir=CourseDirectory(config=config), config=config)
        try:
            exchange.client.assignments(course_id)
        except ServiceError:
            if folder.is_dir():
                return False
            raise
        return True


class _Site:
    """Stands in for the web application when one course's formgrader adds its handlers."""

    def __init__(self, webapp: web.Application, address: str) -> None:
        self._webapp = webapp
        self._address = address
        self.settings: dict[str, Any] = {"base_url": re.escape(address)}  # for `init_handlers`

    def add_handlers(self, host_pattern: str, handlers: list[Any]) -> None:
        del self.settings["base_url"]
        formgrader = f"{re.escape(self._address)}/formgrader"
        own = ((f"{formgrader}/?", _Start), (f"{formgrader}/static/js/utils.js", _Links))
        self._webapp.add_handlers(
            host_pattern,
            [
                (pattern, self._within(adapted(handler)), *options)
                for pattern, handler, *options in (*own, *handlers)
            ],
        )

    def _within(self, handler: type[web.RequestHandler]) -> type[web.RequestHandler]:
        """The handler with the course's address and settings."""
        settings = ChainMap(self.settings, self._webapp.settings)
        return type(handler.__name__, (handler,), {"settings": settings, "base_url": self._address})


class _Start(FormgraderHandler):  # type: ignore[misc]  # nbgrader is not typed
    """The start page, without the search of nbgrader's own for another folder."""

    @web.authenticated
    @check_xsrf  # type: ignore[untyped-decorator]  # nbgrader is not typed
    def get(self) -> None:
        self.redirect(f"{self.base_url}/formgrader/manage_assignments")


class _Links(JupyterHandler):
    """nbgrader's script that links to files, with links to this server.

    Its own links lead to `/tree/`, which does not exist in a hub.
    """

    @web.authenticated
    def get(self) -> None:
        base_url = json.dumps(url_path_join(self.settings["base_url"], "lab/tree/"))
        script = Path(static_path, "js", "utils.js").read_text(encoding="utf-8")
        self.set_header("Content-Type", "text/javascript; charset=UTF-8")
        self.finish(re.sub('"/(notebooks|edit|tree)/"', lambda _: base_url, script))


class _AnyFolder(FormgraderHandler):  # type: ignore[misc]  # nbgrader is not typed
    """`/formgrader?path=`, relative to the folder that JupyterLab shows. nbgrader's own takes it
    relative to the folder in which the server was started."""

    def get_argument(self, name: str, *args: Any, **kwargs: Any) -> Any:
        value = super().get_argument(name, *args, **kwargs)
        if name == "path" and value:
            return str(Path(self.settings["serverapp"].root_dir, value))
        return value


class _Formgrader(_AnyFolder):
    """`/formgrader`: redirects to the formgrader of the course."""

    def initialize(self, pages: _Pages) -> None:
        self._pages = pages

    @web.authenticated
    @check_xsrf  # type: ignore[untyped-decorator]  # nbgrader is not typed
    async def get(self) -> None:
        path = self.get_argument("path", "")
        try:
            links = await self._pages.formgraders_for(path)
        except EXPECTED_ERRORS as error:
            self.set_status(404 if isinstance(error, ServiceError) else 500)
            self.finish(page(f"<p>{escape(sentence(error))}</p>"))
            return
        if not links:
            super().get()
        elif path:
            self.redirect(*links.values())
        else:
            self.finish(_choice(links))


def _choice(links: dict[str, str]) -> str:
    lines = (
        f'<li><p><a href="{escape(link)}">{escape(course_id)}</a></p></li>'
        for course_id, link in links.items()
    )
    return page(
        f"<p>Which course do you want to open?</p><ul>{''.join(lines)}</ul>"
        "<p>This page lists the courses that you taught when your server started. If one is "
        "missing, stop your server and start it again.</p>"
    )


class _LocalCourseList(CourseListHandler):  # type: ignore[misc]  # nbgrader is not typed
    """Course List, without nbgrader's change of the working directory."""

    @property
    def assignment_dir(self) -> str:
        return os.getcwd()  # noqa: PTH109 - nbgrader goes there and back

    def load_config(self) -> Any:
        root = self.settings["serverapp"].root_dir
        return configuration.load(self.log, configuration.STARTED_IN, root)


class _CourseList(_LocalCourseList):
    """Course List, with the courses that the user teaches here or in a shared account."""

    def initialize(self, pages: _Pages) -> None:
        self._pages = pages

    async def check_for_local_formgrader(self, config: Any) -> list[dict[str, str]]:
        """The courses, but not with the kind "local": JupyterLab shows those in a frame that keeps
        its first page, and JupyterHub forbids frames."""
        kinds = {"your server": self._pages.open, "shared": courses.graders_from_env()}
        return [
            {"course_id": course_id, "url": url, "kind": kind}
            for kind, urls in kinds.items()
            for course_id, url in urls.items()
        ]
