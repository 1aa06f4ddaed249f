"""A process of its own for what changes its process: converting and validating notebooks.

While nbgrader generates, autogrades or validates, it changes the folder and the environment of the
whole process, and computes. In the Jupyter server that would reach every other request.

There is one such process at most. It works on one request after the other, and ends when it has
nothing to do for a while, because it needs the memory of a small server.
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

    course: Any  # a Course; only the process itself needs to import what that needs
    method: str
    arguments: tuple[str, ...]
    level: int

    def answer(self) -> Any:
        from nbexchange.plugin.course_api import Api

        log, _ = logger_of_job(_log(self.level))
        return getattr(Api(self.course, log, uses_exchange=False), self.method)(*self.arguments)


@dataclass(frozen=True)
class Validation:
    """A student's notebook, checked as nbgrader's page does it."""

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
    """A sentence for the person who asked."""


class Died(ConverterError):
    """The process ended in the middle of a request."""

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
    """Callers in other threads wait for their turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._stop)

    def ask(self, request: Conversion | Validation) -> Any:
        """What nbgrader answers. Raises ConverterError."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
            status = self._send(self._process, request)
            if status == 0:  # it had gone idle just before
                self._process = _start()
                status = self._send(self._process, request)
            if isinstance(status, int):
                raise Died(status)
            return status.value()

    @staticmethod
    def _send(process: subprocess.Popen[bytes], request: Conversion | Validation) -> Any:
        """The answer, or the exit status where there is none."""
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
"""The one of this Jupyter server."""


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: a file of the person that is called like a module is not one.
        [sys.executable, "-P", "-m", "nbexchange.plugin.converter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl+C is meant for the server
    )


# Inside of the process


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
    except Exception as error:  # noqa: BLE001 - a mistake in the program, or in a configuration
        traceback.print_exc()
        return _ConverterAnswer(problem=f"{type(error).__name__}: {error}")


def main() -> None:
    logging.basicConfig(format="[%(levelname)s] %(name)s %(message)s")
    sys.path.append(str(Path.cwd()))  # for a configuration that imports what lies beside it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints is no answer
    with open(os.dup(0), "rb", buffering=0) as raw:  # noqa: PTH123 - a descriptor
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _work(raw, answers)


if __name__ == "__main__":
    # Under its real name, which pickles know.
    from nbexchange.plugin import converter

    converter.main()
