"""docker-compose.yml, run: one command brings up all that somebody asked for.

The images of other projects are stand-ins from Debian where they cannot be fetched (standins/); the
service, its migration and Compose are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import engine
from tests.image.engine import TAG, inspect, run
from tests.image.recipes import PEOPLE, TOP, env_file
from tests.support.archives import tar_gz, upload_headers
from tests.support.parts import free_port
from tests.support.service import Wire

pytestmark = pytest.mark.slow

PS1 = {"course_id": "demo", "assignment_id": "ps1"}


class Project:
    """What one .env makes of docker-compose.yml."""

    def __init__(self, program: list[str], place: Path, parts: list[str]) -> None:
        self.name = f"nbexchange-{secrets.token_hex(4)}"
        file = env_file(place, parts)
        self._command = [*program, f"--project-name={self.name}", f"--env-file={file}"]
        self.ports = [free_port()]

    def __call__(self, *words: str) -> str:
        ports = sorted({self.ports[0], self.ports[-1]})
        env = {
            **os.environ,
            "NBEXCHANGE_TAG": TAG,
            "NBEXCHANGE_PORT": "127.0.0.1:" + "-".join(map(str, ports)),
        }
        done = run(*self._command, *words, cwd=TOP, env=env)
        assert done.returncode == 0, done.stderr + self.logs()
        return done.stdout

    def logs(self) -> str:
        return run(*self._command, "logs", "--no-color", cwd=TOP).stdout

    def up(self, *words: str) -> None:
        self("up", "--no-build", "--detach", "--wait", "--wait-timeout=300", *words)

    def url(self, number: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[number]}/services/nbexchange"

    def wire(self, person: str, number: int = 0) -> Wire:
        return Wire(self.url(number), f"sample-token-of-{person}-replace-me")

    def exit_code(self, service: str) -> int:
        return int(inspect(f"{self.name}-{service}-1", ".State.ExitCode"))


@pytest.fixture(scope="session")
def program(image: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    engine.make_standins()
    return engine.compose_program(tmp_path_factory.mktemp("compose"))


@pytest.fixture
def project(request, program: list[str], tmp_path: Path) -> Iterator[Project]:
    made = Project(program, tmp_path, request.param)
    yield made
    made("down", "--volumes", "--timeout=30")


def release(project: Project) -> None:
    body = tar_gz(p1=b"release")
    answer = project.wire("ada").post("assignment", body, upload_headers(body), **PS1)
    assert answer.status_code == 201, answer.text


def submit(project: Project, number: int = 0) -> None:
    body = tar_gz(p1=secrets.token_bytes(100))
    answer = project.wire("ben", number).post("submission", body, upload_headers(body), **PS1)
    assert answer.status_code == 201, answer.text


def collectable(project: Project, number: int = 0) -> int:
    """How many submissions the instructor gets whole."""
    ada = project.wire("ada", number)
    listed = ada.get("collections", **PS1).json()["value"]
    return sum(ada.get("collection", **PS1, path=one["path"]).ok for one in listed)


@pytest.mark.parametrize("project", [[], ["mariadb"]], ids=["sqlite", "mariadb"], indirect=True)
def test_one_command_is_all_it_takes_and_the_next_keeps_everything(project):
    project.up()
    release(project)
    submit(project)

    project("down")
    project.up()

    assert collectable(project) == 1
    assert project.exit_code("upgrade-db") == 0


@pytest.mark.parametrize("project", [["postgresql", "s3"]], ids=["postgresql-s3"], indirect=True)
def test_a_course_goes_through_a_database_server_and_a_store(project, tmp_path):
    project.up()
    assert project.exit_code("bucket") == 0
    assert project.exit_code("upgrade-db") == 0

    done = subprocess.run(
        [
            *(sys.executable, "-m", "nbexchange", "demo", f"--url={project.url()}"),
            *(f"--people={PEOPLE}", f"--directory={tmp_path / 'demo'}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Every byte and all feedback arrived.")
    # Nothing but the room for uploads under way is on the disk of the service.
    files = project("exec", "-T", "nbexchange", "find", "/srv/nbexchange", "-type", "f")
    assert files == ""

    project.ports = neighbours()
    project.up("--scale=nbexchange=2")
    release(project)
    submit(project, 0)
    submit(project, 1)
    assert [collectable(project, number) for number in (0, 1)] == [2, 2]
    assert "0 missing" in project("exec", "-T", "nbexchange", "nbexchange", "check")
    running = [json.loads(line) for line in project("ps", "--format=json").splitlines()]
    assert {one["Health"] for one in running} == {"healthy"}
    assert sum(one["Service"] == "nbexchange" for one in running) == 2


def neighbours() -> list[int]:
    """Two free ports, one after the other."""
    while True:
        first = free_port()
        with socket.socket() as second, contextlib.suppress(OSError):
            second.bind(("127.0.0.1", first + 1))
            return [first, first + 1]
