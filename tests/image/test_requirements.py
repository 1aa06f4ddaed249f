"""requirements/: what goes into the image is pyproject.toml's, whole, and cannot be swapped."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.image.recipes import PROJECT, TOP
from tests.support.parts import missing
from tests.support.process import LISTENING, wait_until
from tests.support.service import PATIENCE, Wire

SERVICE = TOP / "requirements" / "service.txt"
BUILD = TOP / "requirements" / "build.txt"
FILES = [SERVICE, BUILD]
EXTRAS = PROJECT["optional-dependencies"]
BUILDS_WITH = tomllib.loads((TOP / "pyproject.toml").read_text())["build-system"]["requires"]

PIN = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; (.+?))?((?: --hash=sha256:[0-9a-f]{64})+)")


def lines(file: Path) -> list[str]:
    """One requirement each, without comments."""
    joined = file.read_text().replace("\\\n    ", "")
    return [line for line in joined.splitlines() if not line.lstrip().startswith("#")]


def pins(file: Path) -> dict[str, str]:
    return {match[1]: match[2] for line in lines(file) if (match := PIN.fullmatch(line))}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_line_is_one_version_with_its_hashes_and_nothing_else(file):
    assert [line for line in lines(file) if not PIN.fullmatch(line)] == []
    assert lines(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_address_and_no_place_is_in_it(file):
    assert not re.search(
        r"://|index|find-links|file:|@|/(?:root|home|tmp|opt|work)/", file.read_text()
    )


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        *((SERVICE, one) for one in PROJECT["dependencies"]),
        *((SERVICE, one) for one in EXTRAS["postgresql"] + EXTRAS["objects"]),
        *((BUILD, one) for one in BUILDS_WITH),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_what_pyproject_asks_for_is_in_it(file, asked):
    requirement = Requirement(asked)

    version = pins(file).get(canonicalize_name(requirement.name))

    assert version, f"run `make lock`: {asked} is not in {file.name}"
    assert requirement.specifier.contains(version), f"run `make lock`: {asked}, but {version}"


def test_nothing_of_the_notebooks_side_is_in_it():
    foreign = {"nbgrader", "notebook", "ipython", "ipykernel", "requests", "pytest"}

    assert not foreign & set(pins(SERVICE))
    assert not [name for name in pins(SERVICE) if name.startswith(("jupyter", "nb"))]


@pytest.mark.slow
def test_the_service_starts_from_it_alone(tmp_path):
    """What the image does, without an engine: only what is locked, and our wheel."""
    python = tmp_path / "venv" / "bin" / "python"
    run("the environment", sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
    hashed = ("install", "--require-hashes", "--only-binary=:all:", "--requirement")
    run("pip", *pip, *hashed, SERVICE)
    run("pip", *pip, *hashed, BUILD)
    built = ("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={tmp_path}")
    run("the build", *pip, *built, TOP)
    (wheel,) = tmp_path.glob("*.whl")
    run("our wheel", *pip, "install", "--no-deps", wheel)
    run("pip", *pip, "check")

    with (tmp_path / "log").open("w+") as log:
        service = subprocess.Popen(
            [python.with_name("nbexchange"), "--ip=127.0.0.1", "--port=0"],
            cwd=tmp_path,
            env={"NBEXCHANGE_DATA": str(tmp_path / "data")},
            stderr=log,
        )
        try:
            said = wait_until(lambda: LISTENING.search((tmp_path / "log").read_text()))
            answer = Wire(f"http://127.0.0.1:{said[1]}", None).get("readyz")
        finally:
            service.terminate()
            ended = service.wait(PATIENCE)
    assert answer.status_code == 200
    assert ended == 0


def run(what: str, *command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if "Temporary failure in name resolution" in done.stderr:
        missing("no package index is reached")
    assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"
