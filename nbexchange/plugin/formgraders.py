"""nbgrader's formgrader, without requests that wait for the exchange or for notebooks.

nbgrader's handlers work in the event loop of the Jupyter server. Here, each handler that uses
nbgrader's API works in a job. Changes to a course run one after the other, and reading requests do
not wait for them. A request is answered after 10 seconds at the latest (`answer_after`), with one
sentence, while its job continues.

A handler's own methods must run in the event loop. So nbgrader's method runs on a stand-in, a copy
of the handler that writes into a buffer of its own. If the job is late, the buffer is dropped.
"""

import functools
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import ChoiceLoader, DictLoader, Environment, FileSystemLoader, PrefixLoader
from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions.formgrader import apihandlers, handlers
from nbgrader.server_extensions.formgrader.base import BaseHandler, check_xsrf
from tornado import httputil, web

from nbexchange.plugin import client
from nbexchange.plugin.converter import CONVERTER, Conversion, ConverterError
from nbexchange.plugin.course_api import Api, CourseSnapshot, open_gradebook
from nbexchange.plugin.jobs import Job, Jobs, Lane, Messages, answer_after, logger_of_job
from nbexchange.plugin.shown import page, wrapped


@dataclass(frozen=True)
class HandlerKind:
    """How a handler works. `doing` begins the sentence that replaces a late answer."""

    doing: str
    uses_exchange: bool = False
    """Whether it uses the exchange."""
    lists_first: bool = False
    """Whether it requests the list first, as pages do that show whether the exchange is there."""
    converts: bool = False


_READS = HandlerKind("Reading the gradebook")
_LISTS = HandlerKind("Asking the exchange", uses_exchange=True, lists_first=True)

KINDS: dict[type, HandlerKind] = {
    handlers.ManageAssignmentsHandler: _LISTS,
    handlers.SubmissionHandler: _READS,
    handlers.SubmissionNavigationHandler: _READS,
    apihandlers.AssignmentCollectionHandler: _LISTS,
    apihandlers.AssignmentHandler: _LISTS,
    apihandlers.NotebookCollectionHandler: _READS,
    apihandlers.SubmissionCollectionHandler: _READS,
    apihandlers.SubmissionHandler: _READS,
    apihandlers.SubmittedNotebookCollectionHandler: _READS,
    apihandlers.StudentCollectionHandler: _READS,
    apihandlers.StudentHandler: _READS,
    apihandlers.StudentSubmissionCollectionHandler: _READS,
    apihandlers.StudentNotebookSubmissionCollectionHandler: _READS,
    apihandlers.AssignHandler: HandlerKind("Generating", converts=True),
    apihandlers.UnReleaseHandler: HandlerKind("Unreleasing", uses_exchange=True),
    apihandlers.ReleaseHandler: HandlerKind("Releasing", uses_exchange=True),
    apihandlers.CollectHandler: HandlerKind("Collecting", uses_exchange=True),
    apihandlers.AutogradeHandler: HandlerKind("Autograding", converts=True),
    apihandlers.GenerateAllFeedbackHandler: HandlerKind("Making feedback", converts=True),
    apihandlers.ReleaseAllFeedbackHandler: HandlerKind("Releasing feedback", uses_exchange=True),
    apihandlers.GenerateFeedbackHandler: HandlerKind("Making feedback", converts=True),
    apihandlers.ReleaseFeedbackHandler: HandlerKind("Releasing feedback", uses_exchange=True),
}
"""All handlers of formgrader that use nbgrader's API."""


class Lanes:
    """The threads that work for the courses' formgraders."""

    def __init__(self) -> None:
        self._changes: dict[str, Lane] = defaultdict(lambda: Lane("formgrader", 1))
        self._asks = Lane("formgrader asks", 4)
        self._reads = Lane("formgrader reads", 2)

    def of(self, course: CourseSnapshot, method: str, kind: HandlerKind) -> Lane:
        """The lane for a request: one thread changes a course, and other threads read. Requests
        that read only the gradebook do not wait behind those that use the exchange."""
        if method != "get":
            return self._changes[course.root]
        return self._asks if kind.uses_exchange else self._reads


JOBS, LANES = Jobs(), Lanes()


@dataclass(frozen=True)
class _FormgraderAnswer:
    """The response that nbgrader's method wrote."""

    status: int
    headers: dict[str, str]
    body: bytes


class _StandIn:
    """A copy of a handler without a connection, on which nbgrader's method runs in a job."""

    def stand_in_for(self, handler: Any, course: CourseSnapshot, kind: HandlerKind) -> None:
        vars(self).update(vars(handler))
        self._headers = httputil.HTTPHeaders(handler._headers)
        self._write_buffer: list[bytes] = []
        self._course = course
        self._kind = kind
        self._log, self._messages = logger_of_job(handler.log)
        self._gradebook: Any = None

    def answer(self, work: Callable[[Any], None]) -> _FormgraderAnswer:
        """Run `work`, nbgrader's method, and return its response."""
        try:
            with client.cached_lists():
                work(self)
        finally:
            if self._gradebook is not None:
                self._gradebook.close()
        headers = {name: self._headers[name] for name in _PASSED_ON if name in self._headers}
        return _FormgraderAnswer(self._status_code, headers, self._body())  # type: ignore[attr-defined]  # the handler's

    def _body(self) -> bytes:
        body = b"".join(self._write_buffer)
        is_action = self.request.method == "POST"  # type: ignore[attr-defined]  # the handler's
        return _sentence_first(body, self._messages) if is_action else body

    def finish(self, chunk: Any = None) -> None:
        if chunk is not None:
            self.write(chunk)  # type: ignore[attr-defined]  # the handler's

    def render(self, name: str, **names: Any) -> str:
        if names.get("exchange_missing"):  # nbgrader would write about a directory
            names |= {"exchange_missing": False, "problem": self._messages.failure()}
        page: str = super().render(name, **names)  # type: ignore[misc]  # the handler's
        return page

    @property
    def log(self) -> logging.Logger:
        return self._log

    @property
    def api(self) -> Any:
        if self._kind.converts:
            return _Conversions(self._course, self._log.level)
        return Api(
            self._course,
            self._log,
            uses_exchange=self._kind.uses_exchange,
            lists_first=self._kind.lists_first,
        )

    @functools.cached_property
    def coursedir(self) -> Any:
        return self._course.directory(self._course.load(self._log), self._log)

    @property
    def gradebook(self) -> Any:
        """The gradebook of this job. Handlers in the event loop share another one."""
        if self._gradebook is None:
            self._gradebook = open_gradebook(self.coursedir)
        return self._gradebook

    @property
    def exporter(self) -> Any:
        exporter = HTMLExporter(config=self._course.config, extra_loaders=[_GRADING])  # type: ignore[no-untyped-call]  # nbconvert is not typed
        exporter.environment.globals["named_course"] = self.coursedir.course_id
        return exporter

    @property
    def url_prefix(self) -> str:
        """The course's folder, as a path in JupyterLab's file browser."""
        formgrader = self.settings["nbgrader_formgrader"]  # type: ignore[attr-defined]  # the handler's
        folder: str = os.path.relpath(self.coursedir.root, formgrader.root_dir)
        return folder


_PASSED_ON = ("Content-Type", "Location")


class _Conversions:
    """Runs the methods of nbgrader's API that convert notebooks in the converter process."""

    def __init__(self, course: CourseSnapshot, level: int) -> None:
        self._course = course
        self._level = level

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def ask(*arguments: str) -> Any:
            try:
                return CONVERTER.ask(Conversion(self._course, method, arguments, self._level))
            except ConverterError as error:
                return {"success": False, "log": str(error)}

        return ask


def _sentence_first(body: bytes, messages: Messages) -> bytes:
    """Put the reason of a failure before the log in formgrader's dialog, and remove the traceback
    of nbgrader's own exceptions, which the dialog would show as if there were a bug."""
    try:
        answer = json.loads(body)
    except ValueError:  # an HTML page about a wrong setup
        return body
    if not isinstance(answer, dict) or answer.get("success") is not False:
        return body
    error = (answer.get("error") or "").rstrip()
    kind, _, text = error.rpartition("\n")[2].partition(": ")
    reason = messages.failure() or ("" if kind == "SystemExit" else text)
    if messages.failure() or kind.startswith("nbgrader.") or kind == "SystemExit":
        error = ""
    rest = answer.get("log", "").replace(f"[CRITICAL] {reason}\n", "")
    log = "\n\n".join(part for part in (wrapped(reason), rest) if part)
    return json.dumps({**answer, "error": error, "log": log}).encode()


_BASE = """\
{%- extends 'nbgrader/base.tpl' -%}
{%- block body -%}
<p class="lead">Course: <strong id="course-name">{{ named_course | e or "not set" }}</strong></p>
{%- if problem %}
<div class="alert alert-warning" id="warning-exchange">{{ problem | e }}</div>
{%- endif %}
{{ super() }}
{%- endblock -%}
"""

_MACROS = """\
{%- from 'nbgrader/formgrade/formgrade_macros.html.j2'
    import nav as nbgraders_nav, header as nbgraders_header -%}
{%- macro header(resources) -%}{{ nbgraders_header(resources) }}{%- endmacro -%}
{%- macro nav(resources) -%}
{%- set path = '<ul class="breadcrumb">' -%}
{%- set course = '<li id="course-name">' ~ (named_course | e or "not set") ~ '</li>' -%}
{{ nbgraders_nav(resources) | replace(path, path ~ course, 1) }}
{%- endmacro -%}
"""
"""The macros of the page for grading a submission, which nbconvert renders."""


class _NamesCourse:
    """A page of formgrader that shows its course."""

    def render(self, name: str, **names: Any) -> str:
        course_id = self.coursedir.course_id  # type: ignore[attr-defined]  # the handler's
        page: str = _TEMPLATES.get_template(name).render(named_course=course_id, **names)
        return page


_PAGES = FileSystemLoader(handlers.template_path)
_TEMPLATES = Environment(  # noqa: S701 - nbgrader's templates expect no autoescape; ours uses the filter `e`
    loader=ChoiceLoader(
        [DictLoader({"base.tpl": _BASE}), _PAGES, PrefixLoader({"nbgrader": _PAGES})]
    )
)
_GRADING = ChoiceLoader(
    [DictLoader({"formgrade_macros.html.j2": _MACROS}), PrefixLoader({"nbgrader": _PAGES})]
)


def adapted(handler_class: type[Any]) -> type[Any]:
    """nbgrader's handler, changed to show its course and, if needed, to work in jobs."""
    if not issubclass(handler_class, BaseHandler):
        return handler_class
    name = handler_class.__name__
    named = type(name, (_NamesCourse, handler_class), {})
    kind = KINDS.get(handler_class)
    if kind is None:
        return named
    methods = {
        method: _method(method, vars(handler_class)[method], kind)
        for method in ("get", "put", "post")
        if method in vars(handler_class)
    }
    return type(name, (named,), methods)


_STAND_INS: dict[type[Any], type[Any]] = {}


def _stand_in_class(handler_class: type[Any]) -> type[Any]:
    """The stand-in of the class that serves the request, with its address and settings."""
    if handler_class not in _STAND_INS:
        _STAND_INS[handler_class] = type(handler_class.__name__, (_StandIn, handler_class), {})
    return _STAND_INS[handler_class]


def _method(name: str, nbgraders: Callable[..., None], kind: HandlerKind) -> Callable[..., Any]:
    async def method(self: Any, *arguments: Any, **named: Any) -> None:
        course = CourseSnapshot.of(self.settings["nbgrader_formgrader"])
        stand_in: Any = object.__new__(_stand_in_class(type(self)))
        stand_in.stand_in_for(self, course, kind)
        request = self.request
        details = request.query if name == "get" else request.body if name == "put" else ""
        key = (course.root, name, request.path, details)
        lane = LANES.of(course, name, kind)
        work = functools.partial(_call, nbgraders, arguments, named)
        job, _ = JOBS.start(key, lane, functools.partial(stand_in.answer, work))
        if await job.ended_within(answer_after(self.settings)):
            _send(self, job.result())
        else:
            job.when_ended(lambda job: _log_failure(self.log, job))
            _send_late(self, name, kind)

    return web.authenticated(check_xsrf(method))


def _call(
    nbgraders: Callable[..., None], arguments: tuple[Any, ...], named: dict[str, Any], handler: Any
) -> None:
    nbgraders(handler, *arguments, **named)


def _send(handler: Any, answer: _FormgraderAnswer) -> None:
    handler.set_status(answer.status)
    for name, value in answer.headers.items():
        handler.set_header(name, value)
    handler.finish(answer.body)


def _send_late(handler: Any, method: str, kind: HandlerKind) -> None:
    sentence = late(kind.doing)
    if method == "post":
        # Sent as text, because formgrader's scripts parse the JSON themselves.
        handler.finish(json.dumps({"success": False, "error": "", "log": wrapped(sentence)}))
    else:
        handler.set_status(504)
        handler.finish(page(f"<p>{sentence}</p>"))


def late(doing: str) -> str:
    return f"{doing} takes long and continues. Reload this page in a minute."


def _log_failure(log: Any, job: Job[Any]) -> None:
    try:
        job.result()
    except Exception as error:
        log.error("The job of an already answered request failed.", exc_info=error)
