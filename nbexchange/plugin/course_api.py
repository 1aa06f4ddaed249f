"""nbgrader's Python interface to one course, created for each job of formgrader.

A formgrader of nbgrader has one CourseDirectory, and each call sets its `assignment_id` for a
while, so two concurrent calls would swap their assignments. Here, a `CourseSnapshot` is the state
of a formgrader when a request arrives, and each `Api` has objects of its own.
"""

import copy
import logging
import pickle
import threading
from dataclasses import dataclass
from typing import Any

from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI
from nbgrader.auth import Authenticator
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeFactory
from traitlets.config import Config, LoggingConfigurable

from nbexchange.plugin import configuration


@dataclass(frozen=True)
class CourseSnapshot:
    """The state of a formgrader's course: an immutable value for threads and processes."""

    config: Config
    config_dir: str
    folders: tuple[str, ...]
    root: str

    @classmethod
    def of(cls, formgrader: Any) -> "CourseSnapshot":
        """Call this in the event loop, in which formgrader may change to another folder."""
        cwd = (str(configuration.STARTED_IN),) if formgrader.load_cwd_config else ()
        return cls(
            copy.deepcopy(formgrader.config),
            formgrader.config_dir,
            cwd,
            formgrader.coursedir.root,
        )

    @property
    def course_id(self) -> str:
        course_id: str = CourseDirectory(config=self.config).course_id
        return course_id

    def load(self, log: Any) -> Config:
        """The configuration, updated from the files."""
        config = copy.deepcopy(self.config)
        config.merge(configuration.load(log, *self.folders, config_dir=self.config_dir))
        return config

    def directory(self, config: Config, log: Any) -> Any:
        """A CourseDirectory for one job only."""
        coursedir = CourseDirectory(config=config, log=log)
        if "root" not in config.CourseDirectory:
            coursedir.root = self.root
        return coursedir

    def __getstate__(self) -> dict[str, Any]:
        """The state without functions from a configuration file; `load` reads them again."""
        return {**vars(self), "config": _picklable(self.config)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "config": Config(state["config"])})


def _picklable(section: Any) -> dict[str, Any]:
    picklable = {}
    for name, value in section.items():
        if isinstance(value, Config):
            picklable[name] = _picklable(value)
        else:
            try:
                pickle.dumps(value)
            except Exception:  # noqa: BLE001, S112 - a user's objects may raise anything
                continue
            picklable[name] = value
    return picklable


class _Nothing:
    """An empty list, in place of a request to the exchange."""

    root = ""

    def start(self) -> list[Any]:
        return []


class _Exchange(ExchangeFactory):  # type: ignore[misc]  # nbgrader is not typed
    """Skips the list that nbgrader's API requests at its creation and often does not need."""

    is_enabled = False

    def List(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - nbgrader's name
        return super().List(*args, **kwargs) if self.is_enabled else _Nothing()


class _Job(LoggingConfigurable):
    """The parent of all objects of one job: its configuration and its logger."""


class Api(NbGraderAPI):  # type: ignore[misc]  # nbgrader is not typed
    """`uses_exchange`: whether methods may use the exchange; see nbgrader's `exchange_missing`.
    `lists_first`: whether to request the list at creation, as nbgrader does."""

    def __init__(
        self,
        course: CourseSnapshot,
        log: logging.Logger,
        *,
        uses_exchange: bool,
        lists_first: bool = False,
    ) -> None:
        # Set first, because nbgrader's constructor sets the level of the current logger.
        self.log = log
        level = log.level
        config = course.load(log)
        job = _Job(config=config, log=log)
        exchange = _Exchange(parent=job)
        exchange.is_enabled = lists_first
        super().__init__(
            coursedir=course.directory(config, log),
            authenticator=Authenticator(parent=job),
            exchange=exchange,
            parent=job,
        )
        self.log_level = level
        exchange.is_enabled = uses_exchange

    @property
    def gradebook(self) -> Any:
        return open_gradebook(self.coursedir)


_opening = threading.Lock()


def open_gradebook(coursedir: Any) -> Any:
    """Open the gradebook; the caller closes it. The first opening creates the tables, so only one
    thread may open it at a time."""
    with _opening:
        return Gradebook(coursedir.db_url, coursedir.course_id)
