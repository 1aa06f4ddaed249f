"""The image, run as docs/images.md says: everything dropped, nothing to write to but its volume."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.image.engine import BASE, IMAGE, docker, inspect, run, script
from tests.image.recipes import CHART, PEOPLE, PROJECT
from tests.image.test_requirements import SERVICE, lines
from tests.support import course
from tests.support.archives import sha256, tar_gz, upload_headers
from tests.support.process import wait_until
from tests.support.raw import RawConnection
from tests.support.service import PATIENCE, Wire

pytestmark = pytest.mark.slow

PS1 = {"course_id": "demo", "assignment_id": "ps1"}
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
WHO_IS_IT = "import os; print(os.getuid(), os.getgid(), *os.getgroups())"
WHAT_IS_IN_IT = """
import json
from importlib.metadata import distributions
print(json.dumps({one.name.lower().replace("_", "-"): one.version for one in distributions()}))
"""


def token(person: str) -> str:
    return f"sample-token-of-{person}-replace-me"


class Container:
    """The service, on a volume of its own that outlives it."""

    def __init__(self, name: str, volume: str) -> None:
        self.name = name
        docker(
            *("run", "--detach", f"--name={name}", f"--network={volume}", *HARDENED),
            *("--publish=127.0.0.1::9000", f"--volume={volume}:/srv/nbexchange"),
            *(f"--volume={PEOPLE.parent}:/etc/config:ro", IMAGE),
        )
        address = docker("port", name, "9000/tcp").splitlines()[0]
        self.url = f"http://{address}/services/nbexchange"

    def wire(self, person: str) -> Wire:
        return Wire(self.url, token(person))

    def answers(self) -> bool:
        ask = "import urllib.request as u; u.urlopen('http://127.0.0.1:9000/readyz')"
        return run("docker", "exec", self.name, "python", "-c", ask).returncode == 0

    def ready(self) -> Container:
        wait_until(self.answers, "a container that is ready")
        return self

    def python(self, code: str) -> str:
        return docker("exec", self.name, "python", "-c", code)

    def sh(self, line: str) -> subprocess.CompletedProcess[str]:
        return run("docker", "exec", self.name, "sh", "-c", line)

    def remove(self) -> None:
        run("docker", "rm", "--force", self.name)


@pytest.fixture(scope="module")
def volume(image: str) -> Iterator[str]:
    """A volume, and a network of the same name."""
    name = f"nbexchange-{secrets.token_hex(4)}"
    docker("network", "create", name)
    docker("volume", "create", name)
    yield name
    run("docker", "volume", "rm", "--force", name)
    run("docker", "network", "rm", name)


@pytest.fixture(scope="module")
def container(volume: str) -> Iterator[Container]:
    running = Container(f"{volume}-a", volume).ready()
    yield running
    running.remove()


def test_the_image_is_what_the_chart_expects(image):
    config = inspect(image, ".Config")

    security = CHART["securityContext"]
    assert config["User"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert list(config["ExposedPorts"]) == ["9000/tcp"]
    assert list(config["Volumes"]) == ["/srv/nbexchange"]
    assert config["Entrypoint"] == ["nbexchange"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.licenses"] == PROJECT["license"]


def test_nobody_in_it_is_root_or_can_become_it(container):
    status = container.sh("cat /proc/1/status").stdout

    assert container.python(WHO_IS_IT) == "1000 1000 1000"
    assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)


def test_one_process_is_all_there_is(container):
    words = container.sh(r"tr '\0' ' ' < /proc/1/cmdline").stdout.split()
    processes = container.sh("ls -d /proc/[0-9]*").stdout.split()

    assert words == ["/opt/nbexchange/bin/python", "/opt/nbexchange/bin/nbexchange"]
    # The shell that looks, and its ls.
    assert len(processes) <= 3


def test_nothing_can_be_written_outside_its_volume(container):
    for place in ("/", "/opt/nbexchange", "/etc", "/tmp", "/var/tmp"):
        assert "Read-only" in container.sh(f"touch {place}/x").stderr, place

    assert container.sh("touch /srv/nbexchange/x && rm /srv/nbexchange/x").returncode == 0


def test_only_what_is_locked_is_in_it(container):
    there = json.loads(container.python(WHAT_IS_IN_IT))

    python = container.python("import platform; print(platform.python_version())")
    env = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    locked = [Requirement(line.split(" --hash")[0]) for line in lines(SERVICE)]
    asked = {
        one.name: next(iter(one.specifier)).version
        for one in locked
        if one.marker is None or one.marker.evaluate({**env, "sys_platform": "linux"})
    }
    # Debian's and the official base have pip and the like elsewhere.
    assert there == asked | {"nbexchange": PROJECT["version"]}


@pytest.mark.parametrize("module", ["nbgrader", "jupyterlab", "jupyter_server", "notebook", "pip"])
def test_the_notebooks_side_is_not_in_it(container, module):
    found = f"import importlib.util as u; print(u.find_spec({module!r}))"

    assert container.python(found) == "None"


@pytest.mark.parametrize("program", ["cc", "gcc", "g++", "clang", "make", "ld", "as", "cargo"])
def test_no_compiler_is_in_it(container, program):
    assert container.sh(f"command -v {program}").returncode != 0


def test_its_own_check_calls_it_healthy(container):
    wait_until(lambda: inspect(container.name, ".State.Health.Status") == "healthy", "health")


def test_its_own_check_notices_that_nobody_answers(image):
    words = inspect(image, ".Config.Healthcheck.Test")

    assert words[0] == "CMD"
    alone = ("docker", "run", "--rm", "--network=none", f"--entrypoint={words[1]}", image)
    assert run(*alone, *words[2:]).returncode != 0


def test_a_stop_waits_for_an_upload_and_a_new_container_has_it(volume):
    old = Container(f"{volume}-old", volume).ready()
    try:
        release = tar_gz(p1=b"release")
        assert old.wire("ada").post("assignment", release, upload_headers(release), **PS1).ok
        early, late = tar_gz(p1=b"early"), tar_gz(p1=secrets.token_bytes(300_000))
        assert old.wire("ben").post("submission", early, upload_headers(early), **PS1).ok

        headers = {**upload_headers(late), "Content-Length": str(len(late))}
        with RawConnection(old.url, token("ben")) as upload:
            upload.send(upload.head("POST", "submission", headers, **PS1), late[:1000])
            wait_until(lambda: course.uploads_in_flight(old.wire("ada")) == 1, "an upload")
            stop = ("docker", "stop", "--time=30", old.name)
            with subprocess.Popen(stop, stdout=subprocess.DEVNULL) as stopping:
                wait_until(lambda: not old.answers(), "the end")
                upload.send(late[1000:])
                assert upload.answer().status == 201
                assert stopping.wait(PATIENCE) == 0
        assert inspect(old.name, ".State.ExitCode") == 0
    finally:
        old.remove()

    new = Container(f"{volume}-new", volume).ready()
    try:
        listed = new.wire("ada").get("collections", **PS1).json()["value"]
        kept = {
            sha256(new.wire("ada").get("collection", **PS1, path=one["path"]).content)
            for one in listed
        }
        assert kept == {sha256(early), sha256(late)}
    finally:
        new.remove()


def test_the_script_builds_it_and_takes_a_course_through_it(base, tmp_path):
    done = script("image", "from-script", TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        rf"Built nbexchange:from-script in \d+ s: \d+ MB, of which {BASE}", done.stdout
    )
    assert "Every byte and all feedback arrived." in done.stdout
    assert "it stopped with status 0" in done.stdout
    assert list(Path(tmp_path).iterdir()) == []


def test_the_script_fails_where_the_demo_fails(base, tmp_path):
    broken = tmp_path / "demo"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)

    done = script("image", "from-script", NBEXCHANGE=str(broken), TMPDIR=str(tmp_path))

    assert done.returncode == 1
    assert "the demo failed" in done.stderr
    assert docker("ps", "--all", "--quiet", "--filter=ancestor=nbexchange:from-script") == ""
