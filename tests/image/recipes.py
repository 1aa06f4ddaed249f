"""What the repository says of its images, read by programs and not by us."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
DOCKERFILES = (
    "Dockerfile",
    "Dockerfile.notebook",
    "tests/image/jupyter/Dockerfile",
    "tests/image/standins/Dockerfile",
)
CHART = yaml.safe_load((TOP / "chart" / "values.yaml").read_text())
PROGRAMS = Path(sys.executable).parent
BASE = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (TOP / "Dockerfile").read_text(), re.MULTILINE)[0]
PEOPLE = TOP / "examples" / "compose" / "config" / "people.json"

PARTS = {
    "sqlite": [],
    "mariadb": ["mariadb"],
    "postgresql": ["postgresql"],
    "mariadb-s3": ["mariadb", "s3"],
    "postgresql-s3": ["postgresql", "s3"],
}
"""What people can ask docker-compose.yml for."""


def env_file(place: Path, parts: list[str]) -> Path:
    """The .env that somebody makes who wants these parts."""
    file = place / "env"
    made = subprocess.run(
        [TOP / "scripts" / "compose-env", *parts], capture_output=True, text=True, check=True
    )
    file.write_text(made.stdout)
    return file


def compose_file(place: Path, parts: list[str]) -> dict[str, Any]:
    """docker-compose.yml as podman-compose reads it, which wants to see a podman for that."""
    podman = place / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)
    read = subprocess.run(
        [
            PROGRAMS / "podman-compose",
            f"--podman-path={podman}",
            f"--env-file={env_file(place, parts)}",
            f"--file={TOP / 'docker-compose.yml'}",
            "config",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    file: dict[str, Any] = yaml.safe_load(read.stdout)
    return file
