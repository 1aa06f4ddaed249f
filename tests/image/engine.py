"""A container engine, and what is made of it. `scripts/with-engine` brings one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.image.recipes import BASE, PROGRAMS, TOP
from tests.support.parts import missing

TAG = "under-test"
IMAGE = f"nbexchange:{TAG}"

STANDINS = (
    "postgres:17-trixie",
    "mariadb:11.8",
    "versity/versitygw:v1.8.0",
    "curlimages/curl:8.16.0",
)
"""Images of docker-compose.yml that one of ours stands in for, where they cannot be fetched."""


def run(*command: object, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **more
    )


def docker(*words: object) -> str:
    """What it prints; fails with what it says."""
    done = run("docker", *words)
    assert done.returncode == 0, f"docker {' '.join(map(str, words))}: {done.stderr}"
    return done.stdout.strip()


def inspect(name: str, template: str) -> Any:
    return json.loads(docker("inspect", "--format", f"{{{{json {template}}}}}", name))


def must_answer() -> None:
    if shutil.which("docker") is None or run("docker", "info").returncode:
        missing("no container engine answers: run this below scripts/with-engine, as root")


def have(image: str) -> bool:
    return run("docker", "image", "inspect", image).returncode == 0


def build(*words: object) -> None:
    network = os.environ.get("NBEXCHANGE_BUILD_NETWORK")
    docker("build", "--quiet", *([f"--network={network}"] if network else []), *words)


def script(name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One of scripts/, as a person runs it."""
    program = str(PROGRAMS / "nbexchange")
    env = {**os.environ, "NBEXCHANGE": program, **variables}
    return run(TOP / "scripts" / name, *words, env=env)


def make_base() -> None:
    done = script("base-image")
    assert done.returncode == 0, done.stderr


def make_standins() -> None:
    wanted = [f"--tag={image}" for image in STANDINS if not have(image)]
    if wanted:
        build(f"--build-arg=PYTHON_IMAGE={BASE}", *wanted, TOP / "tests" / "image" / "standins")


def compose_program(place: Path) -> list[str]:
    """A Compose that knows what docker-compose.yml says: the machine's, or that of Debian 13."""
    if run("docker", "compose", "version").returncode == 0:
        return ["docker", "compose"]
    inside = "usr/libexec/docker/cli-plugins/docker-compose"
    docker(
        *("run", "--rm", "--network=host", f"--volume={place}:/out", BASE, "sh", "-euc"),
        "apt-get update -qq; cd /tmp; apt-get download -qq -o Acquire::Retries=5 docker-compose;"
        f"dpkg -x docker-compose_*.deb /tmp/it; cp /tmp/it/{inside} /out/",
    )
    return [str(place / "docker-compose")]
