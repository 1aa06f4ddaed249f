"""The student's verbs for JupyterLab's pages: list, fetch, submit, fetch_feedback.

All methods block. They may run in any thread at any time: they do not change the working directory
of the process, and each call has its own logger. They raise ExchangeError with a message for the
student. They return nbgrader's values, as Assignment List expects them.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbgrader.auth import Authenticator
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeError, ExchangeFactory
from traitlets.config import Config

from nbexchange.plugin import client, configuration
from nbexchange.plugin.jobs import Messages, logger_of_job

_Info = dict[str, Any]

_SHOWN_LEVELS = (logging.WARNING, logging.ERROR)


class Coursework:
    """The user's coursework below `root`, the folder that JupyterLab shows."""

    def __init__(self, root: str, server_log: Any) -> None:
        self._root = root
        self._server_log = server_log

    def courses(self) -> list[str]:
        """The courses with a release or a submission."""
        return sorted({info["course_id"] for info in self.assignments("")})

    def assignments(self, course_id: str) -> list[_Info]:
        """The released and fetched assignments, then the submissions; "" means all courses."""
        with client.cached_lists():
            return [*self._released(course_id), *self._submitted(course_id)]

    def fetch(self, course_id: str, assignment_id: str) -> list[str]:
        """Fetch a release. Returns warnings for the student."""
        return self._run("FetchAssignment", course_id, assignment_id)

    def submit(self, course_id: str, assignment_id: str) -> list[str]:
        """Submit the student's folder. Returns warnings for the student."""
        return self._run("Submit", course_id, assignment_id)

    def fetch_feedback(self, course_id: str, assignment_id: str) -> None:
        """Fetch feedback. Returns no warnings: each notebook without feedback would have one."""
        self._run("FetchFeedback", course_id, assignment_id)

    def _released(self, course_id: str) -> list[_Info]:
        with self._exchange(course_id) as (exchange, _):
            infos: list[_Info] = exchange("List").start()
        for info in infos:
            if info["status"] == "fetched":
                info["path"] = self._shown(info["path"])
                for notebook in info["notebooks"]:
                    notebook["path"] = self._shown(notebook["path"])
        return sorted(infos, key=lambda info: (info["course_id"], info["assignment_id"]))

    def _submitted(self, course_id: str) -> list[_Info]:
        with self._exchange(course_id) as (exchange, _):
            infos: list[_Info] = exchange("List", cached=True).start()
        for info in infos:
            for submission in info["submissions"]:
                for notebook in submission["notebooks"]:
                    page = notebook["local_feedback_path"]
                    if page:
                        notebook["local_feedback_path"] = f"./{self._shown(page)}"  # as nbgrader
                feedback = submission["local_feedback_path"]
                if feedback and Path(feedback).exists():
                    submission["local_feedback_path"] = self._shown(feedback)
        return sorted(infos, key=lambda info: str(info["assignment_id"]))

    def _shown(self, path: str) -> str:
        """The path in JupyterLab's file browser."""
        return os.path.relpath(path, self._root)

    def _run(self, verb: str, course_id: str, assignment_id: str) -> list[str]:
        with self._exchange(course_id, assignment_id) as (exchange, messages):
            exchange(verb).start()
            return _warnings(messages)

    @contextmanager
    def _exchange(self, course_id: str, assignment_id: str = "") -> Iterator[Any]:
        """A factory of nbgrader's exchange classes for one call, and their log messages.

        An ExchangeError from this context includes the warnings for the student.
        """
        log, messages = logger_of_job(self._server_log)
        config = self._config(log)
        if course_id:
            config.CourseDirectory.course_id = course_id
        if assignment_id:
            config.CourseDirectory.assignment_id = assignment_id
        shared = {"config": config, "log": log}
        factory = ExchangeFactory(**shared)

        def make(verb: str, **traits: Any) -> Any:
            return getattr(factory, verb)(
                coursedir=CourseDirectory(**shared),
                authenticator=Authenticator(**shared),
                config=config,
                **traits,
            )

        try:
            yield make, messages
        except ExchangeError as error:
            problem = "\n".join([str(error), *_warnings(messages)])
        else:
            return
        raise ExchangeError(problem)

    def _config(self, log: logging.Logger) -> Config:
        """The configuration with an absolute `assignment_dir` below the folder of JupyterLab.

        nbgrader changes into `assignment_dir`, reads the configuration there, and applies it again.
        So a relative one counts twice, and that is where students have their work.
        """
        root = Path(self._root)
        folders = [configuration.STARTED_IN, root]
        outer = root / _assignment_dir(configuration.load(log, *folders))
        config = configuration.load(log, *folders, outer)
        config.Exchange.assignment_dir = str(outer / _assignment_dir(config))
        return config


def _assignment_dir(config: Config) -> str:
    folder: str = ExchangeFactory(config=config).List(config=config).assignment_dir
    return folder


def _warnings(messages: Messages) -> list[str]:
    """The warnings about the student's work, without the client's about retries."""
    return [
        record.getMessage()
        for record in messages.records
        if record.levelno in _SHOWN_LEVELS and record.module != client.__name__.rpartition(".")[2]
    ]
