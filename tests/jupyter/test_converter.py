"""Notebooks that run for long, in nbgrader's pages: validate and autograde.

A notebook waits until a test lets it go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.jupyter.story import code, some_text
from tests.support.jupyter import Jupyter
from tests.support.nbgrader import Home, Zygote, write_notebook
from tests.support.process import wait_until

pytestmark = pytest.mark.slow

NOWHERE = "http://127.0.0.1:9/services/nbexchange"


@dataclass
class Notebook:
    """It says that it has started, and waits for `go`."""

    folder: Path

    def write(self, path: Path) -> None:
        self.folder.mkdir()
        source = (
            "import pathlib, time\n"
            f"pathlib.Path({str(self._started)!r}).write_text('')\n"
            f"while not pathlib.Path({str(self._go)!r}).exists():\n    time.sleep(0.05)\n"
            "print('over')"
        )
        write_notebook(path, cells=[some_text(), code("wait", source)])

    @property
    def _started(self) -> Path:
        return self.folder / "started"

    @property
    def _go(self) -> Path:
        return self.folder / "go"

    def wait(self) -> None:
        wait_until(self._started.exists, "a notebook that runs", pause=0.05)

    def go(self) -> None:
        self._go.write_text("")


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Iterator[Jupyter]:
    home = Home(tmp_path_factory.mktemp("person"), NOWHERE, "token", zygote, "physics")
    (home.work / "ps1").mkdir()
    with Jupyter(home) as server:
        yield server


def test_validating_stops_no_other_request_and_changes_nothing_of_the_server(
    jupyter: Jupyter, tmp_path: Path
):
    notebook = Notebook(tmp_path / "signs")
    notebook.write(jupyter.home.work / "ps1" / "p1.ipynb")

    with ThreadPoolExecutor(1) as person:
        validated: Future[Any] = person.submit(
            jupyter.post, "/assignments/validate", path="ps1/p1.ipynb"
        )
        notebook.wait()
        status = jupyter.get("/api/status")
        folder = jupyter.directory
        notebook.go()

        assert "error" not in validated.result()
    assert "started" in status
    assert folder == jupyter.home.work


def test_validating_says_what_nbgrader_says(jupyter: Jupyter):
    cells = [code("answer", "x = 1", solution=True), code("test", "assert x == 2", grade=True)]
    cells[1]["metadata"]["nbgrader"]["points"] = 1
    write_notebook(jupyter.home.work / "ps1" / "p2.ipynb", cells=cells)

    validated = jupyter.post("/assignments/validate", path="ps1/p2.ipynb")

    assert validated["success"], validated
    assert "AssertionError" in str(validated["value"])


def test_a_notebook_that_cannot_be_read_is_reported_without_a_traceback(jupyter: Jupyter):
    (jupyter.home.work / "ps1" / "broken.ipynb").write_text("{")

    validated = jupyter.post("/assignments/validate", path="ps1/broken.ipynb")

    assert not validated["success"]
    assert "Traceback" not in validated["value"]
    assert "\n" not in validated["value"]


def test_no_notebook_outside_of_the_servers_folder_is_validated(jupyter: Jupyter):
    answer = jupyter.ask("POST", "/assignments/validate", body={"path": "../../home/x.ipynb"})

    assert answer.status_code == 403


def test_autograding_stops_no_other_request_of_formgrader(jupyter: Jupyter, tmp_path: Path):
    work = jupyter.home.work
    notebook = Notebook(tmp_path / "signs")
    for place in ("source/hw", "release/hw", "submitted/ben/hw"):
        (work / place).mkdir(parents=True)
    notebook.write(work / "source" / "hw" / "p1.ipynb")
    generated = jupyter.post("/formgrader/api/assignment/hw/assign")
    assert generated["success"], generated
    (work / "release/hw/p1.ipynb").rename(work / "submitted/ben/hw/p1.ipynb")
    (work / "submitted/ben/hw/p1.ipynb").chmod(0o644)

    with ThreadPoolExecutor(1) as person:
        graded: Future[Any] = person.submit(
            jupyter.post, "/formgrader/api/submission/hw/ben/autograde"
        )
        notebook.wait()
        students = jupyter.ask("GET", "/formgrader/api/students")
        folder = jupyter.directory
        notebook.go()

        assert graded.result()["success"], graded.result()
    assert students.status_code == 200
    assert folder == work
    assert (work / "autograded" / "ben" / "hw" / "p1.ipynb").exists()
