"""nbgrader's page for students, Assignment List, without requests that wait for the exchange.

It has the same addresses and the same JSON as nbgrader's own handlers, with these differences:

* A request is answered after 10 seconds at the latest (`answer_after`), while its job continues.
  The result of such a job is in the next list of its course.
* A failure is one or more sentences, never a traceback. A failed fetch is reported, too.
* Warnings of the plugin are lines below the submissions of their assignment. In a successful
  answer, the page shows arbitrary text only there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from nbgrader.exchange import ExchangeError
from tornado import web

from nbexchange.plugin import configuration
from nbexchange.plugin.converter import CONVERTER, ConverterError, Validation
from nbexchange.plugin.coursework import Coursework
from nbexchange.plugin.jobs import Job, Jobs, Lane
from nbexchange.plugin.shown import in_one_line, wrapped

_Info = dict[str, Any]
_Answer = dict[str, Any]

_LATE = {
    "fetch": "{0} is still being fetched. Click the refresh button in a minute.",
    "submit": "Your work on {0} is still being sent. Click the refresh button in a minute. "
    "Your work has arrived when {0} is listed as submitted, with a new time.",
    "fetch_feedback": "Feedback on {0} is still being fetched. Click the refresh button in a "
    "minute.",
}
_LATE_LIST = "The exchange has not answered yet. Click the refresh button in a minute."
_LATE_VALIDATION = (
    "The notebook is still running. Click Validate again in a minute to see the result."
)
_DONE = {"fetch": "fetched", "submit": "submitted", "fetch_feedback": "fetched"}
_JOINED = (
    "This is the submission that you started at {:%H:%M:%S} UTC. If you have changed files since, "
    "submit again."
)
_UNEXPECTED = (
    "Unexpected error: {}: {}. Contact your administrator; the log of your Jupyter server has the "
    "details."
)


class AssignmentList:
    """The page's jobs on one Jupyter server."""

    def __init__(self, coursework: Coursework, answer_after: float, log: Any) -> None:
        self._answer_after = answer_after
        self._coursework = coursework
        self._log = log
        self._jobs = Jobs()
        self._lists = Lane("lists", 4)
        self._transfers = Lane("transfers", 3)
        self._unseen: dict[tuple[str, str, str], str] = {}
        """action, course, assignment -> the result of a job whose request was answered before"""

    async def courses(self) -> _Answer:
        work = lambda: _success(self._coursework.courses())  # noqa: E731
        return await self._answer(("courses",), self._lists, work, _LATE_LIST)

    async def assignments(self, course_id: str) -> _Answer:
        unseen = [self._unseen.pop(key) for key in list(self._unseen) if key[1] == course_id]
        if unseen:
            lines = "\n".join([*unseen, "Click the refresh button to see the list."])
            return _failure(in_one_line(lines))
        key = ("list", course_id)
        return await self._answer(key, self._lists, lambda: self._list(course_id), _LATE_LIST)

    def _list(self, course_id: str) -> _Answer:
        return _success(self._coursework.assignments(course_id))

    async def run_action(self, action: str, course_id: str, assignment_id: str) -> _Answer:
        """Run fetch, submit or fetch_feedback, and return the list of the course."""

        def work() -> _Answer:
            do = getattr(self._coursework, action)
            return self._with_list(
                action, course_id, assignment_id, do(course_id, assignment_id) or []
            )

        key = (action, course_id, assignment_id)
        job, is_joined = self._jobs.start(key, self._transfers, lambda: self._try(work))
        if not await job.ended_within(self._answer_after):
            job.when_ended(lambda job: self._store_outcome(job, *key))
            return _formatted(action, _failure(_LATE[action].format(assignment_id)))
        answer = _formatted(action, job.result())
        self._unseen.pop(key, None)
        if is_joined and action == "submit" and answer["success"]:
            return _noted(answer, course_id, assignment_id, [_JOINED.format(job.started)])
        return answer

    def _with_list(
        self, action: str, course_id: str, assignment_id: str, warnings: list[str]
    ) -> _Answer:
        try:
            answer = self._list(course_id)
        except ExchangeError as error:
            # Without this, the page would report that the action failed.
            done = f"{assignment_id} is {_DONE[action]}, but the list cannot be shown: {error}"
            answer, warnings = _success([]), [*warnings, done]
        return _noted(answer, course_id, assignment_id, warnings)

    def _store_outcome(
        self, job: Job[_Answer], action: str, course_id: str, assignment_id: str
    ) -> None:
        """Keep a failure or warnings for the next list."""
        answer = job.result()
        key = (action, course_id, assignment_id)
        what = f"Feedback on {assignment_id}" if action == "fetch_feedback" else assignment_id
        if not answer["success"]:
            self._unseen[key] = (
                f"{what} could not be {_DONE[action]}. {in_one_line(answer['value'])}"
            )
        elif notes := [note for info in answer["value"] for note in _notes(info)]:
            self._unseen[key] = "\n".join([f"{what} is {_DONE[action]}.", *notes])

    async def validate(self, validation: Validation) -> _Answer:
        key = ("validate", validation.path)

        def work() -> _Answer:
            answer: _Answer = CONVERTER.ask(validation)
            if not answer["success"]:
                answer["value"] = _last_line(answer["value"])
            return answer

        return await self._answer(key, self._transfers, work, _LATE_VALIDATION)

    async def _answer(
        self, key: tuple[str, ...], lane: Lane, work: Callable[[], _Answer], late: str
    ) -> _Answer:
        job, _ = self._jobs.start(key, lane, lambda: self._try(work))
        return job.result() if await job.ended_within(self._answer_after) else _failure(late)

    def _try(self, work: Callable[[], _Answer]) -> _Answer:
        try:
            return work()
        except (ExchangeError, ConverterError) as error:
            return _failure(str(error))
        except Exception as error:  # noqa: BLE001 - a bug, in nbgrader or here
            self._log.exception("An unexpected error in Assignment List.")
            return _failure(_UNEXPECTED.format(type(error).__name__, error))


def _success(value: list[Any]) -> _Answer:
    return {"success": True, "value": value}


def _failure(sentence: str) -> _Answer:
    return {"success": False, "value": sentence}


def _formatted(action: str, answer: _Answer) -> _Answer:
    """Format a failure for the page, which shows a failed submission in a dialog and other failures
    in place of a list."""
    if answer["success"]:
        return answer
    return _failure((wrapped if action == "submit" else in_one_line)(answer["value"]))


def _last_line(text: str) -> str:
    """The last line of a traceback: the exception. Other texts stay as they are."""
    if not text.startswith("Traceback"):
        return text
    return text.rstrip().rpartition("\n")[2]


# Lines of text in the list


def _noted(answer: _Answer, course_id: str, assignment_id: str, notes: list[str]) -> _Answer:
    """The answer with these lines below the submissions of the assignment.

    They are in the `timestamp` of made-up submissions, which the page shows as text.
    """
    if not notes:
        return answer
    infos = [dict(info) for info in answer["value"]]
    names = {"course_id": course_id, "assignment_id": assignment_id, "status": "submitted"}
    for info in infos:
        if names.items() <= info.items():
            break
    else:
        info = {**names, "student_id": "", "submissions": []}
        infos.append(info)
    info["submissions"] = [*info["submissions"], *(_note(names, note) for note in notes)]
    return _success(infos)


def _note(names: dict[str, str], note: str) -> _Info:
    return {
        **names,
        "student_id": "",
        "status": "note",
        "timestamp": in_one_line(note),
        "path": "",
        "notebooks": [],
        "has_local_feedback": False,
        "has_exchange_feedback": False,
        "feedback_updated": False,
        "local_feedback_path": None,
    }


def _notes(info: _Info) -> list[str]:
    return [
        submission["timestamp"]
        for submission in info.get("submissions", ())
        if submission["status"] == "note"
    ]


# The handlers


class _Handler(JupyterHandler):
    def initialize(self, assignment_list: AssignmentList) -> None:
        self._list = assignment_list

    def text_arguments(self, *names: str) -> list[str]:
        """Arguments of the request; nbgrader's page sends them as JSON."""
        try:
            return [self.get_argument(name) for name in names]
        except web.MissingArgumentError:
            body = self.get_json_body()
        if not isinstance(body, dict) or not all(isinstance(body.get(name), str) for name in names):
            raise web.HTTPError(400, f"Expected a JSON object with {', '.join(names)}.")
        return [body[name] for name in names]

    def answer(self, answer: _Answer) -> None:
        self.finish(json.dumps(answer))  # as text/html, as nbgrader does


class CoursesHandler(_Handler):
    @web.authenticated
    async def get(self) -> None:
        self.answer(await self._list.courses())


class CourseworkListHandler(_Handler):
    @web.authenticated
    async def get(self) -> None:
        self.answer(await self._list.assignments(self.get_argument("course_id")))


class ActionHandler(_Handler):
    @web.authenticated
    async def post(self, action: str) -> None:
        course_id, assignment_id = self.text_arguments("course_id", "assignment_id")
        self.answer(await self._list.run_action(action, course_id, assignment_id))


class ValidateHandler(_Handler):
    @web.authenticated
    async def post(self) -> None:
        (path,) = self.text_arguments("path")
        root: str = self.settings["serverapp"].root_dir
        if not _is_below(root, path):
            raise web.HTTPError(403, "Access denied: path outside allowed directory")
        folders = (str(configuration.STARTED_IN), root)
        level = self.log.getEffectiveLevel()
        self.answer(await self._list.validate(Validation(root, path, folders, level)))


def _is_below(root: str, path: str) -> bool:
    folder = Path(root).resolve()
    return (folder / path).resolve().is_relative_to(folder)


ROUTES = (
    ("/assignments", CourseworkListHandler),
    ("/assignments/(fetch|submit|fetch_feedback)", ActionHandler),
    ("/assignments/validate", ValidateHandler),
    ("/courses", CoursesHandler),
)
