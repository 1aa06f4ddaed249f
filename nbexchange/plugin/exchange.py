"""What all eight classes share: options, the client, the student's folders, and one way to fail."""

import datetime
import difflib
import fnmatch
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from jupyter_core.paths import jupyter_data_dir
from nbgrader.exchange import abc
from requests.auth import AuthBase
from traitlets import Bool, Float, Integer, Type, Unicode, default

from nbexchange.errors import NbExchangeError
from nbexchange.plugin import courses, fetched
from nbexchange.plugin.answers import Released, is_visible_name
from nbexchange.plugin.client import BearerToken, Client, Login, ServiceError, Unreachable

MISHAPS = (ServiceError, NbExchangeError, OSError)
"""What can go wrong without being a mistake in the program: service, archive and disk."""

RESET = (
    "To get the new one, rename or move your folder and fetch again; "
    "--ExchangeFetchAssignment.reset=True does both, and your work stays in a folder beside it."
)

_GIVE_UP = 3  # items in a row that nobody answered for

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Exchange(abc.Exchange):  # type: ignore[misc]  # nbgrader is not typed
    """The address of the service and how to talk to it: `c.Exchange.*`."""

    base_service_url = Unicode(
        "http://127.0.0.1:9000",
        help="Scheme, host and port of the exchange service. The environment variable "
        "NBEXCHANGE_URL names the whole address instead, path included.",
    ).tag(config=True)

    base_path = Unicode(
        "/services/nbexchange/",
        help="The path of the exchange service below `base_service_url`.",
    ).tag(config=True)

    auth_class = Type(
        BearerToken,
        klass=AuthBase,
        help="How a request says who asks: a requests.auth.AuthBase, made without arguments. The "
        "default sends the token in NBEXCHANGE_TOKEN, else in JUPYTERHUB_API_TOKEN.",
    ).tag(config=True)

    connect_timeout = Float(
        3.0,
        min=0.001,
        help="Seconds to wait for a connection. The whole Jupyter server waits with it.",
    ).tag(config=True)

    api_timeout = Float(
        30.0,
        min=0.001,
        help="Seconds without a single byte after which an answer is given up.",
    ).tag(config=True)

    retries = Integer(
        3,
        min=0,
        help="How often a request is tried again when the service is away for a moment.",
    ).tag(config=True)

    max_buffer_size = Integer(
        5_253_530_000,
        min=1,
        help="The largest archive, in bytes, that is sent or received. The service has a limit of "
        "its own; a lower one here says so before anything is sent.",
    ).tag(config=True)

    path_includes_course = Bool(
        False,
        help="Whether assignments lie in a folder of their course: ./course123/ps1, not ./ps1.",
    ).tag(config=True)

    cache = Unicode(
        help="Where copies of what was submitted are kept, with their receipts. Defaults to "
        "$JUPYTER_DATA_DIR/nbgrader_cache.",
    ).tag(config=True)

    @default("cache")
    def _cache_default(self) -> str:
        return str(Path(jupyter_data_dir(), "nbgrader_cache"))

    @property
    def service_url(self) -> str:
        whole = os.environ.get("NBEXCHANGE_URL")
        url = whole or f"{self.base_service_url.rstrip('/')}/{self.base_path.strip('/')}"
        return url.rstrip("/")

    @functools.cached_property
    def client(self) -> Client:
        return Client(
            url=self.service_url,
            auth=Login(self.auth_class),
            log=self.log,
            connect_timeout=self.connect_timeout,
            api_timeout=self.api_timeout,
            retries=self.retries,
            max_buffer_size=self.max_buffer_size,
        )

    def start(self) -> Any:
        """Do it; whatever goes wrong on the way becomes an ExchangeError that is logged once.

        nbgrader shows a traceback for any other exception, and formgrader fails on every page.
        """
        try:
            return super().start()
        except MISHAPS as error:
            problem = sentence(error)
        # Outside of `except`, so that the student's dialog shows no traceback of the cause.
        raise self.failed(problem)

    def failed(self, message: str) -> Exception:
        """What to raise; formgrader shows what is logged, the command line too."""
        self.log.critical(message)
        return abc.ExchangeError(message)  # type: ignore[no-any-return]  # nbgrader is not typed

    def set_timestamp(self) -> None:
        """Our claim of the time, always in UTC; the service's clock decides.

        nbgrader reads EDT, BST and most other names of zones as UTC, so it never sees one.
        """
        super().set_timestamp()  # complains about an invalid `timezone`
        self.timestamp = _utc_now()

    # Courses and names

    def check_course(self) -> str:
        """The course that is meant: the one that is named, else the only one that there is."""
        if not self.coursedir.course_id:
            self.coursedir.course_id = courses.only_one()
        if not self.coursedir.course_id:
            told = courses.told()
            yours = f" Your courses are: {', '.join(sorted(told))}." if told else ""
            raise self.failed(f"No course id specified. Re-run with --course flag.{yours}")
        return str(self.coursedir.course_id)

    def strip_slash(self) -> None:
        """The shell completes "ps1" to "ps1/" where there is such a folder."""
        self.coursedir.assignment_id = self.coursedir.assignment_id.rstrip(os.sep)

    def check_access(self) -> None:
        courses = self.courses_of_student()
        if courses is not None and self.coursedir.course_id not in courses:
            raise self.failed("You do not have access to this course.")

    def courses_of_student(self) -> list[str] | None:
        """The courses that nbgrader's own authenticator allows; None means all."""
        if self.authenticator is None:  # NbGraderAPI forgets to give it to the feedback classes
            return None
        try:
            allowed = self.authenticator.get_student_courses(self.coursedir.student_id)
        except Exception as error:  # noqa: BLE001 - anybody's plugin may raise anything
            kind = type(error).__name__
        else:
            return None if allowed is None else list(allowed)
        raise self.failed(
            f"nbgrader's authenticator cannot say which courses are yours ({kind}). Try again; if "
            "it stays so, ask whoever runs your notebook server."
        )

    def place(self, *parts: str) -> str:
        """Where something is in the exchange, for a person: there is no such file or page."""
        return "/".join((self.client.shown_url, *parts))

    def not_found(self, place: str, others: Iterable[str]) -> Exception:
        """What to raise, as nbgrader does, with the most similar of the others as a hint."""
        message = f"Assignment not found at: {place}"
        self.log.critical(message)
        similar = max(others, key=lambda other: _similarity(place, other), default=None)
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
        """That folder as `assignment_dir` says it, perhaps relative; "./ps1" keeps its dot."""
        name = self.local_name(course_id, assignment_id)
        return os.path.join(self.assignment_dir, name)  # noqa: PTH118 - Path would drop the dot

    def cached_copy(self, course_id: str, student: str, assignment_id: str, timestamp: str) -> Path:
        """Where the copy of a submission is kept; the names have to be folder names."""
        return Path(self.cache, course_id, f"{student}+{assignment_id}+{timestamp}")

    # Releases

    def news(self, released: Released, folder: Path) -> str | None:
        """What to tell somebody whose copy of an assignment is older than the release."""
        try:
            mine = fetched.recall(
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
        """Work on several at a time; hand out each item, in the given order, with its result.

        The result is a function, which waits and raises what went wrong with this item. One that
        does not come does not stop the others; several in a row do, because nobody is there.
        """
        missed: list[_Item] = []

        def work_while_there(item: _Item) -> _Result:
            if len(missed) >= _GIVE_UP:
                raise ServiceError("not tried, because the exchange service went away")
            try:
                result = work(item)
            except Unreachable:
                missed.append(item)
                raise
            missed.clear()
            return result

        pool = ThreadPoolExecutor(workers, thread_name_prefix="nbexchange")
        try:
            futures = [pool.submit(work_while_there, item) for item in items]
            for item, future in zip(items, futures, strict=True):
                yield item, future.result
        finally:
            pool.shutdown(cancel_futures=True)

    def fail_with(self, what: str, failures: dict[str, str], count: int) -> None:
        """After the last one: say which failed and why, if any did."""
        if failures:
            by_reason: dict[str, list[str]] = {}
            for name, reason in failures.items():
                by_reason.setdefault(reason, []).append(name)
            reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
            raise self.failed(f"{len(failures)} of {count} {what}. {reasons}")


def sentence(error: Exception) -> str:
    """What a person reads about an error of ours or of the disk."""
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}: {error.filename or 'here'}"
    text = str(error)
    return text[:1].upper() + text[1:]


def is_wanted(name: str, pattern: str) -> bool:
    """Whether an option like --student means this name: nobody given, the name, or a glob of it.

    The name itself comes first, because as a glob "ps[1]" is not "ps[1]".
    """
    return pattern in ("", "*", name) or fnmatch.fnmatchcase(name, pattern)


def is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
