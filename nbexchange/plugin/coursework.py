"""What a student does with the exchange, for pages: list, fetch, submit, fetch feedback.

All methods block, and each may run in any thread at any time: they do not change the folder of
the process, and each has a logger of its own. They raise ExchangeError with a sentence for the
student. Values are nbgrader's, which Assignment List knows.
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
    """One person's work below `root`, the folder that JupyterLab shows."""

    def __init__(self, root: str, server_log: Any) -> None:
        self._root = root
        self._server_log = server_log

    def courses(self) -> list[str]:
        """Those with a release or a submission."""
        return sorted({info["course_id"] for info in self.assignments("")})

    def assignments(self, course_id: str) -> list[_Info]:
        """What is released or fetched, then what was submitted; "" means all courses."""
        with client.cached_lists():
            return [*self._released(course_id), *self._submitted(course_id)]

    def fetch(self, course_id: str, assignment_id: str) -> list[str]:
        """Fetch a release; warnings for the student."""
        return self._run("FetchAssignment", course_id, assignment_id)

    def submit(self, course_id: str, assignment_id: str) -> list[str]:
        """Submit the student's folder; warnings for the student."""
        return self._run("Submit", course_id, assignment_id)

    def fetch_feedback(self, course_id: str, assignment_id: str) -> None:
        """Its warnings are left out: there is one for each notebook without feedback."""
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
        """As JupyterLab's file browser names it."""
        return os.path.relpath(path, self._root)

    def _run(self, verb: str, course_id: str, assignment_id: str) -> list[str]:
        with self._exchange(course_id, assignment_id) as (exchange, messages):
            exchange(verb).start()
            return _warnings(messages)

    @contextmanager
    def _exchange(self, course_id: str, assignment_id: str = "") -> Iterator[Any]:
        """A maker of nbgrader's exchange classes for one call, and what they log.

        An ExchangeError that leaves this says all that the student has to know.
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
        """With an absolute `assignment_dir`, below the folder that JupyterLab shows.

        nbgrader goes into `assignment_dir`, reads the configuration there, and applies it again,
        so a relative one counts twice. Students have their work there.
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
    """Those about the person's work. The client's are about a connection that worked in the end."""
    return [
        record.getMessage()
        for record in messages.records
        if record.levelno in _SHOWN_LEVELS and record.module != client.__name__.rpartition(".")[2]
    ]
