"""The notebook image: what a person does in it reaches the service."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.image import engine
from tests.image.engine import docker, run
from tests.support.archives import tar_gz_of
from tests.support.course import WORK, receipt, release, rows
from tests.support.service import Service

pytestmark = pytest.mark.slow

IMAGE = "nbexchange-notebook:under-test"
JUPYTER = "nbexchange-jupyter:under-test"


@pytest.fixture(scope="module")
def notebook_image(base: str) -> str:
    here = engine.TOP / "tests" / "image" / "jupyter"
    engine.build(f"--build-arg=PYTHON_IMAGE={base}", f"--tag={JUPYTER}", here)
    engine.build(
        f"--build-arg=PYTHON_IMAGE={base}",
        f"--build-arg=NOTEBOOK_IMAGE={JUPYTER}",
        f"--file={engine.TOP / 'Dockerfile.notebook'}",
        f"--tag={IMAGE}",
        engine.TOP,
    )
    return IMAGE


@pytest.fixture
def notebook(notebook_image: str, service: Service) -> Iterator[str]:
    """Bob's, in which he may run commands."""
    name = f"nbexchange-{secrets.token_hex(4)}"
    token = service.enrol("bob", {"physics": "Student"})
    docker(
        *("run", "--detach", f"--name={name}", "--network=host"),
        *(f"--env=NBEXCHANGE_URL={service.url}", f"--env=NBEXCHANGE_TOKEN={token}"),
        *(notebook_image, "sleep", "infinity"),
    )
    yield name
    run("docker", "rm", "--force", "--time=0", name)


def test_a_student_fetches_and_submits_in_it(notebook: str, service: Service):
    receipt(release(service.instructor(), tar_gz_of({"p1.ipynb": WORK})))

    def nbgrader(*words: str) -> str:
        done = run("docker", "exec", notebook, "nbgrader", *words, "ps1", "--course=physics")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    nbgrader("fetch_assignment")
    said = nbgrader("submit")

    assert "Submitted as: physics ps1" in said
    assert len(rows(service, "submission")) == 1


def test_nbgraders_pages_and_ours_are_on_in_it(notebook: str):
    done = run("docker", "exec", notebook, "jupyter", "server", "extension", "list")
    listed = done.stdout + done.stderr

    for extension in ("nbexchange.plugin.pages", "nbgrader.server_extensions.assignment_list"):
        assert f"{extension} enabled" in listed.replace("\x1b[32m", "").replace("\x1b[0m", "")
