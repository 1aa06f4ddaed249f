"""nbexchange demo: one course with real nbgrader commands, from release to feedback."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from traitlets import Unicode

from nbexchange.commands.base import Command
from nbexchange.errors import Misconfigured, NbExchangeError
from nbexchange.handlers.auth.token_file import InvalidPeople, parse_people

INSTRUCTOR = "ada"
ANSWERS = {"ben": "a + b", "chloe": "a - b", "dmitri": "sum([a, b])"}
"""The students and their solutions of the exercise; one of them is wrong."""

CONVERTERS = ("generate_assignment", "autograde", "generate_feedback", "export")
"""Commands that do not use the exchange and print a lot; their output goes to a file."""

NBGRADER_CONFIG = """\
from nbexchange.plugin import configure

c = get_config()
configure(c)
c.CourseDirectory.course_id = {course_id!r}
"""


class DemoFailed(NbExchangeError):
    """A file did not arrive, or a command failed."""


@dataclass(frozen=True)
class DemoPerson:
    """A person with a machine of their own: a separate home directory."""

    name: str
    token: str
    home: Path


@dataclass(frozen=True)
class Result:
    """The result of one student's work."""

    student: str
    timestamp: str
    files: int
    score: str
    feedback: Path


class Demo(Command):
    """Take one course through the exchange, step by step.

    Starts a service of its own, or uses the one at --url. An instructor and three students, each
    in a separate home that shares nothing with the others but the service, run the real nbgrader
    commands: release, fetch, submit, collect, autograde, release and fetch feedback. Ends with a
    table of the results. The exit status is 0 only if every byte and all feedback arrived.
    """

    name = "nbexchange-demo"
    description = __doc__ or ""
    examples = """
    nbexchange demo
    nbexchange demo --url=http://127.0.0.1:9000/services/nbexchange --people=people.json
    """
    aliases: dict[Any, Any] = {
        "url": "Demo.url",
        "people": "Demo.people",
        "course": "Demo.course_id",
        "directory": "Demo.directory",
    }

    url = Unicode(help="The address of a running service. Without it, a service is started.").tag(
        config=True
    )
    people = Unicode(
        help="""
        With --url: the token file of that service (see TokenFileUserHandler). An instructor and at
        least one student of --course are taken from it.
        """
    ).tag(config=True)
    course_id = Unicode("demo", help="The course to use.").tag(config=True)
    directory = Unicode(
        "nbexchange-demo", help="The folder for all files; each run creates a folder in it."
    ).tag(config=True)

    def run(self) -> None:
        if importlib.util.find_spec("nbgrader") is None:
            raise Misconfigured("nbgrader is missing. Install nbexchange with its extra [plugin].")
        started = datetime.datetime.now().astimezone()
        self.folder = Path(self.directory).absolute() / started.strftime("%Y-%m-%d-%H%M%S")
        self.folder.mkdir(parents=True)
        self.assignment_id = f"demo-{started:%Y%m%d-%H%M%S}" if self.url else "ps1"
        self._step = 0
        with self._service() as (url, people_file):
            self._url = url
            instructor, students = self._people(people_file)
            results = self._course(instructor, students)
        self._table(instructor, results)

    # -- the service and the people

    @contextlib.contextmanager
    def _service(self) -> Iterator[tuple[str, Path]]:
        if self.url:
            yield self.url.rstrip("/"), Path(self.people)
            return
        people_file = self.folder / "people.json"
        roles = {INSTRUCTOR: "Instructor"} | dict.fromkeys(ANSWERS, "Student")
        people_file.write_text(
            json.dumps(
                {
                    secrets.token_hex(16): {
                        "name": name,
                        "full_name": f"{name.title()} Demo",
                        "email": f"{name}@example.org",
                        "courses": {self.course_id: role},
                    }
                    for name, role in roles.items()
                },
                indent=2,
            )
        )
        people_file.chmod(0o600)
        with _own_service(self.folder, people_file) as url:
            self._say(f"A service runs at {url}")
            yield url, people_file

    def _people(self, people_file: Path) -> tuple[DemoPerson, list[DemoPerson]]:
        try:
            people_by_token = parse_people(people_file.read_bytes())
        except (OSError, InvalidPeople) as error:
            raise Misconfigured(
                f"--url needs --people with the token file of that service ({error})."
            ) from None
        roles: dict[str, list[DemoPerson]] = {"instructor": [], "student": []}
        for token, person in people_by_token.items():
            courses = person.get("courses") or {person.get("course_id"): person.get("course_role")}
            role = courses.get(self.course_id)
            role = role.get("role") if isinstance(role, dict) else role
            if role is not None:
                kind = "instructor" if role.lower() == "instructor" else "student"
                roles[kind].append(self._person(person["name"], token))
        if not roles["instructor"] or not roles["student"]:
            raise Misconfigured(
                f"{people_file} has no instructor or no student of course {self.course_id!r}. "
                "Name another course with --course."
            )
        return roles["instructor"][0], roles["student"][: len(ANSWERS)]

    def _person(self, name: str, token: str) -> DemoPerson:
        home = self.folder / "homes" / name
        home.mkdir(parents=True)
        config = NBGRADER_CONFIG.format(course_id=self.course_id)
        (home / "nbgrader_config.py").write_text(config)
        return DemoPerson(name, token, home)

    # -- the course

    def _course(self, instructor: DemoPerson, students: Sequence[DemoPerson]) -> list[Result]:
        ps = self.assignment_id
        self._say(f"{instructor.name}, the instructor, writes an assignment and releases it")
        source = instructor.home / "source" / ps
        source.mkdir(parents=True)
        (source / "sums.ipynb").write_text(json.dumps(_notebook()))
        (source / "numbers.csv").write_text("a,b\n1,2\n")
        self._nbgrader(instructor, "generate_assignment", ps)
        self._nbgrader(instructor, "release_assignment", ps)

        for student, answer in zip(students, ANSWERS.values(), strict=False):
            self._say(f"{student.name}, a student, fetches it, works on it, and submits")
            self._nbgrader(student, "list")
            self._nbgrader(student, "fetch_assignment", ps)
            _solve(student.home / ps / "sums.ipynb", answer)
            submitted = self._nbgrader(student, "submit", ps)
            if "Submitted as" not in submitted:
                raise DemoFailed(f"{student.name}'s submission was not acknowledged.")

        self._say(f"{instructor.name} collects, grades, and gives feedback")
        for verb in ("collect", "autograde", "generate_feedback", "release_feedback"):
            self._nbgrader(instructor, verb, ps)

        for student in students:
            self._say(f"{student.name} fetches the feedback")
            self._nbgrader(student, "fetch_feedback", ps)
            self._nbgrader(student, "list", "--cached")
        scores = self._scores(instructor)
        return [self._result(instructor, student, scores) for student in students]

    def _scores(self, instructor: DemoPerson) -> dict[str, str]:
        self._nbgrader(instructor, "export")
        lines = (instructor.home / "grades.csv").read_text().splitlines()
        heads = lines[0].split(",")
        rows = [dict(zip(heads, line.split(","), strict=False)) for line in lines[1:]]
        return {
            row["student_id"]: f"{row['score']} of {row['max_score']}"
            for row in rows
            if row["assignment"] == self.assignment_id
        }

    def _result(
        self, instructor: DemoPerson, student: DemoPerson, scores: dict[str, str]
    ) -> Result:
        """Compare the files of both ends byte by byte."""
        ps = self.assignment_id
        work = student.home / ps
        arrived = instructor.home / "submitted" / student.name / ps
        files = [path for path in sorted(work.rglob("*")) if path.is_file()]
        sent = [path for path in files if "feedback" not in path.relative_to(work).parts]
        for path in sent:
            _compare(path, arrived / path.relative_to(work))
        timestamp = (arrived / "timestamp.txt").read_text().strip()
        feedback = work / "feedback" / timestamp / "sums.html"
        _compare(instructor.home / "feedback" / student.name / ps / "sums.html", feedback)
        if student.name not in scores:
            raise DemoFailed(f"{student.name} has no score.")
        return Result(student.name, timestamp, len(sent), scores[student.name], feedback)

    # -- output

    def _say(self, what: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {what}", flush=True)

    def _table(self, instructor: DemoPerson, results: Sequence[Result]) -> None:
        self._say("Results")
        print(f"\n   {'student':<10} {'official time':<31} {'files':>5}  {'score':<12} feedback")
        for row in results:
            feedback = row.feedback.relative_to(self.folder)
            print(
                f"   {row.student:<10} {row.timestamp:<31} {row.files:>5}  {row.score:<12} "
                f"{feedback}"
            )
        collected = (instructor.home / "submitted").relative_to(self.folder)
        print(f"\n   Collected by {instructor.name}: {collected}")
        print(f"   All files are in {self.folder}")
        print("\nEvery byte and all feedback arrived.")

    def _nbgrader(self, person: DemoPerson, *words: str) -> str:
        """Run a command on a person's machine; raise DemoFailed if it fails."""
        print(f"\n   {person.name}$ nbgrader {shlex.join(words)}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=person.home,
            env=self._environment(person),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        with (person.home / "nbgrader.log").open("a") as log:
            log.write(f"$ nbgrader {shlex.join(words)}\n{done.stdout}\n")
        failed = done.returncode != 0
        if failed or words[0] not in CONVERTERS:
            print(textwrap.indent(done.stdout, "     "), end="", flush=True)
        if failed:
            raise DemoFailed(f"`nbgrader {shlex.join(words)}` failed for {person.name}")
        return done.stdout

    def _environment(self, person: DemoPerson) -> dict[str, str]:
        """The environment of a separate machine: only the program paths are shared."""
        # nbgrader starts `alembic` by its name.
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {
            "PATH": programs,
            "HOME": str(person.home),
            "USER": person.name,
            "LOGNAME": person.name,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "JUPYTER_PLATFORM_DIRS": "1",
            "NBEXCHANGE_URL": self._url,
            "NBEXCHANGE_TOKEN": person.token,
        }


@contextlib.contextmanager
def _own_service(folder: Path, people_file: Path) -> Iterator[str]:
    """Start a service in its own process on a free port; yields its address."""
    options = [
        "--NbExchange.ip=127.0.0.1",
        "--NbExchange.port=0",
        "--NbExchange.user_plugin_class=nbexchange.handlers.auth.token_file.TokenFileUserHandler",
        f"--TokenFileUserHandler.path={people_file}",
        f"--NbExchange.base_storage_location={folder / 'data'}",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "nbexchange", *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NBEX_DB_URL": ""},
    )
    assert process.stderr is not None
    with process.stderr as output, (folder / "service.log").open("w") as log:
        try:
            port = _announced_port(output)
            # The service would block as soon as the pipe is full, so a thread reads it.
            threading.Thread(target=shutil.copyfileobj, args=(output, log), daemon=True).start()
            yield f"http://127.0.0.1:{port}/services/nbexchange"
        finally:
            process.terminate()
            process.wait()


def _announced_port(output: IO[str]) -> str:
    lines = []
    for line in output:
        lines.append(line)
        match = re.search(r"on port (\d+)/", line)
        if match:
            return match[1]
    raise DemoFailed("The service did not start:\n" + "".join(lines))


def _compare(sent: Path, arrived: Path) -> None:
    if not arrived.is_file() or arrived.read_bytes() != sent.read_bytes():
        raise DemoFailed(f"{sent.name} did not arrive as it was sent: {arrived}")


def _notebook() -> dict[str, object]:
    """An exercise: one cell to solve, one that tests it."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
        "cells": [
            _cell(
                "add",
                "def add(a, b):\n    ### BEGIN SOLUTION\n    return a + b\n    ### END SOLUTION",
                solution=True,
            ),
            _cell("test", "assert add(1, 2) == 3\nassert add(0.5, 0.25) == 0.75", points=2),
        ],
    }


def _cell(name: str, source: str, *, solution: bool = False, points: int = 0) -> dict[str, object]:
    nbgrader: dict[str, object] = {
        "grade_id": name,
        "schema_version": 3,
        "solution": solution,
        "grade": bool(points),
        "locked": not solution,
        "task": False,
    }
    if points:
        nbgrader["points"] = points
    return {
        "id": name,
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"nbgrader": nbgrader},
        "outputs": [],
        "source": source,
    }


def _solve(notebook: Path, answer: str) -> None:
    content = json.loads(notebook.read_text())
    content["cells"][0]["source"] = f"def add(a, b):\n    return {answer}\n"
    notebook.write_text(json.dumps(content))
