"""The base of all exchange classes: options, client, the student's folders, and error handling."""

import datetime
import difflib
import fnmatch
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from jupyter_core.paths import jupyter_data_dir
from nbgrader.exchange import abc
from requests.auth import AuthBase
from traitlets import Bool, Float, Integer, Type, Unicode, default, validate

from nbexchange import temporary, timeouts
from nbexchange.errors import NbExchangeError
from nbexchange.plugin import courses, disks, fetched, files
from nbexchange.plugin.answers import LONGEST_NAME, Released, is_visible_name
from nbexchange.plugin.client import BearerToken, Client, Login, ServiceError, Unreachable
from nbexchange.plugin.jobs import Lane
from nbexchange.text import escaped

EXPECTED_ERRORS = (ServiceError, NbExchangeError, OSError)
"""Errors that are not bugs: those of the service, the archive and the disk."""

RESET = (
    "To get the new one, rename or move your folder and fetch again. "
    "--ExchangeFetchAssignment.reset=True does both, and your work stays in a folder beside it."
)

_GIVE_UP = 3  # unanswered items in a row

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Exchange(abc.Exchange):  # type: ignore[misc]  # nbgrader is not typed
    """The address of the service, and the options of the client: `c.Exchange.*`."""

    base_service_url = Unicode(
        "http://127.0.0.1:9000",
        help="Scheme, host and port of the exchange service. The environment variable "
        "NBEXCHANGE_URL overrides it with the whole address, including the path.",
    ).tag(config=True)

    base_path = Unicode(
        "/services/nbexchange/",
        help="The path of the exchange service below `base_service_url`.",
    ).tag(config=True)

    auth_class = Type(
        BearerToken,
        klass=AuthBase,
        help="How requests authenticate: a requests.auth.AuthBase, created without arguments. The "
        "default sends the token in NBEXCHANGE_TOKEN, else in JUPYTERHUB_API_TOKEN.",
    ).tag(config=True)

    connect_timeout = Float(
        timeouts.CONNECT,
        min=0.001,
        help="Seconds to wait for a connection. The whole Jupyter server waits meanwhile.",
    ).tag(config=True)

    send_timeout = Float(
        timeouts.SEND,
        min=0.001,
        help="Seconds that a connection may stall while a file is sent. The second attempt waits "
        "twice as long, the third three times. The service reads no byte of a file before it has "
        "authenticated the user and has a free slot, which may take "
        f"{timeouts.BEFORE_BODY:g} seconds.",
    ).tag(config=True)

    api_timeout = Float(
        timeouts.ANSWER,
        min=0.001,
        help="Seconds without a byte after which the plugin gives up an answer. From its first "
        "byte on, an answer may take this long, and one second more for each 1,000 bytes.",
    ).tag(config=True)

    transfer_timeout = Float(
        timeouts.TRANSFER,
        min=0.001,
        help="Seconds to wait for the receipt of an upload, in addition to one second for each "
        "10 MB, and for the first byte of a download.",
    ).tag(config=True)

    retries = Integer(
        3,
        min=0,
        help="How often a request is retried when the service is briefly unavailable or the "
        "connection breaks. Before a file is sent again, the plugin waits until the service "
        "answers a small request, which counts as an attempt if it fails.",
    ).tag(config=True)

    max_buffer_size = Integer(
        5_253_530_000,
        min=1,
        help="The largest archive, in bytes, that is sent or received. The service has a limit of "
        "its own; a lower one here refuses an archive before anything is sent.",
    ).tag(config=True)

    path_includes_course = Bool(
        False,
        help="Whether assignments are in a folder of their course: ./course123/ps1, not ./ps1.",
    ).tag(config=True)

    cache = Unicode(
        help="The folder for copies of submissions, with their receipts. Defaults to "
        "$JUPYTER_DATA_DIR/nbgrader_cache.",
    ).tag(config=True)

    root = Unicode(
        help="Ignored. It may stay in a configuration for nbgrader's own exchange, which is a "
        "folder. Formgrader shows the address of the service instead.",
    ).tag(config=True)

    @default("root")
    def _root_default(self) -> str:
        return self.service_url

    @validate("root")
    def _ignore_root(self, _proposal: Any) -> str:
        return self.service_url

    @default("cache")
    def _cache_default(self) -> str:
        return str(Path(jupyter_data_dir(), "nbgrader_cache"))

    @property
    def service_url(self) -> str:
        whole = os.environ.get("NBEXCHANGE_URL", "").strip()
        url = whole or f"{self.base_service_url.rstrip('/')}/{self.base_path.strip('/')}"
        return url.rstrip("/")

    @functools.cached_property
    def client(self) -> Client:
        return Client(
            url=self.service_url,
            auth=Login(self.auth_class),
            log=self.log,
            connect_timeout=self.connect_timeout,
            send_timeout=self.send_timeout,
            api_timeout=self.api_timeout,
            transfer_timeout=self.transfer_timeout,
            retries=self.retries,
            max_buffer_size=self.max_buffer_size,
        )

    def start(self) -> Any:
        """Run the verb. Every failure becomes an ExchangeError that is logged once.

        For any other exception, nbgrader shows a traceback, and formgrader fails on every page.
        """
        try:
            return super().start()
        except abc.ExchangeError:
            raise
        except Exception as error:
            self.log.debug("%s", type(error).__name__, exc_info=True)
            problem = sentence(error)
        # Raised outside of `except`, so that the student's dialog shows no traceback of the cause.
        raise self.failed(problem)

    def failed(self, message: str) -> Exception:
        """Log a message and return the exception to raise. Formgrader and the command line show
        what is logged."""
        self.log.critical(message)
        return abc.ExchangeError(message)  # type: ignore[no-any-return]  # nbgrader is not typed

    def set_timestamp(self) -> None:
        """The plugin's own time, always in UTC. The official time is set by the service.

        nbgrader reads EDT, BST and most other names of zones as UTC, so the plugin writes none.
        """
        super().set_timestamp()  # fails if `timezone` is invalid
        self.timestamp = _utc_now()

    # Courses and names

    def check_course(self) -> str:
        """The course given by the user, else the user's only course."""
        if not self.coursedir.course_id:
            self.coursedir.course_id = courses.only_one()
        if not self.coursedir.course_id:
            known_courses = courses.courses_from_env()
            yours = (
                f" Your courses are: {', '.join(sorted(known_courses))}." if known_courses else ""
            )
            raise self.failed(f"No course id specified. Re-run with --course flag.{yours}")
        return str(self.coursedir.course_id)

    def strip_slash(self) -> None:
        """Remove the slash of "ps1/", to which the shell completes "ps1" if the folder exists."""
        self.coursedir.assignment_id = self.coursedir.assignment_id.rstrip(os.sep)

    def check_access(self) -> None:
        courses = self.courses_of_student()
        if courses is not None and self.coursedir.course_id not in courses:
            raise self.failed("You do not have access to this course.")

    def courses_of_student(self) -> list[str] | None:
        """The courses that nbgrader's own authenticator allows; None means all."""
        if self.authenticator is None:  # NbGraderAPI does not pass it to the feedback classes
            return None
        try:
            allowed = self.authenticator.get_student_courses(self.coursedir.student_id)
        except Exception as error:  # noqa: BLE001 - a third party's plugin may raise anything
            kind = type(error).__name__
        else:
            return None if allowed is None else list(allowed)
        raise self.failed(
            f"nbgrader's authenticator cannot list your courses ({kind}). Try again. If it happens "
            "again, contact your administrator."
        )

    def display_path(self, *parts: str) -> str:
        """Where something is in the exchange, for display: there is no such file or page."""
        return "/".join((self.client.shown_url, *parts))

    def not_found(self, address: str, others: Iterable[str]) -> Exception:
        """The exception to raise, as in nbgrader, with the most similar other name as a hint."""
        message = f"Assignment not found at: {address}"
        self.log.critical(message)
        similar = max(others, key=lambda other: _similarity(address, other), default=None)
        if similar is not None:
            self.log.error("Did you mean: %s", similar)
        return abc.ExchangeError(message)  # type: ignore[no-any-return]  # nbgrader is not typed

    # The student's folders

    def local_name(self, course_id: str, assignment_id: str) -> str:
        """An assignment's folder below `assignment_dir`."""
        for name in (course_id, assignment_id):
            if not is_visible_name(name):
                raise self.failed(f"{name!r} cannot be the name of a folder here.")
        # As nbgrader writes it in its messages.
        return f"{course_id}{os.sep}{assignment_id}" if self.path_includes_course else assignment_id

    def local_folder(self, course_id: str, assignment_id: str) -> str:
        """That folder within `assignment_dir`, relative if that is; "./ps1" keeps its dot."""
        name = self.local_name(course_id, assignment_id)
        return os.path.join(self.assignment_dir, name)  # noqa: PTH118 - Path would drop the dot

    def cached_copy(self, course_id: str, student: str, assignment_id: str, timestamp: str) -> Path:
        """The path of the copy of a submission; the names must be valid folder names."""
        return Path(self.cache, course_id, f"{student}+{assignment_id}+{timestamp}")

    def remove_abandoned(self, *folders: Path) -> None:
        """Remove temporary folders of killed commands from these folders and from the cache."""
        for folder in (*folders, *Path(self.cache).glob("*")):
            temporary.remove_abandoned(folder)

    def folder_of_copy(self, course_id: str, assignment_id: str) -> str:
        """The folder of the student's copy, in the form of `local_folder`: it has the assignment's
        name, or the name that the student gave it, if that is known."""
        usual = self.local_folder(course_id, assignment_id)
        if files.has_work(Path(usual)):
            return usual
        folder = fetched.renamed(Path(self.cache), course_id, assignment_id, Path(usual).absolute())
        if folder is None:
            return usual
        return os.path.join(os.path.dirname(usual), folder.name)  # noqa: PTH118, PTH120 - as above

    def course_of_folder(self, folder: Path) -> str | None:
        """The course that this folder was fetched from, if that is known."""
        try:
            course_id = fetched.course_of(Path(self.cache), folder)
        except OSError:  # there is no such folder
            return None
        return None if course_id is None else escaped(course_id, LONGEST_NAME)

    # Releases

    def find_release(self, course_id: str, assignment_id: str) -> Released | None:
        released, _ = self.client.assignments(course_id)
        return next(
            (release for release in released if release.assignment_id == assignment_id), None
        )

    def is_copy(self, released: Released, folder: Path) -> bool:
        """Whether a folder contains the assignment.

        A copy has at least one of the release's notebooks, because fetching feedback creates a
        folder of that name, too. A copy of an older release counts, whatever its notebooks are
        called.
        """
        course_id = self.course_of_folder(folder)
        if course_id is not None and course_id != released.course_id:
            return False
        if any(files.is_file(folder / name) for name in released.notebook_files):
            return True
        may_differ = not released.notebook_files or self.news(released, folder) is not None
        return may_differ and files.has_work(folder)

    def news(self, released: Released, folder: Path) -> str | None:
        """A message for a student whose copy of an assignment is older than the release."""
        try:
            mine = fetched.find(
                Path(self.cache), released.course_id, released.assignment_id, folder
            )
        except OSError:  # there is no such folder
            return None
        if mine is None or not mine.is_older_than(released):
            return None
        return (
            f"There is a newer release of {released.assignment_id} than yours: version "
            f"{released.version}, and you have version {mine.version}. {RESET}"
        )

    # Many at once

    def in_order(
        self, work: Callable[[_Item], _Result], items: list[_Item], workers: int
    ) -> Iterator[tuple[_Item, Callable[[], _Result]]]:
        """Work on several items at a time; yield each, in the given order, with its result.

        The result is a function that waits for the item and raises its error. One failed item does
        not stop the others. Several unanswered items in a row do, because then the service is
        unavailable.
        """
        unreachable: list[_Item] = []

        def work_while_available(item: _Item) -> _Result:
            if len(unreachable) >= _GIVE_UP:
                raise ServiceError("not tried, because the exchange service is unavailable")
            try:
                result = work(item)
            except Unreachable:
                unreachable.append(item)
                raise
            unreachable.clear()
            return result

        is_over = threading.Event()

        def work_until_over(item: _Item) -> _Result:
            if is_over.is_set():
                raise ServiceError("not tried, because the command was stopped")
            return work_while_available(item)

        lane = Lane("items", workers)
        jobs = [lane.start(functools.partial(work_until_over, item)) for item in items]
        try:
            for item, job in zip(items, jobs, strict=True):
                yield item, job.wait
        finally:
            is_over.set()
            for job in jobs:
                job.join()

    def fail_with(self, what: str, failures: dict[str, str], count: int) -> None:
        """Raise an error that lists the failed items with their reasons, if there are any."""
        if failures:
            by_reason: dict[str, list[str]] = {}
            for name, reason in failures.items():
                by_reason.setdefault(reason, []).append(name)
            reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
            raise self.failed(f"{len(failures)} of {count} {what}. {reasons}")


def sentence(error: Exception) -> str:
    """The message for a user about an error."""
    if isinstance(error, UnicodeEncodeError):
        name = error.object.rpartition(os.sep)[2]
        return (
            f"{name!r} cannot be the name of a file here, because file names are encoded as "
            f"{error.encoding}. Set a locale with UTF-8, for example LC_ALL=C.UTF-8."
        )
    if isinstance(error, OSError):
        return disks.problem(error)
    if not isinstance(error, EXPECTED_ERRORS):
        return (
            f"Unexpected {type(error).__name__}: {error}. Run the command again with --debug and "
            "send its output to your administrator."
        )
    text = str(error)
    return text[:1].upper() + text[1:]


def is_wanted(name: str, pattern: str) -> bool:
    """Whether an option like --student selects this name: it is empty, the name, or a glob of it.

    The name itself is compared first, because the glob "ps[1]" does not match the name "ps[1]".
    """
    return pattern in ("", "*", name) or fnmatch.fnmatchcase(name, pattern)


def is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _similarity(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def _utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
