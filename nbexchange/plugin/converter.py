"""A separate process for converting and validating notebooks.

While nbgrader generates, autogrades or validates, it changes the working directory and the
environment of the whole process, and uses much processor time. In the Jupyter server, that would
affect every other request.

There is at most one such process. It handles one request after the other, and exits after it has
been idle for a while, because it needs as much memory as a small server.
"""

import atexit
import logging
import os
import pickle
import select
import subprocess
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from nbexchange.plugin.jobs import logger_of_job

_IDLE = 30.0  # seconds


@dataclass(frozen=True)
class Conversion:
    """A method of nbgrader's API, which converts notebooks of a course."""

    course: Any  # a CourseSnapshot; only the converter process imports its module
    method: str
    arguments: tuple[str, ...]
    level: int

    def answer(self) -> Any:
        from nbexchange.plugin.course_api import Api

        log, _ = logger_of_job(_log(self.level))
        return getattr(Api(self.course, log, uses_exchange=False), self.method)(*self.arguments)


@dataclass(frozen=True)
class Validation:
    """Validates a student's notebook as nbgrader's page does."""

    root_dir: str
    path: str
    folders: tuple[str, ...]
    level: int

    def answer(self) -> Any:
        from nbgrader.server_extensions.validate_assignment.handlers import (
            ValidateAssignmentHandler,
        )

        from nbexchange.plugin import configuration

        log, _ = logger_of_job(_log(self.level))
        page = SimpleNamespace(
            root_dir=self.root_dir,
            log=log,
            load_config=lambda: configuration.load(log, *self.folders),
        )
        return ValidateAssignmentHandler.validate_notebook(page, self.path)


class ConverterError(Exception):
    """The conversion failed; the message is for the user."""


class Died(ConverterError):
    """The process ended during a request."""

    def __init__(self, status: int) -> None:
        super().__init__(
            f"The process that converts notebooks ended unexpectedly (exit status {status}). Try "
            "again. If it happens again, your server may need more memory: contact your "
            "administrator."
        )


@dataclass(frozen=True)
class _ConverterAnswer:
    result: Any = None
    problem: str = ""

    def value(self) -> Any:
        if self.problem:
            raise ConverterError(self.problem)
        return self.result


class Converter:
    """The converter process. Callers in several threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._stop)

    def ask(self, request: Conversion | Validation) -> Any:
        """Return nbgrader's answer. Raises ConverterError."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
            status = self._send(self._process, request)
            if status == 0:  # it had just exited because it was idle
                self._process = _start()
                status = self._send(self._process, request)
            if isinstance(status, int):
                raise Died(status)
            return status.value()

    @staticmethod
    def _send(process: subprocess.Popen[bytes], request: Conversion | Validation) -> Any:
        """The answer, or the exit status if there is no answer."""
        assert process.stdin
        assert process.stdout
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301 - our own process
        except (OSError, EOFError, pickle.UnpicklingError):
            return process.wait()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()


CONVERTER = Converter()
"""The converter of this Jupyter server."""


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: a user's file with the name of a module must not shadow it.
        [sys.executable, "-P", "-m", "nbexchange.plugin.converter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl+C must only reach the server
    )


# Inside the process


def _log(level: int) -> logging.Logger:
    log = logging.getLogger("nbgrader")
    log.setLevel(level)
    return log


def _work(requests: BinaryIO, answers: BinaryIO) -> None:
    while select.select([requests], [], [], _IDLE)[0]:
        try:
            request = pickle.load(requests)  # noqa: S301 - from the Jupyter server
        except EOFError:
            return
        pickle.dump(_answer(request), answers)
        answers.flush()


def _answer(request: Conversion | Validation) -> _ConverterAnswer:
    try:
        return _ConverterAnswer(request.answer())
    except Exception as error:  # noqa: BLE001 - a bug, or a wrong configuration
        traceback.print_exc()
        return _ConverterAnswer(problem=f"{type(error).__name__}: {error}")


def main() -> None:
    logging.basicConfig(format="[%(levelname)s] %(name)s %(message)s")
    sys.path.append(str(Path.cwd()))  # for a configuration that imports modules beside it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text must not mix with the answers
    with open(os.dup(0), "rb", buffering=0) as raw:  # noqa: PTH123 - a descriptor
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _work(raw, answers)


if __name__ == "__main__":
    # Under its real name, so that pickle finds the classes.
    from nbexchange.plugin import converter

    converter.main()
