"""What all eight classes share: options, the client, the student's folders, and one way to fail."""

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
        timeouts.CONNECT,
        min=0.001,
        help="Seconds to wait for a connection. The whole Jupyter server waits with it.",
    ).tag(config=True)

    send_timeout = Float(
        timeouts.SEND,
        min=0.001,
        help="Seconds that a line may stand still while a file is sent. The second try waits twice "
        "as long, the third three times. The service takes nothing of a file before it knows who "
        "sends it and has a place for it, which may take "
        f"{timeouts.BEFORE_BODY:g} seconds.",
    ).tag(config=True)

    api_timeout = Float(
        timeouts.ANSWER,
        min=0.001,
        help="Seconds without a single byte after which an answer is given up. From its first byte "
        "on, an answer may take so long, and one second more for each 1,000 bytes.",
    ).tag(config=True)

    transfer_timeout = Float(
        timeouts.TRANSFER,
        min=0.001,
        help="Seconds to wait for the receipt of a file that was sent, besides a second for each "
        "10 MB, and for the first byte of a file that is fetched.",
    ).tag(config=True)

    retries = Integer(
        3,
        min=0,
        help="How often a request is tried again when the service is unavailable for a moment or "
        "the connection breaks. Before a file is sent again, the plugin waits until the service "
        "answers a small request, which counts as a try where it fails.",
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

    root = Unicode(
        help="Ignored, so that it may stay in a configuration that was made for nbgrader's own "
        "exchange, which is a folder. Formgrader shows the address of the service instead.",
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
        """Do it; whatever goes wrong on the way becomes an ExchangeError that is logged once.

        nbgrader shows a traceback for any other exception, and formgrader fails on every page.
        """
        try:
            return super().start()
        except abc.ExchangeError:
            raise
        except Exception as error:
            self.log.debug("%s", type(error).__name__, exc_info=True)
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
            known_courses = courses.courses_from_env()
            yours = (
                f" Your courses are: {', '.join(sorted(known_courses))}." if known_courses else ""
            )
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

    def display_path(self, *parts: str) -> str:
        """Where something is in the exchange, for a person: there is no such file or page."""
        return "/".join((self.client.shown_url, *parts))

    def not_found(self, address: str, others: Iterable[str]) -> Exception:
        """What to raise, as nbgrader does, with the most similar of the others as a hint."""
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
        """That folder as `assignment_dir` says it, perhaps relative; "./ps1" keeps its dot."""
        name = self.local_name(course_id, assignment_id)
        return os.path.join(self.assignment_dir, name)  # noqa: PTH118 - Path would drop the dot

    def cached_copy(self, course_id: str, student: str, assignment_id: str, timestamp: str) -> Path:
        """Where the copy of a submission is kept; the names have to be folder names."""
        return Path(self.cache, course_id, f"{student}+{assignment_id}+{timestamp}")

    def remove_abandoned(self, *folders: Path) -> None:
        """Remove the temporary folders that killed commands left there and in the cache."""
        for folder in (*folders, *Path(self.cache).glob("*")):
            temporary.remove_abandoned(folder)

    def folder_of_copy(self, course_id: str, assignment_id: str) -> str:
        """Where the student's copy is: under the assignment's name, else under the name that the
        student gave to it, if that is known. As `local_folder` says it."""
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
        """Whether a folder holds the assignment.

        It has at least one of the release's notebooks: feedback alone makes a folder of that name
        too. What an older release left there is a copy as well, whatever its notebooks were called.
        """
        course_id = self.course_of_folder(folder)
        if course_id is not None and course_id != released.course_id:
            return False
        if any(files.is_file(folder / name) for name in released.notebook_files):
            return True
        may_differ = not released.notebook_files or self.news(released, folder) is not None
        return may_differ and files.has_work(folder)

    def news(self, released: Released, folder: Path) -> str | None:
        """What to tell somebody whose copy of an assignment is older than the release."""
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
        """Work on several at a time; hand out each item, in the given order, with its result.

        The result is a function, which waits and raises what went wrong with this item. One that
        does not come does not stop the others; several in a row do, because nobody is there.
        """
        unreachable: list[_Item] = []

        def work_while_available(item: _Item) -> _Result:
            if len(unreachable) >= _GIVE_UP:
                raise ServiceError("not tried, because the exchange service went away")
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
        """After the last one: say which failed and why, if any did."""
        if failures:
            by_reason: dict[str, list[str]] = {}
            for name, reason in failures.items():
                by_reason.setdefault(reason, []).append(name)
            reasons = "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
            raise self.failed(f"{len(failures)} of {count} {what}. {reasons}")


def sentence(error: Exception) -> str:
    """What a person reads about an error."""
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
    """Whether an option like --student means this name: nobody given, the name, or a glob of it.

    The name itself comes first, because as a glob "ps[1]" is not "ps[1]".
    """
    return pattern in ("", "*", name) or fnmatch.fnmatchcase(name, pattern)


def is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _similarity(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def _utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
