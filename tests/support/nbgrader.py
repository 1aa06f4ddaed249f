"""nbgrader's command line, on machines of several people that share nothing but the service.

A `Home` is one person's machine: an own HOME, an own working directory, an own configuration.
`Home.nbgrader("submit", "ps1")` runs the command in a process that was forked from one that had
imported nbgrader already, because importing it takes longer than most commands do.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.parts import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """\
from nbexchange.plugin import configure

c = get_config()
configure(c)
"""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    status: int
    output: str  # standard error and standard output, in the order in which they were written

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


@dataclass
class Home:
    """Somebody's machine. Commands run in `work`, with `env` and nothing else around them."""

    folder: Path
    url: str
    token: str | None
    zygote: Zygote
    course_id: str | None = "physics"
    config: str = ""  # more lines of nbgrader_config.py
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.work = self.folder / "work"
        for folder in (self.home, self.work):
            folder.mkdir(parents=True, exist_ok=True)
        self.configure(self.config)

    def configure(self, more: str = "") -> None:
        """Write nbgrader_config.py: the plugin, the course, and these lines."""
        course = (
            "" if self.course_id is None else f"c.CourseDirectory.course_id = {self.course_id!r}\n"
        )
        config = self.home / ".jupyter" / "nbgrader_config.py"
        config.parent.mkdir(exist_ok=True)
        config.write_text(f"{CONFIG}{course}{more}\n")

    @property
    def cache(self) -> Path:
        return self.home / ".local/share/jupyter/nbgrader_cache"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process on this machine, be it a command or a Jupyter server."""
        environment = {
            # `alembic` is looked for on the PATH when a gradebook is made.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "NBEXCHANGE_URL": self.url,
        }
        if self.token is not None:
            environment["NBEXCHANGE_TOKEN"] = self.token
        return {**environment, **self.env}

    def nbgrader(self, *arguments: str, cwd: Path | None = None) -> Ran:
        return self.zygote.run(["nbgrader", *arguments], self.environment, cwd or self.work)

    def python(self, code: str, cwd: Path | None = None) -> Ran:
        """Run some Python there, with nbgrader imported already."""
        return self.zygote.run(["python", code], self.environment, cwd or self.work)

    def value(self, expression: str) -> Any:
        """What nbgrader's Python interface answers there, through JSON.

        `config`, `coursedir`, `authenticator`, `exchange` and `api` are as nbgrader makes them.
        """
        ran = self.python(_PRELUDE + f"print('\\n' + MARK + json.dumps({expression}))")
        assert ran.status == 0, ran.output
        return json.loads(ran.output.rpartition(_MARK)[2])

    def nbgrader_in_a_new_process(self, *arguments: str) -> Ran:
        """The same without the fork: slow, and what the fork is measured by."""
        ran = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            text=True,
        )
        return Ran(ran.returncode, ran.stdout)


_MARK = "===value==="
_PRELUDE = f"""
import json, os
from nbgrader.apps import NbGrader
from nbgrader.apps.api import NbGraderAPI
from nbgrader.auth import Authenticator
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeFactory
MARK = {_MARK!r}
app = NbGrader()
app.load_config_file()
config = app.config
coursedir = CourseDirectory(config=config)
authenticator = Authenticator(config=config)
exchange = ExchangeFactory(config=config)
class Api:
    def __getattr__(self, name):
        return getattr(NbGraderAPI(config=config), name)
api = Api()
"""


def write_notebook(
    path: Path, source: str = "x = 1", cells: list[dict[str, Any]] | None = None
) -> None:
    """A notebook with one code cell, or with these cells."""
    code = {
        "cell_type": "code",
        "id": "code",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    notebook = {
        "cells": cells or [code],
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook))


def graded_cells() -> list[dict[str, Any]]:
    """A question and its test, as an instructor writes them for `generate_assignment`."""

    def cell(name: str, source: str, **nbgrader: Any) -> dict[str, Any]:
        marks = {"grade": False, "solution": False, "locked": False, "task": False}
        return {
            "cell_type": "code",
            "id": name,
            "metadata": {"nbgrader": {**marks, **nbgrader, "grade_id": name, "schema_version": 3}},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }

    return [
        cell("answer", "### BEGIN SOLUTION\nx = 2\n### END SOLUTION", solution=True),
        cell("test", "assert x == 2", grade=True, locked=True, points=1),
    ]


# The process that commands are forked from


class Zygote:
    """A Python that has imported nbgrader and waits on a socket; each request is a fork of it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zygote-")
        self._address = str(Path(self._folder.name, "socket"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NBEXCHANGE_TOKEN": ""}
        # -P, lest this very file be found as `nbgrader`.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, self._address],
            env=environment,
            stdin=subprocess.PIPE,  # it ends when this is closed, whatever becomes of us
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE)
        self._folder.cleanup()

    def run(self, command: list[str], environment: dict[str, str], cwd: Path) -> Ran:
        with (
            tempfile.TemporaryFile() as output,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            connection.settimeout(PATIENCE)
            connection.connect(self._address)
            request = {"command": command, "environment": environment, "cwd": str(cwd)}
            socket.send_fds(connection, [b"."], [output.fileno()])
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answer:
                status = int(answer.readline())
            output.seek(0)
            return Ran(status, output.read().decode(errors="replace"))


@contextmanager
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    try:
        yield running
    finally:
        running.close()


def _serve(address: str) -> None:
    import nbgrader.apps.nbgraderapp  # noqa: F401

    import nbexchange.plugin  # noqa: F401

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(16)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
        while True:
            if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
                return  # it was closed: the tests are over
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _answer(connection)
            connection.close()


def _answer(connection: socket.socket) -> None:
    """In a process of its own: run the command in another and send its exit status."""
    status = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, (output,), _, _ = socket.recv_fds(connection, 1, 1)
        with connection.makefile("rb") as lines:
            request = json.loads(lines.readline())
        child = os.fork()
        if child == 0:
            connection.close()
            _become(request, output)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(b"%d\n" % status)
    finally:
        os._exit(status)


def _become(request: dict[str, Any], output: int) -> None:
    """Be the command, as `python -m nbgrader` would be, and never return."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        status = _call(*request["command"])
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter does in the end
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _call(program: str, *arguments: str) -> int:
    try:
        if program == "python":
            exec(compile(arguments[0], "<test>", "exec"), {"__name__": "__main__"})
        else:
            from nbgrader.apps import nbgraderapp

            sys.argv = [str(Path(nbgraderapp.__file__).parents[1] / "__main__.py"), *arguments]
            nbgraderapp.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
